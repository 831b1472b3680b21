//! Applying a batch: parallel workers, one partition at a time, one window of pages at a time.
//!
//! For every window: read the pages that redo does not make anew, apply what each page lacks,
//! stamp, write to the journal, write to the file. Partitions are taken in the order of their
//! size, largest first, so that the workers end at about the same time.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use innodb::page;
use innodb::redo;
use innodb::redo::apply::ApplyTarget;
use innodb::redo::record::{Bodies, Body};
use innodb::space::SpaceFlags;
use innodb::{Lsn, PageId, PageNo, SpaceId};

use super::ahead::{Ahead, is_set};
use super::arena::Arena;
use super::chains::{Chain, Chains};
use super::codec::{CodecScratch, PageCodec};
use super::collector::{Collector, Partition, WINDOW_BYTES};
use super::facts::LogFacts;
use super::inventory::{DataFile, Tablespace};
use super::journal::Journal;
use super::meter::Meter;
use crate::io::{Buffer, holes};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// Files that a worker keeps open.
const OPEN_FILES: usize = 64;

/// What workers need to know of a batch.
pub struct Batch<'a> {
    /// The redo.
    pub collector: &'a Collector,
    /// The same, sorted, some of which was applied already.
    pub ahead: Option<&'a Ahead>,
    /// What the whole log says about tablespaces.
    pub facts: &'a LogFacts,
    /// The files, in their final sizes.
    pub spaces: &'a HashMap<SpaceId, Tablespace>,
    /// End of the log: no page can be newer.
    pub end: Lsn,
    /// Takes the pages before they are written.
    pub journal: &'a Journal,
    /// Told about progress.
    pub meter: &'a Meter<'a>,
    /// Looked at between windows.
    pub cancel: &'a Cancel,
    /// Told about damaged pages, which are left as they are then; else they are errors.
    pub damaged: Option<&'a dyn Reporter>,
}

/// What was done to a batch.
#[derive(Debug, Default)]
pub struct Applied {
    /// Pages written.
    pub pages: u64,
    /// Files written to: the tablespace and the number of its file.
    pub files: BTreeSet<(SpaceId, usize)>,
}

