//! A place in the binary log: file and offset.

use std::fmt;

/// Longest name of a binary log file, as the server limits it.
const FILE_NAME_MAX: usize = 512;

/// A place in the binary log, as SHOW MASTER STATUS tells it.
///
/// The file has a plain name: no directory, no control characters, not empty. So a position can
/// be written to a line of a text file and used as a file name without further checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BinlogPosition {
    file: String,
    offset: u64,
}

/// A name that no binary log file has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a binary log file")]
pub struct BinlogPositionError(String);

impl BinlogPosition {
    /// The position `offset` in `file`. A leading `./`, as InnoDB records it, is taken off.
    pub fn new(file: &str, offset: u64) -> Result<Self, BinlogPositionError> {
        let name = file.strip_prefix("./").unwrap_or(file);
        let plain = !name.is_empty()
            && name.len() <= FILE_NAME_MAX
            && name != "."
            && name != ".."
            && !name.chars().any(|c| c == '/' || c.is_control());
        if plain {
            Ok(Self { file: name.to_owned(), offset })
        } else {
            Err(BinlogPositionError(file.chars().take(FILE_NAME_MAX).collect()))
        }
    }

    /// Name of the file, without directory.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Byte offset in the file at which the next event begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// `file:offset`, as messages name it.
impl fmt::Display for BinlogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_only() {
        let position = BinlogPosition::new("./bin.000012", 1176).expect("a usual name");
        assert_eq!(position.file(), "bin.000012");
        assert_eq!(position.to_string(), "bin.000012:1176");
        for bad in ["", ".", "..", "../x", "/x", "a/b", "a\tb", "a\n", &"x".repeat(513)] {
            assert!(BinlogPosition::new(bad, 4).is_err(), "{bad:?}");
        }
    }
}
