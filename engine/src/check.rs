//! Whether a backup would succeed, and be of use: asked before one is taken.
//!
//! What can be tried is tried: the connection, the files, the store, with an object that is put, read
//! and removed again. What would make a backup fail is bad; what would make it worth less is a note.
//! Nothing of the server is changed, and no lock is taken.

mod logs;
mod server;
mod store;

pub use server::check_server;
pub use store::{check_repository, check_server_of};

use crate::{Error, ErrorKind};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// A backup succeeds, but somebody should know; that of a gap has its exit code.
    Note,
    /// A backup fails, or is of no use.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// What it is about.
    pub what: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What a backup would fail with; of a note, what the check ends with.
    #[serde(skip)]
    pub kind: Option<ErrorKind>,
}

impl Finding {
    fn good(what: &str, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state: State::Good,
            found: found.into(),
            advice: None,
            kind: None,
        }
    }

    fn note(what: &str, found: impl Into<String>, advice: &str) -> Self {
        let advice = Some(advice.to_owned());
        Self { what: what.into(), state: State::Note, found: found.into(), advice, kind: None }
    }

    /// What a backup would fail with.
    pub fn bad(what: &str, error: &Error) -> Self {
        Self {
            what: what.into(),
            state: State::Bad,
            found: error.to_string(),
            advice: error.advice().map(str::to_owned),
            kind: Some(error.kind()),
        }
    }
}

/// The findings of a check.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CheckSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Whether nothing is bad.
    pub good: bool,
    /// All that was looked at, in this order.
    pub findings: Vec<Finding>,
}

impl CheckSummary {
    /// Of these findings.
    pub fn new(findings: Vec<Finding>) -> Self {
        let good = findings.iter().all(|finding| finding.state != State::Bad);
        Self { format: 1, good, findings }
    }

    /// What the first bad thing would make a backup fail with; if nothing is bad, what there is besides.
    pub fn failure(&self) -> Option<ErrorKind> {
        let bad = self.findings.iter().find(|finding| finding.state == State::Bad);
        match bad {
            Some(bad) => Some(bad.kind.unwrap_or(ErrorKind::Failed)),
            None => self.findings.iter().find_map(|finding| finding.kind),
        }
    }
}
