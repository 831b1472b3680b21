//! The fields that an index really has: those that the user named, and what InnoDB adds.
//!
//! The clustered index gets the system columns and every other column. A secondary index gets
//! what is missing of the clustered key, to find the row.

use super::collation::char_bytes;
use super::instant::{FieldMap, MappedField};
use super::{CfgError, SYSTEM_COLUMNS, mtype, prtype};
use crate::dictionary::{Column, Index, Table};

/// Fixed lengths above are stored as if they varied.
const FIXED_MAX: u32 = 768;
/// Offsets of the transaction id above are not remembered.
const TRX_ID_OFFSET_MAX: u32 = (1 << 12) - 1;

/// What a field is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A stored column, counted without the virtual ones and with the system columns.
    Stored(usize),
    /// A virtual column, by its place among all columns.
    Virtual(usize),
    /// A column that instant ALTER TABLE dropped.
    Dropped,
}

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexField<'t> {
    /// Name of the column; empty for dropped ones.
    pub name: &'t [u8],
    /// What it is of.
    pub origin: Origin,
    /// Bytes that are indexed, or 0 for the whole column.
    pub prefix_len: u32,
    /// Length of every value in bytes, or 0 when it varies.
    pub fixed_len: u32,
    /// Whether the order is descending.
    pub descending: bool,
    /// Whether values may be NULL.
    pub nullable: bool,
    /// Whether lengths of values may need two bytes.
    pub long: bool,
}

/// An index and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFields<'t> {
    /// The index.
    pub index: &'t Index,
    /// Its fields.
    pub fields: Vec<IndexField<'t>>,
    /// How many of them tell any two records apart.
    pub unique: usize,
    /// Where records of the clustered index have the transaction id, if always at one place.
    pub trx_id_offset: u32,
}

impl IndexFields<'_> {
    /// How many fields may be NULL.
    pub fn nullable(&self) -> usize {
        self.fields.iter().filter(|field| field.nullable).count()
    }
}

/// The columns of a table that are stored, and its virtual ones.
struct Columns<'t> {
    table: &'t Table,
    /// Place of each stored column among all columns.
    stored: Vec<usize>,
}

impl<'t> Columns<'t> {
    fn of(table: &'t Table) -> Self {
        let columns = table.columns.iter().enumerate();
        let stored = columns.filter(|(_, c)| !c.is_virtual()).map(|(place, _)| place).collect();
        Self { table, stored }
    }

    /// The field of a stored column, or of a system column behind them.
    fn field(&self, number: usize, prefix_len: u32) -> Option<IndexField<'t>> {
        if let Some((name, _, len)) = number
            .checked_sub(self.stored.len())
            .map(|system| SYSTEM_COLUMNS.get(system))
            .and_then(|column| column)
        {
            return Some(IndexField {
                name: name.as_bytes(),
                origin: Origin::Stored(number),
                prefix_len: 0,
                fixed_len: *len,
                descending: false,
                nullable: false,
                long: false,
            });
        }
        let column = self.table.columns.get(*self.stored.get(number)?)?;
        Some(self.of_column(column, Origin::Stored(number), prefix_len))
    }

    /// The field that the user named.
    fn named(&self, name: &[u8], prefix_len: u32) -> Option<IndexField<'t>> {
        // Virtual and stored columns share one set of names.
        let place = self.table.columns.iter().position(|column| *column.name == *name)?;
        let column = self.table.columns.get(place)?;
        let origin = match self.stored.binary_search(&place) {
            Ok(number) => Origin::Stored(number),
            Err(_) => Origin::Virtual(place),
        };
        Some(self.of_column(column, origin, prefix_len))
    }

    fn of_column(&self, column: &'t Column, origin: Origin, prefix_len: u32) -> IndexField<'t> {
        let mut fixed_len = fixed_size(column, self.table.is_redundant());
        if prefix_len > 0 {
            fixed_len = fixed_len.min(prefix_len);
        }
        if fixed_len > FIXED_MAX {
            fixed_len = 0;
        }
        IndexField {
            name: &column.name,
            origin,
            prefix_len,
            fixed_len,
            descending: false,
            nullable: column.prtype & prtype::NOT_NULL == 0,
            long: column.len > 255 || matches!(column.mtype, mtype::BLOB | mtype::GEOMETRY),
        }
    }
}

/// Every index of a table that is there for queries.
///
/// # Errors
/// When the dictionary contradicts itself, or an index is not usable.
pub fn of_table<'t>(
    table: &'t Table,
    map: Option<&FieldMap>,
) -> Result<Vec<IndexFields<'t>>, CfgError> {
    let columns = Columns::of(table);
    let first = table.indexes.first().filter(|index| index.is_clustered());
    let first = first.ok_or_else(|| {
        CfgError::Dictionary(format!("table {} has no clustered index", table.display_name()))
    })?;
    let clustered = clustered(&columns, first, map)?;
    let mut all = Vec::with_capacity(table.indexes.len());
    for index in table.indexes.iter().filter(|index| index.is_committed()) {
        if index.is_corrupted() {
            let name = String::from_utf8_lossy(&index.name).into_owned();
            return Err(CfgError::CorruptedIndex(name));
        }
        if index.is_clustered() {
            all.push(clustered.clone());
        } else {
            all.push(secondary(&columns, index, &clustered)?);
        }
    }
    Ok(all)
}

