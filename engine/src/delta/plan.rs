//! What becomes of the tablespaces of a base when a delta is applied to it.
//!
//! A tablespace is told by its id, and not by its name: tables are renamed, swapped, dropped and made
//! between two backups. The plan follows from the files that are there, so after an interruption it
//! is made again and leads to the same end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use innodb::space::SpaceHeader;
use innodb::{PageNo, SpaceId};

use super::pages::Length;
use super::source::{ChangedFile, DeltaDir, header_of, list};
use crate::capture::rocksdb;
use crate::metadata::partial::Tables;
use crate::prepare::inventory::is_undo;
use crate::prepare::markers::WAITING;
use crate::{Error, ErrorKind, Result};

/// The plan.
#[derive(Debug, Default)]
pub struct Plan {
    /// Files to remove, relative to the base.
    pub removed: Vec<PathBuf>,
    /// Files that get another name: all at once, because tables swap names.
    pub renamed: Vec<(PathBuf, PathBuf)>,
    /// Where pages are written to.
    pub changed: Vec<Change>,
    /// Whether the base has some tables only.
    of_some: bool,
}

/// A tablespace file that gets pages.
#[derive(Debug)]
pub struct Change {
    /// The pages.
    pub file: ChangedFile,
    /// What the base knows of the tablespace; none when the file has to be made.
    pub base: Option<SpaceHeader>,
    /// Whether the file is made.
    pub made: bool,
    /// The first page of the file, within its tablespace.
    pub first_page: PageNo,
    /// What becomes of its length.
    pub length: Length,
}

/// The tablespace files of a base.
struct BaseFiles {
    by_id: BTreeMap<SpaceId, (PathBuf, SpaceHeader)>,
    /// Those in the folders of databases, whether they tell their id or not.
    tables: BTreeSet<PathBuf>,
}

impl BaseFiles {
    fn read(base: &Path) -> Result<Self> {
        let mut files = Vec::new();
        list(base, Path::new(""), &mut files)?;
        let mut found = Self { by_id: BTreeMap::new(), tables: BTreeSet::new() };
        for file in files {
            let Some(name) = file.to_str().filter(|_| !file.starts_with(rocksdb::DIRECTORY)) else {
                continue;
            };
            let is_table = file.components().count() == 2
                && name.strip_suffix(WAITING).unwrap_or(name).ends_with(".ibd");
            if !is_table && !is_undo(name) {
                continue;
            }
            if let Some(header) = header_of(&base.join(&file))?
                && let Some((other, _)) = found.by_id.insert(header.id, (file.clone(), header))
            {
                let message = format!(
                    "{} and {} are both tablespace {}",
                    other.display(),
                    file.display(),
                    header.id
                );
                return Err(Error::new(ErrorKind::Damage, message)
                    .advise("one of the files does not belong in this backup"));
            }
            if is_table {
                found.tables.insert(file);
            }
        }
        Ok(found)
    }
}

impl Plan {
    /// What `delta` makes of the backup in `base`. Changes nothing.
    ///
    /// # Errors
    /// When the delta has only a part of something that the base lacks.
    pub fn new(base: &Path, delta: &DeltaDir) -> Result<Self> {
        let mut files = BaseFiles::read(base)?;
        let of_some = Tables::read(base)? != Tables::All;
        let mut plan = Self { of_some, ..Self::default() };
        let system: Vec<String> = delta
            .settings
            .data_file_path
            .files()
            .iter()
            .map(|file| file.stored_name().to_string_lossy().into_owned())
            .collect();
        let mut first_page = 0;
        for name in &system {
            let path = base.join(name);
            let Some(file) = delta.changed.iter().find(|changed| changed.name == *name) else {
                continue;
            };
            let header = header_of(&base.join(system.first().unwrap_or(name)))?;
            let length = if system.len() == 1 { Length::Follows } else { Length::Stays };
            let made = !path.exists();
            plan.add(delta, file, header, made, PageNo(first_page), length)?;
            // The next one begins behind it.
            let bytes = path.metadata().map_or(0, |metadata| metadata.len());
            let pages = bytes / delta.settings.page_size.bytes() as u64;
            first_page = first_page.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
        }
        let mut kept = BTreeSet::new();
        for file in &delta.changed {
            if system.contains(&file.name) {
                continue;
            }
            let target = PathBuf::from(&file.name);
            let undo = is_undo(&file.name);
            let found = files.by_id.remove(&file.meta.space);
            // The files of undo tablespaces keep their names.
            let found = found.filter(|(path, _)| !undo || *path == target);
            let length = if undo { Length::Follows } else { Length::Grows };
            let header = found.as_ref().map(|(_, header)| *header);
            plan.add(delta, file, header, found.is_none(), PageNo(0), length)?;
            if let Some((path, _)) = found {
                kept.insert(path.clone());
                if path != target {
                    plan.renamed.push((path, target));
                }
            }
        }
        plan.removed = files.tables.into_iter().filter(|path| !kept.contains(path)).collect();
        Ok(plan)
    }

    fn add(
        &mut self,
        delta: &DeltaDir,
        file: &ChangedFile,
        base: Option<SpaceHeader>,
        made: bool,
        first_page: PageNo,
        length: Length,
    ) -> Result<()> {
        // Up to 10.5 the stock tool takes along tables of which redo makes the first page.
        let redo_makes_it = !self.of_some && delta.checkpoints.recover_binlog_info.is_none();
        if made && !file.has_page_0 && !redo_makes_it {
            let message = format!(
                "{} has changes of {} (tablespace {}), which the base does not have",
                delta.dir.display(),
                file.name,
                file.meta.space
            );
            return Err(Error::new(ErrorKind::Damage, message)
                .advise("the base is not the one that the delta was taken from"));
        }
        if let Some(header) = &base
            && header.flags.physical_size() != file.meta.page_size
        {
            let message = format!(
                "{} has pages of {} bytes in the delta, of {} in the base",
                file.name,
                file.meta.page_size,
                header.flags.physical_size()
            );
            return Err(Error::new(ErrorKind::Damage, message)
                .advise("the base is not the one that the delta was taken from"));
        }
        self.changed.push(Change { file: file.clone(), base, made, first_page, length });
        Ok(())
    }
}
