//! Finding transactions by what they do: from the indexes alone, without the logs; or in files of logs,
//! of which the same index is made on the way.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use binlog::{Gtid, Reader};
use glob::Pattern;

use super::index::{Change, Index, Transaction};
use super::scan::{Place, Scanner};
use super::statement::{Operation, Touched, touched};
use super::{Archive, unreadable};
use crate::keys::settings::KeyStore;
use crate::replay::source::{FileLogs, LogSource, reading};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// Bytes of an index after which it is looked through: it need not be there as a whole.
const INDEX_MAX: usize = 1 << 20;

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Any of these tables; all, if there is none.
    tables: Vec<(Pattern, Pattern)>,
    /// Any of these operations; all, if there is none.
    pub operations: Vec<Operation>,
    from: Option<u32>,
    to: Option<u32>,
}

impl Query {
    /// For tables that are named `database.table`, with `*`, `?` and `[…]` as in a shell.
    pub fn new(tables: &[String]) -> Result<Self> {
        let pattern = |text: &str, whole: &str| {
            Pattern::new(text).map_err(|error| {
                Error::new(ErrorKind::Usage, format!("{whole:?} names no table: {}", error.msg))
            })
        };
        let mut patterns = Vec::new();
        for text in tables {
            let plain = text.replace('`', "");
            let Some((database, table)) = plain.split_once('.') else {
                let message = format!("{text:?} names no table: it has no database before a point");
                return Err(Error::new(ErrorKind::Usage, message)
                    .advise("write database.table, with * and ? for what may differ"));
            };
            patterns.push((pattern(database, text)?, pattern(table, text)?));
        }
        Ok(Self { tables: patterns, ..Self::default() })
    }

    /// From this second on, up to that one.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the second one is before the first.
    pub fn between(mut self, from: Option<u32>, to: Option<u32>) -> Result<Self> {
        if let (Some(from), Some(to)) = (from, to)
            && to < from
        {
            let moment = |second: u32| moment(second).strftime("%F %TZ").to_string();
            let message =
                format!("{} is before {}: nothing is in between", moment(to), moment(from));
            return Err(Error::new(ErrorKind::Usage, message)
                .advise("name the earlier time with --between, and the later one with --and"));
        }
        (self.from, self.to) = (from, to);
        Ok(self)
    }

    fn means(&self, operation: Operation, database: &str, table: &str) -> bool {
        // A database that is removed takes its tables along.
        let all = table.is_empty() && operation == Operation::Drop;
        self.tables.is_empty()
            || self
                .tables
                .iter()
                .any(|(wanted, name)| wanted.matches(database) && (all || name.matches(table)))
    }

    /// Whether a part with transactions of these times can have what is looked for.
    fn can_be_within(&self, times: (u32, u32)) -> bool {
        self.from.is_none_or(|from| times.1 >= from) && self.to.is_none_or(|to| times.0 <= to)
    }

    /// What of a transaction is looked for.
    fn changes(&self, transaction: &Transaction, index: &Index) -> Vec<Changed> {
        if !self.can_be_within((transaction.time, transaction.time)) {
            return Vec::new();
        }
        let mut all = transaction.changes.clone();
        // Indexes of before say of CREATE OR REPLACE only that something is made.
        if let [Change(table, Operation::Create, _)] = transaction.changes.as_slice()
            && replaces(&transaction.statement)
        {
            all.push(Change(*table, Operation::Drop, None));
        }
        let changes = all.iter().filter_map(|change| {
            let (database, table) = index.table(change);
            let wanted = self.operations.is_empty() || self.operations.contains(&change.1);
            (wanted && self.means(change.1, database, table)).then(|| Changed {
                operation: change.1,
                database: database.to_owned(),
                table: table.to_owned(),
                rows: change.2,
            })
        });
        changes.collect()
    }
}

/// Whether a statement takes the place of what is there.
fn replaces(statement: &str) -> bool {
    touched(statement.as_bytes(), b"").iter().any(|touched| touched.operation == Operation::Drop)
}

/// The first statement of a transaction, if it is what did one of these changes. An index has no other.
fn statement_of(transaction: &Transaction, changes: &[Changed]) -> String {
    let is_all = changes.len() >= transaction.changes.len();
    let did = |touched: &Touched| {
        changes.iter().any(|change| {
            // Which database was the default the index does not say.
            let same_database = touched.database.is_empty() || touched.database == change.database;
            let same_table = touched.table == change.table;
            same_table && same_database && touched.operation == change.operation
        })
    };
    match is_all || touched(transaction.statement.as_bytes(), b"").iter().any(did) {
        true => transaction.statement.clone(),
        false => String::new(),
    }
}

