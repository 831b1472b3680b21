//! Copying the files of other engines, and every other file that has no pages to check.
//!
//! The rule needs no knowledge of engines and no log of DDL: a file is copied, and copied again
//! later unless it is provably the same file with the same content as when it was copied. Under
//! BLOCK_DDL nothing writes to non-transactional tables, nothing is created, renamed or dropped, so
//! the last pass there equals the server. What is written until commits are blocked (Aria's log,
//! log tables, statistics) is brought up to date once more under BLOCK_COMMIT. Transactional Aria
//! tables are written until then, too: for them the copy is a fuzzy one, which Aria's log from
//! the control file's checkpoint on makes whole. The log does not have all: an empty table is filled
//! without it. Such a table says so in its header, and is copied once more when commits are blocked.
//!
//! The proof of sameness is inode, size, and both times. A time may stand still for a clock tick
//! in which the file changes twice, so a copy that began within [`RACY`] of the last change
//! proves nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::inventory::{Class, OtherFile, ServerFile};
use super::run::Run;
use crate::io::Buffer;
use crate::io::read_ahead::read_at;
use crate::report::Event;
use crate::sink::{Mode, SinkFile, StreamPath};
use crate::{Error, ErrorKind, Result};

/// Read and written at once.
const PIECE: usize = 1 << 20;
/// The coarsest clock tick of a file system that is expected, with room to spare.
const RACY: Duration = Duration::from_millis(50);
/// The end of an Aria log that may be rewritten while the server runs: some pages of 8 KiB.
const ARIA_LOG_TAIL: u64 = 64 << 10;
/// How long a log may be without its header, commits being blocked.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// The header of an Aria log: its first page, part of which changes when the next log is begun.
const ARIA_LOG_HEADER: usize = 8192;

/// The header of an index file of Aria has the places in the log before which the log does not count
/// for the table: since it was made, and since it was filled or emptied at once.
const ARIA_BIRTH: std::ops::Range<usize> = 28..35;
const ARIA_SKIP_REDO: std::ops::Range<usize> = 42..49;

