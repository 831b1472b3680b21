//! Puts that are killed.

use std::process::Command;
use std::time::{Duration, Instant};

use engine::Cancel;
use engine::store::{Location, StoreOptions, open};
use harness::s3::S3Server;
use harness::{Scratch, process};
use rustix::process::Signal;

use super::common::ok;
use super::{BUCKET, Calls, Warnings, bytes, quick, s3_options, with_s3};

/// Says to the child where to put.
const LOCATION: &str = "HAULOUT_TEST_LOCATION";
const ENDPOINT: &str = "HAULOUT_TEST_ENDPOINT";

/// Puts an object that takes ten seconds.
#[test]
#[ignore = "other tests run it, and kill it"]
fn child() {
    let location: Location = std::env::var(LOCATION).expect(LOCATION).parse().expect("a location");
    let options = std::env::var(ENDPOINT).map_or_else(|_| quick(), |e| with_s3(s3_options(e)));
    let options = StoreOptions { bandwidth: Some(1 << 20), ..options };
    let store = open(&location, &options, std::sync::Arc::new(Warnings::default())).expect("opens");
    let _ = store.put_any("a/x", bytes(10 << 20, 1)).expect("killed before");
}

/// Kills the child while it puts; what is in the store afterwards.
#[track_caller]
fn kill_a_put(location: &str, endpoint: Option<&str>, is_on_its_way: impl Fn() -> bool) {
    let options = endpoint.map_or_else(quick, |endpoint| with_s3(s3_options(endpoint.to_owned())));
    let options = StoreOptions { create_folder: true, ..options };
    let parsed: Location = location.parse().expect("a location");
    let store = open(&parsed, &options, std::sync::Arc::new(Warnings::default())).expect("opens");

    let mut command = Command::new(std::env::current_exe().expect("this test has a file"));
    command.args(["--exact", "killed::child", "--ignored"]).env(LOCATION, location);
    command.envs(endpoint.map(|endpoint| (ENDPOINT, endpoint)));
    let child = ok(process::start(command, None));
    let began = Instant::now();
    while !is_on_its_way() {
        assert!(began.elapsed() < Duration::from_secs(30), "the child does not put anything");
        std::thread::sleep(Duration::from_millis(20));
    }
    ok(child.signal(Signal::KILL));
    let ended = ok(child.wait(Duration::from_secs(10)));
    assert_eq!(ended.code(), None, "{}", ended.report());

    let cancel = Cancel::new();
    assert_eq!(store.names(""), [""; 0]);
    assert!(store.head(&super::key("a/x"), &cancel).expect("looks").is_none());
    let left = store.leftovers(Duration::ZERO, false, &cancel).expect("looks");
    assert_eq!(left.len(), usize::from(endpoint.is_none()), "{left:?}");
    assert_eq!(store.leftovers(Duration::ZERO, true, &cancel).expect("removes"), left);
    assert_eq!(store.leftovers(Duration::ZERO, true, &cancel).expect("looks"), []);
    let _ = store.put_any("a/x", bytes(100, 1)).expect("put");
    assert_eq!(store.names(""), ["a/x"]);
}

#[test]
fn in_a_folder() {
    let scratch = ok(Scratch::new());
    let root = scratch.join("repository");
    kill_a_put(&root.display().to_string(), None, || {
        let entries = std::fs::read_dir(root.join("a"));
        let mut sizes = entries.into_iter().flatten().flatten().flat_map(|entry| entry.metadata());
        sizes.any(|found| found.len() > 1 << 20)
    });
    assert_eq!(std::fs::read_dir(root.join("a")).expect("is there").count(), 1);
}

#[test]
fn in_a_bucket() {
    let server = ok(S3Server::start());
    let proxy = ok(harness::faulty_proxy::FaultyProxy::start(server.address()));
    let location = format!("s3://{BUCKET}/p");
    let putting =
        || proxy.requests().iter().any(|r| r.method == "PUT" && r.at.elapsed().as_secs() >= 1);
    kill_a_put(&location, Some(&proxy.endpoint()), putting);
}
