//! What a failed request means: for the next try, and for the user.
//!
//! [`judge`] is the one place where the codes of stores are known. What it does not know is tried
//! again: a status of 500 and up until patience ends, any other a few times.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use crate::store::retry::{Outlook, Refusal};
use crate::{Error, ErrorKind};

/// Longest text of a store that a message quotes.
const QUOTE_MAX: usize = 300;
/// From this on a clock is what is wrong with a signature; stores allow a quarter of an hour.
const SKEW: Duration = Duration::from_secs(10 * 60);

/// What was asked of a store.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The permission that it needs: `s3:PutObject`.
    pub(super) permission: &'static str,
    /// What the permission is needed for: `arn:aws:s3:::bucket/prefix/*`.
    pub(super) resource: &'a str,
    pub(super) bucket: &'a str,
    /// Where the requests go: an address, or a region of AWS.
    pub(super) place: &'a str,
}

/// An answer that is a refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    /// Where the bucket is, when the answer says so.
    pub(super) region: Option<String>,
    /// The store's clock.
    pub(super) date: Option<SystemTime>,
    pub(super) retry_after: Option<Duration>,
    pub(super) request_id: Option<String>,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store answered.
    Answer(Box<Answer>),
    /// There was no whole answer: what went wrong on the way.
    Way(String),
    /// There was no request: credentials, mostly.
    Request(String),
}

impl Failure {
    /// What the SDK knows.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match error {
            SdkError::ServiceError(refused) => {
                let meta = refused.err().meta();
                let mut answer = Answer::of(refused.raw());
                answer.code = clean(meta.code().unwrap_or_default());
                answer.message = clean(meta.message().unwrap_or_default());
                answer.region = answer.region.or_else(|| expected_region(&answer.message));
                Self::Answer(Box::new(answer))
            }
            // An answer that cannot be understood: torn, or of something that is not a store.
            SdkError::ResponseError(torn) => {
                let words = format!("{}", DisplayErrorContext(error));
                if torn.raw().status().is_success() {
                    Self::Way(clean(&words))
                } else {
                    Self::Answer(Box::new(Answer {
                        message: clean(&words),
                        ..Answer::of(torn.raw())
                    }))
                }
            }
            SdkError::TimeoutError(_) => Self::Way("no connection within the time limit".into()),
            SdkError::DispatchFailure(failure) => {
                let words = clean(&format!(
                    "{}",
                    DisplayErrorContext(
                        failure
                            .as_connector_error()
                            .map_or(error as &dyn std::error::Error, |error| error
                                as &dyn std::error::Error,)
                    )
                ));
                // Credentials are asked for on the way to a request.
                if failure.as_connector_error().is_none() || words.contains("redentials") {
                    Self::Request(words)
                } else {
                    Self::Way(words)
                }
            }
            _ => Self::Request(clean(&format!("{}", DisplayErrorContext(error)))),
        }
    }

    /// The code of the answer, or none.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Answer(answer) => &answer.code,
            _ => "",
        }
    }

    /// The status of the answer, or 0.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Answer(answer) => answer.status,
            _ => 0,
        }
    }
}

impl Answer {
    fn of(raw: &HttpResponse) -> Self {
        let header = |name: &str| raw.headers().get(name);
        let date = header("date").and_then(|date| {
            SystemTime::try_from(DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?).ok()
        });
        let seconds = header("retry-after").and_then(|seconds| seconds.parse().ok());
        Self {
            status: raw.status().as_u16(),
            region: header("x-amz-bucket-region").map(clean).filter(|region| !region.is_empty()),
            date,
            retry_after: seconds.map(Duration::from_secs),
            request_id: header("x-amz-request-id").map(clean),
            ..Self::default()
        }
    }

    /// How far this machine's clock is from the store's, if that is too far, and whether it is
    /// ahead.
    pub(super) fn skew(&self, now: SystemTime) -> Option<(Duration, bool)> {
        let date = self.date?;
        let (skew, ahead) = match now.duration_since(date) {
            Ok(ahead) => (ahead, true),
            Err(behind) => (behind.duration(), false),
        };
        (skew >= SKEW).then_some((skew, ahead))
    }
}

/// Turns a failure into what the next try should know, and an error with a remedy.
pub(super) fn judge(asked: Asked<'_>, failure: &Failure, now: SystemTime) -> Refusal {
    let answer = match failure {
        Failure::Answer(answer) => answer,
        Failure::Way(words) => return on_the_way(asked, words),
        Failure::Request(words) => return no_request(words),
    };
    let (outlook, what, advice) = read(asked, answer, now);
    let mut message = what;
    if !answer.code.is_empty() && !message.contains(&answer.code) {
        message = format!("{message} ({})", answer.code);
    }
    if !answer.message.is_empty() {
        message = format!("{message}: {}", answer.message);
    }
    if let (Some(id), true) = (&answer.request_id, answer.status >= 500) {
        message = format!("{message} [request {id}]");
    }
    let error = Error::new(ErrorKind::Store, message);
    let error = if advice.is_empty() { error } else { error.advise(advice) };
    Refusal { wait: answer.retry_after, ..Refusal::new(outlook, error) }
}

