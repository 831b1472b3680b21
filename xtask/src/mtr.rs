//! `cargo xtask mtr`: MariaDB's own tests of its backup tool, with ours in its place.
//!
//! The server is unpacked together with its test package, and the suite is run with ours under the
//! names of the stock tools. What does not pass is run once more with those, unless it is known from
//! before how that ends. What passes with the stock tools has to pass with ours, or to stand in
//! `docs/compatibility.md` with the reason; and nothing may stand there that passes.
//!
//! The suite refuses to test some things as root, so that it is run as another user then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use harness::{Generation, Result, Tool, process, runs_as_root};

use crate::{build, expected, setup};

/// The names of the stock tools that our program goes by.
const NAMES: [&str; 3] = ["mariabackup", "mariadb-backup", "mbstream"];

/// What the suite needs of the system: files and their packages.
const NEEDS: &[(&str, &str)] = &[
    ("/usr/bin/perl", "perl"),
    ("/usr/bin/patch", "patch"),
    ("/etc/protocols", "netbase"),
    ("/usr/bin/setpriv", "util-linux"),
];

/// Where test packages keep the suite, below their root.
pub const HOMES: [&str; 3] =
    ["usr/share/mysql/mysql-test", "usr/share/mariadb/mariadb-test", "usr/share/mysql-test"];

/// Who runs the suite when root may not.
const USER: [&str; 2] = ["nobody", "nogroup"];

/// Which server, which tests.
#[derive(clap::Args)]
pub struct Arguments {
    /// Series of the server
    #[arg(long, env = "HAULOUT_SERVER", value_parser = ["10.5", "10.11", "11.8"], default_value = "10.11")]
    server: String,
    /// Tests that run at the same time
    #[arg(long, default_value_t = 2)]
    parallel: u32,
    /// Run the stock tools again where ours fail, even when their results are known
    #[arg(long)]
    again: bool,
    /// Names of tests; the whole suite without
    tests: Vec<String>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Pass,
    Fail,
    /// The server at hand cannot do it, or it is switched off.
    Skipped,
}

/// Tests with their combinations.
type Outcomes = BTreeMap<String, Outcome>;

/// Runs the suite; fails when it ends otherwise than `docs/compatibility.md` says.
pub fn mtr(arguments: &Arguments) -> Result<()> {
    setup::install(NEEDS)?;
    let known = Generation::ALL.into_iter().find(|known| known.series() == arguments.server);
    let generation = known.context("no such server")?;
    let expected = expected::on(expected::TESTS, generation.series())?;
    let suite = Suite::of(generation, arguments)?;
    let Tool::Haulout(program) = build::release()? else { bail!("there is no program of ours") };

    let ours = suite.run("haulout", Some(&program), &arguments.tests)?;
    let passed: BTreeSet<&str> = ours
        .iter()
        .filter(|(_, outcome)| **outcome == Outcome::Pass)
        .map(|(name, _)| name.as_str())
        .collect();
    let others: BTreeSet<&str> =
        ours.keys().map(String::as_str).filter(|name| !passed.contains(name)).collect();
    let stock = suite.stock(&others)?;
    // Of a few tests, only these.
    let wanted = |name: &str| arguments.tests.is_empty() || ours.contains_key(name);
    let missing: Vec<&str> = stock
        .iter()
        .filter(|(name, outcome)| **outcome == Outcome::Pass && wanted(name))
        .map(|(name, _)| name.as_str())
        .filter(|name| !passed.contains(name))
        .collect();
    println!(
        "\n{}: {} pass with ours, {} with the stock tools only; details in {}",
        suite.version,
        passed.len(),
        missing.len(),
        suite.place("haulout").display()
    );
    let mut surprises = 0;
    for name in &missing {
        let how = match ours.get(*name) {
            Some(Outcome::Skipped) => "skipped",
            Some(_) => "failed",
            None => "did not run",
        };
        let why = expected.get(expected::test_of(name)).copied();
        surprises += usize::from(why.is_none());
        println!("  {how:<12} {name}: {}", why.unwrap_or("NOT EXPECTED"));
    }
    for name in passed.iter().filter(|name| expected.contains_key(expected::test_of(name))) {
        surprises += 1;
        println!("  passes       {name}: NOT EXPECTED");
    }
    ensure!(surprises == 0, "{surprises} tests end otherwise than docs/compatibility.md says");
    Ok(())
}

