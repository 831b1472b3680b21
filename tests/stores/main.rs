//! Stores: one suite for all of them, what networks and busy servers do to requests, and where
//! credentials come from.

#[path = "../common/mod.rs"]
mod common;
mod credentials;
mod faults;
mod killed;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use common::ok;
use engine::store::{
    Body, Checksum, Encryption, Key, Location, LockMode, ObjectLock, Put, PutOptions, RetryOptions,
    S3Credentials, S3Options, Store, StoreOptions, open,
};
use engine::{Cancel, Error, ErrorKind, Event, Reporter, keys::Secret};
use harness::Scratch;
use harness::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

/// Larger than what a socket takes at once.
const LARGE: usize = 9 << 20;

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no thread panics with it").clone()
    }
}

impl Reporter for Warnings {
    fn event(&self, event: &Event) {
        if let Event::Warning(text) = event {
            self.0.lock().expect("no thread panics with it").push(text.clone());
        }
    }
}

/// Tests do not have five minutes, but machines may be busy.
fn quick() -> StoreOptions {
    let retry = RetryOptions {
        patience: Duration::from_secs(30),
        stall: Duration::from_secs(10),
        connect: Duration::from_secs(2),
        pause: Duration::from_millis(20),
        pause_max: Duration::from_millis(200),
    };
    StoreOptions { retry, ..StoreOptions::default() }
}

fn with_s3(s3: S3Options) -> StoreOptions {
    StoreOptions { s3, ..quick() }
}

fn s3_options(endpoint: String) -> S3Options {
    S3Options {
        endpoint: Some(endpoint),
        region: Some("us-east-1".into()),
        credentials: Some(S3Credentials {
            access_key: ACCESS_KEY.into(),
            secret_key: Secret::new(SECRET_KEY.into()),
            session_token: None,
        }),
        ..S3Options::default()
    }
}

#[track_caller]
fn s3_store(prefix: &str, options: &StoreOptions) -> (Arc<dyn Store>, Arc<Warnings>) {
    let location: Location = format!("s3://{BUCKET}/{prefix}").parse().expect("a location");
    let warnings = Arc::new(Warnings::default());
    (open(&location, options, warnings.clone()).expect("opens"), warnings)
}

fn key(name: &str) -> Key {
    Key::new(name).expect("a key")
}

fn bytes(len: usize, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

const NEW: PutOptions = PutOptions { only_if_absent: true, is_hashed_elsewhere: false };
const ANY: PutOptions = PutOptions { only_if_absent: false, is_hashed_elsewhere: false };

/// The calls of a store, without what every one of them has.
trait Calls {
    fn put_any(&self, name: &str, body: impl Into<Body>) -> Result<Put, Error>;
    fn put_new(&self, name: &str, body: impl Into<Body>) -> Result<Put, Error>;
    fn get_all(&self, name: &str) -> Result<Bytes, Error>;
    fn names(&self, prefix: &str) -> Vec<String>;
}

impl Calls for dyn Store + '_ {
    fn put_any(&self, name: &str, body: impl Into<Body>) -> Result<Put, Error> {
        self.put(&key(name), body.into(), &ANY, &Cancel::new())
    }

    fn put_new(&self, name: &str, body: impl Into<Body>) -> Result<Put, Error> {
        self.put(&key(name), body.into(), &NEW, &Cancel::new())
    }

    fn get_all(&self, name: &str) -> Result<Bytes, Error> {
        self.get(&key(name), None, 64 << 20, &Cancel::new())
    }

    #[track_caller]
    fn names(&self, prefix: &str) -> Vec<String> {
        let found = self.list(prefix, &Cancel::new()).expect("lists");
        found.into_iter().map(|object| object.key.to_string()).collect()
    }
}

