//! MyRocks: its part of a backup is a checkpoint at the position of the rest, whoever made the
//! backup and whoever restores it, and no checkpoint stays on the server.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::process::{self, Running, run};
use harness::tool::{BackupOptions, BinlogPosition};
use harness::{Client, Result, Scratch, Server, ServerOptions, Tool, proof};
use rustix::process::Signal;

fn options() -> ServerOptions {
    ServerOptions::default().arg("--plugin-load-add=ha_rocksdb")
}

/// A server with tables of MyRocks, partitioned and not, and one of InnoDB that is changed in the
/// same transactions.
fn server(options: &ServerOptions) -> Result<Server> {
    let server = options.start()?;
    proof::create_replication_user(&server)?;
    server.run("CREATE DATABASE d")?;
    for (name, rest) in [
        ("r1", "ENGINE=RocksDB"),
        ("r2", "ENGINE=RocksDB PARTITION BY HASH (id) PARTITIONS 3"),
        ("i", "ENGINE=InnoDB"),
    ] {
        server.run(&format!(
            "CREATE TABLE d.{name} (id INT PRIMARY KEY, n INT, b VARCHAR(600), KEY (n)) {rest}"
        ))?;
        server.run(&format!(
            "INSERT INTO d.{name} SELECT seq, seq % 7, REPEAT(MD5(seq), 10) FROM d.seq_1_to_3000"
        ))?;
    }
    Ok(server)
}

/// Writers that go on until they are told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

impl Writers {
    fn start(server: &Server) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..2 {
            let (mut client, stop) = (server.client()?, Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(number);
                let mut done = 0;
                while !stop.load(Ordering::SeqCst) {
                    change(&mut client, &mut random, number, done)?;
                    done += 1;
                    // Every copy has to catch up with all of it.
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(done)
            }));
        }
        Ok(Self { stop, threads })
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let mut done = 0;
        for thread in self.threads {
            done += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(done)
    }
}

/// One transaction over both engines; now and then a table comes, changes and goes.
fn change(client: &mut Client, random: &mut fastrand::Rng, number: u64, done: u64) -> Result<()> {
    // Each writer has rows of its own: no deadlocks.
    let id = 2 * random.u64(..4000) + number;
    let bytes = random.u64(..1 << 40);
    client.run("BEGIN")?;
    for table in ["r1", "r2", "i"] {
        client.run(&match random.u8(..3) {
            0 => format!("DELETE FROM d.{table} WHERE id = {id}"),
            _ => format!("REPLACE INTO d.{table} VALUES ({id}, {done} % 9, REPEAT({bytes}, 40))"),
        })?;
    }
    client.run(if random.u8(..9) == 0 { "ROLLBACK" } else { "COMMIT" })?;
    let table = format!("d.young{number}");
    match done % 40 {
        10 => client
            .run(&format!("CREATE TABLE {table} ENGINE=RocksDB SELECT * FROM d.i LIMIT 200"))?,
        20 => client.run(&format!("ALTER TABLE {table} ADD COLUMN c INT, ADD INDEX (n)"))?,
        30 => client.run(&format!("DROP TABLE {table}"))?,
        _ => {}
    }
    Ok(())
}

/// Where the server makes its checkpoints.
fn checkpoint(server: &Server) -> PathBuf {
    server.datadir().join("#rocksdb/mariabackup-checkpoint")
}

fn assert_no_checkpoint(server: &Server) {
    assert!(!checkpoint(server).exists(), "{}", checkpoint(server).display());
}

fn links(scratch: &Scratch) -> Result<Tool> {
    let dir = scratch.join("bin");
    std::fs::create_dir(&dir)?;
    Tool::links(Path::new(env!("CARGO_BIN_EXE_haulout")), &dir)
}

/// Backs up to a stream and unpacks that.
fn through_a_stream(server: &Server, from: &Tool, to: &Tool, dir: &Path) -> Result<()> {
    let file = dir.with_extension("xbs");
    let command = from.backup_stream(server, &BackupOptions::default());
    process::run_into(command, std::fs::File::create(&file)?)?.success()?;
    std::fs::create_dir_all(dir)?;
    let mut extract = to.extract(dir, 2);
    extract.stdin(std::fs::File::open(&file)?);
    run(extract)?.success()?;
    Ok(())
}

