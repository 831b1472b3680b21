//! Encryption at rest: servers that encrypt their tables and their redo log, by each plugin.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{assert_failed, exit};
use harness::keys::{KeyFile, TOKEN, Vault};
use harness::load::{Load, LoadOptions};
use harness::process;
use harness::proof::{Proof, Step, restore_and_boot};
use harness::scratch::copy_tree;
use harness::tool::BackupOptions;
use harness::{
    ChecksumAlgorithm, Client, Generation, Result, Scratch, Server, ServerOptions, Tool, pages,
};
use innodb::page::crc32c;

/// Stands in tables that are encrypted, and must not be seen in any file.
const SECRET: &str = "no-eye-may-see-this";

/// A server that encrypts everything, while its threads encrypt and decrypt.
fn encrypting(server: ServerOptions) -> ServerOptions {
    server
        .arg("--innodb-encrypt-tables=ON")
        .arg("--innodb-encrypt-log=ON")
        .arg("--innodb-encryption-threads=2")
        .arg("--innodb-encryption-rotate-key-age=1")
}

/// Creates and alters tables with and without keys of their own, and lets the server encrypt and
/// decrypt those that have none, until it is told to stop.
struct Turmoil {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<u32>>,
}

impl Turmoil {
    fn start(server: &Server) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, client) = (Arc::clone(&stop), server.client()?);
        let thread = std::thread::spawn(move || Self::run(client, &asked));
        Ok(Self { stop, thread })
    }

    fn run(mut client: Client, stop: &AtomicBool) -> Result<u32> {
        client.run("CREATE DATABASE enc")?;
        client.run("USE enc")?;
        let mut round = 0;
        while !stop.load(Ordering::SeqCst) {
            for (table, options) in [
                ("y", "ENCRYPTED=YES ENCRYPTION_KEY_ID=2"),
                ("k", "ENCRYPTION_KEY_ID=3"),
                ("n", "ENCRYPTED=NO"),
                ("d", "ROW_FORMAT=REDUNDANT"),
            ] {
                client.run(&format!(
                    "CREATE TABLE {table}{round} (id INT PRIMARY KEY, b TEXT, KEY (b(20))) \
                     ENGINE=InnoDB {options}"
                ))?;
                client.run(&format!(
                    "INSERT INTO {table}{round} SELECT seq, CONCAT('{}', REPEAT(seq, 40)) \
                     FROM seq_1_to_400",
                    if table == "y" { SECRET } else { "a" },
                ))?;
            }
            if round > 0 {
                let old = round - 1;
                client.run(&format!("ALTER TABLE k{old} ENCRYPTED=NO ENCRYPTION_KEY_ID=1"))?;
                client.run(&format!("ALTER TABLE n{old} ENCRYPTED=YES"))?;
                client.run(&format!("DELETE FROM y{old} WHERE id % 3 = 0"))?;
                client.run(&format!("UPDATE d{old} SET b = REPEAT('x', 200) WHERE id % 2 = 0"))?;
            }
            let tables = if round % 2 == 0 { "OFF" } else { "ON" };
            client.run(&format!("SET GLOBAL innodb_encrypt_tables={tables}"))?;
            round += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        client.run("SET GLOBAL innodb_encrypt_tables=ON")?;
        Ok(round)
    }

    fn stop(self) -> Result<u32> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Takes a backup under load and turmoil. The vault's token is in the tool's environment.
fn back_up(tool: &Tool, server: &ServerOptions, seed: u64, dir: &Path) -> Result<()> {
    let source = server.start()?;
    let load = Load::start(&source, &LoadOptions { threads: 2, ..LoadOptions::new(seed) })?;
    let turmoil = Turmoil::start(&source)?;
    std::thread::sleep(Duration::from_millis(1200));
    tool.persistently(|| {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        let mut backup = tool.backup(&source, dir, &BackupOptions::default());
        backup.env("VAULT_TOKEN", TOKEN);
        tool.checked(backup)
    })?;
    assert!(turmoil.stop()? > 1);
    load.stop()?;
    Ok(())
}

fn prepare_with_token(tool: &Tool, dir: &Path) -> Command {
    let mut prepare = tool.prepare(dir, 256 << 20);
    prepare.env("VAULT_TOKEN", TOKEN);
    prepare
}

/// Prepares two copies of a backup by both tools, and compares them.
fn differential(raw: &Path, server: &ServerOptions) -> Result<()> {
    let scratch = Scratch::new()?;
    let (left, right) = (scratch.join("stock"), scratch.join("haulout"));
    copy_tree(raw, &left)?;
    copy_tree(raw, &right)?;
    let stock = Tool::Stock(server.generation);
    stock.checked(prepare_with_token(&stock, &left))?;
    common::haulout().checked(prepare_with_token(&common::haulout(), &right))?;
    let result = pages::compare(&left, &right, server.page_size as usize)?;
    if !result.differences.is_empty() {
        let (report, kept) = (result.report(), scratch.keep());
        anyhow::bail!("kept in {}: {report}", kept.display());
    }
    let changed = pages::compare(raw, &left, server.page_size as usize)?.differences.len();
    assert!(result.files > 50 && result.pages > 2000, "compared too little: {result:?}");
    assert!(changed > 50, "prepare changed {changed} pages only");
    assert_hidden(raw)?;
    assert_hidden(&right)
}

/// No file of the tables that are always encrypted, and no redo, shows what is in them.
fn assert_hidden(dir: &Path) -> Result<()> {
    let shows = |path: &Path| -> Result<bool> {
        let bytes = std::fs::read(path)?;
        Ok(bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()))
    };
    let mut files = vec![dir.join("ib_logfile0")];
    for entry in std::fs::read_dir(dir.join("enc"))? {
        let path = entry?.path();
        if path.file_name().unwrap().to_string_lossy().starts_with('y') {
            files.push(path);
        }
    }
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        assert!(!shows(&file)?, "{} is not encrypted", file.display());
    }
    Ok(())
}

