//! Why a binary log cannot be read: which file, where in it, what.

use crate::bytes::Malformed;
use crate::crypt::CryptError;
use crate::header::EventType;

/// An error with its place.
#[derive(Debug, thiserror::Error)]
#[error("{file} at {position}: {fault}")]
pub struct Error {
    /// The file, as the caller named it.
    pub file: String,
    /// Offset of the event, or of what was being read.
    pub position: u64,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The input could not be read.
    #[error("cannot be read: {0}")]
    Io(#[source] std::io::Error),
    /// Less than the four bytes that every binary log begins with.
    #[error("too short for a binary log")]
    Empty,
    /// It begins with something else.
    #[error("this is not a binary log")]
    NotBinlog,
    /// A binary log that InnoDB keeps in pages (12.3 and later).
    #[error(
        "a binary log in InnoDB's format (binlog_storage_engine=innodb), which is pages and not \
         events: read it from its server, by replication"
    )]
    InnodbBinlog,
    /// An event that is shorter than its header.
    #[error("an event cannot have {0} bytes: the log ends here or is damaged")]
    TooSmall(u32),
    /// An event longer than the limit.
    #[error("an event of {length} bytes is above the limit of {limit}")]
    TooLarge {
        /// What its header says.
        length: u32,
        /// What is allowed.
        limit: u32,
    },
    /// The input ends within an event.
    #[error("the log ends within an event: {there} of {length} bytes are there")]
    Truncated {
        /// Bytes of the event, if its header is there.
        length: u32,
        /// Bytes that are there.
        there: u64,
    },
    /// The bytes are not those that were written.
    #[error("checksum mismatch: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// In the event.
        stored: u32,
        /// Of the event.
        computed: u32,
    },
    /// Nothing says what the events look like.
    #[error("a {0} event stands where the format should be described")]
    NoFormat(EventType),
    /// The event is not what its type says.
    #[error("malformed {kind} event: {what}")]
    Malformed {
        /// Its type.
        kind: EventType,
        /// Which part.
        what: Malformed,
    },
    /// An event of rows whose table is not known.
    #[error("a {kind} event names table number {table}, which nothing describes")]
    NoTable {
        /// Its type.
        kind: EventType,
        /// The number of its table.
        table: u64,
    },
    /// A row that does not fit its table.
    #[error(
        "a row of `{table}` does not fit its columns (columns with fractions of seconds in the \
         format before 10.1 are not described in the log)"
    )]
    Row {
        /// Database and table.
        table: String,
    },
    /// An event that nobody knows and that may not be skipped.
    #[error("event {0} is not known")]
    Unknown(EventType),
    /// The events are encrypted and cannot be decrypted.
    #[error(transparent)]
    Crypt(#[from] CryptError),
}
