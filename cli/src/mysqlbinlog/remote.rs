//! From the logs of a server to text, or to files.
//!
//! A server sends a log as to a replica: events, and in front of each log one that names it and is in
//! no file. Without `--to-last-log` the next such name ends a log. Offsets in the text are counted as
//! the stock tool counts them: from where it began to read, and on beyond the ends of logs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use binlog::dump::{Dump, Went};
use binlog::event::Rotate;
use binlog::format::{Checksum, FIRST_EVENT, FormatDescription, MAGIC};
use binlog::header::{CHECKSUM_LEN, HEADER_LEN, flag};
use binlog::reader::checksum_of;
use binlog::{BinlogPosition, Event, EventType, Header};
use engine::server::connect::CLIENT_GROUPS;
use engine::server::feed::{Came, Source, Wanted};
use engine::server::option_file::OptionFiles;
use engine::server::{ConnectOptions, TlsOptions};

use super::OWN_GROUPS;
use super::parse::Given;
use super::request::Request;
use crate::stock::value::{Refusal, Value};

/// The bytes of a file that are collected before they are written.
const OUTPUT: usize = 1 << 20;

/// Where the server is, by option files, the environment and arguments.
pub fn connect_options(files: &OptionFiles, given: &[Given]) -> Result<ConnectOptions, Refusal> {
    let groups = [CLIENT_GROUPS, OWN_GROUPS];
    let weak = ConnectOptions::from_groups(files, &groups, &|name| std::env::var(name).ok());
    let weak = weak.map_err(Refusal::error)?;
    let mut typed = ConnectOptions::default();
    for Given { entry, value } in given {
        let text = match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        let path = text.clone().map(PathBuf::from);
        match entry.name {
            "host" => typed.host = text,
            "user" => typed.user = text,
            "socket" => typed.socket = path,
            "port" => {
                let port = text.and_then(|text| text.parse().ok());
                typed.port = Some(port.ok_or_else(|| Refusal::error("--port is not a port"))?);
            }
            "protocol" => {
                use engine::server::Protocol;
                typed.protocol = match text.unwrap_or_default().to_ascii_lowercase().as_str() {
                    "tcp" => Some(Protocol::Tcp),
                    "socket" => Some(Protocol::Socket),
                    other => {
                        let message = format!("--protocol={other} is not supported by haulout");
                        return Err(Refusal::error(message));
                    }
                };
            }
            "password" => {
                typed.password = Some(text.ok_or_else(|| {
                    Refusal::error(
                        "asking for a password is not supported by haulout: give it in an option \
                         file, or in MYSQL_PWD",
                    )
                })?);
            }
            "ssl" => {
                (typed.tls.enabled, typed.skip_tls) = match value {
                    Value::Off => (false, true),
                    _ => (true, false),
                }
            }
            "ssl-verify-server-cert" => typed.tls.verify = *value != Value::Off,
            name => {
                typed.tls.set(name, text.as_deref().unwrap_or_default());
                typed.skip_tls &= !TlsOptions::asks(name);
            }
        }
    }
    Ok(weak.overlaid_with(typed))
}

/// What a server sends of a log, and of those behind it.
struct Feed<'a> {
    source: Source,
    /// The log that was asked for.
    log: &'a str,
    to_last: bool,
    verify: bool,
    /// The log that is being sent.
    name: String,
    offset: u64,
    checksum: Checksum,
}

/// The next of it.
enum Next<'b> {
    Event(Event<'b>),
    /// A log begins.
    Log,
    Nothing,
    End,
}

impl<'a> Feed<'a> {
    fn open(
        request: &Request,
        connect: &ConnectOptions,
        log: &'a str,
        is_first: bool,
    ) -> Result<Self, Refusal> {
        let remote = &request.remote;
        let start = if is_first { request.options.start_position } else { FIRST_EVENT };
        let position = u32::try_from(start)
            .map_err(|_| Refusal::error("a server cannot be asked for positions beyond 4 GiB"))?;
        let wanted = Wanted {
            server_id: if remote.waits { remote.server_id } else { 0 },
            file: log,
            registers: false,
            position,
            gtids: remote.gtids.as_deref(),
            waits: remote.waits,
            annotations: request.options.annotations,
            checksum: "'NONE'",
            ..Wanted::default()
        };
        let source = Source::open(connect, &wanted).map_err(Refusal::error)?;
        Ok(Self {
            source,
            log,
            to_last: remote.to_last || remote.waits,
            verify: request.read.verify,
            name: log.to_owned(),
            offset: start,
            checksum: Checksum::None,
        })
    }

