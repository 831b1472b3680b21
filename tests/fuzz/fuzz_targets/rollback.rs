//! Arbitrary bytes as a leaf whose records are changed as by a rollback.
//!
//! Layout of the input: 1 byte for the number of fields (low 3 bits); 1 byte for each field: its fixed
//! length (low 3 bits), whether it may be NULL (bit 3), whether it may be long (bit 4); 1 byte that
//! chooses the changes; then the page, which is filled up with zeros or cut to its size.
//!
//! A page that was changed must still be an index page; one that was not must be as it was.

#![no_main]

use innodb::cfg::fields::{IndexField, Origin};
use innodb::page::layout::{fil, index};
use innodb::tree::IndexPage;
use innodb::tree::compact::{CompactRecord, build};
use innodb::tree::rewrite::{Edit, rewrite};
use innodb::{PageId, PageNo, SpaceId};
use libfuzzer_sys::fuzz_target;

const ID: PageId = PageId { space: SpaceId(7), page: PageNo(3) };
const SIZE: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((shape, rest)) = rest.split_at_checked(usize::from(count & 7)) else { return };
    let Some((&choice, rest)) = rest.split_first() else { return };
    let fields: Vec<_> = shape
        .iter()
        .map(|bits| IndexField {
            name: b"a",
            origin: Origin::Stored(0),
            prefix_len: 0,
            fixed_len: u32::from(bits & 7),
            descending: false,
            nullable: bits & 8 != 0,
            long: bits & 16 != 0,
        })
        .collect();
    let mut bytes = rest.to_vec();
    bytes.resize(SIZE, 0);
    bytes[fil::PAGE_NO..fil::PAGE_NO + 4].copy_from_slice(&ID.page.0.to_be_bytes());
    bytes[fil::TYPE..fil::TYPE + 2].copy_from_slice(&17855u16.to_be_bytes());
    bytes[index::N_HEAP] |= 0x80;
    let Ok(page) = IndexPage::new(ID, &bytes) else { return };
    let mut edits = Vec::new();
    for (number, origin) in page.records().enumerate() {
        let Ok(origin) = origin else { break };
        let Ok(record) = CompactRecord::read(&page, origin, &fields) else { continue };
        let with = build(&fields, &record.fields);
        edits.push((
            origin,
            match (usize::from(choice) >> (number % 6) & 3, with) {
                (0, _) => Edit::SetDeleted(true),
                (1, Some(with)) => Edit::Replace { now: (record.start, record.end), with },
                (2, _) => Edit::Remove,
                _ => Edit::SetBits(record.end, 0x80),
            },
        ));
    }
    let mut changed = bytes.clone();
    match rewrite(ID, &mut changed, &fields, &edits) {
        Err(_) => assert!(changed == bytes),
        Ok(()) => assert!(IndexPage::new(ID, &changed).is_ok()),
    }
});
