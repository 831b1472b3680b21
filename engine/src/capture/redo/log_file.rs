//! The server's `ib_logfile0`, read by LSN.
//!
//! The file is circular: an LSN's place follows from the file size and a first LSN or a checkpoint.
//! A resize replaces the file by another with the same name; whoever reads must look for that.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use innodb::Lsn;
use innodb::redo::blocks::{self, BlockCheckpoint, BlockEncryption, BlockLogHeader};
use innodb::redo::header::{
    CHECKPOINT_OFFSETS, CHECKPOINT_SIZE, HEADER_SIZE, HeaderError, LogEncryption,
};
use innodb::redo::mtr::Trailer;
use innodb::redo::{Checkpoint, Laps, LogHeader};

use crate::io::read_ahead::read_at;
use crate::redo_files;
use crate::server::profile::ServerVersion;
use crate::{Error, ErrorKind, Result};

/// A header that is being rewritten is read again this often.
const HEADER_TRIES: u32 = 20;

/// An open redo log.
pub struct LogFile {
    /// One; several only in the format with blocks.
    files: Vec<File>,
    path: PathBuf,
    identity: (u64, u64),
    format: Format,
}

/// How mini-transactions are in the file.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// Since 10.8: one behind the other.
    Plain {
        /// LSN of the first byte behind the header.
        first_lsn: Lsn,
        /// File size less the header.
        capacity: u64,
        /// How it is encrypted, if it is.
        encryption: Option<LogEncryption>,
        /// What stands behind the records of each mini-transaction.
        trailer: Trailer,
    },
    /// Until 10.7: in blocks.
    Blocks {
        /// What a block has besides payload.
        framing: blocks::Framing,
        /// Where each block is.
        layout: blocks::Layout,
        /// How blocks are encrypted, if they are.
        encryption: Option<BlockEncryption>,
    },
}

impl Format {
    fn parse(header: &[u8], size: u64, files: usize) -> Result<Self, HeaderError> {
        if !blocks::is_blocked(header) {
            let header = LogHeader::parse(header)?;
            return Ok(Self::Plain {
                first_lsn: header.first_lsn,
                capacity: size.saturating_sub(HEADER_SIZE as u64),
                encryption: header.encryption,
                trailer: header.trailer(),
            });
        }
        let parsed = BlockLogHeader::parse(header)?;
        let checkpoint = BlockCheckpoint::newest(header)?;
        let layout = blocks::Layout::new(&checkpoint, size, files)?;
        let encryption = parsed.encrypted.then(|| checkpoint.encryption());
        Ok(Self::Blocks { framing: parsed.framing(), layout, encryption })
    }

    fn capacity(&self) -> u64 {
        match self {
            Self::Plain { capacity, .. } => *capacity,
            Self::Blocks { layout, .. } => layout.capacity(),
        }
    }
}

/// Calls `read` until it finds something valid: the server may be writing the block right now.
fn patiently<T>(
    path: &Path,
    pause: Duration,
    mut read: impl FnMut() -> Result<Result<T, HeaderError>>,
) -> Result<T> {
    let mut tries = 0;
    loop {
        match read()? {
            Ok(found) => return Ok(found),
            Err(_) if tries < HEADER_TRIES => {
                tries += 1;
                std::thread::sleep(pause);
            }
            Err(error) => {
                let message = format!("cannot use {}", path.display());
                return Err(Error::new(ErrorKind::Damage, message).caused_by(error));
            }
        }
    }
}

