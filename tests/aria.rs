//! Aria tables are whole when prepare is done: the server that starts on them has nothing to
//! recover, and finds nothing wrong. Where the stock tool recovers them too, it comes to the same
//! bytes.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::ensure;
use harness::keys::KeyFile;
use harness::proof::restore_and_boot;
use harness::scratch::copy_tree;
use harness::tool::AriaOutcome;
use harness::{Generation, Result, Scratch, Server, ServerOptions, Tool, pages};

const TABLES: &[&str] = &[
    "CREATE DATABASE g",
    "CREATE TABLE g.a (id INT AUTO_INCREMENT PRIMARY KEY, k INT, v VARCHAR(300), b BLOB, KEY (k), \
     KEY (v(50))) ENGINE=Aria TRANSACTIONAL=1",
    "CREATE TABLE g.c (id BIGINT AUTO_INCREMENT PRIMARY KEY, k INT, v VARCHAR(300), b MEDIUMBLOB, \
     UNIQUE (v), KEY (k)) ENGINE=Aria TRANSACTIONAL=1 CHECKSUM=1",
    "CREATE TABLE g.f (id INT PRIMARY KEY, t TEXT, FULLTEXT (t)) ENGINE=Aria",
    "CREATE TABLE g.s (id INT PRIMARY KEY, p POINT NOT NULL, SPATIAL INDEX (p)) ENGINE=Aria",
    "CREATE TABLE g.p (id INT, k VARCHAR(60), n INT, PRIMARY KEY (id), KEY (k, n)) ENGINE=Aria \
     PACK_KEYS=1 PAGE_CHECKSUM=0 PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE TABLE g.l (id SMALLINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, a VARCHAR(2000), \
     c LONGBLOB) ENGINE=Aria",
    "INSERT INTO g.a (k, v, b) SELECT seq, CONCAT('row ', seq, REPEAT('x', seq % 200)), \
     REPEAT('b', seq * 7 % 3000) FROM g.seq_1_to_2000",
    "INSERT INTO g.c (k, v, b) SELECT seq, CONCAT('row ', seq, REPEAT('y', seq % 200)), \
     REPEAT('c', seq % 17 * 1500) FROM g.seq_1_to_800",
    "INSERT INTO g.f SELECT seq, CONCAT('hello word', seq, ' and w', seq % 77) FROM g.seq_1_to_500",
    "INSERT INTO g.s SELECT seq, POINT(seq % 100, seq % 77) FROM g.seq_1_to_800",
    "INSERT INTO g.p SELECT seq, CONCAT('packed key ', seq % 500), seq FROM g.seq_1_to_2000",
];

/// A statement of the load.
fn statement(random: &mut fastrand::Rng) -> String {
    let r = random.u32(..1 << 30);
    match random.u8(..15) {
        0 | 1 => format!(
            "INSERT INTO g.a (k, v, b) VALUES ({r}, CONCAT('n{r}', REPEAT('z', {})), \
             REPEAT('q', {}))",
            r % 250,
            r % 4000
        ),
        2 => format!("INSERT INTO g.c (k, v, b) VALUES ({r}, 'u{r}', REPEAT('k', {}))", r % 40_000),
        3 => format!("UPDATE g.a SET v = 'up{r}' WHERE id = {}", r % 2000),
        4 => format!("UPDATE g.c SET b = REPEAT('m', {}) WHERE id = {}", r % 60_000, r % 800),
        5 => format!("DELETE FROM g.a WHERE id = {}", r % 3000),
        6 => format!("DELETE FROM g.c WHERE id = {}", r % 1000),
        7 => format!("INSERT IGNORE INTO g.f VALUES ({r}, 'some words for {r} and w{}')", r % 90),
        8 => format!("UPDATE g.a SET k = k + 1 WHERE id BETWEEN {0} AND {0} + 30", r % 2000),
        9 => {
            format!("INSERT IGNORE INTO g.s VALUES ({}, POINT({}, {}))", r % 9000, r % 300, r % 177)
        }
        10 => format!("DELETE FROM g.s WHERE id = {}", r % 2000),
        11 => format!("REPLACE INTO g.p VALUES ({}, 'packed key {}', {r})", r % 3000, r % 700),
        12 => format!("DELETE FROM g.p WHERE id = {}", r % 3000),
        13 => format!(
            "INSERT INTO g.l (a, c) VALUES (REPEAT('a', {}), REPEAT('c', {}))",
            r % 2000,
            r % 1_300_000
        ),
        _ => "DELETE FROM g.l ORDER BY RAND() LIMIT 1".to_owned(),
    }
}

/// Statements one after the other, with `pause` in between, until they are stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Writers {
    fn start(server: &Server, seed: u64, count: u64, pause: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..count {
            let (mut client, stop) = (server.client()?, Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed * 100 + number);
                while !stop.load(Ordering::Relaxed) {
                    // Rows that are there already are none of our concern.
                    let _ = client.run(&statement(&mut random));
                    std::thread::sleep(pause);
                }
                Ok(())
            }));
        }
        Ok(Self { stop, threads })
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    }
}

/// What a server finds in the tables of a prepared backup.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    sums: Vec<Vec<String>>,
    complaints: Vec<Vec<String>>,
    recovered: bool,
}

