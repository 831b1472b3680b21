//! Arbitrary bytes as a binary log: events, rows, text, what undoes it, JSON.
//!
//! Checksums are not verified, or they would keep nearly every input out; and the bytes are also
//! taken for what follows the beginning of a real log.

#![no_main]

use binlog::dump::Dump;
use binlog::dump::options::Options;
use binlog::json::Lines;
use binlog::{ReadOptions, Reader};
use libfuzzer_sys::fuzz_target;

/// The beginning of a log of 10.11: what the events look like.
const BEGINNING: &[u8] = include_bytes!("../../../testdata/binlog/10.11.bin.000006");

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut joined = BEGINNING[..256].to_vec();
    joined.extend_from_slice(data);
    read(&joined);
});

fn read(log: &[u8]) {
    let options = || ReadOptions { verify: false, ..ReadOptions::default() };
    let mut lines = Lines::default();
    if let Ok(mut reader) = Reader::new(log, "fuzz", options()) {
        while let Ok(Some(event)) = reader.next_event() {
            assert_eq!(event.bytes.len(), event.header.length as usize);
            let _ = lines.line(&event);
        }
    }
    for flashback in [false, true] {
        // Files of LOAD DATA go nowhere.
        let local_load = "/nonexistent".into();
        let settings = Options { verbose: 2, flashback, local_load, ..Options::default() };
        let mut text = Vec::new();
        let mut dump = Dump::begin(&settings, &mut text);
        if let Ok(mut reader) = Reader::new(log, "fuzz", options()) {
            let _ = dump.stream(&mut reader, true, true);
        }
        let _ = dump.end();
    }
}
