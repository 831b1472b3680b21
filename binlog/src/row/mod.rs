//! Columns, and the rows that are made of them.
//!
//! A row has a bit for each of its columns that says whether it is NULL, and behind these bits the
//! values of those that are not, one after another. How long a value is says its column, and for
//! many types the value itself.

pub mod decimal;
pub mod time;
mod value;

use crate::bytes::{Bytes, Malformed, Read, bit, bitmap_bytes, count_bits, uint};

pub use value::Value;

/// Type codes, as maps of tables have them.
pub mod code {
    #![allow(missing_docs)]
    pub const DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const MYSQL_JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// What a column holds, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number of so many bytes. Whether it has a sign the log does not say.
    Int(u8),
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// Digits, and how many of them are behind the point.
    Decimal(u8, u8),
    /// So many bits.
    Bit(u16),
    /// Seconds.
    Timestamp,
    /// Seconds, and so many digits of a fraction.
    Timestamp2(u8),
    /// Decimal digits of date and time.
    Datetime,
    /// Date and time, and so many digits of a fraction.
    Datetime2(u8),
    /// Decimal digits of a time.
    Time,
    /// A time, and so many digits of a fraction.
    Time2(u8),
    /// A date.
    Date,
    /// Years since 1900.
    Year,
    /// Number of a member, in so many bytes.
    Enum(u8),
    /// Members as bits, in so many bytes.
    Set(u8),
    /// Bytes behind a length of so many bytes.
    Blob {
        /// Bytes of the length.
        prefix: u8,
        /// COMPRESSED.
        compressed: bool,
    },
    /// At most so many bytes.
    Varchar {
        /// Most bytes.
        max: u16,
        /// COMPRESSED.
        compressed: bool,
    },
    /// At most so many bytes, of which the padding was taken off.
    Char(u16),
    /// Bytes behind a length of so many bytes.
    Geometry(u8),
    /// A type that MariaDB does not log.
    Unknown,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Type code, as stored.
    pub code: u8,
    /// Metadata, as the stock tool shows it.
    pub metadata: u16,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// What it holds.
    pub kind: Kind,
}

impl Column {
    /// Takes the metadata of a column with this type code.
    pub fn parse(code: u8, nullable: bool, metadata: &mut Bytes<'_>) -> Read<Self> {
        let what = "metadata of a column";
        let metadata = match code {
            code::FLOAT
            | code::DOUBLE
            | code::TIMESTAMP2
            | code::DATETIME2
            | code::TIME2
            | code::TINY_BLOB
            | code::MEDIUM_BLOB
            | code::LONG_BLOB
            | code::BLOB
            | code::BLOB_COMPRESSED
            | code::GEOMETRY
            | code::MYSQL_JSON => metadata.u8(what)?.into(),
            code::VARCHAR | code::VARCHAR_COMPRESSED | code::BIT => metadata.u16(what)?,
            code::NEWDECIMAL | code::STRING | code::ENUM | code::SET | code::VAR_STRING => {
                u16::from_be_bytes(metadata.array(what)?)
            }
            _ => 0,
        };
        let kind = kind(code, metadata)?;
        Ok(Self { code, metadata, nullable, kind })
    }

    /// Whether optional metadata of a table has a sign for it.
    pub fn is_numeric(&self) -> bool {
        matches!(
            self.kind,
            Kind::Int(_) | Kind::Float | Kind::Double | Kind::Decimal(..) | Kind::Year
        )
    }

    /// Bytes of the value at the beginning of `bytes`, its length included; `None` if it does not
    /// fit.
    pub fn size(&self, bytes: &[u8]) -> Option<usize> {
        let prefixed = |prefix: usize| {
            let length = usize::try_from(uint(bytes.get(..prefix)?)).ok()?;
            prefix.checked_add(length)
        };
        let size = match self.kind {
            Kind::Int(width) | Kind::Enum(width) | Kind::Set(width) => width.into(),
            Kind::Float | Kind::Timestamp => 4,
            Kind::Double | Kind::Datetime => 8,
            Kind::Decimal(precision, scale) => decimal::size(precision, scale),
            Kind::Bit(bits) => bitmap_bytes(bits.into()),
            Kind::Timestamp2(digits) => 4 + time::fraction_size(digits),
            Kind::Datetime2(digits) => 5 + time::fraction_size(digits),
            Kind::Time2(digits) => 3 + time::fraction_size(digits),
            Kind::Time | Kind::Date => 3,
            Kind::Year => 1,
            Kind::Blob { prefix, .. } | Kind::Geometry(prefix) => prefixed(prefix.into())?,
            Kind::Varchar { max, .. } | Kind::Char(max) => prefixed(text_prefix(max))?,
            Kind::Unknown => return None,
        };
        (size <= bytes.len()).then_some(size)
    }
}

/// Bytes of the length of a text of at most so many bytes.
const fn text_prefix(max: u16) -> usize {
    if max < 256 { 1 } else { 2 }
}

