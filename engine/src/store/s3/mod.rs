//! Objects behind S3's interface.
//!
//! | module | what |
//! |---|---|
//! | `options` | what can be said about a store, and what the environment says |
//! | `connect` | from options to a client: address, authorities, credentials |
//! | `content`, `transfer` | checksums before a request; bytes on their way |
//! | `put`, `get`, `names` | the requests |
//! | `failure` | what a failed request means |
//! | `hooks` | what the SDK does differently for us |
//!
//! An object is one request: nothing is ever left behind that was not finished, and that would cost
//! money without being listed. Each try begins from memory.
//!
//! The SDK signs, and makes and reads messages. When to try again, how long to wait, and what to
//! tell is decided here: the SDK alone would give up on stores that are busy for a minute, and would
//! wait forever for one that says nothing.
//!
//! Calls must not come from a thread that runs tasks of tokio; `spawn_blocking` is for that.

mod connect;
mod content;
mod failure;
mod get;
mod hooks;
mod names;
mod options;
mod put;
mod transfer;

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use bytes::Bytes;
use tokio::runtime::Runtime;

pub use options::{
    Checksum, CustomerKey, Encryption, LockMode, ObjectLock, S3Credentials, S3Options,
};

use self::failure::{Asked, Failure};
use self::transfer::{Progress, watched};
use super::limits::{Gate, Pace};
use super::retry::{Outlook, Refusal, retry};
use super::{
    Body, Key, Leftover, Object, Put, PutOptions, Store, StoreOptions, check_folder, check_range,
};
use crate::io::Pool;
use crate::store::key::check_prefix;
use crate::{Cancel, Error, ErrorKind, Reporter, Result};

/// Threads that move bytes; the callers' threads only wait.
const WORKERS: usize = 2;

/// Longest buffer that is used again. Requests for parts of packs fit.
const BUFFER_MAX: usize = 16 << 20;

/// Objects behind S3's interface.
pub struct S3Store {
    /// Gone only while the store is dropped.
    runtime: Option<Runtime>,
    client: RwLock<Client>,
    /// For messages: where the requests go.
    place: RwLock<String>,
    has_endpoint: bool,
    /// Whether the bucket's region may be taken from the store's answers.
    may_move: AtomicBool,
    bucket: String,
    /// What all names begin with: empty, or ending with `/`.
    prefix: String,
    /// Whether signatures cover the content: without TLS, unless its hash is elsewhere.
    signs_content: bool,
    /// Whether the store wants them to in any case.
    must_sign: AtomicBool,
    s3: S3Options,
    options: StoreOptions,
    reporter: Arc<dyn Reporter>,
    gate: Gate,
    out: Arc<Pace>,
    into: Pace,
    /// For what arrives.
    buffers: Pool,
    /// Whether the store honours `If-None-Match`.
    guards: OnceLock<bool>,
    clock_was_told: AtomicBool,
    lock_was_seen: AtomicBool,
}

/// A request without a result.
enum Refused {
    /// The caller was interrupted.
    Interrupted(Error),
    /// It failed.
    Failed(Failure),
}

