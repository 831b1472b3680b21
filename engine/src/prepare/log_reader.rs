//! Reading the captured redo log once, in order, through a bounded buffer.
//!
//! Both kinds of copy are accepted: the linear one that backups write (creator `Backup …`), and a
//! raw copy of a server's circular file. The log ends where no mini-transaction can be read any
//! more; whether that is far enough is for the caller to judge, who knows the target.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use innodb::Lsn;
use innodb::redo::header::{Checkpoint, HEADER_SIZE, LogHeader};
use innodb::redo::mtr::{self, Laps, MTR_MAX, Mtr, Stop, TRAILER_SIZE};

use crate::{Error, ErrorKind, Result};

/// Bytes of the buffer: a whole mini-transaction always fits, and reads are large.
pub const BUFFER: usize = MTR_MAX + (3 << 20);

/// A redo log, read mini-transaction by mini-transaction.
pub struct LogReader {
    file: File,
    path: PathBuf,
    header: LogHeader,
    checkpoint: Checkpoint,
    laps: Laps,
    /// LSN behind the last byte that the file can hold.
    limit: Lsn,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were read from the file.
    filled: usize,
    /// Where in the buffer the next mini-transaction starts.
    at: usize,
    /// LSN of that place.
    lsn: Lsn,
    stop: Option<Stop>,
}

