//! The rules between the chunks of a stream.
//!
//! - Payloads of a file ascend without gap or overlap from 0, or from where a seek put them. A seek may
//!   lead back: so the header of an Aria log is written again when the next log is begun.
//! - A file ends once. After that it is opened again only by a chunk with the rewrite flag.
//! - Renames and removals name files that are not open. Names that the stream has not sent are
//!   fine there: the writer may not have come to the file before it was renamed or removed.
//! - At the end of the stream no file is open.
//!
//! [`StreamState`] knows every file that the stream has made under its current name, so renames
//! and removals can be confined to those. Memory grows with the number of files, by little more
//! than their paths; the number of open ones is bounded.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::error::Fault;
use crate::path::{RemoveTarget, StreamPath};

/// More files than this are not open at a time: a writer has as many open as it has threads,
/// and a few more. What is open has no other cost to a hostile stream than a few bytes.
pub const OPEN_MAX: usize = 16 * 1024;

/// What the first chunk of a file asks for, or that it was not the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The file is new in this stream.
    Create,
    /// The stream has made the file before and now sends it anew.
    Replace,
    /// The file is open.
    Continue,
}

/// What a rename comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renamed {
    /// The stream has not made a file of the old name, or both names are the same.
    Nothing,
    /// The new name is new to the stream.
    Moved,
    /// The stream has made a file of the new name too; it is replaced.
    Replaced,
}

#[derive(Clone, Copy, Debug)]
enum FileState {
    Open { next: u64, len: u64 },
    Ended,
}

/// All files of a stream, as far as it was read.
#[derive(Debug, Default)]
pub struct StreamState {
    files: BTreeMap<StreamPath, FileState>,
    open: usize,
}

impl StreamState {
    /// The state before the first chunk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a payload chunk.
    pub fn payload(
        &mut self,
        path: &StreamPath,
        offset: u64,
        len: u64,
        rewrite: bool,
    ) -> Result<Opening, Fault> {
        let (opening, next, end) = self.open(path, rewrite)?;
        if offset != *next {
            return Err(Fault::Offset { expected: *next, found: offset });
        }
        *next = offset.checked_add(len).ok_or(Fault::Range { offset, len })?;
        *end = (*end).max(*next);
        Ok(opening)
    }

    /// Takes a seek chunk. Tells also whether it leads back, so that what follows may replace what was
    /// sent before.
    pub fn seek(
        &mut self,
        path: &StreamPath,
        offset: u64,
        rewrite: bool,
    ) -> Result<(Opening, bool), Fault> {
        let (opening, next, end) = self.open(path, rewrite)?;
        let back = offset < *end;
        *next = offset;
        *end = (*end).max(offset);
        Ok((opening, back))
    }

    /// Takes an end chunk; returns the file's length too.
    pub fn end(&mut self, path: &StreamPath, rewrite: bool) -> Result<(Opening, u64), Fault> {
        let (opening, _, end) = self.open(path, rewrite)?;
        let len = *end;
        self.files.insert(path.clone(), FileState::Ended);
        self.open = self.open.saturating_sub(1);
        Ok((opening, len))
    }

    /// Takes a rename chunk.
    pub fn rename(&mut self, from: &StreamPath, to: &StreamPath) -> Result<Renamed, Fault> {
        let is_open = |path| matches!(self.files.get(path), Some(FileState::Open { .. }));
        if is_open(from) || is_open(to) {
            return Err(Fault::StillOpen);
        }
        if from == to {
            return Ok(Renamed::Nothing);
        }
        if self.files.remove(from).is_none() {
            let below = RemoveTarget::Exact(from.clone());
            return match self.covered(&below).next() {
                Some(_) => Err(Fault::FolderRename),
                None => Ok(Renamed::Nothing),
            };
        }
        match self.files.insert(to.clone(), FileState::Ended) {
            Some(_) => Ok(Renamed::Replaced),
            None => Ok(Renamed::Moved),
        }
    }

    /// Takes a remove chunk; returns the files to delete, all of which the stream has made.
    pub fn remove(&mut self, target: &RemoveTarget) -> Result<Vec<StreamPath>, Fault> {
        let mut gone = Vec::new();
        for (path, state) in self.covered(target) {
            match state {
                FileState::Open { .. } => return Err(Fault::StillOpen),
                FileState::Ended => gone.push(path.clone()),
            }
        }
        for path in &gone {
            self.files.remove(path);
        }
        Ok(gone)
    }

    /// How many files the stream has made, under their current names.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Whether the stream has made `path`, or is about to.
    pub fn contains(&self, path: &[u8]) -> bool {
        self.files.contains_key(path)
    }

    /// Checks, at the end of the stream, that every file has ended.
    pub fn finish(&self) -> Result<(), Fault> {
        let mut open = self.files.iter().filter(|(_, s)| matches!(s, FileState::Open { .. }));
        match open.next() {
            None => Ok(()),
            Some((path, _)) => Err(Fault::Unfinished { count: self.open, path: path.clone() }),
        }
    }

    /// Opens a file unless it is open; returns its position and its length.
    fn open(
        &mut self,
        path: &StreamPath,
        rewrite: bool,
    ) -> Result<(Opening, &mut u64, &mut u64), Fault> {
        let opening = match self.files.get(path) {
            Some(FileState::Open { .. }) => Opening::Continue,
            Some(FileState::Ended) if rewrite => Opening::Replace,
            Some(FileState::Ended) => return Err(Fault::Ended),
            None => Opening::Create,
        };
        if opening != Opening::Continue {
            if self.open >= OPEN_MAX {
                return Err(Fault::TooManyOpen(OPEN_MAX));
            }
            self.open += 1;
            self.files.insert(path.clone(), FileState::Open { next: 0, len: 0 });
        }
        match self.files.get_mut(path) {
            Some(FileState::Open { next, len }) => Ok((opening, next, len)),
            _ => Err(Fault::Ended),
        }
    }