/// What a transaction did to a table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// What it did.
    pub operation: Operation,
    /// To a table of this database,
    pub database: String,
    /// of this name; to all of them, if it has none.
    pub table: String,
    /// To how many rows, where the log tells.
    pub rows: Option<u64>,
}

/// A transaction that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// Its number.
    pub gtid: String,
    /// When its last statement began.
    pub time: jiff::Timestamp,
    /// `server_id` of who wrote the file.
    pub server: u32,
    /// Which row of files of an archive it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub epoch: String,
    /// The file.
    pub file: String,
    /// Where in the file it begins: a replay that is to stop before it stops here.
    pub position: u64,
    /// Offset behind it.
    pub end: u64,
    /// What of it was looked for.
    pub changes: Vec<Changed>,
    /// The beginning of its first statement, if the log has it and it did one of these changes.
    pub statement: String,
}

/// A second since 1970.
fn moment(second: u32) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Where a log ends that was looked through.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LogEnd {
    /// `server_id` of who wrote it.
    pub server: u32,
    /// Its last file.
    pub file: String,
    /// Offset behind what is there of it.
    pub end: u64,
    /// The last transaction of the log.
    pub gtid: String,
    /// When that was written.
    pub time: jiff::Timestamp,
}

/// What was looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FindSummary {
    /// Transactions that were found.
    pub found: u64,
    /// Transactions that were looked at.
    pub transactions: u64,
    /// Bytes that were read: of indexes, or of logs.
    pub read_bytes: u64,
    /// If nothing was found: where the logs end. What was done later may be in logs that are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<LogEnd>,
}

/// Looks through indexes.
struct Search<'a> {
    query: &'a Query,
    summary: FindSummary,
    /// Transactions that were told of: another server may have logged them, too.
    told: HashSet<(Gtid, u32)>,
    tell: &'a mut dyn FnMut(Found) -> Result<()>,
}

impl<'a> Search<'a> {
    fn new(query: &'a Query, tell: &'a mut dyn FnMut(Found) -> Result<()>) -> Self {
        Self { query, summary: FindSummary::default(), told: HashSet::new(), tell }
    }

    /// Tells what there is in the index of a file.
    fn index(&mut self, index: &Index, (server, epoch, file): (u32, &str, &str)) -> Result<()> {
        for transaction in &index.transactions {
            self.summary.transactions += 1;
            let changes = self.query.changes(transaction, index);
            if changes.is_empty() || !self.told.insert((transaction.gtid, transaction.time)) {
                continue;
            }
            self.summary.found += 1;
            (self.tell)(Found {
                gtid: transaction.gtid.to_string(),
                time: moment(transaction.time),
                server,
                epoch: epoch.to_owned(),
                file: file.to_owned(),
                position: transaction.begin,
                end: transaction.end,
                statement: statement_of(transaction, &changes),
                changes,
            })?;
        }
        Ok(())
    }
}

/// The same for files of logs, and directories of such. What is torn at the end of a log that was not
/// closed is left out.
pub fn find_in_files(
    places: &[PathBuf],
    keys: Option<&Arc<KeyStore>>,
    query: &Query,
    (cancel, reporter): (&Cancel, &dyn Reporter),
    tell: &mut dyn FnMut(Found) -> Result<()>,
) -> Result<FindSummary> {
    let source = FileLogs::open(places, keys)?;
    source.notes().iter().for_each(|note| reporter.warn(note.clone()));
    let mut search = Search::new(query, tell);
    let (mut last, mut end) = (None, None);
    for (number, log) in source.logs().iter().enumerate() {
        let mut scanner = Scanner::new(&log.name);
        let mut reader = Reader::new(source.open(number)?, log.name.clone(), reading(keys))
            .map_err(unreadable)?;
        let about = (log.server, "", &*log.name);
        while let Some(event) = reader.next_whole().map_err(unreadable)? {
            let position = event.offset;
            let place = scanner.event(&event).map_err(|fault| {
                unreadable(binlog::Error { file: log.name.clone(), position, fault })
            })?;
            if place == Place::Between && scanner.weight() > INDEX_MAX {
                cancel.check()?;
                let index = scanner.take_index();
                last = index.transactions.last().map(|last| (last.gtid, last.time)).or(last);
                search.index(&index, about)?;
            }
        }
        if let Some(torn) = reader.torn() {
            reporter.warn(format!(
                "{} was not closed by its server, and breaks off {} bytes before its end, at {}",
                log.name, torn.bytes, torn.offset
            ));
        }
        search.summary.read_bytes += reader.offset();
        let index = scanner.take_index();
        last = index.transactions.last().map(|last| (last.gtid, last.time)).or(last);
        search.index(&index, about)?;
        end = last.map(|(gtid, time)| LogEnd {
            server: log.server,
            file: log.name.clone(),
            end: reader.offset(),
            gtid: gtid.to_string(),
            time: moment(time),
        });
    }
    let mut summary = search.summary;
    if summary.found == 0 {
        summary.ends.extend(end);
    }
    Ok(summary)
}

