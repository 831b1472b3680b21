//! Is a page what its server wrote, as far as its own bytes tell?
//!
//! Verification needs neither keys nor decompressors. `full_crc32` sums the bytes as stored, so it
//! vouches for encrypted and page-compressed pages too; what such a page holds inside is then
//! still unseen, and the verdict says so. The one kind of page that cannot be judged by its
//! stored bytes is page compression in legacy files: [`Verdict::NeedsDecompression`].
//!
//! Never to be verified: the doublewrite area of the system tablespace ([`is_doublewrite`]), which
//! holds images of other tablespaces' pages, and the temporary tablespace.

use std::fmt;

use super::checksum::{self, Mismatch};
use super::layout::{fil, full_crc32_trailer, legacy_trailer, page_compressed};
use super::{PageType, is_zero};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::space::SpaceFlags;
use crate::space::flags::CompressionAlgorithm;
use crate::space::xdes::pages_per_extent;
use crate::{PageNo, PageSize, SpaceId};

/// What is known about a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// As written, plain.
    Ok,
    /// All zero: allocated, never written (or freed and punched out). Legal wherever redo, or
    /// nothing, makes the page.
    AllZero,
    /// As written, encrypted: the sum that was made after encryption fits.
    Encrypted {
        /// Version of the key.
        key_version: u32,
    },
    /// `full_crc32`: as written, page-compressed.
    PageCompressed {
        /// Version of the key if the page is also encrypted, else 0.
        key_version: u32,
    },
    /// Legacy page compression: only the page inside has checksums. The outer header is sane.
    NeedsDecompression {
        /// Version of the key if the page is also encrypted, else 0.
        key_version: u32,
        /// How it was compressed.
        algorithm: CompressionAlgorithm,
    },
    /// Not as written: damaged, torn by a concurrent write, or not this page at all.
    Damaged(Damage),
}

