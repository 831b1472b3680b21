//! The redo follower: the thread that tails the server's circular redo log and loses no byte of it.
//!
//! It starts at a checkpoint older than any page that will be copied and ends, at the border of a
//! mini-transaction, where it is told to. Every mini-transaction is checked before it is shipped.
//! It never waits for the sink: what it read goes to a [`Spool`].
//!
//! How the end of the log, a torn write and an overwritten log are told apart, since all three
//! look the same in the bytes: the server's checkpoint may only pass an LSN whose log is completely
//! written. Log that cannot be read although the checkpoint has passed it is overwritten. Log
//! that lies a whole lap behind the checkpoint's end is overwritten too, whatever it looks like;
//! this is asked *after* each read, so that bytes of a lap later are never taken.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use innodb::Lsn;
use innodb::redo::mtr::{MTR_MAX, TRAILER_SIZE};
use innodb::redo::record::{Record, Records};
use innodb::redo::{Checkpoint, Laps, Stop, mtr};

use super::file_events::FileEvents;
use super::log_file::LogFile;
use crate::capture::run::Run;
use crate::io::spool::Spool;
use crate::{Cancel, Error, ErrorKind, Result};

/// First read, and read size while there is little new log.
const READ_MIN: usize = 64 << 10;
/// Largest read: a few mini-transactions of the largest size.
const READ_MAX: usize = 4 << 20;
const _: () = assert!(READ_MAX > 2 * MTR_MAX);
/// Pause when there is nothing new.
const IDLE: Duration = Duration::from_millis(5);
/// Pause when somebody waits for an LSN.
const HURRY: Duration = Duration::from_micros(300);
/// Log behind the checkpoint that cannot be read is tried again this often before it is given up.
const TRIES_BEHIND_CHECKPOINT: u32 = 5;
/// Waiting for an LSN fails after this long without any progress.
const STUCK: Duration = Duration::from_secs(60);

/// The running follower.
pub struct Follower<'a> {
    shared: Arc<Shared>,
    start: Checkpoint,
    run: &'a Run<'a>,
}

/// What was followed.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    /// End of the copied log.
    pub end: Lsn,
    /// Newest checkpoint of the server at or before the end.
    pub checkpoint: Checkpoint,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    spool: Arc<Spool>,
}

struct State {
    at: Lsn,
    checkpoint: Checkpoint,
    events: FileEvents,
    waiters: usize,
    stop_at: Option<Lsn>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Follower<'a> {
    /// Opens the log at `path` and follows it from its newest checkpoint, into `spool`, until it is
    /// told where to stop or the backup is given up. Its failure ends the backup.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env Run<'env>,
        path: &Path,
        spool: Arc<Spool>,
    ) -> Result<Self>
    where
        'env: 'a,
    {
        let log = LogFile::open(path)?;
        let start = log.checkpoint()?;
        let events = FileEvents::default();
        let state = State { at: start.lsn, checkpoint: start, events, waiters: 0, stop_at: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), spool });
        let tail = Tail {
            shared: Arc::clone(&shared),
            path: path.to_owned(),
            log,
            at: start.lsn,
            started: Instant::now(),
            start: start.lsn,
            stop: run.stop.clone(),
        };
        scope.spawn(move || {
            if let Err(error) = tail.run() {
                run.fail(error);
            }
        });
        Ok(Self { shared, start, run })
    }

    /// The checkpoint at which the copied log starts.
    pub fn start_checkpoint(&self) -> Checkpoint {
        self.start
    }

    /// Waits until everything before `lsn` was read.
    pub fn wait_for(&self, lsn: Lsn) -> Result<()> {
        self.wait(lsn).map(|_| ())
    }

    /// Has the follower end at `lsn`, and waits for that. The log is complete in the spool then.
    pub fn stop_at(&self, lsn: Lsn) -> Result<Followed> {
        self.shared.lock().stop_at = Some(lsn);
        self.wait(lsn)
    }

    fn wait(&self, lsn: Lsn) -> Result<Followed> {
        let mut state = self.shared.lock();
        state.waiters += 1;
        self.shared.changed.notify_all();
        let (mut last, mut since) = (state.at, Instant::now());
        let result = loop {
            if state.at >= lsn {
                break Ok(Followed { end: state.at, checkpoint: state.checkpoint });
            }
            if let Err(error) = self.run.check() {
                break Err(error);
            }
            if state.at != last {
                (last, since) = (state.at, Instant::now());
            } else if since.elapsed() > STUCK {
                let message = format!(
                    "the redo log ends at LSN {} for {} seconds, although the server reports LSN {lsn}",
                    state.at,
                    STUCK.as_secs()
                );
                break Err(Error::new(ErrorKind::Gap, message).advise(
                    "check that innodb_log_group_home_dir of this server is what is read here",
                ));
            }
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiters -= 1;
        result
    }

    /// Uses what the log said about files so far.
    pub fn with_events<T>(&self, f: impl FnOnce(&mut FileEvents) -> T) -> T {
        f(&mut self.shared.lock().events)
    }
}

