//! Events one after another, from anything that can be read.
//!
//! The buffer grows to the longest event that is really there, never to what a header claims, and
//! never beyond a limit. The walk goes by the lengths of events alone: the positions that events
//! name may be zero. What a file says of itself (format, encryption) is followed on the way.

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::rc::Rc;

use crate::bytes::Malformed;
use crate::crypt::{CryptError, Decryptor, KeySource, Mode, StartEncryption};
use crate::error::{Error, Fault};
use crate::format::{Checksum, FIRST_EVENT, FormatDescription, INNODB_MAGIC, MAGIC};
use crate::header::{CHECKSUM_LEN, EventType, HEADER_LEN, Header, at, flag};

/// Longest event that is read unless said otherwise: what servers allow, and room for a header.
pub const EVENT_MAX: u32 = (1 << 30) + (1 << 20);

/// Bytes behind the place where a file breaks off that was not closed: servers write this much at once. If
/// more follows, the file is damaged at that place.
pub const TORN_MAX: usize = 1 << 20;

/// Bytes that are asked for at once.
const CHUNK: usize = 256 << 10;
/// What is read begins at a multiple of this many bytes in memory, as far as it can: to such places the
/// kernel copies several times faster.
const PAGE: usize = 4096;

/// An event as it stands in the file; decrypted, if it was encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Where it begins.
    pub offset: u64,
    /// Its header.
    pub header: Header,
    /// All of it, with header and checksum.
    pub bytes: &'a [u8],
    /// The checksum, where the file has them.
    pub checksum: Option<u32>,
}

impl<'a> Event<'a> {
    /// An event that is not from a reader. Its checksum, if it has one, is not verified.
    pub fn parse(bytes: &'a [u8], offset: u64, checksum: Checksum) -> Result<Self, Malformed> {
        let header = Header::parse(bytes)?;
        let has_checksum = checksum == Checksum::Crc32;
        let least = HEADER_LEN + if has_checksum { CHECKSUM_LEN } else { 0 };
        if bytes.len() < least || header.length as usize != bytes.len() {
            return Err(Malformed("length"));
        }
        let stored = bytes.last_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        Ok(Self { offset, header, bytes, checksum: stored.filter(|_| has_checksum) })
    }

    /// What is between header and checksum.
    pub fn body(&self) -> &'a [u8] {
        let tail = if self.checksum.is_some() { CHECKSUM_LEN } else { 0 };
        self.bytes.get(HEADER_LEN..self.bytes.len() - tail).unwrap_or_default()
    }

    /// Where the next one begins.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// Where a file that was not closed breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Behind the last whole event.
    pub offset: u64,
    /// Bytes from there on.
    pub bytes: u64,
}

/// An event whose bytes are in the buffer.
struct Found {
    offset: u64,
    range: std::ops::Range<usize>,
    header: Header,
    checksum: Option<u32>,
}

/// How to read.
#[derive(Clone)]
pub struct ReadOptions {
    /// Whether checksums are verified.
    pub verify: bool,
    /// Longest event.
    pub event_max: u32,
    /// Who is asked for keys.
    pub keys: Option<Rc<dyn KeySource>>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { verify: true, event_max: EVENT_MAX, keys: None }
    }
}

/// Reads a binary log from its beginning to its end.
pub struct Reader<R> {
    input: R,
    file: String,
    options: ReadOptions,
    buffer: Vec<u8>,
    /// What of the buffer is still to come.
    begin: usize,
    end: usize,
    /// Offset of `begin` in the file.
    offset: u64,
    at_end: bool,
    format: Option<FormatDescription>,
    in_use: bool,
    torn: Option<Torn>,
    encryption: Option<Encryption>,
}

/// That the rest of the file is encrypted.
enum Encryption {
    Known(Box<Decryptor>),
    /// Why it will stay so; `None` once it has been said.
    Hopeless(Option<CryptError>, u32),
}

