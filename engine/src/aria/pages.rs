//! The pages of one file of a table, as they will be.
//!
//! In memory pages are plain. They are checked when they are read; a changed one gets its checksum,
//! and is encrypted, when all of the log has been applied.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use innodb::bytes::put;

use super::bytes::le_at;
use super::crypt::Crypt;
use super::leave::{Leave, Result};
use super::table::Shape;
use crate::Error;

/// Bytes at the end of a page for its checksum.
pub const CHECKSUM: usize = 4;

/// One of the two files of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// `.MAD`
    Data,
    /// `.MAI`
    Index,
}

/// Which checksum a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Over all of the page.
    Data,
    /// The same; a page of zeroes is whole, too.
    Bitmap,
    /// Over the part in use.
    Index,
}

/// A file, and its pages that have changed.
#[derive(Debug)]
pub struct Pages {
    /// The file.
    pub path: PathBuf,
    file: File,
    physical: u64,
    /// What is left of the file before pages are written.
    cut: Option<u64>,
    changed: HashMap<u64, (Check, Box<[u8]>)>,
}

/// What a page was found to be.
pub enum Found {
    /// Whole.
    Page(Box<[u8]>),
    /// Beyond the end of the file, or with a wrong checksum.
    Unusable,
}

impl Pages {
    /// Opens the file, if there is one.
    pub fn open(path: PathBuf) -> Result<Option<Self>> {
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|e| Error::io("open", &path, e))?,
        };
        let physical = file.metadata().map_err(|e| Error::io("inspect", &path, e))?.len();
        Ok(Some(Self { path, file, physical, cut: None, changed: HashMap::new() }))
    }

    /// The first bytes of the file, which has so many at least or ends before.
    pub fn start(&self, length: usize) -> Result<Vec<u8>> {
        let mut start = vec![0; length.min(self.physical as usize)];
        self.file.read_exact_at(&mut start, 0).map_err(|e| Error::io("read", &self.path, e))?;
        Ok(start)
    }

    /// Bytes in the file as it is.
    pub fn physical(&self) -> u64 {
        self.physical
    }

    /// A page as it is by now.
    pub fn page(
        &self,
        number: u64,
        check: Check,
        shape: &Shape,
        crypt: Option<&Crypt>,
    ) -> Result<Found> {
        if let Some((_, page)) = self.changed.get(&number) {
            return Ok(Found::Page(page.clone()));
        }
        let at = number * shape.block as u64;
        if at + shape.block as u64 > self.physical {
            return Ok(Found::Unusable);
        }
        let mut page = vec![0; shape.block].into_boxed_slice();
        self.file.read_exact_at(&mut page, at).map_err(|e| Error::io("read", &self.path, e))?;
        if let Some(crypt) = crypt {
            let decrypted = crypt
                .decrypt(&mut page, number, check, shape)
                .map_err(|error| Leave::Unsupported(format!("{}: {error}", self.path.display())))?;
            if !decrypted {
                return Ok(Found::Unusable);
            }
        }
        let whole = is_whole(&page, number, check, shape);
        Ok(if whole { Found::Page(page) } else { Found::Unusable })
    }

    /// Keeps a changed page.
    pub fn keep(&mut self, number: u64, check: Check, page: Box<[u8]>) {
        self.changed.insert(number, (check, page));
    }

    /// A page that has changed before.
    pub fn kept(&mut self, number: u64) -> Option<&mut [u8]> {
        self.changed.get_mut(&number).map(|(_, page)| &mut **page)
    }

    /// Number of pages that have changed.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Length of the file as it will be.
    pub fn length(&self, block: usize) -> u64 {
        let last = self.changed.keys().max().map_or(0, |page| (page + 1) * block as u64);
        self.physical.max(last)
    }

    /// Forgets all that is behind `length`, and all that has changed.
    pub fn cut(&mut self, length: u64) {
        self.changed.clear();
        self.physical = self.physical.min(length);
        self.cut = Some(length);
    }

    /// The length to which the file is to be cut first.
    pub fn is_cut(&self) -> Option<u64> {
        self.cut
    }

    /// The pages that have changed, in order, with their checksums, encrypted if they have to be.
    pub fn into_changed(
        self,
        shape: &Shape,
        crypt: Option<&Crypt>,
    ) -> Result<Vec<(u64, Box<[u8]>)>> {
        let mut pages: Vec<_> = self.changed.into_iter().collect();
        pages.sort_by_key(|page| page.0);
        let stamped = pages.into_iter().map(|(number, (check, mut page))| {
            let sum = match (shape.page_checksum, check) {
                (true, _) => checksum(&page, number, covered(&page, check, shape)),
                (false, Check::Bitmap) => NO_CHECKSUM_BITMAP,
                (false, _) => NO_CHECKSUM,
            };
            let end = page.len().saturating_sub(CHECKSUM);
            let _ = put(&mut page, end, &sum.to_le_bytes());
            if let Some(crypt) = crypt {
                crypt
                    .encrypt(&mut page, number, check, shape)
                    .map_err(|error| error.needed_for(self.path.display()))?;
            }
            Ok((number, page))
        });
        stamped.collect()
    }
}

const NO_CHECKSUM: u32 = 0xffff_ffff;
const NO_CHECKSUM_BITMAP: u32 = 0xffff_fffe;

fn checksum(page: &[u8], number: u64, length: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(number as u32);
    hasher.update(page.get(..length).unwrap_or_default());
    hasher.finalize().min(NO_CHECKSUM_BITMAP - 1)
}

/// How much of a page its checksum covers.
fn covered(page: &[u8], check: Check, shape: &Shape) -> usize {
    match check {
        Check::Index => shape.key_page_used(page),
        Check::Data | Check::Bitmap => page.len().saturating_sub(CHECKSUM),
    }
}

fn is_whole(page: &[u8], number: u64, check: Check, shape: &Shape) -> bool {
    let body = page.len().saturating_sub(CHECKSUM);
    let length = covered(page, check, shape);
    let Some(stored) = le_at(page, body, 4).filter(|_| length <= body) else { return false };
    let none = if check == Check::Bitmap { NO_CHECKSUM_BITMAP } else { NO_CHECKSUM };
    match stored as u32 {
        stored if stored >= NO_CHECKSUM_BITMAP => stored == none,
        stored if stored == checksum(page, number, length) => true,
        stored => check == Check::Bitmap && stored == 0 && page.iter().all(|byte| *byte == 0),
    }
}
