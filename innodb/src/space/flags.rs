//! The flags word of a tablespace: which of the two page formats, and which sizes.
//!
//! The format is a property of the file, not of the server: bit 4 of the word at offset 54 of
//! page 0 decides. Legacy words keep that bit 0, because no zip page size needs it.
//!
//! | bits | legacy (bit 4 = 0) | | bits | `full_crc32` (bit 4 = 1) |
//! |---|---|---|---|---|
//! | 0 | not REDUNDANT or COMPACT | | 0–3 | page size, 512 << value |
//! | 1–4 | zip page size, 512 << value, 0 = none | | 4 | 1 |
//! | 5 | DYNAMIC or COMPRESSED | | 5–7 | page compression algorithm, 0 = none |
//! | 6–9 | page size, 512 << value, 0 = 16 KiB | | 8–31 | 0 |
//! | 10 | ignored | | | |
//! | 16 | page compression | | | |
//! | 11–15, 17–31 | 0 | | | |

use std::fmt;

use crate::PageSize;

const FULL_CRC32: u32 = 1 << 4;
const POST_ANTELOPE: u32 = 1;
const ATOMIC_BLOBS: u32 = 1 << 5;
/// MySQL 5.6 marks `DATA DIRECTORY` here; it means nothing to anyone else.
const DATA_DIR: u32 = 1 << 10;
const LEGACY_PAGE_COMPRESSED: u32 = 1 << 16;
/// Everything a legacy word may contain: bits 0–9 and those named above.
const LEGACY_KNOWN: u32 = 0x3ff | DATA_DIR | LEGACY_PAGE_COMPRESSED;
const FULL_CRC32_KNOWN: u32 = 0xff;

/// A flags word that no server of 10.1.21 or later writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tablespace flags {flags:#010x} are invalid: {reason}")]
pub struct FlagsError {
    /// The word.
    pub flags: u32,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Algorithms of page compression. The numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompressionAlgorithm {
    /// zlib.
    Zlib = 1,
    /// LZ4, raw block.
    Lz4 = 2,
    /// LZO1X, raw.
    Lzo = 3,
    /// LZMA, in an xz container.
    Lzma = 4,
    /// bzip2.
    Bzip2 = 5,
    /// Snappy, raw.
    Snappy = 6,
}

impl CompressionAlgorithm {
    /// The algorithm with this number on disk.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Zlib),
            2 => Some(Self::Lz4),
            3 => Some(Self::Lzo),
            4 => Some(Self::Lzma),
            5 => Some(Self::Bzip2),
            6 => Some(Self::Snappy),
            _ => None,
        }
    }
}

impl CompressionAlgorithm {
    /// Whether a decoder finds the end of the payload itself; the others need its exact length.
    pub const fn finds_its_end(self) -> bool {
        matches!(self, Self::Zlib | Self::Lzma | Self::Bzip2)
    }
}

impl fmt::Display for CompressionAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zlib => "zlib",
            Self::Lz4 => "lz4",
            Self::Lzo => "lzo",
            Self::Lzma => "lzma",
            Self::Bzip2 => "bzip2",
            Self::Snappy => "snappy",
        })
    }
}

/// Which pages of a tablespace may be page-compressed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageCompression {
    /// None.
    None,
    /// Legacy: each page names its own algorithm.
    PerPage,
    /// `full_crc32`: one algorithm for all.
    File(CompressionAlgorithm),
}

/// How the pages of a tablespace are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpaceFlags {
    word: u32,
    logical: PageSize,
    zip: Option<PageSize>,
    compression: PageCompression,
}

