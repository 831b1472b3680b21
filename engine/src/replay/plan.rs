//! What a replay will do, found out before it begins.
//!
//! The logs are read once to find the place that the backup has, the place that the server has come
//! to, and the place to stop at; every checksum is verified on the way, and every gap found.

mod refusals;

use std::collections::BTreeSet;

use binlog::event::gtid::flag;
use binlog::event::{Query, table_map};
use binlog::format::FormatDescription;
use binlog::{BinlogPosition, Event, EventType, Gtid, GtidPosition};
use jiff::Timestamp;

use super::filter::{Filter, Kept, TableName};
use super::script::makes_table;
use super::source::{Log, LogSource, malformed};
use super::state::State;
use super::target::{Edge, Target, When};
use super::temporary::TemporaryTables;
use super::walk::{Flow, Group, Place, Visitor};
use crate::{Error, ErrorKind, Result};

/// What the data is that the logs are to be applied to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// File and offset, if they are known.
    pub position: Option<BinlogPosition>,
    /// `server_id` of the server whose file that is, if it is known.
    pub server: Option<u32>,
    /// The newest transaction of each domain.
    pub gtid: GtidPosition,
    /// When that was, in seconds since 1970, if it is known.
    pub read: Option<u32>,
    /// When the backup began, likewise.
    pub began: Option<u32>,
}

impl Anchor {
    /// Whether the place is in this log. One that was begun later is another one of the same name.
    fn names(&self, log: &Log) -> bool {
        self.position.as_ref().is_some_and(|position| position.file() == log.name)
            && self.server.is_none_or(|server| server == log.server)
            && self.read.is_none_or(|read| log.begun <= read)
    }
}

/// What a replay does.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Plan {
    /// Version of this document's shape.
    pub format: u32,
    /// Logs to read, the oldest first.
    pub logs: Vec<String>,
    /// GTID position of the data that the logs are applied to.
    pub from: String,
    /// Where that is.
    pub from_log: String,
    /// See `from_log`.
    pub from_offset: u64,
    /// GTID position of the server that goes on with a replay, if one had begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumes_after: Option<String>,
    /// What was asked for.
    pub until: String,
    /// Whether that was found in the logs.
    pub target_found: bool,
    /// GTID position at the end, of all that is applied.
    pub to: String,
    /// Where the end is.
    pub to_log: String,
    /// See `to_log`.
    pub to_offset: u64,
    /// The last transaction that is applied.
    pub last: Option<String>,
    /// When that was.
    pub last_time: Option<Timestamp>,
    /// The first transaction that is not applied.
    pub next: Option<String>,
    /// When that was.
    pub next_time: Option<Timestamp>,
    /// Transactions to apply.
    pub transactions: u64,
    /// Bytes of their events.
    pub bytes: u64,
    /// Transactions that are left out.
    pub left_out: u64,
    /// Domains of the transactions.
    pub domains: Vec<u32>,
    /// Temporary tables that are there at the end, which is also theirs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub temporary: Vec<String>,
    /// Whether another replay can go on from the end, as none can near temporary tables.
    pub can_go_on: bool,
    /// What was left out at the ends of logs that were not closed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub torn: Vec<TornLog>,
    #[serde(skip)]
    pub(super) course: Course,
}

/// A log that its server did not close, as in a crash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TornLog {
    /// Its name.
    pub log: String,
    /// Behind its last whole transaction.
    pub offset: u64,
    /// Bytes from there on, which are left out.
    pub bytes: u64,
}

/// Where a replay goes along.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    /// Where the data is; applied from here, or from `resume`.
    pub start: Place,
    /// State there.
    pub start_state: State,
    /// State before the first log that is read.
    pub before: State,
    /// Where a replay goes on.
    pub resume: Option<Place>,
    /// Groups at this place and behind are not applied.
    pub cut: Place,
    /// State at the end.
    pub end_state: State,
    /// Up to where each log has whole groups.
    pub ends: Vec<u64>,
    /// Groups that make a table and fill it.
    pub filling: u64,
    /// The last group before `resume`, if it is such a one, and its table.
    pub resumes_behind: Option<(Gtid, TableName)>,
}

