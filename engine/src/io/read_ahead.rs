//! Reading ahead of a consumer: a few large reads in flight, handed out in the order they were asked for.
//!
//! With `io_uring` the reads run while the consumer works on the buffer before; without it (old
//! kernels, sandboxes, `kernel.io_uring_disabled`) each read happens when its turn comes. Both
//! give the same bytes; a short read means the end of the file.
//!
//! Invariant: a buffer belongs to the kernel from submission to completion, and nothing drops,
//! moves or reads it in between; dropping a [`ReadAhead`] waits for what is in flight.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use io_uring::{IoUring, opcode, types};
use rustix::fs::Advice;

use super::buffer::Buffer;

/// Which way of reading to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMode {
    /// `io_uring` where the kernel allows it, else plain reads.
    #[default]
    Auto,
    /// `io_uring` or an error.
    Uring,
    /// Plain `pread`.
    Pread,
}

/// Reads in flight, in order. `T` travels with each request.
pub struct ReadAhead<T> {
    ring: Option<IoUring>,
    in_flight: VecDeque<Request<T>>,
    spare: Vec<Buffer>,
    depth: usize,
    /// Number of the request at the front of `in_flight`, to find a completed one by its number.
    front: u64,
}

struct Request<T> {
    tag: T,
    file: Arc<File>,
    offset: u64,
    buffer: Buffer,
    /// Result of the kernel, once complete; `None` before, and for plain reads until their turn.
    result: Option<i32>,
}

impl<T> ReadAhead<T> {
    /// Up to `depth` reads in flight.
    pub fn new(mode: IoMode, depth: usize) -> io::Result<Self> {
        let depth = depth.clamp(1, 64);
        let ring = match mode {
            IoMode::Pread => None,
            IoMode::Uring => Some(IoUring::new(depth as u32)?),
            IoMode::Auto => IoUring::new(depth as u32).ok(),
        };
        let depth = if ring.is_some() { depth } else { 1 };
        Ok(Self { ring, in_flight: VecDeque::new(), spare: Vec::new(), depth, front: 0 })
    }

    /// Whether another read may be asked for.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.depth
    }

    /// Asks for `length` bytes of `file` at `offset`.
    pub fn push(&mut self, file: Arc<File>, offset: u64, length: usize, tag: T) -> io::Result<()> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.set_len(length);
        let number = self.front + self.in_flight.len() as u64;
        if let Some(ring) = &mut self.ring {
            let size =
                u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            let fd = types::Fd(file.as_raw_fd());
            let read = opcode::Read::new(fd, buffer.as_mut_ptr(), size)
                .offset(offset)
                .build()
                .user_data(number);
            // SAFETY: the buffer's memory and the file stay in `in_flight`, untouched, until the
            // completion of this request was seen; `drop` waits for that too. The buffer is
            // `length` bytes long, and moving it does not move its heap memory.
            #[expect(
                unsafe_code,
                reason = "io_uring reads into memory that the type system cannot lend out"
            )]
            unsafe { ring.submission().push(&read) }
                .map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
            self.in_flight.push_back(Request { tag, file, offset, buffer, result: None });
            self.submit()?;
        } else {
            self.in_flight.push_back(Request { tag, file, offset, buffer, result: None });
        }
        Ok(())
    }

    /// Waits for the oldest read. The buffer holds what was read: shorter than asked for only at
    /// the end of the file. `None` when nothing is in flight.
    pub fn pop(&mut self) -> Option<(T, io::Result<Buffer>)> {
        self.in_flight.front()?;
        if self.ring.is_some() {
            while self.in_flight.front().is_some_and(|request| request.result.is_none()) {
                if let Err(error) = self.wait() {
                    // Without completions there is no safe way on: the front request stays in flight.
                    return self
                        .in_flight
                        .front()
                        .map(|_| error)
                        .and_then(|error| self.fail(error));
                }
            }
        }
        let mut request = self.in_flight.pop_front()?;
        self.front += 1;
        let done = match request.result {
            None => Ok(0),
            Some(read @ 0..) => Ok(read as usize),
            Some(error) if -error == rustix::io::Errno::INTR.raw_os_error() => Ok(0),
            Some(error) if -error == rustix::io::Errno::AGAIN.raw_os_error() => Ok(0),
            Some(error) => Err(io::Error::from_raw_os_error(-error)),
        };
        // A read may be cut short anywhere; only a read of zero bytes is the end of the file.
        let read = done.and_then(|done| {
            let length = read_full(&request.file, &mut request.buffer, request.offset, done)?;
            request.buffer.set_len(length);
            Ok(request.buffer)
        });
        Some((request.tag, read))
    }

    /// Gives a buffer back for later reads.
    pub fn recycle(&mut self, buffer: Buffer) {
        if self.spare.len() < self.depth {
            self.spare.push(buffer);
        }
    }

    fn fail(&mut self, error: io::Error) -> Option<(T, io::Result<Buffer>)> {
        // Leak the ring's memory rather than free what the kernel may still write to.
        let requests = std::mem::take(&mut self.in_flight);
        self.ring = None;
        let mut tag = None;
        for request in requests {
            std::mem::forget(request.buffer);
            tag.get_or_insert(request.tag);
        }
        tag.map(|tag| (tag, Err(error)))
    }

    fn submit(&mut self) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        loop {
            match ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for completion in ring.completion() {
            let index = completion.user_data().wrapping_sub(self.front) as usize;
            if let Some(request) = self.in_flight.get_mut(index) {
                request.result = Some(completion.result());
            }
        }
        Ok(())
    }
}

