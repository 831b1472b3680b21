//! The event that begins a group, and the list of what came before a file.
//!
//! Fields of a GTID event follow one another as its flags say; behind them are zeros, of which
//! there may be thousands.

use crate::bytes::{Bytes, Malformed, Read};
use crate::event::control::XaName;
use crate::gtid::Gtid;

/// Flags of a GTID event.
pub mod flag {
    /// The group is one statement, which no COMMIT or XID follows.
    pub const STANDALONE: u8 = 0x01;
    /// The group was committed together with others, whose number follows.
    pub const GROUP_COMMIT: u8 = 0x02;
    /// The group can be rolled back.
    pub const TRANSACTIONAL: u8 = 0x04;
    /// The group may be applied in parallel.
    pub const ALLOW_PARALLEL: u8 = 0x08;
    /// The group waited for a row lock.
    pub const WAITED: u8 = 0x10;
    /// The group has DDL.
    pub const DDL: u8 = 0x20;
    /// The group ends with XA PREPARE.
    pub const PREPARED_XA: u8 = 0x40;
    /// The group is XA COMMIT or XA ROLLBACK.
    pub const COMPLETED_XA: u8 = 0x80;
}

/// More flags of a GTID event.
pub mod extra {
    /// Several engines took part; how many more than one follows.
    pub const MULTI_ENGINE: u8 = 0x01;
    /// The first half of an ALTER TABLE.
    pub const START_ALTER: u8 = 0x02;
    /// The second half.
    pub const COMMIT_ALTER: u8 = 0x04;
    /// The second half of one that failed.
    pub const ROLLBACK_ALTER: u8 = 0x08;
    /// The connection's number follows.
    pub const THREAD_ID: u8 = 0x10;
}

/// The beginning of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtidEvent<'a> {
    /// Number of the transaction.
    pub gtid: Gtid,
    /// See [`flag`].
    pub flags: u8,
    /// Number of the group commit.
    pub commit_id: Option<u64>,
    /// Which XA transaction.
    pub xa: Option<XaName<'a>>,
    /// See [`extra`].
    pub extra_flags: u8,
    /// Engines beyond one.
    pub extra_engines: Option<u8>,
    /// Sequence number of the first half of an ALTER TABLE.
    pub start_alter: Option<u64>,
    /// Number of the connection.
    pub thread_id: Option<u32>,
}

impl<'a> GtidEvent<'a> {
    /// Reads the body of an event with this server id.
    pub fn parse(body: &'a [u8], server: u32) -> Read<Self> {
        let mut bytes = Bytes(body);
        let sequence = bytes.u64("sequence number")?;
        let domain = bytes.u32("domain")?;
        let flags = bytes.u8("flags")?;
        let commit_id = match flags & flag::GROUP_COMMIT {
            0 => None,
            _ => Some(bytes.u64("commit id")?),
        };
        let xa = match flags & (flag::PREPARED_XA | flag::COMPLETED_XA) {
            0 => None,
            _ => {
                let format = bytes.u32("format of the XA name")?;
                let (global, branch) = (bytes.u8("XA name")?, bytes.u8("XA name")?);
                let global = bytes.take(global.into(), "XA name")?;
                let branch = bytes.take(branch.into(), "XA name")?;
                Some(XaName { format, global, branch })
            }
        };
        let mut event = Self {
            gtid: Gtid { domain, server, sequence },
            flags,
            commit_id,
            xa,
            extra_flags: 0,
            extra_engines: None,
            start_alter: None,
            thread_id: None,
        };
        if bytes.0.is_empty() {
            return Ok(event);
        }
        event.extra_flags = bytes.u8("more flags")?;
        if event.extra_flags & extra::MULTI_ENGINE != 0 {
            event.extra_engines = Some(bytes.u8("engines")?);
        }
        if event.extra_flags & (extra::COMMIT_ALTER | extra::ROLLBACK_ALTER) != 0 {
            event.start_alter = Some(bytes.u64("beginning of ALTER")?);
        }
        if event.extra_flags & extra::THREAD_ID != 0 {
            event.thread_id = Some(bytes.u32("thread id")?);
        }
        Ok(event)
    }

    /// Whether one of these flags is set.
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Whether one of these more flags is set.
    pub const fn has_extra(&self, flags: u8) -> bool {
        self.extra_flags & flags != 0
    }
}

/// Bits of the first word of a list that count.
const COUNT_MASK: u32 = (1 << 28) - 1;

/// Bytes of an entry of a list.
const ENTRY_LEN: usize = 16;

/// The newest transactions before a file, one for each domain and server; the last one of a domain
/// is its newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GtidList {
    /// In the order of the file.
    pub entries: Vec<Gtid>,
    /// Flags, which no file has.
    pub flags: u8,
}

impl GtidList {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        let word = bytes.u32("count")?;
        let count = (word & COUNT_MASK) as usize;
        if count > bytes.0.len() / ENTRY_LEN {
            return Err(Malformed("count"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (domain, server) = (bytes.u32("domain")?, bytes.u32("server id")?);
            entries.push(Gtid { domain, server, sequence: bytes.u64("sequence number")? });
        }
        Ok(Self { entries, flags: (word >> 28) as u8 })
    }
}
