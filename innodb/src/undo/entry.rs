//! Which entries of secondary indexes a row has.
//!
//! An entry holds its own fields and those of the row's key. Nothing on it says which transaction made
//! it; but of the entries of one row exactly one is not deleted, the one that the row's values give.

use super::record::Key;
use crate::cfg::collation::{char_bytes, first_chars};
use crate::cfg::fields::{IndexField, IndexFields, Origin};
use crate::cfg::prtype;
use crate::dictionary::Table;
use crate::tree::compact::StoredField;

/// Bytes of the reference at the end of a value whose rest is on other pages.
const REFERENCE: usize = 20;

/// A secondary index, as its table's rows see it.
#[derive(Debug)]
pub struct Entries<'t> {
    table: &'t Table,
    /// The index.
    pub index: IndexFields<'t>,
    /// For each field: the field of the clustered index that it comes from; `None` for computed values.
    sources: Vec<Option<usize>>,
    /// For each field of the row's key: the field of the entry, and how much of it.
    key: Vec<(usize, u32)>,
}

impl<'t> Entries<'t> {
    /// Of `index`; `None` if the definition makes no sense.
    pub fn new(
        table: &'t Table,
        clustered: &IndexFields<'t>,
        index: IndexFields<'t>,
    ) -> Option<Self> {
        let source = |field: &IndexField<'_>| match field.origin {
            Origin::Stored(_) => {
                let found = clustered.fields.iter().position(|of_row| {
                    of_row.origin == field.origin && matches!(of_row.prefix_len, 0)
                });
                found.or_else(|| {
                    clustered.fields.iter().position(|of_row| of_row.origin == field.origin)
                })
            }
            Origin::Virtual(_) | Origin::Dropped => None,
        };
        let sources = index.fields.iter().map(source).collect();
        let key = clustered.fields.iter().take(clustered.unique).map(|key| {
            let same = |field: &IndexField<'_>| {
                field.origin == key.origin && field.prefix_len == key.prefix_len
            };
            let whole =
                |field: &IndexField<'_>| field.origin == key.origin && field.prefix_len == 0;
            let fields = &index.fields;
            if let Some(found) = fields.iter().rposition(same) {
                return Some((found, 0));
            }
            fields.iter().position(whole).map(|found| (found, key.prefix_len))
        });
        let key = key.collect::<Option<Vec<_>>>()?;
        Some(Self { table, index, sources, key })
    }

    /// The key of the row that an entry is of; `None` where it cannot be told.
    pub fn row_of(&self, entry: &[StoredField<'_>]) -> Option<Key> {
        let mut key = Key::default();
        for (number, prefix_len) in &self.key {
            let bytes = entry.get(*number)?.bytes?;
            let field = self.index.fields.get(*number)?;
            key.push(self.prefix(bytes, field, *prefix_len)?);
        }
        Some(key)
    }

    /// What tells an entry from others of the same row.
    pub fn content(entry: &[StoredField<'_>]) -> Box<[u8]> {
        let mut content = Vec::new();
        for field in entry {
            add(&mut content, field.bytes);
        }
        content.into()
    }

    /// The same of the entry that a row of these values has; `None` where it cannot be told.
    pub fn of_row(&self, row: &[StoredField<'_>]) -> Option<Box<[u8]>> {
        let mut content = Vec::new();
        for (field, source) in self.index.fields.iter().zip(&self.sources) {
            let value = row.get((*source)?)?;
            let bytes = match value.bytes {
                Some(bytes) if value.is_external => {
                    let here = bytes.get(..bytes.len().checked_sub(REFERENCE)?)?;
                    // As much as the index can have must be here.
                    let enough = field.prefix_len > 0 && here.len() >= field.prefix_len as usize;
                    Some(self.prefix(here, field, field.prefix_len).filter(|_| enough)?)
                }
                Some(bytes) => Some(self.prefix(bytes, field, field.prefix_len)?),
                None => None,
            };
            add(&mut content, bytes);
        }
        Some(content.into())
    }

    /// What an index on the first `prefix_len` bytes of a column has of a value.
    fn prefix<'v>(
        &self,
        value: &'v [u8],
        field: &IndexField<'_>,
        prefix_len: u32,
    ) -> Option<&'v [u8]> {
        if prefix_len == 0 {
            return Some(value);
        }
        let column = self.table.columns.iter().find(|column| *column.name == *field.name)?;
        let collation = column.prtype >> prtype::COLLATION_SHIFT & prtype::COLLATION;
        let count = prefix_len / char_bytes(collation).max.max(1);
        first_chars(value, count as usize, collation)
    }
}

fn add(content: &mut Vec<u8>, field: Option<&[u8]>) {
    const NULL: u16 = u16::MAX;
    // Nothing on a page is that long.
    let length = field.map_or(NULL, |bytes| bytes.len() as u16);
    content.extend(length.to_be_bytes());
    content.extend(field.unwrap_or_default());
}
