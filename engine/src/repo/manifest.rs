//! The manifest: what a backup is, where each of its bytes is, and how to tell that they are right.
//!
//! It is the last object of a backup to be put, and only if there is none. It can be read by eye and
//! by programs: it is JSON, in two parts.
//!
//! | part | what |
//! |---|---|
//! | head | SHA-256 of the head; its code; size and SHA-256 of the tail; what the backup is |
//! | tail | packs, frames and files: from `,"packs":` on |
//!
//! The code is one that only the data key can make, zeros in a backup that is not sealed; hash and
//! code are computed with zeros in their places. The head is short ([`HEAD_MAX`]) and says all that
//! a list of backups needs; the tail has as much as the backup has files, and nothing of it is
//! parsed before its hash fits a head whose code fits.
//!
//! A file is in the frames that its entry names, in their order. A stream may hold pieces of files
//! that were removed or replaced while the backup was taken; those are not in the manifest.

use std::collections::BTreeMap;

use super::compression::{Compression, FRAME_MAX};
use super::layout::{BackupName, Kind, damaged, pack_name};
use super::seal::{Sealer, sha256};
use crate::metadata::haulout_info::{LockSeconds, LsnRange, Replication, ServerIdentity};
use crate::store::Key;
use crate::{Error, ErrorKind, Result};

/// Version of the document. Readers refuse later ones.
pub const FORMAT: u32 = 1;
/// No manifest is longer.
pub const MANIFEST_MAX: u64 = 1 << 30;
/// No head is longer.
pub const HEAD_MAX: u64 = 256 << 10;
/// Digits of hashes and of the code.
const DIGITS: usize = 64;
/// The text begins with this, the hash, [`CODE`], the code, and [`TAIL`].
const HASH: &str = "{\"sha256\":\"";
const CODE: &str = "\",\"code\":\"";
/// Then come the tail's hash, [`TAIL_LEN`], its size, and [`REST`].
const TAIL: &str = "\",\"tail_sha256\":\"";
const TAIL_LEN: &str = "\",\"tail_bytes\":";
const REST: &str = ",\"format\":";
/// What the tail begins with. It cannot be within a string, where quotes are escaped.
const TAIL_BEGINS: &[u8] = b",\"packs\":";

/// A backup.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Version of the document.
    pub format: u32,
    /// Name of the backup.
    pub name: BackupName,
    /// The repository it was made for.
    pub repository: String,
    /// Full or delta.
    pub kind: Kind,
    /// What a delta is based on.
    pub parent: Option<BackupName>,
    /// Its place among the backups of the repository: 1 more than the latest one before it.
    #[serde(default)]
    pub sequence: u64,
    /// When it began.
    pub began: jiff::Timestamp,
    /// When it ended: what it holds is from this time.
    pub ended: jiff::Timestamp,
    /// The program that made it.
    pub tool: String,
    /// The server.
    pub server: ServerIdentity,
    /// Where its redo log was.
    pub lsn: LsnRange,
    /// Where replication was.
    pub replication: Option<Replication>,
    /// What the locks cost.
    pub locks: LockSeconds,
    /// Pages that were corrupt at the server.
    pub corrupt_pages: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// How frames are compressed.
    pub compression: Compression,
    /// How frames are sealed; not at all, if there is nothing.
    pub seal: Option<Seal>,
    /// Size of each pack.
    #[serde(default)]
    pub packs: Vec<u64>,
    /// The frames, in the order of the stream.
    #[serde(default)]
    pub frames: Vec<Frame>,
    /// The files, by path.
    #[serde(default)]
    pub files: BTreeMap<String, FileEntry>,
}

/// How a backup is sealed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seal {
    /// `AES-256-GCM`.
    pub cipher: String,
    /// The data key, wrapped by the repository's master key.
    pub data_key: String,
}

/// A frame: whole chunks of the stream, compressed and sealed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of its pack.
    pub pack: u32,
    /// Where in the pack.
    pub offset: u64,
    /// Bytes in the pack.
    pub stored: u32,
    /// Bytes of the stream.
    pub len: u32,
    /// SHA-256 of the bytes in the pack, the first half.
    pub hash: String,
}

/// Written as a list: there are many.
impl serde::Serialize for Frame {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.pack, self.offset, self.stored, self.len, &self.hash).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Frame {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (pack, offset, stored, len, hash) = serde::Deserialize::deserialize(deserializer)?;
        Ok(Self { pack, offset, stored, len, hash })
    }
}

/// The half of a SHA-256 that a manifest notes of a frame.
pub fn frame_hash(stored: &[u8]) -> String {
    let mut hash = sha256(stored);
    hash.truncate(32);
    hash
}

