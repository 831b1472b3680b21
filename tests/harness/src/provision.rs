//! Unpacking servers of other Debian releases than the machine's own, and other things of theirs.
//!
//! apt, with lists and a cache of its own, resolves and fetches a server with every library
//! it needs from the archive that the machine's own sources name. The packages are unpacked,
//! not installed: no root, no service, no conflict with what is there. A program then needs
//! the C library of its own release, so its loader and library path are written into it; that
//! leaves it an ordinary program, which finds itself by its path and starts others of its kind.
//!
//! A directory becomes visible by a rename when it is complete; a lock file serialises
//! processes that want the same one.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::generation::Generation;
use crate::scratch::cache_dir;
use crate::{Result, process};

/// Where the servers are kept; the default is below the user's cache directory, so that all
/// checkouts share them.
const VARIABLE: &str = "HAULOUT_SERVER_CACHE";

/// Grows with every change of what is unpacked.
const LAYOUT: u32 = 1;

/// Signatures of the archive, beyond those that the machine's own release knows.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages of every release.
const PACKAGES: &[&str] = &[
    "mariadb-server",
    "mariadb-client",
    "mariadb-backup",
    "mariadb-plugin-connect",
    "mariadb-plugin-mroonga",
    "mariadb-plugin-oqgraph",
    "mariadb-plugin-rocksdb",
    "mariadb-plugin-s3",
    "mariadb-plugin-spider",
    "patchelf",
];

/// What MariaDB's own tests of its tools need besides.
const SUITE_PACKAGES: &[&str] = &["mariadb-test"];

/// Packages since 10.7; before, the server itself holds what they hold, or does not have it.
const PACKAGES_SINCE_10_7: &[&str] = &[
    "mariadb-plugin-hashicorp-key-management",
    "mariadb-plugin-provider-bzip2",
    "mariadb-plugin-provider-lz4",
    "mariadb-plugin-provider-lzma",
    "mariadb-plugin-provider-lzo",
    "mariadb-plugin-provider-snappy",
];

/// The programs to keep of a server for our tests; the others take twice the room of these.
const PROGRAMS: &[&str] = &[
    "aria_chk",
    "aria_dump_log",
    "aria_read_log",
    "innochecksum",
    "mariadb",
    "mariadb-backup",
    "mariadb-binlog",
    "mariadb-check",
    "mariadb-dump",
    "mariadb-upgrade",
    "mariadbd",
    "mbstream",
    "my_print_defaults",
    "myisamchk",
    "resolveip",
];

/// What else to keep: a script, and the link by which the oldest of it finds the server.
const COMPANIONS: &[&str] = &["mariadb-install-db", "mysqld"];

impl Generation {
    const fn release(self) -> &'static str {
        match self {
            Self::V10_5 => "bullseye",
            Self::V10_11 => "bookworm",
            Self::V11_8 => "trixie",
        }
    }

    /// Whether to take the server of the security archive. That of bullseye is left out, so
    /// that the plain archive's server is tested, which most installations of 10.5 have.
    const fn with_security(self) -> bool {
        matches!(self, Self::V10_11)
    }

    fn packages(self, contents: Contents) -> Vec<&'static str> {
        let more = if self >= Self::V10_11 { PACKAGES_SINCE_10_7 } else { &[] };
        let suite = if contents == Contents::Suite { SUITE_PACKAGES } else { &[] };
        PACKAGES.iter().chain(more).chain(suite).copied().collect()
    }

    fn wanted(self, packages: Vec<&'static str>, keep: fn(&str) -> bool) -> Wanted {
        Wanted { release: self.release(), security: self.with_security(), packages, keep }
    }
}

/// Packages of a release.
struct Wanted {
    release: &'static str,
    /// Whether to take those of the security archive.
    security: bool,
    packages: Vec<&'static str>,
    /// Which of them, and of those that they depend on, to unpack.
    keep: fn(&str) -> bool,
}

/// What is unpacked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// A server and the programs that our tests start.
    Server,
    /// Everything, with MariaDB's own tests.
    Suite,
}

