//! Replay to random places of random logs, and of random logs without one transaction.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use common::replay::{json, run, state, target_options};
use common::witness::Witness;
use common::{exit, ok};
use harness::compare::Contents;
use harness::load::{Load, LoadOptions, Mix};
use harness::process::{self, Finished};
use harness::tool::BinlogPosition;
use harness::{Client, Generation, Result, Scratch, Server, ServerOptions};

/// How many targets a proof has.
const TARGETS: &str = "HAULOUT_REPLAY_TARGETS";
/// What it begins with.
const SEED: &str = "HAULOUT_REPLAY_SEED";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Random transactions in several domains and engines, with DDL; a witness at random places. From a
/// backup in the middle, each place is reached by what names it: a transaction before or after it, its
/// position, its time.
#[test]
fn random_targets() {
    let (targets, seed) = (number(TARGETS, 3), number(SEED, 1));
    ok(proof(targets, seed).with_context(|| format!("seed {seed}")));
}

fn proof(targets: u64, seed: u64) -> Result<()> {
    let scratch = Scratch::new()?;
    let tool = common::haulout();
    // Small logs, so that there are many.
    let options = ServerOptions::default().arg("--max-binlog-size=1M");
    let source = options.start()?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let load = LoadOptions { domains: 3, rows: 200, ..LoadOptions::new(seed) };
    let load = Load::start(&source, &load)?;
    std::thread::sleep(Duration::from_millis(500));
    let backup = scratch.join("backup");
    tool.run_backup(&source, &backup)?;
    let mut witnesses = Vec::new();
    for _ in 0..targets {
        std::thread::sleep(Duration::from_millis(rng.u64(100..900)));
        witnesses.push(load.paused(|| Witness::take(&source))?);
    }
    std::thread::sleep(Duration::from_millis(300));
    let report = load.stop()?;
    ensure!(report.changes > 50, "too little happened: {report:?}");
    tool.run_prepare(&backup)?;
    let from = backup.to_str().unwrap().to_owned();
    let mut kinds = 0;
    for (index, witness) in witnesses.iter().enumerate() {
        let (last, next) = witness.around(&mut source.client()?)?;
        let position = format!("{}:{}", witness.file, witness.offset);
        let time = format!("{}", jiff::Timestamp::from_second(witness.second as i64)?);
        // Each target in one of the ways that there are for it.
        let mut ways = vec![vec![position], vec![time]];
        ways.extend(last.map(|gtid| vec![gtid, "--after".to_owned()]));
        ways.extend(next.map(|gtid| vec![gtid, "--before".to_owned()]));
        let way = &ways[(index + rng.usize(0..2)) % ways.len()];
        kinds += ways.len();
        let datadir = scratch.join(&format!("copy{index}"));
        tool.run_restore(&backup, &datadir)?;
        let mut copy = target_options(&options).start_on(&datadir)?;
        let mut arguments = vec!["--from-backup", &from, "--until"];
        arguments.extend(way.iter().map(String::as_str));
        let done = json(&copy, source.datadir(), &arguments).with_context(|| copy.log_tail())?;
        eprintln!("{index}: {way:?}: {} transactions", done["transactions"]);
        let mut client = copy.client()?;
        ensure!(state(&mut client)? == witness.state, "{way:?}: the states differ: {done:#}");
        let differences = witness.contents.differences(&Contents::read(&mut client)?);
        ensure!(differences.is_empty(), "{way:?} differs:\n{}", differences.join("\n"));
        copy.stop()?;
        std::fs::remove_dir_all(&datadir)?;
    }
    ensure!(kinds >= 2 * witnesses.len());
    Ok(())
}

/// A transaction in the logs of a server: where it begins, and where what follows it does.
struct Logged {
    gtid: String,
    file: String,
    begin: u64,
    end: u64,
}

impl Logged {
    /// All of them from a place on, in the order of the logs.
    fn since(source: &Server, place: &BinlogPosition) -> Result<Vec<Self>> {
        let mut client = source.client()?;
        let mut logged: Vec<Self> = Vec::new();
        for log in client.text("SHOW BINARY LOGS")? {
            let file = &log[0];
            if *file < place.file {
                continue;
            }
            for event in client.text(&format!("SHOW BINLOG EVENTS IN '{file}'"))? {
                let (begin, end) = (event[1].parse()?, event[4].parse()?);
                if *file == place.file && begin < place.offset {
                    continue;
                }
                match &*event[2] {
                    "Gtid" => {
                        let mut words = event[5].split_whitespace();
                        let gtid = words.by_ref().find(|word| *word == "GTID").and(words.next());
                        let gtid = gtid.with_context(|| format!("{event:?}"))?.to_owned();
                        logged.push(Self { gtid, file: file.clone(), begin, end });
                    }
                    "Format_desc" | "Gtid_list" | "Binlog_checkpoint" | "Rotate" | "Stop" => {}
                    _ => logged.last_mut().context("an event before all transactions")?.end = end,
                }
            }
        }
        Ok(logged)
    }
}

/// How many transactions there were, in all domains.
fn transactions(client: &mut Client) -> Result<u64> {
    let position = client.scalar("SELECT @@gtid_binlog_pos")?.unwrap_or_default();
    let numbers = position.split(',').filter_map(|gtid| gtid.rsplit('-').next());
    Ok(numbers.filter_map(|number| number.parse::<u64>().ok()).sum())
}

