//! Single tables out of a repository, in words.

use std::path::Path;

use engine::repo::tables::{ChosenTable, TablesPlan, TablesSummary};

use super::{counted, quoted};
use crate::duration::show_seconds;
use crate::size::Size;

/// How many tables are named; `--json` names all.
const NAMED_MAX: usize = 20;

/// What would be fetched.
pub fn describe_tables_plan(plan: &TablesPlan) -> Vec<String> {
    let ended = plan.ended.strftime("%F %TZ");
    let mut words =
        vec![format!("Backup {} of {}, which ended at {ended}.", plan.name, plan.server)];
    words.extend(named(&plan.tables));
    words.push(format!(
        "To fetch: {}, of which {} for the tables and {} for redo; about {} at 100 MB/s.",
        Size(plan.stored_bytes),
        Size(plan.table_stored_bytes),
        Size(plan.redo_stored_bytes),
        show_seconds(plan.estimated_seconds),
    ));
    words.push(format!(
        "To unpack: {}. Redo to read: {}.",
        Size(plan.bytes),
        Size(plan.redo_bytes)
    ));
    words
}

/// What was made.
pub fn describe_tables(summary: &TablesSummary, dir: &Path) -> Vec<String> {
    let mut words = vec![format!(
        "Restored {} of {} in {}: {} fetched, {} written.",
        counted(summary.tables.len() as u64, "table or partition", "tables and partitions"),
        summary.name,
        show_seconds(summary.seconds),
        Size(summary.fetched_bytes),
        Size(summary.bytes),
    )];
    words.extend(named(&summary.tables));
    words.extend(
        summary.end_lsn.map(|lsn| format!("The tablespaces equal the server at LSN {lsn}.")),
    );
    words.extend(summary.gtid.as_ref().map(|gtid| format!("GTID position: {gtid}.")));
    words.push(format!("Next, import them: {}.", quoted(&dir.join("import.sql"))));
    words
}

fn named(tables: &[ChosenTable]) -> Vec<String> {
    let mut words: Vec<String> = tables
        .iter()
        .take(NAMED_MAX)
        .map(|table| {
            let mut name = format!("{}.{}", table.database, table.table);
            let parts = [&table.partition, &table.subpartition];
            for part in parts.into_iter().flatten() {
                name.push_str(&format!(" / {part}"));
            }
            format!("  {name}: {}", Size(table.bytes))
        })
        .collect();
    let more = tables.len().saturating_sub(NAMED_MAX) as u64;
    if more > 0 {
        words.push(format!("  and {} more", counted(more, "table", "tables")));
    }
    words
}
