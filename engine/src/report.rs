//! What an operation tells while it runs.
//!
//! The engine reports facts; how they look (terminal, log lines, JSON, the stock tool's line
//! shape) is the business of the [`Reporter`] that the caller brings.

use std::time::Duration;

/// A stage of an operation, in the words the user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Copying tablespaces and other files from the server.
    Copy,
    /// Reading the captured redo log.
    ReadRedo,
    /// Applying redo to pages.
    ApplyRedo,
    /// Unpacking a stream.
    Extract,
    /// Placing files in the data directory.
    Place,
    /// Applying binary logs to a server.
    Replay,
}

/// Something worth telling.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Bytes done of bytes known in this phase. Sent at most a few times per second; `total` may
    /// grow (a stream of unknown length has none).
    Progress {
        /// The phase that advanced.
        phase: Phase,
        /// Bytes done so far.
        done: u64,
        /// Bytes in all, as far as known.
        total: Option<u64>,
    },
    /// A file is being worked on: `verb` such as "Copying", `path` relative to the backup.
    File {
        /// Worker number, 1 and up; 0 is the main thread.
        worker: usize,
        /// What is done, as the log shows it: `Copying`, `Streaming`, `Extracting`.
        verb: &'static str,
        /// Path relative to the backup or data directory.
        path: String,
    },
    /// A lock stage of the server was entered or left.
    Stage {
        /// `START`, `FLUSH`, `BLOCK_DDL`, `BLOCK_COMMIT`, `END`.
        name: &'static str,
        /// How long the server took to grant it.
        waited: Duration,
    },
    /// A plain remark.
    Info(String),
    /// Something the user should look at; the operation goes on.
    Warning(String),
}

/// Receives events from any thread of an operation. Must not block for long.
pub trait Reporter: Send + Sync {
    /// Called for each event.
    fn event(&self, event: &Event);

    /// Shorthand for [`Event::Info`].
    fn info(&self, text: String) {
        self.event(&Event::Info(text));
    }

    /// Shorthand for [`Event::Warning`].
    fn warn(&self, text: String) {
        self.event(&Event::Warning(text));
    }
}

/// Drops everything. For tests and for callers that only want the summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: &Event) {}
}
