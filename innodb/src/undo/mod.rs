//! Undo logs of transactions that have not ended: which tables they have changed.
//!
//! A server rolls such transactions back, or keeps them when they are prepared, before anyone can
//! use the tables. Who uses the tables' files without a server must leave those tables alone.
//!
//! What a transaction changed and rolled back itself, to a savepoint, is gone from its undo log;
//! that it changed the table may remain. So a table can be named although nothing is left of the
//! change, and never the other way round.

pub mod layout;

use std::collections::{BTreeSet, HashSet};

use crate::bytes::{u8_at, u16_at, u32_at, u64_at};
use crate::page::layout::undo as undo_page;
use crate::page::{PageType, page_type};
use crate::tree::{Pages, StructureError};
use crate::{PageId, PageNo, SpaceId};
use layout::{TRX_SYS, TRX_SYS_SLOT_COUNT, TRX_SYS_SLOTS, first, log, page, record, segment};

/// A transaction that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its number.
    pub id: u64,
    /// Whether it waits for XA COMMIT or XA ROLLBACK, or for its commit to be found in the binary
    /// log.
    pub prepared: bool,
    /// Ids of the tables it has changed.
    pub tables: BTreeSet<u64>,
}

/// Finds the transactions that have not ended.
///
/// # Errors
/// When a page cannot be read, or makes no sense.
pub fn open_transactions<P: Pages>(pages: &P) -> Result<Vec<OpenTransaction>, P::Error> {
    let trx_sys = PageId { space: SpaceId::SYSTEM, page: PageNo(TRX_SYS) };
    let slots = read(pages, trx_sys, PageType::TRX_SYS)?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for slot in 0..TRX_SYS_SLOT_COUNT {
        let at = TRX_SYS_SLOTS + 8 * slot;
        let (Some(space), Some(page)) = (u32_at(&slots, at), u32_at(&slots, at + 4)) else { break };
        let header = PageId { space: SpaceId(space), page: PageNo(page) };
        if header.page == PageNo::NULL {
            continue;
        }
        let bytes = read(pages, header, PageType::SYS)?;
        for slot in 0..bytes.len() / segment::BYTES_PER_SLOT {
            let undo = u32_at(&bytes, segment::SLOTS + 4 * slot).map(PageNo);
            if let Some(page) = undo.filter(|page| *page != PageNo::NULL) {
                found.extend(transaction(pages, PageId { page, ..header }, &mut seen)?);
            }
        }
    }
    Ok(found)
}

/// The transaction of an undo log, if it has not ended. No page is part of two logs; `seen` has
/// those that were read.
fn transaction<P: Pages>(
    pages: &P,
    start: PageId,
    seen: &mut HashSet<PageId>,
) -> Result<Option<OpenTransaction>, P::Error> {
    let short = |page| StructureError { page, what: "it is cut short" };
    let mut id = start;
    let mut bytes = read(pages, id, PageType::UNDO_LOG)?;
    let state = u16_at(&bytes, first::STATE).ok_or(short(id))?;
    if first::ENDED.contains(&state) {
        return Ok(None);
    }
    if !matches!(state, first::ACTIVE | first::PREPARED) {
        return Err(StructureError { page: id, what: "its undo log is in no known state" }.into());
    }
    let header = usize::from(u16_at(&bytes, first::LAST_LOG).ok_or(short(id))?);
    let mut transaction = OpenTransaction {
        id: u64_at(&bytes, header + log::TRX_ID).ok_or(short(id))?,
        prepared: state != first::ACTIVE,
        tables: BTreeSet::new(),
    };
    let mut at = usize::from(u16_at(&bytes, header + log::START).ok_or(short(id))?);
    while seen.insert(id) {
        let end = usize::from(u16_at(&bytes, undo_page::FREE).ok_or(short(id))?);
        tables_of(&bytes, at, end, &mut transaction.tables)
            .ok_or(StructureError { page: id, what: "an undo record is out of bounds" })?;
        match u32_at(&bytes, page::NEXT).map(PageNo) {
            Some(PageNo::NULL) => return Ok(Some(transaction)),
            next => id.page = next.ok_or(short(id))?,
        }
        bytes = read(pages, id, PageType::UNDO_LOG)?;
        at = usize::from(u16_at(&bytes, undo_page::START).ok_or(short(id))?);
    }
    Err(StructureError { page: id, what: "two undo logs claim it" }.into())
}

