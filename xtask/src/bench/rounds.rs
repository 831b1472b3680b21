//! The rounds of each measurement.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::process::{self, Cost};
use harness::tool::BackupOptions;
use harness::{Result, Tool};

use super::data::{Data, copy_tree, each_file, remove};
use super::locks;
use super::table::{Row, Table};
use super::{Arguments, What};

const LIMIT: Duration = Duration::from_secs(1800);

/// Measures one thing and adds its rows to the table.
pub fn measure(
    what: What,
    arguments: &Arguments,
    tools: &[Tool; 2],
    data: &Data,
    table: &mut Table,
) -> Result<()> {
    let rounds = arguments.rounds;
    let options = BackupOptions { parallel: arguments.parallel, ..BackupOptions::default() };
    let target = data.scratch("target");
    match what {
        What::Floors => {
            run(data.each_file("cat"))?;
            let mut cat = Row::single("read once (cat)");
            let mut copy = Row::single("copy once (cp)");
            for _ in 0..rounds {
                cat.add_single(run(data.each_file("cat"))?);
                clear(&target)?;
                std::fs::create_dir(&target)?;
                let mut command = data.each_file("cp --parents --target-directory=\"$0\"");
                command.arg(&target);
                copy.add_single(run(command)?);
            }
            table.push(cat);
            table.push(copy);
        }
        What::Backup => {
            let server = data.start()?;
            let row = compare("backup to a folder", rounds, tools, |tool| {
                clear(&target)?;
                warm(server.datadir())?;
                run(tool.backup(&server, &target, &options))
            })?;
            table.push(row);
        }
        What::Stream => {
            let server = data.start()?;
            let row = compare("backup to a stream, to nowhere", rounds, tools, |tool| {
                warm(server.datadir())?;
                run_to(tool.backup_stream(&server, &options), Stdio::null())
            })?;
            table.push(row);
            let row = compare("backup to a stream, to a pipe", rounds, tools, |tool| {
                warm(server.datadir())?;
                let mut reader =
                    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
                let pipe = reader.stdin.take().map_or_else(Stdio::null, Stdio::from);
                let cost = run_to(tool.backup_stream(&server, &options), pipe);
                reader.wait()?;
                cost
            })?;
            table.push(row);
        }
        What::Locks => {
            let (server, load) = data.busy_server()?;
            let mut ddl = Row::pair("longest wait of DDL");
            let row = compare("longest wait of a commit", rounds, tools, |tool| {
                clear(&target)?;
                let waits = locks::during(&server, tool, &options, &target, LIMIT)?;
                ddl.add(matches!(tool, Tool::Stock(_)), waits.ddl);
                Ok(waits.commit)
            })?;
            drop(load);
            table.push(row);
            table.push(ddl);
        }
        What::Extract => {
            let stream = data.stream()?;
            let row = compare("extract a stream", rounds, tools, |tool| {
                clear(&target)?;
                std::fs::create_dir(&target)?;
                warm_file(&stream)?;
                let mut command = tool.extract(&target, arguments.parallel);
                command.stdin(File::open(&stream)?);
                run(command)
            })?;
            table.push(row);
        }
        What::Prepare => {
            let raw = data.write_heavy_backup(arguments.redo_mib)?;
            for (name, memory) in [("prepare, 1 GiB", 1 << 30), ("prepare, 128 MiB", 128 << 20)] {
                let row = compare(name, rounds, tools, |tool| {
                    clear(&target)?;
                    copy_tree(&raw, &target)?;
                    sync_disks()?;
                    run(tool.prepare(&target, memory))
                })?;
                table.push(row);
            }
        }
        What::Delta | What::Chain | What::Store | What::Fetch | What::Binlog | What::Replay => {
            anyhow::bail!("measured elsewhere")
        }
    }
    remove(&target)
}

/// Runs both tools in every round, the order changing from round to round.
pub fn compare(
    name: &str,
    rounds: usize,
    tools: &[Tool; 2],
    mut once: impl FnMut(&Tool) -> Result<Cost>,
) -> Result<Row> {
    let mut row = Row::pair(name);
    for round in 0..rounds {
        let (stock, ours) = if round % 2 == 0 {
            let stock = once(&tools[0])?;
            (stock, once(&tools[1])?)
        } else {
            let ours = once(&tools[1])?;
            (once(&tools[0])?, ours)
        };
        eprintln!(
            "  {name}: stock {:.2} s, ours {:.2} s",
            stock.wall.as_secs_f64(),
            ours.wall.as_secs_f64()
        );
        row.add_pair(stock, ours);
    }
    Ok(row)
}

pub fn run(command: Command) -> Result<Cost> {
    run_to(command, Stdio::null())
}

fn run_to(command: Command, stdout: Stdio) -> Result<Cost> {
    Ok(process::start(command, Some(stdout))?.wait(LIMIT)?.success()?.cost)
}

/// Removes a target and waits until the disk is quiet, so that one run does not pay for the
/// writes of another.
pub fn clear(target: &Path) -> Result<()> {
    remove(target)?;
    sync_disks()
}

pub fn sync_disks() -> Result<()> {
    run(Command::new("sync")).map(drop)
}

/// Brings the server's files into the page cache. Before each run: the stock tool drops what it
/// has read from the cache, and whoever came next would pay for that.
pub fn warm(datadir: &Path) -> Result<()> {
    run(each_file(datadir, "cat")).map(drop)
}

/// The same for one file.
pub fn warm_file(file: &Path) -> Result<()> {
    let mut command = Command::new("cat");
    command.arg(file);
    run(command).map(drop)
}
