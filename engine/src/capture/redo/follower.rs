//! The redo follower: the thread that tails the server's circular redo log and loses no byte of it.
//!
//! It starts at a checkpoint older than any page that will be copied and ends, at the border of a
//! mini-transaction, where it is told to. Every mini-transaction is checked before it is shipped.
//! It never waits for the sink: what it read goes to a [`Spool`].
//!
//! How far the log goes, its bytes do not say: behind the last mini-transaction lies whatever the
//! server's buffer held before, and that may be a whole, valid mini-transaction of another place.
//! So the follower reads only up to a *fence*, an LSN of which the server said that the file has
//! everything before it. In turn, log before the fence that cannot be read is overwritten. So is
//! log that lies a whole lap behind a checkpoint, whatever it looks like; this is asked *after*
//! each read, so that bytes of a later lap are never taken.
//!
//! An encrypted log is checked and shipped as it is. Only what it says about files takes the key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use innodb::Lsn;
use innodb::crypt::redo::LogCipher;
use innodb::redo::header::LogEncryption;
use innodb::redo::mtr::{MTR_MAX, NONCE_SIZE};
use innodb::redo::record::{Record, Records};
use innodb::redo::{Checkpoint, Laps, Stop, mtr};

use super::file_events::FileEvents;
use super::log_file::LogFile;
use crate::capture::run::Run;
use crate::io::spool::Spool;
use crate::keys::settings::KeyStore;
use crate::{Cancel, Error, ErrorKind, Result};

/// First read, and read size while there is little new log.
const READ_MIN: usize = 64 << 10;
/// Largest read: a few mini-transactions of the largest size.
const READ_MAX: usize = 4 << 20;
const _: () = assert!(READ_MAX > 2 * MTR_MAX);
/// The server is asked for its LSN at most this often: the question is not free for it.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// Log before the fence that cannot be read is tried again this often, with
/// [`UNREADABLE_PAUSE`] between, before it is given up.
const UNREADABLE_TRIES: u32 = 10;
const UNREADABLE_PAUSE: Duration = Duration::from_millis(10);
/// Waiting for an LSN fails after this long without any progress.
const STUCK: Duration = Duration::from_secs(60);

/// The running follower.
pub struct Follower<'a> {
    shared: Arc<Shared>,
    start: Checkpoint,
    encryption: Option<LogEncryption>,
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
    /// Everything before this is in the file.
    fence: Lsn,
    stop_at: Option<Lsn>,
}

