//! The order of a backup: what is copied under which lock of the server.
//!
//! * START (keeps other backups out, blocks nobody): tablespaces, a first copy of all other files
//!   where a second one costs nothing, redo up to now, tablespaces made since.
//! * FLUSH (blocks new writes to non-transactional tables): other files that changed since.
//! * BLOCK_DDL: what changed since, now for the last time; what happened to tablespaces.
//! * BLOCK_COMMIT: the ends of logs, statistics, a checkpoint of MyRocks, the positions, the LSN at
//!   which redo ends.
//!
//! The locks end as soon as that LSN is known. The log up to it is in the server's file by then
//! and is read afterwards; nothing behind it is taken, because commits go on. The checkpoint does
//! not change any more, and is copied then, too.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use innodb::{Lsn, PageNo};

use super::foreign::{self, Foreign};
use super::inventory::{self, Class, Inventory, ServerFile};
use super::job::{Copied, Job, Role};
use super::plain::PlainCopier;
use super::positions::Positions;
use super::redo::{Followed, Follower, Source, standing};
use super::release::{SetOnDrop, release_when_given_up};
use super::rocksdb::Checkpoint;
use super::run::Run;
use super::tablespace::{CorruptPage, TablespaceCopier};
use super::{Extras, RocksDb, TableNeed, vanished};
use crate::delta::Base;
use crate::io::IoMode;
use crate::io::spool::Spool;
use crate::keys::settings::KeyStore;
use crate::report::Event;
use crate::server::profile::ServerProfile;
use crate::server::session::Wait;
use crate::server::stages::{BackupStages, StageTimes};
use crate::server::{ConnectOptions, Session, lsn};
use crate::sink::{Mode, StreamPath, backup_path};
use crate::table_filter::TableFilter;
use crate::{Error, ErrorKind, Result};

/// Redo that may wait in memory for the sink.
const SPOOL_MEMORY: usize = 64 << 20;

/// How to go about it.
pub struct Settings {
    /// For the connection that holds the locks.
    pub connect: ConnectOptions,
    /// Copying threads.
    pub threads: usize,
    /// How long to wait for each lock.
    pub lock_timeout: Duration,
    /// Go on when a page is corrupt.
    pub continue_on_corrupt_pages: bool,
    /// Where redo overflows to.
    pub spool_dir: PathBuf,
    /// How tablespaces are read.
    pub io_mode: IoMode,
    /// The server's encryption keys.
    pub keys: Arc<KeyStore>,
    /// Whether to decrypt pages to check what is inside.
    pub deep_check: bool,
    /// Whether MyRocks is part of the backup, where the server has it.
    pub rocksdb: bool,
    /// Which tables are wanted.
    pub tables: TableFilter,
    /// What else is noted and done.
    pub extras: Extras,
    /// Of which backup only the changes since are wanted.
    pub base: Option<Base>,
}

/// What was captured; all files but the metadata are written.
pub struct Captured {
    /// Checkpoint at which the redo starts.
    pub start: Lsn,
    /// Where the redo ends.
    pub followed: Followed,
    /// Bytes of redo, without the header.
    pub redo_bytes: u64,
    /// Where replication was at that LSN.
    pub positions: Positions,
    /// What the locks cost.
    pub locks: StageTimes,
    /// The checkpoint of MyRocks.
    pub rocksdb: Option<RocksDb>,
    /// Pages in a delta.
    pub changed_pages: u64,
    /// Pages that were torn and healed.
    pub torn_pages: u64,
    /// Pages that stayed corrupt.
    pub corrupt_pages: Vec<CorruptPage>,
    /// Tables that need more than the backup.
    pub tables: Vec<TableNeed>,
}

