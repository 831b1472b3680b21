//! The tablespaces that are in a backup, by what their first pages say.
//!
//! A file whose first page says nothing (never written, or torn) is common: the table was made
//! after the last checkpoint, and the redo log makes the page. Such files are kept by name, for
//! [`super::spaces`] to bind once the log was read.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use innodb::crypt::page::key_version;
use innodb::page::{self, Verdict, verify};
use innodb::space::{CryptData, FILE_BLOCK, PageCompression, SpaceFlags, SpaceHeader};
use innodb::{Lsn, PageId, PageNo, PageSize, SpaceId};

use super::codec::{CodecScratch, PageCodec};
use crate::{Error, ErrorKind, Result};

/// A file of a tablespace.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// Where it is.
    pub path: PathBuf,
    /// Relative to the backup.
    pub name: String,
    /// Its first page.
    pub first_page: PageNo,
    /// Bytes it has, or will have once its last pages are written.
    pub bytes: u64,
}

/// A tablespace that is in the backup.
#[derive(Clone, Debug)]
pub struct Tablespace {
    /// Its number.
    pub id: SpaceId,
    /// Format and sizes.
    pub flags: SpaceFlags,
    /// One file, or several of the system tablespace, in their order.
    pub files: Vec<DataFile>,
    /// The encryption descriptor on its first page.
    pub crypt: Option<CryptData>,
    /// The LSN of that page; none when redo makes it.
    pub page_0_lsn: Option<Lsn>,
    /// How its pages are stored. Known once the log was read, which may change the descriptor.
    pub codec: PageCodec,
}

/// A file whose first page does not say what it is.
#[derive(Clone, Debug)]
pub struct Unidentified {
    /// The file.
    pub file: DataFile,
    /// What is wrong with its first page.
    pub reason: String,
}

/// All tablespaces of a backup.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Those whose first page says what they are.
    pub spaces: HashMap<SpaceId, Tablespace>,
    /// The others.
    pub unidentified: Vec<Unidentified>,
}

impl Inventory {
    /// Reads the first page of every tablespace below `dir`. `system_files` are the names of the
    /// system tablespace's files.
    pub fn read(dir: &Path, page_size: PageSize, system_files: &[String]) -> Result<Self> {
        let mut inventory = Self::default();
        inventory.system(dir, page_size, system_files)?;
        for entry in entries(dir)? {
            let path = dir.join(&entry);
            let kind = fs::symlink_metadata(&path).map_err(|e| Error::io("inspect", &path, e))?;
            if kind.is_dir() {
                for name in entries(&path)? {
                    if name.ends_with(".ibd") {
                        let file = DataFile::at(path.join(&name), format!("{entry}/{name}"))?;
                        inventory.add(file, page_size)?;
                    } else if name.ends_with(".delta") {
                        return Err(incremental(&path.join(name)));
                    }
                }
            } else if is_undo(&entry) {
                inventory.add(DataFile::at(path, entry)?, page_size)?;
            } else if entry.ends_with(".delta") {
                return Err(incremental(&path));
            }
        }
        Ok(inventory)
    }

    /// Pages in all files.
    pub fn pages(&self, page_size: PageSize) -> u64 {
        let files = self.spaces.values().flat_map(|space| &space.files);
        let files = files.chain(self.unidentified.iter().map(|u| &u.file));
        files.map(|file| file.bytes).sum::<u64>() / page_size.bytes() as u64
    }

    fn system(&mut self, dir: &Path, page_size: PageSize, names: &[String]) -> Result<()> {
        let mut files = Vec::new();
        let mut next = 0;
        for name in names {
            let mut file = DataFile::at(dir.join(name), name.clone())?;
            file.first_page = PageNo(next);
            let pages = u32::try_from(file.bytes / page_size.bytes() as u64).unwrap_or(u32::MAX);
            next = next.saturating_add(pages);
            files.push(file);
        }
        let Some(first) = files.first() else {
            return Err(Error::new(
                ErrorKind::Damage,
                "innodb_data_file_path of backup-my.cnf names no file",
            ));
        };
        let (header, page_0_lsn) = match identify(first, page_size)? {
            Ok((header, lsn)) if header.id == SpaceId::SYSTEM => (header, Some(lsn)),
            Ok((header, _)) => {
                return Err(damaged(first, &format!("it is that of tablespace {}", header.id)));
            }
            Err(reason) => return Err(damaged(first, &reason)),
        };
        let SpaceHeader { id, flags, crypt, .. } = header;
        let codec = PageCodec::default();
        self.spaces.insert(id, Tablespace { id, flags, files, crypt, page_0_lsn, codec });
        Ok(())
    }

    fn add(&mut self, mut file: DataFile, page_size: PageSize) -> Result<()> {
        match identify(&file, page_size)? {
            Ok((header, lsn)) => {
                // A server makes files longer in whole blocks. Of a tablespace with smaller pages
                // the last ones may be missing, although page 0 counts them.
                let counted = u64::from(header.size) * header.physical_size().bytes() as u64;
                if counted.saturating_sub(file.bytes) < FILE_BLOCK {
                    file.bytes = file.bytes.max(counted);
                }
                self.insert(header.id, header.flags, header.crypt, Some(lsn), file)
            }
            Err(reason) => {
                self.unidentified.push(Unidentified { file, reason });
                Ok(())
            }
        }
    }

