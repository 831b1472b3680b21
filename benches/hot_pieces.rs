//! The pieces that a backup and a prepare spend their time in, one by one, on the processor alone.
//!
//! `cargo bench` runs them; throughput is in bytes of pages, redo or payload. What a whole command
//! costs beside the stock tool is measured by `cargo xtask bench`. Reference figures with their
//! date are in `benches/README.md`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use innodb::page::{crc32c, stamp, verify};
use innodb::redo::apply::{ApplyTarget, apply};
use innodb::redo::header::HEADER_SIZE;
use innodb::redo::record::{Bodies, Kind, Record, Records};
use innodb::redo::{Body, Checkpoint, Laps, LogHeader, mtr};
use innodb::space::SpaceFlags;
use innodb::{Lsn, PageId, PageNo, SpaceId};
use xbstream::StreamPath;
use xbstream::writer::{HEADER_LEN_MAX, Mode, payload_header};

const PAGE_SIZE: usize = 16384;

/// A log that a server wrote while rows of all formats changed.
const LOG: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/redo/10.11-4k-full_crc32/ib_logfile0");

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn full_crc32() -> SpaceFlags {
    SpaceFlags::parse(0x15).unwrap()
}

fn legacy_crc32() -> SpaceFlags {
    SpaceFlags::parse(0x21).unwrap()
}

fn page(flags: &SpaceFlags) -> Vec<u8> {
    let mut page = noise(PAGE_SIZE);
    let id = PageId { space: SpaceId(5), page: PageNo(42) };
    page[..4].fill(0);
    page[4..8].copy_from_slice(&42u32.to_be_bytes());
    page[24..26].copy_from_slice(&0x45bfu16.to_be_bytes());
    page[26..34].fill(0);
    page[34..38].copy_from_slice(&5u32.to_be_bytes());
    stamp(&mut page, id, Lsn(1 << 30), flags).unwrap();
    assert!(verify(&page, PageNo(42), Some(SpaceId(5)), flags).is_intact());
    page
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    // A short mini-transaction, a usual one, a page, a unit of the copy.
    for len in [60, 200, PAGE_SIZE, 1 << 20] {
        let bytes = noise(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(len), &bytes, |b, bytes| {
            b.iter(|| crc32c(black_box(bytes)));
        });
    }
    group.finish();
}

fn page_check(c: &mut Criterion) {
    let mut group = c.benchmark_group("page_check");
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    for (name, flags) in [("full_crc32", full_crc32()), ("crc32", legacy_crc32())] {
        let page = page(&flags);
        group.bench_function(name, |b| {
            b.iter(|| verify(black_box(&page), PageNo(42), Some(SpaceId(5)), &flags));
        });
    }
    group.finish();
}

/// The mini-transactions of the log behind its header, and their first LSN.
fn log() -> (Vec<u8>, Lsn) {
    let log = std::fs::read(LOG).unwrap();
    let first = LogHeader::parse(&log).unwrap().first_lsn;
    let start = Checkpoint::newest(&log[..HEADER_SIZE], first).unwrap().lsn;
    assert_eq!(start, first);
    (log[HEADER_SIZE..].to_vec(), start)
}

fn each_mtr<'a>(log: &'a [u8], start: Lsn, mut take: impl FnMut(mtr::Mtr<'a>)) {
    let (mut at, mut rest) = (start, log);
    while let Ok(mtr) = mtr::next(rest, at, Laps::Linear) {
        rest = &rest[mtr.end.bytes_since(at).unwrap() as usize..];
        at = mtr.end;
        take(mtr);
    }
}

fn redo_parse(c: &mut Criterion) {
    let (log, start) = log();
    let mut group = c.benchmark_group("redo_parse");
    group.throughput(Throughput::Bytes(log.len() as u64));
    group.bench_function("frame", |b| {
        b.iter(|| {
            let mut count = 0;
            each_mtr(black_box(&log), start, |_| count += 1);
            count
        });
    });
    group.bench_function("frame and sort out records", |b| {
        b.iter(|| {
            let mut pages = 0;
            each_mtr(black_box(&log), start, |mtr| {
                for record in Records::new(mtr.records) {
                    pages += u64::from(matches!(record.unwrap(), Record::Page { .. }));
                }
            });
            pages
        });
    });
    group.finish();
}

fn redo_apply(c: &mut Criterion) {
    let (log, start) = log();
    // The life of the page that is changed most, from the record that makes it anew.
    let mut lives = std::collections::BTreeMap::<PageId, Vec<u8>>::new();
    each_mtr(&log, start, |mtr| {
        for record in Records::new(mtr.records) {
            let Record::Page { page, kind, raw, own_ids, .. } = record.unwrap() else { continue };
            if kind == Kind::InitPage {
                lives.insert(page, Vec::new());
            }
            if let Some(life) = lives.get_mut(&page)
                && (own_ids || !life.is_empty())
            {
                life.extend_from_slice(raw);
            }
        }
    });
    let whole = |id: &PageId, life: &[u8]| {
        let mut page = vec![0; 4096];
        let target = ApplyTarget { page: *id, zip: false };
        Bodies::new(life).all(|body| body.is_ok_and(|body| apply(&mut page, target, &body).is_ok()))
    };
    let (id, life) = lives
        .iter()
        .filter(|(id, life)| whole(id, life))
        .max_by_key(|(_, life)| life.len())
        .expect("the log makes pages");
    let records = Bodies::new(life).count();
    let target = ApplyTarget { page: *id, zip: false };
    let mut group = c.benchmark_group("redo_apply");
    group.throughput(Throughput::Elements(records as u64));
    group.bench_function("records of one page", |b| {
        let mut page = vec![0; 4096];
        b.iter(|| {
            for body in Bodies::new(black_box(life)) {
                let body: Body<'_> = body.unwrap();
                apply(&mut page, target, &body).unwrap();
            }
        });
    });
    group.finish();
}

fn chunk_writing(c: &mut Criterion) {
    let payload = noise(1 << 20);
    let path = StreamPath::new("db/table.ibd").unwrap();
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("checksum and header", |b| {
        let mut header = Vec::with_capacity(HEADER_LEN_MAX);
        b.iter(|| {
            header.clear();
            let crc = crc32fast::hash(black_box(&payload));
            payload_header(&mut header, &path, Mode::Create, 0, payload.len() as u64, crc).unwrap();
            header.len()
        });
    });
    group.finish();
}

criterion_group!(benches, checksums, page_check, redo_parse, redo_apply, chunk_writing);
criterion_main!(benches);
