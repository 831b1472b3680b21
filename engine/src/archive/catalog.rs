//! What the archive has: logs, their files, and the parts of these.
//!
//! The names of objects say which bytes of which file they are. Of objects that overlap, because a
//! file was archived in small pieces first and in larger ones later, or by two at once, those count
//! that lead furthest with the fewest pieces; only their heads are read.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use binlog::GtidState;

use super::layout::{BINLOG, Epoch, PartName};
use super::part::{About, Part};
use super::scan::Ending;
use super::{Archive, Log};
use crate::repo::Repository;
use crate::repo::layout::damaged;
use crate::store::{Key, Object};
use crate::{Cancel, Error, ErrorKind, Result};

/// Heads that are read at the same time.
const READERS: usize = 8;

/// A file of a binary log, as far as the archive has it.
#[derive(Clone, Debug)]
pub struct File {
    /// `server_id` of who wrote it.
    pub server: u32,
    /// Which row of files it belongs to.
    pub epoch: Epoch,
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// Tells it from all others.
    pub identity: String,
    /// Its parts, in their order. The last one ends between transactions.
    pub parts: Vec<Part>,
    /// Objects that say nothing that the parts do not say.
    pub spare: Vec<Object>,
}

impl File {
    fn about(&self, part: usize) -> Option<&About> {
        self.parts.get(part).map(|part| &part.head.about)
    }

    /// When it was begun, in seconds since 1970.
    pub fn created(&self) -> Option<u32> {
        self.about(0).map(|about| about.created)
    }

    /// What was logged before it.
    pub fn before(&self) -> Option<&GtidState> {
        self.about(0).filter(|about| about.begin == 0).map(|about| &about.before)
    }

    /// What was logged up to its end, as far as it is there.
    pub fn after(&self) -> Option<&GtidState> {
        self.parts.last().map(|part| &part.head.about.after)
    }

    /// How it ends, if its end is there.
    pub fn ending(&self) -> Option<&Ending> {
        self.parts.last().and_then(|part| part.head.about.ending.as_ref())
    }

    /// How many of its bytes are there from its beginning on, without a hole.
    pub fn end(&self) -> u64 {
        let mut end = 0;
        for part in &self.parts {
            match &part.head.about {
                about if about.begin == end => end = about.end,
                _ => break,
            }
        }
        end
    }

    /// Whether bytes within it are missing.
    pub fn has_holes(&self) -> bool {
        self.parts.last().is_some_and(|part| part.head.about.end != self.end())
    }

    /// Transactions in it.
    pub fn transactions(&self) -> u64 {
        self.parts.iter().map(|part| part.head.transactions).sum()
    }

    /// The least and the greatest of their times.
    pub fn times(&self) -> Option<(u32, u32)> {
        let times = || self.parts.iter().filter_map(|part| part.head.times);
        times().map(|(first, _)| first).min().zip(times().map(|(_, last)| last).max())
    }

    /// Bytes in the store.
    pub fn stored(&self) -> u64 {
        self.parts.iter().map(|part| part.stored).sum::<u64>()
            + self.spare.iter().map(|object| object.len).sum::<u64>()
    }
}

/// Whether a file that begins after `next` was logged can follow one that ends after `last` was.
/// Domains that the server was told to forget may be missing.
pub fn follows(last: &GtidState, next: &GtidState) -> bool {
    let remembered = |domain: u32| next.entries().iter().any(|gtid| gtid.domain == domain);
    let kept: Vec<_> =
        last.entries().iter().copied().filter(|gtid| remembered(gtid.domain)).collect();
    GtidState::new(kept).is_ok_and(|kept| kept.is_same_as(next))
}

