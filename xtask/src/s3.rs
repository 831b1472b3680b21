//! `cargo xtask s3`: the stores' conformance on a real distributed server.
//!
//! One monitor, one storage daemon and one gateway of Ceph on loopback, in a directory that goes when
//! they do. The packages are Debian's; neither a kernel module nor a system service is used.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use harness::{Result, Scratch};

use crate::build::cargo_with;
use crate::setup;

/// Programs and their packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/radosgw", "radosgw"),
    ("/usr/bin/ceph-mon", "ceph-mon"),
    ("/usr/bin/ceph-osd", "ceph-osd"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/openssl", "openssl"),
];
/// How long each daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);
const ACCESS_KEY: &str = "conforms";
const SECRET_KEY: &str = "conforms-secret";
const BUCKET: &str = "conforms";

/// A daemon, which ends with this value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs of one cluster, with its configuration.
struct Cluster<'a> {
    dir: &'a Path,
}

impl Cluster<'_> {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn command(&self, words: &str) -> Command {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env("CEPH_CONF", self.dir.join("ceph.conf")).current_dir(self.dir);
        command
    }

    /// Runs a program; what it wrote.
    fn run(&self, words: &str) -> Result<String> {
        self.run_with(words, "")
    }

    fn run_with(&self, words: &str, input: &str) -> Result<String> {
        fs::write(self.dir.join("input"), input)?;
        let mut command = self.command(words);
        let input = fs::File::open(self.dir.join("input"))?;
        let output = command.stdin(input).output().with_context(|| format!("start {words}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words} ended with {}: {said}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn start(&self, words: &str) -> Result<Daemon> {
        let mut command = self.command(words);
        let said = fs::File::create(self.dir.join("said"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        Ok(Daemon(command.spawn().with_context(|| format!("start {words}"))?))
    }

    /// Repeats a program until it says so.
    fn wait_for(&self, words: &str, said: &str) -> Result<()> {
        let clock = Instant::now();
        while clock.elapsed() < PATIENCE {
            if self.run(words).is_ok_and(|output| output.contains(said)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        let daemon = fs::read_to_string(self.dir.join("said")).unwrap_or_default();
        bail!("{words} did not say {said:?} within {PATIENCE:?}: {daemon}")
    }

    /// Puts an empty object, or creates the bucket, by a request that is signed in the old way, which
    /// takes a line.
    fn put(&self, endpoint: &str, what: &str) -> Result<()> {
        let script = r#"
            date=$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')
            sum=$(printf 'PUT\n\n\n%s\n/%s' "$date" "$2" |
                openssl dgst -sha1 -hmac "$4" -binary | openssl base64)
            curl -sS --max-time 30 --fail-with-body -X PUT -H "Date: $date" \
                -H 'Content-Length: 0' -H "Authorization: AWS $3:$sum" "$1/$2""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", endpoint, what, ACCESS_KEY, SECRET_KEY]);
        let output = command.output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "put {what}: {}", String::from_utf8_lossy(&said));
        Ok(())
    }

    /// The first object takes its time: the cluster makes the pool that it goes to.
    fn warm_up(&self, endpoint: &str) -> Result<()> {
        self.put(endpoint, BUCKET)?;
        let clock = Instant::now();
        while let Err(error) = self.put(endpoint, &format!("{BUCKET}/warm")) {
            if clock.elapsed() > PATIENCE {
                let state = self.run("ceph --connect-timeout 5 -s").unwrap_or_default();
                return Err(error.context(state));
            }
        }
        Ok(())
    }

    fn configuration(&self, id: &str, [mon, old_mon, gateway]: [u16; 3]) -> String {
        let (dir, osd, log) = (self.path(""), self.path("osd"), self.path("$name.log"));
        let [mon_dir, rgw_dir] = ["mon", "rgw"].map(|name| self.path(name));
        let [admin_key, rgw_key] = ["admin.key", "rgw.key"].map(|name| self.path(name));
        format!(
            "[global]
fsid = {id}
mon_host = v2:127.0.0.1:{mon},v1:127.0.0.1:{old_mon}
public_addr = 127.0.0.1
osd_pool_default_size = 1
osd_pool_default_pg_num = 4
mon_allow_pool_size_one = true
mon_data_avail_warn = 1
mon_data_avail_crit = 1
auth_allow_insecure_global_id_reclaim = false
run_dir = {dir}
log_file = {log}
[mon.a]
mon_data = {mon_dir}
[osd.0]
osd_data = {osd}
keyring = {osd}/keyring
bluestore_block_size = 4294967296
[client.admin]
keyring = {admin_key}
[client.rgw]
keyring = {rgw_key}
rgw_data = {rgw_dir}
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
rgw_crypt_require_ssl = false
"
        )
    }
}

/// Starts the server and runs the conformance tests on it.
pub fn s3() -> Result<()> {
    setup::install(PROGRAMS)?;
    let scratch = Scratch::new()?;
    let dir = scratch.join("ceph");
    let cluster = Cluster { dir: &dir };
    for name in ["", "mon", "osd", "rgw"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let ports = free_ports()?;
    let [mon, old_mon, gateway] = ports;
    let uuid = || -> Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
    };
    let id = uuid()?;
    fs::write(dir.join("ceph.conf"), cluster.configuration(&id, ports))?;
    let keyring = |file: &str, name: &str, caps: &[[&str; 2]]| -> Result<()> {
        let mut command = cluster.command(&format!("ceph-authtool -C {file} -g -n {name}"));
        for [of, what] in caps {
            command.args(["--cap", of, what]);
        }
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    keyring("mon.key", "mon.", &[["mon", "allow *"]])?;
    keyring("admin.key", "client.admin", &[["mon", "allow *"], ["osd", "allow *"]])?;
    keyring("rgw.key", "client.rgw", &[["mon", "allow rwx"], ["osd", "allow rwx"]])?;
    for key in ["admin.key", "rgw.key"] {
        cluster.run(&format!("ceph-authtool mon.key --import-keyring {key}"))?;
    }
    let monitor = format!("[v2:127.0.0.1:{mon},v1:127.0.0.1:{old_mon}]");
    cluster.run(&format!("monmaptool --create --addv a {monitor} --fsid {id} map"))?;
    cluster.run("ceph-mon -i a --mkfs --monmap map --keyring mon.key")?;
    let _monitor = cluster.start("ceph-mon -i a -f")?;
    cluster.wait_for("ceph --connect-timeout 5 mon stat", "quorum 0 a")?;
    let key = cluster.run("ceph-authtool --gen-print-key")?;
    let osd = uuid()?;
    cluster.run_with(
        &format!("ceph osd new {osd} -i -"),
        &format!("{{\"cephx_secret\":\"{key}\"}}"),
    )?;
    cluster.run(&format!("ceph-authtool -C osd/keyring -n osd.0 --add-key {key}"))?;
    cluster.run(&format!("ceph-osd -i 0 --mkfs --osd-uuid {osd}"))?;
    let _storage = cluster.start("ceph-osd -i 0 -f")?;
    cluster.run("ceph osd crush add osd.0 1.0 root=default host=h1")?;
    cluster.wait_for("ceph osd stat", "1 up")?;
    let _gateway = cluster.start("radosgw -n client.rgw -f")?;
    let endpoint = format!("http://127.0.0.1:{gateway}");
    cluster.wait_for(&format!("curl -s {endpoint}"), "List")?;
    cluster.run(&format!(
        "radosgw-admin user create --uid=t --display-name=t --access-key={ACCESS_KEY} \
         --secret={SECRET_KEY}"
    ))?;
    cluster.warm_up(&endpoint)?;
    println!("{} at {endpoint}", cluster.run("radosgw --version")?);
    let test = ["test", "--package", "haulout", "--test", "stores"];
    let rest = ["--", "--ignored", "--nocapture", "any_server"];
    cargo_with(
        &[&test[..], &rest].concat(),
        &[
            ("HAULOUT_S3_ENDPOINT", &endpoint),
            ("HAULOUT_S3_BUCKET", BUCKET),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
        ],
    )
}

/// Different ones, on which nothing listens.
fn free_ports() -> Result<[u16; 3]> {
    let mut ports = [0; 3];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
