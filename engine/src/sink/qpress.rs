//! A backup whose files are compressed one by one ([`crate::qpress`]), in any other sink.
//!
//! Pieces of a file are taken in the order of their offsets, as in a stream, cut into blocks, and
//! compressed by the thread that brings them. Texts about the backup stay as they are: whoever looks
//! for a backup finds them, and they are small.
//!
//! The first block of a log of Aria is stored, not compressed: its header may be patched later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Mode, Sink, SinkFile, StreamPath, aborted, backup_path};
use crate::metadata::names;
use crate::qpress::{EXTENSION, archive};
use crate::{Error, ErrorKind, Result};

/// How often a waiting thread looks whether the backup was given up.
const WAIT: Duration = Duration::from_millis(100);

/// Endings of small files by which a prepare is told something.
const MARKERS: [&[u8]; 3] = [b".meta", b".del", b".ren"];

/// Compresses on the way into another sink.
pub struct QpressSink {
    inner: Arc<dyn Sink>,
    block_size: usize,
    aborted: Arc<AtomicBool>,
}

impl QpressSink {
    /// Compresses in blocks that hold `block_size` bytes.
    pub fn new(inner: Arc<dyn Sink>, block_size: usize) -> Self {
        Self { inner, block_size, aborted: Arc::default() }
    }
}

/// Whether a file keeps its name and its bytes.
fn stays(path: &StreamPath) -> bool {
    let metadata = std::str::from_utf8(path.as_bytes()).is_ok_and(names::is_metadata);
    metadata || MARKERS.iter().any(|marker| path.file_name().ends_with(marker))
}

fn packed(path: &StreamPath) -> Result<StreamPath> {
    backup_path([path.as_bytes(), b".", EXTENSION.as_bytes()].concat())
}

impl Sink for QpressSink {
    fn begin(&self, path: &StreamPath, mode: Mode) -> Result<Box<dyn SinkFile>> {
        if stays(path) {
            return self.inner.begin(path, mode);
        }
        let inner = self.inner.begin(&packed(path)?, mode)?;
        let front = archive::front(self.block_size, path.file_name());
        inner.write(0, &front)?;
        Ok(Box::new(QpressFile {
            inner,
            block_size: self.block_size,
            aborted: Arc::clone(&self.aborted),
            state: Mutex::new(State {
                next: 0,
                pending: Vec::new(),
                front: front.len() as u64,
                written: front.len() as u64,
                block: Vec::new(),
                patchable: path.file_name().starts_with(b"aria_log."),
                first: None,
                patched: false,
            }),
            advanced: Condvar::new(),
        }))
    }

    fn remove(&self, path: &StreamPath) -> Result<()> {
        if stays(path) {
            return self.inner.remove(path);
        }
        self.inner.remove(&packed(path)?)
    }

    fn takes_nested_paths(&self) -> bool {
        self.inner.takes_nested_paths()
    }

    fn takes_any_order(&self) -> bool {
        false
    }

    fn rewrites_freely(&self) -> bool {
        self.inner.rewrites_freely()
    }

    fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.inner.abort();
    }

    fn finish(&self) -> Result<()> {
        self.inner.finish()
    }
}

struct QpressFile {
    inner: Box<dyn SinkFile>,
    block_size: usize,
    aborted: Arc<AtomicBool>,
    state: Mutex<State>,
    advanced: Condvar,
}

struct State {
    /// Offset of the piece whose turn it is.
    next: u64,
    /// What does not fill a block yet.
    pending: Vec<u8>,
    /// Bytes of the archive before its first block.
    front: u64,
    /// Bytes of the archive so far.
    written: u64,
    /// A block on its way, kept for its memory.
    block: Vec<u8>,
    /// Whether the first block is stored.
    patchable: bool,
    /// The first block, stored, and where in it the file begins.
    first: Option<(Vec<u8>, usize)>,
    /// Whether it was changed since.
    patched: bool,
}

impl QpressFile {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes `bytes`, which belong at `at` of the file, as one block.
    fn block(&self, state: &mut State, at: u64, bytes: &[u8]) -> Result<()> {
        state.block.clear();
        if state.patchable && at == 0 {
            let begin = archive::store(at, bytes, &mut state.block);
            state.first = Some((state.block.clone(), begin));
        } else {
            archive::pack(at, bytes, &mut state.block);
        }
        self.inner.write(state.written, &state.block)?;
        state.written += state.block.len() as u64;
        Ok(())
    }
}

impl SinkFile for QpressFile {
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.lock();
        while state.next != offset {
            if self.aborted.load(Ordering::Relaxed) {
                return Err(aborted());
            }
            state =
                self.advanced.wait_timeout(state, WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let begin = state.next - state.pending.len() as u64;
            let missing = self.block_size - state.pending.len();
            let (piece, more) = rest.split_at(missing.min(rest.len()));
            if state.pending.is_empty() && piece.len() == self.block_size {
                self.block(&mut state, begin, piece)?;
            } else {
                state.pending.extend_from_slice(piece);
                if state.pending.len() == self.block_size {
                    let block = std::mem::take(&mut state.pending);
                    self.block(&mut state, begin, &block)?;
                }
            }
            state.next += piece.len() as u64;
            rest = more;
        }
        drop(state);
        self.advanced.notify_all();
        Ok(())
    }

