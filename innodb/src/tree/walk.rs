//! From a root to its leaves, and along them.

use super::{IndexPage, Pages, Record, StructureError};
use crate::bytes::u32_at;
use crate::{PageId, PageNo};

/// No tree is higher: a node has at least two records.
const LEVELS_MAX: u16 = 64;

/// Descends from `root` to the leaf with the smallest keys, which it returns with its content.
/// `child` finds the page number in a node's record, given its origin.
///
/// # Errors
/// When a page cannot be read or does not belong there.
pub fn leftmost_leaf<P: Pages>(
    pages: &P,
    root: PageId,
    child: impl Fn(&IndexPage<'_>, usize) -> Result<PageNo, StructureError>,
) -> Result<(PageId, Vec<u8>), P::Error> {
    let mut id = root;
    let mut expected: Option<(u16, u64)> = None;
    loop {
        let bytes = pages.page(id)?;
        let wrong = |what| StructureError { page: id, what };
        let page = IndexPage::new(id, &bytes)?;
        let (level, index) = (page.level(), page.index_id());
        if level >= LEVELS_MAX || expected.is_some_and(|expected| expected != (level, index)) {
            return Err(wrong("it does not belong at its place in the tree").into());
        }
        let Some(below) = level.checked_sub(1) else { return Ok((id, bytes)) };
        let first = page.records().next().ok_or(wrong("a node has no records"))??;
        id.page = child(&page, first)?;
        expected = Some((below, index));
    }
}

/// Calls `each` for every record of a REDUNDANT index that is not deleted, in the order of their
/// keys.
///
/// # Errors
/// When a page cannot be read or does not belong there, and what `each` returns.
pub fn walk<P: Pages>(
    pages: &P,
    root: PageId,
    mut each: impl FnMut(&Record<'_>) -> Result<(), P::Error>,
) -> Result<(), P::Error> {
    let (mut id, mut bytes) = leftmost_leaf(pages, root, redundant_child)?;
    let index = IndexPage::new(id, &bytes)?.index_id();
    for _ in 0..pages.count(root.space) {
        let page = IndexPage::new(id, &bytes)?;
        if page.is_compact() || page.level() != 0 || page.index_id() != index {
            let what = "it does not belong in the list of leaves";
            return Err(StructureError { page: id, what }.into());
        }
        for origin in page.records() {
            let record = Record::at(page, origin?)?;
            if !record.is_deleted() {
                each(&record)?;
            }
        }
        let Some(next) = page.next() else { return Ok(()) };
        id.page = next;
        bytes = pages.page(id)?;
    }
    Err(StructureError { page: root, what: "the list of its leaves has no end" }.into())
}

/// The page that a node's record leads to, in a REDUNDANT index: its last field.
pub(crate) fn redundant_child(
    page: &IndexPage<'_>,
    origin: usize,
) -> Result<PageNo, StructureError> {
    let wrong = StructureError { page: page.id(), what: "a node's record leads nowhere" };
    if page.is_compact() {
        return Err(StructureError { page: page.id(), what: "its records are not REDUNDANT" });
    }
    let found = Record::at(*page, origin)?;
    let last = found.field(found.len().checked_sub(1).ok_or(wrong)?)?;
    last.filter(|field| field.len() == 4)
        .and_then(|field| u32_at(field, 0))
        .map(PageNo)
        .ok_or(wrong)
}
