//! What a replica is sent: each log with what precedes it in a stream, up to the cut.

use std::sync::atomic::Ordering;
use std::time::Instant;

use binlog::event::rows::stamp;
use binlog::event::{GtidEvent, GtidList};
use binlog::format::{Checksum, FIRST_EVENT};
use binlog::header::{CHECKSUM_LEN, HEADER_LEN, at, flag};
use binlog::{Event, EventType, Gtid, GtidPosition, GtidState, Reader};

use super::wire::Wire;
use super::{INTERVAL, Replica, Wishes};
use crate::archive::plan::Skipper;
use crate::archive::unreadable;
use crate::replay::source::{Log, malformed, reading};
use crate::replay::state::State;
use crate::{Error, ErrorKind, Result};

/// The capability that replicas need for GTIDs.
const GTIDS: u32 = 4;
/// The server's error for a replica that cannot be served.
const CANNOT_DUMP: u16 = 1236;
/// Offset of `created` in the event that describes a log.
const CREATED_AT: usize = HEADER_LEN + 52;

/// Whether everything that a log is preceded by is in a position.
fn begins_by(before: &[Gtid], position: &GtidPosition) -> bool {
    let newest = State::of(before);
    before.iter().all(|gtid| {
        position.get(gtid.domain).is_some_and(|there| {
            there.server != gtid.server
                || there.sequence > gtid.sequence
                || (there.sequence == gtid.sequence && newest.newest(gtid.domain) == Some(*gtid))
        })
    })
}

fn lost(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Server, "the connection is broken").caused_by(cause)
}

impl Replica<'_> {
    /// Sends what the replica does not have, then waits until it leaves.
    pub(super) fn dump(&self, wire: &mut Wire, wishes: &Wishes) -> Result<()> {
        match self.stream(wire, wishes) {
            Ok(()) => Ok(()),
            Err(error) => {
                // The replica shows it, and nothing else.
                let _ = wire.error(CANNOT_DUMP, &error.with_advice());
                Err(error)
            }
        }
    }

    fn stream(&self, wire: &mut Wire, wishes: &Wishes) -> Result<()> {
        let refuse = |words: &str, advice: &str| {
            Err(Error::new(ErrorKind::Usage, words).advise(advice.to_owned()))
        };
        let Some(from) = &wishes.from else {
            return refuse(
                "the replica asks by file and position",
                "CHANGE MASTER TO … MASTER_USE_GTID=slave_pos",
            );
        };
        if wishes.capability < GTIDS || !wishes.checksums {
            return refuse(
                "the replica does not understand GTIDs or checksums",
                "use MariaDB 10.5 or later",
            );
        }
        if wishes.until {
            return refuse(
                "START SLAVE UNTIL is not served: the logs end at the target themselves",
                "give the target to haulout binlog serve",
            );
        }
        let position: GtidPosition = from.parse().map_err(|cause| {
            Error::new(ErrorKind::Usage, format!("the replica's position '{from}'"))
                .caused_by(cause)
        })?;
        let in_logs = |gtid: &Gtid| self.cut.state.has(*gtid) || self.filter.contains(gtid);
        let is_known = |gtid: &Gtid| self.cut.state.newest(gtid.domain).is_some();
        if let Some(gtid) = position.iter().find(|gtid| is_known(gtid) && !in_logs(gtid)) {
            return Err(self.unknown(gtid));
        }
        let logs = self.source.logs();
        let first =
            logs.iter().rposition(|log| begins_by(&log.before, &position)).ok_or_else(|| {
                let first = logs.first().map(|log| State::of(&log.before)).unwrap_or_default();
                Error::new(
                    ErrorKind::Gap,
                    format!("the logs begin after {first}, and the replica has '{position}'"),
                )
            })?;
        let mut has = Skipper::default();
        let mut state = State::default();
        self.served.fetch_add(1, Ordering::Relaxed);
        self.reporter.info(format!("a replica has '{position}' and is sent what follows"));
        let mut checksum = Checksum::Crc32;
        let mut sent = (String::new(), FIRST_EVENT);
        for (index, log) in logs.iter().enumerate().skip(first) {
            if index > self.cut.place.log {
                break;
            }
            // Of a log of another server, what the one before has was sent already.
            let there = match index == first {
                true => Some(position.clone()),
                false => log.enters.then(|| state.position()),
            };
            if let Some(there) = there {
                if let Some(gtid) = has.awaited() {
                    return Err(self.unknown(gtid));
                }
                let before = GtidState::new(log.before.clone()).unwrap_or_default();
                has = Skipper::new(&there, &before);
            }
            if index == first || !log.enters {
                state = State::of(&log.before);
            }
            let resumes = index == first && !has.is_done();
            let history = (&mut has, &mut state);
            checksum = self.log(wire, (index, log), (resumes, checksum), history, &mut sent)?;
        }
        if let Some(gtid) = has.awaited() {
            return Err(self.unknown(gtid));
        }
        wire.flush().map_err(lost)?;
        self.reporter.info(format!("everything is sent, up to {}", self.cut.state));
        self.idle(wire, wishes, checksum, &sent)
    }

    /// What follows a transaction that is not in the logs cannot be told.
    fn unknown(&self, gtid: Gtid) -> Error {
        let state = &self.cut.state;
        let message =
            format!("the replica has {gtid}, which is not in the logs: they go to '{state}'");
        Error::new(ErrorKind::Gap, message).advise(
            "it was written on the replica, comes from other servers, or is behind the target; set \
             gtid_slave_pos to the position of the backup that the replica was restored from",
        )
    }

    /// Sends one log; returns how events are checked now.
    fn log(
        &self,
        wire: &mut Wire,
        (index, log): (usize, &Log),
        (resumes, mut checksum): (bool, Checksum),
        (has, state): (&mut Skipper, &mut State),
        sent: &mut (String, u64),
    ) -> Result<Checksum> {
        let server = self.server_id();
        sent.0.clone_from(&log.name);
        let mut body = FIRST_EVENT.to_le_bytes().to_vec();
        body.extend_from_slice(log.name.as_bytes());
        let rotate = artificial(EventType::ROTATE, server, (0, flag::ARTIFICIAL), &body, checksum);
        wire.send(&[&[0], &rotate]).map_err(lost)?;
        let input = self.source.open(index)?;
        let read = reading(self.keys.as_ref());
        let mut reader = Reader::new(input, log.name.clone(), read).map_err(unreadable)?;
        let end = self.cut.ends.get(index).copied().unwrap_or(u64::MAX);
        let mut left_out = false;
        // What was left out last, and not said yet.
        let mut silent = false;
        let mut events = 0_u32;
        while reader.offset() < end {
            let Some(event) = reader.next_event().map_err(unreadable)? else { break };
            events = events.wrapping_add(1);
            if events.is_multiple_of(1024) {
                self.cancel.check()?;
            }
            let kind = event.header.kind;
            match kind {
                EventType::FORMAT_DESCRIPTION => {
                    let bytes = described(&event, resumes);
                    let format = binlog::format::FormatDescription::parse(&bytes)
                        .map_err(|what| malformed(&log.name, &event, what))?;
                    checksum = format.checksum;
                    wire.send(&[&[0], &bytes]).map_err(lost)?;
                    sent.1 = event.end();
                    continue;
                }
                // What follows is decrypted.
                EventType::START_ENCRYPTION => continue,
                EventType::GTID => {
                    let gtid = GtidEvent::parse(event.body(), event.header.server_id)
                        .map_err(|what| malformed(&log.name, &event, what))?
                        .gtid;
                    let passed = has.leaves_out(gtid);
                    left_out = passed || self.filter.contains(&gtid);
                    if silent && !left_out {
                        let list = list(state);
                        let place = (event.offset as u32, flag::ARTIFICIAL);
                        let list = artificial(EventType::GTID_LIST, server, place, &list, checksum);
                        wire.send(&[&[0], &list]).map_err(lost)?;
                        silent = false;
                    }
                    if !(passed && state.has(gtid)) {
                        state.add(gtid);
                    }
                }
                EventType::GTID_LIST => {
                    GtidList::parse(event.body())
                        .map_err(|what| malformed(&log.name, &event, what))?;
                    left_out = false;
                }
                EventType::ROTATE | EventType::STOP | EventType::BINLOG_CHECKPOINT => {
                    left_out = false
                }
                _ => {}
            }
            sent.1 = event.end();
            if left_out {
                silent = true;
                continue;
            }
            wire.send(&[&[0], event.bytes]).map_err(lost)?;
        }
        Ok(checksum)
    }

    /// Shows that the connection lives until the replica leaves.
    fn idle(
        &self,
        wire: &mut Wire,
        wishes: &Wishes,
        checksum: Checksum,
        (file, offset): &(String, u64),
    ) -> Result<()> {
        let mut last = Instant::now();
        while !wire.is_closed() {
            self.cancel.check()?;
            std::thread::sleep(INTERVAL);
            if wishes.heartbeat.is_some_and(|period| last.elapsed() >= period) {
                last = Instant::now();
                let beat = artificial(
                    EventType::HEARTBEAT,
                    self.server_id(),
                    (*offset as u32, 0),
                    file.as_bytes(),
                    checksum,
                );
                wire.send(&[&[0], &beat]).and_then(|()| wire.flush()).map_err(lost)?;
            }
        }
        Ok(())
    }
}

