//! Replay: a restored copy becomes what its source was at a transaction, a place or a moment.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use binlog::event::GtidList;
use binlog::{EventType, Reader};
use common::corpus::{Corpus, Sequences};
use common::replay::{json, replay, run, state, target_options};
use common::witness::Witness;
use common::{Heard, exit, ok, start_and_hear};
use engine::server::ConnectOptions;
use engine::server::feed::{Source, Wanted};
use harness::certificate::Certificate;
use harness::compare::Contents;
use harness::load::{Load, LoadOptions};
use harness::process;
use harness::{Client, Generation, Result, Scratch, Server, ServerOptions};
use serde_json::Value;

/// What a session that speaks latin1 does where names are not ASCII: names in a log are UTF-8 all the
/// same. The text of the stock tool does not find them.
const NAMES_IN_LATIN1: &[&str] = &[
    "CREATE DATABASE größe",
    "CREATE TABLE größe.t (a INT)",
    "CREATE SEQUENCE größe.zähler CACHE 5",
    "SET binlog_format = STATEMENT",
    "USE other",
    "SET NAMES latin1",
    "INSERT INTO t VALUES (7)",
    "SET NAMES utf8mb4",
    "USE größe",
    "SET NAMES latin1",
    "INSERT INTO t VALUES (8)",
    "SET binlog_format = ROW",
    "SET NAMES utf8mb4",
    "DO NEXTVAL(größe.zähler)",
    "INSERT INTO größe.t VALUES (9)",
];

/// Every kind of event, of logs with checksums, compressed, and without: a server that they are
/// replayed onto from the very beginning has the same tables under the same GTIDs.
#[test]
fn every_kind_of_event() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let options = ServerOptions::default();
        let corpus = Corpus::write(options.clone(), &scratch, Sequences::All)?;
        let mut client = corpus.server.client()?;
        for statement in NAMES_IN_LATIN1 {
            client.run(statement)?;
        }
        let other = target_options(&options).start()?;
        let done = json(&other, corpus.server.datadir(), &["--from-gtid=", "--until=end"])?;
        let mut clients = (corpus.server.client()?, other.client()?);
        let states = (state(&mut clients.0)?, state(&mut clients.1)?);
        ensure!(states.0 == states.1, "{states:?}: {done:#}");
        let contents = (Contents::read(&mut clients.0)?, Contents::read(&mut clients.1)?);
        let differences = contents.0.differences(&contents.1);
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        ensure!(contents.0.tables() > 9, "too few tables");
        Ok(())
    })());
}

