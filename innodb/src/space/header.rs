//! Page 0 of a tablespace: id, size, flags, encryption.

use super::flags::{FlagsError, PageCompression, SpaceFlags};
use super::xdes::{DESCRIPTORS, descriptor_size, pages_per_extent};
use crate::bytes::{u8_at, u32_at, u64_at};
use crate::page::layout::fil;
use crate::page::{PageType, is_zero, page_no, page_type, space_id};
use crate::{PageNo, PageSize, SpaceId};

/// Tablespace id, 4 bytes; again, for the page header has it too.
pub const SPACE_ID: usize = 38;
/// Size in pages, 4 bytes.
pub const SIZE: usize = 46;
/// First page without a descriptor, 4 bytes.
pub const FREE_LIMIT: usize = 50;
/// Flags, 4 bytes.
pub const FLAGS: usize = 54;
/// How much of a file is enough to know its flags.
pub const FLAGS_END: usize = FLAGS + 4;

/// Fields of the encryption descriptor, which stand behind a magic.
mod crypt {
    pub const MAGIC: [u8; 6] = [0x73, 0x0e, 0x0c, 0x52, 0x45, 0x74];
    pub const SCHEME: usize = 0;
    pub const IV_LENGTH: usize = 1;
    pub const IV: usize = 2;
    pub const MIN_KEY_VERSION: usize = 18;
    pub const KEY_ID: usize = 22;
    pub const MODE: usize = 26;
    pub const SIZE: usize = 27;
}

/// Why page 0 is not that of a tablespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is shorter than its first page.
    #[error("the file ends within its first page, after {0} bytes")]
    Short(usize),
    /// Page 0 was never written; redo will make it.
    #[error("the first page is all zero")]
    Blank,
    /// The flags cannot be.
    #[error(transparent)]
    Flags(#[from] FlagsError),
    /// The page says it is another one.
    #[error("the first page has page number {0}")]
    PageNo(PageNo),
    /// The page is of a type that page 0 never has.
    #[error("the first page is of type {0} instead of FSP_HDR")]
    Type(PageType),
    /// The two places of the tablespace id disagree.
    #[error("the first page names tablespace {page} in its header and {space} behind it")]
    SpaceIds {
        /// In the page header.
        page: SpaceId,
        /// In the tablespace header.
        space: SpaceId,
    },
    /// The tablespace id is not one of a persistent tablespace.
    #[error("tablespace id {0} is out of range")]
    SpaceId(SpaceId),
    /// The encryption descriptor has an impossible field.
    #[error("the encryption descriptor on the first page has {field} {value}")]
    Crypt {
        /// Which one.
        field: &'static str,
        /// Its value.
        value: u8,
    },
}

/// How a tablespace is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptScheme {
    /// Not, or not any more.
    Unencrypted,
    /// Pages are encrypted as they are written.
    Encrypted,
}

/// What `innodb_encrypt_tables` or the table asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptMode {
    /// Follows `innodb_encrypt_tables`.
    Default,
    /// `ENCRYPTED=YES`.
    On,
    /// `ENCRYPTED=NO`.
    Off,
}

/// The encryption descriptor. It says what to do with pages written from now on; whether a page
/// *is* encrypted only the page itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptData {
    /// Whether pages are encrypted.
    pub scheme: CryptScheme,
    /// Input of the derivation of the tablespace's key.
    pub iv: [u8; 16],
    /// No page has an older key version, once rotation is complete.
    pub min_key_version: u32,
    /// Which key.
    pub key_id: u32,
    /// What was asked for.
    pub mode: CryptMode,
}

impl CryptData {
    /// Where page 0 has the descriptor. The server counts the page header twice here.
    pub const fn offset(flags: &SpaceFlags) -> usize {
        Self::offset_in(flags.logical_size(), flags.physical_size())
    }

    const fn offset_in(logical: PageSize, physical: PageSize) -> usize {
        let descriptors =
            descriptor_size(logical) * physical.bytes() / pages_per_extent(logical) as usize;
        fil::DATA + DESCRIPTORS + descriptors
    }

    /// Where the fields are that servers write as one, [`SIZE`](Self::SIZE) bytes behind the magic.
    pub const fn fields_offset(flags: &SpaceFlags) -> usize {
        Self::offset(flags) + crypt::MAGIC.len()
    }

    /// Whether the fields are at `offset` in any tablespace of a server with pages of `logical`.
    pub fn is_fields_offset(offset: usize, logical: PageSize) -> bool {
        let zips = (10..=16).filter_map(|shift| PageSize::new(1 << shift));
        zips.filter(|physical| *physical <= logical)
            .any(|physical| Self::offset_in(logical, physical) + crypt::MAGIC.len() == offset)
    }

