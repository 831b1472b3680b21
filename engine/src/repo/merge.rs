//! A chain as the stream of one full backup: pages of the newest link that has them.
//!
//! Every link is read from its beginning to its end, once, all at the same time; pages of `.delta`
//! files ascend, as those of a tablespace do, so putting them together takes a few frames of each
//! link and nothing on disk. Files come in about the order that the full backup has them in.
//!
//! A page of a delta is checked before it goes out. Frames of files that the last link does not have
//! any more are not fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use innodb::page::{Verdict, verify};
use innodb::space::SpaceHeader;
use innodb::{PageNo, SpaceId};
use xbstream::StreamPath;
use xbstream::chunk::letter;
use xbstream::writer::{self, Mode};

use super::Repository;
use super::cursor::{Chunks, DeltaPages, FileBytes, LinkReader, to_fetch};
use super::manifest::{Manifest, path_from_text};
use super::merged::{Merged, MergedFile, Pages, Source};
use super::reader::{Failure, ReadOptions};
use crate::delta::pages::Length;
use crate::{Cancel, Error, ErrorKind, Result};

/// Payload of a chunk, about.
const PAYLOAD: usize = 1 << 20;
/// Pages of the smallest tablespace.
const YOUNG_PAGES: u64 = 4;
/// Zeros that stand for pages that no link has, at most: more than a server makes a file longer by.
const ZEROS_MAX: u64 = 64 << 30;

impl Merged {
    /// Frames of each link, in the order in which these files use them.
    fn order(&self, files: &[(&String, &MergedFile)]) -> Vec<Vec<u32>> {
        let mut order = vec![Vec::new(); self.links.len()];
        for (_, file) in files {
            for (number, path) in file.source.parts() {
                if let (Some(order), Some(link)) = (order.get_mut(number), self.links.get(number)) {
                    let file = link.files.get(path);
                    order.extend(file.into_iter().flat_map(|file| file.frame_numbers()));
                }
            }
        }
        order
    }

    /// Files in the order in which they are put together: those of the system tablespace, each of
    /// which goes on where the one before ends, then as the full backup and then the others have them.
    fn sorted(&self, wanted: impl Fn(&str) -> bool) -> Vec<(&String, &MergedFile)> {
        let mut files: Vec<_> = self.files.iter().filter(|(path, _)| wanted(path)).collect();
        let end = |number: usize, path: &str| {
            let file = self.links.get(number).and_then(|link| link.files.get(path));
            file.and_then(|file| file.frame_numbers().last())
        };
        files.sort_by_cached_key(|(path, file)| {
            let system = self.system.iter().position(|system| system == *path);
            let parts = file.source.parts();
            let oldest = parts.iter().min().map(|(number, path)| (*number, end(*number, path)));
            (system.is_none(), system, oldest.is_none(), oldest)
        });
        files
    }

    /// Bytes to fetch for some of the files.
    pub fn stored(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let order = self.order(&self.sorted(wanted));
        let links = self.links.iter().zip(&order);
        let stored = |(link, order): (&Manifest, &Vec<u32>)| -> u64 {
            let frame = |number: u32| link.frames.get(number as usize);
            to_fetch(order).into_iter().filter_map(frame).map(|frame| u64::from(frame.stored)).sum()
        };
        links.map(stored).sum()
    }

    /// The stream of some of the files.
    pub fn stream(
        self: &Arc<Self>,
        repository: &Repository,
        wanted: impl Fn(&str) -> bool,
        options: ReadOptions,
        cancel: &Cancel,
    ) -> Result<MergedStream> {
        let files = self.sorted(wanted);
        let order = self.order(&files);
        let memory = options.memory / self.links.len().max(1) as u64;
        let mut links = Vec::new();
        for (number, (manifest, order)) in self.links.iter().zip(&order).enumerate() {
            // What is not in the full backup is little.
            let threads = if number == 0 { options.threads } else { 1 };
            let options = ReadOptions { threads, memory };
            links.push(LinkReader::new(repository, manifest, order, options, cancel)?);
        }
        let mut queue = Vec::new();
        for (path, file) in files {
            let name = path_from_text(path).unwrap_or_default();
            let name = StreamPath::new(name.as_slice()).map_err(|error| {
                let message = format!("{path} cannot be the name of a file of a backup");
                Error::new(ErrorKind::Damage, message).caused_by(error)
            })?;
            queue.push((name, path.clone(), file.source.clone()));
        }
        Ok(MergedStream {
            merged: Arc::clone(self),
            links,
            queue: queue.into_iter(),
            now: None,
            system: System::default(),
            out: Vec::new(),
            at: 0,
            failure: Failure::default(),
            sizes: Sizes::default(),
        })
    }
}