impl Batch<'_> {
    /// Applies everything with `workers` threads.
    pub fn apply(&self, workers: usize) -> Result<Applied> {
        let all = self.collector.partitions().iter().enumerate();
        let mut order: Vec<(usize, &Partition)> = all.filter(|(_, p)| p.runs > 0).collect();
        order.sort_unstable_by_key(|(_, partition)| std::cmp::Reverse(partition.stream.len()));
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let outcome: Mutex<Result<Applied>> = Mutex::new(Ok(Applied::default()));
        let work = |number: usize| {
            let mut worker = Worker::new(self, number);
            let done = loop {
                let partition = order.get(next.fetch_add(1, Ordering::Relaxed));
                let (Some((number, partition)), false) =
                    (partition, failed.load(Ordering::Relaxed))
                else {
                    break Ok(());
                };
                if let Err(error) = worker.partition(*number, partition) {
                    failed.store(true, Ordering::Relaxed);
                    break Err(error);
                }
            };
            let mut outcome = outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Ok(all) = outcome.as_mut() {
                all.pages += worker.applied.pages;
                all.files.append(&mut worker.applied.files);
                if let Err(error) = done {
                    *outcome = Err(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for number in 1..workers {
                let work = &work;
                scope.spawn(move || work(number));
            }
            work(0);
        });
        outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A thread that applies partitions, and the buffers it keeps.
struct Worker<'a> {
    batch: &'a Batch<'a>,
    number: usize,
    chains: Chains,
    /// A window of pages.
    window: Buffer,
    /// Holds a run of records that is not in one block.
    scratch: Vec<u8>,
    codec: CodecScratch,
    files: HashMap<(SpaceId, usize), File>,
    applied: Applied,
}

/// A page of the window, on its way through.
struct Slot<'c> {
    chain: &'c Chain,
    /// Where in the window.
    at: usize,
    changed: bool,
}

impl<'a> Worker<'a> {
    fn new(batch: &'a Batch<'a>, number: usize) -> Self {
        Self {
            batch,
            number,
            chains: Chains::default(),
            window: Buffer::new(WINDOW_BYTES),
            scratch: Vec::new(),
            codec: CodecScratch::default(),
            files: HashMap::new(),
            applied: Applied::default(),
        }
    }

    fn partition(&mut self, number: usize, partition: &Partition) -> Result<()> {
        let batch = self.batch;
        let result = match batch.ahead.and_then(|ahead| ahead.sorted(number)) {
            Some(sorted) => self.windows(number, partition, &sorted.chains),
            None => {
                let mut chains = std::mem::take(&mut self.chains);
                let collector = batch.collector;
                let moot = |page, start| is_moot(batch.facts, page, start);
                let result = chains
                    .build(partition, &collector.arena, collector.base(), moot)
                    .map_err(|e| {
                        Error::new(ErrorKind::Damage, "cannot sort the redo log").caused_by(e)
                    })
                    .and_then(|()| self.windows(number, partition, &chains));
                self.chains = chains;
                result
            }
        };
        batch.meter.add(partition.stream.len() as u64);
        result
    }

    fn windows(&mut self, number: usize, partition: &Partition, chains: &Chains) -> Result<()> {
        let all = chains.chains();
        let mut at = 0;
        while let Some(first) = all.get(at) {
            let rest = all.get(at..).unwrap_or_default();
            let size = rest.iter().take_while(|c| self.same_window(first, c)).count();
            self.batch.cancel.check()?;
            self.apply_window((number, at), partition, chains, rest.get(..size).unwrap_or(rest))?;
            at += size;
        }
        Ok(())
    }

    fn same_window(&self, a: &Chain, b: &Chain) -> bool {
        let pages = self.batch.collector.window_pages();
        a.page.space == b.page.space && a.page.page.0 / pages == b.page.page.0 / pages
    }

    /// Brings the pages of one window up to date. `place` has the numbers of the partition and of
    /// the first chain in it.
    fn apply_window(
        &mut self,
        place: (usize, usize),
        partition: &Partition,
        chains: &Chains,
        window: &[Chain],
    ) -> Result<()> {
        let batch = self.batch;
        let Some(first) = window.first() else { return Ok(()) };
        let Some(space) = batch.spaces.get(&first.page.space) else { return Ok(()) };
        let page_size = space.flags.physical_size().bytes();
        let base =
            first.page.page.0 / batch.collector.window_pages() * batch.collector.window_pages();
        let ahead = batch.ahead.map(|ahead| ahead.done(place.0, place.1, first.page.space));
        let done = ahead.unwrap_or_default();
        let is_done = |at: usize| done.get(at).is_some_and(is_set);
        let mut slots: Vec<Slot<'_>> = window
            .iter()
            .enumerate()
            .filter(|(at, chain)| !is_undone(batch.facts, chains, chain) && !is_done(*at))
            .map(|(_, chain)| Slot {
                chain,
                at: (chain.page.page.0 - base) as usize * page_size,
                changed: false,
            })
            .collect();
        let damaged = self.read(space, &slots, page_size)?;
        slots.retain(|slot| !damaged.contains(&slot.at));
        for slot in &mut slots {
            slot.changed = self.apply_page(partition, chains, space, slot, page_size)?;
        }
        self.write(space, &slots, page_size)
    }

    /// Reads the pages that redo does not make anew, checks them and makes them plain. Where in the
    /// window those are that are damaged and left so.
    fn read(
        &mut self,
        space: &Tablespace,
        slots: &[Slot<'_>],
        page_size: usize,
    ) -> Result<BTreeSet<usize>> {
        let mut damaged = BTreeSet::new();
        let wanted = slots.iter().filter(|slot| !slot.chain.resets);
        let mut runs = Runs::new(wanted, space, page_size);
        while let Some(run) = runs.next()? {
            let buffer = self.window.get_mut(run.at..run.at + run.size).unwrap_or_default();
            let file = open(&mut self.files, space, &run)?;
            file.read_exact_at(buffer, run.offset)
                .map_err(|e| Error::io("read", &run.file.path, e))?;
            for (number, page) in buffer.chunks_exact_mut(page_size).enumerate() {
                let page_no = PageNo(run.first.0 + number as u32);
                let opened = space.open(page, page_no, run.file, &mut self.codec);
                match (opened, self.batch.damaged) {
                    (Err(error), Some(reporter)) if error.kind() == ErrorKind::Damage => {
                        reporter.warn(format!("{error}; the page is left as it is"));
                        damaged.insert(run.at + number * page_size);
                        continue;
                    }
                    (opened, _) => opened?,
                }
                self.batch.check(space, run.file, page_no, page)?;
            }
        }
        Ok(damaged)
    }

    /// Applies what the page lacks; false when it lacks nothing.
    fn apply_page(
        &mut self,
        partition: &Partition,
        chains: &Chains,
        space: &Tablespace,
        slot: &Slot<'_>,
        page_size: usize,
    ) -> Result<bool> {
        let id = slot.chain.page;
        let Some(page) = self.window.get_mut(slot.at..slot.at + page_size) else {
            return Ok(false);
        };
        let name = space.files.first().map_or("", |file| &file.name);
        let redo = Redo { chains, partition, arena: &self.batch.collector.arena };
        let mut changed = redo.bring_up_to_date(
            page,
            slot.chain,
            (&space.flags, &space.codec, name),
            &mut self.scratch,
            &mut self.codec,
        )?;
        // The server gives the space of a compressed page back when the page is freed.
        if !changed && slot.chain.resets && space.has_holes() && space.locate(id.page).is_some() {
            page.fill(0);
            changed = true;
        }
        Ok(changed)
    }

    /// Writes the changed pages, first to the journal.
    fn write(&mut self, space: &Tablespace, slots: &[Slot<'_>], page_size: usize) -> Result<()> {
        let mut runs = Runs::new(slots.iter().filter(|slot| slot.changed), space, page_size);
        let mut all = Vec::new();
        while let Some(run) = runs.next()? {
            all.push(run);
        }
        for same_file in all.chunk_by(|a, b| a.number == b.number) {
            let Some(file) = same_file.first().map(|run| run.file) else { continue };
            let images: Vec<(PageNo, &[u8])> = same_file
                .iter()
                .map(|run| {
                    (run.first, self.window.get(run.at..run.at + run.size).unwrap_or_default())
                })
                .collect();
            self.batch.journal.note(self.number, space, file, &images)?;
            for (run, (_, images)) in same_file.iter().zip(&images) {
                let file = open(&mut self.files, space, run)?;
                match space.has_holes() {
                    true => holes::write_all_at(file, images, run.offset),
                    false => file.write_all_at(images, run.offset),
                }
                .map_err(|e| Error::io("write", &run.file.path, e))?;
                self.applied.pages += (run.size / page_size) as u64;
                self.applied.files.insert((space.id, run.number));
            }
        }
        Ok(())
    }
}

/// Whether what happened to a page in the mini-transaction at `start` was undone by a deletion or
/// truncation of its file.
pub fn is_moot(facts: &LogFacts, page: PageId, start: Lsn) -> bool {
    let Some(known) = facts.space(page.space) else { return false };
    if known.deleted_at.is_some_and(|deleted_at| start < deleted_at) {
        return true;
    }
    known.trim.is_some_and(|trim| {
        // An undo tablespace starts over; the system tablespace only loses its end.
        start < trim.lsn && (page.space != SpaceId::SYSTEM || page.page >= trim.pages)
    })
}

/// Whether a later batch makes the page anew, or frees it.
pub fn is_undone(facts: &LogFacts, chains: &Chains, chain: &Chain) -> bool {
    let last = chains.last_run(chain).map(|run| run.start).unwrap_or_default();
    facts.is_reset_behind(chain.page, last)
}

/// Whether a page is newer than `end`.
pub fn is_newer(page: &[u8], end: Lsn) -> bool {
    page::lsn(page).unwrap_or_default() > end
}

/// Sorted redo of a partition.
pub struct Redo<'a> {
    /// By page.
    pub chains: &'a Chains,
    /// The runs.
    pub partition: &'a Partition,
    /// Their bytes.
    pub arena: &'a Arena,
}

impl Redo<'_> {
    /// Applies what a plain page lacks and makes the form to write of it; false when it lacks
    /// nothing. The tablespace is known by its flags, how its pages are stored, and a name.
    pub fn bring_up_to_date(
        &self,
        page: &mut [u8],
        chain: &Chain,
        (flags, codec, name): (&SpaceFlags, &PageCodec, &str),
        records: &mut Vec<u8>,
        scratch: &mut CodecScratch,
    ) -> Result<bool> {
        let id = chain.page;
        let lsn = match chain.resets {
            true => Lsn(0),
            false => page::lsn(page).unwrap_or_default(),
        };
        let target = ApplyTarget { page: id, zip: flags.zip_size().is_some() };
        let mut changed = false;
        for run in self.chains.runs(chain).filter(|run| run.start >= lsn) {
            let records = self.partition.stream.read(self.arena, run.at, run.length, records);
            changed |= apply_run(page, target, records).map_err(|e| {
                Error::new(
                    ErrorKind::Damage,
                    format!("cannot apply the redo of LSN {} to {name}, {id}", run.start),
                )
                .advise("the copy of the page or the redo log is damaged; take a new backup")
                .caused_by(e)
            })?;
        }
        if let (true, Some(last)) = (changed, self.chains.last_run(chain)) {
            codec.seal(page, id, last.end, flags, scratch)?;
        }
        Ok(changed)
    }
}

/// Applies the records of one run; false when none of them changes a byte.
fn apply_run(
    page: &mut [u8],
    target: ApplyTarget,
    records: &[u8],
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let mut changed = false;
    for body in Bodies::new(records) {
        let body = body?;
        redo::apply::apply(page, target, &body)?;
        changed |= !matches!(body, Body::FreePage | Body::Option { .. });
    }
    Ok(changed)
}

impl Batch<'_> {
    /// Refuses a page that is newer than the log.
    fn check(
        &self,
        space: &Tablespace,
        file: &DataFile,
        page_no: PageNo,
        page: &[u8],
    ) -> Result<()> {
        if !is_newer(page, self.end) {
            return Ok(());
        }
        let lsn = page::lsn(page).unwrap_or_default();
        let id = PageId { space: space.id, page: page_no };
        let message = format!(
            "{} has {id} of LSN {lsn}, but the redo log ends at LSN {}",
            file.name, self.end
        );
        Err(Error::new(ErrorKind::Gap, message)
            .advise("the redo log was cut short; take a new backup"))
    }
}

