//! Packets to and from a server, for what the client library cannot do.
//!
//! The little of the protocol that replicas and replays need: login, requests, packets of answers.
//! Logins by password (`mysql_native_password`, `ed25519`, `parsec`) and by socket are known. Over TCP it
//! is encrypted as settings say.
//!
//! Nothing waits for longer than a tenth of a second without looking whether it is cancelled; memory is
//! bounded by the longest packet that is taken.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use binlog::reader::EVENT_MAX;
use mysql_async::ServerError;
use mysql_common::packets::{AuthPlugin, AuthPluginData};

use super::connect::{ConnectOptions, Endpoint};
use super::tls;
use crate::{Cancel, Error, ErrorKind, Result};

/// How long connecting and answers to a login may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits before it says that nothing came.
pub const GLANCE: Duration = Duration::from_millis(100);
/// Bytes that are asked for at once.
pub(super) const CHUNK: usize = 256 << 10;
/// What a server may say before it has read a request, at most.
const AHEAD_MAX: usize = 64 << 20;
/// A packet that is as long goes on in the next one.
pub(super) const PACKET_FULL: usize = 0xff_ffff;
/// Character set of the connection: utf8mb4.
const CHARSET: u8 = 45;
/// What `mysql_native_password` hashes; a zero byte follows it. What others sign may end with one.
const SCRAMBLE_LEN: usize = 20;
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
    /// What every client here can.
    pub const BASE: u32 =
        LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
}

/// Commands.
pub(super) mod command {
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
trait Carrier: Read + Write + Send {
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

/// How to encrypt a connection, the name of its host, and what is to be encrypted.
type Encrypts<'a> = ((Arc<rustls::ClientConfig>, &'a str), TcpStream);

/// A connection to a server.
pub(super) struct Wire {
    carrier: Box<dyn Carrier>,
    cancel: Cancel,
    buffer: Vec<u8>,
    /// What of the buffer was not used yet.
    begin: usize,
    end: usize,
    sequence: u8,
    /// Bytes that have come.
    received: u64,
}

