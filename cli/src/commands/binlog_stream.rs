//! `haulout binlog stream`: archiving a binary log while it is written.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::archive::stream::{self, StreamOptions};
use engine::{Cancel, Reporter, Result};

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
  haulout binlog stream --repo s3://bucket/db1 --host db1 --user archiver --semi-sync")]
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
        // Far from the small numbers that people give to servers.
        let id = repository.config.id.get(..8).and_then(|id| u32::from_str_radix(id, 16).ok());
        let options = StreamOptions {
            connect: self.connection.resolve(&**reporter)?,
            server_id: self.server_id.unwrap_or(id.unwrap_or(0) | 1 << 31),
            rpo: self.rpo,
            semi_sync: self.semi_sync,
            accept_new_server: self.accept_new_server,
            patience: self.give_up,
        };
        let summary = stream::stream(&repository, &options, cancel, &**reporter)?;
        let words = vec![format!(
            "Archived {} in {} ({}); nothing waited longer than {}.",
            counted(summary.transactions, "transaction", "transactions"),
            Size(summary.bytes),
            counted(summary.objects, "object", "objects"),
            duration::show_seconds(summary.longest_wait_seconds),
        )];
        Outcome::new(&summary, words)
    }
}
