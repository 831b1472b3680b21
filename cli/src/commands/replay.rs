//! `haulout replay`.

use std::path::PathBuf;
use std::sync::Arc;

use binlog::GtidPosition;
use clap::Args;
use engine::keys::settings::KeyStore;
use engine::replay::archived::{self, ArchivedLogs};
use engine::replay::plan::{Anchor, Plan};
use engine::replay::source::{FileLogs, LogSource};
use engine::replay::{self, ReplayOptions, ReplaySummary};
use engine::server::ConnectOptions;
use engine::{Cancel, Error, ErrorKind, Reporter, Result};

use super::connection::Connection;
use super::counted;
use super::keys::Keys;
use super::repo::Access;
use super::until::Until;
use crate::console::Outcome;
use crate::duration::show_seconds;
use crate::size::Size;

const EXAMPLES: &str = "\
Examples:
  haulout replay --binlogs /logs --from-backup /backups/monday --until 2026-02-28T17:30:00 --plan
  haulout replay --binlogs /logs --from-backup /backups/monday --until 0-1-4711 --before
  haulout replay --repo s3://bucket/db1 --from-backup LATEST --until end
  haulout replay --binlogs /logs --from-gtid 0-1-42 --until end --skip-gtid 0-1-4711

The server must be as it was restored: nothing may have written to it. A replay that was interrupted
goes on with the same command.

TARGET is 'end', a time (local, unless it has a zone), a GTID, or LOG:OFFSET. Times of transactions are
whole seconds in the log: --before a time leaves out what may have been later, --after takes it in.";

/// Apply binary logs to a running server, exactly up to a target
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, mut_arg("until", |until| until.required(true)))]
pub struct Replay {
    /// Binary logs, or directories of them
    #[arg(long, value_name = "PATH", required_unless_present = "repo", num_args = 1..)]
    binlogs: Vec<PathBuf>,
    /// The repository whose archive has the binary logs: s3://BUCKET/PREFIX, or a folder
    #[arg(long, value_name = "PLACE", conflicts_with = "binlogs")]
    repo: Option<String>,
    /// The backup that the server was restored from; with --repo, one of the repository
    #[arg(long, value_name = "BACKUP", required_unless_present = "from_gtid")]
    from_backup: Option<PathBuf>,
    /// GTID position that the server was restored to; '' is the beginning of all
    #[arg(long, value_name = "GTIDS", conflicts_with = "from_backup")]
    from_gtid: Option<GtidPosition>,
    #[command(flatten)]
    until: Until,
    /// Leave out the rows of a table; definitions are replayed for all
    #[arg(long, value_name = "DB.TABLE", value_parser = parse_table)]
    exclude_table: Vec<(Vec<u8>, Vec<u8>)>,
    /// Only say what would be done; the server is only asked how far it is
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    access: Access,
}

impl Replay {
    /// Runs the command.
    pub fn run(self, cancel: &Cancel, reporter: &Arc<dyn Reporter>) -> Result<Outcome> {
        let stop = self.until.resolve()?;
        let keys = self.keys.resolve(&**reporter)?;
        let mut options = ReplayOptions {
            anchor: Anchor { gtid: self.from_gtid.unwrap_or_default(), ..Anchor::default() },
            target: stop.target.clone(),
            edge: stop.edge,
            skip: stop.skip.clone(),
            exclude: self.exclude_table.into_iter().collect(),
            keys: (!keys.is_empty()).then(|| KeyStore::new(keys)),
        };
        let connect = self.connection.resolve(&**reporter)?;
        let Some(place) = &self.repo else {
            stop.of_files()?;
            if let Some(dir) = &self.from_backup {
                options.anchor = Anchor::of_backup(dir)?;
            }
            let logs = FileLogs::open(&self.binlogs, options.keys.as_ref())?;
            logs.notes().iter().for_each(|note| reporter.warn(note.clone()));
            return replay_from(&logs, &options, &connect, self.plan, cancel, &**reporter);
        };
        let repository = self.access.open(place, cancel, reporter)?;
        let mut backup = None;
        if let Some(named) = &self.from_backup {
            let selection = named.to_string_lossy().parse();
            let selection = selection
                .map_err(|why| Error::new(ErrorKind::Usage, format!("--from-backup: {why}")))?;
            backup = Some(repository.select(&selection, cancel)?);
        }
        let server = archived::anchor(&mut options, backup.as_ref())?;
        let archive = stop.read_archive(&repository, cancel)?;
        let anchor = (&options.anchor, server);
        let logs = ArchivedLogs::open(&archive, anchor, &options.target, cancel)?;
        replay_from(&logs, &options, &connect, self.plan, cancel, &**reporter)
    }
}

fn replay_from(
    logs: &dyn LogSource,
    options: &ReplayOptions,
    connect: &ConnectOptions,
    only_plan: bool,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<Outcome> {
    if only_plan {
        let plan = replay::plan(logs, options, Some(connect), cancel, reporter)?;
        return Outcome::new(&plan, describe_plan(&plan));
    }
    let summary = replay::replay(logs, options, connect, cancel, reporter)?;
    Outcome::new(&summary, describe(&summary))
}

/// A table of a database.
pub fn parse_table(text: &str) -> std::result::Result<(Vec<u8>, Vec<u8>), String> {
    match text.split_once('.') {
        Some((database, table)) if !database.is_empty() && !table.is_empty() => {
            Ok((database.into(), table.into()))
        }
        _ => Err("a table is DB.TABLE".to_owned()),
    }
}

/// What a replay would do.
pub fn describe_plan(plan: &Plan) -> Vec<String> {
    let none =
        |gtid: &str| if gtid.is_empty() { "no transaction".to_owned() } else { gtid.to_owned() };
    let mut words = vec![format!(
        "From {} ({}:{}) to {} ({}:{}): {} of {}, {} of events.",
        none(&plan.from),
        plan.from_log,
        plan.from_offset,
        none(&plan.to),
        plan.to_log,
        plan.to_offset,
        counted(plan.transactions, "transaction", "transactions"),
        counted(plan.logs.len() as u64, "log", "logs"),
        Size(plan.bytes),
    )];
    words.extend(plan.resumes_after.as_ref().map(|at| format!("It goes on behind {at}.")));
    let moment = |time: Option<jiff::Timestamp>| {
        time.map(|time| time.strftime(" of %F %TZ").to_string()).unwrap_or_default()
    };
    words.extend(
        plan.last.as_ref().map(|last| format!("Last is {last}{}.", moment(plan.last_time))),
    );
    words.extend(
        plan.next
            .as_ref()
            .map(|next| format!("First not applied is {next}{}.", moment(plan.next_time))),
    );
    if plan.left_out > 0 {
        words.push(format!("Left out: {}.", counted(plan.left_out, "transaction", "transactions")));
    }
    if !plan.temporary.is_empty() {
        words.push(format!("Temporary tables that end with it: {}.", plan.temporary.join(", ")));
    }
    if !plan.can_go_on {
        words.push("No other replay can go on from there.".to_owned());
    }
    if plan.domains.len() > 1 {
        words.push(format!("{} domains, applied in the order of the logs.", plan.domains.len()));
    }
    if !plan.target_found {
        words.push(format!("THE LOGS END BEFORE {}.", plan.until));
    }
    words
}

/// What a replay did.
pub fn describe(summary: &ReplaySummary) -> Vec<String> {
    let mut words = describe_plan(&summary.plan);
    words.push(format!(
        "Replayed in {}, of which {} for the plan. The server is at {}, as planned.",
        show_seconds(summary.seconds),
        show_seconds(summary.plan_seconds),
        summary.server,
    ));
    words
}
