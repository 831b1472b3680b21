//! Which tables a statement is about, as far as its first words tell.
//!
//! This is for an index to search in, not for anything to act upon: what is not understood is
//! [`Operation::Other`], of no table.

/// What is done to a table.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Rows are written.
    Insert,
    /// Rows are changed.
    Update,
    /// Rows are deleted.
    Delete,
    /// It is made.
    Create,
    /// It is removed.
    Drop,
    /// Its definition is changed.
    Alter,
    /// It is emptied.
    Truncate,
    /// It gets another name.
    Rename,
    /// Anything else.
    Other,
}

impl Operation {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Insert, "insert"),
        (Self::Update, "update"),
        (Self::Delete, "delete"),
        (Self::Create, "create"),
        (Self::Drop, "drop"),
        (Self::Alter, "alter"),
        (Self::Truncate, "truncate"),
        (Self::Rename, "rename"),
        (Self::Other, "other"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(operation, _)| *operation == self).map_or("other", |(_, name)| name)
    }
}

impl std::str::FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        found.map(|(operation, _)| *operation).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("one of {}", names.join(", "))
        })
    }
}

/// A table that a statement is about. All of a database, if it has no name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Touched {
    /// What is done to it.
    pub operation: Operation,
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
}

/// Most tables that are taken from one statement.
const TABLES_MAX: usize = 256;

/// The tables of a statement that was run in a database.
pub fn touched(text: &[u8], database: &[u8]) -> Vec<Touched> {
    let mut words = Words::new(text);
    let database = String::from_utf8_lossy(database);
    let mut found = parse(&mut words, &database);
    found.truncate(TABLES_MAX);
    found
}

