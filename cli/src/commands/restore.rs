//! `haulout restore`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use engine::replay::started;
use engine::repo::catalog::Selection;
use engine::repo::choice::Choice;
use engine::repo::restore::{RestorePlan, StoredRestoreOptions, StoredRestoreSummary};
use engine::repo::tables::TablesOptions;
use engine::restore::{self, Mode, RestoreOptions, RestoreSummary};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::connection::Connection;
use super::keys::Keys;
use super::recovery::Way;
use super::replay::describe as describe_replay;
use super::repo::Access;
use super::tables::{describe_tables, describe_tables_plan};
use super::until::Until;
use super::{counted, needs_words, parse_threads, quoted, rate};
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::size::Size;
use crate::{machine, owner};

const EXAMPLES: &str = "\
Examples:
  haulout restore /backups/monday --to /var/lib/mysql --owner mysql:mysql
  haulout restore /backups/monday --to /var/lib/mysql --move
  haulout restore LATEST --repo s3://bucket/db1 --to /var/lib/mysql --owner mysql:mysql
  haulout restore LATEST --repo s3://bucket/db1 --over /var/lib/mysql --owner mysql:mysql
  haulout restore --until 0-1-4711 --before --repo s3://bucket/db1 --to /var/lib/mysql --plan
  haulout restore --until 0-1-4711 --before --repo s3://bucket/db1 --to /new --replay --socket /run/new.sock
  haulout restore @2026-01-31T12:00:00Z --repo s3://bucket/db1 --to /var/lib/mysql --plan
  haulout restore LATEST --repo s3://bucket/db1 --to /tmp/tables --table 'shop.order*' --database crm

A backup in a repository is named by its name, a part of it at either end, LATEST, or @TIME for the
last one that ended by then. It is prepared on the way.

With --until, and without BACKUP, the newest backup is restored that is before TARGET and that the
archive of binary logs leads on from. The logs are replayed onto the server that somebody starts on it:
by haulout replay, whose arguments are printed, or at once with --replay. --socket names the socket
that this server is going to have.

With --table or --database only what these need is fetched. DATADIR gets their files, exported for
IMPORT TABLESPACE, and import.sql, the statements for that, which are printed too.";

