//! `haulout restore`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use engine::restore::{self, Mode, RestoreOptions, RestoreSummary};
use engine::{Cancel, Reporter, Result};

use super::{counted, needs_words, parse_threads, quoted, rate};
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::size::Size;
use crate::{machine, owner};

const EXAMPLES: &str = "\
Examples:
  haulout restore /backups/monday --to /var/lib/mysql --owner mysql:mysql
  haulout restore /backups/monday --to /var/lib/mysql --move";

/// Put a prepared backup into a data directory
///
/// The server must not run on that directory. A file that exists is never overwritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Restore {
    /// Directory that holds the prepared backup
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Data directory; created if missing, must be empty
    #[arg(long, value_name = "DATADIR")]
    to: PathBuf,
    /// Move the files instead of copying them; the backup is used up
    #[arg(long = "move")]
    moves: bool,
    /// Owner of the files, as names or numbers [default: the user who runs this]
    #[arg(long, value_name = "USER:GROUP", value_parser = owner::parse)]
    owner: Option<(u32, u32)>,
    /// Accept a data directory that holds other files
    #[arg(long)]
    force_non_empty: bool,
    /// Copying threads [default: the cores, at most 4]
    #[arg(long, value_name = "N", env = "HAULOUT_PARALLEL", value_parser = parse_threads)]
    parallel: Option<usize>,
    #[command(flatten)]
    places: Places,
}

/// Where the server keeps files outside of its data directory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Places other than the data directory, as configured in the server")]
struct Places {
    /// For the system tablespace; empty, as for the server, when its files have absolute paths
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    innodb_data_home_dir: Option<PathBuf>,
    /// For undo tablespaces
    #[arg(long, value_name = "DIR")]
    innodb_undo_directory: Option<PathBuf>,
    /// For the redo log
    #[arg(long, value_name = "DIR")]
    innodb_log_group_home_dir: Option<PathBuf>,
    /// For the log of Aria
    #[arg(long, value_name = "DIR")]
    aria_log_dir_path: Option<PathBuf>,
    /// For MyRocks
    #[arg(long, value_name = "DIR")]
    rocksdb_datadir: Option<PathBuf>,
    /// For the log of MyRocks
    #[arg(long, value_name = "DIR")]
    rocksdb_wal_dir: Option<PathBuf>,
    /// Names and sizes of the system tablespace files [default: those of the backup]
    #[arg(long, value_name = "FILES")]
    innodb_data_file_path: Option<String>,
}

impl Restore {
    /// Places the backup.
    pub fn run(self, cancel: &Cancel, reporter: &dyn Reporter) -> Result<Outcome> {
        let (datadir, owned) = (self.to.clone(), self.owner.is_some());
        let options = RestoreOptions {
            source: self.dir,
            datadir: self.to,
            mode: if self.moves { Mode::Move } else { Mode::Copy },
            parallel: self.parallel.unwrap_or_else(machine::default_threads),
            owner: self.owner,
            force_non_empty: self.force_non_empty,
            innodb_data_home_dir: self.places.innodb_data_home_dir,
            innodb_undo_directory: self.places.innodb_undo_directory,
            innodb_log_group_home_dir: self.places.innodb_log_group_home_dir,
            aria_log_dir_path: self.places.aria_log_dir_path,
            rocksdb_datadir: self.places.rocksdb_datadir,
            rocksdb_wal_dir: self.places.rocksdb_wal_dir,
            innodb_data_file_path: self.places.innodb_data_file_path,
        };
        let summary = restore::restore(options, cancel, reporter)?;
        Outcome::new(&summary, describe(&summary, &datadir, owned))
    }
}

/// The summary in plain words.
fn describe(summary: &RestoreSummary, datadir: &std::path::Path, owned: bool) -> Vec<String> {
    let placed = format!(
        "Restored {}, {} in {} ({}/s).",
        counted(summary.files, "file", "files"),
        Size(summary.bytes),
        show_seconds(summary.seconds),
        rate(summary.bytes, summary.seconds),
    );
    let datadir = quoted(datadir);
    let next = if owned {
        format!("Next, start the server on {datadir}.")
    } else {
        format!("Next, give the files to the server's user (chown -R) and start it on {datadir}.")
    };
    let mut words = vec![placed];
    words.extend(needs_words(&summary.tables));
    words.push(next);
    words
}
