#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::state::StreamState;
use crate::writer::{self, Mode};

fn path(path: &str) -> StreamPath {
    StreamPath::new(path).unwrap()
}

fn payload(out: &mut Vec<u8>, name: &str, offset: u64, bytes: &[u8]) {
    let crc = crc32fast::hash(bytes);
    let len = bytes.len() as u64;
    writer::payload_header(out, &path(name), Mode::Create, offset, len, crc).unwrap();
    out.extend_from_slice(bytes);
}

/// Head of a chunk with any flags, letter and path.
fn head(flags: u8, letter: u8, path: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[flags, letter]);
    out.extend_from_slice(&(path.len() as u32).to_le_bytes());
    out.extend_from_slice(path);
    out
}

/// Chunks in order, and what the files contain.
type Contents = (Vec<Chunk>, BTreeMap<StreamPath, Vec<u8>>);

/// Reads to the end or to the first error; payloads in pieces of `piece` bytes.
fn read(input: impl Read, piece: usize) -> Result<Contents, StreamError> {
    let mut reader = StreamReader::new(input);
    let mut state = StreamState::new();
    let (mut chunks, mut files) = (Vec::new(), BTreeMap::<StreamPath, Vec<u8>>::new());
    let mut buffer = vec![0; piece];
    while let Some(chunk) = reader.next_chunk()? {
        match &chunk {
            Chunk::Payload { path, offset, len, rewrite, .. } => {
                state
                    .payload(path, *offset, *len, *rewrite)
                    .map_err(|fault| reader.error(fault))?;
                let file = files.entry(path.clone()).or_default();
                loop {
                    match reader.read_payload(&mut buffer)? {
                        0 => break,
                        got => file.extend_from_slice(&buffer[..got]),
                    }
                }
            }
            Chunk::End { path, rewrite } => {
                state.end(path, *rewrite).map_err(|fault| reader.error(fault))?;
                files.entry(path.clone()).or_default();
            }
            _ => {}
        }
        chunks.push(chunk);
    }
    state.finish().map_err(|fault| reader.error(fault))?;
    Ok((chunks, files))
}

fn fault(stream: &[u8]) -> Fault {
    read(stream, 7).unwrap_err().fault
}

/// Gives at most `step` bytes per read, and every now and then an interruption.
struct Dribble<'a> {
    bytes: &'a [u8],
    step: usize,
    calls: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.step.min(buffer.len());
        self.bytes.read(&mut buffer[..len])
    }
}

#[test]
fn an_empty_stream_is_valid() {
    let (chunks, files) = read(&b""[..], 1).unwrap();
    assert!(chunks.is_empty() && files.is_empty());
}

#[test]
fn every_type_is_read_back() {
    let mut out = Vec::new();
    payload(&mut out, "a", 0, b"hello");
    writer::end_of_file(&mut out, &path("a"));
    writer::seek(&mut out, &path("log"), Mode::Create, 37);
    payload(&mut out, "log", 37, b"x");
    writer::end_of_file(&mut out, &path("log"));
    writer::rename(&mut out, &path("a"), &path("b"));
    writer::remove(&mut out, &RemoveTarget::new("g/p#*").unwrap());
    writer::seek(&mut out, &path("z"), Mode::Rewrite, 1);
    let mut reader = StreamReader::new(out.as_slice());
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        chunks.push(chunk);
    }
    assert_eq!(reader.position(), out.len() as u64);
    let crc = crc32fast::hash;
    assert_eq!(
        chunks,
        [
            Chunk::Payload {
                path: path("a"),
                offset: 0,
                len: 5,
                crc: crc(b"hello"),
                rewrite: false
            },
            Chunk::End { path: path("a"), rewrite: false },
            Chunk::Seek { path: path("log"), offset: 37, rewrite: false },
            Chunk::Payload {
                path: path("log"),
                offset: 37,
                len: 1,
                crc: crc(b"x"),
                rewrite: false
            },
            Chunk::End { path: path("log"), rewrite: false },
            Chunk::Rename { from: path("a"), to: path("b") },
            Chunk::Remove { target: RemoveTarget::Prefix(path("g/p#")) },
            Chunk::Seek { path: path("z"), offset: 1, rewrite: true },
        ]
    );
}

#[test]
fn unread_payloads_are_checked_on_the_way() {
    let mut out = Vec::new();
    payload(&mut out, "a", 0, b"hello");
    writer::end_of_file(&mut out, &path("a"));
    let mut reader = StreamReader::new(out.as_slice());
    reader.next_chunk().unwrap();
    assert!(matches!(reader.next_chunk().unwrap(), Some(Chunk::End { .. })));

    let last = out.len() - 16;
    out[last] ^= 1;
    let mut reader = StreamReader::new(out.as_slice());
    reader.next_chunk().unwrap();
    let error = reader.next_chunk().unwrap_err();
    assert!(matches!(error.fault, Fault::Checksum { .. }));
    assert_eq!((error.at, error.path), (0, Some(path("a"))));
}

#[test]
fn errors_say_where_and_what() {
    let mut out = Vec::new();
    payload(&mut out, "db/t1.ibd", 0, b"hello");
    let at = out.len() as u64;
    payload(&mut out, "db/t1.ibd", 6, b"x");
    let error = read(out.as_slice(), 64).unwrap_err();
    assert_eq!((error.at, error.path.as_ref()), (at, Some(&path("db/t1.ibd"))));
    assert_eq!(error.to_string(), "stream chunk at byte 48, file db/t1.ibd");
    assert_eq!(error.fault.to_string(), "the payload is for offset 6, but the file has reached 5");
}

