//! Why a statement or a connection failed, in words that help.
//!
//! The server's own error number and text are always part of the message; the advice says what
//! the user can do about it.

use std::io;
use std::time::Duration;

use super::connect::{ConnectOptions, Endpoint};
use super::session::{RESULT_MAX, Wait};
use crate::{Error, ErrorKind};

const LOST: &str = "lost the connection to the server";

/// Error numbers of the server that the engine acts upon.
pub mod code {
    /// `ER_ACCESS_DENIED_ERROR`.
    pub const ACCESS_DENIED: u16 = 1045;
    /// `ER_UNKNOWN_TABLE`.
    pub const UNKNOWN_TABLE: u16 = 1109;
    /// `ER_UNKNOWN_SYSTEM_VARIABLE`.
    pub const UNKNOWN_VARIABLE: u16 = 1193;
    /// `ER_LOCK_WAIT_TIMEOUT`.
    pub const LOCK_WAIT_TIMEOUT: u16 = 1205;
    /// `ER_LOCK_DEADLOCK`.
    pub const DEADLOCK: u16 = 1213;
    /// `ER_SPECIFIC_ACCESS_DENIED_ERROR`.
    pub const PRIVILEGE_MISSING: u16 = 1227;
    /// `ER_OPTION_PREVENTS_STATEMENT`.
    pub const READ_ONLY: u16 = 1290;
}

/// An error that a server answered with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ERROR {code} ({state}): {message}")]
pub struct ServerError {
    /// Its number.
    pub code: u16,
    /// The standard's number for it.
    pub state: String,
    /// The server's words.
    pub message: String,
}

/// Why a statement gave no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server answered with an error; the connection lives.
    Server(ServerError),
    /// The connection broke.
    Lost(io::Error),
    /// Something else, in words of its own.
    Other(Error),
    /// The session was given up before.
    Closed,
    /// The deadline passed.
    Deadline(Duration),
    /// The cancel flag was raised.
    Cancelled,
    /// The result is larger than [`RESULT_MAX`].
    TooLarge,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Where nothing more is known of what was being done.
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let server = |message: String| Self::new(ErrorKind::Server, message);
        match failure {
            Failure::Server(error) => server("the server refused".to_owned()).caused_by(error),
            Failure::Lost(error) => server(LOST.to_owned()).caused_by(error),
            Failure::Other(error) => error,
            Failure::Closed => server("the connection to the server is closed".to_owned()),
            Failure::Deadline(after) => {
                Self::new(ErrorKind::Timeout, format!("no answer within {after:?}"))
            }
            Failure::Cancelled => Self::new(ErrorKind::Interrupted, "interrupted"),
            Failure::TooLarge => server(format!("an answer is larger than {RESULT_MAX} bytes")),
        }
    }
}

impl Failure {
    /// The server's error number, when it was the server that refused.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Server(error) => Some(error.code),
            _ => None,
        }
    }

    /// The error for the user: what was being done, with which statement, and why it failed.
    pub(crate) fn into_error(self, statement: &str, wait: Wait<'_>) -> Error {
        let doing = wait.reason;
        match self {
            Self::Server(error) => {
                let kind = match error.code {
                    code::LOCK_WAIT_TIMEOUT => ErrorKind::Timeout,
                    _ => ErrorKind::Server,
                };
                let advice = advice_on(&error);
                let message = format!("the server refused '{statement}' while {doing}");
                let described = Error::new(kind, message).caused_by(error);
                match advice {
                    Some(advice) => described.advise(advice),
                    None => described,
                }
            }
            Self::Other(error) => error.context(format!("{doing} ('{statement}')")),
            Self::Lost(error) => {
                Error::new(ErrorKind::Server, format!("{LOST} while {doing} ('{statement}')"))
                    .caused_by(error)
                    .advise(
                        "look at the server's error log: it may have been stopped or have crashed",
                    )
            }
            Self::Closed => Error::new(
                ErrorKind::Server,
                format!("the connection to the server is closed (wanted: {doing})"),
            ),
            Self::Deadline(after) => Error::new(
                ErrorKind::Timeout,
                format!("no answer within {after:?} while {doing} ('{statement}')"),
            ),
            Self::Cancelled => {
                Error::new(ErrorKind::Interrupted, format!("interrupted while {doing}"))
            }
            Self::TooLarge => Error::new(
                ErrorKind::Server,
                format!("the answer to '{statement}' is larger than {RESULT_MAX} bytes"),
            ),
        }
    }
}

/// What the user can do about an error of the server.
fn advice_on(error: &ServerError) -> Option<String> {
    match error.code {
        code::ACCESS_DENIED => Some(
            "check user and password (--user, option file group [client] or [haulout], \
             HAULOUT_PASSWORD), and that no anonymous account ''@'localhost' hides the account"
                .to_owned(),
        ),
        1142 | 1143 | 1044 | code::PRIVILEGE_MISSING => {
            Some("grant the privilege that the message names to the backup account".to_owned())
        }
        1040 | 1203 => Some("raise max_connections or close idle connections".to_owned()),
        1130 => Some("create an account for this host, or connect through the socket".to_owned()),
        3159 => Some("the account requires TLS: give --ssl or --ssl-ca".to_owned()),
        code::LOCK_WAIT_TIMEOUT => {
            Some("look for long statements in SHOW FULL PROCESSLIST, or wait longer".to_owned())
        }
        _ => None,
    }
}

/// What is said when the two ends do not offer the same.
const NOTHING_IN_COMMON: [&str; 3] =
    ["ProtocolVersion", "HandshakeFailure", "peer is incompatible"];

/// The error of a connection that did not come about.
pub(crate) fn connect_error(
    failure: Failure,
    options: &ConnectOptions,
    endpoint: &Endpoint,
) -> Error {
    let message = format!("cannot connect to the server at {endpoint}");
    match failure {
        Failure::Cancelled => Error::new(ErrorKind::Interrupted, "interrupted while connecting"),
        Failure::Deadline(after) => {
            Error::new(ErrorKind::Timeout, format!("{message} within {after:?}"))
                .advise("check that the server runs and answers there")
        }
        Failure::Server(error) => {
            let user = options.user_name().unwrap_or_default();
            let advice = advice_on(&error);
            let refused = Error::new(ErrorKind::Server, format!("{message} as user '{user}'"))
                .caused_by(error);
            match advice {
                Some(advice) => refused.advise(advice),
                None => refused,
            }
        }
        Failure::Lost(error) => {
            let text = error.to_string();
            let advice = match endpoint {
                _ if text.contains("certificate") => {
                    "the server's certificate must be signed by an authority of --ssl-ca or \
                     --ssl-capath and name the host as subject alternative name, must not be \
                     revoked, and must have a fingerprint of --ssl-fp or --ssl-fplist, where \
                     these are given; where revoked ones are named, each authority in its chain \
                     needs a list that is not too old"
                }
                _ if NOTHING_IN_COMMON.iter().any(|words| text.contains(words)) => {
                    "both ends need a version of TLS and a cipher in common: compare tls_version \
                     and ssl_cipher of the server with --tls-version and --ssl-cipher here"
                }
                Endpoint::Socket(_) => {
                    "check that the server runs and that --socket names the server's socket \
                     (SELECT @@socket)"
                }
                Endpoint::Tcp(..) => {
                    "check that the server runs, listens on that port (skip_networking, \
                     bind_address) and that nothing between filters it"
                }
            };
            Error::new(ErrorKind::Server, message).caused_by(error).advise(advice)
        }
        Failure::Other(error) => error.context(message),
        Failure::Closed | Failure::TooLarge => Error::new(ErrorKind::Server, message),
    }
}
