//! Writing streams.
//!
//! A parallel pipeline encodes headers with the functions of this module, outside of any lock,
//! and hands header and payload to one vectored write: payload bytes are never copied. The
//! functions append to a buffer that the caller reuses, so several small chunks can share a
//! write. [`StreamWriter`] is the serial form for small files and for tests.
//!
//! What the functions cannot see is the order of chunks. A writer keeps these rules:
//! offsets of a file ascend without gaps (or from where a seek put them); every file ends with
//! exactly one end chunk; a file that ended is reopened only by chunks in [`Mode::Rewrite`];
//! renames and removals name files that are not open. The stock reader stumbles over an end
//! chunk right after a rename, so a payload chunk should come between.

use std::io::{self, Read, Write};

use crate::chunk::{
    FILE_LEN_MAX, FLAGS_REWRITE, HEAD_LEN, MAGIC, PAYLOAD_FIELDS_LEN, PAYLOAD_LEN_MAX, letter,
};
use crate::path::{PATH_LEN_LIMIT, RemoveTarget, StreamPath};

/// Room for the longest header, for callers that want to allocate it once: a rename.
pub const HEADER_LEN_MAX: usize = HEAD_LEN + PATH_LEN_LIMIT + size_of::<u32>() + PATH_LEN_LIMIT;
const _: () = assert!(HEADER_LEN_MAX >= HEAD_LEN + PATH_LEN_LIMIT + PAYLOAD_FIELDS_LEN);

/// What a chunk does to a file of its name that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The file must not exist yet.
    Create,
    /// The file is truncated. To be set on every chunk of the file. Readers before 10.11.8 do
    /// not know this.
    Rewrite,
}

/// A payload that no chunk can carry. Writers cut files into payloads, so this is a mistake of
/// the calling program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {len} bytes at offset {offset} does not fit a chunk")]
pub struct PayloadTooLarge {
    /// Where the payload was to go.
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// Appends the header of a payload chunk. The payload itself must follow in the stream: `len`
/// bytes, at most [`PAYLOAD_LEN_MAX`], with the CRC-32 `crc` (as `crc32fast::hash` computes it).
pub fn payload_header(
    out: &mut Vec<u8>,
    path: &StreamPath,
    mode: Mode,
    offset: u64,
    len: u64,
    crc: u32,
) -> Result<(), PayloadTooLarge> {
    let fits = offset.checked_add(len).is_some_and(|end| end <= FILE_LEN_MAX);
    if len > PAYLOAD_LEN_MAX || !fits {
        return Err(PayloadTooLarge { offset, len });
    }
    head(out, mode, letter::PAYLOAD, path.as_bytes(), b"");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Appends an end-of-file chunk. Alone, it makes an empty file.
pub fn end_of_file(out: &mut Vec<u8>, path: &StreamPath) {
    head(out, Mode::Create, letter::END, path.as_bytes(), b"");
}

/// Appends a seek chunk: the next payload of `path` goes to `offset`. Readers before 10.11.8 do
/// not know this.
pub fn seek(out: &mut Vec<u8>, path: &StreamPath, mode: Mode, offset: u64) {
    head(out, mode, letter::SEEK, path.as_bytes(), b"");
    out.extend_from_slice(&offset.to_le_bytes());
}

/// Appends a rename chunk. Readers before 10.11.8 do not know this, and the stock reader fails
/// when an end chunk comes right after it.
pub fn rename(out: &mut Vec<u8>, from: &StreamPath, to: &StreamPath) {
    head(out, Mode::Create, letter::RENAME, from.as_bytes(), b"");
    push_len(out, to.as_bytes().len());
    out.extend_from_slice(to.as_bytes());
}

/// Appends a remove chunk. Readers before 10.11.8 do not know this.
pub fn remove(out: &mut Vec<u8>, target: &RemoveTarget) {
    let suffix: &[u8] = match target {
        RemoveTarget::Exact(_) => b"",
        RemoveTarget::Prefix(_) => b"*",
    };
    head(out, Mode::Create, letter::REMOVE, target.path().as_bytes(), suffix);
}

/// The part that all chunks share. `suffix` belongs to the path.
fn head(out: &mut Vec<u8>, mode: Mode, letter: u8, path: &[u8], suffix: &[u8]) {
    let flags = match mode {
        Mode::Create => 0,
        Mode::Rewrite => FLAGS_REWRITE,
    };
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[flags, letter]);
    push_len(out, path.len() + suffix.len());
    out.extend_from_slice(path);
    out.extend_from_slice(suffix);
}

/// Lengths of paths are below [`PATH_LEN_LIMIT`] by their type, so the conversion is exact.
fn push_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

/// Writes whole files, one after the other, as the stock tool's `mbstream -c` does.
pub struct StreamWriter<W> {
    output: W,
    payload: Vec<u8>,
    header: Vec<u8>,
    payload_len: usize,
}

impl<W: Write> StreamWriter<W> {
    /// A writer that cuts files into payloads of [`PAYLOAD_LEN_MAX`].
    pub fn new(output: W) -> Self {
        Self::with_payload_len(output, PAYLOAD_LEN_MAX as usize)
    }

