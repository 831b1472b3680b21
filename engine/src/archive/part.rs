//! An object of the archive: a run of bytes of a binary log file, with an index of what is in it.
//!
//! | part | what |
//! |---|---|
//! | head | a skippable frame of Zstandard: [`at`] |
//! | data | frames of Zstandard, each of so many bytes of the log; sealed, if the repository is |
//! | index | a skippable frame: the compressed [`Index`]; sealed, if the repository is |
//!
//! Objects that are not sealed are plain: `cat` those of a file, pipe them through `zstd -dc`, and it
//! is the file. An object is put whole, so there is never a half one. What it says of itself is
//! covered by its head, which has a hash of itself and a code that only who has a key can make;
//! everything else has its hash in the head.

use std::ops::Range;

use binlog::{Gtid, GtidState};
use bytes::Bytes;
use ring::digest;

use super::index::Index;
use super::layout::{Epoch, PartName};
use super::scan::Ending;
use crate::repo::Repository;
use crate::repo::compression::{Compression, Compressor, FRAME_MAX, decompress};
use crate::repo::layout::damaged;
use crate::repo::manifest::{Seal, frame_hash};
use crate::repo::seal::{self, Sealer, Secret};
use crate::store::{Body, Key, Put, PutOptions};
use crate::{Cancel, Error, ErrorKind, Result};

/// Version of the head. Readers refuse later ones.
pub const FORMAT: u32 = 1;
/// Bytes of the log in a frame.
const FRAME_LEN: usize = 4 << 20;
/// What skippable frames of Zstandard begin with.
const SKIPPABLE: [u8; 4] = 0x184d_2a50_u32.to_le_bytes();
/// No head is longer.
const HEAD_MAX: u64 = 4 << 20;
/// Most heads are shorter.
const HEAD_USUAL: u64 = 8 << 10;
/// Digits of hash and code.
const DIGITS: usize = 64;

/// Where things are in a head. The length of the frame does not count what is before it.
pub mod at {
    /// What skippable frames begin with, 4 bytes.
    pub const MAGIC: usize = 0;
    /// Length of what follows, u32.
    pub const LENGTH: usize = 4;
    /// SHA-256 of the text, 64 digits.
    pub const HASH: usize = 8;
    /// A code of the text that takes a key, 64 digits; zeros where nothing is sealed.
    pub const CODE: usize = 72;
    /// The text: JSON.
    pub const TEXT: usize = 136;
}

/// Bytes before what a skippable frame skips.
const SKIP: u64 = at::HASH as u64;

/// A piece of the object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Piece {
    /// Bytes in the object.
    pub stored: u32,
    /// Bytes that it unpacks to.
    pub len: u32,
    /// SHA-256 of the bytes in the object, the first half.
    pub hash: String,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// `server_id` of who wrote the file.
    pub server: u32,
    /// Which row of files.
    pub epoch: Epoch,
    /// Name of the file.
    pub file: String,
    /// Number of the file.
    pub number: u64,
    /// Tells the file from all others.
    pub identity: String,
    /// What the server says of its version.
    pub server_version: String,
    /// When the file was begun, in seconds since 1970.
    pub created: u32,
    /// First byte.
    pub begin: u64,
    /// Behind the last byte.
    pub end: u64,
    /// Whether it ends between transactions.
    pub whole: bool,
    /// What was logged before it.
    #[serde(with = "text")]
    pub before: GtidState,
    /// What was logged behind it.
    #[serde(with = "text")]
    pub after: GtidState,
    /// How the file ends, if this is its end.
    pub ending: Option<Ending>,
}

/// What the head says.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Version of the document.
    pub format: u32,
    /// The repository it was made for.
    pub repository: String,
    /// The program that made it.
    pub tool: String,
    /// When.
    pub stored: jiff::Timestamp,
    /// What it is.
    #[serde(flatten)]
    pub about: About,
    /// Transactions that end in it.
    pub transactions: u64,
    /// The first of them.
    #[serde(with = "text_of_some")]
    pub first: Option<Gtid>,
    /// The last of them.
    #[serde(with = "text_of_some")]
    pub last: Option<Gtid>,
    /// The least and the greatest of their times.
    pub times: Option<(u32, u32)>,
    /// SHA-256 of the bytes of the log.
    pub sha256: String,
    /// How pieces are sealed; not at all, if there is nothing.
    pub seal: Option<Seal>,
    /// The frames.
    pub frames: Vec<Piece>,
    /// The index.
    pub index: Piece,
}

/// Values that are written as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: ToString, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.to_string())
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The same of values that may be missing.
mod text_of_some {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: ToString, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(to)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse()).transpose().map_err(serde::de::Error::custom)
    }
}

