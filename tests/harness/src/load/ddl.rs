//! Random changes of tables and databases.
//!
//! A thread changes only tables of its own, so it knows what exists. The statements of one
//! operation run in order; what the worker remembers changes only when all of them succeeded.

use fastrand::Rng;

use super::names::{DATABASES, Name};
use super::shape::{Access, Mix, Shape};
use super::{LoadOptions, Table, TableOptions, dml};

/// What the worker has to remember after an operation.
pub enum Change {
    /// Nothing.
    None,
    /// A new table.
    Add(Table),
    /// The table at this index is gone.
    Remove(usize),
    /// The table at this index is now this one.
    Replace(usize, Table),
    /// Two tables took each other's name.
    Swap(usize, usize),
}

/// The statements of one operation, and what they change.
pub struct Operation {
    pub statements: Vec<String>,
    pub change: Change,
}

impl Operation {
    fn plain(statements: impl IntoIterator<Item = String>) -> Self {
        Self { statements: statements.into_iter().collect(), change: Change::None }
    }
}

/// Makes up new names for one worker.
pub struct Namer {
    owner: usize,
    next: u32,
    /// A name that was dropped; using it again is what trips careless tools.
    freed: Option<Name>,
}

impl Namer {
    /// For the worker `owner`.
    pub fn new(owner: usize) -> Self {
        Self { owner, next: 0, freed: None }
    }

    /// A name that does not exist, often one that did a moment ago.
    pub fn name(&mut self, rng: &mut Rng) -> Name {
        if rng.bool()
            && let Some(name) = self.freed.take()
        {
            return name;
        }
        self.next += 1;
        Name::new(self.owner, self.next, rng)
    }
}

/// Creates and fills a table.
pub fn create(
    shape: Shape,
    options: &TableOptions,
    name: Name,
    rows: u64,
    rng: &mut Rng,
) -> Operation {
    let members = [name.with_suffix("_m1").to_string(), name.with_suffix("_m2").to_string()];
    let mut statements = shape.create(&name.to_string(), &members);
    let options = options.pick(shape, rng);
    if !options.is_empty() {
        for statement in &mut statements {
            *statement = statement.replace("ENGINE=InnoDB", &format!("ENGINE=InnoDB {options}"));
        }
    }
    let table = Table { name, shape };
    statements.extend(dml::fill(&table, rows, rng));
    Operation { statements, change: Change::Add(table) }
}

/// One random operation on the tables that the worker owns.
pub fn operation(
    tables: &[Table],
    options: &LoadOptions,
    namer: &mut Namer,
    rng: &mut Rng,
) -> Operation {
    let create_one = |namer: &mut Namer, rng: &mut Rng| {
        create(options.mix.pick(rng), &options.tables, namer.name(rng), rng.u64(1..300), rng)
    };
    if tables.len() < 4 {
        return create_one(namer, rng);
    }
    let at = rng.usize(0..tables.len());
    let table = &tables[at];
    match rng.u32(0..20) {
        0..=2 if tables.len() < 16 => create_one(namer, rng),
        0..=3 => drop_table(at, table, namer),
        4..=6 => rename(at, table, namer.name(rng)),
        7 => swap(tables, at, rng),
        8..=9 => truncate(table),
        10..=11 => match options.tables.change(table.shape, rng) {
            Some(change) => Operation::plain([format!("ALTER TABLE {} {change}", table.name)]),
            None => Operation::plain([rebuild(table, rng)]),
        },
        12..=15 => Operation::plain(alter(table, rng)),
        // Of an ARCHIVE table it damages the first bytes of every blob: servers (10.5, 11.8) pack a row
        // over itself.
        16 if table.shape != Shape::Archive => {
            Operation::plain([format!("OPTIMIZE TABLE {}", table.name)])
        }
        17 => partitions(table, rng),
        18 => database(options, namer, rng),
        _ => view_or_trigger(table, rng),
    }
}

