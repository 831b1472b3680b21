//! Seeded random load: changes of rows and of tables, in several threads.
//!
//! Everything a worker does follows from the seed; how workers meet each other does not. All
//! of it replicates exactly under row-based binary logging, so a copy that was attached as a
//! replica must end up equal to its source.
//!
//! Each worker owns its tables: only it changes their definition. Rows are changed by
//! everybody, which is why errors such as "no such table" are part of the game. Errors that
//! are not are counted and fail the test.

mod ddl;
mod dml;
mod names;
mod options;
mod shape;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use fastrand::Rng;

use crate::client::SqlError;
use crate::{Client, Result, Server};
use ddl::{Change, Namer};
use names::{DATABASES, Name};
pub use options::TableOptions;
pub use shape::Mix;
use shape::Shape;

/// Errors that follow from threads getting in each other's way, or from a table's limits.
const EXPECTED_ERRORS: &[u16] = &[
    1020, // record has changed since last read
    1031, // the table has another engine meanwhile
    1049, 1050, 1051, 1146, // unknown database, table exists, unknown table, no such table
    1359, // trigger exists: its table was renamed meanwhile
    1054, // unknown column: the definition changed meanwhile
    1062, // duplicate entry
    1071, 1118, // key or row too long for small pages
    1178, // SAVEPOINT behind a change to a table whose engine has none
    1205, 1213, // lock wait timeout, deadlock
    1264, 1406, 1690, // value out of range or too long
    1412, // table definition has changed
    1478, // options that do not go together, after an ALTER of one of them
    1416, // a spatial table has taken the place of one without a geometry
    1526, // no partition for the value
    1615, // prepared statement needs to be prepared again
    1859, // duplicate entry that an ALTER met among the changes made meanwhile
    1659, // field type not allowed in partitioning
    4084, 4089, 4091, // the sequence has run out, is another kind of table now, or is gone
];

/// How much of what.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Everything follows from this.
    pub seed: u64,
    /// Workers.
    pub threads: usize,
    /// Rows of each table that exists before the load starts.
    pub rows: u64,
    /// Which kinds of tables there are.
    pub mix: Mix,
    /// What InnoDB tables are created with.
    pub tables: TableOptions,
    /// Whether tables are created, changed and dropped.
    pub ddl: bool,
    /// Pause between statements, to leave the machine some air.
    pub pause: Duration,
    /// Replication domains that the workers log in.
    pub domains: usize,
}

impl LoadOptions {
    /// Four workers with DDL.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            threads: 4,
            rows: 800,
            mix: Mix::Everything,
            tables: TableOptions::default(),
            ddl: true,
            pause: Duration::from_millis(1),
            domains: 1,
        }
    }
}

/// A table that a worker owns.
#[derive(Clone, Debug)]
struct Table {
    name: Name,
    shape: Shape,
}

/// What a load did.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Statements that changed rows.
    pub changes: u64,
    /// Statements that changed definitions.
    pub definitions: u64,
    /// Expected errors.
    pub refused: u64,
    /// The last statements that changed definitions and were refused: a server that fails in
    /// the middle of one may have done half of it without logging it.
    pub refused_definitions: Vec<String>,
    /// Errors that a healthy server does not give, by text.
    pub unexpected: BTreeMap<String, u64>,
}

impl LoadReport {
    fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.definitions += other.definitions;
        self.refused += other.refused;
        self.refused_definitions.extend(other.refused_definitions);
        for (text, count) in other.unexpected {
            *self.unexpected.entry(text).or_default() += count;
        }
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    turn: Arc<RwLock<()>>,
    workers: Vec<JoinHandle<Result<LoadReport>>>,
}

/// Tables of all workers, for those who want to change other people's rows.
type Board = Arc<Mutex<Vec<Vec<Table>>>>;

fn lock(board: &Board) -> MutexGuard<'_, Vec<Vec<Table>>> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Creates the databases and, for each worker, tables of all shapes; then starts.
    pub fn start(server: &Server, options: &LoadOptions) -> Result<Self> {
        let mut client = server.client()?;
        for database in DATABASES {
            client.run(&format!("CREATE DATABASE IF NOT EXISTS `{database}`"))?;
        }
        let board: Board = Arc::new(Mutex::new(vec![Vec::new(); options.threads]));
        let turn = Arc::new(RwLock::new(()));
        let mut workers = Vec::new();
        for number in 0..options.threads {
            let mut worker = Worker {
                turn: Arc::clone(&turn),
                client: server.client()?,
                rng: Rng::with_seed(options.seed.wrapping_mul(1009).wrapping_add(number as u64)),
                namer: Namer::new(number),
                number,
                options: options.clone(),
                board: Arc::clone(&board),
                report: LoadReport::default(),
            };
            worker.set_up()?;
            workers.push(worker);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let workers = workers
            .into_iter()
            .map(|worker| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || worker.work(&stop))
            })
            .collect();
        Ok(Self { stop, turn, workers })
    }

    /// Runs `work` while no statement is running. Transactions may be open.
    pub fn paused<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Stops the workers and tells what they did. Fails when the server gave an error that a
    /// healthy one does not give.
    pub fn stop(mut self) -> Result<LoadReport> {
        let report = self.join()?;
        ensure!(report.unexpected.is_empty(), "the load met errors: {:#?}", report.unexpected);
        Ok(report)
    }

    /// Stops the workers of a server that was killed; their errors are of no interest.
    pub fn abandon(mut self) {
        let _ = self.join();
    }

    fn join(&mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = LoadReport::default();
        for worker in self.workers.drain(..) {
            report.add(worker.join().map_err(|_| anyhow!("a load thread panicked"))??);
        }
        Ok(report)
    }
}

