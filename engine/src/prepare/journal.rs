//! Images of the pages that are being written, so that a kill cannot tear a page for good.
//!
//! Writing a page larger than 4 KiB can be cut short by a signal between two blocks. The redo that
//! would make the page good again needs the page it was made for. So every window of pages goes
//! to its worker's slot of the journal first, whole and stamped, and only then to its place. The
//! next prepare looks at the pages that the slots name, and puts back the image of those that are
//! damaged. An image counts only if its own checksum does, so a journal that was itself cut short
//! is harmless: then the pages in place are still untouched.
//!
//! This is about kills, not about power: nothing is synced until the end.
//!
//! The file is also the mark of an unfinished prepare, removed as the very last step.
//!
//! | offset in a slot | length | field |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 4 | CRC-32C of the rest of the header |
//! | 12 | 4 | tablespace id |
//! | 16 | 4 | tablespace flags |
//! | 20 | 4 | first page of the file |
//! | 24 | 2 | length of the file's name |
//! | 26 | 2 | number of pages |
//! | 28 | | name, then page numbers of 4 bytes |
//! | 4096 | | the pages |

use std::fs::{self, File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use innodb::bytes::{u16_at, u32_at};
use innodb::page::{PageCompressor, Verdict, crc32c, is_zero, verify};
use innodb::space::SpaceFlags;
use innodb::{PageId, PageNo, SpaceId};

use super::collector::WINDOW_BYTES;
use super::inventory::{DataFile, Tablespace};
use crate::{Error, Reporter, Result};

/// Name of the journal in the backup. A folder that has it is not prepared.
pub const FILE_NAME: &str = "haulout-prepare.journal";

const MAGIC: &[u8; 8] = b"HAULOUTJ";
const HEADER_SIZE: usize = 4096;
const SLOT_SIZE: u64 = (HEADER_SIZE + WINDOW_BYTES) as u64;
/// Writes of pages up to this size are never cut short within a page.
const ATOMIC_WRITE: usize = 4096;

mod field {
    pub const CRC: usize = 8;
    pub const SPACE: usize = 12;
    pub const FLAGS: usize = 16;
    pub const FIRST_PAGE: usize = 20;
    pub const NAME_LENGTH: usize = 24;
    pub const PAGES: usize = 26;
    pub const NAME: usize = 28;
}

/// The journal of a prepare that runs.
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// The journal that an interrupted prepare has left in `dir`.
    pub fn left_in(dir: &Path) -> Result<Option<Self>> {
        let left = dir.join(FILE_NAME).try_exists().map_err(|e| Error::io("inspect", dir, e))?;
        if left { Self::open(dir).map(Some) } else { Ok(None) }
    }

    /// Opens the journal in `dir`, which marks the folder as unfinished.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io("create", &path, e))?;
        Ok(Self { file, path })
    }

    /// Ends the prepare: the folder is finished.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }

    /// Writes `runs` of neighbouring pages of one file, each with its first page, to the slot of
    /// `worker`.
    pub fn note(
        &self,
        worker: usize,
        space: &Tablespace,
        file: &DataFile,
        runs: &[(PageNo, &[u8])],
    ) -> Result<()> {
        let page_size = space.flags.physical_size().bytes();
        if page_size <= ATOMIC_WRITE {
            return Ok(());
        }
        let header = header(space, file, runs, page_size);
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(runs.len() + 1);
        slices.push(IoSlice::new(&header));
        slices.extend(runs.iter().map(|(_, images)| IoSlice::new(images)));
        write_all(&self.file, &mut slices, worker as u64 * SLOT_SIZE)
            .map_err(|e| Error::io("write", &self.path, e))
    }

    /// Puts back the images of pages below `dir` that a kill has torn.
    pub fn replay(&self, dir: &Path, reporter: &dyn Reporter) -> Result<()> {
        let size = self.file.metadata().map_err(|e| Error::io("inspect", &self.path, e))?.len();
        for slot in 0..size.div_ceil(SLOT_SIZE) {
            let mut header = vec![0; HEADER_SIZE];
            if self.file.read_exact_at(&mut header, slot * SLOT_SIZE).is_err() {
                continue;
            }
            let Some(noted) = Noted::parse(&header) else { continue };
            let healed = noted.replay(dir, &self.file, slot * SLOT_SIZE + HEADER_SIZE as u64)?;
            if healed > 0 {
                reporter.info(format!(
                    "{healed} pages of {} were torn by an interrupted prepare and are whole again",
                    noted.name
                ));
            }
        }
        Ok(())
    }
}

