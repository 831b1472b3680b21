//! Reading a live server into a backup.
//!
//! ```text
//! protocol: START ── FLUSH ── BLOCK_DDL ── BLOCK_COMMIT ── END
//!    redo follower ═══════════════════════════════▶│ ends at the LSN of BLOCK_COMMIT
//!    tablespaces ════▶ new, renamed, dropped ▶│
//!    other engines ══▶ again ══▶ again ═══════▶ logs and statistics ▶│
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`protocol`] | the order of it all, and what happens under which lock |
//! | `release` | letting go of the locks when the backup is given up |
//! | [`inventory`] | what files there are and what each is to a backup |
//! | `left_out` | what belongs to this server and to no copy |
//! | [`redo`] | following the redo log |
//! | [`tablespace`], [`job`], `checks` | copying InnoDB files, every page checked |
//! | [`changed`] | of a delta: the pages that changed |
//! | `unidentified` | what can be checked without page 0 |
//! | [`plain`] | copying everything else until it equals the server |
//! | [`positions`] | where the server stands when the backup ends |
//! | [`galera`] | where a member of a cluster stands |
//! | [`history`] | the table of backups on the server |
//! | [`foreign`] | tables that need more than the backup |
//! | [`rocksdb`] | the checkpoint of MyRocks |
//! | [`ddl`], `settle` | what happened to tablespaces meanwhile |
//! | [`finish`] | the metadata that makes the files a backup, written last |
//! | [`vanished`] | tablespaces whose files are gone |
//! | [`run`] | what all threads share: stop, first error, progress, throttle |

pub mod changed;
mod checks;
pub mod ddl;
pub mod finish;
pub mod foreign;
pub mod galera;
pub mod history;
pub mod inventory;
pub mod job;
mod left_out;
pub mod plain;
pub mod positions;
pub mod protocol;
pub mod redo;
mod release;
pub mod rocksdb;
pub mod run;
mod settle;
pub mod tablespace;
mod unidentified;
pub mod vanished;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::delta::Base;
use crate::io::IoMode;
use crate::keys::KeySettings;
use crate::keys::settings::KeyStore;
use crate::metadata::BackupInfo;
use crate::metadata::haulout_info::HauloutInfo;
pub use crate::metadata::haulout_info::TableNeed;
use crate::server::privileges::{self, Needs};
use crate::server::profile::ServerProfile;
use crate::server::replica::HeldReplication;
use crate::server::{ConnectOptions, Session};
use crate::sink::{FolderSink, QpressSink, Sink, StreamSink};
use crate::table_filter::TableFilter;
use crate::{Cancel, Reporter, Result};
pub use history::HistoryKey;
use run::Run;

/// Where the backup goes.
pub enum Target {
    /// A directory; created if missing, must be empty.
    Folder(PathBuf),
    /// An xbstream written to this, usually standard output.
    Stream(Box<dyn Write + Send>),
    /// A sink of the caller's, of a kind of its own.
    Sink(Arc<dyn Sink>),
}

/// What to back up, to where, and how gently.
pub struct BackupOptions {
    /// How to reach the server.
    pub connect: ConnectOptions,
    /// Where the backup goes.
    pub target: Target,
    /// The data directory as the user named it; the server's own word wins, a difference is warned about.
    pub datadir: Option<PathBuf>,
    /// Copying threads, at least 1.
    pub parallel: usize,
    /// Upper limit of bytes read per second from tablespaces and other files; redo is never throttled.
    pub throttle: Option<u64>,
    /// How long to wait for each lock before giving up.
    pub lock_timeout: Duration,
    /// Record corrupt pages in `innodb_corrupted_pages` and go on, instead of failing.
    pub continue_on_corrupt_pages: bool,
    /// Where the redo spool may overflow to; the system's temporary directory when unset.
    pub spool_dir: Option<PathBuf>,
    /// How tablespaces are read.
    pub io_mode: IoMode,
    /// Where encryption keys are; what the server itself says counts less. Only an encrypted redo
    /// log takes them.
    pub keys: KeySettings,
    /// Decrypt pages to check what is inside, for which all keys are needed.
    pub deep_check: bool,
    /// Back up MyRocks too, where the server has it.
    pub rocksdb: bool,
    /// Which tables.
    pub tables: TableFilter,
    /// Name of the tool and its arguments for the info file, with secrets masked.
    pub tool_name: String,
    /// See `tool_name`.
    pub tool_command: String,
    /// Of which backup only the changes since are wanted; a full backup when unset.
    pub base: Option<Base>,
    /// The same by the server's table of backups.
    pub base_in_history: Option<HistoryKey>,
    /// Adds the backup to the server's table of backups, under this name.
    pub history: Option<String>,
    /// What else is noted of the server, and done to it.
    pub extras: Extras,
    /// Where else the files go that a later delta needs to know: `*_checkpoints` and `*_info`.
    pub extra_lsn_dir: Option<PathBuf>,
    /// Compresses every file by itself, in blocks that hold so many bytes ([`crate::qpress`]).
    pub qpress_block: Option<usize>,
}

