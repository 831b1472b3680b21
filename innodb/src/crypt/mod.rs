//! Encryption of pages and of the redo log, as servers with an encryption plugin do it.
//!
//! A [`Key`] comes from a plugin: a number (key id), a version, and 16, 24 or 32 bytes. It never
//! encrypts data itself: it encrypts 16 public random bytes, and the result is the AES-128 key of
//! one tablespace or one redo log ([`DerivedKey`]). So data is always under AES-128, whatever the
//! length of the plugin's key.
//!
//! | module | what |
//! |---|---|
//! | `cipher` | AES-CBC without padding and AES-CTR over any number of bytes |
//! | [`page`] | which bytes of a page, under which initial vector |
//! | [`redo`] | the same for mini-transactions and for blocks of redo |
//!
//! Nothing on disk says which of the two [`CipherMode`]s is in use: it is a setting of the plugin.
//! The wrong mode, like the wrong key, gives noise; what notices are the checks inside of what was
//! encrypted.
//!
//! Keys are wiped from memory when they are dropped, and their `Debug` output does not show them.

mod cipher;
pub mod page;
pub mod redo;

use std::fmt;

use zeroize::Zeroizing;

pub use cipher::DerivedKey;

/// How AES is applied to more than one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherMode {
    /// AES-CBC without padding: the default of every plugin.
    #[default]
    Cbc,
    /// AES-CTR: `file_key_management_encryption_algorithm=aes_ctr`.
    Ctr,
}

/// A key of an encryption plugin.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// The key with these bytes: `None` unless they are 16, 24 or 32.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        matches!(bytes.len(), 16 | 24 | 32).then(|| Self(Zeroizing::new(bytes.to_vec())))
    }

    /// The key written as hexadecimal digits, in either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        // As long as the longest key, so that no copy of it is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len().min(32)));
        for &[high, low] in pairs.get(..pairs.len().min(33))? {
            bytes.push(digit(high)? << 4 | digit(low)?);
        }
        Self::new(&bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The length only.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(AES-{})", self.0.len() * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_three_lengths() {
        for length in 0..80 {
            let valid = [16, 24, 32].contains(&length);
            assert_eq!(Key::new(&vec![7; length]).is_some(), valid, "{length}");
            assert_eq!(Key::from_hex(&"aF".repeat(length)).is_some(), valid, "{length}");
        }
        assert_eq!(Key::from_hex(&"0g".repeat(16)), None);
        assert_eq!(Key::from_hex(&"0".repeat(33)), None);
        assert_eq!(Key::from_hex(&"aF".repeat(16)), Key::new(&[0xaf; 16]));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Key::new(&[0xab; 24])), "Some(Key(AES-192))");
    }
}
