//! Objects as files below a directory, local or of a mounted file system.
//!
//! The key is the path. An object is written to a temporary file beside its place, made durable,
//! and only then gets its name; the directory is made durable last. A put that is killed leaves
//! nothing but the temporary file, whose name is no key: it is never listed, and
//! [`Store::leftovers`] finds it.
//!
//! What is not a plain file of a valid name is somebody else's: not listed, not read, not removed.
//!
//! A network file system may do what it was asked and lose the answer, so that the repeated
//! question gets "exists" or "not found" for an answer. Who has which name is therefore decided by
//! the inode.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{Advice, CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::key::{RESERVED, check_prefix};
use super::limits::{Gate, Pace};
use super::retry::{Outlook, Refusal, retry, sleep};
use super::{
    Body, Key, LIST_MAX, Leftover, Object, Put, PutOptions, Store, StoreOptions, absent,
    check_range, out_of_bounds, too_many,
};
use crate::io::durable::sync_dir;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

const FILE_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o700;
/// Between two looks at the cancel flag.
const PIECE: usize = 1 << 20;
/// What a kernel reads ahead for one piece of advice, at least, unless it was told otherwise.
const ADVISED: u64 = 128 << 10;
/// Objects from this size on are not left in the page cache, where they would push out what other
/// programs keep there.
const LARGE: u64 = 1 << 20;
/// Directories may vanish while a file is made in them, as often as somebody empties them.
const RACES: u32 = 16;

/// How a name is given to a file only if nobody has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// `RENAME_NOREPLACE`.
    Rename,
    /// A hard link, then removing the old name: what NFS can do.
    Link,
    /// Looking first: another writer can come in between.
    Look,
}

/// Objects as files below a directory.
pub struct FolderStore {
    root: PathBuf,
    options: StoreOptions,
    reporter: Arc<dyn Reporter>,
    gate: Gate,
    writes: Pace,
    reads: Pace,
    naming: OnceLock<Naming>,
}

