//! From what is known to what is on disk.
//!
//! All writes go to a journal first: pages, headers, the end of the log, the control file. When the
//! journal is complete and durable, they are done; when they are durable, it is removed. A run
//! that finds a complete journal does its writes again, and one that finds half a journal removes
//! it: then no file was changed yet.
//!
//! The journal is a magic, entries, and a CRC-32 of everything before it:
//!
//! | length | field |
//! |---|---|
//! | 1 | 1: write; 2: remove a file; 3: cut a file; 0: the end |
//! | 2, name | the file, relative to the backup |
//! | 8 | offset to write at, or length to cut to |
//! | 4, bytes | what to write |

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use super::AriaSummary;
use super::checkpoint::Checkpoint;
use super::control::{self, Control};
use super::leave::Result;
use super::log::{self, FILLER, Log, PAGE, PAGE_HEADER};
use super::lsn::AriaLsn;
use super::record::{self, Kind};
use super::redo::Recovered;
use crate::io::durable;
use crate::{Error, ErrorKind};

/// Name of the journal. Files with such names are not restored.
const JOURNAL: &str = ".haulout-aria.journal";
const MAGIC: &[u8; 8] = b"HAULOUTA";

mod entry {
    pub const END: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const REMOVE: u8 = 2;
    pub const CUT: u8 = 3;
}

/// Writes what recovery came to.
pub fn commit(
    dir: &Path,
    mut control: Control,
    log: &mut Log,
    recovered: Recovered,
) -> Result<AriaSummary> {
    let mut summary = Summary::default();
    let grown = recovered.max_transaction != control.max_transaction;
    let max_transaction = recovered.max_transaction.max(control.max_transaction);
    let Recovered { tables, records, left_out, checkpoint, .. } = recovered;
    if checkpoint || grown {
        let mut journal = Writer::create(dir)?;
        for table in tables {
            let (header, state_changed, shape) = (table.header(), table.state_changed, table.shape);
            let base = table.name.trim_start_matches("./").to_owned();
            let mut changed = false;
            for (end, pages) in [("MAD", table.data), ("MAI", table.index)] {
                let name = format!("{base}.{end}");
                if let Some(length) = pages.is_cut() {
                    journal.cut(&name, length)?;
                    changed = true;
                }
                for (number, page) in pages.into_changed(&shape, table.crypt.as_ref())? {
                    journal.write(&name, number * shape.block as u64, &page)?;
                    summary.pages += 1;
                    changed = true;
                }
            }
            if state_changed {
                journal.write(&format!("{base}.MAI"), 0, &header)?;
            }
            summary.tables += usize::from(changed);
        }
        control.max_transaction = max_transaction;
        if checkpoint {
            control.checkpoint = write_checkpoint(&mut journal, log, max_transaction)?;
            control.last_log = control.checkpoint.file();
            for number in log.earlier_files() {
                journal.remove(&log::file_name(number))?;
            }
        }
        journal.write(control::NAME, 0, &control.to_bytes())?;
        journal.finish()?;
        complete(dir)?;
    }
    Ok(AriaSummary::Recovered {
        records,
        tables: summary.tables,
        pages: summary.pages,
        open_transactions: left_out,
    })
}

#[derive(Default)]
struct Summary {
    tables: usize,
    pages: u64,
}

