//! Which files of the archive no backup needs any more.
//!
//! A backup needs what was logged since. What is older than the oldest one, and older than is asked
//! for, goes: whole files, the oldest of a log first, so that no hole comes about. Where a backup
//! cannot be read, or there is none, nothing goes.

use std::time::Duration;

use binlog::GtidState;

use super::catalog::{File, keys};
use super::plan::entry;
use super::{Archive, Log};
use crate::repo::Repository;
use crate::{Cancel, Result};

/// What is to expire.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpireOptions {
    /// Files with transactions of so long ago or later stay, whether or not a backup needs them.
    pub keep_within: Option<Duration>,
    /// Whether to remove anything.
    pub delete: bool,
}

/// What became, or would become, of a file.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verdict {
    /// Its name.
    pub file: String,
    /// `server_id` of who wrote it.
    pub server: u32,
    /// Which row of files it belongs to.
    pub epoch: String,
    /// Why it stays; nothing, if it does not.
    pub stays: Option<String>,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// What was done, or would be.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExpirySummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Whether anything was removed; otherwise this is what would be.
    pub done: bool,
    /// The files, in the order of the logs.
    pub files: Vec<Verdict>,
    /// Objects that say what others say, too.
    pub spare: usize,
    /// Bytes that were, or would be, freed.
    pub freed_bytes: u64,
}

/// A backup, as far as logs go.
pub(super) struct Need {
    name: String,
    /// What it has.
    pub(super) state: GtidState,
}

impl Archive<'_> {
    /// Removes what no backup needs, or says what that would be.
    pub fn expire(&self, options: &ExpireOptions, cancel: &Cancel) -> Result<ExpirySummary> {
        let needs = needs(self.repository, cancel)?;
        let newest = self.files().filter_map(File::times).map(|times| times.1).max();
        let mut summary = ExpirySummary {
            format: 1,
            done: options.delete,
            files: Vec::new(),
            spare: 0,
            freed_bytes: 0,
        };
        for log in &self.logs {
            let mut gone = true;
            for (number, file) in log.files.iter().enumerate() {
                cancel.check()?;
                let is_last = number + 1 == log.files.len();
                let is_newest = is_last && file.times().is_none_or(|times| Some(times.1) == newest);
                let stays = match &needs {
                    Err(why) => Some(why.clone()),
                    Ok(_) if !gone => Some("stands behind one that stays".to_owned()),
                    Ok(_) if is_newest => Some("the end of the archive".to_owned()),
                    Ok(needs) => needs
                        .iter()
                        .find(|need| needed(log, number, &need.state))
                        .map(|need| format!("needed by {}", need.name))
                        .or_else(|| recent(file, options.keep_within)),
                };
                gone &= stays.is_none();
                let mut objects = keys(&file.spare);
                summary.spare += objects.len();
                let spare: u64 = file.spare.iter().map(|object| object.len).sum();
                summary.freed_bytes += if stays.is_none() { file.stored() } else { spare };
                if stays.is_none() {
                    // From the end on, so that what is left of a killed expiry is a beginning.
                    objects.extend(file.parts.iter().rev().map(|part| part.key.clone()));
                }
                if options.delete && !objects.is_empty() {
                    self.repository.store.delete(&objects, cancel)?;
                }
                summary.files.push(Verdict {
                    file: file.name.clone(),
                    server: file.server,
                    epoch: file.epoch.to_string(),
                    stays,
                    stored_bytes: file.stored(),
                });
            }
        }
        Ok(summary)
    }
}

/// Where the backups are in the logs; or why that cannot be told.
pub(super) fn needs(repository: &Repository, cancel: &Cancel) -> Result<Result<Vec<Need>, String>> {
    let backups = repository.backups(cancel)?;
    let mut needs = Vec::new();
    for backup in backups {
        let name = backup.name.to_string();
        let manifest = match backup.manifest {
            Ok(manifest) => manifest,
            Err(_) => return Ok(Err(format!("{name} is damaged: what it needs cannot be told"))),
        };
        let Some(replication) = manifest.replication else { continue };
        let (state, position) = (replication.binlog_state.parse(), replication.gtid.parse());
        let (Ok(mut state), Ok(position)) = (state, position) else {
            return Ok(Err(format!("{name} does not say what it needs")));
        };
        record(&mut state, &position);
        needs.push(Need { name, state });
    }
    Ok(match needs.is_empty() {
        true => Err("there is no backup with a place in the log".to_owned()),
        false => Ok(needs),
    })
}

/// What replication applied counts like what was logged.
fn record(state: &mut GtidState, position: &binlog::GtidPosition) {
    for gtid in position.iter() {
        if !state.covers(gtid) {
            state.record(gtid);
        }
    }
}

/// Whether a backup at `state` needs a file of a log.
fn needed(log: &Log, number: usize, state: &GtidState) -> bool {
    let file = log.files.get(number);
    if file.and_then(File::after).is_some_and(|after| state.includes(after)) {
        // All of it was there already, unless this is where a replay enters the log.
        return entry(log, &state.position()).is_some_and(|place| place.0 <= number);
    }
    true
}

/// Whether a file has transactions of so long ago or later.
pub(super) fn recent(file: &File, within: Option<Duration>) -> Option<String> {
    let last = file
        .times()
        .map(|times| i64::from(times.1))
        .or_else(|| file.parts.last().map(|part| part.head.stored.as_second()))?;
    is_recent(last, within)
}

/// Whether something is of so long ago or later.
pub(super) fn is_recent(second: i64, within: Option<Duration>) -> Option<String> {
    let oldest = jiff::Timestamp::now().checked_sub(within?).ok()?.as_second();
    (second >= oldest).then(|| "recent".to_owned())
}
