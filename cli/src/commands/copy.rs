//! `haulout copy`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use engine::archive::Archive;
use engine::repo::catalog::Selection;
use engine::repo::copy::CopySummary;
use engine::{Cancel, Reporter, Result};

use super::counted;
use super::repo::Repo;
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::size::Size;

const EXAMPLES: &str = "\
Examples:
  haulout copy LATEST --repo s3://bucket/db1 --to /mnt/usb/db1
  haulout copy LATEST --repo s3://bucket/db1 --to s3://far/db1 --binlogs
  haulout copy 1a2b3c4d --repo /mnt/db1 --to s3://far/db1 --key-file /k --to-key-file /far.key";

/// Copy a backup, and what it is based on, to another repository
///
/// Both repositories are sealed, or neither. What is said about buckets holds for both.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Copy {
    /// Which backup: its name or a part of it at either end, LATEST, or @TIME
    #[arg(value_name = "BACKUP")]
    selection: Selection,
    #[command(flatten)]
    repo: Repo,
    /// The archive of binary logs, too: all of it that is not there yet
    #[arg(long)]
    binlogs: bool,
    /// The other repository
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// File with the key of the other repository [default: the same key]
    #[arg(long, value_name = "FILE")]
    to_key_file: Option<PathBuf>,
}

impl Copy {
    /// Copies it.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let key = self.to_key_file.as_deref();
        let (from, to) = self.repo.open_with_other(&self.to, key, cancel, reporter)?;
        let threads = self.repo.reading().threads;
        let summary = from.copy(&self.selection, &to, threads, cancel, &**reporter)?;
        let mut outcome = Outcome::new(&summary, describe(&summary, &self.to))?;
        if self.binlogs {
            let copied = Archive::read(&from, cancel)?.copy(&to, cancel, &**reporter)?;
            outcome.words.push(format!(
                "Copied {}, {}; {} there already.",
                counted(copied.files, "binary log", "binary logs"),
                Size(copied.stored_bytes),
                match copied.there {
                    1 => "1 was".to_owned(),
                    there => format!("{there} were"),
                }
            ));
            outcome.add("binlogs", &copied)?;
        }
        Ok(outcome)
    }
}

fn describe(summary: &CopySummary, to: &str) -> Vec<String> {
    let mut words: Vec<String> =
        summary.there.iter().map(|name| format!("{name} is in {to} already.")).collect();
    words.extend(summary.copied.iter().map(|name| format!("Copied {name} to {to}.")));
    words.push(format!(
        "{}, {} in {}.",
        counted(summary.copied.len() as u64, "backup", "backups"),
        Size(summary.bytes),
        show_seconds(summary.seconds)
    ));
    words
}
