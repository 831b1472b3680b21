//! Blocks of QuickLZ, level 1, as `.qp` files have them.
//!
//! A block is a header and a body. The header tells the size of both, so that a block ends by itself:
//!
//! | bytes | short | long |
//! |---|---|---|
//! | flags | 1 | 1 |
//! | size of the block with its header | 1 | 4 |
//! | size of what it holds | 1 | 4 |
//!
//! The body is either what it holds as it is, or items behind control words of 32 bits, which tell
//! 31 items each, from the low end: 0 is a byte, 1 is a match. A match names the slot of a table of
//! places and a length of 3 to 255. Reader and writer fill the table by the same rule: a place is
//! entered under the hash of its three bytes when it lies three bytes back, in order; places inside a
//! match are left out. Near the end of a block there are only bytes.
//!
//! Promises: reading never goes beyond what is there, and never makes more than the header says and
//! the caller allows.

/// The header says which body follows.
const COMPRESSED: u8 = 1;
const LONG: u8 = 2;
/// Level 1, and a bit that is always set.
const LEVEL_1: u8 = (1 << 2) | (1 << 6);
/// The bits of the level, and of a mode in which blocks refer to those before them.
const LEVEL_MASK: u8 = 0b1100;
const STREAMING_MASK: u8 = 0b11_0000;

const SHORT_HEADER: usize = 3;
const LONG_HEADER: usize = 9;
/// Holding less than this, a block has the short header.
const LONG_SIZE: usize = 216;
/// Largest header.
pub const HEADER_MAX: usize = LONG_HEADER;

/// Slots of the table.
const SLOTS: usize = 4096;
/// Shortest match; a match copies from at least so far back.
const MATCH_MIN: usize = 3;
const MATCH_MAX: usize = 255;
/// Lengths up to this are in the token itself.
const MATCH_SHORT_MAX: usize = 17;
/// In so many last bytes no match begins, and in so many none ends.
const BEGINS_BEFORE: usize = 11;
const ENDS_BEFORE: usize = 4;
/// A control word of which all items were taken, and one with bytes only.
const TAKEN: u32 = 1;
const BYTES_ONLY: u32 = 1 << 31;
/// Items of a control word.
const ITEMS: u32 = 31;

/// Why a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The block ends too early.
    #[error("a compressed block ends too early")]
    CutShort,
    /// Written by another program, in another way.
    #[error("a compressed block is of a kind that no backup has")]
    Kind,
    /// The sizes in the header do not go together, or are too large.
    #[error("a compressed block says that it holds {0} bytes")]
    Size(usize),
    /// A match that copies from nowhere, or too much.
    #[error("a compressed block makes no sense inside")]
    Match,
}

/// What the front of a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Whether the body is compressed.
    pub compressed: bool,
    /// Its own size.
    pub size: usize,
    /// The size of the body.
    pub body: usize,
    /// The size of what the block holds.
    pub holds: usize,
}

impl BlockHeader {
    /// The size of the header that begins with this byte.
    pub fn size_by(flags: u8) -> usize {
        if flags & LONG == 0 { SHORT_HEADER } else { LONG_HEADER }
    }

    /// Reads the header of a block that holds at most `most`.
    pub fn parse(bytes: &[u8], most: usize) -> Result<Self, BlockError> {
        let flags = *bytes.first().ok_or(BlockError::CutShort)?;
        if flags & (LEVEL_MASK | STREAMING_MASK) != LEVEL_1 & LEVEL_MASK {
            return Err(BlockError::Kind);
        }
        let size = Self::size_by(flags);
        let sizes = match size {
            SHORT_HEADER => array_at::<2>(bytes, 1).map(|sizes| sizes.map(usize::from)),
            _ => u32_at(bytes, 1)
                .zip(u32_at(bytes, 5))
                .map(|(block, holds)| [block as usize, holds as usize]),
        };
        let [block, holds] = sizes.ok_or(BlockError::CutShort)?;
        let body = block.checked_sub(size).ok_or(BlockError::Size(holds))?;
        let compressed = flags & COMPRESSED != 0;
        if holds > most || body > most + LONG_HEADER || (!compressed && body != holds) {
            return Err(BlockError::Size(holds));
        }
        Ok(Self { compressed, size, body, holds })
    }
}

/// The places of three bytes.
struct Table {
    places: Box<[u32; SLOTS]>,
    /// The next place that is entered.
    next: usize,
}

impl Table {
    fn new() -> Self {
        Self { places: Box::new([0; SLOTS]), next: 0 }
    }

    fn slot(bytes: [u8; 3]) -> usize {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        (((word >> 12) ^ word) & (SLOTS as u32 - 1)) as usize
    }

    fn place(&self, slot: usize) -> usize {
        self.places.get(slot).map_or(0, |place| *place as usize)
    }

