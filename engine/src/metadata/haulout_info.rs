//! `haulout_info.json`: what the stock files have no room for, for programs.
//!
//! Other tools ignore this file, and no backup depends on it to be prepared or restored.

use std::path::Path;

use super::names::HAULOUT_INFO;
use super::{damaged, read_text};
use crate::Result;
use crate::server::position::ReplicationPosition;
use crate::server::profile::ServerProfile;
use crate::server::stages::StageTimes;

/// Shape of the document. Readers accept this version and refuse later ones.
const FORMAT: u32 = 1;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HauloutInfo {
    /// Version of the document's shape.
    pub format: u32,
    /// Version of the tool.
    pub tool_version: String,
    /// The server that was backed up.
    pub server: ServerIdentity,
    /// Where the redo log was.
    pub lsn: LsnRange,
    /// Where replication was; none when the binary log was off and no transaction has a GTID.
    pub replication: Option<Replication>,
    /// What the locks cost.
    pub locks: LockSeconds,
    /// Bytes read from tablespaces and other files.
    pub bytes: u64,
    /// Bytes of redo copied.
    pub redo_bytes: u64,
    /// Pages read again because they were torn.
    pub torn_pages: u64,
    /// Pages that stayed corrupt.
    pub corrupt_pages: u64,
    /// Tables that need more than the backup.
    #[serde(default)]
    pub tables: Vec<TableNeed>,
    /// Of a partial backup: which tables it has, see
    /// [`TableFilter::describe`](crate::table_filter::TableFilter::describe).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
}

/// A table whose rows are not, or not all, in the backup's files, or need care.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TableNeed {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// Its engine.
    pub engine: String,
    /// Where its rows are and what restoring needs.
    pub needs: String,
}

/// Which server it was.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServerIdentity {
    /// `VERSION()`.
    pub version: String,
    /// `hostname`.
    pub hostname: String,
    /// `port`.
    pub port: u16,
    /// `server_id`.
    pub server_id: u32,
    /// `datadir`.
    pub datadir: String,
    /// `server_uid`, where the server has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// Where the redo log was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LsnRange {
    /// Checkpoint at which the copied redo log starts.
    pub start: u64,
    /// Newest checkpoint at the end.
    pub checkpoint: u64,
    /// End of the copied redo log.
    pub end: u64,
    /// Of a delta: the checkpoint at which its base ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Of a delta: pages newer than this are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages_since: Option<u64>,
}

/// Where replication was, complete.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Replication {
    /// Binary log file.
    pub file: Option<String>,
    /// Position in it.
    pub position: Option<u64>,
    /// Position of the data, every domain.
    pub gtid: String,
    /// `gtid_binlog_state`.
    pub binlog_state: String,
    /// `gtid_binlog_pos`.
    pub binlog_pos: String,
    /// `gtid_slave_pos`.
    pub slave_pos: String,
    /// `gtid_current_pos`.
    pub current_pos: String,
}

/// What the locks cost, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LockSeconds {
    /// Waited for all stages together.
    pub waited: f64,
    /// DDL was blocked.
    pub ddl_blocked: f64,
    /// Commits were blocked.
    pub commit_blocked: f64,
    /// While new writes to tables without transactions were blocked.
    #[serde(default)]
    pub writes_blocked: f64,
}

impl ServerIdentity {
    /// What tells it from other servers: host and data directory.
    pub fn origin(&self) -> String {
        format!("{}:{}", self.hostname, self.datadir)
    }
}

impl From<&ServerProfile> for ServerIdentity {
    fn from(profile: &ServerProfile) -> Self {
        Self {
            version: profile.version_text.clone(),
            hostname: profile.hostname.clone(),
            port: profile.port,
            server_id: profile.server_id,
            datadir: profile.datadir.display().to_string(),
            uid: profile.variables.get("server_uid").map(str::to_owned),
        }
    }
}

