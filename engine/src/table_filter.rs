//! Which tables a partial backup has.
//!
//! Decided by the names of files, as the stock tool does it: `db/t#P#p0.ibd` is `db.t#P#p0`, and
//! `db.t` if that does not settle it; `db/db.opt` is a table `db`. Names are taken as they are
//! written and as file names, so that `d-2` and `d@002d2` both mean the database `d-2`. In order:
//!
//! 1. Files outside of databases are always there: nothing starts without them.
//! 2. A database that is excluded, or not listed although databases are, is not.
//! 3. A table that is excluded is not; one that is chosen is.
//! 4. What is left is there if its whole database is listed, or nothing at all was chosen.

use std::collections::BTreeSet;

use innodb::space::file_name::{self, TableName};
use regex::bytes::{Regex, RegexBuilder};

use crate::repo::choice::Choice;
use crate::{Error, ErrorKind, Result};

/// Most memory that a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Names and patterns of one direction.
#[derive(Clone, Debug, Default)]
struct Names {
    /// Whole databases.
    databases: BTreeSet<String>,
    /// `db.table`.
    tables: BTreeSet<String>,
    /// Matched against `db.table`, anywhere in it.
    patterns: Vec<Regex>,
    /// Names with wildcards, in the words of SQL or as file names.
    wildcards: Choice,
}

/// Which tables are wanted. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct TableFilter {
    chosen: Names,
    excluded: Names,
    /// Databases of which anything is wanted, when databases were listed.
    listed: BTreeSet<String>,
}

impl TableFilter {
    /// Chooses `db`, the whole database, or `db.table`. Once this was used, nothing of a database
    /// that was never named is wanted, whatever other choices say.
    pub fn choose_in_databases(&mut self, name: &str) -> Result<()> {
        let (database, table) = split(name)?;
        self.listed.extend(spellings(database));
        match table {
            None => self.chosen.databases.extend(spellings(database)),
            Some(table) => self.chosen.add_table(database, table),
        }
        Ok(())
    }

    /// Excludes `db`, the whole database, or `db.table`, that table alone.
    pub fn exclude(&mut self, name: &str) -> Result<()> {
        match split(name)? {
            (database, None) => self.excluded.databases.extend(spellings(database)),
            (database, Some(table)) => self.excluded.add_table(database, table),
        }
        Ok(())
    }

    /// Chooses `db.table`.
    pub fn choose_table(&mut self, name: &str) -> Result<()> {
        match split(name)? {
            (database, Some(table)) => {
                self.chosen.add_table(database, table);
                Ok(())
            }
            (_, None) => {
                let message = format!("`{name}` should be a table name: it has no dot");
                Err(Error::new(ErrorKind::Usage, message).advise("write DATABASE.TABLE"))
            }
        }
    }

    /// Chooses tables whose `db.table` matches a regular expression.
    pub fn choose_matching(&mut self, pattern: &str) -> Result<()> {
        self.chosen.patterns.push(compiled(pattern)?);
        Ok(())
    }

    /// Excludes tables whose `db.table` matches a regular expression.
    pub fn exclude_matching(&mut self, pattern: &str) -> Result<()> {
        self.excluded.patterns.push(compiled(pattern)?);
        Ok(())
    }

    /// Tables and databases by names with wildcards: those that are wanted, and those that are not.
    #[must_use]
    pub fn with_wildcards(mut self, chosen: Choice, excluded: Choice) -> Self {
        self.chosen.wildcards = chosen;
        self.excluded.wildcards = excluded;
        self
    }

