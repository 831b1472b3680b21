//! `haulout extract`.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use engine::extract::{self, ExtractOptions, ExtractSummary};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::{parse_threads, quoted, rate};
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::machine;
use crate::size::Size;

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
        let summary = extract::extract(stream_from_stdin()?, options, cancel, reporter)?;
        Outcome::new(&summary, describe(&summary, &self.to))
    }
}

/// Standard input as a source of binary data: unbuffered, and never a terminal.
pub fn stream_from_stdin() -> Result<Box<dyn Read + Send>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Error::new(ErrorKind::Usage, "standard input is a terminal, not a stream")
            .advise("send the stream in: haulout extract --to DIR < FILE"));
    }
    let descriptor =
        stdin.as_fd().try_clone_to_owned().map_err(|e| Error::io("open", "standard input", e))?;
    Ok(Box::new(File::from(descriptor)))
}

/// The summary in plain words.
fn describe(summary: &ExtractSummary, dir: &Path) -> Vec<String> {
    vec![
        format!(
            "Unpacked {} files, {} in {} ({}/s).",
            summary.files,
            Size(summary.bytes),
            show_seconds(summary.seconds),
            rate(summary.bytes, summary.seconds),
        ),
        format!("Next, prepare it with: haulout prepare {}", quoted(dir)),
    ]
}
