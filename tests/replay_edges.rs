//! Replay of what is not plain rows in plain transactions, and what it refuses.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use common::replay::{json, replay, run, state, target_options};
use common::{exit, ok};
use harness::compare::Contents;
use harness::{Client, Result, Scratch, Server, ServerOptions};

/// A server that logs in a format of its own choice, and a database.
fn source() -> Result<(Server, Client)> {
    let source = ServerOptions::default().start()?;
    let mut client = source.client()?;
    client.run("CREATE DATABASE d")?;
    client.run("USE d")?;
    client.run("CREATE TABLE t (id INT PRIMARY KEY)")?;
    client.run("CREATE TABLE m (id INT) ENGINE=MyISAM")?;
    Ok((source, client))
}

fn position(client: &mut Client) -> Result<String> {
    client.scalar("SELECT @@gtid_binlog_pos")?.context("no position")
}

/// What two servers differ in.
fn differences(source: &Server, copy: &Server) -> Result<String> {
    let contents = Contents::read(&mut source.client()?)?;
    Ok(contents.differences(&Contents::read(&mut copy.client()?)?).join("\n"))
}

/// Transactions with temporary tables, which their GTIDs call definitions, and tables with their rows, which
/// they call so, too: both are committed and rolled back as a whole.
const TEMPORARY: &[&str] = &[
    "BEGIN; CREATE TEMPORARY TABLE x (a INT); INSERT INTO x VALUES (1), (2); INSERT INTO t SELECT a \
     FROM x; COMMIT",
    "BEGIN; INSERT INTO t VALUES (10); INSERT INTO t SELECT a + 10 FROM x; ROLLBACK",
    "BEGIN; INSERT INTO t VALUES (20); CREATE TEMPORARY TABLE y (a INT) ENGINE=MyISAM; INSERT INTO y \
     VALUES (21); INSERT INTO t SELECT a FROM y; ROLLBACK",
    "BEGIN; INSERT INTO t VALUES (30); DROP TEMPORARY TABLE y; INSERT INTO t VALUES (31); ROLLBACK",
    "BEGIN; CREATE TEMPORARY TABLE z SELECT id + 40 AS a FROM t; INSERT INTO t SELECT a FROM z; DROP \
     TEMPORARY TABLE z; COMMIT",
    "CREATE TABLE made SELECT * FROM t",
    "CREATE OR REPLACE TABLE made SELECT id FROM t WHERE id < 40",
    "BEGIN; INSERT INTO m VALUES (50); COMMIT",
    "DROP TEMPORARY TABLE x",
    "BEGIN; CREATE TEMPORARY TABLE last (a INT); INSERT INTO t VALUES (60); DROP TEMPORARY TABLE \
     last; ROLLBACK",
];

#[test]
fn transactions_with_temporary_tables() {
    ok((|| -> Result<()> {
        for format in ["MIXED", "STATEMENT", "ROW"] {
            let (source, mut client) = source()?;
            client.run(&format!("SET binlog_format = {format}"))?;
            for statement in TEMPORARY.iter().flat_map(|group| group.split("; ")) {
                client.run(statement).with_context(|| format!("{format}: {statement}"))?;
            }
            let copy = target_options(source.options()).start()?;
            let done = json(&copy, source.datadir(), &["--from-gtid=", "--until=end"])
                .with_context(|| format!("{format}: {}", copy.log_tail()))?;
            let differences = differences(&source, &copy)?;
            ensure!(differences.is_empty(), "{format}: {done:#}\n{differences}");
            let states = (state(&mut client)?, state(&mut copy.client()?)?);
            // Transactions that were rolled back whole are not logged again.
            ensure!(states.0 == states.1 || format == "ROW", "{format}: {states:?}: {done:#}");
        }
        Ok(())
    })());
}

