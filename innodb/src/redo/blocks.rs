//! The redo log of MariaDB 10.5 to 10.7: mini-transactions cut into blocks of 512 bytes.
//!
//! | offset | length | field of the header |
//! |---|---|---|
//! | 0 | 4 | format |
//! | 4 | 4 | 2 |
//! | 8 | 8 | first LSN, for information only |
//! | 16 | 32 | creator, NUL padded |
//! | 508 | 4 | CRC-32C of the 508 bytes before |
//! | 512, 1536 | 512 | checkpoint |
//! | 2048 | | blocks |
//!
//! | offset | length | field of a checkpoint |
//! |---|---|---|
//! | 0 | 8 | its number; the larger one is valid |
//! | 8 | 8 | LSN |
//! | 16 | 8 | offset of that LSN in the file |
//! | 32 | 24 | encryption: key version, nonce, message |
//! | 496 | 8 | LSN of the mini-transactions that name all dirty tablespaces; 0 = not known |
//! | 508 | 4 | CRC-32C of the 508 bytes before |
//!
//! | offset | length | field of a block |
//! |---|---|---|
//! | 0 | 4 | number, from the LSN; bit 31: first of a write |
//! | 4 | 2 | bytes used, this header included; 512 = full |
//! | 6 | 2 | where the first mini-transaction begins, 0 = nowhere |
//! | 8 | 4 | low half of the checkpoint number |
//! | 12 | 496 | payload; 492 in encrypted logs, whose key version follows |
//! | 508 | 4 | CRC-32C of the 508 bytes before, as stored |
//!
//! LSNs count the headers and trailers of blocks too. The payloads in their order are
//! mini-transactions of the same records as in later formats, each ended by a zero byte; further
//! zero bytes are padding. A mini-transaction has no checksum, its blocks do. The log ends with
//! the first block that is not full, or is not the block that its place asks for.

use super::header::HeaderError;
use super::mtr::{Mtr, Stop, records_size};
use crate::Lsn;
use crate::bytes::{put, u16_at, u32_at, u64_at};
use crate::page::crc32c;

/// Bytes of a block, of the header block, and of a checkpoint.
pub const BLOCK_SIZE: usize = 512;
/// Bytes before the first block.
pub const HEADER_SIZE: usize = 2048;
/// Where the two checkpoints are.
pub const CHECKPOINT_OFFSETS: [usize; 2] = [512, 1536];

const FORMAT: usize = 0;
const FORMAT_PLAIN: u32 = 0x5048_5953;
const FORMAT_ENCRYPTED: u32 = 0xd048_5953;
const SUBFORMAT: usize = 4;
const SUBFORMAT_VALUE: u32 = 2;
const FIRST_LSN: usize = 8;
const CREATOR: usize = 16;
const CREATOR_SIZE: usize = 32;
/// In the header, in checkpoints and in blocks.
const CRC: usize = 508;

mod checkpoint {
    pub const NUMBER: usize = 0;
    pub const LSN: usize = 8;
    pub const OFFSET: usize = 16;
    pub const KEY_VERSION: usize = 32;
    pub const NONCE: usize = 36;
    pub const MESSAGE: usize = 40;
    pub const END_LSN: usize = 496;
}

mod block {
    pub const NUMBER: usize = 0;
    pub const DATA_LENGTH: usize = 4;
    pub const FIRST_MTR: usize = 6;
    pub const PAYLOAD: usize = 12;
    pub const TRAILER: usize = 508;
    pub const TRAILER_ENCRYPTED: usize = 504;
    pub const NUMBER_MASK: u32 = 0x3fff_ffff;
    pub const FIRST_OF_WRITE: u32 = 0x8000_0000;
}

/// Whether the first bytes of a log are of this format.
pub fn is_blocked(header: &[u8]) -> bool {
    matches!(u32_at(header, FORMAT), Some(FORMAT_PLAIN | FORMAT_ENCRYPTED))
}

/// A valid header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLogHeader {
    /// Who wrote it, such as `MariaDB 10.5.23` or `Backup 10.5.23-MariaDB`.
    pub creator: String,
    /// Whether the payloads of blocks are encrypted.
    pub encrypted: bool,
}

