//! A record inserted into an index page.
//!
//! The new record follows its predecessor in key order and shares the start of its header
//! and data with it, so that redo has only the rest. The place is the end of the heap or the
//! first record of the free list.

use super::index::{IndexPage, OWNED_MAX, Offsets};
use super::{Misfit, copy, number, write};
use crate::page::PageType;
use crate::page::layout::{fil, index};

/// Where the new record goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Behind all others.
    Heap,
    /// Where the first of the free list was.
    Free,
}

/// In the encoded flags: the record carries data of an instant ALTER.
const INSTANT: usize = 4;
/// The status of such a record.
const STATUS_INSTANT: usize = 4;
/// The status of a record on a page that is not a leaf.
const STATUS_NODE_POINTER: usize = 1;

/// Values of the low three bits of [`index::DIRECTION`].
mod direction {
    pub const MASK: usize = 7;
    pub const LEFT: usize = 1;
    pub const RIGHT: usize = 2;
    pub const NONE: usize = 5;
}

/// Inserts into a page of ROW_FORMAT=REDUNDANT.
pub fn redundant(page: &mut [u8], space: Space, mut payload: &[u8]) -> Result<(), Misfit> {
    let mut page = IndexPage::<false>::open(page)?;
    let gap = Gap::find(&page, number(&mut payload, "the predecessor")?)?;
    let encoded = number(&mut payload, "the flags")?;
    let header_shared = number(&mut payload, "the length of the shared header")?;
    let data_shared = number(&mut payload, "the length of the shared data")?;

    let offsets = Offsets { fields: (encoded >> 3) + 1, short: encoded & 4 != 0 };
    if offsets.fields > 0x3ff {
        return Err(Misfit::Impossible { what: "the number of fields", value: offsets.fields });
    }
    let extra = offsets.header_size();
    let header_shared = header_shared.saturating_add(IndexPage::<false>::HEADER);
    let own = extra.checked_sub(header_shared).ok_or(Misfit::Impossible {
        what: "the length of the shared header",
        value: header_shared,
    })?;
    let (own_header, data) =
        payload.split_at_checked(own).ok_or(Misfit::Short("the end of the header"))?;
    let shared = gap.before_predecessor(header_shared)?;

    let (start, heap_number) = match space {
        Space::Heap => (page.header(index::HEAP_TOP)?, page.heap_count()?),
        Space::Free => {
            let free = first_free(&page)?;
            let old = Offsets::of(page.bytes, free)?;
            (free - old.header_size(), page.heap_number(free)?)
        }
    };
    let next_free = match space {
        Space::Heap => None,
        Space::Free => page.next_or_end(first_free(&page)?)?,
    };
    let origin = room(&page, start, extra)?;
    write(page.bytes, start, own_header, "the record")?;
    copy(page.bytes, shared, start + own, header_shared, "the shared header")?;
    let data_size = offsets.data_size(page.bytes, origin)?;
    if data_size.checked_sub(data_shared) != Some(data.len()) {
        return Err(Misfit::Impossible { what: "the length of the data", value: data.len() });
    }
    room(&page, origin, data_size)?;
    take(&mut page, space, start, extra + data_size, next_free)?;

    if heap_number >= 1 << 13 {
        return Err(Misfit::Impossible { what: "the heap number", value: heap_number });
    }
    // 13 bits of heap number, 10 of field count, 1 of offset width; the next-record field that
    // follows is the predecessor's, copied with the rest of its header.
    let bits = heap_number << 11 | offsets.fields << 1 | usize::from(offsets.short);
    let [.., high, middle, low] = bits.to_be_bytes();
    write(page.bytes, origin - 6, &[info_bits(encoded), high, middle, low], "the record header")?;
    gap.fill(&mut page, origin, data_shared, data)
}

