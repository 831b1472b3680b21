//! The key files of `file_key_management`.
//!
//! Lines of `id;key`, the key as 32, 48 or 64 hexadecimal digits. What follows the digits is
//! ignored, as are lines that are empty or start with `#`; a later line of an id replaces an
//! earlier one; key 1 must be there. All keys have version 1.
//!
//! The file may be encrypted as `openssl enc -aes-256-cbc -md sha1` does it:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `Salted__` |
//! | 8 | salt |
//! | rest | AES-256-CBC, PKCS#7 padding |
//!
//! Key and initial vector are the first 48 bytes of D1 D2 D3, with D(i) = SHA-1(D(i−1) password salt).

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aes::Aes256;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use innodb::crypt::{CipherMode, Key};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::{KeyError, KeyRing, Secret};

/// Largest key file; the plugin reads no more either.
const FILE_SIZE_MAX: u64 = 1 << 20;
/// Longest password.
const PASSWORD_MAX: usize = 256;
/// What an encrypted file starts with.
const MAGIC: &[u8] = b"Salted__";
const SALT_SIZE: usize = 8;
/// The one version that keys from a file have.
const VERSION: u32 = 1;

/// The keys of a file.
pub struct FileKeys {
    path: PathBuf,
    keys: HashMap<u32, Key>,
    mode: CipherMode,
}

impl FileKeys {
    /// Reads the file at `path`, which is encrypted if there is a password.
    ///
    /// # Errors
    /// When the file cannot be read, decrypted or understood. The error names the line, never what
    /// it holds.
    pub fn read(
        path: &Path,
        password: Option<&Secret>,
        mode: CipherMode,
    ) -> Result<Self, KeyError> {
        let unusable = |why: String| KeyError::Unusable { place: place(path), why };
        let bytes = read_bounded(path, FILE_SIZE_MAX).map_err(unusable)?;
        let keys = parse_file(bytes, password).map_err(unusable)?;
        Ok(Self { path: path.to_owned(), keys, mode })
    }
}

impl KeyRing for FileKeys {
    fn latest(&self, id: u32) -> Result<u32, KeyError> {
        self.key(id, VERSION).map(|_| VERSION)
    }

    fn key(&self, id: u32, version: u32) -> Result<Key, KeyError> {
        let place = place(&self.path);
        if version != VERSION {
            return Err(KeyError::NoSuchVersion { id, version, place });
        }
        self.keys.get(&id).cloned().ok_or(KeyError::NoSuchKey { id, place })
    }

    fn mode(&self) -> CipherMode {
        self.mode
    }
}

/// The ids only.
impl std::fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("FileKeys").field("path", &self.path).field("ids", &ids).finish()
    }
}

fn place(path: &Path) -> String {
    format!("the key file {}", path.display())
}

