//! The mark of a base to which a delta is being applied.
//!
//! While it is there and the base has no `*_checkpoints`, the base is nothing that anybody could
//! prepare, restore or apply another delta to; only the same delta can be applied again, and that
//! from the beginning. It is written before anything is changed and removed when all is done.

use std::path::Path;

use innodb::Lsn;

use crate::io::durable;
use crate::metadata::{Checkpoints, read_text};
use crate::{Error, ErrorKind, Result};

/// Its name.
pub const FILE_NAME: &str = "haulout-delta.progress";

/// The delta that is being applied, by its place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Where its base ends.
    from_lsn: u64,
    /// Where it ends.
    to_lsn: u64,
    /// Where its redo ends.
    last_lsn: u64,
}

impl Progress {
    /// That of this delta.
    pub const fn of(delta: &Checkpoints) -> Self {
        Self { from_lsn: delta.from_lsn.0, to_lsn: delta.to_lsn.0, last_lsn: delta.last_lsn.0 }
    }

    /// The one that an interruption has left in `base`.
    pub fn left_in(base: &Path) -> Result<Option<Self>> {
        let path = base.join(FILE_NAME);
        let Some(text) = read_text(&path)? else { return Ok(None) };
        let progress = serde_json::from_str(&text).map_err(|error| {
            Error::new(ErrorKind::Damage, format!("{} is damaged", path.display())).caused_by(error)
        })?;
        Ok(Some(progress))
    }

    /// Marks `base`.
    pub fn begin(self, base: &Path) -> Result<()> {
        let text = serde_json::to_vec(&self)
            .map_err(|e| Error::new(ErrorKind::Failed, "cannot note the delta").caused_by(e))?;
        durable::write_file(&base.join(FILE_NAME), &text)
    }

    /// Removes the mark.
    pub fn end(base: &Path) -> Result<()> {
        durable::remove_file(&base.join(FILE_NAME))
    }

    /// Whether `base` is what this delta makes of it.
    pub fn is_done(self, base: &Checkpoints) -> bool {
        (base.to_lsn, base.last_lsn) == (Lsn(self.to_lsn), Lsn(self.last_lsn))
    }

    /// The error of whoever wants something else with `base`.
    pub fn refuse(self, base: &Path) -> Error {
        let message = format!(
            "the delta from LSN {} to LSN {} was not applied to {} completely",
            self.from_lsn,
            self.to_lsn,
            base.display()
        );
        Error::new(ErrorKind::Failed, message).advise("apply that delta again, from the beginning")
    }
}

/// Clears the mark of a delta that was applied completely, and refuses what one left undone.
///
/// # Errors
/// When the base is between two states.
pub fn settle(base: &Path) -> Result<()> {
    let Some(progress) = Progress::left_in(base)? else { return Ok(()) };
    match Checkpoints::read(base) {
        Ok((checkpoints, _)) if progress.is_done(&checkpoints) => Progress::end(base),
        _ => Err(progress.refuse(base)),
    }
}
