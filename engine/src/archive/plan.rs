//! Which files lead from a place in the log to a later one.
//!
//! A plan goes through one log, and on into the log of another server where that one ends or has a
//! gap: one that has the last transaction of each domain, written at the same time, or begins right
//! behind it. It may come back to a log, further on. Each log that is entered adds something.
//!
//! The end of everything is one only if nothing is left that was written later: what no log leads to is
//! said (`histories`).

mod histories;

use std::collections::BTreeMap;

use binlog::format::FIRST_EVENT;
use binlog::{Gtid, GtidPosition, GtidState};

use super::catalog::{File, follows};
use super::gaps::{Gap, between};
use super::part::Part;
use super::{Archive, Log};
use crate::{Cancel, Error, ErrorKind, Result};
use histories::unreachable;

/// Where to begin.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// What is there already: the newest transaction of each domain.
    pub position: GtidPosition,
    /// File and offset that the position was read at, which tell histories apart.
    pub place: Option<(String, u64)>,
    /// `server_id` of that server.
    pub server: Option<u32>,
    /// When that was, in seconds since 1970: a file of that name that was begun later is another one.
    pub read: Option<u32>,
    /// A time before that, from which on the server had begun no file behind that one.
    pub began: Option<u32>,
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

/// Leaves out what was there when a log was entered: of each domain the transaction that was the last one,
/// and whether any was left out because that is yet to come.
#[derive(Clone, Debug, Default)]
pub struct Skipper(BTreeMap<u32, (Gtid, bool)>);

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
        Self(left_out.map(|gtid| (gtid.domain, (gtid, false))).collect())
    }

    /// Whether there is nothing more to leave out.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// At the end of a log: the transaction that all others were left out for, and that did not come.
    pub fn awaited(&self) -> Option<Gtid> {
        self.0.values().find(|(_, any)| *any).map(|(gtid, _)| *gtid)
    }

    /// Whether this transaction, the next one of the log, is to be left out.
    pub fn leaves_out(&mut self, gtid: Gtid) -> bool {
        let Some((there, any)) = self.0.get_mut(&gtid.domain) else { return false };
        let there = *there;
        if gtid.server != there.server || gtid.sequence < there.sequence {
            *any = true;
            return true;
        }
        self.0.remove(&gtid.domain);
        gtid.sequence == there.sequence
    }
}

/// A place in a log: a file, and a part of it.
type Place = (usize, usize);

/// A plan that is being made.
#[derive(Default)]
struct Course {
    plan: Plan,
    /// Logs that it goes through.
    trail: Vec<usize>,
    /// What is logged behind it.
    state: GtidState,
    /// Where logs that it goes through have a gap.
    gaps: Vec<(usize, Gap)>,
}

impl Course {
    /// Logs that it goes through.
    fn logs<'a>(&self, archive: &'a Archive<'_>) -> impl Iterator<Item = &'a Log> {
        self.trail.iter().filter_map(|index| archive.logs.get(*index))
    }

    /// How many transactions are on the way, and in what is passed over at its beginning.
    fn transactions(&self) -> u64 {
        self.plan.steps.iter().map(|step| step.file.transactions()).sum()
    }

    /// The parts that it reads.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.plan
            .steps
            .iter()
            .flat_map(|step| step.file.parts.iter().filter(|part| part.head.about.end <= step.end))
    }

    /// When the last of its transactions was written.
    fn newest(&self) -> u32 {
        self.parts().filter_map(|part| part.head.times).map(|times| times.1).max().unwrap_or(0)
    }

    /// Goes on to what a log has up to its end, or up to a gap; `false` if that adds nothing.
    fn goes_on_to(&mut self, after: &GtidState) -> bool {
        let knows = |domain: u32| after.entries().iter().any(|gtid| gtid.domain == domain);
        let goes_back = |gtid: Gtid| knows(gtid.domain) && !after.covers(gtid);
        if self.state.includes(after) || self.state.position().iter().any(goes_back) {
            return false;
        }
        // Of domains and servers that this log does not know, what is known stays.
        after.entries().iter().for_each(|gtid| self.state.record(*gtid));
        true
    }
}