/// A part that is being made. Takes memory for the compressed bytes.
pub struct Builder {
    compressor: Compressor,
    frame: Vec<u8>,
    frames: Vec<(Vec<u8>, usize)>,
    hash: digest::Context,
    len: u64,
}

/// A part that is ready to be put.
pub struct Built {
    /// Its name.
    pub key: Key,
    /// Its bytes.
    pub body: Body,
    /// What it says of itself.
    pub head: Head,
}

impl Builder {
    /// With nothing in it.
    pub fn new() -> Result<Self> {
        Ok(Self {
            compressor: Compressor::new(Compression::default())?,
            frame: Vec::new(),
            frames: Vec::new(),
            hash: digest::Context::new(&digest::SHA256),
            len: 0,
        })
    }

    /// Bytes that were added.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the next bytes of the log.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = FRAME_LEN - self.frame.len();
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.frame.extend_from_slice(now);
            bytes = later;
            if self.frame.len() == FRAME_LEN {
                self.ship()?;
            }
        }
        Ok(())
    }

    fn ship(&mut self) -> Result<()> {
        self.frames.push(compressed(&mut self.compressor, &self.frame)?);
        self.frame.clear();
        Ok(())
    }

    /// The object. Begins anew.
    pub fn finish(
        &mut self,
        repository: &Repository,
        about: About,
        index: &Index,
    ) -> Result<Built> {
        if !self.frame.is_empty() {
            self.ship()?;
        }
        self.len = 0;
        let frames = std::mem::take(&mut self.frames);
        let hash = std::mem::replace(&mut self.hash, digest::Context::new(&digest::SHA256));
        let sha256 = seal::hex(hash.finish().as_ref());
        let name = PartName {
            server: about.server,
            epoch: about.epoch.clone(),
            number: about.number,
            begin: about.begin,
            end: about.end,
            hash: sha256.clone(),
            sealed: repository.config.sealed,
        };
        let key = name.key()?;
        let (seal, sealer) = sealing(repository, &key)?.unzip();
        let cannot = |what: &str, error: serde_json::Error| {
            Error::new(ErrorKind::Failed, format!("cannot write {what} of {key}")).caused_by(error)
        };
        let listed = serde_json::to_vec(index).map_err(|error| cannot("the index", error))?;
        if listed.len() > FRAME_MAX {
            return Err(Error::new(ErrorKind::Failed, format!("the index of {key} is too long")));
        }
        let listed = compressed(&mut self.compressor, &listed)?;
        let mut pieces = Vec::with_capacity(frames.len() + 1);
        let mut parts = Vec::with_capacity(frames.len() + 3);
        for (number, (mut bytes, len)) in (0..).zip(frames.into_iter().chain([listed])) {
            if let Some(sealer) = &sealer {
                sealer.seal(0, number, &mut bytes)?;
            }
            let (stored, hash) = (bytes.len() as u32, frame_hash(&bytes));
            pieces.push(Piece { stored, len: len as u32, hash });
            parts.push(Bytes::from(bytes));
        }
        let index_piece = pieces.pop().unwrap_or(Piece { stored: 0, len: 0, hash: String::new() });
        let times = index.transactions.iter().map(|transaction| transaction.time);
        let head = Head {
            format: FORMAT,
            repository: repository.config.id.clone(),
            tool: format!("haulout {}", env!("CARGO_PKG_VERSION")),
            stored: jiff::Timestamp::now(),
            about,
            transactions: index.transactions.len() as u64,
            first: index.transactions.first().map(|transaction| transaction.gtid),
            last: index.transactions.last().map(|transaction| transaction.gtid),
            times: times.clone().min().zip(times.max()),
            sha256,
            seal,
            frames: pieces,
            index: index_piece,
        };
        let text = serde_json::to_vec(&head).map_err(|error| cannot("the head", error))?;
        let code = sealer.map_or_else(|| "0".repeat(DIGITS), |sealer| sealer.code(&text));
        let first = [seal::sha256(&text).as_bytes(), code.as_bytes(), &text].concat();
        parts.insert(0, [&skippable(first.len()), &first[..]].concat().into());
        let last = parts.len() - 1;
        parts.insert(last, skippable(head.index.stored as usize).to_vec().into());
        Ok(Built { key, body: Body::new(parts), head })
    }
}

impl Built {
    /// Puts it; whether it was not there before.
    pub fn put(&self, repository: &Repository, cancel: &Cancel) -> Result<bool> {
        let options = PutOptions { only_if_absent: true, ..PutOptions::default() };
        // What has this name has the same bytes of the log, whoever put it.
        let put = repository.store.put(&self.key, self.body.clone(), &options, cancel)?;
        Ok(put == Put::Stored)
    }

