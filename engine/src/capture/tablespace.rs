//! Copying tablespaces page by page, every page checked as it passes.
//!
//! Work is cut into units of [`UNIT`] bytes. A thread takes those of a file of its own, because two
//! writers of one file wait for each other in the kernel; when no files are left it helps with
//! the file that has most left, so that one large file keeps all threads busy. Units of a file are
//! taken in the order of offsets, so that a stream gets its pieces in order.
//! The server writes pages while they are read: a page that fails its check is read again until
//! it is whole, or was broken for [`TORN_PATIENCE`] and is proven corrupt.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use innodb::page::{self, PageCompressor, Verdict, verify};
use innodb::space::header::{HeaderError, SpaceHeader};
use innodb::space::xdes::pages_per_extent;
use innodb::{Lsn, PageId, PageNo, PageSize, SpaceId};

use super::changed::{ChangedPages, Limit, Output};
use super::checks::{damage_advice, known_id, look_inside, refuse_cut_short, refuse_other_undo};
use super::inventory::ServerFile;
use super::job::{Copied, Identity, Job, Role};
use super::protocol::Settings;
use super::run::Run;
use super::unidentified;
use crate::delta::meta::Meta;
use crate::io::Buffer;
use crate::io::read_ahead::{IoMode, ReadAhead, drop_cached, read_at};
use crate::keys::SpaceKeys;
use crate::keys::settings::KeyStore;
use crate::report::Event;
use crate::server::profile::ServerProfile;
use crate::sink::{Mode, StreamPath, backup_path, write_file};
use crate::{Error, ErrorKind, Result};

/// Bytes read, checked and written at once: a multiple of every page size that stays in the
/// processor's cache from one step to the next.
const UNIT: u64 = 1 << 20;
/// Reads in flight for each thread.
const DEPTH: usize = 3;
/// How long a page may fail its check before it is called corrupt.
const TORN_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two reads of a torn page.
const TORN_PAUSE: Duration = Duration::from_millis(10);

/// A page that stayed corrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptPage {
    /// Path in the backup.
    pub path: StreamPath,
    /// Tablespace and page within it.
    pub page: PageId,
}

/// Copies tablespaces. One for a backup: it adds up what was seen.
pub struct TablespaceCopier<'a> {
    run: &'a Run<'a>,
    threads: usize,
    page_size: PageSize,
    /// Whether what was copied leaves the page cache: nobody else reads it from there. The copy
    /// takes its place, which saves a guest system the memory faults of fresh pages, and what
    /// other programs have in the cache stays there.
    drop_behind: bool,
    io_mode: IoMode,
    continue_on_corrupt: bool,
    names: &'a (dyn Fn(&StreamPath) -> Option<SpaceId> + Sync),
    torn: AtomicU64,
    newest: AtomicU64,
    corrupt: Mutex<Vec<CorruptPage>>,
    /// For a look inside of encrypted pages.
    keys: Option<Arc<KeyStore>>,
    /// What is copied of the pages, where not all are.
    limit: Option<Limit>,
    changed: AtomicU64,
}

/// A file that is open for copying.
struct Open {
    source: Arc<File>,
    file: ServerFile,
    target: Output,
    size: u64,
    header: Option<SpaceHeader>,
    role: Role,
    page_size: PageSize,
    unwritten: AtomicU64,
    /// For a look inside of encrypted pages.
    keys: Option<SpaceKeys>,
}

#[derive(Clone)]
struct Unit {
    open: Arc<Open>,
    offset: u64,
    length: usize,
}

struct Queue {
    jobs: VecDeque<Job>,
    /// Files with units that nobody took yet.
    open: Vec<Started>,
    copied: Vec<Copied>,
}

/// A file of which some units are still to be taken.
struct Started {
    open: Arc<Open>,
    /// Where the next unit starts.
    next: u64,
    /// Who opened it.
    worker: usize,
}

