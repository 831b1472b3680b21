//! The folder that is unpacked into, and the promise that nothing outside of it is touched.
//!
//! Every path is walked from the folder's descriptor, one component at a time, and no component
//! is followed when it is a symbolic link, whether the stream's author or somebody on this
//! machine has put it there. Files are created exclusively: what exists is never overwritten,
//! except for files that the stream itself has made.

use std::collections::{BTreeSet, HashMap};
use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use xbstream::{RemoveTarget, StreamPath};

use super::{Existing, lock};
use crate::io::direct::DirectWrites;
use crate::{Error, ErrorKind, Result};

/// Files at the root that are put in place only when all others are.
pub const HELD_BACK: [&[u8]; 2] = [b"mariadb_backup_checkpoints", b"xtrabackup_checkpoints"];

/// Appended to the name of a file that is held back.
const HELD_BACK_SUFFIX: &[u8] = b".partial";

/// Open folders that are kept for the next file in them. A bound, because every table's folder
/// costs a descriptor.
const FOLDERS_MAX: usize = 64;

/// Less what the process's mask takes away, as the stock tool does it.
const FILE_MODE: u32 = 0o660;
const FOLDER_MODE: u32 = 0o700;

/// The folder that is unpacked into.
pub struct Target {
    dir: PathBuf,
    root: Arc<OwnedFd>,
    /// By path relative to the root.
    folders: Mutex<HashMap<Box<[u8]>, Arc<OwnedFd>>>,
    disk: Arc<DirectWrites>,
    existing: Existing,
    written: AtomicU64,
}