fn header(
    space: &Tablespace,
    file: &DataFile,
    runs: &[(PageNo, &[u8])],
    page_size: usize,
) -> Vec<u8> {
    let numbers = runs.iter().flat_map(|(first, images)| {
        (0..images.len() / page_size).map(|i| first.0.wrapping_add(i as u32))
    });
    let mut out = Vec::with_capacity(HEADER_SIZE);
    out.extend(MAGIC);
    out.extend([0; 4]);
    out.extend(space.id.0.to_be_bytes());
    out.extend(space.flags.word().to_be_bytes());
    out.extend(file.first_page.0.to_be_bytes());
    out.extend((file.name.len() as u16).to_be_bytes());
    out.extend((numbers.clone().count() as u16).to_be_bytes());
    out.extend(file.name.as_bytes());
    for number in numbers {
        out.extend(number.to_be_bytes());
    }
    out.resize(HEADER_SIZE, 0);
    let crc = crc32c(out.get(field::SPACE..).unwrap_or_default());
    if let Some(at) = out.get_mut(field::CRC..field::SPACE) {
        at.copy_from_slice(&crc.to_be_bytes());
    }
    out
}

/// What a slot says.
struct Noted {
    space: SpaceId,
    flags: SpaceFlags,
    first_page: PageNo,
    name: String,
    pages: Vec<PageNo>,
}

impl Noted {
    /// `None` for a slot that was never used or whose header is torn.
    fn parse(header: &[u8]) -> Option<Self> {
        let valid = header.starts_with(MAGIC)
            && u32_at(header, field::CRC)? == crc32c(header.get(field::SPACE..)?);
        if !valid {
            return None;
        }
        let name_end = field::NAME + usize::from(u16_at(header, field::NAME_LENGTH)?);
        let name = std::str::from_utf8(header.get(field::NAME..name_end)?).ok()?;
        let count = usize::from(u16_at(header, field::PAGES)?);
        let pages = (0..count).map(|i| u32_at(header, name_end + 4 * i).map(PageNo));
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        inside.then_some(())?;
        Some(Self {
            space: SpaceId(u32_at(header, field::SPACE)?),
            flags: SpaceFlags::parse(u32_at(header, field::FLAGS)?).ok()?,
            first_page: PageNo(u32_at(header, field::FIRST_PAGE)?),
            name: name.to_owned(),
            pages: pages.collect::<Option<_>>()?,
        })
    }

    /// Whether a page is whole. Those that only their keys could tell of are never written.
    fn is_intact(&self, page: &[u8], page_no: PageNo, compressor: &mut PageCompressor) -> bool {
        match verify(page, page_no, Some(self.space), &self.flags) {
            Verdict::NeedsDecompression { key_version: 0, .. } => {
                let id = PageId { space: self.space, page: page_no };
                compressor.check(page, id, &self.flags).is_ok()
            }
            verdict => verdict.is_intact(),
        }
    }

    /// Puts back what is damaged; `images` is where in `journal` the images start.
    fn replay(&self, dir: &Path, journal: &File, images: u64) -> Result<usize> {
        let path = dir.join(&self.name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            opened => opened.map_err(|e| Error::io("open", &path, e))?,
        };
        let page_size = self.flags.physical_size().bytes();
        let (mut image, mut page) = (vec![0; page_size], vec![0; page_size]);
        let mut compressor = PageCompressor::default();
        let mut healed = 0;
        for (number, &page_no) in self.pages.iter().enumerate() {
            let at = images + (number * page_size) as u64;
            if journal.read_exact_at(&mut image, at).is_err() {
                continue;
            }
            let Some(within) = page_no.0.checked_sub(self.first_page.0) else { continue };
            let place = u64::from(within) * page_size as u64;
            // A page that becomes a hole is not read again, so it need not be whole.
            let whole = !is_zero(&image) && self.is_intact(&image, page_no, &mut compressor);
            if !whole || file.read_exact_at(&mut page, place).is_err() {
                continue;
            }
            if !self.is_intact(&page, page_no, &mut compressor) {
                file.write_all_at(&image, place).map_err(|e| Error::io("write", &path, e))?;
                healed += 1;
            }
        }
        Ok(healed)
    }
}

