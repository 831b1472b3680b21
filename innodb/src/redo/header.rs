//! Header and checkpoint blocks of `ib_logfile0`, and the headers that a backup writes.
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 4 | format |
//! | 4 | 4 | zero |
//! | 8 | 8 | first LSN: the LSN of the first byte behind the header |
//! | 16 | 32 | creator, NUL padded |
//! | 48 | 4 | encryption key id, 0 = not encrypted; the rest only in encrypted logs |
//! | 52 | 4 | version of the key |
//! | 56 | 16 | message that the log's own key is derived with |
//! | 72 | 4 | nonce, not used |
//! | 508 | 4 | CRC-32C of the 508 bytes before |
//! | 4096, 8192 | 64 | checkpoint: its LSN, end LSN, 44 zero bytes, CRC-32C |
//! | 12288 | | mini-transactions |

use super::mtr::Trailer;
use crate::Lsn;
use crate::bytes::{put, u32_at, u64_at};
use crate::crypt::redo::LogScheme;
use crate::crypt::{self, CipherMode, DerivedKey, Key};
use crate::page::crc32c;

/// Bytes before the first mini-transaction.
pub const HEADER_SIZE: usize = 12288;
/// Where the two checkpoint blocks are.
pub const CHECKPOINT_OFFSETS: [usize; 2] = [4096, 8192];
/// Bytes of a checkpoint block that mean something.
pub const CHECKPOINT_SIZE: usize = 64;
/// Smallest LSN that a log can have.
pub const FIRST_LSN_MIN: Lsn = Lsn(12288);

const FORMAT: usize = 0;
const SUBFORMAT: usize = 4;
const FIRST_LSN: usize = 8;
const CREATOR: usize = 16;
const CREATOR_SIZE: usize = 32;
const KEY_ID: usize = 48;
const KEY_VERSION: usize = 52;
const MESSAGE: usize = 56;
const NONCE: usize = 72;
const HEADER_CRC: usize = 508;

const CHECKPOINT_LSN: usize = 0;
const CHECKPOINT_END_LSN: usize = 8;
const CHECKPOINT_ZERO: usize = 16;
const CHECKPOINT_CRC: usize = 60;

const FORMAT_10_8: u32 = 0x5068_7973;
const FORMAT_ENC_11: u32 = 0xf09f_979d;
const FORMAT_10_5: u32 = 0x5048_5953;
const FORMAT_ENC_10_5: u32 = 0xd048_5953;

/// Why a header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("the redo log is only {have} bytes long, its header alone needs {HEADER_SIZE}")]
    Short {
        /// Bytes there are.
        have: usize,
    },
    /// The checksum of the header block is wrong.
    #[error(
        "the redo log header is damaged: CRC-32C is {stored:08x}, the bytes give {computed:08x}"
    )]
    Crc {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// A format that is known but not handled.
    #[error("the redo log is in the format of {0}, which is not supported yet")]
    Unsupported(&'static str),
    /// Not a redo log of any known version.
    #[error("format {0:08x} is not that of a redo log")]
    Unknown(u32),
    /// A field has a value that no server writes.
    #[error("the redo log header is damaged: {0}")]
    Invalid(&'static str),
    /// Neither checkpoint block is valid.
    #[error("the redo log has no valid checkpoint block")]
    NoCheckpoint,
}

/// A checkpoint block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every change before this LSN is in the data files.
    pub lsn: Lsn,
    /// Start of the mini-transactions that name all dirty tablespaces and end with the checkpoint's own record.
    pub end_lsn: Lsn,
}

/// A valid header of the 10.8 format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// LSN of the first byte behind the header.
    pub first_lsn: Lsn,
    /// Who wrote it, such as `MariaDB 10.11.19` or `Backup 10.11.19`.
    pub creator: String,
    /// How it is encrypted, if it is.
    pub encryption: Option<LogEncryption>,
}

