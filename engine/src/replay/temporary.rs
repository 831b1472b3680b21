//! Temporary tables that are there at a place of the logs.
//!
//! They live in the session that replays. When its connection ends, the server drops what is left of them
//! and logs that, as it logs the transaction that it rolls back then if one has to do with them: each under
//! the number behind the last one, which is that of the source's next transaction. So near such tables what
//! a server has logged does not say how far a replay came that was interrupted, and where there are any,
//! none can go on: they are gone. It is known here where both is so.

use std::collections::BTreeSet;
use std::fmt;

use binlog::Gtid;
use binlog::event::Query;

use super::definition::Definition;

/// A table of a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Temporary {
    /// `server_id` of the session.
    pub server: u32,
    /// Its `pseudo_thread_id`.
    pub thread: u32,
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Temporary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} of thread {}", self.database, self.name, self.thread)
    }
}

/// What there is at a place.
#[derive(Clone, Debug, Default)]
pub(super) struct TemporaryTables {
    there: BTreeSet<Temporary>,
    /// What the open transaction makes (`true`) and drops.
    open: Vec<(bool, Temporary)>,
    /// Transactions from here on whose numbers may be of what the server did by itself.
    doubtful: u64,
}

impl TemporaryTables {
    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.open.clear();
    }

    /// It has a statement.
    pub(super) fn statement(&mut self, gtid: Gtid, query: &Query<'_>) {
        let mut add = |makes: bool, (database, name): (Option<String>, String)| {
            let default = || String::from_utf8_lossy(query.database).into_owned();
            let database = database.unwrap_or_else(default);
            let table = Temporary { server: gtid.server, thread: query.thread_id, database, name };
            self.open.push((makes, table));
        };
        match Definition::of(&query.text) {
            Some(Definition::MakesTemporary(name)) => add(true, name),
            Some(Definition::Drops(names)) => names.into_iter().for_each(|name| add(false, name)),
            Some(Definition::Makes) | None => {}
        }
    }

    /// It has ended, and is logged.
    pub(super) fn end(&mut self) {
        // Interrupted within it, the server drops each of these and logs what it rolls back.
        let made = self.open.iter().filter(|(makes, _)| *makes).count();
        let most = (self.there.len() + made) as u64;
        for (makes, table) in self.open.drain(..) {
            if makes {
                self.there.insert(table);
            } else {
                self.there.remove(&table);
            }
        }
        let from_here = if most > 0 { most + 1 } else { 0 };
        self.doubtful = self.doubtful.saturating_sub(1).max(from_here);
    }

    /// The source was started anew, and they are gone.
    pub(super) fn take(&mut self) -> BTreeSet<Temporary> {
        std::mem::take(&mut self.there)
    }

    /// Those that are there, in words.
    pub(super) fn names(&self) -> Vec<String> {
        self.there.iter().map(Temporary::to_string).collect()
    }

    /// Whether what a server has logged up to here may be what it did by itself.
    pub(super) fn are_doubtful(&self) -> bool {
        self.doubtful > 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn query(thread_id: u32, text: &str) -> Query<'_> {
        let text = text.as_bytes().into();
        let session = binlog::event::query::Session::default();
        Query { thread_id, seconds: 0, error_code: 0, session, database: b"d", text }
    }

    #[test]
    fn places_near_temporary_tables_are_doubtful() {
        let mut tables = TemporaryTables::default();
        let mut group = |statements: &[(u32, &str)]| {
            tables.begin();
            let gtid = "0-1-5".parse().unwrap();
            statements.iter().for_each(|(thread, text)| {
                tables.statement(gtid, &query(*thread, text));
            });
            tables.end();
            (tables.names().join(", "), tables.are_doubtful())
        };
        let nothing = String::new;
        assert_eq!(group(&[(5, "INSERT INTO t VALUES (1)")]), (nothing(), false));
        let there = "d.x of thread 5".to_owned();
        assert_eq!(group(&[(5, "CREATE TEMPORARY TABLE x (a INT)")]), (there.clone(), true));
        assert_eq!(group(&[(6, "DROP TABLE IF EXISTS x, e.y")]), (there, true));
        assert_eq!(group(&[(5, "DROP /*!40005 TEMPORARY */ TABLE `x`")]), (nothing(), true));
        // This one may be a DROP by the server, and it has rolled back what was open.
        assert_eq!(group(&[]), (nothing(), true));
        assert_eq!(group(&[]), (nothing(), false));
        let both = [(5, "CREATE TEMPORARY TABLE e.y (a INT)"), (5, "DROP TEMPORARY TABLE e.y")];
        assert_eq!(group(&both), (nothing(), true));
    }
}
