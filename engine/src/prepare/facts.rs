//! What the redo log says about tablespaces as a whole: names, sizes, flags, truncations.
//!
//! The last word counts, in the order of the log. A path belongs to several tablespaces within
//! milliseconds (TRUNCATE and rebuilding ALTER reuse it), so the tablespace that was last given a
//! path owns it.

use std::collections::HashMap;

use innodb::redo::record::{Bodies, Body};
use innodb::redo::{FileRecord, Malformed};
use innodb::space::header::{self, HeaderError};
use innodb::space::{CryptData, SpaceFlags};
use innodb::{Lsn, PageId, PageNo, PageSize, SpaceId};

/// Pages whose resets are noted: at most 5 MiB.
const RESETS_MAX: usize = 1 << 17;

/// What the log says about one tablespace.
#[derive(Clone, Debug, Default)]
pub struct SpaceFacts {
    /// The last size written to page 0, in pages.
    pub size: Option<u32>,
    /// The last flags written to page 0.
    pub flags: Option<u32>,
    /// What was written last where an encryption descriptor may be on page 0: where, and its
    /// fields, in the mini-transaction at this LSN. Tablespaces of other page sizes have it
    /// elsewhere, so there may be several.
    crypt: Vec<(u32, [u8; CryptData::SIZE], Lsn)>,
    /// Whether the log makes page 0 anew.
    pub makes_page_0: bool,
    /// The last truncation.
    pub trim: Option<Trim>,
    /// The last name, `database/table.ibd`.
    pub name: Option<String>,
    /// Whether the file was deleted in the end. An imported file may stand in its place: IMPORT
    /// TABLESPACE keeps the id and logs no creation.
    pub deleted: bool,
    /// Records of mini-transactions that start before are moot: they changed a deleted file.
    pub deleted_at: Option<Lsn>,
    /// Where the first record of a page is.
    pub first_record: Option<Lsn>,
}

impl SpaceFacts {
    /// Whether the log may change the encryption descriptor.
    pub fn has_crypt(&self) -> bool {
        !self.crypt.is_empty()
    }

    /// The last encryption descriptor that the log gives a tablespace of these flags, if a page 0
    /// of `page_0` lacks it.
    pub fn crypt(&self, flags: &SpaceFlags, page_0: Lsn) -> Option<Result<CryptData, HeaderError>> {
        let offset = CryptData::fields_offset(flags);
        let written = self.crypt.iter().find(|(at, ..)| *at as usize == offset);
        let (_, fields, lsn) = written?;
        (self.makes_page_0 || *lsn >= page_0).then(|| CryptData::parse_fields(fields))
    }
}

/// A truncation of a tablespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Records of mini-transactions that start before are moot.
    pub lsn: Lsn,
    /// The new size in pages.
    pub pages: PageNo,
}

/// Of the default page size, with no checkpoint to wait for.
impl Default for LogFacts {
    fn default() -> Self {
        Self {
            spaces: HashMap::new(),
            owners: HashMap::new(),
            checkpoint: None,
            resets: HashMap::new(),
            seen: [None; 16],
            page_size: PageSize::DEFAULT,
        }
    }
}

/// What the log says about all tablespaces.
#[derive(Debug)]
pub struct LogFacts {
    spaces: HashMap<SpaceId, SpaceFacts>,
    owners: HashMap<String, SpaceId>,
    /// LSN of the checkpoint whose record was not seen yet.
    checkpoint: Option<Lsn>,
    /// Pages that are freed or made anew behind the first batch, and where.
    resets: HashMap<PageId, Lsn>,
    /// The tablespaces last seen, so that most records need no look-up.
    seen: [Option<SpaceId>; 16],
    page_size: PageSize,
}

impl LogFacts {
    /// Facts of a log whose records count from `checkpoint`, of a server with such pages.
    pub fn new(checkpoint: Lsn, page_size: PageSize) -> Self {
        Self { checkpoint: Some(checkpoint), page_size, ..Self::default() }
    }

