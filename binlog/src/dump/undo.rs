//! Flashback: events that undo events of rows.
//!
//! A statement's events are collected, turned around one by one, and printed from the last to the
//! first; the whole log is then printed from its end to its beginning. A row that the log has only in
//! part cannot be undone, and is refused instead of undone in part.

use std::io::Write;

use super::Dump;
use super::problem::Problem;
use crate::bytes::bit;
use crate::event::rows::{FLAGS_AT, Rows, flag};
use crate::header::{HEADER_LEN, Header, Operation, at};
use crate::reader::Event;
use crate::row::{Column, Image, Misfit};

/// An event that waits for the end of its statement.
#[derive(Debug)]
pub(super) struct Held {
    header: Header,
    checksum: Option<u32>,
    offset: u64,
    bytes: Vec<u8>,
    name: &'static str,
}

impl<W: Write> Dump<'_, W> {
    pub(super) fn undo_rows(
        &mut self,
        event: &Event<'_>,
        name: &'static str,
        ends: bool,
    ) -> Result<(), Problem> {
        let is_first = self.file.statement.undo.is_empty();
        if let Some(gtid) = self.file.gtid.filter(|_| self.options.undo_named_only)
            && let Some(limit) = self.options.windows.unlimited(gtid.domain)
        {
            return Err(Problem::OtherDomain { gtid, limit });
        }
        let mut bytes = self.reversed(event)?;
        // What was last is printed first.
        let low = &mut bytes[HEADER_LEN + FLAGS_AT];
        let end = flag::STATEMENT_END as u8;
        *low = if is_first { *low | end } else { *low & !end };
        let Event { header, checksum, offset, .. } = *event;
        let header = Header { kind: header.kind.reversed(), ..header };
        self.file.statement.undo.push(Held { header, checksum, offset, bytes, name });
        if !ends {
            return Ok(());
        }
        let held = std::mem::take(&mut self.file.statement.undo);
        // The printing of a statement goes to the output; here it has to wait.
        let before = std::mem::take(&mut self.out);
        let mut printed = Ok(());
        for (index, held) in held.iter().enumerate().rev() {
            let Held { header, checksum, offset, bytes, name } = held;
            let event = Event { offset: *offset, header: *header, bytes, checksum: *checksum };
            printed = printed.and_then(|()| self.one_rows_event(&event, name, index == 0));
        }
        let text = std::mem::replace(&mut self.out, before);
        printed?;
        self.undo.push(text);
        self.count_rows();
        Ok(())
    }

    /// The event that undoes an event of rows.
    fn reversed(&self, event: &Event<'_>) -> Result<Vec<u8>, Problem> {
        let kind = event.header.kind;
        let rows = Rows::parse(event.body(), kind);
        let rows = rows.map_err(|what| Problem::Malformed(kind, what))?;
        let (name, columns) =
            self.file.tables.columns(rows.table).ok_or(Problem::NoTable(kind, rows.table))?;
        let has_all = |present: &[u8]| (0..columns.len()).all(|index| bit(present, index));
        if rows.operation != Operation::Write && !has_all(rows.columns) {
            return Err(Problem::NoUndo(
                "rows cannot be undone, because the log has only some of their columns: that needs \
                 binlog_row_image=FULL when they are changed",
            ));
        }
        let images = reverse(&columns, &rows).map_err(|Misfit| Problem::Row(name.to_owned()))?;
        let front = event.bytes.len()
            - rows.images.len()
            - if event.checksum.is_some() { crate::header::CHECKSUM_LEN } else { 0 };
        let mut bytes = event.bytes.to_vec();
        bytes[front..front + images.len()].copy_from_slice(&images);
        bytes[at::TYPE] = kind.reversed().0;
        Ok(bytes)
    }
}

/// The rows of an event from the last to the first, with before and after exchanged.
fn reverse(columns: &[Column], rows: &Rows<'_>) -> Result<Vec<u8>, Misfit> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut rest = rows.images;
    while !rest.is_empty() {
        let begin = rest;
        let behind = Image::new(columns, rows.columns, begin)?.rest()?;
        let first = &begin[..begin.len() - behind.len()];
        rest = behind;
        if rows.operation == Operation::Update {
            rest = Image::new(columns, rows.columns_after, behind)?.rest()?;
            let second = &behind[..behind.len() - rest.len()];
            pieces.push(exchange(columns, rows, first, second)?);
        } else {
            pieces.push(first.to_vec());
        }
        if rest.len() == begin.len() {
            return Err(Misfit);
        }
    }
    pieces.reverse();
    Ok(pieces.concat())
}

/// A pair of rows whose columns that both have are exchanged.
fn exchange(
    columns: &[Column],
    rows: &Rows<'_>,
    before: &[u8],
    after: &[u8],
) -> Result<Vec<u8>, Misfit> {
    if (0..columns.len()).all(|index| bit(rows.columns_after, index)) {
        return Ok([after, before].concat());
    }
    let mut befores = values(columns, rows.columns, before)?;
    let mut afters = values(columns, rows.columns_after, after)?;
    for (before, after) in befores.iter_mut().zip(&mut afters) {
        if let (Some(before), Some(after)) = (before, after) {
            std::mem::swap(before, after);
        }
    }
    let mut pair = Vec::with_capacity(before.len() + after.len());
    for values in [befores, afters] {
        let present: Vec<Option<&[u8]>> = values.into_iter().flatten().collect();
        let mut nulls = vec![0; present.len().div_ceil(8)];
        for (index, _) in present.iter().enumerate().filter(|(_, value)| value.is_none()) {
            nulls[index / 8] |= 1 << (index % 8);
        }
        pair.extend(nulls);
        present.into_iter().flatten().for_each(|value| pair.extend_from_slice(value));
    }
    if pair.len() == before.len() + after.len() { Ok(pair) } else { Err(Misfit) }
}

/// For each column, whether it is there, and what it is.
fn values<'a>(
    columns: &[Column],
    present: &[u8],
    bytes: &'a [u8],
) -> Result<Vec<Option<Option<&'a [u8]>>>, Misfit> {
    let mut values = vec![None; columns.len()];
    let mut image = Image::new(columns, present, bytes)?;
    while let Some((index, _, value)) = image.next_value()? {
        values[index] = Some(value);
    }
    Ok(values)
}
