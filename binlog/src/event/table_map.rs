//! The table that following events of rows are about.
//!
//! The number of a table means nothing beyond the statement that the map belongs to.

use crate::bytes::{Bytes, Malformed, Read, bit, bitmap_bytes};
use crate::row::Column;

/// Most columns that a table has.
const COLUMNS_MAX: usize = 4096;

/// Bit of the flags: the table has triggers.
const HAS_TRIGGERS: u16 = 0x4000;

/// A table as a statement found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap<'a> {
    /// Number by which events of rows name it.
    pub table: u64,
    /// Whether it has triggers.
    pub has_triggers: bool,
    /// Its database.
    pub database: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// Its columns.
    pub columns: Vec<Column>,
    /// Types as they are stored, one byte a column.
    pub types: &'a [u8],
    /// Metadata of the columns, as stored.
    pub metadata: &'a [u8],
    /// Names, signs, character sets, if the server logs them.
    pub optional: &'a [u8],
}

/// The number of the table, and where its database is named.
fn begin<'a>(body: &'a [u8]) -> Read<(u64, u16, Bytes<'a>)> {
    let mut bytes = Bytes(body);
    let table = bytes.uint(6, "table number")?;
    let flags = bytes.u16("flags")?;
    Ok((table, flags, bytes))
}

/// Offset in the body where the length of the database's name is.
pub const DATABASE_AT: usize = 8;

/// Number, database and name of the table, without its columns.
pub fn names(body: &[u8]) -> Read<(u64, &[u8], &[u8])> {
    let (table, _, mut bytes) = begin(body)?;
    let database = bytes.name("database")?;
    Ok((table, database, bytes.name("table")?))
}

impl<'a> TableMap<'a> {
    /// Reads the body.
    pub fn parse(body: &'a [u8]) -> Read<Self> {
        let (table, flags, mut bytes) = begin(body)?;
        let database = bytes.name("database")?;
        let name = bytes.name("table")?;
        let count = bytes.packed_length("number of columns")?;
        if count > COLUMNS_MAX {
            return Err(Malformed("number of columns"));
        }
        let types = bytes.take(count, "types of columns")?;
        let length = bytes.packed_length("length of metadata")?;
        let metadata = bytes.take(length, "metadata")?;
        let nullable = bytes.take(bitmap_bytes(count), "which columns are nullable")?;
        let mut rest = Bytes(metadata);
        let mut columns = Vec::with_capacity(count);
        for (index, kind) in types.iter().enumerate() {
            columns.push(Column::parse(*kind, bit(nullable, index), &mut rest)?);
        }
        Ok(Self {
            table,
            has_triggers: flags & HAS_TRIGGERS != 0,
            database,
            name,
            columns,
            types,
            metadata,
            optional: bytes.0,
        })
    }
}

/// Kinds of optional metadata.
mod kind {
    pub const SIGNEDNESS: u8 = 1;
    pub const DEFAULT_CHARSET: u8 = 2;
    pub const COLUMN_CHARSET: u8 = 3;
    pub const COLUMN_NAME: u8 = 4;
    pub const SET_VALUES: u8 = 5;
    pub const ENUM_VALUES: u8 = 6;
    pub const GEOMETRY_TYPE: u8 = 7;
    pub const PRIMARY_KEY: u8 = 8;
    pub const PRIMARY_KEY_PREFIX: u8 = 9;
    pub const ENUM_SET_DEFAULT_CHARSET: u8 = 10;
    pub const ENUM_SET_COLUMN_CHARSET: u8 = 11;
}

/// Collations of some of the columns, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Collations {
    /// Nothing is said.
    #[default]
    Unknown,
    /// One for all but some, which are named by their index.
    Default(u64, Vec<(u64, u64)>),
    /// One for each.
    Each(Vec<u64>),
}

impl Collations {
    /// The collation of a column, by its index among those that have one.
    pub fn of(&self, index: usize) -> Option<u16> {
        let number = match self {
            Self::Unknown => return None,
            Self::Default(default, others) => others
                .iter()
                .find(|(other, _)| *other == index as u64)
                .map_or(default, |(_, collation)| collation),
            Self::Each(all) => all.get(index)?,
        };
        u16::try_from(*number).ok()
    }
}

