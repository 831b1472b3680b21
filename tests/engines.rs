//! Engines that keep their rows in files of their own kinds, or elsewhere: what is here is copied,
//! and every table is named with what restoring needs.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::process::run;
use harness::s3::{self, S3Server};
use harness::tool::{BackupOptions, BinlogPosition};
use harness::{Result, Scratch, Server, ServerOptions, Tool, proof};

fn options() -> ServerOptions {
    let mut options = ServerOptions::default();
    for plugin in ["ha_connect", "ha_mroonga", "ha_oqgraph", "ha_spider", "ha_rocksdb"] {
        options = options.arg(format!("--plugin-load-add={plugin}"));
    }
    options
}

/// A table of each engine. The file of one is in `outside`.
fn server(outside: &Path) -> Result<Server> {
    let server = options().start()?;
    proof::create_replication_user(&server)?;
    let file = outside.join("out.csv");
    std::fs::write(&file, "1,\"one\"\n")?;
    let file = file.display();
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.inside (a INT NOT NULL, b CHAR(20)) ENGINE=CONNECT TABLE_TYPE=csv",
        "INSERT INTO d.inside VALUES (1, 'one'), (2, 'two')",
        &format!(
            "CREATE TABLE d.outside (a INT NOT NULL, b CHAR(20)) ENGINE=CONNECT \
             TABLE_TYPE=csv FILE_NAME='{file}'"
        ),
        "CREATE TABLE d.far (a INT) ENGINE=CONNECT TABLE_TYPE=mysql \
         CONNECTION='mysql://u:secretword@127.0.0.1:1/d/t'",
        "CREATE TABLE d.words (id INT PRIMARY KEY, t TEXT, FULLTEXT KEY (t)) ENGINE=Mroonga",
        "CREATE TABLE d.wrapped (id INT PRIMARY KEY, t TEXT, FULLTEXT KEY (t)) \
         ENGINE=Mroonga COMMENT='engine \"InnoDB\"'",
        "INSERT INTO d.wrapped VALUES (1, 'hello world')",
        "CREATE TABLE d.edges (o BIGINT UNSIGNED NOT NULL, t BIGINT UNSIGNED NOT NULL, \
         PRIMARY KEY (o, t), KEY (t)) ENGINE=InnoDB",
        "INSERT INTO d.edges VALUES (1, 2), (2, 3)",
        "CREATE TABLE d.graph (latch VARCHAR(32), origid BIGINT UNSIGNED, \
         destid BIGINT UNSIGNED, weight DOUBLE, seq BIGINT UNSIGNED, linkid BIGINT UNSIGNED, \
         KEY (latch, origid, destid) USING HASH, KEY (latch, destid, origid) USING HASH) \
         ENGINE=OQGRAPH DATA_TABLE='edges' ORIGID='o' DESTID='t'",
        "CREATE SERVER s1 FOREIGN DATA WRAPPER mysql \
         OPTIONS (HOST '127.0.0.1', DATABASE 'd', USER 'u', PASSWORD 'secretword', PORT 1)",
        "CREATE TABLE d.shard (a INT PRIMARY KEY) ENGINE=SPIDER \
         COMMENT='wrapper \"mysql\", srv \"s1\", table \"t\", password \"secretword\"'",
        "CREATE TABLE d.rocks (a INT PRIMARY KEY) ENGINE=RocksDB",
        "INSERT INTO d.rocks VALUES (1)",
    ] {
        server.run(sql)?;
    }
    Ok(server)
}

/// What each table needs, by its name.
fn needs(summary: &serde_json::Value) -> BTreeMap<String, String> {
    let text = |table: &serde_json::Value, key: &str| table[key].as_str().map(str::to_owned);
    let tables = summary["tables"].as_array().into_iter().flatten();
    tables.filter_map(|table| Some((text(table, "table")?, text(table, "needs")?))).collect()
}

