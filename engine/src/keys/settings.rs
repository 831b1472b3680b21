//! Which keys there are, as option files, a running server or a backup say it.
//!
//! The settings are those of the server's plugins, by their names there. Where several say
//! something the stronger one counts, as a whole where it names another source of keys.
//!
//! | setting | means |
//! |---|---|
//! | `file_key_management_filename` | the key file |
//! | `file_key_management_filekey` | its password, or `FILE:` and the file that has it |
//! | `file_key_management_encryption_algorithm` | `aes_cbc` or `aes_ctr` |
//! | `hashicorp_key_management_vault_url` | where the vault is |
//! | `hashicorp_key_management_token` | who asks it; else the variable `VAULT_TOKEN` |
//! | `debug_key_management_version` | the version of the only key of a plugin for tests |
//! | `hashicorp_key_management_vault_ca`, `_timeout`, `_max_retries` | how it is asked |
//!
//! Settings of these plugins that are not known here may change what a key is: they are refused by
//! name, but only when keys are needed.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use innodb::crypt::CipherMode;
use innodb::crypt::redo::{KEY_ID, LogCipher};
use innodb::redo::header::LogEncryption;

use super::debug::DebugKeys;
use super::file::{FileKeys, password_from_file};
use super::vault::{RETRIES_DEFAULT, TIMEOUT_DEFAULT, VaultKeys, VaultOptions};
use super::{KeyError, KeyRing, Secret};
use crate::Result as EngineResult;
use crate::server::option_file::OptionFiles;
use crate::server::rows::Variables;

/// What messages call the redo log.
pub const REDO_LOG: &str = "the redo log";
/// Groups of option files that servers read.
pub const SERVER_GROUPS: &[&str] = &[
    "mysqld",
    "server",
    "mariadb",
    "mariadbd",
    "mysqld-10.5",
    "mariadb-10.5",
    "mariadbd-10.5",
    "mysqld-10.6",
    "mariadb-10.6",
    "mariadbd-10.6",
    "mysqld-10.11",
    "mariadb-10.11",
    "mariadbd-10.11",
    "mysqld-11.4",
    "mariadb-11.4",
    "mariadbd-11.4",
    "mysqld-11.8",
    "mariadb-11.8",
    "mariadbd-11.8",
    "galera",
];

/// What a password in the settings starts with when it is the name of a file instead.
const FILE_PREFIX: &str = "FILE:";
const FILE_PLUGIN: &str = "file-key-management";
const VAULT_PLUGIN: &str = "hashicorp-key-management";
/// Plugins that are built in here, as the server calls them.
pub const KNOWN_PLUGINS: [&str; 3] =
    ["file_key_management", "hashicorp_key_management", "debug_key_management"];
/// Settings of the two plugins that do not matter here: caches of the server, a check it makes.
const HARMLESS: &[&str] = &[
    "hashicorp-key-management-caching-enabled",
    "hashicorp-key-management-cache-timeout",
    "hashicorp-key-management-cache-version-timeout",
    "hashicorp-key-management-use-cache-on-timeout",
    "hashicorp-key-management-check-kv-version",
    "hashicorp-key-management-cache",
];

/// Where the password of a key file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// It was said.
    Known(Secret),
    /// In this file.
    In(PathBuf),
}

/// Which keys there are. Empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySettings {
    /// The key file of `file_key_management`.
    pub file: Option<PathBuf>,
    /// Its password.
    pub password: Option<Password>,
    /// The password was said of another key file: it counts only if this one is encrypted.
    pub password_of_another_file: bool,
    /// How keys from a file are used.
    pub mode: Option<CipherMode>,
    /// The version of the key of the plugin `debug_key_management`.
    pub debug_version: Option<u32>,
    /// The address of a vault.
    pub vault_url: Option<String>,
    /// Who asks the vault.
    pub vault_token: Option<Secret>,
    /// Certificates for the vault.
    pub vault_ca: Option<PathBuf>,
    /// For one request to the vault.
    pub vault_timeout: Option<Duration>,
    /// How often a request to the vault is repeated.
    pub vault_retries: Option<u32>,
    /// A setting that is not understood.
    pub unsupported: Option<String>,
}

impl KeySettings {
    /// What these option files say in the groups of servers.
    pub fn from_option_files(files: &OptionFiles, groups: &[&str]) -> Self {
        let mut settings = Self::default();
        for option in files.options(groups) {
            settings.set(&option.name, option.value.as_deref().unwrap_or_default());
        }
        settings
    }