impl FolderStore {
    /// Uses the directory `root`.
    ///
    /// # Errors
    /// When it does not exist, unless the options say that it may be created.
    pub fn open(root: &Path, options: &StoreOptions, reporter: Arc<dyn Reporter>) -> Result<Self> {
        if options.create_folder {
            match DirBuilder::new().mode(DIRECTORY_MODE).create(root) {
                Ok(()) => sync_dir(parent(root))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let error = failed("create the folder", root, error).error;
                    return Err(error.advise("only the last directory of the path is created"));
                }
            }
        }
        let store = Self {
            root: root.to_owned(),
            options: options.clone(),
            reporter,
            gate: Gate::new(options.concurrency),
            writes: Pace::new(options.bandwidth),
            reads: Pace::new(options.bandwidth),
            naming: OnceLock::new(),
        };
        store.check_root().map_err(|refusal| refusal.error)?;
        Ok(store)
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// A folder that is gone is not an empty store: a file system was unmounted.
    fn check_root(&self) -> Result<(), Refusal> {
        let refuse = |error| {
            let refusal = failed("use the folder", &self.root, error);
            let advice =
                "name a folder that exists; if it is that of a mounted file system, mount it";
            Refusal { error: refusal.error.advise(advice), ..refusal }
        };
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(refuse(Errno::NOTDIR.into())),
            Err(error) => Err(refuse(error)),
        }
    }

    fn retry<T>(
        &self,
        doing: &dyn Fn() -> String,
        cancel: &Cancel,
        mut attempt: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T> {
        retry(&self.options.retry, cancel, &*self.reporter, doing, |_| attempt())
    }

    /// How this file system gives names; tried once, with files of our own.
    fn naming(&self) -> Result<Naming, Refusal> {
        if let Some(naming) = self.naming.get() {
            return Ok(*naming);
        }
        let probe = |name: &str| {
            let file = tempfile::Builder::new()
                .prefix(&format!("{RESERVED}{name}-"))
                .tempfile_in(&self.root);
            file.map_err(|error| failed("create a file in", &self.root, error))
        };
        let (one, other) = (probe("probe")?, probe("probe")?);
        let naming = if rename_new(one.path(), other.path()) == Err(Errno::EXIST) {
            Naming::Rename
        } else if rustix::fs::link(one.path(), other.path()) == Err(Errno::EXIST) {
            // Where links are not known, that is said before looking at names.
            Naming::Link
        } else {
            self.reporter.warn(format!(
                "{} can neither rename nor link without replacing: writers at the same time are \
                 told apart by looking first only",
                self.describe()
            ));
            Naming::Look
        };
        Ok(*self.naming.get_or_init(|| naming))
    }

    /// A temporary file in the directory of `path`, which is made if it does not exist.
    fn temporary(&self, path: &Path) -> Result<NamedTempFile, Refusal> {
        let dir = parent(path);
        let mut builder = tempfile::Builder::new();
        let prefix = format!("{RESERVED}put-");
        builder.prefix(&prefix).rand_bytes(12);
        builder.permissions(fs::Permissions::from_mode(FILE_MODE));
        for _ in 0..RACES {
            match builder.tempfile_in(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.check_root()?;
                    self.create_folders(dir)?;
                }
                made => return made.map_err(|error| failed("create a file in", dir, error)),
            }
        }
        let error =
            Error::new(ErrorKind::Store, format!("{} is removed again and again", dir.display()));
        Err(Refusal::new(Outlook::Doubtful, error))
    }

    /// Makes the directories below the root durably.
    fn create_folders(&self, dir: &Path) -> Result<(), Refusal> {
        let Ok(below) = dir.strip_prefix(&self.root) else { return Ok(()) };
        let mut path = self.root.clone();
        for name in below.components() {
            path.push(name);
            match DirBuilder::new().mode(DIRECTORY_MODE).create(&path) {
                Ok(()) => sync(parent(&path))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // Removed by another one in between: the caller begins again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(failed("create directory", &path, error)),
            }
        }
        Ok(())
    }

    fn try_put(
        &self,
        path: &Path,
        body: &Body,
        new: bool,
        cancel: &Cancel,
    ) -> Result<Put, Refusal> {
        let naming = if new { Some(self.naming()?) } else { None };
        if naming.is_some() && fs::symlink_metadata(path).is_ok() {
            return Ok(Put::AlreadyThere);
        }
        let mut temporary = self.temporary(path)?;
        let writing = |error| failed("write", path, error);
        for piece in body.parts().iter().flat_map(|part| part.chunks(PIECE)) {
            cancel.check()?;
            temporary.write_all(piece).map_err(writing)?;
            sleep(self.writes.charge(piece.len() as u64), cancel)?;
        }
        temporary.as_file().sync_all().map_err(|error| failed("make durable", path, error))?;
        if body.len() >= LARGE {
            // Advice; a file system that does not know it keeps the pages.
            let _ = rustix::fs::fadvise(temporary.as_file(), 0, None, Advice::DontNeed);
        }

        let (file, name) = temporary.into_parts();
        let named = match naming {
            None => rustix::fs::rename(&*name, path),
            Some(Naming::Rename) => rename_new(&name, path),
            Some(Naming::Link) => rustix::fs::link(&*name, path),
            Some(Naming::Look) => rustix::fs::rename(&*name, path),
        };
        match named {
            Ok(()) => {}
            Err(_) if is_named(&file, path) => {}
            Err(Errno::EXIST) if naming.is_some() => return Ok(Put::AlreadyThere),
            Err(error) => return Err(failed("give its name to", path, error.into())),
        }
        if naming != Some(Naming::Link) {
            // There is nothing to remove any more. A link's first name goes away with `name`.
            let _ = name.keep();
        }
        sync(parent(path))?;
        // Somebody else looked at the same time, and came later.
        let is_lost = naming == Some(Naming::Look) && !is_named(&file, path);
        Ok(if is_lost { Put::AlreadyThere } else { Put::Stored })
    }

    fn try_get(
        &self,
        key: &Key,
        range: Option<&Range<u64>>,
        limit: u64,
        cancel: &Cancel,
    ) -> Result<Bytes, Refusal> {
        let path = self.path(key);
        let reading = |error| failed("read", &path, error);
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
        let file = match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&path)
        {
            Err(error) if is_absent(&error) => {
                self.check_root()?;
                return Err(Refusal::permanent(absent(key, &self.describe())));
            }
            file => file.map_err(reading)?,
        };
        let found = file.metadata().map_err(reading)?;
        if !found.is_file() {
            let why = format!("{} is not a plain file", path.display());
            return Err(Refusal::permanent(Error::new(ErrorKind::Store, why)));
        }
        let wanted = range.cloned().unwrap_or(0..found.len());
        let len = wanted.end.saturating_sub(wanted.start);
        if wanted.end > found.len() || len > limit {
            return Err(Refusal::permanent(out_of_bounds(key, found.len(), range, limit)));
        }
        let len = usize::try_from(len).map_err(|error| reading(io::Error::other(error)))?;
        let advise = |from: u64, len: u64, advice: Advice| {
            // It is only advice.
            let _ = rustix::fs::fadvise(&file, from, NonZero::new(len), advice);
        };
        // The kernel is not to read on behind the range: another reader may have been there and dropped
        // it from the cache already. What it is asked for it begins to read at once.
        advise(0, 0, Advice::Random);
        for at in wanted.clone().step_by(ADVISED as usize) {
            advise(at, ADVISED.min(wanted.end - at), Advice::WillNeed);
        }
        let mut bytes = vec![0; len];
        let mut at = wanted.start;
        for piece in bytes.chunks_mut(PIECE) {
            cancel.check()?;
            file.read_exact_at(piece, at).map_err(reading)?;
            at += piece.len() as u64;
            sleep(self.reads.charge(piece.len() as u64), cancel)?;
        }
        if len as u64 >= LARGE {
            advise(wanted.start, len as u64, Advice::DontNeed);
        }
        Ok(bytes.into())
    }

    /// Calls `visit` with each plain file below `start`, and `false` for names that are no keys.
    /// Directories that vanish meanwhile are as good as empty.
    fn walk(
        &self,
        start: &Path,
        cancel: &Cancel,
        visit: &mut dyn FnMut(&Path, bool) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.check_root()?;
        let mut dirs = vec![start.to_owned()];
        while let Some(dir) = dirs.pop() {
            cancel.check()?;
            let reading = |error| failed("list", &dir, error);
            let entries = match fs::read_dir(&dir) {
                Err(error) if is_absent(&error) => continue,
                entries => entries.map_err(reading)?,
            };
            for entry in entries {
                let entry = entry.map_err(reading)?;
                let path = entry.path();
                let kind = match entry.file_type() {
                    Err(error) if is_absent(&error) => continue,
                    kind => kind.map_err(reading)?,
                };
                let known = self.key_of(&path).is_some();
                if kind.is_file() {
                    visit(&path, known)?;
                } else if kind.is_dir() && known {
                    dirs.push(path);
                }
            }
        }
        Ok(())
    }

    /// The key that a path below the root has, if it is that of an object.
    fn key_of(&self, path: &Path) -> Option<Key> {
        Key::new(path.strip_prefix(&self.root).ok()?.to_str()?).ok()
    }

    /// The object in a file, if it is still there.
    fn object(&self, path: &Path) -> Result<Option<Object>, Refusal> {
        let Some(key) = self.key_of(path) else { return Ok(None) };
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {
                let modified = found.modified().map_err(|error| failed("read", path, error))?;
                Ok(Some(Object { key, len: found.len(), modified }))
            }
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed("look at", path, error)),
        }
    }

    fn try_list(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<Object>, Refusal> {
        let (dir, _) = prefix.rsplit_once('/').unwrap_or_default();
        let mut objects = Vec::new();
        self.walk(&self.root.join(dir), cancel, &mut |path, known| {
            let wanted =
                known && self.key_of(path).is_some_and(|key| key.as_str().starts_with(prefix));
            if wanted && let Some(object) = self.object(path)? {
                if objects.len() >= LIST_MAX {
                    return Err(Refusal::permanent(too_many(prefix, &self.describe())));
                }
                objects.push(object);
            }
            Ok(())
        })?;
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    /// Removes a file; whether it was there.
    fn try_remove(path: &Path) -> Result<bool, Refusal> {
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(failed("remove", path, error)),
        }
    }

    /// Makes removals in a directory durable, and removes it and those above when they are empty.
    fn tidy(&self, dir: &Path) -> Result<(), Refusal> {
        let mut dir = dir;
        while dir != self.root && dir.starts_with(&self.root) {
            match fs::remove_dir(dir) {
                Ok(()) => dir = parent(dir),
                Err(error) if is_absent(&error) => dir = parent(dir),
                // Not empty, or not ours to remove.
                Err(_) => break,
            }
        }
        match sync(dir) {
            Err(_) if fs::symlink_metadata(dir).is_err_and(|error| is_absent(&error)) => Ok(()),
            done => done,
        }
    }
}

