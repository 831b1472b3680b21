//! Running one cell.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::Cell;
use super::support::Table;
use crate::load::{Load, LoadReport};
use crate::process::{self, Finished};
use crate::proof::{attach, create_replication_user, ensure_equal, replica_options};
use crate::scratch::copy_tree;
use crate::stored::{self, Examined};
use crate::tool::{AriaOutcome, BackupOptions, BinlogPosition};
use crate::{Result, Scratch, Server, Tool, compare, pages};

/// How long the load runs before and after the backup.
const AROUND: Duration = Duration::from_millis(700);
/// Findings of one kind that are told.
const TOLD: usize = 12;

/// How a cell ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything holds.
    Ok(Done),
    /// Refused by name, as the document says.
    Refused(String),
    /// Something does not hold.
    Failed {
        /// What, each a few lines.
        findings: Vec<String>,
        /// What was left behind: the raw backup, and the two prepared ones.
        kept: PathBuf,
    },
}

/// What a successful cell saw.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Pages compared with those of the stock tool.
    pub pages: u64,
    /// Of them, page-compressed ones with another image of the same.
    pub reimaged: u64,
    /// Of them, pages that the stock tool did not encrypt as the server would.
    pub left_plain: u64,
    /// Pages opened afterwards.
    pub examined: Examined,
    /// Pages that the stock tool's prepare changed.
    pub changed: usize,
    /// Tables of the replica that equal those of the source.
    pub tables: usize,
    /// Statements of the load.
    pub statements: u64,
    /// What the stock programs could not do themselves.
    pub notes: Vec<String>,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (encrypted, compressed) = (self.examined.encrypted, self.examined.compressed);
        write!(f, "{} pages equal ({} changed", self.pages, self.changed)?;
        for (count, what) in [
            (self.reimaged, "reimaged"),
            (self.left_plain, "left plain by the stock tool"),
            (encrypted, "encrypted"),
            (compressed, "compressed"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        write!(f, "), {} tables after {} statements", self.tables, self.statements)?;
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

/// Runs a cell with `tool` as ours. An error is one of the harness: no server, a full disk.
pub fn run(cell: &Cell, tool: &Tool) -> Result<Outcome> {
    let scratch = Scratch::new()?;
    cell.write_keys(scratch.path())?;
    let (done, findings, aria) = (Done::default(), Vec::new(), None);
    let mut run = Run { cell, tool, dir: scratch.path(), done, findings, aria };
    let refused = run.all()?;
    let Run { done, mut findings, .. } = run;

    let expected = Table::read()?.refused(&cell.features(), cell.generation);
    if findings.is_empty() && refused.is_none() && !expected.is_empty() {
        findings.push(format!(
            "works, although docs/compatibility.md says that one of these is refused: {expected:?}"
        ));
    }
    if let Some(reason) = &refused
        && expected.is_empty()
    {
        findings
            .push(format!("refused, although docs/compatibility.md says that it works: {reason}"));
    }
    if !findings.is_empty() {
        return Ok(Outcome::Failed { findings, kept: scratch.keep() });
    }
    Ok(match refused {
        Some(reason) => Outcome::Refused(reason),
        None => Outcome::Ok(done),
    })
}

struct Run<'a> {
    cell: &'a Cell,
    tool: &'a Tool,
    dir: &'a Path,
    done: Done,
    findings: Vec<String>,
    /// What the last prepare of ours says of Aria.
    aria: Option<AriaOutcome>,
}

impl Run<'_> {
    /// The whole cell. Returns the reason when our tool refused.
    fn all(&mut self) -> Result<Option<String>> {
        let options = self.cell.server(self.dir);
        let source = options.start()?;
        create_replication_user(&source)?;
        let load = Load::start(&source, &self.cell.load())?;
        std::thread::sleep(AROUND);

        let ours = self.dir.join("raw");
        let mut backup = self.tool.backup(&source, &ours, &BackupOptions::default());
        if let Some(refused) = self.ours("backup", &mut backup)? {
            return Ok(refused.reason());
        }
        let raw = match self.cell.backup_by_stock {
            false => ours.clone(),
            true => self.stock_backup(&source)?.unwrap_or_else(|| ours.clone()),
        };
        std::thread::sleep(AROUND);
        let load = load.stop().context("load")?;
        self.done.statements = load.changes + load.definitions;

        let (left, right) = (self.dir.join("stock"), self.dir.join("haulout"));
        copy_tree(&raw, &left)?;
        copy_tree(&raw, &right)?;
        if let Some(refused) = self.ours("prepare", &mut self.tool.prepare(&right, MEMORY))? {
            return Ok(refused.reason());
        }
        let stock = Tool::Stock(self.cell.generation);
        let by_stock = stock.run_prepare(&left);
        match &by_stock {
            Ok(_) => self.compare(&raw, &left, &right)?,
            Err(error) => self.findings.push(format!("the stock tool's prepare: {error:#}")),
        }
        self.check(&right, by_stock.is_ok().then_some(&left))?;

        let prepared = match raw == ours {
            true => right,
            false => {
                if let Some(refused) =
                    self.ours("prepare", &mut self.tool.prepare(&ours, MEMORY))?
                {
                    return Ok(refused.reason());
                }
                ours
            }
        };
        match self.prove(&source, self.tool, &prepared, "copy", &load) {
            Ok(tables) => self.done.tables = tables,
            Err(error) => {
                self.findings.push(format!("replica proof: {error:#}"));
                if by_stock.is_ok() && raw == self.dir.join("raw") {
                    let same = self.prove(&source, &stock, &left, "copy-of-stock", &load);
                    self.findings.push(match same {
                        Ok(_) => "prepared by the stock tool the same backup passes".to_owned(),
                        Err(error) => format!("prepared by the stock tool: {error:#}"),
                    });
                }
            }
        }
        Ok(None)
    }

    /// Runs a command of ours: `None` when it succeeded.
    fn ours(&mut self, what: &str, command: &mut Command) -> Result<Option<Stopped>> {
        let mut again = Command::new(command.get_program());
        again.args(command.get_args()).arg("--json");
        let finished = process::run(again)?;
        if finished.status.success() {
            if what == "prepare" {
                self.aria = Some(AriaOutcome::of(&finished)?);
            }
            return Ok(None);
        }
        if let Some(reason) = refusal(&finished) {
            return Ok(Some(Stopped::Refused(format!("{what}: {reason}"))));
        }
        self.findings.push(format!("{what}: {}\n{}", finished.report(), finished.stdout_text()));
        Ok(Some(Stopped::Failed))
    }

    /// A backup by the stock tool under the same load; none when it fails, as it does at times.
    fn stock_backup(&mut self, source: &Server) -> Result<Option<PathBuf>> {
        let dir = self.dir.join("raw-by-stock");
        match Tool::Stock(self.cell.generation).run_backup(source, &dir) {
            Ok(_) => Ok(Some(dir)),
            Err(_) => {
                self.done.notes.push("the stock tool's backup failed".to_owned());
                std::fs::remove_dir_all(&dir).ok();
                Ok(None)
            }
        }
    }

    fn compare(&mut self, raw: &Path, left: &Path, right: &Path) -> Result<()> {
        let page_size = (self.cell.page_kib << 10) as usize;
        let keys = self.cell.keys();
        let generation = self.cell.generation;
        let result = pages::compare_encrypted(generation, left, right, page_size, keys.as_ref())?;
        (self.done.pages, self.done.reimaged) = (result.pages, result.reimaged);
        self.done.left_plain = result.left_plain;
        if !result.differences.is_empty() {
            self.findings.push(format!("differential prepare: {}", result.report()));
        }
        if self.aria.as_ref().is_some_and(|aria| aria.is_as_by_stock(generation)) {
            let aria = pages::compare_aria(left, right)?;
            if !aria.differences.is_empty() {
                self.findings.push(format!("Aria: {}", aria.report()));
            }
        }
        self.done.changed = pages::compare(raw, left, page_size)?.differences.len();
        if result.pages < 500 || self.done.changed < 10 {
            self.findings.push(format!("too little was compared: {:?}", self.done));
        }
        Ok(())
    }

    /// Opens every page of the result, and shows it to the server's own checker. What that says of
    /// the stock tool's result too is its own limit, and noted only.
    fn check(&mut self, right: &Path, left: Option<&PathBuf>) -> Result<()> {
        let (seen, wrong) = stored::examine(right, self.cell.keys().as_ref())?;
        self.done.examined = seen;
        if !wrong.is_empty() {
            self.findings.push(told("pages that cannot be opened", &wrong));
        }
        let page_size = (self.cell.page_kib << 10) as usize;
        let complaints = pages::innochecksum(self.cell.generation, right, page_size)?;
        if complaints.is_empty() {
            return Ok(());
        }
        let of_stock = match left {
            Some(left) => pages::innochecksum(self.cell.generation, left, page_size)?,
            None => Vec::new(),
        };
        let (both, ours): (Vec<String>, Vec<String>) =
            complaints.into_iter().partition(|complaint| of_stock.contains(complaint));
        if !ours.is_empty() {
            self.findings.push(told("innochecksum", &ours));
        }
        if let Some(first) = both.first() {
            let note = format!("innochecksum rejects {} files of both ({first})", both.len());
            self.done.notes.push(note);
        }
        Ok(())
    }

    /// The replica proof of a prepared backup: returns how many tables are equal.
    fn prove(
        &self,
        source: &Server,
        tool: &Tool,
        prepared: &Path,
        name: &str,
        load: &LoadReport,
    ) -> Result<usize> {
        let position = BinlogPosition::of_backup(prepared)?;
        let datadir = self.dir.join(name);
        tool.run_restore(prepared, &datadir)?;
        let copy = replica_options(source.options()).start_on(&datadir)?;
        let complaints = compare::check_tables(&copy)?;
        ensure!(complaints.is_empty(), "the copy is damaged:\n{}", complaints.join("\n"));
        attach(source, &copy, &position)?;
        let tables = ensure_equal(source, &copy).with_context(|| {
            format!("definitions that the source refused: {:#?}", load.refused_definitions)
        })?;
        let errors = copy.logged_errors()?;
        ensure!(errors.is_empty(), "the copy's server logged errors:\n{}", errors.join("\n"));
        drop(copy);
        // What is kept of a failed cell must not fill the disk.
        std::fs::remove_dir_all(&datadir)?;
        Ok(tables)
    }
}

/// Memory of prepare.
const MEMORY: u64 = 256 << 20;

/// Why a command of ours ended early.
enum Stopped {
    Refused(String),
    Failed,
}

impl Stopped {
    fn reason(self) -> Option<String> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Failed => None,
        }
    }
}

/// The message, when a run ended because something is not supported.
fn refusal(finished: &Finished) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(&finished.stdout).ok()?;
    let message = document.get("error")?.get("message")?.as_str()?;
    message.contains("not supported").then(|| message.to_owned())
}

fn told(what: &str, lines: &[String]) -> String {
    let first: Vec<&str> = lines.iter().take(TOLD).map(String::as_str).collect();
    format!("{what}, {} in all:\n{}", lines.len(), first.join("\n"))
}
