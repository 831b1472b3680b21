//! State snapshot transfers: a node joins a Galera cluster by the server's own script for
//! `mariadb-backup`, while the other node is written to.
//!
//! The script finds the backup tools in its path, where each node has the tool that it is to use.
//! Which tool did the work is read from the logs that the script leaves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::load::{Load, LoadOptions, LoadReport, Mix};
use crate::port::Port;
use crate::{Generation, Result, Scratch, Server, ServerOptions, Tool, proof};

/// How long a node may take to have what the other has.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the load runs before a node joins, and after.
const AROUND: Duration = Duration::from_secs(2);

/// Programs that the script needs besides those of every system, with their packages.
pub const NEEDS: &[(&str, &str)] = &[
    ("/usr/bin/socat", "socat"),
    ("/usr/bin/lsof", "lsof"),
    ("/usr/bin/ps", "procps"),
    ("/usr/bin/gawk", "gawk"),
];

/// How long nodes wait for one that says nothing: on a busy machine that takes longer than the five seconds
/// after which they would leave it out.
const TIMEOUTS: &str =
    "evs.suspect_timeout=PT30S;evs.inactive_timeout=PT60S;evs.install_timeout=PT60S";

/// What comes along with a transfer without being replicated.
const BESIDES: &str = "\
CREATE DATABASE besides;
CREATE TABLE besides.a (id INT PRIMARY KEY, t TEXT) ENGINE=Aria;
CREATE TABLE besides.m (id INT PRIMARY KEY, t TEXT) ENGINE=MyISAM;
INSERT INTO besides.a SELECT seq, REPEAT('a', seq) FROM besides.seq_1_to_900;
INSERT INTO besides.m SELECT seq, REPEAT('m', seq) FROM besides.seq_1_to_900;
CREATE USER sst@localhost IDENTIFIED BY 'of-the-cluster';
GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO sst@localhost";

/// A transfer to be made.
pub struct Transfer {
    /// Of both servers.
    pub generation: Generation,
    /// What the donor backs up with.
    pub donor: Tool,
    /// What the joiner unpacks, prepares and places with.
    pub joiner: Tool,
    /// Of the load.
    pub seed: u64,
    /// Whether tables are made, changed and dropped, too. Donors let that happen even where a backup has
    /// blocked it, and backups that see it are refused.
    pub ddl: bool,
}

/// A transfer after which both nodes had the same.
pub struct Transferred {
    /// Tables compared.
    pub tables: usize,
    /// What was done to the donor meanwhile.
    pub load: LoadReport,
    /// From the joiner's start until it could be asked.
    pub took: Duration,
}

impl Transfer {
    /// Makes it, and compares the nodes. What a failure leaves behind is kept.
    pub fn run(&self) -> Result<Transferred> {
        let scratch = Scratch::new()?;
        self.run_in(&scratch)
            .map_err(|error| error.context(format!("kept in {}", scratch.keep().display())))
    }

    fn run_in(&self, scratch: &Scratch) -> Result<Transferred> {
        let mut nodes = Vec::new();
        for (name, tool) in [("donor", &self.donor), ("joiner", &self.joiner)] {
            nodes.push(Node::new(self.generation, name, tool, scratch)?);
        }
        let addresses: Vec<String> =
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports[0].number())).collect();
        let addresses = addresses.join(",");
        let [donor_node, joiner_node] = &nodes[..] else { bail!("there are two nodes") };

        let donor = donor_node.options(&addresses)?.arg("--wsrep-new-cluster").start()?;
        wait_until_ready(&donor)?;
        for statement in BESIDES.split(";\n") {
            donor.run(statement)?;
        }
        let mut options = LoadOptions::new(self.seed);
        options.mix = Mix::Innodb;
        options.ddl = self.ddl;
        options.threads = 3;
        let load = Load::start(&donor, &options)?;
        std::thread::sleep(AROUND);

        let datadir = scratch.join("joined");
        fs::create_dir(&datadir)?;
        let started = Instant::now();
        let joiner = joiner_node.options(&addresses)?.start_on(&datadir);
        let logs = || self.logs(&[donor.datadir(), &datadir]);
        let joiner = joiner.with_context(|| format!("{}{}", donor.log_tail(), logs()))?;
        let took = started.elapsed();
        std::thread::sleep(AROUND);
        let load = load.stop()?;
        self.check(&donor, &joiner, &datadir)
            .map(|tables| Transferred { tables, load, took })
            .with_context(|| format!("{}{}", donor.log_tail(), logs()))
    }

    /// That both have the same, and that each side used its tool. Tables that were compared.
    fn check(&self, donor: &Server, joiner: &Server, datadir: &Path) -> Result<usize> {
        wait_until_equal(donor, joiner)?;

        ensure!(
            status(joiner, "wsrep_local_state_comment")? == "Synced",
            "the joiner is not synced"
        );
        for (file, dir, tool) in [
            ("mariabackup.backup.log", donor.datadir(), &self.donor),
            ("mariabackup.prepare.log", datadir, &self.joiner),
            ("mariabackup.move.log", datadir, &self.joiner),
        ] {
            let log = fs::read_to_string(dir.join(file)).with_context(|| format!("no {file}"))?;
            let ours = log.contains(" of haulout ");
            ensure!(ours != matches!(tool, Tool::Stock(_)), "another tool wrote {file}: {log}");
            ensure!(log.contains("completed OK!"), "{file}: {log}");
        }
        proof::ensure_equal(donor, joiner)
    }

    /// The ends of what the script's tools said, for messages.
    fn logs(&self, dirs: &[&Path]) -> String {
        let mut text = String::new();
        for dir in dirs {
            for name in ["backup", "prepare", "move"] {
                let file = dir.join(format!("mariabackup.{name}.log"));
                if let Ok(log) = fs::read_to_string(&file) {
                    let lines: Vec<&str> = log.lines().collect();
                    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
                    text += &format!("\n--- {} ---\n{tail}", file.display());
                }
            }
        }
        text
    }
}

