//! `cargo xtask bench`: ours against the stock tool, in turn, on the same data.
//!
//! Each round runs stock and ours once, in alternating order, on data that is in the page
//! cache, and removes what they wrote. Ratios are taken within a round; the table shows the
//! medians. The floors (`cat`, `cp`) show what reading once and copying once cost here.

mod binlog;
mod chain;
mod data;
mod delta;
mod locks;
mod logs;
mod repository;
mod rounds;
mod table;

use harness::{Result, Tool};

use crate::{build, setup, text};
use data::{Data, Kind};
use table::Table;

/// What to measure, on how much data.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to measure; everything when nothing is named
    what: Vec<What>,
    /// How the tables are stored
    #[arg(long, value_enum, default_value_t)]
    data: Kind,
    /// Size of the sysbench data in GB
    #[arg(long, default_value_t = 2.9)]
    size_gb: f64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads of either tool
    #[arg(long, default_value_t = 2)]
    parallel: usize,
    /// Redo of the backup that is prepared, in MiB
    #[arg(long, default_value_t = 816)]
    redo_mib: u64,
    /// Redo of the backup that is restored from a bucket, in MiB
    #[arg(long, default_value_t = 500)]
    stored_redo_mib: u64,
}

/// One thing that both tools do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Backup to a folder
    Backup,
    /// Backup to a stream
    Stream,
    /// Prepare after a write-heavy backup
    Prepare,
    /// Unpacking a stream
    Extract,
    /// The longest waits of commits and DDL during a backup under load
    Locks,
    /// Backup into a bucket, against the stock tool, zstd and the aws command line in a pipe
    Store,
    /// Restore from a bucket, against the aws command line, zstd, mbstream and the stock tool
    Fetch,
    /// An incremental backup, and the prepare of a chain of three
    Delta,
    /// The text of a large binary log, and looking for something in it
    Binlog,
    /// A million changes of rows replayed onto a server, and served to a replica
    Replay,
    /// Restore of a full backup with six deltas from a bucket, against that of the full one alone
    Chain,
    /// `cat` and `cp` of the data directory
    Floors,
}

const EVERYTHING: [What; 12] = [
    What::Floors,
    What::Backup,
    What::Stream,
    What::Locks,
    What::Extract,
    What::Prepare,
    What::Delta,
    What::Store,
    What::Fetch,
    What::Binlog,
    What::Replay,
    What::Chain,
];

/// Measures and prints the table.
pub fn bench(arguments: &Arguments) -> Result<()> {
    // The S3 server runs in this process, and a slow one would be all that is measured.
    if cfg!(debug_assertions) {
        return build::optimised_self();
    }
    setup::setup()?;
    let tools = [Tool::stock(), build::release()?];
    let what = if arguments.what.is_empty() { &EVERYTHING[..] } else { &arguments.what };
    let of_logs = |what: &What| matches!(what, What::Binlog | What::Replay);
    let mut table = Table::default();
    for what in what.iter().filter(|what| of_logs(what)) {
        eprintln!("measuring {what:?}, {} rounds", arguments.rounds);
        match what {
            What::Binlog => binlog::dump(arguments, &tools, &mut table)?,
            _ => binlog::replay(arguments, &tools, &mut table)?,
        }
    }
    if what.iter().all(of_logs) {
        println!("median of {} rounds", arguments.rounds);
        println!("{table}");
        return Ok(());
    }
    let data = Data::open(arguments.size_gb, arguments.data)?;
    for what in what.iter().filter(|what| !of_logs(what)) {
        eprintln!("measuring {what:?}, {} rounds", arguments.rounds);
        match what {
            What::Delta => delta::measure(arguments, &tools, &data, &mut table)?,
            What::Chain => chain::measure(arguments, &tools, &data, &mut table)?,
            What::Store => repository::store(arguments, &tools, &data, &mut table)?,
            What::Fetch => repository::fetch(arguments, &tools, &data, &mut table)?,
            _ => rounds::measure(*what, arguments, &tools, &data, &mut table)?,
        }
    }
    println!(
        "{:?} sysbench data of {}, {} threads, median of {} rounds, {} processors",
        arguments.data,
        text::size(data.bytes()?),
        arguments.parallel,
        arguments.rounds,
        std::thread::available_parallelism()?
    );
    println!("{table}");
    Ok(())
}
