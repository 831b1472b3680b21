//! Running a program with a deadline, and what it cost.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use wait4::Wait4;

use crate::Result;

/// How long a program under test may take unless a test says otherwise.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(300);

/// What a program used, as the kernel accounts it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time from start to end.
    pub wall: Duration,
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Largest resident set, in bytes.
    pub peak_memory: u64,
}

/// A program that ended.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, when that was not redirected.
    pub stdout: Vec<u8>,
    /// Its standard error, when that was not redirected.
    pub stderr: String,
    /// What it used.
    pub cost: Cost,
}

impl Finished {
    /// This value if the program succeeded, else an error with all it said.
    pub fn success(self) -> Result<Self> {
        ensure!(self.status.success(), "{}", self.report());
        Ok(self)
    }

    /// The exit code; `None` after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Command, status and the end of what the program said.
    pub fn report(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        let mut report = format!(
            "{}\nended with {}\n--- standard error ---\n{tail}\n---",
            self.command, self.status
        );
        // Where errors go with --json. Streams are not for reading.
        if let Ok(text) = std::str::from_utf8(&self.stdout)
            && !text.is_empty()
            && text.len() <= OUTPUT_SHOWN
        {
            report.push_str(&format!("\n--- standard output ---\n{text}\n---"));
        }
        report
    }
}

/// Longer output is not shown in reports.
const OUTPUT_SHOWN: usize = 8 << 10;

/// A program that runs.
pub struct Running {
    command: String,
    /// Taken by `wait`.
    child: Option<Child>,
    pid: Pid,
    started: Instant,
    stdout: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
    stderr: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
}

/// Starts a program and collects what it says. Redirections that the command already has stay
/// when `stdout` is given.
pub fn start(mut command: Command, stdout: Option<Stdio>) -> Result<Running> {
    let line = format!("{command:?}");
    command.stdout(stdout.unwrap_or_else(Stdio::piped)).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {line}"))?;
    let pid = Pid::from_child(&child);
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    Ok(Running { command: line, child: Some(child), pid, started, stdout, stderr })
}

/// Runs a program to its end.
pub fn run(command: Command) -> Result<Finished> {
    start(command, None)?.wait(DEFAULT_LIMIT)
}

/// Runs a program to its end, its standard output going elsewhere.
pub fn run_into(command: Command, stdout: impl Into<Stdio>) -> Result<Finished> {
    start(command, Some(stdout.into()))?.wait(DEFAULT_LIMIT)
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<std::io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map(|_| bytes)
    })
}

impl Running {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for the end. A program that takes longer than `limit` is killed, and that is an
    /// error.
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        let pid = self.pid;
        let child = self.child.take().context("the program was waited for already")?;
        let (done, waiting) = mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let late = waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        let used = child.wait4()?;
        let wall = self.started.elapsed();
        drop(done);
        let late = watchdog.join().unwrap_or(false);

        let cost = Cost {
            wall,
            cpu: used.rusage.utime + used.rusage.stime,
            peak_memory: used.rusage.maxrss,
        };
        let finished = Finished {
            command: std::mem::take(&mut self.command),
            status: used.status,
            stdout: join(self.stdout.take())?,
            stderr: String::from_utf8_lossy(&join(self.stderr.take())?).into_owned(),
            cost,
        };
        ensure!(!late, "killed after {limit:?}: {}", finished.report());
        Ok(finished)
    }
}

fn join(reader: Option<JoinHandle<std::io::Result<Vec<u8>>>>) -> Result<Vec<u8>> {
    match reader {
        Some(reader) => match reader.join() {
            Ok(bytes) => Ok(bytes?),
            Err(_) => anyhow::bail!("the thread that reads the output panicked"),
        },
        None => Ok(Vec::new()),
    }
}

/// A program that a test gave up on must not outlive the test.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
