//! What has been logged so far, domain by domain and server by server.
//!
//! The server's own `gtid_binlog_state`: of two states the newest transaction of a domain counts, and
//! that of each server in it. A log names the state that it begins with, so that logs which follow one
//! another can be told from logs with something missing in between.

use std::collections::BTreeMap;
use std::fmt;

use binlog::{Gtid, GtidPosition, GtidState};

/// A state that grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    logged: BTreeMap<(u32, u32), u64>,
    newest: BTreeMap<u32, Gtid>,
}

impl State {
    /// The state with these entries, the newest of each domain last.
    pub fn of(entries: &[Gtid]) -> Self {
        let mut state = Self::default();
        entries.iter().for_each(|gtid| state.add(*gtid));
        state
    }

    /// Adds a transaction.
    pub fn add(&mut self, gtid: Gtid) {
        self.logged.insert((gtid.domain, gtid.server), gtid.sequence);
        self.newest.insert(gtid.domain, gtid);
    }

    /// Whether nothing was logged.
    pub fn is_empty(&self) -> bool {
        self.logged.is_empty()
    }

    /// Whether this transaction was logged, or a later one of its server.
    pub fn has(&self, gtid: Gtid) -> bool {
        let last = self.logged.get(&(gtid.domain, gtid.server));
        last.is_some_and(|last| *last >= gtid.sequence)
    }

    /// The newest transaction of a domain.
    pub fn newest(&self, domain: u32) -> Option<Gtid> {
        self.newest.get(&domain).copied()
    }

    /// The newest transaction of each domain.
    pub fn position(&self) -> GtidPosition {
        self.newest.values().copied().collect()
    }

    /// How far it is: grows with every transaction of a history.
    pub fn extent(&self) -> u128 {
        self.logged.values().map(|sequence| u128::from(*sequence)).sum()
    }

    /// Whether a log that begins with `next` can follow one that ends with this. Domains that the server
    /// was told to forget are missing in it.
    pub fn is_followed_by(&self, next: &Self) -> bool {
        let kept = |domain: &u32| next.newest.contains_key(domain);
        let logged = self.logged.iter().filter(|((domain, _), _)| kept(domain));
        let newest = self.newest.iter().filter(|(domain, _)| kept(domain));
        logged.eq(next.logged.iter()) && newest.eq(next.newest.iter())
    }

    /// Entries of which `other` has another sequence number, or none; those of this state.
    pub fn beyond(&self, other: &Self) -> Vec<Gtid> {
        let differs =
            |(key, sequence): &(&(u32, u32), &u64)| other.logged.get(key) != Some(sequence);
        let gtid =
            |(&(domain, server), &sequence): (&(u32, u32), &u64)| Gtid { domain, server, sequence };
        self.logged.iter().filter(differs).map(gtid).collect()
    }
}

impl From<&GtidState> for State {
    fn from(state: &GtidState) -> Self {
        Self::of(state.entries())
    }
}

/// As the server takes it: the newest of each domain last.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for newest in self.newest.values() {
            let of_domain = self.logged.range((newest.domain, 0)..=(newest.domain, u32::MAX));
            for (&(domain, server), sequence) in of_domain {
                if server != newest.server {
                    write!(f, "{comma}{domain}-{server}-{sequence}")?;
                    comma = ",";
                }
            }
            write!(f, "{comma}{newest}")?;
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn state(text: &str) -> State {
        State::from(&text.parse::<GtidState>().unwrap())
    }

    #[test]
    fn prints_as_the_server_takes_it() {
        assert_eq!(state("1-5-3,0-2-9,0-1-12").to_string(), "0-2-9,0-1-12,1-5-3");
        let mut grown = state("0-2-9,0-1-12");
        grown.add("0-2-13".parse().unwrap());
        assert_eq!(grown.to_string(), "0-1-12,0-2-13");
        assert_eq!(grown.position().to_string(), "0-2-13");
        assert_eq!(state("").to_string(), "");
    }

    #[test]
    fn logs_follow_one_another() {
        let follows = |last: &str, next: &str| state(last).is_followed_by(&state(next));
        assert!(follows("", "") && follows("0-1-5,1-1-2", "1-1-2,0-1-5"));
        assert!(follows("0-1-5,1-1-2", "0-1-5"), "a domain was forgotten");
        assert!(!follows("0-1-5", "0-1-6") && !follows("0-1-5", "0-1-5,1-1-1"));
        assert!(!follows("0-2-4,0-1-5", "0-1-5,0-2-4"));
    }

    #[test]
    fn the_newest_of_a_domain_is_part_of_it() {
        assert_ne!(state("0-1-3,0-2-4"), state("0-2-4,0-1-3"));
        assert_eq!(state("0-1-3,1-2-4"), state("1-2-4,0-1-3"));
        let beyond = state("0-1-3,0-2-4").beyond(&state("0-1-2,0-2-4"));
        assert_eq!(beyond, ["0-1-3".parse().unwrap()]);
    }
}
