//! Events of rows, and of the tables that they belong to.
//!
//! What belongs to a statement is collected until it ends: the comments of its events, their base64,
//! their rows in words. The last event of a statement, mostly its only one, is written straight to
//! the output.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Write;

use super::problem::Problem;
use super::text::{base64_len, push_base64, push_name, push_uint, put};
use super::undo;
use super::value::{push_type, push_value};
use super::{DELIMITER, Dump, metadata};
use crate::event::rows::{self, Rows};
use crate::event::table_map::{self, TableMap};
use crate::header::{EventType, Header, Operation};
use crate::reader::Event;
use crate::row::{self, Column, Image, Misfit};

/// Base64 of one statement beyond which it is split in two.
const ENCODED_MAX: usize = u32::MAX as usize / 4;

/// Bytes that the stock tool adds before it compares with [`ENCODED_MAX`].
const ENCODED_EXTRA: usize = 4 + 11 + 5;

/// Most tables that are kept. Numbers are used once, so old ones are of no use.
const TABLES_MAX: usize = 4096;

/// A table that rows can belong to.
#[derive(Debug)]
pub(super) struct Table {
    /// The event's body, to tell when it changes.
    body: Vec<u8>,
    pub name: String,
    pub columns: Vec<Column>,
    /// "`db`.`table`\n".
    quoted: Vec<u8>,
    /// `###   @N=` of each column, and what follows its value: NULL and not.
    parts: Vec<[Vec<u8>; 3]>,
}

/// The tables of a file.
#[derive(Debug, Default)]
pub(super) struct Tables {
    known: HashMap<u64, Table>,
    /// Those that are not wanted, until the statement ends.
    ignored: HashSet<u64>,
}

/// What is collected of a statement.
#[derive(Debug, Default)]
pub(super) struct Statement {
    /// Comments.
    pub head: Vec<u8>,
    /// Base64.
    body: Vec<u8>,
    /// Rows in words.
    tail: Vec<u8>,
    rows: u64,
    /// Events to be undone, when it ends.
    pub undo: Vec<undo::Held>,
}

impl Table {
    fn new(body: &[u8], map: &TableMap<'_>, verbose: u8) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut quoted = Vec::new();
        push_name(&mut quoted, map.database);
        quoted.push(b'.');
        push_name(&mut quoted, map.name);
        quoted.push(b'\n');
        let mut parts = Vec::new();
        for (index, column) in map.columns.iter().enumerate().filter(|_| verbose > 0) {
            let mut part = [format!("###   @{}=", index + 1).into_bytes(), Vec::new(), Vec::new()];
            for (is_null, behind) in part[1..].iter_mut().enumerate() {
                if verbose > 1 {
                    behind.extend_from_slice(b" /* ");
                    push_type(behind, column);
                    put!(
                        behind,
                        " meta={} nullable={} is_null={is_null} */",
                        column.metadata,
                        u8::from(column.nullable)
                    );
                }
                behind.push(b'\n');
            }
            parts.push(part);
        }
        Self {
            body: body.to_vec(),
            name: format!("{}.{}", text(map.database), text(map.name)),
            columns: map.columns.clone(),
            quoted,
            parts,
        }
    }
}

