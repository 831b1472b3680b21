//! What objects a repository has, and what they are called.
//!
//! ```text
//! haulout.json                         what this is; written once, see [`super::config`]
//! keys/000001.json                     the wrapped master key; the highest number counts
//! backups/20260101T120000Z-full-1a2b3c4d/
//!     pack-000000.xb.zst[.sealed]      frames
//!     manifest.json                    last: without it there is no backup
//! kept/20260101T120000Z-full-1a2b3c4d  an empty object: is not to expire
//! ```

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::compression::Compression;
use super::seal;
use crate::store::Key;
use crate::{Error, ErrorKind, Result};

/// What the repository is.
pub const CONFIG: &str = "haulout.json";
/// Where wrapped master keys are.
pub const KEYS: &str = "keys/";
/// Where backups are.
pub const BACKUPS: &str = "backups/";
/// Where marks of kept backups are.
pub const KEPT: &str = "kept/";
/// The document that makes a folder of packs a backup.
pub const MANIFEST: &str = "manifest.json";

const TIME: &str = "%Y%m%dT%H%M%SZ";

/// What a backup is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nothing: all pages are in it.
    Full,
    /// A parent: only pages are in it that changed since.
    Delta,
}

impl Kind {
    /// The word in names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Delta => "delta",
        }
    }
}

/// Name of a backup: the time it began, its kind, and something to tell it from others. Names sort
/// by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName(String);

impl BackupName {
    /// A new name.
    pub fn new(began: Timestamp, kind: Kind) -> Result<Self> {
        let mut unique = [0; 4];
        seal::random(&mut unique)?;
        let time = began.to_zoned(TimeZone::UTC).strftime(TIME).to_string();
        Ok(Self(format!("{time}-{}-{}", kind.word(), seal::hex(&unique))))
    }

    /// A name that was read somewhere; `None` if it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (time, kind, unique) = (parts.next()?, parts.next()?, parts.next()?);
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let valid = time.len() == 16
            && digits(time.get(..8)?)
            && time.get(8..9)? == "T"
            && digits(time.get(9..15)?)
            && time.ends_with('Z')
            && matches!(kind, "full" | "delta")
            && unique.len() == 8
            && unique.bytes().all(|byte| byte.is_ascii_hexdigit())
            && parts.next().is_none();
        valid.then(|| Self(text.to_owned()))
    }

    /// When the backup began, to the second.
    pub fn began(&self) -> Option<Timestamp> {
        let time = self.0.split('-').next()?;
        let civil = jiff::civil::DateTime::strptime(TIME, time).ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }

    /// What it is based on.
    pub fn kind(&self) -> Kind {
        if self.0.contains("-delta-") { Kind::Delta } else { Kind::Full }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object `name` of this backup.
    pub fn object(&self, name: &str) -> Result<Key> {
        Key::new(&format!("{BACKUPS}{}/{name}", self.0))
    }

    /// What the keys of all its objects begin with.
    pub fn prefix(&self) -> String {
        format!("{BACKUPS}{}/", self.0)
    }

    /// The mark that it is kept.
    pub fn kept(&self) -> Result<Key> {
        Key::new(&format!("{KEPT}{}", self.0))
    }
}

impl std::fmt::Display for BackupName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for BackupName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for BackupName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not the name of a backup"))
    }
}

/// Name of a pack.
pub fn pack_name(number: u32, compression: Compression, sealed: bool) -> String {
    let sealed = if sealed { ".sealed" } else { "" };
    format!("pack-{number:06}.xb{}{sealed}", compression.extension())
}

/// A document of the repository that cannot be what it should be.
pub fn damaged(key: &Key, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Damage, format!("{key} in the repository: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_say_when_and_what_and_sort_by_time() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let name = BackupName::new(at(1_767_268_800), Kind::Full).unwrap();
        assert!(name.as_str().starts_with("20260101T120000Z-full-"), "{name}");
        assert_eq!(BackupName::parse(name.as_str()), Some(name.clone()));
        assert_eq!((name.began(), name.kind()), (Some(at(1_767_268_800)), Kind::Full));
        assert!(BackupName::new(at(1_767_268_801), Kind::Delta).unwrap() > name);
        for text in [
            "",
            "x",
            "20260101T120000Z-full",
            "20260101T120000Z-part-1a2b3c4d",
            "20260101T120000Z-full-1a2b3c4d-x",
            "20260101T12000éZ-full-1a2b3c4",
            "../../20260101T1-full-1a2b3c4d",
        ] {
            assert_eq!(BackupName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn packs_are_named_by_what_unpacks_them() {
        assert_eq!(pack_name(7, Compression::default(), false), "pack-000007.xb.zst");
        assert_eq!(pack_name(0, Compression::None, true), "pack-000000.xb.sealed");
    }
}
