//! Arbitrary bytes as a page-compressed page.
//!
//! Layout of the input: 1 byte, of which bits 0–2 choose one of the algorithms or the legacy
//! format, and bit 3 whether the payload is taken from a page that was compressed by us; then the
//! page, which is filled up with zeros or cut to its size.
//!
//! A page that opens must be the one asked for, and must come back when it is compressed again.

#![no_main]

use innodb::page::{self, PageCompressor, PageType, compression};
use innodb::space::SpaceFlags;
use innodb::{Lsn, PageId, PageNo, SpaceId};
use libfuzzer_sys::fuzz_target;

const ID: PageId = PageId { space: SpaceId(7), page: PageNo(3) };

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let word = match u32::from(choice & 7) {
        algorithm @ 1..=6 => algorithm << 5 | 0x15,
        _ => 0x1_0021,
    };
    let Ok(flags) = SpaceFlags::parse(word) else { return };
    let mut compressor = PageCompressor::default();
    let mut page = rest.to_vec();
    page.resize(flags.physical_size().bytes(), 0);

    if choice & 8 != 0 {
        page[..4].fill(0);
        page[4..8].copy_from_slice(&ID.page.0.to_be_bytes());
        page[24..26].copy_from_slice(&PageType::INDEX.0.to_be_bytes());
        page[34..38].copy_from_slice(&ID.space.0.to_be_bytes());
        page::stamp(&mut page, ID, Lsn(12345), &flags).expect("a plain page");
        let plain = page.clone();
        if let Some(size) = compressor.compress(&mut page, ID, &flags, choice & 16 != 0) {
            assert_eq!(compression::stored_size(&page, &flags), size);
            compressor.decompress(&mut page, ID, &flags).expect("our own page");
        }
        assert!(page == plain, "a page did not come back");
        return;
    }

    let space = page::space_id(&page).unwrap_or(SpaceId(0));
    let id = PageId { space, page: page::page_no(&page).unwrap_or(PageNo(0)) };
    let before = page.clone();
    match compressor.decompress(&mut page, id, &flags) {
        Ok(()) => {
            assert_eq!(page::page_no(&page), Some(id.page));
            assert_eq!(page::lsn(&page), page::lsn(&before));
        }
        Err(_) => assert!(page == before, "a page that cannot be opened was changed"),
    }
});
