//! The text of the stock tool `mariadb-binlog`: what replays a log, and what shows it.
//!
//! | module | what |
//! |---|---|
//! | [`options`] | what to print, and how |
//! | [`filter`] | which groups, by their GTIDs |
//! | `print` | events |
//! | `problem` | why one cannot be printed |
//! | `file_state` | what is known of the file that is read |
//! | `rows` | events of rows, and of the tables that they belong to |
//! | `undo` | events that undo events of rows |
//! | `session` | what a statement needs to be set before it |
//! | `value`, `metadata` | values and columns in words |
//! | `load` | files of LOAD DATA |
//! | `text` | numbers, quotes, base64, times |
//!
//! The text is that of 11.8, which for logs of servers before it is that of 10.11, byte for byte.
//! What is different on purpose is in the documentation of compatibility.

mod file_state;
pub mod filter;
mod load;
mod metadata;
pub mod options;
mod print;
mod problem;
mod rows;
mod session;
mod text;
mod undo;
pub(crate) mod value;

use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use crate::error::{Error, Fault};
use crate::format::{FIRST_EVENT, FormatDescription};
use crate::gtid::Gtid;
use crate::header::{EventType, flag};
use crate::reader::{Event, Reader};
use file_state::FileState;
use filter::{Order, Progress};
use load::LoadFiles;
use options::{Base64, Options};
use problem::Problem;
use text::Clock;

pub use text::push_name;

/// What ends a statement in the text.
const DELIMITER: &str = "/*!*/;";

/// Text that is collected before it is written.
const OUTPUT_CHUNK: usize = 1 << 20;

/// Why there is no more text.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The log cannot be read on.
    #[error(transparent)]
    Log(#[from] Error),
    /// The text cannot be written.
    #[error("cannot write the text: {0}")]
    Output(#[source] std::io::Error),
    /// A file of a LOAD DATA statement cannot be written.
    #[error("cannot write {file}: {source}", file = .path.display())]
    LoadFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is open or was not closed.
    #[error(
        "attempting to dump binlog '{0}', which was not closed properly; most probably the server \
         is still writing it, or it crashed. Rerun with --force-if-open to ignore this problem"
    )]
    InUse(String),
    /// Sequence numbers of a domain do not grow.
    #[error("found out of order GTID: got {got} after {before}")]
    OutOfOrder {
        /// Which came.
        got: Gtid,
        /// What had come before.
        before: Gtid,
    },
    /// The log does not have what is asked for by GTID.
    #[error("{0}")]
    Gtids(String),
    /// What would be undone is of a domain that not every limit names.
    #[error("{gtid} would be undone, too: domain {} has no GTID to {limit}", .gtid.domain)]
    OtherDomain {
        /// The first such transaction.
        gtid: Gtid,
        /// What is missing.
        limit: filter::Limit,
    },
    /// Rows that cannot be undone, because the log does not have all of them.
    #[error("{file} at {position}: {why}")]
    NoUndo {
        /// The file.
        file: String,
        /// Offset of the event.
        position: u64,
        /// What is missing.
        why: &'static str,
    },
}

/// How it went on with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// To its end.
    On,
    /// To where it should stop.
    Stopped,
}

/// Prints logs.
pub struct Dump<'o, W> {
    options: &'o Options,
    sink: W,
    /// Text that is not written yet.
    out: Vec<u8>,
    notes: Vec<String>,
    clock: Clock,
    load: LoadFiles,
    progress: Progress,
    order: Order,
    /// Whether the state before the first file was compared with what is wanted.
    state_seen: bool,
    /// GTIDs that were seen, whether they are printed or not.
    seen: Order,
    /// Events passed over so far.
    passed: u64,
    /// Whether the first event that is late enough was found.
    begun: bool,
    last_time: u32,
    /// What undoes the log: pieces, in the order of the log.
    undo: Vec<Vec<u8>>,
    undo_stop: Vec<u8>,
    /// What is known in the current file.
    file: FileState,
}

