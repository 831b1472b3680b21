//! Reading streams.
//!
//! [`StreamReader`] parses chunk after chunk from any input. It allocates nothing but paths
//! (below 512 bytes each), whatever lengths a hostile stream claims: payload bytes go straight
//! into the caller's buffer, in as many pieces as that takes, and the checksum is checked when
//! the last piece is read. The rules between chunks are not checked here but in
//! [`StreamState`](crate::StreamState).

use std::io::{self, BufRead, BufReader, Read};

use crate::chunk::{
    Chunk, FILE_LEN_MAX, FLAG_IGNORABLE, FLAGS, FLAGS_REWRITE, HEAD_LEN, MAGIC, PATH_LEN,
    PAYLOAD_CRC, PAYLOAD_FIELDS_LEN, PAYLOAD_LEN, PAYLOAD_OFFSET, TYPE, letter,
};
use crate::error::{Fault, StreamError};
use crate::path::{PATH_LEN_LIMIT, PathError, PathRule, RemoveTarget, StreamPath};

/// Small, because only headers should pass through it: reads of payload pieces at least this
/// long go past the buffer once it is empty.
const BUFFER_LEN: usize = 8 * 1024;

/// The payload of the current chunk, as far as it has not been read.
struct Payload {
    left: u64,
    crc: Option<Crc>,
}

/// A checksum in the making. Chunks that are skipped have none.
struct Crc {
    stored: u32,
    hasher: crc32fast::Hasher,
}

/// What is known about the place after the current chunk.
#[derive(Clone, Copy)]
enum Ahead {
    /// Nothing was read yet.
    Unknown,
    /// A magic was read, to tell the two kinds of `S` apart.
    Magic,
    /// So was the end of the input.
    End,
}

/// Parses the chunks of a stream.
pub struct StreamReader<R> {
    input: BufReader<R>,
    /// Bytes consumed so far.
    at: u64,
    /// Where the current chunk begins.
    chunk_at: u64,
    chunk_path: Option<StreamPath>,
    payload: Option<Payload>,
    ahead: Ahead,
}

