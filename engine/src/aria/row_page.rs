//! Pages of rows: a header, rows, and at the end a directory that grows downwards.
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 7 | LSN of the last change |
//! | 7 | 1 | type; the upper bit says that rows were deleted |
//! | 8 | 1 | number of directory entries |
//! | 9 | 1 | first free entry, or 255 |
//! | 10 | 2 | free bytes |
//! | 12 | | rows; in an encrypted table behind the version of a key (4) |
//! | end - 4 - 4 × (n + 1) | 4 | entry `n`: offset and length of a row; offset 0: free, and then the free entries before and behind |
//! | end - 4 | 4 | checksum |
//!
//! Rows lie in the order of their entries. What a change leaves behind in free bytes is part of
//! what has to be equal, so rows move exactly as the server moves them: only to close gaps, and
//! only when there is no other room.

use innodb::bytes::{put, u8_at};

use super::bytes::{le_at, le16_at, put_le16};
use super::leave::Malformed;
use super::pages::CHECKSUM;
use super::table::Shape;

/// Types of pages.
pub mod kind {
    /// Nothing in it.
    pub const UNALLOCATED: u8 = 0;
    /// Rows begin here.
    pub const HEAD: u8 = 1;
    /// Ends of rows.
    pub const TAIL: u8 = 2;
    /// Nothing but part of one row, and no directory.
    pub const BLOB: u8 = 3;
    /// The bits that tell the type.
    pub const MASK: u8 = 7;
    /// Rows were deleted.
    pub const COMPACTABLE: u8 = 0x80;
}

const TYPE: usize = 7;
const COUNT: usize = 8;
const FIRST_FREE: usize = 9;
const FREE_BYTES: usize = 10;
const ENTRY: usize = 4;
const NO_ENTRY: u8 = 255;
const MAX_ENTRIES: usize = 255;
/// A row begins with flags; this one says that the id of a transaction follows.
const ROW_HAS_TRANSACTION: u8 = 1;
const TRANSACTION: usize = 6;

type Result<T> = std::result::Result<T, Malformed>;

const OUTSIDE: Malformed = Malformed("a directory leads out of its page");

/// A page of rows that is being changed.
pub struct RowPage<'a> {
    page: &'a mut [u8],
    shape: &'a Shape,
}

/// The type of a page.
pub fn page_type(page: &[u8]) -> u8 {
    u8_at(page, TYPE).unwrap_or(0) & kind::MASK
}

/// An entry of the directory.
#[derive(Clone, Copy)]
struct Entry {
    offset: usize,
    length: usize,
}

impl Entry {
    fn end(self) -> usize {
        self.offset + self.length
    }
}

impl<'a> RowPage<'a> {
    /// Changes `page`.
    pub fn new(page: &'a mut [u8], shape: &'a Shape) -> Self {
        Self { page, shape }
    }

    /// Makes it an empty page of `kind`.
    pub fn clear(&mut self, kind: u8) {
        self.page.fill(0);
        let _ = put(self.page, TYPE, &[kind, 0, NO_ENTRY]);
    }

    /// Marks it as having nothing in it.
    pub fn free(&mut self) {
        let _ = put(self.page, TYPE, &[kind::UNALLOCATED]);
    }

    /// Puts a row in place `row`, which makes the page anew if it is of another type. Returns the
    /// free bytes.
    pub fn insert(&mut self, kind: u8, row: usize, data: &[u8]) -> Result<()> {
        let head = kind == kind::HEAD;
        let (offset, free) = if page_type(self.page) != kind {
            self.clear(kind);
            let free = self.block() - self.header() - CHECKSUM;
            let free = self.extend_directory(0, row, free, head)?;
            (self.header(), free + self.entry(row)?.length)
        } else {
            let (entries, mut free) = (self.count(), self.free_bytes()?);
            if entries <= row {
                free = self.extend_directory(entries, row, free, head)?;
            }
            self.make_room(row, data.len(), free, head)?
        };
        let free = free.checked_sub(data.len()).ok_or(Malformed("a row does not fit"))?;
        if offset + data.len() > self.entry_at(self.count().max(1) - 1)? {
            return Err(Malformed("a row does not fit"));
        }
        put(self.page, offset, data).ok_or(OUTSIDE)?;
        self.set_length(row, data.len())?;
        put_le16(self.page, FREE_BYTES, free as u16).ok_or(OUTSIDE)
    }

