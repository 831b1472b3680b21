//! `.cfg`: what a server needs to know of a tablespace to import it.
//!
//! The server that is to import compares this with its own definition of the table, and takes
//! index ids and root pages from it. It has no checksum and no end mark. Numbers are big-endian;
//! a text is its length with the final NUL, its bytes, and NUL.
//!
//! | module | what |
//! |---|---|
//! | [`fields`] | the fields that an index really has |
//! | [`instant`] | what instant ALTER TABLE left in the clustered index |
//! | [`collation`] | bytes of a character, by collation |

pub mod collation;
pub mod fields;
pub mod instant;

use crate::PageSize;
use crate::dictionary::Table;
use collation::char_bytes;
use fields::{IndexFields, Origin};
use instant::FieldMap;

/// The only version there is.
const VERSION: u32 = 1;
/// In a field's length: the order is descending.
const DESCENDING: u32 = 1 << 31;

/// Main types of columns.
pub(crate) mod mtype {
    pub const VARCHAR: u32 = 1;
    pub const CHAR: u32 = 2;
    pub const FIXBINARY: u32 = 3;
    pub const BINARY: u32 = 4;
    pub const BLOB: u32 = 5;
    pub const INT: u32 = 6;
    pub const SYS: u32 = 8;
    pub const FLOAT: u32 = 9;
    pub const DOUBLE: u32 = 10;
    pub const VARMYSQL: u32 = 12;
    pub const MYSQL: u32 = 13;
    pub const GEOMETRY: u32 = 14;
}

/// Parts of a precise type.
pub(crate) mod prtype {
    pub const NOT_NULL: u32 = 0x100;
    pub const BINARY: u32 = 0x400;
    pub const COLLATION_SHIFT: u32 = 16;
    pub const COLLATION: u32 = 0x7fff;
}

/// Columns that every table has behind its own: name, precise type, length.
pub(crate) const SYSTEM_COLUMNS: [(&str, u32, u32); 3] =
    [("DB_ROW_ID", 0x100, 6), ("DB_TRX_ID", 0x101, 6), ("DB_ROLL_PTR", 0x102, 7)];

/// A definition that cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CfgError {
    /// The dictionary contradicts itself.
    #[error("the data dictionary is inconsistent: {0}")]
    Dictionary(String),
    /// The server has marked the index as corrupted.
    #[error("index {0} is marked as corrupted")]
    CorruptedIndex(String),
}

/// What is not in the dictionary.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Name of the machine. Nobody reads it.
    pub host: &'a str,
    /// `innodb_page_size`.
    pub page_size: PageSize,
    /// The next AUTO_INCREMENT value; 0 for tables without one.
    pub next_auto_increment: u64,
    /// What instant ALTER TABLE made of the clustered index.
    pub field_map: Option<&'a FieldMap>,
}

/// The bytes of the file.
///
/// # Errors
/// When the table cannot be exported.
pub fn write(table: &Table, circumstances: Circumstances<'_>) -> Result<Vec<u8>, CfgError> {
    let indexes = fields::of_table(table, circumstances.field_map)?;
    let mut out = Writer(Vec::with_capacity(1024));
    out.u32(VERSION);
    out.text(circumstances.host.as_bytes())?;
    out.text(&table.name)?;
    out.u64(circumstances.next_auto_increment);
    out.u32(u32::try_from(circumstances.page_size.bytes()).unwrap_or(u32::MAX));
    out.u32(table.flags);
    columns(table, &indexes, &mut out)?;
    out.count(indexes.len())?;
    for index in &indexes {
        self::index(table, index, &mut out)?;
    }
    Ok(out.0)
}

fn columns(table: &Table, indexes: &[IndexFields<'_>], out: &mut Writer) -> Result<(), CfgError> {
    let stored: Vec<_> = table.columns.iter().filter(|column| !column.is_virtual()).collect();
    out.count(stored.len() + SYSTEM_COLUMNS.len())?;
    let own = stored.iter().map(|column| {
        let chars = match has_collation(column.mtype) {
            true => char_bytes(column.prtype >> prtype::COLLATION_SHIFT & prtype::COLLATION),
            false => char_bytes(0),
        };
        (&*column.name, column.prtype, column.mtype, column.len, chars.max * 5 + chars.min)
    });
    let system = SYSTEM_COLUMNS
        .iter()
        .map(|(name, prtype, len)| (name.as_bytes(), *prtype, mtype::SYS, *len, 0));
    for (number, (name, prtype, mtype, len, chars)) in own.chain(system).enumerate() {
        let (ordering, max_prefix) = ordering(indexes, number);
        out.u32(prtype);
        out.u32(mtype);
        out.u32(len);
        out.u32(chars);
        out.count(number)?;
        out.u32(ordering.into());
        out.u32(max_prefix);
        out.text(name)?;
    }
    Ok(())
}

/// Whether a column orders an index, and the longest prefix with which it does; 0 when it does
/// with its whole length.
fn ordering(indexes: &[IndexFields<'_>], column: usize) -> (bool, u32) {
    let mut longest = None;
    for index in indexes {
        for field in index.fields.iter().take(index.unique) {
            if field.origin == Origin::Stored(column) {
                longest = match (longest, field.prefix_len) {
                    (None, prefix) => Some(prefix),
                    (Some(0), _) | (_, 0) => Some(0),
                    (Some(longest), prefix) => Some(longest.max(prefix)),
                };
            }
        }
    }
    (longest.is_some(), longest.unwrap_or(0))
}

fn index(table: &Table, index: &IndexFields<'_>, out: &mut Writer) -> Result<(), CfgError> {
    out.u64(index.index.id);
    out.u32(table.space.0);
    out.u32(index.index.root.0);
    out.u32(index.index.kind);
    out.u32(index.trx_id_offset);
    out.count(index.index.fields.len())?;
    out.count(index.unique)?;
    out.count(index.nullable())?;
    out.count(index.fields.len())?;
    out.text(&index.index.name)?;
    for field in &index.fields {
        out.u32(field.prefix_len);
        out.u32(field.fixed_len | if field.descending { DESCENDING } else { 0 });
        out.text(field.name)?;
    }
    Ok(())
}

/// Whether values of a main type are texts in a collation.
pub(crate) const fn has_collation(kind: u32) -> bool {
    matches!(
        kind,
        mtype::VARCHAR
            | mtype::CHAR
            | mtype::FIXBINARY
            | mtype::BINARY
            | mtype::BLOB
            | mtype::VARMYSQL
            | mtype::MYSQL
    )
}

/// Puts the parts of the file one behind the other.
struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    fn count(&mut self, value: usize) -> Result<(), CfgError> {
        let value = u32::try_from(value);
        self.u32(value.map_err(|_| CfgError::Dictionary("a number is too large".to_owned()))?);
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> Result<(), CfgError> {
        if text.contains(&0) {
            return Err(CfgError::Dictionary("a name contains NUL".to_owned()));
        }
        self.count(text.len() + 1)?;
        self.0.extend(text);
        self.0.push(0);
        Ok(())
    }
}
