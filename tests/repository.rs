//! Backups in a repository: taken under load, restored, and equal to their source; what is damaged
//! or does not belong is found.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use common::repo::{Repo, haulout, small_server};
use common::{assert_failed, exit};
use engine::repo::layout::BackupName;
use engine::repo::manifest::Head;
use harness::faulty_proxy::{Fault, FaultyProxy, Refusal, Rule};
use harness::load::{Load, LoadOptions};
use harness::pages::{self, Difference};
use harness::process::{self, Finished};
use harness::s3::{self, S3Server};
use harness::stored::is_free;
use harness::tool::BinlogPosition;
use harness::{Result, Scratch, Server, ServerOptions, Tool, compare, proof};
use innodb::PageNo;
use serde_json::Value;

/// A copy of the last backup becomes a replica of its source that equals it.
fn becomes_a_replica(repo: &Repo, source: &Server) -> Result<()> {
    let scratch = Scratch::new()?;
    let datadir = scratch.join("data");
    let to = datadir.display().to_string();
    let plan = repo.json("restore", &["LATEST", "--to", &to, "--plan"])?;
    let restored = repo.json("restore", &["LATEST", "--to", &to, "--memory=128MiB"])?;
    let [planned, done] = [&plan, &restored].map(|document| &document["stored_bytes"]);
    assert_eq!(planned, done);
    // Of a chain, too, it is what will be there, and not what all links have. The redo log and files of the
    // backup itself do not stay; what tablespaces grow by, and what is made or dropped in the log, is not known.
    let number = |document: &Value, name: &str| document[name].as_u64().unwrap_or_default();
    let planned = number(&plan, "bytes") - number(&plan, "redo_bytes");
    let ratio = planned as f64 / number(&restored, "bytes") as f64;
    assert!((0.5..1.5).contains(&ratio), "{plan}, {restored}");
    let files = [&plan, &restored].map(|document| number(document, "files"));
    assert!(files[0].abs_diff(files[1]) < 40, "{plan}, {restored}");
    let copy = proof::replica_options(source.options()).start_on(&datadir)?;
    let complaints = compare::check_tables(&copy)?;
    assert_eq!(complaints, Vec::<String>::new());
    let gtid = restored["gtid"].as_str().unwrap_or_default().to_owned();
    let position = BinlogPosition { file: String::new(), offset: 0, gtid };
    proof::attach(source, &copy, &position)?;
    proof::ensure_equal(source, &copy)?;
    assert!(!datadir.join(".haulout-restore").exists());
    Ok(())
}

fn proof(seed: u64, repo: &Repo, arguments: &[&str]) -> Result<()> {
    let source = ServerOptions::default().start()?;
    proof::create_replication_user(&source)?;
    let load = Load::start(&source, &LoadOptions::new(seed))?;
    std::thread::sleep(Duration::from_millis(700));
    let stored = repo.backup(&source, arguments)?;
    load.stop()?;
    let name = stored["name"].as_str().unwrap();
    assert_eq!(repo.json("list", &[])?["backups"][0]["name"], name);
    let verified = repo.json("verify --deep", &[])?;
    assert!(verified["backups"][0]["pages"].as_u64().unwrap() > 1000, "{verified}");
    becomes_a_replica(repo, &source)
}

#[test]
fn a_restored_backup_becomes_a_replica() {
    common::ok(proof(501, &Repo::init(false).unwrap(), &["--compress=zstd"]));
}

#[test]
fn a_sealed_backup_becomes_a_replica() {
    // Little memory makes many small packs.
    let arguments = ["--compress=lz4", "--store-memory=100MiB"];
    common::ok(proof(502, &Repo::init(true).unwrap(), &arguments));
}

/// The stream of a backup, unpacked by the stock tool.
fn unpacked(repo: &Repo, arguments: &[&str], to: &Path) -> Result<()> {
    let stream = to.with_extension("xb");
    let mut get = repo.command("get-stream");
    get.args(arguments);
    process::run_into(get, File::create(&stream)?)?.success()?;
    fs::create_dir(to)?;
    let mut extract = Tool::stock().extract(to, 1);
    extract.stdin(File::open(&stream)?);
    process::run(extract)?.success()?;
    Ok(fs::remove_file(&stream)?)
}

/// What counts of pages that are free in both directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Free {
    Compared,
    /// The redo of links before the last is not needed. A page that was made and freed by then, and that
    /// the server did not write in between, is as it was before: only applying link by link makes it.
    Ignored,
}

/// Compares two prepared backups or data directories.
fn assert_same_pages(one: &Path, other: &Path, server: &Server, free: Free) -> Result<()> {
    let mut found = pages::compare(one, other, server.options().page_size as usize)?;
    let mut differences = Vec::new();
    for difference in std::mem::take(&mut found.differences) {
        let counts = match &difference {
            // Only a backup has some files, and the server makes its own of others.
            Difference::OnlyIn { .. } => false,
            Difference::Page { file, page, .. } if free == Free::Ignored => {
                let number = PageNo(*page as u32);
                !(is_free(&one.join(file), number)? && is_free(&other.join(file), number)?)
            }
            _ => true,
        };
        differences.extend(counts.then_some(difference));
    }
    found.differences = differences;
    assert!(found.pages > 1000 && found.differences.is_empty(), "{}", found.report());
    Ok(())
}

