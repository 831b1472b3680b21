//! Events as a server sends them: which of them are in its files, and how a file begins.

use std::time::{Duration, Instant};

use binlog::event::Rotate;
use binlog::format::{Checksum, FIRST_EVENT, FormatDescription};
use binlog::header::{CHECKSUM_LEN, HEADER_LEN, Header, at, flag};
use binlog::reader::checksum_of;
use binlog::{Event, EventType};

use crate::server::ConnectOptions;
use crate::server::feed::{Came, Source, Wanted};
use crate::{Error, ErrorKind, Result};

/// How long a server may take to send how a file begins.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a file of a server begins.
pub(super) struct Identified {
    /// What it is called.
    pub name: String,
    /// Who wrote it.
    pub server: u32,
    /// What was logged before it.
    pub before: binlog::GtidState,
    /// Tells it from others.
    pub identity: String,
}

/// Asks a server how one of its files begins, the first one if no name is said; `None` if it is not there.
pub(super) fn identify(
    connect: &ConnectOptions,
    wanted: &Wanted<'_>,
    name: &str,
) -> Result<Option<Identified>> {
    // The server must not hold the file for long.
    let wanted = Wanted { file: name, waits: false, ..wanted.clone() };
    let mut source = Source::open(connect, &wanted)?;
    let mut scanner: Option<super::scan::Scanner> = None;
    let mut position = FIRST_EVENT;
    let mut checksum = Checksum::None;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let mut bytes = match source.receive_if_there()? {
            Some(Came::Event(bytes, _)) => bytes,
            Some(Came::Nothing) => continue,
            Some(Came::End) => break,
            None => return Ok(None),
        };
        if let Some((file, _)) = begins(&bytes)? {
            if scanner.is_some() {
                // Another file, and this one has not said enough.
                break;
            }
            scanner = Some(super::scan::Scanner::new(&file));
        }
        let Some(event) = as_in_file(&mut bytes, position, &mut checksum)? else { continue };
        position = event.end();
        let scanner = scanner.as_mut().ok_or_else(nameless)?;
        if let Err(fault) = scanner.event(&event) {
            return Err(unreadable(scanner.file(), event.offset, fault));
        }
        if let Some(beginning) = scanner.beginning() {
            return Ok(Some(Identified {
                name: scanner.file().to_owned(),
                server: beginning.server,
                before: scanner.state().clone(),
                identity: beginning.identity.clone(),
            }));
        }
    }
    let name = if name.is_empty() { "its first log" } else { name };
    Err(Error::new(ErrorKind::Timeout, format!("the server does not send how {name} begins")))
}

/// If the event says that a file begins, which is in no file: the file's name, and the place in it.
pub(super) fn begins(event: &[u8]) -> Result<Option<(String, u64)>> {
    let header = Header::parse(event).map_err(|what| sent(what.to_string()))?;
    if header.kind != EventType::ROTATE || !header.has(flag::ARTIFICIAL) {
        return Ok(None);
    }
    // Whether it has a checksum is said by nothing that has come before the first one.
    let stored = event.last_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let tail = if stored == Some(checksum_of(event)) { CHECKSUM_LEN } else { 0 };
    let body = event.get(HEADER_LEN..event.len() - tail).unwrap_or_default();
    let rotate = Rotate::parse(body).map_err(|what| sent(what.to_string()))?;
    let name = String::from_utf8_lossy(rotate.file).trim_end_matches('\0').to_owned();
    Ok(Some((name, rotate.position)))
}

/// What came cannot be.
pub(super) fn sent(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Damage, format!("the server sent {what}"))
}

/// An event of no file.
pub(super) fn nameless() -> Error {
    sent("no name of a file")
}

/// The event as it is in the file; `None` if it is in none.
pub(super) fn as_in_file<'a>(
    bytes: &'a mut [u8],
    position: u64,
    checksum: &mut Checksum,
) -> Result<Option<Event<'a>>> {
    let damaged = |what: String| {
        Error::new(ErrorKind::Damage, format!("the server sent {what} at {position}"))
    };
    let header = Header::parse(bytes).map_err(|what| damaged(what.to_string()))?;
    if header.has(flag::ARTIFICIAL) || header.kind == EventType::HEARTBEAT {
        return Ok(None);
    }
    if header.kind == EventType::FORMAT_DESCRIPTION {
        let format = FormatDescription::parse(bytes).map_err(|what| damaged(what.to_string()))?;
        *checksum = format.checksum;
        if let Some(flags) = bytes.get_mut(at::FLAGS) {
            *flags &= !(flag::IN_USE as u8);
        }
    }
    let event = Event::parse(bytes, position, *checksum);
    let event = event.map_err(|what| damaged(format!("an event of a wrong {what}")))?;
    if let Some(stored) = event.checksum.filter(|stored| *stored != checksum_of(event.bytes)) {
        return Err(damaged(format!("an event with a wrong checksum {stored:08x}")));
    }
    let end = header.end_position;
    if end != 0 && end != event.end() as u32 {
        return Err(damaged(format!("an event that ends at {end}")));
    }
    Ok(Some(event))
}

fn unreadable(file: &str, position: u64, fault: binlog::Fault) -> Error {
    super::unreadable(binlog::Error { file: file.to_owned(), position, fault })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use binlog::event::rows::stamp;

    use super::*;

    #[test]
    fn what_is_in_no_file_is_left_out_and_what_was_changed_on_the_way_is_refused() {
        let mut event = vec![0; HEADER_LEN + 12];
        event[at::TYPE] = EventType::XID.0;
        event[at::LENGTH] = event.len() as u8;
        event[at::END_POSITION] = 4 + event.len() as u8;
        stamp(&mut event, true);
        let mut checksum = Checksum::Crc32;
        let mut told = |bytes: &[u8], position| {
            let mut bytes = bytes.to_vec();
            let event = as_in_file(&mut bytes, position, &mut checksum)?;
            Ok::<_, Error>(event.map(|event| event.end()))
        };
        assert_eq!(told(&event, 4).unwrap(), Some(4 + event.len() as u64));
        assert!(told(&event, 5).is_err());
        let mut changed = event.clone();
        changed[HEADER_LEN] ^= 1;
        assert!(told(&changed, 4).is_err());
        let mut artificial = event.clone();
        artificial[at::FLAGS] = flag::ARTIFICIAL as u8;
        assert_eq!(told(&artificial, 4).unwrap(), None);
        assert!(told(&event[..10], 4).is_err());
    }
}
