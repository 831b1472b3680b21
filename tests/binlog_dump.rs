//! The face of `mariadb-binlog`: its text is that of the stock tool, and replays to the same state.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::ensure;
use common::corpus::{Corpus, Sequences};
use common::text::{difference, face, without_unknown};
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

/// Text of both tools over the corpus of each generation. The text is that of 11.8 for the logs of
/// all, and so that of 10.11 for its own; 10.5 has other words for some variables.
#[test]
fn the_text_is_that_of_the_stock_tool() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let face = face(&scratch)?;
        let generation = Generation::under_test();
        let corpus = Corpus::write(ServerOptions::of(generation), &scratch, Sequences::All)?;
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
        let corpus =
            Corpus::write(ServerOptions::of(generation), &scratch, Sequences::SafeForClients)?;
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

/// What is undone is of the domains that are meant; logs come by a pattern, and through a pipe.
#[test]
fn flashback_leaves_other_domains_alone() {
    common::ok((|| -> Result<()> {
        let server = ServerOptions::default().start()?;
        let mut client = server.client()?;
        client.run("CREATE DATABASE d")?;
        client.run("CREATE TABLE d.i (id INT PRIMARY KEY)")?;
        let mut insert = |domain: u32, id: u32| -> Result<String> {
            client.run(&format!("SET SESSION gtid_domain_id = {domain}"))?;
            client.run(&format!("INSERT INTO d.i VALUES ({id})"))?;
            Ok(client.scalar("SELECT @@last_gtid")?.unwrap())
        };
        let starts = [insert(0, 1)?, insert(5, 2)?].join(",");
        let (zero, five) = (insert(0, 3)?, insert(5, 4)?);
        let five_start = starts.rsplit(',').next().unwrap_or_default();
        server.run("FLUSH BINARY LOGS")?;
        let log = server.datadir().join("binlog.000001");
        let index = server.datadir().join("binlog.000001.idx");
        let logs: Vec<PathBuf> =
            [&log, &index].into_iter().filter(|it| it.exists()).cloned().collect();
        let haulout = |command: &str, files: &[PathBuf], arguments: &[&str]| -> Result<Finished> {
            let mut haulout = Command::new(env!("CARGO_BIN_EXE_haulout"));
            haulout.args(["binlog", command]).args(arguments).args(files);
            run(haulout)
        };
        let undo = |arguments: &[&str]| {
            let all = [&["--flashback", "--rows", "--table", "i"][..], arguments].concat();
            haulout("dump", &logs, &all)
        };
        let refused = undo(&["--after-gtid", &starts, "--until-gtid", &zero])?;
        common::assert_failed(&refused, common::exit::USAGE, &[&five, "domain 5", "--until-gtid"]);
        ensure!(!refused.stdout_text().contains("DELETE FROM"), "{}", refused.report());
        let undone = |arguments: &[&str]| -> Result<usize> {
            Ok(undo(arguments)?.success()?.stdout_text().matches("DELETE FROM").count())
        };
        let stops = format!("{zero},{five_start}");
        ensure!(undone(&["--after-gtid", &starts, "--until-gtid", &stops])? == 1, "both named");
        ensure!(undone(&["--until-gtid", &zero])? == 2, "domain 0 up to its stop");
        ensure!(undone(&["--after-gtid", &starts])? == 2, "both domains from their starts");
        ensure!(undone(&[])? == 4, "all");
        // Two of the logs' neighbours are no logs, and a pipe is one.
        let found = haulout("find", &logs, &["--table", "d.i", "--op", "insert"])?.success()?;
        ensure!(found.stdout_text().lines().count() == 4, "{}", found.report());
        let told = undo(&[])?;
        ensure!(told.stderr.contains("GTID index") == index.exists(), "{}", told.report());
        let piped = |arguments: &[&str]| -> Result<String> {
            let mut command = Command::new(env!("CARGO_BIN_EXE_haulout"));
            command.args(["binlog", "dump"]).args(arguments).arg("-").stdin(fs::File::open(&log)?);
            Ok(run(command)?.success()?.stdout_text())
        };
        ensure!(piped(&["--json"])?.lines().count() > 8, "{}", piped(&["--json"])?);
        ensure!(piped(&["--rows"])?.contains("INSERT INTO"), "{}", piped(&["--rows"])?);
        Ok(())
    })());
}
