//! Placing a prepared backup in a data directory.
//!
//! Promises:
//! - A backup that is not prepared, or that a killed prepare left behind, is refused; so is a data
//!   directory that is in use or holds something. No file is ever overwritten.
//! - From the first file placed to the last one, a text stands where the redo log belongs. A
//!   server does not start with it, so it never starts on half a data directory.
//! - All files and directories are durable before the redo log takes its place.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | which file goes where |
//! | [`guard`] | what is refused; the marker |
//! | [`place`] | copying and moving one file |
//! | [`stage`] | unpacking and preparing inside of the data directory |
//! | [`over`] | taking over a data directory that is to be updated |
//! | [`tables`] | placing files of single tables, for another server to import |

mod guard;
mod over;
mod place;
mod plan;
mod stage;
mod tables;

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::io::durable;
use crate::metadata::haulout_info::TableNeed;
use crate::metadata::{BackupMyCnf, HauloutInfo};
use crate::prepare::Meter;
use crate::{Cancel, Error, Event, Phase, Reporter, Result};
pub(crate) use guard::check_prepared;
use place::Placer;
use plan::{Item, Plan};
pub(crate) use stage::Stage;
pub(crate) use tables::place_tables;

/// Mode of created directories, as the server's own.
const DIRECTORY_MODE: u32 = 0o700;

/// Whether the backup stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Copy; the backup stays as it is.
    Copy,
    /// Rename where possible, else copy and remove.
    Move,
}

/// From where to where. Paths left out follow from `backup-my.cnf` and the data directory.
pub struct RestoreOptions {
    /// Folder that holds the prepared backup.
    pub source: PathBuf,
    /// Data directory; created if missing, must be empty.
    pub datadir: PathBuf,
    /// Copy or move.
    pub mode: Mode,
    /// Copying threads, at least 1.
    pub parallel: usize,
    /// Owner of the placed files (user id, group id). When unset and run as root, that of a data
    /// directory that exists already; else the calling user.
    pub owner: Option<(u32, u32)>,
    /// Accept a data directory that holds other files; an existing file is never overwritten.
    pub force_non_empty: bool,
    /// `innodb_data_home_dir`, for system tablespace files.
    pub innodb_data_home_dir: Option<PathBuf>,
    /// `innodb_undo_directory`.
    pub innodb_undo_directory: Option<PathBuf>,
    /// `innodb_log_group_home_dir`.
    pub innodb_log_group_home_dir: Option<PathBuf>,
    /// `aria_log_dir_path`.
    pub aria_log_dir_path: Option<PathBuf>,
    /// `rocksdb_datadir`; `#rocksdb` in the data directory when unset.
    pub rocksdb_datadir: Option<PathBuf>,
    /// `rocksdb_wal_dir`; where the other files of MyRocks go when unset.
    pub rocksdb_wal_dir: Option<PathBuf>,
    /// `innodb_data_file_path`; the backup's own when unset.
    pub innodb_data_file_path: Option<String>,
}

impl RestoreOptions {
    /// Copies into an empty data directory, by two threads.
    pub fn new(source: impl Into<PathBuf>, datadir: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            datadir: datadir.into(),
            mode: Mode::Copy,
            parallel: 2,
            owner: None,
            force_non_empty: false,
            innodb_data_home_dir: None,
            innodb_undo_directory: None,
            innodb_log_group_home_dir: None,
            aria_log_dir_path: None,
            rocksdb_datadir: None,
            rocksdb_wal_dir: None,
            innodb_data_file_path: None,
        }
    }
}

/// What was placed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RestoreSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Files placed.
    pub files: u64,
    /// Bytes placed.
    pub bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Tables that need more than the backup had.
    pub tables: Vec<TableNeed>,
}

