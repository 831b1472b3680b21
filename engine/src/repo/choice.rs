//! Which tables somebody means.
//!
//! A table is named `database.table`, with `*`, `?` and `[…]` as in a shell, in the words of SQL or
//! as the names of files have them (`my@002ddb`). Such a name means all partitions of the table;
//! `database.table#P#p0` means one.

use std::collections::{BTreeMap, BTreeSet};

use glob::Pattern;
use innodb::space::file_name::{TableName, encode};

use super::layout::BackupName;
use super::manifest::path_from_text;
use crate::{Error, ErrorKind, Result};

/// How much alike a name must be to be offered in place of one that does not exist.
const ALIKE: f64 = 0.75;
/// How many are offered.
const OFFERED: usize = 3;

/// Tables and whole databases.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    patterns: Vec<Chosen>,
}

/// One name that was given.
#[derive(Clone, Debug)]
struct Chosen {
    text: String,
    /// The ways to read it, because names may have points in them: databases and, unless all are
    /// meant, tables.
    readings: Vec<(Pattern, Option<Pattern>)>,
}

impl Choice {
    /// From what somebody wrote.
    pub fn new(tables: &[String], databases: &[String]) -> Result<Self> {
        let refused = |text: &str, why: &str| {
            Error::new(ErrorKind::Usage, format!("{text:?} names no table: {why}"))
                .advise("write database.table, with * and ? for what may differ")
        };
        let pattern = |text: &str| Pattern::new(text).map_err(|error| refused(text, error.msg));
        let mut patterns = Vec::new();
        for text in tables {
            let plain = text.replace('`', "");
            let mut readings = Vec::new();
            for (point, _) in plain.match_indices('.') {
                let (database, table) = plain.split_at(point);
                let table = table.get(1..).unwrap_or_default();
                if !database.is_empty() && !table.is_empty() {
                    readings.push((pattern(database)?, Some(pattern(table)?)));
                }
            }
            if readings.is_empty() {
                return Err(refused(text, "it has no database before a point"));
            }
            patterns.push(Chosen { text: text.clone(), readings });
        }
        for text in databases {
            let readings = vec![(pattern(&text.replace('`', ""))?, None)];
            patterns.push(Chosen { text: text.clone(), readings });
        }
        Ok(Self { patterns })
    }

    /// Whether nothing was chosen, which means everything.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a table is meant.
    pub fn means(&self, name: &TableName) -> bool {
        self.patterns.iter().any(|chosen| chosen.means(name))
    }

    /// The names as they were given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|chosen| chosen.text.as_str())
    }

    /// The tables of a backup that are meant, each with its files as the manifest names them.
    ///
    /// # Errors
    /// [`ErrorKind::NothingMatches`] if a name means none, with those that are like it.
    pub fn tables<'a>(
        &self,
        backup: &BackupName,
        files: impl Iterator<Item = &'a String>,
    ) -> Result<BTreeMap<TableName, Vec<String>>> {
        let mut all: BTreeMap<TableName, Vec<String>> = BTreeMap::new();
        for path in files {
            if let Some(name) = table_of(path) {
                all.entry(name).or_default().push(path.clone());
            }
        }
        let mut meant = BTreeSet::new();
        for chosen in &self.patterns {
            let found: Vec<&TableName> = all.keys().filter(|name| chosen.means(name)).collect();
            if found.is_empty() {
                return Err(chosen.means_nothing(all.keys(), backup));
            }
            meant.extend(found.into_iter().cloned());
            // What all partitions have in common is needed for each of them.
            let whole = |name: &TableName| TableName {
                partition: None,
                subpartition: None,
                ..name.clone()
            };
            let common: Vec<TableName> = meant.iter().map(whole).collect();
            meant.extend(common.into_iter().filter(|name| all.contains_key(name)));
        }
        all.retain(|name, _| meant.contains(name));
        Ok(all)
    }
}

impl Chosen {
    fn means(&self, name: &TableName) -> bool {
        let either = |pattern: &Pattern, word: &str| {
            pattern.matches(word) || encode(word).is_some_and(|file| pattern.matches(&file))
        };
        self.readings.iter().any(|(database, table)| {
            let in_table = |table: &Pattern| {
                either(table, &name.table)
                    || partition_names(name).iter().any(|name| table.matches(name))
            };
            either(database, &name.database) && table.as_ref().is_none_or(in_table)
        })
    }

    fn means_nothing<'a>(
        &self,
        all: impl Iterator<Item = &'a TableName>,
        backup: &BackupName,
    ) -> Error {
        let of_database = self.readings.iter().any(|(_, table)| table.is_none());
        let names: BTreeSet<String> = match of_database {
            true => all.map(|name| name.database.clone()).collect(),
            false => all.map(|name| format!("{}.{}", name.database, name.table)).collect(),
        };
        let wanted = self.text.to_lowercase();
        let score = |name: &String| strsim::normalized_levenshtein(&wanted, &name.to_lowercase());
        let mut alike: Vec<(f64, &String)> = names.iter().map(|name| (score(name), name)).collect();
        alike.retain(|(score, _)| *score >= ALIKE);
        alike.sort_by(|a, b| b.0.total_cmp(&a.0));
        let alike: Vec<&str> = alike.iter().take(OFFERED).map(|(_, name)| name.as_str()).collect();
        let what = if of_database { "database" } else { "table" };
        let error = Error::new(
            ErrorKind::NothingMatches,
            format!("the backup {backup} has no {what} {}", self.text),
        );
        match alike.is_empty() {
            true => error.advise("haulout show names the files that it has"),
            false => error.advise(format!("it has {}", alike.join(", "))),
        }
    }
}