    /// Bytes of the fields.
    pub const SIZE: usize = crypt::SIZE;

    /// The descriptor on `page0`, or `None` when the tablespace never had one.
    ///
    /// # Errors
    /// When there is one with fields that no server writes.
    pub fn parse(page0: &[u8], flags: &SpaceFlags) -> Result<Option<Self>, HeaderError> {
        let Some(data) = page0.get(Self::offset(flags)..) else { return Ok(None) };
        let Some(fields) = data.strip_prefix(&crypt::MAGIC) else { return Ok(None) };
        Self::parse_fields(fields).map(Some)
    }

    /// The descriptor whose fields behind the magic are at the start of `data`.
    ///
    /// # Errors
    /// When there are fields that no server writes.
    pub fn parse_fields(data: &[u8]) -> Result<Self, HeaderError> {
        let short = HeaderError::Short(data.len());
        let invalid = |field, value| Err(HeaderError::Crypt { field, value });
        let scheme = match u8_at(data, crypt::SCHEME).ok_or(short)? {
            0 => CryptScheme::Unencrypted,
            1 => CryptScheme::Encrypted,
            value => return invalid("scheme", value),
        };
        let iv_length = u8_at(data, crypt::IV_LENGTH).ok_or(short)?;
        if iv_length != 16 {
            return invalid("IV length", iv_length);
        }
        let mode = match u8_at(data, crypt::MODE).ok_or(short)? {
            0 => CryptMode::Default,
            1 => CryptMode::On,
            2 => CryptMode::Off,
            value => return invalid("mode", value),
        };
        Ok(Self {
            scheme,
            iv: *data.get(crypt::IV..).and_then(|iv| iv.first_chunk()).ok_or(short)?,
            min_key_version: u32_at(data, crypt::MIN_KEY_VERSION).ok_or(short)?,
            key_id: u32_at(data, crypt::KEY_ID).ok_or(short)?,
            mode,
        })
    }
}

/// What page 0 says about its tablespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceHeader {
    /// Tablespace id.
    pub id: SpaceId,
    /// Size in pages. The file may be longer, and in a copy also shorter.
    pub size: u32,
    /// Pages from here on are free and undefined.
    pub free_limit: PageNo,
    /// Format and sizes.
    pub flags: SpaceFlags,
    /// Encryption, if the tablespace ever had to do with it.
    pub crypt: Option<CryptData>,
}

impl SpaceHeader {
    /// Reads page 0. `start` is the start of the file, at least as long as the page: the 64 KiB of
    /// [`PageSize::MAX`], or the whole file, are always enough. Checksums are not looked at, see
    /// [`verify`](crate::page::verify()).
    ///
    /// # Errors
    /// When this is not page 0 of a tablespace. [`HeaderError::Blank`] and [`HeaderError::Short`]
    /// are how young tablespaces look.
    pub fn parse(start: &[u8]) -> Result<Self, HeaderError> {
        let short = HeaderError::Short(start.len());
        let word = u32_at(start, FLAGS).ok_or(short)?;
        // The smallest page there is: enough to tell a page that was never written.
        if is_zero(start.get(..start.len().min(1024)).unwrap_or_default()) {
            return Err(HeaderError::Blank);
        }
        let flags = SpaceFlags::parse(word)?;
        let page0 = start.get(..flags.physical_size().bytes()).ok_or(short)?;
        match page_no(page0) {
            Some(PageNo(0)) => {}
            other => return Err(HeaderError::PageNo(other.unwrap_or(PageNo::NULL))),
        }
        match page_type(page0) {
            Some(PageType::FSP_HDR) => {}
            // How a server of 10.5 makes the file, before anything is logged about the page.
            Some(PageType::ALLOCATED) if u64_at(page0, fil::LSN) == Some(0) => {}
            other => return Err(HeaderError::Type(other.unwrap_or(PageType::ALLOCATED))),
        }
        let page = space_id(page0).ok_or(short)?;
        let id = SpaceId(u32_at(page0, SPACE_ID).ok_or(short)?);
        if page != id {
            return Err(HeaderError::SpaceIds { page, space: id });
        }
        if id >= SpaceId::LIMIT {
            return Err(HeaderError::SpaceId(id));
        }
        Ok(Self {
            id,
            size: u32_at(page0, SIZE).ok_or(short)?,
            free_limit: PageNo(u32_at(page0, FREE_LIMIT).ok_or(short)?),
            flags,
            crypt: CryptData::parse(page0, &flags)?,
        })
    }

