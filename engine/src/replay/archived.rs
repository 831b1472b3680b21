//! Logs of an archive, and the backup to begin with.
//!
//! The archive knows which of its files lead from a backup to a target without reading them; they are
//! read as they are replayed. Where the log of one server ends and that of another goes on, what both
//! have is passed over.

use std::collections::BTreeSet;
use std::io::Read;

use binlog::{BinlogPosition, Gtid, Reader};
use jiff::Timestamp;

use super::ReplayOptions;
use super::plan::Anchor;
use super::source::{Log as SourceLog, LogSource};
use super::target::Target;
use crate::archive::plan::{Plan, Start, Step, Until};
use crate::archive::unreadable;
use crate::archive::{Archive, Log};
use crate::metadata::haulout_info::Replication;
use crate::repo::Repository;
use crate::repo::manifest::Manifest;
use crate::{Cancel, Error, ErrorKind, Result};

/// Logs of an archive that lead from the data of a backup to a target.
pub struct ArchivedLogs<'a> {
    archive: &'a Archive<'a>,
    steps: Vec<Step>,
    logs: Vec<SourceLog>,
    cancel: Cancel,
}

/// A backup, and what leads from it to a target.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Recovery {
    /// Version of this document's shape.
    pub format: u32,
    /// The backup.
    pub backup: String,
    /// When it ended.
    pub ended: Timestamp,
    /// GTID position of its data.
    pub from: String,
    /// What was asked for.
    pub until: String,
    /// Whether the archive reaches what was asked for.
    pub target_found: bool,
    /// When the last transaction of the logs was written.
    pub last_time: Option<Timestamp>,
    /// Logs that lead to it.
    pub logs: Vec<String>,
    /// Bytes of them in the store.
    pub stored_bytes: u64,
}

impl Anchor {
    /// What a backup in a repository says.
    pub fn of_replication(backup: &str, replication: Option<&Replication>) -> Result<Self> {
        let unknown = |why: &str| {
            Error::new(ErrorKind::Usage, format!("the backup {backup} {why}"))
                .advise("its server needs a binary log; take another backup")
        };
        let replication = replication.ok_or_else(|| unknown("has no place in a binary log"))?;
        let gtid = replication.gtid.parse();
        let gtid = gtid.map_err(|_| unknown("has no GTID position that can be understood"))?;
        let place = replication.file.as_ref().zip(replication.position);
        let position = place.and_then(|(file, offset)| BinlogPosition::new(file, offset).ok());
        Ok(Self { position, gtid, ..Self::default() })
    }

    /// What a backup in a repository is.
    fn of_manifest(manifest: &Manifest) -> Result<Self> {
        let anchor = Self::of_replication(manifest.name.as_str(), manifest.replication.as_ref())?;
        let server = Some(manifest.server.server_id);
        let seconds = |time: Timestamp| u32::try_from(time.as_second()).ok();
        let (read, began) = (seconds(manifest.ended), seconds(manifest.began));
        Ok(Self { server, read, began, ..anchor })
    }
}

/// Makes the data of a backup in a repository that to begin with, if one is named; the `server_id` of who
/// it is of.
pub fn anchor(options: &mut ReplayOptions, backup: Option<&Manifest>) -> Result<Option<u32>> {
    let Some(manifest) = backup else { return Ok(None) };
    options.anchor = Anchor::of_manifest(manifest)?;
    Ok(options.anchor.server)
}

/// Up to where files are needed: beyond all that the target takes in.
fn until(target: &Target) -> Until {
    match target {
        Target::End => Until::End,
        Target::Time(time) => {
            Until::Time(u32::try_from(time.as_second().saturating_add(1)).unwrap_or(u32::MAX))
        }
        Target::Gtid(gtid) => Until::Gtid(*gtid),
        Target::Position { file, offset } => Until::Position(file.clone(), *offset),
    }
}

fn start(anchor: &Anchor, server: Option<u32>) -> Start {
    let place = anchor.position.as_ref();
    Start {
        position: anchor.gtid.clone(),
        place: place.map(|place| (place.file().to_owned(), place.offset())),
        server,
        read: anchor.read,
        began: anchor.began,
    }
}