    /// Whether the record that completes the checkpoint is still missing.
    pub fn lacks_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Takes note that everything before `lsn` is moot for `page`. Only so many pages are kept: it
    /// spares work, and makes pages that end up free look the same for any number of batches.
    pub fn reset(&mut self, page: PageId, lsn: Lsn) {
        if self.resets.len() < RESETS_MAX || self.resets.contains_key(&page) {
            self.resets.insert(page, lsn);
        }
    }

    /// Whether `page` is freed or made anew behind `lsn`.
    pub fn is_reset_behind(&self, page: PageId, lsn: Lsn) -> bool {
        !self.resets.is_empty() && self.resets.get(&page).is_some_and(|reset| *reset > lsn)
    }

    /// What is known of `space`.
    pub fn space(&self, space: SpaceId) -> Option<&SpaceFacts> {
        self.spaces.get(&space)
    }

    /// All tablespaces that the log has something about.
    pub fn spaces(&self) -> impl Iterator<Item = (SpaceId, &SpaceFacts)> {
        self.spaces.iter().map(|(&id, facts)| (id, facts))
    }

    /// The tablespace that owns `name`, `database/table.ibd`, at the end of the log.
    pub fn owner(&self, name: &str) -> Option<SpaceId> {
        self.owners.get(name).copied()
    }

    /// Takes note of a record about a file, in the mini-transaction at `lsn`.
    pub fn file(&mut self, lsn: Lsn, record: FileRecord<'_>) {
        match record {
            FileRecord::Create(space, path) | FileRecord::Modify(space, path) => {
                self.rename(space, path);
            }
            FileRecord::Rename(space, _, to) => self.rename(space, to),
            FileRecord::Delete(space, _) => {
                let gone =
                    SpaceFacts { deleted: true, deleted_at: Some(lsn), ..SpaceFacts::default() };
                let facts = std::mem::replace(self.spaces.entry(space).or_default(), gone);
                if let Some(name) = &facts.name
                    && self.owners.get(name) == Some(&space)
                {
                    self.owners.remove(name);
                }
                self.seen.iter_mut().for_each(|seen| *seen = seen.filter(|id| *id != space));
            }
            FileRecord::Checkpoint(completed) => {
                self.checkpoint.take_if(|wanted| *wanted == completed);
            }
            FileRecord::Padding => {}
        }
    }

    fn rename(&mut self, space: SpaceId, path: &[u8]) {
        let name = local_name(path);
        let facts = self.spaces.entry(space).or_default();
        facts.deleted = false;
        if facts.name.as_deref() == Some(&name) && self.owners.get(&name) == Some(&space) {
            return;
        }
        if let Some(old) = facts.name.replace(name.clone())
            && self.owners.get(&old) == Some(&space)
        {
            self.owners.remove(&old);
        }
        self.owners.insert(name, space);
    }

    /// Takes note that a page of `space` is changed.
    #[inline]
    pub fn touch(&mut self, space: SpaceId, lsn: Lsn) {
        let slot = &mut self.seen[space.0 as usize % 16];
        if *slot != Some(space) {
            *slot = Some(space);
            self.spaces.entry(space).or_default().first_record.get_or_insert(lsn);
        }
    }

    /// Takes note of a truncation.
    pub fn trim(&mut self, space: SpaceId, trim: Trim) {
        let facts = self.spaces.entry(space).or_default();
        facts.trim = Some(trim);
        facts.size = None;
    }

