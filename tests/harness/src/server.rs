//! A `mariadbd` of one's own.
//!
//! Every server has its own directory, socket and port. Waits have deadlines, and a failure
//! shows the end of the error log. Dropping a server kills it and removes its directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::generation::Generation;
use crate::keeper::Keeper;
use crate::port::Port;
use crate::scratch::Scratch;
use crate::{Client, Result, template};

/// How long a server may take to start, which includes recovery after a crash.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a clean shutdown may take.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// `innodb_checksum_algorithm`: which page formats a server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// The default since 10.5: one CRC-32C at the end of the page.
    FullCrc32,
    /// The older format: CRC-32C in the page header and in the trailer.
    Crc32,
}

impl ChecksumAlgorithm {
    /// As the server spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullCrc32 => "full_crc32",
            Self::Crc32 => "crc32",
        }
    }
}

/// What kind of server to start. The fields down to `undo_tablespaces` shape the data
/// directory, the others only the running server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Which server; by default the one [under test](Generation::under_test).
    pub generation: Generation,
    /// `innodb_page_size` in bytes.
    pub page_size: u32,
    /// `innodb_checksum_algorithm`.
    pub checksum: ChecksumAlgorithm,
    /// `innodb_log_file_size` in bytes.
    pub log_file_size: u64,
    /// `innodb_undo_tablespaces`.
    pub undo_tablespaces: u32,
    /// `server_id`; source and replica need different ones.
    pub server_id: u32,
    /// Whether to write a binary log.
    pub binlog: bool,
    /// `innodb_buffer_pool_size` in bytes. Small by default, so that pages reach the disk
    /// while a test runs; 0 leaves it to the option file.
    pub buffer_pool: u64,
    /// More arguments, which win over the others.
    pub extra: Vec<String>,
    /// The only option file to read.
    pub option_file: Option<PathBuf>,
    /// Environment variables of the server, and so of what it starts.
    pub variables: Vec<(String, OsString)>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self::of(Generation::under_test())
    }
}

impl ServerOptions {
    /// A server of this generation.
    pub fn of(generation: Generation) -> Self {
        Self {
            generation,
            page_size: 16 << 10,
            checksum: ChecksumAlgorithm::FullCrc32,
            log_file_size: 64 << 20,
            undo_tablespaces: 2,
            server_id: 1,
            binlog: true,
            buffer_pool: 64 << 20,
            extra: Vec::new(),
            option_file: None,
            variables: Vec::new(),
        }
    }

