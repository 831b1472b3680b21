//! One link of a chain, read file by file: each file as its bytes, in their order.
//!
//! Which files, and in which order, is said beforehand, so frames are fetched ahead as for any other
//! reader. A frame that several files have their ends in is kept until the last of them was read,
//! unless too many are; then it is fetched again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use innodb::PageSize;
use xbstream::chunk::letter;

use super::Repository;
use super::layout::BackupName;
use super::manifest::{Manifest, path_from_text};
use super::pick::Piece;
use super::reader::{BackupReader, ReadOptions};
use crate::delta::format::Cluster;
use crate::io::Pieces;
use crate::{Cancel, Error, ErrorKind, Result};

/// Frames of a link that are kept.
const KEPT: usize = 3;

/// Which frames are at hand while frames are used in a known order.
#[derive(Debug)]
struct Uses {
    /// How often each frame will still be used.
    left: HashMap<u32, u32>,
    /// Those that are kept, the one that was used last at the end.
    kept: VecDeque<u32>,
}

/// What a use of a frame means.
struct Use {
    /// It is at hand, else it is to be fetched.
    at_hand: bool,
    /// It is to be kept.
    keep: bool,
    /// This one is not kept any more.
    dropped: Option<u32>,
}

impl Uses {
    fn of(order: &[u32]) -> Self {
        let mut left = HashMap::new();
        for frame in order {
            *left.entry(*frame).or_default() += 1;
        }
        Self { left, kept: VecDeque::new() }
    }

    fn next(&mut self, frame: u32) -> Use {
        let left = self.left.entry(frame).or_default();
        *left = left.saturating_sub(1);
        let keep = *left > 0;
        let place = self.kept.iter().position(|kept| *kept == frame);
        place.map(|place| self.kept.remove(place));
        if keep {
            self.kept.push_back(frame);
        }
        let dropped = if self.kept.len() > KEPT { self.kept.pop_front() } else { None };
        Use { at_hand: place.is_some(), keep, dropped }
    }
}

/// The frames to fetch, for files that use frames in this order.
pub(super) fn to_fetch(order: &[u32]) -> Vec<u32> {
    let mut uses = Uses::of(order);
    order.iter().copied().filter(|frame| !uses.next(*frame).at_hand).collect()
}

/// A link being read.
pub(super) struct LinkReader {
    name: BackupName,
    reader: BackupReader,
    uses: Uses,
    kept: HashMap<u32, Bytes>,
}

impl LinkReader {
    /// Of files that use frames in this order.
    pub fn new(
        repository: &Repository,
        manifest: &Manifest,
        order: &[u32],
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<Self> {
        let fetched = to_fetch(order);
        let manifest = manifest.clone();
        let name = manifest.name.clone();
        let reader = BackupReader::new(repository, manifest, Some(&fetched), options, cancel)?;
        Ok(Self { name, reader, uses: Uses::of(order), kept: HashMap::new() })
    }

    /// Bytes that the store has given so far.
    pub fn fetched(&self) -> Arc<AtomicU64> {
        self.reader.fetched()
    }

    fn frame(&mut self, number: u32) -> Result<Bytes> {
        let Use { at_hand, keep, dropped } = self.uses.next(number);
        let kept = self.kept.remove(&number).filter(|_| at_hand);
        let frame = match kept {
            Some(frame) => frame,
            None => {
                let frame = self.reader.next_frame()?.ok_or_else(|| {
                    Error::new(ErrorKind::Failed, format!("{} was read in disorder", self.name))
                })?;
                frame.freeze()
            }
        };
        if keep {
            self.kept.insert(number, frame.clone());
        }
        dropped.map(|dropped| self.kept.remove(&dropped));
        Ok(frame)
    }
}

/// A file of a link, chunk by chunk.
pub(super) struct Chunks {
    path: Vec<u8>,
    frames: std::vec::IntoIter<u32>,
    /// What is left of the current frame.
    frame: Bytes,
}

/// A chunk that was found.
pub(super) struct Found {
    /// What it is.
    pub letter: u8,
    /// Where its payload belongs, or a seek leads.
    pub offset: u64,
    /// What is left of its payload.
    pub payload: Bytes,
}

impl Chunks {
    /// Of the file that a manifest has under this path.
    pub fn new(manifest: &Manifest, path: &str) -> Self {
        let frames = manifest.files.get(path).map(|file| file.frame_numbers().collect());
        let frames: Vec<u32> = frames.unwrap_or_default();
        let path = path_from_text(path).unwrap_or_default();
        Self { path, frames: frames.into_iter(), frame: Bytes::new() }
    }