/// The chain that these backups are is one full backup: for the stock tools as a stream, and over
/// another state of the data directory. The same comes of it as when the links are applied in a folder.
fn is_one_backup(repo: &Repo, source: &Server, names: &[String]) -> Result<()> {
    let (stock, scratch) = (Tool::stock(), Scratch::new()?);
    let [fresh, over, merged] = ["fresh", "over", "merged"].map(|name| scratch.join(name));
    let at = |dir: &Path| dir.display().to_string();
    let done = repo.json("restore", &["LATEST", "--memory=256MiB", "--to", &at(&fresh)])?;
    let number = |document: &Value, name: &str| document[name].as_u64().unwrap();
    assert!(number(&done, "pages_on_arrival") > 10, "{done}");

    unpacked(repo, &["LATEST"], &merged)?;
    stock.run_prepare(&merged)?;
    assert_same_pages(&merged, &fresh, source, Free::Compared)?;
    fs::remove_dir_all(&merged)?;

    let links: Vec<PathBuf> = (0..names.len()).map(|n| scratch.join(&format!("link{n}"))).collect();
    for (name, dir) in names.iter().zip(&links) {
        unpacked(repo, &[name, "--link"], dir)?;
    }
    stock.run_prepare(&links[0])?;
    let mut apply = haulout();
    apply.arg("prepare").arg(&links[0]);
    for delta in &links[1..] {
        apply.arg("--delta").arg(delta);
    }
    process::run(apply)?.success()?;
    assert_same_pages(&links[0], &fresh, source, Free::Ignored)?;

    // Little memory: redo does not come first.
    repo.json("restore", &[&names[1], "--to", &at(&over)])?;
    let again = repo.json("restore", &["LATEST", "--memory=16MiB", "--over", &at(&over)])?;
    assert!(number(&again, "rewritten_bytes") < number(&again, "bytes") / 4 * 3, "{again}");
    let found = pages::compare(&fresh, &over, source.options().page_size as usize)?;
    assert!(found.pages > 1000 && found.differences.is_empty(), "{}", found.report());
    Ok(())
}

