//! Page compression: pages stored as a compressed image in the front of their slot.
//!
//! | | `full_crc32` | legacy | legacy, also encrypted |
//! |---|---|---|---|
//! | type field | `0x8000 \| stored size / 256` | 34354 | 37401 |
//! | algorithm | in the tablespace's flags | at 26, 8 bytes | at 40, 2 bytes |
//! | payload | `[26, size − 4)` | from 40 | from 42 |
//! | its length | lz4, lzo, snappy: low byte of its end + 5, at `size − 5` | at 38 | at 38 |
//! | sum | last 4 of the stored bytes | none | none |
//!
//! The payload inflates to the whole page, header and trailer included. zlib, lzma and bzip2 find
//! the end of the payload themselves. Behind the stored bytes there may be anything: not every file
//! system can punch holes.
//!
//! Order of writing: stamp, compress, encrypt, sum. A page whose image would not be smaller stays
//! plain, and some pages always do ([`is_compressible`]); both are legal in the same file.
//!
//! What is inflated is hostile: the output is bounded by the page, a decoder's memory by
//! [`algorithm::LZMA_MEMORY_KIB`], and the page inside must be the page that was asked for.

pub mod algorithm;
mod lzo;

use super::layout::{compressed_full_crc32, fil, full_crc32_trailer, page_compressed};
use super::{PageType, Verdict, checksum, is_zero, verify};
use crate::bytes::{put, u8_at, u16_at, u32_at, u64_at};
use crate::space::flags::{CompressionAlgorithm, PageCompression, SpaceFlags};
use crate::{PageId, PageNo, SpaceId};
use algorithm::Algorithms;

/// Stored sizes are multiples of this.
const SIZE_UNIT: usize = 256;

/// What pages of legacy files are compressed with: the only algorithm that every server has.
pub const LEGACY_ALGORITHM: CompressionAlgorithm = CompressionAlgorithm::Zlib;

/// Why a page cannot be decompressed. The page is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The slice is not one page of the tablespace.
    #[error("{page}: {found} bytes instead of a page of {expected}")]
    Length {
        /// Which page.
        page: PageId,
        /// Bytes a page has.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The page is not page-compressed, or its tablespace cannot have such pages.
    #[error("{page}: not a page-compressed page")]
    NotCompressed {
        /// Which page.
        page: PageId,
    },
    /// A field of the outer header has an impossible value.
    #[error("{page}: {field} of the compressed page is {value}, which is impossible")]
    Header {
        /// Which page.
        page: PageId,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The payload is not what the algorithm produces, or not of one page.
    #[error("{page}: the {algorithm} payload does not decompress to a page")]
    Payload {
        /// Which page.
        page: PageId,
        /// How it says it was compressed.
        algorithm: CompressionAlgorithm,
    },
    /// The page inside is another one, or damaged.
    #[error("{page}: {what} of the decompressed page is wrong")]
    Inside {
        /// Which page.
        page: PageId,
        /// What shows it.
        what: &'static str,
    },
}

/// Compresses and decompresses pages. Keeps buffers and the state of the libraries between pages.
#[derive(Debug, Default)]
pub struct PageCompressor {
    algorithms: Algorithms,
    buffer: Vec<u8>,
}

/// The payload of a page.
struct Payload<'p> {
    bytes: &'p [u8],
    algorithm: CompressionAlgorithm,
}

impl PageCompressor {
    /// Makes `page` plain, in place: what it was when it was compressed. It is not encrypted, and
    /// its outer sum, if it has one, was checked.
    ///
    /// A page of a `full_crc32` tablespace has no valid sum afterwards, because none was ever made
    /// of it.
    ///
    /// # Errors
    /// When there is no page inside, or not this one.
    pub fn decompress(
        &mut self,
        page: &mut [u8],
        id: PageId,
        flags: &SpaceFlags,
    ) -> Result<(), CompressionError> {
        let plain = self.inside(page, id, flags)?;
        page.copy_from_slice(plain);
        if flags.is_full_crc32() {
            write(page, fil::KEY_VERSION, &[0; 4]);
        }
        Ok(())
    }

    /// Checks what is inside of a page-compressed page that is not encrypted. Of pages in legacy
    /// files this is all that can be checked.
    ///
    /// # Errors
    /// As for [`decompress`](Self::decompress).
    pub fn check(
        &mut self,
        page: &[u8],
        id: PageId,
        flags: &SpaceFlags,
    ) -> Result<(), CompressionError> {
        self.inside(page, id, flags).map(drop)
    }