impl From<&ReplicationPosition> for Replication {
    fn from(position: &ReplicationPosition) -> Self {
        Self {
            file: position.binlog.as_ref().map(|binlog| binlog.file().to_owned()),
            position: position.binlog.as_ref().map(binlog::BinlogPosition::offset),
            gtid: position.gtid.to_string(),
            binlog_state: position.binlog_state.to_string(),
            binlog_pos: position.binlog_pos.to_string(),
            slave_pos: position.slave_pos.to_string(),
            current_pos: position.current_pos.to_string(),
        }
    }
}

impl From<&StageTimes> for LockSeconds {
    fn from(times: &StageTimes) -> Self {
        let waited =
            times.start_wait + times.flush_wait + times.block_ddl_wait + times.block_commit_wait;
        Self {
            waited: waited.as_secs_f64(),
            ddl_blocked: times.ddl_blocked.as_secs_f64(),
            commit_blocked: times.commit_blocked.as_secs_f64(),
            writes_blocked: times.writes_blocked.as_secs_f64(),
        }
    }
}

impl HauloutInfo {
    /// The document of a backup of this server, with nothing counted yet.
    pub fn new(profile: &ServerProfile, lsn: LsnRange) -> Self {
        Self {
            format: FORMAT,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            server: profile.into(),
            lsn,
            replication: None,
            locks: LockSeconds::default(),
            bytes: 0,
            redo_bytes: 0,
            torn_pages: 0,
            corrupt_pages: 0,
            tables: Vec::new(),
            partial: None,
        }
    }

    /// The bytes of the file.
    pub fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|cause| {
            crate::Error::new(crate::ErrorKind::Failed, format!("cannot write {HAULOUT_INFO}"))
                .caused_by(cause)
        })?;
        Ok(text + "\n")
    }

    /// Reads the file of a backup; `None` when another tool made it.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(HAULOUT_INFO);
        let Some(text) = read_text(&path)? else { return Ok(None) };
        let info: Self = serde_json::from_str(&text).map_err(|why| damaged(&path, why))?;
        if info.format > FORMAT {
            let why = format!("its format {} is newer than this program knows", info.format);
            return Err(damaged(&path, why));
        }
        Ok(Some(info))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn example() -> HauloutInfo {
        HauloutInfo {
            format: FORMAT,
            tool_version: "0.1.0".into(),
            server: ServerIdentity {
                version: "10.11.19-MariaDB".into(),
                hostname: "db1".into(),
                port: 3306,
                server_id: 7,
                datadir: "/var/lib/mysql".into(),
                uid: Some("x".into()),
            },
            lsn: LsnRange {
                start: 1,
                checkpoint: 2,
                end: u64::MAX,
                from: Some(3),
                pages_since: None,
            },
            replication: Some(Replication::from(&ReplicationPosition::default())),
            locks: LockSeconds {
                waited: 0.25,
                ddl_blocked: 0.5,
                commit_blocked: 0.125,
                writes_blocked: 0.75,
            },
            bytes: 4,
            redo_bytes: 5,
            torn_pages: 6,
            corrupt_pages: 0,
            tables: vec![TableNeed {
                database: "d".into(),
                table: "t".into(),
                engine: "SPIDER".into(),
                needs: "its rows are elsewhere".into(),
            }],
            partial: Some("only d".into()),
        }
    }

    #[test]
    fn document_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(HauloutInfo::read(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join(HAULOUT_INFO), example().to_text().unwrap()).unwrap();
        assert_eq!(HauloutInfo::read(dir.path()).unwrap(), Some(example()));
    }

    #[test]
    fn later_formats_and_nonsense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let later = HauloutInfo { format: FORMAT + 1, ..example() };
        for text in [later.to_text().unwrap(), "{}".to_owned(), "[".repeat(100_000)] {
            std::fs::write(dir.path().join(HAULOUT_INFO), text).unwrap();
            assert!(HauloutInfo::read(dir.path()).is_err());
        }
    }
}