    /// Looks for size, flags and encryption in a run of records of page 0 of `space`, in the
    /// mini-transaction at `lsn`.
    pub fn page_0(&mut self, space: SpaceId, lsn: Lsn, run: &[u8]) -> Result<(), Malformed> {
        let facts = self.spaces.entry(space).or_default();
        for body in Bodies::new(run) {
            match body? {
                // A new page is all zero, and zeros are not written again: the flags of the older
                // checksum format are 0 for some row formats and then have no record.
                Body::InitPage => {
                    facts.makes_page_0 = true;
                    facts.crypt.clear();
                    facts.flags = Some(0);
                }
                Body::Write { offset, bytes } => {
                    let field = |at: usize| {
                        let from = at.checked_sub(offset as usize)?;
                        let field = bytes.get(from..)?.first_chunk()?;
                        Some(u32::from_be_bytes(*field))
                    };
                    facts.size = field(header::SIZE).or(facts.size);
                    facts.flags = field(header::FLAGS).or(facts.flags);
                    if let Ok(fields) = bytes.try_into()
                        && CryptData::is_fields_offset(offset as usize, self.page_size)
                    {
                        facts.crypt.retain(|(at, ..)| *at != offset);
                        facts.crypt.push((offset, fields, lsn));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The last two components of a path, `database/table.ibd`: a backup has all tablespaces in the
/// folder of their database, wherever the server had them.
fn local_name(path: &[u8]) -> String {
    let start = path.iter().rposition(|&b| b == b'/').and_then(|slash| {
        path.get(..slash)?.iter().rposition(|&b| b == b'/').map(|slash| slash + 1)
    });
    String::from_utf8_lossy(path.get(start.unwrap_or(0)..).unwrap_or(path)).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: SpaceId = SpaceId(7);
    const NEW: SpaceId = SpaceId(8);

    #[test]
    fn a_truncated_table_leaves_its_name_to_the_new_tablespace() {
        let mut facts = LogFacts::default();
        facts.file(Lsn(1), FileRecord::Modify(OLD, b"./db/t.ibd"));
        facts.file(Lsn(1), FileRecord::Rename(OLD, b"./db/t.ibd", b"./db/#sql-ib7.ibd"));
        facts.file(Lsn(1), FileRecord::Create(NEW, b"./db/t.ibd"));
        facts.file(Lsn(1), FileRecord::Delete(OLD, b"./db/#sql-ib7.ibd"));
        assert_eq!(facts.owner("db/t.ibd"), Some(NEW));
        assert_eq!(facts.owner("db/#sql-ib7.ibd"), None);
        assert!(facts.space(OLD).unwrap().deleted && !facts.space(NEW).unwrap().deleted);
    }

    #[test]
    fn a_swap_of_names() {
        let mut facts = LogFacts::default();
        facts.file(Lsn(1), FileRecord::Modify(OLD, b"./db/a.ibd"));
        facts.file(Lsn(1), FileRecord::Modify(NEW, b"/elsewhere/db/b.ibd"));
        facts.file(Lsn(1), FileRecord::Rename(OLD, b"./db/a.ibd", b"./db/x.ibd"));
        facts.file(Lsn(1), FileRecord::Rename(NEW, b"./db/b.ibd", b"./db/a.ibd"));
        facts.file(Lsn(1), FileRecord::Rename(OLD, b"./db/x.ibd", b"./db/b.ibd"));
        assert_eq!((facts.owner("db/a.ibd"), facts.owner("db/b.ibd")), (Some(NEW), Some(OLD)));
        assert_eq!(facts.owner("db/x.ibd"), None);
    }

    #[test]
    fn only_the_record_of_the_checkpoint_itself_completes_it() {
        let mut facts = LogFacts::new(Lsn(5), PageSize::DEFAULT);
        facts.file(Lsn(1), FileRecord::Checkpoint(Lsn(4)));
        assert!(facts.lacks_checkpoint());
        facts.file(Lsn(1), FileRecord::Checkpoint(Lsn(5)));
        assert!(!facts.lacks_checkpoint());
    }

    #[test]
    fn size_and_flags_are_found_in_a_new_page_0() {
        let run =
            b"\x12\x21\x00\xb2\x01\x08\xb2\x0f\x21\xb5\x04\x00\x00\x00\x04\xb5\x04\x00\x00\x00\x15";
        let mut facts = LogFacts::default();
        facts.page_0(SpaceId(33), Lsn(1), run).unwrap();
        let space = facts.space(SpaceId(33)).unwrap();
        assert!(space.makes_page_0);
        assert_eq!((space.size, space.flags), (Some(4), Some(0x15)));
    }

    #[test]
    fn a_new_page_0_has_flags_0_until_others_are_written() {
        let init_and_size = b"\x12\x21\x00\xb2\x01\x08\xb2\x0f\x21\xb5\x04\x00\x00\x00\x04";
        let mut facts = LogFacts::default();
        facts.page_0(SpaceId(33), Lsn(1), init_and_size).unwrap();
        assert_eq!(facts.space(SpaceId(33)).unwrap().flags, Some(0));
    }
}
