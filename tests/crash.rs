//! What a kill leaves behind: never a thing that looks like a backup, never a backup that
//! cannot be prepared any more, never a server that stays locked.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use harness::load::{Load, LoadOptions};
use harness::process;
use harness::scratch::copy_tree;
use harness::tool::BackupOptions;
use harness::{Result, Scratch, Server, ServerOptions, Tool, pages};
use rustix::process::Signal;

/// Slow enough that a kill after a second or two comes before the end.
fn slowly() -> BackupOptions {
    BackupOptions { extra: vec!["--throttle=10MiB".to_owned()], ..BackupOptions::default() }
}

/// DDL and commits work at once: nobody holds a backup lock.
fn assert_unlocked(server: &Server) -> Result<()> {
    let mut client = server.client()?.with_timeout(Duration::from_secs(15));
    client.run("SET SESSION lock_wait_timeout = 10")?;
    client.run("CREATE DATABASE after_the_crash")?;
    client.run("CREATE TABLE after_the_crash.t (a INT) ENGINE=InnoDB")?;
    client.run("INSERT INTO after_the_crash.t VALUES (1)")?;
    client.run("DROP DATABASE after_the_crash")?;
    Ok(())
}

fn backup_is_killed(after: Duration) -> Result<()> {
    let scratch = Scratch::new()?;
    let target = scratch.join("backup");
    let server = ServerOptions::default().start()?;
    let load = Load::start(&server, &LoadOptions::new(401))?;
    let running = process::start(common::haulout().backup(&server, &target, &slowly()), None)?;
    std::thread::sleep(after);
    running.signal(Signal::KILL)?;
    let finished = running.wait(process::DEFAULT_LIMIT)?;
    assert_eq!(finished.code(), None, "ended before it was killed: {}", finished.report());
    common::assert_no_backup(&target);
    assert_unlocked(&server)?;

    let again = scratch.join("again");
    common::haulout().run_backup(&server, &again)?;
    load.stop()?;
    common::haulout().run_prepare(&again)?;
    Ok(())
}

#[test]
fn a_killed_backup_is_no_backup() {
    for millis in [50, 700, 1500] {
        common::ok(backup_is_killed(Duration::from_millis(millis)));
    }
}

/// A raw backup with enough redo that prepare takes a moment.
fn raw_backup(dir: &Path, seed: u64, by: &Tool) -> Result<()> {
    let server = ServerOptions::default().start()?;
    let load = Load::start(&server, &LoadOptions { rows: 4000, ..LoadOptions::new(seed) })?;
    std::thread::sleep(Duration::from_secs(1));
    by.run_backup_under_load(&server, dir)?;
    load.stop()?;
    Ok(())
}

fn prepare_is_killed(seed: u64, backup_by: &Tool) -> Result<()> {
    let scratch = Scratch::new()?;
    let (raw, whole) = (scratch.join("raw"), scratch.join("whole"));
    raw_backup(&raw, seed, backup_by)?;
    copy_tree(&raw, &whole)?;
    let started = Instant::now();
    common::haulout().run_prepare(&whole)?;
    let usual = started.elapsed();

    let mut random = fastrand::Rng::with_seed(seed);
    let mut interrupted = 0;
    for attempt in 0..6 {
        let killed = scratch.join(&format!("killed-{attempt}"));
        copy_tree(&raw, &killed)?;
        // Three kills in a row, then a run that may finish.
        for _ in 0..3 {
            let command = common::haulout().prepare(&killed, 64 << 20);
            let running = process::start(command, None)?;
            std::thread::sleep(usual.mul_f64(random.f64()));
            running.signal(Signal::KILL)?;
            let finished = running.wait(process::DEFAULT_LIMIT)?;
            interrupted += u32::from(finished.code().is_none());
        }
        common::haulout().run_prepare(&killed)?;
        let result = pages::compare(&whole, &killed, 16 << 10)?;
        assert!(result.differences.is_empty(), "attempt {attempt}: {}", result.report());
        let aria = pages::compare_aria(&whole, &killed)?;
        assert!(aria.differences.is_empty(), "attempt {attempt}: {}", aria.report());
        std::fs::remove_dir_all(&killed)?;
    }
    assert!(interrupted > 5, "only {interrupted} of 18 runs were killed before their end");
    Ok(())
}

#[test]
fn a_killed_prepare_of_our_backup_can_be_run_again() {
    common::ok(prepare_is_killed(402, &common::haulout()));
}

/// The stock tool leaves files to be renamed and removed by prepare, which must survive a kill
/// too.
#[test]
fn a_killed_prepare_of_a_stock_backup_can_be_run_again() {
    common::ok(prepare_is_killed(412, &Tool::stock()));
}

fn server_is_killed(after: Duration) -> Result<()> {
    let scratch = Scratch::new()?;
    let target = scratch.join("backup");
    let mut server = ServerOptions::default().start()?;
    let load = Load::start(&server, &LoadOptions::new(403))?;
    let running = process::start(common::haulout().backup(&server, &target, &slowly()), None)?;
    std::thread::sleep(after);
    server.crash()?;
    load.abandon();
    let finished = running.wait(Duration::from_secs(60))?;
    common::assert_failed(&finished, common::exit::SERVER, &[]);
    common::assert_no_backup(&target);
    Ok(())
}

#[test]
fn a_server_that_dies_fails_the_backup() {
    common::ok(server_is_killed(Duration::from_millis(1200)));
}
