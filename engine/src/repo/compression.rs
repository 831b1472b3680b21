//! How frames are made smaller.
//!
//! Each frame is compressed by itself, as a whole unit of its format, so that the frames of a
//! pack, one behind the other, are what the format's own program unpacks.

use std::io::{Read, Write};

use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};

use crate::{Error, ErrorKind, Result};

/// Longest frame, uncompressed. Ours are shorter; a manifest that says more is refused.
pub const FRAME_MAX: usize = 64 << 20;

/// A format, with what it is told when compressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", tag = "format")]
pub enum Compression {
    /// Zstandard, levels 1 to 19.
    Zstd {
        /// Higher is smaller and slower.
        level: u8,
    },
    /// LZ4 frames.
    Lz4,
    /// gzip, levels 1 to 9.
    Gzip {
        /// Higher is smaller and slower.
        level: u8,
    },
    /// bzip2, levels 1 to 9.
    Bzip2 {
        /// Higher is smaller and slower.
        level: u8,
    },
    /// As it is.
    None,
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd { level: 1 }
    }
}

impl Compression {
    /// What names of packs end with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd { .. } => ".zst",
            Self::Lz4 => ".lz4",
            Self::Gzip { .. } => ".gz",
            Self::Bzip2 { .. } => ".bz2",
            Self::None => "",
        }
    }
}

/// `zstd`, `zstd:3`, `lz4`, `gzip`, `gzip:6`, `bzip2`, `none`.
impl std::str::FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let level = |default: u8, most: u8| match level.map(str::parse) {
            None => Ok(default),
            Some(Ok(level)) if (1..=most).contains(&level) => Ok(level),
            Some(_) => Err(format!("{name} has the levels 1 to {most}")),
        };
        let fixed = |format| match text == name {
            true => Ok(format),
            false => Err(format!("{name} has no levels")),
        };
        match name {
            "zstd" => Ok(Self::Zstd { level: level(1, 19)? }),
            "gzip" => Ok(Self::Gzip { level: level(1, 9)? }),
            "bzip2" => Ok(Self::Bzip2 { level: level(9, 9)? }),
            "lz4" => fixed(Self::Lz4),
            "none" => fixed(Self::None),
            _ => Err("one of zstd[:LEVEL], lz4, gzip[:LEVEL], bzip2[:LEVEL], none".to_owned()),
        }
    }
}

/// Compresses frames; keeps what can be used again.
pub struct Compressor {
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    lz4: FrameEncoder<Vec<u8>>,
}

impl Compressor {
    /// For one thread.
    pub fn new(compression: Compression) -> Result<Self> {
        let zstd = match compression {
            Compression::Zstd { level } => {
                let mut zstd = zstd::bulk::Compressor::new(i32::from(level)).map_err(cannot)?;
                zstd.include_checksum(true).map_err(cannot)?;
                Some(zstd)
            }
            _ => None,
        };
        Ok(Self { compression, zstd, lz4: lz4() })
    }

    /// Appends the compressed form of a frame to a buffer that is empty.
    pub fn compress(&mut self, frame: &[u8], into: &mut Vec<u8>) -> Result<()> {
        match (self.compression, &mut self.zstd) {
            (Compression::Zstd { .. }, Some(zstd)) => {
                into.reserve(zstd::zstd_safe::compress_bound(frame.len()));
                zstd.compress_to_buffer(frame, into).map(drop)
            }
            (Compression::Lz4, _) => {
                if frame.is_empty() {
                    // An encoder that was used before forgets to begin an empty frame.
                    self.lz4 = lz4();
                }
                std::mem::swap(self.lz4.get_mut(), into);
                let done = self.lz4.write_all(frame).and_then(|()| Ok(self.lz4.try_finish()?));
                std::mem::swap(self.lz4.get_mut(), into);
                done
            }
            (Compression::Gzip { level }, _) => {
                let level = flate2::Compression::new(u32::from(level));
                let mut encoder = flate2::write::GzEncoder::new(into, level);
                encoder.write_all(frame).and_then(|()| encoder.finish().map(drop))
            }
            (Compression::Bzip2 { level }, _) => {
                let level = bzip2::Compression::new(u32::from(level));
                let mut encoder = bzip2::write::BzEncoder::new(into, level);
                encoder.write_all(frame).and_then(|()| encoder.finish().map(drop))
            }
            _ => {
                into.extend_from_slice(frame);
                Ok(())
            }
        }
        .map_err(cannot)
    }
}

