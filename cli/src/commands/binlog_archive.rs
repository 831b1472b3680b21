//! `haulout binlog push|list|fetch|find|expire`: binary logs in a repository.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use engine::archive::expire::ExpireOptions;
use engine::archive::fetch::{FetchOptions, FetchSummary};
use engine::archive::find::{Found, LogEnd, Query, find_in_files};
use engine::archive::gaps::Gap;
use engine::archive::push::{self, Became, PushOptions, PushSummary};
use engine::archive::scan::Ending;
use engine::archive::statement::Operation;
use engine::archive::{Archive, File};
use engine::keys::settings::KeyStore;
use engine::{Cancel, Error, ErrorKind, Reporter, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::counted;
use super::keys::Keys;
use super::list::align;
use super::repo::{Access, Repo};
use crate::console::Outcome;
use crate::duration;
use crate::mysqlbinlog::datetime;
use crate::size::Size;

/// Archive the closed files of a server's binary log in a repository
///
/// What is there is not stored again, be it from this server or, after a failover, from another one
/// that had the same transactions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  haulout binlog push --repo s3://bucket/db1 /var/lib/mysql
  haulout binlog push --repo s3://bucket/db1 /var/log/mysql/mysql-bin.index
  haulout binlog push --repo s3://bucket/db1 mysql-bin.000041 mysql-bin.000042

Exit code 7: something is missing before what was archived.")]
pub struct Push {
    /// The directory of the binary log, its list (*.index), or files of it
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    repo: Repo,
    /// Leave the last file out even if the server is down and it is closed
    #[arg(long)]
    all_but_current: bool,
    /// Accept logs of a server that has nothing in common with what is there, or that was reset
    #[arg(long)]
    accept_new_server: bool,
    #[command(flatten)]
    keys: Keys,
}

impl Push {
    /// Archives.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let options = PushOptions {
            paths: self.paths,
            all_but_current: self.all_but_current,
            accept_new_server: self.accept_new_server,
            keys: super::binlog::key_source(self.keys.resolve(&**reporter)?),
        };
        let before = Archive::read(&repository, cancel)?.gaps(cancel)?;
        let summary = push::push(&repository, &options, cancel, &**reporter)?;
        let gaps = Archive::read(&repository, cancel)?.gaps(cancel)?;
        for gap in &gaps {
            reporter.warn(format!("the archive has a gap: {gap}"));
        }
        let new = gaps.iter().any(|gap| !before.contains(gap));
        let words = told(&summary);
        let mut outcome = Outcome::new(&summary, words)?;
        if let Some(document) = outcome.document.as_object_mut() {
            document.insert("gaps".to_owned(), serde_json::json!(gaps));
        }
        outcome.found = new.then_some(ErrorKind::Gap);
        Ok(outcome)
    }
}

fn told(summary: &PushSummary) -> Vec<String> {
    let mut words = Vec::new();
    for file in &summary.files {
        words.push(match file.became {
            Became::Stored => format!(
                "{}  archived: {} in {}",
                file.file,
                counted(file.transactions, "transaction", "transactions"),
                Size(file.bytes)
            ),
            Became::There => format!("{}  was there", file.file),
            Became::Known => format!("{}  its transactions were there", file.file),
            Became::Older => format!("{}  is older than what the archive begins with", file.file),
        });
    }
    words.extend(summary.open.iter().map(|file| format!("{file}  is being written")));
    words.extend(summary.missing.iter().map(|file| format!("{file}  is listed and not there")));
    let stored: Vec<_> =
        summary.files.iter().filter(|file| file.became == Became::Stored).collect();
    words.push(format!(
        "Archived {}: {} in {}.",
        counted(stored.len() as u64, "file", "files"),
        Size(stored.iter().map(|file| file.bytes).sum()),
        Size(stored.iter().map(|file| file.stored_bytes).sum())
    ));
    words
}

/// List the binary logs of a repository, and what is missing
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  haulout binlog list --repo s3://bucket/db1

Exit code 7: something is missing.")]
pub struct List {
    #[command(flatten)]
    repo: Repo,
}

#[derive(Serialize)]
struct Listed {
    format: u32,
    files: Vec<Line>,
    gaps: Vec<Gap>,
}

/// A file as programs read it.
#[derive(Serialize)]
struct Line {
    server: u32,
    epoch: String,
    file: String,
    bytes: u64,
    stored_bytes: u64,
    parts: usize,
    transactions: u64,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
    gtids_before: Option<String>,
    gtids_after: Option<String>,
    server_version: Option<String>,
    ending: Option<Ending>,
    /// What follows is missing within.
    has_holes: bool,
}

impl From<&File> for Line {
    fn from(file: &File) -> Self {
        let time = |seconds: u32| Timestamp::from_second(seconds.into()).ok();
        let times = file.times();
        Self {
            server: file.server,
            epoch: file.epoch.to_string(),
            file: file.name.clone(),
            bytes: file.end(),
            stored_bytes: file.stored(),
            parts: file.parts.len(),
            transactions: file.transactions(),
            first_time: times.and_then(|times| time(times.0)),
            last_time: times.and_then(|times| time(times.1)),
            gtids_before: file.before().map(by_domain),
            gtids_after: file.after().map(by_domain),
            server_version: file.parts.first().map(|part| part.head.about.server_version.clone()),
            ending: file.ending().cloned(),
            has_holes: file.has_holes(),
        }
    }
}

