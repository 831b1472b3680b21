//! Sorting redo: the records of each page together, in the order of the log.
//!
//! The reader of the log does as little as it can: it cuts each mini-transaction into runs of
//! records of one page and appends each run to one of 512 streams, chosen by the page's
//! neighbourhood (a *window* of neighbouring pages, which are later read and written together).
//! Which runs of a stream belong to which page is found by the worker that applies the stream
//! ([`super::chains`]): a stream is small enough for the cache, a whole log is not.
//!
//! A run in a stream:
//!
//! | field | encoding |
//! |---|---|
//! | start LSN of the mini-transaction, less that of the run before | varint |
//! | length of the mini-transaction | varint |
//! | length of the run × 2, + 1 when it makes the earlier ones of its page moot | varint |
//! | the records | as in the log; the first one carries the ids |
//!
//! Varints are seven bits per byte, lowest first.

use std::collections::HashSet;

use innodb::redo::Malformed;
use innodb::redo::mtr::{MTR_MAX, Mtr};
use innodb::redo::record::{Kind, Record, Records, TRIM_PAGES};
use innodb::{Lsn, PageId, PageSize, SpaceId};

use super::arena::{Arena, Stream};
use super::chains;
use super::facts::{LogFacts, Trim};

/// Streams that the log is spread over.
pub const PARTITIONS: usize = 512;
/// Bytes of pages that are read and written together.
pub const WINDOW_BYTES: usize = 1 << 20;
/// Longest encoding of what stands before a run.
pub const RUN_HEADER_MAX: usize = 15;
/// LSNs of a batch count from its first one, in 32 bits.
const BATCH_LSN_MAX: u64 = u32::MAX as u64 - 2 * MTR_MAX as u64;
/// How many bytes of redo may be collected before memory is looked at again.
const BUDGET_STEP: usize = 256 << 10;
/// How much memory that may take: a run has at least 6 bytes, and an entry of 20 in its list.
const BUDGET_MARGIN: usize = 5 * BUDGET_STEP;

/// The redo of one neighbourhood of pages, or rather of those that share a hash.
#[derive(Default)]
pub struct Partition {
    /// The runs.
    pub stream: Stream,
    /// How many.
    pub runs: usize,
    last_start: u64,
}

/// A batch of redo.
pub struct Collector {
    /// Holds the streams' bytes.
    pub arena: Arena,
    partitions: Vec<Partition>,
    window_shift: u32,
    /// Pages in all files; bounds how many pages a partition can have.
    pages: u64,
    base: Lsn,
    budget: usize,
    workers: usize,
    /// Tablespaces that nobody asks for.
    skipped: HashSet<SpaceId>,
    /// Bytes of the arena at which to look at the memory again.
    look_at: usize,
}

impl Collector {
    /// A collector that keeps itself and the lists of `workers` below `budget` bytes. `pages` is
    /// the number of pages in the backup.
    pub fn new(page_size: PageSize, pages: u64, budget: usize, workers: usize) -> Self {
        Self {
            arena: Arena::default(),
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            window_shift: (WINDOW_BYTES / page_size.bytes()).trailing_zeros(),
            pages,
            base: Lsn(0),
            budget,
            workers,
            skipped: HashSet::new(),
            look_at: 0,
        }
    }

    /// Does not collect what is for these tablespaces.
    pub fn skip(&mut self, spaces: HashSet<SpaceId>) {
        self.skipped = spaces;
    }

    /// Forgets the last batch and starts one at `base`.
    pub fn begin(&mut self, base: Lsn) {
        self.arena.clear();
        for partition in &mut self.partitions {
            partition.stream.clear();
            (partition.runs, partition.last_start) = (0, 0);
        }
        self.base = base;
        self.look_at = 0;
    }

    /// What LSNs of this batch count from.
    pub fn base(&self) -> Lsn {
        self.base
    }

    /// The streams.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The first page of the window of `page`, and how many pages a window has.
    pub fn window_pages(&self) -> u32 {
        1 << self.window_shift
    }

    /// Whether the batch must end before a mini-transaction that ends at `end` is added.
    #[inline]
    pub fn is_full(&mut self, end: Lsn) -> bool {
        if end.bytes_since(self.base).is_none_or(|bytes| bytes > BATCH_LSN_MAX) {
            return true;
        }
        if self.arena.bytes() < self.look_at {
            return false;
        }
        self.look_at = self.arena.bytes() + BUDGET_STEP;
        // The largest partitions are applied first, at the same time.
        let mut runs: Vec<usize> = self.partitions.iter().map(|p| p.runs).collect();
        runs.sort_unstable_by(|a, b| b.cmp(a));
        let pages = usize::try_from(self.pages / PARTITIONS as u64 * 2).unwrap_or(usize::MAX);
        let lists: usize =
            runs.iter().take(self.workers).map(|&runs| chains::memory(runs, pages)).sum();
        self.arena.bytes() + lists + BUDGET_MARGIN > self.budget
    }

