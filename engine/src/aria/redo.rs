//! From the log to tables as they will be.
//!
//! The log is read twice. The first time tells which transactions were open at its end. The second
//! time applies all the groups of the others, each when its end is seen, as a server does.
//!
//! A server would also apply the open transactions, and then undo them row by row. Here they are
//! left out, which comes to the same if it is possible at all: nothing of them may be in the files
//! yet, and nothing that is applied may be built upon them. Both are checked; where a check fails,
//! all is left to the server. Statements are short and tables are copied before the log, so checks
//! rarely fail.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::apply::{self, Flushed};
use super::bitmap::EMPTY;
use super::bytes::Fields;
use super::checkpoint::Checkpoint;
use super::control::Control;
use super::leave::{Leave, Result};
use super::left_out::LeftOut;
use super::log::Log;
use super::lsn::AriaLsn;
use super::pages::{Check, Found, Which};
use super::record::{Kind, Record, Role};
use super::table::{Opened, Table, changed};
use crate::Cancel;
use crate::keys::settings::KeyStore;

/// How many records are read between two looks at the cancel flag.
const STEP: u64 = 10_000;

/// What the log comes to.
pub struct Recovered {
    /// Tables that the log is about.
    pub tables: Vec<Table>,
    /// Greatest transaction id.
    pub max_transaction: u64,
    /// Records read.
    pub records: u64,
    /// Transactions that were open, and were left out.
    pub left_out: usize,
    /// Whether a server would make a checkpoint: it has looked at a table.
    pub checkpoint: bool,
}

/// A transaction while the log is read.
#[derive(Default)]
struct Transaction {
    /// Its id, 0 while it is not known: it ended long ago, then.
    long: u64,
    /// Where it began, if the log that was read has that.
    begin: Option<AriaLsn>,
    /// The last record that undoes something; none when there is nothing to undo.
    undo: AriaLsn,
}

/// Where to begin, and what was known there.
struct Start {
    at: Option<AriaLsn>,
    checkpoint: Checkpoint,
}

/// Works out what the log comes to. `memory` limits the pages that are kept.
pub fn recover(
    dir: &Path,
    control: &Control,
    keys: &Arc<KeyStore>,
    log: &mut Log,
    memory: usize,
    cancel: &Cancel,
) -> Result<Recovered> {
    let start = start(control, log)?;
    let survey = Survey::read(log, &start, cancel)?;
    let left_out = LeftOut::new(survey.open()?);
    let mut replay = Replay {
        dir,
        control,
        keys,
        checkpoint: &start.checkpoint,
        tables: Vec::new(),
        by_name: HashMap::new(),
        by_id: HashMap::new(),
        groups: HashMap::new(),
        grouped: 0,
        left_out,
        memory,
        looked: false,
    };
    for (short, lsn, name) in &start.checkpoint.tables {
        replay.open(*short, name, *lsn)?;
    }
    let mut at = start.at;
    let mut records = 0;
    while let Some(place) = at {
        let Some((record, next)) = log.next(place)? else { break };
        replay.record(record)?;
        records += 1;
        if records % STEP == 0 {
            cancel.check()?;
        }
        at = Some(next);
    }
    replay.finish(log.end(), records, survey.max_transaction.max(control.max_transaction))
}

fn start(control: &Control, log: &mut Log) -> Result<Start> {
    if !control.checkpoint.is_some() {
        let begin = log.begin();
        return Ok(Start { at: log.first_from(begin)?, checkpoint: Checkpoint::default() });
    }
    let lsn = control.checkpoint;
    let record = log.record(lsn)?.map(|found| found.0);
    let Some(record) = record.filter(|record| record.kind == Kind::Checkpoint) else {
        let what = "there is no checkpoint where the control file says";
        return Err(Leave::Record { lsn, what }.into());
    };
    let checkpoint = Checkpoint::parse(&record.body);
    let mut checkpoint =
        checkpoint.ok_or(Leave::Record { lsn, what: "its parts contradict each other" })?;
    let from = checkpoint.start.min(checkpoint.first_of_transactions);
    let Some(from) = log.first_from(from)? else {
        let what = "the log ends before its checkpoint";
        return Err(Leave::Record { lsn, what }.into());
    };
    checkpoint.start = from;
    let at = checkpoint.pages.values().copied().fold(from, AriaLsn::min);
    Ok(Start { at: Some(at), checkpoint })
}

