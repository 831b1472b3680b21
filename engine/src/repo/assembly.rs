//! A tablespace file of a chain, page by page: each page from the newest link that has it.
//!
//! Deltas and the whole file are read side by side, each once and in ascending order. What a newer
//! link has cut off is not taken from an older one; pages that nobody has are zeros, of which there
//! are never more than a server could have meant.

use innodb::page::{Verdict, verify};
use innodb::space::SpaceHeader;
use innodb::{PageNo, SpaceId};

use super::cursor::{DeltaPages, FileBytes, LinkReader};
use super::merge::no_link;
use super::merged::{Merged, Pages};
use crate::delta::pages::Length;
use crate::io::Pieces;
use crate::{Error, ErrorKind, Result};

/// Bytes of pages that are put together at once, about.
const PIECE: usize = 1 << 20;
/// Pages of the smallest tablespace.
const YOUNG_PAGES: u64 = 4;
/// Zeros that stand for pages that no link has, at most: more than a server makes a file longer by.
const ZEROS_MAX: u64 = 64 << 30;

/// What the files of the system tablespace have in common.
#[derive(Clone, Copy, Default)]
pub(super) struct System {
    /// Pages of the files so far.
    pub pages: u64,
    /// Pages that the first one counts.
    pub counted: Option<u64>,
    pub header: Option<SpaceHeader>,
}

/// Where a file of the system tablespace stands.
pub(super) struct Place {
    pub before: System,
    pub is_first: bool,
    /// Of several.
    pub is_last: bool,
}

/// A delta of the tablespace.
struct Newer {
    link: usize,
    pages: DeltaPages,
    /// The first page that a newer link has cut off.
    limit: u64,
    /// What the tablespace is, for the check of its pages; none if that is not told.
    header: Option<SpaceHeader>,
    /// Whether it was taken although pages were corrupt.
    has_corrupt: bool,
}

/// The file as an older link has it whole.
struct Whole {
    link: usize,
    bytes: FileBytes,
    /// Pages that it has and that no newer link has cut off.
    pages: u64,
}

/// A tablespace file that is being put together.
pub(super) struct Putting {
    space: SpaceId,
    page_size: usize,
    pub is_system: bool,
    /// The first page of the file, within its tablespace.
    first_page: u64,
    /// The newest first.
    newer: Vec<Newer>,
    base: Option<Whole>,
    /// The page that comes next.
    pub next: u64,
    /// The file has at least so many pages.
    least: u64,
    zeros: u64,
    /// What the newest first page says.
    pub header: Option<SpaceHeader>,
    /// Pages that it counts.
    pub counted: Option<u64>,
}

impl Putting {
    pub fn new(
        merged: &Merged,
        links: &mut [LinkReader],
        pages: Pages,
        system: Option<Place>,
    ) -> Result<Self> {
        let Pages { meta, base, deltas, length } = pages;
        let page_size = meta.page_size.bytes();
        // Other files of the system tablespace do not have its first page.
        let begins = system.as_ref().is_none_or(|place| place.is_first);
        let mut newer = Vec::new();
        for (number, path) in deltas {
            let (Some(manifest), Some(link)) = (merged.links.get(number), links.get_mut(number))
            else {
                return Err(no_link());
            };
            let pages = DeltaPages::new(link, manifest, &path, meta.page_size)?;
            let has_corrupt = manifest.corrupt_pages > 0;
            newer.push(Newer { link: number, pages, limit: u64::MAX, header: None, has_corrupt });
        }
        let mut base = match base {
            Some((number, path)) => {
                let Some(manifest) = merged.links.get(number) else { return Err(no_link()) };
                let bytes = FileBytes::new(manifest, &path);
                let pages = bytes.size() / page_size as u64;
                Some(Whole { link: number, bytes, pages })
            }
            None => None,
        };

        // What the first page says, from the oldest to the newest.
        let mut header = system.as_ref().and_then(|place| place.before.header);
        let base_pages = base.as_ref().map_or(0, |base| base.pages);
        // A server takes none that is shorter than so many of its own pages.
        let young = YOUNG_PAGES * (merged.page_size.bytes() / page_size).max(1) as u64;
        let mut least = if base.is_some() { base_pages } else { young };
        if let Some(base) = base.as_mut().filter(|base| begins && base.pages > 0) {
            let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
            header = SpaceHeader::parse(base.bytes.look(link, page_size)?).ok();
        }
        let oldest = newer.len().saturating_sub(1);
        for (number, delta) in newer.iter_mut().enumerate().rev() {
            let Some(link) = links.get_mut(delta.link) else { return Err(no_link()) };
            let has_first = begins && delta.pages.peek() == Some(0);
            if has_first {
                let parsed = SpaceHeader::parse(delta.pages.look(link)?);
                let parsed = parsed.map_err(|why| delta.pages.damaged(link, &why.to_string()))?;
                if parsed.id != meta.space || parsed.physical_size() != meta.page_size {
                    let why = format!("its first page is that of tablespace {}", parsed.id);
                    return Err(delta.pages.damaged(link, &why));
                }
                least = match length {
                    Length::Follows => u64::from(parsed.size),
                    Length::Grows => least.max(u64::from(parsed.size)),
                    Length::Stays => least,
                };
                header = Some(parsed);
            }
            let redo_makes_it = merged.redo_makes_tables.get(delta.link).copied().unwrap_or(false);
            if base.is_none() && number == oldest && !has_first && !redo_makes_it {
                let why = "the backup that it is based on does not have its tablespace";
                return Err(delta.pages.damaged(link, why));
            }
            delta.header = header;
        }
        // What a newer link has cut off, from the newest to the oldest.
        let mut limit = u64::MAX;
        for delta in &mut newer {
            delta.limit = limit;
            if begins && length == Length::Follows && delta.pages.peek() == Some(0) {
                limit = limit.min(delta.header.map_or(u64::MAX, |header| header.size.into()));
            }
        }
        if let Some(base) = &mut base {
            base.pages = base.pages.min(limit);
        }
        if let Some(place) = system.as_ref().filter(|place| place.is_last) {
            // The last file is as long as the rest that the first page counts.
            let counted = place.before.counted.unwrap_or_default();
            least = least.max(counted.saturating_sub(place.before.pages));
        }
        let first_page = system.as_ref().map_or(0, |place| place.before.pages);
        Ok(Self {
            space: meta.space,
            page_size,
            is_system: system.is_some(),
            first_page,
            newer,
            base,
            next: 0,
            least,
            zeros: 0,
            header,
            counted: header.filter(|_| begins).map(|header| header.size.into()),
        })
    }

