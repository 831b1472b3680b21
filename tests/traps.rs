//! Faults of the stock tool that must not be ours: each shown with it, and not with ours under its
//! name. When one of these tests says "mended?", the stock tool is no longer what it was.
//!
//! | trap | test |
//! |---|---|
//! | stale copies of MyISAM tables in use; operations of `ddl.log` that are missed | [`tables_changed_before_ddl_is_blocked`] |
//! | `--compress` while tables are dropped and renamed | [`tables_changed_before_ddl_is_blocked`] |
//! | tables swapped during an incremental backup | [`tables_changed_before_ddl_is_blocked`] |
//! | an incremental prepare that is repeated; one of some tables only | [`deltas_that_take_tables_away`] |
//! | `--copy-back` of what was not prepared | [`deltas_that_take_tables_away`] |
//! | `mbstream` ends well although it did not unpack; paths that lead out of the target | [`streams_that_do_not_come_out`] |
//! | a missing BINLOG MONITOR is found at the end | [`a_privilege_that_is_missed_late`] |
//! | passwords of keys in `backup-my.cnf` | `encryption::a_password_of_the_server_does_not_get_into_the_backup` |
//! | `--databases-exclude=db.table` drops a database | `partial::the_same_files_as_the_stock_tool_takes` |
//! | imported tables missing from a delta | `delta_faults::an_import_between_two_backups_is_in_the_delta` |
//! | files of MyRocks shared with the server | `myrocks` |
//! | redo that is overwritten is noticed at the end | `faults::redo_that_was_overwritten_is_a_gap` |
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::ok;
use harness::process::{self, Finished, run_into};
use harness::scratch::copy_tree;
use harness::tool::BackupOptions;
use harness::{Result, Scratch, Server, ServerOptions, Tool, proof};
use xbstream::writer::{self, Mode};
use xbstream::{RemoveTarget, StreamPath};

/// The stock tool and ours under its name.
fn tools(scratch: &Scratch) -> Result<[Tool; 2]> {
    let dir = scratch.join("bin");
    fs::create_dir(&dir)?;
    Ok([Tool::stock(), Tool::links(Path::new(env!("CARGO_BIN_EXE_haulout")), &dir)?])
}

fn is_stock(tool: &Tool) -> bool {
    matches!(tool, Tool::Stock(_))
}

fn with(extra: &[&str]) -> BackupOptions {
    let extra = extra.iter().map(|word| (*word).to_owned()).collect();
    BackupOptions { extra, ..BackupOptions::default() }
}

/// The tables that a backup or data directory has of database `d`, by the files of MyISAM.
fn tables_in(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir.join("d")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".MYD") || name.ends_with(".MYI")).collect()
}

