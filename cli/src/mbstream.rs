//! The face of the stock stream packer: started as `mbstream`.
//!
//! `-x` unpacks standard input, `-c` packs files to standard output. Where the stock packer
//! ends with status 0 although something was not unpacked, this one ends with 1.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use engine::extract::{self, ExtractOptions};
use engine::{Error, ErrorKind, Event, Reporter, Result};
use xbstream::writer::Mode;
use xbstream::{StreamPath, StreamWriter};

use crate::stock::log;
use crate::{console, manual, signals, streams};

const HELP: &str = "\
mbstream of haulout: pack and unpack files in the xbstream format.

Usage:
  mbstream -c [OPTIONS...] FILES...   pack these files to standard output
  mbstream -x [OPTIONS...]            unpack standard input

Options:
  -?, --help             Show this help
  -c, --create           Pack files
  -x, --extract          Unpack
  -C, --directory=name   Work in this directory
  -v, --verbose          Name every file
  -p, --parallel=#       Threads for unpacking

Examples:
  mbstream -x -C /backups/monday < monday.xb
  mbstream -c -C /backups/monday ibdata1 db/t.ibd > monday.xb
";

/// What may be asked for, for the manual page.
pub fn definition() -> clap::Command {
    manual::face("mbstream", "Pack and unpack files in the xbstream format")
        .override_usage("mbstream -c [OPTIONS...] FILES...\n       mbstream -x [OPTIONS...]")
        .arg(manual::switch('?', "help", "Show the help"))
        .arg(manual::switch('c', "create", "Pack FILES to standard output"))
        .arg(manual::switch('x', "extract", "Unpack standard input"))
        .arg(manual::valued('C', "directory", "name", "Work in this directory"))
        .arg(manual::switch('v', "verbose", "Name every file"))
        .arg(manual::valued('p', "parallel", "#", "Threads for unpacking"))
        .arg(clap::Arg::new("FILES").num_args(0..).help("Files to pack, relative to the directory"))
        .after_help(
            "Examples:\n  mbstream -x -C /backups/monday < monday.xb\n  \
             mbstream -c -C /backups/monday ibdata1 db/t.ibd > monday.xb\n\n\
             Exit status: 0 when everything was packed or unpacked, 1 otherwise.",
        )
}

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    help: bool,
    create: bool,
    extract: bool,
    verbose: bool,
    directory: Option<PathBuf>,
    parallel: Option<usize>,
    files: Vec<PathBuf>,
}

/// Runs what the arguments (without the program's name) ask for.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match parse(arguments).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::line(0, &format!("mbstream: {error}"));
            if let Some(advice) = error.advice() {
                log::line(0, &format!("mbstream: {advice}"));
            }
            let interrupted = error.kind() == ErrorKind::Interrupted;
            ExitCode::from(if interrupted { error.kind().exit_code() } else { 1 })
        }
    }
}

fn run(request: Request) -> Result<()> {
    if request.help {
        return std::io::stdout()
            .write_all(HELP.as_bytes())
            .map_err(|e| Error::io("write to", "standard output", e));
    }
    match (request.create, request.extract) {
        (true, true) => Err(usage("can't set specify both -c and -x.")),
        (false, false) => Err(usage("either -c or -x must be specified.")),
        (true, false) => create(&request),
        (false, true) => unpack(request),
    }
}

/// `-x`.
fn unpack(request: Request) -> Result<()> {
    if let Some(stray) = request.files.first() {
        let message = format!("-x takes no file names, but there is '{}'", stray.display());
        return Err(usage(message).advise(match stray.to_str() {
            Some("C") => "a dash is missing: mbstream -x -C DIRECTORY",
            _ => "the directory to unpack to goes behind -C: mbstream -x -C DIRECTORY",
        }));
    }
    let dir = request.directory.unwrap_or_else(|| PathBuf::from("."));
    if !dir.is_dir() {
        return Err(usage(format!("there is no directory '{}'", dir.display())));
    }
    let cancel = signals::listen()?;
    let options = ExtractOptions { dir, parallel: request.parallel.unwrap_or(1) };
    let reporter = Names { verbose: request.verbose };
    extract::extract(streams::from_stdin(&cancel)?, options, &cancel, &reporter)
        .map(|_| ())
        .map_err(|error| signals::blame(error, &cancel))
}

/// `-c`. A signal ends the program by itself: there is nothing to clean up.
fn create(request: &Request) -> Result<()> {
    if request.files.is_empty() {
        return Err(usage("no files are specified."));
    }
    let mut writer = StreamWriter::new(streams::to_stdout()?);
    let mut packed = BTreeSet::new();
    for named in &request.files {
        let path = stream_path(named)?;
        if !packed.insert(path.as_bytes().to_vec()) {
            return Err(usage(format!("'{}' is named twice", named.display())));
        }
        let place = match &request.directory {
            Some(dir) => dir.join(named),
            None => named.clone(),
        };
        let mut file = File::open(&place).map_err(|e| Error::io("open", &place, e))?;
        let about = file.metadata().map_err(|e| Error::io("look at", &place, e))?;
        if !about.is_file() {
            return Err(usage(format!("{} is not a regular file, exiting.", place.display())));
        }
        if request.verbose {
            console::say(&named.display().to_string());
        }
        writer.file(&path, Mode::Create, &mut file).map_err(|e| Error::io("pack", &place, e))?;
    }
    writer.into_inner().map_err(|e| Error::io("write to", "standard output", e))?;
    Ok(())
}

