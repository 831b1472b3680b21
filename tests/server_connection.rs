//! The engine's server connection against a real server: logins, TLS, locks, cancelling.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use engine::metadata::{BackupMyCnf, BinlogInfo, Naming};
use engine::server::feed::{Source, Wanted};
use engine::server::position::ReplicationPosition;
use engine::server::privileges::{self, Needs};
use engine::server::profile::ServerProfile;
use engine::server::stages::{BackupStages, Stage, lock_table, unlock_table};
use engine::server::{ConnectOptions, Session, TlsOptions, Wait, lsn};
use engine::{Cancel, ErrorKind};
use harness::{Generation, Scratch, Server, ServerOptions};

const SHORT: Duration = Duration::from_secs(2);

fn wait() -> Wait<'static> {
    Wait::short("testing")
}

fn plain() -> ServerOptions {
    ServerOptions { binlog: false, ..Default::default() }
}

fn logged() -> ServerOptions {
    ServerOptions { server_id: 7, ..Default::default() }
}

/// A server with a database `test`. Anonymous accounts of a fresh server would hide accounts
/// for any host.
fn start(options: ServerOptions) -> Server {
    let server = options.start().unwrap();
    server.run("DELETE FROM mysql.global_priv WHERE user=''").unwrap();
    server.run("FLUSH PRIVILEGES").unwrap();
    server.run("CREATE DATABASE test").unwrap();
    server
}

fn root(server: &Server) -> ConnectOptions {
    ConnectOptions {
        socket: Some(server.socket().to_owned()),
        user: Some("root".into()),
        ..Default::default()
    }
}

fn tcp(server: &Server, user: &str, password: &str) -> ConnectOptions {
    ConnectOptions {
        host: Some("127.0.0.1".into()),
        port: Some(server.port()),
        user: Some(user.into()),
        password: Some(password.into()),
        ..Default::default()
    }
}

fn connect(options: &ConnectOptions) -> Session {
    Session::connect(options, &Cancel::new()).unwrap()
}

fn run(session: &mut Session, statements: &[&str]) {
    for statement in statements {
        session.execute(statement, wait()).unwrap();
    }
}

/// What the program says.
fn openssl(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("openssl").current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Two authorities, and a server certificate for 127.0.0.1 signed by the first.
fn make_certificates(dir: &Path) {
    let openssl = |args: &[&str]| openssl(dir, args);
    for (key, certificate) in [("ca.key", "ca.pem"), ("other.key", "other-ca.pem")] {
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test CA",
            "-keyout",
            key,
            "-out",
            certificate,
        ]);
    }
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=server",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ]);
    let extensions = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
    std::fs::write(dir.join("extensions"), extensions).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "extensions",
        "-out",
        "server.pem",
    ]);
}

#[test]
fn socket_login_reads_the_profile_and_lsns() {
    let server = start(logged());
    let mut session = connect(&root(&server));
    let profile = ServerProfile::read(&mut session).unwrap();
    assert_eq!(profile.datadir, server.datadir());
    assert_eq!(profile.innodb_undo_directory, server.datadir());
    assert_eq!(profile.aria_log_dir_path, server.datadir());
    assert_eq!(profile.page_size.bytes(), 16384);
    assert_eq!(profile.server_id, 7);
    assert!(profile.log_bin);
    assert!(profile.encryption.plugins.is_empty());
    let new_names = harness::Generation::under_test() >= harness::Generation::V11_8;
    let naming = if new_names { Naming::MariadbBackup } else { Naming::Xtrabackup };
    assert_eq!(profile.naming(), naming);

    let before = lsn::redo_state(&mut session).unwrap();
    assert!(before.flushed <= before.current);
    run(&mut session, &["CREATE TABLE test.t (a INT) ENGINE=InnoDB"]);
    lsn::flush_engine_logs(&mut session, wait()).unwrap();
    assert!(lsn::flushed_lsn(&mut session).unwrap() > before.current);
    // The variable came with 10.6.
    let knows_checkpoints = harness::Generation::under_test() >= harness::Generation::V10_11;
    assert_eq!(lsn::request_checkpoint(&mut session, wait()).unwrap(), knows_checkpoints);

    let rows = session.query("SELECT NULL AS a, X'00FF' AS b, 12 AS c", wait()).unwrap();
    assert_eq!(rows[0].bytes("a"), None);
    assert_eq!(rows[0].bytes("B"), Some(&[0, 255][..]));
    assert_eq!(rows[0].number("c"), Some(12));
}