/// Temporary tables end with the replay that made them, which is not logged; where they were, no other one
/// goes on, whatever the server has logged since.
#[test]
fn no_replay_goes_on_near_temporary_tables() {
    ok((|| -> Result<()> {
        let (source, mut client) = source()?;
        client.run("SET binlog_format = MIXED")?;
        client.run("CREATE TEMPORARY TABLE x (a INT)")?;
        let there = position(&mut client)?;
        let there_state = state(&mut client)?;
        client.run("FLUSH BINARY LOGS")?;
        client.run("INSERT INTO t VALUES (1)")?;
        client.run("INSERT INTO x VALUES (2)")?;
        client.run("INSERT INTO t SELECT a FROM x")?;
        client.run("DROP TEMPORARY TABLE x")?;
        let copy = target_options(source.options()).start()?;
        let stop = ["--from-gtid=", "--until", &there, "--after"];
        let end = ["--from-gtid=", "--until=end"];
        let done = json(&copy, source.datadir(), &stop)?;
        // The connection ends behind the program.
        std::thread::sleep(Duration::from_millis(300));
        let mut at_copy = copy.client()?;
        let now = state(&mut at_copy)?;
        ensure!(now == there_state, "{now:?} instead of {there_state:?}");
        ensure!(done["can_go_on"] == false, "{done:#}");
        ensure!(done["temporary"][0].as_str().is_some_and(|it| it.starts_with("d.x")), "{done:#}");
        let refused = run(&copy, source.datadir(), &end)?;
        common::assert_failed(&refused, exit::USAGE, &["temporary", "d.x of thread"]);
        // What a server logs when a connection ends that has such a table.
        at_copy.run("SET SESSION server_id = 1, binlog_format = MIXED")?;
        at_copy.run("CREATE TEMPORARY TABLE d.gone (a INT)")?;
        drop(at_copy);
        std::thread::sleep(Duration::from_millis(300));
        let refused = run(&copy, source.datadir(), &end)?;
        common::assert_failed(&refused, exit::USAGE, &["no replay can go on", "temporary"]);
        drop(copy);
        let copy = target_options(source.options()).start()?;
        json(&copy, source.datadir(), &end)?;
        let differences = differences(&source, &copy)?;
        ensure!(differences.is_empty(), "{differences}");
        Ok(())
    })());
}

/// A source that crashes has no temporary tables any more, and logs nothing of that.
#[test]
fn temporary_tables_end_with_their_server() {
    ok((|| -> Result<()> {
        let (mut source, mut client) = source()?;
        client.run("SET binlog_format = MIXED, pseudo_thread_id = 4711")?;
        client.run("CREATE TEMPORARY TABLE t (id INT)")?;
        client.run("INSERT INTO t VALUES (1)")?;
        source.crash()?;
        source.start()?;
        let mut client = source.client()?;
        client.run("SET binlog_format = STATEMENT, pseudo_thread_id = 4711")?;
        client.run("INSERT INTO d.t VALUES (2)")?;
        let copy = target_options(source.options()).start()?;
        let done = json(&copy, source.datadir(), &["--from-gtid=", "--until=end"])?;
        let differences = differences(&source, &copy)?;
        ensure!(differences.is_empty(), "{done:#}\n{differences}");
        let states = (state(&mut client)?, state(&mut copy.client()?)?);
        ensure!(states.0 == states.1, "{states:?}");
        Ok(())
    })());
}

