//! For log files: lines with a time, and progress now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Event, Reporter};

use super::meter::Meter;
use super::{Console, say, stage_words, timestamp};

/// Least time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Writes on standard error.
pub struct Lines {
    console: Console,
    state: Mutex<State>,
}

struct State {
    meter: Meter,
    told: Instant,
}

impl Lines {
    /// Lines as quiet or verbose as the console says.
    pub fn new(console: Console) -> Self {
        Self { console, state: Mutex::new(State { meter: Meter::default(), told: Instant::now() }) }
    }

    /// What to write for an event, if anything.
    fn render(&self, event: &Event, now: Instant) -> Option<String> {
        if self.console.quiet && !matches!(event, Event::Warning(_)) {
            return None;
        }
        match event {
            Event::Progress { phase, done, total } => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.meter.record(now, *phase, *done, *total);
                if now.duration_since(state.told) < PROGRESS {
                    return None;
                }
                state.told = now;
                Some(state.meter.line(now))
            }
            Event::File { verb, path, .. } => {
                self.console.verbose.then(|| format!("{verb} {path}"))
            }
            Event::Stage { name, waited } => Some(stage_words(name, *waited)),
            Event::Info(text) => Some(text.clone()),
            Event::Warning(text) => Some(format!("warning: {text}")),
            _ => None,
        }
    }
}

impl Reporter for Lines {
    fn event(&self, event: &Event) {
        if let Some(text) = self.render(event, Instant::now()) {
            say(&format!("{} {text}", timestamp()));
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Phase;

    use super::*;

    #[test]
    fn progress_comes_every_ten_seconds() {
        let lines = Lines::new(Console::default());
        let start = Instant::now();
        let told = (0..350u32)
            .filter_map(|step| {
                let event = Event::Progress { phase: Phase::Copy, done: 1, total: None };
                lines.render(&event, start + step * Duration::from_millis(100))
            })
            .count();
        assert_eq!(told, 3);
    }

    #[test]
    fn quiet_leaves_warnings() {
        let lines = Lines::new(Console { quiet: true, ..Console::default() });
        let now = Instant::now();
        assert_eq!(lines.render(&Event::Info("x".to_string()), now), None);
        let warning = lines.render(&Event::Warning("x".to_string()), now);
        assert_eq!(warning.as_deref(), Some("warning: x"));
    }
}
