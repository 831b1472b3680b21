//! Arguments about a repository: where it is, how it is opened, how its store is used.
//!
//! No argument holds a key, because anyone on the machine can read the arguments of a process.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::repo::Repository;
use engine::repo::reader::ReadOptions;
use engine::repo::seal::Secret;
use engine::store::{
    self, Checksum, CustomerKey, Encryption, Location, LockMode, ObjectLock, S3Options, Store,
    StoreOptions,
};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::{absolute, options, parse_threads};
use crate::duration;
use crate::machine;
use crate::size::Size;

/// Memory for what is read ahead.
const READ_AHEAD: u64 = 128 << 20;

/// The repository and its key.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub struct Repo {
    /// Where the repository is: s3://BUCKET/PREFIX, or a folder
    #[arg(long = "repo", value_name = "PLACE", env = "HAULOUT_REPO")]
    place: String,
    #[command(flatten)]
    access: Access,
}

/// How a repository is opened and its store is used.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub struct Access {
    /// File with the repository's key, 32 bytes in hex or base64; the key itself can be in
    /// HAULOUT_KEY
    #[arg(long, value_name = "FILE", env = "HAULOUT_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Open descriptor to read the key from
    #[arg(long, value_name = "N", conflicts_with = "key_file")]
    key_fd: Option<u32>,
    /// Requests at the same time
    #[arg(long, value_name = "N", env = "HAULOUT_CONCURRENCY", value_parser = parse_threads)]
    concurrency: Option<usize>,
    /// Move at most this many bytes per second in each direction
    #[arg(long, value_name = "SIZE", env = "HAULOUT_BANDWIDTH")]
    bandwidth: Option<Size>,
    /// How long to try again when the store fails or cannot be reached
    #[arg(long, value_name = "TIME", env = "HAULOUT_PATIENCE", value_parser = duration::parse)]
    patience: Option<Duration>,
    #[command(flatten)]
    s3: S3,
}

/// What only buckets have. Credentials are found as the `aws` command finds them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Buckets (all else as AWS_* variables and profiles say)")]
struct S3 {
    /// Address of the service, if it is not that of AWS: https://HOST[:PORT]
    #[arg(long, value_name = "URL", env = "HAULOUT_S3_ENDPOINT")]
    s3_endpoint: Option<String>,
    /// Region of the bucket
    #[arg(long, value_name = "NAME", env = "HAULOUT_S3_REGION")]
    s3_region: Option<String>,
    /// Whether the bucket is a part of the path [default: yes with --s3-endpoint]
    #[arg(long, value_name = "YES", env = "HAULOUT_S3_PATH_STYLE")]
    s3_path_style: Option<bool>,
    /// Certificates of authorities to trust, instead of those of the machine
    #[arg(long, value_name = "FILE", env = "HAULOUT_S3_CA")]
    s3_ca: Option<PathBuf>,
    /// Profile of the files that are shared with the aws command
    #[arg(long, value_name = "NAME", env = "HAULOUT_S3_PROFILE")]
    s3_profile: Option<String>,
    /// Storage class of new objects, such as STANDARD_IA
    #[arg(long, value_name = "NAME", env = "HAULOUT_S3_STORAGE_CLASS")]
    s3_storage_class: Option<String>,
    /// How the store encrypts: bucket (as it is set up), store, kms or kms:KEY
    #[arg(long, value_name = "HOW", env = "HAULOUT_S3_ENCRYPTION", default_value = "bucket",
          value_parser = parse_encryption)]
    s3_encryption: Encryption,
    /// File with a key of 32 bytes, in hex or base64, with which the store encrypts and which it
    /// forgets (SSE-C)
    #[arg(long, value_name = "FILE", env = "HAULOUT_S3_CUSTOMER_KEY_FILE")]
    s3_customer_key_file: Option<PathBuf>,
    /// Lock new objects: governance:DAYS or compliance:DAYS
    #[arg(long, value_name = "LOCK", env = "HAULOUT_S3_LOCK", value_parser = parse_lock)]
    s3_lock: Option<ObjectLock>,
    /// What proves to the store that content arrived: crc32, sha256, md5 or none
    #[arg(long, value_name = "KIND", env = "HAULOUT_S3_CHECKSUM", default_value = "crc32",
          value_parser = parse_checksum)]
    s3_checksum: Checksum,
}

impl S3 {
    fn options(&self) -> Result<S3Options> {
        let encryption = match &self.s3_customer_key_file {
            Some(file) => Encryption::Customer(CustomerKey::new(read_key(file)?.bytes())),
            None => self.s3_encryption.clone(),
        };
        Ok(S3Options {
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            path_style: self.s3_path_style,
            ca: self.s3_ca.clone(),
            profile: self.s3_profile.clone(),
            credentials: None,
            encryption,
            storage_class: self.s3_storage_class.clone(),
            lock: self.s3_lock,
            checksum: self.s3_checksum,
        })
    }
}

fn parse_encryption(text: &str) -> std::result::Result<Encryption, String> {
    match text.split_once(':').map_or((text, None), |(how, key)| (how, Some(key))) {
        ("bucket", None) => Ok(Encryption::Bucket),
        ("store", None) => Ok(Encryption::Store),
        ("kms", key) if key != Some("") => Ok(Encryption::Kms(key.map(str::to_owned))),
        _ => Err("one of bucket, store, kms, kms:KEY".to_owned()),
    }
}

fn parse_lock(text: &str) -> std::result::Result<ObjectLock, String> {
    let (mode, days) = text.split_once(':').unwrap_or((text, ""));
    let mode = match mode {
        "governance" => LockMode::Governance,
        "compliance" => LockMode::Compliance,
        _ => return Err("governance:DAYS or compliance:DAYS".to_owned()),
    };
    let days = days.trim_end_matches('d').parse().map_err(|_| "a number of days".to_owned())?;
    Ok(ObjectLock { mode, days })
}

