#![allow(clippy::unwrap_used)]
//! Whole recoveries: of what a real server left, and of what nobody wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::log::{FILLER, Log, PAGE};
use super::lsn::AriaLsn;
use super::record::Kind;
use super::{AriaSummary, recover};
use crate::Cancel;
use crate::keys::KeySettings;
use crate::keys::settings::KeyStore;
use crate::report::Silent;

const MEMORY: u64 = 64 << 20;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/aria/10.11").join(name)
}

type Files = BTreeMap<String, Vec<u8>>;

/// All files of a backup.
fn files(dir: &Path) -> Files {
    let mut files = Files::new();
    for (prefix, dir) in [("", dir.to_owned()), ("g/", dir.join("g"))] {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn directory(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("g")).unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn run(dir: &Path) -> AriaSummary {
    recover(dir, MEMORY, &KeyStore::new(KeySettings::default()), &Cancel::new(), &Silent).unwrap()
}

/// The first file that differs, and where.
fn difference(left: &Files, right: &Files) -> Option<String> {
    if left.keys().ne(right.keys()) {
        return Some(format!("{:?} and {:?}", left.keys(), right.keys()));
    }
    left.iter().find_map(|(name, left)| {
        let right = &right[name];
        let at = left.iter().zip(right).position(|(left, right)| left != right);
        let at = at.or((left.len() != right.len()).then(|| left.len().min(right.len())));
        at.map(|at| format!("{name} at {at:#x}"))
    })
}

#[test]
fn the_result_has_the_bytes_of_the_stock_tool() {
    let dir = directory(&files(&testdata("raw")));
    let summary = run(dir.path());
    let AriaSummary::Recovered { tables: 2, open_transactions: 0, pages, records } = summary else {
        panic!("{summary:?}");
    };
    assert!(pages > 10 && records > 300, "{pages} pages, {records} records");
    let expected = files(&testdata("prepared"));
    assert_eq!(difference(&files(dir.path()), &expected), None);
    let again = run(dir.path());
    assert!(matches!(again, AriaSummary::Recovered { pages: 0, .. }), "{again:?}");
    assert_eq!(difference(&files(dir.path()), &expected), None);
}

#[test]
fn without_a_control_file_there_is_nothing_to_do() {
    let mut raw = files(&testdata("raw"));
    raw.remove("aria_log_control");
    let dir = directory(&raw);
    assert!(matches!(run(dir.path()), AriaSummary::Absent));
    assert_eq!(difference(&files(dir.path()), &raw), None);
}

/// The records of the log: where each is, what, and of which transaction.
fn records(dir: &Path) -> Vec<(AriaLsn, Kind, u16)> {
    let mut log = Log::open(dir, 2, 1 << 20).map_err(|_| "no log").unwrap();
    let mut place = log.begin();
    let mut records = Vec::new();
    while let Ok(Some((record, next))) = log.next(place) {
        records.push((record.lsn, record.kind, record.transaction));
        place = next;
    }
    records
}

/// The files with a log that ends before `end`.
fn cut(raw: &Files, end: AriaLsn) -> Files {
    let mut raw = raw.clone();
    let log = raw.get_mut("aria_log.00000002").unwrap();
    let at = end.offset() as usize;
    log.truncate(at.next_multiple_of(PAGE));
    log[at..].fill(FILLER);
    raw
}

/// What a table has in it: everything but the header, which says how much of the log was seen.
fn content(files: &Files) -> Files {
    let mut files = files.clone();
    files.retain(|name, _| name.starts_with("g/"));
    for (name, bytes) in &mut files {
        if name.ends_with(".MAI") {
            // Whether it was open, which kinds of changes there were, and the place in the log.
            for field in [24..28, 35..42] {
                bytes[field].fill(0);
            }
        }
    }
    files
}

#[test]
fn an_open_transaction_is_as_if_it_had_never_begun() {
    let raw = files(&testdata("raw"));
    let all = records(&testdata("raw"));
    let begins = all.iter().filter(|record| record.1 == Kind::LongTransactionId);
    let mut tried = 0;
    for (begin, _, transaction) in begins.rev().take(9) {
        let of_it = all.iter().filter(|record| record.0 > *begin && record.2 == *transaction);
        let commit = of_it.clone().find(|record| record.1 == Kind::Commit).unwrap().0;
        let before = directory(&cut(&raw, *begin));
        assert!(matches!(run(before.path()), AriaSummary::Recovered { open_transactions: 0, .. }));
        let open = directory(&cut(&raw, commit));
        match run(open.path()) {
            AriaSummary::Recovered { open_transactions: 1, .. } => tried += 1,
            // What the server had written of it already cannot be left out.
            AriaSummary::LeftToServer { .. } => continue,
            other => panic!("{other:?}"),
        }
        let (left, right) = (content(&files(before.path())), content(&files(open.path())));
        assert_eq!(difference(&left, &right), None, "transaction that begins at {begin}");
    }
    assert!(tried >= 5, "{tried} transactions could be left out");
}

#[test]
fn a_log_that_ends_anywhere_is_recovered_or_left_alone() {
    let raw = files(&testdata("raw"));
    for (lsn, ..) in records(&testdata("raw")).iter().step_by(29) {
        let raw = cut(&raw, *lsn);
        let dir = directory(&raw);
        match run(dir.path()) {
            AriaSummary::Recovered { .. } => {}
            AriaSummary::LeftToServer { .. } => {
                assert_eq!(difference(&files(dir.path()), &raw), None);
            }
            AriaSummary::Absent => panic!("there is a log"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Bytes of the log and of tables that nobody wrote: no panic, and all or nothing.
    #[test]
    fn damage_is_survived(
        damage in prop::collection::vec((0..7_usize, any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut raw = files(&testdata("raw"));
        let names: Vec<String> = raw.keys().cloned().collect();
        for (file, at, byte) in damage {
            // Most of it in the log.
            let name = names.get(file).filter(|name| !name.ends_with("control"));
            let name = name.map_or("aria_log.00000002", String::as_str);
            let bytes = raw.get_mut(name).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let dir = directory(&raw);
        if let AriaSummary::LeftToServer { .. } = run(dir.path()) {
            prop_assert_eq!(difference(&files(dir.path()), &raw), None);
        }
    }
}
