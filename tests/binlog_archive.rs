//! Binary logs in a repository: what comes out is what went in, transactions are found, gaps are named,
//! and a failover neither loses nor repeats a transaction.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use common::repo::Repo;
use engine::archive::Archive;
use engine::archive::plan::{Skipper, Start, Until};
use engine::repo::Repository;
use engine::store::{self, StoreOptions};
use engine::{Cancel, report};
use harness::compare::Contents;
use harness::keys::KeyFile;
use harness::process::{self, run};
use harness::{Generation, Result, Scratch, Server, ServerOptions};
use serde_json::Value;

/// Exit code: something is missing.
const GAP: i32 = 7;
/// Exit code: nothing matches.
const NOTHING: i32 = 8;

/// The files of a server's binary log, the last one excluded, in their order.
fn closed(server: &Server) -> Result<Vec<PathBuf>> {
    let list = fs::read_to_string(server.datadir().join("binlog.index"))?;
    let mut files: Vec<PathBuf> = list.lines().map(|line| server.datadir().join(line)).collect();
    files.pop();
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Archives a server's log; the document.
fn push(repo: &Repo, server: &Server, arguments: &[&str]) -> Result<Value> {
    let datadir = server.datadir().to_string_lossy().into_owned();
    repo.json("binlog push", &[&[datadir.as_str()], arguments].concat())
}

/// What became of the files of a push: each with a word.
fn became(document: &Value) -> Vec<(String, String)> {
    let files = document["files"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    files.iter().map(|file| (text(&file["file"]), text(&file["became"]))).collect()
}

fn words(document: &Value) -> BTreeSet<String> {
    became(document).into_iter().map(|(_, word)| word).collect()
}

/// Fetches everything of a server and compares it with its files.
fn fetch_and_compare(repo: &Repo, server: &Server, files: &[PathBuf]) -> Result<PathBuf> {
    let to = repo.scratch.join(&format!("fetched{}", Instant::now().elapsed().as_nanos()));
    let to = to.with_extension(fs::read_dir(repo.scratch.path())?.count().to_string());
    let id = server.options().server_id.to_string();
    let to_text = to.to_string_lossy().into_owned();
    repo.run("binlog fetch", &["--to", &to_text, "--server", &id])?.success()?;
    for file in files {
        let (theirs, ours) = (fs::read(file)?, fs::read(to.join(name(file)))?);
        ensure!(theirs == ours, "{} came back otherwise", file.display());
        let stock = |path: &Path| -> Result<Vec<u8>> {
            let mut command = Command::new(Generation::under_test().program("mariadb-binlog"));
            command.args(["--no-defaults", "-c", "--base64-output=decode-rows", "-v"]).arg(path);
            Ok(run(command)?.success()?.stdout)
        };
        ensure!(stock(file)? == stock(&to.join(name(file)))?, "the stock tool reads otherwise");
    }
    Ok(to)
}

fn last_gtid(client: &mut harness::Client) -> Result<String> {
    client.scalar("SELECT @@last_gtid")?.context("no GTID")
}

/// Lines of `find`, each a document.
fn find(repo: &Repo, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = repo.command("binlog find");
    command.args(arguments);
    found(command)
}

/// What it finds.
fn found(mut command: Command) -> Result<Vec<Value>> {
    command.arg("--json");
    let found = run(command)?;
    ensure!(matches!(found.code(), Some(0 | NOTHING)), "{}", found.report());
    found.stdout_text().lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn gtids(found: &[Value]) -> Vec<&str> {
    found.iter().filter_map(|found| found["gtid"].as_str()).collect()
}

/// Transactions of a plan, in the order in which they are read, and those of the tables in it.
fn planned(repo: &Repo, from: &str, until: &Until) -> Result<Vec<String>> {
    let cancel = Cancel::new();
    let location = repo.place().to_string_lossy().parse()?;
    let store =
        store::open(&location, &StoreOptions::default(), std::sync::Arc::new(report::Silent))?;
    let repository = Repository::open(store, None, &cancel)?;
    let archive = Archive::read(&repository, &cancel)?;
    let start = Start { position: from.parse()?, ..Start::default() };
    let plan = archive.plan(&start, until, &cancel)?;
    ensure!(plan.reaches && plan.gap.is_none(), "{plan:?}");
    let mut gtids = Vec::new();
    let mut skipper = Skipper::default();
    for step in &plan.steps {
        skipper = Skipper::of(step).unwrap_or(skipper);
        let file = archive.open(&step.file, &cancel);
        let mut reader = binlog::Reader::new(file, "archived", Default::default())?;
        reader.next_event()?;
        reader.seek_to(step.begin)?;
        while reader.offset() < step.end {
            let Some(event) = reader.next_event()? else { break };
            if event.header.kind != binlog::EventType::GTID {
                continue;
            }
            let gtid = binlog::event::GtidEvent::parse(event.body(), event.header.server_id)?.gtid;
            if !skipper.leaves_out(gtid) {
                gtids.push(gtid.to_string());
            }
        }
    }
    Ok(gtids)
}

/// The GTIDs of files, as they are in them.
fn logged(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut gtids = Vec::new();
    for path in files {
        let file = fs::File::open(path)?;
        let mut reader = binlog::Reader::new(file, name(path), Default::default())?;
        while let Some(event) = reader.next_event()? {
            if event.header.kind == binlog::EventType::GTID {
                let event = binlog::event::GtidEvent::parse(event.body(), event.header.server_id)?;
                gtids.push(event.gtid.to_string());
            }
        }
    }
    Ok(gtids)
}

fn work(server: &Server, rows: u32) -> Result<()> {
    let mut client = server.client()?;
    client.run("CREATE DATABASE IF NOT EXISTS shop")?;
    client
        .run("CREATE TABLE IF NOT EXISTS shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")?;
    for _ in 0..rows {
        client.run("INSERT INTO shop.orders (a) VALUES (1), (2)")?;
    }
    Ok(client.run("FLUSH BINARY LOGS")?)
}

/// One server: bytes, the index, gaps, a crash, a reset.
#[test]
fn what_was_archived_comes_back_and_is_found() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let mut server = ServerOptions::default().arg("--sync-binlog=1").start()?;
        work(&server, 20)?;
        let mut client = server.client()?;
        client.run("SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10")?;
        let mut client = server.client()?;
        client.run("SET SESSION gtid_domain_id = 5")?;
        client.run("UPDATE shop.orders SET a = a + 1 WHERE id <= 7")?;
        let update = last_gtid(&mut client)?;
        client.run("SET SESSION gtid_domain_id = 0")?;
        client.run("DELETE FROM shop.orders WHERE id IN (1, 3)")?;
        let delete = last_gtid(&mut client)?;
        client.run("SET SESSION binlog_format = STATEMENT")?;
        client.run("DELETE FROM shop.orders WHERE id = 5")?;
        let statement = last_gtid(&mut client)?;
        client.run("CREATE OR REPLACE TABLE shop.swap (a INT)")?;
        let replace = last_gtid(&mut client)?;
        work(&server, 3)?;
        client.run("ALTER TABLE shop.orders ADD b INT")?;
        client.run("TRUNCATE TABLE shop.orders")?;
        let truncate = last_gtid(&mut client)?;
        client.run("DROP DATABASE shop")?;
        let drop = last_gtid(&mut client)?;
        work(&server, 5)?;

        let files = closed(&server)?;
        ensure!(files.len() >= 3, "{files:?}");
        let document = push(&repo, &server, &[])?;
        ensure!(words(&document) == BTreeSet::from(["stored".to_owned()]), "{document}");
        let objects = || -> Result<usize> { Ok(walk(&repo.place().join("binlog"))?.len()) };
        let count = objects()?;
        let document = push(&repo, &server, &[])?;
        ensure!(words(&document) == BTreeSet::from(["there".to_owned()]), "{document}");
        ensure!(objects()? == count, "the same files were stored twice");
        fetch_and_compare(&repo, &server, &files)?;

        // Without the program, by name.
        let epoch = walk(&repo.place().join("binlog"))?[0].parent().unwrap().to_owned();
        let mut zstd = Command::new("sh");
        zstd.args(["-c", "cat \"$1\"/0000000001-* | zstd -dc", "sh"]).arg(&epoch);
        ensure!(run(zstd)?.success()?.stdout == fs::read(&files[0])?, "cat | zstd -dc differs");

        let orders = ["--table", "shop.orders"];
        let found = find(&repo, &[&orders[..], &["--op", "update"]].concat())?;
        ensure!(gtids(&found) == [update.as_str()], "{found:?}");
        ensure!(found[0]["changes"][0]["rows"] == 7, "{found:?}");
        let found = find(&repo, &[&orders[..], &["--op", "delete"]].concat())?;
        ensure!(gtids(&found) == [delete.as_str(), statement.as_str()], "{found:?}");
        ensure!(found[0]["changes"][0]["rows"] == 2, "{found:?}");
        let found = find(&repo, &["--table", "sh?p.ord*", "--op", "drop,truncate"])?;
        ensure!(gtids(&found) == [truncate.as_str(), drop.as_str()], "{found:?}");
        let found = find(&repo, &["--table", "shop.swap", "--op", "drop"])?;
        ensure!(gtids(&found) == [replace.as_str(), drop.as_str()], "{found:?}");
        let found = find(&repo, &["--table", "sh?p.ord*", "--op", "drop,truncate"])?;
        // Without an archive, in the logs themselves.
        let mut command = common::repo::haulout();
        command.args(["binlog", "find", "--table", "sh?p.ord*", "--op", "drop,truncate"]);
        command.arg(server.datadir());
        let same = self::found(command)?;
        let places = |found: &[Value]| -> Vec<(Value, Value, Value)> {
            found
                .iter()
                .map(|it| (it["file"].clone(), it["position"].clone(), it["changes"].clone()))
                .collect()
        };
        ensure!(places(&same) == places(&found), "{same:?} instead of {found:?}");
        // The place that is told is that of the transaction, for the stock tool too.
        let place = format!("--start-position={}", found[0]["position"]);
        let end = format!("--stop-position={}", found[0]["end"]);
        let file = server.datadir().join(found[0]["file"].as_str().unwrap());
        let mut stock = Command::new(Generation::under_test().program("mariadb-binlog"));
        stock.args(["--no-defaults", &place, &end]).arg(file);
        let text = run(stock)?.success()?.stdout_text();
        ensure!(text.contains("TRUNCATE TABLE shop.orders") && !text.contains("DROP"), "{text}");
        for nothing in [["--table", "nowhere.*"], ["--and", "2001-01-01T00:00:00Z"]] {
            let run = repo.run("binlog find", &nothing)?;
            ensure!(run.code() == Some(NOTHING), "{}", run.report());
            ensure!(run.stderr.contains("end with"), "{}", run.report());
        }

        // A transaction is not torn apart by a crash, and the log goes on.
        let mut client = server.client()?;
        client.run("INSERT INTO shop.orders (a) VALUES (9)")?;
        server.crash()?;
        server.start()?;
        server.run("FLUSH BINARY LOGS")?;
        let crashed = closed(&server)?;
        let document = push(&repo, &server, &[])?;
        ensure!(became(&document).iter().filter(|it| it.1 == "stored").count() >= 2, "{document}");
        fetch_and_compare(&repo, &server, &crashed)?;
        let listed = repo.json("binlog list", &[])?;
        ensure!(listed["gaps"].as_array().is_some_and(Vec::is_empty), "{listed}");
        ensure!(planned(&repo, "", &Until::End)? == logged(&crashed)?, "not what was logged");

        // Something that is missing is named, and can be brought later.
        let middle = walk(&repo.place().join("binlog"))?[1].clone();
        fs::remove_file(&middle)?;
        let listed = repo.run("binlog list", &[])?;
        ensure!(listed.code() == Some(GAP), "{}", listed.report());
        let lost = logged(&crashed[1..2])?;
        for gtid in [lost.first(), lost.last()].into_iter().flatten() {
            let sequence = gtid.rsplit('-').next().unwrap_or_default();
            ensure!(listed.stderr.contains(sequence), "{gtid} is not named: {}", listed.report());
        }
        // Whoever does not list learns it from a check, or when the archive is verified.
        let check = || repo.run("check", &["--no-server", "--json"]);
        for verb in [&["verify"][..], &["check", "--no-server"]] {
            for form in [&[][..], &["--json"]] {
                let told = repo.run(verb[0], &[&verb[1..], form].concat())?;
                ensure!(told.code() == Some(GAP), "{verb:?}: {}", told.report());
                let said = format!("{}{}", told.stdout_text(), told.stderr);
                let sequence = lost.last().and_then(|gtid| gtid.rsplit('-').next()).unwrap();
                ensure!(said.to_lowercase().contains("gap"), "{verb:?}: {said}");
                ensure!(said.contains(sequence), "{verb:?} does not name {sequence}: {said}");
            }
        }
        push(&repo, &server, &[])?;
        check()?.success()?;
        ensure!(middle.exists(), "it was not brought back under the same name");
        repo.run("binlog list", &[])?.success()?;

        // Nor does the server give up what is older than the archive, if nothing says that nobody needs it.
        let socket = format!("--socket={}", server.socket().display());
        let purge = |arguments: &[&str]| -> Result<Value> {
            let server = ["--no-defaults", "--user=root", &socket];
            repo.json("binlog purge", &[&server[..], arguments].concat())
        };
        let (first, aside) =
            (walk(&repo.place().join("binlog"))?[0].clone(), repo.scratch.join("aside"));
        fs::rename(&first, &aside)?;
        let told = purge(&[])?;
        ensure!(told["why"] == "it is not archived" && told["stays"] == *name(&files[0]), "{told}");
        fs::rename(&aside, &first)?;

        // What a backup needs stays, and what is older goes.
        let kept = repo.json("binlog expire", &["--delete"])?;
        ensure!(going(&kept).is_empty(), "there is no backup, and this goes: {kept}");
        repo.backup(&server, &[])?;
        let at = server.client()?.scalar("SELECT @@gtid_binlog_pos")?.unwrap();
        work(&server, 2)?;
        push(&repo, &server, &[])?;
        let all = planned(&repo, &at, &Until::End)?;
        ensure!(all.len() >= 2, "{all:?}");
        // A gap that is older than the latest backup concerns older ones only; a later one concerns it.
        fs::remove_file(&middle)?;
        let told = check()?.success()?.stdout_text();
        ensure!(told.contains("older than the latest backup"), "{told}");
        work(&server, 1)?;
        work(&server, 1)?;
        push(&repo, &server, &[])?;
        let objects = walk(&repo.place().join("binlog"))?;
        fs::remove_file(&objects[objects.len() - 2])?;
        let told = check()?;
        ensure!(told.code() == Some(GAP), "{}", told.report());
        ensure!(told.stdout_text().contains("no backup is newer"), "{}", told.report());
        push(&repo, &server, &[])?;
        let all = planned(&repo, &at, &Until::End)?;
        let told = repo.json("binlog expire", &[])?;
        ensure!(going(&told).len() >= 3, "{told}");
        let recent = repo.json("binlog expire", &["--keep-within", "1h", "--delete"])?;
        ensure!(going(&recent).is_empty(), "{recent}");
        ensure!(going(&repo.json("binlog expire", &["--delete"])?) == going(&told), "{told}");
        ensure!(going(&repo.json("binlog expire", &["--delete"])?).is_empty(), "not at once");
        repo.run("binlog list", &[])?.success()?;
        ensure!(planned(&repo, &at, &Until::End)? == all, "something that is needed is gone");
        ensure!(planned(&repo, "", &Until::End).is_err(), "the beginning is gone");
        let document = push(&repo, &server, &[])?;
        ensure!(words(&document).contains("older"), "{document}");
        ensure!(!words(&document).contains("stored"), "{document}");

        // The server need not keep what expired, but what it keeps for other reasons it does.
        let older = became(&document).iter().filter(|it| it.1 == "older").count();
        let told = purge(&[])?;
        ensure!(told["purged"].as_array().is_some_and(|it| it.len() > older), "{told}");
        ensure!(told["why"] == "the server writes it", "{told}");
        let told = purge(&["--keep-within", "1h"])?;
        ensure!(told["why"] == "recent" && told["stays"] == *name(&files[0]), "{told}");

        // Names of files begin anew, transactions too: that is somebody else's log.
        server.run("RESET MASTER")?;
        work(&server, 4)?;
        let datadir = server.datadir().to_string_lossy().into_owned();
        let refused = repo.run("binlog push", &[&datadir])?;
        common::assert_failed(&refused, common::exit::USAGE, &["--accept-new-server"]);
        push(&repo, &server, &["--accept-new-server"])?;
        push(&repo, &server, &[])?;
        let listed = repo.json("binlog list", &[])?;
        let epochs: BTreeSet<String> = listed["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["epoch"].to_string())
            .collect();
        ensure!(epochs.len() == 2, "{epochs:?}");

        // The server gives up what is archived, and only that.
        let logs = || -> Result<Vec<String>> {
            let rows = server.client()?.text("SHOW BINARY LOGS")?;
            Ok(rows.into_iter().map(|mut row| row.swap_remove(0)).collect())
        };
        let before = logs()?;
        let told = purge(&["--keep-within", "1h", "--delete"])?;
        ensure!(told["why"] == "recent" && logs()? == before, "{told}");
        work(&server, 1)?;
        let told = purge(&[])?;
        ensure!(told["why"] == "it is not archived" && logs()?.starts_with(&before), "{told}");
        purge(&["--delete"])?;
        let left = logs()?;
        ensure!(left.len() == 2 && told["stays"] == *left[0], "{told}: {left:?}");
        push(&repo, &server, &[])?;
        let told = purge(&["--delete"])?;
        ensure!(told["why"] == "the server writes it" && logs()? == left[1..], "{told}");
        Ok(())
    })());
}

