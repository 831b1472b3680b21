//! Encryption keys: where they come from, and what asks for them.
//!
//! A key has an id, which a table is created with, and a version, which every encrypted page
//! names. Servers get keys from a plugin; a [`KeyRing`] here is what such a plugin is there:
//!
//! | module | plugin |
//! |---|---|
//! | [`file`](self::file) | `file_key_management`: a file of keys, itself encrypted or not |
//! | [`debug`] | `debug_key_management`: the key of MariaDB's own tests |
//! | [`vault`] | `hashicorp_key_management`: a key/value store over HTTP |
//!
//! [`space`] and [`blocks`] derive from them what a tablespace or a redo log is encrypted with.
//! [`settings`] finds out which one and how it is reached: by arguments and variables, by the
//! server's option files, by what a running server says, by the backup itself.
//!
//! Promises: keys and passwords are never printed, never written to a file, and wiped from memory
//! when they are dropped. No argument of a command holds one: only names of files are arguments.

pub mod blocks;
pub mod debug;
pub mod file;
pub mod settings;
pub mod space;
pub mod vault;

use std::fmt;
use std::sync::Arc;

pub use innodb::crypt::CipherMode;
use innodb::crypt::Key;
use zeroize::Zeroizing;

pub use blocks::BlockCipher;
pub use settings::KeySettings;
pub use space::SpaceKeys;

use crate::{Error, ErrorKind};

/// A source of keys.
pub trait KeyRing: Send + Sync + fmt::Debug {
    /// The version of key `id` that is written with. It stays the same as long as this value lives.
    fn latest(&self, id: u32) -> Result<u32, KeyError>;

    /// A key.
    fn key(&self, id: u32, version: u32) -> Result<Key, KeyError>;

    /// How the server uses its keys. Nothing on disk says so.
    fn mode(&self) -> CipherMode;
}

/// Keys, if there are any.
pub type Keys = Option<Arc<dyn KeyRing>>;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None were given.
    #[error("no encryption keys are given")]
    NotGiven,
    /// The source does not have the key.
    #[error("{place} has no key with id {id}")]
    NoSuchKey {
        /// Which key.
        id: u32,
        /// Where it was looked for.
        place: String,
    },
    /// The source has the key, but not in this version.
    #[error("{place} has no version {version} of key {id}")]
    NoSuchVersion {
        /// Which key.
        id: u32,
        /// Which version.
        version: u32,
        /// Where it was looked for.
        place: String,
    },
    /// The source cannot be used at all.
    #[error("cannot get encryption keys from {place}: {why}")]
    Unusable {
        /// Which source.
        place: String,
        /// What is wrong. Says nothing of what the source holds.
        why: String,
    },
    /// The key that the source has is not the one that was used.
    #[error("version {version} of key {id} is not the one that {what} is encrypted with")]
    Wrong {
        /// Which key.
        id: u32,
        /// Which version.
        version: u32,
        /// What it does not decrypt.
        what: String,
    },
}

/// What to do about any of these.
const ADVICE: &str = "name the server's keys: --keys-file FILE, or the option file in which the \
                      server's encryption plugin is set up, --keys-defaults-file FILE";

impl KeyError {
    /// As an error of an operation that needs keys for `what`.
    pub fn needed_for(self, what: impl fmt::Display) -> Error {
        let message = match &self {
            Self::Wrong { .. } => format!("wrong encryption key for {what}"),
            _ => format!("{what} is encrypted, and its key is missing"),
        };
        Error::new(ErrorKind::Usage, message).advise(ADVICE).caused_by(self)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::new(ErrorKind::Usage, error.to_string()).advise(ADVICE)
    }
}

/// A password or token: not shown, and wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` for a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
