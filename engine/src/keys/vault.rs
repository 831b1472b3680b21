//! Keys of `hashicorp_key_management`: a Vault server's key/value store, version 2, over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET <url>/data/<id>` | `data.metadata.version`: the latest version, `data.data.data`: its key in hexadecimal |
//! | `GET <url>/data/<id>?version=<v>` | the same of that version |
//!
//! The header `X-Vault-Token` says who asks. What was learnt is kept: a key is asked for once, and
//! the latest version stays what it was when it was first asked for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use innodb::crypt::{CipherMode, Key};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use super::{KeyError, KeyRing, Secret};

/// Largest answer; the plugin accepts no more either.
const ANSWER_MAX: u64 = 128 << 10;
/// Largest file of certificates.
const CA_MAX: u64 = 16 << 20;
/// What the plugin has as `hashicorp_key_management_timeout`.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// What the plugin has as `hashicorp_key_management_max_retries`.
pub const RETRIES_DEFAULT: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// No more retries than this, whatever the setting says.
const RETRIES_MAX: u32 = 100;

/// How to reach a vault.
#[derive(Clone, Debug)]
pub struct VaultOptions {
    /// `scheme://host[:port]/v1/<mount>`.
    pub url: String,
    /// Who asks.
    pub token: Secret,
    /// Certificates to trust, instead of those that browsers do.
    pub ca: Option<PathBuf>,
    /// For one request.
    pub timeout: Duration,
    /// How often a request that got no answer is repeated.
    pub retries: u32,
}

/// The keys of a vault.
pub struct VaultKeys {
    agent: ureq::Agent,
    url: String,
    token: Secret,
    retries: u32,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    latest: HashMap<u32, u32>,
    keys: HashMap<(u32, u32), Key>,
}

impl VaultKeys {
    /// Prepares to ask; nothing is asked yet.
    ///
    /// # Errors
    /// When the address cannot be that of a key/value store, or the certificates cannot be read.
    pub fn new(options: VaultOptions) -> Result<Self, KeyError> {
        let url = options.url.trim_end_matches('/').to_owned();
        let unusable = |why: String| KeyError::Unusable { place: place(&url), why };
        check_url(&url).map_err(|why| unusable(why.to_owned()))?;
        let mut tls = TlsConfig::builder();
        if let Some(ca) = &options.ca {
            let certificates = read_certificates(ca)
                .map_err(|why| unusable(format!("certificates in {}: {why}", ca.display())))?;
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let timeout = (!options.timeout.is_zero()).then_some(options.timeout);
        let config = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .timeout_global(timeout)
            .http_status_as_error(false)
            .user_agent("haulout")
            .build();
        Ok(Self {
            agent: config.into(),
            url,
            token: options.token,
            retries: options.retries.min(RETRIES_MAX),
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a key; `None` when the vault does not have it.
    fn ask(&self, id: u32, version: Option<u32>) -> Result<Option<(u32, Key)>, KeyError> {
        let unusable = |why: String| KeyError::Unusable { place: place(&self.url), why };
        let url = match version {
            None => format!("{}/data/{id}", self.url),
            Some(version) => format!("{}/data/{id}?version={version}", self.url),
        };
        let mut tries = 0;
        let mut answer = loop {
            match self.agent.get(&url).header("X-Vault-Token", self.token.expose()).call() {
                Ok(answer) => break answer,
                Err(error) if tries >= self.retries => return Err(unusable(error.to_string())),
                Err(_) => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
            }
        };
        let status = answer.status();
        if status == ureq::http::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(unusable(format!("the answer is {status}")));
        }
        let body = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        let body = Zeroizing::new(body.map_err(|error| unusable(error.to_string()))?);
        let (found, key) = parse_answer(&body)
            .map_err(|why| unusable(format!("the answer about key {id} {why}")))?;
        if version.is_some_and(|version| version != found) {
            return Err(unusable(format!("version {found} of key {id} came instead of another")));
        }
        Ok(Some((found, key)))
    }
}

impl KeyRing for VaultKeys {
    fn latest(&self, id: u32) -> Result<u32, KeyError> {
        if let Some(&version) = self.known().latest.get(&id) {
            return Ok(version);
        }
        let answer = self.ask(id, None)?;
        let place = || place(&self.url);
        let (version, key) = answer.ok_or_else(|| KeyError::NoSuchKey { id, place: place() })?;
        let mut known = self.known();
        known.keys.insert((id, version), key);
        // Another thread may have asked in between, and its answer may be older.
        Ok(*known.latest.entry(id).or_insert(version))
    }

    fn key(&self, id: u32, version: u32) -> Result<Key, KeyError> {
        if let Some(key) = self.known().keys.get(&(id, version)) {
            return Ok(key.clone());
        }
        let answer = self.ask(id, Some(version))?;
        let place = || place(&self.url);
        let (_, key) =
            answer.ok_or_else(|| KeyError::NoSuchVersion { id, version, place: place() })?;
        self.known().keys.insert((id, version), key.clone());
        Ok(key)
    }

    /// The plugin has no setting for it.
    fn mode(&self) -> CipherMode {
        CipherMode::Cbc
    }
}

/// The address only.
impl std::fmt::Debug for VaultKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultKeys").field("url", &place(&self.url)).finish()
    }
}

/// An address may have a password in it, which is not shown.
fn place(url: &str) -> String {
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let behind = host.rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", rest.get(behind..).unwrap_or_default())
        }
        None => url.to_owned(),
    };
    format!("the vault {shown}")
}

/// What the plugin demands of its address.
fn check_url(url: &str) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("its address has no http:// or https://")?;
    if !matches!(scheme, "http" | "https") {
        return Err("its address has no http:// or https://");
    }
    let (host, path) = rest.split_once('/').ok_or("the path of its address is not /v1/NAME")?;
    let name = path.trim_start_matches('/').strip_prefix("v1/");
    let name = name.map(|name| name.trim_start_matches('/'));
    match name {
        _ if host.is_empty() => Err("its address has no host"),
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err("the path of its address is not /v1/NAME"),
    }
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<Certificate<'static>>, String> {
    use std::io::Read;
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(CA_MAX).read_to_end(&mut pem).map_err(|error| error.to_string())?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() { Err("there are none".to_owned()) } else { Ok(certificates) }
}

/// Version and key in an answer. For tests and fuzzing too; errors do not show what it holds.
///
/// # Errors
/// When the answer is not one about a key.
pub fn parse_answer(body: &[u8]) -> Result<(u32, Key), &'static str> {
    /// The text is borrowed, so that no copy of the key is made that is not wiped.
    #[derive(serde::Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: Outer<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        data: Inner<'a>,
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    struct Inner<'a> {
        data: &'a str,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        version: u32,
    }
    let answer: Answer<'_> =
        serde_json::from_slice(body).map_err(|_| "is not that of a key/value store, version 2")?;
    let key = Key::from_hex(answer.data.data.data);
    Ok((answer.data.metadata.version, key.ok_or("has no key of 32, 48 or 64 hexadecimal digits")?))
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
