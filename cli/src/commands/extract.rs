//! `haulout extract`.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::extract::{self, ExtractOptions, ExtractSummary};
use engine::{Cancel, Reporter, Result};

use super::{counted, parse_threads, quoted, rate};
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::size::Size;
use crate::{machine, streams};

const EXAMPLES: &str = "\
Examples:
  haulout extract --to /backups/monday < monday.xb
  zstd -dc monday.xb.zst | haulout extract --to /backups/monday";

/// Unpack an xbstream from standard input into a directory
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Extract {
    /// Directory to unpack to; created if missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Writing threads [default: the cores, at most 4]
    #[arg(long, value_name = "N", env = "HAULOUT_PARALLEL", value_parser = parse_threads)]
    parallel: Option<usize>,
}

impl Extract {
    /// Unpacks standard input.
    pub fn run(self, cancel: &Cancel, reporter: &dyn Reporter) -> Result<Outcome> {
        let options = ExtractOptions {
            dir: self.to.clone(),
            parallel: self.parallel.unwrap_or_else(machine::default_threads),
        };
        let summary = extract::extract(streams::from_stdin(cancel)?, options, cancel, reporter)?;
        Outcome::new(&summary, describe(&summary, &self.to))
    }
}

/// The summary in plain words.
fn describe(summary: &ExtractSummary, dir: &Path) -> Vec<String> {
    vec![
        format!(
            "Unpacked {}, {} in {} ({}/s).",
            counted(summary.files, "file", "files"),
            Size(summary.bytes),
            show_seconds(summary.seconds),
            rate(summary.bytes, summary.seconds),
        ),
        format!("Next, prepare it with: haulout prepare {}", quoted(dir)),
    ]
}
