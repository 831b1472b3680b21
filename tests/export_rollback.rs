//! Exporting tables that open transactions have changed: what is imported is what was committed, whatever
//! those did, and the backup itself still is one.

mod common;

use common::export::{back_up, export, import};
use common::{assert_failed, exit, haulout, ok};
use harness::compare::{Contents, quote};
use harness::scratch::copy_tree;
use harness::{Client, Generation, Result, Scratch, Server, ServerOptions, Tool};

/// More seeds than those of every day: `HAULOUT_ROLLBACK_SEEDS=30`, or `7..8` for that one.
const SEEDS: &str = "HAULOUT_ROLLBACK_SEEDS";

/// Tables: name, definition, the values of row `seq`, columns that are updated with their new values.
type Shape = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const SHAPES: &[Shape] = &[
    (
        "plain",
        "(k INT PRIMARY KEY, a INT, b VARCHAR(200), c CHAR(20), KEY (a), KEY (b, a), UNIQUE u (a, k))",
        "seq, seq % 50, REPEAT('b', seq % 190), seq",
        &[
            ("a", "a + 1"),
            ("b", "REPEAT('n', FLOOR(RAND() * 200))"),
            ("b", "NULL"),
            ("c", "CONCAT(a, 'c')"),
            ("a", "NULL"),
        ],
    ),
    (
        "compact",
        "(k INT PRIMARY KEY, a TEXT, b VARBINARY(300), KEY (a(30)), KEY (b(10))) ROW_FORMAT=COMPACT",
        "seq, REPEAT(CONCAT('é', seq), seq % 40), REPEAT('b', seq % 290)",
        &[("a", "CONCAT('ü', a)"), ("b", "REPEAT('n', FLOOR(RAND() * 299))"), ("a", "NULL")],
    ),
    (
        "no_key",
        "(k INT, a VARCHAR(40), KEY (a), KEY (k)) COLLATE utf8mb4_bin",
        "seq, CONCAT('a', seq)",
        &[("a", "CONCAT(a, 'longer')"), ("a", "'x'"), ("a", "NULL")],
    ),
    (
        "long_key",
        "(k VARCHAR(60), l INT, a VARCHAR(900), b INT NOT NULL, PRIMARY KEY (k, l), KEY (b), KEY (a(100)), \
         KEY (l, b))",
        "CONCAT('key', seq), seq % 7, REPEAT('ä', seq % 300), seq",
        &[
            ("a", "REPEAT('€', FLOOR(RAND() * 290))"),
            ("b", "b + 1000"),
            ("l", "l + 100"),
            ("k", "CONCAT(k, 'x')"),
        ],
    ),
    (
        "prefix_key",
        "(k VARCHAR(60), l INT, a INT, PRIMARY KEY (k(8)), KEY (a), KEY (k)) COLLATE utf8mb4_bin",
        "CONCAT('k', seq, '-', REPEAT('é', 20)), seq, seq % 5",
        &[("a", "a + 1"), ("k", "CONCAT(k, 'x')")],
    ),
    (
        "blobs",
        "(k INT PRIMARY KEY, a LONGTEXT, b INT, KEY (b))",
        "seq, REPEAT('t', IF(seq % 4 = 0, 30000, 50)), seq",
        &[
            ("a", "REPEAT('n', 25000)"),
            ("a", "'short'"),
            ("b", "b + 1"),
            ("k", "k + 100000"),
            ("a", "NULL"),
        ],
    ),
    (
        "wide",
        "(k INT PRIMARY KEY, a CHAR(10) CHARACTER SET utf8mb4, b DECIMAL(20,5), c DATETIME(6), d DOUBLE, \
         e BIT(9), f ENUM('x','y'), g JSON, h BINARY(5), KEY (a), KEY (b, c))",
        "seq, seq, seq, NOW(6), seq, 1, 'x', '{}', 'h'",
        &[
            ("a", "'ü'"),
            ("b", "NULL"),
            ("c", "NOW(6)"),
            ("e", "7"),
            ("g", "REPEAT('x', 500)"),
            ("h", "NULL"),
        ],
    ),
    (
        "squeezed",
        "(k INT PRIMARY KEY, a VARCHAR(100), KEY (a)) PAGE_COMPRESSED=1",
        "seq, CONCAT('a', seq)",
        &[("a", "CONCAT(a, 'b')"), ("a", "NULL")],
    ),
    ("empty", "(k INT PRIMARY KEY, a VARCHAR(100), KEY (a))", "", &[("a", "'n'")]),
    ("only_key", "(k INT PRIMARY KEY)", "seq", &[("k", "k + 100000")]),
];

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var(SEEDS).unwrap_or_default();
    match text.split_once("..") {
        Some((first, end)) => first.parse().unwrap_or(0)..end.parse().unwrap_or(1),
        None => 0..text.parse().unwrap_or(2),
    }
}

