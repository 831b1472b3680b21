//! Which files lead from a place in the log to a later one.
//!
//! A plan goes through one log, and on into the log of another server where that one ends or has a
//! gap: one that has the last transaction of each domain, written at the same time, or begins right
//! behind it.

use std::collections::BTreeMap;

use binlog::format::FIRST_EVENT;
use binlog::{Gtid, GtidPosition, GtidState};

use super::catalog::{File, follows};
use super::gaps::Gap;
use super::{Archive, Log};
use crate::{Cancel, Error, ErrorKind, Result};

/// Where to begin.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// What is there already: the newest transaction of each domain.
    pub position: GtidPosition,
    /// File and offset that the position was read at, which tell histories apart.
    pub place: Option<(String, u64)>,
    /// `server_id` of that server.
    pub server: Option<u32>,
}

/// Where to end. Who reads decides exactly; files that lie behind it are not in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// At the end of what there is.
    End,
    /// At the first transaction of this second or later.
    Time(u32),
    /// At this transaction.
    Gtid(Gtid),
    /// At an offset of a file.
    Position(String, u64),
}

/// Bytes of a file that are to be read.
#[derive(Clone, Debug)]
pub struct Step {
    /// The file.
    pub file: File,
    /// Offset of the first event, between two transactions.
    pub begin: u64,
    /// Behind the last byte.
    pub end: u64,
    /// What was logged before.
    pub before: GtidState,
    /// What was logged behind it.
    pub after: GtidState,
    /// Where a log is entered: what is to be left out of it; see [`Skipper`].
    pub entered: Option<GtidPosition>,
    /// Bytes in the store.
    pub stored: u64,
}

/// What is to be read.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Why the plan ends before its target.
    pub gap: Option<Gap>,
    /// Whether the end of what was asked for is in it. Always, where the end of everything is.
    pub reaches: bool,
}

/// Leaves out what was there when a log was entered.
#[derive(Clone, Debug, Default)]
pub struct Skipper(BTreeMap<u32, Gtid>);

impl Skipper {
    /// Of a step that enters a log; `None` if what was left out before goes on to be.
    pub fn of(step: &Step) -> Option<Self> {
        step.entered.as_ref().map(|position| Self::new(position, &step.before))
    }

    /// Of what is there when a log is entered, at a place before which this was logged.
    pub fn new(position: &GtidPosition, before: &GtidState) -> Self {
        let before = before.position();
        // Of a domain whose newest transaction is there already nothing is to be left out.
        let left_out = position.iter().filter(|gtid| !before.iter().any(|it| it == *gtid));
        Self(left_out.map(|gtid| (gtid.domain, gtid)).collect())
    }

    /// Whether there is nothing more to leave out.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this transaction, the next one of the log, is to be left out.
    pub fn leaves_out(&mut self, gtid: Gtid) -> bool {
        let Some(there) = self.0.get(&gtid.domain).copied() else { return false };
        if gtid.server != there.server || gtid.sequence < there.sequence {
            return true;
        }
        self.0.remove(&gtid.domain);
        gtid.sequence == there.sequence
    }
}

/// A place in a log: a file, and a part of it.
type Place = (usize, usize);