/// A state in the order of the domains: logs have them in any. The newest of a domain stays its last.
fn by_domain(state: &binlog::GtidState) -> String {
    let mut gtids = state.entries().to_vec();
    gtids.sort_by_key(|gtid| gtid.domain);
    let gtids: Vec<String> = gtids.iter().map(ToString::to_string).collect();
    gtids.join(",")
}

impl List {
    /// Lists them.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let archive = Archive::read(&repository, cancel)?;
        let files = archive.files().map(Line::from).collect();
        let listed = Listed { format: 1, files, gaps: archive.gaps(cancel)? };
        let mut outcome = Outcome::data(&listed, table(&listed))?;
        outcome.words.push(counted(listed.files.len() as u64, "file.", "files."));
        outcome.words.extend(listed.gaps.iter().map(|gap| format!("GAP: {gap}")));
        outcome.found = (!listed.gaps.is_empty()).then_some(ErrorKind::Gap);
        Ok(outcome)
    }
}

fn table(listed: &Listed) -> Vec<String> {
    let titles =
        ["SERVER", "EPOCH", "FILE", "SIZE", "STORED", "TRANSACTIONS", "FROM", "TO", "GTIDS", ""];
    let mut lines = vec![titles.map(str::to_owned).to_vec()];
    let time = |time: &Option<Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |time| time.strftime("%F %TZ").to_string())
    };
    for file in &listed.files {
        let remark = match (&file.ending, file.has_holes) {
            (_, true) => "INCOMPLETE",
            (None, false) => "not closed",
            (Some(_), false) => "",
        };
        lines.push(vec![
            file.server.to_string(),
            file.epoch.clone(),
            file.file.clone(),
            Size(file.bytes).to_string(),
            Size(file.stored_bytes).to_string(),
            file.transactions.to_string(),
            time(&file.first_time),
            time(&file.last_time),
            file.gtids_after.clone().unwrap_or_default(),
            remark.to_owned(),
        ]);
    }
    align(&lines)
}

/// Remove binary logs that no backup of the repository needs any more
///
/// A backup needs what was logged since. The end of the archive always stays; where there is no
/// backup, or one is damaged, everything does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  haulout binlog expire --repo s3://bucket/db1 --keep-within 4w
  haulout binlog expire --repo s3://bucket/db1 --delete

Without --delete nothing is removed: it is only said what would be.")]
pub struct Expire {
    #[command(flatten)]
    repo: Repo,
    /// Keep what was logged in the last so many days, weeks or hours, needed or not
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    keep_within: Option<Duration>,
    /// Really remove it
    #[arg(long)]
    delete: bool,
}

impl Expire {
    /// Removes, or says what it would remove.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let archive = Archive::read(&repository, cancel)?;
        let options = ExpireOptions { keep_within: self.keep_within, delete: self.delete };
        let summary = archive.expire(&options, cancel)?;
        let mut words = Vec::new();
        for file in &summary.files {
            words.push(match &file.stays {
                None => format!("{} of server {}  goes", file.file, file.server),
                Some(why) => format!("{} of server {}  stays: {why}", file.file, file.server),
            });
        }
        let going = summary.files.iter().filter(|file| file.stays.is_none()).count();
        let what = counted(going as u64, "file", "files");
        let size = Size(summary.freed_bytes);
        words.push(match summary.done {
            true => format!("Removed {what}: {size}."),
            false => format!("Would remove {what}: {size}. Nothing was removed: add --delete."),
        });
        Outcome::new(&summary, words)
    }
}

/// Fetch binary log files from a repository, byte for byte
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  haulout binlog fetch --repo s3://bucket/db1 --to /tmp/logs
  haulout binlog fetch --repo s3://bucket/db1 --to /tmp/logs mysql-bin.000042")]
pub struct Fetch {
    /// Names of files; all, if there is none
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    repo: Repo,
    /// Directory for the files
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only of the server with this server_id
    #[arg(long, value_name = "ID")]
    server: Option<u32>,
    /// Only of this epoch, as list shows it
    #[arg(long, value_name = "EPOCH")]
    epoch: Option<String>,
}

impl Fetch {
    /// Fetches them.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let archive = Archive::read(&repository, cancel)?;
        let options =
            FetchOptions { to: self.to, files: self.files, server: self.server, epoch: self.epoch };
        let summary = archive.fetch(&options, cancel, &**reporter)?;
        let FetchSummary { files, index, .. } = &summary;
        let bytes = files.iter().map(|file| file.bytes).sum();
        let words = vec![format!(
            "Fetched {}, {}; their list is {}.",
            counted(files.len() as u64, "file", "files"),
            Size(bytes),
            index.display()
        )];
        Outcome::new(&summary, words)
    }
}

