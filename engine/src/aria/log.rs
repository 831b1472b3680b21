//! The log files: pages, chunks, and records put together from them.
//!
//! A log is a sequence of files `aria_log.NNNNNNNN`, each made of pages of 8 KiB. The first page of
//! a file is its header, and has no records. Any other page begins with its own number (3 bytes),
//! the number of its file (3) and flags (1), and holds chunks; what is left of it is 0xff.
//!
//! | first byte of a chunk | what | then |
//! |---|---|---|
//! | `00tttttt` | a record of type `t`, or its first part | transaction (2), length (1 to 5), chunk length (2), data |
//! | `01tttttt` | a whole record of fixed length | transaction (2), data |
//! | `10......` | more of a record, up to the end of the page | data |
//! | `11......` | more of a record | length (2), data |
//!
//! A chunk length of 0 in the first form means: as much as fits, and the rest in the chunks that
//! follow. Otherwise the record was too large to be written at once: its parts lie before it, in
//! groups of chunks that the chunk lists by address.
//!
//! Nothing marks the end of the log: it ends with the chunks of the last page, or before a record
//! that is not complete.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::bytes::{Fields, le_at};
use super::leave::{Leave, Result};
use super::lsn::AriaLsn;
use super::record::{self, Length, Record};
use crate::Error;
use crate::capture::inventory::aria_log_number;

/// Size of a page of the log.
pub const PAGE: usize = 8192;
/// Where the chunks of a page begin.
pub const PAGE_HEADER: usize = 7;
/// What fills the rest of a page.
pub const FILLER: u8 = 0xff;
/// Pages read at once.
const WINDOW: usize = 64 * PAGE;
/// The forms of a chunk.
const FORM: u8 = 0xc0;
const FORM_FIXED: u8 = 0x40;
const FORM_TO_PAGE_END: u8 = 0x80;
const TYPE: u8 = 0x3f;
/// Not a record: more of the list of a record's groups.
const TYPE_LIST: u8 = 0x3f;

/// Name of a log file.
pub fn file_name(number: u32) -> String {
    format!("aria_log.{number:08}")
}

/// The log of a backup.
pub struct Log {
    files: BTreeMap<u32, (File, u64)>,
    /// The end of the log: where the next record would begin.
    end: AriaLsn,
    window: Window,
    /// Records larger than this are not put together.
    limit: usize,
}

#[derive(Default)]
struct Window {
    file: u32,
    start: u64,
    bytes: Vec<u8>,
}

/// A chunk: its form and type, where its data are in its page, and where it ends.
struct Chunk {
    first: u8,
    data: std::ops::Range<usize>,
}

impl Chunk {
    fn is_record(&self) -> bool {
        match self.first & FORM {
            0 => self.first & TYPE != TYPE_LIST,
            form => form == FORM_FIXED,
        }
    }

    fn is_more(&self) -> bool {
        self.first & FORM >= FORM_TO_PAGE_END
    }
}

fn damaged(at: AriaLsn, what: &str) -> Leave {
    Leave::Damaged { file: file_name(at.file()), what: format!("{what} at {:#x}", at.offset()) }
}

