//! Encryption of Aria's tables.
//!
//! Pages are encrypted one by one, bitmaps not at all; nor is the log. A page of an encrypted table
//! keeps four bytes of its header for the version of the key, which are zero while it is plain. Its
//! checksum is that of the plain page.
//!
//! | page | version of the key | encrypted, of `n` bytes |
//! |---|---|---|
//! | with a directory of rows, or not in use | at 12 | `[16, n−4)` |
//! | of a blob | at 8 | `[12, n−4)` |
//! | of keys | at 13 | `[21, used)` |
//!
//! The initial vector is little-endian: a number of the table, page number, page LSN. Number and
//! seed of the table's keys are the last bytes of the index file's header.

use std::fmt;
use std::sync::Arc;

use innodb::bytes::{put, u8_at, u16_at};

use super::bytes::le_at;
use super::lsn::AriaLsn;
use super::pages::{CHECKSUM, Check};
use super::row_page::{self, kind};
use super::table::Shape;
use crate::keys::KeyError;
use crate::keys::settings::KeyStore;
use crate::keys::space::SpaceKeys;

/// The key that the server has for its own data; tables that outlive a connection have no other.
const KEY_ID: u32 = 1;

/// What stands behind the header of an index file.
mod header {
    /// Where the length of the header is.
    pub const LENGTH: usize = 6;
    pub const SCHEME: u8 = 1;
    /// Bytes behind the scheme and this length.
    pub const REST: u8 = 20;
    pub const ALL: usize = 22;
    pub const TABLE: usize = 2;
    pub const SEED: usize = 6;
}

/// Encrypts and decrypts the pages of one table.
pub struct Crypt {
    table: u32,
    keys: SpaceKeys,
}

impl Crypt {
    /// Of the table whose index file begins with `file`; `None` when that says nothing known.
    pub fn parse(file: &[u8], keys: &Arc<KeyStore>) -> Option<Self> {
        let end = usize::from(u16_at(file, header::LENGTH)?);
        let at = end.checked_sub(header::ALL)?;
        if (u8_at(file, at)?, u8_at(file, at + 1)?) != (header::SCHEME, header::REST) {
            return None;
        }
        let seed = *file.get(at + header::SEED..end)?.first_chunk()?;
        let table = le_at(file, at + header::TABLE, 4)? as u32;
        Some(Self { table, keys: SpaceKeys::derived(keys, KEY_ID, seed) })
    }

    /// Whether there is a key at all.
    pub fn check(&self) -> Result<(), KeyError> {
        self.keys.latest().map(drop)
    }

    /// Decrypts a page in place. Says whether it can be one that was encrypted; its checksum tells
    /// whether it is.
    pub fn decrypt(
        &self,
        page: &mut [u8],
        number: u64,
        check: Check,
        shape: &Shape,
    ) -> Result<bool, KeyError> {
        let Some(part) = Part::of(page, check, shape) else { return Ok(true) };
        let iv = self.initial_vector(page, number);
        let version = le_at(page, part.version, 4).unwrap_or(0) as u32;
        let Some(data) = page.get_mut(part.start..part.end).filter(|_| version != 0) else {
            return Ok(false);
        };
        self.keys.of_version(version)?.decrypt(&iv, data);
        let _ = put(page, part.version, &[0; 4]);
        Ok(true)
    }

    /// Encrypts a page in place, which has its LSN and its checksum.
    pub fn encrypt(
        &self,
        page: &mut [u8],
        number: u64,
        check: Check,
        shape: &Shape,
    ) -> Result<(), KeyError> {
        let Some(part) = Part::of(page, check, shape) else { return Ok(()) };
        let iv = self.initial_vector(page, number);
        let (version, key) = self.keys.latest()?;
        if let Some(data) = page.get_mut(part.start..part.end) {
            key.encrypt(&iv, data);
        }
        let _ = put(page, part.version, &version.to_le_bytes());
        Ok(())
    }

    fn initial_vector(&self, page: &[u8], number: u64) -> [u8; 16] {
        let lsn = AriaLsn::read(page).unwrap_or_default();
        let mut iv = [0; 16];
        let fields = [&self.table.to_le_bytes()[..], &(number as u32).to_le_bytes()];
        let lsn = [lsn.offset().to_le_bytes(), lsn.file().to_le_bytes()];
        let fields = fields.into_iter().chain(lsn.iter().map(|part| &part[..]));
        for (at, field) in fields.enumerate() {
            let _ = put(&mut iv, 4 * at, field);
        }
        iv
    }
}

