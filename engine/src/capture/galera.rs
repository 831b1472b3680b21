//! Where a member of a Galera cluster stands: what a node that joins from the backup goes on from.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::server::position::ReplicationPosition;
use crate::server::profile::ServerProfile;
use crate::server::{Session, Wait};
use crate::{Error, ErrorKind, Result};

/// A binary log that was just begun is not longer than this: the list of GTIDs is all it has.
const YOUNG_LOG_MAX: u64 = 64 << 20;

/// The position of a node in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GaleraPosition {
    /// `UUID:SEQNO DOMAIN`, and the end of a line.
    pub text: String,
}

/// The binary log that a node which joins goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YoungLog {
    /// Its name.
    pub name: String,
    /// All of it up to the position.
    pub content: Vec<u8>,
}

impl GaleraPosition {
    /// Reads it; `None` when the server is no member of a cluster. Commits must be blocked.
    pub fn read(session: &mut Session, profile: &ServerProfile) -> Result<Option<Self>> {
        let wait = Wait::short("reading the position in the cluster");
        let rows = session.query("SHOW GLOBAL STATUS LIKE 'wsrep%'", wait)?;
        let status = |name: &str| {
            let named = |column: &str| column.eq_ignore_ascii_case(name);
            let row =
                rows.iter().find(|row| row.text("Variable_name").is_some_and(|n| named(&n)))?;
            row.text("Value").map(|text| text.into_owned()).filter(|text| !text.is_empty())
        };
        let (Some(uuid), Some(seqno)) =
            (status("wsrep_local_state_uuid"), status("wsrep_last_committed"))
        else {
            return Ok(None);
        };
        if !profile.wsrep_on {
            return Ok(None);
        }
        let domain = profile.variables.get("wsrep_gtid_domain_id").unwrap_or("0");
        Ok(Some(Self { text: format!("{uuid}:{seqno} {domain}\n") }))
    }
}

impl YoungLog {
    /// Begins another binary log where GTIDs are in use. Commits must be blocked.
    pub fn begin(session: &mut Session, profile: &ServerProfile) -> Result<bool> {
        if !profile.log_bin {
            return Ok(false);
        }
        let wait = Wait::short("beginning another binary log");
        let state = session.value("SELECT @@GLOBAL.gtid_binlog_state", wait)?;
        if state.is_none_or(|state| state.is_empty()) {
            return Ok(false);
        }
        session.execute("FLUSH BINARY LOGS", wait)?;
        Ok(true)
    }

    /// Reads the log that was begun.
    pub fn read(profile: &ServerProfile, position: &ReplicationPosition) -> Result<Option<Self>> {
        let Some(binlog) = &position.binlog else { return Ok(None) };
        let base = profile.variables.get("log_bin_basename").unwrap_or_default();
        let path = profile.datadir.join(base).with_file_name(binlog.file());
        let content = read_start(&path, binlog.offset())?;
        Ok(Some(Self { name: binlog.file().to_owned(), content }))
    }
}

fn read_start(path: &Path, bytes: u64) -> Result<Vec<u8>> {
    if bytes > YOUNG_LOG_MAX {
        let message = format!("{} has {bytes} bytes although it was just begun", path.display());
        return Err(Error::new(ErrorKind::Failed, message).advise("run the backup again"));
    }
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes).read_to_end(&mut content))
        .map_err(|e| Error::io("read", path, e))?;
    if (content.len() as u64) < bytes {
        let message = format!("{} is shorter than its position {bytes}", path.display());
        return Err(Error::new(ErrorKind::Damage, message));
    }
    Ok(content)
}
