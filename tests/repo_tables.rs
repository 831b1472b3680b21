//! Single tables out of a repository: little is fetched, and what comes out is what a restore of the
//! whole backup has.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::repo::Repo;
use common::{assert_failed, exit, ok};
use harness::compare::quote;
use harness::faulty_proxy::FaultyProxy;
use harness::load::{Load, LoadOptions};
use harness::process;
use harness::s3::S3Server;
use harness::{Generation, Result, Scratch, Server, ServerOptions};

const TABLES: &[&str] = &[
    "CREATE DATABASE shop",
    "CREATE DATABASE `my-db`",
    "CREATE TABLE shop.orders (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(60), c BINARY(32), KEY (b))",
    "CREATE TABLE shop.parts (a INT PRIMARY KEY, b TEXT) PARTITION BY HASH (a) PARTITIONS 3",
    "CREATE TABLE shop.aria (a INT PRIMARY KEY, b TEXT) ENGINE=Aria TRANSACTIONAL=1",
    "CREATE TABLE shop.myisam (a INT PRIMARY KEY, b TEXT) ENGINE=MyISAM",
    "CREATE TABLE shop.`left` (a INT PRIMARY KEY, b BINARY(64), c BINARY(64))",
    "CREATE TABLE `my-db`.`odd name` (a INT PRIMARY KEY, b TEXT) ROW_FORMAT=COMPRESSED",
    "INSERT INTO shop.`left` SELECT seq, UNHEX(SHA2(seq, 512)), UNHEX(SHA2(-seq, 512)) FROM shop.seq_1_to_80000",
    "INSERT INTO shop.orders (b, c) SELECT seq, UNHEX(SHA2(seq, 256)) FROM shop.seq_1_to_50000",
];
/// What is in the redo log only when the backup begins.
const CHANGES: &[&str] = &[
    "INSERT INTO shop.orders (b, c) SELECT seq, UNHEX(SHA2(seq, 256)) FROM shop.seq_1_to_20000",
    "UPDATE shop.orders SET b = CONCAT(b, 'x') WHERE a % 3 = 0",
    "INSERT INTO shop.parts SELECT seq, REPEAT(seq, 9) FROM shop.seq_1_to_3000",
    "INSERT INTO shop.aria SELECT seq, REPEAT(seq, 9) FROM shop.seq_1_to_3000",
    "INSERT INTO shop.myisam SELECT seq, REPEAT(seq, 9) FROM shop.seq_1_to_3000",
    "INSERT INTO `my-db`.`odd name` SELECT seq, REPEAT(seq, 9) FROM shop.seq_1_to_3000",
];
const CHOSEN: [&str; 5] = [
    "--table=shop.o*",
    "--table=shop.[pa]*",
    "--table=shop.myisam",
    "--database=my-*",
    "--memory=64MiB",
];
const CHOSEN_TABLES: [[&str; 2]; 5] = [
    ["shop", "orders"],
    ["shop", "parts"],
    ["shop", "aria"],
    ["shop", "myisam"],
    ["my-db", "odd name"],
];

/// Does what the printed text says, with the files that it names.
fn follow(text: &str, target: &Server) -> Result<()> {
    let mut client = target.client()?;
    let datadir = target.datadir().display().to_string();
    for line in text.lines() {
        match line.strip_prefix("-- cp ") {
            Some(arguments) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("cp {}", arguments.replace("DATADIR", &datadir)));
                process::run(shell)?.success()?;
            }
            None if line.starts_with("--") => {}
            None => client.run(line)?,
        }
    }
    Ok(())
}

/// Creates the tables that are to be imported, and no others.
fn create(source: &Server, target: &Server) -> Result<()> {
    let (mut from, mut to) = (source.client()?, target.client()?);
    for [database, table] in CHOSEN_TABLES {
        to.run(&format!("CREATE DATABASE IF NOT EXISTS {}", quote(database)))?;
        if matches!(table, "aria" | "myisam") {
            continue;
        }
        let name = format!("{}.{}", quote(database), quote(table));
        let definition = &from.text(&format!("SHOW CREATE TABLE {name}"))?[0][1];
        to.run(&format!("USE {}", quote(database)))?;
        to.run(definition)?;
    }
    Ok(())
}

fn equals(target: &Server, whole: &Server) -> Result<()> {
    let (mut ours, mut theirs) = (target.client()?, whole.client()?);
    for [database, table] in CHOSEN_TABLES {
        let name = format!("{}.{}", quote(database), quote(table));
        let checked = ours.text(&format!("CHECK TABLE {name} EXTENDED"))?;
        assert_eq!(checked.last().unwrap()[3], "OK", "{checked:?}");
        let checksum = format!("CHECKSUM TABLE {name} EXTENDED");
        assert_eq!(ours.text(&checksum)?, theirs.text(&checksum)?, "{name}");
        let rows = ours.scalar(&format!("SELECT COUNT(*) >= 3000 FROM {name}"))?;
        assert_eq!(rows.as_deref(), Some("1"), "{name}");
    }
    Ok(())
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.sort();
    names
}

