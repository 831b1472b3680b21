//! The options of the stock tool: which there are, what they take, what becomes of them.

use crate::manual;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On or off.
    Switch,
    /// Counts how often it is given.
    Count,
    /// A text.
    Text,
    /// A text that may be left out, and is then only given with `=`.
    OptionalText,
    /// A number.
    Number,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Used.
    Used,
    /// Of no effect on local files.
    Harmless,
}

/// An option.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, with dashes.
    pub name: &'static str,
    /// Its letter, or a blank.
    pub letter: char,
    /// What it takes.
    pub kind: Kind,
    /// What becomes of it.
    pub fate: Fate,
    /// What it does, for the help.
    about: &'static str,
}

const fn entry(
    letter: char,
    name: &'static str,
    kind: Kind,
    fate: Fate,
    about: &'static str,
) -> Entry {
    Entry { name, letter, kind, fate, about }
}

use Fate::{Harmless, Used};
use Kind::{Count, Number, OptionalText, Switch, Text};

/// Every option of 10.5, 10.11 and 11.8.
pub static TABLE: &[Entry] = &[
    entry('?', "help", Switch, Used, "Show this help"),
    entry('V', "version", Switch, Used, "Show the version"),
    entry(' ', "base64-output", Text, Used, "never, decode-rows or auto"),
    entry('d', "database", Text, Used, "Only this database"),
    entry('T', "table", Text, Used, "Only rows of this table"),
    entry(' ', "rewrite-db", Text, Used, "'from->to': another name for a database"),
    entry('D', "disable-log-bin", Switch, Used, "Turn the binary log off for the replay"),
    entry('B', "flashback", Switch, Used, "Print what undoes the log"),
    entry('F', "force-if-open", Switch, Used, "Read files that were not closed (default)"),
    entry('f', "force-read", Switch, Used, "Go on behind unknown events"),
    entry('H', "hexdump", Switch, Used, "Show events in hexadecimal digits, too"),
    entry('l', "local-load", Text, Used, "Directory for files of LOAD DATA"),
    entry('o', "offset", Number, Used, "Pass over the first events"),
    entry('r', "result-file", Text, Used, "Write here instead of standard output"),
    entry(' ', "print-row-count", Switch, Used, "Count rows (default)"),
    entry(' ', "print-row-event-positions", Switch, Used, "Show positions (default)"),
    entry(' ', "print-table-metadata", Switch, Used, "Show the columns of tables"),
    entry(' ', "ignore-domain-ids", Text, Used, "Not these domains"),
    entry(' ', "do-domain-ids", Text, Used, "Only these domains"),
    entry(' ', "ignore-server-ids", Text, Used, "Not these servers"),
    entry(' ', "do-server-ids", Text, Used, "Only these servers"),
    entry(' ', "server-id", Text, Used, "The same as --do-server-ids"),
    entry(' ', "set-charset", Text, Used, "Add SET NAMES"),
    entry('s', "short-form", Switch, Used, "Only statements"),
    entry(' ', "start-datetime", Text, Used, "From this time on"),
    entry(' ', "stop-datetime", Text, Used, "Before this time"),
    entry('j', "start-position", Text, Used, "From this byte of the first file, or behind GTIDs"),
    entry(' ', "stop-position", Text, Used, "Before this byte of the last file, or up to GTIDs"),
    entry(' ', "gtid-strict-mode", Switch, Used, "Refuse disorder in GTIDs (default)"),
    entry('v', "verbose", Count, Used, "Show rows; twice: types, too"),
    entry('c', "verify-binlog-checksum", Switch, Used, "Verify checksums"),
    entry(' ', "skip-annotate-row-events", Switch, Used, "No statements of rows"),
    entry(' ', "binlog-row-event-max-size", Number, Harmless, ""),
    entry(' ', "character-sets-dir", Text, Harmless, ""),
    entry(' ', "debug-check", Switch, Harmless, ""),
    entry(' ', "debug-info", Switch, Harmless, ""),
    entry(' ', "open-files-limit", Number, Harmless, ""),
    entry('R', "read-from-remote-server", Switch, Used, "Read from a server, whose logs FILES are"),
    entry(
        ' ',
        "raw",
        Switch,
        Used,
        "With -R: write the files as they are, --result-file before names",
    ),
    entry('t', "to-last-log", Switch, Used, "With -R: go on up to the server's last log"),
    entry(' ', "stop-never", Switch, Used, "With -R: the same, and wait for what follows"),
    entry(' ', "stop-never-slave-server-id", Number, Used, "server_id of the waiting replica"),
    entry('h', "host", Text, Used, "Host of the server"),
    entry('u', "user", Text, Used, "Account"),
    entry('p', "password", OptionalText, Used, "Its password"),
    entry('P', "port", Number, Used, "TCP port"),
    entry('S', "socket", Text, Used, "Unix socket"),
    entry(' ', "protocol", Text, Used, "tcp or socket"),
    entry(' ', "plugin-dir", Text, Harmless, ""),
    entry(' ', "default-auth", Text, Harmless, ""),
    entry(' ', "ssl", Switch, Used, "Encrypt"),
    entry(' ', "ssl-ca", Text, Used, "Authority that signed the server's certificate"),
    entry(' ', "ssl-cert", Text, Used, "Certificate to show"),
    entry(' ', "ssl-key", Text, Used, "Its key"),
    entry(' ', "ssl-verify-server-cert", Switch, Used, "Check the server's certificate and name"),
    entry(' ', "ssl-capath", Text, Used, "Directory of authorities"),
    entry(' ', "ssl-cipher", Text, Used, "Ciphers to choose from"),
    entry(' ', "ssl-crl", Text, Used, "Certificates that were revoked"),
    entry(' ', "ssl-crlpath", Text, Used, "Directory of certificates that were revoked"),
    entry(' ', "ssl-fp", Text, Used, "Fingerprint of the server's certificate"),
    entry(' ', "ssl-fplist", Text, Used, "File of fingerprints"),
    entry(' ', "tls-version", Text, Used, "Versions of TLS to choose from"),
];

