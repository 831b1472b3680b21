//! Whether a server is who it should be, by what [`TlsOptions`] say: authorities, revoked
//! certificates, fingerprints.
//!
//! All that is said has to hold. If nothing is said everybody is trusted, as the stock clients do.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{self, Algorithm};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::TlsOptions;
use super::tls::{certificates, unusable};
use crate::{Error, ErrorKind, Result};

/// Bytes that a list of fingerprints may have.
const FINGERPRINTS_MAX: u64 = 16 << 20;

/// Lists of revoked certificates, at most.
const LISTS_MAX: usize = 100;

/// What a fingerprint is made with, by its length in bytes.
const ALGORITHMS: [(usize, &Algorithm); 4] = [
    (20, &digest::SHA1_FOR_LEGACY_USE_ONLY),
    (32, &digest::SHA256),
    (48, &digest::SHA384),
    (64, &digest::SHA512),
];

/// Judges servers.
#[derive(Debug)]
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    /// Those who sign, with what they have revoked. Of several lists of one authority the library
    /// looks into the first alone: here each is the first of one that has to agree. None if nobody
    /// has to sign.
    chains: Vec<Arc<WebPkiServerVerifier>>,
    /// What a certificate may be; any if there is none.
    fingerprints: Vec<Fingerprint>,
}

impl Trust {
    /// Reads the files that the settings name.
    pub fn new(options: &TlsOptions, provider: Arc<CryptoProvider>) -> Result<Self> {
        let fingerprints = match (&options.fingerprint, &options.fingerprints) {
            (Some(text), _) => vec![Fingerprint::parse(text, "ssl-fp")?],
            (None, Some(file)) => fingerprints_of(file)?,
            (None, None) => Vec::new(),
        };
        let chains = match options.verify || options.names_authorities() {
            true => chains(options, &provider)?,
            false if options.names_revoked() => {
                let message = "revoked certificates are of no use where none is checked";
                return Err(Error::new(ErrorKind::Usage, message).advise(
                    "give --ssl-ca, --ssl-capath or --ssl-verify-server-cert with --ssl-crl and --ssl-crlpath",
                ));
            }
            false => Vec::new(),
        };
        Ok(Self { provider, chains, fingerprints })
    }
}

fn chains(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Vec<Arc<WebPkiServerVerifier>>> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &options.ca {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(unusable)?;
        }
    }
    if let Some(dir) = &options.ca_path {
        // Certificates of servers and clients may be there, too, and must not make them authorities.
        // One that cannot be read stands in nobody's way: those of others are as good as before.
        let found = hashed(dir, "", "certificate")?.into_iter();
        let found = found.flat_map(|file| certificates(&file).unwrap_or_default());
        roots.add_parsable_certificates(found.filter(|certificate| is_authority(certificate)));
    }
    if !options.names_authorities() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let mut revoked = Vec::new();
    if let Some(file) = &options.crl {
        revoked.extend(revocations(file)?);
    }
    if let Some(dir) = &options.crl_path {
        for file in hashed(dir, "r", "list of revoked certificates")? {
            revoked.extend(revocations(&file)?);
        }
    }
    if revoked.len() > LISTS_MAX {
        let message = format!("there are more than {LISTS_MAX} lists of revoked certificates");
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let roots = Arc::new(roots);
    let judge = |lists: Vec<CertificateRevocationListDer<'static>>| {
        let judge =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        // Without a list nothing would have to be known.
        let judge = match lists.is_empty() {
            true => judge,
            false => judge.with_crls(lists).enforce_revocation_expiration(),
        };
        judge.build().map_err(unusable_chain)
    };
    if revoked.is_empty() {
        return Ok(vec![judge(revoked)?]);
    }
    let turned = (0..revoked.len()).map(|first| {
        let mut lists = revoked.clone();
        lists.rotate_left(first);
        judge(lists)
    });
    turned.collect()
}

fn unusable_chain(cause: VerifierBuilderError) -> Error {
    let (what, advice) = match cause {
        VerifierBuilderError::InvalidCrl(_) => (
            "the lists of revoked certificates",
            "they have to be whole, and of version 2: OpenSSL makes such ones where crl_extensions \
             are set",
        ),
        _ => ("the certificates of authorities", "name those that can sign with --ssl-ca"),
    };
    Error::new(ErrorKind::Usage, format!("cannot use {what}")).caused_by(cause).advise(advice)
}

