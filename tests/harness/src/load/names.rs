//! Names of tables and databases, plain and odd.

use fastrand::Rng;

use crate::compare::quote;

/// Databases that the load lives in. The odd ones have to be encoded in file names.
pub const DATABASES: &[&str] = &["app", "we-ird db", "Größe.x"];

/// Endings that a file name cannot hold as they are, between plain ones.
const ENDINGS: &[&str] =
    &["", "", "", "", "-dash", " blank", ".dot", "ü€", "#P#p0", "@home", "/slash"];

/// A table: database and name, both unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The database.
    pub database: String,
    /// The name in it.
    pub table: String,
}

impl Name {
    /// A name that the thread `owner` has not used before.
    pub fn new(owner: usize, number: u32, rng: &mut Rng) -> Self {
        let ending = ENDINGS[rng.usize(0..ENDINGS.len())];
        let database = DATABASES[rng.usize(0..DATABASES.len())];
        Self { database: database.to_owned(), table: format!("t{owner}_{number}{ending}") }
    }

    /// A related name in the same database.
    pub fn with_suffix(&self, suffix: &str) -> Self {
        Self { database: self.database.clone(), table: format!("{}{suffix}", self.table) }
    }
}

/// Quoted, as statements need it.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", quote(&self.database), quote(&self.table))
    }
}
