//! What is computed of content before it is sent: once, however often the request is repeated.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use ring::digest::{Context, SHA256};

use super::options::{Checksum, CustomerKey};
use crate::store::Body;

/// Checksums of an object's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) body: Body,
    /// In base64, as the headers have them.
    pub(super) crc32: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) md5: Option<String>,
    /// In hexadecimal, for the signature; without it the signature does not cover the content.
    pub(super) signed: Option<String>,
}

impl Content {
    pub(super) fn new(body: Body, checksum: Checksum, sign: bool) -> Self {
        let mut content = Self::default();
        match checksum {
            Checksum::Crc32 => content.crc32 = Some(crc32(&body)),
            Checksum::Md5 => content.md5 = Some(base64(&md5_of(body.parts()))),
            Checksum::Sha256 | Checksum::None => {}
        }
        if sign || checksum == Checksum::Sha256 {
            let mut context = Context::new(&SHA256);
            body.parts().iter().for_each(|part| context.update(part));
            let digest = context.finish();
            if checksum == Checksum::Sha256 {
                content.sha256 = Some(base64(digest.as_ref()));
            }
            content.signed = Some(hex(digest.as_ref()));
        }
        Self { body, ..content }
    }
}

/// What a request with a key for SSE-C says: the algorithm, the key, its MD5.
pub(super) fn customer_headers(key: &CustomerKey) -> (&'static str, String, String) {
    ("AES256", base64(key.bytes()), base64(&md5_of(&[key.bytes()])))
}

fn crc32(body: &Body) -> String {
    let mut hasher = crc32fast::Hasher::new();
    body.parts().iter().for_each(|part| hasher.update(part));
    base64(&hasher.finalize().to_be_bytes())
}

fn md5_of<T: AsRef<[u8]>>(parts: &[T]) -> Vec<u8> {
    let mut hasher = Md5::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_do_not_depend_on_the_pieces() {
        for checksum in [Checksum::Crc32, Checksum::Sha256, Checksum::Md5, Checksum::None] {
            let whole = Content::new(Body::from(&b"123456789"[..]), checksum, true);
            let pieces = [&b"1234"[..], b"", b"56789"].map(bytes::Bytes::from_static).to_vec();
            let pieces = Content::new(pieces.into(), checksum, true);
            assert_eq!(
                (&whole.crc32, &whole.sha256, &whole.md5, &whole.signed),
                (&pieces.crc32, &pieces.sha256, &pieces.md5, &pieces.signed)
            );
        }
    }

    #[test]
    fn checksums_are_those_of_the_headers() {
        let of = |checksum| Content::new(Body::from(&b"123456789"[..]), checksum, false);
        assert_eq!(of(Checksum::Crc32).crc32.as_deref(), Some("y/Q5Jg=="));
        assert_eq!(of(Checksum::Md5).md5.as_deref(), Some("JfnnlDI7RTiF9RgfG2JNCw=="));
        let sha256 = "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=";
        assert_eq!(of(Checksum::Sha256).sha256.as_deref(), Some(sha256));
        assert!(of(Checksum::None).signed.is_none());
    }
}
