//! The program from outside: exit codes, what goes to which stream, and its three names.
//! Needs no server.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_haulout");

/// A command under one of the program's names, with nothing of this machine in its environment.
fn command(name: &str, line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg0(format!("/usr/bin/{name}"))
        .args(line.split_whitespace())
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    command
}

fn run(name: &str, line: &str) -> Output {
    command(name, line).output().unwrap()
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that has refused its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_ends(name: &str, line: &str, code: i32, says: &str) {
    let output = run(name, line);
    let told = err(&output);
    assert_eq!(status(&output), code, "{name} {line}: {told}");
    assert!(told.contains(says), "{name} {line} should say '{says}': {told}");
}

/// `mbstream -c` of these files of `dir`.
fn packed(dir: &Path, files: &str) -> Vec<u8> {
    let output = run("mbstream", &format!("-c -C {} {files}", dir.display()));
    assert_eq!(status(&output), 0, "{}", err(&output));
    output.stdout
}

#[test]
fn help_goes_to_standard_output_and_succeeds() {
    for (name, line, says) in [
        ("haulout", "--help", "haulout backup --target-dir"),
        ("haulout", "backup --help", "haulout backup --stream | ssh"),
        ("haulout", "prepare --help", "haulout prepare /"),
        ("haulout", "restore --help", "haulout restore /"),
        ("haulout", "extract --help", "haulout extract --to"),
        ("haulout", "--version", "haulout 0."),
        ("mariadb-backup", "--help", "--version-check"),
        ("mariabackup", "-?", "mariabackup --prepare"),
        ("mbstream", "--help", "mbstream -x -C"),
    ] {
        let output = run(name, line);
        assert_eq!(status(&output), 0, "{name} {line}");
        assert!(out(&output).contains(says), "{name} {line}: {}", out(&output));
        assert_eq!(err(&output), "", "{name} {line}");
    }
}

#[test]
fn usage_errors_of_haulout_end_with_2() {
    for (line, says) in [
        ("", "Usage"),
        ("bakup", "unrecognized subcommand"),
        ("backup", "--target-dir"),
        ("backup --stream --throttle 100MB", "unknown unit"),
        ("prepare /nonexistent --memory lots", "64MiB"),
        (
            "backup --target-dir /nonexistent/b --defaults-file /nonexistent/my.cnf",
            "/nonexistent/my.cnf",
        ),
    ] {
        assert_ends("haulout", line, 2, says);
    }
}

/// What of two places is meant nobody knows; a variable lies under arguments.
#[test]
fn find_takes_a_repository_or_files() {
    assert_ends("haulout", "binlog find --repo /nowhere /none", 2, "cannot be used with");
    assert_ends("haulout", "binlog find", 2, "neither a repository nor binary logs");
    for (line, says) in [("binlog find", "/nowhere"), ("binlog find /none", "/none")] {
        let output = command("haulout", line).env("HAULOUT_REPO", "/nowhere").output().unwrap();
        assert_ne!(status(&output), 0);
        assert!(err(&output).contains(says), "{line}: {}", err(&output));
    }
}

#[test]
fn errors_carry_advice_and_go_where_documents_go() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), b"abc").unwrap();
    let stream = packed(dir.path(), "a");
    let clash = |line: &str| {
        let line = format!("extract --to {} {line}", dir.path().display());
        with_input(command("haulout", &line), &stream)
    };
    let words = clash("");
    let lines: Vec<String> = err(&words).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with("help: "), "{lines:?}");
    assert_eq!(out(&words), "");
    let json = out(&clash("--json"));
    assert_eq!(json.lines().count(), 1, "{json}");
    let keys =
        ["command\":\"extract", "format\":1", "error\":{", "code\":\"", "message\":", "advice\":"];
    for key in keys {
        assert!(json.contains(&format!("\"{key}")), "{key}: {json}");
    }
}

