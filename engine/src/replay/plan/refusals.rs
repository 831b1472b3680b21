//! Why there is no plan.
//!
//! Each says what was asked for, what there is instead, and what can be done.

use binlog::Gtid;

use super::super::state::State;
use super::super::target::{Target, When};
use super::super::walk::Place;
use super::Planner;
use crate::{Error, ErrorKind, Result};

impl Planner<'_> {
    /// A target that the data is behind already.
    pub(super) fn refuse_the_past(&self) -> Result<()> {
        let is_past = match self.target {
            Target::Time(time) => self.before.is_some_and(|group| {
                When { seconds: group.time, micros: None }.is_late(*time, self.edge)
                    && self.transactions + self.left_out == 0
            }),
            Target::Position { file, offset } => {
                file == self.name(self.course.start.log) && *offset < self.course.start.offset
            }
            Target::Gtid(_) | Target::End => false,
        };
        if !is_past {
            return Ok(());
        }
        let message = format!(
            "{} is before {}, where the data is already",
            self.target,
            self.at(self.course.start)
        );
        Err(Error::new(ErrorKind::Usage, message).advise("restore an earlier backup"))
    }

    /// Transactions that are to be left out, and that a replay before this one may have applied: of each
    /// server in a domain it is known only which transaction was the last.
    pub(super) fn refuse_what_is_done(&self) -> Result<()> {
        let Some(server) = &self.server else { return Ok(()) };
        let done: Vec<String> = self
            .skipped_before
            .iter()
            .filter(|gtid| server.has(**gtid))
            .map(Gtid::to_string)
            .collect();
        if done.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} is before {server}, where an interrupted replay came to: whether it was left out there \
             cannot be known",
            done.join(",")
        );
        Err(Error::new(ErrorKind::Usage, message)
            .advise("if it was, go on without this --skip-gtid; if not, restore the backup again"))
    }

    /// Why the logs do not begin at the data.
    pub(super) fn no_start(&self) -> Error {
        let wanted = match self.anchor.gtid.is_empty() {
            true => "the beginning of all".to_owned(),
            false => self.anchor.gtid.to_string(),
        };
        if let Some(place) = self.anchor.position.as_ref().filter(|_| self.has_named) {
            let message = format!(
                "{place} is no place between transactions of the logs at which they are at {wanted}"
            );
            return Error::new(ErrorKind::NothingMatches, message).advise(
                "give the logs of the server that the backup is of; for those of another one, give the \
                 GTID position of the data with --from-gtid instead",
            );
        }
        let first = self.source.logs().first().map(|log| State::of(&log.before));
        let first = first.unwrap_or_default();
        let is_beyond = |gtid: Gtid| {
            self.anchor.gtid.get(gtid.domain).is_none_or(|at| at.sequence < gtid.sequence)
        };
        if first.position().iter().any(is_beyond) {
            let message = format!(
                "the logs begin after {first}, and the data is at {wanted}: what is in between is missing"
            );
            return Error::new(ErrorKind::Gap, message)
                .advise("find older logs, or restore a later backup");
        }
        let seen = &self.seen;
        let message =
            format!("the logs, which go from '{first}' to '{seen}', never were at {wanted}");
        Error::new(ErrorKind::NothingMatches, message)
            .advise("give the logs of the server that the backup is of, up to the end")
    }

    /// Why a replay cannot go on at the place that the server's state stands for.
    pub(super) fn stuck_at(&self, place: Place) -> Option<Error> {
        let tables = self.temporary.names().join(", ");
        let why = if !tables.is_empty() {
            format!("the temporary tables that there were are gone: {tables}")
        } else if self.temporary.are_doubtful() {
            "temporary tables were in use just before, and a server logs what it does by itself when a \
             connection ends that has such under the numbers of the transactions that would have come next"
                .to_owned()
        } else {
            return None;
        };
        let message = format!(
            "no replay can go on from {}, which is {}: {why}",
            self.applied,
            self.at(place)
        );
        let error = Error::new(ErrorKind::Usage, message);
        Some(error.advise("restore the backup again and replay in one go"))
    }

    /// Why the server cannot be one that the logs are being applied to.
    pub(super) fn foreign_server(&self) -> Error {
        let server = self.server.as_ref().map(State::to_string).unwrap_or_default();
        let message = format!(
            "the server has logged {server}, which is no state between {} and {}: it has \
             transactions of its own, or of another history",
            self.course.start_state, self.applied
        );
        let has_all = |server: &State| self.seen.position().iter().all(|gtid| server.has(gtid));
        let is_source = self.server.as_ref().is_some_and(has_all);
        Error::new(ErrorKind::Usage, message).advise(match is_source {
            true => {
                "it has all that the logs have, and more: this seems to be the server that wrote them; name \
                 the one that was restored"
            }
            false => {
                "restore the backup again and let nothing write before the replay; if none had begun, and \
                 the server is the restored one, and what it has logged since is unimportant, RESET MASTER \
                 on it"
            }
        })
    }
}
