//! Encryption of pages.
//!
//! | page | encrypted | key version | sum made afterwards |
//! |---|---|---|---|
//! | `full_crc32` | `[26, n−4)` | at 0 | last 4 bytes |
//! | `full_crc32`, page-compressed to `s` bytes | `[26, s−4)` | at 0 | last 4 of the `s` bytes |
//! | legacy, ROW_FORMAT=COMPRESSED | `[38, n−8)` | at 26 | at 30 |
//! | legacy, page-compressed to `s` bytes | `[42, 42+s)` | at 26 | at 30, which nobody checks |
//!
//! Never encrypted: page 0, the transaction system page, and extent descriptors; in legacy files
//! nodes of spatial indexes too, because these keep a number of their own where the key version
//! would be.
//!
//! The initial vector is, unlike everything else on a page, little-endian: tablespace id, page
//! number, page LSN. So a page whose LSN changes must be encrypted anew.
//!
//! Legacy pages keep the sums of the plain page inside of what is encrypted, so decrypting with the
//! wrong key is noticed with certainty. A `full_crc32` page has no sum of its plain bytes: what
//! tells are the LSN in its trailer and the tablespace id, 64 bits in all. A page-compressed page
//! tells by not decompressing.

use super::DerivedKey;
use crate::bytes::{put, u16_at, u32_at, u64_at};
use crate::page::checksum;
use crate::page::layout::{fil, full_crc32_trailer, legacy_trailer, page_compressed};
use crate::page::{PageType, Verdict, verify};
use crate::space::SpaceFlags;
use crate::{PageId, PageNo, SpaceId};

/// Why a page cannot be decrypted or encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageCryptError {
    /// The slice is not one page of the tablespace, or claims a stored size that it cannot have.
    #[error("{page}: the page is not as long as it claims")]
    Length {
        /// Which page.
        page: PageId,
    },
    /// What came out is no page.
    #[error("{page}: key version {key_version} does not decrypt it: {why}")]
    WrongKey {
        /// Which page.
        page: PageId,
        /// Version of the key that the page asks for.
        key_version: u32,
        /// What shows it.
        why: &'static str,
    },
}

/// The key version that `page` is encrypted with, 0 for a plain page. The page must have been
/// checked: `verdict` is what checking it gave.
pub fn key_version(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Encrypted { key_version }
        | Verdict::PageCompressed { key_version }
        | Verdict::NeedsDecompression { key_version, .. } => key_version,
        Verdict::Ok | Verdict::AllZero | Verdict::Damaged(_) => 0,
    }
}

/// Whether pages like `page`, which is plain or page-compressed, are encrypted when their
/// tablespace is.
pub fn is_encryptable(page: &[u8], id: PageId, flags: &SpaceFlags) -> bool {
    const TRX_SYS: PageId = PageId { space: SpaceId::SYSTEM, page: PageNo(5) };
    if id.page == PageNo(0) || id == TRX_SYS {
        return false;
    }
    match PageType(u16_at(page, fil::TYPE).unwrap_or_default()) {
        PageType::FSP_HDR | PageType::XDES => false,
        PageType::RTREE => flags.is_full_crc32(),
        _ => true,
    }
}

/// Decrypts `page` in place. Afterwards it is what was encrypted: a plain page, or a page-compressed
/// one with key version 0.
///
/// The sum that was made after encryption is not looked at: check the page before. A plain
/// `full_crc32` page has no valid sum afterwards, because none was ever stored.
///
/// # Errors
/// When the result is no page: the key is not the one it was encrypted with. The page is then noise.
pub fn decrypt(
    page: &mut [u8],
    id: PageId,
    flags: &SpaceFlags,
    key: &DerivedKey,
) -> Result<(), PageCryptError> {
    let part = Part::of(page, id, flags)?;
    let key_version = u32_at(page, part.key_version).unwrap_or_default();
    let iv = initial_vector(page, id);
    let data = page.get_mut(part.start..part.end).ok_or(PageCryptError::Length { page: id })?;
    key.decrypt(&iv, data);
    let wrong = |why| Err(PageCryptError::WrongKey { page: id, key_version, why });
    if flags.is_full_crc32() {
        write(page, fil::KEY_VERSION, &[0; 4]);
        if part.end + full_crc32_trailer::CHECKSUM < page.len() {
            return Ok(());
        }
        let low = page.len().saturating_sub(full_crc32_trailer::LSN_LOW);
        if u32_at(page, low) != u32_at(page, fil::LSN + 4) {
            return wrong("the LSN in the trailer is another");
        }
        if u32_at(page, fil::SPACE_ID) != Some(id.space.0) {
            return wrong("the tablespace id is another");
        }
        return Ok(());
    }
    write(page, fil::LEGACY_KEY_VERSION, &[0; fil::SPACE_ID - fil::LEGACY_KEY_VERSION]);
    if part.is_compressed {
        return Ok(());
    }
    match verify(page, id.page, Some(id.space), flags) {
        Verdict::Ok => Ok(()),
        _ => wrong("the checksum of the plain page does not match"),
    }
}

