//! `haulout check`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use engine::check::{self, CheckSummary, Finding, State};
use engine::repo::Repository;
use engine::store::Location;
use engine::{Cancel, Reporter, Result};

use super::connection::Connection;
use super::keys::Keys;
use super::repo::Access;
use crate::console::Outcome;

const EXAMPLES: &str = "\
Examples:
  haulout check --repo s3://bucket/db1 --key-file /secure/haulout.key
  haulout check --defaults-file /etc/haulout.cnf
  haulout check --repo s3://bucket/db1 --no-server --json

Prints a line for each thing, such as:
  ✓ privileges: all that a backup needs
  ! binary log: it is off: what was written after a backup cannot be brought back
    set log_bin, if that matters
  ✗ put: …: access denied
    allow s3:PutObject on arn:aws:s3:::bucket/db1/*
The exit code is 0 if nothing is bad, and else what a backup would end with. It is 7 if a backup would
succeed, but binary logs are missing that no backup is newer than: up to a new one there is no way back to
the moments behind them.";

/// See whether a backup would succeed: server, privileges, files, store, clock, space, key
///
/// What can be tried is tried: an object is put into the store, read and removed. Nothing of the
/// server is changed, and no lock is taken.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    /// The repository: s3://BUCKET/PREFIX, or a folder
    #[arg(long, value_name = "PLACE", env = "HAULOUT_REPO")]
    repo: Option<String>,
    /// Look at the repository only
    #[arg(long, requires = "repo")]
    no_server: bool,
    /// Backups leave MyRocks out
    #[arg(long)]
    skip_rocksdb: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    access: Access,
}

impl Check {
    /// Looks at everything.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let mut findings = Vec::new();
        let mut server = None;
        if !self.no_server {
            let connect = self.connection.resolve(&**reporter)?;
            let keys = self.keys.resolve(&**reporter)?;
            (findings, server) = check::check_server(&connect, &keys, !self.skip_rocksdb, cancel);
        }
        if let Some(place) = &self.repo {
            let location: Location = place.parse()?;
            let folder: Option<PathBuf> = match location {
                Location::Folder(folder) => Some(folder),
                _ => None,
            };
            match self.access.store(place, false, reporter) {
                Ok(store) => {
                    let key = self.access.key(reporter)?;
                    let opened = Repository::open(Arc::clone(&store), key.as_ref(), cancel);
                    let found = check::check_repository(&store, &opened, folder.as_deref(), cancel);
                    findings.extend(found);
                    if let (Some(server), Ok(repository)) = (&server, &opened) {
                        findings.push(check::check_server_of(repository, server, cancel));
                    }
                }
                Err(error) => findings.push(Finding::bad("store", &error)),
            }
        }
        cancel.check()?;
        let summary = CheckSummary::new(findings);
        let found = summary.failure();
        let words = vec![match (summary.good, found) {
            (true, None) => "A backup should succeed.".to_owned(),
            (true, Some(_)) => {
                "A backup should succeed, and is needed: binary logs are missing.".to_owned()
            }
            (false, _) => "A backup would fail, or be of no use.".to_owned(),
        }];
        let data = summary.findings.iter().flat_map(lines).collect();
        Ok(Outcome { words, found, ..Outcome::data(&summary, data)? })
    }
}

fn lines(finding: &Finding) -> Vec<String> {
    let mark = match finding.state {
        State::Good => '✓',
        State::Note => '!',
        State::Bad => '✗',
    };
    let mut lines = vec![format!("{mark} {}: {}", finding.what, finding.found)];
    lines.extend(finding.advice.as_ref().map(|advice| format!("  {advice}")));
    lines
}