impl Log {
    /// Opens the log below `dir` whose last file is at least `last`, to put together records of up
    /// to `limit` bytes.
    pub fn open(dir: &Path, last: u32, limit: usize) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
            let entry = entry.map_err(|e| Error::io("list", dir, e))?;
            let name = entry.file_name();
            let Some(number) = aria_log_number(name.as_encoded_bytes()) else { continue };
            let path = entry.path();
            let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
            let size = file.metadata().map_err(|e| Error::io("inspect", &path, e))?.len();
            if size > u64::from(u32::MAX) || size % PAGE as u64 != 0 {
                let what = format!("{size} bytes are not a number of pages");
                return Err(Leave::Damaged { file: file_name(number), what }.into());
            }
            files.insert(number, (file, size));
        }
        // A log may have been begun after the control file was copied. What is beyond a gap is
        // not of this log.
        let mut last = last;
        while let Some(next) = last.checked_add(1).filter(|next| files.contains_key(next)) {
            last = next;
        }
        files.retain(|number, _| *number <= last);
        if !files.contains_key(&last) {
            return Err(
                Leave::Damaged { file: file_name(last), what: "it is missing".into() }.into()
            );
        }
        let all: u64 = files.values().map(|file| file.1).sum();
        let limit = limit.min(usize::try_from(all).unwrap_or(usize::MAX));
        let mut log = Self { files, end: AriaLsn::NONE, window: Window::default(), limit };
        log.end = log.find_end(last)?;
        Ok(log)
    }

    /// Where the next record would begin.
    pub fn end(&self) -> AriaLsn {
        self.end
    }

    /// Numbers of the files before the last.
    pub fn earlier_files(&self) -> Vec<u32> {
        self.files.keys().copied().filter(|number| *number < self.end.file()).collect()
    }

    /// The first place at which a record could be.
    pub fn begin(&self) -> AriaLsn {
        let last = self.end.file();
        // Files before a gap are left over from an earlier log.
        let first = (0..=last).rev().take_while(|number| self.files.contains_key(number)).last();
        AriaLsn::new(first.unwrap_or(last), PAGE as u32)
    }

    /// The last page that has something in it.
    pub fn last_page(&mut self) -> Result<Vec<u8>> {
        let at = match self.end.offset() as usize % PAGE {
            0 => self.end.offset() - PAGE as u32,
            within => self.end.offset() - within as u32,
        };
        Ok(self.page(AriaLsn::new(self.end.file(), at))?.to_vec())
    }

    /// The first record at or behind a place.
    pub fn first_from(&mut self, place: AriaLsn) -> Result<Option<AriaLsn>> {
        let within = place.offset() as usize % PAGE;
        let mut at =
            AriaLsn::new(place.file(), place.offset() - within as u32 + PAGE_HEADER as u32);
        while at < self.end {
            let chunk = self.chunk(at)?;
            match chunk {
                Some(chunk) if at >= place && chunk.is_record() => return Ok(Some(at)),
                Some(chunk) => at = page_of(at).plus(chunk.data.end),
                None => at = self.next_page(at)?,
            }
            at = self.settle(at)?;
        }
        Ok(None)
    }

    /// The record at `at`, and where to look for the next. `None` at the end of the log.
    pub fn record(&mut self, at: AriaLsn) -> Result<Option<(Record, AriaLsn)>> {
        if at >= self.end {
            return Ok(None);
        }
        let chunk = self.chunk(at)?.filter(Chunk::is_record);
        let chunk = chunk.ok_or_else(|| damaged(at, "there is no record"))?;
        let number = chunk.first & TYPE;
        let Some(what) = record::describe(number) else {
            let message = format!("the log record at {at} has the unknown type {number}");
            return Err(Leave::Unsupported(message).into());
        };
        let page = self.page(page_of(at))?;
        let transaction = page
            .get(at.offset() as usize % PAGE + 1..)
            .and_then(|rest| le_at(rest, 0, 2))
            .ok_or_else(|| damaged(at, "a record is cut short"))? as u16;
        let mut record =
            Record { lsn: at, kind: what.kind, role: what.role, transaction, body: Vec::new() };
        let next = match (chunk.first & FORM, what.length) {
            (FORM_FIXED, Length::Fixed(_)) => {
                record.body = page.get(chunk.data.clone()).unwrap_or_default().to_vec();
                self.settle(page_of(at).plus(chunk.data.end))?
            }
            (0, Length::Variable) => match self.assemble(at, &chunk, what.lsns)? {
                Some((body, next)) => {
                    record.body = body;
                    next
                }
                // The last record was being written: the log ends before it.
                None => {
                    self.end = at;
                    return Ok(None);
                }
            },
            _ => return Err(damaged(at, "a record has the form of another type").into()),
        };
        Ok(Some((record, next)))
    }

    /// The next record behind `at`, which is a place that [`record`](Self::record) told.
    pub fn next(&mut self, at: AriaLsn) -> Result<Option<(Record, AriaLsn)>> {
        match self.first_from(at)? {
            Some(lsn) => self.record(lsn),
            None => Ok(None),
        }
    }

    /// The content of a record of variable length; `None` if the log ends within it.
    fn assemble(
        &mut self,
        at: AriaLsn,
        chunk: &Chunk,
        lsns: usize,
    ) -> Result<Option<(Vec<u8>, AriaLsn)>> {
        let page = self.page(page_of(at))?.to_vec();
        let header = Header::read(&page, at)?;
        if header.length > self.limit {
            return Err(Leave::Memory.into());
        }
        let next = self.settle(page_of(at).plus(chunk.data.end))?;
        if header.chunk_length == 0 {
            let mut data = page.get(chunk.data.clone()).unwrap_or_default().to_vec();
            let mut next = next;
            while data.len() < header.length {
                let Some(more) = self.more(next, at)? else { return Ok(None) };
                data.extend_from_slice(&more.0);
                next = more.1;
            }
            if data.len() != header.length {
                return Err(damaged(at, "a record is longer than it says").into());
            }
            return Ok(Some((with_lsns(at, at, &data, lsns)?, next)));
        }
        let list = page.get(chunk.data.clone()).unwrap_or_default();
        let mut fields = Fields::new(list);
        let groups = fields.u16().ok_or_else(|| damaged(at, "a list of groups is cut short"))?;
        let groups: Option<Vec<(AriaLsn, u8)>> =
            (0..groups).map(|_| Some((fields.lsn()?, fields.u8()?))).collect();
        let Some(groups) = groups.filter(|groups| !groups.is_empty()) else {
            let message = format!("the log record at {at} has a list of groups of several pages");
            return Err(Leave::Unsupported(message).into());
        };
        let own = fields.rest().to_vec();
        let first = groups.first().map_or(at, |group| group.0);
        let mut data = Vec::with_capacity(header.length);
        for (number, (address, more)) in groups.iter().enumerate() {
            let last = number + 1 == groups.len();
            let mut place = *address;
            let mut left = u32::from(*more) + 1;
            while place != at && (last || left > 0) && data.len() <= header.length {
                if place > at {
                    return Err(damaged(at, "a group of chunks does not end").into());
                }
                let Some(chunk) = self.more(place, at)? else {
                    return Err(damaged(at, "a group of chunks is missing").into());
                };
                data.extend_from_slice(&chunk.0);
                place = chunk.1;
                left = left.saturating_sub(1);
            }
        }
        data.extend_from_slice(&own);
        if data.len() != header.length {
            return Err(damaged(at, "the groups of a record are not as long as it says").into());
        }
        Ok(Some((with_lsns(at, first, &data, lsns)?, next)))
    }

    /// The data of the chunk at `place`, which continues the record at `of`, and the next place.
    fn more(&mut self, place: AriaLsn, of: AriaLsn) -> Result<Option<(Vec<u8>, AriaLsn)>> {
        if place >= self.end {
            return Ok(None);
        }
        if place.offset() < PAGE as u32 || (place.offset() as usize % PAGE) < PAGE_HEADER {
            return Err(damaged(of, "a group of chunks is nowhere").into());
        }
        let chunk = self.chunk(place)?.filter(Chunk::is_more);
        let chunk = chunk.ok_or_else(|| damaged(of, "a record is not continued"))?;
        let data = self.page(page_of(place))?.get(chunk.data.clone()).unwrap_or_default().to_vec();
        Ok(Some((data, self.settle(page_of(place).plus(chunk.data.end))?)))
    }

    /// The place of the next chunk, if `at` is behind the last one of its page.
    fn settle(&mut self, at: AriaLsn) -> Result<AriaLsn> {
        if at >= self.end {
            return Ok(at);
        }
        let within = at.offset() as usize % PAGE;
        if within != 0 && self.page(page_of(at))?.get(within) != Some(&FILLER) {
            return Ok(at);
        }
        // A full page: the place is the start of the next one already.
        if within == 0 { self.page_from(at) } else { self.next_page(at) }
    }

    /// The first chunk of the page behind that of `at`.
    fn next_page(&self, at: AriaLsn) -> Result<AriaLsn> {
        let start = AriaLsn::new(at.file(), page_of(at).offset().saturating_add(PAGE as u32));
        self.page_from(start)
    }

    /// The first chunk of the page that begins at `start`, or of the next file.
    fn page_from(&self, start: AriaLsn) -> Result<AriaLsn> {
        let size = self.files.get(&start.file()).map_or(0, |file| file.1);
        if u64::from(start.offset()) < size {
            return Ok(start.plus(PAGE_HEADER));
        }
        if start.file() >= self.end.file() {
            return Ok(self.end);
        }
        let next = AriaLsn::new(start.file() + 1, (PAGE + PAGE_HEADER) as u32);
        if !self.files.contains_key(&next.file()) {
            let what = "it is missing".to_owned();
            return Err(Leave::Damaged { file: file_name(next.file()), what }.into());
        }
        Ok(next)
    }

    /// The chunk at `at`; `None` where the page has no more.
    fn chunk(&mut self, at: AriaLsn) -> Result<Option<Chunk>> {
        let within = at.offset() as usize % PAGE;
        let page = self.page(page_of(at))?;
        chunk_at(page, within).map_err(|what| damaged(at, what).into())
    }

    /// A page with records.
    fn page(&mut self, start: AriaLsn) -> Result<&[u8]> {
        let page = self.read_page(start)?;
        let number = u64::from(start.offset()) / PAGE as u64;
        if le_at(page, 0, 3) != Some(number) || le_at(page, 3, 3) != Some(start.file().into()) {
            return Err(damaged(start, "a page has the number of another").into());
        }
        if page.get(6) != Some(&0) {
            let message = format!("the log page at {start} has checksums, which no server writes");
            return Err(Leave::Unsupported(message).into());
        }
        Ok(page)
    }

    fn read_page(&mut self, start: AriaLsn) -> Result<&[u8]> {
        let offset = u64::from(start.offset());
        let window = &mut self.window;
        let inside = window.file == start.file()
            && offset >= window.start
            && offset + PAGE as u64 <= window.start + window.bytes.len() as u64;
        if !inside {
            let Some((file, size)) = self.files.get(&start.file()) else {
                return Err(damaged(start, "the log has no page").into());
            };
            let length = (WINDOW as u64).min(size.saturating_sub(offset)) as usize;
            if length < PAGE {
                return Err(damaged(start, "the log has no page").into());
            }
            window.bytes.resize(length, 0);
            (window.file, window.start) = (start.file(), offset);
            if let Err(error) = file.read_exact_at(&mut window.bytes, offset) {
                window.bytes.clear();
                return Err(Error::io("read", file_name(start.file()), error).into());
            }
        }
        let at = (offset - window.start) as usize;
        Ok(window.bytes.get(at..at + PAGE).unwrap_or_default())
    }

    /// The end of the chunks of the last page.
    fn find_end(&mut self, last: u32) -> Result<AriaLsn> {
        let size = self.files.get(&last).map_or(0, |file| file.1);
        if size <= PAGE as u64 {
            let message = format!("{} has no records", file_name(last));
            return Err(Leave::Unsupported(message).into());
        }
        let start = AriaLsn::new(last, (size - PAGE as u64) as u32);
        // Pages of the last file may be read up to its size while its end is not known.
        self.end = AriaLsn::MAX;
        let page = self.page(start)?;
        let mut within = PAGE_HEADER;
        while within < PAGE {
            match chunk_at(page, within).map_err(|what| damaged(start.plus(within), what))? {
                Some(chunk) => within = chunk.data.end,
                None => break,
            }
        }
        Ok(start.plus(within))
    }
}

