//! What a record of an undo log says of a row.
//!
//! | part | kinds | encoding |
//! |---|---|---|
//! | next record | all | 2 bytes |
//! | kind | all | 1 byte; above the lower 4 bits, hints for purge |
//! | number, table | all | compressed |
//! | flags of the row | changed, deleted | 1 byte |
//! | transaction, rollback pointer | changed, deleted | high half compressed, low half as it is |
//! | key | rows | each field: length compressed, bytes |
//! | old values | changed | count, then place and value of each |
//! | indexed columns | changed, deleted | only of use to purge |
//! | this record | all | 2 bytes |

use super::layout::record::{KIND, NEXT, NUMBER, kind};
use crate::bytes::{u8_at, u16_at, u32_at};
use crate::page::layout::undo as undo_page;

/// A length that says NULL.
const NULL: u32 = u32::MAX;
/// Lengths from here on are of what is on the row's page of a value whose rest is on other pages. The
/// number itself: a longer piece than that was fetched for an index.
const EXTERNAL: u32 = NULL - 16384;
/// Places from here on are of virtual columns.
const VIRTUAL: u32 = 1023;
/// Bytes of the reference to other pages at the end of such a value.
const REFERENCE: usize = 20;
/// Bytes behind the content: where this record is.
const TRAILER: usize = 2;

/// A part of a record leads out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndoRecord<'u> {
    /// Its kind.
    kind: u8,
    /// The table's id.
    pub table: u64,
    /// Everything behind that.
    content: &'u [u8],
}

/// The records of a page, in their order.
pub(super) struct Records<'u> {
    page: &'u [u8],
    at: usize,
}

impl<'u> Records<'u> {
    /// Those from `at` to `end`.
    pub fn new(page: &'u [u8], at: usize, end: usize) -> Option<Self> {
        (at >= undo_page::DATA).then_some(Self { page: page.get(..end)?, at })
    }

    pub fn next(&mut self) -> Result<Option<UndoRecord<'u>>, OutOfBounds> {
        if self.at == self.page.len() {
            return Ok(None);
        }
        let record = self.take().ok_or(OutOfBounds)?;
        Ok(Some(record))
    }

    fn take(&mut self) -> Option<UndoRecord<'u>> {
        let next = usize::from(u16_at(self.page, self.at + NEXT)?);
        if next <= self.at {
            return None;
        }
        let record = self.page.get(self.at..next)?;
        // Hints for purge are of no use here.
        let kind = u8_at(record, KIND)? & kind::MASK;
        let mut rest = record.get(NUMBER..record.len().checked_sub(TRAILER)?)?;
        compressed_u64(&mut rest)?;
        let table = compressed_u64(&mut rest)?;
        self.at = next;
        Some(UndoRecord { kind, table, content: rest })
    }
}

/// What a transaction did to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange<'u> {
    /// The row with this key was not there before.
    Inserted(Key),
    /// There was no row in the table before; those inserted have no records.
    InsertedIntoEmpty,
    /// The row was changed, deleted, or put where a deleted one was.
    Modified(Before<'u>),
}

/// The fields of a row's key, each with its length before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// Adds a field.
    pub fn push(&mut self, field: &[u8]) {
        // Nothing on a page is longer.
        self.0.extend((field.len() as u16).to_be_bytes());
        self.0.extend(field);
    }

    /// Bytes that it takes.
    pub const fn size(&self) -> usize {
        self.0.len()
    }
}

/// A row as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before<'u> {
    /// Its key.
    pub key: Key,
    /// Whether it was deleted already.
    pub was_deleted: bool,
    /// Whether it was the record with the metadata of an instant ALTER TABLE.
    pub is_metadata: bool,
    /// The transaction that had changed it last.
    pub transaction: u64,
    /// The rollback pointer it had.
    pub rollback_pointer: u64,
    /// Values of fields of the clustered index that were changed, by their places.
    pub values: Vec<(usize, OldValue<'u>)>,
    /// Whether values of virtual columns were changed, too.
    pub virtual_columns: bool,
}

/// A value as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldValue<'u> {
    /// NULL.
    Null,
    /// A value that was on the row's page.
    Here(&'u [u8]),
    /// What was on the row's page of a value whose rest was not, in two parts; the second is the
    /// reference.
    Partly(&'u [u8], &'u [u8]),
}

