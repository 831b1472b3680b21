//! A certificate for this machine, which is its own authority, and its key.

use std::path::PathBuf;

use crate::{Result, Scratch};

/// Files of a certificate.
pub struct Certificate {
    /// The certificate; also the authority to trust.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one, in files of a directory.
    pub fn make(scratch: &Scratch) -> Result<Self> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let this = Self { cert: scratch.join("cert.pem"), key: scratch.join("cert-key.pem") };
        std::fs::write(&this.cert, made.cert.pem())?;
        std::fs::write(&this.key, made.signing_key.serialize_pem())?;
        Ok(this)
    }

    /// The arguments with which a server shows it.
    pub fn server_arguments(&self) -> [String; 2] {
        let option = |name: &str, path: &PathBuf| format!("--{name}={}", path.display());
        [option("ssl-cert", &self.cert), option("ssl-key", &self.key)]
    }
}
