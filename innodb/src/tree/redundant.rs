//! Records of ROW_FORMAT=REDUNDANT. Where each field ends stands before the record's origin, so
//! that they can be read without knowing the table.

use super::{IndexPage, StructureError};
use crate::bytes::{u8_at, u16_at};

/// Number of fields in bits 1 to 10, and whether ends take one byte in bit 0; 2 bytes.
const N_FIELDS: usize = 4;
/// The ends of fields grow downwards from here.
const ENDS: usize = 6;
/// In an end of one byte: the field is NULL.
const NULL_SHORT: u8 = 0x80;
/// In an end of two bytes: the field is NULL.
const NULL_LONG: u16 = 0x8000;
/// In an end of two bytes: the rest of the field is on other pages.
const EXTERNAL: u16 = 0x4000;

/// A record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'p> {
    page: IndexPage<'p>,
    origin: usize,
    fields: usize,
    short: bool,
}

impl<'p> Record<'p> {
    /// The record at `origin`.
    ///
    /// # Errors
    /// When the page has no room for its header.
    pub fn at(page: IndexPage<'p>, origin: usize) -> Result<Self, StructureError> {
        let word = origin.checked_sub(N_FIELDS).and_then(|at| u16_at(page.bytes(), at));
        let word = word.ok_or(StructureError {
            page: page.id(),
            what: "a record's header is out of bounds",
        })?;
        Ok(Self { page, origin, fields: usize::from(word >> 1 & 0x3ff), short: word & 1 == 1 })
    }

    /// How many fields there are.
    pub const fn len(&self) -> usize {
        self.fields
    }

    /// Whether there are none, which no server writes.
    pub const fn is_empty(&self) -> bool {
        self.fields == 0
    }

    /// Whether the record is deleted, and only waits for its removal.
    pub fn is_deleted(&self) -> bool {
        self.page.is_deleted(self.origin)
    }

    /// What is stored of a field on this page; `None` for NULL.
    ///
    /// # Errors
    /// When the record has no such field, or it is out of bounds.
    pub fn field(&self, number: usize) -> Result<Option<&'p [u8]>, StructureError> {
        let wrong = |what| StructureError { page: self.page.id(), what };
        if number >= self.fields {
            return Err(wrong("a record has too few fields"));
        }
        let bounds = || {
            let start = match number.checked_sub(1) {
                None => 0,
                Some(before) => self.end(before)?.0,
            };
            let (end, null) = self.end(number)?;
            if null {
                return Some(None);
            }
            self.page.bytes().get(self.origin + start..self.origin + end).map(Some)
        };
        bounds().ok_or(wrong("a field of a record is out of bounds"))
    }

    /// A field that is a big-endian number of `N` bytes.
    ///
    /// # Errors
    /// As [`field`](Self::field), and when it is NULL or of another length.
    pub fn number<const N: usize>(&self, number: usize) -> Result<u64, StructureError> {
        let bytes = self.field(number)?.and_then(|bytes| <[u8; N]>::try_from(bytes).ok());
        let bytes = bytes.ok_or(StructureError {
            page: self.page.id(),
            what: "a number in a record has an impossible length",
        })?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A field that is a big-endian number of 4 bytes.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn u32(&self, number: usize) -> Result<u32, StructureError> {
        // Four bytes fit.
        self.number::<4>(number).map(|value| value as u32)
    }

    /// Where a field ends, from the origin on, and whether it is NULL.
    fn end(&self, number: usize) -> Option<(usize, bool)> {
        if self.short {
            let byte = u8_at(self.page.bytes(), self.origin.checked_sub(ENDS + 1 + number)?)?;
            Some((usize::from(byte & !NULL_SHORT), byte & NULL_SHORT != 0))
        } else {
            let word =
                u16_at(self.page.bytes(), self.origin.checked_sub(ENDS + 2 * (number + 1))?)?;
            Some((usize::from(word & !(NULL_LONG | EXTERNAL)), word & NULL_LONG != 0))
        }
    }
}
