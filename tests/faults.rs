//! Each fault gives its own error and exit code, and leaves nothing that looks finished.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use common::exit;
use harness::load::{Load, LoadOptions};
use harness::process::{self, Finished, run, run_into};
use harness::tool::BackupOptions;
use harness::{Generation, Result, Scratch, Server, ServerOptions, Tool};
use rustix::process::Signal;

/// A server with a table of some megabytes.
fn server_with(options: ServerOptions) -> Result<Server> {
    let server = options.arg("--innodb-stats-auto-recalc=OFF").start()?;
    server.run("CREATE DATABASE d")?;
    server.run("CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")?;
    server.run("INSERT INTO d.t SELECT seq, REPEAT(MD5(seq), 30) FROM d.seq_1_to_8000")?;
    Ok(server)
}

fn server() -> Result<Server> {
    server_with(ServerOptions::default())
}

fn backup(server: &Server, target: &Path) -> Result<Finished> {
    run(common::haulout().backup(server, target, &BackupOptions::default()))
}

/// A prepared backup of a small server.
fn prepared(scratch: &Scratch) -> Result<std::path::PathBuf> {
    let dir = scratch.join("backup");
    let server = server()?;
    common::haulout().run_backup(&server, &dir)?;
    common::haulout().run_prepare(&dir)?;
    Ok(dir)
}

#[test]
fn a_full_disk_fails_the_stream() {
    common::ok((|| -> Result<()> {
        let server = server()?;
        let command = common::haulout().backup_stream(&server, &BackupOptions::default());
        let finished = run_into(command, OpenOptions::new().write(true).open("/dev/full")?)?;
        common::assert_failed(&finished, exit::FAILED, &["no space left"]);
        Ok(())
    })());
}

#[test]
fn a_reader_that_goes_away_fails_the_stream() {
    common::ok((|| -> Result<()> {
        let server = server()?;
        let command = common::haulout().backup_stream(&server, &BackupOptions::default());
        let mut head = Command::new("head")
            .args(["-c", "100000"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()?;
        let pipe = head.stdin.take().context("no pipe")?;
        let finished = run_into(command, pipe)?;
        head.wait()?;
        common::assert_failed(&finished, exit::FAILED, &["pipe"]);
        Ok(())
    })());
}

/// Runs a command in which no file may grow beyond a limit, which is what a full disk looks
/// like to a process and needs no rights. The signal that comes with it is ignored.
fn with_file_limit(command: &Command, bytes: u64) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; exec prlimit --fsize=\"$0\" \"$@\"", &bytes.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn a_target_that_cannot_hold_the_backup_fails_it() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let target = scratch.join("backup");
        let server = server()?;
        let command = common::haulout().backup(&server, &target, &BackupOptions::default());
        let finished = run(with_file_limit(&command, 4 << 20))?;
        common::assert_failed(&finished, exit::FAILED, &["too large"]);
        common::assert_no_backup(&target);
        server.run("CREATE TABLE d.after (a INT)")
    })());
}

/// The same with a file system that is really full, where the rights to mount one exist.
#[test]
fn a_full_disk_fails_the_backup() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let mount = scratch.join("small");
        std::fs::create_dir(&mount)?;
        let target = mount.join("backup");
        let server = server()?;
        let command = common::haulout().backup(&server, &target, &BackupOptions::default());
        // In a mount namespace of its own the file system goes away with the last process.
        let script = "mount -t tmpfs -o size=16m tmpfs \"$0\" || exit 99; dir=$0; \"$@\"; code=$?; \
                      ls \"$dir/backup\" | sed 's/^/left: /' >&2; exit $code";
        let mut full = Command::new("unshare");
        full.args(["--mount", "sh", "-c", script]).arg(&mount);
        full.arg(command.get_program()).args(command.get_args());
        let finished = run(full)?;
        if finished.code() == Some(99) || finished.stderr.contains("unshare failed") {
            eprintln!("skipped: no right to mount a file system");
            return Ok(());
        }
        common::assert_failed(&finished, exit::FAILED, &["no space left"]);
        assert!(!finished.stderr.contains("left: xtrabackup_checkpoints"), "{}", finished.report());
        Ok(())
    })());
}

#[test]
fn redo_that_was_overwritten_is_a_gap() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let target = scratch.join("backup");
        let small_log = ServerOptions { log_file_size: 4 << 20, ..ServerOptions::default() };
        let server = server_with(small_log)?;
        let load = Load::start(&server, &LoadOptions { ddl: false, ..LoadOptions::new(501) })?;
        let slowly =
            BackupOptions { extra: vec!["--throttle=5MiB".to_owned()], ..Default::default() };
        let running = process::start(common::haulout().backup(&server, &target, &slowly), None)?;
        std::thread::sleep(Duration::from_millis(1500));
        running.signal(Signal::STOP)?;
        let mut client = server.client()?;
        let mut lsn = || -> Result<u64> {
            let row = client.text("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'")?;
            Ok(row.first().context("no Innodb_lsn_current")?[1].parse()?)
        };
        let stopped_at = lsn()?;
        while lsn()? < stopped_at + (12 << 20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        running.signal(Signal::CONT)?;
        let finished = running.wait(Duration::from_secs(60))?;
        load.stop()?;
        common::assert_failed(&finished, exit::GAP, &["lsn", "innodb_log_file_size"]);
        common::assert_no_backup(&target);
        Ok(())
    })());
}

