//! Batches to the server, several of which are on their way.
//!
//! While the server is busy with one batch the next is there already. It is sent before anybody knows
//! whether what is before it will succeed, so each begins with a statement that the server refuses
//! unless the batch before it was done to its end: behind the first error nothing is done. Nothing is
//! sent behind the text of a statement of the log before that is answered.

use std::collections::VecDeque;

use binlog::Gtid;
use tempfile::SpooledTempFile;

use super::batch::{Batch, Mark, What};
use super::source::LogSource;
use crate::prepare::Meter;
use crate::server::pipeline::{Pipeline, Refused};
use crate::{Error, ErrorKind, Result};

/// Batches that are on their way at most.
const ON_THEIR_WAY: usize = 3;
/// Says that the batch has begun.
const BEGUN: &str = "SET @`haulout.replay`='begun'";
/// The same, and refused unless the batch before was done: a word is no time to wait for.
const BEGUN_BEHIND: &str = "SET @@session.wait_timeout=@`haulout.replay`,@`haulout.replay`='begun'";
/// Says that the batch was done, by what the session's `wait_timeout` is anyway.
const DONE: &str = "SET @`haulout.replay`=2147483";

/// Sends batches, and waits for what they answer.
pub(super) struct Applier<'a> {
    pipeline: &'a mut Pipeline,
    source: &'a dyn LogSource,
    meter: &'a Meter<'a>,
    waiting: VecDeque<Sent>,
}

/// A batch that was sent and not answered.
struct Sent {
    marks: Vec<Mark>,
    /// Statements before those of the batch.
    before: usize,
    statements: usize,
    expected: Option<u16>,
    load: Option<SpooledTempFile>,
    bytes: u64,
}

impl<'a> Applier<'a> {
    pub(super) fn new(
        pipeline: &'a mut Pipeline,
        source: &'a dyn LogSource,
        meter: &'a Meter<'a>,
    ) -> Self {
        Self { pipeline, source, meter, waiting: VecDeque::new() }
    }

    /// Sends a batch. An error may be that of one before it.
    pub(super) fn send(&mut self, batch: Batch) -> Result<()> {
        if batch.marks.is_empty() {
            match self.waiting.back_mut() {
                Some(last) => last.bytes += batch.bytes,
                None => self.meter.add(batch.bytes),
            }
            return Ok(());
        }
        // What is done by a statement of the log, or asked for by it, is not known before it is done.
        let is_open = matches!(batch.marks.last(), Some(Mark { what: What::Statement(_), .. }));
        let front = match (self.waiting.is_empty(), is_open) {
            (true, true) => None,
            (true, false) => Some(BEGUN),
            (false, _) => Some(BEGUN_BEHIND),
        };
        let mut sql = Vec::with_capacity(batch.sql.len() + BEGUN_BEHIND.len() + DONE.len() + 2);
        if let Some(front) = front {
            sql.extend_from_slice(front.as_bytes());
            sql.push(b';');
        }
        sql.extend_from_slice(&batch.sql);
        if !is_open {
            sql.push(b';');
            sql.extend_from_slice(DONE.as_bytes());
        }
        let before = usize::from(front.is_some());
        self.pipeline.send(&sql).map_err(|error| self.lost(error, batch.marks.first()))?;
        self.waiting.push_back(Sent {
            before,
            statements: before + batch.marks.len() + usize::from(!is_open),
            marks: batch.marks,
            expected: batch.expected,
            load: batch.load,
            bytes: batch.bytes,
        });
        self.wait_for(if is_open { 0 } else { ON_THEIR_WAY })
    }

    /// Waits until no more batches than so many are on their way.
    pub(super) fn wait_for(&mut self, left: usize) -> Result<()> {
        while self.waiting.len() > left {
            let Some(sent) = self.waiting.pop_front() else { break };
            let refused = self.pipeline.answers(sent.statements, sent.load);
            let refused = refused.map_err(|error| self.lost(error, sent.marks.first()))?;
            let last = sent.marks.len().saturating_sub(1);
            match (refused, sent.expected) {
                (None, None) => {}
                (None, Some(code)) => {
                    let place = sent.marks.last().map(|mark| self.describe(mark));
                    let message = format!(
                        "{} ended with error {code} at its server, and here it did not",
                        place.unwrap_or_default()
                    );
                    return Err(Error::new(ErrorKind::Server, message).advise(
                        "the data is not what it was there; leave the transaction out with \
                         --skip-gtid",
                    ));
                }
                (Some(Refused { index, error }), expected) => {
                    let index = index.saturating_sub(sent.before);
                    if index != last || expected != Some(error.code) {
                        let mark = sent.marks.get(index).or(sent.marks.last());
                        let what = mark.map(|mark| self.describe(mark)).unwrap_or_default();
                        let message = format!("the server refused {what}");
                        return Err(Error::new(ErrorKind::Server, message)
                            .caused_by(error)
                            .advise(
                                "everything before it is applied; mend the cause and start the \
                                 replay again, or leave the transaction out with --skip-gtid",
                            ));
                    }
                }
            }
            self.meter.add(sent.bytes);
        }
        Ok(())
    }

    /// An error of the connection, with where the replay is.
    fn lost(&self, error: Error, mark: Option<&Mark>) -> Error {
        if error.kind() != ErrorKind::Server {
            return error.context("replaying");
        }
        let what = mark.map(|mark| self.describe(mark)).unwrap_or_default();
        error
            .context(format!("replaying {what}"))
            .advise("look at the server's error log: it may have been stopped or have crashed")
    }

    /// Where a statement comes from, in words.
    fn describe(&self, mark: &Mark) -> String {
        let log = self.source.logs().get(mark.place.log).map_or("", |log| &*log.name);
        let gtid = mark.gtid.map(|gtid: Gtid| format!("{gtid}, ")).unwrap_or_default();
        let at = format!("{gtid}{log} at {}", mark.place.offset);
        match &mark.what {
            What::Around(word) => format!("{word} of {at}"),
            What::Rows(tables) => format!("rows of {tables} of {at}"),
            What::Statement(text) => format!("'{text}' of {at}"),
        }
    }
}
