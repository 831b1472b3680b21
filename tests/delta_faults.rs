//! Deltas that do not fit, are damaged, or whose application is killed.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{assert_failed, exit};
use harness::process::{self, Finished};
use harness::scratch::copy_tree;
use harness::tool::{BackupOptions, looks_like_backup};
use harness::{Result, Scratch, Server, ServerOptions, Tool, proof};

/// A full backup and three deltas of a server whose table has one row more each time.
struct Links {
    scratch: Scratch,
    server: Server,
    dirs: Vec<PathBuf>,
}

impl Links {
    fn take(tool: &Tool) -> Result<Self> {
        let server = ServerOptions::default().start()?;
        let scratch = Scratch::new()?;
        server.run("CREATE DATABASE d")?;
        server.run("CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")?;
        server.run("CREATE TABLE d.m (a INT) ENGINE=MyISAM")?;
        let mut dirs: Vec<PathBuf> = Vec::new();
        for number in 0..4 {
            server.run(&format!("INSERT INTO d.t VALUES ({number}, REPEAT('x', 3000))"))?;
            server.run(&format!("CREATE TABLE d.t{number} AS SELECT seq FROM d.seq_1_to_5000"))?;
            if number > 0 {
                server.run(&format!("DROP TABLE d.t{}", number - 1))?;
            }
            server.checkpoint()?;
            let dir = scratch.join(&format!("link{number}"));
            let extra = dirs.last().map(|base| tool.since(base)).into_iter().collect();
            let options = BackupOptions { extra, ..BackupOptions::default() };
            tool.checked(tool.backup(&server, &dir, &options))?;
            dirs.push(dir);
        }
        Ok(Self { scratch, server, dirs })
    }

    /// A copy of the full backup, prepared.
    fn base(&self, name: &str) -> Result<PathBuf> {
        let base = self.scratch.join(name);
        copy_tree(&self.dirs[0], &base)?;
        common::haulout().run_prepare(&base)?;
        Ok(base)
    }

    fn apply(&self, base: &Path, deltas: &[usize]) -> Result<Finished> {
        let mut command = common::haulout().prepare(base, 128 << 20);
        for &number in deltas {
            command.arg("--delta").arg(&self.dirs[number]);
        }
        process::run(command)
    }

    /// A server starts on the copy, and has the rows of the last link.
    fn boots(&self, base: &Path, name: &str) -> Result<()> {
        let datadir = self.scratch.join(name);
        let options = self.server.options();
        let copy = proof::restore_and_boot(&common::haulout(), base, &datadir, options)?;
        let rows = copy.client()?.scalar("SELECT COUNT(*) FROM d.t JOIN d.t3 ON a + 1 = seq")?;
        assert_eq!(rows.as_deref(), Some("4"));
        assert!(!datadir.join("d/t2.ibd").exists() && datadir.join("d/m.MYD").exists());
        Ok(())
    }
}

/// All files below a directory and what is in them.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    found
}

