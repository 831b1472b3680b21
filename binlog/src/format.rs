//! The first event of a file: what the others look like.

use crate::bytes::{Bytes, Malformed, Read};
use crate::header::{CHECKSUM_LEN, HEADER_LEN};

/// What every file begins with.
pub const MAGIC: [u8; 4] = *b"\xfebin";

/// Offset of the first event.
pub const FIRST_EVENT: u64 = MAGIC.len() as u64;

/// What binary logs that InnoDB keeps begin with (12.3 and later).
pub const INNODB_MAGIC: [u8; 4] = 0x010d_fefe_u32.to_le_bytes();

/// What the files of binary logs that InnoDB keeps end with.
pub const INNODB_SUFFIX: &str = ".ibb";

/// What the indexes by GTID begin with that servers keep of their logs (11.4 and later).
pub const GTID_INDEX_MAGIC: [u8; 4] = *b"\xfe\xfe\x0c\x01";

/// What their names have behind that of the log.
pub const GTID_INDEX_SUFFIX: &str = ".idx";

/// What the versions of MariaDB have in them.
const MARIADB: &str = "MariaDB";

/// Bytes of the server's version.
const VERSION_LEN: usize = 50;

/// How events are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Not at all.
    None,
    /// CRC-32 behind each.
    Crc32,
}

/// Three numbers of a version.
pub type Version = (u32, u32, u32);

/// What a file says of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatDescription {
    /// Always 4.
    pub binlog_version: u16,
    /// The server's own words.
    pub server_version: String,
    /// When the server was started, in the first file after its start; otherwise 0.
    pub created: u32,
    /// Lengths of the parts that follow the header, by type.
    pub post_header_lengths: Vec<u8>,
    /// How the other events of the file are checked.
    pub checksum: Checksum,
}

impl FormatDescription {
    /// Reads the whole event.
    pub fn parse(event: &[u8]) -> Read<Self> {
        let mut bytes = Bytes(event.get(HEADER_LEN..).ok_or(Malformed("header"))?);
        let binlog_version = bytes.u16("binlog version")?;
        if binlog_version != 4 {
            return Err(Malformed("only version 4 of binary logs is known"));
        }
        let version = bytes.take(VERSION_LEN, "server version")?;
        let version = version.split(|byte| *byte == 0).next().unwrap_or_default();
        let server_version = String::from_utf8_lossy(version).into_owned();
        let created = bytes.u32("created")?;
        if usize::from(bytes.u8("header length")?) != HEADER_LEN {
            return Err(Malformed("only headers of 19 bytes are known"));
        }
        let has_checksum = has_checksum(&server_version);
        let tail = if has_checksum { 1 + CHECKSUM_LEN } else { 0 };
        let lengths = bytes.0.len().checked_sub(tail).ok_or(Malformed("post-header lengths"))?;
        let post_header_lengths = bytes.take(lengths, "post-header lengths")?.to_vec();
        let checksum = match has_checksum.then(|| bytes.u8("checksum algorithm")).transpose()? {
            None | Some(0 | 255) => Checksum::None,
            Some(1) => Checksum::Crc32,
            Some(_) => return Err(Malformed("checksum algorithm")),
        };
        Ok(Self { binlog_version, server_version, created, post_header_lengths, checksum })
    }

    /// The server's version as numbers.
    pub fn version(&self) -> Version {
        of(&self.server_version)
    }

    /// Whether this event has a checksum of its own, be there others or not.
    pub fn has_checksum(&self) -> bool {
        has_checksum(&self.server_version)
    }

    /// Whether the server was MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.server_version.contains(MARIADB)
    }
}

/// Servers before checksums have nothing of them in the event either.
fn has_checksum(version: &str) -> bool {
    version.contains(MARIADB) || of(version) >= (5, 6, 1)
}

/// `10.11.19-MariaDB-log` as numbers; zeros where there are none.
fn of(version: &str) -> Version {
    let mut numbers = version.splitn(3, '.').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part.get(..digits).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    });
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(of("10.11.19-MariaDB-0+deb12u1-log"), (10, 11, 19));
        assert_eq!(of("5.6.1"), (5, 6, 1));
        assert_eq!(of("nonsense"), (0, 0, 0));
    }
}
