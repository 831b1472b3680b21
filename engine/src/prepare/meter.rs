//! Progress of a phase that several threads advance.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Event, Phase, Reporter};

/// How often progress is told.
const INTERVAL: Duration = Duration::from_millis(250);

/// Counts, and tells the reporter now and then.
pub struct Meter<'a> {
    reporter: &'a dyn Reporter,
    phase: Phase,
    total: Option<u64>,
    done: AtomicU64,
    told: Mutex<Instant>,
}

impl<'a> Meter<'a> {
    /// A meter of `phase`.
    pub fn new(reporter: &'a dyn Reporter, phase: Phase, total: Option<u64>) -> Self {
        let told = Mutex::new(Instant::now());
        Self { reporter, phase, total, done: AtomicU64::new(0), told }
    }

    /// Adds `bytes`.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Whoever holds the lock is telling.
        if let Ok(mut told) = self.told.try_lock()
            && told.elapsed() >= INTERVAL
        {
            *told = Instant::now();
            self.tell(done);
        }
    }

    /// Tells the final figure.
    pub fn finish(&self) {
        self.tell(self.done.load(Ordering::Relaxed));
    }

    fn tell(&self, done: u64) {
        self.reporter.event(&Event::Progress { phase: self.phase, done, total: self.total });
    }
}
