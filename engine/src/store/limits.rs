//! Requests at a time, and bytes per second.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Cancel, Result};

/// How much unused bandwidth may be caught up with at once.
const BURST: Duration = Duration::from_millis(200);
/// Within this time a raised flag ends a wait.
const GLANCE: Duration = Duration::from_millis(50);

/// Lets a number of callers in.
pub(super) struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One who was let in.
pub(super) struct Pass<'a>(&'a Gate);

impl Gate {
    pub(super) fn new(width: usize) -> Self {
        Self { free: Mutex::new(width.max(1)), freed: Condvar::new() }
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits to be let in.
    pub(super) fn enter(&self, cancel: &Cancel) -> Result<Pass<'_>> {
        let mut free = self.free();
        while *free == 0 {
            cancel.check()?;
            let waited = self.freed.wait_timeout(free, GLANCE);
            free = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Ok(Pass(self))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.freed.notify_one();
    }
}

/// Spreads bytes over time. Whoever moves some is told how long to wait afterwards.
pub(super) struct Pace {
    rate: Option<u64>,
    /// When what was moved so far would be through at this rate.
    through: Mutex<Instant>,
}

impl Pace {
    /// `None` is without limit.
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|rate| rate.max(1)), through: Mutex::new(Instant::now()) }
    }

    /// Notes that so many bytes are moved now; how long to wait before the next ones.
    pub(super) fn charge(&self, bytes: u64) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let now = Instant::now();
        let mut through = self.through.lock().unwrap_or_else(PoisonError::into_inner);
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let begin = now.checked_sub(BURST).map_or(now, |earliest| through.max(earliest));
        *through = begin + takes;
        through.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_are_inside_than_let_in() {
        let gate = Gate::new(2);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _pass = gate.enter(&Cancel::new()).unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn whoever_waits_can_be_interrupted() {
        let gate = Gate::new(1);
        let _inside = gate.enter(&Cancel::new()).unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(gate.enter(&cancel).is_err());
    }

    #[test]
    fn bytes_are_spread_over_time() {
        let pace = Pace::new(Some(1000));
        let waits: Vec<f64> = (0..10).map(|_| pace.charge(1000).as_secs_f64()).collect();
        assert!(waits.windows(2).all(|pair| (pair[1] - pair[0] - 1.0).abs() < 0.1), "{waits:?}");
        assert!(Pace::new(None).charge(u64::MAX).is_zero());
    }
}
