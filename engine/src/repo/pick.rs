//! Some files of a backup: from the frames that they are in, the chunks that are theirs.
//!
//! A frame holds whole chunks, of one file or of the ends of several. What is in it of other files,
//! and of files that were replaced or removed while the backup was taken, is dropped: a chunk counts
//! only in the frames that the manifest names for its file.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};

use xbstream::chunk::{
    FILE_LEN_MAX, HEAD_LEN, MAGIC, PATH_LEN, PAYLOAD_FIELDS_LEN, PAYLOAD_LEN, PAYLOAD_OFFSET, TYPE,
    letter,
};

use super::layout::damaged;
use super::manifest::{Manifest, path_from_text, path_to_text};
use super::reader::{BackupReader, Failure};
use crate::{Error, Result};

/// Which files, and where they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Picks {
    /// The frames of each file, by its path as in the stream.
    files: HashMap<Vec<u8>, BTreeSet<u32>>,
    /// All of them, ascending.
    frames: BTreeSet<u32>,
}

impl Picks {
    /// Picks the files of a manifest that these paths name, as the manifest has them.
    pub fn new<'a>(manifest: &Manifest, paths: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut picks = Self::default();
        for path in paths {
            let bytes = path_from_text(path);
            let entry = bytes.and_then(|bytes| Some((bytes, manifest.files.get(path)?)));
            let Some((bytes, file)) = entry else {
                let key = manifest.name.object(super::layout::MANIFEST)?;
                return Err(damaged(&key, format!("it has no file {path}")));
            };
            let frames: BTreeSet<u32> = file.frame_numbers().collect();
            picks.frames.extend(&frames);
            picks.files.insert(bytes, frames);
        }
        Ok(picks)
    }

    /// The same, of each file only the frame that it begins in.
    pub fn starts<'a>(
        manifest: &Manifest,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let mut picks = Self::new(manifest, paths)?;
        picks.frames.clear();
        for (path, frames) in &mut picks.files {
            // In the order of its offsets, which need not be that of the numbers.
            let file = manifest.files.get(&path_to_text(path));
            let first = file.and_then(|file| file.frame_numbers().next());
            *frames = first.into_iter().collect();
            picks.frames.extend(first);
        }
        Ok(picks)
    }

    /// The frames to fetch, ascending.
    pub fn frames(&self) -> Vec<u32> {
        self.frames.iter().copied().collect()
    }

    /// Bytes that these frames have in the store.
    pub fn stored(&self, manifest: &Manifest) -> u64 {
        manifest.stored_in(self.frames.iter().copied())
    }

    /// Whether a chunk of this file counts in that frame.
    pub fn has(&self, path: &[u8], frame: u32) -> bool {
        self.files.get(path).is_some_and(|frames| frames.contains(&frame))
    }
}

/// A stream of the files that were picked.
pub(super) struct Picked {
    reader: BackupReader,
    picks: Picks,
    numbers: std::vec::IntoIter<u32>,
    rest: io::Cursor<Vec<u8>>,
    failure: Failure,
    name: String,
}

impl Picked {
    /// Of a reader that reads the frames of `picks`, in their order.
    pub fn new(reader: BackupReader, picks: Picks, name: &str) -> Self {
        let failure = reader.failure();
        let numbers = picks.frames().into_iter();
        let name = name.to_owned();
        Self { reader, picks, numbers, rest: io::Cursor::default(), failure, name }
    }

    /// The chunks of the next frame; `None` at the end.
    pub fn next_chunks(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(frame) = self.reader.next_frame()? else { return Ok(None) };
        let number = self.numbers.next().unwrap_or_default();
        let kept = pick(&frame, |path| self.picks.has(path, number)).ok_or_else(|| {
            Error::new(
                crate::ErrorKind::Damage,
                format!("frame {number} of {} does not hold whole chunks", self.name),
            )
        })?;
        Ok(Some(kept))
    }
}

impl Read for Picked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.rest.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.next_chunks() {
                Ok(Some(chunks)) => self.rest = io::Cursor::new(chunks),
                Ok(None) => return Ok(0),
                Err(error) => return Err(self.failure.note(error)),
            }
        }
    }
}

/// The chunks whose paths are to be kept; `None` if these are no whole chunks.
fn pick(frame: &[u8], keep: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut rest = frame;
    while !rest.is_empty() {
        let piece = Piece::first(rest)?;
        let (chunk, behind) = rest.split_at_checked(piece.len)?;
        if keep(piece.path) {
            kept.extend_from_slice(chunk);
        }
        rest = behind;
    }
    Some(kept)
}

