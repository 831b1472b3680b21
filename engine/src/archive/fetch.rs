//! Files of the archive back on disk, byte for byte, with a list as servers have one.
//!
//! A file gets its name when it is whole. Nothing that is there is replaced.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::catalog::File;
use super::{Archive, Log};
use crate::io::durable;
use crate::{Cancel, Error, ErrorKind, Event, Phase, Reporter, Result};

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// What to fetch.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Where to.
    pub to: PathBuf,
    /// Files by their names; all, if there is none.
    pub files: Vec<String>,
    /// Of this server only, by its `server_id`.
    pub server: Option<u32>,
    /// Of this row of files only.
    pub epoch: Option<String>,
}

/// A file that was fetched.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Fetched {
    /// Its name.
    pub file: String,
    /// `server_id` of who wrote it.
    pub server: u32,
    /// Which row of files it belongs to.
    pub epoch: String,
    /// Bytes.
    pub bytes: u64,
    /// Whether it was closed by its server, and its end is there.
    pub closed: bool,
}

/// What was fetched.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FetchSummary {
    /// Version of this document's shape.
    pub format: u32,
    /// The files, in their order.
    pub files: Vec<Fetched>,
    /// Their list.
    pub index: PathBuf,
}

impl Archive<'_> {
    /// Fetches files of one log.
    pub fn fetch(
        &self,
        options: &FetchOptions,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<FetchSummary> {
        let files = self.meant(options)?;
        std::fs::create_dir_all(&options.to)
            .map_err(|error| Error::io("create the directory", &options.to, error))?;
        let target = |file: &File| options.to.join(&file.name);
        let index = match files.first() {
            Some(file) => {
                let base = file.name.rsplit_once('.').map_or("binlog", |(base, _)| base);
                options.to.join(format!("{base}.index"))
            }
            None => return Err(nothing(options)),
        };
        for file in &files {
            if binlog::BinlogPosition::new(&file.name, 4).is_err() {
                let message = format!("the archive has a file of the name {:?}", file.name);
                return Err(Error::new(ErrorKind::Damage, message));
            }
            if file.has_holes() || file.end() == 0 {
                let message = format!("bytes of {} behind {} are missing", file.name, file.end());
                return Err(Error::new(ErrorKind::Gap, message));
            }
        }
        for path in files.iter().map(|file| target(file)).chain([index.clone()]) {
            if path.exists() {
                let message = format!("{} exists already", path.display());
                return Err(Error::new(ErrorKind::Usage, message)
                    .advise("fetch into a directory that is empty"));
            }
        }
        let total: u64 = files.iter().map(|file| file.end()).sum();
        let mut done = 0;
        let mut fetched = Vec::new();
        for file in &files {
            let mut report = |count: u64| {
                done += count;
                reporter.event(&Event::Progress {
                    phase: Phase::Extract,
                    done,
                    total: Some(total),
                });
            };
            self.write(file, &target(file), cancel, &mut report)?;
            fetched.push(Fetched {
                file: file.name.clone(),
                server: file.server,
                epoch: file.epoch.to_string(),
                bytes: file.end(),
                closed: file.ending().is_some(),
            });
        }
        let lines: String = files.iter().map(|file| format!("./{}\n", file.name)).collect();
        durable::write_file(&index, lines.as_bytes())?;
        Ok(FetchSummary { format: 1, files: fetched, index })
    }

    /// The files that are meant: of one log.
    fn meant(&self, options: &FetchOptions) -> Result<Vec<&File>> {
        let of_log = |log: &&Log| {
            options.server.is_none_or(|server| server == log.server)
                && options.epoch.as_ref().is_none_or(|epoch| log.epoch.as_str() == epoch)
        };
        let wanted = |file: &&File| options.files.is_empty() || options.files.contains(&file.name);
        let logs: Vec<&Log> = self.logs.iter().filter(of_log).collect();
        let with: Vec<&&Log> =
            logs.iter().filter(|log| log.files.iter().any(|file| wanted(&file))).collect();
        let log = match with.as_slice() {
            [] => return Err(nothing(options)),
            [log] => log,
            [..] => {
                let names: Vec<String> = with
                    .iter()
                    .map(|log| format!("--server {} --epoch {}", log.server, log.epoch))
                    .collect();
                return Err(Error::new(ErrorKind::Usage, "several logs have such files")
                    .advise(format!("say which: {}", names.join(", or "))));
            }
        };
        let files: Vec<&File> = log.files.iter().filter(wanted).collect();
        if let Some(absent) =
            options.files.iter().find(|name| !files.iter().any(|file| file.name == **name))
        {
            let message = format!("the archive has no file {absent}");
            return Err(Error::new(ErrorKind::NothingMatches, message));
        }
        Ok(files)
    }

    fn write(
        &self,
        file: &File,
        path: &Path,
        cancel: &Cancel,
        report: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let failed = |error| Error::io("write", path, error);
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut out = tempfile::Builder::new()
            .prefix(".haulout-")
            .tempfile_in(dir)
            .map_err(|error| Error::io("create a temporary file in", dir, error))?;
        let mut from = self.open(file, cancel);
        let mut chunk = vec![0; CHUNK];
        loop {
            cancel.check()?;
            let count = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    return Err(match error.downcast::<Error>() {
                        Ok(error) => error,
                        Err(error) => Error::io("read for", path, error),
                    });
                }
            };
            out.write_all(chunk.get(..count).unwrap_or_default()).map_err(failed)?;
            report(count as u64);
        }
        out.as_file().sync_all().map_err(failed)?;
        out.persist_noclobber(path).map_err(|error| failed(error.error))?;
        durable::sync_dir(dir)
    }
}

fn nothing(options: &FetchOptions) -> Error {
    let what = match options.files.as_slice() {
        [] => "no binary log".to_owned(),
        files => format!("no file {}", files.join(", ")),
    };
    Error::new(ErrorKind::NothingMatches, format!("the archive has {what}"))
        .advise("haulout binlog list shows what is there")
}