    fn patch(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.lock();
        let State { next, pending, first, .. } = &mut *state;
        let begin = *next - pending.len() as u64;
        let place = |from: u64| {
            let at = usize::try_from(offset.checked_sub(from)?).ok()?;
            Some(at..at.checked_add(bytes.len())?)
        };
        if let Some(place) = place(begin).and_then(|place| pending.get_mut(place)) {
            place.copy_from_slice(bytes);
            return Ok(());
        }
        let patched = first.as_mut().and_then(|(block, start)| {
            let at = usize::try_from(offset).ok()?.checked_add(*start)?;
            block.get_mut(at..at.checked_add(bytes.len())?)?.copy_from_slice(bytes);
            archive::seal(block);
            Some(true)
        });
        if patched.is_none() {
            let message = "a file that was compressed already cannot be changed";
            return Err(Error::new(ErrorKind::Failed, message));
        }
        // Goes out last: what is behind it in a stream cannot be written any more.
        state.patched = true;
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let mut state = self.lock();
        let pending = std::mem::take(&mut state.pending);
        if !pending.is_empty() {
            let begin = state.next - pending.len() as u64;
            self.block(&mut state, begin, &pending)?;
        }
        self.inner.write(state.written, &archive::end())?;
        if let (true, Some((block, _))) = (state.patched, &state.first) {
            self.inner.patch(state.front, block)?;
        }
        self.inner.finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::extract::{ExtractOptions, extract};
    use crate::qpress::{UnpackOptions, unpack};
    use crate::report::Silent;
    use crate::sink::{FolderSink, StreamSink, write_file};
    use std::path::Path;

    /// A table in pieces that come too early, a log of Aria that is patched, texts.
    fn fill(sink: &QpressSink) -> Result<()> {
        let path = |name: &str| backup_path(name).unwrap();
        let table = sink.begin(&path("d/t.ibd"), Mode::Create)?;
        std::thread::scope(|scope| {
            let late = scope.spawn(|| table.write(3000, &[2; 3001]));
            table.write(0, &[1; 3000])?;
            late.join().unwrap()
        })?;
        table.finish()?;
        for (name, length) in [("aria_log.00000001", 5000), ("aria_log.00000002", 100)] {
            let log = sink.begin(&path(name), Mode::Create)?;
            log.write(0, &vec![3; length])?;
            log.patch(0, b"patched")?;
            log.finish()?;
        }
        write_file(sink, &path("d/empty.MYD"), Mode::Create, b"")?;
        write_file(sink, &path("d/t.ibd.meta"), Mode::Create, b"meta")?;
        write_file(sink, &path("ib_logfile0"), Mode::Create, b"redo")?;
        write_file(sink, &path("backup-my.cnf"), Mode::Create, b"settings")
    }

    fn check(dir: &Path) {
        assert!(!dir.join("d/t.ibd").exists() && dir.join("d/t.ibd.meta").exists());
        assert!(crate::qpress::refuse_packed(dir).is_err());
        let options = UnpackOptions { dir: dir.to_owned(), parallel: 3, remove_packed: true };
        assert_eq!(unpack(options, &crate::Cancel::new(), &Silent).unwrap().files, 5);
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
        assert!(read("d/t.ibd") == [vec![1; 3000], vec![2; 3001]].concat());
        for (name, length) in [("aria_log.00000001", 5000), ("aria_log.00000002", 100)] {
            assert!(read(name) == [&b"patched"[..], &vec![3; length - 7]].concat(), "{name}");
        }
        assert_eq!((read("d/empty.MYD"), read("ib_logfile0")), (vec![], b"redo".to_vec()));
        assert_eq!(read("backup-my.cnf"), b"settings");
        assert!(!dir.join("d/t.ibd.qp").exists());
        assert!(crate::qpress::refuse_packed(dir).is_ok());
    }

    #[test]
    fn a_folder_and_a_stream_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fill(&QpressSink::new(Arc::new(FolderSink::create(&folder).unwrap()), 1024)).unwrap();
        check(&folder);

        let stream = dir.path().join("stream");
        let output = Box::new(std::fs::File::create(&stream).unwrap());
        fill(&QpressSink::new(Arc::new(StreamSink::new(output)), 1024)).unwrap();
        let target = dir.path().join("unpacked");
        let options = ExtractOptions { dir: target.clone(), parallel: 1 };
        let input = Box::new(std::fs::File::open(&stream).unwrap());
        extract(input, options, &crate::Cancel::new(), &Silent).unwrap();
        check(&target);
    }

    #[test]
    fn what_was_compressed_cannot_be_patched() {
        let dir = tempfile::tempdir().unwrap();
        let sink =
            QpressSink::new(Arc::new(FolderSink::create(&dir.path().join("b")).unwrap()), 1024);
        let file = sink.begin(&backup_path("t").unwrap(), Mode::Create).unwrap();
        file.write(0, &[1; 2000]).unwrap();
        assert!(file.patch(0, b"x").is_err());
        sink.abort();
        assert!(file.write(5000, b"x").is_err());
    }
}