/// What a backup notes of a server, and does to it, only when it is asked to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// Notes where the server is as a replica, for another replica of its primaries.
    pub replica_info: bool,
    /// Notes where the server is in its cluster, for a node that joins.
    pub galera_info: bool,
    /// Stops replication within this time, and while it has no temporary tables, for the time of
    /// the backup.
    pub hold_replication: Option<Duration>,
    /// Asks for a checkpoint first, so that there is less redo to copy and to apply.
    pub checkpoint_first: bool,
    /// Locks nothing. The backup is good only if nobody writes to tables without transactions; it
    /// fails when a table is made, changed or dropped near its end.
    pub without_locks: bool,
    /// What becomes of the position in the binary log in the stock tool's files.
    pub binlog_note: BinlogNote,
}

/// Whether the stock tool's files say where the binary log was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinlogNote {
    /// They do.
    #[default]
    Written,
    /// They do not.
    LeftOut,
    /// They will once prepare has found the position in InnoDB, from 10.6 on.
    ByPrepare,
}

impl BackupOptions {
    /// A backup with what is right for most servers: two copying threads, no throttle, a minute
    /// for each lock, and a failure at the first corrupt page.
    pub fn new(connect: ConnectOptions, target: Target) -> Self {
        Self {
            connect,
            target,
            datadir: None,
            parallel: 2,
            throttle: None,
            lock_timeout: Duration::from_secs(60),
            continue_on_corrupt_pages: false,
            spool_dir: None,
            io_mode: IoMode::Auto,
            keys: KeySettings::default(),
            deep_check: false,
            rocksdb: true,
            tables: TableFilter::default(),
            tool_name: "haulout".to_owned(),
            tool_command: String::new(),
            base: None,
            base_in_history: None,
            history: None,
            extras: Extras::default(),
            extra_lsn_dir: None,
            qpress_block: None,
        }
    }
}

/// What a finished backup was. Serialises to the JSON document of `haulout backup --json`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BackupSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// `VERSION()` of the server.
    pub server_version: String,
    /// Of a delta: the checkpoint at which its base ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_lsn: Option<u64>,
    /// Of a delta: the pages in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_pages: Option<u64>,
    /// Checkpoint at which the copied redo log starts.
    pub start_lsn: u64,
    /// Checkpoint of the server at the end: base of a later delta.
    pub to_lsn: u64,
    /// End of the copied redo log: what the prepared backup equals.
    pub end_lsn: u64,
    /// Binary log file at the end LSN, when the binary log is on.
    pub binlog_file: Option<String>,
    /// Position in that file.
    pub binlog_position: Option<u64>,
    /// GTID position at the end LSN.
    pub gtid: Option<String>,
    /// Of a replica, if that was asked for: where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// Files in the backup.
    pub files: u64,
    /// Bytes read from tablespaces and other files.
    pub bytes: u64,
    /// Bytes of redo copied.
    pub redo_bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Seconds in which DDL was blocked.
    pub ddl_blocked_seconds: f64,
    /// Seconds in which commits were blocked.
    pub commit_blocked_seconds: f64,
    /// Seconds in which new writes to tables without transactions were blocked.
    pub writes_blocked_seconds: f64,
    /// The checkpoint of MyRocks that is in the backup.
    pub rocksdb: Option<RocksDb>,
    /// Pages read again because they were torn.
    pub torn_pages: u64,
    /// Pages that stayed corrupt (only with `continue_on_corrupt_pages`).
    pub corrupt_pages: u64,
    /// Tables that need more than this backup when it is restored.
    pub tables: Vec<TableNeed>,
}

