//! Why an event cannot be printed, before it is known where the event stands.

use super::Failure;
use super::filter::Limit;
use crate::bytes::Malformed;
use crate::error::{Error, Fault};
use crate::gtid::Gtid;
use crate::header::EventType;

/// What goes wrong with one event.
#[derive(Debug)]
pub(super) enum Problem {
    Malformed(EventType, Malformed),
    Unknown(EventType),
    NoFormat(EventType),
    NoTable(EventType, u64),
    Row(String),
    LoadFile(std::path::PathBuf, std::io::Error),
    OutOfOrder { got: Gtid, before: Gtid },
    NoUndo(&'static str),
    Gtids(String),
    OtherDomain { gtid: Gtid, limit: Limit },
}

impl Problem {
    /// The same with its place.
    pub(super) fn of(self, file: &str, position: u64) -> Failure {
        let fault = match self {
            Self::Malformed(kind, what) => Fault::Malformed { kind, what },
            Self::Unknown(kind) => Fault::Unknown(kind),
            Self::NoFormat(kind) => Fault::NoFormat(kind),
            Self::NoTable(kind, table) => Fault::NoTable { kind, table },
            Self::Row(table) => Fault::Row { table },
            Self::LoadFile(path, source) => return Failure::LoadFile { path, source },
            Self::OutOfOrder { got, before } => return Failure::OutOfOrder { got, before },
            Self::Gtids(words) => return Failure::Gtids(words),
            Self::OtherDomain { gtid, limit } => return Failure::OtherDomain { gtid, limit },
            Self::NoUndo(why) => {
                return Failure::NoUndo { file: file.to_owned(), position, why };
            }
        };
        Failure::Log(Error { file: file.to_owned(), position, fault })
    }
}