fn steps(
    archive: &Archive<'_>,
    (anchor, server): (&Anchor, Option<u32>),
    target: &Target,
    cancel: &Cancel,
) -> Result<Plan> {
    let start = start(anchor, server);
    if matches!(target, Target::Position { .. }) {
        let names = archive.names_from(&start, cancel)?;
        target.is_in_one(names.iter().map(String::as_str))?;
    }
    let plan = archive.plan(&start, &until(target), cancel)?;
    match &plan.gap {
        Some(gap) if !plan.reaches => Err(Error::new(
            ErrorKind::Gap,
            format!("the archive has a gap between '{}' and {target}: {gap}", anchor.gtid),
        )
        .advise("archive what is missing with haulout binlog push, or stop before the gap")),
        _ => Ok(plan),
    }
}

impl<'a> ArchivedLogs<'a> {
    /// Those that lead from `anchor`, the data of a backup of a server, to a target.
    pub fn open(
        archive: &'a Archive<'a>,
        anchor: (&Anchor, Option<u32>),
        target: &Target,
        cancel: &Cancel,
    ) -> Result<Self> {
        let steps = steps(archive, anchor, target, cancel)?.steps;
        let mut logs = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let file = &step.file;
            let before = file.before().ok_or_else(|| {
                let message = format!("the archive does not have the beginning of {}", file.name);
                Error::new(ErrorKind::Gap, message)
            })?;
            let mut reader =
                Reader::new(archive.open(file, cancel), &*file.name, Default::default())
                    .map_err(unreadable)?;
            let event = reader.next_event().map_err(unreadable)?;
            let begun = event.map_or(0, |event| event.header.timestamp);
            let version = reader.format().map(|format| format.server_version.clone());
            logs.push(SourceLog {
                name: file.name.clone(),
                bytes: step.end,
                begun,
                version: version.unwrap_or_default(),
                server: file.server,
                before: before.entries().to_vec(),
                enters: index > 0 && step.entered.is_some(),
            });
        }
        if logs.is_empty() {
            let message = format!("the archive has nothing behind '{}'", anchor.0.gtid);
            return Err(Error::new(ErrorKind::NothingMatches, message));
        }
        Ok(Self { archive, steps, logs, cancel: cancel.clone() })
    }
}

impl LogSource for ArchivedLogs<'_> {
    fn logs(&self) -> &[SourceLog] {
        &self.logs
    }

    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>> {
        let step = self
            .steps
            .get(index)
            .ok_or_else(|| Error::new(ErrorKind::Failed, "a log that is not in the plan"))?;
        Ok(Box::new(self.archive.open(&step.file, &self.cancel)))
    }
}

