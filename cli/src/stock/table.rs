//! The stock tool's options: which there are, what values they take, what becomes of them here.

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On or off; off unless said otherwise.
    Switch,
    /// On or off; on unless said otherwise.
    SwitchOn,
    /// A text.
    Text,
    /// A text that may be left out, and is then only given with `=`.
    OptionalText,
    /// A number, with an optional suffix of `K M G T P E`.
    Number,
    /// [`Kind::Number`] that may be left out, and is then only given with `=`.
    OptionalNumber,
    /// One of these words, in any case. A number counts them from zero.
    Word(&'static [&'static str]),
    /// [`Kind::Word`] that may be left out, and is then only given with `=`.
    OptionalWord(&'static [&'static str]),
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Used by this face.
    Used,
    /// Accepted; it has nothing to tune here, which a note says.
    Tuning,
    /// Accepted silently: it asks for nothing.
    Harmless,
}

/// Which option groups may set it, besides the command line and the tool's own groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The tool itself.
    Tool,
    /// Clients of the server. The engine reads these groups for the connection.
    Client,
    /// The server.
    Server,
    /// The tool in its older grammar ([`super::innobackupex`]), and nobody else.
    Older,
}

/// An option of the stock tool.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, with dashes.
    pub name: &'static str,
    /// The letter, when it has one.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// What becomes of it.
    pub fate: Fate,
    /// Who may set it.
    pub owner: Owner,
}

const fn entry(owner: Owner, fate: Fate, kind: Kind, name: &'static str) -> Entry {
    Entry { name, short: None, kind, fate, owner }
}

const fn letter(short: char, entry: Entry) -> Entry {
    Entry { short: Some(short), ..entry }
}

use Fate::{Harmless, Tuning, Used};
use Kind::{Number, OptionalNumber, OptionalText, OptionalWord, Switch, SwitchOn, Text, Word};
use Owner::{Client, Older, Server, Tool};

const QUERY_TYPES: &[&str] = &["all", "update", "select"];
const BINLOG_INFO: &[&str] = &["off", "lockless", "on", "auto"];
const FLUSH_METHODS: &[&str] = &[
    "fsync",
    "o_dsync",
    "littlesync",
    "nosync",
    "o_direct",
    "o_direct_no_fsync",
    "unbuffered",
    "async_unbuffered",
    "normal",
];
const PROTOCOLS: &[&str] = &["tcp", "socket", "pipe", "memory"];

