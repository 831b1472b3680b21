//! The face of the stock tool, for scripts: started as `mariadb-backup` or `mariabackup`.
//!
//! | module | what |
//! |---|---|
//! | [`table`] | the options and what becomes of each |
//! | [`parse`], [`value`] | the option grammar of the server's programs, with its exit statuses |
//! | [`innobackupex`] | the older grammar, said in the present one |
//! | [`print`] | what is printed instead of doing something |
//! | [`settings`] | option files below, the command line on top |
//! | [`manual`] | what the options do, in words |
//! | [`tables`] | the options that choose tables |
//! | [`run`] | settings to the engine's operations |
//! | [`log`] | the shape of the lines on standard error |
//!
//! Invariants: an option is used, or it is noted, or it is refused by name, and never silently
//! dropped when dropping it would change the result; the last line is `completed OK!` when and
//! only when the status is 0 after an operation; a password never reaches a log or a file.
//!
//! The stock tool overwrites a password among its arguments so that process lists do not show
//! it. A program cannot do that in safe Rust, so this one warns instead.

mod help;
mod innobackupex;
pub mod log;
mod manual;
mod parse;
pub(crate) mod print;
mod run;
mod settings;
mod table;
mod tables;
pub mod value;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use engine::server::option_file::{DefaultsChoice, OptionFiles};
use engine::{Error, ErrorKind};

pub use manual::definition;
use settings::Settings;
use table::Fate;
use value::{Refusal, status};

/// The last line of a run that succeeded.
const COMPLETED: &str = "completed OK!";

