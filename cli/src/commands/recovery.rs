//! `haulout restore --until`: what leads from a backup to a target, in words, and following it.

use std::collections::BTreeSet;
use std::path::Path;

use engine::replay::archived::{self, ArchivedLogs, Recovery};
use engine::replay::plan::Anchor;
use engine::replay::{self, ReplayOptions, ReplaySummary, started};
use engine::repo::Repository;
use engine::repo::catalog::Selection;
use engine::server::ConnectOptions;
use engine::{Cancel, Reporter, Result};

use super::until::Stop;
use super::{counted, quoted};
use crate::console::Outcome;
use crate::size::Size;

/// What leads from a backup to a target.
pub struct Way {
    recovery: Recovery,
    stop: Stop,
}

impl Way {
    /// From the newest backup that is before the target, or from one that is named.
    pub fn find(
        repository: &Repository,
        selection: Option<&Selection>,
        stop: Stop,
        cancel: &Cancel,
    ) -> Result<Self> {
        let only = selection.map(|chosen| repository.select(chosen, cancel)).transpose()?;
        let archive = stop.read_archive(repository, cancel)?;
        let wanted = (&stop.target, &stop.skip);
        let recovery = archived::choose(repository, &archive, wanted, only, cancel)?;
        Ok(Self { recovery, stop })
    }

    /// The backup that it begins with.
    pub fn backup(&self) -> Selection {
        Selection::Named(self.recovery.backup.clone())
    }

    /// Where it leads along, and what is not there of it.
    pub fn describe(&self) -> Vec<String> {
        let recovery = &self.recovery;
        let first = recovery.logs.first().map_or("", String::as_str);
        let last = recovery.logs.last().map_or("", String::as_str);
        let mut words = vec![format!(
            "From there to {}: {}, {first} to {last}, {} in the archive, without a gap.",
            recovery.until,
            counted(recovery.logs.len() as u64, "log", "logs"),
            Size(recovery.stored_bytes),
        )];
        if !recovery.target_found {
            let time = recovery.last_time;
            words.push(format!(
                "THE ARCHIVE ENDS BEFORE {}: its last transaction is of {}. Archive what is missing first \
                 (haulout binlog push), if it is there.",
                recovery.until,
                time.map_or_else(|| "unknown time".to_owned(), |time| time.to_string())
            ));
        }
        words
    }

    /// The command that follows it from the backup on; `given` is what was said about repository and keys.
    fn command(&self, given: &str, socket: &str) -> String {
        format!(
            "haulout replay{given} --from-backup {} {} --socket {socket}",
            self.recovery.backup,
            self.stop.arguments(),
        )
    }

    /// What is left to do behind a restore.
    pub fn rest(&self, given: &str) -> Vec<String> {
        let mut rest = self.describe();
        rest.push(
            "With --log-bin, and so that nothing writes to it. Then replay the logs:".to_owned(),
        );
        rest.push(self.command(given, "SOCKET"));
        rest
    }

    /// Waits until the server is started on what was restored, and replays the logs onto it.
    pub fn follow(
        &self,
        (repository, given): (&Repository, &str),
        (connect, datadir): (&ConnectOptions, &Path),
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<ReplaySummary> {
        let endpoint = connect.endpoint();
        reporter.info(format!(
            "the backup is restored; waiting for a server on {} at {endpoint}: start it with \
             --log-bin, and so that nothing writes to it",
            quoted(datadir)
        ));
        self.replay(repository, (connect, datadir), cancel, reporter).inspect_err(|_| {
            let socket = connect.socket.as_deref().map_or("SOCKET".to_owned(), quoted);
            let command = self.command(given, &socket);
            reporter.warn(format!("the backup stays restored; to go on: {command}"));
        })
    }

    fn replay(
        &self,
        repository: &Repository,
        (connect, datadir): (&ConnectOptions, &Path),
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<ReplaySummary> {
        let mut options = ReplayOptions {
            anchor: Anchor::default(),
            target: self.stop.target.clone(),
            edge: self.stop.edge,
            skip: self.stop.skip.clone(),
            exclude: BTreeSet::new(),
            keys: None,
        };
        let manifest = repository.select(&self.backup(), cancel)?;
        let server = archived::anchor(&mut options, Some(&manifest))?;
        started::await_server(connect, datadir, cancel)?;
        let archive = self.stop.read_archive(repository, cancel)?;
        let anchor = (&options.anchor, server);
        let logs = ArchivedLogs::open(&archive, anchor, &options.target, cancel)?;
        replay::replay(&logs, &options, connect, cancel, reporter)
    }

    /// Adds it, and what was replayed, to the document of a restore.
    pub fn add_to(&self, outcome: &mut Outcome, replayed: Option<&ReplaySummary>) -> Result<()> {
        outcome.add("recovery", &self.recovery)?;
        if let Some(replayed) = replayed {
            outcome.add("replay", replayed)?;
        }
        Ok(())
    }
}
