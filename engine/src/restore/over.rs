//! Restoring over a data directory that has an older or a newer state of the same server.
//!
//! Its files become those of the stage, where they are updated to what the backup has, and what the
//! backup does not have is removed. So an empty disk of the same size is not needed, and most pages
//! are only read.
//!
//! - Nothing is touched before everything in the directory was recognised: files of a server, which
//!   the backup has or which belong to tables. Logs, certificates and the like in the directory itself
//!   stay where they are. Binary logs are refused: they tell of a state that will be gone.
//! - The first step puts the marker in the place of the redo log, by one rename: from there on no
//!   server starts on the directory until the restore is complete. Each later step can be killed and
//!   is repeated by the next restore over the directory.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::guard;
use super::plan::REDO_LOG;
use super::stage::{self, Stage};
use crate::io::durable;
use crate::metadata::names;
use crate::{Error, ErrorKind, Result};

/// What binary logs and relay logs begin with.
const BINLOG_MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
/// Files of databases: of a table, a view, triggers, or the options of the database.
const OF_TABLES: [&str; 20] = [
    "frm", "ibd", "cfg", "isl", "par", "opt", "TRG", "TRN", "MYD", "MYI", "MAD", "MAI", "CSV",
    "CSM", "ARZ", "ARM", "MRG", "TMD", "BAK", "ibz",
];
/// What begins the names of files in the data directory that the server makes for its tables.
const OF_SERVER: [&str; 7] =
    ["ibdata", "undo", "ib_logfile", "aria_log", "ib_buffer_pool", "ibtmp", "ddl_recovery"];

impl Stage {
    /// Takes a data directory over for a backup of these files, which are paths below it. Nobody
    /// must run a server on it, and it has to be one, or what a failed restore left of one.
    pub(crate) fn over(datadir: &Path, files: &BTreeSet<PathBuf>) -> Result<Self> {
        let absolute = std::path::absolute(datadir);
        let datadir = &absolute.map_err(|e| Error::io("resolve", datadir, e))?;
        guard::check_not_running(datadir)?;
        let log = datadir.join(REDO_LOG);
        if !fs::symlink_metadata(&log).is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{} is no data directory: it has no {REDO_LOG}", datadir.display()),
            )
            .advise("restore to an empty directory with --to"));
        }
        let survey = survey(datadir, files)?;
        let stage = Self::at(datadir);
        if !guard::is_marked(&log) {
            let waiting = log.with_extension("haulout-restore");
            let _ = fs::remove_file(&waiting);
            guard::mark(&waiting)?;
            fs::rename(&waiting, &log).map_err(|e| Error::io("rename", &waiting, e))?;
        }
        durable::sync_dir(datadir)?;
        stage::create_dir(&stage.dir())?;
        for name in &survey {
            move_into(&datadir.join(name), &stage.dir().join(name))?;
        }
        sweep(&stage.dir(), Path::new(""), files)?;
        Ok(stage)
    }
}

/// Names in the data directory that are the server's data, all of which were recognised.
fn survey(datadir: &Path, files: &BTreeSet<PathBuf>) -> Result<Vec<OsString>> {
    let mut survey = Vec::new();
    for name in entries(datadir)? {
        let path = datadir.join(&name);
        let kind = fs::symlink_metadata(&path).map_err(|e| Error::io("inspect", &path, e))?;
        let text = name.to_string_lossy();
        if name == stage::NAME || name == REDO_LOG || name == "lost+found" {
            continue;
        }
        if kind.is_dir() {
            for inside in entries(&path)? {
                let relative = Path::new(&name).join(&inside);
                let known = relative.extension().and_then(OsStr::to_str);
                let known = known.is_some_and(|known| OF_TABLES.contains(&known));
                let of_backup = files.iter().any(|file| file.starts_with(&relative));
                let of_engine = text.starts_with('#') && files.iter().any(|f| f.starts_with(&name));
                let is_file = fs::symlink_metadata(path.join(&inside)).is_ok_and(|m| m.is_file());
                if !of_engine && !(is_file && (known || of_backup)) {
                    return Err(unknown(&datadir.join(relative)));
                }
            }
            survey.push(name);
        } else if files.contains(Path::new(&name))
            || OF_SERVER.iter().any(|of| text.starts_with(of))
            // An earlier restore left it.
            || names::is_metadata(&text)
        {
            if !kind.is_file() {
                return Err(unknown(&path));
            }
            survey.push(name);
        } else if kind.is_symlink() && path.is_dir() {
            return Err(unknown(&path));
        } else if kind.is_file() && is_binlog(&path)? {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{} is a binary log, of the state that would be replaced", path.display()),
            )
            .advise("move the binary logs and their index to another place first"));
        }
    }
    Ok(survey)
}

