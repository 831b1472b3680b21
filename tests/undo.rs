//! Undo tablespaces: none, and many.

mod common;

use harness::proof::Proof;

#[test]
fn no_undo_tablespaces() {
    proof_with(601, 0);
}

#[test]
fn many_undo_tablespaces() {
    proof_with(602, 17);
}

fn proof_with(seed: u64, undo_tablespaces: u32) {
    let mut proof = Proof::new(seed, common::tool());
    proof.server.undo_tablespaces = undo_tablespaces;
    let report = common::ok(proof.run());
    assert!(report.tables > 5, "too little happened: {report:?}");
}
