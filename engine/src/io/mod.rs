//! Files, buffers and `io_uring`; the only `unsafe` of the project.

pub mod buffer;
pub mod direct;
pub mod durable;
pub mod holes;
pub mod pieces;
pub mod pool;
pub mod read_ahead;
pub mod spool;

pub use buffer::Buffer;
pub use pieces::Pieces;
pub use pool::{Pool, Pooled};
pub use read_ahead::{IoMode, ReadAhead};
