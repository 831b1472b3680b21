//! The archive of binary logs in a repository: what was committed since a backup was taken.
//!
//! ```text
//! files of a server ─▶ push ─▶ scan ─▶ parts ─▶ store
//! a server ─▶ stream ─▶ scan ─▶ parts ─▶ store
//! store ─▶ catalog ─▶ list, find, fetch, plan ─▶ read ─▶ plain bytes of the files
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`layout`] | what objects are called: by server, epoch and place in the log |
//! | [`part`] | an object: bytes of a file, and an index of what is in them |
//! | [`scan`], [`statement`], [`index`] | transactions of a log, and the tables that they touch |
//! | [`catalog`] | which logs, files and parts there are |
//! | [`gaps`] | what is missing, told by content |
//! | [`push`], `files`, `writer` | archiving closed files |
//! | [`stream`], `arriving`, `hold` | archiving a log while it is written, as a replica |
//! | [`read`] | a file of the archive as if it were one on disk |
//! | [`plan`] | which files lead from a place in the log to a later one |
//! | [`find`], [`fetch`] | transactions by what they do; files back on disk |
//! | [`expire`] | what no backup needs any more |
//! | [`purge`] | removing from a server what is archived |
//! | [`anew`] | files in large parts instead of small ones, here or in another repository |
//! | [`verify`] | whether everything is as it was stored |
//!
//! Promises:
//! - An object is a run of bytes of one file, put whole, and never changed. What is there counts; who
//!   was killed goes on where the archive ends. Nothing depends on the names of files alone.
//! - What comes out is what was in the file, byte for byte. Files that their server had encrypted come
//!   out as the server sends them to replicas: decrypted. Such files go only into sealed repositories.
//! - Whatever is missing between two files of a server, or between what is there of two servers, is
//!   found by the GTIDs that files say were logged before them.
//!
//! # For whoever replays
//!
//! ```no_run
//! # use engine::archive::{Archive, plan::{Start, Until}};
//! # fn example(repository: &engine::repo::Repository, cancel: &engine::Cancel) -> engine::Result<()> {
//! let archive = Archive::read(repository, cancel)?;
//! let start = Start { position: "0-1-42".parse().unwrap_or_default(), ..Start::default() };
//! let plan = archive.plan(&start, &Until::End, cancel)?;
//! for step in &plan.steps {
//!     // `Read + Seek`: the whole file from its first byte on; only what is read is fetched.
//!     let file = archive.open(&step.file, cancel);
//!     let mut reader = binlog::Reader::new(file, &step.file.name, Default::default()).unwrap();
//!     // The first event describes the format. Then go to where the step begins.
//!     reader.next_event().unwrap();
//!     reader.seek_to(step.begin).unwrap();
//!     // Up to `step.end`, leaving out what `plan::Skipper` says was there before.
//! }
//! # Ok(())
//! # }
//! ```

pub mod anew;
mod arriving;
#[cfg(test)]
mod canned;
pub mod catalog;
pub mod expire;
pub mod fetch;
mod files;
pub mod find;
pub mod gaps;
mod hold;
pub mod index;
pub mod layout;
pub mod part;
pub mod plan;
pub mod purge;
pub mod push;
pub mod read;
pub mod scan;
pub mod statement;
pub mod stream;
pub mod verify;
mod writer;

use std::path::{Path, PathBuf};

use crate::repo::Repository;
use crate::{Error, ErrorKind};
pub use catalog::File;
use layout::Epoch;

/// The archive of a repository, as it was when it was read.
pub struct Archive<'r> {
    repository: &'r Repository,
    /// What there is of each server and epoch, in the order of names.
    pub logs: Vec<Log>,
    /// The epoch that ways are to go through, if one was chosen.
    history: Option<String>,
    unlogged: gaps::Unlogged,
}

/// Files that follow one another.
#[derive(Clone, Debug)]
pub struct Log {
    /// `server_id` of who wrote them.
    pub server: u32,
    /// Which row of files of that server.
    pub epoch: Epoch,
    /// By number.
    pub files: Vec<File>,
}

impl Log {
    /// The parts of its files.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &part::Part> {
        self.files.iter().flat_map(|file| &file.parts)
    }
}

/// What is wrong with a log, as an error of an operation.
pub(crate) fn unreadable(error: binlog::Error) -> Error {
    use binlog::Fault;
    let (kind, advice) = match &error.fault {
        Fault::Io(cause) => {
            // What the archive said comes through what can only read.
            let ours = cause.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
            (ours.map_or(ErrorKind::Failed, Error::kind), None)
        }
        Fault::Crypt(_) => {
            (ErrorKind::Usage, Some("name the server's keys, as with --keys-file FILE"))
        }
        Fault::NotBinlog | Fault::Empty | Fault::InnodbBinlog => (ErrorKind::Usage, None),
        _ => (ErrorKind::Damage, None),
    };
    let error = Error::new(kind, error.to_string());
    match advice {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

/// That a file is a binary log in InnoDB's format.
pub(crate) fn of_innodb(path: &Path) -> Error {
    let file = path.display().to_string();
    unreadable(binlog::Error { file, position: 0, fault: binlog::Fault::InnodbBinlog })
}

/// Words for files beside logs that are passed over.
pub(crate) fn no_logs(indexes: &[PathBuf], of_innodb: &[PathBuf]) -> Vec<String> {
    let mut notes = Vec::new();
    if !indexes.is_empty() {
        let names: Vec<String> = indexes.iter().map(|path| path.display().to_string()).collect();
        notes.push(format!("passed over, as they are GTID indexes of logs: {}", names.join(", ")));
    }
    if let Some(first) = of_innodb.first() {
        notes.push(format!(
            "passed over, as they are binary logs in InnoDB's format: {} from {} on; what was logged \
             in them is not read",
            of_innodb.len(),
            first.display()
        ));
    }
    notes
}