/// Waits until a statement like this runs.
fn wait_for(server: &Server, like: &str) -> Result<()> {
    let question = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '{like}' AND \
         id <> CONNECTION_ID()"
    );
    let begin = Instant::now();
    let mut client = server.client()?;
    while client.scalar(&question)?.as_deref() == Some("0") {
        assert!(begin.elapsed() < Duration::from_secs(60), "{like} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Backs up while a MyISAM table is written to by one connection and waited for by another, so that
/// blocking DDL takes a while, and while it is waited for, tables are changed.
fn back_up_in_turmoil(
    tool: &Tool,
    server: &Server,
    dir: &Path,
    how: &BackupOptions,
    ddl: &[&str],
) -> Result<Finished> {
    std::thread::scope(|scope| {
        let statement = |sql: &'static str| {
            let mut client = server.client()?;
            Ok::<_, anyhow::Error>(scope.spawn(move || client.run(sql)))
        };
        let update = statement("UPDATE d.busy SET a = a + 1 WHERE SLEEP(5) = 0")?;
        wait_for(server, "UPDATE d.busy%")?;
        let reader = statement("SELECT * FROM d.busy")?;
        wait_for(server, "SELECT * FROM d.busy")?;
        let backup = process::start(tool.backup(server, dir, how), None)?;
        wait_for(server, "BACKUP STAGE BLOCK_DDL%")?;
        let mut client = server.client()?;
        for sql in ddl {
            client.run(sql)?;
        }
        assert!(!update.is_finished(), "DDL came too late to be a test");
        update.join().unwrap()?;
        reader.join().unwrap()?;
        backup.wait(Duration::from_secs(120))
    })
}

/// Prepares and restores a backup; what the statement says there.
fn asked_of_copy(tool: &Tool, server: &Server, dir: &Path, to: &Path, sql: &str) -> Result<String> {
    tool.run_prepare(dir)?;
    let copy = proof::restore_and_boot(tool, dir, to, server.options())?;
    Ok(copy.client()?.scalar(sql)?.unwrap_or_default())
}

#[test]
fn tables_changed_before_ddl_is_blocked() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        for tool in tools(&scratch)? {
            let dir = |name: &str| scratch.join(&format!("{name}-{}", is_stock(&tool)));
            let server = ServerOptions::default().start()?;
            server.run("CREATE DATABASE d")?;
            for sql in [
                "CREATE TABLE d.busy (a INT) ENGINE=MyISAM AS SELECT 1 AS a",
                "CREATE TABLE d.gone (a INT) ENGINE=MyISAM",
                "CREATE TABLE d.`old-name` (a INT) ENGINE=MyISAM",
                "CREATE TABLE d.gone2 (a INT) ENGINE=MyISAM",
                "CREATE TABLE d.old2 (a INT) ENGINE=MyISAM",
                "CREATE TABLE d.x (a INT) ENGINE=InnoDB",
                "CREATE TABLE d.p (a INT) ENGINE=InnoDB PARTITION BY HASH(a) PARTITIONS 2",
                "CREATE TABLE d.s1 (a INT) ENGINE=InnoDB AS SELECT 1 AS a",
                "CREATE TABLE d.s2 (a INT) ENGINE=InnoDB AS SELECT 2 AS a",
            ] {
                server.run(sql)?;
            }
            // A row that is old although the position is behind its change; an operation of ddl.log
            // that is not known, behind which others are not looked at; names in two encodings.
            let ddl = [
                "ALTER TABLE d.p EXCHANGE PARTITION p0 WITH TABLE d.x",
                "DROP TABLE d.gone",
                "RENAME TABLE d.`old-name` TO d.`new-name`",
            ];
            let full = dir("full");
            let done = back_up_in_turmoil(&tool, &server, &full, &with(&[]), &ddl)?;
            done.success()?;
            let same = tables_in(&full) == tables_in(server.datadir());
            assert_eq!(same, !is_stock(&tool), "mended? {:?}", tables_in(&full));
            copy_tree(&full, &dir("base"))?;
            let sql = "SELECT a FROM d.busy";
            let row = asked_of_copy(&tool, &server, &full, &dir("copy"), sql)?;
            assert_eq!(row, if is_stock(&tool) { "1" } else { "2" }, "mended?");

            // Files that are compressed one by one.
            let ddl = ["DROP TABLE d.gone2", "RENAME TABLE d.old2 TO d.new2"];
            let packed = dir("packed");
            let done = back_up_in_turmoil(&tool, &server, &packed, &with(&["--compress"]), &ddl)?;
            match is_stock(&tool) {
                true => assert_eq!(done.code(), None, "mended? {}", done.report()),
                false => {
                    done.success()?;
                    let Tool::Links(bin) = &tool else { unreachable!() };
                    let mut command = Command::new(bin.join("mariadb-backup"));
                    command.args(["--decompress", "--remove-original", "--parallel=2"]);
                    command.arg(format!("--target-dir={}", packed.display()));
                    tool.checked(command)?;
                    assert_eq!(tables_in(&packed), tables_in(server.datadir()));
                    let to = dir("unpacked");
                    assert_eq!(asked_of_copy(&tool, &server, &packed, &to, sql)?, "3");
                }
            }

            // Two tables that change places.
            server.checkpoint()?;
            let ddl = ["RENAME TABLE d.s1 TO d.s3, d.s2 TO d.s1, d.s3 TO d.s2"];
            let (base, delta) = (dir("base"), dir("delta"));
            tool.run_prepare(&base)?;
            let how = with(&[&tool.since(&base)]);
            back_up_in_turmoil(&tool, &server, &delta, &how, &ddl)?.success()?;
            let applied = process::run(tool.apply_delta(&base, &delta))?;
            match is_stock(&tool) {
                true => assert_eq!(applied.code(), Some(1), "mended? {}", applied.report()),
                false => {
                    applied.success()?;
                    let sql = "SELECT CONCAT(s1.a, s2.a) FROM d.s1, d.s2";
                    let row = asked_of_copy(&tool, &server, &base, &dir("swapped"), sql)?;
                    assert_eq!(row, "21");
                }
            }
        }
        Ok(())
    })());
}