impl SpaceFlags {
    /// Reads a flags word.
    ///
    /// # Errors
    /// When the word is one that no supported server writes. Files of 10.1.0 to 10.1.20 used
    /// other bits and are refused here too.
    pub fn parse(word: u32) -> Result<Self, FlagsError> {
        let invalid = |reason| FlagsError { flags: word, reason };
        if word & FULL_CRC32 != 0 {
            if word & !FULL_CRC32_KNOWN != 0 {
                return Err(invalid("a reserved bit is set"));
            }
            let logical = logical_size(word & 15).ok_or(invalid("impossible page size"))?;
            let compression = match word >> 5 & 7 {
                0 => PageCompression::None,
                number => CompressionAlgorithm::from_number(number.into())
                    .map(PageCompression::File)
                    .ok_or(invalid("unknown page compression algorithm"))?,
            };
            return Ok(Self { word, logical, zip: None, compression });
        }

        if word & !LEGACY_KNOWN != 0 {
            return Err(invalid(
                "a reserved bit is set (files of MariaDB 10.1.0 to 10.1.20, MySQL 5.7 encryption \
                 and MySQL 8.0 are not supported)",
            ));
        }
        let logical = match word >> 6 & 15 {
            0 => PageSize::DEFAULT,
            // The default size has no other encoding than 0.
            5 => return Err(invalid("impossible page size")),
            code => logical_size(code).ok_or(invalid("impossible page size"))?,
        };
        if word & ATOMIC_BLOBS != 0 && word & POST_ANTELOPE == 0 {
            return Err(invalid("row format bits contradict each other"));
        }
        let zip = match word >> 1 & 15 {
            0 => None,
            code => {
                if word & ATOMIC_BLOBS == 0 {
                    return Err(invalid("row format bits contradict each other"));
                }
                let size = PageSize::new(512 << code).filter(|size| *size <= logical);
                Some(size.ok_or(invalid("impossible compressed page size"))?)
            }
        };
        let compression = if word & LEGACY_PAGE_COMPRESSED == 0 {
            PageCompression::None
        } else {
            PageCompression::PerPage
        };
        Ok(Self { word, logical, zip, compression })
    }

    /// The word as stored.
    pub const fn word(&self) -> u32 {
        self.word
    }

    /// `innodb_page_size` of the server the file belongs to. Extents are counted in it.
    pub const fn logical_size(&self) -> PageSize {
        self.logical
    }

    /// Bytes a page takes in the file.
    pub const fn physical_size(&self) -> PageSize {
        match self.zip {
            Some(zip) => zip,
            None => self.logical,
        }
    }

    /// Page size of ROW_FORMAT=COMPRESSED, or `None` for all other row formats.
    pub const fn zip_size(&self) -> Option<PageSize> {
        self.zip
    }

    /// Whether pages carry one checksum over everything; legacy otherwise.
    pub const fn is_full_crc32(&self) -> bool {
        self.word & FULL_CRC32 != 0
    }

    /// Which pages may be page-compressed.
    pub const fn page_compression(&self) -> PageCompression {
        self.compression
    }
}

/// The logical page size with this code, 4 KiB to 64 KiB.
fn logical_size(code: u32) -> Option<PageSize> {
    PageSize::new(512 << code).filter(|size| *size >= PageSize::MIN_LOGICAL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sizes(word: u32) -> (usize, Option<usize>) {
        let flags = SpaceFlags::parse(word).unwrap();
        (flags.logical_size().bytes(), flags.zip_size().map(PageSize::bytes))
    }

    #[test]
    fn words_of_real_files() {
        for (word, logical, zip) in [
            (0, 16384, None),
            (0x21, 16384, None),
            (0x23, 16384, Some(1024)),
            (0x27, 16384, Some(4096)),
            (0x29, 16384, Some(8192)),
            (0x1_0021, 16384, None),
            (0xe1, 4096, None),
            (0xe3, 4096, Some(1024)),
            (0x1e1, 65536, None),
            (0xc0, 4096, None),
            (0x1c0, 65536, None),
            (0x13, 4096, None),
            (0x15, 16384, None),
            (0x17, 65536, None),
        ] {
            assert_eq!(sizes(word), (logical, zip), "{word:#x}");
        }
    }

    #[test]
    fn page_compression_is_named() {
        use CompressionAlgorithm::{Bzip2, Lz4, Lzma, Lzo, Snappy, Zlib};
        for (word, algorithm) in
            [(0x35, Zlib), (0x55, Lz4), (0x75, Lzo), (0x95, Lzma), (0xb5, Bzip2), (0xd5, Snappy)]
        {
            let flags = SpaceFlags::parse(word).unwrap();
            assert!(flags.is_full_crc32());
            assert_eq!(flags.page_compression(), PageCompression::File(algorithm));
        }
        let legacy = SpaceFlags::parse(0x1_0021).unwrap();
        assert!(!legacy.is_full_crc32());
        assert_eq!(legacy.page_compression(), PageCompression::PerPage);
        assert_eq!(SpaceFlags::parse(0x15).unwrap().page_compression(), PageCompression::None);
    }

    #[test]
    fn words_that_no_server_writes_are_refused() {
        for word in [
            0x12,
            0x18,
            0x1f,
            0xf5,
            0x115,
            0x8000_0015, // full_crc32
            0x20,
            0x03,
            0x22,
            0x2b | 0xc0,
            0x80,
            0x140,
            0x200,
            0x2000,
            0x4000,
            0x2_0000,
            u32::MAX,
        ] {
            assert!(SpaceFlags::parse(word).is_err(), "{word:#x}");
        }
    }
}
