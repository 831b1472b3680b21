//! A chain as the stream of one full backup: pages of the newest link that has them.
//!
//! Every link is read from its beginning to its end, once, all at the same time; pages of `.delta`
//! files ascend, as those of a tablespace do, so putting them together takes a few frames of each
//! link and nothing on disk. Files come in about the order that the full backup has them in.
//!
//! A page of a delta is checked before it goes out. Frames of files that the last link does not have
//! any more are not fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use xbstream::chunk::letter;
use xbstream::writer::{self, Mode};
use xbstream::{Chunk, Fault, StreamPath};

use super::Repository;
use super::assembly::{Place, Putting, System};
use super::cursor::{Chunks, LinkReader, to_fetch};
use super::manifest::path_from_text;
use super::merged::{Merged, MergedFile, Source};
use super::reader::ReadOptions;
use super::sink::FRAME_LEN;
use crate::extract::feed::{Feed, Part};
use crate::io::Pieces;
use crate::{Cancel, Error, ErrorKind, Result};

/// Payload of a chunk, about.
const PAYLOAD: usize = 1 << 20;
/// What is read ahead of a delta at most, in bytes.
pub(super) const DELTA_AHEAD: u64 = 4 * FRAME_LEN as u64;

impl Merged {
    /// Frames of each link, in the order in which these files use them.
    fn order(&self, files: &[(&String, &MergedFile)]) -> Vec<Vec<u32>> {
        let mut order = vec![Vec::new(); self.links.len()];
        for (_, file) in files {
            for (number, path) in file.source.parts() {
                if let (Some(order), Some(link)) = (order.get_mut(number), self.links.get(number)) {
                    let file = link.files.get(path);
                    order.extend(file.into_iter().flat_map(|file| file.frame_numbers()));
                }
            }
        }
        order
    }

    /// Files in the order in which they are put together: those of the system tablespace, each of
    /// which goes on where the one before ends, then as the full backup and then the others have them.
    fn sorted(&self, wanted: impl Fn(&str) -> bool) -> Vec<(&String, &MergedFile)> {
        let mut files: Vec<_> = self.files.iter().filter(|(path, _)| wanted(path)).collect();
        let end = |number: usize, path: &str| {
            let file = self.links.get(number).and_then(|link| link.files.get(path));
            file.and_then(|file| file.frame_numbers().last())
        };
        files.sort_by_cached_key(|(path, file)| {
            let system = self.system.iter().position(|system| system == *path);
            let parts = file.source.parts();
            let oldest = parts.iter().min().map(|(number, path)| (*number, end(*number, path)));
            (system.is_none(), system, oldest.is_none(), oldest)
        });
        files
    }

    /// Bytes to fetch for some of the files.
    pub fn stored(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let order = self.order(&self.sorted(wanted));
        let links = self.links.iter().zip(&order);
        links.map(|(link, order)| link.stored_in(to_fetch(order))).sum()
    }

