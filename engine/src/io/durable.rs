//! Small files that survive a crash whole.
//!
//! A reader sees the old content or the new one, never a mixture and never nothing: the content
//! goes to a temporary file beside the target, is made durable, and only then takes the target's
//! name; the directory is made durable last. A crash may leave the temporary file behind, whose
//! name begins with a dot.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::{Error, Result};

/// Mode of files in a backup, before the process's mask.
const MODE: u32 = 0o660;

/// Writes or replaces a file atomically and durably.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let dir = parent(path);
    let mut file = tempfile::Builder::new()
        .prefix(".haulout-")
        .permissions(std::fs::Permissions::from_mode(MODE))
        .tempfile_in(dir)
        .map_err(|error| Error::io("create a temporary file in", dir, error))?;
    file.write_all(content).map_err(|error| Error::io("write", path, error))?;
    file.as_file().sync_all().map_err(|error| Error::io("make durable", path, error))?;
    file.persist(path).map_err(|error| Error::io("replace", path, error.error))?;
    sync_dir(dir)
}

/// Removes a file durably; one that is not there is as good as removed.
pub fn remove_file(path: &Path) -> Result<()> {
    match remove_if_there(path)? {
        true => sync_dir(parent(path)),
        false => Ok(()),
    }
}

/// Removes a file, which a crash may bring back; whether it was there.
pub fn remove_if_there(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let sync = || File::open(dir)?.sync_all();
    sync().map_err(|error| Error::io("make durable the directory", dir, error))
}

/// The directory of a file; the working directory for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn content_is_replaced_and_nothing_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn missing_directory_is_named() {
        let error = write_file(Path::new("/nowhere/at/all/x"), b"").unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