/// A test that fails must not leave threads behind that keep the server busy.
impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

struct Worker {
    turn: Arc<RwLock<()>>,
    client: Client,
    rng: Rng,
    namer: Namer,
    number: usize,
    options: LoadOptions,
    board: Board,
    report: LoadReport,
}

impl Worker {
    fn set_up(&mut self) -> Result<()> {
        for setting in [
            "SET SESSION innodb_lock_wait_timeout = 3",
            "SET SESSION lock_wait_timeout = 30",
            "SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION'",
        ] {
            self.client.run(setting)?;
        }
        let domain = self.number % self.options.domains.max(1);
        if domain > 0 {
            self.client.run(&format!("SET SESSION gtid_domain_id = {domain}"))?;
        }
        // The shapes are dealt out, so that every one of them exists from the start.
        for shape in self.options.mix.all().skip(self.number).step_by(self.options.threads) {
            let name = self.namer.name(&mut self.rng);
            let (rows, options) = (self.options.rows, &self.options.tables);
            let operation = ddl::create(shape, options, name, rows, &mut self.rng);
            for statement in &operation.statements {
                self.client.run(statement)?;
            }
            self.remember(operation.change);
        }
        Ok(())
    }

    fn work(mut self, stop: &AtomicBool) -> Result<LoadReport> {
        while !stop.load(Ordering::Relaxed) {
            match self.rng.u32(0..100) {
                0..=24 if self.options.ddl => self.change_definitions(),
                25..=54 => self.transaction(stop),
                55 => self.bulk(),
                _ => {
                    if let Some(table) = self.pick(|_| true) {
                        let statement = dml::statement(&table, &mut self.rng);
                        self.change(&statement);
                    }
                }
            }
            // A lost connection repeats its error for ever.
            if self.report.unexpected.len() > 5 {
                break;
            }
            std::thread::sleep(self.options.pause);
        }
        Ok(self.report)
    }

    /// Several statements on InnoDB tables, of which a third are rolled back and some stay open
    /// for a while: those a copy holds only half of.
    fn transaction(&mut self, stop: &AtomicBool) {
        if !self.change("BEGIN") {
            return;
        }
        for step in 0..self.rng.u32(1..8) {
            let Some(table) = self.pick(Shape::is_innodb) else { break };
            let statement = match self.rng.u32(0..12) {
                0 => format!("SAVEPOINT s{step}"),
                1 => dml::bulk(&table, &mut self.rng),
                _ => dml::statement(&table, &mut self.rng),
            };
            self.change(&statement);
        }
        if self.rng.u32(0..10) == 0 && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(self.rng.u64(10..400)));
        }
        let end = if self.rng.u32(0..3) == 0 { "ROLLBACK" } else { "COMMIT" };
        self.change(end);
    }

    fn bulk(&mut self) {
        if let Some(table) = self.pick(|_| true) {
            let statement = dml::bulk(&table, &mut self.rng);
            self.change(&statement);
        }
    }

    fn change_definitions(&mut self) {
        let tables = lock(&self.board)[self.number].clone();
        let operation = ddl::operation(&tables, &self.options, &mut self.namer, &mut self.rng);
        let mut all_done = true;
        for statement in &operation.statements {
            if let Err(error) = self.attempt(statement) {
                self.report.refused_definitions.push(error.to_string());
                all_done = false;
            }
            self.report.definitions += 1;
        }
        if all_done {
            self.remember(operation.change);
        }
    }

    fn remember(&mut self, change: Change) {
        let mut board = lock(&self.board);
        let tables = &mut board[self.number];
        match change {
            Change::None => {}
            Change::Add(table) => tables.push(table),
            Change::Remove(at) => drop(tables.swap_remove(at)),
            Change::Replace(at, table) => tables[at] = table,
            Change::Swap(a, b) => {
                let shape = tables[a].shape;
                tables[a].shape = tables[b].shape;
                tables[b].shape = shape;
            }
        }
    }

    /// A table of anybody whose shape fits.
    fn pick(&mut self, fits: impl Fn(Shape) -> bool) -> Option<Table> {
        let board = lock(&self.board);
        let owner = self.rng.usize(0..board.len());
        let tables: Vec<&Table> = board[owner].iter().filter(|table| fits(table.shape)).collect();
        if tables.is_empty() {
            return None;
        }
        Some(tables[self.rng.usize(0..tables.len())].clone())
    }

    fn change(&mut self, statement: &str) -> bool {
        self.report.changes += 1;
        self.attempt(statement).is_ok()
    }

    fn attempt(&mut self, statement: &str) -> std::result::Result<(), SqlError> {
        let turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
        let done = self.client.run(statement);
        drop(turn);
        let Err(error) = done else { return Ok(()) };
        if EXPECTED_ERRORS.contains(&error.code) {
            self.report.refused += 1;
        } else {
            *self.report.unexpected.entry(error.to_string()).or_default() += 1;
        }
        Err(error)
    }
}
