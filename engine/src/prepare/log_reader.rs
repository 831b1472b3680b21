//! Reading the captured redo log in order, through a few small buffers.
//!
//! Both kinds of copy are accepted: the linear one that backups write (creator `Backup …`), and a
//! raw copy of a server's circular file; and both formats, with blocks and without. The log ends where no mini-transaction can be read any
//! more; whether that is far enough is for the caller to judge, who knows the target.
//!
//! One thread reads, walks, checks and decrypts mini-transactions, the caller's makes use of them.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use innodb::Lsn;
use innodb::crypt::redo::{KEY_ID, LogCipher};
use innodb::redo::blocks::{self, BlockCheckpoint, BlockLogHeader, NotEncrypted};
use innodb::redo::header::{Checkpoint, HEADER_SIZE, HeaderError, LogEncryption, LogHeader};
use innodb::redo::mtr::{self, Laps, MTR_MAX, Mtr, Stop, Trailer};
use innodb::redo::record::is_sound;

use crate::keys::settings::{KeyStore, REDO_LOG};
use crate::keys::{BlockCipher, KeyError};
use crate::{Error, ErrorKind, Result, redo_files};

/// Bytes read at once, unless a mini-transaction is larger.
const CHUNK: usize = 512 << 10;
/// Chunks under way between the two threads.
const CHUNKS: usize = 4;
/// Mini-transactions that tell whether a key is the right one. The wrong cipher shows only in
/// those of more than 16 bytes.
const TRIED: u32 = 4096;
/// Memory for chunks, even if each had to hold the largest mini-transaction, and for the blocks
/// that one is made of.
pub const MEMORY: usize = (CHUNKS + 1) * (CHUNK + 2 * MTR_MAX);

/// A redo log.
pub struct LogReader {
    /// One; several only in the format with blocks.
    files: Vec<File>,
    path: PathBuf,
    creator: String,
    checkpoint: Checkpoint,
    format: Format,
    encryption: Option<LogEncryption>,
    cipher: Option<LogCipher>,
    /// The cipher of a log in blocks.
    block_cipher: Option<BlockCipher>,
    /// LSN behind the last byte that the file can hold.
    limit: Lsn,
}

/// How mini-transactions are in the file.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// Since 10.8: one behind the other.
    Plain { first_lsn: Lsn, laps: Laps, trailer: Trailer },
    /// Until 10.7: in blocks.
    Blocks { framing: blocks::Framing, layout: blocks::Layout },
}

impl Format {
    /// Bytes of a mini-transaction behind its records.
    fn trailer(self) -> usize {
        match self {
            Self::Plain { trailer, .. } => trailer.size(),
            Self::Blocks { .. } => 1,
        }
    }

    /// The LSN that is so many bytes of mini-transactions behind `lsn`.
    fn advanced(self, lsn: Lsn, bytes: u64) -> Lsn {
        match self {
            Self::Plain { .. } => lsn.advanced(bytes),
            Self::Blocks { framing, .. } => framing.advanced(lsn, bytes),
        }
    }

    fn next(self, bytes: &[u8], at: Lsn) -> Result<Mtr<'_>, Stop> {
        match self {
            Self::Plain { laps, trailer, .. } => mtr::next_with(bytes, at, laps, trailer),
            Self::Blocks { framing, .. } => framing.next(bytes, at),
        }
    }
}

/// Where reading ended, and what was seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// LSN behind the last mini-transaction.
    pub lsn: Lsn,
    /// Why there is no further one; `None` when the caller had enough.
    pub stop: Option<Stop>,
}

/// Consecutive mini-transactions.
struct Chunk {
    format: Format,
    start: Lsn,
    bytes: Vec<u8>,
    /// Bytes of each, trailers included.
    sizes: Vec<u32>,
    /// Where records are decrypted.
    scratch: Vec<u8>,
    /// Why there is no chunk behind this one.
    stop: Option<Stop>,
}

impl LogReader {
    /// Opens the log at `path`, with the key from `keys` if it is encrypted.
    pub fn open(path: &Path, keys: &Arc<KeyStore>) -> Result<Self> {
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
        if blocks::is_blocked(&block) {
            return Self::open_blocks(file, path, &block, size, keys);
        }
        let header = LogHeader::parse(&block).map_err(damage)?;
        let checkpoint = Checkpoint::newest(&block, header.first_lsn).map_err(damage)?;

        let capacity = size.saturating_sub(HEADER_SIZE as u64);
        let first_lsn = header.first_lsn;
        let (laps, limit) = if header.creator.starts_with("Backup ") {
            (Laps::Linear, first_lsn.advanced(capacity))
        } else {
            (Laps::Circular { first_lsn, capacity }, checkpoint.lsn.advanced(capacity))
        };
        let log = Self {
            files: vec![file],
            path: path.to_owned(),
            format: Format::Plain { first_lsn, laps, trailer: header.trailer() },
            cipher: keys.log_cipher(header.encryption.as_ref())?,
            encryption: header.encryption,
            block_cipher: None,
            creator: header.creator,
            checkpoint,
            limit,
        };
        log.try_key()?;
        Ok(log)
    }