    /// The part that it is, once it was put.
    pub fn into_part(self) -> Part {
        let data = self.body.parts().first().map_or(0, |head| head.len() as u64);
        Part { key: self.key, stored: self.body.len(), data, head: self.head }
    }
}

/// A data key for one object, wrapped, and what seals with it.
fn sealing(repository: &Repository, key: &Key) -> Result<Option<(Seal, Sealer)>> {
    let Some(master) = repository.master()? else { return Ok(None) };
    let data_key = Secret::random()?;
    let wrapped = master.wrap(&data_key, &context(repository, key))?;
    let seal = Seal { cipher: "AES-256-GCM".to_owned(), data_key: wrapped };
    Ok(Some((seal, Sealer::new(&data_key, key.as_str())?)))
}

/// What a data key is wrapped for.
fn context(repository: &Repository, key: &Key) -> Vec<u8> {
    format!("{}/{key}", repository.config.id).into_bytes()
}

fn skippable(len: usize) -> [u8; SKIP as usize] {
    let mut begin = [0; SKIP as usize];
    begin[..at::LENGTH].copy_from_slice(&SKIPPABLE);
    begin[at::LENGTH..].copy_from_slice(&(len as u32).to_le_bytes());
    begin
}

/// A part that is in the archive.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub key: Key,
    /// What it says of itself.
    pub head: Head,
    /// Bytes in the store.
    pub stored: u64,
    /// Where its first frame begins.
    data: u64,
}

impl Part {
    /// Reads the head of an object of so many bytes. It is authentic if the repository is sealed
    /// and there is a key.
    pub fn read(
        repository: &Repository,
        name: &PartName,
        stored: u64,
        cancel: &Cancel,
    ) -> Result<Self> {
        let key = name.key()?;
        let get = |limit: u64| {
            let limit = limit.min(stored);
            repository.store.get(&key, Some(0..limit), limit, cancel)
        };
        let mut bytes = get(HEAD_USUAL)?;
        let field = bytes.get(at::LENGTH..).and_then(<[u8]>::first_chunk);
        let length = u64::from(u32::from_le_bytes(*field.ok_or_else(|| cut(&key))?)) + SKIP;
        if !bytes.starts_with(&SKIPPABLE) || length < at::TEXT as u64 || length > HEAD_MAX {
            return Err(damaged(&key, "it does not begin as a part of a binary log does"));
        }
        if length > bytes.len() as u64 {
            bytes = get(length)?;
        }
        let bytes = bytes.get(..length as usize).ok_or_else(|| cut(&key))?;
        let (front, text) = bytes.split_at(at::TEXT);
        let (hash, code) = (&front[at::HASH..at::CODE], &front[at::CODE..]);
        if seal::sha256(text).as_bytes() != hash {
            return Err(damaged(&key, "its head was changed"));
        }
        let head: Head = serde_json::from_slice(text)
            .map_err(|e| damaged(&key, "its head cannot be read").caused_by(e))?;
        let part = Self { key, head, stored, data: length };
        part.check(repository, name, text, code)?;
        Ok(part)
    }

    /// That a head belongs here, and was made by who had the key.
    fn check(
        &self,
        repository: &Repository,
        name: &PartName,
        text: &[u8],
        code: &[u8],
    ) -> Result<()> {
        let Self { key, head, .. } = self;
        let about = &head.about;
        if head.format > FORMAT {
            let later = format!("it has format {}, which this version cannot use", head.format);
            return Err(damaged(key, later).advise("use a newer version"));
        }
        let same = (about.server, &about.epoch, about.number, about.begin, about.end)
            == (name.server, &name.epoch, name.number, name.begin, name.end)
            && head.sha256.starts_with(&name.hash);
        if !same || head.repository != repository.config.id {
            return Err(damaged(key, "it was made for another place"));
        }
        if head.seal.is_some() != repository.config.sealed {
            return Err(damaged(key, "whether it is sealed is not as in the repository"));
        }
        let frames = head.frames.iter().map(|frame| u64::from(frame.stored)).sum::<u64>();
        let plain = head.frames.iter().map(|frame| u64::from(frame.len)).sum::<u64>();
        let size = self.data + frames + SKIP + u64::from(head.index.stored);
        if size != self.stored || plain != about.end - about.begin {
            return Err(damaged(key, "its size is not what its head says"));
        }
        if repository.config.sealed && repository.master().is_ok() {
            let code = String::from_utf8_lossy(code);
            let sealer = self.opener(repository)?;
            if !sealer.is_some_and(|sealer| sealer.fits(text, &code)) {
                return Err(damaged(key, "it was not written by who had a key of the repository"));
            }
        }
        Ok(())
    }

