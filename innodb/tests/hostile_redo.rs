//! Records and pages that nobody wrote: whatever they say, applying them ends with a change or an
//! error, within the page.
#![allow(clippy::unwrap_used, missing_docs)]

use innodb::redo::Body;
use innodb::redo::apply::{ApplyError, ApplyTarget, Misfit, apply};
use innodb::redo::record::Bodies;
use innodb::{PageId, PageNo, SpaceId};
use proptest::prelude::*;

const SIZE: usize = 4096;

fn target(page: u32, zip: bool) -> ApplyTarget {
    ApplyTarget { page: PageId { space: SpaceId(7), page: PageNo(page) }, zip }
}

fn extended(page: &mut [u8], subtype: u8, payload: &[u8]) -> Result<(), ApplyError> {
    apply(page, target(9, false), &Body::Extended { subtype, payload })
}

/// Numbers small and large, in their encoding.
fn numbers() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        4 => (0u32..40).boxed(),
        3 => (0u32..5000).boxed(),
        1 => any::<u32>().boxed(),
    ];
    prop::collection::vec(number, 0..6).prop_map(|numbers| {
        let mut bytes = Vec::new();
        for number in numbers {
            innodb::redo::varint::put(&mut bytes, number);
        }
        bytes
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    (numbers(), prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(numbers, data)| [numbers, data].concat())
}

/// An index page with a few records, as redo itself makes it.
fn page_with_records(comp: bool, count: u8) -> Vec<u8> {
    let mut page = vec![0; SIZE];
    extended(&mut page, u8::from(comp), &[]).unwrap();
    for record in 0..count {
        if comp {
            // Behind the infimum; two literal header bytes, four of data.
            extended(&mut page, 6, &[0, 2 << 3, 0, 0, 4, 1, record, 2, 3, 4]).unwrap();
        } else {
            // Behind the infimum; one field of four bytes.
            extended(&mut page, 4, &[0, 4, 0, 0, 4, record, 2, 3, 4]).unwrap();
        }
    }
    page
}

fn field(page: &[u8], offset: usize) -> usize {
    usize::from(u16::from_be_bytes([page[offset], page[offset + 1]]))
}

/// Origins in key order, by the links between the records.
fn chain(page: &[u8], comp: bool) -> Vec<usize> {
    let (infimum, supremum) = if comp { (99, 112) } else { (101, 116) };
    let mut chain = Vec::new();
    let mut record = infimum;
    while record != supremum {
        let next = field(page, record - 2);
        record = if comp { (record + next) & 0xffff } else { next };
        chain.push(record);
        assert!(chain.len() < SIZE);
    }
    chain.pop();
    chain
}

/// What every valid page fulfils: groups of 4 to 8 records, in the order of their slots.
fn check_directory(page: &[u8], comp: bool) {
    let (infimum, supremum, header) = if comp { (99, 112, 5) } else { (101, 116, 6) };
    let slots = field(page, 38);
    let mut owners = Vec::new();
    let mut group = 0;
    for record in [vec![infimum], chain(page, comp), vec![supremum]].concat() {
        group += 1;
        let owned = page[record - header] & 15;
        if owned != 0 {
            assert_eq!(owned, group);
            assert!(record == infimum || record == supremum || (4..=8).contains(&owned));
            owners.push(record);
            group = 0;
        }
    }
    let directory: Vec<_> = (0..slots).map(|slot| field(page, SIZE - 10 - 2 * slot)).collect();
    assert_eq!(directory, owners);
}

#[test]
fn inserts_and_deletes_keep_the_directory_whole() {
    for comp in [false, true] {
        let mut page = page_with_records(comp, 60);
        check_directory(&page, comp);
        let records = chain(&page, comp);
        assert_eq!(records.len(), 60);
        assert!(records.is_sorted_by(|a, b| a > b), "each was inserted before the others");
        // Always the successor of the infimum, then of some record in the middle.
        for round in 0..60usize {
            let records = chain(&page, comp);
            let base = if comp { 99 } else { 101 };
            let predecessor = if round % 3 == 0 { base } else { records[records.len() / 2 - 1] };
            let mut payload = Vec::new();
            innodb::redo::varint::put(&mut payload, u32::try_from(predecessor - base).unwrap());
            if comp {
                payload.extend([2, 4]);
            }
            extended(&mut page, if comp { 9 } else { 8 }, &payload).unwrap();
            check_directory(&page, comp);
            if records.len() == 2 {
                break;
            }
        }
    }
}

#[test]
fn freed_space_is_used_again() {
    for comp in [false, true] {
        let mut page = page_with_records(comp, 8);
        let first = chain(&page, comp)[3];
        let predecessor = chain(&page, comp)[2];
        let distance = predecessor - if comp { 99 } else { 101 };
        let mut number = Vec::new();
        innodb::redo::varint::put(&mut number, u32::try_from(distance).unwrap());
        let delete = if comp { [&number[..], &[2, 4]].concat() } else { number.clone() };
        extended(&mut page, if comp { 9 } else { 8 }, &delete).unwrap();
        assert_eq!(field(&page, 44), first, "the free list");
        assert_eq!(field(&page, 46), 11, "header and data of the deleted record");

        // One byte less of data than the record that was there.
        let (insert, payload): (u8, &[u8]) =
            if comp { (7, &[0, 2 << 3, 0, 0, 3, 1, 7, 8, 9]) } else { (5, &[4, 0, 0, 3, 7, 8, 9]) };
        extended(&mut page, insert, &[&number[..], payload].concat()).unwrap();
        assert_eq!(chain(&page, comp)[3], first);
        assert_eq!((field(&page, 44), field(&page, 46)), (0, 1));
        check_directory(&page, comp);
    }
}

#[test]
fn directions_of_inserts_are_noted() {
    let mut page = page_with_records(true, 3);
    assert_eq!((page[51] & 7, field(&page, 52)), (1, 2), "each new record before the last one");
    page[25] = 0xbe;
    extended(&mut page, 6, &[0, 2 << 3, 0, 0, 4, 1, 9, 2, 3, 4]).unwrap();
    assert_eq!((page[51] & 7, field(&page, 52)), (1, 2), "spatial indexes have no direction");
}

#[test]
fn a_record_made_by_hand_lands_where_it_should() {
    let page = page_with_records(true, 1);
    let mut expected = [0u8; 11];
    expected.copy_from_slice(&[4, 1, 0, 0, 0x10, 0xff, 0xe9, 0, 2, 3, 4]);
    // Literal header; no info bits; heap number 2; next = 112 − 127.
    expected[5..7].copy_from_slice(&(112u16.wrapping_sub(127)).to_be_bytes());
    assert_eq!(page[120..131], expected);
    assert_eq!(field(&page, 40), 131);
    assert_eq!(field(&page, 42), 0x8003);
    assert_eq!((field(&page, 48), field(&page, 54)), (127, 1));
    assert_eq!(field(&page, 97), 127 - 99);
    assert_eq!(page[112 - 5] & 15, 2);
}

#[test]
fn a_page_made_anew() {
    let mut page = vec![0x5a; SIZE];
    let run = b"\x12\x21\x00\xb2\x01\x08\xb2\x0f\x21\xb5\x04\x00\x00\x00\x04\xb5\x04\x00\x00\x00\x15\xc3\x08\x04\xff";
    let id = ApplyTarget { page: PageId { space: SpaceId(33), page: PageNo(0) }, zip: false };
    for body in Bodies::new(run) {
        apply(&mut page, id, &body.unwrap()).unwrap();
    }
    let mut expected = vec![0; SIZE];
    expected[8..16].fill(0xff);
    expected[25] = 8;
    (expected[37], expected[41], expected[49], expected[57]) = (33, 33, 4, 0x15);
    expected[66..70].fill(0xff);
    assert!(page == expected);
}

#[test]
fn moves_read_what_edits_before_them_wrote() {
    let mut page = vec![0; SIZE];
    page[118..124].copy_from_slice(b"abcdef");
    let run = b"\x45\x07\x09\x78\x04\xff\xd3\x00\x06\x0b";
    for body in Bodies::new(run) {
        apply(&mut page, target(9, false), &body.unwrap()).unwrap();
    }
    assert_eq!(page[118..130], *b"ab\xff\xff\xff\xffab\xff\xff\xff\xff");
}

#[test]
fn patterns_repeat_from_the_start_of_their_range() {
    let mut page = vec![0; SIZE];
    let memset = |length| Body::Memset { offset: 100, length, pattern: b"ab" };
    apply(&mut page, target(9, false), &memset(6)).unwrap();
    assert_eq!(page[99..107], *b"\0ababab\0");
    assert!(apply(&mut page, target(9, false), &memset(5)).is_err());
}

#[test]
fn undo_pages_grow_by_their_records() {
    let mut page = vec![0x5a; SIZE];
    extended(&mut page, 2, &[]).unwrap();
    assert_eq!((field(&page, 24), field(&page, 40), field(&page, 42)), (2, 56, 56));
    assert_eq!(page[56..86], [0x5a; 30], "the segment header stays");
    assert!(page[86..SIZE - 8].iter().all(|&b| b == 0));
    extended(&mut page, 3, b"\x0b\x01\x12\x04\x80\x00\x04\x9e").unwrap();
    assert_eq!(page[56..68], *b"\x00\x44\x0b\x01\x12\x04\x80\x00\x04\x9e\x00\x38");
    assert_eq!(field(&page, 42), 68);
}

#[test]
fn errors_name_page_record_and_field() {
    let mut page = vec![0; SIZE];
    let error = extended(&mut page, 9, &[0, 0, 0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "[page id: space=7, page number=9]: a redo record of type DELETE_ROW_FORMAT_DYNAMIC cannot \
         be applied: a page in the other row format can have no such record"
    );
    let write = Body::Write { offset: 4095, bytes: b"xy" };
    let error = apply(&mut page, target(9, false), &write).unwrap_err();
    assert_eq!(error.reason, Misfit::OutOfBounds { what: "the written range", offset: 4095 });
}

#[test]
fn records_in_terms_of_rows_have_their_pages() {
    let mut page = vec![0; SIZE];
    let init = Body::Extended { subtype: 1, payload: &[] };
    assert!(apply(&mut page, target(2, false), &init).is_err());
    assert!(apply(&mut page, target(3, true), &init).is_err());
    assert!(apply(&mut page, target(3, false), &init).is_ok());
    for subtype in [10, 11, 255] {
        let error = extended(&mut page, subtype, &[]).unwrap_err();
        assert_eq!(error.reason, Misfit::Subtype(subtype));
    }
}

#[test]
fn records_that_change_no_byte() {
    let mut page = vec![0x5a; SIZE];
    for body in [Body::FreePage, Body::Option { subtype: 0, payload: b"abcd" }] {
        apply(&mut page, target(9, false), &body).unwrap();
        assert!(page.iter().all(|&b| b == 0x5a));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_pages_and_records_never_panic(
        page in prop::collection::vec(any::<u8>(), 0..2000),
        subtype in 0u8..12,
        payload in payload(),
    ) {
        let mut page = page;
        let _ = extended(&mut page, subtype, &payload);
        page.resize(SIZE, 0);
        let _ = extended(&mut page, subtype, &payload);
    }

    #[test]
    fn plausible_pages_with_damage_never_panic(
        comp: bool,
        count in 0u8..40,
        damage in prop::collection::vec((prop_oneof![38usize..130, 38usize..600, 4000usize..4096], any::<u8>()), 0..12),
        records in prop::collection::vec((0u8..12, payload()), 1..8),
    ) {
        let mut page = page_with_records(comp, count);
        for (at, byte) in damage {
            page[at] = byte;
        }
        for (subtype, payload) in records {
            let _ = extended(&mut page, subtype, &payload);
            prop_assert_eq!(page.len(), SIZE);
        }
    }

    #[test]
    fn plausible_records_on_whole_pages_never_panic(
        comp: bool,
        count in 0u8..60,
        records in prop::collection::vec((any::<u8>(), any::<prop::sample::Index>(), payload()), 1..20),
    ) {
        let mut page = page_with_records(comp, count);
        for (kind, index, payload) in records {
            // A predecessor that is there, as most often in a log.
            let base = if comp { 99 } else { 101 };
            let records = (0..100).try_fold((Vec::new(), base), |(mut all, at), _| {
                let next = usize::from(u16::from_be_bytes([*page.get(at - 2)?, *page.get(at - 1)?]));
                let next = if comp { (at + next) & 0xffff } else { next };
                all.push(at);
                (next >= base).then_some((all, next))
            });
            let predecessor = records.map_or(base, |(all, _)| all[index.index(all.len())]);
            let mut bytes = Vec::new();
            innodb::redo::varint::put(&mut bytes, u32::try_from(predecessor - base).unwrap());
            bytes.extend(payload);
            let _ = extended(&mut page, 4 + kind % 6, &bytes);
        }
    }

    #[test]
    fn random_edits_stay_within_the_page(
        offset in prop_oneof![0u32..5000, any::<u32>()],
        length in prop_oneof![0u32..5000, any::<u32>()],
        source in prop_oneof![0u32..5000, any::<u32>()],
        bytes in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let mut page = vec![1; SIZE];
        for body in [
            Body::Write { offset, bytes: &bytes },
            Body::Memset { offset, length, pattern: &bytes },
            Body::Memmove { offset, length, source },
        ] {
            let before = page.clone();
            let result = apply(&mut page, target(9, true), &body);
            prop_assert!(page[..8] == before[..8], "checksum and page number are not for redo");
            prop_assert!(result.is_ok() || page == before);
        }
    }
}
