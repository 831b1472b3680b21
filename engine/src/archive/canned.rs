//! Logs that tests make up, event by event, and repositories that have them.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use binlog::event::rows::stamp;
use binlog::format::{Checksum, FIRST_EVENT};
use binlog::header::{CHECKSUM_LEN, HEADER_LEN};
use binlog::{Event, EventType, Gtid, GtidState};

use super::layout::{Epoch, identity, number_of};
use super::writer::Writer;
use crate::Cancel;
use crate::repo::Repository;
use crate::report::Silent;
use crate::store::{FolderStore, StoreOptions};

/// A new repository, and where it is.
pub fn repository() -> (tempfile::TempDir, Repository) {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderStore::open(dir.path(), &StoreOptions::default(), Arc::new(Silent)).unwrap();
    let repository = Repository::create(Arc::new(store), None, &Cancel::new()).unwrap();
    (dir, repository)
}

/// A file of a binary log that is being made up.
#[derive(Clone)]
pub struct Canned {
    server: u32,
    created: u32,
    time: u32,
    name: String,
    end: u64,
    /// Its events.
    pub events: Vec<Vec<u8>>,
}

impl Canned {
    /// A file of a server that begins at a time, after this was logged.
    pub fn new(server: u32, time: u32, name: &str, before: &str) -> Self {
        let before: GtidState = before.parse().unwrap();
        let mut file = Self {
            server,
            created: time,
            time,
            name: name.to_owned(),
            end: FIRST_EVENT,
            events: Vec::new(),
        };
        let mut version = [0; 50];
        version[..15].copy_from_slice(b"10.11.1-MariaDB");
        let created = [&4_u16.to_le_bytes()[..], &version, &[0; 4], &[HEADER_LEN as u8]].concat();
        // Lengths by type, and that all have a checksum.
        file.add(EventType::FORMAT_DESCRIPTION, &[&created[..], &[0; 171], &[1]].concat());
        let mut list = (before.entries().len() as u32).to_le_bytes().to_vec();
        for gtid in before.entries() {
            list.extend(gtid.domain.to_le_bytes());
            list.extend(gtid.server.to_le_bytes());
            list.extend(gtid.sequence.to_le_bytes());
        }
        file.add(EventType::GTID_LIST, &list);
        file
    }

    /// An event; where it ends.
    pub fn add(&mut self, kind: EventType, body: &[u8]) -> u64 {
        self.add_of(self.server, kind, body)
    }

    fn add_of(&mut self, server: u32, kind: EventType, body: &[u8]) -> u64 {
        let length = HEADER_LEN + body.len() + CHECKSUM_LEN;
        self.end += length as u64;
        let mut event = self.time.to_le_bytes().to_vec();
        event.push(kind.0);
        event.extend(server.to_le_bytes());
        event.extend((length as u32).to_le_bytes());
        event.extend((self.end as u32).to_le_bytes());
        event.extend([0; 2]);
        event.extend(body);
        event.resize(length, 0);
        stamp(&mut event, true);
        self.events.push(event);
        self.end
    }

    /// A transaction begins.
    pub fn begin(&mut self, gtid: &str) -> u64 {
        let gtid: Gtid = gtid.parse().unwrap();
        let body = [&gtid.sequence.to_le_bytes()[..], &gtid.domain.to_le_bytes(), &[0; 7]].concat();
        self.add_of(gtid.server, EventType::GTID, &body)
    }

    /// A statement.
    pub fn statement(&mut self, text: &str) -> u64 {
        let body = [&[0; 8][..], &[1], &[0; 4], b"d\0", text.as_bytes()].concat();
        self.add(EventType::QUERY, &body)
    }

    /// A transaction ends.
    pub fn commit(&mut self) -> u64 {
        self.add(EventType::XID, &[0; 8])
    }

    /// Transactions of these numbers, at a second that each number has for itself.
    pub fn transactions(mut self, gtids: &[&str]) -> Self {
        for gtid in gtids {
            let sequence = gtid.parse::<Gtid>().unwrap().sequence;
            self.time = self.created + sequence as u32;
            self.begin(gtid);
            self.statement("INSERT INTO t VALUES (1)");
            self.commit();
        }
        self
    }

    /// From now on transactions are of later seconds. The file itself was begun then, too.
    pub fn begun(mut self, created: u32) -> Self {
        self.created = created;
        let time = created.to_le_bytes();
        self.events[0][..4].copy_from_slice(&time);
        stamp(&mut self.events[0], true);
        self
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        [&binlog::format::MAGIC[..], &self.events.concat()].concat()
    }

    /// Archives it, in a row of files that began with this one if no other is named; which one it is.
    pub fn store(&self, repository: &Repository, epoch: Option<&Epoch>) -> Epoch {
        let list = Event::parse(&self.events[1], FIRST_EVENT, Checksum::Crc32).unwrap();
        let identity = identity(&self.events[0], list.body(), &self.name);
        let epoch = epoch.cloned().unwrap_or_else(|| Epoch::new(self.created, &identity));
        let number = number_of(&self.name).unwrap();
        let mut writer = Writer::new(&self.name, number, Some(epoch.clone())).unwrap();
        writer.magic().unwrap();
        let (mut offset, cancel) = (FIRST_EVENT, Cancel::new());
        for bytes in &self.events {
            let event = Event::parse(bytes, offset, Checksum::Crc32).unwrap();
            writer.event(&event, repository, &cancel).unwrap();
            offset = event.end();
        }
        writer.cut(repository, &cancel).unwrap();
        epoch
    }
}
