//! Backups of some tables: the same files as the stock tool takes, tables that can be imported, and
//! deltas that leave alone what was never chosen. And what the stock tool notes of a server besides.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{assert_failed, exit, haulout, ok};
use harness::process::{self, Finished};
use harness::tool::BackupOptions;
use harness::{Generation, Result, Scratch, Server, ServerOptions, Tool};

fn server_with_databases() -> Result<Server> {
    let server = ServerOptions::of(Generation::under_test()).arg("--log-bin").start()?;
    for sql in [
        "CREATE DATABASE d1",
        "CREATE DATABASE d2",
        "CREATE DATABASE `d-3`",
        "CREATE DATABASE empty_one",
        "CREATE TABLE d1.i1 (a INT PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE d1.i2 (a INT PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE d1.m1 (a INT) ENGINE=MyISAM",
        "CREATE TABLE d1.a1 (a INT) ENGINE=Aria TRANSACTIONAL=1",
        "CREATE TABLE d1.p (a INT PRIMARY KEY) ENGINE=InnoDB PARTITION BY HASH(a) PARTITIONS 2",
        "CREATE TABLE d2.i1 (a INT PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE `d-3`.`t-1` (a INT PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TRIGGER d1.tr BEFORE INSERT ON d1.m1 FOR EACH ROW SET @x = 1",
        "INSERT INTO d1.i1 SELECT seq FROM d1.seq_1_to_5000",
        "INSERT INTO d1.a1 SELECT seq FROM d1.seq_1_to_500",
        "INSERT INTO d2.i1 SELECT seq FROM d1.seq_1_to_10",
    ] {
        server.run(sql)?;
    }
    Ok(server)
}

/// Files and empty directories below the databases of a backup.
fn tables_in(dir: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let database = entry.file_name().to_string_lossy().into_owned();
        for file in fs::read_dir(entry.path())? {
            let file = file?.file_name().to_string_lossy().into_owned();
            // A tablespace that was not yet written comes late, depending on the moment.
            let file = file.strip_suffix(".new").map_or(file.clone(), |name| format!("{name}.ibd"));
            found.insert(format!("{database}/{file}"));
        }
    }
    Ok(found)
}

fn backup(tool: &Tool, server: &Server, dir: &Path, extra: &[&str]) -> Result<Finished> {
    let extra = extra.iter().map(|word| (*word).to_owned()).collect();
    tool.checked(tool.backup(server, dir, &BackupOptions { extra, ..BackupOptions::default() }))
}

#[test]
fn the_same_files_as_the_stock_tool_takes() {
    let scratch = ok(Scratch::new());
    let server = ok(server_with_databases());
    let links = ok(Tool::links(Path::new(env!("CARGO_BIN_EXE_haulout")), scratch.path()));
    let list = scratch.join("list");
    fs::write(&list, "d1.i2\nd2.i1\n").unwrap();
    let tables_file = format!("--tables-file={}", list.display());
    let databases_file = format!("--databases-file={}", list.display());
    let cases: [&[&str]; 12] = [
        &[],
        &["--databases=d1.m1 d2"],
        &["--databases=d1 d@002d3.t@002d1"],
        &["--databases=d1", "--tables-exclude=[.]i"],
        &["--databases-exclude=mysql d1"],
        &["--tables=^d1[.]i,d2"],
        &["--tables=^d1[.]p$"],
        &["--tables=^d1[.]p#P#p0$"],
        &["--tables-exclude=^mysql[.],i1"],
        &["--databases=d1", "--tables=^d2"],
        &[&tables_file],
        &[&databases_file],
    ];
    for (number, case) in cases.iter().enumerate() {
        let (stock, ours) = (scratch.join("stock"), scratch.join(&format!("ours{number}")));
        ok(backup(&Tool::stock(), &server, &stock, case));
        ok(backup(&links, &server, &ours, case));
        let by_stock = ok(tables_in(&stock));
        assert_eq!(ok(tables_in(&ours)), by_stock, "{case:?}");
        let info = |dir: &Path| {
            let naming = ["xtrabackup_info", "mariadb_backup_info"].map(|name| dir.join(name));
            let file = naming.into_iter().find(|file| file.exists()).unwrap();
            let text = fs::read_to_string(file).unwrap();
            text.lines().find(|line| line.starts_with("partial")).unwrap().to_owned()
        };
        assert_eq!(info(&ours), info(&stock), "{case:?}");
        fs::remove_dir_all(&stock).unwrap();
    }
    // What the stock tool makes of it: the whole database is gone.
    let (stock, ours) = (scratch.join("stock"), scratch.join("ours"));
    ok(backup(&Tool::stock(), &server, &stock, &["--databases-exclude=d1.m1"]));
    ok(backup(&links, &server, &ours, &["--databases-exclude=d1.m1"]));
    assert!(!ok(tables_in(&stock)).contains("d1/i1.ibd"), "the stock tool has learned");
    let kept = ok(tables_in(&ours));
    assert!(kept.contains("d1/i1.ibd") && !kept.contains("d1/m1.MYD"));
}

