//! A table: its header and its state as they will be.
//!
//! The index file `.MAI` begins with a header of big-endian numbers: what the table is, and its
//! state, which says how many rows it has, where its trees begin, and up to which place in the log
//! all this is true ([`State::horizon`]). Then come pages of keys. The data file `.MAD` is pages
//! only; every so many pages one is a bitmap of the room in the others.
//!
//! Nothing is written here: changed pages are kept until all of the log has been applied.

use std::path::Path;
use std::sync::Arc;

use innodb::bytes::{put, u8_at, u16_at, u32_at, u64_at};

use super::auto_key::AutoKey;
use super::crypt::Crypt;
use super::leave::{Leave, Result};
use super::lsn::AriaLsn;
use super::pages::{Check, Found, Pages, Which};
use crate::keys::settings::KeyStore;

/// What a page number or an offset is that means none.
pub const NO_OFFSET: u64 = u64::MAX;

/// The header of an index file.
mod header {
    pub const MAGIC: [u8; 4] = [0xfe, 0xfe, 9, 3];
    pub const OPTIONS: usize = 4;
    pub const STATE_SIZE: usize = 8;
    pub const BASE: usize = 12;
    pub const KEYS: usize = 18;
    pub const ROW_FORMAT: usize = 22;
    pub const OPEN_COUNT: usize = 24;
    pub const CHANGED: usize = 26;
    pub const BIRTH: usize = 28;
    pub const HORIZON: usize = 35;
    pub const SKIP_REDO: usize = 42;
    pub const RECORDS: usize = 49;
    pub const DELETED: usize = 57;
    pub const PARTS: usize = 65;
    pub const FIRST_DELETED: usize = 73;
    pub const FIRST_BITMAP: usize = 81;
    pub const KEY_FILE_LENGTH: usize = 89;
    pub const DATA_FILE_LENGTH: usize = 97;
    pub const DATA_FREE: usize = 105;
    pub const KEY_FREE: usize = 113;
    pub const AUTO_INCREMENT: usize = 121;
    pub const CHECKSUM: usize = 129;
    pub const SORT_KEY: usize = 153;
    pub const KEY_ROOTS: usize = 155;
    /// Behind the roots: which keys are in use.
    pub const KEY_MAP: usize = 12;
    /// The state has no fields that are not known here.
    pub const KNOWN_STATE_SIZE: u16 = 215;
    /// Rows in pages.
    pub const BLOCK_ROWS: u8 = 3;
}

/// What never changes, from [`header::BASE`] on.
mod base {
    pub const UUID: usize = 0;
    pub const KEYS_BEGIN: usize = 16;
    pub const MIN_ROW: usize = 76;
    pub const EXTRA_OPTIONS: usize = 90;
    pub const BLOCK_SIZE: usize = 100;
    pub const AUTO_KEY: usize = 105;
    pub const TRANSACTIONAL: usize = 106;
    pub const BLOBS: usize = 110;
    /// Where the definitions of keys begin.
    pub const KEY_DEFINITIONS: usize = 135;
    pub const ENCRYPTED: u16 = 1;
}

/// Options of a table.
mod option {
    pub const LIVE_CHECKSUM: u16 = 0x20;
    pub const PAGE_CHECKSUM: u16 = 0x800;
}

/// Bits of [`State::changed`].
pub mod changed {
    /// Changed at all.
    pub const DATA: u16 = 1;
    /// Cannot be used until it is repaired.
    pub const CRASHED: u16 = 2 | 4;
    /// Statistics are old.
    pub const NOT_ANALYZED: u16 = 8;
    /// Keys are not packed as well as they could be.
    pub const NOT_OPTIMIZED_KEYS: u16 = 0x10;
    /// Pages of keys are not in order.
    pub const NOT_SORTED_PAGES: u16 = 0x20;
    /// Rows are not packed as well as they could be.
    pub const NOT_OPTIMIZED_ROWS: u16 = 0x40;
    /// Pages have LSNs.
    pub const NOT_ZEROFILLED: u16 = 0x80;
    /// The table belongs to this installation.
    pub const NOT_MOVABLE: u16 = 0x100;
}

/// What a table is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Size of its pages.
    pub block: usize,
    /// Where the pages of keys begin.
    pub keys_begin: u64,
    /// A row takes at least so much of its page.
    pub min_row: usize,
    /// Number of columns with a part of the row of their own.
    pub blobs: usize,
    /// Whether its state has a checksum of all rows.
    pub live_checksum: bool,
    /// Whether its pages have checksums.
    pub page_checksum: bool,
    /// Bytes that its pages keep for the version of a key: 0 if it is not encrypted.
    pub key_version: usize,
    /// The key with the counter, from 0, and how its value is stored.
    pub auto_key: Option<AutoKey>,
}