impl BlockLogHeader {
    /// Reads the first block of a log.
    pub fn parse(header: &[u8]) -> Result<Self, HeaderError> {
        let short = HeaderError::Short { have: header.len() };
        let header = header.get(..BLOCK_SIZE).ok_or_else(|| short.clone())?;
        let format = u32_at(header, FORMAT).ok_or_else(|| short.clone())?;
        if !is_blocked(header) {
            return Err(HeaderError::Unknown(format));
        }
        let stored = u32_at(header, CRC).ok_or(short)?;
        let computed = crc32c(header.get(..CRC).unwrap_or_default());
        if stored != computed {
            return Err(HeaderError::Crc { stored, computed });
        }
        if u32_at(header, SUBFORMAT) != Some(SUBFORMAT_VALUE) {
            return Err(HeaderError::Invalid("an unknown variant of the format of 10.5"));
        }
        let creator = header.get(CREATOR..CREATOR + CREATOR_SIZE).unwrap_or_default();
        let creator = creator.split(|&b| b == 0).next().unwrap_or_default();
        Ok(Self {
            creator: String::from_utf8_lossy(creator).into_owned(),
            encrypted: format == FORMAT_ENCRYPTED,
        })
    }

    /// How blocks are laid out.
    pub fn framing(&self) -> Framing {
        Framing {
            payload_end: if self.encrypted { block::TRAILER_ENCRYPTED } else { block::TRAILER },
        }
    }

    /// The header of a backup's log, [`HEADER_SIZE`] bytes; behind it belongs the block that has
    /// the checkpoint's LSN.
    pub fn backup(&self, creator: &str, from: &BlockCheckpoint) -> Vec<u8> {
        let mut out = vec![0; HEADER_SIZE];
        let format = if self.encrypted { FORMAT_ENCRYPTED } else { FORMAT_PLAIN };
        let creator = creator.as_bytes();
        let slot = CHECKPOINT_OFFSETS[0];
        let offset = HEADER_SIZE as u64 + (from.lsn.0 & (BLOCK_SIZE as u64 - 1));
        let fields: [(usize, &[u8]); 6] = [
            (FORMAT, &format.to_be_bytes()),
            (SUBFORMAT, &SUBFORMAT_VALUE.to_be_bytes()),
            (FIRST_LSN, &from.lsn.0.to_be_bytes()),
            (CREATOR, creator.get(..CREATOR_SIZE).unwrap_or(creator)),
            (slot, &from.stored),
            (slot + checkpoint::OFFSET, &offset.to_be_bytes()),
        ];
        for (at, bytes) in fields {
            // All offsets are constants below HEADER_SIZE.
            let _ = put(&mut out, at, bytes);
        }
        for start in [0, slot] {
            let crc = crc32c(out.get(start..start + CRC).unwrap_or_default());
            let _ = put(&mut out, start + CRC, &crc.to_be_bytes());
        }
        out
    }
}

/// A checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlockCheckpoint {
    /// Counts checkpoints.
    pub number: u64,
    /// Every change before this LSN is in the data files.
    pub lsn: Lsn,
    /// Start of the mini-transactions that name all dirty tablespaces, if the server knew it.
    pub end_lsn: Lsn,
    /// Where `lsn` is in the file.
    pub offset: u64,
    /// The whole block; what belongs to encryption is in it too.
    pub stored: [u8; BLOCK_SIZE],
}

/// What a checkpoint of an encrypted log says about the encryption: all but the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEncryption {
    /// Version of the key with the id [`crate::crypt::redo::KEY_ID`]; blocks may have others.
    pub key_version: u32,
    /// Part of each block's initial vector.
    pub nonce: [u8; 4],
    /// What the log's own key is derived with.
    pub message: [u8; 16],
}

impl std::fmt::Debug for BlockCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, lsn, end_lsn, offset, .. } = self;
        write!(f, "checkpoint {number} of LSN {lsn} (end {end_lsn}) at {offset}")
    }
}

impl BlockCheckpoint {
    /// How the log is encrypted, if its header says that it is.
    pub fn encryption(&self) -> BlockEncryption {
        fn field<const N: usize>(stored: &[u8], at: usize) -> [u8; N] {
            stored.get(at..).and_then(|field| field.first_chunk()).copied().unwrap_or([0; N])
        }
        BlockEncryption {
            key_version: u32::from_be_bytes(field(&self.stored, checkpoint::KEY_VERSION)),
            nonce: field(&self.stored, checkpoint::NONCE),
            message: field(&self.stored, checkpoint::MESSAGE),
        }
    }

    /// Reads one checkpoint; `None` when it is torn or unused.
    pub fn parse(slot: &[u8]) -> Option<Self> {
        let stored: [u8; BLOCK_SIZE] = *slot.first_chunk()?;
        let lsn = Lsn(u64_at(slot, checkpoint::LSN)?);
        if u32_at(slot, CRC) != Some(crc32c(slot.get(..CRC)?)) || !is_payload(lsn) {
            return None;
        }
        let end_lsn = Lsn(u64_at(slot, checkpoint::END_LSN)?);
        Some(Self {
            number: u64_at(slot, checkpoint::NUMBER)?,
            lsn,
            // The first mini-transactions to look at, if nobody says otherwise.
            end_lsn: end_lsn.max(lsn),
            offset: u64_at(slot, checkpoint::OFFSET)?,
            stored,
        })
    }

