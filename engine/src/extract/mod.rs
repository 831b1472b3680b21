//! Unpacking an xbstream into a folder.
//!
//! Threads take turns at the stream: whoever holds it reads the next piece into a buffer of its
//! own, or takes note where its bytes are and copies them when it has let go, and writes the piece
//! where it belongs while the next thread reads. Pieces are written by position, so their order does
//! not matter, and bytes are touched by one processor only. Memory is one buffer per thread, whatever
//! the chunks' sizes, and for a moment what a piece is copied from.
//!
//! | part | what |
//! |---|---|
//! | `feed` | where chunks come from |
//! | `intake` | the stream: the next job for whoever asks, and the rules between chunks |
//! | `output` | a file being written |
//! | `target` | the folder, and the promise that nothing outside of it is touched |
//! | `sparse` | holes of page-compressed tablespaces |
//! | `update` | writing what differs into a file that exists |
//!
//! A stream that breaks a rule of the format, names a path outside, ends early or clashes with
//! a file that exists is an error; what was unpacked until then stays, but without the file
//! `*_checkpoints`, which makes a folder a backup: it is put in place when everything else has
//! been read, verified and written. Renames and removals touch only what the stream itself has
//! made. As with the stock tool, it is not promised that anything is on disk at the end.

pub(crate) mod feed;
mod intake;
mod output;
pub(crate) mod sparse;
mod target;
#[cfg(test)]
mod tests;
mod update;

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use crate::io::Buffer;
use crate::io::direct::DirectWrites;
use crate::{Cancel, Error, Reporter, Result};
use feed::{Feed, Parsed};
use intake::{Intake, Work};
use target::Target;
use xbstream::StreamPath;

/// Size of each thread's buffer. It stays within a core's cache, so that the checksum and the
/// write find the bytes there that the read has left, and is enough for a direct write.
const PIECE_LEN: usize = 1 << 20;

/// More writers than this only add memory.
const PARALLEL_MAX: usize = 64;

/// Where to unpack to.
pub struct ExtractOptions {
    /// Target folder; created if missing.
    pub dir: PathBuf,
    /// Writing threads, at least 1.
    pub parallel: usize,
}

/// What is done about files that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// They are an error.
    Refuse,
    /// They get the content of the stream; what is the same is not written.
    Update,
}

/// What was unpacked.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExtractSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Files written.
    pub files: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
}

/// Sees what is unpacked before it is written, and may change it.
pub(crate) trait Arrivals: Sync {
    /// A file begins with these bytes. Told before any part of it is handed over; with a number,
    /// all of its parts are, else none.
    fn begin(&self, path: &StreamPath, start: &[u8]) -> Option<usize>;

    /// A part of the file that got this number, about to be written at `offset`.
    fn part(&self, number: usize, offset: u64, bytes: &mut [u8]) -> Result<()>;

    /// A file that began is gone again.
    fn gone(&self, path: &StreamPath);
}

/// How a stream is unpacked.
pub(crate) struct How<'a> {
    /// What is done about files that exist.
    pub existing: Existing,
    /// Who sees what is written.
    pub arrivals: &'a dyn Arrivals,
    /// How the disk is written to.
    pub disk: DirectWrites,
}

impl How<'_> {
    /// Into new files, as they come.
    pub fn new() -> Self {
        let disk = DirectWrites::default();
        Self { existing: Existing::Refuse, arrivals: &Unchanged, disk }
    }
}

/// Takes no interest.
pub(crate) struct Unchanged;

impl Arrivals for Unchanged {
    fn begin(&self, _: &StreamPath, _: &[u8]) -> Option<usize> {
        None
    }

    fn part(&self, _: usize, _: u64, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn gone(&self, _: &StreamPath) {}
}

/// Unpacks `input` below the target folder and never outside of it.
pub fn extract(
    input: Box<dyn Read + Send>,
    options: ExtractOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<ExtractSummary> {
    let feed = Box::new(Parsed::new(input));
    unpack(How::new(), feed, options, cancel, reporter).map(|(summary, _)| summary)
}

/// The same, told how. Returns the bytes that were written, too, which of files that exist are those
/// that differ. Who has them updated has made sure that the folder holds nothing else.
pub(crate) fn unpack(
    How { existing, arrivals, disk }: How<'_>,
    feed: Box<dyn Feed + '_>,
    options: ExtractOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<(ExtractSummary, u64)> {
    let started = Instant::now();
    let target = Target::open(&options.dir, existing, disk)?;
    let run = Run {
        intake: Mutex::new(Intake::new(feed, existing == Existing::Update, arrivals, reporter)),
        busy: RwLock::new(()),
        target: &target,
        arrivals,
        cancel,
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    thread::scope(|scope| {
        for worker in 2..=options.parallel.clamp(1, PARALLEL_MAX) {
            let run = &run;
            scope.spawn(move || run.work(worker));
        }
        run.work(1);
    });
    if let Some(error) = run.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let intake = run.intake.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (files, bytes) = intake.finish(&target)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((ExtractSummary { format: 1, files, bytes, seconds }, target.written()))
}

/// What the threads of one extraction share.
struct Run<'a> {
    intake: Mutex<Intake<'a>>,
    /// Held shared while a job is carried out, from before the stream is let go. Whoever has the
    /// stream and takes this exclusively has thereby waited for all jobs before.
    busy: RwLock<()>,
    target: &'a Target,
    arrivals: &'a dyn Arrivals,
    cancel: &'a Cancel,
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Run<'_> {
    /// Takes and does jobs until the stream ends or any thread fails.
    fn work(&self, worker: usize) {
        let mut buffer = Buffer::new(PIECE_LEN);
        while !self.stopped.load(Ordering::Relaxed) {
            match self.work_once(worker, &mut buffer) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.stopped.store(true, Ordering::Relaxed);
                    // What comes later is a consequence, or at least not more telling.
                    lock(&self.failure).get_or_insert(error);
                }
            }
        }
    }

    fn work_once(&self, worker: usize, buffer: &mut [u8]) -> Result<bool> {
        self.cancel.check()?;
        let mut intake = lock(&self.intake);
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let job = match intake.next(worker, buffer)? {
            None => return Ok(false),
            Some(Work::Alone(change)) => {
                let _all_done = self.busy.write().unwrap_or_else(PoisonError::into_inner);
                return change.carry_out(self.target, self.arrivals).map(|()| true);
            }
            Some(Work::Beside(job)) => job,
        };
        let _busy = self.busy.read().unwrap_or_else(PoisonError::into_inner);
        drop(intake);
        job.carry_out(self.target, self.arrivals, buffer).map(|()| true)
    }
}

/// A panic of another thread ends the operation by itself, when the scope is left.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
