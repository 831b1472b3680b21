//! The stock tool's table of backups on the server itself: which there were, and where they end.
//!
//! | servers | table |
//! |---|---|
//! | up to 10.7 | `PERCONA_SCHEMA.xtrabackup_history` |
//! | later | `mysql.mariadb_backup_history` |
//!
//! The row of a backup is written when its locks are released, so it is never in the backup itself.

use innodb::Lsn;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::metadata::BackupInfo;
use crate::server::profile::{Generation, ServerProfile};
use crate::server::{Session, Wait};
use crate::{Error, ErrorKind, Result};

/// The columns, as the stock tool makes them.
const COLUMNS: &str = "uuid VARCHAR(40) NOT NULL PRIMARY KEY, \
    name VARCHAR(255) DEFAULT NULL, \
    tool_name VARCHAR(255) DEFAULT NULL, \
    tool_command TEXT DEFAULT NULL, \
    tool_version VARCHAR(255) DEFAULT NULL, \
    ibbackup_version VARCHAR(255) DEFAULT NULL, \
    server_version VARCHAR(255) DEFAULT NULL, \
    start_time TIMESTAMP NULL DEFAULT NULL, \
    end_time TIMESTAMP NULL DEFAULT NULL, \
    lock_time BIGINT UNSIGNED DEFAULT NULL, \
    binlog_pos VARCHAR(128) DEFAULT NULL, \
    innodb_from_lsn BIGINT UNSIGNED DEFAULT NULL, \
    innodb_to_lsn BIGINT UNSIGNED DEFAULT NULL, \
    partial ENUM('Y', 'N') DEFAULT NULL, \
    incremental ENUM('Y', 'N') DEFAULT NULL, \
    format ENUM('file', 'tar', 'STREAM') DEFAULT NULL, \
    compressed ENUM('Y', 'N') DEFAULT NULL";

/// A backup that the table knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryKey {
    /// The one that ends last of those with this name.
    Name(String),
    /// The one with this UUID.
    Uuid(String),
}

/// The table of a server.
struct Table {
    name: &'static str,
    /// What a stream is called in it.
    stream: &'static str,
    /// A database that is made with it.
    database: Option<&'static str>,
}

impl Table {
    fn of(profile: &ServerProfile) -> Self {
        match profile.version.generation() {
            Generation::V10_5 | Generation::V10_6 => Self {
                name: "PERCONA_SCHEMA.xtrabackup_history",
                stream: "xbstream",
                database: Some("PERCONA_SCHEMA"),
            },
            Generation::V10_8 => {
                Self { name: "mysql.mariadb_backup_history", stream: "mbstream", database: None }
            }
        }
    }
}

/// Where a backup that the table knows ends.
pub fn end_of(session: &mut Session, profile: &ServerProfile, key: &HistoryKey) -> Result<Lsn> {
    let table = Table::of(profile).name;
    let (column, value) = match key {
        HistoryKey::Name(name) => ("name", name),
        HistoryKey::Uuid(uuid) => ("uuid", uuid),
    };
    let statement = format!(
        "SELECT innodb_to_lsn FROM {table} WHERE {column} = {} AND innodb_to_lsn IS NOT NULL \
         ORDER BY innodb_to_lsn DESC LIMIT 1",
        text(value)
    );
    let unknown = || {
        let message = format!("Error while attempting to find history record for {column} {value}");
        Error::new(ErrorKind::Usage, message)
            .advise(format!("{table} knows the backups that were taken with --history"))
    };
    quote_plainly(session)?;
    let found = session.value(&statement, Wait::short("reading the history of backups"));
    let found = found.map_err(|cause| unknown().caused_by(cause))?;
    found.and_then(|lsn| lsn.parse().ok()).map(Lsn).ok_or_else(unknown)
}

/// Makes the table when it is not there: before anything is copied, so that a missing privilege does
/// not show at the end.
pub fn make_table(session: &mut Session, profile: &ServerProfile) -> Result<()> {
    let table = Table::of(profile);
    let wait = Wait::short("making the table of backups");
    if let Some(database) = table.database {
        session.execute(&format!("CREATE DATABASE IF NOT EXISTS {database}"), wait)?;
    } else {
        // Earlier versions knew streams by another word.
        let format = format!("format ENUM('file', 'tar', '{}') DEFAULT NULL", table.stream);
        let statement = format!("ALTER TABLE IF EXISTS {} MODIFY {format}", table.name);
        session.execute(&statement, wait)?;
    }
    let columns = COLUMNS.replace("STREAM", table.stream);
    let statement = format!(
        "CREATE TABLE IF NOT EXISTS {} ({columns}) CHARACTER SET utf8 ENGINE=InnoDB",
        table.name
    );
    session.execute(&statement, wait)
}

/// Adds a finished backup.
pub fn add(session: &mut Session, profile: &ServerProfile, info: &BackupInfo) -> Result<()> {
    quote_plainly(session)?;
    let statement = insertion(&Table::of(profile), info);
    session.execute(&statement, Wait::short("writing the history of backups"))
}

fn insertion(table: &Table, info: &BackupInfo) -> String {
    let moment = |time: Option<DateTime>| {
        let zoned = time.and_then(|time| time.to_zoned(TimeZone::system()).ok());
        zoned.map_or("NULL".to_owned(), |zoned| {
            format!("FROM_UNIXTIME({})", zoned.timestamp().as_second())
        })
    };
    let yes_no = |flag: bool| if flag { "'Y'" } else { "'N'" }.to_owned();
    let values = [
        text(&info.uuid),
        text(&info.name),
        text(&info.tool_name),
        text(&info.tool_command),
        text(&info.tool_version),
        text(&info.tool_version),
        text(&info.server_version),
        moment(info.start_time),
        moment(info.end_time),
        info.lock_time.to_string(),
        text(&info.binlog_pos),
        info.innodb_from_lsn.to_string(),
        info.innodb_to_lsn.to_string(),
        yes_no(info.partial),
        yes_no(info.incremental),
        text(if info.stream { table.stream } else { "file" }),
        yes_no(info.compressed),
    ];
    format!(
        "INSERT INTO {} (uuid, name, tool_name, tool_command, tool_version, ibbackup_version, \
         server_version, start_time, end_time, lock_time, binlog_pos, innodb_from_lsn, \
         innodb_to_lsn, partial, incremental, format, compressed) VALUES ({})",
        table.name,
        values.join(", ")
    )
}

/// What a text means depends on the mode of SQL; a text that is too long is cut.
fn quote_plainly(session: &mut Session) -> Result<()> {
    session.execute("SET SESSION sql_mode=''", Wait::short("setting the mode of SQL"))
}

/// A text in SQL with an empty `sql_mode`.
fn text(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for character in value.chars() {
        match character {
            '\0' => quoted.push_str("\\0"),
            '\'' | '\\' => quoted.extend(['\\', character]),
            _ => quoted.push(character),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_where_they_should() {
        assert_eq!(text("a'b\\'\0"), r"'a\'b\\\'\0'");
        let table = Table { name: "h", stream: "mbstream", database: None };
        let info = BackupInfo { name: "x'); DROP".into(), stream: true, ..Default::default() };
        let statement = insertion(&table, &info);
        assert!(statement.contains(r"'x\'); DROP'") && statement.contains("'mbstream'"));
        assert!(statement.contains("NULL, NULL, 0,"), "{statement}");
    }
}
