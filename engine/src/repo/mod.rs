//! Repositories: backups in a bucket or a folder.
//!
//! ```text
//! capture ─▶ sink ─▶ pipeline ─▶ store        a backup
//! store ─▶ reader ─▶ extract, prepare, place   a restore
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`layout`] | what objects there are, and what they are called |
//! | [`config`], [`keyring`] | what a repository is; who can open it |
//! | [`compression`], [`seal`] | what is done to a frame before it leaves |
//! | [`manifest`] | the document that makes packs a backup |
//! | [`sink`], [`pipeline`] | from files to frames, from frames to packs |
//! | [`backup`] | taking a backup |
//! | [`parent`] | what it is based on |
//! | [`catalog`], [`guard`] | which backups there are, which one is meant, and whose they are |
//! | [`reader`], [`contents`] | a backup as the stream that it was; short files of it |
//! | [`merged`], [`merge`], [`cursor`] | a chain as one full backup, and its stream |
//! | [`restore`] | from the stream to a data directory |
//! | [`choice`], [`pick`], [`tables`], [`sql`] | single tables, by their frames only |
//! | [`retention`], [`copy`] | keeping, expiring, copying |
//! | [`verify`], [`inside`] | proving that a backup is good |
//!
//! Promises:
//! - A backup exists when its manifest does, which is put last. Objects of backups are never changed.
//! - What is read is what was written: each frame has a hash, a manifest a hash of itself; where the
//!   repository is sealed, both can be made only by who has a key. Everything else is an error that
//!   names the object.

mod assembly;
pub mod backup;
pub mod catalog;
pub mod choice;
pub mod compression;
pub mod config;
mod contents;
pub mod copy;
mod cursor;
mod guard;
mod inside;
pub mod keyring;
pub mod layout;
pub mod manifest;
mod merge;
mod merged;
pub mod parent;
mod pick;
pub mod pipeline;
pub mod reader;
pub mod restore;
pub mod retention;
pub mod seal;
pub mod sink;
pub mod sql;
pub mod tables;
pub mod verify;

use std::sync::Arc;

use bytes::Bytes;

use crate::store::Store;
use crate::{Cancel, Error, ErrorKind, Result};
use config::Config;
use keyring::Keyring;
use layout::{BackupName, MANIFEST, damaged};
use manifest::{HEAD_MAX, Head, MANIFEST_MAX, Manifest, Seal};
use seal::{Sealer, Secret};

/// A repository that is open.
pub struct Repository {
    /// Where its objects are.
    pub store: Arc<dyn Store>,
    /// What it is.
    pub config: Config,
    master: Option<Secret>,
}

impl Repository {
    /// Makes a new one, sealed if there is a key.
    pub fn create(store: Arc<dyn Store>, key: Option<&Secret>, cancel: &Cancel) -> Result<Self> {
        let config = Config::new(key.is_some())?;
        // Who loses the race for the configuration puts no keys.
        config.create(&*store, cancel)?;
        let master = key.map(|key| Keyring::create(&*store, &config, key, cancel)).transpose()?;
        Ok(Self { store, config, master })
    }

