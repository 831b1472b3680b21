//! `haulout backup`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::Lsn;
use engine::capture::{self, BackupOptions, BackupSummary, Extras, Target};
use engine::delta::Base;
use engine::io::IoMode;
use engine::repo::backup::{StoreBackupOptions, StoredBackup};
use engine::repo::catalog::Selection;
use engine::repo::choice::Choice;
use engine::repo::compression::Compression;
use engine::repo::parent::{Basis, CHAIN_MAX};
use engine::table_filter::TableFilter;
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::connection::Connection;
use super::keys::Keys;
use super::repo::Access;
use super::{counted, needs_words, parse_threads, quoted, rate};
use crate::console::Outcome;
use crate::duration::{self, show_seconds};
use crate::size::Size;
use crate::{machine, streams};

const EXAMPLES: &str = "\
Examples:
  haulout backup --target-dir /backups/monday
  haulout backup --target-dir /backups/monday --throttle 100MiB --lock-timeout 2m
  haulout backup --target-dir /backups/tuesday --base /backups/monday
  haulout backup --repo s3://bucket/db1 --compress zstd:3
  haulout backup --repo s3://bucket/db1 --auto
  haulout backup --stream | ssh host2 haulout extract --to /backups/monday";

/// Back up a running server, into a directory, a repository, or as an xbstream on standard output
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Backup {
    #[command(flatten)]
    to: Destination,
    #[command(flatten)]
    since: Since,
    #[command(flatten)]
    chosen: Chosen,
    /// Copying threads [default: the cores, at most 4]
    #[arg(long, value_name = "N", env = "HAULOUT_PARALLEL", value_parser = parse_threads)]
    parallel: Option<usize>,
    /// Read at most this many bytes per second; redo is never throttled
    #[arg(long, value_name = "SIZE", env = "HAULOUT_THROTTLE", value_parser = parse_throttle)]
    throttle: Option<Size>,
    /// Give up when a lock is not granted within this time
    #[arg(long, value_name = "TIME", env = "HAULOUT_LOCK_TIMEOUT", default_value = "60s",
          value_parser = duration::parse)]
    lock_timeout: Duration,
    /// List corrupt pages in the file innodb_corrupted_pages and go on
    #[arg(long)]
    continue_on_corrupt_pages: bool,
    /// Decrypt encrypted pages to check what is inside, and not only as they are stored
    #[arg(long)]
    deep_check: bool,
    /// Leave MyRocks out: its tables are in the backup without their rows
    #[arg(long)]
    skip_rocksdb: bool,
    /// Where redo is kept that the target cannot take yet [default: the temporary directory]
    #[arg(long, value_name = "DIR", env = "HAULOUT_SPOOL_DIR")]
    spool_dir: Option<PathBuf>,
    /// How tablespaces are read
    #[arg(long, value_enum, value_name = "WAY", env = "HAULOUT_IO", default_value = "auto")]
    io: Io,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    storing: Storing,
}

/// Ways of reading tablespaces.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Io {
    /// io_uring where the kernel allows it, else plain reads
    Auto,
    /// io_uring or an error
    Uring,
    /// plain reads
    Pread,
}

impl From<Io> for IoMode {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Uring => Self::Uring,
            Io::Pread => Self::Pread,
        }
    }
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Destination {
    /// Directory for the backup; created if missing, must be empty
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Write an xbstream to standard output
    #[arg(long)]
    stream: bool,
    /// Store it in this repository: s3://BUCKET/PREFIX, or a folder [default: HAULOUT_REPO, when
    /// nothing else is said]
    #[arg(long, value_name = "PLACE")]
    repo: Option<String>,
}

impl Destination {
    /// The repository that is meant, if it is one.
    fn repository(&self) -> Option<String> {
        if self.target_dir.is_some() || self.stream {
            return None;
        }
        self.repo.clone().or_else(|| std::env::var("HAULOUT_REPO").ok())
    }
}

/// Which backup a delta is relative to.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Since {
    /// Back up only what changed since the backup in this directory, full or itself a delta
    #[arg(long, value_name = "DIR", conflicts_with = "repo")]
    base: Option<PathBuf>,
    /// Back up only what changed since this LSN: the to_lsn of a backup that is elsewhere
    #[arg(long, value_name = "LSN", conflicts_with = "repo")]
    base_lsn: Option<u64>,
}

