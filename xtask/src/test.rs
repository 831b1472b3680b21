//! `cargo xtask test`: everything that has to pass before a change goes in.

use harness::Result;

use crate::build::cargo;
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
    cargo(&["test", "--workspace", "--no-fail-fast"])
}