impl<'r> Archive<'r> {
    /// Reads what there is.
    pub fn read(repository: &'r Repository, cancel: &Cancel) -> Result<Self> {
        let mut files: BTreeMap<(u32, Epoch, u64), Vec<(PartName, Object)>> = BTreeMap::new();
        for object in repository.store.list(BINLOG, cancel)? {
            if let Some(name) = PartName::parse(&object.key) {
                let file = (name.server, name.epoch.clone(), name.number);
                files.entry(file).or_default().push((name, object));
            }
        }
        let mut chosen = Vec::new();
        let mut spares = Vec::new();
        for parts in files.into_values() {
            let (taken, spare) = choose(parts);
            spares.push((chosen.len(), taken.len(), spare));
            chosen.extend(taken);
        }
        let heads = heads(repository, &chosen, cancel)?;
        let mut logs: Vec<Log> = Vec::new();
        for (begin, count, spare) in spares {
            let parts = heads.get(begin..begin + count).unwrap_or_default().to_vec();
            let Some(file) = file(parts, spare)? else { continue };
            match logs.last_mut() {
                Some(log) if (log.server, &log.epoch) == (file.server, &file.epoch) => {
                    log.files.push(file);
                }
                _ => logs.push(Log {
                    server: file.server,
                    epoch: file.epoch.clone(),
                    files: vec![file],
                }),
            }
        }
        Ok(Self { repository, logs, history: None, unlogged: Default::default() })
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.logs.iter().flat_map(|log| &log.files)
    }

    /// The log that a file belongs to: that in which its number has a place between files that it
    /// fits to. A new one, if there is none.
    pub fn epoch_of(&self, about: &Newcomer<'_>) -> Epoch {
        let fits = |log: &&Log| {
            log.server == about.server
                && log.files.iter().all(|file| {
                    let same_row = file.name.rsplit_once('.').map(|(base, _)| base)
                        == about.file.rsplit_once('.').map(|(base, _)| base);
                    let (before, after) = (file.before(), file.after());
                    same_row
                        && match file.number.cmp(&about.number) {
                            std::cmp::Ordering::Equal => file.identity == about.identity,
                            std::cmp::Ordering::Less => after.is_none_or(|after| {
                                follows(after, about.before)
                                    || (file.number + 1 < about.number || file.ending().is_none())
                                        && about.before.includes(after)
                            }),
                            // One of a server that was reset since is not older, whatever its
                            // number is.
                            std::cmp::Ordering::Greater => {
                                before.is_none_or(|before| before.includes(about.before))
                                    && file.created().is_some_and(|at| {
                                        let fresh = about.before.entries().is_empty();
                                        about.created < at || (about.created == at && !fresh)
                                    })
                            }
                        }
                })
        };
        match self.logs.iter().rev().find(fits) {
            Some(log) => log.epoch.clone(),
            None => Epoch::new(about.created, about.identity),
        }
    }
}

/// A file that is to be archived.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// `server_id` of who wrote it.
    pub server: u32,
    /// Its name.
    pub file: &'a str,
    /// Its number.
    pub number: u64,
    /// Tells it from all others.
    pub identity: &'a str,
    /// When it was begun.
    pub created: u32,
    /// What was logged before it.
    pub before: &'a GtidState,
}

/// Of the objects of a file, those that count, and the others.
fn choose(mut parts: Vec<(PartName, Object)>) -> (Vec<(PartName, Object)>, Vec<Object>) {
    parts.sort_by(|one, other| one.0.cmp(&other.0));
    // How far one gets from an offset, and with which object first.
    let mut reach: BTreeMap<u64, (u64, u64, usize)> = BTreeMap::new();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(parts[*index].0.begin));
    for index in order {
        let (begin, end) = (parts[index].0.begin, parts[index].0.end);
        let furthest = reach.get(&end).map_or(end, |(furthest, ..)| *furthest);
        let this = (furthest, end, index);
        let best = reach.entry(begin).or_insert(this);
        *best = (*best).max(this);
    }
    let mut taken = vec![false; parts.len()];
    let mut position = 0;
    while let Some((_, &(_, end, index))) = reach.range(position..).next() {
        taken[index] = true;
        position = end;
    }
    let (mut chosen, mut spare) = (Vec::new(), Vec::new());
    for (part, taken) in parts.into_iter().zip(taken) {
        match taken {
            true => chosen.push(part),
            false => spare.push(part.1),
        }
    }
    (chosen, spare)
}

