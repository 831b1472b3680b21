//! Archiving files of a server's binary log: those that are closed, and of them what is not there yet.
//!
//! A file is stored in parts that are cut between transactions, unless one alone is longer than two of
//! them. Who is killed goes on behind the last part. A file that its server was writing when it
//! crashed has the mark of an open one for ever: of it, whatever is behind the last whole
//! transaction is left out, as the server leaves it out.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use binlog::crypt::KeySource;
use binlog::format::FIRST_EVENT;
use binlog::{EventType, Fault, GtidState, ReadOptions};

use super::catalog::{File, Newcomer};
use super::files::{self, Choice, Chosen, RELAY_LOG, is_in_use, open};
use super::layout::{Epoch, number_of};
use super::part::Part;
use super::scan::{Beginning, Place, Scanner};
use super::writer::Writer;
use super::{Archive, Log, no_logs, unreadable};
use crate::repo::Repository;
use crate::{Cancel, Error, ErrorKind, Event, Phase, Reporter, Result};

/// What to archive.
#[derive(Clone, Default)]
pub struct PushOptions {
    /// Directories of servers, lists of files (`bin.index`), or files.
    pub paths: Vec<PathBuf>,
    /// Leave the last file of a list out even if it is closed.
    pub all_but_current: bool,
    /// Whether a server may come that has nothing in common with what is there, or a history of its
    /// own.
    pub accept_new_server: bool,
    /// Who is asked for the keys of encrypted files.
    pub keys: Option<Rc<dyn KeySource>>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// It, or the rest of it, was stored.
    Stored,
    /// It was there.
    There,
    /// Each of its transactions was there, from another server.
    Known,
    /// It is older than the first file of its log, which may have been removed on purpose. Files
    /// that are named are stored nevertheless.
    Older,
}

/// A file that was looked at.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Pushed {
    /// Its name.
    pub file: String,
    /// `server_id` of who wrote it.
    pub server: u32,
    /// Which row of files it belongs to.
    pub epoch: String,
    /// What became of it.
    pub became: Became,
    /// Bytes of it that were stored now.
    pub bytes: u64,
    /// Bytes that they take in the store.
    pub stored_bytes: u64,
    /// Transactions that were stored now.
    pub transactions: u64,
    /// Bytes at its end that belong to no whole transaction.
    pub torn_bytes: u64,
}

/// What was done.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PushSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// The files, in their order.
    pub files: Vec<Pushed>,
    /// Files that are still being written.
    pub open: Vec<String>,
    /// Files that a list names and that are not there.
    pub missing: Vec<String>,
}