impl AriaLsn {
    /// A place further on in the same file.
    fn plus(self, distance: usize) -> Self {
        Self::new(self.file(), self.offset().saturating_add(distance as u32))
    }
}

fn page_of(at: AriaLsn) -> AriaLsn {
    AriaLsn::new(at.file(), at.offset() - at.offset() % PAGE as u32)
}

/// The first bytes of a record of variable length.
struct Header {
    length: usize,
    chunk_length: usize,
    /// Where the data begin in the page.
    data: usize,
}

impl Header {
    fn read(page: &[u8], at: AriaLsn) -> Result<Self> {
        let within = at.offset() as usize % PAGE;
        Self::parse(page, within).ok_or_else(|| damaged(at, "a record is cut short").into())
    }

    fn parse(page: &[u8], within: usize) -> Option<Self> {
        let mut fields = Fields::new(page.get(within + 3..)?);
        let length = match fields.u8()? {
            251 => le_at(fields.bytes(2)?, 0, 2)?,
            252 => le_at(fields.bytes(3)?, 0, 3)?,
            253 => le_at(fields.bytes(4)?, 0, 4)?,
            254 | 255 => return None,
            short => short.into(),
        };
        let chunk_length = usize::from(fields.u16()?);
        let data = page.len() - fields.rest().len();
        Some(Self { length: usize::try_from(length).ok()?, chunk_length, data })
    }
}