    /// Whether all tables are wanted.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty() && self.excluded.is_empty()
    }

    /// Whether a file of the server, by its path in the backup, is wanted.
    pub fn keeps(&self, path: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(slash) = path.iter().position(|&byte| byte == b'/') else { return true };
        let (database, file) = (&path[..slash], &path[slash + 1..]);
        if !self.keeps_any_of(database) {
            return false;
        }
        let table = file.split(|&byte| byte == b'.' || byte == b'/').next().unwrap_or_default();
        let whole = partition_start(table).map(|end| &table[..end]);
        for table in [Some(table), whole].into_iter().flatten() {
            if self.excluded.has_table(database, table) {
                return false;
            }
            if self.chosen.has_table(database, table) {
                return true;
            }
        }
        self.chosen.has_database(database) || self.chosen.is_empty()
    }

    /// Whether anything of a database can be wanted.
    pub fn keeps_any_of(&self, database: &[u8]) -> bool {
        let listed = self.listed.is_empty() || has(&self.listed, database);
        listed && !self.excluded.has_database(database)
    }

    /// Whether a database is wanted that has nothing in it.
    pub fn keeps_empty(&self, database: &[u8]) -> bool {
        self.keeps(&[database, b"/db.opt"].concat())
    }

    /// The same for the same filter: two backups with equal texts have the same tables.
    pub fn describe(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let part = |word: &str, names: &Names| {
            let databases = names.databases.iter().cloned();
            let tables = names.tables.iter().cloned();
            let patterns = names.patterns.iter().map(|pattern| format!("/{pattern}/"));
            let wildcards = names.wildcards.texts().map(|text| format!("`{text}`"));
            databases
                .chain(tables)
                .chain(patterns)
                .chain(wildcards)
                .map(|name| format!("{word} {name}"))
                .collect::<Vec<_>>()
        };
        let mut parts = part("only", &self.chosen);
        parts.extend(part("without", &self.excluded));
        Some(parts.join("; "))
    }
}

impl Names {
    fn is_empty(&self) -> bool {
        self.databases.is_empty()
            && self.tables.is_empty()
            && self.patterns.is_empty()
            && self.wildcards.is_empty()
    }

    fn add_table(&mut self, database: &str, table: &str) {
        for (database, table) in spellings(database).zip(spellings(table)) {
            self.tables.insert(format!("{database}.{table}"));
        }
    }

    fn has_database(&self, database: &[u8]) -> bool {
        has(&self.databases, database)
    }

    fn has_table(&self, database: &[u8], table: &[u8]) -> bool {
        let name = [database, b".", table].concat();
        has(&self.tables, &name)
            || self.patterns.iter().any(|pattern| pattern.is_match(&name))
            || (!self.wildcards.is_empty() && {
                let path = [database, b"/", table].concat();
                let name = std::str::from_utf8(&path).ok().and_then(TableName::of_path);
                name.is_some_and(|name| self.wildcards.means(&name))
            })
    }
}

fn has(names: &BTreeSet<String>, name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| names.contains(name))
}

/// A name as it is, and as a file name.
fn spellings(name: &str) -> impl Iterator<Item = String> {
    let encoded = file_name::encode(name).unwrap_or_else(|| name.to_owned());
    [name.to_owned(), encoded].into_iter()
}

/// `db` or `db.table`.
fn split(name: &str) -> Result<(&str, Option<&str>)> {
    let (database, table) = match name.split_once('.') {
        Some((database, table)) => (database, Some(table)),
        None => (name, None),
    };
    let bad =
        |part: &str| part.is_empty() || part.contains(['/', '\\', '~', '\0']) || part.len() > 512;
    if bad(database) || table.is_some_and(bad) {
        let message = format!("`{name}` is not a valid name of a database or table");
        return Err(Error::new(ErrorKind::Usage, message)
            .advise("write DATABASE or DATABASE.TABLE, without quotes"));
    }
    Ok((database, table))
}

fn compiled(pattern: &str) -> Result<Regex> {
    let built = RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_SIZE_MAX).build();
    built.map_err(|cause| {
        let message = format!("'{pattern}' is not a regular expression");
        Error::new(ErrorKind::Usage, message).caused_by(cause)
    })
}