/// A chunk in a frame.
pub(super) struct Piece<'a> {
    /// Its path.
    pub path: &'a [u8],
    /// What it is.
    pub letter: u8,
    /// Where its payload belongs, or where a seek leads to.
    pub offset: u64,
    /// Where its payload begins, behind its own beginning.
    pub payload: usize,
    /// Its bytes in all: the payload is at their end.
    pub len: usize,
}

impl<'a> Piece<'a> {
    /// The chunk that `bytes` begin with; `None` if they do not begin with a whole one, or its payload
    /// belongs where no file goes to.
    pub fn first(bytes: &'a [u8]) -> Option<Self> {
        let number =
            |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
        let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let behind = HEAD_LEN.checked_add(number(PATH_LEN)?)?;
        let path = bytes.get(HEAD_LEN..behind)?;
        let letter = *bytes.get(TYPE)?;
        let (mut offset, mut payload) = (0, None);
        let len = match letter {
            letter::PAYLOAD => {
                offset = long(behind + PAYLOAD_OFFSET)?;
                let begins = behind.checked_add(PAYLOAD_FIELDS_LEN)?;
                payload = Some(begins);
                begins.checked_add(usize::try_from(long(behind + PAYLOAD_LEN)?).ok()?)?
            }
            letter::END | letter::REMOVE => behind,
            letter::SEEK => {
                offset = long(behind)?;
                behind.checked_add(size_of::<u64>())?
            }
            letter::RENAME => behind.checked_add(size_of::<u32>())?.checked_add(number(behind)?)?,
            _ => return None,
        };
        let payload = payload.unwrap_or(len);
        let end = offset.checked_add(len.checked_sub(payload)? as u64)?;
        let is_sound = len <= bytes.len() && end <= FILE_LEN_MAX;
        is_sound.then_some(Self { path, letter, offset, payload, len })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use xbstream::writer::{self, Mode};
    use xbstream::{RemoveTarget, StreamPath};

    fn chunks(path: &str, content: &[u8]) -> Vec<u8> {
        let path = StreamPath::new(path).unwrap();
        let mut out = Vec::new();
        let (len, crc) = (content.len() as u64, crc32fast::hash(content));
        writer::payload_header(&mut out, &path, Mode::Create, 0, len, crc).unwrap();
        out.extend_from_slice(content);
        writer::seek(&mut out, &path, Mode::Create, 4096);
        writer::end_of_file(&mut out, &path);
        out
    }

    #[test]
    fn only_the_chunks_of_picked_files_are_kept() {
        let (a, b) = (chunks("d/a", b"aaaa"), chunks("d/b", b""));
        let mut removed = Vec::new();
        writer::remove(&mut removed, &RemoveTarget::Exact(StreamPath::new("d/c").unwrap()));
        let frame = [&a[..], &removed, &b, &a].concat();
        assert_eq!(pick(&frame, |path| path == b"d/a").unwrap(), [&a[..], &a].concat());
        assert_eq!(pick(&frame, |path| path == b"d/b").unwrap(), b);
        assert_eq!(pick(&frame, |_| true).unwrap(), frame);
        let ends = (1..=a.len()).filter(|&end| pick(&a[..end], |_| true).is_some());
        let first = HEAD_LEN + 3 + PAYLOAD_FIELDS_LEN + 4;
        assert_eq!(ends.collect::<Vec<_>>(), [first, first + HEAD_LEN + 3 + 8, a.len()]);
    }

    #[test]
    fn offsets_end_where_files_do() {
        let path = StreamPath::new("d/a").unwrap();
        for (offset, is_sound) in
            [(FILE_LEN_MAX - 4, true), (FILE_LEN_MAX - 3, false), (u64::MAX - 3, false)]
        {
            let mut chunk = chunks("d/a", b"aaaa");
            let at = HEAD_LEN + path.as_bytes().len() + PAYLOAD_OFFSET;
            chunk[at..at + 8].copy_from_slice(&offset.to_le_bytes());
            assert_eq!(Piece::first(&chunk).is_some(), is_sound, "{offset}");
        }
        for (offset, is_sound) in [(FILE_LEN_MAX, true), (FILE_LEN_MAX + 1, false)] {
            let mut seek = Vec::new();
            writer::seek(&mut seek, &path, Mode::Create, offset);
            assert_eq!(Piece::first(&seek).is_some(), is_sound, "{offset}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(tail in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = pick(&tail, |_| true);
            let _ = pick(&[&MAGIC[..], &tail].concat(), |_| true);
        }
    }
}