fn expected(outside: &Path) -> BTreeMap<&'static str, String> {
    let outside = outside.join("out.csv").display().to_string();
    BTreeMap::from([
        ("inside", "d/inside.csv is in the backup".to_owned()),
        ("outside", format!("{outside} is NOT in the backup")),
        ("far", "connection leads (mysql)".to_owned()),
        ("words", "copied while nobody wrote".to_owned()),
        ("wrapped", "make the index anew".to_owned()),
        ("graph", "it shows edges".to_owned()),
        ("shard", "mysql.servers".to_owned()),
    ])
}

#[test]
fn every_table_is_there_and_named() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server(scratch.path())?;
        people_read_the_same(&scratch, &server)?;
        let (tool, backup, datadir) =
            (common::haulout(), scratch.join("backup"), scratch.join("copy"));
        // Words are written all the time: those of the copy must be those of its position.
        let stop = AtomicBool::new(false);
        let finished = std::thread::scope(|scope| {
            let writer = scope.spawn(|| -> Result<()> {
                let mut client = server.client()?;
                for id in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                    let words = format!("word{id} common rest{}", id % 7);
                    client.run(&format!("INSERT INTO d.words VALUES ({id}, '{words}')"))?;
                    // A replica cannot write to tables of CONNECT.
                    client.run("SET sql_log_bin = 0")?;
                    client.run(&format!("INSERT INTO d.inside VALUES ({id}, 'x')"))?;
                    client.run("SET sql_log_bin = 1")?;
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
                Ok(())
            });
            std::thread::sleep(std::time::Duration::from_millis(300));
            let finished = tool.run_backup(&server, &backup);
            stop.store(true, Ordering::SeqCst);
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            finished
        })?;
        let found = needs(&serde_json::from_slice(&finished.stdout)?);
        let expected = expected(scratch.path());
        for (table, words) in &expected {
            let said = found.get(*table).map_or("nothing", String::as_str);
            assert!(said.contains(words), "{table}: {said}");
        }
        assert_eq!(found.len(), expected.len(), "{found:?}");
        let said = [finished.stdout_text(), finished.stderr].concat();
        assert!(!said.contains("secretword"), "{said}");
        let info = std::fs::read_to_string(backup.join("haulout_info.json"))?;
        assert!(!info.contains("secretword") && info.contains("out.csv"), "{info}");
        assert!(backup.join("d.mrn").exists());
        assert!(!backup.join("groonga.log").exists());

        let position = BinlogPosition::of_backup(&backup)?;
        tool.run_prepare(&backup)?;
        let restored = run({
            let mut restore = tool.restore(&backup, &datadir);
            restore.arg("--json");
            restore
        })?
        .success()?;
        assert_eq!(needs(&serde_json::from_slice(&restored.stdout)?), found);
        let copy = proof::replica_options(&options()).start_on(&datadir)?;
        let mut client = copy.client()?;
        let mut asked = |sql: &str| -> Result<Option<String>> { Ok(client.scalar(sql)?) };
        let rows = asked("SELECT COUNT(*) FROM d.words")?;
        let found = asked(
            "SELECT COUNT(*) FROM d.words WHERE MATCH (t) AGAINST ('+common' IN BOOLEAN MODE)",
        )?;
        assert_eq!(rows, found, "the index has other rows than the table");
        let lines =
            asked("SELECT COUNT(*) - 2 FROM d.inside")?.unwrap_or_default().parse::<i64>()?;
        let rows = rows.unwrap_or_default().parse::<i64>()?;
        assert!(rows > 5 && (lines == rows || lines == rows - 1), "{lines} lines, {rows} rows");
        assert_eq!(asked("SELECT a FROM d.outside")?.as_deref(), Some("1"));
        let way = "SELECT COUNT(*) FROM d.graph WHERE latch = '1' AND origid = 1 AND destid = 3";
        assert_eq!(asked(way)?.as_deref(), Some("3"));
        // What cannot be read here goes from both: the replica drops what the copy has.
        for table in ["shard", "far", "inside", "outside", "graph"] {
            assert!(datadir.join(format!("d/{table}.frm")).exists());
            server.run(&format!("DROP TABLE d.{table}"))?;
        }
        proof::attach(&server, &copy, &position)?;
        proof::ensure_equal(&server, &copy)?;
        Ok(())
    })());
}

