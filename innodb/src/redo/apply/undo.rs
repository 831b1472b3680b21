//! Undo log records.

use super::{Misfit, read_u16, write, write_u16};
use crate::page::layout::undo;

/// What stands around a record: the offset of the next one, and of itself.
const LINK: usize = 2;

/// Appends a record: both neighbours find it by the offsets around it.
#[inline]
pub fn append(page: &mut [u8], record: &[u8]) -> Result<(), Misfit> {
    const WHAT: &str = "the end of the undo log";
    /// Type, flags and at least one byte of an undo number.
    const RECORD_MIN: usize = 3;
    if record.len() < RECORD_MIN {
        return Err(Misfit::Short("an undo log record"));
    }
    let free = read_u16(page, undo::FREE, WHAT)?;
    let next = free + 2 * LINK + record.len();
    // Two more bytes stay free, as they do in a server.
    if free < undo::DATA || next + 2 >= page.len().saturating_sub(undo::END) {
        return Err(Misfit::OutOfBounds { what: WHAT, offset: next });
    }
    write_u16(page, undo::FREE, next, WHAT)?;
    write_u16(page, free, next, WHAT)?;
    write(page, free + LINK, record, WHAT)?;
    write_u16(page, next - LINK, free, WHAT)
}