#[test]
fn some_tables_are_prepared_exported_and_imported() {
    let scratch = ok(Scratch::new());
    let server = ok(server_with_databases());
    let (tool, dir, delta) = (haulout(), scratch.join("base"), scratch.join("delta"));
    let chosen = ["--table=d1.*", "--exclude-table=d1.i2"];
    ok(backup(&tool, &server, &dir, &chosen));
    let whole = scratch.join("whole");
    ok(backup(&tool, &server, &whole, &[]));
    for base in [&dir, &whole] {
        ok(tool.run_prepare(base));
    }
    for sql in [
        "INSERT INTO d1.i1 SELECT seq FROM d1.seq_5001_to_6000",
        "INSERT INTO d2.i1 SELECT seq FROM d1.seq_11_to_20",
        "INSERT INTO d1.a1 SELECT seq FROM d1.seq_1_to_500",
        "CREATE TABLE d1.late (a INT PRIMARY KEY) ENGINE=InnoDB",
        "DROP TABLE d1.p",
    ] {
        ok(server.run(sql));
    }
    let since = tool.since(&dir);
    ok(backup(&tool, &server, &delta, &[&since, chosen[0], chosen[1]]));

    // Of other tables than the base it would take those away.
    let other = scratch.join("other");
    ok(backup(&tool, &server, &other, &[&tool.since(&dir), "--table=d1.i1"]));
    for (base, delta) in [(&whole, &delta), (&dir, &other)] {
        let refused = ok(process::run(tool.apply_delta(base, delta)));
        assert_failed(&refused, exit::USAGE, &["tables"]);
    }
    assert!(whole.join("d2/i1.ibd").exists() && dir.join("d1/m1.MYD").exists());

    ok(tool.checked(tool.apply_delta(&dir, &delta)));
    let kept = ok(tables_in(&dir));
    assert!(kept.contains("d1/late.ibd") && kept.contains("d1/a1.MAD"), "{kept:?}");
    assert!(!kept.iter().any(|file| file.contains("#P#") || file.starts_with("d2")), "{kept:?}");

    let mut export = tool.prepare(&dir, 256 << 20);
    export.arg("--export");
    ok(tool.checked(export));
    let importer = ok(ServerOptions::of(Generation::under_test()).start());
    for sql in [
        "CREATE DATABASE d1",
        "CREATE TABLE d1.i1 (a INT PRIMARY KEY) ENGINE=InnoDB",
        "ALTER TABLE d1.i1 DISCARD TABLESPACE",
    ] {
        ok(importer.run(sql));
    }
    for extension in ["ibd", "cfg"] {
        let name = format!("d1/i1.{extension}");
        fs::copy(dir.join(&name), importer.datadir().join(&name)).unwrap();
    }
    ok(importer.run("ALTER TABLE d1.i1 IMPORT TABLESPACE"));
    let mut client = ok(importer.client());
    let count = client.scalar("SELECT CONCAT(COUNT(*), ' ', SUM(a)) FROM d1.i1").unwrap();
    assert_eq!(count.as_deref(), Some("6000 18003000"));

    // A repository has all tables.
    let repo = format!("--repo={}", scratch.join("repo").display());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_haulout"));
    command.args(["backup", "--table=d1.i1", &repo]);
    assert_failed(&ok(process::run(command)), exit::USAGE, &["--repo"]);
}