fn parse(words: &mut Words<'_>, default: &str) -> Vec<Touched> {
    use Operation::{Alter, Create, Delete, Drop, Insert, Rename, Truncate, Update};
    let one = |operation, words: &mut Words<'_>| named(operation, words, default, false);
    let some = |operation, words: &mut Words<'_>| named(operation, words, default, true);
    let Some(first) = words.keyword() else { return Vec::new() };
    match first.as_str() {
        "CREATE" => {
            let replaces = words.take_keyword("OR");
            words.skip(&["REPLACE", "TEMPORARY", "UNIQUE", "FULLTEXT", "SPATIAL", "ONLINE"]);
            match words.keyword().as_deref() {
                Some("TABLE" | "SEQUENCE") => made(one(Create, words), replaces),
                Some("DATABASE" | "SCHEMA") => made(of_database(Create, words), replaces),
                Some("INDEX") => on_table(words, default),
                _ => Vec::new(),
            }
        }
        "DROP" => {
            words.skip(&["TEMPORARY", "ONLINE"]);
            match words.keyword().as_deref() {
                Some("TABLE" | "TABLES" | "VIEW" | "SEQUENCE") => some(Drop, words),
                Some("DATABASE" | "SCHEMA") => of_database(Drop, words),
                Some("INDEX") => on_table(words, default),
                _ => Vec::new(),
            }
        }
        "ALTER" => {
            words.skip(&["ONLINE", "OFFLINE", "IGNORE"]);
            match words.keyword().as_deref() {
                Some("TABLE" | "SEQUENCE") => one(Alter, words),
                Some("DATABASE" | "SCHEMA") => of_database(Alter, words),
                _ => Vec::new(),
            }
        }
        "TRUNCATE" => {
            words.skip(&["TABLE"]);
            one(Truncate, words)
        }
        "RENAME" => match words.keyword().as_deref() {
            Some("TABLE" | "TABLES") => {
                let mut found = some(Rename, words);
                while words.take_keyword("TO") {
                    found.extend(some(Rename, words));
                }
                found
            }
            _ => Vec::new(),
        },
        "INSERT" | "REPLACE" => {
            words.skip(&["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]);
            one(Insert, words)
        }
        "LOAD" => match words.skip_to(&["TABLE"]) {
            true => one(Insert, words),
            false => Vec::new(),
        },
        "UPDATE" => {
            words.skip(&["LOW_PRIORITY", "IGNORE"]);
            some(Update, words)
        }
        "DELETE" => {
            words.skip(&["LOW_PRIORITY", "QUICK", "IGNORE", "HISTORY", "FROM"]);
            some(Delete, words)
        }
        _ => Vec::new(),
    }
}

/// What is made anew takes the place of what was there, which is gone as if it had been dropped.
fn made(mut found: Vec<Touched>, replaces: bool) -> Vec<Touched> {
    if replaces {
        let gone: Vec<Touched> = found
            .iter()
            .map(|touched| Touched { operation: Operation::Drop, ..touched.clone() })
            .collect();
        found.extend(gone);
    }
    found
}

/// One name, or several with commas between them.
fn named(
    operation: Operation,
    words: &mut Words<'_>,
    default: &str,
    several: bool,
) -> Vec<Touched> {
    words.skip(&["IF", "NOT", "EXISTS"]);
    let mut found = Vec::new();
    while let Some((database, table)) = words.name() {
        let database = database.unwrap_or_else(|| default.to_owned());
        found.push(Touched { operation, database, table });
        if found.len() > TABLES_MAX || !several || !words.take_mark(b',') {
            break;
        }
    }
    found
}

fn of_database(operation: Operation, words: &mut Words<'_>) -> Vec<Touched> {
    words.skip(&["IF", "NOT", "EXISTS"]);
    let name = words.name().map(|(_, name)| name);
    let touched = |database| Touched { operation, database, table: String::new() };
    name.map(touched).into_iter().collect()
}

fn on_table(words: &mut Words<'_>, default: &str) -> Vec<Touched> {
    match words.skip_to(&["ON"]) {
        true => named(Operation::Alter, words, default, false),
        false => Vec::new(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// Letters that are not in quotes.
    Plain(String),
    /// In the quotes of names.
    Quoted(String),
    /// A text, whatever is in it.
    Text,
    /// Anything else, a character at a time.
    Mark(u8),
}

/// Takes a statement apart, without its comments.
#[derive(Clone)]
pub(crate) struct Words<'a> {
    rest: &'a [u8],
}

/// Words that are looked at in one statement.
const WORDS_MAX: usize = 200;

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Goes past blanks and comments. Comments that servers execute count as what is in them.
    fn pass_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let line = self.rest.starts_with(b"#") || self.rest.starts_with(b"-- ");
            if line {
                let end = self.rest.iter().position(|byte| *byte == b'\n');
                self.rest = end.and_then(|end| self.rest.get(end..)).unwrap_or_default();
            } else if let Some(rest) = self.rest.strip_prefix(b"*/") {
                self.rest = rest;
            } else if self.rest.starts_with(b"/*!") || self.rest.starts_with(b"/*M!") {
                let mark = self.rest.iter().position(|byte| *byte == b'!').unwrap_or(0) + 1;
                let rest = self.rest.get(mark..).unwrap_or_default();
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                self.rest = rest.get(digits..).unwrap_or_default();
            } else if let Some(rest) = self.rest.strip_prefix(b"/*") {
                let end = rest.windows(2).position(|two| two == b"*/");
                self.rest = end.and_then(|end| rest.get(end + 2..)).unwrap_or_default();
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<Word> {
        self.pass_blanks();
        let (&first, behind) = self.rest.split_first()?;
        let is_plain = |byte: &u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80
        };
        if is_plain(&first) {
            let length = self.rest.iter().take_while(|byte| is_plain(byte)).count();
            let (word, rest) = self.rest.split_at(length);
            self.rest = rest;
            return Some(Word::Plain(String::from_utf8_lossy(word).into_owned()));
        }
        self.rest = behind;
        match first {
            b'`' | b'"' => Some(Word::Quoted(self.quoted(first))),
            b'\'' => {
                self.quoted(first);
                Some(Word::Text)
            }
            mark => Some(Word::Mark(mark)),
        }
    }

    /// What is up to a quote, which within is written twice.
    fn quoted(&mut self, quote: u8) -> String {
        let mut name = Vec::new();
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'\\' if quote != b'`' => {
                    self.rest = rest.get(1..).unwrap_or_default();
                }
                _ if byte == quote => match rest.strip_prefix(&[quote]) {
                    Some(rest) => {
                        self.rest = rest;
                        name.push(quote);
                    }
                    None => break,
                },
                byte => name.push(byte),
            }
        }
        String::from_utf8_lossy(&name).into_owned()
    }

    /// The next word, in upper case, if it is one.
    pub(crate) fn keyword(&mut self) -> Option<String> {
        match self.next()? {
            Word::Plain(word) => Some(word.to_ascii_uppercase()),
            _ => None,
        }
    }

    pub(crate) fn take_keyword(&mut self, wanted: &str) -> bool {
        let mut ahead = self.clone();
        let found = ahead.keyword().is_some_and(|word| word == wanted);
        if found {
            *self = ahead;
        }
        found
    }

    pub(crate) fn take_mark(&mut self, wanted: u8) -> bool {
        let mut ahead = self.clone();
        let found = ahead.next() == Some(Word::Mark(wanted));
        if found {
            *self = ahead;
        }
        found
    }

    /// Goes past any of these words.
    pub(crate) fn skip(&mut self, words: &[&str]) {
        loop {
            let mut ahead = self.clone();
            match ahead.keyword() {
                Some(word) if words.contains(&word.as_str()) => *self = ahead,
                _ => return,
            }
        }
    }

    /// Goes behind the next of these words.
    fn skip_to(&mut self, words: &[&str]) -> bool {
        for _ in 0..WORDS_MAX {
            match self.next() {
                Some(Word::Plain(word)) if words.contains(&&*word.to_ascii_uppercase()) => {
                    return true;
                }
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    /// A name, perhaps with its database.
    pub(crate) fn name(&mut self) -> Option<(Option<String>, String)> {
        let word = |words: &mut Self| match words.next()? {
            Word::Plain(name) | Word::Quoted(name) => Some(name),
            Word::Text | Word::Mark(_) => None,
        };
        let first = word(self)?;
        if !self.take_mark(b'.') {
            return Some((None, first));
        }
        Some((Some(first), word(self)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(text: &str) -> String {
        let tell = |touched: Touched| {
            format!("{} {}.{}", touched.operation.name(), touched.database, touched.table)
        };
        touched(text.as_bytes(), b"d").into_iter().map(tell).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn statements_name_their_tables() {
        for (text, expected) in [
            ("DROP TABLE `t` /* generated by server */", "drop d.t"),
            ("drop temporary table if exists x.`a``b`, c", "drop x.a`b; drop d.c"),
            ("/* why */ DROP /*!40000 TABLE */ t", "drop d.t"),
            ("-- words\nTRUNCATE e.t", "truncate e.t"),
            ("TRUNCATE TABLE t WAIT 3", "truncate d.t"),
            ("DROP DATABASE IF EXISTS shop", "drop shop."),
            ("CREATE OR REPLACE TABLE t (a INT)", "create d.t; drop d.t"),
            ("create /* x */ or replace temporary table x.t (a INT)", "create x.t; drop x.t"),
            ("CREATE OR REPLACE DATABASE shop", "create shop.; drop shop."),
            ("CREATE OR REPLACE VIEW v AS SELECT 1", ""),
            ("CREATE TABLE IF NOT EXISTS `x`.`y` LIKE z", "create x.y"),
            ("create unique index i using btree on x.t (a)", "alter x.t"),
            ("DROP INDEX `on` ON t", "alter d.t"),
            ("ALTER ONLINE IGNORE TABLE t ADD b INT", "alter d.t"),
            ("RENAME TABLE a TO b, x.c TO d", "rename d.a; rename d.b; rename x.c; rename d.d"),
            ("INSERT IGNORE INTO t VALUES (1)", "insert d.t"),
            ("REPLACE t SELECT 1", "insert d.t"),
            ("UPDATE a, b SET a.x = b.x", "update d.a; update d.b"),
            ("DELETE FROM x.t WHERE a = 'DROP TABLE q'", "delete x.t"),
            ("LOAD DATA LOCAL INFILE 'table' INTO TABLE t", "insert d.t"),
            ("GRANT ALL ON x.* TO u", ""),
            ("CREATE DEFINER=`r`@`l` TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET @a=1", ""),
            ("", ""),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = touched(&text, b"d");
        }

        #[test]
        fn no_words_panic(
            words in proptest::collection::vec("(DROP|TABLE|,|`|a|/\\*!|\\.|RENAME|TO|UPDATE|'|\\*/)", 0..40),
        ) {
            let _ = touched(words.join(" ").as_bytes(), b"d");
        }
    }
}
