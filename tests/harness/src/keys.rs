//! Encryption keys for private servers: key files, and a small vault.
//!
//! The vault answers as HashiCorp's does to the server's plugin: a key/value store of version 2,
//! in which each key has versions. It is no more than that plugin needs, and gives nobody else
//! anything.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use innodb::crypt::{CipherMode, DerivedKey, Key};
use innodb::space::CryptData;

use crate::{Result, Scratch, ServerOptions, process};

/// Three keys, one of each length.
const KEYS: &str = "1;770a8a65da156d24ee2a093277530142\n\
    2;770A8A65DA156D24EE2A093277530142770A8A65DA156D24EE2A093277530142\n\
    3;000102030405060708090a0b0c0d0e0f1011121314151617\n";
/// Password of the encrypted key file.
pub const PASSWORD: &str = "correct horse";
/// Who may ask the vault.
pub const TOKEN: &str = "s.harness";

/// A key file and, if it is encrypted, the file with its password.
pub struct KeyFile {
    scratch: Scratch,
    encrypted: bool,
    cipher: &'static str,
}

impl KeyFile {
    /// A plain key file, used with AES-CBC.
    pub fn plain() -> Result<Self> {
        let scratch = Scratch::new()?;
        std::fs::write(scratch.join("keys"), KEYS)?;
        Ok(Self { scratch, encrypted: false, cipher: "aes_cbc" })
    }

    /// An encrypted key file, used with AES-CTR.
    pub fn encrypted() -> Result<Self> {
        let scratch = Scratch::new()?;
        std::fs::write(scratch.join("password"), format!("{PASSWORD}\n"))?;
        std::fs::write(scratch.join("plain"), KEYS)?;
        let mut openssl = Command::new("openssl");
        openssl.args(["enc", "-aes-256-cbc", "-md", "sha1", "-k", PASSWORD]);
        openssl.arg("-in").arg(scratch.join("plain")).arg("-out").arg(scratch.join("keys"));
        process::run(openssl)?.success()?;
        std::fs::remove_file(scratch.join("plain"))?;
        Ok(Self { scratch, encrypted: true, cipher: "aes_ctr" })
    }

    /// The key file.
    pub fn path(&self) -> PathBuf {
        self.scratch.join("keys")
    }

    /// The file with the password.
    pub fn password_file(&self) -> PathBuf {
        self.scratch.join("password")
    }

    /// Makes `server` use these keys.
    #[must_use]
    pub fn used_by(&self, server: ServerOptions) -> ServerOptions {
        let server = server
            .arg("--plugin-load-add=file_key_management")
            .arg(format!("--file-key-management-filename={}", self.path().display()))
            .arg(format!("--file-key-management-encryption-algorithm={}", self.cipher));
        match self.encrypted {
            false => server,
            true => server.arg(format!(
                "--file-key-management-filekey=FILE:{}",
                self.password_file().display()
            )),
        }
    }
}

/// The key of a tablespace with this descriptor, if it is one of the [`KEYS`] of key files, for
/// either cipher.
pub(crate) fn derived(crypt: &CryptData) -> Vec<DerivedKey> {
    let line = KEYS.lines().nth((crypt.key_id as usize).saturating_sub(1));
    let key = line.and_then(|line| Key::from_hex(line.split_once(';')?.1));
    let derive = |mode| key.as_ref().map(|key| DerivedKey::new(key, &crypt.iv, mode));
    [CipherMode::Cbc, CipherMode::Ctr].into_iter().filter_map(derive).collect()
}

type Versions = HashMap<u32, Vec<Option<String>>>;

/// A vault. It answers until the test process ends.
pub struct Vault {
    url: String,
    keys: Arc<Mutex<Versions>>,
}

impl Vault {
    /// A vault with version 1 of the keys 1 to 3.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/v1/mariadb", listener.local_addr()?);
        let keys = (1..=3).map(|id| (id, vec![Some(random_key())]));
        let keys: Arc<Mutex<Versions>> = Arc::new(Mutex::new(keys.collect()));
        let answering = Arc::clone(&keys);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keys = Arc::clone(&answering);
                std::thread::spawn(move || answer(stream, &keys));
            }
        });
        Ok(Self { url, keys })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes `server` use these keys; it needs the token in its environment.
    #[must_use]
    pub fn used_by(&self, server: ServerOptions) -> ServerOptions {
        server
            .arg("--plugin-load-add=hashicorp_key_management")
            .arg(format!("--hashicorp-key-management-vault-url={}", self.url))
            .arg(format!("--hashicorp-key-management-token={TOKEN}"))
            // In milliseconds: a new version is noticed soon.
            .arg("--hashicorp-key-management-cache-version-timeout=100")
    }

    /// Gives key `id` a new version.
    pub fn rotate(&self, id: u32) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.entry(id).or_default().push(Some(random_key()));
    }

    /// Takes a version of key `id` away, from 1.
    pub fn forget(&self, id: u32, version: usize) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get_mut(&id).and_then(|keys| keys.get_mut(version - 1)) {
            *key = None;
        }
    }

    /// How many versions key `id` has.
    pub fn versions(&self, id: u32) -> usize {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map_or(0, Vec::len)
    }
}

fn random_key() -> String {
    (0..32).map(|_| format!("{:x}", fastrand::u8(..16))).collect()
}

fn answer(stream: TcpStream, keys: &Mutex<Versions>) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut known = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        known |= name.eq_ignore_ascii_case("X-Vault-Token") && value.trim() == TOKEN;
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let body = if path == "/v1/sys/mounts/mariadb/tune" {
        Some(r#"{"options":{"version":"2"}}"#.to_owned())
    } else {
        path.strip_prefix("/v1/mariadb/data/").and_then(|path| about_key(path, keys))
    };
    let (status, body) = match body {
        _ if !known => ("403 Forbidden", r#"{"errors":["permission denied"]}"#.to_owned()),
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", r#"{"errors":[]}"#.to_owned()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close");
    (&stream).write_all(format!("{head}\r\n\r\n{body}").as_bytes())
}

fn about_key(path: &str, keys: &Mutex<Versions>) -> Option<String> {
    let (id, version) = match path.split_once("?version=") {
        Some((id, version)) => (id.parse().ok()?, Some(version.parse::<usize>().ok()?)),
        None => (path.parse().ok()?, None),
    };
    let keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
    let versions: &Vec<Option<String>> = keys.get(&id)?;
    let version = version.unwrap_or(versions.len());
    let key = versions.get(version.checked_sub(1)?)?.as_ref()?;
    Some(format!(r#"{{"data":{{"data":{{"data":"{key}"}},"metadata":{{"version":{version}}}}}}}"#))
}
