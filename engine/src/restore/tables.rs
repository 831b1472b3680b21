//! Placing files of single tables in a folder that is no data directory: for another server.
//!
//! The marker of an unfinished restore stands in the folder until all of them are there.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::guard::FILE_MODE;
use super::place::Placer;
use super::plan::{Item, REDO_LOG};
use super::{DIRECTORY_MODE, Mode, Stage};
use crate::io::durable;
use crate::{Cancel, Error, Result};

/// Moves files of `stage` to the same paths in `dir`, where `text` gets a file of this name; the
/// stage and the marker are removed. Returns the bytes of the files.
pub(crate) fn place_tables(
    stage: &Stage,
    dir: &Path,
    files: &[PathBuf],
    (text_name, text): (&str, &str),
    owner: Option<(u32, u32)>,
    cancel: &Cancel,
) -> Result<u64> {
    let placer = Placer { mode: Mode::Move, owner, cancel };
    let mut folders = BTreeSet::new();
    let mut bytes = 0;
    for file in files {
        let folder = dir.join(file.parent().unwrap_or(Path::new("")));
        if folders.insert(folder.clone()) && !folder.exists() {
            DirBuilder::new()
                .mode(DIRECTORY_MODE)
                .create(&folder)
                .map_err(|e| Error::io("create", &folder, e))?;
            let open = File::open(&folder).map_err(|e| Error::io("open", &folder, e))?;
            placer.own(&open, &folder)?;
        }
        let (source, target) = (stage.dir().join(file), dir.join(file));
        let metadata = fs::metadata(&source).map_err(|e| Error::io("inspect", &source, e))?;
        let mode = fs::Permissions::from_mode(FILE_MODE);
        fs::set_permissions(&source, mode).map_err(|e| Error::io("set the mode of", &source, e))?;
        bytes += metadata.len();
        let name = file.display().to_string();
        let item = Item { name, source, target: target.clone(), bytes: metadata.len() };
        placer.place(&item, &target, &|_| ())?;
    }
    durable::write_file(&dir.join(text_name), text.as_bytes())?;
    folders.iter().try_for_each(|folder| durable::sync_dir(folder))?;
    stage.remove()?;
    let marker = dir.join(REDO_LOG);
    fs::remove_file(&marker).map_err(|e| Error::io("remove", &marker, e))?;
    durable::sync_dir(dir)?;
    Ok(bytes)
}