impl Archive<'_> {
    /// The files from a place on.
    ///
    /// # Errors
    /// [`ErrorKind::Gap`] if the archive begins after that place, or ends before it.
    pub fn plan(&self, start: &Start, until: &Until, cancel: &Cancel) -> Result<Plan> {
        let mut best: Option<((bool, bool, u32), Plan)> = None;
        for (index, log) in self.logs.iter().enumerate() {
            let Some(place) = entry(log, &start.position) else { continue };
            let plan = self.walk(index, place, start, until, cancel)?;
            let times = plan.steps.iter().filter_map(|step| step.file.times());
            let rank =
                (plan.reaches, is_there(log, start), times.map(|it| it.1).max().unwrap_or(0));
            if best.as_ref().is_none_or(|(other, _)| *other <= rank) {
                best = Some((rank, plan));
            }
        }
        best.map(|(_, plan)| plan).ok_or_else(|| self.nowhere(start))
    }

    fn nowhere(&self, start: &Start) -> Error {
        let position = &start.position;
        let mut ends: Vec<String> = Vec::new();
        for log in &self.logs {
            let first = log.files.first().and_then(File::before);
            let last = log.files.last().and_then(File::after);
            let words = |state: Option<&GtidState>| match state {
                Some(state) if !state.entries().is_empty() => state.to_string(),
                _ => "the beginning".to_owned(),
            };
            ends.push(format!("server {} from {} to {}", log.server, words(first), words(last)));
        }
        let there = match ends.is_empty() {
            true => "nothing".to_owned(),
            false => ends.join("; "),
        };
        Error::new(
            ErrorKind::Gap,
            format!("the archive does not have what follows '{position}': it has {there}"),
        )
        .advise("archive what is missing with haulout binlog push, or use another backup")
    }

    /// Follows logs from a place in one of them.
    fn walk(
        &self,
        first: usize,
        place: Place,
        start: &Start,
        until: &Until,
        cancel: &Cancel,
    ) -> Result<Plan> {
        let mut plan = Plan { reaches: *until == Until::End, ..Plan::default() };
        let mut gaps = Vec::new();
        let mut visited = vec![first];
        let (mut index, mut place) = (first, place);
        let mut entered = Some(start.position.clone());
        loop {
            let Some(log) = self.logs.get(index) else { return Ok(plan) };
            let gap = follow(log, place, &mut entered, until, &mut plan);
            if gap == Some(Way::Target) {
                plan.reaches = true;
                return Ok(plan);
            }
            let Some(state) = plan.steps.last().map(|step| step.after.clone()) else {
                return Ok(plan);
            };
            match self.other(&state, log, &visited, cancel)? {
                Some((next, at)) => {
                    visited.push(next);
                    entered = Some(state.position());
                    (index, place) = (next, at);
                }
                None => {
                    if gap == Some(Way::Gap) {
                        gaps.extend(self.gaps());
                        let step = plan.steps.last().map(|step| step.file.name.as_str());
                        plan.gap = gaps.into_iter().find(|gap| {
                            let behind = gap.behind.as_deref().unwrap_or_default();
                            gap.epoch == log.epoch.as_str()
                                && step.is_some_and(|name| behind.starts_with(name))
                        });
                        plan.reaches = false;
                    }
                    return Ok(plan);
                }
            }
        }
    }

    /// A log that goes on from this state, and where to enter it.
    fn other(
        &self,
        state: &GtidState,
        here: &Log,
        visited: &[usize],
        cancel: &Cancel,
    ) -> Result<Option<(usize, Place)>> {
        let position = state.position();
        for (index, log) in self.logs.iter().enumerate().rev() {
            let last = log.files.last().and_then(File::after);
            if visited.contains(&index) || last.is_none_or(|last| state.includes(last)) {
                continue;
            }
            let Some(place) = entry(log, &position) else { continue };
            let before = part(log, place).map(|part| &part.head.about.before);
            let behind = before.is_some_and(|before| {
                !before.entries().is_empty() && before.position() == position
            });
            let mut same = true;
            for gtid in position.iter().filter(|_| !behind) {
                let here = self.time_of(here, gtid, cancel)?;
                let there = self.time_of(log, gtid, cancel)?;
                same &= here.is_some() && here == there;
            }
            if same {
                return Ok(Some((index, place)));
            }
        }
        Ok(None)
    }

    /// When a transaction was written, as a log says.
    fn time_of(&self, log: &Log, gtid: Gtid, cancel: &Cancel) -> Result<Option<u32>> {
        for part in log.files.iter().flat_map(|file| &file.parts) {
            let about = &part.head.about;
            if about.after.covers(gtid) && !about.before.covers(gtid) {
                let index = part.index(self.repository, cancel)?;
                let found = index.transactions.iter().find(|it| it.gtid == gtid);
                return Ok(found.map(|transaction| transaction.time));
            }
        }
        Ok(None)
    }
}

/// Where a log stops being followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Target,
    Gap,
}

