//! One connection to the server, blocking, with deadlines and cancelling.
//!
//! Promises: every wait has a deadline and a reason; a raised [`Cancel`] is noticed within a
//! tenth of a second. A statement that is given up, for whichever reason, takes its connection
//! with it: the server is told to kill it (over a second connection, best effort) and the
//! socket is closed, so that whatever locks it held are released. After that every use of the
//! session fails. A result is bounded in memory.
//!
//! A session runs its own small runtime and must not be used from inside another one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Value};
use tokio::runtime::Runtime;

use super::connect::{ConnectOptions, Endpoint};
use crate::{Cancel, Error, ErrorKind, Result};

/// Sent first on every connection: a backup may wait longer than the server's defaults allow.
const FIRST_STATEMENT: &str = "SET SESSION wait_timeout=2147483, max_statement_time=0";
/// The same number, told to the client library, which would ask the server otherwise.
const WAIT_TIMEOUT: usize = 2_147_483;
/// Largest packet that is accepted from the server.
const PACKET_MAX: usize = 64 << 20;
/// Largest result, in bytes of values, that is held in memory.
const RESULT_MAX: usize = 512 << 20;
/// How often a wait looks at the cancel flag.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);
/// How long connecting may take by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the attempt to kill a statement that was given up may take.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an orderly goodbye may take.
const QUIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Error numbers of the server that the engine acts upon.
pub mod code {
    /// `ER_ACCESS_DENIED_ERROR`.
    pub const ACCESS_DENIED: u16 = 1045;
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

/// How long to wait for an answer, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// Longest time to wait.
    pub deadline: Duration,
    /// What is being waited for, as a continuation of "while": `reading the server's variables`.
    pub reason: &'a str,
}

impl<'a> Wait<'a> {
    /// A wait for something that takes no time on a healthy server: 30 seconds.
    pub const fn short(reason: &'a str) -> Self {
        Self { deadline: Duration::from_secs(30), reason }
    }
}

/// A row of a result: values by column name.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Option<Vec<u8>>>,
}

impl Row {
    /// The bytes of a column; `None` when it is NULL or not there. Names ignore case.
    pub fn bytes(&self, column: &str) -> Option<&[u8]> {
        let index = self.columns.iter().position(|name| name.eq_ignore_ascii_case(column))?;
        self.at(index)
    }

    /// The bytes of the column with this index.
    pub fn at(&self, index: usize) -> Option<&[u8]> {
        self.values.get(index)?.as_deref()
    }

    /// A column as text; what is not UTF-8 shows as replacement characters.
    pub fn text(&self, column: &str) -> Option<Cow<'_, str>> {
        self.bytes(column).map(String::from_utf8_lossy)
    }

    /// A column as an unsigned number.
    pub fn number(&self, column: &str) -> Option<u64> {
        self.text(column)?.parse().ok()
    }
}

/// One connection to the server.
pub struct Session {
    runtime: Runtime,
    conn: Option<Conn>,
    options: ConnectOptions,
    cancel: Cancel,
    id: u64,
}

/// Why a statement gave no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server answered with an error; the connection lives.
    Server(mysql_async::ServerError),
    /// The connection broke or the answer made no sense.
    Lost(mysql_async::Error),
    /// The session was given up before.
    Closed,
    /// The deadline passed.
    Deadline(Duration),
    /// The cancel flag was raised.
    Cancelled,
    /// The result is larger than [`RESULT_MAX`].
    TooLarge,
}

