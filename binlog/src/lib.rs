//! Binary logs: positions and GTIDs, events, rows, and their text.
//!
//! Bytes and text in, values out, and back without loss. Every input is taken for hostile: none
//! makes this crate panic or allocate out of proportion.
//!
//! | module | what |
//! |---|---|
//! | [`gtid`] | [`Gtid`], [`GtidPosition`] (one per domain), [`GtidState`] (one per domain and server) |
//! | [`position`] | [`BinlogPosition`]: file and offset |
//! | [`reader`] | events one after another, from anything that can be read |
//! | [`format`], [`header`] | the first event of a file; what every event begins with |
//! | [`event`] | what is in each kind of event |
//! | [`row`] | columns and their values |
//! | [`compress`], [`crypt`] | compressed parts, encrypted files |
//! | [`collation`] | names of collations by number |
//! | [`dump`] | the text of the stock tool `mariadb-binlog` |
//! | [`json`] | one line of JSON an event |
//! | [`kind`] | what a file is, log or not |
//! | [`error`] | which file, where, what |
#![forbid(unsafe_code)]

pub mod bytes;
pub mod collation;
pub mod compress;
pub mod crypt;
pub mod dump;
pub mod error;
pub mod event;
pub mod format;
pub mod gtid;
pub mod header;
#[cfg(test)]
mod hostile_tests;
pub mod json;
pub mod kind;
pub mod position;
pub mod reader;
pub mod row;

pub use error::{Error, Fault};
pub use gtid::{Gtid, GtidError, GtidPosition, GtidState};
pub use header::{EventType, Header, Operation};
pub use kind::FileKind;
pub use position::{BinlogPosition, BinlogPositionError};
pub use reader::{Event, ReadOptions, Reader};
