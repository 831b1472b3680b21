//! Replay of binary logs onto a running server, exactly up to a target.
//!
//! A server that was restored from a backup gets everything that its source logged since, up to a
//! moment, a transaction or a place in the logs, in the order of the logs and under the same GTIDs.
//! Before anything is applied the logs are read once: a gap, a target that is not there, a server that
//! something else has written to, are found then. What was applied is what the server itself says that
//! it has logged, so a replay that was interrupted goes on where the server is, and at the end its
//! state is compared with the plan.
//!
//! | module | what |
//! |---|---|
//! | [`source`] | where logs are, and in which order |
//! | [`archived`] | logs of an archive, and the backup to begin with |
//! | [`started`] | the server that somebody starts on what was restored |
//! | [`walk`] | through logs, group by group |
//! | [`state`] | what has been logged up to a place |
//! | [`target`] | where to stop |
//! | [`filter`] | what is left out |
//! | `origin` | of which backup the server's data is |
//! | `definition` | which statements make or drop tables |
//! | `temporary` | temporary tables, near which nothing can go on |
//! | [`plan`] | start, end, and what is between them |
//! | `sequence` | rows of sequences, for servers that die of them |
//! | `session` | what statements need to be set before them |
//! | `script`, `batch` | from events to statements, and what goes to the server at once |
//! | `apply` | sending that, and what the server answers |

mod apply;
pub mod archived;
mod batch;
mod definition;
pub mod filter;
mod origin;
pub mod plan;
mod script;
mod sequence;
mod session;
pub mod source;
pub mod started;
pub mod state;
pub mod target;
mod temporary;
pub mod walk;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use binlog::{Gtid, GtidState};

use crate::keys::settings::KeyStore;
use crate::metadata::BinlogInfo;
use crate::prepare::Meter;
use crate::server::pipeline::Pipeline;
use crate::server::profile::ServerVersion;
use crate::server::{ConnectOptions, Session, Wait};
use crate::{Cancel, Error, ErrorKind, Phase, Reporter, Result};
use apply::Applier;
use batch::Batch;
use filter::{Filter, TableName};
use plan::{Anchor, Plan, Planner};
use script::{Builder, Limits};
use source::{LogSource, reading};
use state::State;
use target::{Edge, Target};
use walk::{Place, walk};

/// Batches that wait to be sent at most.
const AHEAD: usize = 4;
/// How long to wait for a replay that was killed.
const OTHERS_SECONDS: u32 = 20;
/// A definition of a large table may take as long as it takes.
const PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What to replay.
pub struct ReplayOptions {
    /// What the data is.
    pub anchor: Anchor,
    /// Where to stop.
    pub target: Target,
    /// On which side of it.
    pub edge: Edge,
    /// Transactions to leave out.
    pub skip: BTreeSet<Gtid>,
    /// Tables to leave out.
    pub exclude: BTreeSet<TableName>,
    /// Keys of encrypted logs.
    pub keys: Option<Arc<KeyStore>>,
}

/// What was replayed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReplaySummary {
    /// What was to be done, and was.
    #[serde(flatten)]
    pub plan: Plan,
    /// GTID position of the server now.
    pub server: String,
    /// Seconds for reading the logs the first time.
    pub plan_seconds: f64,
    /// Seconds in all.
    pub seconds: f64,
}

impl Anchor {
    /// What the metadata of a backup say.
    pub fn of_backup(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let message = format!("there is no folder {} with a backup", dir.display());
            return Err(Error::new(ErrorKind::Usage, message)
                .advise("name the folder of the backup, or with --repo one of the repository's"));
        }
        let info = BinlogInfo::read(dir)?.ok_or_else(|| {
            let message =
                format!("the backup in {} does not say where its binary log was", dir.display());
            Error::new(ErrorKind::Usage, message)
                .advise("give the GTID position of the data with --from-gtid")
        })?;
        Ok(Self { position: Some(info.position), gtid: info.gtid, ..Self::default() })
    }
}

