//! What happened to tablespaces while they were copied.
//!
//! Under BLOCK_DDL the directory is the truth. Each tablespace there is known by its id and inode,
//! not by its name, and compared with what was copied: the same under the same name is done, the
//! same under another name was renamed, one that was not copied is copied now, and a copy of
//! something that is no longer there is to be deleted. The result is told to the prepare in the
//! stock tool's files: `old.ren` holds the new name, `name.del` is empty, `name.new` is a whole
//! tablespace; they are applied in the order delete, rename, new.

use std::collections::{BTreeMap, BTreeSet};

use innodb::SpaceId;

use super::inventory::ServerFile;
use super::job::{Copied, Identity};
use crate::Result;
use crate::sink::{StreamPath, backup_path};

/// A tablespace that is there under BLOCK_DDL.
#[derive(Clone, Debug)]
pub struct Present {
    /// Its file.
    pub file: ServerFile,
    /// What it is.
    pub identity: Identity,
}

/// What must be added to the backup.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Copied tablespaces that were dropped: their paths.
    pub deleted: Vec<StreamPath>,
    /// Copied tablespaces that have another name now: path as copied, path now.
    pub renamed: Vec<(StreamPath, StreamPath)>,
    /// Tablespaces that must be copied now.
    pub new: Vec<ServerFile>,
}

impl Changes {
    /// Takes away from what is to be copied whole the tablespaces that were not copied before under any
    /// name: they got another one at that moment, or were made since. The base of a delta may have them,
    /// for it goes on behind the LSN that the delta begins at. Told what changed of them, a prepare finds
    /// them by their ids; told that they are new, the stock tool has them twice. Those stay whose name
    /// the backup uses for something else.
    pub fn take_missed(&mut self, copied: &[Copied], present: &[Present]) -> Vec<ServerFile> {
        let known: BTreeSet<_> = copied.iter().filter_map(|copied| copied.identity.space).collect();
        let paths: BTreeSet<_> = copied.iter().map(|copied| &copied.file.path).collect();
        let is_missed = |space: &SpaceId| !known.contains(space);
        let missed: BTreeSet<_> = present
            .iter()
            .filter(|present| present.identity.space.as_ref().is_some_and(is_missed))
            .map(|present| &present.file.path)
            .filter(|path| !paths.contains(path))
            .filter(|path| !self.renamed.iter().any(|(_, new)| new == *path))
            .collect();
        self.new.extract_if(.., |file| missed.contains(&file.path)).collect()
    }

    /// Leaves no rename to a name that another renamed tablespace had: of a delta, the stock tool
    /// cannot prepare such. Those tablespaces are copied whole instead.
    pub fn untangle(&mut self, present: &[Present]) {
        let sources: BTreeSet<_> = self.renamed.iter().map(|(old, _)| old.clone()).collect();
        let tangled = self.renamed.extract_if(.., |(_, new)| sources.contains(new));
        let (old, new): (Vec<_>, Vec<_>) = tangled.unzip();
        let files = present.iter().filter(|present| new.contains(&present.file.path));
        self.new.extend(files.map(|present| present.file.clone()));
        let replaced: BTreeSet<_> = self.new.iter().map(|file| &file.path).collect();
        let taken = |path: &StreamPath| {
            replaced.contains(path) || self.renamed.iter().any(|(_, new)| new == path)
        };
        self.deleted.extend(old.into_iter().filter(|old| !taken(old)));
    }
}

/// Compares what was copied with what is there.
pub fn changes(copied: &[Copied], present: &[Present]) -> Changes {
    let mut changes = Changes::default();
    let by_path: BTreeMap<_, _> = copied.iter().map(|copied| (&copied.file.path, copied)).collect();
    let by_identity: BTreeMap<_, _> = copied
        .iter()
        .filter_map(|copied| Some(((copied.identity.space?, copied.identity.inode), copied)))
        .collect();
    let mut kept = BTreeSet::new();
    for present in present {
        let known = present
            .identity
            .space
            .and_then(|space| by_identity.get(&(space, present.identity.inode)));
        let known = known.filter(|copied| kept.insert(&copied.file.path));
        match known {
            Some(copied) if copied.file.path == present.file.path => {}
            Some(copied) => {
                changes.renamed.push((copied.file.path.clone(), present.file.path.clone()))
            }
            None => changes.new.push(present.file.clone()),
        }
    }
    let replaced: BTreeSet<_> = changes.new.iter().map(|file| &file.path).collect();
    for path in by_path.keys() {
        if !kept.contains(*path) && !replaced.contains(*path) {
            changes.deleted.push((*path).clone());
        }
    }
    changes
}

/// `db/t.ibd` with another extension.
pub fn with_extension(path: &StreamPath, extension: &str) -> Result<StreamPath> {
    backup_path([table_name(path), b".", extension.as_bytes()].concat())
}

