//! Whether a server that the archive has no log of belongs to those that it has.
//!
//! The list at the beginning of its file says so mostly. That of the first file of a server that was made
//! from a backup, and told by `gtid_slave_pos` where to go on, is empty; so the server is asked what it
//! has. What it wrote itself proves nothing: one that was reset has the same numbers again.

use binlog::{Gtid, GtidState};

use crate::archive::Archive;
use crate::archive::catalog::File;
use crate::archive::push::Times;
use crate::server::{Session, Wait};
use crate::{Error, ErrorKind, Result};

/// How a server is related to the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kin {
    /// By the list of its file.
    Listed,
    /// By what it says itself. Transactions that both have must be the same.
    Told,
    /// Not at all.
    Stranger,
}

/// What a server has of others. It answers that also while commits wait for an acknowledgement.
pub(super) fn of_others(session: &mut Session, server: u32, wait: Wait<'_>) -> Result<Vec<Gtid>> {
    let sql = "SELECT @@GLOBAL.gtid_binlog_state, @@GLOBAL.gtid_slave_pos";
    let rows = session.query(sql, wait)?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let mut others = Vec::new();
    for column in 0..2 {
        let text = String::from_utf8_lossy(row.at(column).unwrap_or_default());
        others.extend(text.split(',').filter_map(|gtid| gtid.trim().parse::<Gtid>().ok()));
    }
    others.retain(|gtid| gtid.server != server);
    Ok(others)
}

/// How a server is related, whose file begins with this list and which has this of others.
pub(super) fn kin(archive: &Archive<'_>, server: u32, before: &GtidState, others: &[Gtid]) -> Kin {
    let knows = |gtid: &Gtid| {
        let has = |after: &GtidState| after.of(gtid.domain, gtid.server).is_some();
        archive.files().filter_map(File::after).any(has)
    };
    // The archive may lag behind a replica: later numbers than it has are none of another history.
    if before.entries().iter().any(knows) {
        return Kin::Listed;
    }
    // A server that it has a log of, and whose files begin anew, was reset, whatever it had of others.
    let is_known = archive.logs.iter().any(|log| log.server == server);
    if !is_known && others.iter().any(knows) { Kin::Told } else { Kin::Stranger }
}

/// Compares a transaction with that of the archive; whether that proves the two to be of one history.
///
/// # Errors
/// The archive has another one of this GTID.
pub(super) fn is_same(archive: &Archive<'_>, server: u32, gtid: Gtid, time: u32) -> Result<bool> {
    match Times::new(archive).of(gtid)? {
        None => Ok(false),
        Some(there) if there == time => Ok(true),
        Some(_) => Err(stranger(format!(
            "the archive has another transaction {gtid}: server {server} was reset, or is another one"
        ))),
    }
}

/// A server that does not belong here.
pub(super) fn stranger(message: String) -> Error {
    Error::new(ErrorKind::Usage, message).advise(
        "give each group of servers a repository of its own; if this is meant, say \
         --accept-new-server once",
    )
}
