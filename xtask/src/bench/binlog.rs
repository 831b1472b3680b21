//! Binary logs: their text, the look through them, and their replay onto a server.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::process::{self, Cost};
use harness::{Generation, Result, Server, Tool};

use super::Arguments;
use super::logs::Logs;
use super::rounds::{compare, run, sync_disks, warm_file};
use super::table::{Row, Table};
use crate::text::size;

const LIMIT: Duration = Duration::from_secs(1800);
/// Threads of the replica that apply what is served.
const APPLIERS: u32 = 8;
const PASSWORD: &str = "geheim";

fn stock(name: &str) -> Command {
    Command::new(Generation::under_test().program(name))
}

fn program(tool: &Tool) -> Result<&Path> {
    match tool {
        Tool::Haulout(program) => Ok(program),
        _ => anyhow::bail!("not ours"),
    }
}

/// Text of a large log, to nowhere, and looking for what touches a table in it.
pub fn dump(arguments: &Arguments, tools: &[Tool; 2], table: &mut Table) -> Result<()> {
    let logs = Logs::open()?;
    let log = logs.large();
    warm_file(&log)?;
    let bytes = std::fs::metadata(&log)?.len();
    eprintln!("a log of {}", size(bytes));
    let text = |tool: &Tool, words: &[&str]| -> Result<Command> {
        let mut command = match tool {
            Tool::Stock(_) => stock("mariadb-binlog"),
            _ => Command::new(program(tool)?),
        };
        command.arg0("mariadb-binlog").arg("--no-defaults").args(words).arg(&log);
        Ok(command)
    };
    for (title, words) in [("text of a log", &[][..]), ("text of a log, -vv", &["-vv"])] {
        let row = compare(title, arguments.rounds, tools, |tool| run(text(tool, words)?))?;
        table.push(row);
    }
    let row = compare("what touches a table (stock: text)", arguments.rounds, tools, |tool| {
        let Tool::Haulout(program) = tool else { return run(text(tool, &[])?) };
        let mut command = Command::new(program);
        command.args(["binlog", "find", "--table", "sbtest.none"]).arg(&log);
        let done = process::start(command, Some(Stdio::null()))?.wait(LIMIT)?;
        ensure!(done.code() == Some(8), "{}", done.report());
        Ok(done.cost)
    })?;
    table.push(row);
    Ok(())
}

/// A million changes of rows onto a server: by the stock tool into the client, by `replay`, and by
/// `binlog serve` with the server as a replica.
pub fn replay(arguments: &Arguments, tools: &[Tool; 2], table: &mut Table) -> Result<()> {
    let logs = Logs::open()?;
    let ours = program(&tools[1])?;
    let mut rows =
        [Row::pair("replay (stock: into mariadb)"), Row::pair("serve (stock: the same)")];
    for round in 0..arguments.rounds {
        let mut costs = [Cost::default(); 3];
        let mut order = [0, 1, 2];
        order.rotate_left(round % 3);
        for way in order {
            warm_file(&logs.changes())?;
            sync_disks()?;
            let server = logs.server(APPLIERS)?;
            costs[way] = match way {
                0 => by_text(&logs, &server)?,
                1 => by_replay(&logs, &server, ours)?,
                _ => by_replica(&logs, &server, ours)?,
            };
            ensure!(logs.is_behind(&server)?, "the tables are not what they were");
        }
        let seconds = costs.map(|cost| cost.wall.as_secs_f64());
        eprintln!(
            "  stock {:.2} s, replay {:.2} s, serve {:.2} s",
            seconds[0], seconds[1], seconds[2]
        );
        rows[0].add_pair(costs[0], costs[1]);
        rows[1].add_pair(costs[0], costs[2]);
    }
    rows.into_iter().for_each(|row| table.push(row));
    super::data::remove(&logs.scratch("target"))
}

fn by_text(logs: &Logs, server: &Server) -> Result<Cost> {
    let mut command = Command::new("bash");
    let [dump, client] = ["mariadb-binlog", "mariadb"].map(stock);
    command.arg("-c").arg(format!(
        "set -o pipefail; '{}' --no-defaults '{}' | '{}' --no-defaults --user=root --socket='{}' \
         --max-allowed-packet=1G",
        dump.get_program().to_string_lossy(),
        logs.changes().display(),
        client.get_program().to_string_lossy(),
        server.socket().display()
    ));
    Ok(process::start(command, Some(Stdio::null()))?.wait(LIMIT)?.success()?.cost)
}

fn by_replay(logs: &Logs, server: &Server, program: &Path) -> Result<Cost> {
    let mut command = Command::new(program);
    command.args(["replay", "--no-defaults", "--user=root", "--from-gtid=", "--until=end"]);
    command.arg(format!("--socket={}", server.socket().display()));
    command.arg("--binlogs").arg(logs.changes());
    Ok(process::start(command, Some(Stdio::null()))?.wait(LIMIT)?.success()?.cost)
}

fn by_replica(logs: &Logs, server: &Server, program: &Path) -> Result<Cost> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(program);
    command.args(["binlog", "serve", "--until=end", "--user=repl"]);
    command.arg(format!("--listen={address}")).arg("--binlogs").arg(logs.changes());
    command.env("HAULOUT_SERVE_PASSWORD", PASSWORD);
    let mut client = server.client()?.with_timeout(LIMIT);
    let tls = match Generation::under_test() >= Generation::V11_8 {
        true => "MASTER_SSL=0, ",
        false => "",
    };
    client.run(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='repl', \
         MASTER_PASSWORD='{PASSWORD}', {tls}MASTER_USE_GTID=slave_pos",
        address.port()
    ))?;
    let clock = Instant::now();
    let serving = process::start(command, Some(Stdio::null()))?;
    while TcpStream::connect(address).is_err() {
        ensure!(clock.elapsed() < LIMIT, "nobody listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    client.run("START SLAVE")?;
    let wait = format!("SELECT MASTER_GTID_WAIT('{}', {})", logs.position()?, LIMIT.as_secs());
    let waited = client.scalar(&wait)?.context("no answer")?;
    let wall = clock.elapsed();
    let status = client.named("SHOW SLAVE STATUS")?;
    ensure!(waited == "0", "not there in time: {status:#?}");
    client.run("STOP SLAVE")?;
    serving.signal(rustix::process::Signal::INT)?;
    let used = serving.wait(LIMIT)?.cost;
    Ok(Cost { wall, ..used })
}
