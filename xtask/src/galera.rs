//! `cargo xtask galera`: nodes that join a cluster by a backup, with every pair of tools.

use anyhow::{Context, ensure};
use harness::galera::{NEEDS, Transfer};
use harness::{Generation, Result, Tool};

use crate::text::time;
use crate::{build, setup};

/// Which server, how often.
#[derive(clap::Args)]
pub struct Arguments {
    /// Series of the servers
    #[arg(long, env = "HAULOUT_SERVER", value_parser = ["10.5", "10.11", "11.8"], default_value = "10.11")]
    server: String,
    /// Transfers by each pair of tools
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Only transfers that one of ours takes part in
    #[arg(long)]
    ours: bool,
    /// Only transfers from our tool to our tool
    #[arg(long)]
    only_ours: bool,
    /// Change tables, too: donors do not block that, so both tools refuse some of the backups
    #[arg(long)]
    ddl: bool,
    /// Seed of the first load
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Makes all transfers; fails at the end when one of them failed.
pub fn galera(arguments: &Arguments) -> Result<()> {
    setup::install(NEEDS)?;
    let known = Generation::ALL.into_iter().find(|known| known.series() == arguments.server);
    let generation = known.context("no such server")?;
    let (ours, stock) = (build::release()?, Tool::Stock(generation));
    let pairs = [
        ("ours  to ours", &ours, &ours),
        ("stock to ours", &stock, &ours),
        ("ours  to stock", &ours, &stock),
        ("stock to stock", &stock, &stock),
    ];
    let pairs = &pairs[..if arguments.only_ours { 1 } else { 4 - usize::from(arguments.ours) }];
    let (mut failed, mut made) = (Vec::new(), 0);
    for number in 0..arguments.times {
        for (name, donor, joiner) in pairs {
            let seed = arguments.seed + number;
            let (donor, joiner) = ((*donor).clone(), (*joiner).clone());
            made += 1;
            match (Transfer { generation, donor, joiner, seed, ddl: arguments.ddl }).run() {
                Ok(done) => println!(
                    "{name:<14}  seed {seed}  ok  {} tables equal after {} changes of rows and {} of \
                     tables; joined in {}",
                    done.tables,
                    done.load.changes,
                    done.load.definitions,
                    time(done.took)
                ),
                Err(error) => {
                    println!("{name:<14}  seed {seed}  FAILED  {error:#}");
                    failed.push(format!("{name} (seed {seed})"));
                }
            }
        }
    }
    ensure!(
        failed.is_empty(),
        "{} of {made} transfers failed: {}",
        failed.len(),
        failed.join(", ")
    );
    Ok(())
}
