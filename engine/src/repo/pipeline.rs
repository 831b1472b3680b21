//! From frames to packs in the store.
//!
//! ```text
//! submit ─▶ compress (threads) ─▶ in order: seal, hash, pack ─▶ put (threads) ─▶ store
//! ```
//!
//! Every stage waits for the next one, so memory is bounded: a frame per compressing thread and
//! place in a queue, and a pack per putting thread, one in between and one being filled. The first
//! error of any stage ends all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::compression::{Compression, Compressor};
use super::layout::{BackupName, pack_name};
use super::manifest::{Frame, frame_hash};
use super::panicked;
use super::seal::Sealer;
use super::sink::FRAME_LEN;
use crate::io::{Pool, Pooled};
use crate::store::{PutOptions, Store};
use crate::{Cancel, Error, ErrorKind, Result};

/// What a pipeline needs to know.
#[derive(Clone)]
pub struct PipelineOptions {
    /// How frames are compressed.
    pub compression: Compression,
    /// Threads that compress.
    pub threads: usize,
    /// A pack is put when it has so many bytes.
    pub pack_size: usize,
    /// Packs that are put at the same time.
    pub uploads: usize,
}

/// What was put.
#[derive(Debug, Default)]
pub struct Packed {
    /// Size of each pack.
    pub packs: Vec<u64>,
    /// The frames, in their order.
    pub frames: Vec<Frame>,
}

/// How often somebody who is too far ahead looks again.
const PAUSE: Duration = Duration::from_millis(1);
/// Room of a frame that is as long as ours get, compressed badly.
const BUFFER_MAX: usize = 2 * FRAME_LEN;

struct Job {
    number: u32,
    bytes: Pooled,
}

struct Compressed {
    number: u32,
    len: u32,
    bytes: Pooled,
}

struct Pack {
    number: u32,
    bytes: Pooled,
}

/// What all threads share.
struct Shared {
    /// Frames that are in packs, or on their way to the store.
    packed: AtomicU32,
    stop: Cancel,
    failure: Mutex<Option<Error>>,
    /// Of frames, and of their compressed forms.
    buffers: Pool,
}

/// Takes frames and puts packs.
pub struct Pipeline {
    /// The next number, and where jobs go. Both under one lock, so that the order of numbers is that
    /// of submissions.
    entry: Mutex<(u32, Option<Sender<Job>>)>,
    /// How many frames may be on their way while an earlier one is being compressed.
    ahead: u32,
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    packer: Mutex<Option<JoinHandle<Packed>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends everything when its thread panics: others would wait for it.
struct Fuse(Arc<Shared>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(panicked());
        }
    }
}

impl Shared {
    fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.is_none() && !self.stop.is_cancelled() {
            *failure = Some(error);
        }
        self.stop.cancel();
    }
}

