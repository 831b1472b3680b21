//! What files a server has, and what each of them is to a backup.
//!
//! The data directory changes while it is listed: what vanishes in between was dropped and is
//! left out. Nothing is dropped in silence: files that no rule knows are part of the backup and
//! named, and what is left out on purpose stands in one place, `left_out`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use innodb::space::file_name::is_intermediate;

use super::left_out::LeftOut;
use crate::aria::control::Control;
use crate::metadata;
use crate::server::profile::ServerProfile;
use crate::sink::{StreamPath, backup_path};
use crate::table_filter::TableFilter;
use crate::{Error, ErrorKind, Result};

/// A file of the server and its place in the backup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerFile {
    /// Where it is.
    pub source: PathBuf,
    /// Where it goes.
    pub path: StreamPath,
}

/// A file that is not InnoDB's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherFile {
    /// The file.
    pub file: ServerFile,
    /// What it is.
    pub class: Class,
}

/// How a file that is not InnoDB's changes, and so when it must be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Does not change while DDL and writes to non-transactional tables are blocked.
    Table,
    /// `aria_log_control`: where Aria's recovery begins. Must be older than the tables.
    AriaControl,
    /// `aria_log.N`: grows until commits are blocked.
    AriaLog,
    /// The data of a log table: grows until commits are blocked.
    LogTable,
    /// Changes until commits are blocked: the state of log tables, tables of statistics.
    UntilCommit,
    /// Written through a mapping, which the file's times need not show: copied once, when DDL and
    /// writes to non-transactional tables are blocked.
    Mapped,
    /// No rule knows it.
    Unknown,
}

/// All files of a server at one moment.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The files of the system tablespace, in order.
    pub system: Vec<ServerFile>,
    /// Undo tablespaces.
    pub undo: Vec<ServerFile>,
    /// File-per-table tablespaces, intermediate ones left out.
    pub tables: Vec<ServerFile>,
    /// Everything else that belongs into a backup.
    pub others: Vec<OtherFile>,
    /// Directories in which nothing was found.
    pub empty_directories: Vec<StreamPath>,
    /// Files below a directory of a directory: no server's own.
    pub nested: Vec<ServerFile>,
    /// Files that cannot be in a backup under their name, with the reason.
    pub refused: Vec<(PathBuf, &'static str)>,
}

/// Extensions by which a prepare knows what to do with a tablespace: in a data directory they are
/// remains of something else, and must not be obeyed.
const MARKER_EXTENSIONS: [&[u8]; 5] = [b"del", b"ren", b"new", b"delta", b"meta"];

/// Extensions of the files that make up tables, views and triggers outside of InnoDB.
const TABLE_EXTENSIONS: [&[u8]; 14] = [
    b"frm", b"isl", b"MYD", b"MYI", b"MAD", b"MAI", b"MRG", b"TRG", b"TRN", b"ARM", b"ARZ", b"CSM",
    b"CSV", b"opt",
];

/// Lists Aria's logs and control file alone.
pub fn aria_logs(profile: &ServerProfile) -> Result<Vec<OtherFile>> {
    let mut inventory = Inventory::default();
    inventory.list_aria_logs(&profile.aria_log_dir_path)?;
    Ok(inventory.others)
}

/// Lists all files.
pub fn take(profile: &ServerProfile) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    for data_file in metadata::DataFilePath::parse(&profile.innodb_data_file_path)?.files() {
        let source = profile.innodb_data_home_dir.join(&data_file.path);
        let path = backup_path(data_file.stored_name().as_os_str().as_bytes())?;
        inventory.system.push(ServerFile { source, path });
    }
    inventory.list_undo(&profile.innodb_undo_directory)?;
    inventory.list_aria_logs(&profile.aria_log_dir_path)?;
    let left_out = LeftOut::of(profile, &inventory);
    inventory.list_datadir(profile, &left_out)?;
    inventory.tables.sort();
    inventory.tables.dedup_by(|later, first| {
        let same = later.path == first.path;
        if same {
            let reason = "a link file leads to another tablespace of its name";
            inventory.refused.push((later.source.clone(), reason));
        }
        same
    });
    Ok(inventory)
}

impl Inventory {
    /// Without what is worth nothing until nobody writes to it.
    #[must_use]
    pub fn without_mapped(mut self) -> Self {
        self.others.retain(|other| other.class != Class::Mapped);
        self
    }

