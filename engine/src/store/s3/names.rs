//! Requests about objects that do not move their content: looking, listing, deleting.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::head_object::builders::HeadObjectFluentBuilder;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::Refused;
use super::S3Store;
use super::content::customer_headers;
use super::failure::{Answer, Failure};
use super::hooks::CapAnswer;
use super::options::{Checksum, Encryption};
use super::transfer::Progress;
use crate::store::retry::{Outlook, Refusal};
use crate::store::{Key, LIST_MAX, Object, too_many};
use crate::{Cancel, Error, ErrorKind, Result};

/// The permissions that it takes.
const LOOK: &str = "s3:GetObject";
const LIST: &str = "s3:ListBucket";
const DELETE: &str = "s3:DeleteObject";
/// How many objects one request deletes, by S3's definition.
const DELETE_MAX: usize = 1000;

/// Sends a request whose answer is a message.
macro_rules! capped {
    ($request:expr) => {
        $request.customize().interceptor(CapAnswer::Message).send()
    };
}

impl S3Store {
    pub(super) fn head_request(&self, name: &str) -> HeadObjectFluentBuilder {
        let request = self.client().head_object().bucket(&self.bucket).key(name);
        match &self.s3.encryption {
            Encryption::Customer(key) => {
                let (algorithm, key, md5) = customer_headers(key);
                request
                    .sse_customer_algorithm(algorithm)
                    .sse_customer_key(key)
                    .sse_customer_key_md5(md5)
            }
            _ => request,
        }
    }

    /// [`Store::head`](crate::store::Store::head).
    pub(super) fn head_object(&self, key: &Key, cancel: &Cancel) -> Result<Option<Object>> {
        let doing = || format!("look at {key} in {}", self.place_of_objects());
        let name = self.name(key);
        self.retry(&doing, cancel, |_| {
            match self.ask(capped!(self.head_request(&name)), &Progress::new(), cancel) {
                Ok(head) => Ok(Some(Object {
                    key: key.clone(),
                    len: head.content_length().and_then(|len| u64::try_from(len).ok()).unwrap_or(0),
                    modified: time(head.last_modified()),
                })),
                Err(refused) if refused.is_absent() => Ok(None),
                Err(refused) => Err(self.judge(LOOK, refused)),
            }
        })
    }