fn both_prepare(tool: &Tool, server: ServerOptions, seed: u64) -> Result<()> {
    let scratch = Scratch::new()?;
    let raw = scratch.join("raw");
    let server = encrypting(server);
    back_up(tool, &server, seed, &raw)?;
    differential(&raw, &server).inspect_err(|_| {
        scratch.keep();
    })
}

#[test]
fn our_backup_prepared_by_both() {
    let keys = KeyFile::plain().unwrap();
    common::ok(both_prepare(&common::haulout(), keys.used_by(ServerOptions::default()), 301));
}

/// The stock tool at times gives up on an encrypted log under load, so its log is plain here.
#[test]
fn stock_backup_prepared_by_both() {
    let keys = KeyFile::plain().unwrap();
    let server = encrypting(keys.used_by(ServerOptions::default())).arg("--innodb-encrypt-log=OFF");
    let scratch = Scratch::new().unwrap();
    let raw = scratch.join("raw");
    common::ok(back_up(&Tool::stock(), &server, 302, &raw));
    let (left, right) = (scratch.join("stock"), scratch.join("haulout"));
    common::ok(copy_tree(&raw, &left));
    common::ok(copy_tree(&raw, &right));
    common::ok(Tool::stock().run_prepare(&left));
    common::ok(common::haulout().run_prepare(&right));
    let result = common::ok(pages::compare(&left, &right, server.page_size as usize));
    assert!(result.differences.is_empty(), "{}", result.report());
    assert!(result.pages > 2000, "compared too little: {result:?}");
}

#[test]
fn an_encrypted_key_file_and_aes_ctr() {
    let keys = KeyFile::encrypted().unwrap();
    common::ok(both_prepare(&common::haulout(), keys.used_by(ServerOptions::default()), 303));
}

#[test]
fn the_older_checksum() {
    let keys = KeyFile::plain().unwrap();
    let server = ServerOptions { checksum: ChecksumAlgorithm::Crc32, ..ServerOptions::default() };
    common::ok(both_prepare(&common::haulout(), keys.used_by(server), 304));
}

