#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use xbstream::writer::{self, Mode};
use xbstream::{RemoveTarget, StreamPath};

use super::*;
use crate::ErrorKind;
use crate::report::Silent;

/// A stream under construction.
#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn payload(mut self, name: &str, offset: u64, bytes: &[u8]) -> Self {
        self.push_payload(name, Mode::Create, offset, bytes);
        self
    }

    fn rewrite(mut self, name: &str, bytes: &[u8]) -> Self {
        self.push_payload(name, Mode::Rewrite, 0, bytes);
        self.end(name)
    }

    fn push_payload(&mut self, name: &str, mode: Mode, offset: u64, bytes: &[u8]) {
        let (len, crc) = (bytes.len() as u64, hash(bytes));
        writer::payload_header(&mut self.0, &path(name), mode, offset, len, crc).unwrap();
        self.0.extend_from_slice(bytes);
    }

    fn end(mut self, name: &str) -> Self {
        writer::end_of_file(&mut self.0, &path(name));
        self
    }

    fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.payload(name, 0, bytes).end(name)
    }

    fn seek(mut self, name: &str, offset: u64) -> Self {
        writer::seek(&mut self.0, &path(name), Mode::Create, offset);
        self
    }

    fn rename(mut self, from: &str, to: &str) -> Self {
        writer::rename(&mut self.0, &path(from), &path(to));
        self
    }

    fn remove(mut self, target: &str) -> Self {
        writer::remove(&mut self.0, &RemoveTarget::new(target).unwrap());
        self
    }

    /// A chunk whose path the writer would refuse.
    fn raw(mut self, letter: u8, path: &str, rest: &[u8]) -> Self {
        self.0.extend_from_slice(b"XBSTCK01\0");
        self.0.push(letter);
        self.0.extend_from_slice(&(path.len() as u32).to_le_bytes());
        self.0.extend_from_slice(path.as_bytes());
        self.0.extend_from_slice(rest);
        self
    }

    fn extract(&self, dir: &Path) -> Result<ExtractSummary> {
        self.extract_with(dir, 4)
    }

    fn extract_with(&self, dir: &Path, parallel: usize) -> Result<ExtractSummary> {
        let input = Box::new(std::io::Cursor::new(self.0.clone()));
        extract(input, ExtractOptions { dir: dir.into(), parallel }, &Cancel::new(), &Silent)
    }

    fn fails(&self, dir: &Path, kind: ErrorKind) -> Error {
        let error = self.extract(dir).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.advice().is_some());
        error
    }
}

/// CRC-32 by the textbook: the engine has no use for the crate that computes it.
fn hash(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (index, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(index as u32, |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)));
    }
    !bytes.iter().fold(!0, |crc: u32, byte| (crc >> 8) ^ table[usize::from((crc as u8) ^ byte)])
}

fn path(path: &str) -> StreamPath {
    StreamPath::new(path).unwrap()
}

/// Regular files below `dir` with their content.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn names(dir: &Path) -> Vec<String> {
    tree(dir).into_keys().collect()
}

/// A folder that may be written to, inside one that must stay as it is.
struct Cage {
    outer: TempDir,
}

impl Cage {
    fn new() -> Self {
        let outer = TempDir::new().unwrap();
        fs::write(outer.path().join("victim"), "safe").unwrap();
        fs::create_dir(outer.path().join("in")).unwrap();
        Self { outer }
    }

    fn dir(&self) -> std::path::PathBuf {
        self.outer.path().join("in")
    }

