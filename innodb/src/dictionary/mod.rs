//! The data dictionary: which tables, columns and indexes there are, by the system tablespace of
//! a prepared backup.
//!
//! The dictionary is read without regard to transactions: what an open one has changed is there
//! as if it were committed. [`undo`](crate::undo) tells whether there is such a one.
//!
//! What is read is kept, at about 100 bytes for a column; records of the dictionary are no
//! smaller, so the input bounds the memory.

pub mod layout;

use std::collections::{BTreeMap, HashMap};

use crate::bytes::u32_at;
use crate::tree::{Pages, Record, StructureError, walk};
use crate::{PageId, PageNo, SpaceId};
use layout::{HEADER, columns, fields, header, indexes, tables};

/// A column that is stored or virtual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name, as the server has it: UTF-8.
    pub name: Box<[u8]>,
    /// Main type.
    pub mtype: u32,
    /// Precise type: SQL type, flags and collation.
    pub prtype: u32,
    /// Length in bytes, as far as the type has one.
    pub len: u32,
}

impl Column {
    /// In the precise type: the column is virtual.
    const VIRTUAL: u32 = 0x2000;

    /// Whether values are computed and not stored.
    pub const fn is_virtual(&self) -> bool {
        self.prtype & Self::VIRTUAL != 0
    }
}

/// A field of an index, as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of its column.
    pub column: Box<[u8]>,
    /// Bytes that are indexed, or 0 for the whole column.
    pub prefix_len: u32,
    /// Whether the order is descending.
    pub descending: bool,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Number of the index.
    pub id: u64,
    /// Name.
    pub name: Box<[u8]>,
    /// Kind, as stored.
    pub kind: u32,
    /// Root page, [`PageNo::NULL`] for FULLTEXT.
    pub root: PageNo,
    /// What it indexes.
    pub fields: Vec<Field>,
}

impl Index {
    const CLUSTERED: u32 = 1;
    const UNIQUE: u32 = 2;
    const CORRUPTED: u32 = 16;
    const FULLTEXT: u32 = 32;
    const SPATIAL: u32 = 64;

    /// Whether the rows are in it.
    pub const fn is_clustered(&self) -> bool {
        self.kind & Self::CLUSTERED != 0
    }

    /// Whether no two rows have the same key. The clustered index of a table without a key is
    /// not.
    pub const fn is_unique(&self) -> bool {
        self.kind & Self::UNIQUE != 0
    }

    /// Whether the server has given it up.
    pub const fn is_corrupted(&self) -> bool {
        self.kind & Self::CORRUPTED != 0
    }

    /// Whether it is FULLTEXT, and has no tree.
    pub const fn is_fulltext(&self) -> bool {
        self.kind & Self::FULLTEXT != 0
    }

    /// Whether it is SPATIAL.
    pub const fn is_spatial(&self) -> bool {
        self.kind & Self::SPATIAL != 0
    }

    /// Whether it is there for queries, and not only being made.
    pub fn is_committed(&self) -> bool {
        self.name.first() != Some(&indexes::UNCOMMITTED)
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Number of the table.
    pub id: u64,
    /// `database/table` in the encoding of file names: its file's path without `.ibd`.
    pub name: Box<[u8]>,
    /// Its tablespace.
    pub space: SpaceId,
    /// Flags as the server has them in memory: row format, compression and more.
    pub flags: u32,
    /// Columns in their order, virtual ones among them.
    pub columns: Vec<Column>,
    /// Indexes, the clustered one first.
    pub indexes: Vec<Index>,
}

impl Table {
    /// Whether the row format is REDUNDANT.
    pub const fn is_redundant(&self) -> bool {
        self.flags & tables::TYPE_ONE == 0
    }

    /// The name for people and error messages.
    pub fn display_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// All tables, by id.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    /// The tables.
    pub tables: BTreeMap<u64, Table>,
}

impl Dictionary {
    /// Reads the dictionary.
    ///
    /// # Errors
    /// When a page of it cannot be read, or makes no sense.
    pub fn read<P: Pages>(pages: &P) -> Result<Self, P::Error> {
        let system = |page| PageId { space: SpaceId::SYSTEM, page };
        let id = system(PageNo(HEADER));
        let page = pages.page(id)?;
        let root = |offset| {
            let root = u32_at(&page, offset).map(|page| system(PageNo(page)));
            root.ok_or(StructureError { page: id, what: "it is cut short" })
        };

        let mut fields_of: HashMap<u64, Vec<StoredField>> = HashMap::new();
        walk(pages, root(header::FIELDS)?, |record| {
            let position = record.u32(fields::POS)?;
            let index = record.number::<8>(fields::INDEX_ID)?;
            fields_of.entry(index).or_default().push((position, text(record, fields::COLUMN)?));
            Ok(())
        })?;
        let mut found = BTreeMap::new();
        walk(pages, root(header::TABLES)?, |record| {
            let table = table(record)?;
            found.insert(table.id, table);
            Ok(())
        })?;
        walk(pages, root(header::COLUMNS)?, |record| {
            // The position only orders, and so does the walk.
            if let Some(table) = found.get_mut(&record.number::<8>(columns::TABLE_ID)?) {
                table.columns.push(Column {
                    name: text(record, columns::NAME)?,
                    mtype: record.u32(columns::MTYPE)?,
                    prtype: record.u32(columns::PRTYPE)?,
                    len: record.u32(columns::LEN)?,
                });
            }
            Ok(())
        })?;
        walk(pages, root(header::INDEXES)?, |record| {
            if let Some(table) = found.get_mut(&record.number::<8>(indexes::TABLE_ID)?) {
                let id = record.number::<8>(indexes::ID)?;
                table.indexes.push(Index {
                    id,
                    name: text(record, indexes::NAME)?,
                    kind: record.u32(indexes::TYPE)?,
                    root: PageNo(record.u32(indexes::ROOT)?),
                    fields: index_fields(fields_of.remove(&id).unwrap_or_default()),
                });
            }
            Ok(())
        })?;
        Ok(Self { tables: found })
    }
}

/// Position and column of a field, as stored.
type StoredField = (u32, Box<[u8]>);

fn table(record: &Record<'_>) -> Result<Table, StructureError> {
    let kind = record.u32(tables::TYPE)?;
    let compact = record.u32(tables::N_COLS)? & tables::COMPACT != 0;
    Ok(Table {
        id: record.number::<8>(tables::ID)?,
        name: text(record, tables::NAME)?,
        space: SpaceId(record.u32(tables::SPACE)?),
        flags: kind & !tables::TYPE_ONE | u32::from(compact),
        columns: Vec::new(),
        indexes: Vec::new(),
    })
}

/// Fields from their positions, which say more than the position. Only an index that has a
/// prefix or a descending field *somewhere* uses the longer encoding, and then for all fields but
/// perhaps the first, where it cannot be told from a position: 0 either way.
fn index_fields(stored: Vec<StoredField>) -> Vec<Field> {
    let fields = stored.into_iter().enumerate().map(|(number, (position, column))| {
        let extended = number == 0 || position > fields::PLAIN_MAX;
        let low = if extended { position & fields::PLAIN_MAX } else { 0 };
        Field {
            column,
            prefix_len: low & !fields::DESCENDING,
            descending: low & fields::DESCENDING != 0,
        }
    });
    fields.collect()
}

fn text(record: &Record<'_>, field: usize) -> Result<Box<[u8]>, StructureError> {
    Ok(record.field(field)?.unwrap_or_default().into())
}
