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

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use innodb::Lsn;
use innodb::crypt::redo::{LogCipher, LogScheme};
use innodb::redo::blocks::{self, NotEncrypted};
use innodb::redo::header::LogEncryption;
use innodb::redo::mtr::{MTR_MAX, NONCE_SIZE, Trailer};
use innodb::redo::record::{Record, Records};
use innodb::redo::{Checkpoint, Laps, Mtr, Stop, mtr};

use super::file_events::FileEvents;
use super::log_file::{Format, LogFile};
use crate::capture::run::Run;
use crate::io::spool::Spool;
use crate::keys::BlockCipher;
use crate::keys::settings::KeyStore;
use crate::server::profile::ServerVersion;
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
    header: Vec<u8>,
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

/// Which log to follow.
pub struct Source<'a> {
    /// Its first file.
    pub path: PathBuf,
    /// The version of the server, which the copy tells.
    pub version: ServerVersion,
    /// How far the log goes.
    pub ask_flushed: AskFlushed,
    /// For a log that is encrypted.
    pub keys: &'a Arc<KeyStore>,
    /// Of a delta, where its base ends, as far as that is known.
    pub base_end: Option<Lsn>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Follower<'a> {
    /// Opens a log and follows it from its newest checkpoint, into `spool`, until it is
    /// told where to stop or the backup is given up. Its failure ends the backup.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env Run<'env>,
        source: Source<'_>,
        spool: Arc<Spool>,
    ) -> Result<Self>
    where
        'env: 'a,
    {
        let Source { path, version, ask_flushed, keys, base_end } = source;
        let log = LogFile::open(&path)?;
        // What a log says of files is clear in the older way.
        let hides_files = |it: &LogEncryption| it.scheme == LogScheme::Together;
        let cipher = keys.log_cipher(log.encryption().filter(hides_files).as_ref())?;
        let block_cipher = match log.format() {
            Format::Blocks { encryption: Some(encryption), .. } => {
                Some(BlockCipher::new(keys, encryption)?)
            }
            _ => None,
        };
        let (start, header) = log.start(version)?;
        let events = FileEvents::since_base(base_end);
        let state =
            State { at: start.lsn, checkpoint: start, events, fence: start.lsn, stop_at: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), spool });
        let tail = Tail {
            shared: Arc::clone(&shared),
            path,
            log,
            cipher,
            block_cipher,
            scratch: (Vec::new(), Vec::new()),
            at: start.lsn,
            started: Instant::now(),
            start: start.lsn,
            stop: run.stop.clone(),
            ask_flushed,
            asked: Instant::now(),
            payload: Vec::new(),
            last_block: None,
        };
        scope.spawn(move || {
            let mut tail = tail;
            if let Err(error) = tail.follow() {
                run.fail(error);
            }
        });
        Ok(Self { shared, start, header, run })
    }

    /// The checkpoint at which the copied log starts.
    pub fn start_checkpoint(&self) -> Checkpoint {
        self.start
    }

    /// The header of the copied log.
    pub fn header(&self) -> &[u8] {
        &self.header
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
    block_cipher: Option<BlockCipher>,
    /// For deciphering: the records, and what the cipher needs.
    scratch: (Vec<u8>, Vec<u8>),
    at: Lsn,
    start: Lsn,
    started: Instant,
    stop: Cancel,
    ask_flushed: AskFlushed,
    asked: Instant,
    /// What the blocks of a piece have, in the format with blocks.
    payload: Vec<u8>,
    /// There, the block that `at` is in: it is shipped when it is full or the log's last.
    last_block: Option<[u8; blocks::BLOCK_SIZE]>,
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
                    Some(stop_at) if self.at >= stop_at => break,
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
                .read(self.log.unit_start(self.at), piece)
                .map_err(|error| Error::io("read", &self.path, error))?;
            let Some(until) = self.end_of_this_file(fence)? else { continue };
            let checkpoint = self.log.checkpoint()?;
            let oldest = self.log.unit_start(self.at);
            if checkpoint.end_lsn > oldest.advanced(self.log.capacity()) {
                return Err(self.overrun(fence));
            }
            let bytes = piece.get_mut(..read).unwrap_or_default();
            let taken = self.take(bytes, fence, until)?;
            self.publish(taken.at, checkpoint);
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
        self.take_last_block()
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

    /// Checks, tracks and spools the mini-transactions at the start of `bytes` that begin before
    /// `until` and end by the fence.
    fn take(&mut self, bytes: &mut [u8], fence: Lsn, until: Lsn) -> Result<Taken> {
        match self.log.format() {
            Format::Plain { trailer, .. } => self.take_plain(bytes, trailer, fence, until),
            Format::Blocks { framing, .. } => self.take_blocks(bytes, framing, fence, until),
        }
    }

    fn take_plain(
        &mut self,
        bytes: &mut [u8],
        trailer: Trailer,
        fence: Lsn,
        until: Lsn,
    ) -> Result<Taken> {
        let laps = self.log.laps();
        let mut taken = Taken { bytes: 0, at: self.at, stop: Stop::NeedMore };
        while taken.at < until {
            let rest = bytes.get(taken.bytes..).unwrap_or_default();
            let mtr = match mtr::next_with(rest, taken.at, laps, trailer) {
                Ok(mtr) => mtr,
                Err(stop) => {
                    taken.stop = stop;
                    break;
                }
            };
            let nonce = mtr::nonce(rest, mtr.records.len()).unwrap_or_default();
            if !self.accept(&mtr, nonce, fence)? {
                taken.stop = Stop::BadCrc;
                break;
            }
            let (next, size) = (mtr.end, mtr.records.len());
            if let Some(sequence) = bytes.get_mut(taken.bytes + size) {
                // The copy never wraps: all of it is the first lap.
                *sequence = Laps::Linear.sequence_byte(taken.at);
            }
            taken.bytes += size + trailer.size();
            taken.at = next;
        }
        self.spool(bytes.get(..taken.bytes).unwrap_or_default())?;
        Ok(taken)
    }

    /// Here `bytes` start with the block that `at` is in. Only full blocks are spooled.
    fn take_blocks(
        &mut self,
        bytes: &[u8],
        framing: blocks::Framing,
        fence: Lsn,
        until: Lsn,
    ) -> Result<Taken> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        let stop = match &self.block_cipher {
            None => framing.unwrap(bytes, self.at, &NotEncrypted, &mut payload),
            Some(cipher) => {
                let stop = framing.unwrap(bytes, self.at, cipher, &mut payload);
                cipher.check()?;
                stop
            }
        };
        let mut taken = Taken { bytes: 0, at: self.at, stop };
        let mut rest = payload.as_slice();
        while taken.at < until {
            let mtr = match framing.next(rest, taken.at) {
                Ok(mtr) => mtr,
                // The payload ends where the blocks do.
                Err(Stop::NeedMore) => break,
                Err(stop) => {
                    taken.stop = stop;
                    break;
                }
            };
            if !self.accept(&mtr, Default::default(), fence)? {
                taken.stop = Stop::BadCrc;
                break;
            }
            taken.at = mtr.end;
            rest = rest.get(mtr.records.len() + 1..).unwrap_or_default();
        }
        self.payload = payload;
        let start = blocks::block_start(self.at);
        let full = blocks::block_start(taken.at).bytes_since(start).unwrap_or(0) as usize;
        let (full, rest) = bytes.split_at_checked(full).unwrap_or((bytes, &[]));
        self.spool(full)?;
        if taken.at > self.at {
            taken.bytes = full.len().max(1);
            self.last_block = rest.first_chunk().copied();
        }
        Ok(taken)
    }

    /// Whether a mini-transaction is one of the log; notes what it says about files. `nonce` is
    /// its own, in an encrypted log.
    fn accept(&mut self, mtr: &Mtr<'_>, nonce: [u8; NONCE_SIZE], fence: Lsn) -> Result<bool> {
        if mtr.end > fence {
            // The fence is the end of a mini-transaction: this one is not of this place.
            return Ok(false);
        }
        // File records come first in a mini-transaction, and carry this bit.
        if mtr.records.first().is_some_and(|first| first & 0x80 != 0) {
            self.note_files(mtr.start, mtr.records, nonce)?;
        }
        Ok(true)
    }

    fn spool(&self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.shared.spool.push(bytes).map_err(|error| {
            Error::new(ErrorKind::Failed, "cannot keep the redo log that was read").caused_by(error)
        })
    }

    /// Spools the block that the copy ends in, without what lies behind its end.
    fn take_last_block(&mut self) -> Result<()> {
        let Format::Blocks { framing, .. } = self.log.format() else { return Ok(()) };
        // Nothing was written since the checkpoint, or the block is still empty.
        let mut tries = 0;
        let (block, written) = loop {
            if let Some(block) = self.last_block {
                break (block, true);
            }
            let mut block = [0; blocks::BLOCK_SIZE];
            let start = blocks::block_start(self.at);
            self.log
                .read(start, &mut block)
                .map_err(|error| Error::io("read", &self.path, error))?;
            let written = blocks::check(&block, start).is_ok();
            if written || framing.is_first(self.at) {
                break (block, written);
            }
            tries += 1;
            if tries > UNREADABLE_TRIES {
                return Err(self.overrun(self.at));
            }
            std::thread::sleep(UNREADABLE_PAUSE);
        };
        let end = self.at;
        match &self.block_cipher {
            None => self.spool(&framing.last_block(&block, end)),
            Some(cipher) => self.spool(
                &cipher.rewrite(&block, end, written, |plain| framing.last_block(plain, end))?,
            ),
        }
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

    fn publish(&mut self, at: Lsn, checkpoint: Checkpoint) {
        let moved = at > self.at;
        self.at = at;
        let mut state = self.shared.lock();
        state.at = self.at;
        // A checkpoint behind the end of the copy would promise log that the copy does not have.
        if checkpoint.lsn <= self.at {
            state.checkpoint = checkpoint;
        }
        drop(state);
        if moved {
            self.shared.changed.notify_all();
        }
    }

    /// Where mini-transactions of the open file may begin, asked after it was read. `None` when the
    /// log was resized and reading goes on in the new file. That begins at a border of a block,
    /// most often within a mini-transaction; the old file is complete beyond that, since both were
    /// written until the new one took the name.
    fn end_of_this_file(&mut self, fence: Lsn) -> Result<Option<Lsn>> {
        if !self.log.is_replaced()? {
            return Ok(Some(fence));
        }
        let new = LogFile::open(&self.path)?;
        match new.first_lsn() {
            Some(first_lsn) if first_lsn > self.at => Ok(Some(fence.min(first_lsn))),
            // The copy has one header, which says it for all of it.
            _ if new.encryption() != self.log.encryption() => Err(Error::new(
                ErrorKind::Failed,
                "the server changed the encryption of its redo log during the backup",
            )
            .advise("run the backup again")),
            Some(_) => {
                self.log = new;
                Ok(None)
            }
            // No server with this format makes another file while it runs.
            None => Err(Error::new(
                ErrorKind::Gap,
                "the server was restarted with another redo log during the backup",
            )
            .advise("run the backup again")),
        }
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
    /// LSN behind what could be used.
    at: Lsn,
    stop: Stop,
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
