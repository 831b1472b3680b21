//! Our stream is read by the stock tool and by us, the stock tool's stream by us, with the
//! same files as the result.

mod common;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use harness::load::{Load, LoadOptions};
use harness::process::{run, run_into};
use harness::tool::{BackupOptions, BinlogPosition};
use harness::{Result, Scratch, Server, ServerOptions, Tool, pages, proof};

fn stream(server: &Server, tool: &Tool, file: &Path) -> Result<()> {
    tool.persistently(|| {
        let command = tool.backup_stream(server, &BackupOptions::default());
        run_into(command, File::create(file)?)?.success()
    })?;
    Ok(())
}

fn extract(tool: &Tool, file: &Path, dir: &Path) -> Result<()> {
    std::fs::create_dir(dir)?;
    let mut command = tool.extract(dir, 2);
    command.stdin(File::open(file)?);
    run(command)?.success()?;
    Ok(())
}

/// Unpacks a stream by both tools and compares the results.
fn extract_by_both(scratch: &Scratch, file: &Path) -> Result<()> {
    let (stock, ours) = (scratch.join("by-stock"), scratch.join("by-us"));
    extract(&Tool::stock(), file, &stock)?;
    extract(&common::haulout(), file, &ours)?;
    let result = pages::compare_raw(&stock, &ours, 16 << 10)?;
    assert_eq!(result.differences.len(), 0, "{}", result.report());
    assert!(result.files > 50, "compared too little: {result:?}");
    Ok(())
}

fn both_extract_alike(seed: u64, backup_by: &Tool) -> Result<()> {
    let scratch = Scratch::new()?;
    let server = ServerOptions::default().start()?;
    let load = Load::start(&server, &LoadOptions::new(seed))?;
    let file = scratch.join("stream.xb");
    stream(&server, backup_by, &file)?;
    load.stop()?;
    extract_by_both(&scratch, &file)
}

#[test]
fn our_stream_is_read_by_both() {
    common::ok(both_extract_alike(301, &common::haulout()));
}

#[test]
fn the_stock_stream_is_read_by_both() {
    common::ok(both_extract_alike(302, &Tool::stock()));
}

/// A stream is a whole backup: unpacked by the stock tool and prepared by us, it replicates.
fn streamed_backup_replicates() -> Result<()> {
    let scratch = Scratch::new()?;
    let source = ServerOptions::default().start()?;
    proof::create_replication_user(&source)?;
    let load = Load::start(&source, &LoadOptions::new(303))?;
    std::thread::sleep(Duration::from_millis(500));
    let file = scratch.join("stream.xb");
    stream(&source, &common::haulout(), &file)?;
    load.stop()?;

    let backup = scratch.join("backup");
    extract(&Tool::stock(), &file, &backup)?;
    let tool = common::haulout();
    tool.run_prepare(&backup)?;
    let position = BinlogPosition::of_backup(&backup)?;
    let copy = proof::restore_and_boot(&tool, &backup, &scratch.join("copy"), source.options())?;
    proof::attach(&source, &copy, &position)?;
    proof::ensure_equal(&source, &copy)?;
    Ok(())
}

#[test]
fn a_streamed_backup_becomes_a_replica() {
    common::ok(streamed_backup_replicates());
}

/// A stream that was cut anywhere is an error, not a smaller backup.
#[test]
fn a_cut_stream_is_refused() {
    common::ok(cut_stream_is_refused());
}

fn cut_stream_is_refused() -> Result<()> {
    let scratch = Scratch::new()?;
    let server = ServerOptions::default().start()?;
    let file = scratch.join("stream.xb");
    stream(&server, &common::haulout(), &file)?;
    let whole = std::fs::read(&file)?;
    for (number, cut) in [whole.len() - 1, whole.len() / 2, 10].into_iter().enumerate() {
        let part = scratch.join("part.xb");
        std::fs::write(&part, &whole[..cut])?;
        let dir = scratch.join(&format!("cut-{number}"));
        std::fs::create_dir(&dir)?;
        let mut command = common::haulout().extract(&dir, 2);
        command.stdin(File::open(&part)?);
        let finished = run(command)?;
        common::assert_failed(&finished, common::exit::DAMAGE, &["stream"]);
        common::assert_no_backup(&dir);
    }
    Ok(())
}
