//! Holes of page-compressed tablespaces.
//!
//! A compressed page occupies the front of its slot and is zero behind; the server gives that
//! space back to the file system by punching holes. When such a file is unpacked, blocks of
//! zeros are left out instead of written. For other files zeros are written, so that the space
//! of the backup is reserved as on the server.

use innodb::bytes::u32_at;
use innodb::space::{PageCompression, SpaceFlags};
use xbstream::StreamPath;

/// Holes consist of whole blocks of this size.
pub const BLOCK_LEN: usize = 4096;

/// Offset of the tablespace's flags in its first page: after the page header and 16 bytes of the
/// tablespace header. In a stream the rest of the page may not have arrived yet.
const SPACE_FLAGS: usize = 38 + 16;

/// Whether `path` is a page-compressed tablespace that begins with the bytes `start`.
///
/// A guess is enough: a wrong one changes which zeros occupy space, not what is read back.
pub fn is_page_compressed(path: &StreamPath, start: &[u8]) -> bool {
    let flags = u32_at(start, SPACE_FLAGS).and_then(|word| SpaceFlags::parse(word).ok());
    path.file_name().ends_with(b".ibd")
        && flags.is_some_and(|flags| flags.page_compression() != PageCompression::None)
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

    fn page0(flags: u32) -> Vec<u8> {
        let mut page = vec![0; 100];
        page[54..58].copy_from_slice(&flags.to_be_bytes());
        page
    }

    #[test]
    fn flags_of_both_formats() {
        let ibd = StreamPath::new("d/t.ibd").unwrap();
        for (flags, compressed) in [
            (0x15, false),
            (0x15 | 1 << 5, true),
            (0x15 | 5 << 5, true),
            (0x21, false),
            (0x21 | 1 << 16, true),
            // No server writes these.
            (0x15 | 1 << 16, false),
            (0xffff_ffff, false),
        ] {
            assert_eq!(is_page_compressed(&ibd, &page0(flags)), compressed, "{flags:#x}");
        }
        assert!(!is_page_compressed(&StreamPath::new("d/t.MYD").unwrap(), &page0(0x35)));
        assert!(!is_page_compressed(&ibd, &page0(0x35)[..57]));
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