    fn assert_untouched(&self) {
        let mut entries: Vec<_> =
            fs::read_dir(self.outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        entries.sort();
        assert_eq!(entries, ["in", "victim"]);
        assert_eq!(fs::read_to_string(self.outer.path().join("victim")).unwrap(), "safe");
    }
}

#[test]
fn files_arrive_with_modes_and_folders() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("made/on/the way");
    let stream = Stream::default()
        .payload("db/a.ibd", 0, b"one ")
        .file("empty/deep/er/x.frm", b"")
        .payload("db/a.ibd", 4, b"two")
        .end("db/a.ibd")
        .end("e");
    let summary = stream.extract(&target).unwrap();
    assert_eq!((summary.files, summary.bytes), (3, 7));
    let files = tree(&target);
    assert_eq!(files["db/a.ibd"], b"one two");
    assert_eq!(files["empty/deep/er/x.frm"], b"");
    assert_eq!(files["e"], b"");
    let mode = |name: &str| fs::metadata(target.join(name)).unwrap().permissions().mode();
    assert_eq!(mode("db") & 0o7777, 0o700);
    assert_eq!(mode("e") & 0o7777 & !0o660, 0);
}

#[test]
fn an_empty_stream_makes_an_empty_folder() {
    let dir = TempDir::new().unwrap();
    let summary = Stream::default().extract(dir.path()).unwrap();
    assert_eq!((summary.files, summary.bytes), (0, 0));
}

#[test]
fn rename_remove_seek_and_rewrite() {
    let dir = TempDir::new().unwrap();
    Stream::default()
        .file("g/a.MAD", b"aria")
        .file("g/gone.MYD", b"x")
        .file("g/pd#P#p0.MYD", b"x")
        .file("g/pd#P#p1.MYD", b"x")
        .file("g/pd.frm", b"kept")
        .file("drop/db.opt", b"x")
        .file("drop/t.frm", b"x")
        .file("opt", b"a longer first version")
        .rename("g/a.MAD", "new/b.MAD")
        .rename("never/sent", "anywhere")
        .remove("g/gone.MYD")
        .remove("g/pd#P#*")
        .remove("drop")
        .remove("never")
        .rewrite("opt", b"short")
        .rewrite("first", b"rewrite of nothing")
        .seek("aria_log.00000001", 5)
        .payload("aria_log.00000001", 5, b"patch")
        .seek("aria_log.00000001", 12)
        .seek("aria_log.00000001", 7)
        .payload("aria_log.00000001", 7, b"TCH")
        .end("aria_log.00000001")
        .extract(dir.path())
        .unwrap();
    let expected: BTreeMap<String, Vec<u8>> = [
        ("new/b.MAD", &b"aria"[..]),
        ("g/pd.frm", b"kept"),
        ("opt", b"short"),
        ("first", b"rewrite of nothing"),
        ("aria_log.00000001", b"\0\0\0\0\0paTCH\0\0"),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
    .into();
    assert_eq!(tree(dir.path()), expected);
    assert!(!dir.path().join("drop").exists());
}

#[test]
fn rewriting_with_nothing_empties_the_file() {
    let dir = TempDir::new().unwrap();
    let mut stream = Stream::default().file("a", b"content");
    stream.0.extend_from_slice(b"XBSTCK01\x02E\x01\0\0\0a");
    stream.extract(dir.path()).unwrap();
    assert_eq!(tree(dir.path())["a"], b"");
}

#[test]
fn paths_that_lead_outside_are_refused_in_all_chunk_types() {
    for bad in ["../victim", "/tmp/haulout-victim", "a/../../victim", "", ".", "..", "a//b"] {
        let start = || Stream::default().file("ok", b"x");
        for stream in [
            start().raw(b'P', bad, &[0; 20]),
            start().raw(b'E', bad, b""),
            start().raw(b'S', bad, &[0; 8]),
            start().raw(b'R', bad, b"\x01\0\0\0z"),
            start().raw(b'R', "ok", &[&(bad.len() as u32).to_le_bytes(), bad.as_bytes()].concat()),
            start().raw(b'D', bad, b""),
        ] {
            let cage = Cage::new();
            stream.fails(&cage.dir(), ErrorKind::Damage);
            cage.assert_untouched();
            assert_eq!(names(&cage.dir()), ["ok"]);
        }
    }
}

#[test]
fn planted_symbolic_links_are_not_followed() {
    let cage = Cage::new();
    symlink("..", cage.dir().join("up")).unwrap();
    symlink("../victim", cage.dir().join("link")).unwrap();
    Stream::default().file("up/new", b"x").fails(&cage.dir(), ErrorKind::Damage);
    Stream::default().file("link", b"x").fails(&cage.dir(), ErrorKind::Usage);
    Stream::default().file("a", b"x").rename("a", "up/b").fails(&cage.dir(), ErrorKind::Damage);
    fs::remove_file(cage.dir().join("a")).unwrap();
    // The stream has not made these, so there is nothing to remove or rename.
    Stream::default()
        .remove("up/victim")
        .remove("link")
        .remove("up")
        .rename("up/victim", "b")
        .rename("link", "c")
        .extract(&cage.dir())
        .unwrap();
    cage.assert_untouched();
    assert!(cage.dir().join("link").is_symlink() && cage.dir().join("up").is_symlink());
}

#[test]
fn what_exists_is_neither_overwritten_nor_removed() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/mine"), "mine").unwrap();
    let error = Stream::default().file("db/mine", b"x").fails(dir.path(), ErrorKind::Usage);
    assert!(error.to_string().contains("db/mine"), "{error}");
    Stream::default().rewrite("db/mine", b"x").fails(dir.path(), ErrorKind::Usage);
    Stream::default()
        .file("db/a", b"x")
        .rename("db/a", "db/mine")
        .fails(dir.path(), ErrorKind::Usage);
    fs::remove_file(dir.path().join("db/a")).unwrap();
    Stream::default()
        .file("db/b", b"x")
        .remove("db/mine")
        .remove("db")
        .extract(dir.path())
        .unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("db/mine")).unwrap(), "mine");
    assert_eq!(names(dir.path()), ["db/mine"]);
}

