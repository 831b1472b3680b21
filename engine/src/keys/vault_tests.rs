//! Against a small HTTP server that answers as Vault does.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const TOKEN: &str = "s.secret";
const KEY_1: &str = "0123456789abcdef0123456789ABCDEF";
const KEY_2: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// A vault with two versions of key 5. Answers every request on its own connection; the first
/// `deaf` ones not at all.
struct Vault {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    fn start(deaf: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/mariadb/", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                if number >= deaf {
                    let _ = Self::answer(stream);
                }
            }
        });
        Self { url, asked }
    }

    fn answer(stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(&stream).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let mut known = false;
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            known |= line.to_lowercase() == format!("x-vault-token: {TOKEN}");
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match path {
            _ if !known => ("403 Forbidden", r#"{"errors":["permission denied"]}"#.to_owned()),
            "/v1/mariadb/data/5" | "/v1/mariadb/data/5?version=2" => ("200 OK", answer(2, KEY_2)),
            "/v1/mariadb/data/5?version=1" => ("200 OK", answer(1, KEY_1)),
            "/v1/mariadb/data/6" => ("200 OK", "{}".to_owned()),
            "/v1/mariadb/data/7" => ("200 OK", answer(1, &"0".repeat(200_000))),
            _ => ("404 Not Found", r#"{"errors":[]}"#.to_owned()),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close");
        (&stream).write_all(format!("{head}\r\n\r\n{body}").as_bytes())
    }

    fn keys(&self, token: &str, retries: u32) -> VaultKeys {
        VaultKeys::new(VaultOptions {
            url: self.url.clone(),
            token: Secret::new(token.to_owned()),
            ca: None,
            timeout: Duration::from_secs(5),
            retries,
        })
        .unwrap()
    }
}

fn answer(version: u32, key: &str) -> String {
    format!(
        r#"{{"request_id":"x","data":{{"data":{{"data":"{key}"}},"metadata":{{"version":{version},"destroyed":false}}}}}}"#
    )
}

#[test]
fn versions_are_asked_for_once() {
    let vault = Vault::start(0);
    let keys = vault.keys(TOKEN, 0);
    for _ in 0..3 {
        assert_eq!(keys.latest(5).unwrap(), 2);
        assert_eq!(Some(keys.key(5, 2).unwrap()), Key::from_hex(KEY_2));
        assert_eq!(Some(keys.key(5, 1).unwrap()), Key::from_hex(KEY_1));
    }
    assert_eq!(vault.asked.load(Ordering::SeqCst), 2);
    assert!(matches!(keys.key(5, 3), Err(KeyError::NoSuchVersion { id: 5, version: 3, .. })));
    assert!(matches!(keys.latest(9), Err(KeyError::NoSuchKey { id: 9, .. })));
    assert_eq!(keys.mode(), CipherMode::Cbc);
}

#[test]
fn refusals_and_nonsense_are_errors_that_show_no_secret() {
    let vault = Vault::start(0);
    let error = vault.keys("s.wrong", 0).latest(5).unwrap_err().to_string();
    assert!(error.contains("403") && !error.contains("s.wrong"), "{error}");
    let keys = vault.keys(TOKEN, 0);
    for id in [6, 7] {
        let error = keys.latest(id).unwrap_err().to_string();
        assert!(!error.contains(TOKEN) && !error.contains("000"), "{error}");
    }
    assert!(!format!("{keys:?}").contains(TOKEN));
}

#[test]
fn no_answer_is_no_answer_only_after_some_tries() {
    assert_eq!(Vault::start(2).keys(TOKEN, 2).latest(5).unwrap(), 2);
    let vault = Vault::start(2);
    assert!(matches!(vault.keys(TOKEN, 1).latest(5), Err(KeyError::Unusable { .. })));
    assert_eq!(vault.asked.load(Ordering::SeqCst), 2);
}

#[test]
fn addresses() {
    for good in ["http://h/v1/m", "https://h:8200/v1/a/b", "http://u:p@h//v1//m"] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for bad in
        ["", "h/v1/m", "file:///v1/m", "http:///v1/m", "http://h", "http://h/v1", "http://h/v2/m"]
    {
        assert!(check_url(bad).is_err(), "{bad}");
    }
    assert_eq!(place("http://u:p@h:1/v1/m@x"), "the vault http://h:1/v1/m@x");
}

proptest! {
    #[test]
    fn no_answer_panics(body: Vec<u8>, key in "[0-9a-zA-Z\"\\\\]{0,70}", version: u64) {
        let _ = parse_answer(&body);
        let _ = parse_answer(answer(version as u32, &key).as_bytes());
    }
}