impl Source {
    /// The files that it is made of, and the links that have them.
    fn parts(&self) -> Vec<(usize, &str)> {
        match self {
            Self::File(number, path) => vec![(*number, path)],
            Self::Pages(pages) => {
                let parts = pages.deltas.iter().chain(&pages.base);
                parts.map(|(number, path)| (*number, path.as_str())).collect()
            }
            Self::Text(_) => Vec::new(),
        }
    }
}

/// The files that have come, and how long they are.
#[derive(Clone, Default)]
pub(super) struct Sizes(Arc<Mutex<BTreeMap<String, u64>>>);

impl Sizes {
    /// All of them so far.
    pub fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the files of the system tablespace have in common.
#[derive(Clone, Copy, Default)]
struct System {
    /// Pages of the files so far.
    pages: u64,
    /// Pages that the first one counts.
    counted: Option<u64>,
    header: Option<SpaceHeader>,
}

/// The stream of a chain.
pub(super) struct MergedStream {
    merged: Arc<Merged>,
    links: Vec<LinkReader>,
    queue: std::vec::IntoIter<(StreamPath, String, Source)>,
    now: Option<Making>,
    system: System,
    /// Chunks that were made, and how much of them was read.
    out: Vec<u8>,
    at: usize,
    failure: Failure,
    sizes: Sizes,
}

/// A file that is being put together.
struct Making {
    path: StreamPath,
    name: String,
    how: How,
    /// Where the next payload belongs.
    offset: u64,
    size: u64,
}

enum How {
    Text(Vec<u8>),
    Copy(usize, Chunks),
    Pages(Box<Putting>),
}

impl MergedStream {
    /// Where to learn why reading failed.
    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// The files that have come.
    pub fn sizes(&self) -> Sizes {
        self.sizes.clone()
    }

    /// Bytes that the store has given so far, of each link.
    pub fn fetched(&self) -> Vec<Arc<AtomicU64>> {
        self.links.iter().map(LinkReader::fetched).collect()
    }

    /// Makes the next chunks.
    pub fn next_chunks(&mut self) -> Result<Option<&[u8]>> {
        self.out.clear();
        self.at = 0;
        while self.out.len() < PAYLOAD {
            let mut making = match self.now.take() {
                Some(making) => making,
                None => match self.queue.next() {
                    Some((path, name, source)) => self.begin(path, name, source)?,
                    None => break,
                },
            };
            if self.go_on(&mut making)? {
                self.now = Some(making);
                continue;
            }
            writer::end_of_file(&mut self.out, &making.path);
            let mut sizes = self.sizes.0.lock().unwrap_or_else(PoisonError::into_inner);
            sizes.insert(making.name, making.size);
        }
        Ok((!self.out.is_empty()).then_some(&self.out))
    }

    fn begin(&mut self, path: StreamPath, name: String, source: Source) -> Result<Making> {
        let how = match source {
            Source::Text(text) => How::Text(text),
            Source::File(number, file) => {
                let Some(manifest) = self.merged.links.get(number) else { return Err(no_link()) };
                How::Copy(number, Chunks::new(manifest, &file))
            }
            Source::Pages(pages) => {
                let place = self.merged.system.iter().position(|system| *system == name);
                let system = place.map(|place| Place {
                    before: self.system,
                    is_first: place == 0,
                    is_last: place > 0 && place + 1 == self.merged.system.len(),
                });
                let merged = Arc::clone(&self.merged);
                let putting = Putting::new(&merged, &mut self.links, pages, system)?;
                if place == Some(0) {
                    self.system.header = putting.header;
                    self.system.counted = putting.counted;
                }
                How::Pages(Box::new(putting))
            }
        };
        Ok(Making { path, name, how, offset: 0, size: 0 })
    }

