//! The server's side of a connection: packets, greeting, login, answers.
//!
//! Only what a replica needs. Everything that comes in is bounded; whoever has not logged in may send
//! next to nothing, and takes next to no memory. Nothing waits for the other side without looking
//! whether it is to end, nor for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha1::{Digest, Sha1};

use super::INTERVAL;
use crate::Cancel;

/// Bytes of one packet at most; what is longer goes in several.
const PACKET_MAX: usize = 0xff_ffff;
/// Bytes of a request at most.
const REQUEST_MAX: usize = 1 << 20;
/// The same of what belongs to a login.
const LOGIN_MAX: usize = 4 << 10;
/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(10);
/// How long the next request of a replica may take, and how long it may read nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that are collected before they are sent.
const OUTPUT: usize = 1 << 20;

/// What the server says that it can do.
mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const OFFERED: u32 = LONG_PASSWORD
        | LONG_FLAG
        | CONNECT_WITH_DB
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | PLUGIN_AUTH;
}

/// First bytes of answers.
mod answer {
    pub const OK: u8 = 0;
    pub const EOF: u8 = 0xfe;
    pub const ERROR: u8 = 0xff;
}

const PLUGIN: &str = "mysql_native_password";
/// Bytes of the question that a login answers.
const CHALLENGE: usize = 20;
/// `utf8mb3_general_ci`
const CHARSET: u8 = 33;
/// `autocommit`
const STATUS: u16 = 2;
/// Type of text columns.
const TYPE_TEXT: u8 = 253;

/// Bytes of the request to go on encrypted.
const TLS_REQUEST: usize = 32;

/// A connection that neither waits for ever nor when it is to end.
struct Socket {
    stream: TcpStream,
    cancel: Cancel,
    /// Until when what is asked for has to be there.
    until: Instant,
    /// Whether the other side has not read for too long.
    is_stuck: bool,
}

impl Socket {
    fn new(stream: TcpStream, cancel: Cancel) -> Io<Self> {
        stream.set_read_timeout(Some(INTERVAL))?;
        stream.set_write_timeout(Some(INTERVAL))?;
        Ok(Self { stream, cancel, until: Instant::now() + LOGIN, is_stuck: false })
    }

    /// What an error is if it is one, and not only that nothing has happened yet.
    fn delayed(&self, error: std::io::Error, until: Instant) -> Io<()> {
        let delays = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
        match error.kind() {
            kind if !delays.contains(&kind) => Err(error),
            _ if self.cancel.is_cancelled() => Err(std::io::Error::other("interrupted")),
            _ if Instant::now() >= until => Err(ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> Io<usize> {
        loop {
            match self.stream.read(bytes) {
                Err(error) => self.delayed(error, self.until)?,
                read => return read,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> Io<usize> {
        let until = Instant::now() + PATIENCE;
        while !self.is_stuck {
            match self.stream.write(bytes) {
                Err(error) => {
                    let delayed = self.delayed(error, until);
                    self.is_stuck = delayed.is_err();
                    delayed?;
                }
                written => return written,
            }
        }
        // Nor is it told why it is left.
        Err(ErrorKind::TimedOut.into())
    }

    fn flush(&mut self) -> Io<()> {
        self.stream.flush()
    }
}

/// What carries the bytes.
enum Carrier {
    Plain(Socket),
    Encrypted(Box<StreamOwned<ServerConnection, Socket>>),
}

impl Carrier {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Encrypted(stream) => &mut stream.sock,
        }
    }
}

impl Read for Carrier {
    fn read(&mut self, bytes: &mut [u8]) -> Io<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Encrypted(stream) => stream.read(bytes),
        }
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> Io<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> Io<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Encrypted(stream) => stream.flush(),
        }
    }
}

/// A connection of somebody.
pub(super) struct Wire {
    carrier: Carrier,
    /// What is yet to be sent.
    output: Vec<u8>,
    sequence: u8,
    /// Whether somebody has logged in.
    is_in: bool,
}

/// Who may log in.
pub(super) struct Account {
    pub user: String,
    pub password: String,
    /// With it, only over connections that are encrypted.
    pub tls: Option<Arc<ServerConfig>>,
}

type Io<T> = std::io::Result<T>;

impl Wire {
    pub(super) fn new(stream: TcpStream, cancel: &Cancel) -> Io<Self> {
        stream.set_nodelay(true)?;
        let carrier = Carrier::Plain(Socket::new(stream, cancel.clone())?);
        Ok(Self { carrier, output: Vec::new(), sequence: 0, is_in: false })
    }

    /// Encrypts all that follows.
    fn encrypt(&mut self, config: Arc<ServerConfig>) -> Io<()> {
        let Socket { stream, cancel, until, .. } = self.carrier.socket();
        let mut socket = Socket::new(stream.try_clone()?, cancel.clone())?;
        socket.until = *until;
        let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
        self.carrier = Carrier::Encrypted(Box::new(StreamOwned::new(connection, socket)));
        Ok(())
    }

