//! What scripts do with the stock tools, done by links to `haulout` in their places.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::load::{Load, LoadOptions};
use harness::process::run;
use harness::proof::{self, Proof};
use harness::tool::{BackupOptions, BinlogPosition, looks_like_backup};
use harness::{Result, Scratch, Server, ServerOptions, Tool};

fn links(scratch: &Scratch) -> Result<Tool> {
    let dir = scratch.join("bin");
    std::fs::create_dir(&dir)?;
    Tool::links(Path::new(env!("CARGO_BIN_EXE_haulout")), &dir)
}

/// Runs a line of shell with the links first in its path.
fn shell(scratch: &Scratch, line: &str) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .args(["-o", "pipefail", "-ec", line])
        .current_dir(scratch.path())
        .env("PATH", format!("{}:{path}", scratch.join("bin").display()))
        .stdin(Stdio::null());
    run(command)?.success()?;
    Ok(())
}

fn server_with_rows() -> Result<Server> {
    let server = ServerOptions::default().start()?;
    server.run("CREATE DATABASE d")?;
    server.run("CREATE TABLE d.t (id INT PRIMARY KEY, c VARCHAR(200)) ENGINE=InnoDB")?;
    server.run("INSERT INTO d.t SELECT seq, REPEAT('x', seq % 200) FROM d.seq_1_to_5000")?;
    Ok(server)
}

fn rows(server: &Server) -> Result<Option<String>> {
    Ok(server.client()?.scalar("SELECT COUNT(*) FROM d.t")?)
}

/// The whole proof with nothing but stock options.
#[test]
fn a_copy_made_under_the_stock_names_replicates() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        Proof::new(431, links(&scratch)?).run()?;
        Ok(())
    })());
}

/// The line that hosts, operators and guides use: a stream through a pipe, unpacked beside it.
#[test]
fn a_pipe_into_mbstream_is_a_backup() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        links(&scratch)?;
        let server = ServerOptions::default().start()?;
        proof::create_replication_user(&server)?;
        let load = Load::start(&server, &LoadOptions::new(432))?;
        std::thread::sleep(Duration::from_millis(300));
        let socket = server.socket().display();
        shell(
            &scratch,
            &format!(
                "mkdir b; mariadb-backup --no-defaults --backup --stream=xbstream --parallel=2 \
                 --throttle=0 --user=root --socket={socket} | mbstream -x -p 2 -C b"
            ),
        )?;
        load.stop()?;
        let dir = scratch.join("b");
        let position = BinlogPosition::of_backup(&dir)?;
        shell(
            &scratch,
            "mariadb-backup --prepare --target-dir=b --use-memory=64M
             mariadb-backup --no-defaults --move-back --target-dir=b --datadir=$PWD/copy",
        )?;
        let copy = proof::replica_options(server.options()).start_on(&scratch.join("copy"))?;
        proof::attach(&server, &copy, &position)?;
        proof::ensure_equal(&server, &copy)?;
        Ok(())
    })());
}

/// A configuration file names everything; nothing but the action is on the command line.
#[test]
fn an_option_file_is_enough() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        links(&scratch)?;
        let server = server_with_rows()?;
        server.run("CREATE USER saver@localhost IDENTIFIED BY 'pass#word'")?;
        server
            .run("GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO saver@localhost")?;
        let file = scratch.join("my.cnf");
        let text = format!(
            "[mariadb-backup]\nuser = saver\npassword = 'pass#word'\nsocket = {}\n\
             [mysqld]\ndatadir = {}\n",
            server.socket().display(),
            scratch.join("copy").display()
        );
        std::fs::write(&file, text)?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        shell(
            &scratch,
            "mariadb-backup --defaults-file=my.cnf --backup --target-dir=b
             mariadb-backup --defaults-file=my.cnf --prepare --target-dir=b
             mariadb-backup --defaults-file=my.cnf --copy-back --target-dir=b",
        )?;
        let copy = proof::replica_options(server.options()).start_on(&scratch.join("copy"))?;
        assert_eq!(rows(&copy)?, rows(&server)?);
        Ok(())
    })());
}