/// The options, for the manual page.
pub fn definition() -> clap::Command {
    let about = "The text of binary logs, to read or to replay";
    let mut command = manual::face("mariadb-binlog", about);
    for entry in TABLE.iter().filter(|entry| !entry.about.is_empty()) {
        let (letter, name, about) = (entry.letter, entry.name, entry.about);
        command = command.arg(match entry.kind {
            Switch | Count => manual::switch(letter, name, about),
            Text => manual::valued(letter, name, "name", about),
            OptionalText => manual::optional(letter, name, "name", about),
            Number => manual::valued(letter, name, "#", about),
        });
    }
    command
        .arg(
            clap::Arg::new("FILES")
                .num_args(1..)
                .required(true)
                .help("Binary logs, in their order"),
        )
        .after_help(
            "Examples:\n  mariadb-binlog -v binlog.000007 | less\n  \
             mariadb-binlog --stop-datetime='2026-11-21 12:00:00' binlog.000007 | mariadb",
        )
}

/// The text of `--help`.
pub fn help(name: &str) -> String {
    let mut text = format!(
        "{name} of haulout: the text of binary logs, to read or to replay.\n\n\
         Usage: {name} [OPTIONS] FILES...\n\n\
         First arguments: --no-defaults, --defaults-file=#, --defaults-extra-file=#, \
         --defaults-group-suffix=#, --print-defaults\n\nOptions:\n"
    );
    for entry in TABLE.iter().filter(|entry| !entry.about.is_empty()) {
        let letter = match entry.letter {
            ' ' => "    ".to_owned(),
            letter => format!("-{letter}, "),
        };
        let value = match entry.kind {
            Switch | Count => "",
            Text | OptionalText => "=name",
            Number => "=#",
        };
        let option = format!("  {letter}--{}{value}", entry.name);
        text += &format!("{option:<38} {}\n", entry.about);
    }
    text
}