/// A file of the backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileEntry {
    /// Its size.
    pub size: u64,
    /// Frames that have its chunks, as first ones and how many follow each other.
    pub frames: Vec<(u32, u32)>,
    /// The tablespace, if it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub space: Option<SpaceEntry>,
    /// Whether it has holes at the server.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub sparse: bool,
}

/// What a tablespace's first page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SpaceEntry {
    /// Its id.
    pub id: u32,
    /// Its flags.
    pub flags: u32,
    /// Its page size, as stored.
    pub page_size: u32,
}

impl FileEntry {
    /// The numbers of its frames.
    pub fn frame_numbers(&self) -> impl Iterator<Item = u32> {
        self.frames.iter().flat_map(|&(first, count)| first..first.saturating_add(count))
    }
}

impl Manifest {
    /// The text of the document.
    pub fn to_text(&self, sealer: Option<&Sealer>) -> Result<Vec<u8>> {
        let failed = |e| Error::new(ErrorKind::Failed, "cannot write a manifest").caused_by(e);
        let body = serde_json::to_string(self).map_err(failed)?;
        let rest = body.strip_prefix("{\"format\":").unwrap_or_default();
        let (head, tail) = rest.split_at(find(rest.as_bytes(), TAIL_BEGINS).unwrap_or(rest.len()));
        let tail = format!("{tail}\n");
        let (sum, len) = (sha256(tail.as_bytes()), tail.len());
        let zeros = "0".repeat(DIGITS);
        let text = |hash: &str, code: &str| {
            format!("{HASH}{hash}{CODE}{code}{TAIL}{sum}{TAIL_LEN}{len}{REST}{head}")
        };
        let blank = text(&zeros, &zeros);
        if blank.len() as u64 > HEAD_MAX {
            return Err(Error::new(ErrorKind::Failed, "the head of a manifest gets too long"));
        }
        let code = sealer.map_or_else(|| zeros.clone(), |sealer| sealer.code(blank.as_bytes()));
        Ok((text(&sha256(blank.as_bytes()), &code) + &tail).into_bytes())
    }

    fn check(&self) -> Result<(), String> {
        let mut at = (0u32, 0u64);
        for (number, frame) in self.frames.iter().enumerate() {
            if frame.pack == at.0 + 1 && self.packs.get(at.0 as usize) == Some(&at.1) {
                at = (frame.pack, 0);
            }
            if (frame.pack, frame.offset) != at {
                return Err(format!("frame {number} is not behind the one before it"));
            }
            if frame.len as usize > FRAME_MAX || frame.stored as usize > 2 * FRAME_MAX {
                return Err(format!("frame {number} is longer than any"));
            }
            at.1 += u64::from(frame.stored);
        }
        let end = (self.packs.len().saturating_sub(1) as u32, self.packs.last().copied());
        if !self.packs.is_empty() && (at.0, Some(at.1)) != end {
            return Err("the packs have more bytes than the frames".to_owned());
        }
        if self.frames.is_empty() != self.packs.is_empty() {
            return Err("there are packs without frames".to_owned());
        }
        for (path, file) in &self.files {
            let inside = |&(first, count): &(u32, u32)| {
                first.checked_add(count).is_some_and(|end| end as usize <= self.frames.len())
            };
            if !file.frames.iter().all(inside) || file.frames.is_empty() {
                return Err(format!("the frames of {path} are not there"));
            }
        }
        Ok(())
    }

    /// The object that a pack is.
    pub fn pack(&self, number: u32) -> Result<Key> {
        self.name.object(&pack_name(number, self.compression, self.seal.is_some()))
    }

    /// The server it was taken from: host and data directory.
    pub fn origin(&self) -> String {
        self.server.origin()
    }

    /// GTID position that it equals.
    pub fn gtid(&self) -> Option<String> {
        self.replication.as_ref().map(|at| at.gtid.clone()).filter(|gtid| !gtid.is_empty())
    }

    /// Bytes in the store, without the manifest.
    pub fn stored(&self) -> u64 {
        self.packs.iter().sum()
    }

    /// Bytes that some of its frames have in the store.
    pub fn stored_in(&self, frames: impl IntoIterator<Item = u32>) -> u64 {
        let frames = frames.into_iter().filter_map(|number| self.frames.get(number as usize));
        frames.map(|frame| u64::from(frame.stored)).sum()
    }

    /// What the data key is wrapped for.
    pub fn wrap_context(repository: &str, name: &BackupName) -> Vec<u8> {
        format!("{repository}/{name}").into_bytes()
    }
}

/// The head of a manifest, whose hash fits.
pub struct Head {
    /// What it says: all but packs, frames and files.
    pub manifest: Manifest,
    /// The text, with zeros in the places of its hash and its code.
    blank: Vec<u8>,
    code: String,
    len: usize,
    tail_sha256: String,
    tail_bytes: u64,
}

