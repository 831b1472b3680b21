//! Putting objects.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockMode, ServerSideEncryption, StorageClass};

use super::content::{Content, customer_headers};
use super::hooks::{CapAnswer, SignContent};
use super::options::{Checksum, Encryption, LockMode};
use super::transfer::{Outgoing, Progress};
use super::{Refused, S3Store};
use crate::store::key::RESERVED;
use crate::store::retry::{Outlook, Refusal};
use crate::store::{Body, Key, Put, PutOptions};
use crate::{Cancel, Error, ErrorKind, Result};

/// The permission that it takes.
const PERMISSION: &str = "s3:PutObject";

/// How one object is put.
struct How {
    /// Only if there is none of this name.
    new: bool,
    /// Not under lock, in the default storage class: it is there to try something.
    is_probe: bool,
}

impl S3Store {
    /// [`Store::put`](crate::store::Store::put).
    pub(super) fn put_object(
        &self,
        key: &Key,
        body: Body,
        options: &PutOptions,
        cancel: &Cancel,
    ) -> Result<Put> {
        let guards = options.only_if_absent && self.honours_conditions(cancel)?;
        let looks = options.only_if_absent && !guards;
        if looks && self.head_object(key, cancel)?.is_some() {
            return self.compare(key, &body, cancel);
        }
        let how = How { new: guards, is_probe: false };
        let needs_no_signature = options.is_hashed_elsewhere && self.s3.checksum != Checksum::None;
        let signs = !needs_no_signature || self.must_sign.load(Ordering::Relaxed);
        let mut content = Content::new(body, self.s3.checksum, self.signs_content && signs);
        let put = {
            let _pass = self.gate.enter(cancel)?;
            let doing = || format!("put {key} into {}", self.place_of_objects());
            let name = self.name(key);
            self.retry(&doing, cancel, |_| {
                let put = self.try_put(&name, &content, &how, cancel);
                let is_unsigned = self.signs_content && content.signed.is_none();
                match put {
                    // A policy may want all content signed.
                    Err(refusal) if is_unsigned && refusal.outlook == Outlook::Permanent => {
                        content = Content::new(content.body.clone(), self.s3.checksum, true);
                        let put = self.try_put(&name, &content, &how, cancel)?;
                        self.must_sign.store(true, Ordering::Relaxed);
                        Ok(put)
                    }
                    put => put,
                }
            })?
        };
        match put {
            Put::AlreadyThere => self.compare(key, &content.body, cancel),
            Put::Stored if looks => self.compare(key, &content.body, cancel),
            Put::Stored => Ok(Put::Stored),
        }
    }

    /// Whether what is there is what was to be put: by an earlier try, whose answer was lost.
    fn compare(&self, key: &Key, body: &Body, cancel: &Cancel) -> Result<Put> {
        match self.get_object(key, None, body.len(), cancel) {
            Ok(there) if body.equals(&there) => Ok(Put::Stored),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            // Longer, changed again, or not for us to read: not ours.
            _ => Ok(Put::AlreadyThere),
        }
    }

    /// Whether the store honours `If-None-Match`, tried with an object of our own that stays.
    pub(super) fn honours_conditions(&self, cancel: &Cancel) -> Result<bool> {
        if let Some(honours) = self.guards.get() {
            return Ok(*honours);
        }
        let name = format!("{}{RESERVED}probe", self.prefix);
        let content =
            Content::new(Body::from(&b"probe\n"[..]), self.s3.checksum, self.signs_content);
        let how = How { new: true, is_probe: true };
        let doing = || format!("try {}", self.place_of_objects());
        let mut honours = false;
        // Where there is none yet, the second one must be refused.
        for _ in 0..2 {
            let put = self.retry(&doing, cancel, |_| {
                match self.try_put(&name, &content, &how, cancel) {
                    Err(refusal) if refusal.is_unknown_request => Ok(None),
                    put => put.map(Some),
                }
            })?;
            honours = put == Some(Put::AlreadyThere);
            if honours || put.is_none() {
                break;
            }
        }
        if !honours && self.guards.get().is_none() {
            self.reporter.warn(format!(
                "{} does not honour If-None-Match: writers at the same time are told apart by looking \
                 before and after",
                self.place_of_objects()
            ));
        }
        Ok(*self.guards.get_or_init(|| honours))
    }