/// Archives files.
///
/// # Errors
/// [`ErrorKind::Damage`] for a file that cannot be read to its end; what was before is stored.
pub fn push(
    repository: &Repository,
    options: &PushOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<PushSummary> {
    let mut chosen = Choice::default();
    for path in &options.paths {
        files::add(path, options, &mut chosen)?;
    }
    let Choice { closed, open, indexes, of_innodb } = chosen;
    let mut summary = PushSummary { format: 1, files: Vec::new(), open, missing: Vec::new() };
    no_logs(&indexes, &of_innodb).into_iter().for_each(|note| reporter.warn(note));
    let mut archive = Archive::read(repository, cancel)?;
    let sizes = |file: &Chosen| fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
    let total: u64 = closed.iter().map(sizes).sum();
    let mut done = 0;
    for chosen in closed {
        cancel.check()?;
        let report = |offset: u64| {
            let done = done + offset;
            reporter.event(&Event::Progress { phase: Phase::Copy, done, total: Some(total) });
        };
        let pushed = Source::open(&chosen, options)
            .and_then(|mut file| Ok((file.push(&mut archive, options, cancel, &report)?, file)));
        let (pushed, file) = match pushed {
            Ok(both) => both,
            Err(error) if chosen.list.is_none() || !chosen.is_gone() => return Err(error),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            // The server removes logs while this runs, and then its list does not name them any more.
            Err(error) => {
                if let Some(list) = chosen.still_in() {
                    let name = chosen.path.display().to_string();
                    reporter.warn(format!(
                        "{name} is not there, though {} lists it: the other files are archived",
                        list.display()
                    ));
                    summary.missing.push(name);
                } else {
                    reporter.info(format!("{} is gone: {error}", chosen.path.display()));
                }
                continue;
            }
        };
        done += file.length;
        reporter.event(&Event::File {
            worker: 0,
            verb: match pushed.became {
                Became::Stored => "Archived",
                Became::There | Became::Known | Became::Older => "Known",
            },
            path: pushed.file.clone(),
        });
        if pushed.torn_bytes > 0 {
            reporter.warn(format!(
                "{}: its server crashed; {} bytes at its end belong to no whole transaction and \
                 were left out",
                pushed.file, pushed.torn_bytes
            ));
        }
        summary.files.push(pushed);
    }
    Ok(summary)
}

/// A file that is to be archived.
struct Source {
    path: PathBuf,
    name: String,
    number: u64,
    read: ReadOptions,
    /// Bytes of it.
    length: u64,
    /// Bytes up to the end of its last whole transaction.
    limit: u64,
    /// Whether it was named itself, and not found in a list.
    is_named: bool,
}

/// What a file has, from a look at it.
struct Look {
    beginning: Beginning,
    before: GtidState,
    encrypted: bool,
}

impl Source {
    fn open(chosen: &Chosen, options: &PushOptions) -> Result<Self> {
        let path: &Path = &chosen.path;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let number = number_of(&name)?;
        let metadata = fs::metadata(path).map_err(|error| Error::io("open", path, error))?;
        let length = metadata.len();
        let read = ReadOptions { keys: options.keys.clone(), ..ReadOptions::default() };
        let path = path.to_owned();
        Ok(Self {
            path,
            name,
            number,
            read,
            length,
            limit: length,
            is_named: chosen.list.is_none(),
        })
    }

    /// How it begins.
    fn look(&self) -> Result<Look> {
        let mut reader = open(&self.path, &self.read)?;
        let mut scanner = Scanner::new(&self.name);
        let mut encrypted = false;
        while let Some(event) = reader.next_event().map_err(unreadable)? {
            let (kind, flags) = (event.header.kind, event.header.flags);
            if kind == EventType::FORMAT_DESCRIPTION && flags & RELAY_LOG != 0 {
                let message = format!("{} is a relay log", self.path.display());
                return Err(Error::new(ErrorKind::Usage, message)
                    .advise("archive the binary log; relay logs are copies of that of a source"));
            }
            encrypted |= kind == EventType::START_ENCRYPTION;
            let at = event.offset;
            scanner.event(&event).map_err(|fault| self.unreadable(at, fault))?;
            if let Some(beginning) = scanner.beginning() {
                let (beginning, before) = (beginning.clone(), scanner.state().clone());
                return Ok(Look { beginning, before, encrypted });
            }
            let expected = [EventType::FORMAT_DESCRIPTION, EventType::START_ENCRYPTION];
            if !expected.contains(&kind) {
                break;
            }
        }
        Err(Error::new(
            ErrorKind::Damage,
            format!("{} does not say what was logged before it", self.path.display()),
        ))
    }

    fn unreadable(&self, position: u64, fault: Fault) -> Error {
        unreadable(binlog::Error { file: self.path.display().to_string(), position, fault })
    }

    /// Stores what is not there yet.
    fn push(
        &mut self,
        archive: &mut Archive<'_>,
        options: &PushOptions,
        cancel: &Cancel,
        report: &dyn Fn(u64),
    ) -> Result<Pushed> {
        let look = self.look()?;
        let Beginning { server, time, identity, .. } = &look.beginning;
        let newcomer = Newcomer {
            server: *server,
            file: &self.name,
            number: self.number,
            identity,
            created: *time,
            before: &look.before,
        };
        let epoch = archive.epoch_of(&newcomer);
        let mut pushed = Pushed {
            file: self.name.clone(),
            server: *server,
            epoch: epoch.to_string(),
            became: Became::There,
            bytes: 0,
            stored_bytes: 0,
            transactions: 0,
            torn_bytes: 0,
        };
        let there = archive.file(*server, &epoch, self.number);
        let stored = there.map_or(0, File::end);
        if stored == self.length {
            return Ok(pushed);
        }
        if stored > self.length {
            return Err(Error::new(
                ErrorKind::Gap,
                format!(
                    "{} has {} bytes, and the archive has {stored} bytes of the same file",
                    self.path.display(),
                    self.length
                ),
            )
            .advise(
                "its server lost the end of it in a crash (sync_binlog is not 1), or the file was \
                 cut: what the archive has is more than what the server knows",
            ));
        }
        if look.encrypted && !archive.repository.config.sealed {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{} is encrypted, and the repository is not sealed", self.path.display()),
            )
            .advise("what is archived is decrypted: use a repository with a key"));
        }
        // An open mark is that of a crash: files that are being written do not get here.
        if is_in_use(&self.path)? {
            self.limit = self.last_boundary()?;
            pushed.torn_bytes = self.length - self.limit;
            if stored == self.limit {
                pushed.torn_bytes = 0;
                return Ok(pushed);
            }
        }
        if !archive.logs.iter().any(|log| (log.server, &log.epoch) == (*server, &epoch))
            && !archive.logs.is_empty()
        {
            let verdict = self.compare(archive, &look)?;
            if !options.accept_new_server {
                self.admit(&verdict, *server)?;
            }
            if verdict == Verdict::Known {
                pushed.became = Became::Known;
                return Ok(pushed);
            }
        } else if archive.knows_older(&newcomer, &epoch) {
            pushed.became = Became::Known;
            return Ok(pushed);
        } else if !self.is_named && archive.begins_behind(&newcomer, &epoch) {
            pushed.became = Became::Older;
            return Ok(pushed);
        }
        pushed.became = Became::Stored;
        let before = there.and_then(File::after).cloned();
        let from = before.map(|before| (stored, before));
        for part in self.store(archive.repository, &epoch, from, cancel, report)? {
            pushed.bytes += part.head.about.end - part.head.about.begin;
            pushed.stored_bytes += part.stored;
            pushed.transactions += part.head.transactions;
            archive.insert(part);
        }
        Ok(pushed)
    }

    /// The offset behind the last whole transaction.
    fn last_boundary(&self) -> Result<u64> {
        let mut reader = open(&self.path, &self.read)?;
        let mut scanner = Scanner::new(&self.name);
        let mut boundary = FIRST_EVENT;
        while let Some(event) = reader.next_whole().map_err(unreadable)? {
            let end = event.end();
            match scanner.event(&event) {
                Ok(Place::Between) => boundary = end,
                Ok(Place::Within) => {}
                Err(fault) => return Err(self.unreadable(end, fault)),
            }
            scanner.take_index();
        }
        Ok(boundary)
    }

    /// Stores it from an offset on, before which something was logged.
    fn store(
        &self,
        repository: &Repository,
        epoch: &Epoch,
        from: Option<(u64, GtidState)>,
        cancel: &Cancel,
        report: &dyn Fn(u64),
    ) -> Result<Vec<Part>> {
        let mut reader = open(&self.path, &self.read)?;
        let mut writer = Writer::new(&self.name, self.number, Some(epoch.clone()))?;
        let mut parts = Vec::new();
        let mut from = from;
        if from.is_none() {
            writer.magic()?;
        }
        while reader.offset() < self.limit {
            let Some(event) = reader.next_event().map_err(unreadable)? else { break };
            if from.is_none() {
                let part = writer.event(&event, repository, cancel);
                let part = part.map_err(|error| error.context(self.path.display()))?;
                if part.is_some() {
                    report(event.end());
                }
                parts.extend(part);
            } else {
                writer.pass(&event)?;
            }
            if writer.scanner.beginning().is_some()
                && let Some((offset, state)) = from.take()
            {
                writer.resume(offset, state);
                reader.seek_to(offset).map_err(unreadable)?;
            }
            cancel.check()?;
        }
        parts.extend(writer.cut(repository, cancel)?);
        if writer.is_open() {
            let message = format!("{} ends within a transaction", self.path.display());
            return Err(Error::new(ErrorKind::Damage, message)
                .advise("get a whole copy of it; what is before that transaction is archived"));
        }
        Ok(parts)
    }

    /// How this file, the first of its log, relates to what is there.
    fn compare(&self, archive: &Archive<'_>, look: &Look) -> Result<Verdict> {
        // What the same server had logged when its last file was begun, it has still logged now.
        let went_back =
            archive.logs.iter().filter(|log| log.server == look.beginning.server).any(|log| {
                let last = log.files.last();
                last.and_then(File::created).is_some_and(|at| at <= look.beginning.time)
                    && last.and_then(File::before).is_some_and(|it| !look.before.includes(it))
            });
        if went_back {
            return Ok(Verdict::Reset);
        }
        let mut times = Times::new(archive);
        let mut related =
            look.before.entries().iter().any(|gtid| times.knows(gtid.domain, gtid.server));
        let mut known = true;
        let mut any = false;
        let mut reader = open(&self.path, &self.read)?;
        let mut scanner = Scanner::new(&self.name);
        while reader.offset() < self.limit {
            let Some(event) = reader.next_event().map_err(unreadable)? else { break };
            let at = event.offset;
            scanner.event(&event).map_err(|fault| self.unreadable(at, fault))?;
            for transaction in scanner.take_index().transactions {
                any = true;
                let gtid = transaction.gtid;
                related |= times.knows(gtid.domain, gtid.server);
                match times.of(gtid)? {
                    Some(time) if time == transaction.time => {}
                    Some(_) => return Ok(Verdict::Other(gtid)),
                    None => known = false,
                }
            }
        }
        Ok(match (related, any && known) {
            (false, _) => Verdict::Unrelated,
            (true, true) => Verdict::Known,
            (true, false) => Verdict::Follows,
        })
    }

    fn admit(&self, verdict: &Verdict, server: u32) -> Result<()> {
        let why = match verdict {
            Verdict::Known | Verdict::Follows => return Ok(()),
            Verdict::Unrelated => {
                format!("server {server} has nothing in common with what the archive has")
            }
            Verdict::Reset => format!("server {server} was reset or restored: it had logged more"),
            Verdict::Other(gtid) => format!(
                "the archive has another transaction {gtid}: server {server} was reset, or is \
                 another one"
            ),
        };
        Err(Error::new(ErrorKind::Usage, format!("{}: {why}", self.path.display())).advise(
            "give each group of servers a repository of its own; if this is meant, say \
             --accept-new-server once",
        ))
    }
}

