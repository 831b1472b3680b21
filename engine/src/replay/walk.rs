//! Through logs, group by group.
//!
//! A group is what one GTID stands for: a transaction, or a statement that is one by itself. Groups
//! never span logs. Of a log whose server crashed the groups count that are whole; that the next log
//! begins with what this one ends with is verified, so nothing is lost in between unnoticed; and what is
//! left out at its end is told.

use binlog::event::gtid::flag;
use binlog::event::{GtidEvent, GtidList, Incident, Query};
use binlog::format::FormatDescription;
use binlog::header::flag as header_flag;
use binlog::{Event, EventType, Fault, Gtid, GtidState, ReadOptions, Reader};

use super::source::{LogSource, malformed};
use super::state::State;
use crate::archive::plan::Skipper;
use crate::archive::unreadable;
use crate::{Cancel, Error, ErrorKind, Result};

/// A place in a sequence of logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// Which log.
    pub log: usize,
    /// Offset in it.
    pub offset: u64,
}

/// The beginning of a group.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its number.
    pub gtid: Gtid,
    /// Flags of its first event.
    pub flags: u8,
    /// More flags of it.
    pub extra: u8,
    /// Seconds since 1970 at which the statement began that ended it.
    pub time: u32,
    /// Where it begins.
    pub place: Place,
    /// Whether replicas may be told to skip it.
    pub skips_replication: bool,
}

impl Group {
    /// Whether one of these flags is set.
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Whether one of these more flags is set.
    pub const fn has_extra(&self, flags: u8) -> bool {
        self.extra & flags != 0
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With what follows.
    On,
    /// Not at all.
    Stop,
}

/// Who sees what is in the logs.
pub trait Visitor {
    /// A log begins, with what had been logged before it.
    fn log(&mut self, log: usize, before: &State) -> Result<Flow>;