impl<R: Read> StreamReader<R> {
    /// A reader at the beginning of a stream.
    pub fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER_LEN, input),
            at: 0,
            chunk_at: 0,
            chunk_path: None,
            payload: None,
            ahead: Ahead::Unknown,
        }
    }

    /// Bytes of the stream that were consumed.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// An error about the chunk that was returned last, for what a caller finds wrong with it.
    pub fn error(&self, fault: Fault) -> StreamError {
        StreamError { at: self.chunk_at, path: self.chunk_path.clone(), fault }
    }

    /// The next chunk, or `None` at the end of the stream.
    ///
    /// What the caller left unread of the last chunk's payload is read and checked first.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, StreamError> {
        self.skip_payload()?;
        self.parse().map_err(|fault| self.error(fault))
    }

    /// Fills `buffer` from the payload of the current chunk; returns how many bytes it got, less
    /// than asked for only at the payload's end, 0 when nothing is left. Fails with
    /// [`Fault::Checksum`] instead of returning the last piece of a damaged payload.
    pub fn read_payload(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        self.fill_from_payload(buffer).map_err(|fault| self.error(fault))
    }

    fn fill_from_payload(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let Some(payload) = &mut self.payload else { return Ok(0) };
        let want = usize::try_from(payload.left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.split_at_mut(want).0;
        let got = read_full(&mut self.input, piece).map_err(Fault::Io)?;
        self.at = self.at.saturating_add(got as u64);
        payload.left -= got as u64;
        if got < want {
            return Err(Fault::TruncatedPayload { missing: payload.left });
        }
        if let Some(crc) = &mut payload.crc {
            crc.hasher.update(piece);
        }
        if payload.left > 0 {
            return Ok(got);
        }
        let finished = self.payload.take();
        if let Some(Crc { stored, hasher }) = finished.and_then(|payload| payload.crc) {
            let computed = hasher.finalize();
            if computed != stored {
                return Err(Fault::Checksum { stored, computed });
            }
        }
        Ok(got)
    }

    fn skip_payload(&mut self) -> Result<(), StreamError> {
        if self.payload.is_none() {
            return Ok(());
        }
        let mut scratch = vec![0; BUFFER_LEN];
        while self.payload.is_some() {
            self.read_payload(&mut scratch)?;
        }
        Ok(())
    }

    fn parse(&mut self) -> Result<Option<Chunk>, Fault> {
        self.chunk_path = None;
        let more = match std::mem::replace(&mut self.ahead, Ahead::Unknown) {
            Ahead::Unknown => {
                self.chunk_at = self.at;
                self.read_magic()?
            }
            Ahead::Magic => {
                self.chunk_at = self.at.saturating_sub(MAGIC.len() as u64);
                true
            }
            Ahead::End => false,
        };
        if !more {
            return Ok(None);
        }

        let rest: [u8; HEAD_LEN - FLAGS] = self.read_array("head")?;
        let [flags, letter, path_len @ ..] = rest;
        let path_bytes = self.read_path_bytes("path", u32::from_le_bytes(path_len))?;
        let rewrite = flags == FLAGS_REWRITE;

        if letter == letter::REMOVE {
            let target = RemoveTarget::new(&path_bytes)?;
            self.chunk_path = Some(target.path().clone());
            return Ok(Some(Chunk::Remove { target }));
        }
        let path = StreamPath::new(&path_bytes)?;
        self.chunk_path = Some(path.clone());
        let chunk = match letter {
            letter::PAYLOAD => self.parse_payload(path, rewrite)?,
            letter::END => Chunk::End { path, rewrite },
            letter::SEEK => self.parse_seek(path, rewrite)?,
            letter::RENAME => {
                let len = u32::from_le_bytes(self.read_array("new path's length")?);
                let to = StreamPath::new(self.read_path_bytes("new path", len)?)?;
                Chunk::Rename { from: path, to }
            }
            unknown if flags & FLAG_IGNORABLE != 0 => {
                let fields = self.read_payload_fields()?;
                self.payload = Some(Payload { left: fields.len, crc: None })
                    .filter(|payload| payload.left > 0);
                Chunk::Ignorable { letter: unknown, path, len: fields.len }
            }
            unknown => return Err(Fault::UnknownType(unknown)),
        };
        Ok(Some(chunk))
    }

    fn parse_payload(&mut self, path: StreamPath, rewrite: bool) -> Result<Chunk, Fault> {
        let PayloadFields { len, offset, crc } = self.read_payload_fields()?;
        if offset.checked_add(len).is_none_or(|end| end > FILE_LEN_MAX) {
            return Err(Fault::Range { offset, len });
        }
        if len > 0 {
            let crc = Crc { stored: crc, hasher: crc32fast::Hasher::new() };
            self.payload = Some(Payload { left: len, crc: Some(crc) });
        } else if crc != 0 {
            // The checksum of nothing.
            return Err(Fault::Checksum { stored: crc, computed: 0 });
        }
        Ok(Chunk::Payload { path, offset, len, crc, rewrite })
    }

    /// A seek is followed by a magic or by the end; anything else is what Percona's tool calls
    /// `S`: a sparse map, whose first eight bytes are two counts.
    fn parse_seek(&mut self, path: StreamPath, rewrite: bool) -> Result<Chunk, Fault> {
        let offset = u64::from_le_bytes(self.read_array("seek offset")?);
        self.ahead = match self.read_magic() {
            Ok(true) => Ahead::Magic,
            Ok(false) => Ahead::End,
            Err(Fault::Magic { .. } | Fault::TruncatedHeader { .. }) => {
                return Err(Fault::PerconaSparse);
            }
            Err(other) => return Err(other),
        };
        if offset > FILE_LEN_MAX {
            return Err(Fault::Range { offset, len: 0 });
        }
        Ok(Chunk::Seek { path, offset, rewrite })
    }

    fn read_payload_fields(&mut self) -> Result<PayloadFields, Fault> {
        let bytes: [u8; PAYLOAD_FIELDS_LEN] = self.read_array("payload header")?;
        let field = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk);
        let crc = bytes.get(PAYLOAD_CRC..).and_then(<[u8]>::first_chunk);
        match (field(PAYLOAD_LEN), field(PAYLOAD_OFFSET), crc) {
            (Some(len), Some(offset), Some(crc)) => Ok(PayloadFields {
                len: u64::from_le_bytes(*len),
                offset: u64::from_le_bytes(*offset),
                crc: u32::from_le_bytes(*crc),
            }),
            _ => Err(Fault::TruncatedHeader { field: "payload header" }),
        }
    }

    /// Whether a chunk begins here; `false` at the end of the input.
    fn read_magic(&mut self) -> Result<bool, Fault> {
        if is_at_end(&mut self.input).map_err(Fault::Io)? {
            return Ok(false);
        }
        let found: [u8; MAGIC.len()] = self.read_array("magic")?;
        if found != MAGIC {
            return Err(Fault::Magic { found });
        }
        Ok(true)
    }

    fn read_path_bytes(&mut self, field: &'static str, len: u32) -> Result<Vec<u8>, Fault> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len >= PATH_LEN_LIMIT {
            let path = format!("({len} bytes)");
            return Err(PathError { path, rule: PathRule::TooLong }.into());
        }
        let mut bytes = vec![0; len];
        self.read_exact(field, &mut bytes)?;
        Ok(bytes)
    }

    fn read_array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.read_exact(field, &mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, field: &'static str, bytes: &mut [u8]) -> Result<(), Fault> {
        let got = read_full(&mut self.input, bytes).map_err(Fault::Io)?;
        self.at = self.at.saturating_add(got as u64);
        if got < bytes.len() {
            return Err(Fault::TruncatedHeader { field });
        }
        Ok(())
    }
}

struct PayloadFields {
    len: u64,
    offset: u64,
    crc: u32,
}

const _: () = assert!(TYPE == FLAGS + 1 && PATH_LEN == TYPE + 1, "the head is taken apart so");

/// Reads until `buffer` is full or the input ends.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest @ [_, ..]) = buffer.get_mut(done..) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether nothing is left to read.
fn is_at_end(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        match input.fill_buf() {
            Ok(bytes) => return Ok(bytes.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
