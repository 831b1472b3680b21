//! Where things are on a page. All numbers are big-endian; offsets count from the page start.

/// The header of every page, 38 bytes.
pub mod fil {
    /// Legacy formats: checksum, 4 bytes.
    pub const CHECKSUM: usize = 0;
    /// `full_crc32`: version of the key the page is encrypted with, 0 = plain; 4 bytes.
    pub const KEY_VERSION: usize = 0;
    /// Page number, 4 bytes. From here on redo may not write below [`PREV`].
    pub const PAGE_NO: usize = 4;
    /// Previous page of the same level, 4 bytes.
    pub const PREV: usize = 8;
    /// Next page of the same level or of a BLOB, 4 bytes.
    pub const NEXT: usize = 12;
    /// End LSN of the last mini-transaction that changed the page, 8 bytes.
    pub const LSN: usize = 16;
    /// Page type, 2 bytes; see [`PageType`](crate::page::PageType).
    pub const TYPE: usize = 24;
    /// Legacy formats: version of the key the page is encrypted with, 0 = plain; 4 bytes.
    pub const LEGACY_KEY_VERSION: usize = 26;
    /// Legacy formats: checksum of the encrypted page, 4 bytes.
    pub const ENCRYPTED_CHECKSUM: usize = 30;
    /// On page 0 of the system tablespace of servers up to 10.7: the LSN at which the log starts
    /// when there is none, 8 bytes.
    pub const FLUSH_LSN: usize = 26;
    /// Tablespace id, 4 bytes.
    pub const SPACE_ID: usize = 34;
    /// End of the header.
    pub const DATA: usize = 38;
}

/// The trailer of `full_crc32` pages, counted back from the end of the page.
pub mod full_crc32_trailer {
    /// Low half of the LSN.
    pub const LSN_LOW: usize = 8;
    /// CRC-32C of everything before it. Page-compressed pages have it at their stored end.
    pub const CHECKSUM: usize = 4;
}

/// Page-compressed pages of `full_crc32` files.
pub mod compressed_full_crc32 {
    /// The payload: what precedes it is the header of the page as far as its type.
    pub const PAYLOAD: usize = 26;
    /// Low byte of where payload and trailer end together, counted back from the end of the stored
    /// bytes; only for algorithms that do not find the end of their payload.
    pub const END_LOW: usize = 5;
    /// Bytes behind the payload, that byte included.
    pub const TRAILER_MAX: usize = 5;
}

/// The trailer of legacy pages, counted back from the end of the page. ROW_FORMAT=COMPRESSED
/// pages have none.
pub mod legacy_trailer {
    /// Second checksum.
    pub const CHECKSUM: usize = 8;
    /// Low half of the LSN.
    pub const LSN_LOW: usize = 4;
}

/// The outer header of page-compressed pages in legacy files.
pub mod page_compressed {
    /// Algorithm as 8 bytes, when the page is not also encrypted.
    pub const ALGORITHM: usize = 26;
    /// Length of the payload, 2 bytes.
    pub const PAYLOAD_LENGTH: usize = 38;
    /// Payload of a page that is not encrypted.
    pub const PAYLOAD: usize = 40;
    /// Algorithm as 2 bytes, when the page is also encrypted.
    pub const ALGORITHM_ENCRYPTED: usize = 40;
    /// Payload of an encrypted page.
    pub const PAYLOAD_ENCRYPTED: usize = 42;
}

/// The header of index pages, behind the page header.
pub mod index {
    /// Number of directory slots, 2 bytes.
    pub const N_DIR_SLOTS: usize = 38;
    /// First byte behind the records, 2 bytes.
    pub const HEAP_TOP: usize = 40;
    /// Number of records ever placed, 2 bytes; [`COMP`] is a flag in it.
    pub const N_HEAP: usize = 42;
    /// First record of the free list or 0, 2 bytes.
    pub const FREE: usize = 44;
    /// Bytes in the free list, 2 bytes.
    pub const GARBAGE: usize = 46;
    /// The last inserted record or 0, 2 bytes.
    pub const LAST_INSERT: usize = 48;
    /// Direction of inserts in the low 3 bits, instant ALTER in the rest; 2 bytes.
    pub const DIRECTION: usize = 50;
    /// Inserts in that direction, 2 bytes.
    pub const N_DIRECTION: usize = 52;
    /// Number of user records, 2 bytes.
    pub const N_RECS: usize = 54;
    /// Secondary leaf pages: largest transaction id, 8 bytes.
    pub const MAX_TRX_ID: usize = 56;
    /// Level in the tree, 0 = leaf; 2 bytes.
    pub const LEVEL: usize = 64;
    /// Index id, 8 bytes.
    pub const INDEX_ID: usize = 66;
    /// Segment headers of a root page, 20 bytes.
    pub const SEGMENTS: usize = 74;
    /// The records.
    pub const DATA: usize = 94;
    /// Flag in [`N_HEAP`]: records are in the COMPACT style.
    pub const COMP: u16 = 0x8000;
    /// The page directory ends this far from the end of the page, and grows downwards.
    pub const DIRECTORY_END: usize = 8;
}

/// The header of undo log pages, behind the page header.
pub mod undo {
    /// Type of undo log, 2 bytes; 0 since undo logs of inserts and updates were merged.
    pub const TYPE: usize = 38;
    /// First record on the page, 2 bytes.
    pub const START: usize = 40;
    /// First free byte, 2 bytes.
    pub const FREE: usize = 42;
    /// Node in the list of pages of the log, 12 bytes.
    pub const NODE: usize = 44;
    /// End of the header.
    pub const DATA: usize = 56;
    /// Header of the undo segment, on its first page.
    pub const SEGMENT: usize = 56;
    /// End of the header of the undo segment.
    pub const SEGMENT_END: usize = 86;
    /// Undo records end before this far from the end of the page.
    pub const END: usize = 8;
}