/// What changes.
#[derive(Clone, Debug)]
pub struct State {
    pub open_count: u16,
    pub changed: u16,
    /// Nothing in the log before this is about the table.
    pub birth: AriaLsn,
    /// Everything in the log before this is in the state.
    pub horizon: AriaLsn,
    /// Everything in the log up to this is in the pages.
    pub skip_redo: AriaLsn,
    pub records: u64,
    pub first_bitmap: u64,
    pub key_file_length: u64,
    pub data_file_length: u64,
    pub auto_increment: u64,
    pub checksum: u32,
    /// Offsets of the roots of the keys, and behind them that of the first free page.
    pub roots: Vec<u64>,
}

/// A table that the log is about.
#[derive(Debug)]
pub struct Table {
    /// Its name in the log: `./database/table`.
    pub name: String,
    /// What it is.
    pub shape: Shape,
    /// Its state as it will be.
    pub state: State,
    /// Where its short id was given, for records of that id.
    pub id_lsn: AriaLsn,
    /// Pages of rows.
    pub data: Pages,
    /// Pages of keys.
    pub index: Pages,
    /// What encrypts its pages, if they are encrypted.
    pub crypt: Option<Crypt>,
    header: Vec<u8>,
    /// A server would have written the state when it had applied the log.
    pub state_changed: bool,
    /// Whether it was changed since it was opened.
    pub touched: bool,
    /// The pages that the group which is being applied has changed.
    pub pinned: Vec<(Which, u64)>,
}

/// What a name in the log stands for.
pub enum Opened {
    /// A table.
    Table(Box<Table>),
    /// A table without a log.
    NotTransactional,
    /// Nothing: it was dropped or renamed later.
    Absent,
}

impl Table {
    /// Opens the table that the log calls `name`.
    pub fn open(
        dir: &Path,
        name: &str,
        block: usize,
        uuid: &[u8; 16],
        keys: &Arc<KeyStore>,
    ) -> Result<Opened> {
        let parts: Vec<&str> = name.split('/').collect();
        let [".", database, table] = parts.as_slice() else {
            return Err(Leave::Unsupported(format!("the log has the table {name:?}")).into());
        };
        if [database, table].iter().any(|part| part.is_empty() || part.starts_with('.')) {
            return Err(Leave::Unsupported(format!("the log has the table {name:?}")).into());
        }
        let path = dir.join(database);
        let index = Pages::open(path.join(format!("{table}.MAI")))?;
        let data = Pages::open(path.join(format!("{table}.MAD")))?;
        let (Some(index), Some(data)) = (index, data) else { return Ok(Opened::Absent) };
        let damaged =
            |what: &str| Leave::Damaged { file: format!("{name}.MAI"), what: what.into() };
        // The header may be longer than a page, but not than the two bytes of its length say.
        let mut header = index.start(65536)?;
        if header.get(..4) != Some(&header::MAGIC) {
            return Err(damaged("its header is none of a known version").into());
        }
        let read = |at| u8_at(&header, usize::from(u16_at(&header, header::BASE)?) + at);
        if read(base::TRANSACTIONAL) == Some(0) {
            return Ok(Opened::NotTransactional);
        }
        let shape = Shape::parse(&header, block, uuid)
            .ok_or_else(|| damaged("its header is cut short"))?
            .map_err(|what| Leave::Unsupported(format!("{name} {what}")))?;
        let crypt = match shape.key_version {
            0 => None,
            _ => {
                let unsupported = |why: String| Leave::Unsupported(format!("{name} {why}"));
                let crypt = Crypt::parse(&header, keys)
                    .ok_or_else(|| unsupported("is encrypted in an unknown way".to_owned()))?;
                crypt.check().map_err(|error| unsupported(format!("is encrypted: {error}")))?;
                Some(crypt)
            }
        };
        let state = State::parse(&header).ok_or_else(|| damaged("its header is cut short"))?;
        header.truncate(header::KEY_ROOTS + 8 * state.roots.len() + header::KEY_MAP + 8);
        let mut table = Self {
            name: name.to_owned(),
            shape,
            state,
            id_lsn: AriaLsn::NONE,
            data,
            index,
            crypt,
            header,
            state_changed: false,
            touched: false,
            pinned: Vec::new(),
        };
        if table.state.first_bitmap > table.state.data_file_length / block as u64 {
            table.state.first_bitmap = 0;
        }
        Ok(Opened::Table(Box::new(table)))
    }