fn boot(backup: &Path, datadir: &Path, options: &ServerOptions) -> Result<Found> {
    let server = restore_and_boot(&common::haulout(), backup, datadir, options)?;
    let mut client = server.client()?;
    let tables = client.text(
        "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
         WHERE engine = 'Aria' AND table_schema IN ('g', 'mysql') ORDER BY 1",
    )?;
    let names: Vec<&str> = tables.iter().map(|row| row[0].as_str()).collect();
    ensure!(names.len() > 20, "{names:?}");
    let complaints = client.text(&format!("CHECK TABLE {} EXTENDED", names.join(", ")))?;
    let complaints = complaints.into_iter().filter(|row| row[3] != "OK").collect();
    let sums = client.text(&format!("CHECKSUM TABLE {} EXTENDED", names.join(", ")))?;
    let recovered = server.log_tail().contains("recovered pages")
        || server.log_tail().contains("transactions to roll back");
    Ok(Found { sums, complaints, recovered })
}

/// Backups under load, each prepared by both tools.
fn recovered(generation: Generation, seed: u64) -> Result<()> {
    recovered_on(ServerOptions::of(generation), seed)
}

fn recovered_on(options: ServerOptions, seed: u64) -> Result<()> {
    let scratch = Scratch::new()?;
    let generation = options.generation;
    // Small enough for the log to be of several files.
    let options = options.arg("--aria-log-file-size=8388608");
    let server = options.start()?;
    for sql in TABLES {
        server.run(sql)?;
    }
    // Statements can be open in any backup; the lighter the load, the more rarely.
    let loads = [(2, 4), (4, 0), (1, 30), (1, 100), (1, 200), (1, 400), (1, 400), (1, 400)];
    let by_stock_too = generation >= Generation::V10_11;
    let mut equal = 0;
    for (round, (writers, pause)) in loads.into_iter().enumerate() {
        if round >= 3 && (equal > 0 || !by_stock_too) {
            break;
        }
        let pause = Duration::from_millis(pause);
        let writers = Writers::start(&server, seed + round as u64, writers, pause)?;
        std::thread::sleep(Duration::from_millis(1200));
        let name = |what: &str| scratch.join(&format!("{what}-{round}"));
        let (raw, left, right) = (name("raw"), name("stock"), name("haulout"));
        common::haulout().run_backup(&server, &raw)?;
        writers.stop()?;
        copy_tree(&raw, &left)?;
        copy_tree(&raw, &right)?;
        Tool::Stock(generation).run_prepare(&left)?;
        let outcome = common::haulout().run_prepare_with_aria(&right)?;
        if outcome.is_as_by_stock(generation) {
            let comparison = pages::compare_aria(&left, &right)?;
            ensure!(comparison.differences.is_empty(), "{outcome:?}: {}", comparison.report());
            ensure!(comparison.files > 40, "{comparison:?}");
            equal += 1;
        }
        let by_stock = boot(&left, &name("stock-data"), &options)?;
        let by_us = boot(&right, &name("haulout-data"), &options)?;
        ensure!(by_us.complaints.is_empty(), "{outcome:?}: {:?}", by_us.complaints);
        ensure!(by_us.sums == by_stock.sums, "{outcome:?}: {by_us:?}, by stock: {by_stock:?}");
        let left_to_server = matches!(outcome, AriaOutcome::LeftToServer(_));
        ensure!(by_us.recovered <= left_to_server, "{outcome:?}, but the server recovered");
        for dir in [raw, left, right, name("stock-data"), name("haulout-data")] {
            std::fs::remove_dir_all(dir)?;
        }
        println!("round {round}: {outcome:?}");
    }
    ensure!(equal > 0 || !by_stock_too, "nothing was compared");
    Ok(())
}

#[test]
fn tables_are_whole_on_10_5() {
    common::ok(recovered(Generation::V10_5, 50));
}

#[test]
fn tables_are_whole_on_10_11() {
    common::ok(recovered(Generation::V10_11, 60));
}

#[test]
fn tables_are_whole_on_11_8() {
    common::ok(recovered(Generation::V11_8, 70));
}

/// The same with tables that are encrypted.
#[test]
fn encrypted_tables_are_whole() {
    for (generation, keys) in [
        (Generation::V10_11, KeyFile::plain().unwrap()),
        (Generation::V11_8, KeyFile::encrypted().unwrap()),
    ] {
        let options = keys.used_by(ServerOptions::of(generation));
        common::ok(recovered_on(options.arg("--aria-encrypt-tables=ON"), 80));
    }
}

/// A long statement is under way: its rows are in the log, and none of them in the copy.
#[test]
fn a_statement_under_way_is_left_out() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let options = ServerOptions::default();
        let server = options.start()?;
        for sql in TABLES {
            server.run(sql)?;
        }
        let mut client = server.client()?;
        let slow = std::thread::spawn(move || {
            // Fifty rows in the time that a backup takes.
            client.run(
                "INSERT INTO g.s SELECT 10000 + seq + SLEEP(0.1), POINT(1, 2) FROM g.seq_1_to_50",
            )
        });
        let writers = Writers::start(&server, 7, 1, Duration::from_millis(5))?;
        std::thread::sleep(Duration::from_millis(500));
        let (backup, datadir) = (scratch.join("backup"), scratch.join("data"));
        common::haulout().run_backup(&server, &backup)?;
        writers.stop()?;
        slow.join().unwrap()?;
        let outcome = common::haulout().run_prepare_with_aria(&backup)?;
        let copy = restore_and_boot(&common::haulout(), &backup, &datadir, &options)?;
        let complaints = copy.client()?.text("CHECK TABLE g.s EXTENDED")?;
        ensure!(complaints.iter().all(|row| row[3] == "OK"), "{complaints:?}");
        let slow_rows = copy.client()?.scalar("SELECT COUNT(*) FROM g.s WHERE id > 10000")?;
        ensure!(slow_rows.as_deref() == Some("0"), "{slow_rows:?}, {outcome:?}");
        Ok(())
    })());
}
