//! LOAD DATA: the file in pieces, then the statement.

use crate::bytes::{Bytes, Malformed, Read};
use crate::event::query::{Fixed, Query};

/// A piece of a file; also DELETE_FILE, where the piece is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Which file of this run of the server.
    pub file_id: u32,
    /// The piece.
    pub data: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads the body.
    pub fn parse(body: &'a [u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        Ok(Self { file_id: bytes.u32("file id")?, data: bytes.0 })
    }
}

/// What to do with rows that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// Fail.
    Error,
    /// Keep the old row.
    Ignore,
    /// Take the new row.
    Replace,
}

/// The statement that reads the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteLoad<'a> {
    /// The statement and its session.
    pub query: Query<'a>,
    /// Which file.
    pub file_id: u32,
    /// What of the text names the file.
    pub name: std::ops::Range<usize>,
    /// Rows that are there already.
    pub duplicates: Duplicates,
}

impl<'a> ExecuteLoad<'a> {
    /// Reads the body.
    pub fn parse(body: &'a [u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        let fixed = Fixed::parse(&mut bytes)?;
        let file_id = bytes.u32("file id")?;
        let name = bytes.u32("file name")? as usize..bytes.u32("file name")? as usize;
        let duplicates = match bytes.u8("duplicates")? {
            0 => Duplicates::Error,
            1 => Duplicates::Ignore,
            2 => Duplicates::Replace,
            _ => return Err(Malformed("duplicates")),
        };
        let query = Query::rest(fixed, bytes)?;
        if query.text.get(name.clone()).is_none() {
            return Err(Malformed("file name"));
        }
        Ok(Self { query, file_id, name, duplicates })
    }
}
