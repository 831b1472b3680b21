//! Changes of secondary indexes that the change buffer holds back.
//!
//! Servers before 11.0 keep 4 bits per page on pages of their own; one of them says that the
//! change buffer has something for the page. Freed pages keep theirs, so those are left out.

use innodb::bytes::u8_at;
use innodb::page::is_zero;
use innodb::space::{SpaceHeader, xdes};
use innodb::tree::Pages;
use innodb::{PageId, PageNo};

use super::page_count;
use super::pages::Files;
use crate::Result;
use crate::prepare::inventory::Tablespace;

/// Where a bitmap page has its bits.
const BITS: usize = 38;
/// In the nibble of a page: there are changes.
const HAS_CHANGES: u8 = 4;

/// The first page of a tablespace for which there are changes.
pub fn first(space: &Tablespace, files: &Files<'_>) -> Result<Option<PageNo>> {
    let page = |page| files.page(PageId { space: space.id, page: PageNo(page) });
    let count = page_count(space);
    let described = u32::try_from(space.flags.physical_size().bytes()).unwrap_or(u32::MAX);
    let page_0 = page(0)?;
    let limit = SpaceHeader::parse(&page_0).map_or(count, |header| header.free_limit.0.min(count));
    for first in (0..limit).step_by(described as usize) {
        let Some(bitmap) = first.checked_add(1).filter(|bitmap| *bitmap < count) else { break };
        let bits = page(bitmap)?;
        let Some(nibbles) = bits.get(BITS..BITS + described as usize / 2) else { continue };
        if is_zero(nibbles) {
            continue;
        }
        let descriptors = page(first)?;
        for number in 0..described.min(limit - first) {
            let byte = u8_at(nibbles, number as usize / 2).unwrap_or_default();
            let nibble = if number % 2 == 0 { byte } else { byte >> 4 };
            let number = PageNo(first + number);
            if nibble & HAS_CHANGES != 0
                && xdes::is_free(&descriptors, number, &space.flags) != Some(true)
            {
                return Ok(Some(number));
            }
        }
    }
    Ok(None)
}
