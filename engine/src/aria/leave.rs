//! Why Aria's log is left to the server.

use super::lsn::AriaLsn;
use crate::Error;

/// Why nothing was done. The files are as they were copied then, and the server recovers the
/// tables at its first start, as after a crash.
#[derive(Debug, thiserror::Error)]
pub enum Leave {
    /// A file is not what it should be.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// The file, relative to the backup.
        file: String,
        /// What is wrong with it, and where.
        what: String,
    },
    /// A record cannot be what it says.
    #[error("the log record at {lsn} is damaged: {what}")]
    Record {
        /// Where it begins.
        lsn: AriaLsn,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A record or a file that this program does not know, or knows that it cannot apply.
    #[error("{0}")]
    Unsupported(String),
    /// What is to be changed does not fit in memory.
    #[error("its pages do not fit in the memory limit")]
    Memory,
    /// The backup lacks rows that are not in the log.
    #[error(
        "rows of {0} are missing from the backup: the empty table was filled without a log while \
         it was copied"
    )]
    Lost(String),
    /// A transaction was open, and cannot be left out.
    #[error("a transaction was open when commits were blocked, and {0}")]
    Open(String),
}

/// Why recovery ends early.
#[derive(Debug)]
pub enum Stop {
    /// Nothing was changed, and nothing will be.
    Leave(Leave),
    /// The operation failed.
    Failed(Error),
}

impl From<Leave> for Stop {
    fn from(reason: Leave) -> Self {
        Self::Leave(reason)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Result of a step of recovery.
pub type Result<T> = std::result::Result<T, Stop>;

/// A page or a record whose content contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