/// Inserts into a page of ROW_FORMAT=COMPACT or DYNAMIC.
pub fn dynamic(page: &mut [u8], space: Space, mut payload: &[u8]) -> Result<(), Misfit> {
    const HEADER: usize = IndexPage::<true>::HEADER;
    let mut page = IndexPage::<true>::open(page)?;
    let gap = Gap::find(&page, number(&mut payload, "the predecessor")?)?;
    let shift = match space {
        Space::Heap => 0,
        Space::Free => number(&mut payload, "the shift")?,
    };
    let encoded = number(&mut payload, "the flags")?;
    let header_shared = number(&mut payload, "the length of the shared header")?;
    let data_shared = number(&mut payload, "the length of the shared data")?;
    let own = encoded >> 3;
    let (own_header, data) =
        payload.split_at_checked(own).ok_or(Misfit::Short("the end of the header"))?;
    let shared = gap.before_predecessor(header_shared.saturating_add(HEADER))?;
    let extra = HEADER + header_shared + own;
    let data_size = data_shared.saturating_add(data.len());

    let (start, heap_number, next_free) = match space {
        Space::Heap => (page.header(index::HEAP_TOP)?, page.heap_count()?, None),
        Space::Free => {
            let free = first_free(&page)?;
            // The lowest bit is the sign: the new header may be longer or shorter than the old.
            let shifted = match (shift & 1, shift >> 1) {
                (0, up) => free.checked_add(up),
                (_, down) => free.checked_sub(down),
            };
            let start = shifted.and_then(|origin| origin.checked_sub(extra));
            let start = start.ok_or(Misfit::OutOfBounds { what: "the shift", offset: free })?;
            (start, page.heap_number(free)?, page.next_or_end(free)?)
        }
    };
    let origin = room(&page, start, extra)?;
    room(&page, origin, data_size)?;
    take(&mut page, space, start, extra + data_size, next_free)?;

    let status = if page.header(index::LEVEL)? != 0 {
        STATUS_NODE_POINTER
    } else if encoded & INSTANT != 0 {
        STATUS_INSTANT
    } else {
        0
    };
    let numbers = u16::try_from(heap_number << 3 | status)
        .map_err(|_| Misfit::Impossible { what: "the heap number", value: heap_number })?;
    let [high, low] = numbers.to_be_bytes();
    write(page.bytes, start, own_header, "the record")?;
    copy(page.bytes, shared, start + own, header_shared, "the shared header")?;
    write(page.bytes, origin - HEADER, &[info_bits(encoded), high, low], "the record header")?;
    page.link(origin, Some(gap.next))?;
    gap.fill(&mut page, origin, data_shared, data)
}

/// Delete mark and minimum-record flag from the encoded flags, at their place in the header.
fn info_bits(encoded: usize) -> u8 {
    // Two bits always fit.
    ((encoded & 3) as u8) << 4
}

fn first_free<const COMP: bool>(page: &IndexPage<'_, COMP>) -> Result<usize, Misfit> {
    page.record(page.header(index::FREE)?, "the first free record")
}

/// The end of `size` bytes from `start`, which must lie among the records.
fn room<const COMP: bool>(
    page: &IndexPage<'_, COMP>,
    start: usize,
    size: usize,
) -> Result<usize, Misfit> {
    let end = start.saturating_add(size);
    if start < IndexPage::<COMP>::HEAP || end > page.records_end() {
        return Err(Misfit::OutOfBounds { what: "the place of the record", offset: start });
    }
    Ok(end)
}

/// Accounts for the `size` bytes of the new record from `start` on.
fn take<const COMP: bool>(
    page: &mut IndexPage<'_, COMP>,
    space: Space,
    start: usize,
    size: usize,
    next_free: Option<usize>,
) -> Result<(), Misfit> {
    match space {
        Space::Heap => {
            page.set_header(index::HEAP_TOP, start + size)?;
            page.add(index::N_HEAP, 1, "the number of records in the heap")
        }
        Space::Free => {
            page.subtract(index::GARBAGE, size, "the number of garbage bytes")?;
            page.set_header(index::FREE, next_free.unwrap_or(0))
        }
    }
}

