//! Calling cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use harness::{Result, Tool};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs cargo in the root of the workspace; its output goes to the terminal.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    visible(cargo_command(arguments))
}

/// The same with variables set.
pub fn cargo_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let mut command = cargo_command(arguments);
    command.envs(variables.iter().copied());
    visible(command)
}

fn cargo_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs a command whose output goes to the terminal; it has to succeed.
pub fn visible(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Builds the optimised `haulout` program; `HAULOUT_PROGRAM` names a finished one instead.
pub fn release() -> Result<Tool> {
    if let Some(program) = std::env::var_os("HAULOUT_PROGRAM") {
        return Ok(Tool::Haulout(program.into()));
    }
    Ok(Tool::Haulout(built("haulout")?))
}

/// Runs these commands once more as an optimised program, with the same arguments.
pub fn optimised_self() -> Result<()> {
    let mut command = Command::new(built("xtask")?);
    command.args(std::env::args_os().skip(1));
    visible(command)
}

/// Builds a program with optimisation.
fn built(name: &str) -> Result<PathBuf> {
    cargo(&["build", "--quiet", "--release", "--workspace", "--bin", name])?;
    Ok(target().join("release").join(name).canonicalize()?)
}

/// The build directory.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => root().join("target"),
    }
}

/// The tool that a command's `--tool` names.
pub fn tool(name: ToolName) -> Result<Tool> {
    match name {
        ToolName::Haulout => release(),
        ToolName::Stock => Ok(Tool::stock()),
    }
}

/// A tool by name.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum ToolName {
    /// Ours, built with optimisation.
    Haulout,
    /// `mariadb-backup`, to see how it does.
    Stock,
}