/// Both faces, folder and stream, and each side of ours with the other side of the stock tool's.
#[test]
fn copies_of_every_way_replicate() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let options = options();
        let server = server(&options)?;
        let writers = Writers::start(&server)?;
        let (ours, stock, links) = (common::haulout(), Tool::stock(), links(&scratch)?);
        let dir = |name: &str| scratch.join(name);
        std::thread::sleep(Duration::from_millis(300));
        let finished = ours.run_backup(&server, &dir("ours-stock"))?;
        let summary: serde_json::Value = serde_json::from_slice(&finished.stdout)?;
        assert!(summary["rocksdb"]["files"].as_u64() > Some(3), "{summary}");
        assert_no_checkpoint(&server);
        stock.run_backup_under_load(&server, &dir("stock-ours"))?;
        links.run_backup(&server, &dir("links-links"))?;
        through_a_stream(&server, &ours, &stock, &dir("stream"))?;
        assert_no_checkpoint(&server);
        std::thread::sleep(Duration::from_millis(300));
        let done = writers.stop()?;
        assert!(done > 100, "{done} transactions only");
        for (name, tool) in [
            ("ours-stock", &stock),
            ("stock-ours", &ours),
            ("links-links", &links),
            ("stream", &ours),
        ] {
            let (backup, datadir) = (dir(name), dir(&format!("{name}-copy")));
            let position = BinlogPosition::of_backup(&backup)?;
            tool.run_prepare(&backup)?;
            let copy = proof::restore_and_boot(tool, &backup, &datadir, &options)
                .with_context(|| name.to_owned())?;
            proof::attach(&server, &copy, &position).with_context(|| name.to_owned())?;
            let tables = proof::ensure_equal(&server, &copy).with_context(|| name.to_owned())?;
            assert!(tables >= 3, "{name}: compared {tables} tables only");
        }
        Ok(())
    })());
}

/// Files and log of MyRocks elsewhere, and a transaction that is in its log alone.
#[test]
fn other_directories_and_prepared_transactions() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let places = |side: &str| -> Result<Vec<String>> {
            let data = scratch.join(&format!("{side}-data"));
            let wal = scratch.join(&format!("{side}-wal"));
            std::fs::create_dir_all(&wal)?;
            Ok(vec![
                format!("--rocksdb-datadir={}", data.display()),
                format!("--rocksdb-wal-dir={}", wal.display()),
            ])
        };
        let from = places("from")?.into_iter().fold(options(), ServerOptions::arg);
        let server = server(&from)?;
        let mut client = server.client()?;
        let change = "UPDATE d.r1 SET n = -5 WHERE id = 5";
        for sql in ["XA START 'x'", change, "XA END 'x'", "XA PREPARE 'x'"] {
            client.run(sql)?;
        }
        let (tool, links) = (common::haulout(), links(&scratch)?);
        let backup = scratch.join("backup");
        tool.run_backup(&server, &backup)?;
        assert!(!scratch.join("from-data/mariabackup-checkpoint").exists());
        tool.run_prepare(&backup)?;
        for (side, tool) in [("ours", &tool), ("links", &links)] {
            let places = places(side)?;
            let datadir = scratch.join(side);
            let mut restore = tool.restore(&backup, &datadir);
            restore.args(&places);
            tool.checked(restore)?;
            assert!(!datadir.join("#rocksdb").exists());
            let to = places.into_iter().fold(options(), ServerOptions::arg);
            let copy = proof::replica_options(&to).start_on(&datadir)?;
            copy.run("XA COMMIT 'x'")?;
            let n = copy.client()?.scalar("SELECT n FROM d.r1 WHERE id = 5")?;
            assert_eq!(n.as_deref(), Some("-5"), "{side}");
        }
        Ok(())
    })());
}

