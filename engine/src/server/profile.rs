//! What kind of server this is and where its files are.
//!
//! Everything the engine needs to know about the server is read once, in one place, and turned
//! into values: paths are absolute, numbers are numbers, versions compare. Servers that are not
//! MariaDB, or too old, are refused by name.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use innodb::PageSize;

use super::rows::Variables;
use super::session::{Session, Wait};
use super::standing;
use crate::keys::KeySettings;
use crate::keys::settings::KNOWN_PLUGINS;
pub use crate::metadata::Naming;
use crate::{Error, ErrorKind, Result, redo_files};

/// A server version. Compares as versions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ServerVersion {
    /// `10` of 10.11.8.
    pub major: u16,
    /// `11` of 10.11.8.
    pub minor: u16,
    /// `8` of 10.11.8.
    pub patch: u16,
}

impl ServerVersion {
    /// The version of these three numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// The version at the front of a text such as `10.11.8-MariaDB-log`. Replication clients
    /// sometimes see MariaDB with the prefix `5.5.5-`, which is not part of it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("5.5.5-").unwrap_or(text);
        let numbers = text.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { major: next()?, minor: next()?, patch: next()? })
    }

    /// The line of servers that shares file formats and protocol.
    pub fn generation(self) -> Generation {
        match (self.major, self.minor) {
            (10, ..=5) => Generation::V10_5,
            (10, 6..=7) => Generation::V10_6,
            _ => Generation::V10_8,
        }
    }

    /// Whether the `mbstream` of this version can unpack a file that comes twice, or goes again.
    pub fn mbstream_takes_rewrites(self) -> bool {
        match (self.major, self.minor) {
            (..=9, _) | (10, ..=10) | (11, 3) => false,
            (10, _) => self.patch >= 8,
            (11, 0) => self.patch >= 6,
            (11, 1) => self.patch >= 5,
            (11, 2) => self.patch >= 4,
            _ => true,
        }
    }

    /// Under which names servers of this version expect the files of a backup.
    pub fn naming(self) -> Naming {
        if self >= Self::new(11, 1, 0) { Naming::MariadbBackup } else { Naming::Xtrabackup }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Lines of servers, told apart by the format of their redo log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Generation {
    /// 10.5: redo in blocks of 512 bytes, old record types for files.
    #[serde(rename = "10.5")]
    V10_5,
    /// 10.6 and 10.7: redo in blocks, new record types.
    #[serde(rename = "10.6")]
    V10_6,
    /// 10.8 and later: redo as a plain sequence of mini-transactions.
    #[serde(rename = "10.8")]
    V10_8,
}

/// A plugin of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// The library it is in, such as `file_key_management.so`; none when it is built in.
    pub library: Option<String>,
}

/// What the server can encrypt, and does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encryption {
    /// Active plugins of the type ENCRYPTION.
    pub plugins: Vec<Plugin>,
    /// `plugin_dir`.
    pub plugin_dir: String,
    /// `innodb_encrypt_log`.
    pub redo: bool,
    /// `innodb_encrypt_tables`: `OFF`, `ON` or `FORCE`.
    pub tables: String,
}

/// Where MyRocks has its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksDbPlaces {
    /// `rocksdb_datadir`, absolute.
    pub data: PathBuf,
    /// `rocksdb_wal_dir`, absolute, when it is another directory.
    pub wal: Option<PathBuf>,
}

/// What the engine knows about a server.
#[derive(Clone, Debug)]
pub struct ServerProfile {
    /// The version, to compare.
    pub version: ServerVersion,
    /// The version, as the server writes it.
    pub version_text: String,
    /// `hostname`.
    pub hostname: String,
    /// `port`; 0 when the server does not listen on TCP.
    pub port: u16,
    /// `server_id`.
    pub server_id: u32,
    /// `datadir`, absolute.
    pub datadir: PathBuf,
    /// `innodb_data_home_dir`, absolute; the data directory when unset.
    pub innodb_data_home_dir: PathBuf,
    /// `innodb_data_file_path`, as written.
    pub innodb_data_file_path: String,
    /// `innodb_undo_directory`, absolute.
    pub innodb_undo_directory: PathBuf,
    /// `innodb_undo_directory`, as the server tells it.
    pub innodb_undo_directory_text: String,
    /// `innodb_log_group_home_dir`, absolute.
    pub innodb_log_group_home_dir: PathBuf,
    /// `aria_log_dir_path`, absolute.
    pub aria_log_dir_path: PathBuf,
    /// Whether InnoDB runs. Where it is switched off, its files lie in the data directory, and nobody
    /// writes to them.
    pub has_innodb: bool,
    /// `innodb_page_size`.
    pub page_size: PageSize,
    /// `innodb_undo_tablespaces`.
    pub undo_tablespaces: u32,
    /// `innodb_log_file_size` in bytes.
    pub log_file_size: u64,
    /// `innodb_checksum_algorithm`.
    pub checksum_algorithm: String,
    /// `innodb_compression_level`.
    pub compression_level: u32,
    /// `innodb_buffer_pool_filename`, absolute.
    pub buffer_pool_file: PathBuf,
    /// Where MyRocks has its files, when the server has it.
    pub rocksdb: Option<RocksDbPlaces>,
    /// Whether the binary log is on.
    pub log_bin: bool,
    /// `lower_case_table_names`.
    pub lower_case_table_names: u8,
    /// Whether the server is built with wsrep (Galera), in use or not.
    pub has_wsrep: bool,
    /// Whether the server is a member of a Galera cluster.
    pub wsrep_on: bool,
    /// Directories below the data directory that are no databases.
    pub ignore_db_dirs: Vec<String>,
    /// What the server can encrypt, and does.
    pub encryption: Encryption,
    /// Plugins that have algorithms of page compression.
    pub providers: Vec<Plugin>,
    /// Every other variable, for whoever needs one more.
    pub variables: Variables,
}