/// How the first file of a log relates to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All of its transactions are there.
    Known,
    /// It goes on from what is there.
    Follows,
    /// It has nothing to do with it.
    Unrelated,
    /// Its server had logged more before.
    Reset,
    /// It has another transaction of the same number.
    Other(binlog::Gtid),
}

/// When transactions of the archive were written.
pub(super) struct Times<'a, 'r> {
    archive: &'a Archive<'r>,
    /// The part that was looked into last.
    last: Option<(crate::store::Key, std::collections::HashMap<binlog::Gtid, u32>)>,
}

impl<'a, 'r> Times<'a, 'r> {
    pub(super) fn new(archive: &'a Archive<'r>) -> Self {
        Self { archive, last: None }
    }

    fn parts(&self) -> impl Iterator<Item = &'a Part> + use<'a, 'r> {
        self.archive.files().flat_map(|file| &file.parts)
    }

    /// Whether there is anything of this domain and server.
    fn knows(&self, domain: u32, server: u32) -> bool {
        self.parts().any(|part| part.head.about.after.of(domain, server).is_some())
    }

    /// When a transaction was written, if it is there.
    pub(super) fn of(&mut self, gtid: binlog::Gtid) -> Result<Option<u32>> {
        if let Some((_, times)) = &self.last
            && let Some(time) = times.get(&gtid)
        {
            return Ok(Some(*time));
        }
        let has = |part: &&Part| {
            let about = &part.head.about;
            about.after.covers(gtid) && !about.before.covers(gtid)
        };
        let Some(part) = self.parts().find(has) else { return Ok(None) };
        if self.last.as_ref().is_none_or(|(key, _)| *key != part.key) {
            let index = part.index(self.archive.repository, &Cancel::new())?;
            let times = index.transactions.iter().map(|it| (it.gtid, it.time)).collect();
            self.last = Some((part.key.clone(), times));
        }
        Ok(self.last.as_ref().and_then(|(_, times)| times.get(&gtid)).copied())
    }
}

