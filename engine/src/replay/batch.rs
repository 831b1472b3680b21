//! What goes to the server at once, and what it comes from.

use binlog::Gtid;
use tempfile::SpooledTempFile;

use super::walk::Place;

/// What a statement of a batch is part of, for messages.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Its group.
    pub gtid: Option<Gtid>,
    /// Its event.
    pub place: Place,
    /// In words.
    pub what: What,
}

/// What a statement does.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// Brackets others, or sets variables.
    Around(&'static str),
    /// Changes rows of tables.
    Rows(String),
    /// Is one of the log.
    Statement(String),
}

/// Statements that go out at once.
#[derive(Default)]
pub(super) struct Batch {
    /// Separated by semicolons.
    pub sql: Vec<u8>,
    /// One for each statement.
    pub marks: Vec<Mark>,
    /// The error that the last statement has to end with.
    pub expected: Option<u16>,
    /// What the last statement loads.
    pub load: Option<SpooledTempFile>,
    /// Groups that end in it.
    pub groups: u64,
    /// Bytes of the log in it.
    pub bytes: u64,
}