/// Waits until InnoDB has changed something: workers of a load may all wait for each other for a while.
fn wait_for_changes(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    let mut lsn = || -> Result<u64> {
        let sql = "SELECT variable_value FROM information_schema.global_status \
                   WHERE variable_name = 'Innodb_lsn_current'";
        Ok(client.scalar(sql)?.context("no LSN")?.parse()?)
    };
    let (before, began) = (lsn()?, std::time::Instant::now());
    while lsn()? < before + (128 << 10) {
        ensure!(began.elapsed() < Duration::from_secs(60), "the load stands still");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A full backup and three deltas with DDL between and during them: restored, merged on the way, they
/// equal the source; what others are based on stays, goes along and is missed.
#[test]
fn a_chain_becomes_a_replica() {
    common::ok((|| -> Result<()> {
        let (repo, other) = (Repo::init(true)?, Repo::init(true)?);
        let source = ServerOptions::default().start()?;
        proof::create_replication_user(&source)?;
        let none = process::run({
            let mut command = repo.backup_command(&source);
            command.arg("--delta");
            command
        })?;
        assert_failed(&none, 8, &["no backup of this server", "full backup first"]);
        let load = Load::start(&source, &LoadOptions::new(505))?;
        let mut names: Vec<String> = Vec::new();
        for (basis, parent) in
            [("--auto", None), ("--auto", Some(0)), ("--delta", Some(1)), ("--auto", Some(2))]
        {
            std::thread::sleep(Duration::from_millis(900));
            wait_for_changes(&source)?;
            let stored = repo.backup(&source, &[basis, "--max-chain=3"])?;
            let expected = parent.and_then(|parent: usize| names.get(parent).cloned());
            assert_eq!(stored["parent"].as_str(), expected.as_deref(), "{stored}");
            names.push(stored["name"].as_str().unwrap_or_default().to_owned());
        }
        load.stop()?;
        becomes_a_replica(&repo, &source)?;
        is_one_backup(&repo, &source, &names)?;

        // Three deltas are enough; a differential one skips them; one of another server is none.
        let next = repo.backup(&source, &["--auto", "--max-chain=3"])?;
        assert_eq!((&next["kind"], &next["parent"]), (&"full".into(), &Value::Null));
        let differential = repo.backup(&source, &["--differential"])?;
        assert_eq!(differential["parent"], next["name"]);
        let verified = repo.json("verify --deep", &[])?;
        assert_eq!(verified["backups"].as_array().map(Vec::len), Some(6), "{verified}");
        for backup in verified["backups"].as_array().unwrap() {
            let is_of_chain = names.iter().any(|name| backup["name"] == name.as_str());
            assert!(!is_of_chain || backup["pages"].as_u64() > Some(10), "{backup}");
        }
        let stranger = small_server()?;
        let mut command = repo.backup_command(&stranger);
        command.arg(format!("--delta={}", names[0])).arg("--accept-new-server");
        assert_failed(
            &process::run(command)?,
            exit::USAGE,
            &["cannot be the parent", "another server"],
        );

        // The second delta keeps the first and the full one, and takes them along.
        repo.run("keep", &[&names[2]])?.success()?;
        let expired = repo.json("expire", &["--keep-last=1", "--delete"])?;
        let stays = |name: &str| {
            let all = expired["backups"].as_array().unwrap();
            let this = all.iter().find(|backup| backup["name"] == name).unwrap();
            !this["stays"].as_array().unwrap().is_empty()
        };
        let staying: Vec<bool> = names.iter().map(|name| stays(name)).collect();
        assert_eq!(staying, [true, true, true, false]);
        let target = other.place().display().to_string();
        let key = other.key().display().to_string();
        let copied = repo.json("copy", &[&names[2], "--to", &target, "--to-key-file", &key])?;
        assert_eq!(copied["copied"], serde_json::json!(names[..3]));
        let scratch = Scratch::new()?;
        let to = scratch.join("data").display().to_string();
        let restored = other.json("restore", &[&names[2], "--to", &to])?;
        assert_eq!(restored["based_on"], serde_json::json!(names[..2]));

        fs::remove_file(other.place().join("backups").join(&names[1]).join("manifest.json"))?;
        let orphan = other.run("verify", &[])?;
        let said = String::from_utf8_lossy(&orphan.stdout).into_owned() + &orphan.stderr;
        assert!(said.contains("its parent") && said.contains("is gone"), "{}", orphan.report());
        let to = scratch.join("none").display().to_string();
        let run = other.run("restore", &[&names[2], "--to", &to])?;
        assert_failed(&run, 8, &["the parent of", &names[1]]);
        Ok(())
    })());
}

/// A store that is busy, resets connections and loses answers all the time.
#[test]
fn a_bucket_behind_a_bad_network_is_as_good() {
    let server = S3Server::start().unwrap();
    let proxy = FaultyProxy::start(server.address()).unwrap();
    for (skip, fault) in [
        (3, Fault::Refuse(Refusal::new(503, "SlowDown"))),
        (5, Fault::LoseAnswer),
        (7, Fault::ResetRequest(1000)),
        (9, Fault::CutAnswer(300)),
        (11, Fault::FlipRequest(500)),
    ] {
        proxy.add(Rule::all(fault).skip(skip).times(2));
    }
    let repo = Repo::init_on(true, Some(proxy.endpoint())).unwrap();
    common::ok(proof(504, &repo, &["--store-memory=100MiB"]));
    // Each of the five faults happened twice, and so was tried again.
    let faults = proxy.requests().iter().filter(|request| request.hit).count();
    assert_eq!(faults, 10);
}

/// A store that is gone for good ends the backup, soon and by name; what was there stays good.
#[test]
fn a_store_that_is_gone_ends_the_backup() {
    common::ok((|| -> Result<()> {
        let store = S3Server::start()?;
        let proxy = FaultyProxy::start(store.address())?;
        let repo = Repo::init_on(false, Some(proxy.endpoint()))?;
        let server = small_server()?;
        repo.backup(&server, &[])?;
        // Packs cannot be put any more.
        let refusal = Refusal::new(503, "SlowDown");
        proxy.add(Rule::all(Fault::Refuse(refusal)).method("PUT").path("pack-"));
        let mut command = repo.backup_command(&server);
        command.arg("--patience=2s");
        let run = process::run(command)?;
        assert_failed(&run, 5, &["pack-000000", "SlowDown"]);
        // Nobody holds a lock.
        server.run("CREATE TABLE d.after (a INT)")?;
        assert_eq!(repo.json("list", &[])?["backups"].as_array().unwrap().len(), 1);
        repo.json("verify --deep", &[])?;
        Ok(())
    })());
}

/// Without us: what the packs hold is what other programs read.
#[test]
fn packs_are_plain_for_other_tools() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let server = small_server()?;
        let load = Load::start(&server, &LoadOptions::new(503))?;
        repo.backup(&server, &["--store-memory=100MiB"])?;
        load.stop()?;
        let entries = fs::read_dir(repo.backup_dir())?;
        let mut packs = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        packs.retain(|path| path.extension().is_some_and(|extension| extension == "zst"));
        packs.sort();
        assert!(!packs.is_empty());
        let scratch = Scratch::new()?;
        let (joined, stream) = (scratch.join("joined.zst"), scratch.join("stream.xb"));
        let mut to = File::create(&joined)?;
        for pack in &packs {
            std::io::copy(&mut File::open(pack)?, &mut to)?;
        }
        let mut zstd = Command::new("zstd");
        zstd.arg("-dc").arg(&joined);
        process::run_into(zstd, File::create(&stream)?)?.success()?;
        let backup = scratch.join("backup");
        fs::create_dir(&backup)?;
        let mut extract = Tool::stock().extract(&backup, 1);
        extract.stdin(File::open(&stream)?);
        process::run(extract)?.success()?;
        // It is the stream that we give, too.
        let got = scratch.join("got.xb");
        let mut get = repo.command("get-stream");
        get.arg("LATEST");
        process::run_into(get, File::create(&got)?)?.success()?;
        assert!(fs::read(&got)? == fs::read(&stream)?);

        let stock = Tool::stock();
        stock.run_prepare(&backup)?;
        // What we restore has the same pages; redo was applied to some of them on their way.
        let restored = scratch.join("restored");
        let to = restored.display().to_string();
        let done = repo.json("restore", &["LATEST", "--to", &to, "--memory=256MiB"])?;
        let number = |name: &str| done[name].as_u64().unwrap();
        assert!(number("pages_on_arrival") > 100, "{done}");
        assert_same_pages(&backup, &restored, &server, Free::Compared)?;
        let copy = scratch.join("copy");
        let copy = proof::restore_and_boot(&stock, &backup, &copy, server.options())?;
        let rows = copy.client()?.scalar("SELECT COUNT(*) FROM d.t")?;
        assert_eq!(rows.as_deref(), Some("20000"));
        Ok(())
    })());
}

