//! What the server answered: rows and variables.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// A row of a result: values by column name.
#[derive(Clone, Debug)]
pub struct Row {
    pub(super) columns: Arc<[String]>,
    pub(super) values: Vec<Option<Vec<u8>>>,
}

impl Row {
    /// The bytes of a column; `None` when it is NULL or not there. Names ignore case.
    pub fn bytes(&self, column: &str) -> Option<&[u8]> {
        let index = self.columns.iter().position(|name| name.eq_ignore_ascii_case(column))?;
        self.at(index)
    }

    /// The bytes of the column with this index.
    pub fn at(&self, index: usize) -> Option<&[u8]> {
        self.values.get(index)?.as_deref()
    }

    /// A column as text; what is not UTF-8 shows as replacement characters.
    pub fn text(&self, column: &str) -> Option<Cow<'_, str>> {
        self.bytes(column).map(String::from_utf8_lossy)
    }

    /// A column as an unsigned number.
    pub fn number(&self, column: &str) -> Option<u64> {
        self.text(column)?.parse().ok()
    }
}

/// Variables of the server by lower-case name.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// These and others.
    #[must_use]
    pub fn joined_with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The value of a variable that every MariaDB server has.
    pub fn require(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| {
            Error::new(ErrorKind::Server, format!("the server has no variable '{name}'"))
        })
    }

    /// A variable as a number.
    pub fn number(&self, name: &str) -> Result<u64> {
        let text = self.require(name)?;
        text.parse().map_err(|_| {
            let message = format!("the server's variable '{name}' is '{text}', not a number");
            Error::new(ErrorKind::Server, message)
        })
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "ON" | "1"))
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}
