//! Where encryption keys are: arguments over variables over the server's option files.
//!
//! No argument holds a key, a password or a token, because anyone on the machine can read the
//! arguments of a process: they name files.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::keys::settings::{Password, SERVER_GROUPS};
use engine::keys::{CipherMode, KeySettings, Secret, file};
use engine::server::option_file::{DefaultsChoice, OptionFiles};
use engine::{Reporter, Result};

use super::{absolute, options};

/// Arguments about keys. What a running server or a backup says itself need not be repeated.
#[derive(Debug, Default, Args)]
#[command(
    next_help_heading = "Encryption keys (found by themselves if they are where the server has them)"
)]
pub struct Keys {
    /// Key file of file_key_management
    #[arg(long, value_name = "FILE", env = "HAULOUT_KEYS_FILE")]
    keys_file: Option<PathBuf>,
    /// File that has the password of the key file; the password itself can be in
    /// HAULOUT_KEYS_PASSWORD
    #[arg(long, value_name = "FILE", env = "HAULOUT_KEYS_PASSWORD_FILE")]
    keys_password_file: Option<PathBuf>,
    /// How keys from a file are used: file_key_management_encryption_algorithm
    #[arg(long, value_enum, value_name = "NAME", env = "HAULOUT_KEYS_CIPHER")]
    keys_cipher: Option<Cipher>,
    /// Vault of hashicorp_key_management, as http(s)://HOST[:PORT]/v1/NAME; its token comes from
    /// VAULT_TOKEN or from a file
    #[arg(long, value_name = "URL", env = "HAULOUT_VAULT_URL", conflicts_with = "keys_file")]
    vault_url: Option<String>,
    /// File that has the token of the vault
    #[arg(long, value_name = "FILE", env = "HAULOUT_VAULT_TOKEN_FILE")]
    vault_token_file: Option<PathBuf>,
    /// Certificates that the vault's must be signed by
    #[arg(long, value_name = "FILE", env = "HAULOUT_VAULT_CA")]
    vault_ca: Option<PathBuf>,
    /// Option file of a server in which its encryption plugin is set up
    #[arg(long, value_name = "FILE", env = "HAULOUT_KEYS_DEFAULTS_FILE")]
    keys_defaults_file: Option<PathBuf>,
}

/// Ways of using keys.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Cipher {
    #[value(name = "aes_cbc")]
    Cbc,
    #[value(name = "aes_ctr")]
    Ctr,
}

impl Keys {
    /// What was said about keys, for another command.
    pub fn arguments(&self) -> String {
        let path = |path: &Option<PathBuf>| path.as_deref().map(absolute);
        let cipher = self.keys_cipher.as_ref().and_then(clap::ValueEnum::to_possible_value);
        options(&[
            ("--keys-file", path(&self.keys_file)),
            ("--keys-password-file", path(&self.keys_password_file)),
            ("--keys-cipher", cipher.map(|cipher| cipher.get_name().to_owned())),
            ("--vault-url", self.vault_url.clone()),
            ("--vault-token-file", path(&self.vault_token_file)),
            ("--vault-ca", path(&self.vault_ca)),
            ("--keys-defaults-file", path(&self.keys_defaults_file)),
        ])
    }

    /// Everything that was said about keys.
    pub fn resolve(self, reporter: &dyn Reporter) -> Result<KeySettings> {
        let weak = match &self.keys_defaults_file {
            Some(file) => from_option_file(file, reporter)?,
            None => KeySettings::default(),
        };
        let weak = weak.overlaid_with(from_environment());
        let password = match self.keys_password_file {
            Some(file) => Some(Password::In(file)),
            None => secret("HAULOUT_KEYS_PASSWORD").map(Password::Known),
        };
        let vault_token = match &self.vault_token_file {
            Some(file) => Some(file::password_from_file(file)?),
            None => None,
        };
        Ok(weak.overlaid_with(KeySettings {
            file: self.keys_file,
            password,
            mode: self.keys_cipher.map(|cipher| match cipher {
                Cipher::Cbc => CipherMode::Cbc,
                Cipher::Ctr => CipherMode::Ctr,
            }),
            vault_url: self.vault_url,
            vault_token,
            vault_ca: self.vault_ca,
            ..KeySettings::default()
        }))
    }
}

/// What the option files of a server say about keys.
fn from_option_file(file: &Path, reporter: &dyn Reporter) -> Result<KeySettings> {
    let choice = DefaultsChoice { file: Some(file.to_owned()), ..DefaultsChoice::default() };
    let files = OptionFiles::load(&choice)?;
    for warning in files.warnings() {
        reporter.warn(warning.clone());
    }
    Ok(KeySettings::from_option_files(&files, SERVER_GROUPS))
}

/// The token that the server's plugin takes from the environment too.
pub fn from_environment() -> KeySettings {
    KeySettings { vault_token: secret("VAULT_TOKEN"), ..KeySettings::default() }
}

fn secret(variable: &str) -> Option<Secret> {
    std::env::var(variable).ok().filter(|text| !text.is_empty()).map(Secret::new)
}
