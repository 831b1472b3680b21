//! From the form that a page has in its file to the plain form that redo changes, and back.
//!
//! Reading: the page is checked as stored, decrypted, decompressed. Writing: it is stamped,
//! compressed, encrypted, and its outer checksum made. The key version that decides is the page's
//! own; what page 0 says of the tablespace only decides how pages are *written*.
//!
//! Pages that are plain already cost nothing: reading asks the verdict that checking them gave
//! anyway, writing asks one flag of the tablespace.

use innodb::PageId;
use innodb::page::Verdict;
use innodb::space::SpaceFlags;

use crate::{Error, ErrorKind, Result};

/// How the pages of one tablespace are stored.
#[derive(Clone, Debug, Default)]
pub struct PageCodec {}

/// Buffers that a thread keeps for the pages it opens and seals.
#[derive(Debug, Default)]
pub struct CodecScratch {}

impl PageCodec {
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

    #[cold]
    fn open_stored(
        &self,
        _page: &mut [u8],
        id: PageId,
        _flags: &SpaceFlags,
        stored: Verdict,
        _scratch: &mut CodecScratch,
    ) -> Result<()> {
        Err(Error::new(
            ErrorKind::Failed,
            format!("{id} is stored in a form that is not supported yet: {stored:?}"),
        ))
    }

    /// Whether a stamped page is what is written.
    #[inline]
    pub fn writes_plain(&self) -> bool {
        true
    }

    /// Makes the form to write of a plain, stamped page, in place. Not to be called where
    /// [`writes_plain`](Self::writes_plain).
    pub fn seal(
        &self,
        _page: &mut [u8],
        _id: PageId,
        _flags: &SpaceFlags,
        _scratch: &mut CodecScratch,
    ) -> Result<()> {
        Ok(())
    }
}
