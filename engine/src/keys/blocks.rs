//! The keys of an encrypted redo log of 10.5 to 10.7, whose blocks each name a key version.

use std::sync::{Arc, Mutex, PoisonError};

use innodb::Lsn;
use innodb::crypt::redo::{KEY_ID, block_key_version, decrypt_block, seal_block};
use innodb::redo::Stop;
use innodb::redo::blocks::{BLOCK_SIZE, BlockDecrypter, BlockEncryption, block_start};

use super::settings::{KeyStore, REDO_LOG};
use super::{KeyError, SpaceKeys};
use crate::Result;

/// Decrypts the blocks of one log.
#[derive(Debug)]
pub struct BlockCipher {
    keys: SpaceKeys,
    encryption: BlockEncryption,
    /// Why a block could not be decrypted: to whoever unwraps blocks it is the end of the log.
    failed: Mutex<Option<KeyError>>,
}

impl BlockCipher {
    /// The cipher of a log whose newest checkpoint says `encryption`.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn new(store: &Arc<KeyStore>, encryption: BlockEncryption) -> Result<Self> {
        let keys = SpaceKeys::derived(store, KEY_ID, encryption.message);
        keys.of_version(encryption.key_version).map_err(|error| error.needed_for(REDO_LOG))?;
        Ok(Self { keys, encryption, failed: Mutex::default() })
    }

    /// Version of the key that the checkpoint names.
    pub fn key_version(&self) -> u32 {
        self.encryption.key_version
    }

    /// Fails if a block could not be decrypted for want of its key.
    pub fn check(&self) -> Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), |error| Err(error.needed_for(REDO_LOG)))
    }

    /// `change`s the plain form of `block`, which `lsn` is in. A block that was never `written` is
    /// not decrypted before.
    pub fn rewrite(
        &self,
        block: &[u8; BLOCK_SIZE],
        lsn: Lsn,
        written: bool,
        change: impl FnOnce(&[u8; BLOCK_SIZE]) -> [u8; BLOCK_SIZE],
    ) -> Result<[u8; BLOCK_SIZE]> {
        let (start, mut plain) = (block_start(lsn), *block);
        let version = if written { block_key_version(block) } else { self.key_version() };
        let key = self.keys.of_version(version).map_err(|error| error.needed_for(REDO_LOG))?;
        if written {
            decrypt_block(&mut plain, start, self.encryption.nonce, &key);
        }
        let mut block = change(&plain);
        seal_block(&mut block, start, self.encryption.nonce, &key, version);
        Ok(block)
    }
}

impl BlockDecrypter for BlockCipher {
    fn decrypt(&self, block: &mut [u8; BLOCK_SIZE], lsn: Lsn) -> std::result::Result<(), Stop> {
        match self.keys.of_version(block_key_version(block)) {
            Ok(key) => {
                decrypt_block(block, lsn, self.encryption.nonce, &key);
                Ok(())
            }
            Err(error) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(Stop::BadCrc)
            }
        }
    }
}
