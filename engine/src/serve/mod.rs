//! Binary logs for replicas: the primary's side of the replication protocol, from logs that are kept.
//!
//! A restored server becomes a replica of this, catches up with its own parallel appliers, and stops
//! where the logs are cut: what is behind the target is never sent. Then the connection stays open and
//! idle, as that of a primary that nobody writes to.
//!
//! From files, or from an archive. With a certificate only encrypted connections are let in.
//!
//! Whoever connects is to log in, and takes a thread; there are not many at a time, and who has not logged in
//! makes room for others. One that does not read is left, and delays nobody.
//!
//! Only by GTID: the position of the replica says what it has. Events are sent as they are in the logs;
//! encrypted ones are decrypted on the way.
//!
//! | module | what |
//! |---|---|
//! | `seats` | how many are connected |
//! | `wire` | packets, login, answers |
//! | `stream` | what a replica is sent |

mod seats;
mod stream;
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::keys::settings::KeyStore;
use crate::replay::source::LogSource;
use crate::replay::{Cut, ReplayOptions};
use crate::server::tls;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};
use seats::{Seat, Seats};
use wire::{Account, Wire};

/// How often a wait looks whether somebody interrupts.
const INTERVAL: Duration = Duration::from_millis(100);
/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Who may connect, and where.
pub struct ServeOptions {
    /// Address to listen at.
    pub listen: SocketAddr,
    /// Name of the account.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Certificate and key, with which only encrypted connections are served.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `server_id` that replicas see; that of the logs if nothing is said.
    pub server_id: Option<u32>,
}

/// What was served.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ServeSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Connections of replicas that got events.
    pub replicas: u32,
}

/// Serves logs until somebody interrupts. `options` says where to stop; its anchor is of no account.
pub fn serve(
    source: &dyn LogSource,
    options: &ReplayOptions,
    serve: &ServeOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<ServeSummary> {
    let tls = serve.tls.as_ref().map(|(cert, key)| tls::server(cert, key)).transpose()?;
    let cut = crate::replay::cut(source, options, cancel, reporter)?;
    let listener = TcpListener::bind(serve.listen).map_err(|cause| {
        Error::new(ErrorKind::Failed, format!("cannot listen at {}", serve.listen)).caused_by(cause)
    })?;
    let broken = |cause| Error::new(ErrorKind::Failed, "cannot wait for replicas").caused_by(cause);
    listener.set_nonblocking(true).map_err(broken)?;
    let address = listener.local_addr().map_err(broken)?;
    reporter.info(format!("listening at {address}, up to {} ({})", cut.state, cut.words));
    let replicas = AtomicU32::new(0);
    let stop = cancel.child();
    let seats = Seats::new(CONNECTIONS);
    std::thread::scope(|scope| {
        let mut number = 0;
        while !cancel.is_cancelled() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    number += 1;
                    let seat = match seats.take(number, peer, &stream) {
                        Ok(Some(taken)) => {
                            if let Some(stranger) = taken.sent_away {
                                reporter.warn(format!(
                                    "{stranger} is sent away: it has not logged in, and others come"
                                ));
                            }
                            taken.seat
                        }
                        Ok(None) => {
                            let words = format!("there are {CONNECTIONS} replicas already");
                            reporter.warn(format!("{peer} is sent away: {words}"));
                            continue;
                        }
                        Err(error) => {
                            reporter.warn(format!("{peer} is sent away: {error}"));
                            continue;
                        }
                    };
                    let keys = options.keys.clone();
                    let tls = tls.clone();
                    let (stop, cut, replicas) = (&stop, &cut, &replicas);
                    let talk = move || {
                        let mut replica = Replica {
                            source,
                            keys,
                            tls,
                            cut,
                            serve,
                            filter: &options.skip,
                            cancel: stop,
                            reporter,
                            served: replicas,
                        };
                        match replica.talk(stream, number, &seat) {
                            Ok(()) => reporter.info(format!("{peer} has left")),
                            Err(error) => {
                                reporter.warn(format!("{peer}: {}", error.with_advice()));
                            }
                        }
                    };
                    if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, talk) {
                        reporter.warn(format!("{peer} is sent away: {error}"));
                    }
                }
                // Whoever has left again is nobody.
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(INTERVAL);
                }
                Err(error) => {
                    stop.cancel();
                    return Err(broken(error));
                }
            }
        }
        stop.cancel();
        Ok(())
    })?;
    Ok(ServeSummary { format: 1, replicas: replicas.load(Ordering::Relaxed) })
}

/// A connection.
struct Replica<'a> {
    source: &'a dyn LogSource,
    keys: Option<Arc<KeyStore>>,
    tls: Option<Arc<rustls::ServerConfig>>,
    cut: &'a Cut,
    serve: &'a ServeOptions,
    filter: &'a std::collections::BTreeSet<binlog::Gtid>,
    cancel: &'a Cancel,
    reporter: &'a dyn Reporter,
    served: &'a AtomicU32,
}

