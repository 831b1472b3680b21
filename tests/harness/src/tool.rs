//! The backup tools under test, behind one set of calls.
//!
//! What is proved for our tool is proved for the stock one by the same code, so that a failing
//! proof can be told from a failing harness.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::generation::Generation;
use crate::process::{self, Finished};
use crate::{Result, Server};

/// Which tool does the work.
#[derive(Clone, Debug)]
pub enum Tool {
    /// `mariadb-backup` and `mbstream` of this generation.
    Stock(Generation),
    /// The `haulout` program at this path.
    Haulout(PathBuf),
    /// Links to it in this directory, under the stock names and with the stock options.
    Links(PathBuf),
}

/// How to back up.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Copying threads.
    pub parallel: usize,
    /// User of the server.
    pub user: String,
    /// Password, handed over in the environment.
    pub password: Option<String>,
    /// More arguments of the tool.
    pub extra: Vec<String>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { parallel: 2, user: "root".to_owned(), password: None, extra: Vec::new() }
    }
}

impl Tool {
    /// The stock tool of the generation [under test](Generation::under_test).
    pub fn stock() -> Self {
        Self::Stock(Generation::under_test())
    }

    /// Makes links to the `haulout` program in `dir`, and a tool of them.
    pub fn links(program: &Path, dir: &Path) -> Result<Self> {
        for name in ["mariadb-backup", "mbstream"] {
            std::os::unix::fs::symlink(program, dir.join(name))?;
        }
        Ok(Self::Links(dir.to_owned()))
    }

    /// A program under its stock name.
    fn named(&self, name: &str) -> Command {
        match self {
            Self::Stock(generation) => Command::new(generation.program(name)),
            Self::Links(dir) => Command::new(dir.join(name)),
            Self::Haulout(program) => Command::new(program),
        }
    }

    /// For messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stock(_) | Self::Links(_) => "mariadb-backup",
            Self::Haulout(_) => "haulout",
        }
    }

    /// The command that backs `server` up into the directory `target`.
    pub fn backup(&self, server: &Server, target: &Path, options: &BackupOptions) -> Command {
        let mut command = self.backup_base(server, options);
        command.arg(format!("--target-dir={}", target.display()));
        command
    }

    /// The option that makes a backup one of what changed since that in `base`.
    pub fn since(&self, base: &Path) -> String {
        match self {
            Self::Haulout(_) => format!("--base={}", base.display()),
            _ => format!("--incremental-basedir={}", base.display()),
        }
    }

    /// The command that applies the delta in `delta` to the prepared backup in `base`.
    pub fn apply_delta(&self, base: &Path, delta: &Path) -> Command {
        let mut command = self.prepare(base, 256 << 20);
        match self {
            Self::Haulout(_) => command.arg(format!("--delta={}", delta.display())),
            _ => command.arg(format!("--incremental-dir={}", delta.display())),
        };
        command
    }

    /// The command that backs `server` up to its standard output.
    pub fn backup_stream(&self, server: &Server, options: &BackupOptions) -> Command {
        let mut command = self.backup_base(server, options);
        match self {
            Self::Haulout(_) => command.arg("--stream"),
            _ => command.arg("--stream=mbstream"),
        };
        command
    }

    fn backup_base(&self, server: &Server, options: &BackupOptions) -> Command {
        let mut command = match self {
            Self::Stock(_) | Self::Links(_) => {
                let mut command = self.named("mariadb-backup");
                command.args(["--no-defaults", "--backup"]);
                command.arg(format!("--datadir={}", server.datadir().display()));
                command
            }
            Self::Haulout(program) => {
                let mut command = Command::new(program);
                command.args(["backup", "--no-defaults"]);
                command
            }
        };
        command
            .arg(format!("--socket={}", server.socket().display()))
            .arg(format!("--user={}", options.user))
            .arg(format!("--parallel={}", options.parallel))
            .args(&options.extra);
        if let Some(password) = &options.password {
            command.env("MYSQL_PWD", password);
        }
        command
    }

    /// The command that prepares the backup in `dir` with so many bytes of memory.
    pub fn prepare(&self, dir: &Path, memory: u64) -> Command {
        match self {
            Self::Stock(_) | Self::Links(_) => {
                let mut command = self.named("mariadb-backup");
                command
                    .arg("--prepare")
                    .arg(format!("--target-dir={}", dir.display()))
                    .arg(format!("--use-memory={memory}"));
                command
            }
            Self::Haulout(program) => {
                let mut command = Command::new(program);
                command.arg("prepare").arg(dir).arg(format!("--memory={memory}"));
                command
            }
        }
    }

    /// The command that places the prepared backup in `dir` into `datadir`.
    pub fn restore(&self, dir: &Path, datadir: &Path) -> Command {
        match self {
            Self::Stock(_) | Self::Links(_) => {
                let mut command = self.named("mariadb-backup");
                command
                    .args(["--no-defaults", "--copy-back"])
                    .arg(format!("--target-dir={}", dir.display()))
                    .arg(format!("--datadir={}", datadir.display()));
                command
            }
            Self::Haulout(program) => {
                let mut command = Command::new(program);
                command.arg("restore").arg(dir).arg("--to").arg(datadir);
                command
            }
        }
    }

    /// The command that unpacks its standard input into `dir`.
    pub fn extract(&self, dir: &Path, parallel: usize) -> Command {
        match self {
            Self::Stock(_) | Self::Links(_) => {
                let mut command = self.named("mbstream");
                command.args(["-x", "-p", &parallel.to_string(), "-C"]).arg(dir);
                command
            }
            Self::Haulout(program) => {
                let mut command = Command::new(program);
                command.arg("extract").arg("--to").arg(dir);
                command.arg(format!("--parallel={parallel}"));
                command
            }
        }
    }

    /// Takes a backup, with `--json` if the tool has it.
    pub fn run_backup(&self, server: &Server, target: &Path) -> Result<Finished> {
        let mut command = self.backup(server, target, &BackupOptions::default());
        if let Self::Haulout(_) = self {
            command.arg("--json");
        }
        self.checked(command)
    }

    /// Takes a backup under load, in tests that are about what is done with it later.
    pub fn run_backup_under_load(&self, server: &Server, target: &Path) -> Result<Finished> {
        self.persistently(|| {
            // What an attempt before left.
            if target.exists() {
                std::fs::remove_dir_all(target)?;
            }
            self.run_backup(server, target)
        })
    }

    /// Takes a backup by `backup`, which is called again when the stock tool failed: it gives up
    /// on tables that are renamed or dropped at the wrong moment. Ours has one attempt.
    pub fn persistently<T>(&self, mut backup: impl FnMut() -> Result<T>) -> Result<T> {
        const ATTEMPTS: u32 = 8;
        if let Self::Stock(_) = self {
            for _ in 1..ATTEMPTS {
                if let Ok(done) = backup() {
                    return Ok(done);
                }
            }
        }
        backup()
    }

    /// Prepares a backup with 256 MiB of memory, and tells what became of Aria's log. Only for
    /// our own tool.
    pub fn run_prepare_with_aria(&self, dir: &Path) -> Result<AriaOutcome> {
        let mut command = self.prepare(dir, 256 << 20);
        command.arg("--json");
        AriaOutcome::of(&self.checked(command)?)
    }

    /// Prepares a backup with 256 MiB of memory.
    pub fn run_prepare(&self, dir: &Path) -> Result<Finished> {
        self.checked(self.prepare(dir, 256 << 20))
    }

    /// Restores a prepared backup by copying.
    pub fn run_restore(&self, dir: &Path, datadir: &Path) -> Result<Finished> {
        self.checked(self.restore(dir, datadir))
    }

    /// Runs a command that has to succeed, by the tool's own rules of success.
    pub fn checked(&self, command: Command) -> Result<Finished> {
        let finished = process::run(command)?.success()?;
        if let Self::Stock(_) | Self::Links(_) = self
            && finished.command.contains("mariadb-backup")
            && !finished.stderr.contains("completed OK!")
        {
            bail!("no \"completed OK!\": {}", finished.report());
        }
        Ok(finished)
    }
}

