//! Encryption of the redo log (`innodb_encrypt_log`).
//!
//! | generation | encrypted | initial vector |
//! |---|---|---|
//! | 10.5 to 10.7 | bytes 4–503 of each block of 512 | block number, nonce of the log, LSN of the block |
//! | 10.8 and later before MDEV-36024 | of each record of a page what stands behind the page's ids, by itself; records of files not at all | nonce, page |
//! | from MDEV-36024 (10.11.18, 11.8.6) | the bodies of all records of a mini-transaction, as one | nonce, then the first byte and the length of the first record |
//!
//! Lengths are never encrypted, and checksums are of the encrypted bytes: a log can be walked,
//! checked and copied without a key. What its records say, the names of files included, takes
//! one. It is always the key with the id [`KEY_ID`], of the version that the
//! header names, from which the log's own key is derived with a message in the header.
//!
//! All numbers in these initial vectors are big-endian, unlike those of pages.

use super::DerivedKey;
use crate::Lsn;
use crate::bytes::{put, u32_at};
use crate::page::crc32c;
use crate::redo::Malformed;
use crate::redo::mtr::{NONCE_SIZE, record_head_size, record_size};
use crate::redo::record::{Record, Records};

/// The id of the key that logs are encrypted with.
pub const KEY_ID: u32 = 1;
/// Bytes of a block of the 10.5 format.
pub const BLOCK_SIZE: usize = 512;
/// What of a block is encrypted: everything between its number and its key version.
const BLOCK_START: usize = 4;
const BLOCK_END: usize = 504;
const BLOCK_CRC: usize = 508;

/// What of a mini-transaction is encrypted, in a log without blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogScheme {
    /// All bodies as one: from MDEV-36024 on.
    Together,
    /// Each change to a page by itself: before that.
    EachChange,
}

/// What deciphers one redo log without blocks.
#[derive(Clone, Debug)]
pub struct LogCipher {
    /// The log's own key.
    pub key: DerivedKey,
    /// What it is used on.
    pub scheme: LogScheme,
}

/// Which way.
#[derive(Clone, Copy)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl LogCipher {
    /// Decrypts the records of one mini-transaction in place. `scratch` is memory to reuse.
    ///
    /// # Errors
    /// When the records do not have the lengths they say, which a good checksum rules out.
    pub fn decrypt(
        &self,
        records: &mut [u8],
        nonce: [u8; NONCE_SIZE],
        scratch: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        match self.scheme {
            LogScheme::Together => self.turn(records, nonce, scratch, Direction::Decrypt),
            LogScheme::EachChange => self.turn_each(records, nonce, Direction::Decrypt),
        }
    }

    /// Encrypts the records of one mini-transaction in place, the reverse of
    /// [`decrypt`](Self::decrypt).
    ///
    /// # Errors
    /// When `records` are no records.
    pub fn encrypt(
        &self,
        records: &mut [u8],
        nonce: [u8; NONCE_SIZE],
        scratch: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        match self.scheme {
            LogScheme::Together => self.turn(records, nonce, scratch, Direction::Encrypt),
            LogScheme::EachChange => self.turn_each(records, nonce, Direction::Encrypt),
        }
    }

    /// Gathers the bodies, turns them as one, and puts them back.
    fn turn(
        &self,
        records: &mut [u8],
        nonce: [u8; NONCE_SIZE],
        scratch: &mut Vec<u8>,
        direction: Direction,
    ) -> Result<(), Malformed> {
        let mut iv = [0; 16];
        let _ = put(&mut iv, 0, &nonce);
        scratch.clear();
        let mut at = 0;
        while at < records.len() {
            let (head, body) = split(records, at)?;
            if at == 0 {
                let _ = put(&mut iv, NONCE_SIZE, head);
            }
            scratch.extend_from_slice(body);
            at += head.len() + body.len();
        }
        match direction {
            Direction::Encrypt => self.key.encrypt(&iv, scratch),
            Direction::Decrypt => self.key.decrypt(&iv, scratch),
        }
        let (mut at, mut rest) = (0, scratch.as_slice());
        while at < records.len() {
            let (head, body) = split(records, at)?;
            let (start, length) = (at + head.len(), body.len());
            let (now, later) = rest.split_at_checked(length).ok_or(SHORT)?;
            put(records, start, now).ok_or(SHORT)?;
            rest = later;
            at = start + length;
        }
        Ok(())
    }
}

