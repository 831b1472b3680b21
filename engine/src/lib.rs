//! Backup, prepare and restore of MariaDB, as a library.
//!
//! Every operation takes an options struct, a [`Cancel`] and a [`Reporter`], returns a summary
//! that serialises to JSON, and never prints and never starts a program.
//!
//! | module | what |
//! |---|---|
//! | [`server`] | option files, connection, server profile, BACKUP STAGE, positions |
//! | [`capture`] | reading a live server: inventory, pages, redo, other engines, DDL |
//! | [`sink`] | where a backup goes: a folder or an xbstream |
//! | [`metadata`] | the text files of a backup: checkpoints, info, `backup-my.cnf` |
//! | [`delta`] | backups of what changed since another one |
//! | [`extract`] | unpacking an xbstream into a folder |
//! | [`check`] | whether a backup would succeed |
//! | [`prepare`] | applying the captured redo to the copied pages |
//! | [`qpress`] | backups whose files are compressed one by one |
//! | [`keys`] | where encryption keys come from |
//! | [`aria`] | recovery of Aria tables |
//! | [`export`] | `.cfg` files for the import of single tables |
//! | [`archive`] | binary logs in a store: archiving, finding, fetching |
//! | [`replay`] | binary logs onto a running server, up to a target |
//! | [`repo`] | backups in a store: frames, packs, manifests; keeping and expiring them |
//! | [`restore`] | placing a prepared backup in a data directory |
//! | [`serve`] | binary logs for replicas, as a primary serves them |
//! | [`table_filter`] | which tables a partial backup has |
//! | [`store`] | where repositories keep their objects: a bucket or a folder |
//! | [`io`] | files, buffers, `io_uring`; the only `unsafe` of the project |

pub mod archive;
pub mod aria;
pub mod cancel;
pub mod capture;
pub mod check;
pub mod delta;
pub mod error;
pub mod export;
pub mod extract;
pub mod io;
pub mod keys;
pub mod metadata;
pub mod prepare;
pub mod qpress;
mod redo_files;
pub mod replay;
pub mod repo;
pub mod report;
pub mod restore;
pub mod serve;
pub mod server;
pub mod sink;
pub mod store;
pub mod table_filter;

pub use cancel::Cancel;
pub use error::{Error, ErrorKind, Result};
pub use innodb::Lsn;
pub use report::{Event, Phase, Reporter};