impl Head {
    /// Whether `text` has all of a head.
    pub fn is_whole(text: &[u8]) -> bool {
        find(text, TAIL_BEGINS).is_some()
    }

    /// Reads the head at the beginning of `text`, and checks its hash. Whether it is authentic is
    /// checked by [`Head::is_authentic`], when there is a key.
    pub fn parse(text: &[u8], key: &Key) -> Result<Self> {
        let damaged = |why: &str| damaged(key, why);
        let text = text.get(..HEAD_MAX as usize).unwrap_or(text);
        // A later format is told before anything else is said about it.
        if let Some(format) = format_of(text).filter(|format| *format > FORMAT) {
            return Err(damaged(&format!(
                "it has format {format}, which this version cannot read"
            ))
            .advise("use a newer version"));
        }
        let len = find(text, TAIL_BEGINS).ok_or_else(|| damaged("it is not a manifest"))?;
        let (head, _) = text.split_at(len);
        let (blank, hash, code) = blanked(head).ok_or_else(|| damaged("it is not a manifest"))?;
        if sha256(&blank) != hash {
            return Err(damaged("it was changed or cut short: its hash does not fit"));
        }
        #[derive(serde::Deserialize)]
        struct Tail {
            tail_sha256: String,
            tail_bytes: u64,
        }
        let json = [head, b"}"].concat();
        let unreadable = |error| damaged(&format!("it cannot be read: {error}"));
        let manifest: Manifest = serde_json::from_slice(&json).map_err(unreadable)?;
        let tail: Tail = serde_json::from_slice(&json).map_err(unreadable)?;
        let Tail { tail_sha256, tail_bytes } = tail;
        if (manifest.kind == Kind::Delta) != manifest.parent.is_some() {
            return Err(damaged("a delta has a parent, and nothing else"));
        }
        let chained = manifest.lsn.from.is_some() && manifest.lsn.pages_since.is_some();
        if (manifest.kind == Kind::Delta) != chained {
            return Err(damaged("a delta has the LSN at which it begins, and nothing else"));
        }
        Ok(Self { manifest, blank, code, len, tail_sha256, tail_bytes })
    }

    /// Whether the head was made by who has the data key.
    pub fn is_authentic(&self, sealer: &Sealer) -> bool {
        sealer.fits(&self.blank, &self.code)
    }

    /// Bytes of the whole document.
    pub fn document_bytes(&self) -> u64 {
        self.tail_bytes.saturating_add(self.len as u64)
    }

    /// The whole manifest, from the text that this is the head of, after checking the tail's hash
    /// and that all of it fits together.
    pub fn complete(&self, text: &[u8], key: &Key) -> Result<Manifest> {
        let damaged = |why: &str| damaged(key, why);
        let tail = text.get(self.len..).unwrap_or_default();
        if tail.len() as u64 != self.tail_bytes || sha256(tail) != self.tail_sha256 {
            return Err(damaged("it was changed or cut short: the hash of its tail does not fit"));
        }
        #[derive(serde::Deserialize)]
        struct Tail {
            packs: Vec<u64>,
            frames: Vec<Frame>,
            files: BTreeMap<String, FileEntry>,
        }
        let tail = [b"{", tail.get(1..).unwrap_or_default()].concat();
        let Tail { packs, frames, files } = serde_json::from_slice(&tail)
            .map_err(|error| damaged(&format!("it cannot be read: {error}")))?;
        let manifest = Manifest { packs, frames, files, ..self.manifest.clone() };
        manifest.check().map_err(|why| damaged(&why))?;
        Ok(manifest)
    }
}

/// Where `needle` begins.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// The number behind the first `"format":`.
fn format_of(text: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"\"format\":";
    let behind = text.get(find(text, NAME)? + NAME.len()..)?;
    let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(behind.get(..digits)?).ok()?.parse().ok()
}

/// The head with zeros in the places of its hash and its code, and these two.
fn blanked(text: &[u8]) -> Option<(Vec<u8>, String, String)> {
    let rest = text.strip_prefix(HASH.as_bytes())?;
    let (hash, rest) = rest.split_at_checked(DIGITS)?;
    let (code, rest) = rest.strip_prefix(CODE.as_bytes())?.split_at_checked(DIGITS)?;
    rest.strip_prefix(TAIL.as_bytes())?;
    let digits = |bytes: &[u8]| {
        let hexadecimal = bytes.iter().all(u8::is_ascii_hexdigit);
        hexadecimal.then(|| String::from_utf8_lossy(bytes).into_owned())
    };
    let (hash, code) = (digits(hash)?, digits(code)?);
    let zeros = "0".repeat(DIGITS);
    let blank = [HASH, &zeros, CODE, &zeros].concat();
    Some(([blank.as_bytes(), rest].concat(), hash, code))
}

