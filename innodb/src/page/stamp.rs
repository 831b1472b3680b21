//! The last touch after redo was applied: LSN, trailer, checksum.
//!
//! The result equals what a server writes for the same page, byte for byte. It is always plain:
//! pages of encrypted tablespaces must not be stamped but encrypted anew, because the LSN is part
//! of how they are encrypted.

use super::PageType;
use super::checksum;
use super::layout::{fil, full_crc32_trailer, legacy_trailer};
use crate::bytes::{put, u16_at, u32_at, u64_at};
use crate::space::SpaceFlags;
use crate::{Lsn, PageId, PageNo, SpaceId};

/// Why a page cannot be stamped. The page is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
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
    /// The page is encrypted.
    #[error("{page}: encrypted with key version {key_version}, cannot be changed without the key")]
    Encrypted {
        /// Which page.
        page: PageId,
        /// Version of the key.
        key_version: u32,
    },
    /// The page is page-compressed.
    #[error("{page}: page-compressed, cannot be changed before it is decompressed")]
    PageCompressed {
        /// Which page.
        page: PageId,
    },
}

/// Sets the flush LSN of page 0 of the system tablespace, where servers up to 10.7 look for it when
/// they find no log. The page's own LSN stays as it is.
pub fn set_flush_lsn(page: &mut [u8], lsn: Lsn, flags: &SpaceFlags) {
    write(page, fil::FLUSH_LSN, &lsn.0.to_be_bytes());
    // The older checksums leave the field out.
    if flags.is_full_crc32() {
        let sum = checksum::full_crc32(page);
        let at = page.len().saturating_sub(full_crc32_trailer::CHECKSUM);
        write(page, at, &sum.to_be_bytes());
    }
}

/// The flush LSN of page 0 of the system tablespace; 0 in later servers.
pub fn flush_lsn(page: &[u8]) -> Lsn {
    Lsn(u64_at(page, fil::FLUSH_LSN).unwrap_or_default())
}

/// Makes `page` complete after its last change, which ended at `lsn`.
///
/// Legacy pages lose bytes 26–33, where only page 0 of a tablespace and the transaction system
/// page have something to keep. The caller sees to it that a legacy page is not encrypted: its
/// key version cannot be told from those other uses.
///
/// # Errors
/// When `page` is not a plain page of the physical size that `flags` say.
pub fn stamp(page: &mut [u8], id: PageId, lsn: Lsn, flags: &SpaceFlags) -> Result<(), StampError> {
    let expected = flags.physical_size().bytes();
    if page.len() != expected {
        return Err(StampError::Length { page: id, expected, found: page.len() });
    }
    let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
    let low = &lsn.0.to_be_bytes()[4..];
    if flags.is_full_crc32() {
        let key_version = u32_at(page, fil::KEY_VERSION).unwrap_or_default();
        if key_version != 0 {
            return Err(StampError::Encrypted { page: id, key_version });
        }
        if page_type.full_crc32_stored_size().is_some() {
            return Err(StampError::PageCompressed { page: id });
        }
        write(page, fil::LSN, &lsn.0.to_be_bytes());
        write(page, expected - full_crc32_trailer::LSN_LOW, low);
        let sum = checksum::full_crc32(page);
        write(page, expected - full_crc32_trailer::CHECKSUM, &sum.to_be_bytes());
        return Ok(());
    }

    if page_type.is_legacy_page_compressed() {
        return Err(StampError::PageCompressed { page: id });
    }
    write(page, fil::LSN, &lsn.0.to_be_bytes());
    if !keeps_flush_lsn_field(id) {
        write(page, fil::LEGACY_KEY_VERSION, &[0; fil::SPACE_ID - fil::LEGACY_KEY_VERSION]);
    }
    if flags.zip_size().is_some() {
        let sum = checksum::zip_crc32(page);
        write(page, fil::CHECKSUM, &sum.to_be_bytes());
    } else {
        write(page, expected - legacy_trailer::LSN_LOW, low);
        let sum = checksum::legacy_crc32(page).to_be_bytes();
        write(page, fil::CHECKSUM, &sum);
        write(page, expected - legacy_trailer::CHECKSUM, &sum);
    }
    Ok(())
}

/// Page 0 has its flush LSN in bytes 26–33, and servers leave these alone on the transaction
/// system page too.
fn keeps_flush_lsn_field(id: PageId) -> bool {
    const TRX_SYS: PageId = PageId { space: SpaceId::SYSTEM, page: PageNo(5) };
    id.page == PageNo(0) || id == TRX_SYS
}

/// Writes to a page whose length was checked.
fn write(page: &mut [u8], offset: usize, value: &[u8]) {
    let fits = put(page, offset, value);
    debug_assert!(fits.is_some(), "a page is larger than its header and trailer");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::page::{Verdict, verify};

    const LSN: Lsn = Lsn(0x12_3456_789a);

    fn id(space: u32, page: u32) -> PageId {
        PageId { space: SpaceId(space), page: PageNo(page) }
    }

    /// A page of bytes that mean nothing, but for its number.
    fn page(flags: &SpaceFlags, id: PageId) -> Vec<u8> {
        let mut page = vec![0x11; flags.physical_size().bytes()];
        page[fil::KEY_VERSION..fil::PAGE_NO].fill(0);
        put(&mut page, fil::PAGE_NO, &id.page.0.to_be_bytes()).unwrap();
        put(&mut page, fil::SPACE_ID, &id.space.0.to_be_bytes()).unwrap();
        page
    }

    #[test]
    fn stamped_pages_are_intact() {
        for word in [0x15, 0x13, 0x35, 0, 0xe1, 0x1e1, 0x29, 0xe3] {
            let flags = SpaceFlags::parse(word).unwrap();
            for at in [id(7, 3), id(7, 0), id(0, 5), id(7, 5)] {
                let mut page = page(&flags, at);
                stamp(&mut page, at, LSN, &flags).unwrap();
                assert_eq!(crate::page::lsn(&page), Some(LSN));
                let keeps = at.page == PageNo(0) || at == id(0, 5) || flags.is_full_crc32();
                assert_eq!(page[26..34] == [0; 8], !keeps, "{word:#x} {at}");
                let verdict = verify(&page, at.page, Some(at.space), &flags);
                assert_eq!(verdict, Verdict::Ok, "{word:#x} {at}");
            }
        }
    }

    #[test]
    fn pages_that_cannot_be_stamped_stay_as_they_are() {
        let full = SpaceFlags::parse(0x15).unwrap();
        let legacy = SpaceFlags::parse(0x1_0021).unwrap();
        let id = id(7, 3);
        let mut encrypted = page(&full, id);
        encrypted[3] = 2;
        let mut compressed = page(&full, id);
        compressed[fil::TYPE] = 0x80;
        let mut old_compressed = page(&legacy, id);
        put(&mut old_compressed, fil::TYPE, &34354u16.to_be_bytes()).unwrap();
        let short = vec![0; 4096];
        for (before, flags, error) in [
            (encrypted, full, StampError::Encrypted { page: id, key_version: 2 }),
            (compressed, full, StampError::PageCompressed { page: id }),
            (old_compressed, legacy, StampError::PageCompressed { page: id }),
            (short, full, StampError::Length { page: id, expected: 16384, found: 4096 }),
        ] {
            let mut page = before.clone();
            assert_eq!(stamp(&mut page, id, LSN, &flags), Err(error));
            assert!(page == before);
        }
    }
}
