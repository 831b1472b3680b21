//! Unpacking and preparing inside of the data directory, so that placing is renaming.
//!
//! The marker that keeps a server off stands in its place before the first byte is written. What a
//! failed restore left is removed by the next one.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::plan::REDO_LOG;
use super::{DIRECTORY_MODE, guard};
use crate::{Error, Result};

/// The folder in the data directory. A server takes no folder with a `.` for a database.
const NAME: &str = ".haulout-restore";

/// A folder inside of a data directory that nobody can start a server on meanwhile.
pub(crate) struct Stage {
    dir: PathBuf,
}

impl Stage {
    /// Makes it, in a data directory that is created if missing and must be empty but for what a
    /// failed restore left. `log_dir` is where the redo log goes, if not there.
    pub(crate) fn create(datadir: &Path, log_dir: Option<&Path>) -> Result<Self> {
        for dir in [Some(datadir), log_dir].into_iter().flatten() {
            DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY_MODE)
                .create(dir)
                .map_err(|e| Error::io("create", dir, e))?;
        }
        guard::check_not_running(datadir)?;
        let log = log_dir.unwrap_or(datadir).join(REDO_LOG);
        let is_marked = guard::is_marked(&log);
        let left: &[&str] = if is_marked { &[NAME, REDO_LOG] } else { &[] };
        guard::check_empty(datadir, left)?;
        if !is_marked {
            guard::mark(&log)?;
        }
        let stage = Self { dir: datadir.join(NAME) };
        stage.remove()?;
        DirBuilder::new()
            .mode(DIRECTORY_MODE)
            .create(&stage.dir)
            .map_err(|e| Error::io("create", &stage.dir, e))?;
        Ok(stage)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_a_failed_restore_left_may_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let datadir = dir.path().join("data");
        let stage = Stage::create(&datadir, None).unwrap();
        fs::write(stage.dir().join("half"), "x").unwrap();
        assert!(guard::is_marked(&datadir.join(REDO_LOG)));
        let stage = Stage::create(&datadir, None).unwrap();
        assert_eq!(fs::read_dir(stage.dir()).unwrap().count(), 0);

        fs::write(datadir.join("ibdata1"), "x").unwrap();
        assert!(Stage::create(&datadir, None).is_err());
        fs::remove_file(datadir.join("ibdata1")).unwrap();
        fs::write(datadir.join(REDO_LOG), "a real one").unwrap();
        assert!(Stage::create(&datadir, None).is_err());
    }
}
