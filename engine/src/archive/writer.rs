//! From events of a file to parts in the store.
//!
//! A part ends between transactions: what has come of one that has not ended waits beside the part that is
//! being made, so that all before it can be stored at any time. Only of one that is long its bytes go into
//! the part as they come.

use binlog::event::rows::stamp;
use binlog::format::{FIRST_EVENT, MAGIC};
use binlog::header::{at, flag};
use binlog::{EventType, Fault, GtidState};

use super::layout::Epoch;
use super::part::{About, Builder, Part};
use super::scan::{Place, Scanner};
use super::unreadable;
use crate::repo::Repository;
use crate::{Cancel, Error, ErrorKind, Result};

/// Bytes of the log after which a part ends, as soon as a transaction does.
pub(super) const PART_LEN: u64 = 64 << 20;
/// Bytes of the index after which it does, likewise.
const INDEX_LEN: usize = 24 << 20;
/// Bytes of a transaction after which it is a long one.
const OPEN_MAX: usize = 1 << 20;

/// Makes parts of the events of one file.
pub(super) struct Writer {
    /// Follows the file.
    pub scanner: Scanner,
    builder: Builder,
    name: String,
    number: u64,
    epoch: Option<Epoch>,
    /// Where the part begins, and what was logged before it.
    begin: u64,
    before: GtidState,
    /// Where the next event is expected.
    end: u64,
    /// Where the last whole transaction ended, or what is between transactions.
    whole: u64,
    place: Place,
    /// What has come of a transaction that has not ended.
    open: Vec<u8>,
    /// Whether that is a long one, whose bytes go into the part.
    is_long: bool,
    changed: Vec<u8>,
}

impl Writer {
    /// Of a file, from its beginning. Nothing is stored before it is known where it belongs.
    pub fn new(name: &str, number: u64, epoch: Option<Epoch>) -> Result<Self> {
        Ok(Self {
            scanner: Scanner::new(name),
            builder: Builder::new()?,
            name: name.to_owned(),
            number,
            epoch,
            begin: 0,
            before: GtidState::default(),
            end: 0,
            whole: 0,
            place: Place::Between,
            open: Vec::new(),
            is_long: false,
            changed: Vec::new(),
        })
    }

    /// What is before the first event.
    pub fn magic(&mut self) -> Result<()> {
        (self.end, self.whole) = (FIRST_EVENT, FIRST_EVENT);
        self.builder.add(&MAGIC)
    }

    /// Goes past an event at the beginning of the file that is stored.
    pub fn pass(&mut self, event: &binlog::Event<'_>) -> Result<()> {
        let passed = self.scanner.event(event);
        passed.map(drop).map_err(|fault| self.unreadable(event.offset, fault))
    }

    /// Goes on at an offset before which this was logged.
    pub fn resume(&mut self, offset: u64, state: GtidState) {
        self.scanner.resume(state.clone());
        (self.begin, self.end, self.whole) = (offset, offset, offset);
        self.before = state;
    }

    /// Adds an event; the part that it filled, which was stored.
    pub fn event(
        &mut self,
        event: &binlog::Event<'_>,
        repository: &Repository,
        cancel: &Cancel,
    ) -> Result<Option<Part>> {
        if event.offset != self.end {
            return Err(Error::new(
                ErrorKind::Damage,
                format!("{}: an event is at {} instead of {}", self.name, event.offset, self.end),
            ));
        }
        let place = self.scanner.event(event);
        self.place = place.map_err(|fault| self.unreadable(event.offset, fault))?;
        let encrypts = event.header.kind == EventType::START_ENCRYPTION;
        if encrypts && !event.header.has(flag::IGNORABLE) {
            // What follows is not encrypted any more: the event is as servers send it to replicas.
            self.changed.clear();
            self.changed.extend_from_slice(event.bytes);
            if let Some(flags) = self.changed.get_mut(at::FLAGS) {
                *flags |= flag::IGNORABLE as u8;
            }
            stamp(&mut self.changed, event.checksum.is_some());
            let changed = std::mem::take(&mut self.changed);
            self.add(&changed)?;
            self.changed = changed;
        } else {
            self.add(event.bytes)?;
        }
        self.end = event.end();
        if self.place == Place::Between {
            self.whole = self.end;
        }
        if self.begin == 0 && event.header.kind == EventType::GTID_LIST {
            self.before = self.scanner.state().clone();
        }
        let long = self.builder.len() >= PART_LEN || self.scanner.weight() >= INDEX_LEN;
        let too_long = self.builder.len() >= 2 * PART_LEN;
        match long && self.place == Place::Between || too_long {
            true => self.cut(repository, cancel),
            false => Ok(None),
        }
    }

    /// Adds the bytes of an event, which is followed already.
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        if self.place == Place::Within && !self.is_long {
            if !self.fills(bytes.len()) {
                self.open.extend_from_slice(bytes);
                return Ok(());
            }
            self.is_long = true;
        }
        if !self.open.is_empty() {
            self.builder.add(&self.open)?;
            self.open.clear();
        }
        self.is_long &= self.place == Place::Within;
        self.builder.add(bytes)
    }

    /// Whether an event of so many bytes would make the transaction that has not ended a long one. What is
    /// before it cannot be stored without it from then on.
    pub fn fills(&self, length: usize) -> bool {
        !self.is_long && self.open.len() + length > OPEN_MAX
    }

    /// Says where it belongs.
    pub fn belongs_to(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
    }

    /// Leaves out what has come, and goes on at an offset before which this was logged.
    pub fn discard(&mut self, offset: u64, state: GtidState) -> Result<()> {
        self.builder = Builder::new()?;
        self.open.clear();
        self.scanner.take_index();
        self.resume(offset, state);
        Ok(())
    }

    /// Whether it is within a transaction that is long: what would be stored does not end between two.
    pub fn is_long(&self) -> bool {
        self.is_long
    }

    /// Whether it is within a transaction.
    pub fn is_open(&self) -> bool {
        self.place == Place::Within
    }

    /// Bytes that are not stored.
    pub fn waiting(&self) -> u64 {
        self.builder.len() + self.open.len() as u64
    }

    /// Up to where all is stored.
    pub fn stored(&self) -> u64 {
        self.begin
    }

    /// Stores what has come since the last time, up to the end of the last whole transaction; within a
    /// long one all of it.
    pub fn cut(&mut self, repository: &Repository, cancel: &Cancel) -> Result<Option<Part>> {
        let beginning = self.scanner.beginning().filter(|_| !self.builder.is_empty());
        let (Some(beginning), Some(epoch)) = (beginning, &self.epoch) else {
            return Ok(None);
        };
        // Of a transaction that has not ended it knows nothing yet.
        let after = self.scanner.state().clone();
        let end = if self.is_long { self.end } else { self.whole };
        let about = About {
            server: beginning.server,
            epoch: epoch.clone(),
            file: self.name.clone(),
            number: self.number,
            identity: beginning.identity.clone(),
            server_version: beginning.version.clone(),
            created: beginning.time,
            begin: self.begin,
            end,
            whole: !self.is_long,
            before: std::mem::replace(&mut self.before, after.clone()),
            after,
            ending: self.scanner.ending().cloned(),
        };
        let index = self.scanner.take_index();
        let built = self.builder.finish(repository, about, &index)?;
        built.put(repository, cancel)?;
        self.begin = end;
        Ok(Some(built.into_part()))
    }

    fn unreadable(&self, position: u64, fault: Fault) -> Error {
        unreadable(binlog::Error { file: self.name.clone(), position, fault })
    }
}
