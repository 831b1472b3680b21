//! From events to statements, many of which go to the server at once.
//!
//! A batch is one request: statements that the server runs one after another, up to the first that
//! fails. It ends one group and begins the next: the text of a statement of the log is always the last
//! one of its batch, so that nothing in it can reach what follows. Nothing of a group is sent that is not
//! whole in the log.
//!
//! Rows are applied by BINLOG, with the tables that they belong to: a statement at once, or in several
//! pieces, each of which ends as a statement, if its rows are many.

mod loads;

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::SyncSender;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use binlog::bytes::Malformed;
use binlog::dump::push_name;
use binlog::event::gtid::flag as group;
use binlog::event::rows::{self, flag as rows_flag};
use binlog::event::{GtidEvent, IntVar, Query, Rand, Rows, TableMap, UserVar, control, table_map};
use binlog::format::{FormatDescription, Version};
use binlog::header::{CHECKSUM_LEN, HEADER_LEN};
use binlog::{Event, EventType, Gtid};
use tempfile::SpooledTempFile;

use super::batch::{Batch, Mark, Statement, What};
use super::definition::Definition;
use super::filter::{Filter, Kept};
use super::plan::Course;
use super::sequence::Sequence;
use super::session::{Session, UnknownCollation, put};
use super::source::{LogSource, malformed};
use super::state::State;
use super::temporary::TemporaryTables;
use super::walk::{Flow, Group, Place, Visitor};
use crate::{Error, ErrorKind, Result};

/// Bytes of statements after which a batch is sent. The server takes memory for each statement of a
/// batch in the length of all that follow it.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes of rows after which a statement goes out in a piece of its own.
const PIECE: usize = 2 << 20;
/// What a statement and its batch have around its text, generously.
const AROUND: usize = 256;
/// The largest `max_allowed_packet` that servers have.
const PACKET_MAX: usize = 1 << 30;
/// Characters of a statement that messages show.
const SHOWN: usize = 200;

/// What the server takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Its version.
    pub version: Version,
    /// `max_allowed_packet`
    pub packet: usize,
}