    /// Whether pages of the tablespace are encrypted when written. Pages that were encrypted
    /// before may be left in tablespaces that are not any more.
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.crypt, Some(CryptData { scheme: CryptScheme::Encrypted, .. }))
    }

    /// Whether pages may be page-compressed.
    pub fn is_page_compressed(&self) -> bool {
        self.flags.page_compression() != PageCompression::None
    }

    /// Bytes a page takes in the file.
    pub const fn physical_size(&self) -> PageSize {
        self.flags.physical_size()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bytes::put;
    use proptest::prelude::*;

    fn page0(word: u32) -> Vec<u8> {
        let flags = SpaceFlags::parse(word).unwrap();
        let mut page = vec![0; flags.physical_size().bytes()];
        put(&mut page, fil::TYPE, &8u16.to_be_bytes()).unwrap();
        put(&mut page, fil::SPACE_ID, &7u32.to_be_bytes()).unwrap();
        put(&mut page, SPACE_ID, &7u32.to_be_bytes()).unwrap();
        put(&mut page, SIZE, &640u32.to_be_bytes()).unwrap();
        put(&mut page, FREE_LIMIT, &128u32.to_be_bytes()).unwrap();
        put(&mut page, FLAGS, &word.to_be_bytes()).unwrap();
        page
    }

    #[test]
    fn the_encryption_descriptor_is_where_the_server_has_it() {
        for (word, offset) in [
            (0x13, 1596),
            (0x14, 3772),
            (0x15, 10428),
            (0x16, 20668),
            (0x17, 41148),
            (0x29, 5308),
            (0xe3, 540),
        ] {
            assert_eq!(CryptData::offset(&SpaceFlags::parse(word).unwrap()), offset, "{word:#x}");
        }
    }

    #[test]
    fn a_plain_tablespace() {
        let header = SpaceHeader::parse(&page0(0x15)).unwrap();
        assert_eq!((header.id, header.size, header.free_limit), (SpaceId(7), 640, PageNo(128)));
        assert!(!header.is_encrypted() && !header.is_page_compressed());
        assert!(SpaceHeader::parse(&page0(0x35)).unwrap().is_page_compressed());
    }

    #[test]
    fn an_encrypted_tablespace() {
        let mut page = page0(0x15);
        let mut data = crypt::MAGIC.to_vec();
        data.extend([1, 16]);
        data.extend([9; 16]);
        data.extend([0, 0, 0, 3, 0, 0, 0, 2, 1]);
        put(&mut page, 10428, &data).unwrap();
        let header = SpaceHeader::parse(&page).unwrap();
        assert!(header.is_encrypted());
        let crypt = header.crypt.unwrap();
        assert_eq!((crypt.min_key_version, crypt.key_id, crypt.mode), (3, 2, CryptMode::On));

        page[10428 + 6] = 7;
        let error = SpaceHeader::parse(&page).unwrap_err();
        assert_eq!(error, HeaderError::Crypt { field: "scheme", value: 7 });
    }

    #[test]
    fn what_is_not_page_0_is_named() {
        assert_eq!(SpaceHeader::parse(&[]), Err(HeaderError::Short(0)));
        assert_eq!(SpaceHeader::parse(&[0; 16384]), Err(HeaderError::Blank));
        let page = page0(0x15);
        assert_eq!(SpaceHeader::parse(&page[..9000]), Err(HeaderError::Short(9000)));
        let mut other = page.clone();
        other[fil::PAGE_NO + 3] = 4;
        assert_eq!(SpaceHeader::parse(&other), Err(HeaderError::PageNo(PageNo(4))));
        let mut other = page.clone();
        other[SPACE_ID + 3] = 4;
        let ids = HeaderError::SpaceIds { page: SpaceId(7), space: SpaceId(4) };
        assert_eq!(SpaceHeader::parse(&other), Err(ids));
        let mut other = page;
        other[fil::TYPE + 1] = 3;
        assert_eq!(SpaceHeader::parse(&other), Err(HeaderError::Type(PageType::INODE)));
        // A file that was made a moment ago has no type yet, and no LSN.
        other[24..26].fill(0);
        other[16..24].fill(0);
        assert!(SpaceHeader::parse(&other).is_ok());
        other[23] = 1;
        assert_eq!(SpaceHeader::parse(&other), Err(HeaderError::Type(PageType::ALLOCATED)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..5000), word in 0u32..512) {
            let _ = put(&mut bytes, FLAGS, &word.to_be_bytes());
            let _ = SpaceHeader::parse(&bytes);
        }
    }
}
