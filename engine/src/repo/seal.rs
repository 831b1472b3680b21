//! Sealing: what leaves for the store can be read and made only by who has the repository's key.
//!
//! A random data key for each backup encrypts its frames with AES-256-GCM. What a frame is, is part
//! of what is authenticated: the backup, the pack and the frame's number. So nothing can be
//! swapped, cut or reordered unnoticed. The manifest is not secret, but has a code that only the
//! data key can make. The data key stands in the manifest, wrapped by the repository's master key
//! ([`super::keyring`]).

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf, hmac};
use zeroize::{Zeroize, Zeroizing};

use crate::{Error, ErrorKind, Result};

/// Bytes of every key.
pub const KEY_LEN: usize = 32;
/// What sealing adds to a frame.
pub const TAG_LEN: usize = 16;

/// A key of 32 bytes that is wiped when it is dropped and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; KEY_LEN]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A new one.
    pub fn random() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random(&mut *bytes)?;
        Ok(Self(*bytes))
    }

    /// This one.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// A key written as 64 hexadecimal digits or as base64; `None` for everything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        match text.len() {
            64 => {
                for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
                    let digits = std::str::from_utf8(digits).ok()?;
                    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                        return None;
                    }
                    *byte = u8::from_str_radix(digits, 16).ok()?;
                }
            }
            _ => {
                use base64::Engine;
                use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
                let decoded =
                    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
                let decoded = Zeroizing::new(decoded);
                bytes.copy_from_slice(decoded.get(..KEY_LEN).filter(|_| decoded.len() == KEY_LEN)?);
            }
        }
        Some(Self(*bytes))
    }

    /// Its bytes, for a store that is to use it.
    pub fn bytes(&self) -> [u8; KEY_LEN] {
        self.0
    }

    /// As text, for the file that a new key is written to.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(&self.0))
    }

    /// Tells keys apart without telling anything about them.
    pub fn fingerprint(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"haulout key fingerprint\0");
        context.update(&self.0);
        hex(context.finish().as_ref().get(..8).unwrap_or_default())
    }

    /// Another key, made from this one for `purpose`.
    fn derive(&self, purpose: &[u8]) -> Result<Self> {
        let failed = || Error::new(ErrorKind::Failed, "cannot derive a key");
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"haulout")
            .extract(&self.0)
            .expand(&[purpose], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *bytes))
            .map_err(|_| failed())?;
        Ok(Self(*bytes))
    }

    /// Wraps `other`: a nonce, the ciphertext, a tag. `context` is authenticated with it.
    pub fn wrap(&self, other: &Self, context: &[u8]) -> Result<String> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut bytes = other.0.to_vec();
        aead(&self.derive(b"wrap")?)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut bytes,
            )
            .map_err(|_| Error::new(ErrorKind::Failed, "cannot wrap a key"))?;
        Ok(hex(&[&nonce[..], &bytes].concat()))
    }

    /// What [`Secret::wrap`] wrapped; `None` when this is not the key, or something was changed.
    pub fn unwrap_key(&self, wrapped: &str, context: &[u8]) -> Result<Option<Self>> {
        const LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;
        let Some(mut bytes) = unhex(wrapped).filter(|bytes| bytes.len() == LEN) else {
            return Ok(None);
        };
        let Some((nonce, sealed)) = bytes.split_first_chunk_mut::<NONCE_LEN>() else {
            return Ok(None);
        };
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = aead(&self.derive(b"wrap")?)?.open_in_place(nonce, Aad::from(context), sealed);
        let key = opened.ok().and_then(|opened| <[u8; KEY_LEN]>::try_from(&*opened).ok());
        Ok(key.map(Self))
    }
}

/// Seals and opens the frames of one backup.
pub struct Sealer {
    frames: LessSafeKey,
    manifest: hmac::Key,
    backup: String,
}

impl Sealer {
    /// With the data key of the backup of this name.
    pub fn new(data_key: &Secret, backup: &str) -> Result<Self> {
        let manifest = data_key.derive(b"manifest")?;
        Ok(Self {
            frames: aead(&data_key.derive(b"frames")?)?,
            manifest: hmac::Key::new(hmac::HMAC_SHA256, &manifest.0),
            backup: backup.to_owned(),
        })
    }

    /// What is authenticated beside a frame's bytes.
    fn place(&self, pack: u32, frame: u32) -> Vec<u8> {
        let mut place = self.backup.clone().into_bytes();
        place.push(0);
        place.extend_from_slice(&pack.to_be_bytes());
        place.extend_from_slice(&frame.to_be_bytes());
        place
    }