/// A partition as one may write it, in words and as file names have it.
fn partition_names(name: &TableName) -> Vec<String> {
    let Some(partition) = &name.partition else { return Vec::new() };
    let file = |word: &str| encode(word).unwrap_or_else(|| word.to_owned());
    let mut plain = format!("{}#P#{partition}", name.table);
    let mut stored = format!("{}#P#{}", file(&name.table), file(partition));
    let mut names = vec![plain.clone(), stored.clone()];
    if let Some(sub) = &name.subpartition {
        plain.push_str(&format!("#SP#{sub}"));
        stored.push_str(&format!("#SP#{}", file(sub)));
        names.extend([plain, stored]);
    }
    names
}

/// The table that a file belongs to, if it belongs to one that SQL knows.
fn table_of(path: &str) -> Option<TableName> {
    let path = String::from_utf8(path_from_text(path)?).ok()?;
    let (database, file) = path.split_once('/')?;
    let (stem, extension) = file.rsplit_once('.')?;
    let is_auxiliary = stem.strip_prefix("FTS_").is_some_and(|rest| {
        let (id, behind) = rest.split_at_checked(16).unwrap_or_default();
        behind.starts_with('_') && !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit())
    });
    let is_other = database.starts_with(['#', '.'])
        || stem.starts_with("#sql")
        || is_auxiliary
        || file.contains('/')
        || matches!(extension, "opt" | "TRN");
    if is_other {
        return None;
    }
    TableName::of_path(&path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::manifest::{FileEntry, Manifest, tests::example};
    use super::*;

    fn manifest() -> Manifest {
        let mut manifest = example();
        for path in [
            "shop/orders.ibd",
            "shop/orders.frm",
            "shop/order_items.ibd",
            "shop/parts.par",
            "shop/parts#P#p0.ibd",
            "shop/parts#P#p1#SP#s.ibd",
            "shop/db.opt",
            "shop/#sql-ib7.ibd",
            "shop/FTS_0000000000000013_CONFIG.ibd",
            "my@002ddb/odd@0020name.ibd",
            "my@002ddb/a@002eb.MYI",
            "ibdata1",
        ] {
            let entry = FileEntry { frames: vec![(0, 1)], ..FileEntry::default() };
            manifest.files.insert(path.to_owned(), entry);
        }
        manifest
    }

    fn files(tables: &[&str], databases: &[&str]) -> Result<Vec<String>> {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let choice = Choice::new(&own(tables), &own(databases))?;
        let manifest = manifest();
        let mut files: Vec<String> =
            choice.tables(&manifest.name, manifest.files.keys())?.into_values().flatten().collect();
        files.sort();
        Ok(files)
    }

    #[test]
    fn tables_are_meant_by_names_and_patterns() {
        let orders = ["shop/orders.frm", "shop/orders.ibd"];
        assert_eq!(files(&["shop.orders"], &[]).unwrap(), orders);
        assert_eq!(files(&["`shop`.`orders`"], &[]).unwrap(), orders);
        assert_eq!(files(&["s*.order[s]"], &[]).unwrap(), orders);
        assert_eq!(files(&["shop.order*"], &[]).unwrap().len(), 3);
        assert_eq!(files(&["shop.parts"], &[]).unwrap().len(), 3);
        let one = ["shop/parts#P#p0.ibd", "shop/parts.par"];
        assert_eq!(files(&["shop.parts#P#p0"], &[]).unwrap(), one);
        assert_eq!(files(&["shop.parts#P#p1"], &[]).unwrap().len(), 2);
        for odd in ["my-db.odd name", "my@002ddb.odd@0020name"] {
            assert_eq!(files(&[odd], &[]).unwrap(), ["my@002ddb/odd@0020name.ibd"]);
        }
        assert_eq!(files(&["my-db.a.b"], &[]).unwrap(), ["my@002ddb/a@002eb.MYI"]);
        assert_eq!(files(&[], &["shop"]).unwrap().len(), 6);
        assert_eq!(files(&["shop.orders"], &["my-*"]).unwrap().len(), 4);
    }

    #[test]
    fn what_means_nothing_is_an_error_that_offers_others() {
        let error = files(&["shop.Order"], &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NothingMatches);
        assert!(error.advice().unwrap().contains("shop.orders"), "{error:?}");
        // One that means something does not make up for it.
        assert!(files(&["shop.orders", "x.y"], &[]).is_err());
        assert!(files(&[], &["shoop"]).unwrap_err().advice().unwrap().contains("shop"));
        for wrong in ["orders", ".orders", "shop.", "shop.[a"] {
            assert_eq!(files(&[wrong], &[]).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
