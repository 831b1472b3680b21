//! The key that holds a table's counter.

use innodb::bytes::{u8_at, u16_at};

use super::bytes::le_at;

/// A definition of a key, followed by those of its parts.
mod key {
    pub const SIZE: usize = 12;
    pub const PART_SIZE: usize = 18;
    pub const PART_FLAGS: usize = 6;
    pub const PART_LENGTH: usize = 8;
    /// The value is stored with the highest byte first.
    pub const SWAPPED: u16 = 64;
}

/// How the counter of a table is stored in its key.
#[derive(Clone, Copy, Debug)]
pub struct AutoKey {
    /// Number of the key, from 0.
    pub number: u8,
    /// Type of the value.
    pub kind: u8,
    /// Length of the value.
    pub length: usize,
    /// Whether the highest byte comes first.
    pub swapped: bool,
}

impl AutoKey {
    /// Finds the key `number` among the definitions of keys.
    pub fn find(mut definitions: &[u8], number: u8) -> Option<Self> {
        for _ in 0..number {
            let parts = usize::from(u8_at(definitions, 0)?);
            definitions = definitions.get(key::SIZE + parts * key::PART_SIZE..)?;
        }
        let part = definitions.get(key::SIZE..)?;
        Some(Self {
            number,
            kind: u8_at(part, 0)?,
            length: u16_at(part, key::PART_LENGTH)?.into(),
            swapped: u16_at(part, key::PART_FLAGS)? & key::SWAPPED != 0,
        })
    }

    /// The counter's value in a key; 0 for what counts nothing.
    pub fn value(&self, key: &[u8]) -> Option<u64> {
        let mut bytes = key.get(..self.length)?.to_vec();
        if self.swapped {
            bytes.reverse();
        }
        let number = |size| le_at(&bytes, 0, size);
        let signed = |size: u32| {
            let value = number(size as usize)?;
            // A negative value counts nothing.
            Some(if value >> (8 * size - 1) & 1 == 1 { 0 } else { value })
        };
        match self.kind {
            2 => number(1),
            3 => signed(2),
            4 => signed(4),
            8 => number(2),
            9 => number(4),
            10 => signed(8),
            11 => number(8),
            12 => signed(3),
            13 => number(3),
            14 => signed(1),
            5 => {
                let value = f32::from_le_bytes(*bytes.first_chunk()?);
                Some(if value < 0.0 { 0 } else { value as u64 })
            }
            6 => {
                let value = f64::from_le_bytes(*bytes.first_chunk()?);
                Some(if value < 0.0 { 0 } else { value as u64 })
            }
            _ => Some(0),
        }
    }
}