impl<W: Write> Dump<'_, W> {
    pub(super) fn table_map(&mut self, event: &Event<'_>) -> Result<(), Problem> {
        let malformed = |what| Problem::Malformed(event.header.kind, what);
        let options = self.options;
        let body = event.body();
        let (table, database, name) = table_map::names(body).map_err(malformed)?;
        let is_other = |wanted: &Option<Vec<u8>>, name: &[u8]| {
            wanted.as_deref().is_some_and(|wanted| wanted != name)
        };
        if is_other(&options.database, database) || is_other(&options.table, name) {
            self.file.tables.ignored.insert(table);
            return Ok(());
        }
        let renamed = options.rewritten(database).map(|new| rename(event, database.len(), new));
        let bytes = renamed.as_deref().unwrap_or(event.bytes);
        let tail = event.bytes.len() - body.len() - crate::header::HEADER_LEN;
        let body = bytes.get(crate::header::HEADER_LEN..bytes.len() - tail).unwrap_or_default();
        let known = self.file.tables.known.get(&table).is_some_and(|known| known.body == body);
        let map = TableMap::parse(body).map_err(malformed)?;
        self.annotation(event);
        let mut head = std::mem::take(&mut self.file.statement.head);
        if !options.short_form {
            self.push_header(&mut head, event);
            head.extend_from_slice(b"\tTable_map: ");
            push_name(&mut head, map.database);
            head.push(b'.');
            push_name(&mut head, map.name);
            let triggers = if map.has_triggers { " (has triggers)" } else { "" };
            put!(head, " mapped to number {table}{triggers}\n");
        }
        if options.table_metadata && (!options.short_form || options.row_counts) {
            metadata::push_columns(&mut head, &map).map_err(malformed)?;
        }
        if !known {
            let tables = &mut self.file.tables.known;
            if tables.len() >= TABLES_MAX {
                tables.clear();
            }
            let verbose = if options.short_form { 0 } else { options.verbose };
            tables.insert(table, Table::new(body, &map, verbose));
        }
        self.require_format(event.header.kind)?;
        if self.encodes() {
            push_base64(&mut self.file.statement.body, bytes);
        }
        if !options.short_form || options.row_counts {
            self.out.append(&mut head);
        }
        self.file.statement.head = head;
        self.file.statement.undo.clear();
        Ok(())
    }

    /// Prints the statement that rows came from, if it waits.
    fn annotation(&mut self, event: &Event<'_>) {
        let Some((bytes, checksum)) = self.file.annotation.take() else { return };
        let Ok(header) = Header::parse(&bytes) else { return };
        // The stock tool shows its bytes under the offset of the table.
        let annotation = Event { offset: event.offset, header, bytes: &bytes, checksum };
        let mut head = std::mem::take(&mut self.file.statement.head);
        if self.options.short_form {
            head.extend_from_slice(b"# Annotate_rows:\n");
        } else {
            self.push_header(&mut head, &annotation);
            head.extend_from_slice(b"\tAnnotate_rows:\n");
        }
        let lines = annotation.body().split(|byte| matches!(byte, b'\r' | b'\n'));
        for line in lines.filter(|line| !line.is_empty()) {
            head.extend_from_slice(b"#Q> ");
            head.extend_from_slice(line);
            head.push(b'\n');
        }
        self.file.statement.head = head;
    }

    /// Base64 without the format is of no use.
    fn require_format(&self, kind: EventType) -> Result<(), Problem> {
        if self.encodes() && !self.file.format_printed {
            return Err(Problem::NoFormat(kind));
        }
        Ok(())
    }

    pub(super) fn rows(&mut self, event: &Event<'_>) -> Result<(), Problem> {
        let kind = event.header.kind;
        let malformed = |what| Problem::Malformed(kind, what);
        let (table, flags) = rows::begin(event.body()).map_err(malformed)?;
        let ends = flags & rows::flag::STATEMENT_END != 0;
        let is_ignored = self.file.tables.ignored.contains(&table);
        if ends {
            self.file.tables.ignored.clear();
            self.file.annotation = None;
        }
        if is_ignored {
            if ends {
                self.end_statement(None);
            }
            return Ok(());
        }
        self.require_format(kind)?;
        let mut plain = Vec::new();
        let event = match kind.rows().is_some_and(|kind| kind.compressed) {
            false => *event,
            true => {
                rows::inflate(event, &mut plain).map_err(malformed)?;
                let header = Header { kind: kind.plain(), ..event.header };
                Event { header, bytes: &plain, ..*event }
            }
        };
        let name = name_of(kind, self.options.flashback);
        if self.options.flashback {
            return self.undo_rows(&event, name, ends);
        }
        self.one_rows_event(&event, name, ends)?;
        if ends {
            self.count_rows();
        }
        Ok(())
    }

    /// Prints how many rows the statement changed.
    pub(super) fn count_rows(&mut self) {
        if self.options.row_counts {
            put!(self.out, "# Number of rows: {}\n", self.file.statement.rows);
        }
        self.file.statement.rows = 0;
    }

    /// Prints one event of rows; the last of its statement brings the others with it.
    pub(super) fn one_rows_event(
        &mut self,
        event: &Event<'_>,
        name: &str,
        ends: bool,
    ) -> Result<(), Problem> {
        let kind = event.header.kind;
        let rows =
            Rows::parse(event.body(), kind).map_err(|what| Problem::Malformed(kind, what))?;
        if !self.options.short_form {
            let mut head = std::mem::take(&mut self.file.statement.head);
            self.push_header(&mut head, event);
            head.push(b'\t');
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": table id ");
            push_uint(&mut head, rows.table);
            head.extend_from_slice(if ends { b" flags: STMT_END_F\n" } else { b"\n" });
            self.file.statement.head = head;
        }
        let before = self.out.len();
        if ends {
            self.end_statement(Some(event.bytes));
        } else if self.encodes() {
            push_base64(&mut self.file.statement.body, event.bytes);
        }
        let options = self.options;
        let words = options.verbose > 0 && !options.short_form;
        if !words && !options.row_counts {
            return Ok(());
        }
        let mut out = if ends { &mut self.out } else { &mut self.file.statement.tail };
        let Some(table) = self.file.tables.known.get(&rows.table) else {
            if words {
                put!(&mut out, "### Row event for unknown table #{}", rows.table);
            }
            return Ok(());
        };
        let counted = match words {
            true => push_rows(out, table, &rows),
            false => Ok(count(table, &rows)),
        };
        match counted {
            Ok(count) => self.file.statement.rows += count,
            Err(Misfit) => {
                let name = table.name.clone();
                // Base64 whose rows are not shown would be replayed unseen.
                if ends {
                    self.out.truncate(before);
                }
                return Err(Problem::Row(name));
            }
        }
        Ok(())
    }

    /// Writes what was collected of a statement; `last` is its last event.
    fn end_statement(&mut self, last: Option<&[u8]>) {
        let encodes = self.encodes();
        let Statement { head, body, tail, .. } = &mut self.file.statement;
        self.out.append(head);
        let length = body.len() + last.map_or(0, |last| base64_len(last.len()));
        if encodes && length > 0 {
            let out = &mut self.out;
            if length + ENCODED_EXTRA > ENCODED_MAX {
                if let Some(last) = last {
                    push_base64(body, last);
                }
                let (first, second) = body.split_at(length / 2 + 1);
                out.extend_from_slice(b"\nSET @binlog_fragment_0 ='\n");
                out.extend_from_slice(first);
                put!(out, "\n'{DELIMITER}\nSET @binlog_fragment_1 ='\n");
                out.extend_from_slice(second);
                put!(out, "'{DELIMITER}\n");
                put!(out, "BINLOG @binlog_fragment_0, @binlog_fragment_1{DELIMITER}\n");
            } else {
                out.extend_from_slice(b"\nBINLOG '\n");
                out.append(body);
                if let Some(last) = last {
                    push_base64(out, last);
                }
                put!(out, "'{DELIMITER}\n");
            }
        }
        body.clear();
        self.out.append(tail);
    }
}

