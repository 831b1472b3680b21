//! The grammar as tables; exit statuses as the stock tool of 10.11.19 gives them.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parse(line: &str) -> Result<Parsed, Refusal> {
    arguments(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>())
}

fn value_of(line: &str, name: &str) -> Option<Value> {
    let parsed = parse(line).unwrap();
    parsed.given.into_iter().rev().find(|given| given.entry.name == name).map(|given| given.value)
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.to_string()))
}

#[test]
fn spellings_of_values() {
    for (line, name, value) in [
        ("--target-dir=/b", "target-dir", text("/b")),
        ("--target_dir /b", "target-dir", text("/b")),
        ("--target-dir=/a --target-dir=/b", "target-dir", text("/b")),
        ("-h/d", "datadir", text("/d")),
        ("-h /d", "datadir", text("/d")),
        ("-VuP", "user", text("P")),
        ("-P 3307", "port", Some(Value::Number(3307))),
        ("--use-memory=128M", "use-memory", Some(Value::Number(128 << 20))),
        ("--use-memory=1g", "use-memory", Some(Value::Number(1 << 30))),
        ("--parallel=", "parallel", Some(Value::Number(0))),
        ("--backup", "backup", Some(Value::On)),
        ("--backup=0", "backup", Some(Value::Off)),
        ("--skip-backup", "backup", Some(Value::Off)),
        ("--skip-backup=0", "backup", Some(Value::On)),
        ("--disable-rocksdb-backup", "rocksdb-backup", Some(Value::Off)),
        ("--enable-backup", "backup", Some(Value::On)),
        ("--loose-backup=TRUE", "backup", Some(Value::On)),
        ("--backup=maybe", "backup", None),
        ("--history --backup", "history", Some(Value::On)),
        ("--history=x", "history", text("x")),
        ("--binlog-info=LOCKLESS", "binlog-info", text("lockless")),
        ("--binlog-info=1", "binlog-info", text("lockless")),
        ("--stream --backup", "stream", text("--backup")),
        ("--mysqld-args --bogus --bogus=5 stray --datadir=/d", "datadir", text("/d")),
        ("--user=b --mysqld-args --user=mysql -u x", "user", text("b")),
        ("--mysqld-args --tables=x --galera-info --port 5 -h/d", "datadir", text("/d")),
        ("--mysqld-args --galera-info --skip-rocksdb-backup", "galera-info", None),
        ("--maximum-parallel=5", "parallel", None),
    ] {
        assert_eq!(value_of(line, name), value, "{line}");
    }
}

#[test]
fn exit_statuses() {
    for (line, status) in [
        ("--bogus", 2),
        ("--skip-bogus", 2),
        ("-Z", 2),
        ("--backup --innobackupex", 2),
        ("--bogus=5", 7),
        ("--targ=/x", 7),
        ("--skip-bogus=1", 7),
        ("--target-dir", 5),
        ("-p", 5),
        ("--use-memory=abc", 9),
        ("--use-memory=1x", 9),
        ("--parallel=2.5", 9),
        ("--parallel=99999999999999999999", 13),
        ("--parallel=16E", 13),
        ("--parallel=-1", 13),
        ("--binlog-info=zzz", 13),
    ] {
        assert_eq!(parse(line).unwrap_err().status, status, "{line}");
    }
}

#[test]
fn unknown_options_are_refused_in_the_stock_words() {
    assert_eq!(parse("--bogus").unwrap_err().message, "unknown option '--bogus'");
    assert_eq!(parse("--bogus=5").unwrap_err().message, "unknown variable 'bogus=5'");
    let message = "option '--target-dir' requires an argument";
    assert_eq!(parse("--target-dir").unwrap_err().message, message);
}

#[test]
fn loose_options_are_noted_and_bare_arguments_kept() {
    let parsed = parse("--loose-bogus=5 foo - -- --bar").unwrap();
    assert_eq!(parsed.notes, ["unknown option '--loose-bogus'"]);
    assert_eq!(parsed.bare, ["foo", "--bar"]);
}

#[test]
fn passwords_are_not_shown() {
    for (line, shown) in [
        ("--password=secret --backup", "--password=... --backup"),
        ("--password secret", "--password ..."),
        ("-psecret -uroot", "-p... -uroot"),
        ("-p secret", "-p ..."),
        ("-Vpsecret", "-Vp..."),
        ("--loose-password=secret", "--loose-password=..."),
        ("--mysqld-args --password=secret", "--mysqld-args --password=..."),
    ] {
        assert_eq!(parse(line).unwrap().shown.join(" "), shown);
    }
}

proptest! {
    #[test]
    fn any_arguments_are_answered(
        list in proptest::collection::vec("-{0,2}[a-zA-Z_=0-9-]{0,20}", 0..6)
    ) {
        let _ = arguments(&list);
    }

    #[test]
    fn a_password_is_never_shown(secret in "[a-z]{12}", form in 0usize..5) {
        let list = match form {
            0 => vec![format!("--password={secret}")],
            1 => vec!["--password".to_string(), secret.clone()],
            2 => vec![format!("-p{secret}")],
            3 => vec!["-p".to_string(), secret.clone()],
            _ => vec![format!("-V?p{secret}")],
        };
        let shown = arguments(&list).unwrap().shown.join(" ");
        prop_assert!(!shown.contains(&secret), "{}", shown);
    }
}