/// Places a prepared backup. A failed restore leaves a marker that keeps the server from starting.
pub fn restore(
    options: RestoreOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<RestoreSummary> {
    guard::check_prepared(&options.source)?;
    guard::check_datadir(&options.datadir, &options.source, options.force_non_empty)?;
    place_backup(options, false, cancel, reporter)
}

/// Places the backup that was unpacked and prepared in `stage`, by moving it; the stage is removed.
/// The options' source and mode are of no account.
pub(crate) fn restore_staged(
    stage: &Stage,
    options: RestoreOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<RestoreSummary> {
    let options = RestoreOptions { source: stage.dir(), mode: Mode::Move, ..options };
    guard::check_prepared(&options.source)?;
    let summary = place_backup(options, true, cancel, reporter)?;
    stage.remove()?;
    Ok(summary)
}

/// Places a backup that was looked at. `marked` says that the marker is in its place already.
fn place_backup(
    options: RestoreOptions,
    marked: bool,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<RestoreSummary> {
    let started = Instant::now();
    let settings = BackupMyCnf::read(&options.source)?;
    // Only for the summary: a backup is restored without it.
    let info = HauloutInfo::read(&options.source).unwrap_or_default();
    let plan = Plan::new(&options, &settings, reporter)?;
    guard::check_targets(&plan, marked)?;
    let Some(log) = &plan.log else {
        return Err(Error::new(crate::ErrorKind::Damage, "the backup has no redo log"));
    };

    let owner = options.owner.or_else(|| owner_of(&options.datadir));
    let placer = Placer { mode: options.mode, owner, cancel };
    let created = create_directories(&plan, &placer)?;
    if !marked {
        guard::mark(&log.target)?;
    }
    let unfinished = |error: Error| {
        let unusable = format!("{} is not usable", options.datadir.display());
        match (options.mode, error.advice()) {
            (Mode::Copy, None) => error.advise(format!("{unusable}: empty it and restore again")),
            (Mode::Move, None) if marked => {
                error.advise(format!("{unusable}: empty it and restore again"))
            }
            (Mode::Move, None) => error.advise(format!(
                "{unusable}: some files were moved there already, move them back or finish by hand"
            )),
            _ => error,
        }
    };
    let meter = Meter::new(reporter, Phase::Place, Some(plan.bytes()));
    place_all(&plan, &placer, options.parallel.max(1), &meter, reporter).map_err(unfinished)?;
    finish(&plan, log, &placer, &created, &meter).map_err(unfinished)?;
    meter.finish();
    Ok(RestoreSummary {
        format: 1,
        files: plan.files.len() as u64 + 1,
        bytes: plan.bytes(),
        seconds: started.elapsed().as_secs_f64(),
        tables: info.map(|info| info.tables).unwrap_or_default(),
    })
}

/// Creates what is missing, and gives it its owner; all directories in which names change.
fn create_directories(plan: &Plan, placer: &Placer<'_>) -> Result<Vec<PathBuf>> {
    let parents = plan.files.iter().chain(&plan.log).filter_map(|item| item.target.parent());
    let mut wanted: Vec<&Path> = plan.directories.iter().map(PathBuf::as_path).collect();
    wanted.extend(parents);
    let mut changed = Vec::new();
    for directory in wanted {
        // Also those above it, so that each gets its mode and owner.
        let missing: Vec<&Path> = directory.ancestors().take_while(|d| !d.exists()).collect();
        for path in missing.into_iter().rev() {
            DirBuilder::new()
                .mode(DIRECTORY_MODE)
                .create(path)
                .map_err(|e| Error::io("create", path, e))?;
            let opened = File::open(path).map_err(|e| Error::io("open", path, e))?;
            placer.own(&opened, path)?;
            changed.extend(path.parent().map(Path::to_owned));
        }
        changed.push(directory.to_owned());
    }
    changed.sort_unstable();
    changed.dedup();
    Ok(changed)
}

/// Places all files but the redo log, in parallel.
fn place_all(
    plan: &Plan,
    placer: &Placer<'_>,
    workers: usize,
    meter: &Meter<'_>,
    reporter: &dyn Reporter,
) -> Result<()> {
    // Large files first, so that no worker is left with one at the end.
    let mut order: Vec<&Item> = plan.files.iter().collect();
    order.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    let verb = verb(placer.mode);
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let outcome = Mutex::new(Ok(()));
    let work = |worker: usize| {
        while let (Some(item), false) =
            (order.get(next.fetch_add(1, Ordering::Relaxed)), failed.load(Ordering::Relaxed))
        {
            reporter.event(&Event::File { worker, verb, path: item.name.clone() });
            let placed = placer.cancel.check();
            let placed =
                placed.and_then(|()| placer.place(item, &item.target, &|bytes| meter.add(bytes)));
            if let Err(error) = placed {
                failed.store(true, Ordering::Relaxed);
                let mut outcome = outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if outcome.is_ok() {
                    *outcome = Err(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in 1..=workers {
            let work = &work;
            scope.spawn(move || work(worker));
        }
    });
    outcome.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Makes the directories durable, then lets the redo log take the place of the marker.
fn finish(
    plan: &Plan,
    log: &Item,
    placer: &Placer<'_>,
    directories: &[PathBuf],
    meter: &Meter<'_>,
) -> Result<()> {
    for directory in directories {
        durable::sync_dir(directory)?;
    }
    let mut waiting = log.target.clone();
    waiting.set_extension("haulout-restore");
    placer.place(log, &waiting, &|bytes| meter.add(bytes))?;
    fs::rename(&waiting, &log.target).map_err(|e| Error::io("rename", &waiting, e))?;
    let directory = log.target.parent().or(plan.directories.first().map(PathBuf::as_path));
    directory.map_or(Ok(()), durable::sync_dir)
}

/// The owner of a data directory that exists, when it is for us to give files away.
fn owner_of(datadir: &Path) -> Option<(u32, u32)> {
    let metadata = fs::metadata(datadir).ok()?;
    rustix::process::geteuid().is_root().then(|| (metadata.uid(), metadata.gid()))
}

const fn verb(mode: Mode) -> &'static str {
    match mode {
        Mode::Copy => "Copying",
        Mode::Move => "Moving",
    }
}

#[cfg(test)]
mod tests;
