//! The connection of a replica: a server sends its binary log as it is written.
//!
//! The client library that all else here uses cannot do this: it has no way to ask for the events
//! that name statements, without which a log is not the one on disk; it takes each event apart, and
//! it cannot acknowledge. So this speaks the little of the protocol that is needed: login, a few
//! statements that have no result, and the log. Logins by password (`mysql_native_password`,
//! `ed25519`) and by socket are known. Over TCP it is encrypted as settings say.
//!
//! Every read has a deadline; memory is bounded by the longest event that servers allow.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use binlog::reader::EVENT_MAX;
use mysql_common::packets::{AuthPlugin, AuthPluginData};

use super::connect::{ConnectOptions, Endpoint};
use super::tls;
use crate::{Error, ErrorKind, Result};

/// How long connecting and answers to statements may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits before it says that nothing came.
pub const GLANCE: Duration = Duration::from_millis(100);
/// Bytes that are asked for at once.
const CHUNK: usize = 256 << 10;
/// A packet that is as long goes on in the next one.
const PACKET_FULL: usize = 0xff_ffff;
/// Character set of the connection: utf8mb4.
const CHARSET: u8 = 45;

/// What the client can do.
mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const OURS: u32 =
        LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
}

/// Commands.
mod command {
    pub const QUERY: u8 = 0x03;
    pub const BINLOG_DUMP: u8 = 0x12;
    pub const REGISTER_SLAVE: u8 = 0x15;
}

/// First bytes of answers.
mod answer {
    pub const OK: u8 = 0x00;
    pub const END: u8 = 0xfe;
    pub const ERROR: u8 = 0xff;
    /// Before an event and in an acknowledgement, where the server waits for them.
    pub const SEMI_SYNC: u8 = 0xef;
}

/// Flags of a dump.
mod dump_flag {
    /// End where the log ends.
    pub const NON_BLOCK: u16 = 1;
    /// Send the events that name statements.
    pub const ANNOTATE: u16 = 2;
}

/// What carries the bytes.
trait Carrier: Read + Write + Send {
    fn wait_at_most(&self, time: Duration) -> io::Result<()>;
}

impl Carrier for TcpStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Carrier for tls::ClientStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.sock.set_read_timeout(Some(time))
    }
}

impl Carrier for UnixStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
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

/// A connection that the log comes over.
pub struct Source {
    carrier: Box<dyn Carrier>,
    buffer: Vec<u8>,
    /// What of the buffer was not used yet.
    begin: usize,
    end: usize,
    sequence: u8,
    semi_sync: bool,
    /// Bytes that have come.
    received: u64,
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

/// How to encrypt a connection, the name of its host, and what is to be encrypted.
type Encrypts<'a> = ((std::sync::Arc<rustls::ClientConfig>, &'a str), TcpStream);

impl Source {
    /// Logs in and asks for the log.
    pub fn open(options: &ConnectOptions, wanted: &Wanted<'_>) -> Result<Self> {
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
        let encrypts = encrypts.zip(tcp);
        let mut source = Self {
            carrier,
            buffer: vec![0; CHUNK],
            begin: 0,
            end: 0,
            sequence: 0,
            semi_sync: false,
            received: 0,
            event: Vec::new(),
        };
        source.carrier.wait_at_most(timeout).map_err(failed)?;
        let logged_in = source.log_in(options, encrypts);
        logged_in.map_err(|error| error.context(format!("log in at {endpoint}")))?;
        source.ask(wanted)?;
        source.carrier.wait_at_most(GLANCE).map_err(failed)?;
        Ok(source)
    }

