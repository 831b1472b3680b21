//! Encrypted files: an event that says so, and the decryption of those behind it.
//!
//! Each event is encrypted by itself and keeps its length, which alone stays readable: the four
//! bytes of the timestamp are put where the length is, everything behind the first four bytes is
//! encrypted, and then the encrypted form of these bytes goes to the front and the length back to
//! its place. The initial vector is the file's nonce and the offset of the event.
//!
//! Which of the two modes of AES is in use no file says, so the first event that is decrypted
//! decides, by its checksum and its fields.

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, InnerIvInit, KeyInit,
    StreamCipher, StreamCipherCoreWrapper,
};
use ctr::CtrCore;
use zeroize::Zeroizing;

use crate::bytes::{Bytes, Malformed, Read};
use crate::header::at;

/// The key that servers encrypt their logs with, by its id.
pub const KEY_ID: u32 = 1;

/// Bytes of a nonce.
const NONCE_LEN: usize = 12;

/// Bytes of an AES block.
const BLOCK: usize = 16;

/// The one scheme there is.
const SCHEME: u8 = 1;

/// First byte of an event that is encrypted: the one behind the timestamp.
const FIRST_ENCRYPTED: usize = 4;

/// What announces that the rest of a file is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartEncryption {
    /// Always 1.
    pub scheme: u8,
    /// Version of key 1.
    pub key_version: u32,
    /// Random bytes of this file.
    pub nonce: [u8; NONCE_LEN],
}

impl StartEncryption {
    /// Reads the body of the event.
    pub fn parse(body: &[u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        let scheme = bytes.u8("encryption scheme")?;
        if scheme != SCHEME {
            return Err(Malformed("only encryption scheme 1 is known"));
        }
        let key_version = bytes.u32("key version")?;
        Ok(Self { scheme, key_version, nonce: bytes.array("nonce")? })
    }
}

/// Why events cannot be decrypted.
#[derive(Debug, thiserror::Error)]
pub enum CryptError {
    /// There is nobody to ask for keys.
    #[error("the log is encrypted with version {version} of key 1, and no keys are given")]
    NoKeys {
        /// Which version.
        version: u32,
    },
    /// Whoever was asked has no such key.
    #[error("the log is encrypted with version {version} of key 1: {why}")]
    NoKey {
        /// Which version.
        version: u32,
        /// What was said.
        why: String,
    },
    /// No way of using the key gives an event.
    #[error("the log is encrypted, and version {version} of key 1 does not decrypt it")]
    WrongKey {
        /// Which version.
        version: u32,
    },
}

/// Whoever has keys.
pub trait KeySource {
    /// Version `version` of key `id`: 16, 24 or 32 bytes. Or why it is not to be had.
    fn key(&self, id: u32, version: u32) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// How AES is applied to more than one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A counter.
    Ctr,
    /// Chained blocks; what is left of a last one is XORed with the encrypted initial vector.
    Cbc,
}

/// AES with a key of any length.
enum Aes {
    Short(Box<Aes128>),
    Middle(Box<Aes192>),
    Long(Box<Aes256>),
}

/// Decrypts the events of one file.
pub(crate) struct Decryptor {
    aes: Aes,
    nonce: [u8; NONCE_LEN],
    /// Version of the key, for messages.
    pub version: u32,
    /// Which mode, once an event has told.
    pub mode: Option<Mode>,
}

impl Decryptor {
    /// Asks for the key.
    pub fn new(start: &StartEncryption, keys: Option<&dyn KeySource>) -> Result<Self, CryptError> {
        let version = start.key_version;
        let keys = keys.ok_or(CryptError::NoKeys { version })?;
        let key = keys.key(KEY_ID, version).map_err(|why| CryptError::NoKey { version, why })?;
        let aes = match key.len() {
            16 => Aes128::new_from_slice(&key).ok().map(|aes| Aes::Short(Box::new(aes))),
            24 => Aes192::new_from_slice(&key).ok().map(|aes| Aes::Middle(Box::new(aes))),
            32 => Aes256::new_from_slice(&key).ok().map(|aes| Aes::Long(Box::new(aes))),
            _ => None,
        };
        let aes = aes.ok_or_else(|| {
            let why = "a key has 16, 24 or 32 bytes".to_owned();
            CryptError::NoKey { version, why }
        })?;
        Ok(Self { aes, nonce: start.nonce, version, mode: None })
    }

    /// Decrypts the event at `offset` in place. It has a whole header.
    pub fn decrypt(&self, mode: Mode, offset: u64, event: &mut [u8]) {
        let Some(length) = event.get(at::LENGTH..at::LENGTH + 4).map(<[u8]>::to_vec) else {
            return;
        };
        event.copy_within(at::TIMESTAMP..at::TIMESTAMP + 4, at::LENGTH);
        let mut iv = [0; BLOCK];
        iv[..NONCE_LEN].copy_from_slice(&self.nonce);
        iv[NONCE_LEN..].copy_from_slice(&(offset as u32).to_le_bytes());
        let data = &mut event[FIRST_ENCRYPTED..];
        match &self.aes {
            Aes::Short(aes) => apply(&**aes, mode, &iv, data),
            Aes::Middle(aes) => apply(&**aes, mode, &iv, data),
            Aes::Long(aes) => apply(&**aes, mode, &iv, data),
        }
        event.copy_within(at::LENGTH..at::LENGTH + 4, at::TIMESTAMP);
        event[at::LENGTH..at::LENGTH + 4].copy_from_slice(&length);
    }
}

fn apply<C>(aes: &C, mode: Mode, iv: &[u8; BLOCK], data: &mut [u8])
where
    C: BlockCipherEncrypt<BlockSize = cipher::consts::U16>
        + BlockCipherDecrypt<BlockSize = cipher::consts::U16>,
{
    match mode {
        Mode::Ctr => {
            type Counter<'a, C> = CtrCore<&'a C, ctr::flavors::Ctr128BE>;
            let core = Counter::<C>::inner_iv_init(aes, &Array::from(*iv));
            StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
        }
        Mode::Cbc => {
            let (blocks, tail) = Array::slice_as_chunks_mut(data);
            cbc::Decryptor::inner_iv_init(aes, &Array::from(*iv)).decrypt_blocks(blocks);
            let mut pad = Array::from(*iv);
            aes.encrypt_block(&mut pad);
            for (byte, pad) in tail.iter_mut().zip(pad) {
                *byte ^= pad;
            }
        }
    }
}

/// Nothing of the key.
impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decryptor(key version {}, {:?})", self.version, self.mode)
    }
}