impl<R: Read> Reader<R> {
    /// Begins to read; `file` is for messages.
    pub fn new(input: R, file: impl Into<String>, options: ReadOptions) -> Result<Self, Error> {
        let mut reader = Self {
            input,
            file: file.into(),
            options,
            buffer: Vec::new(),
            begin: 0,
            end: 0,
            offset: 0,
            at_end: false,
            format: None,
            in_use: false,
            torn: None,
            encryption: None,
        };
        reader.fill(MAGIC.len())?;
        match reader.waiting().first_chunk() {
            None => return Err(reader.error(Fault::Empty)),
            Some(&INNODB_MAGIC) => return Err(reader.error(Fault::InnodbBinlog)),
            Some(magic) if *magic != MAGIC => return Err(reader.error(Fault::NotBinlog)),
            Some(_) => reader.consume(MAGIC.len()),
        }
        Ok(reader)
    }

    /// What the file said of its events, once the first was read.
    pub fn format(&self) -> Option<&FormatDescription> {
        self.format.as_ref()
    }

    /// Whether the file says that it is open, or was not closed.
    pub fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// Offset of the next event.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The name for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The next event; `None` at the end of the file. A file that ends within an event is an
    /// error, after which nothing more comes.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        let found = self.find()?;
        Ok(found.map(|found| self.event(found)))
    }

    /// The next event; `None` also where a file that was not closed breaks off, which [`torn`](Self::torn)
    /// tells then. What is damaged with more behind it than servers write at once is an error: the events
    /// behind it are not to be lost unnoticed.
    pub fn next_whole(&mut self) -> Result<Option<Event<'_>>, Error> {
        match self.find() {
            Ok(found) => Ok(found.map(|found| self.event(found))),
            Err(error) if self.in_use && self.is_torn(&error.fault)? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the file breaks off, once [`next_whole`](Self::next_whole) has come there.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Whether the file breaks off here.
    fn is_torn(&mut self, fault: &Fault) -> Result<bool, Error> {
        let is_long = match fault {
            // An event may be longer than what is written at once, if it says so of itself twice.
            Fault::Truncated { length, .. } => {
                let end = self.offset.wrapping_add(u64::from(*length)) as u32;
                Header::parse(self.waiting()).is_ok_and(|header| header.end_position == end)
            }
            Fault::TooSmall(_) | Fault::TooLarge { .. } | Fault::Checksum { .. } => false,
            _ => return Ok(false),
        };
        self.fill(TORN_MAX + 1)?;
        let bytes = self.waiting().len();
        if bytes > TORN_MAX && !is_long {
            return Ok(false);
        }
        self.torn = Some(Torn { offset: self.offset, bytes: bytes as u64 });
        Ok(true)
    }

    fn event(&self, found: Found) -> Event<'_> {
        let Found { offset, range, header, checksum } = found;
        Event { offset, header, bytes: &self.buffer[range], checksum }
    }

    /// Goes past the next event; where it is in the buffer.
    fn find(&mut self) -> Result<Option<Found>, Error> {
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let length = self.length_ahead()?;
        let offset = self.offset;
        self.fill(length)?;
        let there = self.waiting().len();
        if there < length {
            return Err(self.error(Fault::Truncated { length: length as u32, there: there as u64 }));
        }
        let range = self.begin..self.begin + length;
        self.decrypt(range.clone())?;
        let (header, checksum) = self.check(range.clone())?;
        self.consume(length);
        Ok(Some(Found { offset, range, header, checksum }))
    }

    /// The type of the next event, unless it is encrypted; `None` at the end.
    pub fn peek(&mut self) -> Result<Option<EventType>, Error> {
        self.fill(HEADER_LEN)?;
        let waiting = self.waiting();
        if waiting.is_empty() {
            return Ok(None);
        }
        match waiting.get(at::TYPE).filter(|_| waiting.len() >= HEADER_LEN) {
            Some(kind) => Ok(Some(EventType(*kind))),
            None => {
                let there = waiting.len() as u64;
                Err(self.error(Fault::Truncated { length: HEADER_LEN as u32, there }))
            }
        }
    }

    /// Passes over everything before `position`, reading it.
    pub fn skip_to(&mut self, position: u64) -> Result<(), Error> {
        while self.offset < position {
            self.fill(1)?;
            let there = self.waiting().len();
            if there == 0 {
                break;
            }
            let ahead = usize::try_from(position - self.offset).unwrap_or(usize::MAX);
            self.consume(there.min(ahead));
        }
        Ok(())
    }

    /// The event in a range of the buffer, checked, and followed if it is about the file.
    fn check(&mut self, range: std::ops::Range<usize>) -> Result<(Header, Option<u32>), Error> {
        let bytes = self.buffer.get(range).unwrap_or_default();
        let broken = |kind| move |what| Fault::Malformed { kind, what };
        let header = Header::parse(bytes).map_err(broken(EventType(0)));
        let header = header.map_err(|fault| self.error(fault))?;
        let kind = header.kind;
        if kind == EventType::FORMAT_DESCRIPTION {
            let format = FormatDescription::parse(bytes).map_err(broken(kind));
            let format = format.map_err(|fault| self.error(fault))?;
            self.in_use = header.has(flag::IN_USE);
            self.format = Some(format);
            self.encryption = None;
        }
        let checksum = match &self.format {
            Some(format) => format.checksum,
            None if kind == EventType::ROTATE => Checksum::None,
            None => return Err(self.error(Fault::NoFormat(kind))),
        };
        let bytes = &self.buffer[self.begin..self.begin + header.length as usize];
        let event = Event::parse(bytes, self.offset, checksum).map_err(broken(kind));
        let event = event.map_err(|fault| self.error(fault))?;
        // The format has a checksum even where it says that other events have none.
        let of_format = (kind == EventType::FORMAT_DESCRIPTION
            && self.format.as_ref().is_some_and(FormatDescription::has_checksum))
        .then(|| event.bytes.last_chunk().map(|bytes| u32::from_le_bytes(*bytes)));
        if self.options.verify
            && let Some(stored) = event.checksum.or(of_format.flatten())
        {
            let computed = checksum_of(event.bytes);
            if computed != stored {
                return Err(self.error(Fault::Checksum { stored, computed }));
            }
        }
        let stored = event.checksum;
        if kind == EventType::START_ENCRYPTION && !header.has(flag::IGNORABLE) {
            let start = StartEncryption::parse(event.body()).map_err(broken(kind));
            let start = start.map_err(|fault| self.error(fault))?;
            let version = start.key_version;
            self.encryption = Some(match Decryptor::new(&start, self.options.keys.as_deref()) {
                Ok(decryptor) => Encryption::Known(Box::new(decryptor)),
                Err(why) => Encryption::Hopeless(Some(why), version),
            });
        }
        Ok((header, stored))
    }

    fn decrypt(&mut self, range: std::ops::Range<usize>) -> Result<(), Error> {
        let offset = self.offset;
        let decryptor = match &mut self.encryption {
            None => return Ok(()),
            Some(Encryption::Hopeless(why, version)) => {
                let version = *version;
                let why = why.take().unwrap_or(CryptError::NoKeys { version });
                return Err(self.error(why.into()));
            }
            Some(Encryption::Known(decryptor)) => decryptor,
        };
        let Some(event) = self.buffer.get_mut(range) else { return Ok(()) };
        if let Some(mode) = decryptor.mode {
            decryptor.decrypt(mode, offset, event);
            return Ok(());
        }
        let checksum = self.format.as_ref().map_or(Checksum::None, |format| format.checksum);
        for mode in [Mode::Cbc, Mode::Ctr] {
            let mut tried = event.to_vec();
            decryptor.decrypt(mode, offset, &mut tried);
            if is_plausible(&tried, offset, checksum) {
                decryptor.mode = Some(mode);
                event.copy_from_slice(&tried);
                return Ok(());
            }
        }
        let version = decryptor.version;
        Err(self.error(CryptError::WrongKey { version }.into()))
    }

    /// Length of the event whose header is ahead.
    fn length_ahead(&self) -> Result<usize, Error> {
        let field = self.waiting().get(at::LENGTH..).and_then(<[u8]>::first_chunk);
        let length = field.map_or(0, |field| u32::from_le_bytes(*field));
        let limit = self.options.event_max;
        match length {
            small if (small as usize) < HEADER_LEN => Err(self.error(Fault::TooSmall(small))),
            large if large > limit => Err(self.error(Fault::TooLarge { length: large, limit })),
            length => Ok(length as usize),
        }
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.begin..self.end).unwrap_or_default()
    }

    fn consume(&mut self, length: usize) {
        self.begin += length;
        self.offset += length as u64;
    }

    /// Reads until `wanted` bytes are waiting or the input ends.
    fn fill(&mut self, wanted: usize) -> Result<(), Error> {
        while self.end - self.begin < wanted && !self.at_end {
            self.make_room();
            let room = self.buffer.get_mut(self.end..self.end + CHUNK).unwrap_or_default();
            match self.input.read(room) {
                Ok(0) => self.at_end = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Fault::Io(error))),
            }
        }
        Ok(())
    }

    /// Makes room behind what is waiting.
    fn make_room(&mut self) {
        let left = self.end - self.begin;
        if left > 0 && self.buffer.len() - self.end >= CHUNK {
            return;
        }
        if self.buffer.is_empty() {
            self.buffer.resize(2 * (CHUNK + PAGE), 0);
        }
        let first = self.buffer.as_ptr().align_offset(PAGE).min(PAGE);
        // The first border before which there is room for what is left.
        let border = first + left.saturating_sub(first).next_multiple_of(PAGE);
        if left == 0 || self.begin > border {
            self.buffer.copy_within(self.begin..self.end, border - left);
            (self.begin, self.end) = (border - left, border);
        }
        if self.buffer.len() - self.end < CHUNK {
            self.buffer.resize(self.end + CHUNK, 0);
        }
    }

    fn error(&self, fault: Fault) -> Error {
        Error { file: self.file.clone(), position: self.offset, fault }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Goes to `position`, where an event should begin, without reading what is before it.
    pub fn seek_to(&mut self, position: u64) -> Result<(), Error> {
        if position.checked_sub(self.offset).is_some_and(|ahead| ahead < CHUNK as u64) {
            return self.skip_to(position);
        }
        self.input.seek(SeekFrom::Start(position)).map_err(|e| self.error(Fault::Io(e)))?;
        (self.begin, self.end, self.at_end) = (0, 0, false);
        self.offset = position.max(FIRST_EVENT);
        Ok(())
    }
}

/// The checksum that an event should have: that of its bytes, without the mark of an open file.
pub fn checksum_of(event: &[u8]) -> u32 {
    let covered = event.len().saturating_sub(CHECKSUM_LEN);
    let covered = event.get(..covered).unwrap_or_default();
    let in_use = flag::IN_USE as u8;
    match covered.split_at_checked(at::FLAGS) {
        Some((front, [flags, rest @ ..]))
            if front[at::TYPE] == EventType::FORMAT_DESCRIPTION.0 && flags & in_use != 0 =>
        {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(front);
            hasher.update(&[flags & !in_use]);
            hasher.update(rest);
            hasher.finalize()
        }
        _ => crc32fast::hash(covered),
    }
}

/// Whether decrypted bytes can be the event at an offset.
fn is_plausible(event: &[u8], offset: u64, checksum: Checksum) -> bool {
    let Ok(event) = Event::parse(event, offset, checksum) else { return false };
    match event.checksum {
        Some(stored) => stored == checksum_of(event.bytes),
        // The positions of encrypted logs are always the real ones.
        None => {
            event.header.kind.name().is_some() && event.header.end_position == event.end() as u32
        }
    }
}

#[cfg(test)]
mod tests;
