//! InnoDB file formats of MariaDB 10.5 to 11.8: pages, tablespaces and the redo log.
//!
//! Bytes in, values out. This crate opens no file, knows no server and no network, and is
//! usable alone by anyone who reads InnoDB files. Every byte is taken for hostile: no input
//! makes it panic or allocate out of proportion.
//!
//! | module | what |
//! |---|---|
//! | [`ids`] | the numbers that must not mix: [`Lsn`], [`SpaceId`], [`PageNo`], [`PageSize`] |
//! | [`bytes`] | checked big-endian reads and writes |
//! | [`page`] | page header and trailer, page types, checksums, verification |
//! | [`space`] | tablespace flags, page 0, extents, file names |
//! | [`crypt`] | encryption of pages and of redo, given the keys |
//! | [`redo`] | redo log headers, mini-transactions, records and their effect on pages |
#![forbid(unsafe_code)]

pub mod bytes;
pub mod crypt;
pub mod ids;
pub mod page;
pub mod redo;
pub mod space;

pub use ids::{Lsn, PageId, PageNo, PageSize, SpaceId};
