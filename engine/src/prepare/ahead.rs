//! Redo that is sorted before its pages arrive, and applied to them on their way into their files.
//!
//! So a page is written once, in its final state, and never read. What is done here only spares
//! [`super::prepare`] work: every page it is told of as done was brought up to date with all of its
//! redo by the same code, and every other page it treats as always.
//!
//! Left to it are
//! - tablespaces that are encrypted or page-compressed, or whose descriptors the log changes: how
//!   their pages are stored is known only when all of the log and of page 0 is;
//! - page 0 of each tablespace, by which it recognises files;
//! - pages that are not intact, or that redo makes beyond the end of what was copied;
//! - everything, when the redo does not fit into the memory limit at once.
//!
//! Invariant: whatever casts doubt on where a page has gone (a file that was replaced, removed or
//! renamed, a second one with the same id, a part that is not whole pages) takes back all that was
//! said about its tablespace.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use innodb::page::{Verdict, verify};
use innodb::space::{PageCompression, SpaceFlags, SpaceHeader};
use innodb::{PageId, PageNo, SpaceId};
use xbstream::StreamPath;

use super::apply::{Redo, is_newer, is_undone};
use super::chains::{Chain, Chains};
use super::codec::{CodecScratch, PageCodec};
use super::collector::{Collector, PARTITIONS, partition_of};
use super::facts::LogFacts;
use super::log_reader::LogReader;
use super::{PrepareOptions, Read, finish, read_all, redo_budget};
use crate::extract::Arrivals;
use crate::keys::settings::KeyStore;
use crate::metadata::BackupMyCnf;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// All redo of a backup, by page, and what was done with it.
pub(crate) struct Ahead {
    pub(super) collector: Collector,
    pub(super) read: Read,
    /// Of each partition.
    sorted: Vec<Sorted>,
    window_pages: u32,
    files: Mutex<Files>,
    pages: AtomicU64,
}

/// The redo of one partition.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) chains: Chains,
    /// Of each chain, whether its page was brought up to date.
    done: Vec<AtomicBool>,
}

/// The tablespaces that are arriving.
#[derive(Default)]
struct Files {
    arriving: Vec<Arc<Arriving>>,
    by_path: HashMap<StreamPath, usize>,
    by_id: HashMap<SpaceId, usize>,
    doubtful: HashSet<SpaceId>,
}

struct Arriving {
    id: SpaceId,
    flags: SpaceFlags,
    name: String,
    changed: AtomicBool,
}

