//! The BACKUP STAGE protocol and what it costs others.
//!
//! One connection of its own holds the stage. Promises: stages are entered in order; every wait
//! is bounded and can be cancelled; whatever ends this value without [`BackupStages::end`], be
//! it an error, a cancelled run or a drop, closes the connection, which makes the server release
//! everything. The time in which others were blocked counts from the moment a stage is
//! *requested*, because statements queue behind a lock that is being waited for.

use std::time::{Duration, Instant};

use super::connect::ConnectOptions;
use super::failure::{Failure, code};
use super::rows::Row;
use super::session::{Session, Wait};
use crate::{Cancel, Error, ErrorKind, Result};

/// How much longer than the server's own lock timeout an answer may take.
const GRACE: Duration = Duration::from_secs(3);
/// The largest `lock_wait_timeout` that the server accepts, in seconds.
const LOCK_WAIT_TIMEOUT_MAX: u64 = 31_536_000;
/// How long asking for suspects may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(2);
/// How many suspects a message names.
const SUSPECTS_MAX: usize = 5;

/// The stages of a backup, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No other backup may begin; the server keeps its Aria logs.
    Start,
    /// No new writes to tables without transactions.
    Flush,
    /// No DDL, and running writes to tables without transactions have ended.
    BlockDdl,
    /// No commits.
    BlockCommit,
}

impl Stage {
    /// The server's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Flush => "FLUSH",
            Self::BlockDdl => "BLOCK_DDL",
            Self::BlockCommit => "BLOCK_COMMIT",
        }
    }
}

/// What the stages cost. Durations of stages that were not reached are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StageTimes {
    /// Waited for START.
    pub start_wait: Duration,
    /// Waited for FLUSH.
    pub flush_wait: Duration,
    /// Waited for BLOCK_DDL.
    pub block_ddl_wait: Duration,
    /// Waited for BLOCK_COMMIT.
    pub block_commit_wait: Duration,
    /// From the request of BLOCK_DDL until END.
    pub ddl_blocked: Duration,
    /// From the request of BLOCK_COMMIT until END.
    pub commit_blocked: Duration,
    /// From the request of FLUSH until END: new writes to tables without transactions.
    pub writes_blocked: Duration,
}

/// The connection that holds the backup stage.
#[derive(Debug)]
pub struct BackupStages {
    session: Session,
    lock_timeout: Duration,
    stage: Option<Stage>,
    /// The stages are gone through, but the server is not told.
    without_locks: bool,
    writes_blocked_since: Option<Instant>,
    ddl_blocked_since: Option<Instant>,
    commit_blocked_since: Option<Instant>,
    times: StageTimes,
}

