//! A server of its own for one test: own data directory, socket and port, gone afterwards.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server below a temporary directory.
pub struct PrivateServer {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl PrivateServer {
    /// Installs and starts a server with these additional options.
    pub fn start(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("haulout-server-").tempdir().unwrap();
        Self::start_in(dir, options)
    }

    /// A server with a certificate for 127.0.0.1 signed by `ca.pem`; `other-ca.pem` has signed
    /// nothing.
    pub fn start_with_tls() -> Self {
        let dir = tempfile::Builder::new().prefix("haulout-server-").tempdir().unwrap();
        make_certificates(dir.path());
        let option =
            |name: &str, file: &str| format!("--{name}={}", dir.path().join(file).display());
        let tls = [
            option("ssl-ca", "ca.pem"),
            option("ssl-cert", "server.pem"),
            option("ssl-key", "server.key"),
        ];
        Self::start_in(dir, &tls.each_ref().map(String::as_str))
    }

    fn start_in(dir: tempfile::TempDir, options: &[&str]) -> Self {
        let user = format!("--user={}", user());
        let datadir = format!("--datadir={}", dir.path().join("data").display());
        succeed(Command::new("mariadb-install-db").args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-name-resolve",
            &datadir,
            &user,
        ]));
        // Anonymous accounts of a fresh server hide accounts for any host.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--skip-name-resolve", "--bind-address=127.0.0.1"])
            .args(["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=16M"])
            .args([&datadir, &user, &format!("--port={port}")])
            .arg(format!("--socket={}", dir.path().join("s.sock").display()))
            .arg(format!("--pid-file={}", dir.path().join("pid").display()))
            .args(options)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap());
        let child = command.spawn().unwrap();
        let mut server = Self { dir, child, port };
        server.wait_until_it_answers();
        server.sql("DELETE FROM mysql.global_priv WHERE user=''; FLUSH PRIVILEGES");
        server
    }

    fn wait_until_it_answers(&mut self) {
        let started = Instant::now();
        while !self.client("SELECT 1").status().unwrap().success() {
            let ended = self.child.try_wait().unwrap().is_some();
            if ended || started.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
                panic!("the server does not answer:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn client(&self, sql: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--user=root", "--execute", sql])
            .arg(format!("--socket={}", self.socket().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn sql(&self, sql: &str) {
        assert!(self.client(sql).status().unwrap().success(), "{sql}");
    }

    /// A file beside the data directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data directory.
    pub fn datadir(&self) -> PathBuf {
        self.file("data")
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.file("s.sock")
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server without any goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn user() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// Two authorities, and a server certificate for 127.0.0.1 signed by the first.
fn make_certificates(dir: &Path) {
    let openssl = |args: &[&str]| succeed(Command::new("openssl").current_dir(dir).args(args));
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
