//! The effect of records on the bytes of their page.
//!
//! [`apply`] makes exactly the change that a server makes, byte for byte. It is the inner loop of
//! a prepare: it allocates nothing and copies nothing but page bytes. Page and record are both
//! hostile: an offset from either that leads out of the page, or a field with an impossible value,
//! is an [`ApplyError`] that names it. After an error the page is half changed, and worthless.
//!
//! | module | records |
//! |---|---|
//! | `edit` | INIT_PAGE, WRITE, MEMSET, MEMMOVE |
//! | `init` | an empty index page or undo page |
//! | `insert`, `delete` | one record of an index page, which `index` describes |
//! | `undo` | one undo log record |

mod delete;
mod edit;
mod index;
mod init;
mod insert;
mod undo;

use super::record::{Body, TRIM_PAGES};
use super::varint;
use crate::bytes::{put, u8_at, u16_at};
use crate::{PageId, PageNo};

/// Subtypes of EXTENDED records that change one page.
mod subtype {
    pub const INIT_ROW_FORMAT_REDUNDANT: u8 = 0;
    pub const INIT_ROW_FORMAT_DYNAMIC: u8 = 1;
    pub const UNDO_INIT: u8 = 2;
    pub const UNDO_APPEND: u8 = 3;
    pub const INSERT_HEAP_REDUNDANT: u8 = 4;
    pub const INSERT_REUSE_REDUNDANT: u8 = 5;
    pub const INSERT_HEAP_DYNAMIC: u8 = 6;
    pub const INSERT_REUSE_DYNAMIC: u8 = 7;
    pub const DELETE_ROW_FORMAT_REDUNDANT: u8 = 8;
    pub const DELETE_ROW_FORMAT_DYNAMIC: u8 = 9;
}

/// Pages below this have no records in terms of rows: header, change buffer bitmap, inodes.
const EXTENDED_PAGE_MIN: PageNo = PageNo(3);

/// A record that does not fit its page: one of the two is corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{page}: a redo record of type {record} cannot be applied: {reason}")]
pub struct ApplyError {
    /// Which page.
    pub page: PageId,
    /// The name of the record's type.
    pub record: &'static str,
    /// What does not fit.
    pub reason: Misfit,
}

/// What does not fit between a record and its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// A field leads out of the page, or out of the part where it may point to.
    #[error("{what} is out of bounds at offset {offset}")]
    OutOfBounds {
        /// Which field.
        what: &'static str,
        /// Where it leads.
        offset: usize,
    },
    /// A field of the page or record has an impossible value.
    #[error("{what} is {value}, which is impossible")]
    Impossible {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: usize,
    },
    /// The record is cut short.
    #[error("the record ends before {0}")]
    Short(&'static str),
    /// The record has more bytes than its fields.
    #[error("the record has {0} bytes too many")]
    Long(usize),
    /// A record in terms of rows for a page that cannot have any.
    #[error("{0} can have no such record")]
    Forbidden(&'static str),
    /// A subtype that does not exist or does not change a page.
    #[error("subtype {0} does not change a page")]
    Subtype(u8),
}

/// The page that a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyTarget {
    /// Which page.
    pub page: PageId,
    /// Whether the tablespace is ROW_FORMAT=COMPRESSED. Then the page is `zip` bytes as stored, and
    /// only plain edits may come.
    pub zip: bool,
}

/// Changes `page`, the physical page of `target`, as `body` says.
///
/// FREE_PAGE and OPTION change no byte. TRIM_PAGES is about a whole tablespace and an error here.
///
/// # Errors
/// When the record does not fit the page. The page must then not be used any more.
#[inline]
pub fn apply(page: &mut [u8], target: ApplyTarget, body: &Body<'_>) -> Result<(), ApplyError> {
    let result = match *body {
        Body::FreePage | Body::Option { .. } => Ok(()),
        Body::InitPage => edit::init_page(page, target.page),
        Body::Write { offset, bytes } => edit::write_bytes(page, offset, bytes),
        Body::Memset { offset, length, pattern } => edit::memset(page, offset, length, pattern),
        Body::Memmove { offset, length, source } => edit::memmove(page, offset, length, source),
        Body::Extended { subtype, payload } => extended(page, target, subtype, payload),
    };
    result.map_err(|reason| ApplyError { page: target.page, record: name(body), reason })
}