/// Takes down the tables of the records from `at` to `end`.
fn tables_of(page: &[u8], mut at: usize, end: usize, tables: &mut BTreeSet<u64>) -> Option<()> {
    let page = page.get(..end)?;
    if at < undo_page::DATA {
        return None;
    }
    while at < end {
        let next = usize::from(u16_at(page, at + record::NEXT)?);
        // Every record has a kind; unknown ones have a table too.
        u8_at(page, at + record::KIND)?;
        let mut rest = at + record::NUMBER;
        compressed_u64(page, &mut rest)?;
        tables.insert(compressed_u64(page, &mut rest)?);
        if next <= at || next > end || rest > next {
            return None;
        }
        at = next;
    }
    (at == end).then_some(())
}

/// A number of 1 to 11 bytes.
fn compressed_u64(page: &[u8], at: &mut usize) -> Option<u64> {
    const HIGH_FOLLOWS: u8 = 0xff;
    if u8_at(page, *at)? != HIGH_FOLLOWS {
        return compressed_u32(page, at).map(u64::from);
    }
    *at += 1;
    let high = compressed_u32(page, at)?;
    Some(u64::from(high) << 32 | u64::from(compressed_u32(page, at)?))
}

/// A number of 1 to 5 bytes: the high bits of the first say how many. Numbers near the upper end
/// have short forms of their own, whose missing high bits are ones.
fn compressed_u32(page: &[u8], at: &mut usize) -> Option<u32> {
    let byte = u8_at(page, *at)?;
    let (length, mask, ones) = match byte {
        0..0x80 => (1, 0x7f, 0),
        0x80..0xc0 => (2, 0x3fff, 0),
        0xc0..0xe0 => (3, 0x1f_ffff, 0),
        0xe0..0xf0 => (4, 0x0fff_ffff, 0),
        0xf0..0xf8 => (5, u32::MAX, 0),
        0xf8..0xfc => (2, 0x3ff, 0xffff_fc00),
        0xfc..0xfe => (3, 0x1_ffff, 0xfffe_0000),
        0xfe.. => (4, 0xff_ffff, 0xff00_0000),
    };
    let bytes = page.get(*at..)?.get(..length)?;
    let bytes = if length == 5 { bytes.get(1..)? } else { bytes };
    let value = bytes.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
    *at += length;
    Some(value & mask | ones)
}

fn read<P: Pages>(pages: &P, id: PageId, expected: PageType) -> Result<Vec<u8>, P::Error> {
    let bytes = pages.page(id)?;
    if page_type(&bytes) != Some(expected) {
        return Err(StructureError { page: id, what: "it is not of the expected type" }.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Option<(u64, usize)> {
        let mut at = 0;
        compressed_u64(bytes, &mut at).map(|value| (value, at))
    }

    #[test]
    fn numbers_of_all_lengths() {
        for (bytes, value) in [
            (&[0x7f_u8][..], 0x7f),
            (&[0x81, 0x02], 0x102),
            (&[0xc1, 0x02, 0x03], 0x1_0203),
            (&[0xe1, 0x02, 0x03, 0x04], 0x0102_0304),
            (&[0xf0, 0x12, 0x34, 0x56, 0x78], 0x1234_5678),
            (&[0xfb, 0xff], 0xffff_ffff),
            (&[0xf8, 0x00], 0xffff_fc00),
            (&[0xfc, 0x00, 0x01], 0xfffe_0001),
            (&[0xfe, 0x00, 0x00, 0x02], 0xff00_0002),
            (&[0xff, 0x01, 0x05], 0x1_0000_0005),
            (&[0xff, 0xf0, 0xff, 0xff, 0xff, 0xfe, 0xfb, 0xff], 0xffff_fffe_ffff_ffff),
        ] {
            assert_eq!(decoded(bytes), Some((value, bytes.len())), "{bytes:x?}");
            assert_eq!(decoded(&bytes[..bytes.len() - 1]), None, "{bytes:x?}");
        }
    }

    #[test]
    fn tables_of_a_page() {
        // Two records from 56 to 70: kind, number, table.
        let mut page = vec![0; 128];
        page[56..63].copy_from_slice(&[0, 63, 11, 0, 25, 0, 56]);
        page[63..70].copy_from_slice(&[0, 70, 28, 1, 26, 0, 63]);
        let mut tables = BTreeSet::new();
        assert_eq!(tables_of(&page, 56, 70, &mut tables), Some(()));
        assert_eq!(tables, BTreeSet::from([25, 26]));
        assert_eq!(tables_of(&page, 56, 56, &mut BTreeSet::new()), Some(()));
        // A record that ends behind the last, one that leads to itself, one in the header.
        assert_eq!(tables_of(&page, 56, 66, &mut BTreeSet::new()), None);
        page[57] = 56;
        assert_eq!(tables_of(&page, 56, 70, &mut BTreeSet::new()), None);
        assert_eq!(tables_of(&page, 50, 70, &mut BTreeSet::new()), None);
    }
}