impl From<mysql_async::Error> for Failure {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(error) => Self::Server(error),
            other => Self::Lost(other),
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
            Self::Lost(error) => Error::new(
                ErrorKind::Server,
                format!("lost the connection to the server while {doing} ('{statement}')"),
            )
            .caused_by(error)
            .advise("look at the server's error log: it may have been stopped or have crashed"),
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
fn advice_on(error: &mysql_async::ServerError) -> Option<String> {
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

impl Session {
    /// Connects and logs in.
    pub fn connect(options: &ConnectOptions, cancel: &Cancel) -> Result<Self> {
        cancel.check()?;
        let endpoint = options.endpoint();
        let timeout = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let client = client_options(options, &endpoint)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::new(ErrorKind::Failed, "cannot start a runtime").caused_by(e))?;
        let conn = runtime
            .block_on(unless_interrupted(cancel, timeout, async {
                Conn::new(client).await.map_err(Failure::from)
            }))
            .map_err(|failure| connect_error(failure, options, &endpoint))?;
        let mut session = Self {
            runtime,
            conn: Some(conn),
            options: options.clone(),
            cancel: cancel.clone(),
            id: 0,
        };
        // The number in the handshake may be that of a proxy; only the server's own is good for KILL.
        let wait = Wait::short("asking for the connection's number");
        let rows = session.query("SELECT CONNECTION_ID() AS id", wait)?;
        session.id = rows.first().and_then(|row| row.number("id")).unwrap_or(0);
        Ok(session)
    }

    /// A second session to the same server, with the same account and cancel flag.
    pub fn another(&self) -> Result<Self> {
        Self::connect(&self.options, &self.cancel)
    }

    /// The server's number of this connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the session can still be used.
    pub fn is_open(&self) -> bool {
        self.conn.is_some()
    }

    /// Runs a statement and returns its rows.
    pub fn query(&mut self, statement: &str, wait: Wait<'_>) -> Result<Vec<Row>> {
        self.try_query(statement, wait).map_err(|failure| failure.into_error(statement, wait))
    }

    /// Runs a statement that returns nothing of interest.
    pub fn execute(&mut self, statement: &str, wait: Wait<'_>) -> Result<()> {
        self.query(statement, wait).map(drop)
    }

    /// The first column of the first row, when there is one and it is not NULL.
    pub fn value(&mut self, statement: &str, wait: Wait<'_>) -> Result<Option<String>> {
        let rows = self.query(statement, wait)?;
        let first = rows.first().and_then(|row| row.at(0));
        Ok(first.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    /// All global variables of the server, names in lower case.
    pub fn variables(&mut self) -> Result<Variables> {
        let wait = Wait::short("reading the server's variables");
        let rows = self.query("SHOW GLOBAL VARIABLES", wait)?;
        let pairs = rows.iter().filter_map(|row| {
            let name = String::from_utf8_lossy(row.at(0)?).to_ascii_lowercase();
            Some((name, String::from_utf8_lossy(row.at(1).unwrap_or_default()).into_owned()))
        });
        Ok(Variables(pairs.collect()))
    }

    /// Runs a statement; the failure keeps the server's error number.
    pub(crate) fn try_query(
        &mut self,
        statement: &str,
        wait: Wait<'_>,
    ) -> Result<Vec<Row>, Failure> {
        if self.cancel.is_cancelled() {
            // An idle connection that holds locks releases them by being closed.
            self.conn = None;
            return Err(Failure::Cancelled);
        }
        let conn = self.conn.as_mut().ok_or(Failure::Closed)?;
        let outcome = self.runtime.block_on(unless_interrupted(
            &self.cancel,
            wait.deadline,
            collect(conn, statement),
        ));
        match outcome {
            Ok(rows) => Ok(rows),
            Err(failure @ Failure::Server(_)) => Err(failure),
            Err(failure) => {
                self.conn = None;
                if matches!(failure, Failure::Deadline(_) | Failure::Cancelled) {
                    self.kill();
                }
                Err(failure)
            }
        }
    }

    /// Tells the server to end this connection, which may still be waiting for a lock there.
    fn kill(&self) {
        let Ok(client) = client_options(&self.options, &self.options.endpoint()) else { return };
        let statement = format!("KILL CONNECTION {}", self.id);
        let kill = async {
            let mut conn = Conn::new(client).await?;
            conn.query_drop(statement).await?;
            conn.disconnect().await
        };
        // Best effort: the closed socket ends the connection too, only later.
        let _ = self.runtime.block_on(async { tokio::time::timeout(KILL_TIMEOUT, kill).await });
    }

    /// Says goodbye to the server.
    pub fn close(mut self) {
        self.quit();
    }

    fn quit(&mut self) {
        if let Some(conn) = self.conn.take() {
            // A goodbye that fails leaves a closed socket, which means the same.
            let _ = self
                .runtime
                .block_on(async { tokio::time::timeout(QUIT_TIMEOUT, conn.disconnect()).await });
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.quit();
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("options", &self.options).finish()
    }
}

/// Variables of the server by lower-case name.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a variable that every MariaDB server has.
    pub fn require(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| {
            Error::new(ErrorKind::Server, format!("the server has no variable '{name}'"))
        })
    }

    /// A variable as a number.
    pub fn number(&self, name: &str) -> Result<u64> {
        let text = self.require(name)?;
        text.parse().map_err(|_| {
            let message = format!("the server's variable '{name}' is '{text}', not a number");
            Error::new(ErrorKind::Server, message)
        })
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "ON" | "1"))
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Runs `work` until it is done, `deadline` has passed or `cancel` is raised.
async fn unless_interrupted<T>(
    cancel: &Cancel,
    deadline: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let watch = async {
        let started = tokio::time::Instant::now();
        loop {
            if cancel.is_cancelled() {
                return Failure::Cancelled;
            }
            let left = deadline.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Failure::Deadline(deadline);
            }
            tokio::time::sleep(left.min(CANCEL_INTERVAL)).await;
        }
    };
    tokio::select! {
        biased;
        outcome = work => outcome,
        failure = watch => Err(failure),
    }
}

/// Runs a statement and gathers its rows.
async fn collect(conn: &mut Conn, statement: &str) -> Result<Vec<Row>, Failure> {
    let mut result = conn.query_iter(statement).await?;
    let columns: Arc<[String]> =
        result.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(row) = result.next().await? {
        let values: Vec<_> = row.unwrap().into_iter().map(value_bytes).collect();
        bytes += values.iter().flatten().map(Vec::len).sum::<usize>() + size_of::<Row>();
        if bytes > RESULT_MAX {
            return Err(Failure::TooLarge);
        }
        rows.push(Row { columns: Arc::clone(&columns), values });
    }
    Ok(rows)
}

/// The bytes of a value. Results of plain statements hold nothing but bytes and NULL.
fn value_bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(bytes),
        other => Some(other.as_sql(true).into_bytes()),
    }
}

