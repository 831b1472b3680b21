//! What is to become of the rows that transactions without an end have changed.
//!
//! Of each row only its oldest state counts: rows that were not there go, others get the oldest value of
//! every field that was changed. So it does not matter how often a transaction changed a row, nor how far
//! a server had come with rolling it back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::record::{Before, Key, OldValue, RowChange};

/// Rough size of what keeps a row, without its bytes.
const ROW_SIZE: usize = 160;

/// What is to become of the rows of a table.
#[derive(Debug, Default)]
pub struct Fates {
    rows: HashMap<Key, Fate>,
    /// The transaction that found no row in the table: all that it inserted go.
    pub emptied_by: Option<u64>,
    /// Bytes of memory that the rows take, about.
    pub size: usize,
}

/// What is to become of a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Fate {
    /// The transaction that changed it, and has no end.
    pub transaction: u64,
    /// What the row was before; `None` if it was not there.
    pub before: Option<Restored>,
}

/// What a row was before.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    /// The transaction that had changed it last.
    pub transaction: u64,
    /// The rollback pointer it had.
    pub rollback_pointer: u64,
    /// Values of fields of the clustered index, by their places.
    pub values: HashMap<usize, Value>,
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// The whole value.
    Here(Box<[u8]>),
    /// The start of the value, and the reference to the rest, 20 bytes.
    Partly(Box<[u8]>),
}

impl From<OldValue<'_>> for Value {
    fn from(value: OldValue<'_>) -> Self {
        match value {
            OldValue::Null => Self::Null,
            OldValue::Here(bytes) => Self::Here(bytes.into()),
            OldValue::Partly(content, reference) => {
                Self::Partly([content, reference].concat().into())
            }
        }
    }
}

/// A change that cannot be undone here, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub &'static str);

impl Fates {
    /// Takes the next change, the oldest come first. The key has `key_fields` fields.
    ///
    /// # Errors
    /// When it is one that cannot be undone row by row.
    pub fn note(
        &mut self,
        transaction: u64,
        change: RowChange<'_>,
        key_fields: usize,
    ) -> Result<(), Unfit> {
        match change {
            RowChange::InsertedIntoEmpty => self.emptied_by = Some(transaction),
            RowChange::Inserted(key) => self.first(key, transaction, None),
            RowChange::Modified(before) if before.is_metadata => {
                return Err(Unfit("it was changing the table's definition"));
            }
            RowChange::Modified(before) if before.virtual_columns => {
                return Err(Unfit("it changed an indexed virtual column"));
            }
            RowChange::Modified(before) => {
                if before.values.iter().any(|(place, _)| *place < key_fields) {
                    return Err(Unfit("it wrote a key in another spelling"));
                }
                self.modified(transaction, before);
            }
        }
        Ok(())
    }

    fn modified(&mut self, transaction: u64, before: Before<'_>) {
        // What was deleted before is to be deleted again; its values matter to nobody.
        let restored = (!before.was_deleted).then(|| Restored {
            transaction: before.transaction,
            rollback_pointer: before.rollback_pointer,
            values: HashMap::new(),
        });
        self.first(before.key.clone(), transaction, restored);
        let Some(Fate { before: Some(restored), .. }) = self.rows.get_mut(&before.key) else {
            return;
        };
        for (place, value) in before.values {
            if let Entry::Vacant(vacant) = restored.values.entry(place) {
                let value = vacant.insert(value.into());
                self.size += size_of::<(usize, Value)>() + value.bytes().map_or(0, <[u8]>::len);
            }
        }
    }

    /// Keeps what the oldest record says.
    fn first(&mut self, key: Key, transaction: u64, before: Option<Restored>) {
        let size = ROW_SIZE + key.size();
        if let Entry::Vacant(vacant) = self.rows.entry(key) {
            vacant.insert(Fate { transaction, before });
            self.size += size;
        }
    }

    /// What is to become of the row with this key.
    pub fn of(&self, key: &Key) -> Option<&Fate> {
        self.rows.get(key)
    }

    /// Rows that are to be there.
    pub fn restored(&self) -> impl Iterator<Item = &Key> {
        self.rows.iter().filter(|(_, fate)| fate.before.is_some()).map(|(key, _)| key)
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.emptied_by.is_none()
    }
}

impl Value {
    /// What is on the row's page; `None` for NULL.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Here(bytes) | Self::Partly(bytes) => Some(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(number: u8) -> Key {
        let mut key = Key::default();
        key.push(&[number]);
        key
    }

    fn before<'u>(number: u8, old: u64, values: Vec<(usize, OldValue<'u>)>) -> Before<'u> {
        Before {
            key: key(number),
            was_deleted: false,
            is_metadata: false,
            transaction: old,
            rollback_pointer: old + 100,
            values,
            virtual_columns: false,
        }
    }

    #[test]
    fn the_oldest_state_counts() {
        let mut fates = Fates::default();
        let mut note = |change| fates.note(50, change, 1).unwrap();
        // Updated twice, then deleted.
        note(RowChange::Modified(before(1, 7, vec![(3, OldValue::Here(b"a"))])));
        let values = vec![(3, OldValue::Here(b"b")), (4, OldValue::Null)];
        note(RowChange::Modified(before(1, 50, values)));
        note(RowChange::Modified(before(1, 50, Vec::new())));
        // Inserted, then updated.
        note(RowChange::Inserted(key(2)));
        note(RowChange::Modified(before(2, 50, vec![(3, OldValue::Here(b"c"))])));
        // Deleted, then inserted again in the same place.
        note(RowChange::Modified(before(3, 8, Vec::new())));
        let again = Before { was_deleted: true, ..before(3, 50, vec![(3, OldValue::Here(b"d"))]) };
        note(RowChange::Modified(again));
        // Inserted where one was that another transaction had deleted.
        let deleted = Before { was_deleted: true, ..before(4, 9, vec![(3, OldValue::Null)]) };
        note(RowChange::Modified(deleted));

        let restored = |number| fates.of(&key(number)).unwrap().before.as_ref();
        let first = restored(1).unwrap();
        assert_eq!((first.transaction, first.rollback_pointer), (7, 107));
        assert_eq!(first.values[&3], Value::Here(b"a"[..].into()));
        assert_eq!(first.values[&4], Value::Null);
        assert_eq!(restored(2), None);
        let third = restored(3).unwrap();
        assert_eq!((third.transaction, third.values[&3].bytes()), (8, Some(&b"d"[..])));
        assert_eq!(restored(4), None);
        assert_eq!(fates.restored().count(), 2);
        assert!(fates.emptied_by.is_none() && !fates.is_empty());
    }

    #[test]
    fn what_cannot_be_undone_row_by_row() {
        let mut fates = Fates::default();
        let key_changed = before(1, 7, vec![(0, OldValue::Here(b"a"))]);
        assert!(fates.note(50, RowChange::Modified(key_changed), 1).is_err());
        let metadata = Before { is_metadata: true, ..before(1, 7, Vec::new()) };
        assert!(fates.note(50, RowChange::Modified(metadata), 1).is_err());
        let computed = Before { virtual_columns: true, ..before(1, 7, Vec::new()) };
        assert!(fates.note(50, RowChange::Modified(computed), 1).is_err());
        assert!(fates.is_empty());
        fates.note(50, RowChange::InsertedIntoEmpty, 1).unwrap();
        assert!(fates.emptied_by == Some(50) && !fates.is_empty());
    }
}