    /// Logs in; first, if it is wanted, the connection is encrypted.
    fn log_in(&mut self, options: &ConnectOptions, encrypts: Option<Encrypts<'_>>) -> Result<()> {
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
        scramble.truncate(20);
        let plugin = match bytes.text() {
            [] => b"mysql_native_password".as_slice(),
            name => name,
        };
        let password = options.password.as_deref();
        let first = proof(plugin, password, &scramble).unwrap_or_default();
        let ssl = if encrypts.is_some() { capability::SSL } else { 0 };
        let mut reply = Vec::new();
        reply.extend((capability::OURS | ssl).to_le_bytes());
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
                    let nonce = bytes.0.strip_suffix(&[0]).unwrap_or(bytes.0);
                    let proof = proof(plugin, password, nonce).ok_or_else(|| {
                        let plugin = String::from_utf8_lossy(plugin);
                        Error::new(
                            ErrorKind::Server,
                            format!("the account uses the login method {plugin}"),
                        )
                        .advise(
                            "streaming knows mysql_native_password, ed25519 and unix_socket: use \
                             an account with one of them",
                        )
                    })?;
                    self.send(&proof)?;
                }
                _ => return Err(refused(&answer)),
            }
        }
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
            let request = [&[command::QUERY], statement.as_bytes()].concat();
            self.command(&request).map_err(|error| error.context(statement))?;
        }
        let id = wanted.server_id.to_le_bytes();
        if wanted.registers {
            let mut register = vec![command::REGISTER_SLAVE];
            register.extend(id);
            // No host, user, password and port; no rank, no source.
            register.extend([0; 3 + 2 + 4 + 4]);
            let registered = self.command(&register);
            registered.map_err(|error| error.context("register as a replica"))?;
        }
        let mut flags = 0;
        flags |= if wanted.waits { 0 } else { dump_flag::NON_BLOCK };
        flags |= if wanted.annotations { dump_flag::ANNOTATE } else { 0 };
        let mut dump = vec![command::BINLOG_DUMP];
        dump.extend(wanted.position.to_le_bytes());
        dump.extend(flags.to_le_bytes());
        dump.extend(id);
        dump.extend(wanted.file.as_bytes());
        self.sequence = 0;
        self.semi_sync = wanted.semi_sync;
        self.send(&dump)
    }

    /// Sends a request that is answered with no more than that it was done.
    fn command(&mut self, request: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.send(request)?;
        let answer = self.answer()?;
        match answer.first() {
            Some(&answer::OK) => Ok(()),
            _ => Err(refused(&answer)),
        }
    }

    /// The next event.
    pub fn receive(&mut self) -> Result<Came> {
        loop {
            let Some(packet) = self.packet()? else { return Ok(Came::Nothing) };
            let full = packet.len() == PACKET_FULL;
            if self.event.is_empty() {
                match packet.first() {
                    Some(&answer::OK) => {}
                    Some(&answer::END) if packet.len() < 9 => return Ok(Came::End),
                    _ => return Err(refused(&packet)),
                }
            }
            if self.event.len() + packet.len() > EVENT_MAX as usize + CHUNK {
                return Err(Error::new(ErrorKind::Damage, "an event is longer than any may be"));
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
        self.received
    }

    /// Whether more has come already.
    pub fn has_more(&self) -> bool {
        self.end > self.begin
    }

    /// Tells the server that all up to here is safe.
    pub fn acknowledge(&mut self, file: &str, position: u64) -> Result<()> {
        let mut ack = vec![answer::SEMI_SYNC];
        ack.extend(position.to_le_bytes());
        ack.extend(file.as_bytes());
        self.sequence = 0;
        self.send(&ack)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let length = (bytes.len() as u32).to_le_bytes();
        let packet = [&length[..3], &[self.sequence], bytes].concat();
        self.sequence = self.sequence.wrapping_add(1);
        self.carrier.write_all(&packet).and_then(|()| self.carrier.flush()).map_err(lost)
    }

    /// The packet that has to come.
    fn answer(&mut self) -> Result<Vec<u8>> {
        self.packet()?.ok_or_else(|| lost(Io::TimedOut.into()))
    }

    /// The next packet; `None` if it is not there in time. What of it came is kept.
    fn packet(&mut self) -> Result<Option<Vec<u8>>> {
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
            if self.begin > 0 {
                self.buffer.copy_within(self.begin..self.end, 0);
                self.end -= self.begin;
                self.begin = 0;
            }
            if self.buffer.len() - self.end < CHUNK {
                self.buffer.resize(self.end + 2 * CHUNK, 0);
            }
            match self.carrier.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => return Err(lost(Io::UnexpectedEof.into())),
                Ok(count) => {
                    self.end += count;
                    self.received += count as u64;
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) if matches!(error.kind(), Io::WouldBlock | Io::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(lost(error)),
            }
        }
    }
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

fn lost(error: io::Error) -> Error {
    Error::new(ErrorKind::Server, "lost the connection to the server").caused_by(error)
}

/// What the server said instead of what it should.
fn refused(answer: &[u8]) -> Error {
    let Some((&answer::ERROR, rest)) = answer.split_first() else {
        return Error::new(ErrorKind::Server, "the server's answer makes no sense");
    };
    let mut bytes = Fields(rest);
    let code = bytes.take(2).first_chunk().map_or(0, |code| u16::from_le_bytes(*code));
    let text = match bytes.0.strip_prefix(b"#") {
        Some(rest) => rest.get(5..).unwrap_or_default(),
        None => bytes.0,
    };
    let text: String = String::from_utf8_lossy(text).chars().take(500).collect();
    Error::new(ErrorKind::Server, format!("the server refused: {text} ({code})"))
}