/// Writes all of `slices`, one behind the other.
fn write_all(file: &File, mut slices: &mut [IoSlice<'_>], mut at: u64) -> std::io::Result<()> {
    while !slices.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(file, slices, at))?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        at += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::prepare::codec::PageCodec;
    use crate::report::Silent;
    use innodb::{Lsn, page};

    const PAGE: usize = 16384;
    const SPACE: SpaceId = SpaceId(7);

    /// A valid page whose content depends on `lsn` in every block.
    fn image(page_no: u32, lsn: u64, flags: &SpaceFlags) -> Vec<u8> {
        let id = PageId { space: SPACE, page: PageNo(page_no) };
        let mut page: Vec<u8> = (0..PAGE as u64).map(|i| (i / 7 + lsn) as u8).collect();
        page[..38].fill(0);
        page[4..8].copy_from_slice(&page_no.to_be_bytes());
        page[34..38].copy_from_slice(&SPACE.0.to_be_bytes());
        page::stamp(&mut page, id, Lsn(lsn), flags).unwrap();
        page
    }

    struct Setting {
        dir: tempfile::TempDir,
        space: Tablespace,
        old: Vec<u8>,
        new: Vec<u8>,
    }

    /// Pages 1 to 3 of a file of 5, in their old and new states.
    fn setting(word: u32) -> Setting {
        let dir = tempfile::tempdir().unwrap();
        let flags = SpaceFlags::parse(word).unwrap();
        let pages = |lsn| (1..4).flat_map(|n| image(n, lsn, &flags)).collect::<Vec<u8>>();
        let (old, new) = (pages(1000), pages(2000));
        fs::create_dir(dir.path().join("db")).unwrap();
        let path = dir.path().join("db/t.ibd");
        fs::write(&path, [vec![0; PAGE], old.clone(), vec![0; PAGE]].concat()).unwrap();
        let bytes = 5 * PAGE as u64;
        let file = DataFile { path, name: "db/t.ibd".into(), first_page: PageNo(0), bytes };
        let codec = PageCodec::default();
        let files = vec![file];
        let (crypt, page_0_lsn) = (None, None);
        let space = Tablespace { id: SPACE, flags, files, crypt, page_0_lsn, codec };
        Setting { dir, space, old, new }
    }

    impl Setting {
        fn note(&self) -> Journal {
            let journal = Journal::open(self.dir.path()).unwrap();
            let (first, rest) = self.new.split_at(PAGE);
            let runs = [(PageNo(1), first), (PageNo(2), rest)];
            journal.note(1, &self.space, &self.space.files[0], &runs).unwrap();
            journal
        }

        fn file(&self) -> File {
            OpenOptions::new().read(true).write(true).open(&self.space.files[0].path).unwrap()
        }

        /// What prepare finds in place of pages 1 to 3 after the journal was replayed.
        fn replayed(&self) -> Vec<u8> {
            let journal = Journal::left_in(self.dir.path()).unwrap().unwrap();
            journal.replay(self.dir.path(), &Silent).unwrap();
            let mut found = vec![0; 3 * PAGE];
            self.file().read_exact_at(&mut found, PAGE as u64).unwrap();
            found
        }
    }

    #[test]
    fn a_window_torn_at_any_block_has_only_whole_pages_after_the_replay() {
        for word in [0x15, 0x21] {
            for blocks in 0..=3 * PAGE / 4096 {
                let setting = setting(word);
                setting.note();
                let written = &setting.new[..blocks * 4096];
                setting.file().write_all_at(written, PAGE as u64).unwrap();
                let found = setting.replayed();
                for (number, page) in found.chunks_exact(PAGE).enumerate() {
                    let at = number * PAGE;
                    let touched = blocks * 4096 > at;
                    let expected = if touched { &setting.new } else { &setting.old };
                    assert_eq!(page, &expected[at..at + PAGE], "{blocks} blocks, page {number}");
                }
            }
        }
    }

    #[test]
    fn a_journal_that_was_cut_short_changes_nothing() {
        for size in [0, 100, 4096, 4096 + 100, 4096 + 2 * PAGE] {
            let setting = setting(0x15);
            let journal = setting.note();
            journal.file.set_len(SLOT_SIZE + size as u64).unwrap();
            assert_eq!(setting.replayed(), setting.old, "{size}");
        }
    }

    #[test]
    fn a_damaged_header_or_image_is_not_used() {
        for at in [0, 8, 12, 24, 28, 40, 4096 + 50] {
            let setting = setting(0x15);
            let journal = setting.note();
            let mut byte = [0];
            journal.file.read_exact_at(&mut byte, SLOT_SIZE + at).unwrap();
            journal.file.write_all_at(&[byte[0] ^ 0x40], SLOT_SIZE + at).unwrap();
            let torn = [&setting.new[..4096], &setting.old[4096..]].concat();
            setting.file().write_all_at(&torn[..PAGE], PAGE as u64).unwrap();
            assert_eq!(setting.replayed(), torn, "byte {at}");
        }
    }

    #[test]
    fn a_name_that_leads_out_of_the_backup_is_not_followed() {
        let setting = setting(0x15);
        let mut space = setting.space.clone();
        space.files[0].name = "../t.ibd".into();
        let bytes = header(&space, &space.files[0], &[(PageNo(1), &setting.new)], PAGE);
        assert!(Noted::parse(&bytes).is_none());
        let bytes = header(&setting.space, &setting.space.files[0], &[], PAGE);
        assert!(Noted::parse(&bytes).is_some());
    }
}
