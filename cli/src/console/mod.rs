//! How an operation looks from outside: progress and log lines while it runs, a summary or an
//! error at its end.
//!
//! Words go to standard error, documents and data to standard output; when data takes the
//! standard output, the document goes to standard error too. A reader of standard error that
//! went away never fails an operation.

mod json;
mod lines;
mod meter;
mod terminal;

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use engine::{Error, ErrorKind, Phase, Reporter, Result};
use serde_json::json;

use crate::duration;

/// Version of the shape of error documents and event lines. Summaries carry their own.
pub const FORMAT: u32 = 1;

/// How much is told, and in which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Console {
    /// Print one JSON document on standard output at the end, and one JSON event per line on
    /// standard error while running
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Say nothing but warnings and errors
    #[arg(long, short, global = true, help_heading = "Output", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Name every file
    #[arg(long, short, global = true, help_heading = "Output")]
    pub verbose: bool,
    /// Whether the command's data goes to standard output.
    #[arg(skip)]
    pub stdout_is_data: bool,
}

/// A finished operation: what programs read and what people read.
pub struct Outcome {
    /// The engine's summary.
    pub document: serde_json::Value,
    /// The same in plain words, a line each.
    pub words: Vec<String>,
    /// What people asked for, a line each: data, not words about it.
    pub data: Vec<String>,
    /// What the command found, if its exit code is to say so.
    pub found: Option<ErrorKind>,
}

impl Outcome {
    /// An outcome of a summary and its description.
    pub fn new(summary: &impl serde::Serialize, words: Vec<String>) -> Result<Self> {
        let document = serde_json::to_value(summary).map_err(|e| {
            Error::new(ErrorKind::Failed, "cannot write the summary as JSON").caused_by(e)
        })?;
        Ok(Self { document, words, data: Vec::new(), found: None })
    }

    /// Adds to the document.
    pub fn add(&mut self, name: &str, more: &impl serde::Serialize) -> Result<()> {
        let more = serde_json::to_value(more).map_err(|e| {
            Error::new(ErrorKind::Failed, "cannot write the summary as JSON").caused_by(e)
        })?;
        if let Some(document) = self.document.as_object_mut() {
            document.insert(name.to_owned(), more);
        }
        Ok(())
    }

    /// An outcome of a summary that people read as a table or a document.
    pub fn data(summary: &impl serde::Serialize, data: Vec<String>) -> Result<Self> {
        Ok(Self { data, ..Self::new(summary, Vec::new())? })
    }
}

impl Console {
    /// Who listens while an operation runs.
    pub fn reporter(&self) -> Arc<dyn Reporter> {
        if self.json {
            Arc::new(json::Json::new(*self))
        } else if std::io::stderr().is_terminal() && !self.quiet {
            Arc::new(terminal::Terminal::new(self.verbose))
        } else {
            Arc::new(lines::Lines::new(*self))
        }
    }

    /// Tells how a command ended.
    pub fn finish(&self, command: &str, outcome: &Outcome) -> Result<()> {
        if self.json {
            let mut document = json!({ "command": command });
            if let (Some(all), Some(summary)) =
                (document.as_object_mut(), outcome.document.as_object())
            {
                all.extend(summary.clone());
            }
            return self.print_document(&document);
        }
        if !outcome.data.is_empty() {
            let mut out = std::io::stdout().lock();
            outcome
                .data
                .iter()
                .try_for_each(|line| writeln!(out, "{line}"))
                .and_then(|()| out.flush())
                .map_err(|e| Error::io("write to", "standard output", e))?;
        }
        if !self.quiet {
            for line in &outcome.words {
                say(line);
            }
        }
        Ok(())
    }

    /// Tells why a command failed, and what the user can do.
    pub fn fail(&self, command: Option<&str>, error: &Error) {
        if self.json {
            let document = json!({
                "format": FORMAT,
                "command": command,
                "error": {
                    "code": error.kind(),
                    "message": error.to_string(),
                    "advice": error.advice(),
                },
            });
            if self.print_document(&document).is_ok() {
                return;
            }
        }
        say(&format!("error: {error}"));
        if let Some(advice) = error.advice() {
            say(&format!("help: {advice}"));
        }
    }

    /// Prints the one document of a run where documents go.
    fn print_document(&self, document: &serde_json::Value) -> Result<()> {
        if self.stdout_is_data {
            say(&document.to_string());
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{document}")
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("write to", "standard output", e))
    }
}

/// A line on standard error. Nobody may be reading any more; that fails nothing.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Local time to the second, as log lines carry it.
pub fn timestamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// What a phase does, as people read it.
fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Copy => "Copying",
        Phase::ReadRedo => "Reading redo",
        Phase::ApplyRedo => "Applying redo",
        Phase::Extract => "Unpacking",
        Phase::Place => "Placing",
        Phase::Replay => "Replaying",
    }
}

/// A lock stage, as people read it.
fn stage_words(name: &str, waited: std::time::Duration) -> String {
    format!("Lock stage {name} reached after {}", duration::show(waited))
}
