//! Which files of a server's binary log are closed: by the list that the server keeps, and by the mark
//! of an open file. A mark alone says nothing: files of a server that crashed keep it for ever.

use std::fs;
use std::path::{Path, PathBuf};

use binlog::header::flag;
use binlog::{ReadOptions, Reader};

use super::push::PushOptions;
use super::unreadable;
use crate::{Error, ErrorKind, Result};

/// What the names of lists of files end with.
const INDEX_SUFFIX: &str = ".index";
/// No list of files is longer.
const INDEX_MAX: u64 = 64 << 20;
/// Mark of the first event of relay logs.
pub(super) const RELAY_LOG: u16 = 0x40;

/// Adds the closed files that a path means to `files`, with whether it names them; others to `open`.
pub(super) fn closed(
    path: &Path,
    options: &PushOptions,
    files: &mut Vec<(PathBuf, bool)>,
    open: &mut Vec<String>,
) -> Result<()> {
    let is_dir = path.is_dir();
    if !is_dir && !path.to_string_lossy().ends_with(INDEX_SUFFIX) {
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
        files.push((path.to_owned(), true));
        return Ok(());
    }
    let list = if is_dir { the_list(path)? } else { path.to_owned() };
    let mut all = listed(&list)?;
    if let Some(last) = all.last()
        && (options.all_but_current || is_in_use(last)?)
    {
        open.push(last.display().to_string());
        all.pop();
    }
    files.extend(all.into_iter().map(|file| (file, false)));
    Ok(())
}

/// The lists of files in a directory.
fn lists(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("read the directory", dir, error);
    let mut lists = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(INDEX_SUFFIX) {
            lists.push(path);
        }
    }
    lists.sort();
    Ok(lists)
}

/// The list of the binary log in a directory.
fn the_list(dir: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for list in lists(dir)? {
        // Others of such names have nothing to do with logs, or list relay logs.
        if let Ok(files) = listed(&list)
            && let Some(first) = files.first()
            && first_flags(first).is_ok_and(|flags| flags & RELAY_LOG == 0)
        {
            found.push(list);
        }
    }
    match found.as_slice() {
        [list] => Ok(list.clone()),
        [] => Err(Error::new(
            ErrorKind::Usage,
            format!("{} has no list of binary log files (*.index)", dir.display()),
        )
        .advise("name the directory of log_bin, its list, or files")),
        [..] => Err(Error::new(
            ErrorKind::Usage,
            format!("{} has several lists of binary log files", dir.display()),
        )
        .advise("name the one that is meant")),
    }
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
