//! The stock tool's log lines on standard error: `[TT] YYYY-MM-DD HH:MM:SS text`, with the
//! worker's number in front. Scripts search them.

use engine::{Event, Reporter};

use crate::console;
use crate::duration;

/// A line of a worker; the main thread is 0.
pub fn line(worker: usize, text: &str) {
    console::say(&format!("[{worker:02}] {} {text}", console::timestamp()));
}

/// A line of the main thread that tells why the run failed.
pub fn fatal(text: &str) {
    console::say(&format!("[00] FATAL ERROR: {} {text}", console::timestamp()));
}

/// Reports an operation in this shape.
pub struct StockLog;

/// The line for an event, with its worker, if it is told.
fn render(event: &Event) -> Option<(usize, String)> {
    match event {
        // Of these the stock tool ends each with an empty line.
        Event::File { worker, verb: verb @ "decompressing", path } => {
            Some((*worker, format!("{verb} ./{path}\n")))
        }
        Event::File { worker, verb, path } => Some((*worker, format!("{verb} ./{path}"))),
        Event::Stage { name, waited } => {
            Some((0, format!("BACKUP STAGE {name} (waited {})", duration::show(*waited))))
        }
        Event::Info(text) => Some((0, text.clone())),
        Event::Warning(text) => Some((0, format!("Warning: {text}"))),
        _ => None,
    }
}

impl Reporter for StockLog {
    fn event(&self, event: &Event) {
        if let Some((worker, text)) = render(event) {
            line(worker, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_the_stock_tool_names_them() {
        let file = Event::File { worker: 3, verb: "Copying", path: "d/t.ibd".to_string() };
        assert_eq!(render(&file), Some((3, "Copying ./d/t.ibd".to_string())));
        let warning = Event::Warning("x".to_string());
        assert_eq!(render(&warning), Some((0, "Warning: x".to_string())));
    }
}