/// Encrypts `page` in place with the key of version `key_version`, and makes the outer sum. The page
/// is plain and stamped, or page-compressed; its LSN is final.
///
/// # Errors
/// When the slice is not one page of the tablespace. Whether the page may be encrypted at all
/// ([`is_encryptable`]) the caller sees to.
pub fn encrypt(
    page: &mut [u8],
    id: PageId,
    flags: &SpaceFlags,
    key: &DerivedKey,
    key_version: u32,
) -> Result<(), PageCryptError> {
    let part = Part::of(page, id, flags)?;
    let iv = initial_vector(page, id);
    write(page, part.key_version, &key_version.to_be_bytes());
    let data = page.get_mut(part.start..part.end).ok_or(PageCryptError::Length { page: id })?;
    key.encrypt(&iv, data);
    if flags.is_full_crc32() {
        let end = part.end + full_crc32_trailer::CHECKSUM;
        let sum = checksum::full_crc32(page.get(..end).unwrap_or_default());
        write(page, part.end, &sum.to_be_bytes());
        return Ok(());
    }
    let sum = match flags.zip_size() {
        Some(_) => checksum::zip_crc32(page),
        None => checksum::legacy_crc32(page),
    };
    write(page, fil::ENCRYPTED_CHECKSUM, &sum.to_be_bytes());
    Ok(())
}

/// Which part of a page is encrypted.
struct Part {
    start: usize,
    end: usize,
    /// Where the key version stands.
    key_version: usize,
    /// Whether the page is page-compressed.
    is_compressed: bool,
}

impl Part {
    fn of(page: &[u8], id: PageId, flags: &SpaceFlags) -> Result<Self, PageCryptError> {
        let wrong = PageCryptError::Length { page: id };
        if page.len() != flags.physical_size().bytes() {
            return Err(wrong);
        }
        let page_type = PageType(u16_at(page, fil::TYPE).unwrap_or_default());
        if flags.is_full_crc32() {
            let stored = page_type.full_crc32_stored_size();
            let size = stored.unwrap_or(page.len());
            if size > page.len() || size < fil::DATA {
                return Err(wrong);
            }
            return Ok(Self {
                start: fil::LEGACY_KEY_VERSION,
                end: size - full_crc32_trailer::CHECKSUM,
                key_version: fil::KEY_VERSION,
                is_compressed: stored.is_some(),
            });
        }
        let key_version = fil::LEGACY_KEY_VERSION;
        if page_type == PageType::PAGE_COMPRESSED_ENCRYPTED {
            let start = page_compressed::PAYLOAD_ENCRYPTED;
            let length = u16_at(page, page_compressed::PAYLOAD_LENGTH).unwrap_or_default();
            let end = start + usize::from(length);
            if end > page.len() {
                return Err(wrong);
            }
            return Ok(Self { start, end, key_version, is_compressed: true });
        }
        let end = page.len() - legacy_trailer::CHECKSUM;
        Ok(Self { start: fil::DATA, end, key_version, is_compressed: false })
    }
}

/// What the page is encrypted under besides the key. The LSN is never encrypted.
fn initial_vector(page: &[u8], id: PageId) -> [u8; 16] {
    let lsn = u64_at(page, fil::LSN).unwrap_or_default();
    let mut iv = [0; 16];
    write(&mut iv, 0, &id.space.0.to_le_bytes());
    write(&mut iv, 4, &id.page.0.to_le_bytes());
    write(&mut iv, 8, &lsn.to_le_bytes());
    iv
}