/// What a replay refuses, what it leaves out, and that it goes on where it was killed.
#[test]
fn refused_left_out_and_resumed() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let options = ServerOptions::default();
        let source = options.start()?;
        let mut client = source.client()?;
        client.run("CREATE DATABASE d")?;
        client.run("CREATE TABLE d.t (id INT PRIMARY KEY, b VARCHAR(500))")?;
        client.run("CREATE TABLE d.other (id INT PRIMARY KEY) ENGINE=Aria")?;
        let backup = scratch.join("backup");
        let tool = common::haulout();
        tool.run_backup(&source, &backup)?;
        tool.run_prepare(&backup)?;
        let position = |client: &mut Client| client.scalar("SELECT @@gtid_binlog_pos");
        let mut unlucky = None;
        for number in 1..=6 {
            client.run("FLUSH BINARY LOGS")?;
            client.run(&format!("INSERT INTO d.t VALUES ({number}, 'single')"))?;
            unlucky = if number == 3 { position(&mut client)? } else { unlucky };
            client.run(&format!("INSERT INTO d.other VALUES ({number})"))?;
            client.run(&format!(
                "BEGIN NOT ATOMIC FOR i IN 1..500 DO INSERT INTO d.t VALUES ({number} * 1000 + i, \
                 REPEAT('x', 400)); END FOR; END"
            ))?;
        }
        let unlucky = unlucky.context("no position")?;
        let from = backup.to_str().unwrap();
        let boot = |name: &str| -> Result<Server> {
            let datadir = scratch.join(name);
            tool.run_restore(&backup, &datadir)?;
            target_options(&options).start_on(&datadir)
        };
        let until_end = ["--from-backup", from, "--until", "end"];

        // Another history, a log too few, targets that are not there.
        let mut logs: Vec<PathBuf> = std::fs::read_dir(source.datadir())?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        logs.retain(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("binlog.0") && !name.ends_with(".idx")
        });
        logs.sort();
        let gappy = scratch.join("gappy");
        std::fs::create_dir(&gappy)?;
        for (index, log) in logs.iter().enumerate().filter(|(index, _)| *index != 3) {
            // Names say nothing.
            std::fs::copy(log, gappy.join(format!("{}.log", 9 - index)))?;
        }
        let copy = boot("copy")?;
        let refused = run(&copy, &gappy, &until_end)?;
        common::assert_failed(&refused, exit::GAP, &["does not follow", "7.log"]);
        for (until, code, words) in [
            ("0-1-999999", exit::NOTHING_MATCHES, "not in the logs"),
            ("2001-01-01 00:00:00", exit::USAGE, "restore an earlier backup"),
        ] {
            let arguments = ["--from-backup", from, "--until", until, "--after"];
            common::assert_failed(&run(&copy, source.datadir(), &arguments)?, code, &[words]);
        }
        let arguments = ["--from-backup", from, "--until", &unlucky];
        let refused = run(&copy, source.datadir(), &arguments)?;
        common::assert_failed(&refused, exit::USAGE, &["--before or --after"]);

        // Left out: one transaction, one table.
        let skip = ["--skip-gtid", &*unlucky, "--exclude-table", "d.other"];
        let arguments = [&until_end[..], &skip[..]].concat();
        let plan = json(&copy, source.datadir(), &[&arguments[..], &["--plan"]].concat())?;
        ensure!(plan["left_out"] == 7, "{plan:#}");
        let done = json(&copy, source.datadir(), &arguments).with_context(|| copy.log_tail())?;
        let sum = |client: &mut Client, condition: &str| {
            client.scalar(&format!("SELECT COUNT(*), SUM(id) FROM d.t WHERE {condition}"))
        };
        let mut there = copy.client()?;
        let rows = (sum(&mut client, "id <> 3")?, sum(&mut there, "TRUE")?);
        ensure!(rows.0 == rows.1, "{rows:?}: {done:#}");
        ensure!(there.scalar("SELECT COUNT(*) FROM d.other")?.as_deref() == Some("0"));
        // Done is done; what others write is noticed.
        let refused = run(&copy, source.datadir(), &arguments)?;
        common::assert_failed(&refused, exit::USAGE, &[&unlucky, "without this --skip-gtid"]);
        let arguments = [&until_end[..], &skip[2..]].concat();
        let again = json(&copy, source.datadir(), &arguments)?;
        ensure!(again["transactions"] == 0, "{again:#}");
        there.run("INSERT INTO d.t VALUES (-1, 'stranger')")?;
        let refused = run(&copy, source.datadir(), &arguments)?;
        common::assert_failed(&refused, exit::USAGE, &["transactions of its own"]);
        drop(copy);

        // The first error stops it, and says where it is; behind the mend it goes on.
        let copy = boot("copy2")?;
        copy.run("SET sql_log_bin=0; INSERT INTO d.t VALUES (4, 'in the way')")?;
        let failed = run(&copy, source.datadir(), &until_end)?;
        common::assert_failed(
            &failed,
            exit::SERVER,
            &["rows of d.t", "Duplicate entry", "binlog.00"],
        );
        copy.run("SET sql_log_bin=0; DELETE FROM d.t WHERE id = 4")?;
        // Killed at some moment, again and again.
        for delay in [60, 90, 120, 150] {
            let mut child = replay(&copy, source.datadir(), &until_end)
                .stderr(std::process::Stdio::null())
                .spawn()?;
            std::thread::sleep(Duration::from_millis(delay));
            child.kill()?;
            child.wait()?;
            // The server may still be busy with what it got.
            std::thread::sleep(Duration::from_millis(300));
        }
        let done = json(&copy, source.datadir(), &until_end)?;
        let mut there = copy.client()?;
        let states = (state(&mut client)?, state(&mut there)?);
        ensure!(states.0 == states.1, "{states:?}: {done:#}");
        let differences = Contents::read(&mut client)?.differences(&Contents::read(&mut there)?);
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        if done["transactions"].as_u64().is_none() {
            bail!("no count: {done:#}");
        }
        Ok(())
    })());
}

