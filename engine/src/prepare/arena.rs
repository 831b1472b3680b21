//! Memory for collected redo: fixed blocks, handed out to streams of bytes, used again by the
//! next batch.
//!
//! A growing `Vec` would double and copy, and hold up to three times its content for a moment;
//! blocks make the memory of a batch exactly what was counted. Blocks come from slabs large enough
//! for the allocator to map them on their own. A slab's pages exist only once written to, and the
//! kernel takes its time to give them: a thread of its own does that writing, a little ahead.

use crossbeam::channel::{Receiver, bounded};

/// Bytes of a block.
pub const BLOCK: usize = 16 << 10;
/// Blocks of a slab.
const SLAB_BLOCKS: usize = 64;
/// Slabs that are ready before they are asked for.
const AHEAD: usize = 2;
/// Memory beyond the blocks handed out: those slabs, one in the making and one in use.
pub const MEMORY: usize = (AHEAD + 2) * SLAB_BLOCKS * BLOCK;

/// All blocks.
#[derive(Default)]
pub struct Arena {
    slabs: Vec<Box<[u8]>>,
    used: u32,
    supply: Option<Receiver<Box<[u8]>>>,
}

impl Arena {
    /// Bytes of the blocks handed out.
    pub fn bytes(&self) -> usize {
        self.used as usize * BLOCK
    }

    /// Takes all blocks back. The streams that had them must be cleared too.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    fn take(&mut self) -> u32 {
        let block = self.used;
        self.used += 1;
        if self.slabs.len() * SLAB_BLOCKS <= block as usize {
            let supply = self.supply.get_or_insert_with(supply);
            // Without the thread the slab is made here.
            self.slabs.push(supply.recv().unwrap_or_else(|_| slab()));
        }
        block
    }

    #[inline]
    fn block(&self, block: u32) -> &[u8] {
        let at = block as usize % SLAB_BLOCKS * BLOCK;
        self.slabs
            .get(block as usize / SLAB_BLOCKS)
            .and_then(|slab| slab.get(at..at + BLOCK))
            .unwrap_or_default()
    }

    #[inline]
    fn block_mut(&mut self, block: u32) -> &mut [u8] {
        let at = block as usize % SLAB_BLOCKS * BLOCK;
        self.slabs
            .get_mut(block as usize / SLAB_BLOCKS)
            .and_then(|slab| slab.get_mut(at..at + BLOCK))
            .unwrap_or_default()
    }
}

/// A slab that was written to all over.
fn slab() -> Box<[u8]> {
    vec![u8::MAX; SLAB_BLOCKS * BLOCK].into_boxed_slice()
}

/// Starts the thread that makes slabs; it ends when the receiver is dropped.
fn supply() -> Receiver<Box<[u8]>> {
    let (send, slabs) = bounded(AHEAD);
    let make = move || while send.send(slab()).is_ok() {};
    // Where no thread can be started, the channel is closed.
    let _ = std::thread::Builder::new().name("slabs".into()).spawn(make);
    slabs
}

/// Bytes appended one behind the other, in blocks of an [`Arena`].
#[derive(Default)]
pub struct Stream {
    blocks: Vec<u32>,
    len: usize,
}

impl Stream {
    /// Bytes appended.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.len = 0;
    }

    /// Appends `bytes`.
    #[inline]
    pub fn append(&mut self, arena: &mut Arena, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = self.len % BLOCK;
            if within == 0 {
                self.blocks.push(arena.take());
            }
            let Some(&block) = self.blocks.last() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - within));
            if let Some(free) = arena.block_mut(block).get_mut(within..within + now.len()) {
                free.copy_from_slice(now);
            }
            self.len += now.len();
            bytes = later;
        }
    }

    /// The `len` bytes at `at`, fewer at the end of the stream. `scratch` takes them when they
    /// are not in one block.
    #[inline]
    pub fn read<'a>(
        &self,
        arena: &'a Arena,
        at: usize,
        len: usize,
        scratch: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let end = at.saturating_add(len).min(self.len);
        let within = at % BLOCK;
        if within + (end.saturating_sub(at)) <= BLOCK {
            let block = self.blocks.get(at / BLOCK).map_or(&[][..], |&block| arena.block(block));
            return block.get(within..within + end.saturating_sub(at)).unwrap_or_default();
        }
        scratch.clear();
        let mut at = at;
        while at < end {
            let within = at % BLOCK;
            let size = (end - at).min(BLOCK - within);
            let block = self.blocks.get(at / BLOCK).map_or(&[][..], |&block| arena.block(block));
            scratch.extend_from_slice(block.get(within..within + size).unwrap_or_default());
            at += size;
        }
        scratch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_appended_is_read_back(pieces in prop::collection::vec((0usize..2, 0usize..40_000), 1..20)) {
            let mut arena = Arena::default();
            let mut streams = [Stream::default(), Stream::default()];
            for _batch in 0..2 {
                let mut expected = [Vec::new(), Vec::new()];
                for (number, &(which, size)) in pieces.iter().enumerate() {
                    let bytes: Vec<u8> = (0..size).map(|i| (i * 7 + number) as u8).collect();
                    streams[which].append(&mut arena, &bytes);
                    expected[which].extend(bytes);
                }
                let mut scratch = Vec::new();
                for (stream, expected) in streams.iter().zip(&expected) {
                    prop_assert_eq!(stream.len(), expected.len());
                    prop_assert_eq!(stream.read(&arena, 0, expected.len() + 9, &mut scratch), &expected[..]);
                    let (from, to) = (expected.len() / 3, expected.len() / 2);
                    prop_assert_eq!(stream.read(&arena, from, to - from, &mut scratch), &expected[from..to]);
                }
                for stream in &mut streams {
                    stream.clear();
                }
                arena.clear();
            }
        }
    }
}
