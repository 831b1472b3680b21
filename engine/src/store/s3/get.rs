//! Getting objects. What has arrived when an answer breaks off is kept, and only the rest is asked
//! for again.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::content::customer_headers;
use super::failure::Failure;
use super::hooks::CapAnswer;
use super::options::{Checksum, Encryption};
use super::transfer::{Progress, paced};
use super::{Refused, S3Store};
use crate::io::Pooled;
use crate::store::retry::{Outlook, Refusal};
use crate::store::{Key, absent, out_of_bounds};
use crate::{Cancel, Error, ErrorKind, Result};

/// The permission that it takes.
const PERMISSION: &str = "s3:GetObject";

/// What has arrived of an object.
#[derive(Default)]
struct Arrived {
    bytes: Pooled,
    /// How many there will be.
    len: Option<u64>,
    /// The version that they are of.
    etag: Option<String>,
    /// What the store says about the whole object, if that was asked for.
    crc32: Option<String>,
    /// Whether they come from several answers.
    resumed: bool,
}

impl S3Store {
    /// [`Store::get`](crate::store::Store::get), of a range that is not empty.
    pub(super) fn get_object(
        &self,
        key: &Key,
        range: Option<&Range<u64>>,
        limit: u64,
        cancel: &Cancel,
    ) -> Result<Bytes> {
        let mut arrived = Arrived { bytes: self.buffers.take(), ..Arrived::default() };
        let doing = || format!("get {key} from {}", self.place_of_objects());
        self.retry(&doing, cancel, |_| self.try_get(key, range, limit, &mut arrived, cancel))?;
        Ok(arrived.bytes.freeze())
    }

    fn try_get(
        &self,
        key: &Key,
        range: Option<&Range<u64>>,
        limit: u64,
        arrived: &mut Arrived,
        cancel: &Cancel,
    ) -> Result<(), Refusal> {
        if arrived.etag.is_none() || arrived.len.is_none() {
            // Nothing tells whether the rest would be of the same object.
            *arrived = Arrived::default();
        }
        let at = arrived.bytes.len() as u64;
        arrived.resumed |= at > 0;
        let wanted = match range {
            Some(range) => Some(format!("bytes={}-{}", range.start + at, range.end - 1)),
            None if at > 0 => Some(format!("bytes={at}-")),
            None => None,
        };
        let first = range.map_or(0, |range| range.start) + at;
        let whole = wanted.is_none();
        let with_checksums = matches!(self.s3.checksum, Checksum::Crc32 | Checksum::Sha256);
        let mut request = self
            .client()
            .get_object()
            .bucket(&self.bucket)
            .key(self.name(key))
            .set_range(wanted)
            .set_if_match(arrived.etag.clone().filter(|_| at > 0))
            .set_checksum_mode((whole && with_checksums).then_some(ChecksumMode::Enabled));
        if let Encryption::Customer(customer) = &self.s3.encryption {
            let (algorithm, customer, md5) = customer_headers(customer);
            request = request
                .sse_customer_algorithm(algorithm)
                .sse_customer_key(customer)
                .sse_customer_key_md5(md5);
        }

        let progress = Progress::new();
        let request = request.customize().interceptor(CapAnswer::Object);
        let output = match self.ask(request.send(), &progress, cancel) {
            Ok(output) => output,
            Err(refused) if refused.is_absent() => {
                return Err(Refusal::permanent(absent(key, &self.place_of_objects())));
            }
            Err(refused) if refused.status() == 416 && at == 0 => {
                let what = format!("the object {key} ends before byte {first}");
                return Err(Refusal::permanent(Error::new(ErrorKind::Damage, what)));
            }
            Err(refused) if at > 0 && matches!(refused.status(), 412 | 416) => {
                *arrived = Arrived::default();
                let what = format!("the object {key} changed while it was read");
                return Err(Refusal::new(Outlook::Doubtful, Error::new(ErrorKind::Store, what)));
            }
            Err(refused) => return Err(self.judge(PERMISSION, refused)),
        };
        self.check_head(key, &output, first, range, limit, arrived)?;
        progress.moved();
        self.receive(key, output, limit, arrived, &progress, cancel)?;
        check_crc32(key, arrived)
    }

