//! `haulout list` and `haulout show`.

use std::sync::Arc;

use clap::Args;
use engine::repo::catalog::{Listed, Selection};
use engine::repo::manifest::Manifest;
use engine::{Cancel, ErrorKind, Reporter, Result};
use serde::Serialize;

use super::counted;
use super::repo::Repo;
use crate::console::Outcome;
use crate::duration;
use crate::size::Size;

/// List the backups of a repository, the oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  haulout list --repo s3://bucket/db1")]
pub struct List {
    #[command(flatten)]
    repo: Repo,
}

/// Show one backup: what it is, and its files
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  haulout show LATEST --repo s3://bucket/db1 --files")]
pub struct Show {
    /// Which backup: its name or a part of it at either end, LATEST, or @TIME
    #[arg(value_name = "BACKUP")]
    selection: Selection,
    #[command(flatten)]
    repo: Repo,
    /// List its files, too
    #[arg(long)]
    files: bool,
}

#[derive(Serialize)]
struct Backups {
    format: u32,
    backups: Vec<Line>,
}

/// A backup as programs read it.
#[derive(Serialize)]
struct Line {
    name: String,
    kept: bool,
    stored_bytes: u64,
    /// Why it cannot be used, if it cannot.
    damage: Option<String>,
    #[serde(flatten)]
    about: Option<About>,
}

#[derive(Serialize)]
struct About {
    kind: &'static str,
    parent: Option<String>,
    began: String,
    ended: String,
    bytes: u64,
    ratio: f64,
    server_version: String,
    hostname: String,
    start_lsn: u64,
    end_lsn: u64,
    gtid: Option<String>,
    corrupt_pages: u64,
}

impl About {
    fn new(manifest: &Manifest, stored: u64) -> Self {
        let gtid = manifest.replication.as_ref().map(|at| at.gtid.clone());
        Self {
            kind: manifest.kind.word(),
            parent: manifest.parent.as_ref().map(ToString::to_string),
            began: manifest.began.to_string(),
            ended: manifest.ended.to_string(),
            bytes: manifest.bytes,
            ratio: manifest.bytes as f64 / stored.max(1) as f64,
            server_version: manifest.server.version.clone(),
            hostname: manifest.server.hostname.clone(),
            start_lsn: manifest.lsn.start,
            end_lsn: manifest.lsn.end,
            gtid: gtid.filter(|gtid| !gtid.is_empty()),
            corrupt_pages: manifest.corrupt_pages,
        }
    }
}

impl From<&Listed> for Line {
    fn from(listed: &Listed) -> Self {
        Self {
            name: listed.name.to_string(),
            kept: listed.kept,
            stored_bytes: listed.stored,
            damage: listed.manifest.as_ref().err().cloned(),
            about: listed
                .manifest
                .as_ref()
                .ok()
                .map(|manifest| About::new(manifest, listed.stored)),
        }
    }
}

impl List {
    /// Lists them.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let listed = repository.backups(cancel)?;
        let damaged = listed.iter().any(|backup| backup.manifest.is_err());
        let backups = Backups { format: 1, backups: listed.iter().map(Line::from).collect() };
        let mut outcome = Outcome::data(&backups, table(&listed, jiff::Timestamp::now()))?;
        outcome.words.push(counted(listed.len() as u64, "backup.", "backups."));
        outcome.found = damaged.then_some(ErrorKind::Damage);
        Ok(outcome)
    }
}

fn table(listed: &[Listed], now: jiff::Timestamp) -> Vec<String> {
    let mut lines = vec![
        ["BACKUP", "ENDED", "AGE", "SIZE", "STORED", "LSN", "GTID", ""].map(str::to_owned).to_vec(),
    ];
    for backup in listed {
        let stored = Size(backup.stored).to_string();
        let kept = if backup.kept { "kept" } else { "" };
        let name = backup.name.to_string();
        lines.push(match &backup.manifest {
            Err(_) => {
                let dash = || "-".to_owned();
                vec![name, dash(), dash(), dash(), stored, dash(), dash(), "DAMAGED".to_owned()]
            }
            Ok(manifest) => {
                let about = About::new(manifest, backup.stored);
                let age = manifest.ended.duration_until(now).unsigned_abs();
                let remarks = remarks(&about, kept);
                vec![
                    name,
                    manifest.ended.strftime("%F %TZ").to_string(),
                    duration::show_whole(age),
                    Size(about.bytes).to_string(),
                    format!("{stored} ({:.1}x)", about.ratio),
                    about.end_lsn.to_string(),
                    about.gtid.unwrap_or_else(|| "-".to_owned()),
                    remarks,
                ]
            }
        });
    }
    align(&lines)
}

