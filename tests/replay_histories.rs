//! Recovery from a repository, twice: what was written after the first one is a history of its own, under
//! the same numbers and names.

#![allow(clippy::unwrap_used)]

mod common;

use anyhow::{Context, ensure};
use common::replay::target_options;
use common::repo::Repo;
use common::{exit, ok};
use harness::{Client, Result, Server};
use serde_json::Value;

/// The rows that there are.
fn rows(client: &mut Client) -> Result<String> {
    let sql = "SELECT GROUP_CONCAT(v ORDER BY id) FROM d.t";
    Ok(client.scalar(sql)?.unwrap_or_default())
}

/// Restores up to a target, starts a server on it, and replays the rest.
fn recovered(repo: &Repo, source: &Server, name: &str, until: &[&str]) -> Result<Server> {
    let datadir = repo.scratch.join(name);
    let to = [until, &["--to", datadir.to_str().unwrap()]].concat();
    let done: Value = repo.json("restore", &to)?;
    let backup = done["recovery"]["backup"].as_str().context("no backup")?.to_owned();
    let mut options = target_options(source.options());
    options.server_id = source.options().server_id;
    let server = options.start_on(&datadir)?;
    let socket = server.socket().display().to_string();
    let arguments = ["--no-defaults", "--user=root", "--socket", &socket, "--from-backup", &backup];
    repo.run("replay", &[&arguments[..], until].concat())?.success()?;
    Ok(server)
}

/// A server that lost rows, and one that was recovered to before that.
struct Parted {
    source: Server,
    copy: Server,
    /// The last transaction that both have, and the one that was not wanted.
    good: String,
    bad: String,
}

fn parted(repo: &Repo) -> Result<Parted> {
    let source = harness::ServerOptions::default().start()?;
    let mut client = source.client()?;
    client.run("CREATE DATABASE d")?;
    client.run("CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(9))")?;
    client.run("INSERT INTO d.t (v) VALUES ('a')")?;
    repo.backup(&source, &[])?;
    client.run("INSERT INTO d.t (v) VALUES ('b')")?;
    let good = client.scalar("SELECT @@last_gtid")?.context("no GTID")?;
    client.run("DELETE FROM d.t")?;
    let bad = client.scalar("SELECT @@last_gtid")?.context("no GTID")?;
    client.run("INSERT INTO d.t (v) VALUES ('old')")?;
    client.run("FLUSH BINARY LOGS")?;
    repo.run("binlog push", &[source.datadir().to_str().unwrap()])?.success()?;
    // The times of both histories differ by a second at least.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let copy = recovered(repo, &source, "copy", &["--until", &bad, "--before"])?;
    let there = rows(&mut copy.client()?)?;
    ensure!(there == "a,b", "{there}");
    Ok(Parted { source, copy, good, bad })
}

#[test]
fn what_was_written_after_a_recovery_is_another_history() {
    ok((|| -> Result<()> {
        // The new history has fewer transactions than the old one, or more.
        for new in [1, 6] {
            let repo = Repo::init(false)?;
            let Parted { source, copy, good, bad } = parted(&repo)?;
            let mut client = copy.client()?;
            for _ in 0..new {
                client.run("INSERT INTO d.t (v) VALUES ('new')")?;
            }
            client.run("FLUSH BINARY LOGS")?;
            let push = [copy.datadir().to_str().unwrap(), "--accept-new-server"];
            repo.run("binlog push", &push)?.success()?;

            // Nothing is guessed.
            let plan = |until: &[&str]| {
                repo.run("restore", &[until, &["--to=/nowhere/at/all", "--plan"]].concat())
            };
            let refused = plan(&["--until=end"])?;
            common::assert_failed(&refused, exit::GAP, &["was written later", "--epoch"]);
            let refused = plan(&["--until", &bad, "--after"])?;
            common::assert_failed(&refused, exit::USAGE, &["two histories", &bad, "--epoch"]);
            let refused = plan(&["--until=end", "--epoch=none"])?;
            common::assert_failed(&refused, exit::USAGE, &["haulout binlog list"]);
            plan(&["--until", &good, "--after"])?.success()?;

            let listed = repo.json("binlog list", &[])?;
            let files = listed["files"].as_array().cloned().unwrap_or_default();
            let mut epochs: Vec<String> =
                files.iter().filter_map(|it| it["epoch"].as_str().map(str::to_owned)).collect();
            epochs.dedup();
            ensure!(epochs.len() == 2, "{listed}");
            let news = ["new"].repeat(new).join(",");
            for (epoch, there) in epochs.iter().zip(["old", &format!("a,b,{news}")]) {
                let until = ["--until=end", "--epoch", epoch];
                let name = format!("of-{epoch}");
                let server = recovered(&repo, &source, &name, &until).context(there.to_owned())?;
                let rows = rows(&mut server.client()?)?;
                ensure!(rows == there, "{epoch}: {rows} instead of {there}");
            }
            // With a backup there is nothing to choose any more.
            repo.backup(&copy, &["--accept-new-server"])?;
            client.run("INSERT INTO d.t (v) VALUES ('last')")?;
            client.run("FLUSH BINARY LOGS")?;
            repo.run("binlog push", &[copy.datadir().to_str().unwrap()])?.success()?;
            let server = recovered(&repo, &source, "last", &["--until=end"])?;
            let rows = rows(&mut server.client()?)?;
            ensure!(rows == format!("a,b,{news},last"), "{rows}");
        }
        Ok(())
    })());
}

/// With a backup that was taken at once, before anybody wrote, there is nothing to choose, either; and while
/// the log behind it is not archived, that of the old server does not take its place.
#[test]
fn a_backup_at_once_is_of_the_new_history_only() {
    ok((|| -> Result<()> {
        let repo = Repo::init(false)?;
        let Parted { source, copy, bad, .. } = parted(&repo)?;
        let first = repo.backup(&copy, &["--accept-new-server"])?;
        let refused = repo.run("restore", &["--until=end", "--to=/nowhere/at/all", "--plan"])?;
        common::assert_failed(&refused, exit::GAP, &["is another history"]);
        let mut client = copy.client()?;
        client.run("INSERT INTO d.t (v) VALUES ('new')")?;
        client.run("FLUSH BINARY LOGS")?;
        let push = [copy.datadir().to_str().unwrap(), "--accept-new-server"];
        repo.run("binlog push", &push)?.success()?;
        for (name, until) in
            [("end", &["--until=end"][..]), ("gtid", &["--until", &bad, "--after"])]
        {
            let plan = [until, &["--to=/nowhere/at/all", "--plan"]].concat();
            let plan = repo.json("restore", &plan)?;
            ensure!(plan["recovery"]["backup"] == first["name"], "{plan}");
            let server = recovered(&repo, &source, name, until)?;
            let rows = rows(&mut server.client()?)?;
            ensure!(rows == "a,b,new", "{name}: {rows}");
        }
        Ok(())
    })());
}
