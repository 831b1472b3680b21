//! One connection to the server, blocking, with deadlines and cancelling.
//!
//! Promises: every wait has a deadline and a reason; a raised [`Cancel`] is noticed within a
//! tenth of a second. A statement that is given up, for whichever reason, takes its connection
//! with it: the server is told to kill it (over a second connection, best effort) and the
//! socket is closed, so that whatever locks it held are released. After that every use of the
//! session fails. A result is bounded in memory.
//!

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::connect::{ConnectOptions, Endpoint};
use super::failure::{Failure, code, connect_error};
use super::rows::{Row, Variables};
use super::text_result;
use super::wire::{PACKET_FULL, Wire, answer, capability, command, refused};
use crate::{Cancel, Error, ErrorKind, Result};

/// Sent first on every connection: a backup may wait longer than the server's defaults allow.
pub(super) const FIRST_STATEMENT: &str = "SET SESSION wait_timeout=2147483, max_statement_time=0";
/// Largest result, in bytes of values, that is held in memory.
pub(super) const RESULT_MAX: usize = 512 << 20;
/// How long the attempt to kill a statement that was given up may take.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an orderly goodbye may take.
const QUIT_TIMEOUT: Duration = Duration::from_millis(500);

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

/// One connection to the server.
pub struct Session {
    wire: Option<Wire>,
    options: ConnectOptions,
    cancel: Cancel,
    id: u64,
}

impl Session {
    /// Connects and logs in.
    pub fn connect(options: &ConnectOptions, cancel: &Cancel) -> Result<Self> {
        cancel.check()?;
        let endpoint = options.endpoint();
        let wire = match (Wire::connect(options, capability::BASE, cancel), &endpoint) {
            (Ok(wire), _) => wire,
            (Err(failure), Endpoint::Socket(socket))
                if failure.code() == Some(code::ACCESS_DENIED) =>
            {
                let refused = connect_error(failure, options, &endpoint);
                let Some(other) = options.over_tls() else { return Err(refused) };
                return Self::connect(&other, cancel)
                    .and_then(|session| session.of_socket(socket))
                    .map_err(|error| error.context(refused));
            }
            (Err(failure), _) => return Err(connect_error(failure, options, &endpoint)),
        };
        let (options, cancel) = (options.clone(), cancel.clone());
        let mut session = Self { wire: Some(wire), options, cancel, id: 0 };
        session.execute(FIRST_STATEMENT, Wait::short("lifting the limits of the connection"))?;
        // The number in the handshake may be that of a proxy; only the server's own is good for KILL.
        let wait = Wait::short("asking for the connection's number");
        let rows = session.query("SELECT CONNECTION_ID() AS id", wait)?;
        session.id = rows.first().and_then(|row| row.number("id")).unwrap_or(0);
        Ok(session)
    }

    /// This session, if its server is the one behind `socket`.
    fn of_socket(mut self, socket: &Path) -> Result<Self> {
        let wait = Wait::short("asking for the server's socket");
        let rows = self.query("SELECT @@socket AS socket, @@datadir AS datadir", wait)?;
        let text = |name| rows.first().and_then(|row| row.text(name)).unwrap_or_default();
        // A server works in its data directory.
        let own = Path::new(&*text("datadir")).join(&*text("socket"));
        let same = |one: &Path| one.canonicalize().ok();
        if same(&own).is_some() && same(&own) == same(socket) {
            return Ok(self);
        }
        let message = format!("the server at {} is another one", self.options.endpoint());
        Err(Error::new(ErrorKind::Usage, message)
            .advise("give --host and --port to use TLS; the socket is never encrypted"))
    }

    /// A second session to the same server, with the same account and cancel flag.
    pub fn another(&self) -> Result<Self> {
        Self::connect(&self.options, &self.cancel)
    }

    /// The same although this one was cancelled: to put something back as it was.
    pub(crate) fn another_uncancelled(&self) -> Result<Self> {
        Self::connect(&self.options, &Cancel::new())
    }