/// What was compressed file by file, by the stock tool or by ours, is unpacked and becomes a server.
#[test]
fn compressed_files_are_unpacked() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let ours = links(&scratch)?;
        let server = server_with_rows()?;
        let mut held = Vec::new();
        for (name, tool) in [("stock", Tool::stock()), ("ours", ours.clone())] {
            let dir = scratch.join(name);
            let options =
                BackupOptions { extra: vec!["--compress".into()], ..BackupOptions::default() };
            tool.checked(tool.backup(&server, &dir, &options))?;
            assert!(!dir.join("ibdata1").exists() && dir.join("ibdata1.qp").exists());
            let packed = ours.checked(ours.prepare(&dir, 64 << 20)).err();
            assert!(packed.is_some_and(|e| format!("{e:#}").contains("is compressed")), "{name}");
            shell(
                &scratch,
                &format!(
                    "mariadb-backup --decompress --remove-original --parallel=2 --target-dir={name}"
                ),
            )?;
            let page = std::fs::read(dir.join("ibdata1"))?;
            held.push((page.len(), std::fs::read(dir.join("mysql/proc.frm"))?));
            ours.run_prepare(&dir)?;
            let copy = proof::restore_and_boot(
                &ours,
                &dir,
                &scratch.join(&format!("copy-{name}")),
                server.options(),
            )?;
            assert_eq!(rows(&copy)?, rows(&server)?);
        }
        assert!(held[0] == held[1], "unpacked, the two differ");

        // In the words that scripts know.
        let strange = scratch.join("strange");
        std::fs::create_dir(&strange)?;
        std::fs::write(strange.join("a;touch b.qp"), "foo")?;
        let refused = shell(&scratch, "mariadb-backup --decompress --target-dir=strange 2>said");
        assert!(refused.is_err());
        let said = std::fs::read_to_string(scratch.join("said"))?;
        let lines: Vec<&str> = said.lines().map(|line| line.get(25..).unwrap_or(line)).collect();
        let end = [
            "decompressing ./a;touch b.qp",
            "",
            "Error: invalid file name",
            "",
            "Error: thread 0 failed.",
        ];
        assert!(lines.ends_with(&end), "{said}");
        Ok(())
    })());
}

/// A lock that is not granted in time ends the backup, with nothing that looks like one.
#[test]
fn a_lock_that_is_not_granted_ends_with_its_own_code() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let server = server_with_rows()?;
        let mut holder = server.client()?;
        holder.run("BACKUP STAGE START")?;
        let target = scratch.join("b");
        let options =
            BackupOptions { extra: vec!["--lock-timeout=1s".into()], ..BackupOptions::default() };
        let finished = run(common::haulout().backup(&server, &target, &options))?;
        common::assert_failed(&finished, common::exit::TIMEOUT, &["backup"]);
        assert!(!looks_like_backup(&target));
        holder.run("BACKUP STAGE END")?;
        Ok(())
    })());
}

/// What `--binlog-info` leaves out, and what prepare adds, as with the stock tool.
#[test]
fn the_binary_log_position_is_left_out_when_asked_for() {
    common::ok((|| -> Result<()> {
        let scratch = Scratch::new()?;
        let says = |dir: &Path| -> Result<[String; 3]> {
            let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            let line = |text: String, key: &str| {
                text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned()
            };
            let position = read("xtrabackup_binlog_info");
            let noted = line(read("xtrabackup_info"), "binlog_pos");
            Ok([
                position.split_whitespace().next().unwrap_or_default().to_owned(),
                noted.split("position").next().unwrap_or_default().to_owned(),
                line(read("xtrabackup_checkpoints"), "recover_binlog_info"),
            ])
        };
        let tools = [links(&scratch)?, Tool::Stock(harness::Generation::V10_11)];
        let source = ServerOptions::of(harness::Generation::V10_11).start()?;
        source.run("CREATE DATABASE d")?;
        source.run("CREATE TABLE d.t (a INT PRIMARY KEY)")?;
        source.run("INSERT INTO d.t VALUES (1)")?;
        for word in ["OFF", "LOCKLESS", "ON", "AUTO"] {
            let mut found = Vec::new();
            for (number, tool) in tools.iter().enumerate() {
                let dir = scratch.join(&format!("{word}{number}"));
                let extra = vec![format!("--binlog-info={word}")];
                let options = BackupOptions { extra, ..BackupOptions::default() };
                tool.checked(tool.backup(&source, &dir, &options))?;
                let taken = says(&dir)?;
                tool.run_prepare(&dir)?;
                found.push((taken, says(&dir)?));
            }
            assert_eq!(found[0], found[1], "{word}");
            let has_position = !found[0].0[0].is_empty();
            assert_eq!(has_position, matches!(word, "ON" | "AUTO"), "{word}: {found:?}");
        }
        Ok(())
    })());
}