/// Makes batches of what it sees.
pub(super) struct Builder<'a> {
    source: &'a dyn LogSource,
    course: &'a Course,
    filter: Filter,
    limits: Limits,
    send: SyncSender<Batch>,
    batch: Batch,
    session: Session,
    format: Option<FormatDescription>,
    statement: Statement,
    loads: HashMap<(u32, u32), SpooledTempFile>,
    temporary: TemporaryTables,
    /// Which log it is.
    log: usize,
    /// Whether the group is applied, and whether something of it has gone into a batch.
    active: bool,
    opened: bool,
    begins: Vec<u8>,
    /// Whether nothing may be set before what comes next.
    unbroken: bool,
    /// Whether only the rows of the group are to be applied, because its table was made before.
    pub rows_only_of: Option<Gtid>,
    inflated: Vec<u8>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        source: &'a dyn LogSource,
        course: &'a Course,
        filter: Filter,
        limits: Limits,
        send: SyncSender<Batch>,
    ) -> Self {
        Self {
            source,
            course,
            filter,
            limits,
            send,
            batch: Batch::default(),
            session: Session::default(),
            format: None,
            statement: Statement::default(),
            loads: HashMap::new(),
            temporary: TemporaryTables::default(),
            log: 0,
            active: false,
            opened: false,
            begins: Vec::new(),
            unbroken: false,
            rows_only_of: None,
            inflated: Vec::new(),
        }
    }

    fn name(&self, place: Place) -> &'a str {
        self.source.logs().get(place.log).map_or("", |log| &log.name)
    }

    /// Sends what there is; [`Flow::Stop`] if nobody wants it any more.
    pub(super) fn flush(&mut self) -> Flow {
        if self.batch.marks.is_empty() && self.batch.groups == 0 {
            return Flow::On;
        }
        match self.send.send(std::mem::take(&mut self.batch)) {
            Ok(()) => Flow::On,
            Err(_) => Flow::Stop,
        }
    }

    /// Adds a statement to the batch.
    fn push(&mut self, mark: Mark, write: impl FnOnce(&mut Vec<u8>)) {
        let sql = &mut self.batch.sql;
        if !sql.is_empty() {
            sql.push(b';');
        }
        write(sql);
        self.batch.marks.push(mark);
    }

    /// Ends the group, at the time at which it was ended.
    fn push_end(&mut self, group: &Group, place: Place, words: &[u8]) {
        self.session.time(group.time, 0);
        self.push_set(group.gtid, place);
        let mark = Mark { gtid: Some(group.gtid), place, what: What::Around("the end") };
        self.push(mark, |sql| sql.extend_from_slice(words));
        self.unbroken = false;
    }

    /// Sets what is still to be set.
    fn push_set(&mut self, gtid: impl Into<Option<Gtid>>, place: Place) {
        let gtid = gtid.into();
        for mut statement in self.session.take_set() {
            let word = if statement.starts_with(b"USE") { "USE" } else { "SET" };
            let mark = Mark { gtid, place, what: What::Around(word) };
            self.push(mark, |sql| sql.append(&mut statement));
        }
    }

    /// Drops the temporary tables that the source lost when it was started anew, unlogged as there.
    fn drop_temporary(&mut self, place: Place) {
        for table in self.temporary.take() {
            let mut sql = b"DROP TEMPORARY TABLE IF EXISTS ".to_vec();
            push_name(&mut sql, table.database.as_bytes());
            sql.push(b'.');
            push_name(&mut sql, table.name.as_bytes());
            self.session.thread(table.server, table.thread);
            self.session.read_name(&sql);
            self.push_set(None, place);
            for statement in [b"SET sql_log_bin=0", &*sql, b"SET sql_log_bin=1"] {
                let mark = Mark { gtid: None, place, what: What::Around("a temporary table") };
                self.push(mark, |out| out.extend_from_slice(statement));
            }
            self.flush();
        }
    }

    /// Opens the group in the batch, before the first thing that it does.
    fn open(&mut self, group: &Group) {
        if self.opened {
            return;
        }
        self.opened = true;
        let no_parallel = !group.has(group::ALLOW_PARALLEL);
        self.session.time(group.time, 0);
        self.session.group(group.gtid, (group.skips_replication, no_parallel));
        let begins = std::mem::take(&mut self.begins);
        if !begins.is_empty() {
            self.push_set(group.gtid, group.place);
            let word = if group.has(group::PREPARED_XA) { "XA START" } else { "START TRANSACTION" };
            let mark =
                Mark { gtid: Some(group.gtid), place: group.place, what: What::Around(word) };
            self.push(mark, |sql| sql.extend_from_slice(&begins));
        }
    }

    /// Puts the rows that wait into the batch; `last` if their statement ends.
    fn push_rows(&mut self, group: &Group, last: bool) -> Result<()> {
        self.statement.end(last);
        self.push_ended(group)
    }

    /// The same for those of statements, and of pieces, that have ended.
    fn push_ended(&mut self, group: &Group) -> Result<()> {
        let events = std::mem::take(&mut self.statement.ended);
        if events.is_empty() {
            return Ok(());
        }
        let place = self.statement.place;
        let tables = match self.statement.maps.is_empty() {
            true => std::mem::take(&mut self.statement.tables),
            false => self.statement.tables.clone(),
        };
        let length = sent(events.len());
        if length > self.limits.packet {
            return Err(self.too_long(group, &format!("{length}"), &tables));
        }
        self.open(group);
        self.push_set(group.gtid, place);
        if self.batch.sql.len() + length > self.limits.packet {
            self.flush();
        }
        let mark = Mark { gtid: Some(group.gtid), place, what: What::Rows(tables) };
        self.push(mark, |sql| push_binlog(sql, &events));
        Ok(())
    }

    /// Rows that the server does not take at once, and that cannot be taken apart.
    fn too_long(&self, group: &Group, length: &str, tables: &str) -> Error {
        let place = self.statement.place;
        let message = format!(
            "{} ({} at {}) changes rows of {tables} in one statement of {length} bytes, and the server takes \
             {}",
            group.gtid,
            self.name(place),
            place.offset,
            self.limits.packet
        );
        Error::new(ErrorKind::Usage, message).advise(match self.limits.packet < PACKET_MAX {
            true => "SET GLOBAL max_allowed_packet=1073741824 on the server, and start again",
            false => {
                "leave the transaction out with --skip-gtid, and bring its table from the source: no server \
                 takes more"
            }
        })
    }

    /// Puts the statement that sets a sequence into the batch.
    fn push_sequence(&mut self, group: &Group, place: Place, sql: &[u8]) {
        self.open(group);
        self.session.read_name(sql);
        self.push_set(group.gtid, place);
        let tables = self.statement.tables.clone();
        let mark = Mark { gtid: Some(group.gtid), place, what: What::Rows(tables) };
        self.push(mark, |out| out.extend_from_slice(sql));
    }

    fn table_map(&mut self, event: &Event<'_>) -> Result<(), Malformed> {
        let (_, database, name) = table_map::names(event.body())?;
        let (database, name) = (String::from_utf8_lossy(database), String::from_utf8_lossy(name));
        let tables = &mut self.statement.tables;
        let name = format!("{database}.{name}");
        if tables.len() < SHOWN && !tables.contains(&name) {
            let comma = if tables.is_empty() { "" } else { ", " };
            *tables = format!("{tables}{comma}{name}");
        }
        self.statement.maps.extend_from_slice(event.bytes);
        let map = TableMap::parse(event.body())?;
        self.statement.sequences.extend(Sequence::of(&map, self.limits.version));
        Ok(())
    }

    fn rows(&mut self, group: &Group, event: &Event<'_>) -> Result<()> {
        let place = Place { log: group.place.log, offset: event.offset };
        let name = self.name(place);
        let broken = |what| malformed(name, event, what);
        let (number, flags) = rows::begin(event.body()).map_err(broken)?;
        let mut inflated = std::mem::take(&mut self.inflated);
        let is_compressed = event.header.kind.rows().is_some_and(|kind| kind.compressed);
        if is_compressed {
            rows::inflate(event, &mut inflated).map_err(broken)?;
        }
        let bytes = if is_compressed { &*inflated } else { event.bytes };
        let ends = flags & rows_flag::STATEMENT_END != 0;
        if let Some(sequence) = self.statement.sequences.iter().find(|it| it.number == number) {
            let tail = if event.checksum.is_some() { CHECKSUM_LEN } else { 0 };
            let body = bytes.get(HEADER_LEN..bytes.len().saturating_sub(tail));
            let rows = Rows::parse(body.unwrap_or_default(), event.header.kind.plain());
            let rows = rows.map_err(broken)?;
            if let Some(sql) = sequence.statement(&rows) {
                self.inflated = inflated;
                self.push_sequence(group, place, &sql);
                if ends {
                    self.push_rows(group, true)?;
                    self.statement.tables.clear();
                }
                return Ok(());
            }
        }
        // What can be rolled back goes out together, as far as it is not much. What cannot is logged at
        // the end of each statement, as a group of its own.
        let is_transactional = group.has(group::TRANSACTIONAL);
        let room = PIECE.min(self.limits.packet / 4);
        if self.statement.ended.len() + bytes.len() > room {
            self.push_ended(group)?;
        }
        let bytes = if is_compressed { &*inflated } else { event.bytes };
        self.statement.add(bytes, place, event.end());
        self.inflated = inflated;
        let waiting = self.statement.ended.len() + self.statement.rows.len();
        if !is_transactional && sent(waiting) > self.limits.packet {
            // The rest of it need not be gathered.
            let tables = self.statement.tables.clone();
            return Err(self.too_long(group, &format!("more than {}", sent(waiting)), &tables));
        }
        if (ends && !is_transactional) || (is_transactional && waiting > room) {
            self.push_rows(group, ends)?;
        } else if ends {
            self.statement.end(true);
        }
        Ok(())
    }

    /// Takes a statement of the log.
    fn query(&mut self, group: &Group, event: &Event<'_>) -> Result<()> {
        let place = Place { log: group.place.log, offset: event.offset };
        let query = Query::parse(event.body(), event.header.kind)
            .map_err(|what| malformed(self.name(place), event, what))?;
        let in_xa = group.has(group::PREPARED_XA | group::COMPLETED_XA);
        if query.is_bracket(in_xa) {
            if *query.text == *b"BEGIN" {
                return Ok(());
            }
            let ends = matches!(&*query.text, b"COMMIT" | b"ROLLBACK");
            if ends && !self.opened {
                return Ok(());
            }
            self.open(group);
            if ends {
                self.push_end(group, place, &query.text);
                return Ok(());
            }
            if in_xa {
                // Behind XA END nothing can be set.
                self.session.time(group.time, 0);
            }
            self.push_set(group.gtid, place);
            let mark = Mark { gtid: Some(group.gtid), place, what: What::Around("a bracket") };
            self.push(mark, |sql| sql.extend_from_slice(&query.text));
            self.unbroken = group.has(group::PREPARED_XA);
            return Ok(());
        }
        self.temporary.statement(group.gtid, &query);
        if self.opened || !makes_table(group, &query) {
            return self.text(group, event, &query, |sql| sql.extend_from_slice(&query.text));
        }
        if self.rows_only_of == Some(group.gtid) {
            return Ok(());
        }
        // Making the table commits. Its rows are logged behind it, under the same number.
        let begins = std::mem::take(&mut self.begins);
        self.text(group, event, &query, |sql| sql.extend_from_slice(&query.text))?;
        self.begins = begins;
        self.opened = false;
        Ok(())
    }

    /// Adds what a statement needs and, as the end of the batch, its text.
    fn text(
        &mut self,
        group: &Group,
        event: &Event<'_>,
        query: &Query<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        let place = Place { log: group.place.log, offset: event.offset };
        if KILLED.contains(&query.error_code) {
            let message = format!(
                "{} ({} at {}) is a statement that was killed at its server after it had changed \
                 something; how much is not in the log",
                group.gtid,
                self.name(place),
                place.offset
            );
            return Err(Error::new(ErrorKind::Damage, message)
                .advise("leave it out with --skip-gtid, and look at its tables afterwards"));
        }
        self.open(group);
        let format = self.format.as_ref().ok_or_else(|| no_format(self.name(place)))?;
        self.session
            .statement(query, &event.header, format, self.limits.version)
            .map_err(|unknown| self.unknown_collation(place, unknown))?;
        self.push_set(group.gtid, place);
        let what = What::Statement(shown(&query.text));
        if self.batch.sql.len() + query.text.len() + AROUND > self.limits.packet {
            self.flush();
        }
        self.push(Mark { gtid: Some(group.gtid), place, what }, write);
        self.batch.expected = Some(query.error_code).filter(|code| *code != 0);
        Ok(())
    }

    fn unknown_collation(&self, place: Place, UnknownCollation(number): UnknownCollation) -> Error {
        let message = format!(
            "{} at {}: nothing is known of collation number {number}",
            self.name(place),
            place.offset
        );
        Error::new(ErrorKind::Damage, message)
    }

    /// Takes an event that changes something or is needed for that.
    fn apply(&mut self, group: &Group, event: &Event<'_>) -> Result<()> {
        let kind = event.header.kind;
        let place = Place { log: group.place.log, offset: event.offset };
        let name = self.name(place);
        let broken = |what| malformed(name, event, what);
        if kind == EventType::TABLE_MAP {
            return self.table_map(event).map_err(broken);
        }
        if kind.rows().is_some() {
            return self.rows(group, event);
        }
        self.push_rows(group, true)?;
        let body = event.body();
        match kind {
            EventType::QUERY | EventType::QUERY_COMPRESSED => self.query(group, event)?,
            EventType::EXECUTE_LOAD_QUERY => {
                self.execute_load(group, event)?;
            }
            EventType::BEGIN_LOAD_QUERY | EventType::APPEND_BLOCK => self.block(event, place)?,
            EventType::INTVAR => {
                let variable = IntVar::parse(body).map_err(broken)?;
                if !matches!(variable.kind, 1 | 2) {
                    return Err(broken(Malformed("kind")));
                }
                self.open(group);
                self.session.int(variable);
            }
            EventType::RAND => {
                self.open(group);
                self.session.rand(Rand::parse(body).map_err(broken)?);
            }
            EventType::USER_VAR => {
                self.open(group);
                let variable = UserVar::parse(body).map_err(broken)?;
                let set = self.session.user_variable(&variable);
                set.map_err(|unknown| self.unknown_collation(place, unknown))?;
            }
            EventType::XID if self.opened => self.push_end(group, place, b"COMMIT"),
            EventType::XA_PREPARE => {
                let xa = control::XaPrepare::parse(body).map_err(broken)?.name.text();
                self.open(group);
                self.push_end(group, place, format!("XA PREPARE {xa}").as_bytes());
            }
            _ => {}
        }
        // A statement of the log ends its batch.
        if matches!(self.batch.marks.last(), Some(Mark { what: What::Statement(_), .. })) {
            self.flush();
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        !self.unbroken && self.batch.sql.len() > BATCH_BYTES.min(self.limits.packet / 4)
    }
}

