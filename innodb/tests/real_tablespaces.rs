//! Tablespaces that servers wrote, page by page. How they were made: `testdata/innodb/README.md`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use innodb::page::{self, Damage, PageCompressor, PageType, Verdict, compression, stamp, verify};
use innodb::space::{SpaceFlags, SpaceHeader, xdes};
use innodb::{PageId, PageNo};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/innodb")
}

const TABLES: [&str; 8] = [
    "redundant",
    "compact",
    "dynamic",
    "zip",
    "page_compressed",
    "encrypted",
    "encrypted_zip",
    "encrypted_page_compressed",
];

/// A whole tablespace.
struct Space {
    name: String,
    header: SpaceHeader,
    bytes: Vec<u8>,
}

impl Space {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        Self {
            name: path.display().to_string(),
            header: SpaceHeader::parse(&bytes).unwrap(),
            bytes,
        }
    }

    fn open(name: &str) -> Self {
        Self::read(&testdata().join(name))
    }

    fn all() -> Vec<Self> {
        let mut spaces = Vec::new();
        for directory in ["10.11-4k-full_crc32", "10.11-4k-crc32"] {
            for table in TABLES {
                spaces.push(Self::open(&format!("{directory}/{table}.ibd")));
            }
        }
        spaces
    }

    fn flags(&self) -> &SpaceFlags {
        &self.header.flags
    }

    fn pages(&self) -> impl Iterator<Item = (PageNo, &[u8])> {
        let pages = self.bytes.chunks(self.header.physical_size().bytes());
        pages.enumerate().map(|(number, page)| (PageNo(u32::try_from(number).unwrap()), page))
    }

    fn verify(&self, number: PageNo, page: &[u8]) -> Verdict {
        verify(page, number, Some(self.header.id), self.flags())
    }

    fn is_free(&self, number: PageNo) -> bool {
        xdes::is_free(&self.bytes, number, self.flags()).unwrap()
    }
}

#[test]
fn headers_say_what_the_tables_are() {
    for space in Space::all() {
        let flags = space.flags();
        let zip = space.name.ends_with("zip.ibd");
        assert_eq!(flags.logical_size().bytes(), 4096, "{}", space.name);
        assert_eq!(
            flags.zip_size().map(|size| size.bytes()),
            zip.then_some(2048),
            "{}",
            space.name
        );
        let full_crc32 = space.name.contains("full_crc32") && !zip;
        assert_eq!(flags.is_full_crc32(), full_crc32, "{}", space.name);
        let compressed = space.name.contains("page_compressed");
        assert_eq!(space.header.is_page_compressed(), compressed, "{}", space.name);
        let encrypted = space.name.contains("encrypted");
        assert_eq!(space.header.is_encrypted(), encrypted, "{}", space.name);
        let key = space.header.crypt.map(|crypt| (crypt.key_id, crypt.min_key_version));
        assert_eq!(key, encrypted.then_some((1, 1)), "{}", space.name);
        let pages = u32::try_from(space.pages().count()).unwrap();
        assert_eq!(space.header.size, pages, "{}", space.name);
    }
}

#[test]
fn compressed_pages_hold_pages() {
    let mut compressor = PageCompressor::default();
    for directory in ["10.11-4k-full_crc32", "10.11-4k-crc32"] {
        let space = Space::open(&format!("{directory}/page_compressed.ibd"));
        let (mut compressed, mut equal) = (0, 0);
        for (number, stored) in space.pages() {
            let verdict = space.verify(number, stored);
            let id = PageId { space: space.header.id, page: number };
            let is_compressed = matches!(
                verdict,
                Verdict::PageCompressed { .. } | Verdict::NeedsDecompression { .. }
            );
            let mut page = stored.to_vec();
            let opened = compressor.decompress(&mut page, id, space.flags());
            assert_eq!(opened.is_ok(), is_compressed, "{id}: {opened:?}");
            if is_compressed {
                compressed += 1;
                let size = compression::stored_size(stored, space.flags());
                let again = compressor.compress(&mut page, id, space.flags(), false).unwrap();
                equal += u32::from(page[..again] == stored[..size]);
                compressor.check(&page, id, space.flags()).unwrap();
            }
        }
        // The server's zlib is another one; what it makes of a page need not be the same bytes.
        println!("{directory}: {compressed} pages, {equal} the same bytes when made again");
        assert!(compressed > 3, "{directory}");
    }
}

