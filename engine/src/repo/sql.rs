//! What somebody types to bring exported tables into a server.

use std::fmt::Write as _;
use std::path::Path;

use innodb::space::file_name::encode;

use super::tables::ChosenTable;

/// The file that has it, beside the folders of the databases.
pub const FILE: &str = "import.sql";
/// Stands in for one partition at a time.
const HELPER: &str = "haulout_import";

/// The statements for tables whose files are below `dir`.
pub(super) fn import(tables: &[ChosenTable], dir: &Path) -> String {
    let spaces = |table: &&ChosenTable| table.files.iter().any(|file| file.ends_with(".cfg"));
    let (whole, parts): (Vec<_>, Vec<_>) =
        tables.iter().filter(spaces).partition(|table| table.partition.is_none());
    let dir = dir.display();
    let mut sql = String::new();
    let mut say = |line: String| {
        let _ = writeln!(sql, "{line}");
    };
    if !whole.is_empty() || !parts.is_empty() {
        say("-- First create each table as SHOW CREATE TABLE said at the source.".into());
        say("-- Files that are copied belong to the user of the server.".into());
        say("SET SESSION foreign_key_checks = 0;".into());
    }
    for table in &whole {
        say(format!("ALTER TABLE {} DISCARD TABLESPACE;", name(table)));
    }
    for table in &whole {
        if let Some(path) = tablespace(table) {
            copy(&format!("{dir}/{path}"), &database(table), "").into_iter().for_each(&mut say);
        }
    }
    for table in &whole {
        say(format!("ALTER TABLE {} IMPORT TABLESPACE;", name(table)));
    }
    for table in &parts {
        let helper = format!("{}.{}", quoted(&table.database), quoted(HELPER));
        let part = table.subpartition.as_ref().or(table.partition.as_ref());
        let part = quoted(part.map_or("", |part| part));
        say(format!("CREATE TABLE {helper} LIKE {};", name(table)));
        say(format!("ALTER TABLE {helper} REMOVE PARTITIONING;"));
        say(format!("ALTER TABLE {helper} DISCARD TABLESPACE;"));
        if let Some(path) = tablespace(table) {
            copy(&format!("{dir}/{path}"), &database(table), HELPER).into_iter().for_each(&mut say);
        }
        say(format!("ALTER TABLE {helper} IMPORT TABLESPACE;"));
        say(format!("ALTER TABLE {} EXCHANGE PARTITION {part} WITH TABLE {helper};", name(table)));
        say(format!("DROP TABLE {helper};"));
    }
    for table in tables {
        let data = |file: &&String| !file.ends_with(".ibd") && !file.ends_with(".cfg");
        let files: Vec<&str> = table.files.iter().filter(data).map(String::as_str).collect();
        let others = files.iter().any(|file| !file.ends_with(".frm") && !file.ends_with(".par"));
        if others && !spaces(&table) {
            say(format!("-- {} is not of InnoDB. Where there is no such table:", name(table)));
            for file in &files {
                say(format!("-- cp '{dir}/{file}' DATADIR/{}/", database(table)));
            }
            // A table of Aria knows the server that it was made by.
            let aria = files.iter().any(|file| file.ends_with(".MAI"));
            say(format!("{} TABLE {};", if aria { "REPAIR" } else { "CHECK" }, name(table)));
        }
    }
    sql
}

/// The comments that tell which files to copy where, in between.
fn copy(source: &str, database: &str, as_table: &str) -> [String; 2] {
    ["ibd", "cfg"].map(|extension| {
        let target = match as_table {
            "" => String::new(),
            table => format!("{table}.{extension}"),
        };
        format!("-- cp '{source}.{extension}' DATADIR/{database}/{target}")
    })
}

/// The path of a tablespace without its extension.
fn tablespace(table: &ChosenTable) -> Option<&str> {
    table.files.iter().find_map(|file| file.strip_suffix(".cfg"))
}

fn database(table: &ChosenTable) -> String {
    encode(&table.database).unwrap_or_else(|| table.database.clone())
}

fn name(table: &ChosenTable) -> String {
    format!("{}.{}", quoted(&table.database), quoted(&table.table))
}

fn quoted(word: &str) -> String {
    format!("`{}`", word.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, partition: Option<&str>, files: &[&str]) -> ChosenTable {
        ChosenTable {
            database: "my-db".to_owned(),
            table: name.to_owned(),
            partition: partition.map(str::to_owned),
            subpartition: None,
            bytes: 0,
            files: files.iter().map(|file| (*file).to_owned()).collect(),
        }
    }

    #[test]
    fn statements_for_each_kind_of_table() {
        let tables = [
            table("a`b", None, &["my@002ddb/a@0060b.ibd", "my@002ddb/a@0060b.cfg"]),
            table("p", Some("p 0"), &["my@002ddb/p#P#p@00200.ibd", "my@002ddb/p#P#p@00200.cfg"]),
            table("m", None, &["my@002ddb/m.MYI", "my@002ddb/m.frm"]),
        ];
        let sql = import(&tables, Path::new("/out"));
        for line in [
            "ALTER TABLE `my-db`.`a``b` DISCARD TABLESPACE;",
            "ALTER TABLE `my-db`.`a``b` IMPORT TABLESPACE;",
            "ALTER TABLE `my-db`.`p` EXCHANGE PARTITION `p 0` WITH TABLE `my-db`.`haulout_import`;",
            "cp '/out/my@002ddb/p#P#p@00200.cfg' DATADIR/my@002ddb/haulout_import.cfg",
            "-- cp '/out/my@002ddb/m.MYI' DATADIR/my@002ddb/",
            "CHECK TABLE `my-db`.`m`;",
        ] {
            assert!(sql.contains(line), "{line}\n{sql}");
        }
    }
}
