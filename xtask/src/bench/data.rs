//! What is measured on: a sysbench data directory, and backups of it.
//!
//! Making them takes minutes, so they are kept in the build directory and used again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::scratch::{cache_dir, tree_size};
use harness::tool::BackupOptions;
use harness::{Result, Server, ServerOptions, Tool, process};

use crate::text::size;

/// A row of sysbench with its index entry, in bytes on disk.
const ROW_BYTES: f64 = 243.0;
const ROWS_PER_TABLE: u64 = 1_000_000;
/// sysbench and the making of the data may take their time.
const LIMIT: Duration = Duration::from_secs(3600);

/// How the tables are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// As they are.
    #[default]
    Plain,
    /// Encrypted, and so is the redo log.
    Encrypted,
    /// With compressed pages (zlib).
    Compressed,
    /// Compressed and encrypted.
    Both,
}

impl Kind {
    fn is_encrypted(self) -> bool {
        matches!(self, Self::Encrypted | Self::Both)
    }

    fn is_compressed(self) -> bool {
        matches!(self, Self::Compressed | Self::Both)
    }

    /// What the name of its directory ends with.
    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Encrypted => "-encrypted",
            Self::Compressed => "-compressed",
            Self::Both => "-both",
        }
    }
}

/// The cached data of one size and kind.
pub struct Data {
    dir: PathBuf,
    kind: Kind,
    tables: u64,
    rows: u64,
}

impl Data {
    /// Makes the data directory if it is not there yet.
    pub fn open(size_gb: f64, kind: Kind) -> Result<Self> {
        let dir = cache_dir(&format!("haulout-bench/{size_gb}gb{}", kind.suffix()))?;
        let rows = (size_gb * 1e9 / ROW_BYTES) as u64;
        let tables = rows.div_ceil(ROWS_PER_TABLE).max(1);
        let data = Self { dir, kind, tables, rows: rows / tables };
        if !data.complete("datadir") {
            data.build()?;
        }
        Ok(data)
    }

    /// The data directory; its server is not running.
    pub fn datadir(&self) -> PathBuf {
        self.dir.join("datadir")
    }

