//! Page-compressed tables keep their rows, and their files keep the holes, on every way from a
//! server to its copy.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use harness::process::{run, run_into};
use harness::tool::BackupOptions;
use harness::{
    ChecksumAlgorithm, Generation, Result, Scratch, ServerOptions, Tool, compare, pages,
};

/// The algorithms that the server has: Debian's 10.5 is built without three of them.
fn algorithms() -> &'static [&'static str] {
    match Generation::under_test() {
        Generation::V10_5 => &["zlib", "lz4", "snappy"],
        _ => &["zlib", "lz4", "lzo", "lzma", "bzip2", "snappy"],
    }
}

/// Bytes that the tables' files occupy below `dir`, and their length.
fn occupied(dir: &Path) -> Result<(u64, u64)> {
    let (mut occupied, mut length) = (0, 0);
    for algorithm in algorithms() {
        let file = File::open(dir.join("d").join(format!("{algorithm}.ibd")))?;
        // Space is given to a file, and taken, when it is written out.
        file.sync_all()?;
        let metadata = file.metadata()?;
        occupied += metadata.blocks() * 512;
        length += metadata.len();
    }
    Ok((occupied, length))
}

fn holes_and_rows_are_kept(checksum: ChecksumAlgorithm, parallel: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    let options = ServerOptions { checksum, ..ServerOptions::default() };
    let server = options.start()?;
    server.run("CREATE DATABASE d")?;
    for algorithm in algorithms() {
        for sql in [
            format!("SET GLOBAL innodb_compression_algorithm = '{algorithm}'"),
            format!(
                "CREATE TABLE d.{algorithm} (a INT PRIMARY KEY, b TEXT, KEY (b(50))) \
                 ENGINE=InnoDB PAGE_COMPRESSED=1"
            ),
            format!(
                "INSERT INTO d.{algorithm} SELECT seq, REPEAT(MD5(seq), 20) FROM d.seq_1_to_4000"
            ),
        ] {
            server.run(&sql)?;
        }
        server.checkpoint()?;
    }
    // What the log has to bring: changed pages, new ones, and freed ones.
    for algorithm in algorithms() {
        server.run(&format!("UPDATE d.{algorithm} SET b = CONCAT(a, b) WHERE a % 100 = 7"))?;
        server.run(&format!("DELETE FROM d.{algorithm} WHERE a > 3000"))?;
        server.run(&format!(
            "INSERT INTO d.{algorithm} SELECT seq, REPEAT(MD5(seq), 30) FROM d.seq_5001_to_5300"
        ))?;
    }
    let mut client = server.client()?;
    let checksums = |client: &mut harness::Client| -> Result<Vec<Vec<String>>> {
        let tables = algorithms().iter().map(|algorithm| format!("d.{algorithm}"));
        let tables = tables.collect::<Vec<_>>().join(", ");
        Ok(client.text(&format!("CHECKSUM TABLE {tables} EXTENDED"))?)
    };
    let expected = checksums(&mut client)?;

    let tool = common::haulout();
    let how = BackupOptions { parallel, ..BackupOptions::default() };
    let (folder, stream) = (scratch.join("folder"), scratch.join("stream.xb"));
    tool.checked(tool.backup(&server, &folder, &how))?;
    run_into(tool.backup_stream(&server, &how), File::create(&stream)?)?.success()?;
    let (at_server, length) = occupied(server.datadir())?;
    assert!(at_server < length / 2, "the server makes no holes here: {at_server} of {length}");

    let small = |dir: &Path, what: &str| -> Result<()> {
        let (bytes, _) = occupied(dir)?;
        assert!(bytes < at_server * 3 / 2, "{what}: {bytes} bytes, at the server {at_server}");
        Ok(())
    };
    small(&folder, "the backup in a folder")?;
    let extracted = scratch.join("extracted");
    fs::create_dir(&extracted)?;
    let mut extract = tool.extract(&extracted, parallel);
    extract.stdin(File::open(&stream)?);
    run(extract)?.success()?;
    small(&extracted, "the extracted stream")?;

    for (number, backup) in [folder, extracted].iter().enumerate() {
        tool.run_prepare(backup)?;
        small(backup, "the prepared backup")?;
        let complaints = pages::innochecksum(options.generation, backup, 16 << 10)?;
        assert!(complaints.is_empty(), "{complaints:?}");
        let datadir = scratch.join(&format!("copy-{number}"));
        tool.run_restore(backup, &datadir)?;
        small(&datadir, "the restored copy")?;
        let copy = options.clone().arg("--server-id=9").start_on(&datadir)?;
        let complaints = compare::check_tables(&copy)?;
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(checksums(&mut copy.client()?)?, expected);
    }
    Ok(())
}

