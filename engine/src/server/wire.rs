//! Packets to and from a server.
//!
//! The protocol as far as backups, replicas and replays need it: requests, packets of answers, errors. How
//! a connection begins is in `login`, what the results of statements look like in `text_result`.
//!
//! Nothing waits for longer than a tenth of a second without looking whether it is cancelled, or its time
//! is over; memory is bounded by the longest packet that is taken.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::failure::{Failure, ServerError};
use super::tls;
use crate::{Cancel, Error, ErrorKind};

type Result<T> = std::result::Result<T, Failure>;

/// How long a read waits before it says that nothing came.
pub const GLANCE: Duration = Duration::from_millis(100);
/// Bytes that are asked for at once.
pub(super) const CHUNK: usize = 256 << 10;
/// How long an answer may take that has to come at once.
const AT_ONCE: Duration = Duration::from_secs(10);
/// What a server may say before it has read a request, at most.
const AHEAD_MAX: usize = 64 << 20;
/// A packet that is as long goes on in the next one.
pub(super) const PACKET_FULL: usize = 0xff_ffff;
/// Characters of the server's own words that are kept.
const WORDS_MAX: usize = 500;

/// What a client can do.
pub(super) mod capability {
    const LONG_PASSWORD: u32 = 1;
    /// Sends local files where a statement asks for them.
    pub const LOCAL_FILES: u32 = 1 << 7;
    const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    const TRANSACTIONS: u32 = 1 << 13;
    const SECURE_CONNECTION: u32 = 1 << 15;
    /// Sends several statements in one request.
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    /// Takes several results of one statement.
    pub const MULTI_RESULTS: u32 = 1 << 17;
    const PLUGIN_AUTH: u32 = 1 << 19;
    /// Says what it is.
    pub const ATTRIBUTES: u32 = 1 << 20;
    /// What every client here can.
    pub const BASE: u32 =
        LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
}

/// Commands.
pub(super) mod command {
    pub const QUIT: u8 = 0x01;
    pub const QUERY: u8 = 0x03;
    pub const BINLOG_DUMP: u8 = 0x12;
    pub const REGISTER_SLAVE: u8 = 0x15;
}

/// First bytes of answers.
pub(super) mod answer {
    pub const OK: u8 = 0x00;
    /// A statement asks for a local file.
    pub const LOCAL_FILE: u8 = 0xfb;
    pub const END: u8 = 0xfe;
    pub const ERROR: u8 = 0xff;
    /// Before an event and in an acknowledgement, where the server waits for them.
    pub const SEMI_SYNC: u8 = 0xef;
}

/// What carries the bytes.
pub(super) trait Carrier: Read + Write + Send {
    /// How long a read and a write may wait.
    fn wait_at_most(&self, read: Duration, write: Duration) -> io::Result<()>;
}

impl Carrier for TcpStream {
    fn wait_at_most(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read)).and_then(|()| self.set_write_timeout(Some(write)))
    }
}

impl Carrier for tls::ClientStream {
    fn wait_at_most(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.sock.wait_at_most(read, write)
    }
}

impl Carrier for UnixStream {
    fn wait_at_most(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read)).and_then(|()| self.set_write_timeout(Some(write)))
    }
}

/// A connection to a server.
pub(super) struct Wire {
    carrier: Box<dyn Carrier>,
    cancel: Cancel,
    /// When waiting is over, and how long that was from its beginning.
    until: Option<(Instant, Duration)>,
    buffer: Vec<u8>,
    /// What of the buffer was not used yet.
    begin: usize,
    end: usize,
    sequence: u8,
    /// Bytes that have come.
    received: u64,
}

impl Wire {
    /// A connection that nothing was said on.
    pub(super) fn over(carrier: Box<dyn Carrier>, cancel: &Cancel) -> Self {
        Self {
            carrier,
            cancel: cancel.clone(),
            until: None,
            buffer: vec![0; CHUNK],
            begin: 0,
            end: 0,
            sequence: 0,
            received: 0,
        }
    }

    /// From now on, nothing is waited for beyond this time.
    pub(super) fn within(&mut self, deadline: Duration) {
        self.until = Instant::now().checked_add(deadline).map(|until| (until, deadline));
    }

    /// From now on, waiting has no end but to be cancelled.
    pub(super) fn for_ever(&mut self) {
        self.until = None;
    }

    /// Goes on over another carrier; what has come over the one before is forgotten, for it was not
    /// encrypted.
    pub(super) fn carry_over(&mut self, carrier: Box<dyn Carrier>) {
        (self.begin, self.end) = (0, 0);
        self.carrier = carrier;
    }

    /// Whether to go on waiting.
    fn go_on(&self) -> Result<()> {
        match self.until {
            _ if self.cancel.is_cancelled() => Err(Failure::Cancelled),
            Some((until, deadline)) if Instant::now() >= until => Err(Failure::Deadline(deadline)),
            _ => Ok(()),
        }
    }

    /// Bytes that have come.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether more has come already.
    pub(super) fn has_more(&self) -> bool {
        self.end > self.begin
    }

