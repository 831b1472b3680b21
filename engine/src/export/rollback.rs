//! Rolls back what transactions that were open when the backup was made have done to a table.
//!
//! Only as far as an import needs it: rows and entries that have to go are marked as deleted, for the
//! import removes such; rows that were changed get their old values; of the entries of a changed row in
//! secondary indexes the one that its values give stays, the others go: a server that finds the row
//! rolled back would never look for them.
//!
//! Invariants:
//! - Nothing is written before everything is found: every row that is to be restored, in every index,
//!   and room for it on its page. Where something is not as expected nothing is rolled back.
//! - No row is left that an open transaction was the last to change.
//! - It may be killed, and run again. The undo logs stay as they are: a server that starts on the backup
//!   rolls back once more and finds that done, as after a crash in the middle of a rollback.
//! - The pages keep their LSNs, so no delta fits any more: before the first page the backup gets a mark, and
//!   deltas are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use innodb::bytes::u32_at;
use innodb::cfg::fields::{IndexFields, of_table};
use innodb::dictionary::{Dictionary, Table};
use innodb::tree::compact::{CompactRecord, StoredField, build};
use innodb::tree::rewrite::{Edit, RewriteError, rewrite};
use innodb::tree::{IndexPage, Pages};
use innodb::undo::entry::Entries;
use innodb::undo::fate::{Fate, Fates, Restored, Value};
use innodb::undo::record::Key;
use innodb::undo::{self, OpenTransaction};
use innodb::{PageId, PageNo};

use super::leaves::{self, Go};
use super::pages::Files;
use super::write;
use crate::prepare::inventory::Tablespace;
use crate::{Cancel, Error, ErrorKind, Result};

/// Most memory that the undo of all tables may take, and the same for the rows of one table.
const SIZE_MAX: usize = 512 << 20;

/// What stands on rows that every transaction may see.
const NO_TRANSACTION: u64 = 0;

/// Bytes of the fields for transaction and rollback pointer.
const TRANSACTION_SIZE: usize = 6;
const ROLLBACK_POINTER_SIZE: usize = 7;
/// In a reference to other pages, counted from its end: the byte with these flags.
const REFERENCE_FLAGS: usize = 8;
/// In the same, counted likewise: the number of the first of the pages.
const REFERENCE_PAGE: usize = 16;
/// Another row has the pages: who removes this one must not free them.
const NOT_OWNER: u8 = 0x80;
/// They are of a row that was there before.
const INHERITED: u8 = 0x40;

/// What is to be rolled back of each table, or why that cannot be done.
pub type Undo = HashMap<u64, Result<Fates, String>>;

/// Reads the undo logs of open transactions.
pub fn collect(
    files: &Files<'_>,
    dictionary: &Dictionary,
    open: &[OpenTransaction],
) -> Result<Undo> {
    let mut found = Undo::new();
    if !open.iter().any(|transaction| !transaction.tables.is_empty()) {
        return Ok(found);
    }
    let mut size = 0;
    undo::each_record::<Files<'_>>(files, |log, record| {
        let Some(record) = record else { return Ok(()) };
        let Some(table) = dictionary.tables.get(&record.table) else { return Ok(()) };
        let of_table = found.entry(record.table).or_insert_with(|| Ok(Fates::default()));
        let Ok(fates) = of_table else { return Ok(()) };
        let before = fates.size;
        let refused = match key_fields(table).map(|count| (count, record.change(count))) {
            _ if log.prepared => Some("prepared, but not committed".to_owned()),
            None | Some((_, Ok(None))) => Some("open, and was changing its definition".to_owned()),
            Some((_, Err(_))) => {
                let message = format!("an undo record of transaction {} is cut short", log.id);
                return Err(Error::new(ErrorKind::Damage, message));
            }
            Some((count, Ok(Some(change)))) => {
                fates.note(log.id, change, count).err().map(|unfit| format!("open, and {unfit}"))
            }
        };
        size += fates.size - before;
        let too_much = (size > SIZE_MAX).then(|| "open, and has changed too many rows".to_owned());
        if let Some(state) = refused.or(too_much) {
            size -= fates.size;
            *of_table = Err(format!(
                "transaction {}, which changed it, was {state}, when the backup was made",
                log.id
            ));
        }
        Ok(())
    })?;
    found.retain(|_, fates| !matches!(fates, Ok(fates) if fates.is_empty()));
    Ok(found)
}

/// How many fields the key of a table's rows has.
fn key_fields(table: &Table) -> Option<usize> {
    let clustered = table.indexes.first().filter(|index| index.is_clustered())?;
    // Without a key of the user's, rows have a number.
    Some(clustered.fields.len() + usize::from(!clustered.is_unique()))
}

