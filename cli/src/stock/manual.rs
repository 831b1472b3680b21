//! What the options do, in words: for the manual page.

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command};

use super::table::{Entry, Fate, Kind, TABLE};
use crate::manual::{face, optional, switch, valued};

const EXAMPLES: &str = "\
Examples:
  mariadb-backup --backup --target-dir=/backups/monday --user=backup
  mariadb-backup --prepare --target-dir=/backups/monday
  mariadb-backup --copy-back --target-dir=/backups/monday --datadir=/var/lib/mysql
  mariadb-backup --backup --stream=xbstream | ssh host2 mbstream -x -C /backups/monday

Option files are those of the server and its clients; the groups are xtrabackup, mariabackup and \
mariadb-backup, besides the server's and the clients' own.

Exit status: 0 when the last line is 'completed OK!', 1 after a failure, 2 for an unknown option, 5 for \
a missing argument, 7 for an unknown variable, 9 for a bad number, 13 for a bad value, 130 when \
interrupted.";

/// Options and what they do. Of others the heading says all there is.
const WORDS: &[(&str, &str)] = &[
    ("backup", "Back up a running server"),
    ("prepare", "Make a backup consistent"),
    ("apply-log", "The same as --prepare"),
    ("copy-back", "Copy a prepared backup into a data directory"),
    ("move-back", "Move a prepared backup into a data directory"),
    ("version", "Show the version"),
    ("help", "Show the help"),
    ("verbose", "Accepted; every file is named anyway"),
    ("export", "With --prepare: write what IMPORT TABLESPACE needs"),
    ("target-dir", "The directory of the backup"),
    ("stream", "Write the backup to standard output; xbstream and mbstream mean the same"),
    ("throttle", "Copy at most so many times 10 MiB a second"),
    ("use-memory", "With --prepare: memory for redo"),
    ("log-innodb-page-corruption", "Go on at damaged pages, and list them"),
    ("force-non-empty-directories", "Put back into a directory that has files"),
    ("parallel", "Threads"),
    ("incremental-basedir", "Copy what changed since the backup in this directory"),
    ("incremental-dir", "With --prepare: apply the delta in this directory"),
    ("incremental-lsn", "Copy what changed since this LSN"),
    ("incremental-history-name", "Copy what changed since the backup of this name in the history"),
    ("incremental-history-uuid", "Copy what changed since the backup of this UUID in the history"),
    ("history", "Note the backup in a table of the server, under this name"),
    ("extra-lsndir", "Put the files that a next incremental backup needs there, too"),
    ("tables", "Only tables that match one of these expressions, with commas between"),
    ("tables-exclude", "No tables that match one of these expressions"),
    ("tables-file", "Only the tables in this file, one db.table a line"),
    ("databases", "Only these databases and tables, with blanks between"),
    ("databases-exclude", "Not these databases and tables"),
    ("databases-file", "Only the databases and tables in this file"),
    ("galera-info", "Note the position in the Galera cluster"),
    ("slave-info", "Note where this replica stands"),
    ("binlog-info", "Whether to note the position in the binary log"),
    ("rocksdb-datadir", "Directory of MyRocks"),
    ("rocksdb-wal-dir", "Directory of the log of MyRocks"),
    ("rocksdb-backup", "Back MyRocks up, too (default)"),
    ("startup-wait-timeout", "Seconds to wait for a lock of the server; 60 unless given"),
    ("ftwrl-wait-timeout", "The same as --startup-wait-timeout"),
    ("no-lock", "Take no locks: right only when nothing but InnoDB is written"),
    ("safe-slave-backup", "Hold replication while it has no temporary tables"),
    ("safe-slave-backup-timeout", "Seconds that may take; 300 unless given"),
    ("user", "Account"),
    ("password", "Its password; an option file or MYSQL_PWD hides it from others"),
    ("host", "Host of the server"),
    ("port", "TCP port of the server"),
    ("socket", "Unix socket of the server"),
    ("protocol", "How to connect"),
    ("ssl", "Encrypt the connection"),
    ("ssl-ca", "Authority that signed the server's certificate"),
    ("ssl-cert", "Certificate to show"),
    ("ssl-key", "Its key"),
    ("ssl-verify-server-cert", "Check the server's certificate and name"),
    ("datadir", "Data directory"),
    ("tmpdir", "Directory for what does not fit into memory"),
    ("innodb-data-home-dir", "Directory of the system tablespace"),
    ("innodb-data-file-path", "Files of the system tablespace"),
    ("innodb-undo-directory", "Directory of undo tablespaces"),
    ("innodb-log-group-home-dir", "Directory of the redo log"),
    ("aria-log-dir-path", "Directory of the log of Aria"),
    ("defaults-group", "One more option group to read"),
    ("file-key-management-filename", "File of encryption keys"),
    ("file-key-management-filekey", "Its password, as FILE:path"),
    ("file-key-management-encryption-algorithm", "How it is encrypted"),
    ("hashicorp-key-management-vault-url", "Where the vault with encryption keys is"),
    ("hashicorp-key-management-token", "Not here, where others would see it: in VAULT_TOKEN"),
    ("hashicorp-key-management-vault-ca", "Authority that signed the vault's certificate"),
    ("hashicorp-key-management-timeout", "Seconds to wait for the vault"),
    ("hashicorp-key-management-max-retries", "How often to ask again"),
    ("extended-validation", "Check encrypted pages inside, too; needs their keys"),
    ("innodb-log-checkpoint-now", "Have the server make a checkpoint first"),
    ("decompress", "Decompress the files of a backup that end in .qp"),
    ("remove-original", "With --decompress: remove the compressed files"),
    ("print-param", "Print the options that are in effect, as an option file"),
    ("compress", "Compress the files of the backup"),
    ("compress-threads", "Threads for that"),
    ("compress-chunk-size", "Bytes compressed at once"),
    ("innodb-force-recovery", "With --prepare: go on at damaged pages"),
    ("lock-ddl-per-table", "Lock the definition of each table while the backup runs"),
    ("include", "With --innobackupex: only tables that match this expression"),
    ("incremental", "With --innobackupex: copy what changed since --incremental-basedir"),
    ("no-timestamp", "With --innobackupex: no directory of its own for each backup"),
    ("check-privileges", "Look for missing privileges first (default)"),
    ("open-files-limit", "Files that may be open at once"),
    ("plugin-dir", "Directory of plugins"),
    ("ssl-capath", "Directory of authorities"),
    ("ssl-cipher", "Ciphers to choose from"),
    ("ssl-crl", "Certificates that were revoked"),
    ("ssl-crlpath", "Directory of certificates that were revoked"),
    ("ssl-fp", "Fingerprint of the server's certificate"),
    ("ssl-fplist", "File of fingerprints"),
    ("tls-version", "Versions of TLS to choose from"),
    ("login-path", "One more option group to read"),
];

