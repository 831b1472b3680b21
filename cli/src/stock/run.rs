//! From settings to operations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::Lsn;
use engine::capture::{self, BackupOptions, BackupSummary, BinlogNote, Extras, HistoryKey, Target};
use engine::delta::Base;
use engine::keys::KeySettings;
use engine::keys::settings::SERVER_GROUPS;
use engine::metadata::Checkpoints;
use engine::prepare::{self, PrepareOptions};
use engine::qpress::{self, UnpackOptions};
use engine::restore::{self, Mode, RestoreOptions};
use engine::server::connect::{self, CLIENT_GROUPS};
use engine::server::option_file::OptionFiles;
use engine::server::{ConnectOptions, Protocol, TlsOptions};
use engine::{Cancel, Error, ErrorKind, Result};

use super::log::{self, StockLog};
use super::settings::{Settings, TOOL_GROUPS};
use super::value::Refusal;
use super::{Ended, failed};
use crate::commands::keys::from_environment;
use crate::commands::needs_words;
use crate::{machine, signals, streams};

/// Where the stock tool puts a backup unless told otherwise.
const TARGET_DIR: &str = "./xtrabackup_backupfiles";

/// What one operation of the stock tool's `--throttle` moves: its read buffer.
const THROTTLE_UNIT: u64 = 10 << 20;

/// How long to wait for each lock unless told otherwise. The stock tool would wait forever.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// How long replication may take to have no temporary tables, in seconds.
const SAFE_SLAVE_TIMEOUT: u64 = 300;

/// How the tool was started, for the info file.
pub struct Invocation {
    /// The program's name.
    pub tool_name: String,
    /// Its arguments, without secrets.
    pub command: String,
    /// Whether these are in the older grammar.
    pub older: bool,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Backup,
    Prepare,
    CopyBack,
    MoveBack,
    Decompress,
}

/// Does the one thing that the settings ask for.
pub fn run(
    settings: &Settings,
    files: &OptionFiles,
    keys: KeySettings,
    invocation: Invocation,
) -> std::result::Result<(), Ended> {
    let older = invocation.older;
    let action = action(settings)?;
    if let Some(format) = settings.text("stream") {
        if !matches!(format, "xbstream" | "mbstream") {
            return Err(failed(format!("Invalid --stream argument: {format}")).into());
        }
        if action != Action::Backup {
            log::line(0, "Warning: --stream has no effect without --backup");
        }
    }
    check_write_ahead(settings)?;
    let force = force_recovery(settings);
    if action == Action::Backup && force.is_some_and(|level| level > 0) {
        let message = match older {
            true => {
                "The option \"innodb_force_recovery\" should only be used with \"--apply-log\"."
            }
            false => "The option \"innodb_force_recovery\" should only be used with \"--prepare\".",
        };
        return Err(failed(message.to_owned()).into());
    }
    let cancel = signals::listen()?;
    let done = match action {
        Action::Backup => backup(settings, files, keys, invocation, &cancel),
        Action::Prepare => make_consistent(settings, keys, &cancel),
        Action::CopyBack => put_back(settings, Mode::Copy, &cancel),
        Action::MoveBack => put_back(settings, Mode::Move, &cancel),
        Action::Decompress => return decompress(settings, &cancel),
    };
    Ok(done.map_err(|error| signals::blame(error, &cancel))?)
}

/// A size of which there is none is refused, although nothing here depends on it.
fn check_write_ahead(settings: &Settings) -> std::result::Result<(), Ended> {
    let Some(asked) = settings.number("innodb-log-write-ahead-size") else { return Ok(()) };
    let size = asked.clamp(512, 4096) / 512 * 512;
    if size.is_power_of_two() {
        return Ok(());
    }
    Err(failed(format!("innodb_log_write_ahead_size={asked} is not a power of two")).into())
}

/// The level of `--innodb-force-recovery`, where it is said.
fn force_recovery(settings: &Settings) -> Option<u64> {
    let bare = settings.given("innodb-force-recovery").then_some(1);
    settings.number("innodb-force-recovery").or(bare)
}

/// The one action that was asked for.
fn action(settings: &Settings) -> std::result::Result<Action, Ended> {
    let asked: Vec<_> = [
        (Action::CopyBack, "copy-back"),
        (Action::MoveBack, "move-back"),
        (Action::Prepare, "prepare"),
        (Action::Prepare, "apply-log"),
        (Action::Decompress, "decompress"),
        (Action::Backup, "backup"),
    ]
    .into_iter()
    .filter(|(_, name)| settings.switch(name))
    .collect();
    match asked.as_slice() {
        [(action, _)] | [(action @ Action::Prepare, _), (Action::Prepare, _)] => Ok(*action),
        [(_, first), (second, name), ..] if *second != Action::Backup => {
            let message = format!("Error: --{first} and --{name} are mutually exclusive");
            Err(failed(message).into())
        }
        _ => Err(Ended::Unclear),
    }
}

