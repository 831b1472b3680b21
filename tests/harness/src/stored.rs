//! What stored pages hold.
//!
//! The sum of a stored page vouches for its stored bytes. Whether a key decrypts them, and
//! whether a page comes out when they are inflated, only opening the page tells. That is done
//! here with the format crate alone, by keys that the test has made itself: what the engine
//! does with a page stays its own business.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use innodb::crypt::page::{decrypt, key_version};
use innodb::crypt::{CipherMode, DerivedKey, Key};
use innodb::page::layout::fil;
use innodb::page::verify::{Verdict, is_doublewrite, verify};
use innodb::page::{PageCompressor, PageType, is_zero, page_type};
use innodb::space::{SpaceHeader, xdes};
use innodb::{PageId, PageNo, PageSize, SpaceId};

use crate::Result;
use crate::pages::{files_below, is_tablespace, read_full};

/// The split number of a legacy spatial page.
const SPATIAL_NUMBER: std::ops::Range<usize> = fil::LEGACY_KEY_VERSION..fil::SPACE_ID;

/// Keys of `file_key_management`, which have no versions.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// How they are used.
    pub mode: CipherMode,
    /// By number.
    pub keys: BTreeMap<u32, Key>,
}

/// A tablespace, as far as opening its pages needs.
pub struct Space {
    header: SpaceHeader,
    keys: Vec<DerivedKey>,
    /// Whether the keys may be others, as those of a vault are.
    guessed: bool,
    compressor: PageCompressor,
}

impl Space {
    /// The tablespace of an open file, which is read from its start. Without `keys`, those of the
    /// harness's own key files are tried.
    pub fn of(file: &mut (impl Read + Seek), keys: Option<&Keys>) -> Result<Self> {
        let mut start = vec![0; PageSize::MAX.bytes()];
        let length = read_full(file, &mut start)?;
        file.rewind()?;
        let header = SpaceHeader::parse(&start[..length])?;
        let guessed = keys.is_none();
        let keys = match (&header.crypt, keys) {
            (None, _) => Vec::new(),
            (Some(crypt), None) => crate::keys::derived(crypt),
            (Some(crypt), Some(keys)) => {
                let key = keys.keys.get(&crypt.key_id);
                key.map(|key| DerivedKey::new(key, &crypt.iv, keys.mode)).into_iter().collect()
            }
        };
        Ok(Self { header, keys, guessed, compressor: PageCompressor::default() })
    }

    /// Bytes of a page in the file.
    pub fn page_size(&self) -> usize {
        self.header.flags.physical_size().bytes()
    }

    /// Whether a stored page names a key, with which it is encrypted.
    pub fn is_page_encrypted(&self, page: &[u8]) -> bool {
        let at = match self.header.flags.is_full_crc32() {
            true => fil::KEY_VERSION,
            false => fil::LEGACY_KEY_VERSION,
        };
        page.get(at..at + 4).is_some_and(|version| version != [0; 4])
    }

    /// Whether pages may be page-compressed.
    pub fn is_page_compressed(&self) -> bool {
        self.header.is_page_compressed()
    }

    /// Makes the plain page of a stored one, in place, and tells what it was.
    pub fn open(&mut self, page: &mut [u8], number: PageNo) -> Result<Verdict> {
        let (flags, space) = (&self.header.flags, self.header.id);
        let id = PageId { space, page: number };
        let verdict = verify(page, number, Some(space), flags);
        if let Verdict::Damaged(damage) = verdict {
            bail!("{damage}");
        }
        let compressed =
            matches!(verdict, Verdict::PageCompressed { .. } | Verdict::NeedsDecompression { .. });
        if key_version(verdict) == 0 {
            if compressed {
                self.compressor.decompress(page, id, flags)?;
            }
            return Ok(verdict);
        }
        let mut wrong = anyhow!("encrypted, but with what?");
        for key in &self.keys {
            let mut opened = page.to_vec();
            match decrypt(&mut opened, id, flags, key) {
                Err(error) => wrong = error.into(),
                Ok(()) if !compressed => {
                    page.copy_from_slice(&opened);
                    return Ok(verdict);
                }
                Ok(()) => match self.compressor.decompress(&mut opened, id, flags) {
                    Err(error) => wrong = error.into(),
                    Ok(()) => {
                        page.copy_from_slice(&opened);
                        return Ok(verdict);
                    }
                },
            }
        }
        Err(wrong)
    }

    /// Whether a page is whole and encrypted with a key that is not at hand.
    fn is_locked(&mut self, page: &[u8], number: PageNo) -> bool {
        let verdict = verify(page, number, Some(self.header.id), &self.header.flags);
        self.guessed
            && verdict.is_intact()
            && key_version(verdict) != 0
            && self.open(&mut page.to_vec(), number).is_err()
    }

