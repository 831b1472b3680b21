//! Identifiers and the file names they become.
//!
//! Servers keep databases and tables under names that any file system takes: letters, digits and
//! `_` stay, a code point of the table in `short_escapes` becomes `@` and two characters,
//! everything else `@` and four hexadecimal digits. A name that DOS reserves gets `@@@` behind
//! it. `SYS_TABLES` and redo have names in this form too.

use std::fmt;

use super::short_escapes::{escape, unescape};

/// An identifier that starts with this is a file name as it is.
const LITERAL_PREFIX: &str = "#mysql50#";
/// Stands behind names that DOS reserves.
const RESERVED_SUFFIX: &str = "@@@";
/// Names of tables that an ALTER TABLE or a crash left behind start with this.
const INTERMEDIATE_PREFIX: &str = "#sql";

/// The file name of `identifier`, without extension; `None` when it can have none: it is empty,
/// has code points beyond the basic plane, or wants to leave its directory.
pub fn encode(identifier: &str) -> Option<String> {
    if let Some(literal) = identifier.strip_prefix(LITERAL_PREFIX) {
        let stays = !matches!(literal, "" | "." | "..") && !literal.contains(['/', '\\', '\0']);
        return stays.then(|| literal.to_owned());
    }
    if identifier.is_empty() {
        return None;
    }
    let mut name = String::with_capacity(identifier.len());
    for character in identifier.chars() {
        if is_plain(character) {
            name.push(character);
            continue;
        }
        let code = u16::try_from(u32::from(character)).ok()?;
        name.push('@');
        match escape(code) {
            Some(pair) => name.push_str(pair),
            None => name.push_str(&format!("{code:04x}")),
        }
    }
    if is_reserved(&name) {
        name.push_str(RESERVED_SUFFIX);
    }
    Some(name)
}

/// The identifier behind a file name without extension, or `None` when no identifier is encoded
/// so.
pub fn decode(name: &str) -> Option<String> {
    let encoded = match name.strip_suffix(RESERVED_SUFFIX) {
        Some(reserved) if is_reserved(reserved) => reserved,
        _ => name,
    };
    let mut identifier = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(character) = rest.chars().next() {
        if is_plain(character) {
            identifier.push(character);
            rest = rest.get(1..)?;
            continue;
        }
        // The short form is tried first: four hexadecimal digits may begin like one.
        let escaped = rest.strip_prefix('@')?;
        let pair = escaped.as_bytes().first_chunk::<2>()?;
        let (code, length) = match unescape(*pair) {
            Some(code) => (code, 2),
            None => {
                let digits = escaped.get(..4)?;
                if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                (u16::from_str_radix(digits, 16).ok()?, 4)
            }
        };
        identifier.push(char::from_u32(code.into()).filter(|&c| c != '\0')?);
        rest = escaped.get(length..)?;
    }
    (!identifier.is_empty()).then_some(identifier)
}

/// The identifier behind a file name without extension, in the server's way: a name that is not
/// encoded becomes `#mysql50#` and itself.
pub fn identifier(name: &str) -> String {
    decode(name).unwrap_or_else(|| format!("{LITERAL_PREFIX}{name}"))
}

/// A table, or one partition of it, as its file's path names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
    /// Partition, if the table has any.
    pub partition: Option<String>,
    /// Subpartition, if the partition has any.
    pub subpartition: Option<String>,
}

impl TableName {
    /// The table of a file. `path` is as redo or a directory listing has it, `./db/t.ibd`,
    /// `db/t#P#p0.ibd` or absolute; only its last two components count, and the extension does
    /// not. `None` when there are no two.
    pub fn of_path(path: &str) -> Option<Self> {
        let (directories, file) = path.rsplit_once('/')?;
        let database = directories.rsplit('/').next().filter(|name| !matches!(*name, "" | "."))?;
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        if stem.is_empty() {
            return None;
        }
        let (table, partition) = split_partition(stem, ["#P#", "#p#"]);
        let (partition, subpartition) = match partition {
            Some(partition) => {
                let (partition, sub) = split_partition(partition, ["#SP#", "#sp#"]);
                (Some(partition), sub)
            }
            None => (None, None),
        };
        Some(Self {
            database: identifier(database),
            table: identifier(table),
            partition: partition.map(identifier),
            subpartition: subpartition.map(identifier),
        })
    }
}

/// As in the server's messages: `` `db`.`t` /* Partition `p0`, Subpartition `s0` */ ``.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
        write!(f, "{}.{}", quoted(&self.database), quoted(&self.table))?;
        match (&self.partition, &self.subpartition) {
            (None, _) => Ok(()),
            (Some(p), None) => write!(f, " /* Partition {} */", quoted(p)),
            (Some(p), Some(s)) => {
                write!(f, " /* Partition {}, Subpartition {} */", quoted(p), quoted(s))
            }
        }
    }
}

