//! MyRocks, whose files come and go at any moment. What is copied is a checkpoint: a directory of
//! links to files that never change again, which the engine makes on request.
//!
//! * Behind START, an advisory lock keeps the checkpoints of several backups apart, the stock
//!   tool's among them; what a crashed backup left behind is removed.
//! * Before anybody is blocked, the engine writes what it has in memory, so that there is little
//!   left for the checkpoint to write.
//! * Under BLOCK_COMMIT the checkpoint is made: no commit lies between it and the positions.
//! * When the locks are gone its files are copied, and it is removed.
//!
//! Promise: whatever ends a backup, its checkpoint is removed. When the server is not there any
//! more to do it, the directory is named, and the next backup removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::inventory::{Class, OtherFile, ServerFile};
use crate::server::profile::{RocksDbPlaces, ServerProfile};
use crate::server::session::Wait;
use crate::server::{ConnectOptions, Session};
use crate::sink::backup_path;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// Where the files of MyRocks are in a backup.
pub const DIRECTORY: &str = "#rocksdb";
/// The directory below `rocksdb_datadir` that the server's own variable removes.
const CHECKPOINT: &str = "mariabackup-checkpoint";
/// The advisory lock that the stock tool takes too.
const LOCK: &str = "mariabackup_rocksdb_checkpoint";
/// How long the engine may take to write what it has in memory.
const FLUSH_LIMIT: Duration = Duration::from_secs(600);
/// How long connecting may take when there is nothing left but to clean up.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(2);

/// Refuses places of MyRocks' files from which they cannot be told apart from the server's.
pub fn check_places(profile: &ServerProfile) -> Result<()> {
    let Some(places) = &profile.rocksdb else { return Ok(()) };
    for (variable, place) in
        [("rocksdb_datadir", Some(&places.data)), ("rocksdb_wal_dir", places.wal.as_ref())]
    {
        if place.is_some_and(|place| profile.datadir.starts_with(place)) {
            let message = format!("{variable} is the server's data directory, or above it");
            return Err(Error::new(ErrorKind::Server, message)
                .advise("give MyRocks a directory of its own, or leave it out of the backup"));
        }
    }
    Ok(())
}

/// The right to make checkpoints, and the one that was made. Dropping it removes what is left.
pub struct Checkpoint<'a> {
    connect: &'a ConnectOptions,
    reporter: &'a dyn Reporter,
    directory: PathBuf,
    exists: bool,
}

impl<'a> Checkpoint<'a> {
    /// Waits until no other backup has a checkpoint, and removes one that was left behind. The
    /// stage START must be held: another backup takes the lock only behind its own.
    pub fn reserve(
        session: &mut Session,
        connect: &'a ConnectOptions,
        reporter: &'a dyn Reporter,
        places: &RocksDbPlaces,
        limit: Duration,
    ) -> Result<Self> {
        let wait = Wait { deadline: limit + CLEAN_UP_LIMIT, reason: "waiting for MyRocks" };
        let seconds = limit.as_secs().max(1);
        let granted = session.value(&format!("SELECT GET_LOCK('{LOCK}', {seconds})"), wait)?;
        if granted.as_deref() != Some("1") {
            let message =
                format!("another backup has held its checkpoint of MyRocks for {seconds} s");
            return Err(Error::new(ErrorKind::Timeout, message)
                .advise(format!("wait for its end; SELECT IS_USED_LOCK('{LOCK}') tells whose")));
        }
        let directory = places.data.join(CHECKPOINT);
        let exists = directory.try_exists().map_err(|e| Error::io("look at", &directory, e))?;
        let mut checkpoint = Self { connect, reporter, directory, exists };
        if exists {
            checkpoint.remove(session)?;
            reporter.info(format!(
                "removed a checkpoint of MyRocks that another backup had left in {}",
                checkpoint.directory.display()
            ));
        }
        Ok(checkpoint)
    }

