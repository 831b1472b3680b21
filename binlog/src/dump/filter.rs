//! Which groups are printed, by their GTIDs.

use std::collections::{BTreeMap, BTreeSet};

use crate::gtid::Gtid;

/// Which numbers pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// All.
    #[default]
    All,
    /// These.
    Only(BTreeSet<u32>),
    /// All but these.
    AllBut(BTreeSet<u32>),
}

impl Ids {
    /// Whether a number passes.
    pub fn has(&self, id: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(&id),
            Self::AllBut(ids) => !ids.contains(&id),
        }
    }
}

/// One end of what is wanted of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What to begin behind.
    Start,
    /// What to stop at.
    Stop,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "begin behind",
            Self::Stop => "stop at",
        })
    }
}

/// From where to where in each domain: a start is known already, a stop is still wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// By domain.
    pub starts: BTreeMap<u32, Gtid>,
    /// By domain.
    pub stops: BTreeMap<u32, Gtid>,
}

impl Windows {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.stops.is_empty()
    }

    /// The limit that other domains have and this one has not.
    pub(super) fn unlimited(&self, domain: u32) -> Option<Limit> {
        let lacks =
            |limits: &BTreeMap<u32, Gtid>| !limits.is_empty() && !limits.contains_key(&domain);
        match (lacks(&self.stops), lacks(&self.starts)) {
            (true, _) => Some(Limit::Stop),
            (false, true) => Some(Limit::Start),
            (false, false) => None,
        }
    }

    /// What a log that begins in this state lacks of what is asked for.
    pub(super) fn lacks(&self, state: &[Gtid]) -> Vec<String> {
        // The last entry of a domain is its newest.
        let state: BTreeMap<u32, Gtid> = state.iter().map(|gtid| (gtid.domain, *gtid)).collect();
        let mut lacks = Vec::new();
        for known in state.values() {
            match self.starts.get(&known.domain) {
                None if self.starts.is_empty() => {}
                None => lacks.push(format!(
                    "Starting GTID position list does not specify an initial value for domain {}, \
                     whose events may be present in the requested binlog file(s). The last known \
                     position for this domain was {known}.",
                    known.domain
                )),
                Some(start) if start.sequence < known.sequence => lacks.push(format!(
                    "Binary logs are missing data for domain {}. Expected data to start from state \
                     {start}; however, the initial GTID state of the logs was {known}.",
                    known.domain
                )),
                Some(_) => {}
            }
            if let Some(stop) = self.stops.get(&known.domain).filter(|_| self.starts.is_empty())
                && stop.sequence <= known.sequence
            {
                lacks.push(format!(
                    "--stop-position GTID {stop} does not exist in the specified binlog files. The \
                     current GTID state of domain {} in the specified binary logs is {known}",
                    known.domain
                ));
            }
        }
        lacks
    }

    /// A start and a stop that is before it.
    pub fn impossible(&self) -> Option<(Gtid, Gtid)> {
        let mut both = self
            .starts
            .values()
            .filter_map(|start| Some((*start, *self.stops.get(&start.domain)?)));
        both.find(|(start, stop)| stop.sequence < start.sequence)
    }
}

/// How far each domain has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    begun: BTreeSet<u32>,
    ended: BTreeSet<u32>,
}

impl Progress {
    /// Whether the group of this GTID is printed.
    pub(super) fn admits(&mut self, windows: &Windows, gtid: Gtid) -> bool {
        let domain = gtid.domain;
        let (start, stop) = (windows.starts.get(&domain), windows.stops.get(&domain));
        match (start, stop) {
            // A stop in any domain leaves out those that have none.
            (None, None) => windows.stops.is_empty(),
            _ if self.ended.contains(&domain) => false,
            (start, stop) => {
                let is_known = start.is_some_and(|start| {
                    !self.begun.contains(&domain) && gtid.sequence <= start.sequence
                });
                if let Some(stop) = stop
                    && gtid.sequence >= stop.sequence
                {
                    self.ended.insert(domain);
                    return gtid.sequence == stop.sequence && !is_known;
                }
                if !is_known {
                    self.begun.insert(domain);
                }
                !is_known
            }
        }
    }