    /// Adds a mini-transaction.
    pub fn add(&mut self, mtr: Mtr<'_>, facts: &mut LogFacts) -> Result<(), Malformed> {
        let start = mtr.start.0.wrapping_sub(self.base.0);
        let length = mtr.end.0.wrapping_sub(mtr.start.0);
        cut(mtr, facts, |run, _| {
            if !self.skipped.is_empty() && self.skipped.contains(&run.page.space) {
                return;
            }
            let window = run.page.page.0 >> self.window_shift;
            let partition = partition_of(run.page.space.0, window);
            if let Some(partition) = self.partitions.get_mut(partition) {
                partition.append(&mut self.arena, start, length, &run);
            }
        })
    }
}

impl Partition {
    #[inline]
    fn append(&mut self, arena: &mut Arena, start: u64, length: u64, run: &Run<'_>) {
        let mut header = [0; RUN_HEADER_MAX];
        let mut size = 0;
        let code = (run.records.len() as u64) << 1 | u64::from(run.resets);
        for mut value in [start - self.last_start, length, code] {
            // At most five bytes each: all are less than 2^32.
            loop {
                let more = value > 0x7f;
                if let Some(byte) = header.get_mut(size) {
                    *byte = value as u8 & 0x7f | u8::from(more) << 7;
                }
                size += 1;
                value >>= 7;
                if !more {
                    break;
                }
            }
        }
        self.stream.append(arena, header.get(..size).unwrap_or(&header));
        self.stream.append(arena, run.records);
        self.last_start = start;
        self.runs += 1;
    }
}

/// Only looks at what the log says about tablespaces, without collecting.
pub fn scan(mtr: Mtr<'_>, facts: &mut LogFacts) -> Result<(), Malformed> {
    cut(mtr, facts, |run, facts| {
        if run.resets {
            facts.reset(run.page, mtr.start);
        }
    })
}

/// Consecutive records of one page.
struct Run<'a> {
    page: PageId,
    /// Starts with FREE_PAGE or INIT_PAGE.
    resets: bool,
    records: &'a [u8],
}

/// Cuts a mini-transaction into runs.
#[inline]
fn cut<'a>(
    mtr: Mtr<'a>,
    facts: &mut LogFacts,
    mut emit: impl FnMut(Run<'a>, &mut LogFacts),
) -> Result<(), Malformed> {
    let mut open: Option<(PageId, bool, usize)> = None;
    let mut close = |open: Option<(PageId, bool, usize)>, end: usize, facts: &mut LogFacts| {
        let Some((page, resets, start)) = open else { return Ok(()) };
        let records = mtr.records.get(start..end).unwrap_or_default();
        facts.touch(page.space, mtr.start);
        if page.page.0 == 0 {
            facts.page_0(page.space, mtr.start, records)?;
        }
        emit(Run { page, resets, records }, facts);
        Ok(())
    };
    let mut records = Records::new(mtr.records);
    let mut at = 0;
    while let Some(record) = records.next() {
        let start = at;
        at = mtr.records.len() - records.rest().len();
        match record? {
            Record::File(record) => facts.file(mtr.start, record),
            Record::Page { page, kind: Kind::Extended, body: [TRIM_PAGES, ..], .. } => {
                close(open.take(), start, facts)?;
                facts.trim(page.space, Trim { lsn: mtr.start, pages: page.page });
            }
            Record::Page { own_ids: false, .. } => {
                if open.is_none() {
                    return Err(Malformed::Invalid("a change to a page behind TRIM_PAGES"));
                }
            }
            Record::Page { page, kind, .. } => {
                let resets = matches!(kind, Kind::FreePage | Kind::InitPage);
                if resets || open.is_none_or(|(current, ..)| current != page) {
                    close(open.take(), start, facts)?;
                    open = Some((page, resets, start));
                }
            }
        }
    }
    close(open, at, facts)
}

