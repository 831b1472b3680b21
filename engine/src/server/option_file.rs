//! `my.cnf` option files, read as the server's own programs read them.
//!
//! Promises: files, groups and options come in the order that gives "later wins" the meaning
//! users know; every option remembers its file and line; file size, include depth and number
//! of files are bounded; a file that anybody may write is not obeyed but reported. Where the
//! server's programs overlook a broken line, this reader refuses it by file and line.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// Read in this order when no file is named, before the user's own.
const GLOBAL_FILES: &[&str] = &["/etc/my.cnf", "/etc/mysql/my.cnf"];
/// The user's own file, in the home directory.
const USER_FILE: &str = ".my.cnf";
/// Largest option file.
const FILE_SIZE_MAX: u64 = 1 << 20;
/// How deep includes may nest.
const INCLUDE_DEPTH_MAX: usize = 10;
/// How many files may be read in all.
const FILES_MAX: usize = 1000;

/// Which option files to read: `--defaults-file` and its relatives.
#[derive(Clone, Debug, Default)]
pub struct DefaultsChoice {
    /// `--no-defaults`: read nothing.
    pub no_defaults: bool,
    /// `--defaults-file`: read only this file.
    pub file: Option<PathBuf>,
    /// `--defaults-extra-file`: read this file too, after the global and before the user's file.
    pub extra_file: Option<PathBuf>,
    /// `--defaults-group-suffix`: also read groups with this suffix.
    pub group_suffix: Option<String>,
}

/// Where an option was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
}

/// `file:line`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// An option as it was meant.
#[derive(Clone, PartialEq, Eq)]
pub struct OptionValue {
    /// The name with dashes, without `loose-`, `skip-` and the like.
    pub name: String,
    /// The value; `None` for a bare name. `skip-x` and `disable-x` are `x` with value `0`.
    pub value: Option<String>,
    /// Written with `loose-`: a reader that does not know the option must not complain.
    pub loose: bool,
    /// Where it was written.
    pub origin: Origin,
}

impl OptionValue {
    /// The option as a switch: a bare name is on.
    pub fn is_on(&self) -> bool {
        self.value.as_deref().is_none_or(|value| {
            !matches!(value.to_ascii_lowercase().as_str(), "0" | "off" | "false" | "no")
        })
    }
}

/// The value may be a password and is not shown.
impl fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.origin)
    }
}

/// The content of all option files that were read.
#[derive(Clone, Debug, Default)]
pub struct OptionFiles {
    entries: Vec<Entry>,
    group_suffix: Option<String>,
    warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct Entry {
    group: Arc<str>,
    option: OptionValue,
}

impl OptionFiles {
    /// Reads the files that `choice` asks for.
    pub fn load(choice: &DefaultsChoice) -> Result<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Self::load_with_home(choice, home.as_deref())
    }

    fn load_with_home(choice: &DefaultsChoice, home: Option<&Path>) -> Result<Self> {
        let mut reader = Reader::default();
        if choice.no_defaults {
            return Ok(reader.found);
        }
        if let Some(file) = &choice.file {
            reader.must_read(file)?;
        } else {
            for file in GLOBAL_FILES {
                reader.read_if_there(Path::new(file), 0)?;
            }
            if let Some(file) = &choice.extra_file {
                reader.must_read(file)?;
            }
            if let Some(home) = home {
                reader.read_if_there(&home.join(USER_FILE), 0)?;
            }
        }
        reader.found.group_suffix = choice.group_suffix.clone();
        Ok(reader.found)
    }

    /// Options given as text, as if they stood in a file named `option file`. For tests and
    /// for callers that hold the text already; `!include` is not followed.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut reader = Reader { include_allowed: false, ..Reader::default() };
        reader.parse(Path::new("option file"), text.as_bytes(), 0)?;
        Ok(reader.found)
    }

    /// All options of these groups (and of the groups with the suffix asked for) in the order
    /// in which they were written. The last one of a name is the one that counts.
    pub fn options(&self, groups: &[&str]) -> Vec<OptionValue> {
        let wanted = |group: &str| {
            groups.contains(&group)
                || self.group_suffix.as_deref().is_some_and(|suffix| {
                    group.strip_suffix(suffix).is_some_and(|stem| groups.contains(&stem))
                })
        };
        let wanted = self.entries.iter().filter(|entry| wanted(&entry.group));
        wanted.map(|entry| entry.option.clone()).collect()
    }

    /// The option of this name that counts, in these groups.
    pub fn last(&self, groups: &[&str], name: &str) -> Option<OptionValue> {
        let name = normal_name(name);
        self.options(groups).into_iter().rev().find(|option| option.name == name)
    }

    /// Files that were not obeyed, and why.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// A number with one of the suffixes K, M, G, T, P, E.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, shift) = match text.char_indices().next_back()? {
        (end, letter) if letter.is_ascii_alphabetic() => {
            let step = "kmgtpe".find(letter.to_ascii_lowercase())?;
            (text.get(..end)?, (step as u32 + 1) * 10)
        }
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Option names are the same whether written with dashes or underscores.
fn normal_name(name: &str) -> String {
    name.replace('_', "-")
}

struct Reader {
    found: OptionFiles,
    files: usize,
    include_allowed: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self { found: OptionFiles::default(), files: 0, include_allowed: true }
    }
}

impl Reader {
    /// Reads a file that the user named: it must be there and readable.
    fn must_read(&mut self, path: &Path) -> Result<()> {
        std::fs::File::open(path).map_err(|error| {
            let message = format!("cannot open the option file {}", path.display());
            Error::new(ErrorKind::Usage, message).caused_by(error)
        })?;
        self.read_if_there(path, 0)
    }

