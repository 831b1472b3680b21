//! What is not InnoDB's: a delta has it whole, and it takes the place of what the base has.
//!
//! A delta of ours has every file. One of the stock tool has those that it knows by their extensions;
//! others of the base stay, unless their database is gone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::apply::{copy, create_parent, left_over, tell};
use super::progress;
use super::source::{DeltaDir, LOG, list};
use crate::capture::rocksdb;
use crate::io::durable;
use crate::metadata::names;
use crate::prepare::inventory::is_undo;
use crate::prepare::{journal, markers};
use crate::{Cancel, Error, Reporter, Result};

/// The file that every database has.
const DATABASE_OPTIONS: &str = "db.opt";

/// Extensions of the files that the stock tool copies, and of those that an export leaves.
const KNOWN: [&str; 16] = [
    "frm", "isl", "MYD", "MYI", "MAD", "MAI", "MRG", "TRG", "TRN", "ARM", "ARZ", "CSM", "CSV",
    "opt", "par", "cfg",
];

/// Makes all files of `base` that are not tablespaces those of `delta`. Can be repeated.
pub fn replace(
    base: &Path,
    delta: &DeltaDir,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<()> {
    let mut files = Vec::new();
    list(base, Path::new(""), &mut files)?;
    let system: BTreeSet<PathBuf> = delta
        .settings
        .data_file_path
        .files()
        .iter()
        .map(|file| file.stored_name().into())
        .collect();
    let options: BTreeSet<PathBuf> =
        delta.empty_databases.iter().map(|database| database.join(DATABASE_OPTIONS)).collect();
    let databases: BTreeSet<&Path> = delta
        .plain
        .iter()
        .filter_map(|path| path.parent())
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    for path in left_over(&files, &system).filter(|path| is_plain(path)) {
        let gone = !delta.plain.contains(path)
            && !options.contains(path)
            && (delta.has_unknown_files || is_known(path) || !is_below(path, &databases));
        // What comes again is removed too: it may be a folder's or a link's name by now.
        if gone || delta.plain.contains(path) {
            if gone {
                tell(reporter, "Removing", path);
            }
            durable::remove_if_there(&base.join(path))?;
        }
    }
    for path in &delta.plain {
        cancel.check()?;
        let target = base.join(path);
        create_parent(&target)?;
        copy(&delta.dir.join(path), &target)?;
    }
    // An empty folder counts as that of a dropped database; what says otherwise stays, or is made.
    for path in &options {
        let target = base.join(path);
        create_parent(&target)?;
        File::options()
            .append(true)
            .create(true)
            .open(&target)
            .map_err(|e| Error::io("create", &target, e))?;
    }
    metadata(base, delta)
}

/// The texts about the backup, but those that say what state it is in.
fn metadata(base: &Path, delta: &DeltaDir) -> Result<()> {
    let mut all = Vec::new();
    for dir in [base, &delta.dir] {
        let mut files = Vec::new();
        list(dir, Path::new(""), &mut files)?;
        all.extend(files);
    }
    let own = |path: &Path| path.to_str().is_some_and(names::is_metadata);
    let names: BTreeSet<_> = all.into_iter().filter(|path| own(path)).collect();
    let state = [names::Naming::Xtrabackup, names::Naming::MariadbBackup].map(|n| n.checkpoints());
    for name in names.iter().filter(|name| !state.iter().any(|state| name.as_os_str() == *state)) {
        let from = delta.dir.join(name);
        if from.exists() {
            durable::remove_if_there(&base.join(name))?;
            copy(&from, &base.join(name))?;
        } else if name.as_os_str() != names::CORRUPTED_PAGES {
            // It describes what the base was.
            durable::remove_if_there(&base.join(name))?;
        }
    }
    Ok(())
}

/// Whether a file of a base is neither a tablespace nor about the backup.
fn is_plain(path: &Path) -> bool {
    let Some(name) = path.to_str() else { return true };
    if path.starts_with(rocksdb::DIRECTORY) {
        return true;
    }
    if path.components().count() > 1 {
        return !name.strip_suffix(markers::WAITING).unwrap_or(name).ends_with(".ibd");
    }
    !is_undo(name)
        && !names::is_metadata(name)
        && ![LOG, journal::FILE_NAME, progress::FILE_NAME].contains(&name)
}

/// Whether a delta of the stock tool would have a file of this kind.
fn is_known(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    path.starts_with(rocksdb::DIRECTORY)
        || name.contains(".mrn")
        || match path.components().count() {
            1 => name.starts_with("aria_log"),
            _ => KNOWN.contains(&extension) || extension == "cfp",
        }
}

/// Whether a file is in the root, or in one of these folders.
fn is_below(path: &Path, databases: &BTreeSet<&Path>) -> bool {
    path.components().count() == 1 || databases.iter().any(|database| path.starts_with(database))
}
