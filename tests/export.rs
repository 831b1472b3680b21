//! Exporting without a server: what another server makes of the tables, and what the stock tool
//! would have written in our place.

mod common;

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use common::export::{back_up, export, import};
use common::{assert_failed, exit, haulout, ok};
use harness::compare::{Contents, quote};
use harness::process;
use harness::scratch::copy_tree;
use harness::tool::BackupOptions;
use harness::{Client, Generation, Result, Scratch, Server, ServerOptions, Tool};

/// Tables of every shape that a `.cfg` describes, with rows; `{instant}` marks what follows as a
/// change without a rebuild.
const SHAPES: &[&str] = &[
    "CREATE DATABASE d",
    "CREATE TABLE d.redundant (a INT PRIMARY KEY, b VARCHAR(50), c TEXT, KEY(b)) ROW_FORMAT=REDUNDANT",
    "INSERT INTO d.redundant SELECT seq, CONCAT('r', seq), REPEAT('x', seq % 900) FROM seq_1_to_2000",
    "CREATE TABLE d.compact (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(50), c CHAR(10), UNIQUE u (b, c)) \
     ROW_FORMAT=COMPACT",
    "INSERT INTO d.compact (b, c) SELECT CONCAT('r', seq), seq FROM seq_1_to_2000",
    "CREATE TABLE d.dynamic (a BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, b VARCHAR(500), c TEXT, \
     d DECIMAL(10,3), e DATETIME(6), f ENUM('x','y'), g BIT(9), h FLOAT, i DOUBLE, j YEAR, k DATE, \
     l TIME(3), m BINARY(16), n VARBINARY(20), o BLOB, p SET('a','b'), q INET6, KEY (b(100)), \
     KEY (c(20), d), UNIQUE (d, e))",
    "INSERT INTO d.dynamic (b, c, d, e) SELECT CONCAT('r', seq), REPEAT('t', IF(seq % 50 = 0, 20000, 10)), \
     seq / 3, NOW(6) FROM seq_1_to_2000",
    "CREATE TABLE d.zipped (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(90), c TEXT, g GEOMETRY NOT NULL, \
     KEY (b), SPATIAL (g)) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
    "INSERT INTO d.zipped SELECT seq, CONCAT('r', seq), REPEAT('x', seq % 5000), POINT(seq, 1) \
     FROM seq_1_to_2000",
    "CREATE TABLE d.zipped_small (a INT PRIMARY KEY, b VARCHAR(90), KEY (b)) \
     ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2",
    "INSERT INTO d.zipped_small SELECT seq, CONCAT('r', seq) FROM seq_1_to_2000",
    "CREATE TABLE d.no_key (a INT, b CHAR(20) CHARACTER SET latin1, c CHAR(20), \
     d CHAR(5) CHARACTER SET ucs2, e VARCHAR(5) CHARACTER SET utf16, f CHAR(3) CHARACTER SET utf32, \
     g CHAR(3) CHARACTER SET big5, h VARCHAR(3) CHARACTER SET ujis, KEY (c))",
    "INSERT INTO d.no_key SELECT seq, seq, seq, 1, 2, 3, 4, 5 FROM seq_1_to_100",
    "CREATE TABLE d.never_counted (a INT AUTO_INCREMENT PRIMARY KEY)",
    "CREATE TABLE d.counted_ahead (a INT AUTO_INCREMENT PRIMARY KEY, b INT) AUTO_INCREMENT=500",
    "CREATE TABLE d.counted_out (a TINYINT AUTO_INCREMENT PRIMARY KEY)",
    "INSERT INTO d.counted_out VALUES (127)",
    "CREATE TABLE d.computed (a INT PRIMARY KEY, b INT, v INT AS (b + 1) VIRTUAL, \
     w VARCHAR(30) AS (CONCAT(b, 'x')) VIRTUAL, s INT AS (b * 2) STORED, KEY (v), KEY (w, b))",
    "INSERT INTO d.computed (a, b) SELECT seq, seq FROM seq_1_to_1000",
    "CREATE TABLE d.words (a INT PRIMARY KEY, t TEXT, u VARCHAR(100), FULLTEXT (t), FULLTEXT (t, u))",
    "INSERT INTO d.words SELECT seq, CONCAT('word', seq, ' hello'), 'there' FROM seq_1_to_300",
    "CREATE TABLE d.places (a INT PRIMARY KEY, g GEOMETRY NOT NULL, p POINT NOT NULL, SPATIAL (g), SPATIAL (p))",
    "INSERT INTO d.places SELECT seq, POINT(seq, seq), POINT(-seq, seq) FROM seq_1_to_1000",
    "CREATE TABLE d.places_no_key (g GEOMETRY NOT NULL, SPATIAL (g)) ROW_FORMAT=COMPACT",
    "INSERT INTO d.places_no_key SELECT POINT(seq, seq) FROM seq_1_to_100",
    "CREATE TABLE d.parts (a INT PRIMARY KEY, b VARCHAR(10), KEY (b)) PARTITION BY HASH(a) PARTITIONS 3",
    "INSERT INTO d.parts SELECT seq, seq FROM seq_1_to_300",
    "CREATE TABLE d.`odd näme-1` (`ä b` INT PRIMARY KEY, `c``d` VARCHAR(10))",
    "INSERT INTO d.`odd näme-1` VALUES (1, 2)",
    "CREATE TABLE d.prefixes (a TEXT, b VARCHAR(200), c INT, PRIMARY KEY (a(10), b(5)), KEY (b), KEY (c, a(5)))",
    "INSERT INTO d.prefixes SELECT CONCAT(seq, 'text', seq), CONCAT(seq, 'b'), seq FROM seq_1_to_500",
    "CREATE TABLE d.versioned (a INT PRIMARY KEY, b INT) WITH SYSTEM VERSIONING",
    "INSERT INTO d.versioned VALUES (1, 2)",
    "UPDATE d.versioned SET b = 3",
    "CREATE TABLE d.added (a INT PRIMARY KEY, b VARCHAR(20))",
    "INSERT INTO d.added SELECT seq, seq FROM seq_1_to_500",
    "ALTER TABLE d.added ADD COLUMN c INT DEFAULT 7, ALGORITHM=INSTANT",
    "INSERT INTO d.added VALUES (1000, 'z', 9)",
    "CREATE TABLE d.changed (a INT PRIMARY KEY, b VARCHAR(20), c INT NOT NULL, d CHAR(10), e VARCHAR(400), KEY (d))",
    "INSERT INTO d.changed SELECT seq, seq, seq, seq, seq FROM seq_1_to_5000",
    "ALTER TABLE d.changed DROP COLUMN c, ALGORITHM=INSTANT",
    "ALTER TABLE d.changed DROP COLUMN e, ADD COLUMN f INT FIRST, ADD COLUMN g CHAR(4) DEFAULT 'q' AFTER a, \
     ALGORITHM=INSTANT",
    "INSERT INTO d.changed VALUES (5, 10001, 'gg', 'bb', 'dd')",
    "CREATE TABLE d.changed_long (a VARCHAR(200), b CHAR(10) NOT NULL, c INT, d TEXT, PRIMARY KEY (a, b))",
    "INSERT INTO d.changed_long SELECT CONCAT(REPEAT('k', seq % 190), seq), seq, seq, seq FROM seq_1_to_10000",
    "ALTER TABLE d.changed_long DROP COLUMN c, ALGORITHM=INSTANT",
    "ALTER TABLE d.changed_long ADD COLUMN z INT FIRST, ADD COLUMN y CHAR(20) NOT NULL DEFAULT 'q' AFTER a, \
     ALGORITHM=INSTANT",
    "CREATE TABLE d.changed_redundant (a VARCHAR(300), b CHAR(10) NOT NULL, c INT, d TEXT, \
     PRIMARY KEY (a(20), b)) ROW_FORMAT=REDUNDANT",
    "INSERT INTO d.changed_redundant SELECT CONCAT(seq, REPEAT('k', seq % 200)), seq, seq, seq FROM seq_1_to_10000",
    "ALTER TABLE d.changed_redundant DROP COLUMN c, ALGORITHM=INSTANT",
    "ALTER TABLE d.changed_redundant ADD COLUMN z INT FIRST, ALGORITHM=INSTANT",
    "CREATE TABLE d.changed_no_key (a INT, b VARCHAR(20) NOT NULL, c VARCHAR(300) NOT NULL, d BINARY(12) NOT NULL)",
    "INSERT INTO d.changed_no_key SELECT seq, seq, seq, 'x' FROM seq_1_to_5000",
    "ALTER TABLE d.changed_no_key DROP COLUMN b, ALGORITHM=INSTANT",
    "ALTER TABLE d.changed_no_key DROP COLUMN c, DROP COLUMN d, ALGORITHM=INSTANT",
    "ALTER TABLE d.changed_no_key ADD COLUMN f TEXT DEFAULT 'abcdefgh', ALGORITHM=INSTANT",
    "CREATE TABLE d.changed_emptied (a INT PRIMARY KEY, b INT)",
    "INSERT INTO d.changed_emptied SELECT seq, seq FROM seq_1_to_2000",
    "ALTER TABLE d.changed_emptied DROP COLUMN b, ADD COLUMN c INT, ALGORITHM=INSTANT",
    "DELETE FROM d.changed_emptied",
    "CREATE TABLE d.parent (a INT PRIMARY KEY)",
    "INSERT INTO d.parent VALUES (1)",
    "CREATE TABLE d.child (a INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.parent(a))",
    "INSERT INTO d.child VALUES (1, 1)",
    "CREATE TABLE d.reindexed (a INT PRIMARY KEY, b INT, c INT, KEY (b))",
    "INSERT INTO d.reindexed SELECT seq, seq, seq FROM seq_1_to_100",
    "ALTER TABLE d.reindexed ADD KEY (c), ALGORITHM=INPLACE, LOCK=NONE",
    "ALTER TABLE d.reindexed DROP PRIMARY KEY, ADD PRIMARY KEY (c, a)",
    "CREATE TABLE d.hashed (a INT PRIMARY KEY, b TEXT, UNIQUE (b))",
    "INSERT INTO d.hashed SELECT seq, seq FROM seq_1_to_100",
    "CREATE TABLE d.discarded (a INT PRIMARY KEY)",
    "ALTER TABLE d.discarded DISCARD TABLESPACE",
];

