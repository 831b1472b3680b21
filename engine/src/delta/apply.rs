//! Applying a delta to its base: afterwards the base is a full backup, taken when the delta was.
//!
//! Applied is everything but the redo, so the result is to be prepared, as a backup that was just
//! taken. What makes this safe:
//! - Nothing is changed before it is known that base and delta belong together, and that every page
//!   of the delta is whole.
//! - While it is being changed, the base has no `*_checkpoints`, and a mark ([`super::progress`])
//!   that says which delta to apply again.
//! - Every step can be done again. The delta itself is only read.
//! - The new `*_checkpoints` comes when everything is durable, and the mark goes last.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use innodb::Lsn;
use innodb::space::SpaceHeader;

use super::pages;
use super::plain;
use super::plan::{Change, Plan};
use super::progress::Progress;
use super::source::{DeltaDir, LOG, WholeFile, header_of};
use crate::io::durable;
use crate::metadata::names::ROLLED_BACK;
use crate::metadata::partial::Tables;
use crate::metadata::{BackupType, Checkpoints, HauloutInfo, Naming, names};
use crate::prepare::journal;
use crate::prepare::markers::{self, waiting};
use crate::{Cancel, Error, ErrorKind, Event, Reporter, Result};

/// What a tablespace file ends in while it is being made.
const MAKING: &str = ".haulout-new";

/// Pages of the smallest tablespace.
const YOUNG_PAGES: u64 = 4;

/// In which state a base may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Prepared.
    Prepared,
    /// Not prepared either, where the delta has all pages that such a base lacks.
    Mergeable,
}

/// How to apply a delta.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// In which state the base may be.
    pub allow: Allow,
    /// Threads that write.
    pub threads: usize,
}

/// What was applied.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DeltaSummary {
    /// The delta.
    pub dir: PathBuf,
    /// The LSN at which its base ended.
    pub from_lsn: u64,
    /// The LSN at which it ends.
    pub to_lsn: u64,
    /// Pages written.
    pub pages: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Whether `delta` can be applied to a base in the state of `base`, whose redo begins at `start`.
fn check_chain((base, dir): (&Checkpoints, &Path), delta: &DeltaDir, allow: Allow) -> Result<()> {
    let own = &delta.checkpoints;
    let mark = dir.join(ROLLED_BACK);
    if mark.try_exists().map_err(|e| Error::io("inspect", &mark, e))? {
        let message = format!(
            "tables of {} were exported, which rolled back transactions that were open: a delta would \
             not have what they did afterwards",
            dir.display()
        );
        return Err(Error::new(ErrorKind::Usage, message).advise(
            "apply deltas to a copy of the backup that was not exported, and export then",
        ));
    }
    if base.to_lsn != own.from_lsn {
        let message = format!(
            "This incremental backup seems not to be proper for the target: {} ends at LSN {} \
             (its 'to_lsn'), but {} begins at LSN {} (its 'from_lsn')",
            dir.display(),
            base.to_lsn,
            delta.dir.display(),
            own.from_lsn
        );
        let advice = if base.to_lsn == own.to_lsn {
            "it was applied already"
        } else if base.to_lsn < own.from_lsn {
            "apply the deltas between the two first"
        } else {
            "it is a delta of an older state of the base, or of another backup"
        };
        return Err(Error::new(ErrorKind::Gap, message).advise(advice));
    }
    let start = || {
        let info = HauloutInfo::read(dir)?.filter(|info| info.lsn.checkpoint == base.to_lsn.0);
        Ok::<_, Error>(info.map(|info| Lsn(info.lsn.start)))
    };
    match base.backup_type {
        BackupType::Prepared => Ok(()),
        BackupType::Full
            if allow == Allow::Mergeable
                && start()?.is_some_and(|lsn| delta.pages_since <= lsn) =>
        {
            Ok(())
        }
        _ => {
            let message = format!(
                "applying incremental backup needs a prepared target: {} (to LSN {}) is not \
                 prepared, so the delta from LSN {} cannot be applied",
                dir.display(),
                base.to_lsn,
                own.from_lsn
            );
            Err(Error::new(ErrorKind::Usage, message).advise("prepare the base first"))
        }
    }
}

