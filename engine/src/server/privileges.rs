//! Whether the account may do what a backup needs, asked before anything is copied.
//!
//! Without this question a missing privilege shows only near the end of the run. SHOW GRANTS
//! lists what is in effect: grants of the account, of its active roles and of PUBLIC, so every
//! grant ON *.* counts, whoever it is to.

use std::collections::BTreeSet;

use super::profile::{ServerProfile, ServerVersion};
use super::session::{Session, Wait};
use crate::{Error, ErrorKind, Result};

/// From this version on SUPER does not imply BINLOG MONITOR.
const SUPER_SPLIT: ServerVersion = ServerVersion::new(11, 0, 0);

/// Global privileges of an account, in upper case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    global: BTreeSet<String>,
    inactive_roles: bool,
    /// As the server writes them, without hashes of passwords.
    lines: Vec<String>,
}

impl Privileges {
    /// Reads the privileges of the session's account.
    pub fn read(session: &mut Session) -> Result<Self> {
        let wait = Wait::short("reading the account's privileges");
        let rows = session.query("SHOW GRANTS", wait)?;
        let lines = rows.iter().filter_map(|row| row.at(0)).map(String::from_utf8_lossy);
        Ok(Self::from_grants(lines))
    }

    fn from_grants(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut found = Self::default();
        for line in lines {
            let Some(rest) = line.as_ref().strip_prefix("GRANT ") else { continue };
            let shown = line.as_ref().split(" IDENTIFIED ").next().unwrap_or_default();
            found.lines.push(shown.to_owned());
            match rest.split_once(" ON *.* TO ") {
                Some((privileges, _)) => {
                    let names = privileges.split(',').map(|name| name.trim().to_ascii_uppercase());
                    found.global.extend(names);
                }
                // Roles are granted without ON; the privileges of active ones are listed too.
                None => found.inactive_roles |= !rest.contains(" ON "),
            }
        }
        found
    }

    /// Whether one of these global privileges is held.
    fn has_any(&self, names: &[&str]) -> bool {
        self.global.contains("ALL PRIVILEGES")
            || self.global.contains("ALL")
            || names.iter().any(|name| self.global.contains(*name))
    }

    /// Privileges that a backup of this server needs and the account lacks.
    pub fn missing(
        &self,
        version: ServerVersion,
        log_bin: bool,
        needs: Needs,
    ) -> Vec<&'static str> {
        let mut missing = Vec::new();
        let replicates = needs.replica_info || needs.hold_replication;
        let with_super = |names: &[&str]| {
            self.has_any(names) || (version < SUPER_SPLIT && self.has_any(&["SUPER"]))
        };
        if !needs.without_locks && !self.has_any(&["RELOAD"]) {
            missing.push("RELOAD");
        }
        if !needs.without_locks && !self.has_any(&["PROCESS"]) {
            missing.push("PROCESS");
        }
        if log_bin && !with_super(&["BINLOG MONITOR", "REPLICATION CLIENT"]) {
            missing.push("BINLOG MONITOR");
        }
        if replicates && !with_super(&["SLAVE MONITOR", "REPLICA MONITOR"]) {
            missing.push("SLAVE MONITOR");
        }
        if needs.hold_replication
            && !with_super(&["REPLICATION SLAVE ADMIN", "REPLICATION REPLICA ADMIN"])
        {
            missing.push("REPLICATION SLAVE ADMIN");
        }
        // Its variables are those of a plugin, for which there is no lesser privilege.
        if needs.rocksdb && !self.has_any(&["SUPER"]) {
            missing.push("SUPER");
        }
        missing
    }

    /// Whether every table can be seen.
    pub fn can_select_everywhere(&self) -> bool {
        self.has_any(&["SELECT"])
    }
}

/// What [`check`] found to be short of ideal, but no reason to fail.
pub type Warnings = Vec<String>;

/// What a backup does that not every backup does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// MyRocks is a part of it.
    pub rocksdb: bool,
    /// Nothing is locked.
    pub without_locks: bool,
    /// The positions of replication are read.
    pub replica_info: bool,
    /// Replication is stopped for a while.
    pub hold_replication: bool,
}