impl LogCipher {
    /// Turns what stands behind the ids of each record of a page.
    fn turn_each(
        &self,
        records: &mut [u8],
        nonce: [u8; NONCE_SIZE],
        direction: Direction,
    ) -> Result<(), Malformed> {
        // Lengths and ids are clear, so the places are found before anything is deciphered.
        let mut walk = Records::new(records);
        let mut places = Vec::new();
        while let Some(record) = walk.next() {
            if let Record::Page { page, body, .. } = record?
                && !body.is_empty()
            {
                let end = records.len() - walk.rest().len();
                places.push((page, end - body.len()..end));
            }
        }
        let mut iv = [0; 16];
        let _ = put(&mut iv, 0, &nonce);
        for (page, place) in places {
            let _ = put(&mut iv, NONCE_SIZE, &page.space.0.to_be_bytes());
            let _ = put(&mut iv, NONCE_SIZE + 4, &page.page.0.to_be_bytes());
            let body = records.get_mut(place).ok_or(SHORT)?;
            match direction {
                Direction::Encrypt => self.key.encrypt(&iv, body),
                Direction::Decrypt => self.key.decrypt(&iv, body),
            }
        }
        Ok(())
    }
}

const SHORT: Malformed = Malformed::Short("a record");

/// First byte and length bytes of the record at `at`, and its body.
fn split(records: &[u8], at: usize) -> Result<(&[u8], &[u8]), Malformed> {
    let rest = records.get(at..).unwrap_or_default();
    let invalid = |_| Malformed::Invalid("a record has an impossible length");
    let size = record_size(rest).map_err(invalid)?;
    let record = rest.get(..size).ok_or(SHORT)?;
    record.split_at_checked(record_head_size(record)).ok_or(SHORT)
}

/// Decrypts a block of the 10.5 format in place; `lsn` is that of its first byte, `nonce` that of
/// the checkpoint, and `key` derived from the key version that the block names.
pub fn decrypt_block(block: &mut [u8; BLOCK_SIZE], lsn: Lsn, nonce: [u8; 4], key: &DerivedKey) {
    let iv = block_vector(block, lsn, nonce);
    if let Some(data) = block.get_mut(BLOCK_START..BLOCK_END) {
        key.decrypt(&iv, data);
    }
}

/// Encrypts a block of the 10.5 format in place, the reverse of [`decrypt_block`].
pub fn encrypt_block(block: &mut [u8; BLOCK_SIZE], lsn: Lsn, nonce: [u8; 4], key: &DerivedKey) {
    let iv = block_vector(block, lsn, nonce);
    if let Some(data) = block.get_mut(BLOCK_START..BLOCK_END) {
        key.encrypt(&iv, data);
    }
}

/// Makes a block of the 10.5 format that was changed complete again: key version, encryption,
/// checksum.
pub fn seal_block(
    block: &mut [u8; BLOCK_SIZE],
    lsn: Lsn,
    nonce: [u8; 4],
    key: &DerivedKey,
    key_version: u32,
) {
    let _ = put(block, BLOCK_END, &key_version.to_be_bytes());
    encrypt_block(block, lsn, nonce, key);
    let sum = crc32c(block.get(..BLOCK_CRC).unwrap_or_default());
    let _ = put(block, BLOCK_CRC, &sum.to_be_bytes());
}

/// The key version that an encrypted block of the 10.5 format names.
pub fn block_key_version(block: &[u8; BLOCK_SIZE]) -> u32 {
    u32_at(block, BLOCK_END).unwrap_or_default()
}

