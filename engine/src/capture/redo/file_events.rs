//! What the redo log says about files: which tablespace has which name, and what changes late.
//!
//! A file record is durable before the file is created, renamed or deleted, so the names here are
//! never behind the directory. One path belongs to several tablespaces over time: the later
//! record wins.

use std::collections::{HashMap, HashSet};

use innodb::redo::FileRecord;
use innodb::space::file_name::is_intermediate;
use innodb::{Lsn, SpaceId};

/// At most this many late events are kept: one is enough to fail.
const LATE_MAX: usize = 20;

/// Names of tablespaces as `database/table.ibd`, by what the log said last.
#[derive(Clone, Debug, Default)]
pub struct FileEvents {
    by_path: HashMap<Vec<u8>, SpaceId>,
    /// Paths at which a file was created, deleted or renamed.
    touched: HashSet<Vec<u8>>,
    locked_at: Option<Lsn>,
    late: Vec<String>,
    base_end: Option<Lsn>,
    /// Tablespaces that were there at that LSN.
    in_base: HashSet<SpaceId>,
}

impl FileEvents {
    /// None yet. What was there at `base_end`, where the base of a delta ends, is kept.
    pub fn since_base(base_end: Option<Lsn>) -> Self {
        Self { base_end, ..Self::default() }
    }

    /// Takes note of a record at `lsn`.
    pub fn note(&mut self, lsn: Lsn, record: FileRecord<'_>) {
        let late = self.locked_at.is_some_and(|locked| lsn >= locked);
        if self.base_end.is_some_and(|end| lsn < end) {
            match record {
                FileRecord::Create(space, path)
                | FileRecord::Modify(space, path)
                | FileRecord::Rename(space, _, path) => {
                    // What is not finished is not copied.
                    match is_internal(path) {
                        true => self.in_base.remove(&space),
                        false => self.in_base.insert(space),
                    };
                }
                FileRecord::Delete(space, _) => {
                    self.in_base.remove(&space);
                }
                FileRecord::Checkpoint(_) | FileRecord::Padding => {}
            }
        }
        match record {
            FileRecord::Create(space, path) => {
                self.by_path.insert(table_path(path), space);
                self.touched.insert(table_path(path));
                self.note_late(late, "created", path);
            }
            FileRecord::Modify(space, path) => {
                self.by_path.insert(table_path(path), space);
            }
            FileRecord::Rename(space, from, to) => {
                self.forget(space, from);
                self.by_path.insert(table_path(to), space);
                self.touched.insert(table_path(to));
                // A rename from an intermediate name ends a statement that began before.
                self.note_late(late && !is_internal(from), "renamed", from);
            }
            FileRecord::Delete(space, path) => {
                self.forget(space, path);
                self.note_late(late, "dropped", path);
            }
            FileRecord::Checkpoint(_) | FileRecord::Padding => {}
        }
    }

    fn forget(&mut self, space: SpaceId, path: &[u8]) {
        let path = table_path(path);
        if self.by_path.get(&path) == Some(&space) {
            self.by_path.remove(&path);
        }
        self.touched.insert(path);
    }

    fn note_late(&mut self, late: bool, what: &str, path: &[u8]) {
        if late && !is_internal(path) && self.late.len() < LATE_MAX {
            self.late.push(format!("{} was {what}", String::from_utf8_lossy(&table_path(path))));
        }
    }

    /// The tablespace that has the name `database/table.ibd` now.
    pub fn space_of(&self, path: &[u8]) -> Option<SpaceId> {
        self.by_path.get(path).copied()
    }

    /// Whether a tablespace is in the base of a delta, as far as the log says so.
    pub fn is_in_base(&self, space: SpaceId) -> bool {
        self.in_base.contains(&space)
    }

    /// Whether a file was created, deleted or renamed at `database/table.ibd`.
    pub fn was_touched(&self, path: &[u8]) -> bool {
        self.touched.contains(path)
    }

    /// From this LSN on no table may be created, renamed or dropped any more.
    pub fn lock_at(&mut self, lsn: Lsn) {
        self.locked_at = Some(lsn);
    }

    /// What changed in spite of the lock.
    pub fn late(&self) -> &[String] {
        &self.late
    }
}

