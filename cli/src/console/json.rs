//! For programs: one JSON object per line on standard error.
//!
//! Every line has `format`, `time` (RFC 3339, UTC) and `event`; the other keys depend on the
//! event. Readers ignore keys and events that they do not know.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Event, Phase, Reporter};
use serde_json::{Value, json};

use super::{Console, FORMAT, say};

/// Least time between two progress events of one phase.
const PROGRESS: Duration = Duration::from_secs(1);

/// Writes on standard error.
pub struct Json {
    console: Console,
    told: Mutex<Option<(Phase, Instant)>>,
}

impl Json {
    /// Event lines as quiet or verbose as the console says.
    pub fn new(console: Console) -> Self {
        Self { console, told: Mutex::new(None) }
    }

    /// The line for an event, without its frame, if it is to be told.
    fn render(&self, event: &Event, now: Instant) -> Option<Value> {
        if self.console.quiet && !matches!(event, Event::Warning(_)) {
            return None;
        }
        match event {
            Event::Progress { phase, done, total } => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                let recent = told
                    .is_some_and(|(last, at)| last == *phase && now.duration_since(at) < PROGRESS);
                if recent {
                    return None;
                }
                *told = Some((*phase, now));
                Some(json!({ "event": "progress", "phase": phase, "done": done, "total": total }))
            }
            Event::File { worker, verb, path } => self
                .console
                .verbose
                .then(|| json!({ "event": "file", "worker": worker, "verb": verb, "path": path })),
            Event::Stage { name, waited } => Some(
                json!({ "event": "stage", "name": name, "waited_seconds": waited.as_secs_f64() }),
            ),
            Event::Info(text) => Some(json!({ "event": "info", "message": text })),
            Event::Warning(text) => Some(json!({ "event": "warning", "message": text })),
            _ => None,
        }
    }
}

impl Reporter for Json {
    fn event(&self, event: &Event) {
        let Some(mut line) = self.render(event, Instant::now()) else { return };
        if let Some(keys) = line.as_object_mut() {
            keys.insert("format".to_string(), json!(FORMAT));
            keys.insert("time".to_string(), json!(jiff::Timestamp::now().to_string()));
        }
        say(&line.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_names_and_keys() {
        let json = Json::new(Console { verbose: true, ..Console::default() });
        let now = Instant::now();
        let file = Event::File { worker: 2, verb: "Copying", path: "a\"b".to_string() };
        let told = json.render(&file, now).map(|line| line.to_string()).unwrap_or_default();
        assert_eq!(told, r#"{"event":"file","path":"a\"b","verb":"Copying","worker":2}"#);
        let stage = Event::Stage { name: "FLUSH", waited: Duration::from_millis(1500) };
        let told = json.render(&stage, now).unwrap_or_default();
        assert_eq!(told, json!({ "event": "stage", "name": "FLUSH", "waited_seconds": 1.5 }));
    }

    #[test]
    fn progress_comes_once_per_second_and_phase() {
        let json = Json::new(Console::default());
        let now = Instant::now();
        let told = |phase, millis| {
            let event = Event::Progress { phase, done: 1, total: Some(2) };
            json.render(&event, now + Duration::from_millis(millis)).is_some()
        };
        assert!(told(Phase::ReadRedo, 0));
        assert!(!told(Phase::ReadRedo, 900));
        assert!(told(Phase::ApplyRedo, 950));
        assert!(told(Phase::ApplyRedo, 1950));
    }
}
