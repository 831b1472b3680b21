//! What the capture left about DDL: tablespaces dropped, renamed or made while it copied.
//!
//! | file | content | meaning |
//! |---|---|---|
//! | `db/name.del` | | `db/name.ibd` was dropped |
//! | `db/name.ren` | `newdb/newname` | `db/name.ibd` has that name now |
//! | `db/name.new` | a tablespace | takes the place of `db/name.ibd` |
//!
//! Done in this order, and so that it can be killed after any step and started again. All renames
//! together are one permutation (tables swap names), so every file first moves to a temporary
//! name next to its new one; only when all have moved do the markers go, and only when all
//! markers are gone do the files get their new names. Each state tells which of these it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::io::durable;
use crate::{Error, ErrorKind, Event, Reporter, Result};

/// What a file that waits for its new name ends in.
pub const WAITING: &str = ".haulout-rename";

/// Applies all markers below `dir`.
pub fn apply(dir: &Path, reporter: &dyn Reporter) -> Result<()> {
    let files = files_of_databases(dir)?;
    delete(dir, &files, reporter)?;
    rename(dir, &files, reporter)?;
    for path in with_extension(&files, "new") {
        let target = path.with_extension("ibd");
        move_file(path, &target)?;
        tell(reporter, "Replacing", dir, &target);
    }
    Ok(())
}

fn delete(dir: &Path, files: &BTreeSet<PathBuf>, reporter: &dyn Reporter) -> Result<()> {
    for marker in with_extension(files, "del") {
        let dropped = marker.with_extension("ibd");
        durable::remove_if_there(&dropped)?;
        durable::remove_if_there(marker)?;
        tell(reporter, "Removing", dir, &dropped);
    }
    Ok(())
}

fn rename(dir: &Path, files: &BTreeSet<PathBuf>, reporter: &dyn Reporter) -> Result<()> {
    let mut renames = Vec::new();
    for marker in with_extension(files, "ren") {
        let (database, table) = new_name(marker)?;
        let to = dir.join(database).join(format!("{table}.ibd"));
        renames.push((marker.with_extension("ibd"), to, marker));
    }
    let sources: BTreeSet<&PathBuf> = renames.iter().map(|(from, ..)| from).collect();
    let mut targets = BTreeSet::new();
    for (from, to, _) in &renames {
        let occupied = to.exists() && !sources.contains(to);
        if occupied || !targets.insert(to) {
            return Err(Error::new(
                ErrorKind::Damage,
                format!(
                    "{} was renamed to {} during the backup, but another tablespace has that name",
                    shown(dir, from),
                    shown(dir, to)
                ),
            ));
        }
    }
    for (from, to, _) in &renames {
        if from.exists() {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
            }
            move_file(from, &waiting(to))?;
        } else if !waiting(to).exists() {
            reporter.warn(format!(
                "{} was renamed to {} during the backup, but is not in it",
                shown(dir, from),
                shown(dir, to)
            ));
        }
    }
    for (_, _, marker) in &renames {
        durable::remove_if_there(marker)?;
    }
    for path in files_of_databases(dir)? {
        let Some(target) = path.to_str().and_then(|path| path.strip_suffix(WAITING)) else {
            continue;
        };
        move_file(&path, Path::new(target))?;
        tell(reporter, "Renaming", dir, Path::new(target));
    }
    Ok(())
}

/// The database and table that `marker` gives a file as its new name.
pub fn new_name(marker: &Path) -> Result<(String, String)> {
    let text = fs::read_to_string(marker).map_err(|e| Error::io("read", marker, e))?;
    parse_new_name(&text, &marker.display().to_string())
}

/// The same, of a marker with this content.
pub fn parse_new_name(text: &str, marker: &str) -> Result<(String, String)> {
    let is_name = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0', '\n'])
    };
    match text.split_once('/') {
        Some((database, table)) if is_name(database) && is_name(table) => {
            Ok((database.to_owned(), table.to_owned()))
        }
        _ => Err(Error::new(
            ErrorKind::Damage,
            format!("{marker} does not hold the name of a table"),
        )),
    }
}

/// The name of a file that will be `target`, while all that get new names are moved.
pub fn waiting(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(WAITING);
    PathBuf::from(name)
}

/// Files in the folders of databases, sorted.
fn files_of_databases(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for database in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let database = database.map_err(|e| Error::io("list", dir, e))?;
        let path = database.path();
        if !database.file_type().map_err(|e| Error::io("inspect", &path, e))?.is_dir() {
            continue;
        }
        for file in fs::read_dir(&path).map_err(|e| Error::io("list", &path, e))? {
            files.insert(file.map_err(|e| Error::io("list", &path, e))?.path());
        }
    }
    Ok(files)
}

