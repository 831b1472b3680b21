//! Whether the binary logs of a repository lead on from its backups.
//!
//! A backup succeeds whatever is missing of them. But from a backup that is older than a gap there is no way
//! to a moment behind it, and nobody should learn that when it is needed.

use std::collections::BTreeSet;

use super::Finding;
use crate::archive::Archive;
use crate::archive::gaps::Gap;
use crate::replay::archived;
use crate::replay::plan::Anchor;
use crate::replay::target::Target;
use crate::repo::Repository;
use crate::repo::manifest::Manifest;
use crate::{Cancel, ErrorKind};

const WHAT: &str = "binary logs";

/// What is missing, each with a finding; nothing is said of a repository without logs.
pub(super) fn check_logs(
    repository: &Repository,
    latest: Option<&Manifest>,
    cancel: &Cancel,
) -> Vec<Finding> {
    let read =
        Archive::read(repository, cancel).and_then(|archive| Ok((archive.gaps(cancel)?, archive)));
    let (gaps, archive) = match read {
        Ok(read) => read,
        Err(error) => return vec![Finding::bad(WHAT, &error)],
    };
    let files = archive.files().count();
    if gaps.is_empty() {
        let found = format!("{files} in the archive, without a gap");
        return if files == 0 { Vec::new() } else { vec![Finding::good(WHAT, found)] };
    }
    // An archive that has not caught up with the backup yet has no way on from it, but that is no gap.
    let leads = latest.is_some_and(|latest| {
        let to_the_end = (&Target::End, &BTreeSet::new());
        let way = archived::choose(repository, &archive, to_the_end, Some(latest.clone()), cancel);
        way.err().is_none_or(|error| error.kind() != ErrorKind::Gap)
    });
    gaps.iter()
        .map(|gap| match leads || latest.is_some_and(|latest| !is_behind(gap, latest)) {
            true => Finding::note(
                WHAT,
                format!("a gap, older than the latest backup: {gap}"),
                "no backup from before it leads to a moment behind it; archive what is missing, if it \
                 is still there: haulout binlog push",
            ),
            false => Finding {
                kind: Some(ErrorKind::Gap),
                ..Finding::note(
                    WHAT,
                    format!("a gap, and no backup is newer: {gap}"),
                    "no backup leads to a moment behind it: archive what is missing (haulout binlog \
                     push), or take a backup",
                )
            },
        })
        .collect()
}

/// Whether something that is missing was logged after a backup, as far as it can be told.
fn is_behind(gap: &Gap, backup: &Manifest) -> bool {
    let Ok(anchor) = Anchor::of_replication(backup.name.as_str(), backup.replication.as_ref())
    else {
        return true;
    };
    let is_later = |domain, last| anchor.gtid.get(domain).is_none_or(|at| last > at.sequence);
    gap.missing.is_empty() || gap.missing.iter().any(|it| is_later(it.domain, it.last))
}