/// Shapes that only later servers know.
const LATER_SHAPES: &[&str] = &[
    "CREATE TABLE d.descending (a INT, b INT, c VARCHAR(20), PRIMARY KEY (a DESC, b), KEY (c DESC), UNIQUE (b DESC))",
    "INSERT INTO d.descending SELECT seq % 10, seq, seq FROM seq_1_to_1000",
    "CREATE TABLE d.later_types (a UUID PRIMARY KEY, b CHAR(9) COLLATE utf8mb4_uca1400_as_cs, KEY (b))",
    "INSERT INTO d.later_types SELECT UUID(), seq FROM seq_1_to_100",
];

/// Rows that go after a snapshot was taken, so that nothing may remove them for good.
const DELETES: &[&str] = &[
    "DELETE FROM d.dynamic WHERE a % 3 = 0",
    "UPDATE d.dynamic SET b = CONCAT(b, 'new'), c = REPEAT('u', 9000) WHERE a % 7 = 0",
    "DELETE FROM d.redundant WHERE a % 2 = 0",
    "DELETE FROM d.zipped_small WHERE a % 5 = 0",
    "DELETE FROM d.compact WHERE a > 30",
    "DELETE FROM d.computed WHERE a % 5 = 0",
    "DELETE FROM d.added WHERE a % 5 = 0",
    "DELETE FROM d.changed_long WHERE b % 5 = 0",
    "DELETE FROM d.changed_redundant WHERE b > 300",
    "DELETE FROM d.parts WHERE a % 5 = 0",
];