    /// Only what a partial backup has.
    #[must_use]
    pub fn only(mut self, wanted: &TableFilter) -> Self {
        if !wanted.is_empty() {
            self.tables.retain(|file| wanted.keeps(file.path.as_bytes()));
            self.others.retain(|other| wanted.keeps(other.file.path.as_bytes()));
            self.nested.retain(|file| wanted.keeps(file.path.as_bytes()));
            self.empty_directories.retain(|path| wanted.keeps_empty(path.as_bytes()));
        }
        self
    }

    fn list_undo(&mut self, dir: &Path) -> Result<()> {
        for entry in list(dir)?.unwrap_or_default() {
            if is_undo_name(&entry.name) && entry.kind == Kind::File {
                self.undo.push(ServerFile { path: backup_path(&entry.name)?, source: entry.path });
            }
        }
        self.undo.sort();
        Ok(())
    }

    fn list_aria_logs(&mut self, dir: &Path) -> Result<()> {
        for entry in list(dir)?.unwrap_or_default() {
            let class = match entry.name.as_slice() {
                b"aria_log_control" => Class::AriaControl,
                name if aria_log_number(name).is_some() => Class::AriaLog,
                _ => continue,
            };
            let file = ServerFile { path: backup_path(&entry.name)?, source: entry.path };
            self.others.push(OtherFile { file, class });
        }
        self.others.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        self.refuse_stray_aria_logs(dir);
        Ok(())
    }

    /// Aria numbers its logs without gaps: a file behind a gap is not its own. Without a control
    /// file that says which is the last, all count.
    fn refuse_stray_aria_logs(&mut self, dir: &Path) {
        let control = fs::read(dir.join("aria_log_control")).ok();
        let Some(control) = control.and_then(|bytes| Control::parse(&bytes).ok()) else { return };
        let number = |other: &OtherFile| aria_log_number(other.file.path.as_bytes());
        let present: BTreeSet<u32> = self.others.iter().filter_map(number).collect();
        if !present.contains(&control.last_log) {
            return;
        }
        let is_there = |number: &u32| present.contains(number);
        let newest = (control.last_log..).take_while(is_there).last();
        let oldest = (0..=control.last_log).rev().take_while(is_there).last();
        let (Some(oldest), Some(newest)) = (oldest, newest) else { return };
        let is_stray = |other: &mut OtherFile| {
            number(other).is_some_and(|number| !(oldest..=newest).contains(&number))
        };
        for stray in self.others.extract_if(.., is_stray) {
            self.refused
                .push((stray.file.source, "there is a gap between Aria's logs and this one"));
        }
    }

