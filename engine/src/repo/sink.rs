//! The sink of a backup into a repository: an xbstream, cut into frames between its chunks.
//!
//! Each file fills frames of its own, so that a single table can be fetched without the others;
//! what is left of it at its end joins the ends of others in a common frame. Chunks of one file
//! are in the order of its offsets, across frames too: a file's own frames are submitted before its
//! end joins the common one, and the common one is submitted before a file is replaced or removed.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use innodb::space::SpaceHeader;
use innodb::space::header::FLAGS;
use xbstream::writer::{self, PayloadTooLarge};
use xbstream::{RemoveTarget, StreamPath};

use super::manifest::{FileEntry, SpaceEntry, path_to_text};
use super::pipeline::Pipeline;
use crate::io::Pooled;
use crate::sink::{Mode, Sink, SinkFile};
use crate::{Error, ErrorKind, Result};

/// Bytes of a frame, at least, unless a file ends.
pub const FRAME_LEN: usize = 4 << 20;
/// What is left of a file gets a frame of its own when it is longer than this.
const OWN_FRAME: usize = 1 << 20;
/// Longest payload of a chunk, so that frames do not get much longer than they should.
const PAYLOAD: usize = 1 << 20;
/// How often a waiting thread looks whether the backup was given up.
const WAIT: Duration = Duration::from_millis(100);

/// The number of a frame, as soon as it has one.
type FrameNumber = Arc<OnceLock<u32>>;

/// Writes a backup into a repository.
pub struct RepoSink {
    shared: Arc<Shared>,
}

struct Shared {
    pipeline: Pipeline,
    common: Mutex<Common>,
    files: Mutex<BTreeMap<StreamPath, Entry>>,
}

/// The frame that takes the ends of files, and small files whole.
#[derive(Default)]
struct Common {
    bytes: Pooled,
    number: FrameNumber,
}

/// A file that is finished.
struct Entry {
    size: u64,
    frames: Vec<FrameNumber>,
    space: Option<SpaceEntry>,
    sparse: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RepoSink {
    /// Writes into `pipeline`.
    pub fn new(pipeline: Pipeline) -> Self {
        Self {
            shared: Arc::new(Shared {
                pipeline,
                common: Mutex::default(),
                files: Mutex::default(),
            }),
        }
    }

    /// Submits what has been held back.
    fn flush(&self) -> Result<()> {
        self.shared.flush(&mut lock(&self.shared.common))
    }

    /// Waits until everything is in the store; what is where.
    pub fn conclude(&self) -> Result<(super::pipeline::Packed, BTreeMap<String, FileEntry>)> {
        self.flush()?;
        let packed = self.shared.pipeline.conclude()?;
        let mut files = BTreeMap::new();
        for (path, entry) in lock(&self.shared.files).iter() {
            let mut frames: Vec<(u32, u32)> = Vec::new();
            for number in entry.frames.iter().filter_map(|number| number.get().copied()) {
                match frames.last_mut() {
                    Some((first, count)) if *first + *count == number => *count += 1,
                    _ => frames.push((number, 1)),
                }
            }
            let Entry { size, space, sparse, .. } = *entry;
            files.insert(path_to_text(path.as_bytes()), FileEntry { size, frames, space, sparse });
        }
        Ok((packed, files))
    }
}

impl Shared {
    fn flush(&self, common: &mut Common) -> Result<()> {
        if common.bytes.is_empty() {
            return Ok(());
        }
        let common = std::mem::replace(
            common,
            Common { bytes: self.pipeline.buffer(), number: FrameNumber::default() },
        );
        let number = self.pipeline.submit(common.bytes)?;
        let _ = common.number.set(number);
        Ok(())
    }

    /// Puts chunks into the common frame.
    fn join(&self, bytes: &[u8]) -> Result<FrameNumber> {
        let mut common = lock(&self.common);
        common.bytes.extend_from_slice(bytes);
        let number = Arc::clone(&common.number);
        if common.bytes.len() >= FRAME_LEN {
            self.flush(&mut common)?;
        }
        Ok(number)
    }
}

impl Sink for RepoSink {
    fn begin(&self, path: &StreamPath, mode: Mode) -> Result<Box<dyn SinkFile>> {
        if mode == Mode::Rewrite {
            self.flush()?;
        }
        Ok(Box::new(RepoFile {
            shared: Arc::clone(&self.shared),
            path: path.clone(),
            mode,
            state: Mutex::new(FileState {
                next: 0,
                size: 0,
                bytes: self.shared.pipeline.buffer(),
                frames: Vec::new(),
                space: None,
                sparse: false,
                given_up: false,
            }),
            advanced: Condvar::new(),
        }))
    }