/// Without the privilege nothing is copied; left out, the rest is there.
#[test]
fn an_account_without_super() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server(&options())?;
        server.run("CREATE USER saver@localhost")?;
        server.run("GRANT RELOAD, PROCESS, BINLOG MONITOR, SELECT ON *.* TO saver@localhost")?;
        let how = |extra: &str| BackupOptions {
            user: "saver".into(),
            extra: vec![extra.into()],
            ..BackupOptions::default()
        };
        let (tool, target) = (common::haulout(), scratch.join("b"));
        let refused = run(tool.backup(&server, &target, &how("--quiet")))?;
        common::assert_failed(&refused, common::exit::SERVER, &["SUPER", "MyRocks", "GRANT"]);
        common::assert_no_backup(&target);
        let links = links(&scratch)?;
        for (tool, option) in [(&tool, "--skip-rocksdb"), (&links, "--skip-rocksdb-backup")] {
            let target = scratch.join(option);
            run(tool.backup(&server, &target, &how(option)))?.success()?;
            assert!(!target.join("#rocksdb").exists());
            assert!(target.join("d/r1.frm").exists());
        }
        server.run("GRANT SUPER ON *.* TO saver@localhost")?;
        run(tool.backup(&server, &scratch.join("whole"), &how("--quiet")))?.success()?;
        assert!(scratch.join("whole/#rocksdb/CURRENT").exists());
        Ok(())
    })());
}

/// Waits until the backup's checkpoint is there.
fn wait_for_checkpoint(server: &Server) -> Result<()> {
    let started = Instant::now();
    while !checkpoint(server).join("CURRENT").exists() {
        ensure!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// An interrupted backup removes its checkpoint; what a killed one leaves, the next removes.
#[test]
fn no_checkpoint_stays() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server(&options())?;
        server.run("CREATE TABLE d.big (id INT PRIMARY KEY, b BLOB) ENGINE=RocksDB")?;
        server
            .run("INSERT INTO d.big SELECT seq, RANDOM_BYTES(1024) FROM d.seq_1_to_1000")
            .or_else(
                // 10.5 has no RANDOM_BYTES.
                |_| {
                    let bytes = (0..32).map(|n| format!("UNHEX(SHA2(seq * 32 + {n}, 256))"));
                    let bytes = bytes.collect::<Vec<_>>().join(", ");
                    server.run(&format!(
                        "INSERT INTO d.big SELECT seq, CONCAT({bytes}) FROM d.seq_1_to_1000"
                    ))
                },
            )?;
        for n in 1..=19 {
            server.run(&format!(
                "INSERT INTO d.big SELECT id + 1000 * {n}, b FROM d.big WHERE id <= 1000"
            ))?;
        }
        let slowly = |target: &Path| -> Result<Running> {
            let extra = vec!["--throttle=20MiB".to_owned()];
            let how = BackupOptions { extra, ..BackupOptions::default() };
            process::start(common::haulout().backup(&server, target, &how), None)
        };
        let target = scratch.join("interrupted");
        let running = slowly(&target)?;
        wait_for_checkpoint(&server)?;
        running.signal(Signal::TERM)?;
        let finished = running.wait(Duration::from_secs(30))?;
        common::assert_failed(&finished, common::exit::INTERRUPTED, &["interrupt"]);
        common::assert_no_backup(&target);
        assert_no_checkpoint(&server);

        let running = slowly(&scratch.join("killed"))?;
        wait_for_checkpoint(&server)?;
        running.signal(Signal::KILL)?;
        running.wait(Duration::from_secs(30))?;
        assert!(checkpoint(&server).exists(), "the backup was through already");
        let how = BackupOptions::default();
        let next =
            run(common::haulout().backup(&server, &scratch.join("next"), &how))?.success()?;
        assert!(next.stderr.contains("removed a checkpoint"), "{}", next.report());
        assert_no_checkpoint(&server);

        // Something that the server cannot remove is named, before anything is copied.
        std::fs::create_dir_all(checkpoint(&server).join("strange"))?;
        let refused = run(common::haulout().backup(&server, &scratch.join("refused"), &how))?;
        common::assert_failed(&refused, common::exit::FAILED, &["mariabackup-checkpoint"]);
        Ok(())
    })());
}

/// Another backup that is still copying its checkpoint is waited for, and not for ever.
#[test]
fn two_backups_do_not_share_a_checkpoint() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server(&options())?;
        let mut other = server.client()?;
        other.run("DO GET_LOCK('mariabackup_rocksdb_checkpoint', 1)")?;
        let extra = vec!["--lock-timeout=1s".to_owned()];
        let how = BackupOptions { extra, ..BackupOptions::default() };
        let command = |name: &str| -> Command {
            common::haulout().backup(&server, &scratch.join(name), &how)
        };
        let refused = run(command("refused"))?;
        common::assert_failed(&refused, common::exit::TIMEOUT, &["MyRocks", "another backup"]);
        drop(other);
        run(command("done"))?.success()?;
        Ok(())
    })());
}
