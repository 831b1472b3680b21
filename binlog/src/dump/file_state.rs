//! What a dump knows of the file it is in.

use super::rows::{Statement, Tables};
use super::session::Known;
use crate::format::FormatDescription;
use crate::gtid::Gtid;
use crate::header::EventType;

/// What is known in a file, and forgotten with it.
#[derive(Debug)]
pub(super) struct FileState {
    pub format: Option<FormatDescription>,
    pub stop: Option<u64>,
    pub last_kind: Option<EventType>,
    /// Whether the group that an event belongs to is printed.
    pub in_group: bool,
    /// The number of that group.
    pub gtid: Option<Gtid>,
    pub known: Known,
    pub tables: Tables,
    pub statement: Statement,
    /// The event with the statement that rows come from, until the first of their tables is
    /// printed; and its checksum.
    pub annotation: Option<(Vec<u8>, Option<u32>)>,
    pub format_printed: bool,
    pub skip_replication: bool,
    pub group_flags: u8,
    pub domain: Option<u32>,
    pub server: Option<u32>,
    pub parallel: Option<bool>,
}

impl Default for FileState {
    fn default() -> Self {
        Self {
            format: None,
            stop: None,
            last_kind: None,
            in_group: true,
            gtid: None,
            known: Known::default(),
            tables: Tables::default(),
            statement: Statement::default(),
            annotation: None,
            format_printed: false,
            skip_replication: false,
            group_flags: 0,
            domain: None,
            server: None,
            parallel: None,
        }
    }
}