/// Commands of the protocol.
mod command {
    pub const QUIT: u8 = 1;
    pub const QUERY: u8 = 3;
    pub const PING: u8 = 14;
    pub const BINLOG_DUMP: u8 = 18;
    pub const REGISTER_SLAVE: u8 = 21;
}

/// What the replica said of itself.
#[derive(Debug, Default)]
struct Wishes {
    heartbeat: Option<Duration>,
    checksums: bool,
    capability: u32,
    from: Option<String>,
    until: bool,
}

impl Replica<'_> {
    fn talk(&mut self, stream: TcpStream, number: u32, seat: &Seat<'_>) -> Result<()> {
        let lost =
            |cause| Error::new(ErrorKind::Server, "the connection is broken").caused_by(cause);
        stream.set_nonblocking(false).map_err(lost)?;
        let mut wire = Wire::new(stream, self.cancel).map_err(lost)?;
        let version = self.version();
        let serve = self.serve;
        let account = Account {
            user: serve.user.clone(),
            password: serve.password.clone(),
            tls: self.tls.clone(),
        };
        if !wire.log_in(&version, number, &account).map_err(lost)? {
            return Err(Error::new(ErrorKind::Usage, "the login was refused"));
        }
        if !seat.keep() {
            return Err(Error::new(ErrorKind::Usage, "others came before it had logged in"));
        }
        let mut wishes = Wishes::default();
        while let Some(request) = wire.request().map_err(lost)? {
            self.cancel.check()?;
            match request.split_first() {
                Some((&command::QUERY, text)) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    self.query(&mut wire, &mut wishes, text.trim()).map_err(lost)?;
                }
                Some((&(command::PING | command::REGISTER_SLAVE), _)) => wire.ok().map_err(lost)?,
                Some((&command::BINLOG_DUMP, _)) => return self.dump(&mut wire, &wishes),
                Some((&command::QUIT, _)) | None => return Ok(()),
                Some(_) => wire.error(1047, "only replication is served here").map_err(lost)?,
            }
        }
        Ok(())
    }

    /// The version of the server that wrote the logs, in the way in which replicas understand it.
    fn version(&self) -> String {
        let version = self.source.logs().first().map_or("10.11.0-MariaDB", |log| &*log.version);
        if version.starts_with("10.") { format!("5.5.5-{version}") } else { version.to_owned() }
    }

    fn server_id(&self) -> u32 {
        let of_log = self.source.logs().first().map_or(1, |log| log.server);
        self.serve.server_id.unwrap_or(of_log)
    }

    /// Answers what replicas ask before they begin.
    fn query(&self, wire: &mut Wire, wishes: &mut Wishes, text: &str) -> std::io::Result<()> {
        let upper = text.to_ascii_uppercase();
        let one =
            |wire: &mut Wire, name: &str, value: String| wire.rows(&[name], &[vec![Some(value)]]);
        if let Some(setting) = upper.strip_prefix("SET ") {
            let value = || text.split_once('=').map_or("", |(_, value)| value.trim());
            let number = || value().trim_matches('\'').parse::<f64>().unwrap_or(0.0);
            let of = |name: &str| setting.trim_start().starts_with(name);
            if of("@MASTER_HEARTBEAT_PERIOD") {
                let period = Duration::from_nanos(number() as u64);
                wishes.heartbeat = Some(period).filter(|period| !period.is_zero());
            } else if of("@MASTER_BINLOG_CHECKSUM") {
                wishes.checksums = true;
            } else if of("@MARIADB_SLAVE_CAPABILITY") {
                wishes.capability = number() as u32;
            } else if of("@SLAVE_CONNECT_STATE") {
                wishes.from = Some(value().trim_matches('\'').to_owned());
            } else if of("@SLAVE_UNTIL_GTID") {
                wishes.until = true;
            }
            return wire.ok();
        }
        match upper.as_str() {
            "SELECT UNIX_TIMESTAMP()" => {
                let now = jiff::Timestamp::now().as_second();
                one(wire, "UNIX_TIMESTAMP()", now.to_string())
            }
            "SHOW VARIABLES LIKE 'SERVER_ID'" => {
                let row = vec![Some("server_id".to_owned()), Some(self.server_id().to_string())];
                wire.rows(&["Variable_name", "Value"], &[row])
            }
            "SELECT @MASTER_BINLOG_CHECKSUM" => {
                one(wire, "@master_binlog_checksum", "CRC32".to_owned())
            }
            "SELECT @@GLOBAL.GTID_DOMAIN_ID" => {
                one(wire, "@@GLOBAL.gtid_domain_id", "0".to_owned())
            }
            _ if upper.starts_with("SHOW VARIABLES") => wire.rows(&["Variable_name", "Value"], &[]),
            _ if upper.starts_with("SELECT BINLOG_GTID_POS") => {
                wire.rows(&["binlog_gtid_pos"], &[vec![None]])
            }
            _ => wire.error(1064, "only what replicas ask is answered here"),
        }
    }
}
