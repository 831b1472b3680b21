//! Which server a repository belongs to, and which of its backups came last.
//!
//! A prefix holds the backups of one server. A second one that writes to it, because a configuration
//! was copied, would make LATEST mean now this server and now that one; its backup is refused unless
//! that is meant. Clones and failovers are other servers: they are accepted once, and then theirs is
//! the repository.
//!
//! What came last is told by a number that each backup takes from those before it, not by a clock:
//! clocks jump.

use super::Repository;
use super::manifest::Manifest;
use crate::metadata::haulout_info::ServerIdentity;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// How many of the backups with the latest names are looked at.
pub(super) const LOOK_AT: usize = 16;
/// Clocks may differ by so much.
const SKEW_SECONDS: i64 = 120;

impl Repository {
    /// The heads of the backups with the latest names. What is damaged tells nothing.
    fn newest(&self, cancel: &Cancel) -> Result<Vec<Manifest>> {
        let mut heads = Vec::new();
        for name in self.folders(cancel)?.iter().rev() {
            match self.head(name, cancel) {
                Ok(head) => heads.push(head),
                Err(error)
                    if matches!(error.kind(), ErrorKind::NothingMatches | ErrorKind::Damage) => {}
                Err(error) => return Err(error),
            }
            if heads.len() == LOOK_AT {
                break;
            }
        }
        Ok(heads)
    }

    /// The number of a new backup of `server`, which has to be that of the latest one, unless
    /// another is accepted.
    pub(crate) fn admit(
        &self,
        server: &ServerIdentity,
        accept_new_server: bool,
        cancel: &Cancel,
        reporter: Option<&dyn Reporter>,
    ) -> Result<u64> {
        let heads = self.newest(cancel)?;
        let Some(last) = heads.iter().max_by_key(|head| head.order()) else { return Ok(1) };
        let differences = differences(&last.server, server);
        if !differences.is_empty() && !accept_new_server {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "the repository in {} has backups of another server: {}, in {}",
                    self.store.describe(),
                    differences.join(", "),
                    last.name
                ),
            )
            .advise(
                "give each server a repository of its own; if this one takes the other's place, \
                 say --accept-new-server once",
            ));
        }
        let Some(reporter) = reporter else { return Ok(last.sequence.saturating_add(1)) };
        if differences.is_empty()
            && let (Some(uid), Some(other)) = (&server.uid, &last.server.uid)
            && uid != other
        {
            reporter.warn(format!(
                "the server has another server_uid than in {}, and all else is the same: make sure \
                 that no second server of the same names backs up to here",
                last.name
            ));
        }
        let now = jiff::Timestamp::now();
        let ahead = |head: &&Manifest| head.ended.as_second() > now.as_second() + SKEW_SECONDS;
        if let Some(head) = heads.iter().find(ahead) {
            reporter.warn(format!(
                "the clock of this machine says {}, but {} ended at {}: one of the clocks was or is \
                 wrong; LATEST is right in spite of it, times of backups are not",
                now.strftime("%F %TZ"),
                head.name,
                head.ended.strftime("%F %TZ")
            ));
        }
        Ok(last.sequence.saturating_add(1))
    }
}

impl Manifest {
    /// What LATEST goes by: the number of the backup; its time between two that ran at once.
    pub fn order(&self) -> (u64, jiff::Timestamp) {
        (self.sequence, self.ended)
    }
}

/// What tells one server from another, in words. The version may change, and so may the
/// `server_uid`, which is that of a network card.
pub(super) fn differences(one: &ServerIdentity, other: &ServerIdentity) -> Vec<String> {
    let pairs = [
        ("host", one.hostname.clone(), other.hostname.clone()),
        ("port", one.port.to_string(), other.port.to_string()),
        ("datadir", one.datadir.clone(), other.datadir.clone()),
        ("server_id", one.server_id.to_string(), other.server_id.to_string()),
    ];
    let differ = pairs.into_iter().filter(|(_, one, other)| one != other);
    differ.map(|(what, one, other)| format!("{what} {one} instead of {other}")).collect()
}
