//! What every event begins with, and the types of events.

use crate::bytes::{Bytes, Read};

/// Bytes of the header of every event.
pub const HEADER_LEN: usize = 19;

/// Bytes of a checksum at the end of an event.
pub const CHECKSUM_LEN: usize = 4;

/// Where the fields of a header are.
pub mod at {
    /// Seconds since 1970, u32.
    pub const TIMESTAMP: usize = 0;
    /// Type, u8.
    pub const TYPE: usize = 4;
    /// Server that wrote it first, u32.
    pub const SERVER_ID: usize = 5;
    /// Length of the whole event, u32.
    pub const LENGTH: usize = 9;
    /// Position behind it, u32. 0 in groups of servers from 11.4 on.
    pub const END_POSITION: usize = 13;
    /// Flags, u16.
    pub const FLAGS: usize = 17;
}

/// Flags of a header.
pub mod flag {
    /// The file is open or was not closed; only in the first event.
    pub const IN_USE: u16 = 0x1;
    /// Depends on the connection: a temporary table.
    pub const THREAD_SPECIFIC: u16 = 0x4;
    /// The default database does not matter.
    pub const SUPPRESS_USE: u16 = 0x8;
    /// Made by the primary for a replica; in no file.
    pub const ARTIFICIAL: u16 = 0x20;
    /// A reader that does not know the type skips it.
    pub const IGNORABLE: u16 = 0x80;
    /// Written with `skip_replication=1`.
    pub const SKIP_REPLICATION: u16 = 0x8000;
}

/// The header of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970: when the statement began.
    pub timestamp: u32,
    /// What it is.
    pub kind: EventType,
    /// The server that wrote it first.
    pub server_id: u32,
    /// Bytes of the whole event.
    pub length: u32,
    /// Position behind it, as far as 32 bits go; 0 if the server did not know it.
    pub end_position: u32,
    /// See [`flag`].
    pub flags: u16,
}

impl Header {
    /// Reads the header at the beginning of `event`.
    pub fn parse(event: &[u8]) -> Read<Self> {
        let mut bytes = Bytes(event);
        Ok(Self {
            timestamp: bytes.u32("timestamp")?,
            kind: EventType(bytes.u8("type")?),
            server_id: bytes.u32("server id")?,
            length: bytes.u32("length")?,
            end_position: bytes.u32("end position")?,
            flags: bytes.u16("flags")?,
        })
    }

