//! A server that is a replica itself: where another replica of its primaries would go on, and how
//! its own replication is held while a backup is taken.

use std::time::{Duration, Instant};

use super::rows::Row;
use super::session::{Session, Wait};
use crate::{Error, ErrorKind, Reporter, Result};

/// How long the thread that replays runs between two looks at its temporary tables.
const PAUSE: Duration = Duration::from_secs(3);

/// Stopping it waits for the transaction that it is in.
const STOP_LIMIT: Duration = Duration::from_secs(300);

/// Where a replica of the same primaries would go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Statements that make it go on there.
    pub statements: String,
    /// The same as a sentence, for the log.
    pub sentence: String,
}

impl ReplicaInfo {
    /// Reads it; `None` when the server is no replica. It is consistent when nothing can commit
    /// meanwhile.
    pub fn read(session: &mut Session) -> Result<Option<Self>> {
        let wait = Wait::short("reading the positions of replication");
        let position = session.value("SELECT @@GLOBAL.gtid_slave_pos", wait)?.unwrap_or_default();
        let primaries = session.query("SHOW ALL SLAVES STATUS", wait)?;
        let primaries = primaries.iter().filter_map(Primary::of).collect::<Vec<_>>();
        Ok(Self::of(&position, &primaries))
    }

    fn of(position: &str, primaries: &[Primary]) -> Option<Self> {
        if primaries.is_empty() {
            return None;
        }
        let by_gtid = |primary: &&Primary| primary.uses_gtid && !position.is_empty();
        let (mut statements, mut parts) = (String::new(), Vec::new());
        if primaries.iter().any(|primary| by_gtid(&primary)) {
            statements += &format!("SET GLOBAL gtid_slave_pos = '{position}';\n");
            parts.push(format!("gtid_slave_pos '{position}'"));
        }
        for primary in primaries {
            let name = primary.name.replace('\'', "''");
            let change = match name.is_empty() {
                true => "CHANGE MASTER".to_owned(),
                false => format!("CHANGE MASTER '{name}'"),
            };
            if by_gtid(&primary) {
                statements += &format!("{change} TO master_use_gtid = slave_pos;\n");
                parts.push(format!("master '{name}' master_use_gtid = slave_pos"));
            } else {
                let Primary { file, offset, .. } = primary;
                statements += &format!(
                    "{change} TO MASTER_LOG_FILE='{}', MASTER_LOG_POS={offset};\n",
                    file.replace('\'', "''")
                );
                parts.push(format!("master '{name}' filename '{file}' position '{offset}'"));
            }
        }
        Some(Self { statements, sentence: parts.join("; ") })
    }
}

/// A primary of the server.
struct Primary {
    /// Name of the connection; the default one has none.
    name: String,
    /// Its binary log up to which all was replayed.
    file: String,
    offset: u64,
    uses_gtid: bool,
}

impl Primary {
    fn of(row: &Row) -> Option<Self> {
        let text = |column: &str| Some(row.text(column)?.into_owned());
        Some(Self {
            name: text("Connection_name").unwrap_or_default(),
            file: text("Relay_Master_Log_File")?,
            offset: row.number("Exec_Master_Log_Pos")?,
            uses_gtid: text("Using_Gtid").is_some_and(|word| !word.eq_ignore_ascii_case("No")),
        })
    }
}

/// Replication that was stopped at a moment without temporary tables, because a copy would not have
/// those; goes on when it is told to, or this value goes away.
#[derive(Debug)]
pub struct HeldReplication {
    session: Session,
    was_running: bool,
}

impl HeldReplication {
    /// Stops the thread that replays, within `limit`. `None` when the server is no replica.
    pub fn hold(
        mut session: Session,
        limit: Duration,
        reporter: &dyn Reporter,
    ) -> Result<Option<Self>> {
        let wait = Wait::short("reading the state of replication");
        let rows = session.query("SHOW SLAVE STATUS", wait)?;
        let Some(running) = rows.first().and_then(|row| row.text("Slave_SQL_Running")) else {
            reporter.info(
                "Not checking slave open temp tables for --safe-slave-backup because host is not \
                 a slave"
                    .to_owned(),
            );
            return Ok(None);
        };
        let was_running = running == "Yes";
        let mut held = Self { session, was_running };
        if was_running {
            held.stop()?;
        }
        let started = Instant::now();
        loop {
            let open = held.open_tables()?;
            reporter.info(format!("Slave open temp tables: {open}"));
            if open == 0 {
                reporter.info("Slave is safe to backup".to_owned());
                return Ok(Some(held));
            }
            if !was_running || started.elapsed() + PAUSE > limit {
                let message = format!("Slave_open_temp_tables did not become zero after {limit:?}");
                return Err(Error::new(ErrorKind::Timeout, message)
                    .advise("a longer time can be set with --safe-slave-backup-timeout"));
            }
            held.start()?;
            // In small steps, so that an interruption is noticed.
            for _ in 0..10 {
                std::thread::sleep(PAUSE / 10);
                held.open_tables()?;
            }
            held.stop()?;
        }
    }

    /// Lets replication go on, if it ran before.
    pub fn release(mut self) -> Result<()> {
        self.go_on()
    }

    fn go_on(&mut self) -> Result<()> {
        if std::mem::take(&mut self.was_running) {
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.session.execute("START SLAVE SQL_THREAD", Wait::short("starting replication"))
    }

    fn stop(&mut self) -> Result<()> {
        let wait = Wait { deadline: STOP_LIMIT, reason: "stopping replication" };
        self.session.execute("STOP SLAVE SQL_THREAD", wait)
    }

    fn open_tables(&mut self) -> Result<u64> {
        let wait = Wait::short("counting the temporary tables of replication");
        let rows = self.session.query("SHOW STATUS LIKE 'slave_open_temp_tables'", wait)?;
        Ok(rows.first().and_then(|row| row.number("Value")).unwrap_or(0))
    }
}

impl Drop for HeldReplication {
    fn drop(&mut self) {
        // A run that was interrupted closed its connection: another one starts replication again.
        if self.was_running && self.go_on().is_err() {
            let _ = self.session.another_uncancelled().and_then(|mut session| {
                session.execute("START SLAVE SQL_THREAD", Wait::short("starting replication"))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn primary(name: &str, uses_gtid: bool) -> Primary {
        Primary { name: name.to_owned(), file: "mb.000007".to_owned(), offset: 444, uses_gtid }
    }

    #[test]
    fn statements_are_those_of_the_stock_tool() {
        assert_eq!(ReplicaInfo::of("0-1-1", &[]), None);
        let info = ReplicaInfo::of("5-5-55", &[primary("", true), primary("m1", false)]).unwrap();
        assert_eq!(
            info.statements,
            "SET GLOBAL gtid_slave_pos = '5-5-55';\n\
             CHANGE MASTER TO master_use_gtid = slave_pos;\n\
             CHANGE MASTER 'm1' TO MASTER_LOG_FILE='mb.000007', MASTER_LOG_POS=444;\n"
        );
        assert_eq!(
            info.sentence,
            "gtid_slave_pos '5-5-55'; master '' master_use_gtid = slave_pos; \
             master 'm1' filename 'mb.000007' position '444'"
        );
        // Without a position there is only the file.
        let info = ReplicaInfo::of("", &[primary("", true)]).unwrap();
        assert_eq!(
            info.statements,
            "CHANGE MASTER TO MASTER_LOG_FILE='mb.000007', MASTER_LOG_POS=444;\n"
        );
    }
}
