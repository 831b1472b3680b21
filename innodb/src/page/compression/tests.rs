#![allow(clippy::unwrap_used)]
use super::*;
use crate::Lsn;
use crate::page::stamp;
use proptest::prelude::*;

/// Flags of page-compressed tablespaces: `full_crc32` with each algorithm, and legacy.
fn all_flags(page_size: u32) -> Vec<SpaceFlags> {
    let code = page_size.trailing_zeros() - 9;
    let legacy = if page_size == 16384 { 0 } else { code << 6 };
    let full = (1..=6).map(|algorithm| algorithm << 5 | 0x10 | code);
    full.chain([1 << 16 | 0x21 | legacy]).map(|word| SpaceFlags::parse(word).unwrap()).collect()
}

const ID: PageId = PageId { space: SpaceId(77), page: PageNo(9) };

/// A stamped index page with so many bytes of content.
fn page(flags: &SpaceFlags, content: &[u8]) -> Vec<u8> {
    let mut page = vec![0; flags.physical_size().bytes()];
    put(&mut page, fil::PAGE_NO, &ID.page.0.to_be_bytes()).unwrap();
    put(&mut page, fil::SPACE_ID, &ID.space.0.to_be_bytes()).unwrap();
    put(&mut page, fil::TYPE, &PageType::INDEX.0.to_be_bytes()).unwrap();
    let length = content.len().min(page.len() - 60);
    put(&mut page, 40, &content[..length]).unwrap();
    stamp(&mut page, ID, Lsn(0x1_2345_6789), flags).unwrap();
    page
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * i / 50 % 23) as u8 + b'a').collect()
}