/// `--backup`.
fn backup(
    settings: &Settings,
    files: &OptionFiles,
    keys: KeySettings,
    invocation: Invocation,
    cancel: &Cancel,
) -> Result<()> {
    let streams = settings.text("stream").is_some();
    let target = match streams {
        true => Target::Stream(streams::to_stdout()?),
        false => {
            // Scripts remove it, also after a backup that failed before it wrote anything.
            let dir = target_dir(settings);
            if !dir.exists() {
                std::fs::create_dir(&dir).map_err(|e| Error::io("create", &dir, e))?;
            }
            Target::Folder(dir)
        }
    };
    let wait = settings.number("startup-wait-timeout").filter(|seconds| *seconds > 0);
    let wait = wait.or_else(|| settings.number("ftwrl-wait-timeout").filter(|s| *s > 0));
    let throttle = settings.number("throttle").filter(|operations| *operations > 0);
    let options = BackupOptions {
        connect: connection(settings, files)?,
        target,
        datadir: settings.path("datadir"),
        parallel: threads(settings).unwrap_or(1),
        throttle: throttle.map(|operations| operations.saturating_mul(THROTTLE_UNIT)),
        lock_timeout: wait.map_or(LOCK_TIMEOUT, Duration::from_secs),
        continue_on_corrupt_pages: settings.switch("log-innodb-page-corruption"),
        io_mode: engine::io::IoMode::Auto,
        keys,
        deep_check: settings.switch("extended-validation"),
        rocksdb: settings.switch("rocksdb-backup"),
        tables: super::tables::filter(settings)?,
        // The stock tool takes a list here; the first will do.
        spool_dir: settings
            .text("tmpdir")
            .and_then(|list| list.split(':').find(|dir| !dir.is_empty()))
            .map(PathBuf::from),
        tool_name: invocation.tool_name,
        tool_command: invocation.command,
        base: base(settings)?,
        base_in_history: base_in_history(settings)?,
        history: settings
            .given("history")
            .then(|| settings.text("history").unwrap_or_default().to_string()),
        extras: extras(settings)?,
        extra_lsn_dir: settings.path("extra-lsndir"),
        qpress_block: qpress_block(settings)?,
    };
    if let Some(base) = options.base {
        log::line(0, &format!("incremental backup from {} is enabled.", base.lsn));
    }
    let summary = capture::backup(options, cancel, &StockLog)?;
    let dir = (!streams).then(|| target_dir(settings));
    for text in describe(&summary, dir.as_deref()) {
        log::line(0, &text);
    }
    Ok(())
}

/// The size of the blocks that files are compressed in one by one, if they are to be.
fn qpress_block(settings: &Settings) -> Result<Option<usize>> {
    if !settings.given("compress") {
        return Ok(None);
    }
    if let Some(other) = settings.text("compress").filter(|text| *text != "quicklz") {
        let message = format!("Invalid --compress argument: {other}");
        return Err(Error::new(ErrorKind::Usage, message)
            .advise("there is quicklz; repositories (haulout backup --repo) compress better"));
    }
    let size = settings.number("compress-chunk-size").unwrap_or(qpress::BLOCK_SIZE as u64);
    let size = usize::try_from(size).ok().filter(|size| qpress::BLOCK_SIZES.contains(size));
    Ok(Some(size.ok_or_else(|| {
        let (least, most) = (qpress::BLOCK_SIZES.start(), qpress::BLOCK_SIZES.end());
        let message = format!("--compress-chunk-size must be from {least} to {most}");
        Error::new(ErrorKind::Usage, message)
    })?))
}

/// What the server's table of backups says an incremental backup is relative to.
fn base_in_history(settings: &Settings) -> Result<Option<HistoryKey>> {
    let text = |name| settings.text(name).map(str::to_string);
    match (text("incremental-history-name"), text("incremental-history-uuid")) {
        (Some(_), Some(_)) => Err(Error::new(
            ErrorKind::Usage,
            "--incremental-history-name and --incremental-history-uuid are mutually exclusive",
        )),
        (Some(name), None) => Ok(Some(HistoryKey::Name(name))),
        (None, uuid) => Ok(uuid.map(HistoryKey::Uuid)),
    }
}

