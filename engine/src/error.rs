//! The error that every operation of the engine returns.
//!
//! Policy: the message says what was being done and to what (file, page, LSN, statement); the
//! advice says what the user can do; the source chain keeps the cause. The format crates have
//! typed errors of their own, which become sources here. [`ErrorKind`] is what a program
//! decides by: it maps to the exit code and to the `code` of the JSON output.

use std::fmt;

/// Result with the engine's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, as far as a caller needs to tell causes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Anything without a kind of its own: I/O errors, a full disk, broken output.
    Failed,
    /// The request itself is wrong: options, configuration, a target that is not empty.
    Usage,
    /// Damage was found: a corrupt page, a broken stream, an incomplete backup.
    Damage,
    /// The server refused or cannot be reached.
    Server,
    /// The store refused or cannot be reached.
    Store,
    /// A lock or time limit ran out.
    Timeout,
    /// Redo or binary log is missing in between: overwritten, truncated, not archived.
    Gap,
    /// Nothing matches the request.
    NothingMatches,
    /// Interrupted by the user.
    Interrupted,
}

impl ErrorKind {
    /// The exit code of the `haulout` command for this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Damage => 3,
            Self::Server => 4,
            Self::Store => 5,
            Self::Timeout => 6,
            Self::Gap => 7,
            Self::NothingMatches => 8,
            Self::Interrupted => 130,
        }
    }
}

/// An error of the engine: kind, message, advice, cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    advice: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error that says what was being done, and to what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), advice: None, source: None }
    }

    /// An I/O error, with the file and what was being done to it: `io("read", path, cause)`.
    pub fn io(doing: &str, path: impl AsRef<std::path::Path>, cause: std::io::Error) -> Self {
        Self::new(ErrorKind::Failed, format!("cannot {doing} {}", path.as_ref().display()))
            .caused_by(cause)
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Puts what was being attempted in front of the message; kind, advice and cause stay.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// What a program decides by.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What caused it, when that is known.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// It in one line, with what can be done.
    pub fn with_advice(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{self} ({advice})"),
            None => self.to_string(),
        }
    }

    /// What the user can do, when there is something.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }
}

/// The message and its causes, joined by colons, without the advice. Causes that the text before
/// already quotes are left out.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.message.clone();
        let mut cause: Option<&dyn std::error::Error> = self.source.as_deref().map(|s| s as _);
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The chain is already in the message.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_quotes_its_own_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot connect: {0}")]
        struct Outer(#[source] std::io::Error);

        let inner = std::io::Error::other("no such socket");
        let error = Error::new(ErrorKind::Server, "backup").caused_by(Outer(inner));
        assert_eq!(error.to_string(), "backup: cannot connect: no such socket");
    }
}
