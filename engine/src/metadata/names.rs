//! Which names the metadata files of a backup have.
//!
//! Servers up to 11.0 and their tools know `xtrabackup_*`, later ones `mariadb_backup_*`. A
//! backup is written under the names of its server's generation; reading accepts both and
//! prefers the new name, because a newer tool that prepares an older backup writes the new name
//! and leaves the old file behind, stale.

/// The two families of file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// `xtrabackup_*`: up to 11.0.
    Xtrabackup,
    /// `mariadb_backup_*`: from 11.1 on.
    MariadbBackup,
}

/// Settings that the files depend on. The same name in all generations.
pub const BACKUP_MY_CNF: &str = "backup-my.cnf";
/// What the stock files have no room for.
pub const HAULOUT_INFO: &str = "haulout_info.json";
/// The mark of a backup in which an export has rolled back transactions.
pub const ROLLED_BACK: &str = "haulout_rolled_back";
/// Binary log position found in InnoDB by prepare. The old name in all generations.
pub const BINLOG_POS_INNODB: &str = "xtrabackup_binlog_pos_innodb";
/// Corrupt pages that the backup was told to accept.
pub const CORRUPTED_PAGES: &str = "innodb_corrupted_pages";
/// Galera position of the donor. The same name in all generations.
pub const DONOR_GALERA_INFO: &str = "donor_galera_info";

impl Naming {
    /// Both families, the one that reading prefers first.
    pub const PREFERRED_FIRST: [Self; 2] = [Self::MariadbBackup, Self::Xtrabackup];

    /// The other family.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Xtrabackup => Self::MariadbBackup,
            Self::MariadbBackup => Self::Xtrabackup,
        }
    }

    /// What kind of backup, which LSNs, prepared or not.
    pub const fn checkpoints(self) -> &'static str {
        match self {
            Self::Xtrabackup => "xtrabackup_checkpoints",
            Self::MariadbBackup => "mariadb_backup_checkpoints",
        }
    }

    /// Who made the backup, when and how.
    pub const fn info(self) -> &'static str {
        match self {
            Self::Xtrabackup => "xtrabackup_info",
            Self::MariadbBackup => "mariadb_backup_info",
        }
    }

    /// Where a replica of this server goes on.
    pub const fn binlog_info(self) -> &'static str {
        match self {
            Self::Xtrabackup => "xtrabackup_binlog_info",
            Self::MariadbBackup => "mariadb_backup_binlog_info",
        }
    }

    /// Where a replica of this server's primary goes on.
    pub const fn slave_info(self) -> &'static str {
        match self {
            Self::Xtrabackup => "xtrabackup_slave_info",
            Self::MariadbBackup => "mariadb_backup_slave_info",
        }
    }

    /// Galera position.
    pub const fn galera_info(self) -> &'static str {
        match self {
            Self::Xtrabackup => "xtrabackup_galera_info",
            Self::MariadbBackup => "mariadb_backup_galera_info",
        }
    }

    const fn all(self) -> [&'static str; 5] {
        [self.checkpoints(), self.info(), self.binlog_info(), self.slave_info(), self.galera_info()]
    }
}

/// Whether a file in the root of a backup describes the backup, of whichever generation, and is
/// no file of the server.
pub fn is_metadata(name: &str) -> bool {
    let common = [
        BACKUP_MY_CNF,
        HAULOUT_INFO,
        ROLLED_BACK,
        BINLOG_POS_INNODB,
        CORRUPTED_PAGES,
        DONOR_GALERA_INFO,
    ];
    common.contains(&name) || Naming::PREFERRED_FIRST.iter().any(|n| n.all().contains(&name))
}

/// Whether a metadata file stays in the backup when its files are placed in a data directory.
/// The info and Galera files go along, as with the stock tool: cluster scripts read them there.
pub fn stays_in_backup(name: &str) -> bool {
    let common = [BACKUP_MY_CNF, HAULOUT_INFO, ROLLED_BACK, CORRUPTED_PAGES, "xtrabackup_binary"];
    common.contains(&name)
        || Naming::PREFERRED_FIRST
            .iter()
            .any(|naming| name == naming.checkpoints() || name == naming.binlog_info())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_metadata() {
        for name in ["xtrabackup_info", "mariadb_backup_slave_info", "backup-my.cnf"] {
            assert!(is_metadata(name), "{name}");
        }
        for name in ["ibdata1", "xtrabackup_logfile", "aria_log_control", "info"] {
            assert!(!is_metadata(name), "{name}");
        }
    }

    #[test]
    fn galera_files_go_along_but_states_of_the_backup_do_not() {
        assert!(!stays_in_backup("xtrabackup_galera_info"));
        assert!(!stays_in_backup("donor_galera_info"));
        assert!(stays_in_backup("mariadb_backup_checkpoints"));
        assert!(stays_in_backup("xtrabackup_binlog_info"));
    }
}
