//! The face of `mariadb-binlog`: its text is that of the stock tool, and replays to the same state.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use harness::keys::KeyFile;
use harness::process::{Finished, run};
use harness::{Generation, Result, Scratch, Server, ServerOptions};

/// Where files of LOAD DATA go, so that both tools name the same.
const LOAD_DIR: &str = "load";

/// Options of which each must give the same text.
const OPTIONS: &[&str] = &[
    "",
    "-v",
    "-vv --print-table-metadata",
    "--base64-output=decode-rows -vv",
    "--base64-output=never",
    "-s",
    "-s -v --print-row-count",
    "-H",
    "-D --set-charset=utf8mb4",
    "--skip-print-row-count --skip-annotate-row-events --skip-print-row-event-positions",
    "-c --offset=7",
    "--start-position=256 --stop-position=4000",
    "--start-position=256 --base64-output=decode-rows",
    "--database=other",
    "--table=changes -v",
    "--rewrite-db=corpus->elsewhere -v",
    "--do-domain-ids=7",
    "--ignore-domain-ids=7 --do-server-ids=1",
    "--ignore-server-ids=1",
    "--stop-position=0-1-9",
    "--stop-position=0-1-20,7-1-2",
    "--skip-gtid-strict-mode --start-position=0-1-9 --stop-position=0-1-15",
    "--start-datetime=2001-09-09T01:46:41",
    "--stop-datetime=20010909014641",
];

/// Tables of every type, with values at their ends.
const TYPES: &[&str] = &[
    "CREATE TABLE ints (id INT PRIMARY KEY, a TINYINT, b TINYINT UNSIGNED, c SMALLINT, d SMALLINT \
     UNSIGNED, e MEDIUMINT, f MEDIUMINT UNSIGNED, g INT UNSIGNED, h BIGINT, i BIGINT UNSIGNED, j \
     YEAR, k FLOAT, l DOUBLE, m BIT(1), n BIT(13), o BIT(64))",
    "INSERT INTO ints VALUES (1, -128, 255, -32768, 65535, -8388608, 16777215, 4294967295, \
     -9223372036854775808, 18446744073709551615, 2155, -1.5, 2.25e300, b'1', b'1010101010101', \
     b'1'), (2, 127, 0, 32767, 0, 8388607, 0, 0, 9223372036854775807, 0, 0, 3.4, 1/3, b'0', b'1', \
     x'ffffffffffffffff'), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1e-20, \
     -1e-5, NULL, NULL, NULL), (4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1901, 123456789, 1e15, b'0', 0, 0)",
    "CREATE TABLE decs (id INT PRIMARY KEY, a DECIMAL(10,2), b DECIMAL(65,30), c DECIMAL(38,0), d \
     DECIMAL(1,1), e DECIMAL(9,9), f DECIMAL(18,9))",
    "INSERT INTO decs VALUES (1, -12345678.91, \
     -12345678901234567890123456789012345.123456789012345678901234567891, \
     12345678901234567890123456789012345678, 0.9, -0.123456789, 123456789.987654321), (2, 0, 0, 0, \
     0, 0, 0), (3, 1.05, 0.000000000000000000000000000001, -1, -0.1, 0.000000001, 1)",
    "CREATE TABLE times (id INT PRIMARY KEY, d DATE, t TIME, t3 TIME(3), t6 TIME(6), dt DATETIME, \
     dt1 DATETIME(1), dt6 DATETIME(6), ts TIMESTAMP NULL, ts2 TIMESTAMP(2) NULL, ts6 TIMESTAMP(6) \
     NULL)",
    "INSERT INTO times VALUES (1, '9999-12-31', '838:59:59', '-00:00:00.001', \
     '-838:59:59.999999', '9999-12-31 23:59:59', '2024-02-29 12:34:56.7', '1000-01-01 \
     00:00:00.000001', '2038-01-19 03:14:07', '1970-01-02 00:00:01.25', '2001-09-09 \
     01:46:40.123456'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (3, \
     '0001-01-01', '00:00:00', '12:34:56.789', '00:00:00.000001', '2024-01-01', '2024-01-01', \
     '2024-01-01', '2024-01-01', '2024-01-01', '2024-01-01')",
    "CREATE TABLE texts (id INT PRIMARY KEY, a CHAR(5), b CHAR(255) CHARACTER SET utf8mb4, c \
     VARCHAR(50) CHARACTER SET latin1, d VARCHAR(3000), e BINARY(8), f VARBINARY(300), g TINYTEXT, \
     h TEXT, i MEDIUMBLOB, j LONGTEXT, k ENUM('x','it''s','z'), l SET('a','b','c'), m JSON) \
     CHARACTER SET utf8mb3",
    "INSERT INTO texts VALUES (1, 'ab', REPEAT('ü', 255), 'naïve', REPEAT('d', 3000), x'00ff00', \
     x'0001027f80ff', 'tiny', 'it''s \\\\ \\n \\t \"quoted\"', REPEAT(x'00ff', 70), REPEAT('long', \
     20000), 'it''s', 'a,c', '{\"k\": [1, null]}'), (2, '', \
     '', '', '', '', '', '', '', '', '', 'x', '', NULL), (3, NULL, NULL, NULL, NULL, NULL, \
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    // One row each: the stock tool's count ends at columns like these.
    "CREATE TABLE packed (id INT PRIMARY KEY, a VARCHAR(500) COMPRESSED, b BLOB COMPRESSED)",
    "INSERT INTO packed VALUES (1, REPEAT('n', 400), REPEAT('o', 1000))",
    "INSERT INTO packed VALUES (2, '', NULL)",
    "CREATE TABLE shapes (id INT PRIMARY KEY, p POINT, g GEOMETRY)",
    "INSERT INTO shapes VALUES (1, POINT(1, 2.5), ST_GeomFromText('LINESTRING(0 0, 1 1)'))",
    "UPDATE texts SET c = 'changed', j = NULL WHERE id = 1",
    "DELETE FROM ints WHERE id = 3",
];

