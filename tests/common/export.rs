//! Exporting tables, and taking them over.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use harness::compare::quote;
use harness::process::{self, Finished};
use harness::tool::BackupOptions;
use harness::{Client, Result, Server, Tool};

/// Backs up, with the reason of a failure in words.
pub fn back_up(source: &Server, dir: &Path) -> Result<Finished> {
    process::run(super::haulout().backup(source, dir, &BackupOptions::default()))?.success()
}

/// Prepares and exports.
pub fn export(tool: &Tool, dir: &Path) -> Result<Finished> {
    let mut command = tool.prepare(dir, 256 << 20);
    command.arg("--export");
    process::run(command)
}

/// Takes a table over from an exported backup: a table of the same definition gets its file. Tells
/// what the server has to say about it.
pub fn import(
    client: &mut Client,
    server: &Server,
    dir: &Path,
    file: &str,
    table: &str,
) -> Result<Vec<Vec<String>>> {
    client.run(&format!("ALTER TABLE d.{} DISCARD TABLESPACE", quote(table)))?;
    let encode = format!("SELECT CAST(CONVERT(_utf8mb4'{table}' USING filename) AS BINARY)");
    let target = client.scalar(&encode)?.context("no name")?;
    for extension in ["ibd", "cfg"] {
        let source = dir.join(format!("d/{file}.{extension}"));
        fs::copy(&source, server.datadir().join(format!("d/{target}.{extension}")))
            .with_context(|| source.display().to_string())?;
    }
    client.run(&format!("ALTER TABLE d.{} IMPORT TABLESPACE", quote(table)))?;
    let warnings = client.text("SHOW WARNINGS")?;
    for row in client.text(&format!("CHECK TABLE d.{} EXTENDED", quote(table)))? {
        ensure!(row[3] == "OK", "{table}: {row:?}");
    }
    Ok(warnings)
}