/// Adds the parts of a log from a place on; why they end before the log does.
fn follow(
    log: &Log,
    place: Place,
    entered: &mut Option<GtidPosition>,
    until: &Until,
    plan: &mut Plan,
) -> Option<Way> {
    let mut last: Option<(u64, GtidState)> = None;
    for (number, file) in log.files.iter().enumerate().skip(place.0) {
        let first = if number == place.0 { place.1 } else { 0 };
        let mut fresh = true;
        for part in file.parts.iter().skip(first) {
            let about = &part.head.about;
            if let Some((end, state)) = &last {
                let joins = if fresh { about.begin == 0 } else { about.begin == *end };
                if !joins || !follows(state, &about.before) {
                    return Some(Way::Gap);
                }
            }
            match plan.steps.last_mut() {
                Some(step) if !fresh => {
                    step.end = about.end;
                    step.after = about.after.clone();
                    step.stored += part.stored;
                }
                _ => plan.steps.push(Step {
                    file: file.clone(),
                    begin: about.begin.max(FIRST_EVENT),
                    end: about.end,
                    before: about.before.clone(),
                    after: about.after.clone(),
                    entered: entered.take(),
                    stored: part.stored,
                }),
            }
            fresh = false;
            last = Some((about.end, about.after.clone()));
            let reached = match until {
                Until::End => false,
                Until::Time(time) => part.head.times.is_some_and(|times| times.1 >= *time),
                Until::Gtid(gtid) => about.after.covers(*gtid),
                Until::Position(name, offset) => file.name == *name && *offset <= about.end,
            };
            // Parts may end within a transaction; the next one has its end.
            if reached && about.whole {
                return Some(Way::Target);
            }
        }
    }
    None
}

fn part(log: &Log, place: Place) -> Option<&super::part::Part> {
    log.files.get(place.0)?.parts.get(place.1)
}

/// The last part of a log before which nothing was logged that is not in `position`, if the log has
/// all of `position`.
pub(super) fn entry(log: &Log, position: &GtidPosition) -> Option<Place> {
    let last = log.files.last().and_then(File::after)?;
    let knows = |domain: u32| last.entries().iter().any(|gtid| gtid.domain == domain);
    if position.iter().any(|gtid| knows(gtid.domain) && !last.covers(gtid)) {
        return None;
    }
    let mut found = None;
    let mut between = true;
    for (number, file) in log.files.iter().enumerate() {
        for (index, part) in file.parts.iter().enumerate() {
            let about = &part.head.about;
            if between && begins_by(&about.before, position) {
                found = Some((number, index));
            }
            between = about.whole;
        }
    }
    found
}

/// Whether nothing was logged before that a server at `position` does not have.
fn begins_by(before: &GtidState, position: &GtidPosition) -> bool {
    let newest = before.position();
    before.entries().iter().all(|gtid| {
        let there = position.iter().find(|there| there.domain == gtid.domain);
        there.is_some_and(|there| {
            let same = there.server == gtid.server;
            let is_newest = newest.iter().any(|newest| newest == *gtid);
            !(same && there.sequence < gtid.sequence)
                && (!same || there.sequence > gtid.sequence || is_newest)
        })
    })
}

/// Whether this is the log that a position was read at.
fn is_there(log: &Log, start: &Start) -> bool {
    start.server.is_none_or(|server| server == log.server)
        && start.place.as_ref().is_some_and(|(name, offset)| {
            log.files.iter().any(|file| file.name == *name && *offset <= file.end())
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_log_is_entered_where_nothing_is_left_out() {
        let begins = |before: &str, position: &str| {
            begins_by(&before.parse().unwrap(), &position.parse().unwrap())
        };
        assert!(begins("", "") && begins("", "0-1-5"));
        assert!(begins("0-1-5", "0-1-5") && begins("0-1-5", "0-1-7") && begins("0-1-5", "0-2-9"));
        assert!(!begins("0-1-5", "") && !begins("0-1-5", "0-1-4") && !begins("0-1-5", "1-1-9"));
        // 0-1-5 was not the last one of its domain.
        assert!(!begins("0-1-5,0-2-6", "0-1-5"));
        assert!(begins("0-2-6,0-1-5", "0-1-5"));
    }

    #[test]
    fn what_was_there_is_left_out() {
        let mut skipper =
            Skipper::new(&"0-1-5,2-1-1,3-1-4".parse().unwrap(), &"3-1-4,0-1-1".parse().unwrap());
        let mut leaves = |gtid: &str| skipper.leaves_out(gtid.parse().unwrap());
        assert!(leaves("0-1-4") && leaves("0-2-5") && leaves("0-1-5"));
        assert!(!leaves("0-1-6") && !leaves("0-2-4") && !leaves("1-1-1"));
        // A hole: the position itself is not in the log.
        assert!(!leaves("2-1-2"));
        // The log was entered right behind what was there.
        assert!(!leaves("3-2-5"));
    }
}