    /// Makes it an empty page of `kind`, with one row.
    pub fn insert_first(&mut self, kind: u8, data: &[u8]) -> Result<()> {
        self.clear(kind);
        let _ = put(self.page, COUNT, &[1]);
        let free = self.block() - self.header() - ENTRY - CHECKSUM;
        let free = free.checked_sub(data.len()).ok_or(Malformed("a row does not fit"))?;
        put(self.page, self.header(), data).ok_or(OUTSIDE)?;
        self.set(0, Entry { offset: self.header(), length: data.len() })?;
        put_le16(self.page, FREE_BYTES, free as u16).ok_or(OUTSIDE)
    }

    /// Removes the row in place `row`.
    pub fn remove(&mut self, row: usize) -> Result<()> {
        let mut entries = self.count();
        if row >= entries {
            return Err(Malformed("a row to remove is not there"));
        }
        let (entry, mut free) = (self.entry(row)?, self.free_bytes()?);
        if entry.offset == 0 {
            return Err(Malformed("a row to remove is not there"));
        }
        if row + 1 == entries {
            entries -= 1;
            free += ENTRY;
            // The free entries that are the last ones now go with it.
            while entries > 0 && self.is_free(entries - 1)? {
                entries -= 1;
                self.unlink(entries)?;
                free += ENTRY;
            }
            if entries == 0 {
                self.free();
                return Ok(());
            }
            put(self.page, COUNT, &[entries as u8]).ok_or(OUTSIDE)?;
        } else {
            let next = self.first_free();
            self.set_free(row, NO_ENTRY, next)?;
            if next != NO_ENTRY {
                self.set_before(next, row as u8)?;
            }
            put(self.page, FIRST_FREE, &[row as u8]).ok_or(OUTSIDE)?;
        }
        put_le16(self.page, FREE_BYTES, (free + entry.length) as u16).ok_or(OUTSIDE)?;
        let kind = u8_at(self.page, TYPE).unwrap_or(0) | kind::COMPACTABLE;
        put(self.page, TYPE, &[kind]).ok_or(OUTSIDE)
    }

    /// Free bytes as far as they can be used: none when the directory is full.
    pub fn usable_bytes(&self) -> Result<usize> {
        let entries = self.count();
        let full = match page_type(self.page) {
            kind::HEAD => entries == MAX_ENTRIES && self.first_free() == NO_ENTRY,
            _ => !self.has_free_entries(entries, 1 + self.shape.blobs),
        };
        if full { Ok(0) } else { self.free_bytes() }
    }

    fn has_free_entries(&self, entries: usize, wanted: usize) -> bool {
        let Some(needed) = (entries + wanted).checked_sub(MAX_ENTRIES).filter(|more| *more > 0)
        else {
            return true;
        };
        let mut free = self.first_free();
        for _ in 0..needed {
            if free == NO_ENTRY {
                return false;
            }
            free = self
                .entry_at(free.into())
                .ok()
                .and_then(|at| u8_at(self.page, at + 3))
                .unwrap_or(NO_ENTRY);
        }
        true
    }

    fn header(&self) -> usize {
        self.shape.row_header()
    }

    fn block(&self) -> usize {
        self.page.len()
    }

    fn count(&self) -> usize {
        u8_at(self.page, COUNT).unwrap_or(0).into()
    }

    fn first_free(&self) -> u8 {
        u8_at(self.page, FIRST_FREE).unwrap_or(NO_ENTRY)
    }

    fn free_bytes(&self) -> Result<usize> {
        le16_at(self.page, FREE_BYTES).map(usize::from).ok_or(OUTSIDE)
    }

    /// Where an entry is in the page.
    fn entry_at(&self, row: usize) -> Result<usize> {
        let back = CHECKSUM + ENTRY * (row + 1);
        self.block().checked_sub(back).filter(|at| *at >= self.header()).ok_or(OUTSIDE)
    }

    fn entry(&self, row: usize) -> Result<Entry> {
        let at = self.entry_at(row)?;
        let number = |at| le_at(self.page, at, 2).map(|value| value as usize).ok_or(OUTSIDE);
        Ok(Entry { offset: number(at)?, length: number(at + 2)? })
    }

    /// An entry whose row is between the header and the directory.
    fn used(&self, row: usize) -> Result<Option<Entry>> {
        let entry = self.entry(row)?;
        if entry.offset == 0 {
            return Ok(None);
        }
        let inside = entry.offset >= self.header() && entry.end() <= self.block() - CHECKSUM;
        if inside { Ok(Some(entry)) } else { Err(OUTSIDE) }
    }

