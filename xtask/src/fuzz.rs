//! `cargo xtask fuzz`: all fuzz targets in turn.
//!
//! The targets are a workspace of their own, below `tests/fuzz`; cargo takes the compiler flags
//! from the configuration that is there.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use harness::Result;

use crate::build::{root, visible};
use crate::setup;

/// How long.
#[derive(clap::Args)]
pub struct Arguments {
    /// Time for all targets together, in seconds
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Only targets whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

/// Runs the targets; the first crash ends the run.
pub fn fuzz(arguments: &Arguments) -> Result<()> {
    setup::setup()?;
    let targets = targets(&arguments.only)?;
    ensure!(!targets.is_empty(), "no fuzz target has {:?} in its name", arguments.only);
    let each = (arguments.seconds / targets.len() as u64).max(1);
    for target in &targets {
        println!("{target}: {each} s");
        run(target, each)?;
    }
    println!("{} targets, no crash", targets.len());
    Ok(())
}

/// Each target for a moment, as part of the tests.
pub fn briefly() -> Result<()> {
    for target in targets("")? {
        run(&target, 5)?;
    }
    Ok(())
}

fn targets(only: &str) -> Result<Vec<String>> {
    let dir = root().join("tests/fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str())
            && path.extension().is_some_and(|extension| extension == "rs")
            && name.contains(only)
        {
            targets.push(name.to_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

fn run(target: &str, seconds: u64) -> Result<()> {
    let home = root().join("tests/fuzz").canonicalize()?;
    let corpus = Path::new("corpus").join(target);
    std::fs::create_dir_all(home.join(&corpus))
        .with_context(|| format!("create {}", corpus.display()))?;
    let mut command = Command::new("cargo");
    command
        .current_dir(&home)
        // Either would replace what the configuration there says.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .args(["run", "--quiet", "--release", "--bin", target, "--"])
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"])
        .arg(corpus);
    let seeds = Path::new("seeds").join(target);
    if home.join(&seeds).exists() {
        command.arg(seeds);
    }
    visible(command)
}