/// The password that stands in a file of its own.
///
/// # Errors
/// When there is no such file, or it is empty or too long.
pub fn password_from_file(path: &Path) -> Result<Secret, KeyError> {
    let unusable = |why: String| {
        let place = format!("the file {} that has the password of the key file", path.display());
        KeyError::Unusable { place, why }
    };
    let bytes = read_bounded(path, PASSWORD_MAX as u64).map_err(unusable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("it is not text".to_owned()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(unusable("it is empty".to_owned()));
    }
    Ok(Secret::new(text.to_owned()))
}

/// A file of at most `max` bytes; also one that has no size, such as a pipe.
fn read_bounded(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    // Room for everything at once, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max as usize + 2));
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if read as u64 > max {
        return Err(format!("it is larger than {max} bytes"));
    }
    Ok(bytes)
}

/// The keys in the bytes of a file. For tests and fuzzing too; errors name lines, not content.
///
/// # Errors
/// When the bytes cannot be decrypted or are no list of keys.
pub fn parse_file(
    mut bytes: Zeroizing<Vec<u8>>,
    password: Option<&Secret>,
) -> Result<HashMap<u32, Key>, String> {
    let password = password.map_or("", Secret::expose);
    if bytes.starts_with(MAGIC) {
        if password.is_empty() {
            return Err("it is encrypted, and no password is given".to_owned());
        }
        decrypt(&mut bytes, password)?;
    } else if !password.is_empty() {
        return Err("a password is given, but it is not encrypted".to_owned());
    }
    parse(&bytes)
}

/// Decrypts an `openssl enc` file in place.
fn decrypt(bytes: &mut Zeroizing<Vec<u8>>, password: &str) -> Result<(), String> {
    let wrong = || "it cannot be decrypted: wrong password or damaged file".to_owned();
    let salt: [u8; SALT_SIZE] =
        *bytes.get(MAGIC.len()..).and_then(|rest| rest.first_chunk()).ok_or_else(wrong)?;
    let mut material = Zeroizing::new([0u8; 60]);
    let mut digest: Zeroizing<Vec<u8>> = Zeroizing::default();
    for part in material.chunks_exact_mut(20) {
        let mut hash = Sha1::new();
        hash.update(&*digest);
        hash.update(password.as_bytes());
        hash.update(salt);
        digest = Zeroizing::new(hash.finalize().to_vec());
        part.copy_from_slice(&digest);
    }
    let (key, iv) = material.split_at(32);
    let iv = iv.get(..16).unwrap_or_default();
    let cipher = cbc::Decryptor::<Aes256>::new_from_slices(key, iv).map_err(|_| wrong())?;
    bytes.drain(..MAGIC.len() + SALT_SIZE);
    let plain = cipher.decrypt_padded::<Pkcs7>(bytes).map_err(|_| wrong())?.len();
    bytes.truncate(plain);
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<HashMap<u32, Key>, String> {
    let mut keys = HashMap::new();
    // What follows a NUL is not read by the plugin either.
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (id, key) = parse_line(line).map_err(|why| format!("line {}: {why}", number + 1))?;
        keys.insert(id, key);
    }
    if !keys.contains_key(&1) {
        return Err("it has no key with id 1".to_owned());
    }
    Ok(keys)
}

fn parse_line(line: &[u8]) -> Result<(u32, Key), &'static str> {
    let end = line.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(line.len());
    let (id, rest) = line.split_at(end);
    let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    let id = id.filter(|id| *id > 0).ok_or("the line does not start with the id of a key")?;
    let rest = rest.strip_prefix(b";").ok_or("there is no ';' behind the id")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(rest.len());
    let digits = rest.get(..end).and_then(|digits| std::str::from_utf8(digits).ok());
    let key = digits.and_then(Key::from_hex);
    Ok((id, key.ok_or("a key has 32, 48 or 64 hexadecimal digits")?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const PLAIN: &str = "# the keys\n\n1;770a8a65da156d24ee2a093277530142\r\n\
        \t 4294967295;770A8A65DA156D24EE2A093277530142770A8A65DA156D24EE2A093277530142 # new\n\
        2;000102030405060708090a0b0c0d0e0f1011121314151617\n2;ffffffffffffffffffffffffffffffff";

    /// Made by `openssl enc -aes-256-cbc -md sha1 -k secret`, see the README beside it: the key file
    /// with key 1 alone.
    const ENCRYPTED: &str = include_str!("../../../testdata/keys/encrypted.hex");

    fn keys(text: &str) -> Result<HashMap<u32, Key>, String> {
        parse_file(Zeroizing::new(text.as_bytes().to_vec()), None)
    }

    fn encrypted() -> Zeroizing<Vec<u8>> {
        let digits = ENCRYPTED.trim().as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        Zeroizing::new(digits.chunks(2).map(|pair| byte(pair).unwrap()).collect())
    }

    #[test]
    fn a_plain_file() {
        let keys = keys(PLAIN).unwrap();
        let lengths = [1, 2, u32::MAX].map(|id| keys[&id].bytes().len());
        assert_eq!((keys.len(), lengths), (3, [16, 16, 32]));
        assert_eq!(keys[&2].bytes(), [0xff; 16]);
    }

    #[test]
    fn an_encrypted_file() {
        let password = Secret::new("secret".to_owned());
        let keys = parse_file(encrypted(), Some(&password)).unwrap();
        assert_eq!(keys[&1], Key::from_hex("770a8a65da156d24ee2a093277530142").unwrap());
        for wrong in ["Secret", "secret "] {
            let wrong = Secret::new(wrong.to_owned());
            assert!(parse_file(encrypted(), Some(&wrong)).is_err());
        }
        assert!(parse_file(encrypted(), None).unwrap_err().contains("no password"));
        let plain = Zeroizing::new(PLAIN.as_bytes().to_vec());
        assert!(parse_file(plain, Some(&password)).unwrap_err().contains("not encrypted"));
    }

    #[test]
    fn bad_lines_are_named_and_not_shown() {
        for bad in [
            "0;770a8a65da156d24ee2a093277530142",
            "4294967296;770a8a65da156d24ee2a093277530142",
            "2:770a8a65da156d24ee2a093277530142",
            "2;770a8a65da156d24ee2a09327753014",
            "2;770a8a65da156d24ee2a0932775301420",
            "x",
        ] {
            let error = keys(&format!("{PLAIN}\n{bad}\n")).unwrap_err();
            assert!(error.starts_with("line 7: ") && !error.contains("770a"), "{error}");
        }
        assert!(keys("2;770a8a65da156d24ee2a093277530142").unwrap_err().contains("id 1"));
        assert!(keys("").is_err());
    }

    #[test]
    fn passwords_in_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "se cret\r\n\n").unwrap();
        assert_eq!(password_from_file(file.path()).unwrap().expose(), "se cret");
        std::fs::write(file.path(), "\n").unwrap();
        assert!(password_from_file(file.path()).is_err());
        std::fs::write(file.path(), [b'x'; PASSWORD_MAX + 1]).unwrap();
        assert!(password_from_file(file.path()).is_err());
    }

    #[test]
    fn keys_are_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), PLAIN).unwrap();
        let keys = FileKeys::read(file.path(), None, CipherMode::Ctr).unwrap();
        assert!(!format!("{keys:?}").to_lowercase().contains("770a"));
        assert_eq!((keys.latest(1).unwrap(), keys.mode()), (1, CipherMode::Ctr));
        assert!(matches!(keys.key(1, 2), Err(KeyError::NoSuchVersion { version: 2, .. })));
        assert!(matches!(keys.key(7, 1), Err(KeyError::NoSuchKey { id: 7, .. })));
    }

    proptest! {
        #[test]
        fn no_file_panics(bytes: Vec<u8>, encrypted: bool) {
            let bytes = if encrypted { [MAGIC, &bytes].concat() } else { bytes };
            let password = Secret::new("x".to_owned());
            let _ = parse_file(Zeroizing::new(bytes), encrypted.then_some(&password));
        }
    }
}
