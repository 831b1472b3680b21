//! The end of a redo log that nobody writes: that of a server whose InnoDB is switched off, which
//! cannot be asked. It ends where no mini-transaction can be read, as for a server that starts.

use std::path::Path;
use std::sync::Arc;

use innodb::Lsn;
use innodb::redo::blocks::NotEncrypted;
use innodb::redo::mtr;

use super::log_file::{Format, LogFile};
use crate::keys::BlockCipher;
use crate::keys::settings::KeyStore;
use crate::{Error, Result};

/// Read at once; more than two mini-transactions of the largest size.
const READ: usize = 4 << 20;

/// Finds the end.
pub fn end_of(path: &Path, keys: &Arc<KeyStore>) -> Result<Lsn> {
    let log = LogFile::open(path)?;
    let cipher = match log.format() {
        Format::Blocks { encryption: Some(encryption), .. } => {
            Some(BlockCipher::new(keys, encryption)?)
        }
        _ => None,
    };
    let mut at = log.checkpoint()?.lsn;
    let (mut buffer, mut payload) = (vec![0; READ], Vec::new());
    loop {
        let read = log.read(log.unit_start(at), &mut buffer);
        let read = read.map_err(|error| Error::io("read", path, error))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let before = at;
        match log.format() {
            Format::Plain { trailer, .. } => {
                let mut rest = bytes;
                while let Ok(found) = mtr::next_with(rest, at, log.laps(), trailer) {
                    let size = found.records.len() + trailer.size();
                    at = found.end;
                    rest = rest.get(size..).unwrap_or_default();
                }
            }
            Format::Blocks { framing, .. } => {
                payload.clear();
                match &cipher {
                    None => {
                        framing.unwrap(bytes, at, &NotEncrypted, &mut payload);
                    }
                    Some(cipher) => {
                        framing.unwrap(bytes, at, cipher, &mut payload);
                        cipher.check()?;
                    }
                }
                let mut rest = payload.as_slice();
                while let Ok(found) = framing.next(rest, at) {
                    let size = found.records.len() + 1;
                    at = found.end;
                    rest = rest.get(size..).unwrap_or_default();
                }
            }
        }
        if at == before {
            return Ok(at);
        }
    }
}