/// Ends the log with a checkpoint at which nothing was going on, and tells where that is.
fn write_checkpoint(journal: &mut Writer, log: &mut Log, max_transaction: u64) -> Result<AriaLsn> {
    let end = log.end();
    let body = Checkpoint::of_nothing(end, max_transaction);
    let mut record = vec![record::number_of(Kind::Checkpoint), 0, 0, body.len() as u8, 0, 0];
    record.extend(&body);
    let mut page = log.last_page()?;
    let mut within = match end.offset() as usize % PAGE {
        0 => PAGE,
        within => within,
    };
    let name = log::file_name(end.file());
    let mut start = end.offset() - within as u32;
    if within + record.len() > PAGE {
        if within < PAGE {
            page.get_mut(within..).unwrap_or_default().fill(FILLER);
            journal.write(&name, start.into(), &page)?;
        }
        start = start
            .checked_add(PAGE as u32)
            .ok_or_else(|| Error::new(ErrorKind::Failed, format!("{name} cannot become longer")))?;
        let number = start / PAGE as u32;
        page.fill(FILLER);
        let ([n0, n1, n2, _], [f0, f1, f2, _]) = (number.to_le_bytes(), end.file().to_le_bytes());
        let _ = innodb::bytes::put(&mut page, 0, &[n0, n1, n2, f0, f1, f2, 0]);
        within = PAGE_HEADER;
    }
    page.get_mut(within..).unwrap_or_default().fill(FILLER);
    let _ = innodb::bytes::put(&mut page, within, &record);
    journal.write(&name, start.into(), &page)?;
    Ok(AriaLsn::new(end.file(), start + within as u32))
}

struct Writer {
    out: BufWriter<File>,
    path: PathBuf,
    crc: crc32fast::Hasher,
}

impl Writer {
    fn create(dir: &Path) -> crate::Result<Self> {
        let path = dir.join(JOURNAL);
        let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Self { out, path, crc: crc32fast::Hasher::new() };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> crate::Result<()> {
        self.crc.update(bytes);
        self.out.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    fn name(&mut self, kind: u8, name: &str) -> crate::Result<()> {
        self.put(&[kind])?;
        self.put(&(name.len() as u16).to_le_bytes())?;
        self.put(name.as_bytes())
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> crate::Result<()> {
        self.name(entry::WRITE, name)?;
        self.put(&offset.to_le_bytes())?;
        self.put(&(bytes.len() as u32).to_le_bytes())?;
        self.put(bytes)
    }

    fn remove(&mut self, name: &str) -> crate::Result<()> {
        self.name(entry::REMOVE, name)
    }

    fn cut(&mut self, name: &str, length: u64) -> crate::Result<()> {
        self.name(entry::CUT, name)?;
        self.put(&length.to_le_bytes())
    }

    fn finish(mut self) -> crate::Result<()> {
        self.put(&[entry::END])?;
        let crc = self.crc.clone().finalize();
        let path = &self.path;
        self.out
            .write_all(&crc.to_le_bytes())
            .and_then(|()| self.out.flush())
            .and_then(|()| self.out.get_ref().sync_all())
            .map_err(|e| Error::io("write", path, e))
    }
}

/// Does the writes of a journal that was left, and removes it.
pub fn complete(dir: &Path) -> crate::Result<()> {
    let path = dir.join(JOURNAL);
    let file = match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|e| Error::io("open", &path, e))?,
    };
    if is_complete(&file).map_err(|e| Error::io("read", &path, e))? {
        let mut reader = Reader::new(&file).map_err(|e| Error::io("read", &path, e))?;
        let mut changed = BTreeSet::new();
        let mut open: Option<(String, File)> = None;
        while let Some(entry) = reader.next().map_err(|e| Error::io("read", &path, e))? {
            let Some(target) = inside(dir, &entry.name) else { continue };
            if let Change::Remove = entry.change {
                durable::remove_file(&target)?;
                continue;
            }
            let file = match open.take_if(|open| open.0 == entry.name) {
                Some((_, file)) => file,
                None => OpenOptions::new()
                    .write(true)
                    .open(&target)
                    .map_err(|e| Error::io("open", &target, e))?,
            };
            match entry.change {
                Change::Write(offset, bytes) => file.write_all_at(&bytes, offset),
                Change::Cut(length) => file.set_len(length),
                Change::Remove => Ok(()),
            }
            .map_err(|e| Error::io("write", &target, e))?;
            changed.insert(target);
            open = Some((entry.name, file));
        }
        drop(open);
        for target in changed {
            File::open(&target)
                .and_then(|file| file.sync_all())
                .map_err(|e| Error::io("make durable", &target, e))?;
        }
    }
    fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))
}

