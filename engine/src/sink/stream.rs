//! A backup as one xbstream.
//!
//! The checksum of a piece is computed by the thread that brings it, before it takes its turn;
//! header and payload then go out in one vectored write. Pieces of one file leave in the order of
//! their offsets, as the format demands; different files interleave freely.

use std::io::{self, IoSlice, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use xbstream::writer;
use xbstream::{PAYLOAD_LEN_MAX, RemoveTarget};

use super::{Mode, Sink, SinkFile, StreamPath, aborted};
use crate::{Error, ErrorKind, Result};

/// How often a waiting thread looks whether the backup was given up.
const WAIT: Duration = Duration::from_millis(100);

/// Writes chunks to one output.
pub struct StreamSink {
    shared: Arc<Shared>,
}

struct Shared {
    output: Mutex<Box<dyn Write + Send>>,
    aborted: AtomicBool,
    /// The error that a write ended with: half a chunk may be out, so nothing may follow, and
    /// every thread that tries is told the same reason.
    failure: OnceLock<Option<i32>>,
}

impl StreamSink {
    /// Writes to `output`.
    pub fn new(output: Box<dyn Write + Send>) -> Self {
        Self {
            shared: Arc::new(Shared {
                output: Mutex::new(output),
                aborted: AtomicBool::new(false),
                failure: OnceLock::new(),
            }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn send(&self, header: &[u8], payload: &[u8]) -> Result<()> {
        if self.aborted.load(Ordering::Relaxed) {
            return Err(aborted());
        }
        let mut output = lock(&self.output);
        if let Some(code) = self.failure.get() {
            return Err(cannot_write(
                code.map_or_else(|| io::ErrorKind::WriteZero.into(), io::Error::from_raw_os_error),
            ));
        }
        write_all_vectored(&mut **output, header, payload).map_err(|error| {
            self.failure.get_or_init(|| error.raw_os_error());
            cannot_write(error)
        })
    }
}

fn cannot_write(error: io::Error) -> Error {
    let closed = error.kind() == io::ErrorKind::BrokenPipe;
    let error = Error::new(ErrorKind::Failed, "cannot write the stream").caused_by(error);
    match closed {
        true => error.advise("the program that reads the stream has ended; see its messages"),
        false => error,
    }
}

/// Writes both parts, in one system call where the output takes it whole.
fn write_all_vectored(output: &mut dyn Write, header: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < header.len() {
        let slices = [IoSlice::new(header.get(done..).unwrap_or_default()), IoSlice::new(payload)];
        match output.write_vectored(&slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    output.write_all(payload.get(done - header.len()..).unwrap_or_default())
}

impl Sink for StreamSink {
    fn begin(&self, path: &StreamPath, mode: Mode) -> Result<Box<dyn SinkFile>> {
        Ok(Box::new(StreamFile {
            shared: Arc::clone(&self.shared),
            path: path.clone(),
            mode,
            next: Mutex::new(0),
            advanced: Condvar::new(),
        }))
    }

    fn remove(&self, path: &StreamPath) -> Result<()> {
        let mut header = Vec::new();
        writer::remove(&mut header, &RemoveTarget::Exact(path.clone()));
        self.shared.send(&header, b"")
    }

    fn takes_nested_paths(&self) -> bool {
        false
    }

    fn takes_any_order(&self) -> bool {
        false
    }

    fn rewrites_freely(&self) -> bool {
        false
    }

    fn abort(&self) {
        self.shared.aborted.store(true, Ordering::Relaxed);
    }

    fn finish(&self) -> Result<()> {
        let flushed = lock(&self.shared.output).flush();
        flushed.map_err(|error| {
            Error::new(ErrorKind::Failed, "cannot write the stream").caused_by(error)
        })
    }
}

struct StreamFile {
    shared: Arc<Shared>,
    path: StreamPath,
    mode: Mode,
    /// Offset of the piece whose turn it is.
    next: Mutex<u64>,
    advanced: Condvar,
}

impl StreamFile {
    fn payload(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut header = Vec::with_capacity(64 + self.path.as_bytes().len());
        let crc = crc32fast::hash(bytes);
        writer::payload_header(&mut header, &self.path, self.mode, offset, bytes.len() as u64, crc)
            .map_err(|error| {
                Error::new(ErrorKind::Failed, "cannot write the stream").caused_by(error)
            })?;
        let mut next = lock(&self.next);
        while *next != offset {
            if self.shared.aborted.load(Ordering::Relaxed) {
                return Err(aborted());
            }
            next = self.advanced.wait_timeout(next, WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.shared.send(&header, bytes)?;
        *next += bytes.len() as u64;
        self.advanced.notify_all();
        Ok(())
    }
}

impl SinkFile for StreamFile {
    fn write(&self, mut offset: u64, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(PAYLOAD_LEN_MAX as usize) {
            self.payload(offset, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    fn patch(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut seek = Vec::new();
        writer::seek(&mut seek, &self.path, self.mode, offset);
        self.shared.send(&seek, b"")?;
        *lock(&self.next) = offset;
        self.write(offset, bytes)
    }

    fn finish(&self) -> Result<()> {
        let mut header = Vec::new();
        if self.mode == Mode::Rewrite && *lock(&self.next) == 0 {
            // Only a payload says that the file is to be emptied.
            writer::payload_header(&mut header, &self.path, self.mode, 0, 0, 0).map_err(
                |error| Error::new(ErrorKind::Failed, "cannot write the stream").caused_by(error),
            )?;
        }
        writer::end_of_file(&mut header, &self.path);
        self.shared.send(&header, b"")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sink::backup_path;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Short writes, so that continuing after one is tested too.
            let taken = bytes.len().min(1000);
            lock(&self.0).extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_from_several_threads_leave_in_order() {
        let output = Output::default();
        let sink = StreamSink::new(Box::new(output.clone()));
        let file = sink.begin(&backup_path("db/t.ibd").unwrap(), Mode::Create).unwrap();
        let content: Vec<u8> = (0..200_000u32).map(|i| (i / 11) as u8).collect();
        std::thread::scope(|scope| {
            for thread in (0..4).rev() {
                let (file, content) = (&file, &content);
                scope.spawn(move || {
                    for piece in (thread..20).step_by(4) {
                        file.write(piece as u64 * 10_000, &content[piece * 10_000..][..10_000])
                            .unwrap();
                    }
                });
            }
        });
        file.finish().unwrap();
        sink.finish().unwrap();

        let stream = lock(&output.0).clone();
        let mut expected = Vec::new();
        let path = backup_path("db/t.ibd").unwrap();
        for (piece, bytes) in content.chunks(10_000).enumerate() {
            let crc = crc32fast::hash(bytes);
            writer::payload_header(
                &mut expected,
                &path,
                Mode::Create,
                piece as u64 * 10_000,
                10_000,
                crc,
            )
            .unwrap();
            expected.extend(bytes);
        }
        writer::end_of_file(&mut expected, &path);
        assert!(stream == expected);
    }

    #[test]
    fn a_thread_that_waits_for_its_turn_learns_of_an_abort() {
        let sink = StreamSink::new(Box::new(io::sink()));
        let file = sink.begin(&backup_path("t").unwrap(), Mode::Create).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| file.write(500, b"x"));
            sink.abort();
            assert!(waiting.join().unwrap().is_err());
        });
    }
}
