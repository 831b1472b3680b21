//! Deltas that are applied to a backup before it is prepared, one after the other.
//!
//! Between two of them the backup is prepared too, unless the later one has every page that an
//! unprepared base lacks: then the redo of the last is enough.

use std::path::{Path, PathBuf};

use super::{LeftOut, PrepareOptions, prepare_locked};
use crate::delta::{self, Allow, ApplyOptions, DeltaDir, DeltaSummary, progress::Progress};
use crate::metadata::{BackupType, Checkpoints};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// Applies `deltas`; the last one is left to be prepared.
pub fn apply(
    options: &PrepareOptions,
    deltas: &[PathBuf],
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<Vec<DeltaSummary>> {
    let base = options.dir.as_path();
    let deltas = deltas.iter().map(|dir| DeltaDir::read(dir)).collect::<Result<Vec<_>>>()?;
    check_order(&deltas)?;
    let mut summaries = Vec::new();
    let first = first_left(base, &deltas)?;
    for (number, delta) in deltas.iter().enumerate().skip(first) {
        // Of what an interrupted run has merged, or this one has, the redo may not be applied yet.
        let allow = if number > 0 { Allow::Mergeable } else { Allow::Prepared };
        let how = ApplyOptions { allow, threads: options.parallel };
        let summary = delta::apply(base, delta, how, cancel, reporter)?;
        reporter.info(format!(
            "applied {} (LSN {} to {}): {} pages",
            delta.dir.display(),
            summary.from_lsn,
            summary.to_lsn,
            summary.pages
        ));
        summaries.push(summary);
        if let Some(next) = deltas.get(number + 1)
            && !can_follow_unprepared(delta, next)?
        {
            // Nothing is exported before the last one is there.
            let between = PrepareOptions { export: false, ..options.clone() };
            prepare_locked(&LeftOut::of(base)?, None, &between, cancel, reporter)?;
        }
    }
    Ok(summaries)
}

/// Whether `next` has every page that `delta` lacks until its redo is applied.
fn can_follow_unprepared(delta: &DeltaDir, next: &DeltaDir) -> Result<bool> {
    let info = crate::metadata::HauloutInfo::read(&delta.dir)?;
    Ok(info.is_some_and(|info| next.pages_since.0 <= info.lsn.start))
}

/// That each delta begins where the one before ends.
fn check_order(deltas: &[DeltaDir]) -> Result<()> {
    for pair in deltas.windows(2) {
        if let [one, next] = pair
            && one.checkpoints.to_lsn != next.checkpoints.from_lsn
        {
            let message = format!(
                "{} ends at LSN {}, but {} begins at LSN {}",
                one.dir.display(),
                one.checkpoints.to_lsn,
                next.dir.display(),
                next.checkpoints.from_lsn
            );
            return Err(Error::new(ErrorKind::Gap, message)
                .advise("name the deltas in the order in which they were taken, and all of them"));
        }
    }
    Ok(())
}

/// The first delta that is not in `base` yet: a run before may have been interrupted.
fn first_left(base: &Path, deltas: &[DeltaDir]) -> Result<usize> {
    if let Some(left) = Progress::left_in(base)? {
        let number = deltas.iter().position(|delta| Progress::of(&delta.checkpoints) == left);
        return match number {
            Some(number) => Ok(number),
            // Not a word about a mark when nothing is asked for: prepare tells.
            None if deltas.is_empty() => Ok(0),
            None => Err(left.refuse(base)),
        };
    }
    let Some(last) = deltas.last() else { return Ok(0) };
    let (checkpoints, _) = Checkpoints::read(base)?;
    // Of a server on which InnoDB was idle, a delta ends where it begins. Whether it was applied
    // cannot be told then, and applying it again changes nothing.
    let tells = |delta: &DeltaDir| {
        checkpoints.backup_type == BackupType::Full
            || delta.checkpoints.from_lsn != delta.checkpoints.to_lsn
    };
    let done =
        |delta: &DeltaDir| tells(delta) && Progress::of(&delta.checkpoints).is_done(&checkpoints);
    if done(last) {
        // Applied, and killed before it was prepared; else it was all done.
        return match checkpoints.backup_type {
            BackupType::Full => Ok(deltas.len()),
            _ => {
                let message = format!(
                    "This incremental backup seems not to be proper for the target: {} ends at \
                     LSN {}, as {} does, which begins at LSN {}",
                    base.display(),
                    checkpoints.to_lsn,
                    last.dir.display(),
                    last.checkpoints.from_lsn
                );
                Err(Error::new(ErrorKind::Gap, message).advise("it was applied already"))
            }
        };
    }
    Ok(deltas.iter().position(done).map_or(0, |number| number + 1))
}
