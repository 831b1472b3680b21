//! Exporting the tables of a prepared backup: a `.cfg` beside every `.ibd`, so that a running
//! server can take single tables over with `ALTER TABLE … IMPORT TABLESPACE`.
//!
//! No server is started. What an import needs comes from the data dictionary in the system
//! tablespace; what it must not see is looked for:
//!
//! - What a transaction did that was open when the backup was made is rolled back by the first server
//!   that starts on the copy. An import knows no transactions and would publish its rows. So it is
//!   rolled back here, in the tables that it changed. A table where that cannot be done is refused, by
//!   name; so is one that a prepared transaction changed, which may still be committed.
//! - The change buffer of servers before 11.0 holds back changes of secondary indexes. A server
//!   merges them when it reads the page; an import cannot. A table with such changes is refused.
//! - Rows that ended transactions have deleted need no care: the import removes them. Only in
//!   SPATIAL indexes and after an instant ALTER TABLE it fails or goes wrong; such a table is
//!   refused while there are any.
//!
//! Invariants:
//! - A refused table has no `.cfg`, and the run fails, after the other tables were exported.
//! - Nothing is written but `.cfg` files and pages that are rolled back, and no `.cfg` of an earlier run
//!   stays. Exporting can be repeated, and a server can be started on the backup all the same.
//!
//! | module | what |
//! |---|---|
//! | [`pages`] | pages of tablespaces, checked |
//! | [`leaves`] | the leaves of a tablespace's indexes |
//! | [`rollback`] | rolls back what open transactions did to a table |
//! | [`write`](mod@write) | changed pages, so that a kill tears none |
//! | [`buffered`] | changes that the change buffer holds back |
//! | [`deleted`] | deleted entries that an import would trip over |
//! | [`frm`] | whether a table has AUTO_INCREMENT: only its `.frm` tells |

mod buffered;
mod deleted;
mod frm;
mod leaves;
mod pages;
mod rollback;
mod write;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use innodb::cfg::{self, CfgError, Circumstances};
use innodb::dictionary::layout::OWN_TABLES;
use innodb::dictionary::{Dictionary, Table};
use innodb::tree::{IndexPage, Pages, StructureError};
use innodb::undo::fate::Fates;
use innodb::undo::open_transactions;
use innodb::{PageId, PageSize, SpaceId};

use crate::prepare::inventory::{DataFile, Tablespace};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};
use pages::Files;
use rollback::Rollback;

/// Tables that every server keeps for itself; nobody imports them. They are exported all the
/// same, but when they cannot be, that is no failure.
const STATISTICS: [&[u8]; 2] = [b"mysql/innodb_table_stats", b"mysql/innodb_index_stats"];

/// How many refused tables an error names.
const NAMED_MAX: usize = 20;

/// What was exported.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ExportSummary {
    /// Tables and partitions that got a `.cfg`.
    pub tables: u64,
    /// Rows that transactions had changed which were open when the backup was made, and that are as they
    /// were before.
    pub rows_rolled_back: u64,
}

