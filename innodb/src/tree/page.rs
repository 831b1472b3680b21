//! One page of an index: its header, and its records in their order.

use super::StructureError;
use crate::bytes::{u8_at, u16_at, u32_at, u64_at};
use crate::page::layout::{fil, index};
use crate::page::{PageType, page_no, page_type};
use crate::{PageId, PageNo};

/// Where a record's header has what, counted back from the origin of the record.
pub(crate) mod record {
    /// Next record, 2 bytes: relative to this one in COMPACT pages, absolute in REDUNDANT ones.
    pub const NEXT: usize = 2;
    /// COMPACT: kind of the record in the low 3 bits.
    pub const STATUS: usize = 3;
    /// Flags in the high nibble; COMPACT.
    pub const INFO_COMPACT: usize = 5;
    /// Flags in the high nibble; REDUNDANT.
    pub const INFO_REDUNDANT: usize = 6;
    /// Flag: the record is deleted, and waits for its removal.
    pub const DELETED: u8 = 0x20;
    /// Flag: the smallest record of its level, or the metadata of an instant ALTER TABLE.
    pub const SMALLEST: u8 = 0x10;
    /// All flags.
    pub const INFO: u8 = 0xf0;
}

/// Origins of the records that every page has.
pub(crate) mod fixed {
    pub const INFIMUM_COMPACT: usize = 99;
    pub const SUPREMUM_COMPACT: usize = 112;
    pub const INFIMUM_REDUNDANT: usize = 101;
    pub const SUPREMUM_REDUNDANT: usize = 116;
}

/// A page of an index.
#[derive(Clone, Copy, Debug)]
pub struct IndexPage<'p> {
    id: PageId,
    bytes: &'p [u8],
    compact: bool,
}

impl<'p> IndexPage<'p> {
    /// Takes `bytes` for page `id` of an index.
    ///
    /// # Errors
    /// When it is another page, or of another type.
    pub fn new(id: PageId, bytes: &'p [u8]) -> Result<Self, StructureError> {
        let wrong = |what| StructureError { page: id, what };
        if page_no(bytes) != Some(id.page) {
            return Err(wrong("it says that it is another page"));
        }
        match page_type(bytes) {
            Some(PageType::INDEX | PageType::INSTANT | PageType::RTREE) => {}
            _ => return Err(wrong("it is no index page")),
        }
        let heap = u16_at(bytes, index::N_HEAP).ok_or(wrong("it is cut short"))?;
        Ok(Self { id, bytes, compact: heap & index::COMP != 0 })
    }

    /// Which page this is.
    pub const fn id(&self) -> PageId {
        self.id
    }

    /// The whole page.
    pub const fn bytes(&self) -> &'p [u8] {
        self.bytes
    }

    /// Whether records are in the COMPACT style: all row formats but REDUNDANT.
    pub const fn is_compact(&self) -> bool {
        self.compact
    }

    /// Whether this is the root of a clustered index after an instant ALTER TABLE.
    pub fn is_instant_root(&self) -> bool {
        page_type(self.bytes) == Some(PageType::INSTANT)
    }

    /// Height above the leaves.
    pub fn level(&self) -> u16 {
        u16_at(self.bytes, index::LEVEL).unwrap_or_default()
    }

    /// The index that the page belongs to.
    pub fn index_id(&self) -> u64 {
        u64_at(self.bytes, index::INDEX_ID).unwrap_or_default()
    }

    /// Clustered root: the last AUTO_INCREMENT value that was given out.
    pub fn last_auto_increment(&self) -> u64 {
        u64_at(self.bytes, index::MAX_TRX_ID).unwrap_or_default()
    }

    /// The next page of the same level, if there is one.
    pub fn next(&self) -> Option<PageNo> {
        u32_at(self.bytes, fil::NEXT).map(PageNo).filter(|page| *page != PageNo::NULL)
    }

    /// The bytes that every page has as its smallest and its largest record, 8 each. Only the
    /// root after an instant ALTER TABLE that dropped or moved columns has others.
    pub fn bounds(&self) -> Option<(&'p [u8; 8], &'p [u8; 8])> {
        let (infimum, supremum) = self.fixed();
        Some((
            self.bytes.get(infimum..)?.first_chunk()?,
            self.bytes.get(supremum..)?.first_chunk()?,
        ))
    }

    /// Origins of the user records, in the order of their keys, deleted ones included.
    pub fn records(&self) -> Records<'p> {
        let (infimum, _) = self.fixed();
        // No page has more records than a third of its bytes.
        Records { page: *self, at: infimum, left: self.bytes.len() / 3 }
    }

    /// Flags of the record at `origin`, in the high nibble.
    pub fn info(&self, origin: usize) -> u8 {
        let back = if self.compact { record::INFO_COMPACT } else { record::INFO_REDUNDANT };
        origin.checked_sub(back).and_then(|at| u8_at(self.bytes, at)).unwrap_or(0) & record::INFO
    }

    /// Whether the record at `origin` is deleted, and only waits for its removal.
    pub fn is_deleted(&self, origin: usize) -> bool {
        self.info(origin) & record::DELETED != 0
    }

    fn fixed(&self) -> (usize, usize) {
        match self.compact {
            true => (fixed::INFIMUM_COMPACT, fixed::SUPREMUM_COMPACT),
            false => (fixed::INFIMUM_REDUNDANT, fixed::SUPREMUM_REDUNDANT),
        }
    }

    fn after(&self, origin: usize) -> Option<usize> {
        let next = usize::from(u16_at(self.bytes, origin.checked_sub(record::NEXT)?)?);
        match self.compact {
            // Relative, and wrapping around within 64 KiB; pages are powers of two.
            true => Some(origin.wrapping_add(next) & 0xffff & (self.bytes.len() - 1)),
            false => Some(next),
        }
    }
}

/// Walks the records of a page.
#[derive(Clone, Debug)]
pub struct Records<'p> {
    page: IndexPage<'p>,
    at: usize,
    left: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<usize, StructureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (_, supremum) = self.page.fixed();
        if self.at == supremum {
            return None;
        }
        let next = self.page.after(self.at).filter(|next| {
            *next == supremum || (*next > supremum && *next < self.page.bytes.len())
        });
        let broken = StructureError { page: self.page.id, what: "the list of records is broken" };
        let (Some(next), true) = (next, self.left > 0) else {
            self.at = supremum;
            return Some(Err(broken));
        };
        self.left -= 1;
        self.at = next;
        (next != supremum).then_some(Ok(next))
    }
}
