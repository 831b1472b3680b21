//! What is archived of files that are made up.

#![allow(clippy::unwrap_used)]

use super::super::canned::{Canned, repository};
use super::*;
use crate::report::Silent;

#[test]
fn a_file_that_was_closed_within_a_transaction_is_damaged() {
    let (dir, repository) = repository();
    let mut log = Canned::new(1, 100, "binlog.000001", "").transactions(&["0-1-1"]);
    let whole = log.bytes().len() as u64;
    log.begin("0-1-2");
    log.statement("INSERT INTO t VALUES (2)");
    let path = dir.path().join("binlog.000001");
    fs::write(&path, log.bytes()).unwrap();
    let options = PushOptions { paths: vec![path.clone()], ..PushOptions::default() };
    let push = || push(&repository, &options, &Cancel::new(), &Silent);
    let stored =
        || Archive::read(&repository, &Cancel::new()).unwrap().files().next().unwrap().end();
    for _ in 0..2 {
        let error = push().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damage);
        assert!(error.to_string().contains("within a transaction"), "{error}");
        assert_eq!(stored(), whole);
    }
    // A whole copy brings the rest.
    log.commit();
    fs::write(&path, log.bytes()).unwrap();
    push().unwrap();
    assert_eq!(stored(), log.bytes().len() as u64);
}
