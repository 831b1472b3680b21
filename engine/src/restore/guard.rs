//! What a restore refuses, and the marker that keeps a server off half a data directory.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::plan::Plan;
use crate::metadata::{BackupType, Checkpoints};
use crate::prepare::journal;
use crate::{Error, ErrorKind, Result};

/// Stands where the redo log belongs until the restore is complete. A server refuses to start
/// with such a log, whether or not the system tablespace is there already.
const MARKER: &str = "Haulout has not finished restoring this data directory. \
                      Empty it and restore again.\n";

/// Mode of placed files, before the process's mask: as the server's own.
pub const FILE_MODE: u32 = 0o660;

/// Refuses a backup that is not prepared.
pub fn check_prepared(source: &Path) -> Result<()> {
    let unprepared = |why: &str| {
        Err(Error::new(ErrorKind::Damage, format!("{} is not prepared: {why}", source.display()))
            .advise("run haulout prepare on it first"))
    };
    let (checkpoints, naming) = Checkpoints::read(source)?;
    let interrupted = source.join(journal::FILE_NAME);
    if interrupted.try_exists().map_err(|e| Error::io("inspect", &interrupted, e))? {
        return unprepared("a prepare was interrupted");
    }
    if checkpoints.backup_type != BackupType::Prepared {
        let word = checkpoints.backup_type.word();
        return unprepared(&format!("{} says {word}", naming.checkpoints()));
    }
    Ok(())
}

/// Refuses a data directory in use, one that holds something, and one that is the backup.
pub fn check_datadir(datadir: &Path, source: &Path, force_non_empty: bool) -> Result<()> {
    let Ok(real) = datadir.canonicalize() else { return Ok(()) };
    let source = source.canonicalize().map_err(|e| Error::io("resolve", source, e))?;
    // A cluster's node receives a backup within its data directory, and moves it up from there.
    if real.starts_with(&source) || (source.starts_with(&real) && !force_non_empty) {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the data directory {} and the backup overlap", datadir.display()),
        ));
    }
    check_not_running(datadir)?;
    match force_non_empty {
        true => Ok(()),
        false => check_empty(datadir, &[]),
    }
}

/// Refuses a data directory in use.
pub fn check_not_running(datadir: &Path) -> Result<()> {
    for name in ["ibdata1", "aria_log_control"] {
        if is_locked(&datadir.join(name)) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("a server is running on {}", datadir.display()),
            )
            .advise("stop it, or restore to another directory"));
        }
    }
    Ok(())
}

/// Refuses a data directory that holds something else than what may be there.
pub fn check_empty(datadir: &Path, may_be_there: &[&str]) -> Result<()> {
    let entries = fs::read_dir(datadir).map_err(|e| Error::io("list", datadir, e))?;
    for entry in entries {
        let name = entry.map_err(|e| Error::io("list", datadir, e))?.file_name();
        // Every file system has this one in its root.
        if name != "lost+found" && !may_be_there.iter().any(|expected| name == *expected) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("the data directory {} is not empty", datadir.display()),
            )
            .advise("empty it, or restore to another directory"));
        }
    }
    Ok(())
}

/// Refuses to overwrite anything, before anything is placed. `marked` says that the marker stands
/// where the redo log goes.
pub fn check_targets(plan: &Plan, marked: bool) -> Result<()> {
    let mut targets = std::collections::HashSet::new();
    for item in plan.files.iter().chain(&plan.log) {
        if !targets.insert(&item.target) {
            return Err(Error::new(
                ErrorKind::Damage,
                format!("two files of the backup go to {}", item.target.display()),
            ));
        }
        let is_marker = marked && plan.log.as_ref().is_some_and(|log| log.target == item.target);
        if fs::symlink_metadata(&item.target).is_ok() && !is_marker {
            return Err(exists(&item.target));
        }
    }
    Ok(())
}

/// The refusal to overwrite.
pub fn exists(target: &Path) -> Error {
    Error::new(
        ErrorKind::Usage,
        format!("{} exists already and is not overwritten", target.display()),
    )
    .advise("remove it, or restore to another directory")
}

/// Puts the marker at `log`, where the redo log goes.
pub fn mark(log: &Path) -> Result<()> {
    let marker = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(log);
    let mut marker = marker.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => exists(log),
        _ => Error::io("create", log, e),
    })?;
    marker
        .write_all(MARKER.as_bytes())
        .and_then(|()| marker.sync_all())
        .map_err(|e| Error::io("write", log, e))
}

/// Whether the marker is at `log`.
pub fn is_marked(log: &Path) -> bool {
    let longer = fs::metadata(log).is_ok_and(|metadata| metadata.len() > MARKER.len() as u64);
    !longer && fs::read(log).is_ok_and(|content| content == MARKER.as_bytes())
}

/// Whether the file at `log` was begun as the marker, by somebody who was killed at that. In a directory
/// with nothing else in it no other file looks like this.
pub fn is_half_marked(log: &Path) -> bool {
    let short = fs::metadata(log).is_ok_and(|metadata| metadata.len() < MARKER.len() as u64);
    short && fs::read(log).is_ok_and(|content| MARKER.as_bytes().starts_with(&content))
}

/// Whether another process has a lock on the file, as a running server has on these.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::options().read(true).write(true).open(path) else { return false };
    // Closing the file gives the lock back, if it was to be had.
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(e) => e == rustix::io::Errno::AGAIN || e == rustix::io::Errno::ACCESS,
        Ok(()) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The script of a cluster's joiner has the backup in `.sst` in the data directory, beside what the
    /// node keeps.
    #[test]
    fn a_backup_within_the_data_directory_needs_to_be_forced() {
        let datadir = tempfile::tempdir().unwrap();
        let source = datadir.path().join(".sst");
        fs::create_dir(&source).unwrap();
        fs::write(datadir.path().join("galera.cache"), "").unwrap();
        check_datadir(datadir.path(), &source, true).unwrap();
        let refused = check_datadir(datadir.path(), &source, false).unwrap_err();
        assert!(refused.to_string().contains("overlap"), "{refused}");
        // Placing files into the backup itself is never meant.
        for (datadir, source) in [(&*source, datadir.path()), (datadir.path(), datadir.path())] {
            check_datadir(datadir, source, true).unwrap_err();
        }
    }
}