impl BackupStages {
    /// Opens the stage connection; nothing is locked yet. `lock_timeout` bounds the wait for
    /// each stage and table lock. `has_wsrep` is from the server's profile.
    pub fn open(
        options: &ConnectOptions,
        cancel: &Cancel,
        lock_timeout: Duration,
        has_wsrep: bool,
    ) -> Result<Self> {
        let mut session = Session::connect(options, cancel)?;
        let seconds = lock_timeout.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).min(LOCK_WAIT_TIMEOUT_MAX);
        let wait = Wait::short("setting the lock timeout");
        session.execute(&format!("SET SESSION lock_wait_timeout={seconds}"), wait)?;
        if has_wsrep {
            let wait = Wait::short("switching off causal reads");
            session.execute("SET SESSION wsrep_sync_wait=0", wait)?;
        }
        Ok(Self {
            session,
            lock_timeout,
            stage: None,
            without_locks: false,
            writes_blocked_since: None,
            ddl_blocked_since: None,
            commit_blocked_since: None,
            times: StageTimes::default(),
        })
    }

    /// The same, without locking anything: everything counts as if it was granted at once.
    #[must_use]
    pub fn without_locks(mut self) -> Self {
        self.without_locks = true;
        self
    }

    /// Keeps other backups out. Returns how long it took.
    pub fn start(&mut self) -> Result<Duration> {
        self.times.start_wait = self.enter(Stage::Start)?;
        Ok(self.times.start_wait)
    }

    /// Closes unused tables without transactions and blocks new writes to them.
    pub fn flush(&mut self) -> Result<Duration> {
        self.writes_blocked_since = Some(Instant::now());
        self.times.flush_wait = self.enter(Stage::Flush)?;
        Ok(self.times.flush_wait)
    }

    /// Waits for writes to tables without transactions and blocks DDL.
    pub fn block_ddl(&mut self) -> Result<Duration> {
        self.ddl_blocked_since = Some(Instant::now());
        self.times.block_ddl_wait = self.enter(Stage::BlockDdl)?;
        Ok(self.times.block_ddl_wait)
    }

    /// Blocks commits.
    pub fn block_commit(&mut self) -> Result<Duration> {
        let now = Instant::now();
        self.commit_blocked_since = Some(now);
        // Jumping over BLOCK_DDL passes through it.
        self.ddl_blocked_since.get_or_insert(now);
        self.times.block_commit_wait = self.enter(Stage::BlockCommit)?;
        Ok(self.times.block_commit_wait)
    }

    /// Releases everything and says goodbye. The times are complete now.
    pub fn end(mut self) -> Result<StageTimes> {
        let wait = self.lock_wait("ending the backup stage");
        if self.without_locks {
            self.session.close();
            return Ok(self.times);
        }
        let ended = self.session.execute("BACKUP STAGE END", wait);
        let since = |moment: Option<Instant>| moment.map(|m| m.elapsed()).unwrap_or_default();
        self.times.ddl_blocked = since(self.ddl_blocked_since);
        self.times.commit_blocked = since(self.commit_blocked_since);
        self.times.writes_blocked = since(self.writes_blocked_since);
        ended?;
        self.session.close();
        Ok(self.times)
    }

    /// The server's number of the connection that holds the stage.
    pub fn connection_id(&self) -> u64 {
        self.session.id()
    }

    /// The stage that was reached.
    pub fn stage(&self) -> Option<Stage> {
        self.stage
    }

    /// How long DDL has been blocked so far.
    pub fn ddl_blocked(&self) -> Duration {
        self.ddl_blocked_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// How long commits have been blocked so far.
    pub fn commit_blocked(&self) -> Duration {
        self.commit_blocked_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Takes the metadata lock of one table, so that its set of files stays what it is. A lock
    /// taken before is released. Data may still change.
    pub fn lock_table(&mut self, database: &str, table: &str) -> Result<()> {
        lock_table(&mut self.session, database, table, self.lock_timeout)
    }

    /// Releases the table lock.
    pub fn unlock(&mut self) -> Result<()> {
        unlock_table(&mut self.session)
    }

    fn enter(&mut self, stage: Stage) -> Result<Duration> {
        if self.stage.is_some_and(|reached| reached >= stage) {
            let message = format!("BACKUP STAGE {} was asked for twice or too late", stage.name());
            return Err(Error::new(ErrorKind::Failed, message));
        }
        if self.without_locks {
            self.stage = Some(stage);
            return Ok(Duration::ZERO);
        }
        let statement = format!("BACKUP STAGE {}", stage.name());
        let requested = Instant::now();
        let reason = format!("waiting for {statement}");
        let wait = self.lock_wait(&reason);
        match self.session.try_query(&statement, wait) {
            Ok(_) => {
                self.stage = Some(stage);
                Ok(requested.elapsed())
            }
            Err(failure) => {
                // Nobody shall wait for a backup that has failed while its error is worded.
                self.session.quit();
                Err(self.explain(stage, &statement, wait, failure))
            }
        }
    }

    /// Says who is in the way when a stage was not granted in time.
    fn explain(&self, stage: Stage, statement: &str, wait: Wait<'_>, failure: Failure) -> Error {
        let timed_out = matches!(failure, Failure::Deadline(_))
            || matches!(failure.code(), Some(code::LOCK_WAIT_TIMEOUT | code::DEADLOCK));
        if !timed_out {
            return failure.into_error(statement, wait);
        }
        let message = format!(
            "the server did not grant BACKUP STAGE {} within {:?}",
            stage.name(),
            self.lock_timeout
        );
        let what = match stage {
            Stage::Start => "another backup or a running DDL statement is in the way",
            Stage::Flush => "a lock on tables without transactions is in the way",
            Stage::BlockDdl => {
                "a long write to a table without transactions, or DDL, is in the way"
            }
            Stage::BlockCommit => "a running commit is in the way",
        };
        // The names help but are not needed: failing to find them must not hide the timeout.
        let suspects = self
            .session
            .another_within(QUESTION_LIMIT)
            .and_then(|mut other| suspects(&mut other, &self.session));
        let advice = match suspects {
            Ok(found) if !found.is_empty() => format!("{what}: {}", found.join("; ")),
            _ => format!("{what}: look at SHOW FULL PROCESSLIST"),
        };
        Error::new(ErrorKind::Timeout, message).advise(advice)
    }

    fn lock_wait<'a>(&self, reason: &'a str) -> Wait<'a> {
        Wait { deadline: self.lock_timeout.saturating_add(GRACE), reason }
    }
}