/// Restores the last backup, which has to fail, and leave nothing that a server starts on.
fn restore_fails(repo: &Repo, words: &[&str]) -> Result<()> {
    let scratch = Scratch::new()?;
    let to = scratch.join("data");
    let run = repo.run("restore", &["LATEST", "--to", &to.display().to_string()])?;
    assert_failed(&run, exit::DAMAGE, words);
    if to.exists() {
        assert!(!to.join("ibdata1").exists());
        let marker = fs::read_to_string(to.join("ib_logfile0"))?;
        assert!(marker.starts_with("Haulout has not finished"));
    }
    Ok(())
}

#[test]
fn damage_is_found_and_nothing_is_restored_from_it() {
    common::ok((|| -> Result<()> {
        let server = small_server()?;
        for sealed in [false, true] {
            let repo = Repo::init(sealed)?;
            repo.backup(&server, &["--store-memory=100MiB"])?;
            let dir = repo.backup_dir();
            let pack = if sealed { "pack-000000.xb.zst.sealed" } else { "pack-000000.xb.zst" };
            let (pack, manifest) = (dir.join(pack), dir.join("manifest.json"));
            let (pack_bytes, manifest_bytes) = (fs::read(&pack)?, fs::read(&manifest)?);
            let flipped = |bytes: &[u8], at: usize| {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 0x10;
                bytes
            };
            // A bit of a pack.
            let middle = pack_bytes.len() / 2;
            fs::write(&pack, flipped(&pack_bytes, middle))?;
            restore_fails(&repo, &["pack-000000", "frame"])?;
            assert_failed(&repo.run("verify", &[])?, exit::DAMAGE, &["pack-000000", "frame"]);
            assert_failed(&repo.run("verify --deep", &[])?, exit::DAMAGE, &["pack-000000"]);
            // A shorter pack.
            fs::write(&pack, &pack_bytes[..middle])?;
            restore_fails(&repo, &["pack-000000"])?;
            assert_failed(&repo.run("verify", &[])?, exit::DAMAGE, &["pack-000000", "bytes"]);
            // No pack.
            fs::remove_file(&pack)?;
            restore_fails(&repo, &["pack-000000", "missing"])?;
            assert_failed(&repo.run("verify", &[])?, exit::DAMAGE, &["pack-000000", "missing"]);
            fs::write(&pack, &pack_bytes)?;
            // Any part of the manifest.
            for at in [5, 20, 100, manifest_bytes.len() / 2, manifest_bytes.len() - 3] {
                fs::write(&manifest, flipped(&manifest_bytes, at))?;
                restore_fails(&repo, &["manifest.json"])?;
                assert_failed(&repo.run("verify", &[])?, exit::DAMAGE, &["manifest.json"]);
                // A list reads only the heads.
                let seen = if at <= 100 { exit::DAMAGE } else { 0 };
                assert_eq!(repo.run("list", &[])?.code(), Some(seen));
            }
            // No manifest: no backup.
            fs::remove_file(&manifest)?;
            let run = repo.run("restore", &["LATEST", "--to", "/nonexistent/x"])?;
            assert_failed(&run, 8, &["no backup"]);
            fs::write(&manifest, &manifest_bytes)?;
            repo.json("verify --deep", &[])?;
        }
        Ok(())
    })());
}

