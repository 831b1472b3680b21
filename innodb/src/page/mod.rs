//! Pages: header, trailer, types, checksums, verification.

/// CRC-32C (Castagnoli) of `bytes`: the checksum of pages and of the redo log.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