/// In both faces; of tables of MyRocks that were left out, too.
fn people_read_the_same(scratch: &Scratch, server: &Server) -> Result<()> {
    let bin = scratch.join("bin");
    std::fs::create_dir(&bin)?;
    let links = Tool::links(Path::new(env!("CARGO_BIN_EXE_haulout")), &bin)?;
    for (tool, option) in [(common::haulout(), "--skip-rocksdb"), (links, "--skip-rocksdb-backup")]
    {
        let target = scratch.join(option);
        let extra = vec![option.to_owned()];
        let how = BackupOptions { extra, ..BackupOptions::default() };
        let said = run(tool.backup(server, &target, &how))?.success()?.stderr;
        for words in expected(scratch.path()).values() {
            assert!(said.contains(words), "nothing about {words:?}: {said}");
        }
        assert!(said.contains("ROCKSDB d.rocks: its rows are NOT in the backup"), "{said}");
        assert!(!said.contains("secretword"), "{said}");
    }

    // What is said of MyRocks is true.
    let (tool, backup) = (common::haulout(), scratch.join("--skip-rocksdb"));
    tool.run_prepare(&backup)?;
    let options = ServerOptions::default()
        .arg("--plugin-load-add=ha_rocksdb")
        .arg("--rocksdb-validate-tables=2");
    let copy = proof::restore_and_boot(&tool, &backup, &scratch.join("bare"), &options)?;
    copy.run("DROP TABLE d.rocks")?;
    copy.run("CREATE TABLE d.rocks (a INT PRIMARY KEY) ENGINE=RocksDB")
}

/// The rows stay in the bucket; a copy that reaches it has them.
#[test]
fn a_table_in_a_bucket() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let bucket = S3Server::start()?;
        let mut options = ServerOptions::default().arg("--plugin-load-add=ha_s3");
        for setting in [
            "s3=ON".to_owned(),
            "s3-host-name=127.0.0.1".to_owned(),
            format!("s3-port={}", bucket.address().port()),
            "s3-use-http=ON".to_owned(),
            "s3-protocol-version=Original".to_owned(),
            format!("s3-bucket={}", s3::BUCKET),
            format!("s3-access-key={}", s3::ACCESS_KEY),
            format!("s3-secret-key={}", s3::SECRET_KEY),
        ] {
            options = options.arg(format!("--{setting}"));
        }
        let server = options.start()?;
        for sql in [
            "CREATE DATABASE d",
            "CREATE TABLE d.cold (a INT PRIMARY KEY, b VARCHAR(100)) ENGINE=Aria",
            "INSERT INTO d.cold SELECT seq, REPEAT('x', 90) FROM d.seq_1_to_2000",
            "ALTER TABLE d.cold ENGINE=S3",
        ] {
            server.run(sql)?;
        }
        let (tool, backup) = (common::haulout(), scratch.join("backup"));
        let finished = tool.run_backup(&server, &backup)?;
        let found = needs(&serde_json::from_slice(&finished.stdout)?);
        let said = found.get("cold").map_or("nothing", String::as_str);
        assert!(said.contains(s3::BUCKET), "{said}");
        tool.run_prepare(&backup)?;
        drop(server);
        let copy = proof::restore_and_boot(&tool, &backup, &scratch.join("copy"), &options)?;
        let rows = copy.client()?.scalar("SELECT COUNT(*) FROM d.cold WHERE b LIKE 'x%'")?;
        assert_eq!(rows.as_deref(), Some("2000"));
        Ok(())
    })());
}