    /// Whether every domain that has a stop has come to it, and no other is wanted.
    pub(super) fn has_ended(&self, windows: &Windows) -> bool {
        !windows.stops.is_empty()
            && windows.stops.keys().all(|domain| self.ended.contains(domain))
            && windows.starts.keys().all(|domain| windows.stops.contains_key(domain))
    }
}

/// Whether sequence numbers only grow.
#[derive(Debug, Default)]
pub(super) struct Order(BTreeMap<u32, Gtid>);

impl Order {
    /// What came before a log.
    pub(super) fn begin(&mut self, state: &[Gtid]) {
        self.0.extend(state.iter().map(|gtid| (gtid.domain, *gtid)));
    }

    /// GTIDs that have not come yet.
    pub(super) fn missing<'w>(
        &self,
        wanted: &'w BTreeMap<u32, Gtid>,
    ) -> impl Iterator<Item = &'w Gtid> {
        wanted.values().filter(|gtid| {
            self.0.get(&gtid.domain).is_none_or(|last| last.sequence < gtid.sequence)
        })
    }

    /// Notes a GTID; returns the one before it if that was not smaller.
    pub(super) fn note(&mut self, gtid: Gtid) -> Option<Gtid> {
        let before = self.0.insert(gtid.domain, gtid);
        before.filter(|before| before.sequence >= gtid.sequence)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn by_domain(text: &str) -> BTreeMap<u32, Gtid> {
        let gtids = text.split(',').filter(|part| !part.is_empty());
        gtids.map(|part| part.parse::<Gtid>().unwrap()).map(|gtid| (gtid.domain, gtid)).collect()
    }

    fn printed(starts: &str, stops: &str, log: &str) -> (String, bool) {
        let windows = Windows { starts: by_domain(starts), stops: by_domain(stops) };
        let mut progress = Progress::default();
        let admitted =
            log.split(',').filter(|gtid| progress.admits(&windows, gtid.parse().unwrap()));
        let admitted = admitted.collect::<Vec<_>>().join(",");
        (admitted, progress.has_ended(&windows))
    }

    #[test]
    fn windows_of_domains() {
        let log = "0-1-1,0-1-2,1-1-1,0-1-3,1-1-2,0-1-4";
        let all = |text: &str| (text.to_owned(), false);
        assert_eq!(printed("", "", log), all(log));
        assert_eq!(printed("0-1-2", "", log), all("1-1-1,0-1-3,1-1-2,0-1-4"));
        assert_eq!(printed("", "0-1-2", log), ("0-1-1,0-1-2".to_owned(), true));
        assert_eq!(printed("0-1-1", "0-1-3", log), ("0-1-2,0-1-3".to_owned(), true));
        assert_eq!(printed("", "0-1-9,1-1-1", log).0, "0-1-1,0-1-2,1-1-1,0-1-3,0-1-4");
    }

    #[test]
    fn a_domain_can_lack_a_limit_that_others_have() {
        let unlimited = |starts, stops| {
            Windows { starts: by_domain(starts), stops: by_domain(stops) }.unlimited(5)
        };
        for (starts, stops) in
            [("", ""), ("5-1-2", ""), ("", "5-1-2"), ("0-1-1,5-1-2", "5-1-2,0-1-3")]
        {
            assert_eq!(unlimited(starts, stops), None, "{starts} {stops}");
        }
        assert_eq!(unlimited("0-1-1,5-1-2", "0-1-3"), Some(Limit::Stop));
        assert_eq!(unlimited("0-1-1", "0-1-3,5-1-2"), Some(Limit::Start));
        assert_eq!(unlimited("0-1-1", ""), Some(Limit::Start));
    }
}
