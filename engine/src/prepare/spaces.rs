//! From the redo log's tablespace ids to files: which file, which size, whether it stays.
//!
//! The id on a file's first page counts; names in the log count only for files whose first page
//! says nothing. What the log says of tablespaces that are not in the backup is moot, but must be
//! explained: by a deletion, or at least by a name, or because it was left out on purpose.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::sync::Arc;

use innodb::space::{FILE_BLOCK, SpaceFlags};
use innodb::{PageNo, PageSize, SpaceId};

use super::LeftOut;
use super::codec::PageCodec;
use super::facts::{LogFacts, SpaceFacts};
use super::inventory::{DataFile, Inventory, Tablespace, Unidentified, is_undo};
use crate::keys::settings::KeyStore;
use crate::{Error, ErrorKind, Reporter, Result};

/// What redo is applied to.
#[derive(Debug, Default)]
pub struct Spaces {
    /// By id.
    pub by_id: HashMap<SpaceId, Tablespace>,
}

impl Spaces {
    /// Binds every tablespace that the log changes to its file.
    pub fn bind(
        mut inventory: Inventory,
        left_out: &LeftOut,
        facts: &LogFacts,
        page_size: PageSize,
        reporter: &dyn Reporter,
    ) -> Result<Self> {
        for file in std::mem::take(&mut inventory.unidentified) {
            resolve(&mut inventory, file, facts, page_size, reporter)?;
        }
        let spaces = Self { by_id: inventory.spaces };
        // What was chosen must not be skipped with what was left out.
        let both = spaces.by_id.values().find(|space| left_out.ids.contains(&space.id));
        if let Some(Tablespace { id, files, .. }) = both {
            let name = files.first().map_or("", |file| &file.name);
            return Err(Error::new(
                ErrorKind::Damage,
                format!("{name} and a file that was left out are both tablespace {id}"),
            ));
        }
        let mut absent = 0_u64;
        for (id, known) in facts.spaces() {
            let is_left_out = left_out.ids.contains(&id)
                || known.name.as_ref().is_some_and(|name| left_out.names.contains(name));
            if known.deleted || is_left_out || spaces.by_id.contains_key(&id) {
                continue;
            }
            match left_out.any {
                true => absent += 1,
                false => explain_missing(id, known, reporter)?,
            }
        }
        if absent > 0 {
            reporter.info(format!(
                "redo for {absent} tablespaces that this partial backup leaves out is ignored"
            ));
        }
        Ok(spaces)
    }

    /// Finds out how pages are stored, and whether `store` has the keys that this takes: nothing
    /// was changed yet, and a page that is written with a wrong key is lost.
    pub fn unlock(
        &mut self,
        facts: &LogFacts,
        encrypts_tables: bool,
        store: &Arc<KeyStore>,
    ) -> Result<()> {
        for space in self.by_id.values_mut() {
            let known = facts.space(space.id);
            let stored = space.crypt.take();
            let page_0 = space.page_0_lsn.unwrap_or_default();
            let written = known.and_then(|known| known.crypt(&space.flags, page_0));
            let written = written.transpose();
            let written = written.map_err(|error| {
                let name = space.files.first().map_or("", |file| &file.name);
                let message = format!("the redo log damages the first page of {name}");
                Error::new(ErrorKind::Damage, message).caused_by(error)
            })?;
            let made_anew = known.is_some_and(|known| known.makes_page_0);
            space.crypt = written.or(stored.filter(|_| !made_anew));
            let crypt = space.crypt.as_ref();
            let by_log = written.is_some() && space.page_0_lsn.is_some();
            space.codec = PageCodec::new(crypt, by_log, stored.as_ref(), encrypts_tables, store);
            if known.is_some_and(|known| known.first_record.is_some()) {
                space.try_key()?;
            }
        }
        Ok(())
    }

    /// Gives every file the size that the log asks for, with zeros.
    pub fn resize(&mut self, facts: &LogFacts, page_size: PageSize) -> Result<()> {
        for space in self.by_id.values_mut() {
            let Some(known) = facts.space(space.id) else { continue };
            let physical = space.flags.physical_size().bytes() as u64;
            let truncated = known.trim.map(|trim| trim.pages.0);
            let pages = known.size.max(truncated);
            let (Some(pages), Some(file)) = (pages, space.files.last_mut()) else { continue };
            let Some(pages) = pages.checked_sub(file.first_page.0) else { continue };
            let all = u64::from(pages) * physical;
            // A server makes files longer in whole blocks. Of a tablespace with smaller pages the
            // last ones may be missing then; writing them makes the file longer.
            let wanted = (all / FILE_BLOCK * FILE_BLOCK).max(4 * page_size.bytes() as u64);
            if file.bytes < wanted || (truncated.is_some() && file.bytes > wanted) {
                OpenOptions::new()
                    .write(true)
                    .open(&file.path)
                    .and_then(|f| f.set_len(wanted))
                    .map_err(|e| Error::io("resize", &file.path, e))?;
                file.bytes = wanted;
            }
            file.bytes = file.bytes.max(all);
        }
        Ok(())
    }
}

/// Finds the tablespace of a file by its name.
fn resolve(
    inventory: &mut Inventory,
    Unidentified { file, reason }: Unidentified,
    facts: &LogFacts,
    page_size: PageSize,
    reporter: &dyn Reporter,
) -> Result<()> {
    let damaged = |why: &str| {
        Error::new(
            ErrorKind::Damage,
            format!("the first page of {} is damaged: {reason}; {why}", file.name),
        )
        .advise("the copy is not usable; take a new backup")
    };
    let id = facts.owner(&file.name);
    let Some((id, known)) = id.and_then(|id| Some((id, facts.space(id)?))) else {
        if is_undo(&file.name) {
            return Err(damaged("an undo tablespace cannot do without it"));
        }
        reporter.warn(format!(
            "{} cannot be identified ({reason}), and the redo log does not name it; it stays as it is",
            file.name
        ));
        return Ok(());
    };
    if !known.makes_page_0 {
        if known.first_record.is_none() {
            reporter.warn(format!("{} is not in use ({reason}); it stays as it is", file.name));
            return Ok(());
        }
        return Err(damaged("the redo log changes the tablespace, but does not make that page"));
    }
    let word = known.flags.ok_or_else(|| damaged("the redo log makes it without flags"))?;
    let flags = SpaceFlags::parse(word)
        .map_err(|e| damaged("the redo log makes it with impossible flags").caused_by(e))?;
    if flags.logical_size() != page_size {
        return Err(damaged("the redo log makes it with another page size"));
    }
    inventory.insert(id, flags, None, None, DataFile { first_page: PageNo(0), ..file })
}

/// Is it right that a tablespace which the log changes is not in the backup?
fn explain_missing(id: SpaceId, known: &SpaceFacts, reporter: &dyn Reporter) -> Result<()> {
    match (&known.name, known.first_record) {
        (None, Some(lsn)) => Err(Error::new(
            ErrorKind::Damage,
            format!(
                "the redo log changes tablespace {id} at LSN {lsn}, but no file of the backup is \
                 that tablespace and the log does not name one"
            ),
        )
        .advise("a file is missing from the backup; take a new one")),
        (Some(name), Some(_)) if !name.contains("/#sql") => {
            reporter.warn(format!(
                "{name} (tablespace {id}) is not in the backup; redo for it is ignored"
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}
