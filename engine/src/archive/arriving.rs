//! Events as a server sends them: which of them are in its files, and how a file begins.

use std::time::{Duration, Instant};

use binlog::format::{Checksum, FIRST_EVENT, FormatDescription};
use binlog::header::{Header, at, flag};
use binlog::reader::checksum_of;
use binlog::{Event, EventType};

use crate::server::ConnectOptions;
use crate::server::feed::{Came, Source, Wanted};
use crate::{Error, ErrorKind, Result};

/// How long a server may take to send how a file begins.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a file of a server begins.
pub(super) struct Identified {
    /// Who wrote it.
    pub server: u32,
    /// What was logged before it.
    pub before: binlog::GtidState,
    /// Tells it from others.
    pub identity: String,
}

/// Asks a server how one of its files begins.
pub(super) fn identify(
    connect: &ConnectOptions,
    wanted: &Wanted<'_>,
    name: &str,
) -> Result<Identified> {
    // The server must not hold the file for long.
    let wanted = Wanted { file: name, waits: false, ..wanted.clone() };
    let mut source = Source::open(connect, &wanted)?;
    let mut scanner = super::scan::Scanner::new(name);
    let mut position = FIRST_EVENT;
    let mut checksum = Checksum::None;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let mut bytes = match source.receive()? {
            Came::Event(bytes, _) => bytes,
            Came::Nothing => continue,
            Came::End => break,
        };
        let Some(event) = as_in_file(&mut bytes, position, &mut checksum)? else { continue };
        position = event.end();
        scanner.event(&event).map_err(|fault| unreadable(name, event.offset, fault))?;
        if let Some(beginning) = scanner.beginning() {
            return Ok(Identified {
                server: beginning.server,
                before: scanner.state().clone(),
                identity: beginning.identity.clone(),
            });
        }
    }
    Err(Error::new(ErrorKind::Timeout, format!("the server does not send how {name} begins")))
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
    use binlog::header::HEADER_LEN;

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
