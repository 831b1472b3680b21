//! Page checksums.
//!
//! | format | covers | stored |
//! |---|---|---|
//! | `full_crc32` | everything up to its own place, after encryption and compression | last 4 bytes |
//! | legacy `crc32` | `[4,26)` and `[38,n−8)` | at 0 and n−8 |
//! | legacy `innodb` | new: `[4,26)` and `[38,n−8)`; old: `[0,26)` | new at 0, old at n−8 |
//! | legacy `none` | nothing, the constant [`NONE`] | at 0 and n−8 |
//! | zip `crc32`, `innodb` | `[4,16)`, `[24,26)`, `[34,n)` | at 0 |
//!
//! CRC here is always CRC-32C (Castagnoli). Legacy sums leave out bytes 26–33 because these are
//! written after the sum was made; damage there cannot be seen. Ranges that a slice is too short
//! for count as empty: whoever must refuse short pages has to look at their length.

use std::ops::Range;

use crc_fast::{CrcAlgorithm, Digest, checksum};

use super::layout::{fil, full_crc32_trailer, legacy_trailer};
use crate::bytes::u32_at;

/// What `innodb_checksum_algorithm=none` stores.
pub const NONE: u32 = 0xdead_beef;

/// What a zip page sums up: neither LSN nor what encryption adds.
const ZIP_PARTS: [Range<usize>; 2] = [fil::PAGE_NO..fil::LSN, fil::TYPE..fil::LEGACY_KEY_VERSION];

/// CRC-32C of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The result of a 32-bit CRC fits: the crate returns all widths as u64.
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// CRC-32C of `first` followed by `second`.
pub fn crc32c_of_two(first: &[u8], second: [u8; 8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    digest.update(&second);
    digest.finalize() as u32
}

/// The sum of a `full_crc32` page that is stored in `stored`: the page, or as much of it as page
/// compression kept.
pub fn full_crc32(stored: &[u8]) -> u32 {
    crc32c(up_to_end(stored, 0, full_crc32_trailer::CHECKSUM))
}

/// What a `full_crc32` page has stored as its sum.
pub fn stored_full_crc32(stored: &[u8]) -> Option<u32> {
    u32_at(stored, stored.len().checked_sub(full_crc32_trailer::CHECKSUM)?)
}

/// The legacy `crc32` sum, also made of encrypted pages after their encryption.
pub fn legacy_crc32(page: &[u8]) -> u32 {
    crc32c(part(page, fil::PAGE_NO..fil::LEGACY_KEY_VERSION))
        ^ crc32c(up_to_end(page, fil::DATA, legacy_trailer::CHECKSUM))
}

/// The legacy `innodb` sum that is stored at offset 0.
pub fn innodb_new(page: &[u8]) -> u32 {
    fold(part(page, fil::PAGE_NO..fil::LEGACY_KEY_VERSION)).wrapping_add(fold(up_to_end(
        page,
        fil::DATA,
        legacy_trailer::CHECKSUM,
    )))
}

/// The legacy `innodb` sum that is stored in the trailer. It covers the other one, which has to
/// be in place.
pub fn innodb_old(page: &[u8]) -> u32 {
    fold(part(page, 0..fil::LEGACY_KEY_VERSION))
}

/// The `crc32` sum of a ROW_FORMAT=COMPRESSED page, also made after encryption.
pub fn zip_crc32(page: &[u8]) -> u32 {
    ZIP_PARTS.iter().fold(crc32c(up_to_end(page, fil::SPACE_ID, 0)), |sum, range| {
        sum ^ crc32c(part(page, range.clone()))
    })
}

/// The `innodb` sum of a ROW_FORMAT=COMPRESSED page: an Adler-32 that starts from 0.
pub fn zip_innodb(page: &[u8]) -> u32 {
    let sum = ZIP_PARTS.iter().fold(0, |sum, range| adler32(sum, part(page, range.clone())));
    adler32(sum, up_to_end(page, fil::SPACE_ID, 0))
}

/// Why a sum of a legacy page is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What the page says, at offset 0.
    pub stored: u32,
    /// What the page says in its trailer; equal to `stored` in pages that have only one.
    pub stored_trailer: u32,
    /// The `crc32` sum of the bytes that are there.
    pub computed: u32,
}