#[test]
fn small_and_large_pages() {
    let keys = KeyFile::encrypted().unwrap();
    for page_size in [4 << 10, 64 << 10] {
        let server = ServerOptions { page_size, ..ServerOptions::default() };
        common::ok(both_prepare(&common::haulout(), keys.used_by(server), 305));
    }
}

/// What a page hides from its outer checksum is found by who has the keys.
#[test]
fn a_deeper_check_looks_inside_of_pages() {
    let keys = KeyFile::plain().unwrap();
    let server = encrypting(keys.used_by(ServerOptions::default()));
    let mut source = common::ok(server.start());
    source.run("CREATE DATABASE enc").unwrap();
    source.run("CREATE TABLE enc.y1 (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB").unwrap();
    let fill = "INSERT INTO enc.y1 SELECT seq, REPEAT('b', 500) FROM mysql.seq_1_to_3000";
    source.run(fill).unwrap();
    source.run("SET GLOBAL innodb_fast_shutdown=0").unwrap();
    common::ok(source.stop());
    // One bit of the ciphertext, with a checksum that fits.
    let path = source.datadir().join("enc/y1.ibd");
    let mut file = std::fs::read(&path).unwrap();
    let page = &mut file[20 * 16384..21 * 16384];
    assert_eq!(page[..4], [0, 0, 0, 1]);
    page[16384 - 8] ^= 1;
    let sum = crc32c(&page[..16380]);
    page[16380..].copy_from_slice(&sum.to_be_bytes());
    std::fs::write(&path, file).unwrap();
    common::ok(source.start());

    let scratch = Scratch::new().unwrap();
    common::ok(common::haulout().run_backup(&source, &scratch.join("shallow")));
    let deep = scratch.join("deep");
    let mut command = common::haulout().backup(&source, &deep, &BackupOptions::default());
    command.arg("--deep-check");
    let run = common::ok(process::run(command));
    assert_failed(&run, exit::DAMAGE, &["y1.ibd", "page number=20", "key version 1"]);
    common::assert_no_backup(&deep);
}

/// The stock tool of 10.5 applies what the rotation of keys wrote to a page that was just freed to
/// memory that it never filled, and gives up when that is a compressed page.
const STOCK_FAULT: &str = "Unknown compressed page type";

/// Redo in blocks of 512 bytes, each encrypted by itself. The stock tool of 10.5 does not know what
/// `innodb_encrypt_tables` was, and writes tables that follow it plain; to compare, so do we.
fn blocks_prepared_by_both(seed: u64, keys: &KeyFile) -> Result<()> {
    let scratch = Scratch::new()?;
    let raw = scratch.join("raw");
    let server = encrypting(keys.used_by(ServerOptions::of(Generation::V10_5)));
    back_up(&common::haulout(), &server, seed, &raw)?;
    let settings = raw.join("backup-my.cnf");
    let text = std::fs::read_to_string(&settings)?;
    let text = text.replace("innodb_encrypt_tables=ON", "innodb_encrypt_tables=OFF");
    std::fs::write(&settings, text)?;
    differential(&raw, &server).inspect_err(|_| {
        scratch.keep();
    })
}

#[test]
fn redo_in_blocks() {
    for (seed, keys) in [(307, KeyFile::plain().unwrap()), (308, KeyFile::encrypted().unwrap())] {
        let mut result = blocks_prepared_by_both(seed, &keys);
        for again in 1..4 {
            match &result {
                Err(error) if format!("{error:#}").contains(STOCK_FAULT) => {
                    result = blocks_prepared_by_both(seed + 1000 * again, &keys);
                }
                _ => break,
            }
        }
        common::ok(result);
    }
}

#[test]
fn replica_proof_with_redo_in_blocks() {
    let keys = KeyFile::plain().unwrap();
    proof(314, keys.used_by(ServerOptions::of(Generation::V10_5)));
}

#[test]
fn without_a_change_buffer() {
    let keys = KeyFile::plain().unwrap();
    let server = ServerOptions::of(Generation::V11_8);
    common::ok(both_prepare(&common::haulout(), keys.used_by(server), 309));
}

