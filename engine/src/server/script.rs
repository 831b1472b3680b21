//! Many statements in one request.
//!
//! The server runs them one after another and answers each; after the first that fails it runs none of
//! the rest. So nothing has to be waited for between them.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error as ClientError};
use tempfile::SpooledTempFile;

use super::connect::ConnectOptions;
use super::failure::Failure;
use super::session::{Session, Wait, unless_interrupted};
use crate::{Cancel, Result};

/// Bytes of a file that are sent at once.
const CHUNK: usize = 64 << 10;

/// Which statement of a script failed, by its number from 0, and why.
pub(crate) type ScriptFailure = (usize, Failure);

impl From<Failure> for ScriptFailure {
    fn from(failure: Failure) -> Self {
        (0, failure)
    }
}

impl Session {
    /// Connects for scripts of up to so many bytes.
    pub(crate) fn connect_for_scripts(
        options: &ConnectOptions,
        length_max: usize,
        cancel: &Cancel,
    ) -> Result<Self> {
        Self::connect_taking(options, length_max, cancel)
    }

    /// Runs statements that are separated by semicolons; what they answer is of no interest. `load` is
    /// the content of the local file that one of them asks for.
    pub(crate) fn run_script(
        &mut self,
        script: Vec<u8>,
        load: Option<SpooledTempFile>,
        wait: Wait<'_>,
    ) -> Result<(), ScriptFailure> {
        if self.cancel.is_cancelled() {
            self.conn = None;
            return Err(Failure::Cancelled.into());
        }
        let conn = self.conn.as_mut().ok_or(Failure::Closed)?;
        if let Some(file) = load {
            conn.set_infile_handler(async move {
                Ok(Box::pin(Content(file)) as Pin<Box<dyn Stream<Item = _> + Send>>)
            });
        }
        let outcome = self.runtime.block_on(unless_interrupted(
            &self.cancel,
            wait.deadline,
            run(conn, script),
        ));
        outcome.map_err(|(index, failure)| (index, self.gave_up(failure)))
    }
}

async fn run(conn: &mut Conn, script: Vec<u8>) -> Result<(), ScriptFailure> {
    let mut index = 0;
    let failed = |index, error: ClientError| (index, Failure::from(error));
    let mut result = conn.query_iter(script).await.map_err(|error| failed(0, error))?;
    while !result.is_empty() {
        // Behind the rows of one statement comes the answer to the next.
        while result.next().await.map_err(|error| failed(index + 1, error))?.is_some() {}
        index += 1;
    }
    // An error that ended the answers is kept for whoever asks.
    result.next().await.map(drop).map_err(|error| failed(index, error))
}

/// A file as the client library takes it.
struct Content(SpooledTempFile);

impl Stream for Content {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut chunk = vec![0; CHUNK];
        Poll::Ready(match self.0.read(&mut chunk) {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some(Ok(chunk.into()))
            }
            Err(error) => Some(Err(error)),
        })
    }
}
