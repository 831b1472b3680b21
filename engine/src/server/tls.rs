//! TLS on connections to servers, and on those of replicas to us.
//!
//! What a client offers and whom it trusts is what [`TlsOptions`] say.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ServerConfig, StreamOwned,
    SupportedProtocolVersion,
};

use super::TlsOptions;
use super::trust::Trust;
use crate::{Error, ErrorKind, Result};

/// The client's end of an encrypted connection.
pub(crate) type ClientStream = StreamOwned<ClientConnection, TcpStream>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn unusable(cause: rustls::Error) -> Error {
    Error::new(ErrorKind::Usage, "cannot set up TLS").caused_by(cause)
}

/// The ciphers that there are, with OpenSSL's names.
const CIPHERS: [(&str, CipherSuite); 9] = [
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// What ciphers of TLS 1.3 are called by.
const TLS13_PREFIX: &str = "TLS_";

/// Only the ciphers that are named. As with OpenSSL, those of TLS 1.3 all stay unless one of them is named.
fn with_ciphers(names: &str) -> Result<CryptoProvider> {
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "-_".contains(c);
        name.contains(['-', '_']) && !name.starts_with('-') && name.chars().all(is_plain)
    };
    let refuse = |message: String| {
        let known: Vec<_> = CIPHERS.iter().map(|(name, _)| *name).collect();
        let advice = format!("known are {}", known.join(", "));
        Err(Error::new(ErrorKind::Usage, message).advise(advice))
    };
    let names: Vec<&str> = names.split([':', ',', ' ']).filter(|name| !name.is_empty()).collect();
    if let Some(rule) = names.iter().find(|name| !is_name(name)) {
        return refuse(format!("ssl-cipher: '{rule}' is no name of a cipher"));
    }
    if !CIPHERS.iter().any(|(name, _)| names.contains(name)) {
        return refuse(format!("ssl-cipher: haulout has none of {}", names.join(", ")));
    }
    let names_new = names.iter().any(|name| name.starts_with(TLS13_PREFIX));
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| {
        let name = CIPHERS.iter().find(|(_, known)| *known == suite.suite()).map(|(name, _)| *name);
        name.is_some_and(|name| {
            names.contains(&name) || (!names_new && name.starts_with(TLS13_PREFIX))
        })
    });
    Ok(provider)
}

/// The versions that are named, as far as there are any: older ones than 1.2 are not.
fn versions(names: &str) -> Result<Vec<&'static SupportedProtocolVersion>> {
    let refuse = |message: String| {
        Err(Error::new(ErrorKind::Usage, message).advise("known are TLSv1.2 and TLSv1.3"))
    };
    let mut found = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "tlsv1.3" => found.push(&TLS13),
            "tlsv1.2" => found.push(&TLS12),
            "tlsv1.0" | "tlsv1.1" => {}
            _ => return refuse(format!("tls-version: '{name}' is no version of TLS")),
        }
    }
    match found.is_empty() {
        true => refuse(format!("tls-version: haulout has none of '{names}'")),
        false => Ok(found),
    }
}

/// What a client offers to a server that is connected to, and what that has to show.
pub(crate) fn client(options: &TlsOptions) -> Result<Arc<ClientConfig>> {
    let provider = match &options.ciphers {
        Some(names) => Arc::new(with_ciphers(names)?),
        None => provider(),
    };
    let versions = match &options.versions {
        Some(names) => versions(names)?,
        None => vec![&TLS13, &TLS12],
    };
    let trust = Trust::new(options, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust));
    // One file may have both.
    let cert = options.cert.as_ref().or(options.key.as_ref());
    let config = match (cert, options.key.as_ref().or(cert)) {
        (Some(cert), Some(file)) => {
            builder.with_client_auth_cert(certificates(cert)?, key(file)?).map_err(unusable)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Encrypts a connection from here on.
pub(crate) fn connect(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<ClientStream> {
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| {
        Error::new(ErrorKind::Usage, format!("'{host}' is no name of a host")).caused_by(cause)
    })?;
    Ok(StreamOwned::new(ClientConnection::new(config, name).map_err(unusable)?, stream))
}

/// What a server shows to those who connect: a certificate, and its key.
pub(crate) fn server(cert: &Path, key_file: &Path) -> Result<Arc<ServerConfig>> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates(cert)?, key(key_file)?)
        .map_err(|cause| {
            let message = format!("cannot use the certificate {}", cert.display());
            Error::new(ErrorKind::Usage, message).caused_by(cause)
        })?;
    Ok(Arc::new(config))
}

pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |cause| {
        let message = format!("cannot read certificates of {}", file.display());
        Error::new(ErrorKind::Usage, message).caused_by(cause)
    };
    let found = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if found.is_empty() {
        let message = format!("there is no certificate in {}", file.display());
        return Err(Error::new(ErrorKind::Usage, message));
    }
    Ok(found)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|cause| {
        let message = format!("cannot read a key of {}", file.display());
        Error::new(ErrorKind::Usage, message).caused_by(cause)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ciphers_are_those_that_are_named() {
        let of = |names: &str| {
            let suites = with_ciphers(names).unwrap().cipher_suites;
            suites.iter().map(|suite| suite.suite()).collect::<Vec<_>>()
        };
        assert_eq!(
            of("TLS_AES_128_GCM_SHA256:DHE-RSA-AES256-SHA"),
            [CipherSuite::TLS13_AES_128_GCM_SHA256]
        );
        let both = of("ECDHE-RSA-AES128-GCM-SHA256");
        assert!(both.contains(&CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256));
        assert_eq!(both.len(), 4, "those of TLS 1.3 stay: {both:?}");
        for rule in [
            "HIGH",
            "ECDHE-RSA-AES128-GCM-SHA256:!aNULL",
            "DEFAULT@SECLEVEL=1",
            "-ALL",
            "DHE-RSA-AES256-SHA",
            ":",
        ] {
            let error = with_ciphers(rule).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("ssl-cipher"), "{rule}: {error}");
        }
        // None was forgotten.
        let all = rustls::crypto::ring::default_provider().cipher_suites;
        assert!(all.iter().all(|one| CIPHERS.iter().any(|(_, known)| *known == one.suite())));
    }

    #[test]
    fn versions_are_those_that_are_named() {
        assert_eq!(versions("TLSv1.1, tlsv1.2").unwrap(), [&TLS12]);
        assert_eq!(versions("TLSv1.3,TLSv1.2").unwrap().len(), 2);
        for wrong in ["TLSv1.1", "", "SSLv3,TLSv1.2", "TLSv1.30"] {
            assert!(versions(wrong).unwrap_err().to_string().contains("tls-version"), "{wrong}");
        }
        let only_old = TlsOptions {
            versions: Some("TLSv1.2".to_owned()),
            ciphers: Some("TLS_AES_128_GCM_SHA256".to_owned()),
            ..TlsOptions::default()
        };
        // No cipher for any version.
        assert_eq!(client(&only_old).unwrap_err().kind(), ErrorKind::Usage);
    }
}
