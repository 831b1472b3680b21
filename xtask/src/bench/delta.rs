//! Incremental backups: one of a server of which a few per cent of the pages have changed, and the
//! prepare of a chain of three.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::tool::BackupOptions;
use harness::{Result, Tool};

use super::Arguments;
use super::data::{Data, copy_tree, remove};
use super::repository::shell;
use super::rounds::{clear, compare, run, sync_disks, warm};
use super::table::Table;
use crate::text::size;

/// Transactions between two backups, of some four rows each.
const CHANGES: u64 = 2500;
const LINKS: usize = 3;

/// Measures both.
pub fn measure(
    arguments: &Arguments,
    tools: &[Tool; 2],
    data: &Data,
    table: &mut Table,
) -> Result<()> {
    let options = BackupOptions { parallel: arguments.parallel, ..BackupOptions::default() };
    let stock = &tools[0];
    let chain = data.scratch("chain");
    remove(&chain)?;
    std::fs::create_dir(&chain)?;
    let links: Vec<PathBuf> =
        (1..=LINKS).map(|number| chain.join(format!("delta-{number}"))).collect();
    let base = chain.join("base");
    let mut parent = &base;

    let server = data.copied_server()?;
    // The first changes after a start write pages that make the stock tool refuse a delta.
    data.change(&server, CHANGES)?;
    run(stock.backup(&server, &base, &options))?;
    for link in &links {
        data.change(&server, CHANGES)?;
        run(incremental(stock, &server, parent, link, &options))?;
        parent = link;
    }

    let target = data.scratch("target");
    data.change(&server, CHANGES)?;
    let mut sizes = [0, 0];
    let row = compare("incremental backup", arguments.rounds, tools, |tool| {
        clear(&target)?;
        warm(server.datadir())?;
        let cost = run(incremental(tool, &server, parent, &target, &options))?;
        let ours = matches!(tool, Tool::Haulout(_));
        sizes[usize::from(ours)] = harness::scratch::tree_size(&target)?;
        Ok(cost)
    })?;
    eprintln!("  incremental backup: {} by stock, {} by us", size(sizes[0]), size(sizes[1]));
    table.push(row);
    drop(server);
    remove(&data.scratch("source"))?;

    let name = format!("prepare with {LINKS} deltas, 1 GiB");
    let row = compare(&name, arguments.rounds, tools, |tool| {
        clear(&target)?;
        copy_tree(&chain, &target)?;
        sync_disks()?;
        run(prepare(tool, &target, &links))
    })?;
    table.push(row);
    remove(&target)?;
    remove(&chain)
}

fn incremental(
    tool: &Tool,
    server: &harness::Server,
    parent: &Path,
    target: &Path,
    options: &BackupOptions,
) -> Command {
    let mut command = tool.backup(server, target, options);
    command.arg(tool.since(parent));
    command
}

/// All of a chain below `dir`.
fn prepare(tool: &Tool, dir: &Path, links: &[PathBuf]) -> Command {
    let base = dir.join("base");
    let links = links.iter().filter_map(|link| Some(dir.join(link.file_name()?)));
    // The links are the stock tool's, for which the base has to be prepared before.
    let program = tool.prepare(&base, 1 << 30);
    let one = shell(&program);
    let more: String = match tool {
        Tool::Haulout(_) => {
            let links: String = links.map(|link| format!(" --delta={}", link.display())).collect();
            format!(" && {one}{links}")
        }
        _ => links.map(|link| format!(" && {one} --incremental-dir={}", link.display())).collect(),
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{one}{more}"));
    command
}
