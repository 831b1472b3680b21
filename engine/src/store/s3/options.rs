//! What can be said about a store behind S3's interface, and what the environment says.
//!
//! | not set here | comes from |
//! |---|---|
//! | endpoint | `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT`, the profile |
//! | region | `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile, the instance, `us-east-1` |
//! | path style | `AWS_S3_FORCE_PATH_STYLE`; else used with every endpoint that is named |
//! | authorities | `AWS_CA_BUNDLE`, else those of the machine |
//! | credentials | `AWS_ACCESS_KEY_ID` and its like, the profile (`AWS_PROFILE`), web identity, the container or pod, the instance |
//!
//! No program is started for credentials: `credential_process` of a profile is refused.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::keys::Secret;
use crate::{Error, ErrorKind, Result};

/// How to use a store behind S3's interface.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// Address of the service: `https://HOST[:PORT]`.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Whether the bucket is a part of the path (`HOST/BUCKET`) rather than of the host's name.
    pub path_style: Option<bool>,
    /// Certificates of authorities to trust, instead of those of the machine.
    pub ca: Option<PathBuf>,
    /// Profile of the files that are shared with the `aws` command.
    pub profile: Option<String>,
    /// Credentials, instead of those that the environment has.
    pub credentials: Option<S3Credentials>,
    /// How the store encrypts what it keeps.
    pub encryption: Encryption,
    /// Storage class of new objects, such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Lock on new objects.
    pub lock: Option<ObjectLock>,
    /// What proves to the store that content arrived as it was sent.
    pub checksum: Checksum,
}

/// Credentials. Debug output has the key's name only.
#[derive(Clone)]
pub struct S3Credentials {
    /// Name of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret,
    /// What makes temporary credentials valid.
    pub session_token: Option<Secret>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// How the store encrypts what it keeps. That it does is checked with every object that is put.
#[derive(Clone, Debug, Default)]
pub enum Encryption {
    /// As the bucket is set up.
    #[default]
    Bucket,
    /// With keys of the store (SSE-S3).
    Store,
    /// With a key of the key service (SSE-KMS); its default one if none is named.
    Kms(Option<String>),
    /// With a key that we send along with every request, and the store forgets (SSE-C).
    Customer(CustomerKey),
}

/// A key for SSE-C.
#[derive(Clone)]
pub struct CustomerKey(Zeroizing<[u8; 32]>);

impl CustomerKey {
    /// Takes 32 bytes for a key.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Until when objects cannot be removed or replaced. The bucket must have been made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who can lift it.
    pub mode: LockMode,
    /// How long it lasts from when the object is put.
    pub days: u32,
}

/// Who can lift a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Those who have a permission of their own for it.
    Governance,
    /// Nobody.
    Compliance,
}

/// What proves to the store that content arrived as it was sent. All of it is computed before the
/// request begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// `x-amz-checksum-crc32`; also asks the store for checksums when reading. What today's
    /// servers know.
    #[default]
    Crc32,
    /// The same with SHA-256.
    Sha256,
    /// `Content-MD5`: what servers know that do not know the other ones.
    Md5,
    /// None. Over HTTP without TLS, the signature covers the content all the same.
    None,
}

impl S3Options {
    /// Fills in what is not set from the variables that other programs use. What the SDK reads
    /// itself is left to it.
    pub(super) fn completed(&self, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let endpoint = || {
            ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
                .into_iter()
                .find_map(variable)
        };
        let path_style = || match variable("AWS_S3_FORCE_PATH_STYLE")?.to_ascii_lowercase().as_str()
        {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => None,
        };
        Self {
            endpoint: self.endpoint.clone().or_else(endpoint),
            path_style: self.path_style.or_else(path_style),
            ca: self.ca.clone().or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from)),
            ..self.clone()
        }
    }

    /// Refuses what cannot work, by name.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Usage, why));
        if let Some(endpoint) = &self.endpoint {
            let rest =
                ["https://", "http://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme));
            match rest.map(|rest| rest.trim_end_matches('/')) {
                Some(host) if host.contains('@') => {
                    return refuse("the endpoint of the store has a user or password in it".into());
                }
                Some(host) if !host.is_empty() => {}
                _ => {
                    return refuse(format!("the endpoint {endpoint:?} has no https:// or http://"));
                }
            }
            let is_plain = endpoint.starts_with("http://");
            if is_plain && matches!(self.encryption, Encryption::Customer(_)) {
                return refuse(
                    "a key for SSE-C would be sent in plain to the endpoint: it has to be https://"
                        .into(),
                );
            }
        }
        if self.lock.is_some_and(|lock| lock.days == 0 || lock.days > 36_500) {
            return refuse("a lock on objects lasts 1 to 36500 days".into());
        }
        if self.lock.is_some() && self.checksum == Checksum::None {
            return refuse("stores lock only objects that come with a checksum".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_environment_fills_in_what_is_not_set() {
        let variables = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some("https://two".to_owned()),
            "AWS_ENDPOINT_URL_S3" => Some("https://one".to_owned()),
            "AWS_S3_FORCE_PATH_STYLE" => Some("False".to_owned()),
            "AWS_CA_BUNDLE" => Some(String::new()),
            _ => None,
        };
        let completed = S3Options::default().completed(&variables);
        assert_eq!(completed.endpoint.as_deref(), Some("https://one"));
        assert_eq!((completed.path_style, completed.ca), (Some(false), None));
        let set = S3Options { endpoint: Some("https://mine".into()), ..S3Options::default() };
        assert_eq!(set.completed(&variables).endpoint.as_deref(), Some("https://mine"));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let endpoint = |endpoint: &str| S3Options {
            endpoint: Some(endpoint.to_owned()),
            ..S3Options::default()
        };
        for bad in ["host:9000", "https://", "ftp://host", "https://user:password@host"] {
            let error = endpoint(bad).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(!error.to_string().contains("password@"), "{error}");
        }
        assert!(endpoint("https://host:9000/").check().is_ok());
        let lock = ObjectLock { mode: LockMode::Governance, days: 0 };
        assert!(S3Options { lock: Some(lock), ..S3Options::default() }.check().is_err());
        let customer = Encryption::Customer(CustomerKey::new([1; 32]));
        let plain = S3Options { encryption: customer.clone(), ..endpoint("http://host") };
        assert!(plain.check().is_err());
        assert!(S3Options { encryption: customer, ..endpoint("https://host") }.check().is_ok());
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = S3Options {
            credentials: Some(S3Credentials {
                access_key: "AKIA".into(),
                secret_key: Secret::new("hush-1".into()),
                session_token: Some(Secret::new("hush-2".into())),
            }),
            encryption: Encryption::Customer(CustomerKey::new(
                *b"hush-3-0123456789abcdef012345678",
            )),
            ..S3Options::default()
        };
        let shown = format!("{options:?}");
        assert!(
            shown.contains("AKIA") && !shown.contains("hush") && !shown.contains("104"),
            "{shown}"
        );
    }
}
