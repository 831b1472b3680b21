//! From a repository to a data directory that a server starts on.
//!
//! The redo log comes first and is sorted in memory; the stream is fetched ahead and unpacked by
//! several threads, which apply the redo of a page before they write it. What memory does not hold,
//! or cannot be done on the way, is prepared where it stands; then all is moved into its place.
//! Nothing is written anywhere else. What the store has is never changed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Repository;
use super::catalog::Selection;
use super::manifest::{Manifest, path_from_text};
use super::merge;
use super::merged::Merged;
use super::parent;
use super::pick::{Picked, Picks};
use super::reader::{BackupReader, ReadOptions};
use super::tables::local;
use crate::capture::TableNeed;
use crate::extract::feed::Parsed;
use crate::extract::{self, Arrivals, Existing, ExtractOptions, How, Unchanged};
use crate::io::direct::DirectWrites;
use crate::io::durable;
use crate::keys::KeySettings;
use crate::metadata::names;
use crate::prepare::{self, Ahead, PrepareOptions};
use crate::restore::{RestoreOptions, Stage, restore_staged};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// Bytes per second of a store that nothing is known of, for estimates.
pub(super) const USUAL_RATE: f64 = 100e6;
/// What is read ahead for each thread at most, in bytes: more of it would not come sooner, and memory that
/// is used again costs less than new.
const AHEAD: u64 = 64 << 20;
/// The redo log, in a backup.
const REDO_LOG: &str = "ib_logfile0";

/// What to restore, and how.
pub struct StoredRestoreOptions {
    /// Which backup.
    pub selection: Selection,
    /// Where to; the source is of no account.
    pub restore: RestoreOptions,
    /// Whether the data directory has another state of the server, of which only what differs is to be
    /// written; what the backup does not have is removed.
    pub over: bool,
    /// Memory for what is read ahead, and then for redo, in bytes.
    pub memory: u64,
    /// Where encryption keys of the server are.
    pub keys: KeySettings,
}

/// What was restored.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StoredRestoreSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// The backup.
    pub name: String,
    /// What a delta is based on, the full backup first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub based_on: Vec<String>,
    /// The server it was taken from: host and data directory.
    pub server: String,
    /// Pages that were corrupt at the server.
    pub corrupt_pages: u64,
    /// When it ended.
    pub ended: jiff::Timestamp,
    /// Bytes fetched from the store.
    pub stored_bytes: u64,
    /// Files in the data directory.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that differed from what the data directory had, if it was restored over one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten_bytes: Option<u64>,
    /// Redo that was read, in bytes.
    pub redo_bytes: u64,
    /// Pages that redo changed.
    pub pages_changed: u64,
    /// Of them, those that were written once, in their final state.
    pub pages_on_arrival: u64,
    /// LSN that the data directory equals.
    pub end_lsn: u64,
    /// GTID position that it equals.
    pub gtid: Option<String>,
    /// Tables whose rows are not, or not all, in what was restored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableNeed>,
    /// Seconds for fetching and unpacking.
    pub fetch_seconds: f64,
    /// Seconds for applying redo.
    pub prepare_seconds: f64,
    /// Seconds in all.
    pub seconds: f64,
}

/// What a restore would do.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RestorePlan {
    /// Version of this document's shape.
    pub format: u32,
    /// The backup.
    pub name: String,
    /// What a delta is based on, the full backup first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub based_on: Vec<String>,
    /// When it ended.
    pub ended: jiff::Timestamp,
    /// Bytes to fetch.
    pub stored_bytes: u64,
    /// Seconds for fetching, at 100 MB per second.
    pub estimated_seconds: f64,
    /// Objects to fetch from.
    pub packs: usize,
    /// Files to write.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of redo to apply.
    pub redo_bytes: u64,
    /// Pages that were corrupt at the server.
    pub corrupt_pages: u64,
    /// The server it was taken from: host and data directory.
    pub server: String,
    /// LSN that the data directory would equal.
    pub end_lsn: u64,
    /// GTID position that it would equal.
    pub gtid: Option<String>,
}

/// A backup as it is restored.
struct Restorable {
    last: Manifest,
    /// Together with what it is based on, if it is a delta.
    merged: Option<Arc<Merged>>,
    /// The redo log and what it takes to read it, if the log is in frames of its own.
    redo: Option<Picks>,
}

impl Restorable {
    /// The backups that it is made of, the full one first.
    fn links(&self) -> &[Manifest] {
        match &self.merged {
            Some(merged) => &merged.links,
            None => std::slice::from_ref(&self.last),
        }
    }

    /// Whether a file of the chain is fetched with all others, and not before them.
    fn is_late(&self, path: &str) -> bool {
        self.redo.is_none() || path != REDO_LOG
    }

