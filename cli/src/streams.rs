//! Standard input and output as carriers of binary data.
//!
//! Promises: nothing binary goes to or comes from a terminal; both are unbuffered, because the
//! engine moves large pieces; waiting for input notices an interruption.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use engine::{Cancel, Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

/// How often a reader that waits looks whether it was interrupted.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Standard output, for a stream.
pub fn to_stdout() -> Result<Box<dyn Write + Send>> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        let message = "standard output is a terminal; a stream would garble it";
        return Err(Error::new(ErrorKind::Usage, message).advise(
            "send the stream into a file or a pipe, as in: haulout backup --stream > FILE",
        ));
    }
    let stdout = owned(&stdout, "standard output")?;
    // A pipe of the usual 64 KiB makes both ends wait for each other sixteen times per piece.
    // Where standard output is no pipe, or none may be larger, it works as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_SIZE);
    Ok(Box::new(File::from(stdout)))
}

/// As large as anybody may make a pipe without privileges.
const PIPE_SIZE: usize = 1 << 20;

/// Standard input, for a stream.
pub fn from_stdin(cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Error::new(ErrorKind::Usage, "standard input is a terminal, not a stream")
            .advise("send the stream in, as in: haulout extract --to DIR < FILE"));
    }
    let file = File::from(owned(&stdin, "standard input")?);
    Ok(Box::new(Interruptible { file, cancel: cancel.clone() }))
}

fn owned(stream: &impl AsFd, name: &str) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().map_err(|e| Error::io("open", name, e))
}

/// A file that is read only when there is something to read, so that no read blocks for long.
struct Interruptible {
    file: File,
    cancel: Cancel,
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                // Not `io::ErrorKind::Interrupted`, which readers take as a call to try again.
                return Err(io::Error::other("interrupted"));
            }
            let mut waiting = [PollFd::new(&self.file, PollFlags::IN)];
            match rustix::event::poll(&mut waiting, Some(&LOOK_UP)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_reader_that_waits_can_be_interrupted() {
        let (end, mut other) = io::pipe().unwrap();
        let cancel = Cancel::new();
        let file = File::from(OwnedFd::from(end));
        let mut reader = Interruptible { file, cancel: cancel.clone() };
        other.write_all(b"abc").unwrap();
        let mut buffer = [0; 10];
        assert_eq!(reader.read(&mut buffer).unwrap(), 3);
        let raised = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            cancel.cancel();
        });
        let started = Instant::now();
        assert!(reader.read(&mut buffer).is_err());
        assert!(started.elapsed() < Duration::from_secs(5));
        raised.join().unwrap();
    }

    #[test]
    fn the_end_of_input_is_seen() {
        let (end, other) = io::pipe().unwrap();
        drop(other);
        let file = File::from(OwnedFd::from(end));
        let mut reader = Interruptible { file, cancel: Cancel::new() };
        assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
    }
}
