//! `haulout binlog`: what binary logs say, and those of a repository.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use binlog::crypt::KeySource;
use binlog::dump::options::{Base64, Options};
use binlog::dump::{Failure, filter::Windows};
use binlog::json::Lines;
use binlog::{Fault, GtidPosition, ReadOptions};
use clap::{Args, Subcommand};
use engine::keys::settings::{KeySettings, KeyStore};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};
use zeroize::Zeroizing;

use super::binlog_archive::{Expire, Fetch, Find, List, Push};
use super::binlog_stream::{Purge, Stream};
use super::keys::Keys;
use super::serve::Serve;
use crate::console::Outcome;
use crate::mysqlbinlog::{datetime, files};

const EXAMPLES: &str = "Examples:
  haulout binlog dump mysql-bin.000042 | mariadb
  haulout binlog dump --rows --table orders mysql-bin.000042
  haulout binlog dump --json --keys-file /etc/mysql/keys.enc mysql-bin.000042";

/// Read binary logs, archive them in a repository, find what they say
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Binlog {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dump(Box<Dump>),
    Push(Box<Push>),
    Stream(Box<Stream>),
    List(Box<List>),
    Fetch(Box<Fetch>),
    Find(Box<Find>),
    Expire(Box<Expire>),
    Purge(Box<Purge>),
    Serve(Box<Serve>),
}

/// Print binary logs as text that the mariadb client replays, or one line of JSON an event
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Dump {
    /// Files, in the order of the log; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Show rows in words instead of base64: to read, not to replay
    #[arg(long)]
    rows: bool,
    /// Show the types of columns, too
    #[arg(long, requires = "rows")]
    types: bool,
    /// First byte to print, in the first file
    #[arg(long, value_name = "BYTE")]
    start_position: Option<u64>,
    /// Byte before which to stop, in the last file
    #[arg(long, value_name = "BYTE")]
    stop_position: Option<u64>,
    /// Print only what follows these GTIDs, one for each domain of the log
    #[arg(long, value_name = "GTIDS")]
    after_gtid: Option<GtidPosition>,
    /// Print only what comes up to these GTIDs, one for each domain; a domain that only --after-gtid
    /// names goes on to its end, but --flashback refuses to undo it
    #[arg(long, value_name = "GTIDS")]
    until_gtid: Option<GtidPosition>,
    /// From this local time on
    #[arg(long, value_name = "TIME")]
    start_datetime: Option<String>,
    /// Before this local time
    #[arg(long, value_name = "TIME")]
    stop_datetime: Option<String>,
    /// Only this database
    #[arg(long)]
    database: Option<String>,
    /// Only rows of this table
    #[arg(long)]
    table: Option<String>,
    /// Print what undoes the log
    #[arg(long)]
    flashback: bool,
    /// Directory for files of LOAD DATA statements
    #[arg(long, value_name = "DIR")]
    local_load: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

impl Binlog {
    /// Runs the command.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>, json: bool) -> Result<Outcome> {
        match self.command {
            Command::Dump(dump) => dump.run(cancel, reporter, json),
            Command::Push(push) => push.run(cancel, reporter),
            Command::Stream(stream) => stream.run(cancel, reporter),
            Command::List(list) => list.run(cancel, reporter),
            Command::Fetch(fetch) => fetch.run(cancel, reporter),
            Command::Find(find) => find.run(cancel, reporter, json),
            Command::Expire(expire) => expire.run(cancel, reporter),
            Command::Purge(purge) => purge.run(cancel, reporter),
            Command::Serve(serve) => serve.run(cancel, reporter),
        }
    }

    /// Whether its data goes to standard output.
    pub fn streams(&self) -> bool {
        matches!(self.command, Command::Dump(_) | Command::Find(_))
    }
}

