//! The layout of a chunk.
//!
//! Every chunk begins with the same head:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `XBSTCK01` |
//! | 8 | 1 | flags: 0x01 ignorable, 0x02 rewrite |
//! | 9 | 1 | type letter |
//! | 10 | 4 | path length n, below 512 |
//! | 14 | n | path, relative to the root of the backup |
//!
//! What follows depends on the type:
//!
//! | type | meaning | after the path |
//! |---|---|---|
//! | `P` | payload | 8 length, 8 file offset, 4 CRC-32 of the payload, the payload |
//! | `E` | end of file | nothing |
//! | `S` | seek | 8 new file offset |
//! | `R` | rename | 4 length m, m bytes of the new path |
//! | `D` | remove | nothing; the path may end in `*` |
//!
//! Percona's tool writes `S` too, for sparse payloads of another layout. The reader tells the
//! two apart by whether a magic follows the offset, and refuses the sparse one by name.

use crate::path::{RemoveTarget, StreamPath};

/// The first bytes of every chunk.
pub const MAGIC: [u8; 8] = *b"XBSTCK01";

/// Offset of the flags byte.
pub const FLAGS: usize = 8;
/// Offset of the type letter.
pub const TYPE: usize = 9;
/// Offset of the path length.
pub const PATH_LEN: usize = 10;
/// Bytes before the path.
pub const HEAD_LEN: usize = 14;

/// Within the fields of a payload chunk, after the path: the payload's length.
pub const PAYLOAD_LEN: usize = 0;
/// Within the fields of a payload chunk: where in the file the payload belongs.
pub const PAYLOAD_OFFSET: usize = 8;
/// Within the fields of a payload chunk: CRC-32 of the payload.
pub const PAYLOAD_CRC: usize = 16;
/// Bytes between path and payload.
pub const PAYLOAD_FIELDS_LEN: usize = 20;

/// Largest payload that the stock tool collects into one chunk, and that a writer may send.
pub const PAYLOAD_LEN_MAX: u64 = 10 * 1024 * 1024;

/// A file cannot grow beyond this: offsets are signed in the system's file interface.
pub const FILE_LEN_MAX: u64 = i64::MAX as u64;

/// Flag: a reader that does not know the type may skip the chunk.
pub const FLAG_IGNORABLE: u8 = 0x01;
/// The flags byte of a chunk that truncates its file if it exists. The stock reader compares
/// the whole byte, so this is a value and not a bit.
pub const FLAGS_REWRITE: u8 = 0x02;

/// Type letters.
pub mod letter {
    /// Payload.
    pub const PAYLOAD: u8 = b'P';
    /// End of file.
    pub const END: u8 = b'E';
    /// Seek (or Percona's sparse payload).
    pub const SEEK: u8 = b'S';
    /// Rename.
    pub const RENAME: u8 = b'R';
    /// Remove.
    pub const REMOVE: u8 = b'D';
}

const _: () = assert!(FLAGS == MAGIC.len());
const _: () = assert!(TYPE == FLAGS + 1);
const _: () = assert!(PATH_LEN == TYPE + 1);
const _: () = assert!(HEAD_LEN == PATH_LEN + size_of::<u32>());
const _: () = assert!(PAYLOAD_OFFSET == PAYLOAD_LEN + size_of::<u64>());
const _: () = assert!(PAYLOAD_CRC == PAYLOAD_OFFSET + size_of::<u64>());
const _: () = assert!(PAYLOAD_FIELDS_LEN == PAYLOAD_CRC + size_of::<u32>());

/// A chunk without its payload bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// `len` bytes of `path` at `offset`.
    Payload {
        /// The file.
        path: StreamPath,
        /// Where in the file the payload belongs.
        offset: u64,
        /// Payload bytes; `offset + len` does not exceed [`FILE_LEN_MAX`].
        len: u64,
        /// CRC-32 (ISO 3309) of the payload.
        crc: u32,
        /// Whether the file is to be truncated, should it exist.
        rewrite: bool,
    },
    /// The file is complete. As its only chunk, this makes an empty file.
    End {
        /// The file.
        path: StreamPath,
        /// Whether the file is to be truncated, should it exist.
        rewrite: bool,
    },
    /// The next payload of the file goes to `offset`; the gap reads as zeros.
    Seek {
        /// The file.
        path: StreamPath,
        /// The new position.
        offset: u64,
        /// Whether the file is to be truncated, should it exist.
        rewrite: bool,
    },
    /// A file that was sent under one name now has another.
    Rename {
        /// The old name.
        from: StreamPath,
        /// The new name.
        to: StreamPath,
    },
    /// What was sent before is to be deleted.
    Remove {
        /// A file, a folder with its files, or every file with a common prefix.
        target: RemoveTarget,
    },
    /// A chunk of unknown type whose flags allow to skip it. It is laid out like a payload.
    Ignorable {
        /// The type letter.
        letter: u8,
        /// The file.
        path: StreamPath,
        /// Bytes that are skipped.
        len: u64,
    },
}

impl Chunk {
    /// How many payload bytes follow in the stream.
    pub fn payload_len(&self) -> u64 {
        match self {
            Self::Payload { len, .. } | Self::Ignorable { len, .. } => *len,
            _ => 0,
        }
    }

    /// The path in the head of the chunk.
    pub fn path(&self) -> &StreamPath {
        match self {
            Self::Payload { path, .. }
            | Self::End { path, .. }
            | Self::Seek { path, .. }
            | Self::Ignorable { path, .. } => path,
            Self::Rename { from, .. } => from,
            Self::Remove { target } => target.path(),
        }
    }
}
