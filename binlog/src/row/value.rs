//! What a value means.

use super::time::{self, Date, Time};
use super::{Column, Kind, text_prefix};
use crate::bytes::{int, uint};

/// A value of a column that is not NULL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// With a sign, and without.
    Int(i64, u64),
    /// Four bytes.
    Float(f32),
    /// Eight bytes.
    Double(f64),
    /// Packed digits: how many, how many of them behind the point.
    Decimal(&'a [u8], u8, u8),
    /// Big-endian bits; the lowest so many count.
    Bits(&'a [u8], u16),
    /// Seconds, millionths, digits of the fraction.
    Timestamp(u32, u32, u8),
    /// Date, time, digits of the fraction.
    Datetime(Date, Time, u8),
    /// Time, digits of the fraction.
    Time(Time, u8),
    /// Date.
    Date(Date),
    /// Years since 1900; 0 for the year 0000.
    Year(u8),
    /// Number of a member.
    Enum(u64),
    /// Bits of members, the lowest byte first.
    Set(&'a [u8]),
    /// Bytes; in the compressed form if so.
    Text(&'a [u8], bool),
    /// A geometry: its reference system and its well-known binary form.
    Geometry(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads the bytes that [`Column::size`] found; `None` for a column of an unknown type.
    pub fn read(column: &Column, bytes: &'a [u8]) -> Option<Self> {
        let behind = |prefix: usize| bytes.get(prefix..);
        Some(match column.kind {
            Kind::Int(_) => Self::Int(int(bytes), uint(bytes)),
            Kind::Float => Self::Float(f32::from_bits(uint(bytes) as u32)),
            Kind::Double => Self::Double(f64::from_bits(uint(bytes))),
            Kind::Decimal(precision, scale) => Self::Decimal(bytes, precision, scale),
            Kind::Bit(bits) => Self::Bits(bytes, bits),
            Kind::Timestamp => Self::Timestamp(uint(bytes) as u32, 0, 0),
            Kind::Timestamp2(digits) => {
                let (seconds, micros) = time::timestamp2(bytes);
                Self::Timestamp(seconds, micros, digits)
            }
            Kind::Datetime => {
                let (date, time) = time::datetime(bytes);
                Self::Datetime(date, time, 0)
            }
            Kind::Datetime2(digits) => {
                let (date, time) = time::datetime2(bytes);
                Self::Datetime(date, time, digits)
            }
            Kind::Time => Self::Time(time::time(bytes), 0),
            Kind::Time2(digits) => Self::Time(time::time2(bytes), digits),
            Kind::Date => Self::Date(time::date(bytes)),
            Kind::Year => Self::Year(*bytes.first()?),
            Kind::Enum(_) => Self::Enum(uint(bytes)),
            Kind::Set(_) => Self::Set(bytes),
            Kind::Blob { prefix, compressed } => Self::Text(behind(prefix.into())?, compressed),
            Kind::Varchar { max, compressed } => Self::Text(behind(text_prefix(max))?, compressed),
            Kind::Char(max) => Self::Text(behind(text_prefix(max))?, false),
            Kind::Geometry(prefix) => Self::Geometry(behind(prefix.into())?),
            Kind::Unknown => return None,
        })
    }
}
