//! Where logs are followed to, and what is left out of them: the same words for every command that
//! goes by them.

use std::collections::BTreeSet;
use std::path::Path;

use binlog::Gtid;
use clap::Args;
use engine::archive::Archive;
use engine::replay::target::{self, Edge, Target};
use engine::repo::Repository;
use engine::{Cancel, Error, ErrorKind, Result};

use super::quoted;

/// Arguments about a target.
#[derive(Clone, Debug, Args)]
pub struct Until {
    /// Where to stop: 'end', a time, a GTID, or LOG:OFFSET
    #[arg(long, value_name = "TARGET")]
    until: Option<Target>,
    /// Stop before what TARGET names [default, save for GTIDs, where one of both has to be said]
    #[arg(long, conflicts_with = "after", requires = "until")]
    before: bool,
    /// Stop after what TARGET names
    #[arg(long, requires = "until")]
    after: bool,
    /// Leave out a transaction; others that need it will fail
    #[arg(long, value_name = "GTID")]
    skip_gtid: Vec<Gtid>,
    /// Which history is meant, where there are several since a recovery, by the epoch of its log as
    /// 'haulout binlog list' shows it
    #[arg(long, value_name = "EPOCH")]
    epoch: Option<String>,
}

/// What they say.
#[derive(Clone, Debug)]
pub struct Stop {
    /// What is named.
    pub target: Target,
    /// On which side of it to stop.
    pub edge: Edge,
    /// Transactions to leave out.
    pub skip: BTreeSet<Gtid>,
    /// The epoch of the log to go through.
    pub epoch: Option<String>,
}

impl Until {
    /// Whether a target is named.
    pub fn is_given(&self) -> bool {
        self.until.is_some()
    }

    /// What is meant; the end of everything, if no target is named.
    pub fn resolve(self) -> Result<Stop> {
        let target = self.until.unwrap_or(Target::End);
        let edge = match (self.before, self.after, &target) {
            (true, ..) => Edge::Before,
            (_, true, _) => Edge::After,
            (.., Target::Gtid(gtid)) => {
                let message = format!("whether {gtid} itself is to happen is not said");
                let advice = match target::is_like_a_date(*gtid) {
                    true => {
                        "it is a GTID: add --before or --after; a day is written with a time, as in \
                         '2026-02-28 00:00:00'"
                    }
                    false => "add --before or --after",
                };
                return Err(Error::new(ErrorKind::Usage, message).advise(advice));
            }
            _ => Edge::Before,
        };
        Ok(Stop { target, edge, skip: self.skip_gtid.into_iter().collect(), epoch: self.epoch })
    }
}

impl Stop {
    /// As arguments of a command.
    pub fn arguments(&self) -> String {
        let until = quoted(Path::new(&self.target.argument()));
        let edge = match (&self.target, self.edge) {
            // Nothing is behind the end.
            (Target::End, _) => "",
            (_, Edge::Before) => " --before",
            (_, Edge::After) => " --after",
        };
        let skip = self.skip.iter().map(|gtid| format!(" --skip-gtid {gtid}"));
        let epoch = self.epoch.as_ref().map(|epoch| format!(" --epoch {epoch}"));
        let epoch = epoch.unwrap_or_default();
        format!("--until {until}{edge}{}{epoch}", skip.collect::<String>())
    }

    /// The archive of a repository, with the history chosen that is meant.
    pub fn read_archive<'r>(
        &self,
        repository: &'r Repository,
        cancel: &Cancel,
    ) -> Result<Archive<'r>> {
        let mut archive = Archive::read(repository, cancel)?;
        self.epoch.as_ref().map_or(Ok(()), |epoch| archive.choose_history(epoch))?;
        Ok(archive)
    }

    /// Refuses what means nothing where logs are files.
    pub fn of_files(&self) -> Result<()> {
        match self.epoch {
            Some(_) => {
                Err(Error::new(ErrorKind::Usage, "--epoch chooses among the logs of a repository")
                    .advise("give the files of the log that is meant"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_arguments_of_another_command_mean_the_same() {
        let stop = |target: &str, edge| Stop {
            target: target.parse().unwrap(),
            edge,
            skip: BTreeSet::from(["0-1-3".parse().unwrap()]),
            epoch: None,
        };
        for (stop, arguments) in [
            (stop("end", Edge::Before), "--until end --skip-gtid 0-1-3"),
            (stop("0-1-5", Edge::After), "--until 0-1-5 --after --skip-gtid 0-1-3"),
            (stop("2026-011-22", Edge::Before), "--until 2026-011-22 --before --skip-gtid 0-1-3"),
        ] {
            assert_eq!(stop.arguments(), arguments);
        }
    }

    #[test]
    fn a_transaction_that_looks_like_a_day_is_said_to_be_none() {
        let advice = |gtid: &str| {
            let (until, skip_gtid) = (Some(gtid.parse().unwrap()), Vec::new());
            let until = Until { until, before: false, after: false, skip_gtid, epoch: None };
            until.resolve().unwrap_err().advice().unwrap().to_owned()
        };
        assert!(advice("2027-1-1").contains("with a time"));
        assert_eq!(advice("0-1-1"), "add --before or --after");
    }
}