/// A restored copy as a replica of the logs: it catches up with parallel appliers and stops at the
/// target, and goes on when it connects again to logs that end later.
#[test]
fn served_to_a_replica() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let options = ServerOptions::default().arg("--max-binlog-size=1M");
        let source = options.start()?;
        let load = LoadOptions { rows: 200, ..LoadOptions::new(5) };
        let load = Load::start(&source, &load)?;
        let backup = scratch.join("backup");
        let tool = common::haulout();
        tool.run_backup(&source, &backup)?;
        std::thread::sleep(Duration::from_millis(900));
        let witness = load.paused(|| Witness::take(&source))?;
        std::thread::sleep(Duration::from_millis(500));
        load.stop()?;
        let last = Witness::take(&source)?;
        source.run("FLUSH BINARY LOGS")?;
        tool.run_prepare(&backup)?;
        let position = harness::tool::BinlogPosition::of_backup(&backup)?;
        let datadir = scratch.join("copy");
        tool.run_restore(&backup, &datadir)?;
        let mut options = target_options(&options);
        // Nobody in the logs has it.
        options.server_id = 77;
        let options = options.arg("--slave-parallel-threads=4").arg("--log-slave-updates");
        let copy = options.start_on(&datadir)?;
        let mut client = copy.client()?;
        client.run(&format!("SET GLOBAL gtid_slave_pos = '{}'", position.gtid))?;
        let at = format!("{}:{}", witness.file, witness.offset);
        // From files first, then from an archive, over TLS.
        let repo = common::repo::Repo::init(true)?;
        repo.run("binlog push", &[source.datadir().to_str().unwrap()])?.success()?;
        let certificate = Certificate::make(&scratch)?;
        let show = |command: &mut Command| {
            command.arg("--tls-cert").arg(&certificate.cert);
            command.arg("--tls-key").arg(&certificate.key);
        };
        for (until, witness, archived) in [(at.as_str(), &witness, false), ("end", &last, true)] {
            let mut command = match archived {
                true => repo.command("binlog serve"),
                false => common::repo::haulout(),
            };
            if archived {
                command.args(["--from-gtid", &position.gtid]);
                show(&mut command);
            } else {
                command.args(["binlog", "serve", "--binlogs"]).arg(source.datadir());
            }
            let (served, port) = serve(command, until)?;
            let ca = certificate.cert.display();
            let tls = match archived {
                true => {
                    format!("MASTER_SSL=1, MASTER_SSL_CA='{ca}', MASTER_SSL_VERIFY_SERVER_CERT=1, ")
                }
                false if options.generation >= Generation::V11_8 => "MASTER_SSL=0, ".to_owned(),
                false => String::new(),
            };
            client.run(&format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, \
                 MASTER_USER='repl', MASTER_PASSWORD='geheim', {tls}MASTER_USE_GTID=slave_pos, \
                 MASTER_HEARTBEAT_PERIOD=0.5"
            ))?;
            client.run("START SLAVE")?;
            let target = witness.state.join(",");
            let waited = client.scalar(&format!("SELECT MASTER_GTID_WAIT('{target}', 60)"))?;
            let status = client.named("SHOW SLAVE STATUS")?;
            ensure!(waited.as_deref() == Some("0"), "not at {target}: {status:#?}");
            // Nothing comes behind it; heartbeats do.
            std::thread::sleep(Duration::from_millis(1500));
            let status = client.named("SHOW SLAVE STATUS")?;
            let running = |(name, value): &(String, String)| {
                matches!(&**name, "Slave_IO_Running" | "Slave_SQL_Running") && value == "Yes"
            };
            ensure!(status.iter().filter(|field| running(field)).count() == 2, "{status:#?}");
            client.run("STOP SLAVE")?;
            served.end()?;
            let at = client.scalar("SELECT @@gtid_slave_pos")?.unwrap_or_default();
            ensure!(at == target, "it went on to {at} behind {target}");
            let differences = witness.contents.differences(&Contents::read(&mut client)?);
            ensure!(differences.is_empty(), "{until}: {}", differences.join("\n"));
        }
        Ok(())
    })());
}