fn lz4() -> FrameEncoder<Vec<u8>> {
    let mut info = FrameInfo::new();
    info.block_size = BlockSize::Max4MB;
    // Without a sum: the manifest has the frame's hash, and chunks of a stream their own sums.
    FrameEncoder::with_frame_info(info, Vec::new())
}

fn cannot(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "cannot compress").caused_by(error)
}

/// Unpacks the frame of `len` bytes that was compressed to `stored` into a buffer that is empty; why
/// not, in words.
pub fn decompress(
    compression: Compression,
    stored: &[u8],
    len: usize,
    into: &mut Vec<u8>,
) -> Result<(), String> {
    if len > FRAME_MAX {
        return Err(format!("a frame of {len} bytes is longer than any"));
    }
    // One byte more than there should be, so that more is noticed.
    into.reserve_exact(len + 1);
    let read = |reader: &mut dyn Read, into: &mut Vec<u8>| {
        reader.take(len as u64 + 1).read_to_end(into).map(drop)
    };
    let read = match compression {
        Compression::Zstd { .. } => zstd::bulk::Decompressor::new()
            .and_then(|mut zstd| zstd.decompress_to_buffer(stored, into).map(drop)),
        Compression::Lz4 => read(&mut lz4_flex::frame::FrameDecoder::new(stored), into),
        Compression::Gzip { .. } => read(&mut flate2::read::GzDecoder::new(stored), into),
        Compression::Bzip2 { .. } => read(&mut bzip2::read::BzDecoder::new(stored), into),
        Compression::None => read(&mut &*stored, into),
    };
    match read {
        Ok(()) if into.len() == len => Ok(()),
        Ok(()) => Err(format!("it unpacks to other than {len} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_format_gives_back_what_it_got() {
        let frame: Vec<u8> = (0..300_000u32).map(|i| (i / 100 * 7) as u8).collect();
        for text in ["zstd", "zstd:3", "lz4", "gzip", "gzip:6", "bzip2", "none"] {
            let compression: Compression = text.parse().unwrap();
            let mut compressor = Compressor::new(compression).unwrap();
            let mut compress = |frame: &[u8]| {
                let mut stored = Vec::new();
                compressor.compress(frame, &mut stored).unwrap();
                stored
            };
            let decompress = |stored: &[u8], len| {
                let mut frame = Vec::new();
                decompress(compression, stored, len, &mut frame).map(|()| frame)
            };
            for len in [0, 1, frame.len(), 0, 2] {
                let stored = compress(&frame[..len]);
                assert_eq!(decompress(&stored, len).unwrap(), &frame[..len], "{text}");
                assert!(decompress(&stored, len + 1).is_err(), "{text}");
                if len > 1 {
                    assert!(decompress(&stored, len - 1).is_err(), "{text}");
                    assert!(decompress(&stored[..stored.len() / 2], len).is_err());
                }
            }
            let mut stored = compress(&frame);
            if compression != Compression::None {
                assert!(stored.len() < frame.len() / 10, "{text}: {}", stored.len());
                let middle = stored.len() / 2;
                stored[middle] ^= 1;
                assert_ne!(decompress(&stored, frame.len()).ok(), Some(frame.clone()));
            }
        }
    }

    #[test]
    fn other_words_are_refused() {
        for text in ["", "zstd:0", "zstd:20", "lz4:1", "none:1", "none:", "brotli", "gzip:x"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }
}