/// The directory of a generation; fetches and unpacks it when it is not there yet. Without an
/// archive, an installed server of the series will do.
pub(crate) fn root(generation: Generation) -> Result<PathBuf> {
    let root =
        servers_dir()?.join(format!("{}-{}-{LAYOUT}", generation.series(), generation.release()));
    if root.exists() {
        return Ok(root);
    }
    match server(generation, Contents::Server, &root) {
        Ok(()) => Ok(root),
        Err(error) if is_installed(generation) => {
            eprintln!("{error:#}; using the installed server");
            Ok(PathBuf::from("/"))
        }
        Err(error) => Err(error),
    }
}

/// The directory of a generation with MariaDB's own tests.
pub(crate) fn suite(generation: Generation) -> Result<PathBuf> {
    let dir = suites_dir()?;
    let name = format!("{}-{}-suite-{LAYOUT}", generation.series(), generation.release());
    let root = dir.join(name);
    if !root.exists() {
        server(generation, Contents::Suite, &root)?;
    }
    Ok(root)
}

/// The library of a generation by which servers make a cluster, and the scripts by which a node gets
/// its data from another.
pub(crate) fn galera(generation: Generation) -> Result<PathBuf> {
    let name = format!("{}-{}-galera-{LAYOUT}", generation.series(), generation.release());
    let root = suites_dir()?.join(name);
    let wanted = generation.wanted(vec!["galera-4", "mariadb-server"], |name| {
        name == "galera-4" || name.starts_with("mariadb-server") && !name.contains("core")
    });
    unpack(&wanted, &root, |_| Ok(()))?;
    Ok(root)
}

/// The C library of Debian 11 and what linking with it takes: a directory for `--sysroot`.
pub fn c_library() -> Result<PathBuf> {
    let root = servers_dir()?.join(format!("bullseye-libc-{LAYOUT}"));
    let wanted = Wanted {
        release: "bullseye",
        security: false,
        packages: vec!["libc6-dev"],
        keep: |name| name.starts_with("lib") || name == "linux-libc-dev",
    };
    unpack(&wanted, &root, |building| confine_links(building, building, &root))?;
    Ok(root)
}

/// Has absolute links lead to where they lead within `root`, and not to the machine's own files.
fn confine_links(dir: &Path, building: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            confine_links(&path, building, root)?;
        } else if let Ok(target) = fs::read_link(&path)
            && let Ok(below) = target.strip_prefix("/")
        {
            ensure!(building.join(below).exists(), "{} leads nowhere", path.display());
            fs::remove_file(&path)?;
            symlink(root.join(below), &path)?;
        }
    }
    Ok(())
}

/// Where the suites are. They are run by another user than root, who could not look into root's
/// own cache.
fn suites_dir() -> Result<PathBuf> {
    if !crate::runs_as_root() || std::env::var_os(VARIABLE).is_some() {
        return servers_dir();
    }
    let dir = PathBuf::from("/var/cache/haulout");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

fn servers_dir() -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = named(VARIABLE)
        .or_else(|| named("XDG_CACHE_HOME").map(|dir| dir.join("haulout/servers")))
        .or_else(|| named("HOME").map(|dir| dir.join(".cache/haulout/servers")));
    let Some(dir) = dir else { return cache_dir("haulout-servers") };
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir.canonicalize()?)
}

fn is_installed(generation: Generation) -> bool {
    let output = Command::new("/usr/sbin/mariadbd").args(["--no-defaults", "--version"]).output();
    let Ok(output) = output else { return false };
    String::from_utf8_lossy(&output.stdout).contains(&format!("Ver {}.", generation.series()))
        && Path::new("/usr/bin/mariadb-backup").exists()
}

/// A server, ready to be started.
fn server(generation: Generation, contents: Contents, root: &Path) -> Result<()> {
    let wanted = generation.wanted(generation.packages(contents), |name| {
        let is_server = name.starts_with("mariadb-") || name == "patchelf";
        // Libraries of interpreters are large, and no use without them.
        let of_interpreter = name.starts_with("libperl") || name.starts_with("libpython");
        is_server || name.starts_with("lib") && !of_interpreter
    });
    unpack(&wanted, root, |building| link(building, root, contents))
}

