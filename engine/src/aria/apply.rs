//! What each kind of record does to a table.
//!
//! A page that has the LSN of a record's group, or a later one, has the record's change already.
//! Even then its bits in the bitmap are set again, because bitmaps have no LSN. The state is as new
//! as its horizon: older records do not change it.

use super::bitmap::{EMPTY, FULL};
use super::bytes::Fields;
use super::key_page::{self, Refusal};
use super::leave::{Leave, Malformed, Result, Stop};
use super::lsn::AriaLsn;
use super::pages::{CHECKSUM, Check, Found, Which};
use super::record::{Kind, Record};
use super::row_page::{self, RowPage, kind};
use super::table::{NO_OFFSET, Shape, Table, changed};

/// A page number that means none.
const NO_PAGE: u64 = 0xff_ffff_ffff;
/// New pages of keys come one after the other, save for those of statements that run at a time.
const MOST_AHEAD: u64 = 1 << 16;
/// Bits of a number of pages that say something else.
const PAGE_COUNT: u16 = 0x3fff;

/// Tells whether the change of a record to a page can be in the file already because the page was
/// not among the changed ones when the checkpoint was made.
pub trait Flushed {
    /// Whether `page` had no change as old as `lsn` that was not in its file.
    fn is_flushed(&self, which: Which, page: u64, lsn: AriaLsn) -> bool;
}

fn cut_short(record: &Record) -> Stop {
    Leave::Record { lsn: record.lsn, what: "it is cut short" }.into()
}

/// Applies a record that changes pages; `group` is the LSN of the end of its group.
pub fn apply(
    table: &mut Table,
    record: &Record,
    group: AriaLsn,
    flushed: &dyn Flushed,
) -> Result<()> {
    let mut fields = Fields::new(&record.body);
    fields.u16().ok_or_else(|| cut_short(record))?;
    if matches!(record.kind, Kind::InsertRowBlobs) {
        return blobs(table, record, fields, group, flushed);
    }
    if matches!(record.kind, Kind::FreeBlocks) {
        return free_blocks(table, record, fields, flushed);
    }
    let page = fields.page().ok_or_else(|| cut_short(record))?;
    let which = match record.kind {
        Kind::Index | Kind::IndexNewPage | Kind::IndexFreePage => Which::Index,
        _ => Which::Data,
    };
    if flushed.is_flushed(which, page, record.lsn) {
        return Ok(());
    }
    let row = |fields: &mut Fields<'_>| fields.u8().map(usize::from);
    match record.kind {
        Kind::InsertRowHead | Kind::NewRowHead | Kind::InsertRowTail | Kind::NewRowTail => {
            let row = row(&mut fields).ok_or_else(|| cut_short(record))?;
            let head = matches!(record.kind, Kind::InsertRowHead | Kind::NewRowHead);
            let insert = Insert {
                page,
                row,
                kind: if head { kind::HEAD } else { kind::TAIL },
                new: matches!(record.kind, Kind::NewRowHead | Kind::NewRowTail),
                data: fields.rest(),
            };
            insert.apply(table, group)
        }
        Kind::PurgeRowHead | Kind::PurgeRowTail => {
            let row = row(&mut fields).ok_or_else(|| cut_short(record))?;
            let head = record.kind == Kind::PurgeRowHead;
            purge(table, page, row, if head { kind::HEAD } else { kind::TAIL }, group)
        }
        Kind::FreeHeadOrTail => free_head_or_tail(table, page, group),
        Kind::Index => index(table, page, fields.rest(), record, group),
        Kind::IndexNewPage => index_new_page(table, page, fields, record, group),
        Kind::IndexFreePage => index_free_page(table, page, fields, record, group),
        _ => Err(Leave::Record { lsn: record.lsn, what: "it is in a group" }.into()),
    }
}

fn touch_rows(table: &mut Table) {
    table.state.changed |= changed::DATA | changed::NOT_ZEROFILLED | changed::NOT_MOVABLE;
    touch_bitmap(table);
}

/// A server that changes a bitmap marks the table as being in use, which marks more.
fn touch_bitmap(table: &mut Table) {
    table.state.changed |= changed::DATA | changed::NOT_ANALYZED | changed::NOT_OPTIMIZED_KEYS;
}

fn touch_keys(table: &mut Table) {
    table.state.changed |= changed::DATA
        | changed::NOT_OPTIMIZED_KEYS
        | changed::NOT_SORTED_PAGES
        | changed::NOT_ZEROFILLED
        | changed::NOT_MOVABLE;
}

fn has(page: &[u8], group: AriaLsn) -> bool {
    AriaLsn::read(page).is_some_and(|lsn| lsn >= group)
}

