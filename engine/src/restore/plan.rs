//! Which file of a backup goes where.
//!
//! | in the backup | goes to |
//! |---|---|
//! | files of `innodb_data_file_path` | `innodb_data_home_dir`, or where their paths say |
//! | `undoNNN` | `innodb_undo_directory` |
//! | `aria_log.*`, `aria_log_control` | `aria_log_dir_path` |
//! | `ib_logfile0` | `innodb_log_group_home_dir`, last of all |
//! | `#rocksdb/NNN.log` | `rocksdb_wal_dir` |
//! | the rest of `#rocksdb` | `rocksdb_datadir` |
//! | `db/table.ibd` with a `db/table.isl` | the path in that file |
//! | what only describes the backup, or a table for an import | stays |
//! | everything else | the data directory |

use std::fs;
use std::path::{Path, PathBuf};

use super::RestoreOptions;
use crate::capture::rocksdb;
use crate::metadata::{BackupMyCnf, DataFilePath, names};
use crate::prepare::journal;
use crate::{Error, ErrorKind, Reporter, Result};

/// The redo log. While it is not in its place, a server does not start.
pub const REDO_LOG: &str = "ib_logfile0";

/// One file to place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it is.
    pub source: PathBuf,
    /// Relative to the backup.
    pub name: String,
    /// Where it goes.
    pub target: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Everything to place.
#[derive(Debug, Default)]
pub struct Plan {
    /// Directories that must exist, parents first.
    pub directories: Vec<PathBuf>,
    /// Files, in any order.
    pub files: Vec<Item>,
    /// The redo log: placed when all else is.
    pub log: Option<Item>,
}

impl Plan {
    /// Looks through the backup.
    pub fn new(
        options: &RestoreOptions,
        settings: &BackupMyCnf,
        reporter: &dyn Reporter,
    ) -> Result<Self> {
        let places = Places::new(options, settings)?;
        let mut plan = Self { directories: places.directories(), ..Self::default() };
        plan.walk(&options.source, "", &places, reporter)?;
        for name in places.system.iter().map(|(name, _)| name) {
            if !plan.files.iter().any(|item| item.name == *name) {
                return Err(Error::new(
                    ErrorKind::Damage,
                    format!("{name} of innodb_data_file_path is not in the backup"),
                )
                .advise("give the innodb_data_file_path that the server had"));
            }
        }
        if plan.log.is_none() {
            return Err(Error::new(ErrorKind::Damage, format!("the backup has no {REDO_LOG}"))
                .advise("the backup is not complete, or was moved to a data directory before"));
        }
        Ok(plan)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().chain(&self.log).map(|item| item.bytes).sum()
    }

    fn walk(
        &mut self,
        folder: &Path,
        prefix: &str,
        places: &Places,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        let list = |e| Error::io("list", folder, e);
        let mut entries =
            fs::read_dir(folder).map_err(list)?.collect::<Result<Vec<_>, _>>().map_err(list)?;
        entries.sort_unstable_by_key(|entry| entry.file_name());
        for entry in entries {
            let source = entry.path();
            let Ok(own) = entry.file_name().into_string() else {
                return Err(Error::new(
                    ErrorKind::Damage,
                    format!("{} has a name that no server gives", source.display()),
                ));
            };
            let name = format!("{prefix}{own}");
            let metadata = entry.metadata().map_err(|e| Error::io("inspect", &source, e))?;
            if metadata.is_dir() {
                self.directories.push(places.directory(&name));
                self.walk(&source, &format!("{name}/"), places, reporter)?;
            } else if !metadata.is_file() {
                reporter.warn(format!("{name} is neither file nor folder; it is left out"));
            } else if let Some(target) = places.target(&source, &name)? {
                let item = Item { source, target, bytes: metadata.len(), name };
                match item.name == REDO_LOG {
                    true => self.log = Some(item),
                    false => self.files.push(item),
                }
            }
        }
        Ok(())
    }
}

/// The directories of a server.
struct Places {
    datadir: PathBuf,
    undo: PathBuf,
    log: PathBuf,
    aria: PathBuf,
    rocksdb: PathBuf,
    rocksdb_wal: PathBuf,
    /// Files of the system tablespace: name in the backup, target.
    system: Vec<(String, PathBuf)>,
}

