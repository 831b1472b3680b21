//! The face of `mariadb-binlog` on the logs of a running server: its text and its files are those of the
//! stock tool.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use common::corpus::{Corpus, Sequences};
use common::text::{difference, face, without_unknown};
use harness::certificate::Certificate;
use harness::process::{self, Finished, run};
use harness::{Generation, Result, Scratch, Server, ServerOptions};
use rustix::process::Signal;

/// Where files of LOAD DATA go, so that both tools name the same.
const LOAD_DIR: &str = "load";

/// Options of which each must give the same text; `{…}` are names of logs.
const OPTIONS: &[&str] = &[
    "{0}",
    "-v {0} {1}",
    "-vv -t {0}",
    "--to-last-log {1} {0}",
    "--base64-output=decode-rows -vv -H {0}",
    "--start-position=256 --stop-position=4000 {0}",
    "--start-position=256 --base64-output=decode-rows -v {0} {1}",
    "--skip-annotate-row-events {0}",
    "--verify-binlog-checksum --database=other {0}",
    "--start-datetime=2001-09-09T01:46:41 {0}",
    "--stop-position=99999999 {1}",
    "--stop-position=4000 {0}",
    "--stop-position=4000 {1}",
    "--stop-position=4000 {0} {1}",
    "--stop-position=600 {1} {2}",
    "--stop-datetime=2001-09-09T01:46:41 {0}",
    "--stop-datetime=2001-09-09T01:46:41 {0} {1}",
    "--stop-datetime=2001-09-09T01:46:41 -t {0}",
    "--stop-position=4000 -t {0}",
    "absent.000001",
];

/// Of servers that know them.
const GTIDS: &[&str] = &[
    "--stop-position=0-1-9 {0}",
    "--start-position=0-1-9 --stop-position=0-1-15 --skip-gtid-strict-mode {0}",
    "--start-position=0-1-9 -t --skip-gtid-strict-mode {0}",
    "--start-position=0-1-9,7-1-2 -t --skip-gtid-strict-mode {0}",
    "--stop-position=0-1-9,7-1-2 -t {0}",
];

/// A run of a tool on the logs of a server.
fn remote(tool: &Path, server: &Server, options: &str, logs: &[String]) -> Command {
    let mut words = options.to_owned();
    for (index, log) in logs.iter().enumerate() {
        words = words.replace(&format!("{{{index}}}"), log);
    }
    let mut command = Command::new(tool);
    // The tool of 11.8 wants TLS even where there is none.
    command.args(["--no-defaults", "-R", "--user=root", "--skip-ssl"]);
    command.arg(format!("--socket={}", server.socket().display()));
    command.args(words.split_whitespace()).env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn printed(
    tool: &Path,
    scratch: &Scratch,
    (server, logs): (&Server, &[String]),
    options: &str,
) -> Result<Finished> {
    let load = scratch.join(LOAD_DIR);
    if load.exists() {
        fs::remove_dir_all(&load)?;
    }
    fs::create_dir(&load)?;
    let mut command = remote(tool, server, options, logs);
    command.arg(format!("--local-load={}", load.display()));
    run(command)
}

#[test]
fn text_and_files_are_those_of_the_stock_tool() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let face = face(&scratch)?;
        let generation = Generation::under_test();
        let corpus = Corpus::write(ServerOptions::of(generation), &scratch, Sequences::All)?;
        let server = &corpus.server;
        server.run("FLUSH BINARY LOGS")?;
        let rows = server.client()?.text("SHOW BINARY LOGS")?;
        let logs: Vec<String> = rows.iter().map(|row| row[0].clone()).collect();
        ensure!(logs.len() > 3, "{logs:?}");
        // A moment after a log was begun the server adds that it needs no older one.
        std::thread::sleep(Duration::from_secs(1));
        // The text is that of 11.8, and of 10.11 for its own.
        let stock = match generation {
            Generation::V10_11 => Generation::V10_11,
            _ => Generation::V11_8,
        };
        let stock = stock.program("mariadb-binlog");
        let mut faults = Vec::new();
        let there = (server, &logs[..]);
        for options in OPTIONS.iter().chain(GTIDS) {
            let ours = printed(&face, &scratch, there, options)?;
            let theirs = printed(&stock, &scratch, there, options)?;
            let text = without_unknown(theirs.stdout, generation);
            if text != ours.stdout || theirs.status.code() != ours.code() {
                faults.push(format!(
                    "'{options}': {} and {:?}/{:?}\n{}\n{}",
                    difference(&text, &ours.stdout),
                    theirs.status.code(),
                    ours.code(),
                    theirs.stderr,
                    ours.stderr
                ));
            }
        }
        ensure!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));

        // Files: each by itself, and all that follow.
        let prefix = |who: &str| scratch.join(who).join("copy-").display().to_string();
        for (who, tool) in [("stock", &stock), ("ours", &face)] {
            fs::create_dir(scratch.join(who))?;
            for options in ["--raw {1}", "--raw -t {2}"] {
                let mut command = remote(tool, server, options, &logs);
                command.arg(format!("--result-file={}", prefix(who)));
                run(command)?.success()?;
            }
        }
        for (index, log) in logs.iter().enumerate().skip(1) {
            let ours = fs::read(format!("{}{log}", prefix("ours")))?;
            let theirs = fs::read(format!("{}{log}", prefix("stock")))?;
            ensure!(ours == theirs, "{log} is not as the stock tool's");
            let there = fs::read(server.datadir().join(log))?;
            ensure!(index + 1 == logs.len() || ours == there, "{log} is not as the server's");
        }
        Ok(())
    })());
}