/// A path as a manifest has it: text, in which `%XX` stands for bytes that are not.
pub fn path_to_text(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '%' => text.push_str("%25"),
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The bytes of a path that a manifest has; `None` if it has none such.
pub fn path_from_text(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        path.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    Some(path)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::seal::Secret;
    use super::*;
    use proptest::prelude::*;

    /// One with a file in two frames.
    pub fn example() -> Manifest {
        let frame =
            |pack, offset, stored| Frame { pack, offset, stored, len: 9, hash: "00".into() };
        let name = BackupName::parse("20260101T120000Z-full-1a2b3c4d").unwrap();
        Manifest {
            format: FORMAT,
            name,
            repository: "r".into(),
            kind: Kind::Full,
            parent: None,
            sequence: 1,
            began: jiff::Timestamp::UNIX_EPOCH,
            ended: jiff::Timestamp::UNIX_EPOCH,
            tool: "t".into(),
            server: ServerIdentity {
                version: "v".into(),
                hostname: "h".into(),
                port: 1,
                server_id: 2,
                datadir: "/d".into(),
                uid: None,
            },
            lsn: LsnRange { start: 1, checkpoint: 2, end: 3, from: None, pages_since: None },
            replication: None,
            locks: LockSeconds::default(),
            corrupt_pages: 0,
            bytes: 20,
            compression: Compression::default(),
            seal: None,
            packs: vec![12, 5],
            frames: vec![frame(0, 0, 7), frame(0, 7, 5), frame(1, 0, 5)],
            files: [("a/b.ibd".into(), FileEntry { frames: vec![(1, 2)], ..Default::default() })]
                .into(),
        }
    }

    fn key() -> Key {
        Key::new("backups/x/manifest.json").unwrap()
    }

    #[test]
    fn a_manifest_reads_back_and_changes_are_noticed() {
        let sealer = Sealer::new(&Secret::new([7; 32]), "b").unwrap();
        let text = example().to_text(Some(&sealer)).unwrap();
        let head = Head::parse(&text, &key()).unwrap();
        assert_eq!(head.complete(&text, &key()).unwrap(), example());
        assert_eq!(head.document_bytes(), text.len() as u64);
        assert!(head.is_authentic(&sealer) && head.manifest.files.is_empty());
        let other = Sealer::new(&Secret::new([8; 32]), "b").unwrap();
        assert!(!head.is_authentic(&other));
        let unsealed = example().to_text(None).unwrap();
        assert!(!Head::parse(&unsealed, &key()).unwrap().is_authentic(&sealer));
        // It is plain JSON.
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["server"]["hostname"], "h");
        for at in 0..text.len() {
            let mut bad = text.clone();
            bad[at] ^= 1;
            let authentic = |head: &Head| head.is_authentic(&sealer);
            let whole = |text: &[u8]| {
                let head = Head::parse(text, &key()).ok().filter(authentic)?;
                head.complete(text, &key()).ok()
            };
            assert!(whole(&bad).is_none(), "byte {at}");
            assert!(whole(&text[..at]).is_none());
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let change = |change: fn(&mut Manifest)| {
            let mut manifest = example();
            change(&mut manifest);
            let text = manifest.to_text(None).unwrap();
            Head::parse(&text, &key()).and_then(|head| head.complete(&text, &key())).is_err()
        };
        assert!(!change(|_| ()));
        assert!(change(|m| m.packs[0] = 11));
        assert!(change(|m| m.packs[1] = 6));
        assert!(change(|m| m.packs.clear()));
        assert!(change(|m| m.frames.clear()));
        assert!(change(|m| m.frames[1].offset = 6));
        assert!(change(|m| m.frames[2].pack = 2));
        assert!(change(|m| m.frames[2].len = u32::MAX));
        assert!(change(|m| m.kind = Kind::Delta));
        assert!(change(|m| m.parent = Some(m.name.clone())));
        assert!(change(|m| m.format = 2));
        assert!(change(|m| m.files.get_mut("a/b.ibd").unwrap().frames = vec![(2, 2)]));
        assert!(change(|m| m.files.get_mut("a/b.ibd").unwrap().frames = vec![(u32::MAX, 2)]));
    }

    #[test]
    fn any_path_is_text() {
        assert_eq!(path_to_text(b"db/t@0020.ibd"), "db/t@0020.ibd");
        assert_eq!(path_to_text(b"a%\xff\xc3\xa4"), "a%25%FFä");
        assert_eq!(path_from_text("a%25%FFä").unwrap(), b"a%\xff\xc3\xa4");
        assert!(path_from_text("a%2").is_none() && path_from_text("%zz").is_none());
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Head::parse(&text, &key());
            let _ = Head::parse(&[HASH.as_bytes(), &text, TAIL_BEGINS].concat(), &key());
        }
    }
}