/// Changes of pages, by page.
type Edits = BTreeMap<PageNo, Vec<(usize, Edit)>>;

/// A table that is to be rolled back.
pub struct Rollback<'a> {
    /// The table.
    pub table: &'a Table,
    /// Its tablespace.
    pub space: &'a Tablespace,
    /// Pages.
    pub files: &'a Files<'a>,
    /// What is to become of its rows.
    pub fates: &'a Fates,
    /// All transactions that have no end.
    pub open: &'a BTreeSet<u64>,
    /// To give up.
    pub cancel: &'a Cancel,
}

/// A row that is to be changed: its key, what was found out, and the changes of its record.
type Found = (Key, Row, Vec<Edit>);

/// What was found out about a row that is to be changed.
enum Row {
    /// It goes, with its entries.
    Gone,
    /// It stays: what its entry in each secondary index is, and whether that was found.
    Stays(Vec<(Box<[u8]>, bool)>),
}

impl Row {
    /// Bytes of memory, about.
    fn size(&self) -> usize {
        const OF_ROW: usize = 128;
        const OF_ENTRY: usize = 40;
        OF_ROW
            + match self {
                Self::Gone => 0,
                Self::Stays(entries) => entries.iter().map(|(e, _)| OF_ENTRY + e.len()).sum(),
            }
    }
}

/// The same of an edit.
fn size_of_edit(edit: &Edit) -> usize {
    const OF_EDIT: usize = 80;
    match edit {
        Edit::Replace { with, .. } => OF_EDIT + with.bytes.len(),
        _ => OF_EDIT,
    }
}

