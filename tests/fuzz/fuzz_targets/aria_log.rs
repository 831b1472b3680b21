//! Arbitrary damage to an Aria log and its tables, which a real server wrote.
//!
//! The input is a list of patches: 1 byte which file, 3 bytes where, 1 byte how long, and the bytes.
//! What is recovered must be all or nothing: when the log is left to the server, every file is as
//! it was, and when it is not, a second recovery has nothing to do.

#![no_main]

use std::path::Path;

use engine::Cancel;
use engine::aria::{AriaSummary, recover};
use engine::keys::KeySettings;
use engine::keys::settings::KeyStore;
use engine::report::Silent;
use libfuzzer_sys::fuzz_target;

macro_rules! raw {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../../testdata/aria/10.11/raw/", $name)).as_slice())),*]
    };
}

const FILES: [(&str, &[u8]); 6] =
    raw!["aria_log.00000002", "aria_log_control", "g/a.MAD", "g/a.MAI", "g/s.MAD", "g/s.MAI"];

fuzz_target!(|data: &[u8]| {
    let mut files = FILES.map(|(name, bytes)| (name, bytes.to_vec()));
    patch(&mut files, data);
    let dir = std::env::temp_dir().join(format!("haulout-fuzz-aria-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.join("g")).expect("a directory");
    for (name, bytes) in &files {
        std::fs::write(dir.join(name), bytes).expect("a file");
    }
    match run(&dir) {
        AriaSummary::LeftToServer { .. } => {
            for (name, bytes) in &files {
                assert!(std::fs::read(dir.join(name)).expect("the file") == *bytes, "{name}");
            }
        }
        _ => {
            let again = run(&dir);
            assert!(matches!(again, AriaSummary::Recovered { pages: 0, .. }), "{again:?}");
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
});

fn run(dir: &Path) -> AriaSummary {
    let keys = KeyStore::new(KeySettings::default());
    recover(dir, 32 << 20, &keys, &Cancel::new(), &Silent).expect("only the disk can fail")
}

fn patch(files: &mut [(&str, Vec<u8>)], mut data: &[u8]) {
    while let Some(([which, a, b, c, length], rest)) = data.split_first_chunk() {
        let count = usize::from(*length).min(rest.len());
        let (bytes, rest) = rest.split_at(count);
        data = rest;
        // Most of it in the log.
        let (_, file) = &mut files[usize::from(*which) % 12 % 7 % 6];
        let at = u32::from_be_bytes([0, *a, *b, *c]) as usize % file.len();
        let end = (at + bytes.len()).min(file.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
    }
}