    /// The stream of some of the files.
    pub fn stream(
        self: &Arc<Self>,
        repository: &Repository,
        wanted: impl Fn(&str) -> bool,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<MergedStream> {
        let files = self.sorted(wanted);
        let order = self.order(&files);
        let deltas = self.links.len().saturating_sub(1) as u64;
        let each = DELTA_AHEAD.min(options.memory / (2 * deltas.max(1)));
        let mut links = Vec::new();
        for (number, (manifest, order)) in self.links.iter().zip(&order).enumerate() {
            // What is not in the full backup is little, and memory that is used again costs less.
            let options = match number {
                0 => ReadOptions { memory: options.memory - deltas * each, ..options },
                _ => ReadOptions { threads: 1, memory: each },
            };
            links.push(LinkReader::new(repository, manifest, order, options, cancel)?);
        }
        let mut queue = Vec::new();
        for (path, file) in files {
            let name = path_from_text(path).unwrap_or_default();
            let name = StreamPath::new(name.as_slice()).map_err(|error| {
                let message = format!("{path} cannot be the name of a file of a backup");
                Error::new(ErrorKind::Damage, message).caused_by(error)
            })?;
            queue.push((name, path.clone(), file.source.clone()));
        }
        Ok(MergedStream {
            merged: Arc::clone(self),
            links,
            queue: queue.into_iter(),
            now: None,
            at: None,
            system: System::default(),
            payload: Pieces::default(),
            sizes: Sizes::default(),
        })
    }
}

impl Source {
    /// The files that it is made of, and the links that have them.
    fn parts(&self) -> Vec<(usize, &str)> {
        match self {
            Self::File(number, path) => vec![(*number, path)],
            Self::Pages(pages) => {
                let parts = pages.deltas.iter().chain(&pages.base);
                parts.map(|(number, path)| (*number, path.as_str())).collect()
            }
            Self::Text(_) => Vec::new(),
        }
    }
}

/// The files that have come, and how long they are.
#[derive(Clone, Default)]
pub(super) struct Sizes(Arc<Mutex<BTreeMap<String, u64>>>);

impl Sizes {
    /// All of them so far.
    pub fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The stream of a chain. What is in it was checked on the way: a chunk's checksum is not made for
/// who unpacks it at once.
pub(super) struct MergedStream {
    merged: Arc<Merged>,
    links: Vec<LinkReader>,
    queue: std::vec::IntoIter<(StreamPath, String, Source)>,
    now: Option<Making>,
    /// The file of the current chunk.
    at: Option<StreamPath>,
    system: System,
    /// What was not taken yet of the current chunk's payload.
    payload: Pieces,
    sizes: Sizes,
}

/// A file that is being put together.
struct Making {
    path: StreamPath,
    name: String,
    how: How,
    /// Where the next payload belongs.
    offset: u64,
    size: u64,
}

enum How {
    /// All of it; empty when it was given.
    Text(Bytes),
    Copy(usize, Chunks),
    Pages(Box<Putting>),
}

/// What comes next of a file.
enum Next {
    /// Bytes for this place.
    Payload(u64, Pieces),
    /// A gap until here.
    Seek(u64),
    /// Nothing.
    End,
}

impl MergedStream {
    /// The files that have come.
    pub fn sizes(&self) -> Sizes {
        self.sizes.clone()
    }

    /// Bytes that the store has given so far, of each link.
    pub fn fetched(&self) -> Vec<Arc<AtomicU64>> {
        self.links.iter().map(LinkReader::fetched).collect()
    }