#[test]
fn a_sealed_repository_opens_by_its_keys_only() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(true)?;
        let server = small_server()?;
        let secret = "no-eye-may-see-this-either";
        server.run(&format!("INSERT INTO d.t VALUES (0, '{secret}')"))?;
        server.checkpoint()?;
        repo.backup(&server, &["--compress=none"])?;
        for entry in fs::read_dir(repo.backup_dir())? {
            let bytes = fs::read(entry?.path())?;
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
        let place = repo.place();
        let with = |verb: &[&str], key: Option<&Path>| -> Result<Finished> {
            let mut command = haulout();
            command.args(verb).arg("--repo").arg(&place);
            if let Some(key) = key {
                command.arg("--key-file").arg(key);
            }
            process::run(command)
        };
        let other = repo.scratch.join("other");
        let mut new = haulout();
        new.args(["key", "new"]).arg(&other);
        process::run(new)?.success()?;
        let to = repo.scratch.join("data").display().to_string();
        let restore = ["restore", "LATEST", "--to", &to];
        assert_failed(&with(&restore, None)?, exit::USAGE, &["sealed", "no key was given"]);
        assert_failed(&with(&restore, Some(&other))?, exit::USAGE, &["does not open"]);
        // What is there can be listed and hashed without a key.
        with(&["list"], None)?.success()?;
        with(&["verify"], None)?.success()?;
        assert_failed(&with(&["verify", "--deep"], None)?, exit::USAGE, &["no key was given"]);

        // The key is replaced, and the backup stays as it is.
        let manifest = repo.backup_dir().join("manifest.json");
        let before = fs::read(&manifest)?;
        let fingerprints = |key: &Path| -> Result<Vec<String>> {
            let listed = with(&["key", "list"], Some(key))?.success()?.stdout_text();
            let first = |line: &str| line.split(' ').next().unwrap().to_owned();
            Ok(listed.lines().map(first).collect())
        };
        let add = ["key", "add", &other.display().to_string()];
        with(&add, Some(&repo.key()))?.success()?;
        let both = fingerprints(&other)?;
        with(&["key", "remove", &both[0]], Some(&other))?.success()?;
        assert_eq!(fingerprints(&other)?, both[1..]);
        assert_failed(&with(&restore, Some(&repo.key()))?, exit::USAGE, &["does not open"]);
        let last = with(&["key", "remove", &both[1]], Some(&other))?;
        assert_failed(&last, exit::USAGE, &["last key"]);
        assert_eq!(before, fs::read(&manifest)?);
        with(&["verify", "--deep"], Some(&other))?.success()?;
        with(&restore, Some(&other))?.success()?;
        let copy = proof::replica_options(server.options()).start_on(Path::new(&to))?;
        let found = copy.client()?.scalar("SELECT b FROM d.t WHERE a = 0")?;
        assert_eq!(found.as_deref(), Some(secret));
        Ok(())
    })());
}

#[test]
fn backups_expire_by_rules_and_what_is_kept_stays() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let server = small_server()?;
        let mut names = Vec::new();
        for _ in 0..4 {
            let stored = repo.backup(&server, &[])?;
            names.push(stored["name"].as_str().unwrap().to_owned());
            // Names are by the second.
            std::thread::sleep(Duration::from_millis(1100));
        }
        assert_failed(&repo.run("expire", &[])?, exit::USAGE, &["no rule"]);
        repo.json("keep", &[&names[0]])?;
        let listed = || -> Result<Vec<String>> {
            let listed = repo.json("list", &[])?;
            let backups = listed["backups"].as_array().unwrap().iter();
            Ok(backups.map(|backup| backup["name"].as_str().unwrap().to_owned()).collect())
        };
        let dry = repo.json("expire", &["--keep-last=1"])?;
        assert_eq!((dry["done"].as_bool(), listed()?.len()), (Some(false), 4));
        // A backup that was never finished, and so may be being taken.
        let unfinished = repo.place().join("backups").join(&names[1]);
        fs::remove_file(unfinished.join("manifest.json"))?;
        repo.json("expire", &["--keep-last=1", "--delete"])?;
        assert_eq!(listed()?, [names[0].clone(), names[3].clone()]);
        assert!(unfinished.join("pack-000000.xb.zst").exists());
        repo.json("expire", &["--garbage", "--grace=0s", "--delete"])?;
        assert!(!unfinished.join("pack-000000.xb.zst").exists());
        repo.json("unkeep", &[&names[0][..16]])?;
        repo.json("expire", &["--keep-last=1", "--delete"])?;
        assert_eq!(listed()?, [names[3].clone()]);
        repo.json("verify --deep", &[])?;
        Ok(())
    })());
}

/// Gives a backup another time, as a wrong clock would have; returns its new name.
fn make_backup_of(repo: &Repo, name: &str, year: &str) -> Result<String> {
    let dir = repo.place().join("backups");
    let new = format!("{year}{}", &name[4..]);
    let manifest = dir.join(name).join("manifest.json");
    let text = fs::read(&manifest)?;
    let key = engine::store::Key::new("backups/x/manifest.json")?;
    let mut wrong = Head::parse(&text, &key)?.complete(&text, &key)?;
    wrong.name = BackupName::parse(&new).unwrap();
    wrong.began = format!("{year}{}", &wrong.began.to_string()[4..]).parse()?;
    wrong.ended = format!("{year}{}", &wrong.ended.to_string()[4..]).parse()?;
    fs::write(&manifest, wrong.to_text(None)?)?;
    fs::rename(dir.join(name), dir.join(&new))?;
    Ok(new)
}