    /// These settings by name, with dashes or underscores.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut settings = Self::default();
        for (name, value) in pairs {
            settings.set(&name.replace('_', "-"), value);
        }
        settings
    }

    /// What a running server says. It never tells the token of a vault.
    pub fn from_variables(variables: &Variables) -> Self {
        Self::from_pairs(variables.iter())
    }

    /// Takes one setting, if it is one of an encryption plugin. Names have dashes.
    fn set(&mut self, name: &str, value: &str) {
        let text = || (!value.is_empty()).then(|| value.to_owned());
        let mut understood = true;
        match name {
            "file-key-management-filename" => self.file = text().map(PathBuf::from),
            "file-key-management-filekey" => self.password = text().map(Password::parse),
            "file-key-management-encryption-algorithm" => {
                match value.to_ascii_lowercase().as_str() {
                    "aes_cbc" | "0" => self.mode = Some(CipherMode::Cbc),
                    "aes_ctr" | "1" => self.mode = Some(CipherMode::Ctr),
                    _ => understood = false,
                }
            }
            "hashicorp-key-management-vault-url" => self.vault_url = text(),
            "hashicorp-key-management-token" => self.vault_token = text().map(Secret::new),
            "hashicorp-key-management-vault-ca" => self.vault_ca = text().map(PathBuf::from),
            "hashicorp-key-management-timeout" => match value.parse() {
                Ok(seconds) => self.vault_timeout = Some(Duration::from_secs(seconds)),
                Err(_) => understood = false,
            },
            "hashicorp-key-management-max-retries" => match value.parse() {
                Ok(retries) => self.vault_retries = Some(retries),
                Err(_) => understood = false,
            },
            "debug-key-management-version" => match value.parse() {
                Ok(version) => self.debug_version = Some(version),
                Err(_) => understood = false,
            },
            FILE_PLUGIN | VAULT_PLUGIN => {}
            "plugin-load" | "plugin-load-add" => self.note_plugins(value),
            _ if HARMLESS.contains(&name) => {}
            // Of one of these plugins, of a newer server, or of another plugin.
            _ => understood = !name.contains("-key-management"),
        }
        if !understood {
            self.unsupported.get_or_insert(name.replace('-', "_"));
        }
    }

    /// Looks for encryption plugins that are not known here, in `name=library;name=library`.
    fn note_plugins(&mut self, list: &str) {
        for plugin in list.split([';', ':']) {
            let library = plugin.split('=').next_back().unwrap_or_default();
            let library = library.trim().trim_end_matches(".so");
            let known = KNOWN_PLUGINS.contains(&library);
            if library.ends_with("key_management") && !known {
                self.unsupported.get_or_insert(library.to_owned());
            }
        }
    }

    /// Whether anything was said at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These settings, with those of `stronger` over them.
    #[must_use]
    pub fn overlaid_with(self, stronger: Self) -> Self {
        let Self { file, password, mode, .. } = &stronger;
        let other_source = (file.is_some() && self.vault_url.is_some())
            || (stronger.vault_url.is_some() && self.file.is_some());
        let other_file = file.is_some() && password.is_none() && *file != self.file;
        let weaker = if other_source {
            // The token may be all that a weaker source knows of the vault.
            Self { vault_token: self.vault_token, password: self.password, ..Self::default() }
        } else {
            self
        };
        Self {
            password_of_another_file: password.is_none()
                && (other_file || weaker.password_of_another_file),
            mode: mode.or(weaker.mode),
            debug_version: stronger.debug_version.or(weaker.debug_version),
            file: stronger.file.or(weaker.file),
            password: stronger.password.or(weaker.password),
            vault_url: stronger.vault_url.or(weaker.vault_url),
            vault_token: stronger.vault_token.or(weaker.vault_token),
            vault_ca: stronger.vault_ca.or(weaker.vault_ca),
            vault_timeout: stronger.vault_timeout.or(weaker.vault_timeout),
            vault_retries: stronger.vault_retries.or(weaker.vault_retries),
            unsupported: stronger.unsupported.or(weaker.unsupported),
        }
    }

    /// Opens the source of keys.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open(&self) -> Result<Arc<dyn KeyRing>, KeyError> {
        if let Some(name) = &self.unsupported {
            let place = format!("a server with '{name}'");
            return Err(KeyError::Unusable { place, why: "it is not supported".to_owned() });
        }
        if let Some(file) = &self.file {
            let mode = self.mode.unwrap_or_default();
            let password = match &self.password {
                None => None,
                Some(Password::Known(password)) => Some(password.clone()),
                Some(Password::In(file)) => Some(password_from_file(file)?),
            };
            let keys = FileKeys::read(file, password.as_ref(), mode);
            if keys.is_err()
                && self.password_of_another_file
                && let Ok(keys) = FileKeys::read(file, None, mode)
            {
                return Ok(Arc::new(keys));
            }
            return Ok(Arc::new(keys?));
        }
        if let (Some(version), None) = (self.debug_version, &self.vault_url) {
            return Ok(Arc::new(DebugKeys::new(version)));
        }
        let Some(url) = &self.vault_url else { return Err(KeyError::NotGiven) };
        let token = self.vault_token.clone().ok_or_else(|| KeyError::Unusable {
            place: "the vault".to_owned(),
            why: "no token is given (VAULT_TOKEN)".to_owned(),
        })?;
        Ok(Arc::new(VaultKeys::new(VaultOptions {
            url: url.clone(),
            token,
            ca: self.vault_ca.clone(),
            timeout: self.vault_timeout.unwrap_or(TIMEOUT_DEFAULT),
            retries: self.vault_retries.unwrap_or(RETRIES_DEFAULT),
        })?))
    }
}

