//! Applying the captured redo to the copied pages.
//!
//! The log is read once, in order, and sorted by neighbourhoods of pages ([`collector`]); then
//! workers bring the pages up to date in parallel ([`apply`]). What does not fit in the memory
//! limit is done in batches, each a prefix of what is left that ends between mini-transactions.
//! A later batch must not be needed to understand an earlier one: the first pass reads the whole
//! log, and takes note of everything about tablespaces ([`facts`]), even when it stops collecting.
//!
//! Invariants:
//! - A page changes only by whole mini-transactions newer than its LSN. So all of this can be
//!   killed and started again, and the redo that was already applied is skipped.
//! - A kill can tear a page that is being written; [`journal`] makes it whole again.
//! - The log and the state change only after all data is durable ([`finish`]).
//! - No undo, no dictionary: the server rolls back at its first start, as after a crash.
//! - Tables of Aria are made whole from its own log ([`crate::aria`]), or left to the server.
//!
//! | module | what |
//! |---|---|
//! | [`markers`] | tables dropped, renamed and made during the backup |
//! | [`chain`] | deltas that are applied before |
//! | [`inventory`] | which tablespaces the backup has |
//! | [`log_reader`] | mini-transactions from the log file |
//! | [`facts`] | what the log says about tablespaces |
//! | [`arena`], [`collector`], [`chains`] | redo by page |
//! | [`spaces`] | which file a tablespace is, and its size |
//! | [`apply`], [`journal`] | from redo to pages |
//! | [`ahead`] | the same to pages that are still arriving |
//! | [`codec`] | the stored form of a page and its plain form |
//! | [`positions`], [`flush_lsn`], [`finish`] | the final state |

mod ahead;
mod apply;
mod arena;
mod chain;
mod chains;
pub(crate) mod codec;
mod collector;
mod facts;
mod finish;
mod flush_lsn;
pub(crate) mod inventory;
pub mod journal;
mod log_reader;
pub(crate) mod markers;
mod meter;
mod positions;
mod spaces;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use innodb::redo::record::{Record, Records};
use innodb::redo::{FileRecord, Malformed};
use innodb::{Lsn, SpaceId};

use crate::aria::{self, AriaSummary};
use crate::delta::{DeltaSummary, progress};
use crate::export::{self, ExportSummary};
use crate::keys::KeySettings;
use crate::keys::settings::KeyStore;
use crate::metadata::{BackupInfo, BackupMyCnf, BackupType, Checkpoints};
use crate::{Cancel, Error, ErrorKind, Phase, Reporter, Result, qpress};
pub(crate) use ahead::Ahead;
use apply::Batch;
use collector::{Collector, WINDOW_BYTES};
use facts::LogFacts;
use finish::EndOfLog;
use inventory::Inventory;
use journal::Journal;
use log_reader::{End, LogReader};
pub(crate) use meter::Meter;
use spaces::Spaces;

/// What the process needs besides redo: code, stacks, the allocator.
const MEMORY_BASE: usize = 20 << 20;
/// What each worker needs besides its lists: a window of pages, buffers, the stack.
const MEMORY_WORKER: usize = WINDOW_BYTES + (1 << 20);
/// Less redo than this is not collected at once, whatever the limit.
const MEMORY_REDO_MIN: usize = 8 << 20;
/// How much redo is read between two looks at the reporter and the cancel flag.
const READ_STEP: u64 = 4 << 20;

/// What to prepare and with how much memory.
#[derive(Clone)]
pub struct PrepareOptions {
    /// Folder that holds the backup.
    pub dir: PathBuf,
    /// Deltas to apply to it, in their order ([`crate::delta`]).
    pub deltas: Vec<PathBuf>,
    /// Ceiling of memory for redo and pages, in bytes.
    pub memory: u64,
    /// Applying threads, at least 1.
    pub parallel: usize,
    /// Where encryption keys are; what the backup itself says counts less.
    pub keys: KeySettings,
    /// Whether to make every table ready for import by another server ([`export`]).
    pub export: bool,
    /// Whether damaged pages that redo changes are left as they are, instead of ending the run; where
    /// nothing is said, as `innodb_force_recovery` in `backup-my.cnf` says.
    pub leave_damaged_pages: Option<bool>,
}