impl Archive<'_> {
    /// Tells `tell` of each transaction that is found, in the order of the logs. One that several
    /// servers logged is told once.
    pub fn find(
        &self,
        query: &Query,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Found) -> Result<()>,
    ) -> Result<FindSummary> {
        let mut search = Search::new(query, tell);
        for file in self.files() {
            for part in &file.parts {
                if part.head.times.is_none_or(|times| !query.can_be_within(times)) {
                    continue;
                }
                cancel.check()?;
                let index = part.index(self.repository, cancel)?;
                search.summary.read_bytes += u64::from(part.head.index.stored);
                search.index(&index, (file.server, &file.epoch.to_string(), &file.name))?;
            }
        }
        let mut summary = search.summary;
        if summary.found == 0 {
            summary.ends = self.ends(cancel)?;
        }
        Ok(summary)
    }

    /// Where the logs end, one of each server: that which was written last.
    fn ends(&self, cancel: &Cancel) -> Result<Vec<LogEnd>> {
        let mut ends: Vec<LogEnd> = Vec::new();
        for log in &self.logs {
            let Some(file) = log.files.last() else { continue };
            let Some(part) = log.parts().filter(|part| part.head.transactions > 0).last() else {
                continue;
            };
            let index = part.index(self.repository, cancel)?;
            let Some(last) = index.transactions.last() else { continue };
            let end = LogEnd {
                server: log.server,
                file: file.name.clone(),
                end: file.end(),
                gtid: last.gtid.to_string(),
                time: moment(last.time),
            };
            match ends.iter_mut().find(|known| known.server == end.server) {
                Some(known) if known.time > end.time => {}
                Some(known) => *known = end,
                None => ends.push(end),
            }
        }
        Ok(ends)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::canned::{Canned, repository};
    use super::*;
    use crate::report::Silent;

    #[test]
    fn tables_are_meant_by_patterns_and_by_their_database() {
        let query = Query::new(&["shop.order*".to_owned(), "`x`.y".to_owned()]).unwrap();
        let means = |database, table| query.means(Operation::Drop, database, table);
        assert!(means("shop", "orders") && means("x", "y") && means("shop", ""));
        assert!(!means("shop", "items") && !means("y", ""));
        assert!(!query.means(Operation::Create, "shop", ""));
        assert!(Query::default().means(Operation::Create, "any", ""));
        for wrong in ["orders", "a.[b"] {
            let error = Query::new(&[wrong.to_owned()]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}");
        }
    }

    fn in_files(places: &[PathBuf], query: &Query) -> Result<(FindSummary, Vec<Found>)> {
        let mut all = Vec::new();
        let mut tell = |found| {
            all.push(found);
            Ok(())
        };
        let summary = find_in_files(places, None, query, (&Cancel::new(), &Silent), &mut tell)?;
        Ok((summary, all))
    }

    #[test]
    fn files_beside_logs_are_passed_over_or_explained() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let log = Canned::new(1, 100, "binlog.000001", "").transactions(&["0-1-1"]);
        std::fs::write(at("binlog.000001"), log.bytes()).unwrap();
        std::fs::write(at("binlog.000001.idx"), b"\xfe\xfe\x0c\x01\x01\0\0\0").unwrap();
        let query = Query::default();
        let named = [at("binlog.000001"), at("binlog.000001.idx")];
        for places in [&named[..], &[dir.path().to_owned()]] {
            assert_eq!(in_files(places, &query).unwrap().0.found, 1);
        }
        let error = in_files(&named[1..], &query).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NothingMatches);
        std::fs::write(at("other"), "words").unwrap();
        assert_eq!(in_files(&[at("other")], &query).unwrap_err().kind(), ErrorKind::Usage);
        // Logs that InnoDB keeps.
        std::fs::write(at("binlog-000000.ibb"), [0; 64]).unwrap();
        assert_eq!(in_files(&[dir.path().to_owned()], &query).unwrap().0.found, 1);
        std::fs::remove_file(at("binlog.000001")).unwrap();
        for place in [dir.path().to_owned(), at("binlog-000000.ibb")] {
            let error = in_files(&[place], &query).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains("InnoDB's format"), "{error}");
        }
    }

    #[test]
    fn what_takes_the_place_of_a_table_is_found_as_a_drop_too() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("binlog.000001");
        let mut log = Canned::new(1, 100, "binlog.000001", "");
        for (number, text) in
            ["CREATE OR REPLACE TABLE x.t (a INT)", "CREATE OR REPLACE DATABASE x"]
                .iter()
                .enumerate()
        {
            log.begin(&format!("0-1-{}", number + 1));
            log.statement(text);
            log.commit();
        }
        std::fs::write(&place, log.bytes()).unwrap();
        for operation in [Operation::Drop, Operation::Create] {
            let mut query = Query::new(&["x.t".to_owned()]).unwrap();
            query.operations = vec![operation];
            let (summary, found) = in_files(std::slice::from_ref(&place), &query).unwrap();
            // The database that is made has no table yet.
            assert_eq!(summary.found, if operation == Operation::Drop { 2 } else { 1 });
            assert!(found[0].statement.starts_with("CREATE OR REPLACE TABLE"), "{found:?}");
        }
        // An index that was written before says only that the table is made.
        let index =
            Index { tables: vec![("x".to_owned(), "t".to_owned())], transactions: Vec::new() };
        let transaction = |statement: &str| Transaction {
            gtid: "0-1-1".parse().unwrap(),
            time: 9,
            begin: 4,
            end: 90,
            changes: vec![Change(0, Operation::Create, None)],
            statement: statement.to_owned(),
        };
        let query = Query { operations: vec![Operation::Drop], ..Query::default() };
        assert_eq!(
            query.changes(&transaction("CREATE OR REPLACE TABLE t (a INT"), &index).len(),
            1
        );
        assert_eq!(query.changes(&transaction("CREATE TABLE t (a INT"), &index).len(), 0);
    }

    #[test]
    fn a_statement_is_shown_beside_its_own_table() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("binlog.000001");
        let mut log = Canned::new(1, 100, "binlog.000001", "");
        log.begin("0-1-1");
        log.statement("UPDATE d2 SET a = 1");
        log.statement("UPDATE shop.orders SET a = 2");
        log.commit();
        std::fs::write(&place, log.bytes()).unwrap();
        let shown = |table: &[&str]| {
            let tables: Vec<String> = table.iter().map(|table| (*table).to_owned()).collect();
            let query = Query::new(&tables).unwrap();
            in_files(std::slice::from_ref(&place), &query).unwrap().1.remove(0).statement
        };
        assert_eq!(shown(&["d.d2"]), "UPDATE d2 SET a = 1");
        assert_eq!(shown(&["shop.orders"]), "");
        assert_eq!(shown(&[]), "UPDATE d2 SET a = 1");
    }

    #[test]
    fn where_the_logs_end_is_told_if_nothing_is_found() {
        let (_place, repository) = repository();
        let dir = tempfile::tempdir().unwrap();
        let logs = [
            Canned::new(1, 100, "binlog.000001", "").transactions(&["0-1-1", "0-1-2"]),
            Canned::new(1, 200, "binlog.000002", "0-1-2"),
        ];
        let epoch = logs[0].store(&repository, None);
        logs[1].store(&repository, Some(&epoch));
        for log in &logs {
            let name = if log.events.len() > 2 { "binlog.000001" } else { "binlog.000002" };
            std::fs::write(dir.path().join(name), log.bytes()).unwrap();
        }
        let archive = Archive::read(&repository, &Cancel::new()).unwrap();
        for tables in [vec!["a.b".to_owned()], Vec::new()] {
            let query = Query::new(&tables).unwrap();
            let archived = archive.find(&query, &Cancel::new(), &mut |_| Ok(())).unwrap();
            let (summary, _) = in_files(&[dir.path().to_owned()], &query).unwrap();
            assert_eq!(summary.ends, archived.ends);
            let told: Vec<_> = summary
                .ends
                .iter()
                .map(|end| (end.file.as_str(), end.gtid.as_str(), end.time.as_second()))
                .collect();
            let expected = [("binlog.000002", "0-1-2", 102)];
            assert_eq!(told, if tables.is_empty() { &[][..] } else { &expected });
        }
    }

    #[test]
    fn times_in_the_wrong_order_are_refused() {
        let between = |from, to| Query::default().between(from, to).map(|_| ());
        assert_eq!(between(Some(2), Some(1)).unwrap_err().kind(), ErrorKind::Usage);
        for (from, to) in [(Some(1), Some(1)), (Some(1), None), (None, Some(1)), (None, None)] {
            between(from, to).unwrap();
        }
    }
}
