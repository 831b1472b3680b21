//! What a stream stores, and what it tells the server of, over events that are made up.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use super::super::canned::{Canned, repository};
use super::*;
use crate::archive::find::Query;
use crate::report::Silent;

const FILE: &str = "binlog.000001";

/// What happens next.
enum Next {
    /// An event comes, and whether the server waits for it, and whether more has come with it.
    Event(Vec<u8>, bool, bool),
    /// Nothing comes for a while.
    Pause(Duration),
}

/// A server of which all is known beforehand.
struct Server<'a> {
    repository: &'a Repository,
    next: VecDeque<Next>,
    has_more: bool,
    cancel: Cancel,
    /// What was acknowledged: the offset, what was stored of the file then, and how much was to come.
    acknowledged: Vec<(u64, u64, usize)>,
    /// What was stored at the end of each pause.
    stored: Vec<u64>,
}

impl Server<'_> {
    fn stored(&self) -> u64 {
        let archive = Archive::read(self.repository, &Cancel::new()).unwrap();
        archive.files().next().map_or(0, File::end)
    }
}

impl Feed for Server<'_> {
    fn receive(&mut self) -> Result<Came> {
        Ok(match self.next.pop_front() {
            Some(Next::Event(bytes, waits, has_more)) => {
                self.has_more = has_more;
                Came::Event(bytes, waits)
            }
            Some(Next::Pause(pause)) => {
                // What was stored by what came before it counts.
                if pause.is_zero() {
                    self.stored.push(self.stored());
                }
                self.has_more = false;
                std::thread::sleep(pause);
                Came::Nothing
            }
            None => {
                self.cancel.cancel();
                Came::Nothing
            }
        })
    }

    fn received(&self) -> u64 {
        0
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn acknowledge(&mut self, file: &str, position: u64) -> Result<()> {
        assert_eq!(file, FILE);
        self.acknowledged.push((position, self.stored(), self.next.len()));
        Ok(())
    }
}

/// What was done, what was acknowledged, and what was stored at the end of each pause.
type Streamed = (StreamSummary, Vec<(u64, u64, usize)>, Vec<u64>);

/// Streams what a server sends; the server, as it is then.
fn streamed(repository: &Repository, rpo: Duration, next: Vec<Next>) -> Streamed {
    streamed_from(repository, rpo, next, &[]).unwrap()
}

/// The same of a server that has this of others.
fn streamed_from(
    repository: &Repository,
    rpo: Duration,
    next: Vec<Next>,
    others: &[&str],
) -> Result<Streamed> {
    let body = [&FIRST_EVENT.to_le_bytes()[..], FILE.as_bytes()].concat();
    let mut rotate = Canned::new(1, 1, FILE, "");
    rotate.add(EventType::ROTATE, &body);
    let mut rotate = rotate.events.pop().unwrap();
    rotate[binlog::header::at::FLAGS] |= binlog::header::flag::ARTIFICIAL as u8;
    binlog::event::rows::stamp(&mut rotate, true);
    let mut next: VecDeque<Next> = next.into();
    next.push_front(Next::Event(rotate, false, true));
    let options = StreamOptions {
        connect: ConnectOptions::default(),
        server_id: 9,
        rpo,
        semi_sync: true,
        hold: false,
        accept_new_server: false,
        patience: None,
    };
    let cancel = Cancel::new();
    let (merge, _merged) = mpsc::channel();
    let mut summary = StreamSummary::default();
    let mut server = Server {
        repository,
        next,
        has_more: false,
        cancel: cancel.clone(),
        acknowledged: Vec::new(),
        stored: Vec::new(),
    };
    let mut stream = Stream {
        archive: Archive::read(repository, &cancel).unwrap(),
        options: &options,
        source: &mut server,
        summary: &mut summary,
        merge: &merge,
        reporter: &Silent,
        file: None,
        waiting_since: None,
        ack: None,
        heard: (Instant::now(), 0),
        held: false,
        worked: &mut false,
        others: others.iter().map(|gtid| gtid.parse().unwrap()).collect(),
    };
    stream.run(&cancel)?;
    Ok((summary, server.acknowledged, server.stored))
}

/// The events of two transactions, and where the first one ends. Of the second one the first event comes
/// with the first one; so do others if they are wanted.
fn two(together: usize) -> (Canned, Vec<Next>, u64) {
    let mut file = Canned::new(1, 1, FILE, "");
    file.begin("0-1-1");
    file.statement("INSERT INTO one VALUES (1)");
    let first = file.commit();
    file.begin("0-1-2");
    file.statement("INSERT INTO two VALUES (1)");
    file.commit();
    let events = file.events.iter().enumerate().map(|(index, bytes)| {
        let waits = index == 4 || index == 7;
        Next::Event(bytes.clone(), waits, index < 4 + together)
    });
    let events = events.collect();
    (file, events, first)
}

#[test]
fn only_what_is_stored_is_acknowledged() {
    for pause in [None, Some(Duration::from_millis(1))] {
        let (_dir, repository) = repository();
        let (file, mut events, first) = two(1);
        if let Some(pause) = pause {
            events.insert(6, Next::Pause(pause));
        }
        let (_, acknowledged, _) = streamed(&repository, Duration::from_secs(3600), events);
        assert!(acknowledged.iter().all(|(end, stored, _)| stored >= end), "{acknowledged:?}");
        // The first one as soon as there is time for it: not only when the second one has come.
        assert_eq!(acknowledged.len(), 2, "{acknowledged:?}");
        assert_eq!(acknowledged[0].0, first);
        assert!(acknowledged[0].2 >= 2, "{acknowledged:?}");
        let archive = Archive::read(&repository, &Cancel::new()).unwrap();
        let mut bytes = Vec::new();
        let stored = archive.files().next().unwrap();
        std::io::Read::read_to_end(&mut archive.open(stored, &Cancel::new()), &mut bytes).unwrap();
        assert_eq!(bytes, file.bytes());
    }
}

