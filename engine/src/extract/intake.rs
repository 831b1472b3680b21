//! The stream's side of an extraction: turns chunks into jobs.
//!
//! One thread at a time is here. Everything that needs order is decided here: the rules between
//! chunks, which file a piece belongs to, when a rename may happen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xbstream::state::Renamed;
use xbstream::{Chunk, Fault, Opening, RemoveTarget, StreamPath, StreamState};

use super::Arrivals;
use super::feed::{Feed, Part};
use super::output::Output;
use super::target::{self, Target};
use crate::{Event, Phase, Reporter, Result};

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// What a thread is to do.
pub enum Work {
    /// To be done after letting go of the stream, beside other jobs.
    Beside(Job),
    /// To be done while holding the stream, when all other jobs are done.
    Alone(Change),
}

/// A part of a file.
pub enum Job {
    /// Write these bytes, by way of the buffer.
    Write { output: Arc<Output>, offset: u64, part: Part },
    /// Complete the file; its length is `set_len` where the writes alone do not make it so.
    Finish { output: Arc<Output>, set_len: Option<u64> },
}

impl Job {
    /// Does it.
    pub fn carry_out(
        self,
        target: &Target,
        arrivals: &dyn Arrivals,
        buffer: &mut [u8],
    ) -> Result<()> {
        match self {
            Self::Write { output, offset, part } => {
                let bytes = part.fetch(buffer);
                if let Some(number) = output.number() {
                    arrivals.part(number, offset, bytes)?;
                }
                output.write(target, offset, bytes)
            }
            Self::Finish { output, set_len } => output.finish(target, set_len),
        }
    }
}

/// A change of names, already checked against the rules between chunks.
pub enum Change {
    /// Move a file; `replace` if the stream has made one of the new name.
    Rename { from: StreamPath, to: StreamPath, replace: bool },
    /// Delete files, and the folder that was named if that is what they were in.
    Remove { named: RemoveTarget, files: Vec<StreamPath> },
    /// Delete a file that the stream sends anew.
    Replace { path: StreamPath },
    /// Nothing, but what was sent is written before what follows replaces parts of it.
    Settle,
}

impl Change {
    /// Makes it.
    pub fn carry_out(&self, target: &Target, arrivals: &dyn Arrivals) -> Result<()> {
        match self {
            Self::Rename { from, to, replace } => {
                // What is known by the path it came under is not followed any further.
                [from, to].into_iter().for_each(|path| arrivals.gone(path));
                target.rename(from, to, *replace)
            }
            Self::Settle => Ok(()),
            Self::Replace { path } => {
                arrivals.gone(path);
                target.remove_file(path)
            }
            Self::Remove { named, files } => {
                files.iter().for_each(|path| arrivals.gone(path));
                files.iter().try_for_each(|path| target.remove_file(path))?;
                target.remove_folders(named, files)
            }
        }
    }
}

/// An open file of the stream.
struct OpenFile {
    output: Arc<Output>,
    /// A seek may have left a gap behind the last payload.
    seeked: bool,
    /// End of the payloads.
    end: u64,
}

/// The payload that is being read.
struct Payload {
    output: Arc<Output>,
    offset: u64,
    left: u64,
}

/// The stream and how far it was read.
pub struct Intake<'a> {
    feed: Box<dyn Feed + 'a>,
    state: StreamState,
    open: HashMap<StreamPath, OpenFile>,
    payload: Option<Payload>,
    /// A job that could not be handed out together with the one before.
    queued: Option<Work>,
    ended: bool,
    /// Whether files that exist are updated.
    updates: bool,
    bytes: u64,
    arrivals: &'a dyn Arrivals,
    reporter: &'a dyn Reporter,
    told: Instant,
}

impl<'a> Intake<'a> {
    /// At the beginning of a stream.
    pub fn new(
        feed: Box<dyn Feed + 'a>,
        updates: bool,
        arrivals: &'a dyn Arrivals,
        reporter: &'a dyn Reporter,
    ) -> Self {
        Self {
            feed,
            state: StreamState::new(),
            open: HashMap::new(),
            payload: None,
            queued: None,
            ended: false,
            updates,
            bytes: 0,
            arrivals,
            reporter,
            told: Instant::now(),
        }
    }

    /// The next job, `None` at the end of the stream. It is to be done with the same buffer. Behind an
    /// error there is nothing: what else could be found there would only follow from it.
    pub fn next(&mut self, worker: usize, buffer: &mut [u8]) -> Result<Option<Work>> {
        self.tell_progress();
        let work = self.next_work(worker, buffer);
        if work.is_err() {
            (self.ended, self.queued) = (true, None);
        }
        work
    }

    fn next_work(&mut self, worker: usize, buffer: &mut [u8]) -> Result<Option<Work>> {
        if let Some(work) = self.queued.take() {
            return Ok(Some(work));
        }
        while !self.ended {
            if let Some(work) = self.next_piece(buffer)? {
                return Ok(Some(work));
            }
            let Some(chunk) = self.feed.next_chunk()? else {
                self.ended = true;
                break;
            };
            if let Some(work) = self.take(chunk, worker)? {
                return Ok(Some(work));
            }
        }
        Ok(None)
    }