impl<T> Drop for ReadAhead<T> {
    fn drop(&mut self) {
        while self.ring.is_some() && self.in_flight.iter().any(|request| request.result.is_none()) {
            if self.wait().is_err() {
                let _ = self.fail(io::Error::from(io::ErrorKind::Other));
            }
        }
    }
}

/// Fills `buffer` from position `done` on; returns how much there was.
fn read_full(file: &File, buffer: &mut [u8], offset: u64, mut done: usize) -> io::Result<usize> {
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads at most `buffer.len()` bytes at `offset`; fewer only at the end of the file.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    read_full(file, buffer, offset, 0)
}

/// Lets the kernel forget what it holds of a part of a file. It is advice: an error, which some
/// file systems give, changes nothing.
pub fn drop_cached(file: &File, offset: u64, length: u64) {
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn read_all(mode: IoMode, depth: usize) -> Vec<(usize, Vec<u8>)> {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let mut reader = ReadAhead::new(mode, depth).unwrap();
        let mut asked = 0;
        let mut read = Vec::new();
        loop {
            while reader.has_room() && asked < 13 {
                reader.push(Arc::clone(&file), asked as u64 * 8192, 8192, asked).unwrap();
                asked += 1;
            }
            let Some((tag, bytes)) = reader.pop() else { break };
            let bytes = bytes.unwrap();
            assert_eq!(*bytes, content[(tag * 8192).min(100_000)..((tag + 1) * 8192).min(100_000)]);
            read.push((tag, bytes.to_vec()));
            reader.recycle(bytes);
        }
        read
    }

    #[test]
    fn plain_reads_come_in_order_and_end_short() {
        let read = read_all(IoMode::Pread, 4);
        assert_eq!(read.len(), 13);
        assert!(read.iter().map(|(tag, _)| *tag).eq(0..13));
    }

    #[test]
    fn the_ring_gives_the_same_bytes_in_the_same_order() {
        if IoUring::new(4).is_err() {
            eprintln!("no io_uring here: only the plain reads were tested");
            return;
        }
        assert_eq!(read_all(IoMode::Uring, 4), read_all(IoMode::Pread, 1));
    }

    #[test]
    fn dropping_with_reads_in_flight_is_safe() {
        let file = Arc::new(File::open("/dev/zero").unwrap());
        let mut reader = ReadAhead::new(IoMode::Auto, 8).unwrap();
        while reader.has_room() {
            reader.push(Arc::clone(&file), 0, 1 << 16, ()).unwrap();
        }
    }
}
