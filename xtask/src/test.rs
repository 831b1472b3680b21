//! `cargo xtask test`: everything that has to pass before a change goes in.

use harness::{Generation, Result, generation};

use crate::build::{cargo, cargo_with};
use crate::{fuzz, setup};

/// What to leave out.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave out the tests against real servers, and the fuzz targets
    #[arg(long)]
    quick: bool,
    /// Leave out the fuzz targets
    #[arg(long)]
    no_fuzz: bool,
}

/// Runs it all; stops at the first failure.
pub fn test(arguments: &Arguments) -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    if arguments.quick {
        return cargo(&["test", "--workspace", "--exclude", "haulout"]);
    }
    setup::setup()?;
    if !arguments.no_fuzz {
        fuzz::briefly()?;
    }
    // Without --no-fail-fast the first failing file would hide the others.
    cargo(&["test", "--workspace", "--no-fail-fast"])?;
    // The tests of the program against real servers once more on every other generation.
    for generation in Generation::ALL.into_iter().filter(|one| *one != Generation::under_test()) {
        println!("system tests on MariaDB {}", generation.series());
        let system_tests = ["test", "--package", "haulout", "--no-fail-fast"];
        cargo_with(&system_tests, (generation::VARIABLE, generation.series()))?;
    }
    Ok(())
}
