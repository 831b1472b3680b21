//! Pages of tablespaces, checked. Files stay open: walking the dictionary reads many small pages.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use innodb::tree::Pages;
use innodb::{PageId, SpaceId};

use super::page_count;
use crate::prepare::codec::CodecScratch;
use crate::prepare::inventory::Tablespace;
use crate::{Error, ErrorKind, Result};

/// How many files are open at most. The dictionary and undo logs are in few; of a table, a
/// handful of pages is read.
const OPEN_MAX: usize = 32;

/// The files of a prepared backup's tablespaces.
pub struct Files<'a> {
    spaces: &'a HashMap<SpaceId, Tablespace>,
    open: RefCell<HashMap<PathBuf, Rc<File>>>,
}

impl<'a> Files<'a> {
    /// Opens nothing yet.
    pub fn new(spaces: &'a HashMap<SpaceId, Tablespace>) -> Self {
        Self { spaces, open: RefCell::default() }
    }

    fn file(&self, path: &PathBuf) -> Result<Rc<File>> {
        let mut open = self.open.borrow_mut();
        if let Some(file) = open.get(path) {
            return Ok(Rc::clone(file));
        }
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        let file = Rc::new(File::open(path).map_err(|e| Error::io("open", path, e))?);
        open.insert(path.clone(), Rc::clone(&file));
        Ok(file)
    }
}

impl Pages for Files<'_> {
    type Error = Error;

    fn page(&self, id: PageId) -> Result<Vec<u8>> {
        let damaged = |what: String| Error::new(ErrorKind::Damage, what);
        let space = self.spaces.get(&id.space).ok_or_else(|| {
            damaged(format!("{id} is needed, but the backup has no such tablespace"))
        })?;
        let (_, file, _) = space
            .locate(id.page)
            .ok_or_else(|| damaged(format!("{id} is needed, but the tablespace ends before it")))?;
        let size = space.flags.physical_size().bytes();
        let mut page = vec![0; size];
        let offset = u64::from(id.page.0 - file.first_page.0) * size as u64;
        self.file(&file.path)?
            .read_exact_at(&mut page, offset)
            .map_err(|e| Error::io("read", &file.path, e))?;
        space.open(&mut page, id.page, file, &mut CodecScratch::default())?;
        Ok(page)
    }

    fn count(&self, space: SpaceId) -> u32 {
        self.spaces.get(&space).map_or(0, page_count)
    }
}