/// What the header of an encrypted log says about the encryption: all but the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEncryption {
    /// Version of the key with the id [`crypt::redo::KEY_ID`].
    pub key_version: u32,
    /// What the log's own key is derived with.
    pub message: [u8; 16],
    /// Copied with the rest; means nothing.
    pub nonce: u32,
    /// What of the log is encrypted.
    pub scheme: LogScheme,
}

impl LogEncryption {
    /// What deciphers the log, given the key it asks for.
    pub fn cipher(&self, key: &Key, mode: CipherMode) -> crypt::redo::LogCipher {
        let key = DerivedKey::new(key, &self.message, mode);
        crypt::redo::LogCipher { key, scheme: self.scheme }
    }

    fn parse(block: &[u8], scheme: LogScheme) -> Result<Self, HeaderError> {
        let short = || HeaderError::Short { have: block.len() };
        if u32_at(block, KEY_ID) != Some(crypt::redo::KEY_ID) {
            return Err(HeaderError::Invalid("an encrypted log with another key id than 1"));
        }
        let message = block.get(MESSAGE..).and_then(|message| message.first_chunk());
        Ok(Self {
            key_version: u32_at(block, KEY_VERSION).ok_or_else(short)?,
            message: *message.ok_or_else(short)?,
            nonce: u32_at(block, NONCE).ok_or_else(short)?,
            scheme,
        })
    }
}

impl LogHeader {
    /// Reads the first block of a log; at least 512 bytes are needed.
    pub fn parse(block: &[u8]) -> Result<Self, HeaderError> {
        let short = HeaderError::Short { have: block.len() };
        let block = block.get(..512).ok_or_else(|| short.clone())?;
        let format = u32_at(block, FORMAT).ok_or_else(|| short.clone())?;
        match format {
            FORMAT_10_8 | FORMAT_ENC_11 => {}
            FORMAT_10_5 => return Err(HeaderError::Unsupported("MariaDB 10.5 to 10.7")),
            FORMAT_ENC_10_5 => {
                return Err(HeaderError::Unsupported("MariaDB 10.5 to 10.7, encrypted"));
            }
            0 | 1 | 103 | 104 | 0x8000_0001 | 0x8000_0067 | 0x8000_0068 => {
                return Err(HeaderError::Unsupported("MariaDB 10.4 or older"));
            }
            other => return Err(HeaderError::Unknown(other)),
        }
        let stored = u32_at(block, HEADER_CRC).ok_or_else(|| short.clone())?;
        let computed = crc32c(block.get(..HEADER_CRC).unwrap_or_default());
        if stored != computed {
            return Err(HeaderError::Crc { stored, computed });
        }
        let encryption = match (format, u32_at(block, KEY_ID)) {
            (FORMAT_ENC_11, _) => Some(LogEncryption::parse(block, LogScheme::Together)?),
            (_, Some(0)) => None,
            // The older of the two has no format number of its own.
            _ => Some(LogEncryption::parse(block, LogScheme::EachChange)?),
        };
        if u32_at(block, SUBFORMAT) != Some(0) {
            return Err(HeaderError::Invalid("the bytes behind the format are not zero"));
        }
        let first_lsn = Lsn(u64_at(block, FIRST_LSN).ok_or(short)?);
        if first_lsn < FIRST_LSN_MIN {
            return Err(HeaderError::Invalid("the first LSN is smaller than any log's"));
        }
        let creator = block.get(CREATOR..CREATOR + CREATOR_SIZE).unwrap_or_default();
        let creator = creator.split(|&b| b == 0).next().unwrap_or_default();
        let creator = String::from_utf8_lossy(creator).into_owned();
        Ok(Self { first_lsn, creator, encryption })
    }

    /// What stands behind the records of each mini-transaction.
    pub fn trailer(&self) -> Trailer {
        if self.encryption.is_some() { Trailer::Nonce } else { Trailer::Plain }
    }

