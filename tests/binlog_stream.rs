//! Archiving a binary log while it is written: whatever is killed or cut, no transaction is missing and
//! none comes twice.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use common::repo::Repo;
use harness::certificate::Certificate;
use harness::process::{self, Running, run};
use harness::{Client, Generation, Result, Server, ServerOptions};
use rustix::process::Signal;
use serde_json::Value;

/// How many faults; `HAULOUT_FAULTS` says otherwise.
const FAULTS: usize = 8;
/// How long the archive may take to have what the server has.
const CATCH_UP: Duration = Duration::from_secs(60);

fn stream(repo: &Repo, server: &Server, arguments: &[&str]) -> Result<Running> {
    let mut command = repo.command("binlog stream");
    command.args(["--no-defaults", "--user=root", "--json", "--rpo=500ms"]).args(arguments);
    command.arg(format!("--socket={}", server.socket().display()));
    process::start(command, None)
}

/// The archive's files.
fn listed(repo: &Repo) -> Result<Vec<Value>> {
    let document = repo.json("binlog list", &[])?;
    ensure!(document["gaps"].as_array().is_some_and(Vec::is_empty), "{document}");
    Ok(document["files"].as_array().cloned().unwrap_or_default())
}

/// Waits until the archive has this transaction.
fn wait_for(repo: &Repo, gtid: &str) -> Result<Duration> {
    let began = Instant::now();
    loop {
        // Others may have come behind it.
        let wanted: binlog::Gtid = gtid.parse()?;
        let has = |file: &Value| {
            let after = file["gtids_after"].as_str().unwrap_or_default();
            after.parse::<binlog::GtidState>().is_ok_and(|after| after.covers(wanted))
        };
        if listed(repo)?.iter().any(has) {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < CATCH_UP,
            "the archive does not have {gtid}: {:?}",
            listed(repo)?
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn last_gtid(client: &mut Client) -> Result<String> {
    client.scalar("SELECT @@last_gtid")?.context("no GTID")
}

/// The GTIDs of files, as they are in them.
fn logged(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut gtids = Vec::new();
    for path in files {
        let mut reader =
            binlog::Reader::new(std::fs::File::open(path)?, "log", Default::default())?;
        while let Ok(Some(event)) = reader.next_event() {
            if event.header.kind == binlog::EventType::GTID {
                let event = binlog::event::GtidEvent::parse(event.body(), event.header.server_id)?;
                gtids.push(event.gtid.to_string());
            }
        }
    }
    Ok(gtids)
}

/// Writes until it is told to stop; crashes of the server are passed over.
fn load(server: &std::sync::RwLock<Server>, stop: &AtomicBool) {
    let mut client: Option<Client> = None;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = &mut client else {
            client = server.read().unwrap().client().ok();
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        count += 1;
        let domain = if count % 5 == 0 { 3 } else { 0 };
        let work = [
            format!("SET SESSION gtid_domain_id = {domain}"),
            "INSERT INTO d.t (a) VALUES (REPEAT('x', 100)), (REPEAT('y', 3000))".to_owned(),
            "UPDATE d.t SET a = 'z' ORDER BY id DESC LIMIT 2".to_owned(),
        ];
        if work.iter().any(|statement| connected.run(statement).is_err()) {
            client = None;
        }
        if count % 400 == 0 {
            let _ = server.read().unwrap().run("FLUSH BINARY LOGS");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends the connections of replicas, as a network does.
fn cut(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    let sql = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    for row in client.text(sql)? {
        let _ = client.run(&format!("KILL CONNECTION {}", row[0]));
    }
    Ok(())
}

#[test]
fn random_faults_leave_no_gap_and_no_duplicate() {
    common::ok((|| -> Result<()> {
        let faults = std::env::var("HAULOUT_FAULTS").ok().and_then(|text| text.parse().ok());
        let repo = Repo::init(true)?;
        let server = ServerOptions::default().arg("--sync-binlog=1").start()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT)")?;
        let server = std::sync::RwLock::new(server);
        let stop = AtomicBool::new(false);
        let done = std::thread::scope(|scope| -> Result<Value> {
            scope.spawn(|| load(&server, &stop));
            let worked = (|| -> Result<Value> {
                let mut running = stream(&repo, &server.read().unwrap(), &[])?;
                for number in 0..faults.unwrap_or(FAULTS) {
                    std::thread::sleep(Duration::from_millis(fastrand::u64(200..2500)));
                    match number % 4 {
                        0 => {
                            running.signal(Signal::KILL)?;
                            running.wait(Duration::from_secs(10))?;
                            running = stream(&repo, &server.read().unwrap(), &[])?;
                        }
                        1 => cut(&server.read().unwrap())?,
                        2 => {
                            let mut server = server.write().unwrap();
                            server.crash()?;
                            server.start()?;
                        }
                        _ => server.read().unwrap().run("FLUSH BINARY LOGS")?,
                    }
                }
                // Nothing went wrong from here on: how far behind is it?
                std::thread::sleep(Duration::from_secs(4));
                let mut client = server.read().unwrap().client()?;
                client.run("INSERT INTO d.t (a) VALUES ('last')")?;
                let lag = wait_for(&repo, &last_gtid(&mut client)?)?;
                eprintln!("behind by {lag:?}");
                stop.store(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(500));
                running.signal(Signal::TERM)?;
                let ended = running.wait(Duration::from_secs(30))?.success()?;
                Ok(serde_json::from_slice(&ended.stdout)?)
            })();
            stop.store(true, Ordering::Relaxed);
            worked
        })?;
        ensure!(done["transactions"].as_u64() > Some(0), "{done}");
        let waited = done["longest_wait_seconds"].as_f64().unwrap();
        eprintln!("{done}");
        // Half a second is allowed; the rest is what a busy machine may take to store it.
        ensure!(waited < 5.0, "bytes waited for {waited} s: {done}");
        let server = server.into_inner().unwrap();
        // The stream has all that was committed before it was ended; the rest is a push.
        server.run("FLUSH BINARY LOGS")?;
        let datadir = server.datadir().to_string_lossy().into_owned();
        repo.json("binlog push", &[&datadir])?;
        listed(&repo)?;
        let list = std::fs::read_to_string(server.datadir().join("binlog.index"))?;
        let mut files: Vec<PathBuf> =
            list.lines().map(|line| server.datadir().join(line)).collect();
        files.pop();
        let to = repo.scratch.join("fetched");
        repo.run("binlog fetch", &["--to", to.to_str().unwrap()])?.success()?;
        let fetched: Vec<PathBuf> =
            files.iter().map(|file| to.join(file.file_name().unwrap())).collect();
        let (theirs, ours) = (logged(&files)?, logged(&fetched)?);
        ensure!(theirs.len() > 200, "{} transactions only", theirs.len());
        ensure!(theirs == ours, "{} transactions became {}", theirs.len(), ours.len());
        for (one, other) in files.iter().zip(&fetched) {
            let (mut theirs, ours) = (std::fs::read(one)?, std::fs::read(other)?);
            // Of a file that was open when its server crashed, the mark and a torn end are left out.
            theirs[4 + 17] = ours[4 + 17];
            ensure!(theirs.starts_with(&ours), "{} came back otherwise", one.display());
            let mut stock = std::process::Command::new(
                harness::Generation::under_test().program("mariadb-binlog"),
            );
            stock.args(["--no-defaults", "-c", "--base64-output=decode-rows"]).arg(other);
            run(stock)?.success()?;
        }
        Ok(())
    })());
}

/// The number of a transaction in its domain.
fn sequence_number(gtid: &str) -> Result<u64> {
    Ok(gtid.rsplit('-').next().unwrap_or_default().parse()?)
}

/// How many clients commit at the same time.
const COMMITTING: u64 = 8;
/// How often the stream is killed under them.
const KILLS: u64 = 8;

/// Of many that commit at the same time, nobody is told so before it is stored: whenever the stream is
/// killed, the archive has all that anybody was told.
#[test]
fn nobody_is_told_of_a_commit_that_is_not_stored() {
    for point in ["AFTER_SYNC", "AFTER_COMMIT"] {
        common::ok(told_commits(point).context(point));
    }
}

fn told_commits(point: &str) -> Result<()> {
    let repo = Repo::init(false)?;
    let server = ServerOptions::default()
        .arg("--rpl-semi-sync-master-timeout=60000")
        .arg(format!("--rpl-semi-sync-master-wait-point={point}"))
        .arg("--max-binlog-size=64K")
        .start()?;
    server.run("CREATE DATABASE d")?;
    server.run("CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT) ENGINE=InnoDB")?;
    let status = |name: &str| -> Result<u64> {
        let like = format!("SHOW STATUS LIKE 'Rpl_semi_sync_master_{name}'");
        Ok(server.client()?.text(&like)?[0][1].parse()?)
    };
    let start = || -> Result<Running> {
        let running = stream(&repo, &server, &["--semi-sync"])?;
        let began = Instant::now();
        while status("clients")? == 0 {
            if began.elapsed() > CATCH_UP {
                running.signal(Signal::TERM)?;
                bail!("no stream registered: {}", running.wait(CATCH_UP)?.report());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    };
    // A stream that comes before the server waits for any is one that it waits for then.
    let early = stream(&repo, &server, &["--semi-sync"])?;
    let gtid = server.client()?.scalar("SELECT @@gtid_binlog_pos")?.context("no GTID")?;
    wait_for(&repo, &gtid)?;
    server.run("SET GLOBAL rpl_semi_sync_master_enabled = ON")?;
    server.run("INSERT INTO d.t (a) VALUES (1)")?;
    ensure!((status("yes_tx")?, status("no_tx")?) == (1, 0), "{point}: not acknowledged");
    early.signal(Signal::KILL)?;
    early.wait(CATCH_UP)?;
    let (told, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let running = std::thread::scope(|scope| -> Result<Running> {
        let commit = || -> Result<()> {
            let mut client = server.client()?.with_timeout(Duration::from_secs(90));
            while !stop.load(Ordering::Relaxed) {
                client.run("INSERT INTO d.t (a) VALUES (1)")?;
                let gtid = client.scalar("SELECT @@last_gtid")?.context("no GTID")?;
                told.fetch_max(sequence_number(&gtid)?, Ordering::SeqCst);
            }
            Ok(())
        };
        let committing: Vec<_> = (0..COMMITTING).map(|_| scope.spawn(commit)).collect();
        let killed = (|| -> Result<Running> {
            // They wait before any stream is there.
            std::thread::sleep(Duration::from_millis(500));
            let mut running = start()?;
            for _ in 0..KILLS {
                std::thread::sleep(Duration::from_millis(fastrand::u64(50..800)));
                let before = told.load(Ordering::SeqCst);
                running.signal(Signal::KILL)?;
                running.wait(CATCH_UP)?;
                // Whoever was told just before says so by now; the others wait.
                std::thread::sleep(Duration::from_millis(300));
                let told = told.load(Ordering::SeqCst);
                let stored = listed(&repo)?
                    .iter()
                    .filter_map(|file| file["gtids_after"].as_str())
                    .filter(|gtids| !gtids.is_empty())
                    .map(sequence_number)
                    .try_fold(0, |most, number| number.map(|number| most.max(number)))?;
                eprintln!("{point}: told {before}, {told}; stored {stored}");
                ensure!(stored >= told, "{told} was told, and {stored} is stored");
                running = start()?;
            }
            Ok(running)
        })();
        stop.store(true, Ordering::Relaxed);
        // The stream is there until all of them have heard.
        for thread in committing {
            thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        killed
    })?;
    let told = told.into_inner();
    ensure!(told > 100, "{told} commits only");
    ensure!(status("no_tx")? == 0, "the server did not wait: {}", status("no_tx")?);
    running.signal(Signal::TERM)?;
    running.wait(CATCH_UP)?.success()?;
    Ok(())
}

/// The only entry of a directory.
fn only_dir(dir: &std::path::Path) -> Result<PathBuf> {
    let mut entries = std::fs::read_dir(dir)?;
    let entry = entries.next().context("nothing there")??;
    ensure!(entries.next().is_none(), "more than one in {}", dir.display());
    Ok(entry.path())
}

/// A commit that the server made is in the archive, at once; over TLS.
/// What makes many small objects is merged.
#[test]
fn acknowledged_commits_are_safe() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let certificate = Certificate::make(&repo.scratch)?;
        let [cert, key] = certificate.server_arguments();
        let server = ServerOptions::default()
            .arg(cert)
            .arg(key)
            .arg("--rpl-semi-sync-master-timeout=20000")
            .arg("--rpl-semi-sync-master-wait-point=AFTER_SYNC")
            .start()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT)")?;
        server.run("CREATE USER a@'127.0.0.1' IDENTIFIED BY 'secret' REQUIRE SSL")?;
        server.run("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO a@'127.0.0.1'")?;
        server.run("SET GLOBAL rpl_semi_sync_master_enabled = ON")?;
        let mut command = repo.command("binlog stream");
        command
            .args(["--no-defaults", "--json", "--rpo=1h", "--semi-sync"])
            .args(["--host=127.0.0.1", "--user=a"])
            .arg(format!("--ssl-ca={}", certificate.cert.display()))
            .arg(format!("--port={}", server.port()))
            .env("HAULOUT_PASSWORD", "secret");
        let running = process::start(command, None)?;
        let mut client = server.client()?;
        let status = |client: &mut Client, name: &str| -> Result<u64> {
            let rows = client.text(&format!("SHOW STATUS LIKE 'Rpl_semi_sync_master_{name}'"))?;
            Ok(rows[0][1].parse()?)
        };
        let began = Instant::now();
        while status(&mut client, "clients")? == 0 {
            ensure!(began.elapsed() < CATCH_UP, "no stream registered");
            std::thread::sleep(Duration::from_millis(50));
        }
        for _ in 0..10 {
            client.run("INSERT INTO d.t (a) VALUES ('x')")?;
            let gtid = last_gtid(&mut client)?;
            let has = |file: &Value| file["gtids_after"].as_str() == Some(gtid.as_str());
            let files = listed(&repo)?;
            ensure!(files.iter().any(has), "{gtid} was committed and is not stored: {files:?}");
        }
        ensure!(status(&mut client, "yes_tx")? >= 10 && status(&mut client, "no_tx")? == 0);
        // Each of them is an object. Once the log is closed, one has all of it.
        client.run("FLUSH BINARY LOGS")?;
        let log = server.datadir().join("binlog.000001");
        let bytes = std::fs::read(&log)?;
        let (epoch, whole) = (only_dir(&repo.place().join("binlog/1"))?, bytes.len());
        let objects = || -> Result<Vec<String>> {
            let entries = std::fs::read_dir(&epoch)?;
            let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap()));
            let mut names = names.collect::<Result<Vec<String>>>()?;
            names.retain(|name| name.starts_with("0000000001-"));
            Ok(names)
        };
        let is_whole = |name: &String| {
            let numbers: Vec<usize> =
                name.split('-').skip(1).take(2).filter_map(|number| number.parse().ok()).collect();
            numbers == [0, whole]
        };
        let began = Instant::now();
        while !objects()?.iter().any(is_whole) {
            ensure!(began.elapsed() < CATCH_UP, "not merged: {:?}", objects()?);
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(objects()?.len() > 10, "{:?}", objects()?);
        let expired = repo.json("binlog expire", &["--delete"])?;
        ensure!(expired["spare"].as_u64() >= Some(10) && objects()?.len() == 1, "{expired}");
        let to = repo.scratch.join("fetched");
        let fetch = ["--to", to.to_str().unwrap(), "binlog.000001"];
        repo.run("binlog fetch", &fetch)?.success()?;
        ensure!(std::fs::read(to.join("binlog.000001"))? == bytes, "merged to something else");
        running.signal(Signal::TERM)?;
        let ended = running.wait(Duration::from_secs(30))?.success()?;
        let done: Value = serde_json::from_slice(&ended.stdout)?;
        ensure!(done["acknowledged"].as_u64() >= Some(10), "{done}");
        Ok(())
    })());
}

/// A server that removes its logs by size keeps them while a stream that holds it is away, although
/// another replica is there.
#[test]
fn a_held_server_keeps_its_logs() {
    common::ok((|| -> Result<()> {
        let options = ServerOptions::default().arg("--max-binlog-size=8K");
        let repo = Repo::init(false)?;
        if options.generation < Generation::V11_8 {
            let server = options.start()?;
            let refused = stream(&repo, &server, &["--hold"])?;
            let refused = refused.wait(Duration::from_secs(30))?;
            ensure!(refused.code() == Some(common::exit::USAGE), "{}", refused.report());
            ensure!(refused.stdout_text().contains("came with 11.4"), "{}", refused.report());
            return Ok(());
        }
        let server = options.arg("--max-binlog-total-size=64K").start()?;
        let mut client = server.client()?;
        client.run("CREATE DATABASE d")?;
        client.run("CREATE TABLE d.t (a TEXT)")?;
        let variable = "SELECT @@GLOBAL.slave_connections_needed_for_purge";
        let wait_until = |sql: &str, what: &str| -> Result<()> {
            let (began, mut client) = (Instant::now(), server.client()?);
            while client.text(sql)?.last().and_then(|row| row.first().cloned()).as_deref()
                != Some(what)
            {
                ensure!(began.elapsed() < CATCH_UP, "{sql} is not {what}");
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        };
        let other = Repo::init(false)?;
        let _other = stream(&other, &server, &["--server-id=4711"])?;
        wait_until("SHOW SLAVE HOSTS", "4711")?;
        let running = stream(&repo, &server, &["--hold"])?;
        wait_until(variable, "2")?;
        running.signal(Signal::TERM)?;
        running.wait(Duration::from_secs(30))?.success()?;
        wait_until("SHOW SLAVE HOSTS", "4711")?;
        let mut logs = |rows: u32| -> Result<Vec<String>> {
            for _ in 0..rows {
                client.run("INSERT INTO d.t VALUES (REPEAT('x', 4000))")?;
            }
            let rows = client.text("SHOW BINARY LOGS")?;
            Ok(rows.into_iter().map(|mut row| row.swap_remove(0)).collect())
        };
        let before = logs(0)?;
        let after = logs(60)?;
        ensure!(after.len() > 20 && after.starts_with(&before), "{after:?}");
        server.run("SET GLOBAL slave_connections_needed_for_purge = 1")?;
        // The server keeps what the other replica has not read yet.
        let began = Instant::now();
        while logs(4)?.first() <= after.first() {
            ensure!(began.elapsed() < CATCH_UP, "nothing would have been removed");
        }
        Ok(())
    })());
}

/// A server that was made from a backup and made the primary: its first log says nothing of what was
/// before it. And an account that is refused, at the first start and later.
#[test]
fn a_stream_goes_on_with_a_server_made_from_a_backup() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let mut source = ServerOptions::default().start()?;
        let schema =
            ["CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)"];
        let account = [
            "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl'",
            "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO repl@'127.0.0.1'",
        ];
        let mut client = source.client()?;
        for sql in schema.iter().chain(&account) {
            client.run(sql)?;
        }
        // Whoever is refused at the first start is told what is needed, and the stream ends.
        source.run("CREATE USER nobody@'127.0.0.1' IDENTIFIED BY 'nobody'")?;
        source.run("CREATE USER locked@'127.0.0.1' IDENTIFIED BY 'locked' ACCOUNT LOCK")?;
        let as_user = |server: &Server, user: &str, password: &str| -> Result<Running> {
            let mut command = repo.command("binlog stream");
            command.args(["--no-defaults", "--json", "--rpo=100ms", "--host=127.0.0.1"]);
            command.arg(format!("--port={}", server.port())).arg(format!("--user={user}"));
            command.env("HAULOUT_PASSWORD", password);
            process::start(command, None)
        };
        for (user, password) in
            [("repl", "wrong"), ("stranger", ""), ("nobody", "nobody"), ("locked", "locked")]
        {
            let refused = as_user(&source, user, password)?.wait(CATCH_UP)?;
            ensure!(refused.code() == Some(common::exit::SERVER), "{user}: {}", refused.report());
            let told = refused.stdout_text();
            ensure!(told.contains("REPLICATION SLAVE, BINLOG MONITOR"), "{user}: {told}");
        }
        let running = as_user(&source, "repl", "repl")?;
        client.run("INSERT INTO d.t (a) VALUES (1)")?;
        let backup = last_gtid(&mut client)?;
        repo.backup(&source, &[])?;
        for _ in 0..4 {
            client.run("INSERT INTO d.t (a) VALUES (1)")?;
        }
        wait_for(&repo, &last_gtid(&mut client)?)?;
        // One that worked is tried again.
        client.run("SET SESSION sql_log_bin = 0")?;
        client.run("SET PASSWORD FOR repl@'127.0.0.1' = PASSWORD('other')")?;
        cut(&source)?;
        std::thread::sleep(Duration::from_millis(1500));
        client.run("SET PASSWORD FOR repl@'127.0.0.1' = PASSWORD('repl')")?;
        client.run("SET SESSION sql_log_bin = 1")?;
        client.run("INSERT INTO d.t (a) VALUES (2)")?;
        wait_for(&repo, &last_gtid(&mut client)?)?;
        running.signal(Signal::TERM)?;
        let ended = running.wait(CATCH_UP)?.success()?;
        ensure!(ended.stderr.contains("REPLICATION SLAVE, BINLOG MONITOR"), "{}", ended.report());

        let made = |name: &str, server_id: u32| -> Result<Server> {
            let datadir = repo.scratch.join(name);
            repo.run("restore", &["LATEST", "--to", datadir.to_str().unwrap()])?.success()?;
            let options = ServerOptions { server_id, ..ServerOptions::default() };
            options.arg("--log-slave-updates").start_on(&datadir)
        };
        let replica = made("replica", 2)?;
        let mut sql = replica.client()?;
        sql.run(&format!("SET GLOBAL gtid_slave_pos = '{backup}'"))?;
        let tls = if Generation::under_test() == Generation::V11_8 { ", MASTER_SSL=0" } else { "" };
        sql.run(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='repl', \
             MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos{tls}",
            source.port()
        ))?;
        sql.run("START SLAVE")?;
        // What the stream did not see any more.
        client.run("INSERT INTO d.t (a) VALUES (3)")?;
        let last = last_gtid(&mut client)?;
        let waited = sql.scalar(&format!("SELECT MASTER_GTID_WAIT('{last}', 30)"))?;
        ensure!(waited.as_deref() == Some("0"), "the replica lags");
        source.crash()?;
        sql.run("STOP SLAVE")?;
        sql.run("INSERT INTO d.t (a) VALUES (4)")?;
        let running = stream(&repo, &replica, &[])?;
        wait_for(&repo, &last_gtid(&mut sql)?)?;
        running.signal(Signal::TERM)?;
        running.wait(CATCH_UP)?.success()?;
        // From one end to the other, each transaction comes once.
        let fresh = made("fresh", 5)?;
        let socket = format!("--socket={}", fresh.socket().display());
        let onto = ["--no-defaults", "--user=root", &socket, "--from-backup=LATEST", "--until=end"];
        repo.json("replay", &onto)?;
        let rows = "SELECT * FROM d.t";
        let (theirs, ours) = (sql.text(rows)?, fresh.client()?.text(rows)?);
        ensure!(theirs == ours, "{ours:?} instead of {theirs:?}");

        // A server that was reset, and one of another group.
        let stranger = ServerOptions { server_id: 3, ..ServerOptions::default() }.start()?;
        stranger.run("CREATE DATABASE e")?;
        let refused = stream(&repo, &stranger, &[])?.wait(CATCH_UP)?;
        ensure!(refused.code() == Some(common::exit::USAGE), "{}", refused.report());
        // What the server removes before it was archived is missing: the stream that finds that says so at
        // its end, too.
        sql.run("INSERT INTO d.t (a) VALUES (5)")?;
        let lost = last_gtid(&mut sql)?;
        sql.run("FLUSH BINARY LOGS")?;
        let open = sql.text("SHOW BINARY LOGS")?.pop().context("no log")?.swap_remove(0);
        let began = Instant::now();
        // The server may still need the one before for a moment.
        while sql.text("SHOW BINARY LOGS")?.len() > 1 {
            ensure!(began.elapsed() < CATCH_UP, "nothing was removed");
            sql.run(&format!("PURGE BINARY LOGS TO '{open}'"))?;
            std::thread::sleep(Duration::from_millis(50));
        }
        let running = stream(&repo, &replica, &[])?;
        let began = Instant::now();
        while repo.run("binlog list", &[])?.code() != Some(common::exit::GAP) {
            ensure!(began.elapsed() < CATCH_UP, "no gap is listed");
            std::thread::sleep(Duration::from_millis(100));
        }
        running.signal(Signal::TERM)?;
        let ended = running.wait(CATCH_UP)?;
        ensure!(ended.code() == Some(common::exit::GAP), "{}", ended.report());
        let done: Value = serde_json::from_slice(&ended.stdout)?;
        ensure!(done["missing"][0]["last"] == sequence_number(&lost)?, "{done}");
        sql.run("RESET MASTER")?;
        sql.run("INSERT INTO d.t (a) VALUES (5)")?;
        let refused = stream(&repo, &replica, &[])?.wait(CATCH_UP)?;
        ensure!(refused.code() == Some(common::exit::USAGE), "{}", refused.report());

        // The first server, brought back to a moment: nothing of it gets in before it was said that it takes
        // the old one's place, and from the new backup on there is one history.
        let back = made("back", 1)?;
        let socket = format!("--socket={}", back.socket().display());
        let onto = ["--no-defaults", "--user=root", &socket, "--from-backup=LATEST"];
        repo.json("replay", &[&onto[..], &["--until", &last, "--before"]].concat())?;
        let mut sql = back.client()?;
        sql.run("INSERT INTO d.t (a) VALUES (6)")?;
        sql.run("FLUSH BINARY LOGS")?;
        let datadir = back.datadir().to_str().unwrap();
        let connect = ["--no-defaults", "--user=root", &socket];
        for (verb, arguments) in
            [("binlog push", &[datadir][..]), ("binlog stream", &connect), ("backup", &connect)]
        {
            let refused = repo.run(verb, arguments)?;
            common::assert_failed(&refused, common::exit::USAGE, &["--accept-new-server"]);
        }
        repo.backup(&back, &["--accept-new-server"])?;
        repo.run("binlog push", &["--accept-new-server", datadir])?;
        sql.run("INSERT INTO d.t (a) VALUES (7)")?;
        let newest = last_gtid(&mut sql)?;
        sql.run("FLUSH BINARY LOGS")?;
        repo.run("binlog push", &[datadir])?;
        repo.backup(&back, &[])?;
        let plan = ["--until", &newest, "--before", "--to=/x", "--plan"];
        let plan = repo.json("restore", &plan)?;
        ensure!(plan["recovery"]["logs"].as_array().is_some_and(|logs| !logs.is_empty()), "{plan}");
        let check = repo.run("check", &["--no-server"])?;
        check.success()?;
        Ok(())
    })());
}
