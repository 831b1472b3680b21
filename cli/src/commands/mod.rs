//! The native face: `haulout backup|prepare|restore|…`.
//!
//! Each command has a file of its own, which turns arguments into the engine's options and the
//! engine's summary into words. Settings come from flags, then from `HAULOUT_*` variables, then
//! from the machine.

mod backup;
mod binlog;
mod binlog_archive;
mod binlog_stream;
mod check;
mod connection;
mod copy;
mod expire;
mod extract;
mod get_stream;
mod init;
mod keep;
mod key;
pub mod keys;
mod list;
mod needs;
mod prepare;
mod recovery;
mod replay;
mod repo;
mod restore;
mod serve;
mod tables;
mod until;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind as ClapError;
use clap::{CommandFactory, Parser, Subcommand};
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use crate::console::{Console, Outcome};
use crate::signals;

pub use needs::needs_words;

const EXAMPLES: &str = "\
Examples:
  haulout backup --target-dir /backups/monday
  haulout prepare /backups/monday
  haulout restore /backups/monday --to /var/lib/mysql --owner mysql:mysql
  haulout backup --repo s3://bucket/db1
  haulout restore LATEST --repo s3://bucket/db1 --to /var/lib/mysql --owner mysql:mysql

Exit codes:
  0 done, 1 failed, 2 usage or configuration, 3 damage found, 4 server refused or unreachable,
  5 store refused or unreachable, 6 lock or time limit, 7 redo or binary log gap,
  8 nothing matches the request, 130 interrupted";

/// Hot physical backup of MariaDB: take it from the running server, prepare it, put it back
#[derive(Debug, Parser)]
#[command(name = "haulout", version, after_help = EXAMPLES, max_term_width = 100)]
struct Haulout {
    #[command(flatten)]
    console: Console,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Backup(Box<backup::Backup>),
    Check(Box<check::Check>),
    Prepare(prepare::Prepare),
    Restore(Box<restore::Restore>),
    Extract(extract::Extract),
    Init(init::Init),
    List(list::List),
    Show(list::Show),
    GetStream(get_stream::GetStream),
    Verify(verify::Verify),
    Keep(keep::Keep),
    Unkeep(keep::Unkeep),
    Expire(expire::Expire),
    Copy(copy::Copy),
    Key(key::Key),
    Binlog(binlog::Binlog),
    Replay(Box<replay::Replay>),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Backup(_) => "backup",
            Self::Check(_) => "check",
            Self::Prepare(_) => "prepare",
            Self::Restore(_) => "restore",
            Self::Extract(_) => "extract",
            Self::Init(_) => "init",
            Self::List(_) => "list",
            Self::Show(_) => "show",
            Self::GetStream(_) => "get-stream",
            Self::Verify(_) => "verify",
            Self::Keep(_) => "keep",
            Self::Unkeep(_) => "unkeep",
            Self::Expire(_) => "expire",
            Self::Copy(_) => "copy",
            Self::Key(_) => "key",
            Self::Binlog(_) => "binlog",
            Self::Replay(_) => "replay",
        }
    }

    /// Whether the data of this command goes to standard output.
    fn writes_stdout(&self) -> bool {
        match self {
            Self::Backup(backup) => backup.streams(),
            Self::GetStream(_) => true,
            Self::Binlog(binlog) => binlog.streams(),
            _ => false,
        }
    }

    fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>, json: bool) -> Result<Outcome> {
        match self {
            Self::Backup(backup) => backup.run(cancel, reporter),
            Self::Check(check) => check.run(cancel, reporter),
            Self::Prepare(prepare) => prepare.run(cancel, &**reporter),
            Self::Restore(restore) => restore.run(cancel, reporter),
            Self::Extract(extract) => extract.run(cancel, &**reporter),
            Self::Init(init) => init.run(cancel, reporter),
            Self::List(list) => list.run(cancel, reporter),
            Self::Show(show) => show.run(cancel, reporter),
            Self::GetStream(get) => get.run(cancel, reporter),
            Self::Verify(verify) => verify.run(cancel, reporter),
            Self::Keep(keep) => keep.run(cancel, reporter),
            Self::Unkeep(unkeep) => unkeep.run(cancel, reporter),
            Self::Expire(expire) => expire.run(cancel, reporter),
            Self::Copy(copy) => copy.run(cancel, reporter),
            Self::Key(key) => key.run(cancel, reporter),
            Self::Binlog(binlog) => binlog.run(cancel, reporter, json),
            Self::Replay(replay) => replay.run(cancel, reporter),
        }
    }
}

/// The commands and their arguments, for manual pages and completions.
pub fn definition() -> clap::Command {
    Haulout::command()
}

/// Runs the command that the arguments (with the program's name first) ask for.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let haulout = match Haulout::try_parse_from(arguments) {
        Ok(haulout) => haulout,
        Err(refusal) => return refuse(&refusal, arguments),
    };
    let Haulout { mut console, command } = haulout;
    console.stdout_is_data = command.writes_stdout();
    let name = command.name();
    let ended = signals::listen().and_then(|cancel| {
        let reporter = console.reporter();
        let outcome = command
            .run(&cancel, &reporter, console.json)
            .map_err(|error| signals::blame(error, &cancel));
        // Dropped first: its progress line must be gone before anything else is said.
        drop(reporter);
        let outcome = outcome?;
        console.finish(name, &outcome)?;
        Ok(outcome.found)
    });
    match ended {
        Ok(found) => ExitCode::from(found.map_or(0, ErrorKind::exit_code)),
        Err(error) => {
            console.fail(Some(name), &error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Arguments that are no request, and requests for help or version.
fn refuse(refusal: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let wants_words = matches!(refusal.kind(), ClapError::DisplayHelp | ClapError::DisplayVersion);
    if !wants_words && arguments.iter().any(|argument| argument == "--json") {
        let text = refusal.render().to_string();
        let message = text.lines().next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        let error = Error::new(ErrorKind::Usage, message).advise("see haulout --help");
        Console { json: true, ..Console::default() }.fail(None, &error);
    } else if refusal.print().is_err() {
        // Help that could not be written is not delivered.
        return ExitCode::from(ErrorKind::Failed.exit_code());
    }
    ExitCode::from(if wants_words { 0 } else { ErrorKind::Usage.exit_code() })
}

/// Bytes per second, for summaries.
fn rate(bytes: u64, seconds: f64) -> crate::size::Size {
    crate::size::Size(if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 })
}

/// A number of things: `1 file`, `2 files`.
fn counted(number: u64, thing: &str, things: &str) -> String {
    format!("{number} {}", if number == 1 { thing } else { things })
}

/// A path as a shell takes it.
fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Arguments with values, those that there are, as a shell takes them; a blank in front of each.
fn options(given: &[(&str, Option<String>)]) -> String {
    let given = given.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.map(|(name, value)| format!(" {name} {}", quoted(std::path::Path::new(value)))).collect()
}

/// A path that means the same everywhere.
fn absolute(path: &std::path::Path) -> String {
    let absolute = std::path::absolute(path);
    absolute.as_deref().unwrap_or(path).display().to_string()
}

/// At least one thread.
fn parse_threads(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        _ => Err("a number from 1 to 1024".to_string()),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