impl Since {
    fn base(&self) -> Result<Option<Base>> {
        match (&self.base, self.base_lsn) {
            (Some(dir), _) => Base::of_unprepared(dir).map(Some),
            (None, lsn) => Ok(lsn.map(|lsn| Base::at(Lsn(lsn)))),
        }
    }
}

/// Which tables.
#[derive(Debug, Args)]
#[command(next_help_heading = "Some tables")]
struct Chosen {
    /// Back up only these tables, with all their partitions, or one as db.table#P#p0; *, ? and []
    /// match as in a shell. Single tables are taken out of such a backup by prepare --export
    #[arg(long = "table", value_name = "DB.TABLE", conflicts_with = "repo")]
    tables: Vec<String>,
    /// Back up only the tables of these databases
    #[arg(long = "database", value_name = "DB", conflicts_with = "repo")]
    databases: Vec<String>,
    /// Leave these tables out
    #[arg(long = "exclude-table", value_name = "DB.TABLE", conflicts_with = "repo")]
    excluded_tables: Vec<String>,
    /// Leave these databases out
    #[arg(long = "exclude-database", value_name = "DB", conflicts_with = "repo")]
    excluded_databases: Vec<String>,
}

impl Chosen {
    fn filter(&self) -> Result<TableFilter> {
        let chosen = Choice::new(&self.tables, &self.databases)?;
        let excluded = Choice::new(&self.excluded_tables, &self.excluded_databases)?;
        Ok(TableFilter::default().with_wildcards(chosen, excluded))
    }
}

/// What a backup in a repository is based on.
#[derive(Debug, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Repository")]
struct BasedOn {
    /// A full backup; this is the default
    #[arg(long)]
    full: bool,
    /// Only what changed since the last backup of this server, or since that of this name
    #[arg(long, value_name = "BACKUP", num_args = 0..=1, require_equals = true)]
    delta: Option<Option<Selection>>,
    /// Only what changed since the last full backup of this server
    #[arg(long)]
    differential: bool,
    /// A delta of the last backup; a full one when there is none, or --max-chain deltas are in a row
    #[arg(long)]
    auto: bool,
}

/// How a backup is stored in a repository.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
struct Storing {
    #[command(flatten)]
    based_on: BasedOn,
    /// With --auto: most deltas in a row
    #[arg(long, value_name = "N", env = "HAULOUT_MAX_CHAIN", default_value_t = CHAIN_MAX)]
    max_chain: u32,
    /// How a backup in a repository is compressed: zstd[:LEVEL], lz4, gzip[:LEVEL],
    /// bzip2[:LEVEL] or none
    #[arg(long, value_name = "FORMAT", env = "HAULOUT_COMPRESS", default_value = "zstd:1")]
    compress: Compression,
    /// Compressing threads [default: the cores, at most 4]
    #[arg(long, value_name = "N", env = "HAULOUT_COMPRESS_THREADS", value_parser = parse_threads)]
    compress_threads: Option<usize>,
    /// Most memory for a backup on its way into a repository
    #[arg(long, value_name = "SIZE", env = "HAULOUT_STORE_MEMORY", default_value = "512MiB")]
    store_memory: Size,
    /// Accept that this is another server than the one whose backups the repository has
    #[arg(long)]
    accept_new_server: bool,
}

impl Storing {
    fn basis(&self) -> Basis {
        match &self.based_on {
            BasedOn { delta: Some(parent), .. } => Basis::Delta(parent.clone()),
            BasedOn { differential: true, .. } => Basis::Differential,
            BasedOn { auto: true, .. } => Basis::Auto { chain_max: self.max_chain },
            BasedOn { .. } => Basis::Full,
        }
    }
}

impl Backup {
    /// Whether standard output carries the backup.
    pub fn streams(&self) -> bool {
        self.to.stream
    }