    fn inside(
        &mut self,
        page: &[u8],
        id: PageId,
        flags: &SpaceFlags,
    ) -> Result<&[u8], CompressionError> {
        let expected = flags.physical_size().bytes();
        if page.len() != expected {
            return Err(CompressionError::Length { page: id, expected, found: page.len() });
        }
        let payload = match flags.page_compression() {
            PageCompression::None => Err(CompressionError::NotCompressed { page: id }),
            PageCompression::File(algorithm) => full_crc32_payload(page, id, algorithm),
            PageCompression::PerPage => legacy_payload(page, id),
        }?;
        let Payload { bytes, algorithm } = payload;
        // One byte more than a page, so that a payload of more than a page shows.
        self.buffer.resize(expected + 1, 0);
        let inflated = self.algorithms.inflate(algorithm, bytes, &mut self.buffer);
        let plain = self
            .buffer
            .get(..expected)
            .filter(|_| inflated == Some(expected))
            .ok_or(CompressionError::Payload { page: id, algorithm })?;
        check_inside(page, plain, id, flags)?;
        Ok(plain)
    }

    /// Compresses `page` in place if it becomes smaller by that, and makes its outer sum. Returns
    /// the bytes that are stored then; those behind are zero. `None` when the page stays plain.
    ///
    /// The page is plain and stamped. `encrypted` says whether it will be encrypted next, which
    /// in legacy files has a layout of its own.
    pub fn compress(
        &mut self,
        page: &mut [u8],
        id: PageId,
        flags: &SpaceFlags,
        encrypted: bool,
    ) -> Option<usize> {
        let size = flags.physical_size().bytes();
        if page.len() != size || !is_compressible(page, id) {
            return None;
        }
        let (algorithm, start) = match flags.page_compression() {
            PageCompression::None => return None,
            // The split number of a node of a spatial index stands where compressed pages of this
            // format name their algorithm. Servers compress such pages all the same, and lose it.
            PageCompression::PerPage if is_spatial(page) => return None,
            PageCompression::File(algorithm) => (algorithm, compressed_full_crc32::PAYLOAD),
            PageCompression::PerPage if encrypted => {
                (LEGACY_ALGORITHM, page_compressed::PAYLOAD_ENCRYPTED)
            }
            PageCompression::PerPage => (LEGACY_ALGORITHM, page_compressed::PAYLOAD),
        };
        let most = size - SIZE_UNIT - start - compressed_full_crc32::TRAILER_MAX;
        let length = self.algorithms.deflate(algorithm, page, &mut self.buffer)?;
        let payload = self.buffer.get(..length).filter(|payload| payload.len() <= most)?;
        page.get_mut(start..)?.fill(0);
        put(page, start, payload)?;
        if flags.is_full_crc32() {
            finish_full_crc32(page, length, algorithm)
        } else {
            finish_legacy(page, id, length, algorithm, encrypted)
        }
    }
}

fn is_spatial(page: &[u8]) -> bool {
    u16_at(page, fil::TYPE).map(PageType) == Some(PageType::RTREE)
}

/// Whether a page like this one is ever compressed.
pub fn is_compressible(page: &[u8], id: PageId) -> bool {
    const TRX_SYS: PageId = PageId { space: SpaceId::SYSTEM, page: PageNo(5) };
    let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
    let plain = matches!(page_type, PageType::ALLOCATED | PageType::FSP_HDR | PageType::XDES);
    !plain && id.page != PageNo(0) && id != TRX_SYS
}

/// Bytes of `page` that are stored in its slot: the others need not be written, and their space can
/// be given back. The page was checked.
pub fn stored_size(page: &[u8], flags: &SpaceFlags) -> usize {
    let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
    let stored = match flags.page_compression() {
        PageCompression::None => None,
        _ if is_zero(page) => Some(0),
        PageCompression::File(_) => page_type.full_crc32_stored_size(),
        PageCompression::PerPage if page_type.is_legacy_page_compressed() => {
            let start = match page_type {
                PageType::PAGE_COMPRESSED => page_compressed::PAYLOAD,
                _ => page_compressed::PAYLOAD_ENCRYPTED,
            };
            u16_at(page, page_compressed::PAYLOAD_LENGTH).map(|n| start + usize::from(n))
        }
        PageCompression::PerPage => None,
    };
    stored.unwrap_or(page.len()).min(page.len())
}

fn full_crc32_payload(
    page: &[u8],
    id: PageId,
    algorithm: CompressionAlgorithm,
) -> Result<Payload<'_>, CompressionError> {
    let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
    let Some(size) = page_type.full_crc32_stored_size() else {
        return Err(CompressionError::NotCompressed { page: id });
    };
    let impossible = |field, value: usize| {
        let value = value as u64;
        CompressionError::Header { page: id, field, value }
    };
    if size >= page.len() {
        return Err(impossible("the stored size", size));
    }
    let end = if algorithm.finds_its_end() {
        size.checked_sub(full_crc32_trailer::CHECKSUM)
    } else {
        let low = size.checked_sub(compressed_full_crc32::END_LOW).and_then(|at| u8_at(page, at));
        let end = match usize::from(low.unwrap_or_default()) {
            0 => size,
            low => size.saturating_sub(SIZE_UNIT) + low,
        };
        end.checked_sub(compressed_full_crc32::TRAILER_MAX)
    };
    end.and_then(|end| page.get(compressed_full_crc32::PAYLOAD..end))
        .filter(|bytes| !bytes.is_empty())
        .map(|bytes| Payload { bytes, algorithm })
        .ok_or(impossible("the end of the payload", end.unwrap_or_default()))
}

