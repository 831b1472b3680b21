//! Keeping and expiring.
//!
//! What stays keeps what it is based on. What is expired loses its manifest first: from then on it
//! is no backup, and an expiry that was killed is finished by the next one, which takes packs
//! without a manifest for garbage when they are too old to be those of a backup that is being taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Repository;
use super::catalog::Selection;
use super::layout::{BackupName, MANIFEST};
use crate::store::{Body, Key, Object, PutOptions};
use crate::{Cancel, Error, ErrorKind, Result};

/// Packs without a manifest are left alone for so long, unless told otherwise.
pub const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a backup stays that has a mark.
const KEPT_BY_HAND: &str = "kept";

/// Which backups stay. Each rule adds some.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// So many of the latest ones.
    pub last: Option<u32>,
    /// Those that ended so long ago or later.
    pub within: Option<Duration>,
    /// The latest of each of so many days that have one.
    pub daily: Option<u32>,
    /// The same for weeks, which begin on Mondays.
    pub weekly: Option<u32>,
    /// The same for months.
    pub monthly: Option<u32>,
    /// The same for years.
    pub yearly: Option<u32>,
}

impl Rules {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let Self { last, within, daily, weekly, monthly, yearly } = self;
        let numbers = [last, daily, weekly, monthly, yearly];
        within.is_none() && numbers.iter().all(|number| number.is_none())
    }

    /// Which of `backups`, the oldest first, stay, and by which rules.
    fn apply(
        &self,
        backups: &[(BackupName, jiff::Timestamp)],
        now: jiff::Timestamp,
    ) -> BTreeMap<BackupName, Vec<&'static str>> {
        let mut stay: BTreeMap<BackupName, Vec<&'static str>> = BTreeMap::new();
        let mut keep = |name: &BackupName, rule| stay.entry(name.clone()).or_default().push(rule);
        // Whatever the rules and the clock say, the last good one stays.
        if let Some((name, _)) = backups.last() {
            keep(name, "latest");
        }
        for (name, _) in backups.iter().rev().take(self.last.unwrap_or(0) as usize) {
            keep(name, "last");
        }
        if let Some(within) = self.within {
            let oldest = now.checked_sub(within).unwrap_or(jiff::Timestamp::MIN);
            for (name, _) in backups.iter().filter(|(_, ended)| *ended >= oldest) {
                keep(name, "within");
            }
        }
        type Period = fn(Date) -> i64;
        let periods: [(Option<u32>, &'static str, Period); 4] = [
            (self.daily, "daily", day),
            // Day 0 was a Thursday.
            (self.weekly, "weekly", |date| (day(date) + 3).div_euclid(7)),
            (self.monthly, "monthly", |date| i64::from(date.year()) * 12 + i64::from(date.month())),
            (self.yearly, "yearly", |date| i64::from(date.year())),
        ];
        for (number, rule, period) in periods {
            let mut seen = BTreeSet::new();
            for (name, ended) in backups.iter().rev() {
                let this = period(ended.to_zoned(TimeZone::UTC).date());
                if seen.len() < number.unwrap_or(0) as usize && seen.insert(this) {
                    keep(name, rule);
                }
            }
        }
        stay
    }
}

/// Days since 1970.
fn day(date: Date) -> i64 {
    let since = date.since((jiff::Unit::Day, jiff::civil::date(1970, 1, 1)));
    since.map_or(0, |span| i64::from(span.get_days()))
}

/// What an expiry does with a backup.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verdict {
    /// The backup.
    pub name: String,
    /// Why it stays; nothing, if it does not.
    pub stays: Vec<String>,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// What an expiry did, or would do.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExpirySummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Whether anything was removed; otherwise this is what would be.
    pub done: bool,
    /// The backups, the oldest first.
    pub backups: Vec<Verdict>,
    /// Folders of packs without a manifest that are old enough to go.
    pub garbage: Vec<String>,
    /// What killed writers left, other than packs.
    pub leftovers: usize,
    /// Bytes that were, or would be, freed.
    pub freed_bytes: u64,
}

/// What is to expire.
#[derive(Clone, Debug)]
pub struct ExpireOptions {
    /// Which backups stay. Without rules, only garbage goes.
    pub rules: Rules,
    /// Packs without a manifest are left alone for so long.
    pub grace: Duration,
    /// Whether to remove anything.
    pub delete: bool,
    /// Backups that go whatever the rules say, by their names or the beginning or end of them; also
    /// damaged ones. What is kept by hand, or needed by another, stays.
    pub named: Vec<String>,
}

impl Repository {
    /// Marks a backup: it does not expire, and neither does what it is based on.
    pub fn keep(&self, selection: &Selection, cancel: &Cancel) -> Result<BackupName> {
        let name = self.select(selection, cancel)?.name;
        let _ = self.store.put(&name.kept()?, Body::default(), &PutOptions::default(), cancel)?;
        Ok(name)
    }

