//! Values and types of columns as `--verbose` shows them.

use super::text::{general, push_int, push_padded, push_quoted, push_uint, put};
use crate::row::time::{Date, Time};
use crate::row::{Column, Kind, Value, decimal};

/// Appends a value.
pub(super) fn push_value(out: &mut Vec<u8>, column: &Column, bytes: &[u8]) {
    let Some(value) = Value::read(column, bytes) else { return };
    match value {
        Value::Int(signed, unsigned) => {
            push_int(out, signed);
            if signed < 0 {
                out.extend_from_slice(b" (");
                push_uint(out, unsigned);
                out.push(b')');
            }
        }
        Value::Float(value) => put!(out, "{:<20}", general(value.into(), 6)),
        Value::Double(value) => out.extend_from_slice(general(value, 20).as_bytes()),
        Value::Decimal(packed, precision, scale) => decimal::write(packed, precision, scale, out),
        Value::Bits(bytes, bits) => push_bits(out, bytes, bits.into()),
        Value::Timestamp(seconds, micros, digits) => {
            push_int(out, i64::from(seconds));
            push_fraction(out, micros, digits);
        }
        Value::Datetime(date, time, digits) => {
            out.push(b'\'');
            push_date(out, date, b'-');
            out.push(b' ');
            push_time(out, time, digits);
            out.push(b'\'');
        }
        Value::Time(time, digits) => {
            out.push(b'\'');
            push_time(out, time, digits);
            out.push(b'\'');
        }
        Value::Date(date) => {
            out.push(b'\'');
            push_date(out, date, b':');
            out.push(b'\'');
        }
        Value::Year(year) => push_padded(out, 1900 + u32::from(year), 4),
        Value::Enum(number) => push_uint(out, number),
        Value::Set(bytes) => push_bits(out, bytes, 8 * bytes.len()),
        Value::Text(text, _) | Value::Geometry(text) => push_quoted(out, text),
    }
}

/// Appends the name of a type as `--verbose --verbose` shows it.
pub(super) fn push_type(out: &mut Vec<u8>, column: &Column) {
    let compressed = |compressed: bool| if compressed { " COMPRESSED" } else { "" };
    match column.kind {
        Kind::Int(1) => out.extend_from_slice(b"TINYINT"),
        Kind::Int(2) => out.extend_from_slice(b"SHORTINT"),
        Kind::Int(3) => out.extend_from_slice(b"MEDIUMINT"),
        Kind::Int(4) => out.extend_from_slice(b"INT"),
        Kind::Int(_) => out.extend_from_slice(b"LONGINT"),
        Kind::Float => out.extend_from_slice(b"FLOAT"),
        Kind::Double => out.extend_from_slice(b"DOUBLE"),
        Kind::Decimal(precision, scale) => put!(out, "DECIMAL({precision},{scale})"),
        Kind::Bit(bits) => put!(out, "BIT({bits})"),
        Kind::Timestamp => out.extend_from_slice(b"TIMESTAMP"),
        Kind::Timestamp2(digits) => put!(out, "TIMESTAMP({digits})"),
        Kind::Datetime => out.extend_from_slice(b"DATETIME"),
        Kind::Datetime2(digits) => put!(out, "DATETIME({digits})"),
        Kind::Time => out.extend_from_slice(b"TIME"),
        Kind::Time2(digits) => put!(out, "TIME({digits})"),
        Kind::Date => out.extend_from_slice(b"DATE"),
        Kind::Year => out.extend_from_slice(b"YEAR"),
        Kind::Enum(1) => out.extend_from_slice(b"ENUM(1 byte)"),
        Kind::Enum(width) => put!(out, "ENUM({width} bytes)"),
        Kind::Set(width) => put!(out, "SET({width} bytes)"),
        Kind::Blob { prefix, compressed: is_compressed } => {
            let name = match prefix {
                1 => "TINYBLOB/TINYTEXT",
                2 => "BLOB/TEXT",
                3 => "MEDIUMBLOB/MEDIUMTEXT",
                _ => "LONGBLOB/LONGTEXT",
            };
            put!(out, "{name}{}", compressed(is_compressed));
        }
        Kind::Varchar { max, compressed: is_compressed } => {
            put!(out, "VARSTRING({max}){}", compressed(is_compressed));
        }
        Kind::Char(max) => put!(out, "STRING({max})"),
        Kind::Geometry(_) => out.extend_from_slice(b"GEOMETRY"),
        Kind::Unknown => put!(out, "UNKNOWN({})", column.code),
    }
}

/// Appends `b'0101'`: the lowest so many bits of big-endian bytes.
fn push_bits(out: &mut Vec<u8>, bytes: &[u8], bits: usize) {
    out.extend_from_slice(b"b'");
    let all = 8 * bytes.len();
    for index in all.saturating_sub(bits)..all {
        out.push(b'0' + (bytes[index / 8] >> (7 - index % 8) & 1));
    }
    out.push(b'\'');
}

pub(crate) fn push_date(out: &mut Vec<u8>, date: Date, separator: u8) {
    push_padded(out, date.year, 4);
    out.push(separator);
    push_padded(out, date.month, 2);
    out.push(separator);
    push_padded(out, date.day, 2);
}

pub(crate) fn push_time(out: &mut Vec<u8>, time: Time, digits: u8) {
    if time.negative {
        out.push(b'-');
    }
    push_padded(out, time.hour, 2);
    out.push(b':');
    push_padded(out, time.minute, 2);
    out.push(b':');
    push_padded(out, time.second, 2);
    push_fraction(out, time.micros, digits);
}

/// Appends a point and so many digits of millionths.
pub(crate) fn push_fraction(out: &mut Vec<u8>, micros: u32, digits: u8) {
    if digits > 0 {
        out.push(b'.');
        let rest = 10_u32.pow(6 - u32::from(digits.min(6)));
        push_padded(out, micros / rest, digits.into());
    }
}
