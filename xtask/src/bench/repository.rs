//! Backup into a bucket and restore from it, against what people put together from four programs:
//! the stock tool, `zstd`, `mbstream` and the `aws` command line, in a pipe.
//!
//! The store is the harness's light S3 server. It runs in this process, so that neither side's
//! figures contain it, but both wait for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use harness::s3::{self, S3Server};
use harness::scratch::{cache_dir, tree_size};
use harness::tool::BackupOptions;
use harness::{Result, Server, Tool, process};

use super::Arguments;
use super::data::Data;
use super::rounds::{clear, compare, run, sync_disks, warm};
use super::table::Table;
use crate::text::size;

/// The bucket, and how either side reaches it.
pub struct Bucket {
    server: S3Server,
    aws: PathBuf,
}

impl Bucket {
    pub fn start() -> Result<Self> {
        Ok(Self { server: S3Server::start()?, aws: aws()? })
    }

    /// With what both sides need to know.
    fn with_access(&self, command: &mut Command) {
        command
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("HAULOUT_S3_ENDPOINT", self.server.endpoint());
    }

    /// A script, whose parts may call `aws`.
    fn script(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        let aws = format!("{} --endpoint-url {}", self.aws.display(), self.server.endpoint());
        command.arg("-c").arg(format!("set -euo pipefail\naws() {{ {aws} \"$@\"; }}\n{script}"));
        self.with_access(&mut command);
        command
    }

    fn place(name: &str) -> String {
        format!("s3://{}/{name}", s3::BUCKET)
    }

    pub fn haulout(&self, tool: &Tool, verb: &str, name: &str) -> Result<Command> {
        let Tool::Haulout(program) = tool else { anyhow::bail!("not ours") };
        let mut command = Command::new(program);
        command.arg(verb).arg(format!("--repo={}", Self::place(name)));
        self.with_access(&mut command);
        Ok(command)
    }

    /// Removes what a name has, and waits until the disk is quiet.
    fn clear(&self, name: &str) -> Result<()> {
        let path = self.server.bucket_dir().join(name);
        if path.is_file() {
            std::fs::remove_file(&path)?;
        }
        clear(&path)
    }

    pub fn init(&self, ours: &Tool, name: &str) -> Result<()> {
        let mut init = self.haulout(ours, "init", name)?;
        init.arg("--unsealed");
        run(init).map(drop)
    }

    /// The stock tool, piped into the bucket.
    fn stock_backup(&self, server: &Server, options: &BackupOptions, name: &str) -> Command {
        let backup = shell(&Tool::stock().backup_stream(server, options));
        let place = Self::place(name);
        // The size that is expected makes parts that are large enough, as the manual advises.
        self.script(&format!(
            "{backup} | zstd -q -1 -T2 | aws s3 cp --quiet --expected-size 4000000000 - {place}"
        ))
    }

    pub fn our_backup(
        &self,
        tool: &Tool,
        server: &Server,
        options: &BackupOptions,
        compress: &str,
        name: &str,
    ) -> Result<Command> {
        let mut command = self.haulout(tool, "backup", name)?;
        command
            .args(["--no-defaults", "--user", &options.user])
            .arg(format!("--socket={}", server.socket().display()))
            .arg(format!("--parallel={}", options.parallel))
            .arg(format!("--compress={compress}"));
        Ok(command)
    }
}

/// A command as a line for the shell.
pub fn shell(command: &Command) -> String {
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy());
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// The `aws` command line from PyPI, in an environment of its own.
fn aws() -> Result<PathBuf> {
    let dir = cache_dir("haulout-aws")?;
    let program = dir.join("bin/aws");
    if !program.exists() {
        eprintln!("installing awscli");
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&dir);
        process::run(make)?.success().context("make an environment for python")?;
        let mut install = Command::new(dir.join("bin/pip"));
        install.args(["install", "--quiet", "awscli"]);
        process::run(install)?.success().context("install awscli")?;
    }
    Ok(program)
}

/// Backup into a bucket.
pub fn store(
    arguments: &Arguments,
    tools: &[Tool; 2],
    data: &Data,
    table: &mut Table,
) -> Result<()> {
    let bucket = Bucket::start()?;
    let server = data.start()?;
    let options = BackupOptions { parallel: arguments.parallel, ..BackupOptions::default() };
    for (title, compress) in
        [("backup to a bucket, zstd", "zstd:1"), ("backup to a bucket, lz4 (stock: zstd)", "lz4")]
    {
        let mut sizes = [0, 0];
        let row = compare(title, arguments.rounds, tools, |tool| {
            let ours = matches!(tool, Tool::Haulout(_));
            let name = if ours { "ours" } else { "stock.xb.zst" };
            bucket.clear(name)?;
            let command = if ours {
                bucket.init(tool, name)?;
                bucket.our_backup(tool, &server, &options, compress, name)?
            } else {
                bucket.stock_backup(&server, &options, name)
            };
            warm(server.datadir())?;
            let cost = run(command)?;
            let path = bucket.server.bucket_dir().join(name);
            sizes[usize::from(ours)] =
                if ours { tree_size(&path)? } else { std::fs::metadata(&path)?.len() };
            Ok(cost)
        })?;
        eprintln!("  {title}: stored {} by stock, {} by us", size(sizes[0]), size(sizes[1]));
        table.push(row);
    }
    Ok(())
}

/// Restore from a bucket, with redo to apply, until a server can start on it.
pub fn fetch(
    arguments: &Arguments,
    tools: &[Tool; 2],
    data: &Data,
    table: &mut Table,
) -> Result<()> {
    let bucket = Bucket::start()?;
    let ours = &tools[1];
    let options = BackupOptions { parallel: arguments.parallel, ..BackupOptions::default() };
    let mib = arguments.stored_redo_mib;
    eprintln!("making two backups with {mib} MiB of redo in a bucket");
    data.under_writes(mib, |server| Ok(bucket.stock_backup(server, &options, "stock.xb.zst")))?;
    bucket.init(ours, "ours")?;
    data.under_writes(mib, |server| bucket.our_backup(ours, server, &options, "zstd:1", "ours"))?;

    let target = data.scratch("target");
    let unpacked = data.scratch("unpacked");
    let title = format!("restore from a bucket, {mib} MiB of redo");
    let row = compare(&title, arguments.rounds, tools, |tool| {
        clear(&target)?;
        clear(&unpacked)?;
        sync_disks()?;
        match tool {
            Tool::Haulout(_) => {
                let mut command = bucket.haulout(tool, "restore", "ours")?;
                command.arg("LATEST").arg("--to").arg(&target);
                command.arg(format!("--parallel={}", arguments.parallel));
                run(command)
            }
            _ => run(stock_restore(&bucket, tool, arguments.parallel, &unpacked, &target)),
        }
    })?;
    table.push(row);
    clear(&target)?;
    clear(&unpacked)
}

fn stock_restore(
    bucket: &Bucket,
    tool: &Tool,
    parallel: usize,
    unpacked: &Path,
    target: &Path,
) -> Command {
    let extract = shell(&tool.extract(unpacked, parallel));
    let prepare = shell(&tool.prepare(unpacked, 1 << 30));
    let place = shell(&tool.restore(unpacked, target)).replace("--copy-back", "--move-back");
    let (from, to) = (unpacked.display(), target.display());
    let mut command = bucket.script(&format!(
        "mkdir '{from}' '{to}'\n\
         aws s3 cp --quiet {} - | zstd -q -d | {extract}\n\
         {prepare}\n{place}",
        Bucket::place("stock.xb.zst")
    ));
    command.stdin(Stdio::null());
    command
}