impl Wire {
    /// Connects and logs in as a client that can do this.
    pub(super) fn connect(
        options: &ConnectOptions,
        capabilities: u32,
        cancel: &Cancel,
    ) -> Result<Self> {
        let endpoint = options.endpoint();
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Server, format!("cannot connect to the server at {endpoint}"))
                .caused_by(error)
        };
        let timeout = options.connect_timeout.unwrap_or(TIMEOUT);
        let mut encrypts = None;
        let mut tcp = None;
        let carrier: Box<dyn Carrier> = match &endpoint {
            Endpoint::Socket(path) => Box::new(UnixStream::connect(path).map_err(failed)?),
            Endpoint::Tcp(host, port) => {
                let config = options.wanted_tls()?.map(tls::client).transpose()?;
                encrypts = config.map(|config| (config, host.as_str()));
                let mut addresses = (host.as_str(), *port).to_socket_addrs().map_err(failed)?;
                let address = addresses.next().ok_or_else(|| failed(Io::NotFound.into()))?;
                let stream = TcpStream::connect_timeout(&address, timeout).map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                tcp = Some(stream.try_clone().map_err(failed)?);
                Box::new(stream)
            }
        };
        let mut wire = Self {
            carrier,
            cancel: cancel.clone(),
            buffer: vec![0; CHUNK],
            begin: 0,
            end: 0,
            sequence: 0,
            received: 0,
        };
        wire.carrier.wait_at_most(timeout, timeout).map_err(failed)?;
        wire.log_in(options, capabilities, encrypts.zip(tcp))
            .map_err(|error| error.context(format!("log in at {endpoint}")))?;
        wire.carrier.wait_at_most(GLANCE, GLANCE).map_err(failed)?;
        Ok(wire)
    }

    /// Logs in; first, if it is wanted, the connection is encrypted.
    fn log_in(
        &mut self,
        options: &ConnectOptions,
        capabilities: u32,
        encrypts: Option<Encrypts<'_>>,
    ) -> Result<()> {
        let greeting = self.answer()?;
        let mut bytes = Fields(&greeting);
        if bytes.take(1) != [10] {
            return Err(refused(&greeting));
        }
        bytes.text();
        bytes.take(4);
        let mut scramble = bytes.take(8).to_vec();
        bytes.take(1);
        let offered = bytes.take(2).first_chunk().map_or(0, |low| u16::from_le_bytes(*low));
        bytes.take(1 + 2 + 2);
        let length = bytes.take(1).first().copied().unwrap_or(0);
        bytes.take(10);
        scramble.extend(bytes.take(usize::from(length.saturating_sub(8)).max(13)));
        scramble.truncate(SCRAMBLE_LEN);
        let plugin = match bytes.text() {
            [] => b"mysql_native_password".as_slice(),
            name => name,
        };
        let password = options.password.as_deref();
        let first = proof(plugin, password, &scramble).unwrap_or_default();
        let ssl = if encrypts.is_some() { capability::SSL } else { 0 };
        let mut reply = Vec::new();
        reply.extend((capabilities | ssl).to_le_bytes());
        reply.extend(EVENT_MAX.to_le_bytes());
        reply.push(CHARSET);
        reply.extend([0; 23]);
        if let Some(((config, host), stream)) = encrypts {
            if u32::from(offered) & capability::SSL == 0 {
                return Err(Error::new(ErrorKind::Server, "the server does not offer TLS")
                    .advise("say --skip-ssl on a network of trust"));
            }
            self.send(&reply)?;
            self.carrier = Box::new(tls::connect(config, host, stream)?);
        }
        reply.extend(options.user_name()?.as_bytes());
        reply.push(0);
        reply.push(first.len() as u8);
        reply.extend(first);
        reply.extend(plugin);
        reply.push(0);
        self.send(&reply)?;
        loop {
            let answer = self.answer()?;
            match answer.split_first() {
                Some((&answer::OK, _)) => return Ok(()),
                Some((&answer::END, rest)) => {
                    let mut bytes = Fields(rest);
                    let plugin = bytes.text();
                    let nonce = match bytes.0 {
                        [nonce @ .., 0] if nonce.len() == SCRAMBLE_LEN => nonce,
                        nonce => nonce,
                    };
                    if plugin == b"parsec" {
                        let proof = self.parsec(password, nonce)?;
                        self.send(&proof)?;
                        continue;
                    }
                    let proof = proof(plugin, password, nonce).ok_or_else(|| {
                        let plugin = String::from_utf8_lossy(plugin);
                        let message = format!("the account uses the login method {plugin}");
                        Error::new(ErrorKind::Server, message).advise(
                            "logs are streamed and replayed with mysql_native_password, ed25519, \
                             parsec and unix_socket: use an account with one of them",
                        )
                    })?;
                    self.send(&proof)?;
                }
                _ => return Err(refused(&answer)),
            }
        }
    }

    /// Asks for the salt of a password, and signs with it what the server wants signed.
    fn parsec(&mut self, password: Option<&str>, nonce: &[u8]) -> Result<Vec<u8>> {
        self.send(&[])?;
        let answer = self.answer()?;
        let salt = match &*answer {
            // The first servers with it did not mark what belongs to the login.
            [1, salt @ ..] | salt => salt,
        };
        let mut plugin = AuthPlugin::from_bytes(b"parsec");
        plugin.read_add_data(salt).ok_or_else(|| refused(&answer))?;
        Ok(match plugin.gen_data(password, nonce) {
            Some(AuthPluginData::Parsec(proof)) => proof.to_vec(),
            _ => Vec::new(),
        })
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
                Ok(0) => return Err(lost(Io::WriteZero.into())),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if is_delay(&error) => {
                    self.cancel.check()?;
                    // The server may be waiting until somebody reads what it says.
                    if self.end - self.begin > AHEAD_MAX {
                        let message = "the server talks on instead of reading a request";
                        return Err(Error::new(ErrorKind::Server, message));
                    }
                    self.read_more()?;
                }
                Err(error) => return Err(lost(error)),
            }
        }
        loop {
            match self.carrier.flush() {
                Ok(()) => return Ok(()),
                Err(error) if is_delay(&error) => self.cancel.check()?,
                Err(error) => return Err(lost(error)),
            }
        }
    }

    /// The packet that has to come at once.
    pub(super) fn answer(&mut self) -> Result<Vec<u8>> {
        let began = Instant::now();
        loop {
            match self.packet()? {
                Some(packet) => return Ok(packet),
                None if began.elapsed() >= TIMEOUT => return Err(lost(Io::TimedOut.into())),
                None => self.cancel.check()?,
            }
        }
    }

    /// The packet that comes some time.
    pub(super) fn awaited(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(packet) = self.packet()? {
                return Ok(packet);
            }
            self.cancel.check()?;
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
                Ok(0) => return Err(lost(Io::UnexpectedEof.into())),
                Ok(count) => {
                    self.end += count;
                    self.received += count as u64;
                    return Ok(true);
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) if is_delay(&error) => return Ok(false),
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

/// Whether an error says no more than that it is to be tried again.
fn is_delay(error: &io::Error) -> bool {
    matches!(error.kind(), Io::WouldBlock | Io::TimedOut | Io::Interrupted)
}

/// What proves that the password is known; `None` for methods of login that are not known here.
fn proof(plugin: &[u8], password: Option<&str>, nonce: &[u8]) -> Option<Vec<u8>> {
    let plugin = match plugin {
        // The server looks at the user of the process.
        b"unix_socket" | b"auth_socket" => return Some(Vec::new()),
        name => AuthPlugin::from_bytes(name),
    };
    if !matches!(plugin, AuthPlugin::MysqlNativePassword | AuthPlugin::Ed25519) {
        return None;
    }
    Some(match plugin.gen_data(password, nonce) {
        Some(AuthPluginData::Native(proof)) => proof.to_vec(),
        Some(AuthPluginData::Ed25519(proof)) => proof.to_vec(),
        _ => Vec::new(),
    })
}

/// Reads what a server says first.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    /// What is before a zero byte.
    fn text(&mut self) -> &'a [u8] {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = self.take(length);
        self.take(1);
        text
    }
}

pub(super) fn lost(error: io::Error) -> Error {
    Error::new(ErrorKind::Server, "lost the connection to the server").caused_by(error)
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
pub(super) fn refused(answer: &[u8]) -> Error {
    match refusal(answer) {
        Some(ServerError { code, message, .. }) => {
            Error::new(ErrorKind::Server, format!("the server refused: {message} ({code})"))
        }
        None => Error::new(ErrorKind::Server, "the server's answer makes no sense"),
    }
}
