//! Many statements in one request, and several requests on their way.
//!
//! The server runs the statements of a request one after another and answers each; after the first that
//! fails it runs none of the rest. Requests that come while it is busy wait in the connection, so that it
//! need not wait for the next one. How many answers a request has is counted here: not every answer says
//! truly whether another one follows.

use std::io::Read;

use tempfile::SpooledTempFile;

use super::connect::ConnectOptions;
use super::failure::{ServerError, connect_error};
use super::session::FIRST_STATEMENT;
use super::text_result::{first_column, flags};
use super::wire::{PACKET_FULL, Wire, answer, capability, command, refusal, refused};
use crate::{Cancel, Error, ErrorKind, Result};

/// Bytes of a file that are sent at once.
const CHUNK: usize = 64 << 10;
/// What such a connection can do.
const CAPABILITIES: u32 = capability::BASE
    | capability::MULTI_STATEMENTS
    | capability::MULTI_RESULTS
    | capability::LOCAL_FILES;
/// The flag of an answer that says that the statement has another result.
const MORE_RESULTS: u16 = 8;

/// A statement that the server refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Which one of its request, from 0.
    pub index: usize,
    /// Why.
    pub error: ServerError,
}

/// A connection for scripts.
pub(crate) struct Pipeline {
    wire: Wire,
    id: u64,
}

/// What came of a statement.
enum Outcome {
    /// Flags, and the first row if there was one.
    Done(u16, Option<Vec<u8>>),
    Refused(ServerError),
}

impl Pipeline {
    /// Connects and logs in.
    pub(crate) fn connect(options: &ConnectOptions, cancel: &Cancel) -> Result<Self> {
        let wire = Wire::connect(options, CAPABILITIES, cancel)
            .map_err(|failure| connect_error(failure, options, &options.endpoint()))?;
        let mut pipeline = Self { wire, id: 0 };
        pipeline.value(FIRST_STATEMENT)?;
        let id = pipeline.value("SELECT CONNECTION_ID()")?;
        pipeline.id = id.and_then(|id| id.parse().ok()).unwrap_or(0);
        Ok(pipeline)
    }

    /// The server's number of this connection.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Runs one statement; the first column of its first row, if it has one and that is not NULL.
    pub(crate) fn value(&mut self, statement: &str) -> Result<Option<String>> {
        self.send(statement.as_bytes())?;
        match self.outcome(&mut None)? {
            Outcome::Done(_, row) => Ok(row.as_deref().and_then(first_column)),
            Outcome::Refused(error) => {
                let message = format!("the server refused '{statement}'");
                Err(Error::new(ErrorKind::Server, message).caused_by(error))
            }
        }
    }

    /// Sends statements that are separated by semicolons, without waiting for what they answer.
    pub(crate) fn send(&mut self, script: &[u8]) -> Result<()> {
        Ok(self.wire.request(command::QUERY, script)?)
    }

    /// Waits for the answers to the oldest request that has none yet, which has so many statements.
    /// `load` is the content of the local file that one of them asks for.
    pub(crate) fn answers(
        &mut self,
        statements: usize,
        mut load: Option<SpooledTempFile>,
    ) -> Result<Option<Refused>> {
        for index in 0..statements {
            loop {
                match self.outcome(&mut load)? {
                    Outcome::Refused(error) => return Ok(Some(Refused { index, error })),
                    // Only the last statement can be one with several results.
                    Outcome::Done(flags, _)
                        if flags & MORE_RESULTS != 0 && index + 1 == statements => {}
                    Outcome::Done(..) => break,
                }
            }
        }
        Ok(None)
    }

    /// Waits for one result.
    fn outcome(&mut self, load: &mut Option<SpooledTempFile>) -> Result<Outcome> {
        loop {
            let packet = self.wire.awaited()?;
            return match packet.split_first() {
                Some((&answer::OK, rest)) => Ok(Outcome::Done(flags(rest), None)),
                Some((&answer::LOCAL_FILE, _)) => {
                    self.send_file(load.take())?;
                    continue;
                }
                Some((&answer::ERROR, _)) => {
                    Ok(Outcome::Refused(refusal(&packet).ok_or_else(|| refused(&packet))?))
                }
                Some(_) => self.rows(),
                None => Err(refused(&packet).into()),
            };
        }
    }

    /// Waits for the columns and rows of a result.
    fn rows(&mut self) -> Result<Outcome> {
        let mut first = None;
        let mut ends = 0;
        let mut goes_on = false;
        loop {
            let packet = self.wire.awaited()?;
            let is_part = std::mem::replace(&mut goes_on, packet.len() == PACKET_FULL);
            match packet.split_first() {
                _ if is_part => {}
                Some((&answer::END, [_, _, flags @ ..])) if packet.len() < 9 => {
                    ends += 1;
                    if ends == 2 {
                        let flags =
                            flags.first_chunk().map_or(0, |flags| u16::from_le_bytes(*flags));
                        return Ok(Outcome::Done(flags, first));
                    }
                }
                Some((&answer::ERROR, _)) => {
                    return Ok(Outcome::Refused(refusal(&packet).ok_or_else(|| refused(&packet))?));
                }
                _ if ends == 1 && first.is_none() => first = Some(packet),
                _ => {}
            }
        }
    }

    /// Sends the file that a statement asks for.
    fn send_file(&mut self, file: Option<SpooledTempFile>) -> Result<()> {
        let unreadable = |cause| {
            Error::new(ErrorKind::Failed, "cannot read a file of LOAD DATA").caused_by(cause)
        };
        if let Some(mut file) = file {
            let mut chunk = vec![0; CHUNK];
            loop {
                let length = file.read(&mut chunk).map_err(unreadable)?;
                match chunk.get(..length) {
                    Some(read) if !read.is_empty() => self.wire.send(read)?,
                    _ => break,
                }
            }
        }
        Ok(self.wire.send(&[])?)
    }
}