/// Errors of statements that were killed on the way.
const KILLED: [u16; 4] = [1053, 1317, 1927, 1969];

impl Visitor for Builder<'_> {
    fn log(&mut self, log: usize, _: &State) -> Result<Flow> {
        self.log = log;
        Ok(if log > self.course.cut.log { Flow::Stop } else { Flow::On })
    }

    fn format(&mut self, event: &Event<'_>, format: &FormatDescription) -> Result<()> {
        self.format = Some(format.clone());
        let place = Place { log: self.log, offset: event.offset };
        if format.created != 0 {
            self.drop_temporary(place);
        }
        let mark = Mark { gtid: None, place, what: What::Around("BINLOG") };
        self.push(mark, |sql| push_binlog(sql, event.bytes));
        Ok(())
    }

    fn begin(&mut self, group: &Group, event: &Event<'_>) -> Result<Flow> {
        if group.place >= self.course.cut {
            return Ok(Flow::Stop);
        }
        let is_filling = self.rows_only_of == Some(group.gtid);
        let from = self.course.resume.unwrap_or(self.course.start);
        self.active = (group.place >= from || is_filling) && self.filter.admits(group);
        self.opened = false;
        self.begins.clear();
        self.temporary.begin();
        if !self.active {
            return Ok(Flow::On);
        }
        self.batch.bytes += event.bytes.len() as u64;
        if group.has(group::PREPARED_XA) {
            let gtid = GtidEvent::parse(event.body(), event.header.server_id)
                .map_err(|what| malformed(self.name(group.place), event, what))?;
            if let Some(xa) = &gtid.xa {
                put!(self.begins, "XA START {}", xa.text());
            }
        } else if !group.has(group::STANDALONE) {
            self.begins.extend_from_slice(b"START TRANSACTION");
        }
        Ok(Flow::On)
    }

    fn event(&mut self, group: &Group, event: &Event<'_>) -> Result<()> {
        if !self.active {
            return Ok(());
        }
        self.batch.bytes += event.bytes.len() as u64;
        match self.filter.keeps(self.name(group.place), group, event)? {
            Kept::Out { ends: true } => self.statement.end(true),
            Kept::Out { ends: false } => {}
            Kept::Change | Kept::Needed => self.apply(group, event)?,
        }
        if self.is_full() {
            self.flush();
        }
        Ok(())
    }

    fn end(&mut self, _: &Group, _: Place, _: &State) -> Result<Flow> {
        self.loads.clear();
        if self.active {
            self.batch.groups += 1;
            self.temporary.end();
        }
        self.active = false;
        Ok(if self.is_full() { self.flush() } else { Flow::On })
    }

    fn incident(&mut self, place: Place, words: String) -> Result<()> {
        let from = self.course.resume.unwrap_or(self.course.start);
        if place < from || place >= self.course.cut {
            return Ok(());
        }
        let message =
            format!("{} at {}: events were lost: {words}", self.name(place), place.offset);
        Err(Error::new(ErrorKind::Gap, message))
    }
}