/// A row, or the end of one, put on a page.
struct Insert<'a> {
    page: u64,
    row: usize,
    kind: u8,
    /// It is the first on the page.
    new: bool,
    data: &'a [u8],
}

impl Insert<'_> {
    fn apply(&self, table: &mut Table, group: AriaLsn) -> Result<()> {
        touch_rows(table);
        let number = self.page;
        let shape = table.shape;
        let end = (number + 1) * shape.block as u64;
        let malformed = |table: &Table, what| table.malformed(number, Malformed(what));
        let mut page;
        if end > table.state.data_file_length {
            if self.row != 0 || !self.new {
                return Err(malformed(table, "a row is put beyond the end of the file"));
            }
            page = vec![0; shape.block].into_boxed_slice();
            let inserted = RowPage::new(&mut page, &shape).insert_first(self.kind, self.data);
            inserted.map_err(|e| table.malformed(number, e))?;
        } else {
            page = match table.page(Which::Data, number, Check::Data)? {
                Found::Page(page) if has(&page, group) => {
                    let mut page = page;
                    return table.set_bits_by_content(number, &mut page, self.kind);
                }
                Found::Page(page) => page,
                Found::Unusable if self.new => vec![0; shape.block].into_boxed_slice(),
                Found::Unusable => return Err(malformed(table, "it is not whole")),
            };
            if row_page::page_type(&page) != self.kind && !self.new {
                return Err(malformed(table, "it is of another type than the log says"));
            }
            let inserted = RowPage::new(&mut page, &shape).insert(self.kind, self.row, self.data);
            inserted.map_err(|e| table.malformed(number, e))?;
        }
        table.set_bits_by_content(number, &mut page, self.kind)?;
        table.pin(Which::Data, number, Check::Data, page);
        // The bitmap is made first: it looks at how long the file was.
        table.state.data_file_length = table.state.data_file_length.max(end);
        Ok(())
    }
}

fn purge(table: &mut Table, number: u64, row: usize, kind: u8, group: AriaLsn) -> Result<()> {
    touch_rows(table);
    let mut page = table.whole_page(Which::Data, number, Check::Data)?;
    if has(&page, group) {
        if row_page::page_type(&page) == kind {
            table.set_bits_by_content(number, &mut page, kind)?;
        }
        return Ok(());
    }
    if row_page::page_type(&page) != kind {
        return Err(table.malformed(number, Malformed("it is of another type than the log says")));
    }
    let shape = table.shape;
    let removed = RowPage::new(&mut page, &shape).remove(row);
    removed.map_err(|e| table.malformed(number, e))?;
    table.set_bits_by_content(number, &mut page, kind)?;
    table.pin(Which::Data, number, Check::Data, page);
    Ok(())
}

fn free_head_or_tail(table: &mut Table, number: u64, group: AriaLsn) -> Result<()> {
    touch_rows(table);
    let mut page = table.whole_page(Which::Data, number, Check::Data)?;
    if !has(&page, group) {
        let shape = table.shape;
        RowPage::new(&mut page, &shape).free();
        table.pin(Which::Data, number, Check::Data, page);
    }
    free_bits(table, number)
}

fn free_bits(table: &mut Table, number: u64) -> Result<()> {
    table.set_bits(number, EMPTY)?;
    table.lower_first_bitmap(number);
    Ok(())
}

/// Ranges of pages: a page and a number of pages.
fn range(fields: &mut Fields<'_>) -> Option<std::ops::Range<u64>> {
    let page = fields.page()?;
    let count = fields.u16()? & PAGE_COUNT;
    Some(page..page + u64::from(count))
}

fn free_blocks(
    table: &mut Table,
    record: &Record,
    mut fields: Fields<'_>,
    flushed: &dyn Flushed,
) -> Result<()> {
    touch_rows(table);
    let ranges = fields.u16().ok_or_else(|| cut_short(record))?;
    for _ in 0..ranges {
        let pages = range(&mut fields).ok_or_else(|| cut_short(record))?;
        if pages.end * table.shape.block as u64 > table.state.data_file_length {
            let what = "it frees pages beyond the end of a file";
            return Err(Leave::Record { lsn: record.lsn, what }.into());
        }
        for page in pages {
            if !flushed.is_flushed(Which::Data, page, record.lsn) {
                free_bits(table, page)?;
            }
        }
    }
    Ok(())
}

fn blobs(
    table: &mut Table,
    record: &Record,
    fields: Fields<'_>,
    group: AriaLsn,
    flushed: &dyn Flushed,
) -> Result<()> {
    touch_rows(table);
    let shape = table.shape;
    let mut result = Ok(());
    each_blob_page(&record.body, fields, &shape, |page, data| {
        if result.is_ok() && !flushed.is_flushed(Which::Data, page, record.lsn) {
            result = blob_page(table, page, data, group);
        }
    })
    .ok_or_else(|| cut_short(record))?;
    result
}