    fn set(&mut self, row: usize, entry: Entry) -> Result<()> {
        let at = self.entry_at(row)?;
        put_le16(self.page, at, entry.offset as u16).ok_or(OUTSIDE)?;
        put_le16(self.page, at + 2, entry.length as u16).ok_or(OUTSIDE)
    }

    fn set_length(&mut self, row: usize, length: usize) -> Result<()> {
        let at = self.entry_at(row)?;
        put_le16(self.page, at + 2, length as u16).ok_or(OUTSIDE)
    }

    fn is_free(&self, row: usize) -> Result<bool> {
        Ok(self.entry(row)?.offset == 0)
    }

    fn set_free(&mut self, row: usize, before: u8, behind: u8) -> Result<()> {
        let at = self.entry_at(row)?;
        put(self.page, at, &[0, 0, before, behind]).ok_or(OUTSIDE)
    }

    fn set_before(&mut self, row: u8, before: u8) -> Result<()> {
        let at = self.entry_at(row.into())?;
        put(self.page, at + 2, &[before]).ok_or(OUTSIDE)
    }

    /// Takes a free entry out of the list of free entries.
    fn unlink(&mut self, row: usize) -> Result<()> {
        let at = self.entry_at(row)?;
        let [before, behind] =
            *self.page.get(at + 2..).and_then(|rest| rest.first_chunk()).ok_or(OUTSIDE)?;
        match before {
            NO_ENTRY => put(self.page, FIRST_FREE, &[behind]).ok_or(OUTSIDE)?,
            before => {
                let at = self.entry_at(before.into())?;
                put(self.page, at + 3, &[behind]).ok_or(OUTSIDE)?;
            }
        }
        if behind != NO_ENTRY {
            self.set_before(behind, before)?;
        }
        Ok(())
    }

    /// Where the rows before `row` end.
    fn end_before(&self, row: usize) -> Result<usize> {
        for earlier in (0..row).rev() {
            if let Some(entry) = self.used(earlier)? {
                return Ok(entry.end());
            }
        }
        Ok(self.header())
    }

    /// Where the first row behind `row` begins. The last entry is never a free one.
    fn start_behind(&self, row: usize) -> Result<usize> {
        for later in row + 1..self.count() {
            if let Some(entry) = self.used(later)? {
                return Ok(entry.offset);
            }
        }
        Err(Malformed("the last entry of a directory is free"))
    }

    /// Makes the directory of `entries` entries reach to `row`, whose entry gets all of the room
    /// between the last row and the directory. Returns what is free besides.
    fn extend_directory(
        &mut self,
        entries: usize,
        row: usize,
        free: usize,
        head: bool,
    ) -> Result<usize> {
        if row >= MAX_ENTRIES {
            return Err(OUTSIDE);
        }
        let needed = ENTRY * (row + 1 - entries);
        let (mut free, mut end) = (free, self.header());
        if let Some(last) = entries.checked_sub(1) {
            end = self.entry(last)?.end();
            if self.entry_at(last)? < end + needed {
                self.compact(last, false, head)?;
                end = self.entry(last)?.end();
                free = self.free_bytes()?;
            }
        }
        free = free.checked_sub(needed).ok_or(Malformed("a directory entry does not fit"))?;
        put(self.page, COUNT, &[(row + 1) as u8]).ok_or(OUTSIDE)?;
        let length =
            self.entry_at(row)?.checked_sub(end).ok_or(Malformed("a directory does not fit"))?;
        self.set(row, Entry { offset: end, length })?;
        free = free.checked_sub(length).ok_or(Malformed("the free bytes of a page are wrong"))?;
        if row > entries {
            let earlier = self.first_free();
            put(self.page, FIRST_FREE, &[(row - 1) as u8]).ok_or(OUTSIDE)?;
            let mut before = NO_ENTRY;
            for skipped in (entries..row).rev() {
                let behind = if skipped == entries { earlier } else { (skipped - 1) as u8 };
                self.set_free(skipped, before, behind)?;
                before = skipped as u8;
            }
            if earlier != NO_ENTRY {
                self.set_before(earlier, entries as u8)?;
            }
        }
        Ok(free)
    }

