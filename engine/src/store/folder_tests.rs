#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;
use crate::report::Silent;

fn store(root: &Path) -> FolderStore {
    FolderStore::open(root, &StoreOptions::default(), Arc::new(Silent)).unwrap()
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(store: &FolderStore, name: &str, body: &'static [u8], only_if_absent: bool) -> Put {
    let options = PutOptions { only_if_absent, ..PutOptions::default() };
    store.put(&key(name), body.into(), &options, &Cancel::new()).unwrap()
}

fn get(store: &FolderStore, name: &str) -> Bytes {
    store.get(&key(name), None, 100, &Cancel::new()).unwrap()
}

fn names(store: &FolderStore) -> Vec<String> {
    let found = store.list("", &Cancel::new()).unwrap();
    found.into_iter().map(|object| object.key.as_str().to_owned()).collect()
}

#[test]
fn a_file_system_without_links_or_new_renames_is_looked_at_first() {
    let dir = tempfile::tempdir().unwrap();
    for naming in [Naming::Rename, Naming::Link, Naming::Look] {
        let store = store(dir.path());
        store.naming.set(naming).unwrap();
        let name = format!("{naming:?}");
        assert_eq!(put(&store, &name, b"one", true), Put::Stored);
        assert_eq!(put(&store, &name, b"two", true), Put::AlreadyThere);
        assert_eq!(put(&store, &name, b"one", true), Put::Stored, "it is the same");
        assert_eq!(get(&store, &name), &b"one"[..]);
        assert_eq!(store.guards(&Cancel::new()).unwrap(), naming != Naming::Look);
    }
    let left = store(dir.path()).leftovers(Duration::ZERO, false, &Cancel::new()).unwrap();
    assert_eq!(left, []);
}

#[test]
fn of_many_writers_one_wins_and_readers_see_whole_objects() {
    let dir = tempfile::tempdir().unwrap();
    for naming in [Naming::Rename, Naming::Link] {
        let store = store(dir.path());
        store.naming.set(naming).unwrap();
        let (won, at) = (AtomicUsize::new(0), key(&format!("x/{naming:?}")));
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let (store, won, at) = (&store, &won, &at);
                scope.spawn(move || {
                    let body = Body::from(vec![writer; 3 << 20]);
                    let options = PutOptions { only_if_absent: true, ..PutOptions::default() };
                    if store.put(at, body, &options, &Cancel::new()).unwrap() == Put::Stored {
                        won.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
        let found = store.get(&at, None, 3 << 20, &Cancel::new()).unwrap();
        assert!(found.len() == 3 << 20 && found.iter().all(|byte| *byte == found[0]));
    }
}

#[test]
fn what_is_not_an_object_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    let store = store(dir.path());
    let _ = put(&store, "a/b", b"1", false);
    fs::write(dir.path().join("with space"), "x").unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("lost+found/x"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("a/link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("secret")).unwrap();
    rustix::fs::mknodat(CWD, dir.path().join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert_eq!(names(&store), ["a/b"]);
    for name in ["secret", "pipe", "a"] {
        let error = store.get(&key(name), None, 100, &Cancel::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store, "{name}: {error}");
        assert_eq!(store.head(&key(name), &Cancel::new()).unwrap(), None, "{name}");
    }
    assert_eq!(store.list_folders("", &Cancel::new()).unwrap(), ["a"]);
}

#[test]
fn leftovers_of_killed_puts_are_no_objects_and_go_away_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let _ = put(&store, "a/b", b"1", false);
    let temporary = store.temporary(&dir.path().join("c/d/e")).unwrap();
    let left = temporary.into_temp_path().keep().unwrap();
    assert_eq!(names(&store), ["a/b"]);
    let look = |age, remove| store.leftovers(age, remove, &Cancel::new()).unwrap();
    assert_eq!(look(Duration::from_secs(3600), true), []);
    let found = look(Duration::ZERO, false);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, left.display().to_string());
    assert!(left.exists());
    assert_eq!(look(Duration::ZERO, true), found);
    assert!(!left.exists() && !dir.path().join("c").exists());
    assert_eq!(names(&store), ["a/b"]);
}

#[test]
fn a_folder_that_is_gone_is_not_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mount");
    let open = |options: &StoreOptions| FolderStore::open(&root, options, Arc::new(Silent));
    let error = open(&StoreOptions::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.advice().unwrap().contains("mount"), "{error}");
    let store = open(&StoreOptions { create_folder: true, ..StoreOptions::default() }).unwrap();
    let _ = put(&store, "a/b", b"1", false);
    store.delete(&[key("a/b"), key("a/b"), key("c")], &Cancel::new()).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "empty directories go with what they held");

    fs::remove_dir(&root).unwrap();
    let cancel = Cancel::new();
    let plain = PutOptions::default();
    let errors = [
        store.put(&key("a"), Body::default(), &plain, &cancel).unwrap_err(),
        store.get(&key("a"), None, 1, &cancel).unwrap_err(),
        store.head(&key("a"), &cancel).unwrap_err(),
        store.list("", &cancel).unwrap_err(),
        store.delete(&[key("a")], &cancel).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Store, "{error}");
        assert!(error.to_string().contains("mount"), "{error}");
    }
}

#[test]
fn directories_may_vanish_under_a_put() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    std::thread::scope(|scope| {
        for name in ["x/y/one", "x/y/two"] {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..50 {
                    let _ = put(store, name, b"1", false);
                    store.delete(&[key(name)], &Cancel::new()).unwrap();
                }
            });
        }
    });
    assert_eq!(names(&store), [""; 0]);
}

#[test]
fn bandwidth_is_kept_and_a_slow_put_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { bandwidth: Some(10 << 20), ..StoreOptions::default() };
    let store = FolderStore::open(dir.path(), &options, Arc::new(Silent)).unwrap();
    let began = Instant::now();
    let body = Body::from(vec![1; 5 << 20]);
    let _ = store.put(&key("a"), body, &PutOptions::default(), &Cancel::new()).unwrap();
    let took = began.elapsed().as_secs_f64();
    assert!((0.25..2.0).contains(&took), "{took} s");

    let cancel = Cancel::new();
    let error = std::thread::scope(|scope| {
        let put = scope.spawn(|| {
            let body = Body::from(vec![1; 100 << 20]);
            store.put(&key("b"), body, &PutOptions::default(), &cancel).unwrap_err()
        });
        std::thread::sleep(Duration::from_millis(100));
        cancel.cancel();
        put.join().unwrap()
    });
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(names(&store), ["a"]);
    let left = store.leftovers(Duration::ZERO, false, &Cancel::new()).unwrap();
    assert_eq!(left, []);
}