/// The fields that the user named.
fn user_fields<'t>(
    columns: &Columns<'t>,
    index: &'t Index,
) -> Result<Vec<IndexField<'t>>, CfgError> {
    let fields = index.fields.iter().map(|field| {
        let found = columns.named(&field.column, field.prefix_len).ok_or_else(|| {
            CfgError::Dictionary(format!(
                "index {} is on column {}, which table {} does not have",
                String::from_utf8_lossy(&index.name),
                String::from_utf8_lossy(&field.column),
                columns.table.display_name()
            ))
        })?;
        Ok(IndexField { descending: field.descending, ..found })
    });
    fields.collect()
}

fn clustered<'t>(
    columns: &Columns<'t>,
    index: &'t Index,
    map: Option<&FieldMap>,
) -> Result<IndexFields<'t>, CfgError> {
    let missing = || {
        let table = columns.table.display_name();
        CfgError::Dictionary(format!("the clustered index of {table} has an unknown column"))
    };
    let mut fields = user_fields(columns, index)?;
    let own = columns.stored.len();
    let [row_id, trx_id, roll_ptr] = [own, own + 1, own + 2];
    if !index.is_unique() {
        fields.push(columns.field(row_id, 0).ok_or_else(missing)?);
    }
    let unique = fields.len();
    let trx_id_offset = trx_id_offset(columns, &fields);
    fields.push(columns.field(trx_id, 0).ok_or_else(missing)?);
    fields.push(columns.field(roll_ptr, 0).ok_or_else(missing)?);
    match map {
        None => {
            for number in 0..own {
                let whole = |field: &IndexField<'_>| {
                    field.origin == Origin::Stored(number) && field.prefix_len == 0
                };
                if !fields.iter().any(whole) {
                    fields.push(columns.field(number, 0).ok_or_else(missing)?);
                }
            }
        }
        Some(map) => {
            for mapped in &map.fields {
                fields.push(match *mapped {
                    MappedField::Column(number) => columns
                        .field(number.into(), 0)
                        .filter(|_| usize::from(number) < own)
                        .ok_or_else(missing)?,
                    MappedField::Dropped { nullable, fixed_len, long } => IndexField {
                        name: b"",
                        origin: Origin::Dropped,
                        prefix_len: 0,
                        fixed_len: fixed_len.into(),
                        descending: false,
                        nullable,
                        long,
                    },
                });
            }
        }
    }
    Ok(IndexFields { index, fields, unique, trx_id_offset })
}

fn secondary<'t>(
    columns: &Columns<'t>,
    index: &'t Index,
    clustered: &IndexFields<'t>,
) -> Result<IndexFields<'t>, CfgError> {
    let mut fields = user_fields(columns, index)?;
    if index.is_fulltext() {
        return Ok(IndexFields { index, fields, unique: 0, trx_id_offset: 0 });
    }
    let named = fields.len();
    for key in clustered.fields.iter().take(clustered.unique) {
        let whole = |field: &IndexField<'_>| field.origin == key.origin && field.prefix_len == 0;
        if index.is_spatial() || !fields.iter().take(named).any(whole) {
            fields.push(*key);
        }
    }
    let unique = if index.is_unique() { named } else { fields.len() };
    Ok(IndexFields { index, fields, unique, trx_id_offset: 0 })
}

/// Where the transaction id is, behind a key of these fields.
fn trx_id_offset(columns: &Columns<'_>, key: &[IndexField<'_>]) -> u32 {
    let mut offset = 0u32;
    for field in key {
        let size = match field.origin {
            Origin::Stored(number) => match columns.stored.get(number) {
                Some(place) => columns
                    .table
                    .columns
                    .get(*place)
                    .map_or(0, |column| fixed_size(column, columns.table.is_redundant())),
                None => field.fixed_len,
            },
            Origin::Virtual(_) | Origin::Dropped => 0,
        };
        if size == 0 || field.prefix_len > 0 {
            return 0;
        }
        offset = offset.saturating_add(size);
    }
    if offset > TRX_ID_OFFSET_MAX { 0 } else { offset }
}

/// Length of every value of a column in bytes, or 0 when it varies.
fn fixed_size(column: &Column, redundant: bool) -> u32 {
    match column.mtype {
        mtype::CHAR | mtype::FIXBINARY | mtype::INT | mtype::SYS | mtype::FLOAT | mtype::DOUBLE => {
            column.len
        }
        mtype::MYSQL => {
            let collation = column.prtype >> prtype::COLLATION_SHIFT & prtype::COLLATION;
            let chars = char_bytes(collation);
            let fixed = column.prtype & prtype::BINARY != 0 || redundant || chars.min == chars.max;
            if fixed { column.len } else { 0 }
        }
        _ => 0,
    }
}
