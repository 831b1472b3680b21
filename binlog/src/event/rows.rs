//! Rows that were written, changed or deleted.

use crate::bytes::{Bytes, Malformed, Read, bitmap_bytes};
use crate::compress;
use crate::header::{CHECKSUM_LEN, EventType, HEADER_LEN, Operation, at};
use crate::reader::{Event, checksum_of};

/// Flags of an event of rows.
pub mod flag {
    /// It is the last one of its statement.
    pub const STATEMENT_END: u16 = 0x01;
}

/// Offset of the flags in the body.
pub const FLAGS_AT: usize = 6;

/// Most columns that an event speaks of.
const COLUMNS_MAX: usize = 4096;

/// An event of rows. The rows themselves follow one another in `images`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows<'a> {
    /// What was done.
    pub operation: Operation,
    /// Number of the table.
    pub table: u64,
    /// See [`flag`].
    pub flags: u16,
    /// More data of version 2, with its header.
    pub extra: &'a [u8],
    /// Number of columns.
    pub width: usize,
    /// Which columns are there: of what was, or for a write of what is.
    pub columns: &'a [u8],
    /// For updates, which columns are there of what is.
    pub columns_after: &'a [u8],
    /// Rows; compressed if the type says so.
    pub images: &'a [u8],
}

/// The number of the table and the flags, which are in the same place in all versions.
pub fn begin(body: &[u8]) -> Read<(u64, u16)> {
    let mut bytes = Bytes(body);
    Ok((bytes.uint(6, "table number")?, bytes.u16("flags")?))
}

impl<'a> Rows<'a> {
    /// Reads the body of an event of this type.
    pub fn parse(body: &'a [u8], kind: EventType) -> Read<Self> {
        let kind = kind.rows().ok_or(Malformed("type"))?;
        let mut bytes = Bytes(body);
        let table = bytes.uint(6, "table number")?;
        let flags = bytes.u16("flags")?;
        let mut extra = [].as_slice();
        if kind.second_version {
            let length = usize::from(bytes.u16("length of more data")?);
            let length = length.checked_sub(2).ok_or(Malformed("length of more data"))?;
            extra = bytes.take(length, "more data")?;
        }
        let width = bytes.packed_length("number of columns")?;
        if width > COLUMNS_MAX {
            return Err(Malformed("number of columns"));
        }
        let columns = bytes.take(bitmap_bytes(width), "columns")?;
        let columns_after = match kind.operation {
            Operation::Update => bytes.take(bitmap_bytes(width), "changed columns")?,
            _ => &[],
        };
        let operation = kind.operation;
        Ok(Self { operation, table, flags, extra, width, columns, columns_after, images: bytes.0 })
    }

    /// Whether the statement ends with it.
    pub const fn ends_statement(&self) -> bool {
        self.flags & flag::STATEMENT_END != 0
    }
}

/// Makes `plain` the same event, as the server would have written it uncompressed.
pub fn inflate(event: &Event<'_>, plain: &mut Vec<u8>) -> Read<()> {
    plain.clear();
    let rows = Rows::parse(event.body(), event.header.kind)?;
    let front = event.bytes.len() - event.body().len() - HEADER_LEN;
    let front = event.bytes.len() - front - rows.images.len();
    plain.extend_from_slice(event.bytes.get(..front).ok_or(Malformed("rows"))?);
    compress::inflate_part(rows.images, plain)?;
    let tail = if event.checksum.is_some() { CHECKSUM_LEN } else { 0 };
    plain.extend_from_slice(&[0; CHECKSUM_LEN][..tail]);
    let length = u32::try_from(plain.len()).map_err(|_| Malformed("length"))?;
    plain[at::TYPE] = event.header.kind.plain().0;
    plain[at::LENGTH..at::LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    stamp(plain, event.checksum.is_some());
    Ok(())
}

/// Puts the right checksum behind an event that has been changed, if it has one.
pub fn stamp(event: &mut [u8], has_checksum: bool) {
    if has_checksum {
        let checksum = checksum_of(event).to_le_bytes();
        if let Some(tail) = event.last_chunk_mut() {
            *tail = checksum;
        }
    }
}
