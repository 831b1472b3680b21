//! Following the server's redo log while pages are copied.
//!
//! [`log_file`] reads the circular file by LSN; [`file_events`] remembers what the log says about
//! files; [`follower`] is the thread that loses no byte of it. [`standing`] finds the end of a log that
//! nobody writes.

mod file_events;
mod follower;
mod log_file;
pub mod standing;

pub use file_events::FileEvents;
pub use follower::{Followed, Follower, Source};
