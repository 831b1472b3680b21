//! Tables whose rows are not, or not all, in the files of a backup: those of engines that show what
//! is elsewhere. Whoever restores has to know them, so they are named, each with what it needs.
//!
//! The server's own list is asked, behind the locks. On a server with none of these engines nothing
//! is asked: the list of all tables is long. Only columns are asked for that the server answers
//! from definitions; for others it would open the tables, and connect to other servers. What an
//! account cannot see is not in the list, of which the privilege check warns.
//!
//! Connection strings hold passwords, so none is ever shown.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use innodb::space::file_name;

use super::inventory::Inventory;
use crate::metadata::haulout_info::TableNeed;
use crate::server::profile::ServerProfile;
use crate::server::rows::Row;
use crate::server::{Session, Wait};
use crate::table_filter::TableFilter;
use crate::{Error, ErrorKind, Result};

/// Engines whose tables are in a backup with all their rows, or that have no rows to keep.
const AT_HOME: [&str; 10] = [
    "InnoDB",
    "Aria",
    "MyISAM",
    "MRG_MyISAM",
    "CSV",
    "ARCHIVE",
    "MEMORY",
    "BLACKHOLE",
    "SEQUENCE",
    "PERFORMANCE_SCHEMA",
];

/// How long the server may take to list its tables. Nobody waits for it but us.
const LIST_LIMIT: Duration = Duration::from_secs(120);

/// A table that is being changed has no engine for a moment: the list is asked for again, this often.
const LIST_TRIES: u32 = 10;
const LIST_PAUSE: Duration = Duration::from_millis(200);

/// So many tables are named. A server whose tables are mostly elsewhere has them by the ten
/// thousand, and the files of a backup that describe it are small.
const NAMED_MAX: usize = 1000;

/// What a table needs besides the backup.
pub struct Foreign<'a> {
    /// The server.
    pub profile: &'a ServerProfile,
    /// What is in the backup.
    pub inventory: &'a Inventory,
    /// Whether files below a directory of a database are in the backup.
    pub nested: bool,
    /// Whether the rows of MyRocks are in the backup.
    pub rocksdb: bool,
    /// Which tables are in the backup.
    pub wanted: &'a TableFilter,
}

impl Foreign<'_> {
    /// Such tables, by name, and how many more there are.
    pub fn tables(&self, session: &mut Session) -> Result<(Vec<TableNeed>, usize)> {
        let mut known = AT_HOME.to_vec();
        if self.rocksdb {
            known.push("ROCKSDB");
        }
        let known = known.iter().map(|engine| format!("'{engine}'")).collect::<Vec<_>>().join(",");
        let wait = Wait::short("reading the list of engines");
        let engines = session.query(
            &format!(
                "SELECT engine FROM information_schema.engines \
                 WHERE support IN ('YES','DEFAULT') AND engine NOT IN ({known})"
            ),
            wait,
        )?;
        if engines.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let statement = format!(
            "SELECT table_schema, table_name, engine, create_options, table_comment \
             FROM information_schema.tables \
             WHERE (engine NOT IN ({known}) AND table_type <> 'SYSTEM VIEW') \
             OR (engine IS NULL AND table_type = 'BASE TABLE') \
             ORDER BY table_schema, table_name"
        );
        let wait = Wait { deadline: LIST_LIMIT, reason: "listing the tables of other engines" };
        let mut rows = session.query(&statement, wait)?;
        for _ in 1..LIST_TRIES {
            if rows.iter().all(|row| row.bytes("engine").is_some()) {
                break;
            }
            std::thread::sleep(LIST_PAUSE);
            rows = session.query(&statement, wait)?;
        }
        rows.retain(|row| self.is_wanted(row));
        let named = rows.iter().take(NAMED_MAX).filter_map(|row| self.table(row)).collect();
        Ok((named, rows.len().saturating_sub(NAMED_MAX)))
    }

    fn is_wanted(&self, row: &Row) -> bool {
        let file = |column: &str| file_name::encode(&row.text(column)?);
        match (file("table_schema"), file("table_name")) {
            (Some(database), Some(table)) => {
                self.wanted.keeps(format!("{database}/{table}.frm").as_bytes())
            }
            _ => true,
        }
    }

    fn table(&self, row: &Row) -> Option<TableNeed> {
        let text = |column: &str| Some(row.text(column)?.into_owned());
        let (database, table) = (text("table_schema")?, text("table_name")?);
        let Some(engine) = text("engine") else {
            let needs = "the server itself cannot open it: see SHOW TABLE STATUS".to_owned();
            return Some(TableNeed { database, table, engine: "unknown".to_owned(), needs });
        };
        let options = Options(text("create_options").unwrap_or_default());
        let comment = text("table_comment").unwrap_or_default();
        let needs = match engine.to_ascii_uppercase().as_str() {
            "CONNECT" => self.connect(&database, &table, &options),
            "MROONGA" => self.mroonga(&comment),
            "SPIDER" => {
                "its rows are on the servers that it names: the copy has to reach them, by \
                         mysql.servers and the spider tables of the backup, and shares them with \
                         the original"
                    .to_owned()
            }
            "FEDERATED" => {
                "its rows are on the server that it names: the copy has to reach it, and \
                            shares them with the original"
                    .to_owned()
            }
            "OQGRAPH" => match options.get("data_table") {
                Some(base) => format!("it shows {base}, which has the rows"),
                None => "it shows another table, which has the rows".to_owned(),
            },
            "S3" => {
                let bucket = self.profile.variables.get("s3_bucket").unwrap_or_default();
                format!("its rows are in the bucket {bucket}: the copy has to reach it")
            }
            "ROCKSDB" => {
                "its rows are NOT in the backup, MyRocks was left out: on the copy, start \
                          MyRocks with rocksdb_validate_tables=2 and drop the table"
                    .to_owned()
            }
            _ => {
                "not an engine that is known here: what it keeps outside of the data directory is \
                  NOT in the backup"
                    .to_owned()
            }
        };
        Some(TableNeed { database, table, engine, needs })
    }

    /// CONNECT tables show files, other tables, or other servers.
    fn connect(&self, database: &str, table: &str, options: &Options) -> String {
        let kind = options.get("table_type").unwrap_or_default().to_ascii_lowercase();
        let named = options.get("file_name");
        // Without a name, the file that the engine makes itself. It writes names of databases and
        // tables as they are, and so cannot work with those that the server writes otherwise.
        let file = named.clone().unwrap_or_else(|| format!("{table}.{kind}"));
        let file = normal(&self.profile.datadir.join(database).join(file));
        if self.has(&file) {
            return format!("its file {} is in the backup", self.relative(&file).display());
        }
        match named {
            // Of a name that stands for several files, none is found either.
            Some(_) => format!(
                "its file {} is NOT in the backup: put it where the copy's table looks for it",
                file.display()
            ),
            None => shows(&kind),
        }
    }

    /// Whether a file is in the backup.
    fn has(&self, file: &Path) -> bool {
        let others = self.inventory.others.iter().map(|other| &other.file);
        let nested = self.inventory.nested.iter().filter(|_| self.nested);
        others.chain(nested).any(|known| known.source == file)
    }

    fn relative<'p>(&self, file: &'p Path) -> &'p Path {
        file.strip_prefix(&self.profile.datadir).unwrap_or(file)
    }

    fn mroonga(&self, comment: &str) -> String {
        let variable = |name: &str| self.profile.variables.get(name).unwrap_or_default();
        if let Some(place) = mroonga_elsewhere(self.profile) {
            return format!(
                "its files are in {}, outside of the data directory, and NOT in the backup",
                place.display()
            );
        }
        let wraps = comment.to_ascii_lowercase().contains("engine \"")
            || !variable("mroonga_default_wrapper_engine").is_empty();
        match wraps {
            true => "its full-text index was copied while it could be written to, because the \
                     engine of its rows takes no part in the locks for Mroonga: make the index anew \
                     (ALTER TABLE ... DISABLE KEYS, ENABLE KEYS)"
                .to_owned(),
            false => "its files are in the backup, copied while nobody wrote to them".to_owned(),
        }
    }
}