/// Asks the server for an LSN before which its log is completely in the file.
pub type AskFlushed = Box<dyn FnMut() -> Result<Lsn> + Send>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Follower<'a> {
    /// Opens the log at `path` and follows it from its newest checkpoint, into `spool`, until it is
    /// told where to stop or the backup is given up. Its failure ends the backup. `keys` are for a
    /// log that is encrypted.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env Run<'env>,
        path: &Path,
        spool: Arc<Spool>,
        ask_flushed: AskFlushed,
        keys: &KeyStore,
    ) -> Result<Self>
    where
        'env: 'a,
    {
        let log = LogFile::open(path)?;
        let encryption = log.encryption().copied();
        let cipher = keys.log_cipher(encryption.as_ref())?;
        let start = log.checkpoint()?;
        let events = FileEvents::default();
        let state =
            State { at: start.lsn, checkpoint: start, events, fence: start.lsn, stop_at: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), spool });
        let tail = Tail {
            shared: Arc::clone(&shared),
            path: path.to_owned(),
            log,
            cipher,
            scratch: (Vec::new(), Vec::new()),
            at: start.lsn,
            started: Instant::now(),
            start: start.lsn,
            stop: run.stop.clone(),
            ask_flushed,
            asked: Instant::now(),
        };
        scope.spawn(move || {
            let mut tail = tail;
            if let Err(error) = tail.follow() {
                run.fail(error);
            }
        });
        Ok(Self { shared, start, encryption, run })
    }

    /// How the copied log is encrypted, if it is.
    pub fn encryption(&self) -> Option<&LogEncryption> {
        self.encryption.as_ref()
    }

    /// The checkpoint at which the copied log starts.
    pub fn start_checkpoint(&self) -> Checkpoint {
        self.start
    }

    /// Waits until everything before `lsn` was read. The file must have it all.
    pub fn wait_for(&self, lsn: Lsn) -> Result<()> {
        self.raise_fence(lsn);
        self.wait(lsn).map(|_| ())
    }

    /// Has the follower end at `lsn`: nothing behind it is taken from now on. The file must have
    /// everything before `lsn`. To be called while nothing may happen behind `lsn` that the copy
    /// must not hold.
    pub fn end_at(&self, lsn: Lsn) {
        self.shared.lock().stop_at = Some(lsn);
        self.raise_fence(lsn);
    }

    /// Waits for the end that was set; the spool has everything then.
    pub fn finish(&self) -> Result<Followed> {
        let end = self.shared.lock().stop_at.unwrap_or_default();
        self.wait(end)
    }

    fn raise_fence(&self, lsn: Lsn) {
        let mut state = self.shared.lock();
        state.fence = state.fence.max(lsn);
        drop(state);
        self.shared.changed.notify_all();
    }

    fn wait(&self, lsn: Lsn) -> Result<Followed> {
        let mut state = self.shared.lock();
        let (mut last, mut since) = (state.at, Instant::now());
        loop {
            if state.at >= lsn {
                return Ok(Followed { end: state.at, checkpoint: state.checkpoint });
            }
            self.run.check()?;
            if state.at != last {
                (last, since) = (state.at, Instant::now());
            } else if since.elapsed() > STUCK {
                let message = format!(
                    "the redo log was read up to LSN {} and for {} seconds no further, although the server reports \
                     LSN {lsn}",
                    state.at,
                    STUCK.as_secs()
                );
                return Err(Error::new(ErrorKind::Gap, message).advise(
                    "check that innodb_log_group_home_dir of this server is what is read here",
                ));
            }
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
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
    cipher: Option<LogCipher>,
    /// For deciphering: the records, and what the cipher needs.
    scratch: (Vec<u8>, Vec<u8>),
    at: Lsn,
    start: Lsn,
    started: Instant,
    stop: Cancel,
    ask_flushed: AskFlushed,
    asked: Instant,
}

/// However the thread ends, whoever takes from the spool must not wait for more.
impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.spool.close();
        self.shared.changed.notify_all();
    }
}

impl Tail {
    fn follow(&mut self) -> Result<()> {
        let mut buffer = vec![0; READ_MAX];
        let mut want = READ_MIN;
        let mut unreadable = 0;
        loop {
            self.stop.check()?;
            let fence = {
                let state = self.shared.lock();
                match state.stop_at {
                    Some(stop_at) if self.at >= stop_at => return Ok(()),
                    Some(stop_at) => state.fence.min(stop_at),
                    None => state.fence,
                }
            };
            if self.at >= fence {
                self.wait_for_fence()?;
                continue;
            }
            let piece = buffer.get_mut(..want).unwrap_or_default();
            let read = self
                .log
                .read(self.at, piece)
                .map_err(|error| Error::io("read", &self.path, error))?;
            let Some(fence) = self.fence_of_this_file(fence)? else { continue };
            let checkpoint = self.log.checkpoint()?;
            if checkpoint.end_lsn.0 > self.at.0.saturating_add(self.log.capacity()) {
                return Err(self.overrun(fence));
            }
            let taken = self.take(piece.get_mut(..read).unwrap_or_default(), fence)?;
            self.publish(taken.bytes, checkpoint);
            if taken.bytes > 0 {
                unreadable = 0;
                let nearly_all = taken.bytes + MTR_MAX / 8 > want;
                want = if nearly_all { (want * 2).min(READ_MAX) } else { READ_MIN };
            } else if taken.stop == Stop::NeedMore && want < READ_MAX {
                want = (want * 2).min(READ_MAX);
            } else {
                unreadable += 1;
                if unreadable > UNREADABLE_TRIES {
                    return Err(self.overrun(fence));
                }
                std::thread::sleep(UNREADABLE_PAUSE);
            }
        }
    }

    /// Waits until the fence was raised or it is time to ask the server how far its log goes.
    fn wait_for_fence(&mut self) -> Result<()> {
        let due = ASK_INTERVAL.saturating_sub(self.asked.elapsed());
        if !due.is_zero() {
            let state = self.shared.lock();
            if state.fence <= self.at {
                drop(self.shared.changed.wait_timeout(state, due));
            }
            return Ok(());
        }
        self.asked = Instant::now();
        let flushed = (self.ask_flushed)()?;
        let mut state = self.shared.lock();
        state.fence = state.fence.max(flushed);
        Ok(())
    }

