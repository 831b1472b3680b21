//! What a chain of backups is together: the full backup that its last link would have been.
//!
//! Which files there are, and all that is not InnoDB's, the last link says alone: it has every file
//! of its time, whole or by its changed pages. A tablespace is told by its id. Its pages are those of
//! the newest link that has them, which is enough without the redo of the links before the last: each
//! delta has all pages that its parent lacks as it is stored ([`super::parent`]).
//!
//! Here is only worked out what comes from where; [`super::merge`] reads it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use innodb::space::SpaceHeader;
use innodb::{PageSize, SpaceId};

use super::Repository;
use super::contents::Part;
use super::layout::Kind;
use super::manifest::{Manifest, path_from_text, path_to_text};
use super::tables::local;
use crate::capture::rocksdb;
use crate::delta::contents::Contents;
use crate::delta::meta::Meta;
use crate::delta::pages::Length;
use crate::metadata::{BackupMyCnf, Checkpoints, Naming, names};
use crate::prepare::inventory::is_undo;
use crate::prepare::markers;
use crate::{Cancel, Error, ErrorKind, Lsn, Result};

/// The redo log of a backup.
const LOG: &str = "ib_logfile0";

/// A chain as one backup.
#[derive(Debug)]
pub(super) struct Merged {
    /// The links, the full backup first.
    pub links: Vec<Manifest>,
    /// The files, by their paths as a manifest would have them.
    pub files: BTreeMap<String, MergedFile>,
    /// The files of the system tablespace, in their order.
    pub system: Vec<String>,
    /// Size of the server's pages.
    pub page_size: PageSize,
    /// Of each link, whether redo may make a tablespace of which it has changes but not the first
    /// page: so it was up to 10.5.
    pub redo_makes_tables: Vec<bool>,
    /// Bytes that were fetched to learn all this.
    pub fetched: u64,
}

/// A file of it.
#[derive(Clone, Debug)]
pub(super) struct MergedFile {
    /// What it is made of.
    pub source: Source,
    /// About how long it is: exactly, unless it is of pages.
    pub size: u64,
    /// Which tablespace it is.
    pub space: Option<SpaceId>,
}

/// What a file is made of.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file of this link.
    File(usize, String),
    /// Pages of several links.
    Pages(Pages),
    /// This.
    Text(Vec<u8>),
}

/// A tablespace file that is put together.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// What the pages are.
    pub meta: Meta,
    /// The link that has the whole file, and its path there.
    pub base: Option<(usize, String)>,
    /// The later links and the `.delta` files there, the last one first.
    pub deltas: Vec<(usize, String)>,
    /// What becomes of the length.
    pub length: Length,
}

/// A tablespace file of a link, by the name that it has at the end of the link.
#[derive(Debug)]
struct Known {
    /// The file that has it, or its pages.
    path: String,
    /// What its pages are, if it has only some.
    meta: Option<Meta>,
}

/// The tablespace files of a link.
#[derive(Debug, Default)]
struct Link {
    by_name: BTreeMap<String, Known>,
    by_id: HashMap<SpaceId, String>,
    /// Everything else that is a file of the server.
    plain: BTreeSet<PathBuf>,
}

impl Repository {
    /// What a chain of a full backup and deltas is together.
    ///
    /// # Errors
    /// When a link is not what it should be.
    pub(super) fn merged(&self, links: Vec<Manifest>, cancel: &Cancel) -> Result<Merged> {
        let mut fetched = 0;
        let mut known = Vec::new();
        let mut redo_makes_tables = Vec::new();
        for manifest in &links {
            let (link, bytes) = self.link(manifest, cancel)?;
            known.push(link);
            fetched += bytes;
        }
        let last = links.last().ok_or_else(|| Error::new(ErrorKind::Failed, "an empty chain"))?;
        let mut checkpoints = None;
        for manifest in &links {
            let path = checkpoints_of(manifest)?;
            let (contents, bytes) = self.contents(manifest, &[path], Part::All, cancel)?;
            fetched += bytes;
            let text = String::from_utf8_lossy(contents.get(path).map_or(&[], Vec::as_slice));
            let read = Checkpoints::parse(&text).map_err(|why| in_link(manifest, path, &why))?;
            redo_makes_tables.push(read.recover_binlog_info.is_none());
            checkpoints = Some((path, read));
        }
        let (settings, bytes) = self.settings(last, cancel)?;
        fetched += bytes;
        let system: Vec<String> = settings
            .data_file_path
            .files()
            .iter()
            .map(|file| file.stored_name().to_string_lossy().into_owned())
            .collect();
        let mut merged = Merged {
            files: BTreeMap::new(),
            system: system.iter().map(|name| path_to_text(name.as_bytes())).collect(),
            page_size: settings.page_size,
            redo_makes_tables,
            fetched,
            links: Vec::new(),
        };
        merged.tablespaces(&links, &known, &system)?;
        merged.others(&links, &known);
        if let Some((path, read)) = checkpoints {
            let full = Checkpoints {
                backup_type: crate::metadata::BackupType::Full,
                from_lsn: Lsn(0),
                ..read
            };
            let text = full.to_text().into_bytes();
            let size = text.len() as u64;
            let file = MergedFile { source: Source::Text(text), size, space: None };
            merged.files.insert(path.to_owned(), file);
        }
        merged.links = links;
        Ok(merged)
    }