/// Captures everything. Threads have ended when this returns.
pub fn capture<'env>(
    run: &'env Run<'env>,
    session: &mut Session,
    profile: &'env ServerProfile,
    settings: &'env Settings,
) -> Result<Captured> {
    let log = profile.innodb_log_group_home_dir.join("ib_logfile0");
    let standing_end = match profile.has_innodb {
        true => None,
        false => Some(standing::end_of(&log, &settings.keys)?),
    };
    std::thread::scope(|scope| {
        let result = Capture { run, profile, settings, standing_end }.take(scope, session);
        result.inspect_err(|_| {
            // Ends the threads that the scope waits for.
            run.stop.cancel();
            run.sink.abort();
        })
    })
}

/// A backup that is being taken.
pub(super) struct Capture<'env> {
    pub(super) run: &'env Run<'env>,
    profile: &'env ServerProfile,
    pub(super) settings: &'env Settings,
    /// Where the redo log ends that nobody writes.
    standing_end: Option<Lsn>,
}

impl<'env> Capture<'env> {
    fn take<'scope>(
        &self,
        scope: &'scope Scope<'scope, 'env>,
        session: &mut Session,
    ) -> Result<Captured> {
        let Self { run, profile, settings, standing_end } = *self;
        if let Some(base) = settings.base {
            refuse_future(base, standing_end.map_or_else(|| lsn::current_lsn(session), Ok)?)?;
        }
        if settings.extras.checkpoint_first
            && profile.has_innodb
            && !lsn::request_checkpoint(session, Wait::short("making a checkpoint"))?
        {
            run.reporter.warn("the account may not ask for a checkpoint".to_owned());
        }
        let spool = Arc::new(Spool::new(SPOOL_MEMORY, settings.spool_dir.clone()));
        let log_path = profile.innodb_log_group_home_dir.join("ib_logfile0");
        let mut status = Session::connect(&settings.connect, &run.stop)?;
        let ask_flushed =
            Box::new(move || standing_end.map_or_else(|| lsn::flushed_lsn(&mut status), Ok));
        let source = Source {
            path: log_path,
            version: profile.version,
            ask_flushed,
            keys: &settings.keys,
            base_end: settings.base.and_then(|base| base.end),
        };
        let follower = Follower::start(scope, run, source, Arc::clone(&spool))?;
        let start = follower.start_checkpoint();
        let header = follower.header().to_owned();
        let log_writer = scope.spawn(move || {
            let written = write_log(run, &spool, &header);
            written.map_err(|error| {
                run.fail(error);
                spool.abandon();
            })
        });

        // Outlives the locks: nobody waits for its removal.
        let mut checkpoint = None;
        let mut stages = BackupStages::open(
            &settings.connect,
            &run.stop,
            settings.lock_timeout,
            profile.has_wsrep,
        )?;
        if settings.extras.without_locks {
            stages = stages.without_locks();
        }
        let released = Arc::new(AtomicBool::new(false));
        let watch = Arc::clone(&released);
        let stage_connection = stages.connection_id();
        scope
            .spawn(move || release_when_given_up(run, &settings.connect, stage_connection, &watch));
        let _released = SetOnDrop(Arc::clone(&released));
        self.entered("START", stages.start()?);
        if let Some(places) = profile.rocksdb.as_ref().filter(|_| settings.rocksdb) {
            let limit = settings.lock_timeout;
            checkpoint =
                Some(Checkpoint::reserve(session, &settings.connect, run.reporter, places, limit)?);
        }
        let names =
            |path: &StreamPath| follower.with_events(|events| events.space_of(path.as_bytes()));
        let tablespaces = TablespaceCopier::new(run, settings, profile, &names);
        let mapped_myisam = profile.variables.is_on("myisam_use_mmap");
        let mut others = PlainCopier::new(run, settings.threads, mapped_myisam);
        let first = self.inventory()?.without_mapped();
        let mut copied = tablespaces.copy(self.jobs(&first)?)?;
        others.follow_growing(&first.others, Class::AriaLog)?;
        if run.sink.rewrites_freely() {
            others.synchronise(&first.others)?;
        }

        // Whatever can be caught up with before anybody is blocked is done now: the redo log, and
        // with the names in it the tablespaces that are too young to name themselves.
        follower.wait_for(self.end_of_redo(session)?)?;
        let second = self.inventory()?;
        copied.extend(tablespaces.copy(new_jobs(&copied, &second))?);

        if let Some(checkpoint) = &checkpoint {
            checkpoint.lighten(session)?;
        }
        // The question needs a privilege that goes with locking.
        let suspects = match settings.extras.without_locks {
            true => Vec::new(),
            false => vanished::suspects(session, profile, &settings.tables)?,
        };
        run.hurry();
        self.entered("FLUSH", stages.flush()?);
        // Where a stream cannot take anything back, every file is copied when it is final.
        let once = !run.sink.rewrites_freely() && !profile.version.mbstream_takes_rewrites();
        if !once {
            let second = self.inventory()?.without_mapped();
            others.synchronise(&second.others)?;
            others.follow_growing(&second.others, Class::AriaLog)?;
        }

        self.entered("BLOCK_DDL", stages.block_ddl()?);
        let locked_at = self.end_of_redo(session)?;
        follower.with_events(|events| events.lock_at(locked_at));
        let mut last = self.inventory()?;
        let after_commits = match once {
            true => last.others.extract_if(.., |other| other.class == Class::UntilCommit).collect(),
            false => Vec::new(),
        };
        self.check_same_system(&first, &last)?;
        vanished::confirm(session, profile, &settings.tables, &suspects)?;
        others.synchronise(&last.others)?;
        follower.wait_for(locked_at)?;
        self.settle_tablespaces(session, &follower, &tablespaces, &copied, &last)?;
        others.follow_growing(&last.others, Class::AriaLog)?;
        others.follow_growing(&last.others, Class::LogTable)?;
        self.nested(&last, &mut others)?;

        self.entered("BLOCK_COMMIT", stages.block_commit()?);
        if !settings.extras.without_locks {
            lsn::flush_engine_logs(session, Wait::short("making the engines' logs durable"))?;
        }
        if let Some(checkpoint) = &mut checkpoint {
            checkpoint.make(session, settings.lock_timeout)?;
        }
        let aria_logs = inventory::aria_logs(profile)?;
        if aria_logs.iter().any(|log| !last.others.contains(log)) {
            // Aria began another log since: its control file must name it, and the tables with it.
            others.synchronise(&last.others)?;
        }
        if !once {
            others.refresh_unlogged(&last.others)?;
        }
        last.others.extend(after_commits);
        others.refresh(last.others.iter().filter(|other| other.class == Class::UntilCommit))?;
        let growing = last.others.iter().chain(&aria_logs).cloned().collect::<Vec<_>>();
        others.finish_growing(&growing)?;
        let positions = Positions::read(session, profile, settings.extras, run.reporter)?;
        let end = self.end_of_redo(session)?;
        // Before commits go on: theirs are not to be in the copy.
        follower.end_at(end);
        let locks = stages.end()?;
        released.store(true, Ordering::SeqCst);
        run.reporter.event(&Event::Stage { name: "END", waited: Duration::ZERO });

        let followed = follower.finish()?;
        follower.with_events(|events| no_late_ddl(events.late()))?;
        no_newer_page(tablespaces.newest_page(), followed.end)?;
        let redo_bytes = log_writer.join().unwrap_or(Err(())).unwrap_or_default();
        run.check()?;
        let rocksdb = match checkpoint {
            Some(checkpoint) => Some(self.copy_checkpoint(checkpoint, session, &mut others)?),
            None => None,
        };
        for directory in &last.empty_directories {
            run.sink.directory(directory)?;
        }
        Ok(Captured {
            start: start.lsn,
            followed,
            redo_bytes,
            positions,
            locks,
            rocksdb,
            changed_pages: tablespaces.changed_pages(),
            torn_pages: tablespaces.torn_pages(),
            corrupt_pages: tablespaces.corrupt_pages(),
            tables: self.foreign_tables(&last)?,
        })
    }

    /// The files of the server that are wanted.
    fn inventory(&self) -> Result<Inventory> {
        Ok(inventory::take(self.profile)?.only(&self.settings.tables))
    }

    /// Copies the files of MyRocks' checkpoint, and removes it.
    fn copy_checkpoint(
        &self,
        checkpoint: Checkpoint<'_>,
        session: &mut Session,
        others: &mut PlainCopier<'_>,
    ) -> Result<RocksDb> {
        let (files, bytes) = checkpoint.files()?;
        self.run.ease();
        others.refresh(files.iter())?;
        checkpoint.release(session);
        Ok(RocksDb { files: files.len() as u64, bytes })
    }

    /// Tables that need more than the backup. That they cannot be listed is no failure of it.
    fn foreign_tables(&self, inventory: &Inventory) -> Result<Vec<TableNeed>> {
        let Self { run, profile, settings, .. } = *self;
        let nested = run.sink.takes_nested_paths();
        let foreign = Foreign {
            profile,
            inventory,
            nested,
            rocksdb: settings.rocksdb,
            wanted: &settings.tables,
        };
        // A connection of its own, because an answer that takes too long costs it.
        let listed = Session::connect(&settings.connect, &run.stop)
            .and_then(|mut session| foreign.tables(&mut session));
        match listed {
            Ok((tables, 0)) => Ok(tables),
            Ok((tables, more)) => {
                run.reporter.warn(format!("{more} more tables need more than this backup"));
                Ok(tables)
            }
            Err(error) => {
                run.reporter.warn(foreign::not_listed(&error).ok_or(error)?);
                Ok(Vec::new())
            }
        }
    }

    fn entered(&self, name: &'static str, waited: Duration) {
        self.run.reporter.event(&Event::Stage { name, waited });
    }

    /// The end of the redo log now, with everything before it in the file.
    fn end_of_redo(&self, session: &mut Session) -> Result<Lsn> {
        if let Some(end) = self.standing_end {
            return Ok(end);
        }
        let end = lsn::current_lsn(session)?;
        let flushes = !self.settings.extras.without_locks;
        if flushes {
            lsn::flush_engine_logs(session, Wait::short("making the redo log durable"))?;
        }
        if flushes && self.profile.variables.get("innodb_flush_log_at_trx_commit") != Some("0") {
            return Ok(end);
        }
        // With 0 the statement writes nothing; the server does so about once a second.
        let since = Instant::now();
        while lsn::flushed_lsn(session)? < end {
            self.run.check()?;
            if since.elapsed() > self.settings.lock_timeout {
                let message = format!("the server did not write its redo log up to LSN {end}");
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(end)
    }

    /// The tablespaces to copy first: the largest files at the front keep all threads busy to
    /// the end.
    fn jobs(&self, inventory: &Inventory) -> Result<Vec<Job>> {
        let size = |file: &ServerFile| {
            std::fs::metadata(&file.source).map_or(0, |metadata| metadata.len())
        };
        let mut jobs = Vec::new();
        let mut first_page = 0;
        for file in &inventory.system {
            jobs.push((size(file), job(file, Role::System(PageNo(first_page)))));
            let pages = size(file) / self.profile.page_size.bytes() as u64;
            first_page = first_page.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
        }
        jobs.extend(inventory.undo.iter().map(|file| (size(file), job(file, Role::Undo))));
        jobs.extend(inventory.tables.iter().map(|file| (size(file), job(file, Role::Table))));
        jobs.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        self.run.expect(jobs.iter().map(|(size, _)| size).sum());
        Ok(jobs.into_iter().map(|(_, job)| job).collect())
    }

    fn check_same_system(&self, first: &Inventory, last: &Inventory) -> Result<()> {
        if first.system == last.system && first.undo == last.undo {
            return Ok(());
        }
        let message = "the undo or system tablespaces of the server are others than at the start of the backup";
        Err(Error::new(ErrorKind::Failed, message).advise("run the backup again"))
    }

    /// Files deeper than a database directory: the server has none of its own.
    fn nested(&self, inventory: &Inventory, others: &mut PlainCopier<'_>) -> Result<()> {
        let named = |files: &[&ServerFile]| {
            let names: Vec<_> = files.iter().take(5).map(|file| file.path.to_string()).collect();
            let more = if files.len() > names.len() { ", …" } else { "" };
            format!("{}{more}", names.join(", "))
        };
        let unknown: Vec<_> = inventory
            .others
            .iter()
            .filter(|other| other.class == Class::Unknown)
            .map(|other| &other.file)
            .collect();
        if !unknown.is_empty() {
            let message = format!(
                "{} files of unknown kind are in the backup: {}",
                unknown.len(),
                named(&unknown)
            );
            self.run.reporter.info(message);
        }
        for (file, reason) in &inventory.refused {
            self.run.reporter.warn(format!("{} is NOT in the backup: {reason}", file.display()));
        }
        let nested: Vec<_> = inventory.nested.iter().collect();
        if nested.is_empty() {
            return Ok(());
        }
        if !self.run.sink.takes_nested_paths() {
            self.run.reporter.warn(format!(
                "{} files below subdirectories of databases are NOT in the stream, because mbstream cannot unpack \
                 them: {}",
                nested.len(),
                named(&nested)
            ));
            return Ok(());
        }
        let files: Vec<_> = nested
            .into_iter()
            .map(|file| inventory::OtherFile { file: file.clone(), class: Class::Unknown })
            .collect();
        others.refresh(files.iter())
    }
}

pub(super) fn job(file: &ServerFile, role: Role) -> Job {
    Job { file: file.clone(), target: file.path.clone(), role, header: None }
}

/// Tables that were made since the first pass, under names that the backup does not have yet:
/// what is copied now need not be copied under BLOCK_DDL.
fn new_jobs(copied: &[Copied], inventory: &Inventory) -> Vec<Job> {
    let known: BTreeSet<_> = copied.iter().map(|copied| &copied.file.path).collect();
    let new = inventory.tables.iter().filter(|file| !known.contains(&file.path));
    new.map(|file| job(file, Role::Table)).collect()
}

/// Ships the redo log from the spool to the sink. Returns its length without the header.
fn write_log(run: &Run<'_>, spool: &Spool, header: &[u8]) -> Result<u64> {
    let path = backup_path("ib_logfile0")?;
    let file = run.sink.begin(&path, Mode::Create)?;
    file.write(0, header)?;
    let mut written = header.len() as u64;
    loop {
        let block = spool.pop();
        let block = block.map_err(|e| {
            Error::new(ErrorKind::Failed, "cannot read the redo spool").caused_by(e)
        })?;
        let Some(block) = block else { break };
        file.write(written, &block)?;
        written += block.len() as u64;
    }
    file.finish()?;
    run.count_file();
    Ok(written - header.len() as u64)
}

/// A base that is newer than the server is a backup of another one, or of what this one was before.
fn refuse_future(base: Base, now: Lsn) -> Result<()> {
    if base.lsn <= now {
        return Ok(());
    }
    let message = format!(
        "the base ends at LSN {}, but the server is at LSN {now}: it is not of this server, or from \
         before this server was restored",
        base.lsn
    );
    Err(Error::new(ErrorKind::Usage, message).advise("take a full backup"))
}

fn no_late_ddl(late: &[String]) -> Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    let message = format!("tables changed although DDL was blocked: {}", late.join(", "));
    Err(Error::new(ErrorKind::Failed, message).advise("run the backup again"))
}

/// Redo must reach every page that was copied.
fn no_newer_page(newest: Lsn, end: Lsn) -> Result<()> {
    if newest <= end {
        return Ok(());
    }
    let message =
        format!("a page with LSN {newest} was copied, but the redo log ends at LSN {end}");
    Err(Error::new(ErrorKind::Gap, message).advise("run the backup again"))
}