#[test]
fn holes_and_rows_are_kept_in_both_page_formats() {
    for (checksum, parallel) in [(ChecksumAlgorithm::FullCrc32, 1), (ChecksumAlgorithm::Crc32, 2)] {
        common::ok(holes_and_rows_are_kept(checksum, parallel));
    }
}

/// A page-compressed page in the older format has no checksum that a look at the stored bytes
/// could compare.
#[test]
fn damage_inside_a_compressed_page_is_found() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        for (number, checksum) in
            [ChecksumAlgorithm::FullCrc32, ChecksumAlgorithm::Crc32].into_iter().enumerate()
        {
            let options = ServerOptions { checksum, ..ServerOptions::default() };
            let mut server = options.start()?;
            server.run("CREATE DATABASE d")?;
            server.run(
                "CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1",
            )?;
            server.run("INSERT INTO d.t SELECT seq, REPEAT(MD5(seq), 20) FROM d.seq_1_to_3000")?;
            server.stop()?;
            let path = server.datadir().join("d/t.ibd");
            let mut bytes = fs::read(&path)?;
            // A leaf page, behind its header.
            bytes[6 * 16384 + 600] ^= 0x55;
            fs::write(&path, bytes)?;
            server.start()?;
            let backup = scratch.join(&format!("backup-{number}"));
            let command = common::haulout().backup(&server, &backup, &BackupOptions::default());
            let failed = run(command)?;
            common::assert_failed(&failed, common::exit::DAMAGE, &["d/t.ibd", "page number=6"]);
            common::assert_no_backup(&backup);
        }
        Ok(())
    })());
}

/// Stock `mbstream` makes the same files of our stream.
#[test]
fn the_stock_tool_unpacks_our_stream_with_holes() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = ServerOptions::default().start()?;
        server.run("CREATE DATABASE d")?;
        for algorithm in algorithms() {
            server.run(&format!("SET GLOBAL innodb_compression_algorithm = '{algorithm}'"))?;
            server.run(&format!(
                "CREATE TABLE d.{algorithm} (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1"
            ))?;
            server.run(&format!(
                "INSERT INTO d.{algorithm} SELECT seq, REPEAT(MD5(seq), 20) FROM d.seq_1_to_2000"
            ))?;
            server.checkpoint()?;
        }
        let stream = scratch.join("stream.xb");
        let command = common::haulout().backup_stream(&server, &BackupOptions::default());
        run_into(command, File::create(&stream)?)?.success()?;
        let (stock, ours) = (scratch.join("by-stock"), scratch.join("by-us"));
        for (tool, dir) in [(Tool::stock(), &stock), (common::haulout(), &ours)] {
            fs::create_dir(dir)?;
            let mut command = tool.extract(dir, 2);
            command.stdin(File::open(&stream)?);
            run(command)?.success()?;
        }
        let result = pages::compare_raw(&stock, &ours, 16 << 10)?;
        assert_eq!(result.differences.len(), 0, "{}", result.report());
        let (by_stock, by_us) = (occupied(&stock)?.0, occupied(&ours)?.0);
        assert!(by_us <= by_stock + (64 << 10), "{by_us} bytes, by the stock tool {by_stock}");
        Ok(())
    })());
}
