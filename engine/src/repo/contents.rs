//! Short files of a backup, and the beginnings of longer ones, in memory.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use xbstream::chunk::letter;

use super::Repository;
use super::layout::damaged;
use super::manifest::{Manifest, path_from_text, path_to_text};
use super::pick::{Picks, Piece};
use super::reader::{BackupReader, ReadOptions};
use crate::{Cancel, Result};

/// No short file is longer.
const SHORT_MAX: u64 = 1 << 20;
/// How much of a file is its beginning: what tells which tablespace it is, in every page size.
const START: usize = 64 << 10;
/// How they are read.
const READ: ReadOptions = ReadOptions { threads: 2, memory: 32 << 20 };

/// How much of the files is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: they are short.
    All,
    /// The beginning.
    Start,
}

impl Repository {
    /// The contents of files, by their paths as the manifest has them, and the bytes that were
    /// fetched for them.
    ///
    /// # Errors
    /// [`ErrorKind::Damage`](crate::ErrorKind::Damage) for one that is not there, or too long.
    pub(super) fn contents(
        &self,
        manifest: &Manifest,
        paths: &[&str],
        part: Part,
        cancel: &Cancel,
    ) -> Result<(BTreeMap<String, Vec<u8>>, u64)> {
        if paths.is_empty() {
            return Ok((BTreeMap::new(), 0));
        }
        let of_file = |path: &str, why: &str| -> crate::Error {
            match manifest.name.object(super::layout::MANIFEST) {
                Ok(key) => damaged(&key, format!("{path} {why}")),
                Err(error) => error,
            }
        };
        let picks = match part {
            Part::All => Picks::new(manifest, paths.iter().copied())?,
            Part::Start => Picks::starts(manifest, paths.iter().copied())?,
        };
        let size = |path: &str| manifest.files.get(path).map_or(0, |file| file.size);
        if part == Part::All
            && let Some(path) = paths.iter().find(|path| size(path) > SHORT_MAX)
        {
            return Err(of_file(path, "is longer than any such file"));
        }
        let empty = |path: &&str| Some((path_from_text(path)?, Vec::new()));
        let mut contents: BTreeMap<Vec<u8>, Vec<u8>> = paths.iter().filter_map(empty).collect();
        let frames = picks.frames();
        let mut reader = BackupReader::new(self, manifest.clone(), Some(&frames), READ, cancel)?;
        let fetched = reader.fetched();
        for number in frames {
            let Some(frame) = reader.next_frame()? else { break };
            let mut rest = frame.as_slice();
            while !rest.is_empty() {
                let Some(piece) = Piece::first(rest) else {
                    return Err(of_file("a frame", "does not hold whole chunks"));
                };
                let (chunk, behind) = rest.split_at(piece.len);
                if piece.letter == letter::PAYLOAD
                    && picks.has(piece.path, number)
                    && let Some(content) = contents.get_mut(piece.path)
                    && piece.offset == content.len() as u64
                {
                    let payload = chunk.get(piece.payload..).unwrap_or_default();
                    let room = match part {
                        Part::All => payload.len(),
                        Part::Start => START.saturating_sub(content.len()),
                    };
                    content.extend_from_slice(payload.get(..room).unwrap_or(payload));
                }
                rest = behind;
            }
        }
        let contents: BTreeMap<String, Vec<u8>> =
            contents.into_iter().map(|(path, content)| (path_to_text(&path), content)).collect();
        if part == Part::All
            && let Some((path, content)) =
                contents.iter().find(|(path, content)| content.len() as u64 != size(path))
        {
            let why = format!("has {} bytes instead of {}", content.len(), size(path));
            return Err(of_file(path, &why));
        }
        Ok((contents, fetched.load(Ordering::Relaxed)))
    }
}
