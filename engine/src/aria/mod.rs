//! Recovery of Aria tables, as a server does it at its start after a crash.
//!
//! Aria's transactional tables, the server's own among them, are copied while they change; a log
//! makes the copies whole. Doing that here leaves nothing to the server's first start that could
//! fail. It is done for the whole log or not at all: whatever is not understood leaves all files
//! as they are, with the reason, and then the server does it.
//!
//! Invariants:
//! - Every byte of logs and tables is hostile: no panic, no memory out of proportion.
//! - Nothing is written before all is known; then a journal makes the writes atomic.
//! - After an orderly recovery, tables and log have the bytes that the stock tool leaves, save for
//!   open transactions, which are left out instead of being applied and undone ([`redo`]).
//!
//! | module | what |
//! |---|---|
//! | [`lsn`], [`bytes`], [`leave`] | places in the log; numbers; why it is left to the server |
//! | [`control`], [`log`], [`record`], [`checkpoint`] | the control file, the log, its records |
//! | [`table`], [`auto_key`], [`pages`] | headers and states of tables, and their pages |
//! | [`row_page`], [`bitmap`], [`key_page`] | the content of pages |
//! | [`crypt`] | their encryption |
//! | [`apply`], [`redo`], [`left_out`] | from records to pages |
//! | [`commit`] | from what is known to what is on disk |

mod apply;
mod auto_key;
mod bitmap;
mod bytes;
mod checkpoint;
mod commit;
pub(crate) mod control;
mod crypt;
mod key_page;
mod leave;
mod left_out;
mod log;
mod lsn;
mod pages;
mod record;
mod redo;
mod row_page;
mod table;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use control::Control;
use leave::{Leave, Stop};
use log::Log;

use crate::keys::settings::KeyStore;
use crate::{Cancel, Error, Reporter, Result};

/// What became of Aria's log.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum AriaSummary {
    /// The backup has no Aria log.
    Absent,
    /// The tables are whole; the server has nothing to recover.
    Recovered {
        /// Records read.
        records: u64,
        /// Tables that were changed.
        tables: usize,
        /// Pages that were changed.
        pages: u64,
        /// Transactions that were open, and are as if they had never begun.
        open_transactions: usize,
    },
    /// The server does it at its first start.
    LeftToServer {
        /// Why.
        reason: String,
    },
}

/// Makes the Aria tables below `dir` whole. May be killed at any point and run again. `memory` is
/// a limit in bytes; what needs more is left to the server. `keys` are for encrypted tables.
pub fn recover(
    dir: &Path,
    memory: u64,
    keys: &Arc<KeyStore>,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<AriaSummary> {
    commit::complete(dir)?;
    let path = dir.join(control::NAME);
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(AriaSummary::Absent),
        read => read.map_err(|e| Error::io("read", &path, e))?,
    };
    let memory = usize::try_from(memory).unwrap_or(usize::MAX);
    match run(dir, &bytes, memory, keys, cancel) {
        Ok(summary) => Ok(summary),
        Err(Stop::Failed(error)) => Err(error.context("recover Aria tables")),
        Err(Stop::Leave(reason)) => {
            let reason = reason.to_string();
            reporter.warn(format!(
                "Aria's log is left to the server, which recovers its tables at the first start: \
                 {reason}"
            ));
            Ok(AriaSummary::LeftToServer { reason })
        }
    }
}

fn run(
    dir: &Path,
    control: &[u8],
    memory: usize,
    keys: &Arc<KeyStore>,
    cancel: &Cancel,
) -> leave::Result<AriaSummary> {
    let control = Control::parse(control).map_err(|cause| Leave::Damaged {
        file: control::NAME.to_owned(),
        what: cause.to_string(),
    })?;
    if !control.block_size.is_power_of_two() || !(1024..=32768).contains(&control.block_size) {
        let message = format!("tables have pages of {} bytes", control.block_size);
        return Err(Leave::Unsupported(message).into());
    }
    let mut log = Log::open(dir, control.last_log, memory / 4)?;
    let recovered = redo::recover(dir, &control, keys, &mut log, memory, cancel)?;
    commit::commit(dir, control, &mut log, recovered)
}
