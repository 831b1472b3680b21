//! What a delta directory holds, as it is meant: tablespaces under the names they have at its end.
//!
//! What happened to tables while the delta was taken (`.del`, `.ren`, `.new`, see
//! [`crate::prepare`]) is worked out in memory. Nothing in the directory is changed, so that the
//! delta can be applied again, to another copy of its base or after an interruption.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use innodb::SpaceId;
use innodb::space::SpaceHeader;
use innodb::{Lsn, PageSize};

use super::contents::Contents;
use super::format::Cluster;
use super::meta::Meta;
use crate::capture::rocksdb;
use crate::metadata::{BackupMyCnf, BackupType, Checkpoints, HauloutInfo, Naming, partial::Tables};
use crate::prepare::markers;
use crate::{Error, ErrorKind, Result};

/// A delta.
pub struct DeltaDir {
    /// Where it is.
    pub dir: PathBuf,
    /// Its place in the chain.
    pub checkpoints: Checkpoints,
    /// The names of its metadata.
    pub naming: Naming,
    /// The server's settings.
    pub settings: BackupMyCnf,
    /// Pages newer than this are in it.
    pub pages_since: Lsn,
    /// Which tables it has.
    pub tables: Tables,
    /// Whether it has every file that the server had, known to some engine or not.
    pub has_unknown_files: bool,
    /// Changed tablespace files.
    pub changed: Vec<ChangedFile>,
    /// Whole tablespaces.
    pub whole: Vec<WholeFile>,
    /// All other files, relative to the directory.
    pub plain: BTreeSet<PathBuf>,
    /// Databases of which it has nothing but the folder.
    pub empty_databases: BTreeSet<PathBuf>,
}

/// A tablespace file of which the delta has the pages that changed.
#[derive(Clone, Debug)]
pub struct ChangedFile {
    /// The `.delta` file.
    pub path: PathBuf,
    /// The name of the tablespace file at the end of the delta, relative to the backup.
    pub name: String,
    /// Which tablespace.
    pub meta: Meta,
    /// Whether the first page is among the changed ones.
    pub has_page_0: bool,
}

/// A tablespace that the delta has whole.
#[derive(Clone, Debug)]
pub struct WholeFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name, relative to the backup.
    pub name: String,
}

impl DeltaDir {
    /// Reads a directory, without the pages.
    ///
    /// # Errors
    /// When it holds no delta, or none that can be applied.
    pub fn read(dir: &Path) -> Result<Self> {
        let (checkpoints, naming) = Checkpoints::read(dir)?;
        if checkpoints.backup_type != BackupType::Incremental {
            let message = format!(
                "{} is no delta: its backup_type is {}",
                dir.display(),
                checkpoints.backup_type.word()
            );
            return Err(Error::new(ErrorKind::Usage, message)
                .advise("name the base first, and then its deltas in their order"));
        }
        let info = HauloutInfo::read(dir)?;
        let pages_since = info.as_ref().and_then(|info| info.lsn.pages_since);
        let mut delta = Self {
            dir: dir.to_owned(),
            naming,
            tables: Tables::read(dir)?,
            settings: BackupMyCnf::read(dir)?,
            pages_since: pages_since.map_or(checkpoints.from_lsn, Lsn).min(checkpoints.from_lsn),
            checkpoints,
            has_unknown_files: info.is_some(),
            changed: Vec::new(),
            whole: Vec::new(),
            plain: BTreeSet::new(),
            empty_databases: empty_folders(dir)?,
        };
        let mut files = Vec::new();
        list(dir, Path::new(""), &mut files)?;
        delta.sort(&files)?;
        delta.check_complete()?;
        Ok(delta)
    }

    /// Tells what each file is.
    fn sort(&mut self, files: &[PathBuf]) -> Result<()> {
        let new_name = |marker: &str| markers::new_name(&self.dir.join(marker));
        let contents = Contents::new(&self.dir.display().to_string(), files, &new_name)?;
        for (name, of) in contents.changed {
            let path = self.dir.join(format!("{of}.delta"));
            let meta = Meta::read(&self.dir.join(format!("{of}.meta")))?;
            let has_page_0 = starts_with_page_0(&path, meta.page_size)?;
            self.changed.push(ChangedFile { path, name, meta, has_page_0 });
        }
        let whole = contents.whole.into_iter();
        self.whole =
            whole.map(|(name, path)| WholeFile { path: self.dir.join(path), name }).collect();
        self.plain = contents.plain;
        Ok(())
    }

    /// A delta always has the system tablespace, even if nothing changed in it.
    fn check_complete(&self) -> Result<()> {
        let missing = |name: &str| {
            let message = format!("{} has no {name}", self.dir.display());
            Err(Error::new(ErrorKind::Damage, message)
                .advise("the delta is not complete; copy it again, or take another one"))
        };
        for file in self.settings.data_file_path.files() {
            let name = file.stored_name().to_string_lossy();
            if !self.changed.iter().any(|changed| changed.name == name) {
                return missing(&format!("{name}.delta"));
            }
        }
        if !self.dir.join(LOG).exists() {
            return missing(LOG);
        }
        Ok(())
    }
}

/// The redo log of a backup.
pub const LOG: &str = "ib_logfile0";

/// All files below `dir`, relative to it.
pub fn list(dir: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let folder = dir.join(below);
    for entry in fs::read_dir(&folder).map_err(|e| Error::io("list", &folder, e))? {
        let entry = entry.map_err(|e| Error::io("list", &folder, e))?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().map_err(|e| Error::io("inspect", &path, e))?;
        if kind.is_dir() {
            list(dir, &path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// The folders in `dir` that hold nothing, by their names.
fn empty_folders(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let failed = |error| Error::io("list", dir, error);
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir()
            && entry.file_name() != *rocksdb::DIRECTORY
            && fs::read_dir(&path).map_err(|e| Error::io("list", &path, e))?.next().is_none()
        {
            found.insert(entry.file_name().into());
        }
    }
    Ok(found)
}

/// What page 0 of a tablespace file says; `None` when it was never written, or is none.
pub fn header_of(path: &Path) -> Result<Option<SpaceHeader>> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut start = vec![0; PageSize::MAX.bytes()];
    let read = crate::io::read_ahead::read_at(&file, &mut start, 0);
    let read = read.map_err(|e| Error::io("read", path, e))?;
    Ok(SpaceHeader::parse(start.get(..read).unwrap_or_default()).ok())
}

/// The tablespace that a file is.
pub fn space_of(path: &Path) -> Result<Option<SpaceId>> {
    Ok(header_of(path)?.map(|header| header.id))
}

fn starts_with_page_0(path: &Path, page_size: PageSize) -> Result<bool> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut header = vec![0; page_size.bytes()];
    file.read_exact_at(&mut header, 0).map_err(|e| Error::io("read", path, e))?;
    let first = Cluster::parse(&header, 0, None).map_err(|e| damaged(path, e))?;
    Ok(first.pages.first() == Some(&0))
}

/// An error about the inside of a `.delta` file.
pub fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Damage, format!("{} is damaged: {why}", path.display()))
        .advise("copy the delta again, or take another one")
}