    /// [`Store::list`](crate::store::Store::list).
    pub(super) fn list_objects(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        self.pages(prefix, None, cancel, &mut |page| {
            for object in page.contents() {
                let name = object.key().and_then(|name| name.strip_prefix(&*self.prefix));
                // What is no key is somebody else's.
                let Some(key) = name.and_then(|name| Key::new(name).ok()) else { continue };
                if !key.as_str().starts_with(prefix) {
                    continue;
                }
                let len = object.size().and_then(|len| u64::try_from(len).ok()).unwrap_or(0);
                objects.push(Object { key, len, modified: time(object.last_modified()) });
            }
            objects.len()
        })?;
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    /// [`Store::list_folders`](crate::store::Store::list_folders).
    pub(super) fn list_prefixes(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.pages(prefix, Some("/"), cancel, &mut |page| {
            for folder in page.common_prefixes() {
                let name = folder.prefix().and_then(|name| name.strip_prefix(&*self.prefix));
                let name = name.and_then(|name| name.strip_prefix(prefix)?.strip_suffix('/'));
                let Some(key) = name.and_then(|name| Key::new(name).ok()) else { continue };
                names.push(key.name().to_owned());
            }
            names.len()
        })?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Hands over page by page; `take` says how many entries there are by now.
    fn pages(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        cancel: &Cancel,
        take: &mut dyn FnMut(&ListObjectsV2Output) -> usize,
    ) -> Result<()> {
        let doing = || format!("list {prefix:?} in {}", self.place_of_objects());
        let mut token: Option<String> = None;
        loop {
            let page = self.retry(&doing, cancel, |_| {
                let request = self
                    .client()
                    .list_objects_v2()
                    .bucket(&self.bucket)
                    .prefix(format!("{}{prefix}", self.prefix))
                    .set_delimiter(delimiter.map(str::to_owned))
                    .set_continuation_token(token.clone());
                self.ask(capped!(request), &Progress::new(), cancel)
                    .map_err(|refused| self.judge(LIST, refused))
            })?;
            if take(&page) > LIST_MAX {
                return Err(too_many(prefix, &self.place_of_objects()));
            }
            let next = page.next_continuation_token().map(str::to_owned);
            match next {
                Some(next)
                    if page.is_truncated() == Some(true) && token.as_ref() != Some(&next) =>
                {
                    token = Some(next);
                }
                _ if page.is_truncated() != Some(true) => return Ok(()),
                _ => {
                    let what = format!("{}: the listing does not go on", doing());
                    return Err(Error::new(ErrorKind::Store, what));
                }
            }
        }
    }

    /// [`Store::delete`](crate::store::Store::delete).
    pub(super) fn delete_objects(&self, keys: &[Key], cancel: &Cancel) -> Result<()> {
        // Deleting many is a request with content, which servers want to have a checksum.
        let singly = matches!(self.s3.checksum, Checksum::Md5 | Checksum::None);
        for keys in keys.chunks(DELETE_MAX) {
            if keys.len() > 1 && !singly && self.delete_many(keys, cancel)? {
                continue;
            }
            for key in keys {
                self.delete_one(key, cancel)?;
            }
        }
        Ok(())
    }

    fn delete_one(&self, key: &Key, cancel: &Cancel) -> Result<()> {
        let doing = || format!("delete {key} from {}", self.place_of_objects());
        self.retry(&doing, cancel, |_| {
            let request = self.client().delete_object().bucket(&self.bucket).key(self.name(key));
            match self.ask(capped!(request), &Progress::new(), cancel) {
                Ok(_) => Ok(()),
                Err(refused) if refused.is_absent() => Ok(()),
                Err(refused) => Err(self.judge(DELETE, refused)),
            }
        })
    }

    /// Deletes up to [`DELETE_MAX`] objects; `false` if the store does not know how.
    fn delete_many(&self, keys: &[Key], cancel: &Cancel) -> Result<bool> {
        let doing = || format!("delete {} objects from {}", keys.len(), self.place_of_objects());
        let mut left: Vec<String> = keys.iter().map(|key| self.name(key)).collect();
        self.retry(&doing, cancel, |_| {
            let names = left.iter().map(|name| ObjectIdentifier::builder().key(name).build());
            let names: Result<Vec<_>, _> = names.collect();
            let delete = names
                .and_then(|names| Delete::builder().set_objects(Some(names)).quiet(true).build());
            let delete = delete.map_err(|error| {
                Error::new(ErrorKind::Failed, "cannot make the request").caused_by(error)
            })?;
            let request = self.client().delete_objects().bucket(&self.bucket).delete(delete);
            let output = match self.ask(capped!(request), &Progress::new(), cancel) {
                Ok(output) => output,
                Err(refused) if is_unknown(&refused) => return Ok(false),
                Err(refused) => return Err(self.judge(DELETE, refused)),
            };
            let mut worst: Option<Refusal> = None;
            let mut failed = Vec::new();
            for error in output.errors() {
                let answer = Answer {
                    status: 0,
                    code: error.code().unwrap_or_default().to_owned(),
                    message: error.message().unwrap_or_default().to_owned(),
                    ..Answer::default()
                };
                if matches!(&*answer.code, "NoSuchKey" | "NoSuchVersion") {
                    continue;
                }
                failed.extend(error.key().map(str::to_owned));
                let refusal =
                    self.judge(DELETE, Refused::Failed(Failure::Answer(Box::new(answer))));
                if worst.as_ref().is_none_or(|worst| worst.outlook == Outlook::Transient) {
                    worst = Some(refusal);
                }
            }
            match worst {
                None => Ok(true),
                Some(refusal) => {
                    // Those that are gone need not be asked for again.
                    left.retain(|name| failed.contains(name));
                    Err(refusal)
                }
            }
        })
    }
}

/// The store knows only how to delete one.
fn is_unknown(refused: &Refused) -> bool {
    matches!(refused.status(), 405 | 501)
        || matches!(refused.code(), "NotImplemented" | "MissingContentMD5" | "MethodNotAllowed")
}

fn time(time: Option<&DateTime>) -> SystemTime {
    let since = time.and_then(|time| u64::try_from(time.secs()).ok()).map(Duration::from_secs);
    since.map_or(SystemTime::UNIX_EPOCH, |since| SystemTime::UNIX_EPOCH + since)
}
