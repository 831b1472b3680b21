//! Which runs of a partition belong to which page.
//!
//! Built by the worker that applies the partition, in buffers that it keeps: one entry per run,
//! linked to the next run of the same page, and one chain per page.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use innodb::redo::Malformed;
use innodb::redo::record::{Kind, Record, Records};
use innodb::{Lsn, PageId};

use super::arena::Arena;
use super::collector::{Partition, RUN_HEADER_MAX};

/// No entry.
const NONE: u32 = u32::MAX;

/// A run of records of one page, of one mini-transaction.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    next: u32,
    at: u32,
    length: u32,
    start: u32,
    end: u32,
}

/// All runs of one page.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// Which page.
    pub page: PageId,
    /// What the file has does not matter: the first run that counts makes the page, or frees it
    /// and nothing follows. A server that rotates keys can write to a page that was just freed;
    /// such a page is taken from the file, since its change is not all of it.
    pub resets: bool,
    /// The first run that counts frees the page.
    freed: bool,
    first: u32,
    last: u32,
}

/// What a run does to its page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Needs the page as it was.
    Changes,
    /// Starts from nothing.
    Makes,
    /// Gives the page back; `alone` without writing to it afterwards.
    Frees { alone: bool },
}

/// A run, where to find it and when it happened.
#[derive(Clone, Copy, Debug)]
pub struct RunAt {
    /// Position of its records in the stream.
    pub at: usize,
    /// Bytes of its records.
    pub length: usize,
    /// Start of the mini-transaction.
    pub start: Lsn,
    /// End of the mini-transaction.
    pub end: Lsn,
}

/// The chains of one partition.
#[derive(Default)]
pub struct Chains {
    base: Lsn,
    entries: Vec<Entry>,
    chains: Vec<Chain>,
    by_page: HashMap<u64, u32, BuildHasherDefault<PageHasher>>,
    scratch: Vec<u8>,
}

/// Bytes that [`Chains`] may need for `runs` runs of at most `pages` pages.
pub fn memory(runs: usize, pages: usize) -> usize {
    // The table of a map that grew has up to 16/7 slots of 17 bytes per page, and while it grows
    // half as much again.
    runs * size_of::<Entry>() + runs.min(pages) * (2 * size_of::<Chain>() + 64)
}

impl Chains {
    /// Sorts the runs of `partition`. `moot` tells which runs a later truncation undid.
    pub fn build(
        &mut self,
        partition: &Partition,
        arena: &Arena,
        base: Lsn,
        moot: impl Fn(PageId, Lsn) -> bool,
    ) -> Result<(), Malformed> {
        self.base = base;
        self.entries.clear();
        self.chains.clear();
        self.by_page.clear();
        self.entries.reserve_exact(partition.runs);
        let stream = &partition.stream;
        let (mut at, mut start) = (0, 0u32);
        let mut last: Option<(PageId, u32)> = None;
        while at < stream.len() {
            let header = stream.read(arena, at, RUN_HEADER_MAX, &mut self.scratch);
            let mut rest = header;
            let fields = take(&mut rest).zip(take(&mut rest)).zip(take(&mut rest));
            let ((since, mtr), code) =
                fields.ok_or(Malformed::Short("what stands before a run"))?;
            at += header.len() - rest.len();
            start = start.wrapping_add(since);
            let (length, resets) = (code >> 1, code & 1 == 1);
            let records = stream.read(arena, at, length as usize, &mut self.scratch);
            let mut records = Records::new(records);
            let Some(Ok(Record::Page { page, kind, .. })) = records.next() else {
                return Err(Malformed::Short("a run of records"));
            };
            let effect = match (resets, kind) {
                (false, _) => Effect::Changes,
                (true, Kind::FreePage) => Effect::Frees { alone: records.rest().is_empty() },
                (true, _) => Effect::Makes,
            };
            let entry = Entry {
                next: NONE,
                at: u32::try_from(at).map_err(|_| Malformed::Invalid("too many runs"))?,
                length,
                start,
                end: start.wrapping_add(mtr),
            };
            at += length as usize;
            if moot(page, self.base.advanced(u64::from(start))) {
                continue;
            }
            let chain = match last {
                Some((last, chain)) if last == page => chain,
                _ => self.chain_of(page),
            };
            last = Some((page, chain));
            self.link(chain, entry, effect);
        }
        self.chains.sort_unstable_by_key(|chain| chain.page);
        Ok(())
    }

    /// Gives back the memory that only building needs.
    pub fn settle(&mut self) {
        self.by_page = HashMap::default();
        self.scratch = Vec::new();
        self.entries.shrink_to_fit();
        self.chains.shrink_to_fit();
    }

    fn chain_of(&mut self, page: PageId) -> u32 {
        let key = u64::from(page.space.0) << 32 | u64::from(page.page.0);
        *self.by_page.entry(key).or_insert_with(|| {
            self.chains.push(Chain { page, resets: false, freed: false, first: NONE, last: NONE });
            (self.chains.len() - 1) as u32
        })
    }

    fn link(&mut self, chain: u32, entry: Entry, effect: Effect) {
        let number = self.entries.len() as u32;
        self.entries.push(entry);
        let Some(chain) = self.chains.get_mut(chain as usize) else { return };
        if chain.first == NONE || effect != Effect::Changes {
            chain.first = number;
            chain.resets = matches!(effect, Effect::Makes | Effect::Frees { alone: true });
            chain.freed = matches!(effect, Effect::Frees { .. });
        } else {
            chain.resets &= !chain.freed;
            if let Some(last) = self.entries.get_mut(chain.last as usize) {
                last.next = number;
            }
        }
        chain.last = number;
    }

    /// The chains, by tablespace and page number.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The runs of `chain` that count, in the order of the log.
    pub fn runs(&self, chain: &Chain) -> impl Iterator<Item = RunAt> {
        let mut next = chain.first;
        std::iter::from_fn(move || {
            let entry = self.entries.get(next as usize)?;
            next = entry.next;
            Some(self.run(entry))
        })
    }

    /// The last run of `chain`.
    pub fn last_run(&self, chain: &Chain) -> Option<RunAt> {
        self.entries.get(chain.last as usize).map(|entry| self.run(entry))
    }

    fn run(&self, entry: &Entry) -> RunAt {
        RunAt {
            at: entry.at as usize,
            length: entry.length as usize,
            start: self.base.advanced(u64::from(entry.start)),
            end: self.base.advanced(u64::from(entry.end)),
        }
    }
}

/// Takes a varint off the front.
#[inline]
fn take(input: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Multiplies: page ids are numbers without an adversary's say in the order of buckets that
/// could matter, since a partition is bounded.
#[derive(Default)]
pub struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let product = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}
