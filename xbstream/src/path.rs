//! Paths inside a stream.
//!
//! A [`StreamPath`] can be opened component by component below a folder and never leads out of
//! it, as long as no component is followed through a symbolic link. Every path of every chunk,
//! rename targets and removals included, passes through here before anything else sees it.

use std::borrow::Borrow;
use std::fmt;

/// A path must be shorter than this: the stock reader refuses longer ones.
pub const PATH_LEN_LIMIT: usize = 512;

/// A relative path, components separated by `/`.
///
/// Not empty, shorter than [`PATH_LEN_LIMIT`], no NUL, no leading `/`, and no component that is
/// empty, `.` or `..`. A backslash is an ordinary byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPath(Box<[u8]>);

impl StreamPath {
    /// Checks `path` against the rules of the type.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let path = path.as_ref();
        let refuse = |rule| Err(PathError { path: path.escape_ascii().to_string(), rule });
        if path.is_empty() {
            return refuse(PathRule::Empty);
        }
        if path.len() >= PATH_LEN_LIMIT {
            return refuse(PathRule::TooLong);
        }
        if path.contains(&0) {
            return refuse(PathRule::Nul);
        }
        if path.starts_with(b"/") {
            return refuse(PathRule::Absolute);
        }
        for component in path.split(|&byte| byte == b'/') {
            match component {
                b"" => return refuse(PathRule::EmptyComponent),
                b"." | b".." => return refuse(PathRule::DotComponent),
                _ => {}
            }
        }
        Ok(Self(path.into()))
    }

    /// The path as it stands in the stream.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components, outermost first; at least one.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// The folder part without its trailing slash, `None` at the root of the backup.
    pub fn parent(&self) -> Option<&[u8]> {
        self.split().0
    }

    /// The folders that the path is in, innermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        let slashes = self.0.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
        slashes.filter_map(|(at, _)| self.0.get(..at)).map(|folder| Self(folder.into()))
    }

    /// The last component.
    pub fn file_name(&self) -> &[u8] {
        self.split().1
    }

    fn split(&self) -> (Option<&[u8]>, &[u8]) {
        let slash = self.0.iter().rposition(|&byte| byte == b'/');
        match slash.and_then(|at| Some((self.0.get(..at)?, self.0.get(at + 1..)?))) {
            Some((parent, name)) => (Some(parent), name),
            None => (None, &self.0),
        }
    }
}

impl Borrow<[u8]> for StreamPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for StreamPath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&str> for StreamPath {
    type Error = PathError;

    fn try_from(path: &str) -> Result<Self, PathError> {
        Self::new(path)
    }
}

/// Prints bytes beyond printable ASCII escaped: names come from outside and end on terminals.
impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What a remove chunk names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoveTarget {
    /// A file, or a folder with what is in it.
    Exact(StreamPath),
    /// Every entry of one folder whose name begins with the last component. Written with a `*`
    /// at the end, as for the files of all partitions of a table: `shop/orders#P#*`.
    Prefix(StreamPath),
}

impl RemoveTarget {
    /// Reads the path of a remove chunk.
    ///
    /// A `*` without at least one character before it in its component is refused: it would
    /// name a whole folder, which has a form of its own.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let path = path.as_ref();
        match path.strip_suffix(b"*") {
            None => StreamPath::new(path).map(Self::Exact),
            Some(prefix) if prefix.is_empty() || prefix.ends_with(b"/") => Err(PathError {
                path: path.escape_ascii().to_string(),
                rule: PathRule::EmptyPrefix,
            }),
            // The length limit holds for the path with its asterisk.
            Some(_) if path.len() >= PATH_LEN_LIMIT => {
                Err(PathError { path: path.escape_ascii().to_string(), rule: PathRule::TooLong })
            }
            Some(prefix) => StreamPath::new(prefix).map(Self::Prefix),
        }
    }

    /// The path or prefix, without the asterisk.
    pub fn path(&self) -> &StreamPath {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path,
        }
    }

    /// Whether removing the target removes `path`.
    pub fn covers(&self, path: &StreamPath) -> bool {
        let (Self::Exact(target) | Self::Prefix(target)) = self;
        match path.as_bytes().strip_prefix(target.as_bytes()) {
            None => false,
            Some(rest) if matches!(self, Self::Exact(_)) => {
                rest.is_empty() || rest.starts_with(b"/")
            }
            // The prefix stays in one folder.
            Some(rest) => !rest.contains(&b'/'),
        }
    }
}