/// What else a log can have.
const REST: &[&str] = &[
    "CREATE TABLE changes (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(100), KEY (a))",
    "INSERT INTO changes (a, b) SELECT seq, REPEAT('row', seq % 30) FROM seq_1_to_700",
    "UPDATE changes SET a = a + 1 WHERE id % 3 = 0",
    "SET @@session.binlog_row_image = MINIMAL",
    "UPDATE changes SET b = 'minimal' WHERE id = 5",
    "INSERT INTO changes (a) VALUES (-1)",
    "SET @@session.binlog_row_image = FULL",
    "BEGIN",
    "INSERT INTO changes (b) VALUES ('in a transaction')",
    "SAVEPOINT s",
    "DELETE FROM changes WHERE id = 6",
    "ROLLBACK TO s",
    "UPDATE ints JOIN changes ON ints.id = changes.id SET ints.a = 1, changes.a = 2",
    "COMMIT",
    "CREATE TABLE made SELECT * FROM changes WHERE id < 10",
    "ALTER TABLE changes ADD COLUMN extra INT DEFAULT 3",
    "SET @@session.binlog_alter_two_phase = 1",
    "ALTER TABLE changes ADD COLUMN more INT",
    "XA START 'one', 'branch', 3",
    "INSERT INTO changes (a) VALUES (99)",
    "XA END 'one', 'branch', 3",
    "XA PREPARE 'one', 'branch', 3",
    "XA COMMIT 'one', 'branch', 3",
    "XA START 'two'",
    "INSERT INTO changes (a) VALUES (98)",
    "XA END 'two'",
    "XA PREPARE 'two'",
    "XA ROLLBACK 'two'",
    "SET @@session.gtid_domain_id = 7",
    "INSERT INTO changes (a) VALUES (7), (77)",
    "DROP DATABASE IF EXISTS other",
    "CREATE DATABASE other",
    "CREATE TABLE other.t (id INT) ENGINE=MyISAM",
    "INSERT INTO other.t VALUES (1), (2)",
    "SET @@session.gtid_domain_id = 0",
    "SET @@session.skip_replication = 1",
    "INSERT INTO changes (a) VALUES (55)",
    "SET @@session.skip_replication = 0",
    "SET @@session.server_id = 11",
    "INSERT INTO changes (a) VALUES (56)",
    "SET @@session.server_id = 1",
    "SET @@session.foreign_key_checks = 0, sql_mode = 'ANSI_QUOTES', auto_increment_increment = 5",
    "CREATE TABLE \"we`ird\" (id INT)",
    "INSERT INTO \"we`ird\" VALUES (1)",
    "SET @@session.foreign_key_checks = 1, sql_mode = DEFAULT, auto_increment_increment = 1",
    "SET @@session.timestamp = 1000000000.25",
    "INSERT INTO times (id, ts6) VALUES (10, NOW(6))",
    "SET @@session.timestamp = DEFAULT",
    "SET @@session.binlog_format = STATEMENT, time_zone = '+03:00', lc_time_names = 'de_DE'",
    "SET @a = 'strüng', @b = -5, @c = 1.25e0, @d = 12.345, @e = NULL, @`a``b` = 18446744073709551615",
    "INSERT INTO changes (a, b) VALUES (@b, CONCAT(@a, @c, @d, @e)), (LENGTH(@`a``b`), NOW(3))",
    "INSERT INTO changes (a) VALUES (RAND() * 1000)",
    "INSERT INTO changes (a) VALUES (LAST_INSERT_ID())",
    "SET NAMES latin1",
    "INSERT INTO changes (b) VALUES (DATE_FORMAT('2024-03-01', '%M'))",
    "SET NAMES utf8mb4",
    "CREATE TEMPORARY TABLE passing (id INT)",
    "INSERT INTO passing VALUES (1), (2)",
    "INSERT INTO changes (a) SELECT id FROM passing",
    "DROP TEMPORARY TABLE passing",
    "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END",
    "LOAD DATA INFILE '@DATA@' REPLACE INTO TABLE changes FIELDS TERMINATED BY ',' (id, a, b)",
    "LOAD DATA INFILE '@DATA@' INTO TABLE made FIELDS TERMINATED BY ',' (id, a, b)",
];