/// Whether a page is up to date.
pub(super) fn is_set(done: &AtomicBool) -> bool {
    done.load(Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    /// Reads and sorts the redo of a backup of which only the log and `backup-my.cnf` need to be
    /// there, and which will have about `bytes` bytes. `None` when it takes more memory than there
    /// is.
    pub(crate) fn collect(
        options: &PrepareOptions,
        bytes: u64,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<Option<Self>> {
        let dir = options.dir.as_path();
        let settings = BackupMyCnf::read(dir)?;
        let keys = KeyStore::new(settings.keys.clone().overlaid_with(options.keys.clone()));
        let log = LogReader::open(&dir.join(finish::LOG), &keys)?;
        let page_size = settings.page_size;
        let workers = options.parallel.max(1);
        let budget = redo_budget(options.memory, workers);
        if log.size() > budget as u64 {
            return Ok(None);
        }
        let pages = bytes / page_size.bytes() as u64;
        // The lists of all partitions are kept, not only those that are being applied.
        let mut collector = Collector::new(page_size, pages, budget, PARTITIONS);
        let facts = LogFacts::new(log.checkpoint().lsn, page_size);
        let read = read_all(&log, facts, &mut collector, cancel, reporter)?;
        if read.next_batch.is_some() {
            return Ok(None);
        }
        let sorted = sort(&collector, &read.facts, workers)?;
        let window_pages = collector.window_pages();
        let (files, pages) = (Mutex::default(), AtomicU64::new(0));
        Ok(Some(Self { collector, read, sorted, window_pages, files, pages }))
    }

    /// The sorted redo of a partition.
    pub(super) fn sorted(&self, partition: usize) -> Option<&Sorted> {
        self.sorted.get(partition)
    }

    /// Pages that were changed on their way.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Whether the page of each chain from `first` on, all of one tablespace, is up to date in its
    /// file; shorter when the rest are not.
    pub(super) fn done(&self, partition: usize, first: usize, space: SpaceId) -> &[AtomicBool] {
        let sorted = self.sorted.get(partition);
        let sorted = sorted.filter(|_| !lock(&self.files).doubtful.contains(&space));
        sorted.and_then(|sorted| sorted.done.get(first..)).unwrap_or_default()
    }

    /// The files with such pages.
    pub(super) fn files(&self) -> BTreeSet<(SpaceId, usize)> {
        let files = lock(&self.files);
        let changed = files.arriving.iter().filter(|space| space.changed.load(Ordering::Relaxed));
        changed.map(|space| (space.id, 0)).collect()
    }

    /// Whether how the pages of a tablespace are stored is certain before the log is applied.
    fn is_plain(&self, header: &SpaceHeader) -> bool {
        let same = |word| SpaceFlags::parse(word).is_ok_and(|flags| flags == header.flags);
        let known = self.read.facts.space(header.id);
        header.crypt.is_none()
            && header.flags.page_compression() == PageCompression::None
            && known.is_none_or(|known| !known.has_crypt() && known.flags.is_none_or(same))
    }

    /// Brings the pages of one window up to date that are in `bytes`.
    fn apply_window(
        &self,
        space: &Arriving,
        first: PageNo,
        bytes: &mut [u8],
        scratch: &mut (Vec<u8>, CodecScratch),
    ) -> Result<()> {
        let size = space.flags.physical_size().bytes();
        let number = partition_of(space.id.0, first.0 / self.window_pages);
        let partitions = self.collector.partitions();
        let (Some(sorted), Some(partition)) = (self.sorted.get(number), partitions.get(number))
        else {
            return Ok(());
        };
        let chains = sorted.chains.chains();
        let begin = PageId { space: space.id, page: first };
        let from = chains.partition_point(|chain| chain.page < begin);
        let redo = Redo { chains: &sorted.chains, partition, arena: &self.collector.arena };
        for (at, chain) in chains.iter().enumerate().skip(from) {
            let behind = chain.page.page.0.saturating_sub(first.0) as usize * size;
            if chain.page.space != space.id || behind >= bytes.len() {
                break;
            }
            let Some(page) = bytes.get_mut(behind..behind + size) else { break };
            if chain.page.page == PageNo(0) || self.is_undone(&sorted.chains, chain) {
                continue;
            }
            if !chain.resets {
                let verdict = verify(page, chain.page.page, Some(space.id), &space.flags);
                if !matches!(verdict, Verdict::Ok | Verdict::AllZero)
                    || is_newer(page, self.read.end.lsn)
                {
                    continue;
                }
            }
            let (records, codec) = scratch;
            let changed = redo.bring_up_to_date(
                page,
                chain,
                (&space.flags, &PageCodec::default(), &space.name),
                records,
                codec,
            )?;
            if changed {
                self.pages.fetch_add(1, Ordering::Relaxed);
                space.changed.store(true, Ordering::Relaxed);
            }
            if let Some(done) = sorted.done.get(at) {
                done.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn is_undone(&self, chains: &Chains, chain: &Chain) -> bool {
        is_undone(&self.read.facts, chains, chain)
    }
}

impl Arrivals for Ahead {
    fn begin(&self, path: &StreamPath, start: &[u8]) -> Option<usize> {
        let name = path.file_name();
        let is_space =
            name.ends_with(b".ibd") || name.starts_with(b"undo") || name.starts_with(b"ibdata");
        let header = SpaceHeader::parse(start).ok().filter(|_| is_space)?;
        let mut files = lock(&self.files);
        let again = files.by_path.get(path).copied();
        let other = files.by_id.get(&header.id).copied().filter(|other| Some(*other) != again);
        let changed = again
            .and_then(|again| files.arriving.get(again))
            .map(|arriving| arriving.id)
            .filter(|id| *id != header.id);
        if other.is_some() || changed.is_some() {
            files.doubtful.insert(header.id);
            files.doubtful.extend(changed);
            return None;
        }
        if again.is_some() || !self.is_plain(&header) {
            return again;
        }
        let number = files.arriving.len();
        let name = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let changed = AtomicBool::new(false);
        let arriving = Arriving { id: header.id, flags: header.flags, name, changed };
        files.arriving.push(Arc::new(arriving));
        files.by_path.insert(path.clone(), number);
        files.by_id.insert(header.id, number);
        Some(number)
    }

    fn part(&self, number: usize, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let Some(space) = lock(&self.files).arriving.get(number).map(Arc::clone) else {
            return Ok(());
        };
        let size = space.flags.physical_size().bytes();
        let first = offset / size as u64;
        let last = first + (bytes.len() / size) as u64;
        let whole = offset.is_multiple_of(size as u64) && bytes.len().is_multiple_of(size);
        if !whole || last > u64::from(u32::MAX) {
            lock(&self.files).doubtful.insert(space.id);
            return Ok(());
        }
        let mut scratch = (Vec::new(), CodecScratch::default());
        let (mut page, mut rest) = (first as u32, bytes);
        while !rest.is_empty() {
            let in_window = (self.window_pages - page % self.window_pages) as usize;
            let len = rest.len().min(in_window * size);
            let (window, behind) = rest.split_at_mut(len);
            self.apply_window(&space, PageNo(page), window, &mut scratch)?;
            page += (len / size) as u32;
            rest = behind;
        }
        Ok(())
    }

    fn gone(&self, path: &StreamPath) {
        let mut files = lock(&self.files);
        let number = files.by_path.get(path).copied();
        if let Some(id) = number.and_then(|n| files.arriving.get(n)).map(|space| space.id) {
            files.doubtful.insert(id);
        }
    }
}

/// Sorts all partitions, with `workers` threads.
fn sort(collector: &Collector, facts: &LogFacts, workers: usize) -> Result<Vec<Sorted>> {
    let partitions = collector.partitions();
    let all: Vec<Mutex<Sorted>> = partitions.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(partition), Some(sorted)) = (partitions.get(number), all.get(number)) else {
                return;
            };
            let mut sorted = lock(sorted);
            let moot = |page, start| super::apply::is_moot(facts, page, start);
            let built = sorted.chains.build(partition, &collector.arena, collector.base(), moot);
            if let Err(error) = built {
                lock(&failed).get_or_insert(error);
                return;
            }
            sorted.chains.settle();
            sorted.done = sorted.chains.chains().iter().map(|_| AtomicBool::new(false)).collect();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(Error::new(ErrorKind::Damage, "cannot sort the redo log").caused_by(error));
    }
    let settle =
        |sorted: Mutex<Sorted>| sorted.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(all.into_iter().map(settle).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use innodb::page::layout::fil;
    use innodb::page::stamp::stamp;
    use innodb::redo::mtr::Mtr;
    use innodb::space::header;
    use innodb::{Lsn, PageSize, page};

    const SIZE: usize = 16 << 10;
    const ID: SpaceId = SpaceId(5);
    /// Behind the header of a page, where the redo of the tests writes a byte.
    const AT: usize = 100;

    /// Redo that writes to page 3 of the tablespace, in the mini-transaction from 100 to 112.
    fn ahead() -> Ahead {
        let mut collector = Collector::new(PageSize::DEFAULT, 1000, 64 << 20, PARTITIONS);
        let mut facts = LogFacts::default();
        collector.begin(Lsn(90));
        let records = [0x34, ID.0 as u8, 3, AT as u8, 0x77];
        let mtr = Mtr { start: Lsn(100), end: Lsn(112), records: &records };
        collector.add(mtr, &mut facts).unwrap();
        let sorted = sort(&collector, &facts, 2).unwrap();
        let end = super::super::End { lsn: Lsn(200), stop: None };
        let read = Read { end, facts, mini_transactions: 1, next_batch: None };
        let window_pages = collector.window_pages();
        let (files, pages) = (Mutex::default(), AtomicU64::new(0));
        Ahead { collector, read, sorted, window_pages, files, pages }
    }

    impl Ahead {
        fn all_done(&self) -> bool {
            let mut partitions = self.sorted.iter().enumerate();
            partitions.all(|(number, sorted)| {
                let done = self.done(number, 0, ID);
                done.len() == sorted.done.len() && done.iter().all(is_set)
            })
        }
    }

    /// Four pages of a tablespace with these flags.
    fn file(id: SpaceId, word: u32) -> Vec<u8> {
        let flags = SpaceFlags::parse(word).unwrap();
        let mut file = vec![0; 4 * SIZE];
        for (number, page) in file.chunks_exact_mut(SIZE).enumerate() {
            page[fil::PAGE_NO..][..4].copy_from_slice(&(number as u32).to_be_bytes());
            page[fil::SPACE_ID..][..4].copy_from_slice(&id.0.to_be_bytes());
            let page_type: u16 = if number == 0 { 8 } else { 17855 };
            page[fil::TYPE..][..2].copy_from_slice(&page_type.to_be_bytes());
            if number == 0 {
                page[header::SPACE_ID..][..4].copy_from_slice(&id.0.to_be_bytes());
                page[header::FLAGS..][..4].copy_from_slice(&word.to_be_bytes());
                page[header::SIZE..][..4].copy_from_slice(&4u32.to_be_bytes());
            }
            let page_id = PageId { space: id, page: PageNo(number as u32) };
            stamp(page, page_id, Lsn(50), &flags).unwrap();
        }
        file
    }

    fn path(name: &str) -> StreamPath {
        StreamPath::new(name).unwrap()
    }

    #[test]
    fn a_page_arrives_up_to_date() {
        for word in [0x15, 0] {
            let (ahead, mut bytes) = (ahead(), file(ID, word));
            let before = bytes.clone();
            let number = ahead.begin(&path("d/t.ibd"), &bytes).unwrap();
            // In two parts, the second of which has the page.
            let (first, second) = bytes.split_at_mut(2 * SIZE);
            ahead.part(number, 0, first).unwrap();
            assert!(!ahead.all_done());
            ahead.part(number, 2 * SIZE as u64, second).unwrap();
            assert!(ahead.all_done());
            assert_eq!((ahead.pages(), ahead.files()), (1, BTreeSet::from([(ID, 0)])));
            assert!(bytes[..3 * SIZE] == before[..3 * SIZE]);
            let page = &bytes[3 * SIZE..];
            assert_eq!((page[AT], page::lsn(page)), (0x77, Some(Lsn(112))));
            let flags = SpaceFlags::parse(word).unwrap();
            assert_eq!(verify(page, PageNo(3), Some(ID), &flags), Verdict::Ok);
            // Once more is no harm.
            let again = bytes.clone();
            ahead.part(number, 0, &mut bytes).unwrap();
            assert!(bytes == again && ahead.all_done());
        }
    }

    #[test]
    fn doubt_takes_back_what_was_said() {
        type Doubt = fn(&Ahead, usize);
        let doubts: [(&str, Doubt); 4] = [
            ("removed", |ahead, _| ahead.gone(&path("d/t.ibd"))),
            ("a second file", |ahead, _| {
                assert_eq!(ahead.begin(&path("d/u.ibd"), &file(ID, 0x15)), None);
            }),
            ("another tablespace", |ahead, _| {
                assert_eq!(ahead.begin(&path("d/t.ibd"), &file(SpaceId(6), 0x15)), None);
            }),
            ("no whole pages", |ahead, number| {
                ahead.part(number, 100, &mut [0; 100]).unwrap();
            }),
        ];
        for (name, doubt) in doubts {
            let (ahead, mut bytes) = (ahead(), file(ID, 0x15));
            let number = ahead.begin(&path("d/t.ibd"), &bytes).unwrap();
            ahead.part(number, 0, &mut bytes).unwrap();
            assert!(ahead.all_done());
            ahead.gone(&path("d/other.ibd"));
            assert!(ahead.all_done());
            doubt(&ahead, number);
            assert!(!ahead.all_done(), "{name}");
        }
    }

    #[test]
    fn what_is_not_certain_is_left_alone() {
        let (ahead, mut bytes) = (ahead(), file(ID, 0x15));
        let number = ahead.begin(&path("d/t.ibd"), &bytes).unwrap();
        bytes[3 * SIZE + 200] ^= 1;
        let damaged = bytes.clone();
        ahead.part(number, 0, &mut bytes).unwrap();
        assert!(bytes == damaged && !ahead.all_done());

        // Page-compressed, no tablespace, and nothing that says what it is.
        for (name, start) in [
            ("d/t.ibd", file(ID, 0x15 | 1 << 5)),
            ("d/t.MYD", file(ID, 0x15)),
            ("d/t.ibd", vec![0; SIZE]),
            ("d/t.ibd", Vec::new()),
        ] {
            assert_eq!(self::ahead().begin(&path(name), &start), None);
        }
    }
}