/// Calls `each` with every page that a record of blobs fills, and its data.
pub fn each_blob_page<'a>(
    body: &'a [u8],
    fields: Fields<'a>,
    shape: &Shape,
    mut each: impl FnMut(u64, &'a [u8]),
) -> Option<()> {
    let mut lists = fields;
    let (ranges, blobs) = (usize::from(lists.u16()?), usize::from(lists.u16()?));
    let lists_size = ranges * 7 + blobs * 4;
    let data_at = body.len() - lists.rest().len() + lists_size;
    let mut data = Fields::new(body.get(data_at..)?);
    let room = shape.block - shape.blob_header() - CHECKSUM;
    for _ in 0..blobs {
        let (parts, unused) = (lists.u16()?, usize::from(lists.u16()?));
        for part in 1..=parts {
            let pages = range(&mut lists)?;
            let last = pages.end;
            for page in pages {
                let is_last = part == parts && page + 1 == last;
                let length = if is_last { room.checked_sub(unused)? } else { room };
                each(page, data.bytes(length)?);
            }
        }
    }
    Some(())
}

fn blob_page(table: &mut Table, number: u64, data: &[u8], group: AriaLsn) -> Result<()> {
    let block = table.shape.block;
    let end = (number + 1) * block as u64;
    let beyond = end > table.state.data_file_length;
    table.state.data_file_length = table.state.data_file_length.max(end);
    if !beyond
        && let Found::Page(page) = table.page(Which::Data, number, Check::Data)?
        && has(&page, group)
    {
        table.set_bits(number, FULL)?;
        return Ok(());
    }
    let mut page = vec![0; block].into_boxed_slice();
    let no_version = vec![0; table.shape.key_version];
    let content = [&group.to_bytes()[..], &[kind::BLOB], &no_version, data].concat();
    innodb::bytes::put(&mut page, 0, &content)
        .ok_or_else(|| table.malformed(number, Malformed("a blob does not fit")))?;
    // Nothing changes it again in the same group, so it gets its LSN at once.
    table.keep(Which::Data, number, Check::Data, page);
    table.set_bits(number, FULL)?;
    Ok(())
}

fn key_damage(table: &Table, page: u64, record: &Record, cause: Refusal) -> Stop {
    match cause {
        Refusal::Malformed(cause) => {
            let what = format!("page {page} and the log record at {}: {cause}", record.lsn);
            Leave::Damaged { file: format!("{}.MAI", table.name), what }.into()
        }
        Refusal::Transactions => {
            let message = format!("{} has keys with ids of transactions", table.name);
            Leave::Unsupported(message).into()
        }
    }
}

fn index(
    table: &mut Table,
    number: u64,
    operations: &[u8],
    record: &Record,
    group: AriaLsn,
) -> Result<()> {
    let mut page = table.whole_page(Which::Index, number, Check::Index)?;
    if !has(&page, group) {
        key_page::apply(&mut page, operations, table.shape.key_page_header())
            .map_err(|cause| key_damage(table, number, record, cause))?;
        table.pin(Which::Index, number, Check::Index, page);
    }
    Ok(())
}

fn index_new_page(
    table: &mut Table,
    number: u64,
    mut fields: Fields<'_>,
    record: &Record,
    group: AriaLsn,
) -> Result<()> {
    touch_keys(table);
    let header = (|| Some((fields.page()?, fields.u8()?, fields.u8()?)))();
    let (next_free, key, root) = header.ok_or_else(|| cut_short(record))?;
    let block = table.shape.block as u64;
    if group >= table.state.horizon {
        if next_free != 0 {
            set_free_page(table, next_free);
        }
        if root != 0 {
            set_root(table, record, key, number)?;
        }
    }
    let end = (number + 1) * block;
    if end > table.state.key_file_length {
        if end - table.state.key_file_length > MOST_AHEAD * block {
            let what = "it makes a page far beyond the end of a file";
            return Err(Leave::Record { lsn: record.lsn, what }.into());
        }
        table.state.key_file_length = end;
    } else if let Found::Page(page) = table.page(Which::Index, number, Check::Index)?
        && has(&page, group)
    {
        return Ok(());
    }
    let mut page = vec![0; table.shape.block].into_boxed_slice();
    key_page::make(&mut page, fields.rest())
        .map_err(|cause| key_damage(table, number, record, cause.into()))?;
    table.pin(Which::Index, number, Check::Index, page);
    Ok(())
}

