//! Streams between the stock `mbstream` and ours, in both directions: what one packs the other
//! unpacks to the same tree.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use engine::extract::{ExtractOptions, extract};
use engine::report::Silent;
use engine::{Cancel, ErrorKind};
use harness::Generation;
use tempfile::TempDir;
use xbstream::writer::{self, Mode, StreamWriter};
use xbstream::{RemoveTarget, StreamPath};

type Tree = BTreeMap<String, Vec<u8>>;

/// Numbers that look random and are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 4);
        while bytes.len() < len {
            bytes.extend_from_slice(&(self.below(1 << 31) as u32).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Files such as a backup has: empty, small, larger than a chunk, in folders, with odd names.
fn sample(seed: u64) -> Tree {
    let mut numbers = Numbers(seed);
    let mut files = Tree::new();
    for (name, len) in [
        ("ibdata1", 12 << 20),
        ("undo001", 10 << 20),
        ("undo002", (10 << 20) + 1),
        ("empty", 0),
        ("shop/db.opt", 65),
        ("shop/order@0020list.ibd", 11 << 20),
        ("shop/part#P#p0.ibd", 114_688),
        ("shop/#sql-ib12-345.ibd", 1),
        ("@00e4@00f6/t.MYD", 70_000),
        (".hidden", 3),
    ] {
        files.insert(name.to_owned(), numbers.bytes(len));
    }
    for file in 0..40 {
        let len = numbers.below(30_000);
        files.insert(format!("many/t{file}.frm"), numbers.bytes(len));
    }
    files
}

fn write_tree(dir: &Path, files: &Tree) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn read_tree(dir: &Path) -> Tree {
    let mut files = Tree::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Trees differ by names first; contents are too large to print.
fn assert_same(left: &Tree, right: &Tree) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (name, bytes) in left {
        assert!(right[name] == *bytes, "{name} differs");
    }
}

fn path(name: &str) -> StreamPath {
    StreamPath::new(name).unwrap()
}

fn payload(out: &mut Vec<u8>, name: &str, mode: Mode, offset: usize, bytes: &[u8]) {
    let crc = crc32fast::hash(bytes);
    writer::payload_header(out, &path(name), mode, offset as u64, bytes.len() as u64, crc).unwrap();
    out.extend_from_slice(bytes);
}

/// The files with their chunks mixed, as parallel readers send them.
fn interleaved(files: &Tree, numbers: &mut Numbers, chunk_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left: Vec<(&str, usize)> = files.keys().map(|name| (name.as_str(), 0)).collect();
    while !left.is_empty() {
        let at = numbers.below(left.len());
        let (name, done) = left[at];
        let bytes = &files[name];
        let next = bytes.len().min(done + chunk_len);
        if next > done {
            payload(&mut out, name, Mode::Create, done, &bytes[done..next]);
            left[at].1 = next;
        } else {
            writer::end_of_file(&mut out, &path(name));
            left.swap_remove(at);
        }
    }
    out
}

fn mbstream(arguments: &[&str], dir: &Path, stdin: Stdio) -> std::process::Output {
    let program = Generation::under_test().program("mbstream");
    Command::new(&program)
        .args(arguments)
        .current_dir(dir)
        .stdin(stdin)
        .output()
        .unwrap_or_else(|error| panic!("{} must run: {error}", program.display()))
}

fn stock_create(dir: &Path, files: &Tree) -> Vec<u8> {
    let names = files.keys().map(String::as_str);
    let arguments: Vec<&str> = std::iter::once("-c").chain(names).collect();
    let output = mbstream(&arguments, dir, Stdio::null());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn stock_extract(stream: &[u8], parallel: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let file = TempDir::new().unwrap();
    fs::write(file.path().join("stream"), stream).unwrap();
    let input = File::open(file.path().join("stream")).unwrap();
    let output = mbstream(&["-x", "-p", parallel], dir.path(), input.into());
    // The stock tool ends well even when it gave up, but then it has said something.
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    dir
}

fn our_extract(stream: &[u8], parallel: usize) -> engine::Result<TempDir> {
    let dir = TempDir::new().unwrap();
    let input = Box::new(std::io::Cursor::new(stream.to_vec()));
    let options = ExtractOptions { dir: dir.path().into(), parallel };
    extract(input, options, &Cancel::new(), &Silent).map(|_| dir)
}

#[test]
fn we_unpack_what_stock_packs() {
    let files = sample(1);
    let source = TempDir::new().unwrap();
    write_tree(source.path(), &files);
    let stream = stock_create(source.path(), &files);
    for parallel in [1, 2, 7] {
        assert_same(&read_tree(our_extract(&stream, parallel).unwrap().path()), &files);
    }
}

#[test]
fn our_serial_writer_equals_stock_byte_for_byte() {
    let files = sample(2);
    let source = TempDir::new().unwrap();
    write_tree(source.path(), &files);
    let mut ours = StreamWriter::new(Vec::new());
    for (name, bytes) in &files {
        ours.file(&path(name), Mode::Create, &mut bytes.as_slice()).unwrap();
    }
    assert!(ours.into_inner().unwrap() == stock_create(source.path(), &files));
}

#[test]
fn stock_unpacks_what_we_pack() {
    let mut files = sample(3);
    // Stock refuses names that begin with a dot.
    files.remove(".hidden");
    let mut numbers = Numbers(3);
    for chunk_len in [10 << 20, 1 << 20, 70_000] {
        let stream = interleaved(&files, &mut numbers, chunk_len);
        for parallel in ["1", "4"] {
            assert_same(&read_tree(stock_extract(&stream, parallel).path()), &files);
        }
        assert_same(&read_tree(our_extract(&stream, 3).unwrap().path()), &files);
    }
}

#[test]
fn renames_removals_seeks_and_rewrites_come_out_alike() {
    if Generation::under_test() < Generation::V10_11 {
        // Its tool knows none of them, and our streams of its backups have none.
        return;
    }
    let mut out = Vec::new();
    let file = |out: &mut Vec<u8>, name: &str, mode, bytes: &[u8]| {
        payload(out, name, mode, 0, bytes);
        writer::end_of_file(out, &path(name));
    };
    for name in ["g/a.MAI", "g/a.MAD", "g/gone.MYD", "g/old.frm", "drop/db.opt", "drop/t.frm"] {
        file(&mut out, name, Mode::Create, name.as_bytes());
    }
    writer::rename(&mut out, &path("g/a.MAI"), &path("g/b.MAI"));
    writer::rename(&mut out, &path("g/a.MAD"), &path("g/b.MAD"));
    file(&mut out, "g/old.frm", Mode::Rewrite, b"new");
    writer::remove(&mut out, &RemoveTarget::new("g/gone.MYD").unwrap());
    writer::remove(&mut out, &RemoveTarget::new("g/never.MYD").unwrap());
    writer::remove(&mut out, &RemoveTarget::new("drop").unwrap());
    writer::seek(&mut out, &path("aria_log.00000001"), Mode::Create, 37);
    payload(&mut out, "aria_log.00000001", Mode::Create, 37, b"patched");
    writer::end_of_file(&mut out, &path("aria_log.00000001"));
    // Back over what was sent, as at the end of a log.
    payload(&mut out, "aria_log.00000002", Mode::Create, 0, &[7; 8192]);
    writer::seek(&mut out, &path("aria_log.00000002"), Mode::Create, 37);
    payload(&mut out, "aria_log.00000002", Mode::Create, 37, b"patched");
    writer::end_of_file(&mut out, &path("aria_log.00000002"));

    let theirs = stock_extract(&out, "1");
    let ours = our_extract(&out, 4).unwrap();
    assert_same(&read_tree(ours.path()), &read_tree(theirs.path()));
    let names: Vec<String> = read_tree(ours.path()).into_keys().collect();
    assert_eq!(
        names,
        ["aria_log.00000001", "aria_log.00000002", "g/b.MAD", "g/b.MAI", "g/old.frm"]
    );
    assert_eq!(ours.path().join("drop").exists(), theirs.path().join("drop").exists());
}

#[test]
fn a_real_stream_cut_short_is_damage() {
    let files = sample(4);
    let source = TempDir::new().unwrap();
    write_tree(source.path(), &files);
    let stream = stock_create(source.path(), &files);
    let mut numbers = Numbers(4);
    for _ in 0..20 {
        // A cut exactly between two files cannot be seen; none of these numbers hits one.
        let cut = 1 + numbers.below(10 << 20);
        let error = our_extract(&stream[..cut], 2).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damage, "cut at {cut}: {error}");
    }
}