impl Places {
    fn new(options: &RestoreOptions, settings: &BackupMyCnf) -> Result<Self> {
        let datadir = std::path::absolute(&options.datadir)
            .map_err(|e| Error::io("resolve", &options.datadir, e))?;
        // A relative path counts from the data directory, with or without a slash at its end.
        let place = |option: &Option<PathBuf>| match option {
            Some(path) => datadir.join(path),
            None => datadir.clone(),
        };
        let data_file_path = match &options.innodb_data_file_path {
            Some(text) => DataFilePath::parse(text)?,
            None => settings.data_file_path.clone(),
        };
        let home = place(&options.innodb_data_home_dir);
        let system = data_file_path
            .files()
            .iter()
            .map(|file| (file.stored_name().to_string_lossy().into_owned(), home.join(&file.path)))
            .collect();
        let rocksdb = match &options.rocksdb_datadir {
            Some(path) => datadir.join(path),
            None => datadir.join(rocksdb::DIRECTORY),
        };
        let rocksdb_wal = match &options.rocksdb_wal_dir {
            Some(path) => datadir.join(path),
            None => rocksdb.clone(),
        };
        Ok(Self {
            rocksdb,
            rocksdb_wal,
            undo: place(&options.innodb_undo_directory),
            log: place(&options.innodb_log_group_home_dir),
            aria: place(&options.aria_log_dir_path),
            system,
            datadir,
        })
    }

    fn directories(&self) -> Vec<PathBuf> {
        let homes = self.system.iter().filter_map(|(_, target)| target.parent());
        let mut all = vec![self.datadir.clone(), self.undo.clone(), self.log.clone()];
        all.push(self.aria.clone());
        all.extend(homes.map(Path::to_owned));
        let mut seen = std::collections::HashSet::new();
        all.retain(|directory| seen.insert(directory.clone()));
        all
    }

    /// Where a directory of the backup is in the copy.
    fn directory(&self, name: &str) -> PathBuf {
        match name == rocksdb::DIRECTORY {
            true => self.rocksdb.clone(),
            false => self.datadir.join(name),
        }
    }

    /// Where the file goes, or `None` when it stays in the backup.
    fn target(&self, source: &Path, name: &str) -> Result<Option<PathBuf>> {
        if let Some((_, target)) = self.system.iter().find(|(system, _)| system == name) {
            return Ok(Some(target.clone()));
        }
        let myrocks = name.strip_prefix(rocksdb::DIRECTORY).and_then(|rest| rest.strip_prefix('/'));
        if let Some(own) = myrocks {
            let is_log = own.strip_suffix(".log").is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
            });
            let directory = if is_log { &self.rocksdb_wal } else { &self.rocksdb };
            return Ok(Some(directory.join(own)));
        }
        if name.contains('/') {
            // It would keep a server from dropping the database.
            if name.ends_with(".cfg") && source.with_extension("ibd").exists() {
                return Ok(None);
            }
            return match name.strip_suffix(".ibd") {
                Some(table) => {
                    Ok(Some(linked(source, table)?.unwrap_or_else(|| self.datadir.join(name))))
                }
                None => Ok(Some(self.datadir.join(name))),
            };
        }
        let undo_number = name.strip_prefix("undo").unwrap_or_default();
        Ok(if stays(name) {
            None
        } else if name == REDO_LOG {
            Some(self.log.join(name))
        } else if undo_number.len() == 3 && undo_number.bytes().all(|b| b.is_ascii_digit()) {
            Some(self.undo.join(name))
        } else if name == "aria_log_control" || name.starts_with("aria_log.") {
            Some(self.aria.join(name))
        } else {
            Some(self.datadir.join(name))
        })
    }
}

/// Whether a file in the root of a backup is about the backup, or a tool's own.
fn stays(name: &str) -> bool {
    names::stays_in_backup(name)
        || name == journal::FILE_NAME
        || name.starts_with(".haulout-")
        || [".qp", ".pmap", ".tmp"].iter().any(|extension| name.ends_with(extension))
}

/// Where the `.isl` file beside the tablespace of `table` says that it is.
fn linked(source: &Path, table: &str) -> Result<Option<PathBuf>> {
    let link = source.with_extension("isl");
    let text = match fs::read_to_string(&link) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::io("read", &link, e))?,
    };
    let path = Path::new(text.trim_end_matches(['\n', '\r']));
    let plain = path.components().all(|part| {
        matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_))
    });
    // The server keeps the names of database and table in whatever directory it was given.
    if !path.is_absolute() || !plain || !path.ends_with(format!("{table}.ibd")) {
        return Err(Error::new(
            ErrorKind::Damage,
            format!("{} does not hold the path of {table}.ibd", link.display()),
        ));
    }
    Ok(Some(path.to_owned()))
}
