//! Looking at every page of a backup, as its stream comes.
//!
//! Pages of whole tablespaces are checked as what the manifest says that they are. Of `.delta` files
//! the clusters are, and the order of their pages; each page as the chain knows its tablespace, from
//! the first page if it is in the delta, or from the manifests before; and its LSN, which must not be
//! behind the redo log that comes with it.

use std::collections::{BTreeMap, HashMap};

use innodb::page::{self, Verdict};
use innodb::space::{SpaceFlags, SpaceHeader};
use innodb::{Lsn, PageNo, SpaceId};
use xbstream::{Chunk, StreamReader, StreamState};

use super::layout::BackupName;
use super::manifest::{FileEntry, Manifest, path_to_text};
use super::reader::BackupReader;
use super::verify::Verified;
use crate::delta::format::Cluster;
use crate::delta::meta::Meta;
use crate::metadata::haulout_info::LsnRange;
use crate::{Cancel, Error, ErrorKind, Result};

/// What the name of a file with changed pages ends in.
pub(super) const DELTA: &str = ".delta";

/// What is known of the tablespaces of a chain.
#[derive(Default)]
pub(super) struct Spaces {
    /// The full backup of the chain.
    root: Option<BackupName>,
    /// Formats, by tablespace id.
    flags: HashMap<u32, SpaceFlags>,
}

impl Spaces {
    /// Takes note of what the manifests of a chain say, if it is another one than before.
    pub fn of_chain(&mut self, chain: &[Manifest]) {
        let root = chain.first().map(|root| root.name.clone());
        if root == self.root {
            return;
        }
        self.flags.clear();
        self.root = root;
        for (path, file) in chain.iter().flat_map(|link| &link.files) {
            // What begins with a header of its own is no tablespace, whatever it looks like.
            let space = file.space.filter(|_| !path.ends_with(DELTA));
            if let Some((id, Ok(flags))) =
                space.map(|space| (space.id, SpaceFlags::parse(space.flags)))
            {
                self.flags.insert(id, flags);
            }
        }
    }
}

/// A backup that is read as a stream.
pub(super) struct Inside<'a> {
    /// Its manifest, less packs and frames.
    pub files: &'a BTreeMap<String, FileEntry>,
    /// What the pages of its `.delta` files are, by their paths, and which page of its tablespace
    /// each file begins with.
    pub metas: &'a BTreeMap<String, (Meta, PageNo)>,
    /// Where its redo log is.
    pub lsn: LsnRange,
    /// What is known of its tablespaces.
    pub spaces: &'a mut Spaces,
    /// The tablespaces that have begun.
    pub open: BTreeMap<String, Opened>,
    /// Files that have ended, and their sizes.
    pub whole: BTreeMap<String, u64>,
}

/// A tablespace, or what changed of one, that has begun.
pub(super) enum Opened {
    Whole(Pages),
    Changed(Changed),
}