impl<'o, W: Write> Dump<'o, W> {
    /// Begins the text.
    pub fn begin(options: &'o Options, sink: W) -> Self {
        let mut dump = Self {
            options,
            sink,
            out: Vec::with_capacity(2 * OUTPUT_CHUNK),
            notes: Vec::new(),
            clock: Clock::new(options.zone.clone()),
            load: LoadFiles::default(),
            progress: Progress::default(),
            order: Order::default(),
            state_seen: options.start_position > FIRST_EVENT,
            seen: Order::default(),
            passed: 0,
            begun: false,
            last_time: 0,
            undo: Vec::new(),
            undo_stop: Vec::new(),
            file: FileState::default(),
        };
        let out = &mut dump.out;
        out.extend_from_slice(
            b"/*!50530 SET @@SESSION.PSEUDO_SLAVE_MODE=1*/;\n\
              /*!40019 SET @@session.max_delayed_threads=0*/;\n",
        );
        if options.disable_log_bin {
            out.extend_from_slice(
                b"/*!32316 SET @OLD_SQL_LOG_BIN=@@SQL_LOG_BIN, SQL_LOG_BIN=0*/;\n",
            );
        }
        out.extend_from_slice(
            b"/*!50003 SET @OLD_COMPLETION_TYPE=@@COMPLETION_TYPE,COMPLETION_TYPE=0*/;\n",
        );
        if let Some(charset) = &options.set_charset {
            text::put!(
                out,
                "\n/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;\
                 \n/*!40101 SET @OLD_CHARACTER_SET_RESULTS=@@CHARACTER_SET_RESULTS */;\
                 \n/*!40101 SET @OLD_COLLATION_CONNECTION=@@COLLATION_CONNECTION */;\
                 \n/*!40101 SET NAMES {charset} */;\n"
            );
        }
        dump
    }