/// Where `#P#` begins, if the name has it.
fn partition_start(table: &[u8]) -> Option<usize> {
    table.windows(3).position(|part| part.eq_ignore_ascii_case(b"#P#"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn filter(build: impl Fn(&mut TableFilter) -> Result<()>) -> TableFilter {
        let mut filter = TableFilter::default();
        build(&mut filter).unwrap();
        filter
    }

    fn kept<'a>(filter: &TableFilter, paths: &[&'a str]) -> Vec<&'a str> {
        paths.iter().copied().filter(|path| filter.keeps(path.as_bytes())).collect()
    }

    const FILES: [&str; 9] = [
        "ibdata1",
        "d1/db.opt",
        "d1/m1.MYD",
        "d1/m1.TRG",
        "d1/p#P#p0.ibd",
        "d1/p#P#p1.ibd",
        "d1/p.frm",
        "d2/t.ibd",
        "d@002d3/t.ibd",
    ];

    #[test]
    fn the_cases_of_the_stock_tool() {
        let all = kept(&TableFilter::default(), &FILES);
        assert_eq!(all, FILES);
        let databases = |names: &'static [&'static str]| {
            kept(&filter(|f| names.iter().try_for_each(|name| f.choose_in_databases(name))), &FILES)
        };
        assert_eq!(databases(&["d1.m1"]), ["ibdata1", "d1/m1.MYD", "d1/m1.TRG"]);
        assert_eq!(databases(&["d2", "d1.p#P#p0"]), ["ibdata1", "d1/p#P#p0.ibd", "d2/t.ibd"]);
        // The stock tool finds the second one only.
        assert_eq!(databases(&["d-3"]), ["ibdata1", "d@002d3/t.ibd"]);
        assert_eq!(databases(&["d@002d3"]), ["ibdata1", "d@002d3/t.ibd"]);
        let matching =
            |pattern: &'static str| kept(&filter(|f| f.choose_matching(pattern)), &FILES);
        assert_eq!(matching("^d1[.]p"), ["ibdata1", "d1/p#P#p0.ibd", "d1/p#P#p1.ibd", "d1/p.frm"]);
        assert_eq!(matching("^d1[.]p#P#p0$"), ["ibdata1", "d1/p#P#p0.ibd"]);
        assert_eq!(matching("d1[.]p$"), ["ibdata1", "d1/p#P#p0.ibd", "d1/p#P#p1.ibd", "d1/p.frm"]);
    }

    #[test]
    fn exclusions() {
        let without = |name: &'static str| kept(&filter(|f| f.exclude(name)), &FILES);
        assert_eq!(without("d1"), ["ibdata1", "d2/t.ibd", "d@002d3/t.ibd"]);
        // The stock tool drops the whole database.
        assert_eq!(without("d1.p").len(), FILES.len() - 3);
        let mixed = filter(|f| {
            f.choose_in_databases("d1")?;
            f.exclude_matching("#P#p1$")?;
            f.choose_table("d2.t")
        });
        // d2 is not among the databases that were listed.
        assert_eq!(kept(&mixed, &FILES[3..]), ["d1/m1.TRG", "d1/p#P#p0.ibd", "d1/p.frm"]);
        assert!(mixed.keeps_any_of(b"d1") && !mixed.keeps_any_of(b"d2"));
        assert!(mixed.keeps_empty(b"d1") && !mixed.keeps_empty(b"d2"));
    }

    #[test]
    fn wildcards() {
        let choice = |tables: &[&str], databases: &[&str]| {
            let own =
                |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            Choice::new(&own(tables), &own(databases)).unwrap()
        };
        let kept = |chosen: Choice, excluded: Choice| {
            kept(&TableFilter::default().with_wildcards(chosen, excluded), &FILES)
        };
        assert_eq!(
            kept(choice(&["d?.p"], &[]), choice(&[], &[])),
            ["ibdata1", "d1/p#P#p0.ibd", "d1/p#P#p1.ibd", "d1/p.frm"]
        );
        assert_eq!(kept(choice(&[], &["d-*"]), choice(&[], &[])), ["ibdata1", "d@002d3/t.ibd"]);
        assert_eq!(kept(choice(&[], &[]), choice(&["*.m1"], &["d2", "d-3"])).len(), 5);
    }

    #[test]
    fn nonsense_is_refused_and_equal_filters_are_equal() {
        let mut filter = TableFilter::default();
        assert!(filter.choose_table("d1").is_err());
        for bad in ["", ".t", "d.", "a/b", "../x", "d.t~"] {
            assert!(filter.choose_in_databases(bad).is_err(), "{bad}");
        }
        assert!(filter.choose_matching("(").is_err());
        assert!(filter.choose_matching("(a{1000}){1000}").is_err());
        assert_eq!(filter.describe(), None);
        let mut other = TableFilter::default();
        for (one, two) in [("a", "b"), ("b", "a")] {
            filter.choose_in_databases(one).unwrap();
            other.choose_in_databases(two).unwrap();
        }
        assert_eq!(filter.describe(), other.describe());
        assert_eq!(filter.describe().unwrap(), "only a; only b");
    }
}