impl Inside<'_> {
    /// What begins with this file.
    fn begin(&self, name: &str) -> Option<Opened> {
        if let Some((meta, first)) = self.metas.get(name) {
            return Some(Opened::Changed(Changed::new(*meta, *first, name)));
        }
        // Which of the files of a delta is none its name says.
        let file = self.files.get(name).filter(|_| !name.ends_with(DELTA))?;
        Pages::new(file).map(Opened::Whole)
    }

    /// Reads all of it.
    pub fn read(
        &mut self,
        reader: BackupReader,
        verified: &mut Verified,
        cancel: &Cancel,
    ) -> Result<()> {
        let damage = |error: xbstream::StreamError| {
            Error::new(ErrorKind::Damage, "the stream is damaged").caused_by(error)
        };
        let mut stream = StreamReader::new(reader);
        let mut state = StreamState::new();
        let mut buffer = vec![0; 256 << 10];
        while let Some(chunk) = stream.next_chunk().map_err(damage)? {
            cancel.check()?;
            let fault = |fault, stream: &StreamReader<BackupReader>| damage(stream.error(fault));
            match chunk {
                Chunk::Payload { path, offset, len, rewrite, .. } => {
                    state.payload(&path, offset, len, rewrite).map_err(|e| fault(e, &stream))?;
                    let name = path_to_text(path.as_bytes());
                    if offset == 0 {
                        self.whole.remove(&name);
                        self.open.remove(&name);
                        let opened = self.begin(&name);
                        self.open.extend(opened.map(|opened| (name.clone(), opened)));
                    }
                    loop {
                        let read = stream.read_payload(&mut buffer).map_err(damage)?;
                        if read == 0 {
                            break;
                        }
                        let bytes = buffer.get(..read).unwrap_or_default();
                        match self.open.get_mut(&name) {
                            Some(Opened::Whole(pages)) => pages.check(bytes, &name, verified),
                            Some(Opened::Changed(changed)) => {
                                changed.check(bytes, &self.lsn, self.spaces, verified);
                            }
                            None => {}
                        }
                    }
                }
                Chunk::End { path, rewrite } => {
                    let (_, len) = state.end(&path, rewrite).map_err(|e| fault(e, &stream))?;
                    let name = path_to_text(path.as_bytes());
                    if let Some(Opened::Changed(changed)) = self.open.remove(&name) {
                        changed.finish(verified);
                    }
                    self.whole.insert(name, len);
                }
                Chunk::Seek { path, offset, rewrite } => {
                    state.seek(&path, offset, rewrite).map_err(|e| fault(e, &stream))?;
                    self.open.remove(&path_to_text(path.as_bytes()));
                }
                Chunk::Remove { target } => {
                    for path in state.remove(&target).map_err(|e| fault(e, &stream))? {
                        self.whole.remove(&path_to_text(path.as_bytes()));
                    }
                }
                Chunk::Ignorable { .. } => {}
                Chunk::Rename { from, to } => {
                    state.rename(&from, &to).map_err(|e| fault(e, &stream))?;
                    if let Some(size) = self.whole.remove(&path_to_text(from.as_bytes())) {
                        self.whole.insert(path_to_text(to.as_bytes()), size);
                    }
                }
            }
        }
        state.finish().map_err(|fault| damage(stream.error(fault)))
    }
}

/// The pages of a tablespace, as its bytes come.
pub(super) struct Pages {
    flags: SpaceFlags,
    space: SpaceId,
    next: u32,
    /// The beginning of a page whose rest comes with the next chunk.
    part: Vec<u8>,
}

impl Pages {
    fn new(file: &FileEntry) -> Option<Self> {
        let space = file.space?;
        let flags = SpaceFlags::parse(space.flags).ok()?;
        Some(Self { flags, space: SpaceId(space.id), next: 0, part: Vec::new() })
    }

    fn check(&mut self, mut bytes: &[u8], name: &str, verified: &mut Verified) {
        let size = self.flags.physical_size().bytes();
        if !self.part.is_empty() {
            let (rest, behind) = bytes.split_at(bytes.len().min(size - self.part.len()));
            self.part.extend_from_slice(rest);
            bytes = behind;
            if self.part.len() == size {
                let page = std::mem::take(&mut self.part);
                self.page(&page, name, verified);
            }
        }
        let mut pages = bytes.chunks_exact(size);
        for page in &mut pages {
            self.page(page, name, verified);
        }
        self.part.extend_from_slice(pages.remainder());
    }

    fn page(&mut self, page: &[u8], name: &str, verified: &mut Verified) {
        let page_no = PageNo(self.next);
        self.next = self.next.saturating_add(1);
        verified.pages += 1;
        let size = self.flags.physical_size();
        // What stands in the doublewrite area are pages of other places.
        if self.space == SpaceId::SYSTEM && page::verify::is_doublewrite(page_no, size) {
            return;
        }
        if let Verdict::Damaged(damage) = page::verify(page, page_no, Some(self.space), &self.flags)
        {
            verified.fault(format!("{name}, page {page_no}: {damage}"));
        }
    }
}

