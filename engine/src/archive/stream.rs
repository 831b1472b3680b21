//! Archiving a binary log while it is written, as a replica gets it.
//!
//! Each connection begins at the beginning of a file, so that the file is known for what it is before
//! anything is added to it: what is stored of it is passed over. Which file that is, the archive says
//! (`start`). So a stream goes on after any interruption, its own or that of the server, and with another
//! server after a failover.
//!
//! What is stored ends between transactions: it is when it has waited for long enough, when there is
//! enough of it, before a transaction that is long, or when the server waits for it. The server is told
//! of nothing that is not stored. Of a file that is closed the small parts that this
//! makes are merged, beside the stream, which does not wait for it.

mod kin;
mod refusal;
mod start;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use binlog::event::GtidEvent;
use binlog::format::{Checksum, FIRST_EVENT};
use binlog::{EventType, Gtid};

use super::Archive;
use super::anew::is_scattered;
use super::arriving::{as_in_file, begins, nameless, sent};
use super::catalog::{File, Newcomer};
use super::gaps::Missing;
use super::layout::number_of;
use super::writer::Writer;
use crate::repo::Repository;
use crate::server::feed::{Came, GLANCE, Source, Wanted};
use crate::server::{ConnectOptions, Session, Wait};
use crate::{Cancel, Error, ErrorKind, Reporter, Result};
use kin::Kin;

/// First and longest pause before connecting again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A connection that says nothing for so many heartbeats is dead.
const HEARTBEATS: u32 = 5;
/// How often the server shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How to stream.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Where the server is.
    pub connect: ConnectOptions,
    /// The `server_id` of this replica, which no other replica of the server may have.
    pub server_id: u32,
    /// How long bytes may wait before they are stored.
    pub rpo: Duration,
    /// Whether the server waits until transactions are stored, if it is set up to.
    pub semi_sync: bool,
    /// Whether the server is to keep its logs while this replica is away.
    pub hold: bool,
    /// Whether a server may come that has nothing in common with what is there, or was reset.
    pub accept_new_server: bool,
    /// For how long to try again when the server cannot be reached; for ever, if nothing is said.
    pub patience: Option<Duration>,
}

/// What was done.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct StreamSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Bytes of the log that were stored.
    pub bytes: u64,
    /// Bytes that they take in the store.
    pub stored_bytes: u64,
    /// Transactions that were stored.
    pub transactions: u64,
    /// Objects that were put.
    pub objects: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Acknowledgements that were sent.
    pub acknowledged: u64,
    /// The longest time that bytes had waited when they were stored.
    pub longest_wait_seconds: f64,
    /// What the server had purged before it was archived: the archive has gaps there.
    pub missing: Vec<Missing>,
}

/// Streams until `cancel` is raised; what has come until then is stored.
///
/// # Errors
/// What trying again does not help against; or, once `patience` is over, why there is no connection.
pub fn stream(
    repository: &Repository,
    options: &StreamOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<StreamSummary> {
    // Nobody waits for what is being merged when the stream ends.
    let stop = cancel.child();
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel::<File>();
        let stop = &stop;
        scope.spawn(move || {
            for file in receive {
                merge(repository, &file, stop, reporter);
            }
        });
        let streamed = reconnecting(repository, options, &send, cancel, reporter);
        stop.cancel();
        streamed
    })
}

/// Writes a closed file anew, in large parts.
fn merge(repository: &Repository, file: &File, cancel: &Cancel, reporter: &dyn Reporter) {
    let archive = Archive::without_catalog(repository);
    match archive.write_anew(file, repository, cancel) {
        Ok(parts) => reporter.info(format!(
            "the {} parts of {} were merged to {}",
            file.parts.len(),
            file.name,
            parts.len()
        )),
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        // All of it is there already.
        Err(error) => reporter.warn(format!("cannot merge the parts of {}: {error}", file.name)),
    }
}

