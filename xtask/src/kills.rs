//! `cargo xtask kills`: commands on repositories killed at many random moments.

use harness::Result;

use crate::build::cargo_with;
use crate::setup;

/// How many moments, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// Number of moments
    #[arg(long, default_value_t = 200)]
    points: u32,
    /// What the moments are made from [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
}

/// Tries them all; ends at the first that left something wrong.
pub fn kills(arguments: &Arguments) -> Result<()> {
    setup::setup()?;
    let seed = arguments.seed.map(|seed| seed.to_string());
    let points = arguments.points.to_string();
    let mut variables = vec![("HAULOUT_KILLS", points.as_str())];
    variables.extend(seed.as_deref().map(|seed| ("HAULOUT_SEED", seed)));
    let test = ["test", "--package", "haulout", "--test", "repo_kills", "--", "--nocapture"];
    cargo_with(&test, &variables)
}