    /// Makes room for `wanted` bytes in place `row`, and returns where they go and what is free
    /// together with them.
    fn make_room(
        &mut self,
        row: usize,
        wanted: usize,
        free: usize,
        head: bool,
    ) -> Result<(usize, usize)> {
        let entries = self.count();
        let (mut entry, mut free) = match self.used(row)? {
            Some(entry) => (entry, free + entry.length),
            None => {
                self.unlink(row)?;
                (Entry { offset: self.start_behind(row)?, length: 0 }, free)
            }
        };
        if entry.length < wanted {
            let offset = self.end_before(row)?;
            let before = entry.offset.checked_sub(offset).ok_or(OUTSIDE)?;
            entry = Entry { offset, length: entry.length + before };
        }
        if entry.length < wanted {
            let end = match row + 1 == entries {
                true => self.entry_at(row)?,
                false => self.start_behind(row)?,
            };
            entry.length = end.checked_sub(entry.offset).ok_or(OUTSIDE)?;
            if entry.length < wanted {
                self.set(row, Entry { offset: entry.offset, length: 0 })?;
                self.compact(row, true, head)?;
                entry = self.entry(row)?;
                if entry.length < wanted {
                    return Err(Malformed("a row does not fit"));
                }
                free = entry.length;
            }
        }
        self.set(row, entry)?;
        Ok((entry.offset, free))
    }

    /// Moves all rows together: those up to `row` to the start of the page, those behind it to the
    /// end. With `extend`, row `row` gets all the room. Rows of head pages lose the ids of their
    /// transactions, all of which have ended.
    fn compact(&mut self, row: usize, extend: bool, head: bool) -> Result<()> {
        let entries = self.count();
        let min = if head { self.shape.min_row } else { 0 };
        let (mut at, mut gained) = (self.header(), 0_isize);
        for number in 0..=row {
            let Some(entry) = self.used(number)? else { continue };
            if entry.offset < at {
                return Err(Malformed("rows overlap"));
            }
            let stripped = self.strip(entry, head)?;
            gained += (entry.length - stripped.length) as isize;
            let mut moved = Entry { offset: at, length: stripped.length };
            self.shift(stripped, at)?;
            if moved.length < min && moved.length != 0 {
                let pad = self.page.get_mut(moved.end()..at + min).ok_or(OUTSIDE)?;
                pad.fill(0);
                gained -= (min - moved.length) as isize;
                moved.length = min;
            }
            self.set(number, moved)?;
            at = moved.end();
        }
        let start = self.entry(row)?.offset;
        if row + 1 == entries {
            if extend {
                let length = self.entry_at(row)?.checked_sub(start).ok_or(OUTSIDE)?;
                self.set_length(row, length)?;
            } else {
                let free = self.free_bytes()?.checked_add_signed(gained).ok_or(OUTSIDE)?;
                put_le16(self.page, FREE_BYTES, free as u16).ok_or(OUTSIDE)?;
            }
            let kind = u8_at(self.page, TYPE).unwrap_or(0) & !kind::COMPACTABLE;
            return put(self.page, TYPE, &[kind]).ok_or(OUTSIDE);
        }
        let mut end = self.entry_at(entries.max(1) - 1)?;
        for number in (row + 1..entries).rev() {
            let Some(entry) = self.used(number)? else { continue };
            if entry.end() > end || entry.offset < at {
                return Err(Malformed("rows overlap"));
            }
            let stripped = self.strip(entry, head)?;
            let length = stripped.length.max(min);
            let to = end.checked_sub(length).filter(|to| *to >= at).ok_or(OUTSIDE)?;
            self.shift(stripped, to)?;
            self.page.get_mut(to + stripped.length..end).ok_or(OUTSIDE)?.fill(0);
            self.set(number, Entry { offset: to, length })?;
            end = to;
        }
        let length = end.checked_sub(start).ok_or(OUTSIDE)?;
        self.set_length(row, length)
    }

    /// Takes the id of the transaction out of a row: its flags move up.
    fn strip(&mut self, entry: Entry, head: bool) -> Result<Entry> {
        let flags = u8_at(self.page, entry.offset).ok_or(OUTSIDE)?;
        if !head || entry.length <= TRANSACTION || flags & ROW_HAS_TRANSACTION == 0 {
            return Ok(entry);
        }
        let offset = entry.offset + TRANSACTION;
        put(self.page, offset, &[flags & !ROW_HAS_TRANSACTION]).ok_or(OUTSIDE)?;
        Ok(Entry { offset, length: entry.length - TRANSACTION })
    }