/// Where Mroonga keeps its files, when that is not in the data directory.
pub fn mroonga_elsewhere(profile: &ServerProfile) -> Option<PathBuf> {
    let prefix = profile.variables.get("mroonga_database_path_prefix")?;
    let place = normal(&profile.datadir.join(prefix));
    (!place.starts_with(&profile.datadir)).then_some(place)
}

/// What a CONNECT table is that has no file of its own.
fn shows(kind: &str) -> String {
    match kind {
        "mysql" | "odbc" | "jdbc" | "mongo" => {
            format!("its rows are where its connection leads ({kind}): the copy has to reach that")
        }
        "" => "it has no file in the backup: what it shows is elsewhere".to_owned(),
        _ => format!("it has no file in the backup: what it shows ({kind}) is elsewhere"),
    }
}

/// The path without `.` and `..`, as far as the text tells.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// Options of a table, as the server lists them: `` `name`='value' `` or `` `name`=value ``, names
/// with or without the quotes.
struct Options(String);

impl Options {
    fn get(&self, name: &str) -> Option<String> {
        let mut rest = self.0.as_str();
        while !rest.is_empty() {
            let (found, behind) = rest.split_once('=')?;
            let (value, behind) = match behind.strip_prefix('\'') {
                Some(quoted) => quoted_value(quoted)?,
                None => {
                    let (value, behind) = behind.split_once(' ').unwrap_or((behind, ""));
                    (value.to_owned(), behind)
                }
            };
            // Words without a value stand before names.
            let found = found.rsplit(' ').next().unwrap_or(found).trim_matches('`');
            if found.eq_ignore_ascii_case(name) {
                return Some(value).filter(|value| !value.is_empty());
            }
            rest = behind.trim_start();
        }
        None
    }
}

/// A value up to its closing quote, and what is behind that. A quote in it is doubled.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let (mut value, mut rest) = (String::new(), text);
    loop {
        let (piece, behind) = rest.split_once('\'')?;
        value.push_str(piece);
        match behind.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, behind)),
        }
    }
}

/// An error of the list, which fails no backup.
pub fn not_listed(error: &Error) -> Option<String> {
    (error.kind() != ErrorKind::Interrupted)
        .then(|| format!("tables whose rows are elsewhere are not named: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn options_of_every_server() {
        let options = |text: &str| Options(text.to_owned());
        let old = options("`table_type`=csv `file_name`='/x/a b=c.csv' `header`=1");
        assert_eq!(old.get("TABLE_TYPE").as_deref(), Some("csv"));
        assert_eq!(old.get("file_name").as_deref(), Some("/x/a b=c.csv"));
        assert_eq!(old.get("header").as_deref(), Some("1"));
        assert_eq!(old.get("data_table"), None);
        let new = options("partitioned table_type='it''s' file_name=''");
        assert_eq!(new.get("table_type").as_deref(), Some("it's"));
        assert_eq!(new.get("file_name"), None);
        for nonsense in ["", "=", "a", "a='", "a='b", "a='b''", "` =x"] {
            assert_eq!(options(nonsense).get("file_name"), None, "{nonsense}");
        }
    }

    #[test]
    fn paths_are_made_plain() {
        assert_eq!(normal(Path::new("/d/db/../../etc/./x")), Path::new("/etc/x"));
        assert_eq!(normal(Path::new("/../x")), Path::new("/x"));
    }
}