impl Queue {
    /// The next unit of the file that `worker` has begun; with `any`, of the file that has most left.
    fn next_unit(&mut self, worker: usize, any: bool) -> Option<Unit> {
        let own = self.open.iter().position(|started| started.worker == worker);
        let index = own.or_else(|| {
            let left = |started: &Started| started.open.size - started.next;
            let most = self.open.iter().enumerate().max_by_key(|(_, started)| left(started));
            most.map(|(index, _)| index).filter(|_| any)
        })?;
        let started = self.open.get_mut(index)?;
        let unit = Unit {
            open: Arc::clone(&started.open),
            offset: started.next,
            length: UNIT.min(started.open.size - started.next) as usize,
        };
        started.next += UNIT;
        if started.next >= started.open.size {
            self.open.swap_remove(index);
        }
        Some(unit)
    }
}

impl<'a> TablespaceCopier<'a> {
    /// `names` tells the tablespace that the redo log names for a path: young tablespaces have no
    /// page 0 that could tell.
    pub fn new(
        run: &'a Run<'a>,
        settings: &Settings,
        profile: &ServerProfile,
        names: &'a (dyn Fn(&StreamPath) -> Option<SpaceId> + Sync),
    ) -> Self {
        Self {
            run,
            threads: settings.threads,
            page_size: profile.page_size,
            drop_behind: profile.bypasses_page_cache(),
            io_mode: settings.io_mode,
            continue_on_corrupt: settings.continue_on_corrupt_pages,
            names,
            torn: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            corrupt: Mutex::default(),
            keys: settings.deep_check.then(|| Arc::clone(&settings.keys)),
            limit: settings.base.map(|base| Limit {
                since: base.pages_since,
                spool_dir: settings.spool_dir.clone(),
            }),
            changed: AtomicU64::new(0),
        }
    }

    /// Pages that a delta has.
    pub fn changed_pages(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }

    /// Pages that were torn and healed.
    pub fn torn_pages(&self) -> u64 {
        self.torn.load(Ordering::Relaxed)
    }

    /// The newest LSN of any page: redo must reach it.
    pub fn newest_page(&self) -> Lsn {
        Lsn(self.newest.load(Ordering::Relaxed))
    }

    /// Pages that stayed corrupt; empty unless told to go on.
    pub fn corrupt_pages(&self) -> Vec<CorruptPage> {
        self.corrupt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Copies all files; returns the file-per-table tablespaces among them that were still there.
    pub fn copy(&self, jobs: Vec<Job>) -> Result<Vec<Copied>> {
        let threads = self.threads.min(jobs.len().max(1));
        let threads = if jobs.len() == 1 { self.threads } else { threads };
        let queue = Mutex::new(Queue { jobs: jobs.into(), open: Vec::new(), copied: Vec::new() });
        std::thread::scope(|scope| {
            for worker in 1..=threads {
                let queue = &queue;
                scope.spawn(move || {
                    if let Err(error) = self.work(worker, queue) {
                        self.run.fail(error);
                    }
                });
            }
        });
        self.run.check()?;
        Ok(queue.into_inner().unwrap_or_else(PoisonError::into_inner).copied)
    }

    fn work(&self, worker: usize, queue: &Mutex<Queue>) -> Result<()> {
        // Where pieces must leave in order, a thread that holds several makes the others wait.
        let depth = if self.run.sink.takes_any_order() { DEPTH } else { 1 };
        let mut compressor = PageCompressor::default();
        let reader = ReadAhead::new(self.io_mode, depth);
        let mut reader = reader
            .map_err(|e| Error::new(ErrorKind::Failed, "cannot set up io_uring").caused_by(e))?;
        loop {
            self.run.check()?;
            while reader.has_room()
                && let Some(unit) = self.take_unit(worker, queue)?
            {
                let (source, offset, length) =
                    (Arc::clone(&unit.open.source), unit.offset, unit.length);
                let path = unit.open.file.source.clone();
                reader
                    .push(source, offset, length, unit)
                    .map_err(|error| Error::io("read", &path, error))?;
            }
            let Some((unit, bytes)) = reader.pop() else { return Ok(()) };
            let mut bytes =
                bytes.map_err(|error| Error::io("read", &unit.open.file.source, error))?;
            self.copy_unit(&unit, &mut bytes, &mut compressor)?;
            reader.recycle(bytes);
        }
    }

    /// The next unit for a thread; opens files as their turn comes.
    fn take_unit(&self, worker: usize, queue: &Mutex<Queue>) -> Result<Option<Unit>> {
        let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut locked = lock();
            let any = locked.jobs.is_empty();
            if let Some(unit) = locked.next_unit(worker, any) {
                return Ok(Some(unit));
            }
            let Some(job) = locked.jobs.pop_front() else { return Ok(None) };
            drop(locked);
            let Some(open) = self.open(worker, job)? else { continue };
            let mut locked = lock();
            let space = open
                .header
                .as_ref()
                .map(|header| header.id)
                .or_else(|| (self.names)(&open.file.path));
            let metadata =
                open.source.metadata().map_err(|e| Error::io("look at", &open.file.source, e))?;
            let identity = Identity { space, inode: (metadata.dev(), metadata.ino()) };
            if matches!(open.role, Role::Table) {
                locked.copied.push(Copied { file: open.file.clone(), identity });
            }
            if open.size == 0 {
                open.target.finish()?;
                self.run.count_file();
                continue;
            }
            locked.open.push(Started { open: Arc::new(open), next: 0, worker });
        }
    }

