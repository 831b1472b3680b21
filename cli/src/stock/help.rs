//! Help and version of the stock face.

use std::io::Write;

use super::table::{Entry, Fate, Kind, TABLE};

/// The version line.
pub fn version(name: &str) -> String {
    format!(
        "{name} of haulout {}, for MariaDB server 10.11 ({}, {})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

/// Prints the help on standard output. Nobody may be reading; the status does not depend on it.
pub fn print(name: &str) {
    let _ = std::io::stdout().lock().write_all(text(name).as_bytes());
}

/// What can be asked for, and what becomes of it. The SST scripts of Galera search the help for
/// `--version-check`, which is why its option is explained in words.
fn text(name: &str) -> String {
    let mut text = format!(
        "{}\n\n\
         Usage: {name} [--defaults-file=#] [--backup | --prepare | --copy-back | --move-back] \
         [OPTIONS]\n\n\
         Examples:\n  \
           {name} --backup --target-dir=/backups/monday --user=backup\n  \
           {name} --prepare --target-dir=/backups/monday\n  \
           {name} --copy-back --target-dir=/backups/monday --datadir=/var/lib/mysql\n\n\
         First arguments: --no-defaults, --defaults-file=#, --defaults-extra-file=#, \
         --defaults-group-suffix=#\n\
         Option groups: xtrabackup mariabackup mariadb-backup, those of the server and of \
         clients\n\n",
        version(name)
    );
    let section = |title: &str, fate: Fate| {
        let options = TABLE.iter().filter(|entry| entry.fate == fate).map(spelling);
        format!("{title}:\n{}\n", options.map(|line| format!("  {line}\n")).collect::<String>())
    };
    text += &section("Options", Fate::Used);
    text += &section("Accepted, with nothing to do (no --version-check is made)", Fate::Harmless);
    text += &section("Accepted, with nothing to tune", Fate::Tuning);
    text += &section("Not supported yet", Fate::NotYet);
    text
}

/// An option as it is written.
fn spelling(entry: &Entry) -> String {
    let short = entry.short.map_or("    ".to_string(), |letter| format!("-{letter}, "));
    let value = match entry.kind {
        Kind::Switch | Kind::SwitchOn => "".to_string(),
        Kind::Text => "=name".to_string(),
        Kind::OptionalText => "[=name]".to_string(),
        Kind::Number => "=#".to_string(),
        Kind::Word(words) => format!("={}", words.join("|")),
        Kind::OptionalWord(words) => format!("[={}]", words.join("|")),
    };
    format!("{short}--{}{value}", entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_examples_and_names_every_option() {
        let help = text("mariadb-backup");
        assert!(help.contains("Examples:") && help.contains(" --version-check"));
        for entry in TABLE {
            assert!(help.contains(&format!("--{}", entry.name)), "{}", entry.name);
        }
    }
}
