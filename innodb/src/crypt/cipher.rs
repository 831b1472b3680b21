//! AES over any number of bytes, in the two ways that servers use.
//!
//! CTR is the usual one: a 128-bit big-endian counter that starts from the initial vector. CBC has
//! no padding, because the result must be as long as the input: whole blocks are chained as usual,
//! and what is left of a last block is XORed with the encrypted *initial* vector, in both
//! directions.

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use cipher::{
    Array, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit,
    StreamCipher, StreamCipherCoreWrapper,
};
use ctr::CtrCore;

use super::{CipherMode, Key};

/// Bytes of an AES block, of an initial vector, and of a derived key.
pub const BLOCK: usize = 16;

/// The key of one tablespace or redo log.
#[derive(Clone)]
pub struct DerivedKey {
    aes: Aes128,
    mode: CipherMode,
}

impl DerivedKey {
    /// Derives the key that belongs to `seed`: the initial vector on page 0 of a tablespace, or the
    /// message in the header of a redo log.
    pub fn new(key: &Key, seed: &[u8; BLOCK], mode: CipherMode) -> Self {
        let mut block = Array::from(*seed);
        encrypt_block(key.bytes(), &mut block);
        let aes = Aes128::new(&block);
        zeroize::Zeroize::zeroize(block.as_mut_slice());
        Self { aes, mode }
    }

    /// Encrypts `data` in place.
    pub fn encrypt(&self, iv: &[u8; BLOCK], data: &mut [u8]) {
        match self.mode {
            CipherMode::Ctr => self.count(iv, data),
            CipherMode::Cbc => {
                let (blocks, tail) = Array::slice_as_chunks_mut(data);
                cbc::Encryptor::inner_iv_init(&self.aes, &Array::from(*iv)).encrypt_blocks(blocks);
                self.tail(iv, tail);
            }
        }
    }

    /// Decrypts `data` in place.
    pub fn decrypt(&self, iv: &[u8; BLOCK], data: &mut [u8]) {
        match self.mode {
            CipherMode::Ctr => self.count(iv, data),
            CipherMode::Cbc => {
                let (blocks, tail) = Array::slice_as_chunks_mut(data);
                cbc::Decryptor::inner_iv_init(&self.aes, &Array::from(*iv)).decrypt_blocks(blocks);
                self.tail(iv, tail);
            }
        }
    }

    fn count(&self, iv: &[u8; BLOCK], data: &mut [u8]) {
        type Counter<'a> = CtrCore<&'a Aes128, ctr::flavors::Ctr128BE>;
        let core = Counter::inner_iv_init(&self.aes, &Array::from(*iv));
        StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
    }

    fn tail(&self, iv: &[u8; BLOCK], tail: &mut [u8]) {
        if tail.is_empty() {
            return;
        }
        let mut pad = Array::from(*iv);
        self.aes.encrypt_block(&mut pad);
        for (byte, pad) in tail.iter_mut().zip(pad) {
            *byte ^= pad;
        }
    }
}

/// Nothing of the key.
impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DerivedKey({:?})", self.mode)
    }
}

/// One block under a key of any length.
fn encrypt_block(key: &[u8], block: &mut aes::Block) {
    match key.len() {
        16 => Aes128::new_from_slice(key).map(|aes| aes.encrypt_block(block)),
        24 => Aes192::new_from_slice(key).map(|aes| aes.encrypt_block(block)),
        _ => Aes256::new_from_slice(key).map(|aes| aes.encrypt_block(block)),
    }
    // A `Key` has one of the three lengths.
    .unwrap_or_default();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// AES-128 with the identity of tests: NIST SP 800-38A.
    const NIST_KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c";

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    fn plain_key(mode: CipherMode) -> DerivedKey {
        DerivedKey { aes: Aes128::new(&hex(NIST_KEY).into()), mode }
    }

    #[test]
    fn the_vectors_of_the_standard() {
        let text: [u8; 32] =
            hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let mut data = text;
        let iv = hex("000102030405060708090a0b0c0d0e0f");
        plain_key(CipherMode::Cbc).encrypt(&iv, &mut data);
        let expected = "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2";
        assert_eq!(data, hex(expected));
        let mut data = text;
        let iv = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        plain_key(CipherMode::Ctr).encrypt(&iv, &mut data);
        let expected = "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff";
        assert_eq!(data, hex(expected));
    }

    #[test]
    fn keys_of_all_lengths_derive() {
        // FIPS 197, appendix C: the three keys over one block.
        let seed = hex("00112233445566778899aabbccddeeff");
        let bytes: [u8; 32] = std::array::from_fn(|i| i as u8);
        for (length, derived) in [
            (16, "69c4e0d86a7b0430d8cdb78070b4c55a"),
            (24, "dda97ca4864cdfe06eaf70a0ec0d7191"),
            (32, "8ea2b7ca516745bfeafc49904b496089"),
        ] {
            let key = DerivedKey::new(&Key::new(&bytes[..length]).unwrap(), &seed, CipherMode::Ctr);
            let (mut left, mut right) = ([0; 40], [0; 40]);
            key.encrypt(&seed, &mut left);
            let expected = DerivedKey { aes: Aes128::new(&hex(derived).into()), ..key };
            expected.encrypt(&seed, &mut right);
            assert_eq!(left, right, "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encrypted_decrypts(
            data in prop::collection::vec(any::<u8>(), 0..200),
            iv: [u8; 16],
            ctr: bool,
        ) {
            let key = plain_key(if ctr { CipherMode::Ctr } else { CipherMode::Cbc });
            let mut there = data.clone();
            key.encrypt(&iv, &mut there);
            prop_assert!(data.len() < 8 || there != data);
            key.decrypt(&iv, &mut there);
            prop_assert_eq!(there, data);
        }
    }
}