fn with_extension<'a>(
    files: &'a BTreeSet<PathBuf>,
    extension: &'a str,
) -> impl Iterator<Item = &'a PathBuf> {
    files.iter().filter(move |path| path.extension().is_some_and(|e| e == extension))
}

fn move_file(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
}

fn tell(reporter: &dyn Reporter, verb: &'static str, dir: &Path, path: &Path) {
    reporter.event(&Event::File { worker: 0, verb, path: shown(dir, path) });
}

fn shown(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::report::Silent;
    use std::collections::BTreeMap;

    type Files = BTreeMap<String, String>;

    fn fill(dir: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn read(dir: &Path) -> Files {
        let content = |path: &PathBuf| (shown(dir, path), fs::read_to_string(path).unwrap());
        files_of_databases(dir).unwrap().iter().map(content).collect()
    }

    fn expect(files: &[(&str, &str)]) -> Files {
        files.iter().map(|(name, content)| (name.to_string(), content.to_string())).collect()
    }

    const BEFORE: &[(&str, &str)] = &[
        ("a/dropped.ibd", "dropped"),
        ("a/dropped.del", ""),
        ("a/gone.del", ""),
        ("a/swap1.ibd", "1"),
        ("a/swap1.ren", "a/swap2"),
        ("a/swap2.ibd", "2"),
        ("a/swap2.ren", "a/swap1"),
        ("a/chain1.ibd", "first"),
        ("a/chain1.ren", "b/chain2"),
        ("b/chain2.ibd", "second"),
        ("b/chain2.ren", "c/chain3"),
        ("a/made.new", "made"),
        ("a/rebuilt.ibd", "old"),
        ("a/rebuilt.new", "new"),
        ("a/kept.ibd", "kept"),
    ];
    const AFTER: &[(&str, &str)] = &[
        ("a/swap1.ibd", "2"),
        ("a/swap2.ibd", "1"),
        ("b/chain2.ibd", "first"),
        ("c/chain3.ibd", "second"),
        ("a/made.ibd", "made"),
        ("a/rebuilt.ibd", "new"),
        ("a/kept.ibd", "kept"),
    ];

    #[test]
    fn drops_renames_and_replacements() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), BEFORE);
        apply(dir.path(), &Silent).unwrap();
        assert_eq!(read(dir.path()), expect(AFTER));
        apply(dir.path(), &Silent).unwrap();
        assert_eq!(read(dir.path()), expect(AFTER));
    }

    /// The states that a kill can leave are those between two steps: here they are reached by
    /// doing the first steps by hand.
    #[test]
    fn renames_killed_after_any_step_are_finished_by_the_next_run() {
        let pairs = [
            ("a/swap1", "a/swap2"),
            ("a/swap2", "a/swap1"),
            ("a/chain1", "b/chain2"),
            ("b/chain2", "c/chain3"),
        ];
        type Step = Box<dyn Fn(&Path)>;
        let mut steps: Vec<Step> = Vec::new();
        for (from, to) in pairs {
            steps.push(Box::new(move |dir| {
                let to = waiting(&dir.join(format!("{to}.ibd")));
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::rename(dir.join(format!("{from}.ibd")), to).unwrap();
            }));
        }
        for (from, _) in pairs {
            steps.push(Box::new(move |dir| {
                fs::remove_file(dir.join(format!("{from}.ren"))).unwrap()
            }));
        }
        for (_, to) in pairs {
            steps.push(Box::new(move |dir| {
                let to = dir.join(format!("{to}.ibd"));
                fs::rename(waiting(&to), to).unwrap();
            }));
        }
        for done in 0..=steps.len() {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path(), BEFORE);
            delete(dir.path(), &files_of_databases(dir.path()).unwrap(), &Silent).unwrap();
            for step in &steps[..done] {
                step(dir.path());
            }
            apply(dir.path(), &Silent).unwrap();
            assert_eq!(read(dir.path()), expect(AFTER), "killed after {done} steps");
        }
    }

    #[test]
    fn a_name_that_another_tablespace_has_is_refused_before_anything_moves() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("a/x.ibd", "x"), ("a/x.ren", "a/y"), ("a/y.ibd", "y")];
        fill(dir.path(), &files);
        let error = apply(dir.path(), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damage);
        assert_eq!(read(dir.path()), expect(&files));
    }

    #[test]
    fn names_that_lead_out_of_the_backup_are_refused() {
        for name in ["../x", "a/../../x", "/etc/x", "x", "a/", "a/b/c", "a/..", ""] {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path(), &[("a/x.ibd", "x"), ("a/x.ren", name)]);
            assert_eq!(apply(dir.path(), &Silent).unwrap_err().kind(), ErrorKind::Damage, "{name}");
        }
    }
}
