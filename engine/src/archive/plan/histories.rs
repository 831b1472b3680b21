//! Where several histories lead on from a backup, as after a recovery to an earlier time: which of them a
//! target is in, and what is left behind the end of one.
//!
//! The same numbers do not make the same transactions: a server that was restored and recovered to before
//! a transaction goes on with the number that this one had. What tells them apart is their times.

use std::collections::{BTreeMap, BTreeSet};

use binlog::{Gtid, GtidPosition};

use super::{Archive, Course, Start, Until};
use crate::archive::layout::number_of;
use crate::archive::{File, Log};
use crate::{Cancel, Error, ErrorKind, Result};

/// Seconds by which clocks of hosts may differ.
const CLOCKS_DIFFER: u32 = 300;

/// A transaction that two histories have otherwise: its number, and its time in each.
type Conflict = (Gtid, u32, u32);

impl Archive<'_> {
    /// Has plans go through the log of this epoch, where several histories lead on from a backup.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if there is none.
    pub fn choose_history(&mut self, epoch: &str) -> Result<()> {
        if !self.logs.iter().any(|log| log.epoch.as_str() == epoch) {
            let message = format!("the archive has no log of the epoch {epoch}");
            return Err(Error::new(ErrorKind::Usage, message)
                .advise("haulout binlog list shows which ones there are"));
        }
        self.history = Some(epoch.to_owned());
        Ok(())
    }

    /// Whether a history was chosen.
    pub(crate) fn has_history(&self) -> bool {
        self.history.is_some()
    }

    /// Whether a log has other transactions than another one under the numbers of a position.
    pub(super) fn is_another_history(
        &self,
        one: &Log,
        other: &Log,
        position: &GtidPosition,
        cancel: &Cancel,
    ) -> Result<bool> {
        if std::ptr::eq(one, other) {
            return Ok(false);
        }
        for gtid in position.iter() {
            let times = (self.time_of(one, gtid, cancel)?, self.time_of(other, gtid, cancel)?);
            if times.0.zip(times.1).is_some_and(|(one, other)| one != other) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Of a way that is taken to be one to the end of everything: what was written later than its end in the
    /// domains that it goes through.
    pub(super) fn beyond(
        &self,
        course: &Course,
        start: &Start,
        until: &Until,
        cancel: &Cancel,
    ) -> Result<Option<(&Log, Gtid)>> {
        let limit = match until {
            Until::End => u32::MAX,
            Until::Time(time) if !course.plan.reaches => *time,
            _ => return Ok(None),
        };
        if course.plan.gap.is_some() {
            return Ok(None);
        }
        let position = course.state.position();
        let passed = course
            .logs(self)
            .flat_map(Log::parts)
            .filter(|part| course.state.includes(&part.head.about.after));
        let newest = passed.filter_map(|part| part.head.times).map(|times| times.1).max();
        let newest = newest.unwrap_or(0);
        let mut found = None;
        // Of a server of which a history was chosen, the others were not.
        let is_chosen = |log: &Log| {
            self.history.is_some() && course.logs(self).any(|chosen| chosen.server == log.server)
        };
        for (index, log) in self.logs.iter().enumerate() {
            let is_on_the_way = course.trail.contains(&index);
            if !is_on_the_way && is_chosen(log) {
                continue;
            }
            for part in log.parts() {
                let (about, Some(times)) = (&part.head.about, part.head.times) else { continue };
                if times.0 >= limit {
                    continue;
                }
                for gtid in about.after.entries().iter().rev() {
                    if position.get(gtid.domain).is_none() || about.before.covers(*gtid) {
                        continue;
                    }
                    // A server that was reset has the same numbers again.
                    let is_late = times.1 >= newest;
                    let is_lost = times.0 > newest || is_late && !course.state.covers(*gtid);
                    // So has one that was recovered to an earlier time.
                    let is_other = !is_lost
                        && is_late
                        && !is_on_the_way
                        && self.has_another(course, log, *gtid, cancel)?;
                    // What was there before the backup was taken of another history is behind no end of its.
                    if (is_lost || is_other)
                        && (is_on_the_way || !self.contradicts(log, start, cancel)?)
                    {
                        found = Some((log, *gtid));
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Whether a log has a transaction of a way with another time.
    fn has_another(&self, course: &Course, log: &Log, gtid: Gtid, cancel: &Cancel) -> Result<bool> {
        let there = self.time_of(log, gtid, cancel)?;
        let here = self.time_on(&course.trail, gtid, cancel)?;
        Ok(there.zip(here).is_some_and(|(there, here)| there != here))
    }

    /// Whether a log cannot be of the history of what was read at a place: one of the same server that had
    /// files behind that place before, or whose file of that name has something else there. A history that
    /// was begun later may lead on from it all the same: that of a server that was recovered from it.
    pub(crate) fn contradicts(&self, log: &Log, start: &Start, cancel: &Cancel) -> Result<bool> {
        let (Some((name, offset)), Some(read)) = (&start.place, start.read) else {
            return Ok(false);
        };
        if start.server != Some(log.server) {
            return Ok(false);
        }
        let (number, base) = (number_of(name)?, base_of(name));
        let was_there = |file: &File, before: u32| file.created() <= Some(before);
        let is_ahead = |file: &File| file.number > number && base_of(&file.name) == base;
        // The clock of the server may be behind that of who took the backup.
        let began = start.began.unwrap_or(0).saturating_sub(CLOCKS_DIFFER);
        if log.files.iter().any(|file| is_ahead(file) && was_there(file, began)) {
            return Ok(true);
        }
        let same = log.files.iter().find(|file| file.name == *name && was_there(file, read));
        let Some(file) = same else { return Ok(false) };
        // Of domains in which another server wrote last the position tells nothing here.
        let of = |gtid: Gtid| {
            let there = start.position.get(gtid.domain)?;
            (there.server == gtid.server).then_some(there.sequence)
        };
        let is_behind = |gtid: Gtid| of(gtid).is_some_and(|there| there < gtid.sequence);
        for part in &file.parts {
            let about = &part.head.about;
            if about.end <= *offset {
                if about.whole && part.head.last.is_some_and(is_behind) {
                    return Ok(true);
                }
                continue;
            }
            if about.begin > *offset {
                break;
            }
            for transaction in part.index(self.repository, cancel)?.transactions {
                let is_before = transaction.end <= *offset;
                let is_across = !is_before && transaction.begin < *offset;
                let is_known =
                    of(transaction.gtid).is_some_and(|it| it >= transaction.gtid.sequence);
                if is_across || is_before && is_behind(transaction.gtid) || !is_before && is_known {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Refuses a target that two ways reach, and that is not the same in both.
    pub(super) fn refuse_two_histories(
        &self,
        one: &Course,
        other: &Course,
        until: &Until,
        cancel: &Cancel,
    ) -> Result<()> {
        if !one.plan.reaches || !other.plan.reaches || *until == Until::End {
            return Ok(());
        }
        let found = match until {
            Until::Gtid(gtid) => {
                let times = (
                    self.time_on(&one.trail, *gtid, cancel)?,
                    self.time_on(&other.trail, *gtid, cancel)?,
                );
                match times {
                    (Some(one), Some(other)) if one != other => Some((*gtid, one, other)),
                    _ => None,
                }
            }
            Until::Time(time) => {
                let first = self.first_conflict(one, other, cancel)?;
                first.filter(|(_, one, other)| one.min(other) < time)
            }
            Until::Position(name, _) => {
                let identity = |course: &Course| {
                    let step = course.plan.steps.iter().rev().find(|it| it.file.name == *name);
                    step.map(|step| (step.file.server, step.file.identity.clone()))
                };
                match (identity(one), identity(other)) {
                    (Some(mine), Some(its)) if mine.0 == its.0 && mine.1 != its.1 => {
                        self.first_conflict(one, other, cancel)?
                    }
                    _ => None,
                }
            }
            Until::End => None,
        };
        found.map_or(Ok(()), |conflict| Err(self.ambiguous(one, other, conflict)))
    }

    /// Whether another way has one of the last transactions of a way with another time.
    fn ends_otherwise(&self, one: &Course, other: &Course, cancel: &Cancel) -> Result<bool> {
        for gtid in one.state.position().iter().filter(|gtid| other.state.covers(*gtid)) {
            let times = (
                self.time_on(&one.trail, gtid, cancel)?,
                self.time_on(&other.trail, gtid, cancel)?,
            );
            if times.0.zip(times.1).is_some_and(|(one, other)| one != other) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first transaction, by time, that two ways have with the same number and other times.
    fn first_conflict(
        &self,
        one: &Course,
        other: &Course,
        cancel: &Cancel,
    ) -> Result<Option<Conflict>> {
        // Their ends tell whether they part at all: everything is read only where they do.
        let parts =
            self.ends_otherwise(one, other, cancel)? || self.ends_otherwise(other, one, cancel)?;
        if one.trail == other.trail || !parts {
            return Ok(None);
        }
        let (ours, theirs) = (self.times(one, other, cancel)?, self.times(other, one, cancel)?);
        let conflicts = ours.into_iter().filter_map(|(gtid, one)| {
            let other = *theirs.get(&gtid)?;
            (one != other).then_some((gtid, one, other))
        });
        Ok(conflicts.min_by_key(|(_, one, other)| *one.min(other)))
    }

    /// The times of the transactions of a way, in the parts that another one does not have.
    fn times(
        &self,
        course: &Course,
        other: &Course,
        cancel: &Cancel,
    ) -> Result<BTreeMap<Gtid, u32>> {
        let others: BTreeSet<_> = other.parts().map(|part| &part.key).collect();
        let mut times = BTreeMap::new();
        for part in course.parts().filter(|part| !others.contains(&part.key)) {
            let index = part.index(self.repository, cancel)?;
            times.extend(index.transactions.iter().map(|it| (it.gtid, it.time)));
        }
        Ok(times)
    }

    fn ambiguous(&self, one: &Course, other: &Course, (gtid, mine, its): Conflict) -> Error {
        let at = |time: u32| jiff::Timestamp::from_second(time.into()).unwrap_or_default();
        let of = |course: &Course, other: &Course| {
            let own = course.trail.iter().find(|index| !other.trail.contains(index));
            let log = own.and_then(|index| self.logs.get(*index));
            log.map_or_else(
                || "?".to_owned(),
                |log| format!("{} (server {})", log.epoch, log.server),
            )
        };
        let message = format!(
            "the target is in two histories that lead on from there: {gtid} was written at {} in epoch {}, \
             and at {} in epoch {}",
            at(mine),
            of(one, other),
            at(its),
            of(other, one)
        );
        Error::new(ErrorKind::Usage, message).advise(
            "say which one is meant with --epoch EPOCH, as haulout binlog list shows them; after a recovery \
             take a backup, from which only one history leads on",
        )
    }
}

/// The name of a file without its number.
fn base_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(base, _)| base)
}

/// A way that ends before what was written later.
pub(super) fn unreachable(course: &Course, log: &Log, gtid: Gtid) -> Error {
    let message = format!(
        "what leads on from there ends at '{}', and {gtid} of server {} ({}), to which it does not lead, \
         was written later",
        course.state, log.server, log.epoch
    );
    let last = course.state.entries().iter().rev().find(|last| last.domain == gtid.domain);
    let last = last.map_or_else(|| "GTID".to_owned(), Gtid::to_string);
    Error::new(ErrorKind::Gap, message).advise(format!(
        "archive what is missing with haulout binlog push; what a server got from another one it logs with \
         log_slave_updates only; after a recovery to an earlier time say which history is meant with --epoch \
         EPOCH; or name the last transaction that is wanted: --until {last} --after, or --until {gtid} \
         --after from a backup that leads there"
    ))
}