    /// The files that a removal of `target` names. All of them sort behind the target's path,
    /// and before the first one that does not begin with it.
    fn covered<'a>(
        &'a self,
        target: &'a RemoveTarget,
    ) -> impl Iterator<Item = (&'a StreamPath, &'a FileState)> {
        let prefix = target.path().as_bytes();
        self.files
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(path, _)| path.as_bytes().starts_with(prefix))
            .filter(|(path, _)| target.covers(path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn path(path: &str) -> StreamPath {
        StreamPath::new(path).unwrap()
    }

    #[test]
    fn offsets_ascend_without_gap_or_overlap() {
        let mut state = StreamState::new();
        assert_eq!(state.payload(&path("a"), 0, 10, false).unwrap(), Opening::Create);
        assert_eq!(state.payload(&path("a"), 10, 5, false).unwrap(), Opening::Continue);
        for offset in [14, 16, 0] {
            let fault = state.payload(&path("a"), offset, 1, false).unwrap_err();
            assert!(matches!(fault, Fault::Offset { expected: 15, .. }));
        }
        assert!(matches!(state.payload(&path("b"), 1, 1, false), Err(Fault::Offset { .. })));
    }

    #[test]
    fn a_seek_may_lead_back_and_the_file_stays_as_long() {
        let mut state = StreamState::new();
        assert_eq!(state.seek(&path("a"), 37, false).unwrap(), (Opening::Create, false));
        state.payload(&path("a"), 37, 7, false).unwrap();
        assert_eq!(state.seek(&path("a"), 44, false).unwrap(), (Opening::Continue, false));
        assert_eq!(state.seek(&path("a"), 0, false).unwrap(), (Opening::Continue, true));
        state.payload(&path("a"), 0, 5, false).unwrap();
        assert!(matches!(state.payload(&path("a"), 6, 1, false), Err(Fault::Offset { .. })));
        assert_eq!(state.end(&path("a"), false).unwrap(), (Opening::Continue, 44));
    }

    #[test]
    fn a_file_ends_once_and_reopens_only_to_be_rewritten() {
        let mut state = StreamState::new();
        assert_eq!(state.end(&path("a"), false).unwrap(), (Opening::Create, 0));
        assert!(matches!(state.end(&path("a"), false), Err(Fault::Ended)));
        assert!(matches!(state.payload(&path("a"), 0, 1, false), Err(Fault::Ended)));
        assert_eq!(state.payload(&path("a"), 0, 1, true).unwrap(), Opening::Replace);
        assert!(matches!(state.finish(), Err(Fault::Unfinished { count: 1, .. })));
        state.end(&path("a"), false).unwrap();
        state.finish().unwrap();
    }

    #[test]
    fn open_files_are_bounded() {
        let mut state = StreamState::new();
        for file in 0..OPEN_MAX {
            state.payload(&path(&file.to_string()), 0, 1, false).unwrap();
        }
        assert!(matches!(state.payload(&path("x"), 0, 1, false), Err(Fault::TooManyOpen(_))));
        state.end(&path("0"), false).unwrap();
        state.payload(&path("x"), 0, 1, false).unwrap();
    }

    #[test]
    fn rename_follows_the_file() {
        let mut state = StreamState::new();
        state.end(&path("d/a"), false).unwrap();
        state.end(&path("d/b"), false).unwrap();
        assert_eq!(state.rename(&path("x"), &path("y")).unwrap(), Renamed::Nothing);
        assert_eq!(state.rename(&path("d/a"), &path("d/c")).unwrap(), Renamed::Moved);
        assert_eq!(state.rename(&path("d/c"), &path("d/b")).unwrap(), Renamed::Replaced);
        assert_eq!(state.rename(&path("d/b"), &path("d/b")).unwrap(), Renamed::Nothing);
        assert_eq!(state.files(), 1);
        assert!(state.contains(b"d/b") && !state.contains(b"d/c"));
        // The old name is free again.
        assert_eq!(state.payload(&path("d/a"), 0, 1, false).unwrap(), Opening::Create);
        assert!(matches!(state.rename(&path("d/b"), &path("d/a")), Err(Fault::StillOpen)));
        assert!(matches!(state.rename(&path("d/a"), &path("d/z")), Err(Fault::StillOpen)));
        assert!(matches!(state.rename(&path("d"), &path("e")), Err(Fault::FolderRename)));
    }

    #[test]
    fn removal_names_what_the_stream_made_and_no_more() {
        let mut state = StreamState::new();
        for name in ["g", "g2", "h/p#1", "h/p#2", "h/q", "h/p/x", "h.x"] {
            state.end(&path(name), false).unwrap();
        }
        let remove = |state: &mut StreamState, target: &str| {
            let gone = state.remove(&RemoveTarget::new(target).unwrap()).unwrap();
            gone.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(remove(&mut state, "nothing"), [""; 0]);
        assert_eq!(remove(&mut state, "h/p*"), ["h/p#1", "h/p#2"]);
        assert_eq!(remove(&mut state, "h"), ["h/p/x", "h/q"]);
        assert_eq!(remove(&mut state, "g"), ["g"]);
        assert_eq!(state.files(), 2);
    }

    #[test]
    fn open_files_are_not_removed() {
        let mut state = StreamState::new();
        state.payload(&path("g/a"), 0, 1, false).unwrap();
        let target = RemoveTarget::new("g").unwrap();
        assert!(matches!(state.remove(&target), Err(Fault::StillOpen)));
    }
}
