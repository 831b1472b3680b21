//! Where rollback segments and undo logs have what.

/// The page of the system tablespace that lists the rollback segments.
pub const TRX_SYS: u32 = 5;
/// The list on it: tablespace and page of each, 4 bytes each.
pub const TRX_SYS_SLOTS: usize = 56;
/// How many rollback segments there can be.
pub const TRX_SYS_SLOT_COUNT: usize = 128;

/// The header page of a rollback segment.
pub mod segment {
    /// First pages of undo logs, 4 bytes each.
    pub const SLOTS: usize = 72;
    /// There is one slot for so many bytes of a page.
    pub const BYTES_PER_SLOT: usize = 16;
}

/// The first page of an undo log, behind the page header and that of undo pages.
pub mod first {
    /// State, 2 bytes.
    pub const STATE: usize = 56;
    /// The newest undo log on the page, 2 bytes; older ones are of transactions that have ended.
    pub const LAST_LOG: usize = 58;
    /// State of a transaction that has not ended.
    pub const ACTIVE: u16 = 1;
    /// State after XA PREPARE, and between that and the end of every commit that is in the binary
    /// log too.
    pub const PREPARED: u16 = 5;
    /// States of transactions that have ended.
    pub const ENDED: std::ops::RangeInclusive<u16> = 2..=4;
}

/// The header of an undo log, from its own offset.
pub mod log {
    /// Transaction id, 8 bytes.
    pub const TRX_ID: usize = 0;
    /// First record, 2 bytes.
    pub const START: usize = 18;
}

/// Every undo page.
pub mod page {
    /// Next page of the log, 4 bytes.
    pub const NEXT: usize = 50;
}

/// An undo record, from its own offset.
pub mod record {
    /// Next record or the end of the last one, 2 bytes.
    pub const NEXT: usize = 0;
    /// Kind, 1 byte. Behind it are, compressed, the record's number and the table's id.
    pub const KIND: usize = 2;
    /// The number of the record.
    pub const NUMBER: usize = 3;

    /// Kinds.
    pub mod kind {
        /// What of the byte is the kind.
        pub const MASK: u8 = 0x0f;
        /// A row was inserted.
        pub const INSERT: u8 = 11;
        /// A row was updated.
        pub const UPDATE: u8 = 12;
        /// A row was put where a deleted one was.
        pub const UPDATE_DELETED: u8 = 13;
        /// A row was deleted.
        pub const DELETE: u8 = 14;
        /// Rows were inserted into an empty table.
        pub const INSERT_INTO_EMPTY: u8 = 15;
    }
}