/// Nothing of the keys.
impl fmt::Debug for Crypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crypt({})", self.table)
    }
}

/// What of a page is encrypted.
struct Part {
    version: usize,
    start: usize,
    end: usize,
}

impl Part {
    /// `None` for a bitmap.
    fn of(page: &[u8], check: Check, shape: &Shape) -> Option<Self> {
        let end = page.len().saturating_sub(CHECKSUM);
        let (version, start, end) = match check {
            Check::Bitmap => return None,
            Check::Index => {
                let start = shape.key_page_header();
                let used = shape.key_page_used(page);
                // One that is full up to its checksum is none.
                (start - shape.key_version - 4, start, if used < end { used } else { 0 })
            }
            Check::Data if row_page::page_type(page) < kind::BLOB => {
                (shape.row_header() - shape.key_version, shape.row_header(), end)
            }
            Check::Data => (shape.blob_header() - shape.key_version, shape.blob_header(), end),
        };
        Some(Self { version, start, end })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::KeySettings;
    use proptest::prelude::*;

    /// The end of the header of a table's index file.
    const STORED: [u8; 22] = [
        1, 20, 0x2b, 0xde, 0x2f, 0xa1, 0x29, 0x88, 0x77, 0xbe, 0x98, 0x7b, 0xe6, 0x83, 0x23, 0xf6,
        0xd9, 0xd0, 0xa3, 0xb8, 0x40, 0x0c,
    ];

    fn shape() -> Shape {
        Shape {
            block: 1024,
            keys_begin: 8192,
            min_row: 7,
            blobs: 0,
            live_checksum: false,
            page_checksum: true,
            key_version: 4,
            auto_key: None,
        }
    }

    fn with_key(dir: &std::path::Path) -> Crypt {
        let file = dir.join("keys");
        std::fs::write(&file, format!("1;{}\n", "0123456789abcdef".repeat(4))).unwrap();
        let file = file.display().to_string();
        let settings = KeySettings::from_pairs([("file_key_management_filename", &*file)]);
        let mut header = vec![0; 40];
        header[6..8].copy_from_slice(&62_u16.to_be_bytes());
        header.extend_from_slice(&STORED);
        Crypt::parse(&header, &KeyStore::new(settings)).unwrap()
    }

    #[test]
    fn only_headers_that_are_known() {
        let keys = KeyStore::new(KeySettings::default());
        for (at, byte) in [(40, 2), (41, 21), (6, 1), (7, 4)] {
            let mut header = vec![0; 40];
            header[6..8].copy_from_slice(&62_u16.to_be_bytes());
            header.extend_from_slice(&STORED);
            let crypt = Crypt::parse(&header, &keys).unwrap();
            assert_eq!(crypt.table, 0xa12f_de2b);
            assert!(crypt.check().is_err());
            header[at] = byte;
            assert!(Crypt::parse(&header, &keys).is_none());
        }
    }

    proptest! {
        #[test]
        fn what_was_encrypted_decrypts(
            mut page in prop::collection::vec(any::<u8>(), 1024),
            kind in 0_u8..4,
            used in 0_u16..1100,
            number: u32,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (crypt, shape) = (with_key(dir.path()), shape());
            for check in [Check::Data, Check::Index, Check::Bitmap] {
                match check {
                    Check::Index => page[19..21].copy_from_slice(&used.to_be_bytes()),
                    _ => page[7] = kind,
                }
                let version = match check {
                    Check::Bitmap => 8..8,
                    Check::Index => 13..17,
                    Check::Data if kind == 3 => 8..12,
                    Check::Data => 12..16,
                };
                page[version.clone()].fill(0);
                let mut there = page.clone();
                crypt.encrypt(&mut there, number.into(), check, &shape).unwrap();
                prop_assert_eq!(&there[..7], &page[..7]);
                prop_assert_eq!(&there[1020..], &page[1020..]);
                let is_one = check != Check::Index || (21..1020).contains(&used);
                if check != Check::Bitmap {
                    prop_assert_eq!(&there[version.clone()], &[1, 0, 0, 0][..]);
                }
                let done = crypt.decrypt(&mut there, number.into(), check, &shape).unwrap();
                prop_assert_eq!(done, is_one);
                if is_one {
                    prop_assert_eq!(&there, &page);
                }
            }
        }
    }
}
