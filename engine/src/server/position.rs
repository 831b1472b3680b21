//! Where the server's binary log and its GTIDs stand.
//!
//! Read under BLOCK_COMMIT this is the exact place at which a replica of the backup goes on.
//!
//! `@@gtid_current_pos`, which the stock tool records, leaves out every domain whose newest
//! transaction carries the id of another server and was not applied by a replica thread, for
//! example after a replay with mariadb-binlog. A replica that starts from such a position would
//! ask for that domain from its beginning. The position recorded here is therefore
//! `gtid_binlog_pos` merged with `gtid_slave_pos`, domain by domain, the higher sequence number
//! winning: equal to `@@gtid_current_pos` where that is complete, and never without a domain.

use binlog::{BinlogPosition, GtidPosition, GtidState};

use super::profile::ServerProfile;
use super::rows::Row;
use super::session::{Session, Wait};
use crate::{Error, ErrorKind, Result};

/// The binary log position and all GTID variables of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationPosition {
    /// File and offset; none when the binary log is off.
    pub binlog: Option<BinlogPosition>,
    /// The position of the data: `binlog_pos` and `slave_pos` merged.
    pub gtid: GtidPosition,
    /// `gtid_binlog_state`: what a server needs to go on as a primary.
    pub binlog_state: GtidState,
    /// `gtid_binlog_pos`.
    pub binlog_pos: GtidPosition,
    /// `gtid_slave_pos`.
    pub slave_pos: GtidPosition,
    /// `gtid_current_pos`, as the stock tool records it.
    pub current_pos: GtidPosition,
}

impl ReplicationPosition {
    /// Reads the position. It is consistent when nothing can commit meanwhile.
    pub fn read(session: &mut Session, profile: &ServerProfile) -> Result<Self> {
        let wait = Wait::short("reading the binary log position");
        let binlog = if profile.log_bin {
            let rows = session.query("SHOW MASTER STATUS", wait)?;
            rows.first().map(master_status).transpose()?
        } else {
            None
        };
        let rows = session.query(
            "SELECT @@GLOBAL.gtid_binlog_state AS binlog_state, \
             @@GLOBAL.gtid_binlog_pos AS binlog_pos, @@GLOBAL.gtid_slave_pos AS slave_pos, \
             @@GLOBAL.gtid_current_pos AS current_pos",
            wait,
        )?;
        let row = rows.first().ok_or_else(|| {
            Error::new(ErrorKind::Server, "the server does not tell its GTID position")
        })?;
        let binlog_pos: GtidPosition = parse(row, "binlog_pos")?;
        let slave_pos = parse(row, "slave_pos")?;
        Ok(Self {
            binlog,
            gtid: binlog_pos.clone().merged_with(&slave_pos),
            binlog_state: parse(row, "binlog_state")?,
            current_pos: parse(row, "current_pos")?,
            binlog_pos,
            slave_pos,
        })
    }
}

fn master_status(row: &Row) -> Result<BinlogPosition> {
    let nonsense =
        || Error::new(ErrorKind::Server, "SHOW MASTER STATUS does not tell a file and a position");
    let file = row.text("File").ok_or_else(nonsense)?;
    let offset = row.number("Position").ok_or_else(nonsense)?;
    BinlogPosition::new(&file, offset).map_err(|cause| nonsense().caused_by(cause))
}

fn parse<T>(row: &Row, column: &str) -> Result<T>
where
    T: std::str::FromStr<Err = binlog::GtidError>,
{
    row.text(column).unwrap_or_default().parse().map_err(|cause| {
        Error::new(ErrorKind::Server, format!("cannot read the server's gtid_{column}"))
            .caused_by(cause)
    })
}
