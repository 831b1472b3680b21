//! What is missing, told by content: a file says what was logged before it, and that must be what the
//! archive has.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use binlog::{Gtid, GtidState};

use super::catalog::follows;
use super::part::Part;
use super::{Archive, Log};
use crate::{Cancel, ErrorKind, Result};

/// Transactions of one domain and server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// The domain.
    pub domain: u32,
    /// Who wrote them.
    pub server: u32,
    /// Sequence number of the first. There may be numbers in between that nobody used.
    pub first: u64,
    /// Of the last.
    pub last: u64,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { domain, server, first, last } = self;
        match first == last {
            true => write!(f, "{domain}-{server}-{first}"),
            false => write!(f, "{domain}-{server}-{first} to {last}"),
        }
    }
}

/// Something that is missing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// Of whose log.
    pub server: u32,
    /// Which one.
    pub epoch: String,
    /// What the archive has before it, if anything.
    pub behind: Option<String>,
    /// What it has behind it.
    pub before: String,
    /// What is missing, as far as it can be told.
    pub missing: Vec<Missing>,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { server, epoch, behind, before, missing } = self;
        let missing: Vec<String> = missing.iter().map(Missing::to_string).collect();
        let missing = match missing.is_empty() {
            true => "something that no transaction tells".to_owned(),
            false => missing.join(", "),
        };
        match behind {
            Some(behind) => write!(f, "between {behind} and {before}")?,
            None => write!(f, "before {before}")?,
        }
        write!(f, " of server {server} ({epoch}), missing: {missing}")
    }
}

/// Which transactions there are: for each domain and server runs of numbers, the first one excluded.
#[derive(Default)]
struct Coverage(BTreeMap<(u32, u32), Vec<(u64, u64)>>);

impl Coverage {
    fn of<'a>(
        logs: impl Iterator<Item = &'a Log>,
        unlogged: &dyn Fn(&Part, Gtid) -> Result<u64>,
    ) -> Result<Self> {
        let mut coverage = Self::default();
        for part in logs.flat_map(|log| &log.files).flat_map(|file| &file.parts) {
            let about = &part.head.about;
            for gtid in about.after.entries() {
                let before = match about.before.of(gtid.domain, gtid.server) {
                    Some(before) => before.sequence,
                    None => unlogged(part, *gtid)?,
                };
                let runs = coverage.0.entry((gtid.domain, gtid.server)).or_default();
                match runs.last_mut() {
                    Some(last) if last.1 == before => last.1 = gtid.sequence,
                    _ if before < gtid.sequence => runs.push((before, gtid.sequence)),
                    _ => {}
                }
            }
        }
        for runs in coverage.0.values_mut() {
            runs.sort_unstable();
            let mut joined: Vec<(u64, u64)> = Vec::new();
            for run in runs.drain(..) {
                match joined.last_mut() {
                    Some(last) if run.0 <= last.1 => last.1 = last.1.max(run.1),
                    _ => joined.push(run),
                }
            }
            *runs = joined;
        }
        Ok(coverage)
    }

    fn runs(&self, missing: &Missing) -> &[(u64, u64)] {
        self.0.get(&(missing.domain, missing.server)).map_or(&[], Vec::as_slice)
    }

    /// Whether all of these are there.
    fn has(&self, missing: &Missing) -> bool {
        let within = |run: &&(u64, u64)| run.0 < missing.first && missing.last <= run.1;
        self.runs(missing).iter().any(|run| within(&run))
    }

    /// What of these numbers, which began at some time, is not there, if the beginning is.
    fn lacks(&self, missing: &Missing) -> Option<Missing> {
        let below = self.runs(missing).iter().rev().find(|run| run.0 < missing.last)?;
        (below.1 < missing.last).then(|| Missing { first: below.1 + 1, ..missing.clone() })
    }
}

/// What [`Archive`] remembers of the numbers before the first ones that servers logged in a domain, by object,
/// domain and server.
pub(super) type Unlogged = Mutex<BTreeMap<(String, u32, u32), u64>>;

