//! Where a backup goes: a folder or an xbstream, its files compressed one by one or as they are.
//!
//! A sink takes files in pieces from several threads. Pieces of one file are cut by the caller so
//! that they follow each other without gaps; a folder takes them in any order, a stream makes
//! the thread that is early wait for its turn. Once [`Sink::abort`] was called, or a write
//! failed, every other call fails soon, so that no thread waits for one that gave up.

mod folder;
mod qpress;
mod stream;

pub use folder::FolderSink;
pub use qpress::QpressSink;
pub use stream::StreamSink;
pub use xbstream::StreamPath;
pub use xbstream::writer::Mode;

use crate::{Error, ErrorKind, Result};

/// Takes the files of a backup.
pub trait Sink: Send + Sync {
    /// Begins a file. With [`Mode::Rewrite`] it replaces one that was finished before.
    fn begin(&self, path: &StreamPath, mode: Mode) -> Result<Box<dyn SinkFile>>;

    /// Removes a file that was finished before.
    fn remove(&self, path: &StreamPath) -> Result<()>;

    /// Puts an empty directory into the backup: one with an empty `db.opt`, as the stock tool does,
    /// because a stream knows no directories and a prepare takes empty ones for dropped databases.
    fn directory(&self, path: &StreamPath) -> Result<()> {
        let path = backup_path([path.as_bytes(), b"/db.opt"].concat())?;
        self.begin(&path, Mode::Create)?.finish()
    }

    /// Whether a file deeper than one directory can be read back by the stock tools.
    fn takes_nested_paths(&self) -> bool;

    /// Whether pieces of one file may come in any order without a thread waiting.
    fn takes_any_order(&self) -> bool;

    /// Whether replacing and removing files costs nothing; else they are better copied late.
    fn rewrites_freely(&self) -> bool;

    /// Makes every call from now on fail, and wakes threads that wait for their turn.
    fn abort(&self);

    /// All files are finished: makes them durable as far as the sink can.
    fn finish(&self) -> Result<()>;
}

/// A file being written. Shared by the threads that write its pieces.
pub trait SinkFile: Send + Sync {
    /// Writes a piece at `offset`. All pieces together must cover the file without gaps.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Writes a piece of a file that has holes at the server: blocks of zeros may be left out.
    fn write_sparse(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write(offset, bytes)
    }

    /// Overwrites bytes that were written before; only after all pieces were.
    fn patch(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// The file is complete; nothing may be written to it any more.
    fn finish(&self) -> Result<()>;
}

/// A whole small file at once.
pub fn write_file(sink: &dyn Sink, path: &StreamPath, mode: Mode, bytes: &[u8]) -> Result<()> {
    let file = sink.begin(path, mode)?;
    if !bytes.is_empty() {
        file.write(0, bytes)?;
    }
    file.finish()
}

/// A path of the backup, checked: relative, and without `.` or `..`.
pub fn backup_path(path: impl AsRef<[u8]>) -> Result<StreamPath> {
    let bytes = path.as_ref();
    StreamPath::new(bytes).map_err(|error| {
        let name = String::from_utf8_lossy(bytes).into_owned();
        Error::new(ErrorKind::Failed, format!("{name} cannot be the name of a file in a backup"))
            .caused_by(error)
    })
}

/// What a call on an aborted sink returns: the thread that aborted has the reason.
fn aborted() -> Error {
    Error::new(ErrorKind::Interrupted, "the backup was given up")
}