#[test]
fn settings_file_of_a_real_server_reads_back() {
    let server = start(plain());
    let profile = ServerProfile::read(&mut connect(&root(&server))).unwrap();
    let settings = BackupMyCnf::from_profile(&profile).unwrap();
    assert_eq!(BackupMyCnf::parse(&settings.to_text()), Ok(settings));
}

#[test]
fn position_names_every_domain() {
    let server = start(logged());
    let mut session = connect(&root(&server));
    run(
        &mut session,
        &[
            "RESET MASTER",
            "SET GLOBAL gtid_slave_pos='5-5-55'",
            "CREATE TABLE test.own (a INT)",
            "SET SESSION gtid_domain_id=3, server_id=99",
            "CREATE TABLE test.foreign_server (a INT)",
        ],
    );
    let profile = ServerProfile::read(&mut session).unwrap();
    let position = ReplicationPosition::read(&mut session, &profile).unwrap();
    // The server's own word lacks domain 3, whose transaction has the id of another server.
    assert_eq!(position.current_pos.to_string(), "0-7-1,5-5-55");
    assert_eq!(position.gtid.to_string(), "0-7-1,3-99-1,5-5-55");
    assert_eq!(position.binlog_state.position(), position.binlog_pos);
    let info = BinlogInfo::from_position(&position).unwrap();
    assert!(info.to_text().starts_with("binlog.000001\t"), "{}", info.to_text());
    let offset = session.query("SHOW MASTER STATUS", wait()).unwrap()[0].number("Position");
    assert_eq!(offset, Some(info.position.offset()));
}

#[test]
fn position_without_a_binary_log() {
    let server = start(plain());
    let mut session = connect(&root(&server));
    let profile = ServerProfile::read(&mut session).unwrap();
    assert!(!profile.log_bin);
    let position = ReplicationPosition::read(&mut session, &profile).unwrap();
    assert_eq!(position, ReplicationPosition::default());
    assert_eq!(BinlogInfo::from_position(&position), None);
}

#[test]
fn missing_privileges_are_named_with_the_statement_that_helps() {
    let server = start(logged());
    let mut admin = connect(&root(&server));
    run(&mut admin, &["CREATE USER b@localhost IDENTIFIED BY 'b1'"]);
    let options =
        ConnectOptions { user: Some("b".into()), password: Some("b1".into()), ..root(&server) };
    let check = || {
        let mut session = connect(&options);
        let profile = ServerProfile::read(&mut session).unwrap();
        privileges::check(&mut session, &profile, Needs { rocksdb: true, ..Needs::default() })
    };
    let error = check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.to_string().contains("missing required privilege RELOAD"), "{error}");
    let advice = error.advice().unwrap();
    let statement = advice.strip_prefix("run: ").unwrap();
    assert_eq!(statement, "GRANT RELOAD, PROCESS, BINLOG MONITOR ON *.* TO 'b'@'localhost';");
    run(&mut admin, &[statement.trim_end_matches(';')]);
    assert_eq!(check().unwrap().len(), 1, "the lack of SELECT is only warned about");

    // What the check asks for is what the statements need.
    let mut session = connect(&options);
    let profile = ServerProfile::read(&mut session).unwrap();
    ReplicationPosition::read(&mut session, &profile).unwrap();
    lsn::redo_state(&mut session).unwrap();
    lsn::flush_engine_logs(&mut session, wait()).unwrap();
    assert!(!lsn::request_checkpoint(&mut session, wait()).unwrap());
    let mut stages = BackupStages::open(&options, &Cancel::new(), SHORT, false).unwrap();
    stages.start().unwrap();
    stages.lock_table("mysql", "db").unwrap();
    stages.block_commit().unwrap();
    stages.end().unwrap();

    // What is asked for besides needs more, and a backup without locks less.
    let replicates = Needs { replica_info: true, hold_replication: true, ..Needs::default() };
    let error = privileges::check(&mut session, &profile, replicates).unwrap_err();
    for name in ["SLAVE MONITOR", "REPLICATION SLAVE ADMIN"] {
        assert!(error.to_string().contains(&format!("missing required privilege {name}")));
    }
    run(&mut admin, &["REVOKE RELOAD, PROCESS ON *.* FROM b@localhost"]);
    let unlocked = Needs { without_locks: true, ..Needs::default() };
    assert_eq!(privileges::check(&mut session, &profile, unlocked).unwrap().len(), 1);
}

