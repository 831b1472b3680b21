//! The two packages, by `dpkg-deb`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use harness::{Result, process};

use super::check::GlibcVersion;
use super::pages;
use crate::build;

/// The directory of the faces: first in a path, it puts them in place of the stock tools.
pub const FACES: &str = "usr/lib/haulout/bin";

/// The names of the faces.
pub const NAMES: [&str; 5] =
    ["mariadb-backup", "mariabackup", "mbstream", "mariadb-binlog", "mysqlbinlog"];

/// Gives the faces the names of the stock tools, or takes them away.
const ALTERNATIVES: &str = include_str!("debian/alternatives.sh");
const POSTINST: &str = include_str!("debian/postinst.sh");
const PRERM: &str = include_str!("debian/prerm.sh");

/// When another package puts a program there or removes it, `postinst` looks again.
const TRIGGERS: &str = "interest-noawait /usr/bin/mariadb-backup\n";

const MAINTAINER: &str = "The developers of Haulout <developers@haulout.invalid>";
const HOMEPAGE: &str = env!("CARGO_PKG_REPOSITORY");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The packages.
pub struct Packages {
    /// The program.
    pub haulout: PathBuf,
    /// What takes the place of Debian's package.
    pub dropin: PathBuf,
}

/// Builds both into `out`.
pub fn build(program: &Path, glibc: GlibcVersion, trees: &Path, out: &Path) -> Result<Packages> {
    let mut asked = Command::new("dpkg");
    asked.arg("--print-architecture");
    let architecture = process::run(asked)?.success()?.stdout_text().trim().to_owned();
    let haulout = trees.join("haulout");
    fill(&haulout, program)?;
    let size = harness::scratch::tree_size(&haulout)?.div_ceil(1024);
    control(
        &haulout,
        &format!(
            "Package: haulout\nVersion: {VERSION}\nArchitecture: {architecture}\n\
             Maintainer: {MAINTAINER}\nInstalled-Size: {size}\n\
             Depends: libc6 (>= {glibc}), libgcc-s1\n\
             Suggests: haulout-mariadb-backup\nSection: database\nPriority: optional\n\
             Homepage: {HOMEPAGE}\n\
             Description: hot physical backup of MariaDB\n \
             Copies a running server without stopping it, makes the copy consistent, and puts it\n \
             back; into folders, streams and buckets. Started under the names of mariadb-backup\n \
             and mbstream it takes their options.\n"
        ),
    )?;
    let scripts = [("postinst", POSTINST), ("prerm", PRERM), ("triggers", TRIGGERS)];
    for (name, text) in scripts {
        let path = haulout.join("DEBIAN").join(name);
        fs::write(&path, text)?;
        mode(&path, if name == "triggers" { 0o644 } else { 0o755 })?;
    }
    let dropin = trees.join("haulout-mariadb-backup");
    license(&dropin, "haulout-mariadb-backup")?;
    control(
        &dropin,
        &format!(
            "Package: haulout-mariadb-backup\nVersion: {VERSION}\nArchitecture: all\n\
             Maintainer: {MAINTAINER}\nDepends: haulout (>= {VERSION})\n\
             Provides: mariadb-backup\nConflicts: mariadb-backup\nReplaces: mariadb-backup\n\
             Section: database\nPriority: optional\nHomepage: {HOMEPAGE}\n\
             Description: haulout in place of mariadb-backup and mbstream\n \
             Has no programs: it takes the place of the package mariadb-backup, so that haulout\n \
             has the names of its programs.\n"
        ),
    )?;
    let packed = |tree: &Path, architecture: &str| -> Result<PathBuf> {
        let name = tree.file_name().unwrap_or_default().to_string_lossy();
        let package = out.join(format!("{name}_{VERSION}_{architecture}.deb"));
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "-Zxz", "--build"]).arg(tree).arg(&package);
        if let Some(time) = time_of_change() {
            pack.env("SOURCE_DATE_EPOCH", time);
        }
        process::run(pack)?.success()?;
        Ok(package)
    };
    Ok(Packages { haulout: packed(&haulout, &architecture)?, dropin: packed(&dropin, "all")? })
}

/// The files of the package `haulout`.
fn fill(tree: &Path, program: &Path) -> Result<()> {
    let to = tree.join("usr/bin/haulout");
    create_parent(&to)?;
    fs::copy(program, &to).with_context(|| format!("copy {}", program.display()))?;
    mode(&to, 0o755)?;
    for name in NAMES {
        let link = tree.join(FACES).join(name);
        create_parent(&link)?;
        symlink("../../../bin/haulout", link)?;
    }
    let script = tree.join("usr/lib/haulout/alternatives");
    fs::write(&script, ALTERNATIVES)?;
    mode(&script, 0o755)?;
    pages::write(tree)?;
    license(tree, "haulout")?;
    let documents = tree.join("usr/share/doc/haulout");
    let root = build::root();
    pages::compress(&fs::read(root.join("CHANGELOG.md"))?, &documents.join("changelog.gz"))?;
    fs::copy(root.join("README.md"), documents.join("README.md"))?;
    for entry in fs::read_dir(root.join("docs"))? {
        let entry = entry?;
        let to = documents.join("docs").join(entry.file_name());
        create_parent(&to)?;
        fs::copy(entry.path(), to)?;
    }
    Ok(())
}

fn license(tree: &Path, package: &str) -> Result<()> {
    let text = fs::read_to_string(build::root().join("LICENSE"))?;
    let to = tree.join("usr/share/doc").join(package).join("copyright");
    create_parent(&to)?;
    Ok(fs::write(to, format!("Haulout, {HOMEPAGE}\nLicense: Apache-2.0\n\n{text}"))?)
}

fn control(tree: &Path, text: &str) -> Result<()> {
    let path = tree.join("DEBIAN/control");
    create_parent(&path)?;
    Ok(fs::write(path, text)?)
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a file is in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(bits))?)
}

/// When the sources were changed last, so that equal sources give equal packages.
fn time_of_change() -> Option<String> {
    let mut asked = Command::new("git");
    asked.args(["log", "-1", "--format=%ct"]).current_dir(build::root());
    let time = process::run(asked).ok()?.success().ok()?.stdout_text().trim().to_owned();
    Some(time).filter(|time| !time.is_empty())
}