/// The heads of objects, in their order.
fn heads(
    repository: &Repository,
    names: &[(PartName, Object)],
    cancel: &Cancel,
) -> Result<Vec<Part>> {
    let next = AtomicUsize::new(0);
    let heads = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(names.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((name, object)) = names.get(index) else { return };
                    let part = Part::read(repository, name, object.len, cancel);
                    let failed = part.is_err();
                    if let Ok(mut heads) = heads.lock() {
                        heads.insert(index, part);
                    }
                    if failed {
                        // Nobody begins another one.
                        next.fetch_max(names.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let heads =
        heads.into_inner().map_err(|_| Error::new(ErrorKind::Failed, "a thread panicked"))?;
    heads.into_values().collect()
}

/// The file that these parts are of. Bytes of a transaction without its end are none.
fn file(mut parts: Vec<Part>, mut spare: Vec<Object>) -> Result<Option<File>> {
    while let Some(part) = parts.pop_if(|part| !part.head.about.whole) {
        spare.push(Object { key: part.key, len: part.stored, modified: part.head.stored.into() });
    }
    let Some(first) = parts.first() else { return Ok(None) };
    let about = first.head.about.clone();
    if let Some(other) = parts.iter().find(|part| part.head.about.identity != about.identity) {
        return Err(damaged(&other.key, format!("it is of another file than {}", first.key)));
    }
    Ok(Some(File {
        server: about.server,
        epoch: about.epoch,
        name: about.file,
        number: about.number,
        identity: about.identity,
        parts,
        spare,
    }))
}

/// The keys of objects.
pub fn keys(objects: &[Object]) -> Vec<Key> {
    objects.iter().map(|object| object.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn part(begin: u64, end: u64) -> (PartName, Object) {
        let name = PartName {
            server: 1,
            epoch: Epoch::new(0, "00000000"),
            number: 1,
            begin,
            end,
            hash: "00000000".to_owned(),
            sealed: false,
        };
        let key = name.key().unwrap();
        (name, Object { key, len: 1, modified: std::time::SystemTime::UNIX_EPOCH })
    }

    fn chosen(parts: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let parts = parts.iter().map(|(begin, end)| part(*begin, *end)).collect();
        choose(parts).0.into_iter().map(|(name, _)| (name.begin, name.end)).collect()
    }

    #[test]
    fn those_parts_count_that_lead_furthest() {
        assert_eq!(chosen(&[(0, 10), (0, 100), (10, 20), (20, 30)]), [(0, 100)]);
        assert_eq!(chosen(&[(0, 10), (0, 15), (10, 20)]), [(0, 10), (10, 20)]);
        assert_eq!(chosen(&[(0, 10), (10, 30), (10, 20), (20, 30)]), [(0, 10), (10, 30)]);
        // A hole stays one.
        assert_eq!(chosen(&[(0, 10), (20, 30)]), [(0, 10), (20, 30)]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_twice_and_none_left_that_lead_on(
            parts in proptest::collection::vec((0u64..20, 1u64..20), 0..30),
        ) {
            let parts: Vec<_> = parts.iter().map(|(begin, len)| (*begin, begin + len)).collect();
            let taken = chosen(&parts);
            prop_assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let furthest = |parts: &[(u64, u64)]| {
                let mut known = std::collections::BTreeSet::from([0]);
                for _ in 0..parts.len() {
                    for (begin, end) in parts {
                        if known.contains(begin) {
                            known.insert(*end);
                        }
                    }
                }
                *known.last().unwrap()
            };
            prop_assert_eq!(furthest(&taken), furthest(&parts));
        }
    }

    #[test]
    fn a_file_follows_if_nothing_was_logged_in_between() {
        let state = |text: &str| text.parse::<GtidState>().unwrap();
        assert!(follows(&state("0-1-5,1-1-2"), &state("1-1-2,0-1-5")));
        assert!(follows(&state("0-1-5,1-1-2"), &state("0-1-5")));
        assert!(!follows(&state("0-1-5"), &state("0-1-6")));
        assert!(!follows(&state("0-1-5"), &state("0-1-4")));
        assert!(!follows(&state("0-1-5"), &state("0-1-5,1-1-1")));
    }
}