/// Connects again and again.
fn reconnecting(
    repository: &Repository,
    options: &StreamOptions,
    merge: &mpsc::Sender<File>,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<StreamSummary> {
    let mut summary = StreamSummary { format: 1, ..StreamSummary::default() };
    let mut pause = PAUSES.0;
    let mut good = Instant::now();
    let mut worked = false;
    while !cancel.is_cancelled() {
        let before = summary.bytes;
        let told = (&mut summary, merge, &mut worked);
        let ended = connect(repository, options, told, cancel, reporter);
        let error = match ended {
            Ok(()) => return Ok(summary),
            Err(error) => refusal::explained(error, options.hold),
        };
        // An account that worked may work again; one that never did is not set up.
        let is_final = !worked && refusal::is_final(&error);
        let passes = !is_final && matches!(error.kind(), ErrorKind::Server | ErrorKind::Timeout);
        if cancel.is_cancelled() && (passes || error.kind() == ErrorKind::Interrupted) {
            break;
        }
        if summary.bytes > before {
            (pause, good) = (PAUSES.0, Instant::now());
        }
        let patient = options.patience.is_none_or(|patience| good.elapsed() < patience);
        if !passes || !patient {
            return Err(error);
        }
        let told = error.with_advice();
        reporter.warn(format!("{told}; trying again in {:.1} s", pause.as_secs_f64()));
        let until = Instant::now() + pause;
        while Instant::now() < until && !cancel.is_cancelled() {
            std::thread::sleep(GLANCE);
        }
        pause = (pause * 2).min(PAUSES.1);
    }
    Ok(summary)
}

/// One connection, to its end.
fn connect(
    repository: &Repository,
    options: &StreamOptions,
    (summary, merge, worked): (&mut StreamSummary, &mpsc::Sender<File>, &mut bool),
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<()> {
    let mut session = Session::connect(&options.connect, cancel)?;
    let wait = Wait::short("asking for the binary logs");
    let server = session.value("SELECT @@GLOBAL.server_id", wait)?;
    let server: u32 = server.and_then(|id| id.parse().ok()).unwrap_or(0);
    if server == options.server_id {
        let message = format!("the server itself has the server_id {server}");
        return Err(Error::new(ErrorKind::Usage, message)
            .advise("choose a number that no server and no other replica has: --server-id"));
    }
    let logs = session.value("SELECT @@GLOBAL.log_bin", wait)?;
    if options.semi_sync {
        let sql = "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_master_enabled'";
        let on = session.query(sql, wait)?;
        let on = on.first().and_then(|row| row.text("Value").map(|value| value == "ON"));
        if on != Some(true) {
            reporter.warn(
                "the server does not wait for acknowledgements until rpl_semi_sync_master_enabled is \
                 set to ON"
                    .to_owned(),
            );
        }
    }
    let others = kin::of_others(&mut session, server, wait)?;
    session.close();
    if logs.as_deref() != Some("1") {
        return Err(Error::new(ErrorKind::Usage, "the server writes no binary log (log_bin)"));
    }
    let archive = Archive::read(repository, cancel)?;
    let mut wanted =
        Wanted { server_id: options.server_id, heartbeat: HEARTBEAT, ..Wanted::default() };
    let start::First { name: first, missing } =
        start::first_file(&archive, server, options, &wanted, reporter)?;
    // Told again when a connection ended before anything was stored.
    let is_new = |it: &Missing| !summary.missing.contains(it);
    let missing: Vec<Missing> = missing.into_iter().filter(is_new).collect();
    summary.missing.extend(missing);
    reporter.info(format!("streaming from {first} of server {server}"));
    wanted.file = &first;
    wanted.semi_sync = options.semi_sync;
    let mut source = Source::open(&options.connect, &wanted)?;
    summary.connections += 1;
    let mut stream = Stream {
        archive,
        options,
        source: &mut source,
        summary,
        merge,
        reporter,
        file: None,
        waiting_since: None,
        ack: None,
        heard: (Instant::now(), 0),
        held: false,
        worked,
        others,
    };
    stream.run(cancel)
}

/// What a stream comes from.
trait Feed {
    fn receive(&mut self) -> Result<Came>;
    fn received(&self) -> u64;
    fn has_more(&self) -> bool;
    fn acknowledge(&mut self, file: &str, position: u64) -> Result<()>;
}

impl Feed for Source {
    fn receive(&mut self) -> Result<Came> {
        self.receive()
    }

    fn received(&self) -> u64 {
        self.received()
    }

    fn has_more(&self) -> bool {
        self.has_more()
    }

    fn acknowledge(&mut self, file: &str, position: u64) -> Result<()> {
        self.acknowledge(file, position)
    }
}

/// The file that is being received.
struct Receiving {
    name: String,
    writer: Writer,
    checksum: Checksum,
    position: u64,
    /// Where it is to be stored from on, once that is known.
    stored: Option<u64>,
    /// Whether that it belongs here was only said, and not seen yet.
    doubted: bool,
}

/// One connection.
struct Stream<'a, 'r> {
    archive: Archive<'r>,
    options: &'a StreamOptions,
    source: &'a mut dyn Feed,
    summary: &'a mut StreamSummary,
    /// Where files go whose parts are to be merged.
    merge: &'a mpsc::Sender<File>,
    reporter: &'a dyn Reporter,
    file: Option<Receiving>,
    /// Since when there are bytes that are not stored.
    waiting_since: Option<Instant>,
    /// What the server waits to hear of: the end of a transaction.
    ack: Option<(String, u64)>,
    /// When bytes came last, and how many had come then.
    heard: (Instant, u64),
    /// Whether the server was told to keep its logs.
    held: bool,
    /// Whether a connection of this run was let in, to all that it needs.
    worked: &'a mut bool,
    /// What the server has that others wrote.
    others: Vec<Gtid>,
}

impl Stream<'_, '_> {
    fn run(&mut self, cancel: &Cancel) -> Result<()> {
        let ended = self.receive(cancel);
        // Whatever ended it: what has come whole is stored.
        let stored = self.store();
        ended.and(stored)
    }

    fn receive(&mut self, cancel: &Cancel) -> Result<()> {
        while !cancel.is_cancelled() {
            match self.source.receive()? {
                Came::End => {
                    return Err(Error::new(ErrorKind::Server, "the server ended the stream"));
                }
                Came::Nothing => {}
                Came::Event(bytes, waits) => self.event(bytes, waits)?,
            }
            if self.options.hold && !self.held && self.source.received() > 0 {
                // Now this one counts among the replicas, and none of its own that was cut off.
                super::hold::hold(&self.options.connect, cancel, self.reporter)?;
                self.held = true;
            }
            *self.worked |= self.source.received() > 0;
            if self.source.received() != self.heard.1 {
                self.heard = (Instant::now(), self.source.received());
            } else if self.heard.0.elapsed() > HEARTBEAT * HEARTBEATS {
                return Err(Error::new(ErrorKind::Server, "the server has gone silent"));
            }
            let old = self.waiting_since.is_some_and(|since| since.elapsed() >= self.options.rpo);
            // What has come already goes along: one object for all that commit together.
            if old || self.ack.is_some() && !self.source.has_more() {
                self.store()?;
            }
            self.acknowledge()?;
        }
        Ok(())
    }

    /// Tells the server of what it waits for, once that is stored.
    fn acknowledge(&mut self) -> Result<()> {
        let is_stored = |(name, position): &mut (String, u64)| {
            self.file.as_ref().is_some_and(|file| {
                file.name == *name && file.stored.is_some() && file.writer.stored() >= *position
            })
        };
        if let Some((file, position)) = self.ack.take_if(is_stored) {
            self.source.acknowledge(&file, position)?;
            self.summary.acknowledged += 1;
        }
        Ok(())
    }

    fn event(&mut self, mut bytes: Vec<u8>, waits: bool) -> Result<()> {
        if let Some((name, position)) = begins(&bytes)? {
            return self.begin(name, position);
        }
        if self.file.as_ref().is_some_and(|file| file.writer.fills(bytes.len())) {
            // It may take long until a long transaction has come, and nobody waits for it.
            self.store()?;
            self.acknowledge()?;
        }
        let Some(file) = &mut self.file else {
            return Err(nameless());
        };
        let position = file.position;
        let Some(event) = as_in_file(&mut bytes, position, &mut file.checksum)? else {
            return Ok(());
        };
        file.position = event.end();
        if waits {
            self.ack = Some((file.name.clone(), event.end()));
        }
        if event.header.kind == EventType::START_ENCRYPTION
            && !self.archive.repository.config.sealed
        {
            return Err(Error::new(
                ErrorKind::Usage,
                "the server encrypts its binary log, and the repository is not sealed",
            )
            .advise("what is archived is decrypted: use a repository with a key"));
        }
        match file.stored {
            // What is there is passed over.
            Some(stored) if event.end() <= stored => return Ok(()),
            Some(stored) if event.offset < stored => {
                return Err(Error::new(
                    ErrorKind::Gap,
                    format!("{} has other events than the archive at {}", file.name, event.offset),
                )
                .advise(
                    "the server lost the end of its log in a crash: reset it, and take a backup",
                ));
            }
            _ => {}
        }
        if file.doubted && event.header.kind == EventType::GTID {
            let gtid = GtidEvent::parse(event.body(), event.header.server_id);
            let gtid = gtid.map_err(|what| sent(what.to_string()))?.gtid;
            let server = file.writer.scanner.beginning().map_or(0, |beginning| beginning.server);
            match kin::is_same(&self.archive, server, gtid, event.header.timestamp) {
                Ok(is_same) => file.doubted = !is_same,
                Err(error) => {
                    // Nothing of it is stored.
                    self.file = None;
                    return Err(error);
                }
            }
        }
        let repository = self.archive.repository;
        // Not interrupted: what was begun to be stored is stored.
        let part = file.writer.event(&event, repository, &Cancel::new())?;
        if file.stored.is_none() && file.writer.scanner.beginning().is_some() {
            self.known()?;
        }
        if let Some(file) = &self.file
            && file.writer.waiting() > 0
        {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        match part {
            Some(part) => self.stored(part),
            None => Ok(()),
        }
    }

    /// A file begins. That before it is as long as it is going to be.
    fn begin(&mut self, name: String, position: u64) -> Result<()> {
        if self.file.as_ref().is_some_and(|file| file.name == name) {
            return Ok(());
        }
        if position != FIRST_EVENT {
            return Err(sent(format!("{name} from {position} on")));
        }
        self.store()?;
        self.acknowledge()?;
        if let Some(file) = &self.file
            && let Some(stored) = file.stored.filter(|stored| *stored > file.position)
        {
            self.reporter.warn(format!(
                "the server lost the end of {} in a crash: the archive has {} bytes more of it than \
                 the server; what follows is a history of its own",
                file.name,
                stored - file.position
            ));
        }
        if let Some(closed) = self.closed().filter(|file| is_scattered(file)) {
            // If nobody listens, it stays as it is.
            let _ = self.merge.send(closed.clone());
        }
        let number = number_of(&name)?;
        let mut writer = Writer::new(&name, number, None)?;
        writer.magic()?;
        let position = FIRST_EVENT;
        let checksum = Checksum::None;
        self.file =
            Some(Receiving { name, writer, checksum, position, stored: None, doubted: false });
        Ok(())
    }

    /// What the archive has of the file that was received last.
    fn closed(&self) -> Option<&File> {
        let file = self.file.as_ref()?;
        let identity = &file.writer.scanner.beginning()?.identity;
        self.archive.files().find(|it| it.name == file.name && it.identity == *identity)
    }

    /// It is known which file this is: what of it is stored.
    fn known(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let Some(beginning) = file.writer.scanner.beginning().cloned() else { return Ok(()) };
        let before = file.writer.scanner.state().clone();
        let newcomer = Newcomer {
            server: beginning.server,
            file: &file.name,
            number: number_of(&file.name)?,
            identity: &beginning.identity,
            created: beginning.time,
            before: &before,
        };
        let epoch = self.archive.epoch_of(&newcomer);
        let logs = &self.archive.logs;
        let is_new = !logs.iter().any(|log| (log.server, &log.epoch) == (beginning.server, &epoch));
        if is_new && !logs.is_empty() && !self.options.accept_new_server {
            match kin::kin(&self.archive, beginning.server, &before, &self.others) {
                Kin::Listed => {}
                Kin::Told => file.doubted = true,
                Kin::Stranger => {
                    return Err(kin::stranger(format!(
                        "server {} was reset, or has nothing in common with what the archive has",
                        beginning.server
                    )));
                }
            }
        }
        let there = self.archive.file(beginning.server, &epoch, newcomer.number);
        let stored = there.map_or(0, File::end);
        let state = there.and_then(File::after).cloned();
        file.writer.belongs_to(epoch);
        file.stored = Some(stored);
        if let Some(state) = state.filter(|_| stored > 0) {
            file.writer.discard(stored, state)?;
        }
        Ok(())
    }

    /// Stores the transactions that have come whole.
    fn store(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.writer.is_long() || file.stored.is_none() {
            return Ok(());
        }
        // That a file of this server began is nothing to store before it is known whether it belongs here.
        if file.doubted && file.writer.scanner.state().entries().is_empty() {
            return Ok(());
        }
        match file.writer.cut(self.archive.repository, &Cancel::new())? {
            Some(part) => self.stored(part),
            None => Ok(()),
        }
    }

    fn stored(&mut self, part: super::part::Part) -> Result<()> {
        let waited = self.waiting_since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        // Of a transaction that has not ended it is not known since when: not for long.
        let is_open = self.file.as_ref().is_some_and(|file| file.writer.waiting() > 0);
        self.waiting_since = is_open.then(Instant::now);
        let summary = &mut *self.summary;
        summary.longest_wait_seconds = summary.longest_wait_seconds.max(waited);
        summary.bytes += part.head.about.end - part.head.about.begin;
        summary.stored_bytes += part.stored;
        summary.transactions += part.head.transactions;
        summary.objects += 1;
        self.archive.insert(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
