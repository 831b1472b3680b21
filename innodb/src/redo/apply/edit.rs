//! Plain edits of bytes, the only ones that pages of compressed tables see.

use super::{Misfit, copy, write};
use crate::PageId;
use crate::page::layout::fil;

/// Checksum and page number are no business of redo.
const OFFSET_MIN: usize = fil::PREV;

/// A new page: all zero but for who it is and that it has no neighbours.
pub fn init_page(page: &mut [u8], id: PageId) -> Result<(), Misfit> {
    const WHAT: &str = "the page header";
    page.fill(0);
    write(page, fil::PAGE_NO, &id.page.0.to_be_bytes(), WHAT)?;
    write(page, fil::PREV, &[0xff; fil::LSN - fil::PREV], WHAT)?;
    write(page, fil::SPACE_ID, &id.space.0.to_be_bytes(), WHAT)
}

#[inline]
pub fn write_bytes(page: &mut [u8], offset: u32, bytes: &[u8]) -> Result<(), Misfit> {
    write(page, from(offset)?, bytes, "the written range")
}

#[inline]
pub fn memset(page: &mut [u8], offset: u32, length: u32, pattern: &[u8]) -> Result<(), Misfit> {
    const WHAT: &str = "the filled range";
    let (start, length) = (from(offset)?, length as usize);
    if let [byte] = *pattern {
        range(page, start, length, WHAT)?.fill(byte);
        return Ok(());
    }
    // What a server does with a pattern that does not divide the length is not defined.
    if pattern.is_empty() || !length.is_multiple_of(pattern.len()) {
        return Err(Misfit::Impossible { what: "the length of the pattern", value: pattern.len() });
    }
    for chunk in range(page, start, length, WHAT)?.chunks_exact_mut(pattern.len()) {
        chunk.copy_from_slice(pattern);
    }
    Ok(())
}

#[inline]
pub fn memmove(page: &mut [u8], offset: u32, length: u32, source: u32) -> Result<(), Misfit> {
    copy(page, from(source)?, from(offset)?, length as usize, "the moved range")
}

#[inline]
fn from(offset: u32) -> Result<usize, Misfit> {
    let offset = offset as usize;
    if offset < OFFSET_MIN {
        return Err(Misfit::OutOfBounds { what: "the changed range", offset });
    }
    Ok(offset)
}

#[inline]
fn range<'p>(
    page: &'p mut [u8],
    start: usize,
    length: usize,
    what: &'static str,
) -> Result<&'p mut [u8], Misfit> {
    let end = start.saturating_add(length);
    page.get_mut(start..end).ok_or(Misfit::OutOfBounds { what, offset: end })
}