/// What is looked for.
pub(super) struct Planner<'a> {
    source: &'a dyn LogSource,
    anchor: &'a Anchor,
    target: &'a Target,
    edge: Edge,
    filter: Filter,
    /// Whether the log that the data names is among the logs.
    has_named: bool,
    /// What the server has logged; nothing if it is as it was restored.
    server: Option<State>,
    course: Course,
    /// Whether the data's place was found.
    begun: bool,
    /// Whether the server's place was found, or is that of the data.
    resumed: bool,
    /// What would be logged by the server that applies.
    applied: State,
    found: bool,
    skipped: BTreeSet<Gtid>,
    /// Those of them that are before the place to go on from.
    skipped_before: BTreeSet<Gtid>,
    group_bytes: u64,
    group_changes: bool,
    /// Whether the group has statements of its own, and whether the first one makes a table.
    has_statement: bool,
    makes_table: bool,
    /// The table that the group makes and fills.
    filled: Option<TableName>,
    /// Whether the group ends with ROLLBACK.
    is_rolled_back: bool,
    micros: Option<u32>,
    temporary: TemporaryTables,
    /// Why the server's place, which was found, is none to go on from.
    stuck: Option<Error>,
    transactions: u64,
    bytes: u64,
    left_out: u64,
    domains: BTreeSet<u32>,
    last: Option<Group>,
    next: Option<Group>,
    incident: Option<(Place, String)>,
    torn: Vec<TornLog>,
    ended: Place,
    seen: State,
    /// State before the log.
    before_log: State,
    /// The last group that the data has.
    before: Option<Group>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        source: &'a dyn LogSource,
        anchor: &'a Anchor,
        (target, edge): (&'a Target, Edge),
        filter: Filter,
        server: Option<State>,
    ) -> Self {
        Self {
            source,
            anchor,
            target,
            edge,
            filter,
            has_named: source.logs().iter().any(|log| anchor.names(log)),
            server,
            course: Course { ends: vec![0; source.logs().len()], ..Course::default() },
            begun: false,
            resumed: false,
            applied: State::default(),
            found: false,
            skipped: BTreeSet::new(),
            skipped_before: BTreeSet::new(),
            group_bytes: 0,
            group_changes: false,
            has_statement: false,
            makes_table: false,
            filled: None,
            is_rolled_back: false,
            micros: None,
            temporary: TemporaryTables::default(),
            stuck: None,
            transactions: 0,
            bytes: 0,
            left_out: 0,
            domains: BTreeSet::new(),
            last: None,
            next: None,
            incident: None,
            torn: Vec::new(),
            ended: Place::default(),
            seen: State::default(),
            before_log: State::default(),
            before: None,
        }
    }

    fn name(&self, log: usize) -> &str {
        self.source.logs().get(log).map_or("", |log| &log.name)
    }

    fn at(&self, place: Place) -> String {
        format!("{}:{}", self.name(place.log), place.offset)
    }

    /// Whether the data is what the logs have up to a place between groups. The stock tool leaves
    /// domains out of its position: where the log is there that it names, only the place counts.
    fn is_anchor(&self, named: bool, state: &State) -> bool {
        if !named {
            return !self.has_named && state.position() == self.anchor.gtid;
        }
        let agrees = |gtid: Gtid| state.newest(gtid.domain).is_none_or(|newest| newest == gtid);
        self.anchor.gtid.iter().all(agrees)
    }

    /// Whether the place that the backup names is between these offsets of a log.
    fn is_named(&self, log: usize, offsets: std::ops::RangeInclusive<u64>) -> bool {
        let is_within = |position: &BinlogPosition| offsets.contains(&position.offset());
        self.anchor.position.as_ref().is_some_and(is_within)
            && self.source.logs().get(log).is_some_and(|log| self.anchor.names(log))
    }

    /// Looks whether the replay begins at a place between groups.
    fn look_for_data(&mut self, place: Place, named: bool, state: &State) {
        if !self.begun && self.is_anchor(named, state) {
            self.begun = true;
            self.course.start = place;
            self.course.start_state = state.clone();
            self.course.before = self.before_log.clone();
            self.course.cut = place;
            self.applied = state.clone();
            self.look_for_server(place, None);
        }
    }

    /// Looks whether the place that the backup names is between the last group and here, where none is.
    fn look_for_named(&mut self, place: Place) {
        let from = if self.ended.log == place.log { self.ended.offset } else { 0 };
        if !self.begun && self.is_named(place.log, from..=place.offset) {
            self.look_for_data(place, true, &self.seen.clone());
        }
    }

    /// A place between groups, behind what was seen last.
    fn between(&mut self, place: Place, state: &State) {
        self.ended = place;
        self.seen = state.clone();
        if let Some(offset) = self.course.ends.get_mut(place.log) {
            *offset = place.offset;
        }
        if !self.begun {
            let named = self.is_named(place.log, place.offset..=place.offset);
            self.look_for_data(place, named, state);
        }
    }

    fn statement(&mut self, group: &Group, query: &Query<'_>) {
        self.is_rolled_back = *query.text == *b"ROLLBACK";
        if group.has(flag::STANDALONE) {
            self.micros = Some(query.session.microseconds).filter(|micros| *micros > 0);
        }
        if self.filter.admits(group) {
            self.temporary.statement(group.gtid, query);
        }
        self.makes_table |= !self.has_statement && makes_table(group, query);
        self.has_statement = true;
    }

    fn look_for_server(&mut self, place: Place, filled: Option<(Gtid, TableName)>) {
        let is_there = self.server.as_ref().is_none_or(|server| *server == self.applied);
        if !self.resumed && is_there {
            self.resumed = true;
            if self.server.is_some() && place != self.course.start {
                self.course.resume = Some(place);
                self.course.before = self.before_log.clone();
                self.stuck = self.stuck_at(place);
                self.skipped_before = std::mem::take(&mut self.skipped);
                self.course.resumes_behind = filled;
                self.course.filling = 0;
                (self.transactions, self.bytes, self.left_out) = (0, 0, 0);
                self.domains.clear();
            }
        }
    }

    /// Ends before a group, or behind all.
    fn stop(&mut self, at: Place, next: Option<Group>) -> Flow {
        self.course.cut = at;
        self.next = next;
        self.found = true;
        Flow::Stop
    }

    /// Tables that are to be left out, and of which the logs have no rows.
    pub(super) fn not_there(&self) -> Vec<String> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let unseen = self.filter.unseen();
        unseen.map(|(database, name)| format!("{}.{}", text(database), text(name))).collect()
    }

    pub(super) fn finish(mut self) -> Result<Plan> {
        if !self.begun {
            return Err(self.no_start());
        }
        if !self.found && matches!(self.target, Target::Gtid(_) | Target::Position { .. }) {
            let message = format!(
                "{} is not in the logs behind {}, which go to {}",
                self.target,
                self.course.start_state,
                self.at(self.ended)
            );
            return Err(Error::new(ErrorKind::NothingMatches, message).advise(
                "look it up with haulout binlog dump --json, or fetch the logs that have it",
            ));
        }
        if let Some((place, words)) = &self.incident
            && *place < self.course.cut
        {
            let message =
                format!("the server says at {} that events were lost: {words}", self.at(*place));
            return Err(Error::new(ErrorKind::Gap, message).advise("stop before that place"));
        }
        if !self.resumed {
            return Err(self.foreign_server());
        }
        if let Some(error) = self.stuck {
            return Err(error);
        }
        self.refuse_the_past()?;
        self.refuse_what_is_done()?;
        let skipped = &self.skipped | &self.skipped_before;
        let missing: Vec<String> =
            self.filter.gtids.difference(&skipped).map(Gtid::to_string).collect();
        if !missing.is_empty() {
            let message = format!("{} is not between start and end", missing.join(","));
            return Err(Error::new(ErrorKind::NothingMatches, message)
                .advise("leave out only what would be replayed"));
        }
        self.course.end_state = self.applied;
        self.course.ends.truncate(self.course.cut.log + 1);
        if let Some(end) = self.course.ends.last_mut() {
            *end = self.course.cut.offset;
        }
        let (start, cut) = (self.course.resume.unwrap_or(self.course.start), self.course.cut);
        let time = |group: &Group| Timestamp::from_second(group.time.into()).ok();
        let name = |log: usize| self.source.logs().get(log).map_or("", |log| &log.name).to_owned();
        Ok(Plan {
            format: 1,
            logs: (start.log..=cut.log).map(name).collect(),
            from: self.course.start_state.position().to_string(),
            from_log: name(self.course.start.log),
            from_offset: self.course.start.offset,
            resumes_after: self.course.resume.and(self.server.as_ref()).map(State::to_string),
            until: self.target.to_string(),
            target_found: self.found || *self.target == Target::End,
            to: self.course.end_state.position().to_string(),
            to_log: name(cut.log),
            to_offset: cut.offset,
            last: self.last.map(|group| group.gtid.to_string()),
            last_time: self.last.as_ref().and_then(time),
            next: self.next.map(|group| group.gtid.to_string()),
            next_time: self.next.as_ref().and_then(time),
            transactions: self.transactions,
            bytes: self.bytes,
            left_out: self.left_out,
            domains: self.domains.into_iter().collect(),
            temporary: self.temporary.names(),
            can_go_on: !self.temporary.are_doubtful(),
            torn: self.torn,
            course: self.course,
        })
    }

    /// Whether a position misses only domains that the logs do not have at all; it without them.
    pub(super) fn without_unknown_domains(&self) -> Option<GtidPosition> {
        let known = |gtid: &Gtid| self.seen.newest(gtid.domain).is_some();
        let position: GtidPosition = self.anchor.gtid.iter().filter(known).collect();
        // Of a position of which nothing is known nothing would be left.
        (!self.begun && !position.is_empty() && position != self.anchor.gtid).then_some(position)
    }
}