fn block_vector(block: &[u8; BLOCK_SIZE], lsn: Lsn, nonce: [u8; 4]) -> [u8; 16] {
    /// Marks the first block of a write, which says nothing about its content.
    const FLUSH_BIT: u32 = 1 << 31;
    let number = u32_at(block, 0).unwrap_or_default() & !FLUSH_BIT;
    let mut iv = [0; 16];
    let _ = put(&mut iv, 0, &number.to_be_bytes());
    let _ = put(&mut iv, 4, &nonce);
    let _ = put(&mut iv, 8, &lsn.0.to_be_bytes());
    iv
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::{CipherMode, Key};
    use crate::redo::header::{Checkpoint, HEADER_SIZE, LogHeader};
    use crate::redo::mtr::{self, Laps};
    use crate::redo::record::is_sound;
    use proptest::prelude::*;

    const NONCE: [u8; 8] = [9; 8];
    const REAL_CBC: &[u8] = include_bytes!("../../../testdata/redo/10.11.14-encrypted/cbc.log");
    const REAL_CTR: &[u8] = include_bytes!("../../../testdata/redo/10.11.14-encrypted/ctr.log");

    fn key(mode: CipherMode) -> DerivedKey {
        DerivedKey::new(&Key::new(&[3; 16]).unwrap(), &[8; 16], mode)
    }

    /// FILE_CREATE, a new page, two changes to it, and one to another page.
    fn records() -> Vec<u8> {
        let mut records = b"\x8c\x21\x00./w/r0.ibd\x12\x21\x00\xb2\x01\x08".to_vec();
        records.extend(b"\x30\x81\x2c\x21\x07\x20");
        records.resize(19 + 16 + 128 + 0x12c, 0xab);
        records.extend(b"\xb5\x04\x00\x00\x00\x15");
        records
    }

    #[test]
    fn lengths_stay_and_everything_comes_back() {
        use LogScheme::{EachChange, Together};
        for (mode, scheme) in [
            (CipherMode::Cbc, Together),
            (CipherMode::Ctr, Together),
            (CipherMode::Cbc, EachChange),
            (CipherMode::Ctr, EachChange),
        ] {
            let cipher = LogCipher { key: key(mode), scheme };
            let (plain, mut scratch) = (records(), Vec::new());
            assert!(Records::new(&plain).all(|record| record.is_ok()));
            let mut there = plain.clone();
            cipher.encrypt(&mut there, NONCE, &mut scratch).unwrap();
            assert_ne!(there, plain);
            let is_clear = there.windows(6).any(|bytes| bytes == b"r0.ibd");
            assert_eq!(is_clear, scheme == EachChange);
            let sizes = |records: &[u8]| {
                let mut at = 0;
                std::iter::from_fn(|| {
                    let size = record_size(records.get(at..)?).ok()?;
                    at += size;
                    Some(size)
                })
                .collect::<Vec<_>>()
            };
            assert_eq!(sizes(&there), sizes(&plain));
            cipher.decrypt(&mut there, NONCE, &mut scratch).unwrap();
            assert_eq!(there, plain);
        }
    }

    #[test]
    fn blocks_there_and_back() {
        let plain: [u8; BLOCK_SIZE] = std::array::from_fn(|i| i as u8);
        let mut block = plain;
        encrypt_block(&mut block, Lsn(8192), [1, 2, 3, 4], &key(CipherMode::Cbc));
        assert_eq!((&block[..4], &block[504..]), (&plain[..4], &plain[504..]));
        assert_ne!(block, plain);
        seal_block(&mut block, Lsn(512), [0; 4], &key(CipherMode::Ctr), 77);
        assert_eq!(block_key_version(&block), 77);
        assert_eq!(block[508..], crc32c(&block[..508]).to_be_bytes());
        decrypt_block(&mut block, Lsn(512), [0; 4], &key(CipherMode::Ctr));
        // The server may mark the block as the first of a write after it was encrypted.
        block[0] |= 0x80;
        decrypt_block(&mut block, Lsn(8192), [1, 2, 3, 4], &key(CipherMode::Cbc));
        assert_eq!(block[1..504], plain[1..504]);
    }

    /// Logs that a server of 10.11.14 wrote: before MDEV-36024, so that each change is encrypted by
    /// itself. With the key every record is one, and what was inserted is there.
    #[test]
    fn logs_from_before_mdev_36024() {
        let bytes: Vec<u8> = (0..32).collect();
        let text = b"plain text plain text ";
        let finds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        for (mode, log) in [(CipherMode::Cbc, REAL_CBC), (CipherMode::Ctr, REAL_CTR)] {
            let header = LogHeader::parse(log).unwrap();
            let checkpoint = Checkpoint::newest(log, header.first_lsn).unwrap();
            let encryption = header.encryption.unwrap();
            assert_eq!(encryption.scheme, LogScheme::EachChange);
            assert!(!finds(log));
            let right = encryption.cipher(&Key::new(&bytes).unwrap(), mode);
            let wrong = encryption.cipher(&Key::new(&[1; 32]).unwrap(), mode);
            let (mut at, mut found, mut refused) = (checkpoint.lsn, false, 0);
            let offset = |lsn: Lsn| (lsn.0 - header.first_lsn.0) as usize + HEADER_SIZE;
            while offset(at) < log.len() {
                let mtr = mtr::next_with(&log[offset(at)..], at, Laps::Linear, header.trailer());
                let mtr = mtr.unwrap();
                let decrypted = |cipher: &LogCipher| {
                    let mut records = mtr.records.to_vec();
                    let nonce = mtr::nonce(&log[offset(at)..], records.len()).unwrap();
                    cipher.decrypt(&mut records, nonce, &mut Vec::new()).unwrap();
                    records
                };
                let plain = decrypted(&right);
                assert!(is_sound(&plain), "{mode:?} at {at}");
                found |= finds(&plain);
                refused += u32::from(!is_sound(&decrypted(&wrong)));
                at = mtr.end;
            }
            assert!(found && refused > 5, "{mode:?}: {found}, {refused}");
        }
    }

    proptest! {
        #[test]
        fn hostile_records_never_panic(mut bytes: Vec<u8>, together: bool) {
            let scheme = if together { LogScheme::Together } else { LogScheme::EachChange };
            let cipher = LogCipher { key: key(CipherMode::Cbc), scheme };
            let _ = cipher.decrypt(&mut bytes, NONCE, &mut Vec::new());
        }
    }
}