/// The codes: what they mean for the next try, what to say, what to advise.
fn read(asked: Asked<'_>, answer: &Answer, now: SystemTime) -> (Outlook, String, String) {
    use Outlook::{Doubtful, Permanent, Transient};
    let Asked { permission, resource, bucket, place } = asked;
    let signed = matches!(
        answer.code.as_str(),
        "RequestTimeTooSkewed" | "SignatureDoesNotMatch" | "AccessDenied" | "InvalidRequest"
    ) || answer.code.is_empty();
    if answer.status == 403
        && let (true, Some((skew, ahead))) = (signed, answer.skew(now))
    {
        let way = if ahead { "ahead of" } else { "behind" };
        let what = format!("this machine's clock is {} {way} the store's", span(skew));
        // The next request is signed by the clock of this answer.
        return (Doubtful, what, "set the clock, and have it kept by NTP".into());
    }
    let (outlook, what, advice): (_, &str, String) = match answer.code.as_str() {
        "RequestTimeTooSkewed" => (
            Doubtful,
            "the store finds the time of the request wrong",
            "compare the clocks of this machine and of the store".into(),
        ),
        "SignatureDoesNotMatch" => (
            Permanent,
            "the secret key does not belong to the access key, or something on the way changes requests",
            "check the secret key, and that no proxy rewrites requests; the clock is right".into(),
        ),
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "UnrecognizedClientException" => (
            Permanent,
            "the store does not know the access key",
            format!("check the access key, and that it is one of {place}"),
        ),
        code if is_expired(code) => (
            Doubtful,
            "the credentials have expired",
            "get new ones; runs that take longer than credentials last need a role, a profile or \
             web identity, which are renewed on the way"
                .into(),
        ),
        "InvalidToken" => (
            Permanent,
            "the session token is not valid",
            "access key, secret key and session token come together; check all three".into(),
        ),
        "NoSuchBucket" => (
            Permanent,
            "there is no such bucket",
            format!("create the bucket {bucket}, or check its name and the endpoint ({place})"),
        ),
        "InvalidBucketName" => (Permanent, "the name of the bucket is not valid", String::new()),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "UnauthorizedAccess" => {
            return (
                Permanent,
                "access denied".into(),
                format!(
                    "allow {} on {resource} for these credentials",
                    missing(permission, &answer.message)
                ),
            );
        }
        code if code.starts_with("KMS.") => (
            if code.contains("Throttl") { Transient } else { Doubtful },
            "the key service refuses",
            "check that the key exists, is enabled, and may be used by these credentials \
             (kms:GenerateDataKey, kms:Decrypt)"
                .into(),
        ),
        "InvalidObjectState" => (
            Permanent,
            "the object is archived",
            "restore it to a class that can be read at once, for example with s3:RestoreObject"
                .into(),
        ),
        "InvalidStorageClass" => {
            (Permanent, "the store does not have this storage class", "use another one".into())
        }
        "EntityTooLarge" => {
            (Permanent, "the object is too large for the store", "use smaller packs".into())
        }
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "InsufficientStorage"
        | "StorageFull"
        | "QuotaExceededException" => {
            (Permanent, "the store is full", "free some space, or raise the quota".into())
        }
        "NotImplemented" => {
            (Permanent, "the store does not know this kind of request", String::new())
        }
        "MethodNotAllowed" => (
            Permanent,
            "the store does not allow this kind of request",
            "objects may be locked, or the endpoint is not that of a store".into(),
        ),
        "ObjectLockConfigurationNotFoundError" | "InvalidBucketState" => (
            Permanent,
            "the bucket was not made for locked objects",
            "create a bucket with object lock, or leave out the lock".into(),
        ),
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "TemporaryRedirect" => return (Permanent, wrong_region(answer), region_advice(answer)),
        // The connection may have broken something; a wrong key breaks it every time.
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody" => (
            Doubtful,
            "the content arrived changed",
            "if it stays so, try another kind of checksum".into(),
        ),
        "MissingContentMD5"
        | "MissingUploadObjectWithObjectLockHeaders"
        | "MissingContentLength"
        | "InvalidEncryptionAlgorithmError"
        | "MalformedXML"
        | "EntityTooSmall" => {
            (Permanent, "the store does not take the request", "try the checksum md5".into())
        }
        "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "PriorRequestNotComplete" => (
            Transient,
            "the store asks to slow down",
            "use less concurrency, or a limit of bandwidth".into(),
        ),
        "InternalError"
        | "InternalFailure"
        | "RequestTimeout"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "RequestTimeoutException" => (Transient, "the store failed", String::new()),
        _ => return unknown(asked, answer),
    };
    (outlook, what.to_owned(), advice)
}