/// What a finished prepare did. Serialises to the JSON document of `haulout prepare --json`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PrepareSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Where the captured redo starts.
    pub start_lsn: u64,
    /// LSN that the prepared backup equals.
    pub end_lsn: u64,
    /// Redo read, in bytes.
    pub redo_bytes: u64,
    /// Mini-transactions read.
    pub mini_transactions: u64,
    /// Pages written.
    pub pages_written: u64,
    /// Of them, those that were written once, in their final state: a restore from a repository
    /// applies redo before it writes.
    pub pages_on_arrival: u64,
    /// Batches that the memory limit made necessary.
    pub batches: u32,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Whether the backup was prepared before and nothing was left to do.
    pub already_prepared: bool,
    /// The deltas that were applied before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<DeltaSummary>,
    /// What became of Aria's log.
    pub aria: AriaSummary,
    /// What was exported, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportSummary>,
}

/// Tablespaces of a backup that were left out of the folder on purpose: redo for them is skipped.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut {
    /// By what their first pages say.
    pub ids: HashSet<SpaceId>,
    /// By name, `database/table.ibd`.
    pub names: HashSet<String>,
    /// Any: the backup was taken of some tables only.
    pub any: bool,
}

impl LeftOut {
    /// What a backup says of itself.
    fn of(dir: &Path) -> Result<Self> {
        let any = BackupInfo::read(dir)?.is_some_and(|info| info.partial);
        Ok(Self { any, ..Self::default() })
    }
}

