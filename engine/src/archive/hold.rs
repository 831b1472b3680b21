//! A server that removes no logs by itself while this replica is away.
//!
//! Servers spare the log that a connected replica reads, and all behind it. Since 11.4 they remove logs
//! by age or size only while so many replicas are connected as `slave_connections_needed_for_purge` says.
//! With a number that is not reached without this one, nothing goes while it is not there. The number is
//! only raised: what was true of it stays true.

use std::collections::BTreeSet;

use crate::server::{ConnectOptions, Session, Wait};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// The variable that says how many replicas have to be there.
const VARIABLE: &str = "slave_connections_needed_for_purge";

/// Tells the server to keep its logs unless all replicas are connected that are so now.
pub(super) fn hold(
    connect: &ConnectOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<()> {
    let mut session = Session::connect(connect, cancel)?;
    let wait = Wait::short("telling the server to keep its logs");
    let rows = session.query(&format!("SHOW GLOBAL VARIABLES LIKE '{VARIABLE}'"), wait)?;
    let Some(needed) = rows.first().and_then(|row| row.number("Value")) else {
        let message =
            format!("the server has no {VARIABLE}, which came with 11.4: it cannot be held");
        return Err(Error::new(ErrorKind::Usage, message).advise(
            "have it remove nothing by itself (SET GLOBAL expire_logs_days=0, \
             binlog_expire_logs_seconds=0), and let haulout binlog purge do it",
        ));
    };
    let rows = session.query("SHOW SLAVE HOSTS", wait)?;
    let replicas: BTreeSet<u64> = rows.iter().filter_map(|row| row.number("Server_id")).collect();
    let replicas = replicas.len() as u64;
    if replicas > needed {
        session.execute(&format!("SET GLOBAL {VARIABLE}={replicas}"), wait)?;
        reporter.info(format!(
            "the server removes logs by itself only while {replicas} replicas are connected \
             ({VARIABLE}; it was {needed})"
        ));
    }
    session.close();
    Ok(())
}