impl LogReader {
    /// Opens the log at `path`; reading starts at its checkpoint.
    pub fn open(path: &Path) -> Result<Self> {
        let damage = |error: innodb::redo::header::HeaderError| {
            Error::new(ErrorKind::Damage, format!("cannot use {}", path.display())).caused_by(error)
        };
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                ErrorKind::Damage,
                format!("the backup is incomplete: {} is missing", path.display()),
            )
            .advise("copy the backup again, or take a new one"),
            _ => Error::io("open", path, error),
        })?;
        let size = file.metadata().map_err(|e| Error::io("inspect", path, e))?.len();
        let mut block = vec![0; HEADER_SIZE];
        let have = usize::try_from(size).unwrap_or(usize::MAX).min(HEADER_SIZE);
        block.truncate(have);
        file.read_exact_at(&mut block, 0).map_err(|e| Error::io("read", path, e))?;
        let header = LogHeader::parse(&block).map_err(damage)?;
        let checkpoint = Checkpoint::newest(&block, header.first_lsn).map_err(damage)?;

        let capacity = size.saturating_sub(HEADER_SIZE as u64);
        let (laps, limit) = if header.creator.starts_with("Backup ") {
            (Laps::Linear, header.first_lsn.advanced(capacity))
        } else {
            let laps = Laps::Circular { first_lsn: header.first_lsn, capacity };
            (laps, checkpoint.lsn.advanced(capacity))
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            lsn: checkpoint.lsn,
            header,
            checkpoint,
            laps,
            limit,
            buffer: vec![0; BUFFER],
            filled: 0,
            at: 0,
            stop: None,
        })
    }

    /// Who wrote the log.
    pub fn creator(&self) -> &str {
        &self.header.creator
    }

    /// The checkpoint that the log starts from.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// LSN of the next mini-transaction, or of the end of the log.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Bytes from the checkpoint to the end of the file; the log may end before.
    pub fn size(&self) -> u64 {
        self.limit.bytes_since(self.checkpoint.lsn).unwrap_or(0)
    }

    /// What was seen where the log ended.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    /// Goes back to `lsn`, which must be the start of a mini-transaction.
    pub fn seek(&mut self, lsn: Lsn) {
        (self.lsn, self.filled, self.at, self.stop) = (lsn, 0, 0, None);
    }

    /// The next mini-transaction, or `None` at the end of the log.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Mtr<'_>>> {
        let (start, end, size) = loop {
            let unread = self.buffer.get(self.at..self.filled).unwrap_or_default();
            match mtr::next(unread, self.lsn, self.laps) {
                Ok(mtr) => break (mtr.start, mtr.end, mtr.records.len()),
                Err(stop) => {
                    if stop != Stop::NeedMore || !self.refill()? {
                        self.stop = Some(stop);
                        return Ok(None);
                    }
                }
            }
        };
        let records = self.buffer.get(self.at..self.at + size).unwrap_or_default();
        self.at += size + TRAILER_SIZE;
        self.lsn = end;
        Ok(Some(Mtr { start, end, records }))
    }

    /// Moves what is unread to the front and reads on; false when there is nothing more.
    #[cold]
    fn refill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.at..self.filled, 0);
        self.filled -= self.at;
        self.at = 0;
        let from = self.lsn.advanced(self.filled as u64);
        let left = self.limit.bytes_since(from).unwrap_or(0);
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(free.len());
        let mut free = free.get_mut(..size).unwrap_or_default();
        let mut position = from.bytes_since(self.header.first_lsn).unwrap_or(0);
        while !free.is_empty() {
            // A circular file starts over behind its header.
            let (offset, here) = match self.laps {
                Laps::Linear => (position, free.len()),
                Laps::Circular { capacity, .. } => {
                    let offset = position % capacity.max(1);
                    let to_end = usize::try_from(capacity - offset).unwrap_or(usize::MAX);
                    (offset, to_end.min(free.len()))
                }
            };
            let (now, later) = free.split_at_mut(here);
            self.file
                .read_exact_at(now, HEADER_SIZE as u64 + offset)
                .map_err(|e| Error::io("read", &self.path, e))?;
            position += here as u64;
            free = later;
        }
        self.filled += size;
        Ok(size > 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use innodb::page::crc32c;
    use std::io::Write;

    const FIRST: Lsn = Lsn(50_000);

    /// One mini-transaction: a WRITE of `size` bytes, with a sequence byte for `laps`.
    fn mtr(at: Lsn, size: u8, laps: Laps) -> Vec<u8> {
        let mut out = vec![0x30 | (size + 3), 1, 1, 40];
        out.extend(std::iter::repeat_n(size, usize::from(size)));
        let crc = crc32c(&out);
        out.push(laps.sequence_byte(at.advanced(out.len() as u64)));
        out.extend(crc.to_be_bytes());
        out
    }

    fn log(creator: &str, payload: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let checkpoint = Checkpoint { lsn: FIRST, end_lsn: FIRST };
        file.write_all(&LogHeader::backup(creator, checkpoint)).unwrap();
        file.write_all(payload).unwrap();
        file
    }

    fn sizes(reader: &mut LogReader) -> Vec<usize> {
        let mut out = Vec::new();
        while let Some(mtr) = reader.next().unwrap() {
            out.push(mtr.records.len() - 4);
        }
        out
    }

    #[test]
    fn a_linear_copy_is_read_to_its_end_and_again_from_the_middle() {
        let mut payload = Vec::new();
        let mut starts = Vec::new();
        for size in 1..=9 {
            starts.push(FIRST.advanced(payload.len() as u64));
            payload.extend(mtr(FIRST, size, Laps::Linear));
        }
        let file = log("Backup 10.11.19", &payload);
        let mut reader = LogReader::open(file.path()).unwrap();
        assert_eq!(sizes(&mut reader), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(reader.lsn(), FIRST.advanced(payload.len() as u64));
        reader.seek(starts[6]);
        assert_eq!(sizes(&mut reader), [7, 8, 9]);
    }

    #[test]
    fn a_cut_ends_the_log_at_the_last_whole_mini_transaction() {
        let mut payload = mtr(FIRST, 5, Laps::Linear);
        let whole = payload.len() as u64;
        payload.extend(mtr(FIRST, 6, Laps::Linear));
        payload.pop();
        let file = log("Backup 10.11.19", &payload);
        let mut reader = LogReader::open(file.path()).unwrap();
        assert_eq!(sizes(&mut reader), [5]);
        assert_eq!((reader.lsn(), reader.stop()), (FIRST.advanced(whole), Some(Stop::NeedMore)));
    }

    #[test]
    fn a_circular_file_wraps_behind_its_header() {
        const CAPACITY: usize = 100;
        let laps = Laps::Circular { first_lsn: FIRST, capacity: CAPACITY as u64 };
        // Mini-transactions up to LSN 250 were written over each other; the checkpoint is where
        // the oldest one that is still whole starts.
        let mut payload = vec![0; CAPACITY];
        let mut at = FIRST;
        let mut starts = Vec::new();
        while at.0 < FIRST.0 + 250 {
            starts.push(at);
            for byte in mtr(at, 7, laps) {
                payload[(at.0 - FIRST.0) as usize % CAPACITY] = byte;
                at = at.advanced(1);
            }
        }
        let oldest = *starts.iter().find(|s| s.0 + CAPACITY as u64 >= at.0).unwrap();
        let whole = starts.iter().filter(|s| **s >= oldest).count();
        let file = log("MariaDB 10.11.19", &payload);
        let checkpoint = Checkpoint { lsn: oldest, end_lsn: oldest };
        let block = &LogHeader::backup("x", checkpoint)[4096..4160];
        file.as_file().write_all_at(block, 8192).unwrap();
        let mut reader = LogReader::open(file.path()).unwrap();
        assert_eq!(reader.checkpoint().lsn, oldest);
        assert_eq!(sizes(&mut reader), vec![7; whole]);
        assert_eq!(reader.lsn(), at);
    }
}