impl ServerProfile {
    /// Reads the profile. On servers with wsrep the session is also told not to wait for the
    /// cluster before each statement.
    pub fn read(session: &mut Session) -> Result<Self> {
        let variables = session.variables()?;
        let mut profile = Self::from_variables(variables)?;
        if profile.has_wsrep {
            let wait = Wait::short("switching off causal reads");
            session.execute("SET SESSION wsrep_sync_wait=0", wait)?;
        }
        let plugins = session.query(
            "SELECT plugin_name, plugin_library, plugin_type FROM information_schema.plugins \
             WHERE plugin_status='ACTIVE' AND (plugin_type='ENCRYPTION' OR \
             plugin_type='DAEMON' AND plugin_name LIKE 'provider\\_%')",
            Wait::short("reading the list of encryption plugins"),
        )?;
        for row in plugins {
            let text = |column| row.text(column).map(|text| text.into_owned());
            let Some(name) = text("plugin_name") else { continue };
            let plugin = Plugin { name, library: text("plugin_library") };
            match text("plugin_type").as_deref() {
                Some("ENCRYPTION") => profile.encryption.plugins.push(plugin),
                _ => profile.providers.push(plugin),
            }
        }
        Ok(profile)
    }

    /// The part of the profile that follows from the variables alone.
    fn from_variables(variables: Variables) -> Result<Self> {
        let version_text = variables.require("version")?.to_owned();
        let version = accepted_version(&version_text, &variables)?;
        if variables.is_on("innodb_log_archive") {
            return Err(redo_files::archived());
        }
        let datadir = PathBuf::from(variables.require("datadir")?);
        if !datadir.is_absolute() {
            let message = format!("the server's datadir '{}' is not absolute", datadir.display());
            return Err(Error::new(ErrorKind::Server, message));
        }
        let datadir = normal_path(&datadir);
        let has_innodb = variables.get("innodb_page_size").is_some();
        let variables = match has_innodb {
            true => variables,
            false => variables.joined_with(standing::variables(&datadir)?),
        };
        let resolve = |name: &str| resolved(&datadir, variables.get(name).unwrap_or_default());
        let page_size_bytes = variables.number("innodb_page_size")?;
        let page_size =
            u32::try_from(page_size_bytes).ok().and_then(PageSize::new).ok_or_else(|| {
                let message = format!("the server's innodb_page_size {page_size_bytes} is unknown");
                Error::new(ErrorKind::Server, message)
            })?;
        let text = |name: &str| variables.get(name).unwrap_or_default().to_owned();
        let buffer_pool_file = match variables.get("innodb_buffer_pool_filename") {
            None | Some("") => datadir.join("ib_buffer_pool"),
            Some(name) => resolved(&datadir, name),
        };
        Ok(Self {
            version,
            hostname: text("hostname"),
            port: narrow(&variables, "port")?,
            server_id: narrow(&variables, "server_id")?,
            innodb_data_home_dir: resolve("innodb_data_home_dir"),
            innodb_data_file_path: variables.require("innodb_data_file_path")?.to_owned(),
            innodb_undo_directory: resolve("innodb_undo_directory"),
            innodb_undo_directory_text: text("innodb_undo_directory"),
            innodb_log_group_home_dir: resolve("innodb_log_group_home_dir"),
            aria_log_dir_path: resolve("aria_log_dir_path"),
            has_innodb,
            page_size,
            undo_tablespaces: narrow(&variables, "innodb_undo_tablespaces")?,
            log_file_size: variables.number("innodb_log_file_size")?,
            checksum_algorithm: text("innodb_checksum_algorithm"),
            compression_level: narrow(&variables, "innodb_compression_level")?,
            buffer_pool_file,
            // Variables of a plugin exist as long as it runs.
            rocksdb: variables.get("rocksdb_datadir").map(|data| RocksDbPlaces {
                data: resolved(&datadir, data),
                wal: variables
                    .get("rocksdb_wal_dir")
                    .filter(|wal| !wal.is_empty())
                    .map(|wal| resolved(&datadir, wal))
                    .filter(|wal| *wal != resolved(&datadir, data)),
            }),
            log_bin: variables.is_on("log_bin"),
            lower_case_table_names: narrow(&variables, "lower_case_table_names")?,
            has_wsrep: variables.get("wsrep_on").is_some(),
            wsrep_on: variables.is_on("wsrep_on"),
            ignore_db_dirs: text("ignore_db_dirs")
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            encryption: Encryption {
                plugins: Vec::new(),
                plugin_dir: text("plugin_dir"),
                redo: variables.is_on("innodb_encrypt_log"),
                tables: text("innodb_encrypt_tables"),
            },
            version_text,
            datadir,
            providers: Vec::new(),
            variables,
        })
    }