/// Fetches packages and unpacks them, unless that was done; `finish` makes the directory ready for
/// where it will be.
fn unpack(wanted: &Wanted, root: &Path, finish: impl Fn(&Path) -> Result<()>) -> Result<()> {
    if root.exists() {
        return Ok(());
    }
    let beside = |suffix: &str| {
        let mut name = root.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let lock = File::create(beside(".lock"))?;
    lock.lock()?;
    if root.exists() {
        return Ok(());
    }
    eprintln!("unpacking {} of {} into {}", wanted.packages[0], wanted.release, root.display());
    let building = beside(".building");
    let apt = Apt { dir: beside(".apt"), wanted };
    for dir in [&building, &apt.dir] {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
    }
    let unpacked = apt.fetch().and_then(|packages| {
        for package in &packages {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(package).arg(&building);
            process::run(unpack)?.success()?;
        }
        finish(&building)
    });
    fs::remove_dir_all(&apt.dir)?;
    unpacked?;
    fs::rename(&building, root).with_context(|| format!("rename to {}", root.display()))
}

/// apt with a world of its own; only the machine's proxies and logins are shared.
struct Apt<'a> {
    dir: PathBuf,
    wanted: &'a Wanted,
}

impl Apt<'_> {
    /// Downloads the packages that are worth unpacking; their paths.
    fn fetch(&self) -> Result<Vec<PathBuf>> {
        for dir in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        fs::write(self.dir.join("status"), "")?;
        fs::write(self.dir.join("sources.list"), self.sources()?)?;
        process::run(self.command(&["-qq", "update"]))?.success()?;

        let mut resolve = self.command(&["-qq", "--simulate", "install"]);
        resolve.args(&self.wanted.packages);
        let resolved = process::run(resolve)?.success()?;
        let resolved = String::from_utf8_lossy(&resolved.stdout);
        let wanted = |line| package(line, self.wanted.keep);
        let wanted: Vec<String> = resolved.lines().filter_map(wanted).collect();
        ensure!(!wanted.is_empty(), "apt found nothing to install: {resolved}");

        let mut download = self.command(&["-qq", "download"]);
        download.args(wanted).current_dir(self.dir.join("packages"));
        process::run(download)?.success()?;
        let packages = fs::read_dir(self.dir.join("packages"))?;
        Ok(packages.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        let place = |option: &str, name: &str| {
            ["-o".to_owned(), format!("{option}={}", self.dir.join(name).display())]
        };
        command
            .args(place("Dir::State", ""))
            .args(place("Dir::State::Lists", "lists"))
            .args(place("Dir::State::Status", "status"))
            .args(place("Dir::Cache", "cache"))
            .args(place("Dir::Etc::SourceList", "sources.list"))
            .args(["-o", "Dir::Etc::SourceParts=/dev/null"])
            .args(["-o", "Dir::Etc::Preferences=/dev/null"])
            .args(["-o", "Dir::Etc::PreferencesParts=/dev/null"])
            .args(["-o", "APT::Install-Recommends=false"])
            // Another user could not write into the directory.
            .args(["-o", "APT::Sandbox::User=root"])
            .args(words);
        command
    }

    /// The release, in the archive that the machine's own apt uses.
    fn sources(&self) -> Result<String> {
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]);
        command.arg("Created-By: Packages");
        let known = process::run(command).context("servers come from Debian's archive")?;
        let known = known.success()?;
        let known = String::from_utf8_lossy(&known.stdout);
        let known = || known.lines().filter_map(|line| line.split_once(' '));
        let is_security = |release: &str| release.ends_with("-security");
        let main = known()
            .find(|(uri, release)| {
                uri.trim_end_matches('/').ends_with("/debian") && !is_security(release)
            })
            .or_else(|| known().find(|(_, release)| !is_security(release)));
        let Some((main, _)) = main else { bail!("apt's sources name no archive") };

        let signed = match Path::new(KEYRING).exists() {
            true => format!("[signed-by={KEYRING}] "),
            false => String::new(),
        };
        let release = self.wanted.release;
        let mut sources = format!("deb {signed}{main} {release} main\n");
        let security = known().find(|(_, release)| is_security(release));
        if let (Some((security, _)), true) = (security, self.wanted.security) {
            sources += &format!("deb {signed}{security} {release}-security main\n");
        }
        Ok(sources)
    }
}

