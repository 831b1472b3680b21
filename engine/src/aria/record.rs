//! The kinds of records in Aria's log, as one table.
//!
//! A record is of a fixed length, or says its length itself. Records that undo something begin
//! with the LSN of the record before them in their transaction, which is stored shortened.
//!
//! What belongs together is a group: records that change pages, ended by the record that undoes
//! the change. Groups of different transactions are interleaved. A group without its end was never
//! finished, and does not count.

use super::lsn::AriaLsn;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InsertRowHead,
    InsertRowTail,
    NewRowHead,
    NewRowTail,
    InsertRowBlobs,
    PurgeRowHead,
    PurgeRowTail,
    FreeBlocks,
    FreeHeadOrTail,
    Index,
    IndexNewPage,
    IndexFreePage,
    Compensation,
    UndoRowInsert,
    UndoRowDelete,
    UndoRowUpdate,
    UndoKeyInsert,
    UndoKeyInsertWithRoot,
    UndoKeyDelete,
    UndoKeyDeleteWithRoot,
    Commit,
    Checkpoint,
    CreateTable,
    RenameTable,
    DropTable,
    DeleteAll,
    RepairTable,
    FileId,
    LongTransactionId,
    IncompleteLog,
    IncompleteGroup,
    UndoBulkInsert,
    BitmapNewPage,
    ImportedTable,
    DebugInfo,
}

/// How long a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This many bytes.
    Fixed(usize),
    /// As many as it says.
    Variable,
}

/// A record's place in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// More records follow.
    Part,
    /// It ends the group.
    Last,
    /// It is a group of its own.
    Alone,
}

/// A row of the table: number, kind, length, LSNs at the start, role.
type Row = (u8, Kind, Length, usize, Role);

/// The lengths are those of the fields named behind them: `i` the table's short id (2 bytes), `p` a
/// page (5), `d` a place in a page's directory (1).
const TABLE: &[Row] = &[
    (1, Kind::InsertRowHead, Length::Variable, 0, Role::Part), // i p d row
    (2, Kind::InsertRowTail, Length::Variable, 0, Role::Part), // i p d row
    (3, Kind::NewRowHead, Length::Variable, 0, Role::Part),    // i p d row
    (4, Kind::NewRowTail, Length::Variable, 0, Role::Part),    // i p d row
    (5, Kind::InsertRowBlobs, Length::Variable, 0, Role::Part), // i ranges data
    (6, Kind::PurgeRowHead, Length::Fixed(8), 0, Role::Part),  // i p d
    (7, Kind::PurgeRowTail, Length::Fixed(8), 0, Role::Part),  // i p d
    (8, Kind::FreeBlocks, Length::Variable, 0, Role::Part),    // i ranges
    (9, Kind::FreeHeadOrTail, Length::Fixed(7), 0, Role::Part), // i p
    (12, Kind::Index, Length::Variable, 0, Role::Part),        // i p operations
    (13, Kind::IndexNewPage, Length::Variable, 0, Role::Part), // i p p key root page
    (14, Kind::IndexFreePage, Length::Fixed(12), 0, Role::Part), // i p p
    (16, Kind::Compensation, Length::Variable, 1, Role::Last), // lsn i type
    (18, Kind::UndoRowInsert, Length::Variable, 1, Role::Last), // lsn i p d
    (19, Kind::UndoRowDelete, Length::Variable, 1, Role::Last), // lsn i p d 2 2
    (20, Kind::UndoRowUpdate, Length::Variable, 1, Role::Last), // lsn i p d
    (21, Kind::UndoKeyInsert, Length::Variable, 1, Role::Last), // lsn i key value
    (22, Kind::UndoKeyInsertWithRoot, Length::Variable, 1, Role::Last), // never in a log
    (23, Kind::UndoKeyDelete, Length::Variable, 1, Role::Last), // lsn i key value
    (24, Kind::UndoKeyDeleteWithRoot, Length::Variable, 1, Role::Last), // lsn i key p value
    (27, Kind::Commit, Length::Fixed(0), 0, Role::Alone),
    (29, Kind::Checkpoint, Length::Variable, 0, Role::Alone),
    (30, Kind::CreateTable, Length::Variable, 0, Role::Alone),
    (31, Kind::RenameTable, Length::Variable, 0, Role::Alone),
    (32, Kind::DropTable, Length::Variable, 0, Role::Alone),
    (33, Kind::DeleteAll, Length::Fixed(2), 0, Role::Alone), // i
    (34, Kind::RepairTable, Length::Fixed(18), 0, Role::Alone), // i 8 8
    (35, Kind::FileId, Length::Variable, 0, Role::Alone),    // i name
    (36, Kind::LongTransactionId, Length::Fixed(6), 0, Role::Alone), // 6
    (37, Kind::IncompleteLog, Length::Fixed(2), 0, Role::Alone), // i
    (38, Kind::IncompleteGroup, Length::Fixed(0), 0, Role::Alone),
    (39, Kind::UndoBulkInsert, Length::Variable, 1, Role::Last), // lsn i
    (40, Kind::BitmapNewPage, Length::Fixed(12), 0, Role::Alone), // i p p
    (41, Kind::ImportedTable, Length::Variable, 0, Role::Alone), // name
    (42, Kind::DebugInfo, Length::Variable, 0, Role::Alone),
];

/// What is known of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The kind.
    pub kind: Kind,
    /// Its length.
    pub length: Length,
    /// Shortened LSNs at the start, each 7 bytes of [`Record::body`].
    pub lsns: usize,
    /// Its place in its group.
    pub role: Role,
}

/// Looks up the number of a kind.
pub fn describe(number: u8) -> Option<Description> {
    let row = TABLE.binary_search_by_key(&number, |row| row.0).ok()?;
    let (_, kind, length, lsns, role) = *TABLE.get(row)?;
    Some(Description { kind, length, lsns, role })
}

/// The number of a kind.
pub fn number_of(kind: Kind) -> u8 {
    TABLE.iter().find(|row| row.1 == kind).map_or(0, |row| row.0)
}

/// A record, put together from its pieces.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it begins.
    pub lsn: AriaLsn,
    /// What it is.
    pub kind: Kind,
    /// Its place in its group.
    pub role: Role,
    /// Short id of its transaction; 0 for none.
    pub transaction: u16,
    /// Its content, with LSNs in full.
    pub body: Vec<u8>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_is_in_order_and_has_every_kind_once() {
        assert!(TABLE.windows(2).all(|rows| rows[0].0 < rows[1].0));
        for row in TABLE {
            assert_eq!(describe(row.0).unwrap().kind, row.1);
            assert_eq!(number_of(row.1), row.0);
        }
        assert!(describe(0).is_none() && describe(10).is_none() && describe(63).is_none());
    }
}