    /// Takes the backup.
    pub fn run(self, cancel: &Cancel, shared: &Arc<dyn Reporter>) -> Result<Outcome> {
        let reporter = &**shared;
        let dir = self.to.target_dir.clone();
        let place = self.to.repository();
        let target = match &dir {
            Some(dir) => Target::Folder(dir.clone()),
            None if self.to.stream => Target::Stream(streams::to_stdout()?),
            None if place.is_some() => Target::Stream(Box::new(std::io::sink())),
            None => {
                return Err(Error::new(ErrorKind::Usage, "it is not said where the backup goes")
                    .advise("give --target-dir DIR, --repo PLACE or --stream"));
            }
        };
        let basis = self.storing.basis();
        if place.is_none() && basis != Basis::Full {
            return Err(Error::new(ErrorKind::Usage, "backups in a repository have parents")
                .advise("for a delta of a backup in a directory, give --base DIR"));
        }
        if place.is_some() && (self.since.base.is_some() || self.since.base_lsn.is_some()) {
            return Err(Error::new(
                ErrorKind::Usage,
                "the parent of a backup in a repository is in the repository",
            )
            .advise("give --delta, --differential or --auto"));
        }
        let tables = self.chosen.filter()?;
        if place.is_some() && !tables.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "a backup in a repository has all tables")
                .advise("restore --table takes single ones out of it"));
        }
        let options = BackupOptions {
            connect: self.connection.resolve(reporter)?,
            target,
            datadir: None,
            parallel: self.parallel.unwrap_or_else(machine::default_threads),
            throttle: self.throttle.map(|size| size.0),
            lock_timeout: self.lock_timeout,
            continue_on_corrupt_pages: self.continue_on_corrupt_pages,
            io_mode: self.io.into(),
            keys: self.keys.resolve(reporter)?,
            deep_check: self.deep_check,
            rocksdb: !self.skip_rocksdb,
            tables,
            spool_dir: self.spool_dir,
            tool_name: "haulout".to_string(),
            // There is no secret among the arguments of this face.
            tool_command: std::env::args_os()
                .skip(1)
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" "),
            base: self.since.base()?,
            base_in_history: None,
            history: None,
            extras: Extras::default(),
            extra_lsn_dir: None,
            qpress_block: None,
        };
        if let Some(place) = place {
            let repository = self.access.open(&place, cancel, shared)?;
            let storing = StoreBackupOptions {
                compression: self.storing.compress,
                threads: self.storing.compress_threads.unwrap_or_else(machine::default_threads),
                memory: self.storing.store_memory.0,
                accept_new_server: self.storing.accept_new_server,
                basis,
            };
            let stored = repository.backup(options, &storing, cancel, reporter)?;
            return Outcome::new(&stored, describe_stored(&stored, &place));
        }
        let summary = capture::backup(options, cancel, reporter)?;
        let mut words = describe(&summary);
        words.push(next_step(dir.as_deref(), summary.from_lsn.is_some()));
        Outcome::new(&summary, words)
    }
}

/// A rate of zero would never end.
fn parse_throttle(text: &str) -> std::result::Result<Size, String> {
    match text.parse()? {
        Size(0) => Err("at least one byte per second; leave it out for no limit".to_string()),
        size => Ok(size),
    }
}

/// The summary in plain words.
fn describe(summary: &BackupSummary) -> Vec<String> {
    let mut words = vec![
        format!(
            "Backed up MariaDB {}: {}, {} in {} ({}/s), and {} of redo.",
            summary.server_version,
            counted(summary.files, "file", "files"),
            Size(summary.bytes),
            show_seconds(summary.seconds),
            rate(summary.bytes, summary.seconds),
            Size(summary.redo_bytes),
        ),
        format!(
            "Blocked meanwhile: commits for {}, DDL for {}, writes to tables without transactions \
             for {}.",
            show_seconds(summary.commit_blocked_seconds),
            show_seconds(summary.ddl_blocked_seconds),
            show_seconds(summary.writes_blocked_seconds),
        ),
        format!(
            "Once prepared it equals the server at LSN {} (redo starts at {}, last checkpoint {}).",
            summary.end_lsn, summary.start_lsn, summary.to_lsn
        ),
    ];
    if let (Some(from), Some(pages)) = (summary.from_lsn, summary.changed_pages) {
        words.push(format!(
            "It is a delta of the backup that ends at LSN {from}: {}.",
            counted(pages, "changed page", "changed pages")
        ));
    }
    if let (Some(file), Some(position)) = (&summary.binlog_file, summary.binlog_position) {
        words.push(format!("Binary log position: {file} at {position}."));
    }
    if let Some(gtid) = summary.gtid.as_deref().filter(|gtid| !gtid.is_empty()) {
        words.push(format!("GTID position: {gtid}."));
    }
    if let Some(rocksdb) = summary.rocksdb {
        words.push(format!(
            "MyRocks: {}, {}, from a checkpoint at this position.",
            counted(rocksdb.files, "file", "files"),
            Size(rocksdb.bytes)
        ));
    }
    if summary.torn_pages > 0 {
        words.push(format!("Torn pages that a second reading made whole: {}.", summary.torn_pages));
    }
    if summary.corrupt_pages > 0 {
        words.push(format!(
            "CORRUPT PAGES: {}, listed in the file innodb_corrupted_pages of the backup.",
            summary.corrupt_pages
        ));
    }
    words.extend(needs_words(&summary.tables));
    words
}

