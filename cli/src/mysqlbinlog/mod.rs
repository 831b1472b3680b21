//! The face of the stock tool for binary logs: started as `mariadb-binlog` or `mysqlbinlog`.
//!
//! | module | what |
//! |---|---|
//! | [`table`] | the options and what becomes of each |
//! | [`parse`] | the option grammar of clients |
//! | [`request`] | options to what the printer of the `binlog` crate takes |
//! | [`datetime`] | times as people write them |
//! | [`files`] | from files to text; also for `haulout binlog dump` |
//! | `remote` | from a server to text, or to files |
//!
//! Text goes to standard output or the result file, words to standard error. The exit status is 1
//! for whatever goes wrong behind the grammar.

pub mod datetime;
pub mod files;
mod parse;
mod remote;
mod request;
mod table;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use engine::server::TlsOptions;
use engine::server::option_file::OptionFiles;

use crate::console::say;
use crate::stock::value::Refusal;
use crate::stock::{print, split_defaults};
use parse::Given;
use request::Request;
pub use table::definition;

/// Option groups that the stock tool reads.
const GROUPS: &[&str] =
    &["mysqlbinlog", "mariadb-binlog", "client", "client-server", "client-mariadb"];

/// Groups of which every option must be known: the others are shared with other clients.
const OWN_GROUPS: &[&str] = &["mysqlbinlog", "mariadb-binlog"];

/// Runs what the arguments (without the program's name) ask for.
pub fn main(name: &str, arguments: &[OsString]) -> ExitCode {
    match start(name, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            if !refusal.message.is_empty() {
                say(&refusal.message);
            }
            ExitCode::from(refusal.status)
        }
    }
}

fn start(name: &str, arguments: &[OsString]) -> Result<(), Refusal> {
    let arguments = arguments
        .iter()
        .map(|argument| argument.clone().into_string())
        .collect::<Result<Vec<String>, OsString>>()
        .map_err(|bad| Refusal::error(format!("the argument '{}' is not UTF-8", bad.display())))?;
    let (defaults, rest) =
        split_defaults(&arguments).map_err(|refusal| Refusal::error(refusal.message))?;
    if let Some((first, typed)) = rest.split_first()
        && first == "--print-defaults"
    {
        let files = OptionFiles::load(&defaults).map_err(|e| Refusal::error(e.to_string()))?;
        print::defaults(name, &files, GROUPS, typed);
        return Ok(());
    }
    let parsed = parse::arguments(name, rest)?;
    if parsed.given.iter().any(|given| given.entry.name == "version") {
        say_out(&format!("{name} of haulout {}\n", env!("CARGO_PKG_VERSION")))?;
        return Ok(());
    }
    if parsed.given.iter().any(|given| given.entry.name == "help") {
        return say_out(&table::help(name));
    }
    let files = OptionFiles::load(&defaults).map_err(|error| Refusal::error(error.to_string()))?;
    let mut given = from_files(name, &files)?;
    given.extend(parsed.given.iter().cloned());
    parsed.notes.iter().for_each(|note| say(note));
    let request = Request::new(&given)?;
    if parsed.bare.is_empty() {
        return Err(Refusal::error(
            "Please provide the log file(s). Run with '--help' for usage instructions.",
        ));
    }
    let mut warn = |note: String| say(&format!("WARNING: {note}"));
    let connect = match request.is_remote {
        true => Some(remote::connect_options(&files, &parsed.given)?),
        false => None,
    };
    if let Some(connect) = connect.as_ref().filter(|_| request.remote.raw) {
        return remote::raw(&request, connect, &parsed.bare, &mut warn);
    }
    let stdout;
    let file;
    let sink: &mut dyn Write = match &request.result_file {
        Some(path) => {
            let created = File::create(path);
            let failed = |_| Refusal::error(format!("Could not create log file '{path}'"));
            file = created.map_err(failed)?;
            &mut { file }
        }
        None => {
            stdout = std::io::stdout();
            &mut stdout.lock()
        }
    };
    if let Some(connect) = &connect {
        return remote::dump(&request, connect, &parsed.bare, sink, &mut warn);
    }
    let dumped = files::dump(&request.options, &request.read, &parsed.bare, sink, &mut warn);
    let last_time = dumped.map_err(Refusal::error)?;
    if let (Some(stop), Some(text)) = (request.options.stop_time, &request.stop_datetime)
        && stop > last_time
    {
        warn(format!("Did not reach stop datetime '{text}' before end of input"));
    }
    Ok(())
}

/// Options of option files, the weaker ones.
fn from_files(name: &str, files: &OptionFiles) -> Result<Vec<Given>, Refusal> {
    let mut given = Vec::new();
    for written in files.options(GROUPS) {
        let own = files.options(OWN_GROUPS).contains(&written);
        let read = parse::option(name, &written.name, written.value.clone(), &mut || None);
        match read {
            // The connection's settings are read by their whole names.
            Ok((one, _)) if own && is_cut_short(&one, &written.name) => {
                let message = format!(
                    "{name}: {} in an option file has to be written as {}",
                    written.name, one.entry.name
                );
                return Err(Refusal::error(message));
            }
            Ok((one, _)) => given.push(one),
            Err(refusal) if own && !written.loose => return Err(refusal),
            Err(_) => {}
        }
    }
    Ok(given)
}

/// Settings of the connection besides those of [`TlsOptions::TEXTS`].
const CONNECTION: &[&str] =
    &["host", "user", "password", "port", "socket", "protocol", "ssl", "ssl-verify-server-cert"];

/// Whether only the beginning of the name of a setting of the connection was written.
fn is_cut_short(given: &Given, written: &str) -> bool {
    let name = given.entry.name;
    let is_of_connection = TlsOptions::TEXTS.contains(&name) || CONNECTION.contains(&name);
    is_of_connection && name.starts_with(written) && name != written
}

fn say_out(text: &str) -> Result<(), Refusal> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Refusal::error(format!("cannot write: {error}")))
}
