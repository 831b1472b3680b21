//! Repositories that tests use, through the program.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::process::{self, Finished};
use harness::{Result, Scratch, Server, ServerOptions, s3};
use serde_json::Value;

/// The program, without a key that the user may have.
pub fn haulout() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haulout"));
    command.env_remove("HAULOUT_KEY");
    command
}

/// A repository in a folder or a bucket, and the key of it if it is sealed.
pub struct Repo {
    /// Where its folder and its key are.
    pub scratch: Scratch,
    sealed: bool,
    /// Address of the server that has the bucket.
    endpoint: Option<String>,
}

impl Repo {
    /// A new one in a folder.
    pub fn init(sealed: bool) -> Result<Self> {
        Self::init_on(sealed, None)
    }

    /// A new one, in a bucket if there is an address.
    pub fn init_on(sealed: bool, endpoint: Option<String>) -> Result<Self> {
        let repo = Self { scratch: Scratch::new()?, sealed, endpoint };
        let mut init = repo.command("init");
        if sealed {
            let mut key = haulout();
            key.args(["key", "new"]).arg(repo.key());
            process::run(key)?.success()?;
        } else {
            init.arg("--unsealed");
        }
        process::run(init)?.success()?;
        Ok(repo)
    }

    /// Its folder.
    pub fn place(&self) -> PathBuf {
        self.scratch.join("repo")
    }

    /// Address of the server that has its bucket, if it is in one.
    pub fn bucket(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The file with its key.
    pub fn key(&self) -> PathBuf {
        self.scratch.join("key")
    }

    /// A command on the repository, with its key.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = haulout();
        command.args(verb.split(' '));
        match &self.endpoint {
            None => command.arg("--repo").arg(self.place()),
            Some(endpoint) => command
                .arg(format!("--repo=s3://{}/db1", s3::BUCKET))
                .args(["--s3-endpoint", endpoint])
                .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY),
        };
        if self.sealed {
            command.arg("--key-file").arg(self.key());
        }
        command
    }

    /// Runs a command on it.
    pub fn run(&self, verb: &str, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.command(verb);
        command.args(arguments);
        process::run(command)
    }

    /// Runs a command on it that must succeed; its document.
    pub fn json(&self, verb: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(verb);
        command.args(arguments).arg("--json");
        Ok(serde_json::from_slice(&process::run(command)?.success()?.stdout)?)
    }

    /// A backup of a server, to be run.
    pub fn backup_command(&self, server: &Server) -> Command {
        let mut command = self.command("backup");
        command.args(["--no-defaults", "--user=root"]);
        command.arg(format!("--socket={}", server.socket().display()));
        command
    }

    /// Takes a backup; its document.
    pub fn backup(&self, server: &Server, arguments: &[&str]) -> Result<Value> {
        let mut command = self.backup_command(server);
        command.arg("--json").args(arguments);
        Ok(serde_json::from_slice(&process::run(command)?.success()?.stdout)?)
    }

    /// The files of the only backup.
    pub fn backup_dir(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.place().join("backups")).unwrap();
        let dir = entries.next().unwrap().unwrap().path();
        assert!(entries.next().is_none());
        dir
    }
}

/// A server with a few tables.
pub fn small_server() -> Result<Server> {
    let server = ServerOptions::default().start()?;
    server.run("CREATE DATABASE d")?;
    server.run("CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")?;
    server.run("INSERT INTO d.t SELECT seq, REPEAT(seq, 50) FROM d.seq_1_to_20000")?;
    server.run("CREATE TABLE d.m (a INT) ENGINE=MyISAM")?;
    server.run("INSERT INTO d.m VALUES (1)")?;
    Ok(server)
}