fn chunk_at(page: &[u8], within: usize) -> std::result::Result<Option<Chunk>, &'static str> {
    let Some(&first) = page.get(within).filter(|first| **first != FILLER) else { return Ok(None) };
    let data = match first & FORM {
        0 => {
            let header = Header::parse(page, within).ok_or("a chunk is cut short")?;
            let rest = page.len() - header.data;
            let length = match header.chunk_length {
                0 => header.length.min(rest),
                length => length,
            };
            header.data..header.data + length
        }
        FORM_FIXED => match record::describe(first & TYPE).map(|what| what.length) {
            Some(Length::Fixed(length)) => within + 3..within + 3 + length,
            _ => return Err("a chunk has an unknown type"),
        },
        FORM_TO_PAGE_END => within + 1..page.len(),
        _ => {
            let length = le_at(page, within + 1, 2).ok_or("a chunk is cut short")?;
            within + 3..within + 3 + length as usize
        }
    };
    if data.end > page.len() {
        return Err("a chunk leaves its page");
    }
    Ok(Some(Chunk { first, data }))
}

/// Writes out the LSNs at the start of a record, each of which is stored as the distance to
/// `base` in 2 to 5 bytes; the two upper bits tell how many.
fn with_lsns(at: AriaLsn, base: AriaLsn, data: &[u8], lsns: usize) -> Result<Vec<u8>> {
    let short = || damaged(at, "a record is cut short");
    let mut fields = Fields::new(data);
    let mut body = Vec::with_capacity(data.len() + 5 * lsns);
    for _ in 0..lsns {
        let [first, second] =
            *fields.bytes(2).and_then(|two| two.first_chunk()).ok_or_else(short)?;
        let lsn = if (first, second) == (0, 1) {
            fields.lsn().ok_or_else(short)?
        } else {
            let high = u64::from(first & 0x3f);
            let (low, bits) = match first >> 6 {
                0 => (u64::from(second), 8),
                more => {
                    let rest = fields.bytes(more.into()).ok_or_else(short)?;
                    let rest = le_at(rest, 0, more.into()).ok_or_else(short)?;
                    (rest << 8 | u64::from(second), 8 * (u32::from(more) + 1))
                }
            };
            base.back(high << bits | low).ok_or_else(|| damaged(at, "an LSN is negative"))?
        };
        body.extend_from_slice(&lsn.to_bytes());
    }
    body.extend_from_slice(fields.rest());
    Ok(body)
}
