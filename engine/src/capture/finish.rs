//! The metadata that makes copied files a backup. The file without which nobody takes them for one,
//! `*_checkpoints`, is written last, when everything else is in place.

use std::path::PathBuf;

use innodb::Lsn;
use jiff::civil::DateTime;

use super::protocol::Captured;
use super::run::Run;
use super::tablespace::CorruptPage;
use super::{BinlogNote, history};
use crate::delta::Base;
use crate::io::durable;
use crate::metadata::checkpoints::Checkpoints;
use crate::metadata::haulout_info::{HauloutInfo, LockSeconds, LsnRange, Replication};
use crate::metadata::{BackupInfo, BackupMyCnf, BinlogInfo, names};
use crate::server::Session;
use crate::server::profile::{Generation, ServerProfile};
use crate::server::session::Wait;
use crate::sink::{Mode, backup_path, write_file};
use crate::{Error, Result};

/// Who took the backup, and since when.
pub struct Identity {
    /// Name under which the tool was started.
    pub tool_name: String,
    /// Its arguments, with secrets masked.
    pub tool_command: String,
    /// When the backup began.
    pub started: DateTime,
    /// Whether it is a stream.
    pub is_stream: bool,
    /// Of a delta: what it is relative to.
    pub base: Option<Base>,
    /// Where else checkpoints and info go.
    pub extra_lsn_dir: Option<PathBuf>,
    /// The name in the server's table of backups, if it is to be there.
    pub history: Option<String>,
    /// Whether its files are compressed one by one.
    pub compressed: bool,
    /// Of a partial backup: which tables it has.
    pub tables: Option<String>,
    /// What becomes of the position in the binary log.
    pub binlog_note: BinlogNote,
}

/// Writes all metadata; returns what it says for programs.
pub fn write_metadata(
    run: &Run<'_>,
    session: &mut Session,
    profile: &ServerProfile,
    captured: &Captured,
    identity: Identity,
) -> Result<HauloutInfo> {
    let write = |name: &str, text: &str| {
        run.count_file();
        write_file(run.sink, &backup_path(name)?, Mode::Create, text.as_bytes())
    };
    let naming = profile.naming();
    let followed = &captured.followed;

    let binlog_info = BinlogInfo::from_position(&captured.positions.own)
        .filter(|_| identity.binlog_note == BinlogNote::Written);
    if let Some(binlog_info) = &binlog_info {
        write(naming.binlog_info(), &binlog_info.to_text())?;
    }
    if let Some(replica) = &captured.positions.replica {
        write(naming.slave_info(), &replica.statements)?;
    }
    if let Some(galera) = &captured.positions.galera {
        write(naming.galera_info(), &galera.text)?;
        write(names::DONOR_GALERA_INFO, &galera.text)?;
    }
    if let Some(log) = &captured.positions.young_log {
        run.count_file();
        write_file(run.sink, &backup_path(&log.name)?, Mode::Create, &log.content)?;
    }
    if !captured.corrupt_pages.is_empty() {
        write(names::CORRUPTED_PAGES, &corrupted_pages(&captured.corrupt_pages))?;
    }
    write(names::BACKUP_MY_CNF, &BackupMyCnf::from_profile(profile)?.to_text())?;

    let uuid =
        session.value("SELECT UUID()", Wait::short("asking for a UUID"))?.unwrap_or_default();
    let info = BackupInfo {
        uuid,
        name: identity.history.clone().unwrap_or_default(),
        tool_name: identity.tool_name,
        tool_command: identity.tool_command,
        tool_version: format!("{}-MariaDB", profile.version),
        server_version: profile.version_text.clone(),
        start_time: Some(identity.started),
        end_time: Some(BackupInfo::now()),
        lock_time: captured.locks.commit_blocked.as_secs(),
        innodb_from_lsn: identity.base.map_or(Lsn(0), |base| base.lsn),
        incremental: identity.base.is_some(),
        innodb_to_lsn: followed.checkpoint.lsn,
        partial: identity.tables.is_some(),
        stream: identity.is_stream,
        compressed: identity.compressed,
        ..BackupInfo::default()
    };
    let info = info.with_binlog(binlog_info.as_ref());
    let record = info.clone();
    let info = info.to_text();
    write(naming.info(), &info)?;

    let lsn = LsnRange {
        start: captured.start.0,
        checkpoint: followed.checkpoint.lsn.0,
        end: followed.end.0,
        from: identity.base.map(|base| base.lsn.0),
        pages_since: identity.base.map(|base| base.pages_since.0),
    };
    let (_, bytes) = run.copied();
    let document = HauloutInfo {
        replication: Some(Replication::from(&captured.positions.own)),
        locks: LockSeconds::from(&captured.locks),
        bytes,
        redo_bytes: captured.redo_bytes,
        torn_pages: captured.torn_pages,
        corrupt_pages: captured.corrupt_pages.len() as u64,
        tables: captured.tables.clone(),
        partial: identity.tables,
        ..HauloutInfo::new(profile, lsn)
    };
    write(names::HAULOUT_INFO, &document.to_text()?)?;

    run.sink.finish()?;
    run.check()?;
    let mut checkpoints = Checkpoints::full(followed.checkpoint.lsn, followed.end);
    if let Some(base) = identity.base {
        checkpoints = checkpoints.since(base.lsn);
    }
    checkpoints.recover_binlog_info = (profile.version.generation() != Generation::V10_5)
        .then_some(identity.binlog_note == BinlogNote::ByPrepare);
    write(naming.checkpoints(), &checkpoints.to_text())?;
    run.sink.finish()?;
    if let Some(dir) = &identity.extra_lsn_dir {
        std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        durable::write_file(&dir.join(naming.info()), info.as_bytes())?;
        checkpoints.write(dir, naming)?;
    }
    // Last: what is in the table is a backup.
    if identity.history.is_some() {
        history::add(session, profile, &record)?;
    }
    Ok(document)
}

/// The stock tool's list: a line with table and tablespace id, a line with page numbers.
fn corrupted_pages(pages: &[CorruptPage]) -> String {
    let mut pages: Vec<_> = pages.iter().collect();
    pages.sort_by(|a, b| (&a.path, a.page).cmp(&(&b.path, b.page)));
    let mut text = String::new();
    for group in pages.chunk_by(|a, b| a.path == b.path) {
        let Some(first) = group.first() else { continue };
        let path = first.path.to_string();
        let table = path.strip_suffix(".ibd").unwrap_or(&path);
        let numbers: Vec<_> = group.iter().map(|corrupt| corrupt.page.page.to_string()).collect();
        text.push_str(&format!("{table} {}\n{}\n", first.page.space, numbers.join(" ")));
    }
    text
}
