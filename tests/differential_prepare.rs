//! The same raw backup, prepared by the stock tool and by us, gives the same bytes.

mod common;

use harness::differential::Differential;
use harness::load::{LoadOptions, Mix};
use harness::pages::Difference;
use harness::{ChecksumAlgorithm, ServerOptions, Tool};

/// Backs up by `backup_by` under load, prepares two copies of the result by both tools, and
/// compares them. Returns the pages that redo changed.
fn differential(seed: u64, server: ServerOptions, backup_by: &Tool, mix: Mix) -> Vec<Difference> {
    let proof = Differential {
        server,
        load: LoadOptions { mix, ..LoadOptions::new(seed) },
        checkpoint: mix == Mix::Compressed,
        backup_by: backup_by.clone(),
        tool: common::haulout(),
    };
    let report = common::ok(proof.run());
    let result = report.comparison;
    assert!(result.files > 50 && result.pages > 2000, "compared too little: {result:?}");
    let changed = report.changed.differences;
    assert!(changed.len() > 20, "prepare changed {} pages only", changed.len());
    changed
}

fn all_tables(seed: u64, server: ServerOptions, backup_by: &Tool) {
    differential(seed, server, backup_by, Mix::Everything);
}

/// Only tables whose pages are compressed.
fn compressed(seed: u64, server: ServerOptions, backup_by: &Tool) {
    let is_user_page = |change: &&Difference| matches!(change, Difference::Page { file, .. } if file.contains('/') && !file.starts_with("mysql/"));
    let changed = differential(seed, server, backup_by, Mix::Compressed);
    let changed = changed.iter().filter(is_user_page).count();
    assert!(changed > 10, "prepare changed {changed} pages of the load only");
}

#[test]
fn stock_backup_prepared_by_both() {
    for seed in 101..=102 {
        all_tables(seed, ServerOptions::default(), &Tool::stock());
    }
}

#[test]
fn our_backup_prepared_by_both() {
    for seed in 201..=202 {
        all_tables(seed, ServerOptions::default(), &common::haulout());
    }
}

#[test]
fn stock_backup_with_small_pages() {
    let server = ServerOptions { page_size: 4 << 10, ..ServerOptions::default() };
    all_tables(104, server, &Tool::stock());
}

#[test]
fn stock_backup_with_large_pages() {
    let server = ServerOptions { page_size: 64 << 10, ..ServerOptions::default() };
    all_tables(164, server, &Tool::stock());
}

#[test]
fn our_backup_with_the_older_checksum() {
    let server = ServerOptions { checksum: ChecksumAlgorithm::Crc32, ..ServerOptions::default() };
    all_tables(232, server, &common::haulout());
}

/// Undo tablespaces that are truncated while the backup runs shrink in the copy too.
#[test]
fn stock_backup_while_undo_is_truncated() {
    let server = ServerOptions::default()
        .arg("--innodb-undo-log-truncate=ON")
        .arg("--innodb-max-undo-log-size=10M");
    all_tables(110, server, &Tool::stock());
}

#[test]
fn compressed_tables_of_every_size() {
    for page_size in [4, 8, 16] {
        let server = || ServerOptions { page_size: page_size << 10, ..ServerOptions::default() };
        compressed(300 + u64::from(page_size), server(), &Tool::stock());
        compressed(400 + u64::from(page_size), server(), &common::haulout());
    }
}

#[test]
fn compressed_tables_with_the_older_checksum() {
    let server = ServerOptions { checksum: ChecksumAlgorithm::Crc32, ..ServerOptions::default() };
    compressed(332, server, &common::haulout());
}
