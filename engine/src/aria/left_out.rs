//! What open transactions changed, and what must be true so that they can be left out.

use std::collections::{BTreeSet, HashMap};

use super::apply::each_blob_page;
use super::bitmap::{EMPTY, FULL};
use super::bytes::Fields;
use super::leave::{Leave, Result};
use super::lsn::AriaLsn;
use super::pages::Which;
use super::record::{Kind, Record};
use super::table::Shape;

/// A page, by the number of its table.
type PageOf = (usize, Which, u64);

/// The first change of an open transaction to a page.
#[derive(Clone, Copy, Debug)]
pub struct First {
    /// The record.
    pub lsn: AriaLsn,
    /// What the page's bits were before it, where it is not the page's content that tells.
    pub bits: Option<u8>,
}

/// Open transactions and what they changed.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Short id, and where it began.
    open: HashMap<u16, AriaLsn>,
    /// From where on each table belongs to them.
    tables: HashMap<usize, AriaLsn>,
    pages: HashMap<PageOf, First>,
    /// Tables that they fill without a log, which were empty before.
    filled: BTreeSet<usize>,
}

impl LeftOut {
    /// For these transactions: short id, and where each began.
    pub fn new(open: HashMap<u16, AriaLsn>) -> Self {
        Self { open, ..Self::default() }
    }

    /// Number of transactions.
    pub fn transactions(&self) -> usize {
        self.open.len()
    }

    /// Bytes that this takes, about.
    pub fn memory(&self) -> usize {
        self.pages.len() * 2 * size_of::<(PageOf, First)>()
    }

    /// Whether a record is one of an open transaction.
    pub fn is_left_out(&self, transaction: u16, lsn: AriaLsn) -> bool {
        self.open.get(&transaction).is_some_and(|begin| lsn > *begin)
    }

    /// A record of another transaction must not be built on what is left out.
    pub fn check_applied(&self, table: usize, lsn: AriaLsn) -> Result<()> {
        match self.tables.get(&table) {
            Some(from) if lsn > *from => {
                let message = format!("another changed the same table after it, at {lsn}");
                Err(Leave::Open(message).into())
            }
            _ => Ok(()),
        }
    }

    /// Takes note of a table that is filled without a log, from `first` on.
    pub fn note_filled(&mut self, table: usize, first: AriaLsn) -> Result<()> {
        if self.tables.insert(table, first).is_some() {
            let message = "it had changed a table before it filled the table without a log";
            return Err(Leave::Open(message.to_owned()).into());
        }
        self.filled.insert(table);
        Ok(())
    }

    /// Tables that were filled without a log.
    pub fn filled(&self) -> Vec<usize> {
        self.filled.iter().copied().collect()
    }

    /// Takes note of a group that is left out, which begins at `first`.
    pub fn note(
        &mut self,
        table: usize,
        shape: &Shape,
        first: AriaLsn,
        group: &[Record],
    ) -> Result<()> {
        if self.filled.contains(&table) {
            // Emptied in the end, whatever else was put into it.
            return Ok(());
        }
        let from = self.tables.entry(table).or_insert(first);
        *from = first.min(*from);
        for record in group {
            let lsn = record.lsn;
            self.note_pages(table, shape, record)
                .ok_or(Leave::Record { lsn, what: "it is cut short" })?;
        }
        Ok(())
    }

    fn note_pages(&mut self, table: usize, shape: &Shape, record: &Record) -> Option<()> {
        let mut fields = Fields::new(&record.body);
        fields.u16()?;
        let lsn = record.lsn;
        let mut note = |which, page, bits| {
            self.pages.entry((table, which, page)).or_insert(First { lsn, bits });
        };
        match record.kind {
            Kind::InsertRowBlobs => {
                each_blob_page(&record.body, fields, shape, |page, _| {
                    note(Which::Data, page, Some(EMPTY));
                })?;
            }
            Kind::FreeBlocks => {
                for _ in 0..fields.u16()? {
                    let page = fields.page()?;
                    let count = u64::from(fields.u16()? & 0x3fff);
                    for page in page..page + count {
                        note(Which::Data, page, Some(FULL));
                    }
                }
            }
            Kind::NewRowHead | Kind::NewRowTail => note(Which::Data, fields.page()?, Some(EMPTY)),
            Kind::Index | Kind::IndexNewPage | Kind::IndexFreePage => {
                note(Which::Index, fields.page()?, None);
            }
            _ => note(Which::Data, fields.page()?, None),
        }
        Some(())
    }

    /// The pages that were changed.
    pub fn into_pages(self) -> impl Iterator<Item = (PageOf, First)> {
        self.pages.into_iter()
    }
}
