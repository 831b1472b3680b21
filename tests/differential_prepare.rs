//! The same raw backup, prepared by the stock tool and by us, gives the same bytes.

mod common;

use std::time::Duration;

use harness::load::{Load, LoadOptions};
use harness::scratch::copy_tree;
use harness::{ChecksumAlgorithm, Result, Scratch, ServerOptions, Tool, pages};

/// Backs up by `backup_by` under load, prepares two copies of the result by both tools, and
/// compares them.
fn differential(seed: u64, server: ServerOptions, backup_by: &Tool) -> Result<()> {
    let scratch = Scratch::new()?;
    let raw = scratch.join("raw");
    let source = server.start()?;
    let load = Load::start(&source, &LoadOptions::new(seed))?;
    std::thread::sleep(Duration::from_millis(500));
    backup_by.run_backup(&source, &raw)?;
    load.stop()?;
    drop(source);

    let (left, right) = (scratch.join("stock"), scratch.join("haulout"));
    copy_tree(&raw, &left)?;
    copy_tree(&raw, &right)?;
    Tool::stock().run_prepare(&left)?;
    common::haulout().run_prepare(&right)?;
    let result = pages::compare(&left, &right, server.page_size as usize)?;
    if !result.differences.is_empty() {
        let (report, kept) = (result.report(), scratch.keep());
        anyhow::bail!("seed {seed}, kept in {}: {report}", kept.display());
    }
    let changed = pages::compare(&raw, &left, server.page_size as usize)?.differences.len();
    assert!(result.files > 50 && result.pages > 2000, "compared too little: {result:?}");
    assert!(changed > 50, "prepare changed {changed} pages only");
    Ok(())
}

#[test]
fn stock_backup_prepared_by_both() {
    for seed in 101..=102 {
        common::ok(differential(seed, ServerOptions::default(), &Tool::stock()));
    }
}

#[test]
fn our_backup_prepared_by_both() {
    for seed in 201..=202 {
        common::ok(differential(seed, ServerOptions::default(), &common::haulout()));
    }
}

#[test]
fn stock_backup_with_small_pages() {
    let server = ServerOptions { page_size: 4 << 10, ..ServerOptions::default() };
    common::ok(differential(104, server, &Tool::stock()));
}

#[test]
fn stock_backup_with_large_pages() {
    let server = ServerOptions { page_size: 64 << 10, ..ServerOptions::default() };
    common::ok(differential(164, server, &Tool::stock()));
}

#[test]
fn our_backup_with_the_older_checksum() {
    let server = ServerOptions { checksum: ChecksumAlgorithm::Crc32, ..ServerOptions::default() };
    common::ok(differential(232, server, &common::haulout()));
}

/// Undo tablespaces that are truncated while the backup runs shrink in the copy too.
#[test]
fn stock_backup_while_undo_is_truncated() {
    let server = ServerOptions::default()
        .arg("--innodb-undo-log-truncate=ON")
        .arg("--innodb-max-undo-log-size=10M");
    common::ok(differential(110, server, &Tool::stock()));
}