/// Overwrites a piece of a page of a stopped server's table.
fn corrupt(file: &Path, page: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(file)?;
    file.write_all_at(&[0xa5; 64], page * (16 << 10) + 5000)?;
    Ok(())
}

#[test]
fn a_corrupt_page_is_named() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let target = scratch.join("backup");
        let mut server = server()?;
        server.stop()?;
        corrupt(&server.datadir().join("d/t.ibd"), 20)?;
        server.start()?;
        let finished = backup(&server, &target)?;
        common::assert_failed(&finished, exit::DAMAGE, &["d/t.ibd", "page", "20"]);
        common::assert_no_backup(&target);
        Ok(())
    })());
}

/// Pages that are bad for a moment and good the next, as torn pages are.
#[test]
fn a_torn_page_heals() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let mut server = server()?;
        server.stop()?;
        server.start()?;
        let table = server.datadir().join("d/t.ibd");
        let good = std::fs::read(&table)?;
        let mut torn_seen = 0;
        for attempt in 0..8 {
            let target = scratch.join(&format!("backup-{attempt}"));
            let mut command = common::haulout().backup(&server, &target, &BackupOptions::default());
            command.arg("--json");
            let running = process::start(command, None)?;
            // Each attempt heals a bit later, so that one of them is read while it is torn.
            let file = OpenOptions::new().write(true).open(&table)?;
            for page in 4..100u64 {
                file.write_all_at(&[0xa5; 64], page * (16 << 10) + 5000)?;
            }
            std::thread::sleep(Duration::from_millis(100 + 100 * attempt));
            file.write_all_at(&good[..100 * (16 << 10)], 0)?;
            let finished = running.wait(Duration::from_secs(60))?.success()?;
            let summary: serde_json::Value = serde_json::from_slice(&finished.stdout)?;
            torn_seen += summary["torn_pages"].as_u64().context("no torn_pages")?;
            if torn_seen > 0 {
                common::haulout().run_prepare(&target)?;
                break;
            }
        }
        assert!(torn_seen > 0, "no attempt read a torn page");
        Ok(())
    })());
}

#[test]
fn a_truncated_tablespace_is_named() {
    common::ok((|| -> Result<()> {
        if Generation::under_test() < Generation::V10_11 {
            eprintln!("servers of 10.5 abort at times when they look at such a file themselves");
            return Ok(());
        }
        let scratch = Scratch::new()?;
        let target = scratch.join("backup");
        let mut server = server()?;
        server.stop()?;
        let table = server.datadir().join("d/t.ibd");
        let length = std::fs::metadata(&table)?.len();
        OpenOptions::new().write(true).open(&table)?.set_len(length / 2 + 1000)?;
        server.start()?;
        let finished = backup(&server, &target)?;
        common::assert_failed(&finished, exit::DAMAGE, &["d/t.ibd"]);
        common::assert_no_backup(&target);
        Ok(())
    })());
}

#[test]
fn a_vanished_tablespace_is_named() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let target = scratch.join("backup");
        let server = server()?;
        std::fs::remove_file(server.datadir().join("d/t.ibd"))?;
        let finished = backup(&server, &target)?;
        common::assert_failed(&finished, exit::DAMAGE, &["vanished", "d/t.ibd"]);
        common::assert_no_backup(&target);
        Ok(())
    })());
}

#[test]
fn a_missing_privilege_is_named_before_anything_is_copied() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server()?;
        server.run("CREATE USER weak@localhost IDENTIFIED BY 'pass'")?;
        for (grant, missing) in [("SELECT", "RELOAD"), ("RELOAD", "PROCESS")] {
            server.run(&format!("GRANT {grant} ON *.* TO weak@localhost"))?;
            let target = scratch.join(grant);
            let options = BackupOptions {
                user: "weak".to_owned(),
                password: Some("pass".to_owned()),
                ..BackupOptions::default()
            };
            let finished = run(common::haulout().backup(&server, &target, &options))?;
            common::assert_failed(&finished, exit::SERVER, &[missing]);
            common::assert_no_backup(&target);
        }
        Ok(())
    })());
}

#[test]
fn a_server_that_refuses_or_is_not_there_is_said_so() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let target = scratch.join("backup");
        let mut server = server()?;
        let wrong =
            BackupOptions { password: Some("wrong".to_owned()), ..BackupOptions::default() };
        let finished = run(common::haulout().backup(&server, &target, &wrong))?;
        common::assert_failed(&finished, exit::SERVER, &["denied"]);
        assert!(!finished.stderr.contains("wrong"), "the password is in the output");
        server.stop()?;
        let finished = backup(&server, &target)?;
        common::assert_failed(&finished, exit::SERVER, &["sock"]);
        common::assert_no_backup(&target);
        Ok(())
    })());
}