    /// Opens an existing one. Without a key, what is sealed cannot be read, but listed.
    pub fn open(store: Arc<dyn Store>, key: Option<&Secret>, cancel: &Cancel) -> Result<Self> {
        let Some(config) = Config::read(&*store, cancel)? else {
            return Err(Error::new(
                ErrorKind::NothingMatches,
                format!("there is no repository in {}", store.describe()),
            )
            .advise("create it with: haulout init --repo …"));
        };
        let master = match (key, config.sealed) {
            (Some(key), true) => Some(Keyring::read(&*store, cancel)?.master(&config, key)?),
            (None, _) => None,
            // Nothing is restored from doubt: somebody may have put another configuration there.
            (Some(_), false) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!(
                        "a key was given, but the repository in {} is not sealed",
                        store.describe()
                    ),
                )
                .advise("leave the key out, if that is as it should be"));
            }
        };
        Ok(Self { store, config, master })
    }

    /// The key that wraps data keys.
    ///
    /// # Errors
    /// When the repository is sealed and no key was given.
    pub fn master(&self) -> Result<Option<&Secret>> {
        match (&self.master, self.config.sealed) {
            (None, true) => Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "the repository in {} is sealed, and no key was given",
                    self.store.describe()
                ),
            )
            .advise("name it with --key-file, --key-fd or HAULOUT_KEY")),
            (master, _) => Ok(master.as_ref()),
        }
    }

    /// What a backup is, without its packs, frames and files: only the head of its manifest is read.
    /// It is authentic if the repository is sealed and there is a key.
    pub fn head(&self, name: &BackupName, cancel: &Cancel) -> Result<Manifest> {
        Ok(self.read_head(name, None, cancel)?.0.manifest)
    }

    /// The manifest of a backup. It is authentic if the repository is sealed and there is a key.
    pub fn manifest(&self, name: &BackupName, cancel: &Cancel) -> Result<Manifest> {
        let key = name.object(MANIFEST)?;
        let (head, mut text) = self.read_head(name, None, cancel)?;
        let len = head.document_bytes();
        if len > MANIFEST_MAX {
            return Err(damaged(&key, format!("it has {len} bytes, more than any")));
        }
        if (text.len() as u64) < len {
            text = self.store.get(&key, Some(0..len), len, cancel)?;
            // Its head may have been exchanged meanwhile.
            return self.check_head(name, Head::parse(&text, &key)?)?.complete(&text, &key);
        }
        head.complete(&text, &key)
    }

    /// The head of a manifest, and the beginning of the object that it was found in, whose size may
    /// be known.
    fn read_head(
        &self,
        name: &BackupName,
        len: Option<u64>,
        cancel: &Cancel,
    ) -> Result<(Head, Bytes)> {
        /// Most heads are shorter.
        const USUAL: u64 = 16 << 10;
        let key = name.object(MANIFEST)?;
        let len = match len {
            Some(len) => len,
            None => self.store.head(&key, cancel)?.map(|object| object.len).ok_or_else(|| {
                Error::new(ErrorKind::NothingMatches, format!("there is no {key}"))
            })?,
        };
        let get = |limit: u64| {
            let limit = limit.min(len);
            self.store.get(&key, Some(0..limit), limit, cancel)
        };
        if len == 0 {
            return Err(damaged(&key, "it is empty"));
        }
        let mut text = get(USUAL)?;
        if !Head::is_whole(&text) && len > USUAL {
            text = get(HEAD_MAX)?;
        }
        let head = self.check_head(name, Head::parse(&text, &key)?)?;
        match head.document_bytes() == len {
            true => Ok((head, text)),
            false => Err(damaged(&key, format!("it has {len} bytes, not those that it should"))),
        }
    }

    /// That a head belongs here, and was made by who had the key.
    fn check_head(&self, name: &BackupName, head: Head) -> Result<Head> {
        let key = name.object(MANIFEST)?;
        let manifest = &head.manifest;
        if manifest.name != *name {
            return Err(damaged(&key, format!("it is that of {}", manifest.name)));
        }
        if manifest.repository != self.config.id {
            return Err(damaged(&key, "it was made for another repository"));
        }
        if manifest.seal.is_some() != self.config.sealed {
            return Err(damaged(&key, "whether it is sealed is not as in the repository"));
        }
        if let (Some(seal), Some(master)) = (&manifest.seal, &self.master)
            && !head.is_authentic(&self.sealer(manifest, seal, master)?)
        {
            return Err(damaged(&key, "it was not written by who had a key of the repository"));
        }
        Ok(head)
    }

    fn data_key(&self, manifest: &Manifest, seal: &Seal, master: &Secret) -> Result<Secret> {
        let name = &manifest.name;
        let context = Manifest::wrap_context(&self.config.id, name);
        master.unwrap_key(&seal.data_key, &context)?.ok_or_else(|| {
            Error::new(ErrorKind::Damage, format!("the data key of {name} was changed"))
        })
    }

    fn sealer(&self, manifest: &Manifest, seal: &Seal, master: &Secret) -> Result<Sealer> {
        Sealer::new(&self.data_key(manifest, seal, master)?, manifest.name.as_str())
    }

    /// What opens the frames of a backup: nothing where they are not sealed.
    pub fn opener(&self, manifest: &Manifest) -> Result<Option<Sealer>> {
        match (&manifest.seal, self.master()?) {
            (Some(seal), Some(master)) => self.sealer(manifest, seal, master).map(Some),
            _ => Ok(None),
        }
    }
}

/// A thread that did not do its work; it said why on standard error.
pub(crate) fn panicked() -> Error {
    Error::new(ErrorKind::Failed, "a thread panicked")
}
