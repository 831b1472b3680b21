//! Where the logs to replay are.
//!
//! Their order is that of their content: what a log says had been logged before it. Between logs of one
//! directory whose names differ only in the number the number decides: a server that is told to forget a
//! domain (`DELETE_DOMAIN_ID`) says less of what had been logged than before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use binlog::bytes::Malformed;
use binlog::crypt::KeySource;
use binlog::event::GtidList;
use binlog::{Event, EventType, Fault, FileKind, Gtid, ReadOptions, Reader};
use zeroize::Zeroizing;

use super::state::State;
use crate::archive::{no_logs, of_innodb, unreadable};
use crate::keys::settings::KeyStore;
use crate::{Error, ErrorKind, Result};

/// A log, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its name, without directory.
    pub name: String,
    /// Bytes of it.
    pub bytes: u64,
    /// When it was begun, in seconds since 1970.
    pub begun: u32,
    /// Version of the server that wrote it.
    pub version: String,
    /// `server_id` of it.
    pub server: u32,
    /// What had been logged before it.
    pub before: Vec<Gtid>,
    /// Whether it is of another server than the one before: what that has is passed over.
    pub enters: bool,
}

/// Logs of one server, the oldest first.
pub trait LogSource: Sync {
    /// What there is, in the order of its content.
    fn logs(&self) -> &[Log];

    /// Opens one of them, by its place in [`logs`](Self::logs).
    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>>;
}

/// How logs are read with keys of a server. Made anew in each thread.
pub fn reading(keys: Option<&Arc<KeyStore>>) -> ReadOptions {
    let keys = keys.map(|keys| Rc::new(Ring(Arc::clone(keys))) as Rc<dyn KeySource>);
    ReadOptions { keys, ..ReadOptions::default() }
}

/// The engine's keys, for the reader of logs.
struct Ring(Arc<KeyStore>);

impl KeySource for Ring {
    fn key(&self, id: u32, version: u32) -> Result<Zeroizing<Vec<u8>>, String> {
        let ring = self.0.ring().map_err(|error| error.to_string())?;
        let key = ring.key(id, version).map_err(|error| error.to_string())?;
        Ok(Zeroizing::new(key.bytes().to_vec()))
    }
}

/// Files of binary logs.
pub struct FileLogs {
    logs: Vec<Log>,
    paths: Vec<PathBuf>,
    notes: Vec<String>,
}

impl FileLogs {
    /// The logs among these files, and in these directories.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a file that is named and is no binary log, unless it is the GTID index of
    /// one; in directories others are passed over.
    pub fn open(places: &[PathBuf], keys: Option<&Arc<KeyStore>>) -> Result<Self> {
        let (mut found, mut indexes, mut of_innodb_there) = (Vec::new(), Vec::new(), Vec::new());
        for place in places {
            if !place.is_dir() {
                match FileKind::of(place).map_err(|e| Error::io("open", place, e))? {
                    FileKind::GtidIndex => indexes.push(place.clone()),
                    FileKind::InnodbBinlog => return Err(of_innodb(place)),
                    FileKind::Log | FileKind::Other => found.push(describe(place, keys)?),
                }
                continue;
            }
            let entries = std::fs::read_dir(place).map_err(|e| Error::io("read", place, e))?;
            for entry in entries {
                let path = entry.map_err(|e| Error::io("read", place, e))?.path();
                if !path.is_file() {
                    continue;
                }
                match FileKind::of(&path).map_err(|e| Error::io("read", &path, e))? {
                    FileKind::Log => found.push(describe(&path, keys)?),
                    FileKind::InnodbBinlog => of_innodb_there.push(path),
                    FileKind::GtidIndex | FileKind::Other => {}
                }
            }
        }
        of_innodb_there.sort();
        if let Some(first) = of_innodb_there.first().filter(|_| found.is_empty()) {
            return Err(of_innodb(first));
        }
        if found.is_empty() {
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            let message = format!("there is no binary log in {}", places.join(", "));
            return Err(Error::new(ErrorKind::NothingMatches, message)
                .advise("give the directory with the server's logs, or the files"));
        }
        found.sort_by_key(|(log, _)| {
            (State::of(&log.before).extent(), log.begun, number(&log.name), log.name.clone())
        });
        let (logs, paths) = by_number(found).into_iter().unzip();
        Ok(Self { logs, paths, notes: no_logs(&indexes, &of_innodb_there) })
    }

    /// What was passed over that somebody may miss.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl LogSource for FileLogs {
    fn logs(&self) -> &[Log] {
        &self.logs
    }

    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>> {
        let path = self.paths.get(index).map_or(Path::new(""), PathBuf::as_path);
        Ok(Box::new(File::open(path).map_err(|e| Error::io("open", path, e))?))
    }
}

/// Puts logs with the same name, save for the number, in the order of their numbers, into the places that
/// they have among the others.
fn by_number(found: Vec<(Log, PathBuf)>) -> Vec<(Log, PathBuf)> {
    let stem = |path: &Path| {
        let is_numbered = path
            .extension()
            .and_then(|digits| digits.to_str())
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        if is_numbered { path.with_extension("") } else { path.to_owned() }
    };
    let stems: Vec<PathBuf> = found.iter().map(|(_, path)| stem(path)).collect();
    let mut kinds: BTreeMap<PathBuf, Vec<(Log, PathBuf)>> = BTreeMap::new();
    for (stem, log) in stems.iter().zip(found) {
        kinds.entry(stem.clone()).or_default().push(log);
    }
    for logs in kinds.values_mut() {
        // The last one is taken first.
        logs.sort_by_key(|(log, _)| std::cmp::Reverse(number(&log.name)));
    }
    stems.iter().filter_map(|stem| kinds.get_mut(stem)?.pop()).collect()
}

/// The number at the end of a log's name, which has more digits after a million logs.
fn number(name: &str) -> u64 {
    name.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Reads how a log begins.
fn describe(path: &Path, keys: Option<&Arc<KeyStore>>) -> Result<(Log, PathBuf)> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let bytes = file.metadata().map_err(|e| Error::io("look at", path, e))?.len();
    let mut reader =
        Reader::new(file, path.display().to_string(), reading(keys)).map_err(unreadable)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut log = Log {
        name,
        bytes,
        begun: 0,
        version: String::new(),
        server: 0,
        before: Vec::new(),
        enters: false,
    };
    while let Some(event) = reader.next_event().map_err(unreadable)? {
        match event.header.kind {
            EventType::FORMAT_DESCRIPTION => {
                (log.begun, log.server) = (event.header.timestamp, event.header.server_id);
            }
            EventType::GTID_LIST => {
                let list = GtidList::parse(event.body());
                let list = list.map_err(|what| malformed(&log.name, &event, what))?;
                log.before = list.entries;
                let version = reader.format().map(|format| format.server_version.clone());
                log.version = version.unwrap_or_default();
                return Ok((log, path.to_owned()));
            }
            EventType::START_ENCRYPTION => {}
            _ => break,
        }
    }
    let message = format!("{} does not say which transactions came before it", path.display());
    Err(Error::new(ErrorKind::Usage, message)
        .advise("only binary logs of MariaDB 10.0 and later can be replayed"))
}

/// An event that is not what its type says.
pub fn malformed(log: &str, event: &Event<'_>, what: Malformed) -> Error {
    let fault = Fault::Malformed { kind: event.header.kind, what };
    unreadable(binlog::Error { file: log.to_owned(), position: event.offset, fault })
}
