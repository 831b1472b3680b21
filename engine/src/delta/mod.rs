//! Deltas: backups of the pages that changed since another backup, in the stock tool's format.
//!
//! A delta has two files for each tablespace file `X`: `X.delta` with the pages ([`format`]) and
//! `X.meta` with what they are pages of ([`meta`]). Everything that is not InnoDB's is in it whole,
//! and so are tablespaces that were made while it was taken (`X.new`).
//!
//! | module | what |
//! |---|---|
//! | [`format`], [`meta`] | the two kinds of files |
//! | [`contents`], [`source`] | what a delta, and a directory with one, holds |
//! | [`plan`] | what becomes of the tablespaces of a base |
//! | [`apply`], [`progress`] | making the base a backup of the delta's time |
//! | [`pages`], [`plain`] | tablespaces; everything else |
//!
//! Which pages: those whose LSN is newer than a limit, for a server writes none without giving it
//! a newer one. Two limits make sense. Pages newer than the *last* checkpoint of the base are
//! enough for a base that is prepared before the delta is applied; it is what the stock tool does.
//! Pages newer than the *first* checkpoint of the base (where its redo begins) are enough for a base
//! that is not prepared, so that a chain can be merged and needs the redo of its last link only.

pub mod apply;
pub(crate) mod contents;
pub mod format;
pub mod meta;
pub(crate) mod pages;
mod plain;
mod plan;
pub mod progress;
pub mod source;

pub use apply::{Allow, ApplyOptions, DeltaSummary, apply};
pub use source::DeltaDir;

use std::path::Path;

use innodb::Lsn;

use crate::metadata::{Checkpoints, HauloutInfo};
use crate::{Error, ErrorKind, Result};

/// What a delta is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The last checkpoint of the base: by this the links of a chain are told.
    pub lsn: Lsn,
    /// Pages newer than this are in the delta. Not above `lsn`.
    pub pages_since: Lsn,
    /// The LSN that the base equals once it is prepared, where that is known and it will be prepared before
    /// the delta is applied. A base that is not may have tablespaces that nothing on them names.
    pub end: Option<Lsn>,
}

impl Base {
    /// A base of which only the LSN is known.
    pub const fn at(lsn: Lsn) -> Self {
        Self { lsn, pages_since: lsn, end: None }
    }

    /// The backup in `dir`, prepared or not, full or itself a delta.
    ///
    /// # Errors
    /// When there is no complete backup.
    pub fn of(dir: &Path) -> Result<Self> {
        let (checkpoints, _) = Checkpoints::read(dir)?;
        if checkpoints.to_lsn == Lsn(0) {
            let message = format!("{} does not say at which LSN it ended", dir.display());
            return Err(Error::new(ErrorKind::Damage, message).advise("take a full backup"));
        }
        let end = Some(checkpoints.last_lsn).filter(|end| *end >= checkpoints.to_lsn);
        Ok(Self { end, ..Self::at(checkpoints.to_lsn) })
    }

    /// The same, with all pages that a base which is not prepared lacks, where the base tells.
    ///
    /// # Errors
    /// When there is no complete backup.
    pub fn of_unprepared(dir: &Path) -> Result<Self> {
        let base = Self::of(dir)?;
        let start = HauloutInfo::read(dir)?
            // It may be that of a state before, when another tool has applied a delta since.
            .filter(|info| info.lsn.checkpoint == base.lsn.0)
            .map(|info| Lsn(info.lsn.start));
        let pages_since = start.unwrap_or(base.lsn).min(base.lsn);
        Ok(Self { pages_since, end: None, ..base })
    }
}
