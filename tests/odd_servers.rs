//! Servers and data directories that are not as usual: nothing is lost, and nothing is obeyed that
//! was not ours.

mod common;

use std::fs;

use harness::process::run_into;
use harness::tool::{BackupOptions, looks_like_backup};
use harness::{Result, Scratch, Server, ServerOptions, Tool};

/// Backs up, prepares, restores and starts a copy of a server.
fn copy_of(server: &Server, scratch: &Scratch) -> Result<Server> {
    let (backup, datadir) = (scratch.join("backup"), scratch.join("copy"));
    common::haulout().run_backup(server, &backup)?;
    common::haulout().run_prepare(&backup)?;
    common::haulout().run_restore(&backup, &datadir)?;
    ServerOptions::default().arg("--server-id=99").start_on(&datadir)
}

fn count(server: &Server, table: &str) -> Result<Option<String>> {
    Ok(server.client()?.scalar(&format!("SELECT COUNT(*) FROM {table}"))?)
}

#[test]
fn an_imported_tablespace_is_in_the_copy() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = ServerOptions::default().start()?;
        for sql in [
            "CREATE DATABASE d",
            "CREATE TABLE d.src (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB",
            "INSERT INTO d.src SELECT seq, REPEAT('x', 200) FROM d.seq_1_to_3000",
            "CREATE TABLE d.imp LIKE d.src",
            "INSERT INTO d.imp SELECT * FROM d.src WHERE a < 100",
            "ALTER TABLE d.imp DISCARD TABLESPACE",
        ] {
            server.run(sql)?;
        }
        let mut client = server.client()?;
        client.run("FLUSH TABLES d.src FOR EXPORT")?;
        for extension in ["ibd", "cfg"] {
            let file =
                |table: &str| server.datadir().join("d").join(format!("{table}.{extension}"));
            fs::copy(file("src"), file("imp"))?;
        }
        client.run("UNLOCK TABLES")?;
        server.run("ALTER TABLE d.imp IMPORT TABLESPACE")?;
        server.run("DELETE FROM d.imp WHERE a > 2000")?;

        let copy = copy_of(&server, &scratch)?;
        assert_eq!(count(&copy, "d.imp")?.as_deref(), Some("2000"));
        Ok(())
    })());
}

/// What InnoDB has is in the backup of a server that has it switched off.
#[test]
fn a_server_without_innodb_is_backed_up() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let mut server = ServerOptions::default().start()?;
        for sql in [
            "CREATE DATABASE d",
            "CREATE TABLE d.i (a INT PRIMARY KEY) ENGINE=InnoDB",
            "INSERT INTO d.i SELECT seq FROM d.seq_1_to_3000",
        ] {
            server.run(sql)?;
        }
        // Killed, so that there is redo to apply.
        server.crash()?;
        let without = ServerOptions::default().arg("--skip-innodb");
        let server = without.arg("--default-storage-engine=MyISAM").start_on(server.datadir())?;
        server.run("CREATE TABLE d.m AS SELECT seq FROM d.seq_1_to_20")?;
        let copy = copy_of(&server, &scratch)?;
        assert_eq!(count(&copy, "d.i")?.as_deref(), Some("3000"));
        assert_eq!(count(&copy, "d.m")?.as_deref(), Some("20"));
        Ok(())
    })());
}

#[test]
fn redo_that_the_server_writes_only_once_a_second_is_waited_for() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let options = ServerOptions::default().arg("--innodb-flush-log-at-trx-commit=0");
        let server = options.start()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")?;
        server.run("INSERT INTO d.t SELECT seq, REPEAT('x', 200) FROM d.seq_1_to_5000")?;
        let copy = copy_of(&server, &scratch)?;
        assert_eq!(count(&copy, "d.t")?.as_deref(), Some("5000"));
        Ok(())
    })());
}

#[test]
fn a_read_only_server_survives_its_backup() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let mut server = ServerOptions::default().start()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB")?;
        server.run("INSERT INTO d.t SELECT seq FROM d.seq_1_to_500")?;
        server.stop()?;
        let options = ServerOptions::default().arg("--innodb-read-only");
        let read_only = options.start_on(server.datadir())?;
        let copy = copy_of(&read_only, &scratch)?;
        assert_eq!(count(&copy, "d.t")?.as_deref(), Some("500"));
        assert_eq!(count(&read_only, "d.t")?.as_deref(), Some("500"));
        Ok(())
    })());
}

#[test]
fn stray_files_neither_break_nor_steer_a_backup() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = ServerOptions::default().start()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE DATABASE empty")?;
        server.run("CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB")?;
        server.run("INSERT INTO d.t VALUES (1)")?;
        fs::remove_file(server.datadir().join("empty/db.opt"))?;
        fs::write(server.datadir().join("d/t.del"), "")?;
        fs::write(server.datadir().join(".bash_history"), "secret")?;
        fs::create_dir(server.datadir().join(".ssh"))?;
        fs::write(server.datadir().join(".ssh/id"), "secret")?;
        fs::write(server.datadir().join("notes.txt"), "kept")?;

        // The stock tool stops at a hidden file, with success.
        let stream = scratch.join("stream.xb");
        let command = common::haulout().backup_stream(&server, &BackupOptions::default());
        let finished = run_into(command, fs::File::create(&stream)?)?;
        assert!(finished.success().is_ok());
        let unpacked = scratch.join("unpacked");
        fs::create_dir(&unpacked)?;
        let mut mbstream = Tool::stock().extract(&unpacked, 1);
        mbstream.stdin(fs::File::open(&stream)?);
        assert!(mbstream.status()?.success());
        assert!(looks_like_backup(&unpacked));

        let copy = copy_of(&server, &scratch)?;
        assert_eq!(count(&copy, "d.t")?.as_deref(), Some("1"));
        let databases = "information_schema.SCHEMATA WHERE SCHEMA_NAME = 'empty'";
        assert_eq!(count(&copy, databases)?.as_deref(), Some("1"));
        assert!(copy.datadir().join("notes.txt").exists());
        assert!(!copy.datadir().join(".bash_history").exists());
        Ok(())
    })());
}