    /// Takes the mark away.
    pub fn unkeep(&self, selection: &Selection, cancel: &Cancel) -> Result<BackupName> {
        let name = self.select(selection, cancel)?.name;
        self.store.delete(&[name.kept()?], cancel)?;
        Ok(name)
    }

    /// Removes what no rule keeps, and garbage; or says what that would be.
    pub fn expire(&self, options: &ExpireOptions, cancel: &Cancel) -> Result<ExpirySummary> {
        let listed = self.backups(cancel)?;
        let mut stays: BTreeMap<BackupName, Vec<String>> = BTreeMap::new();
        let mut parents = BTreeMap::new();
        let mut times = Vec::new();
        for backup in &listed {
            let mut reasons = Vec::new();
            if backup.kept {
                reasons.push(KEPT_BY_HAND.to_owned());
            }
            match &backup.manifest {
                Ok(manifest) => {
                    times.push((manifest.order(), backup.name.clone(), manifest.ended));
                    parents.insert(backup.name.clone(), manifest.parent.clone());
                }
                // Whoever can still make something of it decides.
                Err(why) => reasons.push(format!("damaged: {why}")),
            }
            stays.insert(backup.name.clone(), reasons);
        }
        times.sort();
        let times: Vec<_> = times.into_iter().map(|(_, name, ended)| (name, ended)).collect();
        match options.rules.is_empty() {
            true => {
                for (name, _) in &times {
                    stays.entry(name.clone()).or_default().push("no rule".to_owned());
                }
            }
            false => {
                for (name, rules) in options.rules.apply(&times, jiff::Timestamp::now()) {
                    let rules = rules.into_iter().map(str::to_owned);
                    stays.entry(name).or_default().extend(rules);
                }
            }
        }
        for text in &options.named {
            let name = named(&stays, text)?;
            stays.entry(name).or_default().retain(|reason| reason == KEPT_BY_HAND);
        }
        keep_parents(&mut stays, &parents);

        // Deltas go before what they are based on, so that a killed expiry leaves no orphan.
        let mut doomed: Vec<&BackupName> =
            stays.iter().filter(|(_, reasons)| reasons.is_empty()).map(|(name, _)| name).collect();
        doomed.reverse();
        let garbage = self.garbage(options.grace, cancel)?;
        let stored = |name: &BackupName| {
            listed.iter().find(|backup| backup.name == *name).map_or(0, |backup| backup.stored)
        };
        let freed = doomed.iter().map(|name| stored(name)).sum::<u64>()
            + garbage.values().flatten().map(|object| object.len).sum::<u64>();
        if options.delete {
            for name in &doomed {
                // Somebody may have kept it meanwhile.
                if self.store.head(&name.kept()?, cancel)?.is_none() {
                    self.remove(name, cancel)?;
                }
            }
            for name in garbage.keys() {
                // It may have become a backup meanwhile: a copy that was resumed.
                if let Some(objects) = self.garbage_in(name, options.grace, cancel)? {
                    let keys: Vec<Key> = objects.into_iter().map(|object| object.key).collect();
                    self.store.delete(&keys, cancel)?;
                }
            }
        }
        let leftovers = self.store.leftovers(options.grace, options.delete, cancel)?.len();
        let verdict = |(name, reasons): (&BackupName, &Vec<String>)| Verdict {
            name: name.to_string(),
            stays: reasons.clone(),
            stored_bytes: stored(name),
        };
        Ok(ExpirySummary {
            format: 1,
            done: options.delete,
            backups: stays.iter().map(verdict).collect(),
            garbage: garbage.keys().map(BackupName::to_string).collect(),
            leftovers,
            freed_bytes: freed,
        })
    }

    /// Removes a backup, its manifest first.
    fn remove(&self, name: &BackupName, cancel: &Cancel) -> Result<()> {
        self.store.delete(&[name.object(MANIFEST)?], cancel)?;
        let objects = self.store.list(&name.prefix(), cancel)?;
        let keys: Vec<Key> = objects.into_iter().map(|object| object.key).collect();
        self.store.delete(&keys, cancel)
    }

    /// Packs without a manifest, none of which is younger than `grace`.
    fn garbage(
        &self,
        grace: Duration,
        cancel: &Cancel,
    ) -> Result<BTreeMap<BackupName, Vec<Object>>> {
        let mut garbage = BTreeMap::new();
        for name in self.folders(cancel)? {
            if let Some(objects) = self.garbage_in(&name, grace, cancel)? {
                garbage.insert(name, objects);
            }
        }
        Ok(garbage)
    }