#[test]
fn privileges_of_a_role_count_when_it_is_active() {
    let server = start(plain());
    run(
        &mut connect(&root(&server)),
        &[
            "CREATE ROLE backup",
            "GRANT RELOAD, PROCESS, SELECT ON *.* TO backup",
            "CREATE USER b@localhost IDENTIFIED BY 'b1'",
            "GRANT backup TO b@localhost",
        ],
    );
    let options =
        ConnectOptions { user: Some("b".into()), password: Some("b1".into()), ..root(&server) };
    let mut session = connect(&options);
    let profile = ServerProfile::read(&mut session).unwrap();
    let error =
        privileges::check(&mut session, &profile, Needs { rocksdb: true, ..Needs::default() })
            .unwrap_err();
    assert!(error.advice().unwrap().contains("SET DEFAULT ROLE"));
    run(&mut session, &["SET ROLE backup"]);
    assert!(
        privileges::check(&mut session, &profile, Needs { rocksdb: true, ..Needs::default() })
            .unwrap()
            .is_empty()
    );
}

#[test]
fn first_statement_lifts_the_session_limits() {
    let server = start(plain().arg("--max-statement-time=5").arg("--wait-timeout=60"));
    let mut session = connect(&root(&server));
    let limits = session.query("SELECT @@wait_timeout AS w, @@max_statement_time AS m", wait());
    let limits = limits.unwrap();
    assert_eq!(limits[0].number("w"), Some(2_147_483));
    assert_eq!(limits[0].text("m").unwrap(), "0.000000");
}

/// How the accounts of a server log in, and what they are named.
fn accounts() -> Vec<(&'static str, &'static str)> {
    let mut accounts = vec![("mysql_native_password", "n"), ("ed25519", "e")];
    if Generation::under_test() >= Generation::V11_8 {
        accounts.push(("parsec", "p"));
    }
    accounts
}

/// A server with these accounts, whose passwords are theirs with a 1.
fn start_with_accounts(options: ServerOptions) -> Server {
    let server = start(options);
    let mut session = connect(&root(&server));
    for (plugin, user) in accounts() {
        if plugin != "mysql_native_password" {
            run(&mut session, &[&format!("INSTALL SONAME 'auth_{plugin}'")]);
        }
        run(
            &mut session,
            &[
                &format!(
                    "CREATE USER {user}@'%' IDENTIFIED VIA {plugin} USING PASSWORD('{user}1')"
                ),
                &format!("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {user}@'%'"),
            ],
        );
    }
    server
}

#[test]
fn passwords_over_tcp() {
    let server = start_with_accounts(plain());
    for (plugin, user) in accounts() {
        let mut session = connect(&tcp(&server, user, &format!("{user}1")));
        let who = session.value("SELECT CURRENT_USER()", wait()).unwrap();
        assert_eq!(who.unwrap(), format!("{user}@%"));
        for wrong in ["wrong", ""] {
            let refused = Session::connect(&tcp(&server, user, wrong), &Cancel::new()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Server, "{plugin}");
            assert!(refused.to_string().contains("1045"), "{plugin}: {refused}");
            assert!(refused.advice().unwrap().contains("password"));
            assert!(!refused.to_string().contains("wrong"));
        }
    }
}

