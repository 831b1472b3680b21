//! `haulout init`.

use std::sync::Arc;

use clap::Args;
use engine::repo::Repository;
use engine::{Cancel, Error, ErrorKind, Reporter, Result};
use serde::Serialize;

use super::repo::Repo;
use crate::console::Outcome;

const EXAMPLES: &str = "\
Examples:
  haulout key new /secure/haulout.key
  haulout init --repo s3://bucket/db1 --key-file /secure/haulout.key
  haulout init --repo /mnt/backups/db1 --unsealed";

/// Create a repository
///
/// With a key, the content of every file is encrypted before it leaves this host, and cannot be
/// restored without a key. What the files are called, how large they are and where the server was
/// stays readable in the manifests.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Init {
    #[command(flatten)]
    repo: Repo,
    /// Store backups without encryption
    #[arg(long)]
    unsealed: bool,
}

#[derive(Serialize)]
struct Summary {
    format: u32,
    id: String,
    sealed: bool,
    key: Option<String>,
}

impl Init {
    /// Creates it.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let key = self.repo.key(reporter)?;
        match (&key, self.unsealed) {
            (None, false) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "it is not said whether backups are to be encrypted",
                )
                .advise("give a key (haulout key new FILE makes one), or --unsealed"));
            }
            (Some(_), true) => {
                return Err(Error::new(ErrorKind::Usage, "a key and --unsealed were given"));
            }
            _ => {}
        }
        let store = self.repo.store(reporter)?;
        let place = store.describe();
        let repository = Repository::create(store, key.as_ref(), cancel)?;
        let key = key.map(|key| key.fingerprint());
        let mut words = vec![format!("Created a repository in {place}.")];
        words.push(match &key {
            Some(key) => format!(
                "It is sealed with the key {key}: keep that key where this host cannot lose it."
            ),
            None => "It is not sealed: who can read the store can read the data.".to_owned(),
        });
        words.push(format!("Next: haulout backup --repo {}", self.repo.quoted()));
        let config = repository.config;
        let summary = Summary { format: 1, id: config.id, sealed: config.sealed, key };
        Outcome::new(&summary, words)
    }
}
