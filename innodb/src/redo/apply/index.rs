//! Index pages: records in a heap, linked in key order, and a directory of every few of them.
//!
//! A record is named by its origin, the offset of its first data byte; its header lies before it.
//! Each directory slot points to the last of a group of 4 to 8 records, its *owner*, which
//! keeps the size of the group. Slot 0 is the infimum and the last slot the supremum.
//!
//! | before the origin | redundant, 6 bytes | comp (COMPACT, DYNAMIC), 5 bytes |
//! |---|---|---|
//! | info bits, size of the owned group | 4 + 4 bits at −6 | 4 + 4 bits at −5 |
//! | heap number | 13 bits at −5 | 13 bits at −4 |
//! | number of fields, width of offsets | 10 + 1 bits after it | – |
//! | status | – | 3 bits after it |
//! | next record | 2 bytes at −2, absolute | 2 bytes at −2, relative |

use super::{Misfit, read_u8, read_u16, write, write_u16, zero};
use crate::page::layout::index;

/// The largest group of records that one slot stands for; one more and it is split.
pub const OWNED_MAX: u8 = 8;
/// The smallest, save for the last slot.
pub const OWNED_MIN: u8 = 4;
const SLOT: usize = 2;
/// The smallest page that can be an index page.
const PAGE_MIN: usize = 1024;

/// An index page in one of its two styles.
pub struct IndexPage<'p, const COMP: bool> {
    /// The whole page.
    pub bytes: &'p mut [u8],
    slots: usize,
}

impl<'p, const COMP: bool> IndexPage<'p, COMP> {
    /// Origin of the first pseudo record.
    pub const INFIMUM: usize = if COMP { 99 } else { 101 };
    /// End of the pseudo records, start of the heap.
    pub const HEAP: usize = if COMP { 120 } else { 125 };
    /// Fixed part of a record header.
    pub const HEADER: usize = if COMP { 5 } else { 6 };

    /// Checks what everything else relies on: that the page is of this style and its directory
    /// lies within it.
    #[inline]
    pub fn open(bytes: &'p mut [u8]) -> Result<Self, Misfit> {
        if bytes.len() < PAGE_MIN {
            return Err(Misfit::Impossible { what: "the page size", value: bytes.len() });
        }
        let heap = read_u16(bytes, index::N_HEAP, "the number of records in the heap")?;
        if (heap & usize::from(index::COMP) != 0) != COMP {
            return Err(Misfit::Forbidden("a page in the other row format"));
        }
        let slots = read_u16(bytes, index::N_DIR_SLOTS, "the number of directory slots")?;
        if slots < 2 || slots * SLOT > bytes.len() - index::DIRECTORY_END - Self::HEAP {
            let what = "the number of directory slots";
            return Err(Misfit::Impossible { what, value: slots });
        }
        Ok(Self { bytes, slots })
    }

    /// Where the directory starts, and records have to end.
    #[inline]
    pub fn records_end(&self) -> usize {
        self.bytes.len() - index::DIRECTORY_END - self.slots * SLOT
    }

    /// A field of the page header.
    #[inline]
    pub fn header(&self, offset: usize) -> Result<usize, Misfit> {
        read_u16(self.bytes, offset, "the index page header")
    }

    /// Sets a field of the page header.
    #[inline]
    pub fn set_header(&mut self, offset: usize, value: usize) -> Result<(), Misfit> {
        write_u16(self.bytes, offset, value, "the index page header")
    }

    /// Adds to a field of the page header.
    #[inline]
    pub fn add(&mut self, offset: usize, amount: usize, what: &'static str) -> Result<(), Misfit> {
        let value = self.header(offset)? + amount;
        write_u16(self.bytes, offset, value, what)
    }

    /// Subtracts from a field of the page header.
    #[inline]
    pub fn subtract(
        &mut self,
        offset: usize,
        amount: usize,
        what: &'static str,
    ) -> Result<(), Misfit> {
        let value = self.header(offset)?;
        let less = value.checked_sub(amount).ok_or(Misfit::Impossible { what, value })?;
        self.set_header(offset, less)
    }

