//! What networks and busy stores do to requests, by a proxy in front of the light server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::store::{
    Checksum, CustomerKey, Encryption, Location, LockMode, ObjectLock, Put, PutOptions,
    RetryOptions, S3Credentials, S3Options, Store, StoreOptions, open,
};
use engine::{Cancel, Error, ErrorKind, keys::Secret};
use harness::canned::CannedServer;
use harness::faulty_proxy::{Fault, FaultyProxy, Refusal, Request, Rule};
use harness::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

use super::common::ok;
use super::{ANY, Calls, Warnings, bytes, key, quick, s3_options, s3_store, with_s3};

/// A server, a proxy in front of it, a store behind both.
struct Faulty {
    _server: S3Server,
    proxy: FaultyProxy,
    store: Arc<dyn Store>,
    warnings: Arc<Warnings>,
}

impl Faulty {
    fn start() -> Self {
        Self::start_with(&quick(), |_| {})
    }

    /// With a store that is not waited for long.
    fn start_impatient() -> Self {
        let retry = RetryOptions { stall: Duration::from_millis(1500), ..quick().retry };
        Self::start_with(&StoreOptions { retry, ..quick() }, |_| {})
    }

    fn start_with(options: &StoreOptions, change: impl FnOnce(&mut S3Options)) -> Self {
        let server = ok(S3Server::start());
        let proxy = ok(FaultyProxy::start(server.address()));
        let mut s3 = s3_options(proxy.endpoint());
        change(&mut s3);
        let (store, warnings) = s3_store("p", &StoreOptions { s3, ..options.clone() });
        Self { _server: server, proxy, store, warnings }
    }

    fn tries(&self) -> usize {
        self.proxy.requests().len()
    }
}

#[test]
fn what_passes_is_tried_again() {
    let faulty = Faulty::start_impatient();
    let Faulty { proxy, store, .. } = &faulty;
    let body = bytes(2 << 20, 1);
    let busy = |code, status| Fault::Refuse(Refusal::new(status, code));
    let faults = [
        busy("SlowDown", 503),
        busy("InternalError", 500),
        busy("TooManyRequests", 429),
        busy("ConditionalRequestConflict", 409),
        busy("RequestTimeout", 400),
        busy("SomethingNew", 400),
        busy("", 502),
        Fault::ResetRequest(0),
        Fault::ResetRequest(1 << 20),
        Fault::FlipRequest(1 << 20),
        Fault::LoseAnswer,
        Fault::Silence(Duration::from_secs(4)),
    ];
    for fault in faults {
        proxy.clear();
        proxy.add(
            Rule::all(fault.clone()).method("PUT").times(if matches!(fault, Fault::Silence(_)) {
                1
            } else {
                2
            }),
        );
        assert_eq!(store.put_any("x", body.clone()).expect("put"), Put::Stored, "{fault:?}");
        assert!(faulty.tries() >= 2, "{fault:?}: {} tries", faulty.tries());
        proxy.clear();
        assert!(store.get_all("x").expect("get") == body, "{fault:?}");
        store.delete(&[key("x")], &Cancel::new()).expect("deletes");
    }
    for fault in [busy("SlowDown", 503), Fault::ResetAnswer(10), Fault::CutAnswer(10)] {
        let _ = store.put_any("x", body.clone()).expect("put");
        let _ = store.put_any("y", body.clone()).expect("put");
        proxy.clear();
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            proxy.add(Rule::all(fault.clone()).method(method).times(1));
        }
        assert_eq!(store.names(""), ["x", "y"], "{fault:?}");
        assert!(store.head(&key("x"), &Cancel::new()).expect("looks").is_some());
        store.delete(&[key("x"), key("y")], &Cancel::new()).expect("deletes");
        store.delete(&[key("x")], &Cancel::new()).expect("deletes");
        assert_eq!(store.names(""), [""; 0], "{fault:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_continued() {
    let faulty = Faulty::start_impatient();
    let Faulty { proxy, store, .. } = &faulty;
    let body = bytes(2 << 20, 1);
    let _ = store.put_any("x", body.clone()).expect("put");
    for fault in [
        Fault::ResetAnswer(1 << 20),
        Fault::CutAnswer(1 << 20),
        Fault::CutAnswer(0),
        Fault::Stall(1 << 20, Duration::from_secs(4)),
        Fault::FlipAnswer(1 << 20),
    ] {
        proxy.clear();
        proxy.add(Rule::all(fault.clone()).method("GET").times(1));
        assert!(store.get_all("x").expect("get") == body, "{fault:?}");
        assert!(faulty.tries() >= 2, "{fault:?}");
        let ranges: Vec<_> =
            proxy.requests().iter().map(|r| r.headers.get("range").cloned()).collect();
        match fault {
            Fault::CutAnswer(at) | Fault::Stall(at, _) if at > 0 => {
                assert_eq!(ranges[..2], [None, Some(format!("bytes={at}-"))], "{fault:?}");
            }
            _ => {}
        }

        proxy.clear();
        // What arrives changed within a range is found by whoever knows what it has to be.
        if matches!(fault, Fault::FlipAnswer(_)) {
            continue;
        }
        let times = if matches!(fault, Fault::Stall(..)) { 1 } else { 3 };
        proxy.add(Rule::all(fault.clone()).method("GET").times(times));
        let range = 1000..(2 << 20) - 1000;
        let got = store.get(&key("x"), Some(range), 2 << 20, &Cancel::new()).expect("get");
        assert!(got == body.slice(1000..(2 << 20) - 1000), "{fault:?}");
    }
    // An object that is replaced in between is not mixed with the new one.
    let other = bytes(2 << 20, 2);
    proxy.clear();
    proxy.add(Rule::all(Fault::Stall(1 << 20, Duration::from_secs(4))).method("GET").times(1));
    let got = std::thread::scope(|scope| {
        let get = scope.spawn(|| store.get_all("x").expect("get"));
        std::thread::sleep(Duration::from_millis(300));
        let _ = store.put_any("x", other.clone()).expect("put");
        get.join().expect("no panic")
    });
    assert!(got == body || got == other);
}

#[test]
fn a_store_that_is_busy_for_a_while_is_waited_for() {
    let faulty = Faulty::start();
    let began = Instant::now();
    let busy = Fault::Refuse(Refusal::new(503, "SlowDown"));
    faulty.proxy.add(Rule::all(busy).within(Duration::from_secs(3)));
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let store = &faulty.store;
            scope.spawn(move || {
                let name = format!("x/{writer}");
                store.put_any(&name, bytes(100_000, writer)).expect("put")
            });
        }
    });
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!(faulty.store.names("x/").len(), 4);
}