    /// Enters the places of `bytes` before `end`.
    fn enter(&mut self, bytes: &[u8], end: usize) {
        while self.next < end {
            if let Some(three) = array_at::<3>(bytes, self.next)
                && let Some(place) = self.places.get_mut(Self::slot(three))
            {
                *place = self.next as u32;
            }
            self.next += 1;
        }
    }

    /// Passes over what lies in a match.
    fn skip_to(&mut self, end: usize) {
        self.next = end;
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at::<4>(bytes, at).map(u32::from_le_bytes)
}

/// Appends what a block holds to `out`; `body` is what follows its header.
pub fn unpack(header: BlockHeader, body: &[u8], out: &mut Vec<u8>) -> Result<(), BlockError> {
    let body = body.get(..header.body).ok_or(BlockError::CutShort)?;
    if !header.compressed {
        out.extend_from_slice(body);
        return Ok(());
    }
    let begin = out.len();
    out.reserve(header.holds);
    let mut table = Table::new();
    let (mut control, mut at) = (TAKEN, 0);
    let mut bytes_only = false;
    loop {
        let done = out.len() - begin;
        if done >= header.holds {
            return Ok(());
        }
        if control == TAKEN {
            // Behind the last match the words count no more, but are there.
            control = match (u32_at(body, at), bytes_only) {
                (_, true) => BYTES_ONLY,
                (Some(word), false) => word,
                (None, false) => return Err(BlockError::CutShort),
            };
            at += 4;
            // The highest bit marks the end; a word without it would never be taken whole.
            if control & BYTES_ONLY == 0 {
                return Err(BlockError::Match);
            }
        }
        if control & 1 == 1 && !bytes_only {
            let token = array_at::<2>(body, at).map(u16::from_le_bytes);
            let token = token.ok_or(BlockError::CutShort)?;
            let length = match token & 15 {
                0 => {
                    at += 3;
                    usize::from(*body.get(at - 1).ok_or(BlockError::CutShort)?)
                }
                short => {
                    at += 2;
                    usize::from(short) + 2
                }
            };
            let from = table.place(usize::from(token >> 4));
            if length < MATCH_MIN || from + MATCH_MIN > done || length > header.holds - done {
                return Err(BlockError::Match);
            }
            for place in begin + from..begin + from + length {
                let byte = *out.get(place).ok_or(BlockError::Match)?;
                out.push(byte);
            }
            table.enter(out.get(begin..).unwrap_or_default(), done + 1);
            table.skip_to(done + length);
        } else {
            bytes_only |= done + BEGINS_BEFORE >= header.holds;
            out.push(*body.get(at).ok_or(BlockError::CutShort)?);
            at += 1;
            table.enter(out.get(begin..).unwrap_or_default(), (done + 1).saturating_sub(2));
        }
        control >>= 1;
    }
}

/// Control words on their way out.
struct Control {
    /// Where the present one is.
    at: usize,
    bits: u32,
    items: u32,
}

impl Control {
    fn begin(out: &mut Vec<u8>) -> Self {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        Self { at, bits: 0, items: 0 }
    }

    /// Makes room for another item.
    fn make_room(&mut self, out: &mut Vec<u8>) {
        if self.items == ITEMS {
            self.finish(out);
            *self = Self::begin(out);
        }
    }

    fn note(&mut self, is_match: bool) {
        self.bits |= u32::from(is_match) << self.items;
        self.items += 1;
    }

