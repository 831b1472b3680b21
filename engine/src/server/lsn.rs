//! Log sequence numbers of a live server, and making it write or flush its log.

use innodb::Lsn;

use super::failure::code;
use super::session::{Session, Wait};
use crate::{Error, ErrorKind, Result};

/// Where the server's redo log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedoState {
    /// End of the log in memory.
    pub current: Lsn,
    /// End of what is durable in the log file: nothing beyond may be parsed.
    pub flushed: Lsn,
    /// The newest checkpoint, where the server tells it.
    pub checkpoint: Option<Lsn>,
}

/// Reads the state of the redo log. The end of the durable part never exceeds the end.
pub fn redo_state(session: &mut Session) -> Result<RedoState> {
    let wait = Wait::short("reading the end of the redo log");
    let rows = session.query("SHOW GLOBAL STATUS LIKE 'Innodb_lsn_%'", wait)?;
    let number = |name: &str| {
        let row = rows.iter().find(|row| {
            row.text("Variable_name").is_some_and(|found| found.eq_ignore_ascii_case(name))
        });
        row.and_then(|row| row.number("Value")).map(Lsn)
    };
    let required = |name: &str| {
        number(name).ok_or_else(|| {
            let message = format!("the server does not tell {name}");
            Error::new(ErrorKind::Server, message).advise("check that InnoDB is not switched off")
        })
    };
    Ok(RedoState {
        current: required("Innodb_lsn_current")?,
        flushed: required("Innodb_lsn_flushed")?,
        checkpoint: number("Innodb_lsn_last_checkpoint"),
    })
}

/// The end of the redo log in memory.
pub fn current_lsn(session: &mut Session) -> Result<Lsn> {
    redo_state(session).map(|state| state.current)
}

/// The end of the durable part of the redo log.
pub fn flushed_lsn(session: &mut Session) -> Result<Lsn> {
    redo_state(session).map(|state| state.flushed)
}

/// Makes the log of every engine durable.
pub fn flush_engine_logs(session: &mut Session, wait: Wait<'_>) -> Result<()> {
    session.execute("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS", wait)
}

/// Asks for a checkpoint now. `false` when the account may not (it needs SUPER or SYSTEM
/// VARIABLES ADMIN) or the server does not know the variable: a backup works without.
pub fn request_checkpoint(session: &mut Session, wait: Wait<'_>) -> Result<bool> {
    let statement = "SET GLOBAL innodb_log_checkpoint_now=ON";
    match session.try_query(statement, wait) {
        Ok(_) => Ok(true),
        Err(failure) => match failure.code() {
            Some(code::PRIVILEGE_MISSING | code::UNKNOWN_VARIABLE | code::READ_ONLY) => Ok(false),
            _ => Err(failure.into_error(statement, wait)),
        },
    }
}