impl Archive<'_> {
    /// The files from a place on.
    ///
    /// # Errors
    /// [`ErrorKind::Gap`] if the archive begins after that place, or ends before it; or if there is
    /// something that was written later, and nothing leads to it.
    pub fn plan(&self, start: &Start, until: &Until, cancel: &Cancel) -> Result<Plan> {
        let mut course = self.best(start, until, cancel)?;
        if let Until::Gtid(gtid) = until
            && course.plan.reaches
        {
            // A later number of that server does not make it one that there is.
            course.plan.reaches = self.time_on(&course.trail, *gtid, cancel)?.is_some();
        }
        match self.beyond(&course, start, until, cancel)? {
            Some((log, gtid)) => Err(unreachable(&course, log, gtid)),
            None => Ok(course.plan),
        }
    }

    /// The names of the files that the logs lead through from a place on, as far as they lead: there need be
    /// no end of everything for a target before it.
    pub fn names_from(&self, start: &Start, cancel: &Cancel) -> Result<Vec<String>> {
        let course = self.best(start, &Until::End, cancel)?;
        Ok(course.plan.steps.into_iter().map(|step| step.file.name).collect())
    }

    /// The best way from a place on.
    fn best(&self, start: &Start, until: &Until, cancel: &Cancel) -> Result<Course> {
        let mut ways: Vec<(bool, Course)> = Vec::new();
        let mut best = 0;
        let read_at = self.read_at(start);
        for (index, log) in self.logs.iter().enumerate() {
            let Some(place) = entry(log, &start.position) else { continue };
            if self.contradicts(log, start, cancel)? {
                continue;
            }
            if let Some(there) = read_at.and_then(|there| self.logs.get(there))
                && self.is_another_history(there, log, &start.position, cancel)?
            {
                continue;
            }
            // Where the log is that the position was read at, its place counts, whatever the position lacks.
            if read_at != Some(index) && !self.passes(log, place, &start.position, cancel)? {
                continue;
            }
            let course = self.walk(index, place, start, until, cancel)?;
            let is_chosen = |log: &Log| self.history.as_deref() == Some(log.epoch.as_str());
            if self.history.is_some() && !course.logs(self).any(is_chosen) {
                continue;
            }
            let there = read_at == Some(index);
            let is_better = match ways.get(best) {
                None => true,
                Some((other_there, other)) => {
                    self.is_better((&course, there), (other, *other_there), until, cancel)?
                }
            };
            if is_better {
                best = ways.len();
            }
            ways.push((there, course));
        }
        if ways.is_empty() {
            return Err(self.nowhere(start));
        }
        let (_, course) = ways.swap_remove(best);
        for (_, other) in &ways {
            self.refuse_two_histories(&course, other, until, cancel)?;
        }
        Ok(course)
    }

    /// Whether a log that is entered at a place comes by this position: it is right behind it, or has its
    /// transactions, of the domains that it knows. One that says nothing of what was before it, as that of
    /// a replica that was made from a backup, may begin later.
    fn passes(
        &self,
        log: &Log,
        place: Place,
        position: &GtidPosition,
        cancel: &Cancel,
    ) -> Result<bool> {
        let before = part(log, place).map(|part| part.head.about.before.position());
        let before = before.unwrap_or_default();
        let last = log.files.last().and_then(File::after);
        for gtid in position.iter() {
            let is_known =
                last.is_some_and(|last| last.entries().iter().any(|it| it.domain == gtid.domain));
            if is_known
                && !before.iter().any(|before| before == gtid)
                && self.time_of(log, gtid, cancel)?.is_none()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The log that a position was read at. Of several files of that name it is the last one that had been
    /// begun.
    fn read_at(&self, start: &Start) -> Option<usize> {
        let (name, offset) = start.place.as_ref()?;
        let of_server = |log: &Log| start.server.is_none_or(|server| server == log.server);
        let logs = self.logs.iter().enumerate().filter(|(_, log)| of_server(log));
        let files = logs.flat_map(|(index, log)| log.files.iter().map(move |file| (index, file)));
        let is_file = |file: &File| {
            file.name == *name
                && *offset <= file.end()
                && start.read.is_none_or(|read| file.created() <= Some(read))
        };
        let found = files.filter(|(_, file)| is_file(file));
        found.max_by_key(|(_, file)| file.created()).map(|(index, _)| index)
    }

    /// Whether of two ways the first one is to be taken: one that reaches the target; that has all of the
    /// other and more; that goes through the log that the start was read at; that ends later.
    fn is_better(
        &self,
        (one, one_there): (&Course, bool),
        (other, other_there): (&Course, bool),
        until: &Until,
        cancel: &Cancel,
    ) -> Result<bool> {
        if one.plan.reaches != other.plan.reaches {
            return Ok(one.plan.reaches);
        }
        if *until == Until::End || !one.plan.reaches {
            let ahead = self.is_ahead(one, other, cancel)?;
            if ahead != self.is_ahead(other, one, cancel)? {
                return Ok(ahead);
            }
        }
        // Of two with the same end one may begin later: that of a server that was made from a backup.
        let worth = |course: &Course, there| (there, course.newest(), course.transactions());
        Ok(worth(one, one_there) >= worth(other, other_there))
    }

    /// Whether a way has all of another one, of the same history, and more.
    fn is_ahead(&self, one: &Course, other: &Course, cancel: &Cancel) -> Result<bool> {
        if other.state.includes(&one.state) {
            return Ok(false);
        }
        for gtid in other.state.position().iter() {
            if !one.state.covers(gtid)
                || self.time_on(&one.trail, gtid, cancel)?
                    != self.time_on(&other.trail, gtid, cancel)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn nowhere(&self, start: &Start) -> Error {
        let position = &start.position;
        if let Some(epoch) = &self.history {
            let message = format!("the log of epoch {epoch} does not lead on from '{position}'");
            return Error::new(ErrorKind::Gap, message).advise(
                "use a backup of that history; the data of an earlier one leads there only if that log \
                 has all that follows",
            );
        }
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
    ) -> Result<Course> {
        let mut course = Course::default();
        course.plan.reaches = *until == Until::End;
        // A log may be entered again, further on.
        let mut visited = vec![(first, place)];
        let mut next = Some((first, place));
        while let Some((index, place)) = next {
            let Some(log) = self.logs.get(index) else { break };
            let steps = course.plan.steps.len();
            let is_first = course.trail.is_empty();
            let mut entered = Some(match is_first {
                true => start.position.clone(),
                false => course.state.position(),
            });
            let way = follow(log, place, &mut entered, until, &mut course.plan);
            let after = course.plan.steps.last().map(|step| step.after.clone());
            let after = after.unwrap_or_default();
            if course.goes_on_to(&after) || is_first || way == Some(Way::Target) {
                course.trail.push(index);
                match way {
                    Some(Way::Target) => {
                        course.plan.reaches = true;
                        return Ok(course);
                    }
                    Some(Way::Gap(gap)) => course.gaps.push((index, *gap)),
                    None => {}
                }
            } else {
                course.plan.steps.truncate(steps);
            }
            next = self.other(&course, &visited, cancel)?;
            visited.extend(next);
        }
        // A gap that others fill is none.
        let is_open = |(index, _): &(usize, Gap)| {
            let last = self.logs.get(*index).and_then(|log| log.files.last()).and_then(File::after);
            last.is_some_and(|last| !course.state.includes(last))
        };
        if let Some(at) = course.gaps.iter().rposition(is_open) {
            course.plan.gap = Some(course.gaps.swap_remove(at).1);
            course.plan.reaches = false;
        }
        Ok(course)
    }

    /// A log that goes on from where a way has come to, and where to enter it.
    fn other(
        &self,
        course: &Course,
        visited: &[(usize, Place)],
        cancel: &Cancel,
    ) -> Result<Option<(usize, Place)>> {
        let position = course.state.position();
        for (index, log) in self.logs.iter().enumerate().rev() {
            let last = log.files.last().and_then(File::after);
            if last.is_none_or(|last| course.state.includes(last)) {
                continue;
            }
            let Some(place) = entry(log, &position) else { continue };
            if visited.contains(&(index, place)) {
                continue;
            }
            let before = part(log, place).map(|part| &part.head.about.before);
            let behind = before.is_some_and(|before| {
                !before.entries().is_empty() && before.position() == position
            });
            let mut same = true;
            for gtid in position.iter().filter(|_| !behind) {
                let here = self.time_on(&course.trail, gtid, cancel)?;
                let there = self.time_of(log, gtid, cancel)?;
                same &= here.is_some() && here == there;
            }
            if same {
                return Ok(Some((index, place)));
            }
        }
        Ok(None)
    }

    /// Whether a plan comes by a transaction.
    pub fn comes_by(&self, plan: &Plan, gtid: Gtid, cancel: &Cancel) -> Result<bool> {
        for step in &plan.steps {
            for part in step.file.parts.iter().filter(|part| part.head.about.begin < step.end) {
                let about = &part.head.about;
                if about.after.covers(gtid) && !about.before.covers(gtid) {
                    let index = part.index(self.repository, cancel)?;
                    if index.transactions.iter().any(|it| it.gtid == gtid) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// When a transaction was written, as the last one of these logs says that has it.
    fn time_on(&self, trail: &[usize], gtid: Gtid, cancel: &Cancel) -> Result<Option<u32>> {
        for log in trail.iter().rev().filter_map(|index| self.logs.get(*index)) {
            if let Some(time) = self.time_of(log, gtid, cancel)? {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }

    /// When a transaction was written, as a log says.
    fn time_of(&self, log: &Log, gtid: Gtid, cancel: &Cancel) -> Result<Option<u32>> {
        for part in log.parts() {
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
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Target,
    Gap(Box<Gap>),
}

/// Adds the parts of a log from a place on; why they end before the log does.
fn follow(
    log: &Log,
    place: Place,
    entered: &mut Option<GtidPosition>,
    until: &Until,
    plan: &mut Plan,
) -> Option<Way> {
    let mut last: Option<(&str, u64, &GtidState)> = None;
    for (number, file) in log.files.iter().enumerate().skip(place.0) {
        let first = if number == place.0 { place.1 } else { 0 };
        let mut fresh = true;
        for part in file.parts.iter().skip(first) {
            let about = &part.head.about;
            if let Some((name, end, state)) = last {
                let joins = if fresh { about.begin == 0 } else { about.begin == end };
                if !joins || !follows(state, &about.before) {
                    let at = format!("{} at {}", file.name, about.begin);
                    return Some(Way::Gap(Box::new(Gap {
                        server: log.server,
                        epoch: log.epoch.to_string(),
                        behind: Some(format!("{name} to {end}")),
                        before: if about.begin == 0 { file.name.clone() } else { at },
                        missing: between(state, &about.before),
                    })));
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
            last = Some((&file.name, about.end, &about.after));
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

fn part(log: &Log, place: Place) -> Option<&Part> {
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

#[cfg(test)]
mod tests;
