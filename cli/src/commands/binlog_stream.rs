//! `haulout binlog stream`, archiving a binary log while it is written, and `haulout binlog purge`,
//! removing from the server what is archived.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::archive::Archive;
use engine::archive::purge::{PurgeOptions, PurgeSummary};
use engine::archive::stream::{self, StreamOptions};
use engine::repo::Repository;
use engine::{Cancel, ErrorKind, Reporter, Result};

use super::connection::Connection;
use super::counted;
use super::repo::Repo;
use crate::console::Outcome;
use crate::duration;
use crate::size::Size;

/// Archive a server's binary log while it is written, as a replica, until SIGTERM or SIGINT
///
/// Goes on where the archive ends, after interruptions of either side, and with another server after a
/// failover. The account needs REPLICATION SLAVE and BINLOG MONITOR.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  haulout binlog stream --repo s3://bucket/db1 --rpo 5s
  haulout binlog stream --repo s3://bucket/db1 --host db1 --user archiver --semi-sync

Exit code 4: the server refused the account at the first connection. Exit code 7: when it went on, the
server had purged logs that were not archived.")]
pub struct Stream {
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    connection: Connection,
    /// How long what was committed may wait before it is stored
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    rpo: Duration,
    /// Let commits wait until they are stored, if the server is set up for it
    /// (rpl_semi_sync_master_enabled)
    #[arg(long)]
    semi_sync: bool,
    /// Have the server keep its logs, instead of removing them by age or size, whenever not all replicas
    /// are connected that are so now, this one among them (11.4 and later; the account needs REPLICATION
    /// MASTER ADMIN and BINLOG ADMIN, too)
    #[arg(long)]
    hold: bool,
    /// The server_id of this replica, which no server and no other replica may have [default: made
    /// from the repository's id]
    #[arg(long, value_name = "ID")]
    server_id: Option<u32>,
    /// Accept a server that has nothing in common with what is there, or that was reset
    #[arg(long)]
    accept_new_server: bool,
    /// Give up when there was no connection for so long [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    give_up: Option<Duration>,
}

impl Stream {
    /// Archives until it is ended.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let options = StreamOptions {
            connect: self.connection.resolve(&**reporter)?,
            server_id: self.server_id.unwrap_or_else(|| own_id(&repository, 0)),
            rpo: self.rpo,
            semi_sync: self.semi_sync,
            hold: self.hold,
            accept_new_server: self.accept_new_server,
            patience: self.give_up,
        };
        let summary = stream::stream(&repository, &options, cancel, &**reporter)?;
        let mut words: Vec<String> =
            summary.missing.iter().map(|it| format!("GAP: the server had purged {it}")).collect();
        words.push(format!(
            "Archived {} in {} ({}); nothing waited longer than {}.",
            counted(summary.transactions, "transaction", "transactions"),
            Size(summary.bytes),
            counted(summary.objects, "object", "objects"),
            duration::show_seconds(summary.longest_wait_seconds),
        ));
        let mut outcome = Outcome::new(&summary, words)?;
        outcome.found = (!summary.missing.is_empty()).then_some(ErrorKind::Gap);
        Ok(outcome)
    }
}

/// A `server_id` that is far from the small numbers that people give to servers; others of the same
/// repository by other numbers.
fn own_id(repository: &Repository, number: u32) -> u32 {
    let id = repository.config.id.get(..8).and_then(|id| u32::from_str_radix(id, 16).ok());
    (id.unwrap_or(0) | 1 << 31) ^ number
}

/// Remove from a server the binary logs that the archive has whole; all others stay
///
/// For servers that do not remove logs by themselves (binlog_expire_logs_seconds=0), so that none goes
/// that was not archived. Without --delete it only says what would go. The account needs REPLICATION
/// SLAVE, BINLOG MONITOR and BINLOG ADMIN.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  haulout binlog purge --repo s3://bucket/db1 --keep-within 2d --delete")]
pub struct Purge {
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    connection: Connection,
    /// Keep logs with transactions of so long ago or later
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    keep_within: Option<Duration>,
    /// Remove them
    #[arg(long)]
    delete: bool,
}

impl Purge {
    /// Removes them, or says what would go.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let options = PurgeOptions {
            connect: self.connection.resolve(&**reporter)?,
            // Not that of a stream, whose place it would take.
            server_id: own_id(&repository, 1),
            keep_within: self.keep_within,
            delete: self.delete,
        };
        let summary = Archive::read(&repository, cancel)?.purge(&options, cancel)?;
        Outcome::new(&summary, describe_purge(&summary))
    }
}

fn describe_purge(summary: &PurgeSummary) -> Vec<String> {
    let logs = counted(summary.purged.len() as u64, "log", "logs");
    let last = summary.purged.last().map(|last| format!(", up to {last}")).unwrap_or_default();
    vec![
        match summary.done {
            true => format!("Removed {logs} from the server{last}."),
            false => format!("Would remove {logs} from the server{last}; say --delete to do it."),
        },
        format!("{} stays: {}.", summary.stays, summary.why),
    ]
}
