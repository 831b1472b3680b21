//! The connection of a replica: a server sends its binary log as it is written.
//!
//! Over a connection of its own: a few statements that have no result, and the log, with the events that
//! name statements, without which it is not the one on disk.
//!
//! Every read has a deadline; memory is bounded by the longest event that servers allow.

use std::time::Duration;

use binlog::reader::EVENT_MAX;

use super::connect::ConnectOptions;
use super::failure::{Failure, ServerError, connect_error};
pub use super::wire::GLANCE;
use super::wire::{CHUNK, PACKET_FULL, Wire, answer, capability, command, refused};
use crate::{Cancel, Error, ErrorKind, Result};

/// Flags of a dump.
mod dump_flag {
    /// End where the log ends.
    pub const NON_BLOCK: u16 = 1;
    /// Send the events that name statements.
    pub const ANNOTATE: u16 = 2;
}

/// What came.
#[derive(Debug)]
pub enum Came {
    /// An event, and whether the server waits until it is safe.
    Event(Vec<u8>, bool),
    /// Nothing within a tenth of a second.
    Nothing,
    /// The server has no more.
    End,
}

/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`, which has one number for many things.
const FATAL: u16 = 1236;

/// Whether a server says that its list of logs does not have the file. It says so in English always.
fn is_absent(error: &ServerError) -> bool {
    error.code == FATAL && error.message.contains("Could not find first log file name")
}

/// A connection that the log comes over.
pub struct Source {
    wire: Wire,
    semi_sync: bool,
    /// The part of an event that came in packets before.
    event: Vec<u8>,
}

/// What is wanted of a server.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The `server_id` of this replica; 0 is none.
    pub server_id: u32,
    /// The file to begin with.
    pub file: &'a str,
    /// Whether the server is told of this replica before it asks.
    pub registers: bool,
    /// Where in it, at an event.
    pub position: u32,
    /// Position of a replica that asks for what follows it, by GTID instead of by file.
    pub gtids: Option<&'a str>,
    /// Whether to wait for what is yet to be written.
    pub waits: bool,
    /// Whether events that name statements are wanted.
    pub annotations: bool,
    /// How the first event is checked, as an expression; the others are as they are in their files.
    pub checksum: &'a str,
    /// How often the server shows that it lives.
    pub heartbeat: Duration,
    /// Whether it is to wait for acknowledgements.
    pub semi_sync: bool,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            server_id: 0,
            file: "",
            registers: true,
            position: binlog::format::FIRST_EVENT as u32,
            gtids: None,
            waits: true,
            annotations: true,
            checksum: "@@global.binlog_checksum",
            heartbeat: Duration::ZERO,
            semi_sync: false,
        }
    }
}

impl Source {
    /// Logs in and asks for the log.
    pub fn open(options: &ConnectOptions, wanted: &Wanted<'_>) -> Result<Self> {
        let wire = Wire::connect(options, capability::BASE, &Cancel::new())
            .map_err(|failure| connect_error(failure, options, &options.endpoint()))?;
        let mut source = Self { wire, semi_sync: false, event: Vec::new() };
        source.ask(wanted)?;
        Ok(source)
    }

    /// Says what kind of replica this is, and asks for the log.
    fn ask(&mut self, wanted: &Wanted<'_>) -> Result<()> {
        let checksum = wanted.checksum;
        let mut statements = vec![
            format!("SET @master_binlog_checksum = {checksum}"),
            "SET @mariadb_slave_capability = 4".to_owned(),
        ];
        if !wanted.heartbeat.is_zero() {
            let heartbeat = wanted.heartbeat.as_nanos();
            statements.push(format!("SET @master_heartbeat_period = {heartbeat}"));
        }
        if let Some(gtids) = wanted.gtids {
            statements.push(format!("SET @slave_connect_state = '{gtids}'"));
        }
        if wanted.semi_sync {
            statements.push("SET @rpl_semi_sync_slave = 1".to_owned());
        }
        for statement in statements {
            let done = self.wire.command(command::QUERY, statement.as_bytes());
            done.map_err(|failure| Error::from(failure).context(statement))?;
        }
        let id = wanted.server_id.to_le_bytes();
        if wanted.registers {
            let mut register = id.to_vec();
            // No host, user, password and port; no rank, no source.
            register.extend([0; 3 + 2 + 4 + 4]);
            let registered = self.wire.command(command::REGISTER_SLAVE, &register);
            registered.map_err(|failure| Error::from(failure).context("register as a replica"))?;
        }
        let mut flags = 0;
        flags |= if wanted.waits { 0 } else { dump_flag::NON_BLOCK };
        flags |= if wanted.annotations { dump_flag::ANNOTATE } else { 0 };
        let mut dump = wanted.position.to_le_bytes().to_vec();
        dump.extend(flags.to_le_bytes());
        dump.extend(id);
        dump.extend(wanted.file.as_bytes());
        self.semi_sync = wanted.semi_sync;
        Ok(self.wire.request(command::BINLOG_DUMP, &dump)?)
    }

    /// The next event.
    pub fn receive(&mut self) -> Result<Came> {
        Ok(self.next()?)
    }

    /// The next event; `None` if the server does not have the file that was asked for.
    pub fn receive_if_there(&mut self) -> Result<Option<Came>> {
        match self.next() {
            Err(Failure::Server(error)) if is_absent(&error) => Ok(None),
            came => Ok(Some(came?)),
        }
    }

    fn next(&mut self) -> Result<Came, Failure> {
        loop {
            let Some(packet) = self.wire.packet()? else { return Ok(Came::Nothing) };
            let full = packet.len() == PACKET_FULL;
            if self.event.is_empty() {
                match packet.first() {
                    Some(&answer::OK) => {}
                    Some(&answer::END) if packet.len() < 9 => return Ok(Came::End),
                    _ => return Err(refused(&packet)),
                }
            }
            if self.event.len() + packet.len() > EVENT_MAX as usize + CHUNK {
                let message = "an event is longer than any may be";
                return Err(Error::new(ErrorKind::Damage, message).into());
            }
            self.event.extend_from_slice(&packet);
            if full {
                continue;
            }
            let mut event = std::mem::take(&mut self.event);
            let mut front = 1;
            let mut waits = false;
            if self.semi_sync && event.get(1) == Some(&answer::SEMI_SYNC) {
                waits = event.get(2).is_some_and(|flags| flags & 1 != 0);
                front = 3;
            }
            event.drain(..front.min(event.len()));
            return Ok(Came::Event(event, waits));
        }
    }

    /// Bytes that have come: a long event shows by them that the connection lives.
    pub fn received(&self) -> u64 {
        self.wire.received()
    }

    /// Whether more has come already.
    pub fn has_more(&self) -> bool {
        self.wire.has_more()
    }

    /// Tells the server that all up to here is safe.
    pub fn acknowledge(&mut self, file: &str, position: u64) -> Result<()> {
        let ack = [&position.to_le_bytes(), file.as_bytes()].concat();
        Ok(self.wire.request(answer::SEMI_SYNC, &ack)?)
    }
}