/// A server that writes logs in several ways, one file each.
struct Corpus {
    server: Server,
    files: Vec<PathBuf>,
}

impl Corpus {
    fn write(options: ServerOptions, scratch: &Scratch) -> Result<Self> {
        let data = scratch.join("data.csv");
        let lines: Vec<String> = (1000..1600).map(|n| format!("{n},{n},line {n}")).collect();
        fs::write(&data, lines.join("\n"))?;
        let server = options.start()?;
        let mut client = server.client()?;
        client
            .run("SET GLOBAL binlog_row_metadata = FULL, GLOBAL log_bin_compress_min_len = 100")?;
        for (index, settings) in [
            "GLOBAL binlog_checksum = CRC32",
            "GLOBAL log_bin_compress = ON",
            "GLOBAL binlog_checksum = NONE, GLOBAL binlog_row_metadata = NO_LOG",
        ]
        .iter()
        .enumerate()
        {
            client.run(&format!("SET {settings}"))?;
            client.run("FLUSH BINARY LOGS")?;
            client.run("DROP DATABASE IF EXISTS corpus")?;
            client.run("CREATE DATABASE corpus CHARACTER SET utf8mb4")?;
            let mut client = server.client()?;
            client.run("USE corpus")?;
            for statement in TYPES.iter().chain(REST) {
                // 10.5 knows neither ALTER in two phases nor rows of decimals that large.
                let is_late = statement.contains("binlog_alter_two_phase")
                    && server.options().generation < Generation::V10_11;
                if !is_late {
                    let statement = statement.replace("@DATA@", &data.display().to_string());
                    client.run(&statement).with_context(|| format!("{index}: {statement}"))?;
                }
            }
        }
        client.run("FLUSH BINARY LOGS")?;
        let mut files: Vec<PathBuf> = fs::read_dir(server.datadir())?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        files.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.strip_prefix("binlog.0").is_some_and(|rest| !rest.ends_with(".idx"))
        });
        files.sort();
        // Not those that hold next to nothing, between one setting and the next.
        files.retain(|path| path.metadata().is_ok_and(|about| about.len() > 50_000));
        ensure!(files.len() == 3, "other files than expected: {files:?}");
        Ok(Self { server, files })
    }
}

/// The face, started under its name.
fn face(scratch: &Scratch) -> Result<PathBuf> {
    let link = scratch.join("mariadb-binlog");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_haulout"), &link)?;
    Ok(link)
}

/// What a tool prints; files of LOAD DATA go where both tools have the same names.
fn printed(tool: &Path, scratch: &Scratch, options: &str, files: &[PathBuf]) -> Result<Finished> {
    let load = scratch.join(LOAD_DIR);
    if load.exists() {
        fs::remove_dir_all(&load)?;
    }
    fs::create_dir(&load)?;
    let mut command = Command::new(tool);
    command
        .arg("--no-defaults")
        .arg(format!("--local-load={}", load.display()))
        .args(options.split_whitespace())
        .args(files)
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    run(command)
}

/// The stock tool sets a variable that servers before 10.11 do not have, and so refuse the text.
fn without_unknown(text: Vec<u8>, generation: Generation) -> Vec<u8> {
    const UNKNOWN: &[u8] = b", @@session.system_versioning_insert_history=0";
    if generation >= Generation::V10_11 {
        return text;
    }
    let mut rest = text.as_slice();
    let mut without = Vec::with_capacity(text.len());
    while let Some(at) = rest.windows(UNKNOWN.len()).position(|part| part == UNKNOWN) {
        without.extend_from_slice(&rest[..at]);
        rest = &rest[at + UNKNOWN.len()..];
    }
    without.extend_from_slice(rest);
    without
}

/// The first lines that differ.
fn difference(theirs: &[u8], ours: &[u8]) -> String {
    let lines = |text: &[u8]| -> Vec<String> {
        text.split(|byte| *byte == b'\n')
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    };
    let (theirs, ours) = (lines(theirs), lines(ours));
    let at = theirs.iter().zip(&ours).take_while(|(one, other)| one == other).count();
    let show = |lines: &[String]| lines.iter().skip(at).take(3).cloned().collect::<Vec<_>>();
    format!("line {at}: stock {:#?}, ours {:#?}", show(&theirs), show(&ours))
}