/// A second server is noticed, two backups at once are two backups, and LATEST is the last one even
/// if a clock was wrong.
#[test]
fn a_repository_knows_its_server_and_its_order() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let (server, second) = (small_server()?, small_server()?);
        let name = |stored: Value| stored["name"].as_str().unwrap().to_owned();
        let started = |server: &Server| process::start(repo.backup_command(server), None);
        let at_once = [started(&server)?, started(&server)?];
        for running in at_once {
            running.wait(process::DEFAULT_LIMIT)?.success()?;
        }
        assert_eq!(repo.json("verify --deep", &[])?["backups"].as_array().unwrap().len(), 2);

        let refused = process::run(repo.backup_command(&second))?;
        assert_failed(&refused, exit::USAGE, &["another server", "datadir", "--accept-new-server"]);
        let accepted = name(repo.backup(&second, &["--accept-new-server"])?);
        repo.backup(&second, &[])?;
        let refused = process::run(repo.backup_command(&server))?;
        assert_failed(&refused, exit::USAGE, &["another server"]);
        let mut delta = repo.backup_command(&server);
        delta.arg("--accept-new-server").arg(format!("--delta={accepted}"));
        let refused = process::run(delta)?;
        assert_failed(&refused, exit::USAGE, &["cannot be the parent", "another server"]);
        repo.json("expire", &["--keep-last=1", "--delete"])?;

        let last = || Ok::<_, anyhow::Error>(name(repo.json("show LATEST", &[])?));
        let future = make_backup_of(&repo, &last()?, "2099")?;
        assert_eq!(last()?, future);
        let run = process::run(repo.backup_command(&second))?.success()?;
        assert!(run.stderr.contains("clock") && run.stderr.contains(&future), "{}", run.report());
        let after = last()?;
        assert_ne!(after, future);
        let past = name(repo.backup(&second, &[])?);
        let past = make_backup_of(&repo, &past, "2001")?;
        assert_eq!(last()?, past);
        let dry = repo.json("expire", &["--keep-last=2"])?;
        let stay = |verdict: &&Value| !verdict["stays"].as_array().unwrap().is_empty();
        let stay: Vec<&Value> = dry["backups"].as_array().unwrap().iter().filter(stay).collect();
        assert_eq!(
            stay.iter().map(|v| v["name"].as_str().unwrap()).collect::<Vec<_>>(),
            [&past, &after]
        );

        // What is damaged stays, unless somebody says its name.
        let manifest = repo.place().join("backups").join(&future).join("manifest.json");
        fs::write(manifest, "{}")?;
        repo.json("expire", &["--keep-last=1", "--delete"])?;
        let listed = repo.run("list", &[])?;
        assert_eq!(listed.code(), Some(exit::DAMAGE));
        assert!(
            listed.stdout_text().contains("DAMAGED") && !listed.stdout_text().contains(&accepted)
        );
        repo.json("expire", &["--backup", &future, "--delete"])?;
        assert_eq!(repo.json("list", &[])?["backups"].as_array().unwrap().len(), 1);
        assert_eq!(last()?, past);
        repo.json("verify --deep", &[])?;
        Ok(())
    })());
}

/// What would make a backup fail is said before one is taken, of server and store.
#[test]
fn a_check_finds_what_a_backup_would_fail_with() {
    common::ok((|| -> Result<()> {
        let store = S3Server::start()?;
        let proxy = FaultyProxy::start(store.address())?;
        let repo = Repo::init_on(true, Some(proxy.endpoint()))?;
        let server = small_server()?;
        type Bad = Vec<(String, String)>;
        let check = |user: &str, server: &Server| -> Result<(Option<i32>, Bad)> {
            let mut command = repo.command("check");
            command.args(["--json", "--no-defaults", "--patience=1s", "--user", user]);
            command.arg(format!("--socket={}", server.socket().display()));
            let run = process::run(command)?;
            let document: Value = serde_json::from_slice(&run.stdout)?;
            let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
            let findings = document["findings"].as_array().unwrap().iter();
            let bad = findings.filter(|finding| finding["state"] == "bad");
            let bad = bad.map(|bad| (text(bad, "what"), bad.to_string())).collect();
            Ok((run.code(), bad))
        };
        assert_eq!(check("root", &server)?, (Some(0), vec![]));
        // Nothing stays in the store.
        assert!(
            !proxy.requests().is_empty()
                && repo.json("list", &[])?["backups"] == Value::Array(vec![])
        );

        server.run("CREATE USER poor")?;
        let (code, bad) = check("poor", &server)?;
        assert_eq!((code, bad.len()), (Some(exit::SERVER), 1), "{bad:?}");
        assert!(bad[0].0 == "privileges" && bad[0].1.contains("GRANT RELOAD"), "{bad:?}");

        repo.backup(&server, &[])?;
        let other = small_server()?;
        let (code, bad) = check("root", &other)?;
        assert_eq!((code, bad.len()), (Some(exit::USAGE), 1), "{bad:?}");
        assert!(bad[0].1.contains("another server"), "{bad:?}");

        for (method, what) in [("PUT", "store"), ("GET", "store")] {
            let refusal = Refusal::new(403, "AccessDenied");
            proxy.add(Rule::all(Fault::Refuse(refusal)).method(method).path("probe/"));
            let (code, bad) = check("root", &server)?;
            assert_eq!((code, bad.len()), (Some(5), 1), "{bad:?}");
            assert!(bad[0].0 == what && bad[0].1.contains("s3:"), "{bad:?}");
            proxy.clear();
        }
        // A host that only takes backups needs no right to delete.
        let refusal = Refusal::new(403, "AccessDenied");
        proxy.add(Rule::all(Fault::Refuse(refusal)).method("POST"));
        assert_eq!(check("root", &server)?.0, Some(0));
        proxy.clear();
        let mut keyless = repo.command("check");
        keyless.args(["--no-server", "--key-fd=0"]);
        let run = process::run(keyless)?;
        assert_failed(&run, exit::USAGE, &[]);
        let said = process::run({
            let mut command = repo.command("check");
            command.arg("--no-server");
            command
        })?;
        assert!(said.success()?.stdout_text().contains("\u{2713} conditional put: works"));
        Ok(())
    })());
}