/// How a run that did not succeed ended.
enum Ended {
    /// The request was refused.
    Refused(Refusal),
    /// There is no single action: the help is the answer.
    Unclear,
    /// The operation failed.
    Failed(Error),
    /// It failed, and the log says all about it.
    Told,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs what the arguments (without the program's name) ask for.
pub fn main(name: &str, arguments: &[OsString]) -> ExitCode {
    match start(name, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Refused(refusal)) => {
            if refusal.status == status::FAILED {
                log::fatal(&refusal.message);
            } else {
                crate::console::say(&format!("{name}: {}", refusal.message));
            }
            ExitCode::from(refusal.status)
        }
        Err(Ended::Unclear) => {
            help::print(name);
            ExitCode::from(status::FAILED)
        }
        Err(Ended::Told) => ExitCode::from(status::FAILED),
        Err(Ended::Failed(error)) => {
            log::fatal(&error.to_string());
            if let Some(advice) = error.advice() {
                log::line(0, &format!("Hint: {advice}"));
            }
            let interrupted = error.kind() == ErrorKind::Interrupted;
            ExitCode::from(if interrupted { error.kind().exit_code() } else { status::FAILED })
        }
    }
}

/// From arguments to settings to the operation.
fn start(name: &str, arguments: &[OsString]) -> Result<(), Ended> {
    let arguments = arguments
        .iter()
        .map(|argument| argument.clone().into_string())
        .collect::<Result<Vec<String>, OsString>>()
        .map_err(|bad| failed(format!("the argument '{}' is not UTF-8", bad.display())))?;
    let older = arguments.first().is_some_and(|first| first == "--innobackupex");
    let all = arguments.get(usize::from(older)..).unwrap_or_default();
    let (defaults, rest) = split_defaults(all)?;
    if let Some((first, rest)) = rest.split_first()
        && first == "--print-defaults"
    {
        print::defaults(name, &OptionFiles::load(&defaults)?, &print::groups(), rest);
        return Ok(());
    }
    let parsed = if older { parse::older_arguments(rest)? } else { parse::arguments(rest)? };
    let mut settings = Settings::typed(parsed.given);
    if settings.switch("version") {
        crate::console::say(&help::version(name));
        return Ok(());
    }
    if settings.switch("help") {
        help::print(name);
        return Ok(());
    }
    let called = match older {
        true => Some(innobackupex::translate(&mut settings, &parsed.bare)?),
        false => None,
    };
    if let (None, Some(stray)) = (called, parsed.bare.first()) {
        return Err(failed(format!("{name}: Error: unknown argument: '{stray}'")).into());
    }
    crate::console::say(&help::version(name));
    if let Some(called) = called {
        crate::console::say(&format!(
            "IMPORTANT: Please check that the {called} run completes successfully.\n           \
             At the end of a successful {called} run it prints \"{COMPLETED}\"."
        ));
        log::line(
            0,
            "Warning: '--innobackupex' is deprecated and will be removed in a future release",
        );
    }
    let mut notes = parsed.notes;
    // A backup is prepared by its own settings, not by those of the machine it lies on.
    let mut files = OptionFiles::default();
    let mut key_files = OptionFiles::default();
    let prepares = ["prepare", "apply-log"].iter().any(|action| settings.switch(action));
    if !prepares {
        files = OptionFiles::load(&defaults)?;
        notes.extend(files.warnings().iter().cloned());
        notes.extend(settings.read_files(&files)?);
        key_files = files.clone();
    } else if defaults.file.is_some() || defaults.extra_file.is_some() {
        // Only keys may be somewhere else than they were at the time of the backup.
        key_files = OptionFiles::load(&defaults)?;
    }
    if settings.switch("print-param") {
        print::parameters(&settings);
        return Ok(());
    }
    let keys = run::keys(&settings, &key_files)?;
    let unused = settings.with_fate(Fate::Tuning);
    if !unused.is_empty() {
        notes.push(format!("nothing to tune for --{}: ignored", unused.join(", --")));
    }
    if settings.typed_text("password").is_some() {
        notes.push(
            "a password among the arguments can be seen by every user of this machine; \
             an option file or MYSQL_PWD hides it"
                .to_string(),
        );
    }
    for note in notes {
        log::line(0, &format!("Warning: {note}"));
    }
    let front = arguments.len() - rest.len();
    let shown = arguments.iter().take(front).chain(&parsed.shown);
    let command = shown.map(String::as_str).collect::<Vec<_>>().join(" ");
    let invocation = run::Invocation { tool_name: name.to_string(), command, older };
    run::run(&settings, &files, keys, invocation)?;
    log::line(0, COMPLETED);
    Ok(())
}

/// Takes the options off the front that say which option files to read.
pub fn split_defaults(arguments: &[String]) -> Result<(DefaultsChoice, &[String]), Refusal> {
    let mut choice = DefaultsChoice::default();
    let mut rest = arguments;
    while let [first, others @ ..] = rest {
        if let Some(file) = first.strip_prefix("--defaults-file=") {
            choice.file = Some(PathBuf::from(file));
        } else if let Some(file) = first.strip_prefix("--defaults-extra-file=") {
            choice.extra_file = Some(PathBuf::from(file));
        } else if let Some(suffix) = first.strip_prefix("--defaults-group-suffix=") {
            choice.group_suffix = Some(suffix.to_string()).filter(|suffix| !suffix.is_empty());
        } else if first == "--no-defaults" {
            choice.no_defaults = true;
            rest = others;
            break;
        } else {
            break;
        }
        rest = others;
    }
    // The stock tool starts itself so, to export tables.
    let modes = ["--mysqld", "--mariadbd"];
    if let Some(mode) = rest.first().filter(|first| modes.contains(&first.as_str())) {
        return Err(failed(format!("{mode}: there is no server in haulout")));
    }
    for option in ["--defaults-file", "--defaults-extra-file"] {
        let misplaced = |argument: &String| {
            argument.strip_prefix(option).is_some_and(|tail| tail.starts_with('='))
        };
        if rest.iter().any(misplaced) {
            return Err(failed(format!("{option} must be specified first on the command line")));
        }
    }
    Ok((choice, rest))
}

/// A refusal that is no matter of the grammar.
fn failed(message: String) -> Refusal {
    Refusal::new(status::FAILED, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn split(line: &str) -> Result<(DefaultsChoice, usize), Refusal> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        split_defaults(&arguments).map(|(choice, rest)| (choice, rest.len()))
    }

    #[test]
    fn defaults_options_come_first() {
        let (choice, rest) =
            split("--defaults-file=/f --defaults-group-suffix=-x --backup").unwrap();
        assert_eq!((choice.file, choice.group_suffix), (Some("/f".into()), Some("-x".into())));
        assert_eq!(rest, 1);
        let (choice, rest) = split("--no-defaults --backup --prepare").unwrap();
        assert_eq!((choice.no_defaults, rest), (true, 2));
        for line in ["--backup --defaults-file=/f", "--no-defaults --defaults-extra-file=/f"] {
            let refusal = split(line).unwrap_err();
            assert_eq!(refusal.status, 1, "{line}");
            assert!(refusal.message.contains("must be specified first"), "{line}");
        }
    }

    #[test]
    fn internal_modes_are_refused_by_name() {
        for mode in ["--mysqld", "--mariadbd"] {
            let refusal = split(&format!("{mode} --backup")).unwrap_err();
            assert_eq!(refusal.message, format!("{mode}: there is no server in haulout"));
        }
    }
}
