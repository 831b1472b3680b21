//! Replays onto servers, through the program.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use harness::process::{self, Finished};
use harness::proof::replica_options;
use harness::{Client, Result, Server, ServerOptions};
use serde_json::Value;

/// A replay onto a server.
pub fn replay(server: &Server, logs: &Path, arguments: &[&str]) -> Command {
    let mut command = super::repo::haulout();
    command.arg("replay").arg("--binlogs").arg(logs).args(["--no-defaults", "--user=root"]);
    command.arg(format!("--socket={}", server.socket().display())).args(arguments);
    command
}

pub fn run(server: &Server, logs: &Path, arguments: &[&str]) -> Result<Finished> {
    process::run(replay(server, logs, arguments))
}

/// A replay that must succeed; its document.
pub fn json(server: &Server, logs: &Path, arguments: &[&str]) -> Result<Value> {
    let mut command = replay(server, logs, arguments);
    command.arg("--json");
    let done = process::run(command)?;
    ensure!(done.code() == Some(0), "{}{}", done.report(), done.stdout_text());
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// A server as restored, that logs what is replayed.
pub fn target_options(source: &ServerOptions) -> ServerOptions {
    let mut options = replica_options(source);
    options.binlog = true;
    options
}

/// What a server has logged, as a set.
pub fn state(client: &mut Client) -> Result<Vec<String>> {
    let text = client.scalar("SELECT @@gtid_binlog_state")?.unwrap_or_default();
    let mut gtids: Vec<String> = text.split(',').map(str::to_owned).collect();
    gtids.sort();
    Ok(gtids)
}