impl Visitor for Planner<'_> {
    fn log(&mut self, log: usize, before: &State) -> Result<Flow> {
        self.before_log = before.clone();
        self.between(Place { log, offset: 0 }, before);
        Ok(Flow::On)
    }

    fn format(&mut self, _: &Event<'_>, format: &FormatDescription) -> Result<()> {
        if format.created != 0 {
            self.temporary.take();
        }
        Ok(())
    }

    fn begin(&mut self, group: &Group, event: &Event<'_>) -> Result<Flow> {
        self.look_for_named(group.place);
        self.group_bytes = event.bytes.len() as u64;
        (self.group_changes, self.filled, self.micros) = (false, None, None);
        self.temporary.begin();
        (self.has_statement, self.makes_table, self.is_rolled_back) = (false, false, false);
        if !self.begun {
            return Ok(Flow::On);
        }
        let ends = match self.target {
            Target::Gtid(gtid) => *gtid == group.gtid && self.edge == Edge::Before,
            Target::Position { file, offset } => {
                file == self.name(group.place.log) && group.place.offset >= *offset
            }
            Target::End | Target::Time(_) => false,
        };
        Ok(if ends { self.stop(group.place, Some(*group)) } else { Flow::On })
    }

    fn event(&mut self, group: &Group, event: &Event<'_>) -> Result<()> {
        self.group_bytes += event.bytes.len() as u64;
        if !self.begun {
            return Ok(());
        }
        let kind = event.header.kind;
        let name = self.source.logs().get(group.place.log).map_or("", |log| &*log.name);
        if self.filter.admits(group) {
            let kept = self.filter.keeps(name, group, event)?;
            self.group_changes |= kept == Kept::Change;
        }
        if kind == EventType::TABLE_MAP && self.makes_table {
            let names = table_map::names(event.body());
            let (_, database, table) = names.map_err(|what| malformed(name, event, what))?;
            self.filled = Some((database.to_vec(), table.to_vec()));
        }
        if matches!(kind, EventType::QUERY | EventType::QUERY_COMPRESSED) {
            let query = Query::parse(event.body(), kind);
            let query = query.map_err(|what| malformed(name, event, what))?;
            self.statement(group, &query);
        }
        Ok(())
    }

    fn end(&mut self, group: &Group, end: Place, after: &State) -> Result<Flow> {
        let had_begun = self.begun;
        self.between(end, after);
        if !had_begun {
            self.before = Some(*group);
            return Ok(Flow::On);
        }
        match self.target {
            Target::Time(time) => {
                let when = When { seconds: group.time, micros: self.micros };
                if when.is_late(*time, self.edge) {
                    return Ok(self.stop(group.place, Some(*group)));
                }
            }
            Target::Position { file, offset }
                if file == self.name(end.log)
                    && end.offset > *offset
                    && self.edge == Edge::Before =>
            {
                return Ok(self.stop(group.place, Some(*group)));
            }
            _ => {}
        }
        // A server that rolls back all of a transaction logs nothing of it. That it is in the log is due
        // to temporary tables that are not.
        self.group_changes &= !(self.is_rolled_back && group.has(flag::TRANSACTIONAL));
        if self.group_changes {
            self.applied.add(group.gtid);
            self.temporary.end();
            self.transactions += 1;
            self.bytes += self.group_bytes;
            self.domains.insert(group.gtid.domain);
            self.last = Some(*group);
        } else {
            self.left_out += 1;
            if self.filter.gtids.contains(&group.gtid) {
                self.skipped.insert(group.gtid);
            }
        }
        self.course.cut = end;
        let filled = self.filled.take().filter(|_| self.group_changes);
        self.course.filling += u64::from(filled.is_some());
        self.look_for_server(end, filled.map(|table| (group.gtid, table)));
        let ends = match self.target {
            Target::Gtid(gtid) => *gtid == group.gtid,
            Target::Position { file, offset } => {
                file == self.name(end.log) && end.offset >= *offset
            }
            Target::End | Target::Time(_) => false,
        };
        Ok(if ends { self.stop(end, None) } else { Flow::On })
    }

    fn log_end(&mut self, end: Place, after: &State) -> Result<Flow> {
        self.look_for_named(end);
        self.between(end, after);
        if self.begun
            && let Target::Position { file, offset } = self.target
            && file == self.name(end.log)
            && end.offset <= *offset
        {
            // Behind the last group, or within what is between groups.
            let log = self.source.logs().get(end.log);
            if log.is_some_and(|log| *offset <= log.bytes) {
                let cut = self.course.cut;
                return Ok(self.stop(cut, None));
            }
        }
        Ok(Flow::On)
    }

    fn torn(&mut self, place: Place, bytes: u64) {
        let log = self.name(place.log).to_owned();
        self.torn.push(TornLog { log, offset: place.offset, bytes });
    }

    fn incident(&mut self, place: Place, words: String) -> Result<()> {
        if self.begun && self.incident.is_none() {
            self.incident = Some((place, words));
        }
        Ok(())
    }
}
