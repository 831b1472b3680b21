//! Placing one file: copied with its holes, or moved.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;

use super::Mode;
use super::guard::{self, FILE_MODE};
use super::plan::Item;
use crate::io::Buffer;
use crate::{Cancel, Error, Result};

/// Bytes copied between two looks at the cancel flag.
const STEP: u64 = 32 << 20;
/// Buffer where the kernel cannot copy.
const BUFFER: usize = 1 << 20;

/// Places files.
pub struct Placer<'a> {
    /// Copy or move.
    pub mode: Mode,
    /// Owner of what is placed.
    pub owner: Option<(u32, u32)>,
    /// Looked at between steps.
    pub cancel: &'a Cancel,
}

impl Placer<'_> {
    /// Places `item` at `target`, which must not exist, and makes it durable. `progress` is told
    /// the bytes of each step.
    pub fn place(&self, item: &Item, target: &Path, progress: &dyn Fn(u64)) -> Result<()> {
        if self.mode == Mode::Move && self.rename(&item.source, target)? {
            progress(item.bytes);
            return Ok(());
        }
        let file = create(target)?;
        if let Err(error) = self.copy(item, &file, target, progress) {
            // What is not whole must not stay; the cause of the failure is worth more than
            // that of a failing removal.
            let _ = fs::remove_file(target);
            return Err(error);
        }
        if self.mode == Mode::Move {
            fs::remove_file(&item.source).map_err(|e| Error::io("remove", &item.source, e))?;
        }
        Ok(())
    }

    /// Renames without overwriting; false when the target is on another file system.
    fn rename(&self, source: &Path, target: &Path) -> Result<bool> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, source, CWD, target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Err(guard::exists(target)),
            // Some file systems do not know the flag; copying works everywhere.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS) => return Ok(false),
            renamed => renamed.map_err(|e| Error::io("move", source, e.into()))?,
        }
        let file = File::open(target).map_err(|e| Error::io("open", target, e))?;
        self.own(&file, target)?;
        file.sync_all().map_err(|e| Error::io("make durable", target, e))?;
        Ok(true)
    }

    fn copy(&self, item: &Item, file: &File, target: &Path, progress: &dyn Fn(u64)) -> Result<()> {
        let source = File::open(&item.source).map_err(|e| Error::io("open", &item.source, e))?;
        let failed = |e: io::Error| Error::io("copy to", target, e);
        let size = source.metadata().map_err(|e| Error::io("inspect", &item.source, e))?.len();
        file.set_len(size).map_err(failed)?;
        let mut at = 0;
        while let Some((from, to)) = next_data(&source, at, size).map_err(failed)? {
            progress(from - at);
            at = from;
            while at < to {
                self.cancel.check()?;
                let step = (to - at).min(STEP);
                copy_range(&source, file, at, step).map_err(failed)?;
                progress(step);
                at += step;
            }
        }
        progress(size - at);
        self.own(file, target)?;
        file.sync_all().map_err(|e| Error::io("make durable", target, e))
    }

    /// Gives the file its owner.
    pub fn own(&self, file: &File, path: &Path) -> Result<()> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        std::os::unix::fs::fchown(file, Some(user), Some(group))
            .map_err(|e| Error::io("change the owner of", path, e))
    }
}

fn create(target: &Path) -> Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(target);
    created.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => guard::exists(target),
        _ => Error::io("create", target, e),
    })
}

/// The next range at or behind `at` that is not a hole.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    if at >= size {
        return Ok(None);
    }
    let from = match seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        // Not every file system knows about holes.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        from => from?,
    };
    Ok((from < size).then_some((from, seek(file, SeekFrom::Hole(from))?.min(size))))
}

/// Copies `size` bytes at `at`, in the kernel if it can.
fn copy_range(source: &File, target: &File, at: u64, size: u64) -> io::Result<()> {
    let (mut from, mut to) = (at, at);
    let end = at + size;
    while from < end {
        let left = usize::try_from(end - from).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(source, target, from, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(mut source: &File, mut target: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = Buffer::new(BUFFER);
    source.seek(SeekFrom::Start(at))?;
    target.seek(SeekFrom::Start(at))?;
    while at < end {
        let size = usize::try_from(end - at).unwrap_or(usize::MAX).min(BUFFER);
        let step = buffer.get_mut(..size).unwrap_or_default();
        source.read_exact(step)?;
        target.write_all(step)?;
        at += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn item(source: &Path) -> Item {
        let bytes = fs::metadata(source).unwrap().len();
        Item { source: source.to_owned(), name: "f".into(), target: "unused".into(), bytes }
    }

    #[test]
    fn holes_stay_holes_and_bytes_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        let file = File::create(&source).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[7; 5000], 3 << 20).unwrap();
        file.write_all_at(&[8; 100], (64 << 20) - 100).unwrap();
        for mode in [Mode::Copy, Mode::Move] {
            let before = fs::read(&source).unwrap();
            let told = std::sync::atomic::AtomicU64::new(0);
            let progress = |bytes| {
                told.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            };
            let cancel = Cancel::new();
            let placer = Placer { mode, owner: None, cancel: &cancel };
            placer.place(&item(&source), &target, &progress).unwrap();
            assert_eq!(fs::read(&target).unwrap(), before);
            assert_eq!(told.into_inner(), 64 << 20);
            assert!(fs::metadata(&target).unwrap().blocks() * 512 < 1 << 20);
            assert_eq!(source.exists(), mode == Mode::Copy);
            fs::remove_file(&target).unwrap();
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        fs::write(&source, "new").unwrap();
        fs::write(&target, "old").unwrap();
        for mode in [Mode::Copy, Mode::Move] {
            let cancel = Cancel::new();
            let placer = Placer { mode, owner: None, cancel: &cancel };
            assert!(placer.place(&item(&source), &target, &|_| {}).is_err());
            assert_eq!(fs::read_to_string(&target).unwrap(), "old");
            assert_eq!(fs::read_to_string(&source).unwrap(), "new");
        }
    }

    #[test]
    fn the_copy_without_the_kernel_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        fs::write(dir.path().join("a"), &bytes).unwrap();
        let source = File::open(dir.path().join("a")).unwrap();
        let target = File::create(dir.path().join("b")).unwrap();
        copy_by_hand(&source, &target, 0, bytes.len() as u64).unwrap();
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), bytes);
    }
}
