//! A backup as a folder of plain files.
//!
//! Files are created exclusively, with mode 0660 less the umask, in directories of mode 0700: what
//! the stock tool makes. The folder may exist but must be empty.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Mode, Sink, SinkFile, StreamPath, aborted};
use crate::io::direct::{DirectWrites, NewFile};
use crate::io::holes;
use crate::{Error, ErrorKind, Result};

const FILE_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o700;

/// Writes files below one directory.
pub struct FolderSink {
    root: PathBuf,
    aborted: AtomicBool,
    disk: Arc<DirectWrites>,
}

impl FolderSink {
    /// Uses `root`, which is created if it does not exist and must be empty if it does.
    pub fn create(root: &Path) -> Result<Self> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(root) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut entries =
                    fs::read_dir(root).map_err(|e| Error::io("read directory", root, e))?;
                if entries.next().is_some() {
                    return Err(Error::new(
                        ErrorKind::Usage,
                        format!("the target directory {} is not empty", root.display()),
                    )
                    .advise(
                        "name a new directory; a backup is never written over something else",
                    ));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::io("create the target directory", root, error)
                    .advise("only the last directory of the path is created"));
            }
            Err(error) => return Err(Error::io("create the target directory", root, error)),
        }
        Ok(Self { root: root.to_owned(), aborted: AtomicBool::new(false), disk: Arc::default() })
    }

    fn absolute(&self, path: &StreamPath) -> PathBuf {
        self.root.join(OsStr::from_bytes(path.as_bytes()))
    }

    fn create_parents(path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let made = DirBuilder::new().mode(DIRECTORY_MODE).recursive(true).create(parent);
        made.map_err(|error| Error::io("create directory", parent, error))
    }
}

impl Sink for FolderSink {
    fn begin(&self, path: &StreamPath, mode: Mode) -> Result<Box<dyn SinkFile>> {
        if self.aborted.load(Ordering::Relaxed) {
            return Err(aborted());
        }
        let path = self.absolute(path);
        if mode == Mode::Rewrite {
            // A new file rather than a truncated one: a reader of the old one keeps what it has.
            fs::remove_file(&path)
                .or_else(ignore_missing)
                .map_err(|e| Error::io("replace", &path, e))?;
        }
        let create = || NewFile::create(&path, FILE_MODE, &self.disk);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create_parents(&path)?;
                create()
            }
            other => other,
        };
        let file = file.map_err(|error| Error::io("create", &path, error))?;
        Ok(Box::new(FolderFile { file, path, sparse_end: AtomicU64::new(0) }))
    }

    fn remove(&self, path: &StreamPath) -> Result<()> {
        let path = self.absolute(path);
        fs::remove_file(&path)
            .or_else(ignore_missing)
            .map_err(|e| Error::io("remove", &path, e))?;
        // A database that was dropped is not to come back as an empty one. Whoever needs the directory
        // again makes it again.
        if let Some(parent) = path.parent().filter(|parent| *parent != self.root) {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn takes_nested_paths(&self) -> bool {
        true
    }

    fn takes_any_order(&self) -> bool {
        true
    }

    fn rewrites_freely(&self) -> bool {
        true
    }

    fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

struct FolderFile {
    file: NewFile,
    path: PathBuf,
    /// Where the last piece ends of which something was left out: the file is at least so long.
    sparse_end: AtomicU64,
}

impl SinkFile for FolderFile {
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| {
            let full = error.kind() == io::ErrorKind::StorageFull;
            let error = Error::io("write to", &self.path, error);
            if full {
                error.advise("free some space or choose another target directory")
            } else {
                error
            }
        })
    }

    fn write_sparse(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.sparse_end.fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
        holes::runs(offset, bytes).into_iter().try_for_each(|(at, run)| self.write(at, run))
    }

    fn patch(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write(offset, bytes)
    }

    fn finish(&self) -> Result<()> {
        let end = self.sparse_end.load(Ordering::Relaxed);
        self.file.extend(end).map_err(|error| Error::io("extend", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sink::{backup_path, write_file};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_are_written_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("backup");
        let sink = FolderSink::create(&root).unwrap();
        let path = backup_path("db/t.frm").unwrap();
        write_file(&sink, &path, Mode::Create, b"one, and longer").unwrap();
        assert!(
            write_file(&sink, &path, Mode::Create, b"two").is_err(),
            "files are never overwritten"
        );
        write_file(&sink, &path, Mode::Rewrite, b"two").unwrap();
        assert_eq!(fs::read(root.join("db/t.frm")).unwrap(), b"two");
        sink.remove(&path).unwrap();
        sink.remove(&path).unwrap();
        assert!(!root.join("db").exists(), "a dropped database");
        write_file(&sink, &path, Mode::Create, b"again").unwrap();
        let other = backup_path("db/u.frm").unwrap();
        write_file(&sink, &other, Mode::Create, b"stays").unwrap();
        sink.remove(&path).unwrap();
        assert!(root.join("db/u.frm").exists());
        let top = backup_path("top").unwrap();
        write_file(&sink, &top, Mode::Create, b"").unwrap();
        sink.remove(&other).unwrap();
        sink.remove(&top).unwrap();
        assert!(root.exists() && fs::read_dir(&root).unwrap().next().is_none());
    }

    #[test]
    fn a_sparse_file_has_its_whole_length() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("backup");
        let sink = FolderSink::create(&root).unwrap();
        let file = sink.begin(&backup_path("t.ibd").unwrap(), Mode::Create).unwrap();
        let (mut first, second) = (vec![0; 16384], vec![0; 8192]);
        first[4096] = 1;
        file.write_sparse(16384, &second).unwrap();
        file.write_sparse(0, &first).unwrap();
        file.finish().unwrap();
        let found = fs::read(root.join("t.ibd")).unwrap();
        assert!(found == [first, second].concat());
        let blocks = fs::metadata(root.join("t.ibd")).unwrap().blocks();
        assert!(blocks <= 8, "{blocks} blocks");
    }

    #[test]
    fn a_directory_that_holds_something_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        let error = FolderSink::create(dir.path()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn an_aborted_sink_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let sink = FolderSink::create(dir.path()).unwrap();
        sink.abort();
        assert!(sink.begin(&backup_path("x").unwrap(), Mode::Create).is_err());
    }
}
