//! From the form that a page has in its file to the plain form that redo changes, and back.
//!
//! Reading: the page is checked as stored, decrypted, decompressed. Writing: it is stamped,
//! compressed, encrypted, and its outer checksum made. The key version that decides is the page's
//! own; what page 0 says of the tablespace only decides how pages are *written*.
//!
//! Pages of page-compressed tablespaces are compressed again, except where they are to be encrypted
//! in the legacy format: of such a page nothing could be checked without its key, so it is written
//! in full, which is as good to every server.
//!
//! Pages that are plain already cost nothing: reading asks the verdict that checking them gave
//! anyway, writing asks one flag of the tablespace.

use std::sync::Arc;

use innodb::bytes::put;
use innodb::crypt::page::{PageCryptError, decrypt, encrypt, is_encryptable, key_version};
use innodb::page::layout::fil;
use innodb::page::stamp::{StampError, stamp};
use innodb::page::{PageCompressor, Verdict};
use innodb::space::header::{CryptMode, CryptScheme};
use innodb::space::{CryptData, PageCompression, SpaceFlags};
use innodb::{Lsn, PageId};

use crate::keys::settings::KeyStore;
use crate::keys::{KeyError, SpaceKeys};
use crate::{Error, ErrorKind, Result};

/// Bytes of a legacy page's header that belong to encryption, where something else may be.
const KEPT_SIZE: usize = fil::SPACE_ID - fil::LEGACY_KEY_VERSION;

/// How the pages of one tablespace are stored.
#[derive(Clone, Debug, Default)]
pub struct PageCodec {
    keys: Option<Arc<SpaceKeys>>,
    encrypts: bool,
}

/// Buffers that a thread keeps for the pages it opens and seals.
#[derive(Debug, Default)]
pub struct CodecScratch {
    compressor: PageCompressor,
}

impl PageCodec {
    /// The codec of a tablespace. `crypt` is its final descriptor, `stored` the one that its file
    /// had before: what is encrypted there may be under that one alone. `encrypts_tables` says
    /// what `innodb_encrypt_tables` asks of tables that follow it.
    ///
    /// A descriptor that comes `by_log` counts as encrypting when that is what was asked for,
    /// even if it says that the tablespace is not encrypted (yet, or any more): a server that
    /// recovers does the same. Only of a tablespace whose page 0 redo makes it takes the
    /// descriptor as it is.
    pub fn new(
        crypt: Option<&CryptData>,
        by_log: bool,
        stored: Option<&CryptData>,
        encrypts_tables: bool,
        store: &Arc<KeyStore>,
    ) -> Self {
        let encrypts = crypt.is_some_and(|crypt| {
            (by_log || crypt.scheme == CryptScheme::Encrypted)
                && match crypt.mode {
                    CryptMode::Default => encrypts_tables,
                    CryptMode::On => true,
                    CryptMode::Off => false,
                }
        });
        let keys = crypt.or(stored).map(|crypt| Arc::new(SpaceKeys::new(store, crypt)));
        Self { keys, encrypts }
    }

    /// Makes the plain page of what was stored, in place. `verdict` is that of the stored page.
    #[inline]
    pub fn open(
        &self,
        page: &mut [u8],
        id: PageId,
        flags: &SpaceFlags,
        verdict: Verdict,
        scratch: &mut CodecScratch,
    ) -> Result<()> {
        match verdict {
            Verdict::Ok | Verdict::AllZero => Ok(()),
            stored => self.open_stored(page, id, flags, stored, scratch),
        }
    }

    fn open_stored(
        &self,
        page: &mut [u8],
        id: PageId,
        flags: &SpaceFlags,
        stored: Verdict,
        scratch: &mut CodecScratch,
    ) -> Result<()> {
        let version = key_version(stored);
        if version != 0 {
            self.decrypt(page, id, flags, version)?;
        }
        if let Verdict::Encrypted { .. } = stored {
            return Ok(());
        }
        scratch.compressor.decompress(page, id, flags).map_err(|error| match &self.keys {
            // A wrong key leaves noise, which does not decompress.
            Some(keys) if version != 0 => {
                KeyError::Wrong { id: keys.key_id(), version, what: id.to_string() }.needed_for(id)
            }
            _ => Error::new(ErrorKind::Damage, format!("cannot decompress {id}"))
                .advise("the copy is not usable; take a new backup")
                .caused_by(error),
        })
    }