    /// Prints a file that can only be read forward.
    pub fn stream<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        first: bool,
        last: bool,
    ) -> Result<Went, Failure> {
        self.run(reader, first, last, Reader::skip_to)
    }

    /// Prints a file.
    pub fn file<R: Read + Seek>(
        &mut self,
        reader: &mut Reader<R>,
        first: bool,
        last: bool,
    ) -> Result<Went, Failure> {
        self.run(reader, first, last, Reader::seek_to)
    }

    /// Begins a log whose events come one by one; in the last one a stop position counts.
    pub fn begin_log(&mut self, last: bool) {
        text::put!(self.out, "DELIMITER {DELIMITER}\n");
        self.file = FileState::default();
        self.file.stop = self.options.stop_position.filter(|_| last);
    }

    /// Takes the next event of a log that was begun.
    pub fn take(&mut self, file: &str, event: &Event<'_>) -> Result<Went, Failure> {
        let went = self.event(event).map_err(|problem| problem.of(file, event.offset))?;
        self.flush_some()?;
        Ok(went)
    }

    /// Ends a log that was begun, at an offset.
    pub fn end_log(&mut self, end: u64) -> Went {
        let went = self.reached(end);
        self.delimit();
        went
    }

    /// Ends a log that was begun where it was said to stop.
    pub fn stop_log(&mut self) {
        self.delimit();
    }

    fn delimit(&mut self) {
        if !self.options.flashback {
            self.out.extend_from_slice(b"DELIMITER ;\n");
        }
    }

    /// Whether a log that has come to its end is to be gone beyond.
    fn reached(&mut self, end: u64) -> Went {
        let Some(stop) = self.file.stop.filter(|stop| *stop > end) else { return Went::On };
        self.notes.push(format!("Did not reach stop position {stop} before end of input"));
        Went::Stopped
    }

    fn run<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        first: bool,
        last: bool,
        go_to: fn(&mut Reader<R>, u64) -> Result<(), Error>,
    ) -> Result<Went, Failure> {
        self.begin_log(last);
        let start = if first { self.options.start_position } else { FIRST_EVENT };
        let went = self.events(reader, start, go_to)?;
        self.delimit();
        Ok(went)
    }

    fn events<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        start: u64,
        go_to: fn(&mut Reader<R>, u64) -> Result<(), Error>,
    ) -> Result<Went, Failure> {
        if start > FIRST_EVENT && self.head(reader, start)? == Went::Stopped {
            return Ok(Went::Stopped);
        }
        go_to(reader, start.max(reader.offset()))?;
        loop {
            let offset = reader.offset();
            let event = match reader.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                // The rest of a file that was not closed is not expected to be whole.
                Err(error) => match error.fault {
                    Fault::Crypt(_) | Fault::Io(_) => return Err(error.into()),
                    _ if reader.is_in_use() => break,
                    _ => return Err(error.into()),
                },
            };
            debug_assert_eq!(event.offset, offset);
            let stopped = self.event(&event);
            match stopped {
                Ok(Went::Stopped) => return Ok(Went::Stopped),
                Ok(Went::On) => {}
                Err(problem) => return Err(problem.of(reader.file(), offset)),
            }
            self.flush_some()?;
            if !self.options.force_if_open
                && reader.is_in_use()
                && self.file.last_kind == Some(EventType::FORMAT_DESCRIPTION)
            {
                return Err(Failure::InUse(reader.file().to_owned()));
            }
        }
        Ok(self.reached(reader.offset()))
    }

    /// Reads what describes a file that is not printed from its beginning.
    fn head<R: Read>(&mut self, reader: &mut Reader<R>, start: u64) -> Result<Went, Failure> {
        while reader.offset() < start {
            let offset = reader.offset();
            match reader.peek()? {
                Some(
                    EventType::FORMAT_DESCRIPTION | EventType::ROTATE | EventType::START_ENCRYPTION,
                ) => {}
                _ => break,
            }
            let Some(event) = reader.next_event()? else { break };
            if event.header.kind != EventType::FORMAT_DESCRIPTION {
                continue;
            }
            if self.options.base64 == Base64::Auto {
                let went = self.event(&event);
                if went.map_err(|problem| problem.of(reader.file(), offset))? == Went::Stopped {
                    return Ok(Went::Stopped);
                }
            } else {
                let format = FormatDescription::parse(event.bytes);
                let broken = |what| Problem::Malformed(event.header.kind, what);
                let format = format.map_err(broken);
                self.file.format = Some(format.map_err(|e| e.of(reader.file(), offset))?);
            }
        }
        Ok(Went::On)
    }

    /// What the stock tool says on standard error while it goes on.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// The time of the last event.
    pub fn last_time(&self) -> u32 {
        self.last_time
    }

    /// Ends the text.
    pub fn end(mut self) -> Result<Vec<String>, Failure> {
        let options = self.options;
        if options.flashback {
            for piece in std::mem::take(&mut self.undo).iter().rev() {
                self.out.extend_from_slice(piece);
                self.flush_some()?;
            }
            text::put!(self.out, "COMMIT\n{DELIMITER}\n");
            self.out.append(&mut self.undo_stop);
            self.out.extend_from_slice(b"DELIMITER ;\n");
        }
        self.out.extend_from_slice(
            b"# End of log file\nROLLBACK /* added by mysqlbinlog */;\n\
              /*!50003 SET COMPLETION_TYPE=@OLD_COMPLETION_TYPE*/;\n",
        );
        if options.disable_log_bin {
            self.out.extend_from_slice(b"/*!32316 SET SQL_LOG_BIN=@OLD_SQL_LOG_BIN*/;\n");
        }
        if options.set_charset.is_some() {
            self.out.extend_from_slice(
                b"/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;\n\
                  /*!40101 SET CHARACTER_SET_RESULTS=@OLD_CHARACTER_SET_RESULTS */;\n\
                  /*!40101 SET COLLATION_CONNECTION=@OLD_COLLATION_CONNECTION */;\n",
            );
        }
        self.out.extend_from_slice(b"/*!50530 SET @@SESSION.PSEUDO_SLAVE_MODE=0*/;\n");
        if options.filters_groups() || options.servers != filter::Ids::All {
            self.out.extend_from_slice(
                b"/*!100001 SET @@SESSION.SERVER_ID=@@GLOBAL.SERVER_ID */;\n\
                  /*!100001 SET @@SESSION.GTID_DOMAIN_ID=@@GLOBAL.GTID_DOMAIN_ID */;\n",
            );
        }
        self.flush()?;
        for stop in self.seen.missing(&options.windows.stops) {
            self.notes.push(format!("Did not reach stop position {stop} before end of input"));
        }
        let missing: Vec<String> =
            self.seen.missing(&options.windows.starts).map(ToString::to_string).collect();
        if !missing.is_empty() && options.gtid_strict {
            return Err(Failure::Gtids(format!(
                "Binary logs never reached expected GTID state of {}",
                missing.join(",")
            )));
        }
        Ok(self.notes)
    }

    /// Writes what there is so far, also after a failure.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.sink.write_all(&self.out).map_err(Failure::Output)?;
        self.out.clear();
        self.sink.flush().map_err(Failure::Output)
    }

    fn flush_some(&mut self) -> Result<(), Failure> {
        if self.out.len() >= OUTPUT_CHUNK {
            self.sink.write_all(&self.out).map_err(Failure::Output)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Whether an event is outside of what is wanted, and whether everything behind it is.
    fn select(&mut self, event: &Event<'_>) -> Result<Selected, Problem> {
        let (header, options) = (&event.header, self.options);
        if header.kind == EventType::GTID_LIST && header.timestamp != 0 && !self.state_seen {
            self.state_seen = true;
            let list = crate::event::GtidList::parse(event.body())
                .map_err(|what| Problem::Malformed(header.kind, what))?;
            let lacks = options.windows.lacks(&list.entries);
            if !lacks.is_empty() {
                return Err(Problem::Gtids(lacks.join("\n")));
            }
            self.order.begin(&list.entries);
            self.seen.begin(&list.entries);
        }
        if header.kind == EventType::GTID {
            let gtid = crate::event::GtidEvent::parse(event.body(), header.server_id)
                .map_err(|what| Problem::Malformed(header.kind, what))?
                .gtid;
            self.seen.note(gtid);
            self.file.gtid = Some(gtid);
            // A server that begins to send in the middle of a log leaves its list out.
            self.state_seen = true;
            if options.filters_groups() {
                if self.progress.has_ended(&options.windows) {
                    return Ok(Selected::End);
                }
                let inside = self.progress.admits(&options.windows, gtid);
                self.file.in_group =
                    inside && options.domains.has(gtid.domain) && options.servers.has(gtid.server);
            }
            if self.file.in_group
                && (options.gtid_strict || options.verbose >= 3)
                && let Some(before) = self.order.note(gtid)
            {
                if options.gtid_strict {
                    return Err(Problem::OutOfOrder { got: gtid, before });
                }
                self.notes.push(format!("Found out of order GTID. Got {gtid} after {before}"));
            }
        }
        let is_format = header.kind == EventType::FORMAT_DESCRIPTION;
        if options.filters_groups() && !self.file.in_group {
            return Ok(Selected::PassUncounted);
        }
        if !is_format {
            if !self.begun
                && (self.passed < options.offset || header.timestamp < options.start_time)
            {
                return Ok(Selected::Pass);
            }
            self.begun = true;
            if header.kind != EventType::ROTATE && !options.servers.has(header.server_id) {
                return Ok(Selected::Pass);
            }
        }
        let is_late = options.stop_time.is_some_and(|stop| header.timestamp >= stop)
            || self.file.stop.is_some_and(|stop| event.offset >= stop);
        Ok(if is_late { Selected::End } else { Selected::Print })
    }

    /// Takes one event.
    fn event(&mut self, event: &Event<'_>) -> Result<Went, Problem> {
        self.file.last_kind = Some(event.header.kind);
        if event.header.kind == EventType::FORMAT_DESCRIPTION {
            let format = FormatDescription::parse(event.bytes);
            let broken = |what| Problem::Malformed(event.header.kind, what);
            self.file.format = Some(format.map_err(broken)?);
        }
        let selected = self.select(event)?;
        let result = match selected {
            Selected::End => Ok(Went::Stopped),
            Selected::Pass | Selected::PassUncounted => Ok(Went::On),
            Selected::Print => self.print(event).map(|()| Went::On),
        };
        if selected != Selected::PassUncounted {
            self.passed += 1;
        }
        self.last_time = event.header.timestamp;
        result
    }
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selected {
    Print,
    Pass,
    /// Not even counted by `offset`.
    PassUncounted,
    End,
}

/// Whether `skip_replication` is on in a header.
fn skips_replication(event: &Event<'_>) -> bool {
    event.header.has(flag::SKIP_REPLICATION)
}