/// Writes within a slice whose length was checked.
fn write(bytes: &mut [u8], offset: usize, value: &[u8]) {
    let fits = put(bytes, offset, value);
    debug_assert!(fits.is_some(), "the length was checked");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Lsn;
    use crate::crypt::{CipherMode, Key};
    use crate::page::stamp;
    use proptest::prelude::*;

    const ID: PageId = PageId { space: SpaceId(7), page: PageNo(3) };
    const MODES: [CipherMode; 2] = [CipherMode::Cbc, CipherMode::Ctr];

    fn key(first: u8, mode: CipherMode) -> DerivedKey {
        DerivedKey::new(&Key::new(&[first; 32]).unwrap(), &[0x5a; 16], mode)
    }

    fn page(flags: &SpaceFlags) -> Vec<u8> {
        let mut page: Vec<u8> =
            (0..flags.physical_size().bytes()).map(|i| (i * 7 / 3) as u8).collect();
        page[..fil::DATA].fill(0);
        put(&mut page, fil::PAGE_NO, &ID.page.0.to_be_bytes()).unwrap();
        put(&mut page, fil::TYPE, &PageType::INDEX.0.to_be_bytes()).unwrap();
        put(&mut page, fil::SPACE_ID, &ID.space.0.to_be_bytes()).unwrap();
        stamp(&mut page, ID, Lsn(0x12_3456_789a), flags).unwrap();
        page
    }

    #[test]
    fn pages_of_every_format_there_and_back() {
        for word in [0x15, 0x13, 0x17, 0x35, 0, 0xe1, 0x1e1, 0x29, 0xe3] {
            for mode in MODES {
                let flags = SpaceFlags::parse(word).unwrap();
                let plain = page(&flags);
                let mut page = plain.clone();
                encrypt(&mut page, ID, &flags, &key(1, mode), 9).unwrap();
                let verdict = verify(&page, ID.page, Some(ID.space), &flags);
                assert_eq!(verdict, Verdict::Encrypted { key_version: 9 }, "{word:#x}");
                assert_eq!(key_version(verdict), 9);
                let mut noise = page.clone();
                let error = decrypt(&mut noise, ID, &flags, &key(2, mode)).unwrap_err();
                assert!(matches!(error, PageCryptError::WrongKey { key_version: 9, .. }));
                decrypt(&mut page, ID, &flags, &key(1, mode)).unwrap();
                // The sum of a full_crc32 page is that of the encrypted bytes, until the next stamp.
                let end = if flags.is_full_crc32() { page.len() - 4 } else { page.len() };
                assert!(page[..end] == plain[..end], "{word:#x}");
            }
        }
    }

    #[test]
    fn compressed_pages_there_and_back() {
        let full = SpaceFlags::parse(0x35).unwrap();
        let legacy = SpaceFlags::parse(0x1_0021).unwrap();
        let mut small = page(&full);
        put(&mut small, fil::TYPE, &[0x80, 5]).unwrap();
        let sum = checksum::full_crc32(&small[..1280]);
        put(&mut small, 1276, &sum.to_be_bytes()).unwrap();
        let mut old = page(&legacy);
        put(&mut old, 0, &checksum::NONE.to_be_bytes()).unwrap();
        put(&mut old, fil::TYPE, &PageType::PAGE_COMPRESSED_ENCRYPTED.0.to_be_bytes()).unwrap();
        put(&mut old, page_compressed::PAYLOAD_LENGTH, &777u16.to_be_bytes()).unwrap();
        put(&mut old, page_compressed::ALGORITHM_ENCRYPTED, &1u16.to_be_bytes()).unwrap();
        for (plain, flags, end) in [(small, full, 1276), (old, legacy, 42 + 777)] {
            let mut page = plain.clone();
            encrypt(&mut page, ID, &flags, &key(1, CipherMode::Cbc), 2).unwrap();
            let verdict = verify(&page, ID.page, Some(ID.space), &flags);
            assert!(verdict.is_intact() && key_version(verdict) == 2, "{verdict:?}");
            assert!(page[end + 4..] == plain[end + 4..]);
            decrypt(&mut page, ID, &flags, &key(1, CipherMode::Cbc)).unwrap();
            assert!(page[..end] == plain[..end]);
        }
    }

    #[test]
    fn what_is_never_encrypted() {
        let (full, legacy) = (SpaceFlags::parse(0x15).unwrap(), SpaceFlags::parse(0x21).unwrap());
        let with_type = |page_type: PageType| {
            let mut page = page(&full);
            put(&mut page, fil::TYPE, &page_type.0.to_be_bytes()).unwrap();
            page
        };
        let at = |space, page| PageId { space: SpaceId(space), page: PageNo(page) };
        let index = with_type(PageType::INDEX);
        assert!(is_encryptable(&index, at(7, 3), &full) && is_encryptable(&index, at(7, 5), &full));
        assert!(!is_encryptable(&index, at(7, 0), &full));
        assert!(!is_encryptable(&index, at(0, 5), &full));
        assert!(!is_encryptable(&with_type(PageType::XDES), at(7, 3), &full));
        assert!(is_encryptable(&with_type(PageType::RTREE), at(7, 3), &full));
        assert!(!is_encryptable(&with_type(PageType::RTREE), at(7, 3), &legacy));
    }

    proptest! {
        #[test]
        fn hostile_pages_never_panic(
            mut page in prop::collection::vec(any::<u8>(), 4096),
            page_type in prop_oneof![any::<u16>(), Just(37401), 0x8000u16..0x8012],
            cut in 0usize..4097,
        ) {
            put(&mut page, fil::TYPE, &page_type.to_be_bytes()).unwrap();
            let keep = if cut < 4000 { 4096 } else { cut };
            page.truncate(keep);
            for word in [0x13, 0x33, 0xe1, 0x1_00e1] {
                let flags = SpaceFlags::parse(word).unwrap();
                let mut page = page.clone();
                let _ = decrypt(&mut page, ID, &flags, &key(1, CipherMode::Ctr));
                let _ = encrypt(&mut page, ID, &flags, &key(1, CipherMode::Cbc), 1);
            }
        }
    }
}
