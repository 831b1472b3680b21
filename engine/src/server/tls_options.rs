//! TLS settings, in the clients' own words.

use std::path::PathBuf;

/// What a connection is encrypted with, and whom it trusts.
///
/// A certificate authority given here means that the server's certificate must be signed by it
/// *and* carry the host's name as subject alternative name, whether or not `verify` is set:
/// checking only half of a certificate protects from nothing. With fingerprints it must have one of
/// them, and what else is asked for. Without all of these the connection is encrypted, but the
/// server is not authenticated; with `verify` alone the authorities that browsers trust count. The
/// socket is never encrypted; an account that must use TLS is logged in to over TCP instead, where TLS
/// was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Use TLS (`--ssl`). Whatever says whom to trust implies it.
    pub enabled: bool,
    /// Certificate authority file (`--ssl-ca`).
    pub ca: Option<PathBuf>,
    /// Directory of authorities, whose names OpenSSL's `rehash` has made (`--ssl-capath`).
    pub ca_path: Option<PathBuf>,
    /// Client certificate (`--ssl-cert`); in the file of its key if only that is given.
    pub cert: Option<PathBuf>,
    /// Client key (`--ssl-key`); in the file of its certificate if only that is given.
    pub key: Option<PathBuf>,
    /// Certificates that were revoked (`--ssl-crl`).
    pub crl: Option<PathBuf>,
    /// Directory of such files, named as those of `ca_path` (`--ssl-crlpath`).
    pub crl_path: Option<PathBuf>,
    /// Names of ciphers, as OpenSSL has them, between colons (`--ssl-cipher`).
    pub ciphers: Option<String>,
    /// Versions to choose from, between commas (`--tls-version`).
    pub versions: Option<String>,
    /// Fingerprint of the server's certificate (`--ssl-fp`).
    pub fingerprint: Option<String>,
    /// File of fingerprints, one in a line (`--ssl-fplist`). Of no account beside a single one.
    pub fingerprints: Option<PathBuf>,
    /// Check the server's certificate and name (`--ssl-verify-server-cert`).
    pub verify: bool,
}

impl TlsOptions {
    /// The options that have a value, as clients name them.
    pub const TEXTS: &[&str] = &[
        "ssl-ca",
        "ssl-capath",
        "ssl-cert",
        "ssl-key",
        "ssl-crl",
        "ssl-crlpath",
        "ssl-cipher",
        "tls-version",
        "ssl-fp",
        "ssl-fplist",
    ];

    /// Takes over one of [`Self::TEXTS`]; an empty value takes it back. Other options are left to others.
    pub fn set(&mut self, name: &str, value: &str) {
        let text = || Some(value.to_owned()).filter(|text| !text.is_empty());
        let path = || text().map(PathBuf::from);
        match name {
            "ssl-ca" => self.ca = path(),
            "ssl-capath" => self.ca_path = path(),
            "ssl-cert" => self.cert = path(),
            "ssl-key" => self.key = path(),
            "ssl-crl" => self.crl = path(),
            "ssl-crlpath" => self.crl_path = path(),
            "ssl-cipher" => self.ciphers = text(),
            "tls-version" => self.versions = text(),
            "ssl-fp" | "tls-fp" => self.fingerprint = text(),
            // The second is the name that the connector has for it.
            "ssl-fplist" | "ssl-fp-list" | "tls-fplist" => self.fingerprints = path(),
            _ => {}
        }
    }

    /// Whether an option asks for TLS by being given, as with the stock clients: who says whom to trust
    /// does not want to be left without it, unless that is said later.
    pub fn asks(name: &str) -> bool {
        name != "tls-version" && Self::TEXTS.contains(&name)
    }

    /// These settings with stronger ones on top.
    #[must_use]
    pub fn overlaid_with(self, stronger: Self) -> Self {
        Self {
            enabled: stronger.enabled || self.enabled,
            ca: stronger.ca.or(self.ca),
            ca_path: stronger.ca_path.or(self.ca_path),
            cert: stronger.cert.or(self.cert),
            key: stronger.key.or(self.key),
            crl: stronger.crl.or(self.crl),
            crl_path: stronger.crl_path.or(self.crl_path),
            ciphers: stronger.ciphers.or(self.ciphers),
            versions: stronger.versions.or(self.versions),
            fingerprint: stronger.fingerprint.or(self.fingerprint),
            fingerprints: stronger.fingerprints.or(self.fingerprints),
            verify: stronger.verify || self.verify,
        }
    }

    /// Whether anything here asks for TLS. As with the stock clients versions alone do not.
    pub(super) const fn wanted(&self) -> bool {
        self.enabled
            || self.verify
            || self.cert.is_some()
            || self.key.is_some()
            || self.ciphers.is_some()
            || self.names_authorities()
            || self.names_revoked()
            || self.fingerprint.is_some()
            || self.fingerprints.is_some()
    }

    /// Whether authorities are named that the server's certificate has to come from.
    pub(super) const fn names_authorities(&self) -> bool {
        self.ca.is_some() || self.ca_path.is_some()
    }

    /// Whether certificates are named that were revoked.
    pub(super) const fn names_revoked(&self) -> bool {
        self.crl.is_some() || self.crl_path.is_some()
    }
}
