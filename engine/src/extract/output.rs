//! A file being written, by several threads at once.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use xbstream::StreamPath;

use super::Arrivals;
use super::target::{NO_SPACE_ADVICE, Target};
use super::update::update;
use super::{lock, sparse};
use crate::io::direct::NewFile;
use crate::io::holes;
use crate::{Error, Result};

/// A file of the stream. It is created by the first thread that has something to write, so that
/// creating many small files does not hold up the stream.
pub struct Output {
    path: StreamPath,
    file: OnceLock<Open>,
    creating: Mutex<()>,
    sparse: AtomicBool,
    /// What [`Arrivals`] knows it by, if it takes an interest.
    number: OnceLock<usize>,
}

/// How a file is written.
enum Open {
    New(NewFile),
    /// One that may have existed.
    Update(File),
}

impl Output {
    /// A file that does not exist yet, or is to be updated.
    pub fn new(path: StreamPath) -> Self {
        Self {
            path,
            file: OnceLock::new(),
            creating: Mutex::new(()),
            sparse: AtomicBool::new(false),
            number: OnceLock::new(),
        }
    }

    /// Looks at the first bytes of the file, to know whether it has holes and who takes an
    /// interest in it. To be called before the first [`write`](Self::write).
    pub fn inspect(&self, start: &[u8], arrivals: &dyn Arrivals) {
        self.sparse.store(sparse::is_page_compressed(&self.path, start), Ordering::Relaxed);
        if let Some(number) = arrivals.begin(&self.path, start) {
            let _ = self.number.set(number);
        }
    }

    /// What [`Arrivals`] gave it.
    pub fn number(&self) -> Option<usize> {
        self.number.get().copied()
    }

    /// Whether blocks of zeros are left out, so that the length must be set at the end.
    pub fn is_sparse(&self) -> bool {
        self.sparse.load(Ordering::Relaxed)
    }

    /// Writes `bytes` at `offset`.
    pub fn write(&self, target: &Target, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = match self.file(target)? {
            Open::New(file) => file,
            Open::Update(file) => {
                let written = update(file, offset, bytes);
                let written = written.map_err(|cause| self.cannot("write", target, cause))?;
                target.note_written(written);
                return Ok(());
            }
        };
        if target.updates() {
            target.note_written(bytes.len() as u64);
        }
        let written = if self.is_sparse() {
            holes::runs(offset, bytes)
                .into_iter()
                .try_for_each(|(at, run)| file.write_all_at(run, at))
        } else {
            file.write_all_at(bytes, offset)
        };
        written.map_err(|cause| self.cannot("write", target, cause))
    }

    /// Creates the file if nothing was written, and sets its length where the writes do not.
    pub fn finish(&self, target: &Target, set_len: Option<u64>) -> Result<()> {
        let file = self.file(target)?;
        match set_len {
            None => Ok(()),
            Some(len) => match file {
                Open::New(file) => file.set_len(len),
                Open::Update(file) => file.set_len(len),
            }
            .map_err(|cause| self.cannot("extend", target, cause)),
        }
    }

    fn file(&self, target: &Target) -> Result<&Open> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let _creating = lock(&self.creating);
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let new = || -> Result<Open> {
            Ok(Open::New(NewFile::new(target.create(&self.path)?, target.disk())))
        };
        let file = match (target.updates(), self.is_sparse()) {
            (false, _) => new()?,
            (true, false) => Open::Update(target.open_or_create(&self.path)?),
            // Its holes have to be holes again.
            (true, true) => {
                target.clear(&self.path)?;
                new()?
            }
        };
        Ok(self.file.get_or_init(|| file))
    }

    fn cannot(&self, doing: &str, target: &Target, cause: std::io::Error) -> Error {
        let full = cause.kind() == std::io::ErrorKind::StorageFull;
        let error = Error::io(doing, target.display(&self.path), cause);
        if full { error.advise(NO_SPACE_ADVICE) } else { error }
    }
}
