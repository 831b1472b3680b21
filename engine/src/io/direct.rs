//! Writing past the page cache, where the disk keeps up.
//!
//! A copy that goes through the page cache costs the processor a second copy of every byte, into
//! memory that a guest system has to be given first, and pushes out what other programs keep there.
//! A fast disk takes the bytes from our memory directly, for a quarter of the work, and has them
//! when the write returns. A slow one does not, and there the cache is the better place: it lets the
//! copy go on, and orders the writes. So direct writes are timed, and when they turn out slow, or
//! the file system does not know them, all later ones go through the cache.
//!
//! Promise: which way a write goes changes nothing in the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::buffer::ALIGNMENT;

/// Direct writes are judged by this many bytes at a time.
const WINDOW: u64 = 64 << 20;
/// Less than this at once is not worth waiting for the disk: small files are for the cache.
const WORTH: usize = 512 << 10;
/// Bytes a second, of all writers together, below which the page cache is preferred.
const SLOW: u64 = 250 << 20;
/// The same where bytes are fetched and unpacked before they are written: they do not come faster,
/// and the processors have better to do than to copy them into the cache.
const SLOW_FROM_AFAR: u64 = 80 << 20;

/// What was learned about the disk; one for all files of a target.
#[derive(Debug)]
pub struct DirectWrites {
    /// Bytes a second that are too few.
    slow: u64,
    off: AtomicBool,
    /// Writers that are at it.
    writers: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Default for DirectWrites {
    /// For bytes that are at hand.
    fn default() -> Self {
        Self::new(SLOW)
    }
}

impl DirectWrites {
    fn new(slow: u64) -> Self {
        let [writers, bytes, nanoseconds] = [0; 3].map(AtomicU64::new);
        Self { slow, off: AtomicBool::new(false), writers, bytes, nanoseconds }
    }

    /// For bytes that take their time to come.
    pub fn from_afar() -> Self {
        Self::new(SLOW_FROM_AFAR)
    }

    fn worth_trying(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    fn give_up(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    /// Writes by `write`, and notes how long the disk needed for it: what several writers wait for at
    /// the same time is the disk's share for each of them.
    fn timed(&self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        let writers = self.writers.fetch_add(1, Ordering::Relaxed) + 1;
        let begun = Instant::now();
        let written = write();
        let nanoseconds = begun.elapsed().as_nanos() as u64;
        let left = self.writers.fetch_sub(1, Ordering::Relaxed);
        if let Ok(written) = written {
            // Between those that were there at the beginning and at the end.
            self.note(written as u64, 2 * nanoseconds / (writers + left));
        }
        written
    }

    /// Notes that the disk needed that long, and judges when a window is full.
    fn note(&self, bytes: u64, nanoseconds: u64) {
        let time = self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed) + nanoseconds;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if bytes < WINDOW {
            return;
        }
        let speed = u128::from(bytes) * 1_000_000_000 / u128::from(time.max(1));
        if speed < u128::from(self.slow) {
            self.give_up();
        }
        self.bytes.store(0, Ordering::Relaxed);
        self.nanoseconds.store(0, Ordering::Relaxed);
    }
}

/// A new file that is written either way.
#[derive(Debug)]
pub struct NewFile {
    cached: File,
    /// The same file for direct writes, opened when the first one comes; `None` inside where the
    /// file system has none.
    direct: OnceLock<Option<File>>,
    /// Held while something is written. The kernel lets only one writer at a time make a file longer;
    /// others would spin, and their waiting would be taken for slowness of the disk.
    writing: Mutex<()>,
    disk: Arc<DirectWrites>,
}

impl NewFile {
    /// Creates the file, which must not exist, with this mode less the umask.
    pub fn create(path: &Path, mode: u32, disk: &Arc<DirectWrites>) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        Ok(Self::new(file, disk))
    }

    /// Uses a file that is open for writing and that nobody else has.
    pub fn new(file: File, disk: &Arc<DirectWrites>) -> Self {
        let disk = Arc::clone(disk);
        Self { cached: file, direct: OnceLock::new(), writing: Mutex::new(()), disk }
    }

    /// Sets the length.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.cached.set_len(len)
    }

    /// Makes the file at least this long.
    pub fn extend(&self, length: u64) -> io::Result<()> {
        if length > 0 && self.cached.metadata()?.len() < length {
            self.cached.set_len(length)?;
        }
        Ok(())
    }

    /// Writes all of `bytes`: directly if they, their place and the disk allow it.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let disk = &*self.disk;
        let aligned = [bytes.as_ptr() as usize, bytes.len(), offset as usize]
            .iter()
            .all(|number| number % ALIGNMENT == 0);
        let eligible = aligned && bytes.len() >= WORTH && disk.worth_trying();
        let direct = || self.direct.get_or_init(|| again(&self.cached)).as_ref();
        let direct = eligible.then(direct).flatten();
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(direct) = direct else { return self.cached.write_all_at(bytes, offset) };
        match disk.timed(|| direct.write_at(bytes, offset)) {
            Ok(written) => {
                // Cut short, by a full disk for example: the other way tells.
                let rest = bytes.get(written..).unwrap_or_default();
                self.cached.write_all_at(rest, offset + written as u64)
            }
            // Some file systems take the flag and refuse the writes.
            Err(error) if is_about_the_way(&error) => {
                disk.give_up();
                self.cached.write_all_at(bytes, offset)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.cached.write_all_at(bytes, offset)
            }
            // The disk's own errors: the cache would take the bytes and hide them.
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says that the file system has no direct writes, or not such ones.
fn is_about_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// The same file, opened for direct writes.
fn again(file: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::Buffer;

    #[test]
    fn the_file_is_the_same_whichever_way_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = Buffer::new(3 * WORTH);
        content.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 7) as u8);
        let refused = DirectWrites::default();
        refused.give_up();
        for (name, disk) in [("any", DirectWrites::default()), ("cached", refused)] {
            let (path, disk) = (dir.path().join(name), Arc::new(disk));
            let file = NewFile::create(&path, 0o600, &disk).unwrap();
            // In pieces of which some are aligned and some are not.
            let mut at = 0;
            for piece in [WORTH, 100, WORTH - 100, WORTH] {
                file.write_all_at(&content[at..at + piece], at as u64).unwrap();
                at += piece;
            }
            assert_eq!(std::fs::read(&path).unwrap(), *content);
            assert!(NewFile::create(&path, 0o600, &disk).is_err(), "it exists");
        }
    }

    #[test]
    fn only_refusals_of_the_way_are_answered_by_the_cache() {
        use rustix::io::Errno;
        let cause = |errno: Errno| is_about_the_way(&errno.into());
        assert!(cause(Errno::INVAL) && cause(Errno::OPNOTSUPP));
        assert!(!cause(Errno::IO) && !cause(Errno::NOSPC) && !cause(Errno::DQUOT));
    }

    #[test]
    fn a_slow_disk_is_left_to_the_cache() {
        let disk = DirectWrites::default();
        disk.note(WINDOW, 1_000_000_000 * WINDOW / SLOW / 2);
        assert!(disk.worth_trying(), "twice as fast as it must be");
        disk.note(WINDOW - 1, 60_000_000_000);
        assert!(disk.worth_trying(), "not enough seen");
        disk.note(1, 1);
        assert!(!disk.worth_trying());
    }
}
