//! The command lines that users of WAL-G configure, run as it runs them: by a shell, with what it adds
//! behind them, as the programs under the names that they are called by.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use harness::compare::Contents;
use harness::load::{Load, LoadOptions};
use harness::process::{self, Finished};
use harness::{Generation, Result, Scratch, Server, ServerOptions, proof};

/// `WALG_STREAM_CREATE_COMMAND`, to be given the data directory.
const CREATE: &str =
    "mariabackup --backup --stream=xbstream --user=root --host=localhost --datadir=";
/// `WALG_STREAM_RESTORE_COMMAND`, to be given the data directory.
const RESTORE: &str = "mbstream -x -C ";
/// `WALG_MYSQL_BACKUP_PREPARE_COMMAND`, to be given the data directory.
const PREPARE: &str = "mariabackup --prepare --target-dir=";
/// `WALG_MYSQL_BINLOG_REPLAY_COMMAND`.
const REPLAY: &str = "mysqlbinlog --stop-datetime=\"$WALG_MYSQL_BINLOG_END_TS\" \"$WALG_MYSQL_CURRENT_BINLOG\" | mysql";

/// A host on which the programs have the stock names.
struct Host {
    scratch: Scratch,
}

impl Host {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        for dir in ["bin", "empty"] {
            fs::create_dir(scratch.join(dir))?;
        }
        let bin = scratch.join("bin");
        for name in ["mariabackup", "mbstream", "mysqlbinlog"] {
            symlink(env!("CARGO_BIN_EXE_haulout"), bin.join(name))?;
        }
        symlink(Generation::under_test().program("mariadb"), bin.join("mysql"))?;
        Ok(Self { scratch })
    }

    /// Has clients connect to `server` unless told otherwise.
    fn serves(&self, server: &Server) -> Result<()> {
        let text = format!("[client]\nuser=root\nsocket={}\n", server.socket().display());
        Ok(fs::write(self.scratch.join(".my.cnf"), text)?)
    }

    /// A command line of the settings, in a directory that is empty.
    fn shell(&self, line: &str) -> Command {
        let path = format!("{}:/usr/bin:/bin", self.scratch.join("bin").display());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).env("PATH", path).env("HOME", self.scratch.path());
        command.current_dir(self.scratch.join("empty")).stdin(Stdio::null());
        command
    }

    /// Stores what a line writes.
    fn push(&self, line: &str, to: &str) -> Result<()> {
        process::run_into(self.shell(line), File::create(self.scratch.join(to))?)?.success()?;
        Ok(())
    }

    /// Gives what is stored to a line.
    fn fetch(&self, line: &str, from: &str) -> Result<Finished> {
        let mut command = self.shell(line);
        command.stdin(File::open(self.scratch.join(from))?);
        process::run(command)
    }

    fn files_in_the_way(&self) -> Result<usize> {
        Ok(fs::read_dir(self.scratch.join("empty"))?.count())
    }
}

