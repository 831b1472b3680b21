//! The pages of one `.delta` file: looking at them, and writing them into their tablespace.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use innodb::bytes::u32_at;
use innodb::page::{Verdict, verify};
use innodb::space::header::{SIZE, SpaceHeader};
use innodb::space::xdes::pages_per_extent;
use innodb::{PageNo, PageSize, SpaceId};

use super::format::{Cluster, cluster_offset};
use super::source::{ChangedFile, damaged};
use crate::io::{Buffer, holes};
use crate::{Cancel, Error, Result};

/// Bytes read at once: a multiple of every page size.
const PIECE: usize = 1 << 20;

/// What becomes of the length of a tablespace file when its first page changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// It only grows: a table's.
    Grows,
    /// It becomes what the page says: an undo tablespace's, that of a system tablespace in one file.
    Follows,
    /// That page says nothing of it: a file of a system tablespace in several.
    Stays,
}

/// Calls `take` with runs of pages: the number of the first within its file, and their images.
fn for_each_run(
    changed: &ChangedFile,
    cancel: &Cancel,
    take: &mut dyn FnMut(u32, &[u8]) -> Result<()>,
) -> Result<()> {
    let path = &changed.path;
    let page_size = changed.meta.page_size.bytes();
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let read = |bytes: &mut [u8], at| {
        file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(path, "it was cut short"),
            _ => Error::io("read", path, error),
        })
    };
    let mut buffer = Buffer::new(PIECE);
    let mut header = vec![0; page_size];
    let (mut number, mut after) = (0, None);
    loop {
        let mut at = cluster_offset(changed.meta.page_size, number);
        read(&mut header, at)?;
        at += page_size as u64;
        let cluster = Cluster::parse(&header, number, after).map_err(|e| damaged(path, e))?;
        for pages in cluster.pages.chunks(PIECE / page_size) {
            cancel.check()?;
            let images = buffer.get_mut(..pages.len() * page_size).unwrap_or_default();
            read(images, at)?;
            at += images.len() as u64;
            let mut images: &[u8] = images;
            for run in pages.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
                let (own, rest) = images.split_at(run.len() * page_size);
                take(run.first().copied().unwrap_or_default(), own)?;
                images = rest;
            }
        }
        if cluster.last {
            return Ok(());
        }
        after = cluster.pages.last().copied();
        number += 1;
    }
}

/// Looks at every page; nothing is changed. `first_page` is that of the file within its tablespace,
/// and `known` the tablespace as the base has it. Returns what the first page in the delta says.
pub fn check(
    changed: &ChangedFile,
    first_page: PageNo,
    known: Option<&SpaceHeader>,
    logical: PageSize,
    corrupt_accepted: bool,
    cancel: &Cancel,
) -> Result<Option<SpaceHeader>> {
    let page_size = changed.meta.page_size.bytes();
    let (mut header, mut own) = (known.copied(), None);
    let extent = pages_per_extent(logical);
    for_each_run(changed, cancel, &mut |first, images| {
        for (number, page) in (first..).zip(images.chunks_exact(page_size)) {
            let page_no = PageNo(first_page.0.saturating_add(number));
            if page_no == PageNo(0) {
                let parsed = SpaceHeader::parse(page).map_err(|e| damaged(&changed.path, e))?;
                if parsed.id != changed.meta.space
                    || parsed.flags.physical_size() != changed.meta.page_size
                {
                    let why = format!("its first page is that of tablespace {}", parsed.id);
                    return Err(damaged(&changed.path, why));
                }
                (header, own) = (Some(parsed), Some(parsed));
            }
            // Images of other pages; the server checks them itself.
            let doublewrite =
                changed.meta.space == SpaceId::SYSTEM && (extent..3 * extent).contains(&page_no.0);
            let Some(header) = header.as_ref().filter(|_| !doublewrite && !corrupt_accepted) else {
                continue;
            };
            if let Verdict::Damaged(damage) =
                verify(page, page_no, Some(changed.meta.space), &header.flags)
            {
                return Err(damaged(&changed.path, format!("page {page_no}: {damage}")));
            }
        }
        Ok(())
    })?;
    Ok(own)
}

/// Writes all pages into the tablespace file at `path`, which exists. Returns how many.
pub fn write(
    changed: &ChangedFile,
    path: &Path,
    length: Length,
    has_holes: bool,
    cancel: &Cancel,
) -> Result<u64> {
    let page_size = changed.meta.page_size.bytes();
    let target = File::options().read(true).write(true).open(path);
    let target = target.map_err(|e| Error::io("open", path, e))?;
    let resize = |bytes: u64| target.set_len(bytes).map_err(|e| Error::io("resize", path, e));
    let size = || {
        let metadata = target.metadata().map_err(|e| Error::io("inspect", path, e));
        metadata.map(|metadata| metadata.len())
    };
    let mut pages = 0;
    for_each_run(changed, cancel, &mut |first, images| {
        if first == 0 && length != Length::Stays {
            let counted = u32_at(images, SIZE).unwrap_or_default();
            let wanted = u64::from(counted) * page_size as u64;
            if length == Length::Follows || size()? < wanted {
                resize(wanted)?;
            }
        }
        let at = u64::from(first) * page_size as u64;
        let end = at + images.len() as u64;
        match has_holes {
            // Holes are made within a file only.
            true if size()? < end => resize(end).and_then(|()| {
                holes::write_all_at(&target, images, at).map_err(|e| Error::io("write", path, e))
            })?,
            true => {
                holes::write_all_at(&target, images, at).map_err(|e| Error::io("write", path, e))?
            }
            false => target.write_all_at(images, at).map_err(|e| Error::io("write", path, e))?,
        }
        pages += (images.len() / page_size) as u64;
        Ok(())
    })?;
    Ok(pages)
}