/// Spreads windows evenly, also those of one busy tablespace.
#[inline]
pub fn partition_of(space: u32, window: u32) -> usize {
    let key = (u64::from(space) << 32 | u64::from(window)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (key >> (64 - PARTITIONS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::chains::Chains;
    use super::*;
    use innodb::PageNo;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A record as the test thinks of it.
    #[derive(Clone, Copy, Debug)]
    struct Change {
        page: u8,
        /// 0: INIT_PAGE, 1: FREE_PAGE, else WRITE of that byte.
        what: u8,
        same_page: bool,
    }

    fn encode(changes: &[Change]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut last = None;
        for change in changes {
            match change.what {
                0 => out.extend([0x12, 5, change.page]),
                1 => out.extend([0x02, 5, change.page]),
                what if change.same_page && last == Some((change.page, true)) => {
                    out.extend([0xb2, 0, what]);
                }
                what => out.extend([0x34, 5, change.page, 100, what]),
            }
            last = Some((change.page, change.what != 1));
        }
        out
    }

    /// What a plain reading of the rules gives: for each page, the records that count with the
    /// number of their mini-transaction.
    fn expected(mtrs: &[Vec<Change>]) -> BTreeMap<u8, Vec<(usize, u8)>> {
        let mut pages: BTreeMap<u8, Vec<(usize, u8)>> = BTreeMap::new();
        for (number, mtr) in mtrs.iter().enumerate() {
            for change in mtr {
                let page = pages.entry(change.page).or_default();
                if change.what <= 1 {
                    page.clear();
                }
                page.push((number, change.what));
            }
        }
        pages
    }

    fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
        let change = (0u8..120, 0u8..20, any::<bool>());
        let change = change.prop_map(|(page, what, same_page)| Change { page, what, same_page });
        prop::collection::vec(prop::collection::vec(change, 1..12), 0..60)
    }

    proptest! {
        #[test]
        fn every_page_gets_its_records_in_order(mtrs in changes()) {
            let base = Lsn(70_000);
            let mut collector = Collector::new(PageSize::DEFAULT, 100, 1 << 30, 2);
            let mut facts = LogFacts::default();
            collector.begin(base);
            let mut at = base;
            let mut starts = Vec::new();
            for mtr in &mtrs {
                let records = encode(mtr);
                let end = at.advanced(records.len() as u64 + 5);
                starts.push((at, end));
                collector.add(Mtr { start: at, end, records: &records }, &mut facts).unwrap();
                at = end;
            }
            let mut found: BTreeMap<u8, Vec<(usize, u8)>> = BTreeMap::new();
            let mut chains = Chains::default();
            let mut scratch = Vec::new();
            for partition in collector.partitions() {
                chains.build(partition, &collector.arena, base, |_, _| false).unwrap();
                for chain in chains.chains() {
                    let records = found.entry(chain.page.page.0 as u8).or_default();
                    for run in chains.runs(chain) {
                        let number = starts.iter().position(|s| *s == (run.start, run.end)).unwrap();
                        let bytes = partition.stream.read(&collector.arena, run.at, run.length, &mut scratch);
                        for record in Records::new(bytes) {
                            let Record::Page { kind, page, body, .. } = record.unwrap() else { panic!() };
                            prop_assert_eq!(page, chain.page);
                            records.push((number, match kind {
                                Kind::InitPage => 0,
                                Kind::FreePage => 1,
                                _ => *body.last().unwrap(),
                            }));
                        }
                    }
                    // A page that is freed and written to is not made by that.
                    let resets = records[0].1 == 0 || (records[0].1 == 1 && records.len() == 1);
                    prop_assert_eq!(chain.resets, resets);
                }
            }
            prop_assert_eq!(found, expected(&mtrs));
        }
    }

    #[test]
    fn a_truncation_keeps_the_records_of_its_own_mini_transaction() {
        let mut collector = Collector::new(PageSize::DEFAULT, 100, 1 << 30, 2);
        let mut facts = LogFacts::default();
        collector.begin(Lsn(100));
        // TRIM_PAGES of tablespace 5 to 64 pages, then page 3 anew.
        let records = [0x23, 5, 64, TRIM_PAGES, 0x12, 5, 3];
        let mtr = Mtr { start: Lsn(200), end: Lsn(212), records: &records };
        collector.add(mtr, &mut facts).unwrap();
        let trim = facts.space(SpaceId(5)).unwrap().trim;
        assert_eq!(trim, Some(Trim { lsn: Lsn(200), pages: PageNo(64) }));
        assert_eq!(collector.partitions().iter().map(|p| p.runs).sum::<usize>(), 1);

        let records = [0x23, 5, 64, TRIM_PAGES, 0xb2, 5, 3];
        let mtr = Mtr { start: Lsn(212), end: Lsn(224), records: &records };
        assert!(collector.add(mtr, &mut facts).is_err());
    }

    #[test]
    fn a_full_batch_says_so_before_the_limit() {
        let budget = 10 << 20;
        let mut collector = Collector::new(PageSize::DEFAULT, 1000, budget, 2);
        let mut facts = LogFacts::default();
        collector.begin(Lsn(0));
        let (mut at, records) = (Lsn(0), [0x34, 5, 3, 100, 1]);
        loop {
            let end = at.advanced(10);
            if collector.is_full(end) {
                break;
            }
            collector.add(Mtr { start: at, end, records: &records }, &mut facts).unwrap();
            at = end;
        }
        // All runs are of one partition: the worst case for the lists.
        let runs = collector.partitions().iter().map(|p| p.runs).max().unwrap();
        let used = collector.arena.bytes() + chains::memory(runs, 4);
        assert!(used <= budget && used > budget / 2, "{used}");
    }
}