impl Rollback<'_> {
    /// Rolls back. Returns how many rows were concerned, or why nothing was done.
    pub fn run(&self, dir: &Path, is_instant: bool) -> Result<Result<u64, String>> {
        let table = self.table;
        let refuse = |what: &str| {
            Ok(Err(format!(
                "what an open transaction did to it cannot be rolled back here: {what}"
            )))
        };
        if table.is_redundant() {
            return refuse("it has ROW_FORMAT=REDUNDANT");
        }
        if self.space.flags.zip_size().is_some() {
            return refuse("it has ROW_FORMAT=COMPRESSED");
        }
        if is_instant {
            return refuse("it was changed by an instant ALTER TABLE");
        }
        if table.indexes.iter().any(|index| index.is_spatial()) {
            return refuse("it has a SPATIAL index");
        }
        let mut indexes = of_table(table, None)?.into_iter();
        let Some(clustered) = indexes.next() else { return refuse("it has no clustered index") };
        let entries = indexes
            .filter(|index| !index.index.is_fulltext())
            .map(|index| Entries::new(table, &clustered, index))
            .collect::<Option<Vec<_>>>();
        let Some(entries) = entries else { return refuse("an index has not the key of its rows") };
        let mut edits = Edits::new();
        let mut rows = match self.rows(&clustered, &entries, &mut edits)? {
            Ok(rows) => rows,
            Err(what) => return refuse(&what),
        };
        if !rows.is_empty()
            && !entries.is_empty()
            && let Err(what) = self.entries(&entries, &mut rows, &mut edits)?
        {
            return refuse(&what);
        }
        for (page, edits) in &edits {
            let id = PageId { space: self.space.id, page: *page };
            let mut bytes = self.files.page(id)?;
            let fields = self.fields_of(&IndexPage::new(id, &bytes)?, &clustered, &entries);
            match rewrite(id, &mut bytes, fields, edits) {
                Ok(()) => {}
                Err(RewriteError::Full) => {
                    return refuse(&format!("page {page} has no room for an old row"));
                }
                Err(RewriteError::Structure(error)) => return Err(error.into()),
            }
        }
        write::pages(dir, self.space, self.files, &edits, self.cancel, |id, page, edits| {
            let index = IndexPage::new(id, page)?;
            let fields = self.fields_of(&index, &clustered, &entries);
            rewrite(id, page, fields, edits)
                .map_err(|error| Error::new(ErrorKind::Damage, "cannot roll back").caused_by(error))
        })?;
        Ok(Ok(rows.len() as u64))
    }

    fn fields_of<'f, 't>(
        &self,
        page: &IndexPage<'_>,
        clustered: &'f IndexFields<'t>,
        entries: &'f [Entries<'t>],
    ) -> &'f [innodb::cfg::fields::IndexField<'t>] {
        let id = page.index_id();
        let secondary = entries.iter().map(|entries| &entries.index).find(|it| it.index.id == id);
        &secondary.unwrap_or(clustered).fields
    }

    /// Finds the rows, and what is to be done with them.
    fn rows(
        &self,
        clustered: &IndexFields<'_>,
        entries: &[Entries<'_>],
        edits: &mut Edits,
    ) -> Result<Result<HashMap<Key, Row>, String>> {
        let mut found = HashMap::new();
        let mut size = 0;
        let mut refused = None;
        leaves::each(self.space, self.files, self.cancel, |page| {
            if page.index_id() != clustered.index.id {
                return Ok(Go::On);
            }
            for origin in page.records() {
                let record = CompactRecord::read(page, origin?, &clustered.fields)?;
                match self.row(clustered, entries, page, &record) {
                    Ok(None) => {}
                    Ok(Some((key, row, changes))) => {
                        size += key.size()
                            + row.size()
                            + changes.iter().map(size_of_edit).sum::<usize>();
                        let twice = found.insert(key, row).is_some();
                        if twice || size > SIZE_MAX {
                            let what = if twice { "a row is there twice" } else { "too many rows" };
                            refused = Some(what.to_owned());
                            return Ok(Go::Enough);
                        }
                        let changes = changes.into_iter().map(|edit| (record.origin, edit));
                        edits.entry(page.id().page).or_default().extend(changes);
                    }
                    Err(what) => {
                        refused = Some(what.to_owned());
                        return Ok(Go::Enough);
                    }
                }
            }
            Ok(Go::On)
        })?;
        if self.fates.restored().any(|key| !found.contains_key(key)) {
            refused = refused.or(Some("a row that it changed is not there".to_owned()));
        }
        Ok(refused.map_or(Ok(found), Err))
    }

    /// What is to be done with a record of the clustered index, if anything.
    fn row(
        &self,
        clustered: &IndexFields<'_>,
        entries: &[Entries<'_>],
        page: &IndexPage<'_>,
        record: &CompactRecord<'_>,
    ) -> Result<Option<Found>, &'static str> {
        const BROKEN: &str = "a row has not the fields of its table";
        let mut key = Key::default();
        for field in record.fields.iter().take(clustered.unique) {
            key.push(field.bytes.ok_or(BROKEN)?);
        }
        let number = |place: usize, size: usize| {
            let bytes = record.fields.get(place)?.bytes.filter(|bytes| bytes.len() == size)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        };
        let (at_transaction, at_pointer) = (clustered.unique, clustered.unique + 1);
        let transaction = number(at_transaction, TRANSACTION_SIZE).ok_or(BROKEN)?;
        let pointer = number(at_pointer, ROLLBACK_POINTER_SIZE).ok_or(BROKEN)?;
        let gone = |key| Ok(Some((key, Row::Gone, remove(page, record))));
        if let Some(owner) = self.fates.emptied_by {
            // It has the table for itself; rows that came in bulk have no transaction on them.
            return match transaction == owner || transaction == NO_TRANSACTION {
                true => gone(key),
                // What another one had deleted before is on its way out.
                false if page.is_deleted(record.origin) => Ok(None),
                false => Err("it found the table empty, but there are rows of others"),
            };
        }
        // Of a row that stays as it is, no open transaction may be the last to have changed it.
        let stays = match self.open.contains(&transaction) {
            true => Err("it has a row that the undo log does not tell of"),
            false => Ok(None),
        };
        let Some(fate) = self.fates.of(&key) else { return stays };
        let Fate { transaction: owner, before: Some(before) } = fate else {
            // A row of another transaction may have come in its place once it was rolled back.
            return if transaction == fate.transaction { gone(key) } else { stays };
        };
        let values = if transaction == *owner {
            restored(record, before, at_transaction).ok_or(BROKEN)?
        } else if (transaction, pointer) == (before.transaction, before.rollback_pointer)
            && !page.is_deleted(record.origin)
        {
            record.fields.iter().map(Stored::from).collect()
        } else {
            return Err("a row that it changed was changed by another one, too");
        };
        let values: Vec<_> = values.iter().map(Stored::field).collect();
        let of_row = |entries: &Entries<'_>| entries.of_row(&values).map(|entry| (entry, false));
        let expected = entries.iter().map(of_row).collect::<Option<Vec<_>>>();
        let expected = expected.ok_or("the value of an index cannot be told from a changed row")?;
        let mut edits = Vec::new();
        if transaction == *owner {
            let with = build(&clustered.fields, &values).ok_or(BROKEN)?;
            edits.push(Edit::Replace { now: (record.start, record.end), with });
        }
        Ok(Some((key, Row::Stays(expected), edits)))
    }

    /// Finds the entries of the rows, and what is to be done with them.
    fn entries(
        &self,
        entries: &[Entries<'_>],
        rows: &mut HashMap<Key, Row>,
        edits: &mut Edits,
    ) -> Result<Result<(), String>> {
        let mut refused = None;
        leaves::each(self.space, self.files, self.cancel, |page| {
            let of_page =
                entries.iter().enumerate().find(|(_, it)| it.index.index.id == page.index_id());
            let Some((number, index)) = of_page else { return Ok(Go::On) };
            let (mut changes, mut stay) = (Vec::new(), 0usize);
            for origin in page.records() {
                let record = CompactRecord::read(page, origin?, &index.index.fields)?;
                let Some(key) = index.row_of(&record.fields) else {
                    refused = Some("the row of an entry cannot be told".to_owned());
                    return Ok(Go::Enough);
                };
                let deleted = match rows.get_mut(&key) {
                    None => page.is_deleted(record.origin),
                    Some(Row::Gone) => true,
                    Some(Row::Stays(expected)) => match expected.get_mut(number) {
                        Some((entry, found)) if **entry == *Entries::content(&record.fields) => {
                            if std::mem::replace(found, true) {
                                refused = Some("a row has an entry twice".to_owned());
                                return Ok(Go::Enough);
                            }
                            false
                        }
                        _ => {
                            changes.push((record.origin, Edit::Remove));
                            continue;
                        }
                    },
                };
                stay += 1;
                if page.is_deleted(record.origin) != deleted {
                    changes.push((record.origin, Edit::SetDeleted(deleted)));
                }
            }
            if stay == 0
                && let Some((_, last)) = changes.last_mut()
            {
                // No page may be empty.
                *last = Edit::SetDeleted(true);
            }
            if !changes.is_empty() {
                edits.entry(page.id().page).or_default().extend(changes);
            }
            Ok(Go::On)
        })?;
        let missing = rows.values().find_map(|row| match row {
            Row::Stays(expected) => expected.iter().position(|(_, found)| !found),
            Row::Gone => None,
        });
        if let Some(index) = missing.and_then(|number| entries.get(number)) {
            let name = String::from_utf8_lossy(&index.index.index.name).into_owned();
            refused = refused.or(Some(format!("a row that it changed is not in index {name}")));
        }
        Ok(refused.map_or(Ok(()), Err))
    }
}

/// A value that is, or will be, in a row.
struct Stored {
    bytes: Option<Box<[u8]>>,
    is_external: bool,
}

impl Stored {
    fn field(&self) -> StoredField<'_> {
        StoredField { bytes: self.bytes.as_deref(), is_external: self.is_external }
    }
}