/// A path that is refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsafe path `{path}`: {rule}")]
pub struct PathError {
    /// The path with unprintable bytes escaped.
    pub path: String,
    /// The rule it breaks.
    pub rule: PathRule,
}

/// The rules of [`StreamPath`] and [`RemoveTarget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRule {
    /// No bytes at all.
    #[error("it is empty")]
    Empty,
    /// At or beyond [`PATH_LEN_LIMIT`].
    #[error("it is longer than 511 bytes")]
    TooLong,
    /// A NUL byte, where the system would cut the name.
    #[error("it contains a NUL byte")]
    Nul,
    /// A leading slash.
    #[error("it is absolute")]
    Absolute,
    /// Two slashes in a row, or one at the end.
    #[error("it has an empty component")]
    EmptyComponent,
    /// `.` or `..` as a component.
    #[error("it has a component that is `.` or `..`")]
    DotComponent,
    /// A `*` alone.
    #[error("the pattern has nothing before its `*`")]
    EmptyPrefix,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn paths_that_lead_nowhere_else_pass() {
        for path in ["a", "db/t.ibd", "a/b/c", ".hidden", "x..", "...", "a\\b", "a/..b", "C:", "*"]
        {
            assert_eq!(StreamPath::new(path).unwrap().as_bytes(), path.as_bytes());
        }
        assert!(StreamPath::new("x".repeat(511)).is_ok());
    }

    #[test]
    fn each_rule_refuses_by_its_name() {
        let long = "x".repeat(512);
        for (path, rule) in [
            ("", PathRule::Empty),
            (long.as_str(), PathRule::TooLong),
            ("a\0b", PathRule::Nul),
            ("/etc/passwd", PathRule::Absolute),
            ("/", PathRule::Absolute),
            ("a//b", PathRule::EmptyComponent),
            ("a/", PathRule::EmptyComponent),
            (".", PathRule::DotComponent),
            ("..", PathRule::DotComponent),
            ("./a", PathRule::DotComponent),
            ("../a", PathRule::DotComponent),
            ("a/../b", PathRule::DotComponent),
            ("a/..", PathRule::DotComponent),
        ] {
            assert_eq!(StreamPath::new(path).unwrap_err().rule, rule, "{path:?}");
        }
    }

    #[test]
    fn folder_and_name() {
        let path = StreamPath::new("a/b/c").unwrap();
        assert_eq!((path.parent(), path.file_name()), (Some(&b"a/b"[..]), &b"c"[..]));
        assert_eq!(path.ancestors().map(|f| f.to_string()).collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(path.components().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        let path = StreamPath::new("c").unwrap();
        assert_eq!((path.parent(), path.file_name()), (None, &b"c"[..]));
    }

    #[test]
    fn removal_covers_a_file_a_folder_or_a_prefix() {
        let covers = |target: &str, path: &str| {
            RemoveTarget::new(target).unwrap().covers(&StreamPath::new(path).unwrap())
        };
        assert!(covers("g/a.MYD", "g/a.MYD"));
        assert!(!covers("g/a.MYD", "g/a.MYD2"));
        assert!(covers("g", "g/a.MYD"));
        assert!(!covers("g", "g2/a.MYD"));
        assert!(covers("g/p#P#*", "g/p#P#p0.MYD"));
        assert!(!covers("g/p#P#*", "g/p#P#/x"));
        assert!(!covers("g/p#P#*", "g/q"));
    }

    #[test]
    fn a_lone_asterisk_is_no_pattern() {
        for target in ["*", "g/*"] {
            assert_eq!(RemoveTarget::new(target).unwrap_err().rule, PathRule::EmptyPrefix);
        }
        for target in ["../x*", "/x*", "g/../x*"] {
            assert!(RemoveTarget::new(target).is_err());
        }
    }
}
