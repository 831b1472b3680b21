//! Files of the archive written anew in large parts: where they are, or into another repository.
//!
//! A file that was archived while it was written has a part for every few seconds. Once it is closed
//! its bytes are put again, in as few parts as there can be; those that lead furthest at once count from
//! then on, and the small ones are spare, which [`expire`](super::expire) removes.

use binlog::Reader;

use super::catalog::File;
use super::part::Part;
use super::writer::{PART_LEN, Writer};
use super::{Archive, unreadable};
use crate::repo::Repository;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// So many parts more than a file needs are left as they are.
const FEW: u64 = 8;

/// What was copied of the binary logs.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct CopiedLogs {
    /// Files that were copied.
    pub files: u64,
    /// Files of which the other repository had all.
    pub there: u64,
    /// Bytes of the copied files in the other repository.
    pub stored_bytes: u64,
}

/// Whether a file has so many parts that it is worth while to write it anew.
pub fn is_scattered(file: &File) -> bool {
    let needed = file.end() / PART_LEN + 1;
    file.ending().is_some() && !file.has_holes() && file.parts.len() as u64 > needed + FEW
}

impl<'r> Archive<'r> {
    /// Access to the bytes of files that are known otherwise.
    pub(super) fn without_catalog(repository: &'r Repository) -> Self {
        Self { repository, logs: Vec::new(), history: None, unlogged: Default::default() }
    }

    /// Puts a file into a repository as if it came there from its server.
    pub(super) fn write_anew(
        &self,
        file: &File,
        target: &Repository,
        cancel: &Cancel,
    ) -> Result<Vec<Part>> {
        let input = self.open(file, cancel);
        let mut reader = Reader::new(input, &*file.name, Default::default()).map_err(unreadable)?;
        let mut writer = Writer::new(&file.name, file.number, Some(file.epoch.clone()))?;
        writer.magic()?;
        let mut parts = Vec::new();
        while let Some(event) = reader.next_event().map_err(unreadable)? {
            cancel.check()?;
            parts.extend(writer.event(&event, target, cancel)?);
        }
        parts.extend(writer.cut(target, cancel)?);
        Ok(parts)
    }

    /// Copies all files to another repository, as far as it does not have them.
    pub fn copy(
        &self,
        target: &Repository,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<CopiedLogs> {
        let there = Archive::read(target, cancel)?;
        let mut copied = CopiedLogs::default();
        for file in self.files() {
            cancel.check()?;
            if file.has_holes() || file.end() == 0 {
                let message = format!("bytes of {} behind {} are missing", file.name, file.end());
                return Err(Error::new(ErrorKind::Gap, message)
                    .advise("archive the file again with haulout binlog push"));
            }
            let known = there.file(file.server, &file.epoch, file.number);
            if known.is_some_and(|known| known.end() >= file.end()) {
                copied.there += 1;
                continue;
            }
            reporter.info(format!("copying {}", file.name));
            let parts = self.write_anew(file, target, cancel)?;
            copied.files += 1;
            copied.stored_bytes += parts.iter().map(|part| part.stored).sum::<u64>();
        }
        Ok(copied)
    }
}