/// What a server wants signed is random: in one of 256 logins it ends with a zero byte.
#[test]
fn each_login_succeeds() {
    let server = start_with_accounts(logged());
    let wanted = Wanted { server_id: 99, waits: false, ..Wanted::default() };
    for (plugin, user) in accounts() {
        let options = tcp(&server, user, &format!("{user}1"));
        for number in 0..250 {
            let session = Session::connect(&options, &Cancel::new());
            session.unwrap_or_else(|error| panic!("{plugin}, login {number}: {error}"));
            let source = Source::open(&options, &wanted);
            source.unwrap_or_else(|error| panic!("{plugin}, replica {number}: {error}"));
        }
        let wrong = Source::open(&tcp(&server, user, "wrong"), &wanted);
        let refused = wrong.err().unwrap();
        assert!(refused.to_string().contains("1045"), "{plugin}: {refused}");
    }
}

#[test]
fn unix_socket_login_needs_no_password() {
    let server = start(plain());
    run(
        &mut connect(&root(&server)),
        &["CREATE OR REPLACE USER root@localhost IDENTIFIED VIA unix_socket"],
    );
    let mut options = root(&server);
    options.user = None;
    let who = connect(&options).value("SELECT CURRENT_USER()", wait()).unwrap();
    assert_eq!(who.as_deref(), Some("root@localhost"));
}

#[test]
fn tls_with_an_own_authority() {
    let certificates = Scratch::new().unwrap();
    make_certificates(certificates.path());
    let option = |name: &str, file: &str| format!("--{name}={}", certificates.join(file).display());
    let server = start(
        plain()
            .arg(option("ssl-ca", "ca.pem"))
            .arg(option("ssl-cert", "server.pem"))
            .arg(option("ssl-key", "server.key")),
    );
    run(&mut connect(&root(&server)), &["CREATE USER t@'%' IDENTIFIED BY 't1' REQUIRE SSL"]);
    let with = |tls: TlsOptions| ConnectOptions { tls, ..tcp(&server, "t", "t1") };
    let ca = |name: &str| TlsOptions { ca: Some(certificates.join(name)), ..Default::default() };
    for tls in [ca("ca.pem"), TlsOptions { enabled: true, ..Default::default() }] {
        let mut session = connect(&with(tls));
        let status = session.query("SHOW STATUS LIKE 'Ssl_cipher'", wait()).unwrap();
        assert!(!status[0].text("Value").unwrap().is_empty());
    }
    // With nothing but a socket and the port of the same server; not with that of nobody.
    let socket = |port: u16, tls: TlsOptions| {
        let socket = Some(server.socket().to_owned());
        ConnectOptions { host: None, socket, port: Some(port), ..with(tls) }
    };
    let tls = TlsOptions { enabled: true, ..Default::default() };
    let mut session = connect(&socket(server.port(), tls.clone()));
    let status = session.query("SHOW STATUS LIKE 'Ssl_cipher'", wait()).unwrap();
    assert!(!status[0].text("Value").unwrap().is_empty());
    let error = Session::connect(&socket(1, tls), &Cancel::new()).unwrap_err().to_string();
    assert!(error.contains("Access denied") && error.contains("port 1"), "{error}");
    let refuse = |tls: TlsOptions| {
        let error = Session::connect(&with(tls), &Cancel::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
        error
    };
    let unknown = refuse(ca("other-ca.pem"));
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
    refuse(TlsOptions { verify: true, ..Default::default() });
    refuse(TlsOptions::default());
    let absent = Session::connect(&with(ca("absent.pem")), &Cancel::new()).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::Usage);
    assert!(absent.to_string().contains("absent.pem"), "{absent}");
}

