//! The files of a redo log other than `ib_logfile0`.
//!
//! Servers since 10.5.2 write one file only. What earlier ones of 10.5 left, with the same format,
//! can be several files of one size, `ib_logfile1` and so on.
//!
//! Servers since 13.0 can keep all of their log (`innodb_log_archive=ON`): there is no
//! `ib_logfile0` then but a row of files, each named after the LSN that it starts with:
//! `ib_0000000000003000.log`. Their format is not supported yet, and is recognised by these names.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// More files than a server could be told to use.
const FILES_MAX: usize = 100;

/// Whether a name is that of a file of an archived log.
pub fn is_archived(name: &[u8]) -> bool {
    let digits = name.strip_prefix(b"ib_").and_then(|rest| rest.strip_suffix(b".log"));
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether the log whose first file should be at `path` is an archived one.
pub fn archive_instead_of(path: &Path) -> bool {
    let Some(Ok(entries)) = path.parent().map(fs::read_dir) else { return false };
    entries.flatten().any(|entry| is_archived(entry.file_name().as_encoded_bytes()))
}

/// The refusal of a server that archives its log.
pub fn archived() -> Error {
    Error::new(
        ErrorKind::Server,
        "the server archives its redo log (innodb_log_archive=ON), in a format that is not \
         supported yet",
    )
    .advise(
        "SET GLOBAL innodb_log_archive=OFF for the time of the backup; the archived log has a gap \
         then, so keep the log files of before together with a backup of before",
    )
}

/// The files behind the first one, which is at `path` and has `size` bytes.
pub fn further(path: &Path, size: u64) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for number in 1..=FILES_MAX {
        let path = path.with_file_name(format!("ib_logfile{number}"));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(Error::io("open the redo log", &path, error)),
        };
        let found = file.metadata().map_err(|e| Error::io("read the size of", &path, e))?.len();
        if found != size {
            return Err(Error::new(
                ErrorKind::Damage,
                format!(
                    "{} has {found} bytes, and ib_logfile0 has {size}: they are not parts of one log",
                    path.display()
                ),
            )
            .advise("if the file is left over from an older version of the server, move it away"));
        }
        files.push(file);
    }
    Err(Error::new(ErrorKind::Damage, "the redo log has more files than a server can have"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn archived_logs_are_known_by_their_names() {
        for name in ["ib_0000000000003000.log", "ib_00000000fedcba98.log"] {
            assert!(is_archived(name.as_bytes()), "{name}");
        }
        for name in ["ib_logfile0", "ib_000000000003000.log", "ib_000000000000300g.log", "ib_.log"]
        {
            assert!(!is_archived(name.as_bytes()), "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("ib_logfile0");
        assert!(!archive_instead_of(&log));
        fs::write(dir.path().join("ib_0000000000003000.log"), "").unwrap();
        assert!(archive_instead_of(&log));
    }
}