impl<'u> UndoRecord<'u> {
    /// What it says of a row of a table whose key has `key_fields` fields; `None` if it is not about
    /// rows, but about the definition.
    ///
    /// # Errors
    /// When a part leads out of the record.
    pub fn change(&self, key_fields: usize) -> Result<Option<RowChange<'u>>, OutOfBounds> {
        let mut rest = self.content;
        let change = match self.kind {
            kind::INSERT => key(&mut rest, key_fields).map(RowChange::Inserted),
            kind::INSERT_INTO_EMPTY => Some(RowChange::InsertedIntoEmpty),
            kind::UPDATE | kind::UPDATE_DELETED | kind::DELETE => {
                self.before(rest, key_fields).map(RowChange::Modified)
            }
            _ => return Ok(None),
        };
        change.map(Some).ok_or(OutOfBounds)
    }

    fn before(&self, mut rest: &'u [u8], key_fields: usize) -> Option<Before<'u>> {
        const METADATA: u8 = 0x10;
        let flags = *rest.split_off_first()?;
        let transaction = half_compressed_u64(&mut rest)?;
        let rollback_pointer = half_compressed_u64(&mut rest)?;
        let is_metadata = flags & METADATA != 0;
        let mut before = Before {
            key: Key::default(),
            was_deleted: self.kind == kind::UPDATE_DELETED,
            is_metadata,
            transaction,
            rollback_pointer,
            values: Vec::new(),
            virtual_columns: false,
        };
        if is_metadata {
            return Some(before);
        }
        before.key = key(&mut rest, key_fields)?;
        if self.kind == kind::DELETE {
            return Some(before);
        }
        for _ in 0..compressed_u32(&mut rest)? {
            let place = compressed_u32(&mut rest)?;
            if place >= VIRTUAL {
                // Their encoding depends on the definition; nothing behind it can be told.
                before.virtual_columns = true;
                break;
            }
            before.values.push((place as usize, value(&mut rest)?));
        }
        Some(before)
    }
}

fn key(rest: &mut &[u8], fields: usize) -> Option<Key> {
    let mut key = Key::default();
    for _ in 0..fields {
        match value(rest)? {
            OldValue::Here(bytes) => key.push(bytes),
            OldValue::Null | OldValue::Partly(..) => return None,
        }
    }
    Some(key)
}

fn value<'u>(rest: &mut &'u [u8]) -> Option<OldValue<'u>> {
    let length = compressed_u32(rest)?;
    let mut take = |length: u32| rest.split_off(..length as usize);
    match length {
        NULL => Some(OldValue::Null),
        EXTERNAL => {
            let here = (compressed_u32(rest)? as usize).checked_sub(REFERENCE)?;
            let fetched = compressed_u32(rest)? as usize;
            let bytes = rest.split_off(..fetched)?;
            let (content, reference) = bytes.split_at_checked(fetched.checked_sub(REFERENCE)?)?;
            Some(OldValue::Partly(content.get(..here)?, reference))
        }
        _ if length > EXTERNAL => {
            let bytes = take(length - EXTERNAL)?;
            let (content, reference) =
                bytes.split_at_checked(bytes.len().checked_sub(REFERENCE)?)?;
            Some(OldValue::Partly(content, reference))
        }
        _ => take(length).map(OldValue::Here),
    }
}

/// A number of 1 to 11 bytes.
fn compressed_u64(rest: &mut &[u8]) -> Option<u64> {
    const HIGH_FOLLOWS: u8 = 0xff;
    if u8_at(rest, 0)? != HIGH_FOLLOWS {
        return compressed_u32(rest).map(u64::from);
    }
    rest.split_off_first();
    let high = compressed_u32(rest)?;
    Some(u64::from(high) << 32 | u64::from(compressed_u32(rest)?))
}

/// A number of 5 to 9 bytes: only its high half is compressed.
fn half_compressed_u64(rest: &mut &[u8]) -> Option<u64> {
    let high = compressed_u32(rest)?;
    let low = u32_at(rest.split_off(..4)?, 0)?;
    Some(u64::from(high) << 32 | u64::from(low))
}