/// What must be equal for a file to be unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Signature {
    fn of(file: &ServerFile) -> Result<Option<Self>> {
        match std::fs::metadata(&file.source) {
            Ok(metadata) => Ok(Some(Self::from(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", &file.source, error)),
        }
    }

    /// Whether a change in the same clock tick could go unnoticed by a copy that begins at `now`.
    fn is_racy(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed.max(self.modified);
        let since_epoch =
            Duration::new(seconds.max(0) as u64, nanoseconds.clamp(0, 999_999_999) as u32);
        now < UNIX_EPOCH + since_epoch + RACY
    }
}

impl From<&std::fs::Metadata> for Signature {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Copies files that are not InnoDB's. One for a backup: it remembers what was copied.
pub struct PlainCopier<'a> {
    run: &'a Run<'a>,
    threads: usize,
    /// MyISAM writes its data through a mapping, which leaves no trace in the file's times.
    mapped_myisam: bool,
    /// The signature at the copy; `None` when the copy proves nothing and must be made again.
    copied: BTreeMap<StreamPath, Option<Signature>>,
    growing: HashMap<StreamPath, Growing>,
    /// What the index files of Aria said, before they were copied, of where the log counts.
    unlogged: BTreeMap<StreamPath, Option<Vec<u8>>>,
}

/// A file that is copied as far as it is final, and finished under BLOCK_COMMIT.
struct Growing {
    file: ServerFile,
    class: Class,
    source: File,
    target: Box<dyn SinkFile>,
    done: u64,
    header: Vec<u8>,
}

impl<'a> PlainCopier<'a> {
    /// Copies with up to `threads` threads. `mapped_myisam` is the server's `myisam_use_mmap`.
    pub fn new(run: &'a Run<'a>, threads: usize, mapped_myisam: bool) -> Self {
        let threads = threads.max(1);
        let (copied, growing, unlogged) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
        Self { run, threads, mapped_myisam, copied, growing, unlogged }
    }

    /// Makes the copy of everything but growing files equal to `files`: copies what is new or
    /// changed, removes what is gone.
    ///
    /// Aria's control file comes first and alone: it says where recovery begins, and a change of
    /// a table that the copy of the table lacks must not lie before that.
    pub fn synchronise(&mut self, files: &[OtherFile]) -> Result<()> {
        let mut wanted: Vec<&OtherFile> =
            files.iter().filter(|other| !is_growing(other.class)).collect();
        self.remove_all_but(&wanted)?;
        wanted.sort_by_key(|other| other.class != Class::AriaControl);
        let tables = wanted.partition_point(|other| other.class == Class::AriaControl);
        let (control, tables) = wanted.split_at(tables);
        self.refresh(control.iter().copied())?;
        self.refresh(tables.iter().copied())
    }

    /// Copies those of `files` that are new or changed.
    pub fn refresh<'f>(&mut self, files: impl Iterator<Item = &'f OtherFile>) -> Result<()> {
        let stale = self.stale(files.map(|other| &other.file).collect())?;
        self.copy_all(stale)
    }

    /// Copies those tables of Aria again that were filled or emptied without the log since they
    /// were copied. Commits are blocked.
    pub fn refresh_unlogged(&mut self, files: &[OtherFile]) -> Result<()> {
        let mut tables = BTreeSet::new();
        for OtherFile { file, .. } in files {
            if let Some(copied) = self.unlogged.get(&file.path)
                && *copied != unlogged_until(file)?
            {
                tables.insert(without_extension(file).to_vec());
            }
        }
        let is_aria =
            |file: &ServerFile| has_extension(file, b".MAI") || has_extension(file, b".MAD");
        let again = files.iter().map(|other| &other.file);
        let again = again.filter(|file| is_aria(file) && tables.contains(without_extension(file)));
        self.copy_all(again.cloned().collect())
    }

    fn remove_all_but(&mut self, wanted: &[&OtherFile]) -> Result<()> {
        let wanted: BTreeSet<_> = wanted.iter().map(|other| &other.file.path).collect();
        let gone: Vec<_> =
            self.copied.keys().filter(|path| !wanted.contains(path)).cloned().collect();
        for path in gone {
            self.run.sink.remove(&path)?;
            self.copied.remove(&path);
        }
        Ok(())
    }

    fn stale(&self, files: Vec<&ServerFile>) -> Result<Vec<ServerFile>> {
        let mut stale = Vec::new();
        for file in files {
            let copied = self.copied.get(&file.path).copied().flatten();
            let copied = copied.filter(|_| !(self.mapped_myisam && has_extension(file, b".MYD")));
            if copied.is_none() || copied != Signature::of(file)? {
                stale.push(file.clone());
            }
        }
        Ok(stale)
    }

    fn copy_all(&mut self, files: Vec<ServerFile>) -> Result<()> {
        for file in &files {
            self.run.expect(Signature::of(file)?.map_or(0, |signature| signature.size));
            if has_extension(file, b".MAI") {
                self.unlogged.insert(file.path.clone(), unlogged_until(file)?);
            }
        }
        let done = Mutex::new(Vec::new());
        let queue = Mutex::new(files.into_iter());
        let (copier, run) = (&*self, self.run);
        std::thread::scope(|scope| {
            for worker in 1..=copier.threads {
                let (queue, done) = (&queue, &done);
                scope.spawn(move || {
                    let mut buffer = Buffer::new(PIECE);
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(file) = next else { return };
                        match run.check().and_then(|()| copier.copy_one(worker, &file, &mut buffer))
                        {
                            Ok(Some(signature)) => {
                                let copied = (file.path, signature);
                                done.lock().unwrap_or_else(PoisonError::into_inner).push(copied);
                            }
                            Ok(None) => {}
                            Err(error) => return run.fail(error),
                        }
                    }
                });
            }
        });
        self.run.check()?;
        self.copied.extend(done.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Copies one file; `None` when it is gone. The signature is `None` when the file changed
    /// meanwhile, or so shortly before that a further change could not be seen.
    fn copy_one(
        &self,
        worker: usize,
        file: &ServerFile,
        buffer: &mut [u8],
    ) -> Result<Option<Option<Signature>>> {
        let source = match File::open(&file.source) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &file.source, error)),
        };
        let signature = |source: &File| {
            let metadata =
                source.metadata().map_err(|error| Error::io("look at", &file.source, error))?;
            Ok::<_, Error>(Signature::from(&metadata))
        };
        let now = SystemTime::now();
        let before = signature(&source)?;
        let mode = if self.copied.contains_key(&file.path) { Mode::Rewrite } else { Mode::Create };
        let target = self.run.sink.begin(&file.path, mode)?;
        let path = file.path.to_string();
        self.run.reporter.event(&Event::File { worker, verb: "Copying", path });
        let is_aria_table = has_extension(file, b".MAD") || has_extension(file, b".MAI");
        let mut offset = 0;
        loop {
            self.run.check()?;
            let read =
                read_at(&source, buffer, offset).map_err(|e| Error::io("read", &file.source, e))?;
            if read == 0 {
                break;
            }
            if is_aria_table {
                settle(&source, buffer.get_mut(..read).unwrap_or_default(), offset)
                    .map_err(|e| Error::io("read", &file.source, e))?;
            }
            target.write(offset, buffer.get(..read).unwrap_or_default())?;
            offset += read as u64;
            self.run.advance(read as u64)?;
        }
        target.finish()?;
        if mode == Mode::Create {
            self.run.count_file();
        }
        let same = !before.is_racy(now) && signature(&source)? == before;
        Ok(Some(same.then_some(before)))
    }

    /// Begins, or continues, the copies of growing files of a class: everything that is final so far.
    pub fn follow_growing(&mut self, files: &[OtherFile], class: Class) -> Result<()> {
        for other in files.iter().filter(|other| other.class == class) {
            if !self.growing.contains_key(&other.file.path) {
                let source = match File::open(&other.file.source) {
                    Ok(source) => source,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(Error::io("open", &other.file.source, error)),
                };
                let target = self.run.sink.begin(&other.file.path, Mode::Create)?;
                let file = other.file.clone();
                let growing = Growing {
                    file,
                    class: other.class,
                    source,
                    target,
                    done: 0,
                    header: Vec::new(),
                };
                self.growing.insert(other.file.path.clone(), growing);
            }
        }
        for growing in self.growing.values_mut().filter(|growing| growing.class == class) {
            let length = growing.length()?;
            let upto = match growing.class {
                Class::AriaLog => length.saturating_sub(ARIA_LOG_TAIL),
                _ => length,
            };
            growing.copy_up_to(upto, self.run)?;
        }
        Ok(())
    }

    /// Copies what growing files have gained, and finishes them. Commits are blocked.
    pub fn finish_growing(&mut self, files: &[OtherFile]) -> Result<()> {
        self.follow_growing(files, Class::AriaLog)?;
        self.follow_growing(files, Class::LogTable)?;
        for (_, mut growing) in self.growing.drain() {
            if growing.class == Class::AriaLog {
                growing.wait_for_header(self.run)?;
            }
            let length = growing.length()?;
            growing.copy_up_to(length, self.run)?;
            if growing.class == Class::AriaLog {
                growing.update_header()?;
            }
            growing.target.finish()?;
            self.run.count_file();
        }
        Ok(())
    }
}

