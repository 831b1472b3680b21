//! The files of LOAD DATA statements, written out so that their statements can be replayed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Names to try before giving up.
const TRIES: u32 = 1000;

/// Files that statements still wait for.
#[derive(Debug, Default)]
pub(super) struct LoadFiles {
    waiting: HashMap<u32, PathBuf>,
}

impl LoadFiles {
    /// Makes a file with its first piece.
    pub(super) fn begin(
        &mut self,
        dir: &Path,
        file_id: u32,
        data: &[u8],
    ) -> Result<(), (PathBuf, std::io::Error)> {
        let mut tried = dir.to_owned();
        for version in 0..TRIES {
            tried = dir.join(format!("SQL_LOAD_MB-{file_id:x}-{version:x}"));
            match OpenOptions::new().write(true).create_new(true).open(&tried) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err((tried, error)),
                Ok(mut file) => {
                    file.write_all(data).map_err(|error| (tried.clone(), error))?;
                    self.waiting.insert(file_id, tried);
                    return Ok(());
                }
            }
        }
        Err((tried, ErrorKind::AlreadyExists.into()))
    }

    /// Adds a piece; `false` if the file's beginning was not seen.
    pub(super) fn append(
        &mut self,
        file_id: u32,
        data: &[u8],
    ) -> Result<bool, (PathBuf, std::io::Error)> {
        let Some(path) = self.waiting.get(&file_id) else { return Ok(false) };
        let opened = File::options().append(true).open(path);
        let written = opened.and_then(|mut file| file.write_all(data));
        written.map(|()| true).map_err(|error| (path.clone(), error))
    }

    /// The file that a statement reads.
    pub(super) fn take(&mut self, file_id: u32) -> Option<PathBuf> {
        self.waiting.remove(&file_id)
    }
}