/// Directories of authorities, revoked certificates, fingerprints, ciphers, versions.
#[test]
fn tls_as_narrow_as_it_is_asked_for() {
    let certificates = Scratch::new().unwrap();
    let dir = certificates.path();
    make_certificates(dir);
    // A list that has nothing, and one that has the server's certificate.
    std::fs::write(
        dir.join("ca.cnf"),
        "[ca]\ndefault_ca=x\n[x]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=2\n\
         certificate=ca.pem\nprivate_key=ca.key\ncrlnumber=number\ncrl_extensions=e\n\
         [e]\nauthorityKeyIdentifier=keyid\n[old]\ndatabase=index\ndefault_md=sha256\n\
         default_crl_days=2\ncertificate=ca.pem\nprivate_key=ca.key\n",
    )
    .unwrap();
    std::fs::write(dir.join("index"), "").unwrap();
    std::fs::write(dir.join("number"), "01\n").unwrap();
    let list = |name: &str| {
        openssl(dir, &["ca", "-config", "ca.cnf", "-gencrl", "-out", name]);
    };
    list("clean.pem");
    openssl(dir, &["ca", "-config", "ca.cnf", "-revoke", "server.pem"]);
    list("revoked.pem");
    let old = ["ca", "-config", "ca.cnf", "-name", "old", "-gencrl", "-out", "old.pem"];
    openssl(dir, &old);
    let hash = openssl(dir, &["x509", "-noout", "-hash", "-in", "ca.pem"]);
    for (hashed, file, name) in [
        ("hashed", "ca.pem", format!("{hash}.0")),
        ("strangers", "other-ca.pem", format!("{hash}.0")),
        ("servers", "server.pem", format!("{hash}.0")),
        ("plain", "ca.pem", "ca.pem".to_owned()),
        ("revocations", "revoked.pem", format!("{hash}.r0")),
    ] {
        std::fs::create_dir(dir.join(hashed)).unwrap();
        std::fs::copy(dir.join(file), dir.join(hashed).join(name)).unwrap();
    }
    let fingerprint = |algorithm: &str| {
        let said =
            openssl(dir, &["x509", "-noout", "-fingerprint", algorithm, "-in", "server.pem"]);
        said.split_once('=').unwrap().1.to_owned()
    };
    let (short, long) = (fingerprint("-sha1"), fingerprint("-sha256"));
    let wrong: String = long.chars().rev().collect();
    std::fs::write(dir.join("list"), format!("{wrong}\n\n{}\n", long.replace(':', ""))).unwrap();
    std::fs::write(dir.join("empty"), "\n").unwrap();

    let option = |name: &str, file: &str| format!("--{name}={}", certificates.join(file).display());
    let server = start(
        plain()
            .arg(option("ssl-ca", "ca.pem"))
            .arg(option("ssl-cert", "server.pem"))
            .arg(option("ssl-key", "server.key")),
    );
    run(&mut connect(&root(&server)), &["CREATE USER t@'%' IDENTIFIED BY 't1' REQUIRE SSL"]);
    let with = |settings: &[(&str, &str)]| {
        let mut tls = TlsOptions::default();
        for (name, value) in settings {
            let is_file = ["ssl-ca", "ssl-capath", "ssl-crl", "ssl-crlpath", "ssl-fplist"];
            let path = certificates.join(value).display().to_string();
            tls.set(name, if is_file.contains(name) { &path } else { value });
        }
        ConnectOptions { tls, ..tcp(&server, "t", "t1") }
    };
    let ca = ("ssl-ca", "ca.pem");
    for settings in [
        &[("ssl-capath", "hashed")][..],
        &[ca, ("ssl-crl", "clean.pem")],
        &[("ssl-fp", &short)],
        &[("ssl-fp", &long)],
        &[("ssl-fplist", "list")],
        &[ca, ("ssl-fp", &long)],
        &[ca, ("tls-version", "TLSv1.1,TLSv1.2")],
    ] {
        let mut session = connect(&with(settings));
        let status = session.query("SHOW STATUS LIKE 'Ssl_version'", wait()).unwrap();
        let version = status[0].text("Value").unwrap().into_owned();
        let only = settings.iter().any(|(name, _)| *name == "tls-version");
        assert!(version == "TLSv1.2" || (!only && version == "TLSv1.3"), "{version}, {settings:?}");
    }
    let ciphers = [
        ("ECDHE-RSA-CHACHA20-POLY1305", "TLSv1.2"),
        ("TLS_AES_128_GCM_SHA256:ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2"),
    ];
    for (ciphers, version) in ciphers {
        let settings = [("ssl-cipher", ciphers), ("tls-version", version)];
        let status =
            connect(&with(&settings)).query("SHOW STATUS LIKE 'Ssl_cipher'", wait()).unwrap();
        let cipher = status[0].text("Value").unwrap().into_owned();
        assert!(ciphers.split(':').any(|name| name == cipher), "{cipher} of {ciphers}");
    }
    for (settings, kind, said) in [
        (&[("ssl-capath", "strangers")][..], ErrorKind::Server, "certificate"),
        (&[("ssl-capath", "plain")], ErrorKind::Usage, "hash"),
        (&[ca, ("ssl-crl", "revoked.pem")], ErrorKind::Server, "Revoked"),
        (&[ca, ("ssl-crlpath", "revocations")], ErrorKind::Server, "Revoked"),
        (
            &[ca, ("ssl-crl", "clean.pem"), ("ssl-crlpath", "revocations")],
            ErrorKind::Server,
            "Revoked",
        ),
        (&[("ssl-capath", "servers")], ErrorKind::Usage, "certificates of authorities"),
        (
            &[("ssl-fp", &wrong), ("ssl-fplist", "list")],
            ErrorKind::Server,
            "none of the fingerprints",
        ),
        (&[ca, ("ssl-crl", "ca.pem")], ErrorKind::Usage, "no list of revoked"),
        (&[ca, ("ssl-crl", "old.pem")], ErrorKind::Usage, "lists of revoked"),
        (&[("ssl-crl", "clean.pem")], ErrorKind::Usage, "none is checked"),
        (&[("ssl-fp", &wrong)], ErrorKind::Server, "none of the fingerprints"),
        (&[ca, ("ssl-fp", &wrong)], ErrorKind::Server, "none of the fingerprints"),
        (&[("ssl-ca", "other-ca.pem"), ("ssl-fp", &long)], ErrorKind::Server, "certificate"),
        (&[("ssl-fplist", "empty")], ErrorKind::Usage, "no fingerprint"),
        (&[("ssl-cipher", "HIGH")], ErrorKind::Usage, "HIGH"),
        (&[("ssl-fp", &long), ("tls-version", "TLSv1.0")], ErrorKind::Usage, "TLSv1.0"),
    ] {
        let error = Session::connect(&with(settings), &Cancel::new()).unwrap_err();
        assert_eq!(error.kind(), kind, "{settings:?}: {error}");
        assert!(error.to_string().contains(said), "{settings:?}: {error}");
    }
}

