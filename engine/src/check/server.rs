//! What the server is asked, and whether its files can be read.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::capture::rocksdb;
use crate::keys::{KeyError, KeySettings};
use crate::metadata::haulout_info::ServerIdentity;
use crate::server::privileges::Needs;
use crate::server::profile::ServerProfile;
use crate::server::session::Session;
use crate::server::{ConnectOptions, privileges};
use crate::{Cancel, Error, ErrorKind, Result};

/// A redo log that is smaller may be overwritten before it was read.
const REDO_LOG_MIN: u64 = 48 << 20;

/// Looks at the server. Who it is, if it says so.
pub fn check_server(
    connect: &ConnectOptions,
    keys: &KeySettings,
    with_rocksdb: bool,
    cancel: &Cancel,
) -> (Vec<Finding>, Option<ServerIdentity>) {
    let mut findings = Vec::new();
    let mut session = match Session::connect(connect, cancel) {
        Ok(session) => session,
        Err(error) => return (vec![Finding::bad("connection", &error)], None),
    };
    let profile = match ServerProfile::read(&mut session) {
        Ok(profile) => profile,
        Err(error) => return (vec![Finding::bad("server", &error)], None),
    };
    let identity = ServerIdentity::from(&profile);
    let said = format!("MariaDB {} on {}", profile.version_text, identity.hostname);
    findings.push(Finding::good("server", said));
    let needs = Needs { rocksdb: with_rocksdb, ..Needs::default() };
    match privileges::check(&mut session, &profile, needs) {
        Err(error) => findings.push(Finding::bad("privileges", &error)),
        Ok(warnings) if warnings.is_empty() => {
            findings.push(Finding::good("privileges", "all that a backup needs"));
        }
        Ok(warnings) => {
            let advice = "see the statement";
            findings.extend(warnings.into_iter().map(|w| Finding::note("privileges", w, advice)));
        }
    }
    session.close();
    findings.push(match readable(&profile) {
        Ok(files) => {
            Finding::good("files", format!("{files} can be read in {}", profile.datadir.display()))
        }
        Err(error) => Finding::bad("files", &error),
    });
    if with_rocksdb && let Err(error) = rocksdb::check_places(&profile) {
        findings.push(Finding::bad("MyRocks", &error));
    }
    findings.extend(encryption(&profile, keys));
    findings.extend(settings(&profile));
    (findings, Some(identity))
}

/// What a backup reads first in each place, really read; how many files that were.
fn readable(profile: &ServerProfile) -> Result<usize> {
    let mut files: Vec<PathBuf> = Vec::new();
    let log = profile.innodb_log_group_home_dir.join("ib_logfile0");
    let aria = profile.aria_log_dir_path.join("aria_log_control");
    files.extend([log, aria]);
    for entry in list(&profile.datadir)? {
        if entry.is_dir() {
            // The server may drop a database meanwhile.
            let Some(inside) = list(&entry).map(Some).or_else(gone)? else { continue };
            files.extend(inside.into_iter().find(|file| file.extension().is_some()));
        } else if entry
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"ibdata"))
        {
            files.push(entry);
        }
    }
    let mut read = 0;
    for file in &files {
        let tried = File::open(file).and_then(|mut open| open.read(&mut [0; 512]));
        let tried = tried.map(Some).map_err(|e| unreadable(file, e)).or_else(gone)?;
        read += usize::from(tried.is_some());
    }
    Ok(read)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|e| unreadable(dir, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|e| unreadable(dir, e))?.path());
    }
    Ok(paths)
}

fn unreadable(path: &Path, cause: std::io::Error) -> Error {
    let missing = cause.kind() == std::io::ErrorKind::NotFound;
    let error = Error::io("read", path, cause);
    match missing {
        true => error.advise("a backup runs where the server's files are, under the same paths"),
        false => error.advise("run it as the user of the server, or as root"),
    }
}

/// What is not there any more is no failure, unless it is the data directory itself.
fn gone<T>(error: Error) -> Result<Option<T>> {
    let cause = error.cause().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::NotFound) => Ok(None),
        _ => Err(error),
    }
}

/// Only an encrypted redo log takes keys during a backup; a restore takes them all.
fn encryption(profile: &ServerProfile, given: &KeySettings) -> Option<Finding> {
    const WHAT: &str = "encryption keys";
    if profile.encryption.plugins.is_empty() {
        return None;
    }
    let keys = profile.keys().overlaid_with(given.clone());
    let why = match keys.open() {
        Ok(_) => return Some(Finding::good(WHAT, "they can be opened")),
        Err(KeyError::NotGiven) => "the server does not say where they are".to_owned(),
        Err(error) => error.to_string(),
    };
    if profile.encryption.redo {
        let error = Error::new(ErrorKind::Usage, format!("the redo log is encrypted, but {why}"));
        return Some(Finding::bad(WHAT, &error.advise("say where they are: see backup --help")));
    }
    let advice = "a restore needs them: make sure that they are kept elsewhere too";
    Some(Finding::note(WHAT, why, advice))
}

/// Settings that make a backup fail now and then, or worth less.
fn settings(profile: &ServerProfile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let size = profile.log_file_size;
    findings.push(match size >= REDO_LOG_MIN {
        true => Finding::good("redo log", format!("{} MiB", size >> 20)),
        false => Finding::note(
            "redo log",
            format!("it has {} MiB only, and may be overwritten before it was read", size >> 20),
            "make innodb_log_file_size larger on a server that writes much",
        ),
    });
    findings.push(match profile.log_bin {
        true => Finding::good("binary log", "it is on"),
        false => Finding::note(
            "binary log",
            "it is off: what was written after a backup cannot be brought back",
            "set log_bin, if that matters",
        ),
    });
    if profile.checksum_algorithm.contains("none") {
        findings.push(Finding::note(
            "page checksums",
            "innodb_checksum_algorithm is none: torn and corrupt pages go unnoticed",
            "set it to full_crc32",
        ));
    }
    if !profile.variables.is_on("innodb_file_per_table") {
        findings.push(Finding::note(
            "innodb_file_per_table",
            "it is off: single tables cannot be restored",
            "set it to ON and rebuild the tables",
        ));
    }
    findings
}