    /// Opens a file and looks at its page 0. `None` when it is gone, or is left for later because
    /// nothing says yet which tablespace it is.
    fn open(&self, worker: usize, job: Job) -> Result<Option<Open>> {
        let path = &job.file.source;
        let source = match File::open(path) {
            Ok(source) => source,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && matches!(job.role, Role::Table | Role::Late) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let header = match job.role {
            Role::System(PageNo(first)) if first > 0 => None,
            _ => self.read_header(&source, &job)?.or(job.header),
        };
        if header.is_none()
            && job.role == Role::Table
            && (self.limit.is_some() || (self.names)(&job.file.path).is_none())
        {
            // The redo log has not named it yet, or it is too young to have an older state: it is
            // left for later.
            return Ok(None);
        }
        let size =
            source.metadata().map_err(|error| Error::io("read the size of", path, error))?.len();
        let page_size =
            header.as_ref().map_or(self.page_size, |header| header.flags.physical_size());
        if let (Some(header), Role::Table) = (&header, job.role) {
            refuse_cut_short(&job, header, size)?;
        }
        // A torn extension may leave part of a page at the end; redo has the size.
        let size = size - size % page_size.bytes() as u64;
        let target = self.output(&job, header.as_ref(), page_size)?;
        let (verb, path) = ("Copying", job.target.to_string());
        self.run.reporter.event(&Event::File { worker, verb, path });
        Ok(Some(Open {
            source: Arc::new(source),
            file: job.file,
            target,
            size,
            keys: self.space_keys(header.as_ref())?,
            header,
            role: job.role,
            page_size,
            unwritten: AtomicU64::new(size),
        }))
    }

    /// Begins the file in the backup.
    fn output(
        &self,
        job: &Job,
        header: Option<&SpaceHeader>,
        page_size: PageSize,
    ) -> Result<Output> {
        let sink = self.run.sink;
        let Some(limit) = self.limit.as_ref().filter(|_| job.role != Role::Late) else {
            return sink.begin(&job.target, Mode::Create).map(Output::Whole);
        };
        let name = |extension: &[u8]| backup_path([job.target.as_bytes(), extension].concat());
        let meta = Meta {
            page_size,
            zip: header.is_some_and(|header| header.flags.zip_size().is_some()),
            space: header.map_or(SpaceId::SYSTEM, |header| header.id),
        };
        write_file(sink, &name(b".meta")?, Mode::Create, meta.to_text().as_bytes())?;
        self.run.count_file();
        let target = sink.begin(&name(b".delta")?, Mode::Create)?;
        let sparse = header.is_some_and(SpaceHeader::is_page_compressed);
        let any_order = sink.takes_any_order();
        Ok(Output::Changed(ChangedPages::new(target, page_size, sparse, any_order, limit)))
    }

    fn read_header(&self, source: &File, job: &Job) -> Result<Option<SpaceHeader>> {
        let since = Instant::now();
        let mut start = vec![0; PageSize::MAX.bytes()];
        loop {
            let path = &job.file.source;
            let read = read_at(source, &mut start, 0)
                .map_err(|error| Error::io("read page 0 of", path, error))?;
            let start = start.get(..read).unwrap_or_default();
            let parsed = SpaceHeader::parse(start);
            let problem = match parsed {
                Ok(header) => {
                    let page0 =
                        start.get(..header.flags.physical_size().bytes()).unwrap_or_default();
                    match verify(page0, PageNo(0), Some(header.id), &header.flags) {
                        Verdict::Damaged(damage) => damage.to_string(),
                        _ if header.flags.logical_size() != self.page_size => format!(
                            "the tablespace has pages of {}, the server of {} bytes",
                            header.flags.logical_size(),
                            self.page_size
                        ),
                        _ => return Ok(Some(header)),
                    }
                }
                Err(HeaderError::Blank | HeaderError::Short(_))
                    if matches!(job.role, Role::Table | Role::Late) =>
                {
                    return Ok(None);
                }
                Err(error) => error.to_string(),
            };
            if since.elapsed() > TORN_PATIENCE {
                let message = format!("page 0 of {} is damaged: {problem}", path.display());
                return Err(Error::new(ErrorKind::Damage, message).advise(damage_advice(&job.file)));
            }
            self.run.check()?;
            std::thread::sleep(TORN_PAUSE);
        }
    }

    /// The keys of a tablespace whose pages are to be looked into.
    fn space_keys(&self, header: Option<&SpaceHeader>) -> Result<Option<SpaceKeys>> {
        let crypt = header.and_then(|header| header.crypt.as_ref());
        let (Some(store), Some(crypt)) = (&self.keys, crypt) else { return Ok(None) };
        store.ring().map_err(|error| error.needed_for("a tablespace"))?;
        Ok(Some(SpaceKeys::new(store, crypt)))
    }

    fn copy_unit(
        &self,
        unit: &Unit,
        bytes: &mut Buffer,
        compressor: &mut PageCompressor,
    ) -> Result<()> {
        let open = &*unit.open;
        if bytes.len() < unit.length {
            // Only undo tablespaces, and from 11.2 the system tablespace, ever shrink; redo says to what size.
            if open.role == Role::Table {
                let message =
                    format!("{} became shorter while it was copied", open.file.source.display());
                return Err(Error::new(ErrorKind::Damage, message));
            }
            let read = bytes.len();
            bytes.set_len(unit.length);
            bytes.get_mut(read..).unwrap_or_default().fill(0);
        }
        let page_size = open.page_size.bytes();
        let first = (unit.offset / page_size as u64) as u32;
        let (mut newest, mut changed) = (0, Vec::new());
        for (index, page) in bytes.chunks_exact_mut(page_size).enumerate() {
            let page_no = first + index as u32;
            let whole = self.damage(open, page_no, page, compressor).is_none()
                || self.heal(open, page_no, page, compressor)?;
            newest = newest.max(self.page_lsn(open, page_no, page));
            if let Some(limit) = &self.limit
                && (limit.wants(page, open.role) || !whole)
            {
                refuse_other_undo(open.role, page_no, page)?;
                changed.push(index);
            }
        }
        self.newest.fetch_max(newest, Ordering::Relaxed);
        let length = unit.length as u64;
        if self.drop_behind {
            drop_cached(&open.source, unit.offset, length);
        }
        let sparse = open.header.as_ref().is_some_and(SpaceHeader::is_page_compressed);
        match &open.target {
            Output::Whole(target) if sparse => target.write_sparse(unit.offset, bytes)?,
            Output::Whole(target) => target.write(unit.offset, bytes)?,
            Output::Changed(target) => {
                for (to, from) in changed.iter().enumerate().filter(|(to, from)| to != *from) {
                    let from = from * page_size;
                    bytes.copy_within(from..from + page_size, to * page_size);
                }
                let images = bytes.get(..changed.len() * page_size).unwrap_or_default();
                let numbers: Vec<u32> = changed.iter().map(|index| first + *index as u32).collect();
                target.append(self.run, (unit.offset, length), &numbers, images)?;
                self.changed.fetch_add(numbers.len() as u64, Ordering::Relaxed);
            }
        }
        if open.unwritten.fetch_sub(length, Ordering::AcqRel) == length {
            open.target.finish()?;
            self.run.count_file();
        }
        self.run.advance(length)
    }

    /// Number within the tablespace of a page of a file.
    fn page_no(open: &Open, in_file: u32) -> PageNo {
        match open.role {
            Role::System(first) => PageNo(first.0.saturating_add(in_file)),
            _ => PageNo(in_file),
        }
    }

    fn is_doublewrite(&self, open: &Open, in_file: u32) -> bool {
        let extent = pages_per_extent(self.page_size);
        matches!(open.role, Role::System(_))
            && (extent..3 * extent).contains(&Self::page_no(open, in_file).0)
    }

    fn page_lsn(&self, open: &Open, in_file: u32, page: &[u8]) -> u64 {
        if self.is_doublewrite(open, in_file) {
            return 0;
        }
        match &open.header {
            Some(_) => page::lsn(page).unwrap_or_default().0,
            None => {
                let page_no = Self::page_no(open, in_file);
                unidentified::judge(page, page_no, known_id(open.role)).newest.0
            }
        }
    }

    /// What is wrong with a page.
    fn damage(
        &self,
        open: &Open,
        in_file: u32,
        page: &[u8],
        compressor: &mut PageCompressor,
    ) -> Option<String> {
        if self.is_doublewrite(open, in_file) {
            return None;
        }
        let page_no = Self::page_no(open, in_file);
        let Some(header) = &open.header else {
            return match unidentified::judge(page, page_no, known_id(open.role)).verdict {
                Verdict::Damaged(damage) => Some(damage.to_string()),
                _ => None,
            };
        };
        let id = PageId { space: header.id, page: page_no };
        let deep = self.keys.is_some();
        match verify(page, page_no, Some(header.id), &header.flags) {
            Verdict::Damaged(damage) => Some(damage.to_string()),
            // Of legacy files only the page inside has a checksum that tells whether it is torn.
            verdict @ (Verdict::NeedsDecompression { key_version: 0, .. }
            | Verdict::PageCompressed { key_version: 0 }) => {
                let look = deep || matches!(verdict, Verdict::NeedsDecompression { .. });
                let checked = look.then(|| compressor.check(page, id, &header.flags));
                checked.and_then(Result::err).map(|error| error.to_string())
            }
            verdict @ (Verdict::Encrypted { key_version }
            | Verdict::PageCompressed { key_version }
            | Verdict::NeedsDecompression { key_version, .. }) => {
                let compressed = !matches!(verdict, Verdict::Encrypted { .. });
                let compressor = compressed.then_some(compressor);
                look_inside(page, id, header, open.keys.as_ref()?, key_version, compressor)
                    .map(|damage| damage.to_string())
            }
            Verdict::Ok | Verdict::AllZero => None,
        }
    }

    /// Reads a page that failed its check again until it is whole. False when it stays corrupt, and
    /// that is accepted.
    fn heal(
        &self,
        open: &Open,
        in_file: u32,
        page: &mut [u8],
        compressor: &mut PageCompressor,
    ) -> Result<bool> {
        let since = Instant::now();
        let offset = u64::from(in_file) * page.len() as u64;
        while since.elapsed() < TORN_PATIENCE {
            self.run.check()?;
            std::thread::sleep(TORN_PAUSE);
            let read = read_at(&open.source, page, offset);
            let read = read.map_err(|error| Error::io("read", &open.file.source, error))?;
            page.get_mut(read..).unwrap_or_default().fill(0);
            if self.damage(open, in_file, page, compressor).is_none() {
                self.torn.fetch_add(1, Ordering::Relaxed);
                return Ok(true);
            }
        }
        let Some(damage) = self.damage(open, in_file, page, compressor) else { return Ok(true) };
        let page_no = Self::page_no(open, in_file);
        let space = open.header.as_ref().map_or(SpaceId::SYSTEM, |header| header.id);
        let id = PageId { space, page: page_no };
        let lsn = page::lsn(page).unwrap_or_default();
        let message = format!(
            "Database page corruption detected: corrupt page in {}: {id}, page LSN {lsn}: {damage}",
            open.file.source.display()
        );
        if self.continue_on_corrupt {
            self.run.reporter.warn(message);
            let mut corrupt = self.corrupt.lock().unwrap_or_else(PoisonError::into_inner);
            corrupt.push(CorruptPage { path: open.file.path.clone(), page: id });
            return Ok(false);
        }
        Err(Error::new(ErrorKind::Damage, message).advise(damage_advice(&open.file)))
    }
}