    /// A writer that cuts files into payloads of `payload_len`, at least 1 byte and at most
    /// [`PAYLOAD_LEN_MAX`].
    pub fn with_payload_len(output: W, payload_len: usize) -> Self {
        let payload_len = payload_len.clamp(1, PAYLOAD_LEN_MAX as usize);
        Self { output, payload: Vec::new(), header: Vec::new(), payload_len }
    }

    /// Writes all of `content` and the end of the file; returns the file's length.
    pub fn file(
        &mut self,
        path: &StreamPath,
        mode: Mode,
        content: &mut dyn Read,
    ) -> io::Result<u64> {
        let mut offset = 0;
        loop {
            self.payload.clear();
            let limit = self.payload_len as u64;
            let len = Read::take(&mut *content, limit).read_to_end(&mut self.payload)? as u64;
            if len > 0 {
                let crc = crc32fast::hash(&self.payload);
                self.header.clear();
                payload_header(&mut self.header, path, mode, offset, len, crc)
                    .map_err(io::Error::other)?;
                self.output.write_all(&self.header)?;
                self.output.write_all(&self.payload)?;
                offset += len;
            }
            if len < limit {
                break;
            }
        }
        self.header.clear();
        end_of_file(&mut self.header, path);
        self.output.write_all(&self.header)?;
        Ok(offset)
    }

    /// Flushes and returns the output.
    pub fn into_inner(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
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
    fn chunks_have_the_documented_bytes() {
        let mut out = Vec::new();
        let crc = crc32fast::hash(b"123456789");
        payload_header(&mut out, &path("d/t.ibd"), Mode::Create, 5, 9, crc).unwrap();
        assert_eq!(
            out,
            b"XBSTCK01\x00P\x07\x00\x00\x00d/t.ibd\
              \x09\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x26\x39\xf4\xcb"
        );

        out.clear();
        end_of_file(&mut out, &path("x"));
        assert_eq!(out, b"XBSTCK01\x00E\x01\0\0\0x");

        out.clear();
        seek(&mut out, &path("x"), Mode::Rewrite, 37);
        assert_eq!(out, b"XBSTCK01\x02S\x01\0\0\0x\x25\0\0\0\0\0\0\0");

        out.clear();
        rename(&mut out, &path("a"), &path("bc"));
        assert_eq!(out, b"XBSTCK01\x00R\x01\0\0\0a\x02\0\0\0bc");

        out.clear();
        remove(&mut out, &RemoveTarget::new("g/p#*").unwrap());
        assert_eq!(out, b"XBSTCK01\x00D\x05\0\0\0g/p#*");
    }

    #[test]
    fn payloads_beyond_the_limits_are_refused() {
        let mut out = Vec::new();
        let x = path("x");
        let mut encode = |offset, len| payload_header(&mut out, &x, Mode::Create, offset, len, 0);
        assert!(encode(0, PAYLOAD_LEN_MAX).is_ok());
        assert!(encode(0, PAYLOAD_LEN_MAX + 1).is_err());
        assert!(encode(u64::MAX, 1).is_err());
        assert!(encode(FILE_LEN_MAX, 1).is_err());
        assert!(encode(FILE_LEN_MAX - 1, 1).is_ok());
    }

    #[test]
    fn the_longest_header_fits_its_constant() {
        let mut out = Vec::with_capacity(HEADER_LEN_MAX);
        let long = path(&"x".repeat(511));
        rename(&mut out, &long, &long);
        assert!(out.len() <= HEADER_LEN_MAX);
    }
}