/// The description of a log as a replica is sent it: of a file that is closed, and if the replica has
/// its beginning, of one that does not begin a server's life.
fn described(event: &Event<'_>, resumes: bool) -> Vec<u8> {
    let mut bytes = event.bytes.to_vec();
    if let Some(flags) = bytes.get_mut(at::FLAGS) {
        *flags &= !(flag::IN_USE as u8);
    }
    if resumes && let Some(created) = bytes.get_mut(CREATED_AT..CREATED_AT + 4) {
        created.fill(0);
    }
    stamp(&mut bytes, true);
    bytes
}

/// The body of a list of GTIDs.
fn list(state: &State) -> Vec<u8> {
    let entries: binlog::GtidState = state.to_string().parse().unwrap_or_default();
    let entries = entries.entries();
    let mut body = (entries.len() as u32).to_le_bytes().to_vec();
    for gtid in entries {
        body.extend_from_slice(&gtid.domain.to_le_bytes());
        body.extend_from_slice(&gtid.server.to_le_bytes());
        body.extend_from_slice(&gtid.sequence.to_le_bytes());
    }
    if entries.is_empty() {
        body.extend_from_slice(&[0, 0]);
    }
    body
}

/// An event that is in no file.
fn artificial(
    kind: EventType,
    server: u32,
    (position, flags): (u32, u16),
    body: &[u8],
    checksum: Checksum,
) -> Vec<u8> {
    let has_checksum = checksum == Checksum::Crc32;
    let length = HEADER_LEN + body.len() + if has_checksum { CHECKSUM_LEN } else { 0 };
    let mut event = Vec::with_capacity(length);
    event.extend_from_slice(&[0; 4]);
    event.push(kind.0);
    event.extend_from_slice(&server.to_le_bytes());
    event.extend_from_slice(&(length as u32).to_le_bytes());
    event.extend_from_slice(&position.to_le_bytes());
    event.extend_from_slice(&flags.to_le_bytes());
    event.extend_from_slice(body);
    event.resize(length, 0);
    stamp(&mut event, has_checksum);
    event
}