/// The newest backup that is before a target, and before all that is to be left out, and from which the
/// archive leads to it. With `only`, that one or none.
pub fn choose(
    repository: &Repository,
    archive: &Archive<'_>,
    (target, skip): (&Target, &BTreeSet<Gtid>),
    only: Option<Manifest>,
    cancel: &Cancel,
) -> Result<Recovery> {
    let mut manifests = match only {
        Some(manifest) => vec![manifest],
        None => {
            let listed = repository.backups(cancel)?;
            listed.into_iter().filter_map(|listed| listed.manifest.ok()).collect()
        }
    };
    manifests.sort_by_key(|manifest| std::cmp::Reverse(manifest.order()));
    let mut why = None;
    for (newer, manifest) in manifests.iter().enumerate() {
        match lead(archive, manifest, (target, skip), cancel) {
            Ok(Some((recovery, plan))) => {
                // What newer backups have is not left for what the server before them wrote.
                for newer in manifests.get(..newer).unwrap_or_default() {
                    refuse_another_history(archive, newer, (&recovery, &plan), target, cancel)?;
                }
                return Ok(recovery);
            }
            Ok(None) => {}
            // The reason of the newest one is what there is to mend.
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(why.unwrap_or_else(|| {
        let at = |time: Option<Timestamp>| time.map_or("?".to_owned(), |time| time.to_string());
        let oldest = manifests.iter().map(|manifest| manifest.ended).min();
        let times = archive.files().filter_map(crate::archive::File::times);
        let last = times.map(|times| times.1).max();
        let last = last.and_then(|time| Timestamp::from_second(time.into()).ok());
        let message = match manifests.is_empty() {
            true => format!("no backup leads to {target}: there is none"),
            false => format!(
                "no backup of {} leads to {target}: the oldest one is of {}, and the archive's last \
                 transaction of {}",
                manifests.len(),
                at(oldest),
                at(last)
            ),
        };
        Error::new(ErrorKind::NothingMatches, message)
            .advise("haulout list and haulout binlog list show what there is")
    }))
}

/// What leads from a backup to a target; nothing if the backup is behind it, or the archive ends before.
fn lead(
    archive: &Archive<'_>,
    manifest: &Manifest,
    (target, skip): (&Target, &BTreeSet<Gtid>),
    cancel: &Cancel,
) -> Result<Option<(Recovery, Plan)>> {
    let anchor = Anchor::of_manifest(manifest)?;
    let has = |gtid: &Gtid| {
        anchor.gtid.get(gtid.domain).is_some_and(|there| there.sequence >= gtid.sequence)
    };
    let is_behind = match target {
        Target::Time(time) => manifest.ended > *time,
        Target::Gtid(gtid) => has(gtid),
        Target::Position { .. } | Target::End => false,
    };
    if is_behind {
        return Ok(None);
    }
    if let Some(gtid) = skip.iter().find(|gtid| has(gtid)) {
        let message =
            format!("the backup {} has {gtid} already, which is to be left out", manifest.name);
        return Err(Error::new(ErrorKind::NothingMatches, message)
            .advise("begin with a backup from before it"));
    }
    let plan = steps(archive, (&anchor, Some(manifest.server.server_id)), target, cancel)?;
    // A time that is behind everything is a matter of opinion; a place that is not there is not.
    if !plan.reaches && matches!(target, Target::Gtid(_) | Target::Position { .. }) {
        return Ok(None);
    }
    if let (Target::Position { file, offset }, Some(there)) = (target, &anchor.position) {
        let number = |name: &str| plan.steps.iter().position(|step| step.file.name == name);
        let (wanted, begins) = (number(file), number(there.file()));
        if begins.is_some_and(|begins| (wanted, *offset) < (Some(begins), there.offset())) {
            return Ok(None);
        }
    }
    for gtid in skip {
        if !archive.comes_by(&plan, *gtid, cancel)? {
            let message = format!(
                "{gtid}, which is to be left out, is not in the logs that lead from the backup {} to {target}",
                manifest.name
            );
            return Err(Error::new(ErrorKind::NothingMatches, message)
                .advise("haulout binlog find shows the transactions that there are"));
        }
    }
    let times = plan.steps.iter().flat_map(|step| &step.file.parts).filter_map(|it| it.head.times);
    let last = times.map(|(_, last)| last).max();
    let recovery = Recovery {
        format: 1,
        backup: manifest.name.to_string(),
        ended: manifest.ended,
        from: anchor.gtid.to_string(),
        until: target.to_string(),
        target_found: plan.reaches,
        last_time: last.and_then(|time| Timestamp::from_second(time.into()).ok()),
        logs: plan.steps.iter().map(|step| step.file.name.clone()).collect(),
        stored_bytes: plan.steps.iter().map(|step| step.stored).sum(),
    };
    Ok(Some((recovery, plan)))
}

/// Refuses a way to the end, or to a time, that begins with an older backup and is of another history than
/// a newer one: from that one nothing leads on yet, as after a recovery whose new log is not archived.
fn refuse_another_history(
    archive: &Archive<'_>,
    newer: &Manifest,
    (recovery, plan): (&Recovery, &Plan),
    target: &Target,
    cancel: &Cancel,
) -> Result<()> {
    let concerns = match target {
        Target::End => true,
        Target::Time(time) => newer.ended <= *time,
        Target::Gtid(_) | Target::Position { .. } => false,
    };
    let Ok(anchor) = Anchor::of_manifest(newer) else { return Ok(()) };
    if !concerns || archive.has_history() {
        return Ok(());
    }
    let start = start(&anchor, anchor.server);
    let is_on_the_way = |log: &&Log| {
        let mut files = plan.steps.iter().map(|step| &step.file);
        files.any(|file| (file.server, &file.epoch) == (log.server, &log.epoch))
    };
    for log in archive.logs.iter().filter(is_on_the_way) {
        if archive.contradicts(log, &start, cancel)? {
            let message = format!(
                "nothing leads on from the newest backup {}, and what leads on from the older {} is another \
                 history, that of epoch {}",
                newer.name, recovery.backup, log.epoch
            );
            return Err(Error::new(ErrorKind::Gap, message).advise(format!(
                "archive the log of the server that the newest backup is of (haulout binlog push), or \
                 restore that backup as it is; if the other history is meant: --epoch {}",
                log.epoch
            )));
        }
    }
    Ok(())
}
