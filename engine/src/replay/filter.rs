//! What is left out.
//!
//! Rows of a table can be left out because they name it. A statement does not say which tables it
//! changes, so where tables are left out, statements that change rows cannot be replayed at all;
//! definitions are replayed for all tables.

use std::collections::{BTreeSet, HashSet};

use binlog::event::gtid::{extra, flag};
use binlog::event::rows::{self, flag as rows_flag};
use binlog::event::{Query, table_map};
use binlog::{Event, EventType, Gtid};

use super::definition::Definition;
use super::source::malformed;
use super::walk::Group;
use crate::{Error, ErrorKind, Result};

/// A table: database and name.
pub type TableName = (Vec<u8>, Vec<u8>);

/// Which transactions and tables are left out.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Transactions.
    pub gtids: BTreeSet<Gtid>,
    /// Tables.
    pub tables: BTreeSet<TableName>,
    /// Numbers of such tables in the current statement.
    current: HashSet<u64>,
    /// Those of them that were seen.
    seen: BTreeSet<TableName>,
}

/// What an event is to a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It changes something.
    Change,
    /// It is needed for what others change.
    Needed,
    /// It is left out; `ends` if a statement of rows ends with it.
    Out {
        /// See above.
        ends: bool,
    },
}

impl Filter {
    /// A filter of these.
    pub fn new(gtids: BTreeSet<Gtid>, tables: BTreeSet<TableName>) -> Self {
        Self { gtids, tables, ..Self::default() }
    }

    /// Tables to leave out of which there was nothing.
    pub fn unseen(&self) -> impl Iterator<Item = &TableName> {
        self.tables.difference(&self.seen)
    }

    /// Whether a group is replayed, if it changes anything. The halves of an ALTER TABLE are: the
    /// second does it all, if there is one.
    pub fn admits(&self, group: &Group) -> bool {
        !group.has_extra(extra::START_ALTER | extra::ROLLBACK_ALTER)
            && !self.gtids.contains(&group.gtid)
    }

    /// What becomes of an event of a group.
    pub fn keeps(&mut self, log: &str, group: &Group, event: &Event<'_>) -> Result<Kept> {
        let kind = event.header.kind;
        let broken = |what| malformed(log, event, what);
        match kind {
            EventType::TABLE_MAP => {
                if self.tables.is_empty() {
                    return Ok(Kept::Needed);
                }
                let (number, database, name) = table_map::names(event.body()).map_err(broken)?;
                let table = (database.to_vec(), name.to_vec());
                if self.tables.contains(&table) {
                    self.seen.insert(table);
                    self.current.insert(number);
                    return Ok(Kept::Out { ends: false });
                }
                self.current.remove(&number);
                Ok(Kept::Needed)
            }
            _ if kind.rows().is_some() => {
                if self.tables.is_empty() {
                    return Ok(Kept::Change);
                }
                let (number, flags) = rows::begin(event.body()).map_err(broken)?;
                let ends = flags & rows_flag::STATEMENT_END != 0;
                let out = self.current.contains(&number);
                if ends {
                    self.current.clear();
                }
                Ok(if out { Kept::Out { ends } } else { Kept::Change })
            }
            EventType::QUERY | EventType::QUERY_COMPRESSED => {
                let in_xa = group.has(flag::PREPARED_XA | flag::COMPLETED_XA);
                let query = Query::parse(event.body(), kind).map_err(broken)?;
                if query.is_bracket(in_xa) {
                    return Ok(if in_xa { Kept::Change } else { Kept::Needed });
                }
                self.statement(log, group, event, &query.text)
            }
            EventType::EXECUTE_LOAD_QUERY => self.statement(log, group, event, b""),
            EventType::XA_PREPARE => Ok(Kept::Change),
            EventType::ANNOTATE_ROWS => Ok(Kept::Out { ends: false }),
            _ => Ok(Kept::Needed),
        }
    }

    /// What becomes of a statement with such a text.
    fn statement(&self, log: &str, group: &Group, event: &Event<'_>, text: &[u8]) -> Result<Kept> {
        // A transaction with a temporary table is marked as a definition, whatever else it does.
        let defines = || group.has(flag::STANDALONE) || Definition::of(text).is_some();
        if self.tables.is_empty() || (group.has(flag::DDL) && defines()) {
            return Ok(Kept::Change);
        }
        let message = format!(
            "{} ({log} at {}) is a statement, not rows: which tables it changes is not in the log, \
             so none can be left out",
            group.gtid, event.offset
        );
        Err(Error::new(ErrorKind::Usage, message)
            .advise("leave the whole transaction out with --skip-gtid, or replay all tables"))
    }
}
