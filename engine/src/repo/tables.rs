//! Single tables out of a backup: only the frames that have them are fetched.
//!
//! What comes out are files for other servers: tablespaces with the `.cfg` that
//! `ALTER TABLE … IMPORT TABLESPACE` takes, and the files of Aria and MyISAM tables. To make them,
//! redo is needed, and the system and undo tablespaces, which know the tables' definitions and what open
//! transactions have changed. All other tablespaces are left out, and redo for them is
//! skipped; a table that was chosen is there with all of its redo, or named in an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use innodb::SpaceId;
use innodb::space::file_name::TableName;

use super::Repository;
use super::catalog::Selection;
use super::choice::Choice;
use super::layout::Kind;
use super::manifest::{Manifest, path_from_text};
use super::merge;
use super::merged::Merged;
use super::pick::{Picked, Picks};
use super::reader::{BackupReader, ReadOptions};
use super::restore::{USUAL_RATE, check_complete, check_space};
use super::sql;
use crate::aria::{self, AriaSummary};
use crate::extract::{self, ExtractOptions, How};
use crate::keys::KeySettings;
use crate::keys::settings::KeyStore;
use crate::metadata::names;
use crate::prepare::inventory::is_undo;
use crate::prepare::{self, LeftOut, PrepareOptions};
use crate::restore::{Stage, check_prepared, place_tables};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// The redo log of a backup.
const LOG: &str = "ib_logfile0";

/// Which tables, and where to.
pub struct TablesOptions {
    /// Which backup.
    pub selection: Selection,
    /// Which of its tables.
    pub choice: Choice,
    /// Folder for the files; created if missing, must be empty.
    pub dir: PathBuf,
    /// Owner of the files.
    pub owner: Option<(u32, u32)>,
    /// Threads, at least 1.
    pub parallel: usize,
    /// Memory for what is read ahead, and then for redo, in bytes.
    pub memory: u64,
    /// Where encryption keys of the server are.
    pub keys: KeySettings,
}

/// A table, or one partition of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ChosenTable {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// The partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The subpartition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subpartition: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files, as paths below the folder.
    pub files: Vec<String>,
}

/// What has to be fetched for some tables.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TablesPlan {
    /// Version of this document's shape.
    pub format: u32,
    /// The backup.
    pub name: String,
    /// When it ended.
    pub ended: jiff::Timestamp,
    /// The server it was taken from: host and data directory.
    pub server: String,
    /// The tables.
    pub tables: Vec<ChosenTable>,
    /// Bytes to fetch, all in all.
    pub stored_bytes: u64,
    /// Bytes to fetch for the files of the tables.
    pub table_stored_bytes: u64,
    /// Bytes to fetch for redo.
    pub redo_stored_bytes: u64,
    /// Bytes that are unpacked.
    pub bytes: u64,
    /// Bytes of redo to read.
    pub redo_bytes: u64,
    /// Seconds for fetching, at 100 MB per second.
    pub estimated_seconds: f64,
}

/// What was fetched and made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TablesSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// The backup.
    pub name: String,
    /// The server it was taken from: host and data directory.
    pub server: String,
    /// When it ended.
    pub ended: jiff::Timestamp,
    /// The tables.
    pub tables: Vec<ChosenTable>,
    /// Bytes that the store gave.
    pub fetched_bytes: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Redo that was read, in bytes.
    pub redo_bytes: u64,
    /// LSN that the tablespaces equal; none if there are none.
    pub end_lsn: Option<u64>,
    /// GTID position that the tables equal.
    pub gtid: Option<String>,
    /// Statements that a server imports the tables by.
    pub sql: String,
    /// Seconds in all.
    pub seconds: f64,
}

/// What is chosen of a backup.
struct Chosen {
    manifest: Manifest,
    /// Of a delta: what it is together with what it is based on.
    merged: Option<Arc<Merged>>,
    tables: BTreeMap<TableName, Vec<String>>,
    /// All files to fetch, as the manifest names them.
    paths: BTreeSet<String>,
    has_tablespaces: bool,
    has_aria: bool,
    /// Bytes fetched to learn this.
    fetched: u64,
}

impl Repository {
    /// What would be fetched for some tables.
    pub fn plan_tables(
        &self,
        selection: &Selection,
        choice: &Choice,
        cancel: &Cancel,
    ) -> Result<TablesPlan> {
        self.choose(selection, choice, cancel)?.plan()
    }