    /// The next one.
    pub fn next(&mut self, link: &mut LinkReader) -> Result<Option<Found>> {
        loop {
            if self.frame.is_empty() {
                // The buffer of the last one can be used again.
                self.frame = Bytes::new();
                let Some(number) = self.frames.next() else { return Ok(None) };
                self.frame = link.frame(number)?;
                continue;
            }
            let Some(piece) = Piece::first(&self.frame) else {
                return Err(damaged(&link.name, &self.path, "a frame does not hold whole chunks"));
            };
            let (letter, offset) = (piece.letter, piece.offset);
            let (payload, len, is_ours) = (piece.payload, piece.len, piece.path == self.path);
            let chunk = self.frame.split_to(len);
            if is_ours {
                return Ok(Some(Found { letter, offset, payload: chunk.slice(payload..) }));
            }
        }
    }
}

fn damaged(link: &BackupName, path: &[u8], why: &str) -> Error {
    let path = String::from_utf8_lossy(path);
    Error::new(ErrorKind::Damage, format!("{path} of {link}: {why}"))
        .advise("the backup is damaged there; verify names everything that is")
}

/// A file of a link as its bytes.
pub(super) struct FileBytes {
    chunks: Chunks,
    current: Option<Found>,
    /// Bytes that were looked at and not taken yet.
    ahead: Bytes,
    /// Bytes that came so far.
    read: u64,
    size: u64,
}

impl FileBytes {
    /// Of the file that a manifest has under this path.
    pub fn new(manifest: &Manifest, path: &str) -> Self {
        let size = manifest.files.get(path).map_or(0, |file| file.size);
        let chunks = Chunks::new(manifest, path);
        Self { chunks, current: None, ahead: Bytes::new(), read: 0, size }
    }

    /// How long it is.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// An error about it.
    pub fn damaged(&self, link: &LinkReader, why: &str) -> Error {
        damaged(&link.name, &self.chunks.path, why)
    }

    /// The next bytes, at most `len` and at least one of them.
    fn piece(&mut self, link: &mut LinkReader, len: usize) -> Result<Bytes> {
        if !self.ahead.is_empty() {
            let now = len.min(self.ahead.len());
            return Ok(self.ahead.split_to(now));
        }
        loop {
            if let Some(found) = self.current.as_mut().filter(|found| !found.payload.is_empty()) {
                let piece = found.payload.split_to(len.min(found.payload.len()));
                self.read += piece.len() as u64;
                return Ok(piece);
            }
            // Its frame can be used again.
            self.current = None;
            match self.chunks.next(link)? {
                Some(found) if found.letter == letter::PAYLOAD => {
                    if found.offset != self.read {
                        return Err(self.damaged(link, "its chunks are not in their order"));
                    }
                    self.current = Some(found);
                }
                Some(found) if found.letter == letter::END => {}
                Some(_) => {
                    return Err(self.damaged(link, "it has a chunk that no tablespace has"));
                }
                None => return Err(self.damaged(link, "it ends too early")),
            }
        }
    }

    /// Gives `take` the next `len` bytes, in pieces.
    fn take(
        &mut self,
        link: &mut LinkReader,
        mut len: usize,
        take: &mut dyn FnMut(Bytes),
    ) -> Result<()> {
        while len > 0 {
            let piece = self.piece(link, len)?;
            len -= piece.len();
            take(piece);
        }
        Ok(())
    }

    /// Appends the next `len` bytes to `out`.
    pub fn append(&mut self, link: &mut LinkReader, len: usize, out: &mut Pieces) -> Result<()> {
        self.take(link, len, &mut |bytes| out.push(bytes))
    }

