//! The text files of a backup: checkpoints, info, binlog position, `backup-my.cnf`.
//!
//! They are the contract with other tools and with older and newer servers, so their bytes are
//! those of the stock tool of the server's generation. What the stock files have no room for is
//! in a file of our own, `haulout_info.json`, which other tools ignore.
//!
//! | module | file |
//! |---|---|
//! | [`names`] | which names the files have |
//! | [`checkpoints`] | `*_checkpoints`: what kind of backup, which LSNs, prepared or not |
//! | [`info`] | `*_info`: who made the backup, when and how |
//! | [`binlog_info`] | `*_binlog_info`: where a replica goes on |
//! | [`backup_my_cnf`] | `backup-my.cnf`: the settings that the files depend on |
//! | [`data_file_path`] | the list of system tablespace files within it |
//! | [`partial`] | which tables a backup has |
//! | [`haulout_info`] | `haulout_info.json`: all of the above and more, for programs |

pub mod backup_my_cnf;
pub mod binlog_info;
pub mod checkpoints;
pub mod data_file_path;
pub mod haulout_info;
pub mod info;
pub mod names;
pub mod partial;

pub use backup_my_cnf::BackupMyCnf;
pub use binlog_info::BinlogInfo;
pub use checkpoints::{BackupType, Checkpoints};
pub use data_file_path::{DataFile, DataFilePath};
pub use haulout_info::HauloutInfo;
pub use info::BackupInfo;
pub use names::Naming;

use std::io::Read;
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// Largest metadata file that is read.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// The text of a metadata file; `None` when there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(damaged(path, "it is far too large"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| damaged(path, "it is not text"))
}

/// The text of a metadata file that a backup must have.
fn read_required_text(path: &Path) -> Result<String> {
    read_text(path)?.ok_or_else(|| {
        Error::new(ErrorKind::Damage, format!("{} is missing", path.display()))
            .advise("check that the directory holds a complete backup")
    })
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Damage, format!("{} is damaged: {why}", path.display()))
}

/// The `key = value` of a line; blanks around both are not part of them.
pub(crate) fn key_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    Some((key.trim(), value.trim()))
}

/// Text for one line of a metadata file: control characters become blanks.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