    /// The next pages; none at the end.
    pub fn next(&mut self, links: &mut [LinkReader]) -> Result<Pieces> {
        let mut out = Pieces::default();
        let most = (PIECE / self.page_size).max(1) as u64;
        let mut room = most;
        while room > 0 {
            let Some(pages) = self.step(links, room, &mut out)? else { break };
            self.next += pages;
            room -= pages.min(room);
        }
        if room == most {
            self.finish(links)?;
        }
        Ok(out)
    }

    /// Appends pages, and says how many; nothing at the end.
    fn step(
        &mut self,
        links: &mut [LinkReader],
        room: u64,
        out: &mut Pieces,
    ) -> Result<Option<u64>> {
        let wanted = self.next;
        let mut found = false;
        // The first page behind this one that a delta has.
        let mut behind = u64::MAX;
        for number in 0..self.newer.len() {
            let Some(delta) = self.newer.get_mut(number) else { break };
            let Some(link) = links.get_mut(delta.link) else { return Err(no_link()) };
            while delta.pages.peek().is_some_and(|page| u64::from(page) >= delta.limit) {
                delta.pages.skip(link)?;
            }
            if delta.pages.peek().map(u64::from) == Some(wanted) {
                if found {
                    delta.pages.skip(link)?;
                } else {
                    let page = delta.pages.take(link)?;
                    found = true;
                    self.check(number, links, &page)?;
                    out.push(page);
                }
            }
            let Some(delta) = self.newer.get(number) else { break };
            let next = delta.pages.peek().map(u64::from).filter(|next| *next < delta.limit);
            behind = behind.min(next.unwrap_or(u64::MAX));
        }
        let base = self.base.as_mut().filter(|base| wanted < base.pages);
        if found {
            if let Some(base) = base {
                let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
                base.bytes.skip(link, self.page_size)?;
            }
            return Ok(Some(1));
        }
        if let Some(base) = base {
            let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
            let pages = room.min(behind.min(base.pages) - wanted);
            let len = pages as usize * self.page_size;
            base.bytes.append(link, len, out)?;
            return Ok(Some(pages));
        }
        let end = if behind == u64::MAX { self.least } else { behind };
        if wanted >= end {
            return Ok(None);
        }
        let pages = room.min(end - wanted);
        let len = pages as usize * self.page_size;
        out.push_zeros(len);
        self.zeros += len as u64;
        if self.zeros > ZEROS_MAX {
            let message = format!(
                "tablespace {} would get more than {} GiB of pages that no backup of the chain has",
                self.space,
                ZEROS_MAX >> 30
            );
            return Err(Error::new(ErrorKind::Damage, message).advise("take a full backup"));
        }
        Ok(Some(pages))
    }

    /// Looks at the page that comes next, which is this delta's.
    fn check(&self, number: usize, links: &[LinkReader], page: &[u8]) -> Result<()> {
        let delta = self.newer.get(number).filter(|delta| !delta.has_corrupt);
        let Some((delta, header)) = delta.and_then(|delta| Some((delta, delta.header.as_ref()?)))
        else {
            return Ok(());
        };
        let page_no = u32::try_from(self.first_page + self.next).map_or(PageNo(u32::MAX), PageNo);
        // Images of other pages; the server checks them itself.
        if self.space == SpaceId::SYSTEM && verify::is_doublewrite(page_no, header.physical_size())
        {
            return Ok(());
        }
        match verify::verify(page, page_no, Some(self.space), &header.flags) {
            Verdict::Damaged(damage) => {
                let Some(link) = links.get(delta.link) else { return Err(no_link()) };
                Err(delta.pages.damaged(link, &format!("page {page_no}: {damage}")))
            }
            _ => Ok(()),
        }
    }

    /// Reads all files to their ends.
    fn finish(&mut self, links: &mut [LinkReader]) -> Result<()> {
        for delta in &mut self.newer {
            let Some(link) = links.get_mut(delta.link) else { return Err(no_link()) };
            delta.pages.finish(link)?;
        }
        if let Some(base) = &mut self.base {
            let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
            base.bytes.finish(link)?;
        }
        Ok(())
    }
}
