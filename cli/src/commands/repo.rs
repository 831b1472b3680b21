//! Arguments about a repository: where it is, how it is opened, how its store is used.
//!
//! No argument holds a key, because anyone on the machine can read the arguments of a process.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use engine::repo::Repository;
use engine::repo::reader::ReadOptions;
use engine::repo::seal::Secret;
use engine::store::{self, Location, Store, StoreOptions};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::parse_threads;
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
}

impl Repo {
    /// Opens it.
    pub fn open(&self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Repository> {
        self.access.open(&self.place, cancel, reporter)
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
    fn store(
        &self,
        place: &str,
        create: bool,
        reporter: &Arc<dyn Reporter>,
    ) -> Result<Arc<dyn Store>> {
        let location: Location = place.parse()?;
        let mut options = StoreOptions { create_folder: create, ..StoreOptions::default() };
        options.bandwidth = self.bandwidth.map(|size| size.0);
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

    fn key(&self, reporter: &Arc<dyn Reporter>) -> Result<Option<Secret>> {
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