/// Whether a file name belongs to an unfinished or interrupted ALTER TABLE or the like.
pub fn is_intermediate(file: &str) -> bool {
    file.starts_with(INTERMEDIATE_PREFIX)
}

/// Splits at the first of `separators`. They are upper case except where file names are folded.
fn split_partition<'a>(name: &'a str, separators: [&str; 2]) -> (&'a str, Option<&'a str>) {
    let split = separators.iter().filter_map(|separator| name.split_once(separator));
    match split.min_by_key(|(head, _)| head.len()) {
        Some((head, tail)) if !head.is_empty() && !tail.is_empty() => (head, Some(tail)),
        _ => (name, None),
    }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Device names of DOS.
fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match name.as_bytes() {
        b"con" | b"prn" | b"aux" | b"nul" => true,
        [b'c', b'o', b'm', digit] | [b'l', b'p', b't', digit] => matches!(digit, b'1'..=b'9'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::page::checksum::crc32c;
    use proptest::prelude::*;

    #[test]
    fn every_code_point_is_encoded_as_servers_do() {
        // One line for each code point: what 10.11 answers to CONVERT(… USING filename).
        let mut lines = String::new();
        for character in ('\u{1}'..='\u{ffff}').filter_map(|c| encode(&c.to_string())) {
            lines.push_str(&character);
            lines.push('\n');
        }
        assert_eq!((lines.len(), crc32c(lines.as_bytes())), (377_650, 0x7721_2799));
    }

    #[test]
    fn names_and_their_files() {
        for (identifier, file) in [
            ("t1", "t1"),
            ("a-b c.d", "a@002db@0020c@002ed"),
            ("#x$", "@0023x@0024"),
            ("À", "@0G"),
            ("日本", "@65e5@672c"),
            ("CON", "CON@@@"),
            ("lpt9", "lpt9@@@"),
            ("com0", "com0"),
            ("con1", "con1"),
        ] {
            assert_eq!(encode(identifier).as_deref(), Some(file));
            assert_eq!(decode(file).as_deref(), Some(identifier));
        }
    }

    #[test]
    fn names_that_are_not_encoded_are_literal() {
        assert_eq!(encode("#mysql50#a-b").as_deref(), Some("a-b"));
        for not_encoded in
            ["a-b", "lost+found", "x@", "x@zz", "x@00", "@d800", "@0000", "x@@@", "é@"]
        {
            assert_eq!(decode(not_encoded), None, "{not_encoded}");
            assert_eq!(identifier(not_encoded), format!("#mysql50#{not_encoded}"));
        }
    }

    #[test]
    fn names_that_would_leave_their_directory_have_no_file() {
        for name in ["", "#mysql50#", "#mysql50#..", "#mysql50#../x", "#mysql50#a\0", "😀"] {
            assert_eq!(encode(name), None, "{name}");
        }
        assert_eq!(encode("../x").as_deref(), Some("@002e@002e@002fx"));
    }

    #[test]
    fn tables_of_paths() {
        let text = |path| TableName::of_path(path).map(|name| name.to_string());
        for (path, table) in [
            ("./w/t1.ibd", "`w`.`t1`"),
            ("w/a@0020b.ibd", "`w`.`a b`"),
            ("/data/dir/w/t1.ibd", "`w`.`t1`"),
            ("con@@@/CON@@@.ibd", "`con`.`CON`"),
            ("w/t#P#Pmax@002dx.ibd", "`w`.`t` /* Partition `Pmax-x` */"),
            ("w/sp#P#p0#SP#p0sp0.ibd", "`w`.`sp` /* Partition `p0`, Subpartition `p0sp0` */"),
            ("w/sp#p#p0#sp#s.ibd", "`w`.`sp` /* Partition `p0`, Subpartition `s` */"),
            ("w/#sql-ib42.ibd", "`w`.`#mysql50##sql-ib42`"),
            ("w/t1", "`w`.`t1`"),
        ] {
            assert_eq!(text(path).as_deref(), Some(table));
        }
        for path in ["", "t1.ibd", "./t1.ibd", "w/", "w/.ibd", "/t.ibd"] {
            assert_eq!(text(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn encoding_is_undone(name in prop::collection::vec(prop::char::range('\u{1}', '\u{ffff}'), 1..40)) {
            let name: String = name.into_iter().collect();
            let file = encode(&name).unwrap();
            prop_assert!(file.is_ascii() && !file.contains(['/', '.']));
            prop_assert_eq!(decode(&file), Some(name));
        }

        #[test]
        fn arbitrary_names_never_panic(name: String) {
            let _ = TableName::of_path(&name);
            if let Some(file) = encode(&identifier(&name)) {
                prop_assert!(!file.contains('/'));
            }
        }
    }
}