/// What was applied cannot be left out any more. What certainly was left out may be named again.
#[test]
fn what_is_done_is_not_left_out() {
    ok((|| -> Result<()> {
        let (source, mut client) = source()?;
        let mut insert = |number: u32, domain: u32| -> Result<String> {
            client.run(&format!("SET gtid_domain_id = {domain}"))?;
            client.run(&format!("INSERT INTO t VALUES ({number})"))?;
            client.scalar("SELECT @@last_gtid")?.context("no GTID")
        };
        let gtids = [insert(1, 0)?, insert(2, 7)?, insert(3, 0)?, insert(4, 0)?];
        let copy = target_options(source.options()).start()?;
        let logs = source.datadir();
        let left_out = ["--from-gtid=", "--skip-gtid", &gtids[1], "--after", "--until"];
        json(&copy, logs, &[&left_out[..], &[&gtids[2]]].concat())?;
        let also = [&left_out[..], &[&gtids[3], "--skip-gtid", &gtids[0]]].concat();
        let refused = run(&copy, logs, &also)?;
        common::assert_failed(&refused, exit::USAGE, &[&gtids[0], "interrupted replay"]);
        ensure!(!refused.stderr.contains(&format!("{},", gtids[0])), "{}", refused.report());
        json(&copy, logs, &[&left_out[..], &[&gtids[3]]].concat())?;
        let sum = copy.client()?.scalar("SELECT SUM(id) FROM d.t")?;
        ensure!(sum.as_deref() == Some("8"), "{sum:?}");
        Ok(())
    })());
}

/// The logs of a server, the oldest first.
fn logs(server: &Server) -> Result<Vec<PathBuf>> {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(server.datadir())?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    logs.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("binlog.0") && !name.ends_with(".idx")
    });
    logs.sort();
    Ok(logs)
}

/// Copies of logs in a new directory.
fn copied(logs: &[PathBuf], to: &Path, name: impl Fn(usize) -> String) -> Result<()> {
    std::fs::create_dir(to)?;
    for (index, log) in logs.iter().enumerate() {
        std::fs::copy(log, to.join(name(index)))?;
    }
    Ok(())
}

/// Where the log is there that a backup names, the replay begins at the place that it names, whatever its
/// GTID position lacks; where it is not, a position of which nothing is known is none.
#[test]
fn the_place_that_a_backup_names_counts() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let (source, mut client) = source()?;
        let early = position(&mut client)?;
        client.run("SET gtid_domain_id = 7")?;
        client.run("INSERT INTO t VALUES (1)")?;
        client.run("INSERT INTO t VALUES (2)")?;
        client.run("FLUSH BINARY LOGS")?;
        let status = client.text("SHOW MASTER STATUS")?;
        let (file, offset) = (status[0][0].clone(), status[0][1].parse::<u64>()?);
        client.run("FLUSH BINARY LOGS")?;
        client.run("INSERT INTO t VALUES (3)")?;
        let backup = scratch.join("backup");
        std::fs::create_dir(&backup)?;
        let from = backup.to_str().unwrap();
        let copy = target_options(source.options()).start()?;
        let say = |file: &str, offset: u64, gtid: &str| -> Result<()> {
            let place = format!("{file}\t{offset}\t{gtid}\n");
            // As if the copy had been restored from it.
            let info = format!("binlog_pos = filename '{file}', position '{offset}', GTID\n");
            std::fs::write(copy.datadir().join("xtrabackup_info"), info)?;
            Ok(std::fs::write(backup.join("xtrabackup_binlog_info"), place)?)
        };
        let arguments = ["--from-backup", from, "--until=end", "--plan"];
        for gtid in ["", &early] {
            say(&file, offset, gtid)?;
            let plan = json(&copy, source.datadir(), &arguments)?;
            ensure!(plan["transactions"] == 1, "'{gtid}': {plan:#}");
        }
        // In the middle of the first transaction.
        say("binlog.000001", 390, "")?;
        let refused = run(&copy, source.datadir(), &arguments)?;
        common::assert_failed(&refused, exit::NOTHING_MATCHES, &["no place", "--from-gtid"]);
        // Under other names, and of somebody else.
        say(&file, offset, "5-5-5")?;
        let renamed = scratch.join("renamed");
        copied(&logs(&source)?, &renamed, |index| format!("other.{index:06}"))?;
        let refused = run(&copy, &renamed, &arguments)?;
        common::assert_failed(&refused, exit::NOTHING_MATCHES, &["never were at 5-5-5"]);
        Ok(())
    })());
}