/// With a chain the last changes are in a delta of a delta.
fn tables_come_alone(generation: Generation, sealed: bool, chain: bool) -> Result<()> {
    let store = S3Server::start()?;
    let proxy = FaultyProxy::start(store.address())?;
    let repo = Repo::init_on(sealed, Some(proxy.endpoint()))?;
    let source = ServerOptions::of(generation).start()?;
    TABLES.iter().try_for_each(|sql| source.run(sql))?;
    source.checkpoint()?;
    let mut all = 0;
    if chain {
        // Under another name, and before some of its rows.
        source.run("RENAME TABLE shop.orders TO shop.older")?;
        all += repo.backup(&source, &[])?["stored_bytes"].as_u64().unwrap();
        source.run("RENAME TABLE shop.older TO shop.orders")?;
        source.run("UPDATE shop.orders SET b = REVERSE(b) WHERE a % 7 = 0")?;
        source.run("ALTER TABLE shop.parts FORCE")?;
        all += repo.backup(&source, &["--delta"])?["stored_bytes"].as_u64().unwrap();
    }
    CHANGES.iter().try_for_each(|sql| source.run(sql))?;
    let load = Load::start(&source, &LoadOptions::new(611))?;
    let stored = repo.backup(&source, if chain { &["--delta"] } else { &[] })?;
    load.stop()?;
    // None of what comes after may be seen.
    source.run("UPDATE shop.orders SET b = 'later'")?;

    let scratch = Scratch::new()?;
    let (to, whole) = (scratch.join("tables"), scratch.join("whole"));
    let to_text = format!("--to={}", to.display());
    let restore = |arguments: &[&str]| {
        repo.json("restore LATEST", &[&[to_text.as_str()], &CHOSEN[..], arguments].concat())
    };
    let plan = restore(&["--plan"])?;
    assert!(!to.exists());
    proxy.clear();
    let made = restore(&[])?;
    let answered = proxy.bytes_answered();
    let number = |document: &serde_json::Value, name: &str| document[name].as_u64().unwrap();
    let fetched = number(&made, "fetched_bytes");
    assert_eq!(fetched, number(&plan, "stored_bytes"));
    // Besides, the configuration, keys and manifests are fetched.
    assert!(answered >= fetched && answered < fetched + (1 << 20), "{answered}, {fetched}");
    all += number(&stored, "stored_bytes");
    assert!(fetched < all - (8 << 20), "{fetched} of {all}");
    assert_eq!(files(&to), ["import.sql", "my@002ddb", "shop"]);
    assert!(!files(&to.join("shop")).iter().any(|name| name.starts_with("left")));
    assert_eq!(made["tables"].as_array().unwrap().len(), 8, "{made}");

    repo.json("restore LATEST", &[&format!("--to={}", whole.display())])?;
    let whole = source.options().start_on(&whole)?;
    let target = ServerOptions::of(generation).start()?;
    create(&source, &target)?;
    follow(made["sql"].as_str().unwrap(), &target)?;
    equals(&target, &whole)?;
    // What was imported is a table like any other.
    target.run("DELETE FROM shop.orders WHERE a % 2 = 0")?;

    let to = scratch.join("none");
    let none =
        |table: &str| repo.run("restore LATEST", &["--to", &to.display().to_string(), table]);
    assert_failed(&none("--table=shop.order")?, 8, &["shop.order", "shop.orders"]);
    assert_failed(&none("--database=shops")?, 8, &["shops", "shop"]);
    assert_failed(&none("--table=orders")?, exit::USAGE, &["database.table"]);
    assert!(!to.exists());
    Ok(())
}

#[test]
fn tables_come_alone_on_10_5() {
    ok(tables_come_alone(Generation::V10_5, false, true));
}

#[test]
fn tables_come_alone_on_10_11() {
    ok(tables_come_alone(Generation::V10_11, true, false));
}

#[test]
fn tables_come_alone_on_11_8() {
    ok(tables_come_alone(Generation::V11_8, true, true));
}

/// Of a table that an open transaction has changed comes what was committed. One that a prepared one has
/// changed is refused by name.
#[test]
fn tables_of_open_transactions() {
    ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let source = ServerOptions::default().start()?;
        source.run("CREATE DATABASE d")?;
        for name in ["open", "prepared", "done"] {
            source.run(&format!("CREATE TABLE d.{name} (a INT PRIMARY KEY, b INT, KEY (b))"))?;
            source.run(&format!("INSERT INTO d.{name} SELECT seq, seq FROM d.seq_1_to_500"))?;
        }
        let mut client = source.client()?;
        client.run("BEGIN")?;
        client.run("INSERT INTO d.open VALUES (1000, 1)")?;
        client.run("UPDATE d.open SET b = b + 1 WHERE a < 100")?;
        client.run("DELETE FROM d.open WHERE a > 400 AND a < 500")?;
        let mut xa = source.client()?;
        for sql in ["XA START 'x'", "DELETE FROM d.prepared", "XA END 'x'", "XA PREPARE 'x'"] {
            xa.run(sql)?;
        }
        repo.backup(&source, &[])?;
        let scratch = Scratch::new()?;
        let to = scratch.join("tables");
        let run =
            repo.run("restore LATEST", &["--database=d", "--to", &to.display().to_string()])?;
        assert_failed(&run, exit::FAILED, &["d/prepared", "transaction"]);
        let files = files(&to.join("d"));
        for name in ["done", "open"] {
            let there = ["ibd", "cfg"].map(|kind| files.contains(&format!("{name}.{kind}")));
            assert_eq!(there, [true, true], "{name}: {files:?}");
        }
        assert!(!files.contains(&"prepared.ibd".to_owned()), "{files:?}");
        for name in ["ib_logfile0", "haulout_rolled_back"] {
            assert!(!to.join(name).exists(), "{name}");
        }

        let target = ServerOptions::default().start()?;
        let (mut from, mut to_server) = (source.client()?, target.client()?);
        to_server.run("CREATE DATABASE d")?;
        to_server.run("CREATE TABLE d.open (a INT PRIMARY KEY, b INT, KEY (b))")?;
        common::export::import(&mut to_server, &target, &to, "open", "open")?;
        let sum = "CHECKSUM TABLE d.open";
        assert_eq!(from.text(sum)?, to_server.text(sum)?);
        Ok(())
    })());
}