/// What the stock tools make of the logs between two places.
fn stock(source: &Server, copy: &Server, from: (&str, u64), to: (&str, u64)) -> Result<Finished> {
    let logs = source.client()?.text("SHOW BINARY LOGS")?;
    let logs = logs.iter().map(|row| &*row[0]).filter(|name| from.0 <= *name && *name <= to.0);
    let text = source.datadir().join("stock.sql");
    let mut dump = Command::new(source.options().generation.program("mariadb-binlog"));
    dump.args(["--no-defaults", &format!("--start-position={}", from.1)])
        .arg(format!("--stop-position={}", to.1))
        .args(logs.map(|name| source.datadir().join(name)));
    process::run_into(dump, std::fs::File::create(&text)?)?.success()?;
    let mut client = Command::new(source.options().generation.program("mariadb"));
    client
        .args(["--no-defaults", "--user=root", "--binary-mode"])
        .arg(format!("--socket={}", copy.socket().display()))
        .stdin(std::fs::File::open(&text)?);
    process::run(client)
}

/// What the stock tools make of the logs up to a target, without one transaction.
fn stock_without(
    source: &Server,
    copy: &Server,
    place: &BinlogPosition,
    left_out: &Logged,
    target: &Logged,
) -> Result<Finished> {
    let place = (&*place.file, place.offset);
    let before = stock(source, copy, place, (&left_out.file, left_out.begin))?;
    if before.code() != Some(0) {
        return Ok(before);
    }
    stock(source, copy, (&left_out.file, left_out.end), (&target.file, target.end))
}

/// Random logs without one transaction of theirs: as the stock tools replay what is before it and what
/// is behind it. Where that fails, since something needs what was left out, ours fails as well.
#[test]
fn random_logs_without_one_transaction() {
    let (targets, seed) = (number(TARGETS, 3), number(SEED, 1));
    ok(left_out(targets, seed).with_context(|| format!("seed {seed}")));
}

fn left_out(targets: u64, seed: u64) -> Result<()> {
    let scratch = Scratch::new()?;
    let tool = common::haulout();
    let options = ServerOptions::default().arg("--max-binlog-size=1M");
    let source = options.start()?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mix = match Generation::under_test() {
        Generation::V10_5 => Mix::Tables,
        _ => Mix::Everything,
    };
    let load = LoadOptions { domains: 3, rows: 50, mix, ..LoadOptions::new(seed) };
    let load = Load::start(&source, &load)?;
    std::thread::sleep(Duration::from_millis(500));
    let backup = scratch.join("backup");
    tool.run_backup(&source, &backup)?;
    let began = Instant::now();
    let mut client = source.client()?;
    let before = transactions(&mut client)?;
    // A load may stand still for seconds, when its workers wait for each other.
    while began.elapsed() < Duration::from_secs(3) || transactions(&mut client)? < before + 60 {
        ensure!(began.elapsed() < Duration::from_secs(60), "the load stands still");
        std::thread::sleep(Duration::from_millis(100));
    }
    load.stop()?;
    tool.run_prepare(&backup)?;
    let place = BinlogPosition::of_backup(&backup)?;
    let logged = Logged::since(&source, &place)?;
    ensure!(logged.len() > 20, "{} transactions only", logged.len());
    let boot = |name: &str| -> Result<Server> {
        let datadir = scratch.join(name);
        tool.run_restore(&backup, &datadir)?;
        target_options(&options).start_on(&datadir)
    };
    let (mut done, mut failed) = (0, 0);
    while done < targets {
        ensure!(failed < 3 * targets + 6, "{failed} failed and {done} did not: too few");
        // Most transactions that are far back are needed by a later one.
        let target = rng.usize(1..logged.len());
        let without = target - rng.usize(0..target.min(30));
        let (target, without) = (&logged[target], &logged[without]);
        let way = format!("until {}, without {}", target.gtid, without.gtid);
        let mut theirs = boot("theirs")?;
        // A replay knows that from the backup.
        theirs.run("RESET MASTER")?;
        theirs.run(&format!("SET GLOBAL gtid_binlog_state = '{}'", place.gtid))?;
        let stock = stock_without(&source, &theirs, &place, without, target)?;
        let mut ours = boot("ours")?;
        let arguments = ["--from-backup", backup.to_str().unwrap(), "--until", &target.gtid];
        let arguments = [&arguments[..], &["--after", "--skip-gtid", &without.gtid]].concat();
        let replay = run(&ours, source.datadir(), &arguments)?;
        if stock.code() == Some(0) {
            ensure!(replay.code() == Some(0), "{way}: {}", replay.report());
            compare(&theirs, &ours).context(way.clone())?;
            done += 1;
        } else {
            let reports = format!("{} {}", stock.report(), replay.report());
            ensure!(replay.code() == Some(exit::SERVER), "{way}: {reports}");
            failed += 1;
        }
        eprintln!("{way}: {:?}", stock.code());
        for (server, name) in [(&mut theirs, "theirs"), (&mut ours, "ours")] {
            server.stop()?;
            std::fs::remove_dir_all(scratch.join(name))?;
        }
    }
    Ok(())
}

fn compare(theirs: &Server, ours: &Server) -> Result<()> {
    let mut clients = (theirs.client()?, ours.client()?);
    let states = (state(&mut clients.0)?, state(&mut clients.1)?);
    ensure!(states.0 == states.1, "{states:?}");
    let contents = (Contents::read(&mut clients.0)?, Contents::read(&mut clients.1)?);
    let differences = contents.0.differences(&contents.1);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