fn parse_checksum(text: &str) -> std::result::Result<Checksum, String> {
    match text {
        "crc32" => Ok(Checksum::Crc32),
        "sha256" => Ok(Checksum::Sha256),
        "md5" => Ok(Checksum::Md5),
        "none" => Ok(Checksum::None),
        _ => Err("one of crc32, sha256, md5, none".to_owned()),
    }
}

impl Repo {
    /// Opens it.
    pub fn open(&self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Repository> {
        self.access.open(&self.place, cancel, reporter)
    }

    /// Opens it and another one in the same way, with its own key or the same.
    pub fn open_with_other(
        &self,
        other: &str,
        key_of_other: Option<&Path>,
        cancel: &Cancel,
        reporter: &Arc<dyn Reporter>,
    ) -> Result<(Repository, Repository)> {
        // A key from a descriptor can be read only once.
        let key = self.access.key(reporter)?;
        let key_of_other = key_of_other.map(read_key).transpose()?.or_else(|| key.clone());
        let open = |place: &str, key: Option<&Secret>| {
            Repository::open(self.access.store(place, false, reporter)?, key, cancel)
        };
        Ok((open(&self.place, key.as_ref())?, open(other, key_of_other.as_ref())?))
    }

    /// Its store, whether or not there is a repository.
    pub fn store(&self, reporter: &Arc<dyn Reporter>) -> Result<Arc<dyn Store>> {
        self.access.store(&self.place, true, reporter)
    }

    /// The key, if one was given.
    pub fn key(&self, reporter: &Arc<dyn Reporter>) -> Result<Option<Secret>> {
        self.access.key(reporter)
    }

    /// Where it is, as a shell takes it.
    pub fn quoted(&self) -> String {
        super::quoted(Path::new(&self.place))
    }

    /// How to read.
    pub fn reading(&self) -> ReadOptions {
        self.access.reading()
    }
}

impl Access {
    /// The store in `place`.
    pub fn store(
        &self,
        place: &str,
        create: bool,
        reporter: &Arc<dyn Reporter>,
    ) -> Result<Arc<dyn Store>> {
        let location: Location = place.parse()?;
        let mut options = StoreOptions { create_folder: create, ..StoreOptions::default() };
        options.bandwidth = self.bandwidth.map(|size| size.0);
        options.retry.patience = self.patience.unwrap_or(options.retry.patience);
        options.s3 = self.s3.options()?;
        options.concurrency = self.concurrency.unwrap_or(options.concurrency);
        store::open(&location, &options, Arc::clone(reporter))
    }

    /// Opens the repository in `place`.
    pub fn open(
        &self,
        place: &str,
        cancel: &Cancel,
        reporter: &Arc<dyn Reporter>,
    ) -> Result<Repository> {
        let key = self.key(reporter)?;
        Repository::open(self.store(place, false, reporter)?, key.as_ref(), cancel)
    }

    /// The key, if one was given.
    pub fn key(&self, reporter: &Arc<dyn Reporter>) -> Result<Option<Secret>> {
        let (text, whence) = if let Some(fd) = self.key_fd {
            let path = PathBuf::from(format!("/dev/fd/{fd}"));
            (read(&path)?, format!("descriptor {fd}"))
        } else if let Some(file) = &self.key_file {
            let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
            if mode & 0o077 != 0 {
                reporter.warn(format!(
                    "others than its owner may read the key in {}: chmod 600 it",
                    file.display()
                ));
            }
            (read(file)?, file.display().to_string())
        } else if let Some(key) = std::env::var_os("HAULOUT_KEY") {
            (key.into_encoded_bytes(), "HAULOUT_KEY".to_owned())
        } else {
            return Ok(None);
        };
        let key = Secret::parse(&text).ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("what is in {whence} is not a key"))
                .advise("a key is 32 bytes as 64 hex digits or as base64: haulout key new FILE")
        })?;
        Ok(Some(key))
    }

    /// What was said about it, for another command on `place`.
    pub fn arguments(&self, place: &str) -> String {
        let path = |path: &Option<PathBuf>| path.as_deref().map(absolute);
        let s3 = &self.s3;
        let place = match place.parse() {
            Ok(Location::Folder(folder)) => absolute(&folder),
            _ => place.to_owned(),
        };
        options(&[
            ("--repo", Some(place)),
            ("--key-file", path(&self.key_file)),
            ("--key-fd", self.key_fd.map(|fd| fd.to_string())),
            ("--s3-endpoint", s3.s3_endpoint.clone()),
            ("--s3-region", s3.s3_region.clone()),
            ("--s3-path-style", s3.s3_path_style.map(|yes| yes.to_string())),
            ("--s3-ca", path(&s3.s3_ca)),
            ("--s3-profile", s3.s3_profile.clone()),
            ("--s3-customer-key-file", path(&s3.s3_customer_key_file)),
        ])
    }

    fn reading(&self) -> ReadOptions {
        let threads = self.concurrency.unwrap_or_else(machine::default_threads).max(2);
        ReadOptions { threads, memory: READ_AHEAD }
    }
}

/// A key from a file or from `key new`.
pub fn read_key(file: &Path) -> Result<Secret> {
    Secret::parse(&read(file)?).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("what is in {} is not a key", file.display()))
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    /// No key is longer.
    const MAX: u64 = 4096;
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX).read_to_end(&mut bytes))
        .map_err(|e| Error::io("read the key from", path, e))?;
    Ok(bytes)
}