/// All statements, on one connection.
fn run_all(client: &mut Client, statements: &[&str]) -> Result<()> {
    client.run("SET SESSION foreign_key_checks = 0")?;
    for sql in statements {
        client.run(&sql.replace(" seq_", " d.seq_"))?;
    }
    Ok(())
}

/// Paths of all `.cfg` files below a directory.
fn cfg_files(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for database in fs::read_dir(dir)?.filter_map(Result::ok).filter(|e| e.path().is_dir()) {
        for file in fs::read_dir(database.path())? {
            let (database, file) = (database.file_name(), file?.file_name());
            if file.to_string_lossy().ends_with(".cfg") {
                found.push(format!("{}/{}", database.to_string_lossy(), file.to_string_lossy()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Imports what we exported. The server may only complain where it does so about the stock
/// tool's files too.
fn import_ours(
    client: &mut Client,
    server: &Server,
    [ours, theirs]: [&Path; 2],
    file: &str,
    table: &str,
) -> Result<()> {
    let warnings = import(client, server, ours, file, table)?;
    if !warnings.is_empty() {
        let stock = import(client, server, theirs, file, table)?;
        ensure!(
            warnings == stock,
            "{table}: {warnings:?}, but {stock:?} of the stock tool's files"
        );
        eprintln!("{table}, in the stock tool's form too: {warnings:?}");
        import(client, server, ours, file, table)?;
    }
    Ok(())
}

/// Every table that is in `source` comes to another server by its exported files alone.
fn import_everything(source: &Server, dirs: [&Path; 2], options: &ServerOptions) -> Result<()> {
    let target = options.start()?;
    let (mut from, mut to) = (source.client()?, target.client()?);
    to.run("SET SESSION foreign_key_checks = 0")?;
    to.run("CREATE DATABASE d")?;
    let mut imported = 0;
    for row in from.text(
        "SELECT table_name, CAST(CONVERT(table_name USING filename) AS BINARY), create_options LIKE '%partitioned%' \
         FROM information_schema.tables WHERE table_schema = 'd'",
    )? {
        let [name, file, partitioned] = &row[..] else { continue };
        let table = format!("d.{}", quote(name));
        if name == "discarded" {
            continue;
        }
        let definition = &from.text(&format!("SHOW CREATE TABLE {table}"))?[0][1];
        to.run("USE d")?;
        to.run(definition)?;
        if partitioned == "0" {
            import_ours(&mut to, &target, dirs, file, name)?;
        } else {
            to.run(&format!("CREATE TABLE d.single LIKE {table}"))?;
            to.run("ALTER TABLE d.single REMOVE PARTITIONING")?;
            for part in ["p0", "p1", "p2"] {
                import_ours(&mut to, &target, dirs, &format!("{file}#P#{part}"), "single")?;
                let exchange = format!("EXCHANGE PARTITION {part} WITH TABLE d.single");
                to.run(&format!("ALTER TABLE {table} {exchange}"))?;
            }
            to.run("DROP TABLE d.single")?;
        }
        imported += 1;
    }
    // Not every shape can be imported by 10.5.
    assert!(imported > 20, "only {imported} tables");
    from.run("DROP TABLE d.discarded")?;
    let differences = Contents::read(&mut from)?.differences(&Contents::read(&mut to)?);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // What was imported is a table like any other.
    to.run("INSERT INTO d.dynamic (b, d, e) VALUES ('new', -1, NOW(6))")?;
    to.run("DELETE FROM d.places WHERE a < 500")?;
    to.run("INSERT INTO d.compact (b) VALUES ('new')")?;
    let next = to.scalar("SELECT MAX(a) FROM d.compact")?;
    assert!(next.and_then(|a| a.parse::<u32>().ok()) > Some(2000), "AUTO_INCREMENT started over");
    Ok(())
}

/// Backs up tables of every shape, compares the `.cfg` files with those that the stock tool's
/// server writes, and imports the tables.
fn exports_as_the_stock_tool(generation: Generation, options: ServerOptions) -> Result<()> {
    let scratch = Scratch::new()?;
    let source = options.start()?;
    let mut client = source.client()?;
    // When it imports, a server of 10.5 loses the metadata of dropped columns, that of its own
    // exports too, and takes FULLTEXT indexes for corrupted instead of absent.
    let is_later = generation >= Generation::V10_11;
    let known = |all: &[&'static str]| -> Vec<&'static str> {
        let odd = |sql: &str| sql.contains(" d.changed") || sql.contains(" d.words");
        all.iter().copied().filter(|sql| is_later || !odd(sql)).collect()
    };
    run_all(&mut client, &known(SHAPES))?;
    if generation >= Generation::V10_11 {
        run_all(&mut client, LATER_SHAPES)?;
    }
    // While someone looks at the old rows, what is deleted stays where it is.
    let mut reader = source.client()?;
    reader.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
    run_all(&mut client, &known(DELETES))?;

    let (ours, theirs) = (scratch.join("ours"), scratch.join("theirs"));
    back_up(&source, &ours)?;
    copy_tree(&ours, &theirs)?;
    export(&haulout(), &ours)?.success()?;
    if generation < Generation::V10_11 {
        // The server that the tool of 10.5 starts on a copy of these tables does not end.
        return import_everything(&source, [&ours, &ours], &options);
    }
    let stock = Tool::Stock(generation);
    let mut command = stock.prepare(&theirs, 256 << 20);
    command.arg("--export");
    stock.checked(command)?;
    let files = cfg_files(&theirs)?;
    assert!(files.len() > 30, "{files:?}");
    assert_eq!(cfg_files(&ours)?, files);
    for file in files {
        let (left, right) = (fs::read(ours.join(&file))?, fs::read(theirs.join(&file))?);
        assert!(left == right, "{file} differs from the stock tool's");
    }
    import_everything(&source, [&ours, &theirs], &options)
}

#[test]
fn every_shape_is_imported() {
    let generation = Generation::under_test();
    ok(exports_as_the_stock_tool(generation, ServerOptions::of(generation)));
}

#[test]
fn every_shape_is_imported_on_10_5() {
    let generation = Generation::V10_5;
    ok(exports_as_the_stock_tool(generation, ServerOptions::of(generation)));
}

#[test]
fn every_shape_is_imported_on_11_8() {
    let generation = Generation::V11_8;
    ok(exports_as_the_stock_tool(generation, ServerOptions::of(generation)));
}

#[test]
fn small_pages_and_the_older_checksum() {
    let generation = Generation::under_test();
    let options = ServerOptions {
        page_size: 4 << 10,
        checksum: harness::ChecksumAlgorithm::Crc32,
        ..ServerOptions::of(generation)
    };
    ok(exports_as_the_stock_tool(generation, options));
}

/// What a prepared transaction has changed may still be committed: its table is refused. What an open one
/// has changed is rolled back, and nothing else is held up by either.
fn tables_of_open_transactions(options: ServerOptions) -> Result<()> {
    let scratch = Scratch::new()?;
    let source = options.start()?;
    source.run("CREATE DATABASE d")?;
    let names =
        ["inserted", "updated", "deleted", "large", "bulk", "xa", "ended", "undone", "quiet"];
    for name in names {
        source.run(&format!("CREATE TABLE d.{name} (a INT PRIMARY KEY, b VARCHAR(200))"))?;
        source.run(&format!("INSERT INTO d.{name} SELECT seq, 'x' FROM d.seq_1_to_5000"))?;
    }
    source.run("TRUNCATE TABLE d.bulk")?;
    let mut open = source.client()?;
    for sql in [
        "SET SESSION unique_checks = 0, foreign_key_checks = 0",
        "START TRANSACTION",
        // Servers from 10.6 on keep no undo of these rows.
        "INSERT INTO d.bulk SELECT seq, 'x' FROM d.seq_1_to_5000",
        "INSERT INTO d.inserted VALUES (10000, 'y')",
        "UPDATE d.updated SET b = 'y' WHERE a = 5",
        // More undo than a page holds.
        "UPDATE d.large SET b = REPEAT('z', 150)",
        "DELETE FROM d.deleted WHERE a = 7",
    ] {
        open.run(sql)?;
    }
    let mut xa = source.client()?;
    for sql in ["XA START 'x'", "DELETE FROM d.xa WHERE a = 9", "XA END 'x'", "XA PREPARE 'x'"] {
        xa.run(sql)?;
    }
    source.run("UPDATE d.ended SET b = 'y'")?;
    let mut undone = source.client()?;
    for sql in ["START TRANSACTION", "UPDATE d.undone SET b = 'y'", "ROLLBACK"] {
        undone.run(sql)?;
    }

    let backup = scratch.join("backup");
    back_up(&source, &backup)?;
    // Of an earlier run, or of someone else.
    fs::write(backup.join("d/xa.cfg"), "stale")?;
    let finished = export(&haulout(), &backup)?;
    assert_failed(&finished, exit::FAILED, &["d/xa", "prepared, but not committed"]);
    let mut expected: Vec<_> =
        names.iter().filter(|name| **name != "xa").map(|name| format!("d/{name}.cfg")).collect();
    expected.sort();
    let exported = || -> Result<Vec<_>> {
        Ok(cfg_files(&backup)?.into_iter().filter(|file| file.starts_with("d/")).collect())
    };
    assert_eq!(exported()?, expected, "{}", finished.report());
    // Once more, with nothing left to roll back.
    let again = export(&haulout(), &backup)?;
    assert_failed(&again, exit::FAILED, &["d/xa"]);
    assert_eq!(exported()?, expected);

    // A delta would not have what became of the transactions.
    open.run("COMMIT")?;
    let delta = scratch.join("delta");
    let since = BackupOptions { extra: vec![haulout().since(&backup)], ..BackupOptions::default() };
    process::run(haulout().backup(&source, &delta, &since))?.success()?;
    let refused = process::run(haulout().apply_delta(&backup, &delta))?;
    assert_failed(&refused, exit::USAGE, &["exported", "rolled back"]);
    for sql in [
        "DELETE FROM d.inserted WHERE a > 5000",
        "UPDATE d.updated SET b = 'x'",
        "UPDATE d.large SET b = 'x'",
        "INSERT INTO d.deleted VALUES (7, 'x')",
        "DELETE FROM d.bulk",
    ] {
        open.run(sql)?;
    }

    // The backup is what it was: its first server finds what was rolled back, and keeps what is prepared.
    let datadir = scratch.join("copy");
    haulout().run_restore(&backup, &datadir)?;
    let copy = options.start_on(&datadir)?;
    copy.wait_for_rollback()?;
    copy.run("XA ROLLBACK 'x'")?;
    xa.run("XA ROLLBACK 'x'")?;
    let (mut from, mut to) = (source.client()?, copy.client()?);
    let differences = Contents::read(&mut from)?.differences(&Contents::read(&mut to)?);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

#[test]
fn open_transactions_are_rolled_back_and_prepared_ones_refused() {
    ok(tables_of_open_transactions(ServerOptions::default()));
}

#[test]
fn open_transactions_in_the_system_tablespace_are_rolled_back() {
    let options = ServerOptions::of(Generation::V10_5);
    ok(tables_of_open_transactions(ServerOptions { undo_tablespaces: 0, ..options }));
}

/// A secondary index whose newest entries are still in the change buffer is not exported.
#[test]
fn tables_with_buffered_changes_are_refused() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let options =
            ServerOptions { buffer_pool: 8 << 20, ..ServerOptions::of(Generation::V10_11) };
        let source = options.arg("--innodb-change-buffering=all").start()?;
        for sql in [
            "CREATE DATABASE d",
            "CREATE TABLE d.quiet (a INT PRIMARY KEY)",
            "CREATE TABLE d.busy (a INT AUTO_INCREMENT PRIMARY KEY, b INT, c VARCHAR(100), d INT, \
             KEY (b), KEY (c), KEY (d))",
            "INSERT INTO d.busy (b, c, d) SELECT RAND(1) * 1e9, CONCAT(RAND(2) * 1e9, REPEAT('x', 60)), \
             RAND(3) * 1e9 FROM d.seq_1_to_200000",
        ] {
            source.run(sql)?;
        }
        let backup = scratch.join("backup");
        back_up(&source, &backup)?;
        let finished = export(&haulout(), &backup)?;
        assert_failed(&finished, exit::FAILED, &["d/busy", "change buffer"]);
        let exported: Vec<_> =
            cfg_files(&backup)?.into_iter().filter(|file| file.starts_with("d/")).collect();
        assert_eq!(exported, ["d/quiet.cfg"]);
        Ok(())
    })());
}

/// An import fails on deleted entries of a SPATIAL index, and after an instant ALTER TABLE calls
/// secondary indexes corrupted that have any. It does so with files that the server itself exports
/// too; we do not export such a table.
#[test]
fn deleted_entries_that_an_import_trips_over_are_refused() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let source = ServerOptions::default().start()?;
        source.run("CREATE DATABASE d")?;
        let mut reader = source.client()?;
        let shape = "(a INT PRIMARY KEY, b CHAR(10), g GEOMETRY NOT NULL, KEY (b))";
        for table in ["instant", "places", "zipped", "plain"] {
            let format = if table == "zipped" { "ROW_FORMAT=COMPRESSED" } else { "" };
            source.run(&format!("CREATE TABLE d.{table} {shape} {format}"))?;
            source.run(&format!(
                "INSERT INTO d.{table} SELECT seq, seq, POINT(seq, 1) FROM d.seq_1_to_5000"
            ))?;
        }
        source.run("ALTER TABLE d.instant ADD COLUMN c INT DEFAULT 7, ALGORITHM=INSTANT")?;
        source.run("ALTER TABLE d.places ADD SPATIAL KEY (g)")?;
        source.run("ALTER TABLE d.zipped ADD SPATIAL KEY (g)")?;
        reader.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
        for table in ["instant", "places", "zipped", "plain"] {
            source.run(&format!("DELETE FROM d.{table} WHERE a % 5 = 0"))?;
        }

        let backup = scratch.join("backup");
        back_up(&source, &backup)?;
        let finished = export(&haulout(), &backup)?;
        let words =
            ["d/instant", "index b", "instant alter table", "d/places", "d/zipped", "index g"];
        assert_failed(&finished, exit::FAILED, &words);
        assert!(!finished.stderr.contains("d/plain"), "{}", finished.report());

        let target = ServerOptions::default().start()?;
        let (mut to, mut flusher) = (target.client()?, source.client()?);
        let own = scratch.join("own");
        fs::create_dir_all(own.join("d"))?;
        to.run("CREATE DATABASE d")?;
        to.run("USE d")?;
        for table in ["instant", "places", "zipped", "plain"] {
            let definition = &flusher.text(&format!("SHOW CREATE TABLE d.{table}"))?[0][1];
            to.run(definition)?;
            flusher.run(&format!("FLUSH TABLES d.{table} FOR EXPORT"))?;
            for extension in ["ibd", "cfg"] {
                let file = format!("d/{table}.{extension}");
                fs::copy(source.datadir().join(&file), own.join(&file))?;
            }
            flusher.run("UNLOCK TABLES")?;
        }
        for table in ["instant", "places", "zipped"] {
            let error = import(&mut to, &target, &own, table, table).err();
            let error = error.context("the server imports its own export; export it too")?;
            assert!(error.to_string().contains("corrupt"), "{error:#}");
        }
        assert_eq!(import(&mut to, &target, &backup, "plain", "plain")?, Vec::<Vec<String>>::new());
        Ok(())
    })());
}

