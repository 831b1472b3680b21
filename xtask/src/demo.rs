//! `cargo xtask demo`: the whole way once, told as it happens.

use std::time::{Duration, Instant};

use harness::process::Finished;
use harness::proof::{Proof, Step};
use harness::scratch::tree_size;
use harness::{Result, compare};

use crate::build::{self, ToolName};
use crate::setup;
use crate::text::{size, time};

/// How much data, and who does the work.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rows of each table before the backup starts
    #[arg(long, default_value_t = 20_000)]
    rows: u64,
    /// Seed of the random load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tool to demonstrate
    #[arg(long, default_value = "haulout")]
    tool: ToolName,
}

/// Runs the demonstration. An error is the verdict "not proved".
pub fn demo(arguments: &Arguments) -> Result<()> {
    setup::setup()?;
    let tool = build::tool(arguments.tool)?;
    let mut proof = Proof::new(arguments.seed, tool);
    proof.load.rows = arguments.rows;
    proof.around = Duration::from_secs(3);

    println!(
        "A busy server, its backup by {}, and the proof that the copy is right",
        proof.tool.name()
    );
    let started = Instant::now();
    let mut problem = None;
    let report = proof.run_telling(&mut |step| {
        if let Err(error) = tell(&step, started) {
            problem = Some(error);
        }
    });
    if let Some(error) = problem {
        return Err(error);
    }
    let report = report.map_err(|error| error.context("verdict: NOT PROVED"))?;
    line(
        started,
        "compare",
        &format!("CHECKSUM TABLE, definitions and lists of {} tables are equal", report.tables),
    );
    println!(
        "\nverdict: the copy equals its source. Backup {} of a data directory of {}; \
         backup {}, prepare {}, restore {}.",
        size(report.backup_bytes),
        size(report.source_bytes),
        time(report.backup.cost.wall),
        time(report.prepare.cost.wall),
        time(report.restore.cost.wall),
    );
    Ok(())
}

fn tell(step: &Step<'_>, started: Instant) -> Result<()> {
    match step {
        Step::Loaded(server) => {
            let mut client = server.client()?;
            let version = client.scalar("SELECT VERSION()")?.unwrap_or_default();
            line(
                started,
                "server",
                &format!("MariaDB {version}, private, on port {}", server.port()),
            );
            let engines: Vec<String> = compare::tables_by_engine(&mut client)?
                .into_iter()
                .map(|(engine, tables)| format!("{tables} {engine}"))
                .collect();
            line(
                started,
                "data",
                &format!("{} in {} tables", size(tree_size(server.datadir())?), engines.join(", ")),
            );
            line(started, "load", "changes of rows and of tables go on in 4 threads");
        }
        Step::BackedUp(run) => {
            line(started, "backup", &cost(run));
            if let Some(blocked) = blocked(run) {
                line(started, "locks", &blocked);
            }
        }
        Step::LoadStopped(load) => line(
            started,
            "load",
            &format!(
                "stopped after {} changes of rows and {} of tables",
                load.changes, load.definitions
            ),
        ),
        Step::Prepared(run) => line(started, "prepare", &cost(run)),
        Step::Restored(run) => line(started, "restore", &cost(run)),
        Step::Booted(_) => {
            line(started, "boot", "a server runs on the copy; CHECK TABLE is content")
        }
        Step::CaughtUp(position, took) => line(
            started,
            "replica",
            &format!(
                "attached at GTID {} ({} {}), caught up in {}",
                position.gtid,
                position.file,
                position.offset,
                time(*took)
            ),
        ),
    }
    Ok(())
}

fn line(started: Instant, what: &str, text: &str) {
    println!("{:>6.1} s  {what:<8} {text}", started.elapsed().as_secs_f64());
}

fn cost(run: &Finished) -> String {
    format!(
        "{} ({} of processor time, {} of memory at most)",
        time(run.cost.wall),
        time(run.cost.cpu),
        size(run.cost.peak_memory)
    )
}

/// How long others had to wait, when the tool reports it.
fn blocked(run: &Finished) -> Option<String> {
    let summary: serde_json::Value = serde_json::from_slice(&run.stdout).ok()?;
    let seconds = |name: &str| {
        summary.get(name).and_then(serde_json::Value::as_f64).map(Duration::from_secs_f64)
    };
    Some(format!(
        "DDL had to wait {}, commits {}",
        time(seconds("ddl_blocked_seconds")?),
        time(seconds("commit_blocked_seconds")?)
    ))
}
