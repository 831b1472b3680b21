//! Options to what the printer takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use binlog::dump::filter::Ids;
use binlog::dump::options::{Base64, Options};
use binlog::{Gtid, ReadOptions};

use super::datetime;
use super::parse::Given;
use crate::stock::value::{Refusal, Value};

/// What was asked for.
pub struct Request {
    /// What to print, and how.
    pub options: Options,
    /// How to read.
    pub read: ReadOptions,
    /// Where to write.
    pub result_file: Option<String>,
    /// The time to stop at, as it was written.
    pub stop_datetime: Option<String>,
    /// Whether to read from a server.
    pub is_remote: bool,
    /// How to.
    pub remote: Remote,
}

/// How logs are read from a server.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// Up to the last log.
    pub to_last: bool,
    /// And what follows in it.
    pub waits: bool,
    /// The `server_id` of a replica that waits.
    pub server_id: u32,
    /// To files instead of text.
    pub raw: bool,
    /// Position by GTID to begin behind, as it was written.
    pub gtids: Option<String>,
}

/// A byte, or GTIDs by domain.
pub enum Position {
    /// Offset in a file.
    Byte(u64),
    /// By domain.
    Gtids(BTreeMap<u32, Gtid>),
}

impl Request {
    /// Makes sense of options in their order; of equal ones the last counts.
    pub fn new(given: &[Given]) -> Result<Self, Refusal> {
        let mut request = Self {
            options: Options::default(),
            read: ReadOptions { verify: false, ..ReadOptions::default() },
            result_file: None,
            stop_datetime: None,
            is_remote: false,
            remote: Remote { server_id: 1, ..Remote::default() },
        };
        // The stock tool leaves these on in spite of short form only if they are asked for.
        let (mut counts, mut positions) = (None, None);
        for Given { entry, value } in given {
            let on = *value != Value::Off;
            let text = match value {
                Value::Text(text) => text.as_str(),
                _ => "",
            };
            match entry.name {
                "print-row-count" => counts = Some(on),
                "print-row-event-positions" => positions = Some(on),
                name => request.set(name, on, text)?,
            }
        }
        if request.remote.raw && request.options.flashback {
            return Err(Refusal::error("The --raw mode is not allowed with --flashback mode"));
        }
        if request.remote.raw && !request.is_remote {
            return Err(Refusal::error("The --raw mode only works with --read-from-remote-server"));
        }
        let options = &mut request.options;
        options.row_counts = counts.unwrap_or(!options.short_form);
        options.positions = positions.unwrap_or(!options.short_form && !options.flashback);
        if options.gtid_strict
            && let Some((start, stop)) = options.windows.impossible()
        {
            return Err(Refusal::error(format!(
                "Queried GTID range is invalid in strict mode. Start position {start} is not \
                 before stop position {stop}."
            )));
        }
        Ok(request)
    }

    fn set(&mut self, name: &str, on: bool, text: &str) -> Result<(), Refusal> {
        let options = &mut self.options;
        match name {
            "base64-output" => options.base64 = base64(text)?,
            "database" => options.database = Some(text.as_bytes().to_vec()),
            "table" => options.table = Some(text.as_bytes().to_vec()),
            "rewrite-db" => options.rewrite.push(rewrite(text)?),
            "disable-log-bin" => options.disable_log_bin = on,
            "flashback" => options.flashback = on,
            "force-if-open" => options.force_if_open = on,
            "force-read" => options.force_read = on,
            "hexdump" => options.hexdump = on,
            "local-load" => options.local_load = PathBuf::from(text),
            "offset" => options.offset = number(name, text)?,
            "read-from-remote-server" => self.is_remote = on,
            "raw" => self.remote.raw = on,
            "to-last-log" => self.remote.to_last = on,
            "stop-never" => self.remote.waits = on,
            "stop-never-slave-server-id" => {
                let id = u32::try_from(number(name, text)?).ok().filter(|id| *id > 0);
                self.remote.server_id = id.unwrap_or(1);
            }
            "result-file" => self.result_file = Some(text.to_owned()),
            "print-table-metadata" => options.table_metadata = on,
            "ignore-domain-ids" => add(&mut options.domains, name, text, false)?,
            "do-domain-ids" => add(&mut options.domains, name, text, true)?,
            "ignore-server-ids" => add(&mut options.servers, name, text, false)?,
            "do-server-ids" | "server-id" => add(&mut options.servers, name, text, true)?,
            "set-charset" => options.set_charset = Some(text.to_owned()),
            "short-form" => options.short_form = on,
            "start-datetime" => options.start_time = time(text, options)?,
            "stop-datetime" => {
                options.stop_time = Some(time(text, options)?);
                self.stop_datetime = Some(text.to_owned());
            }
            "start-position" => match position(name, text)? {
                Position::Byte(byte) => {
                    options.start_position = byte.max(binlog::format::FIRST_EVENT);
                }
                Position::Gtids(mut gtids) => {
                    // Nothing is known of a domain at 0.
                    gtids.retain(|_, gtid| gtid.sequence > 0);
                    self.remote.gtids = Some(text.trim().to_owned());
                    options.windows.starts = gtids;
                }
            },
            "stop-position" => match position(name, text)? {
                Position::Byte(byte) => options.stop_position = Some(byte),
                Position::Gtids(gtids) => options.windows.stops = gtids,
            },
            "gtid-strict-mode" => options.gtid_strict = on,
            "verbose" => options.verbose = if on { options.verbose.saturating_add(1) } else { 0 },
            "verify-binlog-checksum" => self.read.verify = on,
            "skip-annotate-row-events" => options.annotations = !on,
            _ => {}
        }
        Ok(())
    }
}