/// Whether the first statement of a group makes the table that the rest of it fills. What has to do with
/// temporary tables in a transaction is marked as a definition, too.
pub(super) fn makes_table(group: &Group, query: &Query<'_>) -> bool {
    group.has(group::DDL)
        && !group.has(group::STANDALONE)
        && Definition::of(&query.text) == Some(Definition::Makes)
}

/// Bytes of the statement that applies so many bytes of events, generously.
fn sent(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4 + AROUND
}

/// Appends a statement that applies events.
fn push_binlog(sql: &mut Vec<u8>, events: &[u8]) {
    sql.extend_from_slice(b"BINLOG '");
    let begin = sql.len();
    sql.resize(begin + events.len().div_ceil(3) * 4, 0);
    // The room is exactly that of the text.
    let _ = STANDARD.encode_slice(events, sql.get_mut(begin..).unwrap_or_default());
    sql.push(b'\'');
}

/// The beginning of a statement, as messages show it.
fn shown(text: &[u8]) -> String {
    let cut = text.get(..SHOWN).unwrap_or(text);
    let mut shown: String = String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.len() > SHOWN {
        shown.push('…');
    }
    shown
}

fn no_format(name: &str) -> Error {
    Error::new(ErrorKind::Damage, format!("{name} does not say what its events look like"))
}
