//! `*_checkpoints`: what kind of backup this is, which LSNs it covers, whether it is prepared.
//!
//! This file decides what may be done with a backup. It is written last by a backup and
//! replaced atomically by prepare; there is never a moment without a valid one. Two of them
//! (see [`Naming`]) never stay side by side after a write.

use std::fmt::Write as _;
use std::path::Path;

use innodb::Lsn;

use super::{Naming, damaged, key_value, read_text};
use crate::io::durable;
use crate::{Error, ErrorKind, Result};

/// What a backup is, in the stock tool's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupType {
    /// `full-backuped`: complete, not prepared.
    Full,
    /// `incremental`: pages newer than another backup's `to_lsn`.
    Incremental,
    /// `log-applied`: prepared.
    Prepared,
}

impl BackupType {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full-backuped",
            Self::Incremental => "incremental",
            Self::Prepared => "log-applied",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Full, Self::Incremental, Self::Prepared].into_iter().find(|t| t.word() == word)
    }
}

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// What the backup is.
    pub backup_type: BackupType,
    /// Base of an incremental backup; 0 for a full one.
    pub from_lsn: Lsn,
    /// The server's newest checkpoint at the end of the backup: base of the next incremental.
    pub to_lsn: Lsn,
    /// End of the copied redo log.
    pub last_lsn: Lsn,
    /// Whether prepare shall write the binary log position itself. Not in files of 10.5.
    pub recover_binlog_info: Option<bool>,
}

impl Checkpoints {
    /// A full backup that is not prepared.
    pub const fn full(to_lsn: Lsn, last_lsn: Lsn) -> Self {
        Self {
            backup_type: BackupType::Full,
            from_lsn: Lsn(0),
            to_lsn,
            last_lsn,
            recover_binlog_info: Some(false),
        }
    }

    /// The same backup as one of what changed since `base`.
    #[must_use]
    pub const fn since(self, base: Lsn) -> Self {
        Self { backup_type: BackupType::Incremental, from_lsn: base, ..self }
    }

    /// The same backup, prepared.
    #[must_use]
    pub const fn prepared(self) -> Self {
        // Prepare has written the position.
        let recover_binlog_info = match self.recover_binlog_info {
            Some(_) => Some(false),
            None => None,
        };
        Self { backup_type: BackupType::Prepared, from_lsn: Lsn(0), recover_binlog_info, ..self }
    }