    /// Checks what an answer says before its bytes are read, and makes room for them.
    fn check_head(
        &self,
        key: &Key,
        output: &GetObjectOutput,
        first: u64,
        range: Option<&Range<u64>>,
        limit: u64,
        arrived: &mut Arrived,
    ) -> Result<(), Refusal> {
        let at = arrived.bytes.len() as u64;
        let len = output.content_length().and_then(|len| u64::try_from(len).ok());
        if range.is_some() || at > 0 {
            let begin = format!("bytes {first}-");
            let Some(said) = output.content_range().filter(|said| said.starts_with(&begin)) else {
                let what = format!("the store sent other bytes of {key} than it was asked for");
                return Err(Refusal::new(Outlook::Doubtful, Error::new(ErrorKind::Store, what)));
            };
            let all = said.rsplit('/').next().and_then(|all| all.parse::<u64>().ok());
            if let (Some(range), Some(all)) = (range, all)
                && all < range.end
            {
                return Err(Refusal::permanent(out_of_bounds(key, all, Some(range), limit)));
            }
        }
        let expected = match (range, arrived.len) {
            (Some(range), _) => Some(range.end - range.start),
            (None, Some(known)) => Some(known),
            (None, None) => len,
        };
        if expected.is_some_and(|expected| expected > limit) {
            let len = expected.unwrap_or_default();
            return Err(Refusal::permanent(out_of_bounds(key, len, None, limit)));
        }
        if at == 0 {
            arrived.etag = output.e_tag().map(str::to_owned);
            arrived.len = expected;
            // With a dash, it is a checksum of the checksums of parts.
            let crc32 = output.checksum_crc32().filter(|sum| !sum.contains('-'));
            arrived.crc32 = crc32.map(str::to_owned);
            let room = usize::try_from(expected.unwrap_or_default()).unwrap_or_default();
            arrived.bytes.reserve_exact(room);
        }
        Ok(())
    }

    /// Takes in the bytes of an answer.
    fn receive(
        &self,
        key: &Key,
        output: GetObjectOutput,
        limit: u64,
        arrived: &mut Arrived,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<(), Refusal> {
        let most = arrived.len.unwrap_or(limit);
        let mut body = output.body;
        let bytes = &mut arrived.bytes;
        let taking = async {
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|error| Some(chain(&error)))?;
                progress.moved();
                if (bytes.len() + piece.len()) as u64 > most {
                    return Err(None);
                }
                bytes.extend_from_slice(&piece);
                paced(&self.into, piece.len(), progress).await;
            }
            Ok(())
        };
        let taken = self.wait(taking, progress, cancel);
        let got = arrived.bytes.len() as u64;
        let words = match taken {
            Ok(Ok(())) if arrived.len.is_none_or(|len| len == got) => {
                arrived.len = Some(got);
                return Ok(());
            }
            Ok(Ok(())) => "the answer ended early".to_owned(),
            Ok(Err(Some(words))) => words,
            Ok(Err(None)) => {
                let what = format!("more bytes of {key} came than the {most} that were announced");
                *arrived = Arrived::default();
                return Err(Refusal::new(Outlook::Doubtful, Error::new(ErrorKind::Store, what)));
            }
            Err(refused @ Refused::Interrupted(_)) => return Err(self.judge(PERMISSION, refused)),
            Err(Refused::Failed(Failure::Way(words) | Failure::Request(words))) => words,
            Err(refused) => return Err(self.judge(PERMISSION, refused)),
        };
        let all = arrived.len.map_or_else(String::new, |len| format!(" of {len}"));
        if arrived.len == Some(got) {
            // All there, but not what it was when it was put: from the beginning.
            *arrived = Arrived::default();
        }
        let words = format!("after {got}{all} bytes: {words}");
        Err(self.judge(PERMISSION, Refused::Failed(Failure::Way(words))))
    }
}

/// The SDK checks answers that come in one piece.
fn check_crc32(key: &Key, arrived: &mut Arrived) -> Result<(), Refusal> {
    let Some(said) = arrived.crc32.as_ref().filter(|_| arrived.resumed) else { return Ok(()) };
    if *said == STANDARD.encode(crc32fast::hash(&arrived.bytes).to_be_bytes()) {
        return Ok(());
    }
    *arrived = Arrived::default();
    let what = format!("the object {key} does not have the checksum that the store says");
    Err(Refusal::new(Outlook::Doubtful, Error::new(ErrorKind::Damage, what)))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