    /// Brings some tables of a backup into a folder, ready for another server.
    ///
    /// # Errors
    /// [`ErrorKind::NothingMatches`] for a name that means nothing. Tables that must not be imported
    /// are named, after the others were placed.
    pub fn restore_tables(
        &self,
        options: TablesOptions,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<TablesSummary> {
        let clock = Instant::now();
        let chosen = self.choose(&options.selection, &options.choice, cancel)?;
        let plan = chosen.plan()?;
        if chosen.manifest.corrupt_pages > 0 {
            reporter.warn(format!(
                "{} pages of this backup were corrupt at the server already: see the file {} of \
                 the backup",
                chosen.manifest.corrupt_pages,
                names::CORRUPTED_PAGES
            ));
        }
        check_space(&options.dir, plan.bytes)?;
        let stage = Stage::create(&options.dir, None, options.owner)?;
        let threads = options.parallel.max(1);
        let read = ReadOptions { threads: threads.max(2), memory: options.memory };
        let unpack = ExtractOptions { dir: stage.dir(), parallel: threads };
        let fetched = match &chosen.merged {
            None => {
                let picks = chosen.picks()?;
                let (frames, manifest) = (picks.frames(), chosen.manifest.clone());
                let reader = BackupReader::new(self, manifest, Some(&frames), read, cancel)?;
                let (failed, fetched) = (reader.failure(), reader.fetched());
                let stream = Picked::new(reader, picks, &plan.name);
                extract::extract(Box::new(stream), unpack, cancel, reporter)
                    .map_err(|error| failed.take().unwrap_or(error))?;
                let files = chosen.paths.iter();
                let files =
                    files.filter_map(|path| Some((path, chosen.manifest.files.get(path)?.size)));
                check_complete(&stage.dir(), files)?;
                fetched.load(Ordering::Relaxed)
            }
            Some(merged) => {
                let wanted = |path: &str| chosen.paths.contains(path);
                let stream = merged.stream(self, wanted, read, cancel)?;
                let (sizes, fetched) = (stream.sizes(), stream.fetched());
                extract::unpack(How::new(), Box::new(stream), unpack, cancel, reporter)?;
                let sizes = sizes.take();
                check_complete(&stage.dir(), sizes.iter().map(|(path, size)| (path, *size)))?;
                merge::total(&fetched)
            }
        };

        let made = chosen.prepare(&stage, &options, cancel, reporter)?;
        let ready = |path: &&String| {
            let file = stage.dir().join(local(path));
            file.extension() != Some(OsStr::new("ibd")) || file.with_extension("cfg").exists()
        };
        let mut tables = plan.tables;
        for table in &mut tables {
            let files: Vec<String> = table.files.iter().filter(ready).cloned().collect();
            let exported = files.iter().filter_map(|path| path.strip_suffix(".ibd"));
            let exported: Vec<String> = exported.map(|path| format!("{path}.cfg")).collect();
            table.files = [files, exported].concat();
        }
        let sql = sql::import(&tables, &options.dir);
        let files: Vec<PathBuf> =
            tables.iter().flat_map(|table| &table.files).map(|path| local(path)).collect();
        let bytes =
            place_tables(&stage, &options.dir, &files, (sql::FILE, &sql), options.owner, cancel)?;
        if let Some(refused) = made.refused {
            let others = format!("all that could be exported is in {}", options.dir.display());
            return Err(refused.context(others));
        }
        Ok(TablesSummary {
            format: 1,
            name: plan.name,
            server: plan.server,
            ended: plan.ended,
            tables,
            fetched_bytes: chosen.fetched + fetched,
            bytes,
            redo_bytes: made.redo_bytes,
            end_lsn: made.end_lsn,
            gtid: chosen.manifest.gtid(),
            sql,
            seconds: clock.elapsed().as_secs_f64(),
        })
    }

    fn choose(&self, selection: &Selection, choice: &Choice, cancel: &Cancel) -> Result<Chosen> {
        let manifest = self.select(selection, cancel)?;
        self.opener(&manifest)?;
        let merged = match manifest.kind {
            Kind::Full => None,
            Kind::Delta => {
                let chain = self.whole_chain(manifest.clone(), cancel)?;
                Some(Arc::new(self.merged(chain, cancel)?))
            }
        };
        let files: Vec<&String> = match &merged {
            None => manifest.files.keys().collect(),
            Some(merged) => merged.files.keys().collect(),
        };
        let tables = choice.tables(&manifest.name, files.iter().copied())?;
        let mut paths: BTreeSet<String> = tables.values().flatten().cloned().collect();
        let has = |extensions: &[&str]| {
            let extension = |path: &String| path.rsplit_once('.').map(|(_, e)| e.to_owned());
            paths.iter().filter_map(extension).any(|e| extensions.contains(&&*e))
        };
        let (has_tablespaces, has_aria) = (has(&["ibd"]), has(&["MAI", "MAD"]));
        let mut fetched = merged.as_ref().map_or(0, |merged| merged.fetched);
        let roots: Vec<&String> = files.into_iter().filter(|p| !p.contains('/')).collect();
        if let (true, Some(merged)) = (has_tablespaces, &merged) {
            paths.extend(merged.system.iter().cloned());
        } else if has_tablespaces {
            let (settings, bytes) = self.settings(&manifest, cancel)?;
            fetched = bytes;
            for file in settings.data_file_path.files() {
                paths.insert(file.stored_name().to_string_lossy().into_owned());
            }
        }
        if has_tablespaces {
            let needed =
                |path: &&&String| path.as_str() == LOG || is_undo(path) || names::is_metadata(path);
            paths.extend(roots.iter().filter(needed).map(|path| (*path).clone()));
        }
        if has_aria {
            let logs = roots.iter().filter(|path| path.starts_with("aria_log"));
            paths.extend(logs.map(|path| (*path).clone()));
        }
        let chosen = Chosen { manifest, merged, tables, paths, has_tablespaces, has_aria, fetched };
        if chosen.merged.is_none() {
            // That all of them are there.
            chosen.picks()?;
        }
        Ok(chosen)
    }
}

/// What preparing has made.
#[derive(Default)]
struct Made {
    redo_bytes: u64,
    end_lsn: Option<u64>,
    /// Why some tables were not exported.
    refused: Option<Error>,
}

impl Chosen {
    fn picks(&self) -> Result<Picks> {
        Picks::new(&self.manifest, self.paths.iter().map(String::as_str))
    }