fn kind(code: u8, metadata: u16) -> Read<Kind> {
    let [high, low] = metadata.to_be_bytes();
    let digits = || if low <= 6 { Ok(low) } else { Err(Malformed("digits of a fraction")) };
    let prefix = || match low {
        1..=4 => Ok(low),
        _ => Err(Malformed("length of a BLOB's length")),
    };
    Ok(match code {
        code::TINY => Kind::Int(1),
        code::SHORT => Kind::Int(2),
        code::INT24 => Kind::Int(3),
        code::LONG => Kind::Int(4),
        code::LONGLONG => Kind::Int(8),
        code::FLOAT => Kind::Float,
        code::DOUBLE => Kind::Double,
        code::NEWDECIMAL if decimal::is_valid(high, low) => Kind::Decimal(high, low),
        code::NEWDECIMAL => return Err(Malformed("digits of a DECIMAL")),
        code::BIT => Kind::Bit(u16::from(high) * 8 + u16::from(low)),
        code::TIMESTAMP => Kind::Timestamp,
        code::TIMESTAMP2 => Kind::Timestamp2(digits()?),
        code::DATETIME => Kind::Datetime,
        code::DATETIME2 => Kind::Datetime2(digits()?),
        code::TIME => Kind::Time,
        code::TIME2 => Kind::Time2(digits()?),
        code::DATE | code::NEWDATE => Kind::Date,
        code::YEAR => Kind::Year,
        code::BLOB | code::TINY_BLOB | code::MEDIUM_BLOB | code::LONG_BLOB => {
            Kind::Blob { prefix: prefix()?, compressed: false }
        }
        code::BLOB_COMPRESSED => Kind::Blob { prefix: prefix()?, compressed: true },
        code::GEOMETRY => Kind::Geometry(prefix()?),
        code::VARCHAR | code::VAR_STRING => Kind::Varchar { max: metadata, compressed: false },
        code::VARCHAR_COMPRESSED => Kind::Varchar { max: metadata, compressed: true },
        code::STRING | code::ENUM | code::SET => fixed(code, high, low)?,
        _ => Kind::Unknown,
    })
}

/// A column with the code STRING: its first byte has the real type, and in two bits of it what does
/// not fit into the second, the length.
fn fixed(code: u8, first: u8, length: u8) -> Read<Kind> {
    const HIDDEN: u8 = 0x30;
    let (real, length) = match first {
        0 => (code, u16::from(length)),
        _ if first & HIDDEN != HIDDEN => {
            (first | HIDDEN, u16::from(length) | u16::from((first & HIDDEN) ^ HIDDEN) << 4)
        }
        _ => (first, u16::from(length)),
    };
    match (real, length) {
        (code::ENUM, 1 | 2) => Ok(Kind::Enum(length as u8)),
        (code::SET, 1..=8) => Ok(Kind::Set(length as u8)),
        (code::ENUM | code::SET, _) => Err(Malformed("size of an ENUM or SET")),
        (code::STRING | code::VAR_STRING | code::VARCHAR, _) => Ok(Kind::Char(length)),
        _ => Ok(Kind::Unknown),
    }
}

/// A row that does not fit its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit;

/// The columns of a row, one after another.
#[derive(Clone, Debug)]
pub struct Image<'c, 'a> {
    columns: &'c [Column],
    present: &'c [u8],
    nulls: &'a [u8],
    values: &'a [u8],
    index: usize,
    seen: usize,
}

impl<'c, 'a> Image<'c, 'a> {
    /// The row at the beginning of `bytes`, of which the columns in the bitmap `present` are there.
    pub fn new(columns: &'c [Column], present: &'c [u8], bytes: &'a [u8]) -> Result<Self, Misfit> {
        let nulls = bitmap_bytes(count_bits(present, columns.len()));
        let (nulls, values) = bytes.split_at_checked(nulls).ok_or(Misfit)?;
        Ok(Self { columns, present, nulls, values, index: 0, seen: 0 })
    }

    /// Index, column and bytes of the next value; NULL has no bytes.
    #[expect(clippy::type_complexity, reason = "three things that are always taken apart")]
    pub fn next_value(&mut self) -> Result<Option<(usize, &'c Column, Option<&'a [u8]>)>, Misfit> {
        loop {
            let index = self.index;
            let Some(column) = self.columns.get(index) else { return Ok(None) };
            self.index += 1;
            if !bit(self.present, index) {
                continue;
            }
            let is_null = bit(self.nulls, self.seen);
            self.seen += 1;
            if is_null {
                return Ok(Some((index, column, None)));
            }
            let size = column.size(self.values).ok_or(Misfit)?;
            let (value, rest) = self.values.split_at_checked(size).ok_or(Misfit)?;
            self.values = rest;
            return Ok(Some((index, column, Some(value))));
        }
    }

    /// What follows the row.
    pub fn rest(mut self) -> Result<&'a [u8], Misfit> {
        while self.next_value()?.is_some() {}
        Ok(self.values)
    }
}

/// How many rows follow one another in `images`; for updates, pairs of rows. One that does not fit
/// its columns is the last.
pub fn count(columns: &[Column], present: &[u8], after: Option<&[u8]>, images: &[u8]) -> u64 {
    let next = |images| {
        let rest = Image::new(columns, present, images)?.rest()?;
        match after {
            Some(after) => Image::new(columns, after, rest)?.rest(),
            None => Ok(rest),
        }
    };
    let mut images = images;
    let mut rows = 0;
    while !images.is_empty() {
        rows += 1;
        match next(images) {
            // A table of no columns has rows of no bytes.
            Ok(rest) if rest.len() < images.len() => images = rest,
            Ok(_) | Err(Misfit) => break,
        }
    }
    rows
}
