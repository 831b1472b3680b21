//! Tables of command lines, and what every help text must hold.
#![allow(clippy::unwrap_used)]

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> std::result::Result<Haulout, clap::Error> {
    Haulout::try_parse_from(std::iter::once("haulout").chain(line.split_whitespace()))
}

#[test]
fn the_grammar_is_sound() {
    Haulout::command().debug_assert();
}

#[test]
fn accepted() {
    for line in [
        "backup --target-dir /b",
        "backup --stream --parallel 8 --throttle 100MiB --lock-timeout 60s",
        "backup --stream --continue-on-corrupt-pages --spool-dir /s --quiet --skip-rocksdb",
        "backup --target-dir=/b --defaults-file /f --host h --port 3306 --user u",
        "backup --target-dir=/b --no-defaults --socket /s --ssl-ca /ca --ssl-verify-server-cert",
        "--json backup --stream",
        "prepare /b",
        "prepare /b --memory 1GiB --parallel 2 --verbose",
        "prepare /b --export",
        "restore /b --to /d --move --force-non-empty --owner 1:2",
        "restore /b --to /d --innodb-data-home-dir /h --innodb-undo-directory /u \
         --innodb-log-group-home-dir /l --aria-log-dir-path /a --innodb-data-file-path ibdata1:12M \
         --rocksdb-datadir /r --rocksdb-wal-dir /w",
        "extract --to /d --parallel 3 --json",
        "backup --repo s3://b/p --compress zstd:3 --key-file /k --store-memory 1GiB",
        "restore @2026-01-31T12:00:00Z --repo /r --to /d --plan",
        "get-stream 1a2b --repo /r --key-fd 3",
        "expire --repo /r --keep-within 4w --keep-yearly 3 --delete",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn refused() {
    for (line, named) in [
        ("", "Usage"),
        ("bakup", "bakup"),
        ("backup --stream --repo r", "cannot be used"),
        ("backup --repo r --compress lz4:3", "no levels"),
        ("restore LATEST --repo r --to /d --move", "cannot be used"),
        ("restore /b --to /d --plan", "--repo"),
        ("restore @noon --to", "--to"),
        ("verify --repo r --sample 0", "above 0"),
        ("verify --repo r --sample 5 --deep", "cannot be used"),
        ("keep --repo r", "BACKUP"),
        ("key", "Usage"),
        ("backup --stream --target-dir /b", "cannot be used"),
        ("backup --stream --parallel 0", "from 1 to 1024"),
        ("backup --stream --throttle 100MB", "unknown unit 'MB'"),
        ("backup --stream --throttle 0", "at least one byte"),
        ("backup --stream --lock-timeout 60", "needs a unit"),
        ("backup --stream --no-defaults --defaults-file /f", "cannot be used"),
        ("backup --stream --password x", "--password"),
        ("backup --stream --json --quiet --verbose", "cannot be used"),
        ("prepare", "DIR"),
        ("prepare /b --memory lots", "a number and a unit"),
        ("restore /b", "--to"),
        ("restore /b --to /d --owner nobody-of-this-name:x", "there is no user"),
        ("extract", "--to"),
        ("extract --to /d stray", "stray"),
    ] {
        let message = parse(line).unwrap_err().to_string();
        assert!(message.contains(named), "'{line}' says: {message}");
    }
}

#[test]
fn arguments_become_options() {
    let haulout = parse("backup --stream --throttle 1M --lock-timeout 2m").unwrap();
    assert!(haulout.command.writes_stdout());
    let text = format!("{:?}", haulout.command);
    assert!(text.contains("Size(1048576)") && text.contains("lock_timeout: 120s"), "{text}");
    assert!(!parse("backup --target-dir /b").unwrap().command.writes_stdout());
}

#[test]
fn every_help_has_an_example_and_every_option_a_word() {
    let haulout = Haulout::command();
    for command in std::iter::once(&haulout).chain(haulout.get_subcommands()) {
        let name = command.get_name();
        let help = command.clone().render_long_help().to_string();
        let begins =
            if name == "haulout" { "haulout backup".into() } else { format!("haulout {name}") };
        assert!(help.contains("Examples:") && help.contains(&begins), "{name}: {help}");
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{name}: {} is not explained",
                argument.get_id()
            );
        }
    }
}

#[test]
fn every_example_parses() {
    let haulout = Haulout::command();
    let mut seen = 0;
    for command in std::iter::once(&haulout).chain(haulout.get_subcommands()) {
        let examples = command.get_after_help().unwrap().to_string();
        let lines =
            examples.lines().filter(|line| line.starts_with("  ") && line.contains("haulout"));
        for part in lines.flat_map(|line| line.split('|')) {
            let Some((_, call)) = part.split_once("haulout ") else { continue };
            // The owner of an example need not exist on the machine that runs the tests.
            let call = call.split('<').next().unwrap().replace("mysql:mysql", "0:0");
            assert!(parse(&call).is_ok(), "{call}: {}", parse(&call).unwrap_err());
            seen += 1;
        }
    }
    assert!(seen >= 11, "{seen} examples");
}

#[test]
fn paths_are_quoted_for_the_shell() {
    for (path, text) in
        [("/b/x-1.d", "/b/x-1.d"), ("/b c", "'/b c'"), ("it's", r"'it'\''s'"), ("", "''")]
    {
        assert_eq!(quoted(path.as_ref()), text);
    }
}
