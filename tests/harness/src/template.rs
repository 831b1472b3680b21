//! Freshly installed data directories, made once per shape and copied from then on.
//!
//! Copying takes a fraction of the time of installing. Templates live in the build directory;
//! a lock file serialises test processes that want the same one, and a template becomes
//! visible by a rename only when it is complete.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::Result;
use crate::scratch::{Scratch, cache_dir, copy_tree};
use crate::server::ServerOptions;

/// A database with more undo tablespaces is large, and few tests need one: it is installed each time
/// instead of being kept.
const KEPT_UNDO_TABLESPACES: u32 = 20;

/// Fills `datadir` with an installed, never started database of the shape in `options`.
pub fn instantiate(options: &ServerOptions, datadir: &Path) -> Result<()> {
    if options.undo_tablespaces > KEPT_UNDO_TABLESPACES {
        return install(options, &options.shape_arguments(), datadir);
    }
    copy_tree(&template(options)?, datadir)
}

fn template(options: &ServerOptions) -> Result<PathBuf> {
    let shape = options.shape_arguments();
    let name: String = std::iter::once(options.version()?)
        .chain(shape.iter().cloned())
        .collect::<Vec<_>>()
        .join("_")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let dir = cache_dir("haulout-templates")?;
    let template = dir.join(&name);

    let lock = File::create(dir.join(format!("{name}.lock")))?;
    lock.lock()?;
    if template.exists() {
        return Ok(template);
    }
    let building = dir.join(format!("{name}.building"));
    if building.exists() {
        std::fs::remove_dir_all(&building)?;
    }
    install(options, &shape, &building)?;
    std::fs::rename(&building, &template)?;
    Ok(template)
}

fn install(options: &ServerOptions, shape: &[String], datadir: &Path) -> Result<()> {
    let program = options.generation.program("mariadb-install-db");
    // A server that starts removes what it takes for left-over tables of its temporary directory.
    let scratch = Scratch::new()?;
    let output = Command::new(&program)
        .env("TMPDIR", scratch.path())
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(format!("--basedir={}", options.generation.basedir()?.display()))
        .arg(format!("--datadir={}", datadir.display()))
        .arg(format!("--user={}", crate::server::unix_user()))
        .args(shape)
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}\n{}\n{}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