/// What a delta does not have counts as dropped: it must be of the same tables as its base.
fn check_tables(base: &Path, delta: &DeltaDir) -> Result<()> {
    let of_base = Tables::read(base)?;
    // One of all tables says of each that the base lacks that it does.
    if of_base.is_same(&delta.tables) || delta.tables == Tables::All {
        return Ok(());
    }
    let (message, advice) = match (&of_base, &delta.tables) {
        (Tables::All, _) => (
            format!("{} is a delta of some tables only", delta.dir.display()),
            "it would take all other tables away from the base; take a whole one",
        ),
        _ => (
            format!(
                "{} and {} are not known to have the same tables",
                base.display(),
                delta.dir.display()
            ),
            "take the delta with the same choice of tables as the base",
        ),
    };
    Err(Error::new(ErrorKind::Usage, message).advise(advice))
}

/// Applies the delta to `base`, which nobody else may use meanwhile.
///
/// # Errors
/// [`ErrorKind::Gap`] and [`ErrorKind::Usage`] when the two do not belong together,
/// [`ErrorKind::Damage`] when a page of the delta is damaged: then nothing was changed.
pub fn apply(
    base: &Path,
    delta: &DeltaDir,
    options: ApplyOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<DeltaSummary> {
    let clock = Instant::now();
    let ApplyOptions { allow, threads } = options;
    let progress = Progress::of(&delta.checkpoints);
    match Progress::left_in(base)? {
        Some(left) if left == progress => {}
        Some(left) => return Err(left.refuse(base)),
        None => {
            let (checkpoints, _) = Checkpoints::read(base)?;
            check_tables(base, delta)?;
            check_chain((&checkpoints, base), delta, allow)?;
            if checkpoints.backup_type == BackupType::Full {
                markers::apply(base, reporter)?;
            }
        }
    }
    let plan = Plan::new(base, delta)?;
    let flags = check_pages(&plan, delta, threads, cancel)?;

    progress.begin(base)?;
    for naming in Naming::PREFERRED_FIRST {
        durable::remove_file(&base.join(naming.checkpoints()))?;
    }
    // Its images are of pages as they were.
    durable::remove_file(&base.join(journal::FILE_NAME))?;
    for path in &plan.removed {
        tell(reporter, "Removing", path);
        durable::remove_if_there(&base.join(path))?;
    }
    rename(base, &plan.renamed, reporter)?;
    let written = write_pages((base, delta), &plan, &flags, threads, cancel, reporter)?;
    fit_system_tablespace(base, delta)?;
    for whole in &delta.whole {
        cancel.check()?;
        replace(base, whole)?;
    }
    plain::replace(base, delta, cancel, reporter)?;
    let log = base.join(LOG);
    copy(&delta.dir.join(LOG), &making(&log))?;
    move_file(&making(&log), &log)?;
    // One call for files in the thousands; all must be on disk before the base says so.
    File::open(base)
        .and_then(|folder| Ok(rustix::fs::syncfs(folder)?))
        .map_err(|e| Error::io("make durable", base, e))?;
    let merged =
        Checkpoints { backup_type: BackupType::Full, from_lsn: Lsn(0), ..delta.checkpoints };
    merged.write(base, delta.naming)?;
    Progress::end(base)?;
    Ok(DeltaSummary {
        dir: delta.dir.clone(),
        from_lsn: delta.checkpoints.from_lsn.0,
        to_lsn: delta.checkpoints.to_lsn.0,
        pages: written,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// Does `work` for each change, in several threads, and keeps the first error.
fn in_parallel(
    changes: &[Change],
    threads: usize,
    work: &(dyn Fn(usize, &Change) -> Result<()> + Sync),
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    // The longest first, so that threads end at about the same time.
    let size = |change: &Change| fs::metadata(&change.file.path).map_or(0, |found| found.len());
    let mut order: Vec<_> = changes.iter().enumerate().map(|(at, c)| (size(c), at, c)).collect();
    order.sort_by_key(|(size, ..)| std::cmp::Reverse(*size));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, changes.len().max(1)) {
            scope.spawn(|| {
                while let Some((_, at, change)) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = work(*at, change) {
                        next.store(order.len(), Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Looks at every page of the delta. Returns what the tablespaces are afterwards.
fn check_pages(
    plan: &Plan,
    delta: &DeltaDir,
    threads: usize,
    cancel: &Cancel,
) -> Result<Vec<Option<SpaceHeader>>> {
    let headers = Mutex::new(vec![None; plan.changed.len()]);
    let corrupt_accepted = delta.dir.join(names::CORRUPTED_PAGES).exists();
    in_parallel(&plan.changed, threads, &|at, change| {
        let logical = delta.settings.page_size;
        let known = change.base.as_ref();
        let own = pages::check(
            &change.file,
            change.first_page,
            known,
            logical,
            corrupt_accepted,
            cancel,
        )?;
        let mut headers = headers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = headers.get_mut(at) {
            *header = own.or(change.base);
        }
        Ok(())
    })?;
    Ok(headers.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn write_pages(
    (base, delta): (&Path, &DeltaDir),
    plan: &Plan,
    headers: &[Option<SpaceHeader>],
    threads: usize,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<u64> {
    let pages = AtomicU64::new(0);
    in_parallel(&plan.changed, threads, &|at, change| {
        let target = base.join(&change.file.name);
        let header = headers.get(at).copied().flatten();
        let has_holes = header.is_some_and(|header| header.is_page_compressed());
        tell(reporter, "Applying", Path::new(&change.file.name));
        let path = if change.made { making(&target) } else { target.clone() };
        if change.made {
            create_parent(&target)?;
            // As short as a server takes them, whatever the size of its own pages; blank, until pages
            // or redo come.
            let least = YOUNG_PAGES * delta.settings.page_size.bytes() as u64;
            File::create(&path)
                .and_then(|file| file.set_len(least))
                .map_err(|e| Error::io("create", &path, e))?;
        }
        let written = pages::write(&change.file, &path, change.length, has_holes, cancel)?;
        if change.made {
            move_file(&path, &target)?;
        }
        pages.fetch_add(written, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(pages.into_inner())
}

/// The last file of a system tablespace in several files is as long as the rest that page 0 counts.
fn fit_system_tablespace(base: &Path, delta: &DeltaDir) -> Result<()> {
    let files = delta.settings.data_file_path.files();
    let paths: Vec<_> = files.iter().map(|file| base.join(file.stored_name())).collect();
    let [first, .., last] = paths.as_slice() else { return Ok(()) };
    let Some(header) = header_of(first)? else { return Ok(()) };
    let mut wanted = u64::from(header.size) * delta.settings.page_size.bytes() as u64;
    let size = |path: &Path| {
        fs::metadata(path).map(|found| found.len()).map_err(|e| Error::io("inspect", path, e))
    };
    for path in paths.iter().filter(|path| *path != last) {
        wanted = wanted.saturating_sub(size(path)?);
    }
    if size(last)? < wanted {
        let file = File::options().write(true).open(last);
        file.and_then(|file| file.set_len(wanted)).map_err(|e| Error::io("resize", last, e))?;
    }
    Ok(())
}

/// Gives files their new names, all at once: each is either under its old name, waiting under a
/// name beside its new one, or there.
fn rename(base: &Path, renamed: &[(PathBuf, PathBuf)], reporter: &dyn Reporter) -> Result<()> {
    for (from, to) in renamed {
        let (from, to) = (base.join(from), base.join(to));
        create_parent(&to)?;
        if from != waiting(&to) {
            move_file(&from, &waiting(&to))?;
        }
    }
    for (_, to) in renamed {
        tell(reporter, "Renaming", to);
        let to = base.join(to);
        move_file(&waiting(&to), &to)?;
    }
    Ok(())
}

/// Puts a whole tablespace in its place.
fn replace(base: &Path, whole: &WholeFile) -> Result<()> {
    let target = base.join(&whole.name);
    create_parent(&target)?;
    copy(&whole.path, &making(&target))?;
    move_file(&making(&target), &target)
}

fn making(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(MAKING);
    PathBuf::from(name)
}

pub(super) fn create_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(|e| Error::io("copy", from, e))
}

fn move_file(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
}

pub(super) fn tell(reporter: &dyn Reporter, verb: &'static str, path: &Path) {
    reporter.event(&Event::File { worker: 0, verb, path: path.display().to_string() });
}

/// Names in `all` that are not in `wanted`.
pub(super) fn left_over<'a>(
    all: &'a [PathBuf],
    wanted: &BTreeSet<PathBuf>,
) -> impl Iterator<Item = &'a PathBuf> {
    all.iter().filter(move |path| !wanted.contains(*path))
}
