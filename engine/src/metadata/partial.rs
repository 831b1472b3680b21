//! Which tables a backup has, as its metadata tells.
//!
//! A delta of some tables fits only a base of the same: where the base has more, the delta would
//! take the rest away, because what is not in it counts as dropped. Backups of ours say which tables
//! they have; of others the arguments of the tool tell, if the filter was among them.

use std::path::Path;

use super::{BackupInfo, HauloutInfo};
use crate::Result;

/// The options of the stock tool that choose tables, with underscores as dashes.
const OPTIONS: [&str; 6] = [
    "--databases",
    "--databases-exclude",
    "--databases-file",
    "--tables",
    "--tables-exclude",
    "--tables-file",
];

/// Which tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tables {
    /// All.
    All,
    /// Those of a filter.
    Some {
        /// The filter, where the backup tells.
        filter: Option<String>,
        /// The arguments that made it.
        arguments: Vec<String>,
    },
}

impl Tables {
    /// Reads it from the metadata of a backup. Without any, a backup has all tables.
    pub fn read(dir: &Path) -> Result<Self> {
        let Some(info) = BackupInfo::read(dir)?.filter(|info| info.partial) else {
            return Ok(Self::All);
        };
        let filter = HauloutInfo::read(dir)?.and_then(|info| info.partial);
        Ok(Self::Some { filter, arguments: choosing(&info.tool_command) })
    }

    /// Whether two backups are known to have the same tables.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (
                Self::Some { filter, arguments },
                Self::Some { filter: other, arguments: other_arguments },
            ) => match (filter, other) {
                (Some(one), Some(other)) => one == other,
                _ => !arguments.is_empty() && arguments == other_arguments,
            },
            _ => false,
        }
    }
}

/// The arguments of a command that choose tables, sorted. A value may have blanks in it, and so go
/// on until the next option.
fn choosing(command: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = false;
    for word in command.split_whitespace() {
        if word.starts_with('-') {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let name = name.replace('_', "-");
            goes_on = OPTIONS.contains(&name.as_str());
            if goes_on {
                found.push(format!("{name}={value}"));
            }
        } else if let Some(last) = found.last_mut().filter(|_| goes_on) {
            if !last.ends_with('=') {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chooses_tables_is_found_among_the_arguments() {
        for (command, found) in [
            ("--backup --target-dir=/b --tables=^a[.]", vec!["--tables=^a[.]"]),
            (
                "--databases=a b.c d --stream=xbstream --tables_file /f",
                vec!["--databases=a b.c d", "--tables-file=/f"],
            ),
            ("--databases a b --backup x", vec!["--databases=a b"]),
            ("--backup --tablesx=1", vec![]),
        ] {
            assert_eq!(choosing(command), found, "{command}");
        }
    }

    #[test]
    fn only_equal_choices_are_equal() {
        let some = |filter: Option<&str>, arguments: &[&str]| Tables::Some {
            filter: filter.map(str::to_owned),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        };
        assert!(Tables::All.is_same(&Tables::All));
        assert!(some(Some("only a"), &[]).is_same(&some(Some("only a"), &["x"])));
        assert!(some(None, &["--databases=a"]).is_same(&some(Some("a"), &["--databases=a"])));
        for (one, other) in [
            (Tables::All, some(Some("only a"), &[])),
            (some(Some("only a"), &["x"]), some(Some("only b"), &["x"])),
            (some(None, &[]), some(None, &[])),
        ] {
            assert!(!one.is_same(&other) && !other.is_same(&one), "{one:?} {other:?}");
        }
    }
}
