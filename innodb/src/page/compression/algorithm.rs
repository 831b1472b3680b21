//! The six algorithms of page compression, each behind the same two calls.
//!
//! Neither call takes more than the buffer it is given, and both are used with hostile bytes: what
//! does not fit or is not valid is `None`, without a reason, because the sums around the payload
//! know more than a decoder.

use std::fmt;
use std::io::{Read, Write};

use super::lzo;
use crate::space::flags::CompressionAlgorithm;

/// What a decoder of lzma may need in KiB: a payload names the size of its dictionary, up to 4 GiB.
/// Servers never write more than 64 MiB.
pub const LZMA_MEMORY_KIB: u32 = 80 << 10;

/// `innodb_compression_level` of a server that was not told otherwise.
const LEVEL: u32 = 6;

/// The algorithms, with what is costly to set up for every page.
#[derive(Default)]
pub struct Algorithms {
    inflate: Option<flate2::Decompress>,
    deflate: Option<flate2::Compress>,
    snappy: Option<snap::raw::Encoder>,
}

impl fmt::Debug for Algorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Algorithms")
    }
}

impl Algorithms {
    /// Decompresses `payload` into `output`; the number of bytes that came out.
    pub fn inflate(
        &mut self,
        algorithm: CompressionAlgorithm,
        payload: &[u8],
        output: &mut [u8],
    ) -> Option<usize> {
        match algorithm {
            CompressionAlgorithm::Zlib => self.inflate_zlib(payload, output),
            CompressionAlgorithm::Lz4 => lz4_flex::block::decompress_into(payload, output).ok(),
            CompressionAlgorithm::Lzo => ::lzo::decompress_into(payload, output).ok(),
            CompressionAlgorithm::Lzma => inflate_lzma(payload, output),
            CompressionAlgorithm::Bzip2 => inflate_bzip2(payload, output),
            CompressionAlgorithm::Snappy => {
                snap::raw::Decoder::new().decompress(payload, output).ok()
            }
        }
    }

    /// Compresses `plain` into `output`, which is made as large as needed; the number of bytes
    /// that came out. `None` when they would be more than went in.
    pub fn deflate(
        &mut self,
        algorithm: CompressionAlgorithm,
        plain: &[u8],
        output: &mut Vec<u8>,
    ) -> Option<usize> {
        // What the two fast algorithms ask for in the worst case.
        output.resize(plain.len() + plain.len() / 6 + 1024, 0);
        let room = output.get_mut(..plain.len())?;
        match algorithm {
            CompressionAlgorithm::Zlib => self.deflate_zlib(plain, room),
            CompressionAlgorithm::Lz4 => lz4_flex::block::compress_into(plain, output).ok(),
            CompressionAlgorithm::Lzo => lzo::compress(plain, room),
            CompressionAlgorithm::Lzma => deflate_lzma(plain, room),
            CompressionAlgorithm::Bzip2 => deflate_bzip2(plain, room),
            CompressionAlgorithm::Snappy => {
                let snappy = self.snappy.get_or_insert_with(snap::raw::Encoder::new);
                snappy.compress(plain, output).ok()
            }
        }
    }

    fn inflate_zlib(&mut self, payload: &[u8], output: &mut [u8]) -> Option<usize> {
        let zlib = self.inflate.get_or_insert_with(|| flate2::Decompress::new(true));
        zlib.reset(true);
        let status = zlib.decompress(payload, output, flate2::FlushDecompress::Finish).ok()?;
        let out = usize::try_from(zlib.total_out()).ok()?;
        (status == flate2::Status::StreamEnd).then_some(out)
    }

    fn deflate_zlib(&mut self, plain: &[u8], room: &mut [u8]) -> Option<usize> {
        let level = flate2::Compression::new(LEVEL);
        let zlib = self.deflate.get_or_insert_with(|| flate2::Compress::new(level, true));
        zlib.reset();
        let status = zlib.compress(plain, room, flate2::FlushCompress::Finish).ok()?;
        let out = usize::try_from(zlib.total_out()).ok()?;
        (status == flate2::Status::StreamEnd).then_some(out)
    }
}

fn inflate_bzip2(payload: &[u8], output: &mut [u8]) -> Option<usize> {
    let mut bzip2 = bzip2::Decompress::new(false);
    let status = bzip2.decompress(payload, output).ok()?;
    let out = usize::try_from(bzip2.total_out()).ok()?;
    (status == bzip2::Status::StreamEnd).then_some(out)
}

fn deflate_bzip2(plain: &[u8], room: &mut [u8]) -> Option<usize> {
    // A page is smaller than the smallest block.
    let mut bzip2 = bzip2::Compress::new(bzip2::Compression::fast(), 0);
    let status = bzip2.compress(plain, room, bzip2::Action::Finish).ok()?;
    let out = usize::try_from(bzip2.total_out()).ok()?;
    (status == bzip2::Status::StreamEnd).then_some(out)
}

fn inflate_lzma(payload: &[u8], output: &mut [u8]) -> Option<usize> {
    let mut reader = lzma_rust2::XzReader::new_mem_limit(payload, false, LZMA_MEMORY_KIB);
    let mut out = 0;
    loop {
        let read = reader.read(output.get_mut(out..)?).ok()?;
        out += read;
        // A full buffer reads nothing more, just as the end of the stream does.
        if read == 0 {
            return Some(out);
        }
    }
}

fn deflate_lzma(plain: &[u8], room: &mut [u8]) -> Option<usize> {
    let mut options = lzma_rust2::XzOptions::with_preset(LEVEL);
    options.set_check_sum_type(lzma_rust2::CheckType::None);
    // There is nothing further back than the start of the page.
    options.lzma_options.dict_size = u32::try_from(plain.len()).ok()?.max(4096);
    let size = room.len();
    let mut writer = lzma_rust2::XzWriter::new(&mut *room, options).ok()?;
    writer.write_all(plain).ok()?;
    let left = writer.finish().ok()?.len();
    Some(size - left)
}