    /// Reads a request; `None` when the other side is gone.
    pub(super) fn request(&mut self) -> Io<Option<Vec<u8>>> {
        if self.is_in {
            self.carrier.socket().until = Instant::now() + PATIENCE;
        }
        let mut head = [0; 4];
        match self.carrier.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let limit = if self.is_in { REQUEST_MAX } else { LOGIN_MAX };
        if length > limit {
            return Err(std::io::Error::other("a request that is too long"));
        }
        self.sequence = head[3].wrapping_add(1);
        let mut body = vec![0; length];
        self.carrier.read_exact(&mut body)?;
        Ok(Some(body))
    }

    /// Sends a packet, in several if it is long; `parts` are its bytes.
    pub(super) fn send(&mut self, parts: &[&[u8]]) -> Io<()> {
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        let ends_full = left > 0 && left.is_multiple_of(PACKET_MAX);
        let mut room = left.min(PACKET_MAX);
        self.head(room)?;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                if room == 0 {
                    room = left.min(PACKET_MAX);
                    self.head(room)?;
                }
                let (now, later) = rest.split_at(rest.len().min(room));
                self.put(now)?;
                (rest, room, left) = (later, room - now.len(), left - now.len());
            }
        }
        // A full packet says that another one follows, be it empty.
        if ends_full { self.head(0) } else { Ok(()) }
    }

    fn head(&mut self, length: usize) -> Io<()> {
        let length = (length as u32).to_le_bytes();
        self.put(&[length[0], length[1], length[2], self.sequence])?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Io<()> {
        if self.output.len() + bytes.len() > OUTPUT {
            self.carrier.write_all(&self.output)?;
            self.output.clear();
        }
        match bytes.len() {
            OUTPUT.. => self.carrier.write_all(bytes),
            _ => {
                self.output.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    pub(super) fn flush(&mut self) -> Io<()> {
        self.carrier.write_all(&self.output)?;
        self.output.clear();
        self.carrier.flush()
    }

    /// Whether the other side has closed the connection, or says something where nobody asked.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let stream = &self.carrier.socket().stream;
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let seen = stream.peek(&mut byte);
        let reset = stream.set_nonblocking(false);
        match seen {
            Err(error) => error.kind() != ErrorKind::WouldBlock || reset.is_err(),
            Ok(_) => true,
        }
    }

    pub(super) fn ok(&mut self) -> Io<()> {
        let status = STATUS.to_le_bytes();
        self.send(&[&[answer::OK, 0, 0, status[0], status[1], 0, 0]])?;
        self.flush()
    }

    pub(super) fn error(&mut self, code: u16, words: &str) -> Io<()> {
        self.send(&[&[answer::ERROR], &code.to_le_bytes(), b"#HY000", words.as_bytes()])?;
        self.flush()
    }

    fn eof(&mut self) -> Io<()> {
        let status = STATUS.to_le_bytes();
        self.send(&[&[answer::EOF, 0, 0, status[0], status[1]]])
    }

    /// Answers with rows of text; NULL is `None`.
    pub(super) fn rows(&mut self, columns: &[&str], rows: &[Vec<Option<String>>]) -> Io<()> {
        self.send(&[&[columns.len() as u8]])?;
        for name in columns {
            let mut definition = Vec::new();
            for text in ["def", "", "", "", name, ""] {
                push_text(&mut definition, text);
            }
            definition.extend_from_slice(&[0x0c, CHARSET, 0, 0, 1, 0, 0, TYPE_TEXT, 0, 0, 0, 0, 0]);
            self.send(&[&definition])?;
        }
        self.eof()?;
        for row in rows {
            let mut bytes = Vec::new();
            for value in row {
                match value {
                    Some(text) => push_text(&mut bytes, text),
                    None => bytes.push(0xfb),
                }
            }
            self.send(&[&bytes])?;
        }
        self.eof()?;
        self.flush()
    }

    /// Greets, and lets in whoever knows the password. `false` if it was refused.
    pub(super) fn log_in(&mut self, version: &str, id: u32, account: &Account) -> Io<bool> {
        let challenge: [u8; CHALLENGE] = std::array::from_fn(|_| fastrand::u8(33..127));
        let mut greeting = vec![10];
        greeting.extend_from_slice(version.as_bytes());
        greeting.push(0);
        greeting.extend_from_slice(&id.to_le_bytes());
        greeting.extend_from_slice(&challenge[..8]);
        greeting.push(0);
        let tls = if account.tls.is_some() { capability::SSL } else { 0 };
        let offered = (capability::OFFERED | tls).to_le_bytes();
        greeting.extend_from_slice(&offered[..2]);
        greeting.push(CHARSET);
        greeting.extend_from_slice(&STATUS.to_le_bytes());
        greeting.extend_from_slice(&offered[2..]);
        greeting.push(CHALLENGE as u8 + 1);
        greeting.extend_from_slice(&[0; 10]);
        greeting.extend_from_slice(&challenge[8..]);
        greeting.push(0);
        greeting.extend_from_slice(PLUGIN.as_bytes());
        greeting.push(0);
        self.sequence = 0;
        self.send(&[&greeting])?;
        self.flush()?;
        let Some(mut response) = self.request()? else { return Ok(false) };
        if let Some(config) = &account.tls {
            if !asks_for_tls(&response) {
                self.error(3159, "only connections that are encrypted are served here")?;
                return Ok(false);
            }
            self.encrypt(Arc::clone(config))?;
            let Some(encrypted) = self.request()? else { return Ok(false) };
            response = encrypted;
        }
        let Some(login) = Login::parse(&response) else {
            self.error(1043, "a login in another way than offered")?;
            return Ok(false);
        };
        let mut token = login.token.to_vec();
        if login.plugin.is_some_and(|plugin| plugin != PLUGIN.as_bytes()) {
            self.send(&[&[answer::EOF], PLUGIN.as_bytes(), &[0], &challenge, &[0]])?;
            self.flush()?;
            let Some(answered) = self.request()? else { return Ok(false) };
            token = answered;
        }
        let expected = scramble(&account.password, &challenge);
        let is_right = login.user == account.user.as_bytes() && same(&token, &expected);
        self.is_in = is_right;
        match is_right {
            true => self.ok()?,
            false => {
                let user = String::from_utf8_lossy(login.user).into_owned();
                self.error(1045, &format!("Access denied for user '{user}'"))?;
            }
        }
        Ok(is_right)
    }
}

/// Whether a client wants to log in encrypted.
fn asks_for_tls(response: &[u8]) -> bool {
    let flags = response.first_chunk().map_or(0, |flags| u32::from_le_bytes(*flags));
    response.len() == TLS_REQUEST && flags & capability::SSL != 0
}

/// What a client answers the greeting with.
struct Login<'a> {
    user: &'a [u8],
    token: &'a [u8],
    plugin: Option<&'a [u8]>,
}

impl<'a> Login<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let flags = u32::from_le_bytes(*bytes.first_chunk()?);
        if flags & capability::PROTOCOL_41 == 0 || flags & capability::SECURE_CONNECTION == 0 {
            return None;
        }
        let (user, rest) = text(bytes.get(32..)?)?;
        let (length, rest) = rest.split_first()?;
        let (token, mut rest) = rest.split_at_checked(usize::from(*length))?;
        if flags & capability::CONNECT_WITH_DB != 0 {
            rest = text(rest)?.1;
        }
        let plugin = match flags & capability::PLUGIN_AUTH {
            0 => None,
            _ => Some(text(rest).map_or(rest, |(plugin, _)| plugin)),
        };
        Some(Self { user, token, plugin })
    }
}

