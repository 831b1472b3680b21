//! What goes to the server at once, what it comes from, and rows that wait for it.

use binlog::Gtid;
use binlog::event::rows::{FLAGS_AT, flag as rows_flag};
use binlog::header::{HEADER_LEN, at};
use tempfile::SpooledTempFile;

use super::sequence::Sequence;
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

/// Rows that are not in a batch yet.
#[derive(Default)]
pub(super) struct Statement {
    /// Events of statements that have ended.
    pub ended: Vec<u8>,
    /// Names of the tables.
    pub tables: String,
    /// Events with the tables of the statement that has not.
    pub maps: Vec<u8>,
    /// Events with the rows.
    pub rows: Vec<u8>,
    /// Where in `rows` the flags of the last event are.
    pub flags_at: usize,
    /// Tables whose rows are set by statements of their own.
    pub sequences: Vec<Sequence>,
    pub place: Place,
}

impl Statement {
    /// Adds an event with rows, which is at a place and ends at an offset of its log.
    pub fn add(&mut self, event: &[u8], place: Place, end: u64) {
        if self.rows.is_empty() && self.ended.is_empty() {
            self.place = place;
        }
        let begin = self.rows.len();
        self.flags_at = begin + HEADER_LEN + FLAGS_AT;
        self.rows.extend_from_slice(event);
        // The server names it when the event fails; logs of 11.4 and later do not say it.
        let told = self.rows.get_mut(begin + at::END_POSITION..begin + at::END_POSITION + 4);
        if let Some(told) = told.filter(|told| **told == [0; 4]) {
            told.copy_from_slice(&(end as u32).to_le_bytes());
        }
    }

    /// Ends the statement, or a piece of it: what does not end as a statement is not done at all.
    pub fn end(&mut self, last: bool) {
        if !self.rows.is_empty() {
            if let Some(flags) = self.rows.get_mut(self.flags_at) {
                *flags |= rows_flag::STATEMENT_END as u8;
            }
            self.ended.extend_from_slice(&self.maps);
            self.ended.append(&mut self.rows);
        }
        if last {
            self.maps.clear();
            self.sequences.clear();
        }
    }
}
