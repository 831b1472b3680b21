//! What can be wrong with a stream, and where.

use std::fmt;
use std::io;

use crate::path::{PathError, StreamPath};

/// Where reading stopped; the source says why.
#[derive(Debug)]
pub struct StreamError {
    /// Offset in the stream where the chunk in question begins.
    pub at: u64,
    /// The file the chunk is about, when that much was read.
    pub path: Option<StreamPath>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream chunk at byte {}", self.at)?;
        if let Some(path) = &self.path {
            write!(f, ", file {path}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// What is wrong with a chunk.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The input cannot be read. The only fault that is not damage of the stream.
    #[error("cannot read the stream")]
    Io(#[source] io::Error),
    /// No chunk begins here.
    #[error("no chunk begins here: found the bytes {found:02x?}")]
    Magic {
        /// The bytes in place of the magic.
        found: [u8; 8],
    },
    /// The stream ends inside the header of a chunk.
    #[error("the stream ends inside the {field} of a chunk")]
    TruncatedHeader {
        /// The field that was being read.
        field: &'static str,
    },
    /// The stream ends inside a payload.
    #[error("the stream ends inside a payload: {missing} bytes are missing")]
    TruncatedPayload {
        /// Bytes that should have followed.
        missing: u64,
    },
    /// A chunk type that is neither known nor marked as ignorable.
    #[error("unknown chunk type {:?}", char::from(*.0))]
    UnknownType(u8),
    /// The path is refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The payload is not what the writer sent.
    #[error("the payload's CRC-32 is {computed:08x}, the chunk says {stored:08x}")]
    Checksum {
        /// From the chunk.
        stored: u32,
        /// Of the bytes that arrived.
        computed: u32,
    },
    /// Percona's sparse payload.
    #[error("this is a sparse chunk of Percona XtraBackup, which MariaDB's streams do not have")]
    PerconaSparse,
    /// Offset and length lead beyond the largest possible file.
    #[error("{len} bytes at offset {offset} lead beyond the largest possible file")]
    Range {
        /// Where the payload was to go.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// A payload does not continue where the last one of its file ended.
    #[error("the payload is for offset {found}, but the file has reached {expected}")]
    Offset {
        /// Where the file stands.
        expected: u64,
        /// Where the payload says it belongs.
        found: u64,
    },
    /// A chunk for a file that has ended, without the flag to rewrite it.
    #[error("the file has ended already")]
    Ended,
    /// Renaming or removing a file that has not ended.
    #[error("the file is renamed or removed before its end")]
    StillOpen,
    /// Renaming a folder: only files are renamed in a stream.
    #[error("a rename of a folder")]
    FolderRename,
    /// More files are open than any writer opens.
    #[error("more than {0} files are open at a time")]
    TooManyOpen(usize),
    /// The stream is over, but files have no end chunk.
    #[error("the stream is cut off: {count} files have no end, {path} among them")]
    Unfinished {
        /// How many.
        count: usize,
        /// One of them.
        path: StreamPath,
    },
}
