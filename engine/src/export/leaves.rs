//! The leaves of a tablespace's indexes, in the order of the file.
//!
//! Freed pages keep what they had; they are left out.

use innodb::page::{PageType, page_type};
use innodb::space::{SpaceHeader, xdes};
use innodb::tree::{IndexPage, Pages, StructureError};
use innodb::{PageId, PageNo};

use super::page_count;
use super::pages::Files;
use crate::prepare::inventory::Tablespace;
use crate::{Cancel, Result};

/// Calls `each` for every leaf, until it says that it is enough.
pub fn each(
    space: &Tablespace,
    files: &Files<'_>,
    cancel: &Cancel,
    mut each: impl FnMut(&IndexPage<'_>) -> Result<Go>,
) -> Result<()> {
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
        let is_free = xdes::is_free(&descriptors, page_no, &space.flags)
            .ok_or(StructureError { page: id(descriptor_page.0), what: "it is cut short" })?;
        if is_free {
            continue;
        }
        let bytes = files.page(id(number))?;
        if !matches!(page_type(&bytes), Some(PageType::INDEX | PageType::RTREE)) {
            continue;
        }
        let page = IndexPage::new(id(number), &bytes)?;
        if page.level() == 0 && each(&page)? == Go::Enough {
            break;
        }
    }
    Ok(())
}

/// Whether there is more to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// There is.
    On,
    /// There is not.
    Enough,
}