    /// The frames of a full backup that are fetched together, when its redo log came before them.
    fn late_frames(&self) -> Option<Vec<u32>> {
        self.redo.as_ref()?;
        let log = self.last.files.get(REDO_LOG)?;
        let own: BTreeSet<u32> = log.frame_numbers().collect();
        Some((0..self.last.frames.len() as u32).filter(|frame| !own.contains(frame)).collect())
    }

    fn plan(&self) -> RestorePlan {
        let (last, links) = (&self.last, self.links());
        let parents = links.iter().filter(|link| link.name != last.name);
        let before = self.redo.as_ref().map_or(0, |redo| redo.stored(last));
        let (stored, files, bytes) = match &self.merged {
            Some(merged) => (
                merged.fetched + merged.stored(|path| self.is_late(path)),
                merged.files.len(),
                merged.files.values().map(|file| file.size).sum(),
            ),
            None => {
                let frames = self.late_frames();
                let frames = frames.unwrap_or_else(|| (0..last.frames.len() as u32).collect());
                (last.stored_in(frames), last.files.len(), last.bytes)
            }
        };
        let stored_bytes = before + stored;
        RestorePlan {
            format: 1,
            name: last.name.to_string(),
            based_on: parents.map(|link| link.name.to_string()).collect(),
            ended: last.ended,
            stored_bytes,
            estimated_seconds: stored_bytes as f64 / USUAL_RATE,
            packs: links.iter().map(|link| link.packs.len()).sum(),
            files,
            bytes,
            redo_bytes: last.files.get(REDO_LOG).map_or(0, |file| file.size),
            corrupt_pages: last.corrupt_pages,
            server: last.origin(),
            end_lsn: last.lsn.end,
            gtid: last.gtid(),
        }
    }
}

impl Repository {
    /// What a restore of this selection would do.
    pub fn plan(&self, selection: &Selection, cancel: &Cancel) -> Result<RestorePlan> {
        Ok(self.restorable(selection, cancel)?.plan())
    }

    fn restorable(&self, selection: &Selection, cancel: &Cancel) -> Result<Restorable> {
        let last = self.select(selection, cancel)?;
        let chain = self.whole_chain(last.clone(), cancel)?;
        let merged = match chain.len() {
            0 | 1 => None,
            _ => Some(Arc::new(self.merged(chain, cancel)?)),
        };
        Ok(Restorable { redo: redo_alone(&last)?, last, merged })
    }

    /// A backup behind all that it is based on: each can be opened, and applied to the one before it.
    pub(super) fn whole_chain(&self, manifest: Manifest, cancel: &Cancel) -> Result<Vec<Manifest>> {
        let chain = self.chain(manifest, cancel)?;
        for link in &chain {
            self.opener(link)?;
        }
        for pair in chain.windows(2) {
            if let [parent, link] = pair
                && let Some(why) = parent::gap(parent, link)
            {
                return Err(Error::new(ErrorKind::Gap, format!("{}: {why}", link.name))
                    .advise("restore an earlier backup"));
            }
        }
        Ok(chain)
    }

