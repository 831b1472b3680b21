//! The generations of servers that the tests run against.
//!
//! Each is a real server of a Debian release, unpacked into a cache directory by
//! [`provision`](crate::provision) together with its own clients and backup tools. Nothing of
//! it is installed, so that all of them work side by side, for any user.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, anyhow};

use crate::{Result, provision};

/// Chooses the generation that tests use unless they name one: `10.5`, `10.11` or `11.8`.
pub const VARIABLE: &str = "HAULOUT_SERVER";

/// A series of servers that differ in the format of their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// Redo in blocks of 512 bytes; a change buffer.
    V10_5,
    /// Redo without blocks; a change buffer.
    V10_11,
    /// Redo without blocks; no change buffer; new names for the files of a backup.
    V11_8,
}

impl Generation {
    /// All of them, the oldest first.
    pub const ALL: [Self; 3] = [Self::V10_5, Self::V10_11, Self::V11_8];

    /// The series, as in the version numbers of its servers.
    pub const fn series(self) -> &'static str {
        match self {
            Self::V10_5 => "10.5",
            Self::V10_11 => "10.11",
            Self::V11_8 => "11.8",
        }
    }

    /// The generation that tests use unless they name one.
    pub fn under_test() -> Self {
        let Ok(series) = std::env::var(VARIABLE) else { return Self::V10_11 };
        let known = Self::ALL.into_iter().find(|generation| generation.series() == series);
        // Quietly testing another server than the one asked for would be a lie.
        known.unwrap_or_else(|| panic!("{VARIABLE}={series}: known are 10.5, 10.11 and 11.8"))
    }

    /// The directory that the server's packages are unpacked in; makes it when it is missing.
    pub fn root(self) -> Result<&'static Path> {
        static ROOTS: [OnceLock<Result<PathBuf, String>>; 3] = [const { OnceLock::new() }; 3];
        let root = ROOTS[self as usize]
            .get_or_init(|| provision::root(self).map_err(|error| format!("{error:#}")));
        root.as_deref()
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("no MariaDB {} to test with", self.series()))
    }

    /// The directory that this server is unpacked in together with MariaDB's own tests of it;
    /// makes it when it is missing.
    pub fn suite(self) -> Result<PathBuf> {
        provision::suite(self)
    }

    /// The directory with what servers of the generation need to make a cluster; makes it when it is
    /// missing.
    pub fn galera(self) -> Result<PathBuf> {
        provision::galera(self)
    }

    /// The server's `--basedir`.
    pub(crate) fn basedir(self) -> Result<PathBuf> {
        Ok(self.root()?.join("usr"))
    }

    /// The directory of the server's plugins.
    pub fn plugin_dir(self) -> Result<PathBuf> {
        Ok(self.root()?.join("usr/lib/mysql/plugin"))
    }

    /// The plugins that servers since 10.7 need for all algorithms of page compression but zlib.
    pub(crate) fn compression_providers(self) -> Result<Vec<String>> {
        let dir = self.plugin_dir()?;
        let algorithms = ["bzip2", "lz4", "lzma", "lzo", "snappy"];
        let plugins = algorithms.map(|algorithm| format!("provider_{algorithm}"));
        Ok(plugins.into_iter().filter(|name| dir.join(format!("{name}.so")).exists()).collect())
    }

    /// One of the generation's programs, such as `mbstream`.
    ///
    /// When there is no such generation on this machine, starting the program fails, and the
    /// reason is on standard error.
    pub fn program(self, name: &str) -> PathBuf {
        let dir = if name == "mariadbd" { "usr/sbin" } else { "usr/bin" };
        match self.root() {
            Ok(root) => root.join(dir).join(name),
            Err(error) => {
                eprintln!("{error:#}");
                Path::new("no-such-server").join(self.series()).join(name)
            }
        }
    }
}