/// A backup that is killed at any moment is not in the repository.
#[test]
fn a_killed_backup_is_none() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let server = small_server()?;
        let (mut killed, mut finished) = (0, 0);
        for millis in (20..=420).step_by(40) {
            let mut command = repo.backup_command(&server);
            command.arg("--store-memory=100MiB");
            let running = process::start(command, None)?;
            std::thread::sleep(Duration::from_millis(millis));
            // It may have ended by itself.
            let _ = running.signal(rustix::process::Signal::KILL);
            match running.wait(process::DEFAULT_LIMIT)?.code() {
                Some(_) => finished += 1,
                None => killed += 1,
            }
        }
        assert!(killed > 3, "only {killed} were killed");
        let listed = repo.json("list", &[])?;
        // One can be killed between its manifest and its end.
        let there = listed["backups"].as_array().unwrap().len();
        assert!(there == finished || there == finished + 1, "{there}, {finished}");
        repo.json("verify --deep", &[])?;
        repo.backup(&server, &[])?;
        repo.json("expire", &["--keep-last=1", "--grace=0s", "--delete"])?;
        assert_eq!(repo.json("list", &[])?["backups"].as_array().unwrap().len(), 1);
        let left = fs::read_dir(repo.place().join("backups"))?.filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
        });
        assert_eq!(left.count(), 1);
        Ok(())
    })());
}

/// From a folder to a bucket with another key, and restored from there.
#[test]
fn a_copy_in_another_repository_is_as_good() {
    common::ok((|| -> Result<()> {
        let store = S3Server::start()?;
        let (here, there) = (Repo::init(true)?, Repo::init_on(true, Some(store.endpoint()))?);
        let server = small_server()?;
        here.backup(&server, &["--store-memory=100MiB"])?;
        let mut copy = here.command("copy");
        copy.arg("LATEST").arg(format!("--to=s3://{}/db1", s3::BUCKET));
        copy.args(["--s3-endpoint", &store.endpoint(), "--json"]);
        copy.env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY);
        copy.arg("--to-key-file").arg(there.key());
        let summary: Value = serde_json::from_slice(&process::run(copy)?.success()?.stdout)?;
        assert_eq!(summary["copied"].as_array().unwrap().len(), 1);
        there.json("verify --deep", &[])?;
        let scratch = Scratch::new()?;
        let datadir = scratch.join("data");
        there.json("restore", &["LATEST", "--to", &datadir.display().to_string()])?;
        let copy = proof::replica_options(server.options()).start_on(&datadir)?;
        let rows = copy.client()?.scalar("SELECT COUNT(*) FROM d.t")?;
        assert_eq!(rows.as_deref(), Some("20000"));
        Ok(())
    })());
}

/// What somebody can write into the store who has no key.
#[test]
fn what_was_forged_without_the_key_is_not_restored() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(true)?;
        let server = small_server()?;
        repo.backup(&server, &[])?;
        let manifest = repo.backup_dir().join("manifest.json");
        let text = fs::read_to_string(&manifest)?;
        // Another GTID position, and a hash that fits.
        let forged = text.replace("\"end\":", "\"end\":1");
        assert_ne!(forged, text);
        let blank = |text: &str, at: usize| {
            format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + 64..])
        };
        let (hash, code) = (11, 11 + 64 + 10);
        let head = &forged[..forged.find(",\"packs\":").unwrap()];
        let sum = engine::repo::seal::sha256(blank(&blank(head, hash), code).as_bytes());
        let forged = format!("{}{sum}{}", &forged[..hash], &forged[hash + 64..]);
        fs::write(&manifest, &forged)?;
        // Without a key it looks well; with the key it does not.
        let mut list = haulout();
        list.arg("list").arg("--repo").arg(repo.place());
        process::run(list)?.success()?;
        restore_fails(&repo, &["manifest.json", "had a key"])?;
        fs::write(&manifest, &text)?;
        // A repository that says it is not sealed.
        let config = repo.place().join("haulout.json");
        let sealed = fs::read_to_string(&config)?;
        fs::write(&config, sealed.replace("\"sealed\": true", "\"sealed\": false"))?;
        let run = repo.run("restore", &["LATEST", "--to", "/nonexistent/x"])?;
        assert_failed(&run, exit::USAGE, &["not sealed"]);
        let mut restore = haulout();
        restore.args(["restore", "LATEST", "--to", "/nonexistent/x", "--repo"]).arg(repo.place());
        assert_failed(&process::run(restore)?, exit::DAMAGE, &["sealed"]);
        Ok(())
    })());
}

