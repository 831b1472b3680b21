//! Where the data dictionary is, and what its records hold.

/// The page of the system tablespace that names the roots of the dictionary's trees.
pub const HEADER: u32 = 7;

/// Fields of that page: page numbers of roots, 4 bytes each.
pub mod header {
    /// Root of `SYS_TABLES`.
    pub const TABLES: usize = 70;
    /// Root of `SYS_COLUMNS`.
    pub const COLUMNS: usize = 78;
    /// Root of `SYS_INDEXES`.
    pub const INDEXES: usize = 82;
    /// Root of `SYS_FIELDS`.
    pub const FIELDS: usize = 86;
}

/// Ids that the tables of the dictionary itself have: `SYS_TABLES`, `SYS_COLUMNS`,
/// `SYS_INDEXES`, `SYS_FIELDS`.
pub const OWN_TABLES: std::ops::RangeInclusive<u64> = 1..=4;

/// Fields of a record of `SYS_TABLES`. In all four, two system columns lie behind the key.
pub mod tables {
    /// `database/table` in the encoding of file names.
    pub const NAME: usize = 0;
    /// Table id, 8 bytes.
    pub const ID: usize = 3;
    /// Number of columns, 4 bytes; see [`COMPACT`].
    pub const N_COLS: usize = 4;
    /// Flags, 4 bytes.
    pub const TYPE: usize = 5;
    /// Tablespace, 4 bytes.
    pub const SPACE: usize = 9;
    /// In the number of columns: the row format is not REDUNDANT.
    pub const COMPACT: u32 = 1 << 31;
    /// In the flags: always set, and set again for every row format but REDUNDANT in memory.
    pub const TYPE_ONE: u32 = 1;
}

/// Fields of a record of `SYS_COLUMNS`.
pub mod columns {
    /// Table id, 8 bytes.
    pub const TABLE_ID: usize = 0;
    /// Position, 4 bytes; virtual columns have a number of their own in its upper half.
    pub const POS: usize = 1;
    /// Name.
    pub const NAME: usize = 4;
    /// Main type, 4 bytes.
    pub const MTYPE: usize = 5;
    /// Precise type, 4 bytes.
    pub const PRTYPE: usize = 6;
    /// Length, 4 bytes.
    pub const LEN: usize = 7;
}

/// Fields of a record of `SYS_INDEXES`.
pub mod indexes {
    /// Table id, 8 bytes.
    pub const TABLE_ID: usize = 0;
    /// Index id, 8 bytes.
    pub const ID: usize = 1;
    /// Name.
    pub const NAME: usize = 4;
    /// Number of fields that the user named, 4 bytes.
    pub const N_FIELDS: usize = 5;
    /// Kind, 4 bytes.
    pub const TYPE: usize = 6;
    /// Root page, 4 bytes.
    pub const ROOT: usize = 8;
    /// First byte of the name while the index is being made.
    pub const UNCOMMITTED: u8 = 0xff;
}

/// Fields of a record of `SYS_FIELDS`.
pub mod fields {
    /// Index id, 8 bytes.
    pub const INDEX_ID: usize = 0;
    /// Position, 4 bytes; with a prefix length or a descending order in an encoding of its own.
    pub const POS: usize = 1;
    /// Name of the column.
    pub const COLUMN: usize = 4;
    /// Positions above have the position in the upper half.
    pub const PLAIN_MAX: u32 = 0xffff;
    /// In the lower half: descending.
    pub const DESCENDING: u32 = 0x8000;
}