impl Refused {
    fn status(&self) -> u16 {
        match self {
            Self::Interrupted(_) => 0,
            Self::Failed(failure) => failure.status(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Interrupted(_) => "",
            Self::Failed(failure) => failure.code(),
        }
    }

    /// The object does not exist; without a code, nothing else could be missing either.
    fn is_absent(&self) -> bool {
        self.status() == 404
            && matches!(self.code(), "" | "NoSuchKey" | "NotFound" | "NoSuchVersion")
    }
}

impl S3Store {
    /// Uses a bucket, below `prefix`. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// When the options do not fit, or the authorities to trust cannot be read.
    pub fn open(
        bucket: &str,
        prefix: Option<&Key>,
        options: &StoreOptions,
        reporter: Arc<dyn Reporter>,
    ) -> Result<Self> {
        let s3 = options.s3.completed(&|name| std::env::var(name).ok());
        s3.check()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("haulout-s3")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Failed, "cannot start threads").caused_by(error)
            })?;
        let connection = runtime.block_on(connect::connect(&s3, &options.retry))?;
        Ok(Self {
            client: RwLock::new(Client::from_conf(connection.config)),
            runtime: Some(runtime),
            place: RwLock::new(connection.place),
            has_endpoint: connection.has_endpoint,
            may_move: AtomicBool::new(!connection.region_is_chosen),
            bucket: bucket.to_owned(),
            prefix: prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default(),
            signs_content: connection.is_plain,
            must_sign: AtomicBool::new(false),
            s3,
            options: options.clone(),
            reporter,
            gate: Gate::new(options.concurrency),
            out: Arc::new(Pace::new(options.bandwidth)),
            into: Pace::new(options.bandwidth),
            buffers: Pool::new(options.concurrency, BUFFER_MAX),
            guards: OnceLock::new(),
            clock_was_told: AtomicBool::new(false),
            lock_was_seen: AtomicBool::new(false),
        })
    }

    /// The whole name of an object.
    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn place(&self) -> String {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn retry<T>(
        &self,
        doing: &dyn Fn() -> String,
        cancel: &Cancel,
        attempt: impl FnMut(u32) -> Result<T, Refusal>,
    ) -> Result<T> {
        retry(&self.options.retry, cancel, &*self.reporter, doing, attempt)
    }

    /// Waits for a request, as long as something moves.
    fn ask<T, E>(
        &self,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<T, Refused>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match self.wait(request, progress, cancel)? {
            Ok(answer) => Ok(answer),
            Err(error) => Err(Refused::Failed(Failure::of(&error))),
        }
    }

    /// Waits for anything, as long as something moves.
    fn wait<T>(
        &self,
        request: impl Future<Output = T>,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<T, Refused> {
        let stall = self.options.retry.stall;
        let Some(runtime) = &self.runtime else {
            return Err(Refused::Failed(Failure::Request("the store is closed".into())));
        };
        match runtime.block_on(watched(request, progress, stall, cancel)) {
            Ok(Some(done)) => Ok(done),
            Ok(None) => {
                let words = format!("nothing moved for {} s", stall.as_secs_f64());
                Err(Refused::Failed(Failure::Way(words)))
            }
            Err(interrupted) => Err(Refused::Interrupted(interrupted)),
        }
    }

    /// What a request without a result means for the next try.
    fn judge(&self, permission: &'static str, refused: Refused) -> Refusal {
        let failure = match refused {
            Refused::Interrupted(error) => return error.into(),
            Refused::Failed(failure) => failure,
        };
        let place = self.place();
        let resource = match permission {
            "s3:ListBucket" => format!("arn:aws:s3:::{}", self.bucket),
            _ => format!("arn:aws:s3:::{}/{}*", self.bucket, self.prefix),
        };
        let asked = Asked { permission, resource: &resource, bucket: &self.bucket, place: &place };
        let now = SystemTime::now();
        let refusal = failure::judge(asked, &failure, now);
        if let Failure::Answer(answer) = &failure {
            if let (Some(region), 300..=400) = (&answer.region, answer.status)
                && self.move_to(region)
            {
                return Refusal { outlook: Outlook::Transient, ..refusal };
            }
            if failure::is_expired(&answer.code) {
                self.renew();
            }
            if answer.status == 403
                && answer.skew(now).is_some()
                && !self.clock_was_told.swap(true, Ordering::Relaxed)
            {
                self.reporter
                    .warn(format!("{}; requests are signed with the store's time", refusal.error));
            }
        }
        refusal
    }

    /// Forgets the credentials: the store finds them expired before we do.
    fn renew(&self) {
        let config = self.client().config().to_builder().identity_cache(connect::identity_cache());
        *self.client.write().unwrap_or_else(PoisonError::into_inner) =
            Client::from_conf(config.build());
    }

    /// Goes to the region where the bucket is, unless somebody said which to use; whether it did.
    fn move_to(&self, region: &str) -> bool {
        if !self.may_move.swap(false, Ordering::Relaxed) {
            return false;
        }
        let config = self.client().config().to_builder().region(Region::new(region.to_owned()));
        *self.client.write().unwrap_or_else(PoisonError::into_inner) =
            Client::from_conf(config.build());
        if !self.has_endpoint {
            *self.place.write().unwrap_or_else(PoisonError::into_inner) =
                format!("the region {region}");
        }
        true
    }
}

impl Store for S3Store {
    fn put(&self, key: &Key, body: Body, options: &PutOptions, cancel: &Cancel) -> Result<Put> {
        self.put_object(key, body, options, cancel)
    }

    fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        limit: u64,
        cancel: &Cancel,
    ) -> Result<Bytes> {
        let range = range.as_ref();
        if check_range(range, limit)? == Some(0) {
            return Ok(Bytes::new());
        }
        let _pass = self.gate.enter(cancel)?;
        self.get_object(key, range, limit, cancel)
    }

    fn head(&self, key: &Key, cancel: &Cancel) -> Result<Option<Object>> {
        self.head_object(key, cancel)
    }

    fn list(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<Object>> {
        check_prefix(prefix)?;
        self.list_objects(prefix, cancel)
    }

    fn list_folders(&self, prefix: &str, cancel: &Cancel) -> Result<Vec<String>> {
        check_folder(prefix)?;
        self.list_prefixes(prefix, cancel)
    }

    fn delete(&self, keys: &[Key], cancel: &Cancel) -> Result<()> {
        self.delete_objects(keys, cancel)
    }

    fn guards(&self, cancel: &Cancel) -> Result<bool> {
        self.honours_conditions(cancel)
    }

    /// An object is one request: a put that was killed leaves nothing.
    fn leftovers(&self, _: Duration, _: bool, _: &Cancel) -> Result<Vec<Leftover>> {
        Ok(Vec::new())
    }

    fn describe(&self) -> String {
        let prefix = self.prefix.trim_end_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{prefix} at {}", self.bucket, self.place())
    }
}

impl Drop for S3Store {
    /// Connections need no farewell.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
