//! TLS on connections to servers, and on those of replicas to us.
//!
//! Whom a client trusts is what [`TlsOptions`] says: with an authority the
//! certificate must be signed by it *and* have the name of the host; with neither authority nor
//! `verify` the connection is encrypted, and nothing is known of who is at its other end.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, StreamOwned,
};

use super::TlsOptions;
use crate::{Error, ErrorKind, Result};

/// The client's end of an encrypted connection.
pub(crate) type ClientStream = StreamOwned<ClientConnection, TcpStream>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(cause: rustls::Error) -> Error {
    Error::new(ErrorKind::Usage, "cannot set up TLS").caused_by(cause)
}

/// What a server that is connected to has to show.
pub(crate) fn client(options: &TlsOptions) -> Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &options.ca {
        None if !options.verify => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        }
        ca => {
            let mut roots = RootCertStore::empty();
            match ca {
                Some(file) => {
                    for certificate in certificates(file)? {
                        roots.add(certificate).map_err(unusable)?;
                    }
                }
                None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            }
            builder.with_root_certificates(roots)
        }
    };
    let config = match (&options.cert, &options.key) {
        (Some(cert), file) => {
            let key = key(file.as_ref().unwrap_or(cert))?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(unusable)?
        }
        (None, Some(_)) => {
            return Err(Error::new(ErrorKind::Usage, "a TLS client key needs a certificate")
                .advise("give --ssl-cert too"));
        }
        (None, None) => builder.with_no_client_auth(),
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

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
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

/// Trusts everybody, as the stock clients do that are told nothing of whom to trust.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