    fn open_blocks(
        file: File,
        path: &Path,
        header: &[u8],
        size: u64,
        keys: &Arc<KeyStore>,
    ) -> Result<Self> {
        let damage = |error: HeaderError| {
            Error::new(ErrorKind::Damage, format!("cannot use {}", path.display())).caused_by(error)
        };
        let mut files = vec![file];
        files.extend(redo_files::further(path, size)?);
        let newest = BlockCheckpoint::newest(header).map_err(damage)?;
        let header = BlockLogHeader::parse(header).map_err(damage)?;
        let layout = blocks::Layout::new(&newest, size, files.len()).map_err(damage)?;
        let block_cipher = match header.encrypted {
            true => Some(BlockCipher::new(keys, newest.encryption())?),
            false => None,
        };
        let log = Self {
            files,
            path: path.to_owned(),
            creator: header.creator.clone(),
            checkpoint: Checkpoint { lsn: newest.lsn, end_lsn: newest.end_lsn },
            format: Format::Blocks { framing: header.framing(), layout },
            encryption: None,
            cipher: None,
            block_cipher,
            limit: blocks::block_start(newest.lsn).advanced(layout.capacity()),
        };
        log.try_key()?;
        Ok(log)
    }

    /// Whether the key is that of the log. Nothing in a log is there to tell; but what comes out
    /// under another key is hardly ever a record.
    fn try_key(&self) -> Result<()> {
        let version = match (&self.encryption, &self.block_cipher) {
            (Some(encryption), _) => encryption.key_version,
            (None, Some(cipher)) => cipher.key_version(),
            (None, None) => return Ok(()),
        };
        let mut mtrs = 0;
        let mut wrong = false;
        let end = self.for_each(self.checkpoint.lsn, |mtr| {
            wrong = !is_sound(mtr.records);
            mtrs += 1;
            let enough = wrong || mtrs == TRIED;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        // Without its key, not even the length of a block means anything.
        let senseless = mtrs == 0 && end.stop == Some(Stop::BadLength);
        if !(wrong || senseless) {
            return Ok(());
        }
        let (id, what) = (KEY_ID, REDO_LOG.to_owned());
        Err(KeyError::Wrong { id, version, what }.needed_for(REDO_LOG))
    }

    /// Who wrote the log.
    pub fn creator(&self) -> &str {
        &self.creator
    }

    /// Whether this is the format of 10.5 to 10.7.
    pub fn is_blocked(&self) -> bool {
        matches!(self.format, Format::Blocks { .. })
    }

    /// The checkpoint that the log starts from.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Bytes from the checkpoint to the end of the file; the log may end before.
    pub fn size(&self) -> u64 {
        self.limit.bytes_since(self.checkpoint.lsn).unwrap_or(0)
    }

    /// Calls `visit` with each mini-transaction from `from` on, until it breaks or the log ends.
    pub fn for_each(
        &self,
        from: Lsn,
        mut visit: impl FnMut(Mtr<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<End> {
        let (send_full, full) = mpsc::sync_channel::<Result<Chunk>>(CHUNKS);
        let (send_empty, empty) = mpsc::channel();
        for _ in 0..CHUNKS {
            // The receiver lives: it is right here.
            let _ = send_empty.send(Chunk::new(self.format));
        }
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut lsn = from;
                let mut raw = Vec::new();
                while let Ok(mut chunk) = empty.recv() {
                    let read = self.read(lsn, &mut chunk, &mut raw);
                    lsn = chunk.end();
                    let last = read.is_err() || chunk.stop.is_some();
                    // The caller may have had enough.
                    if send_full.send(read.map(|()| chunk)).is_err() || last {
                        return;
                    }
                }
            });
            let mut end = End { lsn: from, stop: None };
            // Taken into the closure, so that leaving it ends the other thread.
            let (full, send_empty) = (full, send_empty);
            while let Ok(chunk) = full.recv() {
                let chunk = chunk?;
                for mtr in chunk.mtrs() {
                    if visit(mtr)?.is_break() {
                        return Ok(end);
                    }
                    end.lsn = mtr.end;
                }
                if chunk.stop.is_some() {
                    return Ok(End { stop: chunk.stop, ..end });
                }
                let _ = send_empty.send(chunk);
            }
            Ok(end)
        })
    }