#[test]
fn patience_ends_and_says_so() {
    let retry = RetryOptions { patience: Duration::from_millis(600), ..quick().retry };
    let faulty = Faulty::start_with(&StoreOptions { retry, ..quick() }, |_| {});
    let busy = Refusal::new(503, "SlowDown");
    faulty.proxy.add(Rule::all(Fault::Refuse(busy)));
    let error = faulty.store.put_any("x", bytes(10, 1)).expect_err("refused");
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Store, 5));
    let words = error.to_string();
    for word in ["put x", BUCKET, "given up after", "tries", "SlowDown", "said by the faulty proxy"]
    {
        assert!(words.contains(word), "nothing about {word}: {words}");
    }
    assert!(error.advice().unwrap_or_default().contains("concurrency"));
    // The store may ask for a longer pause than there is patience for.
    faulty.proxy.clear();
    let later = Refusal::new(503, "SlowDown").header("retry-after", "3600");
    faulty.proxy.add(Rule::all(Fault::Refuse(later)).times(1));
    let _ = faulty.store.put_any("x", bytes(10, 1)).expect("does not wait for an hour");
}

#[test]
fn nobody_there() {
    let server = ok(S3Server::start());
    let endpoint = server.endpoint();
    drop(server);
    let retry = RetryOptions { patience: Duration::from_millis(500), ..quick().retry };
    let options = StoreOptions { retry, ..with_s3(s3_options(endpoint.clone())) };
    let error = s3_store("p", &options).0.put_any("x", bytes(10, 1)).expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Store);
    let advice = error.advice().unwrap_or_default();
    assert!(
        error.to_string().contains("refused") && advice.contains(&endpoint),
        "{error}: {advice}"
    );
}