    /// The next `len` bytes, in one place; they are copied only where they are not.
    fn next(&mut self, link: &mut LinkReader, len: usize) -> Result<Bytes> {
        let first = match len {
            0 => return Ok(Bytes::new()),
            _ => self.piece(link, len)?,
        };
        if first.len() == len {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(len);
        all.extend_from_slice(&first);
        self.take(link, len - first.len(), &mut |bytes| all.extend_from_slice(&bytes))?;
        Ok(all.freeze())
    }

    /// Passes over the next `len` bytes.
    pub fn skip(&mut self, link: &mut LinkReader, len: usize) -> Result<()> {
        self.take(link, len, &mut |_| {})
    }

    /// Looks at the next `len` bytes, which are not taken thereby.
    pub fn look(&mut self, link: &mut LinkReader, len: usize) -> Result<&[u8]> {
        if self.ahead.len() < len {
            self.ahead = self.next(link, len)?;
        }
        Ok(&self.ahead)
    }

    /// Passes over what is left, and checks that it is as long as it should be: all frames of a file
    /// have to be used before those of the next.
    pub fn finish(&mut self, link: &mut LinkReader) -> Result<()> {
        self.ahead = Bytes::new();
        loop {
            let current = self.current.take();
            self.read += current.map_or(0, |found| found.payload.len() as u64);
            match self.chunks.next(link)? {
                Some(found) if found.letter == letter::PAYLOAD => self.current = Some(found),
                Some(_) => {}
                None => break,
            }
        }
        match self.read == self.size {
            true => Ok(()),
            false => {
                let why = format!("it has {} bytes instead of {}", self.read, self.size);
                Err(self.damaged(link, &why))
            }
        }
    }
}

/// A `.delta` file, page by page.
pub(super) struct DeltaPages {
    bytes: FileBytes,
    page_size: PageSize,
    pages: std::vec::IntoIter<u32>,
    /// The cluster behind the one that is being read; none behind the last.
    next: Option<u64>,
    after: Option<u32>,
}

impl DeltaPages {
    /// Of the file that a manifest has under this path.
    pub fn new(
        link: &mut LinkReader,
        manifest: &Manifest,
        path: &str,
        page_size: PageSize,
    ) -> Result<Self> {
        let bytes = FileBytes::new(manifest, path);
        let pages = Vec::new().into_iter();
        let mut delta = Self { bytes, page_size, pages, next: Some(0), after: None };
        delta.advance(link)?;
        Ok(delta)
    }

    /// The number of the next page within its file; none at the end.
    pub fn peek(&self) -> Option<u32> {
        self.pages.as_slice().first().copied()
    }

    /// An error about it.
    pub fn damaged(&self, link: &LinkReader, why: &str) -> Error {
        self.bytes.damaged(link, why)
    }

    /// Looks at the next page, which is not taken thereby.
    pub fn look(&mut self, link: &mut LinkReader) -> Result<&[u8]> {
        self.bytes.look(link, self.page_size.bytes())
    }

    /// Takes the next page.
    pub fn take(&mut self, link: &mut LinkReader) -> Result<Bytes> {
        let page = self.bytes.next(link, self.page_size.bytes())?;
        self.advance_page(link)?;
        Ok(page)
    }

    /// Passes over the next page.
    pub fn skip(&mut self, link: &mut LinkReader) -> Result<()> {
        self.bytes.skip(link, self.page_size.bytes())?;
        self.advance_page(link)
    }

    fn advance_page(&mut self, link: &mut LinkReader) -> Result<()> {
        self.after = self.pages.next().or(self.after);
        self.advance(link)
    }

    /// Reads the next header, when all pages of a cluster were read.
    fn advance(&mut self, link: &mut LinkReader) -> Result<()> {
        while self.peek().is_none() {
            let Some(number) = self.next else { return Ok(()) };
            let header = self.bytes.next(link, self.page_size.bytes())?;
            let cluster = Cluster::parse(&header, number, self.after);
            let cluster = cluster.map_err(|why| self.damaged(link, &why.to_string()))?;
            self.next = (!cluster.last).then_some(number + 1);
            self.pages = cluster.pages.into_iter();
        }
        Ok(())
    }

    /// All pages were taken: checks that nothing is behind them.
    pub fn finish(&mut self, link: &mut LinkReader) -> Result<()> {
        if self.bytes.read < self.bytes.size {
            return Err(self.damaged(link, "it goes on behind its last cluster"));
        }
        self.bytes.finish(link)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_that_is_used_again_is_kept() {
        assert_eq!(to_fetch(&[0, 1, 2, 1, 3, 1, 1]), [0, 1, 2, 3]);
        assert!(to_fetch(&[]).is_empty());
        // Not for as long as one likes.
        assert_eq!(to_fetch(&[0, 1, 2, 3, 0, 1, 2, 3]), [0, 1, 2, 3, 0]);
    }

    proptest! {
        /// Whoever goes by the same rule finds what was fetched or kept, and keeps only a few.
        #[test]
        fn what_is_fetched_is_what_is_missed(order in prop::collection::vec(0u32..9, 0..200)) {
            let fetched = to_fetch(&order);
            let mut fetched = fetched.into_iter();
            let mut uses = Uses::of(&order);
            let mut kept = std::collections::BTreeSet::new();
            for frame in order {
                let now = uses.next(frame);
                prop_assert_eq!(now.at_hand, kept.remove(&frame));
                if !now.at_hand {
                    prop_assert_eq!(fetched.next(), Some(frame));
                }
                if now.keep {
                    kept.insert(frame);
                }
                now.dropped.map(|dropped| kept.remove(&dropped));
                prop_assert!(kept.len() <= KEPT);
            }
            prop_assert_eq!(fetched.next(), None);
            prop_assert!(kept.is_empty());
        }
    }
}
