//! Where an extraction gets chunks from: a stream, or whoever would only make one to have it unpacked.

use std::io::Read;

use xbstream::{Chunk, Fault, StreamError, StreamReader};

use crate::io::Pieces;
use crate::{Error, ErrorKind, Result};

/// Gives chunk after chunk. The rules between chunks are not its business.
pub(crate) trait Feed: Send {
    /// The next chunk, `None` after the last. The payload of the one before was taken.
    fn next_chunk(&mut self) -> Result<Option<Chunk>>;

    /// What comes next of the current chunk's payload: as much as the buffer has room for, less only
    /// at its end, nothing behind that.
    fn next_part(&mut self, buffer: &mut [u8]) -> Result<Part>;

    /// An error about the chunk that was given last, for what a caller finds wrong with it.
    fn error(&self, fault: Fault) -> Error;
}

/// A part of a payload.
pub(crate) enum Part {
    /// The first bytes of the buffer.
    Here(usize),
    /// To be copied into the buffer, when the stream was let go.
    There(Pieces),
}

impl Part {
    /// How long it is.
    pub fn len(&self) -> usize {
        match self {
            Self::Here(len) => *len,
            Self::There(pieces) => pieces.len(),
        }
    }

    /// Its bytes, in the buffer it was asked for with. Where they were before can be used again.
    pub fn fetch(self, buffer: &mut [u8]) -> &mut [u8] {
        let len = self.len();
        if let Self::There(pieces) = self {
            pieces.copy_to(buffer);
        }
        buffer.get_mut(..len).unwrap_or_default()
    }
}

/// Chunks as they are parsed.
pub(crate) struct Parsed {
    reader: StreamReader<Box<dyn Read + Send>>,
}

impl Parsed {
    /// At the beginning of a stream.
    pub fn new(input: Box<dyn Read + Send>) -> Self {
        Self { reader: StreamReader::new(input) }
    }
}

impl Feed for Parsed {
    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        self.reader.next_chunk().map_err(stream_error)
    }

    fn next_part(&mut self, buffer: &mut [u8]) -> Result<Part> {
        self.reader.read_payload(buffer).map(Part::Here).map_err(stream_error)
    }

    fn error(&self, fault: Fault) -> Error {
        stream_error(self.reader.error(fault))
    }
}

/// An unreadable input is a failure, everything else is damage.
fn stream_error(error: StreamError) -> Error {
    match error.fault {
        Fault::Io(_) => Error::new(ErrorKind::Failed, "cannot unpack").caused_by(error),
        _ => Error::new(ErrorKind::Damage, "cannot unpack").caused_by(error).advise(
            "the stream was cut off or changed on its way, or is no MariaDB backup stream; what \
             was unpacked so far is not a backup",
        ),
    }
}