impl Store for FolderStore {
    fn put(&self, key: &Key, body: Body, options: &PutOptions, cancel: &Cancel) -> Result<Put> {
        let _pass = self.gate.enter(cancel)?;
        let path = self.path(key);
        let doing = || format!("put {key} into {}", self.describe());
        self.retry(&doing, cancel, || {
            match self.try_put(&path, &body, options.only_if_absent, cancel)? {
                Put::AlreadyThere => match self.try_get(key, None, body.len(), cancel) {
                    Ok(there) if body.equals(&there) => Ok(Put::Stored),
                    _ => Ok(Put::AlreadyThere),
                },
                stored => Ok(stored),
            }
        })
    }

    fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        limit: u64,
        cancel: &Cancel,
    ) -> Result<Bytes> {
        let range = range.as_ref();
        if check_range(range, limit)? == Some(0) {
            return Ok(Bytes::new());
        }
        let _pass = self.gate.enter(cancel)?;
        let doing = || format!("get {key} from {}", self.describe());
        self.retry(&doing, cancel, || self.try_get(key, range, limit, cancel))
    }

    fn head(&self, key: &Key, cancel: &Cancel) -> Result<Option<Object>> {
        let doing = || format!("look at {key} in {}", self.describe());
        self.retry(&doing, cancel, || {
            let object = self.object(&self.path(key))?;
            if object.is_none() {
                self.check_root()?;
            }
            Ok(object)
        })
    }

    fn list(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<Object>> {
        check_prefix(prefix)?;
        let doing = || format!("list {prefix:?} in {}", self.describe());
        self.retry(&doing, cancel, || self.try_list(prefix, cancel))
    }

    fn list_folders(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<String>> {
        super::check_folder(prefix)?;
        let dir = self.root.join(prefix);
        let doing = || format!("list {prefix:?} in {}", self.describe());
        self.retry(&doing, cancel, || {
            self.check_root()?;
            let reading = |error| failed("list", &dir, error);
            let entries = match fs::read_dir(&dir) {
                Err(error) if is_absent(&error) => return Ok(Vec::new()),
                entries => entries.map_err(reading)?,
            };
            let mut names = Vec::new();
            for entry in entries {
                let entry = entry.map_err(reading)?;
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_dir && let Some(key) = self.key_of(&entry.path()) {
                    names.push(key.name().to_owned());
                }
            }
            names.sort_unstable();
            Ok(names)
        })
    }

    fn delete(&self, keys: &[Key], cancel: &Cancel) -> Result<()> {
        let mut dirs = BTreeSet::new();
        for key in keys {
            let path = self.path(key);
            let doing = || format!("delete {key} from {}", self.describe());
            if self.retry(&doing, cancel, || Self::try_remove(&path))? {
                dirs.insert(parent(&path).to_owned());
            }
        }
        let doing = || format!("delete from {}", self.describe());
        self.retry(&doing, cancel, || self.check_root())?;
        // Inner ones first: that may empty the outer ones.
        for dir in dirs.iter().rev() {
            self.retry(&doing, cancel, || self.tidy(dir))?;
        }
        Ok(())
    }

    fn guards(&self, cancel: &Cancel) -> Result<bool> {
        let doing = || format!("try {}", self.describe());
        Ok(self.retry(&doing, cancel, || self.naming())? != Naming::Look)
    }

    fn leftovers(&self, age: Duration, remove: bool, cancel: &Cancel) -> Result<Vec<Leftover>> {
        let doing = || format!("look for leftovers in {}", self.describe());
        let newest = SystemTime::now().checked_sub(age);
        self.retry(&doing, cancel, || {
            let mut leftovers = Vec::new();
            self.walk(&self.root, cancel, &mut |path, _| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
                let modified = found.modified().map_err(|error| failed("look at", path, error))?;
                if name.starts_with(RESERVED) && newest.is_some_and(|newest| modified <= newest) {
                    let name = path.display().to_string();
                    leftovers.push(Leftover { name, len: found.len(), modified });
                }
                Ok(())
            })?;
            leftovers.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            for leftover in leftovers.iter().filter(|_| remove) {
                let path = Path::new(&leftover.name);
                if Self::try_remove(path)? {
                    self.tidy(parent(path))?;
                }
            }
            Ok(leftovers)
        })
    }

    fn describe(&self) -> String {
        format!("the folder {}", self.root.display())
    }
}