    /// Takes `file` for tablespace `id`.
    pub fn insert(
        &mut self,
        id: SpaceId,
        flags: SpaceFlags,
        crypt: Option<CryptData>,
        page_0_lsn: Option<Lsn>,
        file: DataFile,
    ) -> Result<()> {
        if let Some(other) = self.spaces.get(&id).and_then(|space| space.files.first()) {
            return Err(Error::new(
                ErrorKind::Damage,
                format!("{} and {} are both tablespace {id}", other.name, file.name),
            )
            .advise("one of the files does not belong in this backup"));
        }
        let (files, codec) = (vec![file], PageCodec::default());
        self.spaces.insert(id, Tablespace { id, flags, files, crypt, page_0_lsn, codec });
        Ok(())
    }
}

impl DataFile {
    fn at(path: PathBuf, name: String) -> Result<Self> {
        let bytes = fs::metadata(&path).map_err(|e| Error::io("inspect", &path, e))?.len();
        Ok(Self { path, name, first_page: PageNo(0), bytes })
    }
}

impl Tablespace {
    /// Whether its pages leave holes in the file: those that are page-compressed do.
    pub fn has_holes(&self) -> bool {
        self.flags.page_compression() != PageCompression::None
    }

    /// The file that has `page`, and how many pages from there on it has.
    pub fn locate(&self, page: PageNo) -> Option<(usize, &DataFile, u64)> {
        let number = self.files.partition_point(|file| file.first_page <= page).checked_sub(1)?;
        let file = self.files.get(number)?;
        let pages = file.bytes / self.flags.physical_size().bytes() as u64;
        let left = pages.checked_sub(u64::from(page.0 - file.first_page.0))?;
        (left > 0).then_some((number, file, left))
    }

    /// Whether the keys at hand are those of this tablespace: one page that is encrypted must
    /// decrypt, and there must be one to write with. The first pages of a tablespace are hardly
    /// ever free, so few have to be looked at.
    pub fn try_key(&self) -> Result<()> {
        const LOOK_AT: u64 = 64;
        let Some(keys) = self.codec.encrypts() else { return Ok(()) };
        let name = self.files.first().map_or("", |file| &file.name);
        keys.latest().map_err(|error| error.needed_for(name))?;
        let Some((_, file, pages)) = self.locate(PageNo(0)) else { return Ok(()) };
        let open = File::open(&file.path).map_err(|e| Error::io("open", &file.path, e))?;
        let page_size = self.flags.physical_size().bytes();
        let mut page = vec![0; page_size];
        let mut scratch = CodecScratch::default();
        let mut failed = None;
        for number in 1..pages.min(LOOK_AT) {
            match open.read_exact_at(&mut page, number * page_size as u64) {
                Ok(()) => {}
                // The last page may be counted and not be there yet.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(Error::io("read", &file.path, error)),
            }
            let page_no = PageNo(number as u32);
            let verdict = verify(&page, page_no, Some(self.id), &self.flags);
            if key_version(verdict) == 0 {
                // Damage counts only where redo needs the page.
                continue;
            }
            let id = PageId { space: self.id, page: page_no };
            match self.codec.open(&mut page, id, &self.flags, verdict, &mut scratch) {
                Ok(()) => return Ok(()),
                // Of a page that is free, the key may be gone for good.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Checks `page` as stored in `file` and makes it plain.
    pub fn open(
        &self,
        page: &mut [u8],
        page_no: PageNo,
        file: &DataFile,
        scratch: &mut CodecScratch,
    ) -> Result<()> {
        let id = PageId { space: self.id, page: page_no };
        match verify(page, page_no, Some(self.id), &self.flags) {
            Verdict::Damaged(damage) => {
                let lsn = page::lsn(page).unwrap_or_default();
                Err(Error::new(
                    ErrorKind::Damage,
                    format!("{} is damaged at {id}, page LSN {lsn}: {damage}", file.name),
                )
                .advise("the copy is not usable; take a new backup"))
            }
            verdict => self.codec.open(page, id, &self.flags, verdict, scratch),
        }
    }
}

/// What the first page of `file` says, and its LSN, or why it does not tell.
fn identify(file: &DataFile, page_size: PageSize) -> Result<Result<(SpaceHeader, Lsn), String>> {
    let mut start = Vec::new();
    File::open(&file.path)
        .and_then(|f| f.take(PageSize::MAX.bytes() as u64).read_to_end(&mut start))
        .map_err(|e| Error::io("read", &file.path, e))?;
    let header = match SpaceHeader::parse(&start) {
        Ok(header) => header,
        Err(reason) => return Ok(Err(reason.to_string())),
    };
    if header.flags.logical_size() != page_size {
        return Err(Error::new(
            ErrorKind::Damage,
            format!(
                "{} has pages of {} bytes, but backup-my.cnf says innodb_page_size={page_size}",
                file.name,
                header.flags.logical_size()
            ),
        ));
    }
    let page_0 = start.get(..header.physical_size().bytes()).unwrap_or_default();
    match verify(page_0, PageNo(0), Some(header.id), &header.flags) {
        Verdict::Damaged(damage) => Ok(Err(damage.to_string())),
        _ => Ok(Ok((header, page::lsn(page_0).unwrap_or_default()))),
    }
}

fn incremental(path: &Path) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!("{} belongs to a delta, which cannot be prepared by itself", path.display()),
    )
    .advise("apply it to its base: haulout prepare BASE --delta DELTA")
}

fn damaged(file: &DataFile, reason: &str) -> Error {
    Error::new(ErrorKind::Damage, format!("the first page of {} is damaged: {reason}", file.name))
        .advise("the copy is not usable; take a new backup")
}

/// `undo001` to `undo127`.
pub fn is_undo(name: &str) -> bool {
    name.strip_prefix("undo").is_some_and(|n| n.len() == 3 && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Names in a folder, sorted; those that are not UTF-8 belong to no tablespace.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, e))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
