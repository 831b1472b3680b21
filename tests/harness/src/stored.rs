//! What stored pages hold.
//!
//! The sum of a stored page vouches for its stored bytes. Whether a key decrypts them, and
//! whether a page comes out when they are inflated, only opening the page tells. That is done
//! here with the format crate alone, by keys that the test has made itself: what the engine
//! does with a page stays its own business.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use innodb::crypt::page::{decrypt, key_version};
use innodb::crypt::{CipherMode, DerivedKey, Key};
use innodb::page::verify::{Verdict, is_doublewrite, verify};
use innodb::page::{PageCompressor, is_zero};
use innodb::space::SpaceHeader;
use innodb::{PageId, PageNo, PageSize, SpaceId};

use crate::Result;
use crate::pages::{files_below, is_tablespace, read_full};

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
    key: Option<DerivedKey>,
    compressor: PageCompressor,
}

impl Space {
    /// The tablespace of an open file, which is read from its start.
    pub fn of(file: &mut (impl Read + Seek), keys: Option<&Keys>) -> Result<Self> {
        let mut start = vec![0; PageSize::MAX.bytes()];
        let length = read_full(file, &mut start)?;
        file.rewind()?;
        let header = SpaceHeader::parse(&start[..length])?;
        let key = header.crypt.and_then(|crypt| {
            let key = keys?.keys.get(&crypt.key_id)?;
            Some(DerivedKey::new(key, &crypt.iv, keys?.mode))
        });
        Ok(Self { header, key, compressor: PageCompressor::default() })
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
        if key_version(verdict) != 0 {
            let key = self.key.as_ref().ok_or_else(|| anyhow!("encrypted, but with what?"))?;
            decrypt(page, id, flags, key)?;
        }
        if matches!(verdict, Verdict::PageCompressed { .. } | Verdict::NeedsDecompression { .. }) {
            self.compressor.decompress(page, id, flags)?;
        }
        Ok(verdict)
    }

    /// Whether two stored pages hold the same. Of `full_crc32` pages that were encrypted or
    /// compressed no sum of the plain bytes exists, so that field does not count.
    pub fn hold_the_same(&mut self, left: &[u8], right: &[u8], number: PageNo) -> bool {
        let (mut left, mut right) = (left.to_vec(), right.to_vec());
        for page in [&mut left, &mut right] {
            if self.open(page, number).is_err() {
                return false;
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
