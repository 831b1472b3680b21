//! Which files of a server's binary log are closed: by the list that the server keeps, and by the mark
//! of an open file. A mark alone says nothing: files of a server that crashed keep it for ever.

use std::fs;
use std::path::{Path, PathBuf};

use binlog::format::INNODB_SUFFIX;
use binlog::header::flag;
use binlog::{FileKind, ReadOptions, Reader};

use super::layout::number_of;
use super::push::PushOptions;
use super::{of_innodb, unreadable};
use crate::{Error, ErrorKind, Result};

/// What the names of lists of files end with.
const INDEX_SUFFIX: &str = ".index";
/// No list of files is longer.
const INDEX_MAX: u64 = 64 << 20;
/// Mark of the first event of relay logs.
pub(super) const RELAY_LOG: u16 = 0x40;

/// A closed file.
pub(super) struct Chosen {
    /// Where it is.
    pub path: PathBuf,
    /// The list that names it; nothing, if the user does.
    pub list: Option<PathBuf>,
}

/// What paths mean.
#[derive(Default)]
pub(super) struct Choice {
    /// Files that are closed.
    pub closed: Vec<Chosen>,
    /// Files that are still being written.
    pub open: Vec<String>,
    /// What was named and is the GTID index of a log.
    pub indexes: Vec<PathBuf>,
    /// Logs in InnoDB's format, beside others.
    pub of_innodb: Vec<PathBuf>,
}

/// Adds what a path means.
pub(super) fn add(path: &Path, options: &PushOptions, chosen: &mut Choice) -> Result<()> {
    let is_dir = path.is_dir();
    if !is_dir && !path.to_string_lossy().ends_with(INDEX_SUFFIX) {
        match FileKind::of(path).map_err(|error| Error::io("open", path, error))? {
            FileKind::InnodbBinlog => return Err(of_innodb(path)),
            FileKind::GtidIndex => {
                chosen.indexes.push(path.to_owned());
                return Ok(());
            }
            FileKind::Log | FileKind::Other => {}
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let is_last = lists(dir.unwrap_or(Path::new(".")))?.iter().any(|list| {
            let last = listed(list).ok().and_then(|files| files.last().cloned());
            last.is_some_and(|last| last.file_name() == path.file_name())
        });
        if is_last && is_in_use(path)? {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{} is being written by its server", path.display()),
            )
            .advise("close it with FLUSH BINARY LOGS, or use haulout binlog stream"));
        }
        chosen.closed.push(Chosen { path: path.to_owned(), list: None });
        return Ok(());
    }
    let list = match is_dir {
        true => {
            let beside = ending_in(path, INNODB_SUFFIX)?;
            let list = the_list(path, beside.first())?;
            chosen.of_innodb.extend(beside);
            list
        }
        false => path.to_owned(),
    };
    let mut all = listed(&list)?;
    if let Some(last) = all.last().filter(|last| !is_gone(last))
        && (options.all_but_current || is_in_use(last)?)
    {
        chosen.open.push(last.display().to_string());
        all.pop();
    }
    let of_list = |path| Chosen { path, list: Some(list.clone()) };
    chosen.closed.extend(all.into_iter().map(of_list));
    Ok(())
}

impl Chosen {
    /// Whether it is not there any more. Servers remove logs at any time.
    pub(super) fn is_gone(&self) -> bool {
        is_gone(&self.path)
    }

    /// The list that names it still.
    pub(super) fn still_in(&self) -> Option<&Path> {
        let list = self.list.as_deref()?;
        listed(list).ok()?.contains(&self.path).then_some(list)
    }
}

/// Whether a file is certainly not there.
fn is_gone(path: &Path) -> bool {
    path.try_exists().is_ok_and(|there| !there)
}

/// The lists of files in a directory.
fn lists(dir: &Path) -> Result<Vec<PathBuf>> {
    ending_in(dir, INDEX_SUFFIX)
}

/// What of a directory has names that end so.
fn ending_in(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("read the directory", dir, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The list of the binary log in a directory, in which there may be a log of InnoDB's.
fn the_list(dir: &Path, innodb: Option<&PathBuf>) -> Result<PathBuf> {
    let mut found = Vec::new();
    let mut useless = None;
    for list in lists(dir)? {
        let Ok(files) = listed(&list) else { continue };
        // Any of the files tells; some may have been removed, or were never written.
        let mut why = None;
        let flags = files.iter().find_map(|file| {
            first_flags(file).map_err(|error| why = why.take().or(Some(error))).ok()
        });
        match flags {
            Some(flags) if flags & RELAY_LOG == 0 => found.push(list),
            // It lists relay logs.
            Some(_) => {}
            None if files.iter().all(|file| is_numbered(file)) => {
                useless = useless.or(why.map(|why| (list, why)));
            }
            // Others of such names have nothing to do with logs.
            None => {}
        }
    }
    match found.as_slice() {
        [list] => Ok(list.clone()),
        [] => Err(match (innodb, useless) {
            (Some(log), _) => of_innodb(log),
            (None, Some((list, why))) => Error::new(
                ErrorKind::Usage,
                format!("none of the logs that {} lists can be read: {why}", list.display()),
            )
            .advise("name the directory that the logs are in, or files"),
            (None, None) => Error::new(
                ErrorKind::Usage,
                format!("{} has no list of binary log files (*.index)", dir.display()),
            )
            .advise("name the directory of log_bin, its list, or files"),
        }),
        [..] => Err(Error::new(
            ErrorKind::Usage,
            format!("{} has several lists of binary log files", dir.display()),
        )
        .advise("name the one that is meant")),
    }
}

/// Whether a name has a number at its end, as those of logs do.
fn is_numbered(path: &Path) -> bool {
    path.file_name().is_some_and(|name| number_of(&name.to_string_lossy()).is_ok())
}

/// The files of a list, where they are, or beside it.
fn listed(list: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("read", list, error);
    let size = fs::metadata(list).map_err(failed)?.len();
    if size > INDEX_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("{} is no list", list.display())));
    }
    let text = fs::read_to_string(list).map_err(failed)?;
    let dir = list.parent().unwrap_or(Path::new(""));
    let place = |line: &str| {
        let path = Path::new(line);
        let beside = dir.join(path.file_name().unwrap_or_default());
        if path.is_absolute() && !beside.exists() { path.to_owned() } else { beside }
    };
    Ok(text.lines().map(str::trim_ascii).filter(|line| !line.is_empty()).map(place).collect())
}

/// The flags of the first event of a file.
fn first_flags(path: &Path) -> Result<u16> {
    let mut reader = open(path, &ReadOptions::default())?;
    let event = reader.next_event().map_err(unreadable)?;
    Ok(event.map_or(0, |event| event.header.flags))
}

/// Whether a file has the mark of an open one.
pub(super) fn is_in_use(path: &Path) -> Result<bool> {
    Ok(first_flags(path)? & flag::IN_USE != 0)
}

/// Opens a file.
pub(super) fn open(path: &Path, options: &ReadOptions) -> Result<Reader<fs::File>> {
    let file = fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
    Reader::new(file, path.display().to_string(), options.clone()).map_err(unreadable)
}
