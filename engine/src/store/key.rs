//! Names of objects.
//!
//! A key is the same on every store: parts of `A-Z a-z 0-9 . _ -`, joined by `/`. What is a valid
//! key is a valid path below a folder, needs no escaping in a request, and cannot leave the
//! repository's prefix. Parts that begin with [`RESERVED`] belong to the stores themselves.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// Longest key. With a prefix it has to fit into the 1024 bytes that S3 has for both.
pub const KEY_MAX: usize = 500;
/// Longest part of a key: file systems have 255 bytes for a name.
pub const PART_MAX: usize = 200;
/// What the parts begin with that the stores keep for themselves; they are never listed.
pub(super) const RESERVED: &str = ".haulout-";

/// The name of an object below the repository's prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks a name.
    ///
    /// # Errors
    /// When the name is empty, too long, or has a part that is empty, `.`, `..`, reserved, or of
    /// other characters than keys have.
    pub fn new(name: &str) -> Result<Self> {
        if name.len() > KEY_MAX {
            return Err(invalid(name, "is too long"));
        }
        for part in name.split('/') {
            check_part(part).map_err(|why| invalid(name, why))?;
        }
        Ok(Self(name.to_owned()))
    }

    /// The key `name` below this one.
    ///
    /// # Errors
    /// As for [`Key::new`].
    pub fn join(&self, name: &str) -> Result<Self> {
        Self::new(&format!("{}/{name}", self.0))
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::str::FromStr for Key {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// Checks the beginning of keys: empty, or what [`Key`] allows up to some character.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        return Ok(());
    }
    if prefix.len() > KEY_MAX {
        return Err(invalid(prefix, "is too long"));
    }
    let (folders, last) = prefix.rsplit_once('/').map_or(("", prefix), |(folders, last)| {
        (folders, if last.is_empty() { "x" } else { last })
    });
    let folders = (prefix.contains('/')).then(|| folders.split('/'));
    // The last part may be the beginning of a longer one.
    let last = if last.bytes().all(|byte| byte == b'.') { "x" } else { last };
    for part in folders.into_iter().flatten().chain([last]) {
        check_part(part).map_err(|why| invalid(prefix, why))?;
    }
    Ok(())
}

fn check_part(part: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match part {
        "" => Err("has an empty part"),
        "." | ".." => Err("has a part . or .."),
        _ if part.starts_with(RESERVED) => Err("has a part that is reserved"),
        _ if part.len() > PART_MAX => Err("has a part that is too long"),
        _ if !part.bytes().all(allowed) => Err("has other characters than A-Z a-z 0-9 . _ - /"),
        _ => Ok(()),
    }
}

fn invalid(name: &str, why: &str) -> Error {
    let shown: String = name.chars().take(80).collect();
    Error::new(ErrorKind::Usage, format!("the name {shown:?} of an object {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_could_leave_their_place_are_no_keys() {
        for name in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/.",
            "a b",
            "a\\b",
            "a\0",
            "ä",
            "a%2f",
            ".haulout-x",
            "a/.haulout-probe",
        ] {
            assert_eq!(Key::new(name).unwrap_err().kind(), ErrorKind::Usage, "{name:?}");
        }
        assert!(Key::new(&"a".repeat(PART_MAX + 1)).is_err());
        assert!(Key::new(&"a/".repeat(KEY_MAX)).is_err());
        let key = Key::new("backups/20260101T000000Z-full-1a").unwrap();
        assert_eq!(key.join("pack-000000.xb.zst").unwrap().name(), "pack-000000.xb.zst");
        assert!(key.join("../x").is_err());
    }

    #[test]
    fn prefixes_are_beginnings_of_keys() {
        for prefix in ["", "a", "a/", "a/b", "backups/2026", ".", "a/.", "a/..", "a/.haulout"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix:?}");
        }
        for prefix in ["/", "//", "../", "a/../", "a//", "a b", "a/./b", "/a"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
    }
}
