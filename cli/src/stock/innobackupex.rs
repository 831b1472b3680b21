//! The older grammar of the stock tool: `mariadb-backup --innobackupex [OPTIONS] DIR`.
//!
//! The directory is an argument of its own, a backup is what happens when nothing else is asked
//! for, and goes into a folder named after the moment; names of options count in any case. It all
//! becomes settings of the present grammar.

use super::failed;
use super::settings::Settings;
use super::value::{Refusal, Value};

/// Options of the present grammar that the older one does not have.
pub const LACKS: &[&str] = &[
    "backup",
    "prepare",
    "target-dir",
    "tables",
    "tables-exclude",
    "databases-exclude",
    "databases-file",
    "binlog-info",
    "print-param",
];

/// What can be done besides a backup, the stronger one first.
const ACTIONS: [&str; 4] = ["apply-log", "copy-back", "move-back", "decompress"];

/// Folders of backups.
const TIMESTAMP: &str = "%Y-%m-%d_%H-%M-%S";

/// Says in the present grammar what was asked for in the older one; `bare` are the arguments that
/// are no options. What the run is called.
pub fn translate(settings: &mut Settings, bare: &[String]) -> Result<&'static str, Refusal> {
    let dir = match bare {
        [dir] => dir.clone(),
        [] => return Err(failed("Missing argument: the directory of the backup".to_owned())),
        [_, extra, ..] => return Err(failed(format!("Error: extra argument found {extra}"))),
    };
    let asked = ACTIONS.into_iter().find(|name| settings.switch(name));
    let run = asked.unwrap_or("backup");
    let is_backup = asked.is_none();
    let bases = [
        "incremental-lsn",
        "incremental-basedir",
        "incremental-history-name",
        "incremental-history-uuid",
    ];
    let based = bases.iter().any(|name| settings.given(name));
    match (settings.switch("incremental"), based) {
        (false, true) => {
            return Err(failed(
                "Error: --incremental-lsn, --incremental-basedir, --incremental-history-name and \
                 --incremental-history-uuid require the --incremental option."
                    .to_owned(),
            ));
        }
        // The stock tool takes the first folder in DIR then, whatever it is.
        (true, false) if is_backup => {
            return Err(failed(
                "--incremental needs --incremental-basedir or --incremental-lsn".to_owned(),
            ));
        }
        _ => {}
    }
    let mut target = dir;
    if is_backup {
        settings.say("backup", Value::On);
        if !settings.switch("no-timestamp") && settings.text("stream").is_none() {
            target = format!("{target}/{}", jiff::Zoned::now().strftime(TIMESTAMP));
        }
    }
    settings.say("target-dir", Value::Text(target));
    for (older, name) in [("include", "tables"), ("databases", "databases-file")] {
        let text = settings.text(older).map(str::to_owned);
        // A list of databases may be in a file, which is named by its whole path.
        if let Some(text) = text.filter(|text| older == "include" || text.starts_with('/')) {
            settings.say(older, Value::Off);
            settings.say(name, Value::Text(text));
        }
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::parse::older_arguments;
    use super::*;

    fn translated(line: &str) -> Result<(Settings, &'static str), Refusal> {
        let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let parsed = older_arguments(&line)?;
        let mut settings = Settings::typed(parsed.given);
        let run = translate(&mut settings, &parsed.bare)?;
        Ok((settings, run))
    }

    #[test]
    fn what_is_asked_for_is_said_in_the_present_grammar() {
        for (line, run, name, value) in [
            ("--no-timestamp /b", "backup", "target-dir", "/b"),
            ("--stream=xbstream /tmp", "backup", "target-dir", "/tmp"),
            ("--Apply_log -u root /b", "apply-log", "target-dir", "/b"),
            ("--apply-log --incremental-dir=/i /b", "apply-log", "incremental-dir", "/i"),
            ("--no-timestamp --include=^d[.] /b", "backup", "tables", "^d[.]"),
            ("--no-timestamp --databases=/list /b", "backup", "databases-file", "/list"),
            ("--no-timestamp --databases=a.t /b", "backup", "databases", "a.t"),
            (
                "--incremental --incremental-lsn=5 --no-timestamp /b",
                "backup",
                "incremental-lsn",
                "5",
            ),
            ("--decompress /b", "decompress", "target-dir", "/b"),
        ] {
            let (settings, called) = translated(line).unwrap();
            assert_eq!((called, settings.text(name)), (run, Some(value)), "{line}");
            assert_eq!(settings.switch("backup"), run == "backup", "{line}");
        }
        let (settings, _) = translated("/b").unwrap();
        let target = settings.text("target-dir").unwrap();
        assert!(target.starts_with("/b/20") && target.len() == "/b/2026-11-21_17-00-00".len());
        let (settings, _) = translated("--databases=/list /b").unwrap();
        assert_eq!(settings.text("databases"), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, words) in [
            ("", "Missing argument"),
            ("/a /b", "extra argument found /b"),
            ("--incremental-lsn=5 /b", "require the --incremental option"),
            ("--incremental /b", "--incremental-basedir"),
            ("--backup /b", "unknown option '--backup'"),
            ("--target-dir=/x /b", "unknown variable 'target-dir=/x'"),
        ] {
            let message = translated(line).map(|_| ()).unwrap_err().message;
            assert!(message.contains(words), "{line}: {message}");
        }
    }
}
