//! A copy taken under load, DDL included, becomes a replica that equals its source.

mod common;

use harness::load::Mix;
use harness::proof::Proof;
use harness::{ChecksumAlgorithm, ServerOptions};

fn proof(seed: u64, server: ServerOptions) {
    let mut proof = Proof::new(seed, common::tool());
    proof.server = server;
    let report = common::ok(proof.run());
    assert!(report.tables > 10 && report.load.changes > 50, "too little happened: {report:?}");
}

#[test]
fn page_size_16k() {
    for seed in 1..=3 {
        proof(seed, ServerOptions::default());
    }
}

#[test]
fn page_size_4k() {
    proof(4, ServerOptions { page_size: 4 << 10, ..ServerOptions::default() });
}

#[test]
fn page_size_64k() {
    proof(64, ServerOptions { page_size: 64 << 10, ..ServerOptions::default() });
}

#[test]
fn checksum_crc32() {
    proof(32, ServerOptions { checksum: ChecksumAlgorithm::Crc32, ..ServerOptions::default() });
}

#[test]
fn compressed_tables() {
    let mut proof = Proof::new(8, common::tool());
    proof.load.mix = Mix::Compressed;
    let report = common::ok(proof.run());
    assert!(report.tables > 5 && report.load.changes > 50, "too little happened: {report:?}");
}
