//! How frames are made smaller.
//!
//! Each frame is compressed by itself, as a whole unit of its format, so that the frames of a
//! pack, one behind the other, are what the format's own program unpacks.

use std::io::{Read, Write};

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
        Ok(Self { compression, zstd })
    }

    /// The compressed form of a frame.
    pub fn compress(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        let room = || Vec::with_capacity(frame.len() / 3);
        match (self.compression, &mut self.zstd) {
            (Compression::Zstd { .. }, Some(zstd)) => zstd.compress(frame),
            (Compression::Lz4, _) => {
                use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
                let mut info = FrameInfo::new();
                info.block_size = BlockSize::Max4MB;
                info.content_checksum = true;
                let mut encoder = FrameEncoder::with_frame_info(info, room());
                encoder.write_all(frame).and_then(|()| encoder.finish().map_err(Into::into))
            }
            (Compression::Gzip { level }, _) => {
                let level = flate2::Compression::new(u32::from(level));
                let mut encoder = flate2::write::GzEncoder::new(room(), level);
                encoder.write_all(frame).and_then(|()| encoder.finish())
            }
            (Compression::Bzip2 { level }, _) => {
                let level = bzip2::Compression::new(u32::from(level));
                let mut encoder = bzip2::write::BzEncoder::new(room(), level);
                encoder.write_all(frame).and_then(|()| encoder.finish())
            }
            _ => Ok(frame.to_vec()),
        }
        .map_err(cannot)
    }
}

fn cannot(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "cannot compress").caused_by(error)
}

/// The frame of `len` bytes that was compressed to `stored`; why not, in words.
pub fn decompress(compression: Compression, stored: &[u8], len: usize) -> Result<Vec<u8>, String> {
    if len > FRAME_MAX {
        return Err(format!("a frame of {len} bytes is longer than any"));
    }
    let mut frame = Vec::new();
    // One byte more than there should be, so that more is noticed.
    let read = |reader: &mut dyn Read, frame: &mut Vec<u8>| {
        frame.reserve_exact(len + 1);
        reader.take(len as u64 + 1).read_to_end(frame)
    };
    let read = match compression {
        Compression::Zstd { .. } => {
            frame = zstd::bulk::decompress(stored, len).map_err(|error| error.to_string())?;
            Ok(frame.len())
        }
        Compression::Lz4 => read(&mut lz4_flex::frame::FrameDecoder::new(stored), &mut frame),
        Compression::Gzip { .. } => read(&mut flate2::read::GzDecoder::new(stored), &mut frame),
        Compression::Bzip2 { .. } => read(&mut bzip2::read::BzDecoder::new(stored), &mut frame),
        Compression::None => read(&mut &*stored, &mut frame),
    };
    match read {
        Ok(_) if frame.len() == len => Ok(frame),
        Ok(_) => Err(format!("it unpacks to other than {len} bytes")),
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
            for len in [0, 1, frame.len()] {
                let stored = compressor.compress(&frame[..len]).unwrap();
                assert_eq!(decompress(compression, &stored, len).unwrap(), &frame[..len], "{text}");
                assert!(decompress(compression, &stored, len + 1).is_err(), "{text}");
                if len > 1 {
                    assert!(decompress(compression, &stored, len - 1).is_err(), "{text}");
                    assert!(decompress(compression, &stored[..stored.len() / 2], len).is_err());
                }
            }
            let mut stored = compressor.compress(&frame).unwrap();
            if compression != Compression::None {
                assert!(stored.len() < frame.len() / 10, "{text}: {}", stored.len());
                let middle = stored.len() / 2;
                stored[middle] ^= 1;
                assert_ne!(decompress(compression, &stored, frame.len()).ok(), Some(frame.clone()));
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