/// Fails with the exact GRANT statement when a privilege is missing. Returns warnings.
pub fn check(session: &mut Session, profile: &ServerProfile, needs: Needs) -> Result<Warnings> {
    let privileges = Privileges::read(session)?;
    let wait = Wait::short("asking for the account's name");
    let account = session.value("SELECT CURRENT_USER()", wait)?.unwrap_or_default();
    let needs = Needs { rocksdb: needs.rocksdb && profile.rocksdb.is_some(), ..needs };
    let missing = privileges.missing(profile.version, profile.log_bin, needs);
    if missing.is_empty() {
        let mut warnings = Warnings::new();
        if !privileges.can_select_everywhere() {
            let statement = grant("SELECT", &account);
            warnings.push(format!(
                "the account lacks the global SELECT privilege, so the server does not show it \
                 every table; run: {statement}"
            ));
        }
        return Ok(warnings);
    }
    let names = missing.join(", ");
    let statement = grant(&names, &account);
    let advice = if privileges.inactive_roles {
        format!("run: {statement} (or, if a role of the account has them, SET DEFAULT ROLE for it)")
    } else {
        format!("run: {statement}")
    };
    let advice = match missing.contains(&"SUPER") {
        true => format!("{advice} (SUPER is for the checkpoint of MyRocks, which can be left out)"),
        false => advice,
    };
    // The words "missing required privilege" are what scripts look for.
    let each = |name: &&str| format!("missing required privilege {name} on *.*");
    let each = missing.iter().map(each).collect::<Vec<_>>().join(", ");
    let message = format!("{each} for {account}, which has: {}", privileges.lines.join("; "));
    Err(Error::new(ErrorKind::Server, message).advise(advice))
}

/// The statement that grants `privileges`. The host part begins at the last at sign: a user
/// name may contain one, a host may not.
fn grant(privileges: &str, account: &str) -> String {
    let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    format!("GRANT {privileges} ON *.* TO {}@{};", quoted(user), quoted(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V10_11: ServerVersion = ServerVersion::new(10, 11, 8);

    fn missing(lines: &[&str]) -> Vec<&'static str> {
        Privileges::from_grants(lines).missing(V10_11, true, Needs::default())
    }

    #[test]
    fn all_privileges_suffice() {
        let all = "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION";
        assert!(missing(&[all]).is_empty());
        assert!(Privileges::from_grants([all]).can_select_everywhere());
    }

    #[test]
    fn grants_on_one_database_do_not_count() {
        let line = "GRANT ALL PRIVILEGES ON `a`.* TO `u`@`%`";
        assert_eq!(missing(&[line]), ["RELOAD", "PROCESS", "BINLOG MONITOR"]);
    }

    #[test]
    fn grants_of_an_active_role_count() {
        let lines = [
            "GRANT `r1` TO `u1`@`localhost`",
            "GRANT USAGE ON *.* TO `u1`@`localhost` IDENTIFIED BY PASSWORD '*B6'",
            "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO `r1`",
        ];
        assert!(missing(&lines).is_empty());
        assert_eq!(missing(&lines[..2]).len(), 3);
        assert!(Privileges::from_grants(&lines[..2]).inactive_roles);
    }

    #[test]
    fn old_name_and_super_allow_to_see_the_binary_log() {
        for name in ["REPLICATION CLIENT", "SUPER"] {
            let line = format!("GRANT RELOAD, PROCESS, {name} ON *.* TO `u`@`%`");
            assert!(missing(&[&line]).is_empty(), "{name}");
        }
        let line = "GRANT RELOAD, PROCESS, SUPER ON *.* TO `u`@`%`";
        let later = ServerVersion::new(11, 4, 2);
        let later = Privileges::from_grants([line]).missing(later, true, Needs::default());
        assert_eq!(later, ["BINLOG MONITOR"]);
        assert!(
            Privileges::from_grants(["GRANT RELOAD, PROCESS ON *.* TO `u`@`%`"])
                .missing(V10_11, false, Needs::default())
                .is_empty()
        );
    }

    #[test]
    fn a_checkpoint_of_myrocks_needs_super() {
        let missing = |grants: &str| {
            let line = format!("GRANT {grants} ON *.* TO `u`@`%`");
            Privileges::from_grants([line]).missing(
                V10_11,
                false,
                Needs { rocksdb: true, ..Needs::default() },
            )
        };
        assert_eq!(missing("RELOAD, PROCESS"), ["SUPER"]);
        assert!(missing("RELOAD, PROCESS, SUPER").is_empty());
    }

    #[test]
    fn statement_quotes_the_account() {
        assert_eq!(grant("RELOAD", "o'brien@h@%"), r"GRANT RELOAD ON *.* TO 'o\'brien@h'@'%';");
    }
}
