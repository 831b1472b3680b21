//! The xbstream container: what `mbstream` packs and unpacks.
//!
//! A stream is a plain sequence of chunks, without header, trailer or index. Every chunk names
//! its file, so chunks of many files may interleave. All integers are little-endian.
//!
//! | module | what |
//! |---|---|
//! | [`chunk`] | the layout of a chunk, as a table of offsets, and its parsed form |
//! | [`path`] | the one type for a path that is safe to use below a folder |
//! | [`writer`] | chunk headers for a zero-copy pipeline, and a plain serial writer |
//! | [`reader`] | parsing chunks from any [`std::io::Read`], in bounded memory |
//! | [`state`] | the rules between chunks: order of offsets, one end per file, reopening |
//! | [`error`] | what can be wrong with a stream, and where |
//!
//! The container protects payload bytes by a checksum and nothing else: a stream that was cut
//! between two chunks parses well. [`state::StreamState::finish`] notices files without an end;
//! that a whole file is absent only the backup's own metadata can tell.

#![forbid(unsafe_code)]

pub mod chunk;
pub mod error;
pub mod path;
pub mod reader;
pub mod state;
pub mod writer;

pub use chunk::{Chunk, PAYLOAD_LEN_MAX};
pub use error::{Fault, StreamError};
pub use path::{PathError, RemoveTarget, StreamPath};
pub use reader::StreamReader;
pub use state::{Opening, StreamState};
pub use writer::StreamWriter;
