//! The keys of one tablespace, derived once for each version that its pages name.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use innodb::crypt::DerivedKey;
use innodb::space::CryptData;

use super::KeyError;
use super::settings::KeyStore;

/// The keys of a tablespace. Shared by all threads that read or write its pages.
#[derive(Debug)]
pub struct SpaceKeys {
    store: Arc<KeyStore>,
    seed: [u8; 16],
    key_id: u32,
    by_version: RwLock<HashMap<u32, Arc<DerivedKey>>>,
    latest: OnceLock<(u32, Arc<DerivedKey>)>,
}

impl SpaceKeys {
    /// The keys of the tablespace that `crypt` describes. Nothing is looked up yet.
    pub fn new(store: &Arc<KeyStore>, crypt: &CryptData) -> Self {
        Self::derived(store, crypt.key_id, crypt.iv)
    }

    /// The keys that are derived from key `key_id` with `seed`.
    pub fn derived(store: &Arc<KeyStore>, key_id: u32, seed: [u8; 16]) -> Self {
        Self {
            store: Arc::clone(store),
            seed,
            key_id,
            by_version: RwLock::default(),
            latest: OnceLock::new(),
        }
    }

    /// Which key the tablespace has.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// The key for pages of this version.
    pub fn of_version(&self, version: u32) -> Result<Arc<DerivedKey>, KeyError> {
        let known = self.by_version.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(&version) {
            return Ok(Arc::clone(key));
        }
        drop(known);
        let ring = self.store.ring()?;
        let key = ring.key(self.key_id, version)?;
        let key = Arc::new(DerivedKey::new(&key, &self.seed, ring.mode()));
        let mut known = self.by_version.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(known.entry(version).or_insert(key)))
    }

    /// The version that pages are written with, and its key.
    pub fn latest(&self) -> Result<(u32, Arc<DerivedKey>), KeyError> {
        if let Some((version, key)) = self.latest.get() {
            return Ok((*version, Arc::clone(key)));
        }
        let version = self.store.ring()?.latest(self.key_id)?;
        let found = (version, self.of_version(version)?);
        let (version, key) = self.latest.get_or_init(|| found);
        Ok((*version, Arc::clone(key)))
    }
}