/// What is noted of the server, and done to it, besides.
fn extras(settings: &Settings) -> Result<Extras> {
    let holds = settings.switch("safe-slave-backup");
    let timeout = settings.number("safe-slave-backup-timeout").unwrap_or(SAFE_SLAVE_TIMEOUT);
    let extras = Extras {
        replica_info: settings.switch("slave-info"),
        galera_info: settings.switch("galera-info"),
        hold_replication: holds.then(|| Duration::from_secs(timeout)),
        checkpoint_first: settings.switch("innodb-log-checkpoint-now"),
        without_locks: settings.switch("no-lock"),
        binlog_note: match settings.text("binlog-info") {
            Some("off") => BinlogNote::LeftOut,
            Some("lockless") => BinlogNote::ByPrepare,
            _ => BinlogNote::Written,
        },
    };
    if extras.without_locks && extras.replica_info && !holds {
        return Err(Error::new(
            ErrorKind::Usage,
            "--slave-info is used with --no-lock but without --safe-slave-backup. The binlog \
             position cannot be consistent with the backup data.",
        ));
    }
    Ok(extras)
}

/// What an incremental backup is relative to.
fn base(settings: &Settings) -> Result<Option<Base>> {
    if let Some(text) = settings.text("incremental-lsn") {
        let lsn = text.parse().map_err(|_| {
            let message = format!("value '{text}' may be wrong format for incremental option.");
            Error::new(ErrorKind::Usage, message)
        })?;
        return Ok(Some(Base::at(Lsn(lsn))));
    }
    settings.path("incremental-basedir").map(|dir| Base::of(&dir)).transpose()
}

/// The facts of a backup, in the words that scripts search for.
fn describe(summary: &BackupSummary, dir: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(pages) = summary.changed_pages {
        lines.push(format!("{pages} changed pages were copied."));
    }
    if let Some(dir) = dir {
        lines.push(format!("Backup created in directory '{}/'", dir.display()));
    }
    if let (Some(file), Some(position)) = (&summary.binlog_file, summary.binlog_position) {
        let gtid = summary.gtid.as_deref().unwrap_or_default();
        lines.push(format!(
            "MySQL binlog position: filename '{file}', position '{position}', \
             GTID of the last change '{gtid}'"
        ));
    }
    lines.extend(
        summary.replica.as_ref().map(|text| format!("MySQL slave binlog position: {text}")),
    );
    lines.push(format!(
        "Redo log (from LSN {} to {}) was copied.",
        summary.start_lsn, summary.end_lsn
    ));
    lines.push(format!(
        "Commits were blocked for {:.3} s, DDL for {:.3} s",
        summary.commit_blocked_seconds, summary.ddl_blocked_seconds
    ));
    if let Some(rocksdb) = summary.rocksdb {
        lines.push(format!("{} files of rocksdb were copied.", rocksdb.files));
    }
    lines.extend(needs_words(&summary.tables));
    if summary.corrupt_pages > 0 {
        lines.push(
            "Error: corrupted innodb pages are found and logged to innodb_corrupted_pages file"
                .to_string(),
        );
    }
    lines
}

/// `--prepare`.
fn make_consistent(settings: &Settings, keys: KeySettings, cancel: &Cancel) -> Result<()> {
    let memory = settings.number("use-memory").unwrap_or_else(|| machine::default_memory().0);
    let options = PrepareOptions {
        dir: target_dir(settings),
        deltas: settings.path("incremental-dir").into_iter().collect(),
        memory,
        parallel: threads(settings).unwrap_or_else(machine::default_threads),
        keys,
        export: settings.switch("export"),
        leave_damaged_pages: force_recovery(settings).map(|level| level > 0),
    };
    let summary = prepare::prepare(options, cancel, &StockLog)?;
    log::line(0, &format!("The backup equals the server at LSN {}", summary.end_lsn));
    if let Some(dir) = settings.path("extra-lsndir") {
        let (checkpoints, naming) = Checkpoints::read(&target_dir(settings))?;
        std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        checkpoints.write(&dir, naming)?;
    }
    if let Some(export) = &summary.export {
        log::line(0, &format!("Exported {} tables", export.tables));
    }
    Ok(())
}