    /// With one more server argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.extra.push(argument.into());
        self
    }

    /// Starts a server on a new data directory.
    pub fn start(&self) -> Result<Server> {
        let scratch = Scratch::new()?;
        let datadir = scratch.join("data");
        template::instantiate(self, &datadir)?;
        Server::start_in(self.clone(), scratch, datadir)
    }

    /// Starts a server on a data directory that exists, a restored one for example. The
    /// directory stays when the server goes.
    pub fn start_on(&self, datadir: &Path) -> Result<Server> {
        Server::start_in(self.clone(), Scratch::new()?, datadir.to_owned())
    }

    /// Arguments that a data directory is made with and that its server must repeat.
    pub(crate) fn shape_arguments(&self) -> Vec<String> {
        vec![
            format!("--innodb-page-size={}", self.page_size),
            format!("--innodb-checksum-algorithm={}", self.checksum.name()),
            format!("--innodb-log-file-size={}", self.log_file_size),
            format!("--innodb-undo-tablespaces={}", self.undo_tablespaces),
        ]
    }

    /// The server's version number, such as `10.11.19`.
    pub(crate) fn version(&self) -> Result<String> {
        self.generation.root()?;
        let program = self.generation.program("mariadbd");
        let output = Command::new(&program)
            .args(["--no-defaults", "--version"])
            .output()
            .with_context(|| format!("start {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().skip_while(|word| *word != "Ver").nth(1);
        let version = version.with_context(|| format!("no version in {text:?}"))?;
        Ok(version.split('-').next().unwrap_or(version).to_owned())
    }
}

/// A running (or stopped) server and its directory.
pub struct Server {
    options: ServerOptions,
    port: Port,
    datadir: PathBuf,
    socket: PathBuf,
    error_log: PathBuf,
    process: Option<(Child, Keeper)>,
    // Last, so that the directory goes after the process.
    scratch: Scratch,
}

impl Server {
    fn start_in(options: ServerOptions, scratch: Scratch, datadir: PathBuf) -> Result<Self> {
        let mut server = Self {
            port: Port::reserve()?,
            socket: scratch.join("sock"),
            error_log: scratch.join("error.log"),
            options,
            datadir,
            process: None,
            scratch,
        };
        server.start()?;
        Ok(server)
    }

    /// Starts the server again after [`stop`](Self::stop) or [`crash`](Self::crash).
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the server runs already");
        let log = std::fs::File::options().create(true).append(true).open(&self.error_log)?;
        let options = &self.options;
        let program = options.generation.program("mariadbd");
        let mut command = Command::new(&program);
        match &options.option_file {
            Some(file) => command.arg(format!("--defaults-file={}", file.display())),
            None => command.arg("--no-defaults"),
        };
        command
            .envs(options.variables.iter().map(|(name, value)| (name, value)))
            .arg(format!("--basedir={}", options.generation.basedir()?.display()))
            .arg(format!("--user={}", unix_user()))
            .arg(format!("--datadir={}", self.datadir.display()))
            .arg(format!("--socket={}", self.socket.display()))
            .arg(format!("--tmpdir={}", self.scratch.path().display()))
            .arg(format!("--pid-file={}", self.scratch.join("pid").display()))
            .arg(format!("--port={}", self.port.number()))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
            .args(["--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci"])
            .arg(format!("--server-id={}", options.server_id))
            .args(options.shape_arguments())
            .args(["--innodb-flush-log-at-trx-commit=2", "--max-allowed-packet=64M"])
            .args(["--key-buffer-size=8M", "--aria-pagecache-buffer-size=8M"])
            // Tables that a page size does not allow are made in another way instead of refused.
            .arg("--innodb-strict-mode=OFF")
            // The one engine of the load that is a plugin.
            .arg("--plugin-load-add=ha_archive");
        if options.buffer_pool > 0 {
            command.arg(format!("--innodb-buffer-pool-size={}", options.buffer_pool));
        }
        for provider in options.generation.compression_providers()? {
            command.arg(format!("--plugin-load-add={provider}"));
        }
        if options.binlog {
            command.args(["--log-bin=binlog", "--binlog-format=ROW", "--max-binlog-size=32M"]);
        }
        command.args(&options.extra);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let keeper = Keeper::watch(child.id(), self.scratch.path())?;
        self.process = Some((child, keeper));
        self.wait_until_up()
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some((child, _)) = &mut self.process
                && let Some(status) = child.try_wait()?
            {
                self.process = None;
                bail!("the server ended at start: {status}\n{}", self.log_tail());
            }
            match self.client() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("no connection in {START_LIMIT:?}: {error:#}\n{}", self.log_tail())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(30)),
            }
        }
    }

    /// A new connection as root.
    pub fn client(&self) -> Result<Client> {
        self.client_as("root", None)
    }

    /// A new connection as somebody else.
    pub fn client_as(&self, user: &str, password: Option<&str>) -> Result<Client> {
        Client::connect(&self.socket, user, password)
            .with_context(|| format!("connect to {} as {user}", self.socket.display()))
    }

    /// Runs one statement on a connection of its own.
    pub fn run(&self, sql: &str) -> Result<()> {
        self.client()?.run(sql).map_err(|error| anyhow::anyhow!("{error}\n{}", self.log_tail()))
    }

    /// Shuts the server down in an orderly way.
    pub fn stop(&mut self) -> Result<()> {
        let Some((mut child, keeper)) = self.process.take() else { return Ok(()) };
        kill_process(pid_of(&child), Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "shutdown failed: {status}\n{}", self.log_tail());
                return Ok(());
            }
            if Instant::now() > deadline {
                self.process = Some((child, keeper));
                bail!("no shutdown in {STOP_LIMIT:?}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server as a crash would.
    pub fn crash(&mut self) -> Result<()> {
        let Some((mut child, _keeper)) = self.process.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops all of the server's threads until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends a [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let (child, _) = self.process.as_ref().context("the server does not run")?;
        Ok(kill_process(pid_of(child), signal)?)
    }

    /// The kind of server this is.
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The data directory.
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Has the server write all changed pages to their files.
    pub fn checkpoint(&self) -> Result<()> {
        if self.options.generation >= Generation::V10_11 {
            return self.run("SET GLOBAL innodb_log_checkpoint_now=ON");
        }
        const LIMIT: Duration = Duration::from_secs(60);
        let mut client = self.client()?;
        let mut pages = |what: &str| -> Result<u64> {
            let status = format!(
                "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                 WHERE VARIABLE_NAME = 'Innodb_buffer_pool_pages_{what}'"
            );
            Ok(client.scalar(&status)?.unwrap_or_default().parse()?)
        };
        let (dirty, flushed) = (pages("dirty")?, pages("flushed")?);
        self.run("SET GLOBAL innodb_max_dirty_pages_pct=0")?;
        let started = Instant::now();
        // The oldest changes are written first. Under load there are always new ones.
        while pages("dirty")? > 0
            && pages("flushed")? < flushed + dirty
            && started.elapsed() < LIMIT
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.run("SET GLOBAL innodb_max_dirty_pages_pct=DEFAULT")
    }

    /// Lines of the error log that the server itself calls errors. That a replica lost its
    /// connection says nothing of its data: it connects again, and what it then has is compared.
    pub fn logged_errors(&self) -> Result<Vec<String>> {
        let log = std::fs::read(&self.error_log)?;
        let log = String::from_utf8_lossy(&log);
        let is_error = |line: &&str| {
            let connection = line.contains("Slave I/O") && line.contains("Lost connection");
            line.contains("[ERROR]") && !connection
        };
        Ok(log.lines().filter(is_error).map(str::to_owned).collect())
    }

    /// Waits until the transactions that were open in the data directory are rolled back.
    pub fn wait_for_rollback(&self) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(120);
        let started = Instant::now();
        loop {
            let log = std::fs::read(&self.error_log)?;
            if rolled_back(&String::from_utf8_lossy(&log)) {
                return Ok(());
            }
            ensure!(started.elapsed() < LIMIT, "no end of the rollback\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of the error log, for messages.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.error_log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        format!("--- end of the error log ---\n{}\n---", tail.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.crash();
    }
}

/// Whether the last start that this error log tells of has no rollback left to do. A server that
/// has rolled all of them back does not always say that it is through (11.8.6).
fn rolled_back(log: &str) -> bool {
    const OPEN: &str = " transaction(s) which must be rolled back";
    let Some(at) = log.rfind(OPEN) else { return true };
    let (before, behind) = log.split_at(at);
    let open = before.rsplit(' ').next().and_then(|word| word.parse().ok());
    behind.contains("Rollback of non-prepared transactions completed")
        || open
            .is_some_and(|open| behind.matches("Rolled back recovered transaction").count() >= open)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// The user that servers run as: the calling one. `mariadbd` refuses root unless told so.
pub(crate) fn unix_user() -> String {
    match runs_as_root() {
        true => "root".to_owned(),
        false => std::env::var("USER").unwrap_or_else(|_| "mysql".to_owned()),
    }
}

/// Whether this process has root's rights.
pub fn runs_as_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::rolled_back;

    #[test]
    fn the_end_of_a_rollback_is_recognised() {
        let open = "InnoDB: 2 transaction(s) which must be rolled back or cleaned up in total 9\n";
        let one = "InnoDB: Rolled back recovered transaction 7\n";
        let done = "InnoDB: Rollback of non-prepared transactions completed\n";
        let is_done = |parts: &[&str]| rolled_back(&parts.concat());
        assert!(is_done(&["ready for connections\n"]));
        assert!(!is_done(&[open]) && !is_done(&[open, one]));
        assert!(is_done(&[open, one, one]) && is_done(&[open, done]));
        // What an earlier start did does not count.
        assert!(!is_done(&[open, one, one, done, open]));
    }
}