/// What a map can say of its columns with `binlog_row_metadata=FULL` or `MINIMAL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Optional<'a> {
    /// One bit for each column that is a number, the highest first; 1 means unsigned.
    pub unsigned: Option<&'a [u8]>,
    /// Collations of text columns.
    pub collations: Collations,
    /// Collations of ENUM and SET columns.
    pub enum_collations: Collations,
    /// Names of the columns.
    pub names: Vec<&'a [u8]>,
    /// Members of SET columns.
    pub set_values: Vec<Vec<&'a [u8]>>,
    /// Members of ENUM columns.
    pub enum_values: Vec<Vec<&'a [u8]>>,
    /// Kinds of geometry.
    pub geometries: Vec<u64>,
    /// Columns of the primary key, and how much of each in characters; 0 for all.
    pub primary_key: Vec<(u64, u64)>,
}

impl<'a> Optional<'a> {
    /// Reads the optional part of a map.
    pub fn parse(bytes: &'a [u8]) -> Read<Self> {
        let mut optional = Self::default();
        let mut bytes = Bytes(bytes);
        while !bytes.0.is_empty() {
            let kind = bytes.u8("kind of metadata")?;
            let length = bytes.packed_length("length of metadata")?;
            let value = Bytes(bytes.take(length, "metadata")?);
            match kind {
                kind::SIGNEDNESS => optional.unsigned = Some(value.0),
                kind::DEFAULT_CHARSET => optional.collations = default(value)?,
                kind::COLUMN_CHARSET => optional.collations = Collations::Each(numbers(value)?),
                kind::COLUMN_NAME => optional.names = texts(value)?,
                kind::SET_VALUES => optional.set_values = lists(value)?,
                kind::ENUM_VALUES => optional.enum_values = lists(value)?,
                kind::GEOMETRY_TYPE => optional.geometries = numbers(value)?,
                kind::PRIMARY_KEY => {
                    let columns = numbers(value)?;
                    optional.primary_key = columns.into_iter().map(|column| (column, 0)).collect();
                }
                kind::PRIMARY_KEY_PREFIX => optional.primary_key = pairs(value)?,
                kind::ENUM_SET_DEFAULT_CHARSET => optional.enum_collations = default(value)?,
                kind::ENUM_SET_COLUMN_CHARSET => {
                    optional.enum_collations = Collations::Each(numbers(value)?);
                }
                // Kinds of later servers add to what is known.
                _ => {}
            }
        }
        Ok(optional)
    }
}

fn numbers(mut bytes: Bytes<'_>) -> Read<Vec<u64>> {
    let mut numbers = Vec::new();
    while !bytes.0.is_empty() {
        numbers.push(bytes.packed("metadata")?);
    }
    Ok(numbers)
}

fn pairs(bytes: Bytes<'_>) -> Read<Vec<(u64, u64)>> {
    let numbers = numbers(bytes)?;
    let (pairs, []) = numbers.as_chunks::<2>() else { return Err(Malformed("metadata")) };
    Ok(pairs.iter().map(|[first, second]| (*first, *second)).collect())
}

fn default(mut bytes: Bytes<'_>) -> Read<Collations> {
    let default = bytes.packed("collation")?;
    Ok(Collations::Default(default, pairs(bytes)?))
}

fn text<'a>(bytes: &mut Bytes<'a>) -> Read<&'a [u8]> {
    let length = bytes.packed_length("name")?;
    bytes.take(length, "name")
}

fn texts(mut bytes: Bytes<'_>) -> Read<Vec<&[u8]>> {
    let mut texts = Vec::new();
    while !bytes.0.is_empty() {
        texts.push(text(&mut bytes)?);
    }
    Ok(texts)
}

fn lists(mut bytes: Bytes<'_>) -> Read<Vec<Vec<&[u8]>>> {
    let mut lists = Vec::new();
    while !bytes.0.is_empty() {
        let count = bytes.packed_length("members")?;
        if count > bytes.0.len() {
            return Err(Malformed("members"));
        }
        lists.push((0..count).map(|_| text(&mut bytes)).collect::<Read<_>>()?);
    }
    Ok(lists)
}
