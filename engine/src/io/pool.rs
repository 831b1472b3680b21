//! Large buffers that are used again: to get that much fresh memory from the kernel takes as long as
//! it takes to fill it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers that nobody uses at the moment. Clones share them.
#[derive(Clone, Debug)]
pub struct Pool {
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Buffers that are kept at most.
    most: usize,
    /// Longer ones are not kept.
    longest: usize,
}

impl Pool {
    /// An empty pool that keeps so many buffers, of so many bytes each at most.
    pub fn new(most: usize, longest: usize) -> Self {
        Self { spare: Arc::default(), most, longest }
    }

    /// An empty buffer, which comes back by itself.
    pub fn take(&self) -> Pooled {
        let bytes = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Pooled { bytes: bytes.unwrap_or_default(), pool: Some(self.clone()) }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fit = (1..=self.longest).contains(&bytes.capacity());
        if is_fit && spare.len() < self.most {
            bytes.clear();
            spare.push(bytes);
        }
    }
}

/// A buffer of a pool; the default is one of none.
#[derive(Debug, Default)]
pub struct Pooled {
    bytes: Vec<u8>,
    pool: Option<Pool>,
}

impl Pooled {
    /// The same, not to be changed any more. It comes back when the last clone is gone.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Pooled {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty() {
        let pool = Pool::new(1, 1000);
        let mut buffer = pool.take();
        buffer.extend_from_slice(&[1; 1000]);
        let at = buffer.as_ptr();
        let frozen = buffer.freeze();
        let clone = frozen.slice(10..);
        drop(frozen);
        // It is still in use.
        let mut other = pool.take();
        assert_eq!((other.capacity(), clone[0]), (0, 1));
        drop(clone);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        // Not more than there is place for, and not what is too long.
        other.push(1);
        drop(again);
        drop(other);
        let mut kept = pool.take();
        assert_eq!(pool.take().capacity(), 0);
        kept.reserve(1001);
        drop(kept);
        assert_eq!(pool.take().capacity(), 0);
    }
}
