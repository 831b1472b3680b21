//! Framing of mini-transactions: where one ends and whether it is whole.
//!
//! | part | bytes |
//! |---|---|
//! | records | 1 or more, each with its own length; a first byte is never 0 or 1 |
//! | sequence | 1: 0 or 1, by the lap of the circular file at this byte's own LSN |
//! | nonce | 8, in encrypted logs only |
//! | CRC-32C | 4, over the records (as stored) and the nonce |
//!
//! A mini-transaction is found only by walking its records. Any failure at a boundary means the
//! end of the log, for now: the same bytes are all that an unwritten, a half-written and an
//! overwritten mini-transaction leave behind. [`Stop`] says what was seen.

use crate::Lsn;
use crate::bytes::u32_at;
use crate::page::checksum::{crc32c, crc32c_of_two};

/// Upper limit of the records of one mini-transaction, in bytes.
pub const RECORDS_MAX: usize = 1 << 20;
/// Bytes behind the records: sequence byte and CRC.
pub const TRAILER_SIZE: usize = 5;
/// Bytes of the nonce that encrypted logs have between the two.
pub const NONCE_SIZE: usize = 8;
/// Upper limit of a whole mini-transaction, in bytes.
pub const MTR_MAX: usize = RECORDS_MAX + TRAILER_SIZE + NONCE_SIZE;

/// What stands behind the records of a mini-transaction: the same for all of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trailer {
    /// Sequence byte and CRC.
    #[default]
    Plain,
    /// Sequence byte, nonce and CRC: the log is encrypted.
    Nonce,
}

impl Trailer {
    /// Bytes it takes.
    pub const fn size(self) -> usize {
        match self {
            Self::Plain => TRAILER_SIZE,
            Self::Nonce => TRAILER_SIZE + NONCE_SIZE,
        }
    }
}

/// How the sequence byte follows from the LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Laps {
    /// A copy that never wraps: always 1.
    Linear,
    /// A server's file, which starts over after `capacity` bytes.
    Circular {
        /// LSN of the first byte behind the header.
        first_lsn: Lsn,
        /// File size less the header.
        capacity: u64,
    },
}

impl Laps {
    /// The sequence byte that belongs at `lsn`.
    pub fn sequence_byte(self, lsn: Lsn) -> u8 {
        match self {
            Self::Linear => 1,
            Self::Circular { first_lsn, capacity } => {
                let lap = lsn.0.wrapping_sub(first_lsn.0) / capacity.max(1);
                1 - (lap & 1) as u8
            }
        }
    }
}

/// One whole, checked mini-transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtr<'a> {
    /// LSN of its first byte.
    pub start: Lsn,
    /// LSN behind its last byte: the start of the next one.
    pub end: Lsn,
    /// Its records.
    pub records: &'a [u8],
}

/// Why no mini-transaction could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bytes at hand end before it does.
    NeedMore,
    /// A 0 or 1 stands where a record should begin: the usual end of a log.
    NoRecord,
    /// A record has an impossible length.
    BadLength,
    /// The records are longer than any mini-transaction's.
    TooLong,
    /// The sequence byte is that of another lap: old content of the circular file.
    WrongSequence,
    /// The checksum does not match: a torn write or old content.
    BadCrc,
}

/// Reads the mini-transaction at the start of `bytes`, which is at `start` in a plain log.
#[inline]
pub fn next<'a>(bytes: &'a [u8], start: Lsn, laps: Laps) -> Result<Mtr<'a>, Stop> {
    next_with(bytes, start, laps, Trailer::Plain)
}

/// Reads the mini-transaction at the start of `bytes`, which is at `start` in a log with such
/// trailers. In an encrypted log the records are as stored.
#[inline]
pub fn next_with<'a>(
    bytes: &'a [u8],
    start: Lsn,
    laps: Laps,
    trailer: Trailer,
) -> Result<Mtr<'a>, Stop> {
    let size = records_size(bytes)?;
    let end = size + trailer.size();
    let (Some(&sequence), Some(crc)) = (bytes.get(size), u32_at(bytes, end - 4)) else {
        return Err(Stop::NeedMore);
    };
    if sequence != laps.sequence_byte(start.advanced(size as u64)) {
        return Err(Stop::WrongSequence);
    }
    let records = bytes.get(..size).ok_or(Stop::NeedMore)?;
    let computed = match trailer {
        Trailer::Plain => crc32c(records),
        Trailer::Nonce => crc32c_of_two(records, nonce(bytes, size).unwrap_or_default()),
    };
    if computed != crc {
        return Err(Stop::BadCrc);
    }
    Ok(Mtr { start, end: start.advanced(end as u64), records })
}

