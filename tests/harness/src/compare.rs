//! Comparing the tables of two servers.
//!
//! Compared are the list of objects, their definitions, and the rows of every table in every
//! user database. `CHECKSUM TABLE` is not stable across restarts for tables with virtual
//! columns, so those are compared by a sum over their rows instead.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::{Client, Result, Server};

/// Databases that belong to the server.
const SYSTEM: &str = "('mysql','information_schema','performance_schema','sys')";

/// What there is to compare on one server: object name to what is known of it.
#[derive(Debug, Default)]
pub struct Contents {
    /// Databases, tables, views, triggers, sequences: name to definition.
    definitions: BTreeMap<String, String>,
    /// Tables and sequences: name to checksum.
    checksums: BTreeMap<String, String>,
}

impl Contents {
    /// Reads everything. Nobody may write meanwhile.
    pub fn read(client: &mut Client) -> Result<Self> {
        let mut contents = Self::default();
        for row in client.text(&format!(
            "SELECT schema_name, default_collation_name FROM information_schema.schemata \
             WHERE schema_name NOT IN {SYSTEM}"
        ))? {
            contents.definitions.insert(format!("database {}", row[0]), row[1].clone());
        }
        for row in client.text(&format!(
            "SELECT trigger_schema, trigger_name, action_statement FROM \
             information_schema.triggers WHERE trigger_schema NOT IN {SYSTEM}"
        ))? {
            contents.definitions.insert(format!("trigger {}.{}", row[0], row[1]), row[2].clone());
        }
        for table in tables(client)? {
            let name = table.to_string();
            let definition = table.definition(client)?;
            if !table.is_view {
                let checksum = table.checksum(client, &definition)?;
                contents.checksums.insert(name.clone(), checksum);
            }
            contents.definitions.insert(name, definition);
        }
        Ok(contents)
    }

    /// Number of tables whose rows were read.
    pub fn tables(&self) -> usize {
        self.checksums.len()
    }

    /// Names of the tables that both have but whose rows differ.
    pub fn tables_with_other_rows(&self, other: &Self) -> Vec<&str> {
        let differs = |(name, sum): &(&String, &String)| {
            other.checksums.get(*name).is_some_and(|copy| copy != *sum)
        };
        self.checksums.iter().filter(differs).map(|(name, _)| name.as_str()).collect()
    }

    /// What differs, by name; empty when the servers are equal.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = difference("definition", &self.definitions, &other.definitions);
        found.extend(difference("rows", &self.checksums, &other.checksums));
        found
    }
}

/// Says which rows of two tables differ, for a person who looks for the cause.
pub fn explain_rows(source: &mut Client, copy: &mut Client, table: &str) -> Result<String> {
    let rows = |client: &mut Client| -> Result<BTreeMap<String, String>> {
        let columns = client.text(&format!("SHOW COLUMNS FROM {table}"))?;
        let columns: Vec<String> = columns.iter().map(|column| quote(&column[0])).collect();
        let list = columns.join(", ");
        let key = if columns.iter().any(|column| column == "`id`") { "id" } else { "1" };
        let sql =
            format!("SELECT {key}, LEFT(CONCAT_WS('|', {list}), 300) FROM {table} LIMIT 20000");
        Ok(client.text(&sql)?.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect())
    };
    let (left, right) = (rows(source)?, rows(copy)?);
    let mut lines =
        vec![format!("{table}: {} keys in the source, {} in the copy", left.len(), right.len())];
    lines.extend(difference("row", &left, &right).into_iter().take(6));
    Ok(lines.join("\n  "))
}

fn difference(
    what: &str,
    left: &BTreeMap<String, String>,
    right: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in left {
        match right.get(name) {
            None => found.push(format!("{name}: missing in the copy")),
            Some(copy) if copy != value => {
                found.push(format!(
                    "{name}: {what} differ: {value} in the source, {copy} in the copy"
                ));
            }
            Some(_) => {}
        }
    }
    found.extend(
        right
            .keys()
            .filter(|name| !left.contains_key(*name))
            .map(|n| format!("{n}: only in the copy")),
    );
    found
}

