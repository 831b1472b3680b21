//! `cargo xtask matrix`: random kinds of servers, and everything that has to hold on each.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::ensure;
use harness::matrix::{Cell, Outcome, run};
use harness::{Generation, Result};

use crate::build;
use crate::setup;

/// Which cells.
#[derive(clap::Args)]
pub struct Arguments {
    /// Number of seeds on each server
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Series of the server; all of them without
    #[arg(long, value_parser = ["10.5", "10.11", "11.8"])]
    server: Option<String>,
    /// Tell which cells there are, and run none
    #[arg(long)]
    list: bool,
}

/// Cells that ended in each way.
#[derive(Clone, Copy, Default)]
struct Count {
    ok: u64,
    refused: u64,
    failed: u64,
}

type Counts = BTreeMap<(&'static str, String), BTreeMap<&'static str, Count>>;

/// Runs all cells; fails at the end when one of them failed.
pub fn matrix(arguments: &Arguments) -> Result<()> {
    let wanted = |known: &Generation| {
        arguments.server.as_deref().is_none_or(|series| known.series() == series)
    };
    let seeds = arguments.first..arguments.first + arguments.seeds;
    // Server by server within a seed, so that a run that is ended early has seen all of them.
    let cells: Vec<Cell> = seeds
        .flat_map(|seed| {
            Generation::ALL.into_iter().filter(wanted).map(move |known| Cell::random(known, seed))
        })
        .collect();
    if arguments.list {
        for cell in &cells {
            println!("{:>5} seed {:>4}  {cell}", cell.generation.series(), cell.seed);
        }
        return Ok(());
    }
    setup::setup()?;
    let tool = build::release()?;
    let (mut counts, mut failed) = (Counts::new(), Vec::new());
    for cell in &cells {
        let started = Instant::now();
        let outcome = run(cell, &tool);
        let (word, text) = match &outcome {
            Ok(Outcome::Ok(done)) => ("ok", done.to_string()),
            Ok(Outcome::Refused(reason)) => ("refused", reason.clone()),
            Ok(Outcome::Failed { findings, kept }) => {
                failed.push(cell.command());
                let findings = findings.join("\n").replace('\n', "\n        ");
                let command = cell.command();
                let kept = kept.display();
                (
                    "FAILED",
                    format!("\n        {findings}\n        kept in {kept}; again: {command}"),
                )
            }
            Err(error) => {
                failed.push(cell.command());
                ("FAILED", format!("\n        {error:#}\n        again: {}", cell.command()))
            }
        };
        println!(
            "{:>5} seed {:>4}  {word:<7} {:>3.0} s  {cell} | {text}",
            cell.generation.series(),
            cell.seed,
            started.elapsed().as_secs_f64()
        );
        count(&mut counts, cell, word);
    }
    summary(&counts);
    ensure!(
        failed.is_empty(),
        "{} of {} cells failed:\n{}",
        failed.len(),
        cells.len(),
        failed.join("\n")
    );
    Ok(())
}

fn count(counts: &mut Counts, cell: &Cell, word: &str) {
    let mut rows = vec![("", "all cells".to_owned())];
    rows.extend(cell.traits());
    for row in rows {
        let count = counts.entry(row).or_default().entry(cell.generation.series()).or_default();
        match word {
            "ok" => count.ok += 1,
            "refused" => count.refused += 1,
            _ => count.failed += 1,
        }
    }
}

/// How many cells of each kind ended how.
fn summary(counts: &Counts) {
    println!("\n{:<32}{:^22}{:^22}{:^22}", "ok / refused / failed", "10.5", "10.11", "11.8");
    for ((name, value), by_server) in counts {
        let row = format!("{name} {value}");
        print!("{:<32}", row.trim());
        for known in Generation::ALL {
            let text = match by_server.get(known.series()) {
                Some(count) => format!("{} / {} / {}", count.ok, count.refused, count.failed),
                None => "–".to_owned(),
            };
            print!("{text:^22}");
        }
        println!();
    }
}