impl Target {
    /// Opens the folder, creating it (and the folders above) if missing. This path comes from
    /// the user and may contain symbolic links.
    pub fn open(dir: &Path, existing: Existing, disk: DirectWrites) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(dir)
            .map_err(|cause| Error::io("create the folder", dir, cause))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, dir, flags, Mode::empty())
            .map_err(|cause| Error::io("open the folder", dir, cause.into()))?;
        Ok(Self {
            dir: dir.into(),
            root: Arc::new(root),
            folders: Mutex::default(),
            disk: Arc::new(disk),
            existing,
            written: AtomicU64::new(0),
        })
    }

    /// Whether files that exist get other content.
    pub fn updates(&self) -> bool {
        self.existing == Existing::Update
    }

    /// Takes note of bytes that were written, or not, into files that may have existed.
    pub fn note_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were written into files that may have existed.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// What was learned about writing here.
    pub fn disk(&self) -> &Arc<DirectWrites> {
        &self.disk
    }

    /// Where `path` ends up, for messages.
    pub fn display(&self, path: &StreamPath) -> PathBuf {
        self.dir.join(path.to_string())
    }

    /// Creates a file, and the folders above it where they are missing.
    pub fn create(&self, path: &StreamPath) -> Result<File> {
        let folder = self.folder(path)?;
        if is_held_back(path) && exists(&folder, path.file_name()) {
            return Err(self.cannot("create", path, Errno::EXIST));
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = name_now(path);
        rustix::fs::openat(&*folder, name.as_slice(), flags, Mode::from_raw_mode(FILE_MODE))
            .map(File::from)
            .map_err(|cause| self.cannot("create", path, cause))
    }

    /// Opens a file that may exist, to be read and written. A link or a folder is an error.
    pub fn open_or_create(&self, path: &StreamPath) -> Result<File> {
        let folder = self.folder(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = name_now(path);
        rustix::fs::openat(&*folder, name.as_slice(), flags, Mode::from_raw_mode(FILE_MODE))
            .map(File::from)
            .map_err(|cause| self.cannot("open", path, cause))
    }

    /// Removes a file, if it is there.
    pub fn clear(&self, path: &StreamPath) -> Result<()> {
        let folder = self.folder(path)?;
        match rustix::fs::unlinkat(&*folder, name_now(path).as_slice(), AtFlags::empty()) {
            Err(Errno::NOENT) | Ok(()) => Ok(()),
            Err(cause) => Err(self.cannot("remove", path, cause)),
        }
    }

    /// Moves a file that the stream has made. Without `replace` the new name must be free.
    pub fn rename(&self, from: &StreamPath, to: &StreamPath, replace: bool) -> Result<()> {
        let (old, new) = (self.folder(from)?, self.folder(to)?);
        let (from_name, to_name) = (name_now(from), name_now(to));
        move_file((&old, &from_name), (&new, &to_name), replace)
            .map_err(|cause| self.cannot("rename a file to", to, cause))
    }

    /// Deletes a file that the stream has made.
    pub fn remove_file(&self, path: &StreamPath) -> Result<()> {
        let folder = self.folder(path)?;
        rustix::fs::unlinkat(&*folder, name_now(path).as_slice(), AtFlags::empty())
            .map_err(|cause| self.cannot("remove", path, cause))
    }

    /// Deletes the folder that `named` names and those below it, as far as the removal of
    /// `files` has left them empty. Others stay: somebody else uses them.
    pub fn remove_folders(&self, named: &RemoveTarget, files: &[StreamPath]) -> Result<()> {
        let folders: BTreeSet<StreamPath> = files
            .iter()
            .flat_map(StreamPath::ancestors)
            .filter(|folder| named.covers(folder))
            .collect();
        lock(&self.folders).clear();
        // A folder sorts before what is in it, so the deepest come first this way round.
        for folder in folders.iter().rev() {
            let parent = self.folder(folder)?;
            match rustix::fs::unlinkat(&*parent, folder.file_name(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(cause) => return Err(self.cannot("remove", folder, cause)),
            }
        }
        Ok(())
    }

    /// Gives a file that was held back its name.
    pub fn show(&self, name: &[u8]) -> Result<()> {
        let path = StreamPath::new(name).map_err(|cause| {
            Error::new(ErrorKind::Failed, "cannot name a file").caused_by(cause)
        })?;
        move_file((&self.root, &name_now(&path)), (&self.root, name), false)
            .map_err(|cause| self.cannot("put in place", &path, cause))
    }

    /// The folder that `path` is in, created where missing.
    fn folder(&self, path: &StreamPath) -> Result<Arc<OwnedFd>> {
        let Some(parent) = path.parent() else { return Ok(Arc::clone(&self.root)) };
        if let Some(folder) = lock(&self.folders).get(parent) {
            return Ok(Arc::clone(folder));
        }
        let mut folder = Arc::clone(&self.root);
        for component in parent.split(|&byte| byte == b'/') {
            let next = enter(&folder, component)
                .map_err(|cause| self.cannot("open the folder of", path, cause))?;
            folder = Arc::new(next);
        }
        let mut folders = lock(&self.folders);
        if folders.len() >= FOLDERS_MAX {
            folders.clear();
        }
        folders.insert(parent.into(), Arc::clone(&folder));
        Ok(folder)
    }

    fn cannot(&self, doing: &str, path: &StreamPath, cause: Errno) -> Error {
        let (kind, advice) = match cause {
            Errno::EXIST => (ErrorKind::Usage, "unpack into an empty folder"),
            // No file of a backup lies below a file or a link.
            Errno::NOTDIR | Errno::LOOP => (
                ErrorKind::Damage,
                "a part of the path is a file or a symbolic link: unpack into an empty folder, \
                 and distrust the stream if that fails too",
            ),
            Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ => {
                (ErrorKind::Damage, "the file system refuses the name: distrust the stream")
            }
            Errno::MFILE | Errno::NFILE => (
                ErrorKind::Failed,
                "the stream has more files open at a time than this process may: raise the limit \
                 (ulimit -n)",
            ),
            Errno::NOSPC | Errno::DQUOT => (ErrorKind::Failed, NO_SPACE_ADVICE),
            _ => return Error::io(doing, self.display(path), cause.into()),
        };
        let what = format!("cannot {doing} {}", self.display(path).display());
        Error::new(kind, what).caused_by(std::io::Error::from(cause)).advise(advice)
    }
}

/// What to do when the disk is full.
pub const NO_SPACE_ADVICE: &str = "free some space, or unpack to a larger file system";

/// Renames a file; without `replace` the new name must be free.
fn move_file(
    (old, from): (&OwnedFd, &[u8]),
    (new, to): (&OwnedFd, &[u8]),
    replace: bool,
) -> rustix::io::Result<()> {
    if replace {
        return rustix::fs::renameat(old, from, new, to);
    }
    match rustix::fs::renameat_with(old, from, new, to, RenameFlags::NOREPLACE) {
        // Some file systems do not know the flag.
        Err(Errno::INVAL | Errno::NOSYS) if !exists(new, to) => {
            rustix::fs::renameat(old, from, new, to)
        }
        moved => moved,
    }
}

/// Opens a folder inside a folder, after creating it if it is missing.
fn enter(folder: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(FOLDER_MODE)) {
        // Another thread may have been faster.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(cause) => return Err(cause),
    }
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

fn exists(folder: &OwnedFd, name: &[u8]) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn is_held_back(path: &StreamPath) -> bool {
    HELD_BACK.contains(&path.as_bytes())
}

/// The name that a file has in its folder while the extraction runs.
fn name_now(path: &StreamPath) -> Vec<u8> {
    let suffix = if is_held_back(path) { HELD_BACK_SUFFIX } else { b"" };
    [path.file_name(), suffix].concat()
}