/// Encrypted tables have the same `.cfg`; a server with the key imports them.
#[test]
fn encrypted_tables() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let keys = scratch.join("keys.txt");
        fs::write(
            &keys,
            "1;770A8A65DA156D24EE2A093277530142\n2;880A8A65DA156D24EE2A093277530143\n",
        )?;
        let generation = Generation::under_test();
        let source = ServerOptions::of(generation)
            .arg("--plugin-load-add=file_key_management")
            .arg(format!("--file-key-management-filename={}", keys.display()))
            .arg("--innodb-encrypt-tables=ON")
            .arg("--innodb-encryption-threads=2")
            .start()?;
        let mut client = source.client()?;
        let shapes = [
            "CREATE DATABASE d",
            "CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(90), KEY (b)) ENCRYPTED=YES",
            "INSERT INTO d.t (b) SELECT CONCAT('r', seq) FROM seq_1_to_3000",
            "CREATE TABLE d.other_key (a INT PRIMARY KEY, b INT, c INT) ENCRYPTED=YES ENCRYPTION_KEY_ID=2",
            "INSERT INTO d.other_key SELECT seq, seq, seq FROM seq_1_to_3000",
            "ALTER TABLE d.other_key DROP COLUMN b, ADD COLUMN z INT FIRST, ALGORITHM=INSTANT",
            "CREATE TABLE d.clear (a INT PRIMARY KEY) ENCRYPTED=NO",
        ];
        run_all(&mut client, &shapes)?;
        let (ours, theirs) = (scratch.join("ours"), scratch.join("theirs"));
        back_up(&source, &ours)?;
        copy_tree(&ours, &theirs)?;
        let mut command = haulout().prepare(&ours, 256 << 20);
        command.arg("--export").arg("--keys-file").arg(&keys);
        process::run(command)?.success()?;
        let stock = Tool::Stock(generation);
        let mut command = stock.prepare(&theirs, 256 << 20);
        command.arg("--export");
        stock.checked(command)?;
        for name in ["t", "other_key", "clear"] {
            let file = format!("d/{name}.cfg");
            let (left, right) = (fs::read(ours.join(&file))?, fs::read(theirs.join(&file))?);
            assert!(left == right, "{file} differs from the stock tool's");
        }

        // To the server that they come from: one with a lower LSN refuses even its own files.
        for name in ["t", "other_key"] {
            let sum = format!("CHECKSUM TABLE d.{name}");
            let before = client.text(&sum)?;
            client.run(&format!("DELETE FROM d.{name} WHERE a > 100"))?;
            assert_eq!(import(&mut client, &source, &ours, name, name)?, Vec::<Vec<String>>::new());
            assert_eq!(client.text(&sum)?, before);
        }
        Ok(())
    })());
}

