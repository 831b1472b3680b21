//! Where logs are followed to, and what is left out of them: the same words for every command that
//! goes by them.

use std::collections::BTreeSet;
use std::path::Path;

use binlog::Gtid;
use clap::Args;
use engine::replay::target::{Edge, Target};
use engine::{Error, ErrorKind, Result};

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
                return Err(Error::new(ErrorKind::Usage, message).advise("add --before or --after"));
            }
            _ => Edge::Before,
        };
        Ok(Stop { target, edge, skip: self.skip_gtid.into_iter().collect() })
    }
}

impl Stop {
    /// As arguments of a command.
    pub fn arguments(&self) -> String {
        let until = match &self.target {
            Target::End => "end".to_owned(),
            target => quoted(Path::new(&target.to_string())),
        };
        let edge = match self.edge {
            Edge::Before => "--before",
            Edge::After => "--after",
        };
        let skip = self.skip.iter().map(|gtid| format!(" --skip-gtid {gtid}"));
        format!("--until {until} {edge}{}", skip.collect::<String>())
    }
}