/// A `.delta` file, as its bytes come.
pub(super) struct Changed {
    path: String,
    meta: Meta,
    /// The first page of the file, within its tablespace.
    first: PageNo,
    /// The pages of the cluster that are still to come.
    pages: std::vec::IntoIter<u32>,
    /// The number of the next cluster; none behind the last.
    next: Option<u64>,
    after: Option<u32>,
    /// The beginning of a page or of a header.
    part: Vec<u8>,
    /// It makes no sense any more.
    lost: bool,
}

impl Changed {
    fn new(meta: Meta, first: PageNo, path: &str) -> Self {
        let (path, pages) = (path.to_owned(), Vec::new().into_iter());
        let part = Vec::with_capacity(meta.page_size.bytes());
        Self { path, meta, first, pages, next: Some(0), after: None, part, lost: false }
    }

    fn check(
        &mut self,
        mut bytes: &[u8],
        lsn: &LsnRange,
        spaces: &mut Spaces,
        verified: &mut Verified,
    ) {
        let size = self.meta.page_size.bytes();
        while !bytes.is_empty() && !self.lost {
            let (now, behind) = bytes.split_at(bytes.len().min(size - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = behind;
            if self.part.len() < size {
                return;
            }
            let page = std::mem::take(&mut self.part);
            match self.pages.next() {
                Some(number) => {
                    self.after = Some(number);
                    self.page(&page, number, lsn, spaces, verified);
                }
                None => self.header(&page, verified),
            }
            self.part = page;
            self.part.clear();
        }
    }

    fn header(&mut self, header: &[u8], verified: &mut Verified) {
        let why = match self.next {
            None => "it goes on behind its last cluster".to_owned(),
            Some(number) => match Cluster::parse(header, number, self.after) {
                Ok(cluster) => {
                    self.next = (!cluster.last).then_some(number + 1);
                    self.pages = cluster.pages.into_iter();
                    return;
                }
                Err(why) => why.to_string(),
            },
        };
        verified.fault(format!("{}: {why}", self.path));
        self.lost = true;
    }

    fn page(
        &self,
        page: &[u8],
        number: u32,
        lsn: &LsnRange,
        spaces: &mut Spaces,
        verified: &mut Verified,
    ) {
        verified.pages += 1;
        let space = self.meta.space;
        let mut fault = |why: String| {
            verified.fault(format!("{}, page {number}: {why}", self.path));
        };
        let page_no = PageNo(self.first.0.saturating_add(number));
        if page_no == PageNo(0) {
            match SpaceHeader::parse(page) {
                Ok(header) if header.id != space => {
                    return fault(format!("it is that of tablespace {}, not {space}", header.id));
                }
                Ok(header) if header.physical_size() != self.meta.page_size => {
                    let size = header.physical_size();
                    return fault(format!("it says that pages have {size} bytes"));
                }
                Ok(header) => {
                    spaces.flags.insert(space.0, header.flags);
                }
                Err(why) => return fault(why.to_string()),
            }
        }
        // What stands in the doublewrite area are pages of other places.
        if space == SpaceId::SYSTEM && page::verify::is_doublewrite(page_no, self.meta.page_size) {
            return;
        }
        let at = page::lsn(page).unwrap_or_default();
        if at > Lsn(lsn.end) {
            fault(format!("its LSN {at} is behind the end of the redo log, {}", lsn.end));
        } else if at != Lsn(0) && lsn.pages_since.is_some_and(|since| at <= Lsn(since)) {
            fault(format!("its LSN {at} is older than the delta"));
        }
        let flags = spaces.flags.get(&space.0);
        let flags = flags.filter(|flags| flags.physical_size() == self.meta.page_size);
        if let Some(flags) = flags
            && let Verdict::Damaged(damage) = page::verify(page, page_no, Some(space), flags)
        {
            fault(damage.to_string());
        }
    }

    fn finish(self, verified: &mut Verified) {
        let ends = self.part.is_empty() && self.pages.as_slice().is_empty() && self.next.is_none();
        if !ends && !self.lost {
            verified.fault(format!("{}: it ends before its last cluster does", self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::delta::format::{header, pages_max};
    use innodb::PageSize;
    use innodb::page::layout::fil;
    use innodb::page::stamp::stamp;
    use innodb::{PageId, space};

    const SPACE: SpaceId = SpaceId(7);
    const FLAGS: u32 = 0x15;
    const LSN: LsnRange =
        LsnRange { start: 100, checkpoint: 150, end: 200, from: Some(50), pages_since: Some(40) };

    fn page(number: u32, lsn: u64) -> Vec<u8> {
        let mut page = vec![0; PageSize::DEFAULT.bytes()];
        let page_type: u16 = if number == 0 { 8 } else { 17855 };
        page[fil::TYPE..][..2].copy_from_slice(&page_type.to_be_bytes());
        page[fil::PAGE_NO..][..4].copy_from_slice(&number.to_be_bytes());
        page[fil::SPACE_ID..][..4].copy_from_slice(&SPACE.0.to_be_bytes());
        if number == 0 {
            page[space::header::SPACE_ID..][..4].copy_from_slice(&SPACE.0.to_be_bytes());
            page[space::header::FLAGS..][..4].copy_from_slice(&FLAGS.to_be_bytes());
            page[space::header::SIZE..][..4].copy_from_slice(&9u32.to_be_bytes());
        }
        let id = PageId { space: SPACE, page: PageNo(number) };
        stamp(&mut page, id, Lsn(lsn), &SpaceFlags::parse(FLAGS).unwrap()).unwrap();
        page
    }

    fn delta(numbers: &[u32], images: &[Vec<u8>], last: bool) -> Vec<u8> {
        [header(PageSize::DEFAULT, numbers, last), images.concat()].concat()
    }

    /// What is found in a file that comes in pieces of so many bytes.
    fn faults(bytes: &[u8], piece: usize, known: bool) -> (Vec<String>, u64) {
        let mut verified = Verified {
            name: String::new(),
            faults: Vec::new(),
            frames: 0,
            stored_bytes: 0,
            pages: 0,
        };
        let mut spaces = Spaces::default();
        if known {
            spaces.flags.insert(SPACE.0, SpaceFlags::parse(FLAGS).unwrap());
        }
        let meta = Meta { page_size: PageSize::DEFAULT, zip: false, space: SPACE };
        let mut changed = Changed::new(meta, PageNo(0), "d/t.ibd.delta");
        bytes.chunks(piece).for_each(|piece| {
            changed.check(piece, &LSN, &mut spaces, &mut verified);
        });
        changed.finish(&mut verified);
        (verified.faults, verified.pages)
    }

    #[test]
    fn a_good_delta_has_no_faults() {
        let good = delta(&[0, 3, 8], &[page(0, 60), page(3, 200), page(8, 0)], true);
        for piece in [good.len(), 1000, 16384, 16385] {
            assert_eq!(faults(&good, piece, false), (vec![], 3));
        }
        assert_eq!(faults(&delta(&[], &[], true), 100, false), (vec![], 0));
    }

    #[test]
    fn what_is_wrong_in_a_delta_is_named() {
        let mut broken = page(3, 60);
        broken[5000] ^= 1;
        let full: Vec<u32> = (0..pages_max(PageSize::DEFAULT) as u32).collect();
        let one = |image: Vec<u8>| delta(&[3], &[image], true);
        for (bytes, known, words) in [
            (one(broken.clone()), true, "page 3: "),
            (delta(&[0, 3], &[page(0, 60), broken], true), false, "page 3: "),
            (one(page(4, 60)), true, "page 3: "),
            (one(page(3, 201)), true, "behind the end of the redo log"),
            (one(page(3, 40)), true, "older than the delta"),
            (delta(&[0], &[page(3, 60)], true), false, "page 0: "),
            (delta(&[3, 2], &[page(3, 60), page(2, 60)], true), true, "does not stand in order"),
            (delta(&[3], &[page(3, 60)], false), true, "not full"),
            (header(PageSize::DEFAULT, &full, false), true, "ends before"),
            (one(page(3, 60))[..20000].to_vec(), true, "ends before"),
            ([one(page(3, 60)), page(4, 60)].concat(), true, "goes on behind"),
            (vec![1; 16384], true, "does not begin with"),
        ] {
            let (found, _) = faults(&bytes, 7000, known);
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
    }
}
