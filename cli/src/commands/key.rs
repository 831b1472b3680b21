//! `haulout key`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use engine::repo::keyring::Keyring;
use engine::repo::seal::Secret;
use engine::{Cancel, Error, ErrorKind, Reporter, Result};
use serde::Serialize;

use super::repo::{Repo, read_key};
use crate::console::Outcome;

const EXAMPLES: &str = "\
Examples:
  haulout key new /secure/haulout.key
  haulout key list --repo s3://bucket/db1
  haulout key add /secure/second.key --repo s3://bucket/db1 --key-file /secure/haulout.key
  haulout key remove 1a2b3c4d5e6f7081 --repo s3://bucket/db1 --key-file /secure/second.key

To rotate a key: make a new one, add it, remove the old one. Backups are not written again.";

/// Make the keys of a sealed repository, add and remove them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a new random key to a file that does not exist yet
    New {
        /// Where to
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the keys that open a repository
    List {
        #[command(flatten)]
        repo: Repo,
    },
    /// Let another key open a repository
    Add {
        /// File with the other key
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        repo: Repo,
    },
    /// Let a key open a repository no more; who copied it before can still read what is there
    Remove {
        /// Its fingerprint, as listed
        #[arg(value_name = "FINGERPRINT")]
        fingerprint: String,
        #[command(flatten)]
        repo: Repo,
    },
}

#[derive(Serialize)]
struct Summary {
    format: u32,
    keys: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    key: String,
    added: Option<String>,
}

impl Key {
    /// Does it.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        match self.action {
            Action::New { file } => {
                let key = Secret::random()?;
                std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&file)
                    .and_then(|mut to| {
                        to.write_all(format!("{}\n", *key.to_hex()).as_bytes())?;
                        to.sync_all()
                    })
                    .map_err(|e| Error::io("write the key to", &file, e))?;
                let key = key.fingerprint();
                let words = vec![
                    format!("Wrote the key {key} to {}.", file.display()),
                    "Keep a copy elsewhere: without it nothing can be restored.".to_owned(),
                ];
                Outcome::new(&Summary { format: 1, keys: vec![Entry { key, added: None }] }, words)
            }
            Action::List { repo } => {
                let repository = repo.open(cancel, reporter)?;
                check_sealed(repository.config.sealed)?;
                listed(&Keyring::read(&*repository.store, cancel)?)
            }
            Action::Add { file, repo } => {
                let repository = repo.open(cancel, reporter)?;
                check_sealed(repository.config.sealed)?;
                let Some(master) = repository.master()? else { return Err(not_sealed()) };
                let (store, key) = (&*repository.store, read_key(&file)?);
                let keyring = Keyring::read(store, cancel)?;
                keyring.add(store, &repository.config, master, &key, cancel)?;
                listed(&Keyring::read(store, cancel)?)
            }
            Action::Remove { fingerprint, repo } => {
                let repository = repo.open(cancel, reporter)?;
                check_sealed(repository.config.sealed)?;
                // Only who has a key may take one away.
                repository.master()?;
                let store = &*repository.store;
                Keyring::read(store, cancel)?.remove(store, &fingerprint, cancel)?;
                listed(&Keyring::read(store, cancel)?)
            }
        }
    }
}

fn listed(keyring: &Keyring) -> Result<Outcome> {
    let entries = keyring.keys().iter();
    let keys: Vec<Entry> = entries
        .map(|key| Entry { key: key.key.clone(), added: Some(key.added.to_string()) })
        .collect();
    let line = |entry: &Entry| format!("{}  {}", entry.key, entry.added.as_deref().unwrap_or(""));
    let lines = keys.iter().map(line).collect();
    Outcome::data(&Summary { format: 1, keys }, lines)
}

fn check_sealed(sealed: bool) -> Result<()> {
    if sealed { Ok(()) } else { Err(not_sealed()) }
}

fn not_sealed() -> Error {
    Error::new(ErrorKind::Usage, "the repository is not sealed: it has no keys")
}