    /// Reads one file with its includes. A file that is not there is no error, and one of
    /// another user that is closed to this one is reported and passed over.
    fn read_if_there(&mut self, path: &Path, depth: usize) -> Result<()> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let text = format!("the option file {} is ignored: {error}", path.display());
                self.found.warnings.push(text);
                return Ok(());
            }
            Err(error) => return Err(Error::io("open the option file", path, error)),
        };
        let metadata = file.metadata().map_err(|e| Error::io("look at", path, e))?;
        if metadata.is_dir() {
            return Ok(());
        }
        if metadata.is_file() && metadata.permissions().mode() & 0o002 != 0 {
            let text =
                format!("the option file {} is ignored: anybody may write it", path.display());
            self.found.warnings.push(text);
            return Ok(());
        }
        self.files += 1;
        let mut bytes = Vec::new();
        file.take(FILE_SIZE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("read the option file", path, e))?;
        if bytes.len() as u64 > FILE_SIZE_MAX || self.files > FILES_MAX {
            let message = format!(
                "the option file {} is one too many or larger than {FILE_SIZE_MAX} bytes",
                path.display()
            );
            return Err(Error::new(ErrorKind::Usage, message));
        }
        self.parse(path, &bytes, depth)
    }

    fn parse(&mut self, path: &Path, bytes: &[u8], depth: usize) -> Result<()> {
        let file: Arc<Path> = path.into();
        let mut group: Option<Arc<str>> = None;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let origin = Origin { file: Arc::clone(&file), line: index + 1 };
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
                continue;
            }
            let line = std::str::from_utf8(line).map_err(|_| refuse(&origin, "not UTF-8"))?;
            if let Some(directive) = line.strip_prefix('!') {
                self.include(directive, &origin, depth)?;
            } else if let Some(rest) = line.strip_prefix('[') {
                let (name, _) = rest
                    .split_once(']')
                    .ok_or_else(|| refuse(&origin, "a group without closing bracket"))?;
                group = Some(name.trim().into());
            } else {
                let group =
                    group.clone().ok_or_else(|| refuse(&origin, "an option before any group"))?;
                let option = parse_option(line, origin)?;
                self.found.entries.push(Entry { group, option });
            }
        }
        Ok(())
    }

    /// `!include file` and `!includedir dir`. Paths are as the server's programs take them:
    /// relative ones are relative to the working directory.
    fn include(&mut self, directive: &str, origin: &Origin, depth: usize) -> Result<()> {
        if !self.include_allowed {
            return Err(refuse(origin, "an include where none is followed"));
        }
        if depth >= INCLUDE_DEPTH_MAX {
            return Err(refuse(origin, "includes nest too deeply"));
        }
        let (word, target) = directive
            .split_once(|c: char| c.is_ascii_whitespace())
            .map(|(word, target)| (word, Path::new(target.trim())))
            .ok_or_else(|| refuse(origin, "an include without a path"))?;
        match word {
            "include" => self.read_if_there(target, depth + 1),
            "includedir" => {
                let entries = std::fs::read_dir(target)
                    .map_err(|e| Error::io("read the directory", target, e).context(origin))?;
                let mut files = Vec::new();
                for entry in entries {
                    let path =
                        entry.map_err(|e| Error::io("read the directory", target, e))?.path();
                    if path.extension().is_some_and(|extension| extension == "cnf") {
                        files.push(path);
                    }
                    if files.len() > FILES_MAX {
                        return Err(refuse(origin, "too many files"));
                    }
                }
                files.sort();
                files.iter().try_for_each(|file| self.read_if_there(file, depth + 1))
            }
            _ => Err(refuse(origin, "an unknown directive")),
        }
    }
}

fn refuse(origin: &Origin, what: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("{origin}: {what}"))
}

/// `name`, `name=value`, with comment, quotes and escapes.
fn parse_option(line: &str, origin: Origin) -> Result<OptionValue> {
    let line = without_comment(line);
    let (written, value) = match line.split_once('=') {
        Some((name, value)) => (name.trim(), Some(unquote(value.trim()))),
        None => (line.trim(), None),
    };
    let mut name = normal_name(written);
    if name.is_empty() {
        return Err(refuse(&origin, "a value without a name"));
    }
    let loose = name.starts_with("loose-");
    if let Some(rest) = name.strip_prefix("loose-") {
        name = rest.to_owned();
    }
    let negated = name.strip_prefix("skip-").or_else(|| name.strip_prefix("disable-"));
    let (name, value) = match (negated, name.strip_prefix("enable-")) {
        (Some(rest), _) if value.is_none() => (rest.to_owned(), Some("0".to_owned())),
        (None, Some(rest)) if value.is_none() => (rest.to_owned(), Some("1".to_owned())),
        _ => (name, value),
    };
    Ok(OptionValue { name, value, loose, origin })
}

/// The line up to the first `#` outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (index, character) in line.char_indices() {
        match (character, quote) {
            _ if escaped => escaped = false,
            ('\\', Some(_)) => escaped = true,
            ('\'' | '"', None) => quote = Some(character),
            (closing, Some(open)) if closing == open => quote = None,
            ('#', None) => return line.get(..index).unwrap_or(line),
            _ => {}
        }
    }
    line
}

/// Takes off a pair of quotes around the whole value and resolves escapes.
fn unquote(value: &str) -> String {
    let inner = ['\'', '"']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('s') => text.push(' '),
            Some(quoted @ ('\\' | '"' | '\'')) => text.push(quoted),
            Some(other) => text.extend(['\\', other]),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
#[path = "option_file_tests.rs"]
mod tests;