/// The last two components of a path: `./db/t.ibd` and `/elsewhere/db/t.ibd` are `db/t.ibd`.
fn table_path(path: &[u8]) -> Vec<u8> {
    let mut parts = path.rsplit(|&b| b == b'/');
    let file = parts.next().unwrap_or_default();
    match parts.next() {
        Some(database) if database != b"." => [database, b"/", file].concat(),
        _ => file.to_vec(),
    }
}

/// Files that come and go by themselves: those of statements that are rolled back, and of
/// full-text indexes.
fn is_internal(path: &[u8]) -> bool {
    let path = table_path(path);
    let file = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    file.starts_with(b"FTS_") || is_intermediate(&String::from_utf8_lossy(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuilt_table_is_the_new_tablespace() {
        let mut events = FileEvents::default();
        let mut note = |record| events.note(Lsn(1), record);
        note(FileRecord::Modify(SpaceId(5), b"./d/t.ibd"));
        note(FileRecord::Create(SpaceId(6), b"./d/#sql-alter-1-2.ibd"));
        note(FileRecord::Rename(SpaceId(5), b"./d/t.ibd", b"./d/#sql-ib9.ibd"));
        note(FileRecord::Rename(SpaceId(6), b"./d/#sql-alter-1-2.ibd", b"./d/t.ibd"));
        note(FileRecord::Delete(SpaceId(5), b"./d/#sql-ib9.ibd"));
        assert_eq!(events.space_of(b"d/t.ibd"), Some(SpaceId(6)));
        assert_eq!(events.space_of(b"d/#sql-ib9.ibd"), None);
    }

    #[test]
    fn a_name_that_was_taken_over_is_not_forgotten_with_its_old_tablespace() {
        let mut events = FileEvents::default();
        events.note(Lsn(1), FileRecord::Create(SpaceId(5), b"/data/d/t.ibd"));
        events.note(Lsn(2), FileRecord::Create(SpaceId(6), b"./d/t.ibd"));
        events.note(Lsn(3), FileRecord::Delete(SpaceId(5), b"./d/t.ibd"));
        assert_eq!(events.space_of(b"d/t.ibd"), Some(SpaceId(6)));
    }

    #[test]
    fn what_was_there_at_the_end_of_a_base() {
        let mut events = FileEvents::since_base(Some(Lsn(10)));
        events.note(Lsn(1), FileRecord::Create(SpaceId(5), b"./d/a.ibd"));
        events.note(Lsn(2), FileRecord::Create(SpaceId(6), b"./d/b.ibd"));
        events.note(Lsn(3), FileRecord::Rename(SpaceId(5), b"./d/a.ibd", b"./d/c.ibd"));
        events.note(Lsn(4), FileRecord::Delete(SpaceId(6), b"./d/b.ibd"));
        events.note(Lsn(5), FileRecord::Create(SpaceId(8), b"./d/#sql-alter-1-2.ibd"));
        events.note(Lsn(10), FileRecord::Delete(SpaceId(5), b"./d/c.ibd"));
        let done = FileRecord::Rename(SpaceId(8), b"./d/#sql-alter-1-2.ibd", b"./d/e.ibd");
        events.note(Lsn(10), done);
        events.note(Lsn(11), FileRecord::Create(SpaceId(7), b"./d/c.ibd"));
        let there = [5, 6, 7, 8].map(|id| events.is_in_base(SpaceId(id)));
        assert_eq!(there, [true, false, false, false]);
    }

    #[test]
    fn only_what_users_do_behind_the_lock_is_late() {
        let mut events = FileEvents::default();
        events.note(Lsn(1), FileRecord::Create(SpaceId(5), b"./d/early.ibd"));
        events.lock_at(Lsn(10));
        events.note(Lsn(9), FileRecord::Create(SpaceId(6), b"./d/before.ibd"));
        events.note(Lsn(10), FileRecord::Delete(SpaceId(7), b"./d/#sql-ib7.ibd"));
        events
            .note(Lsn(11), FileRecord::Delete(SpaceId(8), b"./d/FTS_0000000000000014_CONFIG.ibd"));
        assert!(events.late().is_empty());
        events.note(Lsn(12), FileRecord::Delete(SpaceId(5), b"./d/early.ibd"));
        assert_eq!(events.late(), ["d/early.ibd was dropped"]);
    }
}
