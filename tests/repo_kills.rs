//! Killed at any moment: backup, restore, expire and copy, in folders and in buckets. Afterwards all
//! that is listed can be restored, the same command succeeds, and expire leaves no garbage.
//!
//! A few moments in every run of the tests; `cargo xtask kills --points 200` tries more.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use common::ok;
use common::repo::{Repo, small_server};
use harness::process;
use harness::s3::{self, S3Server};
use harness::{Result, Scratch, Server, proof};

/// How many moments.
const POINTS: &str = "HAULOUT_KILLS";
/// Which moments.
const SEED: &str = "HAULOUT_SEED";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Backup,
    Restore,
    Expire,
    Copy,
}

const ALL: [What; 4] = [What::Backup, What::Restore, What::Expire, What::Copy];

/// A repository, another one to copy to, and the server that they are for.
struct Scene<'a> {
    repo: Repo,
    other: Repo,
    server: &'a Server,
    scratch: Scratch,
}

impl Scene<'_> {
    fn datadir(&self) -> PathBuf {
        self.scratch.join("data")
    }

    fn command(&self, what: What) -> Command {
        match what {
            What::Backup => {
                let mut command = self.repo.backup_command(self.server);
                command.arg("--store-memory=100MiB");
                command
            }
            What::Restore => {
                let mut command = self.repo.command("restore");
                command.args(["LATEST", "--memory=64MiB", "--to"]).arg(self.datadir());
                command
            }
            What::Expire => {
                let mut command = self.repo.command("expire");
                command.args(["--keep-last=1", "--grace=0s", "--delete"]);
                command
            }
            What::Copy => {
                let mut command = self.repo.command("copy");
                command.arg("LATEST");
                match self.other.bucket() {
                    None => command.arg("--to").arg(self.other.place()),
                    Some(_) => command.arg(format!("--to=s3://{}/db1", s3::BUCKET)),
                };
                command.arg("--to-key-file").arg(self.other.key());
                command
            }
        }
    }

    /// Something to work on: an expiry has something to expire, a copy something to copy.
    fn set_up(&self, what: What) -> Result<()> {
        let _ = fs::remove_dir_all(self.datadir());
        let backups = match what {
            What::Backup | What::Restore => 0,
            What::Copy => 1,
            What::Expire => 2,
        };
        for _ in 0..backups {
            process::run(self.command(What::Backup))?.success()?;
        }
        Ok(())
    }

    /// All that is listed is whole; how many backups that is.
    fn is_whole(&self) -> Result<usize> {
        let mut backups = 0;
        for repo in [&self.repo, &self.other] {
            let listed = repo.json("list", &[])?;
            let listed = listed["backups"].as_array().context("no list")?.len();
            if listed > 0 {
                let verified = repo.json("verify --deep", &[])?;
                ensure!(verified["backups"].as_array().context("no list")?.len() == listed);
            }
            backups += listed;
        }
        Ok(backups)
    }

    /// A restore that was killed: no server starts on what it left, unless it was at its end.
    fn restored(&self, boot: bool) -> Result<()> {
        let log = self.datadir().join("ib_logfile0");
        let marked = fs::read(&log).is_ok_and(|log| log.starts_with(b"Haulout has not finished"));
        if !log.exists() {
            ensure!(!self.datadir().join("ibdata1").exists(), "data without a marker");
        }
        let complete = !marked && self.datadir().join("ibdata1").exists();
        let again = process::run(self.command(What::Restore))?;
        if again.code() != Some(0) {
            let says =
                ["not empty", "exists already"].iter().any(|says| again.stderr.contains(says));
            ensure!(says && (marked || complete), "{}", again.report());
            if marked && boot {
                ensure!(self.start().is_err(), "a server started on half a data directory");
            }
            if !complete {
                fs::remove_dir_all(self.datadir())?;
                process::run(self.command(What::Restore))?.success()?;
            }
        }
        // What was complete when it was killed has to prove it.
        if boot || complete {
            let rows = self.start()?.client()?.scalar("SELECT COUNT(*) FROM d.t")?;
            ensure!(rows.as_deref() == Some("20000"), "{rows:?}");
        }
        Ok(())
    }

    fn start(&self) -> Result<Server> {
        proof::replica_options(self.server.options()).start_on(&self.datadir())
    }

    /// What expire leaves: backups and nothing else.
    fn is_clean(&self) -> Result<()> {
        process::run(self.command(What::Expire))?.success()?;
        let summary = self.repo.json("expire", &["--garbage", "--grace=0s"])?;
        ensure!(summary["garbage"].as_array().is_some_and(Vec::is_empty), "{summary}");
        ensure!(summary["leftovers"] == 0, "{summary}");
        if self.repo.bucket().is_none() {
            for folder in fs::read_dir(self.repo.place().join("backups"))? {
                let folder = folder?.path();
                let mut names = files(&folder);
                ensure!(
                    names.is_empty() || names.contains(&"manifest.json".to_owned()),
                    "{names:?}"
                );
                names.retain(|name| name != "manifest.json" && !name.starts_with("pack-"));
                ensure!(names.is_empty(), "{names:?}");
            }
        }
        Ok(())
    }
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Kills commands at random moments; how many of each kind were killed before their end.
fn kill(points: u32, seed: u64) -> Result<[u32; 4]> {
    let store = S3Server::start()?;
    let server = small_server()?;
    let scene = |in_bucket: bool| -> Result<Scene<'_>> {
        let bucket = in_bucket.then(|| store.endpoint());
        let repo = Repo::init_on(true, bucket.clone())?;
        let other = Repo::init_on(true, None)?;
        Ok(Scene { repo, other, server: &server, scratch: Scratch::new()? })
    };
    let scenes = [scene(false)?, scene(true)?];
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut lengths = [[Duration::ZERO; 4]; 2];
    for (scene, lengths) in scenes.iter().zip(&mut lengths) {
        for (what, length) in ALL.into_iter().zip(lengths) {
            scene.set_up(what)?;
            let clock = Instant::now();
            process::run(scene.command(what))?.success()?;
            *length = clock.elapsed();
        }
    }
    let mut killed = [0; 4];
    for point in 0..points {
        let (which, what) = (point as usize % 2, point as usize / 2 % 4);
        let (scene, length, what) = (&scenes[which], lengths[which][what], ALL[what]);
        scene.set_up(what)?;
        let moment = length.mul_f64(rng.f64() * 1.05);
        let running = process::start(scene.command(what), None)?;
        std::thread::sleep(moment);
        let _ = running.signal(rustix::process::Signal::KILL);
        killed[what as usize] += u32::from(running.wait(process::DEFAULT_LIMIT)?.code().is_none());
        let report = || format!("{what:?} killed after {moment:?}, point {point} of seed {seed}");
        let before = scene.is_whole().with_context(report)?;
        match what {
            What::Restore => scene.restored(point % 5 == 2).with_context(report)?,
            _ => drop(process::run(scene.command(what))?.success().with_context(report)?),
        }
        let after = scene.is_whole().with_context(report)?;
        ensure!(after > 0 && (what == What::Expire || after >= before), report());
        scene.is_clean().with_context(report)?;
        scene.is_whole().with_context(report)?;
        if point % 20 == 19 {
            println!("{} moments of seed {seed}: killed before their ends {killed:?}", point + 1);
        }
    }
    Ok(killed)
}

#[test]
fn whatever_is_killed_leaves_nothing_wrong() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let points = number(POINTS).unwrap_or(8);
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..1 << 32));
    let killed = ok(kill(points as u32, seed));
    println!("seed {seed}: killed before their ends: backup, restore, expire, copy {killed:?}");
    // Of so many random moments some are before the end.
    assert!(points < 8 || killed.iter().sum::<u32>() > 0);
}