/// Every option of 10.5, 10.11 and 11.8.
pub static TABLE: &[Entry] = &[
    // Actions.
    entry(Tool, Used, Switch, "backup"),
    entry(Tool, Used, Switch, "prepare"),
    entry(Tool, Used, Switch, "apply-log"),
    // Not the stock tool's, but given to it by some who know another tool: nothing is ever rolled back.
    entry(Tool, Harmless, Switch, "apply-log-only"),
    entry(Tool, Used, Switch, "copy-back"),
    entry(Tool, Used, Switch, "move-back"),
    letter('v', entry(Tool, Used, Switch, "version")),
    letter('?', entry(Tool, Used, Switch, "help")),
    letter('V', entry(Tool, Used, Switch, "verbose")),
    entry(Tool, Used, Switch, "decompress"),
    entry(Tool, Used, Switch, "remove-original"),
    entry(Tool, Used, Switch, "export"),
    entry(Tool, Used, Switch, "print-param"),
    // What and where to.
    entry(Tool, Used, Text, "target-dir"),
    entry(Tool, Used, Text, "stream"),
    entry(Tool, Used, Number, "throttle"),
    entry(Tool, Used, Number, "use-memory"),
    entry(Tool, Used, Switch, "log-innodb-page-corruption"),
    entry(Tool, Used, Switch, "force-non-empty-directories"),
    entry(Server, Used, Number, "parallel"),
    entry(Tool, Used, Text, "incremental-basedir"),
    entry(Tool, Used, Text, "incremental-dir"),
    entry(Tool, Used, Text, "incremental-lsn"),
    entry(Tool, Used, Text, "incremental-history-name"),
    entry(Tool, Used, Text, "incremental-history-uuid"),
    entry(Tool, Harmless, Switch, "incremental-force-scan"),
    entry(Tool, Used, OptionalText, "history"),
    entry(Tool, Used, Text, "extra-lsndir"),
    entry(Tool, Used, Text, "tables"),
    entry(Tool, Used, Text, "tables-exclude"),
    entry(Tool, Used, Text, "tables-file"),
    entry(Tool, Used, Text, "databases"),
    entry(Tool, Used, Text, "databases-exclude"),
    entry(Tool, Used, Text, "databases-file"),
    entry(Tool, Used, OptionalText, "compress"),
    entry(Tool, Tuning, Number, "compress-threads"),
    entry(Tool, Used, Number, "compress-chunk-size"),
    entry(Tool, Used, Switch, "galera-info"),
    entry(Tool, Used, Switch, "slave-info"),
    entry(Tool, Used, OptionalWord(BINLOG_INFO), "binlog-info"),
    entry(Server, Used, Text, "rocksdb-datadir"),
    // The server's alone, where the stock tool forgets it.
    entry(Server, Used, Text, "rocksdb-wal-dir"),
    entry(Server, Used, SwitchOn, "rocksdb-backup"),
    entry(Tool, Used, OptionalNumber, "innodb-force-recovery"),
    // Locking and waiting.
    entry(Tool, Used, Number, "startup-wait-timeout"),
    entry(Tool, Used, Number, "ftwrl-wait-timeout"),
    entry(Tool, Used, Switch, "no-lock"),
    entry(Server, Tuning, Switch, "lock-ddl-per-table"),
    entry(Tool, Used, Switch, "safe-slave-backup"),
    entry(Tool, Used, Number, "safe-slave-backup-timeout"),
    entry(Tool, Tuning, Number, "ftwrl-wait-threshold"),
    entry(Tool, Tuning, Word(QUERY_TYPES), "ftwrl-wait-query-type"),
    entry(Tool, Tuning, Number, "kill-long-queries-timeout"),
    entry(Tool, Tuning, Word(QUERY_TYPES), "kill-long-query-type"),
    entry(Tool, Tuning, Switch, "no-backup-locks"),
    entry(Tool, Tuning, Switch, "rsync"),
    entry(Tool, Harmless, Switch, "no-version-check"),
    // Connection.
    letter('u', entry(Client, Used, Text, "user")),
    letter('p', entry(Client, Used, Text, "password")),
    letter('H', entry(Client, Used, Text, "host")),
    letter('P', entry(Client, Used, Number, "port")),
    letter('S', entry(Client, Used, Text, "socket")),
    entry(Client, Used, Word(PROTOCOLS), "protocol"),
    entry(Client, Used, Switch, "ssl"),
    entry(Client, Used, Text, "ssl-ca"),
    entry(Client, Used, Text, "ssl-cert"),
    entry(Client, Used, Text, "ssl-key"),
    entry(Client, Used, Switch, "ssl-verify-server-cert"),
    entry(Client, Used, Text, "ssl-capath"),
    entry(Client, Used, Text, "ssl-cipher"),
    entry(Client, Used, Text, "ssl-crl"),
    entry(Client, Used, Text, "ssl-crlpath"),
    entry(Client, Used, Text, "ssl-fp"),
    entry(Client, Used, Text, "ssl-fplist"),
    entry(Client, Used, Text, "tls-version"),
    entry(Client, Used, Text, "login-path"),
    entry(Client, Harmless, SwitchOn, "secure-auth"),
    // Of the older grammar alone.
    entry(Older, Used, Text, "include"),
    entry(Older, Used, Switch, "incremental"),
    entry(Older, Used, Switch, "no-timestamp"),
    // Options of the server that name places.
    letter('h', entry(Server, Used, Text, "datadir")),
    letter('t', entry(Server, Used, Text, "tmpdir")),
    entry(Server, Used, Text, "innodb-data-home-dir"),
    entry(Server, Used, Text, "innodb-data-file-path"),
    entry(Server, Used, Text, "innodb-undo-directory"),
    entry(Server, Used, Text, "innodb-log-group-home-dir"),
    entry(Server, Used, Text, "aria-log-dir-path"),
    entry(Server, Used, Text, "defaults-group"),
    // Options of the server's encryption plugins.
    entry(Server, Used, Text, "file-key-management-filename"),
    entry(Server, Used, Text, "file-key-management-filekey"),
    entry(Server, Used, Text, "file-key-management-encryption-algorithm"),
    entry(Server, Used, Text, "hashicorp-key-management-vault-url"),
    entry(Server, Used, Text, "hashicorp-key-management-token"),
    entry(Server, Used, Text, "hashicorp-key-management-vault-ca"),
    entry(Server, Used, Text, "hashicorp-key-management-timeout"),
    entry(Server, Used, Text, "hashicorp-key-management-max-retries"),
    entry(Server, Harmless, Text, "plugin-load"),
    entry(Server, Harmless, Text, "plugin-load-add"),
    // Options that tune what has no counterpart here.
    entry(Server, Tuning, OptionalText, "log"),
    entry(Server, Harmless, OptionalText, "log-bin"),
    entry(Server, Tuning, OptionalText, "innodb"),
    entry(Server, Tuning, Text, "plugin-dir"),
    entry(Server, Tuning, Number, "open-files-limit"),
    entry(Server, Tuning, SwitchOn, "check-privileges"),
    entry(Server, Used, Switch, "extended-validation"),
    entry(Server, Tuning, SwitchOn, "encrypted-backup"),
    entry(Tool, Tuning, Switch, "core-file"),
    entry(Tool, Tuning, Switch, "close-files"),
    entry(Tool, Tuning, Number, "log-copy-interval"),
    entry(Tool, Used, Switch, "innodb-log-checkpoint-now"),
    entry(Server, Tuning, Switch, "innodb-adaptive-hash-index"),
    entry(Server, Tuning, Number, "innodb-autoextend-increment"),
    entry(Server, Tuning, Text, "innodb-buffer-pool-filename"),
    entry(Server, Tuning, Number, "innodb-buffer-pool-size"),
    entry(Server, Tuning, Text, "innodb-checksum-algorithm"),
    entry(Server, Tuning, Number, "innodb-compression-level"),
    entry(Server, Tuning, Switch, "innodb-data-file-buffering"),
    entry(Server, Tuning, Switch, "innodb-data-file-write-through"),
    entry(Server, Tuning, OptionalText, "innodb-doublewrite"),
    entry(Server, Tuning, Number, "innodb-file-io-threads"),
    entry(Server, Tuning, Switch, "innodb-file-per-table"),
    entry(Server, Tuning, Word(FLUSH_METHODS), "innodb-flush-method"),
    entry(Server, Tuning, OptionalText, "innodb-io-capacity"),
    entry(Server, Tuning, Text, "innodb-linux-aio"),
    entry(Server, Tuning, Number, "innodb-log-buffer-size"),
    entry(Server, Tuning, SwitchOn, "innodb-log-file-buffering"),
    entry(Server, Tuning, Switch, "innodb-log-file-mmap"),
    entry(Server, Tuning, Number, "innodb-log-file-size"),
    entry(Server, Tuning, Number, "innodb-log-files-in-group"),
    entry(Server, Tuning, Number, "innodb-log-write-ahead-size"),
    entry(Server, Tuning, Text, "innodb-max-dirty-pages-pct"),
    entry(Server, Tuning, Number, "innodb-page-size"),
    entry(Server, Tuning, Number, "innodb-read-io-threads"),
    entry(Server, Tuning, Number, "innodb-undo-tablespaces"),
    entry(Server, Tuning, SwitchOn, "innodb-use-native-aio"),
    entry(Server, Tuning, Number, "innodb-write-io-threads"),
];

/// The option of this name; dashes and underscores are equal.
pub fn find(name: &str) -> Option<&'static Entry> {
    let name = name.replace('_', "-");
    TABLE.iter().find(|entry| entry.name == name)
}

/// The option of this letter.
pub fn find_letter(letter: char) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.short == Some(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_letters_are_unique() {
        for (index, entry) in TABLE.iter().enumerate() {
            assert_eq!(find(entry.name), Some(entry), "{}", entry.name);
            assert!(TABLE[..index].iter().all(|other| other.name != entry.name), "{}", entry.name);
            if let Some(short) = entry.short {
                assert_eq!(find_letter(short), Some(entry), "{}", entry.name);
            }
        }
        assert_eq!(find("target_dir").map(|entry| entry.name), Some("target-dir"));
        // In the stock tool -h is the data directory and not the host.
        assert_eq!(find_letter('h').map(|entry| entry.name), Some("datadir"));
    }
}