fn drop_table(at: usize, table: &Table, namer: &mut Namer) -> Operation {
    let statement = match table.shape {
        Shape::Sequence => format!("DROP SEQUENCE {}", table.name),
        Shape::Merge => format!(
            "DROP TABLE {}, {}, {}",
            table.name,
            table.name.with_suffix("_m1"),
            table.name.with_suffix("_m2")
        ),
        _ => format!("DROP TABLE {}", table.name),
    };
    namer.freed = Some(table.name.clone());
    Operation { statements: vec![statement], change: Change::Remove(at) }
}

fn rename(at: usize, table: &Table, to: Name) -> Operation {
    // The members of a MERGE table are found by their names, and a table with a trigger cannot
    // leave its database.
    let mut to = to;
    to.database.clone_from(&table.name.database);
    if table.shape == Shape::Merge {
        return Operation::plain([]);
    }
    let statement = format!("RENAME TABLE {} TO {to}", table.name);
    let renamed = Table { name: to, shape: table.shape };
    Operation { statements: vec![statement], change: Change::Replace(at, renamed) }
}

/// Two tables take each other's name in one statement.
fn swap(tables: &[Table], at: usize, rng: &mut Rng) -> Operation {
    let other = rng.usize(0..tables.len());
    let (a, b) = (&tables[at], &tables[other]);
    let merge = a.shape == Shape::Merge || b.shape == Shape::Merge;
    if at == other || merge || a.name.database != b.name.database {
        return Operation::plain([]);
    }
    let aside = a.name.with_suffix("_x");
    let statement =
        format!("RENAME TABLE {0} TO {aside}, {1} TO {0}, {aside} TO {1}", a.name, b.name);
    Operation { statements: vec![statement], change: Change::Swap(at, other) }
}

fn truncate(table: &Table) -> Operation {
    match table.shape.access() {
        Access::Counter => Operation::plain([format!("ALTER SEQUENCE {} RESTART 7", table.name)]),
        _ if table.shape == Shape::Archive => Operation::plain([]),
        _ => Operation::plain([format!("TRUNCATE TABLE {}", table.name)]),
    }
}

/// Rewrites the whole table.
fn rebuild(table: &Table, rng: &mut Rng) -> String {
    let name = &table.name;
    let row_format = ["DYNAMIC", "COMPACT", "REDUNDANT"][rng.usize(0..3)];
    match table.shape {
        Shape::InnodbDynamic | Shape::InnodbCompact | Shape::InnodbRedundant => {
            match rng.u32(0..3) {
                0 => format!("ALTER TABLE {name} ROW_FORMAT={row_format}, ALGORITHM=INPLACE"),
                1 => format!("ALTER TABLE {name} FORCE, ALGORITHM=COPY"),
                _ => format!("ALTER TABLE {name} FORCE"),
            }
        }
        Shape::InnodbZip(_) => match rng.u32(0..3) {
            0 => format!("ALTER TABLE {name} KEY_BLOCK_SIZE={}", 1 << rng.u32(0..5)),
            1 => format!("ALTER TABLE {name} FORCE, ALGORITHM=COPY"),
            _ => format!("ALTER TABLE {name} FORCE"),
        },
        Shape::Myisam | Shape::Aria | Shape::AriaPlain => {
            let engine = ["Aria", "MyISAM", "InnoDB"][rng.usize(0..3)];
            format!("ALTER TABLE {name} ENGINE={engine} TRANSACTIONAL=DEFAULT ROW_FORMAT=DEFAULT")
        }
        Shape::Sequence => format!("ALTER SEQUENCE {name} INCREMENT BY {}", rng.u32(1..9)),
        _ => format!("ALTER TABLE {name} FORCE"),
    }
}

/// Adds and drops columns (instantly where the engine can) and indexes.
fn alter(table: &Table, rng: &mut Rng) -> Vec<String> {
    let name = &table.name;
    if matches!(table.shape, Shape::Sequence | Shape::Merge | Shape::Csv | Shape::Archive) {
        return Vec::new();
    }
    let number = rng.u32(0..3);
    let column = match rng.u32(0..4) {
        0 => format!("ADD COLUMN IF NOT EXISTS x{number} INT NOT NULL DEFAULT {number}"),
        1 => format!("ADD COLUMN IF NOT EXISTS x{number} VARCHAR(30) DEFAULT 'grown' FIRST"),
        2 => format!("ADD COLUMN IF NOT EXISTS x{number} BIGINT AFTER id"),
        _ => format!("DROP COLUMN IF EXISTS x{number}"),
    };
    let index = match rng.u32(0..3) {
        0 => format!("ADD INDEX IF NOT EXISTS i{number} (k, c(20))"),
        1 => format!("ADD INDEX IF NOT EXISTS i{number} (b(16))"),
        _ => format!("DROP INDEX IF EXISTS i{number}"),
    };
    match rng.u32(0..3) {
        0 => vec![format!("ALTER TABLE {name} {column}")],
        1 => vec![format!("ALTER TABLE {name} {index}")],
        _ => vec![format!("ALTER TABLE {name} {column}, {index}")],
    }
}

