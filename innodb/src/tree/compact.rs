//! Records of ROW_FORMAT=COMPACT and DYNAMIC. Only the definition of the index tells where their fields
//! are.
//!
//! Before the origin, from there on downwards: 5 bytes of header, a bit for each field that may be NULL,
//! and the lengths of fields that vary. After an instant ALTER TABLE records of the clustered index have
//! more than that; they are refused.

use super::page::record;
use super::{IndexPage, StructureError};
use crate::bytes::u8_at;
use crate::cfg::fields::IndexField;

/// Kind of a record on a leaf.
const STATUS_ORDINARY: u8 = 0;
/// All kinds.
const STATUS: u8 = 7;
/// The first byte of a length: there is a second one.
const LONG: u8 = 0x80;
/// The first byte of a length: the rest of the value is on other pages.
const EXTERNAL: u8 = 0x40;
/// Bits of the first byte that are of the length.
const HIGH: u8 = 0x3f;
/// Longest length of one byte, where there may be two.
const SHORT_MAX: usize = 127;

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredField<'p> {
    /// What is on the page; `None` for NULL.
    pub bytes: Option<&'p [u8]>,
    /// Whether that ends with a reference to the rest.
    pub is_external: bool,
}

/// A record on a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactRecord<'p> {
    /// Where it begins, with its lengths.
    pub start: usize,
    /// Its origin.
    pub origin: usize,
    /// Where it ends.
    pub end: usize,
    /// Its fields, in their order.
    pub fields: Vec<StoredField<'p>>,
}

impl<'p> CompactRecord<'p> {
    /// The record at `origin`, which has `fields`.
    ///
    /// # Errors
    /// When it is of another kind, or leads out of the page.
    pub fn read(
        page: &IndexPage<'p>,
        origin: usize,
        fields: &[IndexField<'_>],
    ) -> Result<Self, StructureError> {
        let wrong = |what| StructureError { page: page.id(), what };
        let status = origin.checked_sub(record::STATUS).and_then(|at| u8_at(page.bytes(), at));
        let plain = page.is_compact()
            && page.info(origin) & record::SMALLEST == 0
            && status.is_some_and(|status| status & STATUS == STATUS_ORDINARY);
        if !plain {
            return Err(wrong("a record is of an unexpected kind"));
        }
        Self::parse(page.bytes(), origin, fields).ok_or(wrong("a record is out of bounds"))
    }

    fn parse(page: &'p [u8], origin: usize, fields: &[IndexField<'_>]) -> Option<Self> {
        let mut nulls = fields.iter().filter(|field| field.nullable).enumerate();
        let bits = origin.checked_sub(record::INFO_COMPACT)?;
        let null_bytes = fields.iter().filter(|field| field.nullable).count().div_ceil(8);
        let mut lengths = bits.checked_sub(null_bytes)?;
        let mut at = origin;
        let mut found = Vec::with_capacity(fields.len());
        for field in fields {
            if field.nullable {
                let (number, _) = nulls.next()?;
                let byte = u8_at(page, bits.checked_sub(1 + number / 8)?)?;
                if byte >> (number % 8) & 1 != 0 {
                    found.push(StoredField { bytes: None, is_external: false });
                    continue;
                }
            }
            let (mut length, mut is_external) = (field.fixed_len as usize, false);
            if length == 0 {
                lengths = lengths.checked_sub(1)?;
                let byte = u8_at(page, lengths)?;
                length = usize::from(byte);
                if field.long && byte & LONG != 0 {
                    lengths = lengths.checked_sub(1)?;
                    is_external = byte & EXTERNAL != 0;
                    length = usize::from(byte & HIGH) << 8 | usize::from(u8_at(page, lengths)?);
                }
            }
            let bytes = page.get(at..at.checked_add(length)?)?;
            at += length;
            found.push(StoredField { bytes: Some(bytes), is_external });
        }
        Some(Self { start: lengths, origin, end: at, fields: found })
    }
}

