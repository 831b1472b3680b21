//! `cargo xtask logs`: the text of the binary logs in MariaDB's own tests, by the stock tool and by ours.
//!
//! The logs are those of every generation's test package, some of servers of twenty years ago, some
//! damaged on purpose; the stock tool is that of the newest generation, whose text ours prints. A log
//! whose text or status differs has to stand in `docs/compatibility.md` with the reason; and none
//! may stand there that does not differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use harness::{Generation, Result, Scratch, Tool};

use crate::mtr::HOMES;
use crate::{build, expected, setup};

/// What a binary log begins with.
const MAGIC: &[u8] = b"\xfebin";
/// A log that the stock tool does not come to the end of is left, after so many seconds.
const PATIENCE: &str = "20";
/// What the stock tool sets for each log, and ours for those of servers that know it.
const NEWER_VARIABLE: &str = ", @@session.system_versioning_insert_history=0";

/// The ways in which each log is printed.
const OPTIONS: &[&str] = &[
    "",
    "-v",
    "-vv",
    "--short-form",
    "--base64-output=decode-rows -v",
    "--hexdump",
    "--print-row-count --print-row-event-positions",
    "--to-last-log",
    "--verify-binlog-checksum",
    "--force-read",
    "--table=t1",
    "--database=test",
];

/// Compares them all; fails when one differs, or does not, otherwise than `docs/compatibility.md` says.
pub fn logs() -> Result<()> {
    setup::setup()?;
    let newest = Generation::ALL.into_iter().next_back().context("no server")?;
    let expected = expected::on(expected::LOGS, newest.series())?;
    let Tool::Haulout(program) = build::release()? else { bail!("there is no program of ours") };
    let scratch = Scratch::new()?;
    let ours = scratch.join("mariadb-binlog");
    std::os::unix::fs::symlink(program, &ours)?;
    let stock = newest.program("mariadb-binlog");

    let mut found = BTreeMap::new();
    for generation in Generation::ALL {
        let root = generation.suite()?;
        let home = HOMES.iter().map(|home| root.join(home)).find(|home| home.exists());
        collect(&home.with_context(|| format!("no suite in {}", root.display()))?, &mut found)?;
    }
    let mut differing: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for path in found.values() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for options in OPTIONS {
            let [theirs, ours] =
                [&stock, &ours].map(|program| print(program, &scratch, options, path));
            let (theirs, ours) = (theirs?, ours?);
            let text = String::from_utf8_lossy(&theirs.stdout).replace(NEWER_VARIABLE, "");
            if theirs.status.code() != ours.status.code()
                || text != String::from_utf8_lossy(&ours.stdout)
            {
                differing.entry(name.clone()).or_default().insert(options);
            }
        }
    }

    println!("{} logs in {} ways: {} differ", found.len(), OPTIONS.len(), differing.len());
    let mut surprises = 0;
    for (name, options) in &differing {
        let why = expected.get(name.as_str()).copied();
        surprises += usize::from(why.is_none());
        println!("  {name}, in {} ways: {}", options.len(), why.unwrap_or("NOT EXPECTED"));
    }
    for name in expected.keys().filter(|name| !differing.contains_key(**name)) {
        surprises += 1;
        println!("  {name} does not differ: NOT EXPECTED");
    }
    ensure!(surprises == 0, "{surprises} logs end otherwise than docs/compatibility.md says");
    Ok(())
}

/// The logs below a directory, each content once.
fn collect(dir: &Path, found: &mut BTreeMap<Vec<u8>, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            collect(&path, found)?;
        } else if kind.is_file() {
            let mut start = Vec::new();
            File::open(&path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
            if start == MAGIC {
                found.entry(fs::read(&path)?).or_insert(path);
            }
        }
    }
    Ok(())
}

/// What a program prints of a log. Files that it writes go to a directory that is empty before.
fn print(program: &Path, scratch: &Scratch, options: &str, log: &Path) -> Result<Output> {
    let loads = scratch.join("loads");
    if loads.exists() {
        fs::remove_dir_all(&loads)?;
    }
    fs::create_dir(&loads)?;
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(program).arg("--no-defaults").args(options.split_whitespace());
    command.arg(format!("--local-load={}", loads.display())).arg(log).env("TZ", "UTC");
    Ok(command.output()?)
}
