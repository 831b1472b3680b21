//! What a statement needs its session to be set to, and what of that is set already.
//!
//! Everything that an event says of its session is set before its statement, if it is not set already.
//! What an event says nothing of does not matter to its statement, save where the absence itself is a
//! value. Names in logs are UTF-8, whatever a statement is written in: a name that is not ASCII is sent
//! only while the server reads UTF-8.

use std::io::Write;

use binlog::collation::Collation;
use binlog::dump::push_name;
use binlog::event::query::{Charsets, option};
use binlog::event::variables::UserValue;
use binlog::event::{IntVar, Query, Rand, UserVar};
use binlog::format::{FormatDescription, Version};
use binlog::header::{Header, flag};
use binlog::row::decimal;

/// Appends formatted text; nothing can go wrong in memory.
macro_rules! put {
    ($out:expr, $($what:tt)*) => {{ let _ = write!($out, $($what)*); }};
}
pub(super) use put;

/// What is set, and what is to be set before the next statement.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// `name=value`, separated by commas: not sent yet.
    pending: Vec<u8>,
    /// Whole statements that go before it.
    before: Vec<Vec<u8>>,
    /// Whether the server has been told to read UTF-8, for a name.
    reads_names: bool,
    time: Option<(u32, u32)>,
    domain: Option<u32>,
    server: Option<u32>,
    skips: (Option<bool>, Option<bool>),
    database: Vec<u8>,
    thread_id: Option<u32>,
    flags2: Option<u32>,
    sql_mode: Option<u64>,
    auto_increment: Option<(u16, u16)>,
    charsets: Option<Charsets>,
    collations: Option<Vec<u8>>,
    time_zone: Vec<u8>,
    lc_time_names: Option<u16>,
    collation_database: Option<u16>,
}

/// Since when servers have something.
type Since = Version;

/// Bits of the flags of statements: variable, bit, whether the bit turns it off, since which version.
/// `autocommit` is not among them: turning it on would commit.
const OPTIONS: [(&str, u32, bool, Since); 7] = [
    ("foreign_key_checks", option::NO_FOREIGN_KEYS, true, (0, 0, 0)),
    ("sql_auto_is_null", option::AUTO_IS_NULL, false, (0, 0, 0)),
    ("unique_checks", option::RELAXED_UNIQUE, true, (0, 0, 0)),
    ("check_constraint_checks", option::NO_CHECK_CONSTRAINTS, true, (0, 0, 0)),
    ("sql_if_exists", option::IF_EXISTS, false, (10, 5, 2)),
    ("explicit_defaults_for_timestamp", option::EXPLICIT_DEFAULTS, false, (10, 5, 17)),
    ("system_versioning_insert_history", option::INSERT_HISTORY, false, (10, 11, 0)),
];

/// Servers that have `character_set_collations`.
const COLLATIONS_SINCE: Since = (11, 2, 0);

/// Whether logs of a version have the bit that says how TIMESTAMP columns are defined: it came to five
/// series at once.
fn has(version: Version, since: Since) -> bool {
    const EXPLICIT_DEFAULTS: [Since; 5] =
        [(10, 5, 17), (10, 6, 9), (10, 7, 5), (10, 8, 4), (10, 9, 2)];
    if since != EXPLICIT_DEFAULTS[0] {
        return version >= since;
    }
    let (major, minor, _) = version;
    let of_series = EXPLICIT_DEFAULTS.iter().find(|first| (first.0, first.1) == (major, minor));
    version >= *of_series.unwrap_or(&(10, 10, 0))
}

/// The number of a collation that nothing is known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnknownCollation(pub u16);

impl Session {
    /// Sets the time that it is: seconds and microseconds.
    pub(super) fn time(&mut self, seconds: u32, micros: u32) {
        if self.time.replace((seconds, micros)) != Some((seconds, micros)) {
            match micros {
                0 => self.add(format_args!("timestamp={seconds}")),
                micros => self.add(format_args!("timestamp={seconds}.{micros:06}")),
            }
        }
    }

