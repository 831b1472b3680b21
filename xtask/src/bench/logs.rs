//! Binary logs of a real server under load, and what is needed to replay them.
//!
//! One log has a million changes of rows, in transactions of four from four connections at once; the
//! other is large. Beside them are the data before the first, and what its tables are behind it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use harness::scratch::cache_dir;
use harness::{Client, Result, Server, ServerOptions, process};

use super::data::{copy_tree, remove};
use crate::text::size;

const TABLES: u32 = 4;
const ROWS: u32 = 100_000;
/// Transactions of four changes.
const TRANSACTIONS: u32 = 250_000;
/// Bytes of the large log.
const LARGE: u64 = 850 << 20;
const LIMIT: Duration = Duration::from_secs(3600);

/// The cached logs.
pub struct Logs {
    dir: PathBuf,
}

impl Logs {
    /// Makes them if they are not there yet.
    pub fn open() -> Result<Self> {
        let series = harness::Generation::under_test().series();
        let logs = Self { dir: cache_dir(&format!("haulout-bench/logs-{series}"))? };
        if !logs.dir.join("complete").exists() {
            logs.make()?;
            std::fs::write(logs.dir.join("complete"), "")?;
        }
        Ok(logs)
    }

    /// The log with a million changes.
    pub fn changes(&self) -> PathBuf {
        self.dir.join("changes.000001")
    }

    /// The large one.
    pub fn large(&self) -> PathBuf {
        self.dir.join("large.000001")
    }

    /// A scratch directory beside them.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Position behind the changes.
    pub fn position(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.join("position"))?)
    }

    /// Whether the tables of a server are those behind the changes.
    pub fn is_behind(&self, server: &Server) -> Result<bool> {
        let wanted = std::fs::read_to_string(self.dir.join("checksums"))?;
        Ok(checksums(&mut server.client()?)? == wanted)
    }

    /// How servers run here: large enough for the tables, everything that they apply logged.
    fn options() -> ServerOptions {
        let mut options = ServerOptions {
            log_file_size: 1 << 30,
            buffer_pool: 1 << 30,
            ..ServerOptions::default()
        };
        options = options.arg("--max-binlog-size=1G").arg("--log-slave-updates");
        options
    }

    /// A server on a fresh copy of the data, with so many appliers if it becomes a replica.
    pub fn server(&self, appliers: u32) -> Result<Server> {
        let datadir = self.dir.join("target");
        remove(&datadir)?;
        copy_tree(&self.dir.join("base"), &datadir)?;
        let mut options = Self::options();
        // What has written the logs is 1.
        options.server_id = 77;
        options.arg(format!("--slave-parallel-threads={appliers}")).start_on(&datadir)
    }

    fn make(&self) -> Result<()> {
        eprintln!("making binary logs");
        for old in ["base", "target"] {
            remove(&self.dir.join(old))?;
        }
        let mut server = Self::options().start()?;
        server.run("CREATE DATABASE sbtest")?;
        process::start(sysbench(&server, &[], "prepare"), None)?.wait(LIMIT)?.success()?;
        server.run("RESET MASTER")?;
        server.stop()?;
        copy_tree(server.datadir(), &self.dir.join("base"))?;
        server.start()?;
        server.run("FLUSH BINARY LOGS")?;
        let events = format!("--events={TRANSACTIONS}");
        load(&server, &[&events, "--time=0"])?;
        let mut client = server.client()?;
        let position = client.scalar("SELECT @@gtid_binlog_pos")?.context("no position")?;
        std::fs::write(self.dir.join("position"), position)?;
        std::fs::write(self.dir.join("checksums"), checksums(&mut client)?)?;
        self.take(&server, &mut client, self.changes())?;
        while status(&mut client)?.1 < LARGE {
            load(&server, &["--time=5"])?;
        }
        self.take(&server, &mut client, self.large())
    }

    /// Closes the log, and copies it.
    fn take(&self, server: &Server, client: &mut Client, to: PathBuf) -> Result<()> {
        let (file, bytes) = status(client)?;
        client.run("FLUSH BINARY LOGS")?;
        eprintln!("{} of logs", size(bytes));
        std::fs::copy(server.datadir().join(file), to)?;
        Ok(())
    }
}

/// The log that is being written, and its size.
fn status(client: &mut Client) -> Result<(String, u64)> {
    let row = client.text("SHOW MASTER STATUS")?.into_iter().next().context("no binary log")?;
    Ok((row[0].clone(), row[1].parse()?))
}

fn checksums(client: &mut Client) -> Result<String> {
    let tables: Vec<String> = (1..=TABLES).map(|table| format!("sbtest.sbtest{table}")).collect();
    let rows = client.text(&format!("CHECKSUM TABLE {}", tables.join(",")))?;
    Ok(rows.into_iter().map(|row| row.join(" ") + "\n").collect())
}

fn load(server: &Server, extra: &[&str]) -> Result<()> {
    let run = process::start(sysbench(server, extra, "run"), Some(Stdio::null()))?;
    run.wait(LIMIT)?.success().map(drop)
}

fn sysbench(server: &Server, extra: &[&str], verb: &str) -> Command {
    let mut command = Command::new("sysbench");
    command
        .args(["oltp_write_only", "--db-driver=mysql", "--mysql-user=root", "--threads=4"])
        .arg(format!("--mysql-socket={}", server.socket().display()))
        .arg(format!("--tables={TABLES}"))
        .arg(format!("--table-size={ROWS}"))
        .args(["--rand-type=uniform"])
        .args(extra)
        .arg(verb);
    command
}
