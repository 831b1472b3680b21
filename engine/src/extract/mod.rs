//! Unpacking an xbstream into a folder.

use std::io::Read;
use std::path::PathBuf;

use crate::{Cancel, Reporter, Result};

/// Where to unpack to.
pub struct ExtractOptions {
    /// Target folder; created if missing.
    pub dir: PathBuf,
    /// Writing threads, at least 1.
    pub parallel: usize,
}

/// What was unpacked.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExtractSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// Files written.
    pub files: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
}

/// Unpacks `input` below the target folder and never outside of it.
pub fn extract(
    input: Box<dyn Read + Send>,
    options: ExtractOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<ExtractSummary> {
    let _ = (input, options, cancel, reporter);
    Err(crate::Error::new(crate::ErrorKind::Failed, "extract is not built yet"))
}
