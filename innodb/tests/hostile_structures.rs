//! Index pages, dictionaries and undo logs that nobody wrote: reading them ends with values or an
//! error, within the pages there are.
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::Cell;
use std::collections::HashMap;

use innodb::cfg::CfgError;
use innodb::cfg::fields::{IndexField, Origin};
use innodb::dictionary::{Dictionary, Field, Index, Table};
use innodb::page::layout::{fil, index};
use innodb::tree::compact::{CompactRecord, StoredField, build};
use innodb::tree::rewrite::{Edit, rewrite};
use innodb::tree::{IndexPage, Pages, Record, StructureError};
use innodb::undo::fate::Fates;
use innodb::undo::{each_record, open_transactions};
use innodb::{PageId, PageNo, SpaceId};
use proptest::prelude::*;

const SIZE: usize = 4096;
/// Pages in each tablespace.
const PAGES: u32 = 12;

#[derive(Debug)]
struct Broken;

impl From<StructureError> for Broken {
    fn from(_: StructureError) -> Self {
        Self
    }
}

impl From<CfgError> for Broken {
    fn from(_: CfgError) -> Self {
        Self
    }
}

/// Pages in memory; counts how often one was read.
struct Memory {
    pages: HashMap<u32, Vec<u8>>,
    reads: Cell<u32>,
}

impl Pages for Memory {
    type Error = Broken;

    fn page(&self, id: PageId) -> Result<Vec<u8>, Broken> {
        self.reads.set(self.reads.get() + 1);
        self.pages.get(&id.page.0).cloned().ok_or(Broken)
    }

    fn count(&self, _: SpaceId) -> u32 {
        PAGES
    }
}

/// A page of noise that says what it is, and leads to other pages of the same kind.
fn page(number: u32, kind: u16, noise: &[u8]) -> Vec<u8> {
    let mut page: Vec<u8> = noise.iter().copied().cycle().take(SIZE).collect();
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(fil::PAGE_NO, &number.to_be_bytes());
    put(fil::TYPE, &kind.to_be_bytes());
    let next = u32::from(noise[0]) % (PAGES + 1);
    put(fil::NEXT, &if next == PAGES { u32::MAX } else { next }.to_be_bytes());
    if kind == 17855 {
        put(index::LEVEL, &u16::from(noise[1] % 3).to_be_bytes());
        put(index::INDEX_ID, &1u64.to_be_bytes());
        put(index::N_HEAP, &(u16::from(noise[2] % 2) << 15 | 9).to_be_bytes());
    }
    page
}

fn memory(kinds: &[u16], noise: &[Vec<u8>]) -> Memory {
    let pages = (0..PAGES)
        .map(|number| {
            let kind = kinds[number as usize % kinds.len()];
            (number, page(number, kind, &noise[number as usize % noise.len()]))
        })
        .collect();
    Memory { pages, reads: Cell::new(0) }
}

fn noise() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![2 => Just(0u8), 2 => 0..16u8, 1 => any::<u8>()];
    prop::collection::vec(prop::collection::vec(byte, 4..300), 1..6)
}

