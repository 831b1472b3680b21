//! What all threads of one backup share: when to stop, why, and how far it is.
//!
//! The first error of any thread is the one the user sees. It stops the others: threads look at
//! [`Run::check`] between units of work, the sink is aborted, and waits for the server end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::report::{Event, Phase};
use crate::sink::Sink;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// At most this often is progress reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// One backup in progress.
pub struct Run<'a> {
    /// Raised by the user.
    asked_to_stop: Cancel,
    /// Raised when the user, or any thread of this backup, gave up.
    pub stop: Cancel,
    /// Where events go.
    pub reporter: &'a dyn Reporter,
    /// Where files go.
    pub sink: &'a dyn Sink,
    first_error: Mutex<Option<Error>>,
    throttle: Option<Throttle>,
    /// Nobody is made to wait for the sake of gentleness while others wait for us.
    hurry: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    files: AtomicU64,
    reported: Mutex<Instant>,
}

impl<'a> Run<'a> {
    /// A backup that may read `throttle` bytes per second.
    pub fn new(
        cancel: &Cancel,
        reporter: &'a dyn Reporter,
        sink: &'a dyn Sink,
        throttle: Option<u64>,
    ) -> Self {
        Self {
            asked_to_stop: cancel.clone(),
            stop: cancel.child(),
            reporter,
            sink,
            first_error: Mutex::new(None),
            throttle: throttle.map(Throttle::new),
            hurry: AtomicBool::new(false),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            files: AtomicU64::new(0),
            reported: Mutex::new(Instant::now()),
        }
    }

    /// An error when this backup was given up.
    pub fn check(&self) -> Result<()> {
        self.stop.check()
    }

    /// Gives the backup up. Only the first error is kept: later ones, and those of threads that
    /// were told to stop, follow from it.
    pub fn fail(&self, error: Error) {
        let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|first| first.kind() == ErrorKind::Interrupted) {
            *first = Some(error);
        }
        drop(first);
        self.stop.cancel();
        self.sink.abort();
    }

    /// The error that the user is to see, given what the main thread ended with: the user's own
    /// interruption, else the first that is not about having been told to stop.
    pub fn conclude<T>(&self, result: Result<T>) -> Result<T> {
        let first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (first, result) {
            (None, Ok(value)) => Ok(value),
            (Some(error), _) | (None, Err(error)) if self.asked_to_stop.is_cancelled() => {
                Err(self.asked_to_stop.check().err().unwrap_or(error))
            }
            (Some(first), Err(error)) if first.kind() == ErrorKind::Interrupted => Err(error),
            (Some(error), _) | (None, Err(error)) => Err(error),
        }
    }

    /// More bytes are known to be copied.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes were copied: waits as long as the throttle asks, and reports progress.
    pub fn advance(&self, bytes: u64) -> Result<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Ok(mut reported) = self.reported.try_lock()
            && reported.elapsed() >= PROGRESS_INTERVAL
        {
            *reported = Instant::now();
            let total = self.total.load(Ordering::Relaxed).max(done);
            self.reporter.event(&Event::Progress { phase: Phase::Copy, done, total: Some(total) });
        }
        if let Some(throttle) = &self.throttle
            && !self.hurry.load(Ordering::Relaxed)
        {
            throttle.wait(bytes, self)?;
        }
        Ok(())
    }

    /// From now on nothing is throttled: a lock is held that makes others wait.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// The throttle counts again.
    pub fn ease(&self) {
        self.hurry.store(false, Ordering::Relaxed);
    }

    /// A file was copied.
    pub fn count_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Files and bytes copied so far.
    pub fn copied(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.done.load(Ordering::Relaxed))
    }
}

/// Spreads bytes evenly over time.
struct Throttle {
    bytes_per_second: u64,
    /// When the bytes let through so far are used up.
    free_at: Mutex<Instant>,
}

impl Throttle {
    /// A pause may be saved up to this long, no longer.
    const SAVED: Duration = Duration::from_millis(100);
    /// Sleeps are cut into pieces of this length, to notice a cancel.
    const PIECE: Duration = Duration::from_millis(50);

    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    fn wait(&self, bytes: u64, run: &Run<'_>) -> Result<()> {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(Self::SAVED).unwrap_or(now);
            *free_at = (*free_at).max(earliest) + cost;
            *free_at
        };
        while let Some(left) =
            until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            run.check()?;
            std::thread::sleep(left.min(Self::PIECE));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;
    use crate::sink::StreamSink;

    fn interrupted() -> Error {
        Error::new(ErrorKind::Interrupted, "given up")
    }

    fn concluded(cancel: &Cancel, failures: Vec<Error>, result: Result<()>) -> Option<ErrorKind> {
        let sink = StreamSink::new(Box::new(std::io::sink()));
        let run = Run::new(cancel, &Silent, &sink, None);
        failures.into_iter().for_each(|error| run.fail(error));
        run.conclude(result).err().map(|error| error.kind())
    }

    #[test]
    fn the_cause_is_seen_and_not_its_consequences() {
        let cancel = Cancel::new();
        let damage = || Error::new(ErrorKind::Damage, "damage");
        assert_eq!(concluded(&cancel, vec![], Ok(())), None);
        assert_eq!(concluded(&cancel, vec![interrupted()], Err(damage())), Some(ErrorKind::Damage));
        let failures = vec![interrupted(), damage(), interrupted()];
        assert_eq!(concluded(&cancel, failures, Err(interrupted())), Some(ErrorKind::Damage));
    }

    #[test]
    fn the_users_interruption_is_the_cause_of_whatever_follows_from_it() {
        let cancel = Cancel::new();
        cancel.cancel();
        let lost = Error::new(ErrorKind::Server, "connection lost");
        assert_eq!(concluded(&cancel, vec![], Err(lost)), Some(ErrorKind::Interrupted));
    }
}
