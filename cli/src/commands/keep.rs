//! `haulout keep` and `haulout unkeep`.

use std::sync::Arc;

use clap::Args;
use engine::repo::catalog::Selection;
use engine::{Cancel, Reporter, Result};
use serde::Serialize;

use super::repo::Repo;
use crate::console::Outcome;

/// Keep a backup, and what it is based on, whatever the rules of expire say
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  haulout keep LATEST --repo s3://bucket/db1")]
pub struct Keep {
    /// Which backup: its name or a part of it at either end, LATEST, or @TIME
    #[arg(value_name = "BACKUP")]
    selection: Selection,
    #[command(flatten)]
    repo: Repo,
}

/// Let a backup that was kept expire again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  haulout unkeep 1a2b3c4d --repo s3://bucket/db1")]
pub struct Unkeep {
    /// Which backup: its name or a part of it at either end, LATEST, or @TIME
    #[arg(value_name = "BACKUP")]
    selection: Selection,
    #[command(flatten)]
    repo: Repo,
}

#[derive(Serialize)]
struct Summary {
    format: u32,
    name: String,
    kept: bool,
}

impl Keep {
    /// Keeps it.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let name = self.repo.open(cancel, reporter)?.keep(&self.selection, cancel)?.to_string();
        let words = vec![format!("{name} is kept.")];
        Outcome::new(&Summary { format: 1, name, kept: true }, words)
    }
}

impl Unkeep {
    /// Lets it go.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let name = self.repo.open(cancel, reporter)?.unkeep(&self.selection, cancel)?.to_string();
        let words = vec![format!("{name} expires when the rules say so.")];
        Outcome::new(&Summary { format: 1, name, kept: false }, words)
    }
}