    fn pages(&self, which: Which) -> &Pages {
        match which {
            Which::Data => &self.data,
            Which::Index => &self.index,
        }
    }

    fn pages_mut(&mut self, which: Which) -> &mut Pages {
        match which {
            Which::Data => &mut self.data,
            Which::Index => &mut self.index,
        }
    }

    /// A page as it is by now.
    pub fn page(&self, which: Which, number: u64, check: Check) -> Result<Found> {
        self.pages(which).page(number, check, &self.shape, self.crypt.as_ref())
    }

    /// A page that must be whole.
    pub fn whole_page(&self, which: Which, number: u64, check: Check) -> Result<Box<[u8]>> {
        match self.page(which, number, check)? {
            Found::Page(page) => Ok(page),
            Found::Unusable => {
                let end = if which == Which::Data { "MAD" } else { "MAI" };
                let what = format!("page {number} is not whole");
                Err(Leave::Damaged { file: format!("{}.{end}", self.name), what }.into())
            }
        }
    }

    /// Keeps a changed page.
    pub fn keep(&mut self, which: Which, number: u64, check: Check, page: Box<[u8]>) {
        self.pages_mut(which).keep(number, check, page);
    }

    /// A page of a file that has changed before, to change it further.
    pub fn kept_page(&mut self, which: Which, number: u64) -> Option<&mut [u8]> {
        self.pages_mut(which).kept(number)
    }

    /// Keeps a page that gets its LSN when the group ends.
    pub fn pin(&mut self, which: Which, number: u64, check: Check, page: Box<[u8]>) {
        self.keep(which, number, check, page);
        self.pinned.push((which, number));
    }

    /// Ends a group: its pages get its LSN.
    pub fn unpin(&mut self, lsn: AriaLsn) {
        for (which, number) in std::mem::take(&mut self.pinned) {
            if let Some(page) = self.kept_page(which, number)
                && AriaLsn::read(page).is_some_and(|old| old < lsn)
            {
                let _ = put(page, 0, &lsn.to_bytes());
            }
        }
    }

    /// Removes all rows.
    pub fn empty(&mut self) -> Result<()> {
        let (block, keys_begin) = (self.shape.block as u64, self.shape.keys_begin);
        if keys_begin > self.index.physical() || keys_begin < self.header.len() as u64 {
            let what = "its keys begin nowhere".to_owned();
            return Err(Leave::Damaged { file: format!("{}.MAI", self.name), what }.into());
        }
        self.data.cut(0);
        self.index.cut(keys_begin);
        let bitmap = vec![0; self.shape.block].into_boxed_slice();
        self.keep(Which::Data, 0, Check::Bitmap, bitmap);
        let state = &mut self.state;
        (state.records, state.checksum, state.changed, state.open_count) = (0, 0, 0, 0);
        (state.data_file_length, state.key_file_length) = (block, keys_begin);
        state.roots.fill(NO_OFFSET);
        for (at, field) in [
            (header::DELETED, 0_u64),
            (header::PARTS, 0),
            (header::FIRST_DELETED, NO_OFFSET),
            (header::DATA_FREE, 0),
            (header::KEY_FREE, 0),
        ] {
            // The header was this long when it was read.
            let _ = put(&mut self.header, at, &field.to_be_bytes());
        }
        let _ = put(&mut self.header, header::SORT_KEY, &[0xff]);
        self.touched = true;
        Ok(())
    }

    /// Uses all keys; some may not be in use while a table is filled.
    pub fn use_all_keys(&mut self) {
        let keys = self.state.roots.len() as u32 - 1;
        let map = 1_u64.checked_shl(keys).map_or(u64::MAX, |bit| bit - 1);
        let at = header::KEY_ROOTS + 8 * self.state.roots.len() + header::KEY_MAP;
        let _ = put(&mut self.header, at, &map.to_be_bytes());
    }

    /// Number of pages kept.
    pub fn kept(&self) -> usize {
        self.data.changed() + self.index.changed()
    }

    /// Whether a page of keys has changed.
    pub fn has_changed_keys(&self) -> bool {
        self.index.changed() > 0
    }

