//! The container of a `.qp` file: one file, in blocks.
//!
//! | part | bytes |
//! |---|---|
//! | magic | `qpress10` |
//! | size of a block | 8, little-endian |
//! | kind | `F` |
//! | length of the name | 4, little-endian |
//! | name, and a zero | |
//! | of each block: magic | `NEWBNEWB` |
//! | its place in the file | 8, little-endian |
//! | Adler-32 of what follows | 4, little-endian |
//! | the block ([`super::quicklz`]) | |
//! | the end: magic | `ENDSENDS` |
//! | zeros | 8 |
//!
//! Promises: a damaged archive is refused where it is damaged; nothing is allocated beyond two
//! blocks of [`BLOCK_SIZES`].

use std::io::{self, ErrorKind, Read};
use std::ops::RangeInclusive;

use super::quicklz::{self, BlockError, BlockHeader, HEADER_MAX};

/// Bytes that a block holds unless somebody says otherwise.
pub const BLOCK_SIZE: usize = 64 << 10;
/// What a block may hold.
pub const BLOCK_SIZES: RangeInclusive<usize> = 1 << 10..=64 << 20;

const MAGIC: &[u8; 8] = b"qpress10";
const BLOCK_MAGIC: &[u8; 8] = b"NEWBNEWB";
const END_MAGIC: &[u8; 8] = b"ENDSENDS";
const FILE: u8 = b'F';
/// What stands before a block: magic, place, checksum.
const BLOCK_FRONT: usize = 8 + 8 + 4;
const NAME_MAX: u32 = 4096;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading failed.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It ends before its end.
    #[error("it was cut short")]
    CutShort,
    /// It is something else.
    #[error("it is no archive of the kind that backups have")]
    Kind,
    /// A block that is not where it should be, or is not what was written.
    #[error("the block at byte {0} is damaged")]
    Damaged(u64),
    /// A block that cannot be unpacked.
    #[error("the block at byte {at} is damaged: {why}")]
    Block {
        /// Where in the file.
        at: u64,
        /// What is wrong.
        why: BlockError,
    },
    /// Something follows.
    #[error("there is more behind its end")]
    Longer,
}

/// The front of an archive of one file.
pub fn front(block_size: usize, name: &[u8]) -> Vec<u8> {
    let mut front = MAGIC.to_vec();
    front.extend_from_slice(&(block_size as u64).to_le_bytes());
    front.push(FILE);
    front.extend_from_slice(&(name.len() as u32).to_le_bytes());
    front.extend_from_slice(name);
    front.push(0);
    front
}

/// The end of an archive.
pub fn end() -> Vec<u8> {
    [&END_MAGIC[..], &[0; 8]].concat()
}

/// Appends a block that holds `bytes`, which belong at `at` of the file.
pub fn pack(at: u64, bytes: &[u8], out: &mut Vec<u8>) {
    let begin = begin_block(at, out);
    quicklz::pack(bytes, out);
    finish_block(begin, out);
}

/// The same, uncompressed, so that its bytes can be changed; where in `out` they begin.
pub fn store(at: u64, bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let begin = begin_block(at, out);
    let header = quicklz::store(bytes, out);
    finish_block(begin, out);
    begin + BLOCK_FRONT + header
}

fn begin_block(at: u64, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    out.extend_from_slice(BLOCK_MAGIC);
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    begin
}

/// Makes the checksum of a block fit it again.
pub fn seal(block: &mut [u8]) {
    finish_block(0, block);
}

fn finish_block(begin: usize, out: &mut [u8]) {
    let Some((front, block)) =
        out.get_mut(begin..).and_then(|all| all.split_at_mut_checked(BLOCK_FRONT))
    else {
        return;
    };
    let checksum = adler2::adler32_slice(block).to_le_bytes();
    if let Some(place) = front.get_mut(16..) {
        place.copy_from_slice(&checksum);
    }
}

