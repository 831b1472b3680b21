//! The files of the system tablespace as a backup keeps them: under their names, in one directory.
//!
//! The grammar of `innodb_data_file_path` is that of [`innodb::space::data_file_path`]; here the
//! text of each part is kept too, so that a backup's own setting has the sizes as the server's.
//! Disk partitions are refused by name.

use std::path::{Path, PathBuf};

use innodb::space::data_file_path;

use crate::{Error, ErrorKind, Result};

/// One file of the system tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// The path as configured: relative ones belong below the data home directory.
    pub path: PathBuf,
    /// Configured size in bytes; the last file may have grown.
    pub size: u64,
    /// Everything after the path, as written.
    attributes: String,
}

impl DataFile {
    /// The name under which a backup stores the file: without directories.
    pub fn stored_name(&self) -> &Path {
        // Parsing has made sure that there is a file name.
        Path::new(self.path.file_name().unwrap_or_default())
    }
}

/// The files of the system tablespace, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFilePath(Vec<DataFile>);

impl DataFilePath {
    /// The files, in order; at least one.
    pub fn files(&self) -> &[DataFile] {
        &self.0
    }

    /// Reads the setting. Two files that a backup would store under one name are refused.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Usage, format!("innodb_data_file_path '{text}': {why}"))
        };
        let parsed = data_file_path::DataFilePath::parse(text).map_err(|error| {
            Error::new(ErrorKind::Usage, "cannot understand innodb_data_file_path").caused_by(error)
        })?;
        let mut files: Vec<DataFile> = Vec::new();
        for (file, part) in parsed.files.into_iter().zip(text.split(';')) {
            if file.raw {
                return Err(wrong("disk partitions are not supported"));
            }
            let (_, attributes) = part.split_once(':').unwrap_or_default();
            let attributes = attributes.trim().to_owned();
            let file = DataFile { path: file.name.into(), size: file.size, attributes };
            if file.stored_name().as_os_str().is_empty() {
                return Err(wrong("a path without a file name"));
            }
            if files.iter().any(|other| other.stored_name() == file.stored_name()) {
                return Err(wrong("two files of the same name cannot be kept in one directory"));
            }
            files.push(file);
        }
        Ok(Self(files))
    }

    /// The setting as it must be for the files of a backup: names without directories.
    pub fn stored_text(&self) -> String {
        let part =
            |file: &DataFile| format!("{}:{}", file.stored_name().display(), file.attributes);
        self.0.iter().map(part).collect::<Vec<_>>().join(";")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn directories_are_stripped_and_sizes_kept() {
        let path = DataFilePath::parse("ibd_a:12M;/big/ibd_b:1g:autoextend:max:8G").unwrap();
        assert_eq!(path.stored_text(), "ibd_a:12M;ibd_b:1g:autoextend:max:8G");
        assert_eq!(path.files()[1].path, Path::new("/big/ibd_b"));
        assert_eq!(path.files()[1].size, 1 << 30);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for bad in [
            "",
            ";",
            "ibdata1",
            "ibdata1:x",
            "/:1M",
            "..:1M",
            "a:1M;/x/a:2M",
            "/dev/sda:3Graw",
            "d:1Mnew",
        ] {
            assert!(DataFilePath::parse(bad).is_err(), "{bad}");
        }
    }
}
