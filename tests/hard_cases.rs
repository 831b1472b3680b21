//! What a server may be in the middle of when its backup is taken.

mod common;

use std::time::Duration;

use harness::load::{Load, LoadOptions};
use harness::process;
use harness::tool::{BackupOptions, BinlogPosition};
use harness::{Generation, Result, Scratch, Server, ServerOptions, compare, proof};

/// Slow enough to do something meanwhile.
fn slowly() -> BackupOptions {
    BackupOptions { extra: vec!["--throttle=30MiB".into()], ..BackupOptions::default() }
}

/// Prepares and restores the backup in `scratch`, and starts a server on it.
fn boot(scratch: &Scratch, source: &Server) -> Result<Server> {
    let (backup, datadir) = (scratch.join("backup"), scratch.join("copy"));
    common::haulout().run_prepare(&backup)?;
    common::haulout().run_restore(&backup, &datadir)?;
    let mut options = proof::replica_options(source.options());
    // What the source was started with once more does not have to hold for its copy.
    options.extra.retain(|argument| argument.starts_with("--s"));
    options.start_on(&datadir)
}

/// The backup in `scratch` becomes a replica that catches up and equals its source.
fn ensure_replicates(scratch: &Scratch, source: &Server) -> Result<()> {
    let position = BinlogPosition::of_backup(&scratch.join("backup"))?;
    let copy = boot(scratch, source)?;
    let complaints = compare::check_tables(&copy)?;
    assert_eq!(complaints, Vec::<String>::new());
    proof::attach(source, &copy, &position)?;
    proof::ensure_equal(source, &copy)?;
    Ok(())
}

/// The server replaces its log by a larger and then by a smaller one, under load.
#[test]
fn a_log_that_is_resized_is_followed() {
    common::ok((|| -> Result<()> {
        if Generation::under_test() < Generation::V10_11 {
            eprintln!("servers before 10.9 cannot do this while they run");
            return Ok(());
        }
        let scratch = Scratch::new()?;
        let options = ServerOptions { log_file_size: 16 << 20, ..ServerOptions::default() };
        let server = options.start()?;
        proof::create_replication_user(&server)?;
        let load = Load::start(&server, &LoadOptions::new(441))?;
        let log = server.datadir().join("ib_logfile0");
        let command = common::haulout().backup(&server, &scratch.join("backup"), &slowly());
        let backup = process::start(command, None)?;
        for size in [48 << 20, 20 << 20] {
            std::thread::sleep(Duration::from_millis(300));
            server.run(&format!("SET GLOBAL innodb_log_file_size = {size}"))?;
            assert_eq!(std::fs::metadata(&log)?.len(), size);
        }
        let finished = backup.wait(Duration::from_secs(120))?.success()?;
        assert!(finished.cost.wall > Duration::from_millis(600), "it ended before the resizes");
        load.stop()?;
        ensure_replicates(&scratch, &server)
    })());
}

/// Where the log lies in memory, servers of 10.8 to 10.11 map it instead of writing to it.
#[test]
fn a_log_in_memory_is_followed() {
    common::ok((|| -> Result<()> {
        let memory = std::path::Path::new("/dev/shm");
        if !memory.is_dir() {
            eprintln!("there is no /dev/shm here: nothing was tested");
            return Ok(());
        }
        let logs = tempfile::tempdir_in(memory)?;
        let scratch = Scratch::new()?;
        let mut installed = ServerOptions::default().start()?;
        installed.stop()?;
        let log = installed.datadir().join("ib_logfile0");
        std::fs::copy(&log, logs.path().join("ib_logfile0"))?;
        std::fs::remove_file(&log)?;
        let server = ServerOptions::default()
            .arg(format!("--innodb-log-group-home-dir={}", logs.path().display()))
            .start_on(installed.datadir())?;
        proof::create_replication_user(&server)?;
        let load = Load::start(&server, &LoadOptions::new(442))?;
        let command = common::haulout().backup(&server, &scratch.join("backup"), &slowly());
        process::run(command)?.success()?;
        load.stop()?;
        ensure_replicates(&scratch, &server)
    })());
}

/// A transaction in its second phase is neither rolled back nor committed: its owner decides.
#[test]
fn prepared_transactions_wait_in_the_copy() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = ServerOptions::default().start()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")?;
        let mut clients = Vec::new();
        for xid in ["keep", "drop"] {
            let mut client = server.client()?;
            client.run(&format!("XA START '{xid}'"))?;
            let first = if xid == "keep" { 1 } else { 10_001 };
            client.run(&format!(
                "INSERT INTO d.t SELECT seq, REPEAT('y', 300) FROM d.seq_{first}_to_{}",
                first + 999
            ))?;
            client.run(&format!("XA END '{xid}'"))?;
            client.run(&format!("XA PREPARE '{xid}'"))?;
            clients.push(client);
        }
        let mut open = server.client()?;
        open.run("BEGIN")?;
        open.run("INSERT INTO d.t VALUES (0, 'never committed')")?;

        common::haulout().run_backup(&server, &scratch.join("backup"))?;
        let copy = boot(&scratch, &server)?;
        let mut client = copy.client()?;
        assert_eq!(client.text("XA RECOVER")?.len(), 2);
        client.run("XA COMMIT 'keep'")?;
        client.run("XA ROLLBACK 'drop'")?;
        let count = client.scalar("SELECT CONCAT(COUNT(*), ' ', MAX(a)) FROM d.t")?;
        assert_eq!(count.as_deref(), Some("1000 1000"));
        assert_eq!(compare::check_tables(&copy)?, Vec::<String>::new());
        Ok(())
    })());
}

/// A server died while it rebuilt a table, and was started again with the setting that helps in
/// need: what the statement left behind is neither lost nor in the way.
#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let mut server = ServerOptions::default().start()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")?;
        server.run("INSERT INTO d.t SELECT seq, REPEAT('z', 400) FROM d.seq_1_to_40000")?;
        let mut client = server.client()?;
        let alter = std::thread::spawn(move || {
            // Dies with the server.
            let _ = client.run("ALTER TABLE d.t ADD COLUMN c INT FIRST, ALGORITHM=COPY");
        });
        let database = server.datadir().join("d");
        let has_half_a_table = || -> Result<bool> {
            let names = std::fs::read_dir(&database)?.map(|entry| Ok(entry?.file_name()));
            let names = names.collect::<Result<Vec<_>>>()?;
            Ok(names.iter().any(|name| name.to_string_lossy().starts_with("#sql")))
        };
        while !has_half_a_table()? {
            assert!(!alter.is_finished(), "it was through before it was seen");
        }
        server.crash()?;
        let _ = alter.join();
        assert!(has_half_a_table()?, "the statement left nothing behind");

        let options = server.options().clone().arg("--innodb-force-recovery=1");
        let server = options.start_on(server.datadir())?;
        let load = server.client()?.run("INSERT INTO d.t VALUES (0, 'later')");
        common::haulout().run_backup(&server, &scratch.join("backup"))?;
        let copy = boot(&scratch, &server)?;
        let rows = copy.client()?.scalar("SELECT COUNT(*) FROM d.t")?;
        assert_eq!(rows, Some((40_000 + u32::from(load.is_ok())).to_string()));
        assert_eq!(compare::check_tables(&copy)?, Vec::<String>::new());
        Ok(())
    })());
}