/// Neighbouring pages of one file.
#[derive(Clone, Copy)]
struct Run<'f> {
    file: &'f DataFile,
    /// Of the file in its tablespace.
    number: usize,
    first: PageNo,
    /// Where in the window.
    at: usize,
    /// Bytes.
    size: usize,
    /// Where in the file.
    offset: u64,
}

/// Joins pages of a window to runs.
struct Runs<'f, I: Iterator> {
    slots: std::iter::Peekable<I>,
    space: &'f Tablespace,
    page_size: usize,
}

impl<'f, 's, 'c: 's, I: Iterator<Item = &'s Slot<'c>>> Runs<'f, I> {
    fn new(slots: I, space: &'f Tablespace, page_size: usize) -> Self {
        Self { slots: slots.peekable(), space, page_size }
    }

    fn next(&mut self) -> Result<Option<Run<'f>>> {
        let Some(slot) = self.slots.next() else { return Ok(None) };
        let first = slot.chain.page.page;
        let Some((number, file, left)) = self.space.locate(first) else {
            let id = slot.chain.page;
            let name = self.space.files.last().map_or("", |file| &file.name);
            return Err(Error::new(
                ErrorKind::Damage,
                format!("the redo log changes {id}, which is beyond the end of {name}"),
            )
            .advise("the file was cut short; take a new backup"));
        };
        let mut size = self.page_size;
        while (size / self.page_size) < usize::try_from(left).unwrap_or(usize::MAX)
            && self.slots.next_if(|next| next.at == slot.at + size).is_some()
        {
            size += self.page_size;
        }
        let offset = u64::from(first.0 - file.first_page.0) * self.page_size as u64;
        Ok(Some(Run { file, number, first, at: slot.at, size, offset }))
    }
}

/// The open file of `run`.
fn open<'w>(
    files: &'w mut HashMap<(SpaceId, usize), File>,
    space: &Tablespace,
    run: &Run<'_>,
) -> Result<&'w File> {
    use std::collections::hash_map::Entry;
    let key = (space.id, run.number);
    if files.len() >= OPEN_FILES && !files.contains_key(&key) {
        files.clear();
    }
    match files.entry(key) {
        Entry::Occupied(file) => Ok(file.into_mut()),
        Entry::Vacant(vacant) => {
            let file = OpenOptions::new().read(true).write(true).open(&run.file.path);
            Ok(vacant.insert(file.map_err(|e| Error::io("open", &run.file.path, e))?))
        }
    }
}
