//! Arbitrary bytes as a page of a tablespace with arbitrary flags.
//!
//! Layout of the input: 4 bytes flags, 4 bytes page number, then the page, which is filled up
//! with zeros or cut to its size. A page that can be stamped must be intact afterwards.

#![no_main]

use innodb::page::{self, Verdict};
use innodb::space::{CryptData, SpaceFlags, SpaceHeader, xdes};
use innodb::{Lsn, PageId, PageNo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&word, rest)) = data.split_first_chunk() else { return };
    let Some((&number, rest)) = rest.split_first_chunk() else { return };
    let page_no = PageNo(u32::from_be_bytes(number));

    // As it is, whatever its length.
    let _ = SpaceHeader::parse(rest);
    let Ok(flags) = SpaceFlags::parse(u32::from_be_bytes(word)) else { return };
    let _ = page::verify(rest, page_no, None, &flags);
    let _ = CryptData::parse(rest, &flags);
    let _ = xdes::is_free(rest, page_no, &flags);

    let mut page = rest.to_vec();
    page.resize(flags.physical_size().bytes(), 0);
    let space = page::space_id(&page);
    let verdict = page::verify(&page, page_no, space, &flags);
    assert_eq!(verdict, page::verify(&page, page_no, space, &flags));
    if verdict == Verdict::AllZero {
        return;
    }

    let (Some(space), Some(found)) = (space, page::page_no(&page)) else { return };
    let id = PageId { space, page: found };
    if page::stamp(&mut page, id, Lsn(u64::from_le_bytes(*b"haulout!")), &flags).is_ok() {
        let verdict = page::verify(&page, found, Some(space), &flags);
        assert!(verdict.is_intact(), "stamped, then {verdict:?}");
    }
});