    fn finish(&self, out: &mut [u8]) {
        let word = (self.bits | BYTES_ONLY).to_le_bytes();
        if let Some(place) = out.get_mut(self.at..self.at + word.len()) {
            place.copy_from_slice(&word);
        }
    }
}

/// Appends a block that holds `bytes`, which are less than 4 GiB, to `out`.
pub fn pack(bytes: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    let header = header_size(bytes.len());
    out.extend_from_slice(&[0; LONG_HEADER][..header]);
    let mut control = Control::begin(out);
    let mut table = Table::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if out.len() - begin >= bytes.len() + header {
            break;
        }
        control.make_room(out);
        table.enter(bytes, at.saturating_sub(2));
        let found =
            (at + BEGINS_BEFORE < bytes.len()).then(|| longest(bytes, at, &table)).flatten();
        control.note(found.is_some());
        match found {
            Some((slot, length)) => {
                let slot = (slot as u16) << 4;
                if length <= MATCH_SHORT_MAX {
                    out.extend_from_slice(&(slot | (length - 2) as u16).to_le_bytes());
                } else {
                    out.extend_from_slice(&slot.to_le_bytes());
                    out.push(length as u8);
                }
                table.enter(bytes, at + 1);
                table.skip_to(at + length);
                at += length;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    if at < bytes.len() || out.len() - begin >= bytes.len() + header {
        out.truncate(begin);
        store(bytes, out);
        return;
    }
    control.finish(out);
    let size = out.len() - begin;
    write_header(out, begin, COMPRESSED, size, bytes.len());
}

/// The slot and the length of the match at `at`, if there is one.
fn longest(bytes: &[u8], at: usize, table: &Table) -> Option<(usize, usize)> {
    let slot = Table::slot(array_at::<3>(bytes, at)?);
    let from = table.place(slot);
    if from + MATCH_MIN > at {
        return None;
    }
    let most = (bytes.len() - ENDS_BEFORE - at).min(MATCH_MAX);
    let here = bytes.get(at..at + most)?;
    let length =
        here.iter().zip(bytes.get(from..)?).take_while(|(one, other)| one == other).count();
    (length >= MATCH_MIN).then_some((slot, length))
}

/// Appends a block that holds `bytes` as they are; where in the block they begin.
pub fn store(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    let header = header_size(bytes.len());
    out.extend_from_slice(&[0; LONG_HEADER][..header]);
    out.extend_from_slice(bytes);
    write_header(out, begin, 0, header + bytes.len(), bytes.len());
    header
}

fn header_size(holds: usize) -> usize {
    if holds < LONG_SIZE { SHORT_HEADER } else { LONG_HEADER }
}

fn write_header(out: &mut [u8], begin: usize, compressed: u8, size: usize, holds: usize) {
    let long = header_size(holds) == LONG_HEADER;
    let mut header = vec![LEVEL_1 | compressed | if long { LONG } else { 0 }];
    for number in [size, holds] {
        match long {
            true => header.extend_from_slice(&(number as u32).to_le_bytes()),
            false => header.push(number as u8),
        }
    }
    if let Some(place) = out.get_mut(begin..begin + header.len()) {
        place.copy_from_slice(&header);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn back(block: &[u8]) -> Result<Vec<u8>, BlockError> {
        let header = BlockHeader::parse(block, 1 << 20)?;
        let mut out = vec![7];
        unpack(header, &block[header.size..], &mut out)?;
        assert_eq!(header.size + header.body, block.len());
        Ok(out.split_off(1))
    }

    /// Text with repetitions near and far, runs, and a tail of every length.
    fn samples() -> Vec<Vec<u8>> {
        let mut samples = vec![vec![], vec![0; 65536], (0..=255).collect(), [1, 2].repeat(300)];
        for length in 0..300 {
            samples.push(
                b"INSERT INTO t VALUES (1),(2),".iter().cycle().take(length).copied().collect(),
            );
        }
        samples
    }

    #[test]
    fn what_is_packed_comes_back() {
        for sample in samples() {
            let mut block = Vec::new();
            pack(&sample, &mut block);
            assert!(back(&block).unwrap() == sample, "{} bytes", sample.len());
            assert!(block.len() <= sample.len() + LONG_HEADER);
        }
        let mut block = Vec::new();
        pack(&[0; 65536], &mut block);
        assert!(block.len() < 1000, "a run takes {} bytes", block.len());
    }

    #[test]
    fn a_short_block_by_hand() {
        // Nine bytes are too few for a match: one control word, then the bytes as they are, unless
        // that is longer than storing them.
        let mut block = Vec::new();
        pack(b"abcdefghi", &mut block);
        assert_eq!(block, [&[0x44, 12, 9][..], b"abcdefghi"].concat());
        // A match of seven from the front: "abc" was entered in slot (0x636261 >> 12 ^ 0x636261) & 4095.
        let slot = ((0x63_6261_u32 >> 12) ^ 0x63_6261) & 4095;
        let token = ((slot << 4) as u16 | 5).to_le_bytes();
        let body =
            [&(BYTES_ONLY | (1 << 3)).to_le_bytes()[..], b"abc", &token, b"0123456789"].concat();
        let block = [&[0x45, 3 + body.len() as u8, 20][..], &body].concat();
        assert_eq!(back(&block).unwrap(), b"abcabcabca0123456789");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(back(&[]), Err(BlockError::CutShort));
        assert_eq!(back(&[0x4d, 3, 0]), Err(BlockError::Kind));
        assert_eq!(back(&[0x45, 2, 1]), Err(BlockError::Size(1)));
        assert_eq!(back(&[0x44, 4, 9, 0]), Err(BlockError::Size(9)));
        let huge = [&[0x47][..], &[255; 8]].concat();
        assert!(matches!(back(&huge), Err(BlockError::Size(_))));
        // A match at the very front, and a control word without an end.
        assert_eq!(back(&[0x45, 9, 20, 1, 0, 0, 0x80, 1, 0]), Err(BlockError::Match));
        assert_eq!(back(&[0x45, 8, 20, 0, 0, 0, 0, 1]), Err(BlockError::Match));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(0_u8..4, 0..3000)) {
            let mut block = Vec::new();
            pack(&bytes, &mut block);
            prop_assert_eq!(back(&block).unwrap(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 12..400)) {
            let size = bytes.len() as u8;
            bytes.splice(..3, [0x45, size, 250]);
            let _ = BlockHeader::parse(&bytes, 300).map(|header| {
                unpack(header, &bytes[header.size..], &mut Vec::new())
            });
        }
    }
}
