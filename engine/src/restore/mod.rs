//! Placing a prepared backup in a data directory.

use std::path::PathBuf;

use crate::{Cancel, Reporter, Result};

/// Whether the backup stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Copy; the backup stays as it is.
    Copy,
    /// Rename where possible, else copy and remove.
    Move,
}

/// From where to where. Paths left out follow from `backup-my.cnf` and the data directory.
pub struct RestoreOptions {
    /// Folder that holds the prepared backup.
    pub source: PathBuf,
    /// Data directory; created if missing, must be empty.
    pub datadir: PathBuf,
    /// Copy or move.
    pub mode: Mode,
    /// Copying threads, at least 1.
    pub parallel: usize,
    /// Owner of the placed files (user id, group id); the calling user's when unset.
    pub owner: Option<(u32, u32)>,
    /// Accept a data directory that holds other files; an existing file is never overwritten.
    pub force_non_empty: bool,
    /// `innodb_data_home_dir`, for system tablespace files.
    pub innodb_data_home_dir: Option<PathBuf>,
    /// `innodb_undo_directory`.
    pub innodb_undo_directory: Option<PathBuf>,
    /// `innodb_log_group_home_dir`.
    pub innodb_log_group_home_dir: Option<PathBuf>,
    /// `aria_log_dir_path`.
    pub aria_log_dir_path: Option<PathBuf>,
    /// `innodb_data_file_path`; the backup's own when unset.
    pub innodb_data_file_path: Option<String>,
}

/// What was placed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RestoreSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Files placed.
    pub files: u64,
    /// Bytes placed.
    pub bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
}

/// Places a prepared backup. A failed restore leaves a marker that keeps the server from starting.
pub fn restore(
    options: RestoreOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<RestoreSummary> {
    let _ = (options, cancel, reporter);
    Err(crate::Error::new(crate::ErrorKind::Failed, "restore is not built yet"))
}
