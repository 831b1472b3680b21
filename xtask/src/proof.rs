//! `cargo xtask proof`: many replica proofs in a row.

use anyhow::ensure;
use harness::proof::Proof;
use harness::{ChecksumAlgorithm, Result};

use crate::build::{self, ToolName};
use crate::setup;
use crate::text::time;

/// How many, on what kind of server.
#[derive(clap::Args)]
pub struct Arguments {
    /// Number of seeds
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// `innodb_page_size` in KiB
    #[arg(long, default_value_t = 16)]
    page_size: u32,
    /// `innodb_checksum_algorithm`
    #[arg(long, default_value = "full_crc32", value_parser = ["full_crc32", "crc32"])]
    checksum: String,
    /// Tool to put to the proof
    #[arg(long, default_value = "haulout")]
    tool: ToolName,
}

/// Runs all proofs; fails at the end when one of them failed.
pub fn proof(arguments: &Arguments) -> Result<()> {
    setup::setup()?;
    let tool = build::tool(arguments.tool)?;
    let mut failed = Vec::new();
    for seed in arguments.first..arguments.first + arguments.seeds {
        let mut proof = Proof::new(seed, tool.clone());
        proof.server.page_size = arguments.page_size << 10;
        if arguments.checksum == "crc32" {
            proof.server.checksum = ChecksumAlgorithm::Crc32;
        }
        match proof.run() {
            Ok(report) => println!(
                "seed {seed:>4}  ok  {} tables, {} changes of rows, {} of tables; backup {}",
                report.tables,
                report.load.changes,
                report.load.definitions,
                time(report.backup.cost.wall)
            ),
            Err(error) => {
                println!("seed {seed:>4}  FAILED  {error:#}");
                failed.push(seed);
            }
        }
    }
    ensure!(
        failed.is_empty(),
        "{} of {} proofs failed: seeds {failed:?}",
        failed.len(),
        arguments.seeds
    );
    println!("{} proofs, 0 failures", arguments.seeds);
    Ok(())
}