/// Changes partitions, among them the exchange with a table made for it.
fn partitions(table: &Table, rng: &mut Rng) -> Operation {
    let name = &table.name;
    if !table.shape.is_partitioned() {
        return Operation::plain([]);
    }
    Operation::plain(match rng.u32(0..4) {
        0 => vec![format!("ALTER TABLE {name} TRUNCATE PARTITION p{}", rng.u32(0..3))],
        // Servers lose a table with such a name here: "unknown database" (10.11.19) or "not
        // partitioned" (11.8.6), no table any more, and nothing in the binary log.
        1 | 2 if name.table.contains('/') => vec![format!("ALTER TABLE {name} FORCE")],
        1 => vec![format!("ALTER TABLE {name} REBUILD PARTITION p1")],
        2 => vec![
            format!(
                "ALTER TABLE {name} REORGANIZE PARTITION p0 INTO \
                 (PARTITION p00 VALUES LESS THAN (200), PARTITION p01 VALUES LESS THAN (500))"
            ),
            format!(
                "ALTER TABLE {name} REORGANIZE PARTITION p00, p01 INTO \
                 (PARTITION p0 VALUES LESS THAN (500))"
            ),
        ],
        _ => {
            let single = name.with_suffix("_e");
            vec![
                format!("CREATE TABLE {single} LIKE {name}"),
                format!("ALTER TABLE {single} REMOVE PARTITIONING"),
                format!("ALTER TABLE {name} EXCHANGE PARTITION p0 WITH TABLE {single}"),
                format!("DROP TABLE {single}"),
            ]
        }
    })
}

/// Creates and drops a database with tables of several engines, as far as they are wanted.
fn database(options: &LoadOptions, namer: &mut Namer, rng: &mut Rng) -> Operation {
    namer.next += 1;
    let database = format!("tmp-{}-{}", namer.owner, namer.next);
    let mut statements = vec![format!("CREATE DATABASE `{database}`")];
    let shapes = [Shape::InnodbDynamic, Shape::Aria, Shape::Myisam];
    for shape in shapes.into_iter().filter(|it| options.mix != Mix::Innodb || it.is_innodb()) {
        if rng.bool() {
            let name = Name { database: database.clone(), table: format!("{shape:?}") };
            let plain = TableOptions::default();
            statements.extend(create(shape, &plain, name, rng.u64(1..50), rng).statements);
        }
    }
    // Some stay until the end, so that copies have databases younger than their start.
    if rng.u32(0..4) > 0 {
        statements.push(format!("DROP DATABASE `{database}`"));
    }
    Operation::plain(statements)
}

fn view_or_trigger(table: &Table, rng: &mut Rng) -> Operation {
    let name = &table.name;
    let number = rng.u32(0..4);
    let database = DATABASES[rng.usize(0..DATABASES.len())];
    if rng.bool() || matches!(table.shape, Shape::Sequence | Shape::Merge) {
        // The view must not depend on a table that may go: a broken view has no definition to
        // compare.
        return Operation::plain([format!(
            "CREATE OR REPLACE VIEW `{database}`.`view-{number}` AS SELECT {} AS answer",
            rng.u32(0..1000)
        )]);
    }
    Operation::plain([
        format!("DROP TRIGGER IF EXISTS {}", name.with_suffix("_tr")),
        format!(
            "CREATE TRIGGER {} BEFORE INSERT ON {name} FOR EACH ROW SET NEW.k = NEW.k + {number}",
            name.with_suffix("_tr")
        ),
    ])
}