proptest! {
    #[test]
    fn index_pages_of_noise(noise in noise(), compact: bool) {
        let mut bytes = page(3, 17855, &noise[0]);
        bytes[index::N_HEAP] = u8::from(compact) << 7;
        let id = PageId { space: SpaceId(0), page: PageNo(3) };
        let page = IndexPage::new(id, &bytes).unwrap();
        for origin in page.records() {
            let Ok(origin) = origin else { break };
            prop_assert!(origin < SIZE);
            let _ = page.is_deleted(origin);
            let record = Record::at(page, origin).unwrap();
            for field in 0..record.len().min(20) {
                let _ = (record.field(field), record.number::<8>(field), record.u32(field));
            }
        }
        prop_assert!(page.records().count() <= SIZE / 3 + 1);
    }

    #[test]
    fn dictionaries_of_noise(noise in noise()) {
        // Page 7 names the roots; all others are index pages.
        let mut memory = memory(&[17855], &noise);
        let header = memory.pages.get_mut(&7).unwrap();
        for (at, root) in [(70, 8u32), (78, 9), (82, 10), (86, 11)] {
            header[at..at + 4].copy_from_slice(&root.to_be_bytes());
        }
        let _ = Dictionary::read(&memory);
        prop_assert!(memory.reads.get() < 4 * (PAGES + 70));
    }

    #[test]
    fn undo_logs_of_noise(noise in noise(), states: Vec<u8>) {
        // The transaction system, one rollback segment, undo pages.
        let mut memory = memory(&[2], &noise);
        let mut trx_sys = page(5, 7, &[0xff, 0xff, 0xff, 0xff]);
        trx_sys[56..64].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 6]);
        memory.pages.insert(5, trx_sys);
        let mut segment = page(6, 6, &[0xff, 0xff, 0xff, 0xff]);
        for slot in 0..3u32 {
            segment[72 + 4 * slot as usize..][..4].copy_from_slice(&(7 + slot).to_be_bytes());
        }
        memory.pages.insert(6, segment);
        for (number, state) in (7..PAGES).zip(states) {
            let page = memory.pages.get_mut(&number).unwrap();
            page[56..58].copy_from_slice(&u16::from(state % 6).to_be_bytes());
            page[58..60].copy_from_slice(&86u16.to_be_bytes());
        }
        let _ = open_transactions(&memory);
        prop_assert!(memory.reads.get() < 4 * PAGES);
    }

    #[test]
    fn compact_records_of_noise(noise in noise(), shape: Vec<(u8, bool, bool)>, choices: Vec<u8>) {
        let mut bytes = page(3, 17855, &noise[0]);
        bytes[index::N_HEAP] = 0x80;
        bytes[index::LEVEL..index::LEVEL + 2].fill(0);
        let id = PageId { space: SpaceId(0), page: PageNo(3) };
        let fields: Vec<_> = shape
            .iter()
            .map(|(fixed_len, nullable, long)| IndexField {
                name: b"a",
                origin: Origin::Stored(0),
                prefix_len: 0,
                fixed_len: u32::from(*fixed_len % 9),
                descending: false,
                nullable: *nullable,
                long: *long,
            })
            .collect();
        let page = IndexPage::new(id, &bytes).unwrap();
        let mut edits = Vec::new();
        for (origin, choice) in page.records().zip(choices.iter().cycle()) {
            let Ok(origin) = origin else { break };
            let Ok(record) = CompactRecord::read(&page, origin, &fields) else { continue };
            prop_assert!(record.start < origin && record.end <= SIZE);
            let with = build(&fields, &record.fields).unwrap();
            let shorter: Vec<_> = record
                .fields
                .iter()
                .zip(&fields)
                .map(|(value, field)| match field.fixed_len {
                    0 => StoredField { bytes: value.bytes.map(|_| &b"x"[..]), is_external: false },
                    _ => *value,
                })
                .collect();
            let now = (record.start, record.end);
            edits.push((origin, match choice % 5 {
                0 => Edit::SetDeleted(true),
                1 => Edit::SetBits(origin + usize::from(*choice), 0x80),
                2 => Edit::Remove,
                3 => Edit::Replace { now, with },
                _ => Edit::Replace { now, with: build(&fields, &shorter).unwrap() },
            }));
        }
        let mut changed = bytes.clone();
        match rewrite(id, &mut changed, &fields, &edits) {
            Err(_) => prop_assert!(changed == bytes),
            Ok(()) => prop_assert!(IndexPage::new(id, &changed).is_ok()),
        }
    }

    #[test]
    fn undo_records_of_noise(noise in noise(), key_fields in 0..4usize) {
        let mut memory = memory(&[2], &noise);
        let mut trx_sys = page(5, 7, &[0xff, 0xff, 0xff, 0xff]);
        trx_sys[56..64].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 6]);
        memory.pages.insert(5, trx_sys);
        let mut segment = page(6, 6, &[0xff, 0xff, 0xff, 0xff]);
        segment[72..76].copy_from_slice(&7u32.to_be_bytes());
        memory.pages.insert(6, segment);
        // An open transaction whose records begin at 200, each 60 bytes long.
        let undo = memory.pages.get_mut(&7).unwrap();
        undo[fil::NEXT..fil::NEXT + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        let u16s = [(42, 800u16), (56, 1), (58, 86), (86 + 18, 200)];
        let starts = (0..10u16).map(|record| (200 + 60 * record, 260 + 60 * record));
        for (at, value) in u16s.into_iter().chain(starts) {
            undo[usize::from(at)..][..2].copy_from_slice(&value.to_be_bytes());
        }
        for (record, byte) in (0..10usize).zip(noise[0].iter().cycle()) {
            undo[200 + 60 * record + 2] = 11 + byte % 5;
        }
        undo[50..54].copy_from_slice(&u32::MAX.to_be_bytes());
        let mut fates = Fates::default();
        let _ = each_record(&memory, |log, record| {
            if let Some(Ok(Some(change))) = record.map(|record| record.change(key_fields)) {
                let _ = fates.note(log.id, change, key_fields);
            }
            Ok(())
        });
        prop_assert!(fates.restored().count() <= 10);
    }

    #[test]
    fn instant_metadata_of_noise(noise in noise()) {
        let mut memory = memory(&[17855, 10], &noise);
        let mut root = page(4, 18, &noise[0]);
        root[index::N_HEAP] = 0x80;
        root[99..107].fill(0);
        root[64..66].copy_from_slice(&[0, 1]);
        memory.pages.insert(4, root.clone());
        let id = PageId { space: SpaceId(0), page: PageNo(4) };
        let field = Field { column: (*b"a").into(), prefix_len: 0, descending: false };
        let table = Table {
            id: 1,
            name: (*b"d/t").into(),
            space: SpaceId(0),
            flags: 33,
            columns: vec![innodb::dictionary::Column {
                name: (*b"a").into(), mtype: 12, prtype: 0x21_010f, len: 900,
            }],
            indexes: vec![Index {
                id: 1, name: (*b"PRIMARY").into(), kind: 3, root: PageNo(4), fields: vec![field],
            }],
        };
        let _ = innodb::cfg::instant::field_map(&memory, &table, &IndexPage::new(id, &root).unwrap());
        prop_assert!(memory.reads.get() < 70);
    }
}