    /// The settings that a backup has with it, and the bytes that were fetched for them.
    pub(super) fn settings(
        &self,
        manifest: &Manifest,
        cancel: &Cancel,
    ) -> Result<(BackupMyCnf, u64)> {
        let path = names::BACKUP_MY_CNF;
        let (contents, fetched) = self.contents(manifest, &[path], Part::All, cancel)?;
        let text = String::from_utf8_lossy(contents.get(path).map_or(&[], Vec::as_slice));
        let settings = BackupMyCnf::parse(&text).map_err(|why| in_link(manifest, path, &why))?;
        Ok((settings, fetched))
    }

    /// The tablespace files of one link.
    fn link(&self, manifest: &Manifest, cancel: &Cancel) -> Result<(Link, u64)> {
        let is = |path: &&str, extension: &str| path.ends_with(extension);
        let all = || manifest.files.keys().map(String::as_str);
        let young: Vec<&str> = all()
            .filter(|path| {
                is(path, ".new") && manifest.files.get(*path).is_some_and(|f| f.space.is_none())
            })
            .collect();
        let (starts, mut fetched) = self.contents(manifest, &young, Part::Start, cancel)?;
        let id = |path: &str| {
            let noted = manifest.files.get(path).and_then(|file| file.space);
            let noted = noted.map(|space| SpaceId(space.id));
            noted.or_else(|| SpaceHeader::parse(starts.get(path)?).ok().map(|header| header.id))
        };
        let mut link = Link::default();
        let twice = |name: &str, id: SpaceId| {
            let why = format!("another file is tablespace {id} too");
            in_link(manifest, name, &why)
        };
        if manifest.kind == Kind::Full {
            for path in all() {
                let (stem, new) = match (path.strip_suffix(".ibd"), path.strip_suffix(".new")) {
                    (Some(stem), _) => (stem, false),
                    (_, Some(stem)) if path.contains('/') => (stem, true),
                    _ => ("", false),
                };
                let has =
                    |extension: &str| manifest.files.contains_key(&format!("{stem}{extension}"));
                let gone = !stem.is_empty() && !new && (has(".del") || has(".new") && !has(".ren"));
                // Only of tablespaces the id is noted; what a name means ends with this link.
                let Some(id) = id(path).filter(|_| !gone) else {
                    link.by_name.insert(real(path)?, Known { path: path.to_owned(), meta: None });
                    continue;
                };
                if id != SpaceId::SYSTEM && link.by_id.insert(id, real(path)?).is_some() {
                    return Err(twice(path, id));
                }
                link.by_name.insert(real(path)?, Known { path: path.to_owned(), meta: None });
            }
            return Ok((link, fetched));
        }
        let short: Vec<&str> = all()
            .filter(|path| is(path, ".ren") || is(path, ".meta"))
            .filter(|path| !local(path).starts_with(rocksdb::DIRECTORY))
            .collect();
        let (texts, bytes) = self.contents(manifest, &short, Part::All, cancel)?;
        fetched += bytes;
        let text = |path: &str| {
            let content = texts.get(path).map_or(&[][..], Vec::as_slice);
            String::from_utf8_lossy(content).into_owned()
        };
        let files: Vec<PathBuf> = all().map(local).collect();
        let new_name = |marker: &str| {
            let path = path_to_text(marker.as_bytes());
            markers::parse_new_name(&text(&path), &format!("{path} of {}", manifest.name))
        };
        let contents = Contents::new(manifest.name.as_str(), &files, &new_name)?;
        for (name, of) in contents.changed {
            let of = path_to_text(of.as_bytes());
            let meta_path = format!("{of}.meta");
            let meta = Meta::parse(&text(&meta_path))
                .map_err(|why| in_link(manifest, &meta_path, &why))?;
            if meta.space != SpaceId::SYSTEM
                && link.by_id.insert(meta.space, name.clone()).is_some()
            {
                return Err(twice(&name, meta.space));
            }
            let path = format!("{of}.delta");
            link.by_name.insert(name, Known { path, meta: Some(meta) });
        }
        for (name, path) in contents.whole {
            let path = path_to_text(path.as_bytes());
            if let Some(id) = id(&path)
                && link.by_id.insert(id, name.clone()).is_some()
            {
                return Err(twice(&name, id));
            }
            link.by_name.insert(name, Known { path, meta: None });
        }
        link.plain = contents.plain;
        Ok((link, fetched))
    }
}