impl Growing {
    fn length(&self) -> Result<u64> {
        let metadata = self
            .source
            .metadata()
            .map_err(|error| Error::io("look at", &self.file.source, error))?;
        if metadata.len() < self.done {
            let message =
                format!("{} became shorter while it was copied", self.file.source.display());
            return Err(Error::new(ErrorKind::Failed, message).advise("run the backup again"));
        }
        Ok(metadata.len())
    }

    /// Waits until a log that was just created has its header: without one, no server starts on it.
    fn wait_for_header(&self, run: &Run<'_>) -> Result<()> {
        let since = Instant::now();
        while self.length()? < ARIA_LOG_HEADER as u64 {
            run.check()?;
            if since.elapsed() > HEADER_PATIENCE {
                let message = format!("{} has no header", self.file.source.display());
                return Err(Error::new(ErrorKind::Failed, message).advise(
                    "is the disk of the server full? Move it away if it is not the server's, and run \
                     the backup again",
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn copy_up_to(&mut self, end: u64, run: &Run<'_>) -> Result<()> {
        let mut buffer = Buffer::new(PIECE.min(end.saturating_sub(self.done) as usize));
        run.expect(end.saturating_sub(self.done));
        while self.done < end {
            run.check()?;
            let want = (buffer.len() as u64).min(end - self.done) as usize;
            let piece = buffer.get_mut(..want).unwrap_or_default();
            let read = read_at(&self.source, piece, self.done)
                .map_err(|e| Error::io("read", &self.file.source, e))?;
            if read == 0 {
                break;
            }
            let piece = piece.get(..read).unwrap_or_default();
            if self.done == 0 {
                self.header = piece.get(..ARIA_LOG_HEADER.min(read)).unwrap_or_default().to_vec();
            }
            self.target.write(self.done, piece)?;
            self.done += read as u64;
            run.advance(read as u64)?;
        }
        Ok(())
    }

    /// The header of an Aria log gets its last LSN when the next log is begun.
    fn update_header(&mut self) -> Result<()> {
        let mut header = vec![0; self.header.len()];
        let read = read_at(&self.source, &mut header, 0)
            .map_err(|e| Error::io("read", &self.file.source, e))?;
        if read == header.len() && header != self.header {
            self.target.patch(0, &header)?;
        }
        Ok(())
    }
}

/// What an index file of Aria says of where the log counts; `None` when it says nothing.
fn unlogged_until(file: &ServerFile) -> Result<Option<Vec<u8>>> {
    let source = match File::open(&file.source) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &file.source, error)),
    };
    let mut header = vec![0; ARIA_SKIP_REDO.end];
    let read = read_at(&source, &mut header, 0).map_err(|e| Error::io("read", &file.source, e))?;
    let places = (header.get(ARIA_BIRTH), header.get(ARIA_SKIP_REDO));
    let (Some(birth), Some(skip), true) = (places.0, places.1, read == header.len()) else {
        return Ok(None);
    };
    Ok(Some([birth, skip].concat()))
}

/// Reads `bytes` again until two reads agree. Aria writes transactional tables even while DDL is
/// blocked; its log makes up for pages that are old or new, but not for one that is half of each.
fn settle(source: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    const TRIES: usize = 20;
    let mut again = Buffer::new(bytes.len());
    for _ in 0..TRIES {
        let read = read_at(source, &mut again, offset)?;
        if read < bytes.len() || *again == *bytes {
            break;
        }
        bytes.copy_from_slice(&again);
    }
    Ok(())
}

/// The path of a table's file without what tells its files apart.
fn without_extension(file: &ServerFile) -> &[u8] {
    let path = file.path.as_bytes();
    path.get(..path.len().saturating_sub(4)).unwrap_or_default()
}

fn has_extension(file: &ServerFile, extension: &[u8]) -> bool {
    file.path.as_bytes().ends_with(extension)
}

/// Whether a file is copied bit by bit as it grows.
pub fn is_growing(class: Class) -> bool {
    matches!(class, Class::AriaLog | Class::LogTable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Cancel;
    use crate::report::Silent;
    use crate::sink::{FolderSink, backup_path};
    use std::fs;
    use std::path::Path;

    fn other(dir: &Path, name: &str, class: Class) -> OtherFile {
        OtherFile {
            file: ServerFile { source: dir.join(name), path: backup_path(name).unwrap() },
            class,
        }
    }

    /// A copier of the first directory, which is empty, into the second one.
    fn copying(test: impl FnOnce(&Path, &Path, &mut PlainCopier<'_>)) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        let sink = FolderSink::create(&to).unwrap();
        let cancel = Cancel::new();
        let run = Run::new(&cancel, &Silent, &sink, None);
        test(&from, &to, &mut PlainCopier::new(&run, 2, false));
    }

    #[test]
    fn the_copy_follows_the_directory() {
        copying(|from, to, copier| {
            let files = ["stays", "changes", "goes"].map(|name| other(from, name, Class::Table));
            for name in ["stays", "changes", "goes"] {
                fs::write(from.join(name), name).unwrap();
            }
            copier.synchronise(&files).unwrap();
            fs::write(from.join("changes"), "CHANGED").unwrap();
            fs::remove_file(from.join("goes")).unwrap();
            copier.synchronise(&files[..2]).unwrap();
            assert_eq!(fs::read(to.join("stays")).unwrap(), b"stays");
            assert_eq!(fs::read(to.join("changes")).unwrap(), b"CHANGED");
            assert!(!to.join("goes").exists());
        });
    }

    #[test]
    fn a_change_within_the_same_clock_tick_is_not_missed() {
        copying(|from, to, copier| {
            let file = other(from, "t.MYD", Class::Table);
            for round in 0..100 {
                // Same size, same inode, times that may not have moved.
                let content = format!("{round:04}");
                let mut options = fs::OpenOptions::new();
                let handle = options
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(from.join("t.MYD"))
                    .unwrap();
                std::os::unix::fs::FileExt::write_all_at(&handle, content.as_bytes(), 0).unwrap();
                copier.synchronise(std::slice::from_ref(&file)).unwrap();
                assert_eq!(fs::read_to_string(to.join("t.MYD")).unwrap(), content);
            }
        });
    }

    #[test]
    fn an_unchanged_file_is_copied_once() {
        copying(|from, _, copier| {
            fs::write(from.join("t.frm"), "x").unwrap();
            std::thread::sleep(RACY + Duration::from_millis(10));
            let files = [other(from, "t.frm", Class::Table)];
            copier.synchronise(&files).unwrap();
            copier.synchronise(&files).unwrap();
            assert_eq!(copier.run.copied().1, 1);
        });
    }

    #[test]
    fn a_table_that_was_filled_without_a_log_is_copied_again() {
        copying(|from, to, copier| {
            let header =
                |horizon: u8, skip: u8| [vec![0; 35], vec![horizon; 7], vec![skip; 7]].concat();
            let names = ["filled.MAI", "filled.MAD", "logged.MAI", "logged.MAD"];
            let files = names.map(|name| other(from, name, Class::Table));
            for name in names {
                let old = if name.ends_with("I") { header(1, 1) } else { b"old".to_vec() };
                fs::write(from.join(name), old).unwrap();
            }
            copier.synchronise(&files).unwrap();
            for (name, skip) in [("filled", 9), ("logged", 1)] {
                fs::write(from.join(name).with_extension("MAI"), header(9, skip)).unwrap();
                fs::write(from.join(name).with_extension("MAD"), "new").unwrap();
            }
            copier.refresh_unlogged(&files).unwrap();
            assert_eq!(fs::read(to.join("filled.MAI")).unwrap(), header(9, 9));
            assert_eq!(fs::read(to.join("filled.MAD")).unwrap(), b"new");
            assert_eq!(fs::read(to.join("logged.MAI")).unwrap(), header(1, 1));
            assert_eq!(fs::read(to.join("logged.MAD")).unwrap(), b"old");
        });
    }

    #[test]
    fn a_growing_log_is_copied_to_its_end_with_its_last_header() {
        copying(|from, to, copier| {
            let files = [other(from, "aria_log.00000001", Class::AriaLog)];
            let mut log = vec![1; 300_000];
            fs::write(from.join("aria_log.00000001"), &log).unwrap();
            copier.follow_growing(&files, Class::AriaLog).unwrap();
            log[37] = 9;
            log.extend(vec![2; 100_000]);
            log[280_000] = 7;
            fs::write(from.join("aria_log.00000001"), &log).unwrap();
            copier.finish_growing(&files).unwrap();
            assert!(fs::read(to.join("aria_log.00000001")).unwrap() == log);
        });
    }

    #[test]
    fn a_log_without_a_header_is_waited_for() {
        copying(|from, to, copier| {
            let name = "aria_log.00000002";
            let files = [other(from, name, Class::AriaLog)];
            fs::write(from.join(name), "").unwrap();
            copier.follow_growing(&files, Class::AriaLog).unwrap();
            let source = from.join(name);
            let server = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                fs::write(source, vec![3; 16384]).unwrap();
            });
            copier.finish_growing(&files).unwrap();
            server.join().unwrap();
            assert!(fs::read(to.join(name)).unwrap() == vec![3; 16384]);
        });
    }
}