#[test]
fn broken_rules_are_damage() {
    let broken: &[(&str, Stream)] = &[
        ("no chunk begins here", Stream(b"not a stream".to_vec())),
        ("stream ends inside", Stream(b"XBSTCK01".to_vec())),
        ("reached 1", Stream::default().payload("a", 0, b"x").payload("a", 2, b"y")),
        ("reached 1", Stream::default().payload("a", 0, b"x").payload("a", 0, b"y")),
        ("reached 0", Stream::default().payload("a", 7, b"x")),
        ("ended already", Stream::default().file("a", b"x").file("a", b"x")),
        ("ended already", Stream::default().end("a").end("a")),
        ("have no end", Stream::default().payload("a", 0, b"x")),
        ("before its end", Stream::default().payload("a", 0, b"x").rename("a", "b")),
        ("before its end", Stream::default().payload("a", 0, b"x").remove("a")),
        ("before its end", Stream::default().payload("d/a", 0, b"x").remove("d")),
        ("rename of a folder", Stream::default().file("d/a", b"x").rename("d", "e")),
        ("unknown chunk type 'X'", Stream::default().raw(b'X', "a", &[0; 20])),
        ("Percona", Stream::default().raw(b'S', "a", &[1; 28])),
        ("Not a directory", Stream::default().file("a", b"x").file("a/b", b"x")),
        ("name too long", Stream::default().file(&"x".repeat(300), b"x")),
        ("largest possible", Stream::default().raw(b'P', "a", &[0xff; 20])),
    ];
    for (text, stream) in broken {
        for parallel in [1, 2, 8] {
            let dir = TempDir::new().unwrap();
            let error = stream.extract_with(dir.path(), parallel).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damage, "{error}");
            assert!(error.to_string().contains(text), "{error} lacks {text}");
        }
    }
}

#[test]
fn damaged_bytes_are_found() {
    let mut stream = Stream::default().file("a", &[7; 1000]);
    stream.0[500] ^= 0x40;
    let dir = TempDir::new().unwrap();
    let error = stream.fails(dir.path(), ErrorKind::Damage);
    assert!(error.to_string().contains("CRC-32"), "{error}");
}

