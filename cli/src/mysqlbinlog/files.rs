//! From files to text.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use binlog::dump::options::Options;
use binlog::dump::{Dump, Failure, Went};
use binlog::format::INNODB_SUFFIX;
use binlog::{Error, Fault, ReadOptions, Reader};

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
pub fn open(file: &str, read: &ReadOptions) -> Result<Reader<File>, Error> {
    let error = |fault| Error { file: file.to_owned(), position: 0, fault };
    if Path::new(file).to_string_lossy().ends_with(INNODB_SUFFIX) {
        return Err(error(Fault::InnodbBinlog));
    }
    let opened = File::open(file).map_err(|cause| error(Fault::Io(cause)))?;
    Reader::new(opened, file, read.clone())
}