    /// The packs of this folder, if they are garbage.
    fn garbage_in(
        &self,
        name: &BackupName,
        grace: Duration,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Object>>> {
        let objects = self.store.list(&name.prefix(), cancel)?;
        let manifest = name.object(MANIFEST)?;
        let youngest = objects.iter().map(|object| object.modified).max();
        let old = |at: SystemTime| at.elapsed().is_ok_and(|age| age >= grace);
        let finished = objects.iter().any(|object| object.key == manifest);
        Ok((!finished && youngest.is_some_and(old)).then_some(objects))
    }
}

/// The backup that goes by its name.
fn named(backups: &BTreeMap<BackupName, Vec<String>>, text: &str) -> Result<BackupName> {
    let means =
        |name: &&BackupName| name.as_str().starts_with(text) || name.as_str().ends_with(text);
    let found: Vec<&BackupName> = backups.keys().filter(means).collect();
    match found.as_slice() {
        [name] if !text.is_empty() => Ok((*name).clone()),
        [] => Err(Error::new(ErrorKind::NothingMatches, format!("there is no backup {text}"))),
        [..] => {
            Err(Error::new(ErrorKind::Usage, format!("{text} could be any of several backups")))
        }
    }
}

/// What stays needs its parents, and their parents.
fn keep_parents(
    stays: &mut BTreeMap<BackupName, Vec<String>>,
    parents: &BTreeMap<BackupName, Option<BackupName>>,
) {
    // Children are younger, and names sort by time; but a clock can have gone back.
    loop {
        let mut needed = Vec::new();
        for (name, _) in stays.iter().filter(|(_, reasons)| !reasons.is_empty()) {
            if let Some(Some(parent)) = parents.get(name)
                && stays.get(parent).is_some_and(Vec::is_empty)
            {
                needed.push((parent.clone(), format!("needed by {name}")));
            }
        }
        if needed.is_empty() {
            return;
        }
        for (parent, reason) in needed {
            stays.entry(parent).or_default().push(reason);
        }
    }
}

/// No rule at all asks for nothing, which is better said.
pub fn check_rules(rules: &Rules, garbage_only: bool) -> Result<()> {
    if rules.is_empty() && !garbage_only {
        return Err(Error::new(ErrorKind::Usage, "no rule says which backups stay").advise(
            "give one, such as --keep-last 7 or --keep-daily 14; or --garbage for garbage only",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn backup(time: &str, kind: &str) -> (BackupName, jiff::Timestamp) {
        let name = BackupName::parse(&format!("{time}-{kind}-00000000")).unwrap();
        let at = name.began().unwrap();
        (name, at)
    }

    fn staying(rules: &Rules, times: &[&str]) -> Vec<String> {
        let backups: Vec<_> = times.iter().map(|time| backup(time, "full")).collect();
        let now = backups.last().unwrap().1;
        let stay = rules.apply(&backups, now);
        stay.keys().map(|name| name.as_str()[..13].to_owned()).collect()
    }

    #[test]
    fn each_rule_adds_some() {
        let times = [
            "20241231T120000Z",
            "20250101T120000Z",
            "20260301T120000Z",
            "20260302T110000Z",
            "20260302T120000Z",
            "20260308T120000Z",
            "20260309T120000Z",
        ];
        let rules = |change: fn(&mut Rules)| {
            let mut rules = Rules::default();
            change(&mut rules);
            staying(&rules, &times).join(" ")
        };
        assert_eq!(rules(|_| ()), "20260309T1200");
        let later = |rules: &Rules| {
            let backups: Vec<_> = times.iter().map(|time| backup(time, "full")).collect();
            rules.apply(&backups, "2030-01-01T00:00:00Z".parse().unwrap()).len()
        };
        // Nothing was backed up for years.
        let week = Duration::from_secs(7 * 86400);
        assert_eq!(later(&Rules { within: Some(week), ..Rules::default() }), 1);
        assert_eq!(rules(|r| r.last = Some(2)), "20260308T1200 20260309T1200");
        assert_eq!(
            rules(|r| r.within = Some(Duration::from_secs(86400))),
            "20260308T1200 20260309T1200"
        );
        // The later one of the second of March.
        assert_eq!(rules(|r| r.daily = Some(3)), "20260302T1200 20260308T1200 20260309T1200");
        // The first of March was a Sunday, the ninth a Monday.
        assert_eq!(rules(|r| r.weekly = Some(3)), "20260301T1200 20260308T1200 20260309T1200");
        assert_eq!(rules(|r| r.monthly = Some(2)), "20250101T1200 20260309T1200");
        assert_eq!(rules(|r| r.yearly = Some(9)), "20241231T1200 20250101T1200 20260309T1200");
    }

    #[test]
    fn what_stays_keeps_what_it_is_based_on() {
        let [full, one, two] = ["20260101", "20260102", "20260103"]
            .map(|day| backup(&format!("{day}T000000Z"), "delta").0);
        let parents = [
            (full.clone(), None),
            (one.clone(), Some(full.clone())),
            (two.clone(), Some(one.clone())),
        ];
        let stay = |kept: &BackupName| {
            let mut stays: BTreeMap<_, Vec<String>> =
                [&full, &one, &two].map(|name| (name.clone(), Vec::new())).into();
            stays.get_mut(kept).unwrap().push("kept".to_owned());
            keep_parents(&mut stays, &BTreeMap::from(parents.clone()));
            stays.values().filter(|reasons| !reasons.is_empty()).count()
        };
        assert_eq!((stay(&full), stay(&one), stay(&two)), (1, 2, 3));
    }
}
