//! What to print of a log, and how.

use std::path::PathBuf;

use jiff::tz::TimeZone;

use super::filter::{Ids, Windows};

/// When base64 is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base64 {
    /// For rows and the format, so that the text can be replayed.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Never; rows are comments if verbose.
    DecodeRows,
}

/// What to print, and how. The default is what the stock tool does without options.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`Base64`].
    pub base64: Base64,
    /// 1 shows rows, 2 also types, 3 also what is odd about GTIDs.
    pub verbose: u8,
    /// Only statements and their variables.
    pub short_form: bool,
    /// Events in hexadecimal digits, too.
    pub hexdump: bool,
    /// Print what undoes the log.
    pub flashback: bool,
    /// Refuse to undo what is of a domain that some limit by GTID does not name.
    pub undo_named_only: bool,
    /// Where events begin.
    pub positions: bool,
    /// How many rows a statement changed.
    pub row_counts: bool,
    /// Columns of tables.
    pub table_metadata: bool,
    /// Statements that rows came from.
    pub annotations: bool,
    /// First byte to print, in the first file.
    pub start_position: u64,
    /// Byte before which to stop, in the last file.
    pub stop_position: Option<u64>,
    /// Seconds from which on to print.
    pub start_time: u32,
    /// Seconds before which to stop.
    pub stop_time: Option<u32>,
    /// Events to pass over.
    pub offset: u64,
    /// From where to where, by GTID.
    pub windows: Windows,
    /// Which domains.
    pub domains: Ids,
    /// Which servers.
    pub servers: Ids,
    /// Whether disorder in GTIDs is an error.
    pub gtid_strict: bool,
    /// Only this database.
    pub database: Option<Vec<u8>>,
    /// Only this table, of events of rows.
    pub table: Option<Vec<u8>>,
    /// Databases that get other names.
    pub rewrite: Vec<(Vec<u8>, Vec<u8>)>,
    /// Go on behind events that cannot be understood.
    pub force_read: bool,
    /// Read files that were not closed.
    pub force_if_open: bool,
    /// Turn the binary log of whoever replays off.
    pub disable_log_bin: bool,
    /// Character set of whoever replays.
    pub set_charset: Option<String>,
    /// Where files of LOAD DATA go.
    pub local_load: PathBuf,
    /// Where times are shown.
    pub zone: TimeZone,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base64: Base64::Auto,
            verbose: 0,
            short_form: false,
            hexdump: false,
            flashback: false,
            undo_named_only: false,
            positions: true,
            row_counts: true,
            table_metadata: false,
            annotations: true,
            start_position: crate::format::FIRST_EVENT,
            stop_position: None,
            start_time: 0,
            stop_time: None,
            offset: 0,
            windows: Windows::default(),
            domains: Ids::All,
            servers: Ids::All,
            gtid_strict: true,
            database: None,
            table: None,
            rewrite: Vec::new(),
            force_read: false,
            force_if_open: true,
            disable_log_bin: false,
            set_charset: None,
            local_load: std::env::temp_dir(),
            zone: TimeZone::system(),
        }
    }
}

impl Options {
    /// The new name of a database, if it gets one.
    pub(super) fn rewritten(&self, database: &[u8]) -> Option<&[u8]> {
        self.rewrite.iter().find(|(from, _)| from == database).map(|(_, to)| to.as_slice())
    }

    /// Whether groups are filtered by what their GTID says beyond the server.
    pub(super) fn filters_groups(&self) -> bool {
        !self.windows.is_empty() || self.domains != Ids::All
    }
}