    /// Sets what the next group is logged as.
    pub(super) fn group(&mut self, gtid: binlog::Gtid, (skip, no_parallel): (bool, bool)) {
        if self.domain.replace(gtid.domain) != Some(gtid.domain) {
            self.add(format_args!("@@session.gtid_domain_id={}", gtid.domain));
        }
        if self.server.replace(gtid.server) != Some(gtid.server) {
            self.add(format_args!("@@session.server_id={}", gtid.server));
        }
        if self.skips.0.replace(skip).unwrap_or(false) != skip {
            self.add(format_args!("@@session.skip_replication={}", u8::from(skip)));
        }
        if self.skips.1.replace(no_parallel).unwrap_or(false) != no_parallel {
            let word = u8::from(no_parallel);
            self.add(format_args!("@@session.skip_parallel_replication={word}"));
        }
        self.add(format_args!("@@session.gtid_seq_no={}", gtid.sequence));
    }

    fn add(&mut self, what: std::fmt::Arguments<'_>) {
        if !self.pending.is_empty() {
            self.pending.push(b',');
        }
        put!(self.pending, "{what}");
    }

    /// Makes sure that the server reads a name as what it is.
    pub(super) fn read_name(&mut self, name: &[u8]) {
        let reads = self.charsets.and_then(|[client, ..]| Collation::of(client));
        let reads = reads.is_some_and(|it| matches!(it.charset, "utf8" | "utf8mb3" | "utf8mb4"));
        if name.is_ascii() || reads || self.reads_names {
            return;
        }
        self.reads_names = true;
        // The next statement of the log has to say anew what it is written in.
        self.charsets = None;
        self.close_set();
        self.before.push(b"SET character_set_client=utf8mb4".to_vec());
    }

    /// What is to be set is to be set before what comes now.
    fn close_set(&mut self) {
        if !self.pending.is_empty() {
            let mut set = b"SET ".to_vec();
            set.append(&mut self.pending);
            self.before.push(set);
        }
    }

    /// Sets what a statement of the log of such a server needs on a server of version `target`.
    pub(super) fn statement(
        &mut self,
        query: &Query<'_>,
        header: &Header,
        format: &FormatDescription,
        target: Version,
    ) -> Result<(), UnknownCollation> {
        if header.has(flag::SUPPRESS_USE) {
            // It may be about the default database itself.
            self.database.clear();
        } else if self.database != query.database && !query.database.is_empty() {
            self.database = query.database.to_vec();
            // Using a database sets its collation, too.
            self.collation_database = Some(0);
            self.read_name(query.database);
            self.close_set();
            let mut statement = b"USE ".to_vec();
            push_name(&mut statement, query.database);
            self.before.push(statement);
        }
        let session = &query.session;
        self.time(header.timestamp, session.microseconds.min(999_999));
        if self.thread_id.replace(query.thread_id) != Some(query.thread_id) {
            self.add(format_args!("@@session.pseudo_thread_id={}", query.thread_id));
        }
        if let Some(flags) = session.flags2 {
            self.options(flags, format, target);
        }
        if let Some(mode) = session.sql_mode
            && self.sql_mode.replace(mode) != Some(mode)
        {
            self.add(format_args!("@@session.sql_mode={mode}"));
        }
        let auto_increment = session.auto_increment.unwrap_or((1, 1));
        if self.auto_increment.replace(auto_increment) != Some(auto_increment) {
            let (increment, offset) = auto_increment;
            self.add(format_args!(
                "@@session.auto_increment_increment={increment},\
                 @@session.auto_increment_offset={offset}"
            ));
        }
        if let Some(charsets) = session.charsets
            && self.charsets.replace(charsets) != Some(charsets)
        {
            let [client, connection, server] = charsets;
            let client = Collation::of(client).ok_or(UnknownCollation(client))?;
            self.reads_names = false;
            self.add(format_args!(
                "@@session.character_set_client={},@@session.collation_connection={connection},\
                 @@session.collation_server={server}",
                client.charset
            ));
        }
        if target >= COLLATIONS_SINCE
            && format.version() >= COLLATIONS_SINCE
            && self.collations.as_deref() != Some(session.collations)
        {
            self.collations = Some(session.collations.to_vec());
            let mut text = String::new();
            for (charset, collation) in session.collations() {
                let charset = Collation::of(charset).ok_or(UnknownCollation(charset))?;
                let collation = Collation::of(collation).ok_or(UnknownCollation(collation))?;
                let comma = if text.is_empty() { "" } else { "," };
                text = format!("{text}{comma}{}={}", charset.charset, collation.name);
            }
            self.add(format_args!("@@session.character_set_collations='{text}'"));
        }
        if !session.time_zone.is_empty() && self.time_zone != session.time_zone {
            self.time_zone = session.time_zone.to_vec();
            self.add(format_args!("@@session.time_zone="));
            push_text(&mut self.pending, session.time_zone);
        }
        let names = session.lc_time_names;
        if self.lc_time_names.replace(names) != Some(names) {
            self.add(format_args!("@@session.lc_time_names={names}"));
        }
        let collation = session.collation_database;
        if self.collation_database.replace(collation) != Some(collation) {
            match collation {
                0 => self.add(format_args!("@@session.collation_database=DEFAULT")),
                number => self.add(format_args!("@@session.collation_database={number}")),
            }
        }
        Ok(())
    }

