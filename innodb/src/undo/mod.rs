//! Undo logs of transactions that have not ended: which tables they have changed, and how the rows
//! were before.
//!
//! A server rolls such transactions back, or keeps them when they are prepared, before anyone can
//! use the tables. Who uses the tables' files without a server must leave those tables alone.
//!
//! What a transaction changed and rolled back itself, to a savepoint, is gone from its undo log;
//! that it changed the table may remain. So a table can be named although nothing is left of the
//! change, and never the other way round.
//!
//! | module | what |
//! |---|---|
//! | [`layout`] | where undo logs have what |
//! | [`record`] | what a record says of a row |
//! | [`fate`] | what is to become of the rows of a table |
//! | [`entry`] | which entries of secondary indexes a row has |

pub mod entry;
pub mod fate;
pub mod layout;
pub mod record;

use std::collections::{BTreeSet, HashSet};

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::page::layout::undo as undo_page;
use crate::page::{PageType, page_type};
use crate::tree::{Pages, StructureError};
use crate::{PageId, PageNo, SpaceId};
use layout::{TRX_SYS, TRX_SYS_SLOT_COUNT, TRX_SYS_SLOTS, first, log, page, segment};
use record::{OutOfBounds, Records, UndoRecord};

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
    let mut found: Vec<OpenTransaction> = Vec::new();
    each_record(pages, |owner, record| {
        if found.last().is_none_or(|last| last.id != owner.id) {
            let OpenLog { id, prepared } = owner;
            found.push(OpenTransaction { id, prepared, tables: BTreeSet::new() });
        }
        if let (Some(last), Some(record)) = (found.last_mut(), record) {
            last.tables.insert(record.table);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The transaction that an undo log is of, which has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLog {
    /// Its number.
    pub id: u64,
    /// As in [`OpenTransaction`].
    pub prepared: bool,
}

/// Calls `each` for the undo logs of transactions that have not ended: once without a record, then for
/// its records, the oldest first.
///
/// # Errors
/// When a page cannot be read, or makes no sense, and what `each` returns.
pub fn each_record<P: Pages>(
    pages: &P,
    mut each: impl FnMut(OpenLog, Option<UndoRecord<'_>>) -> Result<(), P::Error>,
) -> Result<(), P::Error> {
    let trx_sys = PageId { space: SpaceId::SYSTEM, page: PageNo(TRX_SYS) };
    let slots = read(pages, trx_sys, PageType::TRX_SYS)?;
    let mut seen = HashSet::new();
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
                records_of_log(pages, PageId { page, ..header }, &mut seen, &mut each)?;
            }
        }
    }
    Ok(())
}

/// The records of an undo log, if its transaction has not ended. No page is part of two logs; `seen`
/// has those that were read.
fn records_of_log<P: Pages>(
    pages: &P,
    start: PageId,
    seen: &mut HashSet<PageId>,
    each: &mut impl FnMut(OpenLog, Option<UndoRecord<'_>>) -> Result<(), P::Error>,
) -> Result<(), P::Error> {
    let short = |page| StructureError { page, what: "it is cut short" };
    let mut id = start;
    let mut bytes = read(pages, id, PageType::UNDO_LOG)?;
    let state = u16_at(&bytes, first::STATE).ok_or(short(id))?;
    if first::ENDED.contains(&state) {
        return Ok(());
    }
    if !matches!(state, first::ACTIVE | first::PREPARED) {
        return Err(StructureError { page: id, what: "its undo log is in no known state" }.into());
    }
    let header = usize::from(u16_at(&bytes, first::LAST_LOG).ok_or(short(id))?);
    let owner = OpenLog {
        id: u64_at(&bytes, header + log::TRX_ID).ok_or(short(id))?,
        prepared: state != first::ACTIVE,
    };
    each(owner, None)?;
    let mut at = usize::from(u16_at(&bytes, header + log::START).ok_or(short(id))?);
    while seen.insert(id) {
        let end = usize::from(u16_at(&bytes, undo_page::FREE).ok_or(short(id))?);
        let wrong = StructureError { page: id, what: "an undo record is out of bounds" };
        let mut records = Records::new(&bytes, at, end).ok_or(wrong)?;
        while let Some(record) = records.next().map_err(|OutOfBounds| wrong)? {
            each(owner, Some(record))?;
        }
        match u32_at(&bytes, page::NEXT).map(PageNo) {
            Some(PageNo::NULL) => return Ok(()),
            next => id.page = next.ok_or(short(id))?,
        }
        bytes = read(pages, id, PageType::UNDO_LOG)?;
        at = usize::from(u16_at(&bytes, undo_page::START).ok_or(short(id))?);
    }
    Err(StructureError { page: id, what: "two undo logs claim it" }.into())
}

fn read<P: Pages>(pages: &P, id: PageId, expected: PageType) -> Result<Vec<u8>, P::Error> {
    let bytes = pages.page(id)?;
    if page_type(&bytes) != Some(expected) {
        return Err(StructureError { page: id, what: "it is not of the expected type" }.into());
    }
    Ok(bytes)
}
