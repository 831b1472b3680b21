//! One connection to the server, blocking, with deadlines and cancelling.
//!
//! Promises: every wait has a deadline and a reason; a raised [`Cancel`] is noticed within a
//! tenth of a second. A statement that is given up, for whichever reason, takes its connection
//! with it: the server is told to kill it (over a second connection, best effort) and the
//! socket is closed, so that whatever locks it held are released. After that every use of the
//! session fails. A result is bounded in memory.
//!
//! A session runs its own small runtime and must not be used from inside another one.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Value};
use tokio::runtime::Runtime;

use super::connect::{ConnectOptions, Endpoint};
use super::failure::{Failure, code, connect_error};
use super::rows::{Row, Variables};
use crate::{Cancel, Error, ErrorKind, Result};

/// Sent first on every connection: a backup may wait longer than the server's defaults allow.
pub(super) const FIRST_STATEMENT: &str = "SET SESSION wait_timeout=2147483, max_statement_time=0";
/// The same number, told to the client library, which would ask the server otherwise.
const WAIT_TIMEOUT: usize = 2_147_483;
/// Largest packet that is accepted from the server.
const PACKET_MAX: usize = 64 << 20;
/// Largest result, in bytes of values, that is held in memory.
pub(super) const RESULT_MAX: usize = 512 << 20;
/// How often a wait looks at the cancel flag.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);
/// How long connecting may take by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle TCP connection shows that it lives, so that nothing in between forgets it.
const KEEPALIVE: Duration = Duration::from_secs(60);
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
    runtime: Runtime,
    conn: Option<Conn>,
    options: ConnectOptions,
    cancel: Cancel,
    id: u64,
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
        let connected = runtime.block_on(unless_interrupted(cancel, timeout, async {
            Conn::new(client).await.map_err(Failure::from)
        }));
        let conn = match (connected, &endpoint) {
            (Ok(conn), _) => conn,
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
            self.conn = None;
            return Err(Failure::Cancelled);
        }
        let conn = self.conn.as_mut().ok_or(Failure::Closed)?;
        let outcome = self.runtime.block_on(unless_interrupted(
            &self.cancel,
            wait.deadline,
            collect(conn, statement),
        ));
        outcome.map_err(|failure| self.gave_up(failure))
    }

    /// Ends the connection after a failure that leaves a statement running, or unknown.
    fn gave_up(&mut self, failure: Failure) -> Failure {
        if !matches!(failure, Failure::Server(_)) {
            self.conn = None;
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
        let Ok(client) = client_options(&self.options, &self.options.endpoint()) else { return };
        let statement = format!("KILL CONNECTION {id}");
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

    /// Ends the connection, and with it every lock that it holds, but keeps the session to be
    /// asked for its number.
    pub(crate) fn quit(&mut self) {
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
            .tcp_keepalive(Some(KEEPALIVE))
            .ssl_opts(options.tls_client_options()?)),
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