/// The place in key order where a record goes.
struct Gap<const COMP: bool> {
    predecessor: usize,
    next: usize,
    /// Last of the group that the record joins, and the size of the group before.
    owner: usize,
    owned: u8,
    slot: usize,
}

impl<const COMP: bool> Gap<COMP> {
    #[inline]
    fn find(page: &IndexPage<'_, COMP>, distance: usize) -> Result<Self, Misfit> {
        let predecessor = IndexPage::<COMP>::INFIMUM.saturating_add(distance);
        let predecessor = page.record(predecessor, "the predecessor")?;
        let next = page.next(predecessor)?;
        let (owner, owned) = page.owner(next)?;
        let slot = page.slot_of(owner)?;
        if slot == 0 {
            return Err(Misfit::Impossible { what: "the slot of the successor", value: 0 });
        }
        Ok(Self { predecessor, next, owner, owned, slot })
    }

    /// Where the last `length` bytes of the predecessor's header start.
    #[inline]
    fn before_predecessor(&self, length: usize) -> Result<usize, Misfit> {
        let start = self.predecessor.checked_sub(length).filter(|&start| start >= index::DATA);
        start.ok_or(Misfit::OutOfBounds { what: "the shared header", offset: self.predecessor })
    }

    /// Gives the record at `origin`, whose header is complete, its data and its neighbours.
    fn fill(
        self,
        page: &mut IndexPage<'_, COMP>,
        origin: usize,
        data_shared: usize,
        data: &[u8],
    ) -> Result<(), Misfit> {
        copy(page.bytes, self.predecessor, origin, data_shared, "the shared data")?;
        write(page.bytes, origin + data_shared, data, "the record")?;
        self.note_direction(page, origin)?;
        page.link(self.predecessor, Some(origin))?;
        page.add(index::N_RECS, 1, "the number of records")?;
        page.set_owned(self.owner, self.owned + 1)?;
        if self.owned == OWNED_MAX { self.split(page) } else { Ok(()) }
    }

    /// Servers note whether records arrive in order. Spatial indexes have no order.
    fn note_direction(&self, page: &mut IndexPage<'_, COMP>, origin: usize) -> Result<(), Misfit> {
        let last = page.header(index::LAST_INSERT)?;
        page.set_header(index::LAST_INSERT, origin)?;
        let [_, page_type] = PageType::RTREE.0.to_be_bytes();
        if page.bytes.get(fil::TYPE + 1) == Some(&page_type) {
            return Ok(());
        }
        let field = page.header(index::DIRECTION)?;
        let before = field & direction::MASK;
        let now = if last == 0 {
            direction::NONE
        } else if last == self.predecessor && before != direction::LEFT {
            direction::RIGHT
        } else if last == self.next && before != direction::RIGHT {
            direction::LEFT
        } else {
            direction::NONE
        };
        page.set_header(index::DIRECTION, field & !direction::MASK | now)?;
        if now == direction::NONE {
            page.set_header(index::N_DIRECTION, 0)
        } else {
            page.add(index::N_DIRECTION, 1, "the number of inserts in one direction")
        }
    }

    /// Divides the group, now of nine, between a new slot and the old one.
    fn split(self, page: &mut IndexPage<'_, COMP>) -> Result<(), Misfit> {
        const LOWER: u8 = 4;
        let mut last = page.slot(self.slot - 1)?;
        for _ in 0..LOWER {
            last = page.next(last)?;
        }
        page.open_slot(self.slot)?;
        page.set_slot(self.slot, last)?;
        page.set_owned(last, LOWER)?;
        let owner = page.slot(self.slot + 1)?;
        page.set_owned(owner, OWNED_MAX + 1 - LOWER)
    }
}