    /// Has the engine write what it has in memory, while nobody has to wait for it.
    pub fn lighten(&self, session: &mut Session) -> Result<()> {
        let wait = Wait { deadline: FLUSH_LIMIT, reason: "MyRocks writes what it has in memory" };
        session.execute("SET GLOBAL rocksdb_force_flush_memtable_now=ON", wait)
    }

    /// Makes the checkpoint. Commits must be blocked.
    pub fn make(&mut self, session: &mut Session, limit: Duration) -> Result<()> {
        let path = self.directory.to_str().ok_or_else(|| {
            let message = format!("{} is not UTF-8", self.directory.display());
            Error::new(ErrorKind::Failed, message)
        })?;
        let path = path.replace('\\', "\\\\").replace('\'', "\\'");
        // From the request on, whatever becomes of the answer.
        self.exists = true;
        let wait = Wait { deadline: limit, reason: "making a checkpoint of MyRocks" };
        session.execute(&format!("SET GLOBAL rocksdb_create_checkpoint='{path}'"), wait)
    }

    /// The files of the checkpoint, and their bytes.
    pub fn files(&self) -> Result<(Vec<OtherFile>, u64)> {
        let failed = |error: io::Error| Error::io("list", &self.directory, error);
        let (mut files, mut bytes) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (source, name) = (entry.path(), entry.file_name());
            let metadata = entry.metadata().map_err(|e| Error::io("look at", &source, e))?;
            if !metadata.is_file() {
                let message = format!("{} is no file of a checkpoint", source.display());
                return Err(Error::new(ErrorKind::Failed, message));
            }
            bytes += metadata.len();
            let path = backup_path(Path::new(DIRECTORY).join(name).as_os_str().as_encoded_bytes())?;
            let file = ServerFile { source, path };
            files.push(OtherFile { file, class: Class::Table });
        }
        files.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        if !files.iter().any(|other| other.file.path.file_name() == b"CURRENT") {
            let message = format!("the checkpoint in {} is not whole", self.directory.display());
            return Err(Error::new(ErrorKind::Failed, message));
        }
        Ok((files, bytes))
    }

    /// Removes the checkpoint and lets other backups make theirs. A failure is not one of the
    /// backup.
    pub fn release(mut self, session: &mut Session) {
        match self.remove(session) {
            Ok(()) => {
                let wait = Wait::short("letting other backups at MyRocks");
                // The end of the connection does it too.
                let _ = session.execute(&format!("SELECT RELEASE_LOCK('{LOCK}')"), wait);
            }
            Err(error) => self.complain(&error.to_string()),
        }
    }

    fn remove(&mut self, session: &mut Session) -> Result<()> {
        let wait = Wait::short("removing the checkpoint of MyRocks");
        session.execute("SET GLOBAL rocksdb_remove_mariabackup_checkpoint=ON", wait)?;
        // The server says nothing when something in there is not its own.
        let left = self.directory.try_exists();
        if left.map_err(|error| Error::io("look at", &self.directory, error))? {
            let message = format!("{} cannot be removed by the server", self.directory.display());
            return Err(Error::new(ErrorKind::Failed, message)
                .advise("look what is in there, and remove it by hand"));
        }
        self.exists = false;
        Ok(())
    }

    /// Says what is left, once.
    fn complain(&mut self, reason: &str) {
        self.exists = false;
        self.reporter.warn(format!(
            "the checkpoint of MyRocks in {} was not removed ({reason}); it keeps files from being \
             deleted until the next backup removes it",
            self.directory.display()
        ));
    }
}

/// After a failure: the session of the backup may be closed, or was told to stop.
impl Drop for Checkpoint<'_> {
    fn drop(&mut self) {
        if !self.exists || std::thread::panicking() {
            return;
        }
        let connect_timeout = Some(CLEAN_UP_LIMIT);
        let options = ConnectOptions { connect_timeout, ..self.connect.clone() };
        let removed = Session::connect(&options, &Cancel::new())
            .and_then(|mut session| self.remove(&mut session));
        if let Err(error) = removed {
            self.complain(&error.to_string());
        }
    }
}