#[test]
fn errors_as_json_leave_standard_output_to_data() {
    let line = "--defaults-file /nonexistent/my.cnf --json";
    let folder = run("haulout", &format!("backup --target-dir /nonexistent/b {line}"));
    let stream = run("haulout", &format!("backup --stream {line}"));
    assert_eq!((status(&folder), status(&stream)), (2, 2));
    assert_eq!((out(&stream), err(&folder)), (String::new(), String::new()));
    for told in [out(&folder), err(&stream)] {
        assert!(told.contains(r#""code":"usage""#) && told.contains("my.cnf"), "{told}");
    }
    let usage = run("haulout", "backup --json");
    assert_eq!(status(&usage), 2);
    assert!(out(&usage).contains(r#""code":"usage""#), "{}", out(&usage));
}

#[test]
fn variables_lie_under_arguments() {
    let file = |line: &str| {
        let mut command = command("haulout", &format!("backup --stream {line}"));
        err(&command.env("HAULOUT_DEFAULTS_FILE", "/from/variable").output().unwrap())
    };
    assert!(file("").contains("/from/variable"));
    let told = file("--defaults-file /from/argument");
    assert!(told.contains("/from/argument") && !told.contains("/from/variable"), "{told}");
    let mut bad = command("haulout", "prepare /nonexistent");
    let output = bad.env("HAULOUT_MEMORY", "lots").output().unwrap();
    assert_eq!(status(&output), 2, "{}", err(&output));
}

#[test]
fn lines_of_the_stock_face_have_the_stock_shape() {
    let told = err(&run(
        "mariabackup",
        "--no-defaults --backup --innodb-io-capacity=9 -psecret --stream=xbstream --tables=x",
    ));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("mariabackup of haulout"), "{told}");
    for line in &lines[1..] {
        let line = line.replace("FATAL ERROR: ", "");
        let stamp: String =
            line.chars().take(24).map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(stamp, "[99] 9999-99-99 99:99:99", "{told}");
    }
    assert!(told.contains("--innodb-io-capacity: ignored"), "{told}");
    assert!(told.contains("can be seen") && !told.contains("secret"), "{told}");
    assert!(lines.iter().any(|line| line.starts_with("[00] FATAL ERROR: ")), "{told}");
}

#[test]
fn option_files_are_read_by_the_stock_face() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.cnf");
    for (text, code, says) in [
        ("[mariabackup]\nbogus=5\n", 7, "unknown variable 'bogus=5'"),
        ("[mysqld]\nbogus=5\n[mariadb-backup]\nssl-crl=x\n", 1, "'datadir'"),
    ] {
        fs::write(&file, text).unwrap();
        let line = format!("--defaults-file={} --copy-back", file.display());
        assert_ends("mariadb-backup", &line, code, says);
    }
}

#[test]
fn a_stream_never_goes_to_a_terminal() {
    // script(1) gives a program a terminal of its own.
    let line = format!("{PROGRAM} backup --stream --no-defaults --socket /nonexistent.sock");
    let output =
        Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert_eq!(status(&output), 2, "{}", out(&output));
    assert!(out(&output).contains("standard output is a terminal"), "{}", out(&output));
}

#[test]
fn the_stock_face_has_the_stock_exit_codes() {
    for (line, code, says) in [
        ("", 1, "MariaDB server 10.11"),
        ("--version", 0, "haulout"),
        ("--bogus", 2, "mariadb-backup: unknown option '--bogus'"),
        ("--bogus=5", 7, "mariadb-backup: unknown variable 'bogus=5'"),
        ("--target-dir", 5, "requires an argument"),
        ("--use-memory=abc", 9, "suffix"),
        ("--binlog-info=zzz", 13, "Error while setting value"),
        ("--backup --defaults-file=/x", 1, "must be specified first"),
        ("--defaults-file=/nonexistent --backup", 1, "/nonexistent"),
        ("--no-defaults --copy-back --move-back", 1, "mutually exclusive"),
        ("--no-defaults --backup --stream=tar", 1, "Invalid --stream argument: tar"),
        ("--no-defaults --backup stray", 1, "unknown argument: 'stray'"),
        ("--innobackupex --apply-log", 1, "Missing argument"),
        ("--backup --innobackupex", 2, "unknown option '--innobackupex'"),
        ("--no-defaults --backup --innodb-force-recovery", 1, r#"only be used with "--prepare""#),
        ("--no-defaults --copy-back --target-dir=/x", 1, "Please set parameter 'datadir'"),
        ("--prepare --target-dir=/nonexistent", 1, "/nonexistent"),
    ] {
        assert_ends("mariadb-backup", line, code, says);
        let told = err(&run("mariadb-backup", line));
        assert!(!told.contains("completed OK!"), "{line}: {told}");
    }
}

#[test]
fn mbstream_refuses_with_status_1() {
    for (line, says) in [
        ("", "either -c or -x must be specified"),
        ("-x -c", "both -c and -x"),
        ("-c", "no files are specified"),
        ("-c /tmp/.", "name files relative"),
        ("-c nonexistent-file", "nonexistent-file"),
        ("-x -C /nonexistent", "/nonexistent"),
        ("-x C /tmp", "mbstream -x -C DIRECTORY"),
        ("--bogus", "unknown option '--bogus'"),
    ] {
        assert_ends("mbstream", line, 1, says);
    }
    let dir = tempfile::tempdir().unwrap();
    assert_ends("mbstream", &format!("-c -C {} .", dir.path().display()), 1, "cannot be a name");
}

#[test]
fn what_mbstream_packs_every_face_unpacks() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("db")).unwrap();
    fs::write(source.join("big"), vec![7u8; 11 << 20]).unwrap();
    fs::write(source.join("db/empty"), b"").unwrap();
    let stream = packed(&source, "big ./db/empty");
    for (name, to) in [("mbstream", "-xC"), ("haulout", "extract --to")] {
        let target = dir.path().join(name);
        fs::create_dir(&target).unwrap();
        let output = with_input(command(name, &format!("{to} {}", target.display())), &stream);
        assert_eq!(status(&output), 0, "{name}: {}", err(&output));
        assert_eq!(out(&output), "");
        assert_eq!(fs::read(target.join("big")).unwrap(), vec![7u8; 11 << 20]);
        assert_eq!(fs::read(target.join("db/empty")).unwrap(), b"");
    }
}

#[test]
fn an_extraction_tells_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), b"abc").unwrap();
    let stream = packed(dir.path(), "a");
    let extract = |line: &str| {
        let to = dir.path().join(format!("to{line}"));
        with_input(command("haulout", &format!("extract --to {} {line}", to.display())), &stream)
    };
    let words = err(&extract(""));
    assert!(words.contains("Unpacked 1 file, 3 B") && words.contains("haulout prepare"), "{words}");
    assert_eq!(err(&extract("--quiet")), "");
    let json = extract("--json");
    let document = out(&json);
    assert_eq!(document.lines().count(), 1, "{document}");
    for key in [r#""command":"extract""#, r#""files":1"#, r#""bytes":3"#, r#""format":1"#] {
        assert!(document.contains(key), "{key}: {document}");
    }
}

