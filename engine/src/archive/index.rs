//! What is in a part of the log: its transactions, and which tables they touch.
//!
//! Stored as JSON, with lists instead of objects for what there is a lot of.

use std::collections::HashMap;

use binlog::Gtid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::statement::Operation;

/// Longest beginning of a statement that is noted, in characters.
const STATEMENT_MAX: usize = 240;

/// What a transaction does to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change(
    /// Which of the tables of the index.
    pub u32,
    /// What is done.
    pub Operation,
    /// To how many rows, where the log tells.
    pub Option<u64>,
);

/// A transaction: a group of events that one GTID is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its number.
    pub gtid: Gtid,
    /// Seconds since 1970, of the event with the GTID: when its last statement began.
    pub time: u32,
    /// Offset in the file at which it begins.
    pub begin: u64,
    /// Offset behind it.
    pub end: u64,
    /// What it does.
    pub changes: Vec<Change>,
    /// The beginning of its first statement, if the log has it.
    pub statement: String,
}

impl Serialize for Transaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { gtid, time, begin, end, changes, statement } = self;
        (gtid.to_string(), time, begin, end, changes, statement).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Transaction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (gtid, time, begin, end, changes, statement): (String, _, _, _, _, _) =
            Deserialize::deserialize(deserializer)?;
        let gtid = gtid.parse().map_err(serde::de::Error::custom)?;
        Ok(Self { gtid, time, begin, end, changes, statement })
    }
}

/// The transactions that end in a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Databases and tables. A database as a whole is one with a table of no name.
    pub tables: Vec<(String, String)>,
    /// In the order of the log.
    pub transactions: Vec<Transaction>,
}

impl Index {
    /// The table that a change is of.
    pub fn table(&self, change: &Change) -> (&str, &str) {
        let table = self.tables.get(change.0 as usize);
        table.map_or(("", ""), |(database, table)| (database, table))
    }
}

/// An index that is being made.
#[derive(Debug, Default)]
pub struct Indexer {
    index: Index,
    numbers: HashMap<(String, String), u32>,
    /// About as many bytes as the index will have.
    weight: usize,
}

impl Indexer {
    /// The number of a table.
    pub fn table(&mut self, database: &str, table: &str) -> u32 {
        let name = (database.to_owned(), table.to_owned());
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number = self.index.tables.len() as u32;
        self.weight += 2 * (database.len() + table.len()) + 8;
        self.index.tables.push(name.clone());
        self.numbers.insert(name, number);
        number
    }

    /// Adds a transaction.
    pub fn add(&mut self, transaction: Transaction) {
        /// Of a transaction, and of a change, without texts.
        const USUAL: (usize, usize) = (100, 40);
        self.weight += USUAL.0 + USUAL.1 * transaction.changes.len();
        self.weight += 2 * transaction.statement.len();
        self.index.transactions.push(transaction);
    }

    /// About as many bytes as the index will have at most.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// What was gathered. Begins anew.
    pub fn take(&mut self) -> Index {
        std::mem::take(self).index
    }
}

/// The same of a statement that begins with words with single blanks in between, as most do.
fn as_it_is(statement: &[u8]) -> Option<String> {
    let begin = statement.get(..STATEMENT_MAX).unwrap_or(statement);
    let next = statement.get(STATEMENT_MAX);
    let is_word = |byte: &u8| byte.is_ascii_graphic();
    let is_plain = begin.first().is_some_and(is_word)
        && next.or(begin.last()).is_some_and(is_word)
        && begin.iter().all(|byte| is_word(byte) || *byte == b' ')
        && !begin.windows(2).any(|pair| pair == b"  ");
    let text = std::str::from_utf8(begin).ok().filter(|_| is_plain)?;
    Some(if next.is_some() { format!("{text}…") } else { text.to_owned() })
}

/// The beginning of a statement, on one line.
pub fn shorten(statement: &[u8]) -> String {
    if let Some(plain) = as_it_is(statement) {
        return plain;
    }
    // Characters have up to four bytes, and there may be many blanks.
    let begin = statement.get(..STATEMENT_MAX * 16).unwrap_or(statement);
    let text = String::from_utf8_lossy(begin);
    let mut short = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if !word.is_empty() {
            if !short.is_empty() {
                short.push(' ');
            }
            short.push_str(word);
        }
        if short.len() > 4 * STATEMENT_MAX {
            break;
        }
    }
    match short.char_indices().nth(STATEMENT_MAX) {
        Some((end, _)) => {
            short.truncate(end);
            short.push('…');
        }
        None if begin.len() < statement.len() => short.push('…'),
        None => {}
    }
    short
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_index_reads_back() {
        let mut indexer = Indexer::default();
        let table = indexer.table("d", "t");
        assert_eq!(indexer.table("d", "t"), table);
        let changes = vec![
            Change(table, Operation::Delete, Some(7)),
            Change(indexer.table("d", ""), Operation::Drop, None),
        ];
        let gtid = "0-1-5".parse().unwrap();
        let statement = shorten(b"DELETE\n\tFROM `t`\0");
        assert_eq!(statement, "DELETE FROM `t`");
        indexer.add(Transaction { gtid, time: 9, begin: 4, end: 90, changes, statement });
        let weight = indexer.weight();
        let index = indexer.take();
        let text = serde_json::to_string(&index).unwrap();
        assert!(text.len() <= weight + 40, "{text}");
        assert_eq!(serde_json::from_str::<Index>(&text).unwrap(), index);
        assert_eq!(index.table(&index.transactions[0].changes[1]), ("d", ""));
    }

    #[test]
    fn long_statements_are_cut_between_characters() {
        assert_eq!(shorten("ü".repeat(1000).as_bytes()).chars().count(), STATEMENT_MAX + 1);
        let blanks = [&b"a"[..], &[b' '; 10_000], b"b"].concat();
        assert_eq!(shorten(&blanks), "a…");
        let words = "ab ".repeat(STATEMENT_MAX);
        for (length, text) in [(2, "ab"), (3, "ab"), (5, "ab ab")] {
            assert_eq!(shorten(&words.as_bytes()[..length]), text);
        }
        // Whichever byte is the last, it is shortened as one that is not plain is.
        for length in STATEMENT_MAX - 3..STATEMENT_MAX + 4 {
            let text = &words.as_bytes()[..length];
            let other = [&b"\n"[..], text].concat();
            assert_eq!(shorten(text), shorten(&other), "{length}");
        }
    }
}