/// Whether any algorithm that servers have ever used confirms a legacy page. Servers of different
/// versions and settings leave their own sums, so one file may have several kinds.
///
/// A page whose two fields are of different kinds passes if one of them is an `innodb` sum that
/// fits and the other is what some server wrote in that place. Without any sum that fits, only
/// the constant of `none` in both fields passes.
pub fn verify_legacy(page: &[u8]) -> Result<(), Mismatch> {
    let stored = u32_at(page, fil::CHECKSUM).unwrap_or_default();
    let end = page.len().saturating_sub(legacy_trailer::CHECKSUM);
    let stored_trailer = u32_at(page, end).unwrap_or_default();
    let computed = legacy_crc32(page);
    if stored == stored_trailer && (stored == computed || stored == NONE) {
        return Ok(());
    }
    // The high half of the LSN is what the oldest servers had in the trailer.
    let lsn_high = u32_at(page, fil::LSN).unwrap_or_default();
    let old = innodb_old(page);
    let fits = if stored_trailer == old {
        stored == 0 || stored == NONE || stored == innodb_new(page)
    } else {
        (stored_trailer == lsn_high || stored_trailer == NONE) && stored == innodb_new(page)
    };
    if fits { Ok(()) } else { Err(Mismatch { stored, stored_trailer, computed }) }
}

/// Whether any algorithm that servers have ever used confirms a ROW_FORMAT=COMPRESSED page.
pub fn verify_zip(page: &[u8]) -> Result<(), Mismatch> {
    let stored = u32_at(page, fil::CHECKSUM).unwrap_or_default();
    let computed = zip_crc32(page);
    if stored == computed || stored == NONE || stored == zip_innodb(page) {
        return Ok(());
    }
    Err(Mismatch { stored, stored_trailer: stored, computed })
}

fn part(page: &[u8], range: Range<usize>) -> &[u8] {
    page.get(range).unwrap_or_default()
}

fn up_to_end(page: &[u8], start: usize, trailer: usize) -> &[u8] {
    page.len().checked_sub(trailer).and_then(|end| page.get(start..end)).unwrap_or_default()
}

/// The hash behind the `innodb` sums.
fn fold(bytes: &[u8]) -> u32 {
    const MASK: u32 = 1_653_893_711;
    const MASK_2: u32 = 1_463_735_687;
    bytes.iter().fold(0, |hash: u32, &byte| {
        let byte = u32::from(byte);
        (((hash ^ byte ^ MASK) << 8).wrapping_add(hash) ^ MASK_2).wrapping_add(byte)
    })
}

/// One Adler-32 step over `bytes`, from `sum`.
fn adler32(sum: u32, bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    /// As many bytes as cannot overflow 32 bits before the next division.
    const BLOCK: usize = 5552;
    let (mut a, mut b) = (sum & 0xffff, sum >> 16);
    for block in bytes.chunks(BLOCK) {
        for &byte in block {
            a += u32::from(byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The sum bit by bit.
    fn crc32c_plain(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
            })
        })
    }

    #[test]
    fn known_sums() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // Adler-32 proper starts from 1.
        assert_eq!(adler32(1, b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(1, &[0xff; 100_000]), 0x149a_302c);
        assert_eq!(fold(&[]), 0);
    }

    #[test]
    fn short_slices_are_no_problem() {
        for length in 0..64 {
            let page = vec![7; length];
            let _ = (verify_legacy(&page), verify_zip(&page));
            let _ = (full_crc32(&page), stored_full_crc32(&page));
        }
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_sum(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(crc32c(&bytes), crc32c_plain(&bytes));
        }

        #[test]
        fn every_algorithm_is_accepted_and_its_damage_noticed(
            mut page in prop::collection::vec(any::<u8>(), 4096),
            at in 38usize..4088,
        ) {
            let end = page.len() - 8;
            let put = |page: &mut Vec<u8>, at: usize, value: u32| {
                page[at..at + 4].copy_from_slice(&value.to_be_bytes());
            };
            let sum = legacy_crc32(&page);
            put(&mut page, 0, sum);
            put(&mut page, end, sum);
            prop_assert!(verify_legacy(&page).is_ok());
            page[at] ^= 1;
            prop_assert!(verify_legacy(&page).is_err());

            let sum = innodb_new(&page);
            put(&mut page, 0, sum);
            let sum = innodb_old(&page);
            put(&mut page, end, sum);
            prop_assert!(verify_legacy(&page).is_ok());
            page[at] ^= 1;
            prop_assert!(verify_legacy(&page).is_err());

            put(&mut page, 0, NONE);
            put(&mut page, end, NONE);
            prop_assert!(verify_legacy(&page).is_ok());

            for sum in [zip_crc32, zip_innodb] {
                let sum = sum(&page);
                put(&mut page, 0, sum);
                prop_assert!(verify_zip(&page).is_ok());
                page[at] ^= 1;
                prop_assert!(verify_zip(&page).is_err());
            }
        }
    }
}
