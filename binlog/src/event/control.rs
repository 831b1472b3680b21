//! Events without a statement: where logs and transactions end, what went wrong.

use std::fmt::Write;

use crate::bytes::{Bytes, Malformed, Read};

/// The next file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate<'a> {
    /// Where to begin in it: always 4.
    pub position: u64,
    /// Its name.
    pub file: &'a [u8],
}

impl<'a> Rotate<'a> {
    /// Reads the body.
    pub fn parse(body: &'a [u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        Ok(Self { position: bytes.u64("position")?, file: bytes.0 })
    }
}

/// The name in a BINLOG_CHECKPOINT event: the oldest file that a crash of the server needs.
pub fn checkpoint(body: &[u8]) -> Read<&[u8]> {
    let mut bytes = Bytes(body);
    let length = bytes.u32("length of the file name")?;
    bytes.take(usize::try_from(length).map_err(|_| Malformed("file name"))?, "file name")
}

/// The end of a transaction, with the number that engines know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xid(pub u64);

impl Xid {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Read<Self> {
        Bytes(body).u64("xid").map(Self)
    }
}

/// Longest of both parts of the name of an XA transaction.
const XA_PART_MAX: u32 = 64;

/// The name of an XA transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XaName<'a> {
    /// Format, as its client numbered it.
    pub format: u32,
    /// Global part.
    pub global: &'a [u8],
    /// Branch.
    pub branch: &'a [u8],
}

impl XaName<'_> {
    /// As statements have it: `X'61',X'62',1`.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(2 * (self.global.len() + self.branch.len()) + 24);
        for part in [self.global, self.branch] {
            text.push_str("X'");
            for byte in part {
                let _ = write!(text, "{byte:02x}");
            }
            text.push_str("',");
        }
        let _ = write!(text, "{}", self.format);
        text
    }
}

/// The end of the first phase of an XA transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// Whether it was committed at once.
    pub one_phase: bool,
    /// Which.
    pub name: XaName<'a>,
}

impl<'a> XaPrepare<'a> {
    /// Reads the body.
    pub fn parse(body: &'a [u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        let one_phase = bytes.u8("one phase")? != 0;
        let format = bytes.u32("format of the XA name")?;
        let (global, branch) = (bytes.u32("XA name")?, bytes.u32("XA name")?);
        if global > XA_PART_MAX || branch > XA_PART_MAX {
            return Err(Malformed("XA name"));
        }
        let global = bytes.take(global as usize, "XA name")?;
        let branch = bytes.take(branch as usize, "XA name")?;
        Ok(Self { one_phase, name: XaName { format, global, branch } })
    }
}

/// Something that a replica must not pass over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident<'a> {
    /// 1: events were lost.
    pub number: u16,
    /// In words.
    pub message: &'a [u8],
}

impl<'a> Incident<'a> {
    /// Reads the body.
    pub fn parse(body: &'a [u8]) -> Read<Self> {
        let mut bytes = Bytes(body);
        let number = bytes.u16("incident")?;
        let message = if bytes.0.is_empty() { &[] } else { bytes.short_text("message")? };
        Ok(Self { number, message })
    }

    /// The server's name for it, if it is one that there is.
    pub const fn known_name(&self) -> Option<&'static str> {
        match self.number {
            1 => Some("LOST_EVENTS"),
            _ => None,
        }
    }

    /// A name for it.
    pub const fn name(&self) -> &'static str {
        match self.known_name() {
            Some(name) => name,
            None => "UNKNOWN",
        }
    }
}

/// A sign of life on a connection; in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    /// Position, if the header has no room for it.
    pub position: Option<u64>,
    /// The file that is being sent.
    pub file: &'a [u8],
}

impl<'a> Heartbeat<'a> {
    /// Reads the body of an event whose header names `end_position`.
    pub fn parse(body: &'a [u8], end_position: u32) -> Read<Self> {
        let mut bytes = Bytes(body);
        let position = match end_position {
            0 => Some(bytes.u64("position")?),
            _ => None,
        };
        Ok(Self { position, file: bytes.0 })
    }
}
