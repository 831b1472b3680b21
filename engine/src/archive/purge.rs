//! Removing from a server the logs that the archive has: all others stay.
//!
//! A server that removes its logs by itself, by age or size, does not ask whether they were archived.
//! One that is told not to, and is purged by this instead, keeps what was not. A log goes when the
//! archive has all of it, told by content and not by name, and of all logs before it; the server itself
//! spares those that replicas read.
//!
//! After a failover the new server has logs that only repeat what the old one had logged. They are not
//! archived again, and go when each of their transactions is in the archive, of the same time.
//!
//! Logs that expired in the archive are older than what it begins with. That one is known by its content in
//! the server's own list; what stands before it there goes, if every backup has all that was logged before.

use std::time::{Duration, Instant};

use binlog::format::{Checksum, FIRST_EVENT};

use super::arriving::{Identified, as_in_file, identify};
use super::catalog::{File, follows};
use super::expire::{is_recent, needs, recent};
use super::push::Times;
use super::scan::Scanner;
use super::{Archive, Log, unreadable};
use crate::server::feed::{Came, Source, Wanted};
use crate::server::{ConnectOptions, Session, Wait};
use crate::{Cancel, Error, ErrorKind, Result};

/// How often the server is told again to remove what somebody reads.
const ATTEMPTS: u32 = 10;
/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a server that sends a log may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to remove.
#[derive(Clone, Debug)]
pub struct PurgeOptions {
    /// Where the server is.
    pub connect: ConnectOptions,
    /// The `server_id` by which the server is asked how its logs begin.
    pub server_id: u32,
    /// Logs with transactions of so long ago or later stay.
    pub keep_within: Option<Duration>,
    /// Whether to remove anything.
    pub delete: bool,
}

/// What was removed, or would be.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PurgeSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Whether anything was removed; otherwise this is what would be.
    pub done: bool,
    /// Logs that the server does not have any more, or would not.
    pub purged: Vec<String>,
    /// The first log that stays.
    pub stays: String,
    /// Why.
    pub why: String,
}

