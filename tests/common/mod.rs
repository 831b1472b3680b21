//! What the system tests share: which program they test, and how it has to fail.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod corpus;
pub mod export;
pub mod replay;
pub mod repo;
pub mod text;
pub mod witness;

use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use harness::process::Finished;
use harness::tool::looks_like_backup;
use harness::{Result, Tool};
use rustix::process::{Pid, Signal};

/// The `haulout` program of this build.
pub fn haulout() -> Tool {
    Tool::Haulout(env!("CARGO_BIN_EXE_haulout").into())
}

/// The tool that proofs are about. `HAULOUT_TEST_TOOL=stock` puts the stock tool in its place,
/// to tell a failing proof from a failing harness.
pub fn tool() -> Tool {
    match std::env::var("HAULOUT_TEST_TOOL").as_deref() {
        Ok("stock") => Tool::stock(),
        _ => haulout(),
    }
}

/// Panics with the whole chain of causes on one line, and without a stack trace.
pub fn ok<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}

/// A program that was heard of. It does not outlive this value.
pub struct Heard(Option<Child>);

impl Heard {
    /// Waits until it ends; what it wrote.
    pub fn output(mut self) -> Result<Output> {
        Ok(self.0.take().context("it has ended")?.wait_with_output()?)
    }

    /// Tells it to end, as Ctrl-C does; how long that took. After some time it is ended anyhow.
    pub fn interrupt(mut self, limit: Duration) -> Result<Duration> {
        let mut child = self.0.take().context("it has ended")?;
        rustix::process::kill_process(Pid::from_child(&child), Signal::INT)?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if began.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                anyhow::bail!("it did not end within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(began.elapsed())
    }

    /// Ends it.
    pub fn end(mut self) -> Result<()> {
        let mut child = self.0.take().context("it has ended")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a program, and waits until it says something; the line.
pub fn start_and_hear(mut command: Command, words: &str) -> Result<(Heard, String)> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().context("no standard error")?;
    let mut lines = std::io::BufReader::new(stderr).lines();
    let line = loop {
        let line = lines.next().with_context(|| format!("it ended before it said {words}"))??;
        eprintln!("{line}");
        if line.contains(words) {
            break line;
        }
    };
    // It must not stop because nobody reads what it says.
    std::thread::spawn(move || lines.for_each(|line| eprintln!("{}", line.unwrap_or_default())));
    Ok((Heard(Some(child)), line))
}

/// Exit codes of the `haulout` program.
pub mod exit {
    /// Anything without a code of its own.
    pub const FAILED: i32 = 1;
    /// The request itself is wrong.
    pub const USAGE: i32 = 2;
    /// Damage was found.
    pub const DAMAGE: i32 = 3;
    /// The server refused or cannot be reached.
    pub const SERVER: i32 = 4;
    /// A lock or time limit ran out.
    pub const TIMEOUT: i32 = 6;
    /// Nothing matches the request.
    pub const NOTHING_MATCHES: i32 = 8;
    /// Redo is missing in between.
    pub const GAP: i32 = 7;
    /// Interrupted by the user.
    pub const INTERRUPTED: i32 = 130;
}

/// Checks that a run failed for the right reason: exit code, a message that names what it is
/// about, no panic.
#[track_caller]
pub fn assert_failed(run: &Finished, code: i32, words: &[&str]) {
    assert_eq!(run.code(), Some(code), "{}", run.report());
    let said = run.stderr.to_lowercase();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "nothing about {word:?}: {}", run.report());
    }
    assert!(!said.contains("panicked"), "{}", run.report());
    assert!(!said.contains("completed ok!"), "{}", run.report());
}

/// Checks that a failed backup left nothing that a user or a script would take for one.
#[track_caller]
pub fn assert_no_backup(dir: &Path) {
    assert!(!looks_like_backup(dir), "{} looks like a finished backup", dir.display());
}
