//! Bitmaps: how much room there is in each page of rows.
//!
//! A bitmap page has three bits for each of the pages behind it, the lowest bits first. It has no
//! LSN: what the log says about a page decides the page's bits.
//!
//! | bits | a head page with at least … free | bits | a tail page with … free |
//! |---|---|---|---|
//! | 0 | everything: it is not in use | 5 | 60 % |
//! | 1 | 70 % | 6 | 20 % |
//! | 2 | 40 % | 7 | less; or a page of a blob |
//! | 3 | 10 % | | |
//! | 4 | less | | |

use super::bytes::{le16_at, put_le16};
use super::leave::{Leave, Malformed, Result};
use super::pages::{CHECKSUM, Check, Found, Which};
use super::row_page::{RowPage, kind};
use super::table::{Shape, Table};

/// A page that is full, or one of a blob.
pub const FULL: u8 = 7;
/// A page that is not in use.
pub const EMPTY: u8 = 0;

/// A file does not grow by more bitmaps at once: each covers 5 MiB of it at least, and a log has
/// no more than a record for each.
const MOST_AT_ONCE: u64 = 64;

/// How pages are spread over bitmaps.
#[derive(Clone, Copy, Debug)]
pub struct Bitmaps {
    /// A bitmap page comes every so many pages.
    pub every: u64,
}

impl Bitmaps {
    /// For pages of this size.
    pub fn new(shape: &Shape) -> Self {
        // Sixteen pages for six bytes, and the bitmap itself.
        let groups = (shape.block - CHECKSUM) / 6;
        Self { every: groups as u64 * 16 + 1 }
    }

    /// The bitmap page of a page.
    pub fn of(self, page: u64) -> u64 {
        page - page % self.every
    }
}

/// The bits of a page of rows with so many free bytes.
pub fn pattern(shape: &Shape, page_type: u8, free: usize) -> u8 {
    let all = shape.block - shape.row_header() - CHECKSUM;
    let left = |used: usize| all - all * used / 100;
    let steps: &[(usize, u8)] = match page_type {
        kind::HEAD => &[(90, 4), (60, 3), (30, 2), (0, 1)],
        _ => &[(80, 7), (40, 6), (0, 5)],
    };
    steps.iter().find(|(used, _)| free < left(*used)).map_or(EMPTY, |step| step.1)
}

/// The bits that the content of a page asks for.
pub fn pattern_of(shape: &Shape, page: &mut [u8]) -> std::result::Result<u8, Malformed> {
    match super::row_page::page_type(page) {
        kind::UNALLOCATED => Ok(EMPTY),
        kind::BLOB => Ok(FULL),
        page_type => Ok(pattern(shape, page_type, RowPage::new(page, shape).usable_bytes()?)),
    }
}

impl Table {
    /// Sets the bits of a page, and tells whether they were others.
    pub fn set_bits(&mut self, page: u64, bits: u8) -> Result<bool> {
        let number = Bitmaps::new(&self.shape).of(page);
        let (at, shift) = self.place_of_bits(page);
        let set = |map: &mut [u8]| {
            let old = le16_at(map, at).unwrap_or(0);
            let new = old & !(7 << shift) | u16::from(bits) << shift;
            // The place is within the page: it follows from the page's number.
            let _ = put_le16(map, at, new);
            new != old
        };
        if number != page
            && let Some(map) = self.kept_page(Which::Data, number)
        {
            return Ok(set(map));
        }
        let mut map = self.bitmap(page)?;
        let changed = set(&mut map);
        if changed {
            self.keep(Which::Data, number, Check::Bitmap, map);
        }
        Ok(changed)
    }

    fn place_of_bits(&self, page: u64) -> (usize, u32) {
        let every = Bitmaps::new(&self.shape).every;
        let bit = (page % every).saturating_sub(1) * 3;
        ((bit / 8) as usize, (bit % 8) as u32)
    }

    /// The bitmap of a page of rows; makes it if the file does not reach it yet.
    fn bitmap(&mut self, page: u64) -> Result<Box<[u8]>> {
        let bitmaps = Bitmaps::new(&self.shape);
        let number = bitmaps.of(page);
        if number == page {
            let what = format!("the log takes the bitmap {page} for a page of rows");
            return Err(Leave::Damaged { file: format!("{}.MAD", self.name), what }.into());
        }
        let block = self.shape.block as u64;
        if (number + 1) * block > self.state.data_file_length {
            self.make_bitmaps(self.next_bitmap(), number)?;
        }
        self.whole_page(Which::Data, number, Check::Bitmap)
    }

    /// The first bitmap page that the file does not have.
    fn next_bitmap(&self) -> u64 {
        let pages = self.state.data_file_length / self.shape.block as u64;
        let every = Bitmaps::new(&self.shape).every;
        pages.div_ceil(every) * every
    }

    /// Makes empty bitmap pages.
    pub fn make_bitmaps(&mut self, from: u64, to: u64) -> Result<()> {
        let bitmaps = Bitmaps::new(&self.shape);
        if from > to || bitmaps.of(from) != from || bitmaps.of(to) != to {
            let what = format!("the log makes bitmaps {from} to {to}");
            return Err(Leave::Damaged { file: format!("{}.MAD", self.name), what }.into());
        }
        // Each covers many pages of the file; a table has few of them.
        if (to - from) / bitmaps.every > MOST_AT_ONCE {
            return Err(Leave::Memory.into());
        }
        let mut number = from;
        while number <= to {
            let map = vec![0; self.shape.block].into_boxed_slice();
            self.keep(Which::Data, number, Check::Bitmap, map);
            number += bitmaps.every;
        }
        self.state.data_file_length = (to + 1) * self.shape.block as u64;
        Ok(())
    }

    /// Sets the bits that a page of rows should have by its content, or if it has none, by `kind`.
    pub fn set_bits_by_content(&mut self, number: u64, page: &mut [u8], kind: u8) -> Result<()> {
        let shape = self.shape;
        let free = match super::row_page::page_type(page) {
            kind::UNALLOCATED => shape.block,
            _ => {
                RowPage::new(page, &shape).usable_bytes().map_err(|e| self.malformed(number, e))?
            }
        };
        let bits = pattern(&shape, kind, free);
        if self.set_bits(number, bits)? && !matches!(bits, 3 | FULL) {
            self.lower_first_bitmap(number);
        }
        Ok(())
    }

    /// Remembers that the bitmap of a page has room.
    pub fn lower_first_bitmap(&mut self, page: u64) {
        let bitmap = Bitmaps::new(&self.shape).of(page);
        self.state.first_bitmap = self.state.first_bitmap.min(bitmap);
    }

    /// What the content of a page says that it is in use for; empty when it cannot be read.
    pub fn bits_by_content(&self, number: u64) -> Result<u8> {
        match self.page(Which::Data, number, Check::Data)? {
            Found::Unusable => Ok(EMPTY),
            Found::Page(mut page) => {
                pattern_of(&self.shape, &mut page).map_err(|e| self.malformed(number, e))
            }
        }
    }

    /// A page of rows that contradicts itself, or a record that does not fit it.
    pub fn malformed(&self, page: u64, cause: Malformed) -> super::leave::Stop {
        let what = format!("page {page}: {cause}");
        Leave::Damaged { file: format!("{}.MAD", self.name), what }.into()
    }
}
