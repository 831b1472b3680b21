//! Rows of sequences, for servers that die when BINLOG has them: 10.5 does, whoever sends it.
//!
//! A log does not say that a table is a sequence, but the columns of one are always the same. What is
//! no sequence and looks like one makes the server refuse the statement, which ends the replay.

use binlog::Operation;
use binlog::dump::push_name;
use binlog::event::TableMap;
use binlog::event::rows::Rows;
use binlog::format::Version;

/// Servers from here on take the rows.
const TAKES_ROWS: Version = (10, 11, 0);

/// The types of the columns: six numbers, whether it goes round, how often it did.
const TYPES: [u8; 8] = [8, 8, 8, 8, 8, 8, 1, 8];

/// Where things are in a row, behind a byte that says that nothing is NULL.
mod at {
    /// The value that comes next, i64.
    pub const NEXT: usize = 1;
    /// How often it has gone round, i64.
    pub const ROUND: usize = 50;
    /// Bytes of a row.
    pub const END: usize = 58;
}

/// A table that looks like a sequence.
pub(super) struct Sequence {
    /// Its number in the statement.
    pub number: u64,
    /// Its name, quoted.
    name: Vec<u8>,
}

impl Sequence {
    /// The sequence of a table map, if the server needs to be spared its rows.
    pub(super) fn of(map: &TableMap<'_>, server: Version) -> Option<Self> {
        if server >= TAKES_ROWS || map.types != TYPES {
            return None;
        }
        let mut name = Vec::new();
        push_name(&mut name, map.database);
        name.push(b'.');
        push_name(&mut name, map.name);
        Some(Self { number: map.table, name })
    }

    /// The statement that does the same as writing one whole row.
    pub(super) fn statement(&self, rows: &Rows<'_>) -> Option<Vec<u8>> {
        let is_whole = rows.operation == Operation::Write
            && rows.width == TYPES.len()
            && rows.columns == [0xff]
            && rows.images.len() == at::END
            && rows.images.first() == Some(&0);
        let number = |at: usize| {
            rows.images.get(at..)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))
        };
        let (next, round) = (number(at::NEXT)?, number(at::ROUND)?);
        is_whole.then(|| {
            let mut sql = b"DO SETVAL(".to_vec();
            sql.extend_from_slice(&self.name);
            sql.extend_from_slice(format!(",{next},0,{round})").as_bytes());
            sql
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The body of a map of `d`.`s` with these types.
    fn map(types: &[u8]) -> Vec<u8> {
        let mut body = vec![9, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b's', 0, types.len() as u8];
        body.extend_from_slice(types);
        body.extend_from_slice(&[0, 0]);
        body
    }

    #[test]
    fn rows_of_sequences_become_statements() {
        let body = map(&TYPES);
        let sequence = TableMap::parse(&body).unwrap();
        assert!(Sequence::of(&sequence, (10, 11, 19)).is_none());
        let sequence = Sequence::of(&sequence, (10, 5, 23)).unwrap();
        let mut image = [0; at::END];
        image[at::NEXT] = 21;
        image[at::ROUND] = 2;
        let mut rows = Rows {
            operation: Operation::Write,
            table: 9,
            flags: 1,
            extra: &[],
            width: 8,
            columns: &[0xff],
            columns_after: &[],
            images: &image,
        };
        assert_eq!(sequence.statement(&rows).unwrap(), b"DO SETVAL(`d`.`s`,21,0,2)");
        rows.operation = Operation::Delete;
        assert!(sequence.statement(&rows).is_none());
        let body = map(&TYPES[..7]);
        assert!(Sequence::of(&TableMap::parse(&body).unwrap(), (10, 5, 23)).is_none());
    }
}
