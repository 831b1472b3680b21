//! Files with holes: where a file is zero, the file system need not keep it.
//!
//! The server makes holes behind page-compressed pages and in place of freed ones. Whoever writes
//! such pages makes them too, in whole blocks; what is read back is the same either way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Holes consist of whole blocks of this size.
const BLOCK_LEN: usize = 4096;

/// Writes `bytes`, which lie within the file; their blocks of zeros become holes where the file
/// system can make them.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut at = offset;
    for (begin, run) in runs(offset, bytes) {
        punch(file, at, begin)?;
        file.write_all_at(run, begin)?;
        at = begin + run.len() as u64;
    }
    punch(file, at, offset + bytes.len() as u64)
}

/// Makes `[begin, end)` of the file read as zeros.
fn punch(file: &File, begin: u64, end: u64) -> io::Result<()> {
    if begin >= end {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, begin, end - begin) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => zero(file, begin, end),
        punched => Ok(punched?),
    }
}

fn zero(file: &File, mut begin: u64, end: u64) -> io::Result<()> {
    while begin < end {
        let size = (end - begin).min(BLOCK_LEN as u64);
        file.write_all_at(&[0; BLOCK_LEN][..size as usize], begin)?;
        begin += size;
    }
    Ok(())
}

/// The parts of `bytes`, which belong at `offset` of a file, that are not whole blocks of zeros.
pub fn runs(offset: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut runs = Vec::new();
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        let block_end = block_end(offset, end).min(bytes.len());
        let block = bytes.get(end..block_end).unwrap_or_default();
        // Comparing with a constant is what the compiler turns into the fastest loop.
        if block == [0; BLOCK_LEN] {
            push(&mut runs, offset, bytes, start, end);
            start = block_end;
        }
        end = block_end;
    }
    push(&mut runs, offset, bytes, start, end);
    runs
}

/// Where in the piece the block ends that contains its byte `at`.
fn block_end(offset: u64, at: usize) -> usize {
    let within = ((offset % BLOCK_LEN as u64) as usize + at) % BLOCK_LEN;
    at + BLOCK_LEN - within
}

fn push<'a>(
    runs: &mut Vec<(u64, &'a [u8])>,
    offset: u64,
    bytes: &'a [u8],
    start: usize,
    end: usize,
) {
    if let Some(run @ [_, ..]) = bytes.get(start..end) {
        runs.push((offset + start as u64, run));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_become_holes_and_what_was_there_is_gone() {
        let mut file = tempfile::tempfile().unwrap();
        let size = 64 * BLOCK_LEN;
        file.write_all_at(&vec![7; size + 10], 0).unwrap();
        file.sync_all().unwrap();
        let before = file.metadata().unwrap().blocks();
        let mut bytes = vec![0; size];
        bytes[5 * BLOCK_LEN + 9] = 1;
        write_all_at(&file, &bytes, 0).unwrap();
        file.sync_all().unwrap();
        let mut found = Vec::new();
        io::Read::read_to_end(&mut file, &mut found).unwrap();
        assert!(found[..size] == bytes && found[size..] == [7; 10]);
        // A file system without holes is no failure.
        let after = file.metadata().unwrap().blocks();
        assert!(after <= before && (after < before / 8 || after > before / 2), "{before} {after}");
    }

    #[test]
    fn zeros_are_written_where_there_are_no_holes() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        zero(&file, 100, 9_000).unwrap();
        let mut found = vec![1; 10_000];
        file.read_exact_at(&mut found, 0).unwrap();
        let zeros = found.iter().filter(|byte| **byte == 0).count();
        assert_eq!((zeros, found[99], found[9_000]), (8_900, 7, 7));
    }

    #[test]
    fn only_aligned_blocks_of_zeros_are_left_out() {
        let mut bytes = vec![0; 4 * BLOCK_LEN];
        bytes[BLOCK_LEN] = 1;
        let ranges = |offset| {
            let runs = runs(offset, &bytes);
            runs.iter().map(|(at, run)| (*at, run.len())).collect::<Vec<_>>()
        };
        assert_eq!(ranges(0), [(4096, 4096)]);
        // Shifted by 96: the first and last blocks are incomplete, and therefore written.
        assert_eq!(ranges(96), [(96, 8096), (16384, 96)]);
    }

    proptest! {
        #[test]
        fn runs_and_zeros_make_the_piece(
            offset in 0u64..10_000,
            blocks in prop::collection::vec((any::<bool>(), 1usize..9000), 0..6),
        ) {
            let mut bytes = Vec::new();
            for (zero, len) in blocks {
                bytes.resize(bytes.len() + len, u8::from(!zero));
            }
            let mut again = vec![0; bytes.len()];
            for (at, run) in runs(offset, &bytes) {
                let at = (at - offset) as usize;
                again[at..at + run.len()].copy_from_slice(run);
            }
            prop_assert_eq!(again, bytes);
        }
    }
}
