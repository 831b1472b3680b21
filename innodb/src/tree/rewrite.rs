//! Changes of single records on a leaf in the COMPACT style, as a transaction's end makes them.
//!
//! A record is marked as deleted, or not, where it is. One that goes, or becomes longer or shorter, has
//! the whole page written anew, without the holes of earlier records.

use std::collections::HashMap;

use super::compact::{CompactRecord, NewRecord};
use super::page::{fixed, record};
use super::{IndexPage, StructureError};
use crate::PageId;
use crate::bytes::{put, u8_at, u16_at};
use crate::cfg::fields::IndexField;
use crate::page::layout::index;

/// A change of the record at an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It is deleted, or it is not.
    SetDeleted(bool),
    /// These bits of the byte at this offset of the page are set.
    SetBits(usize, u8),
    /// It goes. Another one must stay.
    Remove,
    /// It becomes this one, which is not deleted.
    Replace {
        /// Where it begins and ends now.
        now: (usize, usize),
        /// The new one.
        with: NewRecord,
    },
}

/// A page that cannot be changed like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It makes no sense.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// The records do not fit any more.
    #[error("its records would not fit")]
    Full,
}

/// Where records begin.
const HEAP: usize = 120;
/// Records of a group of the directory.
const OWNED: usize = 4;
const SLOT: usize = 2;
/// Their numbers have 13 bits, and two are taken.
const RECORDS_MAX: u16 = (1 << 13) - 2;
/// What a page says of the order of inserts when there was none. The other bits are of an instant ALTER.
const NO_DIRECTION: u16 = 5;
const DIRECTION: u16 = 7;
/// In a record's header: how many records it owns.
const N_OWNED: u8 = 0x0f;

