//! Whether a table has AUTO_INCREMENT. InnoDB does not know; the table's `.frm` says it of one of
//! its columns.
//!
//! A `.frm` that cannot be read for this counts as one without: an imported table whose counter
//! says nothing starts at 1, as one that never gave out a value does.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Where things are in the file. Its numbers are little-endian.
mod layout {
    /// What every binary file begins with.
    pub const MAGIC: [u8; 2] = [0xfe, 0x01];
    /// Length of what lies between the header and the place of the form, 2 bytes.
    pub const EXTRA_LENGTH: usize = 4;
    /// End of the header.
    pub const HEADER: usize = 64;
    /// In the form: number of columns, 2 bytes.
    pub const COLUMNS: usize = 258;
    /// In the form: length of the screens behind it, 2 bytes.
    pub const SCREENS: usize = 260;
    /// Length of the form.
    pub const FORM: usize = 288;
    /// Bytes of a column's description.
    pub const COLUMN: usize = 17;
    /// In it: what is special about the column, 1 byte.
    pub const SPECIAL: usize = 10;
    /// AUTO_INCREMENT.
    pub const NEXT_NUMBER: u8 = 15;
}

/// Most that is read: no `.frm` with 4096 columns is larger.
const SIZE_MAX: u64 = 16 << 20;

/// Whether the table whose rows are in `tablespace` has a column with AUTO_INCREMENT.
pub fn has_auto_increment(tablespace: &Path) -> Result<bool> {
    let Some(path) = definition(tablespace) else { return Ok(false) };
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(SIZE_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(parse(&bytes).unwrap_or(false)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", &path, error)),
    }
}

/// The definition of a table, or of the table that a partition belongs to.
fn definition(tablespace: &Path) -> Option<PathBuf> {
    let name = tablespace.file_name()?.to_str()?;
    let name = name.strip_suffix(".ibd")?;
    let end = name.find("#P#").or_else(|| name.find("#p#")).unwrap_or(name.len());
    Some(tablespace.with_file_name(format!("{}.frm", name.get(..end)?)))
}

fn parse(bytes: &[u8]) -> Option<bool> {
    let u16_at =
        |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    if !bytes.starts_with(&layout::MAGIC) {
        return None;
    }
    let place = layout::HEADER + u16_at(layout::EXTRA_LENGTH)?;
    let form = u32::from_le_bytes(*bytes.get(place..)?.first_chunk()?) as usize;
    let columns = u16_at(form.checked_add(layout::COLUMNS)?)?;
    let first = form + layout::FORM + u16_at(form + layout::SCREENS)?;
    let described = bytes.get(first..)?.get(..columns * layout::COLUMN)?;
    let (described, _) = described.as_chunks::<{ layout::COLUMN }>();
    Some(described.iter().any(|column| column[layout::SPECIAL] & 0x7f == layout::NEXT_NUMBER))
}