impl Dump {
    fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>, json: bool) -> Result<Outcome> {
        let dump = self;
        let options = dump.options()?;
        let keys = key_source(dump.keys.resolve(&**reporter)?);
        let read = ReadOptions { keys, ..ReadOptions::default() };
        let stdout = std::io::stdout().lock();
        let mut sink = Interruptible { sink: stdout, cancel };
        let (logs, indexes) = files::without_indexes(dump.files);
        if !indexes.is_empty() {
            let names = indexes.join(", ");
            reporter.warn(format!("passed over, as they are GTID indexes of logs: {names}"));
        }
        if logs.is_empty() {
            let message = "there is no binary log among the files that are named";
            return Err(Error::new(ErrorKind::NothingMatches, message));
        }
        if json {
            lines(&logs, &read, &mut sink).map_err(told)?;
        } else {
            let mut warn = |note| reporter.warn(note);
            files::dump(&options, &read, &logs, &mut sink, &mut warn).map_err(told)?;
        }
        Outcome::new(&serde_json::json!({ "format": 1, "files": logs.len() }), Vec::new())
    }

    fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        if self.rows {
            options.base64 = Base64::DecodeRows;
            options.verbose = if self.types { 2 } else { 1 };
        }
        let gtids = |position: &Option<GtidPosition>| {
            let position = position.iter().flat_map(GtidPosition::iter);
            position.map(|gtid| (gtid.domain, gtid)).collect()
        };
        options.windows =
            Windows { starts: gtids(&self.after_gtid), stops: gtids(&self.until_gtid) };
        let time = |text: &str| {
            datetime::parse(text, &options.zone).ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("'{text}' is not a date with a time"))
                    .advise("write it as in '2026-02-28 17:30:00'")
            })
        };
        let start = self.start_datetime.as_deref().map(time).transpose()?;
        let stop = self.stop_datetime.as_deref().map(time).transpose()?;
        options.start_time = start.unwrap_or(0);
        options.stop_time = stop;
        let first = binlog::format::FIRST_EVENT;
        options.start_position = self.start_position.unwrap_or(first).max(first);
        options.stop_position = self.stop_position;
        options.database = self.database.clone().map(String::into_bytes);
        options.table = self.table.clone().map(String::into_bytes);
        options.flashback = self.flashback;
        // The stock tool goes on to the end in domains that no stop is said for.
        options.undo_named_only = self.flashback;
        options.positions = !self.flashback;
        if let Some(dir) = &self.local_load {
            options.local_load.clone_from(dir);
        }
        Ok(options)
    }
}

/// One line an event.
fn lines(files: &[String], read: &ReadOptions, sink: &mut dyn Write) -> Result<(), Failure> {
    let mut sink = BufWriter::with_capacity(1 << 20, sink);
    for file in files {
        let mut reader = files::forward(file, read)?;
        let mut lines = Lines::default();
        let printed = loop {
            match reader.next_event() {
                Ok(Some(event)) => {
                    writeln!(sink, "{}", lines.line(&event)).map_err(Failure::Output)?;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        sink.flush().map_err(Failure::Output)?;
        printed?;
    }
    Ok(())
}

/// The engine's keys, for the reader of logs; `None` if none were named.
pub(super) fn key_source(settings: KeySettings) -> Option<Rc<dyn KeySource>> {
    (!settings.is_empty()).then(|| Rc::new(Ring(KeyStore::new(settings))) as _)
}

/// The engine's keys, for the reader of logs.
struct Ring(Arc<KeyStore>);

impl KeySource for Ring {
    fn key(&self, id: u32, version: u32) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
        let ring = self.0.ring().map_err(|error| error.to_string())?;
        let key = ring.key(id, version).map_err(|error| error.to_string())?;
        Ok(Zeroizing::new(key.bytes().to_vec()))
    }
}

/// Output that ends when somebody interrupts.
struct Interruptible<'c, W> {
    sink: W,
    cancel: &'c Cancel,
}

impl<W: Write> Write for Interruptible<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(std::io::Error::other("interrupted"));
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}

/// A failure of the printer as an error of a command.
fn told(failure: Failure) -> Error {
    let (kind, advice) = match &failure {
        Failure::Log(error) => match &error.fault {
            Fault::Io(_) => (ErrorKind::Failed, None),
            Fault::Crypt(_) => {
                (ErrorKind::Usage, Some("name the server's keys, as with --keys-file FILE"))
            }
            Fault::NotBinlog | Fault::Empty | Fault::InnodbBinlog => (ErrorKind::Usage, None),
            _ => (ErrorKind::Damage, None),
        },
        Failure::Gtids(_) => (ErrorKind::Gap, None),
        Failure::OtherDomain { .. } => (
            ErrorKind::Usage,
            Some(
                "name the domain with --after-gtid and with --until-gtid; with the same GTID in both \
                 nothing of it is undone",
            ),
        ),
        _ => (ErrorKind::Failed, None),
    };
    let error = Error::new(kind, failure.to_string());
    match advice {
        Some(advice) => error.advise(advice),
        None => error,
    }
}