/// Of the line `Inst NAME (VERSION …` what `apt-get download` takes, if it is to be kept. What else
/// packages depend on, their scripts need.
fn package(line: &str, keep: fn(&str) -> bool) -> Option<String> {
    let mut words = line.strip_prefix("Inst ")?.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.trim_start_matches('('));
    keep(name).then(|| format!("{name}={version}"))
}

/// Makes the programs in `building` ready to be started from `root`, where it will be.
fn link(building: &Path, root: &Path, contents: Contents) -> Result<()> {
    let mut libraries = Vec::new();
    for dir in ["lib", "usr/lib"] {
        let Ok(entries) = fs::read_dir(building.join(dir)) else { continue };
        for entry in entries {
            let name = entry?.file_name();
            if name.to_string_lossy().ends_with("-linux-gnu") {
                libraries.push(Path::new(dir).join(name));
            }
        }
    }
    let loader = find_loader(building, &libraries)?;
    let path = |base: &Path| {
        let dirs: Vec<String> =
            libraries.iter().map(|dir| base.join(dir).display().to_string()).collect();
        dirs.join(":")
    };
    let make_ready = |file: &Path| -> Result<()> {
        let mut patch = Command::new(building.join(&loader));
        patch
            .arg("--library-path")
            .arg(path(building))
            .arg(building.join("usr/bin/patchelf"))
            .arg("--set-interpreter")
            .arg(root.join(&loader))
            // Unlike a run path, this one also holds for what plugins need.
            .args(["--force-rpath", "--set-rpath", &path(root)])
            .arg(file);
        process::run(patch)?.success().map(drop)
    };
    for dir in ["usr/bin", "usr/sbin"] {
        for entry in fs::read_dir(building.join(dir))? {
            let file = entry?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == "patchelf" {
                continue;
            }
            match contents {
                Contents::Suite if is_program(&file)? => make_ready(&file)?,
                Contents::Suite => {}
                Contents::Server if PROGRAMS.contains(&&*name) => make_ready(&file)?,
                Contents::Server if COMPANIONS.contains(&&*name) => {}
                Contents::Server => fs::remove_file(&file)?,
            }
        }
    }
    if contents == Contents::Suite {
        for name in ["usr/share", "usr/lib"] {
            for file in files_named(&building.join(name), SAFE_PROCESS)? {
                make_ready(&file)?;
            }
        }
    }
    for dir in ["usr/share/doc", "usr/share/man"] {
        fs::remove_dir_all(building.join(dir))?;
    }
    Ok(())
}

/// The program by which MariaDB's tests start others; it is not among the programs.
const SAFE_PROCESS: &str = "my_safe_process";

/// Whether a file is a program and not a script; links are not looked at.
fn is_program(file: &Path) -> Result<bool> {
    let mut start = Vec::new();
    if !fs::symlink_metadata(file)?.is_file() {
        return Ok(false);
    }
    File::open(file)?.take(4).read_to_end(&mut start)?;
    Ok(start == *b"\x7fELF")
}

/// All programs of a name below a directory.
fn files_named(dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.append(&mut files_named(&path, name)?);
        } else if entry.file_name() == name && is_program(&path)? {
            found.push(path);
        }
    }
    Ok(found)
}

/// The dynamic loader, relative to the root.
fn find_loader(building: &Path, libraries: &[PathBuf]) -> Result<PathBuf> {
    for dir in libraries {
        for entry in fs::read_dir(building.join(dir))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with("ld-linux") {
                return Ok(dir.join(name));
            }
        }
    }
    bail!("no dynamic loader in {}", building.display())
}
