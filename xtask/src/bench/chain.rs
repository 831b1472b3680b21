//! A full backup with six deltas in a bucket: restored whole, against the full one alone, and for one
//! table of some 50 MB.
//!
//! Both sides are ours here; the "stock" of the table is the full backup.

use std::process::Command;

use anyhow::{Context, ensure};
use harness::process::{self, Cost};
use harness::tool::BackupOptions;
use harness::{Result, Tool};
use serde_json::Value;

use super::Arguments;
use super::data::{Data, remove};
use super::repository::Bucket;
use super::rounds::{clear, run, sync_disks};
use super::table::{Row, Table};
use crate::text::size;

/// Transactions between two backups, of some four rows each: three per cent of the pages.
const CHANGES: u64 = 900;
const LINKS: usize = 6;
/// Rows of the one table.
const ROWS: u64 = 220_000;
const REPO: &str = "chain";

/// Measures both.
pub fn measure(
    arguments: &Arguments,
    tools: &[Tool; 2],
    data: &Data,
    table: &mut Table,
) -> Result<()> {
    let (bucket, ours) = (Bucket::start()?, &tools[1]);
    let options = BackupOptions { parallel: arguments.parallel, ..BackupOptions::default() };
    bucket.init(ours, REPO)?;
    let server = data.copied_server()?;
    server.run("CREATE TABLE sbtest.one LIKE sbtest.sbtest1")?;
    server.run(&format!("INSERT INTO sbtest.one SELECT * FROM sbtest.sbtest1 LIMIT {ROWS}"))?;
    let mut names = Vec::new();
    for link in 0..=LINKS {
        data.change(&server, CHANGES)?;
        let mut command = bucket.our_backup(ours, &server, &options, "zstd:1", REPO)?;
        command.arg("--json").args((link > 0).then_some("--delta"));
        let made = json(command)?;
        names.push(made["name"].as_str().context("no name")?.to_owned());
    }
    drop(server);
    remove(&data.scratch("source"))?;
    for (what, name) in [("full backup", &names[0]), ("last delta", &names[LINKS])] {
        eprintln!("  one table of the {what}: {}", one_table(&bucket, ours, data, name)?);
    }

    let target = data.scratch("target");
    let mut row = Row::pair("restore full + 6 deltas (stock: the full alone)");
    let once = |name: &String| -> Result<Cost> {
        clear(&target)?;
        sync_disks()?;
        let mut command = bucket.haulout(ours, "restore", REPO)?;
        command.arg(name).arg("--to").arg(&target);
        command.arg(format!("--parallel={}", arguments.parallel));
        run(command)
    };
    for _ in 0..arguments.rounds {
        let (full, chain) = (once(&names[0])?, once(&names[LINKS])?);
        eprintln!(
            "  full alone {:.2} s, with {LINKS} deltas {:.2} s",
            full.wall.as_secs_f64(),
            chain.wall.as_secs_f64()
        );
        row.add_pair(full, chain);
    }
    table.push(row);
    clear(&target)
}

/// What is fetched for one table, in words.
fn one_table(bucket: &Bucket, ours: &Tool, data: &Data, name: &str) -> Result<String> {
    let target = data.scratch("table");
    remove(&target)?;
    let restore = |more: Option<&str>| {
        let mut command = bucket.haulout(ours, "restore", REPO)?;
        command.args([name, "--table=sbtest.one", "--json"]).arg("--to").arg(&target).args(more);
        json(command)
    };
    let (plan, done) = (restore(Some("--plan"))?, restore(None)?);
    remove(&target)?;
    let number = |document: &Value, name: &str| document[name].as_u64().context("no number");
    let table = number(&plan, "table_stored_bytes")?;
    let redo = number(&plan, "redo_stored_bytes")?;
    let fetched = number(&done, "fetched_bytes")?;
    ensure!(fetched == number(&plan, "stored_bytes")?, "planned otherwise: {plan}, {done}");
    Ok(format!(
        "fetched {}, of it {} of redo and {} of the table: {:.2} of it without the redo",
        size(fetched),
        size(redo),
        size(table),
        (fetched - redo) as f64 / table as f64
    ))
}

fn json(command: Command) -> Result<Value> {
    let done = process::run(command)?.success()?;
    Ok(serde_json::from_slice(&done.stdout)?)
}