/// Words for when base64 is printed, which may be abbreviated or counted from 1.
fn base64(text: &str) -> Result<Base64, Refusal> {
    let words = [
        ("never", Some(Base64::Never)),
        ("auto", Some(Base64::Auto)),
        ("always", None),
        ("unspec", Some(Base64::Auto)),
        ("decode-rows", Some(Base64::DecodeRows)),
    ];
    let low = text.to_ascii_lowercase().replace('_', "-");
    let found = words.iter().find(|(word, _)| !low.is_empty() && word.starts_with(&low));
    match found {
        Some((_, Some(mode))) => Ok(*mode),
        Some((word, None)) => {
            Err(Refusal::error(format!("--base64-output={word} is not supported by haulout")))
        }
        None => Err(Refusal::error(format!("Unknown option to base64-output: {text}"))),
    }
}

fn number(name: &str, text: &str) -> Result<u64, Refusal> {
    let bad = |_| Refusal::error(format!("'{text}' is not a number for --{name}"));
    text.parse().map_err(bad)
}

fn rewrite(text: &str) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let pair = text.split_once("->").map(|(from, to)| (from.trim(), to.trim()));
    match pair {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => {
            Ok((from.as_bytes().to_vec(), to.as_bytes().to_vec()))
        }
        _ => Err(Refusal::error("Bad syntax in rewrite-db. Expected syntax is FROM->TO.")),
    }
}

fn add(ids: &mut Ids, name: &str, text: &str, only: bool) -> Result<(), Refusal> {
    let bad = || {
        let message =
            format!("Input for --{name} is invalid. Should be a list of positive integers");
        Refusal::error(message)
    };
    let numbers = text.split(',').map(|part| part.trim().parse().map_err(|_| bad()));
    let numbers = numbers.collect::<Result<BTreeSet<u32>, Refusal>>()?;
    match (ids, only) {
        (ids @ Ids::All, true) => *ids = Ids::Only(numbers),
        (ids @ Ids::All, false) => *ids = Ids::AllBut(numbers),
        (Ids::Only(known), true) | (Ids::AllBut(known), false) => known.extend(numbers),
        _ => {
            let other = if only { "ignore" } else { "do" };
            let kind = name.rsplit_once("-ids").map_or(name, |(stem, _)| stem);
            let kind = kind.rsplit('-').next().unwrap_or("server");
            return Err(Refusal::error(format!(
                "cannot use --{name} together with --{other}-{kind}-ids"
            )));
        }
    }
    Ok(())
}

fn time(text: &str, options: &Options) -> Result<u32, Refusal> {
    datetime::parse(text, &options.zone)
        .ok_or_else(|| Refusal::error(format!("Incorrect date and time argument: {text}")))
}

/// Reads a byte or GTIDs.
pub fn position(name: &str, text: &str) -> Result<Position, Refusal> {
    let bad = || {
        Refusal::error(format!(
            "--{name} argument value is invalid. Should be either a positive integer or GTID."
        ))
    };
    if let Ok(byte) = text.trim().parse() {
        return Ok(Position::Byte(byte));
    }
    let gtids: binlog::GtidPosition = text.parse().map_err(|_| bad())?;
    if gtids.is_empty() {
        return Err(bad());
    }
    Ok(Position::Gtids(gtids.iter().map(|gtid| (gtid.domain, gtid)).collect()))
}