    /// Whether a page of a legacy spatial index has lost the number that stands where others have
    /// that of their key: a server clears it when it takes the tablespace for a plain one.
    pub fn lacks_spatial_number(&self, page: &[u8]) -> bool {
        !self.header.flags.is_full_crc32()
            && page_type(page) == Some(PageType::RTREE)
            && page.get(SPATIAL_NUMBER).is_some_and(|number| number == [0; 8])
    }

    /// Whether a page is free, as the page that describes it says.
    pub fn is_free(&self, descriptors: &[u8], number: PageNo) -> bool {
        xdes::is_free(descriptors, number, &self.header.flags) == Some(true)
    }

    /// Whether two stored pages hold the same. Of `full_crc32` pages that were encrypted or
    /// compressed no sum of the plain bytes exists, so that field does not count.
    pub fn hold_the_same(&mut self, left: &[u8], right: &[u8], number: PageNo) -> bool {
        if self.is_locked(left, number) && self.is_locked(right, number) {
            /// The part of a page that is always in clear.
            const CLEAR: usize = 24;
            return left[..CLEAR] == right[..CLEAR];
        }
        // The stock tool, on the left, loses that number too where it compresses a page.
        let legacy_compressed = |page: &[u8]| {
            page_type(page).is_some_and(|page_type| page_type.is_legacy_page_compressed())
        };
        let loses_number = !self.header.flags.is_full_crc32() && legacy_compressed(left);
        let without_number = self.lacks_spatial_number(left);
        let (mut left, mut right) = (left.to_vec(), right.to_vec());
        for page in [&mut left, &mut right] {
            if self.open(page, number).is_err() {
                return false;
            }
            let spatial = page_type(page) == Some(PageType::RTREE);
            if without_number || (loses_number && spatial) {
                page[SPATIAL_NUMBER].fill(0);
            }
            if self.header.flags.is_full_crc32() {
                let sum = page.len().saturating_sub(4);
                page[sum..].fill(0);
            }
        }
        left == right
    }
}

/// What [`examine`] saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Examined {
    /// Pages that are not empty.
    pub pages: u64,
    /// Of them, encrypted ones, which the keys decrypt.
    pub encrypted: u64,
    /// Of them, page-compressed ones, which inflate to what they should.
    pub compressed: u64,
}

/// Whether a page of a plain tablespace file is free: what it holds is of no meaning then.
pub fn is_free(file: &Path, number: PageNo) -> Result<bool> {
    let mut file = File::open(file)?;
    let space = Space::of(&mut file, None)?;
    if number >= space.header.free_limit {
        return Ok(true);
    }
    let descriptors = xdes::descriptor_page(number, &space.header.flags);
    let mut page = vec![0; space.page_size()];
    let at = u64::from(descriptors.0) * page.len() as u64;
    file.read_exact_at(&mut page, at)?;
    Ok(space.is_free(&page, number))
}

/// Opens every page of every tablespace below `dir`. Returns also what is wrong, a line each.
pub fn examine(dir: &Path, keys: Option<&Keys>) -> Result<(Examined, Vec<String>)> {
    let (mut seen, mut wrong) = (Examined::default(), Vec::new());
    for file in files_below(dir)?.iter().filter(|file| is_tablespace(file)) {
        examine_file(&dir.join(file), file, keys, &mut seen, &mut wrong)
            .with_context(|| format!("examine {file}"))?;
    }
    Ok((seen, wrong))
}

fn examine_file(
    path: &Path,
    name: &str,
    keys: Option<&Keys>,
    seen: &mut Examined,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut space = match Space::of(&mut file, keys) {
        Ok(space) => space,
        Err(error) => {
            wrong.push(format!("{name}: {error:#}"));
            return Ok(());
        }
    };
    let size = space.header.flags.physical_size();
    let mut page = vec![0; size.bytes()];
    for number in 0.. {
        let number = PageNo(number);
        match read_full(&mut file, &mut page)? {
            0 => break,
            read if read < page.len() => {
                wrong.push(format!("{name}: page {number} has {read} bytes only"));
                break;
            }
            _ => {}
        }
        let unused = space.header.id == SpaceId::SYSTEM && is_doublewrite(number, size);
        if unused || is_zero(&page) {
            continue;
        }
        seen.pages += 1;
        match space.open(&mut page, number) {
            Ok(verdict) => {
                seen.encrypted += u64::from(key_version(verdict) != 0);
                seen.compressed += u64::from(matches!(
                    verdict,
                    Verdict::PageCompressed { .. } | Verdict::NeedsDecompression { .. }
                ));
            }
            Err(error) => wrong.push(format!("{name}: page {number}: {error:#}")),
        }
    }
    Ok(())
}