/// Bytes up to a zero byte, and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ ..=250 => out.push(short as u8),
        long => {
            out.push(252);
            out.extend_from_slice(&(long as u16).to_le_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// What somebody who knows the password answers.
fn scramble(password: &str, challenge: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password.as_bytes());
    let twice = Sha1::digest(once);
    let mask = Sha1::new().chain_update(challenge).chain_update(twice).finalize();
    once.iter().zip(mask.iter()).map(|(a, b)| a ^ b).collect()
}

/// Compares in a time that says nothing of where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_login_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Login::parse(&bytes);
        }
    }

    /// Both sides of a connection.
    fn connected(cancel: &Cancel) -> (Wire, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Wire::new(listener.accept().unwrap().0, cancel).unwrap(), peer)
    }

    #[test]
    fn whoever_does_not_read_does_not_delay_the_end() {
        let cancel = Cancel::new();
        let (mut wire, _peer) = connected(&cancel);
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || {
                loop {
                    if let Err(error) = wire.send(&[&[0; OUTPUT]]) {
                        // Nor does telling it.
                        assert!(wire.error(1236, "the end").is_err());
                        return error;
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(500));
            assert!(!sending.is_finished());
            let began = Instant::now();
            cancel.cancel();
            sending.join().unwrap();
            assert!(began.elapsed() < Duration::from_secs(2));
        });
    }

    #[test]
    fn whoever_has_not_logged_in_sends_next_to_nothing() {
        let (mut wire, mut peer) = connected(&Cancel::new());
        let length = (LOGIN_MAX as u32 + 1).to_le_bytes();
        peer.write_all(&[length[0], length[1], length[2], 0]).unwrap();
        assert!(wire.request().unwrap_err().to_string().contains("too long"));
        assert!(wire.output.capacity() == 0);
        wire.is_in = true;
        peer.write_all(&[1, 0, 0, 0, 14]).unwrap();
        assert_eq!(wire.request().unwrap(), Some(vec![14]));
    }

    #[test]
    fn tokens() {
        assert!(scramble("", b"12345678901234567890").is_empty());
        let token = scramble("secret", b"12345678901234567890");
        let other = scramble("other", b"12345678901234567890");
        assert_eq!(token.len(), 20);
        assert!(same(&token, &token.clone()) && !same(&token, &other) && !same(&token, &[]));
    }
}