    /// The bytes of the file.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "backup_type = {}\nfrom_lsn = {}\nto_lsn = {}\nlast_lsn = {}\n",
            self.backup_type.word(),
            self.from_lsn,
            self.to_lsn,
            self.last_lsn
        );
        if let Some(recover) = self.recover_binlog_info {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "recover_binlog_info = {}", u8::from(recover));
        }
        text
    }

    /// Reads the content: keys in their order, `last_lsn` and `recover_binlog_info` optional,
    /// anything after them ignored. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
        let mut next = |wanted: &'static str| {
            let found = lines.peek().and_then(|line| key_value(line));
            let (_, value) = found.filter(|(key, _)| *key == wanted)?;
            lines.next();
            Some(value)
        };
        let missing = |key: &str| format!("it has no '{key}' where one belongs");
        let lsn = |key: &str, value: &str| {
            let number = value.parse().map(Lsn);
            number.map_err(|_| format!("'{key}' is '{value}', which is no LSN"))
        };
        let word = next("backup_type").ok_or_else(|| missing("backup_type"))?;
        let backup_type = BackupType::from_word(word)
            .ok_or_else(|| format!("the backup type '{word}' is unknown"))?;
        let from_lsn = next("from_lsn").ok_or_else(|| missing("from_lsn"))?;
        let to_lsn = next("to_lsn").ok_or_else(|| missing("to_lsn"))?;
        let last_lsn = next("last_lsn").unwrap_or("0");
        let recover_binlog_info = match next("recover_binlog_info") {
            None => None,
            Some("0") => Some(false),
            Some("1") => Some(true),
            Some(other) => return Err(format!("'recover_binlog_info' is '{other}', not 0 or 1")),
        };
        Ok(Self {
            backup_type,
            from_lsn: lsn("from_lsn", from_lsn)?,
            to_lsn: lsn("to_lsn", to_lsn)?,
            last_lsn: lsn("last_lsn", last_lsn)?,
            recover_binlog_info,
        })
    }

    /// Reads the file of a backup, under whichever name it has, and tells the name's family.
    pub fn read(dir: &Path) -> Result<(Self, Naming)> {
        for naming in Naming::PREFERRED_FIRST {
            let path = dir.join(naming.checkpoints());
            if let Some(text) = read_text(&path)? {
                let content = Self::parse(&text).map_err(|why| damaged(&path, why))?;
                return Ok((content, naming));
            }
        }
        let message = format!(
            "{} holds no complete backup: there is neither {} nor {}",
            dir.display(),
            Naming::MariadbBackup.checkpoints(),
            Naming::Xtrabackup.checkpoints()
        );
        Err(Error::new(ErrorKind::Damage, message)
            .advise("check the directory; a backup that failed must be taken again"))
    }

    /// Replaces the file of a backup and removes one under the other family's name, which would
    /// be stale from now on.
    pub fn write(&self, dir: &Path, naming: Naming) -> Result<()> {
        durable::write_file(&dir.join(naming.checkpoints()), self.to_text().as_bytes())?;
        durable::remove_file(&dir.join(naming.other().checkpoints()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 8938907\n\
                        last_lsn = 8938923\nrecover_binlog_info = 0\n";

    #[test]
    fn bytes_are_those_of_the_stock_tool() {
        let content = Checkpoints::full(Lsn(8_938_907), Lsn(8_938_923));
        assert_eq!(content.to_text(), FULL);
        assert_eq!(content.prepared().to_text(), FULL.replace("full-backuped", "log-applied"));
        assert_eq!(Checkpoints::parse(FULL), Ok(content));
    }

    #[test]
    fn files_of_10_5_and_older_are_read() {
        let text = "backup_type = incremental\nfrom_lsn = 5\nto_lsn = 7\nlast_lsn = 9\n";
        let content = Checkpoints::parse(text).unwrap();
        assert_eq!(content.recover_binlog_info, None);
        assert_eq!(content.to_text(), text);
        let text = "backup_type=log-applied\r\nfrom_lsn =0\nto_lsn= 7";
        assert_eq!(Checkpoints::parse(text).unwrap().last_lsn, Lsn(0));
    }

    #[test]
    fn wrong_files_are_refused() {
        for bad in [
            "",
            "from_lsn = 0\nbackup_type = full-backuped\nto_lsn = 1\n",
            "backup_type = full-prepared\nfrom_lsn = 0\nto_lsn = 1\n",
            "backup_type = full-backuped\nfrom_lsn = 0\n",
            "backup_type = full-backuped\nfrom_lsn = -1\nto_lsn = 1\n",
            "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 18446744073709551616\n",
            "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 1\nlast_lsn = 2\nrecover_binlog_info = 2\n",
        ] {
            assert!(Checkpoints::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn new_name_is_preferred_and_a_stale_one_removed() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Checkpoints::read(dir.path()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Damage);
        let full = Checkpoints::full(Lsn(5), Lsn(9));
        let old = dir.path().join("xtrabackup_checkpoints");
        let new = dir.path().join("mariadb_backup_checkpoints");
        full.write(dir.path(), Naming::Xtrabackup).unwrap();
        assert_eq!(Checkpoints::read(dir.path()).unwrap(), (full, Naming::Xtrabackup));
        std::fs::write(&new, full.prepared().to_text()).unwrap();
        assert_eq!(
            Checkpoints::read(dir.path()).unwrap(),
            (full.prepared(), Naming::MariadbBackup)
        );
        full.prepared().write(dir.path(), Naming::MariadbBackup).unwrap();
        assert!(!old.exists());
        full.prepared().write(dir.path(), Naming::Xtrabackup).unwrap();
        assert!(old.exists() && !new.exists());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(backup_type = full-backuped\n)?[a-z_=0-9 \n]{0,80}") {
            let _ = Checkpoints::parse(&text);
        }

        #[test]
        fn written_files_read_back(from: u64, to: u64, last: u64, recover: Option<bool>) {
            let content = Checkpoints {
                backup_type: BackupType::Incremental,
                from_lsn: Lsn(from),
                to_lsn: Lsn(to),
                last_lsn: Lsn(last),
                recover_binlog_info: recover,
            };
            prop_assert_eq!(Checkpoints::parse(&content.to_text()), Ok(content));
        }
    }
}