/// `db/t.ibd` without its extension.
pub fn table_name(path: &StreamPath) -> &[u8] {
    let bytes = path.as_bytes();
    bytes.strip_suffix(b".ibd").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(name: &str) -> ServerFile {
        ServerFile { source: name.into(), path: backup_path(name).unwrap() }
    }

    fn identity(space: u32, inode: u64) -> Identity {
        Identity { space: Some(SpaceId(space)), inode: (1, inode) }
    }

    fn copied(name: &str, space: u32, inode: u64) -> Copied {
        Copied { file: file(name), identity: identity(space, inode) }
    }

    fn present(name: &str, space: u32, inode: u64) -> Present {
        Present { file: file(name), identity: identity(space, inode) }
    }

    fn path(name: &str) -> StreamPath {
        backup_path(name).unwrap()
    }

    #[test]
    fn nothing_happened() {
        let changes = changes(&[copied("d/a.ibd", 5, 50)], &[present("d/a.ibd", 5, 50)]);
        assert_eq!(changes, Changes::default());
    }

    #[test]
    fn two_tables_were_swapped() {
        let before = [copied("d/a.ibd", 5, 50), copied("d/b.ibd", 6, 60)];
        let now = [present("d/a.ibd", 6, 60), present("d/b.ibd", 5, 50)];
        let changes = changes(&before, &now);
        assert_eq!(
            changes.renamed,
            [(path("d/b.ibd"), path("d/a.ibd")), (path("d/a.ibd"), path("d/b.ibd"))]
        );
        assert!(changes.deleted.is_empty() && changes.new.is_empty());
    }

    #[test]
    fn a_table_was_renamed_and_another_made_in_its_place() {
        let changes = changes(
            &[copied("d/a.ibd", 5, 50)],
            &[present("d/b.ibd", 5, 50), present("d/a.ibd", 7, 70)],
        );
        assert_eq!(changes.renamed, [(path("d/a.ibd"), path("d/b.ibd"))]);
        assert_eq!(changes.new, [file("d/a.ibd")]);
        assert!(changes.deleted.is_empty());
    }

    #[test]
    fn untangled_changes_have_no_rename_to_a_name_in_use() {
        let before = [copied("d/a.ibd", 5, 50), copied("d/b.ibd", 6, 60), copied("d/c.ibd", 7, 70)];
        let now = [present("d/a.ibd", 6, 60), present("d/b.ibd", 5, 50), present("d/e.ibd", 7, 70)];
        let mut swapped = changes(&before, &now);
        swapped.untangle(&now);
        assert_eq!(swapped.renamed, [(path("d/c.ibd"), path("d/e.ibd"))]);
        assert_eq!(swapped.new, [file("d/a.ibd"), file("d/b.ibd")]);
        assert!(swapped.deleted.is_empty());

        let now = [present("d/b.ibd", 5, 50), present("d/c.ibd", 6, 60)];
        let mut chain = changes(&before[..2], &now);
        chain.untangle(&now);
        assert_eq!(chain.renamed, [(path("d/b.ibd"), path("d/c.ibd"))]);
        assert_eq!((chain.new, chain.deleted), (vec![file("d/b.ibd")], vec![path("d/a.ibd")]));
    }

    #[test]
    fn what_was_missed_is_not_new() {
        let before = [copied("d/a.ibd", 5, 50), copied("d/c.ibd", 9, 90)];
        let now = [
            present("d/a.ibd", 5, 50),
            // It had another name when the others were copied.
            present("d/m.ibd", 7, 70),
            // The youngest: it may have been made since, or not.
            present("d/n.ibd", 10, 100),
            // In the place of one that was copied.
            present("d/c.ibd", 8, 80),
            present("d/e.ibd", 9, 90),
            // Imported: the same id in another file.
            present("d/i.ibd", 5, 51),
        ];
        let mut changes = changes(&before, &now);
        assert_eq!(changes.take_missed(&before, &now), [file("d/m.ibd"), file("d/n.ibd")]);
        assert_eq!(changes.new, [file("d/c.ibd"), file("d/i.ibd")]);
        assert_eq!(Changes::default().take_missed(&[], &now), []);
    }

    #[test]
    fn a_rebuilt_table_is_new_even_with_a_recycled_inode() {
        let changes = changes(&[copied("d/a.ibd", 5, 50)], &[present("d/a.ibd", 6, 50)]);
        assert_eq!(changes.new, [file("d/a.ibd")]);
        assert!(changes.deleted.is_empty() && changes.renamed.is_empty());
    }

    #[test]
    fn an_imported_table_with_the_same_id_is_new() {
        let changes = changes(&[copied("d/a.ibd", 5, 50)], &[present("d/a.ibd", 5, 51)]);
        assert_eq!(changes.new, [file("d/a.ibd")]);
    }

    #[test]
    fn a_dropped_name_was_taken_over() {
        let before = [copied("d/a.ibd", 5, 50), copied("d/b.ibd", 6, 60)];
        let changes = changes(&before, &[present("d/a.ibd", 6, 60)]);
        assert_eq!(changes.renamed, [(path("d/b.ibd"), path("d/a.ibd"))]);
        assert_eq!(changes.deleted, [path("d/a.ibd")]);
    }

    #[test]
    fn a_tablespace_without_page_0_is_always_copied() {
        let blank =
            Present { file: file("d/a.ibd"), identity: Identity { space: None, inode: (1, 50) } };
        assert_eq!(changes(&[], &[blank]).new, [file("d/a.ibd")]);
    }
}
