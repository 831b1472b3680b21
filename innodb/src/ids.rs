//! The numbers of InnoDB that must not mix.
//!
//! Each prints as the server's error log prints it, so that one search finds the same page in
//! both logs.

use std::fmt;

/// Byte position in the redo log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes from `start` to here, or `None` when `start` is ahead of us.
    pub const fn bytes_since(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }

    /// The position `bytes` further on. Saturates: an LSN near 2^64 does not occur in a log.
    #[must_use]
    pub const fn advanced(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a tablespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The system tablespace, `ibdata1` and its continuations.
    pub const SYSTEM: Self = Self(0);
    /// First number that no persistent tablespace can have.
    pub const LIMIT: Self = Self(0xffff_fff0);
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a page within its tablespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(pub u32);

impl PageNo {
    /// `FIL_NULL`: no page.
    pub const NULL: Self = Self(u32::MAX);
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Address of a page. Prints as the server does: `[page id: space=5, page number=42]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// The tablespace.
    pub space: SpaceId,
    /// The page within it.
    pub page: PageNo,
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[page id: space={}, page number={}]", self.space, self.page)
    }
}

/// A page size in bytes: a power of two from 1024 (compressed pages) to 65536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// The size that almost every server has.
    pub const DEFAULT: Self = Self(16384);
    /// The smallest `innodb_page_size`.
    pub const MIN_LOGICAL: Self = Self(4096);
    /// The largest `innodb_page_size`.
    pub const MAX: Self = Self(65536);

    /// `None` unless `bytes` is a power of two from 1024 to 65536.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1024 && bytes <= 65536 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