/// What to do with a folder or a stream.
fn next_step(dir: Option<&Path>, delta: bool) -> String {
    match dir {
        Some(dir) if delta => format!(
            "Next, apply it to its prepared base with: haulout prepare BASE --delta {}",
            quoted(dir)
        ),
        Some(dir) => format!("Next, prepare it with: haulout prepare {}", quoted(dir)),
        None => "Next, unpack it with: haulout extract --to DIR < STREAM, then prepare it with: \
                 haulout prepare DIR"
            .to_string(),
    }
}

/// The summary of a backup in a repository.
fn describe_stored(stored: &StoredBackup, place: &str) -> Vec<String> {
    let mut words = describe(&stored.backup);
    words.push(format!(
        "Stored as {} in {}: {} in {}, {:.1} times smaller.",
        match &stored.parent {
            Some(parent) => format!("{}, a delta of {parent},", stored.name),
            None => stored.name.clone(),
        },
        show_seconds(stored.total_seconds),
        Size(stored.stored_bytes),
        counted(stored.packs as u64, "pack", "packs"),
        stored.backup.bytes as f64 / stored.stored_bytes.max(1) as f64,
    ));
    words.push(format!(
        "To get it back: haulout restore {} --repo {} --to DATADIR --owner mysql:mysql",
        stored.name,
        quoted(Path::new(place)),
    ));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> BackupSummary {
        BackupSummary {
            format: 1,
            server_version: "10.11.19-MariaDB".to_string(),
            from_lsn: None,
            changed_pages: None,
            start_lsn: 100,
            to_lsn: 200,
            end_lsn: 300,
            binlog_file: Some("bin.000002".to_string()),
            binlog_position: Some(4711),
            gtid: Some("0-1-55".to_string()),
            replica: None,
            files: 245,
            bytes: 3 << 30,
            redo_bytes: 12 << 20,
            seconds: 4.0,
            ddl_blocked_seconds: 0.31,
            commit_blocked_seconds: 0.02,
            writes_blocked_seconds: 0.35,
            rocksdb: None,
            tables: Vec::new(),
            torn_pages: 0,
            corrupt_pages: 0,
        }
    }

    #[test]
    fn a_backup_in_plain_words() {
        let words = [
            "Backed up MariaDB 10.11.19-MariaDB: 245 files, 3.0 GiB in 4.00 s (768 MiB/s), and \
             12.0 MiB of redo.",
            "Blocked meanwhile: commits for 0.02 s, DDL for 0.31 s, writes to tables without transactions for 0.35 s.",
            "Once prepared it equals the server at LSN 300 (redo starts at 100, last checkpoint \
             200).",
            "Binary log position: bin.000002 at 4711.",
            "GTID position: 0-1-55.",
            "Next, prepare it with: haulout prepare '/b 1'",
        ];
        let mut said = describe(&summary());
        said.push(next_step(Some(Path::new("/b 1")), false));
        assert_eq!(said, words);
    }

    #[test]
    fn what_is_wrong_is_said_loudly_and_what_is_not_there_is_not_said() {
        let found = BackupSummary {
            binlog_file: None,
            gtid: Some(String::new()),
            corrupt_pages: 3,
            torn_pages: 1,
            rocksdb: Some(capture::RocksDb { files: 7, bytes: 3 << 20 }),
            ..summary()
        };
        let words = [describe(&found), vec![next_step(None, false)]].concat().join("\n");
        assert!(words.contains("MyRocks: 7 files, 3.0 MiB"), "{words}");
        assert!(words.contains("CORRUPT PAGES: 3") && words.contains("made whole: 1"), "{words}");
        assert!(!words.contains("Binary log") && !words.contains("GTID"), "{words}");
        assert!(words.contains("haulout extract --to DIR"), "{words}");
    }
}