#[test]
fn streams_that_stock_lets_pass_are_failures() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), b"abc").unwrap();
    fs::write(dir.path().join("b"), b"abc").unwrap();
    let stream = packed(dir.path(), "a b");
    let unpack = |stream: &[u8], prepare: &dyn Fn(&Path)| {
        let target = tempfile::tempdir().unwrap();
        prepare(target.path());
        with_input(command("mbstream", &format!("-xC {}", target.path().display())), stream)
    };
    let end_chunk = 8 + 1 + 1 + 4 + 1;
    for (what, output) in [
        ("no end chunk", unpack(&stream[..stream.len() - end_chunk], &|_| ())),
        ("a file exists", unpack(&stream, &|dir| fs::write(dir.join("a"), b"old").unwrap())),
        ("a broken magic", unpack(b"XBSTCK02", &|_| ())),
    ] {
        assert_eq!(status(&output), 1, "{what}: {}", err(&output));
    }
}

#[test]
fn a_closed_pipe_is_an_error_and_no_kill() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), vec![0u8; 1 << 20]).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command("mbstream", &format!("-c -C {} a", dir.path().display()));
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(status(&output), 1, "{:?}", output.status);
    assert!(err(&output).contains("Broken pipe"), "{}", err(&output));
}

/// An extraction that waits for its input.
fn waiting(dir: &Path) -> Child {
    command("haulout", &format!("extract --to {}", dir.display()))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Whether a process has a handler for this signal.
fn listens(pid: u32, signal: u32) -> bool {
    let about = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = about.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) != 0
}

/// Waits until `done` gives something.
fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: waited too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_with_130() {
    for (name, signal) in [("-INT", 2), ("-TERM", 15)] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = waiting(dir.path());
        // Kept open: the end of the input would end the extraction as well.
        let input = child.stdin.take();
        wait_for("a handler", || listens(child.id(), signal).then_some(()));
        Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        let ended = wait_for("the end", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(130), "{name}");
        drop(input);
        let told = err(&child.wait_with_output().unwrap());
        assert!(told.contains("error: interrupted"), "{name}: {told}");
    }
}
