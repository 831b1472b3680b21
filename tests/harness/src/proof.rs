//! The replica proof.
//!
//! A copy is right when it boots, its tables pass `CHECK TABLE`, and, attached to its source
//! as a replica from the position that the backup recorded, it catches up without an error
//! and then equals the source in every table. A row too few or too many in the copy either
//! stops the replica or shows in a checksum.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::compare::{self, Contents};
use crate::load::{Load, LoadOptions, LoadReport};
use crate::process::Finished;
use crate::scratch::tree_size;
use crate::tool::BinlogPosition;
use crate::{Client, Result, Scratch, Server, ServerOptions, Tool};

/// How long a replica may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(240);

/// One proof: what server, what load, which tools.
pub struct Proof {
    /// The source.
    pub server: ServerOptions,
    /// What happens on it.
    pub load: LoadOptions,
    /// Who backs up, prepares and restores.
    pub tool: Tool,
    /// How long the load runs before the backup starts, and after it ended.
    pub around: Duration,
}

/// A step of a proof that just ended, for those who want to tell about it while it runs.
pub enum Step<'a> {
    /// The source runs, holds its tables, and is being written to.
    Loaded(&'a Server),
    /// The backup is there; the writing went on meanwhile.
    BackedUp(&'a Finished),
    /// The writing has stopped.
    LoadStopped(&'a LoadReport),
    /// The backup is prepared.
    Prepared(&'a Finished),
    /// The copy is in its data directory.
    Restored(&'a Finished),
    /// A server runs on the copy, and `CHECK TABLE` found nothing wrong with it.
    Booted(&'a Server),
    /// The copy caught up from this position in this time.
    CaughtUp(&'a BinlogPosition, Duration),
}

/// What a successful proof saw.
#[derive(Debug)]
pub struct ProofReport {
    /// What the load did.
    pub load: LoadReport,
    /// The recorded position.
    pub position: BinlogPosition,
    /// Bytes in the source's data directory and in the backup.
    pub source_bytes: u64,
    /// See `source_bytes`.
    pub backup_bytes: u64,
    /// The three runs of the tool.
    pub backup: Finished,
    /// See `backup`.
    pub prepare: Finished,
    /// See `backup`.
    pub restore: Finished,
    /// Tables compared.
    pub tables: usize,
    /// From the start of replication until the copy had everything.
    pub catch_up: Duration,
}

impl Proof {
    /// A proof with a default server.
    pub fn new(seed: u64, tool: Tool) -> Self {
        Self {
            server: ServerOptions::default(),
            load: LoadOptions::new(seed),
            tool,
            around: Duration::from_millis(700),
        }
    }

    /// Runs it. Any difference is an error that names it; the scratch directory then stays.
    pub fn run(&self) -> Result<ProofReport> {
        self.run_telling(&mut |_| {})
    }

    /// Runs it and calls `tell` after every step.
    pub fn run_telling(&self, tell: &mut dyn FnMut(Step<'_>)) -> Result<ProofReport> {
        let scratch = Scratch::new()?;
        match self.run_in(&scratch, tell) {
            Ok(report) => Ok(report),
            Err(error) => {
                let dir = scratch.keep();
                let seed = self.load.seed;
                Err(error.context(format!("replica proof, seed {seed}, kept in {}", dir.display())))
            }
        }
    }

    fn run_in(&self, scratch: &Scratch, tell: &mut dyn FnMut(Step<'_>)) -> Result<ProofReport> {
        let source = self.server.start()?;
        create_replication_user(&source)?;
        let load = Load::start(&source, &self.load)?;
        tell(Step::Loaded(&source));
        std::thread::sleep(self.around);

        let backup_dir = scratch.join("backup");
        let backup = self.tool.run_backup(&source, &backup_dir)?;
        tell(Step::BackedUp(&backup));
        let source_bytes = tree_size(source.datadir())?;
        let position = BinlogPosition::of_backup(&backup_dir)?;
        std::thread::sleep(self.around);
        let load = load.stop()?;
        tell(Step::LoadStopped(&load));

        let prepare = self.tool.run_prepare(&backup_dir)?;
        tell(Step::Prepared(&prepare));
        let datadir = scratch.join("copy");
        let restore = self.tool.run_restore(&backup_dir, &datadir)?;
        tell(Step::Restored(&restore));

        let copy = replica_options(&self.server).start_on(&datadir)?;
        let complaints = compare::check_tables(&copy)?;
        ensure!(complaints.is_empty(), "the copy is damaged:\n{}", complaints.join("\n"));
        tell(Step::Booted(&copy));
        let catch_up = attach(&source, &copy, &position)?;
        tell(Step::CaughtUp(&position, catch_up));
        let tables = ensure_equal(&source, &copy).with_context(|| {
            format!("definitions that the source refused: {:#?}", load.refused_definitions)
        })?;
        let errors = copy.logged_errors()?;
        ensure!(errors.is_empty(), "the copy's server logged errors:\n{}", errors.join("\n"));
        Ok(ProofReport {
            load,
            position,
            source_bytes,
            backup_bytes: tree_size(&backup_dir)?,
            backup,
            prepare,
            restore,
            tables,
            catch_up,
        })
    }
}

/// The options of a server that is to be a replica of one with these options.
pub fn replica_options(source: &ServerOptions) -> ServerOptions {
    let mut options = source.clone();
    options.server_id = source.server_id + 1;
    options.binlog = false;
    options.arg("--skip-slave-start").arg("--slave-net-timeout=30")
}

/// Creates the user that replicas connect as.
pub fn create_replication_user(source: &Server) -> Result<()> {
    source.run("CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl'")?;
    source.run("GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'")
}

/// Attaches `copy` to `source` at the recorded position and waits until it has everything
/// that the source has now. The load must have stopped.
pub fn attach(source: &Server, copy: &Server, position: &BinlogPosition) -> Result<Duration> {
    let mut client = copy.client()?;
    let started = Instant::now();
    let target = source.client()?.scalar("SELECT @@gtid_binlog_pos")?.unwrap_or_default();
    ensure!(!target.is_empty(), "the source has no GTID position");
    ensure!(!position.gtid.is_empty(), "the backup recorded no GTID position");
    client.run(&format!("SET GLOBAL gtid_slave_pos = '{}'", position.gtid))?;
    client.run(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='repl', \
         MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
        source.port()
    ))?;
    client.run("START SLAVE")?;
    loop {
        let waited = client.scalar(&format!("SELECT MASTER_GTID_WAIT('{target}', 0.2)"))?;
        if waited.as_deref() == Some("0") {
            client.run("STOP SLAVE")?;
            return Ok(started.elapsed());
        }
        replication_error(&mut client)?;
        if started.elapsed() > CATCH_UP_LIMIT {
            let at = client.scalar("SELECT @@gtid_slave_pos")?.unwrap_or_default();
            bail!("the replica reached {at}, not {target}, in {CATCH_UP_LIMIT:?}");
        }
    }
}

fn replication_error(client: &mut Client) -> Result<()> {
    let status = client.named("SHOW SLAVE STATUS")?;
    for field in ["Last_SQL_Error", "Last_IO_Error"] {
        let value = status.iter().find(|(name, _)| name == field).map(|(_, value)| value);
        if let Some(error) = value.filter(|error| !error.is_empty()) {
            bail!("replication stopped: {error}");
        }
    }
    Ok(())
}

/// Compares all user databases; an error names every difference. Returns the tables compared.
pub fn ensure_equal(source: &Server, copy: &Server) -> Result<usize> {
    let left = Contents::read(&mut source.client()?).context("read the source")?;
    let right = Contents::read(&mut copy.client()?).context("read the copy")?;
    let mut differences = left.differences(&right);
    for table in left.tables_with_other_rows(&right) {
        let rows = compare::explain_rows(&mut source.client()?, &mut copy.client()?, table);
        differences.push(rows.unwrap_or_else(|error| error.to_string()));
    }
    ensure!(differences.is_empty(), "the copy differs:\n{}", differences.join("\n"));
    Ok(left.tables())
}

/// Restores a prepared backup by `tool` and boots the copy once, for tests that do not need a
/// replica.
pub fn restore_and_boot(
    tool: &Tool,
    backup: &Path,
    datadir: &Path,
    options: &ServerOptions,
) -> Result<Server> {
    tool.run_restore(backup, datadir)?;
    replica_options(options).start_on(datadir)
}