impl Merged {
    /// Follows each tablespace of the last link back to where it is whole, or begins.
    fn tablespaces(&mut self, links: &[Manifest], known: &[Link], system: &[String]) -> Result<()> {
        let (Some(last), Some(last_link)) = (known.last(), links.last()) else { return Ok(()) };
        let number = links.len() - 1;
        for (name, file) in &last.by_name {
            let Some(meta) = file.meta else {
                self.add(links, number, path_to_text(name.as_bytes()), &file.path);
                continue;
            };
            let is_system = system.contains(name);
            let length = match (is_system, is_undo(name)) {
                (true, _) if system.len() > 1 => Length::Stays,
                (true, _) | (_, true) => Length::Follows,
                _ => Length::Grows,
            };
            let mut deltas = vec![(number, file.path.clone())];
            let mut base = None;
            for (number, (link, manifest)) in known.iter().zip(links).enumerate().rev().skip(1) {
                let before = match is_system {
                    true => Some(name),
                    // The files of undo tablespaces keep their names.
                    false => link
                        .by_id
                        .get(&meta.space)
                        .filter(|before| !is_undo(name) || *before == name),
                };
                let Some(before) = before.and_then(|before| link.by_name.get(before)) else {
                    break;
                };
                let page_size = match before.meta {
                    Some(meta) => Some(meta.page_size),
                    None => page_size_of(manifest, &before.path),
                };
                if page_size.is_some_and(|size| size != meta.page_size) {
                    let why = format!(
                        "its pages have {} bytes, and others in {}",
                        meta.page_size, manifest.name
                    );
                    return Err(in_link(last_link, name, &why));
                }
                match before.meta {
                    Some(_) => deltas.push((number, before.path.clone())),
                    None => {
                        base = Some((number, before.path.clone()));
                        break;
                    }
                }
            }
            let size = |(number, path): &(usize, String)| {
                links.get(*number).and_then(|link| link.files.get(path)).map_or(0, |file| file.size)
            };
            let size = deltas.iter().chain(&base).map(size).max().unwrap_or_default();
            let source = Source::Pages(Pages { meta, base, deltas, length });
            let file = MergedFile { source, size, space: Some(meta.space) };
            self.files.insert(path_to_text(name.as_bytes()), file);
        }
        for name in system {
            if !self.files.contains_key(&path_to_text(name.as_bytes())) {
                return Err(in_link(last_link, &format!("{name}.delta"), "it is missing"));
            }
        }
        Ok(())
    }

    /// Adds what a link has whole.
    fn add(&mut self, links: &[Manifest], number: usize, to: String, path: &str) {
        let Some(entry) = links.get(number).and_then(|link| link.files.get(path)) else { return };
        let file = MergedFile {
            source: Source::File(number, path.to_owned()),
            size: entry.size,
            space: entry.space.map(|space| SpaceId(space.id)),
        };
        self.files.insert(to, file);
    }

    /// What is no tablespace: as the last link has it.
    fn others(&mut self, links: &[Manifest], known: &[Link]) {
        let (Some(last), Some(link)) = (known.last(), links.last()) else { return };
        let number = links.len() - 1;
        for path in link.files.keys() {
            let is_own = path == LOG || names::is_metadata(path);
            if is_own || last.plain.contains(&local(path)) {
                self.add(links, number, path.clone(), path);
            }
        }
        // Pages that were corrupt stay so until they change.
        let listed = |link: &Manifest| link.files.contains_key(names::CORRUPTED_PAGES);
        if let Some(number) = links.iter().rposition(listed) {
            self.add(links, number, names::CORRUPTED_PAGES.to_owned(), names::CORRUPTED_PAGES);
        }
    }
}

/// The name that a tablespace file has, which is text.
fn real(path: &str) -> Result<String> {
    let bytes = path_from_text(path).unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn page_size_of(link: &Manifest, path: &str) -> Option<PageSize> {
    PageSize::new(link.files.get(path)?.space?.page_size)
}

/// The file that says what a backup is.
pub(super) fn checkpoints_of(manifest: &Manifest) -> Result<&'static str> {
    let mut names = Naming::PREFERRED_FIRST.iter().map(|naming| naming.checkpoints());
    let found = names.find(|name| manifest.files.contains_key(*name));
    found.ok_or_else(|| in_link(manifest, Naming::MariadbBackup.checkpoints(), "it is missing"))
}

fn in_link(manifest: &Manifest, path: &str, why: &str) -> Error {
    Error::new(ErrorKind::Damage, format!("{path} of {}: {why}", manifest.name))
}