    /// Whether a flag is set.
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// What an event is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(pub u8);

macro_rules! event_types {
    ($($number:literal $constant:ident $name:literal)*) => {
        impl EventType {
            $(#[doc = concat!("`", $name, "`")] pub const $constant: Self = Self($number);)*

            /// The name that the stock tools print, if there is one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    1 START_V3 "Start_v3"
    2 QUERY "Query"
    3 STOP "Stop"
    4 ROTATE "Rotate"
    5 INTVAR "Intvar"
    6 LOAD "Load"
    7 SLAVE "Slave"
    8 CREATE_FILE "Create_file"
    9 APPEND_BLOCK "Append_block"
    10 EXEC_LOAD "Exec_load"
    11 DELETE_FILE "Delete_file"
    12 NEW_LOAD "New_load"
    13 RAND "RAND"
    14 USER_VAR "User var"
    15 FORMAT_DESCRIPTION "Format_desc"
    16 XID "Xid"
    17 BEGIN_LOAD_QUERY "Begin_load_query"
    18 EXECUTE_LOAD_QUERY "Execute_load_query"
    19 TABLE_MAP "Table_map"
    20 PRE_GA_WRITE_ROWS "Write_rows_event_old"
    21 PRE_GA_UPDATE_ROWS "Update_rows_event_old"
    22 PRE_GA_DELETE_ROWS "Delete_rows_event_old"
    23 WRITE_ROWS_V1 "Write_rows_v1"
    24 UPDATE_ROWS_V1 "Update_rows_v1"
    25 DELETE_ROWS_V1 "Delete_rows_v1"
    26 INCIDENT "Incident"
    27 HEARTBEAT "Heartbeat"
    28 IGNORABLE "Ignorable"
    29 ROWS_QUERY "MySQL Rows_query"
    30 WRITE_ROWS "Write_rows"
    31 UPDATE_ROWS "Update_rows"
    32 DELETE_ROWS "Delete_rows"
    33 MYSQL_GTID "MySQL Gtid"
    34 MYSQL_ANONYMOUS_GTID "MySQL Anonymous_Gtid"
    35 MYSQL_PREVIOUS_GTIDS "MySQL Previous_gtids"
    36 MYSQL_TRANSACTION_CONTEXT "MySQL Transaction_context"
    37 MYSQL_VIEW_CHANGE "MySQL View_change"
    38 XA_PREPARE "XA_prepare"
    39 MYSQL_PARTIAL_UPDATE "MySQL Update_rows_partial"
    40 MYSQL_TRANSACTION_PAYLOAD "MySQL Transaction_payload"
    41 MYSQL_HEARTBEAT_V2 "MySQL Heartbeat_v2"
    160 ANNOTATE_ROWS "Annotate_rows"
    161 BINLOG_CHECKPOINT "Binlog_checkpoint"
    162 GTID "Gtid"
    163 GTID_LIST "Gtid_list"
    164 START_ENCRYPTION "Start_encryption"
    165 QUERY_COMPRESSED "Query_compressed"
    166 WRITE_ROWS_COMPRESSED_V1 "Write_rows_compressed_v1"
    167 UPDATE_ROWS_COMPRESSED_V1 "Update_rows_compressed_v1"
    168 DELETE_ROWS_COMPRESSED_V1 "Delete_rows_compressed_v1"
    169 WRITE_ROWS_COMPRESSED "Write_rows_compressed"
    170 UPDATE_ROWS_COMPRESSED "Update_rows_compressed"
    171 DELETE_ROWS_COMPRESSED "Delete_rows_compressed"
}

/// What rows events do to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `INSERT`
    Write,
    /// `UPDATE`
    Update,
    /// `DELETE`
    Delete,
}

/// What kind of rows event a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsType {
    /// What it does.
    pub operation: Operation,
    /// Whether it has the header of version 2.
    pub second_version: bool,
    /// Whether the rows are compressed.
    pub compressed: bool,
}

impl EventType {
    /// For events of rows, which kind.
    pub const fn rows(self) -> Option<RowsType> {
        use Operation::{Delete, Update, Write};
        let (operation, second_version, compressed) = match self {
            Self::WRITE_ROWS_V1 => (Write, false, false),
            Self::UPDATE_ROWS_V1 => (Update, false, false),
            Self::DELETE_ROWS_V1 => (Delete, false, false),
            Self::WRITE_ROWS => (Write, true, false),
            Self::UPDATE_ROWS => (Update, true, false),
            Self::DELETE_ROWS => (Delete, true, false),
            Self::WRITE_ROWS_COMPRESSED_V1 => (Write, false, true),
            Self::UPDATE_ROWS_COMPRESSED_V1 => (Update, false, true),
            Self::DELETE_ROWS_COMPRESSED_V1 => (Delete, false, true),
            Self::WRITE_ROWS_COMPRESSED => (Write, true, true),
            Self::UPDATE_ROWS_COMPRESSED => (Update, true, true),
            Self::DELETE_ROWS_COMPRESSED => (Delete, true, true),
            _ => return None,
        };
        Some(RowsType { operation, second_version, compressed })
    }

    /// The type of the same event when it is not compressed.
    pub const fn plain(self) -> Self {
        match self {
            Self::QUERY_COMPRESSED => Self::QUERY,
            Self(number @ 166..=168) => Self(number - 166 + 23),
            Self(number @ 169..=171) => Self(number - 169 + 30),
            other => other,
        }
    }

    /// The type of the event that undoes an event of rows.
    pub const fn reversed(self) -> Self {
        match self {
            Self::WRITE_ROWS_V1 => Self::DELETE_ROWS_V1,
            Self::DELETE_ROWS_V1 => Self::WRITE_ROWS_V1,
            Self::WRITE_ROWS => Self::DELETE_ROWS,
            Self::DELETE_ROWS => Self::WRITE_ROWS,
            other => other,
        }
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

impl std::fmt::Debug for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
