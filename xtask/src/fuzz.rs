//! `cargo xtask fuzz`: all fuzz targets in turn.
//!
//! The targets are a workspace of their own, below `tests/fuzz`. Coverage instrumentation is
//! passed by flags, so that the stable toolchain is enough.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use harness::Result;

use crate::build::{root, visible};
use crate::setup;

/// What libFuzzer needs to see which branches an input takes.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions=on -Coverflow-checks=on";

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
    let root = root().canonicalize()?;
    let home = root.join("tests/fuzz");
    let corpus = home.join("corpus").join(target);
    let artifacts = home.join("artifacts").join(target);
    for dir in [&corpus, &artifacts] {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let mut command = Command::new("cargo");
    command
        .current_dir(&home)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", root.join("target/fuzz"))
        // With a target named, build scripts and macros are not instrumented.
        .args(["run", "--quiet", "--release", "--target", &host()?, "--bin", target, "--"])
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"]);
    let seeds = home.join("seeds").join(target);
    if Path::new(&seeds).exists() {
        command.arg(seeds);
    }
    visible(command)
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}
