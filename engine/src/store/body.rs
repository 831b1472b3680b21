//! What an object is made of: pieces in memory that are sent one after the other, without being
//! copied together, and as often as a request has to be repeated.

use std::sync::Arc;

use bytes::Bytes;

/// The content of an object, in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Body {
    parts: Arc<[Bytes]>,
    len: u64,
}

impl Body {
    /// The pieces in their order.
    pub fn new(parts: Vec<Bytes>) -> Self {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        Self { parts: parts.into(), len }
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in their order.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Whether `other` has the same bytes, in whatever pieces.
    pub fn equals(&self, mut other: &[u8]) -> bool {
        for part in self.parts() {
            match other.strip_prefix(&part[..]) {
                Some(rest) => other = rest,
                None => return false,
            }
        }
        other.is_empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(parts: Vec<Bytes>) -> Self {
        Self::new(parts)
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}
