//! Undo tablespaces: none, as many as there can be, and those that the server truncates while they
//! are backed up.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::process;
use harness::proof::{self, Proof};
use harness::scratch::copy_tree;
use harness::tool::{BackupOptions, BinlogPosition, looks_like_backup};
use harness::{Result, Scratch, Server, ServerOptions, Tool, pages};

#[test]
fn no_undo_tablespaces() {
    proof_with(601, 0);
}

#[test]
fn many_undo_tablespaces() {
    proof_with(602, 127);
}

fn proof_with(seed: u64, undo_tablespaces: u32) {
    let mut proof = Proof::new(seed, common::tool());
    proof.server.undo_tablespaces = undo_tablespaces;
    let report = common::ok(proof.run());
    assert!(report.tables > 5, "too little happened: {report:?}");
}

/// What the server makes an undo tablespace anew with, and what it lets it grow to.
const UNDO_SIZE: u64 = 10 << 20;

/// The sizes of the two undo tablespaces.
fn undo_sizes(server: &Server) -> Result<Vec<u64>> {
    let size = |name| Ok(std::fs::metadata(server.datadir().join(name))?.len());
    ["undo001", "undo002"].into_iter().map(size).collect()
}

/// Changes every row until an undo tablespace has outgrown its limit.
fn outgrow(server: &Server) -> Result<()> {
    let mut clients = (0..8).map(|_| server.client()).collect::<Result<Vec<_>>>()?;
    for round in 0..60 {
        for client in &mut clients {
            client.run(&format!(
                "UPDATE d.t SET n = n + 1, b = REPEAT(CHAR(97 + {round} % 26), 500)"
            ))?;
        }
        if undo_sizes(server)?.iter().any(|size| *size > UNDO_SIZE + (8 << 20)) {
            return Ok(());
        }
    }
    anyhow::bail!("the undo tablespaces do not grow: {:?}", undo_sizes(server)?)
}

/// Backs up slowly; `delay` after the start, a snapshot that held the undo log goes, and the server
/// truncates it while the backup runs.
fn backup_of_truncation(server: &Server, target: &Path, delay: Duration) -> Result<()> {
    let mut holder = server.client()?;
    holder.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
    outgrow(server)?;
    let extra = vec!["--throttle=16MiB".to_owned()];
    let how = BackupOptions { extra, ..BackupOptions::default() };
    let running = process::start(common::haulout().backup(server, target, &how), None)?;
    std::thread::sleep(delay);
    let before = undo_sizes(server)?;
    holder.run("COMMIT")?;
    let since = Instant::now();
    let mut client = server.client()?;
    loop {
        // Something to purge, and undo log in what was just made anew.
        client.run("UPDATE d.t SET n = -n WHERE id % 50 = 0")?;
        let now = undo_sizes(server)?;
        if now.iter().zip(&before).any(|(now, before)| now < before) {
            break;
        }
        ensure!(since.elapsed() < Duration::from_secs(30), "nothing was truncated: {now:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    ensure!(!looks_like_backup(target), "the backup was through before the truncation");
    for _ in 0..20 {
        client.run("UPDATE d.t SET b = REVERSE(CONCAT(n, b)) WHERE id % 10 = 0")?;
    }
    running.wait(Duration::from_secs(60))?.success()?;
    Ok(())
}

/// Whether the copy of an undo tablespace was under way or made when it was truncated, the prepared
/// backup has the same pages as by the stock tool, and the copy of the server replicates.
#[test]
fn truncated_during_the_backup() {
    common::ok((|| -> Result<()> {
        let options = ServerOptions::default()
            .arg("--innodb-undo-log-truncate=ON")
            .arg("--innodb-max-undo-log-size=10M")
            .arg("--loose-innodb-purge-rseg-truncate-frequency=1");
        let scratch = Scratch::new()?;
        let source = options.start()?;
        proof::create_replication_user(&source)?;
        source.run("CREATE DATABASE d")?;
        source
            .run("CREATE TABLE d.t (id INT PRIMARY KEY, n INT, b VARCHAR(2000)) ENGINE=InnoDB")?;
        source.run("INSERT INTO d.t SELECT seq, seq, '' FROM d.seq_1_to_3000")?;
        for (name, delay) in [("early", 300), ("late", 2500)] {
            let backup = scratch.join(name);
            backup_of_truncation(&source, &backup, Duration::from_millis(delay))
                .with_context(|| name.to_owned())?;
            let stock = scratch.join(&format!("{name}-stock"));
            copy_tree(&backup, &stock)?;
            Tool::stock().run_prepare(&stock)?;
            let tool = common::haulout();
            tool.run_prepare(&backup)?;
            let found = pages::compare(&stock, &backup, options.page_size as usize)?;
            ensure!(found.differences.is_empty(), "{name}: {}", found.report());
            let position = BinlogPosition::of_backup(&backup)?;
            let copy = scratch.join(&format!("{name}-copy"));
            let copy = proof::restore_and_boot(&tool, &backup, &copy, &options)?;
            proof::attach(&source, &copy, &position)?;
            proof::ensure_equal(&source, &copy).with_context(|| name.to_owned())?;
            let errors = copy.logged_errors()?;
            ensure!(errors.is_empty(), "{name}: {}", errors.join("\n"));
        }
        Ok(())
    })());
}