    /// Sends a request.
    pub(super) fn request(&mut self, command: u8, rest: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.send_parts(&[&[command], rest])
    }

    /// Sends a request that is answered with no more than that it was done.
    pub(super) fn command(&mut self, command: u8, rest: &[u8]) -> Result<()> {
        self.request(command, rest)?;
        let answer = self.answer()?;
        match answer.first() {
            Some(&answer::OK) => Ok(()),
            _ => Err(refused(&answer)),
        }
    }

    /// Sends what belongs to the exchange that is going on.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.send_parts(&[bytes])
    }

    /// Sends parts of one message, in as many packets as it takes.
    fn send_parts(&mut self, parts: &[&[u8]]) -> Result<()> {
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        let mut room = 0;
        let mut packets = Vec::with_capacity(left + 8 + left / PACKET_FULL * 4);
        let mut header = |packets: &mut Vec<u8>, left: usize| {
            let length = left.min(PACKET_FULL);
            packets.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
            packets.push(self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
            length
        };
        let mut full = left == 0;
        for part in parts {
            let mut part = *part;
            while !part.is_empty() {
                if room == 0 {
                    room = header(&mut packets, left);
                    full = room == PACKET_FULL;
                }
                let (now, rest) = part.split_at(room.min(part.len()));
                packets.extend_from_slice(now);
                room -= now.len();
                left -= now.len();
                part = rest;
            }
        }
        if full {
            header(&mut packets, 0);
        }
        self.write(&packets)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.carrier.write(bytes) {
                Ok(0) => return Err(Failure::Lost(Io::WriteZero.into())),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if is_delay(&error) => {
                    self.go_on()?;
                    // The server may be waiting until somebody reads what it says.
                    if self.end - self.begin > AHEAD_MAX {
                        let message = "the server talks on instead of reading a request";
                        return Err(Error::new(ErrorKind::Server, message).into());
                    }
                    self.read_more()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            match self.carrier.flush() {
                Ok(()) => return Ok(()),
                Err(error) if is_delay(&error) => self.go_on()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The packet that has to come at once.
    pub(super) fn answer(&mut self) -> Result<Vec<u8>> {
        let before = self.until;
        if before.is_none() {
            self.within(AT_ONCE);
        }
        let answer = self.awaited();
        self.until = before;
        answer
    }

    /// The packet that comes some time.
    pub(super) fn awaited(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(packet) = self.packet()? {
                return Ok(packet);
            }
            self.go_on()?;
        }
    }

    /// The next packet; `None` if it is not there in time. What of it came is kept.
    pub(super) fn packet(&mut self) -> Result<Option<Vec<u8>>> {
        const HEADER: usize = 4;
        loop {
            let waiting = self.buffer.get(self.begin..self.end).unwrap_or_default();
            if let Some([a, b, c, sequence]) = waiting.first_chunk::<HEADER>() {
                let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
                if let Some(packet) = waiting.get(HEADER..HEADER + length) {
                    let packet = packet.to_vec();
                    self.sequence = sequence.wrapping_add(1);
                    self.begin += HEADER + length;
                    return Ok(Some(packet));
                }
            }
            if !self.read_more()? {
                return Ok(None);
            }
        }
    }

    /// Reads what has come; whether there was anything in time.
    fn read_more(&mut self) -> Result<bool> {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if self.buffer.len() - self.end < CHUNK {
            self.buffer.resize(self.end + 2 * CHUNK, 0);
        }
        loop {
            match self.carrier.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => return Err(Failure::Lost(Io::UnexpectedEof.into())),
                Ok(count) => {
                    self.end += count;
                    self.received += count as u64;
                    return Ok(true);
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) if is_delay(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether an error says no more than that it is to be tried again.
fn is_delay(error: &io::Error) -> bool {
    matches!(error.kind(), Io::WouldBlock | Io::TimedOut | Io::Interrupted)
}

/// Reads the fields of a packet.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// So many bytes; what there is, if there are fewer.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    /// What is before a zero byte.
    pub fn text(&mut self) -> &'a [u8] {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = self.take(length);
        self.take(1);
        text
    }
}

/// The error that an answer is.
pub(super) fn refusal(answer: &[u8]) -> Option<ServerError> {
    let (_, rest) = answer.split_first().filter(|(first, _)| **first == answer::ERROR)?;
    let mut bytes = Fields(rest);
    let code = bytes.take(2).first_chunk().map_or(0, |code| u16::from_le_bytes(*code));
    let (state, text) = match bytes.0.strip_prefix(b"#") {
        Some(rest) => rest.split_at_checked(5).unwrap_or((rest, &[])),
        None => (&b"HY000"[..], bytes.0),
    };
    let message = String::from_utf8_lossy(text).chars().take(WORDS_MAX).collect();
    Some(ServerError { code, message, state: String::from_utf8_lossy(state).into_owned() })
}

/// What the server said instead of what it should.
pub(super) fn refused(answer: &[u8]) -> Failure {
    match refusal(answer) {
        Some(error) => Failure::Server(error),
        None => Error::new(ErrorKind::Server, "the server's answer makes no sense").into(),
    }
}