/// The options by what becomes of them, for the manual page.
pub fn definition() -> Command {
    let about = "Back up MariaDB while it runs, prepare the backup, put it back";
    let first = [
        switch(' ', "no-defaults", "Read no option files"),
        valued(' ', "defaults-file", "file", "Read only this option file"),
        valued(' ', "defaults-extra-file", "file", "Read this option file, too"),
        valued(' ', "defaults-group-suffix", "text", "Read groups with this suffix, too"),
    ];
    let mut command = face("mariadb-backup", about)
        .args(first.map(|arg| arg.help_heading("First arguments")))
        .after_help(EXAMPLES);
    for (fate, heading) in [
        (Fate::Used, "Options"),
        (Fate::Harmless, "Accepted, with nothing to do"),
        (Fate::Tuning, "Accepted, with nothing to tune"),
    ] {
        let of_fate = TABLE.iter().filter(|entry| entry.fate == fate);
        command = command.args(of_fate.map(|entry| argument(entry).help_heading(heading)));
    }
    command
}

fn argument(entry: &Entry) -> Arg {
    let about = WORDS.iter().find(|(name, _)| *name == entry.name).map_or("", |(_, words)| *words);
    let (letter, name) = (entry.short.unwrap_or(' '), entry.name);
    match entry.kind {
        Kind::Switch | Kind::SwitchOn => switch(letter, name, about),
        Kind::Text => valued(letter, name, "name", about),
        Kind::OptionalText => optional(letter, name, "name", about),
        Kind::Number => valued(letter, name, "#", about),
        Kind::OptionalNumber => optional(letter, name, "#", about),
        Kind::Word(words) => {
            valued(letter, name, "word", about).value_parser(PossibleValuesParser::new(words))
        }
        Kind::OptionalWord(words) => {
            optional(letter, name, "word", about).value_parser(PossibleValuesParser::new(words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::find;
    use super::*;

    #[test]
    fn options_in_use_have_words() {
        for (name, _) in WORDS {
            assert!(find(name).is_some(), "there is no --{name}");
        }
        for entry in TABLE.iter().filter(|entry| entry.fate == Fate::Used) {
            assert!(WORDS.iter().any(|(name, _)| *name == entry.name), "--{} has none", entry.name);
        }
    }
}
