//! Writing the pages of a tablespace that are newer than a delta's limit.
//!
//! Units of a file come from several threads and are appended in the order of their offsets. The
//! header of a cluster is known only when the cluster is complete, but stands before its pages. A
//! sink that takes pieces in any order gets the pages at once and the header afterwards; for one
//! that does not, the pages of a cluster wait in a spool: in memory, and beyond that on disk.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use innodb::{Lsn, PageSize, page};

use super::job::Role;
use super::run::Run;
use crate::delta::format::{cluster_offset, header, pages_max};
use crate::io::spool::Spool;
use crate::sink::SinkFile;
use crate::{Error, ErrorKind, Result};

/// Pages of a file that wait in memory for the header before them.
const SPOOL_MEMORY: usize = 4 << 20;
/// How often a waiting thread looks whether the backup was given up.
const WAIT: Duration = Duration::from_millis(100);

/// What goes into a delta.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Pages newer than this.
    pub since: Lsn,
    /// Where pages wait that are too many for memory.
    pub spool_dir: PathBuf,
}

impl Limit {
    /// Whether a page is to be in the delta. LSN 0 on a page that is not empty says nothing of its
    /// age: IMPORT TABLESPACE gives it to all pages of the table, whose tablespace keeps its id, and
    /// servers up to 10.5 to the first page of a table that was just made, past the redo log.
    pub fn wants(&self, page: &[u8], role: Role) -> bool {
        match page::lsn(page) {
            Some(Lsn(0)) => role == Role::Table && !page::is_zero(page),
            lsn => lsn > Some(self.since),
        }
    }
}

/// Where the pages of a file go.
pub enum Output {
    /// All of them.
    Whole(Box<dyn SinkFile>),
    /// Those that changed.
    Changed(ChangedPages),
}

impl Output {
    /// The file is complete.
    pub fn finish(&self) -> Result<()> {
        match self {
            Self::Whole(target) => target.finish(),
            Self::Changed(target) => target.finish(),
        }
    }
}

/// A `.delta` file being written.
pub struct ChangedPages {
    target: Box<dyn SinkFile>,
    page_size: PageSize,
    sparse: bool,
    /// For a sink that takes pieces in their order only.
    spool_dir: Option<PathBuf>,
    state: Mutex<State>,
    advanced: Condvar,
}

#[derive(Default)]
struct State {
    /// Offset in the source of the unit whose turn it is.
    next: u64,
    /// Number of the cluster that is being filled.
    cluster: u64,
    /// Its pages.
    pages: Vec<u32>,
    /// Those pages, where they have to wait.
    held: Option<Spool>,
}

impl ChangedPages {
    /// Writes to `target`, whose sink takes pieces in any order or not. `sparse` pages have zeros
    /// that need not be written.
    pub fn new(
        target: Box<dyn SinkFile>,
        page_size: PageSize,
        sparse: bool,
        any_order: bool,
        limit: &Limit,
    ) -> Self {
        Self {
            target,
            page_size,
            sparse,
            spool_dir: (!any_order).then(|| limit.spool_dir.clone()),
            state: Mutex::default(),
            advanced: Condvar::new(),
        }
    }

