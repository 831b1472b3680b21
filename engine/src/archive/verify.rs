//! Proving that what the archive has is as it was stored.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Archive;
use super::gaps::Gap;
use super::part::Part;
use crate::repo::verify::VerifyOptions;
use crate::repo::{Repository, panicked};
use crate::{Cancel, ErrorKind, Result};

/// So many faults are named.
const FAULTS: usize = 100;

/// What was found about the binary logs.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct VerifiedLogs {
    /// Files that were looked at.
    pub files: usize,
    /// Objects that were read.
    pub objects: usize,
    /// Bytes that were read from the store.
    pub stored_bytes: u64,
    /// What is wrong.
    pub faults: Vec<String>,
    /// What is missing in between, or before.
    pub gaps: Vec<Gap>,
}

/// Reads the parts of the archive and compares hashes; a thorough look unpacks them, too, and compares
/// what was in the files, for which a sealed repository needs its key.
pub fn verify(
    repository: &Repository,
    options: &VerifyOptions,
    cancel: &Cancel,
) -> Result<VerifiedLogs> {
    let mut found = VerifiedLogs::default();
    let archive = match Archive::read(repository, cancel) {
        Ok(archive) => archive,
        // The first head that is damaged hides what is behind it.
        Err(error) if error.kind() == ErrorKind::Damage => {
            found.faults.push(error.to_string());
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let share = if options.deep { 1.0 } else { options.sample / 100.0 };
    let parts = archive.files().flat_map(|file| &file.parts);
    let parts: Vec<&Part> = parts.filter(|_| share >= 1.0 || fastrand::f64() < share).collect();
    found.files = archive.files().count();
    found.gaps = archive.gaps(cancel)?;
    found.objects = parts.len();
    found.stored_bytes = parts.iter().map(|part| part.stored).sum();
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    let look = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(index) else { return Ok(()) };
            match part.verify(repository, options.deep, cancel) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Damage => {
                    let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                    faults.push((index, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
    };
    let ends: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.read.threads.max(1)).map(|_| scope.spawn(look)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(panicked()))
        };
        threads.into_iter().map(join).collect()
    });
    ends.into_iter().collect::<Result<()>>()?;
    let mut faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    faults.sort_unstable();
    found.faults.extend(faults.into_iter().take(FAULTS).map(|(_, fault)| fault));
    Ok(found)
}
