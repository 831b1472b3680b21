//! The server that somebody starts on what was restored: waiting for it, and knowing it.
//!
//! No program of ours starts a server. Which one answers at a socket says nothing of the data that it
//! has: only one whose data directory is the one that was restored is taken.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::server::connect::Endpoint;
use crate::server::{ConnectOptions, Session, Wait};
use crate::{Cancel, Error, ErrorKind, Result};

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a host may take to say that nobody is there.
const GLANCE: Duration = Duration::from_secs(2);

/// Whether somebody answers where the server is to be.
fn answers(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Socket(path) => UnixStream::connect(path).is_ok(),
        Endpoint::Tcp(host, port) => (host.as_str(), *port).to_socket_addrs().is_ok_and(|found| {
            found.into_iter().any(|address| TcpStream::connect_timeout(&address, GLANCE).is_ok())
        }),
    }
}

/// Refuses a place at which a server runs already: it is not the one that is yet to be started.
pub fn nobody_yet(connect: &ConnectOptions) -> Result<()> {
    let endpoint = connect.endpoint();
    if !answers(&endpoint) {
        return Ok(());
    }
    let message = format!("a server runs already at {endpoint}, before anything was restored");
    Err(Error::new(ErrorKind::Usage, message)
        .advise("name the socket that the restored server is going to have: --socket FILE"))
}

/// Waits until a server is started, for as long as it takes.
///
/// # Errors
/// [`ErrorKind::Usage`] if the server that comes runs on another directory.
pub fn await_server(connect: &ConnectOptions, datadir: &Path, cancel: &Cancel) -> Result<()> {
    let endpoint = connect.endpoint();
    while !answers(&endpoint) {
        cancel.check()?;
        std::thread::sleep(INTERVAL);
    }
    let mut session = Session::connect(connect, cancel)?;
    let wait = Wait::short("asking for the data directory");
    let named = session.value("SELECT @@GLOBAL.datadir", wait)?.unwrap_or_default();
    session.close();
    let real = |path: &Path| path.canonicalize().ok();
    if real(Path::new(&named)).is_some_and(|there| real(datadir) == Some(there)) {
        return Ok(());
    }
    let message =
        format!("the server at {endpoint} runs on {named}, and not on {}", datadir.display());
    Err(Error::new(ErrorKind::Usage, message).advise(
        "start the restored one there; if it has this directory under another name, as in a \
         container, use haulout replay",
    ))
}
