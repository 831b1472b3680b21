//! Proving that a backup is good, before anybody needs it.
//!
//! | check | needs | finds |
//! |---|---|---|
//! | always | a listing | packs that are missing, or have another size |
//! | always | the parent's manifest | deltas whose parent is gone, or ends elsewhere than they begin |
//! | hashes | all bytes (or a sample) | anything that changed in the store |
//! | deep | also the key | faults of the stream, files that are not whole, corrupt pages |
//! | deep | the same | pages of deltas that are out of order, or newer than their redo log |

use std::collections::BTreeMap;
use std::time::Instant;

use innodb::PageNo;

use super::catalog::Selection;
use super::contents::Part;
use super::inside::{DELTA, Inside, Spaces};
use super::layout::{Kind, MANIFEST, pack_name};
use super::manifest::{Manifest, frame_hash, path_to_text};
use super::parent;
use super::reader::{BackupReader, ReadOptions};
use super::{Repository, panicked};
use crate::delta::meta::Meta;
use crate::metadata::{BackupType, Checkpoints};
use crate::{Cancel, ErrorKind, Reporter, Result};

/// How thoroughly to look.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// Unpack and look at every page, for which a sealed repository needs its key.
    pub deep: bool,
    /// Look at this share of the bytes, from 0 to 100 per cent. Only without `deep`.
    pub sample: f64,
    /// How to read.
    pub read: ReadOptions,
}

/// What was found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct VerifySummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Backups that were looked at.
    pub backups: Vec<Verified>,
    /// Seconds from start to end.
    pub seconds: f64,
}

impl VerifySummary {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.backups.iter().all(|backup| backup.faults.is_empty())
    }
}

/// What was found about one backup.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verified {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub faults: Vec<String>,
    /// Frames that were read.
    pub frames: usize,
    /// Bytes that were read from the store.
    pub stored_bytes: u64,
    /// Pages that were checked.
    pub pages: u64,
}

/// So many faults of a backup are named.
const FAULTS: usize = 100;