#[test]
fn stages_in_order_are_timed_and_released() {
    let server = start(plain());
    run(&mut connect(&root(&server)), &["CREATE TABLE test.`a b` (a INT) ENGINE=MyISAM"]);
    let cancel = Cancel::new();
    let mut stages = BackupStages::open(&root(&server), &cancel, SHORT, false).unwrap();
    stages.start().unwrap();
    let mut worker = connect(&root(&server));
    lock_table(&mut worker, "test", "a b", SHORT).unwrap();
    unlock_table(&mut worker).unwrap();
    stages.lock_table("test", "a b").unwrap();
    stages.unlock().unwrap();
    stages.flush().unwrap();
    stages.block_ddl().unwrap();
    let error = stages.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "going back is refused: {error}");
    assert_eq!(stages.stage(), Some(Stage::BlockDdl));
    thread::sleep(Duration::from_millis(50));
    stages.block_commit().unwrap();
    thread::sleep(Duration::from_millis(20));
    let times = stages.end().unwrap();
    assert!(times.commit_blocked >= Duration::from_millis(20));
    assert!(times.ddl_blocked >= times.commit_blocked + Duration::from_millis(50));
    run(&mut connect(&root(&server)), &["CREATE TABLE test.after_end (a INT)"]);
}

#[test]
fn second_backup_is_refused_and_the_first_one_named() {
    let server = start(plain());
    let cancel = Cancel::new();
    let mut first = BackupStages::open(&root(&server), &cancel, SHORT, false).unwrap();
    first.start().unwrap();
    let limit = Duration::from_secs(1);
    let mut second = BackupStages::open(&root(&server), &cancel, limit, false).unwrap();
    let started = Instant::now();
    let error = second.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let advice = error.advice().unwrap();
    assert!(advice.contains("of root@localhost"), "{advice}");

    // With the plugin the server knows who it is.
    run(&mut connect(&root(&server)), &["INSTALL SONAME 'metadata_lock_info'"]);
    let _idle = connect(&root(&server));
    let mut third = BackupStages::open(&root(&server), &cancel, limit, false).unwrap();
    let error = third.start().unwrap_err();
    let holder = format!(": connection {} of root@localhost", first.connection_id());
    assert!(error.advice().unwrap().contains(&holder), "{error}: {:?}", error.advice());
    drop(first);
    BackupStages::open(&root(&server), &cancel, SHORT, false).unwrap().start().unwrap();
}