    /// Fills `chunk` with the mini-transactions from `from` on; `raw` is a buffer for blocks.
    fn read(&self, from: Lsn, chunk: &mut Chunk, raw: &mut Vec<u8>) -> Result<()> {
        chunk.start = from;
        chunk.sizes.clear();
        chunk.stop = None;
        let trailer = self.format.trailer();
        let left = usize::try_from(self.limit.bytes_since(from).unwrap_or(0)).unwrap_or(usize::MAX);
        let mut wanted = CHUNK;
        loop {
            let mut end = self.fill(from, wanted.min(left), &mut chunk.bytes, raw)?;
            let (mut at, mut rest) = (from, chunk.bytes.as_slice());
            let stop = loop {
                match self.format.next(rest, at) {
                    Ok(mtr) => {
                        let size = mtr.records.len() + trailer;
                        chunk.sizes.push(size as u32);
                        at = mtr.end;
                        rest = rest.get(size..).unwrap_or_default();
                    }
                    // The bytes end where blocks do, or with the piece that was wanted.
                    Err(Stop::NeedMore) => break end.take(),
                    Err(stop) => break Some(stop),
                }
            };
            if let Some(stop) = stop {
                chunk.stop = Some(stop);
                return self.decrypt(chunk);
            }
            if wanted >= left {
                chunk.stop = Some(Stop::NeedMore);
                return self.decrypt(chunk);
            }
            if !chunk.sizes.is_empty() {
                return self.decrypt(chunk);
            }
            // Not even one: it is larger than a chunk.
            wanted = MTR_MAX.max(wanted + CHUNK);
        }
    }

    /// Decrypts the mini-transactions of `chunk`, if the log is encrypted.
    fn decrypt(&self, chunk: &mut Chunk) -> Result<()> {
        let Some(cipher) = &self.cipher else { return Ok(()) };
        let mut start = 0;
        for &size in &chunk.sizes {
            let end = start + size as usize;
            let mtr = chunk.bytes.get_mut(start..end).unwrap_or_default();
            let length = mtr.len().saturating_sub(self.format.trailer());
            let nonce = mtr::nonce(mtr, length).unwrap_or_default();
            let records = mtr.get_mut(..length).unwrap_or_default();
            cipher.decrypt(records, nonce, &mut chunk.scratch).map_err(|error| {
                let message = format!("cannot decrypt the redo log near LSN {}", chunk.start);
                Error::new(ErrorKind::Damage, message).caused_by(error)
            })?;
            start = end;
        }
        Ok(())
    }

    /// Puts the bytes of mini-transactions from `from` on into `bytes`, `want` of the file. Tells
    /// why there are no more, unless no more were wanted.
    fn fill(
        &self,
        from: Lsn,
        want: usize,
        bytes: &mut Vec<u8>,
        raw: &mut Vec<u8>,
    ) -> Result<Option<Stop>> {
        let Format::Blocks { framing, .. } = self.format else {
            bytes.resize(want, 0);
            self.read_bytes(from, bytes)?;
            return Ok(None);
        };
        let start = blocks::block_start(from);
        let whole = want.saturating_add(blocks::BLOCK_SIZE).next_multiple_of(blocks::BLOCK_SIZE);
        let left = self.limit.bytes_since(start).unwrap_or(0);
        raw.resize(whole.min(usize::try_from(left).unwrap_or(usize::MAX)), 0);
        self.read_bytes(start, raw)?;
        bytes.clear();
        let stop = match &self.block_cipher {
            None => framing.unwrap(raw, from, &NotEncrypted, bytes),
            Some(cipher) => {
                let stop = framing.unwrap(raw, from, cipher, bytes);
                cipher.check()?;
                stop
            }
        };
        Ok(Some(stop).filter(|stop| *stop != Stop::NeedMore))
    }

    /// Reads the bytes of `[from, from + bytes.len())`, which the files have.
    fn read_bytes(&self, from: Lsn, mut bytes: &mut [u8]) -> Result<()> {
        let mut at = from;
        while !bytes.is_empty() {
            // A circular file starts over behind its header.
            let (file, offset, left) = match self.format {
                Format::Plain { first_lsn, laps, .. } => {
                    let position = at.bytes_since(first_lsn).unwrap_or(0);
                    let (offset, left) = match laps {
                        Laps::Linear => (position, u64::MAX),
                        Laps::Circular { capacity, .. } => {
                            let offset = position % capacity.max(1);
                            (offset, capacity - offset)
                        }
                    };
                    (0, HEADER_SIZE as u64 + offset, left)
                }
                Format::Blocks { layout, .. } => {
                    let place = layout.place(at);
                    (place.file, place.offset, place.left)
                }
            };
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at_mut(here);
            if let Some(file) = self.files.get(file) {
                file.read_exact_at(now, offset).map_err(|e| Error::io("read", &self.path, e))?;
            }
            at = at.advanced(here as u64);
            bytes = later;
        }
        Ok(())
    }
}