/// What a replay would do. With a server, one that it had begun on goes on.
pub fn plan(
    source: &dyn LogSource,
    options: &ReplayOptions,
    connect: Option<&ConnectOptions>,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<Plan> {
    let mut logged = None;
    if let Some(connect) = connect {
        let mut server = Server::connect(connect, cancel)?;
        server.check(options, connect, reporter)?;
        logged = Some(server.logged).filter(|state| !state.is_empty());
    }
    make_plan(source, options, logged, cancel, reporter)
}

/// Where logs end for somebody who is served them.
pub struct Cut {
    /// Groups from here on are left out.
    pub place: Place,
    /// Up to where each log has whole groups.
    pub ends: Vec<u64>,
    /// What is logged up to there.
    pub state: State,
    /// The place, in words.
    pub words: String,
}

/// Looks where logs are to end; the data that they begin at is of no account.
pub fn cut(
    source: &dyn LogSource,
    options: &ReplayOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<Cut> {
    let first = source.logs().first().map(|log| State::of(&log.before)).unwrap_or_default();
    let anchor = Anchor { gtid: first.position(), ..Anchor::default() };
    let options = ReplayOptions {
        anchor,
        target: options.target.clone(),
        skip: options.skip.clone(),
        exclude: BTreeSet::new(),
        keys: options.keys.clone(),
        edge: options.edge,
    };
    let plan = make_plan(source, &options, None, cancel, reporter)?;
    let words = format!("{}:{}", plan.to_log, plan.to_offset);
    let course = plan.course;
    Ok(Cut { place: course.cut, ends: course.ends, state: course.end_state, words })
}

fn make_plan(
    source: &dyn LogSource,
    options: &ReplayOptions,
    logged: Option<State>,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<Plan> {
    options.target.is_in_one(source.logs().iter().map(|log| &*log.name))?;
    let read = reading(options.keys.as_ref());
    let mut anchor = options.anchor.clone();
    loop {
        let filter = Filter::new(options.skip.clone(), options.exclude.clone());
        let target = (&options.target, options.edge);
        let mut planner = Planner::new(source, &anchor, target, filter, logged.clone());
        walk(source, &read, (0, None), None, cancel, &mut planner)?;
        let Some(known) = planner.without_unknown_domains() else {
            let not_there = planner.not_there();
            let plan = planner.finish()?;
            for torn in &plan.torn {
                reporter.warn(format!(
                    "{} was not closed by its server: its last {} bytes, from {} on, are no whole \
                     transaction and are left out",
                    torn.log, torn.bytes, torn.offset
                ));
            }
            if !not_there.is_empty() {
                let tables = not_there.join(", ");
                reporter.warn(format!(
                    "the logs have no rows of {tables}, which {} to be left out: look whether the name is \
                     right",
                    if not_there.len() == 1 { "is" } else { "are" }
                ));
            }
            return Ok(plan);
        };
        // A server that does not log what it replicates has domains that its logs have nothing of.
        reporter.warn(format!(
            "of the position {} of the data the logs have only {known}; what the server replicated \
             without logging it cannot be replayed",
            anchor.gtid
        ));
        anchor.gtid = known;
    }
}

/// Replays logs onto a server.
///
/// # Errors
/// The first statement that fails ends the replay, with the event that it came from. What was applied
/// until then stays, and the same call goes on behind it.
pub fn replay(
    source: &dyn LogSource,
    options: &ReplayOptions,
    connect: &ConnectOptions,
    cancel: &Cancel,
    reporter: &dyn Reporter,
) -> Result<ReplaySummary> {
    let clock = Instant::now();
    let mut server = Server::connect(connect, cancel)?;
    let mut pipeline = Pipeline::connect(connect, cancel)?;
    server.be_alone(&mut pipeline)?;
    server.check(options, connect, reporter)?;
    let logged = Some(server.logged.clone()).filter(|state| !state.is_empty());
    let plan = make_plan(source, options, logged, cancel, reporter)?;
    let plan_seconds = clock.elapsed().as_secs_f64();
    if !plan.target_found {
        reporter.warn(format!(
            "the logs end before {}: the last transaction in them is of {}",
            plan.until,
            plan.last_time.map_or_else(|| "unknown time".to_owned(), |time| time.to_string())
        ));
    }
    server.check_plan(&plan)?;
    if !plan.can_go_on {
        reporter.warn(format!(
            "no other replay can go on from {}: temporary tables are in use there, or were just before",
            plan.to
        ));
    }
    server.adopt(&plan, reporter)?;
    let applied = server.apply(&mut pipeline, source, options, &plan, cancel, reporter);
    if applied.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
        // Nobody is to wait for a statement whose answer nobody waits for.
        server.session.kill(pipeline.id());
    }
    applied?;
    if !plan.temporary.is_empty() {
        // The server drops them when the connection ends. Logged, that would take the next number.
        pipeline.value("SET SESSION sql_log_bin=0")?;
    }
    let state = server.read_state()?;
    if state != plan.course.end_state {
        let list = |gtids: Vec<Gtid>| {
            let gtids: Vec<String> = gtids.iter().map(Gtid::to_string).collect();
            if gtids.is_empty() { "nothing".to_owned() } else { gtids.join(",") }
        };
        let message = format!(
            "the server has logged {} beyond the plan, and the plan {} beyond the server",
            list(state.beyond(&plan.course.end_state)),
            list(plan.course.end_state.beyond(&state))
        );
        return Err(Error::new(ErrorKind::Failed, message).advise(
            "something else wrote to the server during the replay, or a transaction had no effect on it; \
             do not use it before this is understood",
        ));
    }
    Ok(ReplaySummary {
        plan,
        server: state.position().to_string(),
        plan_seconds,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// The server that logs are applied to.
struct Server {
    session: Session,
    limits: Limits,
    logged: State,
}

impl Server {
    fn connect(options: &ConnectOptions, cancel: &Cancel) -> Result<Self> {
        let mut session = Session::connect(options, cancel)?;
        let wait = Wait::short("asking what the server takes");
        let text = session.value("SELECT VERSION()", wait)?.unwrap_or_default();
        let version = ServerVersion::parse(&text).ok_or_else(|| {
            Error::new(ErrorKind::Server, format!("cannot understand the server version '{text}'"))
        })?;
        let packet = session.value("SELECT @@max_allowed_packet", wait)?;
        let packet = packet.and_then(|text| text.parse().ok()).unwrap_or(1 << 20);
        let limits = Limits {
            version: (version.major.into(), version.minor.into(), version.patch.into()),
            packet,
        };
        let mut server = Self { session, limits, logged: State::default() };
        server.logged = server.read_state()?;
        Ok(server)
    }

    /// What the server has logged.
    fn read_state(&mut self) -> Result<State> {
        let wait = Wait::short("asking what the server has logged");
        let text = self.session.value("SELECT @@GLOBAL.gtid_binlog_state", wait)?;
        let state: GtidState = text.unwrap_or_default().parse().map_err(|cause| {
            Error::new(ErrorKind::Server, "cannot read the server's gtid_binlog_state")
                .caused_by(cause)
        })?;
        Ok(State::from(&state))
    }

    /// Waits until no other replay is at work on the server, such as one that was killed, whose last
    /// requests the server still serves.
    fn be_alone(&mut self, pipeline: &mut Pipeline) -> Result<()> {
        let question = format!("SELECT GET_LOCK('haulout.replay', {OTHERS_SECONDS})");
        if pipeline.value(&question)?.as_deref() != Some("1") {
            return Err(Error::new(ErrorKind::Timeout, "another replay is at work on this server")
                .advise("wait for its end, or end its connection (SHOW PROCESSLIST, KILL)"));
        }
        self.logged = self.read_state()?;
        Ok(())
    }

    /// Whether the server has the right data, and is set up so that a replay can be exact.
    fn check(
        &mut self,
        options: &ReplayOptions,
        connect: &ConnectOptions,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        let wait = Wait::short("asking how the server is set up");
        let mut is_on = |variable: &str| -> Result<bool> {
            let value = self.session.value(&format!("SELECT @@GLOBAL.{variable}"), wait)?;
            Ok(value.is_some_and(|value| matches!(&*value.to_ascii_uppercase(), "1" | "ON")))
        };
        if !is_on("log_bin")? {
            return Err(Error::new(
                ErrorKind::Usage,
                "the server has no binary log, which is where it keeps what was replayed",
            )
            .advise("start it with --log-bin, at least for the replay"));
        }
        if is_on("event_scheduler")? {
            return Err(Error::new(
                ErrorKind::Usage,
                "the server runs events, which change what is replayed",
            )
            .advise("SET GLOBAL event_scheduler=OFF until the replay is done"));
        }
        if self.logged.is_empty() {
            origin::check(&mut self.session, connect, &options.anchor, reporter)?;
        }
        Ok(())
    }

    /// Makes the state of the data that of the server, if it has none.
    fn adopt(&mut self, plan: &Plan, reporter: &dyn Reporter) -> Result<()> {
        let wait = Wait::short("preparing the replay");
        let state = &plan.course.start_state;
        if self.logged.is_empty() && !state.is_empty() {
            let statement = format!("SET GLOBAL gtid_binlog_state='{state}'");
            self.session.execute(&statement, wait)?;
            reporter.info(format!("the server has no transactions yet and goes on behind {state}"));
        }
        Ok(())
    }

    fn apply(
        &mut self,
        pipeline: &mut Pipeline,
        source: &dyn LogSource,
        options: &ReplayOptions,
        plan: &Plan,
        cancel: &Cancel,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        // Statements are logged as they are in the log; rows as rows.
        let settings = "SET SESSION pseudo_slave_mode=1, binlog_format=MIXED, completion_type=0, \
                        binlog_annotate_row_events=0, sql_log_bin=1, autocommit=1";
        pipeline.value(settings)?;
        let course = &plan.course;
        let meter = Meter::new(reporter, Phase::Replay, Some(plan.bytes));
        let stop = cancel.child();
        let rows_only_of = self.half_filled(plan)?;
        let limits = self.limits;
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::sync_channel::<Batch>(AHEAD);
            let stop = &stop;
            let reader = scope.spawn(move || -> Result<()> {
                let filter = Filter::new(options.skip.clone(), options.exclude.clone());
                let mut builder = Builder::new(source, course, filter, limits, send);
                builder.rows_only_of = rows_only_of;
                let first = course.resume.unwrap_or(course.start).log;
                let first = (first, Some(course.before.clone()));
                let read = reading(options.keys.as_ref());
                walk(source, &read, first, Some(&course.ends), stop, &mut builder)?;
                builder.flush();
                Ok(())
            });
            let mut applier = Applier::new(pipeline, source, &meter);
            let mut applied = Ok(());
            for batch in receive {
                applied = applier.send(batch);
                if applied.is_err() {
                    // The reader notices that nobody listens.
                    stop.cancel();
                    break;
                }
            }
            let read = reader
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Failed, "reading the logs failed")));
            // What was sent before the logs turned out to be damaged is still applied.
            applied.and_then(|()| applier.wait_for(0)).and(read)
        })?;
        meter.finish();
        Ok(())
    }

    /// Where the last replay ended between a table that was made and the rows that it was made with:
    /// those rows are still to come.
    fn half_filled(&mut self, plan: &Plan) -> Result<Option<Gtid>> {
        let Some((gtid, (database, table))) = &plan.course.resumes_behind else { return Ok(None) };
        let wait = Wait { deadline: PATIENCE, reason: "looking where the last replay ended" };
        let hex = |name: &[u8]| name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let engine = format!(
            "SELECT e.transactions FROM information_schema.tables t JOIN information_schema.engines e \
             USING (engine) WHERE t.table_schema = CONVERT(X'{}' USING utf8) AND t.table_name = \
             CONVERT(X'{}' USING utf8)",
            hex(database),
            hex(table)
        );
        if self.session.value(&engine, wait)?.as_deref() != Some("YES") {
            let message = format!(
                "the replay was interrupted at {gtid}, which fills a table of an engine without \
                 transactions: how much of it is there cannot be known"
            );
            return Err(Error::new(ErrorKind::Usage, message)
                .advise("restore the backup again and replay in one go"));
        }
        let mut name = Vec::new();
        binlog::dump::push_name(&mut name, database);
        name.push(b'.');
        binlog::dump::push_name(&mut name, table);
        let any = format!("SELECT 1 FROM {} LIMIT 1", String::from_utf8_lossy(&name));
        let is_empty = self.session.value(&any, wait)?.is_none();
        Ok(is_empty.then_some(*gtid))
    }

    /// Whether the server takes what the plan has.
    fn check_plan(&mut self, plan: &Plan) -> Result<()> {
        let wait = Wait::short("asking how the server is set up");
        if plan.course.filling == 0
            || self.session.value("SELECT @@GLOBAL.gtid_strict_mode", wait)?.as_deref() != Some("1")
        {
            return Ok(());
        }
        let message = format!(
            "the logs have {} CREATE TABLE … SELECT, whose rows are logged behind their table under \
             the same GTID, which gtid_strict_mode forbids",
            plan.course.filling
        );
        Err(Error::new(ErrorKind::Usage, message)
            .advise("SET GLOBAL gtid_strict_mode=OFF until the replay is done"))
    }
}
