//! Installing what is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use harness::{Generation, Result};

/// Programs that tests and benchmarks start besides servers, and the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/sysbench", "sysbench"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/zstd", "zstd"),
    // The fuzzing runtime is C++.
    ("/usr/bin/g++", "g++"),
];

/// As long as this program says 101, packages do not start their services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Unpacks the servers that are missing, and installs the packages of other programs.
pub fn setup() -> Result<()> {
    install(PROGRAMS)?;
    for generation in Generation::ALL {
        generation.root()?;
    }
    Ok(())
}

/// Installs the packages of programs that are missing.
pub fn install(programs: &[(&'static str, &'static str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !Path::new(program).exists());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    println!("installing {}", packages.join(", "));
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "{} must be installed first, and this is not Debian",
        packages.join(", ")
    );
    as_root(&["apt-get", "update"])?;
    let _quiet = NoServices::declare()?;
    let mut install = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"];
    install.push("--no-install-recommends");
    install.extend(packages);
    as_root(&install)
}

/// Keeps packages from starting a system server next to the private ones of the tests.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn declare() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let mut script = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut script, b"#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(script.path(), fs::Permissions::from_mode(0o755))?;
        as_root(&["cp", "-p", &script.path().to_string_lossy(), POLICY])?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = as_root(&["rm", "-f", POLICY])
        {
            eprintln!("{error:#}; please remove {POLICY}");
        }
    }
}

/// Runs a command as root, by sudo when somebody else runs this.
pub fn as_root(words: &[&str]) -> Result<()> {
    let mut command = match harness::runs_as_root() {
        true => Command::new(words[0]),
        false => {
            ensure!(
                Path::new("/usr/bin/sudo").exists(),
                "packages are missing, and installing them needs root or sudo: {}",
                words.join(" ")
            );
            let mut command = Command::new("sudo");
            command.arg(words[0]);
            command
        }
    };
    let status = command.args(&words[1..]).status();
    let status = status.with_context(|| format!("start {}", words.join(" ")))?;
    if !status.success() {
        bail!("{} ended with {status}", words.join(" "));
    }
    Ok(())
}
