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

/// Files of a server's directory, with their list.
fn written(dir: &Path, logs: &[&Canned], names: &[&str]) {
    for (log, name) in logs.iter().zip(names) {
        fs::write(dir.join(name), log.bytes()).unwrap();
    }
    let list: String = names.iter().map(|name| format!("./{name}\n")).collect();
    fs::write(dir.join("binlog.index"), list).unwrap();
}

#[test]
fn what_is_listed_and_not_there_does_not_keep_the_others_from_the_archive() {
    let names = ["binlog.000001", "binlog.000002", "binlog.000003"];
    let logs = [
        Canned::new(1, 100, names[0], "").transactions(&["0-1-1"]),
        Canned::new(1, 200, names[1], "0-1-1").transactions(&["0-1-2"]),
        Canned::new(1, 300, names[2], "0-1-2").transactions(&["0-1-3"]),
    ];
    for (gone, gaps) in [(0, 0), (1, 1), (2, 0)] {
        let (_place, repository) = repository();
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), &[&logs[0], &logs[1], &logs[2]], &names);
        fs::remove_file(dir.path().join(names[gone])).unwrap();
        for path in [dir.path().to_owned(), dir.path().join("binlog.index")] {
            let options = PushOptions { paths: vec![path], ..PushOptions::default() };
            let summary = push(&repository, &options, &Cancel::new(), &Silent).unwrap();
            let there: Vec<_> = summary.files.iter().map(|file| file.file.as_str()).collect();
            let expected: Vec<_> = names.into_iter().filter(|name| *name != names[gone]).collect();
            assert_eq!(there, expected);
            assert_eq!(summary.missing, [dir.path().join(names[gone]).display().to_string()]);
        }
        let archive = Archive::read(&repository, &Cancel::new()).unwrap();
        assert_eq!(archive.gaps(&Cancel::new()).unwrap().len(), gaps, "without {}", names[gone]);
    }
}

#[test]
fn a_directory_without_logs_that_can_be_read_says_why() {
    let (_place, repository) = repository();
    let dir = tempfile::tempdir().unwrap();
    let failed = || {
        let options = PushOptions { paths: vec![dir.path().to_owned()], ..PushOptions::default() };
        let error = push(&repository, &options, &Cancel::new(), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        error.to_string()
    };
    fs::write(dir.path().join("words.index"), "one\ntwo\n").unwrap();
    assert!(failed().contains("has no list"), "{}", failed());
    fs::write(dir.path().join("binlog.index"), "./binlog.000001\n").unwrap();
    assert!(failed().contains("binlog.index lists"), "{}", failed());
    // A server of 12.3 that keeps its log in InnoDB.
    fs::write(dir.path().join("binlog-000000.ibb"), [0; 64]).unwrap();
    assert!(failed().contains("InnoDB's format"), "{}", failed());
    let options =
        PushOptions { paths: vec![dir.path().join("binlog-000000.ibb")], ..PushOptions::default() };
    let error = push(&repository, &options, &Cancel::new(), &Silent).unwrap_err();
    assert!(error.to_string().contains("InnoDB's format"), "{error}");
}

#[test]
fn gtid_indexes_among_named_files_are_passed_over() {
    let (_place, repository) = repository();
    let dir = tempfile::tempdir().unwrap();
    let log = Canned::new(1, 100, "binlog.000001", "").transactions(&["0-1-1"]);
    let paths = ["binlog.000001", "binlog.000001.idx"].map(|name| dir.path().join(name));
    fs::write(&paths[0], log.bytes()).unwrap();
    fs::write(&paths[1], b"\xfe\xfe\x0c\x01\x01\0\0\0").unwrap();
    let options = PushOptions { paths: paths.to_vec(), ..PushOptions::default() };
    let summary = push(&repository, &options, &Cancel::new(), &Silent).unwrap();
    assert_eq!(summary.files.len(), 1);
}

#[test]
fn what_a_server_removed_meanwhile_is_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("binlog.index");
    let chosen = Chosen { path: dir.path().join("binlog.000001"), list: Some(list.clone()) };
    fs::write(&list, "./binlog.000001\n./binlog.000002\n").unwrap();
    assert!(chosen.is_gone() && chosen.still_in() == Some(&*list));
    fs::write(&list, "./binlog.000002\n").unwrap();
    assert_eq!(chosen.still_in(), None);
}