    /// Under which names this server expects the files of a backup.
    pub fn naming(&self) -> Naming {
        self.version.naming()
    }

    /// Whether the server reads its tablespaces past the page cache of the operating system.
    pub fn bypasses_page_cache(&self) -> bool {
        match self.variables.get("innodb_data_file_buffering") {
            Some(_) => !self.variables.is_on("innodb_data_file_buffering"),
            None => self
                .variables
                .get("innodb_flush_method")
                .is_some_and(|method| method.starts_with("O_DIRECT")),
        }
    }

    /// Where the server has its encryption keys, as far as it says so.
    pub fn keys(&self) -> KeySettings {
        let mut keys = KeySettings::from_variables(&self.variables);
        // The server works in its data directory.
        keys.file = keys.file.map(|file| self.datadir.join(file));
        for plugin in &self.encryption.plugins {
            let name = plugin.name.as_str();
            if !KNOWN_PLUGINS.contains(&name) {
                keys.unsupported = Some(name.to_owned());
            }
        }
        keys
    }
}

/// The version, unless the server is not MariaDB or too old.
fn accepted_version(text: &str, variables: &Variables) -> Result<ServerVersion> {
    // The version text can be overridden by configuration; Aria cannot.
    let is_mariadb = text.contains("MariaDB") || variables.get("aria_log_dir_path").is_some();
    let comment = variables.get("version_comment").unwrap_or_default();
    if !is_mariadb {
        let message = format!("the server is not MariaDB: version '{text}' ({comment})");
        return Err(Error::new(ErrorKind::Server, message)
            .advise("use the backup tool that belongs to that server"));
    }
    let version = ServerVersion::parse(text).ok_or_else(|| {
        Error::new(ErrorKind::Server, format!("cannot understand the server version '{text}'"))
    })?;
    if version < ServerVersion::new(10, 5, 0) {
        let message = format!("MariaDB {version} is too old: 10.5 or later is needed");
        return Err(Error::new(ErrorKind::Server, message));
    }
    Ok(version)
}

fn narrow<T: TryFrom<u64>>(variables: &Variables, name: &str) -> Result<T> {
    let number = variables.number(name)?;
    T::try_from(number).map_err(|_| {
        let message = format!("the server's variable '{name}' is {number}, which is too large");
        Error::new(ErrorKind::Server, message)
    })
}

/// A path of the server, whose working directory is its data directory.
fn resolved(datadir: &Path, text: &str) -> PathBuf {
    normal_path(&datadir.join(text))
}