impl Chunk {
    fn new(format: Format) -> Self {
        Self {
            format,
            start: Lsn(0),
            bytes: Vec::new(),
            sizes: Vec::new(),
            scratch: Vec::new(),
            stop: None,
        }
    }

    fn end(&self) -> Lsn {
        let bytes = self.sizes.iter().map(|&size| u64::from(size)).sum();
        self.format.advanced(self.start, bytes)
    }

    fn mtrs(&self) -> impl Iterator<Item = Mtr<'_>> {
        let (mut start, mut rest) = (self.start, self.bytes.as_slice());
        self.sizes.iter().map(move |&size| {
            let (mtr, behind) = rest.split_at_checked(size as usize).unwrap_or((rest, &[]));
            rest = behind;
            let end = self.format.advanced(start, u64::from(size));
            let size = mtr.len().saturating_sub(self.format.trailer());
            let mtr = Mtr { start, end, records: mtr.get(..size).unwrap_or_default() };
            start = end;
            mtr
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::KeySettings;
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

    fn open(path: &Path) -> Result<LogReader> {
        LogReader::open(path, &KeyStore::new(KeySettings::default()))
    }

    /// Sizes of the WRITEs from `from` on, and where reading ended.
    fn read(reader: &LogReader, from: Lsn) -> (Vec<usize>, End) {
        let mut sizes = Vec::new();
        let end = reader.for_each(from, |mtr| {
            sizes.push(mtr.records.len() - 4);
            Ok(ControlFlow::Continue(()))
        });
        (sizes, end.unwrap())
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
        let reader = open(file.path()).unwrap();
        let (sizes, end) = read(&reader, FIRST);
        assert_eq!(sizes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(end.lsn, FIRST.advanced(payload.len() as u64));
        assert_eq!(read(&reader, starts[6]), (vec![7, 8, 9], end));
    }

    #[test]
    fn mini_transactions_cross_chunks_and_may_be_larger_than_one() {
        let mut payload = Vec::new();
        let mut expected = Vec::new();
        // Records of 200 to 16 000 bytes; some mini-transactions have enough of them to be large.
        for number in 0..60usize {
            let size = 200 + number * 263;
            let mut records = Vec::new();
            for _ in 0..if number % 20 == 9 { 50 } else { 3 } {
                records.push(0x30);
                // The length counts from 16 on, in two bytes: see the grammar of records.
                records.extend((0x8000 | (size - 128) as u16).to_be_bytes());
                records.extend([1, 1, 40]);
                records.resize(records.len() + size + 16 - 6, number as u8);
            }
            expected.push(records.len());
            let crc = crc32c(&records);
            payload.extend(records);
            payload.push(1);
            payload.extend(crc.to_be_bytes());
        }
        assert!(expected.iter().any(|&size| size > CHUNK));
        let file = log("Backup 10.11.19", &payload);
        let reader = open(file.path()).unwrap();
        let (mut found, mut at) = (Vec::new(), FIRST);
        let end = reader.for_each(FIRST, |mtr| {
            assert_eq!(mtr.start, at);
            at = mtr.end;
            found.push(mtr.records.len());
            Ok(ControlFlow::Continue(()))
        });
        assert_eq!(found, expected);
        assert_eq!(end.unwrap().lsn, FIRST.advanced(payload.len() as u64));
    }

    #[test]
    fn who_had_enough_stops_the_reader() {
        let payload: Vec<u8> = (0..200_000).flat_map(|_| mtr(FIRST, 9, Laps::Linear)).collect();
        let file = log("Backup 10.11.19", &payload);
        let reader = open(file.path()).unwrap();
        let mut seen = 0;
        let end = reader.for_each(FIRST, |_| {
            seen += 1;
            Ok(if seen > 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        assert_eq!(end.unwrap(), End { lsn: FIRST.advanced(10 * 18), stop: None });
        let error = Error::new(ErrorKind::Damage, "enough");
        assert!(reader.for_each(FIRST, |_| Err(Error::new(error.kind(), "enough"))).is_err());
    }

    #[test]
    fn a_cut_ends_the_log_at_the_last_whole_mini_transaction() {
        let mut payload = mtr(FIRST, 5, Laps::Linear);
        let whole = payload.len() as u64;
        payload.extend(mtr(FIRST, 6, Laps::Linear));
        payload.pop();
        let file = log("Backup 10.11.19", &payload);
        let reader = open(file.path()).unwrap();
        let end = End { lsn: FIRST.advanced(whole), stop: Some(Stop::NeedMore) };
        assert_eq!(read(&reader, FIRST), (vec![5], end));
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
        let reader = open(file.path()).unwrap();
        assert_eq!(reader.checkpoint().lsn, oldest);
        let (sizes, end) = read(&reader, oldest);
        assert_eq!((sizes, end.lsn), (vec![7; whole], at));
    }
}