    /// Number of records in the heap, pseudo records included.
    #[inline]
    pub fn heap_count(&self) -> Result<usize, Misfit> {
        Ok(self.header(index::N_HEAP)? & !usize::from(index::COMP))
    }

    /// An origin that came from page or record, if one can be there.
    #[inline]
    pub fn record(&self, origin: usize, what: &'static str) -> Result<usize, Misfit> {
        if (Self::INFIMUM..self.records_end()).contains(&origin) {
            Ok(origin)
        } else {
            Err(Misfit::OutOfBounds { what, offset: origin })
        }
    }

    /// What the next-record field of `record` points to, `None` at the end of a list.
    #[inline]
    pub fn next_or_end(&self, record: usize) -> Result<Option<usize>, Misfit> {
        const WHAT: &str = "the next record";
        let field = read_u16(self.bytes, record - 2, WHAT)?;
        if field == 0 {
            return Ok(None);
        }
        let origin = if COMP { (record + field) & 0xffff } else { field };
        self.record(origin, WHAT).map(Some)
    }

    /// The record behind `record`, which is not the last.
    #[inline]
    pub fn next(&self, record: usize) -> Result<usize, Misfit> {
        let end = Misfit::OutOfBounds { what: "the end of the records", offset: record };
        self.next_or_end(record)?.ok_or(end)
    }

    /// Makes `to` the record behind `from`; `None` makes `from` the last.
    #[inline]
    pub fn link(&mut self, from: usize, to: Option<usize>) -> Result<(), Misfit> {
        let field = match to {
            None => 0,
            Some(to) if COMP => to.wrapping_sub(from) & 0xffff,
            Some(to) => to,
        };
        write_u16(self.bytes, from - 2, field, "the next record")
    }

    /// Size of the group that `record` owns, 0 for most.
    #[inline]
    pub fn owned(&self, record: usize) -> Result<u8, Misfit> {
        let owned = read_u8(self.bytes, record - Self::HEADER, "the record header")? & 0x0f;
        if owned > OWNED_MAX {
            let what = "the number of owned records";
            return Err(Misfit::Impossible { what, value: owned.into() });
        }
        Ok(owned)
    }

    /// Sets the size of the group that `record` owns.
    #[inline]
    pub fn set_owned(&mut self, record: usize, owned: u8) -> Result<(), Misfit> {
        const WHAT: &str = "the record header";
        let at = record - Self::HEADER;
        let info = read_u8(self.bytes, at, WHAT)? & 0xf0;
        write(self.bytes, at, &[info | owned], WHAT)
    }

    /// Heap number of `record`.
    #[inline]
    pub fn heap_number(&self, record: usize) -> Result<usize, Misfit> {
        let at = record + 1 - Self::HEADER;
        Ok(read_u16(self.bytes, at, "the heap number")? >> 3)
    }

    /// The owner of the group that `record` is in, and the size of the group.
    #[inline]
    pub fn owner(&self, record: usize) -> Result<(usize, u8), Misfit> {
        let mut owner = record;
        for _ in 0..=OWNED_MAX {
            match self.owned(owner)? {
                0 => owner = self.next(owner)?,
                owned => return Ok((owner, owned)),
            }
        }
        Err(Misfit::OutOfBounds { what: "the owner of a record", offset: owner })
    }

    /// The slot of `owner`.
    #[inline]
    pub fn slot_of(&self, owner: usize) -> Result<usize, Misfit> {
        const BLOCK: usize = 16;
        let missing =
            Misfit::Impossible { what: "a record without a directory slot", value: owner };
        let wanted = u16::try_from(owner).map_err(|_| missing)?.to_be_bytes();
        let end = self.bytes.len() - index::DIRECTORY_END;
        let directory = self.bytes.get(self.records_end()..end).ok_or(missing)?;
        // Slots grow downwards: the first in memory is the last. A search slot by slot would be
        // most of the work of an insert, so whole blocks are compared at once first.
        let (slots, _) = directory.as_chunks::<SLOT>();
        let is_wanted = |slot: &[u8; SLOT]| *slot == wanted;
        let (blocks, _) = slots.as_chunks::<BLOCK>();
        let has_wanted = |block: &[_; BLOCK]| block.iter().fold(false, |any, s| any | is_wanted(s));
        let block = blocks.iter().position(has_wanted).unwrap_or(blocks.len()) * BLOCK;
        let within = slots.get(block..).and_then(|slots| slots.iter().position(is_wanted));
        let position = block + within.ok_or(missing)?;
        Ok(self.slots - 1 - position)
    }