impl Archive<'_> {
    /// The number before the first one that a server logged in a domain, in a part before which it had logged
    /// nothing there: a replica that was made from a backup does not begin with the first number. Where it
    /// cannot be read, as without the key, it is taken to.
    fn unlogged(&self, part: &Part, last: Gtid, cancel: &Cancel) -> Result<u64> {
        let of_both = |gtid: &Gtid| (gtid.domain, gtid.server) == (last.domain, last.server);
        let before = |first: Gtid| first.sequence.saturating_sub(1);
        if let Some(first) = part.head.first.filter(of_both) {
            return Ok(before(first));
        }
        let key = (part.key.to_string(), last.domain, last.server);
        let known = || self.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known().get(&key) {
            return Ok(*known);
        }
        let first = match part.index(self.repository, cancel) {
            Ok(index) => index.transactions.iter().map(|it| it.gtid).find(of_both),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(_) => None,
        };
        let before = first.map_or(0, before);
        known().insert(key, before);
        Ok(before)
    }

    /// Whether what was logged between two states is in other logs than this one.
    pub(super) fn has_elsewhere(
        &self,
        log: Option<&Log>,
        last: &GtidState,
        next: &GtidState,
        cancel: &Cancel,
    ) -> Result<bool> {
        let is_other = |other: &&Log| log.is_none_or(|log| !std::ptr::eq(log, *other));
        let unlogged = |part: &Part, last: Gtid| self.unlogged(part, last, cancel);
        let others = Coverage::of(self.logs.iter().filter(is_other), &unlogged)?;
        Ok(between(last, next).iter().all(|missing| others.has(missing)))
    }

    /// What is missing.
    ///
    /// # Errors
    /// What reading the archive meets.
    pub fn gaps(&self, cancel: &Cancel) -> Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        let unlogged = |part: &Part, last: Gtid| self.unlogged(part, last, cancel);
        for (index, log) in self.logs.iter().enumerate() {
            let others = || self.logs.iter().enumerate().filter(|(other, _)| *other != index);
            let others = others().map(|(_, log)| log);
            let others = Coverage::of(others, &unlogged)?;
            // A later history may have the same numbers again.
            let begun = |log: &Log| log.files.first().and_then(super::File::created);
            let is_older = |other: &&Log| begun(other) < begun(log);
            let older = self.logs.iter().filter(is_older);
            let older = Coverage::of(older, &unlogged)?;
            let mut last: Option<(String, &GtidState)> = None;
            for file in &log.files {
                let mut end = 0;
                for part in &file.parts {
                    let about = &part.head.about;
                    let name = format!("{} at {}", file.name, about.begin);
                    let name = if about.begin == 0 { file.name.clone() } else { name };
                    let gap = |behind: Option<String>, missing| Gap {
                        server: log.server,
                        epoch: log.epoch.to_string(),
                        behind,
                        before: name.clone(),
                        missing,
                    };
                    let hole = about.begin != end;
                    end = about.end;
                    match &last {
                        Some((_, state)) if !hole && follows(state, &about.before) => {}
                        Some((behind, state)) => {
                            let missing = between(state, &about.before);
                            if hole
                                || missing.is_empty()
                                || !missing.iter().all(|it| others.has(it))
                            {
                                gaps.push(gap(Some(behind.clone()), missing));
                            }
                        }
                        None => {
                            let all = between(&GtidState::default(), &about.before);
                            let missing: Vec<_> =
                                all.iter().filter_map(|it| older.lacks(it)).collect();
                            if !missing.is_empty() {
                                gaps.push(gap(None, missing));
                            }
                        }
                    }
                    last = Some((format!("{} to {}", file.name, about.end), &about.after));
                }
            }
        }
        Ok(gaps)
    }
}

/// What was logged up to `next` and not up to `last`.
pub(super) fn between(last: &GtidState, next: &GtidState) -> Vec<Missing> {
    let missing = next.entries().iter().filter(|gtid| !last.covers(**gtid)).map(|gtid| {
        let known = last.of(gtid.domain, gtid.server).map_or(0, |gtid| gtid.sequence);
        let (domain, server) = (gtid.domain, gtid.server);
        Missing { domain, server, first: known + 1, last: gtid.sequence }
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn other_logs_fill_gaps() {
        let missing = |first, last| Missing { domain: 0, server: 1, first, last };
        let coverage = Coverage(BTreeMap::from([((0, 1), vec![(0, 10), (20, 30)])]));
        assert!(coverage.has(&missing(3, 10)) && coverage.has(&missing(21, 22)));
        assert!(!coverage.has(&missing(10, 11)) && !coverage.has(&missing(20, 21)));
        assert_eq!(coverage.lacks(&missing(1, 15)), Some(missing(11, 15)));
        assert_eq!(coverage.lacks(&missing(1, 40)), Some(missing(31, 40)));
        assert_eq!(coverage.lacks(&missing(1, 25)), None);
        let state = |text: &str| text.parse::<GtidState>().unwrap();
        assert_eq!(between(&state("0-1-5,1-1-1"), &state("0-1-9,1-1-1")), [missing(6, 9)]);
        assert_eq!(missing(6, 9).to_string(), "0-1-6 to 9");
    }
}