impl<'r> Archive<'r> {
    /// A file that is there.
    pub fn file(&self, server: u32, epoch: &Epoch, number: u64) -> Option<&File> {
        let log = self.logs.iter().find(|log| (log.server, &log.epoch) == (server, epoch))?;
        log.files.iter().find(|file| file.number == number)
    }

    /// Whether a file is older than the first one of its log, and what was logged up to that one is
    /// there from another server.
    fn knows_older(&self, newcomer: &Newcomer<'_>, epoch: &Epoch) -> bool {
        let log = self.logs.iter().find(|log| (log.server, &log.epoch) == (newcomer.server, epoch));
        let Some(first) = log.and_then(|log| log.files.first()) else { return false };
        let Some(until) = first.before() else { return false };
        newcomer.number < first.number
            && until.entries().iter().any(|gtid| !newcomer.before.covers(*gtid))
            && self.has_elsewhere(log, newcomer.before, until, &Cancel::new()).unwrap_or(false)
    }

    /// Whether a file is older than the first one of its log.
    fn begins_behind(&self, newcomer: &Newcomer<'_>, epoch: &Epoch) -> bool {
        let log = self.logs.iter().find(|log| (log.server, &log.epoch) == (newcomer.server, epoch));
        let first = log.and_then(|log| log.files.first());
        first.is_some_and(|first| newcomer.number < first.number)
    }

    /// Takes note of a part that was stored.
    pub(super) fn insert(&mut self, part: Part) {
        let about = &part.head.about;
        let key = (about.server, about.epoch.clone());
        let at = self.logs.partition_point(|log| (log.server, log.epoch.clone()) < key);
        if self.logs.get(at).is_none_or(|log| (log.server, &log.epoch) != (key.0, &key.1)) {
            self.logs.insert(at, Log { server: key.0, epoch: key.1, files: Vec::new() });
        }
        let Some(log) = self.logs.get_mut(at) else { return };
        let at = log.files.partition_point(|file| file.number < about.number);
        match log.files.get_mut(at) {
            Some(file) if file.number == about.number => file.parts.push(part),
            _ => log.files.insert(
                at,
                File {
                    server: about.server,
                    epoch: about.epoch.clone(),
                    name: about.file.clone(),
                    number: about.number,
                    identity: about.identity.clone(),
                    parts: vec![part],
                    spare: Vec::new(),
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests;