/// An unpacked suite.
struct Suite<'a> {
    root: PathBuf,
    home: PathBuf,
    /// Of the stock tools.
    version: String,
    arguments: &'a Arguments,
}

impl<'a> Suite<'a> {
    fn of(generation: Generation, arguments: &'a Arguments) -> Result<Self> {
        let root = generation.suite()?;
        let home = HOMES.iter().map(|home| root.join(home)).find(|home| home.exists());
        let home = home.with_context(|| format!("no suite in {}", root.display()))?;
        let mut version = Command::new(root.join("usr/bin/mariadb-backup"));
        version.arg("--version");
        let version = process::run(version)?.success()?.stderr;
        let version = version.split_whitespace().find(|word| word.ends_with("-MariaDB"));
        let version = version.context("the stock tool does not tell its version")?.to_owned();
        Ok(Self { root, home, version, arguments })
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.root.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// The directory of a run; what it leaves can be looked into.
    fn place(&self, who: &str) -> PathBuf {
        self.beside(&format!("-run-{who}"))
    }

    /// How these tests end with the stock tools, and what else is remembered of them.
    fn stock(&self, names: &BTreeSet<&str>) -> Result<Outcomes> {
        let memory = self.beside(&format!("-{}.txt", self.version));
        let mut known = match fs::read_to_string(&memory) {
            Ok(text) if !self.arguments.again => remembered(&text),
            _ => Outcomes::new(),
        };
        let unknown: BTreeSet<String> = names
            .iter()
            .filter(|name| !known.contains_key(**name))
            .map(|name| expected::test_of(name).to_owned())
            .collect();
        if !unknown.is_empty() {
            known.append(&mut self.run("stock", None, &Vec::from_iter(unknown))?);
            fs::write(&memory, to_text(&known))?;
        }
        Ok(known)
    }

    /// Runs tests, with `program` in place of the stock tools if there is one.
    fn run(&self, who: &str, program: Option<&Path>, tests: &[String]) -> Result<Outcomes> {
        let place = self.place(who);
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::create_dir_all(&place)?;
        let programs = place.join("bin");
        self.link_programs(&programs, program)?;
        let mut command = match runs_as_root() {
            true => {
                let [user, group] = USER;
                setup::as_root(&["chown", &format!("{user}:{group}"), &place.to_string_lossy()])?;
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", group, "--clear-groups", "perl"]);
                command
            }
            false => Command::new("perl"),
        };
        let script = ["mariadb-test-run.pl", "mysql-test-run.pl"].map(|name| self.home.join(name));
        let script = script.into_iter().find(|script| script.exists());
        command
            .arg(script.context("the suite has no script to run it")?)
            .args(["--suite=mariabackup", "--big-test", "--force", "--max-test-fail=0"])
            .args(["--max-save-core=0", "--max-save-datadir=0"])
            .arg(format!("--parallel={}", self.arguments.parallel))
            .arg(format!("--vardir={}", place.join("var").display()))
            .arg(format!("--client-bindir={}", programs.display()))
            .args(tests)
            .env("HOME", &place)
            // Nothing of the machine's own tools is to be tested by accident.
            .env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", programs.display()))
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        println!("{} with the tools of {who}", self.version);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let mut log = fs::File::create(place.join("log"))?;
        let mut outcomes = Outcomes::new();
        for line in BufReader::new(child.stdout.take().context("no output")?).split(b'\n') {
            let line = line?;
            log.write_all(&line)?;
            log.write_all(b"\n")?;
            let line = String::from_utf8_lossy(&line);
            if let Some((name, outcome)) = parse(&line) {
                if outcome == Outcome::Fail || !tests.is_empty() {
                    println!("  {line}");
                }
                note(&mut outcomes, name, outcome);
            }
        }
        // Its status says whether all passed, which is not the question here.
        child.wait()?;
        ensure!(!outcomes.is_empty(), "the suite ran no test: see {}", place.join("log").display());
        Ok(outcomes)
    }

    /// A directory of programs: the suite's own, save that ours goes by the names of the stock tools.
    fn link_programs(&self, dir: &Path, program: Option<&Path>) -> Result<()> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(self.root.join("usr/bin"))? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = NAMES.iter().any(|known| name == *known) && program.is_some();
            if !ours {
                symlink(entry.path(), dir.join(name))?;
            }
        }
        if let Some(program) = program {
            // Copied, because the user who runs the suite need not reach the build directory.
            fs::copy(program, dir.join("haulout"))?;
            for name in NAMES {
                symlink("haulout", dir.join(name))?;
            }
        }
        Ok(())
    }
}

