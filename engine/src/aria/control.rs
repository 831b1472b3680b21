//! The control file: where recovery begins.
//!
//! Two parts, each with a checksum: one that never changes, and one that changes with every
//! checkpoint. Either may be longer than what is known here.
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 4 | magic and version |
//! | 4 | 16 | id of the installation, which its tables have too |
//! | 20 | 2 | length of the first part |
//! | 22 | 2 | length of the second part |
//! | 24 | 2 | size of the pages of tables |
//! | end of the first part - 4 | 4 | CRC-32 of the first part |
//!
//! The second part:
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of the rest |
//! | 4 | 7 | LSN of the last checkpoint |
//! | 11 | 4 | number of the last log file |
//! | 15 | 6 | greatest transaction id |
//! | 21 | 1 | failed recoveries in a row |

use super::bytes::{le_at, le16_at};
use super::leave::Malformed;
use super::lsn::AriaLsn;

/// Name of the file.
pub const NAME: &str = "aria_log_control";

const MAGIC: [u8; 4] = [0xfe, 0xfe, 0x0c, 1];
/// A file never exceeds a disk sector, so that it is written at once.
const MAX_SIZE: usize = 512;

mod fixed {
    pub const UUID: usize = 4;
    pub const SIZE: usize = 20;
    pub const VARIABLE_SIZE: usize = 22;
    pub const BLOCK_SIZE: usize = 24;
    pub const MIN_SIZE: usize = 30;
}

mod variable {
    pub const CRC: usize = 0;
    pub const CHECKPOINT: usize = 4;
    pub const LAST_LOG: usize = 11;
    pub const MAX_TRANSACTION: usize = 15;
    pub const FAILURES: usize = 21;
    pub const MIN_SIZE: usize = 22;
}

/// What the control file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    bytes: Vec<u8>,
    variable: usize,
    /// Id of the installation.
    pub uuid: [u8; 16],
    /// Size of the pages of tables.
    pub block_size: usize,
    /// LSN of the last checkpoint; none if there was none yet.
    pub checkpoint: AriaLsn,
    /// Number of the last log file.
    pub last_log: u32,
    /// Greatest transaction id that was given out before the log begins.
    pub max_transaction: u64,
}

impl Control {
    /// Reads the whole file.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = Malformed("it is too short");
        if bytes.len() > MAX_SIZE {
            return Err(Malformed("it is too long"));
        }
        if bytes.get(..4) != Some(&MAGIC) {
            return Err(Malformed("it is no control file of a known version"));
        }
        let size = |at| le16_at(bytes, at).map(usize::from).ok_or(short);
        let (first, second) = (size(fixed::SIZE)?, size(fixed::VARIABLE_SIZE)?);
        if first < fixed::MIN_SIZE || second < variable::MIN_SIZE || first + second != bytes.len() {
            return Err(Malformed("its lengths contradict each other"));
        }
        let (head, tail) = bytes.split_at(first);
        let (head, head_crc) = head.split_at(first - 4);
        let tail_crc = le_at(tail, variable::CRC, 4);
        let body = tail.get(variable::CHECKPOINT..).ok_or(short)?;
        if le_at(head_crc, 0, 4) != Some(crc32fast::hash(head).into())
            || tail_crc != Some(crc32fast::hash(body).into())
        {
            return Err(Malformed("a checksum is wrong"));
        }
        let uuid = head.get(fixed::UUID..).and_then(|rest| rest.first_chunk()).ok_or(short)?;
        let lsn = tail.get(variable::CHECKPOINT..).and_then(AriaLsn::read).ok_or(short)?;
        Ok(Self {
            uuid: *uuid,
            block_size: size(fixed::BLOCK_SIZE)?,
            checkpoint: lsn,
            last_log: le_at(tail, variable::LAST_LOG, 4).ok_or(short)? as u32,
            max_transaction: le_at(tail, variable::MAX_TRANSACTION, 6).ok_or(short)?,
            bytes: bytes.to_vec(),
            variable: first,
        })
    }

    /// The file with the values as they are now, and no failed recovery.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let tail = bytes.get_mut(self.variable..).unwrap_or_default();
        let [t0, t1, t2, t3, t4, t5, ..] = self.max_transaction.to_le_bytes();
        for (at, field) in [
            (variable::CHECKPOINT, &self.checkpoint.to_bytes()[..]),
            (variable::LAST_LOG, &self.last_log.to_le_bytes()[..]),
            (variable::MAX_TRANSACTION, &[t0, t1, t2, t3, t4, t5][..]),
            (variable::FAILURES, &[0][..]),
        ] {
            // The lengths were checked when the file was read.
            let _ = innodb::bytes::put(tail, at, field);
        }
        let crc = crc32fast::hash(tail.get(variable::CHECKPOINT..).unwrap_or_default());
        let _ = innodb::bytes::put(tail, variable::CRC, &crc.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Written by server 10.11.19.
    const REAL: [u8; 52] = [
        0xfe, 0xfe, 0x0c, 0x01, 0x76, 0x9f, 0x69, 0x81, 0xe5, 0x6d, 0x11, 0xf1, 0xb3, 0x6b, 0x02,
        0xfc, 0x00, 0x00, 0x00, 0x01, 0x1e, 0x00, 0x16, 0x00, 0x00, 0x20, 0x01, 0xbf, 0x0e, 0xaf,
        0x1e, 0xe9, 0x19, 0x69, 0x01, 0x00, 0x00, 0x67, 0x4c, 0x06, 0x00, 0x01, 0x00, 0x00, 0x00,
        0xe3, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn a_real_one_is_read_and_written() {
        let control = Control::parse(&REAL).unwrap();
        assert_eq!(control.block_size, 8192);
        assert_eq!(control.checkpoint, AriaLsn::new(1, 0x0006_4c67));
        assert_eq!((control.last_log, control.max_transaction), (1, 0xe3));
        assert_eq!(control.to_bytes(), REAL);
        let mut later = control.clone();
        later.checkpoint = AriaLsn::new(3, 0x2007);
        later.max_transaction = 0x0102_0304_0506;
        let again = Control::parse(&later.to_bytes()).unwrap();
        assert_eq!((again.checkpoint, again.max_transaction), (later.checkpoint, 0x0102_0304_0506));
    }

    #[test]
    fn a_wrong_byte_anywhere_and_a_wrong_length_are_noticed() {
        for at in 0..REAL.len() {
            let mut bytes = REAL;
            bytes[at] ^= 0x10;
            assert!(Control::parse(&bytes).is_err(), "byte {at}");
            assert!(Control::parse(&REAL[..at]).is_err(), "{at} bytes");
        }
        assert!(Control::parse(&[0xfe; 600]).is_err());
    }
}
