//! Damaged logs: whatever is in them, reading them ends, and says what is wrong.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use crate::dump::Dump;
use crate::dump::options::Options;
use crate::json::Lines;
use crate::{Error, Fault, ReadOptions, Reader};

/// A short log of 10.11, without checksums: a transaction with an UPDATE of rows.
const LOG: &[u8] = include_bytes!("../../testdata/binlog/10.11.bin.000006");

/// A log that is encrypted.
const ENCRYPTED: &[u8] = include_bytes!("../../testdata/binlog/10.11.ctr.bin.000008");

fn unverified() -> ReadOptions {
    ReadOptions { verify: false, ..ReadOptions::default() }
}

/// Reads all events.
fn read(log: &[u8], options: ReadOptions) -> Result<usize, Error> {
    let mut reader = Reader::new(log, "log", options)?;
    let mut events = 0;
    while reader.next_event()?.is_some() {
        events += 1;
    }
    Ok(events)
}

/// Prints a log in every way.
fn print(log: &[u8]) {
    for flashback in [false, true] {
        let local_load = "/nonexistent".into();
        let options = Options {
            verbose: 2,
            hexdump: true,
            table_metadata: true,
            flashback,
            local_load,
            ..Options::default()
        };
        let mut text = Vec::new();
        let mut dump = Dump::begin(&options, &mut text);
        if let Ok(mut reader) = Reader::new(log, "log", unverified()) {
            let _ = dump.stream(&mut reader, true, true);
        }
        let _ = dump.end();
    }
    let mut lines = Lines::default();
    if let Ok(mut reader) = Reader::new(log, "log", unverified()) {
        while let Ok(Some(event)) = reader.next_event() {
            lines.line(&event);
        }
    }
}

#[test]
fn a_whole_log_is_read_to_its_end() {
    assert!(read(LOG, ReadOptions::default()).unwrap() > 8);
}

#[test]
fn encrypted_logs_need_keys() {
    let error = read(ENCRYPTED, ReadOptions::default()).unwrap_err();
    assert!(matches!(error.fault, Fault::Crypt(_)), "{error}");
    assert!(error.to_string().contains("no keys are given"), "{error}");
}

#[test]
fn other_files_are_told_by_name() {
    let fault = |bytes: &[u8]| read(bytes, ReadOptions::default()).unwrap_err().fault;
    assert!(matches!(fault(b""), Fault::Empty));
    assert!(matches!(fault(b"PK\x03\x04"), Fault::NotBinlog));
    assert!(matches!(fault(b"\xfe\xfe\x0d\x01more"), Fault::InnodbBinlog));
}

proptest! {
    #[test]
    fn a_cut_is_noticed(at in 5..LOG.len()) {
        let mut ends = vec![4];
        let mut reader = Reader::new(LOG, "log", ReadOptions::default()).unwrap();
        while let Some(event) = reader.next_event().unwrap() {
            ends.push(event.end() as usize);
        }
        match read(&LOG[..at], ReadOptions::default()) {
            Ok(_) => prop_assert!(ends.contains(&at)),
            Err(error) => prop_assert!(
                matches!(error.fault, Fault::Truncated { .. }) && !ends.contains(&at), "{}", error),
        }
    }

    #[test]
    fn a_changed_byte_of_the_format_is_noticed(at in 23..256_usize, bit in 0..8_u8) {
        // Events of this log have no checksums, but what describes them always has one.
        let mut log = LOG.to_vec();
        log[at] ^= 1 << bit;
        let result = read(&log, ReadOptions::default());
        // The mark of an open file is not covered.
        prop_assert!(result.is_err() || at == 4 + 17 && bit == 0);
    }

    #[test]
    fn no_damage_panics(
        changes in proptest::collection::vec((4..LOG.len(), any::<u8>()), 1..8),
    ) {
        let mut log = LOG.to_vec();
        for (at, value) in changes {
            log[at] = value;
        }
        print(&log);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        print(&bytes);
        print(&[&LOG[..256], &bytes].concat());
    }
}
