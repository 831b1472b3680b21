//! The binary log position that InnoDB keeps: of the last transaction that each rollback segment
//! committed.
//!
//! It can be older than the position in `*_binlog_info`, and knows no GTID.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use innodb::bytes::{u32_at, u64_at};
use innodb::{PageNo, SpaceId};

use super::codec::CodecScratch;
use super::inventory::Tablespace;
use crate::{Error, Result};

/// The transaction system page of the system tablespace.
const TRX_SYS: PageNo = PageNo(5);
/// Slots of rollback segments on it: tablespace and page of each.
const SLOTS: usize = 56;
/// How many.
const SLOT_COUNT: usize = 128;

/// Fields of a rollback segment's header page, which lie behind the array of undo slots.
mod segment {
    pub const FORMAT: usize = 38;
    pub const SLOTS: usize = 72;
    pub const BINLOG_OFFSET: usize = 8;
    pub const BINLOG_NAME: usize = 16;
    pub const BINLOG_NAME_SIZE: usize = 512;
}

/// A binary log position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BinlogPosition {
    /// Name as the server wrote it.
    pub file: Vec<u8>,
    /// Offset in the file.
    pub offset: u64,
}

impl BinlogPosition {
    /// The line that `xtrabackup_binlog_pos_innodb` consists of.
    pub fn line(&self) -> Vec<u8> {
        let mut line = self.file.clone();
        line.extend(format!("\t{}\n", self.offset).into_bytes());
        line
    }
}

/// The newest position of all rollback segments.
pub fn binlog(spaces: &HashMap<SpaceId, Tablespace>) -> Result<Option<BinlogPosition>> {
    let Some(trx_sys) = read(spaces, SpaceId::SYSTEM, TRX_SYS)? else { return Ok(None) };
    let mut newest = None;
    for slot in 0..SLOT_COUNT {
        let at = SLOTS + 8 * slot;
        let (Some(space), Some(page)) = (u32_at(&trx_sys, at), u32_at(&trx_sys, at + 4)) else {
            break;
        };
        if PageNo(page) == PageNo::NULL {
            continue;
        }
        if let Some(page) = read(spaces, SpaceId(space), PageNo(page))? {
            newest = newest.max(position(&page));
        }
    }
    Ok(newest)
}

fn position(page: &[u8]) -> Option<BinlogPosition> {
    if u32_at(page, segment::FORMAT)? != 0 {
        return None;
    }
    let fields = page.get(segment::SLOTS + page.len() / 4..)?;
    let name = fields.get(segment::BINLOG_NAME..)?.get(..segment::BINLOG_NAME_SIZE)?;
    let name = name.split(|&b| b == 0).next().filter(|name| !name.is_empty())?;
    Some(BinlogPosition { file: name.to_vec(), offset: u64_at(fields, segment::BINLOG_OFFSET)? })
}

fn read(
    spaces: &HashMap<SpaceId, Tablespace>,
    id: SpaceId,
    page: PageNo,
) -> Result<Option<Vec<u8>>> {
    let Some(space) = spaces.get(&id) else { return Ok(None) };
    let Some((_, file, _)) = space.locate(page) else { return Ok(None) };
    let size = space.flags.physical_size().bytes();
    let mut buffer = vec![0; size];
    let offset = u64::from(page.0 - file.first_page.0) * size as u64;
    File::open(&file.path)
        .and_then(|f| f.read_exact_at(&mut buffer, offset))
        .map_err(|e| Error::io("read", &file.path, e))?;
    space.open(&mut buffer, page, file, &mut CodecScratch::default())?;
    Ok(Some(buffer))
}
