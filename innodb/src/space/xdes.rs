//! Extents and their descriptors: which pages are in use.
//!
//! An extent is 1 MiB, or 64 pages if that is more. Its descriptor says of each of its pages
//! whether it is free; a freed page keeps its stale and valid content, so nothing on the page
//! itself tells. Descriptors are on every n-th page, where n is the number of *bytes* in a physical
//! page: page 0 and its repetitions describe n pages each.

use crate::bytes::u8_at;
use crate::space::SpaceFlags;
use crate::{PageNo, PageSize};

/// Where descriptors start on their page.
pub const DESCRIPTORS: usize = 150;
/// The bitmap within a descriptor: 2 bits per page, the lower one set when the page is free.
const BITMAP: usize = 24;
const BITS_PER_PAGE: u32 = 2;

/// Pages in an extent of a tablespace with this logical page size. ROW_FORMAT=COMPRESSED counts
/// as many of its smaller pages.
pub const fn pages_per_extent(logical: PageSize) -> u32 {
    match (1 << 20) / logical.bytes() as u32 {
        pages @ 64.. => pages,
        _ => 64,
    }
}

/// Bytes in a descriptor.
pub const fn descriptor_size(logical: PageSize) -> usize {
    BITMAP + (pages_per_extent(logical) * BITS_PER_PAGE / 8) as usize
}

/// The page that has the descriptor of `page`.
pub const fn descriptor_page(page: PageNo, flags: &SpaceFlags) -> PageNo {
    let described = flags.physical_size().bytes() as u32;
    PageNo(page.0 - page.0 % described)
}

/// Whether `page` is free according to `descriptors`, the content of its [`descriptor_page`], or
/// `None` when that is cut short.
///
/// Pages from the free limit of page 0 on have no descriptor; they are free, whatever this says.
pub fn is_free(descriptors: &[u8], page: PageNo, flags: &SpaceFlags) -> Option<bool> {
    let logical = flags.logical_size();
    let within = page.0 % flags.physical_size().bytes() as u32;
    let extent = pages_per_extent(logical);
    let descriptor = DESCRIPTORS + descriptor_size(logical) * (within / extent) as usize;
    let bit = within % extent * BITS_PER_PAGE;
    let byte = u8_at(descriptors, descriptor + BITMAP + (bit / 8) as usize)?;
    Some(byte >> (bit % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn extents_are_a_mebibyte_or_64_pages() {
        let extent = |bytes| pages_per_extent(PageSize::new(bytes).unwrap());
        assert_eq!([4096, 8192, 16384, 32768, 65536].map(extent), [256, 128, 64, 64, 64]);
        let size = |bytes| descriptor_size(PageSize::new(bytes).unwrap());
        assert_eq!([4096, 8192, 16384, 32768, 65536].map(size), [88, 56, 40, 40, 40]);
    }

    #[test]
    fn the_descriptor_of_a_page() {
        let flags = SpaceFlags::parse(0x15).unwrap();
        assert_eq!(descriptor_page(PageNo(16383), &flags), PageNo(0));
        assert_eq!(descriptor_page(PageNo(16385), &flags), PageNo(16384));

        let mut descriptors = vec![0; 16384];
        // Second extent, its page 3.
        descriptors[150 + 40 + 24] = 0b0100_0000;
        assert_eq!(is_free(&descriptors, PageNo(67), &flags), Some(true));
        assert_eq!(is_free(&descriptors, PageNo(66), &flags), Some(false));
        assert_eq!(is_free(&descriptors, PageNo(16384 + 67), &flags), Some(true));
        assert_eq!(is_free(&descriptors[..190], PageNo(67), &flags), None);
    }
}
