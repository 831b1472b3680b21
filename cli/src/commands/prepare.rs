//! `haulout prepare`.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::aria::AriaSummary;
use engine::prepare::{self, PrepareOptions, PrepareSummary};
use engine::{Cancel, Reporter, Result};

use super::keys::Keys;
use super::{counted, parse_threads, quoted};
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::machine;
use crate::size::Size;

const EXAMPLES: &str = "\
Examples:
  haulout prepare /backups/monday
  haulout prepare /backups/monday --memory 1GiB --parallel 8
  haulout prepare /backups/monday --keys-file /secure/keys.enc --keys-password-file /secure/pw
  haulout prepare /backups/monday --delta /backups/tuesday --delta /backups/wednesday
  haulout prepare /backups/monday --export";

/// Make a backup consistent: apply the redo that was copied with it
///
/// May be interrupted at any time and run again. Transactions that were open are rolled back by
/// the server at its first start, as after a crash.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Prepare {
    /// Directory that holds the backup
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Apply this delta to the backup, which must be prepared; several in the order in which they
    /// were taken. The delta itself is not changed
    #[arg(long = "delta", value_name = "DIR")]
    deltas: Vec<PathBuf>,
    /// Most memory to use for redo and pages [default: a quarter of what is available, at least
    /// 128MiB]
    #[arg(long, value_name = "SIZE", env = "HAULOUT_MEMORY")]
    memory: Option<Size>,
    /// Applying threads [default: the cores, at most 4]
    #[arg(long, value_name = "N", env = "HAULOUT_PARALLEL", value_parser = parse_threads)]
    parallel: Option<usize>,
    #[command(flatten)]
    keys: Keys,
    /// Also write a .cfg beside every .ibd, so that a running server can import single tables;
    /// works on a prepared backup too
    #[arg(long)]
    export: bool,
}

impl Prepare {
    /// Prepares the backup.
    pub fn run(self, cancel: &Cancel, reporter: &dyn Reporter) -> Result<Outcome> {
        let options = PrepareOptions {
            dir: self.dir.clone(),
            deltas: self.deltas,
            memory: self.memory.unwrap_or_else(machine::default_memory).0,
            parallel: self.parallel.unwrap_or_else(machine::default_threads),
            keys: self.keys.resolve(reporter)?,
            export: self.export,
            leave_damaged_pages: None,
        };
        let summary = prepare::prepare(options, cancel, reporter)?;
        Outcome::new(&summary, describe(&summary, &self.dir))
    }
}

/// The summary in plain words.
fn describe(summary: &PrepareSummary, dir: &Path) -> Vec<String> {
    let mut words = Vec::new();
    for delta in &summary.deltas {
        words.push(format!(
            "Applied {}: {} of LSN {} to {}.",
            quoted(&delta.dir),
            counted(delta.pages, "page", "pages"),
            delta.from_lsn,
            delta.to_lsn
        ));
    }
    if summary.already_prepared {
        words.push("The backup was prepared before; there was nothing left to do.".to_string());
    } else {
        words.push(format!(
            "Prepared in {}: read {} of redo ({} mini-transactions), wrote {} in {}.",
            show_seconds(summary.seconds),
            Size(summary.redo_bytes),
            summary.mini_transactions,
            counted(summary.pages_written, "page", "pages"),
            counted(summary.batches.into(), "batch", "batches"),
        ));
    }
    words.push(format!("It equals the server at LSN {}.", summary.end_lsn));
    words.extend(describe_aria(&summary.aria));
    if let Some(export) = &summary.export {
        words.push(format!(
            "Exported {}: copy the .ibd and the .cfg of a table to a server that has the table, and \
             ALTER TABLE … IMPORT TABLESPACE there.",
            counted(export.tables, "table", "tables"),
        ));
    }
    words.push(format!(
        "Next, put it back with: haulout restore {} --to DATADIR --owner mysql:mysql",
        quoted(dir)
    ));
    words
}

/// What became of Aria's log, if there is something to say.
fn describe_aria(summary: &AriaSummary) -> Option<String> {
    match summary {
        AriaSummary::Absent | AriaSummary::Recovered { pages: 0, open_transactions: 0, .. } => None,
        AriaSummary::Recovered { tables, pages, open_transactions, .. } => Some(format!(
            "Aria: made {} whole ({}){}.",
            counted(*tables as u64, "table", "tables"),
            counted(*pages, "page", "pages"),
            match open_transactions {
                0 => String::new(),
                open => format!(
                    "; left out {}",
                    counted(*open as u64, "open statement", "open statements")
                ),
            },
        )),
        AriaSummary::LeftToServer { reason } => Some(format!(
            "Aria: the server recovers its tables at the first start, because {reason}."
        )),
    }
}