    /// Appends what comes next of a file; `false` if that was the end.
    fn go_on(&mut self, making: &mut Making) -> Result<bool> {
        let Making { path, how, offset, size, .. } = making;
        let header = |out: &mut Vec<u8>, offset: u64, payload: &[u8]| {
            let crc = crc32fast::hash(payload);
            let len = payload.len() as u64;
            writer::payload_header(out, path, Mode::Create, offset, len, crc).map_err(|error| {
                Error::new(ErrorKind::Damage, format!("a chunk of {path}")).caused_by(error)
            })
        };
        let put = |out: &mut Vec<u8>, offset: u64, payload: &[u8]| {
            header(out, offset, payload)?;
            out.extend_from_slice(payload);
            Ok::<_, Error>(())
        };
        match how {
            How::Text(text) => {
                put(&mut self.out, 0, text)?;
                *size = text.len() as u64;
                Ok(false)
            }
            How::Copy(number, chunks) => {
                let Some(link) = self.links.get_mut(*number) else { return Err(no_link()) };
                let Some(found) = chunks.next(link)? else { return Ok(false) };
                match found.letter {
                    letter::PAYLOAD => {
                        put(&mut self.out, found.offset, found.payload())?;
                        *size = (*size).max(found.offset + found.payload().len() as u64);
                    }
                    letter::SEEK => {
                        writer::seek(&mut self.out, path, Mode::Create, found.offset);
                    }
                    _ => {}
                }
                Ok(true)
            }
            How::Pages(putting) => {
                // The header is written again when it is known what it is of.
                let at = self.out.len();
                header(&mut self.out, *offset, &[])?;
                let start = self.out.len();
                putting.next(&mut self.links, &mut self.out)?;
                let payload = self.out.get(start..).unwrap_or_default();
                if payload.is_empty() {
                    self.out.truncate(at);
                    if putting.is_system {
                        self.system.pages += putting.next;
                    }
                    return Ok(false);
                }
                let mut known = Vec::with_capacity(start - at);
                header(&mut known, *offset, payload)?;
                *offset += payload.len() as u64;
                *size = *offset;
                if let Some(place) = self.out.get_mut(at..start) {
                    place.copy_from_slice(&known);
                }
                Ok(true)
            }
        }
    }
}

fn no_link() -> Error {
    Error::new(ErrorKind::Failed, "a chain has fewer links than it should")
}

impl Read for MergedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.out.get(self.at..).unwrap_or_default().read(buffer)?;
            self.at += read;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.next_chunks() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(0),
                Err(error) => return Err(self.failure.note(error)),
            }
        }
    }
}

/// Where a file of the system tablespace stands.
struct Place {
    before: System,
    is_first: bool,
    /// Of several.
    is_last: bool,
}

/// A delta of the tablespace.
struct Newer {
    link: usize,
    pages: DeltaPages,
    /// The first page that a newer link has cut off.
    limit: u64,
    /// What the tablespace is, for the check of its pages; none if that is not told.
    header: Option<SpaceHeader>,
    /// Whether it was taken although pages were corrupt.
    has_corrupt: bool,
}

/// The file as an older link has it whole.
struct Whole {
    link: usize,
    bytes: FileBytes,
    /// Pages that it has and that no newer link has cut off.
    pages: u64,
}

/// A tablespace file that is being put together.
struct Putting {
    space: SpaceId,
    page_size: usize,
    is_system: bool,
    /// The first page of the file, within its tablespace.
    first_page: u64,
    /// The newest first.
    newer: Vec<Newer>,
    base: Option<Whole>,
    /// The page that comes next.
    next: u64,
    /// The file has at least so many pages.
    least: u64,
    zeros: u64,
    /// What the newest first page says.
    header: Option<SpaceHeader>,
    /// Pages that it counts.
    counted: Option<u64>,
}

