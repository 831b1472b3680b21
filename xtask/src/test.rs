//! `cargo xtask test`: everything that has to pass before a change goes in.

use harness::{Generation, Result, generation};

use crate::build::{cargo, cargo_with, root};
use crate::{fuzz, setup};

/// Test files that need no server or any server, or name the generations that they are about: once
/// is enough.
const RUN_ONCE: [&str; 13] = [
    "aria",
    "cli",
    "delta_faults",
    "encryption",
    "export",
    "generations",
    "matrix",
    "partial",
    "repo_kills",
    "repo_tables",
    "repository",
    "traps",
    "wal_g",
];

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

/// Runs it all.
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
    // Without --no-fail-fast the first failing file would hide the others, and so would the first
    // failing generation.
    let mut result = cargo(&["test", "--workspace", "--no-fail-fast"]);
    // The tests of the program against real servers once more on every other generation.
    let repeated = repeated()?;
    for generation in Generation::ALL.into_iter().filter(|one| *one != Generation::under_test()) {
        println!("system tests on MariaDB {}", generation.series());
        let mut arguments = vec!["test", "--package", "haulout", "--no-fail-fast"];
        for name in &repeated {
            arguments.extend(["--test", name]);
        }
        result = result.and(cargo_with(&arguments, &[(generation::VARIABLE, generation.series())]));
    }
    result
}

/// The test files of the root package that are run on every generation.
fn repeated() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("tests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            && !RUN_ONCE.contains(&name)
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
