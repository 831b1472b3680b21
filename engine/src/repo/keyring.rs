//! The keys of a sealed repository.
//!
//! A random master key wraps the data keys of the backups, and is itself wrapped by each key that
//! people have. Adding and taking away such a key writes one small object and no backup again. That
//! object, too, is never changed: each change is a new one with the next number.
//!
//! Who once had a key may have kept the master key: taking a key away does not lock out somebody
//! who copied it before.

use super::config::Config;
use super::layout::{KEYS, damaged};
use super::seal::Secret;
use crate::store::{Key, Put, PutOptions, Store};
use crate::{Cancel, Error, ErrorKind, Result};

/// Keys are not changed so often.
const NUMBER_MAX: u64 = 1_000_000;
/// No list of keys is longer.
const KEYS_MAX: u64 = 1 << 20;

/// The wrapped master key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Document {
    format: u32,
    keys: Vec<WrappedKey>,
}

/// The master key, wrapped by one key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WrappedKey {
    /// Fingerprint of the key that wraps.
    pub key: String,
    /// When it was added.
    pub added: jiff::Timestamp,
    /// What it wraps.
    master: String,
}

/// The latest list of keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    number: u64,
    document: Document,
}

impl Keyring {
    /// Makes a master key for a new repository.
    pub fn create(
        store: &dyn Store,
        config: &Config,
        key: &Secret,
        cancel: &Cancel,
    ) -> Result<Secret> {
        let master = Secret::random()?;
        let document = Document { format: 1, keys: vec![wrapped(key, &master, config)?] };
        Self { number: 1, document }.put(store, cancel)?;
        Ok(master)
    }

    /// Reads the latest one.
    pub fn read(store: &dyn Store, cancel: &Cancel) -> Result<Self> {
        let number = |object: &crate::store::Object| -> Option<u64> {
            let number = object.key.name().strip_suffix(".json")?.parse().ok()?;
            // No other spelling of a number, and none that has no next one.
            (number < NUMBER_MAX && self::object(number).ok()? == object.key).then_some(number)
        };
        let latest = store.list(KEYS, cancel)?.iter().filter_map(number).max();
        let Some(number) = latest else {
            return Err(Error::new(
                ErrorKind::Damage,
                format!("the keys of the repository are missing: nothing in {KEYS}"),
            )
            .advise(
                "if it was never used, init did not end: remove haulout.json and run init again",
            ));
        };
        let object = object(number)?;
        let text = store.get(&object, None, KEYS_MAX, cancel)?;
        let document: Document = serde_json::from_slice(&text)
            .map_err(|error| damaged(&object, "cannot be read").caused_by(error))?;
        if document.format > 1 {
            return Err(damaged(&object, "it has a later format").advise("use a newer version"));
        }
        Ok(Self { number, document })
    }

    /// The keys that open the repository.
    pub fn keys(&self) -> &[WrappedKey] {
        &self.document.keys
    }

    /// The master key, by one of the keys.
    pub fn master(&self, config: &Config, key: &Secret) -> Result<Secret> {
        let fingerprint = key.fingerprint();
        let mut known = false;
        for wrapped in self.document.keys.iter().filter(|wrapped| wrapped.key == fingerprint) {
            known = true;
            if let Some(master) = key.unwrap_key(&wrapped.master, config.id.as_bytes())? {
                return Ok(master);
            }
        }
        let have: Vec<_> = self.document.keys.iter().map(|wrapped| wrapped.key.as_str()).collect();
        Err(match known {
            true => damaged(&object(self.number)?, "the entry of this key was changed"),
            false => Error::new(
                ErrorKind::Usage,
                format!(
                    "the key {fingerprint} does not open this repository; it has {}",
                    have.join(", ")
                ),
            ),
        })
    }

    /// Adds a key.
    pub fn add(
        mut self,
        store: &dyn Store,
        config: &Config,
        master: &Secret,
        key: &Secret,
        cancel: &Cancel,
    ) -> Result<()> {
        let fingerprint = key.fingerprint();
        if self.document.keys.iter().any(|wrapped| wrapped.key == fingerprint) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("the key {fingerprint} opens this repository already"),
            ));
        }
        self.document.keys.push(wrapped(key, master, config)?);
        self.number += 1;
        self.put(store, cancel)
    }

    /// Takes a key away, and the lists before in which it was.
    pub fn remove(mut self, store: &dyn Store, fingerprint: &str, cancel: &Cancel) -> Result<()> {
        let before = self.document.keys.len();
        self.document.keys.retain(|wrapped| wrapped.key != fingerprint);
        if self.document.keys.len() == before {
            return Err(Error::new(
                ErrorKind::NothingMatches,
                format!("there is no key {fingerprint} in this repository"),
            ));
        }
        if self.document.keys.is_empty() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{fingerprint} is the last key: without it nothing could be restored"),
            )
            .advise("add another one first"));
        }
        self.number += 1;
        let number = self.number;
        self.put(store, cancel)?;
        let latest = object(number)?;
        let objects = store.list(KEYS, cancel)?;
        let old: Vec<Key> =
            objects.into_iter().map(|object| object.key).filter(|key| *key < latest).collect();
        store.delete(&old, cancel)
    }

    fn put(&self, store: &dyn Store, cancel: &Cancel) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.document)
            .map_err(|e| Error::new(ErrorKind::Failed, "cannot write the keys").caused_by(e))?;
        let options = PutOptions { only_if_absent: true, ..PutOptions::default() };
        let body = format!("{text}\n").into_bytes().into();
        match store.put(&object(self.number)?, body, &options, cancel)? {
            Put::Stored => Ok(()),
            Put::AlreadyThere => Err(Error::new(
                ErrorKind::Failed,
                "somebody else changed the keys of the repository at the same time",
            )
            .advise("look at them and try again")),
        }
    }
}

fn wrapped(key: &Secret, master: &Secret, config: &Config) -> Result<WrappedKey> {
    Ok(WrappedKey {
        key: key.fingerprint(),
        added: jiff::Timestamp::now(),
        master: key.wrap(master, config.id.as_bytes())?,
    })
}

fn object(number: u64) -> Result<Key> {
    Key::new(&format!("{KEYS}{number:06}.json"))
}