impl Putting {
    fn new(
        merged: &Merged,
        links: &mut [LinkReader],
        pages: Pages,
        system: Option<Place>,
    ) -> Result<Self> {
        let Pages { meta, base, deltas, length } = pages;
        let page_size = meta.page_size.bytes();
        // Other files of the system tablespace do not have its first page.
        let begins = system.as_ref().is_none_or(|place| place.is_first);
        let mut newer = Vec::new();
        for (number, path) in deltas {
            let (Some(manifest), Some(link)) = (merged.links.get(number), links.get_mut(number))
            else {
                return Err(no_link());
            };
            let pages = DeltaPages::new(link, manifest, &path, meta.page_size)?;
            let has_corrupt = manifest.corrupt_pages > 0;
            newer.push(Newer { link: number, pages, limit: u64::MAX, header: None, has_corrupt });
        }
        let mut base = match base {
            Some((number, path)) => {
                let Some(manifest) = merged.links.get(number) else { return Err(no_link()) };
                let bytes = FileBytes::new(manifest, &path);
                let pages = bytes.size() / page_size as u64;
                Some(Whole { link: number, bytes, pages })
            }
            None => None,
        };

        // What the first page says, from the oldest to the newest.
        let mut header = system.as_ref().and_then(|place| place.before.header);
        let base_pages = base.as_ref().map_or(0, |base| base.pages);
        // A server takes none that is shorter than so many of its own pages.
        let young = YOUNG_PAGES * (merged.page_size.bytes() / page_size).max(1) as u64;
        let mut least = if base.is_some() { base_pages } else { young };
        if let Some(base) = base.as_mut().filter(|base| begins && base.pages > 0) {
            let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
            header = SpaceHeader::parse(base.bytes.look(link, page_size)?).ok();
        }
        let oldest = newer.len().saturating_sub(1);
        for (number, delta) in newer.iter_mut().enumerate().rev() {
            let Some(link) = links.get_mut(delta.link) else { return Err(no_link()) };
            let has_first = begins && delta.pages.peek() == Some(0);
            if has_first {
                let parsed = SpaceHeader::parse(delta.pages.look(link)?);
                let parsed = parsed.map_err(|why| delta.pages.damaged(link, &why.to_string()))?;
                if parsed.id != meta.space || parsed.physical_size() != meta.page_size {
                    let why = format!("its first page is that of tablespace {}", parsed.id);
                    return Err(delta.pages.damaged(link, &why));
                }
                least = match length {
                    Length::Follows => u64::from(parsed.size),
                    Length::Grows => least.max(u64::from(parsed.size)),
                    Length::Stays => least,
                };
                header = Some(parsed);
            }
            let redo_makes_it = merged.redo_makes_tables.get(delta.link).copied().unwrap_or(false);
            if base.is_none() && number == oldest && !has_first && !redo_makes_it {
                let why = "the backup that it is based on does not have its tablespace";
                return Err(delta.pages.damaged(link, why));
            }
            delta.header = header;
        }
        // What a newer link has cut off, from the newest to the oldest.
        let mut limit = u64::MAX;
        for delta in &mut newer {
            delta.limit = limit;
            if begins && length == Length::Follows && delta.pages.peek() == Some(0) {
                limit = limit.min(delta.header.map_or(u64::MAX, |header| header.size.into()));
            }
        }
        if let Some(base) = &mut base {
            base.pages = base.pages.min(limit);
        }
        if let Some(place) = system.as_ref().filter(|place| place.is_last) {
            // The last file is as long as the rest that the first page counts.
            let counted = place.before.counted.unwrap_or_default();
            least = least.max(counted.saturating_sub(place.before.pages));
        }
        let first_page = system.as_ref().map_or(0, |place| place.before.pages);
        Ok(Self {
            space: meta.space,
            page_size,
            is_system: system.is_some(),
            first_page,
            newer,
            base,
            next: 0,
            least,
            zeros: 0,
            header,
            counted: header.filter(|_| begins).map(|header| header.size.into()),
        })
    }

    /// Appends the next pages; nothing at the end.
    fn next(&mut self, links: &mut [LinkReader], out: &mut Vec<u8>) -> Result<()> {
        let most = (PAYLOAD / self.page_size).max(1) as u64;
        let mut room = most;
        while room > 0 {
            let Some(pages) = self.step(links, room, out)? else { break };
            self.next += pages;
            room -= pages.min(room);
        }
        if room == most {
            self.finish(links)?;
        }
        Ok(())
    }