/// `--decompress`. Its messages are those of the stock tool, to the empty lines between them.
fn decompress(settings: &Settings, cancel: &Cancel) -> std::result::Result<(), Ended> {
    let options = UnpackOptions {
        dir: target_dir(settings),
        parallel: threads(settings).unwrap_or(1),
        remove_packed: settings.switch("remove-original"),
    };
    let summary = match qpress::unpack(options, cancel, &StockLog) {
        Ok(summary) => summary,
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            return Err(signals::blame(error, cancel).into());
        }
        // Which one it is stands in the line before, if there is one thread.
        Err(error) if error.to_string().ends_with(qpress::INVALID_NAME) => {
            if threads(settings).is_some_and(|threads| threads > 1) {
                log::line(0, &format!("{error}\n"));
            }
            log::line(0, &format!("Error: {}\n", qpress::INVALID_NAME));
            log::line(0, "Error: thread 0 failed.");
            return Err(Ended::Told);
        }
        Err(error) => {
            log::line(0, &format!("Error: {error}\n"));
            if let Some(advice) = error.advice() {
                log::line(0, &format!("Hint: {advice}"));
            }
            log::line(0, "Error: thread 0 failed.");
            return Err(Ended::Told);
        }
    };
    log::line(0, &format!("{} files were decompressed", summary.files));
    Ok(())
}

/// Where encryption keys are: option files of the server and of the tool, with the command line on
/// top. Secrets among the arguments are refused, because every user of the machine can see them.
pub fn keys(settings: &Settings, files: &OptionFiles) -> std::result::Result<KeySettings, Refusal> {
    let password = settings.typed_text("file-key-management-filekey");
    for (name, exposed) in [
        ("file-key-management-filekey", password.is_some_and(|text| !text.starts_with("FILE:"))),
        (
            "hashicorp-key-management-token",
            settings.typed_text("hashicorp-key-management-token").is_some(),
        ),
    ] {
        if exposed {
            let message = format!(
                "--{name} would show a secret to every user of this machine: put it into a file"
            );
            return Err(failed(message));
        }
    }
    let groups: Vec<&str> = SERVER_GROUPS.iter().chain(TOOL_GROUPS).copied().collect();
    let files = KeySettings::from_option_files(files, &groups);
    let typed = KeySettings::from_pairs(settings.typed_texts());
    Ok(files.overlaid_with(from_environment()).overlaid_with(typed))
}

/// `--copy-back` and `--move-back`.
fn put_back(settings: &Settings, mode: Mode, cancel: &Cancel) -> Result<()> {
    let datadir = settings.path("datadir").ok_or_else(|| {
        Error::new(ErrorKind::Usage, "Please set parameter 'datadir'")
            .advise("give --datadir, or datadir in group [mysqld] of an option file")
    })?;
    let options = RestoreOptions {
        source: target_dir(settings),
        datadir,
        mode,
        parallel: threads(settings).unwrap_or_else(machine::default_threads),
        owner: None,
        force_non_empty: settings.switch("force-non-empty-directories"),
        innodb_data_home_dir: settings.path("innodb-data-home-dir"),
        innodb_undo_directory: settings.path("innodb-undo-directory"),
        innodb_log_group_home_dir: settings.path("innodb-log-group-home-dir"),
        aria_log_dir_path: settings.path("aria-log-dir-path"),
        rocksdb_datadir: settings.path("rocksdb-datadir"),
        rocksdb_wal_dir: settings.path("rocksdb-wal-dir"),
        innodb_data_file_path: settings.text("innodb-data-file-path").map(str::to_string),
    };
    let summary = restore::restore(options, cancel, &StockLog)?;
    for text in needs_words(&summary.tables) {
        log::line(0, &text);
    }
    Ok(())
}

/// How to reach the server: its option files, with the command line on top.
fn connection(settings: &Settings, files: &OptionFiles) -> Result<ConnectOptions> {
    let path = |name| settings.typed_text(name).map(PathBuf::from);
    let text = |name| settings.typed_text(name).map(str::to_string);
    let port = settings.typed_number("port").filter(|port| *port > 0);
    let mut tls = TlsOptions {
        enabled: settings.typed_switch("ssl") == Some(true),
        verify: settings.typed_switch("ssl-verify-server-cert") == Some(true),
        ..TlsOptions::default()
    };
    for name in TlsOptions::TEXTS {
        tls.set(name, settings.typed_text(name).unwrap_or_default());
    }
    let typed = ConnectOptions {
        host: text("host"),
        port: port
            .map(u16::try_from)
            .transpose()
            .map_err(|_| Error::new(ErrorKind::Usage, "the port is above 65535"))?,
        socket: path("socket"),
        protocol: match settings.typed_text("protocol") {
            None => None,
            Some("tcp") => Some(Protocol::Tcp),
            Some("socket") => Some(Protocol::Socket),
            Some(other) => {
                let message = format!("there is no protocol '{other}' on this system");
                return Err(Error::new(ErrorKind::Usage, message));
            }
        },
        user: text("user"),
        password: text("password"),
        tls,
        ..ConnectOptions::default()
    };
    let named = settings.typed_text("login-path");
    let clients: Vec<&str> = CLIENT_GROUPS.iter().copied().chain(named).collect();
    let groups = [clients.as_slice(), connect::TOOL_GROUPS];
    let weaker = ConnectOptions::from_groups(files, &groups, &|name| std::env::var(name).ok())?;
    let mut connect = weaker.overlaid_with(typed);
    // Unless something that asks for it comes later, as with the stock tool.
    let last = settings.typed_last(|name| name == "ssl" || TlsOptions::asks(name));
    if last == Some("ssl") && settings.typed_switch("ssl") == Some(false) {
        connect.tls = TlsOptions::default();
    }
    Ok(connect)
}