impl Verdict {
    /// Whether nothing is known to be wrong with the page.
    pub const fn is_intact(self) -> bool {
        !matches!(self, Self::Damaged(_))
    }
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The slice is not one page.
    Length {
        /// Bytes a page of this tablespace has.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The sum does not fit.
    Checksum {
        /// What the page says.
        stored: u32,
        /// CRC-32C of what is there.
        computed: u32,
    },
    /// The two sums of a legacy page do not fit, and differ.
    Checksums(Mismatch),
    /// Header and trailer carry different LSNs, as in a page torn by a concurrent write.
    Lsn {
        /// Low half of the LSN in the header.
        header: u32,
        /// The LSN in the trailer.
        trailer: u32,
    },
    /// The page says it is another one.
    PageNo {
        /// By position.
        expected: PageNo,
        /// By its own word.
        found: PageNo,
    },
    /// The page says it belongs to another tablespace.
    SpaceId {
        /// By page 0.
        expected: SpaceId,
        /// By its own word.
        found: SpaceId,
    },
    /// A page-compressed page that claims to be no smaller than a plain one, or to be nothing.
    StoredSize {
        /// The claim.
        stored: usize,
        /// What a page has.
        page_size: usize,
    },
    /// The outer header of a legacy page-compressed page has an impossible field.
    CompressedHeader {
        /// Which one.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// An encrypted page is as written, but does not decrypt.
    Inside {
        /// Version of the key.
        key_version: u32,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { expected, found } => {
                write!(f, "{found} bytes instead of a page of {expected}")
            }
            Self::Checksum { stored, computed } => {
                write!(f, "stored checksum {stored:#010x}, computed {computed:#010x}")
            }
            Self::Checksums(Mismatch { stored, stored_trailer, computed }) => write!(
                f,
                "stored checksums {stored:#010x} and {stored_trailer:#010x}, computed \
                 {computed:#010x}"
            ),
            Self::Lsn { header, trailer } => write!(
                f,
                "low half of the LSN is {header:#010x} in the header, {trailer:#010x} in the trailer"
            ),
            Self::PageNo { expected, found } => {
                write!(f, "page number {found} where {expected} belongs")
            }
            Self::SpaceId { expected, found } => {
                write!(f, "a page of tablespace {found} in tablespace {expected}")
            }
            Self::StoredSize { stored, page_size } => {
                write!(f, "compressed size {stored} on a page of {page_size} bytes")
            }
            Self::CompressedHeader { field, value } => {
                write!(f, "{field} of a compressed page is {value:#x}")
            }
            Self::Inside { key_version } => {
                write!(f, "what key version {key_version} decrypts is not this page")
            }
        }
    }
}

/// Judges `page`, read from where page `page_no` of its tablespace belongs.
///
/// `space` is the expected tablespace id; pass `None` for files that may carry another, as during
/// an import. It cannot be compared on encrypted and page-compressed `full_crc32` pages.
pub fn verify(page: &[u8], page_no: PageNo, space: Option<SpaceId>, flags: &SpaceFlags) -> Verdict {
    let expected = flags.physical_size().bytes();
    if page.len() != expected {
        return Verdict::Damaged(Damage::Length { expected, found: page.len() });
    }
    if is_zero(page) {
        return Verdict::AllZero;
    }
    let judged = if flags.is_full_crc32() {
        full_crc32(page)
    } else if flags.zip_size().is_some() {
        zip(page, page_no)
    } else {
        legacy(page, page_no)
    };
    let verdict = judged.and_then(|verdict| {
        if verdict == Verdict::AllZero {
            return Ok(verdict);
        }
        identity(page, page_no, space.filter(|_| has_plain_space_id(verdict, flags)))?;
        Ok(verdict)
    });
    verdict.unwrap_or_else(Verdict::Damaged)
}

/// Whether `page_no` of the system tablespace lies in the doublewrite area.
pub const fn is_doublewrite(page_no: PageNo, page_size: PageSize) -> bool {
    let extent = pages_per_extent(page_size);
    page_no.0 >= extent && page_no.0 < 3 * extent
}

/// Legacy files never encrypt the header; `full_crc32` encrypts and compresses the id in it.
fn has_plain_space_id(verdict: Verdict, flags: &SpaceFlags) -> bool {
    !flags.is_full_crc32() || matches!(verdict, Verdict::Ok)
}

fn identity(page: &[u8], page_no: PageNo, space: Option<SpaceId>) -> Result<(), Damage> {
    let found = PageNo(field(page, fil::PAGE_NO));
    if found != page_no {
        return Err(Damage::PageNo { expected: page_no, found });
    }
    let found = SpaceId(field(page, fil::SPACE_ID));
    match space {
        Some(expected) if expected != found => Err(Damage::SpaceId { expected, found }),
        _ => Ok(()),
    }
}

fn full_crc32(page: &[u8]) -> Result<Verdict, Damage> {
    let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
    let compressed = page_type.full_crc32_stored_size();
    // Behind the stored size there may be anything: not every file system can punch holes.
    let stored = match compressed {
        None => page,
        Some(size) => page
            .get(..size)
            .filter(|stored| stored.len() < page.len() && stored.len() > fil::DATA)
            .ok_or(Damage::StoredSize { stored: size, page_size: page.len() })?,
    };
    let computed = checksum::full_crc32(stored);
    let crc = checksum::stored_full_crc32(stored).unwrap_or_default();
    if crc != computed {
        return Err(Damage::Checksum { stored: crc, computed });
    }
    let key_version = field(page, fil::KEY_VERSION);
    if compressed.is_some() {
        return Ok(Verdict::PageCompressed { key_version });
    }
    if key_version != 0 {
        return Ok(Verdict::Encrypted { key_version });
    }
    same_lsn(page, full_crc32_trailer::LSN_LOW)?;
    Ok(Verdict::Ok)
}

fn legacy(page: &[u8], page_no: PageNo) -> Result<Verdict, Damage> {
    let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
    if page_type.is_legacy_page_compressed() {
        return page_compressed(page, page_type);
    }
    // What was never written is zero except that the server does not look at this field.
    let (head, tail) = (page.get(..fil::LEGACY_KEY_VERSION), page.get(fil::SPACE_ID..));
    if head.is_some_and(is_zero) && tail.is_some_and(is_zero) {
        return Ok(Verdict::AllZero);
    }
    if let Some(key_version) = legacy_key_version(page, page_no) {
        // Versions before 10.4 used the other algorithms here too.
        let stored = field(page, fil::ENCRYPTED_CHECKSUM);
        if stored == checksum::legacy_crc32(page)
            || stored == checksum::NONE
            || stored == checksum::innodb_new(page)
        {
            same_lsn(page, legacy_trailer::LSN_LOW)?;
            return Ok(Verdict::Encrypted { key_version });
        }
    }
    checksum::verify_legacy(page).map_err(|mismatch| {
        if mismatch.stored == mismatch.stored_trailer {
            Damage::Checksum { stored: mismatch.stored, computed: mismatch.computed }
        } else {
            Damage::Checksums(mismatch)
        }
    })?;
    same_lsn(page, legacy_trailer::LSN_LOW)?;
    Ok(Verdict::Ok)
}

fn zip(page: &[u8], page_no: PageNo) -> Result<Verdict, Damage> {
    if let Some(key_version) = legacy_key_version(page, page_no) {
        let stored = field(page, fil::ENCRYPTED_CHECKSUM);
        if stored == checksum::zip_crc32(page)
            || stored == checksum::NONE
            || stored == checksum::zip_innodb(page)
        {
            return Ok(Verdict::Encrypted { key_version });
        }
    }
    checksum::verify_zip(page)
        .map_err(|Mismatch { stored, computed, .. }| Damage::Checksum { stored, computed })?;
    Ok(Verdict::Ok)
}

/// The key version field of a legacy page, unless it says that the page is plain. A page may be
/// plain and still have bytes there (split numbers of spatial indexes, flush LSNs of old files),
/// so the field alone does not decide.
fn legacy_key_version(page: &[u8], page_no: PageNo) -> Option<u32> {
    let key_version = field(page, fil::LEGACY_KEY_VERSION);
    (page_no.0 != 0 && key_version != 0).then_some(key_version)
}

fn page_compressed(page: &[u8], page_type: PageType) -> Result<Verdict, Damage> {
    let magic = field(page, fil::CHECKSUM);
    if magic != checksum::NONE {
        let field = "the place of the checksum";
        return Err(Damage::CompressedHeader { field, value: magic.into() });
    }
    let (key_version, number, payload) = if page_type == PageType::PAGE_COMPRESSED {
        (0, u64_at(page, page_compressed::ALGORITHM).unwrap_or_default(), page_compressed::PAYLOAD)
    } else {
        let number = u16_at(page, page_compressed::ALGORITHM_ENCRYPTED).unwrap_or_default();
        let key_version = field(page, fil::LEGACY_KEY_VERSION);
        (key_version, number.into(), page_compressed::PAYLOAD_ENCRYPTED)
    };
    let algorithm = CompressionAlgorithm::from_number(number)
        .ok_or(Damage::CompressedHeader { field: "the algorithm", value: number })?;
    let length = u16_at(page, page_compressed::PAYLOAD_LENGTH).unwrap_or_default();
    if length == 0 || usize::from(length) + payload > page.len() {
        let field = "the payload length";
        return Err(Damage::CompressedHeader { field, value: length.into() });
    }
    Ok(Verdict::NeedsDecompression { key_version, algorithm })
}

/// Header and trailer must carry the same LSN; `from_end` says where the trailer has it.
fn same_lsn(page: &[u8], from_end: usize) -> Result<(), Damage> {
    let header = field(page, fil::LSN + 4);
    let trailer = field(page, page.len().saturating_sub(from_end));
    if header == trailer { Ok(()) } else { Err(Damage::Lsn { header, trailer }) }
}

/// A field of a page whose length was checked.
fn field(page: &[u8], offset: usize) -> u32 {
    u32_at(page, offset).unwrap_or_default()
}
