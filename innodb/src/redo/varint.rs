//! The variable-length numbers of redo records: ids, offsets, lengths.
//!
//! | first byte | bytes behind it | value |
//! |---|---|---|
//! | `0xxxxxxx` | 0 | 0 … 127 |
//! | `10xxxxxx` | 1 | + 128 |
//! | `110xxxxx` | 2 | + 16 512 |
//! | `1110xxxx` | 3 | + 2 113 664 |
//! | `11110000` | 4 | + 270 549 120, up to 2^32 − 1 |
//!
//! Each value has exactly one encoding. First bytes from `f1` on are invalid.

/// Smallest value that needs one byte more, by number of bytes behind the first.
pub const MIN_2: u32 = 128;
/// Smallest value of the three-byte form.
pub const MIN_3: u32 = 16_512;
/// Smallest value of the four-byte form.
pub const MIN_4: u32 = 2_113_664;
/// Smallest value of the five-byte form.
pub const MIN_5: u32 = 270_549_120;

/// Takes one number off the front of `input`; `None` when it is cut short or invalid.
#[inline]
pub fn take(input: &mut &[u8]) -> Option<u32> {
    let (&first, rest) = input.split_first()?;
    let value;
    match first {
        0..=0x7f => {
            *input = rest;
            return Some(u32::from(first));
        }
        0x80..=0xbf => {
            let (tail, rest) = rest.split_first_chunk::<1>()?;
            value = MIN_2 + (u32::from(first & 0x3f) << 8 | u32::from(tail[0]));
            *input = rest;
        }
        0xc0..=0xdf => {
            let (tail, rest) = rest.split_first_chunk::<2>()?;
            value = MIN_3 + (u32::from(first & 0x1f) << 16 | u32::from(u16::from_be_bytes(*tail)));
            *input = rest;
        }
        0xe0..=0xef => {
            let (tail, rest) = rest.split_first_chunk::<3>()?;
            let [a, b, c] = *tail;
            value = MIN_4 + u32::from_be_bytes([first & 0x0f, a, b, c]);
            *input = rest;
        }
        0xf0 => {
            let (tail, rest) = rest.split_first_chunk::<4>()?;
            value = MIN_5.checked_add(u32::from_be_bytes(*tail))?;
            *input = rest;
        }
        0xf1..=0xff => return None,
    }
    Some(value)
}

/// Appends the encoding of `value`.
pub fn put(out: &mut Vec<u8>, value: u32) {
    match value {
        0..MIN_2 => out.push(value as u8),
        MIN_2..MIN_3 => out.extend(((value - MIN_2) as u16 | 0x8000).to_be_bytes()),
        MIN_3..MIN_4 => out.extend(&((value - MIN_3) | 0x00c0_0000).to_be_bytes()[1..]),
        MIN_4..MIN_5 => out.extend(((value - MIN_4) | 0xe000_0000).to_be_bytes()),
        MIN_5.. => {
            out.push(0xf0);
            out.extend((value - MIN_5).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: u32) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, value);
        out
    }

    #[test]
    fn known_encodings() {
        assert_eq!(encoded(127), [0x7f]);
        assert_eq!(encoded(128), [0x80, 0x00]);
        assert_eq!(encoded(300), [0x80, 0xac]);
        assert_eq!(encoded(16_511), [0xbf, 0xff]);
        assert_eq!(encoded(16_512), [0xc0, 0, 0]);
        assert_eq!(encoded(2_113_664), [0xe0, 0, 0, 0]);
        assert_eq!(encoded(u32::MAX), [0xf0, 0xef, 0xdf, 0xbf, 0x7f]);
    }

    #[test]
    fn invalid_first_bytes_and_overflow_are_refused() {
        for first in 0xf1..=0xff {
            assert_eq!(take(&mut &[first, 0, 0, 0, 0][..]), None);
        }
        assert_eq!(take(&mut &[0xf0, 0xff, 0xff, 0xff, 0xff][..]), None);
        assert_eq!(take(&mut &[0x80][..]), None);
        assert_eq!(take(&mut &[][..]), None);
    }

    proptest! {
        #[test]
        fn round_trip(value: u32) {
            let bytes = encoded(value);
            let mut input = &bytes[..];
            prop_assert_eq!(take(&mut input), Some(value));
            prop_assert!(input.is_empty());
        }
    }
}