    /// Appends the pages that `changed` numbers, which lie one behind the other in `images`, of a
    /// unit of `length` bytes at `offset`. Waits until all units before it were appended: those are
    /// in work already, because units are taken in their order.
    pub fn append(
        &self,
        run: &Run<'_>,
        (offset, length): (u64, u64),
        changed: &[u32],
        images: &[u8],
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.next != offset {
            run.check()?;
            let waited = self.advanced.wait_timeout(state, WAIT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let (mut changed, mut images) = (changed, images);
        while !changed.is_empty() {
            if state.pages.len() == pages_max(self.page_size) {
                self.end_cluster(&mut state, false)?;
            }
            let room = pages_max(self.page_size) - state.pages.len();
            let (numbers, later) = changed.split_at(room.min(changed.len()));
            let (bytes, behind) = images.split_at(numbers.len() * self.page_size.bytes());
            self.put(&mut state, bytes)?;
            state.pages.extend(numbers);
            (changed, images) = (later, behind);
        }
        state.next = offset + length;
        drop(state);
        self.advanced.notify_all();
        Ok(())
    }

    /// All units were appended.
    pub fn finish(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_cluster(&mut state, true)?;
        self.target.finish()
    }

    fn put(&self, state: &mut State, bytes: &[u8]) -> Result<()> {
        let Some(dir) = &self.spool_dir else {
            return self.write(self.place(state), bytes);
        };
        let held = state.held.get_or_insert_with(|| Spool::new(SPOOL_MEMORY, dir.clone()));
        held.push(bytes).map_err(cannot_spool)
    }

    /// Where the next page goes.
    fn place(&self, state: &State) -> u64 {
        let before = (1 + state.pages.len()) * self.page_size.bytes();
        cluster_offset(self.page_size, state.cluster) + before as u64
    }

    fn end_cluster(&self, state: &mut State, last: bool) -> Result<()> {
        let mut at = cluster_offset(self.page_size, state.cluster);
        self.target.write(at, &header(self.page_size, &state.pages, last))?;
        at += self.page_size.bytes() as u64;
        if let Some(held) = state.held.take() {
            held.close();
            while let Some(bytes) = held.pop().map_err(cannot_spool)? {
                self.write(at, &bytes)?;
                at += bytes.len() as u64;
            }
        }
        state.cluster += 1;
        state.pages.clear();
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        match self.sparse {
            true => self.target.write_sparse(at, bytes),
            false => self.target.write(at, bytes),
        }
    }
}

fn cannot_spool(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "cannot hold back changed pages").caused_by(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Cancel;
    use crate::delta::format::Cluster;
    use crate::report::Silent;
    use crate::sink::{FolderSink, Mode, Sink, StreamSink, backup_path};
    use std::sync::Arc;

    /// Writes page numbers `0, 3, 6 …` of `units` units, in any order of threads.
    fn write(sink: &dyn Sink, units: u32, pages: u32, page_size: PageSize, any_order: bool) {
        let cancel = Cancel::new();
        let run = Run::new(&cancel, &Silent, sink, None);
        let target = sink.begin(&backup_path("t.ibd.delta").unwrap(), Mode::Create).unwrap();
        let limit = Limit { since: Lsn(1), spool_dir: std::env::temp_dir() };
        let file = ChangedPages::new(target, page_size, false, any_order, &limit);
        let length = u64::from(pages) * page_size.bytes() as u64;
        std::thread::scope(|scope| {
            for first in 0..2 {
                let (run, file) = (&run, &file);
                scope.spawn(move || {
                    for unit in (first..units).step_by(2) {
                        let changed: Vec<u32> = (unit * pages..(unit + 1) * pages)
                            .filter(|page| page % 3 == 0)
                            .collect();
                        let image = |page: &u32| vec![*page as u8; page_size.bytes()];
                        let images: Vec<u8> = changed.iter().flat_map(image).collect();
                        let place = (u64::from(unit) * length, length);
                        file.append(run, place, &changed, &images).unwrap();
                    }
                });
            }
        });
        file.finish().unwrap();
    }

    fn check(bytes: &[u8], total: u32, page_size: PageSize) {
        let (mut number, mut after, mut found) = (0, None, Vec::new());
        loop {
            let at = cluster_offset(page_size, number) as usize;
            let cluster =
                Cluster::parse(&bytes[at..at + page_size.bytes()], number, after).unwrap();
            for (index, page) in cluster.pages.iter().enumerate() {
                let image = &bytes[at + (index + 1) * page_size.bytes()..][..page_size.bytes()];
                assert!(image.iter().all(|byte| *byte == *page as u8), "page {page}");
            }
            found.extend(&cluster.pages);
            after = found.last().copied();
            number += 1;
            if cluster.last {
                let end = at + (1 + cluster.pages.len()) * page_size.bytes();
                assert_eq!(bytes.len(), end);
                break;
            }
        }
        let expected: Vec<u32> = (0..total).filter(|page| page % 3 == 0).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_folder_and_a_stream_get_the_same_bytes() {
        let page_size = PageSize::new(1024).unwrap();
        for (units, pages) in [(1, 1), (3, 255), (9, 400)] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("b");
            write(&FolderSink::create(&root).unwrap(), units, pages, page_size, true);
            let in_folder = std::fs::read(root.join("t.ibd.delta")).unwrap();
            check(&in_folder, units * pages, page_size);

            let stream = dir.path().join("stream");
            let output = Box::new(std::fs::File::create(&stream).unwrap());
            write(&*Arc::new(StreamSink::new(output)), units, pages, page_size, false);
            let options = crate::extract::ExtractOptions { dir: dir.path().join("x"), parallel: 1 };
            let input = Box::new(std::fs::File::open(&stream).unwrap());
            crate::extract::extract(input, options, &Cancel::new(), &Silent).unwrap();
            assert!(std::fs::read(dir.path().join("x/t.ibd.delta")).unwrap() == in_folder);
        }
    }
}
