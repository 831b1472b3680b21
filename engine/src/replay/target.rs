//! Where a replay stops.
//!
//! Always between two groups, and always one place in the order of the logs: stops by domain are not
//! consistent with each other, because one domain may need what another has done. Times of groups are
//! whole seconds, save where a statement used fractions; a group whose second is that of the target
//! is *before* it only if it certainly is.

use std::fmt;
use std::str::FromStr;

use binlog::Gtid;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::{Error, ErrorKind, Result as Outcome};

/// On which side of the target to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// What is named does not happen.
    Before,
    /// What is named is the last that happens.
    After,
}

/// What is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The end of the logs.
    End,
    /// A moment.
    Time(Timestamp),
    /// A transaction.
    Gtid(Gtid),
    /// A place in a log.
    Position {
        /// The log.
        file: String,
        /// Offset in it.
        offset: u64,
    },
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Several GTIDs.
    #[error(
        "a list of GTIDs is no target: domains depend on each other, so name the one transaction at \
         which to stop"
    )]
    List,
    /// A date and a GTID at once.
    #[error(
        "'{date}' may be a date or a GTID: for the day write the time as well, '{date} 00:00:00'; for the \
         transaction {sequence} of server {server} in domain {domain} write {}", unmistakable(.domain, .server, .sequence)
    )]
    DateOrGtid {
        /// As it was written.
        date: String,
        /// Domain of the GTID.
        domain: u32,
        /// Server of the GTID.
        server: u32,
        /// Number of the GTID.
        sequence: u64,
    },
    /// None of the known forms.
    #[error(
        "'{0}' is neither a time such as '2026-02-28 17:30:00.25' or 2026-02-28T17:30:00Z, nor a \
         GTID such as 0-1-42, nor a place such as binlog.000042:1234"
    )]
    Unknown(String),
}

/// Years that a log can have times of.
const YEARS: std::ops::RangeInclusive<u32> = 1970..=2106;

/// Whether a GTID has the numbers of a day.
pub fn is_like_a_date(gtid: Gtid) -> bool {
    let Gtid { domain, server, sequence } = gtid;
    YEARS.contains(&domain) && (1..=12).contains(&server) && (1..=31).contains(&sequence)
}

/// A GTID so that nobody takes it for a date.
fn unmistakable(domain: &u32, server: &u32, sequence: &u64) -> String {
    format!("{domain}-{server:03}-{sequence}")
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("end") {
            return Ok(Self::End);
        }
        if let Ok(gtid) = text.parse::<Gtid>() {
            let Gtid { domain, server, sequence } = gtid;
            let lengths: Vec<usize> = text.split('-').map(str::len).collect();
            if lengths == [4, 2, 2] && is_like_a_date(gtid) {
                let date = text.to_owned();
                return Err(TargetError::DateOrGtid { date, domain, server, sequence });
            }
            return Ok(Self::Gtid(gtid));
        }
        let parts = || text.split(',').map(|part| part.trim().parse::<Gtid>());
        if text.contains(',') && parts().all(|part| part.is_ok()) {
            return Err(TargetError::List);
        }
        if let Some(time) = time(text) {
            return Ok(Self::Time(time));
        }
        let unknown = || TargetError::Unknown(text.chars().take(80).collect());
        let (file, offset) = text.rsplit_once(':').ok_or_else(unknown)?;
        // Names of logs end with a number, times of day do not.
        let is_log = |(_, number): (&str, &str)| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !file.rsplit_once('.').is_some_and(is_log) {
            return Err(unknown());
        }
        let offset = offset.parse().map_err(|_| unknown())?;
        let position = binlog::BinlogPosition::new(file, offset).map_err(|_| unknown())?;
        Ok(Self::Position { file: position.file().to_owned(), offset })
    }
}

/// A moment, in the local time zone if the text names none. A date alone is none.
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if !text.contains(':') {
        return None;
    }
    let civil: DateTime = text.parse().ok()?;
    Some(civil.to_zoned(TimeZone::system()).ok()?.timestamp())
}

impl Target {
    /// As it is written so that it is understood as what it is.
    pub fn argument(&self) -> String {
        match self {
            Self::End => "end".to_owned(),
            Self::Gtid(Gtid { domain, server, sequence }) => match self.to_string().parse::<Self>()
            {
                Ok(_) => self.to_string(),
                Err(_) => unmistakable(domain, server, sequence),
            },
            other => other.to_string(),
        }
    }