fn rename_new(from: &Path, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

/// Whether the file has that name.
fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// A part of the path that is a file is as good as no directory.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn sync(dir: &Path) -> Result<(), Refusal> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed("make durable the directory", dir, error))
}

/// What an I/O error means for the next try, and for the user.
fn failed(doing: &str, path: &Path, error: io::Error) -> Refusal {
    let (outlook, advice) = match Errno::from_io_error(&error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            (Outlook::Permanent, "run as a user who may write there, or change its permissions")
        }
        Some(Errno::ROFS) => {
            (Outlook::Permanent, "the file system is mounted read-only: mount it writable")
        }
        Some(Errno::NOSPC) => (Outlook::Permanent, "the file system is full: free some space"),
        Some(Errno::DQUOT) => (Outlook::Permanent, "the quota is used up: free some space"),
        Some(
            Errno::NOENT
            | Errno::EXIST
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::LOOP
            | Errno::FBIG
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::NOSYS
            | Errno::OPNOTSUPP,
        ) => (Outlook::Permanent, ""),
        // A broken disk, or a mount that was cut off softly.
        Some(Errno::IO) | None => (Outlook::Doubtful, ""),
        // Out of descriptors or memory, a server that is away.
        Some(_) => (Outlook::Transient, ""),
    };
    let message = format!("cannot {doing} {}", path.display());
    let error = Error::new(ErrorKind::Store, message).caused_by(error);
    let error = if advice.is_empty() { error } else { error.advise(advice) };
    Refusal::new(outlook, error)
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
