//! Deleted entries that an import would trip over.
//!
//! An import removes what ended transactions have deleted. It cannot do so in SPATIAL indexes, and
//! fails. And it counts the rows on the way: after an instant ALTER TABLE it counts the record with
//! the metadata as a row, and calls every secondary index that had deleted entries corrupted, for
//! it has one entry less. Both are so with the server's own FOR EXPORT too; who exports through a
//! server waits until the purge is done.

use innodb::bytes::u16_at;
use innodb::dictionary::Table;
use innodb::page::layout::index;
use innodb::tree::StructureError;

use super::leaves::{self, Go};
use super::pages::Files;
use crate::prepare::inventory::Tablespace;
use crate::{Cancel, Result};

/// Flag of a record in the dense directory of a page of ROW_FORMAT=COMPRESSED, which is at its
/// end, 2 bytes for each record.
const DENSE_DELETED: u16 = 0x8000;

/// The name of an index that has a deleted entry which an import would trip over.
pub fn first_index(
    table: &Table,
    after_instant_alter: bool,
    space: &Tablespace,
    files: &Files<'_>,
    cancel: &Cancel,
) -> Result<Option<String>> {
    let indexes = || {
        let secondary = table.indexes.iter().filter(|i| !i.is_clustered() && !i.is_fulltext());
        secondary.filter(|index| after_instant_alter || index.is_spatial())
    };
    if indexes().next().is_none() {
        return Ok(None);
    }
    let mut first = None;
    leaves::each(space, files, cancel, |page| {
        let Some(index) = indexes().find(|index| index.id == page.index_id()) else {
            return Ok(Go::On);
        };
        let found = match space.flags.zip_size() {
            Some(_) => dense_directory(page.bytes()).any(|entry| entry & DENSE_DELETED != 0),
            None => page.records().try_fold(false, |any, origin| {
                Ok::<_, StructureError>(any || page.is_deleted(origin?))
            })?,
        };
        if !found {
            return Ok(Go::On);
        }
        first = Some(String::from_utf8_lossy(&index.name).into_owned());
        Ok(Go::Enough)
    })?;
    Ok(first)
}

/// What the dense directory of a compressed page says of each of its records.
fn dense_directory(page: &[u8]) -> impl Iterator<Item = u16> {
    let records = u16_at(page, index::N_RECS).map_or(0, usize::from);
    (1..=records).map_while(|number| u16_at(page, page.len().checked_sub(2 * number)?))
}
