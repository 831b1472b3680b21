//! For people at a terminal: one line of progress that stays at the bottom.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Event, Reporter};

use super::meter::Meter;
use super::stage_words;

/// Least time between two drawings of the progress line: five per second.
const REDRAW: Duration = Duration::from_millis(200);

/// Moves to the start of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Draws on standard error.
pub struct Terminal {
    verbose: bool,
    /// Columns of the terminal when the operation began.
    width: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    meter: Meter,
    drawn: Option<Instant>,
    /// Whether the cursor stands behind a progress line.
    line_open: bool,
}

impl Terminal {
    /// A terminal without progress line yet; `verbose` names every file.
    pub fn new(verbose: bool) -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        // Some terminals do not know their size and say 0.
        let width = size.map(|size| size.ws_col).ok().filter(|width| *width > 0).unwrap_or(80);
        Self { verbose, width: width.into(), state: Mutex::default() }
    }

    /// A line cut to the terminal's width: one that wraps could not be cleared again.
    fn fitting(&self, line: String) -> String {
        match line.char_indices().nth(self.width.saturating_sub(1)) {
            Some((end, _)) => line[..end].to_string(),
            None => line,
        }
    }

    /// What to write for an event, if anything.
    fn render(&self, state: &mut State, event: &Event, now: Instant) -> Option<String> {
        let text = match event {
            Event::Progress { phase, done, total } => {
                let changed = state.meter.record(now, *phase, *done, *total);
                let due = state.drawn.is_none_or(|drawn| now.duration_since(drawn) >= REDRAW);
                if !due && !changed {
                    return None;
                }
                state.drawn = Some(now);
                state.line_open = true;
                return Some(format!("{CLEAR}{}", self.fitting(state.meter.line(now))));
            }
            Event::File { verb, path, .. } => {
                if !self.verbose {
                    return None;
                }
                format!("{verb} {path}")
            }
            Event::Stage { name, waited } => stage_words(name, *waited),
            Event::Info(text) => text.clone(),
            Event::Warning(text) => format!("warning: {text}"),
            _ => return None,
        };
        let clear = if state.line_open { CLEAR } else { "" };
        let progress =
            if state.line_open { self.fitting(state.meter.line(now)) } else { String::new() };
        Some(format!("{clear}{text}\n{progress}"))
    }
}

impl Reporter for Terminal {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = self.render(&mut state, event, Instant::now()) {
            let mut err = std::io::stderr().lock();
            let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        }
    }
}

/// The progress line goes when the operation ends, so that the summary starts on a clean line.
impl Drop for Terminal {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.line_open {
            let _ = write!(std::io::stderr().lock(), "{CLEAR}");
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Phase;

    use super::*;

    #[test]
    fn at_most_five_drawings_per_second() {
        let terminal = Terminal::new(false);
        let mut state = State::default();
        let start = Instant::now();
        let drawn = (0..100u64)
            .filter_map(|step| {
                let event = Event::Progress { phase: Phase::Copy, done: step, total: None };
                terminal.render(&mut state, &event, start + Duration::from_millis(10 * step))
            })
            .count();
        assert_eq!(drawn, 5);
    }

    #[test]
    fn words_go_above_the_progress_line() {
        let terminal = Terminal::new(false);
        let mut state = State::default();
        let now = Instant::now();
        let info = Event::Info("hello".to_string());
        assert_eq!(terminal.render(&mut state, &info, now).as_deref(), Some("hello\n"));
        let progress = Event::Progress { phase: Phase::Extract, done: 1, total: None };
        terminal.render(&mut state, &progress, now);
        let text = format!("{CLEAR}hello\nUnpacking: 1 B");
        assert_eq!(terminal.render(&mut state, &info, now), Some(text));
    }

    #[test]
    fn the_progress_line_never_wraps() {
        let terminal = Terminal { verbose: false, width: 12, state: Mutex::default() };
        let event = Event::Progress { phase: Phase::Copy, done: 5, total: Some(10) };
        let drawn = terminal.render(&mut State::default(), &event, Instant::now());
        assert_eq!(drawn, Some(format!("{CLEAR}Copying: 5 ")));
        assert_eq!(terminal.fitting("é".repeat(20)), "é".repeat(11));
    }

    #[test]
    fn files_are_named_only_when_verbose() {
        let file = Event::File { worker: 1, verb: "Copying", path: "d/t.ibd".to_string() };
        let now = Instant::now();
        let quiet = Terminal::new(false).render(&mut State::default(), &file, now);
        let verbose = Terminal::new(true).render(&mut State::default(), &file, now);
        assert_eq!((quiet, verbose.as_deref()), (None, Some("Copying d/t.ibd\n")));
    }
}