#[test]
fn deltas_that_take_tables_away() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = ServerOptions::default().start()?;
        server.run("CREATE DATABASE d")?;
        for table in ["a", "b", "c"] {
            server.run(&format!("CREATE TABLE d.{table} AS SELECT seq FROM d.seq_1_to_1000"))?;
        }
        server.checkpoint()?;
        let tools = tools(&scratch)?;
        let [stock, _] = &tools;
        let links = ["full", "delta", "some"].map(|name| scratch.join(name));
        let [full, delta, some] = &links;
        stock.run_backup(&server, full)?;
        server.run("INSERT INTO d.a VALUES (0)")?;
        server.checkpoint()?;
        let since = stock.since(full);
        stock.checked(stock.backup(&server, delta, &with(&[&since])))?;
        stock.checked(stock.backup(&server, some, &with(&[&since, "--databases=mysql"])))?;
        let tables = |base: &Path| {
            let has = |table: &&str| base.join(format!("d/{table}.ibd")).exists();
            ["a", "b", "c"].into_iter().filter(has).count()
        };
        for tool in &tools {
            let stock = is_stock(tool);
            let copy = |of: &Path, name: &str| -> Result<_> {
                let to = scratch.join(&format!("{name}-{stock}"));
                copy_tree(of, &to)?;
                Ok(to)
            };
            // What was not prepared is no data directory.
            let placed =
                process::run(tool.restore(full, &scratch.join(&format!("datadir-{stock}"))))?;
            assert_eq!(placed.code(), Some(i32::from(!stock)), "mended? {}", placed.report());

            // A damaged page is mended, and the delta applied once more.
            let (base, delta) = (copy(full, "base")?, copy(delta, "delta")?);
            tool.run_prepare(&base)?;
            // The last that is applied, in the order in which a directory is listed.
            let order = fs::read_dir(delta.join("d"))?.map(|entry| entry.unwrap().path());
            let victim = order.filter(|path| path.extension().is_some_and(|e| e == "delta")).last();
            let victim = victim.unwrap();
            let good = fs::read(&victim)?;
            fs::write(&victim, &good[..8192])?;
            let first = process::run(tool.apply_delta(&base, &delta))?;
            assert_ne!(first.code(), Some(0), "{}", first.report());
            fs::write(&victim, &good)?;
            process::run(tool.apply_delta(&base, &delta))?.success()?;
            let left = tables(&base);
            assert!(if stock { left < 3 } else { left == 3 }, "mended? {left} tables are left");

            // A delta of some tables takes the others away.
            let (base, some) = (copy(full, "other")?, copy(some, "some")?);
            tool.run_prepare(&base)?;
            let applied = process::run(tool.apply_delta(&base, &some))?;
            match stock {
                true => assert_eq!((applied.code(), tables(&base)), (Some(0), 0), "mended?"),
                false => {
                    assert_eq!(
                        (applied.code(), tables(&base)),
                        (Some(1), 3),
                        "{}",
                        applied.report()
                    );
                    assert!(applied.stderr.contains("of some tables only"), "{}", applied.report());
                }
            }
        }
        Ok(())
    })());
}

