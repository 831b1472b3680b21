//! Reading a backup: its frames, in their order, as the stream that they were cut from.
//!
//! Threads fetch a few frames each, ahead of who reads, check and open and unpack them. They are
//! never further ahead than the memory allows.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::compression::decompress;
use super::layout::damaged;
use super::manifest::{Frame, Manifest, frame_hash};
use super::seal::Sealer;
use super::sink::FRAME_LEN;
use super::{Repository, panicked};
use crate::io::{Pool, Pooled};
use crate::store::Store;
use crate::{Cancel, Error, ErrorKind, Result};

/// Bytes that one request asks for, unless a single frame is longer.
const FETCH: u64 = 8 << 20;
/// Bytes that its frames unpack to, likewise: zeros take next to nothing in the store.
const UNPACKED: u64 = 32 << 20;

/// How a backup is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// Threads that fetch, check and unpack.
    pub threads: usize,
    /// Memory for what is read ahead, in bytes.
    pub memory: u64,
}

/// Frames that are neighbours in a pack: one request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fetch {
    first: u32,
    count: u32,
}

/// A backup as a stream.
pub struct BackupReader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    current: std::vec::IntoIter<Pooled>,
    frame: Pooled,
    /// Bytes of it that were read.
    at: usize,
    failed: bool,
    failure: Failure,
}

/// Why a reader failed, for who got only what [`Read`] can say.
#[derive(Clone, Default)]
pub struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// The error, once.
    pub fn take(&self) -> Option<Error> {
        lock(&self.0).take()
    }

    /// Takes note of an error; the same in what [`Read`] can say.
    pub(super) fn note(&self, error: Error) -> io::Error {
        let words = error.to_string();
        lock(&self.0).get_or_insert(error);
        io::Error::other(words)
    }
}

struct Shared {
    store: Arc<dyn Store>,
    manifest: Manifest,
    opener: Option<Sealer>,
    fetches: Vec<Fetch>,
    stop: Cancel,
    fetched: Arc<AtomicU64>,
    state: Mutex<State>,
    changed: Condvar,
    buffers: Pool,
}

#[derive(Default)]
struct State {
    /// The next fetch that nobody has begun.
    begun: usize,
    /// Fetches that were read.
    read: usize,
    /// Bytes, unpacked, that are fetched or being fetched and not read.
    bytes: u64,
    limit: u64,
    done: BTreeMap<usize, Result<Vec<Pooled>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BackupReader {
    /// Reads all frames of a backup, or those of `frames`, in their order; one can come repeatedly.
    pub fn new(
        repository: &Repository,
        manifest: Manifest,
        frames: Option<&[u32]>,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Self> {
        let opener = repository.opener(&manifest)?;
        let fetches = match frames {
            Some(frames) => fetches(&manifest, frames.iter().copied(), options.memory),
            None => fetches(&manifest, 0..manifest.frames.len() as u32, options.memory),
        };
        let threads = options.threads.clamp(1, fetches.len().max(1));
        let shared = Arc::new(Shared {
            store: Arc::clone(&repository.store),
            manifest,
            opener,
            fetches,
            stop: cancel.child(),
            fetched: Arc::default(),
            state: Mutex::new(State { limit: options.memory, ..State::default() }),
            changed: Condvar::new(),
            // About as many as there is memory for.
            buffers: Pool::new(
                (options.memory / FRAME_LEN as u64) as usize + threads,
                2 * FRAME_LEN,
            ),
        });
        let threads = (0..threads)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Ok(Self {
            shared,
            threads,
            next: 0,
            current: Vec::new().into_iter(),
            frame: Pooled::default(),
            at: 0,
            failed: false,
            failure: Failure::default(),
        })
    }

    /// Bytes that the store has given so far.
    pub fn fetched(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.fetched)
    }

    /// Where to learn why reading failed.
    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// The next frame, unpacked; `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<Pooled>> {
        loop {
            if let Some(frame) = self.current.next() {
                return Ok(Some(frame));
            }
            if self.next >= self.shared.fetches.len() {
                return Ok(None);
            }
            if self.failed {
                return Err(Error::new(ErrorKind::Failed, "reading the backup failed before"));
            }
            let mut state = lock(&self.shared.state);
            let done = loop {
                if let Some(done) = state.done.remove(&self.next) {
                    break done;
                }
                self.shared.stop.check()?;
                if self.threads.iter().all(JoinHandle::is_finished) {
                    // All of them ended without this one.
                    break state.done.remove(&self.next).unwrap_or_else(|| Err(panicked()));
                }
                state = self.shared.wait(state);
            };
            self.failed = done.is_err();
            let frames = done?;
            state.bytes -= frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
            state.read += 1;
            drop(state);
            self.shared.changed.notify_all();
            self.next += 1;
            self.current = frames.into_iter();
        }
    }
}