    /// The newest valid checkpoint of a header of [`HEADER_SIZE`] bytes.
    pub fn newest(header: &[u8]) -> Result<Self, HeaderError> {
        let parse = |offset: usize| Self::parse(header.get(offset..offset + BLOCK_SIZE)?);
        CHECKPOINT_OFFSETS
            .into_iter()
            .filter_map(parse)
            .max_by_key(|checkpoint| checkpoint.number)
            .ok_or(HeaderError::NoCheckpoint)
    }
}

/// Whether an LSN is in the payload of a block, not in its header or trailer.
fn is_payload(lsn: Lsn) -> bool {
    (block::PAYLOAD..block::TRAILER).contains(&offset_in_block(lsn))
}

fn offset_in_block(lsn: Lsn) -> usize {
    (lsn.0 % BLOCK_SIZE as u64) as usize
}

/// The LSN of the first byte of the block that `lsn` is in.
pub fn block_start(lsn: Lsn) -> Lsn {
    Lsn(lsn.0 - lsn.0 % BLOCK_SIZE as u64)
}

/// Which place of the files an LSN has.
///
/// Servers since 10.5.2 have one file; earlier ones could have several of the same size, each with
/// a header, that are filled one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    lsn: Lsn,
    /// Bytes before `lsn`, headers not counted.
    position: u64,
    per_file: u64,
    files: u64,
}

/// A place in the files of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the file.
    pub file: usize,
    /// Offset in it.
    pub offset: u64,
    /// Bytes up to the end of the file.
    pub left: u64,
}

impl Layout {
    /// The layout of so many files of `file_size` bytes, which `checkpoint` is in.
    pub fn new(
        checkpoint: &BlockCheckpoint,
        file_size: u64,
        files: usize,
    ) -> Result<Self, HeaderError> {
        let header = HEADER_SIZE as u64;
        let blocks = file_size.saturating_sub(header) / BLOCK_SIZE as u64;
        let per_file = blocks * BLOCK_SIZE as u64;
        if per_file == 0 {
            return Err(HeaderError::Invalid("the file is too short to hold a block"));
        }
        let (file, offset) = (checkpoint.offset / file_size, checkpoint.offset % file_size);
        let in_file = offset.checked_sub(header).filter(|offset| *offset < per_file);
        let aligned = offset % BLOCK_SIZE as u64 == checkpoint.lsn.0 % BLOCK_SIZE as u64;
        match in_file {
            Some(in_file) if file < files as u64 && aligned => Ok(Self {
                lsn: checkpoint.lsn,
                position: file * per_file + in_file,
                per_file,
                files: files as u64,
            }),
            _ => Err(HeaderError::Invalid("the checkpoint is not where it says it is")),
        }
    }

    /// Bytes of log that the files can hold.
    pub fn capacity(&self) -> u64 {
        self.per_file.saturating_mul(self.files)
    }

    /// The place of `lsn`.
    pub fn place(&self, lsn: Lsn) -> Place {
        let capacity = self.capacity();
        let ahead = match lsn.bytes_since(self.lsn) {
            Some(bytes) => bytes % capacity,
            None => capacity - self.lsn.bytes_since(lsn).unwrap_or(0) % capacity,
        };
        let position = (self.position + ahead) % capacity;
        let in_file = position % self.per_file;
        Place {
            file: (position / self.per_file) as usize,
            offset: HEADER_SIZE as u64 + in_file,
            left: self.per_file - in_file,
        }
    }
}

/// How the payload lies in blocks: what differs between plain and encrypted logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    payload_end: usize,
}

/// Makes the payload of encrypted blocks readable.
pub trait BlockDecrypter: Sync {
    /// Decrypts the block at `lsn` in place. Its checksum was good.
    fn decrypt(&self, block: &mut [u8; BLOCK_SIZE], lsn: Lsn) -> Result<(), Stop>;
}

/// For logs that are not encrypted.
#[derive(Clone, Copy, Debug)]
pub struct NotEncrypted;

impl BlockDecrypter for NotEncrypted {
    fn decrypt(&self, _block: &mut [u8; BLOCK_SIZE], _lsn: Lsn) -> Result<(), Stop> {
        Ok(())
    }
}

impl Framing {
    fn payload_size(self) -> u64 {
        (self.payload_end - block::PAYLOAD) as u64
    }

