//! Checked little-endian reading: nobody slices by hand.
//!
//! Every number of a binary log is little-endian, save inside of some column values. A read that
//! does not fit fails with the name of what was being read.

/// What an event lacks, or has too much of. Names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Result of reading a part of an event.
pub type Read<T> = Result<T, Malformed>;

/// The rest of a run of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `length` bytes.
    pub fn take(&mut self, length: usize, what: &'static str) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next bytes, as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Read<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Read<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Read<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Read<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of `width` bytes, of which there are at most eight.
    pub fn uint(&mut self, width: usize, what: &'static str) -> Read<u64> {
        self.take(width, what).map(uint)
    }

    /// A number in the length encoding of the protocol.
    pub fn packed(&mut self, what: &'static str) -> Read<u64> {
        match self.u8(what)? {
            small @ ..=250 => Ok(small.into()),
            252 => self.uint(2, what),
            253 => self.uint(3, what),
            254 => self.uint(8, what),
            251 | 255 => Err(Malformed(what)),
        }
    }

    /// [`packed`](Self::packed) as a length of bytes that are there.
    pub fn packed_length(&mut self, what: &'static str) -> Read<usize> {
        let length = self.packed(what)?;
        usize::try_from(length).map_err(|_| Malformed(what))
    }

    /// A length in one byte, and that many bytes.
    pub fn short_text(&mut self, what: &'static str) -> Read<&'a [u8]> {
        let length = self.u8(what)?;
        self.take(length.into(), what)
    }

    /// A length in one byte, that many bytes, and a zero byte.
    pub fn name(&mut self, what: &'static str) -> Read<&'a [u8]> {
        let name = self.short_text(what)?;
        match self.u8(what)? {
            0 => Ok(name),
            _ => Err(Malformed(what)),
        }
    }
}

/// A little-endian number of up to eight bytes.
pub fn uint(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A big-endian number of up to eight bytes.
pub fn big_uint(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A little-endian number in two's complement.
pub fn int(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    (uint(bytes) << unused).cast_signed() >> unused
}

/// Whether bit `index` is set, counted from the lowest bit of the first byte. Beyond the end none
/// is.
pub fn bit(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// How many of the first `width` bits are set.
pub fn count_bits(bits: &[u8], width: usize) -> usize {
    let whole = bits.iter().take(width / 8).map(|byte| byte.count_ones() as usize).sum::<usize>();
    whole + (width / 8 * 8..width).filter(|index| bit(bits, *index)).count()
}

/// Bytes of a bitmap.
pub const fn bitmap_bytes(width: usize) -> usize {
    width.div_ceil(8)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(uint(&[1, 2, 3]), 0x03_0201);
        assert_eq!(big_uint(&[1, 2, 3]), 0x01_0203);
        assert_eq!(int(&[0xff, 0xff, 0xff]), -1);
        assert_eq!(int(&[0, 0, 0x80]), -8_388_608);
        assert_eq!(int(&[0xff, 0x7f]), 32767);
        assert_eq!(int(&[0xff; 8]), -1);
    }

    #[test]
    fn packed_numbers() {
        let packed = |bytes: &[u8]| Bytes(bytes).packed("number");
        assert_eq!(packed(&[250]), Ok(250));
        assert_eq!(packed(&[252, 1, 2]), Ok(0x201));
        assert_eq!(packed(&[253, 1, 2, 3]), Ok(0x3_0201));
        assert_eq!(packed(&[254, 1, 0, 0, 0, 0, 0, 0, 1]), Ok(0x100_0000_0000_0001));
        for bad in [&[251][..], &[255], &[252, 1], &[]] {
            assert_eq!(packed(bad), Err(Malformed("number")));
        }
    }

    #[test]
    fn bits() {
        assert!(bit(&[0, 2], 9) && !bit(&[0, 2], 8) && !bit(&[0, 2], 16));
        assert_eq!(count_bits(&[0xff, 0xff], 11), 11);
        assert_eq!(count_bits(&[0xff], 11), 8);
    }
}