#[test]
fn dropped_stages_release_the_server() {
    let server = start(plain());
    let mut stages = BackupStages::open(&root(&server), &Cancel::new(), SHORT, false).unwrap();
    stages.start().unwrap();
    stages.block_commit().unwrap();
    drop(stages);
    run(&mut connect(&root(&server)), &["CREATE TABLE test.after_drop (a INT)"]);
}

#[test]
fn cancelled_block_ddl_releases_the_server() {
    let server = start(plain());
    run(&mut connect(&root(&server)), &["CREATE TABLE test.m (a INT) ENGINE=MyISAM"]);
    let blocker = root(&server);
    let sleeper = thread::spawn(move || {
        run(&mut connect(&blocker), &["INSERT INTO test.m SELECT SLEEP(8)"]);
    });
    thread::sleep(Duration::from_millis(500));

    let cancel = Cancel::new();
    let limit = Duration::from_secs(60);
    let mut stages = BackupStages::open(&root(&server), &cancel, limit, false).unwrap();
    stages.start().unwrap();
    let raise = cancel.clone();
    let started = Instant::now();
    let raiser = thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        raise.cancel();
    });
    let error = stages.block_ddl().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    raiser.join().unwrap();

    // The writer still runs; a new table elsewhere must not have to wait for it.
    let mut other = connect(&root(&server));
    let started = Instant::now();
    run(&mut other, &["CREATE TABLE test.free (a INT)", "INSERT INTO test.free VALUES (1)"]);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let mut next = BackupStages::open(&root(&server), &Cancel::new(), SHORT, false).unwrap();
    next.start().unwrap();
    sleeper.join().unwrap();
}

#[test]
fn given_up_statement_is_killed_and_the_session_dead() {
    let server = start(plain());
    let mut session = connect(&root(&server));
    let hasty = Wait { deadline: Duration::from_millis(300), reason: "sleeping" };
    let error = session.execute("DO SLEEP(60)", hasty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("sleeping"), "{error}");
    assert!(!session.is_open());
    assert_eq!(session.execute("DO 1", wait()).unwrap_err().kind(), ErrorKind::Server);
    let mut other = connect(&root(&server));
    let left = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'DO%'";
    let gone = (0..20).any(|_| {
        thread::sleep(Duration::from_millis(100));
        other.value(left, wait()).unwrap().as_deref() == Some("0")
    });
    assert!(gone, "the statement still runs");
}

#[test]
fn vanished_server_is_told_as_such() {
    let mut server = start(plain());
    let mut session = connect(&root(&server));
    server.crash().unwrap();
    let error = session.execute("DO 1", wait()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    let absent = Session::connect(&root(&server), &Cancel::new()).unwrap_err();
    assert!(absent.to_string().contains(server.socket().to_str().unwrap()), "{absent}");
}
