//! From events of a file to parts in the store.

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
    place: Place,
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
            place: Place::Between,
            changed: Vec::new(),
        })
    }

    /// What is before the first event.
    pub fn magic(&mut self) -> Result<()> {
        self.end = FIRST_EVENT;
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
        (self.begin, self.end, self.before) = (offset, offset, state);
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
            self.builder.add(&self.changed)?;
        } else {
            self.builder.add(event.bytes)?;
        }
        self.end = event.end();
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

    /// Says where it belongs.
    pub fn belongs_to(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
    }

    /// Leaves out what has come, and goes on at an offset before which this was logged.
    pub fn discard(&mut self, offset: u64, state: GtidState) -> Result<()> {
        self.builder = Builder::new()?;
        self.scanner.take_index();
        self.resume(offset, state);
        Ok(())
    }

    /// Whether it is between transactions.
    pub fn is_between(&self) -> bool {
        self.place == Place::Between
    }

    /// Bytes that are not stored.
    pub fn waiting(&self) -> u64 {
        self.builder.len()
    }

    /// Stores what has come since the last time.
    pub fn cut(&mut self, repository: &Repository, cancel: &Cancel) -> Result<Option<Part>> {
        let beginning = self.scanner.beginning().filter(|_| !self.builder.is_empty());
        let (Some(beginning), Some(epoch)) = (beginning, &self.epoch) else {
            return Ok(None);
        };
        let after = self.scanner.state().clone();
        let about = About {
            server: beginning.server,
            epoch: epoch.clone(),
            file: self.name.clone(),
            number: self.number,
            identity: beginning.identity.clone(),
            server_version: beginning.version.clone(),
            created: beginning.time,
            begin: self.begin,
            end: self.end,
            whole: self.place == Place::Between,
            before: std::mem::replace(&mut self.before, after.clone()),
            after,
            ending: self.scanner.ending().cloned(),
        };
        self.begin = self.end;
        let index = self.scanner.take_index();
        let built = self.builder.finish(repository, about, &index)?;
        built.put(repository, cancel)?;
        Ok(Some(built.into_part()))
    }

    fn unreadable(&self, position: u64, fault: Fault) -> Error {
        unreadable(binlog::Error { file: self.name.clone(), position, fault })
    }
}
