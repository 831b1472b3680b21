//! Compressed parts of events and compressed column values.
//!
//! Both begin with one byte that says how many bytes of the plain length follow, big-endian; then
//! comes a zlib stream. The plain length is not trusted: output grows with what is inflated, up to
//! a limit.

use flate2::{Decompress, FlushDecompress, Status};

use crate::bytes::{Malformed, Read, big_uint};

/// Most bytes that a compressed part may grow to: the largest packet that a server sends.
pub const PLAIN_MAX: usize = 1 << 30;

/// First byte of a compressed part of an event.
mod container {
    /// Bits that say that it is one.
    pub const MARK_MASK: u8 = 0xe0;
    /// What these bits are. The algorithm that they include is zlib.
    pub const MARK: u8 = 0x80;
    /// Number of bytes of the length.
    pub const LENGTH_MASK: u8 = 0x07;
}

/// First byte of a value of a column with the attribute COMPRESSED.
mod column {
    /// The rest is the value.
    pub const PLAIN: u8 = 0;
    /// Method in the upper half.
    pub const METHOD_MASK: u8 = 0xf0;
    /// zlib.
    pub const METHOD_ZLIB: u8 = 0x80;
    /// The stream has neither header nor checksum.
    pub const RAW: u8 = 0x08;
    /// Number of bytes of the length.
    pub const LENGTH_MASK: u8 = 0x07;
}

/// Appends the plain bytes of the compressed part of an event to `plain`.
pub fn inflate_part(part: &[u8], plain: &mut Vec<u8>) -> Read<()> {
    let what = Malformed("compressed data");
    let (&first, rest) = part.split_first().ok_or(what)?;
    if first & container::MARK_MASK != container::MARK {
        return Err(Malformed("kind of compression"));
    }
    let width = usize::from(first & container::LENGTH_MASK);
    if !(1..=4).contains(&width) {
        return Err(Malformed("length of compressed data"));
    }
    let (length, stream) = rest.split_at_checked(width).ok_or(what)?;
    inflate(stream, big_uint(length), true, plain)
}

/// Appends the value that a column with the attribute COMPRESSED holds as `stored` to `plain`.
pub fn inflate_column(stored: &[u8], plain: &mut Vec<u8>) -> Read<()> {
    let Some((&first, rest)) = stored.split_first() else { return Ok(()) };
    if first == column::PLAIN {
        plain.extend_from_slice(rest);
        return Ok(());
    }
    if first & column::METHOD_MASK != column::METHOD_ZLIB {
        return Err(Malformed("kind of compression of a column"));
    }
    let width = usize::from(first & column::LENGTH_MASK);
    let (length, stream) =
        rest.split_at_checked(width).ok_or(Malformed("length of a compressed column"))?;
    inflate(stream, big_uint(length), first & column::RAW == 0, plain)
}

fn inflate(stream: &[u8], length: u64, has_header: bool, plain: &mut Vec<u8>) -> Read<()> {
    let what = Malformed("compressed data");
    let length = usize::try_from(length).ok().filter(|length| *length <= PLAIN_MAX).ok_or(what)?;
    // zlib cannot shrink more than this.
    if length / 1032 > stream.len() {
        return Err(what);
    }
    let begin = plain.len();
    plain.reserve(length);
    let mut inflater = Decompress::new(has_header);
    loop {
        let at = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX);
        let made = inflater.total_out();
        if plain.capacity() == plain.len() {
            plain.reserve(1);
        }
        let rest = stream.get(at..).ok_or(what)?;
        let status = inflater.decompress_vec(rest, plain, FlushDecompress::Finish);
        match status.map_err(|_| what)? {
            Status::StreamEnd => break,
            _ if inflater.total_out() > length as u64 => return Err(what),
            // No progress: the stream is cut.
            _ if inflater.total_out() == made && at == inflater.total_in() as usize => {
                return Err(what);
            }
            _ => {}
        }
    }
    if plain.len() - begin == length { Ok(()) } else { Err(what) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;
    use proptest::prelude::*;

    fn deflated(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(data in proptest::collection::vec(0_u8..4, 0..5000)) {
            let mut part = vec![0x83];
            part.extend_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
            part.extend(deflated(&data));
            let mut plain = b"kept".to_vec();
            inflate_part(&part, &mut plain).unwrap();
            prop_assert_eq!(&plain[..4], b"kept");
            prop_assert_eq!(&plain[4..], &data[..]);
            // Another length than that of the data is a fault.
            part[3] ^= 1;
            prop_assert!(inflate_part(&part, &mut Vec::new()).is_err());
        }

        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inflate_part(&data, &mut Vec::new());
            let _ = inflate_column(&data, &mut Vec::new());
        }
    }

    #[test]
    fn columns() {
        let value = |stored: &[u8]| {
            let mut plain = Vec::new();
            inflate_column(stored, &mut plain).map(|()| plain)
        };
        assert_eq!(value(b""), Ok(Vec::new()));
        assert_eq!(value(b"\0abc"), Ok(b"abc".to_vec()));
        let stored = [&[0x81, 6][..], &deflated(b"aaaaaa")].concat();
        assert_eq!(value(&stored), Ok(b"aaaaaa".to_vec()));
        assert!(value(b"\x11abc").is_err());
    }
}
