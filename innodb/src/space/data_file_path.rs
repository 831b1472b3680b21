//! `innodb_data_file_path`: the files of the system tablespace.
//!
//! ```text
//! file:size[raw|newraw][;file:size…][:autoextend[:max:size]][:autoshrink]
//! ```
//!
//! The files form one sequence of pages: the first page of each file has the number behind the
//! last page of the file before it. Only the last file may grow.

/// Smallest size the server takes.
const SIZE_MIN: u64 = 1 << 20;

/// Why a value of `innodb_data_file_path` cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("innodb_data_file_path: {reason} in {at:?}")]
pub struct DataFilePathError {
    /// What is wrong.
    pub reason: &'static str,
    /// The part of the value.
    pub at: String,
}

/// One file of the system tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Name as written: relative to `innodb_data_home_dir`, or absolute.
    pub name: String,
    /// Size in bytes. All but the last file have exactly this size, the last at least.
    pub size: u64,
    /// Whether this is a block device.
    pub raw: bool,
}

/// The value of `innodb_data_file_path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFilePath {
    /// The files in order of their pages; at least one.
    pub files: Vec<DataFile>,
    /// Whether the last file grows.
    pub autoextend: bool,
    /// Up to how many bytes the last file grows.
    pub size_max: Option<u64>,
    /// Whether the last file may also shrink.
    pub autoshrink: bool,
}

impl DataFilePath {
    /// Reads the value of the server variable.
    ///
    /// # Errors
    /// When a server would refuse to start with it.
    pub fn parse(value: &str) -> Result<Self, DataFilePathError> {
        let mut path =
            Self { files: Vec::new(), autoextend: false, size_max: None, autoshrink: false };
        let mut rest = value.strip_suffix(';').unwrap_or(value);
        loop {
            let (specification, more) = match rest.split_once(';') {
                Some((specification, more)) => (specification, Some(more)),
                None => (rest, None),
            };
            let error = |reason| DataFilePathError { reason, at: specification.to_owned() };
            if path.autoextend || path.autoshrink {
                return Err(error("a file behind the one that may change its size"));
            }
            path.push(specification).map_err(error)?;
            match more {
                Some(more) => rest = more,
                None => return Ok(path),
            }
        }
    }

    fn push(&mut self, specification: &str) -> Result<(), &'static str> {
        let (name, attributes) = split_name(specification).ok_or("no size")?;
        if name.is_empty() {
            return Err("no file name");
        }
        let mut attributes = attributes.split(':');
        let size = attributes.next().unwrap_or_default();
        let device = size.strip_suffix("newraw").or_else(|| size.strip_suffix("raw"));
        let bytes = parse_size(device.unwrap_or(size)).ok_or("an impossible size")?;
        if bytes < SIZE_MIN {
            return Err("a size of less than 1 MiB");
        }
        let mut attribute = attributes.next();
        if attribute == Some("autoextend") {
            self.autoextend = true;
            attribute = attributes.next();
            if attribute == Some("max") {
                let max = attributes.next().and_then(parse_size).ok_or("an impossible size")?;
                self.size_max = Some(max);
                attribute = attributes.next();
            }
        }
        if attribute == Some("autoshrink") {
            self.autoshrink = true;
            attribute = attributes.next();
        }
        if attribute.is_some() {
            return Err("an unknown attribute");
        }
        if device.is_some() && (self.autoextend || self.autoshrink) {
            return Err("a device that is to change its size");
        }
        self.files.push(DataFile { name: name.to_owned(), size: bytes, raw: device.is_some() });
        Ok(())
    }
}

/// Splits at the colon behind the name. A colon before a slash or another colon belongs to it.
fn split_name(specification: &str) -> Option<(&str, &str)> {
    let mut colons = specification.match_indices(':').filter_map(|(at, _)| {
        let behind = specification.get(at + 1..)?;
        (!behind.starts_with(['/', '\\', ':'])).then_some((specification.get(..at)?, behind))
    });
    colons.next()
}

/// Bytes of a size with an optional unit.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn file(name: &str, size: u64) -> DataFile {
        DataFile { name: name.to_owned(), size, raw: false }
    }

    #[test]
    fn the_default() {
        let path = DataFilePath::parse("ibdata1:12M:autoextend").unwrap();
        assert_eq!(path.files, [file("ibdata1", 12 * MIB)]);
        assert!(path.autoextend && !path.autoshrink && path.size_max.is_none());
    }

    #[test]
    fn several_files_and_a_limit() {
        let path = DataFilePath::parse("/a/ibdata1:6M;ibdata2:8192K:autoextend:max:2G").unwrap();
        assert_eq!(path.files, [file("/a/ibdata1", 6 * MIB), file("ibdata2", 8 * MIB)]);
        assert_eq!(path.size_max, Some(2048 * MIB));
        assert!(DataFilePath::parse("a:12M:autoextend:max:1G:autoshrink").unwrap().autoshrink);
        assert!(DataFilePath::parse("a:12M:autoextend:autoshrink").unwrap().autoshrink);
        assert_eq!(DataFilePath::parse("a:10485760").unwrap().files, [file("a", 10 * MIB)]);
    }

    #[test]
    fn devices() {
        for value in ["/dev/vdb:10Gnewraw", "/dev/vdb:10Graw"] {
            let path = DataFilePath::parse(value).unwrap();
            assert_eq!(path.files[0].size, 10 << 30);
            assert!(path.files[0].raw);
        }
    }

    #[test]
    fn colons_in_names() {
        let path = DataFilePath::parse(r"C:\data\ibdata1:12M").unwrap();
        assert_eq!(path.files, [file(r"C:\data\ibdata1", 12 * MIB)]);
    }

    #[test]
    fn what_a_server_refuses() {
        for value in [
            "",
            ";",
            "ibdata1",
            "ibdata1:",
            ":12M",
            "ibdata1:12X",
            "ibdata1:-1M",
            "ibdata1:512K",
            "ibdata1:12M:autoextend;ibdata2:12M",
            "ibdata1:12M;;ibdata2:12M",
            "ibdata1:12M:autogrow",
            "ibdata1:12M:autoextend:max",
            "ibdata1:12M:max:20M",
            "ibdata1:99999999999999999999G",
            "/dev/vdb:10Graw:autoextend",
        ] {
            assert!(DataFilePath::parse(value).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(value in "[a:;0-9MKGx/]{0,40}|\\PC{0,40}") {
            let _ = DataFilePath::parse(&value);
        }
    }
}
