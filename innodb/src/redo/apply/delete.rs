//! A record deleted from an index page.
//!
//! The record leaves the list, its bytes go to the free list or, if it is the last of the heap,
//! back to the free space. Deleted data is zeroed.

use super::index::{IndexPage, OWNED_MIN, Offsets};
use super::{Misfit, done, number, zero};
use crate::page::layout::index;

/// Deletes from a page of ROW_FORMAT=REDUNDANT, where the record tells its own size.
pub fn redundant(page: &mut [u8], mut payload: &[u8]) -> Result<(), Misfit> {
    let page = IndexPage::<false>::open(page)?;
    let distance = number(&mut payload, "the predecessor")?;
    done(payload)?;
    let (predecessor, record) = victim(&page, distance)?;
    let offsets = Offsets::of(page.bytes, record)?;
    let data = offsets.data_size(page.bytes, record)?;
    delete(page, predecessor, Victim { record, header: offsets.header_size(), data })
}

/// Deletes from a page of ROW_FORMAT=COMPACT or DYNAMIC, where redo tells the record's size.
pub fn dynamic(page: &mut [u8], mut payload: &[u8]) -> Result<(), Misfit> {
    let page = IndexPage::<true>::open(page)?;
    let distance = number(&mut payload, "the predecessor")?;
    let header = number(&mut payload, "the length of the header")?;
    let data = number(&mut payload, "the length of the data")?;
    done(payload)?;
    let (predecessor, record) = victim(&page, distance)?;
    let header = header.saturating_add(IndexPage::<true>::HEADER);
    delete(page, predecessor, Victim { record, header, data })
}

/// The record to delete, and how many bytes it has before and behind its origin.
#[derive(Clone, Copy)]
struct Victim {
    record: usize,
    header: usize,
    data: usize,
}

fn victim<const COMP: bool>(
    page: &IndexPage<'_, COMP>,
    distance: usize,
) -> Result<(usize, usize), Misfit> {
    let predecessor = IndexPage::<COMP>::INFIMUM.saturating_add(distance);
    let predecessor = page.record(predecessor, "the predecessor")?;
    let record = page.next(predecessor)?;
    if record < IndexPage::<COMP>::HEAP {
        return Err(Misfit::OutOfBounds { what: "the deleted record", offset: record });
    }
    Ok((predecessor, record))
}

fn delete<const COMP: bool>(
    mut page: IndexPage<'_, COMP>,
    predecessor: usize,
    victim: Victim,
) -> Result<(), Misfit> {
    let Victim { record, header, data } = victim;
    let out = |what, offset| Misfit::OutOfBounds { what, offset };
    let start = record
        .checked_sub(header)
        .filter(|&start| start >= IndexPage::<COMP>::HEAP)
        .ok_or(out("the header of the deleted record", record))?;
    let end = record
        .checked_add(data)
        .filter(|&end| end <= page.records_end())
        .ok_or(out("the data of the deleted record", record))?;

    // The group loses a member, and a new owner if it was the owner that went.
    let (owner, owned) = page.owner(record)?;
    let owned = owned - 1;
    let slot = page.slot_of(owner)?;
    let successor = page.next(record)?;
    let owner = if owner == record {
        page.set_slot(slot, predecessor)?;
        predecessor
    } else {
        owner
    };
    page.link(predecessor, Some(successor))?;
    page.set_owned(owner, owned)?;

    if page.heap_number(record)? + 1 == page.heap_count()? {
        let top = page.header(index::HEAP_TOP)?;
        // An earlier, longer record in this place may have left some garbage behind this one.
        let slack = top.checked_sub(end).ok_or(out("the end of the heap", top))?;
        page.set_header(index::HEAP_TOP, start)?;
        page.subtract(index::N_HEAP, 1, "the number of records in the heap")?;
        page.subtract(index::GARBAGE, slack, "the number of garbage bytes")?;
        zero(page.bytes, start, end, "the deleted record")?;
    } else {
        let free = match page.header(index::FREE)? {
            0 => None,
            free => Some(free),
        };
        page.link(record, free)?;
        page.set_header(index::FREE, record)?;
        page.add(index::GARBAGE, header + data, "the number of garbage bytes")?;
        zero(page.bytes, record, end, "the deleted record")?;
    }
    page.set_header(index::LAST_INSERT, 0)?;
    page.subtract(index::N_RECS, 1, "the number of records")?;
    if owned < OWNED_MIN { balance(&mut page, slot) } else { Ok(()) }
}

/// Brings the group of `slot` back to size: with all of the next group, or with its first record.
fn balance<const COMP: bool>(page: &mut IndexPage<'_, COMP>, slot: usize) -> Result<(), Misfit> {
    if page.is_last_slot(slot) {
        return Ok(());
    }
    let owner = page.slot(slot)?;
    let owned = page.owned(owner)?;
    if owned != OWNED_MIN - 1 {
        let what = "the number of owned records";
        return Err(Misfit::Impossible { what, value: owned.into() });
    }
    let next_owner = page.slot(slot + 1)?;
    let next_owned = page.owned(next_owner)?;
    page.set_owned(owner, 0)?;
    if next_owned <= OWNED_MIN {
        page.set_owned(next_owner, next_owned + owned)?;
        page.close_slot(slot)
    } else {
        let moved = page.next(owner)?;
        page.set_owned(moved, OWNED_MIN)?;
        page.set_owned(next_owner, next_owned - 1)?;
        page.set_slot(slot, moved)
    }
}
