//! From options to a client: address, authorities, credentials.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    Credentials, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, SharedIdentityCache, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector, proxy::ProxyConfig};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::options::{Checksum, S3Options};
use crate::store::RetryOptions;
use crate::{Error, ErrorKind, Result};

/// Largest file of certificates.
const CA_MAX: u64 = 16 << 20;
/// Connections that are not used for so long are closed; many servers do it earlier or later, and
/// a request on a connection that is just being closed has to be repeated.
const IDLE: Duration = Duration::from_secs(15);
/// For getting credentials from wherever they are.
const CREDENTIALS: Duration = Duration::from_secs(20);
/// Where requests go that no region is known for.
const REGION: &str = "us-east-1";

/// A client, and what is known about where its requests go.
pub(super) struct Connection {
    pub(super) config: aws_sdk_s3::Config,
    /// For messages: the endpoint, or the region.
    pub(super) place: String,
    pub(super) has_endpoint: bool,
    /// Whether somebody said which region to use.
    pub(super) region_is_chosen: bool,
    /// Whether content has to be signed: nothing else protects it on its way.
    pub(super) is_plain: bool,
}

/// Finds out all that the options leave open. Asks for no credentials yet.
pub(super) async fn connect(options: &S3Options, retry: &RetryOptions) -> Result<Connection> {
    let http = http_client(options)?;
    let timeouts = TimeoutConfig::builder().connect_timeout(retry.connect).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .identity_cache(identity_cache());
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(given) = &options.credentials {
        let token = given.session_token.as_ref().map(|token| token.expose().to_owned());
        let secret = given.secret_key.expose();
        let credentials = Credentials::new(&given.access_key, secret, token, None, "options");
        loader = loader.credentials_provider(credentials);
    }
    let region = region(options).await;
    let region_is_chosen = region.is_some();
    let loaded = loader.region(region.unwrap_or_else(|| Region::new(REGION))).load().await;

    let validation = match options.checksum {
        Checksum::Crc32 | Checksum::Sha256 => ResponseChecksumValidation::WhenSupported,
        Checksum::Md5 | Checksum::None => ResponseChecksumValidation::WhenRequired,
    };
    // Only S3 is there: services that give credentials are elsewhere.
    let endpoint = options.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
    let endpoint = endpoint.or(loaded.endpoint_url()).map(str::to_owned);
    let mut config = aws_sdk_s3::config::Builder::from(&loaded);
    config.set_endpoint_url(endpoint.clone());
    let config = config
        // Trying again is our own business: the SDK gives up too early, and on too much.
        .retry_config(RetryConfig::disabled())
        .force_path_style(options.path_style.unwrap_or(endpoint.is_some()))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(validation)
        .disable_multi_region_access_points(true)
        .build();
    let region = config.region().map_or(REGION, |region| region.as_ref());
    Ok(Connection {
        place: endpoint.clone().unwrap_or_else(|| format!("the region {region}")),
        has_endpoint: endpoint.is_some(),
        region_is_chosen,
        is_plain: endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")),
        config,
    })
}

/// Where credentials are kept until they expire.
pub(super) fn identity_cache() -> SharedIdentityCache {
    IdentityCache::lazy().load_timeout(CREDENTIALS).build()
}

/// The region that somebody chose. The instance is only asked where AWS can be.
async fn region(options: &S3Options) -> Option<Region> {
    if let Some(region) = &options.region {
        return Some(Region::new(region.clone()));
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &options.profile {
        profile = profile.profile_name(name);
    }
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build());
    match options.endpoint {
        Some(_) => chain.region().await,
        None => chain.or_else(ImdsRegionProvider::builder().build()).region().await,
    }
}

/// Proxies come from the usual variables, but are not asked about this machine itself.
fn http_client(options: &S3Options) -> Result<SharedHttpClient> {
    let is_here = options.endpoint.as_deref().is_some_and(is_loopback);
    let trust = trust(options)?;
    let tls = TlsContext::builder().with_trust_store(trust).build();
    let tls =
        tls.map_err(|error| Error::new(ErrorKind::Usage, "cannot set up TLS").caused_by(error))?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(match is_here {
            true => ProxyConfig::disabled(),
            false => ProxyConfig::from_env(),
        });
        connector.set_connector_settings(settings.cloned());
        connector.set_pool_idle_timeout(Some(Some(IDLE)));
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.tls_provider(Provider::rustls(CryptoMode::Ring)).tls_context(tls.clone()).build()
    }))
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    let is_name = |name: &str| {
        host.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    };
    host.starts_with("127.") || is_name("localhost") || is_name("[::1]")
}

/// The authorities to trust. All are tried here: the client would not return an error.
fn trust(options: &S3Options) -> Result<TrustStore> {
    if let Some(path) = &options.ca {
        return Ok(TrustStore::empty().with_pem_certificate(read_certificates(path)?));
    }
    static MACHINE: LazyLock<bool> = LazyLock::new(|| {
        let (valid, _) = RootCertStore::empty()
            .add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        valid > 0
    });
    let is_plain =
        options.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if !*MACHINE && !is_plain {
        let what =
            "this machine has no certificates of authorities: the store cannot be recognised";
        return Err(Error::new(ErrorKind::Usage, what)
            .advise("install the package ca-certificates, or name a file with certificates"));
    }
    Ok(TrustStore::empty().with_native_roots(*MACHINE))
}

fn read_certificates(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let reading = |error| Error::io("read certificates in", path, error);
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(reading)?;
    file.take(CA_MAX).read_to_end(&mut pem).map_err(reading)?;
    let mut roots = RootCertStore::empty();
    let unusable = |why: String| {
        let what = format!("the certificates in {} cannot be used: {why}", path.display());
        Error::new(ErrorKind::Usage, what).advise("name a file with certificates in PEM form")
    };
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there are none".into()));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_machine_is_recognised() {
        for here in
            ["http://127.0.0.1:9000", "http://localhost", "https://[::1]:1", "http://localhost/x"]
        {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["http://localhost.example", "https://s3.example:9000", "https://128.0.0.1"] {
            assert!(!is_loopback(there), "{there}");
        }
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let refused = |content: &str| {
            std::fs::write(&path, content).unwrap();
            let options = S3Options { ca: Some(path.clone()), ..S3Options::default() };
            let error = http_client(&options).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
            assert!(error.to_string().contains("ca.pem"), "{error}");
        };
        refused("");
        refused("not a certificate");
        refused("-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n");
        refused("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    }
}
