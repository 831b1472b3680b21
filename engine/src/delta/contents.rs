//! What the files of a delta mean: which tablespaces it has, under the names they have at its end.
//!
//! What happened to tables while the delta was taken (`.del`, `.ren`, `.new`, see
//! [`crate::prepare`]) is worked out from the names of the files, wherever these are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::source::LOG;
use crate::capture::rocksdb;
use crate::metadata::names;
use crate::{Error, ErrorKind, Result};

/// The files of a delta.
#[derive(Debug, Default)]
pub struct Contents {
    /// Of each tablespace file that it has changed pages of, by its name at the end: what stands
    /// before the `.delta` and the `.meta`, which is the name that it was copied under.
    pub changed: BTreeMap<String, String>,
    /// Of each tablespace that it has whole, by its name at the end: the file that it is in.
    pub whole: BTreeMap<String, String>,
    /// All other files but the redo log and what is about the backup.
    pub plain: BTreeSet<PathBuf>,
}

impl Contents {
    /// Tells what each file is. `delta` is for messages; `new_name` reads a `.ren` file.
    ///
    /// # Errors
    /// When it cannot be a whole delta.
    pub fn new(
        delta: &str,
        files: &[PathBuf],
        new_name: &dyn Fn(&str) -> Result<(String, String)>,
    ) -> Result<Self> {
        let present: BTreeSet<&PathBuf> = files.iter().collect();
        let mut contents = Self::default();
        // By the name that the tablespace file had when it was copied.
        let mut changed = BTreeMap::new();
        let (mut dropped, mut renamed) = (Vec::new(), Vec::new());
        for file in files {
            let Some(name) = file.to_str().filter(|_| !file.starts_with(rocksdb::DIRECTORY)) else {
                contents.plain.insert(file.clone());
                continue;
            };
            let in_database = file.components().count() == 2;
            match name.rsplit_once('.') {
                // What was unpacked beside it counts.
                Some((of, "qp")) if present.contains(&PathBuf::from(of)) => {}
                Some((of, "qp")) => {
                    let message = format!("{delta} is compressed: {of}");
                    return Err(Error::new(ErrorKind::Usage, message)
                        .advise("unpack it first: mariadb-backup --decompress --target-dir=DIR"));
                }
                Some((of, "delta")) => {
                    changed.insert(of.to_owned(), of.to_owned());
                }
                Some((of, "meta")) if !present.contains(&PathBuf::from(format!("{of}.delta"))) => {
                    let message = format!(
                        "{delta} has {name}, but not {of}.delta: the stock tool has applied it \
                         already, at least in part, and has removed what it applied"
                    );
                    return Err(Error::new(ErrorKind::Damage, message)
                        .advise("use another copy of the delta; do not use that base any more"));
                }
                Some((_, "meta")) => {}
                Some((of, "del")) if in_database => dropped.push(format!("{of}.ibd")),
                Some((of, "ren")) if in_database => {
                    let (database, table) = new_name(name)?;
                    renamed.push((format!("{of}.ibd"), format!("{database}/{table}.ibd")));
                }
                Some((of, "new")) if in_database => {
                    contents.whole.insert(format!("{of}.ibd"), name.to_owned());
                }
                _ if name != LOG && !names::is_metadata(name) => {
                    contents.plain.insert(file.clone());
                }
                _ => {}
            }
        }
        for name in dropped {
            changed.remove(&name);
        }
        let moving: Vec<_> = renamed
            .into_iter()
            .filter_map(|(old, new)| Some((new, changed.remove(&old)?)))
            .collect();
        for (new, file) in moving {
            if changed.insert(new.clone(), file).is_some() {
                let message = format!("{delta}: two tablespaces have the name {new} at the end");
                return Err(Error::new(ErrorKind::Damage, message));
            }
        }
        changed.retain(|name, _| !contents.whole.contains_key(name));
        contents.changed = changed;
        Ok(contents)
    }
}