/// Writes a `.cfg` for every table of `spaces`, the tablespaces of the prepared backup in `dir`.
pub(crate) fn export(
    dir: &Path,
    spaces: &HashMap<SpaceId, Tablespace>,
    page_size: PageSize,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<ExportSummary> {
    remove_earlier(spaces)?;
    let files = Files::new(spaces);
    let open = open_transactions(&files).map_err(|e| e.context("looking for open transactions"))?;
    let dictionary =
        Dictionary::read(&files).map_err(|e| e.context("reading the data dictionary"))?;
    if let Some(transaction) =
        open.iter().find(|t| t.tables.iter().any(|table| OWN_TABLES.contains(table)))
    {
        return Err(Error::new(
            ErrorKind::Failed,
            format!(
                "transaction {} was changing the data dictionary when the backup was made; until \
                 that is rolled back, no table can be exported",
                transaction.id
            ),
        )
        .advise(ADVICE));
    }

    let ids: BTreeSet<_> = open.iter().map(|transaction| transaction.id).collect();
    let undo = rollback::collect(&files, &dictionary, &open)?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut summary = ExportSummary::default();
    let mut refused = Vec::new();
    let mut exported = HashSet::new();
    for table in dictionary.tables.values().filter(|table| is_user_table(&table.name)) {
        cancel.check()?;
        let Some(file) = spaces.get(&table.space).and_then(|space| space.files.first()) else {
            // Discarded, or left out of the backup.
            continue;
        };
        if table.space == SpaceId::SYSTEM {
            let name = table.display_name();
            reporter.warn(format!("{name} is in the system tablespace and cannot be exported"));
            continue;
        }
        exported.insert(table.space);
        let undo = undo.get(&table.id);
        let one =
            Export { dir, table, file, spaces, files: &files, undo, open: &ids, page_size, cancel };
        let reason = match one.content(&host) {
            Ok(Ok((bytes, rows))) => {
                write_file(&file.path.with_extension("cfg"), &bytes)?;
                summary.tables += 1;
                summary.rows_rolled_back += rows;
                if rows > 0 {
                    let name = table.display_name();
                    reporter.info(format!("{name}: {rows} rows of open transactions rolled back"));
                    if spaces.get(&table.space).is_some_and(Tablespace::has_holes) {
                        reporter.warn(format!(
                            "{name} is page-compressed: its import into a server after 10.5 may not \
                             come to an end, because there are deleted rows to remove"
                        ));
                    }
                }
                continue;
            }
            Ok(Err(reason)) => reason,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            // A table that cannot be read must not keep the others from being exported.
            Err(error) => error.to_string(),
        };
        let name = table.display_name();
        reporter.warn(format!("{name} is not exported: {reason}"));
        if !STATISTICS.contains(&&*table.name) {
            refused.push(format!("{name}: {reason}"));
        }
    }
    for (id, space) in spaces {
        if let Some(file) = space.files.first().filter(|file| is_orphan(file, *id, &exported)) {
            reporter.warn(format!("{} is in no table of the data dictionary", file.name));
        }
    }
    // There can be many files: one wait for the disk is enough.
    File::open(dir)
        .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
        .map_err(|error| Error::io("make durable the .cfg files in", dir, error))?;
    if refused.is_empty() {
        return Ok(summary);
    }
    let (count, more) = (refused.len(), refused.len().saturating_sub(NAMED_MAX));
    refused.truncate(NAMED_MAX);
    if more > 0 {
        refused.push(format!("and {more} more, see the warnings"));
    }
    Err(Error::new(
        ErrorKind::Failed,
        format!(
            "the backup is prepared and {} tables are exported, but {count} could not be: {}",
            summary.tables,
            refused.join("; ")
        ),
    )
    .advise(ADVICE))
}

/// Removes the `.cfg` files of an earlier run.
fn remove_earlier(spaces: &HashMap<SpaceId, Tablespace>) -> Result<()> {
    for file in spaces.values().flat_map(|space| &space.files) {
        let path = file.path.with_extension("cfg");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What to do about a table that cannot be exported.
const ADVICE: &str = "do not import the .ibd files of these tables; restore the backup, start a \
                      server on it, and copy them with FLUSH TABLES … FOR EXPORT";

/// One table, and what its export depends on.
struct Export<'a> {
    dir: &'a Path,
    table: &'a Table,
    file: &'a DataFile,
    spaces: &'a HashMap<SpaceId, Tablespace>,
    files: &'a Files<'a>,
    undo: Option<&'a Result<Fates, String>>,
    open: &'a BTreeSet<u64>,
    page_size: PageSize,
    cancel: &'a Cancel,
}

impl Export<'_> {
    /// The bytes of the table's `.cfg` and how many rows were rolled back, or why it must not have one.
    fn content(&self, host: &str) -> Result<Result<(Vec<u8>, u64), String>> {
        if let Some(reason) = self.unfit() {
            return Ok(Err(reason));
        }
        let table = self.table;
        let clustered = table.indexes.first().filter(|index| index.is_clustered());
        let clustered = clustered
            .ok_or_else(|| CfgError::Dictionary("the table has no clustered index".to_owned()))?;
        let id = PageId { space: table.space, page: clustered.root };
        let bytes = self.files.page(id)?;
        let root = IndexPage::new(id, &bytes)?;
        if root.index_id() != clustered.id {
            let what = "it is the root of another index than the data dictionary says";
            return Err(StructureError { page: id, what }.into());
        }
        let rows = match self.finish(&root)? {
            Ok(rows) => rows,
            Err(reason) => return Ok(Err(reason)),
        };
        let field_map = cfg::instant::field_map(self.files, table, &root)?;
        let last = root.last_auto_increment();
        // The root of a table that never gave out a value does not tell whether it could.
        let counts = last > 0 || frm::has_auto_increment(&self.file.path)?;
        let circumstances = Circumstances {
            host,
            page_size: self.page_size,
            next_auto_increment: if counts { last.saturating_add(1) } else { 0 },
            field_map: field_map.as_ref(),
        };
        Ok(Ok((cfg::write(table, circumstances)?, rows)))
    }

    /// Why the table must not be exported, as far as that is known without its pages.
    fn unfit(&self) -> Option<String> {
        let path = self.file.name.strip_suffix(".ibd").unwrap_or(&self.file.name);
        let named = path.as_bytes() == &*self.table.name;
        (!named).then(|| format!("its file is {}", self.file.name))
    }

    /// Does in the table's pages what an import would not do, or tells why that cannot be done. Returns
    /// how many rows were rolled back.
    fn finish(&self, root: &IndexPage<'_>) -> Result<Result<u64, String>> {
        let Self { table, files, open, cancel, .. } = *self;
        let Some(space) = self.spaces.get(&table.space) else { return Ok(Ok(0)) };
        if let Some(page) = buffered::first(space, files)? {
            return Ok(Err(format!("the change buffer holds changes of its page {page}")));
        }
        let instant = root.is_instant_root();
        let rows = match self.undo {
            None => 0,
            Some(Err(reason)) => return Ok(Err(reason.clone())),
            Some(Ok(fates)) => {
                let rollback = Rollback { table, space, files, fates, open, cancel };
                match rollback.run(self.dir, instant)? {
                    Ok(rows) => rows,
                    Err(reason) => return Ok(Err(reason)),
                }
            }
        };
        let index = deleted::first_index(table, instant, space, files, cancel)?;
        Ok(index.map_or(Ok(rows), |index| {
            Err(format!(
                "entries of index {index} were deleted but not purged when the backup was made, \
                 and an import {}",
                match instant {
                    true => "would take that for corruption, after an instant ALTER TABLE",
                    false => "cannot purge a SPATIAL index",
                }
            ))
        }))
    }
}

/// Whether a table of the dictionary is one that SQL knows: in a database, no intermediate of
/// ALTER TABLE, and no part of a FULLTEXT index.
fn is_user_table(name: &[u8]) -> bool {
    let Some(slash) = name.iter().position(|byte| *byte == b'/') else { return false };
    let table = name.get(slash + 1..).unwrap_or_default();
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase();
    let is_auxiliary = table.strip_prefix(b"FTS_").is_some_and(|rest| {
        rest.get(..16).is_some_and(|id| id.iter().all(is_hex)) && rest.get(16) == Some(&b'_')
    });
    !table.starts_with(b"#sql") && !is_auxiliary
}

/// Whether a file of one table belongs to none.
fn is_orphan(file: &DataFile, id: SpaceId, exported: &HashSet<SpaceId>) -> bool {
    file.name.strip_suffix(".ibd").is_some_and(|path| is_user_table(path.as_bytes()))
        && !exported.contains(&id)
}

/// Writes a file, readable by whom a backup is readable.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o660);
    options
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Error::io("write", path, error))
}

impl From<StructureError> for Error {
    fn from(cause: StructureError) -> Self {
        Self::new(ErrorKind::Damage, "a page makes no sense").caused_by(cause)
    }
}

impl From<CfgError> for Error {
    fn from(cause: CfgError) -> Self {
        Self::new(ErrorKind::Damage, "the table has no usable definition").caused_by(cause)
    }
}

/// First page behind the last one of a tablespace's files.
fn page_count(space: &Tablespace) -> u32 {
    space.files.last().map_or(0, |file| {
        let pages = file.bytes / space.flags.physical_size().bytes() as u64;
        file.first_page.0.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_sql_and_others() {
        for name in ["d/t", "d/FTS_x", "d/FTS_000000000000001G_CONFIG", "mysql/gtid_slave_pos"] {
            assert!(is_user_table(name.as_bytes()), "{name}");
        }
        for name in [
            "SYS_FOREIGN",
            "d/#sql-ib35",
            "d/#sql-alter-1-2",
            "d/FTS_0000000000000019_CONFIG",
            "d/FTS_0000000000000019_000000000000002f_INDEX_1",
        ] {
            assert!(!is_user_table(name.as_bytes()), "{name}");
        }
    }
}
