//! The end of the log as servers up to 10.7 are told it.
//!
//! A prepared backup of theirs has an empty log. Where the next log starts stands on page 0 of the
//! system tablespace; a server that finds a wrong LSN there starts without a word, and its later
//! changes are older than the pages they belong to. So the LSN is made durable before the log is
//! emptied, and an empty log counts only together with it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use innodb::page::stamp::{flush_lsn, set_flush_lsn};
use innodb::page::{Verdict, verify};
use innodb::{Lsn, PageNo, PageSize, SpaceId};

use super::finish::LOG;
use super::inventory::Tablespace;
use super::journal::Journal;
use crate::metadata::Checkpoints;
use crate::{Error, ErrorKind, Result};

/// Writes `end` to the system tablespace, and makes it durable.
pub fn write(spaces: &HashMap<SpaceId, Tablespace>, journal: &Journal, end: Lsn) -> Result<()> {
    let system = spaces.get(&SpaceId::SYSTEM);
    let Some((system, file)) = system.and_then(|system| Some((system, system.files.first()?)))
    else {
        return Err(Error::new(ErrorKind::Damage, "the backup has no system tablespace"));
    };
    let mut page = vec![0; system.flags.physical_size().bytes()];
    let data = File::options().read(true).write(true).open(&file.path);
    let data = data.map_err(|e| Error::io("open", &file.path, e))?;
    data.read_exact_at(&mut page, 0).map_err(|e| Error::io("read", &file.path, e))?;
    set_flush_lsn(&mut page, end, &system.flags);
    journal.note(0, system, file, &[(PageNo(0), &page)])?;
    data.write_all_at(&page, 0).map_err(|e| Error::io("write", &file.path, e))?;
    data.sync_all().map_err(|e| Error::io("make durable", &file.path, e))
}

/// The LSN at which a backup is prepared that has an empty log, and the system tablespace to say so.
pub fn instead_of_log(
    dir: &Path,
    page_size: PageSize,
    system_files: &[String],
    checkpoints: &Checkpoints,
) -> Result<Option<Lsn>> {
    let log = dir.join(LOG);
    match fs::metadata(&log) {
        Ok(metadata) if metadata.len() == 0 => {}
        // Whoever reads the log says what is wrong with it.
        _ => return Ok(None),
    }
    let Some(name) = system_files.first() else { return Ok(None) };
    let path = dir.join(name);
    let mut page = vec![0; page_size.bytes()];
    File::open(&path)
        .and_then(|file| file.read_exact_at(&mut page, 0))
        .map_err(|e| Error::io("read", &path, e))?;
    let flags = innodb::space::SpaceHeader::parse(&page).map(|header| header.flags);
    let whole = flags
        .is_ok_and(|flags| verify(&page, PageNo(0), Some(SpaceId::SYSTEM), &flags) == Verdict::Ok);
    let end = flush_lsn(&page);
    if whole && end >= checkpoints.to_lsn.max(checkpoints.last_lsn) && end > Lsn(0) {
        return Ok(Some(end));
    }
    Err(Error::new(
        ErrorKind::Damage,
        format!(
            "{} is empty, and {name} does not say that its redo is applied (flush LSN {end})",
            log.display()
        ),
    )
    .advise("copy the backup again, or take a new one"))
}
