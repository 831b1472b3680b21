//! Rate and remaining time of a phase, from the progress of the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use engine::Phase;

use super::phase_words;
use crate::duration;
use crate::size::Size;

/// How far back the rate looks: long enough to be steady, short enough to be true.
const WINDOW: Duration = Duration::from_secs(10);

/// Least distance of two samples, which bounds their number.
const GRAIN: Duration = Duration::from_millis(100);

/// Progress of the current phase.
#[derive(Debug, Default)]
pub struct Meter {
    phase: Option<Phase>,
    /// When how many bytes were done; oldest first.
    samples: VecDeque<(Instant, u64)>,
    done: u64,
    total: Option<u64>,
}

impl Meter {
    /// Takes note of progress. Returns whether a new phase has begun.
    pub fn record(&mut self, now: Instant, phase: Phase, done: u64, total: Option<u64>) -> bool {
        let changed = self.phase != Some(phase);
        if changed {
            self.phase = Some(phase);
            self.samples.clear();
        }
        (self.done, self.total) = (done, total);
        if self.samples.back().is_none_or(|(last, _)| now.duration_since(*last) >= GRAIN) {
            self.samples.push_back((now, done));
        }
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|(first, _)| now.duration_since(*first) > WINDOW)
        {
            self.samples.pop_front();
        }
        changed
    }

    /// Bytes per second over the window, once there is something to measure.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        let (start, before) = *self.samples.front()?;
        let seconds = now.duration_since(start).as_secs_f64();
        (seconds >= 0.5).then(|| self.done.saturating_sub(before) as f64 / seconds)
    }

    /// How long the rest takes at the current rate.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let left = self.total?.checked_sub(self.done)? as f64;
        let rate = self.rate(now).filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(left / rate).ok()
    }

    /// One line: `Copying: 1.2 GiB of 2.9 GiB (41%), 817 MiB/s, about 2 s left`.
    pub fn line(&self, now: Instant) -> String {
        let Some(phase) = self.phase else { return String::new() };
        let mut line = format!("{}: {}", phase_words(phase), Size(self.done));
        if let Some(total) = self.total.filter(|total| *total > 0) {
            let percent = u128::from(self.done) * 100 / u128::from(total);
            line += &format!(" of {} ({}%)", Size(total), percent.min(100));
        }
        if let Some(rate) = self.rate(now) {
            line += &format!(", {}/s", Size(rate as u64));
        }
        if let Some(left) = self.remaining(now).filter(|left| *left >= Duration::from_secs(1)) {
            let whole = Duration::from_secs(left.as_secs_f64().round() as u64);
            line += &format!(", about {} left", duration::show_whole(whole));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_rate_and_rest() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = Meter::default();
        assert!(meter.record(at(0), Phase::Copy, 0, Some(100 << 20)));
        assert_eq!(meter.line(at(0)), "Copying: 0 B of 100 MiB (0%)");
        assert!(!meter.record(at(2000), Phase::Copy, 20 << 20, Some(100 << 20)));
        let line = "Copying: 20.0 MiB of 100 MiB (20%), 10.0 MiB/s, about 8 s left";
        assert_eq!(meter.line(at(2000)), line);
    }

    #[test]
    fn the_rate_forgets_what_is_long_ago() {
        let start = Instant::now();
        let mut meter = Meter::default();
        for second in 0..60 {
            let done = if second < 30 { 0 } else { (second - 30) << 20 };
            meter.record(start + Duration::from_secs(second), Phase::Copy, done, None);
        }
        let rate = meter.rate(start + Duration::from_secs(59)).unwrap_or_default();
        assert!((rate - f64::from(1 << 20)).abs() < 1.0, "{rate}");
        assert!(meter.samples.len() <= 12);
    }

    #[test]
    fn a_new_phase_starts_anew_and_strange_totals_are_harmless() {
        let now = Instant::now();
        let mut meter = Meter::default();
        assert_eq!(meter.line(now), "");
        meter.record(now, Phase::ReadRedo, 5, None);
        assert!(meter.record(now, Phase::ApplyRedo, 9, Some(3)));
        let later = now + Duration::from_secs(1);
        assert_eq!(meter.line(later), "Applying redo: 9 B of 3 B (100%), 0 B/s");
        meter.record(later, Phase::ApplyRedo, 0, Some(0));
        assert_eq!(meter.line(later), "Applying redo: 0 B, 0 B/s");
    }
}