    /// The next event; `buffer` is where its bytes are.
    fn next<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<Next<'b>, Refusal> {
        match self.source.receive().map_err(Refusal::error)? {
            Came::End => return Ok(Next::End),
            Came::Nothing => return Ok(Next::Nothing),
            Came::Event(bytes, _) => *buffer = bytes,
        }
        let broken = |what: &dyn std::fmt::Display| {
            Refusal::error(format!("the server sent what cannot be understood: {what}"))
        };
        let header = Header::parse(buffer).map_err(|what| broken(&what))?;
        let mut checksum = self.checksum;
        let mut advances = true;
        let mut begins = false;
        match header.kind {
            EventType::HEARTBEAT => return Ok(Next::Nothing),
            EventType::ROTATE if header.has(flag::ARTIFICIAL) => {
                // Whether it has a checksum only its bytes say.
                let stored = buffer.last_chunk().map(|bytes| u32::from_le_bytes(*bytes));
                let has = stored == Some(checksum_of(buffer));
                checksum = if has { Checksum::Crc32 } else { Checksum::None };
                let tail = if has { CHECKSUM_LEN } else { 0 };
                let body = buffer.get(HEADER_LEN..buffer.len() - tail).unwrap_or_default();
                let rotate = Rotate::parse(body).map_err(|what| broken(&what))?;
                let name = String::from_utf8_lossy(rotate.file).into_owned();
                if !self.to_last && name != self.log {
                    return Ok(Next::End);
                }
                self.name = name;
                (advances, begins) = (false, true);
            }
            EventType::FORMAT_DESCRIPTION => {
                let format = FormatDescription::parse(buffer).map_err(|what| broken(&what))?;
                self.checksum = format.checksum;
                checksum = format.checksum;
                // One that is sent because reading begins behind it is not there.
                advances = self.offset == FIRST_EVENT;
            }
            _ => {}
        }
        let event = Event::parse(buffer, self.offset, checksum).map_err(|what| broken(&what))?;
        if self.verify && event.checksum.is_some_and(|stored| stored != checksum_of(event.bytes)) {
            return Err(broken(&format!("an event at {} with a wrong checksum", self.offset)));
        }
        if advances {
            self.offset = event.end();
        }
        Ok(if begins && !self.to_last { Next::Log } else { Next::Event(event) })
    }
}

/// Prints logs of a server.
pub fn dump(
    request: &Request,
    connect: &ConnectOptions,
    logs: &[String],
    sink: &mut dyn Write,
    warn: &mut dyn FnMut(String),
) -> Result<(), Refusal> {
    let mut dump = Dump::begin(&request.options, sink);
    for (index, log) in logs.iter().enumerate() {
        dump.begin_log(index + 1 == logs.len());
        let went = match Feed::open(request, connect, log, index == 0) {
            Ok(feed) => print(&mut dump, feed),
            Err(refusal) => Err(refusal),
        };
        dump.take_notes().into_iter().for_each(&mut *warn);
        match went {
            Ok(Went::On) => {}
            Ok(Went::Stopped) => break,
            Err(refusal) => {
                dump.flush().map_err(Refusal::error)?;
                return Err(refusal);
            }
        }
    }
    dump.end().map_err(Refusal::error)?.into_iter().for_each(warn);
    Ok(())
}

fn print<W: Write>(dump: &mut Dump<'_, W>, mut feed: Feed<'_>) -> Result<Went, Refusal> {
    let mut buffer = Vec::new();
    loop {
        match feed.next(&mut buffer)? {
            Next::End => return Ok(dump.end_log(feed.offset)),
            Next::Log => {}
            // Whoever waits wants to see what there is.
            Next::Nothing => dump.flush().map_err(Refusal::error)?,
            Next::Event(event) => {
                let went = dump.take(&feed.name, &event).map_err(Refusal::error)?;
                if went == Went::Stopped {
                    dump.stop_log();
                    return Ok(went);
                }
            }
        }
    }
}

/// Writes logs of a server to files, byte for byte.
pub fn raw(
    request: &Request,
    connect: &ConnectOptions,
    logs: &[String],
    warn: &mut dyn FnMut(String),
) -> Result<(), Refusal> {
    for (name, is_given) in [
        ("database", request.options.database.is_some()),
        ("stop-position", request.options.stop_position.is_some()),
        ("stop-datetime", request.options.stop_time.is_some()),
    ] {
        if is_given {
            warn(format!("The --{name} option is ignored in raw mode"));
        }
    }
    let prefix = request.result_file.as_deref().unwrap_or_default();
    for (index, log) in logs.iter().enumerate() {
        let mut feed = Feed::open(request, connect, log, index == 0)?;
        let mut out: Option<Out> = None;
        let mut buffer = Vec::new();
        loop {
            match feed.next(&mut buffer)? {
                Next::End => break,
                Next::Log => {}
                Next::Nothing => out.as_mut().map_or(Ok(()), Out::flush)?,
                Next::Event(event) => {
                    let kind = event.header.kind;
                    if kind == EventType::ROTATE && event.header.has(flag::ARTIFICIAL) {
                        continue;
                    }
                    if kind == EventType::FORMAT_DESCRIPTION {
                        out.as_mut().map_or(Ok(()), Out::flush)?;
                        out = Some(Out::create(prefix, &feed.name)?);
                    }
                    if let Some(out) = &mut out {
                        out.write(event.bytes)?;
                    }
                }
            }
        }
        out.as_mut().map_or(Ok(()), Out::flush)?;
    }
    Ok(())
}

/// A file that is being written.
struct Out {
    path: String,
    file: BufWriter<File>,
}

impl Out {
    fn create(prefix: &str, name: &str) -> Result<Self, Refusal> {
        // The server chooses the name, but not the place.
        let plain = BinlogPosition::new(name, FIRST_EVENT);
        let plain = plain.map_err(Refusal::error)?;
        let path = format!("{prefix}{}", plain.file());
        let created = File::create(&path);
        let file = created
            .map_err(|_| Refusal::error(format!("Could not create output log file: {path}")))?;
        let mut out = Self { path, file: BufWriter::with_capacity(OUTPUT, file) };
        out.write(&MAGIC)?;
        Ok(out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.failed(&error))
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        let flushed = self.file.flush();
        flushed.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Refusal {
        Refusal::error(format!("Could not write into log file '{}': {error}", self.path))
    }
}
