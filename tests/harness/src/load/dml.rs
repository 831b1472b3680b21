//! Random changes of rows.

use fastrand::Rng;

use super::Table;
use super::shape::Access;

/// Ids run from 1 to this, so that statements of different threads meet.
const IDS: u64 = 4000;

/// One statement that changes rows of `table`.
pub fn statement(table: &Table, rng: &mut Rng) -> String {
    let name = &table.name;
    match table.shape.access() {
        Access::Counter => match rng.u32(0..10) {
            0 => format!("DO SETVAL({name}, {})", rng.u32(1..1_000_000)),
            _ => format!("DO NEXT VALUE FOR {name}"),
        },
        Access::Append => insert(table, "INSERT INTO", rng.u64(1..20), rng),
        Access::Scanned => match rng.u32(0..6) {
            0 => format!("UPDATE {name} SET k = k + 1 WHERE k % 50 = {}", rng.u32(0..50)),
            1 => format!("DELETE FROM {name} WHERE k % 20 = {}", rng.u32(0..20)),
            _ => insert(table, "INSERT INTO", rng.u64(1..10), rng),
        },
        Access::Keyed => keyed(table, rng),
    }
}

fn keyed(table: &Table, rng: &mut Rng) -> String {
    let name = &table.name;
    let (first, last) = range(rng.u64(1..60), rng);
    let ids = format!("WHERE id BETWEEN {first} AND {last}");
    match rng.u32(0..12) {
        0..=2 => insert(table, "INSERT IGNORE INTO", rng.u64(1..120), rng),
        3..=4 => insert(table, "REPLACE INTO", rng.u64(1..60), rng),
        5..=6 => format!("UPDATE {name} SET k = k + {} {ids}", rng.u32(1..100)),
        7..=8 => {
            let text = if rng.bool() { "MD5(c)" } else { "LEFT(CONCAT(c, MD5(k)), 32)" };
            format!("UPDATE {name} SET c = {text}, b = LEFT(MD5(k), {}) {ids}", rng.u32(0..17))
        }
        9 => {
            format!("UPDATE {name} SET k = id % {} WHERE k < {}", rng.u32(2..999), rng.u32(1..2000))
        }
        _ => format!("DELETE FROM {name} {ids}"),
    }
}

/// Enough rows to fill and split pages.
pub fn bulk(table: &Table, rng: &mut Rng) -> String {
    match table.shape.access() {
        Access::Counter => format!("DO NEXT VALUE FOR {}", table.name),
        Access::Keyed => insert(table, "REPLACE INTO", rng.u64(500..2000), rng),
        Access::Append | Access::Scanned => insert(table, "INSERT INTO", rng.u64(50..200), rng),
    }
}

/// The first rows of a table, starting at id 1.
pub fn fill(table: &Table, rows: u64, rng: &mut Rng) -> Option<String> {
    let rows = match table.shape.access() {
        Access::Counter => return None,
        Access::Keyed | Access::Append => rows.max(1),
        Access::Scanned => rows.clamp(1, 200),
    };
    let salt = rng.u32(1..10_000);
    Some(format!("INSERT INTO {} {}", table.name, table.shape.rows(1, rows, salt, rng)))
}

fn insert(table: &Table, verb: &str, rows: u64, rng: &mut Rng) -> String {
    let (first, last) = range(rows, rng);
    let salt = rng.u32(1..10_000);
    format!("{verb} {} {}", table.name, table.shape.rows(first, last, salt, rng))
}

fn range(rows: u64, rng: &mut Rng) -> (u64, u64) {
    let first = rng.u64(1..IDS);
    (first, first + rows - 1)
}