/// What the stock tool calls an event of rows.
fn name_of(kind: EventType, flashback: bool) -> &'static str {
    let Some(kind) = kind.rows() else { return "" };
    match (kind.operation, kind.compressed, flashback) {
        (Operation::Write, true, _) => "Write_compressed_rows",
        (Operation::Update, true, _) => "Update_compressed_rows",
        (Operation::Delete, true, _) => "Delete_compressed_rows",
        (Operation::Update, false, _) => "Update_rows",
        (Operation::Write, false, false) | (Operation::Delete, false, true) => "Write_rows",
        (Operation::Delete, false, false) | (Operation::Write, false, true) => "Delete_rows",
    }
}

/// The event with another database. Its checksum stays as it is: nobody who replays it looks.
fn rename(event: &Event<'_>, old: usize, new: &[u8]) -> Vec<u8> {
    use crate::header::{HEADER_LEN, at};
    let name_at = HEADER_LEN + table_map::DATABASE_AT;
    let (front, rest) = event.bytes.split_at(name_at);
    let new = new.get(..new.len().min(usize::from(u8::MAX))).unwrap_or_default();
    let behind = rest.get(1 + old..).unwrap_or_default();
    let mut bytes = [front, &[new.len() as u8], new, behind].concat();
    let length = (bytes.len() as u32).to_le_bytes();
    bytes[at::LENGTH..at::LENGTH + 4].copy_from_slice(&length);
    bytes
}

