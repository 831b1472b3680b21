//! An interrupted backup releases the server at once and leaves no backup.

mod common;

use std::time::{Duration, Instant};

use anyhow::Context;
use harness::tool::BackupOptions;
use harness::{Result, Scratch, Server, ServerOptions, process};
use rustix::process::Signal;

/// A server with something to copy, and a MyISAM table whose writer keeps DDL from being
/// blocked.
fn server() -> Result<Server> {
    let server = ServerOptions::default().start()?;
    server.run("CREATE DATABASE d")?;
    server.run("CREATE TABLE d.gate (a INT) ENGINE=MyISAM")?;
    server.run("CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")?;
    server.run("INSERT INTO d.t SELECT seq, REPEAT(MD5(seq), 30) FROM d.seq_1_to_20000")?;
    Ok(server)
}

fn assert_unlocked(server: &Server) -> Result<()> {
    let mut client = server.client()?.with_timeout(Duration::from_secs(10));
    client.run("SET SESSION lock_wait_timeout = 5")?;
    client.run("ALTER TABLE d.t ADD COLUMN c INT")?;
    client.run("UPDATE d.t SET c = a WHERE a < 10")?;
    client.run("BACKUP STAGE START")?;
    client.run("BACKUP STAGE END")?;
    Ok(())
}

fn interrupted(signal: Signal, while_waiting_for_a_lock: bool) -> Result<()> {
    let scratch = Scratch::new()?;
    let target = scratch.join("backup");
    let server = server()?;
    let mut options = BackupOptions::default();
    let mut gate = None;
    if while_waiting_for_a_lock {
        let mut client = server.client()?;
        let id = client.scalar("SELECT CONNECTION_ID()")?.context("no connection id")?;
        let writer = std::thread::spawn(move || {
            // Killed at the end, so it fails.
            let _ = client.run("INSERT INTO d.gate SELECT SLEEP(60)");
        });
        gate = Some((id, writer));
    } else {
        options.extra.push("--throttle=5MiB".to_owned());
    }
    let running = process::start(common::haulout().backup(&server, &target, &options), None)?;
    std::thread::sleep(Duration::from_millis(2500));
    running.signal(signal)?;
    let signalled = Instant::now();
    let finished = running.wait(Duration::from_secs(30))?;
    common::assert_failed(&finished, common::exit::INTERRUPTED, &["interrupt"]);
    assert!(signalled.elapsed() < Duration::from_secs(5), "took {:?}", signalled.elapsed());
    if let Some((id, writer)) = gate {
        server.run(&format!("KILL QUERY {id}"))?;
        let _ = writer.join();
    }
    assert_unlocked(&server)?;
    common::assert_no_backup(&target);
    Ok(())
}

#[test]
fn interrupt_while_copying() {
    common::ok(interrupted(Signal::INT, false));
}

#[test]
fn terminate_while_copying() {
    common::ok(interrupted(Signal::TERM, false));
}

#[test]
fn interrupt_while_waiting_for_a_lock() {
    common::ok(interrupted(Signal::INT, true));
}
