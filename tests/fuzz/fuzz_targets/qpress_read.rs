//! Archives of compressed files, damaged and made up.
//!
//! The first byte chooses: the rest is an archive; it is the body of a block whose header and checksum are
//! right, as a clever author makes it; or it is packed, and must come back.

#![no_main]

use engine::qpress::BLOCK_SIZES;
use engine::qpress::archive::{self, Reader};
use engine::qpress::quicklz::{BlockHeader, unpack};
use libfuzzer_sys::fuzz_target;

/// What a block of made up bytes says that it holds.
const HOLDS: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    match how % 3 {
        0 => {
            let _ = read(rest);
        }
        1 => {
            let holds = rest.len() * 251 % HOLDS;
            let header = BlockHeader { compressed: true, size: 9, body: rest.len(), holds };
            let mut out = Vec::new();
            if unpack(header, rest, &mut out).is_ok() {
                assert_eq!(out.len(), holds);
            }
            assert!(out.len() <= holds, "more than it says");
        }
        _ => {
            let mut packed = archive::front(HOLDS, b"t.ibd");
            for (number, block) in rest.chunks(HOLDS).enumerate() {
                archive::pack((number * HOLDS) as u64, block, &mut packed);
            }
            packed.extend(archive::end());
            assert_eq!(read(&packed).expect("it is ours"), rest);
        }
    }
});

fn read(packed: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(packed).ok()?;
    let (mut all, mut piece) = (Vec::new(), Vec::new());
    while reader.next(&mut piece).ok()? {
        assert!(piece.len() <= *BLOCK_SIZES.end(), "a block is too large");
        all.extend_from_slice(&piece);
    }
    Some(all)
}
