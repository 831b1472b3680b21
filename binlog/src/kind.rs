//! What a file is, by its name and its first bytes: beside their logs servers keep files with similar
//! names, which a pattern of the shell takes for logs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::format::{GTID_INDEX_MAGIC, GTID_INDEX_SUFFIX, INNODB_MAGIC, INNODB_SUFFIX, MAGIC};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A binary log, or a relay log.
    Log,
    /// The index by GTID of a log (11.4 and later): says nothing that the log does not say.
    GtidIndex,
    /// A binary log that InnoDB keeps (12.3 and later).
    InnodbBinlog,
    /// Anything else.
    Other,
}

impl FileKind {
    /// What the file at a path is. Of what can be read only once nothing is read: only its name tells.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Whoever writes into a pipe is not to find it opened and closed again.
        if !std::fs::metadata(path)?.is_file() {
            return Ok(if name.ends_with(INNODB_SUFFIX) { Self::InnodbBinlog } else { Self::Log });
        }
        let mut first = Vec::new();
        File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut first)?;
        Ok(Self::by(&name, &first))
    }

    /// By its name and its first four bytes, as far as there are as many.
    fn by(name: &str, first: &[u8]) -> Self {
        if name.ends_with(INNODB_SUFFIX) || first == INNODB_MAGIC {
            return Self::InnodbBinlog;
        }
        // That of a log that was just begun has no bytes yet.
        let is_early = first.len() < MAGIC.len() && is_index_of_log(name);
        match first {
            _ if first == MAGIC => Self::Log,
            _ if first == GTID_INDEX_MAGIC || is_early => Self::GtidIndex,
            _ => Self::Other,
        }
    }
}

/// Whether a name is that of a log, with what names of GTID indexes have behind it.
fn is_index_of_log(name: &str) -> bool {
    name.strip_suffix(GTID_INDEX_SUFFIX).and_then(|log| log.rsplit_once('.')).is_some_and(
        |(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_bytes_tell() {
        for (name, first, expected) in [
            ("binlog.000001", &b"\xfebin"[..], FileKind::Log),
            ("binlog.000001.idx", b"\xfe\xfe\x0c\x01", FileKind::GtidIndex),
            ("anything", b"\xfe\xfe\x0c\x01", FileKind::GtidIndex),
            ("binlog.000001.idx", b"", FileKind::GtidIndex),
            // A log that somebody named so is one.
            ("binlog.000001.idx", b"\xfebin", FileKind::Log),
            ("binlog.000001.idx", b"text", FileKind::Other),
            ("notes.idx", b"", FileKind::Other),
            ("binlog.000001", b"", FileKind::Other),
            ("binlog-000000.ibb", b"\0\0\0\0", FileKind::InnodbBinlog),
            ("copy", b"\xfe\xfe\x0d\x01", FileKind::InnodbBinlog),
        ] {
            assert_eq!(FileKind::by(name, first), expected, "{name} {first:?}");
        }
    }
}