/// Runs `CHECK TABLE` on every table and returns what it complains about.
///
/// A server that was started on a copy first rolls back what was open in it. A `CHECK TABLE`
/// that comes too early calls spatial indexes corrupt that are not, and marks them so for
/// good; so this waits for the end of the rollback.
pub fn check_tables(server: &Server) -> Result<Vec<String>> {
    server.wait_for_rollback()?;
    let client = &mut server.client()?;
    let mut complaints = Vec::new();
    for table in tables(client)?.iter().filter(|table| !table.is_view) {
        let rows = client.text(&format!("CHECK TABLE {table}"))?;
        // Warnings say that a table was open when it was copied; that is normal.
        for row in rows.iter().filter(|row| row[2].eq_ignore_ascii_case("error")) {
            complaints.push(format!("CHECK TABLE {table}: {}", row[3]));
        }
        let verdict = rows.iter().rev().find(|row| row[2] == "status");
        if let Some(verdict) = verdict
            && !matches!(verdict[3].as_str(), "OK" | "Table is already up to date")
        {
            complaints.push(format!("CHECK TABLE {table}: {}", verdict[3]));
        }
    }
    Ok(complaints)
}

/// How many tables of each engine there are.
pub fn tables_by_engine(client: &mut Client) -> Result<Vec<(String, String)>> {
    let rows = client.text(&format!(
        "SELECT engine, COUNT(*) FROM information_schema.tables \
         WHERE table_schema NOT IN {SYSTEM} AND engine IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
    ))?;
    Ok(rows.into_iter().map(|mut row| (row.swap_remove(0), row.swap_remove(0))).collect())
}

struct Table {
    database: String,
    name: String,
    is_view: bool,
}

/// Every table, view and sequence of the user databases.
fn tables(client: &mut Client) -> Result<Vec<Table>> {
    let rows = client.text(&format!(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables \
         WHERE table_schema NOT IN {SYSTEM} ORDER BY 1, 2"
    ))?;
    Ok(rows
        .into_iter()
        .map(|mut row| Table {
            is_view: row[2] == "VIEW",
            name: row.swap_remove(1),
            database: row.swap_remove(0),
        })
        .collect())
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", quote(&self.database), quote(&self.name))
    }
}

impl Table {
    /// `SHOW CREATE TABLE` without the counters that may run ahead of the rows.
    fn definition(&self, client: &mut Client) -> Result<String> {
        let rows = client.text(&format!("SHOW CREATE TABLE {self}"))?;
        let text = rows.first().and_then(|row| row.get(1)).cloned().unwrap_or_default();
        Ok(text
            .split(' ')
            .filter(|word| !word.starts_with("AUTO_INCREMENT="))
            .collect::<Vec<_>>()
            .join(" "))
    }

    fn checksum(&self, client: &mut Client, definition: &str) -> Result<String> {
        if !definition.contains(" GENERATED ALWAYS AS ") && !definition.contains(" AS (") {
            let rows = client.text(&format!("CHECKSUM TABLE {self} EXTENDED"))?;
            let sum = rows.first().and_then(|row| row.get(1)).cloned().unwrap_or_default();
            ensure!(sum != "NULL", "CHECKSUM TABLE {self} cannot read the table");
            return Ok(sum);
        }
        let columns = client.text(&format!("SHOW COLUMNS FROM {self}"))?;
        let columns: Vec<String> = columns
            .iter()
            .map(|column| format!("IFNULL(HEX({}), '-')", quote(&column[0])))
            .collect();
        let row = format!("CRC32(CONCAT_WS('/', {}))", columns.join(", "));
        let rows = client
            .text(&format!("SELECT COUNT(*), IFNULL(SUM({row}), 0), BIT_XOR({row}) FROM {self}"))?;
        Ok(rows.first().map(|row| row.join("/")).unwrap_or_default())
    }
}

/// An identifier in backquotes.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