#[test]
fn what_commits_together_is_one_object() {
    let (_dir, repository) = repository();
    let (_, events, first) = two(3);
    let (summary, acknowledged, _) = streamed(&repository, Duration::from_secs(3600), events);
    assert_eq!((summary.objects, acknowledged.len()), (1, 1), "{acknowledged:?}");
    assert!(acknowledged[0].0 > first && acknowledged[0].1 == acknowledged[0].0);
}

#[test]
fn what_was_committed_does_not_wait_for_what_still_comes() {
    let (_dir, repository) = repository();
    let (_, mut events, first) = two(1);
    for event in &mut events {
        let Next::Event(_, waits, _) = event else { unreachable!() };
        *waits = false;
    }
    events.insert(6, Next::Pause(Duration::from_millis(60)));
    events.insert(7, Next::Pause(Duration::ZERO));
    let (summary, _, stored) = streamed(&repository, Duration::from_millis(50), events);
    assert_eq!(stored, [first]);
    assert_eq!(summary.transactions, 2);
    // The table of each is known by its own name, although the index was taken in between.
    for table in ["one", "two"] {
        let query = Query::new(&[format!("d.{table}")]).unwrap();
        let mut found = 0;
        let archive = Archive::read(&repository, &Cancel::new()).unwrap();
        let mut tell = |_| {
            found += 1;
            Ok(())
        };
        archive.find(&query, &Cancel::new(), &mut tell).unwrap();
        assert_eq!(found, 1, "{table}");
    }
}

#[test]
fn what_was_committed_is_stored_before_a_long_transaction() {
    let (_dir, repository) = repository();
    let mut file = Canned::new(1, 1, FILE, "");
    file.begin("0-1-1");
    file.statement("INSERT INTO one VALUES (1)");
    let first = file.commit();
    file.begin("0-1-2");
    for _ in 0..3 {
        file.statement(&format!("INSERT INTO two VALUES ('{}')", "x".repeat(600 << 10)));
    }
    let last = file.commit();
    // There is always more, so that nothing is stored because there is time for it.
    let mut events: Vec<Next> = (0..)
        .zip(&file.events)
        .map(|(index, bytes)| Next::Event(bytes.clone(), index == 4 || index == 9, index < 9))
        .collect();
    events.insert(8, Next::Pause(Duration::ZERO));
    let (summary, acknowledged, stored) = streamed(&repository, Duration::from_secs(3600), events);
    assert_eq!(stored, [first]);
    let told: Vec<_> = acknowledged.iter().map(|(end, stored, _)| (*end, *stored)).collect();
    assert_eq!(told, [(first, first), (last, last)]);
    assert_eq!((summary.transactions, summary.objects), (2, 2));
}

/// The first file of a server that was made from a backup has an empty list: what it says that it has of
/// others, and what it repeats of them, tells whether it belongs to the archive.
#[test]
fn a_server_made_from_a_backup_is_known_by_what_it_has_of_others() {
    let transactions = |server, time, gtids: &[&str]| {
        let file = Canned::new(server, time, FILE, "").transactions(gtids);
        file.events.into_iter().map(|bytes| Next::Event(bytes, false, false)).collect::<Vec<_>>()
    };
    let tried = |server, time, gtids: &[&str], others: &[&str]| {
        let (dir, repository) = repository();
        Canned::new(1, 100, FILE, "")
            .transactions(&["0-1-1", "0-1-2", "0-1-3"])
            .store(&repository, None);
        let next = transactions(server, time, gtids);
        let done = streamed_from(&repository, Duration::ZERO, next, others);
        let archive = Archive::read(&repository, &Cancel::new()).unwrap();
        let logs = archive.logs.len();
        drop(dir);
        (done.map(|(summary, ..)| summary.transactions), logs)
    };
    // It repeats some, which are stored as after other failovers, and goes on.
    let goes_on = ["0-1-2", "0-1-3", "0-2-4"];
    for others in [&["0-1-3"][..], &["0-1-1"], &["7-8-9", "0-1-3"]] {
        let (done, logs) = tried(2, 100, &goes_on, others);
        assert_eq!((done.unwrap(), logs), (3, 2), "{others:?}");
    }
    // It is further than the archive, which the first server's end left behind.
    assert_eq!(tried(2, 100, &["0-1-5", "0-2-6"], &["0-1-5"]).0.unwrap(), 2);
    let refused = |server, time, gtids: &[&str], others: &[&str], words: &str| {
        let (done, logs) = tried(server, time, gtids, others);
        let error = done.unwrap_err();
        assert_eq!((error.kind(), logs), (ErrorKind::Usage, 1), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    // It has nothing of others; or nothing of these.
    refused(2, 100, &["0-2-1"], &[], "nothing in common");
    refused(2, 100, &["0-2-1"], &["0-7-3", "1-1-3"], "nothing in common");
    // The same server once more, whatever it had of others.
    refused(1, 500, &["0-1-1"], &["0-1-3"], "was reset");
    // What it has under the same GTIDs is something else: a group with the same numbers.
    refused(2, 500, &goes_on, &["0-1-3"], "another transaction 0-1-2");
}