/// The path without `.` components and trailing slash. Parent components stay: what they mean
/// depends on symbolic links.
fn normal_path(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn variables(changes: &[(&str, &str)]) -> Variables {
        let usual = [
            ("version", "10.11.19-MariaDB-0+deb12u1-log"),
            ("datadir", "/var/lib/mysql/"),
            ("innodb_data_home_dir", ""),
            ("innodb_data_file_path", "ibdata1:12M:autoextend"),
            ("innodb_undo_directory", "./"),
            ("innodb_log_group_home_dir", "redo"),
            ("aria_log_dir_path", "/aria/./logs/"),
            ("innodb_page_size", "16384"),
            ("innodb_undo_tablespaces", "3"),
            ("innodb_log_file_size", "100663296"),
            ("innodb_compression_level", "6"),
            ("lower_case_table_names", "0"),
            ("port", "3306"),
            ("server_id", "4294967295"),
            ("ignore_db_dirs", "lost+found,#recycle"),
            ("innodb_encrypt_tables", "OFF"),
        ];
        let all = usual.iter().chain(changes);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        let profile = ServerProfile::from_variables(variables(&[])).unwrap();
        assert_eq!(profile.datadir, Path::new("/var/lib/mysql"));
        assert_eq!(profile.innodb_data_home_dir, Path::new("/var/lib/mysql"));
        assert_eq!(profile.innodb_undo_directory, Path::new("/var/lib/mysql"));
        assert_eq!(profile.innodb_log_group_home_dir, Path::new("/var/lib/mysql/redo"));
        assert_eq!(profile.aria_log_dir_path, Path::new("/aria/logs"));
        assert_eq!(profile.buffer_pool_file, Path::new("/var/lib/mysql/ib_buffer_pool"));
        assert_eq!(profile.ignore_db_dirs, ["lost+found", "#recycle"]);
        assert_eq!(profile.server_id, u32::MAX);
        assert!(!profile.has_wsrep);
        assert_eq!(profile.rocksdb, None);
    }

    #[test]
    fn places_of_myrocks() {
        let places = |wal: &str| {
            let variables =
                variables(&[("rocksdb_datadir", "./#rocksdb"), ("rocksdb_wal_dir", wal)]);
            let places = ServerProfile::from_variables(variables).unwrap().rocksdb.unwrap();
            assert_eq!(places.data, Path::new("/var/lib/mysql/#rocksdb"));
            places.wal
        };
        assert_eq!(places(""), None);
        assert_eq!(places("#rocksdb"), None);
        assert_eq!(places("/fast/wal"), Some("/fast/wal".into()));
    }

    #[test]
    fn versions_parse_and_sort() {
        let v = ServerVersion::parse;
        assert_eq!(v("10.11.19-MariaDB"), Some(ServerVersion::new(10, 11, 19)));
        assert_eq!(v("5.5.5-10.6.4-MariaDB-log"), Some(ServerVersion::new(10, 6, 4)));
        assert_eq!(v("11.8.6"), Some(ServerVersion::new(11, 8, 6)));
        for bad in ["", "MariaDB", "10.11", "10.x.1", "10.11.99999999"] {
            assert_eq!(v(bad), None, "{bad}");
        }
        assert_eq!(v("10.5.23").unwrap().generation(), Generation::V10_5);
        assert_eq!(v("10.7.1").unwrap().generation(), Generation::V10_6);
        assert_eq!(v("10.8.1").unwrap().generation(), Generation::V10_8);
        assert_eq!(v("12.0.1").unwrap().generation(), Generation::V10_8);
        for (version, takes) in
            [("10.5.23", false), ("10.11.7", false), ("10.11.8", true), ("11.8.6", true)]
        {
            assert_eq!(v(version).unwrap().mbstream_takes_rewrites(), takes, "{version}");
        }
        assert_eq!(v("11.0.6").unwrap().naming(), Naming::Xtrabackup);
        assert_eq!(v("11.1.0").unwrap().naming(), Naming::MariadbBackup);
    }

    #[test]
    fn foreign_and_old_servers_are_refused_by_name() {
        let mut mysql = variables(&[("version", "8.0.40"), ("version_comment", "MySQL Community")]);
        mysql = ["version", "version_comment", "datadir"]
            .iter()
            .map(|name| ((*name).to_owned(), mysql.get(name).unwrap().to_owned()))
            .collect();
        let error = ServerProfile::from_variables(mysql).unwrap_err();
        assert!(error.to_string().contains("MySQL Community"), "{error}");
        let old = variables(&[("version", "10.4.34-MariaDB")]);
        let error = ServerProfile::from_variables(old).unwrap_err();
        assert!(error.to_string().contains("10.4.34"), "{error}");
    }

    #[test]
    fn keys_are_where_the_server_says() {
        let file = ("file_key_management_filename", "keys.txt");
        let mut profile = ServerProfile::from_variables(variables(&[file])).unwrap();
        assert_eq!(profile.keys().file, Some("/var/lib/mysql/keys.txt".into()));
        let plugin = Plugin { name: "aws_key_management".to_owned(), library: None };
        profile.encryption.plugins.push(plugin);
        assert!(profile.keys().open().unwrap_err().to_string().contains("aws_key_management"));
    }

    #[test]
    fn an_archived_log_is_refused_by_name() {
        let server = |archive| {
            let version = ("version", "13.0.1-MariaDB");
            ServerProfile::from_variables(variables(&[version, ("innodb_log_archive", archive)]))
        };
        let error = server("ON").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server);
        assert!(error.to_string().contains("innodb_log_archive=ON"), "{error}");
        assert!(error.advice().unwrap().contains("innodb_log_archive=OFF"));
        server("OFF").unwrap();
    }

    #[test]
    fn nonsense_numbers_are_refused_by_name() {
        for name in ["innodb_page_size", "server_id", "port"] {
            let wrong = variables(&[(name, "99999999999")]);
            let error = ServerProfile::from_variables(wrong).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
