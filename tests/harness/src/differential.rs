//! The differential proof: one raw backup, prepared by the stock tool and by ours.
//!
//! Both must come to the same bytes, and the server's own checker must accept every page.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::load::{Load, LoadOptions};
use crate::pages::{self, Comparison};
use crate::scratch::copy_tree;
use crate::{Result, Scratch, Server, ServerOptions, Tool};

/// One proof: what server, what load, which tools.
pub struct Differential {
    /// The source.
    pub server: ServerOptions,
    /// What happens on it.
    pub load: LoadOptions,
    /// Whether the first tables are in their files before the backup starts. Else most tables are
    /// young, and redo makes all their pages.
    pub checkpoint: bool,
    /// Who takes the backup.
    pub backup_by: Tool,
    /// Who prepares it beside the stock tool.
    pub tool: Tool,
}

/// What a successful proof saw.
#[derive(Debug)]
pub struct DifferentialReport {
    /// The two prepared copies; without differences.
    pub comparison: Comparison,
    /// What the stock tool's prepare changed.
    pub changed: Comparison,
}

impl Differential {
    /// Runs it. Any difference is an error that names it; the scratch directory then stays.
    pub fn run(&self) -> Result<DifferentialReport> {
        let scratch = Scratch::new()?;
        self.run_in(&scratch).map_err(|error| {
            let dir = scratch.keep();
            error.context(format!("seed {}, kept in {}", self.load.seed, dir.display()))
        })
    }

    fn run_in(&self, scratch: &Scratch) -> Result<DifferentialReport> {
        let raw = scratch.join("raw");
        let source = self.server.start()?;
        let load = Load::start(&source, &self.load)?;
        if self.checkpoint {
            // Under load it can take longer than a client waits; then part of it was done.
            let _ = source.checkpoint();
        }
        wait_for_redo(&source)?;
        self.backup_by.run_backup_under_load(&source, &raw)?;
        load.stop()?;
        drop(source);

        let (left, right) = (scratch.join("stock"), scratch.join("haulout"));
        copy_tree(&raw, &left)?;
        copy_tree(&raw, &right)?;
        Tool::stock().run_prepare(&left)?;
        let aria = self.tool.run_prepare_with_aria(&right)?;
        if aria.is_as_by_stock(self.server.generation) {
            let comparison = pages::compare_aria(&left, &right)?;
            ensure!(comparison.differences.is_empty(), "Aria: {}", comparison.report());
        }
        let page_size = self.server.page_size as usize;
        let comparison = pages::compare(&left, &right, page_size)?;
        ensure!(comparison.differences.is_empty(), "{}", comparison.report());
        let complaints = pages::innochecksum(self.server.generation, &right, page_size)?;
        ensure!(complaints.is_empty(), "innochecksum:\n{}", complaints.join("\n"));
        let changed = pages::compare(&raw, &left, page_size)?;
        Ok(DifferentialReport { comparison, changed })
    }
}

/// Waits until the load has written some redo, however slow the machine is.
fn wait_for_redo(server: &Server) -> Result<()> {
    const ENOUGH: u64 = 1 << 20;
    const LIMIT: Duration = Duration::from_secs(60);
    let mut client = server.client()?;
    let mut lsn = || -> Result<u64> {
        let status = client.named("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'")?;
        let value = status.iter().find(|(name, _)| name == "Value").map(|(_, value)| value);
        Ok(value.context("no LSN in the status")?.parse()?)
    };
    let (started, begin) = (Instant::now(), lsn()?);
    while lsn()? < begin + ENOUGH {
        ensure!(started.elapsed() < LIMIT, "the load writes no redo");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}
