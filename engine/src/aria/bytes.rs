//! Checked access to Aria's numbers.
//!
//! Aria writes most numbers with the lowest byte first, in as many bytes as they need; only the
//! headers of tables and of key pages have the highest byte first, which `innodb::bytes` reads.
//! Offsets and lengths that come from a file are not to be trusted: every access is checked.

use super::lsn::AriaLsn;

/// The number of `size` bytes at `offset`, lowest byte first.
pub fn le_at(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The number of two bytes at `offset`.
pub fn le16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Writes a number of two bytes.
#[must_use = "a write out of bounds must not be ignored"]
pub fn put_le16(bytes: &mut [u8], offset: usize, value: u16) -> Option<()> {
    innodb::bytes::put(bytes, offset, &value.to_le_bytes())
}

/// Takes the fields of a record one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        le16_at(self.bytes(2)?, 0)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.number(4)?.try_into().ok()
    }

    /// A page number: five bytes.
    pub fn page(&mut self) -> Option<u64> {
        self.number(5)
    }

    /// A transaction id: six bytes.
    pub fn transaction(&mut self) -> Option<u64> {
        self.number(6)
    }

    /// Seven bytes.
    pub fn lsn(&mut self) -> Option<AriaLsn> {
        AriaLsn::read(self.bytes(AriaLsn::SIZE)?)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.number(8)
    }

    /// A name that ends with a zero byte.
    pub fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let name = self.bytes(end)?;
        self.bytes(1)?;
        Some(name)
    }

    fn number(&mut self, size: usize) -> Option<u64> {
        le_at(self.bytes(size)?, 0, size)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_end_where_the_bytes_do() {
        let mut fields = Fields::new(&[1, 2, 0, 0, 0, 0, b'n', 0, 7]);
        assert_eq!(fields.u8(), Some(1));
        assert_eq!(fields.page(), Some(2));
        assert_eq!(fields.name(), Some(&b"n"[..]));
        assert_eq!(fields.u16(), None);
        assert_eq!(fields.rest(), [7]);
        assert_eq!(le_at(&[1], usize::MAX, 2), None);
    }
}