    /// Refuses a place in a log if several of the logs have that name, as those of several servers may.
    pub(crate) fn is_in_one<'a>(&self, names: impl Iterator<Item = &'a str>) -> Outcome<()> {
        let Self::Position { file, .. } = self else { return Ok(()) };
        let count = names.filter(|name| *name == file).count();
        if count < 2 {
            return Ok(());
        }
        let message =
            format!("{self} may be in {count} logs: as many of those on the way have the name");
        Err(Error::new(ErrorKind::Usage, message)
            .advise("name a transaction instead: haulout binlog dump shows the one there"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the logs"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Gtid(gtid) => write!(f, "{gtid}"),
            Self::Position { file, offset } => write!(f, "{file}:{offset}"),
        }
    }
}

/// When a group was, as far as its log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Second.
    pub seconds: u32,
    /// Fraction of it, in microseconds, if it is known.
    pub micros: Option<u32>,
}

impl When {
    /// Whether a group of this moment is behind a target.
    pub fn is_late(&self, target: Timestamp, edge: Edge) -> bool {
        const SECOND: i128 = 1_000_000;
        let target = target.as_microsecond().into();
        let second = i128::from(self.seconds) * SECOND;
        match (self.micros, edge) {
            (Some(micros), Edge::Before) => second + i128::from(micros) >= target,
            (Some(micros), Edge::After) => second + i128::from(micros) > target,
            // It may have been at the end of its second, or at its beginning.
            (None, Edge::Before) => second + SECOND > target,
            (None, Edge::After) => second > target,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn forms() {
        let target = |text: &str| text.parse::<Target>();
        assert_eq!(target("0-1-42"), Ok(Target::Gtid("0-1-42".parse().unwrap())));
        assert_eq!(target("end"), Ok(Target::End));
        let position = Target::Position { file: "mysql-bin.000042".to_owned(), offset: 1234 };
        assert_eq!(target("mysql-bin.000042:1234"), Ok(position));
        assert_eq!(target("0-1-2,1-1-3"), Err(TargetError::List));
        let Ok(Target::Time(time)) = target("2026-02-28T17:30:00.25Z") else { panic!("no time") };
        assert_eq!(time.as_millisecond() % 1000, 250);
        for local in ["2026-02-28 17:30:00", "2026-02-28 17:30:00.000001", "2026-02-28T17:30"] {
            assert!(matches!(target(local), Ok(Target::Time(_))), "{local}");
        }
        for bad in ["", "yesterday", "17:30", "a/b:4", "2026-13-01 00:00:00", "0-1"] {
            assert!(matches!(target(bad), Err(TargetError::Unknown(_))), "{bad}");
        }
    }

    #[test]
    fn a_day_is_not_taken_for_a_transaction() {
        let target = |text: &str| text.parse::<Target>();
        for day in ["2026-11-22", "2027-01-01", "1999-12-31", "2026-02-31"] {
            let Err(why) = target(day) else { panic!("{day} was taken") };
            let why = why.to_string();
            assert!(
                why.contains(&format!("'{day} 00:00:00'")) && why.contains("in domain"),
                "{why}"
            );
        }
        for gtid in ["0-1-42", "2026-13-22", "2026-11-32", "2026-1-1", "2026-11-222", "0001-01-01"]
        {
            assert_eq!(target(gtid), Ok(Target::Gtid(gtid.parse().unwrap())), "{gtid}");
        }
        // What is offered instead is understood, and what is printed as well.
        let meant = Target::Gtid("2026-11-22".parse().unwrap());
        assert_eq!(target("2026-011-22"), Ok(meant.clone()));
        for target in [meant, Target::End, target("2026-11-22 00:00:00").unwrap()] {
            assert_eq!(target.argument().parse(), Ok(target));
        }
    }

    #[test]
    fn whole_seconds_are_before_only_what_is_surely_behind_them() {
        let at = |micros: i64| Timestamp::from_microsecond(micros).unwrap();
        let coarse = When { seconds: 5, micros: None };
        for (target, before, after) in [
            (4_900_000, true, true),
            (5_000_000, true, false),
            (5_500_000, true, false),
            (6_000_000, false, false),
        ] {
            assert_eq!(coarse.is_late(at(target), Edge::Before), before, "{target}");
            assert_eq!(coarse.is_late(at(target), Edge::After), after, "{target}");
        }
        let fine = When { seconds: 5, micros: Some(250_000) };
        assert!(fine.is_late(at(5_250_000), Edge::Before));
        assert!(!fine.is_late(at(5_250_001), Edge::Before));
        assert!(!fine.is_late(at(5_250_000), Edge::After));
        assert!(fine.is_late(at(5_249_999), Edge::After));
    }
}