fn path(name: &str) -> StreamPath {
    StreamPath::new(name).unwrap()
}

/// A file in a stream, with its end or without.
fn file_in_stream(name: &str, whole: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let crc = crc32fast::hash(b"abc");
    writer::payload_header(&mut out, &path(name), Mode::Create, 0, 3, crc).unwrap();
    out.extend_from_slice(b"abc");
    if whole {
        writer::end_of_file(&mut out, &path(name));
    }
    out
}

/// A stream whose path `xx` is `..`, which no writer of ours can write.
fn led_out(mut stream: Vec<u8>) -> Vec<u8> {
    let places: Vec<usize> =
        (0..stream.len() - 2).filter(|at| stream[*at..].starts_with(b"xx/")).collect();
    assert!(!places.is_empty());
    for at in places {
        stream[at..at + 2].copy_from_slice(b"..");
    }
    stream
}

/// Each stream ends well with the stock tool, and is not what comes out.
#[test]
fn streams_that_do_not_come_out() {
    let mut renamed = file_in_stream("a", true);
    writer::rename(&mut renamed, &path("a"), &path("xx/moved"));
    let mut removed = Vec::new();
    writer::remove(&mut removed, &RemoveTarget::Exact(path("xx/victim")));
    let two = [file_in_stream("exists", true), file_in_stream("b", true)].concat();
    let refused = [led_out(file_in_stream("xx/e", true)), file_in_stream("b", true)].concat();
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        for tool in tools(&scratch)? {
            let stock = is_stock(&tool);
            for (number, (stream, what)) in [
                (file_in_stream("a", false), "no end"),
                (two.clone(), "a file that exists"),
                (refused.clone(), "a path that leads out"),
                (led_out(renamed.clone()), "a rename out"),
                (led_out(removed.clone()), "a removal outside"),
            ]
            .into_iter()
            .enumerate()
            {
                let outside = scratch.join(&format!("{number}-{stock}"));
                let target = outside.join("target");
                fs::create_dir_all(&target)?;
                fs::write(outside.join("victim"), "")?;
                fs::write(target.join("exists"), "old")?;
                fs::write(outside.join("stream"), &stream)?;
                let mut command = tool.extract(&target, 1);
                command.stdin(File::open(outside.join("stream"))?);
                let done = run_into(command, File::create(outside.join("words"))?)?;
                let status = i32::from(!stock);
                assert_eq!(done.code(), Some(status), "{what}: mended? {}", done.report());
                let moved = outside.join("moved").exists();
                let victim = outside.join("victim").exists();
                assert_eq!(moved, stock && number == 3, "{what}: mended?");
                assert_eq!(victim, !(stock && number == 4), "{what}: mended?");
                assert!(!outside.join("e").exists(), "{what}");
                // Whatever came behind is missing, too.
                assert!(number > 2 || !target.join("b").exists(), "{what}");
            }
        }
        Ok(())
    })());
}

#[test]
fn a_privilege_that_is_missed_late() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = ServerOptions::default().start()?;
        server.run("CREATE USER weak@localhost IDENTIFIED BY 'pass'")?;
        server.run("GRANT SELECT, RELOAD, PROCESS ON *.* TO weak@localhost")?;
        for tool in tools(&scratch)? {
            let target = scratch.join(&format!("{}", is_stock(&tool)));
            let how = BackupOptions {
                user: "weak".to_owned(),
                password: Some("pass".to_owned()),
                ..BackupOptions::default()
            };
            let done = process::run(tool.backup(&server, &target, &how))?;
            assert_eq!(done.code(), Some(1), "{}", done.report());
            assert!(done.stderr.contains("BINLOG MONITOR"), "{}", done.report());
            let copied = target.join("ibdata1").exists();
            assert_eq!(copied, is_stock(&tool), "mended?");
        }
        Ok(())
    })());
}
