//! What a statement needs to be set before it, and what of that is set already.
//!
//! Every variable is printed only when it changes. At the beginning of a file nothing is known.

use super::DELIMITER;
use super::text::{push_int, push_name, push_uint, put};
use crate::collation::Collation;
use crate::event::Query;
use crate::event::query::{Charsets, option};
use crate::format::{FormatDescription, Version};
use crate::header::{Header, flag};

/// What is set.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Default database; empty means none.
    pub database: Vec<u8>,
    thread_id: Option<u32>,
    flags2: Option<u32>,
    sql_mode: Option<u64>,
    auto_increment: (u16, u16),
    charsets: Option<Charsets>,
    time_zone: Vec<u8>,
    lc_time_names: Option<u16>,
    collation_database: Option<u16>,
}

/// Bits that statements of all versions have, in the order in which they are printed: name, bit,
/// whether the bit turns the variable off.
const OPTIONS: [(&str, u32, bool); 5] = [
    ("foreign_key_checks", option::NO_FOREIGN_KEYS, true),
    ("sql_auto_is_null", option::AUTO_IS_NULL, false),
    ("unique_checks", option::RELAXED_UNIQUE, true),
    ("autocommit", option::NOT_AUTOCOMMIT, true),
    ("check_constraint_checks", option::NO_CHECK_CONSTRAINTS, true),
];

/// Whether servers of a version have something.
type Has = fn(Version) -> bool;

/// Bits of later versions.
const LATER_OPTIONS: [(&str, u32, Has); 3] = [
    ("sql_if_exists", option::IF_EXISTS, |version| version >= (10, 5, 2)),
    ("explicit_defaults_for_timestamp", option::EXPLICIT_DEFAULTS, has_explicit_defaults),
    // The stock tool prints it for older servers too, which then refuse the text.
    ("system_versioning_insert_history", option::INSERT_HISTORY, |version| version >= (10, 11, 0)),
];

/// This bit came to five series at once.
fn has_explicit_defaults(version: Version) -> bool {
    match version {
        (10, 5, patch) => patch >= 17,
        (10, 6, patch) => patch >= 9,
        (10, 7, patch) => patch >= 5,
        (10, 8, patch) => patch >= 4,
        (10, 9, patch) => patch >= 2,
        other => other >= (10, 10, 0),
    }
}

/// Number of a connection in short form, which is the same everywhere.
const SHORT_FORM_THREAD: u32 = 999_999_999;

impl Known {
    /// Appends what `query` needs.
    pub(super) fn prepare(
        &mut self,
        out: &mut Vec<u8>,
        query: &Query<'_>,
        header: &Header,
        format: &FormatDescription,
        in_xa: bool,
        short_form: bool,
    ) {
        if header.has(flag::SUPPRESS_USE) {
            if !query.is_bracket(in_xa) {
                self.database.clear();
            }
        } else if self.database != query.database {
            self.database = query.database.to_vec();
            if !query.database.is_empty() {
                out.extend_from_slice(b"use ");
                push_name(out, query.database);
                put!(out, "{DELIMITER}\n");
            }
        }
        let session = &query.session;
        out.extend_from_slice(b"SET TIMESTAMP=");
        push_uint(out, header.timestamp.into());
        if (1..1_000_000).contains(&session.microseconds) {
            put!(out, ".{:06}", session.microseconds);
        }
        put!(out, "{DELIMITER}\n");
        let other_thread =
            header.has(flag::THREAD_SPECIFIC) && self.thread_id != Some(query.thread_id);
        if self.thread_id.is_none() || other_thread {
            let thread = if short_form { SHORT_FORM_THREAD } else { query.thread_id };
            put!(out, "SET @@session.pseudo_thread_id={thread}{DELIMITER}\n");
            self.thread_id = Some(query.thread_id);
        }
        if let Some(flags) = session.flags2 {
            self.options(out, flags, format);
        }
        if let Some(mode) = session.sql_mode
            && self.sql_mode.replace(mode) != Some(mode)
        {
            put!(out, "SET @@session.sql_mode={mode}{DELIMITER}\n");
        }
        let auto_increment = session.auto_increment.unwrap_or((1, 1));
        if self.auto_increment != auto_increment {
            let (increment, offset) = auto_increment;
            put!(
                out,
                "SET @@session.auto_increment_increment={increment}, \
                 @@session.auto_increment_offset={offset}{DELIMITER}\n"
            );
            self.auto_increment = auto_increment;
        }
        if let Some(charsets) = session.charsets
            && self.charsets.replace(charsets) != Some(charsets)
        {
            push_charsets(out, charsets);
        }
        if !session.collations.is_empty() {
            push_collations(out, session.collations());
        }
        if !session.time_zone.is_empty() && self.time_zone != session.time_zone {
            out.extend_from_slice(b"SET @@session.time_zone='");
            out.extend_from_slice(session.time_zone);
            put!(out, "'{DELIMITER}\n");
            self.time_zone = session.time_zone.to_vec();
        }
        let names = session.lc_time_names;
        if self.lc_time_names.replace(names) != Some(names) {
            put!(out, "SET @@session.lc_time_names={names}{DELIMITER}\n");
        }
        let collation = session.collation_database;
        if self.collation_database.replace(collation) != Some(collation) {
            out.extend_from_slice(b"SET @@session.collation_database=");
            match collation {
                0 => out.extend_from_slice(b"DEFAULT"),
                number => push_int(out, number.into()),
            }
            put!(out, "{DELIMITER}\n");
        }
    }

    fn options(&mut self, out: &mut Vec<u8>, flags: u32, format: &FormatDescription) {
        let changed = self.flags2.map_or(u32::MAX, |known| known ^ flags);
        if changed == 0 {
            return;
        }
        self.flags2 = Some(flags);
        out.extend_from_slice(b"SET ");
        let version = format.version();
        let later = LATER_OPTIONS
            .iter()
            .filter(|(_, _, is_known)| format.is_mariadb() && is_known(version))
            .map(|(name, bit, _)| (*name, *bit, false));
        let mut comma = "";
        for (name, bit, inverted) in OPTIONS.into_iter().chain(later) {
            if changed & bit != 0 {
                let on = (flags & bit != 0) != inverted;
                put!(out, "{comma}@@session.{name}={}", u8::from(on));
                comma = ", ";
            }
        }
        put!(out, "{DELIMITER}\n");
    }
}

fn push_charsets(out: &mut Vec<u8>, [client, connection, server]: Charsets) {
    let charset = match Collation::of(client) {
        Some(collation) => {
            put!(out, "/*!\\C {} */{DELIMITER}\n", collation.charset);
            collation.charset
        }
        None => {
            out.extend_from_slice(b"# Ignored (Unknown charset) ");
            "Unknown"
        }
    };
    put!(
        out,
        "SET @@session.character_set_client={charset},@@session.collation_connection={connection},\
         @@session.collation_server={server}{DELIMITER}\n"
    );
}

fn push_collations(out: &mut Vec<u8>, pairs: impl Iterator<Item = (u16, u16)>) {
    out.extend_from_slice(b"SET @@session.character_set_collations='");
    for (index, (charset, collation)) in pairs.enumerate() {
        let (charset, collation) = (Collation::of(charset), Collation::of(collation));
        let comma = if index == 0 { "" } else { "," };
        put!(
            out,
            "{comma}{}={}",
            charset.map_or("Unknown", |charset| charset.charset),
            collation.map_or_else(|| "Unknown".to_owned(), |collation| collation.name)
        );
    }
    put!(out, "'{DELIMITER}\n");
}