/// What our prepare says of Aria's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AriaOutcome {
    /// Tables are whole.
    Recovered {
        /// Pages changed.
        pages: u64,
        /// Statements that were open.
        open: u64,
    },
    /// The server has to do it, for this reason.
    LeftToServer(String),
}

impl AriaOutcome {
    /// From the JSON document of a prepare.
    pub fn of(prepare: &Finished) -> Result<Self> {
        let document: serde_json::Value = serde_json::from_slice(&prepare.stdout)?;
        let aria = &document["aria"];
        let number = |name: &str| aria[name].as_u64().context("no number");
        match aria["state"].as_str() {
            Some("recovered") => {
                Ok(Self::Recovered { pages: number("pages")?, open: number("open_transactions")? })
            }
            Some("left_to_server") => {
                Ok(Self::LeftToServer(aria["reason"].as_str().unwrap_or_default().to_owned()))
            }
            _ => bail!("nothing about Aria: {document}"),
        }
    }

    /// Whether the stock tool of `generation` comes to the same bytes.
    pub fn is_as_by_stock(&self, generation: Generation) -> bool {
        generation >= Generation::V10_11 && matches!(self, Self::Recovered { open: 0, .. })
    }
}

/// The position that a backup recorded.
#[derive(Clone, Debug)]
pub struct BinlogPosition {
    /// Binary log file.
    pub file: String,
    /// Offset in the file.
    pub offset: u64,
    /// GTID position; empty when nothing was written yet.
    pub gtid: String,
}

impl BinlogPosition {
    /// Reads it from a backup directory, under the old or the new name.
    pub fn of_backup(dir: &Path) -> Result<Self> {
        let names = ["xtrabackup_binlog_info", "mariadb_backup_binlog_info"];
        let text = names.iter().find_map(|name| std::fs::read_to_string(dir.join(name)).ok());
        let text = text.with_context(|| format!("no binlog info in {}", dir.display()))?;
        let mut fields = text.trim_end_matches('\n').split('\t');
        let file = fields.next().unwrap_or_default().to_owned();
        let offset = fields.next().unwrap_or_default();
        let offset = offset.parse().with_context(|| format!("no offset in {text:?}"))?;
        Ok(Self { file, offset, gtid: fields.next().unwrap_or_default().to_owned() })
    }
}

/// Whether a directory holds something that a user or a script would take for a backup.
pub fn looks_like_backup(dir: &Path) -> bool {
    ["xtrabackup_checkpoints", "mariadb_backup_checkpoints"]
        .iter()
        .any(|name| dir.join(name).exists())
}