impl Read for BackupReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.frame.get(self.at..).unwrap_or_default().read(buffer)?;
            self.at += read;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.frame = Pooled::default();
            match self.next_frame() {
                Ok(Some(frame)) => (self.frame, self.at) = (frame, 0),
                Ok(None) => return Ok(0),
                Err(error) => return Err(self.failure.note(error)),
            }
        }
    }
}

impl Drop for BackupReader {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Joins neighbouring frames to requests, each of which takes less than half of the memory.
fn fetches(manifest: &Manifest, frames: impl Iterator<Item = u32>, memory: u64) -> Vec<Fetch> {
    let unpacked = UNPACKED.min(memory / 2);
    let mut fetches: Vec<Fetch> = Vec::new();
    let (mut size, mut len) = (0, 0);
    let mut pack = None;
    for number in frames {
        let Some(frame) = manifest.frames.get(number as usize) else { continue };
        size += u64::from(frame.stored);
        len += u64::from(frame.len);
        match fetches.last_mut() {
            Some(last)
                if last.first + last.count == number
                    && pack == Some(frame.pack)
                    && size <= FETCH
                    && len <= unpacked =>
            {
                last.count += 1;
            }
            _ => {
                fetches.push(Fetch { first: number, count: 1 });
                (size, len) = (u64::from(frame.stored), u64::from(frame.len));
            }
        }
        pack = Some(frame.pack);
    }
    fetches
}

impl Shared {
    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let pause = std::time::Duration::from_millis(100);
        self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
    }

    fn frames(&self, fetch: &Fetch) -> &[Frame] {
        let first = fetch.first as usize;
        self.manifest.frames.get(first..first + fetch.count as usize).unwrap_or_default()
    }

    fn work(&self) {
        loop {
            let number = {
                let mut state = lock(&self.state);
                loop {
                    let Some(fetch) = self.fetches.get(state.begun) else { return };
                    if self.stop.is_cancelled() {
                        return;
                    }
                    let len: u64 = self.frames(fetch).iter().map(|f| u64::from(f.len)).sum();
                    // What is read next is always let through.
                    if state.bytes + len <= state.limit || state.begun == state.read {
                        state.bytes += len;
                        state.begun += 1;
                        break state.begun - 1;
                    }
                    state = self.wait(state);
                }
            };
            let Some(fetch) = self.fetches.get(number) else { return };
            let frames = self.fetch(fetch);
            let failed = frames.is_err();
            lock(&self.state).done.insert(number, frames);
            self.changed.notify_all();
            if failed {
                return;
            }
        }
    }

    /// Fetches, checks, opens and unpacks.
    fn fetch(&self, fetch: &Fetch) -> Result<Vec<Pooled>> {
        let frames = self.frames(fetch);
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Ok(Vec::new());
        };
        let range = first.offset..last.offset + u64::from(last.stored);
        let len = range.end - range.start;
        let key = self.manifest.pack(first.pack)?;
        let bytes =
            self.store.get(&key, Some(range), len, &self.stop).map_err(|error| {
                match error.kind() {
                    ErrorKind::NothingMatches => damaged(&key, "it is missing"),
                    _ => error,
                }
            })?;
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut unpacked = Vec::with_capacity(frames.len());
        for (number, frame) in (fetch.first..).zip(frames) {
            let at = (frame.offset - first.offset) as usize;
            let stored = bytes.get(at..at + frame.stored as usize).unwrap_or_default();
            unpacked.push(self.open(number, frame, stored).map_err(|why| {
                damaged(&key, format!("frame {number} at byte {}: {why}", frame.offset))
                    .advise("the backup is damaged there; verify names everything that is")
            })?);
        }
        Ok(unpacked)
    }

    fn open(&self, number: u32, frame: &Frame, stored: &[u8]) -> Result<Pooled, String> {
        if frame_hash(stored) != frame.hash {
            return Err("its hash is not that of the manifest".to_owned());
        }
        let len = frame.len as usize;
        let compression = self.manifest.compression;
        let mut unpacked = self.buffers.take();
        match &self.opener {
            None => decompress(compression, stored, len, &mut unpacked)?,
            Some(sealer) => {
                let mut stored = stored.to_vec();
                sealer
                    .open(frame.pack, number, &mut stored)
                    .ok_or("it is not what was sealed for this place")?;
                decompress(compression, &stored, len, &mut unpacked)?;
            }
        }
        Ok(unpacked)
    }
}
