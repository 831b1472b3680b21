//! The last steps: from applied pages to a backup that says it is prepared.
//!
//! Their order is the promise. Data first, made durable; then the log that holds nothing but the
//! end LSN; then the state; then the mark of an unfinished prepare goes. Whichever of them a kill
//! interrupts, the next prepare finds redo that is already applied, or nothing to apply.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use innodb::redo::header::prepared_log;
use innodb::{Lsn, SpaceId};

use super::flush_lsn;
use super::inventory::Tablespace;
use super::journal::Journal;
use super::positions::{self, BinlogPosition, ClusterPosition};
use crate::io::durable;
use crate::metadata::names::BINLOG_POS_INNODB;
use crate::metadata::{Checkpoints, Naming};
use crate::{Error, Result};

/// Name of the redo log in a backup.
pub const LOG: &str = "ib_logfile0";

/// A donor's note on the cluster is not longer.
const CLUSTER_NOTE_MAX: u64 = 64 << 10;

/// Makes all files that were written to durable.
pub fn sync(
    files: &BTreeSet<(SpaceId, usize)>,
    spaces: &HashMap<SpaceId, Tablespace>,
    workers: usize,
) -> Result<()> {
    let paths: Vec<&Path> = files
        .iter()
        .filter_map(|(space, number)| spaces.get(space)?.files.get(*number))
        .map(|file| file.path.as_path())
        .collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(cause) = File::open(path).and_then(|file| file.sync_all())
                        && let Ok(mut failed) = failed.lock()
                    {
                        *failed = Some(Error::io("make durable", path, cause));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
}

/// Removes the folders of databases that have nothing in them: they were dropped.
pub fn remove_empty_databases(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, e))?;
        let path = entry.path();
        if entry.file_type().map_err(|e| Error::io("inspect", &path, e))?.is_dir() {
            match fs::remove_dir(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                    return Err(Error::io("remove", &path, e));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Notes where in its cluster the backup is, as InnoDB knows it. What the donor said is kept beside it.
fn note_cluster_position(dir: &Path, cluster: ClusterPosition, naming: Naming) -> Result<()> {
    let noted = dir.join(naming.galera_info());
    let mut said = Vec::new();
    match File::open(&noted).and_then(|file| file.take(CLUSTER_NOTE_MAX).read_to_end(&mut said)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("read", &noted, e));
        }
        _ => {}
    }
    // Behind the position is the cluster's replication domain, which is in no page.
    let text = String::from_utf8_lossy(&said);
    let domain = text.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let now = format!("{cluster} {}\n", domain.unwrap_or("0"));
    if now.as_bytes() == said {
        return Ok(());
    }
    if !said.is_empty() {
        durable::write_file(&dir.join(format!("{}_SST", naming.galera_info())), &said)?;
    }
    durable::write_file(&noted, now.as_bytes())
}

/// How a server learns where the log of a prepared backup ends.
#[derive(Clone, Copy)]
pub enum EndOfLog<'a> {
    /// From a log of this creator that holds nothing else.
    InLog(&'a str),
    /// Until 10.7: from the system tablespace. The log is empty.
    InSystemTablespace(&'a Journal),
}

/// Writes what a prepared backup has instead of the copied log and its state. Returns the binary
/// log position that InnoDB keeps.
pub fn declare_prepared(
    dir: &Path,
    log: EndOfLog<'_>,
    end: Lsn,
    spaces: &HashMap<SpaceId, Tablespace>,
    checkpoints: Checkpoints,
    naming: Naming,
) -> Result<Option<BinlogPosition>> {
    let (position, cluster) = positions::newest(spaces)?;
    if let Some(cluster) = cluster {
        note_cluster_position(dir, cluster, naming)?;
    }
    // The stock tool of servers up to 10.7 writes no position, and nobody expects one.
    let asks_for_position = matches!(log, EndOfLog::InLog(_));
    if asks_for_position && let Some(position) = &position {
        durable::write_file(&dir.join(BINLOG_POS_INNODB), &position.line())?;
        if checkpoints.recover_binlog_info == Some(true) {
            durable::write_file(&dir.join(naming.binlog_info()), &position.line())?;
        }
    }
    let log = match log {
        EndOfLog::InLog(creator) => prepared_log(creator, end),
        EndOfLog::InSystemTablespace(journal) => {
            flush_lsn::write(spaces, journal, end)?;
            Vec::new()
        }
    };
    durable::write_file(&dir.join(LOG), &log)?;
    checkpoints.prepared().write(dir, naming)?;
    Ok(position)
}