/// What does not belong together is refused with both LSNs, and the base stays as it was; so it does
/// when a delta is damaged.
#[test]
fn wrong_chains_are_refused_and_change_nothing() {
    common::ok((|| -> Result<()> {
        let links = Links::take(&common::haulout())?;
        let base = links.base("base")?;
        let before = contents(&base);
        let untouched = |what: &str| {
            assert!(contents(&base) == before, "{what} changed the base");
        };
        let lsn = |number: usize, key: &str| -> String {
            let names = ["xtrabackup_checkpoints", "mariadb_backup_checkpoints"];
            let text =
                names.iter().find_map(|n| fs::read_to_string(links.dirs[number].join(n)).ok());
            let text = text.unwrap();
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        // A link is skipped; the order is wrong; a full backup is no delta; the base is one.
        let skipped = links.apply(&base, &[2])?;
        assert_failed(&skipped, exit::GAP, &[&lsn(0, "to_lsn"), &lsn(2, "from_lsn"), "between"]);
        let order = links.apply(&base, &[2, 1])?;
        assert_failed(&order, exit::GAP, &[&lsn(2, "to_lsn"), &lsn(1, "from_lsn"), "order"]);
        assert_failed(&links.apply(&base, &[0])?, exit::USAGE, &["is no delta"]);
        assert_failed(&links.apply(&links.dirs[1], &[2])?, exit::USAGE, &["not prepared"]);
        let unprepared = links.apply(&links.dirs[0], &[1])?;
        let words = ["needs a prepared target", &lsn(0, "to_lsn"), &lsn(1, "from_lsn")];
        assert_failed(&unprepared, exit::USAGE, &words);
        untouched("a refused chain");

        // One flipped byte in a page, a delta cut short, one that the stock tool has used up.
        let victim = links.dirs[1].join("d/t.ibd.delta");
        let good = fs::read(&victim)?;
        let mut bad = good.clone();
        let at = bad.len() - 5000;
        bad[at] ^= 1;
        for (content, words) in [(&bad[..], "page"), (&good[..good.len() - 16384], "cut short")] {
            fs::write(&victim, content)?;
            assert_failed(&links.apply(&base, &[1])?, exit::DAMAGE, &["t.ibd.delta", words]);
        }
        fs::remove_file(&victim)?;
        assert_failed(&links.apply(&base, &[1])?, exit::DAMAGE, &["applied it already"]);
        untouched("a damaged delta");
        fs::write(&victim, &good)?;

        let deltas: Vec<_> = links.dirs[1..].iter().map(|dir| contents(dir)).collect();
        links.apply(&base, &[1, 2, 3])?.success()?;
        let twice = links.apply(&base, &[3])?;
        assert_failed(&twice, exit::GAP, &[&lsn(3, "to_lsn"), &lsn(3, "from_lsn"), "already"]);
        assert!(links.dirs[1..].iter().map(|dir| contents(dir)).eq(deltas), "a delta was changed");
        links.boots(&base, "booted")
    })());
}

/// Killed at any moment, the base is no backup that anybody would take for one, or a good one; what was
/// killed can be repeated.
#[test]
fn a_killed_application_is_repeated() {
    common::ok((|| -> Result<()> {
        let links = Links::take(&common::haulout())?;
        let mut interrupted = 0;
        for round in 0..8 {
            let base = links.base(&format!("base{round}"))?;
            let mut command = common::haulout().prepare(&base, 128 << 20);
            for number in 1..4 {
                command.arg("--delta").arg(&links.dirs[number]);
            }
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            std::thread::sleep(Duration::from_millis(12 * round));
            let _ = child.kill();
            child.wait()?;
            if !looks_like_backup(&base) {
                interrupted += 1;
                // Nothing else can be done with it.
                let alone = process::run(common::haulout().prepare(&base, 128 << 20))?;
                assert_failed(&alone, exit::FAILED, &["was not applied", "apply that delta again"]);
            }
            let again = links.apply(&base, &[1, 2, 3])?;
            if again.code() != Some(0) {
                assert_failed(&again, exit::GAP, &["already"]);
            }
            links.boots(&base, &format!("booted{round}"))?;
            fs::remove_dir_all(&base)?;
        }
        println!("{interrupted} of 8 were between two states");
        Ok(())
    })());
}

/// The server gives the pages of a table that it imports no LSN. The stock tool leaves them out.
#[test]
fn an_import_between_two_backups_is_in_the_delta() {
    common::ok((|| -> Result<()> {
        let server = ServerOptions::default().start()?;
        let scratch = Scratch::new()?;
        server.run("CREATE DATABASE d")?;
        for table in ["a", "b"] {
            server.run(&format!("CREATE TABLE d.{table} (i INT PRIMARY KEY, v VARCHAR(200))"))?;
        }
        server.run("INSERT INTO d.a SELECT seq, REPEAT('a', 150) FROM d.seq_1_to_5000")?;
        server.run("INSERT INTO d.b SELECT seq, REPEAT('b', 150) FROM d.seq_1_to_3000")?;
        server.checkpoint()?;
        let tools = [common::haulout(), Tool::stock()];
        let dir = |tool: &Tool, link: &str| scratch.join(&format!("{}-{link}", tool.name()));
        for tool in &tools {
            tool.run_backup(&server, &dir(tool, "full"))?;
        }
        let datadir = server.datadir().join("d");
        let mut client = server.client()?;
        client.run("FLUSH TABLES d.a FOR EXPORT")?;
        for kind in ["ibd", "cfg"] {
            fs::copy(datadir.join(format!("a.{kind}")), scratch.join(kind))?;
        }
        client.run("UNLOCK TABLES")?;
        client.run("ALTER TABLE d.b DISCARD TABLESPACE")?;
        for kind in ["ibd", "cfg"] {
            fs::copy(scratch.join(kind), datadir.join(format!("b.{kind}")))?;
        }
        client.run("ALTER TABLE d.b IMPORT TABLESPACE")?;
        server.checkpoint()?;
        let rows = "SELECT COUNT(*), MIN(v) FROM d.b";
        let expected = server.client()?.text(rows)?;
        for tool in &tools {
            let (base, delta) = (dir(tool, "full"), dir(tool, "delta"));
            let extra = vec![tool.since(&base)];
            let options = BackupOptions { extra, ..BackupOptions::default() };
            tool.checked(tool.backup(&server, &delta, &options))?;
            common::haulout().run_prepare(&base)?;
            let mut command = common::haulout().prepare(&base, 128 << 20);
            command.arg("--delta").arg(&delta);
            process::run(command)?.success()?;
            let copy = dir(tool, "copy");
            let copy = proof::restore_and_boot(&common::haulout(), &base, &copy, server.options())?;
            let found = copy.client()?.text(rows);
            match tool {
                Tool::Stock(_) => assert_ne!(found.ok(), Some(expected.clone()), "mended?"),
                _ => assert_eq!(found?, expected),
            }
        }
        Ok(())
    })());
}

/// A folder that is empty in a delta is a database all the same, as with the stock tool; one that is not
/// there was dropped.
#[test]
fn databases_that_are_empty_or_dropped() {
    common::ok((|| -> Result<()> {
        let server = ServerOptions::default().start()?;
        let scratch = Scratch::new()?;
        let tool = common::haulout();
        let (base, delta) = (scratch.join("base"), scratch.join("delta"));
        for sql in ["CREATE DATABASE gone", "CREATE DATABASE bare", "CREATE TABLE gone.t (a INT)"] {
            server.run(sql)?;
        }
        tool.run_backup(&server, &base)?;
        server.run("DROP DATABASE gone")?;
        let since = BackupOptions { extra: vec![tool.since(&base)], ..BackupOptions::default() };
        tool.checked(tool.backup(&server, &delta, &since))?;
        fs::remove_file(delta.join("bare/db.opt"))?;
        tool.run_prepare(&base)?;
        tool.checked(tool.apply_delta(&base, &delta))?;
        let datadir = scratch.join("datadir");
        tool.run_restore(&base, &datadir)?;
        let copy = server.options().start_on(&datadir)?;
        let names = "SELECT GROUP_CONCAT(schema_name) FROM information_schema.schemata \
                     WHERE schema_name IN ('gone', 'bare')";
        assert_eq!(copy.client()?.scalar(names)?.as_deref(), Some("bare"));
        Ok(())
    })());
}
