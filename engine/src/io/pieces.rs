//! Bytes in several places, in their order: what belongs together without having been copied together.

use bytes::Bytes;

/// A run of bytes. It holds on to the buffers that they are in.
#[derive(Debug, Default)]
pub struct Pieces {
    parts: Vec<Bytes>,
    len: usize,
}

impl Pieces {
    /// How many bytes there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if !bytes.is_empty() {
            self.parts.push(bytes);
        }
    }

    /// Appends zeros.
    pub fn push_zeros(&mut self, mut len: usize) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while len > 0 {
            let now = len.min(ZEROS.len());
            self.push(Bytes::from_static(&ZEROS).slice(..now));
            len -= now;
        }
    }

    /// Takes the first bytes away, at most `len`.
    pub fn split_to(&mut self, len: usize) -> Self {
        if len >= self.len {
            return std::mem::take(self);
        }
        let mut first = Self::default();
        let mut whole = 0;
        for part in &mut self.parts {
            let now = part.len().min(len - first.len);
            whole += usize::from(now == part.len());
            first.push(part.split_to(now));
            if first.len == len {
                break;
            }
        }
        self.parts.drain(..whole);
        self.len -= first.len;
        first
    }

    /// The parts, none of them empty.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(AsRef::as_ref)
    }

    /// Copies them to the beginning of a buffer, as many as it has room for.
    pub fn copy_to(&self, mut buffer: &mut [u8]) {
        for part in self.parts() {
            let now = part.len().min(buffer.len());
            let (place, rest) = buffer.split_at_mut(now);
            place.copy_from_slice(part.split_at(now).0);
            buffer = rest;
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        let mut pieces = Self::default();
        pieces.push(bytes);
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However they are put together and taken apart, the bytes and their order stay.
        #[test]
        fn nothing_is_lost(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            zeros in 0usize..200_000,
            cuts in prop::collection::vec(0usize..20, 0..9),
        ) {
            let mut all = parts.concat();
            all.resize(all.len() + zeros, 0);
            let mut pieces = Pieces::default();
            parts.into_iter().for_each(|part| pieces.push(Bytes::from(part)));
            pieces.push_zeros(zeros);
            prop_assert_eq!(pieces.len(), all.len());

            let mut got = Vec::new();
            let collect = |pieces: &Pieces, got: &mut Vec<u8>| {
                let mut buffer = vec![7; pieces.len() + 1];
                pieces.copy_to(&mut buffer);
                assert_eq!(buffer.pop(), Some(7));
                assert_eq!(buffer, pieces.parts().collect::<Vec<_>>().concat());
                got.extend(buffer);
            };
            for cut in cuts {
                let first = pieces.split_to(cut);
                prop_assert_eq!(first.len(), cut.min(all.len() - got.len()));
                collect(&first, &mut got);
            }
            collect(&pieces, &mut got);
            prop_assert_eq!(pieces.is_empty(), pieces.parts().next().is_none());
            prop_assert_eq!(got, all);
        }

        /// What there is no room for is left out.
        #[test]
        fn a_short_buffer_gets_the_beginning(room in 0usize..12) {
            let mut pieces = Pieces::from(Bytes::from_static(b"abcd"));
            pieces.push(Bytes::from_static(b"efgh"));
            let mut buffer = vec![b'.'; room];
            pieces.copy_to(&mut buffer);
            let wanted: Vec<u8> = b"abcdefgh....".iter().copied().take(room).collect();
            prop_assert_eq!(buffer, wanted);
        }
    }
}