/// A line of the suite about a test that ended:
/// `mariabackup.partial 'innodb' w2 [ pass ]  1234`.
fn parse(line: &str) -> Option<(String, Outcome)> {
    let (name, rest) = line.split_once(" [ ")?;
    let (word, _) = rest.split_once(" ]")?;
    let name = name.trim_end();
    // The worker is not a part of the name.
    let name = match name.rsplit_once(" w") {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    let name = name.trim().strip_prefix("mariabackup.")?;
    let outcome = match word {
        "pass" | "retry-pass" => Outcome::Pass,
        "skipped" | "disabled" => Outcome::Skipped,
        "fail" | "retry-fail" | "exp-fail" => Outcome::Fail,
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

/// A test that failed and passed when it was repeated counts as passed.
fn note(outcomes: &mut Outcomes, name: String, outcome: Outcome) {
    let known = outcomes.entry(name).or_insert(outcome);
    if *known != Outcome::Pass {
        *known = outcome;
    }
}

fn to_text(outcomes: &Outcomes) -> String {
    let line = |(name, outcome): (&String, &Outcome)| match outcome {
        Outcome::Pass => format!("pass {name}\n"),
        Outcome::Fail => format!("fail {name}\n"),
        Outcome::Skipped => format!("skipped {name}\n"),
    };
    outcomes.iter().map(line).collect()
}

fn remembered(text: &str) -> Outcomes {
    let line = |line: &str| {
        let (word, name) = line.split_once(' ')?;
        let outcome = match word {
            "pass" => Outcome::Pass,
            "fail" => Outcome::Fail,
            _ => Outcome::Skipped,
        };
        Some((name.to_owned(), outcome))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_suite() {
        for (line, known) in [
            (
                "mariabackup.partial 'innodb' w2 [ pass ]  1234",
                Some(("partial 'innodb'", Outcome::Pass)),
            ),
            (
                "mariabackup.full_backup                  [ fail ]",
                Some(("full_backup", Outcome::Fail)),
            ),
            (
                "mariabackup.log_tables    [ skipped ]  Requires debug build",
                Some(("log_tables", Outcome::Skipped)),
            ),
            ("main.select [ pass ] 1", None),
            ("mariabackup.partial [ surprise ]", None),
        ] {
            let known = known.map(|(name, outcome)| (name.to_owned(), outcome));
            assert_eq!(parse(line), known, "{line}");
        }
        let mut outcomes = Outcomes::new();
        for outcome in [Outcome::Fail, Outcome::Pass, Outcome::Fail] {
            note(&mut outcomes, "a".to_owned(), outcome);
        }
        assert_eq!(remembered(&to_text(&outcomes)), [("a".to_owned(), Outcome::Pass)].into());
    }
}