/// The files that go.
fn going(document: &Value) -> Vec<String> {
    let files = document["files"].as_array().cloned().unwrap_or_default();
    let goes = files.iter().filter(|file| file["stays"].is_null());
    goes.map(|file| file["file"].to_string()).collect()
}

/// All files below a directory, sorted.
fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(walk(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

/// Two servers: the second one has what the first one had, and goes on.
#[test]
fn a_failover_loses_and_repeats_nothing() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let mut source = ServerOptions::default().start()?;
        let options = ServerOptions { server_id: 2, ..ServerOptions::default() };
        let replica = options.arg("--log-slave-updates").start()?;
        source.run("CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl'")?;
        source.run("GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'")?;
        let mut client = replica.client()?;
        let tls = match Generation::under_test() {
            Generation::V11_8 => ", MASTER_SSL=0",
            _ => "",
        };
        client.run(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='repl', \
             MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1{tls}",
            source.port()
        ))?;
        client.run("START SLAVE")?;
        let catch_up = |client: &mut harness::Client, source: &Server| -> Result<()> {
            let position = source.client()?.scalar("SELECT @@gtid_binlog_pos")?.unwrap();
            let waited = client.scalar(&format!("SELECT MASTER_GTID_WAIT('{position}', 30)"))?;
            ensure!(waited.as_deref() == Some("0"), "the replica lags");
            Ok(())
        };
        work(&source, 10)?;
        work(&source, 10)?;
        catch_up(&mut client, &source)?;
        // Files have the second in which they were begun: a first one and a second one of the same
        // second look like those of a server that was reset.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        replica.run("FLUSH BINARY LOGS")?;
        push(&repo, &source, &[])?;
        // All of it is known.
        let document = push(&repo, &replica, &[])?;
        ensure!(words(&document) == BTreeSet::from(["known".to_owned()]), "{document}");

        // What is known from the first server may go, although it is not archived from the second one.
        let socket = format!("--socket={}", replica.socket().display());
        let purge = || repo.json("binlog purge", &["--no-defaults", "--user=root", &socket]);
        let told = purge()?;
        ensure!(told["why"] == "the server writes it", "{told}");
        ensure!(told["purged"].as_array().is_some_and(|logs| !logs.is_empty()), "{told}");

        // What comes later reaches the archive through the replica only.
        work(&source, 7)?;
        catch_up(&mut client, &source)?;
        source.crash()?;
        client.run("STOP SLAVE")?;
        replica.run("FLUSH BINARY LOGS")?;
        work(&replica, 6)?;
        let told = purge()?;
        ensure!(told["why"] == "it is not archived", "{told}");
        let document = push(&repo, &replica, &[])?;
        let fates = became(&document);
        ensure!(fates[0].1 == "known" && fates.last().unwrap().1 == "stored", "{document}");
        let again = words(&push(&repo, &replica, &[])?);
        ensure!(!again.contains("stored"), "{again:?}");
        let listed = repo.run("binlog list", &[])?;
        ensure!(listed.code() == Some(0), "{}", listed.report());
        // Read from one end to the other, each transaction comes once.
        let all = logged(&closed(&replica)?)?;
        let mine = planned(&repo, "", &Until::End)?;
        ensure!(mine == all, "{mine:?} instead of {all:?}");
        let middle = &all[all.len() / 2];
        let rest = planned(&repo, middle, &Until::End)?;
        ensure!(rest == all[all.len() / 2 + 1..], "behind {middle}: {rest:?}");
        // From the first server's log into the second one's: replayed, and served.
        let fresh = |id: u32| {
            let options = ServerOptions { server_id: id, ..ServerOptions::default() };
            options.arg("--log-slave-updates").start()
        };
        let there = Contents::read(&mut client)?;
        let replayed = fresh(5)?;
        let socket = format!("--socket={}", replayed.socket().display());
        let onto = ["--no-defaults", "--user=root", &socket, "--from-gtid=", "--until=end"];
        repo.json("replay", &onto)?;
        let differences = there.differences(&Contents::read(&mut replayed.client()?)?);
        ensure!(differences.is_empty(), "replayed: {}", differences.join("\n"));
        let mut command = repo.command("binlog serve");
        command.args(["--from-gtid=", "--listen=127.0.0.1:0", "--server-id=99"]);
        command.env("HAULOUT_SERVE_PASSWORD", "geheim");
        let (served, line) = common::start_and_hear(command, "listening at 127.0.0.1:")?;
        let port = line.rsplit("127.0.0.1:").next().unwrap().split(',').next().unwrap().to_owned();
        let attached = fresh(6)?;
        let mut sql = attached.client()?;
        sql.run(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
             MASTER_PASSWORD='geheim', MASTER_USE_GTID=slave_pos{tls}"
        ))?;
        sql.run("START SLAVE")?;
        let last = all.last().unwrap();
        let waited = sql.scalar(&format!("SELECT MASTER_GTID_WAIT('{last}', 30)"))?;
        let status = sql.named("SHOW SLAVE STATUS")?;
        ensure!(waited.as_deref() == Some("0"), "not at {last}: {status:#?}");
        let differences = there.differences(&Contents::read(&mut sql)?);
        ensure!(differences.is_empty(), "served: {}", differences.join("\n"));
        let position = sql.scalar("SELECT @@gtid_slave_pos")?;
        ensure!(position.as_ref() == Some(last), "{position:?} instead of {last}");
        served.end()?;

        // In another repository, and there as it is here.
        let other = Repo::init(true)?;
        let to = other.place();
        repo.backup(&replica, &[])?;
        let mut copy = repo.command("copy");
        copy.args(["LATEST", "--binlogs", "--to"]).arg(&to);
        let refused = run(copy)?;
        common::assert_failed(&refused, common::exit::USAGE, &["sealed"]);
        let other = Repo::init(false)?;
        let to = other.place().display().to_string();
        let copied = repo.json("copy", &["LATEST", "--binlogs", "--to", &to])?;
        ensure!(copied["binlogs"]["files"].as_u64() > Some(2), "{copied}");
        let again = repo.json("copy", &["LATEST", "--binlogs", "--to", &to])?;
        ensure!(again["binlogs"]["files"] == 0, "{again}");
        ensure!(planned(&other, "", &Until::End)? == all, "the copy has something else");
        for deep in [&[][..], &["--deep"]] {
            let verified = other.json("verify", deep)?;
            ensure!(verified["binlogs"]["files"].as_u64() > Some(2), "{verified}");
        }
        let object = walk(&other.place().join("binlog"))?[1].clone();
        let mut bytes = fs::read(&object)?;
        let middle = bytes.len() - 30;
        bytes[middle] ^= 1;
        fs::write(&object, &bytes)?;
        let damaged = other.run("verify", &[])?;
        common::assert_failed(&damaged, common::exit::DAMAGE, &["binary logs", "changed"]);

        // Somebody else.
        let stranger = ServerOptions { server_id: 9, ..ServerOptions::default() }.start()?;
        work(&stranger, 1)?;
        let datadir = stranger.datadir().to_string_lossy().into_owned();
        let refused = repo.run("binlog push", &[&datadir])?;
        common::assert_failed(&refused, common::exit::USAGE, &["nothing in common"]);
        Ok(())
    })());
}