/// Makes changes to the records of `page`, which have `fields`; `id` says which page it is.
///
/// # Errors
/// When the page makes no sense, or is full. It is as it was then.
pub fn rewrite(
    id: PageId,
    page: &mut Vec<u8>,
    fields: &[IndexField<'_>],
    edits: &[(usize, Edit)],
) -> Result<(), RewriteError> {
    let broken = StructureError { page: id, what: "a record is not where it was" };
    let mut changed = page.clone();
    let mut moved = HashMap::new();
    for (origin, edit) in edits {
        match edit {
            Edit::SetDeleted(deleted) => {
                set_deleted(&mut changed, *origin, *deleted).ok_or(broken)?
            }
            Edit::SetBits(offset, bits) => *changed.get_mut(*offset).ok_or(broken)? |= bits,
            Edit::Replace { now: (start, end), with } => {
                let header = with.origin == origin - start;
                if header && with.bytes.len() == end - start {
                    replace(&mut changed, *origin, *start, with).ok_or(broken)?;
                } else {
                    moved.insert(*origin, Some(with));
                }
            }
            Edit::Remove => {
                moved.insert(*origin, None);
            }
        }
    }
    if !moved.is_empty() {
        changed = anew(id, &changed, fields, &moved)?;
    }
    *page = changed;
    Ok(())
}

fn set_deleted(page: &mut [u8], origin: usize, deleted: bool) -> Option<()> {
    let info = page.get_mut(origin.checked_sub(record::INFO_COMPACT)?)?;
    *info = *info & !record::DELETED | if deleted { record::DELETED } else { 0 };
    Some(())
}

/// Puts a record where one of the same shape was.
fn replace(page: &mut [u8], origin: usize, start: usize, with: &NewRecord) -> Option<()> {
    let (before, data) = with.bytes.split_at_checked(with.origin)?;
    put(page, start, before.get(..before.len().checked_sub(record::INFO_COMPACT)?)?)?;
    put(page, origin, data)?;
    set_deleted(page, origin, false)
}

/// The page with other records, or none, in the place of some, in the same order.
fn anew(
    id: PageId,
    old: &[u8],
    fields: &[IndexField<'_>],
    moved: &HashMap<usize, Option<&NewRecord>>,
) -> Result<Vec<u8>, RewriteError> {
    let broken = StructureError { page: id, what: "it is cut short" };
    let page = IndexPage::new(id, old)?;
    let mut new = old.to_vec();
    let directory_end = old.len().checked_sub(index::DIRECTORY_END).ok_or(broken)?;
    new.get_mut(HEAP..directory_end).ok_or(broken)?.fill(0);
    let mut writer = Writer {
        page: new,
        top: HEAP,
        count: 0,
        last: fixed::INFIMUM_COMPACT,
        owned: 0,
        slots: 0,
        directory_end,
    };
    writer.close_group(fixed::INFIMUM_COMPACT, 1)?;
    for origin in page.records() {
        let origin = origin?;
        match moved.get(&origin) {
            Some(Some(record)) => writer.push(0, &record.bytes, record.origin)?,
            Some(None) => {}
            None => {
                let record = CompactRecord::read(&page, origin, fields)?;
                let bytes = old.get(record.start..record.end).ok_or(broken)?;
                writer.push(page.info(origin), bytes, origin - record.start)?;
            }
        }
    }
    writer.finish().ok_or(broken.into())
}

/// Puts records on an empty page, one behind the other.
struct Writer {
    page: Vec<u8>,
    top: usize,
    count: u16,
    /// Origin of the record before.
    last: usize,
    /// Records since the last group of the directory.
    owned: usize,
    slots: usize,
    directory_end: usize,
}

impl Writer {
    fn push(&mut self, info: u8, bytes: &[u8], origin: usize) -> Result<(), RewriteError> {
        // The group of the last record takes a slot, too.
        let slots = self.slots + 2;
        let limit = self.directory_end - (slots * SLOT).min(self.directory_end);
        if self.top + bytes.len() > limit || self.count >= RECORDS_MAX {
            return Err(RewriteError::Full);
        }
        let (start, origin) = (self.top, self.top + origin);
        // Two records were there before.
        let heap_number = (self.count + 2) << 3;
        self.put(start, bytes)?;
        self.put(origin - record::INFO_COMPACT, &[info])?;
        self.put(origin - record::INFO_COMPACT + 1, &heap_number.to_be_bytes())?;
        self.link(origin)?;
        self.top += bytes.len();
        self.count += 1;
        self.owned += 1;
        if self.owned == OWNED {
            self.close_group(origin, OWNED as u8)?;
        }
        Ok(())
    }

    /// Makes `origin` the record behind the last.
    fn link(&mut self, origin: usize) -> Result<(), RewriteError> {
        let distance = (origin.wrapping_sub(self.last) & 0xffff) as u16;
        self.put(self.last - record::NEXT, &distance.to_be_bytes())?;
        self.last = origin;
        Ok(())
    }

    /// Ends a group with the record that owns it.
    fn close_group(&mut self, owner: usize, owned: u8) -> Result<(), RewriteError> {
        self.slots += 1;
        self.owned = 0;
        let slot = self.directory_end.checked_sub(self.slots * SLOT).ok_or(RewriteError::Full)?;
        self.put(slot, &(owner as u16).to_be_bytes())?;
        let at = owner - record::INFO_COMPACT;
        let info = u8_at(&self.page, at).ok_or(RewriteError::Full)? & !N_OWNED;
        self.put(at, &[info | owned])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), RewriteError> {
        put(&mut self.page, at, bytes).ok_or(RewriteError::Full)
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        let owned = self.owned as u8 + 1;
        self.link(fixed::SUPREMUM_COMPACT).ok()?;
        self.close_group(fixed::SUPREMUM_COMPACT, owned).ok()?;
        let mut page = self.page;
        put(&mut page, fixed::SUPREMUM_COMPACT - record::NEXT, &[0, 0])?;
        let direction = u16_at(&page, index::DIRECTION)? & !DIRECTION | NO_DIRECTION;
        let heap = (self.count + 2) | index::COMP;
        for (at, value) in [
            (index::N_DIR_SLOTS, self.slots as u16),
            (index::HEAP_TOP, self.top as u16),
            (index::N_HEAP, heap),
            (index::FREE, 0),
            (index::GARBAGE, 0),
            (index::LAST_INSERT, 0),
            (index::DIRECTION, direction),
            (index::N_DIRECTION, 0),
            (index::N_RECS, self.count),
        ] {
            put(&mut page, at, &value.to_be_bytes())?;
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::page::PageType;
    use crate::page::layout::fil;
    use crate::tree::compact::{self, StoredField, build};
    use crate::{PageNo, SpaceId};

    const ID: PageId = PageId { space: SpaceId(5), page: PageNo(7) };

    fn field(fixed_len: u32) -> IndexField<'static> {
        compact::tests::field(fixed_len, false, true)
    }

    fn new_record(number: u32, length: usize) -> NewRecord {
        let (number, text) = (number.to_be_bytes(), vec![b'x'; length]);
        let values =
            [&number[..], &text].map(|b| StoredField { bytes: Some(b), is_external: false });
        build(&[field(4), field(0)], &values).unwrap()
    }

    /// A page with the records of these lengths.
    fn page_of(lengths: &[usize]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        put(&mut page, fil::PAGE_NO, &ID.page.0.to_be_bytes()).unwrap();
        put(&mut page, fil::TYPE, &PageType::INDEX.0.to_be_bytes()).unwrap();
        put(&mut page, index::N_HEAP, &(2 | index::COMP).to_be_bytes()).unwrap();
        let directory_end = page.len() - index::DIRECTORY_END;
        let last = fixed::INFIMUM_COMPACT;
        let mut writer =
            Writer { page, top: HEAP, count: 0, last, owned: 0, slots: 0, directory_end };
        writer.close_group(last, 1).unwrap();
        for (number, length) in lengths.iter().enumerate() {
            let record = new_record(number as u32, *length);
            writer.push(0, &record.bytes, record.origin).unwrap();
        }
        writer.finish().unwrap()
    }

    fn lengths(page: &[u8]) -> Vec<(usize, bool)> {
        let page = IndexPage::new(ID, page).unwrap();
        let read = |origin| CompactRecord::read(&page, origin, &[field(4), field(0)]).unwrap();
        page.records()
            .map(|origin| origin.unwrap())
            .enumerate()
            .map(|(number, origin)| {
                let record = read(origin);
                assert_eq!(record.fields[0].bytes.unwrap(), (number as u32).to_be_bytes());
                (record.fields[1].bytes.unwrap().len(), page.is_deleted(origin))
            })
            .collect()
    }

    fn edits(page: &[u8], changes: &[(usize, Option<usize>)]) -> Vec<(usize, Edit)> {
        let page = IndexPage::new(ID, page).unwrap();
        let origins: Vec<_> = page.records().map(|origin| origin.unwrap()).collect();
        let edit = |(number, length): &(usize, Option<usize>)| {
            let origin = origins[*number];
            let now = CompactRecord::read(&page, origin, &[field(4), field(0)]).unwrap();
            let edit = match length {
                None => Edit::SetDeleted(true),
                Some(length) => Edit::Replace {
                    now: (now.start, now.end),
                    with: new_record(*number as u32, *length),
                },
            };
            (origin, edit)
        };
        changes.iter().map(edit).collect()
    }

    #[test]
    fn records_are_marked_replaced_and_moved() {
        let mut page = page_of(&[10; 30]);
        let fields = [field(4), field(0)];
        let changes = edits(&page, &[(3, None), (4, Some(10))]);
        rewrite(ID, &mut page, &fields, &changes).unwrap();
        let mut expected = vec![(10, false); 30];
        expected[3].1 = true;
        assert_eq!(lengths(&page), expected);

        let changes = edits(&page, &[(29, Some(200)), (0, Some(0)), (7, None)]);
        rewrite(ID, &mut page, &fields, &changes).unwrap();
        (expected[29].0, expected[0].0, expected[7].1) = (200, 0, true);
        assert_eq!(lengths(&page), expected);
        // 30 records: 7 groups of 4, that of the last ones, that of the first.
        assert_eq!(u16_at(&page, index::N_DIR_SLOTS), Some(9));
        assert_eq!(u16_at(&page, index::N_RECS), Some(30));

        let mut fewer = page.clone();
        let mut changes = edits(&page, &[(28, None), (29, None)]);
        changes[1].1 = Edit::Remove;
        rewrite(ID, &mut fewer, &fields, &changes).unwrap();
        let mut left = expected.clone();
        left.pop();
        left[28].1 = true;
        assert_eq!(lengths(&fewer), left);

        let before = page.clone();
        let changes = edits(&page, &[(5, Some(4000))]);
        let full = rewrite(ID, &mut page, &fields, &changes);
        assert_eq!((full, page), (Err(RewriteError::Full), before));
    }
}
