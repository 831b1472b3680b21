//! Which tablespace files are to be copied, and which were.

use innodb::space::header::SpaceHeader;
use innodb::{PageNo, SpaceId};

use super::inventory::ServerFile;
use crate::sink::StreamPath;

/// Which tablespace a file is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A file of the system tablespace, beginning at this page of it.
    System(PageNo),
    /// An undo tablespace: may be truncated at any moment.
    Undo,
    /// A file-per-table tablespace.
    Table,
    /// A file-per-table tablespace that replaces one copied before, or whose page 0 was not there yet.
    Late,
}

/// A tablespace file to copy.
#[derive(Clone, Debug)]
pub struct Job {
    /// From where to where.
    pub file: ServerFile,
    /// Path in the backup: differs from that of `file` for late copies.
    pub target: StreamPath,
    /// What it is.
    pub role: Role,
    /// What its page 0 would say if it had been written, where that is known.
    pub header: Option<SpaceHeader>,
}

/// What identifies a file, however it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Tablespace id on page 0, or by the redo log when page 0 was never written.
    pub space: Option<SpaceId>,
    /// Device and inode.
    pub inode: (u64, u64),
}

/// A tablespace file that was copied.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The job's file.
    pub file: ServerFile,
    /// What it was when it was opened.
    pub identity: Identity,
}
