//! `haulout binlog serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use binlog::Gtid;
use clap::Args;
use engine::keys::settings::KeyStore;
use engine::replay::ReplayOptions;
use engine::replay::plan::Anchor;
use engine::replay::source::FileLogs;
use engine::replay::target::Target;
use engine::serve::{self, ServeOptions};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::keys::Keys;
use super::replay::edge;
use crate::console::Outcome;

const EXAMPLES: &str = "\
Examples:
  haulout binlog serve --binlogs /logs --until 0-1-4711 --before --user repl
  CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=3307, MASTER_USER='repl',
    MASTER_PASSWORD='…', MASTER_SSL=0, MASTER_USE_GTID=slave_pos; START SLAVE

The password comes from the variable HAULOUT_SERVE_PASSWORD. Connections are not encrypted. A replica
drops what its own server_id wrote: give it one that is nowhere in the logs.";

/// Serve binary logs to replicas as a primary does, up to a target
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// Binary logs, or directories of them
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    binlogs: Vec<PathBuf>,
    /// Where the logs end for replicas: 'end', a time, a GTID, or LOG:OFFSET
    #[arg(long, value_name = "TARGET", default_value = "end")]
    until: Target,
    /// End before what TARGET names [default, save for GTIDs, where one of both has to be said]
    #[arg(long, conflicts_with = "after")]
    before: bool,
    /// End after what TARGET names
    #[arg(long)]
    after: bool,
    /// Leave out a transaction
    #[arg(long, value_name = "GTID")]
    skip_gtid: Vec<Gtid>,
    /// Address to listen at
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3307")]
    listen: SocketAddr,
    /// Account of the replicas
    #[arg(long, value_name = "NAME", default_value = "repl")]
    user: String,
    /// server_id to have [default: that of the logs]
    #[arg(long, value_name = "NUMBER")]
    server_id: Option<u32>,
    #[command(flatten)]
    keys: Keys,
}

impl Serve {
    /// Runs the command.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let edge = edge(&self.until, self.before, self.after)?;
        let password = std::env::var("HAULOUT_SERVE_PASSWORD").unwrap_or_default();
        if password.is_empty() && !self.listen.ip().is_loopback() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("everybody who reaches {} could read the logs", self.listen),
            )
            .advise("set HAULOUT_SERVE_PASSWORD"));
        }
        let keys = self.keys.resolve(&**reporter)?;
        let keys = (!keys.is_empty()).then(|| KeyStore::new(keys));
        let logs = FileLogs::open(&self.binlogs, keys.as_ref())?;
        let options = ReplayOptions {
            anchor: Anchor::default(),
            target: self.until,
            edge,
            skip: self.skip_gtid.into_iter().collect(),
            exclude: Default::default(),
            keys,
        };
        let serve = ServeOptions {
            listen: self.listen,
            user: self.user,
            password,
            server_id: self.server_id,
        };
        let summary = serve::serve(&logs, &options, &serve, cancel, &**reporter)?;
        Outcome::new(&summary, vec![format!("Served {} replicas.", summary.replicas)])
    }
}