impl Archive<'_> {
    /// Removes from a server what the archive has.
    pub fn purge(&self, options: &PurgeOptions, cancel: &Cancel) -> Result<PurgeSummary> {
        let mut session = Session::connect(&options.connect, cancel)?;
        let wait = Wait::short("asking for the binary logs");
        let logs = |session: &mut Session| -> Result<Vec<(String, u64)>> {
            let rows = session.query("SHOW BINARY LOGS", wait)?;
            let log = |row: &crate::server::Row| {
                Some((row.text("Log_name")?.into_owned(), row.number("File_size")?))
            };
            Ok(rows.iter().filter_map(log).collect())
        };
        let there = logs(&mut session)?;
        let mut summary = PurgeSummary {
            format: 1,
            done: options.delete,
            purged: Vec::new(),
            stays: String::new(),
            why: "the server writes it".to_owned(),
        };
        let mut beginning = None;
        for (number, (name, size)) in there.iter().enumerate() {
            summary.stays.clone_from(name);
            if number + 1 == there.len() {
                break;
            }
            let mut before = || -> Result<Option<u32>> {
                let beginning = match &beginning {
                    Some(known) => known,
                    None => beginning.insert(self.beginning(options, &there, cancel)?),
                };
                Ok(beginning.filter(|(place, _)| number < *place).map(|(_, created)| created))
            };
            if let Some(why) = self.must_stay(options, (name, *size), &mut before, cancel)? {
                summary.why = why;
                break;
            }
            summary.purged.push(name.clone());
        }
        if there.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "the server writes no binary log (log_bin)"));
        }
        if options.delete && !summary.purged.is_empty() {
            let quoted = summary.stays.replace('\\', "\\\\").replace('\'', "''");
            let wait = Wait { deadline: Duration::from_secs(600), reason: "removing binary logs" };
            let purge = format!("PURGE BINARY LOGS TO '{quoted}'");
            session.execute(&purge, wait)?;
            // Replicas may need some of them still; those that asked how logs begin are gone soon.
            let mut left = logs(&mut session)?;
            for _ in 0..ATTEMPTS {
                if left.first().is_none_or(|(first, _)| *first == summary.stays) {
                    break;
                }
                cancel.check()?;
                std::thread::sleep(PAUSE);
                session.execute(&purge, wait)?;
                left = logs(&mut session)?;
            }
            summary.purged.retain(|name| !left.iter().any(|(there, _)| there == name));
            if let Some((first, _)) = left.first().filter(|(first, _)| *first != summary.stays) {
                summary.stays.clone_from(first);
                summary.why = "a replica reads it, or the server needs it".to_owned();
            }
        }
        session.close();
        Ok(summary)
    }

    /// Which log in a server's list is the first one of its history that is archived, and when it was
    /// begun. None, if a backup may need what was logged before it.
    fn beginning(
        &self,
        options: &PurgeOptions,
        there: &[(String, u64)],
        cancel: &Cancel,
    ) -> Result<Option<(usize, u32)>> {
        let wanted = Wanted { server_id: options.server_id, ..Wanted::default() };
        for first in self.logs.iter().filter_map(|log| log.files.first()) {
            let Some(place) = there.iter().position(|(name, _)| *name == first.name) else {
                continue;
            };
            // Of the same name there may be others, of a server that was reset or of another one.
            let found = identify(&options.connect, &wanted, &first.name)?;
            let is_same = |found: &Identified| {
                (found.server, &*found.identity) == (first.server, &*first.identity)
            };
            let Some((before, created)) =
                found.filter(is_same).and(first.before().zip(first.created()))
            else {
                continue;
            };
            let Ok(needs) = needs(self.repository, cancel)? else { return Ok(None) };
            let is_enough = needs.iter().all(|need| need.state.includes(before));
            return Ok(is_enough.then_some((place, created)));
        }
        Ok(None)
    }

    /// Why a log of a server must not go; `beginning` tells when the archive's beginning was begun, if the
    /// log is before that.
    fn must_stay(
        &self,
        options: &PurgeOptions,
        (name, size): (&str, u64),
        beginning: &mut dyn FnMut() -> Result<Option<u32>>,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        let wanted = Wanted { server_id: options.server_id, ..Wanted::default() };
        let Some(there) = identify(&options.connect, &wanted, name)? else {
            return Ok(Some("the server does not have it any more".to_owned()));
        };
        let Identified { server, identity, .. } = there;
        let found = self.logs.iter().find_map(|log| {
            let same = |file: &File| {
                (file.server, &*file.name, &*file.identity) == (server, name, &*identity)
            };
            Some((log, log.files.iter().position(same)?))
        });
        let Some((log, number)) = found else {
            let beginning = beginning()?;
            let recent = beginning.map(|at| is_recent(at.into(), options.keep_within));
            return match recent {
                Some(None) => Ok(None),
                // What it says itself may be longer ago than what was begun behind it.
                Some(recent) => Ok(self.says_more(options, name, size, cancel)?.and(recent)),
                None => self.says_more(options, name, size, cancel),
            };
        };
        Ok(match log.files.get(number) {
            Some(file) if !is_whole(log, number, size) => {
                Some(format!("{} of {size} bytes of it are archived", file.end()))
            }
            Some(file) => recent(file, options.keep_within),
            None => None,
        })
    }

    /// What a log that is not archived has that the archive does not have from another server.
    fn says_more(
        &self,
        options: &PurgeOptions,
        name: &str,
        size: u64,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        let wanted =
            Wanted { server_id: options.server_id, file: name, waits: false, ..Wanted::default() };
        let mut source = Source::open(&options.connect, &wanted)?;
        let mut scanner = Scanner::new(name);
        let mut times = Times::new(self);
        let mut newest = None;
        let (mut position, mut checksum) = (FIRST_EVENT, Checksum::None);
        let mut heard = Instant::now();
        while position < size {
            let mut bytes = match source.receive()? {
                Came::Event(bytes, _) => bytes,
                Came::Nothing if heard.elapsed() < PATIENCE => {
                    cancel.check()?;
                    continue;
                }
                Came::Nothing | Came::End => {
                    return Ok(Some(
                        "it is not archived, and the server does not send it".to_owned(),
                    ));
                }
            };
            heard = Instant::now();
            let Some(event) = as_in_file(&mut bytes, position, &mut checksum)? else { continue };
            let at = event.offset;
            position = event.end();
            scanner.event(&event).map_err(|fault| {
                unreadable(binlog::Error { file: name.to_owned(), position: at, fault })
            })?;
            for transaction in scanner.take_index().transactions {
                if times.of(transaction.gtid)? != Some(transaction.time) {
                    return Ok(Some("it is not archived".to_owned()));
                }
                newest = newest.max(Some(transaction.time));
            }
        }
        // One without transactions goes with what was logged before it.
        let known = scanner.state().entries();
        let has = |gtid| self.files().filter_map(File::after).any(|after| after.covers(gtid));
        Ok(match newest {
            Some(time) => is_recent(time.into(), options.keep_within),
            None if !known.is_empty() && known.iter().all(|gtid| has(*gtid)) => None,
            None => Some("it is not archived".to_owned()),
        })
    }
}

/// Whether all of a file is there. What a crash tore off its end is in no archive: that the next file
/// follows tells that nothing else is missing.
fn is_whole(log: &Log, number: usize, size: u64) -> bool {
    let Some(file) = log.files.get(number).filter(|file| !file.has_holes()) else { return false };
    if file.ending().is_some() && file.end() == size {
        return true;
    }
    let next = log.files.get(number + 1).filter(|next| next.number == file.number + 1);
    let before = next.and_then(File::before);
    file.ending().is_none()
        && file.after().zip(before).is_some_and(|(after, before)| follows(after, before))
}