/// The first reading.
struct Survey {
    transactions: HashMap<u16, Transaction>,
    max_transaction: u64,
}

impl Survey {
    fn read(log: &mut Log, start: &Start, cancel: &Cancel) -> Result<Self> {
        let known = start.checkpoint.transactions.iter().map(|(short, long, undo)| {
            (*short, Transaction { long: *long, begin: None, undo: *undo })
        });
        let mut survey = Self {
            transactions: known.collect(),
            max_transaction: start.checkpoint.max_transaction,
        };
        let (mut at, mut records) = (start.at, 0_u64);
        while let Some(place) = at {
            let Some((record, next)) = log.next(place)? else { break };
            survey.record(&record)?;
            records += 1;
            if records % STEP == 0 {
                cancel.check()?;
            }
            at = Some(next);
        }
        for transaction in survey.transactions.values() {
            survey.max_transaction = survey.max_transaction.max(transaction.long);
        }
        Ok(survey)
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        let short = Leave::Record { lsn: record.lsn, what: "it is cut short" };
        match record.kind {
            Kind::LongTransactionId => {
                let long = Fields::new(&record.body).transaction().ok_or(short)?;
                self.max_transaction = self.max_transaction.max(long);
                let transaction = self.transactions.entry(record.transaction).or_default();
                if transaction.long != 0
                    && transaction.undo.is_some()
                    && transaction.undo < record.lsn
                {
                    let what = "it begins a transaction while one of the same id is open";
                    return Err(Leave::Record { lsn: record.lsn, what }.into());
                }
                let begin = Some(record.lsn);
                *transaction = Transaction { long, begin, undo: AriaLsn::NONE };
            }
            Kind::Commit => {
                self.transactions.remove(&record.transaction);
            }
            Kind::Compensation => {
                let before = Fields::new(&record.body).lsn().ok_or(short)?;
                self.undo(record, before);
            }
            _ if record.role == Role::Last => self.undo(record, record.lsn),
            _ => {}
        }
        Ok(())
    }

    fn undo(&mut self, record: &Record, lsn: AriaLsn) {
        // One that is not known has ended long ago.
        if let Some(transaction) = self.transactions.get_mut(&record.transaction) {
            transaction.undo = lsn;
        }
    }

    /// The transactions that were open at the end: short id, and where they began.
    fn open(&self) -> Result<HashMap<u16, AriaLsn>> {
        let open = self.transactions.iter().filter(|(_, t)| t.undo.is_some());
        open.map(|(short, transaction)| match transaction.begin {
            Some(begin) => Ok((*short, begin)),
            None => Err(Leave::Open("it began before the checkpoint".to_owned()).into()),
        })
        .collect()
    }
}

/// The second reading.
struct Replay<'a> {
    dir: &'a Path,
    control: &'a Control,
    keys: &'a Arc<KeyStore>,
    checkpoint: &'a Checkpoint,
    tables: Vec<Table>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<u16, usize>,
    /// Groups that have not ended, by transaction.
    groups: HashMap<u16, Vec<Record>>,
    /// Bytes in them.
    grouped: usize,
    left_out: LeftOut,
    memory: usize,
    looked: bool,
}

/// The pages of one table that were not in their files at the checkpoint.
struct OfTable<'a> {
    checkpoint: &'a Checkpoint,
    short: u16,
}

impl Flushed for OfTable<'_> {
    fn is_flushed(&self, which: Which, page: u64, lsn: AriaLsn) -> bool {
        let since = || self.checkpoint.pages.get(&(self.short, which, page));
        lsn < self.checkpoint.start && since().is_none_or(|since| lsn < *since)
    }
}

