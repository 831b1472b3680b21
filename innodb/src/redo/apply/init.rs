//! Pages that start empty: index pages and undo pages.

use super::{Misfit, done, write, write_u16, zero};
use crate::page::PageType;
use crate::page::layout::{fil, index, undo};

/// How the pseudo records of an empty index page look.
pub struct RowFormat {
    /// Both pseudo records, from [`index::DATA`] on.
    records: &'static [u8],
    infimum: usize,
    supremum: usize,
    /// The pseudo records in the heap, and the flag of the row format.
    n_heap: usize,
}

impl RowFormat {
    const fn heap_top(&self) -> usize {
        index::DATA + self.records.len()
    }
}

/// ROW_FORMAT=REDUNDANT.
pub const REDUNDANT: RowFormat = RowFormat {
    records: b"\x08\x01\x00\x00\x03\x00\x74infimum\0\x09\x01\x00\x08\x03\x00\x00supremum\0",
    infimum: 101,
    supremum: 116,
    n_heap: 2,
};

/// ROW_FORMAT=COMPACT and DYNAMIC, which differ only in how they store long columns.
pub const DYNAMIC: RowFormat = RowFormat {
    records: b"\x01\x00\x02\x00\x0dinfimum\0\x01\x00\x0b\x00\x00supremum",
    infimum: 99,
    supremum: 112,
    n_heap: index::COMP as usize | 2,
};

/// An insert direction of "none", see [`index::DIRECTION`].
const NO_DIRECTION: usize = 5;

/// An index page without user records. Level, index id and segment headers stay.
pub fn index(page: &mut [u8], format: &RowFormat, payload: &[u8]) -> Result<(), Misfit> {
    const WHAT: &str = "the index page header";
    done(payload)?;
    let end = page.len().saturating_sub(index::DIRECTORY_END);
    write_u16(page, fil::TYPE, PageType::INDEX.0.into(), WHAT)?;
    zero(page, index::N_DIR_SLOTS, index::LEVEL, WHAT)?;
    write_u16(page, index::N_DIR_SLOTS, 2, WHAT)?;
    write_u16(page, index::HEAP_TOP, format.heap_top(), WHAT)?;
    write_u16(page, index::N_HEAP, format.n_heap, WHAT)?;
    write_u16(page, index::DIRECTION, NO_DIRECTION, WHAT)?;
    write(page, index::DATA, format.records, WHAT)?;
    zero(page, format.heap_top(), end, WHAT)?;
    write_u16(page, end - 2, format.infimum, WHAT)?;
    write_u16(page, end - 4, format.supremum, WHAT)
}

/// An undo page without records. The header of the undo segment stays.
pub fn undo(page: &mut [u8], payload: &[u8]) -> Result<(), Misfit> {
    const WHAT: &str = "the undo page header";
    /// A list node without neighbours: two times "no page", offset 0.
    const NODE: &[u8] = b"\xff\xff\xff\xff\0\0\xff\xff\xff\xff\0\0";
    done(payload)?;
    let end = page.len().saturating_sub(undo::END);
    write_u16(page, fil::TYPE, PageType::UNDO_LOG.0.into(), WHAT)?;
    write_u16(page, undo::TYPE, 0, WHAT)?;
    write_u16(page, undo::START, undo::DATA, WHAT)?;
    write_u16(page, undo::FREE, undo::DATA, WHAT)?;
    write(page, undo::NODE, NODE, WHAT)?;
    zero(page, undo::SEGMENT_END, end, WHAT)
}
