//! Unpacking and preparing inside of the data directory, so that placing is renaming.
//!
//! The marker that keeps a server off stands in its place before the first byte is written. What a
//! failed restore left is removed by the next one.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::plan::REDO_LOG;
use super::{DIRECTORY_MODE, guard};
use crate::io::durable;
use crate::{Error, Result};

/// The folder in the data directory. A server takes no folder with a `.` for a database.
pub(super) const NAME: &str = ".haulout-restore";

/// A folder inside of a data directory that nobody can start a server on meanwhile.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
}

impl Stage {
    /// Makes it, in a data directory that is created if missing, for `owner`, and must be empty but
    /// for what a failed restore left. `log_dir` is where the redo log goes, if not there; as for
    /// the server, a relative one is within the data directory.
    pub(crate) fn create(
        datadir: &Path,
        log_dir: Option<&Path>,
        owner: Option<(u32, u32)>,
    ) -> Result<Self> {
        let absolute = std::path::absolute(datadir);
        let datadir = &absolute.map_err(|e| Error::io("resolve", datadir, e))?;
        let log_dir = datadir.join(log_dir.unwrap_or(Path::new("")));
        for dir in [datadir, &log_dir] {
            create_for(dir, owner)?;
        }
        guard::check_not_running(datadir)?;
        let log = log_dir.join(REDO_LOG);
        let is_marked = guard::is_marked(&log);
        let is_half_marked = log.starts_with(datadir) && guard::is_half_marked(&log);
        // A log directory within the data directory, which was just created, holds at most the marker.
        let within = log_dir.strip_prefix(datadir).ok().and_then(|dir| dir.iter().next());
        let within = within.and_then(|name| name.to_str()).unwrap_or(REDO_LOG);
        let left: &[&str] = match is_marked || is_half_marked {
            true => &[NAME, REDO_LOG, within],
            false => &[within],
        };
        if fs::symlink_metadata(&log).is_ok() && !is_marked && !is_half_marked {
            return Err(guard::exists(&log));
        }
        guard::check_empty(datadir, left)?;
        if is_half_marked {
            fs::remove_file(&log).map_err(|e| Error::io("remove", &log, e))?;
        }
        if !is_marked {
            guard::mark(&log)?;
        }
        // A marker that a power failure takes away keeps nobody off.
        durable::sync_dir(&log_dir)?;
        let stage = Self::at(datadir);
        stage.remove()?;
        create_dir(&stage.dir)?;
        Ok(stage)
    }

    /// That of a data directory.
    pub(super) fn at(datadir: &Path) -> Self {
        Self { dir: datadir.join(NAME) }
    }

    /// The folder.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.dir, error))
            }
            _ => Ok(()),
        }
    }
}

/// Creates a directory, if it is not there.
pub(super) fn create_dir(dir: &Path) -> Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io("create", dir, error))
        }
        _ => Ok(()),
    }
}

/// Creates a directory where it is missing, and those above it, each for `owner`.
fn create_for(dir: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    for path in missing.into_iter().rev() {
        DirBuilder::new()
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(|e| Error::io("create", path, e))?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(path, Some(user), Some(group))
                .map_err(|e| Error::io("change the owner of", path, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_a_failed_restore_left_may_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let datadir = dir.path().join("data");
        let create = |log_dir: Option<&str>| Stage::create(&datadir, log_dir.map(Path::new), None);
        let stage = create(None).unwrap();
        fs::write(stage.dir().join("half"), "x").unwrap();
        assert!(guard::is_marked(&datadir.join(REDO_LOG)));
        let stage = create(None).unwrap();
        assert_eq!(fs::read_dir(stage.dir()).unwrap().count(), 0);
        // One that was killed while it put the marker.
        for begun in ["", "Haulout has"] {
            fs::write(datadir.join(REDO_LOG), begun).unwrap();
            create(None).unwrap();
            assert!(guard::is_marked(&datadir.join(REDO_LOG)));
        }

        fs::write(datadir.join("ibdata1"), "x").unwrap();
        assert!(create(None).is_err());
        fs::remove_file(datadir.join("ibdata1")).unwrap();
        fs::write(datadir.join(REDO_LOG), "a real one").unwrap();
        assert!(create(None).is_err());
    }

    #[test]
    fn the_marker_stands_where_the_log_goes() {
        let dir = tempfile::tempdir().unwrap();
        for (datadir, log_dir, log) in [
            ("a", Some("./"), "a/ib_logfile0"),
            ("b", Some("redo"), "b/redo/ib_logfile0"),
            ("c", None, "c/ib_logfile0"),
        ] {
            let datadir = dir.path().join(datadir);
            for _ in 0..2 {
                Stage::create(&datadir, log_dir.map(Path::new), None).unwrap();
                assert!(guard::is_marked(&dir.path().join(log)), "{log}");
            }
        }
        let elsewhere = dir.path().join("elsewhere");
        Stage::create(&dir.path().join("d"), Some(&elsewhere), None).unwrap();
        assert!(guard::is_marked(&elsewhere.join(REDO_LOG)));
        assert!(!dir.path().join("d").join(REDO_LOG).exists());
        // Another restore is under way, or failed: its marker is not ours to go by.
        fs::write(dir.path().join("d/x"), "x").unwrap();
        assert!(Stage::create(&dir.path().join("d"), Some(&elsewhere), None).is_err());
    }
}
