//! `haulout get-stream`.

use std::sync::Arc;

use clap::Args;
use engine::repo::catalog::Selection;
use engine::{Cancel, Reporter, Result};
use serde::Serialize;

use super::repo::Repo;
use crate::console::Outcome;
use crate::size::Size;
use crate::streams;

const EXAMPLES: &str = "\
Examples:
  haulout get-stream LATEST --repo s3://bucket/db1 | mbstream -x -C /restore

A delta comes together with what it is based on, as the stream of one full backup.";

/// Write a backup of a repository to standard output, as an xbstream
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetStream {
    /// Which backup: its name or a part of it at either end, LATEST, or @TIME
    #[arg(value_name = "BACKUP")]
    selection: Selection,
    /// Of a delta, only its own stream: what the stock tool takes for an incremental backup
    #[arg(long)]
    link: bool,
    #[command(flatten)]
    repo: Repo,
}

#[derive(Serialize)]
struct Summary {
    format: u32,
    bytes: u64,
}

impl GetStream {
    /// Writes it.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let mut output = streams::to_stdout()?;
        let read = self.repo.reading();
        let bytes =
            repository.get_stream(&self.selection, self.link, read, &mut *output, cancel)?;
        Outcome::new(&Summary { format: 1, bytes }, vec![format!("Wrote {}.", Size(bytes))])
    }
}
