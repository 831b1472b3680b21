//! Which backup a new one is based on.
//!
//! A parent must be of the same server, and must not be ahead of it: a
//! server that was set back to an older backup begins anew with a full one. Deltas here have all
//! pages that a parent lacks as it is stored, so a chain is merged without its parents' redo.

use super::Repository;
use super::catalog::Selection;
use super::guard::differences;
use super::layout::{BackupName, Kind};
use super::manifest::Manifest;
use crate::delta::Base;
use crate::metadata::haulout_info::ServerIdentity;
use crate::{Cancel, Error, ErrorKind, Lsn, Reporter, Result};

/// Deltas in a row that are taken before a full backup, unless told otherwise: with one backup a
/// day, a full one each week, and a restore that reads seven at most.
pub const CHAIN_MAX: u32 = 6;

/// What a backup is to be based on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// Nothing: a full backup.
    #[default]
    Full,
    /// This backup, or the last one.
    Delta(Option<Selection>),
    /// The last full one.
    Differential,
    /// The last one, unless there is none or so many deltas are in a row already.
    Auto {
        /// Most deltas in a row.
        chain_max: u32,
    },
}

/// What a delta is based on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// Its name.
    pub name: BackupName,
    /// What has to be in the delta.
    pub base: Base,
}

impl Parent {
    fn new(manifest: &Manifest) -> Self {
        let base = Base {
            lsn: Lsn(manifest.lsn.checkpoint),
            pages_since: Lsn(manifest.lsn.start.min(manifest.lsn.checkpoint)),
            end: None,
        };
        Self { name: manifest.name.clone(), base }
    }
}

/// The server that is to be backed up, and where its redo log is.
type Server<'a> = (&'a ServerIdentity, Lsn);

/// Why `manifest` cannot be the parent of a backup of that server.
fn refusal((server, now): Server<'_>, manifest: &Manifest) -> Option<String> {
    let differences = differences(&manifest.server, server);
    if !differences.is_empty() {
        return Some(format!("it is of another server: {}", differences.join(", ")));
    }
    let end = Lsn(manifest.lsn.checkpoint);
    (end > now).then(|| format!("it ends at LSN {end}, and the server is at LSN {now} only"))
}

impl Repository {
    /// What a new backup is based on; nothing for a full one.
    pub(super) fn parent(
        &self,
        basis: &Basis,
        server: Server<'_>,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<Option<Parent>> {
        let nothing = |what: &str| {
            let message = format!("there is no {what} of this server in {}", self.store.describe());
            Error::new(ErrorKind::NothingMatches, message).advise("take a full backup first")
        };
        match basis {
            Basis::Full => Ok(None),
            Basis::Delta(Some(selection)) => {
                let manifest = self.select(selection, cancel)?;
                if let Some(why) = refusal(server, &manifest) {
                    let message = format!("{} cannot be the parent: {why}", manifest.name);
                    return Err(Error::new(ErrorKind::Usage, message)
                        .advise("name another backup, or take a full one"));
                }
                // Whatever it needs itself must be there.
                self.chain_length(&manifest, cancel)?;
                Ok(Some(Parent::new(&manifest)))
            }
            Basis::Delta(None) => {
                let last = self.last(server, false, cancel, reporter)?;
                let (manifest, _) = last.ok_or_else(|| nothing("backup"))?;
                Ok(Some(Parent::new(&manifest)))
            }
            Basis::Differential => {
                let last = self.last(server, true, cancel, reporter)?;
                let (manifest, _) = last.ok_or_else(|| nothing("full backup"))?;
                Ok(Some(Parent::new(&manifest)))
            }
            Basis::Auto { chain_max } => {
                let last = self.last(server, false, cancel, reporter)?;
                let Some((manifest, links)) = last else {
                    reporter.info("there is no backup of this server yet: a full one".to_owned());
                    return Ok(None);
                };
                if links > *chain_max as usize {
                    reporter.info(format!("{chain_max} deltas are in a row: a full backup"));
                    return Ok(None);
                }
                Ok(Some(Parent::new(&manifest)))
            }
        }
    }

    /// The last backup that can be a parent, and the length of its chain.
    fn last(
        &self,
        server: Server<'_>,
        only_full: bool,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<Option<(Manifest, usize)>> {
        let mut candidates: Vec<Manifest> = Vec::new();
        for name in self.folders(cancel)?.into_iter().rev() {
            if only_full && name.kind() != Kind::Full {
                continue;
            }
            match self.head(&name, cancel) {
                Ok(head) if refusal(server, &head).is_none() => candidates.push(head),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NothingMatches => {}
                Err(error) if error.kind() == ErrorKind::Damage => {
                    reporter.warn(format!("{name} cannot be a parent: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        candidates.sort_by_key(|head| std::cmp::Reverse(head.order()));
        for head in candidates {
            match self.chain_length(&head, cancel) {
                Ok(length) => return Ok(Some((head, length))),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Damage | ErrorKind::NothingMatches) =>
                {
                    reporter.warn(format!("{} cannot be a parent: {error}", head.name));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Links of the chain that ends with `head`, all of which are there.
    fn chain_length(&self, head: &Manifest, cancel: &Cancel) -> Result<usize> {
        let mut seen = vec![head.name.clone()];
        let mut parent = head.parent.clone();
        while let Some(name) = parent {
            if seen.contains(&name) {
                return Err(Error::new(ErrorKind::Damage, format!("{name} is its own ancestor")));
            }
            parent = self.head(&name, cancel)?.parent;
            seen.push(name);
        }
        Ok(seen.len())
    }
}

/// Why `link` cannot be applied to what `parent` gives; `None` when it can.
pub(super) fn gap(parent: &Manifest, link: &Manifest) -> Option<String> {
    let (from, since) = (link.lsn.from?, link.lsn.pages_since?);
    if from != parent.lsn.checkpoint {
        return Some(format!(
            "it begins at LSN {from}, but its parent {} ends at LSN {}",
            parent.name, parent.lsn.checkpoint
        ));
    }
    (since > parent.lsn.start).then(|| {
        format!(
            "it has pages since LSN {since}, but the redo of its parent {} begins at LSN {}",
            parent.name, parent.lsn.start
        )
    })
}