/// The nonce of the mini-transaction at the start of `bytes`, whose records have `size` bytes.
pub fn nonce(bytes: &[u8], size: usize) -> Option<[u8; NONCE_SIZE]> {
    bytes.get(size + 1..)?.first_chunk().copied()
}

/// Walks records by their lengths alone, to the sequence byte.
#[inline]
pub(super) fn records_size(bytes: &[u8]) -> Result<usize, Stop> {
    let mut at = 0;
    loop {
        let Some(&first) = bytes.get(at) else { return Err(Stop::NeedMore) };
        if first <= 1 {
            return if at == 0 { Err(Stop::NoRecord) } else { Ok(at) };
        }
        at += record_size(bytes.get(at..).unwrap_or_default())?;
        if at >= RECORDS_MAX {
            return Err(Stop::TooLong);
        }
    }
}

/// Size of the record at the start of `bytes`, by its own word.
#[inline]
pub(crate) fn record_size(bytes: &[u8]) -> Result<usize, Stop> {
    match *bytes {
        [] => Err(Stop::NeedMore),
        [first, ref behind @ ..] if first & 15 == 0 => record_size_extended(behind),
        [first, ..] => Ok(1 + usize::from(first & 15)),
    }
}

/// Bytes of a record before its body: the first one and those of the length.
pub(crate) fn record_head_size(record: &[u8]) -> usize {
    match *record {
        [first, ..] if first & 15 != 0 => 1,
        [_, 0..=0x7f, ..] => 2,
        [_, 0x80..=0xbf, ..] => 3,
        _ => 4,
    }
}

/// Size of a record whose length stands in a variable-length number behind its first byte.
pub(super) fn record_size_extended(behind_first: &[u8]) -> Result<usize, Stop> {
    let value = match *behind_first {
        [first @ 0..=0x7f, ..] => usize::from(first),
        [first @ 0x80..=0xbf, a, ..] => 128 + (usize::from(first & 0x3f) << 8 | usize::from(a)),
        [first @ 0xc0..=0xdf, a, b, ..] => {
            16_512 + (usize::from(first & 0x1f) << 16 | usize::from(a) << 8 | usize::from(b))
        }
        [0xe0..=0xff, ..] => return Err(Stop::BadLength),
        _ => return Err(Stop::NeedMore),
    };
    Ok(16 + value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// FILE_CHECKPOINT(12288) as the first mini-transaction of a new server's log.
    const CHECKPOINT: &[u8] = b"\xfa\0\0\0\0\0\0\0\0\x30\0\x01\x1f\xec\x1a\x80";

    #[test]
    fn a_real_mini_transaction() {
        let mtr = next(CHECKPOINT, Lsn(12288), Laps::Linear).unwrap();
        assert_eq!(mtr, Mtr { start: Lsn(12288), end: Lsn(12304), records: &CHECKPOINT[..11] });
    }

    #[test]
    fn the_sequence_byte_alternates_with_the_laps_of_its_own_position() {
        // The sequence byte is the twelfth byte: with a capacity of 11 it lies in the second lap.
        let laps = |capacity| Laps::Circular { first_lsn: Lsn(12288), capacity };
        assert!(next(CHECKPOINT, Lsn(12288), laps(12)).is_ok());
        assert_eq!(next(CHECKPOINT, Lsn(12288), laps(11)), Err(Stop::WrongSequence));
        assert_eq!(laps(10).sequence_byte(Lsn(12288 + 20)), 1);
    }

    #[test]
    fn a_cut_anywhere_asks_for_more() {
        for end in 0..CHECKPOINT.len() {
            assert_eq!(
                next(&CHECKPOINT[..end], Lsn(12288), Laps::Linear),
                Err(Stop::NeedMore),
                "{end}"
            );
        }
    }

    #[test]
    fn every_flipped_bit_stops_the_reader() {
        for bit in 0..CHECKPOINT.len() * 8 {
            let mut damaged = CHECKPOINT.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(next(&damaged, Lsn(12288), Laps::Linear).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, start: u64, first: u64, capacity: u64) {
            let _ = next(&bytes, Lsn(start), Laps::Circular { first_lsn: Lsn(first), capacity });
        }
    }
}
