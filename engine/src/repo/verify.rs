//! Proving that a backup is good, before anybody needs it.
//!
//! | check | needs | finds |
//! |---|---|---|
//! | always | a listing | packs that are missing, or have another size |
//! | always | the parent's manifest | deltas whose parent is gone, or ends elsewhere than they begin |
//! | hashes | all bytes (or a sample) | anything that changed in the store |
//! | deep | also the key | faults of the stream, files that are not whole, corrupt pages |

use std::collections::BTreeMap;
use std::time::Instant;

use innodb::page::{self, Verdict};
use innodb::space::SpaceFlags;
use innodb::{PageNo, SpaceId};
use xbstream::{Chunk, StreamReader, StreamState};

use super::catalog::Selection;
use super::layout::{MANIFEST, pack_name};
use super::manifest::{FileEntry, Manifest, frame_hash, path_to_text};
use super::parent;
use super::reader::{BackupReader, ReadOptions};
use super::{Repository, panicked};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

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
                    true => self.look_inside(manifest, options, &mut verified, cancel)?,
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
        verified: &mut Verified,
        cancel: &Cancel,
    ) -> Result<()> {
        verified.frames = manifest.frames.len();
        verified.stored_bytes = manifest.stored();
        let files = manifest.files.clone();
        let reader = BackupReader::new(self, manifest, None, options.read, cancel)?;
        let failed = reader.failure();
        let mut inside = Inside { files: &files, open: BTreeMap::new(), whole: BTreeMap::new() };
        if let Err(error) = inside.read(reader, verified, cancel) {
            let error = failed.take().unwrap_or(error);
            if error.kind() != ErrorKind::Damage {
                return Err(error);
            }
            verified.fault(error.to_string());
            return Ok(());
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
}

impl Verified {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
        }
    }
}

/// A backup that is read as a stream.
struct Inside<'a> {
    files: &'a BTreeMap<String, FileEntry>,
    /// The tablespaces that have begun.
    open: BTreeMap<String, Pages>,
    /// Files that have ended, and their sizes.
    whole: BTreeMap<String, u64>,
}

impl Inside<'_> {
    fn read(
        &mut self,
        reader: BackupReader,
        verified: &mut Verified,
        cancel: &Cancel,
    ) -> Result<()> {
        let damage = |error: xbstream::StreamError| {
            Error::new(ErrorKind::Damage, "the stream is damaged").caused_by(error)
        };
        let mut stream = StreamReader::new(reader);
        let mut state = StreamState::new();
        let mut buffer = vec![0; 256 << 10];
        while let Some(chunk) = stream.next_chunk().map_err(damage)? {
            cancel.check()?;
            let fault = |fault, stream: &StreamReader<BackupReader>| damage(stream.error(fault));
            match chunk {
                Chunk::Payload { path, offset, len, rewrite, .. } => {
                    state.payload(&path, offset, len, rewrite).map_err(|e| fault(e, &stream))?;
                    let name = path_to_text(path.as_bytes());
                    if offset == 0 {
                        self.whole.remove(&name);
                        let pages = self.files.get(&name).and_then(Pages::new);
                        self.open.remove(&name);
                        self.open.extend(pages.map(|pages| (name.clone(), pages)));
                    }
                    loop {
                        let read = stream.read_payload(&mut buffer).map_err(damage)?;
                        if read == 0 {
                            break;
                        }
                        if let Some(pages) = self.open.get_mut(&name) {
                            let bytes = buffer.get(..read).unwrap_or_default();
                            pages.check(bytes, &name, verified);
                        }
                    }
                }
                Chunk::End { path, rewrite } => {
                    let (_, len) = state.end(&path, rewrite).map_err(|e| fault(e, &stream))?;
                    let name = path_to_text(path.as_bytes());
                    self.open.remove(&name);
                    self.whole.insert(name, len);
                }
                Chunk::Seek { path, offset, rewrite } => {
                    state.seek(&path, offset, rewrite).map_err(|e| fault(e, &stream))?;
                    self.open.remove(&path_to_text(path.as_bytes()));
                }
                Chunk::Remove { target } => {
                    for path in state.remove(&target).map_err(|e| fault(e, &stream))? {
                        self.whole.remove(&path_to_text(path.as_bytes()));
                    }
                }
                Chunk::Ignorable { .. } => {}
                Chunk::Rename { from, to } => {
                    state.rename(&from, &to).map_err(|e| fault(e, &stream))?;
                    if let Some(size) = self.whole.remove(&path_to_text(from.as_bytes())) {
                        self.whole.insert(path_to_text(to.as_bytes()), size);
                    }
                }
            }
        }
        state.finish().map_err(|fault| damage(stream.error(fault)))
    }
}

/// The pages of a tablespace, as its bytes come.
struct Pages {
    flags: SpaceFlags,
    space: SpaceId,
    next: u32,
    /// The beginning of a page whose rest comes with the next chunk.
    part: Vec<u8>,
}

impl Pages {
    fn new(file: &FileEntry) -> Option<Self> {
        let space = file.space?;
        let flags = SpaceFlags::parse(space.flags).ok()?;
        Some(Self { flags, space: SpaceId(space.id), next: 0, part: Vec::new() })
    }

    fn check(&mut self, mut bytes: &[u8], name: &str, verified: &mut Verified) {
        let size = self.flags.physical_size().bytes();
        if !self.part.is_empty() {
            let (rest, behind) = bytes.split_at(bytes.len().min(size - self.part.len()));
            self.part.extend_from_slice(rest);
            bytes = behind;
            if self.part.len() == size {
                let page = std::mem::take(&mut self.part);
                self.page(&page, name, verified);
            }
        }
        let mut pages = bytes.chunks_exact(size);
        for page in &mut pages {
            self.page(page, name, verified);
        }
        self.part.extend_from_slice(pages.remainder());
    }

    fn page(&mut self, page: &[u8], name: &str, verified: &mut Verified) {
        let page_no = PageNo(self.next);
        self.next = self.next.saturating_add(1);
        verified.pages += 1;
        let size = self.flags.physical_size();
        // What stands in the doublewrite area are pages of other places.
        if self.space == SpaceId::SYSTEM && page::verify::is_doublewrite(page_no, size) {
            return;
        }
        if let Verdict::Damaged(damage) = page::verify(page, page_no, Some(self.space), &self.flags)
        {
            verified.fault(format!("{name}, page {page_no}: {damage}"));
        }
    }
}