    fn decrypt(&self, page: &mut [u8], id: PageId, flags: &SpaceFlags, version: u32) -> Result<()> {
        let Some(keys) = &self.keys else {
            let message = format!("{id} is encrypted, but its tablespace does not say with what");
            return Err(Error::new(ErrorKind::Damage, message)
                .advise("page 0 of the tablespace is damaged; take a new backup"));
        };
        let key = keys.of_version(version).map_err(|error| error.needed_for(id))?;
        decrypt(page, id, flags, &key).map_err(|error| match error {
            PageCryptError::WrongKey { .. } => {
                KeyError::Wrong { id: keys.key_id(), version, what: id.to_string() }.needed_for(id)
            }
            PageCryptError::Length { .. } => {
                Error::new(ErrorKind::Damage, format!("cannot decrypt {id}")).caused_by(error)
            }
        })
    }

    /// Whether a stamped page is what is written.
    #[inline]
    pub fn writes_plain(&self, flags: &SpaceFlags) -> bool {
        !self.encrypts && flags.page_compression() == PageCompression::None
    }

    /// Whether pages are written encrypted, and with what.
    pub fn encrypts(&self) -> Option<&SpaceKeys> {
        self.keys.as_deref().filter(|_| self.encrypts)
    }

    /// Makes the form to write of a plain page whose last change ended at `lsn`, in place.
    pub fn seal(
        &self,
        page: &mut [u8],
        id: PageId,
        lsn: Lsn,
        flags: &SpaceFlags,
        scratch: &mut CodecScratch,
    ) -> Result<()> {
        let cannot = |error: StampError| {
            Error::new(ErrorKind::Damage, format!("cannot finish {id}")).caused_by(error)
        };
        if self.writes_plain(flags) {
            return stamp(page, id, lsn, flags).map_err(cannot);
        }
        self.seal_stored(page, id, lsn, flags, scratch, cannot)
    }

    fn seal_stored(
        &self,
        page: &mut [u8],
        id: PageId,
        lsn: Lsn,
        flags: &SpaceFlags,
        scratch: &mut CodecScratch,
        cannot: impl Fn(StampError) -> Error,
    ) -> Result<()> {
        let kept: Option<[u8; KEPT_SIZE]> =
            page.get(fil::LEGACY_KEY_VERSION..).and_then(|field| field.first_chunk()).copied();
        stamp(page, id, lsn, flags).map_err(cannot)?;
        let encryptable = is_encryptable(page, id, flags);
        if !flags.is_full_crc32()
            && !encryptable
            && let Some(kept) = kept
        {
            // In tablespaces that are encrypted or compressed servers leave this field alone where the
            // page stays as it is: nodes of spatial indexes have a number of their own there. No
            // checksum covers it.
            let _ = put(page, fil::LEGACY_KEY_VERSION, &kept);
        }
        let keys = self.encrypts().filter(|_| encryptable);
        if keys.is_none() || flags.is_full_crc32() {
            scratch.compressor.compress(page, id, flags, keys.is_some());
        }
        if let Some(keys) = keys {
            let (version, key) = keys.latest().map_err(|error| error.needed_for(id))?;
            encrypt(page, id, flags, &key, version).map_err(|error| {
                Error::new(ErrorKind::Damage, format!("cannot encrypt {id}")).caused_by(error)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use innodb::page::PageType;
    use innodb::{PageNo, PageSize, SpaceId};

    /// The legacy formats: plain, and page-compressed.
    const PLAIN: u32 = 0;
    const COMPRESSED: u32 = 1 << 16;

    #[test]
    fn a_number_of_a_spatial_node_outlives_where_servers_keep_it() {
        let id = PageId { space: SpaceId(7), page: PageNo(5) };
        let number = 13u64.to_be_bytes();
        for (word, kept) in [(PLAIN, false), (COMPRESSED, true)] {
            let flags = SpaceFlags::parse(word).unwrap();
            assert_eq!(flags.page_compression() != PageCompression::None, kept);
            let mut page = vec![0; PageSize::DEFAULT.bytes()];
            put(&mut page, fil::PAGE_NO, &id.page.0.to_be_bytes()).unwrap();
            put(&mut page, fil::SPACE_ID, &id.space.0.to_be_bytes()).unwrap();
            put(&mut page, fil::TYPE, &PageType::RTREE.0.to_be_bytes()).unwrap();
            put(&mut page, fil::LEGACY_KEY_VERSION, &number).unwrap();
            let mut scratch = CodecScratch::default();
            PageCodec::default().seal(&mut page, id, Lsn(100), &flags, &mut scratch).unwrap();
            let there = &page[fil::LEGACY_KEY_VERSION..fil::SPACE_ID];
            assert_eq!(there == number, kept, "{there:?}");
            let verdict = innodb::page::verify(&page, id.page, Some(id.space), &flags);
            assert_eq!(verdict, Verdict::Ok);
        }
    }
}
