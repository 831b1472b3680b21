//! A queue between a producer that must never wait and a consumer that may be slow.
//!
//! Blocks stay in memory up to a limit; beyond it they go to an unlinked temporary file, and come
//! back in order. The producer only ever waits for that file, never for the consumer.
//!
//! Invariant: while the file holds blocks, new blocks go behind them into the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Largest piece that is read back from the file at once.
const READ_BACK: u64 = 1 << 20;

/// The queue. Shared by reference between the two threads.
pub struct Spool {
    state: Mutex<State>,
    changed: Condvar,
    memory_limit: usize,
    dir: PathBuf,
}

#[derive(Default)]
struct State {
    blocks: VecDeque<Vec<u8>>,
    in_memory: usize,
    file: Option<File>,
    written: u64,
    read: u64,
    closed: bool,
    abandoned: bool,
}

impl Spool {
    /// Keeps up to `memory_limit` bytes in memory; the file, if ever needed, is made in `dir`.
    pub fn new(memory_limit: usize, dir: PathBuf) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), memory_limit, dir }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a block. Errors are those of the file.
    pub fn push(&self, block: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        if state.abandoned {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the redo log is no longer being written",
            ));
        }
        let spilled = state.written > state.read;
        if !spilled && state.in_memory + block.len() <= self.memory_limit {
            state.in_memory += block.len();
            state.blocks.push_back(block.to_vec());
        } else {
            if !spilled {
                (state.written, state.read) = (0, 0);
            }
            let file = match state.file.take() {
                Some(file) => file,
                None => tempfile::tempfile_in(&self.dir)?,
            };
            let result = file.write_all_at(block, state.written);
            state.file = Some(file);
            result?;
            state.written += block.len() as u64;
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Nobody takes any more: `push` fails from now on.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.blocks.clear();
        self.changed.notify_all();
    }

    /// The next bytes in order; waits for them. `None` at the end.
    pub fn pop(&self) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.lock();
        loop {
            if let Some(block) = state.blocks.pop_front() {
                state.in_memory -= block.len();
                return Ok(Some(block));
            }
            if state.written > state.read {
                let length = (state.written - state.read).min(READ_BACK);
                let mut block = vec![0; length as usize];
                if let Some(file) = &state.file {
                    file.read_exact_at(&mut block, state.read)?;
                }
                state.read += length;
                if state.read == state.written
                    && let Some(file) = &state.file
                {
                    file.set_len(0)?;
                }
                return Ok(Some(block));
            }
            if state.closed || state.abandoned {
                return Ok(None);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn order_is_kept_across_the_file() {
        let spool = Spool::new(10_000, std::env::temp_dir());
        let content: Vec<u8> = (0..3_000_000u32).map(|i| (i / 3) as u8).collect();
        let mut out = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for block in content.chunks(7001) {
                    spool.push(block).unwrap();
                }
                spool.close();
            });
            while let Some(block) = spool.pop().unwrap() {
                out.extend(block);
            }
        });
        assert!(out == content);
    }

    #[test]
    fn the_producer_does_not_wait_for_a_consumer() {
        let spool = Spool::new(100, std::env::temp_dir());
        for i in 0..100u8 {
            spool.push(&[i; 1000]).unwrap();
        }
        spool.close();
        let mut out = Vec::new();
        while let Some(block) = spool.pop().unwrap() {
            out.extend(block);
        }
        assert_eq!(out.len(), 100_000);
        assert!(out.chunks(1000).enumerate().all(|(i, block)| block.iter().all(|&b| b == i as u8)));
    }

    #[test]
    fn an_abandoned_spool_refuses_more() {
        let spool = Spool::new(100, std::env::temp_dir());
        spool.abandon();
        assert!(spool.push(b"x").is_err());
        assert!(spool.pop().unwrap().is_none());
    }
}
