//! Writes pages of a prepared backup anew. A kill cannot tear one for good: the journal of prepares has
//! its image, and the next prepare puts that back.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use innodb::page;
use innodb::tree::Pages;
use innodb::{PageId, PageNo};

use super::pages::Files;
use crate::io::{durable, holes};
use crate::metadata::names::ROLLED_BACK;
use crate::prepare::codec::CodecScratch;
use crate::prepare::inventory::Tablespace;
use crate::prepare::journal::Journal;
use crate::{Cancel, Error, Result};

/// What the mark says, for people.
const MARK: &[u8] = b"Exporting tables rolled back what open transactions had done. No delta fits this backup any more.\n";

/// Changes the pages of `space` that are in `changes`, and makes them durable. Their LSNs stay: no redo
/// goes with this.
pub fn pages<C>(
    dir: &Path,
    space: &Tablespace,
    files: &Files<'_>,
    changes: &BTreeMap<PageNo, C>,
    cancel: &Cancel,
    change: impl Fn(PageId, &mut Vec<u8>, &C) -> Result<()>,
) -> Result<()> {
    let (Some(file), false) = (space.files.first(), changes.is_empty()) else { return Ok(()) };
    let mark = dir.join(ROLLED_BACK);
    if !mark.try_exists().map_err(|e| Error::io("inspect", &mark, e))? {
        durable::write_file(&mark, MARK)?;
    }
    let journal = Journal::open(dir)?;
    let target = File::options().write(true).open(&file.path);
    let target = target.map_err(|e| Error::io("open", &file.path, e))?;
    let mut scratch = CodecScratch::default();
    for (page_no, changes) in changes {
        cancel.check()?;
        let id = PageId { space: space.id, page: *page_no };
        let mut bytes = files.page(id)?;
        let lsn = page::lsn(&bytes).unwrap_or_default();
        change(id, &mut bytes, changes)?;
        space.codec.seal(&mut bytes, id, lsn, &space.flags, &mut scratch)?;
        journal.note(0, space, file, &[(*page_no, &bytes)])?;
        let offset = u64::from(page_no.0) * bytes.len() as u64;
        match space.has_holes() {
            true => holes::write_all_at(&target, &bytes, offset),
            false => target.write_all_at(&bytes, offset),
        }
        .map_err(|e| Error::io("write", &file.path, e))?;
    }
    target.sync_all().map_err(|e| Error::io("make durable", &file.path, e))?;
    journal.remove()
}
