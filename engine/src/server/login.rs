//! How a connection to a server begins: to the right place, encrypted if that is wanted, logged in.
//!
//! Logins by password (`mysql_native_password`, `ed25519`, `parsec`) and by socket are known. A password
//! never leaves this process; what does proves that it is known. What the server wants signed is taken
//! byte for byte: one in 256 ends with a zero.

use std::io::ErrorKind as Io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use binlog::reader::EVENT_MAX;
use mysql_common::packets::{AuthPlugin, AuthPluginData};

use super::connect::{ConnectOptions, Endpoint};
use super::failure::Failure;
use super::tls;
use super::wire::{Carrier, Fields, GLANCE, Wire, answer, capability, refused};
use crate::{Cancel, Error, ErrorKind};

/// How long connecting may take by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle TCP connection shows that it lives, so that nothing in between forgets it.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Character set of the connection: utf8mb4.
const CHARSET: u8 = 45;
/// What `mysql_native_password` hashes; a zero byte follows it.
const SCRAMBLE_LEN: usize = 20;
/// What a server shows of its clients.
const ATTRIBUTES: [(&str, &str); 1] = [("program_name", env!("CARGO_PKG_NAME"))];

/// How to encrypt a connection, the name of its host, and what is to be encrypted.
type Encrypts<'a> = ((Arc<rustls::ClientConfig>, &'a str), TcpStream);

impl Wire {
    /// Connects and logs in as a client that can do this.
    pub fn connect(
        options: &ConnectOptions,
        capabilities: u32,
        cancel: &Cancel,
    ) -> Result<Self, Failure> {
        let timeout = options.connect_timeout.unwrap_or(TIMEOUT);
        let (endpoint, mut encrypts, mut tcp) = (options.endpoint(), None, None);
        let carrier: Box<dyn Carrier> = match &endpoint {
            Endpoint::Socket(path) => {
                let path = path.clone();
                Box::new(beside((timeout, cancel), move || UnixStream::connect(path))?)
            }
            Endpoint::Tcp(host, port) => {
                let config = options.wanted_tls().map(tls::client).transpose()?;
                encrypts = config.map(|config| (config, host.as_str()));
                let place = (host.clone(), *port);
                let stream = beside((timeout, cancel), move || reach(&place, timeout))?;
                stream.set_nodelay(true)?;
                rustix::net::sockopt::set_socket_keepalive(&stream, true)
                    .and_then(|()| rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE))
                    .map_err(std::io::Error::from)?;
                tcp = Some(stream.try_clone()?);
                Box::new(stream)
            }
        };
        carrier.wait_at_most(GLANCE, GLANCE)?;
        let mut wire = Self::over(carrier, cancel);
        wire.within(timeout);
        wire.log_in(options, capabilities, encrypts.zip(tcp))?;
        wire.for_ever();
        Ok(wire)
    }

    /// Logs in; first, if it is wanted, the connection is encrypted.
    fn log_in(
        &mut self,
        options: &ConnectOptions,
        capabilities: u32,
        encrypts: Option<Encrypts<'_>>,
    ) -> Result<(), Failure> {
        let greeting = self.awaited()?;
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
        reply.extend((capabilities | ssl | capability::ATTRIBUTES).to_le_bytes());
        reply.extend(EVENT_MAX.to_le_bytes());
        reply.push(CHARSET);
        reply.extend([0; 23]);
        if let Some(((config, host), stream)) = encrypts {
            if u32::from(offered) & capability::SSL == 0 {
                return Err(Error::new(ErrorKind::Server, "the server does not offer TLS")
                    .advise("say --skip-ssl on a network of trust")
                    .into());
            }
            self.send(&reply)?;
            self.carry_over(Box::new(tls::connect(config, host, stream)?));
        }
        reply.extend(options.user_name()?.as_bytes());
        reply.push(0);
        reply.push(first.len() as u8);
        reply.extend(first);
        reply.extend(plugin);
        reply.push(0);
        let words = ATTRIBUTES.iter().flat_map(|(name, value)| [name, value]);
        let words: Vec<u8> =
            words.flat_map(|word| [&[word.len() as u8], word.as_bytes()].concat()).collect();
        reply.push(words.len() as u8);
        reply.extend(words);
        self.send(&reply)?;
        loop {
            let answer = self.awaited()?;
            let Some((&answer::END, rest)) = answer.split_first() else {
                return match answer.first() {
                    Some(&answer::OK) => Ok(()),
                    _ => Err(refused(&answer)),
                };
            };
            let mut bytes = Fields(rest);
            let plugin = bytes.text();
            let nonce = match bytes.0 {
                [nonce @ .., 0] if nonce.len() == SCRAMBLE_LEN => nonce,
                nonce => nonce,
            };
            let proof = match plugin {
                b"parsec" => self.parsec(password, nonce)?,
                _ => proof(plugin, password, nonce).ok_or_else(|| {
                    let plugin = String::from_utf8_lossy(plugin);
                    let message = format!("the account uses the login method {plugin}");
                    Error::new(ErrorKind::Server, message).advise(
                        "use an account with unix_socket, mysql_native_password, ed25519 or parsec",
                    )
                })?,
            };
            self.send(&proof)?;
        }
    }

    /// Asks for the salt of a password, and signs with it what the server wants signed.
    fn parsec(&mut self, password: Option<&str>, nonce: &[u8]) -> Result<Vec<u8>, Failure> {
        self.send(&[])?;
        let answer = self.awaited()?;
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
}

/// Does what cannot be interrupted in a thread of its own, which is left alone when nobody waits for it
/// any more.
fn beside<T: Send + 'static>(
    (timeout, cancel): (Duration, &Cancel),
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("connect".to_owned()).spawn(move || {
        let _ = sender.send(work());
    })?;
    let begun = std::time::Instant::now();
    loop {
        match receiver.recv_timeout(GLANCE.min(timeout)) {
            Ok(Err(error)) if error.kind() == Io::TimedOut => {
                return Err(Failure::Deadline(timeout));
            }
            Ok(done) => return done.map_err(Failure::Lost),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Closed),
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => {
                return Err(Failure::Cancelled);
            }
            Err(RecvTimeoutError::Timeout) if begun.elapsed() >= timeout => {
                return Err(Failure::Deadline(timeout));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Connects to the first address of a host that answers.
fn reach(place: &(String, u16), timeout: Duration) -> std::io::Result<TcpStream> {
    let mut last = Io::NotFound.into();
    for address in (place.0.as_str(), place.1).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
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