    fn try_put(
        &self,
        name: &str,
        content: &Content,
        how: &How,
        cancel: &Cancel,
    ) -> Result<Put, Refusal> {
        let progress = Progress::new();
        let outgoing = Outgoing::new(content.body.clone(), self.out.clone(), progress.clone());
        let body = ByteStream::new(SdkBody::from_body_1_x(outgoing));
        let mut request = self
            .client()
            .put_object()
            .bucket(&self.bucket)
            .key(name)
            .content_length(i64::try_from(content.body.len()).unwrap_or(i64::MAX))
            // Where objects are locked, the name of the checksum has to be said as well.
            .set_checksum_algorithm(match self.s3.checksum {
                Checksum::Crc32 => Some(ChecksumAlgorithm::Crc32),
                Checksum::Sha256 => Some(ChecksumAlgorithm::Sha256),
                Checksum::Md5 | Checksum::None => None,
            })
            .set_checksum_crc32(content.crc32.clone())
            .set_checksum_sha256(content.sha256.clone())
            .set_content_md5(content.md5.clone())
            .set_if_none_match(how.new.then(|| "*".to_owned()))
            .body(body);
        request = match &self.s3.encryption {
            Encryption::Bucket => request,
            Encryption::Store => request.server_side_encryption(ServerSideEncryption::Aes256),
            Encryption::Kms(key) => request
                .server_side_encryption(ServerSideEncryption::AwsKms)
                .set_ssekms_key_id(key.clone()),
            Encryption::Customer(key) => {
                let (algorithm, key, md5) = customer_headers(key);
                request
                    .sse_customer_algorithm(algorithm)
                    .sse_customer_key(key)
                    .sse_customer_key_md5(md5)
            }
        };
        if !how.is_probe {
            let class = self.s3.storage_class.as_deref().map(StorageClass::from);
            request = request.set_storage_class(class);
            if let Some(lock) = self.s3.lock {
                let mode = match lock.mode {
                    LockMode::Governance => ObjectLockMode::Governance,
                    LockMode::Compliance => ObjectLockMode::Compliance,
                };
                let until = SystemTime::now() + Duration::from_secs(u64::from(lock.days) * 86_400);
                request = request
                    .object_lock_mode(mode)
                    .object_lock_retain_until_date(DateTime::from(until));
            }
        }
        let signing = SignContent(content.signed.clone());
        let request =
            request.customize().interceptor(signing).interceptor(CapAnswer::Message).send();
        match self.ask(request, &progress, cancel) {
            Ok(output) => {
                self.check_encryption(name, &output)?;
                self.check_lock(name, how, cancel)?;
                Ok(Put::Stored)
            }
            Err(refused) if how.new && refused.status() == 412 => Ok(Put::AlreadyThere),
            Err(refused) => {
                let is_unknown_request = how.new && is_unknown(&refused);
                let about_lock = self.s3.lock.is_some() && !how.is_probe && refused.status() == 400;
                let mut refusal = self.judge(PERMISSION, refused);
                if about_lock && refusal.error.advice().is_none() {
                    refusal.error = refusal.error.advise(
                        "it may be about the lock: check that the bucket was made with object lock",
                    );
                }
                Err(Refusal { is_unknown_request, ..refusal })
            }
        }
    }

    /// A store that does not encrypt as it was told may not say so otherwise.
    fn check_encryption(&self, name: &str, output: &PutObjectOutput) -> Result<(), Refusal> {
        let (done, asked) = match &self.s3.encryption {
            Encryption::Bucket => return Ok(()),
            Encryption::Store => {
                (output.server_side_encryption() == Some(&ServerSideEncryption::Aes256), "SSE-S3")
            }
            Encryption::Kms(_) => (
                matches!(
                    output.server_side_encryption(),
                    Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse)
                ),
                "SSE-KMS",
            ),
            Encryption::Customer(_) => (output.sse_customer_algorithm() == Some("AES256"), "SSE-C"),
        };
        if done {
            return Ok(());
        }
        let what = format!("the store keeps {name} without {asked}, which it was asked for");
        Err(Refusal::permanent(
            Error::new(ErrorKind::Store, what)
                .advise("the store does not know this encryption: seal the repository instead"),
        ))
    }

    /// Locks may be ignored without a word: the first one is looked at.
    fn check_lock(&self, name: &str, how: &How, cancel: &Cancel) -> Result<(), Refusal> {
        if self.s3.lock.is_none() || how.is_probe || self.lock_was_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let request = self.head_request(name).customize().interceptor(CapAnswer::Message).send();
        let head = self.ask(request, &Progress::new(), cancel);
        let head = head.map_err(|refused| self.judge("s3:GetObject", refused))?;
        if !self.lock_was_seen.swap(true, Ordering::Relaxed) && head.object_lock_mode().is_none() {
            self.reporter.warn(format!(
                "{} does not say that {name} is locked: either it ignores locks, or \
                 s3:GetObjectRetention is not allowed",
                self.place()
            ));
        }
        Ok(())
    }

    /// For messages.
    pub(super) fn place_of_objects(&self) -> String {
        crate::store::Store::describe(self)
    }
}

/// The store does not know the condition.
fn is_unknown(refused: &Refused) -> bool {
    refused.status() == 501 || refused.code() == "NotImplemented"
}