    /// A scratch directory on the same file system.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(format!("scratch-{name}"))
    }

    /// A part is complete when its mark exists; a part that was interrupted is made again.
    fn complete(&self, part: &str) -> bool {
        self.dir.join(format!("{part}.complete")).exists()
    }

    fn mark_complete(&self, part: &str) -> Result<()> {
        Ok(std::fs::write(self.dir.join(format!("{part}.complete")), "")?)
    }

    fn options(&self) -> ServerOptions {
        let mut options = ServerOptions {
            log_file_size: 1 << 30,
            buffer_pool: 1 << 30,
            binlog: false,
            ..ServerOptions::default()
        };
        if self.kind.is_compressed() {
            // Of tables that do not say otherwise.
            options = options.arg("--innodb-compression-default=ON");
        }
        if !self.kind.is_encrypted() {
            return options;
        }
        options
            .arg("--plugin-load-add=file_key_management")
            .arg(format!("--file-key-management-filename={}", self.keys().display()))
            .arg("--innodb-encrypt-tables=ON")
            .arg("--innodb-encrypt-log=ON")
            .arg("--innodb-encryption-threads=0")
    }

    /// The key file, which backups name.
    fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// Starts the server on the data directory.
    pub fn start(&self) -> Result<Server> {
        self.options().start_on(&self.datadir())
    }

    fn build(&self) -> Result<()> {
        eprintln!("making {} tables of {} rows", self.tables, self.rows);
        remove(&self.datadir())?;
        std::fs::write(self.keys(), "1;770a8a65da156d24ee2a093277530142\n")?;
        let mut server = self.options().start()?;
        server.run("CREATE DATABASE sbtest")?;
        process::start(self.sysbench(&server, "prepare", &[]), None)?.wait(LIMIT)?.success()?;
        server.run("SET GLOBAL innodb_fast_shutdown = 0")?;
        server.stop()?;
        // The server's own directory goes with it, so the data moves out before.
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(server.datadir()).arg(self.datadir());
        process::start(copy, None)?.wait(LIMIT)?.success()?;
        self.mark_complete("datadir")
    }

    fn sysbench(&self, server: &Server, verb: &str, extra: &[&str]) -> Command {
        let mut command = Command::new("sysbench");
        command
            .args(["oltp_write_only", "--db-driver=mysql", "--mysql-user=root", "--threads=2"])
            .arg(format!("--mysql-socket={}", server.socket().display()))
            .arg(format!("--tables={}", self.tables))
            .arg(format!("--table-size={}", self.rows))
            .args(extra)
            .arg(verb);
        command
    }

    /// A backup by the stock tool, taken from an idle server, as one stream.
    pub fn stream(&self) -> Result<PathBuf> {
        let file = self.dir.join("stream.xb");
        if !self.complete("stream") {
            eprintln!("making a stream");
            let server = self.start()?;
            let command = Tool::stock().backup_stream(&server, &BackupOptions::default());
            let output = std::fs::File::create(&file)?;
            process::start(command, Some(output.into()))?.wait(LIMIT)?.success()?;
            self.mark_complete("stream")?;
        }
        Ok(file)
    }

    /// A server on a copy of the data, so that what other measurements use stays as it is.
    pub fn copied_server(&self) -> Result<Server> {
        let datadir = self.scratch("source");
        remove(&datadir)?;
        copy_tree(&self.datadir(), &datadir)?;
        self.options().start_on(&datadir)
    }

    /// A server on a copy of the data, and somebody who keeps writing to it until dropped.
    pub fn busy_server(&self) -> Result<(Server, process::Running)> {
        let server = self.copied_server()?;
        let command = self.sysbench(&server, "run", &["--time=3600", "--rate=200"]);
        let load = process::start(command, Some(Stdio::null()))?;
        Ok((server, load))
    }

    /// Changes rows all over the tables, and waits until the pages are in their files.
    pub fn change(&self, server: &Server, transactions: u64) -> Result<()> {
        let events = format!("--events={transactions}");
        let changes = [events.as_str(), "--time=0", "--rand-type=uniform"];
        process::start(self.sysbench(server, "run", &changes), None)?.wait(LIMIT)?.success()?;
        server.checkpoint()
    }

    /// An unprepared backup by the stock tool with so many MiB of redo, taken while sysbench
    /// writes.
    pub fn write_heavy_backup(&self, redo_mib: u64) -> Result<PathBuf> {
        let part = format!("raw-{redo_mib}");
        let target = self.dir.join(&part);
        if self.complete(&part) {
            return Ok(target);
        }
        eprintln!("making a backup with {redo_mib} MiB of redo");
        remove(&target)?;
        let backup = self.under_writes(redo_mib, |server| {
            Ok(Tool::stock().backup(server, &target, &BackupOptions::default()))
        })?;
        ensure!(backup.stderr.contains("completed OK!"), "{}", backup.report());
        eprintln!("{} of redo", size(std::fs::metadata(target.join("ib_logfile0"))?.len()));
        self.mark_complete(&part)?;
        Ok(target)
    }

    /// Runs a command that backs a server up on which sysbench writes so many MiB of redo.
    ///
    /// The backup copies the pages at once and then waits for a statement on a MyISAM table
    /// before it can block DDL. It follows the redo log meanwhile, and that wait ends when
    /// there is redo enough.
    pub fn under_writes(
        &self,
        redo_mib: u64,
        backup: impl FnOnce(&Server) -> Result<Command>,
    ) -> Result<process::Finished> {
        let server = self.copied_server()?;
        server.run("CREATE TABLE IF NOT EXISTS sbtest.gate (a INT) ENGINE=MyISAM")?;

        let lsn = || -> Result<u64> {
            let mut client = server.client()?;
            let row = client.text("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'")?;
            Ok(row.first().context("no Innodb_lsn_current")?[1].parse()?)
        };
        let mut gate = server.client()?.with_timeout(LIMIT);
        let gate_id = gate.scalar("SELECT CONNECTION_ID()")?.context("no connection id")?;
        let holder = std::thread::spawn(move || {
            // Ends with "query execution was interrupted", which is what it is for.
            let _ = gate.run("INSERT INTO sbtest.gate SELECT SLEEP(3000)");
        });
        let first = lsn()?;
        let load = process::start(self.sysbench(&server, "run", &["--time=3600"]), None)?;
        let backup = process::start(backup(&server)?, Some(Stdio::null()))?;
        while lsn()? < first + (redo_mib << 20) {
            std::thread::sleep(Duration::from_millis(100));
        }
        server.run(&format!("KILL QUERY {gate_id}"))?;
        let backup = backup.wait(LIMIT)?.success()?;
        drop(load);
        let _ = holder.join();
        drop(server);
        remove(&self.scratch("source"))?;
        Ok(backup)
    }

    /// A command that hands all files but the redo log, which no backup copies as it is, to a
    /// piece of shell script. The script's first argument is `$0`.
    pub fn each_file(&self, script: &str) -> Command {
        each_file(&self.datadir(), script)
    }

    /// Bytes of the data directory without the redo log.
    pub fn bytes(&self) -> Result<u64> {
        let log = std::fs::metadata(self.datadir().join("ib_logfile0"))?.len();
        Ok(tree_size(&self.datadir())? - log)
    }
}

/// Removes a directory if it is there.
pub fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Copies a directory tree.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    process::start(copy, None)?.wait(LIMIT)?.success()?;
    Ok(())
}

/// Runs a script with the names of the files in a data directory, the redo log aside.
pub fn each_file(datadir: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.current_dir(datadir).arg("-c").arg(format!(
        "find . -type f ! -name 'ib_logfile*' -print0 | xargs -0 {script} >/dev/null"
    ));
    command
}
