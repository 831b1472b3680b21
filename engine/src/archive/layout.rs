//! What the objects of the archive are called.
//!
//! ```text
//! binlog/<server>/<epoch>/<number>-<begin>-<end>-<hash>.binlog.zst[.sealed]
//! ```
//!
//! | part | what |
//! |---|---|
//! | server | the `server_id` of who wrote the file, not of who wrote the transactions in it |
//! | epoch | when the first file of a row of files was begun, and a hash of how that file begins |
//! | number | that of the file, with as many digits as any can have |
//! | begin, end | which bytes of the file |
//! | hash | the beginning of the SHA-256 of these bytes |
//!
//! A server that was reset, restored or replaced begins with the same names of files anew; its
//! epoch is another one. Names sort in the order of the log, up to servers and epochs.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::repo::seal;
use crate::store::Key;
use crate::{Error, ErrorKind, Result};

/// Where the archive is in a repository.
pub const BINLOG: &str = "binlog/";
/// What names of objects end with, and then perhaps [`SEALED`].
const SUFFIX: &str = ".binlog.zst";
/// What names of sealed objects end with.
const SEALED: &str = ".sealed";
/// Digits of the number of a file.
const NUMBER: usize = 10;
/// Digits of an offset.
const OFFSET: usize = 14;
/// Digits of a hash in a name.
const HASH: usize = 8;
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// A row of files that follow one another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(String);

impl Epoch {
    /// The epoch that begins with a file that was begun at `seconds` and begins as `identity` says.
    pub fn new(seconds: u32, identity: &str) -> Self {
        let time = Timestamp::from_second(i64::from(seconds)).unwrap_or(Timestamp::UNIX_EPOCH);
        let time = time.to_zoned(TimeZone::UTC).strftime(TIME);
        Self(format!("{time}-{}", identity.get(..HASH).unwrap_or(identity)))
    }

    /// A name that was read somewhere; `None` if it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, hash) = text.split_once('-')?;
        jiff::civil::DateTime::strptime(TIME, time).ok()?;
        is_hex(hash, HASH).then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not the name of an epoch"))
    }
}

/// What the name of an object says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName {
    /// `server_id` of who wrote the file.
    pub server: u32,
    /// Which row of files.
    pub epoch: Epoch,
    /// Number of the file.
    pub number: u64,
    /// First byte.
    pub begin: u64,
    /// Behind the last byte.
    pub end: u64,
    /// The beginning of the hash of the bytes.
    pub hash: String,
    /// Whether it is sealed.
    pub sealed: bool,
}

impl PartName {
    /// The object of this name.
    pub fn key(&self) -> Result<Key> {
        let Self { server, epoch, number, begin, end, hash, sealed } = self;
        let hash = hash.get(..HASH).unwrap_or(hash);
        let sealed = if *sealed { SEALED } else { "" };
        Key::new(&format!(
            "{BINLOG}{server}/{epoch}/{number:0NUMBER$}-{begin:0OFFSET$}-{end:0OFFSET$}-{hash}\
             {SUFFIX}{sealed}"
        ))
    }

    /// What the name of an object says; `None` if it is not one of a part.
    pub fn parse(key: &Key) -> Option<Self> {
        let mut parts = key.as_str().strip_prefix(BINLOG)?.split('/');
        let (server, epoch, name) = (parts.next()?, parts.next()?, parts.next()?);
        let sealed = name.ends_with(SEALED);
        let name = name.strip_suffix(SEALED).unwrap_or(name).strip_suffix(SUFFIX)?;
        let mut fields = name.split('-');
        let mut number = |digits: usize| {
            let text = fields.next()?;
            let valid = text.len() >= digits && text.bytes().all(|byte| byte.is_ascii_digit());
            valid.then(|| text.parse::<u64>().ok()).flatten()
        };
        let (number, begin, end) = (number(NUMBER)?, number(OFFSET)?, number(OFFSET)?);
        let hash = fields.next().filter(|hash| is_hex(hash, HASH))?.to_owned();
        let rest = fields.next().is_none() && parts.next().is_none() && begin < end;
        let server = server.parse().ok()?;
        let name = Self { server, epoch: Epoch::parse(epoch)?, number, begin, end, hash, sealed };
        // There is one way only to write it.
        (rest && name.key().is_ok_and(|same| same == *key)).then_some(name)
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The number at the end of the name of a file: `bin.000012`.
pub fn number_of(file: &str) -> Result<u64> {
    let digits = file.rsplit_once('.').map(|(_, digits)| digits);
    digits
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("{file:?} is not the name of a binary log file"))
                .advise("binary logs have a number at the end of their names, as in bin.000012")
        })
}

/// Tells a file from all others by how it begins: the description of its format, which has the time
/// that it was begun and the server, the transactions that came before it, and its name.
pub fn identity(format: &[u8], list: &[u8], file: &str) -> String {
    let lengths = [format.len(), list.len()].map(|length| (length as u64).to_le_bytes());
    seal::sha256(&[&lengths[0], format, &lengths[1], list, file.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_read_back_and_sort_as_the_log() {
        let name = PartName {
            server: 7,
            epoch: Epoch::new(1_767_268_800, "1a2b3c4d5e6f"),
            number: 999_999,
            begin: 0,
            end: 1 << 40,
            hash: "0123abcd".to_owned(),
            sealed: true,
        };
        let key = name.key().unwrap();
        assert_eq!(
            key.as_str(),
            "binlog/7/20260101T120000Z-1a2b3c4d/0000999999-00000000000000-01099511627776-0123abcd\
             .binlog.zst.sealed"
        );
        assert_eq!(PartName::parse(&key), Some(name.clone()));
        let next = PartName { number: 1_000_000, end: 5, sealed: false, ..name };
        assert!(next.key().unwrap() > key);
        for other in [
            "binlog/7/20260101T120000Z-1a2b3c4d/x.binlog.zst",
            "binlog/7/x/0000999999-00000000000000-01099511627776-0123abcd.binlog.zst",
            "binlog/07/20260101T120000Z-1a2b3c4d/0000999999-00000000000000-01099511627776-0123abcd\
             .binlog.zst",
            "backups/x",
        ] {
            assert_eq!(PartName::parse(&Key::new(other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn files_have_numbers() {
        assert_eq!(number_of("mysql-bin.1000000").unwrap(), 1_000_000);
        for wrong in ["bin", "bin.", "bin.index", "bin.00001x", "bin.99999999999999999999"] {
            assert!(number_of(wrong).is_err(), "{wrong}");
        }
    }
}
