//! The replica proof of a chain: a full backup and its deltas, each by a tool of its own, under load
//! and with DDL all the time; prepared by several tools, of which each copy has to become a replica
//! that equals its source.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::compare;
use crate::load::{Load, LoadOptions, LoadReport};
use crate::proof::{attach, create_replication_user, ensure_equal, replica_options};
use crate::scratch::copy_tree;
use crate::tool::{BackupOptions, BinlogPosition};
use crate::{Result, Scratch, Server, ServerOptions, Tool, process};

/// One chain.
pub struct Chain {
    /// The source.
    pub server: ServerOptions,
    /// What happens on it.
    pub load: LoadOptions,
    /// Who takes the full backup and then each delta.
    pub links: Vec<Tool>,
    /// Who prepares it; each works on copies.
    pub prepare: Vec<Tool>,
    /// How long the load runs before each backup.
    pub between: Duration,
}

/// What a successful proof saw.
#[derive(Debug)]
pub struct ChainReport {
    /// What the load did.
    pub load: LoadReport,
    /// Tables compared, of all copies.
    pub tables: usize,
    /// Copies of which the stock tool could not prepare a delta of its own.
    pub given_up: usize,
}

/// What the stock tool says of a delta of its own that has a table, renamed while it was taken, as a new
/// one: it has the tablespace twice then. Such a delta says nothing about ours.
const TWICE: &str = "Attempted to open a previously opened tablespace";

impl Chain {
    /// Runs it. Any difference is an error that names it; the scratch directory then stays.
    pub fn run(&self) -> Result<ChainReport> {
        let scratch = Scratch::new()?;
        self.run_in(&scratch).map_err(|error| {
            let (dir, seed) = (scratch.keep(), self.load.seed);
            error.context(format!("chain of seed {seed}, kept in {}", dir.display()))
        })
    }

    fn run_in(&self, scratch: &Scratch) -> Result<ChainReport> {
        let source = self.server.start()?;
        create_replication_user(&source)?;
        let load = Load::start(&source, &self.load)?;
        let mut dirs: Vec<PathBuf> = Vec::new();
        for (number, tool) in self.links.iter().enumerate() {
            std::thread::sleep(self.between);
            let dir = scratch.join(&format!("link{number}"));
            back_up(tool, &source, &dir, dirs.last().map(PathBuf::as_path))?;
            dirs.push(dir);
        }
        std::thread::sleep(self.between);
        let load = load.stop()?;
        let (mut tables, mut given_up) = (0, 0);
        for (number, tool) in self.prepare.iter().enumerate() {
            let copies = scratch.join(&format!("copy{number}"));
            let compared = self
                .prove(tool, &source, &dirs, &copies)
                .with_context(|| format!("prepared by {tool:?}"))?;
            tables += compared.unwrap_or(0);
            given_up += usize::from(compared.is_none());
        }
        Ok(ChainReport { load, tables, given_up })
    }

    /// Prepares copies of all links, restores them, and proves that they are right. `None` if the stock
    /// tool could not prepare a delta of its own.
    fn prove(
        &self,
        tool: &Tool,
        source: &Server,
        links: &[PathBuf],
        copies: &Path,
    ) -> Result<Option<usize>> {
        std::fs::create_dir(copies)?;
        let copy = |number: usize| copies.join(number.to_string());
        for (number, link) in links.iter().enumerate() {
            copy_tree(link, &copy(number))?;
        }
        tool.run_prepare(&copy(0))?;
        for (number, by) in self.links.iter().enumerate().skip(1) {
            let command = tool.apply_delta(&copy(0), &copy(number));
            if let (Tool::Stock(_), Tool::Stock(_)) = (tool, by) {
                let finished = process::run(command)?;
                if finished.stderr.contains(TWICE) {
                    return Ok(None);
                }
                ensure!(finished.stderr.contains("completed OK!"), "{}", finished.report());
            } else {
                tool.checked(command)?;
            }
        }
        let datadir = copies.join("datadir");
        tool.run_restore(&copy(0), &datadir)?;
        let position = BinlogPosition::of_backup(&copy(0))?;
        let booted = replica_options(&self.server).start_on(&datadir)?;
        let complaints = compare::check_tables(&booted)?;
        ensure!(complaints.is_empty(), "the copy is damaged:\n{}", complaints.join("\n"));
        attach(source, &booted, &position)?;
        let tables = ensure_equal(source, &booted)?;
        let errors = booted.logged_errors()?;
        ensure!(errors.is_empty(), "the copy's server logged errors:\n{}", errors.join("\n"));
        Ok(Some(tables))
    }
}

/// Takes one link.
fn back_up(tool: &Tool, source: &Server, dir: &Path, base: Option<&Path>) -> Result<()> {
    let extra: Vec<String> = base.map(|base| tool.since(base)).into_iter().collect();
    tool.persistently(|| {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        let options = BackupOptions { extra: extra.clone(), ..BackupOptions::default() };
        tool.checked(tool.backup(source, dir, &options)).map(drop)
    })
}
