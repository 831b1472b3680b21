//! Copying a backup, with what it is based on, to another repository.
//!
//! Packs go as they are, each checked on its way; only the manifest is written anew, for the other
//! repository, and last. What the other repository has already is left alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::catalog::Selection;
use super::layout::{MANIFEST, damaged};
use super::manifest::{Manifest, Seal, frame_hash};
use super::seal::Sealer;
use super::{Repository, panicked};
use crate::store::{Body, Put, PutOptions};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// No pack is longer: those of ours have 64 MiB, and a frame more.
const PACK_MAX: u64 = 1 << 30;

/// What was copied.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CopySummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Backups that were copied, what others are based on first.
    pub copied: Vec<String>,
    /// Backups that were there already.
    pub there: Vec<String>,
    /// Bytes that were copied.
    pub bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
}

impl Repository {
    /// Copies a backup to `target`, which has to be sealed as this one is.
    pub fn copy(
        &self,
        selection: &Selection,
        target: &Self,
        threads: usize,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<CopySummary> {
        let clock = Instant::now();
        if self.config.id == target.config.id {
            return Err(Error::new(ErrorKind::Usage, "both are the same repository"));
        }
        if self.config.sealed != target.config.sealed {
            return Err(Error::new(
                ErrorKind::Usage,
                "one of the repositories is sealed, the other is not",
            )
            .advise("packs are copied as they are: create the other repository like this one"));
        }
        let mut summary = CopySummary {
            format: 1,
            copied: Vec::new(),
            there: Vec::new(),
            bytes: 0,
            seconds: 0.0,
        };
        // Asked for before anything is copied.
        self.master()?;
        target.master()?;
        let manifest = self.select(selection, cancel)?;
        for manifest in self.chain(manifest, cancel)? {
            let name = manifest.name.to_string();
            match target.manifest(&manifest.name, cancel) {
                Ok(_) => {
                    summary.there.push(name);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::NothingMatches => {}
                Err(error) => return Err(error.context("the other repository")),
            }
            reporter.info(format!("copying {name}"));
            summary.bytes += manifest.stored();
            self.copy_packs(&manifest, target, threads, cancel)?;
            self.copy_manifest(manifest, target, cancel)?;
            summary.copied.push(name);
        }
        summary.seconds = clock.elapsed().as_secs_f64();
        Ok(summary)
    }

    fn copy_packs(
        &self,
        manifest: &Manifest,
        target: &Self,
        threads: usize,
        cancel: &Cancel,
    ) -> Result<()> {
        let stop = cancel.child();
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(&size) = manifest.packs.get(number) else { return Ok(()) };
                stop.check()?;
                self.copy_pack(manifest, number as u32, size, target, &stop).inspect_err(|_| {
                    stop.cancel();
                })?;
            }
        };
        let ends: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
                .collect()
        });
        let errors = ends.into_iter().filter_map(Result::err);
        // Those who were told to stop say less than who told them.
        match errors.min_by_key(|error| error.kind() == ErrorKind::Interrupted) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn copy_pack(
        &self,
        manifest: &Manifest,
        number: u32,
        size: u64,
        target: &Self,
        cancel: &Cancel,
    ) -> Result<()> {
        let key = manifest.pack(number)?;
        let pack = self.store.get(&key, None, size.min(PACK_MAX), cancel)?;
        if pack.len() as u64 != size {
            return Err(damaged(&key, format!("it has {} bytes instead of {size}", pack.len())));
        }
        for frame in manifest.frames.iter().filter(|frame| frame.pack == number) {
            let at = usize::try_from(frame.offset).unwrap_or(usize::MAX);
            let stored = pack.get(at..at.saturating_add(frame.stored as usize));
            if stored.is_none_or(|stored| frame_hash(stored) != frame.hash) {
                return Err(damaged(&key, format!("what is at byte {} was changed", frame.offset)));
            }
        }
        // A pack of this name that is there is one of a copy that was killed.
        let options = PutOptions { is_hashed_elsewhere: true, ..PutOptions::default() };
        let _ = target.store.put(&key, Body::from(pack), &options, cancel)?;
        Ok(())
    }

    fn copy_manifest(&self, manifest: Manifest, target: &Self, cancel: &Cancel) -> Result<()> {
        let mut sealer = None;
        let mut seal = None;
        if let (Some(old), Some(ours), Some(theirs)) =
            (&manifest.seal, self.master()?, target.master()?)
        {
            let data_key = self.data_key(&manifest, old, ours)?;
            let context = Manifest::wrap_context(&target.config.id, &manifest.name);
            let data_key_of_theirs = theirs.wrap(&data_key, &context)?;
            seal = Some(Seal { cipher: old.cipher.clone(), data_key: data_key_of_theirs });
            sealer = Some(Sealer::new(&data_key, manifest.name.as_str())?);
        }
        let repository = target.config.id.clone();
        let manifest = Manifest { repository, seal, ..manifest };
        target.check_packs(&manifest, cancel)?;
        let key = manifest.name.object(MANIFEST)?;
        let text = manifest.to_text(sealer.as_ref())?;
        let options = PutOptions { only_if_absent: true, ..PutOptions::default() };
        match target.store.put(&key, text.into(), &options, cancel)? {
            Put::Stored => Ok(()),
            Put::AlreadyThere => Err(Error::new(
                ErrorKind::Store,
                format!("{key}: somebody else copied it at the same time"),
            )),
        }
    }
}
