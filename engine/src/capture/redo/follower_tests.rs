//! The follower against a log that is written while it reads, as a server would write it.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::ErrorKind;
use crate::report::Silent;
use crate::sink::FolderSink;
use innodb::page::crc32c;
use innodb::redo::header::{CHECKPOINT_OFFSETS, HEADER_SIZE};
use innodb::redo::mtr::TRAILER_SIZE;
use innodb::redo::{LogHeader, varint};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const VERSION: ServerVersion = ServerVersion::new(10, 11, 19);

/// Writes mini-transactions into a circular file.
struct Writer {
    file: File,
    first: Lsn,
    capacity: u64,
    at: Lsn,
    /// Everything written so far, as a copy of the log must hold it.
    linear: Vec<u8>,
    flushed: Arc<AtomicU64>,
    seed: u32,
}

impl Writer {
    fn create(path: &Path, first: Lsn, capacity: u64) -> Self {
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.write_all_at(&LogHeader::backup("test", Checkpoint { lsn: first, end_lsn: first }), 0)
            .unwrap();
        file.set_len(HEADER_SIZE as u64 + capacity).unwrap();
        let flushed = Arc::new(AtomicU64::new(first.0));
        Self { file, first, capacity, at: first, linear: Vec::new(), flushed, seed: 1 }
    }

    /// One mini-transaction with a WRITE record of some bytes.
    fn mtr(&mut self) -> Vec<u8> {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut body = Vec::new();
        varint::put(&mut body, 5);
        varint::put(&mut body, self.seed >> 20);
        varint::put(&mut body, 100);
        body.resize(body.len() + 1 + (self.seed >> 8) as usize % 400, self.seed as u8);
        let mut mtr = Vec::new();
        if body.len() < 16 {
            mtr.push(0x30 | body.len() as u8);
        } else {
            mtr.push(0x30);
            let value = body.len() as u32 + 1 - 16;
            // The length bytes are part of the length.
            let bytes = if value + 1 < varint::MIN_2 { 1 } else { 2 };
            varint::put(&mut mtr, value + bytes);
        }
        mtr.extend(body);
        let crc = crc32c(&mtr);
        mtr.push(1);
        mtr.extend(crc.to_be_bytes());
        mtr
    }

    fn write_at(&self, lsn: Lsn, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let place = (lsn.0 - self.first.0 + i as u64) % self.capacity;
            self.file.write_all_at(&[*byte], HEADER_SIZE as u64 + place).unwrap();
        }
    }

    fn append(&mut self) {
        let mtr = self.mtr();
        self.linear.extend(&mtr);
        let mut wrapped = mtr.clone();
        let sequence = wrapped.len() - TRAILER_SIZE;
        let laps = Laps::Circular { first_lsn: self.first, capacity: self.capacity };
        wrapped[sequence] = laps.sequence_byte(self.at.advanced(sequence as u64));
        self.write_at(self.at, &wrapped);
        self.at = self.at.advanced(mtr.len() as u64);
        self.flushed.store(self.at.0, Ordering::SeqCst);
    }

    /// Takes a checkpoint at the end.
    fn checkpoint(&self) {
        let block = LogHeader::backup("", Checkpoint { lsn: self.at, end_lsn: self.at });
        let block = &block[CHECKPOINT_OFFSETS[0]..CHECKPOINT_OFFSETS[0] + 64];
        self.file.write_all_at(block, CHECKPOINT_OFFSETS[1] as u64).unwrap();
    }

    fn ask(&self) -> AskFlushed {
        let flushed = Arc::clone(&self.flushed);
        Box::new(move || Ok(Lsn(flushed.load(Ordering::SeqCst))))
    }
}

/// Runs `write` while a follower reads; returns what it copied, and the writer.
fn follow(
    path: &Path,
    mut writer: Writer,
    write: impl FnOnce(&mut Writer) + Send,
) -> (Result<Vec<u8>>, Writer) {
    let target = tempfile::tempdir().unwrap();
    let sink = FolderSink::create(target.path()).unwrap();
    let cancel = Cancel::new();
    let run = Run::new(&cancel, &Silent, &sink, None);
    let spool = Arc::new(Spool::new(1 << 16, std::env::temp_dir()));
    let result = std::thread::scope(|scope| {
        let keys = KeyStore::new(Default::default());
        let (path, ask_flushed) = (path.to_owned(), writer.ask());
        let source = Source { path, version: VERSION, ask_flushed, keys: &keys, base_end: None };
        let follower = Follower::start(scope, &run, source, Arc::clone(&spool))?;
        write(&mut writer);
        follower.end_at(writer.at);
        let followed = follower.finish();
        if followed.is_err() {
            run.stop.cancel();
        }
        assert!(followed.as_ref().map_or(true, |followed| followed.end == writer.at));
        followed
    });
    let copied = run.conclude(result).map(|_| {
        let mut copied = Vec::new();
        while let Some(block) = spool.pop().unwrap() {
            copied.extend(block);
        }
        copied
    });
    (copied, writer)
}