/// The last log of a host that is lost: its torn end is left out and told; damage in it is no end.
#[test]
fn damage_in_a_log_that_was_not_closed_is_not_its_end() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let source = ServerOptions::default().start()?;
        source.run("CREATE DATABASE d")?;
        source.run("CREATE TABLE d.t (a INT, b LONGTEXT)")?;
        source.run("FLUSH BINARY LOGS")?;
        let text = "x".repeat(100_000);
        for number in 0..30 {
            source.run(&format!("INSERT INTO d.t VALUES ({number}, '{text}')"))?;
        }
        let status = source.client()?.text("SHOW MASTER STATUS")?;
        let (name, whole) = (status[0][0].clone(), status[0][1].parse::<usize>()?);
        let log = std::fs::read(source.datadir().join(&name))?;
        ensure!(whole == log.len() && whole > 2 << 20, "{whole} of {} bytes", log.len());
        let logs = scratch.join("logs");
        std::fs::create_dir(&logs)?;
        let place = logs.join(&name);
        let list = Reader::new(&log[..], "log", Default::default())?;
        let before = before(list)?;
        let copy = target_options(source.options()).start()?;
        let arguments = ["--from-gtid", &before, "--until", "end", "--plan", "--json"];
        let find = |operation: &str| {
            let mut command = common::repo::haulout();
            command.args(["binlog", "find", "--json", "--op", operation]).arg(&place);
            process::run(command)
        };
        for (bit, is_end) in [(whole / 10, false), (whole - 5000, true)] {
            let mut damaged = log.clone();
            damaged[bit] ^= 1;
            std::fs::write(&place, &damaged)?;
            let planned = run(&copy, &logs, &arguments)?;
            let found = find("insert")?;
            if is_end {
                let document: Value = serde_json::from_slice(&planned.success()?.stdout)?;
                let torn = &document["torn"][0];
                ensure!(document["transactions"] == 29, "{document:#}");
                let offset = torn["offset"].as_u64().context("nothing is torn")?;
                ensure!(torn["bytes"].as_u64() == Some(whole as u64 - offset), "{document:#}");
                ensure!(torn["log"] == *name && offset > 2 << 20, "{document:#}");
                let found = found.success()?;
                ensure!(found.stderr.contains("breaks off"), "{}", found.report());
                ensure!(found.stdout_text().lines().count() >= 29, "{}", found.report());
            } else {
                for refused in [planned, found] {
                    ensure!(refused.code() == Some(exit::DAMAGE), "{}", refused.report());
                    let told = refused.stdout_text() + &refused.stderr;
                    ensure!(told.contains("checksum"), "{told}");
                }
            }
        }
        // Cut in the middle of a transaction.
        std::fs::write(&place, &log[..whole - 50_000])?;
        let planned = run(&copy, &logs, &arguments[..5])?.success()?;
        ensure!(planned.stderr.contains("are left out"), "{}", planned.report());
        Ok(())
    })());
}

/// What a log says that was logged before it.
fn before(mut log: Reader<&[u8]>) -> Result<String> {
    while let Some(event) = log.next_event()? {
        if event.header.kind == EventType::GTID_LIST {
            let list = GtidList::parse(event.body())?;
            let gtids: Vec<String> = list.entries.iter().map(ToString::to_string).collect();
            return Ok(gtids.join(","));
        }
    }
    bail!("it has no list")
}