/// `BACKUP LOCK` for one table, on any session. Names are as the server writes them in SQL.
pub fn lock_table(
    session: &mut Session,
    database: &str,
    table: &str,
    timeout: Duration,
) -> Result<()> {
    let statement = format!("BACKUP LOCK {}.{}", quoted(database), quoted(table));
    let reason = format!("locking the files of {database}.{table}");
    session.execute(&statement, Wait { deadline: timeout.saturating_add(GRACE), reason: &reason })
}

/// `BACKUP UNLOCK`.
pub fn unlock_table(session: &mut Session) -> Result<()> {
    session.execute("BACKUP UNLOCK", Wait::short("releasing a table lock"))
}

/// An identifier in backticks.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Connections that may hold what was waited for, most telling first.
fn suspects(session: &mut Session, waiting: &Session) -> Result<Vec<String>> {
    let own = [session.id(), waiting.id()];
    let reason = "looking for whoever holds the backup lock";
    let wait = Wait { deadline: QUESTION_LIMIT, reason };
    let rows = session.query(
        "SELECT id, user, host, command, time, state, info \
         FROM information_schema.processlist ORDER BY time DESC",
        wait,
    )?;
    // With the metadata lock plugin installed the server knows; without it, guess.
    let holders = session.query(
        "SELECT thread_id FROM information_schema.metadata_lock_info \
         WHERE lock_type LIKE 'Backup%' OR lock_mode LIKE 'MDL_BACKUP%'",
        wait,
    );
    let holders: Vec<u64> = holders
        .unwrap_or_default()
        .iter()
        .filter_map(|row| row.number("thread_id"))
        .filter(|id| !own.contains(id))
        .collect();
    let mut ranked: Vec<(u8, &Row)> = rows
        .iter()
        .filter(|row| row.number("id").is_some_and(|id| !own.contains(&id)))
        .filter_map(|row| Some((rank(row, &holders)?, row)))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    Ok(ranked.iter().take(SUSPECTS_MAX).map(|(_, row)| describe(row)).collect())
}

/// How suspicious a connection is: known holder, backup statement, other statement, idle.
fn rank(row: &Row, holders: &[u64]) -> Option<u8> {
    let id = row.number("id")?;
    let info = row.text("info").unwrap_or_default().to_ascii_uppercase();
    match row.text("command")?.as_ref() {
        "Daemon" | "Binlog Dump" | "Slave_IO" => None,
        _ if holders.contains(&id) => Some(0),
        _ if info.trim_start().starts_with("BACKUP") => Some(1),
        "Sleep" => Some(3),
        _ => Some(2),
    }
}

fn describe(row: &Row) -> String {
    let text = |column: &str| row.text(column).unwrap_or_default().into_owned();
    let statement: String = text("info").chars().take(80).collect();
    let doing = if statement.is_empty() { text("command") } else { statement };
    format!(
        "connection {} of {}@{} ({} s: {doing})",
        text("id"),
        text("user"),
        text("host"),
        text("time")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted("plain"), "`plain`");
        assert_eq!(quoted("a`; DROP TABLE b"), "`a``; DROP TABLE b`");
    }

    #[test]
    fn stages_are_ordered() {
        use Stage::{BlockCommit, BlockDdl, Flush, Start};
        let mut stages = [BlockCommit, Flush, Start, BlockDdl];
        stages.sort();
        assert_eq!(stages, [Start, Flush, BlockDdl, BlockCommit]);
    }
}