#[test]
fn a_log_that_wraps_many_times_is_copied_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ib_logfile0");
    let writer = Writer::create(&path, Lsn(12288), 200_000);
    let (copied, writer) = follow(&path, writer, |writer| {
        for round in 0..40 {
            for _ in 0..100 {
                writer.append();
            }
            if round % 5 == 0 {
                writer.checkpoint();
            }
            std::thread::sleep(Duration::from_millis(60));
        }
    });
    assert!(writer.linear.len() > 3 * 200_000);
    assert!(copied.unwrap() == writer.linear);
}

#[test]
fn a_whole_mini_transaction_that_lies_behind_the_end_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ib_logfile0");
    let writer = Writer::create(&path, Lsn(12288), 200_000);
    let (copied, writer) = follow(&path, writer, |writer| {
        writer.append();
        // What the server's buffer held before: valid, with the right sequence byte, and not log.
        let stale = writer.mtr();
        writer.write_at(writer.at, &stale);
        std::thread::sleep(Duration::from_millis(200));
        writer.append();
    });
    assert!(copied.unwrap() == writer.linear);
}

#[test]
fn an_overwritten_log_is_an_error_with_both_positions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ib_logfile0");
    let mut writer = Writer::create(&path, Lsn(12288), 20_000);
    // Before the follower gets to read anything the log has gone round more than once.
    while writer.linear.len() < 50_000 {
        writer.append();
    }
    let (copied, writer) = follow(&path, writer, |_| {});
    let error = copied.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert!(error.to_string().contains("12288"), "{error}");
    assert!(error.to_string().contains(&writer.at.to_string()), "{error}");
}

#[test]
fn a_resized_log_is_followed_into_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ib_logfile0");
    let writer = Writer::create(&path, Lsn(12288), 200_000);
    let (copied, writer) = follow(&path, writer, |writer| {
        for _ in 0..50 {
            writer.append();
        }
        // From here on both files get everything, until the new one takes the name.
        let new_path = path.with_extension("101");
        let mut new = Writer::create(&new_path, writer.at, 500_000);
        let behind = writer.linear.len();
        for _ in 0..50 {
            writer.append();
        }
        new.write_at(new.first, &writer.linear[behind..]);
        std::fs::rename(&new_path, &path).unwrap();
        new.at = writer.at;
        new.linear = std::mem::take(&mut writer.linear);
        new.flushed = Arc::clone(&writer.flushed);
        new.seed = writer.seed;
        for _ in 0..50 {
            new.append();
        }
        std::thread::sleep(Duration::from_millis(100));
        *writer = new;
    });
    assert!(copied.unwrap() == writer.linear);
}

/// The server aligns where a new log begins; here it is within the next mini-transaction to read.
#[test]
fn a_new_log_that_begins_within_a_mini_transaction_is_followed_into() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ib_logfile0");
    let writer = Writer::create(&path, Lsn(12288), 200_000);
    let (copied, writer) = follow(&path, writer, |writer| {
        for _ in 0..50 {
            writer.append();
        }
        std::thread::sleep(Duration::from_millis(300));
        // Nothing is said of what comes now before the new file has the name.
        let flushed = std::mem::take(&mut writer.flushed);
        let new_path = path.with_extension("101");
        let mut new = Writer::create(&new_path, writer.at.advanced(5), 500_000);
        let behind = writer.linear.len() + 5;
        for _ in 0..50 {
            writer.append();
        }
        new.write_at(new.first, &writer.linear[behind..]);
        std::fs::rename(&new_path, &path).unwrap();
        new.at = writer.at;
        new.linear = std::mem::take(&mut writer.linear);
        new.seed = writer.seed;
        flushed.store(writer.at.0, Ordering::SeqCst);
        new.flushed = flushed;
        for _ in 0..50 {
            new.append();
        }
        std::thread::sleep(Duration::from_millis(100));
        *writer = new;
    });
    assert!(copied.unwrap() == writer.linear);
}

#[test]
fn a_server_that_begins_to_archive_its_log_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ib_logfile0");
    let archived = dir.path().join("ib_0000000000003000.log");
    let writer = Writer::create(&path, Lsn(12288), 200_000);
    let (copied, _) = follow(&path, writer, |writer| {
        writer.append();
        std::fs::rename(&path, &archived).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        writer.append();
    });
    let error = copied.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.to_string().contains("innodb_log_archive"), "{error}");

    let error = LogFile::open(&path).err().unwrap().to_string();
    assert!(error.contains("innodb_log_archive"), "{error}");
}