/// Where a place in a log is named and another log has the same name, nothing is guessed.
#[test]
fn a_name_that_two_logs_have_names_no_place() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let (source, mut client) = source()?;
        client.run("FLUSH BINARY LOGS")?;
        client.run("INSERT INTO t VALUES (1)")?;
        let status = client.text("SHOW MASTER STATUS")?;
        let until = format!("binlog.000001:{}", status[0][1]);
        let logs = logs(&source)?;
        let places = [scratch.join("first"), scratch.join("second")];
        copied(&logs[..1], &places[0], |_| "binlog.000001".to_owned())?;
        copied(&logs[1..2], &places[1], |_| "binlog.000001".to_owned())?;
        let copy = target_options(source.options()).start()?;
        let more = places[1].to_str().unwrap();
        let arguments = ["--from-gtid=", "--until", &until, "--plan"];
        let refused = run(&copy, &places[0], &[&arguments[..], &["--binlogs", more]].concat())?;
        common::assert_failed(&refused, exit::USAGE, &["2 logs", "name a transaction"]);
        json(&copy, &places[0], &["--from-gtid=", "--until=binlog.000001:4", "--plan"])?;
        Ok(())
    })());
}

/// A replay that goes on in the log of another server still passes over what the first one's logs had.
#[test]
fn over_a_failover_and_interrupted() {
    ok((|| -> Result<()> {
        let repo = common::repo::Repo::init(false)?;
        let options = ServerOptions::default();
        let (first, second) =
            (options.start()?, ServerOptions { server_id: 2, ..options.clone() }.start()?);
        let run = |client: &mut Client, gtid: &str, statement: &str| -> Result<()> {
            let [domain, server, number] = gtid.split('-').collect::<Vec<_>>()[..] else {
                anyhow::bail!("no GTID: {gtid}")
            };
            client.run(&format!(
                "SET gtid_domain_id = {domain}, server_id = {server}, gtid_seq_no = {number}, \
                 timestamp = 1700000000"
            ))?;
            Ok(client.run(statement)?)
        };
        let begin = [
            ("0-1-1", "CREATE DATABASE d"),
            ("0-1-2", "CREATE TABLE d.n (id INT)"),
            ("0-1-3", "INSERT INTO d.n VALUES (1)"),
        ];
        let late =
            [("7-1-1", "INSERT INTO d.n VALUES (71)"), ("7-1-2", "INSERT INTO d.n VALUES (72)")];
        let new =
            [("0-2-4", "INSERT INTO d.n VALUES (4)"), ("0-2-5", "INSERT INTO d.n VALUES (5)")];
        // The second one got the transactions of domain 7 after it had begun to go on.
        let orders = [
            [&begin[..], &late, &[], &[]].concat(),
            [&begin[..], &new[..1], &late, &new[1..]].concat(),
        ];
        for (server, order) in [&first, &second].into_iter().zip(&orders) {
            let mut client = server.client()?;
            for (gtid, statement) in order {
                if *gtid == "0-1-3" && server.options().server_id == 2 {
                    // What is known is not stored: its log is there from here on. Two that begin in the same
                    // second look like those of a server that was reset.
                    std::thread::sleep(Duration::from_millis(1100));
                    client.run("FLUSH BINARY LOGS")?;
                }
                run(&mut client, gtid, statement)?;
            }
            client.run("FLUSH BINARY LOGS")?;
            repo.run("binlog push", &[server.datadir().to_str().unwrap()])?.success()?;
        }
        let copy = target_options(&ServerOptions { server_id: 5, ..options }).start()?;
        let socket = format!("--socket={}", copy.socket().display());
        let onto = ["--no-defaults", "--user=root", &socket, "--from-gtid="];
        for until in [&["--until=0-2-4", "--after"][..], &["--until=end"]] {
            repo.json("replay", &[&onto[..], until].concat())?;
        }
        let differences = differences(&second, &copy)?;
        ensure!(differences.is_empty(), "{differences}");
        Ok(())
    })());
}