    fn remove(&self, path: &StreamPath) -> Result<()> {
        let mut header = Vec::new();
        writer::remove(&mut header, &RemoveTarget::Exact(path.clone()));
        self.shared.join(&header)?;
        self.flush()?;
        lock(&self.shared.files).remove(path);
        Ok(())
    }

    fn takes_nested_paths(&self) -> bool {
        false
    }

    fn takes_any_order(&self) -> bool {
        false
    }

    fn rewrites_freely(&self) -> bool {
        false
    }

    fn abort(&self) {
        self.shared.pipeline.abort();
    }

    fn finish(&self) -> Result<()> {
        self.flush()
    }
}

struct RepoFile {
    shared: Arc<Shared>,
    path: StreamPath,
    mode: Mode,
    state: Mutex<FileState>,
    advanced: Condvar,
}

struct FileState {
    /// Offset of the piece whose turn it is.
    next: u64,
    size: u64,
    /// The frame that is being filled.
    bytes: Pooled,
    frames: Vec<FrameNumber>,
    space: Option<SpaceEntry>,
    sparse: bool,
    /// A piece could not be written, so the next one's turn never comes.
    given_up: bool,
}

fn too_large(error: PayloadTooLarge) -> Error {
    Error::new(ErrorKind::Failed, "cannot write the stream").caused_by(error)
}

impl RepoFile {
    fn payload(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let crc = crc32fast::hash(bytes);
        let mut state = lock(&self.state);
        while state.next != offset {
            if state.given_up || self.shared.pipeline.is_aborted() {
                return Err(self.shared.pipeline.failure());
            }
            state =
                self.advanced.wait_timeout(state, WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        if offset == 0 && state.size == 0 {
            state.space = self.space(bytes);
        }
        let written = self.append(&mut state, offset, bytes, crc);
        state.given_up |= written.is_err();
        self.advanced.notify_all();
        written
    }

    fn append(&self, state: &mut FileState, offset: u64, bytes: &[u8], crc: u32) -> Result<()> {
        let len = bytes.len() as u64;
        if state.bytes.capacity() == 0 && state.bytes.is_empty() {
            state.bytes.reserve(bytes.len() + 1024);
        }
        writer::payload_header(&mut state.bytes, &self.path, self.mode, offset, len, crc)
            .map_err(too_large)?;
        state.bytes.extend_from_slice(bytes);
        state.next = offset + len;
        state.size = state.size.max(state.next);
        if state.bytes.len() >= FRAME_LEN {
            self.submit(state)?;
        }
        Ok(())
    }

    fn submit(&self, state: &mut FileState) -> Result<()> {
        let bytes = std::mem::replace(&mut state.bytes, self.shared.pipeline.buffer());
        let number = self.shared.pipeline.submit(bytes)?;
        state.frames.push(Arc::new(OnceLock::from(number)));
        Ok(())
    }

    /// What the first page says, if this is a tablespace.
    fn space(&self, first: &[u8]) -> Option<SpaceEntry> {
        let name = self.path.file_name();
        let is_space = name.ends_with(b".ibd")
            || name.ends_with(b".new")
            || name.starts_with(b"undo")
            || name.starts_with(b"ibdata");
        let is_space = is_space && !name.ends_with(b".delta");
        let header = SpaceHeader::parse(first).ok().filter(|_| is_space)?;
        let page_size = u32::try_from(header.physical_size().bytes()).ok()?;
        let flags = first.get(FLAGS..).and_then(|bytes| bytes.first_chunk())?;
        Some(SpaceEntry { id: header.id.0, flags: u32::from_be_bytes(*flags), page_size })
    }
}

impl SinkFile for RepoFile {
    fn write(&self, mut offset: u64, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(PAYLOAD) {
            self.payload(offset, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    fn write_sparse(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        lock(&self.state).sparse = true;
        self.write(offset, bytes)
    }

    fn patch(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        {
            let mut state = lock(&self.state);
            writer::seek(&mut state.bytes, &self.path, self.mode, offset);
            state.next = offset;
        }
        self.write(offset, bytes)
    }

    fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if self.mode == Mode::Rewrite && state.size == 0 {
            // Only a payload says that the file is to be emptied.
            writer::payload_header(&mut state.bytes, &self.path, self.mode, 0, 0, 0)
                .map_err(too_large)?;
        }
        writer::end_of_file(&mut state.bytes, &self.path);
        // The redo log is fetched before everything else.
        if state.bytes.len() >= OWN_FRAME || self.path.as_bytes() == b"ib_logfile0" {
            self.submit(&mut state)?;
        } else {
            let number = self.shared.join(&state.bytes)?;
            state.frames.push(number);
            state.bytes = Pooled::default();
        }
        let entry = Entry {
            size: state.size,
            frames: std::mem::take(&mut state.frames),
            space: state.space,
            sparse: state.sparse,
        };
        lock(&self.shared.files).insert(self.path.clone(), entry);
        Ok(())
    }
}