/// Over a data directory with another state, only what differs is written.
#[test]
fn a_restore_over_another_state_writes_what_differs() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let server = small_server()?;
        server.run("CREATE TABLE d.large (a INT PRIMARY KEY, b BINARY(64))")?;
        server
            .run("INSERT INTO d.large SELECT seq, UNHEX(SHA2(seq, 512)) FROM d.seq_1_to_200000")?;
        server.checkpoint()?;
        repo.backup(&server, &[])?;
        let scratch = Scratch::new()?;
        let datadir = scratch.join("data");
        let to = datadir.display().to_string();
        repo.json("restore LATEST", &["--to", &to])?;
        let start = || proof::replica_options(server.options()).start_on(&datadir);
        let mut copy = start()?;
        let over = ["--over", &to, "--memory=64MiB"];
        assert_failed(&repo.run("restore LATEST", &over)?, exit::USAGE, &["a server is running"]);
        for sql in [
            "UPDATE d.large SET b = '' WHERE a BETWEEN 1000 AND 2000",
            "DELETE FROM d.m",
            "DROP TABLE d.t",
            "CREATE DATABASE later",
            "CREATE TABLE later.t (a INT)",
        ] {
            copy.run(sql)?;
        }
        copy.stop()?;
        drop(copy);
        let is_log = |name: &str| name.contains("bin.0") || name.contains("binlog.0");
        let logs: Vec<PathBuf> = fs::read_dir(&datadir)?
            .map(|entry| entry.unwrap().path())
            .filter(|path| is_log(path.file_name().unwrap().to_str().unwrap()))
            .collect();
        if !logs.is_empty() {
            assert_failed(&repo.run("restore LATEST", &over)?, exit::USAGE, &["binary log"]);
            logs.iter().try_for_each(fs::remove_file)?;
        }
        // Killed at any moment, no server starts, and the next one goes on.
        let mut killed = 0;
        for millis in [60, 150, 300, 450] {
            let mut command = repo.command("restore LATEST");
            command.args(over);
            let running = process::start(command, None)?;
            std::thread::sleep(Duration::from_millis(millis));
            let _ = running.signal(rustix::process::Signal::KILL);
            if running.wait(process::DEFAULT_LIMIT)?.code().is_none() {
                killed += 1;
            }
            let marker = fs::read(datadir.join("ib_logfile0"))?;
            if killed == 1 && marker.starts_with(b"Haulout has not finished") {
                assert!(start().is_err());
            }
        }
        assert!(killed > 0);
        let done = repo.json("restore LATEST", &over)?;
        assert!(!datadir.join("later").exists());
        let again = repo.json("restore LATEST", &over)?;
        let bytes = |document: &Value, name: &str| document[name].as_u64().unwrap();
        assert!(bytes(&done, "rewritten_bytes") < bytes(&done, "bytes") / 2, "{done}");
        assert!(bytes(&again, "rewritten_bytes") < bytes(&again, "bytes") / 4, "{again}");
        let copy = start()?;
        let complaints = compare::check_tables(&copy)?;
        assert_eq!(complaints, Vec::<String>::new());
        let tables = "CHECKSUM TABLE d.large, d.t, d.m EXTENDED";
        assert_eq!(copy.client()?.text(tables)?, server.client()?.text(tables)?);
        Ok(())
    })());
}

/// A restore that is killed leaves nothing that a server starts on, wherever the log is to be; the
/// next one begins anew.
#[test]
fn a_killed_restore_is_begun_anew() {
    common::ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let server = small_server()?;
        repo.backup(&server, &[])?;
        let scratch = Scratch::new()?;
        let datadir = scratch.join("data");
        let restore = || {
            let mut restore = repo.command("restore");
            restore.arg("LATEST").arg("--to").arg(&datadir);
            restore.args(["--innodb-log-group-home-dir", "./"]);
            restore
        };
        let (mut killed, mut whole) = (0, false);
        for millis in (5..=600).step_by(35) {
            let running = process::start(restore(), None)?;
            std::thread::sleep(Duration::from_millis(millis));
            let _ = running.signal(rustix::process::Signal::KILL);
            if running.wait(process::DEFAULT_LIMIT)?.code().is_some() {
                break;
            }
            killed += 1;
            if datadir.join("ibdata1").exists() {
                let log = fs::read(datadir.join("ib_logfile0"))?;
                if !log.starts_with(b"Haulout has not finished") {
                    // The log is placed last: only its own end was left to do.
                    whole = true;
                    break;
                }
                // It was being placed: only emptying helps, and the error says so.
                assert!(proof::replica_options(server.options()).start_on(&datadir).is_err());
                assert_failed(&process::run(restore())?, exit::USAGE, &["not empty"]);
                fs::remove_dir_all(&datadir)?;
            }
        }
        assert!(killed > 2, "only {killed} were killed");
        if !whole {
            let _ = fs::remove_dir_all(&datadir);
            process::run(restore())?.success()?;
        }
        let copy = proof::replica_options(server.options()).start_on(&datadir)?;
        let rows = copy.client()?.scalar("SELECT COUNT(*) FROM d.t")?;
        assert_eq!(rows.as_deref(), Some("20000"));
        Ok(())
    })());
}