fn legacy_payload(page: &[u8], id: PageId) -> Result<Payload<'_>, CompressionError> {
    let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
    let (number, start) = match page_type {
        PageType::PAGE_COMPRESSED => {
            (u64_at(page, page_compressed::ALGORITHM), page_compressed::PAYLOAD)
        }
        PageType::PAGE_COMPRESSED_ENCRYPTED => (
            u16_at(page, page_compressed::ALGORITHM_ENCRYPTED).map(u64::from),
            page_compressed::PAYLOAD_ENCRYPTED,
        ),
        _ => return Err(CompressionError::NotCompressed { page: id }),
    };
    let number = number.unwrap_or_default();
    let algorithm = CompressionAlgorithm::from_number(number).ok_or(CompressionError::Header {
        page: id,
        field: "the algorithm",
        value: number,
    })?;
    let length = u16_at(page, page_compressed::PAYLOAD_LENGTH).unwrap_or_default();
    page.get(start..start + usize::from(length))
        .filter(|bytes| !bytes.is_empty())
        .map(|bytes| Payload { bytes, algorithm })
        .ok_or(CompressionError::Header {
            page: id,
            field: "the payload length",
            value: length.into(),
        })
}

/// Refuses a page that is not the one which its outer header is of.
fn check_inside(
    outer: &[u8],
    plain: &[u8],
    id: PageId,
    flags: &SpaceFlags,
) -> Result<(), CompressionError> {
    let wrong = |what| Err(CompressionError::Inside { page: id, what });
    if u32_at(plain, fil::PAGE_NO) != Some(id.page.0) {
        return wrong("the page number");
    }
    if u32_at(plain, fil::SPACE_ID) != Some(id.space.0) {
        return wrong("the tablespace id");
    }
    if u64_at(plain, fil::LSN) != u64_at(outer, fil::LSN) {
        return wrong("the LSN");
    }
    if flags.is_full_crc32() {
        let page_type = PageType(u16_at(plain, fil::TYPE).unwrap_or_default());
        let low = plain.len() - full_crc32_trailer::LSN_LOW;
        if u32_at(plain, low) != u32_at(plain, fil::LSN + 4) {
            return wrong("the LSN in the trailer");
        }
        return match page_type.full_crc32_stored_size() {
            None => Ok(()),
            Some(_) => wrong("the type"),
        };
    }
    match verify(plain, id.page, Some(id.space), flags) {
        Verdict::Ok => Ok(()),
        _ => wrong("the checksum"),
    }
}

fn finish_full_crc32(
    page: &mut [u8],
    length: usize,
    algorithm: CompressionAlgorithm,
) -> Option<usize> {
    let end = compressed_full_crc32::PAYLOAD + length;
    let trailer = match algorithm.finds_its_end() {
        true => full_crc32_trailer::CHECKSUM,
        false => compressed_full_crc32::TRAILER_MAX,
    };
    let size = (end + trailer).next_multiple_of(SIZE_UNIT);
    let units = u16::try_from(size / SIZE_UNIT).ok()?;
    put(page, fil::TYPE, &(PageType::COMPRESSED_BIT | units).to_be_bytes())?;
    if !algorithm.finds_its_end() {
        let low = (end + trailer) % SIZE_UNIT;
        put(page, size - compressed_full_crc32::END_LOW, &[low as u8])?;
    }
    let sum = checksum::full_crc32(page.get(..size)?);
    put(page, size - full_crc32_trailer::CHECKSUM, &sum.to_be_bytes())?;
    Some(size)
}

fn finish_legacy(
    page: &mut [u8],
    id: PageId,
    length: usize,
    algorithm: CompressionAlgorithm,
    encrypted: bool,
) -> Option<usize> {
    let number = algorithm as u16;
    put(page, fil::CHECKSUM, &checksum::NONE.to_be_bytes())?;
    let (page_type, start) = if encrypted {
        put(page, fil::LEGACY_KEY_VERSION, &[0; 8])?;
        put(page, page_compressed::ALGORITHM_ENCRYPTED, &number.to_be_bytes())?;
        (PageType::PAGE_COMPRESSED_ENCRYPTED, page_compressed::PAYLOAD_ENCRYPTED)
    } else {
        put(page, page_compressed::ALGORITHM, &u64::from(number).to_be_bytes())?;
        (PageType::PAGE_COMPRESSED, page_compressed::PAYLOAD)
    };
    put(page, fil::TYPE, &page_type.0.to_be_bytes())?;
    put(page, fil::SPACE_ID, &id.space.0.to_be_bytes())?;
    let stored = u16::try_from(length).ok()?;
    put(page, page_compressed::PAYLOAD_LENGTH, &stored.to_be_bytes())?;
    Some(start + length)
}

/// Writes to a page whose length was checked.
fn write(page: &mut [u8], offset: usize, value: &[u8]) {
    let fits = put(page, offset, value);
    debug_assert!(fits.is_some(), "a page is larger than its header");
}

#[cfg(test)]
mod tests;