    /// What opens its pieces.
    fn opener(&self, repository: &Repository) -> Result<Option<Sealer>> {
        let (Some(seal), Some(master)) = (&self.head.seal, repository.master()?) else {
            return Ok(None);
        };
        let data_key = master
            .unwrap_key(&seal.data_key, &context(repository, &self.key))?
            .ok_or_else(|| damaged(&self.key, "its data key was changed"))?;
        Sealer::new(&data_key, self.key.as_str()).map(Some)
    }

    /// The index.
    pub fn index(&self, repository: &Repository, cancel: &Cancel) -> Result<Index> {
        let piece = &self.head.index;
        let begin = self.stored.saturating_sub(u64::from(piece.stored));
        let limit = u64::from(piece.stored);
        let bytes = repository.store.get(&self.key, Some(begin..self.stored), limit, cancel)?;
        let number = self.head.frames.len() as u32;
        let text = self.unpack(number, piece, &bytes, self.opener(repository)?.as_ref())?;
        serde_json::from_slice(&text)
            .map_err(|e| damaged(&self.key, "its index cannot be read").caused_by(e))
    }

    /// The frames of this range, unpacked, one after another.
    pub fn frames(
        &self,
        repository: &Repository,
        frames: Range<usize>,
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let pieces = self.head.frames.get(frames.clone()).unwrap_or_default();
        let stored = |pieces: &[Piece]| pieces.iter().map(|piece| u64::from(piece.stored)).sum();
        let before: u64 = stored(self.head.frames.get(..frames.start).unwrap_or_default());
        let (begin, length): (u64, u64) = (self.data + before, stored(pieces));
        let mut bytes =
            repository.store.get(&self.key, Some(begin..begin + length), length, cancel)?;
        let opener = self.opener(repository)?;
        let mut plain = Vec::new();
        for (number, piece) in (frames.start as u32..).zip(pieces) {
            let bytes = bytes.split_to((piece.stored as usize).min(bytes.len()));
            plain.extend(self.unpack(number, piece, &bytes, opener.as_ref())?);
        }
        Ok(plain)
    }

    /// Reads all of it and compares hashes; `deep` unpacks it, too.
    pub fn verify(&self, repository: &Repository, deep: bool, cancel: &Cancel) -> Result<()> {
        let frames = self.head.frames.len();
        let opener = if deep { self.opener(repository)? } else { None };
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut begin = self.data;
        for (number, piece) in self.head.frames.iter().chain([&self.head.index]).enumerate() {
            cancel.check()?;
            if number == frames {
                // The index is within a frame that is skipped.
                begin += SKIP;
            }
            let length = u64::from(piece.stored);
            let range = Some(begin..begin + length);
            let bytes = repository.store.get(&self.key, range, length, cancel)?;
            begin += length;
            if frame_hash(&bytes) != piece.hash {
                let words = format!("piece {number}: its bytes were changed");
                return Err(damaged(&self.key, words));
            }
            if deep {
                let plain = self.unpack(number as u32, piece, &bytes, opener.as_ref())?;
                if number < frames {
                    hash.update(&plain);
                }
            }
        }
        if deep && seal::hex(hash.finish().as_ref()) != self.head.sha256 {
            return Err(damaged(&self.key, "it has other bytes of the log than its head says"));
        }
        Ok(())
    }

    fn unpack(
        &self,
        number: u32,
        piece: &Piece,
        bytes: &[u8],
        opener: Option<&Sealer>,
    ) -> Result<Vec<u8>> {
        let wrong = |why: String| damaged(&self.key, format!("piece {number}: {why}"));
        if frame_hash(bytes) != piece.hash {
            return Err(wrong("its bytes were changed".to_owned()));
        }
        let mut opened = Vec::new();
        let bytes = match opener {
            None => bytes,
            Some(opener) => {
                opened.extend_from_slice(bytes);
                opener
                    .open(0, number, &mut opened)
                    .ok_or_else(|| wrong("it is not what was sealed".to_owned()))?;
                &opened
            }
        };
        let mut frame = Vec::new();
        decompress(Compression::default(), bytes, piece.len as usize, &mut frame).map_err(wrong)?;
        Ok(frame)
    }
}

/// The compressed form of a frame, and the length of the frame.
fn compressed(compressor: &mut Compressor, frame: &[u8]) -> Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    compressor.compress(frame, &mut bytes)?;
    bytes.shrink_to_fit();
    Ok((bytes, frame.len()))
}

fn cut(key: &Key) -> Error {
    damaged(key, "it ends within its head")
}