#[test]
fn keys_of_a_vault_that_change_during_the_backup() {
    let vault = Arc::new(Vault::start().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let (rotating, asked) = (Arc::clone(&vault), Arc::clone(&stop));
    let rotation = std::thread::spawn(move || {
        while !asked.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(400));
            rotating.rotate(1);
            rotating.rotate(2);
        }
    });
    let scratch = Scratch::new().unwrap();
    let raw = scratch.join("raw");
    let server = encrypting(vault.used_by(ServerOptions::default()));
    common::ok(back_up(&common::haulout(), &server, 306, &raw));
    stop.store(true, Ordering::SeqCst);
    rotation.join().unwrap();
    assert!(vault.versions(1) > 2);
    common::ok(differential(&raw, &server));

    // Not all pages have the latest version, so an older one that is gone is missed.
    let wrong = prepare_copy(&raw, &scratch, |command| {
        command.env("VAULT_TOKEN", "s.wrong");
    });
    assert_failed(&wrong, exit::USAGE, &["the redo log", "403"]);
    for version in 1..vault.versions(1) {
        vault.forget(1, version);
    }
    let missing = prepare_copy(&raw, &scratch, |command| {
        command.env("VAULT_TOKEN", TOKEN);
    });
    assert_failed(&missing, exit::USAGE, &["key is missing", "of key 1"]);
}

/// Prepares a new copy of `raw`, which must not have changed when that fails.
fn prepare_copy(
    raw: &Path,
    scratch: &Scratch,
    with: impl FnOnce(&mut Command),
) -> process::Finished {
    let copy = scratch.join("copy");
    let _ = std::fs::remove_dir_all(&copy);
    common::ok(copy_tree(raw, &copy));
    let mut command = common::haulout().prepare(&copy, 256 << 20);
    command.env_remove("VAULT_TOKEN");
    with(&mut command);
    let finished = common::ok(process::run(command));
    if finished.code() != Some(0) {
        let changes: Vec<_> = common::ok(pages::compare_raw(raw, &copy, 16 << 10))
            .differences
            .into_iter()
            // What happened to tables during the backup is settled first, and only once.
            .filter(|difference| !matches!(difference, pages::Difference::OnlyIn { .. }))
            .collect();
        assert!(changes.is_empty(), "{changes:?}");
    }
    finished
}

#[test]
fn wrong_and_missing_keys_are_named_and_change_nothing() {
    let keys = KeyFile::encrypted().unwrap();
    for log in ["ON", "OFF"] {
        let scratch = Scratch::new().unwrap();
        let raw = scratch.join("raw");
        let server = encrypting(keys.used_by(ServerOptions::default()));
        let server = server.arg(format!("--innodb-encrypt-log={log}"));
        let source = common::ok(server.start());
        source.run("CREATE DATABASE enc").unwrap();
        source.run("CREATE TABLE enc.y1 (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB").unwrap();
        let fill = "INSERT INTO enc.y1 SELECT seq, REPEAT('b', 500) FROM mysql.seq_1_to_3000";
        source.run(fill).unwrap();
        common::ok(common::haulout().run_backup(&source, &raw));
        drop(source);

        let other = scratch.join("other");
        std::fs::write(&other, "1;00000000000000000000000000000000\n").unwrap();
        let keys_file = |path: &Path| format!("--keys-file={}", path.display());
        let password = |path: &Path| format!("--keys-password-file={}", path.display());
        let wrong = prepare_copy(&raw, &scratch, |command| {
            command.arg(keys_file(&other));
        });
        assert_failed(&wrong, exit::USAGE, &["wrong encryption key", "version 1 of key 1"]);
        let gone = prepare_copy(&raw, &scratch, |command| {
            command.arg(keys_file(&scratch.join("nowhere")));
        });
        assert_failed(&gone, exit::USAGE, &["its key is missing", "nowhere"]);
        std::fs::write(&other, "wrong\n").unwrap();
        let locked = prepare_copy(&raw, &scratch, |command| {
            command.arg(password(&other));
        });
        assert_failed(&locked, exit::USAGE, &["wrong password"]);
        // The wrong cipher is as good as a wrong key.
        let cipher = prepare_copy(&raw, &scratch, |command| {
            command.arg("--keys-cipher=aes_cbc");
        });
        assert_failed(&cipher, exit::USAGE, &["wrong encryption key"]);

        // The right ones, from another place.
        let moved = scratch.join("moved");
        std::fs::copy(keys.path(), &moved).unwrap();
        let options = scratch.join("server.cnf");
        let text = format!(
            "[mariadb]\nfile_key_management_filename={}\nfile_key_management_filekey=FILE:{}\n",
            moved.display(),
            keys.password_file().display()
        );
        std::fs::write(&options, text).unwrap();
        let right = prepare_copy(&raw, &scratch, |command| {
            command.arg(format!("--keys-defaults-file={}", options.display()));
        });
        assert_eq!(right.code(), Some(0), "{}", right.report());
        let copy = scratch.join("copy");
        let booted =
            common::ok(restore_and_boot(&common::haulout(), &copy, &scratch.join("data"), &server));
        let rows = booted.client().unwrap().scalar("SELECT COUNT(*) FROM enc.y1").unwrap();
        assert_eq!(rows.as_deref(), Some("3000"));
        assert!(booted.logged_errors().unwrap().is_empty());
    }
}