/// What every store has to do.
#[track_caller]
fn conforms(store: &dyn Store) {
    let cancel = Cancel::new();
    let large = bytes(LARGE, 1);
    assert_eq!(store.names(""), [""; 0]);
    assert_eq!(store.list_folders("", &cancel).expect("lists"), [""; 0]);

    // Content of all sizes, in whatever pieces.
    for (name, body) in
        [("a/empty", Bytes::new()), ("a/one", bytes(1, 2)), ("a.large", large.clone())]
    {
        assert_eq!(store.put_any(name, body.clone()).expect(name), Put::Stored);
        assert!(store.get_all(name).expect(name) == body, "{name}");
        let head = store.head(&key(name), &cancel).expect(name).expect("it exists");
        assert_eq!((head.key.as_str(), head.len), (name, body.len() as u64));
        let age = SystemTime::now().duration_since(head.modified).unwrap_or_default();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }
    let pieces: Vec<Bytes> = vec![Bytes::new(), large.slice(..100), large.slice(100..1_000_000)];
    let _ = store.put_any("a/pieces", pieces).expect("put in pieces");
    assert!(store.get_all("a/pieces").expect("get") == large.slice(..1_000_000));
    let _ = store.put_any("a/one", bytes(5, 3)).expect("replaced");
    assert!(store.get_all("a/one").expect("get") == bytes(5, 3));

    // Ranges, and limits of what may come.
    let get = |range, limit| store.get(&key("a.large"), range, limit, &cancel);
    let end = LARGE as u64;
    for range in [0..1, 0..end, 77..5_000_000, end - 1..end, 5..5] {
        let wanted = large.slice(range.start as usize..range.end as usize);
        let len = range.end - range.start;
        assert!(get(Some(range.clone()), len).expect("range") == wanted, "{range:?}");
    }
    for range in [0..end + 1, end..end + 1, end + 5..end + 6] {
        let error = get(Some(range.clone()), end + 1).expect_err("behind the end");
        assert_eq!(error.kind(), ErrorKind::Damage, "{range:?}: {error}");
        assert!(error.to_string().contains("a.large"), "{error}");
    }
    assert_eq!(get(None, end - 1).expect_err("too long").kind(), ErrorKind::Damage);
    assert_eq!(get(Some(0..10), 9).expect_err("too long").kind(), ErrorKind::Usage);

    // What does not exist.
    let error = store.get_all("a/none").expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NothingMatches, "{error}");
    assert!(error.to_string().contains("a/none"), "{error}");
    assert_eq!(
        store.get(&key("none"), Some(0..1), 1, &cancel).expect_err("none").kind(),
        ErrorKind::NothingMatches
    );
    assert_eq!(store.head(&key("a/none"), &cancel).expect("looks"), None);

    // Only if absent.
    assert_eq!(store.put_new("n/1", bytes(9, 4)).expect("put"), Put::Stored);
    assert_eq!(store.put_new("n/1", bytes(9, 5)).expect("put"), Put::AlreadyThere);
    assert_eq!(store.put_new("n/1", bytes(8, 4)).expect("put"), Put::AlreadyThere);
    assert_eq!(store.put_new("n/1", bytes(9, 4)).expect("put"), Put::Stored, "it is the same");
    assert!(store.get_all("n/1").expect("get") == bytes(9, 4));

    // Listings.
    let all = ["a.large", "a/empty", "a/one", "a/pieces", "n/1"];
    assert_eq!(store.names(""), all);
    assert_eq!(store.names("a/"), all[1..4]);
    assert_eq!(store.names("a/p"), ["a/pieces"]);
    assert_eq!(store.names("a"), all[..4]);
    assert_eq!(store.names("none/"), [""; 0]);
    assert_eq!(store.list_folders("", &cancel).expect("lists"), ["a", "n"]);
    assert_eq!(store.list_folders("a/", &cancel).expect("lists"), [""; 0]);
    let sizes = store.list("a", &cancel).expect("lists");
    let sizes: Vec<_> = sizes.iter().map(|object| object.len).collect();
    assert_eq!(sizes, [LARGE as u64, 0, 5, 1_000_000]);
    for bad in ["../", "/", "a//"] {
        assert_eq!(store.list(bad, &cancel).expect_err("no prefix").kind(), ErrorKind::Usage);
    }
    assert_eq!(store.list_folders("a", &cancel).expect_err("no /").kind(), ErrorKind::Usage);

    // Many at once.
    std::thread::scope(|scope| {
        for writer in 0..12_u64 {
            scope.spawn(move || {
                let name = format!("many/{writer:02}");
                let _ = store.put_any(&name, bytes(100_000, writer)).expect("put");
                assert!(store.get_all(&name).expect("get") == bytes(100_000, writer));
            });
        }
    });
    assert_eq!(store.names("many/").len(), 12);

    // Interrupted before it began.
    let stopped = Cancel::new();
    stopped.cancel();
    let error = store.put(&key("never"), large.into(), &ANY, &stopped).expect_err("interrupted");
    assert_eq!(error.kind(), ErrorKind::Interrupted);

    // Deleting, also what is not there.
    let keys: Vec<Key> =
        store.list("", &cancel).expect("lists").into_iter().map(|o| o.key).collect();
    assert_eq!(keys.len(), 17);
    store.delete(&[key("none"), key("a/none")], &cancel).expect("deletes nothing");
    store.delete(&keys[..1], &cancel).expect("deletes one");
    store.delete(&keys, &cancel).expect("deletes all");
    store.delete(&[], &cancel).expect("deletes nothing");
    assert_eq!(store.names(""), [""; 0]);
    assert_eq!(store.leftovers(Duration::ZERO, false, &cancel).expect("looks"), []);
}