/// A server that encrypts its log: the archive has it as replicas get it, and only sealed.
#[test]
fn encrypted_logs_are_archived_as_replicas_get_them() {
    common::ok((|| -> Result<()> {
        let keys = KeyFile::encrypted()?;
        let options = keys.used_by(ServerOptions::default()).arg("--encrypt-binlog=ON");
        let server = options.start()?;
        work(&server, 5)?;
        let (file, password) = (keys.path(), keys.password_file());
        let with_keys = [
            "--keys-file",
            file.to_str().unwrap(),
            "--keys-password-file",
            password.to_str().unwrap(),
        ];
        let datadir = server.datadir().to_string_lossy().into_owned();
        let push = |repo: &Repo, arguments: &[&str]| {
            repo.run("binlog push", &[&[datadir.as_str()], arguments].concat())
        };
        let plain = Repo::init(false)?;
        let refused = push(&plain, &with_keys)?;
        common::assert_failed(&refused, common::exit::USAGE, &["not sealed"]);
        let repo = Repo::init(true)?;
        let refused = push(&repo, &[])?;
        common::assert_failed(&refused, common::exit::USAGE, &["keys"]);
        push(&repo, &with_keys)?.success()?;
        let to = repo.scratch.join("fetched");
        repo.run("binlog fetch", &["--to", to.to_str().unwrap()])?.success()?;
        // The oracle: what the stock tool gets from the server.
        let raw = Scratch::new()?;
        server.run("CREATE USER r@'127.0.0.1' IDENTIFIED BY 'r'")?;
        server.run("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO r@'127.0.0.1'")?;
        let mut stock = Command::new(Generation::under_test().program("mariadb-binlog"));
        stock
            .args(["--no-defaults", "--read-from-remote-server", "--raw", "--user=root"])
            .arg(format!("--socket={}", server.socket().display()))
            .arg(format!("--result-file={}/", raw.path().display()))
            .arg("binlog.000001");
        process::start(stock, None)?.wait(Duration::from_secs(60))?.success()?;
        let theirs = fs::read(raw.join("binlog.000001"))?;
        ensure!(theirs == fs::read(to.join("binlog.000001"))?, "not what replicas get");
        let found = find(&repo, &["--op", "create"])?;
        ensure!(found.len() == 2, "{found:?}");
        // Replayed: from the files with the keys, from the archive without.
        server.run("FLUSH BINARY LOGS")?;
        push(&repo, &with_keys)?.success()?;
        for archived in [false, true] {
            let copy = ServerOptions::default().start()?;
            let mut command = match archived {
                true => repo.command("replay"),
                false => common::repo::haulout(),
            };
            if !archived {
                command.args(["replay", "--binlogs"]).arg(server.datadir()).args(with_keys);
            }
            command.args(["--no-defaults", "--user=root", "--from-gtid=", "--until=end"]);
            command.arg(format!("--socket={}", copy.socket().display()));
            run(command)?.success()?;
            let there = Contents::read(&mut server.client()?)?;
            let differences = there.differences(&Contents::read(&mut copy.client()?)?);
            ensure!(differences.is_empty(), "{}", differences.join("\n"));
        }
        // Nothing of it can be read without the key, and nothing that was changed is taken.
        let object = walk(&repo.place().join("binlog"))?[0].clone();
        let mut bytes = fs::read(&object)?;
        ensure!(!bytes.windows(6).any(|six| six == b"orders"), "it can be read without the key");
        let middle = bytes.len() - 40;
        bytes[middle] ^= 1;
        fs::write(&object, &bytes)?;
        let damaged = repo.run("binlog find", &["--op", "create"])?;
        common::assert_failed(&damaged, common::exit::DAMAGE, &["changed"]);
        Ok(())
    })());
}