/// A record that is to be put on a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Lengths and bits, 5 bytes of header that are to be filled, values.
    pub bytes: Vec<u8>,
    /// Where the origin is among them.
    pub origin: usize,
}

/// Makes a record of these values; `None` when they do not fit the fields.
pub fn build(fields: &[IndexField<'_>], values: &[StoredField<'_>]) -> Option<NewRecord> {
    if fields.len() != values.len() {
        return None;
    }
    let nullable = fields.iter().filter(|field| field.nullable).count();
    let mut bits = vec![0u8; nullable.div_ceil(8)];
    let (mut lengths, mut data) = (Vec::new(), Vec::<u8>::new());
    let mut null_number = 0;
    for (field, value) in fields.iter().zip(values) {
        if field.nullable {
            null_number += 1;
        }
        let Some(bytes) = value.bytes else {
            let number = usize::checked_sub(null_number, 1).filter(|_| field.nullable)?;
            *bits.get_mut(number / 8)? |= 1 << (number % 8);
            continue;
        };
        data.extend(bytes);
        let length = bytes.len();
        if field.fixed_len > 0 {
            if length != field.fixed_len as usize || value.is_external {
                return None;
            }
        } else if field.long && (length > SHORT_MAX || value.is_external) {
            let high = u8::try_from(length >> 8).ok().filter(|high| high & !HIGH == 0)?;
            lengths.push(high | LONG | if value.is_external { EXTERNAL } else { 0 });
            lengths.push((length & 0xff) as u8);
        } else {
            lengths.push(u8::try_from(length).ok().filter(|_| !value.is_external)?);
        }
    }
    // All that is before the origin grows downwards.
    let mut bytes: Vec<u8> = lengths.into_iter().rev().chain(bits.into_iter().rev()).collect();
    bytes.extend([0; record::INFO_COMPACT]);
    let origin = bytes.len();
    bytes.extend(data);
    Some(NewRecord { bytes, origin })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cfg::fields::Origin;

    pub fn field(fixed_len: u32, nullable: bool, long: bool) -> IndexField<'static> {
        let origin = Origin::Stored(0);
        IndexField {
            name: b"a",
            origin,
            prefix_len: 0,
            fixed_len,
            descending: false,
            nullable,
            long,
        }
    }

    fn value(bytes: Option<&[u8]>) -> StoredField<'_> {
        StoredField { bytes, is_external: false }
    }

    #[test]
    fn what_is_built_is_read() {
        let mut fields = vec![
            field(4, false, false),
            field(0, true, true),
            field(0, true, false),
            field(0, false, true),
        ];
        fields.extend(vec![field(2, true, false); 9]);
        let long = [7; 300];
        let external = StoredField { bytes: Some(&[9; 20]), is_external: true };
        let mut values =
            vec![value(Some(b"abcd")), value(Some(&long)), value(Some(b"xyz")), external];
        values.extend((0..9).map(|n| value((n % 2 == 0).then_some(&b"no"[..]))));
        let record = build(&fields, &values).unwrap();
        let mut page = vec![0xee; 40];
        page.extend(&record.bytes);
        page.extend([0xee; 40]);
        let read = CompactRecord::parse(&page, 40 + record.origin, &fields).unwrap();
        assert_eq!((read.start, read.end), (40, 40 + record.bytes.len()));
        assert_eq!(read.fields, values);
        // 11 bits in 2 bytes, lengths of 2, 1 and 2 bytes.
        assert_eq!(record.origin, 5 + 2 + 5);
        assert_eq!(
            CompactRecord::parse(&page[..page.len() - 41], 40 + record.origin, &fields),
            None
        );

        assert_eq!(build(&fields[..1], &[value(None)]), None);
        assert_eq!(build(&fields[..1], &[value(Some(b"abc"))]), None);
        assert_eq!(build(&fields[2..3], &[value(Some(&long))]), None);
    }
}
