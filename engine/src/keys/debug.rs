//! The key of `debug_key_management`, a plugin for tests of servers: one key in any version, which is
//! no secret. MariaDB's own tests of its backup tool use it; nobody else should.

use innodb::crypt::Key;

use super::{CipherMode, KeyError, KeyRing};

/// The only key there is.
const ID: u32 = 1;
const SIZE: usize = 16;
const PLACE: &str = "debug_key_management";

/// The plugin at a version.
#[derive(Debug)]
pub struct DebugKeys {
    version: u32,
}

impl DebugKeys {
    /// Writes with this version.
    pub fn new(version: u32) -> Self {
        Self { version }
    }
}

fn check(id: u32) -> Result<(), KeyError> {
    if id == ID { Ok(()) } else { Err(KeyError::NoSuchKey { id, place: PLACE.to_owned() }) }
}

impl KeyRing for DebugKeys {
    fn latest(&self, id: u32) -> Result<u32, KeyError> {
        check(id).map(|()| self.version)
    }

    /// The version, in big-endian bytes, and zeros.
    fn key(&self, id: u32, version: u32) -> Result<Key, KeyError> {
        check(id)?;
        let mut bytes = [0; SIZE];
        if let Some(front) = bytes.first_chunk_mut() {
            *front = version.to_be_bytes();
        }
        Key::new(&bytes).ok_or(KeyError::NoSuchVersion { id, version, place: PLACE.to_owned() })
    }

    fn mode(&self) -> CipherMode {
        CipherMode::Cbc
    }
}
