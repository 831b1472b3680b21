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
use innodb::page::{PageType, page_type};
use innodb::space::{SpaceHeader, xdes};
use innodb::tree::{IndexPage, Pages, StructureError};
use innodb::{PageId, PageNo};

use super::page_count;
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
    let id = |page| PageId { space: space.id, page: PageNo(page) };
    let (mut descriptor_page, mut descriptors) = (PageNo(0), files.page(id(0))?);
    let count = page_count(space);
    let limit = SpaceHeader::parse(&descriptors).map_or(count, |h| h.free_limit.0.min(count));
    for number in 0..limit {
        let page_no = PageNo(number);
        let described_by = xdes::descriptor_page(page_no, &space.flags);
        if described_by != descriptor_page {
            (descriptor_page, descriptors) = (described_by, files.page(id(described_by.0))?);
            cancel.check()?;
        }
        if xdes::is_free(&descriptors, page_no, &space.flags) != Some(false) {
            continue;
        }
        let bytes = files.page(id(number))?;
        if !matches!(page_type(&bytes), Some(PageType::INDEX | PageType::RTREE)) {
            continue;
        }
        let page = IndexPage::new(id(number), &bytes)?;
        let index = indexes().find(|index| index.id == page.index_id());
        let Some(index) = index.filter(|_| page.level() == 0) else { continue };
        let found = match space.flags.zip_size() {
            Some(_) => dense_directory(&bytes).any(|entry| entry & DENSE_DELETED != 0),
            None => page.records().try_fold(false, |any, origin| {
                Ok::<_, StructureError>(any || page.is_deleted(origin?))
            })?,
        };
        if found {
            return Ok(Some(String::from_utf8_lossy(&index.name).into_owned()));
        }
    }
    Ok(None)
}

/// What the dense directory of a compressed page says of each of its records.
fn dense_directory(page: &[u8]) -> impl Iterator<Item = u16> {
    let records = u16_at(page, index::N_RECS).map_or(0, usize::from);
    (1..=records).map_while(|number| u16_at(page, page.len().checked_sub(2 * number)?))
}
