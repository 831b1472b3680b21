//! A few fixed cells of the matrix on each generation of servers; `cargo xtask matrix` runs as
//! many as are asked for.

mod common;

use harness::Generation;
use harness::matrix::{Cell, Outcome, run};

fn cells(generation: Generation, seeds: &[u64]) {
    for seed in seeds {
        let cell = Cell::random(generation, *seed);
        let outcome = common::ok(run(&cell, &common::haulout()));
        match outcome {
            Outcome::Ok(done) => assert!(done.tables > 5 && done.statements > 20, "{done:?}"),
            // The table of the document says so, else this were a failure.
            Outcome::Refused(reason) => eprintln!("{cell}: refused: {reason}"),
            Outcome::Failed { findings, kept } => panic!(
                "{cell}: {}\nkept in {}; again: {}",
                findings.join("\n"),
                kept.display(),
                cell.command()
            ),
        }
    }
}

#[test]
fn on_10_5() {
    cells(Generation::V10_5, &[3, 12]);
}

#[test]
fn on_10_11() {
    cells(Generation::V10_11, &[2, 4]);
}

#[test]
fn on_11_8() {
    cells(Generation::V11_8, &[3, 11]);
}