    /// Whether `slot` is the last, that of the supremum.
    #[inline]
    pub fn is_last_slot(&self, slot: usize) -> bool {
        slot + 1 >= self.slots
    }

    /// The owner that `slot` points to.
    #[inline]
    pub fn slot(&self, slot: usize) -> Result<usize, Misfit> {
        const WHAT: &str = "a directory slot";
        let at = self.slot_at(slot)?;
        self.record(read_u16(self.bytes, at, WHAT)?, WHAT)
    }

    /// Points `slot` to `owner`.
    #[inline]
    pub fn set_slot(&mut self, slot: usize, owner: usize) -> Result<(), Misfit> {
        let at = self.slot_at(slot)?;
        write_u16(self.bytes, at, owner, "a directory slot")
    }

    /// Makes room for one more slot, which becomes `slot`.
    pub fn open_slot(&mut self, slot: usize) -> Result<(), Misfit> {
        let (start, end) = (self.records_end(), self.slot_at(slot)? + SLOT);
        if self.header(index::HEAP_TOP)? > start - SLOT {
            return Err(Misfit::OutOfBounds { what: "the directory", offset: start - SLOT });
        }
        self.bytes.copy_within(start..end, start - SLOT);
        self.set_slots(self.slots + 1)
    }

    /// Removes `slot`.
    pub fn close_slot(&mut self, slot: usize) -> Result<(), Misfit> {
        let (start, at) = (self.records_end(), self.slot_at(slot)?);
        self.bytes.copy_within(start..at, start + SLOT);
        zero(self.bytes, start, start + SLOT, "the directory")?;
        self.set_slots(self.slots - 1)
    }

    fn set_slots(&mut self, slots: usize) -> Result<(), Misfit> {
        self.slots = slots;
        self.set_header(index::N_DIR_SLOTS, slots)
    }

    #[inline]
    fn slot_at(&self, slot: usize) -> Result<usize, Misfit> {
        if slot >= self.slots {
            return Err(Misfit::Impossible { what: "the number of a directory slot", value: slot });
        }
        Ok(self.bytes.len() - index::DIRECTORY_END - SLOT * (slot + 1))
    }
}

/// The variable part of a redundant record's header: where its fields end.
#[derive(Clone, Copy)]
pub struct Offsets {
    /// Number of fields.
    pub fields: usize,
    /// Whether each end takes one byte, else two.
    pub short: bool,
}

impl Offsets {
    /// Bytes of the whole header.
    #[inline]
    pub fn header_size(self) -> usize {
        IndexPage::<false>::HEADER + self.fields * if self.short { 1 } else { 2 }
    }

    /// Of the record at `origin`.
    #[inline]
    pub fn of(page: &[u8], origin: usize) -> Result<Self, Misfit> {
        let bits = read_u16(page, origin - 4, "the number of fields")?;
        let offsets = Self { fields: bits >> 1 & 0x3ff, short: bits & 1 == 1 };
        if offsets.fields == 0 || offsets.header_size() > origin {
            let what = "the number of fields";
            return Err(Misfit::Impossible { what, value: offsets.fields });
        }
        Ok(offsets)
    }

    /// Bytes of data of the record at `origin`: the end of its last field, which stands first.
    #[inline]
    pub fn data_size(self, page: &[u8], origin: usize) -> Result<usize, Misfit> {
        const WHAT: &str = "the end of the last field";
        let at = origin
            .checked_sub(self.header_size())
            .ok_or(Misfit::OutOfBounds { what: WHAT, offset: origin })?;
        if self.short {
            Ok(usize::from(read_u8(page, at, WHAT)? & 0x7f))
        } else {
            Ok(read_u16(page, at, WHAT)? & 0x3fff)
        }
    }
}
