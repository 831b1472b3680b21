//! Where a repository is: a prefix in a bucket, or a folder.
//!
//! | written | means |
//! |---|---|
//! | `s3://bucket/prefix` | objects below a prefix of a bucket; the prefix may be left out |
//! | `file:///folder`, or a path | files below a folder, local or of a mounted file system |

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::key::Key;
use crate::{Error, ErrorKind, Result};

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A prefix in a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys begin with; `None` for the bucket's root.
        prefix: Option<Key>,
    },
    /// A folder.
    Folder(PathBuf),
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(written: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::new(ErrorKind::Usage, format!("{written:?} is not a place for objects: {why}"))
                .advise("write s3://BUCKET/PREFIX, file:///FOLDER or a path")
        };
        let Some((scheme, rest)) = written.split_once("://") else {
            return match written {
                "" => Err(invalid("it is empty")),
                path => Ok(Self::Folder(path.into())),
            };
        };
        match scheme {
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                check_bucket(bucket).map_err(invalid)?;
                let prefix = match prefix.trim_end_matches('/') {
                    "" => None,
                    prefix => Some(Key::new(prefix).map_err(|error| invalid(&error.to_string()))?),
                };
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
            }
            "file" if Path::new(rest).is_absolute() => Ok(Self::Folder(rest.into())),
            "file" => Err(invalid("behind file:// comes an absolute path")),
            "gs" | "gcs" => Err(invalid(
                "use Google's S3 interface: s3://BUCKET with the endpoint https://storage.googleapis.com",
            )),
            other => Err(invalid(&format!("there is no kind of store {other}"))),
        }
    }
}

/// What is written into addresses and signed must be nothing but a name. Old buckets have
/// capitals and underscores, and some servers allow them still.
fn check_bucket(bucket: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match bucket {
        "" => Err("it names no bucket"),
        _ if bucket.len() > 255 => Err("the name of the bucket is too long"),
        _ if !bucket.bytes().all(allowed) || bucket.bytes().all(|byte| byte == b'.') => {
            Err("the name of the bucket has other characters than a-z 0-9 . -")
        }
        _ => Ok(()),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix: None } => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix: Some(prefix) } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let parse = |written: &str| written.parse::<Location>().unwrap();
        let s3 = |bucket: &str, prefix: Option<&str>| Location::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.map(|prefix| Key::new(prefix).unwrap()),
        };
        assert_eq!(parse("s3://b"), s3("b", None));
        assert_eq!(parse("s3://b/"), s3("b", None));
        assert_eq!(parse("s3://my.b-1/a/b/"), s3("my.b-1", Some("a/b")));
        assert_eq!(parse("file:///a b"), Location::Folder("/a b".into()));
        assert_eq!(parse("backups/x"), Location::Folder("backups/x".into()));
        assert_eq!(parse("s3://b/a/").to_string(), "s3://b/a");
    }

    #[test]
    fn what_is_no_place_is_refused_by_name() {
        for written in [
            "",
            "s3://",
            "s3:///x",
            "s3://b/../c",
            "s3://b//c",
            "s3://b?x/c",
            "s3://u:p@b/c",
            "s3://..",
            "file://x",
            "az://b",
            "gs://b",
            "https://b",
        ] {
            let error = written.parse::<Location>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{written}");
        }
    }
}