impl LogFile {
    /// Opens the log and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if redo_files::archive_instead_of(path) => {
                redo_files::archived()
            }
            _ => Error::io("open the redo log", path, error),
        })?;
        let metadata =
            file.metadata().map_err(|error| Error::io("read the size of", path, error))?;
        let mut files = vec![file];
        let mut header = vec![0; HEADER_SIZE];
        let format = patiently(path, Duration::from_millis(10), || {
            let read = files.first().map_or(Ok(0), |file| read_at(file, &mut header, 0));
            let read = read.map_err(|error| Error::io("read", path, error))?;
            let header = header.get(..read).unwrap_or_default();
            if blocks::is_blocked(header) && files.len() == 1 {
                files.extend(redo_files::further(path, metadata.len())?);
            }
            Ok(Format::parse(header, metadata.len(), files.len()))
        })?;
        if format.capacity() == 0 {
            return Err(Error::new(ErrorKind::Damage, format!("{} holds no log", path.display())));
        }
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { files, path: path.to_owned(), identity, format })
    }

    /// How mini-transactions are in the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// How the sequence byte follows from the LSN in this file. For the format without blocks.
    pub fn laps(&self) -> Laps {
        match self.format {
            Format::Plain { first_lsn, capacity, .. } => Laps::Circular { first_lsn, capacity },
            Format::Blocks { .. } => Laps::Linear,
        }
    }

    /// How it is encrypted, if it is.
    pub fn encryption(&self) -> Option<LogEncryption> {
        match self.format {
            Format::Plain { encryption, .. } => encryption,
            Format::Blocks { .. } => None,
        }
    }

    /// LSN before which nothing can be read in this file, where the header says so.
    pub fn first_lsn(&self) -> Option<Lsn> {
        match self.format {
            Format::Plain { first_lsn, .. } => Some(first_lsn),
            Format::Blocks { .. } => None,
        }
    }

    /// Bytes of log that the file can hold.
    pub fn capacity(&self) -> u64 {
        self.format.capacity()
    }

    /// Where to read from to get at `lsn`.
    pub fn unit_start(&self, lsn: Lsn) -> Lsn {
        match self.format {
            Format::Plain { .. } => lsn,
            Format::Blocks { .. } => blocks::block_start(lsn),
        }
    }

    /// The newest checkpoint.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        match self.format {
            Format::Plain { first_lsn, .. } => {
                patiently(&self.path, Duration::from_millis(1), || {
                    let slots = CHECKPOINT_OFFSETS.map(|offset| (offset, CHECKPOINT_SIZE));
                    Ok(Checkpoint::newest(&self.header(&slots)?, first_lsn))
                })
            }
            Format::Blocks { .. } => self
                .block_checkpoint()
                .map(|checkpoint| Checkpoint { lsn: checkpoint.lsn, end_lsn: checkpoint.end_lsn }),
        }
    }

    fn block_checkpoint(&self) -> Result<BlockCheckpoint> {
        patiently(&self.path, Duration::from_millis(1), || {
            let slots = blocks::CHECKPOINT_OFFSETS.map(|offset| (offset, blocks::BLOCK_SIZE));
            Ok(BlockCheckpoint::newest(&self.header(&slots)?))
        })
    }

    /// These parts of the header, and zeros between.
    fn header(&self, parts: &[(usize, usize)]) -> Result<Vec<u8>> {
        let mut header = vec![0; HEADER_SIZE];
        for (offset, size) in parts {
            let part = header.get_mut(*offset..offset + size).unwrap_or_default();
            if let Some(file) = self.files.first() {
                read_at(file, part, *offset as u64)
                    .map_err(|error| Error::io("read the header of", &self.path, error))?;
            }
        }
        Ok(header)
    }

    /// The newest checkpoint, and the header of a copy that starts there.
    pub fn start(&self, version: ServerVersion) -> Result<(Checkpoint, Vec<u8>)> {
        if let Format::Plain { encryption, .. } = self.format {
            let (checkpoint, creator) = (self.checkpoint()?, format!("Backup {version}"));
            let header = LogHeader::encrypted_backup(&creator, checkpoint, encryption.as_ref());
            return Ok((checkpoint, header));
        }
        let from = self.block_checkpoint()?;
        let header = BlockLogHeader::parse(&self.header(&[(0, blocks::BLOCK_SIZE)])?);
        let header = header.map_err(|error| {
            let message = format!("cannot use {}", self.path.display());
            Error::new(ErrorKind::Damage, message).caused_by(error)
        })?;
        let checkpoint = Checkpoint { lsn: from.lsn, end_lsn: from.end_lsn };
        Ok((checkpoint, header.backup(&format!("Backup {version}-MariaDB"), &from)))
    }

    /// Reads the bytes that are in the place of `at` and behind it, at most one lap; whether they
    /// are those of this lap, the caller finds out. Returns how many were read.
    pub fn read(&self, at: Lsn, buffer: &mut [u8]) -> io::Result<usize> {
        let want = (buffer.len() as u64).min(self.capacity()) as usize;
        let mut done = 0;
        while done < want {
            let (file, offset, left) = self.place(at.advanced(done as u64));
            let Some(file) = self.files.get(file) else { break };
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(want - done);
            let read =
                read_at(file, buffer.get_mut(done..done + here).unwrap_or_default(), offset)?;
            done += read;
            if read < here {
                break;
            }
        }
        Ok(done)
    }

    /// File, offset in it, and bytes from there to its end.
    fn place(&self, lsn: Lsn) -> (usize, u64, u64) {
        match self.format {
            Format::Plain { first_lsn, capacity, .. } => {
                let start = lsn.bytes_since(first_lsn).unwrap_or(0) % capacity;
                (0, HEADER_SIZE as u64 + start, capacity - start)
            }
            Format::Blocks { layout, .. } => {
                let place = layout.place(lsn);
                (place.file, place.offset, place.left)
            }
        }
    }

    /// What a missing file means: between two renames there may be none for a moment. It stays away
    /// when the server begins to archive its log.
    fn is_gone(&self) -> Result<bool> {
        for _ in 0..HEADER_TRIES {
            if self.path.exists() || !redo_files::archive_instead_of(&self.path) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(redo_files::archived())
    }

    /// Whether another file has taken this one's name: the log was resized.
    pub fn is_replaced(&self) -> Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok((metadata.dev(), metadata.ino()) != self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.is_gone(),
            Err(error) => Err(Error::io("look at", &self.path, error)),
        }
    }
}