/// What is written later comes, over an encrypted connection with a password.
#[test]
fn it_waits_for_what_follows() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let face = face(&scratch)?;
        let certificate = Certificate::make(&scratch)?;
        let [cert, key] = certificate.server_arguments();
        let server = ServerOptions::default().arg(cert).arg(key).start()?;
        server.run("CREATE USER b@'127.0.0.1' IDENTIFIED BY 'secret' REQUIRE SSL")?;
        server.run("GRANT REPLICATION SLAVE ON *.* TO b@'127.0.0.1'")?;
        let file = scratch.join("client.cnf");
        let port = server.port();
        fs::write(
            &file,
            format!(
                "[client]\nhost=127.0.0.1\nport={port}\nuser=b\npassword=secret\n\
                 [mysqlbinlog]\nssl-ca={}\n",
                certificate.cert.display()
            ),
        )?;
        let start = |options: &str| -> Result<process::Running> {
            let mut command = Command::new(&face);
            command.arg(format!("--defaults-file={}", file.display()));
            command.args(options.split_whitespace()).args(["-R", "--stop-never"]);
            command.arg("binlog.000001");
            process::start(command, None)
        };
        let text = scratch.join("text.sql");
        // Of two with the same number the first would be ended.
        let number = "--stop-never-slave-server-id";
        let running = [
            start(&format!("{number}=77 --result-file={}", text.display()))?,
            start(&format!("{number}=78 --raw -r {}/", scratch.path().display()))?,
        ];
        std::thread::sleep(Duration::from_millis(500));
        server.run("CREATE DATABASE early")?;
        server.run("FLUSH BINARY LOGS")?;
        server.run("CREATE DATABASE late")?;
        let raw = scratch.join("binlog.000002");
        let has = |path: &Path| {
            let words = b"CREATE DATABASE late";
            fs::read(path).is_ok_and(|text| text.windows(words.len()).any(|at| at == words))
        };
        let began = Instant::now();
        while !has(&text) || !has(&raw) {
            ensure!(began.elapsed() < Duration::from_secs(20), "nothing came");
            std::thread::sleep(Duration::from_millis(50));
        }
        for one in running {
            one.signal(Signal::TERM)?;
            one.wait(Duration::from_secs(10))?;
        }
        let first = fs::read(scratch.join("binlog.000001"))?;
        ensure!(first == fs::read(server.datadir().join("binlog.000001"))?, "a file differs");
        // Without encryption this account is not let in.
        let mut command = Command::new(&face);
        command.arg(format!("--defaults-file={}", file.display()));
        command.args(["--skip-ssl", "-R", "binlog.000001"]);
        let refused = run(command)?;
        common::assert_failed(&refused, common::exit::FAILED, &["Access denied"]);
        Ok(())
    })());
}