/// Put a prepared backup, or one of a repository, into a data directory
///
/// The server must not run on that directory. A file that exists is never overwritten.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("until", |it| it.requires("repo").conflicts_with_all(["tables", "databases"])),
    mut_arg("skip_gtid", |it| it.requires("until")),
)]
pub struct Restore {
    /// Directory that holds the prepared backup; with --repo, which backup
    #[arg(value_name = "BACKUP", value_parser = OsStringValueParser::new(),
          required_unless_present = "until")]
    from: Option<OsString>,
    /// The repository that has the backup: s3://BUCKET/PREFIX, or a folder
    #[arg(long, value_name = "PLACE")]
    repo: Option<String>,
    #[command(flatten)]
    until: Until,
    /// Once the backup is restored, wait for the server to be started on DATADIR, and replay the logs
    /// onto it
    #[arg(long, requires = "until", conflicts_with = "plan")]
    replay: bool,
    /// Only say what would be fetched and written
    #[arg(long, requires = "repo")]
    plan: bool,
    /// Only these tables, with all their partitions, or one as db.table#P#p0; *, ? and [] match as in
    /// a shell
    #[arg(long = "table", value_name = "DB.TABLE", requires = "repo")]
    tables: Vec<String>,
    /// Only the tables of these databases; *, ? and [] match as in a shell
    #[arg(long = "database", value_name = "DB", requires = "repo")]
    databases: Vec<String>,
    /// Most memory for redo and what is read ahead, with --repo [default: a quarter of what is
    /// available, at least 128MiB]
    #[arg(long, value_name = "SIZE", env = "HAULOUT_MEMORY")]
    memory: Option<Size>,
    /// Data directory, or with --table a folder for the files; created if missing, must be empty
    #[arg(long, value_name = "DATADIR", required_unless_present = "over")]
    to: Option<PathBuf>,
    /// Data directory of a stopped server that has another state: only what differs is written, and
    /// what the backup does not have is removed
    #[arg(long, value_name = "DATADIR", requires = "repo",
          conflicts_with_all = ["to", "tables", "databases", "innodb_data_home_dir",
          "innodb_undo_directory", "innodb_log_group_home_dir", "aria_log_dir_path",
          "rocksdb_datadir", "rocksdb_wal_dir"])]
    over: Option<PathBuf>,
    /// Move the files instead of copying them; the backup is used up
    #[arg(long = "move", conflicts_with = "repo")]
    moves: bool,
    /// Owner of the files, as names or numbers [default: the user who runs this]
    #[arg(long, value_name = "USER:GROUP", value_parser = owner::parse)]
    owner: Option<(u32, u32)>,
    /// Accept a data directory that holds other files
    #[arg(long, conflicts_with = "repo")]
    force_non_empty: bool,
    /// Copying threads [default: the cores, at most 4]
    #[arg(long, value_name = "N", env = "HAULOUT_PARALLEL", value_parser = parse_threads)]
    parallel: Option<usize>,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    connection: Connection,
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
    pub fn run(self, cancel: &Cancel, shared: &Arc<dyn Reporter>) -> Result<Outcome> {
        let reporter = &**shared;
        let over = self.over.is_some();
        let datadir = self.over.or(self.to).unwrap_or_default();
        let owned = self.owner.is_some();
        let options = RestoreOptions {
            source: PathBuf::from(self.from.clone().unwrap_or_default()),
            datadir: datadir.clone(),
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
        if let Some(place) = &self.repo {
            let repository = self.access.open(place, cancel, shared)?;
            // For the command that is printed.
            let given = format!("{}{}", self.access.arguments(place), self.keys.arguments());
            let selection =
                self.from.as_ref().map(|from| from.to_string_lossy().parse::<Selection>());
            let selection = selection
                .transpose()
                .map_err(|why| Error::new(ErrorKind::Usage, format!("BACKUP: {why}")))?;
            let mut server = None;
            if self.replay {
                let connect = self.connection.resolve(reporter)?;
                started::nobody_yet(&connect)?;
                server = Some(connect);
            }
            let mut way = None;
            if self.until.is_given() {
                let stop = self.until.resolve()?;
                way = Some(Way::find(&repository, selection.as_ref(), stop, cancel)?);
            }
            let selection = match &way {
                Some(way) => way.backup(),
                None => selection.unwrap_or(Selection::Latest),
            };
            let choice = Choice::new(&self.tables, &self.databases)?;
            if !choice.is_empty() {
                if self.plan {
                    let plan = repository.plan_tables(&selection, &choice, cancel)?;
                    return Outcome::new(&plan, describe_tables_plan(&plan));
                }
                let options = TablesOptions {
                    selection,
                    choice,
                    dir: options.datadir,
                    owner: options.owner,
                    parallel: options.parallel,
                    memory: self.memory.unwrap_or_else(machine::default_memory).0,
                    keys: self.keys.resolve(reporter)?,
                };
                let summary = repository.restore_tables(options, cancel, reporter)?;
                let data = summary.sql.lines().map(str::to_owned).collect();
                let words = describe_tables(&summary, &datadir);
                return Ok(Outcome { data, ..Outcome::new(&summary, words)? });
            }
            if self.plan {
                let plan = repository.plan(&selection, cancel)?;
                let mut words = describe_plan(&plan);
                words.extend(way.iter().flat_map(Way::describe));
                let mut outcome = Outcome::new(&plan, words)?;
                way.iter().try_for_each(|way| way.add_to(&mut outcome, None))?;
                return Ok(outcome);
            }
            let options = StoredRestoreOptions {
                selection,
                restore: options,
                over,
                memory: self.memory.unwrap_or_else(machine::default_memory).0,
                keys: self.keys.resolve(reporter)?,
            };
            let summary = repository.restore(options, cancel, reporter)?;
            let words = describe_stored(&summary, &datadir, owned);
            let mut outcome = Outcome::new(&summary, words)?;
            let Some(way) = way else { return Ok(outcome) };
            let mut replayed = None;
            if let Some(connect) = &server {
                // Where the restore went is known now: what follows may take long.
                outcome.words.drain(..).for_each(|line| reporter.info(line));
                let (from, to) = ((&repository, &*given), (connect, &*datadir));
                let summary = way.follow(from, to, cancel, reporter)?;
                outcome.words = describe_replay(&summary);
                replayed = Some(summary);
            } else {
                outcome.words.extend(way.rest(&given));
            }
            way.add_to(&mut outcome, replayed.as_ref())?;
            return Ok(outcome);
        }
        let summary = restore::restore(options, cancel, reporter)?;
        Outcome::new(&summary, describe(&summary, &datadir, owned))
    }
}

