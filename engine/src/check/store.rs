//! Whether the store does what a repository asks of it: tried with an object of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Finding;
use crate::metadata::haulout_info::ServerIdentity;
use crate::repo::Repository;
use crate::repo::catalog::Selection;
use crate::repo::seal;
use crate::store::{Body, Key, Put, PutOptions, Store};
use crate::{Cancel, Error, ErrorKind, Result};

/// Below this are the objects that are tried with.
const PROBES: &str = "probe/";
/// Clocks may differ by so much.
const SKEW: Duration = Duration::from_secs(60);
/// The object's content: long enough for a range in the middle.
const LEN: usize = 64 << 10;

/// Looks at a store, and at the repository in it.
pub fn check_repository(
    store: &Arc<dyn Store>,
    opened: &Result<Repository>,
    folder: Option<&Path>,
    cancel: &Cancel,
) -> Vec<Finding> {
    let mut findings = try_store(store, cancel);
    let repository = match opened {
        Ok(repository) => repository,
        Err(error) => {
            findings.push(Finding::bad("repository", error));
            return findings;
        }
    };
    let about = match repository.config.sealed {
        true => "it is sealed",
        false => "it is not sealed: who can read the store can read the data",
    };
    findings.push(Finding::good("repository", about));
    findings.push(match repository.master() {
        Ok(Some(_)) => Finding::good("key", "it opens the repository"),
        Ok(None) => Finding::good("key", "none is needed"),
        Err(error) => Finding::bad("key", &error),
    });
    let last = match repository.select(&Selection::Latest, cancel) {
        Ok(last) => Some(last),
        Err(error) if error.kind() == ErrorKind::NothingMatches => None,
        Err(error) => {
            findings.push(Finding::bad("latest backup", &error));
            return findings;
        }
    };
    findings.push(match &last {
        Some(last) => Finding::good("latest backup", format!("{} of {}", last.name, last.origin())),
        None => Finding::note("latest backup", "there is none", "take one"),
    });
    findings.extend(super::logs::check_logs(repository, last.as_ref(), cancel));
    let needed = last.map_or(0, |last| last.stored());
    findings.extend(folder.map(|folder| space(folder, needed)));
    findings
}

/// Whether backups of this server belong into the repository.
pub fn check_server_of(
    repository: &Repository,
    server: &ServerIdentity,
    cancel: &Cancel,
) -> Finding {
    const WHAT: &str = "server of the repository";
    match repository.admit(server, false, cancel, None) {
        Ok(1) => Finding::good(WHAT, "it is empty"),
        Ok(_) => Finding::good(WHAT, "this one"),
        Err(error) => Finding::bad(WHAT, &error),
    }
}

/// One step after the other, up to the first that nothing can follow.
fn try_store(store: &Arc<dyn Store>, cancel: &Cancel) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = steps(store, &mut findings, cancel) {
        findings.push(Finding::bad("store", &error));
    }
    findings
}

fn steps(store: &Arc<dyn Store>, findings: &mut Vec<Finding>, cancel: &Cancel) -> Result<()> {
    let mut unique = [0; 8];
    seal::random(&mut unique)?;
    let key = Key::new(&format!("{PROBES}{}", seal::hex(&unique)))?;
    let content: Vec<u8> = seal::hex(&unique).bytes().cycle().take(LEN).collect();
    let only_if_absent = PutOptions { only_if_absent: true, ..PutOptions::default() };
    let wrong = |what: &str| Error::new(ErrorKind::Store, format!("{}: {what}", store.describe()));

    let put = store.put(&key, content.clone().into(), &only_if_absent, cancel)?;
    let before = SystemTime::now();
    findings.push(match put {
        Put::Stored => Finding::good("put", store.describe()),
        Put::AlreadyThere => return Err(wrong("it says that an object of a new name is there")),
    });
    let tried = try_object(store, &key, &content, before, findings, cancel);
    // Also when something before went wrong: nothing is to stay.
    findings.push(match store.delete(std::slice::from_ref(&key), cancel) {
        Ok(()) => Finding::good("delete", "works"),
        Err(error) => Finding::note(
            "delete",
            format!("{error}; {key} stays"),
            "a host that only takes backups needs no right to delete; expire, unkeep and key remove do",
        ),
    });
    tried
}

/// With an object that was just put.
fn try_object(
    store: &Arc<dyn Store>,
    key: &Key,
    content: &[u8],
    before: SystemTime,
    findings: &mut Vec<Finding>,
    cancel: &Cancel,
) -> Result<()> {
    let wrong = |what: &str| Error::new(ErrorKind::Store, format!("{}: {what}", store.describe()));
    let only_if_absent = PutOptions { only_if_absent: true, ..PutOptions::default() };
    let again = store.put(key, Body::from(b"other".to_vec()), &only_if_absent, cancel);
    findings.push(match (again, store.guards(cancel)) {
        (Ok(Put::AlreadyThere), Ok(true)) => Finding::good("conditional put", "works"),
        (Ok(Put::AlreadyThere), Ok(false)) => Finding::note(
            "conditional put",
            "the store does not tell writers at the same time apart",
            "do not let two hosts write to the repository at once",
        ),
        (Ok(Put::Stored), _) => {
            return Err(wrong("it replaced an object that was to be put only if absent"));
        }
        (Err(error), _) | (_, Err(error)) => Finding::bad("conditional put", &error),
    });
    let len = content.len() as u64;
    let whole = store.get(key, None, len, cancel)?;
    let range = store.get(key, Some(1000..3000), 2000, cancel)?;
    findings.push(match whole[..] == *content && Some(&range[..]) == content.get(1000..3000) {
        true => Finding::good("get", "whole objects and ranges"),
        false => return Err(wrong("what it gives back is not what was put")),
    });
    let listed = store.list(PROBES, cancel)?;
    findings.push(match listed.iter().any(|object| object.key == *key && object.len == len) {
        true => Finding::good("list", "works"),
        false => return Err(wrong("it does not list an object that was just put")),
    });
    let object = store.head(key, cancel)?.ok_or_else(|| wrong("it lost an object"))?;
    let skew = match object.modified.duration_since(before) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    findings.push(match skew <= SKEW {
        true => {
            Finding::good("clock", format!("that of the store differs by {} s", skew.as_secs()))
        }
        false => Finding::note(
            "clock",
            format!("that of the store differs by {} s", skew.as_secs()),
            "set this machine's clock: expire and @TIME go by it, and S3 refuses 15 minutes",
        ),
    });
    Ok(())
}

/// Whether another backup of this size has room.
fn space(folder: &Path, needed: u64) -> Finding {
    const WHAT: &str = "space";
    let room = match rustix::fs::statvfs(folder) {
        Ok(room) => room.f_bavail.saturating_mul(room.f_frsize),
        Err(error) => return Finding::bad(WHAT, &Error::io("inspect", folder, error.into())),
    };
    let found = format!("{} MiB free, the latest backup has {} MiB", room >> 20, needed >> 20);
    match room > needed {
        true => Finding::good(WHAT, found),
        false => Finding::bad(
            WHAT,
            &Error::new(ErrorKind::Store, found).advise("expire backups, or make room"),
        ),
    }
}