/// The part of a backup that is MyRocks'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RocksDb {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Takes a backup. On error the target is left without the file that makes it a backup.
///
/// # Errors
/// [`Server`](crate::ErrorKind::Server) when the server refuses, [`Timeout`](crate::ErrorKind::Timeout)
/// when a lock is not granted, [`Damage`](crate::ErrorKind::Damage) for corrupt pages,
/// [`Gap`](crate::ErrorKind::Gap) when the server overwrites redo that was not read yet.
pub fn backup(
    options: BackupOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<BackupSummary> {
    backup_in_detail(options, cancel, reporter).map(|(summary, _)| summary)
}

/// The same, and what `haulout_info.json` says.
pub(crate) fn backup_in_detail(
    options: BackupOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<(BackupSummary, HauloutInfo)> {
    let clock = Instant::now();
    let started = BackupInfo::now();
    let mut session = Session::connect(&options.connect, cancel)?;
    let profile = ServerProfile::read(&mut session)?;
    if options.rocksdb {
        rocksdb::check_places(&profile)?;
    }
    let extras = options.extras;
    let needs = Needs {
        rocksdb: options.rocksdb,
        without_locks: extras.without_locks,
        replica_info: extras.replica_info,
        hold_replication: extras.hold_replication.is_some(),
    };
    for warning in privileges::check(&mut session, &profile, needs)? {
        reporter.warn(warning);
    }
    let base = match &options.base_in_history {
        Some(key) => Some(Base::at(history::end_of(&mut session, &profile, key)?)),
        None => options.base,
    };
    if options.history.is_some() {
        history::make_table(&mut session, &profile)?;
    }
    if let Some(datadir) =
        options.datadir.as_ref().filter(|datadir| !same_directory(datadir, &profile.datadir))
    {
        reporter.warn(format!(
            "the data directory was given as {}, but the server uses {}: that is what is backed up",
            datadir.display(),
            profile.datadir.display()
        ));
    }
    let (sink, is_stream): (Arc<dyn Sink>, bool) = match options.target {
        Target::Folder(dir) => (Arc::new(FolderSink::create(&dir)?), false),
        Target::Stream(output) => (Arc::new(StreamSink::new(output)), true),
        Target::Sink(sink) => (sink, true),
    };
    let sink = match options.qpress_block {
        Some(block) => Arc::new(QpressSink::new(sink, block)),
        None => sink,
    };
    let run = Run::new(cancel, reporter, &*sink, options.throttle);
    let held = match extras.hold_replication {
        Some(limit) => HeldReplication::hold(session.another()?, limit, reporter)?,
        None => None,
    };
    let settings = protocol::Settings {
        connect: options.connect,
        threads: options.parallel.max(1),
        lock_timeout: options.lock_timeout,
        continue_on_corrupt_pages: options.continue_on_corrupt_pages,
        spool_dir: options.spool_dir.unwrap_or_else(std::env::temp_dir),
        io_mode: options.io_mode,
        keys: KeyStore::new(profile.keys().overlaid_with(options.keys)),
        deep_check: options.deep_check,
        rocksdb: options.rocksdb,
        tables: options.tables,
        extras,
        base,
    };
    let captured = protocol::capture(&run, &mut session, &profile, &settings);
    let captured = run.conclude(captured)?;
    if let Some(held) = held {
        held.release()?;
    }
    let identity = finish::Identity {
        tool_name: options.tool_name,
        tool_command: options.tool_command,
        started,
        is_stream,
        base,
        history: options.history,
        extra_lsn_dir: options.extra_lsn_dir,
        compressed: options.qpress_block.is_some(),
        tables: settings.tables.describe(),
        binlog_note: settings.extras.binlog_note,
    };
    let details = finish::write_metadata(&run, &mut session, &profile, &captured, identity)?;
    session.close();

    let (files, bytes) = run.copied();
    let binlog = captured.positions.own.binlog.as_ref();
    let gtid = captured.positions.own.gtid.to_string();
    let summary = BackupSummary {
        format: 1,
        server_version: profile.version_text.clone(),
        from_lsn: base.map(|base| base.lsn.0),
        changed_pages: base.map(|_| captured.changed_pages),
        start_lsn: captured.start.0,
        to_lsn: captured.followed.checkpoint.lsn.0,
        end_lsn: captured.followed.end.0,
        binlog_file: binlog.map(|binlog| binlog.file().to_string()),
        binlog_position: binlog.map(|binlog| binlog.offset()),
        gtid: (!gtid.is_empty()).then_some(gtid),
        replica: captured.positions.replica.map(|replica| replica.sentence),
        files,
        bytes,
        redo_bytes: captured.redo_bytes,
        seconds: clock.elapsed().as_secs_f64(),
        ddl_blocked_seconds: captured.locks.ddl_blocked.as_secs_f64(),
        commit_blocked_seconds: captured.locks.commit_blocked.as_secs_f64(),
        writes_blocked_seconds: captured.locks.writes_blocked.as_secs_f64(),
        rocksdb: captured.rocksdb,
        torn_pages: captured.torn_pages,
        corrupt_pages: captured.corrupt_pages.len() as u64,
        tables: captured.tables,
    };
    Ok((summary, details))
}

fn same_directory(one: &std::path::Path, other: &std::path::Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