#[test]
fn a_folder_is_a_store() {
    let scratch = ok(Scratch::new());
    let root = scratch.join("repository");
    let location = Location::Folder(root.clone());
    let options = StoreOptions { create_folder: true, ..quick() };
    let store = open(&location, &options, Arc::new(Warnings::default())).expect("opens");
    conforms(&*store);
    assert!(store.guards(&Cancel::new()).expect("tries"));
    assert_eq!(std::fs::read_dir(root).expect("is there").count(), 0, "nothing is left behind");
}

#[test]
fn a_bucket_is_a_store() {
    let server = ok(S3Server::start());
    let (store, warnings) = s3_store("some/prefix", &with_s3(s3_options(server.endpoint())));
    conforms(&*store);
    assert!(store.guards(&Cancel::new()).expect("tries"));
    assert_eq!(warnings.all(), [""; 0]);
    // With two repositories in one bucket, neither sees the other.
    let (other, _) = s3_store("some", &with_s3(s3_options(server.endpoint())));
    let _ = store.put_any("x", bytes(1, 1)).expect("put");
    assert_eq!(other.names(""), ["prefix/x"]);
    let (other, _) = s3_store("some/pre", &with_s3(s3_options(server.endpoint())));
    assert_eq!(other.names(""), [""; 0]);
}

#[test]
fn a_bucket_behind_tls_is_a_store() {
    let server = ok(S3Server::start_tls());
    let trusting = S3Options { ca: server.ca().map(Into::into), ..s3_options(server.endpoint()) };
    let (store, _) = s3_store("tls", &with_s3(trusting.clone()));
    conforms(&*store);

    // Without the authority's certificate, nothing is sent.
    let scratch = ok(Scratch::new());
    let other = ok(S3Server::start_tls());
    let wrong = S3Options { ca: other.ca().map(Into::into), ..trusting };
    let began = Instant::now();
    let error = s3_store("tls", &with_s3(wrong)).0.get_all("x").expect_err("not trusted");
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.advice().unwrap_or_default().contains("certificate"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "no patience with what is permanent");
    drop(scratch);
}

/// For servers that no test starts: `cargo test --test stores -- --ignored any_server`.
#[test]
#[ignore = "needs HAULOUT_S3_ENDPOINT, HAULOUT_S3_BUCKET and the variables of AWS"]
fn any_server() {
    let variable = |name: &str| std::env::var(name).expect(name);
    let bucket = variable("HAULOUT_S3_BUCKET");
    let s3 = S3Options { endpoint: Some(variable("HAULOUT_S3_ENDPOINT")), ..S3Options::default() };
    let warnings = Arc::new(Warnings::default());
    let open = |s3: S3Options| {
        // Each in a place of its own: where there are versions, what was deleted may show.
        let location = format!("s3://{bucket}/conforms/{:x}", fastrand::u64(..));
        open(&location.parse().expect("a location"), &with_s3(s3), warnings.clone()).expect("opens")
    };
    for checksum in [Checksum::Crc32, Checksum::Sha256, Checksum::Md5, Checksum::None] {
        let store = open(S3Options { checksum, ..s3.clone() });
        conforms(&*store);
        println!("{checksum:?}: conforms; guards: {:?}", store.guards(&Cancel::new()));
    }
    let body = bytes(100_000, 1);
    for encryption in [Encryption::Store, Encryption::Kms(None)] {
        let store = open(S3Options { encryption: encryption.clone(), ..s3.clone() });
        let put = store.put_any("x", body.clone());
        let is_same = store.get_all("x").is_ok_and(|got| got == body);
        println!("{encryption:?}: {put:?}, read back: {is_same}");
    }
    let lock = ObjectLock { mode: LockMode::Governance, days: 1 };
    let store = open(S3Options { lock: Some(lock), ..s3.clone() });
    println!("{lock:?}: {:?}", store.put_any("locked", body.clone()));
    println!("warnings: {:#?}", warnings.all());
}

#[test]
fn every_kind_of_checksum_is_understood() {
    let server = ok(S3Server::start());
    for checksum in [Checksum::Crc32, Checksum::Sha256, Checksum::Md5, Checksum::None] {
        let s3 = S3Options { checksum, ..s3_options(server.endpoint()) };
        let (store, _) = s3_store(&format!("{checksum:?}"), &with_s3(s3));
        let body = bytes(300_000, 7);
        let _ = store.put_any("x/y", body.clone()).expect("put");
        let _ = store.put_any("z", body.clone()).expect("put");
        assert!(store.get_all("x/y").expect("get") == body);
        store.delete(&[key("x/y"), key("z")], &Cancel::new()).expect("deletes");
        assert_eq!(store.names(""), [""; 0]);
    }
}