/// A member of the cluster.
struct Node {
    generation: Generation,
    name: &'static str,
    /// Where its programs and its option file are.
    dir: PathBuf,
    /// For the cluster, for missing transactions, for transfers.
    ports: [Port; 3],
}

impl Node {
    fn new(
        generation: Generation,
        name: &'static str,
        tool: &Tool,
        scratch: &Scratch,
    ) -> Result<Self> {
        let dir = scratch.join(name);
        for inner in ["bin", "tmp"] {
            fs::create_dir_all(dir.join(inner))?;
        }
        // The server puts the `bin` of its base directory before all others, so that has to be ours.
        for inner in ["lib", "share"] {
            symlink(generation.basedir()?.join(inner), dir.join(inner))?;
        }
        let bin = dir.join("bin");
        for name in ["mariadb-backup", "mbstream"] {
            let program = match tool {
                Tool::Stock(generation) => generation.program(name),
                Tool::Haulout(program) => program.clone(),
                Tool::Links(links) => links.join(name),
            };
            symlink(program, bin.join(name))?;
        }
        symlink(generation.program("my_print_defaults"), bin.join("my_print_defaults"))?;
        for entry in fs::read_dir(generation.galera()?.join("usr/bin"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("wsrep_sst_") {
                symlink(entry.path(), bin.join(entry.file_name()))?;
            }
        }
        let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        Ok(Self { generation, name, dir, ports })
    }

    fn options(&self, addresses: &str) -> Result<ServerOptions> {
        let library = self.generation.galera()?.join("usr/lib/galera/libgalera_smm.so");
        let [cluster, missing, transfers] = self.ports.each_ref().map(Port::number);
        let file = self.dir.join("my.cnf");
        let text = format!(
            "[galera]\n\
             wsrep_on = ON\n\
             wsrep_provider = {library}\n\
             wsrep_cluster_name = of-two\n\
             wsrep_cluster_address = gcomm://{addresses}\n\
             wsrep_node_name = {name}\n\
             wsrep_node_address = 127.0.0.1:{cluster}\n\
             wsrep_provider_options = \"gmcast.listen_addr=tcp://127.0.0.1:{cluster};\
             ist.recv_addr=127.0.0.1:{missing};gcache.size=64M;{TIMEOUTS}\"\n\
             wsrep_sst_method = mariabackup\n\
             wsrep_sst_auth = \"sst:of-the-cluster\"\n\
             wsrep_sst_receive_address = 127.0.0.1:{transfers}\n\
             innodb_buffer_pool_size = 64M\n\
             default_storage_engine = InnoDB\n\
             innodb_autoinc_lock_mode = 2\n\
             [sst]\n\
             sst-log-archive = 0\n",
            library = library.display(),
            name = self.name,
        );
        fs::write(&file, text)?;
        let mut options = ServerOptions::of(self.generation);
        options.server_id = u32::from(cluster);
        options.option_file = Some(file);
        // The script gives the stock tool this word of the server's command line, and it does not know it.
        options.buffer_pool = 0;
        options = options.arg(format!("--basedir={}", self.dir.display()));
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.join("bin").display());
        options.variables = vec![
            ("PATH".to_owned(), path.into()),
            ("TMPDIR".to_owned(), self.dir.join("tmp").into_os_string()),
        ];
        Ok(options)
    }
}

fn status(server: &Server, name: &str) -> Result<String> {
    let sql = format!(
        "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = '{name}'"
    );
    Ok(server.client()?.scalar(&sql)?.unwrap_or_default())
}

/// Waits until a node takes statements, which may be a moment after it takes connections.
fn wait_until_ready(node: &Server) -> Result<()> {
    let started = Instant::now();
    while status(node, "wsrep_ready")? != "ON" {
        ensure!(started.elapsed() < PATIENCE, "the node is not ready\n{}", node.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until both have committed the same, with nobody writing.
fn wait_until_equal(donor: &Server, joiner: &Server) -> Result<()> {
    let started = Instant::now();
    loop {
        let [left, right] = [donor, joiner].map(|node| status(node, "wsrep_last_committed"));
        let (left, right) = (left?, right?);
        if left == right {
            return Ok(());
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "the donor is at {left}, the joiner at {right}\n{}",
            joiner.log_tail()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