    /// Unpacks a backup, or some frames of it, into a folder.
    fn unpack(
        &self,
        manifest: &Manifest,
        frames: Option<&[u32]>,
        to: (ExtractOptions, How<'_>),
        read: ReadOptions,
        (cancel, reporter): (&Cancel, &dyn Reporter),
    ) -> Result<Unpacked> {
        let reader = BackupReader::new(self, manifest.clone(), frames, read, cancel)?;
        let (failed, fetched) = (reader.failure(), reader.fetched());
        let dir = to.0.dir.clone();
        let unpacked =
            extract::unpack(to.1, Box::new(Parsed::new(Box::new(reader))), to.0, cancel, reporter);
        // The reader knows better why the stream ended than who was reading it.
        let (_, written) = unpacked.map_err(|error| failed.take().unwrap_or(error))?;
        check_complete(&dir, manifest.files.iter().map(|(path, file)| (path, file.size)))?;
        Ok(Unpacked { written, fetched: fetched.load(Ordering::Relaxed) })
    }

    /// The same with those files of a chain that are wanted.
    fn unpack_merged(
        &self,
        merged: &Arc<Merged>,
        wanted: impl Fn(&str) -> bool,
        to: (ExtractOptions, How<'_>),
        read: ReadOptions,
        (cancel, reporter): (&Cancel, &dyn Reporter),
    ) -> Result<Unpacked> {
        let stream = merged.stream(self, wanted, read, cancel)?;
        let (sizes, fetched) = (stream.sizes(), stream.fetched());
        let dir = to.0.dir.clone();
        let (_, written) = extract::unpack(to.1, Box::new(stream), to.0, cancel, reporter)?;
        check_complete(&dir, sizes.take().iter().map(|(path, size)| (path, *size)))?;
        Ok(Unpacked { written, fetched: merge::total(&fetched) })
    }

    /// Restores a backup. After a failure the data directory has a marker that keeps a server off.
    ///
    /// # Errors
    /// [`ErrorKind::Damage`] where what is stored is not what was written; nothing is restored from
    /// doubt.
    pub fn restore(
        &self,
        options: StoredRestoreOptions,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<StoredRestoreSummary> {
        let clock = Instant::now();
        let backup = self.restorable(&options.selection, cancel)?;
        let (plan, last) = (backup.plan(), &backup.last);
        if plan.corrupt_pages > 0 {
            reporter.warn(format!(
                "{} pages of this backup were corrupt at the server already: see the file {} of \
                 the backup",
                plan.corrupt_pages,
                names::CORRUPTED_PAGES
            ));
        }
        if !options.over {
            check_space(&options.restore.datadir, plan.bytes)?;
        }
        if options.over {
            for link in backup.links() {
                self.check_packs(link, cancel)?;
            }
        }
        let log_dir = options.restore.innodb_log_group_home_dir.as_deref();
        let owner = options.restore.owner;
        let stage = match options.over {
            true => {
                let files = match &backup.merged {
                    Some(merged) => merge::paths(merged),
                    None => last.files.keys().map(|path| local(path)).collect(),
                };
                Stage::over(&options.restore.datadir, &files)?
            }
            false => Stage::create(&options.restore.datadir, log_dir, owner)?,
        };
        let threads = options.restore.parallel.max(1);
        // What is read ahead shares the memory with the redo that waits for it.
        let deltas = plan.based_on.len() as u64;
        let enough = threads.max(2) as u64 * AHEAD + deltas * merge::DELTA_AHEAD;
        let ahead = (options.memory / 4).min(enough);
        let read = ReadOptions { threads: threads.max(2), memory: ahead };
        let prepare = PrepareOptions {
            dir: stage.dir(),
            deltas: Vec::new(),
            memory: options.memory - ahead,
            parallel: threads,
            keys: options.keys,
            export: false,
            leave_damaged_pages: None,
        };
        let mut stored_bytes = backup.merged.as_ref().map_or(0, |merged| merged.fetched);
        let mut redo = None;
        if let Some(picks) = &backup.redo {
            stored_bytes += self.fetch_redo(last, picks, &prepare, read, (cancel, reporter))?;
            redo = Ahead::collect(&prepare, plan.bytes, cancel, reporter)?;
            // It comes once more, with others.
            durable::remove_if_there(&stage.dir().join(names::BACKUP_MY_CNF))?;
        }
        let how = How {
            existing: if options.over { Existing::Update } else { Existing::Refuse },
            arrivals: redo.as_ref().map_or(&Unchanged as &dyn Arrivals, |redo| redo),
            disk: DirectWrites::from_afar(),
        };
        let to = (ExtractOptions { dir: stage.dir(), parallel: threads }, how);
        let unpacked = match &backup.merged {
            Some(merged) => {
                let wanted = |path: &str| backup.is_late(path);
                self.unpack_merged(merged, wanted, to, read, (cancel, reporter))?
            }
            None => {
                let frames = backup.late_frames();
                self.unpack(last, frames.as_deref(), to, read, (cancel, reporter))?
            }
        };
        stored_bytes += unpacked.fetched;
        let fetch_seconds = clock.elapsed().as_secs_f64();
        let prepared = match redo {
            Some(redo) => prepare::prepare_after(redo, prepare, cancel, reporter)?,
            None => prepare::prepare(prepare, cancel, reporter)?,
        };
        let placed = restore_staged(&stage, options.restore, cancel, reporter)?;
        Ok(StoredRestoreSummary {
            format: 1,
            name: plan.name,
            based_on: plan.based_on,
            server: plan.server,
            corrupt_pages: plan.corrupt_pages,
            ended: plan.ended,
            stored_bytes,
            files: placed.files,
            bytes: placed.bytes,
            rewritten_bytes: options.over.then_some(unpacked.written),
            redo_bytes: prepared.redo_bytes,
            pages_changed: prepared.pages_written,
            pages_on_arrival: prepared.pages_on_arrival,
            end_lsn: prepared.end_lsn,
            gtid: plan.gtid,
            tables: placed.tables,
            fetch_seconds,
            prepare_seconds: prepared.seconds,
            seconds: clock.elapsed().as_secs_f64(),
        })
    }

    /// Unpacks the redo log and what it takes to read it. Returns the bytes that were fetched.
    fn fetch_redo(
        &self,
        manifest: &Manifest,
        picks: &Picks,
        prepare: &PrepareOptions,
        read: ReadOptions,
        (cancel, reporter): (&Cancel, &dyn Reporter),
    ) -> Result<u64> {
        let frames = picks.frames();
        let reader = BackupReader::new(self, manifest.clone(), Some(&frames), read, cancel)?;
        let (failed, fetched) = (reader.failure(), reader.fetched());
        let picked = Picked::new(reader, picks.clone(), manifest.name.as_str());
        let unpack = ExtractOptions { dir: prepare.dir.clone(), parallel: prepare.parallel };
        // What a data directory that is restored over has of these is no use.
        for path in [REDO_LOG, names::BACKUP_MY_CNF] {
            durable::remove_if_there(&prepare.dir.join(path))?;
        }
        extract::extract(Box::new(picked), unpack, cancel, reporter)
            .map_err(|error| failed.take().unwrap_or(error))?;
        Ok(fetched.load(Ordering::Relaxed))
    }

    /// Writes a backup as a stream; returns its bytes. A delta is put together with what it is based
    /// on, unless its own stream is asked for with `link`.
    pub fn get_stream(
        &self,
        selection: &Selection,
        link: bool,
        read: ReadOptions,
        output: &mut dyn Write,
        cancel: &Cancel,
    ) -> Result<u64> {
        let mut written = 0;
        let mut write = |bytes: &[u8]| -> Result<()> {
            cancel.check()?;
            written += bytes.len() as u64;
            output.write_all(bytes).map_err(cannot_write)
        };
        let manifest = self.select(selection, cancel)?;
        if manifest.parent.is_some() && !link {
            let chain = self.whole_chain(manifest, cancel)?;
            let merged = Arc::new(self.merged(chain, cancel)?);
            let mut stream = merged.stream(self, |_| true, read, cancel)?;
            let mut chunks = Vec::new();
            loop {
                stream.next_chunks(&mut chunks)?;
                match chunks.as_slice() {
                    [] => break,
                    chunks => write(chunks)?,
                }
            }
        } else {
            let mut reader = BackupReader::new(self, manifest, None, read, cancel)?;
            while let Some(frame) = reader.next_frame()? {
                write(&frame)?;
            }
        }
        output.flush().map_err(cannot_write)?;
        Ok(written)
    }
}

/// The redo log of a backup and what it takes to read it; `None` when the log is not in frames of its own.
fn redo_alone(manifest: &Manifest) -> Result<Option<Picks>> {
    let Some(log) = manifest.files.get(REDO_LOG) else { return Ok(None) };
    let own: BTreeSet<u32> = log.frame_numbers().collect();
    let others = manifest.files.iter().filter(|(path, _)| *path != REDO_LOG);
    if others.flat_map(|(_, file)| file.frame_numbers()).any(|frame| own.contains(&frame)) {
        return Ok(None);
    }
    Picks::new(manifest, [REDO_LOG, names::BACKUP_MY_CNF]).map(Some)
}

/// What unpacking came to.
struct Unpacked {
    /// Bytes that were written into files.
    written: u64,
    /// Bytes that came from the store.
    fetched: u64,
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "cannot write the stream").caused_by(error)
}

/// That each file is there, as long as it should be.
pub(super) fn check_complete<'a>(
    dir: &Path,
    files: impl IntoIterator<Item = (&'a String, u64)>,
) -> Result<()> {
    for (path, size) in files {
        let name = path_from_text(path).unwrap_or_default();
        let found = std::fs::symlink_metadata(dir.join(OsStr::from_bytes(&name)));
        let found = found.ok().map(|metadata| metadata.len());
        if found != Some(size) {
            let found = found.map_or_else(|| "is missing".to_owned(), |len| format!("has {len}"));
            return Err(Error::new(
                ErrorKind::Damage,
                format!("the manifest has {path} with {size} bytes, the stream {found}"),
            ));
        }
    }
    Ok(())
}

/// Refuses to begin what would end with a full disk.
pub(super) fn check_space(datadir: &Path, bytes: u64) -> Result<()> {
    let existing = datadir.ancestors().find(|path| path.exists());
    let existing = existing.map_or_else(|| PathBuf::from("."), PathBuf::from);
    let Ok(room) = rustix::fs::statvfs(&existing) else { return Ok(()) };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if bytes <= free {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Usage,
        format!(
            "{} has {} MiB free, and the backup has {} MiB",
            existing.display(),
            free >> 20,
            bytes >> 20
        ),
    )
    .advise("make room, or restore to another directory"))
}