/// A password that stands in the server's configuration itself is read from there, but not
/// written down.
#[test]
fn a_password_of_the_server_does_not_get_into_the_backup() {
    let keys = KeyFile::encrypted().unwrap();
    let server = encrypting(keys.used_by(ServerOptions::default()))
        .arg(format!("--file-key-management-filekey={}", harness::keys::PASSWORD));
    let source = common::ok(server.start());
    let scratch = Scratch::new().unwrap();
    let raw = scratch.join("raw");
    let run = common::ok(common::haulout().run_backup(&source, &raw));
    assert!(!run.stderr.contains(harness::keys::PASSWORD));
    for entry in std::fs::read_dir(&raw).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains(harness::keys::PASSWORD), "{}", path.display());
        }
    }
    let stock = scratch.join("stock");
    common::ok(Tool::stock().run_backup(&source, &stock));
    let settings = std::fs::read_to_string(stock.join("backup-my.cnf")).unwrap();
    assert!(settings.contains(harness::keys::PASSWORD), "mended? the stock tool writes it");
    let without = prepare_copy(&raw, &scratch, |_| {});
    assert_failed(&without, exit::USAGE, &["no password"]);
    let with = prepare_copy(&raw, &scratch, |command| {
        command.env("HAULOUT_KEYS_PASSWORD", harness::keys::PASSWORD);
    });
    assert_eq!(with.code(), Some(0), "{}", with.report());
    assert!(!with.stderr.contains(harness::keys::PASSWORD));
}

fn proof(seed: u64, server: ServerOptions) {
    let mut proof = Proof::new(seed, common::tool());
    // Aria encrypts what is in its tables, not its log.
    proof.server = encrypting(server).arg("--aria-encrypt-tables=ON").arg("--encrypt-binlog=ON");
    let mut turmoil = None;
    let report = proof.run_telling(&mut |step| match step {
        Step::Loaded(source) => turmoil = Some(common::ok(Turmoil::start(source))),
        Step::BackedUp(_) => {
            common::ok(turmoil.take().unwrap().stop());
        }
        _ => {}
    });
    let report = common::ok(report);
    assert!(report.tables > 10 && report.load.changes > 50, "too little happened: {report:?}");
}

#[test]
fn replica_proof_with_aes_cbc() {
    let keys = KeyFile::plain().unwrap();
    for seed in 311..=312 {
        proof(seed, keys.used_by(ServerOptions::default()));
    }
}

#[test]
fn replica_proof_with_aes_ctr_and_the_older_checksum() {
    let keys = KeyFile::encrypted().unwrap();
    let server = ServerOptions { checksum: ChecksumAlgorithm::Crc32, ..ServerOptions::default() };
    proof(313, keys.used_by(server));
}