/// A full backup and a delta of it under load, both restored in place, and the binary log up to a time.
#[test]
fn a_chain_and_the_binary_log_are_pushed_and_fetched() {
    common::ok((|| -> Result<()> {
        let (host, source) = (Host::new()?, ServerOptions::default().start()?);
        host.serves(&source)?;
        let load = Load::start(&source, &LoadOptions::new(881))?;
        let dir = |name: &str| host.scratch.join(name).display().to_string();
        let create = format!("{CREATE}{}", source.datadir().display());
        host.push(&format!("{create} --extra-lsndir={}", dir("lsn")), "full.xb")?;
        // What WAL-G remembers of a backup, for the next one.
        let naming = ["xtrabackup_checkpoints", "mariadb_backup_checkpoints"];
        let read = |name: &&str| fs::read_to_string(host.scratch.join("lsn").join(name)).ok();
        let checkpoints = naming.iter().find_map(read).context("no checkpoints")?;
        let lsn = checkpoints.lines().find_map(|line| line.strip_prefix("to_lsn = "));
        let since = format!("--incremental-lsn={}", lsn.context("no LSN")?);
        std::thread::sleep(Duration::from_secs(1));
        host.push(&format!("{create} --extra-lsndir={} {since}", dir("lsn2")), "delta.xb")?;
        load.stop()?;
        // Again, when all is quiet, so that the binary log goes on from there.
        host.push(&format!("{create} --extra-lsndir={} {since}", dir("lsn3")), "delta.xb")?;

        source.run("FLUSH BINARY LOGS")?;
        let mut client = source.client()?;
        let log = client.text("SHOW BINARY LOGS")?.pop().context("no binary log")?;
        client.run("CREATE DATABASE late")?;
        client.run("CREATE TABLE late.t (id INT PRIMARY KEY) ENGINE=InnoDB")?;
        client.run("INSERT INTO late.t SELECT seq FROM late.seq_1_to_500")?;
        std::thread::sleep(Duration::from_millis(1100));
        let end = client.scalar("SELECT NOW()")?.context("no time")?;
        let wanted = Contents::read(&mut client)?;
        client.run("DELETE FROM late.t")?;

        let (data, increment) = (dir("restored"), dir("increment"));
        for dir in [&data, &increment] {
            fs::create_dir(dir)?;
        }
        host.fetch(&format!("{RESTORE}{data}"), "full.xb")?.success()?;
        let prepare = |more: &str| process::run(host.shell(&format!("{PREPARE}{data}{more}")));
        let said = prepare(" --apply-log-only")?.success()?.stderr;
        assert!(said.ends_with("completed OK!\n"), "{said}");
        host.fetch(&format!("{RESTORE}{data} --directory={increment}"), "delta.xb")?.success()?;
        prepare(&format!(" --incremental-dir={increment}"))?.success()?;
        assert_eq!(host.files_in_the_way()?, 0);

        let copy = proof::replica_options(source.options()).start_on(Path::new(&data))?;
        host.serves(&copy)?;
        let mut replay = host.shell(REPLAY);
        replay.env("WALG_MYSQL_BINLOG_END_TS", end);
        replay.env("WALG_MYSQL_CURRENT_BINLOG", source.datadir().join(&log[0]));
        process::run(replay)?.success()?;
        let found = Contents::read(&mut copy.client()?)?;
        let differences = wanted.differences(&found);
        assert!(differences.is_empty(), "{differences:#?}");
        assert!(found.tables() > 10);
        Ok(())
    })());
}

/// A dash that was forgotten: the stock tool unpacks into the directory that it was started in.
#[test]
fn mistakes_in_the_settings_end_with_an_error() {
    common::ok((|| -> Result<()> {
        let (host, source) = (Host::new()?, ServerOptions::default().start()?);
        host.serves(&source)?;
        host.push(&format!("{CREATE}{}", source.datadir().display()), "full.xb")?;
        let data = host.scratch.join("restored");
        fs::create_dir(&data)?;
        let mistaken = format!("mbstream -x C {}", data.display());
        let refused = host.fetch(&mistaken, "full.xb")?;
        common::assert_failed(&refused, 1, &["a dash is missing", "mbstream -x -C"]);
        assert_eq!((host.files_in_the_way()?, fs::read_dir(&data)?.count()), (0, 0));
        let stock = Generation::under_test().program("mbstream");
        let stock = mistaken.replacen("mbstream", &stock.display().to_string(), 1);
        host.fetch(&stock, "full.xb")?.success()?;
        assert!(host.files_in_the_way()? > 0, "the stock tool has no such trap any more");

        // A backup that fails ends with a status that stops the upload, and what it wrote is no backup.
        let create = format!("{CREATE}{}", source.datadir().display());
        let output = File::create(host.scratch.join("failed.xb"))?;
        let failed =
            process::run_into(host.shell(&create.replace("--user=root", "--user=nobody")), output)?;
        assert_eq!(failed.code(), Some(1), "{}", failed.report());
        let half = fs::read(host.scratch.join("full.xb"))?;
        fs::write(host.scratch.join("half.xb"), &half[..half.len() / 2])?;
        let broken = host.fetch(&format!("{RESTORE}{}", data.display()), "half.xb")?;
        assert_eq!(broken.code(), Some(1), "{}", broken.report());
        let prepared = process::run(host.shell(&format!("{PREPARE}{}", data.display())))?;
        assert_eq!(prepared.code(), Some(1), "{}", prepared.report());
        Ok(())
    })());
}