    /// The next chunks as bytes of a stream, in `out`; none at the end.
    pub fn next_chunks(&mut self, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        while out.len() < PAYLOAD {
            match self.next_chunk()? {
                None => break,
                Some(Chunk::Payload { path, offset, len, .. }) => {
                    let payload = std::mem::take(&mut self.payload);
                    let mut crc = crc32fast::Hasher::new();
                    payload.parts().for_each(|part| crc.update(part));
                    let crc = crc.finalize();
                    writer::payload_header(out, &path, Mode::Create, offset, len, crc).map_err(
                        |error| {
                            let what = format!("a chunk of {path}");
                            Error::new(ErrorKind::Damage, what).caused_by(error)
                        },
                    )?;
                    payload.parts().for_each(|part| out.extend_from_slice(part));
                }
                Some(Chunk::Seek { path, offset, .. }) => {
                    writer::seek(out, &path, Mode::Create, offset);
                }
                Some(Chunk::End { path, .. }) => writer::end_of_file(out, &path),
                Some(other) => {
                    let what =
                        format!("a chain has a chunk for {} that it never has", other.path());
                    return Err(Error::new(ErrorKind::Failed, what));
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, path: StreamPath, name: String, source: Source) -> Result<Making> {
        let how = match source {
            Source::Text(text) => How::Text(text.into()),
            Source::File(number, file) => {
                let Some(manifest) = self.merged.links.get(number) else { return Err(no_link()) };
                How::Copy(number, Chunks::new(manifest, &file))
            }
            Source::Pages(pages) => {
                let place = self.merged.system.iter().position(|system| *system == name);
                let system = place.map(|place| Place {
                    before: self.system,
                    is_first: place == 0,
                    is_last: place > 0 && place + 1 == self.merged.system.len(),
                });
                let merged = Arc::clone(&self.merged);
                let putting = Putting::new(&merged, &mut self.links, pages, system)?;
                if place == Some(0) {
                    self.system.header = putting.header;
                    self.system.counted = putting.counted;
                }
                How::Pages(Box::new(putting))
            }
        };
        Ok(Making { path, name, how, offset: 0, size: 0 })
    }

    fn go_on(&mut self, making: &mut Making) -> Result<Next> {
        let next = match &mut making.how {
            How::Text(text) if text.is_empty() => Next::End,
            How::Text(text) => Next::Payload(0, std::mem::take(text).into()),
            How::Copy(number, chunks) => {
                let Some(link) = self.links.get_mut(*number) else { return Err(no_link()) };
                loop {
                    let Some(found) = chunks.next(link)? else { break Next::End };
                    match found.letter {
                        letter::PAYLOAD if !found.payload.is_empty() => {
                            break Next::Payload(found.offset, found.payload.into());
                        }
                        letter::SEEK => break Next::Seek(found.offset),
                        _ => {}
                    }
                }
            }
            How::Pages(putting) => {
                let pages = putting.next(&mut self.links)?;
                if pages.is_empty() && putting.is_system {
                    self.system.pages += putting.next;
                }
                match pages.is_empty() {
                    true => Next::End,
                    false => Next::Payload(making.offset, pages),
                }
            }
        };
        if let Next::Payload(offset, payload) = &next {
            making.offset = offset + payload.len() as u64;
            making.size = making.size.max(making.offset);
        }
        Ok(next)
    }
}

impl Feed for MergedStream {
    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let mut making = match self.now.take() {
            Some(making) => making,
            None => match self.queue.next() {
                Some((path, name, source)) => self.begin(path, name, source)?,
                None => return Ok(None),
            },
        };
        let (path, rewrite) = (making.path.clone(), false);
        self.at = Some(path.clone());
        let chunk = match self.go_on(&mut making)? {
            Next::End => {
                let mut sizes = self.sizes.0.lock().unwrap_or_else(PoisonError::into_inner);
                sizes.insert(making.name, making.size);
                return Ok(Some(Chunk::End { path, rewrite }));
            }
            Next::Seek(offset) => Chunk::Seek { path, offset, rewrite },
            Next::Payload(offset, payload) => {
                let len = payload.len() as u64;
                self.payload = payload;
                // Who needs its checksum makes it.
                Chunk::Payload { path, offset, len, crc: 0, rewrite }
            }
        };
        self.now = Some(making);
        Ok(Some(chunk))
    }

    fn next_part(&mut self, buffer: &mut [u8]) -> Result<Part> {
        Ok(Part::There(self.payload.split_to(buffer.len())))
    }

    fn error(&self, fault: Fault) -> Error {
        let at = self.at.as_ref().map_or_else(|| "a file".to_owned(), ToString::to_string);
        Error::new(ErrorKind::Damage, format!("{at}, as the chain has it: {fault}"))
            .advise("a backup is damaged there; verify names everything that is")
    }
}

pub(super) fn no_link() -> Error {
    Error::new(ErrorKind::Failed, "a chain has fewer links than it should")
}

/// Bytes that the store has given in all.
pub(super) fn total(fetched: &[Arc<AtomicU64>]) -> u64 {
    fetched.iter().map(|fetched| fetched.load(Ordering::Relaxed)).sum()
}

/// The paths of files below the backup.
pub(super) fn paths(merged: &Merged) -> BTreeSet<std::path::PathBuf> {
    merged.files.keys().map(|path| super::tables::local(path)).collect()
}