    /// The data key is used for one backup and a number for one frame of it, so no nonce comes
    /// twice.
    fn nonce(frame: u32) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 4..].copy_from_slice(&frame.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals a frame, which gets [`TAG_LEN`] bytes longer. Once for each number.
    pub fn seal(&self, pack: u32, frame: u32, bytes: &mut Vec<u8>) -> Result<()> {
        let place = self.place(pack, frame);
        self.frames
            .seal_in_place_append_tag(Self::nonce(frame), Aad::from(place), bytes)
            .map_err(|_| Error::new(ErrorKind::Failed, "cannot seal a frame"))
    }

    /// Opens a frame; `None` when it is not what was sealed for this place.
    pub fn open(&self, pack: u32, frame: u32, bytes: &mut Vec<u8>) -> Option<()> {
        let place = self.place(pack, frame);
        let opened = self.frames.open_in_place(Self::nonce(frame), Aad::from(place), bytes).ok()?;
        let len = opened.len();
        bytes.truncate(len);
        Some(())
    }

    /// The code of a manifest.
    pub fn code(&self, manifest: &[u8]) -> String {
        hex(hmac::sign(&self.manifest, manifest).as_ref())
    }

    /// Whether `code` is that of a manifest.
    pub fn fits(&self, manifest: &[u8], code: &str) -> bool {
        unhex(code).is_some_and(|code| hmac::verify(&self.manifest, manifest, &code).is_ok())
    }
}

fn aead(key: &Secret) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, &key.0)
        .map(LessSafeKey::new)
        .map_err(|_| Error::new(ErrorKind::Failed, "cannot use a key"))
}

/// Fills `bytes` from the system's source of randomness.
pub fn random(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| Error::new(ErrorKind::Failed, "the system gives no random bytes"))
}

/// SHA-256, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Bytes from hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_frame_opens_in_its_place_only() {
        let key = Secret::random().unwrap();
        let sealer = Sealer::new(&key, "b1").unwrap();
        let mut sealed = b"content".to_vec();
        sealer.seal(3, 70, &mut sealed).unwrap();
        assert_eq!(sealed.len(), 7 + TAG_LEN);
        let opened = |sealer: &Sealer, pack, frame, sealed: &[u8]| {
            let mut bytes = sealed.to_vec();
            sealer.open(pack, frame, &mut bytes).map(|()| bytes)
        };
        assert_eq!(opened(&sealer, 3, 70, &sealed).unwrap(), b"content");
        assert!(opened(&sealer, 2, 70, &sealed).is_none());
        assert!(opened(&sealer, 3, 71, &sealed).is_none());
        assert!(opened(&Sealer::new(&key, "b2").unwrap(), 3, 70, &sealed).is_none());
        let other = Secret::random().unwrap();
        assert!(opened(&Sealer::new(&other, "b1").unwrap(), 3, 70, &sealed).is_none());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(opened(&sealer, 3, 70, &bad).is_none());
            assert!(opened(&sealer, 3, 70, &sealed[..at]).is_none());
        }
        let code = sealer.code(b"m");
        assert!(sealer.fits(b"m", &code) && !sealer.fits(b"n", &code) && !sealer.fits(b"m", "00"));
    }

    #[test]
    fn a_wrapped_key_is_got_back_by_its_key_only() {
        let (outer, inner) = (Secret::random().unwrap(), Secret::random().unwrap());
        let wrapped = outer.wrap(&inner, b"here").unwrap();
        assert!(outer.unwrap_key(&wrapped, b"here").unwrap() == Some(inner.clone()));
        assert!(outer.unwrap_key(&wrapped, b"there").unwrap().is_none());
        assert!(inner.unwrap_key(&wrapped, b"here").unwrap().is_none());
        for text in ["", "00", "zz", &wrapped[2..], &format!("{wrapped}00")] {
            assert!(outer.unwrap_key(text, b"here").unwrap().is_none());
        }
    }

    #[test]
    fn keys_are_read_in_both_notations() {
        let key = Secret::new([0xab; KEY_LEN]);
        let base64 = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n";
        assert!(Secret::parse(key.to_hex().as_bytes()) == Some(key.clone()));
        assert!(Secret::parse(base64.as_bytes()) == Some(key.clone()));
        assert!(Secret::parse(base64.trim_end_matches(['\n', '=']).as_bytes()) == Some(key));
        for text in ["", "ab", &"zz".repeat(32), &"ab".repeat(33), "q6urqw=="] {
            assert!(Secret::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