    /// At the end of the stream, with all jobs done: checks that it was complete and shows the
    /// files that were held back. Returns how many files and payload bytes there were.
    pub fn finish(self, target: &Target) -> Result<(u64, u64)> {
        self.state.finish().map_err(|fault| self.feed.error(fault))?;
        for name in target::HELD_BACK.iter().filter(|name| self.state.contains(name)) {
            target.show(name)?;
        }
        self.tell();
        Ok((self.state.files() as u64, self.bytes))
    }

    /// The next piece of the current payload.
    fn next_piece(&mut self, buffer: &mut [u8]) -> Result<Option<Work>> {
        let Some(payload) = &mut self.payload else { return Ok(None) };
        let mut part = self.feed.next_part(buffer)?;
        let len = part.len();
        let output = Arc::clone(&payload.output);
        let offset = payload.offset;
        if offset == 0 {
            output.inspect(part.fetch(buffer), self.arrivals);
            part = Part::Here(len);
        }
        payload.offset += len as u64;
        payload.left = payload.left.saturating_sub(len as u64);
        if payload.left == 0 || len == 0 {
            self.payload = None;
        }
        self.bytes += len as u64;
        Ok(Some(Work::Beside(Job::Write { output, offset, part })))
    }

    /// Decides what a chunk means. `None`: nothing to do but to go on.
    fn take(&mut self, chunk: Chunk, worker: usize) -> Result<Option<Work>> {
        self.take_checked(chunk, worker).map_err(|fault| self.feed.error(fault))
    }

    fn take_checked(&mut self, chunk: Chunk, worker: usize) -> Result<Option<Work>, Fault> {
        match chunk {
            Chunk::Payload { path, offset, len, rewrite, .. } => {
                let opening = self.state.payload(&path, offset, len, rewrite)?;
                let file = self.open_file(&path, worker);
                file.end = file.end.max(offset + len);
                let output = Arc::clone(&file.output);
                self.payload = (len > 0).then_some(Payload { output, offset, left: len });
                Ok(make_way(opening, path))
            }
            Chunk::Seek { path, offset, rewrite } => {
                let (opening, back) = self.state.seek(&path, offset, rewrite)?;
                let updates = self.updates;
                let file = self.open_file(&path, worker);
                file.seeked = true;
                // A gap reads as zeros, and what is there may not be.
                if updates && offset > file.end {
                    return Err(Fault::Range { offset, len: 0 });
                }
                let settle = back.then_some(Work::Alone(Change::Settle));
                Ok(make_way(opening, path).or(settle))
            }
            Chunk::End { path, rewrite } => {
                let (opening, len) = self.state.end(&path, rewrite)?;
                let OpenFile { output, seeked, .. } = match self.open.remove(&path) {
                    Some(file) => file,
                    None => OpenFile::new(&path, worker, self.reporter),
                };
                let set_len = (seeked || self.updates || output.is_sparse()).then_some(len);
                let finish = Work::Beside(Job::Finish { output, set_len });
                match make_way(opening, path) {
                    None => Ok(Some(finish)),
                    first => {
                        self.queued = Some(finish);
                        Ok(first)
                    }
                }
            }
            Chunk::Rename { from, to } => {
                let replace = match self.state.rename(&from, &to)? {
                    Renamed::Nothing => return Ok(None),
                    Renamed::Moved => false,
                    Renamed::Replaced => true,
                };
                Ok(Some(Work::Alone(Change::Rename { from, to, replace })))
            }
            Chunk::Remove { target } => {
                let files = self.state.remove(&target)?;
                let change = Change::Remove { named: target, files };
                Ok(Some(Work::Alone(change)))
            }
            Chunk::Ignorable { letter, path, len } => {
                self.reporter.warn(format!(
                    "skipped a chunk of unknown type {:?} with {len} bytes for {path}: it is \
                     marked as ignorable",
                    char::from(letter)
                ));
                Ok(None)
            }
        }
    }

    fn open_file(&mut self, path: &StreamPath, worker: usize) -> &mut OpenFile {
        let reporter = self.reporter;
        self.open.entry(path.clone()).or_insert_with(|| OpenFile::new(path, worker, reporter))
    }

    fn tell_progress(&mut self) {
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            self.told = Instant::now();
            self.tell();
        }
    }

    fn tell(&self) {
        let phase = Phase::Extract;
        self.reporter.event(&Event::Progress { phase, done: self.bytes, total: None });
    }
}

impl OpenFile {
    fn new(path: &StreamPath, worker: usize, reporter: &dyn Reporter) -> Self {
        reporter.event(&Event::File { worker, verb: "Extracting", path: path.to_string() });
        Self { output: Arc::new(Output::new(path.clone())), seeked: false, end: 0 }
    }
}

/// A file that the stream sends anew must go before anything of the new one is written.
fn make_way(opening: Opening, path: StreamPath) -> Option<Work> {
    (opening == Opening::Replace).then_some(Work::Alone(Change::Replace { path }))
}
