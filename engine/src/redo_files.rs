//! The further files of a redo log: `ib_logfile1` and so on.
//!
//! Servers since 10.5.2 write one file only. What earlier ones of 10.5 left, with the same format,
//! can be several files of one size.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// More files than a server could be told to use.
const FILES_MAX: usize = 100;

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
