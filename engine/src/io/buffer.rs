//! Memory to read files into, at an address that the kernel copies to fast.
//!
//! The kernel's copy between page cache and user memory runs at a third of its speed, on some
//! processors, when the two are not aligned to each other, and the allocator places large
//! blocks 16 bytes behind a page border. Buffers here begin at a page border.

use std::ops::{Deref, DerefMut};

/// Pages of the page cache begin at multiples of this; direct writes need it too.
pub const ALIGNMENT: usize = 4096;

/// Bytes at an aligned address. The memory is allocated once and does not move.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` zero bytes.
    pub fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGNMENT];
        // Where alignment cannot be had, which the standard library allows for, reading still works.
        let start =
            Some(memory.as_ptr().align_offset(ALIGNMENT)).filter(|start| *start < ALIGNMENT);
        Self { memory, start: start.unwrap_or(0), len }
    }

    /// Makes the buffer `len` bytes long. What is in it stays where the memory is large enough, and
    /// is lost where it is not.
    pub fn set_len(&mut self, len: usize) {
        if self.start + len > self.memory.len() {
            *self = Self::new(len);
        }
        self.len = len;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_a_page_border_and_hold_what_they_say() {
        for len in [0, 1, 4095, 4096, 1 << 20] {
            let mut buffer = Buffer::new(len);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % ALIGNMENT), (len, 0));
            buffer.fill(7);
            buffer.set_len(len / 2);
            assert_eq!(buffer.iter().filter(|b| **b == 7).count(), len / 2);
            buffer.set_len(len * 3);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % ALIGNMENT), (len * 3, 0));
        }
    }
}