fn unknown(path: &Path) -> Error {
    Error::new(
        ErrorKind::Usage,
        format!("{} is nothing that the backup has or that belongs to a table", path.display()),
    )
    .advise("move it out of the data directory, or restore to an empty one with --to")
}

fn is_binlog(path: &Path) -> Result<bool> {
    let mut start = [0; 4];
    match File::open(path).and_then(|mut file| file.read_exact(&mut start)) {
        Ok(()) => Ok(start == BINLOG_MAGIC),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

fn entries(dir: &Path) -> Result<Vec<OsString>> {
    let listing = |e| Error::io("list", dir, e);
    let entries = fs::read_dir(dir).map_err(listing)?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(listing)?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Moves a file, or a directory with what is in it, to where some of it may be already.
fn move_into(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() && to.is_dir() {
        for name in entries(from)? {
            move_into(&from.join(&name), &to.join(&name))?;
        }
        return fs::remove_dir(from).map_err(|e| Error::io("remove", from, e));
    }
    fs::rename(from, to).map_err(|e| Error::io("move", from, e))
}

/// Removes what the backup does not have, and what is no file.
fn sweep(stage: &Path, below: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    let dir = stage.join(below);
    for name in entries(&dir)? {
        let relative = below.join(&name);
        let path = stage.join(&relative);
        let kind = fs::symlink_metadata(&path).map_err(|e| Error::io("inspect", &path, e))?;
        if kind.is_dir() {
            sweep(stage, &relative, files)?;
            // Only if nothing is left in it.
            let _ = fs::remove_dir(&path);
        } else if !(kind.is_file() && files.contains(&relative)) || is_state(&name) {
            fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

/// Files that say that a backup is one: they come last, and must not be there before.
fn is_state(name: &OsStr) -> bool {
    name.to_string_lossy().ends_with("_checkpoints")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_data_directory_is_taken_over_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let write = |path: &str, content: &[u8]| {
            fs::create_dir_all(data.join(path).parent().unwrap()).unwrap();
            fs::write(data.join(path), content).unwrap();
        };
        let files: BTreeSet<PathBuf> =
            ["ibdata1", "ib_logfile0", "d/t.ibd", "d/u.ibd"].map(PathBuf::from).into();
        let over = || Stage::over(data, &files);
        assert!(over().unwrap_err().to_string().contains("no data directory"));
        for path in ["ib_logfile0", "ibdata1", "d/t.ibd", "d/old.frm", "gone/x.ibd", "server.err"] {
            write(path, b"x");
        }
        for odd in ["d/backup.tar", "mine/file"] {
            write(odd, b"x");
            assert!(over().unwrap_err().to_string().contains(odd));
            fs::remove_file(data.join(odd)).unwrap();
        }
        write("binlog.000001", b"\xfebin...");
        assert!(over().unwrap_err().to_string().contains("binlog.000001"));
        fs::remove_file(data.join("binlog.000001")).unwrap();
        // Nothing was touched so far.
        assert_eq!(fs::read(data.join("ib_logfile0")).unwrap(), b"x");
        for _ in 0..2 {
            let stage = over().unwrap();
            assert!(guard::is_marked(&data.join("ib_logfile0")));
            assert!(stage.dir().join("ibdata1").exists() && stage.dir().join("d/t.ibd").exists());
            for gone in ["d/old.frm", "gone"] {
                assert!(!stage.dir().join(gone).exists() && !data.join(gone).exists());
            }
            assert!(data.join("server.err").exists());
            // A restore that was killed while it placed files.
            write("d/u.ibd", b"x");
        }
    }
}