impl Pipeline {
    /// Starts the threads. Frames are sealed if there is a sealer.
    pub fn start(
        store: Arc<dyn Store>,
        backup: &BackupName,
        options: &PipelineOptions,
        sealer: Option<Sealer>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let threads = options.threads.max(1);
        let shared = Arc::new(Shared {
            packed: AtomicU32::new(0),
            stop: cancel.child(),
            failure: Mutex::default(),
            buffers: Pool::new(4 * threads + 8, BUFFER_MAX),
        });
        let (jobs, to_compress) = bounded::<Job>(1);
        let (compressed, to_pack) = bounded::<Compressed>(1);
        let (full, to_put) = bounded::<Pack>(0);
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (from, to) = (to_compress.clone(), compressed.clone());
            let (shared, compressor) = (Arc::clone(&shared), Compressor::new(options.compression)?);
            workers.push(std::thread::spawn(move || {
                let _fuse = Fuse(Arc::clone(&shared));
                compress(&shared, compressor, &from, &to);
            }));
        }
        for _ in 0..options.uploads.max(1) {
            let (from, shared, store) = (to_put.clone(), Arc::clone(&shared), Arc::clone(&store));
            let (backup, compression) = (backup.clone(), options.compression);
            let sealed = sealer.is_some();
            workers.push(std::thread::spawn(move || {
                let _fuse = Fuse(Arc::clone(&shared));
                for pack in &from {
                    let put = || {
                        let name = pack_name(pack.number, compression, sealed);
                        let options =
                            PutOptions { only_if_absent: true, is_hashed_elsewhere: true };
                        // Nobody else knows this name, so what is there is what we put before.
                        let _ = store.put(
                            &backup.object(&name)?,
                            pack.bytes.freeze().into(),
                            &options,
                            &shared.stop,
                        )?;
                        Ok(())
                    };
                    if let Err(error) = put() {
                        return shared.fail(error);
                    }
                }
            }));
        }
        let packer = {
            let (shared, pack_size) = (Arc::clone(&shared), options.pack_size);
            let packs = Pool::new(options.uploads.max(1) + 2, pack_size + BUFFER_MAX);
            std::thread::spawn(move || {
                let _fuse = Fuse(Arc::clone(&shared));
                let mut packer = Packer {
                    pack_size,
                    sealer,
                    out: full,
                    pack: packs.take(),
                    packs,
                    packed: Packed::default(),
                };
                if let Err(error) = packer.run(&to_pack, &shared.packed) {
                    shared.fail(error);
                }
                packer.packed
            })
        };
        Ok(Self {
            entry: Mutex::new((0, Some(jobs))),
            ahead: 2 * threads as u32 + 2,
            shared,
            workers: Mutex::new(workers),
            packer: Mutex::new(Some(packer)),
        })
    }

    /// An empty buffer for a frame.
    pub fn buffer(&self) -> Pooled {
        self.shared.buffers.take()
    }

    /// Hands a frame over; returns its number. Frames keep the order in which they were submitted.
    pub fn submit(&self, bytes: Pooled) -> Result<u32> {
        let mut entry = lock(&self.entry);
        let number = entry.0;
        while number > self.shared.packed.load(Ordering::Acquire) + self.ahead {
            if self.shared.stop.is_cancelled() {
                drop(entry);
                return Err(self.failure());
            }
            std::thread::sleep(PAUSE);
        }
        entry.0 = number.checked_add(1).ok_or_else(|| {
            Error::new(ErrorKind::Failed, "a backup cannot have more than 4 billion frames")
        })?;
        let job = Job { number, bytes };
        match &entry.1 {
            Some(jobs) if !self.shared.stop.is_cancelled() && jobs.send(job).is_ok() => Ok(number),
            _ => {
                drop(entry);
                Err(self.failure())
            }
        }
    }

    /// Whether every call fails.
    pub fn is_aborted(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Makes every call fail from now on.
    pub fn abort(&self) {
        self.shared.stop.cancel();
    }

    /// Waits until everything is in the store.
    pub fn conclude(&self) -> Result<Packed> {
        lock(&self.entry).1 = None;
        let packed = lock(&self.packer).take().and_then(|packer| packer.join().ok());
        let workers = std::mem::take(&mut *lock(&self.workers));
        // All of them, also behind one that panicked.
        let panicked = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        match packed.filter(|_| panicked == 0 && !self.shared.stop.is_cancelled()) {
            Some(packed) => Ok(packed),
            None => Err(self.failure()),
        }
    }

    /// Why it ended. The first who asks learns the reason.
    pub fn failure(&self) -> Error {
        lock(&self.shared.failure)
            .take()
            .unwrap_or_else(|| Error::new(ErrorKind::Interrupted, "the backup was given up"))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.abort();
        let _ = self.conclude();
    }
}

fn compress(
    shared: &Shared,
    mut compressor: Compressor,
    from: &Receiver<Job>,
    to: &Sender<Compressed>,
) {
    for Job { number, bytes } in from {
        if shared.stop.is_cancelled() {
            return;
        }
        let mut compressed = shared.buffers.take();
        if let Err(error) = compressor.compress(&bytes, &mut compressed) {
            return shared.fail(error);
        }
        let len = bytes.len() as u32;
        drop(bytes);
        if to.send(Compressed { number, len, bytes: compressed }).is_err() {
            return;
        }
    }
}

/// Puts compressed frames in order and fills packs.
struct Packer {
    pack_size: usize,
    sealer: Option<Sealer>,
    out: Sender<Pack>,
    packs: Pool,
    pack: Pooled,
    packed: Packed,
}

impl Packer {
    fn run(&mut self, from: &Receiver<Compressed>, packed: &AtomicU32) -> Result<()> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        for frame in from {
            early.insert(frame.number, frame);
            while let Some(frame) = early.remove(&next) {
                self.add(frame)?;
                next += 1;
                packed.store(next, Ordering::Release);
            }
        }
        self.ship()
    }

    fn add(&mut self, mut frame: Compressed) -> Result<()> {
        let sealed = frame.bytes.len() + super::seal::TAG_LEN;
        if !self.pack.is_empty() && self.pack.len() + sealed > self.pack_size {
            self.ship()?;
        }
        let pack = self.packed.packs.len() as u32;
        if let Some(sealer) = &self.sealer {
            sealer.seal(pack, frame.number, &mut frame.bytes)?;
        }
        self.packed.frames.push(Frame {
            pack,
            offset: self.pack.len() as u64,
            stored: frame.bytes.len() as u32,
            len: frame.len,
            hash: frame_hash(&frame.bytes),
        });
        if self.pack.is_empty() {
            self.pack.reserve_exact(self.pack_size.max(frame.bytes.len()));
        }
        self.pack.extend_from_slice(&frame.bytes);
        Ok(())
    }

    fn ship(&mut self) -> Result<()> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let number = self.packed.packs.len() as u32;
        let bytes = std::mem::replace(&mut self.pack, self.packs.take());
        self.packed.packs.push(bytes.len() as u64);
        self.out
            .send(Pack { number, bytes })
            .map_err(|_| Error::new(ErrorKind::Interrupted, "the backup was given up"))
    }
}
