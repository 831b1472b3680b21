//! Statements, and the session that they ran in.

use std::borrow::Cow;

use crate::bytes::{Bytes, Malformed, Read};
use crate::compress;
use crate::header::EventType;

/// Codes of the variables of a session.
mod code {
    pub const FLAGS2: u8 = 0;
    pub const SQL_MODE: u8 = 1;
    pub const CATALOG: u8 = 2;
    pub const AUTO_INCREMENT: u8 = 3;
    pub const CHARSET: u8 = 4;
    pub const TIME_ZONE: u8 = 5;
    pub const CATALOG_NZ: u8 = 6;
    pub const LC_TIME_NAMES: u8 = 7;
    pub const CHARSET_DATABASE: u8 = 8;
    pub const TABLE_MAP_FOR_UPDATE: u8 = 9;
    pub const MASTER_DATA_WRITTEN: u8 = 10;
    pub const INVOKER: u8 = 11;
    /// The first and the last that only MySQL has: from names of databases to the encryption of tables.
    pub const MYSQL_FIRST: u8 = 12;
    pub const MYSQL_LAST: u8 = 20;
    pub const MICROSECONDS: u8 = 128;
    pub const XID: u8 = 129;
    pub const GTID_FLAGS: u8 = 130;
    pub const CHARACTER_SET_COLLATIONS: u8 = 131;
    pub const END: u8 = 255;
}

/// Bits of [`Session::flags2`].
pub mod option {
    /// `sql_auto_is_null`
    pub const AUTO_IS_NULL: u32 = 1 << 14;
    /// Not `check_constraint_checks`
    pub const NO_CHECK_CONSTRAINTS: u32 = 1 << 15;
    /// Not `autocommit`
    pub const NOT_AUTOCOMMIT: u32 = 1 << 19;
    /// `explicit_defaults_for_timestamp`
    pub const EXPLICIT_DEFAULTS: u32 = 1 << 24;
    /// Not `foreign_key_checks`
    pub const NO_FOREIGN_KEYS: u32 = 1 << 26;
    /// Not `unique_checks`
    pub const RELAXED_UNIQUE: u32 = 1 << 27;
    /// `sql_if_exists`
    pub const IF_EXISTS: u32 = 1 << 28;
    /// `system_versioning_insert_history`
    pub const INSERT_HISTORY: u32 = 1 << 30;
}

/// Three numbers of collations: client, connection, server.
pub type Charsets = [u16; 3];

/// What a session was set to, as far as statements depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session<'a> {
    /// See [`option`].
    pub flags2: Option<u32>,
    /// `sql_mode` as a number.
    pub sql_mode: Option<u64>,
    /// Increment and offset; (1, 1) where nothing is said.
    pub auto_increment: Option<(u16, u16)>,
    /// Character sets.
    pub charsets: Option<Charsets>,
    /// `time_zone`, if the statement used it.
    pub time_zone: &'a [u8],
    /// `lc_time_names` by number; 0 where nothing is said.
    pub lc_time_names: u16,
    /// `collation_database` if it is not the database's own.
    pub collation_database: u16,
    /// Who ran it, if it matters.
    pub invoker: Option<(&'a [u8], &'a [u8])>,
    /// Fraction of the time of its beginning.
    pub microseconds: u32,
    /// Number by which recovery of DDL knows it.
    pub xid: u64,
    /// More flags of the GTID, which the statement has to be replayed with.
    pub gtid_flags: u8,
    /// Pairs of `character_set_collations`.
    pub collations: &'a [u8],
}

impl<'a> Session<'a> {
    fn parse(variables: &'a [u8]) -> Read<Self> {
        let mut session = Self::default();
        let mut bytes = Bytes(variables);
        while let Some((&code, rest)) = bytes.0.split_first() {
            bytes.0 = rest;
            match code {
                code::FLAGS2 => session.flags2 = Some(bytes.u32("flags2")?),
                code::SQL_MODE => session.sql_mode = Some(bytes.u64("sql_mode")?),
                code::CATALOG => _ = bytes.name("catalog")?,
                code::AUTO_INCREMENT => {
                    let increment = bytes.u16("auto_increment")?;
                    session.auto_increment = Some((increment, bytes.u16("auto_increment")?));
                }
                code::CHARSET => {
                    let mut next = || bytes.u16("character sets");
                    session.charsets = Some([next()?, next()?, next()?]);
                }
                code::TIME_ZONE => session.time_zone = bytes.short_text("time_zone")?,
                code::CATALOG_NZ => _ = bytes.short_text("catalog")?,
                code::LC_TIME_NAMES => session.lc_time_names = bytes.u16("lc_time_names")?,
                code::CHARSET_DATABASE => {
                    session.collation_database = bytes.u16("collation_database")?;
                }
                code::TABLE_MAP_FOR_UPDATE => _ = bytes.u64("tables")?,
                code::MASTER_DATA_WRITTEN => _ = bytes.u32("length")?,
                code::INVOKER => {
                    let user = bytes.short_text("invoker")?;
                    session.invoker = Some((user, bytes.short_text("invoker")?));
                }
                code::MICROSECONDS => {
                    session.microseconds = bytes.uint(3, "microseconds")? as u32;
                }
                code::XID => session.xid = bytes.u64("xid")?,
                code::GTID_FLAGS => {
                    use crate::event::gtid::extra::{COMMIT_ALTER, ROLLBACK_ALTER};
                    session.gtid_flags = bytes.u8("GTID flags")?;
                    if session.gtid_flags & (COMMIT_ALTER | ROLLBACK_ALTER) != 0 {
                        bytes.u64("beginning of ALTER")?;
                    }
                }
                code::CHARACTER_SET_COLLATIONS => {
                    let pairs = bytes.u8("character_set_collations")?;
                    let length = 4 * usize::from(pairs);
                    session.collations = bytes.take(length, "character_set_collations")?;
                }
                code::END => break,
                // Of MySQL from 5.6 on, which MariaDB has no use for; nothing of MariaDB follows them.
                code::MYSQL_FIRST..=code::MYSQL_LAST => break,
                // Dropping the rest would drop what a statement depends on.
                _ => return Err(Malformed("a variable of the session is not known")),
            }
        }
        Ok(session)
    }

