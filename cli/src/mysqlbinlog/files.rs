//! From files to text.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use binlog::dump::options::Options;
use binlog::dump::{Dump, Failure, Went};
use binlog::format::INNODB_SUFFIX;
use binlog::{Error, Fault, FileKind, ReadOptions, Reader};

/// Prints files one after another; `-` is standard input. Returns the time of the last event.
pub fn dump(
    options: &Options,
    read: &ReadOptions,
    files: &[String],
    sink: &mut dyn Write,
    warn: &mut dyn FnMut(String),
) -> Result<u32, Failure> {
    let mut dump = Dump::begin(options, sink);
    for (index, file) in files.iter().enumerate() {
        let (first, last) = (index == 0, index + 1 == files.len());
        let went = one(&mut dump, read, file, first, last);
        dump.take_notes().into_iter().for_each(&mut *warn);
        match went {
            Ok(Went::On) => {}
            Ok(Went::Stopped) => break,
            Err(failure) => {
                // What was understood is worth having.
                dump.flush()?;
                return Err(failure);
            }
        }
    }
    let last_time = dump.last_time();
    dump.end()?.into_iter().for_each(warn);
    Ok(last_time)
}

fn one<W: Write>(
    dump: &mut Dump<'_, W>,
    read: &ReadOptions,
    file: &str,
    first: bool,
    last: bool,
) -> Result<Went, Failure> {
    if file == "-" {
        let mut reader = Reader::new(std::io::stdin().lock(), file, read.clone())?;
        return dump.stream(&mut reader, first, last);
    }
    let mut reader = open(file, read)?;
    dump.file(&mut reader, first, last)
}

/// Opens a file.
fn open(file: &str, read: &ReadOptions) -> Result<Reader<File>, Error> {
    Reader::new(opened(file)?, file, read.clone())
}

fn opened(file: &str) -> Result<File, Error> {
    let error = |fault| Error { file: file.to_owned(), position: 0, fault };
    if Path::new(file).to_string_lossy().ends_with(INNODB_SUFFIX) {
        return Err(error(Fault::InnodbBinlog));
    }
    File::open(file).map_err(|cause| error(Fault::Io(cause)))
}

/// Opens a file that is only read forward; `-` is standard input.
pub fn forward(file: &str, read: &ReadOptions) -> Result<Reader<Box<dyn Read>>, Error> {
    if file == "-" {
        return Reader::new(Box::new(std::io::stdin()), file, read.clone());
    }
    let opened = opened(file)?;
    Reader::new(Box::new(opened), file, read.clone())
}

/// Takes the GTID indexes that servers keep beside their logs out of what a pattern of the shell found.
pub fn without_indexes(files: Vec<String>) -> (Vec<String>, Vec<String>) {
    let is_index = |file: &String| {
        file != "-" && FileKind::of(Path::new(file)).is_ok_and(|kind| kind == FileKind::GtidIndex)
    };
    let (indexes, logs) = files.into_iter().partition(is_index);
    (logs, indexes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gtid_indexes_are_told_from_logs() {
        let dir = tempfile::tempdir().unwrap();
        let [log, index] = ["binlog.000001", "binlog.000001.idx"]
            .map(|name| dir.path().join(name).display().to_string());
        std::fs::write(&log, b"\xfebin").unwrap();
        std::fs::write(&index, b"\xfe\xfe\x0c\x01\x01\0\0\0").unwrap();
        let files = vec![log.clone(), index.clone(), "-".to_owned(), "absent".to_owned()];
        let (logs, indexes) = without_indexes(files);
        assert_eq!(logs, [log, "-".to_owned(), "absent".to_owned()]);
        assert_eq!(indexes, [index]);
    }
}