    /// Checks, tracks and spools the mini-transactions at the start of `bytes` that end by the fence.
    fn take(&mut self, bytes: &mut [u8], fence: Lsn) -> Result<Taken> {
        let (laps, trailer) = (self.log.laps(), self.log.trailer());
        let mut taken = Taken { bytes: 0, stop: Stop::NeedMore };
        let mut at = self.at;
        while at < fence {
            let rest = bytes.get(taken.bytes..).unwrap_or_default();
            let mtr = match mtr::next_with(rest, at, laps, trailer) {
                Ok(mtr) => mtr,
                Err(stop) => {
                    taken.stop = stop;
                    break;
                }
            };
            if mtr.end > fence {
                // The fence is the end of a mini-transaction: this one is not of this place.
                taken.stop = Stop::BadCrc;
                break;
            }
            // File records come first in a mini-transaction, and carry this bit.
            if mtr.records.first().is_some_and(|first| first & 0x80 != 0) {
                let nonce = mtr::nonce(rest, mtr.records.len()).unwrap_or_default();
                self.note_files(at, mtr.records, nonce)?;
            }
            let (next, size) = (mtr.end, mtr.records.len());
            if let Some(sequence) = bytes.get_mut(taken.bytes + size) {
                // The copy never wraps: all of it is the first lap.
                *sequence = Laps::Linear.sequence_byte(at);
            }
            taken.bytes += size + trailer.size();
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

    /// Notes what a mini-transaction says about files. `nonce` is its own, in an encrypted log.
    fn note_files(&mut self, at: Lsn, records: &[u8], nonce: [u8; NONCE_SIZE]) -> Result<()> {
        let damaged = |error| {
            let (message, advice) = match &self.cipher {
                None => ("the redo log is damaged", "check the storage of the server's log"),
                Some(_) => (
                    "the redo log is damaged, or another key than the server's deciphers it",
                    "check that the encryption keys given are those of this server",
                ),
            };
            Error::new(ErrorKind::Damage, format!("{message}: mini-transaction at LSN {at}"))
                .advise(advice)
                .caused_by(error)
        };
        let (plain, scratch) = &mut self.scratch;
        let records = match &self.cipher {
            None => records,
            Some(cipher) => {
                plain.clear();
                plain.extend_from_slice(records);
                cipher.decrypt(plain, nonce, scratch).map_err(damaged)?;
                plain
            }
        };
        let mut state = self.shared.lock();
        for record in Records::new(records) {
            match record.map_err(damaged)? {
                Record::File(record) => state.events.note(at, record),
                Record::Page { .. } => break,
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

    /// How far the open file may be read, asked after it was read. `None` when the log was resized
    /// and reading goes on in the new file; the old one is complete up to where that starts.
    fn fence_of_this_file(&mut self, fence: Lsn) -> Result<Option<Lsn>> {
        if !self.log.is_replaced()? {
            return Ok(Some(fence));
        }
        let new = LogFile::open(&self.path)?;
        if new.first_lsn() > self.at {
            return Ok(Some(fence.min(new.first_lsn())));
        }
        if new.encryption() != self.log.encryption() {
            // The copy has one header, which says it for all of it.
            let message = "the server changed the encryption of its redo log during the backup";
            return Err(Error::new(ErrorKind::Failed, message).advise("run the backup again"));
        }
        self.log = new;
        Ok(None)
    }

    /// The error of a log that was overwritten before it was read, with what was measured.
    fn overrun(&self, written_to: Lsn) -> Error {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let read = self.at.bytes_since(self.start).unwrap_or(0) as f64;
        let written = written_to.bytes_since(self.start).unwrap_or(0) as f64;
        const MIB: f64 = (1 << 20) as f64;
        let message = format!(
            "the server has overwritten redo log that was not read yet: it was read up to LSN {}, the server is \
             beyond LSN {}; in {seconds:.1} s the server wrote {:.1} MiB ({:.1} MiB/s) and {:.1} MiB were read; \
             the log holds {:.1} MiB",
            self.at,
            written_to,
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

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
