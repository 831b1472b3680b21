//! `haulout expire`.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::repo::retention::{ExpireOptions, ExpirySummary, GRACE, Rules, check_rules};
use engine::{Cancel, Reporter, Result};

use super::counted;
use super::repo::Repo;
use crate::console::Outcome;
use crate::duration;
use crate::size::Size;

const EXAMPLES: &str = "\
Examples:
  haulout expire --repo s3://bucket/db1 --keep-daily 14 --keep-monthly 12
  haulout expire --repo s3://bucket/db1 --keep-last 7 --delete
  haulout expire --repo s3://bucket/db1 --garbage --delete
  haulout expire --repo s3://bucket/db1 --backup 20260101T120000Z-full-1a2b3c4d --delete

Without --delete nothing is removed: it is only said what would be.";

/// Remove backups that no rule keeps, and what killed backups left
///
/// A backup stays if any rule says so, if it was kept by hand, or if one that stays is based on it.
/// The latest one always stays.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Expire {
    #[command(flatten)]
    repo: Repo,
    /// Keep the latest N
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_last: Option<u32>,
    /// Keep those of the last so many days, weeks or hours
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    keep_within: Option<Duration>,
    /// Keep the latest of each of the last N days that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_daily: Option<u32>,
    /// Keep the latest of each of the last N weeks that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_weekly: Option<u32>,
    /// Keep the latest of each of the last N months that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_monthly: Option<u32>,
    /// Keep the latest of each of the last N years that have one
    #[arg(long, value_name = "N", value_parser = parse_number)]
    keep_yearly: Option<u32>,
    /// Remove this one, even if it is damaged, and whatever the rules say
    #[arg(long = "backup", value_name = "NAME")]
    named: Vec<String>,
    /// Only what killed backups left
    #[arg(long, conflicts_with_all = ["keep_last", "keep_within", "keep_daily", "keep_weekly",
          "keep_monthly", "keep_yearly"])]
    garbage: bool,
    /// How old that must be, so that a backup that is being taken is left alone [default: 1w]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    grace: Option<Duration>,
    /// Really remove it
    #[arg(long)]
    delete: bool,
}

impl Expire {
    /// Removes, or says what it would remove.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let rules = Rules {
            last: self.keep_last,
            within: self.keep_within,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
        };
        check_rules(&rules, self.garbage || !self.named.is_empty())?;
        let repository = self.repo.open(cancel, reporter)?;
        let grace = self.grace.unwrap_or(GRACE);
        let options = ExpireOptions { rules, grace, delete: self.delete, named: self.named };
        let summary = repository.expire(&options, cancel)?;
        let words = describe(&summary);
        Outcome::new(&summary, words)
    }
}

/// A variable of a script that is empty, or counts to nothing, is no rule.
fn parse_number(text: &str) -> std::result::Result<u32, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("at least 1".to_owned()),
    }
}

fn describe(summary: &ExpirySummary) -> Vec<String> {
    let mut words = Vec::new();
    for backup in &summary.backups {
        words.push(match backup.stays.as_slice() {
            [] => format!("{}  goes", backup.name),
            reasons => format!("{}  stays: {}", backup.name, reasons.join(", ")),
        });
    }
    words.extend(summary.garbage.iter().map(|name| format!("{name}  goes: it was not finished")));
    let going = summary.backups.iter().filter(|backup| backup.stays.is_empty()).count();
    let what = counted((going + summary.garbage.len()) as u64, "backup", "backups");
    words.push(match summary.done {
        true => format!("Removed {what}: {}.", Size(summary.freed_bytes)),
        false => format!(
            "Would remove {what}: {}. Nothing was removed: add --delete.",
            Size(summary.freed_bytes)
        ),
    });
    words
}
