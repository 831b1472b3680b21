//! Following a log event by event: where transactions begin and end, and what they do.
//!
//! A transaction begins with its GTID. One that stands alone ends with its statement; every other one
//! with XID, XA PREPARE, COMMIT or ROLLBACK. What is between transactions is about the file.

use std::collections::HashMap;

use binlog::bytes::Malformed;
use binlog::event::gtid::{extra, flag as group};
use binlog::event::load::ExecuteLoad;
use binlog::event::rows::Rows;
use binlog::event::table_map::{self, TableMap};
use binlog::event::{GtidEvent, GtidList, Query, Rotate};
use binlog::format::FormatDescription;
use binlog::header::{at, flag};
use binlog::row::{self, Column};
use binlog::{Event, EventType, Fault, Gtid, GtidState, compress};

use super::index::{Change, Index, Indexer, Transaction, shorten};
use super::layout::identity;
use super::statement::{Operation, touched};

/// Most tables of one statement that are followed.
const TABLES_MAX: usize = 4096;
/// Longest description of a table that is kept.
const BODY_MAX: usize = 64 << 10;
/// Most changes of one transaction that are noted.
const CHANGES_MAX: usize = 10_000;

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", tag = "how", content = "next")]
pub enum Ending {
    /// Another one was begun.
    Rotate(String),
    /// The server was shut down.
    Stop,
}

/// How a file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The server that wrote it.
    pub server: u32,
    /// When it was begun.
    pub time: u32,
    /// What the server says of its version.
    pub version: String,
    /// Tells the file from all others.
    pub identity: String,
}

/// Where a log is after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Within a transaction.
    Within,
    /// Between two of them.
    Between,
}

/// A transaction that has begun.
struct Open {
    gtid: Gtid,
    time: u32,
    begin: u64,
    flags: u8,
    extra_flags: u8,
    changes: Vec<Change>,
    statement: String,
}

impl Open {
    fn change(&mut self, table: u32, operation: Operation, rows: Option<u64>) {
        let same = |change: &&mut Change| (change.0, change.1) == (table, operation);
        if let Some(change) = self.changes.iter_mut().find(same) {
            change.2 = change.2.zip(rows).map(|(one, other)| one + other);
        } else if self.changes.len() < CHANGES_MAX {
            self.changes.push(Change(table, operation, rows));
        }
    }
}

/// A table that rows can belong to.
struct Table {
    /// The event's body, to tell when it changes; nothing if it is very long.
    body: Vec<u8>,
    database: String,
    name: String,
    columns: Vec<Column>,
    /// How many indexes had been taken when it got a number in one, and the number.
    indexed: Option<(u64, u32)>,
}

/// Follows one file.
pub struct Scanner {
    file: String,
    state: GtidState,
    format: Option<(Vec<u8>, Beginning)>,
    beginning: Option<Beginning>,
    group: Option<Open>,
    /// Tables by their numbers, which mean the same from one statement to the next mostly.
    tables: HashMap<u64, Table>,
    /// Numbers of those of the statement.
    mapped: Vec<u64>,
    indexer: Indexer,
    /// How often the index was taken: numbers of tables in it begin anew.
    taken: u64,
    ending: Option<Ending>,
    inflated: Vec<u8>,
}

