//! Tablespaces: flags, page 0, extents, file names.

pub mod data_file_path;
pub mod file_name;
pub mod flags;
pub mod header;
mod short_escapes;
pub mod xdes;

pub use flags::{FlagsError, PageCompression, SpaceFlags};
pub use header::{CryptData, HeaderError, SpaceHeader};

/// Servers make the files of tablespaces longer by whole blocks of so many bytes. With smaller
/// pages, the last ones may not be there before they are first written.
pub const FILE_BLOCK: u64 = 4096;
