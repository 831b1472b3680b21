//! `haulout binlog serve`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use binlog::GtidPosition;
use clap::Args;
use engine::keys::settings::KeyStore;
use engine::replay::ReplayOptions;
use engine::replay::archived::{self, ArchivedLogs};
use engine::replay::plan::Anchor;
use engine::replay::source::FileLogs;
use engine::repo::catalog::Selection;
use engine::serve::{self, ServeOptions};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::counted;
use super::keys::Keys;
use super::repo::Access;
use super::until::Until;
use crate::console::Outcome;

const EXAMPLES: &str = "\
Examples:
  export HAULOUT_SERVE_PASSWORD=…
  haulout binlog serve --binlogs /logs --until 0-1-4711 --before --user repl
  haulout binlog serve --repo s3://bucket/db1 --until 0-1-4711 --before
  CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=3307, MASTER_USER='repl',
    MASTER_PASSWORD='…', MASTER_SSL=0, MASTER_USE_GTID=slave_pos; START SLAVE

The variable HAULOUT_SERVE_PASSWORD has to have a password. With --tls-cert and --tls-key only encrypted
connections are served: MASTER_SSL=1, MASTER_SSL_CA='…'. Without --until everything is served. A replica
drops what its own server_id wrote: give it one that is nowhere in the logs.";

/// Serve binary logs to replicas as a primary does, up to a target
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// Binary logs, or directories of them
    #[arg(long, value_name = "PATH", required_unless_present = "repo", num_args = 1..)]
    binlogs: Vec<PathBuf>,
    /// The repository whose archive has the binary logs: s3://BUCKET/PREFIX, or a folder
    #[arg(long, value_name = "PLACE", conflicts_with = "binlogs")]
    repo: Option<String>,
    /// With --repo, the backup that the replicas were restored from [default: as restore --until
    /// chooses, the newest one that is before TARGET]
    #[arg(long, value_name = "BACKUP", requires = "repo")]
    from_backup: Option<Selection>,
    /// With --repo, a GTID position that all replicas have; '' is the beginning of all
    #[arg(long, value_name = "GTIDS", requires = "repo", conflicts_with = "from_backup")]
    from_gtid: Option<GtidPosition>,
    #[command(flatten)]
    until: Until,
    /// Address to listen at
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3307")]
    listen: SocketAddr,
    /// Account of the replicas
    #[arg(long, value_name = "NAME", default_value = "repl")]
    user: String,
    /// File with the certificate to show
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File with the key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// server_id to have [default: that of the logs]
    #[arg(long, value_name = "NUMBER")]
    server_id: Option<u32>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    access: Access,
}

impl Serve {
    /// Runs the command.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let stop = self.until.resolve()?;
        let password = std::env::var("HAULOUT_SERVE_PASSWORD").unwrap_or_default();
        // Of this host, too: the logs are not everybody's.
        if password.is_empty() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("everybody who reaches {} could read the logs", self.listen),
            )
            .advise("set HAULOUT_SERVE_PASSWORD, and give it to the replicas"));
        }
        let keys = self.keys.resolve(&**reporter)?;
        let mut options = ReplayOptions {
            anchor: Anchor {
                gtid: self.from_gtid.clone().unwrap_or_default(),
                ..Anchor::default()
            },
            target: stop.target.clone(),
            edge: stop.edge,
            skip: stop.skip.clone(),
            exclude: BTreeSet::new(),
            keys: (!keys.is_empty()).then(|| KeyStore::new(keys)),
        };
        let serve = ServeOptions {
            listen: self.listen,
            user: self.user,
            password,
            tls: self.tls_cert.zip(self.tls_key),
            server_id: self.server_id,
        };
        let Some(place) = &self.repo else {
            stop.of_files()?;
            let logs = FileLogs::open(&self.binlogs, options.keys.as_ref())?;
            logs.notes().iter().for_each(|note| reporter.warn(note.clone()));
            let summary = serve::serve(&logs, &options, &serve, cancel, &**reporter)?;
            return Outcome::new(&summary, describe(&summary));
        };
        let repository = self.access.open(place, cancel, reporter)?;
        let archive = stop.read_archive(&repository, cancel)?;
        let mut server = None;
        if self.from_gtid.is_none() {
            let only = self.from_backup.as_ref();
            let only = only.map(|named| repository.select(named, cancel)).transpose()?;
            let wanted = (&stop.target, &stop.skip);
            let chosen = archived::choose(&repository, &archive, wanted, only, cancel)?;
            let manifest = repository.select(&Selection::Named(chosen.backup), cancel)?;
            server = archived::anchor(&mut options, Some(&manifest))?;
            reporter.info(format!("for replicas that have the backup {}", manifest.name));
        }
        let anchor = (&options.anchor, server);
        let logs = ArchivedLogs::open(&archive, anchor, &options.target, cancel)?;
        let summary = serve::serve(&logs, &options, &serve, cancel, &**reporter)?;
        Outcome::new(&summary, describe(&summary))
    }
}

fn describe(summary: &serve::ServeSummary) -> Vec<String> {
    vec![format!("Served {}.", counted(summary.replicas.into(), "replica", "replicas"))]
}