/// The server's own list of collations has no character set of another width than we think.
#[test]
fn widths_of_all_collations() {
    ok((|| -> Result<()> {
        for generation in [Generation::V10_11, Generation::V11_8] {
            let server = ServerOptions::of(generation).start()?;
            let rows = server.client()?.text(
                "SELECT id, maxlen, character_set_name FROM \
                 information_schema.collation_character_set_applicability \
                 NATURAL JOIN information_schema.character_sets",
            )?;
            assert!(rows.len() > 1000, "{} collations", rows.len());
            for row in rows {
                let bytes = innodb::cfg::collation::char_bytes(row[0].parse()?);
                let min = match row[2].as_str() {
                    "ucs2" | "utf16" | "utf16le" => 2,
                    "utf32" => 4,
                    _ => 1,
                };
                assert_eq!((bytes.min, bytes.max), (min, row[1].parse()?), "{row:?}");
            }
        }
        Ok(())
    })());
}

/// The stock face has the same switch.
#[test]
fn the_stock_face_exports() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let source = ServerOptions::default().start()?;
        source.run("CREATE DATABASE d")?;
        source.run("CREATE TABLE d.t (a INT PRIMARY KEY)")?;
        let backup = scratch.join("backup");
        back_up(&source, &backup)?;
        let Tool::Haulout(program) = haulout() else { unreachable!() };
        let face = scratch.join("mariadb-backup");
        std::os::unix::fs::symlink(program, &face)?;
        let mut command = std::process::Command::new(face);
        command.args(["--prepare", "--export"]);
        command.arg(format!("--target-dir={}", backup.display()));
        let finished = process::run(command)?.success()?;
        assert!(finished.stderr.contains("completed OK!"), "{}", finished.report());
        assert!(backup.join("d/t.cfg").exists());
        Ok(())
    })());
}