/// A number of 1 to 5 bytes: the high bits of the first say how many. Numbers near the upper end
/// have short forms of their own, whose missing high bits are ones.
fn compressed_u32(rest: &mut &[u8]) -> Option<u32> {
    let byte = u8_at(rest, 0)?;
    let (length, mask, ones) = match byte {
        0..0x80 => (1, 0x7f, 0),
        0x80..0xc0 => (2, 0x3fff, 0),
        0xc0..0xe0 => (3, 0x1f_ffff, 0),
        0xe0..0xf0 => (4, 0x0fff_ffff, 0),
        0xf0..0xf8 => (5, u32::MAX, 0),
        0xf8..0xfc => (2, 0x3ff, 0xffff_fc00),
        0xfc..0xfe => (3, 0x1_ffff, 0xfffe_0000),
        0xfe.. => (4, 0xff_ffff, 0xff00_0000),
    };
    let bytes = rest.split_off(..length)?;
    let bytes = if length == 5 { bytes.get(1..)? } else { bytes };
    let value = bytes.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
    Some(value & mask | ones)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decoded(bytes: &[u8]) -> Option<(u64, usize)> {
        let mut rest = bytes;
        compressed_u64(&mut rest).map(|value| (value, bytes.len() - rest.len()))
    }

    #[test]
    fn numbers_of_all_lengths() {
        for (bytes, value) in [
            (&[0x7f_u8][..], 0x7f),
            (&[0x81, 0x02], 0x102),
            (&[0xc1, 0x02, 0x03], 0x1_0203),
            (&[0xe1, 0x02, 0x03, 0x04], 0x0102_0304),
            (&[0xf0, 0x12, 0x34, 0x56, 0x78], 0x1234_5678),
            (&[0xfb, 0xff], 0xffff_ffff),
            (&[0xf8, 0x00], 0xffff_fc00),
            (&[0xfc, 0x00, 0x01], 0xfffe_0001),
            (&[0xfe, 0x00, 0x00, 0x02], 0xff00_0002),
            (&[0xff, 0x01, 0x05], 0x1_0000_0005),
            (&[0xff, 0xf0, 0xff, 0xff, 0xff, 0xfe, 0xfb, 0xff], 0xffff_fffe_ffff_ffff),
        ] {
            assert_eq!(decoded(bytes), Some((value, bytes.len())), "{bytes:x?}");
            assert_eq!(decoded(&bytes[..bytes.len() - 1]), None, "{bytes:x?}");
        }
    }

    fn tables(page: &[u8], at: usize, end: usize) -> Option<Vec<u64>> {
        let mut records = Records::new(page, at, end)?;
        let mut found = Vec::new();
        while let Some(record) = records.next().ok()? {
            found.push(record.table);
        }
        Some(found)
    }

    #[test]
    fn records_of_a_page() {
        // Two records from 56 to 70: kind, number, table.
        let mut page = vec![0; 128];
        page[56..63].copy_from_slice(&[0, 63, 11, 0, 25, 0, 56]);
        page[63..70].copy_from_slice(&[0, 70, 28, 1, 26, 0, 63]);
        assert_eq!(tables(&page, 56, 70), Some(vec![25, 26]));
        assert_eq!(tables(&page, 56, 56), Some(Vec::new()));
        // A record that ends behind the last, one that leads to itself, one in the header.
        assert_eq!(tables(&page, 56, 66), None);
        page[57] = 56;
        assert_eq!(tables(&page, 56, 70), None);
        assert_eq!(tables(&page, 50, 70), None);
    }

    fn record(kind: u8, content: &[u8]) -> UndoRecord<'_> {
        UndoRecord { kind, table: 25, content }
    }

    fn key_of(fields: &[&[u8]]) -> Key {
        let mut key = Key::default();
        fields.iter().for_each(|field| key.push(field));
        key
    }

    #[test]
    fn what_happened_to_rows() {
        let inserted = record(kind::INSERT, &[2, 7, 8, 1, 9]).change(2).unwrap();
        assert_eq!(inserted, Some(RowChange::Inserted(key_of(&[&[7, 8], &[9]]))));
        assert_eq!(record(kind::INSERT, &[2, 7, 8, 1]).change(2), Err(OutOfBounds));
        assert_eq!(
            record(kind::INSERT_INTO_EMPTY, &[]).change(2),
            Ok(Some(RowChange::InsertedIntoEmpty))
        );
        assert_eq!(record(9, &[]).change(2), Ok(None));

        let mut content = vec![0, 0, 0, 0, 1, 4, 0, 0, 2, 3, 4];
        content.extend([1, 7]);
        // Three values: one of 2 bytes in field 5, NULL in field 6, one of 1 + 20 bytes in field 7.
        content.extend([3, 5, 2, 1, 2, 6, 0xfb, 0xff, 7]);
        let length = EXTERNAL + 21;
        content.extend([0xfc | (length >> 16 & 1) as u8, (length >> 8) as u8, length as u8, 3]);
        content.extend([8; 20]);
        let changed = record(kind::UPDATE, &content).change(1).unwrap();
        let Some(RowChange::Modified(before)) = changed else { panic!("{changed:?}") };
        assert_eq!((before.transaction, before.rollback_pointer), (0x0104, 0x0002_0304));
    }
}