#[test]
fn a_target_with_files_in_it_is_refused() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let target = scratch.join("backup");
        std::fs::create_dir(&target)?;
        std::fs::write(target.join("precious"), "data")?;
        let server = server()?;
        common::assert_failed(&backup(&server, &target)?, exit::USAGE, &["empty"]);
        assert_eq!(std::fs::read(target.join("precious"))?, b"data");
        Ok(())
    })());
}

#[test]
fn restore_refuses_a_data_directory_in_use() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let dir = prepared(&scratch)?;
        let server = server()?;
        let finished = run(common::haulout().restore(&dir, server.datadir()))?;
        common::assert_failed(&finished, exit::USAGE, &["a server is running"]);
        assert!(harness::compare::check_tables(&server)?.is_empty());
        Ok(())
    })());
}

#[test]
fn restore_refuses_what_is_not_prepared() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let (dir, datadir) = (scratch.join("backup"), scratch.join("datadir"));
        common::haulout().run_backup(&server()?, &dir)?;
        let finished = run(common::haulout().restore(&dir, &datadir))?;
        common::assert_failed(&finished, exit::DAMAGE, &["not prepared"]);
        assert!(!datadir.join("ibdata1").exists());
        Ok(())
    })());
}

/// A restore that fails must not leave a directory on which a server starts.
#[test]
fn a_failed_restore_keeps_a_server_from_starting() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let dir = prepared(&scratch)?;
        let datadir = scratch.join("datadir");
        let command = common::haulout().restore(&dir, &datadir);
        let finished = run(with_file_limit(&command, 4 << 20))?;
        common::assert_failed(&finished, exit::FAILED, &["too large"]);
        let started = ServerOptions::default().start_on(&datadir);
        assert!(started.is_err(), "a server started on half a data directory");
        Ok(())
    })());
}

#[test]
fn prepare_refuses_what_is_no_backup() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let missing = run(common::haulout().prepare(&scratch.join("nowhere"), 64 << 20))?;
        common::assert_failed(&missing, exit::FAILED, &["nowhere"]);
        let empty = run(common::haulout().prepare(scratch.path(), 64 << 20))?;
        common::assert_failed(&empty, exit::DAMAGE, &["checkpoints"]);
        Ok(())
    })());
}

#[test]
fn prepare_names_damage_in_a_backup() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server()?;
        let raw = scratch.join("raw");
        common::haulout().run_backup(&server, &raw)?;

        let no_log = scratch.join("no-log");
        harness::scratch::copy_tree(&raw, &no_log)?;
        std::fs::remove_file(no_log.join("ib_logfile0"))?;
        let finished = run(common::haulout().prepare(&no_log, 64 << 20))?;
        common::assert_failed(&finished, exit::DAMAGE, &["ib_logfile0"]);

        let cut_log = scratch.join("cut-log");
        harness::scratch::copy_tree(&raw, &cut_log)?;
        let log = OpenOptions::new().write(true).open(cut_log.join("ib_logfile0"))?;
        log.set_len(12288)?;
        let finished = run(common::haulout().prepare(&cut_log, 64 << 20))?;
        assert!(matches!(finished.code(), Some(exit::DAMAGE | exit::GAP)), "{}", finished.report());
        Ok(())
    })());
}

/// A damaged page that redo changes ends a prepare, unless it is to be left as it is.
#[test]
fn prepare_leaves_damage_where_it_is_told_to() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server()?;
        // Redo changes the page, and does not make it anew.
        server.checkpoint()?;
        server.run("UPDATE d.t SET b = REVERSE(b)")?;
        let raw = scratch.join("raw");
        common::haulout().run_backup(&server, &raw)?;
        let file = ["d/t.ibd", "d/t.new"].map(|name| raw.join(name));
        let file = file.iter().find(|file| file.exists()).expect("the table was copied");
        corrupt(file, 20)?;
        let finished = run(common::haulout().prepare(&raw, 64 << 20))?;
        common::assert_failed(&finished, exit::DAMAGE, &["d/t.ibd", "page", "20"]);
        let tool = Tool::links(Path::new(env!("CARGO_BIN_EXE_haulout")), scratch.path())?;
        let mut command = tool.prepare(&raw, 64 << 20);
        command.arg("--innodb-force-recovery=6");
        let told = tool.checked(command)?.stderr;
        assert!(told.contains("innodb_force_recovery = 1"), "{told}");
        assert!(told.contains("left as it is"), "{told}");
        Ok(())
    })());
}

#[test]
fn wrong_options_are_usage_errors() {
    common::ok((|| -> Result<()> {
        let harness::Tool::Haulout(program) = common::haulout() else { unreachable!() };
        for words in [
            &["backup"][..],
            &["backup", "--target-dir=/tmp/x", "--stream"],
            &["backup", "--bogus"],
            &["prepare"],
            &["restore", "/tmp"],
            &["extract"],
            &["prepare", "/tmp", "--memory=lots"],
            &["bogus"],
        ] {
            let mut command = Command::new(&program);
            command.args(words);
            let finished = run(command)?;
            assert_eq!(finished.code(), Some(exit::USAGE), "{words:?}: {}", finished.report());
        }
        Ok(())
    })());
}