#[test]
fn hostile_paths_are_refused_in_all_five_types() {
    for bad in [&b"../x"[..], b"/x", b"a/../x", b"", b"a//b", b"x\0y", b"./x", &[b'x'; 512]] {
        let target = |letter| {
            let mut out = head(0, letter, bad);
            out.extend_from_slice(&[0; 20]);
            out
        };
        for letter in *b"PESRD" {
            assert!(matches!(fault(&target(letter)), Fault::Path(_)), "{bad:?} {letter}");
        }
        let mut out = head(0, b'R', b"good");
        out.extend_from_slice(&(bad.len() as u32).to_le_bytes());
        out.extend_from_slice(bad);
        assert!(matches!(fault(&out), Fault::Path(_)), "rename to {bad:?}");
    }
    let mut out = head(0, b'P', b"");
    out[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(fault(&out), Fault::Path(_)));
}

#[test]
fn unknown_types_are_skipped_only_if_they_say_so() {
    let mut fields = 4u64.to_le_bytes().to_vec();
    fields.extend_from_slice(&[0; 12]);
    fields.extend_from_slice(b"data");
    assert!(matches!(
        fault(&[head(0, b'Q', b"x"), fields.clone()].concat()),
        Fault::UnknownType(b'Q')
    ));
    let (chunks, files) = read([head(1, b'Q', b"x"), fields].concat().as_slice(), 3).unwrap();
    assert_eq!(chunks, [Chunk::Ignorable { letter: b'Q', path: path("x"), len: 4 }]);
    assert!(files.is_empty());
}

#[test]
fn percona_sparse_chunks_are_refused_by_name() {
    // Map of one entry, 4 bytes of payload at offset 0.
    let mut out = head(0, b'S', b"t.ibd");
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&4u64.to_le_bytes());
    out.extend_from_slice(&[0; 8 + 4 + 8]);
    out.extend_from_slice(b"data");
    assert!(matches!(fault(&out), Fault::PerconaSparse));
}

#[test]
fn claimed_lengths_allocate_nothing_and_overflow_nothing() {
    for (len, offset) in [(u64::MAX, 0), (1, u64::MAX), (1 << 63, 1 << 63), (i64::MAX as u64, 1)] {
        let mut out = head(0, b'P', b"x");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        assert!(matches!(fault(&out), Fault::Range { .. }), "{len} {offset}");
    }
    let mut out = head(0, b'P', b"x");
    out.extend_from_slice(&(i64::MAX as u64).to_le_bytes());
    out.extend_from_slice(&[0; 12]);
    let missing = i64::MAX as u64;
    assert!(matches!(fault(&out), Fault::TruncatedPayload { missing: m } if m == missing));
}

#[test]
fn a_cut_anywhere_is_noticed_or_leaves_open_files() {
    let mut out = Vec::new();
    payload(&mut out, "a", 0, b"hello");
    payload(&mut out, "b", 0, b"world");
    writer::end_of_file(&mut out, &path("a"));
    let end = out.len();
    writer::end_of_file(&mut out, &path("b"));
    for cut in 1..out.len() {
        let error = read(&out[..cut], 64).unwrap_err();
        if cut == end {
            assert!(matches!(error.fault, Fault::Unfinished { count: 1, .. }), "{error:?}");
        }
    }
    read(out.as_slice(), 64).unwrap();
}

#[test]
fn flipped_payload_bits_are_found() {
    let mut clean = Vec::new();
    payload(&mut clean, "a", 0, &[0x55; 300]);
    writer::end_of_file(&mut clean, &path("a"));
    for bit in 0..300 * 8 {
        let mut out = clean.clone();
        out[14 + 1 + 20 + bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(fault(&out), Fault::Checksum { .. }));
    }
}

proptest! {
    #[test]
    fn interleaved_files_survive(
        files in prop::collection::btree_map("[a-z#@]{1,8}(/[a-z.]{3,8})?", prop::collection::vec(any::<u8>(), 0..3000), 0..8),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 1usize..700), 0..200),
        piece in 1usize..900,
        step in 1usize..20000,
    ) {
        let expected: BTreeMap<_, _> =
            files.iter().map(|(name, bytes)| (path(name), bytes.clone())).collect();
        let mut left: Vec<(&str, usize)> = files.keys().map(|name| (name.as_str(), 0)).collect();
        let mut picks = picks.into_iter();
        let mut out = Vec::new();
        while !left.is_empty() {
            let (at, len) = picks.next().map_or((0, 256), |(index, len)| (index.index(left.len()), len));
            let (name, done) = left[at];
            let bytes = &files[name];
            let next = bytes.len().min(done + len);
            if next > done {
                payload(&mut out, name, done as u64, &bytes[done..next]);
                left[at].1 = next;
            } else {
                writer::end_of_file(&mut out, &path(name));
                left.swap_remove(at);
            }
        }
        let (_, read_back) = read(Dribble { bytes: &out, step, calls: 0 }, piece).unwrap();
        prop_assert_eq!(read_back, expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(bytes.as_slice(), 16);
        let framed = [&MAGIC[..], &bytes].concat();
        let _ = read(framed.as_slice(), 16);
    }

    #[test]
    fn damaged_streams_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut out = Vec::new();
        payload(&mut out, "a/b", 0, b"some bytes");
        writer::seek(&mut out, &path("log"), Mode::Create, 37);
        writer::rename(&mut out, &path("a"), &path("b"));
        writer::remove(&mut out, &RemoveTarget::new("g/p#*").unwrap());
        writer::end_of_file(&mut out, &path("a/b"));
        for (index, value) in flips {
            let at = index.index(out.len());
            out[at] = value;
        }
        let _ = read(out.as_slice(), 3);
    }
}
