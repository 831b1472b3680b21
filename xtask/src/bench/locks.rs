//! How long a backup makes others wait: the longest commit and the longest DDL statement while
//! one is taken from a server under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::process::{self, Cost};
use harness::tool::BackupOptions;
use harness::{Client, Result, Server, Tool};

const COMMIT: &[&str] = &["UPDATE probe.c SET n = n + 1 WHERE id = 1"];
const DDL: &[&str] = &["CREATE TABLE probe.t (a INT) ENGINE=InnoDB", "DROP TABLE probe.t"];

/// The longest waits during one backup.
pub struct Waits {
    /// Of an autocommitted row.
    pub commit: Cost,
    /// Of a CREATE or DROP TABLE.
    pub ddl: Cost,
}

/// Takes a backup into `target` and watches who waits meanwhile.
pub fn during(
    server: &Server,
    tool: &Tool,
    options: &BackupOptions,
    target: &std::path::Path,
    limit: Duration,
) -> Result<Waits> {
    server.run("CREATE DATABASE IF NOT EXISTS probe")?;
    server.run("CREATE TABLE IF NOT EXISTS probe.c (id INT PRIMARY KEY, n INT) ENGINE=InnoDB")?;
    server.run("REPLACE INTO probe.c VALUES (1, 1)")?;
    let commit = Probe::start(server.client()?, COMMIT);
    let ddl = Probe::start(server.client()?, DDL);
    // What the probes wait for anyway is seen before too, and is part of the answer.
    std::thread::sleep(Duration::from_millis(500));
    process::start(tool.backup(server, target, options), None)?.wait(limit)?.success()?;
    Ok(Waits { commit: commit.longest()?, ddl: ddl.longest()? })
}

/// Repeats statements, and remembers the longest time that one took.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration>>,
}

impl Probe {
    fn start(mut client: Client, statements: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                for statement in statements {
                    let begun = Instant::now();
                    client.run(statement)?;
                    longest = longest.max(begun.elapsed());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(longest)
        });
        Self { stop, thread }
    }

    fn longest(self) -> Result<Cost> {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.thread.join().map_err(|_| anyhow::anyhow!("a probe panicked"))??;
        Ok(Cost { wall: longest, ..Cost::default() })
    }
}