/// A statement on the rows of `shape` that this transaction may change.
fn statement(rng: &mut fastrand::Rng, shape: &Shape, place: usize) -> String {
    let (name, _, values, updates) = shape;
    // Transactions have rows of their own, so that none waits for another for long.
    let mine = format!("MOD(CRC32(k), 3) = {place}");
    let some = |rng: &mut fastrand::Rng| format!("{mine} AND RAND({}) < 0.2", rng.u32(..));
    match rng.u32(..10) {
        0..5 => {
            let (column, value) = updates[rng.usize(..updates.len())];
            format!("UPDATE IGNORE d.{name} SET {column} = {value} WHERE {}", some(rng))
        }
        5..7 => format!("DELETE FROM d.{name} WHERE {}", some(rng)),
        _ if values.is_empty() => {
            let first = 1000 * (place + 1) + rng.usize(..900);
            format!(
                "INSERT IGNORE INTO d.{name} SELECT seq, 'i' FROM d.seq_{first}_to_{}",
                first + 20
            )
        }
        choice => {
            let first = 20_000 + 10_000 * place + rng.usize(..500);
            let verb = if choice == 7 { "REPLACE INTO" } else { "INSERT IGNORE INTO" };
            format!("{verb} d.{name} SELECT {values} FROM d.seq_{first}_to_{}", first + 60)
        }
    }
}

/// Three transactions that stay open, and what they did.
fn transactions(source: &Server, rng: &mut fastrand::Rng) -> Result<(Vec<Client>, Vec<String>)> {
    let (mut open, mut done) = (Vec::new(), Vec::new());
    for place in 0..3 {
        let mut client = source.client()?;
        client.run(
            "SET SESSION innodb_lock_wait_timeout = 1, sql_mode = '', alter_algorithm = 'DEFAULT'",
        )?;
        client.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
        client.run("START TRANSACTION")?;
        for _ in 0..25 {
            let sql = match rng.u32(..12) {
                0 => "SAVEPOINT s".to_owned(),
                1 => "ROLLBACK TO s".to_owned(),
                _ => {
                    let shape = &SHAPES[rng.usize(..SHAPES.len())];
                    statement(rng, shape, place)
                }
            };
            // Some of them wait for another transaction, or have no savepoint.
            let result = client.run(&sql);
            done.push(match result {
                Ok(()) => sql,
                Err(error) => format!("{sql} -- {error}"),
            });
        }
        open.push(client);
    }
    Ok((open, done))
}

/// Tables of all shapes, with rows.
fn fill(client: &mut Client) -> Result<()> {
    client.run("CREATE DATABASE d")?;
    client.run("SET SESSION sql_mode = ''")?;
    for (name, definition, values, _) in SHAPES {
        client.run(&format!("CREATE TABLE d.{name} {definition}"))?;
        if !values.is_empty() {
            client.run(&format!("INSERT INTO d.{name} SELECT {values} FROM d.seq_1_to_1500"))?;
        }
    }
    Ok(())
}

/// Names of the tables that are imported. Servers after 10.5 often do not come to an end when they import
/// a page-compressed table with rows to remove, their own exports included.
fn tables(generation: Generation) -> impl Iterator<Item = &'static str> {
    let hangs = move |name: &str| name == "squeezed" && generation >= Generation::V10_11;
    SHAPES.iter().map(|(name, ..)| *name).filter(move |name| !hangs(name))
}

/// Imports tables of an exported backup into a server of its own, and compares them.
fn import_all(
    source: &Server,
    tables: &[&str],
    dir: &std::path::Path,
    options: &ServerOptions,
) -> Result<()> {
    let target = options.start()?;
    let (mut from, mut to) = (source.client()?, target.client()?);
    to.run("CREATE DATABASE d")?;
    to.run("USE d")?;
    for name in tables {
        to.run(&from.text(&format!("SHOW CREATE TABLE d.{}", quote(name)))?[0][1])?;
        let warnings = import(&mut to, &target, dir, name, name)?;
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        let sum = format!("CHECKSUM TABLE d.{name}");
        assert_eq!(to.text(&sum)?, from.text(&sum)?, "{name}");
    }
    // They are tables like any other.
    for name in tables {
        to.run(&format!("DELETE FROM d.{name} WHERE RAND() < 0.7"))?;
        for row in to.text(&format!("CHECK TABLE d.{name} EXTENDED"))? {
            assert_eq!(row[3], "OK", "{name}: {row:?}");
        }
    }
    Ok(())
}

