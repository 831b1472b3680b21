//! The positions that InnoDB keeps: of the last transaction that each rollback segment committed, in
//! the binary log, and in a Galera cluster.
//!
//! That in the binary log can be older than the position in `*_binlog_info`, and knows no GTID. That in
//! the cluster is exact: it is written by the mini-transaction that commits.

use std::collections::HashMap;
use std::fmt;
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
    /// Behind the name: an XID that says where in a cluster the transaction was.
    pub const XID: usize = BINLOG_NAME + BINLOG_NAME_SIZE;
}

/// Fields of that XID. Numbers are big-endian, but for what is in its text.
mod xid {
    /// 1 if there is one.
    pub const FORMAT: usize = 0;
    pub const TEXT: usize = 12;
    /// A name, and a letter for the version, of which all have the same beginning.
    pub const PREFIX: &[u8] = b"WSREPXi";
    pub const UUID: std::ops::Range<usize> = TEXT + 8..TEXT + 24;
    /// Little-endian.
    pub const SEQNO: std::ops::Range<usize> = TEXT + 24..TEXT + 32;
}

/// A position in a Galera cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterPosition {
    uuid: [u8; 16],
    seqno: i64,
}

impl fmt::Display for ClusterPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.uuid.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        write!(f, ":{}", self.seqno)
    }
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

/// The newest positions of all rollback segments.
pub fn newest(
    spaces: &HashMap<SpaceId, Tablespace>,
) -> Result<(Option<BinlogPosition>, Option<ClusterPosition>)> {
    let Some(trx_sys) = read(spaces, SpaceId::SYSTEM, TRX_SYS)? else { return Ok((None, None)) };
    let (mut binlog, mut cluster): (_, Option<ClusterPosition>) = (None, None);
    for slot in 0..SLOT_COUNT {
        let at = SLOTS + 8 * slot;
        let (Some(space), Some(page)) = (u32_at(&trx_sys, at), u32_at(&trx_sys, at + 4)) else {
            break;
        };
        if PageNo(page) == PageNo::NULL {
            continue;
        }
        if let Some(page) = read(spaces, SpaceId(space), PageNo(page))? {
            binlog = binlog.max(position(&page));
            let found = cluster_position(&page);
            if found.is_some_and(|found| cluster.is_none_or(|newest| found.seqno > newest.seqno)) {
                cluster = found;
            }
        }
    }
    Ok((binlog, cluster))
}

fn cluster_position(page: &[u8]) -> Option<ClusterPosition> {
    let xid = page.get(segment::SLOTS + page.len() / 4 + segment::XID..)?;
    let is_one = u32_at(page, segment::FORMAT)? == 0
        && u32_at(xid, xid::FORMAT)? == 1
        && xid.get(xid::TEXT..)?.starts_with(xid::PREFIX);
    let uuid = xid.get(xid::UUID)?.try_into().ok()?;
    let seqno = i64::from_le_bytes(xid.get(xid::SEQNO)?.try_into().ok()?);
    (is_one && seqno >= 0).then_some(ClusterPosition { uuid, seqno })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_in_a_cluster_is_read_from_a_segment() {
        let mut page = vec![0; 16 << 10];
        assert_eq!(cluster_position(&page), None);
        let at = segment::SLOTS + page.len() / 4 + segment::XID;
        page[at + 3] = 1;
        page[at + xid::TEXT..][..8].copy_from_slice(b"WSREPXif");
        page[at + xid::UUID.start..][..16].copy_from_slice(&[0xab; 16]);
        page[at + xid::SEQNO.start..][..8].copy_from_slice(&77i64.to_le_bytes());
        let text = cluster_position(&page).map(|position| position.to_string());
        assert_eq!(text.as_deref(), Some("abababab-abab-abab-abab-abababababab:77"));
        page[at + xid::SEQNO.end - 1] = 0x80;
        assert_eq!(cluster_position(&page), None);
        for cut in [0, 40, at, at + 20] {
            assert_eq!(cluster_position(&page[..cut]), None);
        }
    }
}