fn extended(
    page: &mut [u8],
    target: ApplyTarget,
    subtype: u8,
    payload: &[u8],
) -> Result<(), Misfit> {
    if target.zip {
        return Err(Misfit::Forbidden("a page of a ROW_FORMAT=COMPRESSED tablespace"));
    }
    if target.page.page < EXTENDED_PAGE_MIN {
        return Err(Misfit::Forbidden("one of the first three pages of a tablespace"));
    }
    match subtype {
        subtype::INIT_ROW_FORMAT_REDUNDANT => init::index(page, &init::REDUNDANT, payload),
        subtype::INIT_ROW_FORMAT_DYNAMIC => init::index(page, &init::DYNAMIC, payload),
        subtype::UNDO_INIT => init::undo(page, payload),
        subtype::UNDO_APPEND => undo::append(page, payload),
        subtype::INSERT_HEAP_REDUNDANT => insert::redundant(page, insert::Space::Heap, payload),
        subtype::INSERT_REUSE_REDUNDANT => insert::redundant(page, insert::Space::Free, payload),
        subtype::INSERT_HEAP_DYNAMIC => insert::dynamic(page, insert::Space::Heap, payload),
        subtype::INSERT_REUSE_DYNAMIC => insert::dynamic(page, insert::Space::Free, payload),
        subtype::DELETE_ROW_FORMAT_REDUNDANT => delete::redundant(page, payload),
        subtype::DELETE_ROW_FORMAT_DYNAMIC => delete::dynamic(page, payload),
        other => Err(Misfit::Subtype(other)),
    }
}

fn name(body: &Body<'_>) -> &'static str {
    match *body {
        Body::FreePage => "FREE_PAGE",
        Body::InitPage => "INIT_PAGE",
        Body::Write { .. } => "WRITE",
        Body::Memset { .. } => "MEMSET",
        Body::Memmove { .. } => "MEMMOVE",
        Body::Option { .. } => "OPTION",
        Body::Extended { subtype, .. } => match subtype {
            subtype::INIT_ROW_FORMAT_REDUNDANT => "INIT_ROW_FORMAT_REDUNDANT",
            subtype::INIT_ROW_FORMAT_DYNAMIC => "INIT_ROW_FORMAT_DYNAMIC",
            subtype::UNDO_INIT => "UNDO_INIT",
            subtype::UNDO_APPEND => "UNDO_APPEND",
            subtype::INSERT_HEAP_REDUNDANT => "INSERT_HEAP_REDUNDANT",
            subtype::INSERT_REUSE_REDUNDANT => "INSERT_REUSE_REDUNDANT",
            subtype::INSERT_HEAP_DYNAMIC => "INSERT_HEAP_DYNAMIC",
            subtype::INSERT_REUSE_DYNAMIC => "INSERT_REUSE_DYNAMIC",
            subtype::DELETE_ROW_FORMAT_REDUNDANT => "DELETE_ROW_FORMAT_REDUNDANT",
            subtype::DELETE_ROW_FORMAT_DYNAMIC => "DELETE_ROW_FORMAT_DYNAMIC",
            TRIM_PAGES => "TRIM_PAGES",
            _ => "EXTENDED",
        },
    }
}

/// Takes a number off the front of a payload; `what` is its name.
#[inline]
fn number(payload: &mut &[u8], what: &'static str) -> Result<usize, Misfit> {
    // No platform that runs this has a usize of less than 32 bits.
    varint::take(payload).map(|number| number as usize).ok_or(Misfit::Short(what))
}

/// The end of a payload whose fields were all read.
#[inline]
fn done(payload: &[u8]) -> Result<(), Misfit> {
    if payload.is_empty() { Ok(()) } else { Err(Misfit::Long(payload.len())) }
}

/// One byte of the page.
#[inline]
fn read_u8(page: &[u8], offset: usize, what: &'static str) -> Result<u8, Misfit> {
    u8_at(page, offset).ok_or(Misfit::OutOfBounds { what, offset })
}

/// Two bytes of the page, as a number to calculate offsets with.
#[inline]
fn read_u16(page: &[u8], offset: usize, what: &'static str) -> Result<usize, Misfit> {
    u16_at(page, offset).map(usize::from).ok_or(Misfit::OutOfBounds { what, offset })
}

/// Writes `bytes` into the page.
#[inline]
fn write(page: &mut [u8], offset: usize, bytes: &[u8], what: &'static str) -> Result<(), Misfit> {
    put(page, offset, bytes).ok_or(Misfit::OutOfBounds { what, offset })
}

/// Writes a number of two bytes into the page.
#[inline]
fn write_u16(
    page: &mut [u8],
    offset: usize,
    value: usize,
    what: &'static str,
) -> Result<(), Misfit> {
    let value = u16::try_from(value).map_err(|_| Misfit::Impossible { what, value })?;
    write(page, offset, &value.to_be_bytes(), what)
}

/// Zeroes `[start, end)` of the page.
#[inline]
fn zero(page: &mut [u8], start: usize, end: usize, what: &'static str) -> Result<(), Misfit> {
    page.get_mut(start..end).ok_or(Misfit::OutOfBounds { what, offset: end })?.fill(0);
    Ok(())
}

/// Moves `length` bytes within the page; the places may overlap.
#[inline]
fn copy(
    page: &mut [u8],
    source: usize,
    target: usize,
    length: usize,
    what: &'static str,
) -> Result<(), Misfit> {
    for start in [source, target] {
        let fits = start.checked_add(length).is_some_and(|end| end <= page.len());
        if !fits {
            return Err(Misfit::OutOfBounds { what, offset: start });
        }
    }
    page.copy_within(source..source + length, target);
    Ok(())
}