impl From<&StoredField<'_>> for Stored {
    fn from(field: &StoredField<'_>) -> Self {
        Self { bytes: field.bytes.map(Into::into), is_external: field.is_external }
    }
}

/// The values that a row had before.
fn restored(
    record: &CompactRecord<'_>,
    before: &Restored,
    at_transaction: usize,
) -> Option<Vec<Stored>> {
    let mut values: Vec<Stored> = record.fields.iter().map(Stored::from).collect();
    for (place, value) in &before.values {
        let stored = values.get_mut(*place)?;
        stored.bytes = value.bytes().map(Into::into);
        stored.is_external = matches!(value, Value::Partly(_));
    }
    let transaction = before.transaction.to_be_bytes();
    let pointer = before.rollback_pointer.to_be_bytes();
    for (place, bytes) in [
        (at_transaction, &transaction[transaction.len() - TRANSACTION_SIZE..]),
        (at_transaction + 1, &pointer[pointer.len() - ROLLBACK_POINTER_SIZE..]),
    ] {
        values.get_mut(place)?.bytes = Some(bytes.into());
    }
    // What a row that was to replace this one took over is its own again.
    for value in values.iter_mut().filter(|value| value.is_external) {
        if let Some(bytes) = &mut value.bytes
            && let Some(flags) = bytes.len().checked_sub(REFERENCE_FLAGS)
            && let Some(flags) = bytes.get_mut(flags)
        {
            *flags &= !NOT_OWNER;
        }
    }
    Some(values)
}

/// What removes a row. Of values on other pages that it took over from another row the pages stay.
fn remove(page: &IndexPage<'_>, record: &CompactRecord<'_>) -> Vec<Edit> {
    let mut edits = vec![Edit::SetDeleted(true)];
    let mut at = record.origin;
    for field in &record.fields {
        at += field.bytes.map_or(0, <[u8]>::len);
        let flags = at - REFERENCE_FLAGS.min(at);
        // What the backup has of a row that was just being inserted may not have its pages yet.
        let is_unset =
            at.checked_sub(REFERENCE_PAGE).and_then(|at| u32_at(page.bytes(), at)) == Some(0);
        let is_inherited = page.bytes().get(flags).is_some_and(|byte| byte & INHERITED != 0);
        if field.is_external && (is_inherited || is_unset) {
            edits.push(Edit::SetBits(flags, NOT_OWNER));
        }
    }
    edits
}
