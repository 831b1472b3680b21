//! Backups whose files are compressed one by one: the stock tool's `--compress` and `--decompress`.
//!
//! Every file but the texts about the backup has a name that ends in `.qp` and is an archive
//! ([`archive`]) of one file in blocks of QuickLZ ([`quicklz`]). The sink that makes them is
//! [`QpressSink`](crate::sink::QpressSink). Nothing can be prepared before it is unpacked again.
//!
//! Promises: a file gets its name when it is whole; the redo log is unpacked last, so that nobody
//! prepares what an interrupted run left; a run can be repeated. Links are not followed.

pub mod archive;
pub mod quicklz;

use std::fs::{self, File, OpenOptions};
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use archive::{ArchiveError, Reader};
pub use archive::{BLOCK_SIZE, BLOCK_SIZES};

use crate::delta::source::{LOG, list};
use crate::extract::sparse::is_page_compressed;
use crate::io::{durable, holes};
use crate::sink::StreamPath;
use crate::{Cancel, Error, ErrorKind, Event, Reporter, Result};

/// What is wrong with an archive that has a name that no file of a server has, in the stock tool's words.
pub const INVALID_NAME: &str = "invalid file name";
/// How the names of archives end.
pub const EXTENSION: &str = "qp";
/// A file that is being unpacked has this behind its name.
const UNFINISHED: &str = ".unpacking";
const FILE_MODE: u32 = 0o660;
/// Read from an archive at once.
const BUFFER: usize = 1 << 20;

/// What to unpack.
#[derive(Clone, Debug)]
pub struct UnpackOptions {
    /// The directory of the backup.
    pub dir: PathBuf,
    /// Threads, at least 1.
    pub parallel: usize,
    /// Whether archives are removed when what was in them is there.
    pub remove_packed: bool,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct UnpackSummary {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Unpacks every archive in a backup, beside itself.
///
/// # Errors
/// [`Damage`](ErrorKind::Damage) when an archive is not whole, or is none that a backup has.
pub fn unpack(
    options: UnpackOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<UnpackSummary> {
    let mut all = Vec::new();
    list(&options.dir, Path::new(""), &mut all)?;
    all.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    all.sort();
    let log = PathBuf::from(format!("{LOG}.{EXTENSION}"));
    let logs: Vec<PathBuf> = all.extract_if(.., |path| *path == log).collect();
    let mut summary = UnpackSummary::default();
    for files in [all, logs] {
        let more = unpack_all(&files, &options, cancel, reporter)?;
        summary.files += more.files;
        summary.bytes += more.bytes;
    }
    Ok(summary)
}

fn unpack_all(
    files: &[PathBuf],
    options: &UnpackOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<UnpackSummary> {
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(UnpackSummary::default()));
    let lock = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
    let work = |worker: usize| {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if lock().is_err() {
                return;
            }
            let path_text = path.to_string_lossy().into_owned();
            reporter.event(&Event::File { worker, verb: "decompressing", path: path_text });
            let bytes = unpack_file(path, options, cancel);
            let mut outcome = lock();
            match (bytes, &mut *outcome) {
                (Ok(bytes), Ok(summary)) => {
                    summary.files += 1;
                    summary.bytes += bytes;
                }
                (Err(error), Ok(_)) => *outcome = Err(error),
                (_, Err(_)) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in 1..options.parallel.clamp(1, files.len().max(1)) {
            let work = &work;
            scope.spawn(move || work(worker));
        }
        work(0);
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Unpacks one archive; the bytes that were in it.
fn unpack_file(path: &Path, options: &UnpackOptions, cancel: &Cancel) -> Result<u64> {
    // No file of a server has another byte in its name, and the stock tool takes no other.
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"@._/#-".contains(byte);
    if !path.as_os_str().as_bytes().iter().all(usual) {
        let error = Error::new(ErrorKind::Damage, INVALID_NAME);
        return Err(error.context(path.display().to_string()));
    }
    let packed = options.dir.join(path);
    let target = packed.with_extension("");
    let mut unfinished = target.clone().into_os_string();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let input = File::open(&packed).map_err(|error| Error::io("open", &packed, error))?;
    let input = BufReader::with_capacity(BUFFER, input);
    let done = write_content(input, &packed, &unfinished, cancel);
    if done.is_err() {
        // Best effort: it is overwritten when the run is repeated.
        let _ = fs::remove_file(&unfinished);
    }
    let bytes = done?;
    fs::rename(&unfinished, &target).map_err(|error| Error::io("rename to", &target, error))?;
    if options.remove_packed {
        durable::remove_if_there(&packed)?;
    }
    Ok(bytes)
}

fn write_content(
    input: BufReader<File>,
    packed: &Path,
    target: &Path,
    cancel: &Cancel,
) -> Result<u64> {
    let damaged = |why: ArchiveError| {
        Error::new(ErrorKind::Damage, format!("cannot decompress {}", packed.display()))
            .caused_by(why)
    };
    let mut reader = Reader::new(input).map_err(damaged)?;
    durable::remove_if_there(target)?;
    let output = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(target);
    let output = output.map_err(|error| Error::io("create", target, error))?;
    let failed = |error| Error::io("write to", target, error);
    let name =
        StreamPath::new(packed.with_extension("").file_name().unwrap_or_default().as_bytes());
    let (mut at, mut piece, mut has_holes) = (0, Vec::new(), false);
    while reader.next(&mut piece).map_err(damaged)? {
        cancel.check()?;
        has_holes |= at == 0 && name.as_ref().is_ok_and(|name| is_page_compressed(name, &piece));
        match has_holes {
            true => holes::runs(at, &piece)
                .into_iter()
                .try_for_each(|(begin, run)| output.write_all_at(run, begin)),
            false => output.write_all_at(&piece, at),
        }
        .map_err(failed)?;
        at += piece.len() as u64;
    }
    output.set_len(at).map_err(failed)?;
    Ok(at)
}

/// Refuses a backup that has to be unpacked first.
///
/// # Errors
/// [`Usage`](ErrorKind::Usage) when its redo log is an archive.
pub fn refuse_packed(dir: &Path) -> Result<()> {
    if dir.join(LOG).exists() || !dir.join(format!("{LOG}.{EXTENSION}")).exists() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, format!("the backup in {} is compressed", dir.display()))
        .advise("unpack it first: mariadb-backup --decompress --remove-original --target-dir=DIR"))
}