#[test]
fn every_page_is_as_its_server_wrote_it() {
    for space in Space::all() {
        let legacy = !space.flags().is_full_crc32();
        for (number, page) in space.pages() {
            let verdict = space.verify(number, page);
            let at = format!("{} page {number}: {verdict:?}", space.name);
            match verdict {
                Verdict::Ok => assert_eq!(page::page_no(page), Some(number), "{at}"),
                Verdict::AllZero => assert!(space.is_free(number), "{at}"),
                Verdict::Encrypted { key_version } => {
                    assert!(space.header.is_encrypted() && key_version == 1, "{at}");
                }
                Verdict::PageCompressed { key_version } => {
                    assert!(space.header.is_page_compressed() && !legacy, "{at}");
                    assert_eq!(key_version != 0, space.header.is_encrypted(), "{at}");
                }
                Verdict::NeedsDecompression { key_version, .. } => {
                    assert!(space.header.is_page_compressed() && legacy, "{at}");
                    assert_eq!(key_version != 0, space.header.is_encrypted(), "{at}");
                }
                Verdict::Damaged(_) => panic!("{at}"),
            }
        }
    }
}

#[test]
fn all_kinds_of_pages_are_among_them() {
    let spaces = Space::all();
    let mut types = Vec::new();
    let mut compressed = 0;
    for space in &spaces {
        for (number, page) in space.pages() {
            match space.verify(number, page) {
                Verdict::Ok => types.push(page::page_type(page).unwrap()),
                Verdict::PageCompressed { .. } | Verdict::NeedsDecompression { .. } => {
                    compressed += 1
                }
                _ => {}
            }
        }
    }
    for expected in
        [PageType::FSP_HDR, PageType::INODE, PageType::INDEX, PageType::BLOB, PageType::ZBLOB]
    {
        assert!(types.contains(&expected), "{expected}");
    }
    assert!(compressed > 2);
}

#[test]
fn a_page_in_the_wrong_place_is_noticed() {
    for space in Space::all() {
        let (_, page) = space.pages().nth(3).unwrap();
        let compressed = !matches!(space.verify(PageNo(3), page), Verdict::Ok);
        let expected = Damage::PageNo { expected: PageNo(2), found: PageNo(3) };
        assert_eq!(space.verify(PageNo(2), page), Verdict::Damaged(expected), "{}", space.name);
        let other = innodb::SpaceId(space.header.id.0 + 1);
        let expected = Damage::SpaceId { expected: other, found: space.header.id };
        if !(compressed && space.flags().is_full_crc32()) {
            let verdict = verify(page, PageNo(3), Some(other), space.flags());
            assert_eq!(verdict, Verdict::Damaged(expected), "{}", space.name);
        }
    }
}

/// Stamping with the LSN that a page has changes nothing: we write what the server wrote.
#[test]
fn stamping_reproduces_the_server() {
    let mut stamped = 0;
    for space in Space::all() {
        for (number, page) in space.pages() {
            if !matches!(space.verify(number, page), Verdict::Ok) {
                continue;
            }
            let id = PageId { space: space.header.id, page: number };
            let mut copy = page.to_vec();
            // What stamping has to restore.
            let end = copy.len();
            if space.flags().is_full_crc32() {
                copy[end - 8..].fill(0xa5);
            } else {
                copy[..4].fill(0xa5);
                if space.flags().zip_size().is_none() {
                    copy[end - 8..].fill(0xa5);
                }
            }
            stamp(&mut copy, id, page::lsn(page).unwrap(), space.flags()).unwrap();
            assert!(copy == page, "{} page {number}", space.name);
            stamped += 1;
        }
    }
    assert!(stamped > 80, "{stamped}");
}

/// No current server writes these sums, but all accept them: a 10.11 server was given this page
/// with them and found the table in order, and corrupt after a bit of the page was flipped.
#[test]
fn sums_of_the_innodb_algorithm() {
    let space = Space::open("10.11-4k-crc32/compact.ibd");
    let (number, page) = space.pages().nth(3).unwrap();
    let mut page = page.to_vec();
    page[..4].copy_from_slice(&0x692f_7592_u32.to_be_bytes());
    page[4088..4092].copy_from_slice(&0xa032_bc65_u32.to_be_bytes());
    assert_eq!(space.verify(number, &page), Verdict::Ok);
    page[100] ^= 1;
    assert!(!space.verify(number, &page).is_intact());

    let space = Space::open("10.11-4k-crc32/zip.ibd");
    let (number, page) = space.pages().nth(3).unwrap();
    let mut page = page.to_vec();
    page[..4].copy_from_slice(&0x3ebe_1fe4_u32.to_be_bytes());
    assert_eq!(space.verify(number, &page), Verdict::Ok);
    page[100] ^= 1;
    assert!(!space.verify(number, &page).is_intact());
}

