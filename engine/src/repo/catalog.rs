//! Which backups a repository has, and which one is meant.

use std::time::Duration;

use super::Repository;
use super::guard::LOOK_AT;
use super::layout::{BACKUPS, BackupName, Kind, MANIFEST};
use super::manifest::Manifest;
use crate::{Cancel, Error, ErrorKind, Result};

/// A backup of the repository.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it is, without packs, frames and files; or why it cannot be used.
    pub manifest: Result<Manifest, String>,
    /// Its name.
    pub name: BackupName,
    /// Whether it is not to expire.
    pub kept: bool,
    /// Bytes in the store, manifest included.
    pub stored: u64,
}

/// Which backup is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The one of this name, or whose name begins or ends so.
    Named(String),
    /// The one that came last, whatever the clocks said: see [`Manifest::order`].
    Latest,
    /// The one that ended last at or before this time.
    At(jiff::Timestamp),
}

impl std::str::FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("latest") {
            return Ok(Self::Latest);
        }
        if let Some(time) = text.strip_prefix('@') {
            return time.parse().map(Self::At).map_err(|_| {
                "behind @ comes a time such as 2026-01-31T12:00:00Z or …+01:00".to_owned()
            });
        }
        match text {
            "" => Err("a name, LATEST, or @TIME".to_owned()),
            name => Ok(Self::Named(name.to_owned())),
        }
    }
}

impl Repository {
    /// Names of the folders of backups, finished and not, the oldest first.
    pub fn folders(&self, cancel: &Cancel) -> Result<Vec<BackupName>> {
        let folders = self.store.list_folders(BACKUPS, cancel)?;
        Ok(folders.iter().filter_map(|name| BackupName::parse(name)).collect())
    }

    /// All backups, the oldest first.
    pub fn backups(&self, cancel: &Cancel) -> Result<Vec<Listed>> {
        let kept = self.store.list(super::layout::KEPT, cancel)?;
        let mut listed = Vec::new();
        for name in self.folders(cancel)? {
            let objects = self.store.list(&name.prefix(), cancel)?;
            let key = name.object(MANIFEST)?;
            // Otherwise it is not finished, or is just being removed.
            let Some(object) = objects.iter().find(|object| object.key == key) else { continue };
            let manifest = match self.read_head(&name, Some(object.len), cancel) {
                Err(error) if error.kind() == ErrorKind::NothingMatches => continue,
                Err(error) if error.kind() == ErrorKind::Damage => Err(error.to_string()),
                head => Ok(head?.0.manifest),
            };
            let stored = objects.iter().map(|object| object.len).sum();
            let mark = name.kept()?;
            let kept = kept.iter().any(|object| object.key == mark);
            listed.push(Listed { manifest, name, kept, stored });
        }
        Ok(listed)
    }

    /// The backup that is meant.
    ///
    /// # Errors
    /// [`ErrorKind::NothingMatches`]; [`ErrorKind::Usage`] for a name that several have.
    pub fn select(&self, selection: &Selection, cancel: &Cancel) -> Result<Manifest> {
        let nothing = |what: String| {
            Error::new(
                ErrorKind::NothingMatches,
                format!("{what} in the repository in {}", self.store.describe()),
            )
            .advise("haulout list shows what is there")
        };
        let mut names = self.folders(cancel)?;
        if let Selection::Named(text) = selection {
            names.retain(|name| {
                name.as_str().starts_with(text.as_str()) || name.as_str().ends_with(text.as_str())
            });
            names.retain(|name| self.is_finished(name, cancel).unwrap_or(true));
            return match names.as_slice() {
                [] => Err(nothing(format!("there is no backup {text}"))),
                [name] => self.manifest(name, cancel),
                [..] => {
                    let all: Vec<_> = names.iter().map(BackupName::as_str).collect();
                    let message = format!("{text} could be any of {}", all.join(", "));
                    Err(Error::new(ErrorKind::Usage, message))
                }
            };
        }
        // Names sort by when backups began. One that began earlier can have ended later, but no
        // backup runs for longer than this.
        const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
        let mut best: Option<Manifest> = None;
        let mut looked_at = 0;
        for name in names.iter().rev() {
            let too_early = |best: &Manifest| {
                let earliest = best.ended.checked_sub(LONGEST).unwrap_or(jiff::Timestamp::MIN);
                name.began().is_some_and(|began| began < earliest)
            };
            // Names are as wrong as the clocks that they were made by.
            if looked_at >= LOOK_AT && best.as_ref().is_some_and(too_early) {
                break;
            }
            if let Selection::At(time) = selection
                && name.began().is_some_and(|began| began > *time)
            {
                continue;
            }
            looked_at += 1;
            let manifest = match self.head(name, cancel) {
                Err(error) if error.kind() == ErrorKind::NothingMatches => continue,
                // What comes before the latest good one is of no account.
                Err(error) if error.kind() == ErrorKind::Damage && best.is_some() => continue,
                head => head?,
            };
            let early = match selection {
                Selection::At(time) => manifest.ended <= *time,
                _ => true,
            };
            let rank = |manifest: &Manifest| match selection {
                Selection::At(_) => (0, manifest.ended),
                _ => manifest.order(),
            };
            if early && best.as_ref().is_none_or(|best| rank(best) < rank(&manifest)) {
                best = Some(manifest);
            }
        }
        let best = best.ok_or_else(|| {
            nothing(match selection {
                Selection::At(time) => format!("there is no backup that ended by {time}"),
                _ => "there is no backup".to_owned(),
            })
        })?;
        self.manifest(&best.name, cancel)
    }

    fn is_finished(&self, name: &BackupName, cancel: &Cancel) -> Result<bool> {
        Ok(self.store.head(&name.object(MANIFEST)?, cancel)?.is_some())
    }

    /// What a restore of `manifest` needs: the full backup first, then the deltas on it.
    pub fn chain(&self, manifest: Manifest, cancel: &Cancel) -> Result<Vec<Manifest>> {
        let mut chain = vec![manifest];
        while let Some(parent) = chain.last().and_then(|last| last.parent.clone()) {
            if chain.iter().any(|link| link.name == parent) {
                return Err(Error::new(ErrorKind::Damage, format!("{parent} is its own ancestor")));
            }
            let link = self.manifest(&parent, cancel).map_err(|error| {
                let child = chain.last().map(|last| last.name.to_string()).unwrap_or_default();
                error.context(format!("the parent of {child}"))
            })?;
            chain.push(link);
        }
        chain.reverse();
        debug_assert!(chain.first().is_some_and(|first| first.kind == Kind::Full));
        Ok(chain)
    }
}