/// Our options in the words of the client library.
fn client_options(options: &ConnectOptions, endpoint: &Endpoint) -> Result<OptsBuilder> {
    let builder = OptsBuilder::default()
        .user(Some(options.user_name()?))
        .pass(options.password.clone())
        .prefer_socket(false)
        .max_allowed_packet(Some(PACKET_MAX))
        .wait_timeout(Some(WAIT_TIMEOUT))
        .connect_attribute("program_name", env!("CARGO_PKG_NAME"))
        .init(vec![FIRST_STATEMENT]);
    match endpoint {
        Endpoint::Socket(path) => {
            let path = path.to_str().ok_or_else(|| {
                let message = format!("the socket path {} is not UTF-8", path.display());
                Error::new(ErrorKind::Usage, message)
            })?;
            Ok(builder.socket(Some(path)))
        }
        Endpoint::Tcp(host, port) => Ok(builder
            .ip_or_hostname(host.as_str())
            .tcp_port(*port)
            .ssl_opts(options.tls.client_options()?)),
    }
}

/// The error of a connection that did not come about.
fn connect_error(failure: Failure, options: &ConnectOptions, endpoint: &Endpoint) -> Error {
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
                    "the server's certificate must be signed by the authority of --ssl-ca and \
                     name the host as subject alternative name"
                }
                _ if text.contains("auth plugin") => {
                    "the account uses a login method that is not supported: use unix_socket, \
                     mysql_native_password, ed25519 or parsec"
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
        Failure::Closed | Failure::TooLarge => Error::new(ErrorKind::Server, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_can_move_between_threads() {
        fn check<T: Send>() {}
        check::<Session>();
    }

    #[test]
    fn missing_socket_is_named() {
        let options =
            ConnectOptions { socket: Some("/nowhere/x.sock".into()), ..Default::default() };
        let error = Session::connect(&options, &Cancel::new()).expect_err("nothing listens there");
        assert_eq!(error.kind(), ErrorKind::Server);
        assert!(error.to_string().contains("/nowhere/x.sock"), "{error}");
        assert!(error.advice().is_some_and(|advice| advice.contains("--socket")));
    }

    #[test]
    fn raised_flag_prevents_connecting() {
        let cancel = Cancel::new();
        cancel.cancel();
        let error = Session::connect(&ConnectOptions::default(), &cancel).expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn silent_host_runs_into_the_connect_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let options = ConnectOptions {
            port: Some(port),
            user: Some("u".into()),
            connect_timeout: Some(Duration::from_millis(200)),
            ..Default::default()
        };
        let error = Session::connect(&options, &Cancel::new()).expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