/// Rows that must be sent at once are refused as soon as they are more than the server takes; behind the
/// mend the replay goes on between the table that was made and its rows.
#[test]
fn more_rows_than_the_server_takes() {
    ok((|| -> Result<()> {
        let (source, mut client) = source()?;
        client.run("CREATE TABLE made SELECT seq, REPEAT('x', 1000) AS x FROM seq_1_to_10000")?;
        client.run("INSERT INTO t VALUES (1)")?;
        let copy = target_options(source.options()).start()?;
        copy.run("SET GLOBAL max_allowed_packet = 1048576")?;
        let arguments = ["--from-gtid=", "--until=end"];
        let refused = run(&copy, source.datadir(), &arguments)?;
        let words = ["d.made", "more than 1", "max_allowed_packet"];
        common::assert_failed(&refused, exit::USAGE, &words);
        copy.run("SET GLOBAL max_allowed_packet = 67108864")?;
        let done = json(&copy, source.datadir(), &arguments)?;
        let differences = differences(&source, &copy)?;
        ensure!(differences.is_empty(), "{done:#}\n{differences}");
        Ok(())
    })());
}

/// A server that was told to forget a domain says less of what had been logged than in the log before.
#[test]
fn logs_behind_a_forgotten_domain() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let (source, mut client) = source()?;
        client.run("SET gtid_domain_id = 7")?;
        for number in 1..=20 {
            client.run(&format!("INSERT INTO t VALUES ({number})"))?;
        }
        client.run("SET gtid_domain_id = 0")?;
        client.run("FLUSH BINARY LOGS")?;
        client.run("INSERT INTO t VALUES (100)")?;
        client.run("FLUSH BINARY LOGS")?;
        let all = scratch.join("logs");
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let early = logs(&source)?;
        copied(&early, &all, |index| name(&early[index]))?;
        // The server keeps a log until it knows that it will not need it after a crash.
        let began = Instant::now();
        while client.scalar("SHOW BINARY LOGS")?.as_deref() != Some("binlog.000003") {
            ensure!(began.elapsed() < Duration::from_secs(20), "the logs are kept");
            client.run("PURGE BINARY LOGS TO 'binlog.000003'")?;
            std::thread::sleep(Duration::from_millis(50));
        }
        client.run("FLUSH BINARY LOGS DELETE_DOMAIN_ID = (7)")?;
        client.run("INSERT INTO t VALUES (101)")?;
        client.run("FLUSH BINARY LOGS")?;
        for log in logs(&source)? {
            std::fs::copy(&log, all.join(name(&log)))?;
        }
        let copy = target_options(source.options()).start()?;
        json(&copy, &all, &["--from-gtid=", "--until=end"])?;
        let differences = differences(&source, &copy)?;
        ensure!(differences.is_empty(), "{differences}");
        Ok(())
    })());
}

/// What is left out is left out of rows only, and a name that is nowhere is told.
#[test]
fn tables_that_cannot_be_left_out() {
    ok((|| -> Result<()> {
        let (source, mut client) = source()?;
        client.run("INSERT INTO t VALUES (1)")?;
        client.run("INSERT INTO m VALUES (1)")?;
        let copy = target_options(source.options()).start()?;
        let arguments = ["--from-gtid=", "--until=end", "--plan", "--exclude-table"];
        let plan =
            |tables: [&str; 3]| run(&copy, source.datadir(), &[&arguments[..], &tables].concat());
        let told = plan(["d.m", "--exclude-table", "d.typo"])?;
        ensure!(
            told.code() == Some(0) && told.stderr.contains("no rows of d.typo, which is"),
            "{}",
            told.report()
        );
        // A transaction that makes a temporary table may change others.
        client.run("SET binlog_format = MIXED")?;
        client.run("BEGIN")?;
        client.run("CREATE TEMPORARY TABLE x (a INT)")?;
        client.run("INSERT INTO t VALUES (2)")?;
        client.run("COMMIT")?;
        let refused = plan(["d.m", "--exclude-table", "d.t"])?;
        common::assert_failed(&refused, exit::USAGE, &["is a statement, not rows"]);
        Ok(())
    })());
}

