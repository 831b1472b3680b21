//! `cargo xtask targets`: a replay to many random targets, and to as many without one transaction, on
//! every generation of servers.

use anyhow::ensure;
use harness::{Generation, Result, generation};

use crate::build::cargo_with;
use crate::setup;

/// Targets of one load: a longer one takes longer to replay for each of them.
const OF_ONE_LOAD: u64 = 10;

/// How many, and on which servers.
#[derive(clap::Args)]
pub struct Arguments {
    /// Number of targets on each generation
    #[arg(long, default_value_t = 100)]
    targets: u64,
    /// What the first load is made from; each further one from the next number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this generation: 10.5, 10.11 or 11.8
    #[arg(long)]
    server: Option<String>,
}

/// Tries them all; fails at the end when a load had a target that was not reached exactly.
pub fn targets(arguments: &Arguments) -> Result<()> {
    setup::setup()?;
    let wanted = |one: &Generation| arguments.server.as_ref().is_none_or(|it| it == one.series());
    let generations: Vec<_> = Generation::ALL.into_iter().filter(wanted).collect();
    ensure!(!generations.is_empty(), "known are 10.5, 10.11 and 11.8");
    let mut failed = Vec::new();
    for generation in generations {
        let mut left = arguments.targets;
        let mut seed = arguments.seed;
        while left > 0 {
            let now = left.min(OF_ONE_LOAD);
            let variables = [
                ("HAULOUT_REPLAY_TARGETS", now.to_string()),
                ("HAULOUT_REPLAY_SEED", seed.to_string()),
                (generation::VARIABLE, generation.series().to_owned()),
            ];
            let variables: Vec<_> = variables.iter().map(|(name, it)| (*name, &**it)).collect();
            let test = ["test", "--quiet", "--package", "haulout", "--test", "replay_random"];
            let only = ["--", "--test-threads=1", "--nocapture"];
            let done = cargo_with(&[&test[..], &only[..]].concat(), &variables);
            let verdict = if done.is_ok() { "ok" } else { "FAILED" };
            println!("MariaDB {}, seed {seed}: {now} targets  {verdict}", generation.series());
            if done.is_err() {
                failed.push(format!("{} with seed {seed}", generation.series()));
            }
            left -= now;
            seed += 1;
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    println!("all targets reached, exactly, whole and without one transaction");
    Ok(())
}
