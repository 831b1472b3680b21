//! `haulout verify`.

use std::sync::Arc;

use clap::Args;
use engine::archive;
use engine::repo::catalog::Selection;
use engine::repo::verify::{VerifyOptions, VerifySummary};
use engine::{Cancel, ErrorKind, Reporter, Result};

use super::counted;
use super::repo::Repo;
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::size::Size;

const EXAMPLES: &str = "\
Examples:
  haulout verify --repo s3://bucket/db1
  haulout verify --repo s3://bucket/db1 --sample 5
  haulout verify LATEST --repo s3://bucket/db1 --deep

Exit code 3 says that something is wrong; every fault is named. Exit code 7 says that nothing is, but
that binary logs are missing in between, which are named, too.";

/// Prove that backups and binary logs are good: every pack and every frame, with --deep every page
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    /// Which backup: its name or a part of it at either end, LATEST, or @TIME [default: all, and
    /// the binary logs]
    #[arg(value_name = "BACKUP")]
    selection: Option<Selection>,
    #[command(flatten)]
    repo: Repo,
    /// Unpack everything and check every page; a sealed repository needs its key for that
    #[arg(long)]
    deep: bool,
    /// Read only so many per cent of the frames, chosen at random
    #[arg(long, value_name = "PERCENT", default_value = "100", conflicts_with = "deep",
          value_parser = parse_percent)]
    sample: f64,
}

impl Verify {
    /// Verifies.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let read = self.repo.reading();
        let options = VerifyOptions { deep: self.deep, sample: self.sample, read };
        let summary = repository.verify(self.selection.as_ref(), &options, cancel, &**reporter)?;
        let mut outcome = Outcome::new(&summary, describe(&summary))?;
        let mut is_good = summary.is_good();
        let mut has_gap = false;
        if self.selection.is_none() {
            let logs = archive::verify::verify(&repository, &options, cancel)?;
            outcome.words.extend(logs.faults.iter().map(|fault| format!("binary logs: {fault}")));
            outcome.words.extend(logs.gaps.iter().map(|gap| format!("binary logs: GAP: {gap}")));
            let state = match (logs.faults.is_empty(), logs.gaps.len()) {
                (false, _) => "DAMAGED".to_owned(),
                (true, 0) => "all good".to_owned(),
                (true, gaps) => {
                    format!("what is there is good, but {}", counted(gaps as u64, "GAP", "GAPS"))
                }
            };
            outcome.words.push(format!(
                "Verified {}: read {} in {}; {state}.",
                counted(logs.files as u64, "binary log", "binary logs"),
                Size(logs.stored_bytes),
                counted(logs.objects as u64, "object", "objects"),
            ));
            has_gap = !logs.gaps.is_empty();
            is_good &= logs.faults.is_empty();
            outcome.add("binlogs", &logs)?;
        }
        outcome.found = match is_good {
            true => has_gap.then_some(ErrorKind::Gap),
            false => Some(ErrorKind::Damage),
        };
        Ok(outcome)
    }
}

fn describe(summary: &VerifySummary) -> Vec<String> {
    let mut words = Vec::new();
    for backup in &summary.backups {
        words.extend(backup.faults.iter().map(|fault| format!("{}: {fault}", backup.name)));
    }
    let bad = summary.backups.iter().filter(|backup| !backup.faults.is_empty()).count();
    let bytes = summary.backups.iter().map(|backup| backup.stored_bytes).sum();
    let pages: u64 = summary.backups.iter().map(|backup| backup.pages).sum();
    words.push(format!(
        "Verified {} in {}: read {}{}; {}.",
        counted(summary.backups.len() as u64, "backup", "backups"),
        show_seconds(summary.seconds),
        Size(bytes),
        if pages > 0 { format!(", checked {pages} pages") } else { String::new() },
        if bad == 0 { "all good".to_owned() } else { format!("{bad} DAMAGED") },
    ));
    words
}

fn parse_percent(text: &str) -> std::result::Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a number above 0, up to 100".to_owned()),
    }
}
