//! Taking a backup into a repository.

use std::sync::Arc;
use std::time::Instant;

use super::Repository;
use super::compression::Compression;
use super::layout::{BackupName, Kind, MANIFEST};
use super::manifest::{FORMAT, Manifest, Seal};
use super::parent::Basis;
use super::pipeline::{Pipeline, PipelineOptions};
use super::seal::{Sealer, Secret};
use super::sink::{FRAME_LEN, RepoSink};
use crate::capture::{self, BackupOptions, BackupSummary, Target};
use crate::metadata::haulout_info::ServerIdentity;
use crate::server::profile::ServerProfile;
use crate::server::session::Session;
use crate::server::{ConnectOptions, lsn};
use crate::store::{Put, PutOptions};
use crate::{Cancel, Error, ErrorKind, Lsn, Reporter, Result};

/// Size of packs: one request each, and small enough for several in memory.
pub const PACK_SIZE: usize = 64 << 20;
/// Memory that is used unless told otherwise.
pub const MEMORY: u64 = 512 << 20;
/// More requests at a time than these help nobody.
const UPLOADS_MAX: usize = 8;

/// How a backup is stored.
#[derive(Clone, Debug)]
pub struct StoreBackupOptions {
    /// How frames are compressed.
    pub compression: Compression,
    /// Threads that compress, at least 1.
    pub threads: usize,
    /// Memory for frames and packs on their way, in bytes.
    pub memory: u64,
    /// Whether another server than that of the latest backup may write here.
    pub accept_new_server: bool,
    /// What it is based on.
    pub basis: Basis,
}

/// A backup that is in the repository.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StoredBackup {
    /// Its name.
    pub name: String,
    /// Full or delta.
    pub kind: Kind,
    /// What a delta is based on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: usize,
    /// Seconds from start to end, the last object included.
    pub total_seconds: f64,
    /// What was copied from the server.
    #[serde(flatten)]
    pub backup: BackupSummary,
}

