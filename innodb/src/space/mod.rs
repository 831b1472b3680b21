//! Tablespaces: flags, page 0, extents, file names.

pub mod data_file_path;
pub mod file_name;
pub mod flags;
pub mod header;
mod short_escapes;
pub mod xdes;

pub use flags::{FlagsError, PageCompression, SpaceFlags};
pub use header::{CryptData, HeaderError, SpaceHeader};