/// The summary in plain words.
fn describe(summary: &RestoreSummary, datadir: &Path, owned: bool) -> Vec<String> {
    let placed = format!(
        "Restored {}, {} in {} ({}/s).",
        counted(summary.files, "file", "files"),
        Size(summary.bytes),
        show_seconds(summary.seconds),
        rate(summary.bytes, summary.seconds),
    );
    let mut words = vec![placed];
    words.extend(needs_words(&summary.tables));
    words.push(next_step(datadir, owned));
    words
}

/// What a restore from a repository would do.
fn describe_plan(plan: &RestorePlan) -> Vec<String> {
    let mut words = vec![
        format!(
            "Backup {} of {}, which ended at {}.",
            plan.name,
            plan.server,
            plan.ended.strftime("%F %TZ")
        ),
        format!(
            "To fetch: {} from {}, about {} at 100 MB/s. To write: {} in {}.",
            Size(plan.stored_bytes),
            counted(plan.packs as u64, "pack", "packs"),
            show_seconds(plan.estimated_seconds),
            Size(plan.bytes),
            counted(plan.files as u64, "file", "files"),
        ),
        format!("Redo to apply: {}, up to LSN {}.", Size(plan.redo_bytes), plan.end_lsn),
    ];
    words.extend(plan.gtid.as_ref().map(|gtid| format!("GTID position: {gtid}.")));
    if plan.corrupt_pages > 0 {
        words.push(format!("CORRUPT PAGES at the server: {}.", plan.corrupt_pages));
    }
    words
}

/// The summary of a restore from a repository.
fn describe_stored(summary: &StoredRestoreSummary, datadir: &Path, owned: bool) -> Vec<String> {
    let mut words = vec![
        format!(
            "Restored {} of {} in {}: {} fetched, {} in {}.",
            summary.name,
            summary.server,
            show_seconds(summary.seconds),
            Size(summary.stored_bytes),
            Size(summary.bytes),
            counted(summary.files, "file", "files"),
        ),
        format!(
            "Fetching and unpacking took {}, applying {} of redo {}.",
            show_seconds(summary.fetch_seconds),
            Size(summary.redo_bytes),
            show_seconds(summary.prepare_seconds),
        ),
        format!("It equals the server at LSN {}.", summary.end_lsn),
    ];
    words.extend(summary.rewritten_bytes.map(|bytes| {
        format!("{} differed from what was there and were written, before redo.", Size(bytes))
    }));
    words.extend(summary.gtid.as_ref().map(|gtid| format!("GTID position: {gtid}.")));
    words.extend(needs_words(&summary.tables));
    if summary.corrupt_pages > 0 {
        words.push(format!("CORRUPT PAGES at the server: {}.", summary.corrupt_pages));
    }
    words.push(next_step(datadir, owned));
    words
}

fn next_step(datadir: &Path, owned: bool) -> String {
    let datadir = quoted(datadir);
    match owned {
        true => format!("Next, start the server on {datadir}."),
        false => {
            format!(
                "Next, give the files to the server's user (chown -R) and start it on {datadir}."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        restore: Restore,
    }

    #[test]
    fn the_command_that_is_printed_has_what_was_given() {
        let words = "restore --repo depot --until end --to /d --key-file k --keys-file /keys \
                     --keys-cipher aes_ctr --s3-endpoint https://h:1";
        let restore = Line::parse_from(words.split_whitespace()).restore;
        let given = restore.access.arguments("depot") + &restore.keys.arguments();
        let here = std::env::current_dir().unwrap();
        let here = here.display();
        let wanted = format!(
            " --repo {here}/depot --key-file {here}/k --s3-endpoint https://h:1 --keys-file /keys \
             --keys-cipher aes_ctr"
        );
        assert_eq!(given, wanted);
        assert!(restore.access.arguments("s3://b/p").starts_with(" --repo s3://b/p "));
    }
}