    /// The header block and checkpoint block of a backup's log: [`HEADER_SIZE`] bytes.
    ///
    /// The first LSN is the checkpoint's. A creator that starts with `Backup ` makes the server
    /// drop leftover intermediate tables at its first start.
    pub fn backup(creator: &str, checkpoint: Checkpoint) -> Vec<u8> {
        Self::encrypted_backup(creator, checkpoint, None)
    }

    /// The same for the log of a server that encrypts it.
    pub fn encrypted_backup(
        creator: &str,
        checkpoint: Checkpoint,
        encryption: Option<&LogEncryption>,
    ) -> Vec<u8> {
        let mut out = vec![0; HEADER_SIZE];
        let mut write = |offset, bytes: &[u8]| {
            // All offsets are constants below HEADER_SIZE.
            let _ = put(&mut out, offset, bytes);
        };
        let together = encryption.is_some_and(|it| it.scheme == LogScheme::Together);
        let format = if together { FORMAT_ENC_11 } else { FORMAT_10_8 };
        write(FORMAT, &format.to_be_bytes());
        if let Some(encryption) = encryption {
            write(KEY_ID, &crypt::redo::KEY_ID.to_be_bytes());
            write(KEY_VERSION, &encryption.key_version.to_be_bytes());
            write(MESSAGE, &encryption.message);
            write(NONCE, &encryption.nonce.to_be_bytes());
        }
        write(FIRST_LSN, &checkpoint.lsn.0.to_be_bytes());
        let creator = creator.as_bytes();
        write(CREATOR, creator.get(..CREATOR_SIZE).unwrap_or(creator));
        let block = CHECKPOINT_OFFSETS[0];
        write(block + CHECKPOINT_LSN, &checkpoint.lsn.0.to_be_bytes());
        write(block + CHECKPOINT_END_LSN, &checkpoint.end_lsn.0.to_be_bytes());
        for (start, size) in [(0, HEADER_CRC), (block, CHECKPOINT_CRC)] {
            let crc = crc32c(out.get(start..start + size).unwrap_or_default());
            let _ = put(&mut out, start + size, &crc.to_be_bytes());
        }
        out
    }
}

impl Checkpoint {
    /// Reads one checkpoint block; `None` when it is torn, stale or unused.
    pub fn parse(block: &[u8], first_lsn: Lsn) -> Option<Self> {
        let lsn = Lsn(u64_at(block, CHECKPOINT_LSN)?);
        let end_lsn = Lsn(u64_at(block, CHECKPOINT_END_LSN)?);
        let zero = block.get(CHECKPOINT_ZERO..CHECKPOINT_CRC)?.iter().all(|&b| b == 0);
        let crc = crc32c(block.get(..CHECKPOINT_CRC)?);
        let valid = zero
            && lsn >= first_lsn
            && end_lsn >= lsn
            && u32_at(block, CHECKPOINT_CRC) == Some(crc);
        valid.then_some(Self { lsn, end_lsn })
    }

    /// The newest valid checkpoint of a whole header of [`HEADER_SIZE`] bytes.
    pub fn newest(header: &[u8], first_lsn: Lsn) -> Result<Self, HeaderError> {
        let parse =
            |offset: usize| Self::parse(header.get(offset..offset + CHECKPOINT_SIZE)?, first_lsn);
        // On equality the second block wins, as in the server; `max_by_key` returns the last maximum.
        CHECKPOINT_OFFSETS
            .into_iter()
            .filter_map(parse)
            .max_by_key(|c| c.lsn)
            .ok_or(HeaderError::NoCheckpoint)
    }
}