/// The name in the stream. A leading `./` is dropped, because readers refuse it.
fn stream_path(named: &Path) -> Result<StreamPath> {
    let plain: PathBuf = named.components().filter(|part| *part != Component::CurDir).collect();
    StreamPath::new(plain.as_os_str().as_bytes()).map_err(|e| {
        usage(format!("'{}' cannot be a name in a stream", named.display()))
            .caused_by(e)
            .advise("name files relative to a directory: mbstream -c -C DIRECTORY FILES...")
    })
}

/// Reads the arguments: letters may be joined, values may be attached.
fn parse(arguments: &[OsString]) -> Result<Request> {
    let mut request = Request::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            request.files.extend(rest.by_ref().map(PathBuf::from));
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            let (name, value) = match long.iter().position(|byte| *byte == b'=') {
                Some(at) => (&long[..at], Some(OsString::from_vec(long[at + 1..].to_vec()))),
                None => (long, None),
            };
            let letter = match name {
                b"help" => '?',
                b"create" => 'c',
                b"extract" => 'x',
                b"verbose" => 'v',
                b"directory" => 'C',
                b"parallel" => 'p',
                _ => return Err(usage(format!("unknown option '{}'", argument.display()))),
            };
            if value.is_some() && !matches!(letter, 'C' | 'p') {
                let option = String::from_utf8_lossy(name);
                return Err(usage(format!("option '--{option}' cannot take an argument")));
            }
            request.set(letter, &mut || value.clone().or_else(|| rest.next().cloned()))?;
        } else if bytes.len() > 1 && bytes.first() == Some(&b'-') {
            let mut at = 1;
            while let Some(letter) = bytes.get(at) {
                at += 1;
                let attached = bytes.get(at..).filter(|tail| !tail.is_empty());
                let takes_value = request.set(char::from(*letter), &mut || {
                    attached
                        .map(|tail| OsString::from_vec(tail.to_vec()))
                        .or_else(|| rest.next().cloned())
                })?;
                if takes_value {
                    break;
                }
            }
        } else {
            request.files.push(PathBuf::from(argument));
        }
    }
    Ok(request)
}

impl Request {
    /// Takes one option; returns whether it took a value.
    fn set(&mut self, letter: char, value: &mut dyn FnMut() -> Option<OsString>) -> Result<bool> {
        let mut required =
            || value().ok_or_else(|| usage(format!("option '-{letter}' requires an argument")));
        match letter {
            '?' => self.help = true,
            'c' => self.create = true,
            'x' => self.extract = true,
            'v' => self.verbose = true,
            'C' => self.directory = Some(PathBuf::from(required()?)),
            'p' => {
                let text = required()?;
                let number = text.to_str().and_then(|text| text.parse::<usize>().ok());
                let number = number.ok_or_else(|| {
                    usage(format!("'{}' is not a number of threads", text.display()))
                })?;
                self.parallel = Some(number.clamp(1, 1024));
            }
            _ => return Err(usage(format!("unknown option '-{letter}'"))),
        }
        Ok(matches!(letter, 'C' | 'p'))
    }
}

/// Names files when verbose; always tells warnings.
struct Names {
    verbose: bool,
}

impl Reporter for Names {
    fn event(&self, event: &Event) {
        match event {
            Event::File { path, .. } if self.verbose => console::say(path),
            Event::Warning(text) => log::line(0, &format!("mbstream: {text}")),
            _ => {}
        }
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(line: &str) -> Result<Request> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn spellings() {
        let wanted = Request {
            extract: true,
            directory: Some("/d".into()),
            parallel: Some(4),
            ..Request::default()
        };
        for line in [
            "-x -C /d -p 4",
            "-xC /d -p4",
            "-x -C/d --parallel=4",
            "--extract --directory=/d --parallel 4",
            "-p4 --directory /d -x",
        ] {
            assert_eq!(request(line).unwrap(), wanted, "{line}");
        }
        let create = request("-c -v -- -odd a/b").unwrap();
        assert_eq!(create.files, [PathBuf::from("-odd"), PathBuf::from("a/b")]);
        assert_eq!(request("-x -p0").unwrap().parallel, Some(1));
    }

    #[test]
    fn refused() {
        for (line, named) in [
            ("--bogus", "unknown option '--bogus'"),
            ("-Z", "unknown option '-Z'"),
            ("-xZ", "unknown option '-Z'"),
            ("-x -C", "requires an argument"),
            ("-x -p x", "not a number"),
            ("--extract=1", "cannot take an argument"),
        ] {
            assert!(request(line).unwrap_err().to_string().contains(named), "{line}");
        }
        for (line, named) in [
            ("", "either -c or -x"),
            ("-x -c", "both -c and -x"),
            ("-c", "no files"),
            ("-x -C /nonexistent", "no directory"),
        ] {
            let error = run(request(line).unwrap()).unwrap_err();
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn a_forgotten_dash_is_explained() {
        let error = run(request("-x C /d").unwrap()).unwrap_err();
        assert_eq!(error.advice(), Some("a dash is missing: mbstream -x -C DIRECTORY"));
    }

    #[test]
    fn names_in_the_stream() {
        let name = |path: &str| stream_path(Path::new(path)).map(|path| path.as_bytes().to_vec());
        assert_eq!(name("./a//b").unwrap(), b"a/b");
        assert_eq!(name("a/./b").unwrap(), b"a/b");
        for path in ["/abs", "../up", "a/../b", ".", ""] {
            assert!(name(path).is_err(), "{path}");
        }
    }
}
