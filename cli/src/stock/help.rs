//! Help and version of the stock face.

use std::io::Write;

use super::table::{Entry, Fate, Kind, Owner, TABLE};

/// The version line.
pub fn version(name: &str) -> String {
    format!(
        "{name} of haulout {}, based on the interface of MariaDB server 10.11 ({}, {})",
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
         Usage: {name} [--defaults-file=#] [--backup | --prepare | --copy-back | --move-back | \
         --decompress] [OPTIONS]\n\
         Usage: {name} --innobackupex [--defaults-file=#] [--apply-log | --copy-back | \
         --move-back | --decompress] [OPTIONS] DIR\n\n\
         Examples:\n  \
           {name} --backup --target-dir=/backups/monday --user=backup\n  \
           {name} --prepare --target-dir=/backups/monday\n  \
           {name} --copy-back --target-dir=/backups/monday --datadir=/var/lib/mysql\n\n\
         First arguments: --no-defaults, --defaults-file=#, --defaults-extra-file=#, \
         --defaults-group-suffix=#, --print-defaults\n\
         Option groups: xtrabackup mariabackup mariadb-backup, those of the server and of \
         clients\n\n",
        version(name)
    );
    let section = |title: &str, wanted: &dyn Fn(&Entry) -> bool| {
        let options = TABLE.iter().filter(|entry| wanted(entry)).map(spelling);
        format!("{title}:\n{}\n", options.map(|line| format!("  {line}\n")).collect::<String>())
    };
    let older = |entry: &Entry| entry.owner == Owner::Older;
    let of = |fate: Fate| move |entry: &Entry| entry.fate == fate && !older(entry);
    text += &section("Options", &of(Fate::Used));
    text += &section("Options of --innobackupex alone", &older);
    text +=
        &section("Accepted, with nothing to do (no --version-check is made)", &of(Fate::Harmless));
    text += &section("Accepted, with nothing to tune", &of(Fate::Tuning));
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
        Kind::OptionalNumber => "[=#]".to_string(),
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