impl Scanner {
    /// From the beginning of the file of this name.
    pub fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            state: GtidState::default(),
            format: None,
            beginning: None,
            group: None,
            tables: HashMap::new(),
            mapped: Vec::new(),
            indexer: Indexer::default(),
            taken: 0,
            ending: None,
            inflated: Vec::new(),
        }
    }

    /// What was logged up to here.
    pub fn state(&self) -> &GtidState {
        &self.state
    }

    /// Goes on from a place between transactions before which this was logged.
    pub fn resume(&mut self, state: GtidState) {
        self.state = state;
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// How the file begins, as soon as that is known.
    pub fn beginning(&self) -> Option<&Beginning> {
        self.beginning.as_ref()
    }

    /// How it ends, once that was seen.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// About as many bytes as the index has.
    pub fn weight(&self) -> usize {
        self.indexer.weight()
    }

    /// The transactions that have ended since the last call.
    pub fn take_index(&mut self) -> Index {
        self.taken += 1;
        let index = self.indexer.take();
        // One that has not ended is going to be in the next index, where tables have other numbers.
        for change in self.group.iter_mut().flat_map(|open| &mut open.changes) {
            let (database, table) = index.table(change);
            change.0 = self.indexer.table(database, table);
        }
        index
    }

    /// The next event.
    pub fn event(&mut self, event: &Event<'_>) -> Result<Place, Fault> {
        let kind = event.header.kind;
        let body = event.body();
        let broken = |what| Fault::Malformed { kind, what };
        let misplaced = || broken(Malformed("it stands within a transaction"));
        match kind {
            EventType::FORMAT_DESCRIPTION => {
                if self.group.is_some() {
                    return Err(misplaced());
                }
                self.format = Some(described(event).map_err(broken)?);
            }
            EventType::GTID_LIST => {
                if self.group.is_some() {
                    return Err(misplaced());
                }
                self.list(event).map_err(broken)?;
            }
            EventType::GTID => {
                if self.group.is_some() {
                    return Err(misplaced());
                }
                let gtid = GtidEvent::parse(body, event.header.server_id).map_err(broken)?;
                self.mapped.clear();
                self.group = Some(Open {
                    gtid: gtid.gtid,
                    time: event.header.timestamp,
                    begin: event.offset,
                    flags: gtid.flags,
                    extra_flags: gtid.extra_flags,
                    changes: Vec::new(),
                    statement: String::new(),
                });
                return Ok(Place::Within);
            }
            EventType::ROTATE if !event.header.has(flag::ARTIFICIAL) => {
                let rotate = Rotate::parse(body).map_err(broken)?;
                let next = String::from_utf8_lossy(rotate.file).into_owned();
                self.ending = Some(Ending::Rotate(next));
            }
            EventType::STOP => self.ending = Some(Ending::Stop),
            _ => {
                if self.within(event).map_err(broken)? {
                    self.close(event.end());
                }
            }
        }
        Ok(if self.group.is_some() { Place::Within } else { Place::Between })
    }

    /// The list of what was logged before the file.
    fn list(&mut self, event: &Event<'_>) -> Result<(), Malformed> {
        let list = GtidList::parse(event.body())?;
        self.state = GtidState::new(list.entries).map_err(|_| Malformed("entries"))?;
        if let Some((format, mut beginning)) = self.format.take() {
            beginning.identity = identity(&format, event.body(), &self.file);
            self.beginning = Some(beginning);
        }
        Ok(())
    }

    /// An event of a transaction; whether it is the last one.
    fn within(&mut self, event: &Event<'_>) -> Result<bool, Malformed> {
        let Self { group: Some(open), indexer, .. } = self else { return Ok(false) };
        let (kind, body) = (event.header.kind, event.body());
        let alone = open.flags & group::STANDALONE != 0;
        match kind {
            EventType::QUERY | EventType::QUERY_COMPRESSED => {
                let query = Query::parse(body, kind)?;
                let ends = matches!(&*query.text, b"COMMIT" | b"ROLLBACK");
                if !ends {
                    noted(open, indexer, &query);
                }
                Ok(alone || ends)
            }
            EventType::EXECUTE_LOAD_QUERY => {
                noted(open, indexer, &ExecuteLoad::parse(body)?.query);
                Ok(alone)
            }
            EventType::XID | EventType::XA_PREPARE => Ok(true),
            EventType::INTVAR | EventType::RAND | EventType::USER_VAR => Ok(false),
            EventType::ANNOTATE_ROWS => {
                if open.statement.is_empty() {
                    open.statement = shorten(body);
                }
                Ok(false)
            }
            EventType::TABLE_MAP => {
                self.map(body)?;
                Ok(false)
            }
            _ if kind.rows().is_some() => {
                self.rows(event)?;
                Ok(alone)
            }
            _ => Ok(alone),
        }
    }

    /// Takes note of a table of the statement.
    fn map(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let (number, ..) = table_map::names(body)?;
        if !self.mapped.contains(&number) {
            if self.mapped.len() >= TABLES_MAX {
                return Ok(());
            }
            self.mapped.push(number);
        }
        if self.tables.get(&number).is_some_and(|table| table.body == body) {
            return Ok(());
        }
        let map = TableMap::parse(body)?;
        let [database, name] =
            [map.database, map.name].map(|name| String::from_utf8_lossy(name).into_owned());
        if self.tables.len() >= TABLES_MAX {
            let Self { tables, mapped, .. } = self;
            tables.retain(|number, _| mapped.contains(number));
        }
        let kept = if body.len() <= BODY_MAX { body } else { &[] };
        let (body, columns) = (kept.to_vec(), map.columns);
        self.tables.insert(number, Table { body, database, name, columns, indexed: None });
        Ok(())
    }

    fn rows(&mut self, event: &Event<'_>) -> Result<(), Malformed> {
        let kind = event.header.kind;
        let rows = Rows::parse(event.body(), kind)?;
        let is_mapped = self.mapped.contains(&rows.table);
        let table = self.tables.get_mut(&rows.table).filter(|_| is_mapped);
        let (Some(open), Some(table)) = (&mut self.group, table) else { return Ok(()) };
        let number = match table.indexed {
            Some((taken, number)) if taken == self.taken => number,
            _ => {
                let number = self.indexer.table(&table.database, &table.name);
                table.indexed = Some((self.taken, number));
                number
            }
        };
        let columns = &table.columns;
        let mut images = rows.images;
        if kind.rows().is_some_and(|rows| rows.compressed) {
            self.inflated.clear();
            compress::inflate_part(images, &mut self.inflated)?;
            images = &self.inflated;
        }
        let (operation, after) = match rows.operation {
            binlog::Operation::Write => (Operation::Insert, None),
            binlog::Operation::Update => (Operation::Update, Some(rows.columns_after)),
            binlog::Operation::Delete => (Operation::Delete, None),
        };
        let count = match rows.width == columns.len() {
            true => Some(row::count(columns, rows.columns, after, images)),
            false => None,
        };
        open.change(number, operation, count);
        if rows.ends_statement() {
            self.mapped.clear();
        }
        Ok(())
    }

    /// Notes the transaction that has ended.
    fn close(&mut self, end: u64) {
        let Some(open) = self.group.take() else { return };
        self.state.record(open.gtid);
        let Open { gtid, time, begin, mut changes, statement, extra_flags, .. } = open;
        // An ALTER in two halves happens with the second one.
        if extra_flags & (extra::START_ALTER | extra::ROLLBACK_ALTER) != 0 {
            changes.clear();
        }
        self.indexer.add(Transaction { gtid, time, begin, end, changes, statement });
    }
}

/// What a statement says of tables.
fn noted(open: &mut Open, indexer: &mut Indexer, query: &Query<'_>) {
    if open.statement.is_empty() {
        open.statement = shorten(&query.text);
    }
    for touched in touched(&query.text, query.database) {
        let table = indexer.table(&touched.database, &touched.table);
        open.change(table, touched.operation, None);
    }
}

/// The description of the format, as it is in a file that was closed; what it says.
fn described(event: &Event<'_>) -> Result<(Vec<u8>, Beginning), Malformed> {
    let format = FormatDescription::parse(event.bytes)?;
    if !format.is_mariadb() {
        return Err(Malformed("only logs of MariaDB are archived"));
    }
    let mut bytes = event.bytes.to_vec();
    if let Some(flags) = bytes.get_mut(at::FLAGS) {
        *flags &= !(flag::IN_USE as u8);
    }
    let beginning = Beginning {
        server: event.header.server_id,
        time: event.header.timestamp,
        version: format.server_version,
        identity: String::new(),
    };
    Ok((bytes, beginning))
}