    fn shift(&mut self, entry: Entry, to: usize) -> Result<()> {
        if entry.end() > self.block() || to + entry.length > self.block() {
            return Err(OUTSIDE);
        }
        self.page.copy_within(entry.offset..entry.end(), to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = 1024;

    fn shape() -> Shape {
        Shape {
            block: BLOCK,
            keys_begin: 8192,
            min_row: 10,
            blobs: 1,
            live_checksum: false,
            page_checksum: true,
            key_version: 0,
            auto_key: None,
        }
    }

    /// Makes sure that rows are in order and do not overlap, and that free bytes are counted right.
    fn check(page: &mut [u8], shape: &Shape, rows: &[Option<Vec<u8>>]) {
        let page = RowPage::new(page, shape);
        let (mut end, mut free) = (12, 0);
        for row in 0..page.count() {
            let Some(entry) = page.used(row).unwrap() else { continue };
            assert!(entry.offset >= end, "row {row} overlaps");
            free += entry.offset - end;
            end = entry.end();
        }
        let directory = page.entry_at(page.count() - 1).unwrap();
        assert!(end <= directory);
        assert_eq!(page.free_bytes().unwrap(), free + directory - end);
        for (number, row) in rows.iter().enumerate() {
            let found = (number < page.count()).then(|| page.used(number).unwrap()).flatten();
            let found = found.map(|entry| page.page[entry.offset..entry.end()].to_vec());
            assert_eq!(&found, row, "row {number}");
        }
    }

    proptest! {
        /// A page of rows behaves as a list of rows.
        #[test]
        fn rows_are_kept(
            steps in prop::collection::vec((0_usize..12, prop::option::of(10_usize..120)), 1..60),
        ) {
            let shape = shape();
            let mut page = vec![0; BLOCK];
            let mut rows: Vec<Option<Vec<u8>>> = vec![None; 12];
            RowPage::new(&mut page, &shape).insert_first(kind::HEAD, &[0; 30]).unwrap();
            rows[0] = Some(vec![0; 30]);
            for (step, (row, length)) in steps.into_iter().enumerate() {
                let before = page.clone();
                match length {
                    Some(length) => {
                        // An even first byte: no id of a transaction follows.
                        let data = vec![2 * step as u8; length];
                        let mut rows_page = RowPage::new(&mut page, &shape);
                        if rows_page.insert(kind::HEAD, row, &data).is_err() {
                            page = before;
                        } else {
                            rows[row] = Some(data);
                        }
                    }
                    None if rows[row].is_some() && rows.iter().flatten().count() > 1 => {
                        RowPage::new(&mut page, &shape).remove(row).unwrap();
                        rows[row] = None;
                    }
                    None => {}
                }
                check(&mut page, &shape, &rows);
            }
        }

        /// On a page that nobody wrote, every change ends.
        #[test]
        fn noise_is_survived(
            noise in prop::collection::vec(any::<u8>(), BLOCK),
            head in any::<bool>(),
            row in 0_usize..256,
            length in 0_usize..1100,
        ) {
            let shape = shape();
            let kind = if head { kind::HEAD } else { kind::TAIL };
            for step in 0..3 {
                let mut page = noise.clone();
                page[TYPE] = kind;
                let mut rows = RowPage::new(&mut page, &shape);
                let _ = match step {
                    0 => rows.insert(kind, row, &vec![1; length]),
                    1 => rows.remove(row),
                    _ => rows.compact(row.min(rows.count().max(1) - 1), true, head),
                };
                let _ = rows.usable_bytes();
                prop_assert_eq!(page.len(), BLOCK);
            }
        }
    }

    #[test]
    fn a_page_that_has_lost_its_last_row_is_free() {
        let shape = shape();
        let mut page = vec![0; BLOCK];
        let mut rows = RowPage::new(&mut page, &shape);
        rows.insert_first(kind::TAIL, &[1; 50]).unwrap();
        rows.remove(0).unwrap();
        assert!(rows.remove(7).is_err());
        assert_eq!(page_type(&page), kind::UNALLOCATED);
    }

    #[test]
    fn moved_rows_lose_the_ids_of_transactions() {
        let shape = shape();
        let mut page = vec![0; BLOCK];
        let mut rows = RowPage::new(&mut page, &shape);
        let with_id = [&[ROW_HAS_TRANSACTION, 1, 2, 3, 4, 5, 6][..], &[9; 20]].concat();
        rows.insert_first(kind::HEAD, &[0; 30]).unwrap();
        rows.insert(kind::HEAD, 1, &with_id).unwrap();
        rows.remove(0).unwrap();
        // More than there is behind the row, less than there is with what is before it.
        rows.insert(kind::HEAD, 2, &[8; 945]).unwrap();
        let entry = rows.entry(1).unwrap();
        assert_eq!((entry.offset, entry.length), (12, 21));
        assert_eq!(rows.page[12..12 + 21], [&[0][..], &[9; 20]].concat());
    }
}