    /// The start of the index file with the state as it is now.
    pub fn header(&self) -> Vec<u8> {
        let state = &self.state;
        let mut out = self.header.clone();
        let mut fields: Vec<(usize, Vec<u8>)> = vec![
            (header::OPEN_COUNT, state.open_count.to_be_bytes().into()),
            (header::CHANGED, state.changed.to_be_bytes().into()),
            (header::BIRTH, state.birth.to_bytes().into()),
            (header::HORIZON, state.horizon.to_bytes().into()),
            (header::SKIP_REDO, state.skip_redo.to_bytes().into()),
            (header::RECORDS, state.records.to_be_bytes().into()),
            (header::FIRST_BITMAP, state.first_bitmap.to_be_bytes().into()),
            (header::KEY_FILE_LENGTH, state.key_file_length.to_be_bytes().into()),
            (header::DATA_FILE_LENGTH, state.data_file_length.to_be_bytes().into()),
            (header::AUTO_INCREMENT, state.auto_increment.to_be_bytes().into()),
            (header::CHECKSUM, u64::from(state.checksum).to_be_bytes().into()),
        ];
        for (number, root) in state.roots.iter().enumerate() {
            fields.push((header::KEY_ROOTS + 8 * number, root.to_be_bytes().into()));
        }
        for (at, field) in fields {
            // The header was this long when it was read.
            let _ = put(&mut out, at, &field);
        }
        out
    }
}

impl Shape {
    /// Bytes before the rows of a page: LSN, type, sizes of the directory, free bytes.
    pub fn row_header(&self) -> usize {
        12 + self.key_version
    }

    /// Bytes before the content of a page of a blob: LSN and type.
    pub fn blob_header(&self) -> usize {
        8 + self.key_version
    }

    /// Bytes before the keys of a page: LSN, transaction, number of the key, flags, bytes used.
    pub fn key_page_header(&self) -> usize {
        17 + self.key_version
    }

    /// Bytes of a page of keys that are in use, its header among them.
    pub fn key_page_used(&self, page: &[u8]) -> usize {
        u16_at(page, self.key_page_header() - 2).map_or(0, usize::from)
    }

    /// `None` when the header is cut short; the inner error says why the table is not supported.
    fn parse(
        header: &[u8],
        block: usize,
        uuid: &[u8; 16],
    ) -> Option<std::result::Result<Self, &'static str>> {
        let base = header.get(usize::from(u16_at(header, header::BASE)?)..)?;
        if u16_at(header, header::STATE_SIZE)? != header::KNOWN_STATE_SIZE {
            return Some(Err("has a state of an unknown size"));
        }
        if u8_at(header, header::ROW_FORMAT)? != header::BLOCK_ROWS {
            return Some(Err("has an unknown row format"));
        }
        if usize::from(u16_at(base, base::BLOCK_SIZE)?) != block {
            return Some(Err("has pages of another size"));
        }
        if base.get(base::UUID..base::UUID + 16)? != uuid {
            return Some(Err("comes from another installation"));
        }
        let options = u16_at(header, header::OPTIONS)?;
        Some(Ok(Self {
            block,
            keys_begin: u64_at(base, base::KEYS_BEGIN)?,
            min_row: u32_at(base, base::MIN_ROW)? as usize,
            blobs: u16_at(base, base::BLOBS)?.into(),
            live_checksum: options & option::LIVE_CHECKSUM != 0,
            page_checksum: options & option::PAGE_CHECKSUM != 0,
            key_version: match u16_at(base, base::EXTRA_OPTIONS)? & base::ENCRYPTED {
                0 => 0,
                _ => 4,
            },
            auto_key: match u8_at(base, base::AUTO_KEY)? {
                0 => None,
                number => Some(AutoKey::find(base.get(base::KEY_DEFINITIONS..)?, number - 1)?),
            },
        }))
    }
}

impl State {
    fn parse(header: &[u8]) -> Option<Self> {
        let keys = usize::from(u8_at(header, header::KEYS)?);
        let lsn = |at| header.get(at..).and_then(AriaLsn::read);
        Some(Self {
            open_count: u16_at(header, header::OPEN_COUNT)?,
            changed: u16_at(header, header::CHANGED)?,
            birth: lsn(header::BIRTH)?,
            horizon: lsn(header::HORIZON)?,
            skip_redo: lsn(header::SKIP_REDO)?,
            records: u64_at(header, header::RECORDS)?,
            first_bitmap: u64_at(header, header::FIRST_BITMAP)?,
            key_file_length: u64_at(header, header::KEY_FILE_LENGTH)?,
            data_file_length: u64_at(header, header::DATA_FILE_LENGTH)?,
            auto_increment: u64_at(header, header::AUTO_INCREMENT)?,
            checksum: u64_at(header, header::CHECKSUM)? as u32,
            roots: (0..=keys)
                .map(|key| u64_at(header, header::KEY_ROOTS + 8 * key))
                .collect::<Option<_>>()?,
        })
    }
}