    /// The same for a question that must not take long, whatever the options say.
    pub(crate) fn another_within(&self, connect_timeout: Duration) -> Result<Self> {
        let connect_timeout = Some(connect_timeout);
        let options = ConnectOptions { connect_timeout, ..self.options.clone() };
        Self::connect(&options, &self.cancel)
    }

    /// The server's number of this connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the session can still be used.
    pub fn is_open(&self) -> bool {
        self.wire.is_some()
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
        Ok(pairs.collect())
    }

    /// Runs a statement; the failure keeps the server's error number.
    pub(crate) fn try_query(
        &mut self,
        statement: &str,
        wait: Wait<'_>,
    ) -> Result<Vec<Row>, Failure> {
        if self.cancel.is_cancelled() {
            // An idle connection that holds locks releases them by being closed.
            self.wire = None;
            return Err(Failure::Cancelled);
        }
        let wire = self.wire.as_mut().ok_or(Failure::Closed)?;
        wire.within(wait.deadline);
        collect(wire, statement).map_err(|failure| self.gave_up(failure))
    }

    /// Ends the connection after a failure that leaves a statement running, or unknown.
    fn gave_up(&mut self, failure: Failure) -> Failure {
        if !matches!(failure, Failure::Server(_)) {
            self.wire = None;
            if matches!(failure, Failure::Deadline(_) | Failure::Cancelled) {
                self.kill(self.id);
            }
        }
        failure
    }

    /// Tells the server to end a connection, which may still be waiting for a lock there.
    pub(crate) fn kill(&self, id: u64) {
        if id == 0 {
            return;
        }
        let connect_timeout = Some(KILL_TIMEOUT);
        let options = ConnectOptions { connect_timeout, ..self.options.clone() };
        // Best effort: the closed socket ends the connection too, only later.
        if let Ok(mut wire) = Wire::connect(&options, capability::BASE, &Cancel::new()) {
            wire.within(KILL_TIMEOUT);
            let statement = format!("KILL CONNECTION {id}");
            let _ = wire.command(command::QUERY, statement.as_bytes());
        }
    }

    /// Says goodbye to the server.
    pub fn close(mut self) {
        self.quit();
    }

    /// Ends the connection, and with it every lock that it holds, but keeps the session to be
    /// asked for its number.
    pub(crate) fn quit(&mut self) {
        if let Some(mut wire) = self.wire.take() {
            wire.within(QUIT_TIMEOUT);
            // A goodbye that fails leaves a closed socket, which means the same.
            let _ = wire.request(command::QUIT, &[]);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.quit();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("options", &self.options).finish()
    }
}

/// Runs a statement and gathers its rows.
fn collect(wire: &mut Wire, statement: &str) -> Result<Vec<Row>, Failure> {
    wire.request(command::QUERY, statement.as_bytes())?;
    let first = wire.awaited()?;
    if first.first() == Some(&answer::OK) {
        return Ok(Vec::new());
    }
    let count = text_result::columns(&first).ok_or_else(|| refused(&first))?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let column = wire.awaited()?;
        columns.push(text_result::column_name(&column).ok_or_else(|| refused(&column))?);
    }
    let is_end = |packet: &[u8]| packet.first() == Some(&answer::END) && packet.len() < 9;
    let end = wire.awaited()?;
    if !is_end(&end) {
        return Err(refused(&end));
    }
    let columns: Arc<[String]> = columns.into();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    loop {
        let mut packet = wire.awaited()?;
        if is_end(&packet) {
            return Ok(rows);
        }
        let mut goes_on = packet.len() == PACKET_FULL;
        while goes_on {
            let more = wire.awaited()?;
            goes_on = more.len() == PACKET_FULL;
            packet.extend(more);
            if packet.len() > RESULT_MAX {
                return Err(Failure::TooLarge);
            }
        }
        let values = text_result::row(&packet, columns.len()).ok_or_else(|| refused(&packet))?;
        bytes += packet.len() + size_of::<Row>() + size_of_val(&*values);
        if bytes > RESULT_MAX {
            return Err(Failure::TooLarge);
        }
        rows.push(Row { columns: Arc::clone(&columns), values });
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