/// The thread's own side.
struct Tail {
    shared: Arc<Shared>,
    path: PathBuf,
    log: LogFile,
    at: Lsn,
    start: Lsn,
    started: Instant,
    stop: Cancel,
}

impl Tail {
    fn run(mut self) -> Result<()> {
        let result = self.follow();
        self.shared.spool.close();
        self.shared.changed.notify_all();
        result
    }

    fn follow(&mut self) -> Result<()> {
        let mut buffer = vec![0; READ_MAX];
        let mut want = READ_MIN;
        let mut unreadable = 0;
        loop {
            self.stop.check()?;
            let stop_at = self.shared.lock().stop_at;
            if stop_at.is_some_and(|stop_at| self.at >= stop_at) {
                return Ok(());
            }
            // Read before the log, so that what lies before this checkpoint must be readable.
            let before = self.log.checkpoint()?;
            let piece = buffer.get_mut(..want).unwrap_or_default();
            let read = self
                .log
                .read(self.at, piece)
                .map_err(|error| Error::io("read", &self.path, error))?;
            let after = self.log.checkpoint()?;
            if after.end_lsn.0 > self.at.0.saturating_add(self.log.capacity()) {
                return Err(self.overrun(after));
            }
            let taken = self.take(piece.get_mut(..read).unwrap_or_default(), stop_at)?;
            self.publish(taken.bytes, after);
            if taken.bytes > 0 {
                unreadable = 0;
                let nearly_all = taken.bytes + MTR_MAX / 8 > want;
                want = if nearly_all { (want * 2).min(READ_MAX) } else { READ_MIN };
                continue;
            }
            match taken.stop {
                Stop::NeedMore if want < READ_MAX && read == want => {
                    want = (want * 2).min(READ_MAX);
                    continue;
                }
                _ if before.lsn > self.at => {
                    unreadable += 1;
                    if unreadable > TRIES_BEHIND_CHECKPOINT && !self.resized()? {
                        return Err(self.overrun(after));
                    }
                }
                _ => {
                    if self.resized()? {
                        unreadable = 0;
                        continue;
                    }
                }
            }
            self.pause();
        }
    }

    /// Checks, tracks and spools the whole mini-transactions at the start of `bytes`.
    fn take(&self, bytes: &mut [u8], stop_at: Option<Lsn>) -> Result<Taken> {
        let laps = self.log.laps();
        let mut taken = Taken { bytes: 0, stop: Stop::NeedMore };
        let mut at = self.at;
        while stop_at.is_none_or(|stop_at| at < stop_at) {
            let mtr = match mtr::next(bytes.get(taken.bytes..).unwrap_or_default(), at, laps) {
                Ok(mtr) => mtr,
                Err(stop) => {
                    taken.stop = stop;
                    break;
                }
            };
            // File records come first in a mini-transaction, and carry this bit.
            if mtr.records.first().is_some_and(|first| first & 0x80 != 0) {
                self.note_files(at, mtr.records)?;
            }
            let (next, size) = (mtr.end, mtr.records.len());
            if let Some(sequence) = bytes.get_mut(taken.bytes + size) {
                // The copy never wraps: all of it is the first lap.
                *sequence = Laps::Linear.sequence_byte(at);
            }
            taken.bytes += size + TRAILER_SIZE;
            at = next;
        }
        if taken.bytes > 0 {
            let spooled = self.shared.spool.push(bytes.get(..taken.bytes).unwrap_or_default());
            spooled.map_err(|error| {
                Error::new(ErrorKind::Failed, "cannot keep the redo log that was read")
                    .caused_by(error)
            })?;
        }
        Ok(taken)
    }