/// Whether a certificate says of itself that it is an authority's.
fn is_authority(certificate: &[u8]) -> bool {
    /// The extension that says so.
    const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    let found = || {
        let (_, certificate, _) = der(certificate)?;
        let (_, mut fields, _) = der(certificate)?;
        let extensions = loop {
            let (tag, content, rest) = der(fields)?;
            if tag == tag::EXTENSIONS {
                break content;
            }
            fields = rest;
        };
        let (_, mut extensions, _) = der(extensions)?;
        loop {
            let (_, extension, rest) = der(extensions)?;
            let (_, name, mut value) = der(extension)?;
            if name == BASIC_CONSTRAINTS {
                if let Some((tag::BOOLEAN, _, behind)) = der(value) {
                    value = behind;
                }
                let (_, inside, _) = der(value)?;
                let (_, constraints, _) = der(inside)?;
                let (tag, is_authority, _) = der(constraints)?;
                break Some(tag == tag::BOOLEAN && is_authority == [0xff]);
            }
            extensions = rest;
        }
    };
    found().unwrap_or(false)
}

/// Tags of what certificates are made of.
mod tag {
    pub const BOOLEAN: u8 = 0x01;
    /// The extensions, which have a number.
    pub const EXTENSIONS: u8 = 0xa3;
}

/// The first value that is encoded there: its tag, what is in it, and what is behind it.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let (digits, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // None is longer than four bytes can say.
        len = digits.iter().take(5).fold(0, |len, digit| len << 8 | usize::from(*digit));
        (digits.len() <= 4).then_some(())?;
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(len)?;
    Some((tag, content, behind))
}

fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let unreadable = |cause| {
        let message = format!("cannot read revoked certificates of {}", file.display());
        Error::new(ErrorKind::Usage, message).caused_by(cause)
    };
    let found = CertificateRevocationListDer::pem_file_iter(file).map_err(unreadable)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    match found.is_empty() {
        false => Ok(found),
        true => {
            let message = format!("there is no list of revoked certificates in {}", file.display());
            Err(Error::new(ErrorKind::Usage, message))
        }
    }
}

/// The files of a directory that OpenSSL would look into: eight digits of a hash, a dot, and behind `kind` a
/// number.
fn hashed(dir: &Path, kind: &str, what: &str) -> Result<Vec<PathBuf>> {
    let is_hashed = |name: &str| {
        let parts = name.split_once('.');
        parts.and_then(|(hash, number)| Some((hash, number.strip_prefix(kind)?))).is_some_and(
            |(hash, number)| {
                let digits = |text: &str, radix| text.chars().all(|digit| digit.is_digit(radix));
                hash.len() == 8 && digits(hash, 16) && !number.is_empty() && digits(number, 10)
            },
        )
    };
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|cause| {
        let message = format!("cannot read the directory {}", dir.display());
        Error::new(ErrorKind::Usage, message).caused_by(cause)
    })?;
    let named = entries.iter().filter(|entry| entry.file_name().to_str().is_some_and(is_hashed));
    let mut files: Vec<PathBuf> = named.map(fs::DirEntry::path).collect();
    files.sort();
    match files.is_empty() {
        false => Ok(files),
        true => {
            let message =
                format!("there is no {what} under the name of its hash in {}", dir.display());
            Err(Error::new(ErrorKind::Usage, message).advise("run openssl rehash on it"))
        }
    }
}

/// A hash of a certificate.
#[derive(Debug)]
struct Fingerprint {
    algorithm: &'static Algorithm,
    bytes: Vec<u8>,
}

impl Fingerprint {
    /// Of hexadecimal digits, between which there may be colons.
    fn parse(text: &str, origin: &str) -> Result<Self> {
        let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b':').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit) && digits.len().is_multiple_of(2);
        let bytes: Vec<u8> = digits.chunks(2).filter(|_| is_hex).map_while(byte).collect();
        match ALGORITHMS.into_iter().find(|(len, _)| *len == bytes.len()) {
            Some((_, algorithm)) => Ok(Self { algorithm, bytes }),
            None => {
                let message = format!("{origin}: '{}' is no fingerprint", text.trim());
                Err(Error::new(ErrorKind::Usage, message).advise(
                    "it is the SHA-1, SHA-256, SHA-384 or SHA-512 of the certificate, as openssl \
                     x509 -noout -fingerprint -sha256 says it behind the =",
                ))
            }
        }
    }

    fn fits(&self, certificate: &[u8]) -> bool {
        digest::digest(self.algorithm, certificate).as_ref() == self.bytes
    }
}