    /// Whether `lsn` is the first one with payload in its block.
    pub fn is_first(self, lsn: Lsn) -> bool {
        offset_in_block(lsn) <= block::PAYLOAD
    }

    /// The LSN that is `bytes` of payload behind `lsn`, which is in the payload of a block.
    pub fn advanced(self, lsn: Lsn, bytes: u64) -> Lsn {
        let before = (offset_in_block(lsn) as u64).saturating_sub(block::PAYLOAD as u64);
        let blocks = (bytes + before) / self.payload_size();
        lsn.advanced(bytes + blocks * (BLOCK_SIZE as u64 - self.payload_size()))
    }

    /// Appends to `payload` what the blocks in `raw` have from `from` on; the first of them is the
    /// one that `from` is in. Tells why there is no more.
    pub fn unwrap(
        self,
        raw: &[u8],
        from: Lsn,
        decrypter: &dyn BlockDecrypter,
        payload: &mut Vec<u8>,
    ) -> Stop {
        let mut lsn = block_start(from);
        let mut skip = offset_in_block(from);
        for stored in raw.as_chunks::<BLOCK_SIZE>().0 {
            if let Err(stop) = check(stored, lsn) {
                return stop;
            }
            let mut block = *stored;
            if let Err(stop) = decrypter.decrypt(&mut block, lsn) {
                return stop;
            }
            let used = usize::from(u16_at(&block, block::DATA_LENGTH).unwrap_or_default());
            if !(block::PAYLOAD..=self.payload_end).contains(&used) && used != BLOCK_SIZE {
                return Stop::BadLength;
            }
            let end = used.min(self.payload_end);
            payload.extend_from_slice(block.get(skip.max(block::PAYLOAD)..end).unwrap_or_default());
            if used < BLOCK_SIZE {
                return Stop::NoRecord;
            }
            lsn = lsn.advanced(BLOCK_SIZE as u64);
            skip = 0;
        }
        Stop::NeedMore
    }

    /// Reads the mini-transaction at the start of `payload`, which is at `start` in the log. Of
    /// padding, each byte counts as a mini-transaction without records.
    #[inline]
    pub fn next(self, payload: &[u8], start: Lsn) -> Result<Mtr<'_>, Stop> {
        let size = match payload.first() {
            None => return Err(Stop::NeedMore),
            Some(0) => 0,
            Some(_) => records_size(payload)?,
        };
        let (Some(records), Some(&0)) = (payload.get(..size), payload.get(size)) else {
            return Err(Stop::BadLength);
        };
        Ok(Mtr { start, end: self.advanced(start, size as u64 + 1), records })
    }

    /// The last block of a log that ends at `end`: `stored`, the block that `end` is in, without
    /// what it has behind `end`. Of an encrypted log, `stored` is decrypted, and so is the result:
    /// it is still to be sealed.
    pub fn last_block(self, stored: &[u8; BLOCK_SIZE], end: Lsn) -> [u8; BLOCK_SIZE] {
        let mut block = [0; BLOCK_SIZE];
        let used = offset_in_block(end).max(block::PAYLOAD);
        let _ = put(&mut block, 0, stored.get(..used).unwrap_or_default());
        let number = number(end);
        let first = u32_at(stored, block::NUMBER).unwrap_or_default() & block::FIRST_OF_WRITE;
        let _ = put(&mut block, block::NUMBER, &(first | number).to_be_bytes());
        let _ = put(&mut block, block::DATA_LENGTH, &(used as u16).to_be_bytes());
        let first_mtr = u16_at(stored, block::FIRST_MTR).unwrap_or_default();
        if usize::from(first_mtr) >= used {
            let _ = put(&mut block, block::FIRST_MTR, &[0, 0]);
        }
        let crc = crc32c(block.get(..CRC).unwrap_or_default());
        let _ = put(&mut block, CRC, &crc.to_be_bytes());
        block
    }
}

/// The number of the block that `lsn` is in.
fn number(lsn: Lsn) -> u32 {
    ((lsn.0 / BLOCK_SIZE as u64) as u32 & block::NUMBER_MASK) + 1
}

/// Whether a block is whole, and the one that its place asks for.
pub fn check(block: &[u8; BLOCK_SIZE], lsn: Lsn) -> Result<(), Stop> {
    let stored = u32_at(block, block::NUMBER).unwrap_or_default() & !block::FIRST_OF_WRITE;
    if stored != number(lsn) {
        return Err(Stop::WrongSequence);
    }
    match u32_at(block, CRC) == block.get(..CRC).map(crc32c) {
        true => Ok(()),
        false => Err(Stop::BadCrc),
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
