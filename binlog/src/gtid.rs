//! Global transaction ids: `domain-server-sequence`.
//!
//! Order is defined only inside one domain. A *position* names the newest transaction of each
//! domain; losing one of its entries means replaying that domain from its beginning, so nothing
//! here ever drops a domain. A *state* names the newest transaction of each domain *and server*,
//! and the last entry of a domain is the newest of that domain.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One transaction: `0-1-42`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// The replication domain, a stream of transactions of its own.
    pub domain: u32,
    /// The server that wrote the transaction first.
    pub server: u32,
    /// Number within the domain.
    pub sequence: u64,
}

/// Why a text is no GTID, position or state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    /// Not three numbers joined by dashes, or one is too large.
    #[error("{0:?} is not a GTID (domain-server-sequence)")]
    Malformed(String),
    /// A position has two entries for a domain.
    #[error("domain {0} occurs twice in a GTID position")]
    DomainTwice(u32),
    /// A state has two entries for a domain and server.
    #[error("domain {0} with server {1} occurs twice in a GTID state")]
    ServerTwice(u32, u32),
}

impl FromStr for Gtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let malformed = || GtidError::Malformed(text.chars().take(64).collect());
        let mut parts = text.split('-');
        let mut next = || parts.next().filter(|part| is_number(part)).ok_or_else(malformed);
        let (domain, server, sequence) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(malformed());
        }
        Ok(Self {
            domain: domain.parse().map_err(|_| malformed())?,
            server: server.parse().map_err(|_| malformed())?,
            sequence: sequence.parse().map_err(|_| malformed())?,
        })
    }
}

/// Digits only: the number parser of the standard library would also take a plus sign.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// The newest transaction of each domain. Prints in the order of domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidPosition(BTreeMap<u32, Gtid>);

impl GtidPosition {
    /// Whether no domain has a transaction.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest transaction of a domain.
    pub fn get(&self, domain: u32) -> Option<Gtid> {
        self.0.get(&domain).copied()
    }

    /// All entries, in the order of domains.
    pub fn iter(&self) -> impl Iterator<Item = Gtid> + '_ {
        self.0.values().copied()
    }

    /// For each domain of either position the entry with the higher sequence number; `self`
    /// wins between equals.
    #[must_use]
    pub fn merged_with(mut self, other: &Self) -> Self {
        for gtid in other.iter() {
            let newest = self.0.entry(gtid.domain).or_insert(gtid);
            if gtid.sequence > newest.sequence {
                *newest = gtid;
            }
        }
        self
    }
}

/// The last entry of a domain counts.
impl FromIterator<Gtid> for GtidPosition {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> Self {
        Self(gtids.into_iter().map(|gtid| (gtid.domain, gtid)).collect())
    }
}

impl FromStr for GtidPosition {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut position = BTreeMap::new();
        for gtid in entries(text) {
            let gtid = gtid?;
            if position.insert(gtid.domain, gtid).is_some() {
                return Err(GtidError::DomainTwice(gtid.domain));
            }
        }
        Ok(Self(position))
    }
}

impl fmt::Display for GtidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, self.iter())
    }
}

/// The newest transaction of each domain and server, in the server's own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidState(Vec<Gtid>);

impl GtidState {
    /// All entries. The last one of a domain is the newest of that domain.
    pub fn entries(&self) -> &[Gtid] {
        &self.0
    }

    /// The newest transaction of each domain.
    pub fn position(&self) -> GtidPosition {
        GtidPosition(self.0.iter().map(|gtid| (gtid.domain, *gtid)).collect())
    }

    /// The state with these entries, in the order of a file's list.
    pub fn new(entries: Vec<Gtid>) -> Result<Self, GtidError> {
        let mut seen = std::collections::BTreeSet::new();
        match entries.iter().find(|gtid| !seen.insert((gtid.domain, gtid.server))) {
            Some(gtid) => Err(GtidError::ServerTwice(gtid.domain, gtid.server)),
            None => Ok(Self(entries)),
        }
    }

    /// Takes note of a transaction that was logged: it is the newest of its domain and server, and
    /// of its domain.
    pub fn record(&mut self, gtid: Gtid) {
        let same = |entry: &Gtid| (entry.domain, entry.server) == (gtid.domain, gtid.server);
        if let Some(last) = self.0.last_mut().filter(|last| same(last)) {
            *last = gtid;
            return;
        }
        self.0.retain(|entry| !same(entry));
        self.0.push(gtid);
    }

    /// The newest transaction of a domain and a server.
    pub fn of(&self, domain: u32, server: u32) -> Option<Gtid> {
        self.0.iter().find(|gtid| (gtid.domain, gtid.server) == (domain, server)).copied()
    }

    /// Whether a transaction was logged before: its server had written it or a later one.
    pub fn covers(&self, gtid: Gtid) -> bool {
        self.of(gtid.domain, gtid.server).is_some_and(|newest| newest.sequence >= gtid.sequence)
    }

