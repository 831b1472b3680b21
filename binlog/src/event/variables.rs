//! What the next statement takes from its session: numbers, seeds, user variables.

use crate::bytes::{Bytes, Malformed, Read};

/// A number that the next statement uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntVar {
    /// 1: `LAST_INSERT_ID()`; 2: the first value of an AUTO_INCREMENT column.
    pub kind: u8,
    /// The number.
    pub value: u64,
}

impl IntVar {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        Ok(Self { kind: bytes.u8("kind")?, value: bytes.u64("value")? })
    }

    /// The variable's name.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            1 => "LAST_INSERT_ID",
            2 => "INSERT_ID",
            _ => "INVALID_INT",
        }
    }
}

/// Seeds of `RAND()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rand(pub u64, pub u64);

impl Rand {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        Ok(Self(bytes.u64("seed")?, bytes.u64("seed")?))
    }
}

/// Value of a user variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UserValue<'a> {
    /// NULL.
    Null,
    /// Text in the character set of a collation.
    Text(&'a [u8], u16),
    /// A double.
    Real(f64),
    /// A number, as 64 bits.
    Int {
        /// The bits.
        bits: u64,
        /// Whether they have no sign.
        unsigned: bool,
    },
    /// A packed decimal of so many digits, of which so many are behind the point.
    Decimal {
        /// Digits.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
        /// See [`row::decimal`](crate::row::decimal).
        packed: &'a [u8],
    },
}

/// A user variable that the next statement uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UserVar<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: UserValue<'a>,
}

/// Kinds of values.
mod kind {
    pub const STRING: u8 = 0;
    pub const REAL: u8 = 1;
    pub const INT: u8 = 2;
    pub const DECIMAL: u8 = 4;
}

/// What follows a value.
mod attribute {
    pub const UNSIGNED: u8 = 1;
}

impl<'a> UserVar<'a> {
    /// Reads the body.
    pub fn parse(body: &'a [u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        let length = bytes.u32("length of the name")?;
        let name = bytes.take(length as usize, "name")?;
        if bytes.u8("whether it is NULL")? != 0 {
            return Ok(Self { name, value: UserValue::Null });
        }
        let kind = bytes.u8("kind of value")?;
        let collation = bytes.u32("collation")?;
        let length = bytes.u32("length of the value")?;
        let value = bytes.take(length as usize, "value")?;
        let eight = || value.first_chunk().copied().ok_or(Malformed("value"));
        let value = match kind {
            // A number that is none of a collation has no name either.
            kind::STRING => UserValue::Text(value, u16::try_from(collation).unwrap_or(0)),
            kind::REAL => UserValue::Real(f64::from_le_bytes(eight()?)),
            kind::INT => {
                let unsigned = bytes.0.first() == Some(&attribute::UNSIGNED);
                UserValue::Int { bits: u64::from_le_bytes(eight()?), unsigned }
            }
            kind::DECIMAL => match value {
                [precision, scale, packed @ ..] => {
                    UserValue::Decimal { precision: *precision, scale: *scale, packed }
                }
                _ => return Err(Malformed("decimal value")),
            },
            _ => return Err(Malformed("kind of value")),
        };
        Ok(Self { name, value })
    }
}