    /// Appends pages, and says how many; nothing at the end.
    fn step(
        &mut self,
        links: &mut [LinkReader],
        room: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>> {
        let wanted = self.next;
        let mut found = false;
        // The first page behind this one that a delta has.
        let mut behind = u64::MAX;
        for number in 0..self.newer.len() {
            let Some(delta) = self.newer.get_mut(number) else { break };
            let Some(link) = links.get_mut(delta.link) else { return Err(no_link()) };
            while delta.pages.peek().is_some_and(|page| u64::from(page) >= delta.limit) {
                delta.pages.skip(link)?;
            }
            if delta.pages.peek().map(u64::from) == Some(wanted) {
                if found {
                    delta.pages.skip(link)?;
                } else {
                    let start = out.len();
                    delta.pages.append(link, out)?;
                    found = true;
                    self.check(number, links, out.get(start..).unwrap_or_default())?;
                }
            }
            let Some(delta) = self.newer.get(number) else { break };
            let next = delta.pages.peek().map(u64::from).filter(|next| *next < delta.limit);
            behind = behind.min(next.unwrap_or(u64::MAX));
        }
        let base = self.base.as_mut().filter(|base| wanted < base.pages);
        if found {
            if let Some(base) = base {
                let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
                base.bytes.skip(link, self.page_size)?;
            }
            return Ok(Some(1));
        }
        if let Some(base) = base {
            let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
            let pages = room.min(behind.min(base.pages) - wanted);
            let len = pages as usize * self.page_size;
            base.bytes.append(link, len, out)?;
            return Ok(Some(pages));
        }
        let end = if behind == u64::MAX { self.least } else { behind };
        if wanted >= end {
            return Ok(None);
        }
        let pages = room.min(end - wanted);
        let len = pages as usize * self.page_size;
        out.resize(out.len() + len, 0);
        self.zeros += len as u64;
        if self.zeros > ZEROS_MAX {
            let message = format!(
                "tablespace {} would get more than {} GiB of pages that no backup of the chain has",
                self.space,
                ZEROS_MAX >> 30
            );
            return Err(Error::new(ErrorKind::Damage, message).advise("take a full backup"));
        }
        Ok(Some(pages))
    }

    /// Looks at the page that comes next, which is this delta's.
    fn check(&self, number: usize, links: &[LinkReader], page: &[u8]) -> Result<()> {
        let delta = self.newer.get(number).filter(|delta| !delta.has_corrupt);
        let Some((delta, header)) = delta.and_then(|delta| Some((delta, delta.header.as_ref()?)))
        else {
            return Ok(());
        };
        let page_no = u32::try_from(self.first_page + self.next).map_or(PageNo(u32::MAX), PageNo);
        // Images of other pages; the server checks them itself.
        if self.space == SpaceId::SYSTEM && verify::is_doublewrite(page_no, header.physical_size())
        {
            return Ok(());
        }
        match verify::verify(page, page_no, Some(self.space), &header.flags) {
            Verdict::Damaged(damage) => {
                let Some(link) = links.get(delta.link) else { return Err(no_link()) };
                Err(delta.pages.damaged(link, &format!("page {page_no}: {damage}")))
            }
            _ => Ok(()),
        }
    }

    /// Reads all files to their ends.
    fn finish(&mut self, links: &mut [LinkReader]) -> Result<()> {
        for delta in &mut self.newer {
            let Some(link) = links.get_mut(delta.link) else { return Err(no_link()) };
            delta.pages.finish(link)?;
        }
        if let Some(base) = &mut self.base {
            let Some(link) = links.get_mut(base.link) else { return Err(no_link()) };
            base.bytes.finish(link)?;
        }
        Ok(())
    }
}

/// Bytes that the store has given in all.
pub(super) fn total(fetched: &[Arc<AtomicU64>]) -> u64 {
    fetched.iter().map(|fetched| fetched.load(Ordering::Relaxed)).sum()
}

/// The paths of files below the backup.
pub(super) fn paths(merged: &Merged) -> BTreeSet<std::path::PathBuf> {
    merged.files.keys().map(|path| super::tables::local(path)).collect()
}