impl Repository {
    /// Takes a backup of what `options` says, whose target is of no account.
    ///
    /// # Errors
    /// As [`capture::backup`], and [`ErrorKind::Store`]. Nothing is in the repository then that
    /// anybody takes for a backup.
    pub fn backup(
        &self,
        mut options: BackupOptions,
        storing: &StoreBackupOptions,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<StoredBackup> {
        let clock = Instant::now();
        // Asked before anything is copied.
        let (server, now) = ask(&options.connect, cancel)?;
        let accept = storing.accept_new_server;
        self.admit(&server, accept, cancel, Some(reporter))?;
        let parent = self.parent(&storing.basis, (&server, now), cancel, reporter)?;
        let kind = if parent.is_some() { Kind::Delta } else { Kind::Full };
        options.base = parent.as_ref().map(|parent| parent.base);
        let parent = parent.map(|parent| parent.name);
        if let Some(parent) = &parent {
            reporter.info(format!("a delta of {parent}"));
        }
        let began = jiff::Timestamp::now();
        let name = BackupName::new(began, kind)?;
        let (seal, sealers) = match self.master()? {
            Some(master) => {
                let data_key = Secret::random()?;
                let context = Manifest::wrap_context(&self.config.id, &name);
                let wrapped = master.wrap(&data_key, &context)?;
                let sealer = || Sealer::new(&data_key, name.as_str());
                let seal = Seal { cipher: "AES-256-GCM".to_owned(), data_key: wrapped };
                (Some(seal), Some((sealer()?, sealer()?)))
            }
            None => (None, None),
        };
        let (for_frames, for_manifest) = sealers.unzip();
        let pipeline = storing.pipeline()?;
        let pipeline =
            Pipeline::start(Arc::clone(&self.store), &name, &pipeline, for_frames, cancel)?;
        let sink = Arc::new(RepoSink::new(pipeline));
        options.target = Target::Sink(sink.clone());
        let (summary, details) = capture::backup_in_detail(options, cancel, reporter)?;
        let (packed, files) = sink.conclude()?;
        // Another one may have finished meanwhile.
        let sequence = self.admit(&details.server, accept, cancel, None)?;
        let manifest = Manifest {
            format: FORMAT,
            sequence,
            repository: self.config.id.clone(),
            kind: name.kind(),
            parent,
            began,
            ended: jiff::Timestamp::now(),
            tool: format!("haulout {}", env!("CARGO_PKG_VERSION")),
            server: details.server,
            lsn: details.lsn,
            replication: details.replication,
            locks: details.locks,
            corrupt_pages: details.corrupt_pages,
            bytes: files.values().map(|file| file.size).sum(),
            compression: storing.compression,
            seal,
            packs: packed.packs,
            frames: packed.frames,
            files,
            name,
        };
        self.check_packs(&manifest, cancel)?;
        if let Some(parent) = &manifest.parent {
            // It may have expired meanwhile.
            self.head(parent, cancel).map_err(|error| error.context("the parent is gone"))?;
        }
        let text = manifest.to_text(for_manifest.as_ref())?;
        let options = PutOptions { only_if_absent: true, ..PutOptions::default() };
        let key = manifest.name.object(MANIFEST)?;
        match self.store.put(&key, text.into(), &options, cancel)? {
            Put::Stored => {}
            Put::AlreadyThere => {
                return Err(Error::new(
                    ErrorKind::Store,
                    format!("{key} is there already, and is not ours"),
                ));
            }
        }
        Ok(StoredBackup {
            name: manifest.name.to_string(),
            kind: manifest.kind,
            parent: manifest.parent.as_ref().map(ToString::to_string),
            stored_bytes: manifest.stored(),
            packs: manifest.packs.len(),
            total_seconds: clock.elapsed().as_secs_f64(),
            backup: summary,
        })
    }
}

/// Which server this is, and where its redo log is.
fn ask(connect: &ConnectOptions, cancel: &Cancel) -> Result<(ServerIdentity, Lsn)> {
    let mut session = Session::connect(connect, cancel)?;
    let profile = ServerProfile::read(&mut session)?;
    let now = lsn::current_lsn(&mut session)?;
    session.close();
    Ok((ServerIdentity::from(&profile), now))
}

impl Repository {
    /// That every pack is in the store, as long as it should be: right before the manifest says so.
    pub(super) fn check_packs(&self, manifest: &Manifest, cancel: &Cancel) -> Result<()> {
        let objects = self.store.list(&manifest.name.prefix(), cancel)?;
        for (number, size) in (0..).zip(&manifest.packs) {
            let key = manifest.pack(number)?;
            let found = objects.iter().find(|object| object.key == key);
            if found.map(|object| object.len) != Some(*size) {
                return Err(Error::new(
                    ErrorKind::Store,
                    format!("{key} is not in the store any more, or has another size"),
                )
                .advise("look for an expire that ran at the same time with a wrong clock"));
            }
        }
        Ok(())
    }
}

impl StoreBackupOptions {
    /// Divides the memory: frames on their way first, the rest for packs.
    fn pipeline(&self) -> Result<PipelineOptions> {
        let threads = self.threads.max(1);
        // Each thread has a frame and its compressed form, and as many wait before and behind;
        // a few files are open at a time.
        let frames = (4 * threads + 8) * (FRAME_LEN + FRAME_LEN / 4);
        let memory = usize::try_from(self.memory).unwrap_or(usize::MAX);
        let packs = memory.saturating_sub(frames);
        // One is being filled and one waits.
        let pack_size = PACK_SIZE.min(packs / 3);
        if pack_size < FRAME_LEN {
            let least = frames + 3 * FRAME_LEN;
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{threads} threads need at least {} MiB of memory", (least >> 20) + 1),
            ));
        }
        let uploads = (packs / pack_size - 2).clamp(1, UPLOADS_MAX);
        let compression = self.compression;
        Ok(PipelineOptions { compression, threads, pack_size, uploads })
    }
}