    fn list_datadir(&mut self, profile: &ServerProfile, left_out: &LeftOut) -> Result<()> {
        let entries = list(&profile.datadir)?.ok_or_else(|| {
            let message =
                format!("the data directory {} does not exist here", profile.datadir.display());
            Error::new(ErrorKind::Usage, message)
                .advise("run the backup on the host of the server, with the server's paths visible")
        })?;
        for entry in entries {
            // Hidden files are the system user's own, and mbstream unpacks none.
            if entry.name.starts_with(b".") {
                continue;
            }
            match entry.kind {
                Kind::Directory if !left_out.directory(&entry.name, &entry.path) => {
                    self.list_database(&entry, left_out)?
                }
                Kind::File if !left_out.file(&entry.name, &entry.path) => {
                    let file = ServerFile { path: backup_path(&entry.name)?, source: entry.path };
                    if self.system.iter().any(|other| other.path == file.path) {
                        let reason = "a file of the system tablespace elsewhere has its name";
                        self.refused.push((file.source, reason));
                    } else {
                        // Written when the server stops, or is told to.
                        let known = file.source == profile.buffer_pool_file;
                        let class = match known {
                            true => Class::Table,
                            false if is_mroonga(&entry.name) => Class::Mapped,
                            false => Class::Unknown,
                        };
                        self.others.push(OtherFile { file, class });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn list_database(&mut self, directory: &Entry, left_out: &LeftOut) -> Result<()> {
        let Some(entries) = list(&directory.path)? else { return Ok(()) };
        let mut found = false;
        for entry in entries {
            if is_intermediate(&String::from_utf8_lossy(&entry.name))
                || entry.name.starts_with(b".")
            {
                continue;
            }
            let name = [directory.name.as_slice(), b"/", &entry.name].concat();
            if entry.kind == Kind::Directory {
                if !left_out.directory(&entry.name, &entry.path) {
                    self.list_nested(&entry.path, &name, left_out, 8)?;
                }
                continue;
            }
            if entry.kind != Kind::File {
                continue;
            }
            let file = ServerFile { path: backup_path(&name)?, source: entry.path };
            let extension = extension(&entry.name);
            if extension == b"ibd" {
                self.tables.push(file);
            } else if extension == b"isl" {
                if let Some(source) = link_target(&file.source, &directory.path)? {
                    let mut path = name;
                    path.truncate(path.len() - b"isl".len());
                    path.extend_from_slice(b"ibd");
                    self.tables.push(ServerFile { source, path: backup_path(&path)? });
                }
                self.others.push(OtherFile { file, class: Class::Table });
            } else if matches!(extension, b"cfg" | b"cfp") {
                // Made by FLUSH TABLES … FOR EXPORT, gone at UNLOCK TABLES.
                continue;
            } else if MARKER_EXTENSIONS.contains(&extension) {
                self.refused.push((file.source, "a prepare would take it for an order"));
                continue;
            } else {
                let class = class_of(&directory.name, &entry.name);
                self.others.push(OtherFile { file, class });
            }
            found = true;
        }
        if !found {
            self.empty_directories.push(backup_path(&directory.name)?);
        }
        Ok(())
    }

    fn list_nested(
        &mut self,
        dir: &Path,
        name: &[u8],
        left_out: &LeftOut,
        depth: u32,
    ) -> Result<()> {
        for entry in list(dir)?.unwrap_or_default() {
            let name = [name, b"/", &entry.name].concat();
            match entry.kind {
                Kind::File => {
                    self.nested.push(ServerFile { path: backup_path(&name)?, source: entry.path })
                }
                Kind::Directory if depth > 0 && !left_out.directory(&entry.name, &entry.path) => {
                    self.list_nested(&entry.path, &name, left_out, depth - 1)?
                }
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn is_undo_name(name: &[u8]) -> bool {
    name.strip_prefix(b"undo")
        .is_some_and(|digits| digits.len() == 3 && digits.iter().all(u8::is_ascii_digit))
}

/// The number of `aria_log.00000001`; stray files with other names are not Aria's.
pub fn aria_log_number(name: &[u8]) -> Option<u32> {
    let digits = name.strip_prefix(b"aria_log.").filter(|digits| digits.len() == 8)?;
    std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

pub(super) fn extension(name: &[u8]) -> &[u8] {
    name.iter().rposition(|&b| b == b'.').and_then(|dot| name.get(dot + 1..)).unwrap_or_default()
}

/// Whether a file is one of a Mroonga database: `d.mrn`, `d.mrn.0000100`, `d.mrn.conf`.
fn is_mroonga(name: &[u8]) -> bool {
    name.ends_with(b".mrn") || name.windows(5).any(|part| part == b".mrn.")
}

fn class_of(database: &[u8], name: &[u8]) -> Class {
    let extension = extension(name);
    if is_mroonga(name) {
        return Class::Mapped;
    }
    if !TABLE_EXTENSIONS.contains(&extension) && extension != b"par" {
        return Class::Unknown;
    }
    if database == b"mysql" {
        let table = name.get(..name.len() - extension.len() - 1).unwrap_or_default();
        let is_log = matches!(table, b"general_log" | b"slow_log");
        match extension {
            b"CSV" if is_log => return Class::LogTable,
            b"frm" => {}
            _ if is_log || table.to_ascii_lowercase().ends_with(b"stats") => {
                return Class::UntilCommit;
            }
            _ => {}
        }
    }
    Class::Table
}

/// Where a link file of DATA DIRECTORY leads; `None` when it is gone.
fn link_target(link: &Path, directory: &Path) -> Result<Option<PathBuf>> {
    match fs::read(link) {
        Ok(content) if content.len() <= 4096 => {
            let target = Path::new(OsStr::from_bytes(content.trim_ascii()));
            // Relative paths count from the data directory.
            let datadir = directory.parent().unwrap_or(directory);
            Ok(Some(datadir.join(target)))
        }
        Ok(_) => {
            let message = format!("{} is too long for a link file", link.display());
            Err(Error::new(ErrorKind::Damage, message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read the link file", link, error)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Other,
}

struct Entry {
    name: Vec<u8>,
    path: PathBuf,
    kind: Kind,
}

/// The entries of a directory, sorted; links are followed. `None` when there is no such directory.
fn list(dir: &Path) -> Result<Option<Vec<Entry>>> {
    let read = match fs::read_dir(dir) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::io("read directory", dir, error)
                .advise("run the backup as the server's user or as root"));
        }
    };
    let mut entries = Vec::new();
    for entry in read {
        let entry = entry.map_err(|error| Error::io("read directory", dir, error))?;
        let mut kind =
            entry.file_type().map_err(|error| Error::io("look at", entry.path(), error))?;
        if kind.is_symlink() {
            match fs::metadata(entry.path()) {
                Ok(metadata) => kind = metadata.file_type(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("follow the link", entry.path(), error)),
            }
        }
        let kind = match kind {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            _ => Kind::Other,
        };
        entries.push(Entry {
            name: entry.file_name().as_bytes().to_vec(),
            path: entry.path(),
            kind,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(entries))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_only_look_like_logs_are_not() {
        assert_eq!(aria_log_number(b"aria_log.00000012"), Some(12));
        assert_eq!(aria_log_number(b"aria_log.00000100000"), None);
        assert_eq!(aria_log_number(b"aria_log.0000001x"), None);
        assert!(is_undo_name(b"undo001") && !is_undo_name(b"undo_log"));
    }

    #[test]
    fn classes() {
        assert_eq!(class_of(b"mysql", b"general_log.CSV"), Class::LogTable);
        assert_eq!(class_of(b"mysql", b"general_log.CSM"), Class::UntilCommit);
        assert_eq!(class_of(b"mysql", b"table_stats.MAD"), Class::UntilCommit);
        assert_eq!(class_of(b"mysql", b"table_stats.frm"), Class::Table);
        assert_eq!(class_of(b"app", b"table_stats.MAD"), Class::Table);
        assert_eq!(class_of(b"app", b"t#P#p0.MYD"), Class::Table);
        assert_eq!(class_of(b"app", b"notes.txt"), Class::Unknown);
        for (name, mapped) in
            [("d.mrn", true), ("d.mrn.000010D.c", true), ("d.mrnx", false), ("mrn", false)]
        {
            assert_eq!(is_mroonga(name.as_bytes()), mapped, "{name}");
        }
    }

    #[test]
    fn a_database_directory() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("app");
        let remote = dir.path().join("remote.ibd");
        fs::create_dir_all(database.join("deep/er")).unwrap();
        for name in ["t.ibd", "t.frm", "#sql-alter-1.ibd", "t.cfg", "m.MYD", "odd", "deep/er/x"] {
            fs::write(database.join(name), "").unwrap();
        }
        fs::write(database.join("far.isl"), remote.to_str().unwrap()).unwrap();
        fs::create_dir(dir.path().join("void")).unwrap();

        fs::create_dir_all(database.join("kept/out")).unwrap();
        fs::write(database.join("kept/out/y"), "").unwrap();
        let paths = [database.join("kept/out")].into();
        let left_out = LeftOut { paths, ..LeftOut::default() };

        let mut inventory = Inventory::default();
        for entry in list(dir.path()).unwrap().unwrap() {
            inventory.list_database(&entry, &left_out).unwrap();
        }
        let tables: Vec<_> =
            inventory.tables.iter().map(|f| (f.path.to_string(), f.source.clone())).collect();
        assert_eq!(
            tables,
            [("app/far.ibd".into(), remote), ("app/t.ibd".into(), database.join("t.ibd"))]
        );
        let others: Vec<_> =
            inventory.others.iter().map(|f| (f.file.path.to_string(), f.class)).collect();
        assert_eq!(
            others,
            [
                ("app/far.isl".to_owned(), Class::Table),
                ("app/m.MYD".to_owned(), Class::Table),
                ("app/odd".to_owned(), Class::Unknown),
                ("app/t.frm".to_owned(), Class::Table),
            ]
        );
        assert_eq!(inventory.nested.len(), 1);
        assert_eq!(inventory.empty_directories, [backup_path("void").unwrap()]);
    }
}