/// A replica that has what the logs do not have is told so, as a primary does, and is sent nothing.
#[test]
fn a_replica_of_another_history_is_refused() {
    ok((|| -> Result<()> {
        let source = ServerOptions::default().start()?;
        source.run("CREATE DATABASE d")?;
        let before = source.client()?.scalar("SELECT @@gtid_binlog_pos")?.context("no GTID")?;
        source.run("CREATE TABLE d.t (a INT)")?;
        let last = source.client()?.scalar("SELECT @@gtid_binlog_pos")?.context("no GTID")?;
        source.run("FLUSH BINARY LOGS")?;
        let mut options = target_options(source.options());
        options.server_id = 77;
        let copy = options.start()?;
        let mut client = copy.client()?;
        client.run("SET sql_log_bin = 0")?;
        client.run("CREATE DATABASE d")?;
        let mut command = common::repo::haulout();
        command.args(["binlog", "serve", "--binlogs"]).arg(source.datadir());
        let (served, port) = serve(command, "end")?;
        let tls = match options.generation >= Generation::V11_8 {
            true => "MASTER_SSL=0, ",
            false => "",
        };
        // By file and offset; a write on the replica itself, or another cluster; a server that had more;
        // nothing wrong.
        for (position, is_right) in
            [("", false), ("0-9-500", false), ("0-1-9999", false), (before.as_str(), true)]
        {
            client.run(&format!("SET GLOBAL gtid_slave_pos = '{position}'"))?;
            let from = match position {
                "" => "no, MASTER_LOG_FILE='binlog.000001', MASTER_LOG_POS=4",
                _ => "slave_pos",
            };
            client.run(&format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, \
                 MASTER_USER='repl', MASTER_PASSWORD='geheim', {tls}MASTER_USE_GTID={from}"
            ))?;
            if is_right {
                client.run("START SLAVE")?;
                let waited = client.scalar(&format!("SELECT MASTER_GTID_WAIT('{last}', 30)"))?;
                let status = client.named("SHOW SLAVE STATUS")?;
                ensure!(waited.as_deref() == Some("0"), "{status:#?}");
                continue;
            }
            client.run("START SLAVE")?;
            let began = Instant::now();
            let told = loop {
                let status = client.named("SHOW SLAVE STATUS")?;
                let of = |name: &str| {
                    let field = status.iter().find(|(field, _)| field == name);
                    field.map(|(_, value)| value.clone()).unwrap_or_default()
                };
                if of("Last_IO_Errno") == "1236" {
                    break of("Last_IO_Error");
                }
                ensure!(began.elapsed() < Duration::from_secs(20), "{position}: {status:#?}");
                std::thread::sleep(Duration::from_millis(50));
            };
            let named = if position.is_empty() { "MASTER_USE_GTID=slave_pos" } else { position };
            ensure!(told.contains(named), "{told}");
            client.run("STOP SLAVE")?;
        }
        served.end()?;
        Ok(())
    })());
}

/// Who connects and reads nothing does not keep the others waiting, nor the end.
#[test]
fn a_replica_that_reads_nothing_delays_nobody() {
    ok((|| -> Result<()> {
        let source = ServerOptions::default().start()?;
        source.run("CREATE DATABASE d")?;
        source.run("CREATE TABLE d.t (b LONGTEXT)")?;
        let text = "x".repeat(4 << 20);
        for _ in 0..10 {
            source.run(&format!("INSERT INTO d.t VALUES ('{text}')"))?;
        }
        source.run("FLUSH BINARY LOGS")?;
        let mut command = common::repo::haulout();
        command.args(["binlog", "serve", "--binlogs"]).arg(source.datadir());
        let (served, port) = serve(command, "end")?;
        let connect = ConnectOptions {
            host: Some("127.0.0.1".to_owned()),
            port: Some(port),
            user: Some("repl".to_owned()),
            password: Some("geheim".to_owned()),
            skip_tls: true,
            ..ConnectOptions::default()
        };
        let wanted = Wanted { server_id: 5, gtids: Some(""), ..Wanted::default() };
        let _stuck = Source::open(&connect, &wanted)?;
        // More come than there is room for; one that logs in not at all, too.
        let strangers: Vec<TcpStream> = (0..80)
            .map(|_| TcpStream::connect(("127.0.0.1", port)))
            .collect::<std::io::Result<_>>()?;
        // Strangers make room, for strangers and for who logs in; whoever has logged in stays.
        let _other = Source::open(&connect, &Wanted { server_id: 6, ..wanted.clone() })?;
        std::thread::sleep(Duration::from_millis(1500));
        let is_connected = |mut stream: &TcpStream| -> Result<bool> {
            stream.set_nonblocking(true)?;
            // The greeting, if it was not sent away before that.
            let mut bytes = [0; 500];
            let greeted = stream.read(&mut bytes).is_ok_and(|count| count > 0);
            let more = stream.read(&mut bytes);
            Ok(greeted && more.is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock))
        };
        let mut connected = 0;
        for stream in &strangers {
            connected += u32::from(is_connected(stream)?);
        }
        ensure!(connected == 62, "{connected} of 80 were let in beside two");
        let took = served.interrupt(Duration::from_secs(10))?;
        ensure!(took < Duration::from_secs(3), "the end took {took:?}");
        Ok(())
    })());
}

