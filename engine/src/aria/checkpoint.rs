//! The record of a checkpoint: what was going on when it was made.
//!
//! | length | field |
//! |---|---|
//! | 7 | where the log ended |
//! | 2, 7, 6 | number of open transactions, where the first of them begins to matter, greatest id |
//! | 2, 6, 7, 7 | each: short id, id, LSN of its last and first record that undoes something |
//! | 4 | number of transactions that had ended |
//! | 6, 7 | each |
//! | 4 | number of open tables |
//! | 2, 7, name | each: short id, LSN of the record that gave the id, name and a zero byte |
//! | 8 | number of changed pages that were not in their files |
//! | 2, 1, 5, 7 | each: short id of the table, whether it is the index, page, LSN of the oldest change |

use std::collections::HashMap;

use super::bytes::Fields;
use super::lsn::AriaLsn;
use super::pages::Which;

/// What a checkpoint says.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// Where the log ended.
    pub start: AriaLsn,
    /// Where the open transactions begin to matter.
    pub first_of_transactions: AriaLsn,
    /// Greatest transaction id.
    pub max_transaction: u64,
    /// Open transactions: short id, id, LSN of the last record that undoes something.
    pub transactions: Vec<(u16, u64, AriaLsn)>,
    /// Open tables: short id, LSN of the record that gave it, name.
    pub tables: Vec<(u16, AriaLsn, String)>,
    /// Changed pages that were not in their files, with their oldest change.
    pub pages: HashMap<(u16, Which, u64), AriaLsn>,
}

impl Checkpoint {
    /// Reads the content of the record.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let mut checkpoint = Self { start: fields.lsn()?, ..Self::default() };
        let transactions = fields.u16()?;
        checkpoint.first_of_transactions = fields.lsn()?;
        checkpoint.max_transaction = fields.transaction()?;
        for _ in 0..transactions {
            let (short, long, undo) = (fields.u16()?, fields.transaction()?, fields.lsn()?);
            fields.lsn()?;
            checkpoint.transactions.push((short, long, undo));
        }
        let ended = fields.u32()? as usize;
        fields.bytes(ended.checked_mul(6 + AriaLsn::SIZE)?)?;
        // The counts are hostile, but every item takes bytes of the record.
        for _ in 0..fields.u32()? {
            let (short, lsn) = (fields.u16()?, fields.lsn()?);
            let name = std::str::from_utf8(fields.name()?).ok()?;
            checkpoint.tables.push((short, lsn, name.to_owned()));
        }
        for _ in 0..fields.u64()? {
            let short = fields.u16()?;
            let which = if fields.u8()? == 0 { Which::Data } else { Which::Index };
            let (page, lsn) = (fields.page()?, fields.lsn()?);
            checkpoint.pages.insert((short, which, page), lsn);
        }
        fields.rest().is_empty().then_some(checkpoint)
    }

    /// The record of a checkpoint at which nothing was going on.
    pub fn of_nothing(end: AriaLsn, max_transaction: u64) -> Vec<u8> {
        let mut body = end.to_bytes().to_vec();
        body.extend([0; 2]);
        body.extend(AriaLsn::MAX.to_bytes());
        body.extend(max_transaction.to_le_bytes().iter().take(6));
        body.extend([0; 4 + 4 + 8]);
        body
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_checkpoint_of_nothing_is_read_again() {
        let end = AriaLsn::new(1, 0x0855_5db5);
        let body = Checkpoint::of_nothing(end, 0x27a7);
        assert_eq!(body.len(), 38);
        let read = Checkpoint::parse(&body).unwrap();
        assert_eq!((read.start, read.max_transaction), (end, 0x27a7));
        assert!(read.transactions.is_empty() && read.tables.is_empty() && read.pages.is_empty());
        for cut in 0..body.len() {
            assert!(Checkpoint::parse(&body[..cut]).is_none());
        }
        assert!(Checkpoint::parse(&[&body[..], &[0]].concat()).is_none());
    }

    #[test]
    fn tables_and_pages_are_read_and_wild_counts_refused() {
        let mut body = AriaLsn::new(2, 9000).to_bytes().to_vec();
        body.extend([1, 0]);
        body.extend(AriaLsn::new(2, 8500).to_bytes());
        body.extend([9, 0, 0, 0, 0, 0]);
        body.extend([7, 0, 8, 0, 0, 0, 0, 0]);
        body.extend(AriaLsn::new(2, 8700).to_bytes());
        body.extend(AriaLsn::new(2, 8600).to_bytes());
        body.extend([0; 4]);
        body.extend([1, 0, 0, 0, 5, 0]);
        body.extend(AriaLsn::new(1, 8300).to_bytes());
        body.extend(b"./g/a\0");
        let tables = body.len();
        body.extend([1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 4, 0, 0, 0, 0]);
        body.extend(AriaLsn::new(1, 8400).to_bytes());
        let read = Checkpoint::parse(&body).unwrap();
        assert_eq!(read.transactions, [(7, 8, AriaLsn::new(2, 8700))]);
        assert_eq!(read.tables, [(5, AriaLsn::new(1, 8300), "./g/a".to_owned())]);
        assert_eq!(read.pages[&(5, Which::Index, 4)], AriaLsn::new(1, 8400));
        body[tables..tables + 8].fill(0xff);
        assert!(Checkpoint::parse(&body).is_none());
    }
}
