//! Arbitrary bytes as a redo log: header, checkpoints, mini-transactions, records.
//!
//! Checksums would keep nearly every input out, so each part also sees the bytes directly, and
//! mini-transactions a copy that ends in the right checksum.

#![no_main]

use innodb::Lsn;
use innodb::page::crc32c;
use innodb::redo::record::{Bodies, Record, Records};
use innodb::redo::{Checkpoint, Laps, LogHeader, mtr, varint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = LogHeader::parse(data) {
        let _ = Checkpoint::newest(data, header.first_lsn);
    }
    let _ = Checkpoint::parse(data, Lsn(0));
    let _ = LogHeader::parse(&with_header_crc(data));

    let mut number = data;
    while let Some(value) = varint::take(&mut number) {
        let mut again = Vec::new();
        varint::put(&mut again, value);
        assert_eq!(varint::take(&mut again.as_slice()), Some(value));
    }

    read_log(data, Laps::Circular { first_lsn: Lsn(12288), capacity: 1 + data.len() as u64 / 2 });
    let mut framed = data.to_vec();
    framed.push(1);
    framed.extend_from_slice(&crc32c(data).to_be_bytes());
    read_log(&framed, Laps::Linear);
    read_records(data);
});

/// The first block with a checksum that fits.
fn with_header_crc(data: &[u8]) -> Vec<u8> {
    let mut block = data.to_vec();
    block.resize(512, 0);
    let crc = crc32c(&block[..508]);
    block[508..].copy_from_slice(&crc.to_be_bytes());
    block
}

fn read_log(bytes: &[u8], laps: Laps) {
    let mut lsn = Lsn(12288);
    let mut rest = bytes;
    while let Ok(found) = mtr::next(rest, lsn, laps) {
        assert!(found.start == lsn && found.end > lsn);
        let size = (found.end.0 - found.start.0) as usize;
        assert_eq!(found.records.len() + mtr::TRAILER_SIZE, size);
        read_records(found.records);
        lsn = found.end;
        rest = &rest[size..];
    }
}

fn read_records(bytes: &[u8]) {
    let mut seen = 0;
    for record in Records::new(bytes) {
        if let Ok(Record::Page { raw, body, .. }) = record {
            seen += raw.len();
            assert!(body.len() < raw.len() && seen <= bytes.len());
            let _ = Bodies::new(raw).next();
        }
    }
    // Every item takes bytes from the input, so the walk ends.
    assert!(Bodies::new(bytes).count() <= bytes.len());
}