/// Reads an archive.
pub struct Reader<R> {
    input: R,
    block_size: usize,
    /// Where the next block belongs.
    at: u64,
    block: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the front.
    pub fn new(mut input: R) -> Result<Self, ArchiveError> {
        if take::<8>(&mut input)? != *MAGIC {
            return Err(ArchiveError::Kind);
        }
        let block_size = usize::try_from(u64::from_le_bytes(take(&mut input)?));
        let block_size = block_size.ok().filter(|size| *size <= *BLOCK_SIZES.end());
        let block_size = block_size.ok_or(ArchiveError::Kind)?;
        let [kind] = take(&mut input)?;
        let length = u32::from_le_bytes(take(&mut input)?);
        if kind != FILE || length > NAME_MAX {
            return Err(ArchiveError::Kind);
        }
        let mut name = vec![0; length as usize + 1];
        fill(&mut input, &mut name)?;
        Ok(Self { input, block_size, at: 0, block: Vec::new() })
    }

    /// Puts the next piece of the file into `out`; false at the end.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, ArchiveError> {
        out.clear();
        match &take::<8>(&mut self.input)? {
            BLOCK_MAGIC => {}
            END_MAGIC => {
                take::<8>(&mut self.input)?;
                let mut more = [0];
                return match self.input.read(&mut more).map_err(ArchiveError::Read)? {
                    0 => Ok(false),
                    _ => Err(ArchiveError::Longer),
                };
            }
            _ => return Err(ArchiveError::Damaged(self.at)),
        }
        let at = u64::from_le_bytes(take(&mut self.input)?);
        let checksum = u32::from_le_bytes(take(&mut self.input)?);
        if at != self.at {
            return Err(ArchiveError::Damaged(self.at));
        }
        let broken = |why| ArchiveError::Block { at, why };
        let [flags] = take(&mut self.input)?;
        let size = BlockHeader::size_by(flags);
        self.block.clear();
        self.block.resize(size.min(HEADER_MAX), 0);
        if let Some((first, rest)) = self.block.split_first_mut() {
            *first = flags;
            fill(&mut self.input, rest)?;
        }
        let header = BlockHeader::parse(&self.block, self.block_size).map_err(broken)?;
        self.block.resize(size + header.body, 0);
        fill(&mut self.input, self.block.get_mut(size..).unwrap_or_default())?;
        if adler2::adler32_slice(&self.block) != checksum {
            return Err(ArchiveError::Damaged(at));
        }
        let body = self.block.get(size..).unwrap_or_default();
        quicklz::unpack(header, body, out).map_err(broken)?;
        self.at += out.len() as u64;
        Ok(true)
    }
}

fn take<const N: usize>(input: &mut impl Read) -> Result<[u8; N], ArchiveError> {
    let mut bytes = [0; N];
    fill(input, &mut bytes)?;
    Ok(bytes)
}

fn fill(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), ArchiveError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => ArchiveError::CutShort,
        _ => ArchiveError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn archive() -> Vec<u8> {
        let mut bytes = front(1024, b"t.ibd");
        pack(0, &[7; 1024], &mut bytes);
        let inside = store(1024, b"header", &mut bytes);
        assert_eq!(&bytes[inside..inside + 6], b"header");
        bytes.extend(end());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, ArchiveError> {
        let mut reader = Reader::new(bytes)?;
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while reader.next(&mut piece)? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[test]
    fn an_archive_comes_back_whole_or_not_at_all() {
        let bytes = archive();
        assert_eq!(read(&bytes).unwrap(), [&[7; 1024][..], b"header"].concat());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(matches!(read(&[&bytes[..], b"x"].concat()), Err(ArchiveError::Longer)));
        assert_eq!(read(&[front(1 << 16, b"empty"), end()].concat()).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed_in_every_block(at in 34_usize..70, change in 1_u8..) {
            let mut bytes = archive();
            bytes[at] ^= change;
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[front(1 << 16, b"x"), bytes].concat());
        }
    }
}