/// Serves logs up to a target; the process, and its port.
fn serve(mut command: Command, until: &str) -> Result<(Heard, u16)> {
    command.args(["--listen", "127.0.0.1:0", "--until", until]);
    command.env("HAULOUT_SERVE_PASSWORD", "geheim");
    let (child, line) = start_and_hear(command, "listening at 127.0.0.1:")?;
    let (_, behind) = line.split_once("listening at 127.0.0.1:").context("no port")?;
    Ok((child, behind.split(',').next().unwrap_or_default().parse()?))
}

/// From a repository: the backup before the target is chosen, restored, and the archive leads on.
#[test]
fn from_a_repository() {
    ok((|| -> Result<()> {
        let repo = common::repo::Repo::init(true)?;
        let source = common::repo::small_server()?;
        let first = repo.backup(&source, &[])?;
        let mut client = source.client()?;
        client.run("INSERT INTO d.m VALUES (2)")?;
        client.run("FLUSH BINARY LOGS")?;
        client.run("INSERT INTO d.t VALUES (-1, 'kept')")?;
        let witness = Witness::take(&source)?;
        let contents = &witness.contents;
        client.run("DROP TABLE d.t")?;
        let drop = client.scalar("SELECT @@last_gtid")?.context("no GTID")?;
        let second = repo.backup(&source, &[])?;
        client.run("CREATE TABLE d.late (a INT)")?;
        client.run("FLUSH BINARY LOGS")?;
        let logs = source.datadir().to_str().unwrap();
        repo.run("binlog push", &[logs])?.success()?;

        let chosen = |arguments: &[&str]| -> Result<Value> {
            let datadir = repo.scratch.join("nowhere").display().to_string();
            let document =
                repo.json("restore", &[arguments, &["--plan", "--to", &datadir]].concat())?;
            Ok(document["recovery"]["backup"].clone())
        };
        ensure!(chosen(&["--until", &drop, "--before"])? == first["name"]);
        let at = format!("{}:{}", witness.file, witness.offset);
        let time = format!("{}", jiff::Timestamp::from_second(witness.second as i64)?);
        for until in [&at, &time] {
            ensure!(chosen(&["--until", until])? == first["name"], "{until}");
        }
        ensure!(chosen(&["--until", "end"])? == second["name"]);
        ensure!(chosen(&["--until", "2999-01-01T00:00:00Z"])? == second["name"]);
        // A plan says what a replay would: that the logs end before, that something is not in them.
        let plan = |arguments: &[&str]| {
            repo.run("restore", &[arguments, &["--plan", "--to=/x/y"]].concat())
        };
        let told = plan(&["--until=2999-01-01T00:00:00Z"])?.success()?;
        ensure!(told.stderr.contains("THE ARCHIVE ENDS BEFORE"), "{}", told.report());
        let refused = plan(&["--until=end", "--skip-gtid=0-1-99999"])?;
        common::assert_failed(
            &refused,
            exit::NOTHING_MATCHES,
            &["0-1-99999", "is not in the logs"],
        );
        // What is to be left out is in no backup that is begun with.
        ensure!(chosen(&["--until=end", "--skip-gtid", &drop])? == first["name"]);
        let refused =
            repo.run("restore", &["--until=0-1-99999", "--after", "--to=/x", "--plan"])?;
        common::assert_failed(&refused, exit::NOTHING_MATCHES, &["0-1-99999"]);

        // What is served begins at the same backup.
        let mut command = repo.command("binlog serve");
        command.args(["--listen=127.0.0.1:0", "--before", "--until", &drop]);
        // Nor are the logs for everybody on this host.
        command.env("HAULOUT_SERVE_PASSWORD", "");
        let refused = process::run(command)?;
        common::assert_failed(&refused, exit::USAGE, &["HAULOUT_SERVE_PASSWORD"]);
        let mut command = repo.command("binlog serve");
        command.args(["--listen=127.0.0.1:0", "--before", "--until", &drop]);
        command.env("HAULOUT_SERVE_PASSWORD", "geheim");
        let (served, line) = start_and_hear(command, "for replicas that have the backup")?;
        ensure!(line.contains(first["name"].as_str().unwrap()), "{line}");
        served.end()?;

        let datadir = repo.scratch.join("copy");
        let to = datadir.to_str().unwrap();
        let done = repo.run("restore", &["--until", &drop, "--before", "--to", to])?.success()?;
        // The rest is what it says.
        let line = done.stderr.lines().find(|line| line.contains("haulout replay"));
        let line = line.with_context(|| done.report())?;
        let copy = target_options(source.options()).start_on(&datadir)?;
        let mut words = line.split_whitespace().skip_while(|word| *word != "--from-backup");
        let mut arguments = vec!["--no-defaults".to_owned(), "--user=root".to_owned()];
        arguments.extend(words.by_ref().take_while(|word| *word != "--socket").map(str::to_owned));
        arguments.push(format!("--socket={}", copy.socket().display()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let done = repo.json("replay", &arguments)?;
        ensure!(done["next"] == *drop, "{done:#}");
        let differences = contents.differences(&Contents::read(&mut copy.client()?)?);
        ensure!(differences.is_empty(), "{}", differences.join("\n"));

        // All of it by one command, which waits for the server that is started in between: for that
        // one, and for no other.
        let socket = repo.scratch.join("new.sock");
        let recover = |name: &str, socket: &Path| {
            let mut command = repo.command("restore");
            command.args(["--until", &at, "--replay", "--json", "--to"]);
            command.arg(repo.scratch.join(name)).args(["--no-defaults", "--user=root", "--socket"]);
            command.arg(socket).stdout(std::process::Stdio::piped());
            command
        };
        let refused = process::run(recover("nowhere", source.socket()))?;
        ensure!(refused.code() == Some(exit::USAGE), "{}", refused.report());
        ensure!(refused.stdout_text().contains("runs already"), "{}", refused.report());
        for (name, is_right) in [("copy2", false), ("copy3", true)] {
            let (child, _) = start_and_hear(recover(name, &socket), "waiting for a server")?;
            let copy = match is_right {
                true => Some(target_options(source.options()).start_on(&repo.scratch.join(name))?),
                false => None,
            };
            let there = copy.as_ref().unwrap_or(&source);
            std::os::unix::fs::symlink(there.socket(), &socket)?;
            let ended = child.output()?;
            std::fs::remove_file(&socket)?;
            let document: Value = serde_json::from_slice(&ended.stdout)?;
            let Some(copy) = copy else {
                ensure!(document["error"]["code"] == "usage", "{document:#}");
                continue;
            };
            ensure!(document["replay"]["target_found"] == true, "{document:#}");
            let server = format!("--socket={}", copy.socket().display());
            let named = first["name"].as_str().unwrap();
            let onto = ["--no-defaults", "--user=root", &server, "--from-backup", named, "--plan"];
            let plan = repo.json("replay", &[&onto[..], &["--until", &time]].concat())?;
            ensure!(plan["next"] == *drop && plan["transactions"] == 0, "{plan:#}");
            let differences = contents.differences(&Contents::read(&mut copy.client()?)?);
            ensure!(differences.is_empty(), "{}", differences.join("\n"));
        }
        Ok(())
    })());
}