#[test]
fn history_replica_positions_and_backups_without_locks() {
    let scratch = ok(Scratch::new());
    let server = ok(server_with_databases());
    let links = ok(Tool::links(Path::new(env!("CARGO_BIN_EXE_haulout")), scratch.path()));
    let base = scratch.join("base");
    ok(backup(&links, &server, &base, &["--history=it's", "--innodb-log-checkpoint-now"]));
    ok(server.run("INSERT INTO d2.i1 VALUES (100)"));
    let unknown = ["--incremental-history-name=other".to_owned()];
    let options = BackupOptions { extra: unknown.to_vec(), ..BackupOptions::default() };
    let refused = ok(process::run(links.backup(&server, &scratch.join("no"), &options)));
    assert_failed(&refused, exit::FAILED, &["history record for name other"]);
    let (delta, stock) = (scratch.join("delta"), scratch.join("stock"));
    ok(backup(&links, &server, &delta, &["--incremental-history-name=it's", "--history"]));
    // The table is the same for both tools.
    ok(backup(&Tool::stock(), &server, &stock, &["--incremental-history-name=", "--history=s"]));
    ok(links.run_prepare(&base));
    ok(links.checked(links.apply_delta(&base, &delta)));

    for sql in [
        "SET GLOBAL gtid_slave_pos='7-7-7'",
        "CHANGE MASTER 'm''1' TO master_host='127.0.0.1', master_port=1, master_use_gtid=slave_pos",
        "CHANGE MASTER TO master_host='127.0.0.1', master_port=2, master_use_gtid=no",
    ] {
        ok(server.run(sql));
    }
    let slave_info = |tool: &Tool, dir: &Path| {
        ok(backup(tool, &server, dir, &["--slave-info", "--safe-slave-backup"]));
        let files = ["xtrabackup_slave_info", "mariadb_backup_slave_info"];
        let file = files.map(|name| dir.join(name)).into_iter().find(|file| file.exists());
        fs::read_to_string(file.unwrap()).unwrap()
    };
    let ours = slave_info(&links, &scratch.join("replica"));
    assert_eq!(
        ours.replace("m''1", "m'1"),
        slave_info(&Tool::stock(), &scratch.join("replica-stock")),
        "{ours}"
    );
    assert!(ours.contains("SET GLOBAL gtid_slave_pos"));

    // Somebody without privileges can take a backup without locks, as far as it goes.
    ok(server.run("CREATE USER u@localhost IDENTIFIED BY 'p'"));
    ok(server.run("GRANT BINLOG MONITOR ON *.* TO u@localhost"));
    let user = BackupOptions {
        user: "u".to_owned(),
        password: Some("p".to_owned()),
        extra: vec!["--no-lock".to_owned()],
        ..BackupOptions::default()
    };
    let unlocked = scratch.join("unlocked");
    ok(links.checked(links.backup(&server, &unlocked, &user)));
    ok(links.run_prepare(&unlocked));
    assert!(unlocked.join("d1/i1.ibd").exists());
    let mut refused = user;
    refused.extra.push("--slave-info".to_owned());
    let refused = ok(process::run(links.backup(&server, &scratch.join("refused"), &refused)));
    assert_failed(&refused, exit::FAILED, &["--safe-slave-backup"]);
}