impl Replay<'_> {
    fn record(&mut self, record: Record) -> Result<()> {
        match record.role {
            Role::Part => {
                self.grouped += record.body.len() + size_of::<Record>();
                self.check_memory()?;
                self.groups.entry(record.transaction).or_default().push(record);
                Ok(())
            }
            Role::Alone => {
                // What was begun before it was given up.
                self.take_group(record.transaction);
                self.alone(&record)
            }
            Role::Last => {
                let group = self.take_group(record.transaction);
                if self.left_out.is_left_out(record.transaction, record.lsn) {
                    return self.leave_out(&group, &record);
                }
                for part in &group {
                    if let Some((table, flushed)) = self.table(part, 0)? {
                        apply::apply(table, part, record.lsn, &flushed)?;
                    }
                    self.check_memory()?;
                }
                if let Some((table, _)) = self.table(&record, AriaLsn::SIZE)? {
                    if record.kind == Kind::UndoBulkInsert {
                        return Err(Leave::Lost(table.name.clone()).into());
                    }
                    apply::end_group(table, &record)?;
                } else if let Some(part) = group.first()
                    && let Some(table) = self.table(part, 0)?
                {
                    table.0.unpin(record.lsn);
                }
                Ok(())
            }
        }
    }

    fn take_group(&mut self, transaction: u16) -> Vec<Record> {
        let group = self.groups.remove(&transaction).unwrap_or_default();
        let bytes: usize = group.iter().map(|part| part.body.len() + size_of::<Record>()).sum();
        self.grouped = self.grouped.saturating_sub(bytes);
        group
    }

    fn alone(&mut self, record: &Record) -> Result<()> {
        match record.kind {
            // Definitions of tables are not recovered: the backup has them as they were at the end.
            Kind::FileId if record.lsn >= self.checkpoint.start => {
                let short = Leave::Record { lsn: record.lsn, what: "it is cut short" };
                let mut fields = Fields::new(&record.body);
                let (Some(id), Some(name)) = (fields.u16(), fields.name()) else {
                    return Err(short.into());
                };
                let name = std::str::from_utf8(name).map_err(|_| short)?.to_owned();
                if let Some(old) = self.by_id.remove(&id) {
                    self.prepare_close(old, record.lsn);
                    self.close(old);
                }
                self.open(id, &name, record.lsn)
            }
            Kind::DeleteAll => match self.table(record, 0)? {
                None => Ok(()),
                // It cannot be undone, and is done whether its transaction has ended or not.
                Some((table, _)) => table.empty(),
            },
            Kind::BitmapNewPage if record.lsn >= self.checkpoint.start => {
                let Some((table, _)) = self.table(record, 0)? else { return Ok(()) };
                let mut fields = Fields::new(&record.body);
                let pages = fields.u16().and_then(|_| Some((fields.page()?, fields.page()?)));
                let (from, to) =
                    pages.ok_or(Leave::Record { lsn: record.lsn, what: "it is cut short" })?;
                table.state.changed |= changed::DATA;
                table.make_bitmaps(from, to)
            }
            _ => Ok(()),
        }
    }

    /// The table that a record is about, if the record is to be applied to it at all. The table's
    /// id is `at` bytes into the record.
    fn table(&mut self, record: &Record, at: usize) -> Result<Option<(&mut Table, OfTable<'_>)>> {
        let short = record.body.get(at..).and_then(|rest| super::bytes::le16_at(rest, 0));
        let short = short.ok_or(Leave::Record { lsn: record.lsn, what: "it is cut short" })?;
        let Some(index) = self.by_id.get(&short) else { return Ok(None) };
        self.left_out.check_applied(*index, record.lsn)?;
        let Some(table) = self.tables.get_mut(*index) else { return Ok(None) };
        if record.lsn <= table.id_lsn || record.lsn <= table.state.skip_redo {
            return Ok(None);
        }
        table.touched = true;
        Ok(Some((table, OfTable { checkpoint: self.checkpoint, short })))
    }

    /// Takes note of a group of an open transaction.
    fn leave_out(&mut self, group: &[Record], last: &Record) -> Result<()> {
        let short = super::bytes::le16_at(&last.body, AriaLsn::SIZE);
        let short = short.ok_or(Leave::Record { lsn: last.lsn, what: "it is cut short" })?;
        let Some(index) = self.by_id.get(&short) else { return Ok(()) };
        let Some(table) = self.tables.get(*index) else { return Ok(()) };
        let first = group.first().map_or(last.lsn, |part| part.lsn);
        let filled = last.kind == Kind::UndoBulkInsert;
        if first <= table.id_lsn || (table.state.horizon > first && !filled) {
            let message = format!("the state of {} has its changes", table.name);
            return Err(Leave::Open(message).into());
        }
        if filled {
            return self.left_out.note_filled(*index, first);
        }
        self.left_out.note(*index, &table.shape, first, group)
    }

    fn check_memory(&self) -> Result<()> {
        let block = self.control.block_size + 128;
        let pages: usize = self.tables.iter().map(Table::kept).sum();
        let used = self.grouped + pages.saturating_mul(block) + self.left_out.memory();
        if used > self.memory { Err(Leave::Memory.into()) } else { Ok(()) }
    }

    /// Gives a table its short id, from `lsn` on.
    fn open(&mut self, short: u16, name: &str, lsn: AriaLsn) -> Result<()> {
        self.looked = true;
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None => {
                let Control { block_size, uuid, .. } = self.control;
                match Table::open(self.dir, name, *block_size, uuid, self.keys)? {
                    Opened::Absent | Opened::NotTransactional => return Ok(()),
                    Opened::Table(table) => self.tables.push(*table),
                }
                let index = self.tables.len() - 1;
                self.by_name.insert(name.to_owned(), index);
                index
            }
        };
        let earlier = self.by_id.iter().find(|(_, open)| **open == index).map(|(id, _)| *id);
        if let Some(earlier) = earlier {
            // The table is open under another id: it stays open.
            self.by_id.remove(&earlier);
            self.prepare_close(index, lsn);
        } else {
            let Some(table) = self.tables.get_mut(index) else { return Ok(()) };
            if lsn <= table.state.birth {
                // Made again since; a server closes it again, which is seen in its state.
                table.touched = true;
                self.close(index);
                return Ok(());
            }
            if table.state.changed & changed::CRASHED != 0 {
                let message = format!("{} is marked as crashed", table.name);
                return Err(Leave::Unsupported(message).into());
            }
            let block = table.shape.block;
            table.state.data_file_length = table.data.length(block);
            table.state.key_file_length = table.index.length(block);
        }
        if let Some(table) = self.tables.get_mut(index) {
            table.id_lsn = lsn;
        }
        self.by_id.insert(short, index);
        Ok(())
    }

    /// All of the log up to `horizon` is in the table.
    fn prepare_close(&mut self, index: usize, horizon: AriaLsn) {
        if let Some(table) = self.tables.get_mut(index)
            && table.state.horizon < horizon
            && table.id_lsn < horizon
        {
            table.state.horizon = horizon;
            table.state_changed = true;
        }
    }

    fn close(&mut self, index: usize) {
        let Some(table) = self.tables.get_mut(index) else { return };
        if table.has_changed_keys() && table.state.open_count == 0 {
            // Writing its keys marks it as being in use.
            table.state.changed |=
                changed::DATA | changed::NOT_ANALYZED | changed::NOT_OPTIMIZED_KEYS;
        }
        if table.touched || table.state.open_count != 0 {
            table.state_changed = true;
        }
        table.state.open_count = 0;
        table.touched = false;
    }

    fn finish(mut self, end: AriaLsn, records: u64, max_transaction: u64) -> Result<Recovered> {
        let open: Vec<usize> = self.by_id.values().copied().collect();
        for index in open {
            self.prepare_close(index, end);
            self.close(index);
        }
        let left_out = std::mem::take(&mut self.left_out);
        let count = left_out.transactions();
        self.check_left_out(left_out)?;
        self.check_memory()?;
        Ok(Recovered {
            tables: self.tables,
            max_transaction,
            records,
            left_out: count,
            checkpoint: self.looked,
        })
    }

    /// Makes sure that the files have nothing of the open transactions. Bitmaps may have: their
    /// bits are set to what the pages need.
    fn check_left_out(&mut self, left_out: LeftOut) -> Result<()> {
        for index in left_out.filled() {
            // Such a table was empty before, and its rows are not in the log.
            if let Some(table) = self.tables.get_mut(index) {
                table.empty()?;
                table.use_all_keys();
                table.state_changed = true;
            }
        }
        for ((index, which, page), first) in left_out.into_pages() {
            let Some(table) = self.tables.get_mut(index) else { continue };
            let check = if which == Which::Data { Check::Data } else { Check::Index };
            if let Found::Page(bytes) = table.page(which, page, check)?
                && AriaLsn::read(&bytes).is_none_or(|lsn| lsn >= first.lsn)
            {
                let message = format!("page {page} of {} has its changes", table.name);
                return Err(Leave::Open(message).into());
            }
            if which == Which::Data
                && (page + 1) * table.shape.block as u64 <= table.state.data_file_length
            {
                let bits = match first.bits {
                    Some(bits) => bits,
                    None => table.bits_by_content(page)?,
                };
                table.set_bits(page, bits)?;
                if bits == EMPTY {
                    table.lower_first_bitmap(page);
                }
            }
        }
        Ok(())
    }
}