    /// Character sets and their collations, of `character_set_collations`.
    pub fn collations(&self) -> impl Iterator<Item = (u16, u16)> + 'a {
        let number = |low, high| u16::from_le_bytes([low, high]);
        let (pairs, _) = self.collations.as_chunks::<4>();
        pairs.iter().map(move |&[a, b, c, d]| (number(a, b), number(c, d)))
    }
}

/// Most bytes of variables of a session.
const VARIABLES_MAX: usize = 1 << 14;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// Number of the connection.
    pub thread_id: u32,
    /// Seconds that it took.
    pub seconds: u32,
    /// The error that it ended with after it had changed something.
    pub error_code: u16,
    /// What the session was set to.
    pub session: Session<'a>,
    /// Default database.
    pub database: &'a [u8],
    /// The statement.
    pub text: Cow<'a, [u8]>,
}

/// What precedes the variables.
pub(crate) struct Fixed {
    thread_id: u32,
    seconds: u32,
    error_code: u16,
    database_length: usize,
    variables_length: usize,
}

impl Fixed {
    pub(crate) fn parse(bytes: &mut Bytes<'_>) -> Read<Self> {
        let fixed = Self {
            thread_id: bytes.u32("thread id")?,
            seconds: bytes.u32("seconds")?,
            database_length: bytes.u8("length of the database")?.into(),
            error_code: bytes.u16("error code")?,
            variables_length: bytes.u16("length of variables")?.into(),
        };
        match fixed.variables_length {
            0..=VARIABLES_MAX => Ok(fixed),
            _ => Err(Malformed("length of variables")),
        }
    }
}

impl<'a> Query<'a> {
    /// Reads the body of an event of this type.
    pub fn parse(body: &'a [u8], kind: EventType) -> Read<Self> {
        let mut bytes = Bytes(body);
        let fixed = Fixed::parse(&mut bytes)?;
        let mut query = Self::rest(fixed, bytes)?;
        if kind == EventType::QUERY_COMPRESSED {
            let mut plain = Vec::new();
            compress::inflate_part(&query.text, &mut plain)?;
            query.text = Cow::Owned(plain);
        }
        Ok(query)
    }

    /// What follows the fixed part.
    pub(crate) fn rest(fixed: Fixed, mut bytes: Bytes<'a>) -> Read<Self> {
        let variables = bytes.take(fixed.variables_length, "variables")?;
        let database = bytes.take(fixed.database_length, "database")?;
        if bytes.u8("end of the database")? != 0 {
            return Err(Malformed("end of the database"));
        }
        Ok(Self {
            thread_id: fixed.thread_id,
            seconds: fixed.seconds,
            error_code: fixed.error_code,
            session: Session::parse(variables)?,
            database,
            text: Cow::Borrowed(bytes.0),
        })
    }

    /// Whether it only brackets others: BEGIN, COMMIT, ROLLBACK, SAVEPOINT; in XA groups, XA.
    pub fn is_bracket(&self, in_xa: bool) -> bool {
        let begins = |word: &[u8]| {
            self.text.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word))
        };
        if in_xa {
            return begins(b"XA ");
        }
        let text = &*self.text;
        // A text that ends within the word counts as the word; the stock tool compares so.
        b"BEGIN".starts_with(text)
            || b"COMMIT".starts_with(text)
            || begins(b"SAVEPOINT")
            || begins(b"ROLLBACK")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A statement with these variables.
    fn with(variables: &[u8]) -> Vec<u8> {
        let head = [&[0; 8][..], &[1], &[0; 2], &(variables.len() as u16).to_le_bytes()].concat();
        [&head, variables, b"d\0SELECT 1"].concat()
    }

    #[test]
    fn variables_of_mysql_are_passed_over() {
        let sql_mode = [&[code::SQL_MODE][..], &7u64.to_le_bytes()].concat();
        // The names of databases that are changed, then microseconds as MySQL has them.
        let mysql = [&sql_mode[..], &[12, 1, b'd', 0, 13, 1, 2, 3]].concat();
        let body = with(&mysql);
        let query = Query::parse(&body, EventType::QUERY).unwrap();
        assert_eq!((query.session.sql_mode, query.session.microseconds), (Some(7), 0));
        for unknown in [21, 127, 132, 254] {
            let body = with(&[&sql_mode[..], &[unknown, 1]].concat());
            assert!(Query::parse(&body, EventType::QUERY).is_err(), "{unknown}");
        }
    }
}
