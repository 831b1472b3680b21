//! The effect of every record on its page, against what the stock prepare made of the same
//! log and pages. How the golden files were made: `testdata/redo/README.md`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use innodb::page::{self, crc32c, stamp};
use innodb::redo::apply::{ApplyTarget, apply};
use innodb::redo::record::{Bodies, Kind, Record, Records};
use innodb::redo::{Body, Checkpoint, LogHeader, header, mtr};
use innodb::space::{SpaceFlags, SpaceHeader};
use innodb::{Lsn, PageId, PageNo, SpaceId};

/// What one mini-transaction does to one page.
struct Unit<'a> {
    start: Lsn,
    end: Lsn,
    records: Vec<&'a [u8]>,
}

/// All that a log does to one page.
#[derive(Default)]
struct Changes<'a> {
    /// The page is made anew: its content in the file is moot.
    is_new: bool,
    units: Vec<Unit<'a>>,
}

/// Sorts a backup's log by page.
fn changes(log: &[u8]) -> BTreeMap<PageId, Changes<'_>> {
    let first = LogHeader::parse(log).unwrap().first_lsn;
    let mut lsn = Checkpoint::newest(&log[..header::HEADER_SIZE], first).unwrap().lsn;
    let mut rest = &log[header::HEADER_SIZE + usize::try_from(lsn.0 - first.0).unwrap()..];
    let mut pages: BTreeMap<PageId, Changes> = BTreeMap::new();
    while let Ok(mtr) = mtr::next(rest, lsn, mtr::Laps::Linear) {
        for record in Records::new(mtr.records) {
            let Record::Page { page, kind, raw, .. } = record.unwrap() else { continue };
            let changes = pages.entry(page).or_default();
            if matches!(kind, Kind::FreePage | Kind::InitPage) {
                changes.is_new = true;
                changes.units.clear();
            }
            match changes.units.last_mut() {
                Some(unit) if unit.start == mtr.start => unit.records.push(raw),
                _ => {
                    changes.units.push(Unit { start: mtr.start, end: mtr.end, records: vec![raw] });
                }
            }
        }
        rest = &rest[usize::try_from(mtr.end.0 - lsn.0).unwrap()..];
        lsn = mtr.end;
    }
    assert!(rest.is_empty(), "{} bytes of the log were not understood", rest.len());
    pages
}

/// The page after all changes, or `None` when it stays as it is.
fn prepare(
    before: &[u8],
    id: PageId,
    changes: &Changes<'_>,
    flags: &SpaceFlags,
    used: &mut BTreeMap<String, usize>,
) -> Option<Vec<u8>> {
    let mut page = before.to_vec();
    if changes.is_new {
        page.fill(0);
    }
    let lsn = page::lsn(&page).unwrap();
    let target = ApplyTarget { page: id, zip: flags.zip_size().is_some() };
    let mut changed = false;
    for unit in changes.units.iter().filter(|unit| unit.start >= lsn) {
        for body in Bodies::new(&unit.records.concat()) {
            let body = body.unwrap();
            apply(&mut page, target, &body).unwrap();
            *used.entry(kind(&body)).or_default() += 1;
            changed |= body != Body::FreePage;
        }
    }
    changed.then(|| {
        stamp(&mut page, id, changes.units.last().unwrap().end, flags).unwrap();
        page
    })
}

fn kind(body: &Body<'_>) -> String {
    match body {
        Body::Extended { subtype, .. } => format!("Extended {subtype}"),
        other => format!("{other:?}").split(' ').next().unwrap().to_owned(),
    }
}

/// Tablespaces of a directory as the stock tool prepared it.
fn spaces(directory: &Path) -> Vec<(PathBuf, SpaceHeader, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(spaces(&path));
        } else if name == "ibdata1" || name.starts_with("undo0") || name.ends_with(".ibd") {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, SpaceHeader::parse(&bytes).unwrap(), bytes));
        }
    }
    found
}

/// One page of the golden files: space, page number and flags of the tablespace, then the page.
const GOLDEN_HEADER: usize = 12;

