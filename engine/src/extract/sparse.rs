//! Holes of page-compressed tablespaces.
//!
//! A compressed page occupies the front of its slot and is zero behind; the server gives that
//! space back to the file system by punching holes. When such a file is unpacked, blocks of
//! zeros are left out instead of written. For other files zeros are written, so that the space
//! of the backup is reserved as on the server.

use innodb::bytes::u32_at;
use innodb::space::{PageCompression, SpaceFlags};
use xbstream::StreamPath;

/// Offset of the tablespace's flags in its first page: after the page header and 16 bytes of the
/// tablespace header. In a stream the rest of the page may not have arrived yet.
const SPACE_FLAGS: usize = 38 + 16;

/// Whether `path` is a page-compressed tablespace that begins with the bytes `start`.
///
/// A guess is enough: a wrong one changes which zeros occupy space, not what is read back.
pub fn is_page_compressed(path: &StreamPath, start: &[u8]) -> bool {
    let flags = u32_at(start, SPACE_FLAGS).and_then(|word| SpaceFlags::parse(word).ok());
    path.file_name().ends_with(b".ibd")
        && flags.is_some_and(|flags| flags.page_compression() != PageCompression::None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn page0(flags: u32) -> Vec<u8> {
        let mut page = vec![0; 100];
        page[54..58].copy_from_slice(&flags.to_be_bytes());
        page
    }

    #[test]
    fn flags_of_both_formats() {
        let ibd = StreamPath::new("d/t.ibd").unwrap();
        for (flags, compressed) in [
            (0x15, false),
            (0x15 | 1 << 5, true),
            (0x15 | 5 << 5, true),
            (0x21, false),
            (0x21 | 1 << 16, true),
            // No server writes these.
            (0x15 | 1 << 16, false),
            (0xffff_ffff, false),
        ] {
            assert_eq!(is_page_compressed(&ibd, &page0(flags)), compressed, "{flags:#x}");
        }
        assert!(!is_page_compressed(&StreamPath::new("d/t.MYD").unwrap(), &page0(0x35)));
        assert!(!is_page_compressed(&ibd, &page0(0x35)[..57]));
    }
}