/// Find transactions by what they do, from the indexes of the archive alone, or in binary logs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  haulout binlog find --repo s3://bucket/db1 --table shop.orders --op drop,truncate,delete
  haulout binlog find --table shop.orders --op drop /var/lib/mysql
  haulout binlog find --repo s3://bucket/db1 --table 'shop.*' --op alter \\
      --between '2026-02-28 09:00:00' --and '2026-02-28 17:30:00'

Times without a zone are local. Each line has the time, the GTID, the place in the log at which the
transaction begins, and what it does. Exit code 8: nothing was found.")]
pub struct Find {
    /// Binary logs, or directories of them, instead of a repository
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where the repository is: s3://BUCKET/PREFIX, or a folder [env: HAULOUT_REPO, unless there are paths]
    #[arg(long, value_name = "PLACE", conflicts_with = "paths")]
    repo: Option<String>,
    /// Only what touches this table: database.table, with * and ? for what may differ
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Only these operations: insert, update, delete, create, drop, alter, truncate, rename, other
    #[arg(long = "op", value_name = "OPERATION", value_delimiter = ',')]
    operations: Vec<Operation>,
    /// From this time on
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    between: Option<u32>,
    /// Up to this time
    #[arg(long = "and", value_name = "TIME", value_parser = parse_time)]
    to: Option<u32>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    access: Access,
}

/// A time with a zone, or a local one.
fn parse_time(text: &str) -> std::result::Result<u32, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return u32::try_from(time.as_second()).map_err(|_| "too long ago, or to come".to_owned());
    }
    datetime::parse(text, &TimeZone::system()).ok_or_else(|| {
        "not a date with a time, as in '2026-02-28 17:30:00' or 2026-02-28T17:30:00Z".to_owned()
    })
}

impl Find {
    /// Finds them.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>, json: bool) -> Result<Outcome> {
        let mut query = Query::new(&self.tables)?.between(self.between, self.to)?;
        query.operations = self.operations;
        let mut out = BufWriter::new(std::io::stdout().lock());
        let failed = |error| Error::io("write to", "standard output", error);
        let mut tell = |found| {
            let line = match json {
                true => serde_json::to_string(&found)
                    .map_err(|e| Error::new(ErrorKind::Failed, "cannot write JSON").caused_by(e))?,
                false => line(&found),
            };
            writeln!(out, "{line}").map_err(failed)
        };
        let summary = match self.paths.is_empty() {
            true => {
                let place = self.repo.or_else(|| std::env::var("HAULOUT_REPO").ok());
                let place = place.filter(|place| !place.is_empty()).ok_or_else(|| {
                    Error::new(ErrorKind::Usage, "neither a repository nor binary logs are named")
                        .advise("name them: --repo PLACE, or files or directories of logs")
                })?;
                let repository = self.access.open(&place, cancel, reporter)?;
                Archive::read(&repository, cancel)?.find(&query, cancel, &mut tell)?
            }
            false => {
                let keys = self.keys.resolve(&**reporter)?;
                let keys = (!keys.is_empty()).then(|| KeyStore::new(keys));
                find_in_files(&self.paths, keys.as_ref(), &query, (cancel, &**reporter), &mut tell)?
            }
        };
        out.flush().map_err(failed)?;
        let mut words = vec![format!(
            "{} of {}.",
            counted(summary.found, "transaction", "transactions"),
            summary.transactions
        )];
        words.extend(summary.ends.iter().map(ended));
        let mut outcome = Outcome::new(&summary, words)?;
        outcome.found = (summary.found == 0).then_some(ErrorKind::NothingMatches);
        Ok(outcome)
    }
}

fn ended(end: &LogEnd) -> String {
    format!(
        "The logs of server {} end with {} of {}, in {} at {}: what was done later is not in them.",
        end.server,
        end.gtid,
        end.time.strftime("%F %TZ"),
        end.file,
        end.end
    )
}

fn line(found: &Found) -> String {
    let changes: Vec<String> = found
        .changes
        .iter()
        .map(|change| {
            let table = match change.table.as_str() {
                "" => format!("database {}", change.database),
                table => format!("{}.{table}", change.database),
            };
            let rows = change.rows.map(|rows| format!(" {}", counted(rows, "row", "rows")));
            format!("{} {table}{}", change.operation.name(), rows.unwrap_or_default())
        })
        .collect();
    let statement = match found.statement.as_str() {
        "" => String::new(),
        statement => format!("  | {statement}"),
    };
    format!(
        "{}  {}  {}:{}  {}{statement}",
        found.time.strftime("%F %TZ"),
        found.gtid,
        found.file,
        found.position,
        changes.join(", "),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn domains_are_in_one_order() {
        for (state, shown) in [
            ("3-1-7,0-1-5,0-2-6", "0-1-5,0-2-6,3-1-7"),
            ("0-2-6,3-1-8,0-1-9", "0-2-6,0-1-9,3-1-8"),
            ("", ""),
        ] {
            assert_eq!(by_domain(&state.parse().unwrap()), shown);
        }
    }
}