impl Repository {
    /// Looks at a backup and what it is based on, or at all backups.
    ///
    /// # Errors
    /// Only when looking is impossible; what is wrong with backups is in the summary.
    pub fn verify(
        &self,
        selection: Option<&Selection>,
        options: &VerifyOptions,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<VerifySummary> {
        let clock = Instant::now();
        let mut backups = Vec::new();
        let mut names = Vec::new();
        match selection {
            Some(selection) => {
                let manifest = self.select(selection, cancel)?;
                let chain = self.chain(manifest, cancel)?;
                names.extend(chain.into_iter().map(|manifest| manifest.name));
            }
            None => {
                for listed in self.backups(cancel)? {
                    match listed.manifest {
                        Ok(_) => names.push(listed.name),
                        Err(why) => backups.push(Verified {
                            name: listed.name.to_string(),
                            faults: vec![why],
                            frames: 0,
                            stored_bytes: 0,
                            pages: 0,
                        }),
                    }
                }
            }
        }
        let mut spaces = Spaces::default();
        for name in names {
            cancel.check()?;
            reporter.info(format!("verifying {name}"));
            // One at a time: those of large backups are large.
            let manifest = self.manifest(&name, cancel)?;
            let mut verified = Verified {
                name: manifest.name.to_string(),
                faults: Vec::new(),
                frames: 0,
                stored_bytes: 0,
                pages: 0,
            };
            if manifest.corrupt_pages > 0 {
                let pages = manifest.corrupt_pages;
                verified.fault(format!("{pages} pages were corrupt at the server"));
            }
            let known = verified.faults.len();
            if let Some(fault) = self.broken_link(&manifest, cancel)? {
                verified.fault(fault);
            }
            let broken = verified.faults.len() > known;
            self.packs_are_there(&manifest, &mut verified, cancel)?;
            // What is not there is not read, too.
            if verified.faults.len() == known + usize::from(broken) {
                match options.deep {
                    true => {
                        self.look_inside(manifest, options, &mut spaces, &mut verified, cancel)?;
                    }
                    false => self.look_at_hashes(&manifest, options, &mut verified, cancel)?,
                }
            }
            backups.push(verified);
        }
        Ok(VerifySummary { format: 1, backups, seconds: clock.elapsed().as_secs_f64() })
    }

    /// Why a delta cannot be applied to its parent.
    fn broken_link(&self, manifest: &Manifest, cancel: &Cancel) -> Result<Option<String>> {
        let Some(name) = &manifest.parent else { return Ok(None) };
        match self.manifest(name, cancel) {
            Ok(parent) => Ok(parent::gap(&parent, manifest)),
            Err(error) if error.kind() == ErrorKind::NothingMatches => {
                Ok(Some(format!("its parent {name} is gone")))
            }
            Err(error) if error.kind() == ErrorKind::Damage => {
                Ok(Some(format!("its parent {name}: {error}")))
            }
            Err(error) => Err(error),
        }
    }

    fn packs_are_there(
        &self,
        manifest: &Manifest,
        verified: &mut Verified,
        cancel: &Cancel,
    ) -> Result<()> {
        let objects = self.store.list(&manifest.name.prefix(), cancel)?;
        let mut found: BTreeMap<&str, u64> =
            objects.iter().map(|object| (object.key.name(), object.len)).collect();
        found.remove(MANIFEST);
        for (number, size) in (0..).zip(&manifest.packs) {
            let name = pack_name(number, manifest.compression, manifest.seal.is_some());
            match found.remove(name.as_str()) {
                None => verified.fault(format!("{name} is missing")),
                Some(len) if len != *size => {
                    verified.fault(format!("{name} has {len} bytes instead of {size}"));
                }
                Some(_) => {}
            }
        }
        for name in found.keys() {
            verified.fault(format!("{name} does not belong to the backup"));
        }
        Ok(())
    }

    /// Fetches frames, each by itself or with its neighbours, and hashes them as they are.
    fn look_at_hashes(
        &self,
        manifest: &Manifest,
        options: &VerifyOptions,
        verified: &mut Verified,
        cancel: &Cancel,
    ) -> Result<()> {
        let share = (options.sample / 100.0).clamp(0.0, 1.0);
        let lucky = fastrand::u32(0..manifest.frames.len().max(1) as u32);
        let next = std::sync::atomic::AtomicU32::new(0);
        let found = std::sync::Mutex::new((Vec::new(), verified));
        let look = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(frame) = manifest.frames.get(number as usize) else { return Ok(()) };
                cancel.check()?;
                // At least one is looked at.
                if share < 1.0 && number != lucky && fastrand::f64() >= share {
                    continue;
                }
                let range = frame.offset..frame.offset + u64::from(frame.stored);
                let key = manifest.pack(frame.pack)?;
                let fault = match self.store.get(&key, Some(range), frame.stored.into(), cancel) {
                    Err(error) if error.kind() == ErrorKind::Damage => Some(error.to_string()),
                    Err(error) => return Err(error),
                    Ok(bytes) if frame_hash(&bytes) != frame.hash => Some(format!(
                        "{} at byte {}: frame {number} was changed",
                        key.name(),
                        frame.offset
                    )),
                    Ok(_) => None,
                };
                let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                found.1.frames += 1;
                found.1.stored_bytes += u64::from(frame.stored);
                found.0.extend(fault.map(|fault| (number, fault)));
            }
        };
        let ends: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..options.read.threads.max(1)).map(|_| scope.spawn(look)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
                .collect()
        });
        ends.into_iter().collect::<Result<()>>()?;
        let (mut faults, verified) =
            found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        faults.sort_unstable();
        faults.into_iter().for_each(|(_, fault)| verified.fault(fault));
        Ok(())
    }

    /// Reads the backup as a restore would, and checks every page.
    fn look_inside(
        &self,
        manifest: Manifest,
        options: &VerifyOptions,
        spaces: &mut Spaces,
        verified: &mut Verified,
        cancel: &Cancel,
    ) -> Result<()> {
        verified.frames = manifest.frames.len();
        verified.stored_bytes = manifest.stored();
        let damaged = |error: crate::Error, verified: &mut Verified| match error.kind() {
            ErrorKind::Damage => {
                verified.fault(error.to_string());
                Ok(())
            }
            _ => Err(error),
        };
        let metas = match self.look_at_texts(&manifest, verified, cancel) {
            Ok(metas) => metas,
            Err(error) => return damaged(error, verified),
        };
        if manifest.kind == Kind::Delta {
            match self.chain(manifest.clone(), cancel) {
                Ok(chain) => spaces.of_chain(&chain),
                // That a link is not what it should be was said, or will be of that link.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NothingMatches | ErrorKind::Damage) => {}
                Err(error) => return Err(error),
            }
        }
        let (files, lsn) = (manifest.files.clone(), manifest.lsn);
        let reader = BackupReader::new(self, manifest, None, options.read, cancel)?;
        let failed = reader.failure();
        let mut inside = Inside {
            files: &files,
            metas: &metas,
            lsn,
            spaces,
            open: BTreeMap::new(),
            whole: BTreeMap::new(),
        };
        if let Err(error) = inside.read(reader, verified, cancel) {
            return damaged(failed.take().unwrap_or(error), verified);
        }
        for (path, file) in &files {
            match inside.whole.get(path) {
                None => verified.fault(format!("{path} is not in the stream")),
                Some(size) if *size != file.size => {
                    verified.fault(format!("{path} has {size} bytes instead of {}", file.size));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Looks at what a backup says of itself, against the manifest. Returns what the pages in its
    /// `.delta` files are, and which page of its tablespace each file begins with.
    fn look_at_texts(
        &self,
        manifest: &Manifest,
        verified: &mut Verified,
        cancel: &Cancel,
    ) -> Result<BTreeMap<String, (Meta, PageNo)>> {
        let path = super::merged::checkpoints_of(manifest)?;
        let deltas: Vec<(&str, String)> = manifest
            .files
            .keys()
            .filter(|_| manifest.kind == Kind::Delta)
            .filter_map(|path| Some((path.as_str(), format!("{}.meta", path.strip_suffix(DELTA)?))))
            .collect();
        let mut paths = vec![path];
        for (delta, meta) in &deltas {
            match manifest.files.contains_key(meta) {
                true => paths.push(meta),
                false => verified.fault(format!("{delta} is there, but not {meta}")),
            }
        }
        let (texts, _) = self.contents(manifest, &paths, Part::All, cancel)?;
        let text = |path: &str| {
            String::from_utf8_lossy(texts.get(path).map_or(&[], Vec::as_slice)).into_owned()
        };
        match Checkpoints::parse(&text(path)) {
            Err(why) => verified.fault(format!("{path}: {why}")),
            Ok(own) => {
                let from = manifest.lsn.from.unwrap_or_default();
                let is_delta = own.backup_type == BackupType::Incremental;
                if (own.from_lsn.0, own.to_lsn.0, own.last_lsn.0, is_delta)
                    != (
                        from,
                        manifest.lsn.checkpoint,
                        manifest.lsn.end,
                        manifest.kind == Kind::Delta,
                    )
                {
                    verified.fault(format!(
                        "{path} says LSN {} to {}, {}; the manifest {from} to {}, {}",
                        own.from_lsn,
                        own.to_lsn,
                        own.last_lsn,
                        manifest.lsn.checkpoint,
                        manifest.lsn.end
                    ));
                }
            }
        }
        let mut metas = BTreeMap::new();
        let mut system = BTreeMap::new();
        if !deltas.is_empty() {
            let (settings, _) = self.settings(manifest, cancel)?;
            let mut first = 0;
            for file in settings.data_file_path.files() {
                let name = path_to_text(file.stored_name().as_os_str().as_encoded_bytes());
                let pages = file.size / settings.page_size.bytes() as u64;
                system.insert(format!("{name}{DELTA}"), PageNo(first));
                first = first.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
            }
        }
        for (delta, meta) in deltas.iter().filter(|(_, meta)| texts.contains_key(meta)) {
            match Meta::parse(&text(meta)) {
                Ok(meta) => {
                    let first = system.get(*delta).copied().unwrap_or_default();
                    metas.insert((*delta).to_owned(), (meta, first));
                }
                Err(why) => verified.fault(format!("{meta}: {why}")),
            }
        }
        Ok(metas)
    }
}

impl Verified {
    /// Takes note of what is wrong.
    pub(super) fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
        }
    }
}
