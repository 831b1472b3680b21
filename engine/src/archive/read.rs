//! A file of the archive as if it were one on disk: only what is read is fetched.
//!
//! Memory: the frames of one request. An error of the archive is the inner error of what [`Read`]
//! returns.

use std::io::{self, Read, Seek, SeekFrom};

use super::catalog::File;
use super::{Archive, part::Part};
use crate::repo::Repository;
use crate::{Cancel, Result};

/// Frames that one request asks for, if they follow what was read before.
const AHEAD: usize = 4;

/// Reads a file of the archive.
pub struct FileReader<'a> {
    repository: &'a Repository,
    parts: &'a [Part],
    cancel: Cancel,
    position: u64,
    end: u64,
    /// What was fetched last, and where in the file it is.
    plain: Vec<u8>,
    plain_at: u64,
}

impl Archive<'_> {
    /// Opens a file, as far as it is there without a hole.
    pub fn open<'a>(&'a self, file: &'a File, cancel: &Cancel) -> FileReader<'a> {
        FileReader {
            repository: self.repository,
            parts: &file.parts,
            cancel: cancel.clone(),
            position: 0,
            end: file.end(),
            plain: Vec::new(),
            plain_at: 0,
        }
    }
}

impl FileReader<'_> {
    /// Bytes that can be read.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Fetches what is at the position.
    fn fetch(&mut self) -> Result<()> {
        let goes_on = self.position == self.plain_at + self.plain.len() as u64;
        self.plain.clear();
        let at = self.position;
        let Some(part) = self.parts.iter().find(|part| {
            let about = &part.head.about;
            about.begin <= at && at < about.end
        }) else {
            return Ok(());
        };
        let mut begin = part.head.about.begin;
        for (number, frame) in part.head.frames.iter().enumerate() {
            let end = begin + u64::from(frame.len);
            if at < end {
                let ahead = if goes_on { AHEAD } else { 1 };
                let frames = number..(number + ahead).min(part.head.frames.len());
                self.plain = part.frames(self.repository, frames, &self.cancel)?;
                self.plain_at = begin;
                return Ok(());
            }
            begin = end;
        }
        Ok(())
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.end || to.is_empty() {
            return Ok(0);
        }
        let there = |this: &Self| {
            let at = this.position.checked_sub(this.plain_at)?;
            usize::try_from(at).ok().filter(|at| *at < this.plain.len())
        };
        if there(self).is_none() {
            self.fetch().map_err(io::Error::other)?;
        }
        let Some(at) = there(self) else {
            return Err(io::Error::other("the archive lacks bytes that it should have"));
        };
        let bytes = self.plain.get(at..).unwrap_or_default();
        let count = bytes.len().min(to.len());
        if let (Some(to), Some(from)) = (to.get_mut(..count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for FileReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
