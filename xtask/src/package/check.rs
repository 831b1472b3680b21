//! What has to hold of packages, asked of dpkg and of the program itself.

use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use harness::{Result, Scratch, process};

use super::deb::{FACES, NAMES, Packages};
use super::pages::{COMPLETIONS, MANUALS, manual_pages};

/// The C library of Debian 11.
const OLDEST: GlibcVersion = GlibcVersion { major: 2, minor: 31 };

/// A version of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlibcVersion {
    major: u32,
    minor: u32,
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Checks what the program asks of the C library, and starts it with that of Debian 11. The newest
/// version that it needs symbols of.
pub fn runs_on_old_systems(program: &Path) -> Result<GlibcVersion> {
    let mut read = Command::new("readelf");
    read.args(["--version-info", "--wide"]).arg(program);
    let text = process::run(read)?.success()?.stdout_text();
    let newest = newest_glibc(&text)
        .with_context(|| format!("{} needs no symbol of glibc", program.display()))?;
    ensure!(newest <= OLDEST, "the program needs glibc {newest}, and Debian 11 has {OLDEST}");

    let library = harness::c_library()?;
    let place = library.join(format!("lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut start = Command::new(place.join(format!("ld-{OLDEST}.so")));
    start.arg("--library-path").arg(&place).arg(program).arg("--version");
    let said = process::run(start)?.success()?.stdout_text();
    ensure!(said.starts_with("haulout "), "with glibc {OLDEST} the program says {said:?}");
    Ok(newest)
}

/// The newest version among lines like `0x0010: Name: GLIBC_2.28  Flags: none  Version: 5`.
fn newest_glibc(readelf: &str) -> Option<GlibcVersion> {
    let versions = readelf.split("Name: GLIBC_").skip(1).filter_map(|rest| {
        let (major, rest) = rest.split_whitespace().next()?.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some(GlibcVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    versions.max()
}

/// Unpacks the package and starts every face of the program; pages and completions are there.
pub fn unpacked(packages: &Packages, dir: &Path) -> Result<()> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&packages.haulout).arg(dir);
    process::run(unpack)?.success()?;
    for name in NAMES {
        let mut start = Command::new(dir.join(FACES).join(name));
        start.arg("--help");
        let help = process::run(start)?.success()?.stdout_text();
        ensure!(help.starts_with(&format!("{name} of haulout")), "{name} --help says {help:?}");
    }
    let manuals = dir.join(MANUALS);
    let pages = manual_pages();
    for (name, _) in &pages {
        let page = manuals.join(format!("{name}.1.gz"));
        ensure!(page.exists(), "there is no {}", page.display());
    }
    for (_, path) in COMPLETIONS {
        let text = fs::read_to_string(dir.join(path)).with_context(|| format!("no {path}"))?;
        ensure!(text.contains("get-stream"), "{path} does not know every command");
    }
    println!("{} faces start, {} manual pages are there", NAMES.len(), pages.len());
    Ok(())
}

/// Has dpkg install, replace and remove packages in an empty system, beside a package of the shape of
/// Debian's: whose files and links are where at each step is what this checks.
pub fn switching(packages: &Packages, scratch: &Scratch) -> Result<()> {
    let theirs = stock_package(&scratch.join("stock"))?;
    let system = System::new(scratch.join("system"))?;
    let names = ["mariadb-backup", "mariabackup", "mbstream"];
    let is = |whose: &str, when: &str| -> Result<()> {
        for name in names {
            let found = system.whose(name);
            ensure!(found == whose, "{when}: {name} is {found:?} and not {whose:?}");
        }
        Ok(())
    };
    let install = |package: &PathBuf| system.dpkg(&["--install"], &[package]);
    let remove = |name: &str| system.dpkg(&["--remove", name], &[]);
    install(&packages.haulout)?;
    is("haulout", "installed alone")?;
    install(&theirs)?;
    is("stock", "after Debian's package was installed, too")?;
    remove("mariadb-backup")?;
    is("haulout", "after it was removed")?;
    install(&theirs)?;
    remove("haulout")?;
    is("stock", "after haulout was removed beside it")?;
    install(&packages.haulout)?;
    is("stock", "after haulout came second")?;
    remove("haulout")?;
    is("stock", "after that was removed")?;
    install(&packages.haulout)?;
    install(&packages.dropin)?;
    is("haulout", "after haulout-mariadb-backup was asked for")?;
    remove("haulout-mariadb-backup")?;
    install(&theirs)?;
    is("stock", "after Debian's package was asked for again")?;
    remove("mariadb-backup")?;
    remove("haulout")?;
    is("nobody", "after all were removed")?;
    println!("dpkg: installed beside Debian's package, in its place, and removed");
    Ok(())
}

/// A package with files where Debian's has them, and of its name.
fn stock_package(tree: &Path) -> Result<PathBuf> {
    let bin = tree.join("usr/bin");
    for dir in [&bin, &tree.join("DEBIAN"), &tree.join(MANUALS)] {
        fs::create_dir_all(dir)?;
    }
    for name in ["mariadb-backup", "mbstream"] {
        fs::write(bin.join(name), "stock")?;
        fs::write(tree.join(MANUALS).join(format!("{name}.1.gz")), "stock")?;
    }
    symlink("mariadb-backup", bin.join("mariabackup"))?;
    let control = "Package: mariadb-backup\nVersion: 1:10.11\nArchitecture: all\n\
                   Maintainer: Nobody <nobody@haulout.invalid>\nDescription: has the names\n";
    fs::write(tree.join("DEBIAN/control"), control)?;
    let package = tree.with_extension("deb");
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "--build"]).arg(tree).arg(&package);
    process::run(pack)?.success()?;
    Ok(package)
}

/// A system of nothing but what dpkg needs, in a directory.
struct System(PathBuf);

impl System {
    fn new(root: PathBuf) -> Result<Self> {
        for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/alternatives"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for dir in ["etc/alternatives", "usr/bin", "var/log"] {
            fs::create_dir_all(root.join(dir))?;
        }
        // What the packages depend on: dpkg runs no triggers of a package that lacks something.
        let there = ["libc6", "libgcc-s1"].map(|name| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 99\n\
                 Maintainer: Nobody <nobody@haulout.invalid>\nDescription: is there\n\n"
            )
        });
        fs::write(root.join("var/lib/dpkg/status"), there.concat())?;
        Ok(Self(root))
    }

    fn dpkg(&self, words: &[&str], packages: &[&PathBuf]) -> Result<()> {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.0.display()))
            // There is no shell in there: scripts are told where it is.
            .args(["--force-script-chrootless", "--force-not-root"])
            .args(["--force-unsafe-io", "--no-pager"])
            .args(words)
            .args(packages)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        process::run(dpkg)?.success()?;
        Ok(())
    }

    /// Whose program has a name: `haulout` by way of its alternative, `stock` or `nobody`.
    fn whose(&self, name: &str) -> String {
        let mut path = PathBuf::from("/usr/bin").join(name);
        // As the system would follow them from its own root.
        for _ in 0..8 {
            let here = self.0.join(path.strip_prefix("/").unwrap_or(&path));
            match fs::read_link(&here) {
                Ok(target) if path.starts_with("/usr/lib/haulout/bin") => {
                    return target.file_name().unwrap_or_default().to_string_lossy().into_owned();
                }
                Ok(target) => path = path.with_file_name("").join(target),
                Err(_) => {
                    return fs::read_to_string(here).unwrap_or_else(|_| "nobody".to_owned());
                }
            }
        }
        "links without end".to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::super::deb;
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let text = "  0x0010:   Name: GLIBC_2.9  Flags: none  Version: 2\n\
                    0x0020:   Name: GLIBC_2.28  Flags: none\n  0x0030: Name: GCC_3.3\n\
                    0x0040: Name: GLIBC_2.2.5  Flags: none";
        assert_eq!(newest_glibc(text).unwrap().to_string(), "2.28");
        assert_eq!(newest_glibc("Name: GCC_3.3"), None);
    }

    /// With a script in the program's place: what is checked is packages, scripts and links.
    #[test]
    fn packages_switch_and_do_not_collide() {
        let scratch = Scratch::new().unwrap();
        let program = scratch.join("program");
        fs::write(&program, "#!/bin/sh\necho \"${0##*/} of haulout\"\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let out = scratch.join("out");
        fs::create_dir(&out).unwrap();
        let packages = deb::build(&program, OLDEST, &scratch.join("trees"), &out).unwrap();
        unpacked(&packages, &scratch.join("unpacked")).unwrap();
        switching(&packages, &scratch).unwrap();
    }
}