    fn note_files(&self, at: Lsn, records: &[u8]) -> Result<()> {
        let mut state = self.shared.lock();
        for record in Records::new(records) {
            match record {
                Ok(Record::File(record)) => state.events.note(at, record),
                Ok(Record::Page { .. }) => break,
                Err(error) => {
                    let message = format!("the redo log is damaged: mini-transaction at LSN {at}");
                    return Err(Error::new(ErrorKind::Damage, message).caused_by(error));
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, taken: usize, checkpoint: Checkpoint) {
        self.at = self.at.advanced(taken as u64);
        let mut state = self.shared.lock();
        state.at = self.at;
        // A checkpoint behind the end of the copy would promise log that the copy does not have.
        if checkpoint.lsn <= self.at {
            state.checkpoint = checkpoint;
        }
        drop(state);
        if taken > 0 {
            self.shared.changed.notify_all();
        }
    }

    /// Moves on to the new file when the log was resized. The old file was complete up to the
    /// moment of the rename and has nothing more: this is asked only when it was read to its end.
    fn resized(&mut self) -> Result<bool> {
        if !self.log.is_replaced()? {
            return Ok(false);
        }
        // What was written to the old file between the last read and the rename.
        let mut buffer = vec![0; READ_MAX];
        loop {
            let read = self
                .log
                .read(self.at, &mut buffer)
                .map_err(|e| Error::io("read", &self.path, e))?;
            let stop_at = self.shared.lock().stop_at;
            let taken = self.take(buffer.get_mut(..read).unwrap_or_default(), stop_at)?;
            if taken.bytes == 0 {
                break;
            }
            self.at = self.at.advanced(taken.bytes as u64);
        }
        let new = LogFile::open(&self.path)?;
        if new.first_lsn() > self.at {
            let message = format!(
                "the redo log was resized: the new file starts at LSN {}, the old one was read only up to LSN {}",
                new.first_lsn(),
                self.at
            );
            return Err(Error::new(ErrorKind::Gap, message).advise("run the backup again"));
        }
        self.log = new;
        Ok(true)
    }

    fn pause(&self) {
        let state = self.shared.lock();
        let pause = if state.waiters > 0 { HURRY } else { IDLE };
        drop(self.shared.changed.wait_timeout(state, pause));
    }

    /// The error of a log that was overwritten before it was read, with what was measured.
    fn overrun(&self, checkpoint: Checkpoint) -> Error {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let read = self.at.bytes_since(self.start).unwrap_or(0) as f64;
        let written = checkpoint.end_lsn.bytes_since(self.start).unwrap_or(0) as f64;
        const MIB: f64 = (1 << 20) as f64;
        let message = format!(
            "the server has overwritten redo log that was not read yet: it was read up to LSN {}, the server is \
             beyond LSN {}; in {seconds:.1} s the server wrote {:.1} MiB ({:.1} MiB/s) and {:.1} MiB were read; \
             the log holds {:.1} MiB",
            self.at,
            checkpoint.end_lsn,
            written / MIB,
            written / MIB / seconds,
            read / MIB,
            self.log.capacity() as f64 / MIB,
        );
        let wanted = (written * 2.0 / MIB).max(self.log.capacity() as f64 * 2.0 / MIB);
        Error::new(ErrorKind::Gap, message).advise(format!(
            "make the log larger while the server runs (SET GLOBAL innodb_log_file_size = {:.0} * 1024 * 1024) or \
             back up when less is written",
            wanted.ceil()
        ))
    }
}

/// How much of a piece could be used, and why no more.
struct Taken {
    bytes: usize,
    stop: Stop,
}
