//! Page types.

use std::fmt;

/// The type field of a page. Not an enumeration: a page may say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageType(pub u16);

/// Name of a type as the server's sources and `innochecksum` have it.
const NAMES: [(PageType, &str); 18] = [
    (PageType::ALLOCATED, "ALLOCATED"),
    (PageType::UNDO_LOG, "UNDO_LOG"),
    (PageType::INODE, "INODE"),
    (PageType::IBUF_FREE_LIST, "IBUF_FREE_LIST"),
    (PageType::IBUF_BITMAP, "IBUF_BITMAP"),
    (PageType::SYS, "SYS"),
    (PageType::TRX_SYS, "TRX_SYS"),
    (PageType::FSP_HDR, "FSP_HDR"),
    (PageType::XDES, "XDES"),
    (PageType::BLOB, "BLOB"),
    (PageType::ZBLOB, "ZBLOB"),
    (PageType::ZBLOB2, "ZBLOB2"),
    (PageType::UNKNOWN, "UNKNOWN"),
    (PageType::INSTANT, "INSTANT"),
    (PageType::RTREE, "RTREE"),
    (PageType::INDEX, "INDEX"),
    (PageType::PAGE_COMPRESSED, "PAGE_COMPRESSED"),
    (PageType::PAGE_COMPRESSED_ENCRYPTED, "PAGE_COMPRESSED_ENCRYPTED"),
];

impl PageType {
    /// Freshly allocated.
    pub const ALLOCATED: Self = Self(0);
    /// Undo log.
    pub const UNDO_LOG: Self = Self(2);
    /// Segment inodes.
    pub const INODE: Self = Self(3);
    /// Free list of the change buffer, up to 10.11.
    pub const IBUF_FREE_LIST: Self = Self(4);
    /// Bitmap of the change buffer; all zero from 11.0 on.
    pub const IBUF_BITMAP: Self = Self(5);
    /// Header of a rollback segment, of the dictionary or of the change buffer.
    pub const SYS: Self = Self(6);
    /// Transaction system, page 5 of the system tablespace.
    pub const TRX_SYS: Self = Self(7);
    /// Page 0 of a tablespace.
    pub const FSP_HDR: Self = Self(8);
    /// Extent descriptors.
    pub const XDES: Self = Self(9);
    /// Part of a column stored off its record.
    pub const BLOB: Self = Self(10);
    /// First page of a compressed BLOB.
    pub const ZBLOB: Self = Self(11);
    /// Further page of a compressed BLOB.
    pub const ZBLOB2: Self = Self(12);
    /// Replacement for garbage in files from before MySQL 5.5.
    pub const UNKNOWN: Self = Self(13);
    /// Root of a clustered index after instant ALTER TABLE.
    pub const INSTANT: Self = Self(18);
    /// Node of a spatial index.
    pub const RTREE: Self = Self(17854);
    /// Node of a B-tree.
    pub const INDEX: Self = Self(17855);
    /// Page-compressed, in a legacy file.
    pub const PAGE_COMPRESSED: Self = Self(34354);
    /// Page-compressed and encrypted, in a legacy file.
    pub const PAGE_COMPRESSED_ENCRYPTED: Self = Self(37401);

    /// In `full_crc32` files this bit marks a page-compressed page; the rest is its stored size.
    pub(super) const COMPRESSED_BIT: u16 = 0x8000;

    /// Bytes that a page-compressed page of a `full_crc32` file keeps, or `None` when the page is
    /// not page-compressed.
    pub const fn full_crc32_stored_size(self) -> Option<usize> {
        if self.0 & Self::COMPRESSED_BIT == 0 {
            return None;
        }
        // The field counts in units of 256 bytes.
        Some(((self.0 & !Self::COMPRESSED_BIT) as usize) << 8)
    }

    /// Whether this is a page-compressed page of a legacy file.
    pub const fn is_legacy_page_compressed(self) -> bool {
        matches!(self, Self::PAGE_COMPRESSED | Self::PAGE_COMPRESSED_ENCRYPTED)
    }

    /// Whether the page is a node of an index.
    pub const fn is_index(self) -> bool {
        matches!(self, Self::INDEX | Self::RTREE | Self::INSTANT)
    }
}

impl fmt::Display for PageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(known, _)| known == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}