/// What else there is to say about a backup.
fn remarks(about: &About, kept: &str) -> String {
    let mut remarks = Vec::new();
    remarks.extend((!kept.is_empty()).then(|| kept.to_owned()));
    remarks.extend(about.parent.as_ref().map(|parent| format!("on {parent}")));
    remarks.extend(
        (about.corrupt_pages > 0).then(|| format!("CORRUPT PAGES: {}", about.corrupt_pages)),
    );
    remarks.join(", ")
}

/// Columns of equal width.
pub(super) fn align(lines: &[Vec<String>]) -> Vec<String> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |line: &Vec<String>| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}

#[derive(Serialize)]
struct Shown {
    format: u32,
    #[serde(flatten)]
    about: About,
    name: String,
    tool: String,
    stored_bytes: u64,
    packs: usize,
    frames: usize,
    compression: String,
    sealed: bool,
    commit_blocked_seconds: f64,
    ddl_blocked_seconds: f64,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: String,
    bytes: u64,
    space: Option<u32>,
    page_size: Option<u32>,
    sparse: bool,
}

impl Show {
    /// Shows it.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let repository = self.repo.open(cancel, reporter)?;
        let manifest = repository.select(&self.selection, cancel)?;
        let files = manifest.files.iter().map(|(path, file)| File {
            path: path.clone(),
            bytes: file.size,
            space: file.space.map(|space| space.id),
            page_size: file.space.map(|space| space.page_size),
            sparse: file.sparse,
        });
        let format = manifest.compression.extension();
        let shown = Shown {
            format: 1,
            about: About::new(&manifest, manifest.stored()),
            name: manifest.name.to_string(),
            tool: manifest.tool.clone(),
            stored_bytes: manifest.stored(),
            packs: manifest.packs.len(),
            frames: manifest.frames.len(),
            compression: if format.is_empty() { "none" } else { &format[1..] }.to_owned(),
            sealed: manifest.seal.is_some(),
            commit_blocked_seconds: manifest.locks.commit_blocked,
            ddl_blocked_seconds: manifest.locks.ddl_blocked,
            files: files.collect(),
        };
        Outcome::data(&shown, describe(&shown, &manifest, self.files))
    }
}

fn describe(shown: &Shown, manifest: &Manifest, files: bool) -> Vec<String> {
    let about = &shown.about;
    let server = &manifest.server;
    let seal = if shown.sealed { "sealed" } else { "not sealed" };
    let mut lines = vec![
        ("backup", format!("{} ({})", shown.name, about.kind)),
        ("taken", format!("{} to {}", about.began, about.ended)),
        ("by", shown.tool.clone()),
        ("server", format!("{} on {}:{}", server.version, server.hostname, server.port)),
        ("data directory", server.datadir.clone()),
        (
            "size",
            format!(
                "{} in {}",
                Size(about.bytes),
                counted(shown.files.len() as u64, "file", "files")
            ),
        ),
        (
            "stored",
            format!(
                "{} in {} ({:.1}x, {}, {seal})",
                Size(shown.stored_bytes),
                counted(shown.packs as u64, "pack", "packs"),
                about.ratio,
                shown.compression,
            ),
        ),
        ("LSN", format!("{} to {}", about.start_lsn, about.end_lsn)),
        ("GTID position", about.gtid.clone().unwrap_or_else(|| "-".to_owned())),
        ("commits blocked", duration::show_seconds(shown.commit_blocked_seconds)),
        ("DDL blocked", duration::show_seconds(shown.ddl_blocked_seconds)),
    ];
    lines.extend(about.parent.as_ref().map(|parent| ("parent", parent.clone())));
    if about.corrupt_pages > 0 {
        lines.push(("CORRUPT PAGES", about.corrupt_pages.to_string()));
    }
    let mut text = align(
        &lines.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>(),
    );
    if files {
        let cells = shown.files.iter().map(|file| {
            let space = file.space.map_or_else(String::new, |space| format!("space {space}"));
            vec![file.path.clone(), Size(file.bytes).to_string(), space]
        });
        text.push(String::new());
        text.extend(align(&cells.collect::<Vec<_>>()));
    }
    text
}