fn target_dir(settings: &Settings) -> PathBuf {
    settings.path("target-dir").unwrap_or_else(|| PathBuf::from(TARGET_DIR))
}

/// The number of threads that was asked for; 0 means 1.
fn threads(settings: &Settings) -> Option<usize> {
    let number = settings.number("parallel")?;
    Some(usize::try_from(number).unwrap_or(usize::MAX).clamp(1, 1024))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::parse::arguments;
    use super::*;

    fn settings(line: &str) -> Settings {
        let line: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        Settings::typed(arguments(&line).unwrap().given)
    }

    #[test]
    fn the_connection_is_as_typed_over_the_option_files() {
        let text = "[client]\nuser=a\nssl-capath=/weak\n[mine]\nuser=m\n[mariabackup]\nssl_fp=f\n";
        let files = OptionFiles::from_text(text).unwrap();
        let of = |line: &str| connection(&settings(line), &files).unwrap();
        let plain = of("");
        assert_eq!(
            (plain.user.as_deref(), plain.tls.fingerprint.as_deref()),
            (Some("a"), Some("f"))
        );
        assert_eq!(of("--login-path=mine").user.as_deref(), Some("m"));
        assert_eq!(of("--login-path=mine --user=t").user.as_deref(), Some("t"));
        for name in TlsOptions::TEXTS {
            let mut expected = plain.tls.clone();
            expected.set(name, "/typed");
            assert_eq!(of(&format!("--{name}=/typed")).tls, expected, "{name}");
        }
        assert_eq!(of("--ssl-ca=/x --skip-ssl").tls, TlsOptions::default());
        assert_eq!(of("--skip-ssl --ssl-ca=/x").tls.ca, Some("/x".into()));
    }

    #[test]
    fn exactly_one_action() {
        let action = |line| match action(&settings(line)) {
            Ok(action) => format!("{action:?}"),
            Err(Ended::Unclear) => "help".to_string(),
            Err(Ended::Refused(refusal)) => refusal.message,
            Err(Ended::Failed(error)) => error.to_string(),
            Err(Ended::Told) => "told".to_string(),
        };
        let exclusive = "Error: --copy-back and --move-back are mutually exclusive";
        for (line, result) in [
            ("--backup", "Backup"),
            ("--prepare", "Prepare"),
            ("--apply-log", "Prepare"),
            ("--prepare --apply-log", "Prepare"),
            ("--copy-back", "CopyBack"),
            ("--decompress --remove-original", "Decompress"),
            ("--move-back", "MoveBack"),
            ("", "help"),
            ("--backup --skip-backup", "help"),
            ("--backup --prepare", "help"),
            ("--copy-back --move-back", exclusive),
        ] {
            assert_eq!(action(line), result, "{line}");
        }
    }

    #[test]
    fn connection_arguments_lie_over_option_files() {
        let text = "[client]\nuser=a\npassword=b\nsocket=/s\n[mariadb-backup]\nuser=c\nssl=1\n";
        let files = OptionFiles::from_text(text).unwrap();
        let connect = connection(&settings("-H db1 -P 3307 --skip-ssl"), &files).unwrap();
        assert_eq!(connect.user.as_deref(), Some("c"));
        assert_eq!((connect.host.as_deref(), connect.port), (Some("db1"), Some(3307)));
        assert_eq!((connect.socket, connect.tls.enabled), (None, false));
        assert!(connection(&settings("-P 70000"), &files).is_err());
        assert!(connection(&settings("--protocol=pipe"), &files).is_err());
    }

    #[test]
    fn a_put_back_without_datadir_is_refused() {
        let error = put_back(&settings("--copy-back"), Mode::Copy, &Cancel::new()).unwrap_err();
        assert_eq!(error.to_string(), "Please set parameter 'datadir'");
    }

    #[test]
    fn threads_are_at_least_one() {
        for (line, count) in [("", None), ("--parallel=0", Some(1)), ("--parallel=9T", Some(1024))]
        {
            assert_eq!(threads(&settings(line)), count, "{line}");
        }
    }
}