/// Killed near temporary tables, a replay either goes on exactly or is refused.
#[test]
fn killed_near_temporary_tables() {
    ok((|| -> Result<()> {
        let (source, mut client) = source()?;
        client.run("SET binlog_format = MIXED")?;
        for number in 0..250 {
            client.run("BEGIN")?;
            client.run(&format!("INSERT INTO t VALUES ({number})"))?;
            client.run("CREATE TEMPORARY TABLE x (a INT)")?;
            client.run(&format!("INSERT INTO x VALUES (1000 + {number})"))?;
            client.run("COMMIT")?;
            client.run("INSERT INTO t SELECT a FROM x")?;
            client.run("DROP TEMPORARY TABLE x")?;
            for more in 1..4 {
                client.run(&format!("INSERT INTO t VALUES ({more}0000 + {number})"))?;
            }
        }
        let end = ["--from-gtid=", "--until=end"];
        let mut refusals = 0;
        for round in 0..5 {
            let copy = target_options(source.options()).start()?;
            let mut child = replay(&copy, source.datadir(), &end)
                .stderr(std::process::Stdio::null())
                .spawn()?;
            let wanted = 60 + 77 * round;
            let mut at_copy = copy.client()?;
            let came =
                |client: &mut Client| client.scalar("SELECT COUNT(*) FROM d.t").ok().flatten();
            while child.try_wait()?.is_none()
                && came(&mut at_copy).is_none_or(|rows| rows.parse::<u64>().unwrap() < wanted)
            {
            }
            child.kill()?;
            child.wait()?;
            let done = run(&copy, source.datadir(), &end)?;
            if done.code() == Some(0) {
                let differences = differences(&source, &copy)?;
                ensure!(differences.is_empty(), "{round}: {}\n{differences}", done.report());
            } else {
                refusals += 1;
                common::assert_failed(&done, exit::USAGE, &["restore the backup again"]);
            }
        }
        eprintln!("{refusals} of 5 were refused");
        Ok(())
    })());
}

/// A server that has logged nothing says by its data directory which backup it was restored from, and
/// another one's logs are not for it; nor is a server that was restored from none.
#[test]
fn the_data_is_that_of_the_backup() {
    ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let (source, mut client) = source()?;
        let tool = common::haulout();
        let mut backup = |name: &str| -> Result<String> {
            client.run("INSERT INTO m VALUES (1), (2)")?;
            let dir = scratch.join(name);
            tool.run_backup(&source, &dir)?;
            tool.run_prepare(&dir)?;
            client.run("INSERT INTO m VALUES (3)")?;
            Ok(dir.to_str().unwrap().to_owned())
        };
        let (early, late) = (backup("early")?, backup("late")?);
        let datadir = scratch.join("data");
        tool.run_restore(Path::new(&early), &datadir)?;
        let copy = target_options(source.options()).start_on(&datadir)?;
        for more in [&[][..], &["--plan"]] {
            let of_late = [&["--from-backup", &*late, "--until=end"], more].concat();
            let refused = run(&copy, source.datadir(), &of_late)?;
            common::assert_failed(&refused, exit::USAGE, &["was restored from the backup at"]);
        }
        let blank = target_options(source.options()).start()?;
        let of_early = ["--from-backup", &*early, "--until=end"];
        let refused = run(&blank, source.datadir(), &of_early)?;
        common::assert_failed(&refused, exit::USAGE, &["was not restored from a backup"]);
        json(&copy, source.datadir(), &of_early)?;
        let differences = differences(&source, &copy)?;
        ensure!(differences.is_empty(), "{differences}");
        // That the source has all of it is no reason to reset it.
        let refused =
            run(&source, source.datadir(), &["--from-gtid=", "--until=0-1-2", "--before"])?;
        common::assert_failed(&refused, exit::USAGE, &["the server that wrote them"]);
        ensure!(!refused.stderr.contains("RESET MASTER"), "{}", refused.report());
        Ok(())
    })());
}