    fn size(&self, path: &String) -> u64 {
        match &self.merged {
            None => self.manifest.files.get(path).map_or(0, |file| file.size),
            Some(merged) => merged.files.get(path).map_or(0, |file| file.size),
        }
    }

    /// Bytes to fetch for some of the files.
    fn stored<'a>(&self, paths: impl IntoIterator<Item = &'a String>) -> Result<u64> {
        let paths: BTreeSet<&str> = paths.into_iter().map(String::as_str).collect();
        match &self.merged {
            None => {
                let picks = Picks::new(&self.manifest, paths)?;
                Ok(picks.stored(&self.manifest))
            }
            Some(merged) => Ok(merged.stored(|path| paths.contains(path))),
        }
    }

    fn plan(&self) -> Result<TablesPlan> {
        let size = |path: &String| self.size(path);
        let chosen = |(name, files): (&TableName, &Vec<String>)| ChosenTable {
            database: name.database.clone(),
            table: name.table.clone(),
            partition: name.partition.clone(),
            subpartition: name.subpartition.clone(),
            bytes: files.iter().map(size).sum(),
            files: files.clone(),
        };
        let stored_bytes = self.fetched + self.stored(&self.paths)?;
        let redo = self.paths.get(LOG);
        Ok(TablesPlan {
            format: 1,
            name: self.manifest.name.to_string(),
            ended: self.manifest.ended,
            server: self.manifest.origin(),
            tables: self.tables.iter().map(chosen).collect(),
            stored_bytes,
            table_stored_bytes: self.stored(self.tables.values().flatten())?,
            redo_stored_bytes: self.stored(redo)?,
            bytes: self.paths.iter().map(size).sum(),
            redo_bytes: redo.map_or(0, size),
            estimated_seconds: stored_bytes as f64 / USUAL_RATE,
        })
    }

    /// What redo is skipped for.
    fn left_out(&self) -> LeftOut {
        let mut left_out = LeftOut::default();
        let mut leave_out = |path: &String, space: Option<SpaceId>| {
            if self.paths.contains(path) || !path.ends_with(".ibd") {
                return;
            }
            left_out.ids.extend(space);
            let name = path_from_text(path).unwrap_or_default();
            left_out.names.insert(String::from_utf8_lossy(&name).into_owned());
        };
        match &self.merged {
            None => self.manifest.files.iter().for_each(|(path, file)| {
                leave_out(path, file.space.map(|space| SpaceId(space.id)));
            }),
            Some(merged) => {
                merged.files.iter().for_each(|(path, file)| leave_out(path, file.space));
            }
        }
        left_out
    }

    fn prepare(
        &self,
        stage: &Stage,
        options: &TablesOptions,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<Made> {
        let dir = stage.dir();
        let mut made = Made::default();
        let mut aria = AriaSummary::Absent;
        if self.has_tablespaces {
            let prepare = PrepareOptions {
                deltas: Vec::new(),
                dir: dir.clone(),
                memory: options.memory,
                parallel: options.parallel.max(1),
                keys: options.keys.clone(),
                export: true,
                leave_damaged_pages: None,
            };
            match prepare::prepare_without(self.left_out(), prepare, cancel, reporter) {
                Ok(prepared) => {
                    (made.redo_bytes, made.end_lsn) = (prepared.redo_bytes, Some(prepared.end_lsn));
                    aria = prepared.aria;
                }
                // Tables that must not be imported, all of which it names.
                Err(error) if error.kind() == ErrorKind::Failed && check_prepared(&dir).is_ok() => {
                    made.refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        } else if self.has_aria {
            let keys = KeyStore::new(options.keys.clone());
            aria = aria::recover(&dir, options.memory, &keys, cancel, reporter)?;
        }
        if let (true, AriaSummary::LeftToServer { reason }) = (self.has_aria, aria) {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("only a server can make the Aria tables of this backup whole: {reason}"),
            )
            .advise("leave them out, or restore the whole backup and take them from there"));
        }
        Ok(made)
    }
}

/// A path of a manifest as one below a folder.
pub(super) fn local(path: &str) -> PathBuf {
    let bytes = path_from_text(path).unwrap_or_else(|| path.as_bytes().to_owned());
    Path::new(OsStr::from_bytes(&bytes)).to_owned()
}