#[test]
fn pages_of_every_algorithm_and_size_come_back() {
    for page_size in [4096, 8192, 16384, 32768, 65536] {
        for flags in all_flags(page_size) {
            let mut compressor = PageCompressor::default();
            for length in [0, 100, 1000, 2000, 3000] {
                for encrypted in [false, true] {
                    let plain = page(&flags, &text(length));
                    let mut stored = plain.clone();
                    let size = compressor.compress(&mut stored, ID, &flags, encrypted).unwrap();
                    let at = format!("{flags:?} {length} {encrypted}");
                    assert!(size < plain.len() && is_zero(&stored[size..]), "{at}");
                    assert_eq!(stored_size(&stored, &flags), size, "{at}");
                    let verdict = verify(&stored, ID.page, Some(ID.space), &flags);
                    match flags.page_compression() {
                        PageCompression::PerPage => {
                            let algorithm = CompressionAlgorithm::Zlib;
                            let key_version = 0;
                            let expected = Verdict::NeedsDecompression { key_version, algorithm };
                            assert_eq!(verdict, expected, "{at}");
                        }
                        _ => {
                            assert_eq!(verdict, Verdict::PageCompressed { key_version: 0 }, "{at}")
                        }
                    }
                    // What is behind the stored bytes does not matter.
                    stored[size..].fill(0xa5);
                    compressor.decompress(&mut stored, ID, &flags).unwrap();
                    assert!(stored == plain, "{at}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_become_smaller_or_must_not_stays_plain() {
    let mut compressor = PageCompressor::default();
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise: Vec<u8> = (0..16384).map(|_| random()).collect();
    for flags in all_flags(16384) {
        let plain = page(&flags, &noise);
        let mut stored = plain.clone();
        assert_eq!(compressor.compress(&mut stored, ID, &flags, false), None, "{flags:?}");
        assert!(stored == plain);
        assert_eq!(stored_size(&stored, &flags), 16384);
        for page_type in [PageType::ALLOCATED, PageType::FSP_HDR, PageType::XDES] {
            let mut page = page(&flags, b"");
            put(&mut page, fil::TYPE, &page_type.0.to_be_bytes()).unwrap();
            assert_eq!(compressor.compress(&mut page, ID, &flags, false), None, "{page_type}");
        }
    }
    let plain = SpaceFlags::parse(0x15).unwrap();
    assert_eq!(compressor.compress(&mut page(&plain, b""), ID, &plain, false), None);
}

#[test]
fn another_page_inside_is_refused() {
    let mut compressor = PageCompressor::default();
    for flags in all_flags(4096) {
        let mut stored = page(&flags, &text(500));
        compressor.compress(&mut stored, ID, &flags, false).unwrap();
        for other in [PageId { page: PageNo(10), ..ID }, PageId { space: SpaceId(78), ..ID }] {
            let error = compressor.check(&stored, other, &flags).unwrap_err();
            assert!(matches!(error, CompressionError::Inside { .. }), "{error}");
        }
        stored[fil::LSN + 7] ^= 1;
        let error = compressor.check(&stored, ID, &flags).unwrap_err();
        assert_eq!(error, CompressionError::Inside { page: ID, what: "the LSN" });
    }
}

/// How streams begin that get further than their first bytes.
const STARTS: &[&[u8]] = &[
    b"",
    b"\x78\x9c",
    b"BZh9",
    b"BZh91AY&SY",
    b"\xfd7zXZ\0\0\0\xff\x12\xd9A\x02\0\x21\x01\x16\0\0\0\x74\x2f\xe5\xa3",
];

proptest! {
    /// Whatever the payload and its header are: an answer, never a panic, and no page in it that
    /// is not the one asked for.
    #[test]
    fn hostile_payloads_are_refused(
        algorithm in 0usize..7,
        size in prop_oneof![Just(4096u32), Just(16384)],
        content in 0usize..3000,
        header in prop::collection::vec((0usize..60, any::<u8>()), 0..3),
        bytes in prop::collection::vec((26usize..4096, any::<u8>()), 0..6),
        cut in prop::option::of(26usize..4096),
    ) {
        let flags = all_flags(size)[algorithm];
        let mut compressor = PageCompressor::default();
        let mut stored = page(&flags, &text(content));
        let before = stored.clone();
        compressor.compress(&mut stored, ID, &flags, false);
        for (at, byte) in header.into_iter().chain(bytes) {
            stored[at] = byte;
        }
        if let Some(cut) = cut {
            stored[cut..].fill(0);
        }
        let damaged = stored.clone();
        match compressor.decompress(&mut stored, ID, &flags) {
            Ok(()) => {
                prop_assert_eq!(super::super::page_no(&stored), Some(ID.page));
                prop_assert_eq!(stored.len(), before.len());
            }
            Err(_) => prop_assert!(stored == damaged),
        }
    }

    /// The decoders themselves, without a header that fits.
    #[test]
    fn hostile_streams_never_write_past_their_buffer(
        stream in prop::collection::vec(any::<u8>(), 0..600),
        start in prop::sample::select(STARTS),
        room in 0usize..5000,
    ) {
        let stream = [start, &stream].concat();
        let mut algorithms = Algorithms::default();
        for number in 1..=6 {
            let algorithm = CompressionAlgorithm::from_number(number).unwrap();
            let mut output = vec![0; room];
            if let Some(length) = algorithms.inflate(algorithm, &stream, &mut output) {
                prop_assert!(length <= room);
            }
        }
    }
}

/// Legacy compressed pages have the name of their algorithm where nodes of spatial indexes have a
/// number of their own.
#[test]
fn a_spatial_number_is_not_compressed_away() {
    let mut compressor = PageCompressor::default();
    for flags in all_flags(16384) {
        let mut plain = page(&flags, &text(1000));
        put(&mut plain, fil::TYPE, &PageType::RTREE.0.to_be_bytes()).unwrap();
        put(&mut plain, fil::LEGACY_KEY_VERSION, &13u64.to_be_bytes()).unwrap();
        stamp(&mut plain, ID, Lsn(0x1_2345_6789), &flags).unwrap();
        let legacy = flags.page_compression() == PageCompression::PerPage;
        if legacy {
            // Stamping clears it there, and no checksum covers it.
            put(&mut plain, fil::LEGACY_KEY_VERSION, &13u64.to_be_bytes()).unwrap();
        }
        let mut stored = plain.clone();
        assert_eq!(compressor.compress(&mut stored, ID, &flags, false).is_none(), legacy);
        compressor.decompress(&mut stored, ID, &flags).unwrap_or_default();
        assert!(stored == plain, "{flags:?}");
    }
}