/// Prepares a backup in place, after applying deltas to it. May be killed at any point and run again.
pub fn prepare(
    mut options: PrepareOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<PrepareSummary> {
    let started = Instant::now();
    let _lock = lock(&options.dir)?;
    qpress::refuse_packed(&options.dir)?;
    let deltas = std::mem::take(&mut options.deltas);
    let applied = chain::apply(&options, &deltas, cancel, reporter)?;
    let left_out = LeftOut::of(&options.dir)?;
    let mut summary = prepare_locked(&left_out, None, &options, cancel, reporter)?;
    summary.deltas = applied;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

/// Prepares what is there of a backup, when the rest was left out on purpose. Nothing that starts
/// a server comes out of it, but tablespaces that can be exported.
pub(crate) fn prepare_without(
    left_out: LeftOut,
    options: PrepareOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<PrepareSummary> {
    let _lock = lock(&options.dir)?;
    prepare_locked(&left_out, None, &options, cancel, reporter)
}

/// Prepares a backup whose redo was sorted before it was unpacked, and applied to pages on their way.
pub(crate) fn prepare_after(
    ahead: Ahead,
    options: PrepareOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<PrepareSummary> {
    let _lock = lock(&options.dir)?;
    prepare_locked(&LeftOut::default(), Some(ahead), &options, cancel, reporter)
}

/// Prepares a backup that nobody else uses.
fn prepare_locked(
    left_out: &LeftOut,
    ahead: Option<Ahead>,
    options: &PrepareOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<PrepareSummary> {
    let started = Instant::now();
    let dir = options.dir.as_path();
    progress::settle(dir)?;
    let (checkpoints, naming) = Checkpoints::read(dir)?;
    let settings = BackupMyCnf::read(dir)?;
    if checkpoints.backup_type == BackupType::Incremental {
        return Err(Error::new(
            ErrorKind::Failed,
            format!("{} is a delta, which cannot be prepared by itself", dir.display()),
        )
        .advise("apply it to its base: haulout prepare BASE --delta DELTA"));
    }
    let leave_damaged = options.leave_damaged_pages.unwrap_or(settings.force_recovery > 0);
    if leave_damaged {
        reporter.info(
            "innodb_force_recovery = 1: damaged pages that redo changes are left as they are"
                .to_owned(),
        );
    }
    let interrupted = Journal::left_in(dir)?;
    if let Some(journal) = &interrupted {
        journal.replay(dir, reporter)?;
    }
    let system_files: Vec<String> = settings
        .data_file_path
        .files()
        .iter()
        .map(|file| file.stored_name().to_string_lossy().into_owned())
        .collect();
    let page_size = settings.page_size;
    let mut summary = PrepareSummary {
        format: 1,
        start_lsn: 0,
        end_lsn: 0,
        redo_bytes: 0,
        mini_transactions: 0,
        pages_written: 0,
        pages_on_arrival: 0,
        batches: 0,
        seconds: 0.0,
        already_prepared: false,
        deltas: Vec::new(),
        aria: AriaSummary::Absent,
        export: None,
    };
    // Repeatable by itself, and nothing if it was done before.
    let keys = KeyStore::new(settings.keys.clone().overlaid_with(options.keys.clone()));
    let recover_aria = || aria::recover(dir, options.memory, &keys, cancel, reporter);
    let prepared =
        Prepared { dir, settings: &settings, system_files: &system_files, cancel, reporter };
    if let Some(end) = flush_lsn::instead_of_log(dir, page_size, &system_files, &checkpoints)? {
        if checkpoints.backup_type != BackupType::Prepared {
            checkpoints.prepared().write(dir, naming)?;
        }
        if let Some(journal) = interrupted {
            journal.remove()?;
        }
        reporter.info("this backup is prepared already".to_owned());
        summary.aria = recover_aria()?;
        (summary.start_lsn, summary.end_lsn) = (end.0, end.0);
        summary.already_prepared = true;
        if options.export {
            summary.export = Some(prepared.export(end, options.keys.clone())?);
        }
        summary.seconds = started.elapsed().as_secs_f64();
        return Ok(summary);
    }
    let log = LogReader::open(&dir.join(finish::LOG), &keys)?;
    summary.start_lsn = log.checkpoint().lsn.0;

    if checkpoints.backup_type == BackupType::Prepared
        && let Some(end) = end_if_empty(&log)?
    {
        if let Some(journal) = interrupted {
            journal.remove()?;
        }
        reporter.info("this backup is prepared already".to_owned());
        summary.aria = recover_aria()?;
        summary.end_lsn = end.0;
        summary.already_prepared = true;
        if options.export {
            summary.export = Some(prepared.export(end, options.keys.clone())?);
        }
        summary.seconds = started.elapsed().as_secs_f64();
        return Ok(summary);
    }
    markers::apply(dir, reporter)?;
    let inventory = Inventory::read(dir, page_size, &system_files)?;

    let workers = options.parallel.max(1);
    let mut redo = match ahead {
        Some(ahead) => Collected::Ahead(Box::new(ahead)),
        None => {
            let budget = redo_budget(options.memory, workers);
            let pages = inventory.pages(page_size);
            let mut collector = Collector::new(page_size, pages, budget, workers);
            collector.skip(left_out.ids.clone());
            let facts = LogFacts::new(log.checkpoint().lsn, page_size);
            let read = read_all(&log, facts, &mut collector, cancel, reporter)?;
            Collected::Now(Box::new((collector, read)))
        }
    };
    let (_, read) = redo.parts();
    let end = read.end.lsn;
    check_complete(&log, read, &checkpoints)?;

    let mut spaces = Spaces::bind(inventory, left_out, &read.facts, page_size, reporter)?;
    spaces.unlock(&read.facts, settings.encrypts_tables(), &keys)?;
    let journal = Journal::open(dir)?;
    spaces.resize(&read.facts, page_size)?;
    let meter = Meter::new(reporter, Phase::ApplyRedo, Some(end.0 - summary.start_lsn));
    let (mut files, mut next, mini_transactions) =
        (BTreeSet::new(), read.next_batch, read.mini_transactions);
    loop {
        let (collector, read) = redo.parts();
        let batch = Batch {
            collector,
            ahead: redo.ahead(),
            facts: &read.facts,
            spaces: &spaces.by_id,
            end,
            journal: &journal,
            meter: &meter,
            cancel,
            damaged: leave_damaged.then_some(reporter),
        };
        let mut applied = batch.apply(workers)?;
        summary.batches += 1;
        summary.pages_written += applied.pages;
        files.append(&mut applied.files);
        let Some(from) = next else { break };
        next = match &mut redo {
            Collected::Now(now) => read_batch(&log, from, &mut now.0, cancel)?,
            Collected::Ahead(_) => None,
        };
    }
    meter.finish();
    if let Some(ahead) = redo.ahead() {
        summary.pages_on_arrival = ahead.pages();
        summary.pages_written += ahead.pages();
        files.append(&mut ahead.files());
    }
    // The kernel takes its time here too; the disk is waited for meanwhile.
    let freed = std::thread::spawn(move || drop(redo));

    summary.aria = recover_aria()?;
    finish::remove_empty_databases(dir)?;
    finish::sync(&files, &spaces.by_id, workers)?;
    let end_of_log = match log.is_blocked() {
        true => EndOfLog::InSystemTablespace(&journal),
        false => EndOfLog::InLog(log.creator()),
    };
    let by_id = &spaces.by_id;
    if let Some(position) =
        finish::declare_prepared(dir, end_of_log, end, by_id, checkpoints, naming)?
    {
        reporter.info(format!(
            "Last binlog file '{}', position {}",
            String::from_utf8_lossy(&position.file),
            position.offset
        ));
    }
    journal.remove()?;
    let _ = freed.join();
    if options.export {
        summary.export = Some(export::export(dir, &spaces.by_id, page_size, cancel, reporter)?);
    }

    summary.end_lsn = end.0;
    summary.redo_bytes = end.bytes_since(log.checkpoint().lsn).unwrap_or(0);
    summary.mini_transactions = mini_transactions;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

/// A backup that was prepared before.
struct Prepared<'a> {
    dir: &'a Path,
    settings: &'a BackupMyCnf,
    system_files: &'a [String],
    cancel: &'a Cancel,
    reporter: &'a dyn Reporter,
}

impl Prepared<'_> {
    fn export(&self, end: Lsn, keys: KeySettings) -> Result<ExportSummary> {
        let page_size = self.settings.page_size;
        let by_id = Inventory::read(self.dir, page_size, self.system_files)?.spaces;
        let mut spaces = Spaces { by_id };
        let store = KeyStore::new(self.settings.keys.clone().overlaid_with(keys));
        let nothing = LogFacts::new(end, page_size);
        spaces.unlock(&nothing, self.settings.encrypts_tables(), &store)?;
        export::export(self.dir, &spaces.by_id, page_size, self.cancel, self.reporter)
    }
}

/// Redo, and what is known of the whole log.
enum Collected {
    /// As much as memory allows.
    Now(Box<(Collector, Read)>),
    /// All of it, from before.
    Ahead(Box<Ahead>),
}

impl Collected {
    fn parts(&self) -> (&Collector, &Read) {
        match self {
            Self::Now(now) => (&now.0, &now.1),
            Self::Ahead(ahead) => (&ahead.collector, &ahead.read),
        }
    }

    fn ahead(&self) -> Option<&Ahead> {
        match self {
            Self::Now(_) => None,
            Self::Ahead(ahead) => Some(ahead),
        }
    }
}

/// What reading the log to its end has found; the first batch is in the collector.
struct Read {
    end: End,
    facts: LogFacts,
    mini_transactions: u64,
    /// Where the second batch starts, if the first one could not take everything.
    next_batch: Option<Lsn>,
}

/// Reads the whole log, and collects as much of its start as memory allows.
fn read_all(
    log: &LogReader,
    mut facts: LogFacts,
    collector: &mut Collector,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<Read> {
    let meter = Meter::new(reporter, Phase::ReadRedo, Some(log.size()));
    let start = log.checkpoint().lsn;
    let (mut next_batch, mut mini_transactions) = (None, 0);
    let mut told = start;
    collector.begin(start);
    let end = log.for_each(start, |mtr| {
        if next_batch.is_none() && collector.is_full(mtr.end) {
            next_batch = Some(mtr.start);
        }
        let result = match next_batch {
            None => collector.add(mtr, &mut facts),
            Some(_) => collector::scan(mtr, &mut facts),
        };
        result.map_err(|e| malformed(mtr.start, e))?;
        mini_transactions += 1;
        if let Some(bytes) = mtr.end.bytes_since(told).filter(|bytes| *bytes >= READ_STEP) {
            cancel.check()?;
            meter.add(bytes);
            told = mtr.end;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    meter.add(end.lsn.bytes_since(told).unwrap_or(0));
    meter.finish();
    Ok(Read { end, facts, mini_transactions, next_batch })
}

/// Collects another batch, from `from` on; tells where the next one starts.
fn read_batch(
    log: &LogReader,
    from: Lsn,
    collector: &mut Collector,
    cancel: &Cancel,
) -> Result<Option<Lsn>> {
    // All facts are known since the first pass.
    let mut facts = LogFacts::default();
    let mut checked = from;
    collector.begin(from);
    let end = log.for_each(from, |mtr| {
        if collector.is_full(mtr.end) {
            return Ok(ControlFlow::Break(()));
        }
        collector.add(mtr, &mut facts).map_err(|e| malformed(mtr.start, e))?;
        if mtr.end.bytes_since(checked).is_some_and(|bytes| bytes >= READ_STEP) {
            cancel.check()?;
            checked = mtr.end;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(end.stop.is_none().then_some(end.lsn))
}

fn malformed(at: Lsn, cause: Malformed) -> Error {
    Error::new(ErrorKind::Damage, format!("the redo log is damaged at LSN {at}")).caused_by(cause)
}

/// Refuses a log that does not reach what the backup needs.
fn check_complete(log: &LogReader, read: &Read, checkpoints: &Checkpoints) -> Result<()> {
    let End { lsn: end, stop } = read.end;
    let target = checkpoints.to_lsn.max(checkpoints.last_lsn);
    let seen = stop.map_or_else(String::new, |stop| format!(" ({stop:?})"));
    if end < target {
        return Err(Error::new(
            ErrorKind::Gap,
            format!(
                "the redo log ends at LSN {end}{seen}, but the backup needs it up to LSN {target}"
            ),
        )
        .advise("ib_logfile0 was cut short or damaged; copy the backup again, or take a new one"));
    }
    // After an orderly shutdown a log with blocks has nothing behind its checkpoint.
    let empty = log.is_blocked() && end == log.checkpoint().lsn;
    if read.facts.lacks_checkpoint() && !empty {
        return Err(Error::new(
            ErrorKind::Damage,
            format!(
                "the redo log does not complete its checkpoint of LSN {} before it ends at LSN {end}{seen}",
                log.checkpoint().lsn
            ),
        )
        .advise("ib_logfile0 was cut short or damaged; copy the backup again, or take a new one"));
    }
    Ok(())
}

/// Where the log ends, if it holds nothing but the record of its checkpoint.
fn end_if_empty(log: &LogReader) -> Result<Option<Lsn>> {
    let end = log.for_each(log.checkpoint().lsn, |mtr| {
        let empty = Records::new(mtr.records).all(|record| {
            let is_file =
                |record| matches!(record, FileRecord::Checkpoint(_) | FileRecord::Padding);
            matches!(record, Ok(Record::File(record)) if is_file(record))
        });
        Ok(if empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(end.stop.is_some().then_some(end.lsn))
}

/// How much of the memory limit redo may take.
fn redo_budget(memory: u64, workers: usize) -> usize {
    let fixed = MEMORY_BASE + log_reader::MEMORY + arena::MEMORY + workers * MEMORY_WORKER;
    let memory = usize::try_from(memory).unwrap_or(usize::MAX);
    memory.saturating_sub(fixed).max(MEMORY_REDO_MIN)
}

/// Keeps a second prepare out of the folder for as long as the result lives.
fn lock(dir: &Path) -> Result<File> {
    let folder = File::open(dir).map_err(|e| Error::io("open", dir, e))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Failed,
            format!("{} is in use by another prepare", dir.display()),
        )
        .advise("wait until it is done")),
        Err(std::fs::TryLockError::Error(e)) => Err(Error::io("lock", dir, e)),
    }
}
