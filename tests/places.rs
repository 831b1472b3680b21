//! Servers that keep files outside of their data directory: everything is found, and goes back to
//! where the copy's server looks for it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::load::{Load, LoadOptions};
use harness::tool::BinlogPosition;
use harness::{Result, Scratch, Server, ServerOptions, proof};

/// Where one server has its files, below one directory.
struct Places {
    root: PathBuf,
    system: Vec<(&'static str, &'static str)>,
    absolute: bool,
}

impl Places {
    fn of(root: PathBuf, system: &[(&'static str, &'static str)], absolute: bool) -> Result<Self> {
        for dir in ["home", "home2", "undo", "redo", "aria"] {
            fs::create_dir_all(root.join(dir))?;
        }
        Ok(Self { root, system: system.to_vec(), absolute })
    }

    fn dir(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    /// `innodb_data_file_path`.
    fn data_files(&self) -> String {
        let file = |(name, size): &(&str, &str)| match self.absolute {
            true => format!("{}:{size}", self.root.join(name).display()),
            false => format!("{}:{size}", name.rsplit('/').next().unwrap_or(name)),
        };
        self.system.iter().map(file).collect::<Vec<_>>().join(";")
    }

    fn arguments(&self) -> Vec<String> {
        let home = if self.absolute { String::new() } else { self.dir("home") };
        vec![
            format!("--innodb-data-home-dir={home}"),
            format!("--innodb-data-file-path={}", self.data_files()),
            format!("--innodb-undo-directory={}", self.dir("undo")),
            format!("--innodb-log-group-home-dir={}", self.dir("redo")),
            format!("--aria-log-dir-path={}", self.dir("aria")),
        ]
    }

    fn options(&self) -> ServerOptions {
        self.arguments().into_iter().fold(ServerOptions::default(), ServerOptions::arg)
    }

    /// Moves the files of a stopped server there.
    fn take_over(&self, datadir: &Path) -> Result<()> {
        for entry in fs::read_dir(datadir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let dir = match name.as_str() {
                "ibdata1" => "home",
                name if name.starts_with("ib_logfile") => "redo",
                name if name.starts_with("aria_log") => "aria",
                name if name.starts_with("undo0") => "undo",
                _ => continue,
            };
            fs::rename(entry.path(), self.root.join(dir).join(&name))?;
        }
        Ok(())
    }
}

/// A source in `from` becomes a copy in `to`, under load, and the copy a replica.
fn replicates(scratch: &Scratch, from: &Places, to: &Places, seed: u64) -> Result<Server> {
    let mut plain = ServerOptions::default().start()?;
    plain.stop()?;
    from.take_over(plain.datadir())?;
    let source = from.options().start_on(plain.datadir())?;
    proof::create_replication_user(&source)?;
    let load = Load::start(&source, &LoadOptions::new(seed))?;
    std::thread::sleep(Duration::from_millis(500));
    let (backup, datadir) = (scratch.join("backup"), scratch.join("copy"));
    let tool = common::haulout();
    tool.run_backup(&source, &backup)?;
    load.stop()?;
    tool.run_prepare(&backup)?;
    let mut restore = tool.restore(&backup, &datadir);
    restore.args(to.arguments());
    tool.checked(restore)?;
    for name in ["ibdata1", "ib_logfile0", "aria_log_control", "undo001"] {
        assert!(!datadir.join(name).exists(), "{name} is in the data directory");
    }
    let copy = proof::replica_options(&to.options()).start_on(&datadir)?;
    let position = BinlogPosition::of_backup(&backup)?;
    proof::attach(&source, &copy, &position)?;
    let tables = proof::ensure_equal(&source, &copy)?;
    assert!(tables > 5, "compared {tables} tables only");
    let errors = copy.logged_errors()?;
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(copy)
}

#[test]
fn every_directory_elsewhere() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let system = [("home/ibdata1", "12M:autoextend")];
        let from = Places::of(scratch.join("from"), &system, false)?;
        let to = Places::of(scratch.join("to"), &system, false)?;
        replicates(&scratch, &from, &to, 501)?;
        assert!(to.root.join("home/ibdata1").exists());
        Ok(())
    })());
}

#[test]
fn several_system_files_with_absolute_paths() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let system = [("home/ibdata1", "12M"), ("home2/second", "8M:autoextend")];
        let from = Places::of(scratch.join("from"), &system, true)?;
        let to = Places::of(scratch.join("to"), &system, true)?;
        replicates(&scratch, &from, &to, 502)?;
        let second = fs::metadata(to.root.join("home2/second"))?.len();
        assert!(second >= 8 << 20, "the second file has {second} bytes");
        Ok(())
    })());
}

#[test]
fn tables_with_a_directory_of_their_own_go_back_there() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let elsewhere = scratch.join("elsewhere");
        fs::create_dir(&elsewhere)?;
        let source = ServerOptions::default().start()?;
        source.run("CREATE DATABASE d")?;
        for table in ["stays", "renamed", "truncated"] {
            source.run(&format!(
                "CREATE TABLE d.{table} (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB \
                 DATA DIRECTORY='{}'",
                elsewhere.display()
            ))?;
            source.run(&format!(
                "INSERT INTO d.{table} SELECT seq, REPEAT('x', 300) FROM d.seq_1_to_2000"
            ))?;
        }
        let backup = scratch.join("backup");
        let tool = common::haulout();
        // Changes go on while the backup runs.
        std::thread::scope(|scope| -> Result<()> {
            let changes = scope.spawn(|| -> Result<()> {
                source.run("DELETE FROM d.stays WHERE a > 1500")?;
                source.run("RENAME TABLE d.renamed TO d.other")?;
                source.run("TRUNCATE TABLE d.truncated")
            });
            tool.run_backup(&source, &backup)?;
            changes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        tool.run_prepare(&backup)?;
        drop(source);
        fs::remove_dir_all(&elsewhere)?;
        let options = ServerOptions::default();
        let copy = proof::restore_and_boot(&tool, &backup, &scratch.join("copy"), &options)?;
        let count = |table: &str| -> Result<u64> {
            let rows = copy.client()?.scalar(&format!("SELECT COUNT(*) FROM d.{table}"))?;
            Ok(rows.unwrap_or_default().parse()?)
        };
        assert!([1500, 2000].contains(&count("stays")?));
        let renamed = if copy.datadir().join("d/other.frm").exists() { "other" } else { "renamed" };
        assert_eq!(count(renamed)?, 2000);
        assert!([0, 2000].contains(&count("truncated")?));
        for table in ["stays", renamed, "truncated"] {
            assert!(elsewhere.join(format!("d/{table}.ibd")).exists(), "{table}");
            assert!(!copy.datadir().join(format!("d/{table}.ibd")).exists(), "{table}");
        }
        Ok(())
    })());
}
