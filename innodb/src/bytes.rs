//! Checked big-endian access to pages and log headers.
//!
//! Every number on an InnoDB page is big-endian. Nobody slices by hand: offsets that come from
//! a page are not to be trusted, so each access says what happens when it is out of bounds.

/// The `u8` at `offset`, or `None` beyond the end.
pub fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// The big-endian `u16` at `offset`, or `None` beyond the end.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The big-endian `u32` at `offset`, or `None` beyond the end.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The big-endian `u64` at `offset`, or `None` beyond the end.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Writes `value` at `offset`; `None`, and nothing written, when it does not fit.
#[must_use = "a write out of bounds must not be ignored"]
pub fn put(bytes: &mut [u8], offset: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(offset..)?.get_mut(..value.len())?.copy_from_slice(value);
    Some(())
}
