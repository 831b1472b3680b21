//! What a replay will do, found out before it begins.
//!
//! The logs are read once to find the place that the backup has, the place that the server has come
//! to, and the place to stop at; every checksum is verified on the way, and every gap found.

use std::collections::BTreeSet;

use binlog::event::gtid::flag;
use binlog::event::{Query, table_map};
use binlog::format::FormatDescription;
use binlog::{BinlogPosition, Event, EventType, Gtid, GtidPosition};
use jiff::Timestamp;

use super::filter::{Filter, Kept, TableName};
use super::script::is_filling;
use super::source::{LogSource, malformed};
use super::state::State;
use super::target::{Edge, Target, When};
use super::walk::{Flow, Group, Place, Visitor};
use crate::{Error, ErrorKind, Result};

/// What the data is that the logs are to be applied to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// File and offset, if they are known.
    pub position: Option<BinlogPosition>,
    /// The newest transaction of each domain.
    pub gtid: GtidPosition,
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
    group_bytes: u64,
    group_changes: bool,
    /// The table that the group makes and fills.
    filled: Option<TableName>,
    micros: Option<u32>,
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
            server,
            course: Course { ends: vec![0; source.logs().len()], ..Course::default() },
            begun: false,
            resumed: false,
            applied: State::default(),
            found: false,
            skipped: BTreeSet::new(),
            group_bytes: 0,
            group_changes: false,
            filled: None,
            micros: None,
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
    /// domains out of its position; where the place is the one that it names, they do not matter.
    fn is_anchor(&self, named: bool, state: &State) -> bool {
        if !named {
            return state.position() == self.anchor.gtid;
        }
        let agrees = |gtid: Gtid| state.newest(gtid.domain).is_none_or(|newest| newest == gtid);
        self.anchor.gtid.iter().all(agrees)
    }

    /// Whether the place that the backup names is between these offsets of a log.
    fn is_named(&self, log: usize, offsets: std::ops::RangeInclusive<u64>) -> bool {
        self.anchor.position.as_ref().is_some_and(|position| {
            position.file() == self.name(log) && offsets.contains(&position.offset())
        })
    }

    /// Looks whether the replay begins at a place between groups.
    fn look_for_data(&mut self, place: Place, named: bool, state: &State) {
        if !self.begun && self.is_anchor(named, state) {
            self.begun = true;
            self.course.start = place;
            self.course.start_state = state.clone();
            self.course.cut = place;
            self.applied = state.clone();
            self.look_for_server(place, None);
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

    fn look_for_server(&mut self, place: Place, filled: Option<(Gtid, TableName)>) {
        let is_there = self.server.as_ref().is_none_or(|server| *server == self.applied);
        if !self.resumed && is_there {
            self.resumed = true;
            if self.server.is_some() && place != self.course.start {
                self.course.resume = Some(place);
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
        self.refuse_the_past()?;
        let missing: Vec<String> =
            self.filter.gtids.difference(&self.skipped).map(Gtid::to_string).collect();
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
            torn: self.torn,
            course: self.course,
        })
    }

    /// Whether a position misses only domains that the logs do not have at all; it without them.
    pub(super) fn without_unknown_domains(&self) -> Option<GtidPosition> {
        let known = |gtid: &Gtid| self.seen.newest(gtid.domain).is_some();
        let position: GtidPosition = self.anchor.gtid.iter().filter(known).collect();
        (!self.begun && position != self.anchor.gtid).then_some(position)
    }

    /// A target that the data is behind already.
    fn refuse_the_past(&self) -> Result<()> {
        let is_past = match self.target {
            Target::Time(time) => self.before.is_some_and(|group| {
                When { seconds: group.time, micros: None }.is_late(*time, self.edge)
                    && self.transactions + self.left_out == 0
            }),
            Target::Position { file, offset } => {
                file == self.name(self.course.start.log) && *offset < self.course.start.offset
            }
            Target::Gtid(_) | Target::End => false,
        };
        if !is_past {
            return Ok(());
        }
        let message = format!(
            "{} is before {}, where the data is already",
            self.target,
            self.at(self.course.start)
        );
        Err(Error::new(ErrorKind::Usage, message).advise("restore an earlier backup"))
    }

    /// Why the logs do not begin at the data.
    fn no_start(&self) -> Error {
        let wanted = match self.anchor.gtid.is_empty() {
            true => "the beginning of all".to_owned(),
            false => self.anchor.gtid.to_string(),
        };
        let first = self.source.logs().first().map(|log| State::of(&log.before));
        let first = first.unwrap_or_default();
        let is_beyond = |gtid: Gtid| {
            self.anchor.gtid.get(gtid.domain).is_none_or(|at| at.sequence < gtid.sequence)
        };
        if first.position().iter().any(is_beyond) {
            let message = format!(
                "the logs begin after {first}, and the data is at {wanted}: what is in between is missing"
            );
            return Error::new(ErrorKind::Gap, message)
                .advise("find older logs, or restore a later backup");
        }
        let seen = &self.seen;
        let message =
            format!("the logs, which go from '{first}' to '{seen}', never were at {wanted}");
        Error::new(ErrorKind::NothingMatches, message)
            .advise("give the logs of the server that the backup is of, up to the end")
    }

    /// Why the server cannot be one that the logs are being applied to.
    fn foreign_server(&self) -> Error {
        let server = self.server.as_ref().map(State::to_string).unwrap_or_default();
        let message = format!(
            "the server has logged {server}, which is no state between {} and {}: it has \
             transactions of its own, or of another history",
            self.course.start_state, self.applied
        );
        Error::new(ErrorKind::Usage, message).advise(
            "restore the backup again and let nothing write before the replay; if what the server \
             has logged since is unimportant, RESET MASTER on it",
        )
    }
}

impl Visitor for Planner<'_> {
    fn log(&mut self, log: usize, before: &State) -> Result<Flow> {
        self.between(Place { log, offset: 0 }, before);
        Ok(Flow::On)
    }

    fn format(&mut self, _: &Event<'_>, _: &FormatDescription) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, group: &Group, event: &Event<'_>) -> Result<Flow> {
        self.group_bytes = event.bytes.len() as u64;
        (self.group_changes, self.filled, self.micros) = (false, None, None);
        if !self.begun {
            let from = if self.ended.log == group.place.log { self.ended.offset } else { 0 };
            if self.is_named(group.place.log, from..=group.place.offset) {
                self.look_for_data(group.place, true, &self.seen.clone());
            }
        }
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
        if kind == EventType::TABLE_MAP && is_filling(group) {
            let names = table_map::names(event.body());
            let (_, database, table) = names.map_err(|what| malformed(name, event, what))?;
            self.filled = Some((database.to_vec(), table.to_vec()));
        }
        if matches!(self.target, Target::Time(_))
            && matches!(kind, EventType::QUERY | EventType::QUERY_COMPRESSED)
            && group.has(flag::STANDALONE)
        {
            let query = Query::parse(event.body(), kind);
            let query = query.map_err(|what| malformed(name, event, what))?;
            self.micros = Some(query.session.microseconds).filter(|micros| *micros > 0);
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
        if self.group_changes {
            self.applied.add(group.gtid);
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