/// The path of a file of the backup; nothing outside of it.
fn inside(dir: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    let normal = name.components().all(|part| matches!(part, Component::Normal(_)));
    normal.then(|| dir.join(name))
}

fn is_complete(file: &File) -> std::io::Result<bool> {
    let Some(body) = file.metadata()?.len().checked_sub(4) else { return Ok(false) };
    let mut crc = crc32fast::Hasher::new();
    let mut input = BufReader::with_capacity(1 << 20, file);
    let (mut left, mut piece) = (body, vec![0; 1 << 20]);
    while left > 0 {
        let want = piece.len().min(left as usize);
        let piece = piece.get_mut(..want).unwrap_or_default();
        input.read_exact(piece)?;
        crc.update(piece);
        left -= want as u64;
    }
    let mut stored = [0; 4];
    input.read_exact(&mut stored)?;
    Ok(body > MAGIC.len() as u64 && u32::from_le_bytes(stored) == crc.finalize())
}

struct Reader<'a> {
    input: BufReader<&'a File>,
}

struct Entry {
    name: String,
    change: Change,
}

enum Change {
    Write(u64, Vec<u8>),
    Cut(u64),
    Remove,
}

impl<'a> Reader<'a> {
    fn new(mut file: &'a File) -> std::io::Result<Self> {
        use std::io::Seek;
        file.seek(std::io::SeekFrom::Start(MAGIC.len() as u64))?;
        Ok(Self { input: BufReader::with_capacity(1 << 20, file) })
    }

    fn array<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn next(&mut self) -> std::io::Result<Option<Entry>> {
        let [kind] = self.array()?;
        if kind == entry::END {
            return Ok(None);
        }
        let length = u16::from_le_bytes(self.array()?);
        let name = String::from_utf8(self.bytes(length.into())?)
            .map_err(|_| std::io::ErrorKind::InvalidData)?;
        let change = match kind {
            entry::WRITE => {
                let offset = u64::from_le_bytes(self.array()?);
                let length = u32::from_le_bytes(self.array()?);
                // A page or a header: the journal is ours, but its disk may not be.
                if length > 1 << 20 {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                Change::Write(offset, self.bytes(length as usize)?)
            }
            entry::CUT => Change::Cut(u64::from_le_bytes(self.array()?)),
            _ => Change::Remove,
        };
        Ok(Some(Entry { name, change }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn setting() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/t.MAD"), [1; 20]).unwrap();
        fs::write(dir.path().join("aria_log.00000001"), [2; 20]).unwrap();
        let mut journal = Writer::create(dir.path()).unwrap();
        journal.write("d/t.MAD", 10, &[7; 20]).unwrap();
        journal.cut("d/t.MAD", 25).unwrap();
        journal.write("../outside", 0, &[7]).unwrap();
        journal.remove("aria_log.00000001").unwrap();
        journal.finish().unwrap();
        dir
    }

    #[test]
    fn a_complete_journal_is_carried_out_once() {
        let dir = setting();
        complete(dir.path()).unwrap();
        let expected = [[1; 10].as_slice(), &[7; 15]].concat();
        assert_eq!(fs::read(dir.path().join("d/t.MAD")).unwrap(), expected);
        assert!(!dir.path().join("aria_log.00000001").exists());
        assert!(!dir.path().join(JOURNAL).exists());
        complete(dir.path()).unwrap();
    }

    #[test]
    fn a_journal_that_was_cut_short_or_damaged_changes_nothing() {
        let whole = fs::read(setting().path().join(JOURNAL)).unwrap();
        let damaged = (0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        });
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        for journal in damaged.chain(cut) {
            let dir = setting();
            fs::write(dir.path().join(JOURNAL), journal).unwrap();
            complete(dir.path()).unwrap();
            assert_eq!(fs::read(dir.path().join("d/t.MAD")).unwrap(), [1; 20]);
            assert!(dir.path().join("aria_log.00000001").exists());
        }
    }
}
