//! The redo log of MariaDB 10.8 and later.
//!
//! A log is a header ([`header`]), then mini-transactions ([`mtr`]) of records ([`record`]). Every
//! byte behind the header is one LSN. Nothing marks the end of a log: it ends where a
//! mini-transaction fails to parse, so only a failure *behind* a good CRC is corruption. Whoever reads
//! a log that is still being written must ask the server how far it goes: what lies behind the
//! end can parse, too.

pub mod apply;
pub mod header;
pub mod mtr;
pub mod record;
pub mod varint;

pub use header::{Checkpoint, LogHeader};
pub use mtr::{Laps, Mtr, Stop};
pub use record::{Body, FileRecord, Malformed};