    /// Whether everything that `other` had logged was logged here.
    pub fn includes(&self, other: &Self) -> bool {
        other.entries().iter().all(|gtid| self.covers(*gtid))
    }

    /// Whether both say the same: the order counts only for what is newest in a domain.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.includes(other) && other.includes(self) && self.position() == other.position()
    }
}

impl FromStr for GtidState {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut seen = std::collections::BTreeSet::new();
        let mut state = Vec::new();
        for gtid in entries(text) {
            let gtid = gtid?;
            if !seen.insert((gtid.domain, gtid.server)) {
                return Err(GtidError::ServerTwice(gtid.domain, gtid.server));
            }
            state.push(gtid);
        }
        Ok(Self(state))
    }
}

impl fmt::Display for GtidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, self.0.iter().copied())
    }
}

/// The entries of a list; blanks and line ends around entries are allowed, an empty text is an
/// empty list, an empty entry is malformed.
fn entries(text: &str) -> impl Iterator<Item = Result<Gtid, GtidError>> + '_ {
    let text = text.trim_ascii();
    let parts = (!text.is_empty()).then(|| text.split(','));
    parts.into_iter().flatten().map(|part| part.trim_ascii().parse())
}

fn join(f: &mut fmt::Formatter<'_>, gtids: impl Iterator<Item = Gtid>) -> fmt::Result {
    for (index, gtid) in gtids.enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write!(f, "{gtid}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn position(text: &str) -> GtidPosition {
        text.parse().unwrap()
    }

    #[test]
    fn positions_read_and_print() {
        assert!(position("").is_empty());
        assert_eq!(position(" 5-5-55,\n0-1-226 ").to_string(), "0-1-226,5-5-55");
        let largest = "4294967295-4294967295-18446744073709551615";
        assert_eq!(position(largest).to_string(), largest);
    }

    #[test]
    fn states_keep_the_order_of_the_server() {
        let state: GtidState = "0-2-9,0-1-12,3-1-1".parse().unwrap();
        assert_eq!(state.to_string(), "0-2-9,0-1-12,3-1-1");
        assert_eq!(state.position().to_string(), "0-1-12,3-1-1");
    }

    #[test]
    fn a_state_goes_on_with_each_transaction() {
        let gtid = |text: &str| text.parse::<Gtid>().unwrap();
        let mut state: GtidState = "0-2-9,0-1-12,3-1-1".parse().unwrap();
        let before = state.clone();
        state.record(gtid("0-2-13"));
        assert_eq!(state.position().to_string(), "0-2-13,3-1-1");
        assert!(state.includes(&before) && !before.includes(&state));
        assert!(state.covers(gtid("0-1-12")) && !state.covers(gtid("0-1-13")));
        assert!(!state.covers(gtid("1-1-1")));
        // Only what is newest in a domain depends on the order.
        let other: GtidState = "3-1-1,0-1-12,0-2-13".parse().unwrap();
        assert!(state.is_same_as(&other));
        assert!(!state.is_same_as(&"3-1-1,0-2-13,0-1-12".parse().unwrap()));
        assert!(GtidState::new(vec![gtid("0-1-1"), gtid("0-1-2")]).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "0",
            "0-1",
            "0-1-2-3",
            "0-1-",
            "-1-2",
            "+0-1-2",
            "0-1-2,",
            ",",
            "a-b-c",
            "4294967296-0-1",
            "0-4294967296-1",
            "0-0-18446744073709551616",
            "0-1-2;1-1-1",
            "0- 1-2",
        ] {
            assert!(bad.parse::<GtidPosition>().is_err(), "{bad}");
            assert!(bad.parse::<GtidState>().is_err(), "{bad}");
        }
        assert_eq!("0-1-2,0-2-3".parse::<GtidPosition>(), Err(GtidError::DomainTwice(0)));
        assert_eq!("0-1-2,0-1-3".parse::<GtidState>(), Err(GtidError::ServerTwice(0, 1)));
    }

    #[test]
    fn merging_keeps_every_domain_and_the_newer_entry() {
        let logged = position("0-1-10,3-99-7,4-1-5");
        let applied = position("0-2-9,4-2-6,5-5-55");
        assert_eq!(logged.merged_with(&applied).to_string(), "0-1-10,3-99-7,4-2-6,5-5-55");
        let tie = position("0-1-5").merged_with(&position("0-2-5"));
        assert_eq!(tie.to_string(), "0-1-5");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-0-9, a\n]{0,80}") {
            let _ = text.parse::<GtidPosition>();
            let _ = text.parse::<GtidState>();
        }

        #[test]
        fn printed_positions_read_back(
            entries in proptest::collection::btree_map(any::<u32>(), any::<(u32, u64)>(), 0..20),
        ) {
            let gtid = |(domain, (server, sequence))| (domain, Gtid { domain, server, sequence });
            let position = GtidPosition(entries.into_iter().map(gtid).collect());
            prop_assert_eq!(position.to_string().parse::<GtidPosition>(), Ok(position));
        }
    }
}
