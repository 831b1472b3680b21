//! The redo log of MariaDB 10.5 and later.
//!
//! The records are the same in all of them. What follows is about 10.8 and later; before, they
//! were cut into blocks: [`blocks`].
//!
//! A log is a header ([`header`]), then mini-transactions ([`mtr`]) of records ([`record`]). Every
//! byte behind the header is one LSN. Nothing marks the end of a log: it ends where a
//! mini-transaction fails to parse, so only a failure *behind* a good CRC is corruption. Whoever reads
//! a log that is still being written must ask the server how far it goes: what lies behind the
//! end can parse, too.

pub mod apply;
pub mod blocks;
pub mod header;
pub mod mtr;
pub mod record;
pub mod varint;

pub use header::{Checkpoint, LogHeader};
pub use mtr::{Laps, Mtr, Stop};
pub use record::{Body, FileRecord, Malformed};