#[test]
fn what_is_permanent_is_told_at_once_with_a_remedy() {
    let faulty = Faulty::start();
    for (status, code, advice) in [
        (403, "AccessDenied", "allow s3:PutObject on arn:aws:s3:::haulout-test/p/*"),
        (403, "SignatureDoesNotMatch", "secret key"),
        (403, "InvalidAccessKeyId", "access key"),
        (404, "NoSuchBucket", "create the bucket"),
        (301, "PermanentRedirect", "use the region eu-west-1"),
        (400, "AuthorizationHeaderMalformed", "use the region eu-west-1"),
        (507, "", "free some space"),
    ] {
        faulty.proxy.clear();
        let refusal = Refusal::new(status, code).header("x-amz-bucket-region", "eu-west-1");
        faulty.proxy.add(Rule::all(Fault::Refuse(refusal)));
        let error = faulty.store.put_any("x", bytes(10, 1)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(
            error.advice().unwrap_or_default().contains(advice),
            "{code}: {error}: {:?}",
            error.advice()
        );
        assert_eq!(faulty.tries(), 1, "{code}");
        assert!(!format!("{error:?}").contains(SECRET_KEY));
    }
    // Every kind of request names its own permission.
    faulty.proxy.clear();
    faulty.proxy.add(Rule::all(Fault::Refuse(Refusal::new(403, "AccessDenied"))));
    let (cancel, store) = (Cancel::new(), &faulty.store);
    let allow = |error: Error| error.advice().unwrap_or_default().to_owned();
    assert!(allow(store.get_all("x").expect_err("get")).contains("allow s3:GetObject"));
    assert!(
        allow(store.list("", &cancel).expect_err("list"))
            .contains("s3:ListBucket on arn:aws:s3:::haulout-test for")
    );
    assert!(allow(store.head(&key("x"), &cancel).expect_err("head")).contains("s3:GetObject"));
    assert!(
        allow(store.delete(&[key("x")], &cancel).expect_err("delete")).contains("s3:DeleteObject")
    );
    let both = [key("x"), key("y")];
    assert!(allow(store.delete(&both, &cancel).expect_err("delete")).contains("s3:DeleteObject"));
}

#[test]
fn the_server_itself_refuses_wrong_credentials_and_buckets() {
    let server = ok(S3Server::start());
    let credentials = |access_key: &str, secret: &str| S3Options {
        credentials: Some(S3Credentials {
            access_key: access_key.into(),
            secret_key: Secret::new(secret.into()),
            session_token: None,
        }),
        ..s3_options(server.endpoint())
    };
    let error = |s3: S3Options| {
        s3_store("p", &with_s3(s3)).0.put_any("x", bytes(1, 1)).expect_err("refused")
    };
    let wrong = error(credentials(ACCESS_KEY, "another-secret"));
    assert!(wrong.to_string().contains("SignatureDoesNotMatch"), "{wrong}");
    assert!(!format!("{wrong:?}").contains("another-secret"));
    let unknown = error(credentials("another-key", SECRET_KEY));
    assert_eq!(unknown.kind(), ErrorKind::Store, "{unknown}");
    let location: Location = "s3://no-such-bucket/p".parse().expect("a location");
    let options = with_s3(s3_options(server.endpoint()));
    let store = open(&location, &options, Arc::new(Warnings::default())).expect("opens");
    let error = store.list("", &Cancel::new()).expect_err("no bucket");
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
}

#[test]
fn a_wrong_clock_is_told_and_got_around() {
    for hours in [3, -3] {
        let faulty = Faulty::start();
        faulty.proxy.add(Rule::all(Fault::Clock(hours * 3600)));
        let _ = faulty.store.put_any("x", bytes(10, 1)).expect("signed by the store's clock");
        assert_eq!(faulty.tries(), 2);
        let _ = faulty.store.put_any("y", bytes(10, 1)).expect("signed by the store's clock");
        assert_eq!(faulty.tries(), 3, "once is enough");
        let warnings = faulty.warnings.all();
        let way = if hours > 0 { "behind" } else { "ahead of" };
        assert!(warnings.len() == 1 && warnings[0].contains(way), "{warnings:?}");
    }
}

#[test]
fn an_answer_that_was_lost_is_not_somebody_else() {
    let faulty = Faulty::start();
    assert!(faulty.store.guards(&Cancel::new()).expect("tries"));
    faulty.proxy.add(Rule::all(Fault::LoseAnswer).method("PUT").times(1));
    assert_eq!(faulty.store.put_new("x", bytes(1000, 1)).expect("put"), Put::Stored);
    faulty.proxy.add(Rule::all(Fault::LoseAnswer).method("PUT").times(1));
    assert_eq!(faulty.store.put_new("x", bytes(1000, 2)).expect("put"), Put::AlreadyThere);
}

#[test]
fn a_store_that_refuses_conditions_is_looked_at() {
    let faulty = Faulty::start();
    let unknown = Fault::Refuse(Refusal::new(501, "NotImplemented"));
    faulty.proxy.add(Rule::all(unknown).method("PUT").times(1));
    assert_eq!(faulty.store.put_new("x", bytes(1000, 1)).expect("put"), Put::Stored);
    assert_eq!(faulty.store.put_new("x", bytes(1000, 2)).expect("put"), Put::AlreadyThere);
    assert_eq!(faulty.store.put_new("x", bytes(1000, 1)).expect("put"), Put::Stored);
    assert!(!faulty.store.guards(&Cancel::new()).expect("known"));
    let warnings = faulty.warnings.all();
    assert!(warnings.len() == 1 && warnings[0].contains("If-None-Match"), "{warnings:?}");
    let requests = faulty.proxy.requests();
    let puts: Vec<_> = requests.iter().filter(|r| r.method == "PUT").collect();
    assert!(puts[0].headers.contains_key("if-none-match"));
    assert!(puts[1..].iter().all(|put| !put.headers.contains_key("if-none-match")));
    assert_eq!(faulty.store.names(""), ["x"], "what is tried with is not listed");
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    let server = ok(S3Server::start_without_conditions());
    let (store, warnings) = s3_store("p", &with_s3(s3_options(server.endpoint())));
    assert_eq!(store.put_new("x", bytes(1000, 1)).expect("put"), Put::Stored);
    assert_eq!(store.put_new("x", bytes(1000, 2)).expect("put"), Put::AlreadyThere);
    assert_eq!(store.put_new("x", bytes(1000, 1)).expect("put"), Put::Stored);
    assert!(store.get_all("x").expect("get") == bytes(1000, 1));
    assert!(!store.guards(&Cancel::new()).expect("known"));
    let warnings = warnings.all();
    assert!(warnings.len() == 1 && warnings[0].contains("If-None-Match"), "{warnings:?}");
}

#[test]
fn a_region_that_nobody_chose_is_learnt() {
    let faulty = Faulty::start_with(&quick(), |s3| s3.region = None);
    let elsewhere =
        Refusal::new(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-west-7");
    faulty.proxy.add(Rule::all(Fault::Refuse(elsewhere)).times(1));
    let _ = faulty.store.put_any("x", bytes(10, 1)).expect("put");
    let requests = faulty.proxy.requests();
    let signed = |at: usize| requests[at].headers["authorization"].contains("/eu-west-7/s3/");
    assert!(!signed(0) && signed(1) && requests.len() == 2, "{requests:?}");
}

#[test]
fn endless_answers_are_not_taken() {
    let name = "x".repeat(1000);
    let page = format!("<Contents><Key>{name}</Key><Size>1</Size></Contents>").repeat(20_000);
    let server = ok(CannedServer::start(move |_| (200, format!("<ListBucketResult>{page}"))));
    let retry = RetryOptions { patience: Duration::from_millis(300), ..quick().retry };
    let options = StoreOptions { retry, ..with_s3(s3_options(server.url())) };
    let error = s3_store("p", &options).0.list("", &Cancel::new()).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.to_string().contains("length limit exceeded"), "{error}");
}

#[test]
fn no_more_requests_at_once_than_allowed_and_no_faster() {
    let options = StoreOptions { concurrency: 2, bandwidth: Some(4 << 20), ..quick() };
    let faulty = Faulty::start_with(&options, |_| {});
    faulty.proxy.add(Rule::all(Fault::Delay(Duration::from_millis(50))));
    let began = Instant::now();
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..8_u64 {
            let (store, failed) = (&faulty.store, &failed);
            scope.spawn(move || {
                if store.put_any(&format!("x/{writer}"), bytes(1 << 20, writer)).is_err() {
                    failed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let took = began.elapsed().as_secs_f64();
    assert_eq!(failed.into_inner(), 0);
    // One that was answered may not be gone when the next one comes.
    assert!(faulty.proxy.most_at_once() <= 3, "{} at once", faulty.proxy.most_at_once());
    assert!((1.7..6.0).contains(&took), "8 MiB at 4 MiB/s took {took} s");
    assert_eq!(faulty.tries(), 8, "slow on purpose is not a stall");
    let began = Instant::now();
    assert!(faulty.store.get_all("x/1").expect("get") == bytes(1 << 20, 1));
    let took = began.elapsed().as_secs_f64();
    assert!((0.1..3.0).contains(&took), "1 MiB at 4 MiB/s took {took} s");
}

#[test]
fn a_hanging_request_can_be_interrupted() {
    let options = StoreOptions {
        retry: RetryOptions { stall: Duration::from_secs(60), ..quick().retry },
        ..quick()
    };
    let faulty = Faulty::start_with(&options, |_| {});
    faulty.proxy.add(Rule::all(Fault::Silence(Duration::from_secs(3))));
    let (cancel, store) = (Cancel::new(), &faulty.store);
    let began = Instant::now();
    let error = std::thread::scope(|scope| {
        let put = scope.spawn(|| store.put(&key("x"), bytes(10, 1).into(), &ANY, &cancel));
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
        put.join().expect("no panic").expect_err("interrupted")
    });
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn content_is_signed_where_its_hash_is_nowhere_else_or_the_store_wants_it() {
    const SIGNED: &str = "x-amz-content-sha256";
    const NOT: &str = "UNSIGNED-PAYLOAD";
    let faulty = Faulty::start();
    let hashed = PutOptions { is_hashed_elsewhere: true, ..ANY };
    let put = |name: &str, options: &PutOptions| {
        let done = faulty.store.put(&key(name), bytes(10, 1).into(), options, &Cancel::new());
        assert_eq!(done.expect("put"), Put::Stored);
        let of = |request: &Request| request.headers.get(SIGNED).is_some_and(|has| has != NOT);
        faulty.proxy.requests().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(put("a", &ANY), [true]);
    assert_eq!(put("b", &hashed), [true, false]);
    // A bucket's policy can deny what is not signed: it is heard once.
    let denied = Fault::Refuse(Refusal::new(403, "AccessDenied"));
    faulty.proxy.add(Rule::all(denied).header(SIGNED, NOT));
    assert_eq!(put("c", &hashed), [true, false, false, true]);
    assert_eq!(put("d", &hashed)[4..], [true]);
    // Without a checksum nothing else would show an accident.
    let faulty = Faulty::start_with(&quick(), |s3| s3.checksum = Checksum::None);
    let done = faulty.store.put(&key("e"), bytes(10, 1).into(), &hashed, &Cancel::new());
    assert_eq!(done.expect("put"), Put::Stored);
    assert_ne!(faulty.proxy.requests()[0].headers.get(SIGNED).map(String::as_str), Some(NOT));
}

#[test]
fn what_was_asked_for_is_sent_along_and_its_absence_noticed() {
    let lock = ObjectLock { mode: LockMode::Compliance, days: 30 };
    let faulty = Faulty::start_with(&quick(), |s3| {
        s3.encryption = Encryption::Kms(Some("alias/backup".into()));
        s3.storage_class = Some("REDUCED_REDUNDANCY".into());
        s3.lock = Some(lock);
    });
    // The server ignores most of it, which must not go unnoticed.
    let error = faulty.store.put_any("x", bytes(10, 1)).expect_err("not encrypted");
    assert!(error.to_string().contains("without SSE-KMS"), "{error}");
    faulty.proxy.clear();
    faulty
        .proxy
        .add(Rule::all(Fault::AddHeader("x-amz-server-side-encryption", "aws:kms")).method("PUT"));
    let _ = faulty.store.put_any("x", bytes(10, 1)).expect("put");
    let warnings = faulty.warnings.all();
    assert!(warnings.len() == 1 && warnings[0].contains("locked"), "{warnings:?}");
    let requests = faulty.proxy.requests();
    let headers = &requests[0].headers;
    for (name, value) in [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "alias/backup"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("content-length", "10"),
    ] {
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(headers.contains_key("x-amz-object-lock-retain-until-date"));
    assert!(headers.contains_key("x-amz-checksum-crc32"));
    drop(faulty);

    let server = ok(S3Server::start_tls());
    let customer = S3Options {
        ca: server.ca().map(Into::into),
        encryption: Encryption::Customer(CustomerKey::new([7; 32])),
        ..s3_options(server.endpoint())
    };
    let error =
        s3_store("p", &with_s3(customer)).0.put_any("x", bytes(10, 1)).expect_err("ignored");
    assert!(error.to_string().contains("without SSE-C"), "{error}");
}