    /// What the events of the log look like.
    fn format(&mut self, event: &Event<'_>, format: &FormatDescription) -> Result<()>;

    /// A group begins.
    fn begin(&mut self, group: &Group, event: &Event<'_>) -> Result<Flow>;

    /// An event of the group; also the one that ends it.
    fn event(&mut self, group: &Group, event: &Event<'_>) -> Result<()>;

    /// The group has ended before `end`; `after` is what is logged with it.
    fn end(&mut self, group: &Group, end: Place, after: &State) -> Result<Flow>;

    /// A log has ended.
    fn log_end(&mut self, _end: Place, _after: &State) -> Result<Flow> {
        Ok(Flow::On)
    }

    /// Behind this place a log that was not closed has so many bytes that are no whole group.
    fn torn(&mut self, _place: Place, _bytes: u64) {}

    /// The server says that it lost events.
    fn incident(&mut self, place: Place, words: String) -> Result<()>;
}

/// Shows a visitor the logs from `first` on, before which there was `state`: of a log that is entered it says
/// what is passed over. With `ends`, only those that have one, up to that offset.
pub fn walk(
    source: &dyn LogSource,
    read: &ReadOptions,
    (first, mut state): (usize, Option<State>),
    ends: Option<&[u64]>,
    cancel: &Cancel,
    visitor: &mut dyn Visitor,
) -> Result<()> {
    for (index, log) in source.logs().iter().enumerate().skip(first) {
        if ends.is_some_and(|ends| ends.len() <= index) {
            return Ok(());
        }
        let mut before = State::of(&log.before);
        let mut passes = None;
        match &state {
            Some(state) if log.enters => {
                let list = GtidState::new(log.before.clone()).unwrap_or_default();
                passes = Some(Skipper::new(&state.position(), &list));
                before = state.clone();
            }
            Some(state) if !state.is_followed_by(&before) => {
                return Err(gap(source, index, state, &before));
            }
            _ => {}
        }
        if visitor.log(index, &before)? == Flow::Stop {
            return Ok(());
        }
        let input = source.open(index)?;
        let reader = Reader::new(input, log.name.clone(), read.clone()).map_err(unreadable)?;
        let end = ends.and_then(|ends| ends.get(index)).copied();
        let mut walker =
            Walker { index, name: &log.name, state: before, end, passes, passing: false, visitor };
        match walker.log(reader, cancel)? {
            Flow::Stop => return Ok(()),
            Flow::On => state = Some(walker.state),
        }
    }
    Ok(())
}

struct Walker<'a> {
    index: usize,
    name: &'a str,
    state: State,
    end: Option<u64>,
    /// What of the log was there already, where it is entered.
    passes: Option<Skipper>,
    /// Whether the open group is passed over.
    passing: bool,
    visitor: &'a mut dyn Visitor,
}

impl Walker<'_> {
    /// Shows one log.
    fn log<R: std::io::Read>(&mut self, mut reader: Reader<R>, cancel: &Cancel) -> Result<Flow> {
        let mut open: Option<Group> = None;
        // Behind the last whole group, or what is between groups.
        let mut whole = reader.offset();
        let mut events = 0_u32;
        loop {
            events = events.wrapping_add(1);
            if events.is_multiple_of(1024) {
                cancel.check()?;
            }
            if self.end.is_some_and(|end| reader.offset() >= end) {
                break;
            }
            let Some(event) = reader.next_whole().map_err(unreadable)? else { break };
            let end = event.end();
            match &open {
                None => {
                    open = self.between(&event)?;
                    if let Some(group) = &open {
                        let passes = self.passes.as_mut();
                        self.passing = passes.is_some_and(|there| there.leaves_out(group.gtid));
                        if !self.passing && self.visitor.begin(group, &event)? == Flow::Stop {
                            return Ok(Flow::Stop);
                        }
                    } else {
                        whole = end;
                    }
                }
                Some(group) => {
                    let group = *group;
                    let ends = self.ends(&group, &event)?;
                    if self.passing {
                        if ends {
                            (open, whole) = (None, end);
                        }
                        continue;
                    }
                    self.visitor.event(&group, &event)?;
                    if ends {
                        open = None;
                        whole = end;
                        self.state.add(group.gtid);
                        let end = Place { log: self.index, offset: end };
                        if self.visitor.end(&group, end, &self.state)? == Flow::Stop {
                            return Ok(Flow::Stop);
                        }
                    }
                }
            }
        }
        if let Some(group) = open
            && !reader.is_in_use()
        {
            let message = format!("{} ends within {}", self.name, group.gtid);
            return Err(Error::new(ErrorKind::Damage, message)
                .advise("get a whole copy of this log, or of all up to it"));
        }
        let rest = reader.offset() - whole + reader.torn().map_or(0, |torn| torn.bytes);
        if self.end.is_none() && rest > 0 {
            self.visitor.torn(Place { log: self.index, offset: whole }, rest);
        }
        self.visitor.log_end(Place { log: self.index, offset: whole }, &self.state)
    }

    /// Takes an event that is in no group; a group may begin with it.
    fn between(&mut self, event: &Event<'_>) -> Result<Option<Group>> {
        let place = Place { log: self.index, offset: event.offset };
        let broken = |what| malformed(self.name, event, what);
        match event.header.kind {
            EventType::FORMAT_DESCRIPTION => {
                let format = FormatDescription::parse(event.bytes).map_err(broken)?;
                self.visitor.format(event, &format)?;
            }
            EventType::GTID_LIST => {
                let list = GtidList::parse(event.body()).map_err(broken)?;
                let list = State::of(&list.entries);
                if list != self.state && self.passes.is_none() {
                    let message = format!(
                        "{} at {}: a list of transactions in the middle differs from what the log \
                         has: {list} instead of {}",
                        self.name, event.offset, self.state
                    );
                    return Err(Error::new(ErrorKind::Gap, message));
                }
            }
            EventType::GTID => {
                let server = event.header.server_id;
                let gtid = GtidEvent::parse(event.body(), server).map_err(broken)?;
                let group = Group {
                    gtid: gtid.gtid,
                    flags: gtid.flags,
                    extra: gtid.extra_flags,
                    time: event.header.timestamp,
                    place,
                    skips_replication: event.header.has(header_flag::SKIP_REPLICATION),
                };
                return Ok(Some(group));
            }
            EventType::INCIDENT => {
                let incident = Incident::parse(event.body()).map_err(broken)?;
                let words = String::from_utf8_lossy(incident.message).into_owned();
                self.visitor.incident(place, format!("{} {words}", incident.name()))?;
            }
            EventType::ROTATE
            | EventType::STOP
            | EventType::BINLOG_CHECKPOINT
            | EventType::START_ENCRYPTION
            | EventType::HEARTBEAT => {}
            _ if event.header.has(header_flag::IGNORABLE) => {}
            kind if kind.name().is_none() => return Err(self.unknown(event)),
            _ => {
                let kind = event.header.kind;
                let message = format!(
                    "{} at {}: a {kind} event that belongs to no transaction",
                    self.name, event.offset
                );
                return Err(Error::new(ErrorKind::Damage, message));
            }
        }
        Ok(None)
    }

    /// Whether a group ends with an event.
    fn ends(&self, group: &Group, event: &Event<'_>) -> Result<bool> {
        let kind = event.header.kind;
        match kind {
            EventType::FORMAT_DESCRIPTION
            | EventType::ROTATE
            | EventType::STOP
            | EventType::INCIDENT
            | EventType::GTID_LIST
            | EventType::BINLOG_CHECKPOINT
            | EventType::GTID => {
                let message = format!(
                    "{} at {}: a {kind} event within {}, which has not ended",
                    self.name, event.offset, group.gtid
                );
                Err(Error::new(ErrorKind::Damage, message))
            }
            EventType::INTVAR
            | EventType::RAND
            | EventType::USER_VAR
            | EventType::TABLE_MAP
            | EventType::ANNOTATE_ROWS
            | EventType::BEGIN_LOAD_QUERY
            | EventType::APPEND_BLOCK
            | EventType::DELETE_FILE => Ok(false),
            EventType::XID | EventType::XA_PREPARE => Ok(true),
            _ if group.has(flag::STANDALONE) => Ok(true),
            EventType::QUERY => {
                let query = Query::parse(event.body(), kind);
                let query = query.map_err(|what| malformed(self.name, event, what))?;
                Ok(matches!(&*query.text, b"COMMIT" | b"ROLLBACK"))
            }
            _ if kind.name().is_none() && !event.header.has(header_flag::IGNORABLE) => {
                Err(self.unknown(event))
            }
            _ => Ok(false),
        }
    }

    fn unknown(&self, event: &Event<'_>) -> Error {
        let fault = Fault::Unknown(event.header.kind);
        let error = binlog::Error { file: self.name.to_owned(), position: event.offset, fault };
        unreadable(error)
    }
}

/// Logs that do not follow one another.
fn gap(source: &dyn LogSource, index: usize, state: &State, before: &State) -> Error {
    let logs = source.logs();
    let name = |index: usize| logs.get(index).map_or("", |log| &*log.name);
    let list = |gtids: Vec<Gtid>| {
        let gtids: Vec<String> = gtids.iter().map(Gtid::to_string).collect();
        if gtids.is_empty() { "nothing more".to_owned() } else { gtids.join(",") }
    };
    let message = format!(
        "{} does not follow {}: it begins after {}, and the log before it ends with {}",
        name(index),
        name(index.saturating_sub(1)),
        list(before.beyond(state)),
        list(state.beyond(before))
    );
    Error::new(ErrorKind::Gap, message)
        .advise("find the logs in between; logs of several servers, or copies, cannot be mixed")
}
