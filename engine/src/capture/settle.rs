//! Adds to a backup what happened to tablespaces while they were copied.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use innodb::space::SpaceFlags;
use innodb::space::header::SpaceHeader;
use innodb::{PageNo, PageSize, SpaceId};

use super::ddl::{self, Present};
use super::inventory::{Inventory, ServerFile};
use super::job::{Copied, Identity, Job, Role};
use super::protocol::{Capture, job};
use super::redo::Follower;
use super::tablespace::TablespaceCopier;
use crate::io::read_ahead::read_at;
use crate::server::Session;
use crate::server::session::Wait;
use crate::sink::{Mode, write_file};
use crate::{Error, Result};

impl Capture<'_> {
    /// Adds to the backup what happened to tablespaces since they were copied.
    pub(super) fn settle_tablespaces(
        &self,
        session: &mut Session,
        follower: &Follower<'_>,
        tablespaces: &TablespaceCopier<'_>,
        copied: &[Copied],
        inventory: &Inventory,
    ) -> Result<()> {
        let sink = self.run.sink;
        let by_path: BTreeMap<_, _> =
            copied.iter().map(|copied| (&copied.file.path, copied)).collect();
        let mut present = Vec::with_capacity(inventory.tables.len());
        for file in &inventory.tables {
            if let Some(identity) =
                self.identify(follower, by_path.get(&file.path).copied(), file)?
            {
                present.push(Present { file: file.clone(), identity });
            }
        }
        let mut changes = ddl::changes(copied, &present);
        if self.settings.base.is_some() {
            let mut missed = changes.take_missed(copied, &present);
            missed.iter().for_each(|file| self.expect(file));
            let jobs = missed.iter().map(|file| {
                let space = present.iter().find(|present| present.file.path == file.path);
                let space = space.and_then(|present| present.identity.space);
                let header = space.and_then(|space| told_header(session, follower, space));
                Job { header, ..job(file, Role::Table) }
            });
            let made = tablespaces.copy(jobs.collect())?;
            // One whose page 0 cannot be read after all goes with the new ones.
            missed.retain(|file| !made.iter().any(|made| made.file.path == file.path));
            changes.new.extend(missed);
            changes.untangle(&present);
        }
        for path in &changes.deleted {
            write_file(sink, &ddl::with_extension(path, "del")?, Mode::Create, b"")?;
        }
        for (old, new) in &changes.renamed {
            write_file(
                sink,
                &ddl::with_extension(old, "ren")?,
                Mode::Create,
                ddl::table_name(new),
            )?;
        }
        let mut jobs = Vec::with_capacity(changes.new.len());
        for file in changes.new {
            let target = ddl::with_extension(&file.path, "new")?;
            self.expect(&file);
            jobs.push(Job { target, file, role: Role::Late, header: None });
        }
        tablespaces.copy(jobs).map(|_| ())
    }

    /// A file more will be copied.
    fn expect(&self, file: &ServerFile) {
        self.run.expect(std::fs::metadata(&file.source).map_or(0, |metadata| metadata.len()));
    }

    /// What a tablespace file is; `None` when it is gone. Only files at whose path the redo log
    /// saw something happen are opened.
    fn identify(
        &self,
        follower: &Follower<'_>,
        copied: Option<&Copied>,
        file: &ServerFile,
    ) -> Result<Option<Identity>> {
        let metadata = match std::fs::metadata(&file.source) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("look at", &file.source, error)),
        };
        let inode = (metadata.dev(), metadata.ino());
        let path = file.path.as_bytes();
        let (touched, named) =
            follower.with_events(|events| (events.was_touched(path), events.space_of(path)));
        if !touched
            && let Some(copy) = copied
            && copy.identity.inode == inode
            // IMPORT TABLESPACE gives a file another id in place.
            && (named.is_none() || named == copy.identity.space)
        {
            return Ok(Some(copy.identity));
        }
        let source = match File::open(&file.source) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &file.source, error)),
        };
        let mut start = vec![0; PageSize::MAX.bytes()];
        let read = read_at(&source, &mut start, 0)
            .map_err(|error| Error::io("read", &file.source, error))?;
        // Without a page 0 that can be read the redo log tells. Where the two disagree, nothing is
        // proven, and the file is copied again.
        let space = match SpaceHeader::parse(start.get(..read).unwrap_or_default()) {
            Ok(header) => Some(header.id).filter(|id| named.is_none_or(|named| named == *id)),
            Err(_) => named,
        };
        Ok(Some(Identity { space, inode }))
    }
}

/// What page 0 of a tablespace would say that the base of a delta has although the server has never
/// written that page: the log was enough for the base. Only what the server tells of it, if it does.
fn told_header(
    session: &mut Session,
    follower: &Follower<'_>,
    space: SpaceId,
) -> Option<SpaceHeader> {
    follower.with_events(|events| events.is_in_base(space)).then_some(())?;
    let question =
        format!("SELECT FLAG FROM information_schema.INNODB_SYS_TABLESPACES WHERE SPACE = {space}");
    let flags = session.value(&question, Wait::short("asking for the format of a tablespace"));
    let flags = SpaceFlags::parse(flags.ok()??.parse().ok()?).ok()?;
    Some(SpaceHeader { id: space, size: 0, free_limit: PageNo(0), flags, crypt: None })
}
