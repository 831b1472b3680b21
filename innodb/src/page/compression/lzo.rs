//! Writing LZO1X. There is a well-kept decoder of the format, but no encoder under a free licence.
//!
//! | instruction | what follows |
//! |---|---|
//! | `17 + n`, as the first byte only | `n` literals, 1 to 238 |
//! | `0000 LLLL` | `L + 3` literals, or 18 + extension |
//! | `LLLD DDSS` + 1 byte, L ≥ 2 | match of `L + 1` (3 to 8) bytes, up to 2 KiB back |
//! | `001L LLLL` + 2 bytes | match of `L + 2` bytes, or 33 + extension, up to 16 KiB back |
//! | `0001 DLLL` + 2 bytes | match of `L + 2` bytes, or 9 + extension, up to 48 KiB back |
//! | `17 0 0` | end |
//!
//! An extension stands where a length field is 0: a zero byte for every 255, then the rest, 1 to
//! 255. `S`, the two low bits of the last byte but one of a match, counts up to 3 literals that
//! follow it directly. A run of more literals is an instruction of its own, and only a match may
//! follow it.
//!
//! Matches are found by one look at the last place of the same four bytes, which is what the
//! fast levels of the format do.

/// Positions of four bytes that were seen, by their hash.
const TABLE_BITS: u32 = 13;
/// Shortest match that is looked for.
const MATCH_MIN: usize = 4;
const NEAR: usize = 0x800;
const MIDDLE: usize = 0x4000;
const FAR: usize = 0xbfff;
const LITERALS_FIRST_MAX: usize = 238;
const END: [u8; 3] = [17, 0, 0];

/// Compresses `input` of at most 64 KiB into `output`; `None` when it does not fit.
pub fn compress(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let mut writer = Writer { output, at: 0, counts: None };
    // Places are kept plus one; 0 is none.
    let mut table = vec![0u32; 1 << TABLE_BITS];
    let (mut literals, mut at) = (0, 0);
    while let Some(four) = input.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let hash = u32::from_le_bytes(*four).wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS);
        let slot = table.get_mut(hash as usize)?;
        let seen = std::mem::replace(slot, u32::try_from(at).ok()? + 1);
        let found = (seen as usize).checked_sub(1).filter(|seen| at - seen <= FAR);
        let length = found.map_or(0, |seen| common(input, seen, at));
        match found {
            Some(seen) if length >= MATCH_MIN => {
                writer.literals(input.get(literals..at)?)?;
                writer.copy(at - seen, length)?;
                at += length;
                literals = at;
            }
            _ => at += 1,
        }
    }
    writer.literals(input.get(literals..)?)?;
    writer.bytes(&END)?;
    Some(writer.at)
}

/// How many bytes are the same at two places.
fn common(input: &[u8], one: usize, other: usize) -> usize {
    let one = input.get(one..).unwrap_or_default();
    let other = input.get(other..).unwrap_or_default();
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

struct Writer<'o> {
    output: &'o mut [u8],
    at: usize,
    /// The byte whose low bits count the literals behind a match, if a match was the last thing.
    counts: Option<usize>,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.output.get_mut(self.at..self.at + bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    /// What a length field of 0 is followed by.
    fn extension(&mut self, mut rest: usize) -> Option<()> {
        while rest > 255 {
            self.bytes(&[0])?;
            rest -= 255;
        }
        self.bytes(&[rest as u8])
    }

    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        match (bytes.len(), self.counts) {
            (0, _) => return Some(()),
            (n @ 1..=3, Some(at)) => *self.output.get_mut(at)? |= n as u8,
            (n @ 1..=LITERALS_FIRST_MAX, None) => self.bytes(&[17 + n as u8])?,
            (n @ ..=18, _) => self.bytes(&[n as u8 - 3])?,
            (n, _) => {
                self.bytes(&[0])?;
                self.extension(n - 18)?;
            }
        }
        self.bytes(bytes)
    }

    fn copy(&mut self, distance: usize, length: usize) -> Option<()> {
        if length <= 8 && distance <= NEAR {
            let back = distance - 1;
            self.bytes(&[((length - 1) << 5 | (back & 7) << 2) as u8, (back >> 3) as u8])?;
        } else {
            let (marker, short, back) = match distance {
                ..=MIDDLE => (0x20, 33, distance - 1),
                _ => {
                    let back = distance - MIDDLE;
                    (0x10 | (back >> 11 & 8), 9, back)
                }
            };
            if length <= short {
                self.bytes(&[(marker | (length - 2)) as u8])?;
            } else {
                self.bytes(&[marker as u8])?;
                self.extension(length - short)?;
            }
            self.bytes(&[(back << 2) as u8, (back >> 6) as u8])?;
        }
        self.counts = Some(self.at - 2);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn round_trip(input: &[u8]) -> usize {
        let mut output = vec![0; input.len() * 2 + 64];
        let size = compress(input, &mut output).unwrap();
        let mut again = vec![0; input.len() + 1];
        let length = ::lzo::decompress_into(&output[..size], &mut again).unwrap();
        assert!(&again[..length] == input);
        size
    }

    #[test]
    fn runs_and_distances_at_every_border() {
        for literals in [0, 1, 3, 4, 18, 19, 238, 239, 273, 274, 600] {
            for length in [4, 8, 9, 10, 33, 34, 264, 265, 288, 289, 1000] {
                for gap in [0, NEAR - 600, NEAR, MIDDLE - 500, MIDDLE, MIDDLE + 0x4000, 0xb000] {
                    let noise = |n: usize, seed: u32| {
                        (0..n as u32)
                            .map(move |i| ((i + seed).wrapping_mul(2_654_435_761) >> 23) as u8)
                    };
                    let repeated: Vec<u8> = noise(length, 77).collect();
                    let mut input: Vec<u8> = noise(literals, 5).collect();
                    input.extend(&repeated);
                    input.extend(noise(gap, 999));
                    input.extend(&repeated);
                    round_trip(&input);
                }
            }
        }
    }

    #[test]
    fn zeros_become_small_and_what_does_not_fit_is_refused() {
        assert!(round_trip(&vec![0; 65536]) < 400);
        let noise: Vec<u8> =
            (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(compress(&noise, &mut [0; 100]), None);
        assert_eq!(compress(&[0; 64], &mut []), None);
    }

    proptest! {
        #[test]
        fn whatever_is_compressed_comes_back(
            pieces in prop::collection::vec((prop::collection::vec(0u8..4, 1..40), 1usize..60), 0..60),
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut input = Vec::new();
            for (piece, times) in pieces {
                for _ in 0..times {
                    input.extend(&piece);
                }
                input.extend(bytes.iter().take(times));
            }
            input.truncate(65536);
            round_trip(&input);
            round_trip(&bytes);
        }
    }
}