#[test]
fn a_failed_extraction_lacks_the_checkpoints() {
    for name in ["mariadb_backup_checkpoints", "xtrabackup_checkpoints"] {
        let good = || Stream::default().file("ibdata1", b"x").file(name, b"backup_type = full\n");
        let dir = TempDir::new().unwrap();
        good().payload("cut", 0, b"x").fails(dir.path(), ErrorKind::Damage);
        assert!(!dir.path().join(name).exists());

        let dir = TempDir::new().unwrap();
        good().rewrite(name, b"again").extract(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["ibdata1", name]);
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"again");

        // A backup that is there already is not taken over.
        good().file("other", b"").fails(dir.path(), ErrorKind::Usage);
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(name), "mine").unwrap();
        Stream::default().file(name, b"x").fails(dir.path(), ErrorKind::Usage);
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
}

#[test]
fn a_cancelled_extraction_says_so() {
    let dir = TempDir::new().unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let options = ExtractOptions { dir: dir.path().into(), parallel: 2 };
    let error = extract(Box::new(std::io::empty()), options, &cancel, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[test]
fn page_compressed_tablespaces_keep_their_holes() {
    let page_len = 16 * 1024;
    let mut bytes = vec![0; 64 * page_len];
    for page in bytes.chunks_mut(page_len) {
        page[..1000].fill(1);
    }
    bytes[54..58].copy_from_slice(&(0x15u32 | 1 << 5).to_be_bytes());
    // The last page is a hole altogether.
    bytes[63 * page_len..].fill(0);
    let plain = {
        let mut bytes = bytes.clone();
        bytes[54..58].copy_from_slice(&0x15u32.to_be_bytes());
        bytes
    };
    for chunk_len in [1 << 20, 70_000, 16 * 1024, 100] {
        let mut stream = Stream::default();
        for (name, bytes) in [("d/holes.ibd", &bytes), ("d/full.ibd", &plain)] {
            let mut offset = 0;
            for chunk in bytes.chunks(chunk_len) {
                stream = stream.payload(name, offset, chunk);
                offset += chunk.len() as u64;
            }
            stream = stream.end(name);
        }
        let dir = TempDir::new().unwrap();
        stream.extract(dir.path()).unwrap();
        let files = tree(dir.path());
        assert!(files["d/holes.ibd"] == bytes && files["d/full.ibd"] == plain);
        let blocks = |name| fs::metadata(dir.path().join(name)).unwrap().blocks();
        assert!(blocks("d/full.ibd") >= bytes.len() as u64 / 512);
        // Small chunks straddle blocks, and a block that is cut is written.
        if chunk_len >= 16 * 1024 {
            assert!(blocks("d/holes.ibd") < blocks("d/full.ibd") / 2, "{chunk_len}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn interleaved_files_arrive_whole(
        files in prop::collection::btree_map("[a-z]{1,3}/[a-z]{1,6}", 0usize..700_000, 1..6),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 1usize..400_000), 0..40),
        parallel in 1usize..6,
    ) {
        let content = |name: &str, len: usize| {
            (0..len).map(|at| (at / 7 + name.len()) as u8).collect::<Vec<u8>>()
        };
        let expected: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, len)| (name.clone(), content(name, *len))).collect();
        let mut left: Vec<(&str, usize)> = files.keys().map(|name| (name.as_str(), 0)).collect();
        let mut picks = picks.into_iter();
        let mut stream = Stream::default();
        while !left.is_empty() {
            let (at, len) = picks.next().map_or((0, 300_000), |(i, len)| (i.index(left.len()), len));
            let (name, done) = left[at];
            let next = expected[name].len().min(done + len);
            if next > done {
                stream = stream.payload(name, done as u64, &expected[name][done..next]);
                left[at].1 = next;
            } else {
                stream = stream.end(name);
                left.swap_remove(at);
            }
        }
        let dir = TempDir::new().unwrap();
        stream.extract_with(dir.path(), parallel).unwrap();
        prop_assert!(tree(dir.path()) == expected);
    }
}