/// How many rows there are. Where one does not fit its columns, it is the last that counts: nothing
/// that is replayed depends on the number.
fn count(table: &Table, rows: &Rows<'_>) -> u64 {
    if rows.operation == Operation::Write && rows.images.is_empty() {
        return 1;
    }
    let after = (rows.operation == Operation::Update).then_some(rows.columns_after);
    row::count(&table.columns, rows.columns, after, rows.images)
}

/// Appends rows in words; returns how many.
fn push_rows(out: &mut Vec<u8>, table: &Table, rows: &Rows<'_>) -> Result<u64, Misfit> {
    if let [format, payload @ ..] = rows.extra {
        put!(out, "### Extra row data format: {format}, len: {} :", payload.len());
        if !payload.is_empty() {
            out.extend_from_slice(b"0x");
            payload.iter().for_each(|byte| put!(out, "{byte:02X}"));
        }
        out.push(b'\n');
    }
    let (verb, first, second): (&[u8], &[u8], Option<&[u8]>) = match rows.operation {
        Operation::Write => (b"### INSERT INTO ", b"### SET\n", None),
        Operation::Delete => (b"### DELETE FROM ", b"### WHERE\n", None),
        Operation::Update => (b"### UPDATE ", b"### WHERE\n", Some(b"### SET\n")),
    };
    if rows.operation == Operation::Write && rows.images.is_empty() {
        out.extend_from_slice(verb);
        let name = table.quoted.strip_suffix(b"\n").unwrap_or(&table.quoted);
        out.extend_from_slice(name);
        out.extend_from_slice(b" VALUES ()\n");
        return Ok(1);
    }
    let mut images = rows.images;
    let mut count = 0;
    let nothing_after = rows.columns_after.iter().all(|byte| *byte == 0);
    while !images.is_empty() {
        let begin = images.len();
        out.extend_from_slice(verb);
        out.extend_from_slice(&table.quoted);
        out.extend_from_slice(first);
        images = push_row(out, table, rows.columns, images)?;
        match second {
            Some(_) if nothing_after => out.extend_from_slice(b"### SET /* no columns */\n"),
            Some(second) => {
                out.extend_from_slice(second);
                images = push_row(out, table, rows.columns_after, images)?;
            }
            None => {}
        }
        if images.len() == begin {
            return Err(Misfit);
        }
        count += 1;
    }
    Ok(count)
}

fn push_row<'a>(
    out: &mut Vec<u8>,
    table: &Table,
    present: &[u8],
    images: &'a [u8],
) -> Result<&'a [u8], Misfit> {
    let mut image = Image::new(&table.columns, present, images)?;
    while let Some((index, column, value)) = image.next_value()? {
        let [front, behind, behind_null] = table.parts.get(index).ok_or(Misfit)?;
        out.extend_from_slice(front);
        match value {
            Some(value) => {
                push_value(out, column, value);
                out.extend_from_slice(behind);
            }
            None => {
                out.extend_from_slice(b"NULL");
                out.extend_from_slice(behind_null);
            }
        }
    }
    image.rest()
}

impl Tables {
    /// Columns of a table.
    pub(super) fn columns(&self, table: u64) -> Option<(&str, Cow<'_, [Column]>)> {
        let table = self.known.get(&table)?;
        Some((&table.name, Cow::Borrowed(&table.columns)))
    }
}