fn golden(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/redo").join(name);
    let log = std::fs::read(directory.join("ib_logfile0")).unwrap();
    let pages = std::fs::read(directory.join("pages")).unwrap();
    let expected = std::fs::read_to_string(directory.join("expected")).unwrap();
    let changes = changes(&log);

    let mut rest = &pages[..];
    let mut before = BTreeMap::new();
    while let Some((head, behind)) = rest.split_at_checked(GOLDEN_HEADER) {
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let flags = SpaceFlags::parse(number(8)).unwrap();
        let (page, behind) = behind.split_at(flags.physical_size().bytes());
        before.insert(PageId { space: SpaceId(number(0)), page: PageNo(number(4)) }, (flags, page));
        rest = behind;
    }

    let mut used = BTreeMap::new();
    let mut lines = 0;
    for line in expected.lines() {
        let mut fields = line.split(' ');
        let mut number = |radix| u32::from_str_radix(fields.next().unwrap(), radix).unwrap();
        let id = PageId { space: SpaceId(number(10)), page: PageNo(number(10)) };
        let flags = SpaceFlags::parse(number(16)).unwrap();
        let sum = number(16);
        let blank = vec![0; flags.physical_size().bytes()];
        let page = before.get(&id).map_or(&blank[..], |(_, page)| page);
        let after = prepare(page, id, &changes[&id], &flags, &mut used);
        assert_eq!(crc32c(&after.unwrap()), sum, "{id}");
        lines += 1;
    }
    assert!(lines > 100, "{lines} pages");
    // Every kind of record is in the log, or this test shows less than it says.
    for subtype in 0..=9 {
        assert!(used.contains_key(&format!("Extended {subtype}")), "subtype {subtype}: {used:?}");
    }
    for kind in ["InitPage", "Write", "Memset", "Memmove"] {
        assert!(used.contains_key(kind), "{kind}: {used:?}");
    }
}

#[test]
fn full_crc32_pages_become_what_the_stock_tool_makes_of_them() {
    golden("10.11-4k-full_crc32");
}

#[test]
fn legacy_pages_become_what_the_stock_tool_makes_of_them() {
    golden("10.11-4k-crc32");
}

/// Compares a whole backup: `BEFORE` as it was taken, `AFTER` as the stock tool prepared it. With
/// `GOLDEN` set, writes the golden files of this test there.
#[test]
#[ignore = "needs two directories"]
fn a_whole_backup() {
    let directory = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let (before, after) = (directory("BEFORE"), directory("AFTER"));
    let log = std::fs::read(before.join("ib_logfile0")).unwrap();
    let changes = changes(&log);
    let mut used = BTreeMap::new();
    let (mut pages, mut changed, mut different) = (0, 0, 0);
    let (mut golden_pages, mut golden_expected) = (Vec::new(), String::new());
    for (path, header, wanted) in spaces(&after) {
        let source = before.join(path.strip_prefix(&after).unwrap());
        let found = std::fs::read(&source).unwrap_or_default();
        let flags = &header.flags;
        let size = header.physical_size().bytes();
        for (number, wanted) in wanted.chunks(size).enumerate() {
            let id = PageId { space: header.id, page: PageNo(u32::try_from(number).unwrap()) };
            let blank = vec![0; size];
            let old = found.chunks_exact(size).nth(number).unwrap_or(&blank);
            let new = changes.get(&id).and_then(|list| prepare(old, id, list, flags, &mut used));
            pages += 1;
            if let Some(new) = &new {
                changed += 1;
                let [id_space, id_page, word] = [id.space.0, id.page.0, flags.word()];
                if !changes[&id].is_new {
                    golden_pages.extend([id_space, id_page, word].map(u32::to_be_bytes).concat());
                    golden_pages.extend(old);
                }
                writeln!(golden_expected, "{id_space} {id_page} {word:x} {:08x}", crc32c(new))
                    .unwrap();
            }
            if new.as_deref().unwrap_or(old) != wanted {
                let new = new.as_deref().unwrap_or(old);
                let at: Vec<_> = (0..size).filter(|&at| new[at] != wanted[at]).collect();
                println!("{} {id}: {} bytes differ, {:?}", path.display(), at.len(), at.first());
                different += 1;
            }
        }
    }
    println!("{pages} pages, {changed} changed, {different} different, records {used:?}");
    assert_eq!(different, 0);
    if let Some(golden) = std::env::var_os("GOLDEN").map(PathBuf::from) {
        std::fs::write(golden.join("ib_logfile0"), &log).unwrap();
        std::fs::write(golden.join("pages"), golden_pages).unwrap();
        std::fs::write(golden.join("expected"), golden_expected).unwrap();
    }
}