/// Text of both tools over the corpus of each generation. The text is that of 11.8 for the logs of
/// all, and so that of 10.11 for its own; 10.5 has other words for some variables.
#[test]
fn the_text_is_that_of_the_stock_tool() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let face = face(&scratch)?;
        let generation = Generation::under_test();
        let corpus = Corpus::write(ServerOptions::of(generation), &scratch)?;
        // What is the same for both is asked of the server's own.
        let stock = match generation {
            Generation::V10_11 => vec![Generation::V10_11],
            _ => vec![Generation::V11_8],
        };
        let mut faults = Vec::new();
        for (index, options) in OPTIONS.iter().enumerate() {
            // The files differ in how they are stored, which few options care about.
            let files = &corpus.files;
            let mut runs = vec![vec![files[0].clone()]];
            if index < 4 {
                runs.extend([vec![files[1].clone()], files[1..].to_vec()]);
            }
            for files in runs {
                let ours = printed(&face, &scratch, options, &files)?;
                for stock in &stock {
                    let tool = stock.program("mariadb-binlog");
                    let mut theirs = printed(&tool, &scratch, options, &files)?;
                    theirs.stdout = without_unknown(theirs.stdout, generation);
                    if theirs.stdout != ours.stdout || theirs.code() != ours.code() {
                        faults.push(format!(
                            "{} '{options}' {files:?}: {} and {:?}/{:?}\n{}",
                            stock.series(),
                            difference(&theirs.stdout, &ours.stdout),
                            theirs.code(),
                            ours.code(),
                            ours.stderr
                        ));
                    }
                }
            }
        }
        ensure!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
        Ok(())
    })());
}

/// What the text makes on another server is what the log's server has.
#[test]
fn the_text_replays_to_the_same_state() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let face = face(&scratch)?;
        let generation = Generation::under_test();
        let corpus = Corpus::write(ServerOptions::of(generation), &scratch)?;
        let text = printed(&face, &scratch, "", &corpus.files[2..])?.success()?;
        let file = scratch.join("text.sql");
        fs::write(&file, &text.stdout)?;
        let other = ServerOptions::of(generation).start()?;
        let mut client = Command::new(generation.program("mariadb"));
        client
            .args(["--no-defaults", "--user=root", "--local-infile", "--binary-mode"])
            .arg(format!("--socket={}", other.socket().display()))
            .stdin(fs::File::open(&file)?);
        run(client)?.success()?;
        let state = |server: &Server| -> Result<Vec<Vec<String>>> {
            let mut client = server.client()?;
            let tables = client.text(
                "SELECT CONCAT('`', table_schema, '`.`', REPLACE(table_name, '`', '``'), '`') FROM \
                 information_schema.tables WHERE table_schema IN ('corpus', 'other') ORDER BY 1",
            )?;
            ensure!(tables.len() > 9, "too few tables: {tables:?}");
            let tables: Vec<String> = tables.concat();
            Ok(client.text(&format!("CHECKSUM TABLE {}", tables.join(", ")))?)
        };
        let (theirs, ours) = (state(&corpus.server)?, state(&other)?);
        ensure!(theirs == ours, "{theirs:#?} became {ours:#?}");
        Ok(())
    })());
}

/// A log that its server encrypts is read with the server's keys, and not without them.
#[test]
fn encrypted_logs_are_read_with_keys() {
    common::ok((|| -> Result<()> {
        let keys = KeyFile::encrypted()?;
        let options = keys.used_by(ServerOptions::default()).arg("--encrypt-binlog=ON");
        let server = options.start()?;
        server.run("CREATE DATABASE hidden")?;
        server.run("FLUSH BINARY LOGS")?;
        let log = server.datadir().join("binlog.000001");
        let dump = |arguments: &[&str]| -> Result<Finished> {
            let mut command = Command::new(env!("CARGO_BIN_EXE_haulout"));
            command.args(["binlog", "dump"]).arg(&log).args(arguments);
            run(command)
        };
        let refused = dump(&[])?;
        ensure!(refused.code() == Some(2), "without keys: {}", refused.report());
        let (file, password) = (keys.path(), keys.password_file());
        let named = ["--keys-file", file.to_str().unwrap()];
        let password = ["--keys-password-file", password.to_str().unwrap()];
        let arguments = [named, password].concat();
        let text = dump(&arguments)?.success()?.stdout_text();
        ensure!(text.contains("CREATE DATABASE hidden"), "{text}");
        let json = dump(&[&arguments[..], &["--json"]].concat())?.success()?.stdout_text();
        for line in json.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            ensure!(event["type"].is_string() && event.get("fault").is_none(), "{line}");
        }
        ensure!(json.contains("CREATE DATABASE hidden"), "{json}");
        Ok(())
    })());
}
