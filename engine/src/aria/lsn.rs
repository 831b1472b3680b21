//! Places in Aria's log.

use std::fmt;

use super::bytes::le_at;

/// A place in Aria's log: the number of a file and an offset in it. The place where a record
/// begins is its LSN; places grow with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AriaLsn(u64);

impl AriaLsn {
    /// Bytes that it takes in files.
    pub const SIZE: usize = 7;
    /// No place at all; smaller than all others.
    pub const NONE: Self = Self(0);
    /// What stands for "no limit": greater than all others.
    pub const MAX: Self = Self(0x00ff_ffff_ffff_ffff);

    /// The place `offset` in the log file `file`.
    pub fn new(file: u32, offset: u32) -> Self {
        Self(u64::from(file & 0x00ff_ffff) << 32 | u64::from(offset))
    }

    /// Number of the log file.
    pub fn file(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Offset in the log file.
    pub fn offset(self) -> u32 {
        self.0 as u32
    }

    /// From its seven bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self::new(le_at(bytes, 0, 3)? as u32, le_at(bytes, 3, 4)? as u32))
    }

    /// Its seven bytes.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let ([f0, f1, f2, _], [o0, o1, o2, o3]) =
            (self.file().to_le_bytes(), self.offset().to_le_bytes());
        [f0, f1, f2, o0, o1, o2, o3]
    }

    /// The place `distance` before this one, as if the log were one file of 4 GiB steps.
    pub fn back(self, distance: u64) -> Option<Self> {
        self.0.checked_sub(distance).map(Self)
    }

    /// Whether this is a place at all.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl fmt::Display for AriaLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{:#x})", self.file(), self.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_order() {
        let lsn = AriaLsn::new(0x0001_0203, 0x0405_0607);
        assert_eq!(lsn.to_bytes(), [3, 2, 1, 7, 6, 5, 4]);
        assert_eq!(AriaLsn::read(&lsn.to_bytes()), Some(lsn));
        assert_eq!(AriaLsn::MAX.to_bytes(), [0xff; 7]);
        assert!(AriaLsn::new(1, u32::MAX) < AriaLsn::new(2, 0));
        assert_eq!(AriaLsn::new(2, 1).back(2), Some(AriaLsn::new(1, u32::MAX)));
        assert_eq!(lsn.to_string(), "(66051,0x4050607)");
    }
}
