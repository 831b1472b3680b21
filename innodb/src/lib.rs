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
//! | [`tree`] | index pages, records that explain themselves, walks along the leaves |
//! | [`dictionary`] | tables, columns and indexes, from the system tablespace |
//! | [`undo`] | transactions that have not ended, and the tables they changed |
//! | [`cfg`](mod@cfg) | what a server needs to know to import a tablespace |
#![forbid(unsafe_code)]

pub mod bytes;
pub mod cfg;
pub mod crypt;
pub mod dictionary;
pub mod ids;
pub mod page;
pub mod redo;
pub mod space;
pub mod tree;
pub mod undo;

pub use ids::{Lsn, PageId, PageNo, PageSize, SpaceId};
