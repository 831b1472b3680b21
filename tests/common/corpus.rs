//! Logs with every kind of event, and rows of every type.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use harness::{Generation, Result, Scratch, Server, ServerOptions};

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
    "CREATE SEQUENCE numbers START 5 CACHE 3",
    "DO NEXT VALUE FOR numbers",
    "INSERT INTO changes (a) VALUES (NEXT VALUE FOR numbers), (NEXT VALUE FOR numbers)",
    "INSERT INTO changes (a) VALUES (NEXT VALUE FOR numbers)",
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
pub struct Corpus {
    /// The server.
    pub server: Server,
    /// The logs, the oldest first.
    pub files: Vec<PathBuf>,
}

/// Whether the logs have rows of sequences.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sequences {
    /// They have.
    All,
    /// Only where the stock tool's text does not kill a server.
    SafeForClients,
}

impl Corpus {
    /// Starts a server and has it write them.
    pub fn write(options: ServerOptions, scratch: &Scratch, with: Sequences) -> Result<Self> {
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
                // Such a server dies when a client sends it their rows.
                let kills = with == Sequences::SafeForClients
                    && statement.contains("numbers")
                    && server.options().generation < Generation::V10_11;
                if !is_late && !kills {
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