impl Password {
    /// As the server writes it: the password, or `FILE:` and where it is.
    pub fn parse(text: String) -> Self {
        match text.strip_prefix(FILE_PREFIX) {
            Some(file) => Self::In(PathBuf::from(file)),
            None => Self::Known(Secret::new(text)),
        }
    }
}

/// A source of keys that is opened when the first key is needed: most backups need none, and must
/// not fail for want of one.
pub struct KeyStore {
    settings: KeySettings,
    ring: OnceLock<Arc<dyn KeyRing>>,
    opening: Mutex<()>,
}

impl KeyStore {
    /// The source that `settings` describe.
    pub fn new(settings: KeySettings) -> Arc<Self> {
        Arc::new(Self { settings, ring: OnceLock::new(), opening: Mutex::new(()) })
    }

    /// The source, opened.
    pub fn ring(&self) -> Result<&Arc<dyn KeyRing>, KeyError> {
        if let Some(ring) = self.ring.get() {
            return Ok(ring);
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = self.ring.get() {
            return Ok(ring);
        }
        let ring = self.settings.open()?;
        Ok(self.ring.get_or_init(|| ring))
    }
}

impl KeyStore {
    /// What deciphers a redo log; `None` when it is plain.
    pub fn log_cipher(
        &self,
        encryption: Option<&LogEncryption>,
    ) -> EngineResult<Option<LogCipher>> {
        let Some(encryption) = encryption else { return Ok(None) };
        let cipher = || {
            let ring = self.ring()?;
            let key = ring.key(KEY_ID, encryption.key_version)?;
            Ok(encryption.cipher(&key, ring.mode()))
        };
        cipher().map(Some).map_err(|error: KeyError| error.needed_for(REDO_LOG))
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("ring", &self.ring.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> KeySettings {
        let files = OptionFiles::from_text(text).unwrap();
        KeySettings::from_option_files(&files, SERVER_GROUPS)
    }

    #[test]
    fn settings_of_the_plugins() {
        let settings = parse(
            "[mysqld]\nplugin_load_add = file_key_management\n\
             file_key_management_filename=/k/keys.enc\n[mariadb]\n\
             loose-file-key-management-filekey=FILE:/k/pw\n\
             file_key_management_encryption_algorithm=AES_CTR\n[client]\nfile_key_management_x=1\n",
        );
        assert_eq!(settings.file, Some("/k/keys.enc".into()));
        assert_eq!(settings.password, Some(Password::In("/k/pw".into())));
        assert_eq!((settings.mode, settings.unsupported), (Some(CipherMode::Ctr), None));

        let settings = parse(
            "[mysqld]\nplugin-load=provider_lz4=provider_lz4;hashicorp_key_management=hashicorp_key_management.so\n\
             hashicorp-key-management-vault-url=http://h/v1/m\nhashicorp-key-management-token=t\n\
             hashicorp-key-management-timeout=7\nhashicorp-key-management-caching-enabled=on\n",
        );
        assert_eq!(settings.vault_token, Some(Secret::new("t".to_owned())));
        assert_eq!(settings.vault_timeout, Some(Duration::from_secs(7)));
        assert_eq!(settings.unsupported, None);
        assert!(!format!("{settings:?}").contains("\"t\""));
    }

    #[test]
    fn what_may_change_a_key_is_refused_by_name_when_keys_are_needed() {
        for (text, name) in [
            ("file_key_management_use_pbkdf2=1000", "file_key_management_use_pbkdf2"),
            ("file_key_management_encryption_algorithm=rot13", "file_key_management_encryption"),
            ("aws_key_management_region=x", "aws_key_management_region"),
            ("plugin-load-add=aws_key_management.so", "aws_key_management"),
        ] {
            let error = parse(&format!("[mysqld]\n{text}\n")).open().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(parse("[mysqld]\nplugin_load_add=ha_archive\n").is_empty());
        assert!(matches!(KeySettings::default().open(), Err(KeyError::NotGiven)));
    }

    #[test]
    fn the_stronger_source_counts_as_a_whole() {
        let weak = parse(
            "[mysqld]\nhashicorp-key-management-vault-url=http://h/v1/m\n\
             hashicorp-key-management-token=t\n",
        );
        let strong = parse("[mysqld]\nfile_key_management_filename=/k\n");
        let both = weak.clone().overlaid_with(strong.clone());
        assert_eq!((both.vault_url, both.file), (None, Some("/k".into())));
        let both = strong.overlaid_with(weak);
        assert_eq!((both.vault_url.is_some(), both.file), (true, None));
    }

    #[test]
    fn a_password_of_another_file_counts_only_if_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "1;770a8a65da156d24ee2a093277530142\n").unwrap();
        let weak =
            parse("[mysqld]\nfile_key_management_filename=/k\nfile_key_management_filekey=p\n");
        let strong = KeySettings { file: Some(file.clone()), ..KeySettings::default() };
        assert!(weak.overlaid_with(strong).open().is_ok());
        let own = KeySettings {
            file: Some(file),
            password: Some(Password::Known(Secret::new("p".to_owned()))),
            ..KeySettings::default()
        };
        assert!(own.open().is_err());
    }
}