fn index_free_page(
    table: &mut Table,
    number: u64,
    mut fields: Fields<'_>,
    record: &Record,
    group: AriaLsn,
) -> Result<()> {
    touch_keys(table);
    let next = fields.page().ok_or_else(|| cut_short(record))?;
    if group >= table.state.horizon {
        set_free_page(table, number);
    }
    let mut page = table.whole_page(Which::Index, number, Check::Index)?;
    if !has(&page, group) {
        let next = if next == NO_PAGE { NO_OFFSET } else { next * table.shape.block as u64 };
        key_page::free(&mut page, next, table.shape.key_page_header())
            .map_err(|cause| key_damage(table, number, record, cause.into()))?;
        table.pin(Which::Index, number, Check::Index, page);
    }
    Ok(())
}

fn offset_of(table: &Table, page: u64) -> u64 {
    if page == NO_PAGE { NO_OFFSET } else { page * table.shape.block as u64 }
}

fn set_free_page(table: &mut Table, page: u64) {
    let offset = offset_of(table, page);
    if let Some(last) = table.state.roots.last_mut() {
        *last = offset;
    }
}

fn set_root(table: &mut Table, record: &Record, key: u8, page: u64) -> Result<()> {
    let offset = offset_of(table, page);
    let keys = table.state.roots.len() - 1;
    match table.state.roots.get_mut(usize::from(key)) {
        Some(root) if usize::from(key) < keys => *root = offset,
        _ => return Err(Leave::Record { lsn: record.lsn, what: "there is no such key" }.into()),
    }
    Ok(())
}

/// Brings the state up to date with the record that ends a group.
pub fn end_group(table: &mut Table, record: &Record) -> Result<()> {
    if record.lsn >= table.state.horizon {
        change_state(table, record)?;
    }
    table.unpin(record.lsn);
    Ok(())
}

fn change_state(table: &mut Table, record: &Record) -> Result<()> {
    let mut fields = Fields::new(&record.body);
    // The record before it, and the table.
    fields.bytes(AriaLsn::SIZE + 2).ok_or_else(|| cut_short(record))?;
    let always =
        changed::DATA | changed::NOT_ANALYZED | changed::NOT_ZEROFILLED | changed::NOT_MOVABLE;
    let state = &mut table.state;
    let live = table.shape.live_checksum;
    match record.kind {
        Kind::UndoRowInsert => {
            state.records = state.records.wrapping_add(1);
            add_checksum(table, record, fields, 6)?;
            table.state.changed |= always;
        }
        Kind::UndoRowDelete => {
            state.records = state.records.wrapping_sub(1);
            add_checksum(table, record, fields, 10)?;
            table.state.changed |= always | changed::NOT_OPTIMIZED_ROWS;
        }
        Kind::UndoRowUpdate => {
            add_checksum(table, record, fields, 6)?;
            table.state.changed |= always;
        }
        Kind::UndoKeyInsert => {
            let key = fields.u8().ok_or_else(|| cut_short(record))?;
            if let Some(auto) = table.shape.auto_key.filter(|auto| auto.number == key) {
                let value = auto.value(fields.rest()).ok_or_else(|| cut_short(record))?;
                state.auto_increment = state.auto_increment.max(value);
            }
        }
        Kind::UndoKeyDeleteWithRoot => {
            let root = (|| Some((fields.u8()?, fields.page()?)))();
            let (key, page) = root.ok_or_else(|| cut_short(record))?;
            set_root(table, record, key, page)?;
        }
        Kind::Compensation => {
            let undone = fields.u8().and_then(super::record::describe);
            let undone = undone.ok_or_else(|| cut_short(record))?.kind;
            match undone {
                Kind::UndoRowDelete => state.records = state.records.wrapping_add(1),
                Kind::UndoRowInsert => {
                    state.records = state.records.wrapping_sub(1);
                    state.changed |= changed::NOT_OPTIMIZED_ROWS;
                }
                Kind::UndoKeyInsertWithRoot | Kind::UndoKeyDeleteWithRoot => {
                    let root = (|| Some((fields.u8()?, fields.page()?)))();
                    let (key, page) = root.ok_or_else(|| cut_short(record))?;
                    set_root(table, record, key, page)?;
                }
                _ => {}
            }
            let row =
                matches!(undone, Kind::UndoRowDelete | Kind::UndoRowInsert | Kind::UndoRowUpdate);
            if row && live {
                add_checksum(table, record, fields, 0)?;
            }
            table.state.changed |= always;
        }
        _ => {}
    }
    Ok(())
}

/// Adds the change of the table's checksum, which lies `skip` bytes further on.
fn add_checksum(
    table: &mut Table,
    record: &Record,
    mut fields: Fields<'_>,
    skip: usize,
) -> Result<()> {
    if table.shape.live_checksum {
        let delta = fields.bytes(skip).and_then(|_| fields.u32());
        let delta = delta.ok_or_else(|| cut_short(record))?;
        table.state.checksum = table.state.checksum.wrapping_add(delta);
    }
    Ok(())
}
