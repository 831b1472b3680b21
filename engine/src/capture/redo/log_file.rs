//! The server's `ib_logfile0`, read by LSN.
//!
//! The file is circular: an LSN's place follows from the header's first LSN and the file size. A
//! resize replaces the file by another with the same name; whoever reads must look for that.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use innodb::Lsn;
use innodb::redo::header::{CHECKPOINT_OFFSETS, CHECKPOINT_SIZE, HEADER_SIZE, LogEncryption};
use innodb::redo::mtr::Trailer;
use innodb::redo::{Checkpoint, Laps, LogHeader};

use crate::io::read_ahead::read_at;
use crate::{Error, ErrorKind, Result};

/// A header that is being rewritten is read again this often.
const HEADER_TRIES: u32 = 20;

/// An open redo log.
pub struct LogFile {
    file: File,
    path: PathBuf,
    identity: (u64, u64),
    header: LogHeader,
    capacity: u64,
}

impl LogFile {
    /// Opens the log and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("open the redo log", path, error))?;
        let metadata =
            file.metadata().map_err(|error| Error::io("read the size of", path, error))?;
        let mut block = [0; 512];
        let mut tries = 0;
        let header = loop {
            let read =
                read_at(&file, &mut block, 0).map_err(|error| Error::io("read", path, error))?;
            match LogHeader::parse(block.get(..read).unwrap_or_default()) {
                Ok(header) => break header,
                Err(_) if tries < HEADER_TRIES => {
                    tries += 1;
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Err(error) => {
                    let kind = ErrorKind::Damage;
                    return Err(
                        Error::new(kind, format!("cannot use {}", path.display())).caused_by(error)
                    );
                }
            }
        };
        let capacity = metadata.len().saturating_sub(HEADER_SIZE as u64);
        if capacity == 0 {
            return Err(Error::new(ErrorKind::Damage, format!("{} holds no log", path.display())));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            header,
            capacity,
        })
    }

    /// LSN of the first byte behind the header: nothing before it can be read.
    pub fn first_lsn(&self) -> Lsn {
        self.header.first_lsn
    }

    /// How it is encrypted, if it is.
    pub fn encryption(&self) -> Option<&LogEncryption> {
        self.header.encryption.as_ref()
    }

    /// What stands behind the records of each mini-transaction.
    pub fn trailer(&self) -> Trailer {
        self.header.trailer()
    }

    /// Bytes of log that the file can hold.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How the sequence byte follows from the LSN in this file.
    pub fn laps(&self) -> Laps {
        Laps::Circular { first_lsn: self.first_lsn(), capacity: self.capacity }
    }

    /// The newest checkpoint. The server may be writing one block, never both.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let mut header = vec![0; CHECKPOINT_OFFSETS[1] + CHECKPOINT_SIZE];
        let mut tries = 0;
        loop {
            // Both blocks, and nothing between, are of interest.
            for offset in CHECKPOINT_OFFSETS {
                let block = header.get_mut(offset..offset + CHECKPOINT_SIZE).unwrap_or_default();
                read_at(&self.file, block, offset as u64)
                    .map_err(|error| Error::io("read a checkpoint of", &self.path, error))?;
            }
            match Checkpoint::newest(&header, self.first_lsn()) {
                Ok(checkpoint) => return Ok(checkpoint),
                Err(_) if tries < HEADER_TRIES => {
                    tries += 1;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Err(error) => {
                    let message = format!("cannot use {}", self.path.display());
                    return Err(Error::new(ErrorKind::Damage, message).caused_by(error));
                }
            }
        }
    }

    /// Reads the bytes that are in the place of `at` and behind it, at most one lap; whether they
    /// are those of this lap, the caller finds out. Returns how many were read.
    pub fn read(&self, at: Lsn, buffer: &mut [u8]) -> io::Result<usize> {
        let start = at.bytes_since(self.first_lsn()).unwrap_or(0) % self.capacity;
        let want = (buffer.len() as u64).min(self.capacity);
        let before_end = want.min(self.capacity - start) as usize;
        let (head, tail) = buffer.split_at_mut(before_end);
        let mut read = read_at(&self.file, head, HEADER_SIZE as u64 + start)?;
        if read == before_end {
            let rest = tail.get_mut(..want as usize - before_end).unwrap_or_default();
            read += read_at(&self.file, rest, HEADER_SIZE as u64)?;
        }
        Ok(read)
    }

    /// Whether another file has taken this one's name: the log was resized.
    pub fn is_replaced(&self) -> Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok((metadata.dev(), metadata.ino()) != self.identity),
            // Between two renames there may be none for a moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look at", &self.path, error)),
        }
    }
}