fn random_transactions(seed: u64, generation: Generation, options: ServerOptions) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let scratch = Scratch::new()?;
    let source = options.start()?;
    let mut client = source.client()?;
    fill(&mut client)?;
    let (open, done) = transactions(&source, &mut rng)?;
    let committed = Contents::read(&mut client)?;

    let (ours, theirs) = (scratch.join("ours"), scratch.join("theirs"));
    back_up(&source, &ours)?;
    copy_tree(&ours, &theirs)?;
    // Rows that became short, and whose pages were merged, may not fit any more.
    let finished = export(&haulout(), &ours)?;
    let full = |name: &str| finished.stderr.contains(&format!("d/{name} is not exported"));
    let tables: Vec<_> = tables(generation).filter(|name| !full(name)).collect();
    let refusals = finished.stderr.matches("is not exported").count();
    let of_room = finished.stderr.matches("has no room for an old row").count();
    assert!(refusals <= 2 && of_room >= refusals, "{}\n{}", done.join("\n"), finished.report());
    let said = |words: &str| finished.stderr.lines().filter(|line| line.contains(words)).count();
    let concerned = said("rolled back");
    assert_eq!(said("d/squeezed:"), said("d/squeezed is page-compressed"));
    println!("{concerned} tables, {of_room} without room, {} statements", done.len());
    assert!(concerned > SHAPES.len() / 2, "{}\n{}", done.join("\n"), finished.report());
    let context = |error: anyhow::Error| error.context(done.join("\n"));
    import_all(&source, &tables, &ours, &options).map_err(context)?;
    // What the harness expects, the stock tool does, too.
    if seed == 0 && generation >= Generation::V10_11 {
        let stock = Tool::Stock(generation);
        let mut command = stock.prepare(&theirs, 256 << 20);
        command.arg("--export");
        stock.checked(command)?;
        import_all(&source, &tables, &theirs, &options)?;
    }

    let datadir = scratch.join("copy");
    haulout().run_restore(&ours, &datadir)?;
    let copy = options.start_on(&datadir)?;
    copy.wait_for_rollback()?;
    let differences = committed.differences(&Contents::read(&mut copy.client()?)?);
    assert!(differences.is_empty(), "{}\n{}", differences.join("\n"), done.join("\n"));
    for (name, ..) in SHAPES {
        for row in copy.client()?.text(&format!("CHECK TABLE d.{name} EXTENDED"))? {
            // Of pages that have nothing but entries that go, one entry is left: deleted, and of no row.
            let left = row[2] == "Warning" && row[3].contains("info_bits=32");
            assert!(row[3] == "OK" || left, "{name}: {row:?}");
        }
    }
    let errors = copy.logged_errors()?;
    assert!(errors.is_empty(), "the copy's server logged errors:\n{}", errors.join("\n"));
    drop(open);
    Ok(())
}

#[test]
fn what_was_committed_is_imported() {
    let generation = Generation::under_test();
    for seed in seeds() {
        println!("seed {seed}");
        ok(random_transactions(seed, generation, ServerOptions::of(generation)));
    }
}

/// Shapes of which rows cannot be rolled back are refused, with the reason.
#[test]
fn what_cannot_be_rolled_back_is_refused() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let source = ServerOptions::default().start()?;
        let mut client = source.client()?;
        client.run("CREATE DATABASE d")?;
        for (name, shape) in [
            ("redundant", "(a INT PRIMARY KEY, b INT, KEY (b)) ROW_FORMAT=REDUNDANT"),
            ("zipped", "(a INT PRIMARY KEY, b INT, KEY (b)) ROW_FORMAT=COMPRESSED"),
            ("instant", "(a INT PRIMARY KEY, b INT, KEY (b))"),
            (
                "places",
                "(a INT PRIMARY KEY, b INT, g POINT NOT NULL DEFAULT POINT(1, 1), SPATIAL KEY (g))",
            ),
            ("computed", "(a INT PRIMARY KEY, b INT, v INT AS (b + 1) VIRTUAL, KEY (v))"),
            ("fine", "(a INT PRIMARY KEY, b INT, KEY (b))"),
            ("full", "(a INT PRIMARY KEY, b INT, c VARCHAR(200), KEY (b))"),
        ] {
            client.run(&format!("CREATE TABLE d.{name} {shape}"))?;
            client
                .run(&format!("INSERT INTO d.{name} (a, b) SELECT seq, seq FROM d.seq_1_to_100"))?;
        }
        client.run("UPDATE d.full SET c = REPEAT('c', 200)")?;
        client
            .run("INSERT INTO d.full SELECT seq, seq, REPEAT('c', 200) FROM d.seq_101_to_5000")?;
        client.run("ALTER TABLE d.instant ADD COLUMN c INT DEFAULT 7, ALGORITHM=INSTANT")?;
        let names = ["redundant", "zipped", "instant", "places", "computed", "full", "fine"];
        let mut open = source.client()?;
        open.run("START TRANSACTION")?;
        for name in names {
            open.run(&format!("UPDATE d.{name} SET b = b + 1 WHERE a < 10"))?;
        }
        // Pages that were full become one.
        open.run("UPDATE d.full SET c = NULL")?;
        let backup = scratch.join("backup");
        back_up(&source, &backup)?;
        let finished = export(&haulout(), &backup)?;
        let words = [
            "d/redundant",
            "row_format=redundant",
            "d/zipped",
            "row_format=compressed",
            "d/instant",
            "instant alter table",
            "d/places",
            "spatial index",
            "d/computed",
            "virtual column",
            "d/full",
            "no room",
        ];
        assert_failed(&finished, exit::FAILED, &words);
        for name in names {
            let exported = backup.join(format!("d/{name}.cfg")).exists();
            assert_eq!(exported, name == "fine", "{name}: {}", finished.report());
        }
        Ok(())
    })());
}