fn fingerprints_of(file: &Path) -> Result<Vec<Fingerprint>> {
    let unreadable = |cause| {
        let message = format!("cannot read fingerprints of {}", file.display());
        Error::new(ErrorKind::Usage, message).caused_by(cause)
    };
    let mut text = String::new();
    let read =
        File::open(file).and_then(|file| file.take(FINGERPRINTS_MAX + 1).read_to_string(&mut text));
    if read.map_err(unreadable)? as u64 > FINGERPRINTS_MAX {
        let message = format!("{} is no list of fingerprints: it is too long", file.display());
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let origin = |number: usize| format!("{}, line {}", file.display(), number + 1);
    let found = lines.map(|(number, line)| Fingerprint::parse(line, &origin(number)));
    let found = found.collect::<Result<Vec<_>>>()?;
    match found.is_empty() {
        false => Ok(found),
        true => {
            let message = format!("there is no fingerprint in {}", file.display());
            Err(Error::new(ErrorKind::Usage, message))
        }
    }
}

/// A certificate that has none of the fingerprints.
#[derive(thiserror::Error)]
#[error("the certificate has none of the fingerprints that were named; its SHA-256 is {0}")]
struct Unknown(String);

/// In words, since it is this that messages of the library show.
impl fmt::Debug for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Unknown {
    fn new(certificate: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, certificate);
        let bytes: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Self(bytes.join(":"))
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fits = |fingerprint: &Fingerprint| fingerprint.fits(certificate);
        if !self.fingerprints.is_empty() && !self.fingerprints.iter().any(fits) {
            let unknown = OtherError(Arc::new(Unknown::new(certificate)));
            return Err(CertificateError::Other(unknown).into());
        }
        for chain in &self.chains {
            chain.verify_server_cert(certificate, others, name, ocsp, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fingerprints_come_with_and_without_colons() {
        let hash = digest::digest(&digest::SHA256, b"a certificate");
        let plain: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = Unknown::new(b"a certificate").0;
        for text in [&plain, &plain.to_uppercase(), &shown, &format!(" {shown}\r")] {
            let parsed = Fingerprint::parse(text, "x").unwrap();
            assert!(parsed.fits(b"a certificate") && !parsed.fits(b"another"), "{text}");
        }
        let long = "a".repeat(66);
        for wrong in ["", ":", "ab", &plain[1..], &long, &plain.replace('a', "g"), &"é".repeat(32)]
        {
            let error = Fingerprint::parse(wrong, "ssl-fp").map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("ssl-fp"), "{error}");
        }
    }

    #[test]
    fn only_names_of_hashes_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let names =
            ["0a1b2c3d.0", "0a1b2c3d.12", "0a1b2c3d.r0", "ca.pem", "0a1b2c3.0", "0a1b2c3d.", "x"];
        names.iter().for_each(|name| fs::write(dir.path().join(name), "").unwrap());
        let found = |kind| {
            let files = hashed(dir.path(), kind, "certificate").unwrap();
            files.iter().map(|file| file.file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(""), ["0a1b2c3d.0", "0a1b2c3d.12"]);
        assert_eq!(found("r"), ["0a1b2c3d.r0"]);
        let none = hashed(&dir.path().join("none"), "", "certificate").unwrap_err();
        assert!(none.to_string().contains("none"), "{none}");
    }

    #[test]
    fn only_who_says_so_is_an_authority() {
        let made = |is_ca| {
            let mut parameters =
                rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            parameters.is_ca = is_ca;
            let key = rcgen::KeyPair::generate().unwrap();
            parameters.self_signed(&key).unwrap().der().to_vec()
        };
        let authority = made(rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        assert!(is_authority(&authority));
        assert!(is_authority(&made(rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0)))));
        assert!(!is_authority(&made(rcgen::IsCa::ExplicitNoCa)));
        assert!(!is_authority(&made(rcgen::IsCa::NoCa)));
        // Cut off anywhere, or with any byte changed, it makes nobody panic.
        for end in 0..authority.len() {
            assert!(!is_authority(&authority[..end]), "{end}");
            let mut changed = authority.clone();
            changed[end] ^= 0x80;
            let _ = is_authority(&changed);
        }
        assert_eq!(der(&[4, 0x85, 0, 0, 0, 0, 1, 7]), None);
    }

    #[test]
    fn revoked_certificates_need_a_check() {
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let options = TlsOptions { crl: Some("/crl.pem".into()), ..TlsOptions::default() };
        let error = Trust::new(&options, provider()).unwrap_err();
        assert!(error.to_string().contains("where none is checked"), "{error}");
        let options = TlsOptions { verify: true, ..options };
        assert!(Trust::new(&options, provider()).unwrap_err().to_string().contains("/crl.pem"));
    }
}