/// Other credentials are needed, of the same kind.
pub(super) fn is_expired(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired"
    )
}

/// Answers without a code that is known: by their status.
fn unknown(asked: Asked<'_>, answer: &Answer) -> (Outlook, String, String) {
    let Asked { permission, resource, bucket, place } = asked;
    let what = |words: &str| format!("{words}: status {}", answer.status);
    match answer.status {
        301 | 302 | 307 | 308 => (Outlook::Permanent, wrong_region(answer), region_advice(answer)),
        // Behind another status than this, the region is only an accident of the answer.
        400 if answer.region.is_some() => {
            (Outlook::Permanent, wrong_region(answer), region_advice(answer))
        }
        401 | 403 => (
            Outlook::Permanent,
            what("access denied"),
            format!("allow {permission} on {resource} for these credentials"),
        ),
        404 => (
            Outlook::Permanent,
            what("not found"),
            format!("check the bucket {bucket} and the endpoint ({place})"),
        ),
        405 | 501 => (
            Outlook::Permanent,
            what("the store does not know this kind of request"),
            format!("check that {place} is the endpoint of a store"),
        ),
        507 => (Outlook::Permanent, what("the store is full"), "free some space".into()),
        408 | 409 | 425 | 429 | 500.. => {
            (Outlook::Transient, what("the store failed"), String::new())
        }
        _ => (Outlook::Doubtful, what("the store refused"), String::new()),
    }
}

fn wrong_region(answer: &Answer) -> String {
    match &answer.region {
        Some(region) => format!("the bucket is in another region: {region}"),
        None => "the bucket is in another region, or behind another endpoint".to_owned(),
    }
}

fn region_advice(answer: &Answer) -> String {
    match &answer.region {
        Some(region) => format!("use the region {region}"),
        None => "find out the region of the bucket and use it".to_owned(),
    }
}

/// The permission that is missing: the message may know better than the request.
fn missing<'a>(permission: &'a str, message: &'a str) -> &'a str {
    let named = message.split("perform: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let is_permission = |word: &&str| {
        word.contains(':') && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b':')
    };
    named.filter(is_permission).unwrap_or(permission)
}

/// `expecting 'eu-west-1'`, as a store answers to a signature for another region.
fn expected_region(message: &str) -> Option<String> {
    let region = message.split("expecting '").nth(1)?.split('\'').next()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!region.is_empty() && region.bytes().all(allowed)).then(|| region.to_owned())
}

/// No whole answer came.
fn on_the_way(asked: Asked<'_>, words: &str) -> Refusal {
    let lower = words.to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|word| lower.contains(word));
    let (outlook, advice) = if has(&["certificate", "unknownissuer"]) {
        let advice = "if the store has a certificate of a private authority, name the file with the \
                      certificate of that authority";
        (Outlook::Permanent, advice.to_owned())
    } else if has(&["corruptmessage", "invalidcontenttype", "corrupt message"]) {
        let advice = "the endpoint seems to speak HTTP without TLS: try http://";
        (Outlook::Permanent, advice.to_owned())
    } else if has(&["dns", "lookup"]) {
        (Outlook::Transient, format!("check the name in {}", asked.place))
    } else if has(&["refused"]) {
        (Outlook::Transient, format!("check that the store runs and that {} is right", asked.place))
    } else {
        (Outlook::Transient, String::new())
    };
    let error = Error::new(ErrorKind::Store, format!("no answer from {}: {words}", asked.place));
    let error = if advice.is_empty() { error } else { error.advise(advice) };
    Refusal::new(outlook, error)
}

/// There was no request to send.
fn no_request(words: &str) -> Refusal {
    let error = Error::new(ErrorKind::Store, format!("cannot make the request: {words}"));
    let credentials = words.contains("redential") || words.contains("identity");
    // A service that gives credentials may be away for a moment; where there are none, none come.
    let outlook = match credentials && words.contains("no providers in chain") {
        true => Outlook::Permanent,
        false => Outlook::Doubtful,
    };
    let error = if credentials {
        error.advise(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or run where a role \
             is given (web identity, pod, container, instance)",
        )
    } else {
        error
    };
    Refusal::new(outlook, error)
}

/// Text of others, fit for a line of ours.
fn clean(text: &str) -> String {
    let mut clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTE_MAX).collect();
    clean.truncate(clean.trim_end().len());
    clean
}

fn span(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