    fn options(&mut self, flags: u32, format: &FormatDescription, target: Version) {
        let changed = self.flags2.map_or(u32::MAX, |known| known ^ flags);
        self.flags2 = Some(flags);
        for (name, bit, inverted, since) in OPTIONS {
            let is_known = has(format.version(), since) && has(target, since);
            if changed & bit != 0 && is_known {
                let on = (flags & bit != 0) != inverted;
                self.add(format_args!("@@session.{name}={}", u8::from(on)));
            }
        }
    }

    /// Sets whose temporary tables the next statement means.
    pub(super) fn thread(&mut self, server: u32, thread: u32) {
        if self.server.replace(server) != Some(server) {
            self.add(format_args!("@@session.server_id={server}"));
        }
        if self.thread_id.replace(thread) != Some(thread) {
            self.add(format_args!("@@session.pseudo_thread_id={thread}"));
        }
    }

    /// Sets a number that the next statement uses.
    pub(super) fn int(&mut self, variable: IntVar) {
        self.add(format_args!("{}={}", variable.name(), variable.value));
    }

    /// Sets the seeds that the next statement uses.
    pub(super) fn rand(&mut self, Rand(first, second): Rand) {
        self.add(format_args!("@@rand_seed1={first},@@rand_seed2={second}"));
    }

    /// Sets a user variable that the next statement uses.
    pub(super) fn user_variable(&mut self, variable: &UserVar<'_>) -> Result<(), UnknownCollation> {
        self.read_name(variable.name);
        let mut name = Vec::new();
        push_name(&mut name, variable.name);
        self.add(format_args!("@"));
        let out = &mut self.pending;
        out.append(&mut name);
        out.extend_from_slice(b":=");
        match variable.value {
            UserValue::Null => out.extend_from_slice(b"NULL"),
            // All digits that a double has.
            UserValue::Real(value) => put!(out, "{value:e}"),
            UserValue::Int { bits, unsigned: true } => put!(out, "{bits}"),
            UserValue::Int { bits, unsigned: false } => put!(out, "{}", bits.cast_signed()),
            UserValue::Decimal { precision, scale, packed } => {
                decimal::write(packed, precision, scale, out);
            }
            UserValue::Text(text, number) => {
                let collation = Collation::of(number).ok_or(UnknownCollation(number))?;
                put!(out, "_{} X'", collation.charset);
                text.iter().for_each(|byte| put!(out, "{byte:02X}"));
                put!(out, "' COLLATE `{}`", collation.name);
            }
        }
        Ok(())
    }

    /// Takes the statements that set what is to be set.
    pub(super) fn take_set(&mut self) -> Vec<Vec<u8>> {
        self.close_set();
        std::mem::take(&mut self.before)
    }
}

/// Appends text between quotes, which are doubled in it: right in every `sql_mode` as long as there is
/// no backslash, which no name of a time zone has.
fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'\'');
    for &byte in text {
        if byte == b'\'' {
            out.push(b'\'');
        }
        if byte != b'\\' {
            out.push(byte);
        }
    }
    out.push(b'\'');
}