/// The log of a prepared backup: it holds nothing but the LSN at which it ends, `end`.
///
/// One mini-transaction with the checkpoint's own record fills the last 16 bytes before `end`, so
/// that no page is newer than the log.
pub fn prepared_log(creator: &str, end: Lsn) -> Vec<u8> {
    let start = Lsn(end.0.saturating_sub(16));
    let mut out = LogHeader::backup(creator, Checkpoint { lsn: start, end_lsn: start });
    let mut record = vec![0xfa, 0, 0];
    record.extend(start.0.to_be_bytes());
    let crc = crc32c(&record);
    out.extend(record);
    out.push(1);
    out.extend(crc.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CHECKPOINT: Checkpoint = Checkpoint { lsn: Lsn(50_000), end_lsn: Lsn(50_100) };

    #[test]
    fn a_written_header_reads_back() {
        let bytes = LogHeader::backup("Backup 10.11.19", CHECKPOINT);
        let header = LogHeader::parse(&bytes).unwrap();
        assert_eq!(
            header,
            LogHeader {
                first_lsn: CHECKPOINT.lsn,
                creator: "Backup 10.11.19".into(),
                encryption: None
            }
        );
        assert_eq!(Checkpoint::newest(&bytes, header.first_lsn), Ok(CHECKPOINT));
    }

    #[test]
    fn headers_of_encrypted_logs_read_back() {
        for (scheme, format) in
            [(LogScheme::Together, FORMAT_ENC_11), (LogScheme::EachChange, FORMAT_10_8)]
        {
            let encryption = LogEncryption { key_version: 3, message: [7; 16], nonce: 9, scheme };
            let bytes = LogHeader::encrypted_backup("Backup", CHECKPOINT, Some(&encryption));
            // The older way has the number of the plain format.
            assert_eq!(bytes[..4], format.to_be_bytes());
            let header = LogHeader::parse(&bytes).unwrap();
            assert_eq!(header.encryption, Some(encryption));
            assert_eq!(header.trailer(), Trailer::Nonce);
        }
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_noticed() {
        let bytes = LogHeader::backup("Backup 10.11.19", CHECKPOINT);
        for bit in 0..512 * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(LogHeader::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_the_checkpoint_is_noticed() {
        let bytes = LogHeader::backup("x", CHECKPOINT);
        for bit in 4096 * 8..(4096 + 64) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Checkpoint::newest(&damaged, CHECKPOINT.lsn),
                Err(HeaderError::NoCheckpoint),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn the_newer_checkpoint_wins() {
        let mut bytes = LogHeader::backup("x", CHECKPOINT);
        let newer = LogHeader::backup("x", Checkpoint { lsn: Lsn(60_000), end_lsn: Lsn(60_000) });
        bytes.copy_within(4096..4160, 8192);
        bytes[4096..4160].copy_from_slice(&newer[4096..4160]);
        assert_eq!(Checkpoint::newest(&bytes, CHECKPOINT.lsn).unwrap().lsn, Lsn(60_000));
    }

    #[test]
    fn other_generations_are_refused_by_name() {
        let with_format = |format: u32| {
            let mut bytes = LogHeader::backup("x", CHECKPOINT);
            bytes[..4].copy_from_slice(&format.to_be_bytes());
            let crc = crc32c(&bytes[..508]);
            bytes[508..512].copy_from_slice(&crc.to_be_bytes());
            LogHeader::parse(&bytes).unwrap_err().to_string()
        };
        assert!(with_format(FORMAT_10_5).contains("10.5 to 10.7"));
        assert!(with_format(FORMAT_ENC_11).contains("key id"));
        assert!(with_format(FORMAT_ENC_10_5).contains("encrypted"));
        assert!(with_format(104).contains("10.4 or older"));
        assert!(with_format(0x1234_5678).contains("12345678"));
    }

    #[test]
    fn a_prepared_log_is_the_checkpoint_and_nothing_else() {
        let log = prepared_log("Backup 10.11.19", Lsn(12288 + 16));
        assert_eq!(log.len(), 12304);
        // The first mini-transaction of a new server's log is the same, with this CRC.
        assert_eq!(&log[12288..], b"\xfa\0\0\0\0\0\0\0\0\x30\0\x01\x1f\xec\x1a\x80");
    }
}