/// Which bytes of a page no checksum covers.
fn is_uncovered(space: &Space, verdict: Verdict, offset: usize, page: &[u8]) -> bool {
    let zip = space.flags().zip_size().is_some();
    match verdict {
        Verdict::PageCompressed { .. } => {
            offset >= page::page_type(page).unwrap().full_crc32_stored_size().unwrap()
        }
        // Encrypted pages keep the sums that were made before, and the key version is not in any.
        Verdict::Encrypted { .. } if zip => matches!(offset, 0..4 | 16..24 | 26..30),
        Verdict::Encrypted { .. } if !space.flags().is_full_crc32() => {
            matches!(offset, 0..4 | 26..30 | 4088..4092)
        }
        // Bytes 26 to 33 are written after the sum; compressed pages leave out the LSN too.
        _ if zip => matches!(offset, 16..24 | 26..34),
        _ if !space.flags().is_full_crc32() => matches!(offset, 26..34),
        _ => false,
    }
}

#[test]
fn pages_that_were_never_written_are_no_damage() {
    for space in Space::all() {
        let mut page = vec![0; space.header.physical_size().bytes()];
        assert_eq!(space.verify(PageNo(3), &page), Verdict::AllZero);
        page[38] = 1;
        assert!(!space.verify(PageNo(3), &page).is_intact());
        assert!(!space.verify(PageNo(3), &page[..1000]).is_intact());
    }
    // Servers do not look at bytes 26 to 33 of such legacy pages.
    let space = Space::open("10.11-4k-crc32/compact.ibd");
    let mut page = vec![0; 4096];
    page[33] = 1;
    assert_eq!(space.verify(PageNo(3), &page), Verdict::AllZero);
}

#[test]
fn every_flipped_bit_of_a_covered_byte_is_noticed() {
    for space in Space::all() {
        for number in [0, 3] {
            let (number, page) = space.pages().nth(number).unwrap();
            let verdict = space.verify(number, page);
            if matches!(verdict, Verdict::NeedsDecompression { .. } | Verdict::AllZero) {
                continue;
            }
            let mut copy = page.to_vec();
            for offset in 0..page.len() {
                let bit = 1 << (offset % 8);
                copy[offset] ^= bit;
                let intact = space.verify(number, &copy).is_intact();
                let uncovered = is_uncovered(&space, verdict, offset, page);
                assert_eq!(intact, uncovered, "{} page {number} offset {offset}", space.name);
                copy[offset] ^= bit;
            }
        }
    }
}

/// Verifies a whole data directory of a stopped server, named by `DATADIR`.
#[test]
#[ignore = "needs a data directory"]
fn a_whole_data_directory() {
    let mut verdicts = std::collections::BTreeMap::<String, usize>::new();
    let mut damaged = 0;
    let mut directories = vec![PathBuf::from(std::env::var_os("DATADIR").unwrap())];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else if name == "ibdata1" || name.starts_with("undo0") || name.ends_with(".ibd") {
                let space = Space::read(&entry.path());
                for (number, page) in space.pages() {
                    if space.header.id == innodb::SpaceId::SYSTEM
                        && page::verify::is_doublewrite(number, space.flags().logical_size())
                    {
                        continue;
                    }
                    let verdict = space.verify(number, page);
                    if !verdict.is_intact() {
                        println!("{} page {number}: {verdict:?}", space.name);
                        damaged += 1;
                    }
                    let kind = format!("{verdict:?}").split([' ', '(']).next().unwrap().to_owned();
                    let format =
                        if space.flags().is_full_crc32() { "full_crc32" } else { "legacy" };
                    let zip = space.flags().zip_size().map_or("", |_| " zip");
                    let space =
                        if space.header.is_encrypted() { " in encrypted space" } else { "" };
                    *verdicts.entry(format!("{format}{zip} {kind}{space}")).or_default() += 1;
                }
            }
        }
    }
    println!("{verdicts:#?}");
    assert_eq!(damaged, 0);
}
